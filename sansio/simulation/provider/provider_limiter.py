"""The provider's own rate limit: the judge of the client's, so it shares no code with it.

An exact log of charges over a sliding window. A request is charged when it arrives, with what it really uses (the mock
knows its answer beforehand); a charge made at ``t`` counts in ``[t, t + window)``. A refused request is not charged.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

Dimension = Literal["requests", "tokens"]


@dataclass(frozen=True, slots=True)
class ProviderLimits:
    """How many requests and tokens (input and output together) any ``window`` seconds may hold; ``None``: no limit.

    Raises `ValueError` for a limit that is not a whole number of at least 1, or a window that is not above 0.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    window: float = 60.0

    def __post_init__(self) -> None:
        for name in ("requests_per_minute", "tokens_per_minute"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"{name}: {value!r} is not a whole number of at least 1, nor None")
        if isinstance(self.window, bool) or not isinstance(self.window, (int, float)) or not 0 < self.window < math.inf:
            raise ValueError(f"window: {self.window!r} is not a number of seconds above 0")


@dataclass(frozen=True, slots=True)
class LimitRefusal:
    """Why a request does not fit.

    wait: seconds until it would, if nothing else came; ``None`` if it never can.
    """

    dimension: Dimension
    limit: int
    used: int
    requested: int
    wait: float | None


@dataclass(frozen=True, slots=True)
class LimitView:
    """What a client is told: each limit, what is left of it, and the seconds until all of it is back."""

    limits: ProviderLimits
    remaining_requests: int | None
    remaining_tokens: int | None
    reset: float


class ProviderLimiter:
    """Charges of the last window, oldest first.

    ``refused`` counts refusals; ``peak_requests`` and ``peak_tokens`` are the most that any window has held.
    """

    __slots__ = ("_charges", "_limits", "_now", "_tokens", "peak_requests", "peak_tokens", "refused")

    def __init__(self, limits: ProviderLimits) -> None:
        self._limits = limits
        self._charges: deque[tuple[float, int]] = deque()
        self._tokens = 0
        self._now = -math.inf
        self.refused = 0
        self.peak_requests = 0
        self.peak_tokens = 0

    def refusal(self, tokens: int, now: float) -> LimitRefusal | None:
        """Why a request of ``tokens`` may not come in, or ``None`` if it may. Charges nothing."""
        self._advance(now)
        found = self._too_many_requests() or self._too_many_tokens(tokens)
        self.refused += found is not None
        return found

    def charge(self, tokens: int, now: float) -> None:
        """Book one request and its tokens, whether they fit or not."""
        self._advance(now)
        self._charges.append((self._now, tokens))
        self._tokens += tokens
        self.peak_requests = max(self.peak_requests, len(self._charges))
        self.peak_tokens = max(self.peak_tokens, self._tokens)

    def view(self, now: float) -> LimitView:
        """What is left at ``now``."""
        self._advance(now)
        requests, tokens = self._limits.requests_per_minute, self._limits.tokens_per_minute
        return LimitView(
            self._limits,
            None if requests is None else max(0, requests - len(self._charges)),
            None if tokens is None else max(0, tokens - self._tokens),
            self._wait(self._charges[-1][0]) if self._charges else 0.0,
        )

    def _too_many_requests(self) -> LimitRefusal | None:
        limit, used = self._limits.requests_per_minute, len(self._charges)
        if limit is None or used < limit:
            return None
        return LimitRefusal("requests", limit, used, 1, self._wait(self._charges[used - limit][0]))

    def _too_many_tokens(self, tokens: int) -> LimitRefusal | None:
        limit = self._limits.tokens_per_minute
        if limit is None or self._tokens + tokens <= limit:
            return None
        if tokens > limit:
            return LimitRefusal("tokens", limit, self._tokens, tokens, None)
        excess = self._tokens + tokens - limit
        freed = accumulate(charged for _, charged in self._charges)
        at = next(at for (at, _), so_far in zip(self._charges, freed, strict=True) if so_far >= excess)
        return LimitRefusal("tokens", limit, self._tokens, tokens, self._wait(at))

    def _wait(self, charged_at: float) -> float:
        return max(0.0, charged_at + self._limits.window - self._now)

    def _advance(self, now: float) -> None:
        self._now = max(self._now, now)
        while self._charges and self._charges[0][0] + self._limits.window <= self._now:
            self._tokens -= self._charges.popleft()[1]
