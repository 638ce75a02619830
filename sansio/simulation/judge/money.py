"""What attempts cost, added up by hand: what a budget that rejects has given out at most, and the sum of all there was.

Amounts are whole nano-dollars.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from ...batch import TokenUsage
from ...budget import Budget, BudgetAction
from ...cost import CostTotals
from ...lane import Lane
from ...prices import Price
from .violation import InvariantViolated

_NANO: Final = 1_000_000_000
_LONGER: Final = 1.002
"""A charge may be held a thousandth of its window longer, and not shorter."""

_HOUR: Final = 3_600.0
_DAY: Final = 86_400.0


class Reserved:
    """What one attempt is charged."""

    __slots__ = ("amount", "at", "kept", "spending")

    def __init__(self, spending: Spending, amount: int, at: float) -> None:
        self.spending = spending
        self.amount = amount
        self.at = at
        self.kept = True

    def give_back(self) -> None:
        """Nothing was used."""
        self._stand_at(0)

    def settle(self, usage: TokenUsage | None) -> None:
        """It is over. Where it is not known what was used, the reservation stays."""
        if usage is None or usage.provenance == "unknown":
            return
        spent = round(usd_of(usage, self.spending.price) * _NANO)
        self._stand_at(spent if usage.provenance == "exact" else max(spent, self.amount))

    def _stand_at(self, amount: int) -> None:
        if self.kept:
            self.spending.total += amount - self.amount
        self.amount = amount


class Spending:
    """What a deployment with a budget that rejects has reserved and spent: at least what its ledger still holds."""

    __slots__ = ("_charges", "_limits", "price", "total")

    def __init__(self, budget: Budget, price: Price) -> None:
        limits = ((budget.max_spend_per_hour_usd, _HOUR), (budget.max_spend_per_day_usd, _DAY))
        self._limits = [(round(limit * _NANO), span * _LONGER) for limit, span in limits if limit is not None]
        self.price = price
        self._charges: deque[Reserved] = deque()
        self.total = 0

    def reserve(self, tokens: tuple[int, int], now: float) -> Reserved:
        """An attempt begins that may use so many input and output tokens."""
        charges = self._charges
        while charges and charges[0].at < now - _DAY * _LONGER:
            charges[0].kept = False
            self.total -= charges.popleft().amount
        charge = Reserved(self, self._cost(tokens), now)
        self._charges.append(charge)
        self.total += charge.amount
        return charge

    def may_refuse(self, tokens: tuple[int, int], now: float) -> bool:
        """Whether a request of this size may find too little left."""
        amount = self._cost(tokens)
        return any(self._within(span, now) + amount > limit for limit, span in self._limits)

    def _within(self, span: float, now: float) -> int:
        charges = self._charges
        if not charges or charges[0].at >= now - span:
            return self.total
        return sum(charge.amount for charge in charges if charge.at >= now - span)

    def _cost(self, tokens: tuple[int, int]) -> int:
        return round(usd_of(TokenUsage(*tokens), self.price) * _NANO)


def spending_of(lane: Lane) -> Spending | None:
    """What a lane spends, where it has a budget that rejects."""
    budget, price = lane.deployment.spending, lane.price
    if budget is None or price is None or budget.on_exceeded is not BudgetAction.REJECT:
        return None
    return Spending(budget, price)


class Bill:
    """The sum of every attempt that used something, at its price."""

    __slots__ = ("_attempts", "_estimated", "_exact", "_unknown")

    def __init__(self) -> None:
        self._attempts = self._unknown = self._exact = self._estimated = 0

    def used(self, usage: TokenUsage | None, price: Price | None) -> None:
        """One attempt used so much."""
        self._attempts += 1
        if usage is None or price is None or usage.provenance == "unknown":
            self._unknown += 1
        elif usage.provenance == "exact":
            self._exact += round(usd_of(usage, price) * _NANO)
        else:
            self._estimated += round(usd_of(usage, price) * _NANO)

    def check(self, shown: CostTotals) -> None:
        """Compare with the engine's sums."""
        mine = self._attempts, self._unknown, self._exact / _NANO, self._estimated / _NANO
        theirs = shown.attempts, shown.unknown, shown.exact_usd, shown.estimated_usd
        if mine != theirs:
            names = "attempts, of these unknown, exact and estimated dollars"
            raise InvariantViolated(21, f"what was used costs {mine} ({names}), the engine's sum is {theirs}")


def usd_of(usage: TokenUsage, price: Price) -> float:
    """By the price list."""
    now = price.at(usage.input_tokens)
    cached = min(usage.cached_input_tokens, usage.input_tokens)
    written = min(usage.cache_write_tokens, usage.input_tokens - cached)
    plain = usage.input_tokens - cached - written
    total = plain * now.input
    total += cached * (now.input if now.cached_input is None else now.cached_input)
    total += written * (now.input if now.cache_write is None else now.cache_write)
    return (total + usage.output_tokens * now.output) / 1_000_000
