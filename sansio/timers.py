"""All the instants a machine waits for, in one heap: one `next`, one `pop_due`.

A timer has a name (any hashable value); setting it again moves it, setting it to ``None`` stops it. The heap holds stale
entries until they surface, about as many as there are live ones at most, so moving a timer costs O(log n) and memory is
bounded.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Hashable
from typing import Generic, TypeVar

Name = TypeVar("Name", bound=Hashable)


class Timers(Generic[Name]):
    """Named timers. Ties leave in the order in which they were set."""

    __slots__ = ("_armed", "_heap", "_sequence")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Name]] = []
        self._armed: dict[Name, tuple[float, int]] = {}
        self._sequence = 0

    def __len__(self) -> int:
        return len(self._armed)

    def set(self, name: Name, when: float | None) -> None:
        """Let ``name`` come due at ``when``; ``None`` or infinity stops it."""
        if when is None or when == math.inf:
            self._armed.pop(name, None)
            return
        known = self._armed.get(name)
        if known is not None and known[0] == when:
            return
        self._sequence += 1
        self._armed[name] = (when, self._sequence)
        heapq.heappush(self._heap, (when, self._sequence, name))
        if len(self._heap) > 2 * len(self._armed) + 64:
            self._heap = [(when, sequence, name) for name, (when, sequence) in self._armed.items()]
            heapq.heapify(self._heap)

    def next(self) -> float | None:
        """The earliest instant any timer is set to."""
        while self._heap:
            when, sequence, name = self._heap[0]
            if self._armed.get(name) == (when, sequence):
                return when
            heapq.heappop(self._heap)
        return None

    def pop_due(self, now: float) -> Name | None:
        """The name due first by ``now``, no longer set; ``None`` when nothing is due. One at a time, because what is done
        about one may stop the next."""
        when = self.next()
        if when is None or when > now:
            return None
        name = heapq.heappop(self._heap)[2]
        del self._armed[name]
        return name
