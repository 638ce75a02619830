"""Why a request whose attempt failed is not sent again: the reasons there may be, and what a retry budget has given out.

`Retrying` asks whether what is sent again may be. This asks the opposite, so it leans the other way: where the engine is
free (jitter; how finely its budget remembers), what it may have had as a reason is one.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from ...backoff import JitterKind
from ...errors import Forbidden, InferenceError, NetworkError, QuotaExhausted, RateLimited, StreamInterrupted, Unauthorized
from ...retry import RetryPolicy
from .retrying import bounds

_PRICE: Final = 5
_ALLOWED: Final = 50
"""A retry costs so much, of which a request that is sent for the first time pays 1, and so much may be owed."""

_WINDOW: Final = 10.0 * (1.0 + 2.0 / 32.0)
"""Seconds: ten, and two steps more of how finely they are remembered."""

_HINT_JITTER: Final = 0.1
_ROUNDING: Final = 1e-9


class RetryDebt:
    """At least what one deployment's retry budget has given out, as it may remember it."""

    __slots__ = ("_debt", "_marked_at", "_marks")

    def __init__(self) -> None:
        self._debt = 0
        self._marked_at = -math.inf
        self._marks: deque[tuple[float, int]] = deque()

    def asked(self, now: float) -> None:
        """A request is sent for the first time."""
        self._mark(now)
        self._debt -= 1

    def drawn(self, now: float) -> None:
        """A retry was granted."""
        self._mark(now)
        self._debt += _PRICE

    def exhausted(self, now: float) -> bool:
        """Whether there may be nothing left."""
        self._mark(now)
        return self._debt - self._marks[0][1] > _ALLOWED - _PRICE

    def _mark(self, now: float) -> None:
        """Remember the debt just before ``now``, where it can still be the smallest."""
        marks = self._marks
        if now > self._marked_at:
            self._marked_at = now
            while marks and marks[-1][1] >= self._debt:
                marks.pop()
            marks.append((now, self._debt))
        while marks[0][0] < now - _WINDOW:
            marks.popleft()


class Failure:
    """A failed attempt: what is known of it when it has to be decided what follows.

    retries: those before it and the one that might follow, without what a refreshed credential and a lost connection allow.
    """

    __slots__ = ("committed", "deadline", "error", "idempotent", "now", "policy", "refreshed", "resent", "retries", "stale")

    def __init__(
        self,
        error: InferenceError,
        policy: RetryPolicy,
        *,
        retries: int,
        now: float,
        deadline: float | None,
        idempotent: bool,
        committed: bool,
        stale: bool,
        refreshed: bool,
        resent: bool,
    ) -> None:
        self.error = error
        self.policy = policy
        self.retries = retries
        self.now = now
        self.deadline = deadline
        self.idempotent = idempotent
        self.committed = committed
        self.stale = stale
        self.refreshed = refreshed
        self.resent = resent

    @property
    def invited(self) -> bool:
        """Whether the provider itself said when it wants the request: such a retry is free."""
        return isinstance(self.error, RateLimited) and self._hint is not None

    def may_end(self, debt: RetryDebt) -> bool:
        """Whether there is a reason not to send it again."""
        error = self.error
        if error.should_retry is False or self.committed or isinstance(error, StreamInterrupted):
            return True
        if isinstance(error, NetworkError) and not self.resent and (error.unprocessed or (self.stale and self.idempotent)):
            return False  # it was lost unread, and goes again whatever the policy says
        if not self.idempotent or isinstance(error, (QuotaExhausted, Forbidden)):
            return True
        if isinstance(error, Unauthorized):
            return self.refreshed or self._comes_too_late(error.retry_after or 0.0)
        if not error.should_retry and not (error.retryable and error.kind in self.policy.retry_on):
            return True
        if self.retries > self.policy.max_retries or self._comes_too_late(self._longest_wait()):
            return True
        return not self.invited and debt.exhausted(self.now)

    @property
    def _hint(self) -> float | None:
        hint = self.error.retry_after if self.policy.respect_retry_after else None
        return hint if hint is not None and hint >= 0 else None

    def _comes_too_late(self, wait: float) -> bool:
        """Whether so long a wait is for a hint that is too long, or reaches the deadline."""
        hint = wait if isinstance(self.error, Unauthorized) else self._hint
        if hint is not None and hint > self.policy.max_retry_after:
            return True
        return self.deadline is not None and self.now + wait >= self.deadline

    def _longest_wait(self) -> float:
        longest, hint = bounds(self.policy, self.retries)[1], self._hint
        if hint is not None:
            longest = max(longest, hint if self.policy.jitter is JitterKind.NONE else hint * (1.0 + _HINT_JITTER))
        return longest * (1.0 + _ROUNDING)
