"""Invariants 8, 9, 10, 12, 17 and 24, of limits: what is charged to each limiter, what runs under it, and whether anybody
waits for it in vain.

Each start is charged what its request has to reserve (`naive_estimate.py`), each end puts what was really used in its place,
and what was not sent is given back. The limiter's own levels have to lie between what the window holds and what it may hold
on to a little longer. Whether somebody waits in vain (9) is the one question for which engine and limiter are asked as well:
who is first in a queue, how many slots there are, and whether there is room by what the limiter counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, TypeAlias

from ...errors import InferenceError, RateLimited
from ...events import (
    AddRequest,
    AttemptEnded,
    Cancel,
    Close,
    Effect,
    Event,
    Notice,
    OverrideCircuit,
    SessionReport,
    StartAttempt,
    Tick,
)
from ...lane import Group, Lane, Request
from ...secret import Credential
from .naive_estimate import NaiveEstimate
from .naive_ledger import NaiveCharge, NaiveLedger
from .observed_core import ObservedCore
from .root_error import root_of
from .violation import InvariantViolated
from .watched_limiter import WatchedLimiter

_CALLED_OFF: Final = (Cancel, Close)
_MAY_FREE: Final = frozenset((AddRequest, AttemptEnded, Cancel, OverrideCircuit, SessionReport, Tick))
"""The facts after which somebody may have what was waited for."""

_RECOVERS_WITHIN: Final = 4.5
"""Windows until a limiter that was throttled gives its full rate again: ninety steps of a twentieth, at most."""


class _Group:
    """What is known of one limiter. ``undisturbed_from``: when no 429 lowers its rate any more, at the latest."""

    __slots__ = ("group", "ledger", "limiter", "most", "paused_until", "plain", "running", "undisturbed_from")

    def __init__(self, group: Group, limiter: WatchedLimiter) -> None:
        limits = limiter.limits
        self.group = group
        self.limiter = limiter
        self.ledger = NaiveLedger(limits)
        self.most = math.inf if limits.concurrent_requests is None else limits.concurrent_requests
        self.running = 0
        self.paused_until = self.undisturbed_from = -math.inf
        self.plain = all(lane.deployment.served.age_after is None for lane in group.lanes)
        """Whether the heads of its queues may be looked at: where entries age, looking lets them."""


_Attempt: TypeAlias = tuple[StartAttempt, Lane, _Group, NaiveCharge]
"""A running attempt: its order, its lane, its limiter, and what it is charged there."""


class LimitModel:
    """Holds the limiters of ``core`` to invariants 8, 9, 10, 17 and 24, and to the pause that a 429 orders (12).

    It puts limiters of its own in the engine's place. Raises `ValueError` if that has been told a fact already.
    """

    __slots__ = (
        "_closed", "_estimates", "_lives", "_models", "_now", "_registry", "_running", "_slots", "_touched", "_unix_latest",
        "_unreported",
    )  # fmt: skip

    def __init__(self, core: ObservedCore) -> None:
        if core.facts:
            raise ValueError(f"core: has been told {core.facts} facts already, and must be judged from its first")
        self._registry = core.registry
        # What is shared with other processes cannot be judged by one of them.
        alone = [group for group in core.roster.groups if group.link is None]
        self._models = {group.index: _Group(group, _watched(group)) for group in alone}
        self._estimates = [NaiveEstimate(lane.group.limiter.limits) for lane in core.roster.lanes.values()]
        """What a request of each lane has to reserve."""
        self._running: dict[int, _Attempt] = {}
        self._unreported: dict[tuple[int, int], _Attempt] = {}
        """What was called off after it was sent: its usage may still come."""
        self._slots = [0] * len(core.roster.lanes)
        """How many run in each lane."""
        self._lives = [(-math.inf, -math.inf)] * len(core.roster.sessions)
        """When each session's credential expires, by both clocks."""
        self._touched: list[_Attempt] = []
        """Attempts that the last fact began or ended."""
        self._now = self._unix_latest = -math.inf
        self._closed = False

    def observed(self, event: Event, effects: Sequence[Effect], now: float, unix_now: float) -> None:
        """Follow one fact, and compare. Raises `InvariantViolated`."""
        if self._closed:
            return
        if now > self._now:
            self._now = now
        if unix_now > self._unix_latest:
            self._unix_latest = unix_now
        take = self._FACTS.get(event.__class__)
        if take is not None:
            take(self, event)
        for effect in effects:
            if isinstance(effect, StartAttempt):
                self._started(effect)
        if self._touched:
            self._compare(24 if event.__class__ in _CALLED_OFF else 10)
        if isinstance(event, SessionReport):
            self._refreshed(event, effects, unix_now)
        if self._registry.metrics.queued and event.__class__ in _MAY_FREE:
            for model in self._models.values():
                self._check_heads(model)

    def healed(self, now: float, unix_now: float) -> None:
        """Nothing is in flight."""
        for model in self._models.values():
            running, known = model.running, model.limiter.in_flight
            if running or known:
                raise InvariantViolated(17, f"{running} attempts are under way, {known} by limiter {model.group.index}")

    # ---- facts ------------------------------------------------------------------------------------------------------

    def _ended(self, event: AttemptEnded) -> None:
        run = self._running.get(event.request_id)
        if run is None or run[0].attempt != event.attempt:
            self._late_usage(event)
            return
        del self._running[event.request_id]
        self._over(run)
        _, lane, model, charge = run
        if event.sent:
            model.ledger.settle(charge, event.usage)
        else:
            model.ledger.give_back(charge)
        if event.error is None and event.usage is not None:
            self._estimates[lane.index].answered(event.usage.output_tokens)
        elif event.error is not None and isinstance(root := root_of(event.error), RateLimited):
            self._throttled(lane, model, root)

    def _late_usage(self, event: AttemptEnded) -> None:
        run = self._unreported.pop((event.request_id, event.attempt), None)
        if run is not None and event.sent:
            run[2].ledger.settle(run[3], event.usage)
            self._touched.append(run)

    def _throttled(self, lane: Lane, model: _Group, error: InferenceError) -> None:
        """A 429 pauses everybody until its hint, and lowers the rate."""
        hint = error.retry_after if lane.deployment.config.retry.respect_retry_after else None
        if hint is not None and 0 < hint < math.inf:
            model.paused_until = max(model.paused_until, self._now + hint)
        recovers = max(self._now, model.paused_until) + _RECOVERS_WITHIN * model.limiter.limits.window
        model.undisturbed_from = max(model.undisturbed_from, recovers)

    def _cancelled(self, event: Cancel) -> None:
        run = self._running.pop(event.request_id, None)
        if run is not None:
            self._call_off(event.request_id, run)

    def _all_cancelled(self, event: Close) -> None:
        """Everything is called off, and nothing starts any more."""
        self._closed = True
        for request_id, run in self._running.items():
            self._call_off(request_id, run)
        self._running.clear()

    def _refreshed(self, event: SessionReport, effects: Sequence[Effect], unix_now: float) -> None:
        """A credential that was taken is good until it expires."""
        ends = [
            effect.detail["result"] for effect in effects if isinstance(effect, Notice) and effect.kind == "refresh_ended"
        ]
        if isinstance(event.result, Credential) and ends[:1] in (["renewed"], ["unchanged"]):
            expires_at = event.result.expires_at_unix
            for_ever = (math.inf, math.inf)
            self._lives[event.session] = (
                for_ever if expires_at is None else (self._now + (expires_at - unix_now), expires_at)
            )

    # ---- orders -------------------------------------------------------------------------------------------------------

    def _started(self, start: StartAttempt) -> None:
        request = self._registry.requests[start.request_id]
        lane, now = request.lane, self._now
        model = self._models.get(lane.group.index)
        if model is None:
            return
        ledger = model.ledger
        ledger.let_pass(now)
        charge = ledger.charge(now, *self._estimates[lane.index].of(request.add))
        run = self._running[start.request_id] = (start, lane, model, charge)
        self._touched.append(run)
        model.running += 1
        self._slots[lane.index] += 1
        if now < model.paused_until:
            about = f"request {start.request_id} was started while a 429 pauses limiter {model.group.index}"
            raise InvariantViolated(12, f"{about}: the bucket is paused")
        if model.running > model.most:
            raise InvariantViolated(8, f"{model.running} attempts at once, and concurrent_requests={model.most}")
        if (exceeded := ledger.exceeded(now)) is not None:
            raise InvariantViolated(8, f"limiter {model.group.index}: {exceeded}")
        if ledger.outpaced(now):
            raise InvariantViolated(8, f"limiter {model.group.index}: more at once than burst={model.limiter.limits.burst}")

    # ---- what follows ---------------------------------------------------------------------------------------------------

    def _over(self, run: _Attempt) -> None:
        run[2].running -= 1
        self._slots[run[1].index] -= 1
        self._touched.append(run)

    def _call_off(self, request_id: int, run: _Attempt) -> None:
        """What was sent stays charged until its usage is known; everything else comes back at once."""
        self._over(run)
        start, _, model, charge = run
        if start.exchange.sent:
            self._unreported[request_id, start.attempt] = run
        else:
            model.ledger.give_back(charge)

    # ---- comparing --------------------------------------------------------------------------------------------------------

    def _compare(self, number: int) -> None:
        """What is held is what runs. ``number``: of the invariant that is broken where it is not."""
        for _, lane, model, _ in self._touched:
            if model.limiter.in_flight != model.running:
                counted = model.limiter.in_flight
                raise InvariantViolated(number, f"limiter {model.group.index} counts {counted} of {model.running} in flight")
            if lane.running != self._slots[lane.index]:
                taken = self._slots[lane.index]
                raise InvariantViolated(
                    number, f"lane {lane.index} has {lane.running} slots taken, and {taken} attempts run"
                )
            if model.ledger.limits:
                self._compare_levels(model, number)
        self._touched.clear()

    def _compare_levels(self, model: _Group, number: int) -> None:
        """No less counts than the window holds and, but for what headers said, no more than is kept."""
        now, ledger, limiter = self._now, model.ledger, model.limiter
        ledger.let_pass(now)
        for kind, level_at in limiter.levels:
            level, kept = level_at(now), ledger.sums[kind]
            if level < kept and level < (held := ledger.in_window(now)[kind]):
                raise InvariantViolated(8, f"limiter {model.group.index} counts {level}, where its window holds {held}")
            if level > kept and now >= limiter.believed_until:
                about = f"limiter {model.group.index} counts {level}, where {kept} were charged"
                raise InvariantViolated(number, about)

    def _check_heads(self, model: _Group) -> None:
        """9: the best head that lacks nothing but the limiter's leave does not have that either."""
        now, best = self._now, None
        if not model.plain or now < model.undisturbed_from:
            return
        for lane in model.group.lanes:
            if lane.running >= lane.slots(now) or (entry := lane.queue.peek(now)) is None:
                continue
            if not self._is_free(lane):
                return  # who stands here may go first, for all that is known
            request = entry.payload
            assert isinstance(request, Request)
            if best is None or (-request.add.priority, request.order) < (-best.add.priority, best.order):
                best = request
        if best is not None and model.limiter.has_room(*self._estimates[best.lane.index].of(best.add), now):
            raise InvariantViolated(9, f"request {best.add.request_id} waits, and lacks nothing")

    def _is_free(self, lane: Lane) -> bool:
        """Whether nothing but the limiter can hold anybody up here: both circuits closed, a credential known to be good."""
        expires_at, expires_at_unix = self._lives[lane.session.index]
        alive = lane.session.refusal is None and self._now < expires_at and self._unix_latest < expires_at_unix
        return alive and lane.circuit.breaker.undisturbed and lane.key_circuit.breaker.undisturbed

    _FACTS: ClassVar[Mapping[type[Event], Callable[[Any, Any], None]]] = {
        AttemptEnded: _ended,
        Cancel: _cancelled,
        Close: _all_cancelled,
    }


def _watched(group: Group) -> WatchedLimiter:
    """The group's limiter, from now on one with its books open."""
    limiter = group.limiter
    if not isinstance(limiter, WatchedLimiter):
        limiter = group.limiter = WatchedLimiter(limiter.limits)
    return limiter
