"""A token bucket: a steady rate with a burst, exact to the nanosecond.

The bucket holds at most ``burst`` tokens, is full at first, and gains ``rate_per_second`` tokens a second. It is
counted in integers, because a bucket of floats ends up a hair short of a token and then asks for a wait below the
clock's own resolution. Time is read in whole nanoseconds, and the level is kept in the part of a token that makes every
refill an integer, so nothing is rounded away and nothing is invented.

A level below zero means that tokens of the future are booked (`TokenBucket.reserve`).
"""

from __future__ import annotations

import math
from fractions import Fraction

_NANOSECONDS = 1_000_000_000


class TokenBucket:
    """At most ``burst`` tokens at once, ``rate_per_second`` of them a second in the long run.

    ``rate_per_second`` is a finite number, zero or more (zero: the burst is all there ever is); a float means the
    decimal number it prints as, so 0.3 is three tenths. ``burst`` is an integer of at least 1. Anything else is a
    `ValueError`.

    In every method ``n`` is an integer of at least 0 and ``now`` is finite monotonic seconds of any epoch, else
    `ValueError` and nothing changes. A clock that goes backwards counts as standing still.
    """

    __slots__ = ("_at", "_full", "_level", "_per_nanosecond", "_token")

    def __init__(self, rate_per_second: float, burst: int) -> None:
        is_number = isinstance(rate_per_second, (int, float)) and not isinstance(rate_per_second, bool)
        if not is_number or not 0 <= rate_per_second < math.inf:
            raise ValueError(f"rate_per_second: {rate_per_second!r} is outside 0 <= rate_per_second < infinity")
        if isinstance(burst, bool) or not isinstance(burst, int) or burst < 1:
            raise ValueError(f"burst: {burst!r} is not an integer of at least 1")
        per_nanosecond = Fraction(str(rate_per_second)) / _NANOSECONDS
        self._per_nanosecond: int = per_nanosecond.numerator
        self._token: int = per_nanosecond.denominator
        self._full: int = burst * self._token
        self._level: int = self._full
        self._at: int | None = None

    def try_take(self, n: int, now: float) -> bool:
        """Take ``n`` tokens if they are there. ``False`` takes nothing. Zero tokens are always there."""
        self._refill(n, now)
        if self._missing(n):
            return False
        self._level -= n * self._token
        return True

    def wait(self, n: int, now: float) -> float:
        """Seconds until ``n`` could be taken, if nothing else happens: ``try_take(n, now + wait)`` is then granted.

        It is tight to the nanosecond, or to the clock's own resolution where that is coarser (a float of 1e9 seconds
        steps by 0.12 µs). 0.0 means now, infinity means never. Nothing is booked.
        """
        due = self._due(n, self._refill(n, now))
        return math.inf if due is None else _seconds_until(due, now)

    def reserve(self, n: int, now: float, max_wait: float = math.inf) -> float | None:
        """Book ``n`` tokens and return the seconds until the caller may act on them, without asking again.

        ``None`` books nothing: the wait would be longer than ``max_wait`` seconds (compared to the nanosecond), or
        ``n`` can never be there. Raises `ValueError` for a ``max_wait`` that is negative or NaN.
        """
        if not max_wait >= 0:
            raise ValueError(f"max_wait: {max_wait!r} is not a number of seconds of at least 0")
        due = self._due(n, self._refill(n, now))
        if due is None or (max_wait < math.inf and due - to_nanoseconds(now) > to_nanoseconds(max_wait)):
            return None
        self._level -= n * self._token
        return _seconds_until(due, now)

    def give_back(self, n: int, now: float) -> None:
        """Put back ``n`` tokens that were taken or booked and not used. The bucket never holds more than its burst."""
        self._refill(n, now)
        self._level = min(self._full, self._level + n * self._token)

    def _refill(self, n: int, now: float) -> int:
        """Add what the time since the last call brought. The caller's own instant in nanoseconds."""
        if isinstance(n, bool) or not isinstance(n, int) or n < 0:
            raise ValueError(f"n: {n!r} is not an integer of at least 0")
        at = to_nanoseconds(now)
        if self._at is None:
            self._at = at
        elif at > self._at:
            self._level = min(self._full, self._level + (at - self._at) * self._per_nanosecond)
            self._at = at
        return at

    def _missing(self, n: int) -> int:
        """How far the level is below ``n`` tokens, in parts of a token; 0 when they are there."""
        return max(0, n * self._token - self._level) if n else 0

    def _due(self, n: int, at: int) -> int | None:
        """The nanosecond at which ``n`` tokens are there: ``at`` itself when they already are, ``None`` when they never are.

        It counts from the latest instant seen, which is later than ``at`` when the clock went backwards.
        """
        missing = self._missing(n)
        if not missing:
            return at
        if n * self._token > self._full or not self._per_nanosecond:
            return None
        assert self._at is not None
        return self._at + -(-missing // self._per_nanosecond)  # rounded up: a nanosecond earlier would not do


def to_nanoseconds(seconds: float) -> int:
    """The nearest whole nanosecond. Raises `ValueError` for NaN and infinity."""
    try:
        return round(seconds * _NANOSECONDS)
    except (OverflowError, ValueError):
        raise ValueError(f"{seconds!r} is not a finite number of seconds") from None


def _seconds_until(due: int, now: float) -> float:
    """A ``wait`` of at least 0 for which ``now + wait``, added in floats, just reaches the nanosecond ``due``.

    0.0 where ``now`` reaches it, though as a float it may lie a fraction of a nanosecond before it.
    """
    if to_nanoseconds(now) >= due:
        return 0.0
    instant = due / _NANOSECONDS
    while to_nanoseconds(instant) < due:
        instant = math.nextafter(instant, math.inf)
    wait = max(0.0, instant - now)
    while to_nanoseconds(now + wait) < due:
        wait += math.ulp(max(abs(now), wait))
    return wait
