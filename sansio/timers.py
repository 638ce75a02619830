"""What is due, and when next: any number of named timers behind one `next` and one `pop_due`.

A timer has a name (any hashable value); setting it again moves it, setting it to ``None`` stops it. Most timers never come
due: they are moved later or stopped. So the heap is let be then, and what it holds of them is put right when it surfaces:

    of every timer that is set, the heap holds an entry that is not later than its time

Moving a timer later or stopping it costs one look into a dictionary, moving it earlier O(log n). About as many entries are
stale as there are timers set, at most, so memory is bounded.
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
        self._armed: dict[Name, tuple[float, int, Name]] = {}
        self._sequence = 0

    def __len__(self) -> int:
        return len(self._armed)

    def __contains__(self, name: Name) -> bool:
        return name in self._armed

    def set(self, name: Name, when: float | None) -> None:
        """Let ``name`` come due at ``when``; ``None`` or infinity stops it."""
        armed = self._armed
        if when is None or when == math.inf:
            armed.pop(name, None)
            return
        known = armed.get(name)
        if known is not None and known[0] == when:
            return
        self._sequence += 1
        entry = armed[name] = (when, self._sequence, name)
        if known is None or when < known[0]:
            self._push(entry)

    def next(self) -> float | None:
        """The earliest instant any timer is set to."""
        heap, armed = self._heap, self._armed
        while heap:
            top = heap[0]
            current = armed.get(top[2])
            if current is top:
                return top[0]
            if current is None:
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, current)
        return None

    def pop_due(self, now: float) -> Name | None:
        """The name due first by ``now``, no longer set; ``None`` when nothing is due. One at a time, because what is done
        about one may stop the next."""
        if not self._heap or self._heap[0][0] > now:  # nothing is earlier than the top, also where the top is stale
            return None
        when = self.next()
        if when is None or when > now:
            return None
        name = heapq.heappop(self._heap)[2]
        del self._armed[name]
        return name

    def _push(self, entry: tuple[float, int, Name]) -> None:
        heapq.heappush(self._heap, entry)
        if len(self._heap) > 2 * len(self._armed) + 64:
            self._heap = list(self._armed.values())
            heapq.heapify(self._heap)
