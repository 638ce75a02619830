"""`StrictLedger`: each rule with literal times, then plain lists as the reference, whoever asks whatever when."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sansio.cluster.store import Correction, Quota, Take, Taken
from sansio.cluster.strict_ledger import (
    JUMP,
    MOST,
    MOST_FORGOTTEN,
    MOST_HEADS,
    MOST_SEQUENCE,
    PLACE,
    RETOLD,
    SILENCE,
    StrictLedger,
    terms_of,
)

NOW = 1_800_000_000.0
"""A beginning of a slot, however wide (up to 2 ms)."""

TOKENS = Quota("tokens_per_minute", 100, 1.0)
RUNS = Quota("concurrent_requests", 3, 0.0)
SLOT = 2048e-6
"""Seconds: the width of a slot of a second."""


class Member:
    """Asks one ledger, numbering its questions and remembering what it was told."""

    def __init__(self, ledger: StrictLedger, name: str = "one", *quotas: Quota) -> None:
        self.ledger = ledger
        self.name = name
        self.quotas = quotas or (TOKENS,)
        self.number = self.answered = self.known = 0

    def question(self, *asks: int | tuple[int, ...], **more: Any) -> Take:
        self.number += 1
        rows = tuple((ask,) if isinstance(ask, int) else ask for ask in asks)
        told = {"answered": self.answered, "known": self.known}
        return Take("key", self.name, self.quotas, rows, number=self.number, **told | more)

    def ask(self, at: float, *asks: int | tuple[int, ...], **more: Any) -> Taken:
        taken = self.ledger.take(self.question(*asks, **more), at)
        self.answered, self.known = self.number, taken.sequence
        return taken


@pytest.fixture
def one() -> Member:
    return Member(StrictLedger())


def another(member: Member, name: str = "two") -> Member:
    return Member(member.ledger, name, *member.quotas)


# ---- charges ----------------------------------------------------------------------------------------------------------


def test_what_fits_is_granted_and_told(one: Member) -> None:
    assert one.ask(NOW, 60) == Taken(1, int(NOW * 1e6), None, 1, (60,), NOW)
    assert one.ask(NOW + 0.5, 41) == Taken(0, 1_800_000_000_499_712, 0.5 + SLOT, 2, (60,), NOW + 0.5)
    assert one.ask(NOW + 0.5, 40).granted == 1


def test_a_charge_counts_until_its_slot_has_passed_by_the_span_and_not_longer(one: Member) -> None:
    late_in_the_slot = NOW + SLOT - 1e-6
    one.ask(NOW, 1)
    one.ask(late_in_the_slot, 2)
    assert one.ask(NOW + SLOT + 1 - 1e-6).levels == (3,)
    assert one.ask(NOW + SLOT + 1).levels == (0,)


@pytest.mark.parametrize("span", [1e-6, 0.0005, 0.01, 1.0, 2.5, 60.5, 3600.0, 86_400.0])
def test_a_slot_is_at_most_a_few_hundredths_of_the_span_and_a_power_of_two(span: float) -> None:
    (dimension,) = terms_of([Quota("x", 1, span)]).dimensions
    assert dimension.span == round(span * 1e6) and dimension.width.bit_count() == 1
    assert dimension.span / 512 <= dimension.width <= max(1, dimension.span / 256)


def test_a_span_is_rounded_up_to_a_microsecond() -> None:
    assert [each.span for each in terms_of([Quota("x", 1, 1e-9), Quota("y", 1, 0.1 + 0.2)]).dimensions] == [1, 300_001]


def test_several_permits_are_taken_at_once_as_many_as_fit_in_order(one: Member) -> None:
    taken = one.ask(NOW, 50, 40, 20, 10)
    assert (taken.granted, taken.levels, taken.wait) == (2, (90,), None)


def test_the_dimensions_are_granted_together_or_not_at_all() -> None:
    both = Member(StrictLedger(), "one", TOKENS, Quota("requests_per_minute", 2, 1.0))
    assert both.ask(NOW, (1, 1), (100, 1)).granted == 1
    assert both.ask(NOW, (1, 2)).granted == 0
    assert both.ask(NOW, (99, 1)).levels == (100, 2)


def test_dimensions_with_spans_of_their_own_let_go_in_their_own_time() -> None:
    paced = Member(StrictLedger(), "one", Quota("requests_per_minute", 10, 60.0), Quota("burst", 1, 6.0))
    first = paced.ask(NOW, (1, 1))
    width = terms_of(paced.quotas).grain
    assert width == 16384 and first.slot % width == 0
    wait = paced.ask(NOW, (1, 1)).wait
    assert wait is not None and 6.0 < wait <= 6.0 + width / 1e6
    assert paced.ask(NOW + wait, (1, 1)).levels == (2, 1)


def test_the_slot_that_is_told_lies_in_the_slot_of_every_dimension() -> None:
    paced = Member(StrictLedger(), "one", Quota("requests_per_minute", 10, 60.0), Quota("burst", 1, 6.0))
    for step in range(50):
        at = NOW + step * 7.77
        taken = paced.ask(at, (1, 1))
        gone = paced.ask(at, corrections=(Correction(taken.slot, (-1, -1), paced.number + 1),))
        assert (taken.granted, gone.levels) == (1, (0, 0))


@pytest.mark.parametrize(("limit", "cost"), [(0, 1), (5, 6), (-3, 1)])
def test_what_is_above_the_limit_does_not_fit_by_time_alone(limit: int, cost: int) -> None:
    lowered = Member(StrictLedger(), "one", Quota("tokens_per_minute", limit, 1.0))
    assert (lowered.ask(NOW, cost).granted, lowered.ask(NOW, cost).wait) == (0, None)


def test_limits_may_differ_from_question_to_question(one: Member) -> None:
    one.ask(NOW, 60)
    lower = Member(one.ledger, "two", Quota("tokens_per_minute", 50, 1.0))
    assert lower.ask(NOW, 1).wait == 1.0 + SLOT
    lower.ask(NOW)
    assert one.ask(NOW, 40).granted == 1


def test_without_quotas_everything_is_granted() -> None:
    free = Take("key", "one", (), ((), ()))
    assert StrictLedger().take(free, NOW) == Taken(2, int(NOW * 1e6), None, 1, (), NOW)


def test_amounts_that_no_double_could_hold_are_taken_for_the_most() -> None:
    vast = Member(StrictLedger(), "one", Quota("tokens_per_minute", 10**30, 1e300))
    assert vast.ask(NOW, MOST).granted == 1
    up = Correction(int(NOW * 1e6), (10**30,), 2)
    assert vast.ask(NOW, corrections=(up,)).levels == (MOST,)
    assert vast.ask(NOW, 1).granted == 0


# ---- corrections ------------------------------------------------------------------------------------------------------


def test_a_correction_edits_the_charge_as_if_it_had_been_so_from_the_beginning(one: Member) -> None:
    slot = one.ask(NOW, 60).slot
    assert one.ask(NOW + 0.9, corrections=(Correction(slot, (30,), 2),)).levels == (90,)
    assert one.ask(NOW + 0.9, corrections=(Correction(slot, (-50,), 3),)).levels == (40,)
    assert one.ask(NOW + 1 + SLOT).levels == (0,)


def test_corrections_are_made_before_what_is_asked(one: Member) -> None:
    slot = one.ask(NOW, 60).slot
    assert one.ask(NOW, 60, corrections=(Correction(slot, (-20,), 2),)).levels == (100,)


def test_a_slot_never_holds_less_than_nothing(one: Member) -> None:
    slot = one.ask(NOW, 10).slot
    one.ask(NOW + 0.5, 20)
    assert one.ask(NOW + 0.5, corrections=(Correction(slot, (-99,), 3),)).levels == (20,)
    assert one.ask(NOW + 0.5, corrections=(Correction(slot, (7,), 4),)).levels == (27,)


@pytest.mark.parametrize("earlier", [0.0, 0.3])
def test_a_slot_that_has_left_or_was_never_charged_is_not_edited(one: Member, earlier: float) -> None:
    slot = one.ask(NOW, 60).slot - int(earlier * 1e6)
    at = NOW + (0.9 if earlier else 1.1)
    assert one.ask(at, corrections=(Correction(slot, (5,), 2),)).levels == (60 if earlier else 0,)


def test_a_correction_is_made_once_though_its_question_comes_again_under_another_number(one: Member) -> None:
    slot = one.ask(NOW, 60).slot
    lost = Correction(slot, (-20,), 2)
    one.ledger.take(one.question(corrections=(lost,)), NOW)
    assert one.ask(NOW, corrections=(lost, Correction(slot, (-5,), 3))).levels == (35,)


def test_a_correction_whose_question_never_came_is_made_with_the_next(one: Member) -> None:
    slot = one.ask(NOW, 60).slot
    lost = Correction(slot, (-20,), 2)
    one.question(corrections=(lost,))
    assert one.ask(NOW, corrections=(lost,)).levels == (40,)


# ---- questions that come twice, or late -------------------------------------------------------------------------------


def test_a_question_that_comes_twice_or_too_late_changes_nothing() -> None:
    one = Member(StrictLedger(), "one", TOKENS, RUNS)
    first, second = one.question((10, 1), running=3), one.question((20, 1), running=1)
    assert one.ledger.take(second, NOW).levels == (20, 2)
    for late in (first, second):
        assert one.ledger.take(late, NOW) == Taken(0, int(NOW * 1e6), None, 1, (20, 2), NOW)


def test_an_answer_that_was_lost_costs_capacity_and_no_more(one: Member) -> None:
    one.ledger.take(one.question(60), NOW)
    assert one.ask(NOW, 60).granted == 0
    assert one.ask(NOW + 1 + SLOT, 60).levels == (60,)


# ---- what runs --------------------------------------------------------------------------------------------------------


def test_what_runs_is_summed_over_the_members() -> None:
    one = Member(StrictLedger(), "one", RUNS)
    two = another(one)
    assert one.ask(NOW, 1, 1).levels == (2,)
    assert two.ask(NOW, 1, 1) == Taken(1, int(NOW * 1e6), None, 2, (3,), NOW)
    assert two.ask(NOW, 1, running=1).wait is None
    assert one.ask(NOW, running=0).levels == (1,)
    assert two.ask(NOW, 1, 1, running=1).levels == (3,)


def test_a_member_that_goes_runs_nothing_and_waits_for_nothing() -> None:
    one = Member(StrictLedger(), "one", RUNS)
    two = another(one)
    one.ask(NOW, 1, 1, 1)
    two.ask(NOW, 1)
    assert two.ask(NOW, 1, running=2, leaves=True) == Taken(0, int(NOW * 1e6), None, 3, (3,), NOW)
    assert one.ask(NOW, 1, running=2).granted == 1
    assert another(one, "three").ask(NOW, 0, leaves=True).granted == 0


def test_a_silent_member_is_forgotten_with_what_it_runs() -> None:
    one = Member(StrictLedger(), "one", RUNS, TOKENS)
    two = another(one)
    one.ask(NOW, (1, 0), (1, 0))
    silent_until = NOW + 1 + SLOT + SILENCE / 1e6
    assert two.ask(silent_until - 1e-6).levels == (2, 0)
    assert two.ask(silent_until).levels == (0, 0)
    one.answered = 0
    assert one.ask(silent_until, running=1).levels == (1, 0)


def test_many_who_died_together_are_forgotten_by_several_questions() -> None:
    last = Member(StrictLedger(), "last", Quota("concurrent_requests", 1000, 0.0))
    for index in range(MOST_FORGOTTEN + 5):
        another(last, f"member {index}").ask(NOW, 1)
    later = NOW + 100
    assert [last.ask(later).levels for _ in range(2)] == [(5,), (0,)]


# ---- the line of heads ------------------------------------------------------------------------------------------------


def test_a_large_head_is_not_starved_by_small_ones_of_others(one: Member) -> None:
    small = another(one)
    small.ask(NOW, 50)
    small.ask(NOW + 0.5, 50)
    assert one.ask(NOW + 0.9, 60).granted == 0
    at = NOW + 1 + SLOT  # fifty have left
    assert small.ask(at, 1).granted == 0
    assert one.ask(at, 60).granted == 0
    at = NOW + 1.5 + SLOT
    assert small.ask(at, 41, 1).granted == 0
    assert small.ask(at, 30, 10, 1).granted == 2
    assert one.ask(at, 60).granted == 1


def test_others_take_what_the_line_leaves_over(one: Member) -> None:
    two, three = another(one), another(one, "three")
    one.ask(NOW, 70)
    assert two.ask(NOW, 31).granted == 0
    assert three.ask(NOW, 30).granted == 0
    lower = one.ask(NOW, corrections=(Correction(int(NOW * 1e6), (-40,), 2),))
    assert lower.levels == (30,)
    assert three.ask(NOW, 30, 9, 1).granted == 2  # the head beside 31, then what else is left
    assert two.ask(NOW, 31).granted == 1


def test_what_is_fetched_ahead_stands_behind_everybody(one: Member) -> None:
    two = another(one)
    slot = one.ask(NOW, 100).slot
    one.ask(NOW, 20)
    two.ask(NOW, 50)
    room = Correction(slot, (-80,), 3)
    assert one.ask(NOW, 20, 11, corrections=(room,)).granted == 1  # the head is before the other's fifty, the eleven behind
    assert one.ask(NOW, 10, 20).granted == 1
    assert two.ask(NOW, 50).granted == 1


def test_a_head_that_is_served_gives_up_its_place(one: Member) -> None:
    two = another(one)
    one.ask(NOW, 100)
    two.ask(NOW, 50)
    slot = int(NOW * 1e6)
    assert two.ask(NOW, 50, corrections=(Correction(slot, (-60,), 2),)).granted == 1
    assert one.ask(NOW, 10).granted == 1


def test_a_member_that_asks_for_nothing_more_gives_up_its_place(one: Member) -> None:
    two = another(one)
    one.ask(NOW, 50)
    two.ask(NOW, 60)
    assert one.ask(NOW, 1).granted == 0
    two.ask(NOW)
    assert one.ask(NOW, 1).granted == 1


def test_a_place_that_is_not_renewed_expires_and_one_that_is_stays_where_it_was(one: Member) -> None:
    one.ask(NOW, 60)
    two, three = another(one), another(one, "three")
    two.ask(NOW, 60)
    three.ask(NOW + 0.25, 60)
    two.ask(NOW + 0.5, 60)  # renewed: still before three
    assert three.ask(NOW + 0.999, 40).granted == 0
    assert three.ask(NOW + 1.5, 60).granted == 1  # two has not come again


def test_the_line_is_bounded(one: Member) -> None:
    one.ask(NOW, 100)
    many = [another(one, f"member {index}") for index in range(MOST_HEADS + 1)]
    for each in many:
        each.ask(NOW, 1)
    assert len(one.ledger._line) == MOST_HEADS
    at = NOW + 0.5
    many[0].ask(at)
    many[-1].ask(at, 1)
    assert one.ledger._line[-1].member == many[-1].name


@pytest.mark.parametrize(
    ("before", "cost", "until"),
    [
        ((), 21, 1.0 + SLOT),
        ((30, 15), 10, 1.0 + SLOT),  # room for all three when the eighty leave
        ((90,), 10, 1.0 + SLOT),
        ((90,), 11, 1.5),  # the ninety do not come again
        ((90, 15), 10, 1.5),  # and the fifteen, which still stand then, leave room
        ((90, 95), 10, 1.6),
        ((30, 101), 10, 1.6),
    ],
)
def test_the_wait_is_until_there_is_room_beside_the_places_that_still_stand(
    one: Member, before: tuple[int, ...], cost: int, until: float
) -> None:
    one.ask(NOW, 80)
    for index, each in enumerate(before):
        another(one, f"before {index}").ask(NOW + 0.5 + index / 10, each)
    last = another(one, "last")
    assert last.ask(NOW + 0.7, cost).wait == pytest.approx(until - 0.7, abs=1e-9)
    assert last.ask(NOW + until - 1e-6, cost).granted == 0
    assert last.ask(NOW + until, cost).granted == 1


# ---- losses -----------------------------------------------------------------------------------------------------------


def lost(member: Member, before: StrictLedger) -> Member:
    """The same member after a replica took over that knows only what was so ``before``."""
    member.ledger = before
    return member


def test_after_a_loss_that_somebody_notices_nothing_is_granted_until_all_that_was_charged_has_left(one: Member) -> None:
    before = deepcopy(one.ledger)
    one.ask(NOW, 100)
    noticed = lost(one, before).ask(NOW + 0.5, 10)
    assert (noticed.granted, noticed.wait, noticed.sequence) == (0, 1.0, 1 + JUMP + 1)
    two = another(one)
    assert two.ask(NOW + 1.5 - 1e-6, 1).wait == 1e-6
    assert two.ask(NOW + 1.5, 1).granted == 1


def test_a_loss_is_noticed_though_others_have_asked_since_and_the_sequence_is_higher_again(one: Member) -> None:
    one.ask(NOW)
    before = deepcopy(one.ledger)
    one.ask(NOW, 100)
    lost(one, before)
    two = another(one)
    for _ in range(10):
        assert two.ask(NOW, 1).granted == 1
    assert one.ask(NOW, 1).granted == 0


@pytest.mark.parametrize("others", [0, 10])
@pytest.mark.parametrize("doubled", [1, 2])
def test_a_loss_is_noticed_though_a_question_comes_again_after_it(others: int, doubled: int, one: Member) -> None:
    before = deepcopy(one.ledger)
    two = another(one)
    two.ask(NOW, 50)
    questions = [one.question(20, answered=0, known=0) for _ in range(2)]
    one.answered, one.known = 2, [one.ledger.take(question, NOW).sequence for question in questions][-1]
    lost(one, before)
    lost(two, before).answered = 0
    for _ in range(others):
        two.ask(NOW)
    assert before.take(questions[doubled - 1], NOW).granted == 1
    assert one.ask(NOW, 1).granted == 0


def test_an_answer_that_was_lost_is_no_loss_of_the_stores(one: Member) -> None:
    one.ask(NOW, 1)
    one.ledger.take(one.question(1), NOW)
    assert one.ask(NOW, 1).granted == 1


def test_the_same_loss_noticed_by_another_is_not_heard_again_and_a_new_one_is(one: Member) -> None:
    before = deepcopy(one.ledger)
    two = another(one)
    one.ask(NOW, 10)
    two.ask(NOW, 10)
    lost(one, before).ask(NOW)
    lost(two, before)
    assert two.ask(NOW + 0.9, 1).wait == pytest.approx(0.1)
    assert two.ask(NOW + 1.0, 1).granted == 1
    again = deepcopy(two.ledger)
    one.ask(NOW + 1.1, 1)
    assert lost(one, again).ask(NOW + 1.2, 1).wait == 1.0


@pytest.mark.parametrize(("answered", "known"), [(0, 5), (1, MOST_SEQUENCE + 1), (9, -1)])
def test_what_no_ledger_ever_told_is_no_loss(one: Member, answered: int, known: int) -> None:
    assert one.ask(NOW, 1, answered=answered, known=known).granted == 1


def test_where_what_runs_is_counted_every_member_has_to_tell_it_again_after_a_loss() -> None:
    one = Member(StrictLedger(), "one", RUNS)
    before = deepcopy(one.ledger)
    one.ask(NOW, 1, 1, 1)
    lost(one, before)
    assert one.ask(NOW, 1).wait == RETOLD / 1e6


def test_while_nothing_is_granted_a_head_keeps_its_place(one: Member) -> None:
    one.ask(NOW, answered=1, known=77)
    two = another(one)
    two.ask(NOW + 0.5, 100)
    assert one.ask(NOW + 1.2, 1).granted == 0
    assert two.ask(NOW + 1.2, 100).granted == 1


# ---- clocks -----------------------------------------------------------------------------------------------------------


def test_a_clock_that_goes_backwards_stands_still(one: Member) -> None:
    one.ask(NOW, 60)
    taken = one.ask(NOW - 30, 60)
    assert (taken.granted, taken.wait, taken.unix_now) == (0, 1.0 + SLOT, NOW)
    assert one.ask(NOW - 30, 40).slot == int(NOW * 1e6)


# ---- any questions ----------------------------------------------------------------------------------------------------


@given(data=st.data(), large=st.integers(1, 100))
def test_whatever_others_ask_a_head_is_served_when_it_was_told(data: st.DataObject, large: int) -> None:
    ledger = StrictLedger()
    filler, head = Member(ledger, "filler"), Member(ledger, "head")
    others = [Member(ledger, f"other {index}") for index in range(3)]
    for step in range(10):
        filler.ask(NOW + step / 10, 10)
    now = NOW + 0.95
    wait = head.ask(now, large).wait
    assert wait is not None
    until = now + wait
    while now < until:
        for _ in range(data.draw(st.integers(0, 4))):
            data.draw(st.sampled_from(others)).ask(now, *data.draw(st.lists(st.integers(0, 100), max_size=3)))
        now = min(until, now + data.draw(st.sampled_from([0.001, 0.1, 0.4])))
        taken = head.ask(now, large)
        assert taken.granted or taken.wait == pytest.approx(until - now, abs=2e-6)
    assert taken.granted


@dataclass
class Charged:
    """A charge: what it stands at for any interval it lies in (``net``), and in its slot, which may stay a little longer."""

    at: int
    slot: int
    net: list[int]
    held: list[int]


class ListsOfCharges(RuleBasedStateMachine):
    """Several members ask at random, beside plain lists of what was charged, of who waits, and of what runs."""

    @initialize(
        quotas=st.sampled_from(
            [
                (Quota("tokens_per_minute", 12, 1.0),),
                (Quota("requests_per_minute", 4, 2.5), Quota("tokens_per_minute", 20, 2.5)),
                (Quota("tokens_per_minute", 15, 2.0), Quota("burst", 6, 0.5), Quota("concurrent_requests", 8, 0.0)),
            ]
        )
    )
    def start(self, quotas: tuple[Quota, ...]) -> None:
        self.ledger = StrictLedger()
        self.quotas = quotas
        self.terms = terms_of(quotas)
        self.at = int(NOW * 1e6)
        self.numbers = dict.fromkeys("abc", 0)
        self.told = dict.fromkeys("abc", (0, 0))
        self.running = dict.fromkeys("abc", 0)
        self.heard_at = dict.fromkeys("abc", 0)
        self.charges: list[Charged] = []
        self.line: dict[str, tuple[int, tuple[int, ...]]] = {}  # by when each has to ask again, and for what it waits
        self.overdrawn = False

    @rule(step=st.one_of(st.integers(0, 3), st.integers(0, 10_000), st.integers(0, 400_000), st.integers(0, 9_000_000)))
    def pass_time(self, step: int) -> None:
        self.at += step
        for name in self.numbers:
            if self.heard_at[name] + self.terms.memory <= self.at:
                self.running[name], self.told[name] = 0, (0, 0)

    def level(self, index: int) -> int:
        """What counts in a dimension: what runs, or every charge until the end of its slot has passed by the span."""
        each = self.terms.dimensions[index]
        if not each.span:
            return sum(self.running.values())
        return sum(
            charge.held[index]
            for charge in self.charges
            if self.at < (charge.at // each.width + 1) * each.width + each.span
        )  # fmt: skip

    def fits(self, ask: tuple[int, ...], beside: list[str]) -> bool:
        return all(
            self.level(index) + amount + sum(self.line[name][1][index] for name in beside) <= quota.limit
            for index, (quota, amount) in enumerate(zip(self.quotas, ask, strict=True))
        )

    @rule(name=st.sampled_from("abc"), data=st.data(), asks=st.integers(0, 3), ended=st.integers(0, 2), heard=st.booleans())
    def ask(self, name: str, data: st.DataObject, asks: int, ended: int, heard: bool) -> None:
        amounts = st.tuples(*(st.integers(0, max(1, quota.limit * 2 // 3)) for quota in self.quotas))
        wanted = tuple(data.draw(amounts, label="ask") for _ in range(asks))
        self.numbers[name] += 1
        self.running[name] = max(0, self.running[name] - ended)
        request = Take(
            "key", name, self.quotas, wanted, self.running[name], (), self.numbers[name], *self.told[name]
        )  # fmt: skip
        taken = self.ledger.take(request, self.at / 1e6)
        self.heard_at[name] = self.at
        if heard:
            self.told[name] = (self.numbers[name], taken.sequence)
        self.line = {each: place for each, place in self.line.items() if place[0] > self.at}
        others = [each for each in self.line if each != name]
        ahead = list(self.line)[: list(self.line).index(name)] if name in self.line else others
        for index, ask in enumerate(wanted[: taken.granted + 1]):
            assert self.fits(ask, others if index else ahead) == (index < taken.granted)
            if index < taken.granted:
                self.charges.append(Charged(self.at, taken.slot, list(ask), list(ask)))
                self.running[name] += 0 if self.quotas[-1].span else ask[-1]
        if wanted and not taken.granted:
            self.line[name] = (self.at + PLACE, wanted[0])
            self.check_wait(request, taken.wait)
        else:
            assert taken.wait is None
            self.line.pop(name, None)
        assert taken.levels == tuple(self.level(index) for index in range(len(self.quotas)))

    def check_wait(self, request: Take, wait: float | None) -> None:
        """It suffices, and a microsecond less would not have done."""
        again = replace(request, number=request.number + 1)
        if wait is None:
            assert sum(self.running.values()) + request.asks[0][-1] > self.quotas[-1].limit and not self.quotas[-1].span
            return
        due = self.at + round(wait * 1e6)
        assert due > self.at
        assert deepcopy(self.ledger).take(again, (due - 1) / 1e6).granted == 0
        assert deepcopy(self.ledger).take(again, due / 1e6).granted > 0

    @precondition(lambda self: bool(self.charges))
    @rule(name=st.sampled_from("abc"), data=st.data(), change=st.integers(-8, 8), often=st.integers(1, 2))
    def correct(self, name: str, data: st.DataObject, change: int, often: int) -> None:
        charge = data.draw(st.sampled_from(self.charges), label="charge")
        changes = tuple(max(-amount, change) for amount in charge.held)
        self.numbers[name] += 1
        corrections = (Correction(charge.slot, changes, self.numbers[name]),)
        running = self.running[name]
        request = Take("key", name, self.quotas, (), running, corrections, self.numbers[name], *self.told[name])
        for _ in range(often):
            taken = self.ledger.take(request, self.at / 1e6)
        self.told[name], self.heard_at[name] = (self.numbers[name], taken.sequence), self.at
        self.line.pop(name, None)
        for index, each in enumerate(self.terms.dimensions):
            if each.span:
                charge.held[index] += changes[index]
            if self.at < charge.at + each.span:
                charge.net[index] = charge.held[index]
                self.overdrawn |= changes[index] > 0

    @invariant()
    def no_interval_is_charged_more_than_a_limit(self) -> None:
        if not hasattr(self, "ledger") or self.overdrawn:
            return
        for index, (quota, each) in enumerate(zip(self.quotas, self.terms.dimensions, strict=True)):
            for start in (charge.at for charge in self.charges if each.span):
                inside = [charge.net[index] for charge in self.charges if start <= charge.at < start + each.span]
                assert sum(inside) <= quota.limit


ListsOfCharges.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestListsOfCharges = ListsOfCharges.TestCase
