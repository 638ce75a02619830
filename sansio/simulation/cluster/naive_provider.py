"""The provider that a cluster calls: what it has counted, written down arrival by arrival. It never sees an estimate."""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from ...rate_limit import RateLimits

FIELDS: Final = ("requests_per_minute", "tokens_per_minute", "input_tokens_per_minute", "output_tokens_per_minute")
"""What is limited in a window, in the order in which amounts are listed here."""


class Amounts(NamedTuple):
    """What one request is, or may be: requests, tokens, input and output tokens."""

    requests: int
    tokens: int
    input_tokens: int
    output_tokens: int

    @staticmethod
    def of(input_tokens: int, output_tokens: int) -> Amounts:
        """Of one request."""
        return Amounts(1, input_tokens + output_tokens, input_tokens, output_tokens)


class NaiveProvider:
    """A sliding window over what arrived: what came at ``t`` counts until ``t`` + window. What does not fit is refused, and
    not counted.

    accepted, refused: how many were.
    """

    def __init__(self, limits: RateLimits) -> None:
        self.accepted = 0
        self.refused = 0
        self._limits = [(kind, limit) for kind, field in enumerate(FIELDS) if (limit := getattr(limits, field)) is not None]
        self._window = limits.window
        self._all: list[tuple[float, Amounts]] = []
        self._arrivals: deque[tuple[float, Amounts]] = deque()
        self._sums = [0] * len(FIELDS)

    def arrives(self, used: Amounts, now: float) -> str | None:
        """A request arrives that is going to use this much. Returns what refuses it, in words; ``None``: it is taken."""
        arrivals, sums = self._arrivals, self._sums
        while arrivals and arrivals[0][0] + self._window <= now:
            for kind, amount in enumerate(arrivals.popleft()[1]):
                sums[kind] -= amount
        for kind, limit in self._limits:
            if sums[kind] + used[kind] > limit:
                self.refused += 1
                return f"{sums[kind]} + {used[kind]} in a window of {FIELDS[kind]}={limit}"
        arrivals.append((now, used))
        self._all.append((now, used))
        self.accepted += 1
        for kind, amount in enumerate(used):
            sums[kind] += amount
        return None

    def mean_level(self, kind: int, span: float, since: float, until: float) -> float:
        """How much of one amount had arrived within the last ``span`` seconds, on average between two instants."""
        total = 0.0
        for at, used in self._all:
            total += used[kind] * max(0.0, min(at + span, until) - max(at, since))
        return total / (until - since)
