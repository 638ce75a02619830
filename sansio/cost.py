"""What attempts cost. Unknown is not zero: a sum of costs says how many it leaves out, and how many are estimates.

Each attempt that used tokens counts once, also one that failed, broke off or was retried: the provider bills it. An attempt
is counted when it ends. If a better figure comes later (a late report of its usage), it takes the first one's place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

from .batch import TokenEstimate, TokenUsage
from .prices import Price

CostProvenance = Literal["exact", "estimated", "unknown"]
"""From a whole report at known prices; from an estimate, part of a report or a price not quite known; or not to be told."""

_PER_MILLION: Final = 1_000_000
_NANO: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class CostEstimate:
    """An amount in US dollars and how well it is known. ``usd`` is ``None`` exactly where ``provenance`` is unknown.

    Raises `ValueError` for anything else, or an amount that is negative or not finite.
    """

    usd: float | None
    provenance: CostProvenance
    currency: ClassVar[Literal["USD"]] = "USD"

    def __post_init__(self) -> None:
        if self.provenance not in ("exact", "estimated", "unknown"):
            raise ValueError(f"provenance: {self.provenance!r} is none of exact, estimated, unknown")
        if (self.usd is None) != (self.provenance == "unknown"):
            raise ValueError(f"usd: {self.usd!r} does not go with provenance={self.provenance!r}; None means unknown")
        if self.usd is not None and not 0 <= self.usd < math.inf:
            raise ValueError(f"usd: {self.usd!r} is not a finite amount of at least 0")


UNKNOWN_COST: Final = CostEstimate(None, "unknown")


def cost_of(usage: TokenUsage | None, price: Price | None) -> CostEstimate:
    """What a usage costs: exact where the usage is and every price it takes is known, unknown without either.

    Estimated where the usage is a lower bound (and then the cost is one), where another service tier served it that the
    price says nothing of (`Price.tiers`), a cache was written for a lifetime it says nothing of, or it varies by the hour.
    What the provider itself says it cost (`TokenUsage.cost_usd`) comes before any price.
    """
    usd, provenance = _cost(usage, price)
    return UNKNOWN_COST if usd is None else CostEstimate(usd, provenance)


def estimate_cost(estimate: TokenEstimate, price: Price | None) -> CostEstimate:
    """What a request is expected to cost: at the standard tier, without a cache. Unknown without a price."""
    if price is None:
        return UNKNOWN_COST
    now = price.at(estimate.input_tokens)
    usd = (estimate.input_tokens * now.input + estimate.output_tokens * now.output) / _PER_MILLION
    return CostEstimate(usd, "estimated")


def _cost(usage: TokenUsage | None, price: Price | None) -> tuple[float | None, CostProvenance]:
    if usage is None or usage.provenance == "unknown":
        return None, "unknown"
    exact = usage.provenance == "exact"
    if usage.cost_usd is not None:
        return usage.cost_usd, "exact" if exact else "estimated"
    if price is None:
        return None, "unknown"
    of_tier = price.of_tier(usage.service_tier)
    if of_tier is None:
        return _usd(usage, price)[0], "estimated"
    usd, all_known = _usd(usage, of_tier)
    return usd, "exact" if exact and all_known and not of_tier.varies else "estimated"


def _usd(usage: TokenUsage, price: Price) -> tuple[float, bool]:
    """Cached and written parts of the input at their own prices, never more of them than there is input; and whether every
    price that took is known."""
    now = price.at(usage.input_tokens)
    if not (usage.cached_input_tokens or usage.cache_write_tokens):
        return (usage.input_tokens * now.input + usage.output_tokens * now.output) / _PER_MILLION, True
    cached = min(usage.cached_input_tokens, usage.input_tokens)
    written = min(usage.cache_write_tokens, usage.input_tokens - cached)
    written_long = min(usage.cache_write_long_tokens, written)
    short_rate = now.input if now.cache_write is None else now.cache_write
    long_rate = short_rate if now.cache_write_long is None else now.cache_write_long
    total = (
        (usage.input_tokens - cached - written) * now.input
        + cached * (now.input if now.cached_input is None else now.cached_input)
        + (written - written_long) * short_rate
        + written_long * long_rate
        + usage.output_tokens * now.output
    )
    all_known = written_long == 0 or now.cache_write_long is not None or now.cache_write is None
    return total / _PER_MILLION, all_known


@dataclass(frozen=True, slots=True)
class CostTotals:
    """A sum over attempts. Those of ``unknown`` cost are in neither amount. The tokens are those that were reported."""

    attempts: int = 0
    unknown: int = 0
    exact_usd: float = 0.0
    estimated_usd: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def usd(self) -> float:
        """All that is known: exact and estimated together."""
        return self.exact_usd + self.estimated_usd


class CostEntry:
    """One attempt in a `CostLedger`, and what it counts with there (``cost`` is ``None`` before it does).

    Made by `CostLedger.open`; whoever runs the attempt keeps it.
    """

    __slots__ = ("cost", "deployment", "model", "usage")

    def __init__(self, deployment: str, model: str) -> None:
        self.deployment = deployment
        self.model = model
        self.cost: CostEstimate | None = None
        self.usage: TokenUsage | None = None


class _Account:
    """Sums of one deployment and model, in whole nano-dollars: they do not depend on the order, and taking back is exact."""

    __slots__ = ("attempts", "estimated", "exact", "input_tokens", "output_tokens", "unknown")

    def __init__(self) -> None:
        self.attempts = self.unknown = self.exact = self.estimated = self.input_tokens = self.output_tokens = 0

    def add(self, usd: float | None, provenance: CostProvenance, usage: TokenUsage | None, sign: int) -> None:
        """Count an attempt (``sign`` 1) or take it back (-1)."""
        self.attempts += sign
        if usd is None:
            self.unknown += sign
        elif provenance == "exact":
            self.exact += sign * round(usd * _NANO)
        else:
            self.estimated += sign * round(usd * _NANO)
        if usage is not None:
            self.input_tokens += sign * usage.input_tokens
            self.output_tokens += sign * usage.output_tokens


_RANK: Final = {"unknown": 0, "estimated": 1, "exact": 2}


class CostLedger:
    """Sums the cost of attempts for each deployment and model."""

    __slots__ = ("_accounts",)

    def __init__(self) -> None:
        self._accounts: dict[tuple[str, str], _Account] = {}

    def open(self, deployment: str, model: str) -> CostEntry:
        """The entry of one attempt. Counts nothing yet: an attempt that never left costs nothing."""
        return CostEntry(deployment, model)

    def record(self, entry: CostEntry, cost: CostEstimate, usage: TokenUsage | None = None) -> bool:
        """Count an attempt, once. A later call replaces its figures if it knows better, else changes nothing: ``False``."""
        before = entry.cost
        if before is not None and _RANK[cost.provenance] <= _RANK[before.provenance]:
            return False
        account = self._account(entry.deployment, entry.model)
        if before is not None:
            account.add(before.usd, before.provenance, entry.usage, -1)
        account.add(cost.usd, cost.provenance, usage, 1)
        entry.cost, entry.usage = cost, usage
        return True

    def count(self, deployment: str, model: str, usage: TokenUsage | None, price: Price | None) -> None:
        """Count an attempt of which nothing better will be known: no entry of it is made, and none is kept."""
        usd, provenance = _cost(usage, price)
        self._account(deployment, model).add(usd, provenance, usage, 1)

    def totals(self, deployment: str | None = None, model: str | None = None) -> CostTotals:
        """The sum over all attempts, or those of one deployment, one model, or both."""
        chosen = [
            account
            for (of_deployment, of_model), account in self._accounts.items()
            if deployment in (None, of_deployment) and model in (None, of_model)
        ]
        return CostTotals(
            attempts=sum(account.attempts for account in chosen),
            unknown=sum(account.unknown for account in chosen),
            exact_usd=sum(account.exact for account in chosen) / _NANO,
            estimated_usd=sum(account.estimated for account in chosen) / _NANO,
            input_tokens=sum(account.input_tokens for account in chosen),
            output_tokens=sum(account.output_tokens for account in chosen),
        )

    def by_deployment_and_model(self) -> dict[tuple[str, str], CostTotals]:
        """The sums apart, in order of name."""
        return {key: self.totals(*key) for key in sorted(self._accounts)}

    def _account(self, deployment: str, model: str) -> _Account:
        account = self._accounts.get((deployment, model))
        if account is None:
            account = self._accounts[deployment, model] = _Account()
        return account
