"""How far what requests use has been from what was estimated for them, and how much more to hold back until it is known.

A provider counts what a request really uses. A limiter has to decide before that is known, so between grant and settlement
its books are wrong by the error of its estimates; with the limit nearly used up, half the time in the dangerous direction.
What it holds back for that is the bias seen so far and a multiple of the noise. Errors of many requests under way at once
partly cancel out (their sum grows with the root of their number), so the more of them, the less each one needs:

    factor(n) = mean + Z * deviation * sqrt(spread / n), never above the worst ratio seen, never below 1

where ``mean`` and ``deviation`` are of used / estimated, weighted by size, and ``spread`` says how unequal the sizes are.
Old observations fade. Settlement gives back whatever was held back too much.
"""

from __future__ import annotations

import math

_MEMORY = 200
"""About how many of the latest observations count."""

_DOUBT_WEIGHT = 20
"""How many observations outweigh the doubt one begins with."""

_DEVIATIONS = 5.0
"""Z: how many standard deviations are held back. One sum in three million is further off, if errors are normal."""

_WORST_RATIO = 2.0
"""The worst ratio assumed while in doubt: an estimate that is half of what is used."""


class EstimateError:
    """The error of one kind of estimate.

    doubt: the standard deviation assumed before anything is known, as a part of the estimate.
    Raises `ValueError` for a doubt outside 0 to 1.
    """

    __slots__ = ("_cross", "_doubt", "_estimated", "_estimated_squares", "_seen", "_used", "_used_squares", "_worst")

    def __init__(self, doubt: float = 0.0) -> None:
        if isinstance(doubt, bool) or not isinstance(doubt, (int, float)) or not 0 <= doubt <= 1:
            raise ValueError(f"doubt: {doubt!r} is outside 0 <= doubt <= 1")
        self._doubt = doubt
        self._seen = 0.0
        self._estimated = self._used = self._estimated_squares = self._used_squares = self._cross = 0.0
        self._worst = _WORST_RATIO

    def observe(self, estimated: int, used: int) -> None:
        """A request that was estimated at so much (as estimated, not as held back) has used so much."""
        if estimated <= 0 or used < 0:
            return
        keep = 1.0 - 1.0 / _MEMORY
        self._seen = self._seen * keep + 1.0
        self._estimated = self._estimated * keep + estimated
        self._used = self._used * keep + used
        self._estimated_squares = self._estimated_squares * keep + estimated * estimated
        self._used_squares = self._used_squares * keep + used * used
        self._cross = self._cross * keep + estimated * used
        ratio = used / estimated
        self._worst = ratio if ratio > self._worst else max(1.0, self._worst - (self._worst - ratio) / _MEMORY)

    def factor(self, under_way: int) -> float:
        """By how much to multiply an estimate, at least 1.0, with so many requests under way (this one included)."""
        trust = self._seen / (self._seen + _DOUBT_WEIGHT)
        mean, variance, spread = 1.0, 0.0, 1.0
        if self._estimated > 0:
            mean = self._used / self._estimated
            residual = self._used_squares - 2.0 * mean * self._cross + mean * mean * self._estimated_squares
            variance = max(0.0, residual) / self._estimated_squares
            spread = max(1.0, self._estimated_squares * self._seen / (self._estimated * self._estimated))
        mean = trust * mean + (1.0 - trust)
        variance = trust * variance + (1.0 - trust) * self._doubt * self._doubt
        margin = _DEVIATIONS * math.sqrt(variance * spread / max(1, under_way))
        return max(1.0, min(self._worst, mean + margin))
