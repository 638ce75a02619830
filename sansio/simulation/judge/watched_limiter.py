"""The engine's limiter, with its books open: it decides as ever, and whoever ends a permit twice is caught at it."""

from __future__ import annotations

import math

from ...batch import TokenUsage
from ...errors import LimitExceeded
from ...rate_limit import Permit, RateLimiter, RateLimits, RateLimitSnapshot, Wait
from .violation import InvariantViolated


class WatchedLimiter(RateLimiter):
    """A `RateLimiter` that knows which of its permits are held.

    believed_until: how long what a provider's headers said may count for more than the charges. levels: what counts in each
    windowed dimension (of requests, tokens, input and output), to be asked at a time.
    """

    __slots__ = ("_held", "_unreported", "believed_until", "levels")

    def __init__(self, limits: RateLimits) -> None:
        super().__init__(limits)
        self._held: dict[int, Permit] = {}
        self._unreported: dict[int, Permit] = {}
        self.believed_until = -math.inf
        self.levels = [(each.kind, each.ledger.level) for each in self._dimensions if not each.paces]

    @property
    def in_flight(self) -> int:
        """How many requests it believes to be under way."""
        return self._in_flight

    def has_room(self, input_tokens: int, output_tokens: int, now: float) -> bool:
        """Whether a request of this cost fits into what it counts."""
        costs = (1, input_tokens + output_tokens, input_tokens, output_tokens)
        return self._in_flight < self._concurrent and all(
            each.ledger.level(now) + costs[each.kind] <= each.ledger.limit for each in self._dimensions
        )

    def reserve(self, requests: int, input_tokens: int, output_tokens: int, now: float) -> Permit | Wait | LimitExceeded:
        """As the engine's."""
        answer = super().reserve(requests, input_tokens, output_tokens, now)
        if isinstance(answer, Permit):
            self._held[answer.id] = answer
        return answer

    def settle(self, permit: Permit, actual: TokenUsage | None, now: float) -> None:
        """As the engine's. Raises `InvariantViolated` for a permit that is not held."""
        if self._held.pop(permit.id, None) is not permit:
            raise InvariantViolated(10, f"permit {permit.id} was settled, and nobody holds it")
        super().settle(permit, actual, now)

    def cancel(self, permit: Permit, sent: bool, now: float) -> None:
        """As the engine's. Raises `InvariantViolated` for a permit that is not held."""
        if self._held.pop(permit.id, None) is not permit:
            raise InvariantViolated(10, f"permit {permit.id} was cancelled, and nobody holds it")
        if sent:
            self._unreported[permit.id] = permit
        super().cancel(permit, sent, now)

    def report_usage(self, permit: Permit, actual: TokenUsage | None, now: float) -> None:
        """As the engine's. Raises `InvariantViolated` where no word is owed, or it was heard before."""
        if self._unreported.pop(permit.id, None) is not permit:
            raise InvariantViolated(10, f"late usage of permit {permit.id} was heard, and none is owed")
        super().report_usage(permit, actual, now)

    def observe_headers(self, snapshot: RateLimitSnapshot, now: float, asked_at: float | None = None) -> None:
        """As the engine's."""
        super().observe_headers(snapshot, now, asked_at)
        for said in (snapshot.requests, snapshot.tokens, snapshot.input_tokens, snapshot.output_tokens):
            if said is not None and said.remaining is not None:
                after = said.reset_after
                lasts = after if after is not None and 0 <= after < math.inf else self._span
                self.believed_until = max(self.believed_until, now + lasts)
