"""Budgets that roll (`sansio.budget`)."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sansio.budget import (
    Budget,
    BudgetAction,
    BudgetLedger,
    BudgetRefusal,
    BudgetReservation,
    OutputPercentile,
)

HOUR, DAY = 3_600.0, 86_400.0


def reserved(ledger: BudgetLedger, usd: float, now: float) -> BudgetReservation:
    reservation = ledger.reserve(usd, now)
    assert isinstance(reservation, BudgetReservation)
    return reservation


# ---- configuration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["max_spend_per_hour_usd", "max_spend_per_day_usd"])
@pytest.mark.parametrize("value", [0, -1.0, 1e-7, math.nan, math.inf, True, "5"])
def test_a_limit_out_of_range_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: "):
        Budget(**{name: value})


@pytest.mark.parametrize("action", ["reject", "warn", "throttle"])
def test_actions_may_be_written_out(action: str) -> None:
    assert Budget(1.0, on_exceeded=action).on_exceeded is BudgetAction(action)


@pytest.mark.parametrize("action", ["panic", None, 1])
def test_an_unknown_action_is_refused(action: object) -> None:
    with pytest.raises(ValueError, match=r"^on_exceeded: .* reject, warn, throttle$"):
        Budget(1.0, on_exceeded=action)


def test_the_default_is_to_reject() -> None:
    assert Budget(max_spend_per_hour_usd=1).on_exceeded is BudgetAction.REJECT


# ---- reject -----------------------------------------------------------------------------------------------------------


def test_what_fits_is_reserved_to_the_last_of_it() -> None:
    ledger = BudgetLedger(Budget(max_spend_per_hour_usd=0.3))
    reserved(ledger, 0.1, 0.0)
    reserved(ledger, 0.1, 10.0)
    assert not ledger.exceeded(20.0)
    reserved(ledger, 0.1, 20.0)
    assert ledger.exceeded(20.0)
    assert ledger.spent(20.0) == (0.3, None)
    assert ledger.reserve(0.05, 30.0) == BudgetRefusal(retry_at=HOUR)  # when the first leaves the window


def test_binary_fractions_of_a_dollar_lose_nothing() -> None:
    ledger = BudgetLedger(Budget(max_spend_per_hour_usd=2.01))  # 2.01 * 1e9 is a hair below a whole number
    for _ in range(3):
        reserved(ledger, 0.67, 0.0)
    assert ledger.spent(0.0) == (2.01, None)


def test_it_rolls_it_does_not_reset() -> None:
    ledger = BudgetLedger(Budget(max_spend_per_hour_usd=1.0))
    reserved(ledger, 0.5, 0.0)
    reserved(ledger, 0.5, 1_800.0)
    assert ledger.reserve(1.0, HOUR) == BudgetRefusal(retry_at=1_800.0 + HOUR)
    reserved(ledger, 0.5, HOUR)


def test_the_reported_instant_suffices_and_none_before_it_does() -> None:
    ledger = BudgetLedger(Budget(max_spend_per_hour_usd=1.0))
    reserved(ledger, 1.0, 7.0)
    refusal = ledger.reserve(0.01, 8.0)
    assert refusal == BudgetRefusal(retry_at=7.0 + HOUR)
    assert isinstance(ledger.reserve(0.01, math.nextafter(7.0 + HOUR, 0.0)), BudgetRefusal)
    reserved(ledger, 0.01, 7.0 + HOUR)


def test_what_is_larger_than_the_budget_never_fits() -> None:
    assert BudgetLedger(Budget(max_spend_per_hour_usd=1.0)).reserve(1.01, 0.0) == BudgetRefusal(retry_at=None)
    assert BudgetLedger(Budget(5.0, 1.0)).reserve(1.01, 0.0) == BudgetRefusal(retry_at=None)


def test_both_windows_must_cover_it_or_neither_is_charged() -> None:
    ledger = BudgetLedger(Budget(max_spend_per_hour_usd=1.0, max_spend_per_day_usd=1.5))
    reserved(ledger, 1.0, 0.0)
    reserved(ledger, 0.5, HOUR)
    assert ledger.spent(HOUR) == (0.5, 1.5)
    assert ledger.reserve(0.25, HOUR) == BudgetRefusal(retry_at=DAY)  # the hour would cover it
    assert ledger.spent(HOUR) == (0.5, 1.5)
    assert ledger.exceeded(HOUR)


def test_without_limits_nothing_is_refused() -> None:
    ledger = BudgetLedger(Budget())
    reserved(ledger, 1e12, 0.0)
    assert ledger.spent(0.0) == (None, None)
    assert not ledger.exceeded(0.0)


# ---- settling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("usd", "spent"), [(0.25, 0.25), (0.0, 0.0), (None, 0.5), (2.0, 2.0)])
def test_settling_replaces_the_reservation_and_unknown_keeps_it(usd: float | None, spent: float) -> None:
    ledger = BudgetLedger(Budget(1.0, 10.0))
    reservation = reserved(ledger, 0.5, 0.0)
    ledger.settle(reservation, usd, 5.0)
    assert ledger.spent(5.0) == (spent, spent)
    ledger.settle(reservation, 0.75, 6.0)  # only once
    ledger.cancel(reservation, 6.0)
    assert ledger.spent(6.0) == (spent, spent)


def test_what_turns_out_dearer_overdraws_the_window() -> None:
    ledger = BudgetLedger(Budget(max_spend_per_hour_usd=1.0))
    ledger.settle(reserved(ledger, 0.5, 0.0), 3.0, 1.0)
    assert ledger.exceeded(1.0)
    assert ledger.reserve(0.01, 1.0) == BudgetRefusal(retry_at=HOUR)


def test_what_has_left_the_window_stays_as_it_was() -> None:
    ledger = BudgetLedger(Budget(1.0, 10.0))
    reservation = reserved(ledger, 0.5, 0.0)
    reserved(ledger, 0.25, HOUR)
    ledger.settle(reservation, 0.75, HOUR)
    assert ledger.spent(HOUR) == (0.25, 1.0)  # no longer in the hour, still in the day


def test_cancelling_gives_the_money_back() -> None:
    ledger = BudgetLedger(Budget(1.0, 1.0))
    reservation = reserved(ledger, 1.0, 0.0)
    assert "open" in repr(reservation)
    ledger.cancel(reservation, 1.0)
    assert "closed" in repr(reservation)
    assert ledger.spent(1.0) == (0.0, 0.0)
    reserved(ledger, 1.0, 1.0)
    ledger.cancel(reservation, 2.0)
    assert ledger.spent(2.0) == (1.0, 1.0)


@pytest.mark.parametrize("usd", [-0.01, math.nan, math.inf, True, "1"])
def test_an_amount_that_is_none_is_misuse_and_changes_nothing(usd: object) -> None:
    ledger = BudgetLedger(Budget(max_spend_per_hour_usd=1.0))
    reservation = reserved(ledger, 0.5, 0.0)
    with pytest.raises(ValueError, match=r"^usd: "):
        ledger.reserve(usd, 0.0)
    with pytest.raises(ValueError, match=r"^usd: "):
        ledger.settle(reservation, usd, 0.0)
    assert ledger.spent(0.0) == (0.5, None)
    ledger.settle(reservation, 0.25, 0.0)
    assert ledger.spent(0.0) == (0.25, None)


def test_an_absurd_amount_is_counted_as_a_large_one() -> None:
    ledger = BudgetLedger(Budget(1e300, 1.0, BudgetAction.WARN))
    reserved(ledger, 1e300, 0.0)
    assert ledger.spent(0.0) == (1e15, 1e15)


def test_a_clock_that_goes_backwards_gives_nothing_back() -> None:
    ledger = BudgetLedger(Budget(max_spend_per_hour_usd=1.0))
    reserved(ledger, 1.0, 100.0)
    assert ledger.reserve(0.5, 0.0) == BudgetRefusal(retry_at=100.0 + HOUR)
    assert ledger.exceeded(-5.0)


# ---- warn and throttle ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "warns", "throttles"),
    [(BudgetAction.REJECT, False, False), (BudgetAction.WARN, True, False), (BudgetAction.THROTTLE, True, True)],
)
def test_what_a_spent_budget_does(action: BudgetAction, warns: bool, throttles: bool) -> None:
    ledger = BudgetLedger(Budget(max_spend_per_hour_usd=1.0, on_exceeded=action))
    reserved(ledger, 0.9, 0.0)
    assert (ledger.exceeded(0.0), ledger.warns(0.0), ledger.throttles(0.0)) == (False, False, False)
    reserved(ledger, 0.1, 0.0)
    assert (ledger.exceeded(0.0), ledger.warns(0.0), ledger.throttles(0.0)) == (True, warns, throttles)
    assert isinstance(ledger.reserve(5.0, 1.0), BudgetRefusal) is (action is BudgetAction.REJECT)
    assert (ledger.exceeded(2 * HOUR), ledger.warns(2 * HOUR), ledger.throttles(2 * HOUR)) == (False, False, False)


# ---- saying so --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["warn", "throttle"])
def test_it_is_said_once_that_a_budget_is_exceeded(action: str) -> None:
    ledger = BudgetLedger(Budget(max_spend_per_hour_usd=1.0, on_exceeded=action))
    assert not ledger.announces(0.0)
    reserved(ledger, 1.0, 0.0)
    assert [ledger.announces(0.0), ledger.announces(0.0), ledger.announces(10.0)] == [True, False, False]
    reserved(ledger, 1.0, 10.0)
    assert not ledger.announces(10.0)
    assert not ledger.announces(HOUR)  # the second dollar has not left


def test_it_is_said_again_once_there_was_something_left_in_between() -> None:
    def spent_and_said() -> tuple[BudgetLedger, BudgetReservation]:
        ledger = BudgetLedger(Budget(max_spend_per_hour_usd=1.0, on_exceeded="warn"))
        reservation = reserved(ledger, 1.0, 0.0)
        assert ledger.announces(0.0)
        return ledger, reservation

    by_time, _ = spent_and_said()
    reserved(by_time, 1.0, HOUR)
    assert by_time.announces(HOUR)

    by_settling, reservation = spent_and_said()
    by_settling.settle(reservation, 0.5, 1.0)
    reserved(by_settling, 0.5, 1.0)
    assert by_settling.announces(1.0)

    by_a_dear_answer, _ = spent_and_said()
    last = reserved(by_a_dear_answer, 0.1, HOUR - 1.0)
    by_a_dear_answer.settle(last, 2.0, HOUR)  # the first dollar has just left
    assert by_a_dear_answer.announces(HOUR)

    by_another, first = spent_and_said()
    by_another.settle(reserved(by_another, 1.0, 1.0), None, 1.0)
    by_another.cancel(first, 2.0)
    assert not by_another.announces(2.0)  # it was exceeded all the time


def test_when_there_is_something_left_again() -> None:
    ledger = BudgetLedger(Budget(1.0, 1.5, on_exceeded="throttle"))
    reserved(ledger, 0.9, 5.0)
    assert ledger.recovers_at(6.0) == 6.0
    reserved(ledger, 0.6, 1_000.0)
    assert ledger.recovers_at(1_001.0) == 5.0 + DAY
    assert ledger.recovers_at(5.0 + DAY) == 5.0 + DAY
    assert BudgetLedger(Budget()).recovers_at(8.0) == 8.0


def test_one_that_rejects_says_nothing() -> None:
    ledger = BudgetLedger(Budget(max_spend_per_hour_usd=1.0))
    reserved(ledger, 1.0, 0.0)
    assert not ledger.announces(0.0)


# ---- against a naive model --------------------------------------------------------------------------------------------


class BudgetMachine(RuleBasedStateMachine):
    """Against a list of (instant, amount), summed anew each time. Steps are long, so that no two charges share a bucket."""

    LIMITS = ((3.0, HOUR), (7.0, DAY))

    def __init__(self) -> None:
        super().__init__()
        self.ledger = BudgetLedger(Budget(*(limit for limit, _ in self.LIMITS)))
        self.now = 1_000.0
        self.charges: list[list[float]] = []  # [instant, in the hour, in the day]
        self.open: list[tuple[BudgetReservation, int]] = []

    def level(self, window: int, at: float | None = None) -> float:
        span = self.LIMITS[window][1]
        return sum(charge[1 + window] for charge in self.charges if (at or self.now) < charge[0] + span)

    def first_fit(self, usd: float) -> float | None:
        """The first instant at which all windows have room, if nothing else happens."""
        leaving = sorted(charge[0] + span for charge in self.charges for _, span in self.LIMITS)
        for at in [self.now, *(instant for instant in leaving if instant > self.now)]:
            if all(self.level(window, at) + usd <= limit for window, (limit, _) in enumerate(self.LIMITS)):
                return at
        return None

    @rule(usd=st.sampled_from([0.0, 0.5, 1.0, 2.5, 3.5]), seconds=st.sampled_from([100.0, 1_800.0, 40_000.0]))
    def reserve(self, usd: float, seconds: float) -> None:
        self.now += seconds
        answer = self.ledger.reserve(usd, self.now)
        if isinstance(answer, BudgetRefusal):
            assert answer.retry_at == self.first_fit(usd) != self.now
        else:
            assert self.first_fit(usd) == self.now
            self.open.append((answer, len(self.charges)))
            self.charges.append([self.now, usd, usd])

    @rule(which=st.integers(0, 50), usd=st.none() | st.sampled_from([0.0, 0.25, 1.0, 4.0]), cancel=st.booleans())
    def end(self, which: int, usd: float | None, cancel: bool) -> None:
        if not self.open:
            return
        reservation, number = self.open.pop(which % len(self.open))
        if cancel:
            self.ledger.cancel(reservation, self.now)
            usd = 0.0
        else:
            self.ledger.settle(reservation, usd, self.now)
        for window, (_, span) in enumerate(self.LIMITS):
            if usd is not None and self.now < self.charges[number][0] + span:
                self.charges[number][1 + window] = usd

    @rule(back=st.floats(0, 1e6))
    def the_clock_goes_backwards(self, back: float) -> None:
        assert self.ledger.spent(self.now - back) == pytest.approx((self.level(0), self.level(1)))

    @invariant()
    def spent_matches(self) -> None:
        assert self.ledger.spent(self.now) == pytest.approx((self.level(0), self.level(1)))
        assert self.ledger.exceeded(self.now) is any(
            self.level(window) >= limit for window, (limit, _) in enumerate(self.LIMITS)
        )


TestBudgetMachine = BudgetMachine.TestCase
TestBudgetMachine.settings = settings(max_examples=60, stateful_step_count=30)


# ---- requests without an output limit ---------------------------------------------------------------------------------


def test_before_any_answer_the_default_is_reserved() -> None:
    assert OutputPercentile().value() == 1024
    assert OutputPercentile(default=50).value() == 50


def test_a_few_answers_may_raise_it_but_not_lower_it() -> None:
    percentile = OutputPercentile(default=100, warm_up=3)
    percentile.add(10)
    assert percentile.value() == 100
    percentile.add(500)
    assert percentile.value() == 500
    percentile.add(20)
    assert percentile.value() == 500
    fresh = OutputPercentile(default=100, warm_up=3)
    for tokens in (1, 2, 3):
        fresh.add(tokens)
    assert fresh.value() == 3


@pytest.mark.parametrize(
    ("answers", "percentile"),
    [(range(1, 101), 95), (range(100, 0, -1), 95), (range(1, 21), 19), (range(1, 20), 19), ([7], 7), ([0] * 19 + [9], 0)],
)
def test_nearest_rank(answers: list[int], percentile: int) -> None:
    running = OutputPercentile(default=1, warm_up=1)
    for tokens in answers:
        running.add(tokens)
    assert running.value() == percentile


def test_old_answers_are_forgotten() -> None:
    percentile = OutputPercentile(size=20)
    for tokens in [1_000] * 20 + [10] * 20:
        percentile.add(tokens)
    assert percentile.value() == 10


@given(st.lists(st.integers(0, 30), max_size=80), st.integers(1, 20))
@settings(max_examples=150)
def test_it_is_that_of_the_last_answers(answers: list[int], size: int) -> None:
    running = OutputPercentile(default=1, size=size, warm_up=1)
    for tokens in answers:
        running.add(tokens)
    last = sorted(answers[-size:])
    if last:
        covers = [value for value in last if sum(other <= value for other in last) >= 0.95 * len(last)]
        assert running.value() == min(covers)


@pytest.mark.parametrize("name", ["default", "size", "warm_up"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, None])
def test_a_percentile_out_of_range_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: "):
        OutputPercentile(**{name: value})


@pytest.mark.parametrize("tokens", [-1, 1.0, True, None])
def test_an_output_that_is_no_count_is_misuse(tokens: object) -> None:
    percentile = OutputPercentile()
    with pytest.raises(ValueError, match=r"^output_tokens: "):
        percentile.add(tokens)
    assert percentile.value() == 1024
