"""Invariants 4, 17, 20, 21 and 24, of outcomes: every request has one, which its last attempt accounts for, and is gone
after it. All facts and orders about requests are read here.

`Outcomes` keeps the record of who asked and what runs (`seen.py`) and lets others look at each fact and each order in
turn: `Counts` (5, 20, 21), `Queueing` (6, 7, 11), `Deadlines` (11), `Retrying` (11 to 14, 23), `Secrecy` (19),
`Callers` (4, 17, 20), and at the end `check_nothing_left` (17).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ...errors import InferenceError
from ...events import (
    AbortAttempt,
    AddRequest,
    AskStore,
    AttemptEnded,
    Cancel,
    Close,
    Committed,
    Complete,
    Drain,
    Drained,
    Effect,
    Event,
    HeadReceived,
    Notice,
    RefreshSession,
    SessionReport,
    StartAttempt,
    StoreReport,
    Tick,
)
from ...exchange import Exchange
from .callers import Callers
from .counting import Counts
from .deadlines import Deadlines
from .leftovers import check_nothing_left
from .observed_core import ObservedCore
from .queueing import Queueing
from .retrying import Retrying
from .secrecy import Secrecy
from .seen import Asked, LaneSeen, ran_nothing
from .violation import InvariantViolated


class Outcomes:
    """Every request, from the fact that somebody asks to its outcome. ``secrets``: every credential handed out so far."""

    def __init__(self, core: ObservedCore, secrets: Callable[[], Sequence[str]] = tuple) -> None:
        self._core = core
        self._lanes = {name: LaneSeen(lane) for name, lane in core.roster.lanes.items()}
        self._requests: dict[int, Asked] = {}
        self._unreported: dict[tuple[int, int], Exchange] = {}
        """Attempts that were called off and owe a report, by request and attempt."""
        self._questions: set[tuple[int, int]] = set()
        """Those to the store that no report has answered."""
        self._counts = Counts(core)
        self._queueing = Queueing(core, list(self._lanes.values()))
        self._deadlines = Deadlines()
        self._retrying = Retrying()
        self._secrecy = Secrecy(secrets)
        self._callers = Callers(self._requests)
        self.sent = self._callers.sent
        self.delivered = self._callers.delivered
        self.ended = self._callers.ended
        self._now = -math.inf
        self._step = 0
        self._generation = 0
        self._late = 0
        self._cut: tuple[int, int] | None = None
        self._closing = self._ending = self._draining = False
        self._subject: Asked | None = None
        self._settle: Callable[[Asked | None], None] | None = None
        self._facts: dict[type[Event], Callable[[Any], None]] = {
            AddRequest: self._added,
            Cancel: self._cancelled,
            Committed: self._committed,
            AttemptEnded: self._attempt_ended,
            SessionReport: self._session_reported,
            StoreReport: lambda event: self._questions.discard((event.link, event.ask)),
            Tick: self._ticked,
            Drain: self._drain,
            Close: self._close,
        }
        self._orders: dict[type[Effect], Callable[[Any], None]] = {
            StartAttempt: self._started,
            AbortAttempt: self._aborted,
            Complete: self._completed,
            RefreshSession: self._ignored,
            AskStore: lambda order: self._questions.add((order.link, order.ask)),
            Notice: self._noticed,
            Drained: self._drained,
        }

    # ---- as a part of a judge -------------------------------------------------------------------------------------------

    def observed(self, event: Event, effects: Sequence[Effect], now: float, unix_now: float) -> None:
        """Read the fact, read the orders, compare."""
        if now > self._now:
            self._now = now
        self._step += 1
        kind = event.__class__
        take = self._facts.get(kind)
        if take is not None:
            take(event)
        if effects:
            orders = self._orders
            for effect in effects:
                orders[effect.__class__](effect)
        elif kind is HeadReceived or kind is Committed:
            return  # half of all facts, and nothing came of this one; what it broke all the same shows at the next
        if self._settle is not None:
            settle, self._settle = self._settle, None
            settle(self._subject)
        self._counts.check(len(self._requests))
        self._queueing.check_running(6)
        if self._draining and not (self._requests or self._unreported or self._questions):
            raise InvariantViolated(17, "nothing is outstanding any more, and it does not say that it is drained")
        heap = self._deadlines.heap
        if heap and heap[0][0] <= self._now:
            self._deadlines.check(self._now)

    def healed(self, now: float, unix_now: float) -> None:
        """Nothing is left, here or there."""
        check_nothing_left(self._core, self._requests.values())
        self._callers.healed()
        self._counts.healed()

    # ---- facts ----------------------------------------------------------------------------------------------------------

    def _added(self, event: AddRequest) -> None:
        counts = self._counts
        counts.submitted += 1
        asked = Asked(event, self._lanes[event.deployment], counts.submitted, self._step, self._now)
        self._requests[event.request_id] = self._subject = asked
        self._queueing.added(asked)
        self._deadlines.added(asked)
        self._settle = self._check_added

    def _cancelled(self, event: Cancel) -> None:
        asked = self._requests.pop(event.request_id, None)
        if asked is None:
            return
        self._counts.cancelled += 1
        if asked.attempt:
            self._cut = (asked.id, asked.attempt)
            self._call_off(asked)
        self._forget(asked)
        self._subject, self._settle = asked, self._check_cancelled

    def _committed(self, event: Committed) -> None:
        asked = self._requests.get(event.request_id)
        if asked is not None and asked.attempt == event.attempt:
            asked.committed = True

    def _attempt_ended(self, event: AttemptEnded) -> None:
        asked = self._requests.get(event.request_id)
        if asked is None or asked.attempt != event.attempt:
            self._reported_late(event)
            return
        error, usage, exchange, now = event.error, event.usage, asked.exchange, self._now
        assert exchange is not None
        asked.committed = committed = asked.committed or exchange.committed
        self._stop(asked)
        if event.sent and not (usage is None and ran_nothing(exchange, error)):
            self._counts.used(usage)
        self._deadlines.reported(asked, now)
        if error is None:
            if usage is not None and not (usage.input_tokens or usage.output_tokens):
                raise InvariantViolated(20, f"{asked} was answered, and its usage is said to be zero")
            asked.succeeded = True
            self._subject, self._settle = asked, self._check_over
            return
        self._secrecy.check_error(error)
        if not self._retrying.failed(asked, event, error, committed=committed, now=now):
            self._subject, self._settle = asked, self._check_over

    def _reported_late(self, event: AttemptEnded) -> None:
        """The report of an attempt that was called off counts once; any other late one is nothing."""
        exchange = self._unreported.pop((event.request_id, event.attempt), None)
        if exchange is not None:
            self._late = self._step
            if event.sent and not (event.usage is None and ran_nothing(exchange, event.error)):
                self._counts.used(event.usage)

    def _session_reported(self, event: SessionReport) -> None:
        self._secrecy.learn()
        if isinstance(event.result, InferenceError):
            self._secrecy.check_error(event.result)

    def _ticked(self, event: Tick) -> None:
        self._settle = self._check_waiting

    def _drain(self, event: Drain) -> None:
        self._ending = self._draining = True

    def _close(self, event: Close) -> None:
        self._ending = self._draining = self._closing = True
        self._settle = self._check_closed

    # ---- orders ---------------------------------------------------------------------------------------------------------

    def _started(self, order: StartAttempt) -> None:
        asked = self._requests.get(order.request_id)
        if asked is None:
            raise InvariantViolated(4, f"request {order.request_id} was started, and is over or was never asked")
        if asked.attempt:
            raise InvariantViolated(4, f"attempt {order.attempt} of {asked} was started while {asked.attempt} runs")
        if order.attempt <= self._generation:
            raise InvariantViolated(4, f"attempt {order.attempt} of {asked} was started after attempt {self._generation}")
        now = self._now
        self._deadlines.started(asked, now)
        self._retrying.started(asked, now)
        self._queueing.started(asked)
        self._generation = asked.attempt = order.attempt
        asked.attempts += 1
        asked.exchange = order.exchange
        asked.committed = False
        counts = self._counts
        counts.in_flight += 1
        counts.attempts += 1

    def _aborted(self, order: AbortAttempt) -> None:
        asked = self._requests.get(order.request_id)
        if asked is None:
            if self._cut != (order.request_id, order.attempt):
                about = f"attempt {order.attempt} of request {order.request_id} was cut, and is over or was never started"
                raise InvariantViolated(4, about)
            self._cut = None
            return
        if asked.attempt != order.attempt:
            raise InvariantViolated(4, f"attempt {order.attempt} of {asked} was cut, and {asked.attempt or 'none'} runs")
        if order.error is None:
            raise InvariantViolated(4, f"attempt {order.attempt} of {asked} was cut as if its caller had gone")
        self._secrecy.check_error(order.error)
        if self._closing:
            self._call_off(asked)
        else:
            asked.aborting = True

    def _completed(self, order: Complete) -> None:
        asked = self._requests.pop(order.request_id, None)
        if asked is None:
            raise InvariantViolated(4, f"request {order.request_id} was told an end, and is over or was never asked")
        error, counts = order.error, self._counts
        if asked.attempt:
            raise InvariantViolated(4, f"{asked} was told its end while attempt {asked.attempt} runs")
        if error is None:
            if not asked.succeeded:
                raise InvariantViolated(20, f"{asked} succeeded, and no attempt of it did")
            counts.done += 1
        else:
            if asked.succeeded:
                raise InvariantViolated(4, f"{asked} was answered, and told an error of kind {error.kind!r}")
            if error is not asked.error:
                self._secrecy.check_error(error)
            if error.kind == "backpressure":
                self._queueing.refused(asked, self._now, at_once=asked.step == self._step)
                counts.rejected += 1
            elif asked.step != self._step:
                counts.failed += 1
            else:
                counts.undecided += 1
        self._forget(asked)
        self._callers.completed(asked.id, error)

    def _noticed(self, notice: Notice) -> None:
        self._secrecy.check_notice(notice)
        request_id = notice.request_id
        if request_id is None:
            return
        if notice.kind == "late_usage":
            if self._late != self._step:
                raise InvariantViolated(21, f"usage of request {request_id} came late, and no attempt of it owed a report")
            return
        asked = self._requests.get(request_id)
        if asked is None:
            raise InvariantViolated(4, f"a notice of kind {notice.kind!r} is about request {request_id}, which is over")
        if notice.kind == "retry_scheduled":
            wait = notice.detail["wait"]
            self._deadlines.scheduled(asked, wait, self._now)
            self._retrying.scheduled(asked, notice.detail["reason"], wait, self._now)

    def _drained(self, order: Drained) -> None:
        if not self._draining or self._requests or self._unreported:
            asked_to = "asked to" if self._draining else "not asked to"
            about = f"it says that it is drained ({asked_to}) with {len(self._requests)} requests"
            raise InvariantViolated(4, f"{about} and {len(self._unreported)} reports outstanding")
        self._draining = False

    def _ignored(self, order: Effect) -> None:
        """Somebody else's."""

    # ---- after the orders -----------------------------------------------------------------------------------------------

    def _check_added(self, asked: Asked | None) -> None:
        assert asked is not None
        if not asked.over:
            if self._ending:
                raise InvariantViolated(4, f"{asked} was taken in by an engine that is draining")
            self._queueing.check_added(asked, self._now)

    def _check_over(self, asked: Asked | None) -> None:
        assert asked is not None
        if not asked.over:
            raise InvariantViolated(4, f"{asked} had its last attempt, and is told no end")

    def _check_cancelled(self, asked: Asked | None) -> None:
        """Everything is given back in the step of the cancel."""
        assert asked is not None
        lane, request_id = asked.lane.lane, asked.id
        self._queueing.check_running(24)
        if self._cut is not None:
            raise InvariantViolated(24, f"{asked} was cancelled, and its attempt {self._cut[1]} is not cut")
        if request_id in self._core.registry.requests or request_id in lane.requests:
            raise InvariantViolated(24, f"{asked} was cancelled, and the engine still has it")
        if request_id in lane.queue or request_id in lane.session.parked:
            raise InvariantViolated(24, f"{asked} was cancelled, and still has its place among those who wait")

    def _check_waiting(self, asked: Asked | None) -> None:
        self._queueing.check_waiting(self._now)

    def _check_closed(self, asked: Asked | None) -> None:
        self._closing = False
        for asked in self._requests.values():
            raise InvariantViolated(4, f"the engine was closed, and {asked} is told no end")

    # ---- inside -----------------------------------------------------------------------------------------------------------

    def _stop(self, asked: Asked) -> None:
        asked.attempt = 0
        asked.exchange = None
        asked.aborting = False
        asked.lane.running -= 1
        self._counts.in_flight -= 1

    def _call_off(self, asked: Asked) -> None:
        """A running attempt is taken from its request, and owes a report."""
        assert asked.exchange is not None
        self._unreported[asked.id, asked.attempt] = asked.exchange
        self._stop(asked)

    def _forget(self, asked: Asked) -> None:
        asked.over = True
        self._queueing.over(asked)
