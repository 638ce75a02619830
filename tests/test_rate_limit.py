"""`RateLimiter`: each rule of granting, settling and feedback with literal times, then lists of charges as the reference."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sansio.batch import TokenUsage
from sansio.cluster.store import Quota
from sansio.errors import LimitExceeded
from sansio.rate_limit import (
    LimitLevel,
    Permit,
    RateLimitDimension,
    RateLimiter,
    RateLimiterSnapshot,
    RateLimits,
    RateLimitSnapshot,
    Wait,
    quotas_of,
)

SPAN = 60.5
"""The default window and guard."""


def limiter(**limits: Any) -> RateLimiter:
    return RateLimiter(RateLimits(**limits))


def grant(limits: RateLimiter, cost: tuple[int, int, int], now: float) -> Permit:
    answer = limits.reserve(*cost, now)
    assert isinstance(answer, Permit), answer
    return answer


def used(snapshot: LimitLevel | None) -> int:
    assert snapshot is not None
    return snapshot.used


# ---- granting ---------------------------------------------------------------------------------------------------------


def test_without_limits_everything_is_granted() -> None:
    free = limiter()
    permits = [grant(free, (1, 10**9, 10**9), 5.0) for _ in range(100)]
    assert [permit.id for permit in permits] == list(range(1, 101))
    assert free.deadline() is None


def test_a_permit_says_what_it_was_granted_for() -> None:
    permit = grant(limiter(), (1, 20, 30), 5.0)
    assert (permit.id, permit.requests, permit.input_tokens, permit.output_tokens, permit.granted_at) == (1, 1, 20, 30, 5.0)
    assert repr(permit) == "Permit(id=1, requests=1, input_tokens=20, output_tokens=30, granted_at=5.0, open)"


@pytest.mark.parametrize(
    ("limits", "first", "second"),
    [
        ({"requests_per_minute": 2}, (2, 9, 9), (1, 0, 0)),
        ({"tokens_per_minute": 100}, (1, 50, 50), (1, 1, 0)),
        ({"tokens_per_minute": 100}, (1, 50, 50), (1, 0, 1)),
        ({"input_tokens_per_minute": 100}, (1, 100, 999), (1, 1, 0)),
        ({"output_tokens_per_minute": 100}, (1, 999, 100), (1, 0, 1)),
    ],
)
def test_each_dimension_holds_over_window_and_guard(
    limits: dict[str, int], first: tuple[int, int, int], second: tuple[int, int, int]
) -> None:
    one = limiter(**limits)
    grant(one, first, 1000.0)
    assert one.reserve(*second, 1000.0) == Wait(1000.0 + SPAN)
    assert one.reserve(*second, 1060.0) == Wait(1000.0 + SPAN)
    grant(one, second, 1000.0 + SPAN)


def test_the_dimensions_are_granted_together_or_not_at_all() -> None:
    both = limiter(requests_per_minute=10, tokens_per_minute=100)
    grant(both, (1, 60, 0), 0.0)
    assert both.reserve(1, 60, 0, 1.0) == Wait(SPAN)
    assert used(both.snapshot(1.0).requests) == 1  # the request was not charged alone
    grant(both, (9, 40, 0), 1.0)
    assert both.reserve(1, 1, 0, 1.0) == Wait(SPAN)


def test_the_last_dimension_to_fit_says_when() -> None:
    both = limiter(requests_per_minute=2, tokens_per_minute=100)
    grant(both, (1, 10, 0), 0.0)
    grant(both, (1, 81, 0), 5.0)
    assert both.reserve(1, 20, 0, 6.0) == Wait(5.0 + SPAN)  # a request at 60.5, the tokens at 65.5


def test_a_wait_books_nothing_so_a_smaller_request_is_not_hindered() -> None:
    tokens = limiter(tokens_per_minute=100)
    grant(tokens, (1, 60, 0), 0.0)
    for _ in range(3):
        assert tokens.reserve(1, 50, 0, 0.0) == Wait(SPAN)
    grant(tokens, (1, 40, 0), 0.0)


def test_the_window_is_what_the_amounts_are_allowed_in() -> None:
    short = limiter(requests_per_minute=3, window=2.0, delivery_guard=0.25)
    for at in (0.0, 1.0, 1.5):
        grant(short, (1, 0, 0), at)
    assert short.reserve(1, 0, 0, 1.5) == Wait(2.25)


@pytest.mark.parametrize(
    ("limits", "cost", "message"),
    [
        ({"requests_per_minute": 1}, (2, 0, 0), "requests_per_minute: this request alone costs 2, and the limit is 1"),
        ({"tokens_per_minute": 100}, (1, 60, 41), "tokens_per_minute: this request alone costs 101, and the limit is 100"),
        (
            {"input_tokens_per_minute": 9},
            (1, 10, 0),
            "input_tokens_per_minute: this request alone costs 10, and the limit is 9",
        ),
        (
            {"output_tokens_per_minute": 9},
            (1, 0, 10),
            "output_tokens_per_minute: this request alone costs 10, and the limit is 9",
        ),
        ({"concurrent_requests": 1}, (2, 0, 0), "concurrent_requests: this request alone costs 2, and the limit is 1"),
        ({"requests_per_minute": 9, "burst": 2}, (3, 0, 0), "burst: this request alone costs 3, and the limit is 2"),
        (
            {"tokens_per_minute": 1, "concurrent_requests": 1},
            (2, 1, 1),
            "tokens_per_minute: this request alone costs 2, and the limit is 1",
        ),
    ],
)
def test_what_can_never_fit_is_refused_at_once_naming_the_limit(
    limits: dict[str, int], cost: tuple[int, int, int], message: str
) -> None:
    one = limiter(**limits)
    answer = one.reserve(*cost, 0.0)
    assert isinstance(answer, LimitExceeded)
    assert answer.message == message
    foreseen = one.never_fits(*cost)
    assert foreseen is not None and foreseen.message == message
    assert one.never_fits(1, 0, 0) is None
    grant(one, (1, 0, 0), 0.0)
    assert isinstance(one.reserve(*cost, 0.0), LimitExceeded)  # also when it would have to wait


def test_the_largest_that_fits_is_not_refused() -> None:
    grant(limiter(tokens_per_minute=100, concurrent_requests=2, requests_per_minute=2), (2, 50, 50), 0.0)


# ---- concurrency ------------------------------------------------------------------------------------------------------


def test_concurrency_is_freed_by_settling_and_cancelling_not_by_time() -> None:
    two = limiter(concurrent_requests=2)
    first, second = grant(two, (1, 0, 0), 0.0), grant(two, (1, 0, 0), 0.0)
    assert two.reserve(1, 0, 0, 1e6) == Wait(None)
    assert two.deadline() is None
    two.settle(first, None, 1e6)
    third = grant(two, (1, 0, 0), 1e6)
    two.cancel(second, True, 1e6)
    grant(two, (1, 0, 0), 1e6)
    two.cancel(third, False, 1e6)
    assert two.snapshot(1e6).in_flight == 1


# ---- burst ------------------------------------------------------------------------------------------------------------


def test_a_burst_spreads_the_requests_that_the_limit_allows() -> None:
    paced = limiter(requests_per_minute=60, burst=2)  # so two in any two seconds
    for _ in range(2):
        grant(paced, (1, 0, 0), 0.0)
    assert paced.reserve(1, 0, 0, 0.0) == Wait(2.0)
    grant(paced, (1, 0, 0), 2.0)
    assert used(paced.snapshot(2.0).requests) == 3


@pytest.mark.parametrize("burst", [None, 5, 6])
def test_a_burst_of_the_limit_or_more_changes_nothing(burst: int | None) -> None:
    whole = limiter(requests_per_minute=5, burst=burst)
    for _ in range(5):
        grant(whole, (1, 0, 0), 0.0)
    assert whole.reserve(1, 0, 0, 0.0) == Wait(SPAN)


def test_a_burst_does_not_lower_what_passes_in_the_long_run() -> None:
    assert used_per_span(limiter(requests_per_minute=300, burst=7), lambda: (1, 0, 0), spans=4) >= 0.99 * 300


# ---- settling and cancelling ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("actual", "tokens", "input_tokens", "output_tokens"),
    [
        (None, 150, 100, 50),
        (TokenUsage(7, 8, provenance="unknown"), 150, 100, 50),
        (TokenUsage(70, 20), 90, 70, 20),
        (TokenUsage(70, 20, cached_input_tokens=60), 90, 70, 20),
        (TokenUsage(120, 90), 210, 120, 90),
        (TokenUsage(0, 0), 0, 0, 0),
        (TokenUsage(70, 20, provenance="lower_bound"), 150, 100, 50),
        (TokenUsage(120, 20, provenance="lower_bound"), 170, 120, 50),
        (TokenUsage(-5, -5), 0, 0, 0),
    ],
)
def test_settling_edits_the_charge_to_what_is_known_of_the_usage(
    actual: TokenUsage | None, tokens: int, input_tokens: int, output_tokens: int
) -> None:
    all_limits = limiter(
        requests_per_minute=10, tokens_per_minute=1000, input_tokens_per_minute=500, output_tokens_per_minute=500
    )
    permit = grant(all_limits, (1, 100, 50), 0.0)
    all_limits.settle(permit, actual, 30.0)
    assert all_limits.snapshot(30.0) == RateLimiterSnapshot(
        requests=LimitLevel(10, 1, 9),
        tokens=LimitLevel(1000, tokens, 1000 - tokens),
        input_tokens=LimitLevel(500, input_tokens, 500 - input_tokens),
        output_tokens=LimitLevel(500, output_tokens, 500 - output_tokens),
        in_flight=0,
        paused_until=None,
        rate_factor=1.0,
    )
    assert used(all_limits.snapshot(SPAN).tokens) == 0  # it left with the charge, not a span after it was settled


def test_use_above_the_limit_is_recorded_and_delays_what_follows() -> None:
    tokens = limiter(tokens_per_minute=100)
    permit = grant(tokens, (1, 50, 0), 0.0)
    tokens.settle(permit, TokenUsage(130, 0), 10.0)
    assert tokens.snapshot(10.0).tokens == LimitLevel(100, 130, 0)
    assert tokens.reserve(1, 1, 0, 10.0) == Wait(SPAN)


def test_a_permit_settles_once() -> None:
    tokens = limiter(tokens_per_minute=100, concurrent_requests=5)
    permit = grant(tokens, (1, 50, 0), 0.0)
    tokens.settle(permit, TokenUsage(40, 0), 1.0)
    tokens.settle(permit, TokenUsage(10, 0), 2.0)
    tokens.cancel(permit, False, 2.0)
    tokens.report_usage(permit, TokenUsage(10, 0), 2.0)
    assert (used(tokens.snapshot(2.0).tokens), tokens.snapshot(2.0).in_flight) == (40, 0)


def test_settling_after_the_window_changes_no_level() -> None:
    tokens = limiter(tokens_per_minute=100)
    permit = grant(tokens, (1, 100, 0), 0.0)
    grant(tokens, (1, 30, 0), SPAN)
    tokens.settle(permit, TokenUsage(1, 0), SPAN)
    late = grant(tokens, (1, 30, 0), SPAN)
    tokens.cancel(late, False, 2 * SPAN)
    assert used(tokens.snapshot(SPAN).tokens) == 0
    assert tokens.snapshot(2 * SPAN).in_flight == 1


def test_cancelling_gives_everything_back_only_if_nothing_was_sent() -> None:
    one = limiter(requests_per_minute=60, tokens_per_minute=100, burst=1)
    permit = grant(one, (1, 60, 40), 0.0)
    one.cancel(permit, False, 0.5)
    one.cancel(permit, False, 0.5)
    permit = grant(one, (1, 60, 40), 0.5)
    one.cancel(permit, True, 1.0)
    assert one.snapshot(1.0).tokens == LimitLevel(100, 100, 0)
    assert one.snapshot(1.0).in_flight == 0
    assert one.reserve(1, 1, 0, 1.0) == Wait(0.5 + SPAN)


def test_a_late_word_on_the_usage_is_heard_once() -> None:
    tokens = limiter(tokens_per_minute=100)
    permit = grant(tokens, (1, 50, 0), 0.0)
    tokens.report_usage(permit, TokenUsage(1, 0), 1.0)  # still open: settling is what ends it
    assert tokens.snapshot(1.0).in_flight == 1
    tokens.cancel(permit, True, 1.0)
    tokens.settle(permit, TokenUsage(2, 0), 2.0)
    tokens.report_usage(permit, None, 2.0)
    tokens.report_usage(permit, TokenUsage(provenance="unknown"), 2.0)
    assert used(tokens.snapshot(2.0).tokens) == 50
    tokens.report_usage(permit, TokenUsage(30, 0), 3.0)
    tokens.report_usage(permit, TokenUsage(4, 0), 3.0)
    assert used(tokens.snapshot(3.0).tokens) == 30


def test_a_permit_of_another_limiter_is_refused() -> None:
    one, other = limiter(concurrent_requests=1), limiter()
    permit = grant(other, (1, 0, 0), 0.0)
    for call in (
        lambda: one.settle(permit, None, 0.0),
        lambda: one.cancel(permit, False, 0.0),
        lambda: one.report_usage(permit, None, 0.0),
    ):
        with pytest.raises(ValueError, match="another limiter"):
            call()
    assert (one.snapshot(0.0).in_flight, other.snapshot(0.0).in_flight) == (0, 1)


# ---- feedback: 429 ----------------------------------------------------------------------------------------------------


def test_a_429_pauses_everything_until_its_hint() -> None:
    free = limiter()
    assert free.paused_until is None
    free.observe_throttled(7.0, 100.0)
    assert free.paused_until == free.deadline() == 107.0
    assert free.reserve(1, 1, 1, 101.0) == Wait(107.0)
    assert free.snapshot(106.0).paused_until == 107.0
    grant(free, (1, 1, 1), 107.0)
    assert free.paused_until is None and free.deadline() is None


def test_a_shorter_hint_does_not_shorten_a_pause_and_a_longer_one_lengthens_it() -> None:
    free = limiter()
    free.observe_throttled(10.0, 100.0)
    free.observe_throttled(2.0, 101.0)
    assert free.paused_until == 110.0
    free.observe_throttled(20.0, 102.0)
    assert free.paused_until == 122.0


@pytest.mark.parametrize("hint", [None, 0.0, -1.0, math.nan, math.inf])
def test_a_429_without_a_usable_hint_pauses_nothing_and_lowers_the_rate(hint: float | None) -> None:
    one = limiter(requests_per_minute=10)
    one.observe_throttled(hint, 100.0)
    assert one.paused_until is None
    assert one.snapshot(100.0).rate_factor == 0.5
    grant(one, (5, 0, 0), 100.0)
    assert isinstance(one.reserve(1, 0, 0, 100.0), Wait)


def test_while_paused_the_wait_is_for_what_comes_last() -> None:
    one = limiter(requests_per_minute=1, concurrent_requests=1)
    permit = grant(one, (1, 0, 0), 0.0)
    one.observe_throttled(5.0, 1.0)
    assert one.reserve(1, 0, 0, 1.0) == Wait(None)  # neither pause nor ledger would help
    one.settle(permit, None, 1.0)
    assert one.reserve(1, 0, 0, 1.0) == Wait(SPAN)
    assert one.deadline() == SPAN


def test_an_episode_lowers_the_rate_once_and_the_next_one_again_down_to_a_floor() -> None:
    one = limiter(requests_per_minute=100)
    factors = []
    for start in (100.0, 110.0, 120.0, 130.0, 140.0):
        for late in (0.0, 0.5, 4.0, 4.9):  # requests that were under way when the first was throttled
            one.observe_throttled(5.0 - late, start + late)
        factors.append(one.snapshot(start + 5.0).rate_factor)  # five seconds later it has risen by one percent
        one.observe_headers(RateLimitSnapshot(), start + 5.0)
    assert factors == [0.5, 0.25, 0.13, 0.1, 0.1]


def test_an_episode_without_a_pause_lasts_a_sixtieth_of_the_window() -> None:
    one = limiter(requests_per_minute=100)
    for at in (100.0, 100.5, 100.99):
        one.observe_throttled(None, at)
    assert one.snapshot(101.0).rate_factor == 0.5
    one.observe_throttled(None, 101.0)
    assert one.snapshot(101.0).rate_factor == 0.25


def test_the_rate_rises_by_a_percent_every_twentieth_of_the_window_after_the_pause() -> None:
    one = limiter(requests_per_minute=200)
    one.observe_throttled(10.0, 100.0)
    assert [one.snapshot(at).rate_factor for at in (109.0, 112.9, 113.0, 116.0, 140.0, 259.9, 260.0, 1e6)] == [
        0.5, 0.5, 0.51, 0.52, 0.6, 0.99, 1.0, 1.0,
    ]  # fmt: skip


def test_a_lowered_rate_lowers_every_dimension_and_what_is_available() -> None:
    one = limiter(requests_per_minute=100, tokens_per_minute=1)
    grant(one, (10, 0, 0), 99.0)
    one.observe_throttled(None, 100.0)
    assert one.snapshot(100.0).requests == LimitLevel(100, 10, 40)
    assert one.snapshot(100.0).tokens == LimitLevel(1, 0, 1)  # never lowered to nothing
    assert one.reserve(41, 0, 0, 100.0) == Wait(103.0)
    grant(one, (40, 0, 0), 100.0)


@pytest.mark.parametrize(
    ("cost", "until"),
    [
        (50, 100.0),
        (51, 103.0),  # fits under the next percent
        (75, 175.0),  # only the risen rate makes room
        (100, 250.0),
    ],
)
def test_a_lowered_rate_makes_a_large_request_wait_never_impossible(cost: int, until: float) -> None:
    one = limiter(requests_per_minute=100)
    one.observe_throttled(None, 100.0)
    answer = one.reserve(cost, 0, 0, 100.0)
    assert isinstance(answer, Permit) if until == 100.0 else answer == Wait(until)
    assert isinstance(one.reserve(101, 0, 0, 100.0), LimitExceeded)


def test_under_a_rising_rate_a_request_waits_for_the_charges_or_the_rate_whichever_lets_it_first() -> None:
    one = limiter(requests_per_minute=100)
    grant(one, (60, 0, 0), 80.0)  # leaves at 140.5
    one.observe_throttled(None, 100.0)
    assert one.reserve(4, 0, 0, 100.0) == Wait(140.5)  # 64 % would take until 142
    assert one.reserve(3, 0, 0, 100.0) == Wait(139.0)  # 63 % come first
    assert one.reserve(70, 0, 0, 100.0) == Wait(160.0)


# ---- feedback: headers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["requests", "tokens", "input_tokens", "output_tokens"])
def test_headers_pull_a_dimension_down_to_the_providers_view_until_its_reset(name: str) -> None:
    one = limiter(**{f"{name}_per_minute": 10})
    grant(one, (2, 0, 0) if name == "requests" else (0, 1, 1), 100.0)
    one.observe_headers(RateLimitSnapshot(**{name: RateLimitDimension(limit=10, remaining=3, reset_after=6.0)}), 101.0)
    level = getattr(one.snapshot(101.0), name)
    assert level == LimitLevel(10, 7, 3)
    cost = {"requests": (4, 0, 0), "tokens": (0, 2, 2), "input_tokens": (0, 4, 0), "output_tokens": (0, 0, 4)}[name]
    assert one.reserve(*cost, 101.0) == Wait(107.0)
    grant(one, cost, 107.0)


def test_headers_never_make_room() -> None:
    one = limiter(requests_per_minute=10)
    grant(one, (8, 0, 0), 100.0)
    one.observe_headers(RateLimitSnapshot(requests=RateLimitDimension(1000, 999, 1.0)), 100.0)
    assert one.snapshot(100.0).requests == LimitLevel(10, 8, 2)


@pytest.mark.parametrize(
    ("reset_after", "until"),
    [(None, SPAN), (math.nan, SPAN), (math.inf, SPAN), (-1.0, SPAN), (0.0, 0.0), (1e9, 86_400.0)],
)
def test_a_reset_that_is_missing_or_absurd_is_replaced(reset_after: float | None, until: float) -> None:
    one = limiter(requests_per_minute=10)
    one.observe_headers(RateLimitSnapshot(requests=RateLimitDimension(remaining=0, reset_after=reset_after)), 0.0)
    answer = one.reserve(1, 0, 0, 0.0)
    assert isinstance(answer, Permit) if not until else answer == Wait(until)


@pytest.mark.parametrize(
    "snapshot",
    [
        RateLimitSnapshot(),
        RateLimitSnapshot(tokens=RateLimitDimension(remaining=0, reset_after=9.0)),
        RateLimitSnapshot(requests=RateLimitDimension(limit=10, reset_after=9.0)),
        RateLimitSnapshot(requests=RateLimitDimension(remaining=-1, reset_after=9.0)),
    ],
)
def test_headers_that_say_nothing_of_a_limit_change_nothing(snapshot: RateLimitSnapshot) -> None:
    one = limiter(requests_per_minute=10)
    one.observe_headers(snapshot, 0.0)
    grant(one, (10, 0, 0), 0.0)


def test_headers_leave_the_pacing_of_a_burst_alone() -> None:
    paced = limiter(requests_per_minute=60, burst=2)
    paced.observe_headers(RateLimitSnapshot(requests=RateLimitDimension(remaining=1, reset_after=30.0)), 0.0)
    grant(paced, (1, 0, 0), 0.0)
    assert paced.reserve(1, 0, 0, 0.0) == Wait(30.0)


# ---- clocks and deadlines ---------------------------------------------------------------------------------------------


def test_the_deadline_is_that_of_the_last_wait_until_it_is_granted_or_over() -> None:
    one = limiter(requests_per_minute=2)
    grant(one, (1, 0, 0), 0.0)
    assert one.reserve(2, 0, 0, 10.0) == Wait(SPAN)
    assert one.deadline() == SPAN
    grant(one, (1, 0, 0), 20.0)
    assert one.deadline() is None
    assert one.reserve(1, 0, 0, 30.0) == Wait(SPAN)
    one.snapshot(SPAN)
    assert one.deadline() is None


def test_what_time_alone_will_never_free_has_no_deadline() -> None:
    one = limiter(requests_per_minute=2)
    one._dimensions[0].ledger.allow(0)
    assert one.reserve(1, 0, 0, 10.0) == Wait(None)
    assert one.deadline() is None
    one.observe_throttled(5.0, 10.0)
    assert one.reserve(1, 0, 0, 10.0) == Wait(None)
    assert one.snapshot(10.0).requests == LimitLevel(2, 0, 0)
    one._dimensions[0].ledger.allow(2)
    assert one.reserve(1, 0, 0, 10.0) == Wait(15.0)


def test_a_pause_that_ends_at_zero_is_a_pause() -> None:
    free = limiter()
    free.observe_throttled(5.0, -5.0)
    assert free.paused_until == free.deadline() == 0.0


def test_a_clock_that_goes_backwards_grants_nothing_extra() -> None:
    one = limiter(requests_per_minute=1)
    permit = grant(one, (1, 0, 0), 100.0)
    assert one.reserve(1, 0, 0, 1.0) == Wait(160.5)
    one.cancel(permit, True, 0.0)
    one.observe_throttled(10.0, 0.0)
    assert one.paused_until == 110.0
    assert one.snapshot(-5.0).requests == LimitLevel(1, 1, 0)
    assert grant(one, (0, 0, 0), 170.0).granted_at == 170.0
    assert grant(one, (1, 0, 0), 0.0).granted_at == 170.0


@pytest.mark.parametrize("now", [math.nan, math.inf])
def test_an_instant_that_is_not_finite_is_refused_and_changes_nothing(now: float) -> None:
    one = limiter(requests_per_minute=10, concurrent_requests=10)
    permit = grant(one, (1, 0, 0), 0.0)
    before = one.snapshot(0.0)
    for call in (
        lambda: one.reserve(1, 0, 0, now),
        lambda: one.settle(permit, None, now),
        lambda: one.cancel(permit, False, now),
        lambda: one.report_usage(permit, None, now),
        lambda: one.observe_throttled(1.0, now),
        lambda: one.observe_headers(RateLimitSnapshot(), now),
        lambda: one.snapshot(now),
    ):
        with pytest.raises(ValueError, match=r"now: .* finite"):
            call()
    assert one.snapshot(0.0) == before


@pytest.mark.parametrize("bad", [-1, 1.0, True, None, math.nan])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_cost_that_is_no_count_is_refused_and_books_nothing(bad: Any, place: int) -> None:
    one = limiter(requests_per_minute=10)
    cost: list[Any] = [1, 1, 1]
    cost[place] = bad
    with pytest.raises(ValueError, match="cost: "):
        one.reserve(*cost, 0.0)
    assert used(one.snapshot(0.0).requests) == 0


# ---- configuration ----------------------------------------------------------------------------------------------------

COUNTS = (
    "requests_per_minute", "tokens_per_minute", "input_tokens_per_minute", "output_tokens_per_minute",
    "concurrent_requests", "burst",
)  # fmt: skip


@pytest.mark.parametrize("value", [0, -1, 1.5, 10.0, math.nan, math.inf, True, "10"])
@pytest.mark.parametrize("field", COUNTS)
def test_a_limit_out_of_range_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field}: .* at least 1"):
        RateLimits(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("window", value) for value in (0, 0.0, -1.0, math.nan, math.inf, True, "60", None)),
        *(("delivery_guard", value) for value in (-0.1, math.nan, math.inf, False, "0", None)),
        *(("strict", value) for value in (1, 0, None, "yes")),
        ("burst", 5),  # without requests_per_minute
    ],
)
def test_an_option_out_of_range_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        RateLimits(**{field: value})


def test_strict_limits_need_a_shared_store() -> None:
    with pytest.raises(ValueError, match=r"strict: .*store that they share.*cluster="):
        limiter(requests_per_minute=10, strict=True)


def test_defaults() -> None:
    limits = RateLimits()
    assert [getattr(limits, field) for field in COUNTS] == [None] * 6
    assert (limits.strict, limits.delivery_guard, limits.window) == (False, 0.5, 60.0)
    assert RateLimits(delivery_guard=0, window=1).window == 1


@pytest.mark.parametrize(
    ("limits", "quotas"),
    [
        ({}, ()),
        ({"concurrent_requests": 3}, (Quota("concurrent_requests", 3, 0.0),)),
        (
            {"output_tokens_per_minute": 4, "requests_per_minute": 60, "burst": 2, "concurrent_requests": 5, "strict": True},
            (
                Quota("requests_per_minute", 60, 60.5),
                Quota("output_tokens_per_minute", 4, 60.5),
                Quota("burst", 2, 2.0),
                Quota("concurrent_requests", 5, 0.0),
            ),
        ),
        (
            {"input_tokens_per_minute": 3, "tokens_per_minute": 7, "window": 2.0, "delivery_guard": 0.25},
            (Quota("tokens_per_minute", 7, 2.25), Quota("input_tokens_per_minute", 3, 2.25)),
        ),
    ],
)
def test_what_processes_share_of_limits_are_those_that_are_set(limits: dict[str, Any], quotas: tuple[Quota, ...]) -> None:
    assert quotas_of(RateLimits(**limits)) == quotas


# ---- utilisation ------------------------------------------------------------------------------------------------------


def used_per_span(one: RateLimiter, next_cost: Any, spans: int) -> float:
    """The most constrained amount (requests, or all tokens) granted in an average span under demand that never ends."""
    now = start = 1e9
    warm, total, cost = start + SPAN, 0, next_cost()
    while now < warm + spans * SPAN:
        answer = one.reserve(*cost, now)
        if isinstance(answer, Permit):
            total += sum(cost[1:]) or cost[0] if now >= warm else 0
            one.settle(answer, None, now)
            cost = next_cost()
            now += 0.001
        else:
            assert isinstance(answer, Wait) and answer.until is not None
            assert isinstance(deepcopy(one).reserve(*cost, answer.until), Permit)
            now = answer.until
    return total / spans


def test_under_steady_demand_at_least_99_percent_of_a_limit_is_used() -> None:
    rng = random.Random(1)
    requests = used_per_span(limiter(requests_per_minute=500), lambda: (1, 0, 0), spans=4)
    assert 0.99 * 500 <= requests <= 500
    tokens = used_per_span(
        limiter(tokens_per_minute=100_000), lambda: (1, rng.randint(1, 900), rng.randint(1, 100)), spans=4
    )
    assert 0.99 * 100_000 <= tokens <= 100_000


# ---- doubt ------------------------------------------------------------------------------------------------------------


def doubting(doubt: float = 0.3, **limits: Any) -> RateLimiter:
    return RateLimiter(RateLimits(**limits), doubt=doubt)


def settled(one: RateLimiter, cost: tuple[int, int, int], actual: TokenUsage, times: int, took: float = 1.0) -> float:
    """So many requests, one after the other, all of which have left their window in the end; returns when that is."""
    now = 0.0
    for _ in range(times):
        permit = grant(one, cost, now)
        one.settle(permit, actual, now + took)
        now += took + SPAN
    return now


def held(one: RateLimiter, cost: tuple[int, int, int], now: float) -> int:
    """What is charged in tokens for a request like this, if it is the next."""
    before = used(one.snapshot(now).tokens)
    permit = grant(one, cost, now)
    after = used(one.snapshot(now).tokens)
    one.cancel(permit, False, now)
    assert used(one.snapshot(now).tokens) == before
    return after - before


def test_in_doubt_more_is_held_back_than_was_asked_until_it_is_known() -> None:
    one = doubting(tokens_per_minute=1_000_000)
    permit = grant(one, (1, 600, 400), 0.0)
    assert (permit.requests, permit.input_tokens, permit.output_tokens) == (1, 600, 400)  # what was asked
    assert 2_000 < used(one.snapshot(0.0).tokens) < 2_100  # it may be twice as much
    one.settle(permit, TokenUsage(700, 350), 1.0)
    assert used(one.snapshot(1.0).tokens) == 1_050


@pytest.mark.parametrize("actual", [None, TokenUsage(5, 5, provenance="unknown")])
def test_what_is_not_known_stays_held_back_and_teaches_nothing(actual: TokenUsage | None) -> None:
    one = doubting(tokens_per_minute=1_000_000)
    first = held(one, (1, 600, 400), 0.0)
    permit = grant(one, (1, 600, 400), 0.0)
    one.settle(permit, actual, 1.0)
    assert used(one.snapshot(1.0).tokens) == first
    assert held(one, (1, 600, 400), 1.0) == first
    one.report_usage(permit, TokenUsage(600, 400), 2.0)
    assert used(one.snapshot(2.0).tokens) == 1_000
    assert held(one, (1, 600, 400), 2.0) < first  # the late word was heard


def test_a_lower_bound_raises_a_charge_to_what_was_asked_at_least_and_teaches_nothing() -> None:
    one = doubting(tokens_per_minute=1_000_000)
    first = held(one, (1, 600, 400), 0.0)
    one.settle(grant(one, (1, 600, 400), 0.0), TokenUsage(4_700, 1, provenance="lower_bound"), 1.0)
    assert used(one.snapshot(1.0).tokens) == 5_100
    assert held(one, (1, 600, 400), 1.0) == first


def test_cancelled_unsent_all_that_was_held_back_comes_back() -> None:
    one = doubting(tokens_per_minute=1_000_000, input_tokens_per_minute=1_000_000)
    permit = grant(one, (1, 600, 400), 0.0)
    one.cancel(permit, False, 0.0)
    snapshot = one.snapshot(0.0)
    assert (used(snapshot.tokens), used(snapshot.input_tokens), snapshot.in_flight) == (0, 0, 0)


def test_requests_are_no_estimates_and_nor_is_what_costs_nothing() -> None:
    one = doubting(requests_per_minute=60, tokens_per_minute=1_000, burst=10, concurrent_requests=10)
    for _ in range(10):
        grant(one, (1, 0, 0), 0.0)
    snapshot = one.snapshot(0.0)
    assert (used(snapshot.requests), used(snapshot.tokens)) == (10, 0)


def test_each_dimension_learns_of_its_own_estimates() -> None:
    one = doubting(
        tokens_per_minute=10**6, input_tokens_per_minute=10**6, output_tokens_per_minute=10**6, requests_per_minute=10**6
    )
    now = settled(one, (1, 1_000, 1_000), TokenUsage(1_000, 1_500), 300)
    grant(one, (1, 1_000, 1_000), now)
    snapshot = one.snapshot(now)
    assert 1_000 <= used(snapshot.input_tokens) < 1_010
    assert 1_500 <= used(snapshot.output_tokens) < 1_515
    assert 2_500 <= used(snapshot.tokens) < 2_525
    assert used(snapshot.requests) == 1


def test_the_more_there_are_under_way_the_less_each_needs_and_those_that_ended_do_not_count() -> None:
    one, fresh = doubting(tokens_per_minute=10**9), doubting(tokens_per_minute=10**9)
    for limits in (one, fresh):
        now = SPAN
        for amount in (600, 1_400) * 150:
            permit = grant(limits, (1, 1_000, 0), now)
            limits.settle(permit, TokenUsage(amount, 0), now + 1.0)
            now += 1.0
        now += SPAN
    alone = held(one, (1, 1_000, 0), now)
    permits = [grant(one, (1, 1_000, 0), now) for _ in range(99)]
    assert held(one, (1, 1_000, 0), now) < alone - 100
    assert held(one, (1, 1_000_000, 0), now) > 950 * alone, "a large one among small ones is nearly alone"
    for index, permit in enumerate(permits):
        if index % 3 == 0:
            one.cancel(permit, index % 2 == 0, now)
        else:
            one.settle(permit, None, now)
    assert held(one, (1, 1_000, 0), now) == held(fresh, (1, 1_000, 0), now) == alone


def begun(one: RateLimiter, count: int) -> list[Permit]:
    return [grant(one, (1, 1_000, 0), float(index)) for index in range(count)]


def test_it_is_learnt_in_the_order_in_which_they_began_for_who_uses_little_ends_first() -> None:
    one = doubting(tokens_per_minute=10**9)
    first, second, third, fourth = begun(one, 4)
    knowing_nothing = held(one, (1, 1_000, 0), 4.0)
    one.settle(second, TokenUsage(3_000, 0), 5.0)
    one.settle(third, TokenUsage(3_000, 0), 5.0)
    assert held(one, (1, 1_000, 0), 5.0) == knowing_nothing
    one.settle(first, TokenUsage(3_000, 0), 6.0)
    knowing_three = held(one, (1, 1_000, 0), 6.0)
    assert knowing_three > knowing_nothing
    one.settle(fourth, TokenUsage(5_000, 0), 6.0)
    assert held(one, (1, 1_000, 0), 6.0) > knowing_three


@pytest.mark.parametrize("sent", [True, False])
def test_who_ends_without_saying_what_it_used_holds_nobody_up(sent: bool) -> None:
    one = doubting(tokens_per_minute=10**9)
    first, second, _ = begun(one, 3)
    knowing_nothing = held(one, (1, 1_000, 0), 3.0)
    one.settle(second, TokenUsage(3_000, 0), 5.0)
    one.cancel(first, sent, 6.0)
    knowing_one = held(one, (1, 1_000, 0), 6.0)
    assert knowing_one > knowing_nothing
    one.report_usage(first, TokenUsage(5_000, 0), 7.0)
    assert (held(one, (1, 1_000, 0), 7.0) > knowing_one) is sent


def test_who_does_not_end_holds_others_up_for_no_longer_than_a_span_and_is_heard_all_the_same() -> None:
    one = doubting(tokens_per_minute=10**9)
    first, second, third = begun(one, 3)
    knowing_nothing = held(one, (1, 1_000, 0), 3.0)
    one.settle(second, TokenUsage(3_000, 0), 5.0)
    one.settle(third, None, math.nextafter(SPAN, 0.0))
    assert held(one, (1, 1_000, 0), math.nextafter(SPAN, 0.0)) == knowing_nothing
    one.cancel(grant(one, (1, 1_000, 0), SPAN), False, SPAN)
    knowing_one = held(one, (1, 1_000, 0), SPAN)
    assert knowing_one > knowing_nothing
    one.settle(first, TokenUsage(5_000, 0), SPAN)
    assert held(one, (1, 1_000, 0), SPAN) > knowing_one


def test_no_more_than_so_many_are_kept_for_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sansio.rate_limit._MOST_LESSONS", 10)
    one = doubting(tokens_per_minute=10**9)
    permits = begun(one, 10)
    for permit in permits[1:]:
        one.settle(permit, TokenUsage(3_000, 0), 11.0)
    knowing_nothing = held(one, (1, 1_000, 0), 11.0)  # with the eleventh, which ends unused
    assert held(one, (1, 1_000, 0), 11.0) > knowing_nothing


def test_what_fits_a_limit_is_never_held_back_for_beyond_it() -> None:
    """Whatever was learnt: else it would wait for ever."""
    one = doubting(tokens_per_minute=1_000)
    now = settled(one, (1, 10, 0), TokenUsage(10**9, 0), 3)
    for asked in (1, 63, 999, 1_000):
        permit = grant(one, (1, asked, 0), now)
        assert used(one.snapshot(now).tokens) <= 1_000
        one.cancel(permit, False, now)
    answer = one.reserve(1, 1_001, 0, now)
    assert isinstance(answer, LimitExceeded)
    assert answer.message == "tokens_per_minute: this request alone costs 1001, and the limit is 1000"
    assert one.never_fits(1, 1_000, 0) is None


def test_a_wait_in_doubt_is_exact_too() -> None:
    one = doubting(tokens_per_minute=1_000)
    grant(one, (1, 300, 0), 0.0)
    answer = one.reserve(1, 300, 0, 1.0)
    assert answer == Wait(SPAN)
    assert isinstance(deepcopy(one).reserve(1, 300, 0, SPAN), Permit)


def test_amounts_beyond_the_precision_of_floats_are_not_charged_less_than_was_asked() -> None:
    one = doubting(doubt=0.0, tokens_per_minute=10**18)
    for asked in (2**53 + 1, 10**17 + 3):
        assert asked <= held(one, (1, asked, 0), 0.0) <= 10**18


def test_who_believes_charges_what_was_asked_whatever_comes_of_it() -> None:
    one = limiter(tokens_per_minute=10**6)
    now = settled(one, (1, 600, 400), TokenUsage(1_200, 800), 50)
    assert held(one, (1, 600, 400), now) == 1_000


@pytest.mark.parametrize("doubt", [-0.1, 1.1, math.nan, True, "0.3"])
def test_a_doubt_out_of_range_is_refused(doubt: Any) -> None:
    with pytest.raises(ValueError, match=r"^doubt: .* is outside 0 <= doubt <= 1"):
        doubting(doubt=doubt, tokens_per_minute=10)


WINDOW, GUARD, TOKENS = 10.0, 0.25, 1_000_000

Ratio = Callable[[random.Random], float]
Time = Callable[[random.Random, float], float]


def half_off_the_use(rng: random.Random) -> float:
    return 1.0 / rng.uniform(0.5, 1.5)


def half_off_the_estimate(rng: random.Random) -> float:
    return rng.uniform(0.5, 1.5)


def alike(rng: random.Random, ratio: float) -> float:
    return 1.0


def some_very_long(rng: random.Random, ratio: float) -> float:
    return rng.expovariate(1.0)


def longer_for_who_uses_more(rng: random.Random, ratio: float) -> float:
    return ratio


def counted(
    one: RateLimiter, ratio: Ratio, time: Time, seed: int, windows: int = 7, at_a_time: int = 150
) -> list[tuple[float, int]]:
    """What a provider counts, and when: what each request really uses, on arrival. Demand never ends."""
    rng = random.Random(seed)
    now = start = 1e6
    seen: list[tuple[float, int]] = []
    under_way: list[tuple[float, int, Permit, int]] = []
    asked = rng.randint(1, 2_000)
    while now < start + windows * WINDOW:
        answer = one.reserve(1, asked, 0, now) if len(under_way) < at_a_time else Wait(None)
        if isinstance(answer, Permit):
            is_used_by = ratio(rng)
            actual = round(asked * is_used_by)
            seen.append((now + rng.uniform(0.0, GUARD), actual))
            ends = now + GUARD + time(rng, is_used_by)
            heapq.heappush(under_way, (ends, answer.id, answer, actual))
            asked = rng.randint(1, 2_000)
            continue
        assert isinstance(answer, Wait)
        now = min(answer.until or math.inf, under_way[0][0] if under_way else math.inf)
        while under_way and under_way[0][0] <= now:
            _, _, permit, actual = heapq.heappop(under_way)
            one.settle(permit, TokenUsage(actual, 0), now)
    return sorted((at - start, actual) for at, actual in seen)


def fullest_window(seen: list[tuple[float, int]]) -> int:
    fullest = first = level = 0
    for at, amount in seen:
        level += amount
        while seen[first][0] <= at - WINDOW:
            level -= seen[first][1]
            first += 1
        fullest = max(fullest, level)
    return fullest


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("at_a_time", [150, 10_000])
@pytest.mark.parametrize("time", [alike, some_very_long, longer_for_who_uses_more])
@pytest.mark.parametrize("ratio", [half_off_the_use, half_off_the_estimate])
def test_whoever_counts_what_is_really_used_never_counts_more_than_the_limit_nor_less_than_95_percent(
    ratio: Ratio, time: Time, at_a_time: int, seed: int
) -> None:
    """Also from the first request on, and where all that is granted is under way at once."""
    one = doubting(tokens_per_minute=TOKENS, window=WINDOW, delivery_guard=GUARD)
    seen = counted(one, ratio, time, seed, at_a_time=at_a_time)
    assert fullest_window(seen) <= TOKENS
    in_six_windows = sum(actual for at, actual in seen if WINDOW <= at < 7 * WINDOW)
    assert in_six_windows >= 0.95 * 6 * TOKENS
    assert len(seen) > 5_000


@pytest.mark.parametrize("ratio", [half_off_the_use, half_off_the_estimate])
def test_and_would_with_estimates_that_are_believed(ratio: Ratio) -> None:
    one = limiter(tokens_per_minute=TOKENS, window=WINDOW, delivery_guard=GUARD)
    assert fullest_window(counted(one, ratio, alike, seed=0, windows=3)) > TOKENS


# ---- any traffic ------------------------------------------------------------------------------------------------------


class ListsOfCharges(RuleBasedStateMachine):
    """Random traffic and feedback, beside a plain list of what was granted.

    Times are multiples of 1/64 s, so that the reference's comparisons are exact.
    """

    @initialize(
        limits=st.fixed_dictionaries(
            {},
            optional={
                "requests_per_minute": st.integers(1, 8),
                "tokens_per_minute": st.integers(1, 60),
                "input_tokens_per_minute": st.integers(1, 40),
                "output_tokens_per_minute": st.integers(1, 40),
                "concurrent_requests": st.integers(1, 4),
            },
        ),
        window=st.sampled_from([4.0, 60.0]),
        epoch=st.sampled_from([0, -6400, 10**9 * 64]),
    )
    def start(self, limits: dict[str, int], window: float, epoch: int) -> None:
        self.limiter = RateLimiter(RateLimits(**limits, window=window))
        self.limits = [limits.get(field) for field in COUNTS[:4]]
        self.concurrent = limits.get("concurrent_requests", 10**9)
        self.span = window + 0.5
        self.resolution = self.span / 1000
        self.tick = self.latest = epoch
        self.granted: list[tuple[Permit, list[int]]] = []  # with the net charges
        self.open: list[int] = []
        self.is_overdrawn = self.is_pulled_down = False
        self.paused_until = -math.inf

    @property
    def now(self) -> float:
        """The clock."""
        return self.tick / 64

    @property
    def at(self) -> float:
        """The latest instant seen, which is what counts."""
        self.latest = max(self.latest, self.tick)
        return self.latest / 64

    def charged(self, kind: int, at: float, held_longer: float = 0.0) -> int:
        span = self.span + held_longer
        return sum(net[kind] for permit, net in self.granted if permit.granted_at <= at < permit.granted_at + span)

    def fits(self, cost: list[int], held_longer: float = 0.0) -> bool:
        """Whether the reference has room for a cost in every dimension, at the present rate."""
        percent = round(self.limiter.snapshot(self.now).rate_factor * 100)
        return self.at >= self.paused_until and all(
            limit is None or self.charged(kind, self.at, held_longer) + cost[kind] <= max(1, limit * percent // 100)
            for kind, limit in enumerate(self.limits)
        )

    @rule(ticks=st.one_of(st.integers(0, 4), st.integers(0, 64 * 30), st.integers(-200, 0)))
    def pass_time(self, ticks: int) -> None:
        self.tick += ticks
        assert self.limiter.snapshot(self.now) is not None and self.at >= self.now  # both have seen it

    @rule(requests=st.integers(0, 2), input_tokens=st.integers(0, 25), output_tokens=st.integers(0, 25))
    def reserve(self, requests: int, input_tokens: int, output_tokens: int) -> None:
        before = self.limiter.snapshot(self.now)
        answer = self.limiter.reserve(requests, input_tokens, output_tokens, self.now)
        cost = [requests, input_tokens + output_tokens, input_tokens, output_tokens]
        never = requests > self.concurrent or any(
            most is not None and amount > most for amount, most in zip(cost, self.limits, strict=True)
        )
        in_flight = sum(self.granted[index][0].requests for index in self.open)
        assert isinstance(answer, LimitExceeded) == never
        if isinstance(answer, Permit):
            assert self.fits(cost) and in_flight + requests <= self.concurrent
            self.open.append(len(self.granted))
            self.granted.append((answer, cost))
            return
        assert self.limiter.snapshot(self.now) == before  # nothing was booked
        if isinstance(answer, Wait) and answer.until is None:
            assert in_flight + requests > self.concurrent
        elif isinstance(answer, Wait):
            assert self.is_pulled_down or not self.fits(cost, self.resolution)
            self.check_wait((requests, input_tokens, output_tokens), answer.until or 0.0)

    def check_wait(self, cost: tuple[int, int, int], until: float) -> None:
        """It suffices, and it is tight: the last float before it would not have done."""
        assert until > self.at
        assert isinstance(deepcopy(self.limiter).reserve(*cost, until), Permit)
        assert deepcopy(self.limiter).reserve(*cost, math.nextafter(until, -math.inf)) == Wait(until)

    @precondition(lambda self: bool(self.granted))
    @rule(data=st.data(), input_tokens=st.integers(0, 30), output_tokens=st.integers(0, 30), late=st.booleans())
    def settle(self, data: st.DataObject, input_tokens: int, output_tokens: int, late: bool) -> None:
        index = data.draw(st.integers(0, len(self.granted) - 1), label="permit")
        permit, net = self.granted[index]
        self.limiter.settle(permit, TokenUsage(input_tokens, output_tokens), self.now)
        if index not in self.open:
            return
        self.open.remove(index)
        usage = [permit.requests, input_tokens + output_tokens, input_tokens, output_tokens]
        self.edit(permit, net, usage)

    def edit(self, permit: Permit, net: list[int], amounts: list[int]) -> None:
        # Between leaving the reference and leaving the ledger, an edit of the ledger shows nowhere in the reference.
        if self.at < permit.granted_at + self.span:
            self.is_overdrawn |= any(new > old for new, old in zip(amounts, net, strict=True))
            net[:] = amounts

    @precondition(lambda self: bool(self.granted))
    @rule(data=st.data(), sent=st.booleans())
    def cancel(self, data: st.DataObject, sent: bool) -> None:
        index = data.draw(st.integers(0, len(self.granted) - 1), label="permit")
        permit, net = self.granted[index]
        self.limiter.cancel(permit, sent, self.now)
        if index in self.open:
            self.open.remove(index)
            if not sent:
                self.edit(permit, net, [0, 0, 0, 0])

    @rule(hint=st.one_of(st.none(), st.integers(1, 640)))
    def throttled(self, hint: int | None) -> None:
        self.limiter.observe_throttled(None if hint is None else hint / 64, self.now)
        if hint is not None:
            self.paused_until = max(self.paused_until, self.at + hint / 64)

    @rule(remaining=st.integers(0, 50), reset_after=st.integers(1, 640))
    def headers(self, remaining: int, reset_after: int) -> None:
        dimension = RateLimitDimension(remaining=remaining, reset_after=reset_after / 64)
        self.limiter.observe_headers(RateLimitSnapshot(dimension, dimension, dimension, dimension), self.now)
        self.is_pulled_down = True
        snapshot = self.limiter.snapshot(self.now)
        for level in (snapshot.requests, snapshot.tokens, snapshot.input_tokens, snapshot.output_tokens):
            assert level is None or level.available <= remaining

    @invariant()
    def levels_are_those_of_the_list(self) -> None:
        if not hasattr(self, "limiter"):
            return
        snapshot = self.limiter.snapshot(self.now)
        levels = (snapshot.requests, snapshot.tokens, snapshot.input_tokens, snapshot.output_tokens)
        for kind, level in enumerate(levels):
            assert (level is None) == (self.limits[kind] is None)
            assert level is None or level.used >= self.charged(kind, self.at)
            assert level is None or self.is_pulled_down or level.used <= self.charged(kind, self.at, self.resolution)
        assert snapshot.in_flight == sum(self.granted[index][0].requests for index in self.open) <= self.concurrent
        assert 0.1 <= snapshot.rate_factor <= 1.0

    @invariant()
    def no_interval_is_charged_more_than_a_limit(self) -> None:
        if not hasattr(self, "limiter") or self.is_overdrawn:
            return
        for kind, limit in enumerate(self.limits):
            for first, _ in self.granted:
                start, end = first.granted_at, first.granted_at + self.span
                net = sum(net[kind] for permit, net in self.granted if start <= permit.granted_at < end)
                assert limit is None or net <= limit


ListsOfCharges.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestListsOfCharges = ListsOfCharges.TestCase


def test_a_head_that_comes_late_is_as_old_as_its_request() -> None:
    limit = limiter(requests_per_minute=10)
    said = RateLimitSnapshot(requests=RateLimitDimension(10, 0, 60.0))
    permit = limit.reserve(1, 0, 0, 0.0)
    assert isinstance(permit, Permit)
    limit.settle(permit, None, 65.0)
    limit.observe_headers(said, 65.0, 0.0)
    assert limit.snapshot(65.0).requests == LimitLevel(10, 0, 10), "what it counted has been reset since"
    limit.observe_headers(RateLimitSnapshot(requests=RateLimitDimension(10, 7, 60.0)), 66.0, 65.9)
    limit.observe_headers(RateLimitSnapshot(requests=RateLimitDimension(10, 1, 60.0)), 67.0, 65.0)
    assert limit.snapshot(67.0).requests == LimitLevel(10, 3, 7), "an answer to a later request has been heard"
    assert limit.snapshot(125.9).requests == LimitLevel(10, 3, 7)
    assert limit.snapshot(126.0).requests == LimitLevel(10, 0, 10)
