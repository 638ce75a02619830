"""The provider's own limiter: an exact sliding window, as a specification."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sansio.simulation import LimitRefusal, LimitView, ProviderLimiter, ProviderLimits


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"requests_per_minute": 0}, "requests_per_minute"),
        ({"requests_per_minute": True}, "requests_per_minute"),
        ({"tokens_per_minute": -1}, "tokens_per_minute"),
        ({"tokens_per_minute": 1.5}, "tokens_per_minute"),
        ({"window": 0}, "window"),
        ({"window": math.inf}, "window"),
        ({"window": math.nan}, "window"),
        ({"window": True}, "window"),
        ({"window": "60"}, "window"),
    ],
)
def test_a_limit_out_of_range_is_refused(fields: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        ProviderLimits(**fields)


def test_a_charge_counts_until_exactly_one_window_later() -> None:
    limiter = ProviderLimiter(ProviderLimits(requests_per_minute=2))
    limiter.charge(1, 100.0)
    limiter.charge(1, 130.0)
    assert limiter.refusal(1, 159.75) == LimitRefusal("requests", 2, 2, 1, wait=0.25)
    assert limiter.refusal(1, 160.0) is None
    assert limiter.refused == 1


def test_tokens_wait_for_as_many_charges_as_they_need() -> None:
    limiter = ProviderLimiter(ProviderLimits(tokens_per_minute=100, window=10.0))
    for at, tokens in ((0.0, 30), (1.0, 30), (2.0, 30)):
        limiter.charge(tokens, at)
    assert limiter.refusal(10, 3.0) is None
    assert limiter.refusal(11, 3.0) == LimitRefusal("tokens", 100, 90, 11, wait=7.0)
    assert limiter.refusal(40, 3.0) == LimitRefusal("tokens", 100, 90, 40, wait=7.0)
    assert limiter.refusal(41, 3.0) == LimitRefusal("tokens", 100, 90, 41, wait=8.0)
    assert limiter.refusal(100, 3.0) == LimitRefusal("tokens", 100, 90, 100, wait=9.0)


def test_what_can_never_fit_has_no_wait() -> None:
    limiter = ProviderLimiter(ProviderLimits(tokens_per_minute=100))
    assert limiter.refusal(101, 0.0) == LimitRefusal("tokens", 100, 0, 101, wait=None)


def test_a_refusal_charges_nothing() -> None:
    limiter = ProviderLimiter(ProviderLimits(requests_per_minute=1))
    limiter.charge(5, 0.0)
    for _ in range(3):
        assert limiter.refusal(5, 1.0) is not None
    assert (limiter.peak_requests, limiter.peak_tokens, limiter.refused) == (1, 5, 3)


def test_a_charge_past_the_limit_is_booked_and_waited_for() -> None:
    limiter = ProviderLimiter(ProviderLimits(requests_per_minute=1, window=10.0))
    limiter.charge(1, 0.0)
    limiter.charge(1, 4.0)
    assert limiter.refusal(1, 5.0) == LimitRefusal("requests", 1, 2, 1, wait=9.0)
    assert limiter.view(5.0).remaining_requests == 0


def test_the_view_tells_what_is_left_and_when_all_is_back() -> None:
    limits = ProviderLimits(requests_per_minute=3, tokens_per_minute=100)
    limiter = ProviderLimiter(limits)
    assert limiter.view(0.0) == LimitView(limits, 3, 100, 0.0)
    limiter.charge(40, 10.0)
    limiter.charge(80, 20.0)
    assert limiter.view(30.0) == LimitView(limits, 1, 0, 50.0)
    assert ProviderLimiter(ProviderLimits()).view(0.0) == LimitView(ProviderLimits(), None, None, 0.0)


def test_a_clock_that_goes_backwards_grants_nothing() -> None:
    limiter = ProviderLimiter(ProviderLimits(requests_per_minute=1))
    limiter.charge(1, 100.0)
    assert limiter.refusal(1, -500.0) == LimitRefusal("requests", 1, 1, 1, wait=60.0)
    limiter.charge(1, -500.0)
    assert limiter.view(100.0).reset == 60.0


STEPS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 30)), max_size=40)


@given(STEPS, st.integers(1, 5), st.integers(1, 60))
def test_it_agrees_with_a_list_of_all_that_was_granted(steps: list[tuple[int, int]], requests: int, tokens: int) -> None:
    """The naive model: look at everything ever granted. Times are quarters of a second, so that sums are exact."""
    limiter = ProviderLimiter(ProviderLimits(requests, tokens, window=10.0))
    granted: list[tuple[float, int]] = []
    now = 0.0
    for quarters, cost in steps:
        now += quarters / 4

        def fits(at: float, cost: int = cost) -> bool:
            held = [charge for charge in granted if charge[0] <= at < charge[0] + 10.0]
            return len(held) < requests and sum(charged for _, charged in held) + cost <= tokens

        refusal = limiter.refusal(cost, now)
        assert (refusal is None) == fits(now)
        if refusal is None:
            limiter.charge(cost, now)
            granted.append((now, cost))
        elif refusal.wait is None:
            assert cost > tokens
        elif refusal.dimension == "tokens":
            assert fits(now + refusal.wait) and not fits(now + refusal.wait - 0.25)
    starts = [at for at, _ in granted]
    assert limiter.peak_requests == max((sum(s <= t < s + 10 for s in starts) for t in starts), default=0)
