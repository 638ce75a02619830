"""What was charged, by anybody, written down by hand: each charge at its time, until it does not count any more."""

from __future__ import annotations

from collections import deque

from ...rate_limit import RateLimits
from .naive_provider import FIELDS


class Dimension:
    """One limited amount: its name, which of `Amounts` it counts, and how much of it any ``span`` seconds may hold."""

    __slots__ = ("field", "kind", "limit", "span")

    def __init__(self, field: str, kind: int, limit: int, span: float) -> None:
        self.field = field
        self.kind = kind
        self.limit = limit
        self.span = span


def dimensions_of(limits: RateLimits) -> list[Dimension]:
    """What is limited in time, in the order in which a limiter counts it."""
    span = limits.window + limits.delivery_guard
    found = [
        Dimension(field, kind, limit, span)
        for kind, field in enumerate(FIELDS)
        if (limit := getattr(limits, field)) is not None
    ]
    requests, burst = limits.requests_per_minute, limits.burst
    if requests is not None and burst is not None and burst < requests:
        found.append(Dimension("burst", 0, burst, limits.window * burst / requests))
    return found


class Entry:
    """One charge in one tally. ``counts``: whether it still does, as far as anybody has looked."""

    __slots__ = ("amount", "at", "counts")

    def __init__(self, at: float, amount: int) -> None:
        self.at = at
        self.amount = amount
        self.counts = True


class Tally:
    """What was charged within ``span`` seconds before the latest instant it was told of."""

    __slots__ = ("_entries", "_span", "_total")

    def __init__(self, span: float) -> None:
        self._span = span
        self._entries: deque[Entry] = deque()
        self._total = 0

    def add(self, at: float, amount: int) -> Entry:
        """It was charged at this time, not earlier than any other."""
        entry = Entry(at, amount)
        self._entries.append(entry)
        self._total += amount
        return entry

    def edit(self, entry: Entry, amount: int) -> None:
        """It stands at this amount, if it still counts."""
        if entry.counts:
            self._total += amount - entry.amount
            entry.amount = amount

    def after(self, at: float) -> int:
        """What was charged later than this."""
        total = 0
        for entry in reversed(self._entries):
            if entry.at <= at:
                break
            total += entry.amount
        return total

    def at(self, now: float) -> int:
        """What counts."""
        entries = self._entries
        while entries and entries[0].at + self._span <= now:
            gone = entries.popleft()
            gone.counts = False
            self._total -= gone.amount
        return self._total
