"""Rule 27: nobody fails without a reason. The other parts ask whether what was done may be done; this one asks whether an
error was due.

What a request is told is the error that its last attempt ended with, and then nothing allowed another attempt
(`no_retry.py`); or an error of the engine's own, and then what it speaks of is so: the deadline, the pause, the circuit, the
limit, the budget. An attempt's error is what its answer's status means (`said_by_status.py`). Beside that: every failure has
an error object of its own, a stream that broke says what was delivered of it, and what was counted and what it cost is what
can be added up from outside (`money.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, ClassVar

from ...errors import DeadlineExceeded, InferenceError, NetworkError, RateLimited, StreamInterrupted, Timeout, Unauthorized
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
from ...exchange import Exchange
from ...http import Timeouts
from ...lane import Lane
from .money import Bill, Reserved, Spending, spending_of
from .naive_estimate import NaiveEstimate
from .no_retry import Failure, RetryDebt
from .observed_core import ObservedCore
from .root_error import root_of
from .said_by_status import misread
from .violation import InvariantViolated

if TYPE_CHECKING:
    from ..world.node import Call


class _Lane:
    """One deployment. circuits: its endpoint's and its key's, by number."""

    __slots__ = ("circuits", "debt", "estimate", "group", "lane", "limits", "retry", "session", "spending", "waits")

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.retry = lane.deployment.config.retry
        self.limits = lane.group.limiter.limits
        self.group = lane.group.index
        self.circuits = (lane.circuit.index, lane.key_circuit.index)
        self.session = lane.session.index
        self.waits = lane.waits_for_circuit
        self.debt = RetryDebt()
        self.estimate = NaiveEstimate(self.limits)
        self.spending: Spending | None = spending_of(lane)


class _Asked:
    """One request. error, failed: what its last attempt ended with, and in which step. scheduled: it is to be sent again."""

    __slots__ = (
        "add", "attempt", "attempts", "deadline", "error", "exchange", "failed", "failure", "id", "lane", "refreshed",
        "resent", "reserved", "scheduled", "started_at", "status", "step", "waits",
    )  # fmt: skip

    def __init__(self, add: AddRequest, lane: _Lane, step: int, now: float) -> None:
        self.id = add.request_id
        self.add = add
        self.lane = lane
        self.step = step
        self.deadline = None if add.timeout is None else now + add.timeout
        self.waits = lane.waits if add.wait_for_circuit is None else add.wait_for_circuit
        self.attempts = self.attempt = self.status = self.failed = 0
        self.exchange: Exchange | None = None
        self.started_at = now
        self.error: InferenceError | None = None
        self.failure: Failure | None = None
        self.scheduled = self.refreshed = self.resent = False
        self.reserved: Reserved | None = None

    def __str__(self) -> str:
        return f"request {self.id} of {self.lane.lane.deployment.name!r}"


class Reasons:
    """Holds ``core`` to invariant 27. It has to be there from the first fact on."""

    __slots__ = (
        "_attempt_of", "_bill", "_closed", "_deadlines", "_disturbed", "_ending", "_failures", "_lanes", "_now", "_paused",
        "_pauses", "_refreshes", "_registry", "_requests", "_retries", "_step", "_throttled", "_told", "_unreported",
    )  # fmt: skip

    def __init__(self, core: ObservedCore) -> None:
        roster = core.roster
        self._registry = core.registry
        self._lanes = {name: _Lane(lane) for name, lane in roster.lanes.items()}
        self._requests: dict[int, _Asked] = {}
        self._unreported: dict[tuple[int, int], _Asked] = {}
        """Those whose attempt was called off, and owes a report."""
        self._told: set[InferenceError] = set()
        self._disturbed: set[int] = set()
        """The circuits that are not closed, by number."""
        self._pauses = [-math.inf] * len(roster.groups)
        """When each limiter's pause ends."""
        self._deadlines: list[list[tuple[float, int, _Asked]]] = [[] for _ in roster.groups]
        self._paused: int | None = None
        """The limiter whose pause the last fact has made longer."""
        self._refreshes = [(0, "")] * len(roster.sessions)
        """The step in which each session's last refresh ended, and how."""
        self._bill = Bill()
        self._retries: dict[str, int] = {}
        self._failures: dict[str, int] = {}
        self._throttled = 0
        self._now = -math.inf
        self._step = 0
        self._ending = self._closed = False

    # ---- as a part of a judge -------------------------------------------------------------------------------------------

    def observed(self, event: Event, effects: Sequence[Effect], now: float, unix_now: float) -> None:
        """Follow one fact, and judge every error that was told."""
        if now > self._now:
            self._now = now
        self._step += 1
        take = self._FACTS.get(event.__class__)
        if take is not None:
            take(self, event)
        for effect in effects:
            read = self._EFFECTS.get(effect.__class__)
            if read is not None:
                read(self, effect)
        if self._paused is not None:
            group, self._paused = self._paused, None
            self._check_paused(group)

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
        asked = self._requests[event.request_id] = _Asked(event, lane, self._step, self._now)
        if asked.deadline is not None:
            heappush(self._deadlines[lane.group], (asked.deadline, asked.step, asked))

    def _cancelled(self, event: Cancel) -> None:
        asked = self._requests.pop(event.request_id, None)
        if asked is not None and asked.attempt:
            self._call_off(asked)

    def _close(self, event: Close) -> None:
        self._ending = self._closed = True
        for asked in self._requests.values():
            if asked.attempt:
                self._call_off(asked)

    def _drain(self, event: Drain) -> None:
        self._ending = True

    def _head_received(self, event: HeadReceived) -> None:
        status = event.head.status
        if status != 200:
            asked = self._requests.get(event.request_id)
            if asked is not None and asked.attempt == event.attempt:
                asked.status = status

    def _ended(self, event: AttemptEnded) -> None:
        asked = self._requests.get(event.request_id)
        if asked is None or asked.attempt != event.attempt:
            asked = self._unreported.pop((event.request_id, event.attempt), None)
            if asked is not None:
                self._settle(asked, event)
            return
        exchange, error = asked.exchange, event.error
        assert exchange is not None
        status = asked.status if event.head is None else event.head.status
        asked.attempt = 0
        self._settle(asked, event)
        if error is None:
            if status not in (0, 200):
                raise InvariantViolated(20, f"{asked} was answered with status {status}, and counts as a success")
            if event.usage is not None:
                asked.lane.estimate.answered(event.usage.output_tokens)
            return
        wrong = _mistimed(error, asked, exchange, self._now)
        if wrong is None and status not in (0, 200):
            wrong = misread(status, error)
            if wrong is not None:
                wrong = f"was answered with status {status}, which {wrong}"
        if wrong is not None:
            raise InvariantViolated(27, f"{asked} {wrong}")
        self._failed(asked, event, error, committed=exchange.committed)

    def _failed(self, asked: _Asked, event: AttemptEnded, error: InferenceError, *, committed: bool) -> None:
        lane = asked.lane
        asked.error, asked.failed, asked.scheduled = error, self._step, False
        asked.failure = Failure(
            error,
            lane.retry,
            retries=asked.attempts - asked.refreshed - asked.resent,
            now=self._now,
            deadline=asked.deadline,
            idempotent=lane.lane.deployment.idempotent,
            committed=committed,
            stale=event.stale,
            refreshed=asked.refreshed,
            resent=asked.resent,
        )
        root = root_of(error)
        if isinstance(root, RateLimited):
            self._throttled += 1
            hint = root.retry_after if lane.retry.respect_retry_after else None
            if hint is not None and 0 < hint < math.inf and self._now + hint > self._pauses[lane.group]:
                self._pauses[lane.group] = self._now + hint
                self._paused = lane.group

    def _settle(self, asked: _Asked, event: AttemptEnded) -> None:
        """An attempt is reported: once, and whether or not anybody still waits for it."""
        exchange, usage, lane = asked.exchange, event.usage, asked.lane
        assert exchange is not None
        unprocessed = isinstance(event.error, NetworkError) and event.error.unprocessed
        used = event.sent and not (usage is None and (unprocessed or exchange.refused))
        if used:
            self._bill.used(usage, lane.lane.price)
        if asked.reserved is not None and lane.spending is not None:
            if used:
                lane.spending.settle(asked.reserved, usage)
            else:
                lane.spending.give_back(asked.reserved)

    def _call_off(self, asked: _Asked) -> None:
        exchange, lane = asked.exchange, asked.lane
        assert exchange is not None
        self._unreported[asked.id, asked.attempt] = asked
        if not exchange.sent and asked.reserved is not None and lane.spending is not None:
            lane.spending.give_back(asked.reserved)

    # ---- orders and notices -------------------------------------------------------------------------------------------

    def _started(self, order: StartAttempt) -> None:
        asked = self._requests.get(order.request_id)
        if asked is None:
            return  # whose error that is, others say
        lane, now = asked.lane, self._now
        asked.attempt, asked.exchange = order.attempt, order.exchange
        asked.attempts += 1
        asked.status = 0
        asked.started_at = now
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
            lane = self._lanes[notice.deployment]
            circuit = lane.circuits[kind == "key_circuit"]
            if notice.detail["target"] == "closed":
                self._disturbed.discard(circuit)
            else:
                self._disturbed.add(circuit)
        elif kind == "refresh_ended":
            self._refreshes[self._lanes[notice.deployment].session] = (self._step, notice.detail["result"])

    def _scheduled(self, asked: _Asked, reason: str) -> None:
        asked.scheduled = True
        if reason == "unauthorized":
            asked.refreshed = True
        elif reason == "stale_connection":
            asked.resent = True
        elif asked.failure is not None and not asked.failure.invited:
            asked.lane.debt.drawn(self._now)

    def _completed(self, outcome: Complete) -> None:
        asked, error = self._requests.pop(outcome.request_id, None), outcome.error
        if error is None or asked is None:
            return
        if error in self._told:
            raise InvariantViolated(4, f"{asked} was told the very error ({error.kind!r}) that another was told")
        self._told.add(error)
        self._failures[error.kind] = self._failures.get(error.kind, 0) + 1
        if error is asked.error:
            wrong = self._own(asked, error)
        elif error.kind in self._REASONS:
            wrong = self._REASONS[error.kind](self, asked)
        else:
            wrong = "no attempt of it ended so"
        if wrong is not None:
            raise InvariantViolated(27, f"{asked} failed with {error.kind!r} after {asked.attempts} attempts, and {wrong}")

    # ---- reasons: each says what is wrong, if anything is -----------------------------------------------------------------

    def _own(self, asked: _Asked, error: InferenceError) -> str | None:
        """The error of its last attempt: nothing allowed another."""
        failure = asked.failure
        assert failure is not None
        if isinstance(error, Unauthorized) and self._refreshes[asked.lane.session] == (self._step, "unchanged"):
            return None
        if asked.failed != self._step:
            return "that was decided already"
        return None if failure.may_end(asked.lane.debt) else "nothing forbade to send it again"

    def _deadline(self, asked: _Asked) -> str | None:
        """There is no time left, or none that can be used."""
        deadline, now, lane = asked.deadline, self._now, asked.lane
        if deadline is None:
            return "it has no deadline"
        if now >= deadline or self._pauses[lane.group] >= deadline or not self._has_room(asked):
            return None
        return f"it has {deadline - now:g} s left"

    def _has_room(self, asked: _Asked) -> bool:
        """Whether its limiter would let it pass now, so that there is no wait for it."""
        limits, lane = asked.lane.limits, asked.lane
        if limits.burst is not None:
            return False  # its pace is not shown
        given, wanted = lane.estimate.of(asked.add)
        levels = lane.lane.group.limiter.snapshot(self._now)
        return all(
            level is None or cost <= level.available
            for level, cost in (
                (levels.requests, 1),
                (levels.tokens, given + wanted),
                (levels.input_tokens, given),
                (levels.output_tokens, wanted),
            )
        )

    def _paused_for_long(self, asked: _Asked) -> str | None:
        """A 429 that others met pauses everybody for longer than it waits."""
        lane = asked.lane
        if self._pauses[lane.group] - self._now > lane.retry.max_retry_after:
            return None
        return "its limiter pauses for no longer than it may wait"

    def _circuit(self, asked: _Asked) -> str | None:
        """A circuit of its own is not closed, and it does not wait for it, or not for so long."""
        lane, failure = asked.lane, asked.failure
        if asked.failed == self._step and failure is not None and not failure.invited:
            lane.debt.drawn(self._now)  # a retry had been granted
        disturbed = [number for number in lane.circuits if number in self._disturbed]
        if not disturbed:
            return "its circuits are closed"
        if asked.waits and (asked.deadline is None or self._opens_by(lane, asked.deadline)):
            return "it asked to wait for it"
        return None

    def _opens_by(self, lane: _Lane, deadline: float) -> bool:
        """Whether no circuit is open, and stays open, until then."""
        of_lane = lane.lane.circuit, lane.lane.key_circuit
        breakers = [circuit.breaker for circuit in of_lane if circuit.index in self._disturbed]
        ends = [math.inf if (due := breaker.deadline()) is None else due for breaker in breakers]
        return all(end < deadline for end in ends)

    def _limit(self, asked: _Asked) -> str | None:
        """It is larger than a limit; where it sets no limit on its output, what is reserved for that is cut to fit."""
        limits, estimate = asked.lane.limits, asked.add.estimate
        limited = estimate.output_is_limit or asked.add.batch.max_output_tokens is not None
        given, wanted = estimate.input_tokens, estimate.output_tokens if limited else 0
        for cost, limit in (
            (given + wanted, limits.tokens_per_minute),
            (given, limits.input_tokens_per_minute),
            (wanted, limits.output_tokens_per_minute),
        ):
            if limit is not None and cost > limit:
                return None
        return "it is within every limit"

    def _budget(self, asked: _Asked) -> str | None:
        lane = asked.lane
        if lane.spending is None:
            return "there is no budget that rejects"
        return None if lane.spending.may_refuse(lane.estimate.of(asked.add), self._now) else "its budget covers it"

    def _engine_closed(self, asked: _Asked) -> str | None:
        if self._closed or (self._ending and asked.step == self._step):
            return None
        return "the engine is not closed, and had taken it in"

    def _no_credential(self, asked: _Asked) -> str | None:
        if self._refreshes[asked.lane.session] == (self._step, "failed"):
            return None
        return "no refresh has just failed"

    def _queue(self, asked: _Asked) -> str | None:
        """`Queueing` looks at this."""

    def _check_paused(self, group: int) -> None:
        """4.5.5: nobody waits any more who cannot wait until the end of a pause that has just become longer."""
        pause, now = self._pauses[group], self._now
        heap = self._deadlines[group]
        while heap and heap[0][0] <= pause:
            self._check_waits(heappop(heap)[2], "its deadline")
        impatient = {
            name for name, lane in self._lanes.items() if lane.group == group and pause - now > lane.retry.max_retry_after
        }
        if impatient:
            for asked in self._requests.values():
                if asked.add.deployment in impatient:
                    self._check_waits(asked, "its max_retry_after")

    def _check_waits(self, asked: _Asked, than: str) -> None:
        waits = not asked.attempt and (asked.scheduled or not asked.attempts)
        if waits and asked.id in self._requests:
            raise InvariantViolated(27, f"{asked} still waits, and a 429 pauses its limiter past {than}")

    _FACTS: ClassVar[Mapping[type[Event], Callable[[Any, Any], None]]] = {
        AddRequest: _added,
        AttemptEnded: _ended,
        Cancel: _cancelled,
        Close: _close,
        Drain: _drain,
        HeadReceived: _head_received,
    }
    _EFFECTS: ClassVar[Mapping[type[Effect], Callable[[Any, Any], None]]] = {
        Complete: _completed,
        Notice: _noticed,
        StartAttempt: _started,
    }
    _REASONS: ClassVar[Mapping[str, Callable[[Any, _Asked], str | None]]] = {
        "backpressure": _queue,
        "budget_exceeded": _budget,
        "circuit_open": _circuit,
        "deadline_exceeded": _deadline,
        "engine_closed": _engine_closed,
        "limit_exceeded": _limit,
        "rate_limited": _paused_for_long,
        "unauthorized": _no_credential,
    }


def _mistimed(error: InferenceError, asked: _Asked, exchange: Exchange, now: float) -> str | None:
    """What is wrong with the time at which a clock is said to have run out."""
    root = root_of(error)
    if isinstance(root, DeadlineExceeded):
        if asked.deadline is None or now < asked.deadline:
            return "ended for its deadline, which has not come"
    elif isinstance(root, Timeout) and root.phase:
        seconds = _clock(asked.lane.lane.exchange_config.timeouts, root.phase, stream=exchange.stream)
        if seconds is None or now - asked.started_at < seconds * (1.0 - 1e-9):
            return f"ended for its {root.phase} timeout of {seconds} s after {now - asked.started_at:g} s"
    return None


def _clock(timeouts: Timeouts, phase: str, *, stream: bool) -> float | None:
    match phase:
        case "connect":
            return timeouts.connect_timeout
        case "first byte":
            return timeouts.first_byte(stream=stream)
        case "read":
            return timeouts.read_timeout
        case "content":
            return timeouts.content_timeout
        case _:
            return timeouts.total_timeout
