"""When a provider never has to refuse anybody by its own limiter: what `Plan.throttle_free` promises."""

from __future__ import annotations

from ...deployment import Deployment
from ..world.plan import BadNetwork, ClockJump, HostPlan, Plan, host_of
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
