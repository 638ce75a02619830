"""Budgets: what a deployment may spend in any hour and any day.

Money is reserved before an attempt is sent, from an estimate, and settled after it, from its usage. Both windows roll: what
counts is the last 3,600 and the last 86,400 seconds, whatever the clock on the wall says. Amounts are whole nano-dollars, so
that sums do not drift; one token of the cheapest model is a few of them, a micro-dollar would be hundreds of tokens.

Only ``reject`` caps, and this is how well. It grants what fits: what the window holds (settled, reserved, and the new one)
is at most the limit. What can still be added is by what was in flight at that instant. So in every hour and every day, each
attempt dated when its money was reserved, what was spent exceeds the limit by no more than what the attempts in flight at
one instant (at most the slots, and those cancelled whose report is yet to come) came to beyond their reservations. Where a
usage never becomes known its reservation stands for it, and what it came to beyond that comes on top, known to nobody. An
estimate is at the standard tier and without a cache: a dearer tier and what is written to a cache are such differences too.

The other way round, a request is refused only if it does not fit into the limit together with what is spent and reserved,
where a charge may count a thousandth of the window longer (3.6 seconds of the hour, 86.4 of the day). What was overdrawn is
so until time has passed. ``warn`` and ``throttle`` let everything through, and tell when the budget is exceeded.
"""

from __future__ import annotations

import enum
import math
from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass
from typing import Final

from .sliding_ledger import Charge, SlidingLedger

_HOUR: Final = 3_600.0
_DAY: Final = 86_400.0
_NANO: Final = 1_000_000_000

_LEAST_LIMIT_USD: Final = 0.000001
_LARGEST_USD: Final = 1e15
"""More than this counts as this much: it is beyond any limit, and stays countable."""


class BudgetAction(enum.StrEnum):
    """What a spent budget does.

    REJECT: refuse what does not fit. WARN: say so. THROTTLE: halve the deployment's slots.
    """

    REJECT = "reject"
    WARN = "warn"
    THROTTLE = "throttle"


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be spent, in US dollars. ``None`` is no limit.

    Raises `ValueError` naming the field for a limit below a micro-dollar or not finite, or for an unknown action.
    """

    max_spend_per_hour_usd: float | None = None
    max_spend_per_day_usd: float | None = None
    on_exceeded: BudgetAction = BudgetAction.REJECT

    def __post_init__(self) -> None:
        for name in ("max_spend_per_hour_usd", "max_spend_per_day_usd"):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if value is not None and not (number and _LEAST_LIMIT_USD <= value < math.inf):
                raise ValueError(f"{name}: {value!r} is not a finite amount of at least 0.000001 US dollars, nor None")
        try:
            object.__setattr__(self, "on_exceeded", BudgetAction(self.on_exceeded))
        except ValueError:
            known = ", ".join(BudgetAction)
            raise ValueError(f"on_exceeded: {self.on_exceeded!r} is none of {known}") from None


class BudgetReservation:
    """Money set aside for one attempt, ``open`` until it is settled or cancelled. Made by `BudgetLedger.reserve`."""

    __slots__ = ("charges", "open", "usd")

    def __init__(self, usd: float, charges: tuple[tuple[SlidingLedger, Charge], ...]) -> None:
        self.usd = usd
        self.charges = charges
        self.open = True

    def __repr__(self) -> str:
        return f"BudgetReservation(usd={self.usd!r}, {'open' if self.open else 'closed'})"


@dataclass(frozen=True, slots=True)
class BudgetRefusal:
    """The budget does not cover it. ``retry_at`` is when it will, if nothing else happens; ``None`` if it never can."""

    retry_at: float | None


class BudgetLedger:
    """What a deployment has spent and reserved in the last hour and the last day.

    ``now`` is monotonic seconds of any epoch; a clock that goes backwards counts as standing still.
    """

    __slots__ = ("_said", "_windows", "budget")

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._said = False
        """Whether it was said that it is exceeded, and it has been ever since."""
        limits = ((budget.max_spend_per_hour_usd, _HOUR), (budget.max_spend_per_day_usd, _DAY))
        self._windows = tuple(SlidingLedger(_nano(limit), span) for limit, span in limits if limit is not None)

    def reserve(self, usd: float, now: float) -> BudgetReservation | BudgetRefusal:
        """Set ``usd`` aside in both windows, or in neither. Only ``reject`` refuses.

        Raises `ValueError` for an amount that is negative or not finite.
        """
        _check_usd(usd)
        self._look_again(now)
        amount = _nano(usd)
        if self.budget.on_exceeded is BudgetAction.REJECT:
            retry_at = max((window.earliest(amount, now) for window in self._windows), default=now)
            if retry_at > now:
                return BudgetRefusal(None if math.isinf(retry_at) else retry_at)
        return BudgetReservation(usd, tuple((window, window.charge(amount, now)) for window in self._windows))

    def settle(self, reservation: BudgetReservation, usd: float | None, now: float) -> None:
        """Replace what was reserved by what it came to; ``None`` (unknown) keeps it. A second call does nothing.

        Charges that have left their window stay as they were. Raises `ValueError` as `reserve` does.
        """
        if usd is not None:
            _check_usd(usd)
        self._close(reservation, usd, now)

    def cancel(self, reservation: BudgetReservation, now: float) -> None:
        """Nothing was sent: give the money back. Does nothing once settled or cancelled."""
        self._close(reservation, 0.0, now)

    def _close(self, reservation: BudgetReservation, usd: float | None, now: float) -> None:
        if not reservation.open:
            return
        reservation.open = False
        self._look_again(now)
        if usd is not None:
            for window, charge in reservation.charges:
                window.edit(charge, _nano(usd), now)

    def spent(self, now: float) -> tuple[float | None, float | None]:
        """US dollars spent and reserved in the last hour and the last day; ``None`` for a window without a limit."""
        levels = {window.span: window.level(now) / _NANO for window in self._windows}
        return levels.get(_HOUR), levels.get(_DAY)

    def exceeded(self, now: float) -> bool:
        """Whether a window has nothing left."""
        return any(window.level(now) >= window.limit for window in self._windows)

    def recovers_at(self, now: float) -> float:
        """When every window has something left again, if nothing else is spent; ``now`` where none is exceeded."""
        return max((window.earliest(1, now) for window in self._windows), default=now)

    def warns(self, now: float) -> bool:
        """Whether the budget is exceeded and its action is one that lets requests through and says so."""
        return self.budget.on_exceeded is not BudgetAction.REJECT and self.exceeded(now)

    def announces(self, now: float) -> bool:
        """Whether to say now that it `warns`: once, until it has not been exceeded in between. Asking is saying so."""
        if self._said or not self.warns(now):
            return False
        self._said = True
        return True

    def throttles(self, now: float) -> bool:
        """Whether the budget is exceeded and its action is to halve the slots."""
        return self.budget.on_exceeded is BudgetAction.THROTTLE and self.exceeded(now)

    def _look_again(self, now: float) -> None:
        """Before an amount changes: by time, or by the last change, there may be something left again."""
        if self._said and not self.exceeded(now):
            self._said = False


class OutputPercentile:
    """The running 95th percentile of output tokens: what to reserve for a request that sets no limit.

    Exact over the last ``size`` answers (nearest rank: the smallest of them that at least 95 % do not exceed). Until
    ``warm_up`` answers have been seen it is not below ``default``: a few short answers tell nothing about long ones.
    """

    __slots__ = ("_default", "_last", "_size", "_sorted", "_warm_up")

    def __init__(self, default: int = 1024, size: int = 512, warm_up: int = 20) -> None:
        for name, value in (("default", default), ("size", size), ("warm_up", warm_up)):
            if type(value) is not int or value < 1:
                raise ValueError(f"{name}: {value!r} is not a whole number of at least 1")
        self._default = default
        self._size = size
        self._warm_up = warm_up
        self._last: deque[int] = deque()
        self._sorted: list[int] = []

    def add(self, output_tokens: int) -> None:
        """Take one answer's output. Raises `ValueError` below zero."""
        if type(output_tokens) is not int or output_tokens < 0:
            raise ValueError(f"output_tokens: {output_tokens!r} is not a whole number of at least 0")
        if len(self._last) == self._size:
            del self._sorted[bisect_left(self._sorted, self._last.popleft())]
        self._last.append(output_tokens)
        insort(self._sorted, output_tokens)

    def value(self) -> int:
        """The percentile, in tokens."""
        count = len(self._sorted)
        if count == 0:
            return self._default
        percentile = self._sorted[-(-count * 95 // 100) - 1]
        return percentile if count >= self._warm_up else max(percentile, self._default)


def _nano(usd: float) -> int:
    return round(min(usd, _LARGEST_USD) * _NANO)


def _check_usd(usd: float) -> None:
    if isinstance(usd, bool) or not isinstance(usd, (int, float)) or not 0 <= usd < math.inf:
        raise ValueError(f"usd: {usd!r} is not a finite amount of at least 0")
