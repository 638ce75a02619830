"""`sansio.backoff`: the curve, its cap, its jitter, and that it is defined everywhere."""

from __future__ import annotations

import math
import random
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sansio.backoff import BackoffPolicy, JitterKind, compute_backoff, require_count, require_number, require_positive


class Scripted(random.Random):
    """Draws what it was told, in turn, and counts the draws."""

    def __init__(self, *draws: float) -> None:
        super().__init__(0)
        self.draws = draws
        self.drawn = 0

    def random(self) -> float:
        self.drawn += 1
        return self.draws[(self.drawn - 1) % len(self.draws)]


ALMOST_ONE = math.nextafter(1.0, 0.0)


@pytest.mark.parametrize(
    ("attempt", "seconds"),
    [(0, 1.0), (1, 2.0), (2, 4.0), (5, 32.0), (6, 60.0), (7, 60.0), (2000, 60.0), (10**9, 60.0), (10**400, 60.0)],
)
def test_without_jitter_the_wait_doubles_up_to_the_cap(attempt: int, seconds: float) -> None:
    assert compute_backoff(BackoffPolicy(jitter=JitterKind.NONE), attempt, Scripted()) == seconds


@pytest.mark.parametrize("attempt", [0, 1, 2000, 10**9, 10**400])
def test_a_multiplier_of_one_never_grows(attempt: int) -> None:
    policy = BackoffPolicy(initial_backoff=3, backoff_multiplier=1, jitter=JitterKind.NONE)
    assert compute_backoff(policy, attempt, Scripted()) == 3.0


@pytest.mark.parametrize("jitter", JitterKind)
@pytest.mark.parametrize("attempt", [0, 1, 2000, 10**9])
def test_no_initial_backoff_means_no_wait_at_all(jitter: JitterKind, attempt: int) -> None:
    assert compute_backoff(BackoffPolicy(initial_backoff=0, jitter=jitter), attempt, random.Random(1)) == 0.0


@pytest.mark.parametrize("jitter", JitterKind)
def test_the_cap_also_bounds_the_first_wait(jitter: JitterKind) -> None:
    policy = BackoffPolicy(initial_backoff=100, max_backoff=5, jitter=jitter)
    assert compute_backoff(policy, 0, Scripted(ALMOST_ONE)) <= 5.0
    assert compute_backoff(policy, 3, Scripted(ALMOST_ONE)) == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("jitter", "draw", "seconds"),
    [
        (JitterKind.EQUAL, 0.0, 2.0),
        (JitterKind.EQUAL, 0.5, 3.0),
        (JitterKind.EQUAL, ALMOST_ONE, 4.0),
        (JitterKind.FULL, 0.0, 0.0),
        (JitterKind.FULL, 0.25, 1.0),
        (JitterKind.FULL, ALMOST_ONE, 4.0),
    ],
)
def test_equal_jitter_spreads_the_upper_half_and_full_jitter_all(jitter: JitterKind, draw: float, seconds: float) -> None:
    assert compute_backoff(BackoffPolicy(jitter=jitter), 2, Scripted(draw)) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("attempt", "draws", "seconds"),
    [
        (0, (0.0,), 1.0),  # between 1 and 3
        (0, (0.5,), 2.0),
        (1, (0.5, 0.0), 1.0),  # 2, then between 1 and 6: it may also shrink
        (1, (0.5, 0.5), 3.5),
        (2, (0.5, 0.5, 1.0), 10.5),
        (3, (1.0,), 60.0),  # 3, 9, 27, then capped
    ],
)
def test_decorrelated_jitter_replays_its_chain(attempt: int, draws: tuple[float, ...], seconds: float) -> None:
    rng = Scripted(*draws)
    assert compute_backoff(BackoffPolicy(jitter=JitterKind.DECORRELATED), attempt, rng) == seconds
    assert rng.drawn == attempt + 1


@pytest.mark.parametrize("jitter", JitterKind)
def test_the_work_is_bounded_however_late_the_attempt(jitter: JitterKind) -> None:
    rng = Scripted(0.5)
    compute_backoff(BackoffPolicy(jitter=jitter), 10**9, rng)
    assert rng.drawn <= 32


@pytest.mark.parametrize("attempt", [-1, -(10**400), True, 1.0, None])
def test_an_attempt_that_is_no_count_is_refused(attempt: Any) -> None:
    with pytest.raises(ValueError, match=r"^attempt: "):
        compute_backoff(BackoffPolicy(), attempt, random.Random(1))


def test_defaults() -> None:
    policy = BackoffPolicy()
    assert (policy.initial_backoff, policy.max_backoff, policy.backoff_multiplier) == (1.0, 60.0, 2.0)
    assert policy.jitter is JitterKind.EQUAL


@pytest.mark.parametrize("kind", JitterKind)
def test_jitter_may_be_given_as_a_string(kind: JitterKind) -> None:
    given_as_text: Any = kind.value
    assert BackoffPolicy(jitter=given_as_text).jitter is kind


@pytest.mark.parametrize("field", ["initial_backoff", "max_backoff", "backoff_multiplier"])
@pytest.mark.parametrize("value", [-1, -0.1, math.nan, math.inf, -math.inf, 10**400, True, "1", None])
def test_numbers_out_of_range_are_refused_by_name_value_and_range(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{field}: .* is not a finite number of at least [01]$") as refusal:
        BackoffPolicy(**{field: value})
    assert repr(value) in str(refusal.value)


@pytest.mark.parametrize(
    ("field", "value"), [("backoff_multiplier", 0.99), ("jitter", "some"), ("jitter", None), ("jitter", [])]
)
def test_other_fields_out_of_range_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{field}: "):
        BackoffPolicy(**{field: value})


def test_the_refusals_of_a_number_say_its_range() -> None:
    require_number("n", 0)
    require_number("n", sys.float_info.max)
    require_positive("n", 5e-324)
    require_count("n", 0)
    require_count("n", 10**400)
    with pytest.raises(ValueError, match=r"^n: 0 is not above 0$"):
        require_positive("n", 0)
    with pytest.raises(ValueError, match=r"^n: -1 is not a finite number of at least 0$"):
        require_positive("n", -1)
    with pytest.raises(ValueError, match=r"^n: 0 is not an integer of at least 1$"):
        require_count("n", 0, at_least=1)


durations = st.one_of(st.floats(0, 1000), st.floats(0, sys.float_info.max), st.integers(0, 10**6))
policies = st.builds(
    BackoffPolicy,
    initial_backoff=durations,
    max_backoff=durations,
    backoff_multiplier=st.one_of(st.floats(1, 10), st.floats(1, sys.float_info.max)),
    jitter=st.sampled_from(JitterKind),
)
attempts = st.one_of(st.integers(0, 40), st.integers(0, 10**12), st.just(10**400))


@settings(max_examples=200)
@given(policies, attempts, st.integers(0, 2**32))
def test_every_wait_is_within_its_bounds_and_reproducible(policy: BackoffPolicy, attempt: int, seed: int) -> None:
    wait = compute_backoff(policy, attempt, random.Random(seed))
    assert type(wait) is float
    lowest = 0.0 if policy.jitter is JitterKind.FULL else min(policy.initial_backoff, policy.max_backoff)
    if policy.jitter is JitterKind.EQUAL:
        lowest /= 2
    assert lowest <= wait <= policy.max_backoff
    assert wait == compute_backoff(policy, attempt, random.Random(seed))


@settings(max_examples=100)
@given(policies, st.integers(0, 5000))
def test_the_unjittered_wait_never_shrinks(policy: BackoffPolicy, attempt: int) -> None:
    plain = BackoffPolicy(policy.initial_backoff, policy.max_backoff, policy.backoff_multiplier, JitterKind.NONE)
    assert compute_backoff(plain, attempt, Scripted()) <= compute_backoff(plain, attempt + 1, Scripted())
