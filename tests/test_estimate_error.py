"""`EstimateError`: what is held back covers what is used, in thousands of trials, and is not more than it has to be."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sansio.estimate_error import EstimateError

DOUBT = 0.3

Draw = Callable[[random.Random], float]

RATIOS: dict[str, Draw] = {
    "the estimate is within 50 % of the use": lambda rng: 1.0 / rng.uniform(0.5, 1.5),
    "the use is within 50 % of the estimate": lambda rng: rng.uniform(0.5, 1.5),
    "the use is 60 % higher, and noisy": lambda rng: 1.6 * rng.uniform(0.8, 1.2),
    "exact": lambda rng: 1.0,
}
"""Used / estimated."""

SIZES: dict[str, Draw] = {
    "equal": lambda rng: 1_000,
    "even": lambda rng: rng.randint(1, 2_000),
    "Pareto": lambda rng: min(30_000, 330 * rng.paretovariate(1.5)),
    "a few are forty times the others": lambda rng: 20_000 if rng.random() < 0.02 else 500,
}


def learnt(history: Iterable[tuple[int, int]], doubt: float = DOUBT) -> EstimateError:
    error = EstimateError(doubt)
    for estimated, used in history:
        error.observe(estimated, used, 1.0)
    return error


def drawn(rng: random.Random, ratio: Draw, size: Draw, count: int) -> list[tuple[int, int]]:
    """So many requests: what they are estimated at, and what they use."""
    sizes = [int(size(rng)) for _ in range(count)]
    return [(size, round(size * ratio(rng))) for size in sizes]


def covers(error: EstimateError, requests: list[tuple[int, int]]) -> bool:
    """Whether what is held back for requests that are under way together is as much as they use."""
    estimates = [estimated for estimated, _ in requests]
    equals = sum(estimates) ** 2 / sum(estimated**2 for estimated in estimates)
    held = sum(math.ceil(estimated * error.factor(equals)) for estimated in estimates)
    return held >= sum(used for _, used in requests)


# ---- it is enough -----------------------------------------------------------------------------------------------------

KNOWN = (0, 3, 10, 30, 100, 400)
"""How many requests have ended when the others are granted."""

UNDER_WAY = (1, 2, 5, 20, 100)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ratio", RATIOS)
def test_what_is_held_back_covers_what_is_used_in_every_one_of_thousands_of_trials(ratio: str, size: str) -> None:
    rng = random.Random(f"{ratio} {size}")
    uncovered: list[tuple[int, int]] = []
    for known in KNOWN:
        for _ in range(28):
            error = learnt(drawn(rng, RATIOS[ratio], SIZES[size], known))
            for under_way in UNDER_WAY:
                requests = drawn(rng, RATIOS[ratio], SIZES[size], under_way)
                if not covers(error, requests):
                    uncovered.append((known, under_way))
                requests = drawn(rng, RATIOS[ratio], SIZES[size], under_way)
                if not covers(error, requests):
                    uncovered.append((known, under_way))
    assert uncovered == []


def long_tailed(rng: random.Random) -> float:
    """Log-normal around 1: one in a hundred and fifty is above 3, one in a thousand above 4."""
    return rng.lognormvariate(-0.125, 0.5)


def test_errors_with_a_long_tail_are_covered_but_for_the_rare_one_of_few() -> None:
    rng = random.Random(5)
    uncovered = dict.fromkeys(UNDER_WAY, 0)
    for _ in range(150):
        error = learnt(drawn(rng, long_tailed, SIZES["even"], 300))
        for under_way in UNDER_WAY:
            uncovered[under_way] += sum(
                not covers(error, drawn(rng, long_tailed, SIZES["even"], under_way)) for _ in range(4)
            )
    assert uncovered[1] <= 6  # of 600
    assert uncovered[20] == uncovered[100] == 0


def test_of_many_small_ones_and_a_large_one_together_the_large_one_decides() -> None:
    """Nothing like it was seen before: all that ended were small."""
    rng = random.Random(6)
    for _ in range(200):
        error = learnt(drawn(rng, RATIOS["the use is within 50 % of the estimate"], SIZES["equal"], 200))
        small = drawn(rng, RATIOS["the use is within 50 % of the estimate"], SIZES["equal"], 100)
        assert covers(error, [*small, (200_000, 300_000)])


def test_who_uses_more_and_takes_longer_is_covered_while_under_way() -> None:
    """Half of them use twice as much and take four times as long: of those that are under way at any time, four in five."""
    error = EstimateError(DOUBT)
    for _ in range(300):
        error.observe(1_000, 2_000, 4.0)
        error.observe(1_000, 1_000, 1.0)
    assert error.factor(10_000) > 0.8 * 2.0 + 0.2 * 1.0
    alike = EstimateError(DOUBT)
    for _ in range(300):
        alike.observe(1_000, 2_000, 1.0)
        alike.observe(1_000, 1_000, 1.0)
    assert alike.factor(10_000) < error.factor(10_000) - 0.15


# ---- it is not more than it has to be ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("used_per_estimate", [1, 2])
def test_where_estimates_are_exact_or_wrong_by_a_known_factor_nothing_more_is_held_back_in_the_end(
    size: str, used_per_estimate: int
) -> None:
    rng = random.Random(1)
    error = EstimateError(DOUBT)
    held: list[float] = []
    for _ in range(200):
        estimated = int(SIZES[size](rng))
        error.observe(estimated, used_per_estimate * estimated, rng.random())
        held.append(error.factor(1) / used_per_estimate)
    assert held[-1] < 1.01
    assert error.factor(50) < 1.005 * used_per_estimate


def test_doubt_goes_as_observations_come() -> None:
    factors = [learnt([(1_000, 1_000)] * count).factor(20) for count in (0, 1, 5, 20, 60, 120)]
    assert factors == sorted(factors, reverse=True)
    assert factors[0] > 2.0 and factors[2] > 1.5 and factors[3] < 1.4 and factors[-1] < 1.01


def test_the_noise_is_held_back_in_proportion() -> None:
    """Uses between half and one and a half of the estimates deviate by 0.29. Of a hundred together the sum does so by 0.029,
    and the mean of two hundred is known to 0.02: five times the root of both squared."""
    rng = random.Random(2)
    error = learnt(drawn(rng, RATIOS["the use is within 50 % of the estimate"], SIZES["equal"], 2_000))
    assert 1.12 < error.factor(100) < 1.24
    assert 1.08 < error.factor(10**9) < 1.17
    assert 1.35 < error.factor(1) < 1.7  # by the worst one seen, 1.5


def test_where_few_large_ones_are_noisy_and_many_small_ones_exact_the_noise_is_that_of_the_large_ones() -> None:
    """And not that of the average size: of a sum it is the large ones that decide."""
    history = [(1_000, 1_000)] * 49 + [(20_000, 10_000)] + [(1_000, 1_000)] * 49 + [(20_000, 30_000)]
    assert learnt(history * 5).factor(4) > 1.55


def test_estimates_that_are_too_high_are_charged_as_they_are() -> None:
    assert learnt([(1_000, 400)] * 300).factor(1) == 1.0


def test_few_low_ones_do_not_make_the_next_one_low() -> None:
    error = learnt([(1_000, 500)] * 3)
    assert error.factor(1) > 1.8 and error.factor(100) > 1.5


def test_a_bias_is_followed_when_it_comes_and_when_it_goes() -> None:
    error = learnt([(1_000, 1_000)] * 1_000)
    assert error.factor(100) < 1.001
    for _ in range(400):
        error.observe(1_000, 1_500, 1.0)
    assert error.factor(100) >= 1.5
    for _ in range(2_000):
        error.observe(1_000, 1_000, 1.0)
    assert error.factor(100) < 1.01


def test_a_new_bias_is_taken_for_noise_at_first() -> None:
    """So that few at a time are covered long before it is believed."""
    error = learnt([(1_000, 1_000)] * 1_000)
    covered_from: dict[int, int] = {}
    for count in range(1, 250):
        error.observe(1_000, 1_500, 1.0)
        for under_way in (1, 5, 20):
            if error.factor(under_way) >= 1.5:
                covered_from.setdefault(under_way, count)
    assert covered_from[1] < 10 and covered_from[5] < 45 and covered_from[20] < 130


# ---- bounds -----------------------------------------------------------------------------------------------------------


def test_nothing_doubted_and_nothing_known_is_believed() -> None:
    for under_way in (0, 1, 2, 10**9):
        assert EstimateError().factor(under_way) == 1.0


@pytest.mark.parametrize("under_way", [0.0, 1, 2.5, 7, 400, 10**9])
def test_at_the_start_an_estimate_may_be_half_of_what_is_used_however_many_are_under_way(under_way: float) -> None:
    """How far off all of them are together is not known either."""
    assert 2.0 < EstimateError(DOUBT).factor(under_way) < 2.1


def test_less_than_one_request_is_one() -> None:
    error = learnt([(1_000, 900), (1_000, 1_100)] * 200)
    assert error.factor(0) == error.factor(0.5) == error.factor(1) > error.factor(1.5)


def test_never_more_than_a_little_above_the_worst_that_was_seen() -> None:
    rng = random.Random(3)
    error = learnt(drawn(rng, lambda rng: rng.uniform(0.5, 1.4), SIZES["equal"], 5_000))
    assert 1.4 < error.factor(1) < 1.4 + 0.25 * 0.4 + 0.1


def test_the_worst_is_remembered_for_thousands_and_not_for_ever() -> None:
    """Of one at a time: it is as likely to come again as it was rare."""
    error = learnt([(1_000, 3_000)])
    for _ in range(10):
        for _ in range(50):
            error.observe(1_000, 500, 1.0)
            error.observe(1_000, 1_500, 1.0)
    assert 2.2 < error.factor(1) < 3.0
    for _ in range(10_000):
        error.observe(1_000, 500, 1.0)
        error.observe(1_000, 1_500, 1.0)
    assert error.factor(1) < 1.7


@pytest.mark.parametrize("used", [10**6, 10**15, 10**400])
def test_a_use_that_cannot_be_is_not_believed_whole_and_soon_forgotten(used: int) -> None:
    error = learnt([(1_000, 1_000)] * 300)
    error.observe(1_000, used, 1.0)
    assert 1.0 < error.factor(1) <= 20.0
    for _ in range(2_500):
        error.observe(1_000, 1_000, 1.0)
    assert error.factor(20) < 1.05


@pytest.mark.parametrize(("estimated", "used"), [(0, 0), (0, 5), (-1, 5), (5, -1)])
def test_what_says_nothing_changes_nothing(estimated: int, used: int) -> None:
    error = learnt([(1_000, 1_100), (1_000, 900)] * 10)
    before = [error.factor(under_way) for under_way in UNDER_WAY]
    error.observe(estimated, used, 1.0)
    assert [error.factor(under_way) for under_way in UNDER_WAY] == before


@pytest.mark.parametrize("doubt", [-0.1, 1.1, math.nan, math.inf, True, None, "0.3"])
def test_a_doubt_out_of_range_is_refused(doubt: Any) -> None:
    with pytest.raises(ValueError, match=r"^doubt: .* is outside 0 <= doubt <= 1"):
        EstimateError(doubt)


@pytest.mark.parametrize("doubt", [0, 1])
def test_the_ends_of_the_range_are_in_it(doubt: float) -> None:
    assert EstimateError(doubt).factor(1) >= 1.0


# ---- numbers of any size -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1, 10**3, 10**12])
def test_the_unit_makes_no_difference(scale: int) -> None:
    rng = random.Random(4)
    history = drawn(rng, RATIOS["the use is within 50 % of the estimate"], SIZES["even"], 500)
    small = learnt(history)
    large = learnt((estimated * scale, used * scale) for estimated, used in history)
    for under_way in UNDER_WAY:
        assert large.factor(under_way) == pytest.approx(small.factor(under_way), rel=1e-9)


def test_single_tokens_and_millions_of_millions_side_by_side() -> None:
    """Whoever is huge says nearly all; when that has faded, the others are heard again, as exactly as ever."""
    error = EstimateError(DOUBT)
    for _ in range(100):
        error.observe(1, 1, 1.0)
        error.observe(10**12, 13 * 10**11, 1.0)
    assert error.factor(100) == pytest.approx(1.3, rel=0.02)
    for _ in range(20_000):
        error.observe(2, 2, 1.0)
    assert error.factor(100) == pytest.approx(1.0, abs=1e-6)


AMOUNTS = st.one_of(st.integers(-2, 50), st.integers(0, 10**12), st.integers(0, 10**18))


@settings(max_examples=200)
@given(
    doubt=st.floats(0.0, 1.0),
    history=st.lists(st.tuples(AMOUNTS, AMOUNTS, st.floats(0.0, 1e6)), max_size=30),
    repeated=st.integers(1, 40),
    numbers=st.lists(st.floats(0.0, 1e6), min_size=2, max_size=5),
)
def test_whatever_was_seen_more_together_need_no_more_each(
    doubt: float, history: list[tuple[int, int, float]], repeated: int, numbers: list[float]
) -> None:
    error = EstimateError(doubt)
    for _ in range(repeated):
        for estimated, used, seconds in history:
            error.observe(estimated, used, seconds)
    factors = [error.factor(number) for number in sorted(numbers)]
    assert factors == sorted(factors, reverse=True)
    assert factors[-1] >= 1.0 and factors[0] <= 20.0  # which is false of what is not a number
