"""One process of a cluster: a limiter, built as the engine builds it, a queue of requests before it, and its exchange with
the store. Its clocks are its own.

It does what the engine does: the head of the queue alone asks the limiter, again when that said so and whenever something
has happened; after each answer of the store the next question may be due at once.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Protocol

from ...cluster.exchanging import Exchanging
from ...cluster.store import Published, StoreLost, StoreReply, StoreRequest, Swap, Swapped
from ...lane import Group
from ...rate_limit import Permit, RateLimiter, Wait
from ..judge.violation import InvariantViolated
from ..world.clock import Timer, VirtualClock
from ..world.shared_store import StoreWay
from .naive_provider import Amounts
from .plan import Life

_FARTHEST_START = 1e6
"""How far a monotonic clock may be from the world's at the beginning."""

STUTTERS = 0.02
LONGEST_STUTTER = 0.002
"""How often a clock is read as it was a moment ago (another core's), and how long ago that is at most, in seconds."""

_FAREWELLS = 5
"""How often a farewell is said, as in `links.py`."""

PROBES = 0.02
"""How often the head asks before it was told to, to see whether it could have gone earlier."""


@dataclass(slots=True)
class Request:
    """One request: what it is estimated to use, and what it really will."""

    estimate: Amounts
    used: Amounts


class Observer(Protocol):
    """Somebody who hears of what a process grants."""

    def granted(self, process: Process, request: Request, permit: Permit) -> None:
        """A request was let go, just now."""
        ...

    def asks(self, process: Process) -> None:
        """It is about to put a question to the store."""
        ...

    def heard(self, process: Process, reply: StoreReply) -> None:
        """It has taken an answer."""
        ...


class Process:
    """One life. group: with its limiter. lease: seconds after a question that what was answered may be used. Nothing happens
    any more once it is ``dead``."""

    def __init__(
        self, life: Life, clock: VirtualClock, group: Group, way: StoreWay, observer: Observer, rng: Random, lease: float
    ) -> None:
        assert group.link is not None  # there is something to share
        self.life = life
        self.limiter: RateLimiter = group.limiter
        self.way = way
        self.queue: deque[Request] = deque()
        self.dead = False
        self.wall = life.wall
        self.leased_until = -math.inf
        """By its own clock: a lease after it last put a question that was answered."""
        self._surely_until = -math.inf
        """The same, where the store did what it was asked: until then a promise depends on nobody else."""
        self.seen = -math.inf
        """The latest instant that its limiter was told."""
        self.front_since = 0.0
        """Since when, by the world's clock, its first request has stood in front."""
        self.refill: Callable[[], None] | None = None
        """Called when its queue has become shorter, to make it longer."""
        self._shared: Exchanging = group.link.shared
        self._clock = clock
        self._observer = observer
        self._rng = rng
        self._lease = lease
        self._offset = rng.uniform(0.0, _FARTHEST_START)
        self._asking = False
        self._question: StoreRequest | None = None
        self._asked_at = -math.inf
        self._leaves = False
        self._said_farewell = False
        self._farewells = 0
        self._asleep: list[Callable[[], None]] | None = None
        self._timer: Timer | None = None
        self._until: float | None = None
        self._promise: float | None = None
        """When the head fits, if nothing else happens until then. ``None``: nothing is promised, or something happened."""

    # ---- its clocks -------------------------------------------------------------------------------------------------

    def now(self) -> float:
        """Its monotonic clock, read well."""
        return self._offset + self._clock.now * (1.0 + self.life.drift)

    def unix_now(self) -> float:
        """Its wall clock."""
        return self._clock.unix_now + self.wall

    def read(self) -> float:
        """Its monotonic clock, as it may be read."""
        now, rng = self.now(), self._rng
        if rng.random() < STUTTERS:
            now -= LONGEST_STUTTER * rng.random()
        if now > self.seen:
            self.seen = now
        return now

    def _world_time(self, due: float) -> float:
        """When its clock shows ``due``: never so early, by rounding, that it still shows less."""
        when = (due - self._offset) / (1.0 + self.life.drift)
        while self._offset + when * (1.0 + self.life.drift) < due:
            when += math.ulp(due)
        return when

    # ---- what is done to it -------------------------------------------------------------------------------------------

    def do(self, action: Callable[[], None]) -> None:
        """Let it take note of something: when it is awake, if it lives. Then it does whatever can be done."""
        if self.dead:
            return
        if self._asleep is not None:
            self._asleep.append(action)
            return
        self._promise = None
        action()
        self._work()

    def submit(self, request: Request) -> None:
        """A request comes."""
        if not self._leaves:
            self.queue.append(request)
            if len(self.queue) == 1:
                self.front_since = self._clock.now
                self.do(_nothing)

    def kill(self) -> None:
        """It is no more."""
        self.dead = True
        self.queue.clear()
        if self._timer is not None:
            self._timer.cancel()

    def sleep(self) -> None:
        """It stands still."""
        if self._asleep is None:
            self._asleep = []

    def wake(self) -> None:
        """It goes on, with what has come meanwhile in the order in which it came."""
        backlog, self._asleep = self._asleep, None
        for action in backlog or ():
            self.do(action)
        self.do(_nothing)

    def leave(self) -> None:
        """It says farewell, and takes no more requests."""
        self.do(self._leave)

    @property
    def listens(self) -> bool:
        """Whether it puts questions to the store at present, or is going to."""
        return self._asking or self._shared.exchange_at() is not None

    @property
    def leaving(self) -> bool:
        """Whether it has begun to leave."""
        return self._leaves

    @property
    def gone(self) -> bool:
        """Whether it has left, and its farewell was answered."""
        return self._said_farewell and not self._asking

    # ---- inside -------------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Let go what can go, ask what is to be asked, and be there in time for whatever comes next."""
        queue = self.queue
        self._until = None
        while queue and not self._leaves:
            head = queue[0]
            now, promised, self._promise = self.read(), self._promise, None
            answer = self.limiter.reserve(1, head.estimate.input_tokens, head.estimate.output_tokens, now)
            if isinstance(answer, Wait):
                self._wait(answer.until, now, promised)
                break
            if not isinstance(answer, Permit):
                raise InvariantViolated(9, f"life {self.life.number} refuses a request that fits into the limit: {answer}")
            if promised is not None and now < promised:
                early = f"{promised - now:.6f} s before it was promised"
                raise InvariantViolated(9, f"life {self.life.number} lets its head go {early}: the wait was too long")
            queue.popleft()
            self.front_since = self._clock.now
            self._observer.granted(self, head, answer)
            if self.refill is not None:
                self.refill()
        self._follow()
        self._rearm()

    def _wait(self, until: float | None, now: float, promised: float | None) -> None:
        """The head is to wait. If nothing else happens until then, and the lease lasts, it will fit then and not before."""
        if promised is not None and promised <= now:
            raise InvariantViolated(9, f"life {self.life.number} does not let its head go when it was promised")
        if until is not None and until <= now - LONGEST_STUTTER:
            raise InvariantViolated(9, f"life {self.life.number} lets its head wait for what is past")
        self._until = until
        if until is not None and until < self._surely_until:
            self._promise = until

    def _follow(self) -> None:
        if self._asking or self._said_farewell:
            return
        ask_at, now = self._shared.exchange_at(), self.now()
        if ask_at is not None and ask_at <= now:
            self._promise = None
            self._observer.asks(self)
            question = self._shared.exchange(self.read(), self.unix_now())
            self._ask(question, now)

    def _ask(self, question: StoreRequest, now: float) -> None:
        self._asking = True
        if question != self._question:  # else it is the same as before, and may have been heard then
            self._question, self._asked_at = question, now
        self.way.ask(question, lambda reply: self.do(partial(self._hear, reply)))

    def _hear(self, reply: StoreReply) -> None:
        self._asking = False
        self._renew(reply)
        if self._said_farewell:
            if isinstance(reply, Swapped) and not reply.done and self._farewells < _FAREWELLS:  # somebody was quicker
                self._shared.exchanged(reply, self.read(), self.unix_now())
                self._bid_farewell()
            return
        self._shared.exchanged(reply, self.read(), self.unix_now())
        self._observer.heard(self, reply)
        if self._leaves:
            self._bid_farewell()
        else:
            self._follow()

    def _renew(self, reply: StoreReply) -> None:
        """A lease follows from a question that said something, and was answered."""
        if isinstance(reply, StoreLost) or (isinstance(self._question, Swap) and self._question.document is None):
            return
        until = self._asked_at + self._lease
        self.leased_until = max(self.leased_until, until)
        if isinstance(reply, Published) or (isinstance(reply, Swapped) and reply.done):
            self._surely_until = max(self._surely_until, until)
        self._question = None

    def _leave(self) -> None:
        self._leaves = True
        self.queue.clear()
        if not self._asking:
            self._bid_farewell()

    def _bid_farewell(self) -> None:
        farewell = self._shared.leave(self.read(), self.unix_now())
        self._said_farewell = True
        self._farewells += 1
        if farewell is not None:
            self._ask(farewell, self.now())

    def _rearm(self) -> None:
        due = self._until
        if not (self._asking or self._said_farewell):
            ask_at = self._shared.exchange_at()
            if ask_at is not None and (due is None or ask_at < due):
                due = ask_at
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due is not None:
            when = max(self._clock.now, self._world_time(due))
            if self._promise is not None and self._rng.random() < PROBES:
                when = self._rng.uniform(self._clock.now, when)
            self._timer = self._clock.call_at(when, self._fired)

    def _fired(self) -> None:
        self._timer = None
        if self._asleep is None:
            self._work()


def _nothing() -> None:
    pass
