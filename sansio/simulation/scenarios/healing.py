"""How long a world may take to recover once nothing goes wrong any more."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from ...budget import BudgetAction
from ...classify import parse_reset, parse_retry_after
from ...deployment import Deployment
from ..provider.fault_answers import Status, Throttle
from ..world.plan import (
    BadNetwork,
    CallerPlan,
    ClockJump,
    DrainNow,
    Faults,
    HostPlan,
    Operate,
    Plan,
    RotateKey,
    VaultDown,
    host_of,
)
from .scenario import undisturbed_seconds
from .throttling import never_throttles

BEAT: Final = 0.25
"""Seconds. While a world recovers, somebody asks each deployment at least so often: a circuit only closes by requests."""

SLOWING: Final = 40
"""Or, when ``t`` seconds have passed, each ``t / SLOWING``."""

_FETCH: Final = 0.2
"""Seconds the vault takes at most, and some."""

_SPARE: Final = 1.0
_HINT_JITTER: Final = 1.1
_LEAST_RATE: Final = 0.1
_STEPS_TO_FULL_RATE: Final = 90 / 20
"""Windows from the lowest rate to the full one: a percent for each twentieth of a window."""


def heal_bound(plan: Plan) -> float:
    """Seconds after the end of ``plan.seconds`` within which every request that came before has ended and every circuit has
    closed, given that from then on nothing goes wrong and small requests keep coming (`BEAT`, `SLOWING`). Infinite where a
    clock is switched off that it takes. A drained engine sends nothing, so its circuits may stay as they are.

    In the worst case one thing waits for the other, so the bound is their sum:

    1. *clock*: an engine whose clock was set back sees no time pass until it has caught up with the latest time it saw;
    2. *attempts* that bad weather has caught run until a clock of theirs runs out, and then fail; a connection that has
       fallen silent may catch some more while it lasts. These are the last failures;
    3. *pauses*: what these are told to wait: the longest backoff, hint or limiter's pause;
    4. *circuits* that the last failures opened (by now for as long as they ever do), or an operator, or a key's refusal;
       then as many probes as they want and one that the key's rebuild costs, one for each beat;
    5. *credentials*: a refresh that is never answered times out, backs off, and the next one succeeds;
    6. *backlog*: everybody may still wait by then, and is served at the pace of the limits (from their lowest rate, where
       there were 429s) and of the slots, or runs out of time.

    Where nothing but a drain was planned, nothing fails, and an attempt takes what it takes undisturbed.
    """
    spared = never_throttles(plan)
    lanes = [_Lane(plan, deployment, spared) for deployment in plan.deployments]
    attempt = max(lane.attempt for lane in lanes)
    circuit = max(lane.circuit for lane in lanes)
    pause = max(lane.pause for lane in lanes)
    probes = max(lane.probes for lane in lanes)
    total = _clock_lag(plan) + _silence(plan) + attempt + pause + circuit + _credentials(plan) + _backlog(plan, lanes)
    beats = max(probes * BEAT, total * probes / (SLOWING - probes))  # b = (total + n b) / SLOWING, for n of them
    return total if total == math.inf else math.ceil(10.0 * (total + beats + _SPARE)) / 10.0


class _Lane:
    """A deployment, and what of a plan concerns it. ``spared``: no provider ever refuses anybody by its limits."""

    def __init__(self, plan: Plan, deployment: Deployment, spared: bool) -> None:
        host = host_of(deployment)
        self.deployment = deployment
        self.host = next((each for each in plan.hosts if each.host == host), HostPlan(host))
        self.callers = [caller for caller in plan.callers if caller.deployment == deployment.name]
        self.faults = [
            fault for each in plan.disturbances if isinstance(each, Faults) and each.host == host for fault, _ in each.rates
        ]
        tokens = max((caller.output_tokens for caller in self.callers), default=1)
        reading = max(map(_reading, self.callers), default=0.0)
        self.undisturbed = undisturbed_seconds(self.host, plan.conditions, tokens) + reading
        self.refusal = _refusal(plan, deployment, self.host)
        by_limit = self.host.limits is not None and not spared
        self.throttled = by_limit or any(isinstance(fault, Throttle) for fault in self.faults)
        self.pause = self._pause(plan)
        if all(isinstance(each, DrainNow) for each in plan.disturbances):
            self.attempt, self.circuit, self.probes = self.undisturbed, 0.0, 0
            return
        self.attempt = self._attempt(tokens, reading)
        self.circuit = self._circuit(plan)
        self.probes = 2 + deployment.config.circuit_breaker.success_threshold

    def _attempt(self, tokens: int, reading: float) -> float:
        """Each token may come just within its clock; the caller's own time counts towards the total only."""
        t = self.deployment.config.timeouts
        pieces = (tokens + 1) * _or_for_ever(t.content_timeout)
        by_parts = _or_for_ever(t.connect_timeout) + t.first_byte(stream=False) + pieces + reading
        return min(by_parts, _or_for_ever(t.total_timeout))

    def _pause(self, plan: Plan) -> float:
        ours, theirs = self.deployment.config.rate_limits, self.host.limits
        longest = max((*self._hints(plan), ours.window + ours.delivery_guard, 1.0 + (theirs.window if theirs else 0.0)))
        return max(_HINT_JITTER * longest, self.deployment.config.retry.max_backoff)

    def _hints(self, plan: Plan) -> Iterator[float]:
        """What scripted answers ask for. A date is as far away as our wall clock is behind."""
        for fault in self.faults:
            if isinstance(fault, Throttle):
                yield parse_retry_after(fault.retry_after, 0.0) or 0.0
                yield (parse_retry_after(fault.retry_after_ms, 0.0) or 0.0) / 1000.0
                yield parse_reset(fault.reset, 0.0) or 0.0
                yield 0.0 if fault.retry_date is None else fault.retry_date + 1.0 + _wall_lag(plan)
            elif isinstance(fault, Status):
                yield parse_retry_after(dict(fault.headers).get("retry-after"), 0.0) or 0.0

    def _circuit(self, plan: Plan) -> float:
        breaker = self.deployment.config.circuit_breaker
        longest = max(breaker.open_duration, breaker.max_open_duration, *self._hints(plan), 0.0)
        for each in plan.disturbances:
            if isinstance(each, Operate) and each.action == "open":
                longest = max(longest, each.at + each.seconds - plan.seconds)
        return longest + (1 + breaker.success_threshold) * self.undisturbed


def _clock_lag(plan: Plan) -> float:
    """By how much the engine's clock is behind the latest time it has seen, when the first phase ends."""
    ahead, latest = 0.0, 0.0
    for jump in sorted((each for each in plan.disturbances if isinstance(each, ClockJump)), key=lambda each: each.at):
        latest = max(latest, jump.at + ahead)
        ahead += jump.monotonic
    return max(0.0, latest - (plan.seconds + ahead))


def _wall_lag(plan: Plan) -> float:
    """By how much the engine's wall clock is behind the provider's, at most."""
    behind, most = 0.0, 0.0
    for jump in sorted((each for each in plan.disturbances if isinstance(each, ClockJump)), key=lambda each: each.at):
        behind -= jump.wall
        most = max(most, behind)
    return most


def _credentials(plan: Plan) -> float:
    changes = any(isinstance(each, (RotateKey, VaultDown)) for each in plan.disturbances)
    refused = any(
        isinstance(fault, Status) and fault.code == 401
        for each in plan.disturbances
        if isinstance(each, Faults)
        for fault, _ in each.rates
    )
    if not (changes or refused or any(host.key_lifetime is not None for host in plan.hosts)):
        return _FETCH
    return plan.session.refresh_timeout + plan.session.backoff.max_backoff + 2 * _FETCH


def _silence(plan: Plan) -> float:
    """How long a connection may stay silent."""
    networks = (each.conditions for each in plan.disturbances if isinstance(each, BadNetwork))
    return max((network.stall_seconds for network in networks if network.stalled), default=0.0)


def _backlog(plan: Plan, lanes: list[_Lane]) -> float:
    """The time until the last of those who wait has been served: either all of them are, or those with a timeout have
    run out of it and the others are."""
    groups: dict[object, list[_Lane]] = {}
    for lane in lanes:
        key = (lane.host.host, lane.deployment.config.secret, lane.deployment.model)
        groups.setdefault(key, []).append(lane)
    longest = 0.0
    for group in groups.values():
        everybody = [caller for lane in group for caller in lane.callers]
        patient = [caller for caller in everybody if caller.timeout is None]
        hurried = (caller.at + caller.timeout - plan.seconds for caller in everybody if caller.timeout is not None)
        given_up = max(0.0, max(hurried, default=0.0))
        longest = max(longest, min(_serving(plan, group, everybody), given_up + _serving(plan, group, patient)))
    return longest


def _serving(plan: Plan, group: list[_Lane], callers: list[CallerPlan]) -> float:
    """How long a limiter and its lanes take over these callers. With every slot in use while somebody waits, the work of all
    takes its share on each slot, and the longest piece of it at most comes on top (R. L. Graham, 1966)."""
    busy = 0.0
    attempts = 0
    for lane in group:
        mine = [caller for caller in callers if caller.deployment == lane.deployment.name]
        tries = 1 + (lane.deployment.config.retry.max_retries if lane.refusal < 1.0 else 0)
        work = sum(
            undisturbed_seconds(lane.host, plan.conditions, caller.output_tokens) + _reading(caller) for caller in mine
        )
        busy += work * tries / _slots(lane.deployment) + lane.undisturbed
        attempts += len(mine) * tries
    return busy + _by_limits(group, attempts, callers)


def _by_limits(group: list[_Lane], attempts: int, callers: list[CallerPlan]) -> float:
    """``attempts``, and as many small requests as may be under way beside them, at the pace of each limit.

    Where tokens are counted and the next request does not fit, it and the window together hold more than the limit: there
    are at most twice as many windows as the tokens fill, and one. Who does not say how long the answer may be reserves all
    there is: a window each, until that is settled.
    """
    limits = group[0].deployment.config.rate_limits
    span = limits.window + limits.delivery_guard
    share = max(_LEAST_RATE, min(lane.refusal for lane in group) / 2) if group[0].refusal < 1.0 else 1.0
    attempts += 2 * len(group)
    seconds = _STEPS_TO_FULL_RATE * limits.window if any(lane.throttled for lane in group) else 0.0
    if limits.requests_per_minute is not None:
        seconds += math.ceil(attempts / max(1, int(share * limits.requests_per_minute))) * span
    told = [caller for caller in callers if caller.limits_output]
    for limit in (limits.tokens_per_minute, limits.input_tokens_per_minute, limits.output_tokens_per_minute):
        if limit is not None and callers:
            each = attempts / len(callers)
            tokens = each * sum(len(caller.said) // 4 + 10 + caller.output_tokens for caller in told)
            windows = 2 * math.ceil(tokens / (share * limit)) + 1 + math.ceil(each * (len(callers) - len(told)))
            seconds += windows * span
    return seconds


def _slots(deployment: Deployment) -> int:
    """How many attempts run at a time, at least."""
    slots, spending = deployment.served.max_concurrent, deployment.spending
    if spending is not None and spending.on_exceeded is BudgetAction.THROTTLE:
        slots = max(1, slots // 2)
    return min(slots, deployment.config.rate_limits.concurrent_requests or slots)


def _reading(caller: CallerPlan) -> float:
    """What a slow reader takes: for each token, and for the chunks before and behind them."""
    return caller.reads_every * (caller.output_tokens + 4)


def _refusal(plan: Plan, deployment: Deployment, host: HostPlan) -> float:
    """The part of our limits that the provider allows, at most all: below 1 it refuses, whatever the weather, and 429s halve
    our rate until it is no more than that. Two keys of ours may be one account of theirs."""
    ours, theirs = deployment.config.rate_limits, host.limits
    if theirs is None:
        return 1.0
    alike = (each for each in plan.deployments if (host_of(each), each.model) == (host.host, deployment.model))
    keys = len({each.config.secret for each in alike})
    pairs = ((ours.requests_per_minute, theirs.requests_per_minute), (ours.tokens_per_minute, theirs.tokens_per_minute))
    parts = [0.0 if our is None else their / (our * keys) for our, their in pairs if their is not None]
    return min(1.0, ours.window / theirs.window, *parts)


def _or_for_ever(seconds: float | None) -> float:
    return math.inf if seconds is None else seconds
