"""Counters that only grow, kept by several replicas that hear of each other late, twice, out of order, or not at all.

`GCounter` is the state-based counter of Shapiro et al., "A comprehensive study of Convergent and Commutative Replicated Data
Types" (2011), specification 6: one number for each replica, which only that replica raises; two states are merged by taking
the larger of each pair. Merging is commutative, associative and idempotent, so replicas that have heard the same agree.

A rate needs counters that begin anew. `WindowedCounters` labels each by its *epoch*, the number of its window since 1970:
what was counted in one window can never be taken for the next one's, however late it is heard of.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final, cast

_MOST: Final = 1 << 62
"""Above any count. What claims to be more comes from nobody who counts."""

_MOST_REPLICAS: Final = 1024
"""How many replicas are read from what somebody else says: far more than there are, and a bound on what nonsense can fill
memory with."""


class GCounter:
    """A grow-only counter."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def increment(self, replica: str, n: int = 1) -> None:
        """Count ``n`` more at ``replica``, which is to be the caller's own.

        Raises `ValueError`, and changes nothing, for an ``n`` that is not an integer of at least 0.
        """
        if isinstance(n, bool) or not isinstance(n, int) or n < 0:
            raise ValueError(f"n: {n!r} is not an integer of at least 0; a counter only grows")
        if n:
            self._counts[replica] = self._counts.get(replica, 0) + n

    def merge(self, other: GCounter) -> None:
        """Learn what ``other`` knows."""
        for replica, count in other._counts.items():
            if count > self._counts.get(replica, 0):
                self._counts[replica] = count

    def value(self) -> int:
        """What all replicas have counted, as far as is known here."""
        return sum(self._counts.values())

    def of(self, replica: str) -> int:
        """What one replica has counted, as far as is known here."""
        return self._counts.get(replica, 0)

    def items(self) -> list[tuple[str, int]]:
        """The replicas that have counted anything, by name, each with what it has."""
        return sorted(self._counts.items())

    def delta(self, since: GCounter) -> GCounter:
        """What ``since`` does not know: merged into it, it knows all that this one does."""
        news = GCounter()
        news._counts = {replica: count for replica, count in self._counts.items() if count > since.of(replica)}
        return news

    def to_dict(self) -> dict[str, int]:
        """The count of each replica."""
        return dict(self._counts)

    @staticmethod
    def from_dict(counts: object) -> GCounter:
        """The counter that `to_dict` made this of. Total: what is no count of a replica is left out."""
        counter = GCounter()
        if isinstance(counts, Mapping):
            for replica, count in cast("Mapping[object, object]", counts).items():
                if isinstance(replica, str) and isinstance(count, int) and not isinstance(count, bool) and 0 < count < _MOST:
                    counter._counts[replica] = count
        counter._counts = dict(sorted(counter._counts.items())[:_MOST_REPLICAS])
        return counter

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GCounter) and self._counts == other._counts

    def __repr__(self) -> str:
        return f"GCounter({self._counts!r})"


class WindowedCounters:
    """A `GCounter` for each of the latest windows of ``window`` seconds.

    keep: how many windows before the current one are remembered, and as many ahead of it, since clocks differ. What lies
    further ahead was labelled by a clock that is wrong, or by nobody: it is not remembered, and pushes nothing out.
    Raises `ValueError` for a window that is not above 0 and finite, or a ``keep`` below 1.

    Everywhere ``unix_now`` is a finite number of seconds since 1970 by the caller's own clock, which may be set.
    """

    __slots__ = ("_counters", "_current", "_keep", "window")

    def __init__(self, window: float, keep: int = 2) -> None:
        if isinstance(window, bool) or not isinstance(window, (int, float)) or not 0 < window < math.inf:
            raise ValueError(f"window: {window!r} is not a number of seconds above 0")
        if isinstance(keep, bool) or not isinstance(keep, int) or keep < 1:
            raise ValueError(f"keep: {keep!r} is not an integer of at least 1")
        self.window = window
        self._keep = keep
        self._current: int | None = None
        self._counters: dict[int, GCounter] = {}

    def epoch(self, unix_now: float) -> int:
        """The label of the window that ``unix_now`` lies in."""
        return math.floor(unix_now / self.window)

    def increment(self, replica: str, n: int, unix_now: float) -> None:
        """Count ``n`` more at ``replica``, in the window of ``unix_now``. Raises `ValueError` as `GCounter.increment`."""
        current = self.advance(unix_now)
        self._counters.setdefault(current, GCounter()).increment(replica, n)

    def advance(self, unix_now: float) -> int:
        """It is this late: what lies too far off is forgotten. A clock may also be set back. Returns the current label."""
        current = self.epoch(unix_now)
        if current != self._current:
            self._current = current
            self._counters = {epoch: each for epoch, each in self._counters.items() if abs(epoch - current) <= self._keep}
        return current

    def merge(self, epoch: int, delta: GCounter) -> bool:
        """Learn what was counted in the window ``epoch``. ``False``, and nothing is learnt, where that one is not
        remembered: what comes late goes where it belongs or nowhere."""
        if self._current is None or abs(epoch - self._current) > self._keep:
            return False
        self._counters.setdefault(epoch, GCounter()).merge(delta)
        return True

    def of(self, epoch: int) -> GCounter:
        """What is known of a window, to be read; an empty counter, if nothing."""
        counter = self._counters.get(epoch)
        return GCounter() if counter is None else counter

    def epochs(self) -> Iterable[int]:
        """The windows of which anything is known, in order."""
        return sorted(self._counters)
