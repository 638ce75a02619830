"""Rule 27: nobody fails without a reason. The other parts ask whether what was done may be done; this one asks whether an
error was due.

What a request is told is the error that its last attempt ended with, and then nothing allowed another attempt
(`no_retry.py`); or an error of the engine's own, and then what it speaks of is so (`excuses.py`). An attempt's error is what
its answer's status means (`said_by_status.py`), and its clocks have run out (`mistimed.py`). Beside that: every failure has
an error object of its own, a stream that broke says what was delivered of it, and what was counted and what it cost is what
can be added up from outside (`money.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ...errors import InferenceError, NetworkError, RateLimited, StreamInterrupted, Unauthorized
from ...events import (
    AddRequest,
    AttemptEnded,
    Cancel,
    Close,
    Complete,
    Drain,
    Effect,
    Event,
    HeadReceived,
    Notice,
    StartAttempt,
)
from .excuses import Excuses
from .mistimed import mistimed
from .money import Bill
from .no_retry import Failure
from .observed_core import ObservedCore
from .pending import Deployed, Pending
from .root_error import root_of
from .said_by_status import misread
from .violation import InvariantViolated

if TYPE_CHECKING:
    from ..world.node import Call


class Reasons:
    """Holds ``core`` to invariant 27. It has to be there from the first fact on."""

    __slots__ = (
        "_bill", "_excuses", "_failures", "_lanes", "_now", "_registry", "_requests", "_retries", "_step", "_throttled",
        "_told", "_told_in", "_unreported",
    )  # fmt: skip

    def __init__(self, core: ObservedCore) -> None:
        self._registry = core.registry
        self._lanes = {name: Deployed(lane) for name, lane in core.roster.lanes.items()}
        self._excuses = Excuses(core, self._lanes)
        self._requests: dict[int, Pending] = {}
        self._unreported: dict[tuple[int, int], Pending] = {}
        """Those whose attempt was called off, and owes a report."""
        self._told: set[InferenceError] = set()
        self._told_in = 0
        """The errors that were told in this step."""
        self._bill = Bill()
        self._retries: dict[str, int] = {}
        self._failures: dict[str, int] = {}
        self._throttled = 0
        self._now = -math.inf
        self._step = 0

    # ---- as a part of a judge -------------------------------------------------------------------------------------------

    def observed(self, event: Event, effects: Sequence[Effect], now: float, unix_now: float) -> None:
        """Follow one fact, and judge every error that was told."""
        if now > self._now:
            self._now = self._excuses.now = now
        self._step += 1
        take = self._FACTS.get(event.__class__)
        if take is not None:
            take(self, event)
        if effects:
            for effect in effects:
                read = self._EFFECTS.get(effect.__class__)
                if read is not None:
                    read(self, effect)
        if (group := self._excuses.paused) is not None:
            self._excuses.check_paused(group, self._requests)

    def healed(self, now: float, unix_now: float) -> None:
        """What was counted is what was seen."""
        metrics = self._registry.metrics
        for name, seen, shown in (
            ("retries", self._retries, metrics.retries),
            ("failures", self._failures, metrics.failures),
            ("throttled", self._throttled, metrics.throttled),
        ):
            if seen != shown:
                raise InvariantViolated(21, f"{seen} were seen, metrics.{name} is {shown}")
        self._bill.check(self._registry.costs.totals())

    def ended(self, call: Call) -> None:
        """A stream that broke says how far it came."""
        error = call.error
        if call.left or not isinstance(error, StreamInterrupted):
            return
        said, heard = "" if error.partial is None else error.partial.text, "".join(call.text)
        if said != heard:
            about = f"request {call.request_id} was handed {heard!r} before its stream broke, and was told {said!r}"
            raise InvariantViolated(4, about)

    # ---- facts ------------------------------------------------------------------------------------------------------

    def _added(self, event: AddRequest) -> None:
        lane = self._lanes[event.deployment]
        asked = self._requests[event.request_id] = Pending(event, lane, self._step, self._now)
        self._excuses.added(asked)

    def _cancelled(self, event: Cancel) -> None:
        asked = self._requests.pop(event.request_id, None)
        if asked is not None:
            asked.over = True
            self._call_off(asked)

    def _closed(self, event: Close) -> None:
        self._excuses.ending = self._excuses.closed = True
        for asked in self._requests.values():
            self._call_off(asked)

    def _drained(self, event: Drain) -> None:
        self._excuses.ending = True

    def _head_received(self, event: HeadReceived) -> None:
        status = event.head.status
        if status != 200:
            asked = self._requests.get(event.request_id)
            if asked is not None and asked.attempt == event.attempt:
                asked.status = status

    def _attempt_ended(self, event: AttemptEnded) -> None:
        asked = self._requests.get(event.request_id)
        if asked is None or asked.attempt != event.attempt:
            asked = self._unreported.pop((event.request_id, event.attempt), None)
            if asked is not None:
                self._settle(asked, event)
            return
        asked.attempt = 0
        self._settle(asked, event)
        status = asked.status if event.head is None else event.head.status
        if event.error is not None:
            self._failed(asked, event, event.error, status)
            return
        if status not in (0, 200):
            raise InvariantViolated(20, f"{asked} was answered with status {status}, and that counts as a success")
        if event.usage is not None:
            asked.lane.estimate.answered(event.usage.output_tokens)

    def _failed(self, asked: Pending, event: AttemptEnded, error: InferenceError, status: int) -> None:
        lane, exchange, root = asked.lane, asked.exchange, root_of(error)
        assert exchange is not None
        wrong = mistimed(root, asked, exchange, self._now)
        if wrong is None and status not in (0, 200):
            wrong = misread(status, error)
        if wrong is not None:
            raise InvariantViolated(27, f"{asked} {wrong}")
        asked.error, asked.failed_in, asked.scheduled = error, self._step, False
        asked.failure = Failure(
            error,
            lane.retry,
            retries=asked.attempts - asked.refreshed - asked.resent,
            now=self._now,
            deadline=asked.deadline,
            idempotent=lane.lane.deployment.idempotent,
            committed=exchange.committed,
            stale=event.stale,
            refreshed=asked.refreshed,
            resent=asked.resent,
        )
        if isinstance(root, RateLimited):
            self._throttled += 1
            self._excuses.throttled(lane, root.retry_after)

    def _settle(self, asked: Pending, event: AttemptEnded) -> None:
        """An attempt is reported: once, and whether or not anybody still waits for it."""
        exchange, usage, lane = asked.exchange, event.usage, asked.lane
        assert exchange is not None
        unprocessed = isinstance(event.error, NetworkError) and event.error.unprocessed
        used = event.sent and not (usage is None and (unprocessed or exchange.refused))
        if used:
            self._bill.used(usage, lane.lane.price)
        if asked.reserved is not None:
            if used:
                asked.reserved.settle(usage)
            else:
                asked.reserved.give_back()

    def _call_off(self, asked: Pending) -> None:
        exchange = asked.exchange
        if asked.attempt and exchange is not None:
            self._unreported[asked.id, asked.attempt] = asked
            if asked.reserved is not None and not exchange.sent:
                asked.reserved.give_back()

    # ---- orders and notices -------------------------------------------------------------------------------------------

    def _started(self, order: StartAttempt) -> None:
        asked = self._requests.get(order.request_id)
        if asked is None:
            return  # that is somebody else's to say
        lane, now = asked.lane, self._now
        asked.attempt, asked.exchange, asked.started_at, asked.status = order.attempt, order.exchange, now, 0
        asked.attempts += 1
        if asked.attempts == 1:
            lane.debt.asked(now)
        if lane.spending is not None:
            asked.reserved = lane.spending.reserve(lane.estimate.of(asked.add), now)

    def _noticed(self, notice: Notice) -> None:
        kind = notice.kind
        if kind == "retry_scheduled":
            reason = notice.detail["reason"]
            self._retries[reason] = self._retries.get(reason, 0) + 1
            asked = None if notice.request_id is None else self._requests.get(notice.request_id)
            if asked is not None:
                self._scheduled(asked, reason)
        elif kind == "circuit" or kind == "key_circuit":
            self._excuses.circuit_moved(notice)
        elif kind == "refresh_ended":
            self._excuses.refreshed(notice, self._step)

    def _scheduled(self, asked: Pending, reason: str) -> None:
        asked.scheduled = True
        if reason == "unauthorized":
            asked.refreshed = True
        elif reason == "stale_connection":
            asked.resent = True
        elif asked.failure is not None and not asked.failure.invited:
            asked.lane.debt.drawn(self._now)

    def _completed(self, outcome: Complete) -> None:
        asked, error = self._requests.pop(outcome.request_id, None), outcome.error
        if asked is None:
            return
        asked.over = True
        if error is None:
            return
        if self._told_in != self._step:
            self._told_in = self._step
            self._told.clear()
        if error in self._told:
            raise InvariantViolated(4, f"{asked} was told the very error ({error.kind!r}) that another was told")
        self._told.add(error)
        self._failures[error.kind] = self._failures.get(error.kind, 0) + 1
        failure = asked.failure
        if error is asked.error and failure is not None:
            wrong = self._unfounded(asked, error, failure)
        else:
            if (
                error.kind == "circuit_open"
                and asked.failed_in == self._step
                and failure is not None
                and not failure.invited
            ):
                asked.lane.debt.drawn(self._now)  # a retry had been granted
            wrong = self._excuses.wrong(asked, error.kind, self._step)
        if wrong is not None:
            raise InvariantViolated(27, f"{asked} failed with {error.kind!r} after {asked.attempts} attempts, and {wrong}")

    def _unfounded(self, asked: Pending, error: InferenceError, failure: Failure) -> str | None:
        """Why a request should not end with the error of its last attempt, if it should not."""
        if isinstance(error, Unauthorized) and self._excuses.refused_again(asked.lane, self._step):
            return None
        if asked.failed_in != self._step:
            return "it was to be sent again"
        return None if failure.may_end(asked.lane.debt) else "nothing forbade to send it again"

    _FACTS: ClassVar[Mapping[type[Event], Callable[[Any, Any], None]]] = {
        AddRequest: _added,
        AttemptEnded: _attempt_ended,
        Cancel: _cancelled,
        Close: _closed,
        Drain: _drained,
        HeadReceived: _head_received,
    }
    _EFFECTS: ClassVar[Mapping[type[Effect], Callable[[Any, Any], None]]] = {
        Complete: _completed,
        Notice: _noticed,
        StartAttempt: _started,
    }
