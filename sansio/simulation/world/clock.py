"""Virtual time: an instant, and everything that is going to happen, in order.

Nothing here waits. `step` moves the clock to the next action and runs it; what that sets in motion is scheduled in turn.
Actions of the same instant run in the order in which they were scheduled, so a world that draws its chances from a seed is
the same in every run.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from collections.abc import Callable
from random import Random
from typing import Final

UNIX_START: Final = 1_700_000_000.0
"""Where the wall clock of a world begins (Unix seconds), unless it is told otherwise."""

_STALE_KEPT: Final = 64


class Timer:
    """Something that is going to happen, unless it is cancelled. ``action`` is ``None`` once it has, or will not."""

    __slots__ = ("_clock", "action", "when")

    def __init__(self, clock: VirtualClock, when: float, action: Callable[[], None]) -> None:
        self.when = when
        self._clock = clock
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Let it not happen. Of no effect once it has."""
        if self.action is not None:
            self.action = None
            self._clock.cancelled()


class VirtualClock:
    """The time of a world, in seconds since it began, and its agenda.

    ``now`` only ever moves forward. ``unix_now`` goes with it, but may be set (`set_wall_clock`). Raises `ValueError` for
    what is no instant: not a number or, but for what is never to happen (`call_at`), infinite.
    """

    __slots__ = ("_ahead", "_heap", "_sequence", "_stale", "now")

    def __init__(self, start: float = 0.0, unix_start: float = UNIX_START) -> None:
        self.now = _instant("start", start)
        self._ahead = _instant("unix_start", unix_start) - start
        self._heap: list[tuple[float, int, Timer]] = []
        self._sequence = 0
        self._stale = 0

    @property
    def unix_now(self) -> float:
        """The wall clock, in Unix seconds."""
        return self.now + self._ahead

    def set_wall_clock(self, unix_now: float) -> None:
        """Somebody sets the wall clock. Nothing else happens by that."""
        self._ahead = _instant("unix_now", unix_now) - self.now

    def call_at(self, when: float, action: Callable[[], None]) -> Timer:
        """Let ``action`` happen at ``when``, or at the present instant if that is past; never, if it is infinite."""
        if not when > -math.inf:
            raise ValueError(f"when: {when!r} is not an instant; give seconds, or infinity for never")
        timer = Timer(self, when if when > self.now else self.now, action)
        self._sequence += 1
        heapq.heappush(self._heap, (timer.when, self._sequence, timer))
        return timer

    def call_later(self, delay: float, action: Callable[[], None]) -> Timer:
        """Let ``action`` happen ``delay`` seconds from now."""
        return self.call_at(self.now + delay, action)

    def cancelled(self) -> None:
        """A timer was cancelled: called by it. Keeps the agenda from filling with what is not going to happen."""
        self._stale += 1
        if self._stale > _STALE_KEPT + len(self._heap) // 2:
            self._heap = [entry for entry in self._heap if entry[2].action is not None]
            heapq.heapify(self._heap)
            self._stale = 0

    def next(self) -> float | None:
        """When the next action happens; ``None`` if none is to come."""
        heap = self._heap
        while heap and heap[0][2].action is None:
            heapq.heappop(heap)
            self._stale -= 1
        return heap[0][0] if heap and heap[0][0] < math.inf else None

    def step(self, until: float = math.inf) -> bool:
        """Move to the next action and run it. ``False``, and nothing has changed, if there is none by ``until``."""
        when = self.next()
        if when is None or not when <= until:
            return False
        timer = heapq.heappop(self._heap)[2]
        self.now = when
        action, timer.action = timer.action, None
        assert action is not None  # `next` has looked
        action()
        return True

    def advance_to(self, when: float) -> None:
        """Let everything happen that is due by ``when``, and be there. An instant that is past changes nothing."""
        _instant("when", when)
        while self.step(when):
            pass
        if when > self.now:
            self.now = when

    def advance(self, seconds: float) -> None:
        """Let everything happen that is due within the next ``seconds``."""
        if not seconds >= 0.0:
            raise ValueError(f"seconds: {seconds!r} would turn time back; give seconds from 0 up")
        self.advance_to(self.now + seconds)


def _instant(name: str, seconds: float) -> float:
    if not -math.inf < seconds < math.inf:
        raise ValueError(f"{name}: {seconds!r} is not an instant; give a finite number of seconds")
    return seconds


def chance(seed: int, *purpose: object) -> Random:
    """A generator of its own for each purpose, so that what one draws does not change what another gets. The same under
    every hash seed."""
    digest = hashlib.sha256("/".join(map(str, (seed, *purpose))).encode()).digest()
    return Random(int.from_bytes(digest, "big"))
