"""Invariants 11 to 14, and 23: what may be sent again, when, how often, and within which budget; no wait is negative."""

from __future__ import annotations

import math

from ...backoff import JitterKind
from ...errors import Forbidden, InferenceError, NetworkError, QuotaExhausted, RateLimited, StreamInterrupted, Unauthorized
from ...events import AttemptEnded
from ...retry import RetryPolicy
from .seen import Again, Asked, LaneSeen
from .violation import InvariantViolated

_RATIO, _FLOOR, _WINDOW = 5, 10, 10.0
"""In any so many seconds: at most so many retries, and one more for so many requests that are sent for the first time."""

_HINT_JITTER = 0.1
_ROUNDING = 1e-9


class Retrying:
    """What follows a failed attempt."""

    __slots__ = ()

    def failed(self, asked: Asked, event: AttemptEnded, error: InferenceError, *, committed: bool, now: float) -> bool:
        """An attempt failed. Returns whether another may follow."""
        asked.error = error
        asked.scheduled = False
        asked.again = again = _again(asked, event, error, committed=committed)
        asked.hint = None
        hint = error.retry_after
        if hint is not None and 0 <= hint < math.inf:
            if again is Again.REFRESHED:
                asked.not_before = now + hint
            elif again is Again.RETRY and asked.lane.retry.respect_retry_after:
                asked.hint = hint
                asked.not_before = now + hint
        return again is not Again.NEVER

    def scheduled(self, asked: Asked, reason: str, wait: float, now: float) -> None:
        """It was decided that a request is sent again, in ``wait`` seconds."""
        again, error = asked.again, asked.error
        if again is Again.NEVER or error is None:
            raise InvariantViolated(14, f"{asked} is to be sent again ({reason}), {_why_not(asked)}")
        if reason != (error.kind if again is Again.RETRY else again.value):
            raise InvariantViolated(14, f"{asked} is to be sent again for {reason!r}, after an error of kind {error.kind!r}")
        if not wait >= 0.0:
            raise InvariantViolated(23, f"{asked} is to be sent again in {wait:g} s")
        if again is Again.RETRY:
            _check_count(asked)
            _check_wait(asked, wait)
            if asked.hint is None or not isinstance(error, RateLimited):
                _draw(asked, now)
        elif again is Again.RESENT and wait:
            raise InvariantViolated(12, f"{asked} was lost unread, and is to be sent again in {wait:g} s instead of at once")
        asked.scheduled = True
        asked.not_before = max(asked.not_before, now + wait)

    def started(self, asked: Asked, now: float) -> None:
        """An attempt begins: the first, or one more. `asked` counts those before it."""
        if not asked.attempts:
            _mark(asked.lane, now)
            asked.lane.debt -= 1
            return
        if asked.again is Again.NEVER:
            raise InvariantViolated(14, f"{asked} was sent again, {_why_not(asked)}")
        if not asked.scheduled:
            raise InvariantViolated(12, f"{asked} was sent again without a wait, after attempt number {asked.attempts}")
        if now < asked.not_before:
            early = asked.not_before - now
            raise InvariantViolated(12, f"{asked} was sent again {early:g} s before its hint or the end of its backoff")
        if asked.again is Again.REFRESHED:
            asked.refreshed = True
        elif asked.again is Again.RESENT:
            asked.resent = True
        asked.again = Again.NEVER


def _again(asked: Asked, event: AttemptEnded, error: InferenceError, *, committed: bool) -> Again:
    """Whether, and why, a request may be sent again after this."""
    lane = asked.lane
    if committed or error.should_retry is False:
        return Again.NEVER
    if isinstance(error, NetworkError) and not asked.resent and (error.unprocessed or (event.stale and lane.idempotent)):
        return Again.RESENT
    if not lane.idempotent or isinstance(error, (QuotaExhausted, Forbidden, StreamInterrupted)):
        return Again.NEVER
    if isinstance(error, Unauthorized):
        return Again.NEVER if asked.refreshed else Again.REFRESHED
    if error.should_retry or (error.retryable and error.kind in lane.retry.retry_on):
        return Again.RETRY
    return Again.NEVER


def _why_not(asked: Asked) -> str:
    error = asked.error
    if asked.attempt:
        return f"while attempt {asked.attempt} runs"
    if error is None:
        return "though nothing went wrong"
    passed = "its commit point was passed" if asked.committed else "it was not"
    return f"after an error of kind {error.kind!r} (should_retry={error.should_retry}; {passed})"


def _check_count(asked: Asked) -> None:
    """One more retry, beside what a refreshed credential and a lost connection allow."""
    retries = asked.attempts - asked.refreshed - asked.resent
    if retries > asked.lane.retry.max_retries:
        about = f"{asked} is to be retried (retry number {retries}), max_retries is {asked.lane.retry.max_retries}"
        raise InvariantViolated(11, about)


def _check_wait(asked: Asked, wait: float) -> None:
    policy, hint = asked.lane.retry, asked.hint
    shortest, longest = bounds(policy, asked.attempts - asked.refreshed - asked.resent)
    if hint is not None:
        if hint > policy.max_retry_after:
            about = f"{asked} is to wait for a hint of {hint:g} s, max_retry_after is {policy.max_retry_after:g}"
            raise InvariantViolated(12, about)
        jitter = 0.0 if policy.jitter is JitterKind.NONE else _HINT_JITTER
        shortest, longest = max(shortest, hint), max(longest, hint * (1.0 + jitter))
    if not shortest * (1.0 - _ROUNDING) <= wait <= longest * (1.0 + _ROUNDING) or (hint is not None and wait < hint):
        raise InvariantViolated(
            12,
            f"{asked} is to wait {wait:g} s after attempt {asked.attempts} (hint: {hint}), which is not within "
            f"{shortest:g} and {longest:g}",
        )


def bounds(policy: RetryPolicy, retry: int) -> tuple[float, float]:
    """The shortest and the longest wait before a retry, by its number."""
    jitter, cap = policy.jitter, policy.max_backoff
    factor = 3.0 if jitter is JitterKind.DECORRELATED else policy.backoff_multiplier
    whole = policy.initial_backoff
    for _ in range(retry - (jitter is not JitterKind.DECORRELATED)):
        whole *= factor
        if whole >= cap:
            break
    whole = min(whole, cap)
    if jitter is JitterKind.NONE:
        return whole, whole
    if jitter is JitterKind.EQUAL:
        return whole / 2, whole
    return (0.0 if jitter is JitterKind.FULL else min(policy.initial_backoff, cap)), whole


def _draw(asked: Asked, now: float) -> None:
    """13, by the definition. A retry costs `_RATIO`, and a request gives 1 back. What was drawn in the interval from some
    instant until now is the debt now, less the debt just before that instant; it is compared for all of them at once, with
    the smallest."""
    lane = asked.lane
    _mark(lane, now)
    lane.debt += _RATIO
    since, least = lane.marks[0]
    if lane.debt - least > _FLOOR * _RATIO:
        drawn = (lane.debt - least) / _RATIO
        raise InvariantViolated(
            13,
            f"{asked} is retried; within {now - since:g} s retries are {drawn:g} more than a fifth of the first attempts, "
            f"{_FLOOR} may be",
        )


def _mark(lane: LaneSeen, now: float) -> None:
    """Remember the debt just before ``now``, where it can still be the smallest, and forget what is out of the window."""
    marks = lane.marks
    if now > lane.marked_at:
        lane.marked_at = now
        while marks and marks[-1][1] >= lane.debt:
            marks.pop()
        marks.append((now, lane.debt))
    while marks[0][0] < now - _WINDOW:
        marks.popleft()
