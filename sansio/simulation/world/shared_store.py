"""The store that the processes of a world share, and the way to it.

`SharedStore` is what Redis or Valkey is to a driver: it executes each question at once and whole, by a clock of its own.
What goes wrong is done to it: it is gone for a while, or fails over to a replica that has not heard of the newest writes.

`StoreWay` is one process's way there, in virtual time. Questions and answers take their time, are lost, come late or twice;
so one question may overtake another, and what nobody waits for any more may still be done.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Final, assert_never

from ...backoff import require_number
from ...cluster.store import (
    Publish,
    Published,
    StoreLost,
    StoreReply,
    StoreRequest,
    Swap,
    Swapped,
    Take,
    Taken,
)
from ...cluster.strict_ledger import StrictLedger
from .clock import VirtualClock
from .plan_checks import require_share

_REFUSED: Final = 0.5
"""How likely a store that is gone refuses at once; else nothing is heard of it."""


@dataclass(slots=True)
class _Document:
    version: int
    content: bytes
    forgotten_at: float


@dataclass(slots=True)
class _Report:
    content: bytes
    put_at: float
    ttl: float
    sequence: int


@dataclass(slots=True)
class _Contents:
    """All that a store keeps, by key."""

    boards: dict[str, dict[str, _Report]] = field(default_factory=dict[str, dict[str, _Report]])
    documents: dict[str, _Document] = field(default_factory=dict[str, _Document])
    ledgers: dict[str, StrictLedger] = field(default_factory=dict[str, StrictLedger])


class SharedStore:
    """Boards, documents and ledgers by key. ``ahead``: by how much its clock is ahead of whatever it is told.

    executed: how many questions it has answered.
    """

    __slots__ = ("_contents", "_replica", "ahead", "executed", "gone")

    def __init__(self, ahead: float = 0.0) -> None:
        self.ahead = ahead
        self.gone = False
        """Whether nobody can reach it. Only those on the way there ask."""
        self.executed = 0
        self._contents = _Contents()
        self._replica: _Contents | None = None

    def execute(self, request: StoreRequest, unix_now: float) -> StoreReply:
        """Do what is asked, and answer."""
        unix_now += self.ahead
        self.executed += 1
        match request:
            case Publish():
                return self._publish(request, unix_now)
            case Swap():
                return self._swap(request, unix_now)
            case Take():
                return self._take(request, unix_now)
            case _:
                assert_never(request)

    def fall_behind(self) -> None:
        """From now on its replica hears of nothing."""
        if self._replica is None:
            self._replica = copy.deepcopy(self._contents)

    def fail_over(self, ahead: float = 0.0) -> None:
        """The replica takes its place: what that has not heard of is lost. ``ahead``: how far its clock is."""
        if self._replica is not None:
            self._contents, self._replica = self._replica, None
        self.ahead = ahead

    def split(self) -> SharedStore:
        """Another store that knows all that this one does, and from now on goes its own way."""
        other = SharedStore(self.ahead)
        other._contents = copy.deepcopy(self._contents)
        return other

    # ---- what is asked ------------------------------------------------------------------------------------------------

    def _publish(self, request: Publish, unix_now: float) -> Published:
        board = self._contents.boards.setdefault(request.key, {})
        standing = board.get(request.member)
        if standing is None or standing.sequence <= request.sequence:
            board.pop(request.member, None)
            if request.report:
                board[request.member] = _Report(request.report, unix_now, request.ttl, request.sequence)
        for member, report in list(board.items()):
            report.put_at = min(report.put_at, unix_now)  # where the clock went back, it grows old from here on
            if report.put_at + report.ttl <= unix_now:
                del board[member]
        return Published({name: (unix_now - each.put_at, each.content) for name, each in board.items()}, unix_now)

    def _swap(self, request: Swap, unix_now: float) -> Swapped:
        documents = self._contents.documents
        found = documents.get(request.key)
        if found is not None and found.forgotten_at <= unix_now:
            del documents[request.key]
            found = None
        version = 0 if found is None else found.version
        if request.version == version and request.document is not None:
            documents[request.key] = _Document(version + 1, request.document, unix_now + request.ttl)
            return Swapped(True, version + 1, request.document, unix_now)
        return Swapped(False, version, b"" if found is None else found.content, unix_now)

    def _take(self, request: Take, unix_now: float) -> Taken:
        ledger = self._contents.ledgers.get(request.key)
        if ledger is None:
            ledger = self._contents.ledgers[request.key] = StrictLedger()
        return ledger.take(request, unix_now)


@dataclass(frozen=True, slots=True)
class StoreConditions:
    """How the way to a store is.

    latency: seconds one way, at least; jitter: up to so many more, drawn for each. question_lost, answer_lost: how likely
    one is. late: how likely a question comes up to ``latest`` seconds later than it should, whether or not anybody still
    waits. doubled: how likely it comes again within ``latest`` seconds.
    Raises `ValueError` for a value out of range, naming the field.
    """

    latency: float = 0.0005
    jitter: float = 0.0005
    question_lost: float = 0.0
    answer_lost: float = 0.0
    late: float = 0.0
    doubled: float = 0.0
    latest: float = 5.0

    def __post_init__(self) -> None:
        for name in ("latency", "jitter", "latest"):
            require_number(name, getattr(self, name))
        for name in ("question_lost", "answer_lost", "late", "doubled"):
            require_share(name, getattr(self, name))


class _Question:
    """One question, until it is answered: once, by the store or by the end of its time."""

    __slots__ = ("_answer", "_timer")

    def __init__(self, clock: VirtualClock, timeout: float, answer: Callable[[StoreReply], None]) -> None:
        self._answer: Callable[[StoreReply], None] | None = answer
        self._timer = clock.call_later(timeout, partial(self.end, StoreLost("no answer in time")))

    def end(self, reply: StoreReply) -> None:
        """The first answer counts."""
        answer, self._answer = self._answer, None
        if answer is not None:
            self._timer.cancel()
            answer(reply)


class StoreWay:
    """One process's way to ``store``. All chance comes from ``rng``.

    timeout: seconds until a question without an answer is answered with `StoreLost`. conditions may be set at any time.
    """

    __slots__ = ("_clock", "_rng", "_timeout", "conditions", "cut", "store")

    def __init__(
        self,
        clock: VirtualClock,
        store: SharedStore,
        rng: Random,
        *,
        timeout: float,
        conditions: StoreConditions | None = None,
    ) -> None:
        self._clock = clock
        self._rng = rng
        self._timeout = timeout
        self.store = store
        """Where questions go from now on; one that is under way goes where it was sent."""
        self.conditions = conditions or StoreConditions()
        self.cut = False
        """Whether nothing comes through, in either direction."""

    def ask(self, request: StoreRequest, answer: Callable[[StoreReply], None]) -> None:
        """Put a question; ``answer`` is called once, later, with the store's answer or `StoreLost`."""
        question, conditions, rng = _Question(self._clock, self._timeout, answer), self.conditions, self._rng
        arrive = partial(self._arrive, question, request, self.store)
        if not (conditions.question_lost and rng.random() < conditions.question_lost):
            self._clock.call_later(self._latency(conditions.late), arrive)
        if conditions.doubled and rng.random() < conditions.doubled:
            self._clock.call_later(self._latency(1.0), arrive)

    def mend(self) -> None:
        """All is well from now on."""
        self.cut, self.conditions = False, StoreConditions()

    def _latency(self, late: float) -> float:
        """One way, drawn anew each time. ``late``: how likely it is far too long."""
        conditions, rng = self.conditions, self._rng
        seconds = conditions.latency + conditions.jitter * rng.random()
        return seconds + conditions.latest * rng.random() if late and rng.random() < late else seconds

    def _arrive(self, question: _Question, request: StoreRequest, store: SharedStore) -> None:
        if self.cut:
            return
        if store.gone:
            if self._rng.random() < _REFUSED:
                self._return(question, StoreLost("the connection is refused"))
            return
        self._return(question, store.execute(request, self._clock.unix_now))

    def _return(self, question: _Question, reply: StoreReply) -> None:
        conditions = self.conditions
        if not (conditions.answer_lost and self._rng.random() < conditions.answer_lost):
            self._clock.call_later(self._latency(0.0), partial(self._come_back, question, reply))

    def _come_back(self, question: _Question, reply: StoreReply) -> None:
        if not self.cut:
            question.end(reply)
