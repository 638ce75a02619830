"""Whether to send a failed request again, and when.

`RetryEngine.decide` is one decision: an attempt and its error in, `Retry` or `GiveUp` out. The provider's own word comes
first (its hint is a lower bound, its refusal is final), then what can never be repeated (output already delivered, work
that is not idempotent), then the caller's policy, and last the `RetryBudget`, which keeps an outage from multiplying the
load that met it.
"""

from __future__ import annotations

import difflib
import math
import random
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Final, Literal, cast

from .backoff import BackoffPolicy, JitterKind, compute_backoff, require_count, require_number, require_positive
from .errors import Forbidden, InferenceError, QuotaExhausted, RateLimited, StreamInterrupted, Unauthorized

DEFAULT_RETRY_ON: Final = frozenset(
    {"rate_limited", "conflict", "network_error", "server_error", "timeout", "protocol_error"}
)
"""The kinds that are retried where the instance at hand is retryable."""

_NEVER_REPEATED: Final = (QuotaExhausted, Unauthorized, Forbidden)
"""Money and identity: no word of the provider makes the same credential good. (A refreshed one is the session's retry.)"""

_HINT_JITTER: Final = 0.1
"""How much of a hint is added to it at most, so that the clients it was given to do not come back as one."""

_MARKS_PER_WINDOW: Final = 32
"""How finely the budget remembers a window: its memory, and by which share of the window a refund may come late."""


@dataclass(frozen=True, slots=True, repr=False)
class RetryPolicy:
    """What a deployment retries. Durations are seconds.

    max_retries: retries per request, beyond its first attempt; 0 never retries. An error may allow fewer (`InferenceError`).
    initial_backoff, max_backoff, backoff_multiplier, jitter: see `BackoffPolicy`.
    respect_retry_after: whether the provider's hint counts. Where it does, no retry comes before it.
    max_retry_after: a longer hint is not waited for: the request fails at once.
    retry_on: kinds of error (`InferenceError` subclasses, or their ``kind``), kept as a frozenset of kinds. An error whose
    kind is in it is still not retried unless it is retryable.

    Raises `ValueError` at construction for a field out of range, naming it.
    """

    max_retries: int = 3
    initial_backoff: float = 1.0
    max_backoff: float = 60.0
    backoff_multiplier: float = 2.0
    jitter: JitterKind = JitterKind.EQUAL
    respect_retry_after: bool = True
    max_retry_after: float = 60.0
    retry_on: Collection[str | type[InferenceError]] = DEFAULT_RETRY_ON

    def __post_init__(self) -> None:
        require_count("max_retries", self.max_retries)
        object.__setattr__(self, "jitter", self.backoff.jitter)  # building it checks its four fields
        if not isinstance(self.respect_retry_after, bool):
            raise ValueError(f"respect_retry_after: {self.respect_retry_after!r} is neither True nor False")
        require_number("max_retry_after", self.max_retry_after)
        object.__setattr__(self, "retry_on", _kinds(self.retry_on))

    @property
    def backoff(self) -> BackoffPolicy:
        """The curve of the waits."""
        return BackoffPolicy(self.initial_backoff, self.max_backoff, self.backoff_multiplier, self.jitter)

    def __repr__(self) -> str:
        # A frozenset prints in the order of the process' hash seed; a trace must not depend on that.
        shown = {field.name: repr(getattr(self, field.name)) for field in fields(self)}
        shown["retry_on"] = repr(sorted(map(str, self.retry_on)))
        return f"RetryPolicy({', '.join(f'{name}={value}' for name, value in shown.items())})"


@dataclass(frozen=True, slots=True)
class Attempt:
    """The attempt that failed.

    number: 1 for the first.
    committed: content of its answer has reached the caller; sending again would repeat it.
    idempotent: the deployment says that doing the work twice does no harm.
    """

    number: int
    committed: bool = False
    idempotent: bool = True

    def __post_init__(self) -> None:
        require_count("number", self.number, at_least=1)


@dataclass(frozen=True, slots=True)
class Retry:
    """Send again, not before ``at``. ``wait`` is the same in seconds from now; ``reason`` is the error's kind."""

    wait: float
    at: float
    reason: str


GiveUpReason = Literal[
    "not_retryable",
    "committed",
    "not_idempotent",
    "not_in_retry_on",
    "max_retries",
    "hint_too_long",
    "past_deadline",
    "retry_budget",
]
"""The first rule that forbade a retry, in the order in which they are asked."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Do not send again: ``error`` is the request's outcome, ``reason`` the rule that said so."""

    reason: GiveUpReason
    error: InferenceError


RetryDecision = Retry | GiveUp
"""What `RetryEngine.decide` answers."""


class RetryBudget:
    """How many retries the recent load allows: in any interval of ``window`` seconds, both ends included and wherever it
    starts, at most ``floor`` plus ``ratio`` for each request in it.

    A retry is therefore paid for by requests that come with it or after it (gRPC's retry throttling, gRFC A6, has later
    successes pay): a provider that fails everything sees at most ``floor`` more than ``1 + ratio`` of the usual load,
    however busy the minute before was.

    The *debt* is all retries taken less all retries earned. The rule holds for the interval from t until now if the debt
    has grown by at most ``floor`` since t; so the only t that matters is the one of the last ``window`` seconds just before
    which the debt was smallest. `_marks` holds the candidates for it, from the oldest, which has the smallest debt, to
    now: a mark that is not below a newer one can never matter again. Close neighbours share a mark, which keeps the
    smaller debt and the later time. So memory is bounded, and an old retry is forgotten late, never early.

    Debts are integers, a retry costing ``ratio``'s denominator and a request earning its numerator, so nothing is lost
    or invented by rounding. Raises `ValueError` at construction for a parameter out of range.
    """

    __slots__ = ("_allowed", "_debt", "_earned", "_marks", "_now", "_price", "_span", "_window")

    def __init__(self, ratio: float = 0.2, floor: int = 10, window: float = 10.0) -> None:
        require_number("ratio", ratio)
        require_count("floor", floor)
        require_positive("window", window)
        share = Fraction(str(ratio))  # 0.3 means three tenths, not the nearest binary fraction
        self._earned, self._price = share.numerator, share.denominator
        self._allowed = floor * self._price
        self._window = window
        self._span = window / _MARKS_PER_WINDOW
        self._now = -math.inf
        self._debt = 0
        self._marks = deque([_Mark(0, -math.inf)])  # never empty: the newest mark is never older than now

    def record_request(self, now: float) -> None:
        """A request was sent for the first time: it earns ``ratio`` of a retry."""
        if now > self._now:
            self._advance(now)
        self._debt -= self._earned

    def available(self, now: float) -> int:
        """How many retries would be granted now."""
        self._advance(now)
        return (self._allowed - (self._debt - self._marks[0].debt)) // self._price

    def try_retry(self, now: float) -> bool:
        """Take one retry. ``False``, and nothing is taken, where the budget has none."""
        if self.available(now) < 1:
            return False
        self._debt += self._price
        return True

    def _advance(self, now: float) -> None:
        """Mark the debt just before ``now``, and forget the marks that no interval reaching up to now can start at."""
        if now > self._now:
            self._now = now
            self._mark(now)
        while self._marks[0].last < self._now - self._window:
            self._marks.popleft()

    def _mark(self, now: float) -> None:
        marks = self._marks
        if len(marks) == 1 and marks[0].debt >= self._debt:  # no retry lately: the only mark gives way to the new one
            marks[0].debt, marks[0].first, marks[0].last = self._debt, now, now
            return
        while marks and marks[-1].debt >= self._debt:
            marks.pop()
        if marks and now - marks[-1].first < self._span:
            marks[-1].last = now
        else:
            marks.append(_Mark(self._debt, now))


class RetryEngine:
    """Decides what follows a failed attempt. It remembers nothing of a request; only the budget is shared.

    ``budget`` may be ``None`` (retries are then bounded by ``max_retries`` alone); ``rng`` is drawn from for jitter.
    """

    __slots__ = ("_backoff", "_budget", "_now", "_policy", "_rng")

    def __init__(self, policy: RetryPolicy, budget: RetryBudget | None, rng: random.Random) -> None:
        self._policy = policy
        self._backoff = policy.backoff
        self._budget = budget
        self._rng = rng
        self._now = -math.inf

    def decide(self, attempt: Attempt, error: InferenceError, now: float, deadline: float | None) -> RetryDecision:
        """What to do after ``attempt`` failed with ``error`` at ``now``. ``deadline`` is the request's own, on that clock.

        A retry that could only start at the deadline or after it is useless, so it is refused now. The budget is drawn
        on last, and only where the answer is `Retry`; a 429 that came with a hint does not draw on it, because the
        provider itself has said when it wants the request.
        """
        now = self._now = max(self._now, now)
        refusal = self._forbidden(attempt, error)
        if refusal is not None:
            return GiveUp(refusal, error)
        hint = self._hint(error)
        if hint is not None and hint > self._policy.max_retry_after:
            return GiveUp("hint_too_long", error)
        wait = self._wait(attempt, hint)
        at = _not_before(now, wait)
        if deadline is not None and at >= deadline:
            return GiveUp("past_deadline", error)
        invited = hint is not None and isinstance(error, RateLimited)
        if self._budget is not None and not invited and not self._budget.try_retry(now):
            return GiveUp("retry_budget", error)
        return Retry(wait, at, error.kind)

    def _forbidden(self, attempt: Attempt, error: InferenceError) -> GiveUpReason | None:
        """The rule that forbids any retry of this attempt, whatever the time; ``None`` if there is none."""
        if error.should_retry is False or isinstance(error, _NEVER_REPEATED):
            return "not_retryable"
        if attempt.committed or isinstance(error, StreamInterrupted):
            return "committed"
        if not attempt.idempotent:
            return "not_idempotent"
        if not error.should_retry:  # True stands in for both of these (x-should-retry)
            if not error.retryable:
                return "not_retryable"
            if error.kind not in self._policy.retry_on:
                return "not_in_retry_on"
        return "max_retries" if attempt.number > self._most_retries(error) else None

    def _most_retries(self, error: InferenceError) -> int:
        """The policy's, unless the error allows fewer."""
        allowed = self._policy.max_retries
        return allowed if error.max_retries is None else min(allowed, error.max_retries)

    def _hint(self, error: InferenceError) -> float | None:
        hint = error.retry_after if self._policy.respect_retry_after else None
        return float(hint) if hint is not None and hint >= 0 else None  # NaN is no hint either

    def _wait(self, attempt: Attempt, hint: float | None) -> float:
        """The longer of backoff and hint; where the policy has jitter, some is added to the hint, never taken from it."""
        backoff = compute_backoff(self._backoff, attempt.number - 1, self._rng)
        if hint is None:
            return backoff
        if self._backoff.jitter is JitterKind.NONE:
            return max(backoff, hint)
        return max(backoff, hint + hint * _HINT_JITTER * self._rng.random())


class _Mark:
    """The debt just before ``first``, standing for the whole time up to ``last``."""

    __slots__ = ("debt", "first", "last")

    def __init__(self, debt: int, now: float) -> None:
        self.debt = debt
        self.first = self.last = now


def _not_before(now: float, wait: float) -> float:
    """``now + wait``, rounded up where the clock is too coarse: the result less ``now`` is never below ``wait``."""
    at = now + wait
    return at if at - now >= wait else math.nextafter(at, math.inf)


def _kinds(entries: object) -> frozenset[str]:
    """The kinds that ``retry_on`` names. Raises `ValueError` saying which are known."""
    if isinstance(entries, (str, bytes)) or not isinstance(entries, Iterable):
        raise ValueError(f"retry_on: {entries!r} is not a collection of kinds; write {sorted(DEFAULT_RETRY_ON)}")
    known = sorted({kind.kind for kind in InferenceError.__subclasses__()})
    kinds: set[str] = set()
    for entry in cast("Iterable[object]", entries):
        kind: object = getattr(entry, "kind", entry)  # a class knows its own
        if not isinstance(kind, str) or kind not in known:
            nearest = difflib.get_close_matches(str(kind), known, n=1) or known
            raise ValueError(f"retry_on: {kind!r} is no kind of InferenceError; nearest known: {', '.join(nearest)}")
        kinds.add(kind)
    return frozenset(kinds)
