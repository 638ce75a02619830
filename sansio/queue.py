"""The bounded priority queue in front of a deployment's slots.

Higher classes go first; inside a class it is first in, first out. Two options bend that order: ageing lifts an entry one
class for every `age_after` seconds since it was accepted, so that nothing starves; fair tenants take turns inside a class,
one entry each, so that one tenant's flood is only its own problem.

An entry stands *inside* (it can be dispatched) or, under `CapacityPolicy.QUEUE`, *outside*: there is no room for it yet, and
it may wait `queue_timeout` for some. Those outside enter in the same order as those inside leave. Time is only ever acted on
by `RequestQueue.expire`: an entry that ran out of time is no longer handed out, but it keeps its place in the count until
`expire` returns it with its error, so nothing is dropped in silence.

Without these two options each class is a `_Row`: whoever comes stands at its end, which costs the same however many wait.
With one of them, and for deadlines, every order is a `_Heap`. Both delete lazily, so each operation is O(log n), amortised.
"""

from __future__ import annotations

import enum
import heapq
import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from .backoff import require_count, require_positive
from .errors import Backpressure, DeadlineExceeded, InferenceError

_Key = TypeVar("_Key", int, str)
_HIGHEST_FIRST: Final = (3, 2, 1, 0)


class Priority(enum.IntEnum):
    """The class of a request. A higher one is always dispatched first."""

    BACKGROUND = 0
    NORMAL = 1
    HIGH = 2
    CRITICAL = 3


class CapacityPolicy(enum.StrEnum):
    """What becomes of a request that finds the queue full.

    REJECT: refused at once. QUEUE: up to ``capacity`` more wait outside, for ``queue_timeout`` seconds each. FALLBACK:
    refused at once, marked for a router to take elsewhere.
    """

    REJECT = "reject"
    QUEUE = "queue"
    FALLBACK = "fallback"


@dataclass(slots=True, eq=False)
class PriorityRequest:
    """One entry. The caller fills in the first five fields and leaves them alone while the entry is queued.

    request_id: the caller's own, unique in the queue. tenant: whose turn it uses, where tenants share fairly.
    deadline: monotonic seconds; at that instant the entry is no longer handed out. payload: whatever the caller wants back.

    The queue writes the others: ``sequence`` and ``enqueued_at`` at the first successful push, ``turn`` (its tenant's turn)
    at each pop. All three outlive a pop, which is how an entry that comes back finds its old place.

    Raises `ValueError` for a priority that is none, or a deadline that is not a finite number.
    """

    request_id: int
    priority: Priority = Priority.NORMAL
    tenant: str = ""
    deadline: float | None = None
    payload: object = field(default=None, repr=False)
    sequence: int = field(default=-1, init=False)
    enqueued_at: float = field(default=0.0, init=False)
    turn: float = field(default=math.inf, init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.priority, Priority):
            raise ValueError(f"priority: {self.priority!r} is not a Priority; write Priority.NORMAL")
        if self.deadline is not None and not math.isfinite(self.deadline):
            raise ValueError(f"deadline: {self.deadline!r} is not a finite number of seconds, nor None")


class RequestQueue:
    """A bounded queue of `PriorityRequest`, for one deployment.

    capacity: how many stand inside, at least 1; under `CapacityPolicy.QUEUE` as many again may wait outside.
    queue_timeout: seconds an entry may wait outside. age_after: seconds after which an entry counts one class higher, and
    again after each further ``age_after``; ``None`` switches ageing off. fair_tenants: tenants of one class take turns.
    Raises `ValueError` for a value out of range.

    ``len`` counts all entries it holds, outside ones and those waiting for `expire` among them; ``request_id in queue`` asks
    for one.
    """

    __slots__ = ("_capacity", "_deadlines", "_inside", "_now", "_outside", "_places", "_policy", "_sequence", "_timeout",
                 "_timeouts")  # fmt: skip

    def __init__(
        self,
        capacity: int = 1024,
        policy: CapacityPolicy = CapacityPolicy.QUEUE,
        queue_timeout: float = 30.0,
        age_after: float | None = None,
        fair_tenants: bool = False,
    ) -> None:
        require_count("capacity", capacity, at_least=1)
        require_positive("queue_timeout", queue_timeout)
        if age_after is not None:
            require_positive("age_after", age_after)
        if not isinstance(fair_tenants, bool):
            raise ValueError(f"fair_tenants: {fair_tenants!r} is not True or False")
        self._capacity = capacity
        self._policy = _checked_policy(policy)
        self._timeout = queue_timeout
        self._now = -math.inf
        self._sequence = 0
        self._places: dict[int, _Place] = {}
        self._inside = _line(age_after, fair_tenants)
        self._outside = _line(age_after, fair_tenants)
        self._deadlines: _Heap[int] = _Heap()
        self._timeouts: _Heap[int] = _Heap()  # one for each entry outside, and for no other

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, request_id: int) -> bool:
        return request_id in self._places

    @property
    def queued(self) -> int:
        """Entries inside. At most ``capacity``, but for those that came back by `requeue`."""
        return len(self._places) - len(self._timeouts)

    @property
    def waiting_outside(self) -> int:
        """Entries outside, at most ``capacity``."""
        return len(self._timeouts)

    def push(self, entry: PriorityRequest, now: float) -> Backpressure | None:
        """Take in a new entry, or say why not. A refused entry is left as it was.

        Raises `ValueError` when the queue holds an entry with this ``request_id`` already.
        """
        self._advance(now)
        self._refuse_duplicate(entry)
        if len(self._places) - len(self._timeouts.living) < self._capacity:
            self._accept(entry, self._inside)
        elif self._policy is CapacityPolicy.QUEUE and self.waiting_outside < self._capacity:
            self._accept(entry, self._outside)
            self._timeouts.add(entry.request_id, self._now + self._timeout, entry.sequence)
        else:
            fallback = self._policy is CapacityPolicy.FALLBACK
            return Backpressure(f"the queue is full: {len(self)} requests wait already", fallback=fallback)
        return None

    def requeue(self, entry: PriorityRequest, now: float) -> None:
        """Take back an accepted entry that was popped: after a backoff, or because it could not be dispatched after all.

        It returns to its old place in its class, and is never refused: the bound was met when it was pushed.
        Raises `ValueError` for an entry that was never pushed, or one that is here already.
        """
        self._advance(now)
        self._refuse_duplicate(entry)
        if entry.sequence < 0:
            raise ValueError(f"request_id: {entry.request_id} was never accepted; use push")
        self._accept(entry, self._inside)

    def peek(self, now: float) -> PriorityRequest | None:
        """The entry that `pop` would hand out, or ``None``. Never one whose deadline has passed, never one outside."""
        place = self._head(now)
        return None if place is None else place.entry

    def pop(self, now: float) -> PriorityRequest | None:
        """Hand out the first entry in order, or ``None``. Whoever is first outside takes the room."""
        entry = self.peek(now)
        if entry is not None:
            self.serve(entry)
        return entry

    def serve(self, entry: PriorityRequest) -> None:
        """Hand out the entry that `peek` has just shown, without looking for it again."""
        place = self._places[entry.request_id]
        entry.turn = self._inside.serve(place)
        self._forget(place)
        self._let_in()

    def remove(self, request_id: int) -> PriorityRequest | None:
        """Take one entry out wherever it stands (a cancellation), or ``None`` when it is not here."""
        place = self._places.get(request_id)
        if place is None:
            return None
        self._forget(place)
        self._let_in()
        return place.entry

    def expire(self, now: float) -> list[tuple[PriorityRequest, InferenceError]]:
        """Take out every entry whose time ran out, each with an error of its own, earliest first (ties: by sequence).

        `DeadlineExceeded` where the deadline came first or at the same instant, `Backpressure` where ``queue_timeout`` did.
        """
        now = self._advance(now)
        expired: list[tuple[PriorityRequest, InferenceError]] = []
        while (due := self._next_due()) is not None and due[0] <= now:
            place = self._places[due[2]]
            self._forget(place)
            if _passed(place.entry.deadline, due[0]):
                expired.append((place.entry, DeadlineExceeded("the deadline passed while the request was queued")))
            else:
                expired.append((place.entry, Backpressure(f"the queue stayed full for {self._timeout:g} s")))
        self._let_in()
        return expired

    def expire_before(self, instant: float, now: float) -> list[PriorityRequest]:
        """Take out every entry whose deadline is at or before ``instant``, earliest first (ties: by sequence).

        For the moment it becomes known that nothing will be granted until ``instant``: they cannot make it.
        """
        self._advance(now)
        doomed: list[PriorityRequest] = []
        while (due := self._deadlines.first()) is not None and due[0] <= instant:
            place = self._places[due[2]]
            self._forget(place)
            doomed.append(place.entry)
        self._let_in()
        return doomed

    def drain(self) -> list[PriorityRequest]:
        """Take out everything, inside and outside, in the order of acceptance."""
        places = sorted(self._places.values(), key=lambda place: (place.entry.sequence, place.entry.request_id))
        for place in places:
            self._forget(place)
        return [place.entry for place in places]

    def deadline(self) -> float | None:
        """The instant (monotonic seconds) at which `expire` has something to take out, or ``None``. May be in the past."""
        if not (self._deadlines.living or self._timeouts.living):  # asked at every fact, and mostly nothing can run out
            return None
        due = self._next_due()
        return None if due is None else due[0]

    def _advance(self, now: float) -> float:
        if now > self._now:
            self._now = now
        return self._now

    def _refuse_duplicate(self, entry: PriorityRequest) -> None:
        if entry.request_id in self._places:
            raise ValueError(f"request_id: {entry.request_id} is queued already")

    def _accept(self, entry: PriorityRequest, line: _Line | _PlainLine) -> None:
        if entry.sequence < 0:
            entry.sequence, entry.enqueued_at = self._sequence, self._now
            self._sequence += 1
        place = self._places[entry.request_id] = _Place(entry)
        if entry.deadline is not None:
            self._deadlines.add(entry.request_id, entry.deadline, entry.sequence)
        line.add(place, self._now)

    def _forget(self, place: _Place) -> None:
        entry = place.entry
        del self._places[entry.request_id]
        if place.line is not None:
            place.line.discard(place)
        if entry.deadline is not None:
            self._deadlines.discard(entry.request_id)
        if self._timeouts.living:
            self._timeouts.discard(entry.request_id)

    def _next_due(self) -> tuple[float, int, int] | None:
        deadline, timeout = self._deadlines.first(), self._timeouts.first()
        return timeout if deadline is None or (timeout is not None and timeout < deadline) else deadline

    def _head(self, now: float) -> _Place | None:
        now = self._advance(now)
        while (place := self._inside.first(now)) is not None:
            deadline = place.entry.deadline
            if deadline is None or deadline > now:
                return place
            self._inside.discard(place)  # `expire` collects it
        return None

    def _let_in(self) -> None:
        """Fill the room that appeared with those outside, in order; never with one that waited too long already."""
        while self._timeouts.living and self.queued < self._capacity:
            place = self._outside.first(self._now)
            if place is None:
                break
            entry = place.entry
            if self._timeouts.rank(entry.request_id) <= self._now or _passed(entry.deadline, self._now):
                self._outside.discard(place)  # `expire` collects it
            else:
                self._outside.serve(place)
                self._timeouts.discard(entry.request_id)
                self._inside.add(place, self._now)


class _Place:
    """Where an entry stands: its line (``None`` once its time ran out) and the class it counts for there."""

    __slots__ = ("entry", "level", "line")

    def __init__(self, entry: PriorityRequest) -> None:
        self.entry = entry
        self.level: int = entry.priority
        self.line: _Line | _PlainLine | None = None


class _PlainLine:
    """Places in order: by class, then by sequence. What a `_Line` is without ageing and without fairness."""

    __slots__ = ("_rows",)

    def __init__(self) -> None:
        self._rows = tuple(_Row() for _ in Priority)

    def add(self, place: _Place, now: float) -> None:
        """Stand in line."""
        place.line = self
        self._rows[place.level].add(place)

    def first(self, now: float) -> _Place | None:
        """Who is next."""
        for level in _HIGHEST_FIRST:
            row = self._rows[level]
            if row.new or row.back:
                return row.first()
        return None

    def serve(self, place: _Place) -> float:
        """Leave the line, being next. There are no turns here."""
        self.discard(place)
        return math.inf

    def discard(self, place: _Place) -> None:
        """Leave the line."""
        place.line = None
        self._rows[place.level].discard(place.entry.request_id)


class _Row:
    """The places of one class, by sequence.

    Whoever comes for the first time has the highest sequence so far, and stands at the end of ``new``. Who comes back has a
    lower one, and stands apart; the first of all is the first of one of the two.
    """

    __slots__ = ("_highest", "_ranks", "back", "new")

    def __init__(self) -> None:
        self.new: OrderedDict[int, _Place] = OrderedDict()
        self.back: dict[int, _Place] = {}
        self._ranks: _Heap[int] = _Heap()  # of those who came back
        self._highest = -1

    def add(self, place: _Place) -> None:
        entry = place.entry
        if entry.sequence > self._highest:
            self._highest = entry.sequence
            self.new[entry.request_id] = place
        else:
            self.back[entry.request_id] = place
            self._ranks.add(entry.request_id, entry.sequence)

    def first(self) -> _Place:
        """Who is next, of at least one."""
        new = next(iter(self.new.values()), None)
        returned = self._ranks.first() if self.back else None
        if returned is None or (new is not None and new.entry.sequence < returned[0]):
            assert new is not None, "somebody stands here"
            return new
        return self.back[returned[2]]

    def discard(self, request_id: int) -> None:
        if self.new.pop(request_id, None) is None:
            del self.back[request_id]
            self._ranks.discard(request_id)


class _Line:
    """Places in order: by class (ageing included), then by the tenants' turns, then by sequence.

    Each class has a ring of the tenants with entries in it, ranked by turn. A tenant joins at the end of the ring, and goes
    back to the end when it was served: who was idle has saved nothing up, and who sends one request at a time gains nothing
    either. Without fairness everybody is the same tenant.
    """

    __slots__ = ("_age_after", "_fair", "_places", "_rings", "_rises", "_tenants", "_turn")

    def __init__(self, age_after: float | None, fair: bool) -> None:
        self._age_after = age_after
        self._fair = fair
        self._turn = 0
        self._places: dict[int, _Place] = {}
        self._rings: tuple[_Heap[str], ...] = tuple(_Heap() for _ in Priority)
        self._tenants: dict[tuple[int, str], _Heap[int]] = {}
        self._rises: _Heap[int] = _Heap()  # when each entry's class rises next

    def add(self, place: _Place, now: float) -> None:
        """Stand in line, behind those whose class rises to the same one by ``now``."""
        self._age(now)
        self._stand(place, now)

    def _stand(self, place: _Place, now: float) -> None:
        """Take the place that class, turn and sequence give. An entry served before brings its tenant's old turn with it."""
        entry = place.entry
        place.line, place.level = self, int(entry.priority)
        self._places[entry.request_id] = place
        while (rise_at := self._rise_at(place)) <= now:
            place.level += 1
        if rise_at < math.inf:
            self._rises.add(entry.request_id, rise_at, entry.sequence)
        ring, tenant = self._rings[place.level], self._tenant(place)
        if tenant not in ring:
            self._tenants[place.level, tenant] = _Heap()
            ring.add(tenant, min(entry.turn, self._next_turn()))
        elif entry.turn < ring.rank(tenant):
            ring.discard(tenant)
            ring.add(tenant, entry.turn)
        self._tenants[place.level, tenant].add(entry.request_id, entry.sequence)

    def first(self, now: float) -> _Place | None:
        """Who is next at ``now``."""
        self._age(now)
        for level in _HIGHEST_FIRST:
            if (turn := self._rings[level].first()) is not None:
                entry = self._tenants[level, turn[2]].first()
                assert entry is not None, "a tenant in the ring has entries"
                return self._places[entry[2]]
        return None

    def serve(self, place: _Place) -> float:
        """Leave the line, being next: the tenant's turn is over. Returns that turn."""
        ring, tenant = self._rings[place.level], self._tenant(place)
        turn = ring.rank(tenant)
        self.discard(place)
        if self._fair and tenant in ring:
            ring.discard(tenant)
            ring.add(tenant, self._next_turn())
        return turn

    def discard(self, place: _Place) -> None:
        """Leave the line without being served."""
        request_id, tenant = place.entry.request_id, self._tenant(place)
        place.line = None
        del self._places[request_id]
        self._rises.discard(request_id)
        entries = self._tenants[place.level, tenant]
        entries.discard(request_id)
        if not entries:
            del self._tenants[place.level, tenant]
            self._rings[place.level].discard(tenant)

    def _age(self, now: float) -> None:
        while (rise := self._rises.first()) is not None and rise[0] <= now:
            place = self._places[rise[2]]
            self.discard(place)
            self._stand(place, now)

    def _tenant(self, place: _Place) -> str:
        return place.entry.tenant if self._fair else ""

    def _next_turn(self) -> int:
        self._turn += 1
        return self._turn

    def _rise_at(self, place: _Place) -> float:
        if self._age_after is None or place.level == Priority.CRITICAL:
            return math.inf
        return place.entry.enqueued_at + (place.level + 1 - place.entry.priority) * self._age_after


class _Heap(Generic[_Key]):
    """Keys by (rank, sequence), smallest first, each at most once; taking one out by key leaves its item behind.

    Left-behind items are skipped at the top, and swept out when they outnumber the living: memory stays proportional to
    what is in it.
    """

    __slots__ = ("_items", "living")

    def __init__(self) -> None:
        self._items: list[tuple[float, int, _Key]] = []
        self.living: dict[_Key, tuple[float, int, _Key]] = {}

    def __len__(self) -> int:
        return len(self.living)

    def __contains__(self, key: _Key) -> bool:
        return key in self.living

    def add(self, key: _Key, rank: float, sequence: int = 0) -> None:
        item = self.living[key] = (rank, sequence, key)
        heapq.heappush(self._items, item)

    def rank(self, key: _Key) -> float:
        return self.living[key][0]

    def first(self) -> tuple[float, int, _Key] | None:
        while self._items:
            item = self._items[0]
            if self.living.get(item[2]) is item:
                return item
            heapq.heappop(self._items)
        return None

    def discard(self, key: _Key) -> None:
        if self.living.pop(key, None) is not None and len(self._items) > 2 * len(self.living) + 16:
            self._items = list(self.living.values())
            heapq.heapify(self._items)


def _line(age_after: float | None, fair: bool) -> _Line | _PlainLine:
    return _Line(age_after, fair) if fair or age_after is not None else _PlainLine()


def _passed(deadline: float | None, now: float) -> bool:
    return deadline is not None and deadline <= now


def _checked_policy(policy: str) -> CapacityPolicy:
    try:
        return CapacityPolicy(policy)  # also takes the word a deployment file uses
    except ValueError:
        raise ValueError(f"policy: {policy!r} is none of {', '.join(CapacityPolicy)}") from None
