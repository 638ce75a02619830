"""The rate limiter of one (provider, key, model), in one process.

Providers limit several things at once: requests, tokens, or input and output tokens apart, each in any minute, and how
many requests run at a time. A `RateLimiter` grants a request in all of these dimensions together or not at all. Each
dimension is a `SlidingLedger`, so no interval of ``window + delivery_guard`` seconds, whatever its start, is ever
charged more than the limit. The guard covers that the provider counts a request a little after it was granted here.

Tokens are reserved from an estimate and settled from the usage, which edits the original charge. Who does not believe the
estimates has more held back until then (`EstimateError`). What the provider says
back is heard in two ways: a 429 pauses everything until its hint and lowers the rate (`_Throttling`), and the headers
that tell what remains pull the ledgers down to the provider's view.

The limiter keeps no queue and no timers. It answers for one request, the head of somebody's queue, so that order
survives and large requests are not starved by small ones.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .cluster.store import Quota
from .errors import LimitExceeded
from .estimate_error import EstimateError
from .sliding_ledger import Charge, SlidingLedger

if TYPE_CHECKING:
    from .batch import TokenUsage

_FULL_PERCENT = 100
_DECREASE_PERCENT = 50
"""What a throttling episode leaves of the rate (multiplicative decrease)."""

_FLOOR_PERCENT = 10
"""The rate is never lowered below this part of the configured one."""

_RECOVERY_STEPS_PER_WINDOW = 20
"""How often in a window the rate rises again by one percent of the configured one (additive increase)."""

_EPISODES_PER_WINDOW = 60
"""A throttling episode lasts at least one such part of a window (a second in a minute): requests under way fail too."""

_MOST_LESSONS = 10_000
"""How many permits are kept to be learnt from in their order, where an old one does not end."""

_LONGEST_RESET = 86_400.0
"""Seconds. Headers that promise a reset further away are believed this far (the longest seen in the wild, on Azure)."""


@dataclass(frozen=True, slots=True)
class RateLimits:
    """The limits of one key, as its provider states them. ``None`` is unlimited.

    requests_per_minute, tokens_per_minute (input and output together), input_tokens_per_minute,
        output_tokens_per_minute: the amount allowed in each ``window``. The default window is the minute in their names.
    concurrent_requests: how many may be under way at a time.
    strict: one exact limit over a whole cluster, which needs a store that its processes share.
    burst: how many requests may go at once, where that is less than ``requests_per_minute``: no interval of
        ``window * burst / requests_per_minute`` seconds (over which that many would be spread evenly) is granted more.
    delivery_guard: seconds that granting here and counting there may lie apart; added to the window.
    window: seconds.

    Raises `ValueError` naming the field, its value and its range.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    input_tokens_per_minute: int | None = None
    output_tokens_per_minute: int | None = None
    concurrent_requests: int | None = None
    strict: bool = False
    burst: int | None = None
    delivery_guard: float = 0.5
    window: float = 60.0

    def __post_init__(self) -> None:
        for field in (*_DIMENSION_FIELDS, "concurrent_requests", "burst"):
            value = getattr(self, field)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"{field}: {value!r} is not an integer of at least 1 (or None)")
        if self.strict is not True and self.strict is not False:
            raise ValueError(f"strict: {self.strict!r} is not True or False")
        if self.burst is not None and self.requests_per_minute is None:
            raise ValueError(f"burst: {self.burst!r} is a number of requests, and needs requests_per_minute to be set")
        if not _is_seconds(self.delivery_guard):
            raise ValueError(f"delivery_guard: {self.delivery_guard!r} is outside 0 <= delivery_guard < infinity (seconds)")
        if not _is_seconds(self.window) or not self.window:
            raise ValueError(f"window: {self.window!r} is outside 0 < window < infinity (seconds)")


_DIMENSION_FIELDS = ("requests_per_minute", "tokens_per_minute", "input_tokens_per_minute", "output_tokens_per_minute")
"""The windowed limits, in the order in which `RateLimiter.reserve` counts its costs."""


PermitState = Literal["open", "usage unknown", "closed"]
"""Held by its request, ended without its usage known, or over."""


class Permit:
    """The right to send one request (or ``requests`` of them). A `RateLimiter` makes it; it is settled or cancelled once.

    ``id`` counts the permits of one limiter from 1. The tokens are what was reserved, ``granted_at`` is when. The rest
    is the limiter's own: itself, one charge for each of its dimensions, how far the permit has come, and where estimates are
    doubted what is learnt from it (what was used, and in how many seconds) as soon as it is its turn.
    """

    __slots__ = (
        "awaits_turn", "charges", "granted_at", "id", "input_tokens", "lesson", "limiter", "output_tokens", "requests",
        "state",
    )  # fmt: skip

    id: int
    requests: int
    input_tokens: int
    output_tokens: int
    granted_at: float
    limiter: RateLimiter
    charges: list[Charge]
    state: PermitState
    awaits_turn: bool
    lesson: tuple[tuple[int, int, int, int], float] | None

    def __repr__(self) -> str:
        return (
            f"Permit(id={self.id}, requests={self.requests}, input_tokens={self.input_tokens},"
            f" output_tokens={self.output_tokens}, granted_at={self.granted_at}, {self.state})"
        )


@dataclass(frozen=True, slots=True)
class Wait:
    """Not now, and nothing was booked. Ask again at ``until``; ``None``: not before some permit is settled or cancelled."""

    until: float | None


@dataclass(frozen=True, slots=True)
class RateLimitDimension:
    """What headers say of one dimension: its limit, what remains, seconds until that is reset. ``None`` is unsaid."""

    limit: int | None = None
    remaining: int | None = None
    reset_after: float | None = None


@dataclass(frozen=True, slots=True)
class RateLimitSnapshot:
    """What a provider's headers say. A codec reads it, `RateLimiter.observe_headers` believes it."""

    requests: RateLimitDimension | None = None
    tokens: RateLimitDimension | None = None
    input_tokens: RateLimitDimension | None = None
    output_tokens: RateLimitDimension | None = None

    def exhausted_for(self) -> float | None:
        """Seconds until no dimension is used up any more; ``None`` where none is, or it is not said."""
        resets = [
            each.reset_after
            for each in (self.requests, self.tokens, self.input_tokens, self.output_tokens)
            if each is not None and each.remaining == 0 and each.reset_after is not None
        ]
        return max(resets, default=None)


@dataclass(frozen=True, slots=True)
class LimitLevel:
    """One dimension now: its configured limit, what counts against it, what may be granted at once (0 when overdrawn)."""

    limit: int
    used: int
    available: int


@dataclass(frozen=True, slots=True)
class RateLimiterSnapshot:
    """The limiter at one instant. A dimension without a limit is ``None``.

    in_flight: requests granted and neither settled nor cancelled.
    paused_until: the end of the pause, ``None`` outside one.
    rate_factor: the part of the configured rate that feedback leaves, at most 1.0. ``available`` reflects it, not the pause.
    """

    requests: LimitLevel | None
    tokens: LimitLevel | None
    input_tokens: LimitLevel | None
    output_tokens: LimitLevel | None
    in_flight: int
    paused_until: float | None
    rate_factor: float


class RateLimiter:
    """Grants requests within `RateLimits`, all dimensions together or none.

    doubt: how far off estimates of tokens are taken to be, as a part of the estimate (one standard deviation), before enough
    were settled to know; more is then held back than they say. With ``None`` they are believed, and charged as they are.

    Raises `ValueError` for ``strict`` limits: they need a store that several processes share.

    In every method ``now`` is finite monotonic seconds of any epoch, else `ValueError` and nothing changes. A clock
    that goes backwards counts as standing still.
    """

    __slots__ = (
        "_at_a_time",
        "_concurrent",
        "_dimensions",
        "_doubted",
        "_doubts",
        "_granted",
        "_heard_from",
        "_in_flight",
        "_lessons",
        "_next",
        "_now",
        "_span",
        "_throttling",
        "limits",
    )

    def __init__(self, limits: RateLimits, *, doubt: float | None = None) -> None:
        if limits.strict:
            raise ValueError(
                "strict: True is one count for many processes and needs a store that they share: give the engine cluster="
                "'redis://…', or leave strict out in a single process"
            )
        self.limits = limits
        self._dimensions: tuple[_Dimension, ...] = _dimensions_of(limits, doubt or 0.0)
        self._doubts = doubt is not None
        self._doubted = tuple([dimension for dimension in self._dimensions if dimension.kind])
        """Those whose costs are estimates."""
        self._lessons: deque[Permit] = deque()
        """Permits whose turn to be learnt from has not come, in the order in which they were granted."""
        self._at_a_time = limits.concurrent_requests
        self._concurrent: float = math.inf if self._at_a_time is None else self._at_a_time
        self._throttling = _Throttling(limits.window)
        self._span = limits.window + limits.delivery_guard
        self._heard_from = -math.inf
        self._in_flight = 0
        self._granted = 0
        self._now = -math.inf
        self._next = -math.inf

    @property
    def paused_until(self) -> float | None:
        """The end of the pause that a 429 ordered, or ``None`` when it is over at the latest instant seen."""
        end = self._throttling.paused_until
        return end if end > self._now else None

    def reserve(self, requests: int, input_tokens: int, output_tokens: int, now: float) -> Permit | Wait | LimitExceeded:
        """Grant a request, or say when to ask again.

        `Wait` books nothing. Its ``until`` is the instant from which the same cost fits in every dimension, if nothing
        else happens before. `LimitExceeded` is returned, not raised, for a cost above a configured limit: it can never
        fit. A rate lowered by feedback only makes it wait. Raises `ValueError` for a cost that is not an integer of at
        least 0.
        """
        if not (requests.__class__ is input_tokens.__class__ is output_tokens.__class__ is int):
            raise ValueError(f"cost: {(requests, input_tokens, output_tokens)!r} are not integers")
        if requests < 0 or input_tokens < 0 or output_tokens < 0:
            raise ValueError(f"cost: {(requests, input_tokens, output_tokens)!r} are not integers of at least 0")
        if not now <= self._now:
            self._advance(now)
        now = self._now
        costs = self._charged(requests, input_tokens, output_tokens)
        if now >= self._throttling.lowered_until and self._in_flight + requests <= self._concurrent:
            for dimension in self._dimensions:
                if dimension.ledger.earliest(costs[dimension.kind], now) != now:
                    break
            else:  # nothing is in the way: what follows would come to the same, at twice the cost
                return self._grant(costs, now, input_tokens, output_tokens)
        if (refusal := self._too_small(costs)) is not None:
            return refusal
        until = self._earliest(costs, now)
        if self._in_flight + requests > self._concurrent:
            return Wait(None)
        if until > now:
            self._next = until
            return Wait(until if until < math.inf else None)
        return self._grant(costs, now, input_tokens, output_tokens)

    def never_fits(self, requests: int, input_tokens: int, output_tokens: int) -> LimitExceeded | None:
        """Why a request of this cost can never be granted, for who wants to know before it is queued. ``None``: it can."""
        return self._too_small((requests, input_tokens + output_tokens, input_tokens, output_tokens))

    def settle(self, permit: Permit, actual: TokenUsage | None, now: float) -> None:
        """The request is over and used ``actual``: free its place and let its charges say what it used.

        Usage above the estimate is recorded honestly and delays later grants. A ``lower_bound`` only raises charges.
        ``None`` or ``unknown`` keeps the reservation (`report_usage` may still come). A charge that has left its window
        is not edited. A permit that was settled or cancelled before: nothing happens.
        """
        if self._close(permit, now):
            if actual is not None and actual.provenance != "unknown":
                self._charge_usage(permit, actual)
            if self._doubts:
                self._learn()

    def cancel(self, permit: Permit, sent: bool, now: float) -> None:
        """The request is not wanted any more: free its place, and if nothing was sent give back all it was charged.

        A permit that was settled or cancelled before: nothing happens.
        """
        if self._close(permit, now):
            if not sent:
                permit.state = "closed"
                for dimension, charge in zip(self._dimensions, permit.charges, strict=True):
                    dimension.ledger.remove(charge, self._now)
            if self._doubts:
                self._learn()

    def report_usage(self, permit: Permit, actual: TokenUsage | None, now: float) -> None:
        """The late word on a request that ended without its usage known (settled so, or cancelled once sent), heard once.

        It edits the charges as `settle` does. For any other permit nothing happens.
        """
        self._check(permit, now)
        if permit.state == "usage unknown" and actual is not None and actual.provenance != "unknown":
            self._charge_usage(permit, actual)

    def observe_throttled(self, hint: float | None, now: float) -> None:
        """A 429 came: grant nothing for ``hint`` seconds, and once in a throttling episode lower the rate.

        Without a usable hint (``None``, not positive, not finite) nothing is paused, and the rate is lowered all the
        same.
        """
        self._throttling.observe(hint if hint is not None and 0 < hint < math.inf else 0.0, self._advance(now))

    def observe_headers(self, snapshot: RateLimitSnapshot, now: float, asked_at: float | None = None) -> None:
        """Pull the ledgers down to what the provider says remains, until it says that is reset.

        What it says replaces what it said before, and never makes more room than the ledger's own charges leave.
        Without a usable ``reset_after`` it is believed for a window. A negative ``remaining`` says nothing.

        asked_at: when the request went that this answers, if that was not just now. Providers count when a request comes,
        and the head of a long answer may come a minute later: what it says is that old, and is not heard where an answer to
        a later request has been, or where all that it counts has been reset since.
        """
        now = self._advance(now)
        asked_at = now if asked_at is None or not asked_at < now else asked_at
        if asked_at < self._heard_from:
            return
        self._heard_from = asked_at
        counted_at = min(now, asked_at + self.limits.delivery_guard)
        seen = (snapshot.requests, snapshot.tokens, snapshot.input_tokens, snapshot.output_tokens)
        for dimension in self._dimensions:
            said = seen[dimension.kind]
            if dimension.paces or said is None or said.remaining is None or said.remaining < 0:
                continue
            usable = said.reset_after is not None and 0 <= said.reset_after < math.inf
            reset_after = min(said.reset_after, _LONGEST_RESET) if said.reset_after is not None and usable else self._span
            dimension.ledger.pull_down(said.remaining, counted_at + reset_after, now)

    def snapshot(self, now: float) -> RateLimiterSnapshot:
        """The levels, for metrics and for people. Changes nothing."""
        now = self._advance(now)
        percent = self._throttling.percent(now)
        levels: list[LimitLevel | None] = [None] * len(_DIMENSION_FIELDS)
        for dimension in self._dimensions:
            if not dimension.paces:
                limit, used = dimension.ledger.limit, dimension.ledger.level(now)
                levels[dimension.kind] = LimitLevel(dimension.limit, used, max(0, _lowered(limit, percent) - used))
        requests, tokens, input_tokens, output_tokens = levels
        return RateLimiterSnapshot(
            requests, tokens, input_tokens, output_tokens, self._in_flight, self.paused_until, percent / 100
        )  # fmt: skip

    def deadline(self) -> float | None:
        """When time alone may next let a request through: once the pause is over, and not before the last `Wait` said.

        ``None`` when neither lies ahead of the latest instant seen. A grant ends the `Wait`.
        """
        instant = max(self._throttling.paused_until, self._next)
        return instant if self._now < instant < math.inf else None

    def _advance(self, now: float) -> float:
        """The latest instant seen, ``now`` included."""
        if not now <= self._now:
            if not now < math.inf:
                raise ValueError(f"now: {now!r} is not a finite number of seconds")
            self._now = now
        return self._now

    def _earliest(self, costs: tuple[int, ...], now: float) -> float:
        """The instant from which the costs fit everywhere, ``now`` when they do: the latest, since levels only fall."""
        throttling = self._throttling
        until = max(now, throttling.paused_until)
        is_lowered = now < throttling.lowered_until
        for dimension in self._dimensions:
            ledger, cost = dimension.ledger, costs[dimension.kind]
            fits_at = throttling.earliest(ledger, cost, now) if is_lowered else ledger.earliest(cost, now)
            if fits_at != now:
                until = max(until, fits_at)
        return until

    def _too_small(self, costs: tuple[int, ...]) -> LimitExceeded | None:
        """The first limit below the costs, as a refusal."""
        for dimension in self._dimensions:
            if costs[dimension.kind] > dimension.limit:
                return _exceeded(dimension.field, costs[dimension.kind], dimension.limit)
        if self._at_a_time is not None and costs[0] > self._at_a_time:
            return _exceeded("concurrent_requests", costs[0], self._at_a_time)
        return None

    def _charged(self, requests: int, input_tokens: int, output_tokens: int) -> tuple[int, int, int, int]:
        """What is charged until it is settled, by kind. In doubt more than the estimate, but nothing that never fits."""
        costs = (requests, input_tokens + output_tokens, input_tokens, output_tokens)
        if not self._doubts:
            return costs
        held = list(costs)
        for dimension in self._doubted:
            held[dimension.kind] = dimension.held_for(costs[dimension.kind])
        return held[0], held[1], held[2], held[3]

    def _grant(self, costs: tuple[int, ...], now: float, input_tokens: int, output_tokens: int) -> Permit:
        self._next = -math.inf
        self._granted += 1
        self._in_flight += costs[0]
        permit = Permit()
        permit.limiter = self
        permit.state = "open"
        permit.charges = [dimension.ledger.charge(costs[dimension.kind], now) for dimension in self._dimensions]
        permit.id = self._granted
        permit.requests = costs[0]
        permit.input_tokens, permit.output_tokens = input_tokens, output_tokens
        permit.granted_at = now
        if self._doubts:
            permit.awaits_turn, permit.lesson = True, None
            self._lessons.append(permit)
            self._count_under_way(permit, +1)
        return permit

    def _check(self, permit: Permit, now: float) -> None:
        if permit.limiter is not self:
            raise ValueError(f"permit: {permit!r} was granted by another limiter")
        if not now <= self._now:
            self._advance(now)

    def _close(self, permit: Permit, now: float) -> bool:
        """End a permit and free its place. ``False``: it had ended before."""
        if permit.limiter is not self or not now <= self._now:
            self._check(permit, now)
        if permit.state != "open":
            return False
        permit.state = "usage unknown"
        self._in_flight -= permit.requests
        if self._doubts:
            self._count_under_way(permit, -1)
        return True

    def _charge_usage(self, permit: Permit, actual: TokenUsage) -> None:
        """Let the charges of a permit say what was used."""
        permit.state = "closed"
        input_tokens, output_tokens = actual.input_tokens, actual.output_tokens
        is_bound = actual.provenance == "lower_bound"
        if is_bound or input_tokens < 0 or output_tokens < 0:
            # Nothing is below zero, whatever the provider's figures say: they come from the wire.
            input_tokens = max(permit.input_tokens if is_bound else 0, input_tokens)
            output_tokens = max(permit.output_tokens if is_bound else 0, output_tokens)
        used = (permit.requests, input_tokens + output_tokens, input_tokens, output_tokens)
        for index, dimension in enumerate(self._dimensions):  # a strict `zip` costs more than the rest of this method
            charge, amount = permit.charges[index], used[dimension.kind]
            if charge.amount != amount:
                dimension.ledger.edit(charge, amount, self._now)
        if self._doubts and not is_bound:
            seconds = self._now - permit.granted_at
            if permit.awaits_turn:
                permit.lesson = (used, seconds)
            else:
                self._observe(permit, used, seconds)

    def _learn(self) -> None:
        """Learn from those whose turn has come: all that were granted before have ended. For who uses little ends first: of
        those that begin together the first to end would make all of them seem small. Nobody is waited for beyond a span."""
        lessons, forgotten = self._lessons, self._now - self._span
        while lessons:
            permit = lessons[0]
            if permit.state == "open" and permit.granted_at > forgotten and len(lessons) <= _MOST_LESSONS:
                break
            lessons.popleft()
            permit.awaits_turn = False
            if permit.lesson is not None:
                self._observe(permit, *permit.lesson)

    def _observe(self, permit: Permit, used: tuple[int, int, int, int], seconds: float) -> None:
        """How wrong an estimate was."""
        given, wanted = permit.input_tokens, permit.output_tokens
        estimated = (permit.requests, given + wanted, given, wanted)
        for dimension in self._doubted:
            dimension.error.observe(estimated[dimension.kind], used[dimension.kind], seconds)

    def _count_under_way(self, permit: Permit, by: int) -> None:
        """A permit begins or ends, whose use is known by its estimate only."""
        given, wanted = permit.input_tokens, permit.output_tokens
        estimated = (permit.requests, given + wanted, given, wanted)
        for dimension in self._doubted:
            estimate = estimated[dimension.kind]
            dimension.under_way += by * estimate
            dimension.under_way_squares += by * estimate * estimate


class _Dimension:
    """One limited amount: which of the costs it counts, under which name, how much it may be at most (its ledger may be
    allowed less for a while), whether it only paces the requests, and how wrong its estimates are."""

    __slots__ = ("error", "field", "kind", "ledger", "limit", "paces", "under_way", "under_way_squares")

    def __init__(self, field: str, kind: int, ledger: SlidingLedger, doubt: float, paces: bool = False) -> None:
        self.field = field
        self.kind = kind
        self.ledger = ledger
        self.limit = ledger.limit
        self.paces = paces
        self.error = EstimateError(doubt)
        self.under_way = self.under_way_squares = 0
        """The estimates of all permits that are open, and their squares, added up."""

    def held_for(self, estimate: int) -> int:
        """What to charge for an estimate that is doubted: never less, nor more than could ever be granted."""
        if not 0 < estimate < self.limit:
            return estimate
        together = self.under_way + estimate
        equals = together * together / (self.under_way_squares + estimate * estimate)
        return min(self.limit, max(estimate, math.ceil(estimate * self.error.factor(equals))))


def _dimensions_of(limits: RateLimits, doubt: float) -> tuple[_Dimension, ...]:
    dimensions = [
        _Dimension(field, kind, SlidingLedger(limit, limits.window, limits.delivery_guard), doubt)
        for kind, field in enumerate(_DIMENSION_FIELDS)
        if (limit := getattr(limits, field)) is not None
    ]
    if limits.burst is not None and limits.requests_per_minute is not None and limits.burst < limits.requests_per_minute:
        pace = SlidingLedger(limits.burst, limits.window * limits.burst / limits.requests_per_minute)
        dimensions.append(_Dimension("burst", 0, pace, doubt, paces=True))
    return tuple(dimensions)


def quotas_of(limits: RateLimits) -> tuple[Quota, ...]:
    """The limits that are set, in the order in which a limiter counts them: what processes share of them. The number of
    requests at a time comes last, with a span of 0."""
    dimensions = _dimensions_of(limits, 0.0)
    quotas = [Quota(dimension.field, dimension.limit, dimension.ledger.span) for dimension in dimensions]
    if limits.concurrent_requests is not None:
        quotas.append(Quota("concurrent_requests", limits.concurrent_requests, 0.0))
    return tuple(quotas)


class _Throttling:
    """What 429s do to a limiter: a pause, and a rate in whole percents of the configured one.

    An episode begins with a 429 outside of any episode, which halves the rate, down to a tenth. It lasts until the
    pause is over, and at least a sixtieth of the window. The 429s within it (requests that were already under way) only
    lengthen the pause. After the last of them, and after the pause, the rate rises by one percent of the configured one
    every twentieth of the window.
    """

    __slots__ = ("_base", "_episode_until", "_rising_from", "_shortest_episode", "_step", "lowered_until", "paused_until")

    def __init__(self, window: float) -> None:
        self._step = window / _RECOVERY_STEPS_PER_WINDOW
        self._shortest_episode = window / _EPISODES_PER_WINDOW
        self._base = _FULL_PERCENT
        self.lowered_until = -math.inf
        self._rising_from = -math.inf
        self._episode_until = -math.inf
        self.paused_until = -math.inf

    def observe(self, pause: float, now: float) -> None:
        """A 429 came at ``now``, asking for a pause of so many seconds."""
        percent = self.percent(now)
        if now >= self._episode_until:
            percent = max(_FLOOR_PERCENT, percent * _DECREASE_PERCENT // 100)
            self._episode_until = now + self._shortest_episode
        self.paused_until = max(self.paused_until, now + pause)
        self._episode_until = max(self._episode_until, self.paused_until)
        self._base = percent
        self._rising_from = max(now, self.paused_until)
        self.lowered_until = self._reached_at(_FULL_PERCENT)

    def percent(self, now: float) -> int:
        """The rate at ``now``."""
        percents = range(self._base, _FULL_PERCENT + 1)
        return percents[max(0, bisect_right(percents, now, key=self._reached_at) - 1)]

    def earliest(self, ledger: SlidingLedger, cost: int, now: float) -> float:
        """The instant from which ``cost`` fits in ``ledger`` under the rising rate, if nothing else happens.

        The higher the rate, the later it is reached and the earlier the cost would fit under it. The answer is where the two
        meet: at the first rate that is reached when the cost already fits, or just below it.
        """

        def fits_at(percent: int) -> float:
            return ledger.earliest(cost, now, _lowered(ledger.limit, percent))

        percents = range(self.percent(now), _FULL_PERCENT + 1)
        meeting = bisect_left(percents, True, key=lambda percent: self._reached_at(percent) >= fits_at(percent))
        return min(max(self._reached_at(p), fits_at(p)) for p in percents[max(0, meeting - 1) : meeting + 1])

    def _reached_at(self, percent: int) -> float:
        return self._rising_from + (percent - self._base) * self._step


def _lowered(limit: int, percent: int) -> int:
    """A limit at a part of its rate. It stays above zero, if it was."""
    return max(min(1, limit), limit * percent // _FULL_PERCENT)


def _exceeded(field: str, cost: int, limit: float) -> LimitExceeded:
    return LimitExceeded(f"{field}: this request alone costs {cost}, and the limit is {limit}")


def _is_seconds(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf
