"""What an engine has done and is doing, as one value."""

from __future__ import annotations

from dataclasses import dataclass, field

from .batch import Provenance, TokenUsage
from .cost import CostTotals


class UsageSum:
    """Usages, added up. Exact where all of them were; a lower bound otherwise."""

    __slots__ = ("_cache_write", "_cache_write_long", "_cached", "_exact", "_input", "_output", "_reasoning")

    def __init__(self) -> None:
        self._input = self._output = self._cached = self._cache_write = self._reasoning = 0
        self._cache_write_long = 0
        self._exact = True

    def add(self, usage: TokenUsage) -> None:
        """One more. Plain numbers: a `TokenUsage` for every sum would cost more than all of them."""
        self._input += usage.input_tokens
        self._output += usage.output_tokens
        self._cached += usage.cached_input_tokens
        self._cache_write += usage.cache_write_tokens
        self._cache_write_long += usage.cache_write_long_tokens
        self._reasoning += usage.reasoning_tokens
        if usage.provenance != "exact":
            self._exact = False

    def value(self) -> TokenUsage:
        """The sum."""
        provenance: Provenance = "exact" if self._exact else "lower_bound"
        return TokenUsage(
            self._input, self._output, self._cached, self._cache_write, self._reasoning, provenance, self._cache_write_long
        )  # fmt: skip


@dataclass(slots=True)
class EngineMetrics:
    """Counts since the engine was made.

    At every instant: ``submitted == queued + waiting + in_flight + done + failed + cancelled + rejected``. Waiting means
    backing off before a retry, or waiting for a new credential after a 401; rejected means refused before acceptance.
    """

    submitted: int = 0
    queued: int = 0
    waiting: int = 0
    in_flight: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0
    rejected: int = 0
    attempts: int = 0
    retries: dict[str, int] = field(default_factory=dict[str, int])
    """Retries by reason: the kind of the error that caused them, or ``"stale_connection"``."""
    failures: dict[str, int] = field(default_factory=dict[str, int])
    """Failed and rejected requests by the kind of their error."""
    throttled: int = 0
    circuit_transitions: dict[str, int] = field(default_factory=dict[str, int])
    """Such as ``{"closed->open": 1}``, endpoint and key circuits together."""
    refreshes: int = 0
    failed_refreshes: int = 0
    usage: TokenUsage = field(default_factory=TokenUsage)
    """All attempts whose usage is known, together."""
    unknown_usage: int = 0
    """Attempts that were sent and whose usage never became known."""
    cost_usd: float = 0.0
    """The known cost of all attempts. Attempts of unknown cost are counted in ``unknown_cost``, not as zero."""
    unknown_cost: int = 0
    costs: dict[tuple[str, str], CostTotals] = field(default_factory=dict[tuple[str, str], CostTotals])
    """The same apart, by deployment and model."""

    @property
    def accounted(self) -> int:
        """The right-hand side of the identity; equals ``submitted``."""
        return self.queued + self.waiting + self.in_flight + self.done + self.failed + self.cancelled + self.rejected
