"""`SlidingLedger`: literal times first, then a plain list of charges, added up over every interval, as the reference."""

from __future__ import annotations

import math
from copy import deepcopy
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sansio.sliding_ledger import Charge, SlidingLedger


def test_a_charge_counts_until_the_span_has_passed_and_not_longer() -> None:
    ledger = SlidingLedger(limit=10, window=60.0, guard=0.5)
    ledger.charge(7, 1000.0)
    assert ledger.earliest(3, 1000.0) == 1000.0
    assert ledger.earliest(4, 1000.0) == 1060.5
    assert ledger.level(math.nextafter(1060.5, 0.0)) == 7
    assert ledger.level(1060.5) == 0
    assert ledger.earliest(10, 1060.5) == 1060.5


def test_the_wait_is_for_as_many_of_the_oldest_as_are_needed() -> None:
    ledger = SlidingLedger(10, 60.0)
    for at, amount in ((0.0, 5), (10.0, 3), (20.0, 2)):
        ledger.charge(amount, at)
    waits = [ledger.earliest(amount, 30.0) for amount in (0, 1, 5, 6, 8, 9, 10)]
    assert waits == [30.0, 60.0, 60.0, 70.0, 70.0, 80.0, 80.0]


def test_more_than_the_limit_never_fits() -> None:
    ledger = SlidingLedger(10, 60.0)
    assert ledger.earliest(11, 0.0) == math.inf
    ledger.charge(10, 0.0)
    assert ledger.earliest(11, 0.0) == math.inf


def test_a_lower_limit_can_be_asked_about() -> None:
    ledger = SlidingLedger(10, 60.0)
    ledger.charge(4, 0.0)
    assert ledger.earliest(1, 0.0, limit=5) == 0.0
    assert ledger.earliest(2, 0.0, limit=5) == 60.0
    assert ledger.earliest(6, 0.0, limit=5) == math.inf


def test_settling_down_makes_room_at_once_and_settling_up_takes_it() -> None:
    ledger = SlidingLedger(10, 60.0)
    charge = ledger.charge(10, 0.0)
    assert ledger.edit(charge, 4, 1.0)
    assert (charge.amount, ledger.level(1.0), ledger.earliest(6, 1.0)) == (4, 4, 1.0)
    assert ledger.edit(charge, 9, 1.0)
    assert ledger.earliest(2, 1.0) == 60.0


def test_use_above_the_limit_is_recorded_and_delays_what_follows() -> None:
    ledger = SlidingLedger(10, 60.0)
    ledger.charge(5, 0.0)
    second = ledger.charge(5, 30.0)
    assert ledger.edit(second, 12, 31.0)
    assert ledger.level(31.0) == 17
    assert ledger.earliest(0, 31.0) == 90.0  # 12 are too many on their own


def test_an_edit_counts_from_the_charge_not_from_the_edit() -> None:
    ledger = SlidingLedger(10, 60.0)
    charge = ledger.charge(1, 0.0)
    ledger.edit(charge, 10, 59.0)
    assert ledger.earliest(1, 59.0) == 60.0


def test_a_charge_that_has_left_cannot_be_edited() -> None:
    ledger = SlidingLedger(10, 60.0)
    charge = ledger.charge(8, 0.0)
    ledger.charge(5, 60.0)
    assert not ledger.edit(charge, 2, 60.0)
    assert not ledger.edit(charge, 20, 60.0)
    assert not ledger.remove(charge, 60.0)
    assert (charge.amount, ledger.level(60.0)) == (8, 5)


def test_a_removed_charge_is_gone() -> None:
    ledger = SlidingLedger(10, 60.0)
    charge = ledger.charge(10, 0.0)
    assert ledger.remove(charge, 1.0)
    assert repr(charge) == "Charge(amount=0)"
    assert ledger.earliest(10, 1.0) == 1.0
    assert ledger.remove(charge, 2.0)
    assert ledger.level(2.0) == 0


def test_charges_close_together_leave_together_and_none_too_early() -> None:
    ledger = SlidingLedger(10, 1000.0)
    assert ledger.resolution == 1.0
    for at in (0.0, 0.25, 0.5, 1.0):
        ledger.charge(1, at)
    ledger.charge(1, 1.5)
    assert ledger.earliest(6, 2.0) == 1001.0
    assert ledger.level(1000.9) == 5
    assert ledger.level(1001.0) == 1
    assert ledger.level(1001.5) == 0


def test_memory_is_bounded_whatever_the_traffic() -> None:
    ledger = SlidingLedger(10**9, 10.0)
    for tick in range(40_000):
        ledger.charge(1, tick / 1000)
    assert len(ledger._buckets) <= 1002
    assert ledger.level(39.999) == pytest.approx(10_000, rel=0.002)


def test_memory_is_bounded_where_the_clock_is_coarser_than_a_bucket() -> None:
    ledger = SlidingLedger(10**9, 0.01)
    for _ in range(2000):
        ledger.charge(1, 2.0**40)
    assert len(ledger._buckets) == 1


def test_pulling_down_leaves_what_remains_until_the_reset() -> None:
    ledger = SlidingLedger(10, 60.0)
    ledger.charge(2, 0.0)
    ledger.pull_down(remaining=3, until=20.0, now=5.0)
    assert (ledger.level(5.0), ledger.earliest(3, 5.0), ledger.earliest(4, 5.0)) == (7, 5.0, 20.0)
    assert (ledger.level(20.0), ledger.earliest(8, 20.0)) == (2, 20.0)


def test_pulling_down_never_makes_room() -> None:
    ledger = SlidingLedger(10, 60.0)
    ledger.charge(8, 0.0)
    ledger.pull_down(remaining=9, until=20.0, now=0.0)
    assert ledger.level(0.0) == 8


def test_the_newest_word_on_what_remains_counts() -> None:
    ledger = SlidingLedger(10, 60.0)
    ledger.pull_down(0, 20.0, 0.0)
    ledger.pull_down(4, 30.0, 1.0)
    assert (ledger.earliest(4, 1.0), ledger.earliest(5, 1.0)) == (1.0, 30.0)
    ledger.pull_down(10, 40.0, 2.0)
    assert ledger.level(2.0) == 0


def test_a_reset_that_is_over_says_nothing() -> None:
    ledger = SlidingLedger(10, 60.0)
    ledger.pull_down(0, 5.0, 5.0)
    assert ledger.level(5.0) == 0


@pytest.mark.parametrize(("amount", "until"), [(1, 60.0), (3, 60.0), (4, 65.0), (7, 65.0), (8, 70.0), (10, 70.0)])
def test_what_was_pulled_down_leaves_among_the_charges(amount: int, until: float) -> None:
    ledger = SlidingLedger(10, 60.0)
    ledger.charge(3, 0.0)
    ledger.charge(3, 10.0)
    ledger.pull_down(0, 65.0, 11.0)
    assert ledger.earliest(amount, 11.0) == until


def test_what_was_pulled_down_may_leave_last() -> None:
    ledger = SlidingLedger(10, 60.0)
    ledger.charge(3, 0.0)
    ledger.pull_down(0, 300.0, 1.0)
    assert [ledger.earliest(amount, 1.0) for amount in (3, 4)] == [60.0, 300.0]


def test_a_clock_that_goes_backwards_grants_nothing_extra() -> None:
    ledger = SlidingLedger(10, 60.0)
    ledger.charge(10, 100.0)
    assert ledger.earliest(1, 50.0) == 160.0
    assert ledger.level(50.0) == 10
    ledger.level(130.0)
    charge = ledger.charge(1, 0.0)  # made at 130
    assert ledger.level(189.0) == 1
    assert ledger.edit(charge, 2, 0.0)
    assert ledger.level(190.0) == 0


# ---- another limit ----------------------------------------------------------------------------------------------------


def test_a_lower_limit_overdraws_the_ledger_by_what_was_charged_and_a_higher_one_makes_room_at_once() -> None:
    ledger = SlidingLedger(10, 60.0)
    ledger.charge(6, 0.0)
    ledger.charge(2, 10.0)
    ledger.allow(5)
    assert (ledger.limit, ledger.level(11.0)) == (5, 8)  # nothing that was charged is lost
    assert [ledger.earliest(amount, 11.0) for amount in (0, 1, 3, 4, 5, 6)] == [60.0, 60.0, 60.0, 70.0, 70.0, math.inf]
    ledger.allow(9)
    assert [ledger.earliest(amount, 11.0) for amount in (1, 2)] == [11.0, 60.0]
    ledger.allow(1_000)
    assert ledger.earliest(992, 11.0) == 11.0


def test_a_limit_of_nothing_lets_nothing_in_and_what_costs_nothing_once_it_is_empty() -> None:
    ledger = SlidingLedger(10, 60.0)
    ledger.allow(0)
    assert [ledger.earliest(amount, 0.0) for amount in (0, 1, 10)] == [0.0, math.inf, math.inf]
    charge = ledger.charge(3, 0.0)  # who charges does not ask
    assert [ledger.earliest(amount, 1.0) for amount in (0, 1)] == [60.0, math.inf]
    assert ledger.edit(charge, 1, 1.0)
    ledger.allow(2)
    assert [ledger.earliest(amount, 1.0) for amount in (1, 2, 3)] == [1.0, 60.0, math.inf]


def test_what_is_pulled_down_is_pulled_down_from_the_limit_of_the_moment() -> None:
    ledger = SlidingLedger(10, 60.0)
    ledger.allow(4)
    ledger.pull_down(remaining=3, until=20.0, now=0.0)
    assert (ledger.level(0.0), ledger.earliest(3, 0.0), ledger.earliest(4, 0.0)) == (1, 0.0, 20.0)
    ledger.allow(0)
    ledger.pull_down(remaining=3, until=20.0, now=0.0)
    assert ledger.level(0.0) == 0


@pytest.mark.parametrize("limit", [-1, 1.0, True, None, "1", math.nan, math.inf])
def test_another_limit_out_of_range_is_refused_and_changes_nothing(limit: Any) -> None:
    ledger = SlidingLedger(10, 60.0)
    with pytest.raises(ValueError, match=r"^limit: .* is not an integer of at least 0"):
        ledger.allow(limit)
    assert ledger.limit == 10


@pytest.mark.parametrize("limit", [0, -1, 1.0, True, None, "1", math.nan])
def test_a_limit_out_of_range_is_refused(limit: Any) -> None:
    with pytest.raises(ValueError, match=r"limit: .* at least 1"):
        SlidingLedger(limit, 60.0)


@pytest.mark.parametrize("window", [0, -1.0, math.inf, math.nan, True, None, "1"])
def test_a_window_out_of_range_is_refused(window: Any) -> None:
    with pytest.raises(ValueError, match=r"window: .* 0 < window"):
        SlidingLedger(1, window)


@pytest.mark.parametrize("guard", [-0.1, math.inf, math.nan, False, None, "1"])
def test_a_guard_out_of_range_is_refused(guard: Any) -> None:
    with pytest.raises(ValueError, match=r"guard: .* 0 <= guard"):
        SlidingLedger(1, 60.0, guard)


@pytest.mark.parametrize("amount", [-1, 1.0, True, None, math.nan])
def test_an_amount_that_is_no_count_is_refused_and_changes_nothing(amount: Any) -> None:
    ledger = SlidingLedger(10, 60.0)
    charge = ledger.charge(4, 0.0)
    with pytest.raises(ValueError, match=r"amount: .* at least 0"):
        ledger.charge(amount, 0.0)
    with pytest.raises(ValueError, match=r"amount: .* at least 0"):
        ledger.edit(charge, amount, 0.0)
    with pytest.raises(ValueError, match=r"remaining: .* at least 0"):
        ledger.pull_down(amount, 60.0, 0.0)
    assert ledger.level(0.0) == charge.amount == 4


@pytest.mark.parametrize("now", [math.nan, math.inf])
def test_an_instant_that_is_not_finite_is_refused_and_changes_nothing(now: float) -> None:
    ledger = SlidingLedger(10, 60.0)
    charge = ledger.charge(4, 0.0)
    for call in (
        lambda: ledger.level(now),
        lambda: ledger.earliest(1, now),
        lambda: ledger.charge(1, now),
        lambda: ledger.edit(charge, 1, now),
        lambda: ledger.pull_down(1, 60.0, now),
    ):
        with pytest.raises(ValueError, match=r"now: .* finite"):
            call()
    assert ledger.level(1.0) == 4


@settings(max_examples=200)
@example(at=77.7, window=60.0, guard=0.5)  # 77.7 + 60.5 rounds down
@given(
    at=st.floats(-1e12, 1e12),
    window=st.floats(1e-3, 1e5),
    guard=st.sampled_from([0.0, 0.5, 0.1]),
)
def test_a_lone_charge_leaves_at_the_first_float_that_is_a_span_later(at: float, window: float, guard: float) -> None:
    ledger = SlidingLedger(1, window, guard)
    ledger.charge(1, at)
    until = ledger.earliest(1, at)
    assert Fraction(until) - Fraction(at) >= Fraction(ledger.span)
    assert Fraction(math.nextafter(until, -math.inf)) - Fraction(at) < Fraction(ledger.span)
    assert until - at >= ledger.span and at + ledger.span <= until  # nor can a check in floats disagree


class ListOfCharges(RuleBasedStateMachine):
    """Charges are made only when they fit. Times are multiples of 1/64 s, so that the reference is exact in floats too."""

    @initialize(
        limit=st.integers(1, 30),
        window=st.sampled_from([1.0, 4.0, 60.0]),
        guard=st.sampled_from([0.0, 0.5]),
        epoch=st.sampled_from([0, -640, 1_700_000_000 * 64]),
    )
    def start(self, limit: int, window: float, guard: float, epoch: int) -> None:
        self.ledger = SlidingLedger(limit, window, guard)
        self.limit, self.span = limit, window + guard
        self.most = limit  # that it has been so far
        self.tick = self.latest = epoch
        self.charges: list[tuple[float, Charge]] = []
        self.overdrawn = False

    @property
    def now(self) -> float:
        """The clock."""
        return self.tick / 64

    @property
    def at(self) -> float:
        """The latest instant seen, which is what counts."""
        self.latest = max(self.latest, self.tick)
        return self.latest / 64

    def alive(self, at: float, held_longer: float = 0.0) -> int:
        """What the charges of the last span add up to at an instant."""
        return sum(charge.amount for made, charge in self.charges if made <= at < made + self.span + held_longer)

    @rule(ticks=st.one_of(st.integers(0, 4), st.integers(0, 64 * 30), st.integers(-200, 0)))
    def pass_time(self, ticks: int) -> None:
        self.tick += ticks

    @rule(amount=st.integers(0, 12))
    def charge_if_it_fits(self, amount: int) -> None:
        fits_at = self.ledger.earliest(amount, self.now)
        fits = self.alive(self.at) + amount <= self.limit
        surely = self.alive(self.at, self.ledger.resolution) + amount <= self.limit
        assert surely <= (fits_at == self.now) <= fits
        if fits_at == self.now:
            self.charges.append((self.at, self.ledger.charge(amount, self.now)))
        elif amount > self.limit:
            assert fits_at == math.inf
        else:
            self.check_wait(amount, fits_at)

    def check_wait(self, amount: int, fits_at: float) -> None:
        """A wait suffices, and ends when the reference's does, up to the resolution (and a rounding, always upwards)."""
        assert deepcopy(self.ledger).earliest(amount, fits_at) == fits_at
        early = math.nextafter(fits_at, -math.inf)
        assert early < self.at or deepcopy(self.ledger).earliest(amount, early) == fits_at
        leaving = sorted({made + self.span for made, _ in self.charges if made + self.span > self.at} | {self.at})
        exact = next(at for at in leaving if self.alive(at) + amount <= self.limit)
        assert exact <= fits_at <= exact + self.ledger.resolution + 2 * math.ulp(fits_at)

    @rule(limit=st.integers(0, 30))
    def allow(self, limit: int) -> None:
        self.limit = limit
        self.most = max(self.most, limit)
        self.ledger.allow(limit)

    @precondition(lambda self: bool(self.charges))
    @rule(data=st.data(), amount=st.integers(0, 12), may_overdraw=st.booleans())
    def edit(self, data: st.DataObject, amount: int, may_overdraw: bool) -> None:
        made, charge = data.draw(st.sampled_from(self.charges), label="charge")
        if amount > charge.amount:
            if not may_overdraw:
                return
            self.overdrawn = True
        edited = self.ledger.edit(charge, amount, self.now)
        in_window = self.at < made + self.span
        assert in_window <= edited <= (self.at < made + self.span + self.ledger.resolution)
        assert not edited or charge.amount == amount

    @invariant()
    def no_interval_holds_more_than_the_limit_was(self) -> None:
        if not hasattr(self, "ledger"):
            return
        assert self.alive(self.at) <= self.ledger.level(self.now) <= self.alive(self.at, self.ledger.resolution)
        if not self.overdrawn:
            # The fullest half-open intervals of the length of the span begin at a charge.
            for start, _ in self.charges:
                assert sum(c.amount for made, c in self.charges if start <= made < start + self.span) <= self.most


ListOfCharges.TestCase.settings = settings(max_examples=150, stateful_step_count=30)
TestListOfCharges = ListOfCharges.TestCase
