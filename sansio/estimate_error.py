"""How far what requests use has been from what was estimated for them, and how much more to hold back until it is known.

A provider counts what a request really uses. A limiter has to decide before that is known, so between grant and settlement
its books are wrong by the error of its estimates; with the limit nearly used up, half the time in the dangerous direction.
What it holds back for that is the bias seen so far and a multiple of the noise. Errors of many requests under way at once
partly cancel out (their sum grows with the root of their number), so the more of them, the less each one needs. How well the
bias is known does not depend on them, only on how much it was learnt from:

    factor(n) = bias + Z * deviation * sqrt(1 / n + 1 / (known + 1)), never above the worst ratio to expect, never below 1

The bias is of used / estimated, weighted by size. Requests that use more often take longer, so that those under way are
worse than those that ended: weighted by time as well, the ratio is theirs. Of some that begin together the last to end are
worse again, so twice that difference is added. Requests of unequal sizes count as so many equal ones as would cancel out as
well, ``sum(sizes) ** 2 / sum(squared sizes)``: those that were seen, and those under way. Old observations fade. Settlement
gives back what was held back too much.

This assumes that errors are independent. Where one cause makes hundreds of requests longer that are under way at once, what
ended says nothing of it; the number of requests at a time bounds what that can amount to.
"""

from __future__ import annotations

import math

_MEMORY = 200
"""About how many of the latest observations count."""

_KEEP = 1.0 - 1.0 / _MEMORY

_DOUBT_WEIGHT = 20.0
"""How many observations outweigh the doubt one begins with. It fades as fast, so that nothing is left of it in the end."""

_DOUBT_KEEP = 1.0 - 1.0 / _DOUBT_WEIGHT

_DEVIATIONS = 5.0
"""Z: how many standard deviations are held back. One sum in three million is further off, if errors are normal."""

_WORST_RATIO = 1.85
"""The worst ratio at the start. With what may lie beyond it a little above 2: an estimate that is half of what is used."""

_BEYOND = 0.25
"""How much further than the worst one seen a ratio may be, as a part of that one's distance from 1."""

_WORST_FADES = 1.0 / (10 * _MEMORY)
"""What is rare is remembered for longer."""

_ABSURD_RATIO = 16
"""A use of more than so many times its estimate says less of the estimate than of who counted."""


class EstimateError:
    """The error of one kind of estimate.

    doubt: the standard deviation assumed before anything is known, as a part of the estimate.
    Raises `ValueError` for a doubt outside 0 to 1.
    """

    __slots__ = (
        "_bias", "_bias_variance", "_cross", "_doubt", "_doubt_weight", "_estimated", "_estimated_squares",
        "_estimated_times", "_most", "_relative_squares", "_used", "_used_squares", "_used_times", "_variance", "_worst",
    )  # fmt: skip

    def __init__(self, doubt: float = 0.0) -> None:
        if isinstance(doubt, bool) or not isinstance(doubt, (int, float)) or not 0 <= doubt <= 1:
            raise ValueError(f"doubt: {doubt!r} is outside 0 <= doubt <= 1")
        self._doubt = float(doubt * doubt)
        self._doubt_weight = _DOUBT_WEIGHT
        self._estimated = self._used = self._estimated_squares = self._used_squares = self._cross = 0.0
        self._relative_squares = self._estimated_times = self._used_times = 0.0
        self._worst = _WORST_RATIO
        # What follows from all of that, for `factor`.
        self._bias = 1.0
        self._variance = self._bias_variance = self._doubt
        self._most = self._worst + _BEYOND * (self._worst - 1.0)

    def observe(self, estimated: int, used: int, seconds: float = 0.0) -> None:
        """A request that was estimated at so much (as estimated, not as held back) has used so much, and took so long.

        To be told in the order in which they began, not in that in which they ended: who uses little ends first. An estimate
        of nothing, or a use below nothing, says nothing.
        """
        if estimated <= 0 or used < 0:
            return
        if used > _ABSURD_RATIO * estimated:
            used = _ABSURD_RATIO * estimated
        size, use, ratio = float(estimated), float(used), used / estimated
        sizes = self._estimated = self._estimated * _KEEP + size
        uses = self._used = self._used * _KEEP + use
        squares = self._estimated_squares = self._estimated_squares * _KEEP + size * size
        use_squares = self._used_squares = self._used_squares * _KEEP + use * use
        cross = self._cross = self._cross * _KEEP + size * use
        relative = self._relative_squares = self._relative_squares * _KEEP + use * ratio
        times = self._estimated_times = self._estimated_times * _KEEP + size * seconds
        use_times = self._used_times = self._used_times * _KEEP + use * seconds
        doubt_weight = self._doubt_weight = self._doubt_weight * _DOUBT_KEEP
        worst = self._worst
        worst = self._worst = ratio if ratio > worst else worst - (worst - ratio) * _WORST_FADES
        self._most = worst + _BEYOND * (worst - 1.0)

        mean = uses / sizes
        known = sizes * sizes / squares
        trust = known / (known + doubt_weight)
        # Weighted by its square, as a sum has it, the variance may be that of a few large ones, which is not known well;
        # weighted by size, it is that of more of them.
        by_squares = (use_squares - 2.0 * mean * cross + mean * mean * squares) / squares
        by_size = (relative - mean * uses) / sizes
        variance = (1.0 - trust) * self._doubt
        if by_squares > 0.0 or by_size > 0.0:  # where there is none, floats may see less than that
            variance += trust * (by_squares if by_squares > by_size else by_size)
        self._variance = variance
        self._bias_variance = variance / (known + 1.0)
        while_under_way = use_times / times if times > 0.0 else mean
        if while_under_way > mean:
            mean = 2.0 * while_under_way - mean
        self._bias = mean if mean >= 1.0 else 1.0 - trust * (1.0 - mean)  # nobody doubts that it might be less

    def factor(self, under_way: float) -> float:
        """By how much to multiply an estimate, at least 1.0, with so many requests under way (this one included)."""
        variance = self._variance / under_way if under_way > 1.0 else self._variance
        factor = self._bias + _DEVIATIONS * math.sqrt(variance + self._bias_variance)
        if factor > self._most:
            return self._most
        return factor if factor > 1.0 else 1.0
