"""`TokenBucket`: literal times first, then waits at any epoch, then a bucket of exact fractions as the reference."""

from __future__ import annotations

import math
from copy import deepcopy
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sansio.token_bucket import TokenBucket, to_nanoseconds


def test_it_is_full_at_first_and_refills_at_its_rate() -> None:
    bucket = TokenBucket(rate_per_second=10, burst=3)
    taken = [bucket.try_take(1, 1000.0) for _ in range(4)]
    assert taken == [True, True, True, False]
    assert not bucket.try_take(1, 1000.099)
    assert bucket.try_take(1, 1000.1)
    assert not bucket.try_take(3, 1000.399)
    assert bucket.try_take(3, 1000.4)


def test_it_never_holds_more_than_its_burst() -> None:
    bucket = TokenBucket(10, 3)
    assert bucket.try_take(3, 0.0)
    assert not bucket.try_take(4, 1e9)
    assert bucket.try_take(3, 1e9)
    assert not bucket.try_take(1, 1e9)


def test_a_refusal_takes_nothing_and_zero_is_always_there() -> None:
    bucket = TokenBucket(1, 2)
    assert not bucket.try_take(3, 0.0)
    assert bucket.try_take(2, 0.0)
    assert bucket.try_take(0, 0.0)
    assert bucket.reserve(2, 0.0) == 2.0
    assert bucket.try_take(0, 0.0) and bucket.wait(0, 0.0) == 0.0


def test_many_small_steps_lose_and_invent_nothing() -> None:
    bucket = TokenBucket(0.3, 2)
    assert bucket.try_take(1, 0.0)
    granted = [tick for tick in range(100_001) if bucket.try_take(1, tick / 1000)]
    assert granted == [0, *(math.ceil(k * 10_000 / 3) for k in range(1, 31))]


def test_a_float_rate_means_the_decimal_it_prints_as() -> None:
    bucket = TokenBucket(0.3, 3)  # the float nearest to 0.3 is a little less
    assert bucket.try_take(3, 0.0)
    assert bucket.try_take(3, 10.0)


@pytest.mark.parametrize(
    ("spent", "n", "wait"),
    [(0, 3, 0.0), (3, 1, 0.25), (3, 3, 0.75), (2, 3, 0.5), (0, 4, math.inf), (3, 0, 0.0)],
)
def test_wait_is_the_time_until_the_tokens_are_there(spent: int, n: int, wait: float) -> None:
    bucket = TokenBucket(4, 3)
    assert bucket.try_take(spent, 8.0)
    assert bucket.wait(n, 8.0) == wait
    assert bucket.try_take(3 - spent, 8.0)  # asking booked nothing


@pytest.mark.parametrize("now", [0.0, 0.1234567896, 1e-10, 6e-10, 12.3456789019, 1e9 + 1 / 3, -0.1234567894])
@pytest.mark.parametrize("n", [0, 1, 3])
def test_what_can_be_taken_now_has_no_wait_between_two_nanoseconds_either(n: int, now: float) -> None:
    bucket = TokenBucket(4, 3)
    assert bucket.wait(n, now) == 0.0
    assert bucket.reserve(n, now) == 0.0


def test_without_a_rate_the_burst_is_all_there_is() -> None:
    bucket = TokenBucket(0, 1)
    assert bucket.wait(1, 0.0) == 0.0
    assert bucket.try_take(1, 0.0)
    assert bucket.wait(1, 1e9) == math.inf
    assert bucket.reserve(1, 1e9) is None
    bucket.give_back(1, 1e9)
    assert bucket.try_take(1, 1e9)


def test_reserve_books_the_future_in_order() -> None:
    bucket = TokenBucket(2, 2)
    assert bucket.reserve(2, 0.0) == 0.0
    assert bucket.reserve(2, 0.0) == 1.0
    assert bucket.reserve(1, 0.0) == 1.5
    assert not bucket.try_take(1, 1.5)
    assert bucket.try_take(1, 2.0)


def test_reserve_refuses_what_waits_too_long_or_never_comes_and_books_nothing() -> None:
    bucket = TokenBucket(10, 2)
    assert bucket.reserve(3, 1000.0) is None
    assert bucket.reserve(2, 1000.0, max_wait=0.0) == 0.0
    assert bucket.reserve(1, 1000.0, max_wait=0.099) is None
    assert bucket.reserve(1, 1000.0, max_wait=0.1) == pytest.approx(0.1)
    assert bucket.reserve(1, 1000.0, max_wait=0.1) is None
    assert bucket.reserve(1, 1000.0, max_wait=0.2) == pytest.approx(0.2)


def test_what_is_given_back_is_there_at_once_up_to_the_burst() -> None:
    bucket = TokenBucket(10, 2)
    assert bucket.try_take(2, 0.0)
    bucket.give_back(1, 0.0)
    assert bucket.try_take(1, 0.0)
    bucket.give_back(5, 0.0)
    assert bucket.try_take(2, 0.0)
    assert not bucket.try_take(1, 0.0)


def test_a_clock_that_goes_backwards_grants_nothing_extra_and_still_gets_a_wait_that_suffices() -> None:
    bucket = TokenBucket(10, 3)
    assert bucket.try_take(3, 100.0)
    assert not bucket.try_take(1, 50.0)
    assert bucket.wait(1, 50.0) == pytest.approx(50.1)
    assert bucket.reserve(1, 50.0, max_wait=50.0) is None
    assert bucket.try_take(1, 50.0 + bucket.wait(1, 50.0))
    assert not bucket.try_take(1, 100.1)
    bucket.give_back(1, 0.0)
    assert bucket.wait(1, 0.0) == 0.0
    assert bucket.reserve(1, 0.0, max_wait=0.0) == 0.0


@pytest.mark.parametrize("rate", [-1, -0.1, math.nan, math.inf, True, "1", None])
def test_a_rate_out_of_range_is_refused(rate: Any) -> None:
    with pytest.raises(ValueError, match=r"rate_per_second: .* 0 <= rate_per_second"):
        TokenBucket(rate, 1)


@pytest.mark.parametrize("burst", [0, -1, 1.0, math.nan, True, "1", None])
def test_a_burst_out_of_range_is_refused(burst: Any) -> None:
    with pytest.raises(ValueError, match=r"burst: .* at least 1"):
        TokenBucket(1, burst)


@pytest.mark.parametrize("n", [-1, 0.5, 1.0, -math.inf, math.inf, math.nan, True, "1", None])
def test_an_amount_that_is_no_count_is_refused_and_changes_nothing(n: Any) -> None:
    bucket = TokenBucket(1, 2)
    for method in (bucket.try_take, bucket.wait, bucket.reserve, bucket.give_back):
        with pytest.raises(ValueError, match=r"n: .* at least 0"):
            method(n, 0.0)
    assert bucket.try_take(2, 0.0)
    assert not bucket.try_take(1, 0.0)


@pytest.mark.parametrize("now", [math.nan, math.inf, -math.inf])
def test_an_instant_that_is_not_finite_is_refused_and_changes_nothing(now: float) -> None:
    bucket = TokenBucket(1, 2)
    assert bucket.try_take(2, 0.0)
    for method in (bucket.try_take, bucket.wait, bucket.reserve, bucket.give_back):
        with pytest.raises(ValueError, match="finite"):
            method(1, now)
    assert not bucket.try_take(1, 0.999)


@pytest.mark.parametrize("max_wait", [-0.1, -math.inf, math.nan])
def test_a_max_wait_out_of_range_is_refused_and_books_nothing(max_wait: float) -> None:
    bucket = TokenBucket(1, 1)
    with pytest.raises(ValueError, match="max_wait"):
        bucket.reserve(1, 0.0, max_wait=max_wait)
    assert bucket.try_take(1, 0.0)


@pytest.mark.parametrize(
    ("rate", "now"),
    [
        (10, 1e9 + 0.3),  # a float of 1e9 seconds steps by 119 ns
        (3, 1.7e9 + 0.123),
        (3, 2.0**40),
        (10, 2.0**41 + 0.5),  # and one of 2**41 by half a millisecond
        (1e-7, -2332363.176657),  # the sum crosses zero, where floats are finer than the wait
    ],
)
def test_a_wait_suffices_where_floats_must_round(rate: float, now: float) -> None:
    bucket = TokenBucket(rate, 1)
    assert bucket.try_take(1, now)
    assert bucket.try_take(1, now + bucket.wait(1, now))


epochs = st.sampled_from([-1e9, -1000.0, -0.3, 0.0, 1e-9, 0.1, 1000.1, 1e6 + 0.7, 1.7e9 + 0.123, 2.0**40])


@settings(max_examples=200)
@given(
    rate=st.one_of(st.integers(1, 10**6), st.floats(1e-6, 1e6)),
    burst=st.integers(1, 50),
    epoch=epochs,
    steps=st.lists(st.tuples(st.integers(1, 50), st.floats(0, 5)), max_size=8),
)
def test_a_reported_wait_suffices_and_is_tight_at_any_epoch(
    rate: float, burst: int, epoch: float, steps: list[tuple[int, float]]
) -> None:
    bucket, now = TokenBucket(rate, burst), epoch
    for n, pause in steps:
        wait = bucket.wait(n, now)
        if n > burst:
            assert wait == math.inf and not bucket.try_take(n, now)
            continue
        # Two nanoseconds, or two steps of the clock's floats, earlier it would not have been enough.
        early = now + wait - max(3e-9, 2 * math.ulp(now), 2 * math.ulp(now + wait))
        if early > now:
            assert not deepcopy(bucket).try_take(n, early)
        now += wait
        assert bucket.try_take(n, now)
        now += pause


@settings(max_examples=100)
@given(epoch=epochs, waits=st.lists(st.integers(1, 3), min_size=1, max_size=6))
def test_a_booked_wait_is_the_wait_that_was_announced(epoch: float, waits: list[int]) -> None:
    bucket = TokenBucket(7, 3)
    for n in waits:
        announced = bucket.wait(n, epoch)
        assert bucket.reserve(n, epoch) == announced


class BucketOfFractions(RuleBasedStateMachine):
    """Random calls on a clock of whole milliseconds, which may go backwards, beside the formula in exact fractions."""

    @initialize(
        rate=st.sampled_from([0, 1, 0.1, 2.5, 0.7692307692307693, 999]), burst=st.integers(1, 9), ms=st.integers(0, 10**9)
    )
    def start(self, rate: float, burst: int, ms: int) -> None:
        self.bucket = TokenBucket(rate, burst)
        self.rate, self.burst = Fraction(str(rate)), burst
        self.level, self.ms, self.latest = Fraction(burst), ms, ms

    def now(self) -> float:
        """Refill the reference, and give the instant."""
        if self.ms > self.latest:
            self.level = min(Fraction(self.burst), self.level + self.rate * (self.ms - self.latest) / 1000)
            self.latest = self.ms
        return self.ms / 1000

    @rule(ms=st.one_of(st.integers(0, 5000), st.integers(-3000, 0)))
    def pass_time(self, ms: int) -> None:
        self.ms += ms

    @rule(n=st.integers(0, 10))
    def take(self, n: int) -> None:
        fits = self.bucket.try_take(n, self.now())
        assert fits == (n == 0 or self.level >= n)
        self.level -= n * fits

    @rule(n=st.integers(0, 10), max_wait=st.sampled_from([0.0, 0.5, 3.0, math.inf]))
    def reserve(self, n: int, max_wait: float) -> None:
        wait = self.bucket.reserve(n, self.now(), max_wait)
        missing = n - self.level if n else Fraction(0)
        if missing <= 0:
            assert wait == 0.0
        elif n > self.burst or not self.rate:
            assert wait is None
        else:
            want = missing / self.rate + Fraction(self.latest - self.ms, 1000)
            assert wait is None or wait == pytest.approx(float(want), abs=1e-6)
            assert (wait is None) == (math.ceil(want * 10**9) > max_wait * 10**9)
        self.level -= 0 if wait is None else n

    @rule(n=st.integers(0, 10))
    def give_back(self, n: int) -> None:
        self.bucket.give_back(n, self.now())
        self.level = min(Fraction(self.burst), self.level + n)

    @invariant()
    def waits_as_announced(self) -> None:
        if not hasattr(self, "bucket"):
            return
        wait = self.bucket.wait(1, self.now())
        assert wait >= 0
        assert (wait == 0) == (self.level >= 1)


BucketOfFractions.TestCase.settings = settings(max_examples=100, stateful_step_count=30)
TestBucketOfFractions = BucketOfFractions.TestCase


def test_nanoseconds_round_to_the_nearest() -> None:
    assert [to_nanoseconds(t) for t in (0.0, 1000.3, -1.5, 1.4e-9, 1.6e-9)] == [0, 1_000_300_000_000, -1_500_000_000, 1, 2]
