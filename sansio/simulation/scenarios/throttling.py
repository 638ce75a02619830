"""When a provider never refuses anybody by its own limiter: what `Plan.throttle_free` promises, and whether it is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...deployment import Deployment
from ...events import AttemptEnded, Effect, Event
from ..judge.violation import InvariantViolated
from ..provider.provider_limiter import ProviderLimiter, ProviderLimits
from ..world.plan import BadNetwork, ClockJump, HostPlan, Plan, host_of
from ..world.world import World
from .sites import delivery_seconds


def never_throttles(plan: Plan) -> bool:
    """Whether no provider of this plan ever has to refuse anybody by its limits, and one of them has limits at all.

    That is so for a host and a model where

    - every deployment with them shares one limiter of ours (they have the key in common too);
    - ours is as strict: the same window, no dimension's limit above theirs;
    - whoever asks says how long the answer may be, where theirs counts tokens: then nothing costs more than was reserved;
    - a request arrives within our guard of its grant: fine weather on the network, no waiting for one of few connections;
    - our clock runs: a leap forward frees what the provider still counts.

    Faults do not matter: what they leave unknown stays reserved, and a 429 only lowers our rate.
    """
    limited = [host for host in plan.hosts if host.limits is not None]
    if not limited or any(isinstance(each, (BadNetwork, ClockJump)) for each in plan.disturbances):
        return False
    if plan.pool is not None and plan.pool.max_connections_per_origin is not None:
        return False
    return all(_spared(plan, host) for host in limited)


def _spared(plan: Plan, host: HostPlan) -> bool:
    served = [deployment for deployment in plan.deployments if host_of(deployment) == host.host]
    keys = {(deployment.model, deployment.config.secret) for deployment in served}
    if len(keys) > len({model for model, _ in keys}):
        return False
    assert host.limits is not None
    names = {deployment.name for deployment in served}
    if host.limits.tokens_per_minute is not None and not all(
        caller.limits_output for caller in plan.callers if caller.deployment in names
    ):
        return False
    return all(_as_strict(plan, deployment, host) for deployment in served)


def _as_strict(plan: Plan, deployment: Deployment, host: HostPlan) -> bool:
    ours, theirs = deployment.config.rate_limits, host.limits
    assert theirs is not None
    pairs = ((ours.requests_per_minute, theirs.requests_per_minute), (ours.tokens_per_minute, theirs.tokens_per_minute))
    return (
        ours.window == theirs.window
        and ours.delivery_guard >= delivery_seconds(plan.conditions)
        and all(their is None or (our is not None and our <= their) for our, their in pairs)
    )


def limiters(plan: Plan, world: World) -> Iterator[tuple[str, str, ProviderLimiter, ProviderLimits]]:
    """Each limiter of a provider, with its host, its model and what it allows."""
    for host, model in sorted({(host_of(each), each.model) for each in plan.deployments}):
        limiter, limits = world.providers[host].limiter(model), world.hosts[host].limits
        if limiter is not None and limits is not None:
            yield host, model, limiter, limits


class NeverThrottled:
    """Holds a world to the promise that nobody meets a provider's own limiter (8): as soon as an attempt has failed after
    that, and at the end."""

    def __init__(self, plan: Plan, world: World) -> None:
        self._limiters = list(limiters(plan, world))

    def observed(self, event: Event, effects: Sequence[Effect], now: float, unix_now: float) -> None:
        """One step of the engine. Raises `InvariantViolated`."""
        if isinstance(event, AttemptEnded) and event.error is not None:
            self.check()

    def check(self) -> None:
        """Raises `InvariantViolated` if anybody was refused."""
        for host, model, limiter, _ in self._limiters:
            if limiter.refused:
                about = f"{host} had to refuse {limiter.refused} requests for {model} by its own limit"
                raise InvariantViolated(8, f"{about}, and ours is as strict")
