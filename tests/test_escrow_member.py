"""`EscrowMember`: what one does, step by step; then many of them with real ledgers and clocks that drift, over a network
that loses, doubles, delays and reorders; and what they make of a limit when nobody is in their way."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sansio.cluster.escrow import EscrowMember
from sansio.cluster.member import Holding
from sansio.cluster.rights_bank import DRIFT, RightsBank, Terms, Visit
from sansio.cluster.store import Published, Quota, StoreLost, StoreReply, StoreRequest, Swap, Swapped
from sansio.sliding_ledger import Charge, SlidingLedger


class Store:
    """A document behind compare-and-set, forgotten as it says by a clock that may jump. No version comes twice."""

    def __init__(self) -> None:
        self.now = 0.0
        self.version = 0
        self.document = b""
        self.expires_at = math.inf
        self.count = 0

    def ask(self, question: StoreRequest) -> Swapped:
        assert isinstance(question, Swap)
        if self.now >= self.expires_at:
            self.forget()
        done = question.document is not None and question.version == self.version
        if done and question.document is not None:
            self.count += 1
            self.version, self.document = self.count, question.document
            self.expires_at = self.now + question.ttl
        return Swapped(done, self.version, self.document, self.now)

    def forget(self) -> None:
        self.version, self.document, self.expires_at = 0, b"", math.inf


# ---- one step after the other ----------------------------------------------------------------------------------------

HUNDRED = (Quota("requests_per_minute", 100, 60.0),)
IDLE = Holding(0, 0, 0)


def a_member(name: str = "a", quotas: Sequence[Quota] = HUNDRED, interval: float = 1.0, lease: float = 5.0) -> EscrowMember:
    return EscrowMember(quotas, key="k", member=name, interval=interval, lease=lease)


def talk(
    member: EscrowMember, store: Store, now: float, holding: Holding = IDLE, rounds: int = 20
) -> list[tuple[Swap, Swapped]]:
    """Exchange with a store that answers at once, as often as the member wants to."""
    told: list[tuple[Swap, Swapped]] = []
    again = True
    while again and len(told) < rounds:
        question = member.exchange([holding], now, 0.0)
        assert isinstance(question, Swap)
        reply = store.ask(question)
        told.append((question, reply))
        again = member.exchanged(reply, [holding], now, 0.0)
    return told


def bank_of(store: Store, quotas: Sequence[Quota] = HUNDRED, lease: float = 5.0) -> RightsBank:
    bank = RightsBank.decode(store.document, Terms.of(quotas, lease))
    assert bank is not None
    return bank


def two_members() -> tuple[Store, EscrowMember, EscrowMember]:
    """``a`` uses all it can get and holds everything; ``b`` has not come yet."""
    store, a, b = Store(), a_member("a"), a_member("b")
    talk(a, store, 0.0, Holding(0, 0, 0))
    held = a.allowances(0.0)[0]
    assert held == 50
    now = 0.0
    while held < 100:
        now += 0.25
        talk(a, store, now, Holding(held, 1, held))
        held = a.allowances(now)[0]
    talk(a, store, now + 0.25, Holding(100, 0, 100))
    return store, a, b


@pytest.mark.parametrize(
    ("field_", "change"),
    [
        ("quotas", {"quotas": ()}),
        ("member", {"member": ""}),
        ("member", {"member": "a" * 101}),
        ("member", {"member": "a\nb"}),
        ("member", {"member": "\ud800"}),
        ("interval", {"interval": 0.0}),
        ("interval", {"interval": math.inf}),
        ("lease", {"lease": -1.0}),
        ("lease", {"lease": math.nan}),
        ("runs_on", {"runs_on": -1.0}),
        ("runs_on", {"runs_on": math.inf}),
    ],
)
def test_what_cannot_be_meant_is_refused(field_: str, change: dict[str, object]) -> None:
    given: dict[str, Any] = {"quotas": HUNDRED, "member": "a", "interval": 1.0, "lease": 5.0, **change}
    with pytest.raises(ValueError, match=f"^{field_}: "):
        EscrowMember(key="k", **given)


def test_the_first_of_all_looks_founds_and_starts_at_once() -> None:
    store, member = Store(), a_member()
    assert (member.allowances(0.0), member.valid_until(), member.quotas) == ([0], math.inf, HUNDRED)
    (look, nothing), (founding, founded) = talk(member, store, 10.0)
    assert (look, nothing.version) == (Swap("k", 0, None, look.ttl), 0)
    assert founding.document is not None and founded.done
    assert member.allowances(10.0) == [50]  # as much again for whoever comes next
    assert member.valid_until() == 15.0
    assert look.ttl == founding.ttl > 2 * Terms.of(HUNDRED, 5.0).reissue


def test_what_is_waited_for_is_had_soon() -> None:
    store, _, _ = two_members()
    assert bank_of(store).accounts["a"].held == [100]


def test_the_lease_runs_from_the_question_and_after_it_nothing_is_granted() -> None:
    store, member = Store(), a_member()
    talk(member, store, 0.0)
    question = member.exchange([IDLE], 3.0, 0.0)
    assert isinstance(question, Swap) and question.document is not None  # half the lease is over
    member.exchanged(store.ask(question), [IDLE], 4.5, 0.0)
    assert member.valid_until() == 8.0
    assert member.allowances(math.nextafter(8.0, 0.0)) == [50]
    assert member.allowances(8.0) == [0]
    assert member.allowances(7.0) == [0]  # a clock that goes backwards stands still
    talk(member, store, 9.0)
    assert member.allowances(9.0) == [50]  # they were kept for it


def test_while_there_is_nothing_to_do_it_only_looks() -> None:
    store, member = Store(), a_member()
    talk(member, store, 0.0)
    assert [question.document for question, _ in talk(member, store, 2.0)] == [None]
    assert store.version == 1


def test_an_even_share_comes_to_whoever_joins() -> None:
    store, a, b = Store(), a_member("a"), a_member("b")
    talk(a, store, 0.0)
    talk(b, store, 1.0)
    assert (a.allowances(1.0), b.allowances(1.0)) == ([50], [33])
    talk(a, store, 3.0)
    assert (a.allowances(3.0), bank_of(store).free) == ([34], [33])


def test_one_who_holds_too_much_stops_spending_it_and_hands_over_what_cools() -> None:
    store, a, b = two_members()
    talk(b, store, 10.0, Holding(0, 10, 0))
    assert b.allowances(10.0) == [0]
    talk(a, store, 10.5, Holding(100, 1, 100))
    assert a.allowances(10.5) == [90]  # nothing has cooled, and what does is not spent again
    talk(b, store, 10.75, Holding(0, 10, 0))
    assert b.allowances(10.75) == [0]
    question = a.exchange([Holding(93, 1, 100)], 11.5, 0.0)
    assert a.allowances(11.5) == [90]
    a.exchanged(store.ask(question), [Holding(93, 1, 100)], 11.5, 0.0)
    assert (a.allowances(11.5), bank_of(store).free) == ([90], [7])
    talk(b, store, 11.75, Holding(0, 10, 0))
    assert b.allowances(11.75) == [7]
    talk(a, store, 12.5, Holding(88, 1, 100))
    talk(b, store, 12.75, Holding(7, 10, 0))
    assert b.allowances(12.75) == [10]
    assert sum(account.held[0] for account in bank_of(store).accounts.values()) == 100


def test_what_a_question_gives_is_not_spent_from_then_on() -> None:
    store, a, b = two_members()
    for now in (8.0, 12.0, 16.0):
        talk(a, store, now, Holding(40, 0, 100))
    talk(b, store, 16.5)
    talk(a, store, 17.0, Holding(40, 0, 100))  # what nobody waits for is not given before there is another reason to visit
    holding = [Holding(40, 0, 100)]
    assert a.allowances(18.5) == [71]
    question = a.exchange(holding, 18.5, 0.0)
    assert a.allowances(18.5) == [60]  # nobody knows whether it will ever arrive
    a.exchanged(StoreLost(), holding, 19.5, 0.0)
    assert a.allowances(19.5) == [60]
    assert a.exchange([Holding(30, 0, 100)], 20.0, 0.0) is question  # word for word, until it is known
    a.exchanged(StoreLost(), holding, 20.5, 0.0)
    talk(b, store, 20.6)  # it did not come: somebody else has changed the document since
    assert a.exchange(holding, 20.7, 0.0) is question
    reply = store.ask(question)
    assert not reply.done
    assert a.exchanged(reply, holding, 20.7, 0.0)
    assert a.allowances(20.7) == [71]  # and now it knows
    talk(a, store, 20.7, holding[0])
    assert a.allowances(20.7) == [60]


def test_a_question_that_was_heard_but_not_answered_is_found_in_the_document() -> None:
    store, member = Store(), a_member()
    member.exchange([IDLE], 0.0, 0.0)
    member.exchanged(store.ask(Swap("k", 0, None, 1.0)), [IDLE], 0.0, 0.0)
    founding = member.exchange([IDLE], 0.5, 0.0)
    assert store.ask(founding).done
    member.exchanged(StoreLost(), [IDLE], 1.5, 0.0)
    assert member.allowances(1.5) == [0]
    other = a_member("b")
    talk(other, store, 2.0)
    again = member.exchange([IDLE], 3.0, 0.0)
    assert again is founding and not store.ask(again).done
    member.exchanged(store.ask(again), [IDLE], 3.0, 0.0)
    assert member.allowances(3.0) == [50]
    assert member.valid_until() == 5.5  # since it was asked first


def test_an_answer_that_says_nothing_of_the_question_leaves_it_open() -> None:
    store, member = Store(), a_member()
    talk(member, store, 0.0)
    question = member.exchange([IDLE], 3.0, 0.0)
    stale = Swapped(True, store.version, store.document, 0.0)
    assert not member.exchanged(stale, [IDLE], 3.0, 0.0)
    assert member.exchange([IDLE], 3.5, 0.0) is question
    assert not member.exchanged(Published({}, 0.0), [IDLE], 3.5, 0.0)  # not an answer to it at all
    assert member.exchange([IDLE], 4.0, 0.0) is question
    assert member.valid_until() == 5.0


def test_whether_the_store_answers_shows_where_there_is_no_lease() -> None:
    store, member = Store(), a_member()
    member.exchange([IDLE], 0.0, 0.0)
    member.exchanged(StoreLost(), [IDLE], 1.0, 0.0)
    assert member.valid_until() == -math.inf
    member.exchange([IDLE], 2.0, 0.0)
    member.exchanged(store.ask(Swap("k", 0, None, 1.0)), [IDLE], 2.0, 0.0)
    assert member.valid_until() == math.inf


def test_a_lease_that_is_over_stays_over_while_the_store_does_not_answer() -> None:
    store, member = Store(), a_member()
    talk(member, store, 0.0)
    for now in (3.0, 5.0, 9.0):
        member.exchange([IDLE], now, 0.0)
        member.exchanged(StoreLost(), [IDLE], now, 0.0)
        assert member.valid_until() == 5.0


def test_a_member_that_was_silent_for_too_long_has_lost_its_rights_and_joins_again() -> None:
    store, a, b = two_members()
    last = bank_of(store).accounts["a"]
    reissue = Terms.of(HUNDRED, 5.0).reissue
    seen_at = 10.0
    talk(b, store, seen_at, Holding(0, 10, 0))
    for tick in range(1, 14):
        talk(b, store, seen_at + tick * 4.9, Holding(0, 10, 0))
        assert bank_of(store).accounts["a"].held == last.held
    talk(b, store, seen_at + reissue - 0.001, Holding(0, 10, 0))
    assert b.allowances(seen_at + reissue) == [0]
    talk(b, store, seen_at + reissue, Holding(0, 10, 0))
    assert b.allowances(seen_at + reissue)[0] >= 10
    assert "a" not in bank_of(store).accounts
    assert a.allowances(10.0) == [0]
    talk(a, store, 100.0, Holding(0, 5, 100), rounds=1)
    assert (a.allowances(100.0), a.valid_until()) == ([0], math.inf)
    talk(a, store, 100.0, Holding(0, 5, 100))
    assert a.allowances(100.0)[0] >= 5


def test_the_slowest_clock_has_stopped_and_cooled_before_the_fastest_reissues() -> None:
    """Real instants; the holder's clock loses, the observer's gains, as much as they may."""
    slow, fast = 1 - DRIFT / 2.04, 1 + DRIFT / 2.04
    terms = Terms.of(HUNDRED, 5.0)
    stops = terms.lease / slow
    cooled = stops + terms.span / slow
    assert cooled < terms.reissue / fast  # it was seen at the very instant of its question
    assert terms.span / slow < terms.cooling / fast
    assert terms.reissue < 1.03 * cooled + 0.2  # nor much later


LOST: dict[str, Callable[[Store], None]] = {
    "nothing": Store.forget,
    "garbage": lambda store: put(store, b"\xff{"),
    "rights that do not add up": lambda store: put(store, store.document.replace(b'"free":[50]', b'"free":[51]')),
    "other terms": lambda store: put(store, RightsBank.found(Terms.of(HUNDRED, 6.0), "x", 0.0).encode()),
    "one founded in ignorance": lambda store: put(store, RightsBank.found(Terms.of(HUNDRED, 5.0), "x", 0.0).encode()),
}


def put(store: Store, document: bytes) -> None:
    store.count += 1
    store.version, store.document = store.count, document


@pytest.mark.parametrize("lost", LOST)
def test_where_the_document_is_not_what_it_was_all_rights_are_void(lost: str) -> None:
    store, a, b = Store(), a_member("a"), a_member("b")
    talk(a, store, 0.0)
    LOST[lost](store)
    wait = max(Terms.of(HUNDRED, 5.0).reissue, Terms.of(HUNDRED, 6.0).reissue if lost == "other terms" else 0.0)
    talk(a, store, 1.0, rounds=1)
    assert (a.allowances(1.0), a.valid_until()) == ([0], math.inf)
    talk(a, store, 1.0)
    bank = bank_of(store)
    assert bank.heir and bank.free == [0] and bank.lots[0].amounts == [100] and bank.lots[0].wait == wait
    founded = store.version
    for tick in range(int(wait / 4)):
        now = 1.0 + 4 * tick
        for member in (a, b):
            talk(member, store, now, Holding(0, 3, 0))
            assert member.allowances(now) == [0]
    assert bank_of(store).born == bank.born and store.version > founded
    for member in (a, b):
        talk(member, store, 1.0 + wait, Holding(0, 3, 0))
        assert member.allowances(1.0 + wait)[0] >= 3


def test_a_newcomer_that_finds_garbage_waits_too() -> None:
    store, member = Store(), a_member()
    put(store, b"garbage")
    talk(member, store, 0.0)
    assert member.allowances(0.0) == [0]
    assert bank_of(store).heir


def test_two_that_found_at_once_agree() -> None:
    store, a, b = Store(), a_member("a"), a_member("b")
    for member in (a, b):
        talk(member, store, 0.0, rounds=2 if member is a else 3)
    store.forget()
    questions = {}
    for member in (a, b):
        talk(member, store, 1.0, rounds=1)
        questions[member] = member.exchange([IDLE], 1.0, 0.0)
    for member in (b, a):
        again = member.exchanged(store.ask(questions[member]), [IDLE], 1.0, 0.0)
        assert again is (member is a)
    born = bank_of(store).born
    talk(a, store, 1.0)
    assert bank_of(store).born == born and set(bank_of(store).accounts) == {"a", "b"}


def test_an_older_document_of_the_same_era_voids_everything() -> None:
    store, a, b = two_members()
    version, document = store.version, store.document
    talk(b, store, 10.0)
    talk(a, store, 10.5, Holding(40, 0, 100))
    born = bank_of(store).born
    assert store.version > version
    store.version, store.document = version, document  # a fail-over to who had not heard of the last writes
    talk(a, store, 11.5, Holding(40, 0, 100))
    assert a.allowances(11.5) == [0]
    assert bank_of(store).born != born and bank_of(store).heir


def test_an_account_that_is_older_than_we_know_voids_everything() -> None:
    store, a, b = two_members()
    document = store.document
    talk(b, store, 10.0)
    talk(a, store, 10.5, Holding(40, 0, 100))
    born = bank_of(store).born
    store.count += 5
    put(store, document)  # others have gone on from there already: the version is a later one
    talk(a, store, 11.5, Holding(40, 0, 100))
    assert a.allowances(11.5) == [0]
    assert bank_of(store).born != born and bank_of(store).heir


def test_an_older_account_with_the_same_rights_voids_everything_too() -> None:
    store, a, _ = two_members()
    document = store.document
    talk(a, store, 10.0, Holding(100, 0, 100))
    assert bank_of(store).accounts["a"].held == [100]
    store.count += 5
    put(store, document)
    talk(a, store, 11.5, Holding(100, 0, 100))
    assert a.allowances(11.5) == [0]


def test_an_older_document_without_an_account_of_ours_voids_everything_too() -> None:
    store, a = Store(), a_member("a")
    talk(a_member("b"), store, 0.0)
    version, document = store.version, store.document
    talk(a, store, 1.0)
    talk(a, store, 100.0)  # it was idle, and holds nothing any more
    assert "a" not in bank_of(store).accounts
    store.version, store.document = version, document
    talk(a, store, 300.0)
    assert bank_of(store).heir


def test_the_longest_of_several_doubts_counts() -> None:
    store, a = Store(), a_member("a")
    talk(a, store, 0.0)
    longer = Terms.of(HUNDRED, 50.0)
    put(store, RightsBank.found(longer, "x", 0.0).encode())
    talk(a, store, 1.0, rounds=1)
    put(store, b"garbage")
    talk(a, store, 2.0)
    talk(a, store, 3.0)
    assert bank_of(store).lots[0].wait == longer.reissue


def test_who_is_always_too_late_to_found_a_document_does_not_insist() -> None:
    store, a = Store(), a_member("a")
    talk(a, store, 0.0)
    again, rounds = True, 0
    while again and rounds < 20:
        question = a.exchange([IDLE], 1.0, 0.0)
        put(store, RightsBank.found(Terms.of(HUNDRED, 6.0), "x", 0.0).encode())
        again = a.exchanged(store.ask(question), [IDLE], 1.0, 0.0)
        rounds += 1
    assert rounds == 2


def test_an_account_of_ours_with_other_rights_voids_everything() -> None:
    store, a, _ = two_members()
    bank = bank_of(store)
    bank.accounts["a"].held, bank.free = [60], [40]
    put(store, bank.encode())
    talk(a, store, 10.5, Holding(40, 0, 100))
    assert a.allowances(10.5) == [0]


def test_who_doubts_an_era_does_not_take_it_up_again() -> None:
    store, a, b = Store(), a_member("a"), a_member("b")
    talk(a, store, 0.0)
    store.forget()
    talk(a, store, 1.0)  # an era that began in doubt
    version, document, born = store.version, store.document, bank_of(store).born
    talk(b, store, 1.5)
    talk(a, store, 2.0)
    store.version, store.document = version, document
    talk(a, store, 2.5, rounds=1)
    put(store, document)  # somebody who knows nothing of that has gone on
    talk(a, store, 3.0)
    talk(a, store, 3.5)
    assert bank_of(store).born != born
    assert bank_of(store).heir


def test_who_disagrees_about_the_terms_gets_nothing_and_asks_no_more_than_others() -> None:
    store, a, b = Store(), a_member("a"), a_member("b", lease=6.0)
    for tick in range(200):
        for member in (a, b):
            assert len(talk(member, store, 1.0 * tick)) <= 2
            assert tick == 0 or member.allowances(1.0 * tick) == [0]


def test_whoever_leaves_gives_back_what_is_cool_and_hands_over_what_is_not() -> None:
    store, a, b = two_members()
    farewell = a.leave([Holding(30, 0, 100)], 20.0, 0.0)
    assert isinstance(farewell, Swap)
    assert a.allowances(20.0) == [0]
    assert store.ask(farewell).done
    bank = bank_of(store)
    assert (bank.free, [lot.amounts for lot in bank.lots], bank.accounts) == ([70], [[30]], {})
    assert not a.exchanged(Swapped(True, store.version, store.document, 0.0), [IDLE], 20.0, 0.0)
    assert a.leave([IDLE], 20.0, 0.0) is None
    assert a.exchange([IDLE], 21.0, 0.0) == Swap("k", store.version, None, farewell.ttl)
    cooling = Terms.of(HUNDRED, 5.0).cooling
    need = Holding(0, 100, 0)
    talk(b, store, 21.0, need)
    assert b.allowances(21.0) == [70]
    talk(b, store, 21.0 + cooling - 0.001, need)
    assert b.allowances(21.0 + cooling - 0.001) == [70]
    talk(b, store, 21.0 + cooling, need)
    assert b.allowances(21.0 + cooling) == [100]


def test_a_farewell_for_which_somebody_was_quicker_is_said_again() -> None:
    store, a, b = two_members()
    talk(b, store, 9.0)
    farewell = a.leave([IDLE], 10.0, 0.0)
    assert farewell is not None and a.leave([IDLE], 10.0, 0.0) is farewell
    assert a.exchanged(store.ask(farewell), [IDLE], 10.0, 0.0)
    assert a.allowances(10.0) == [0]
    again = a.leave([IDLE], 10.0, 0.0)
    assert again is not None and again is not farewell
    assert not a.exchanged(StoreLost(), [IDLE], 11.0, 0.0)
    assert a.leave([IDLE], 11.0, 0.0) is again
    assert not a.exchanged(store.ask(again), [IDLE], 11.0, 0.0)
    assert "a" not in bank_of(store).accounts
    assert (a.leave([IDLE], 11.0, 0.0), a.allowances(11.0), a.valid_until()) == (None, [0], math.inf)


def test_a_farewell_after_a_question_without_an_answer_overtakes_it_or_hears_of_it() -> None:
    store, a, _ = two_members()
    question = a.exchange([Holding(30, 0, 100)], 10.0, 0.0)
    a.exchanged(StoreLost(), [Holding(30, 0, 100)], 11.0, 0.0)
    farewell = a.leave([Holding(30, 0, 100)], 11.0, 0.0)
    assert farewell is not None and farewell is not question
    assert store.ask(question).done  # it was late
    assert a.exchanged(store.ask(farewell), [Holding(30, 0, 100)], 11.0, 0.0)
    farewell = a.leave([Holding(30, 0, 100)], 11.0, 0.0)
    assert farewell is not None and store.ask(farewell).done
    assert bank_of(store).accounts == {}


def test_who_leaves_while_it_may_still_join_forestalls_that() -> None:
    store, a, b = Store(), a_member("a"), a_member("b")
    talk(a, store, 0.0)
    b.exchange([IDLE], 1.0, 0.0)
    b.exchanged(store.ask(Swap("k", 0, None, 1.0)), [IDLE], 1.0, 0.0)
    joins = b.exchange([IDLE], 1.0, 0.0)
    b.exchanged(StoreLost(), [IDLE], 2.0, 0.0)
    farewell = b.leave([IDLE], 2.0, 0.0)
    assert farewell is not None
    assert store.ask(farewell).done and not store.ask(joins).done
    assert list(bank_of(store).accounts) == ["a"]


def test_who_holds_nothing_has_nothing_to_say_at_its_end() -> None:
    store, a, b = Store(), a_member("a"), a_member("b")
    assert a.leave([IDLE], 0.0, 0.0) is None
    talk(b, store, 0.0)
    store.forget()
    talk(b, store, 1.0, rounds=1)
    farewell = b.leave([IDLE], 1.0, 0.0)
    assert farewell is None


def test_a_farewell_that_finds_no_document_was_the_last() -> None:
    store, a, _ = two_members()
    farewell = a.leave([IDLE], 10.0, 0.0)
    store.forget()
    assert farewell is not None
    assert not a.exchanged(store.ask(farewell), [IDLE], 10.0, 0.0)
    assert a.leave([IDLE], 10.0, 0.0) is None


def test_an_idle_member_gives_everything_back_and_asks_hardly_ever() -> None:
    store, member = Store(), a_member()
    now = 0.0
    talk(member, store, now, Holding(1, 0, 1))
    asked = 0
    while bank_of(store).accounts:
        now += member.interval(hungry=False)
        question = member.exchange([Holding(0, 0, 1)], now, 0.0)
        given = member.allowances(now)
        member.exchanged(store.ask(question), [Holding(0, 0, 1)], now, 0.0)
        talk(member, store, now, Holding(0, 0, 1))
        asked += 1
    assert given == [0]
    assert 60.0 <= now < 65.0 and asked < 60
    assert (member.allowances(now), member.valid_until()) == ([0], math.inf)
    pause = member.interval(hungry=False)
    ttl = Terms.of(HUNDRED, 5.0).ttl
    assert pause == ttl / 4
    version = store.version
    for _ in range(10):  # it sees to it that the document is not forgotten
        now += pause
        store.now = now
        assert len(talk(member, store, now, Holding(0, 0, 1))) == 1
    assert store.version == version + 10
    assert member.interval(hungry=True) < 1.0
    talk(member, store, now + 1.0, Holding(0, 3, 1))
    assert member.allowances(now + 1.0)[0] >= 3


@pytest.mark.parametrize(
    "busy", [lambda tick: Holding(1, 0, 1), lambda tick: Holding(0, 1, 1), lambda tick: Holding(0, 0, tick)]
)
def test_who_runs_wants_or_grants_anything_is_not_idle(busy: Callable[[int], Holding]) -> None:
    quotas = (Quota("concurrent_requests", 100, 0.0),)
    store, member = Store(), a_member(quotas=quotas)
    for tick in range(100):
        talk(member, store, 2.0 * tick, busy(tick))
    assert member.allowances(200.0)[0] > 0


def test_an_idle_member_that_finds_everything_forgotten_begins_the_wait() -> None:
    store, member = Store(), a_member()
    talk(member, store, 0.0, Holding(1, 0, 1))
    talk(member, store, 1.0, Holding(0, 0, 1))
    talk(member, store, 100.0, Holding(0, 0, 1))
    assert bank_of(store).accounts == {}
    store.forget()
    talk(member, store, 300.0, Holding(0, 0, 1))
    assert bank_of(store).heir and bank_of(store).accounts == {}
    assert not talk(member, store, 300.0, Holding(0, 0, 1))[-1][1].done


@pytest.mark.parametrize(
    ("interval", "lease", "busy", "idle"),
    [(1.0, 5.0, 1.0, 5 / 3), (1.0, 2.0, 0.5, 2 / 3), (0.05, 1.0, 0.05, 1 / 3)],
)
def test_how_often_it_asks(interval: float, lease: float, busy: float, idle: float) -> None:
    store, member = Store(), a_member(interval=interval, lease=lease)
    assert 0.8 * busy / 4 <= member.interval(hungry=True) <= busy / 4
    talk(member, store, 0.0)
    assert member.interval(hungry=False) == idle
    assert 0.8 * busy <= member.interval(hungry=True) <= busy  # there is nothing more to get
    talk(member, store, 0.1, Holding(7, 0, 7))
    assert 0.8 * busy <= member.interval(hungry=False) <= busy
    paces = {a_member(f"member {n}").interval(hungry=True) for n in range(20)}
    assert len(paces) == 20  # nobody is in step with anybody


def test_questions_in_a_row_are_bounded() -> None:
    store, a = Store(), a_member("a")
    talk(a, store, 0.0)
    again, rounds = True, 0
    while again and rounds < 20:
        question = a.exchange([Holding(50, 9, 50)], 1.0, 0.0)
        put(store, store.document)  # somebody is always quicker
        again = a.exchanged(store.ask(question), [Holding(50, 9, 50)], 1.0, 0.0)
        rounds += 1
    assert rounds == 7


def test_there_is_room_for_so_many_only() -> None:
    store, a = Store(), a_member("a")
    bank = RightsBank.found(Terms.of(HUNDRED, 5.0), "x", 0.0)
    for number in range(256):
        bank.visit(f"member {number}", Visit(1, [0], [0], [0], False))
    put(store, bank.encode())
    assert [question.document for question, _ in talk(a, store, 0.0)] == [None]
    assert a.allowances(0.0) == [0]
    reissue = Terms.of(HUNDRED, 5.0).reissue
    talk(a, store, reissue, Holding(0, 3, 0))
    assert list(bank_of(store).accounts) == ["a"]


def test_more_is_asked_for_only_when_what_was_asked_for_is_spent() -> None:
    store, a, b = two_members()

    def demand(now: float, level: int, need: int, granted: int) -> int:
        talk(b, store, now, Holding(level, need, granted))
        return bank_of(store).accounts["b"].demand[0]

    assert demand(10.0, 0, 2, 0) == 2
    assert demand(10.5, 0, 2, 0) == 2  # it is no use to want more while nothing comes
    assert demand(11.0, 2, 2, 2) == 2 + 8
    assert demand(11.5, 4, 2, 4) == 4 + 8
    assert demand(12.0, 10, 2, 10) == 10 + 32
    assert demand(12.5, 42, 2, 42) == 100  # never more than there is
    talk(a, store, 13.0, Holding(50, 0, 100))
    assert demand(15.0, 20, 0, 42) == 42 + 50
    for tick in range(20):
        demand(16.0 + tick, 20, 0, 40)
    assert demand(40.0, 20, 0, 40) == 20


@pytest.mark.parametrize(("need", "is_one"), [(0, False), (5, True), (100, True), (101, False)])
def test_a_need_that_can_never_fit_is_none(need: int, is_one: bool) -> None:
    store, member = Store(), a_member()
    talk(member, store, 0.0)
    talk(member, store, 3.0, Holding(0, need, 0))
    assert bank_of(store).accounts["a"].need == [need if is_one else 0]


def test_what_counted_a_moment_ago_is_still_wanted() -> None:
    quotas = (Quota("concurrent_requests", 100, 0.0),)
    store, member = Store(), a_member(quotas=quotas)
    for now, level, wanted in (
        (0.0, 0, 0),
        (3.0, 40, 40),
        (6.0, 10, 40),
        (9.0, 0, 10),
        (12.0, 0, 0),
        (15.0, 40, 40),
        (40.0, 0, 0),
    ):
        talk(member, store, now, Holding(level, 0, level))
        assert bank_of(store, quotas).accounts["a"].demand == [wanted]


def test_a_head_that_came_while_the_question_was_under_way_is_another() -> None:
    store, a, _ = two_members()
    talk(a, store, 10.0, Holding(100, 1, 100))
    question = a.exchange([Holding(100, 1, 101)], 14.0, 0.0)
    a.exchanged(store.ask(question), [Holding(100, 1, 102)], 14.0, 0.0)
    since = bank_of(store).accounts["a"].since
    talk(a, store, 17.0, Holding(100, 1, 102))
    assert bank_of(store).accounts["a"].since > since


def test_who_has_waited_longest_is_served_first_and_goes_to_the_end() -> None:
    store = Store()
    members = [a_member(name) for name in "abc"]
    for number, member in enumerate(members):
        talk(member, store, 0.1 * number, Holding(0, 60, 0))
    served: list[int] = []
    granted = [0, 0, 0]
    levels = [0, 0, 0]
    now = 1.0
    for _ in range(400):
        now += 0.25
        for number, member in enumerate(members):
            talk(member, store, now, Holding(levels[number], 60, granted[number]))
            if member.allowances(now)[0] >= levels[number] + 60:
                served.append(number)
                granted[number] += 60
                levels[number] = 60
            elif levels[number] and now % 5.0 == 0.0:
                levels[number] = 0
    assert served[:6] == [0, 1, 2, 0, 1, 2]


# ---- anything may happen ---------------------------------------------------------------------------------------------

LIMIT, AT_A_TIME = 12, 4
SPAN, LEASE, INTERVAL = 10.0, 2.0, 0.5
QUOTAS = (Quota("requests_per_minute", LIMIT, SPAN), Quota("concurrent_requests", AT_A_TIME, 0.0))
TERMS = Terms.of(QUOTAS, LEASE)


@dataclass(eq=False)
class Process:
    """One that shares the limits: a member, a ledger, what runs, and a monotonic clock of its own."""

    member: EscrowMember
    epoch: float
    rate: float
    ledger: SlidingLedger = field(default_factory=lambda: SlidingLedger(LIMIT, SPAN))
    charges: list[Charge] = field(default_factory=list)
    running: int = 0
    needs: list[int] = field(default_factory=lambda: [0, 0])
    granted: list[int] = field(default_factory=lambda: [0, 0])
    runs_until: float = -math.inf  # what runs has ended by then, on its own clock: see the end of escrow.py's docstring
    asking: bool = False
    inbox: list[StoreReply] = field(default_factory=list)
    knows: bool = False
    left: bool = False

    def clock(self, now: float) -> float:
        return self.epoch + self.rate * now

    def levels(self, now: float) -> list[int]:
        return [self.ledger.level(self.clock(now)), self.running]

    def holdings(self, now: float) -> list[Holding]:
        return [Holding(*each) for each in zip(self.levels(now), self.needs, self.granted, strict=True)]


class World:
    """Processes, a store, and the questions that are on their way. The instants of its methods are real ones."""

    def __init__(self) -> None:
        self.now = 0.0
        self.store = Store()
        self.processes: list[Process] = []
        self.network: list[tuple[Process, StoreRequest]] = []
        self.lives = 0

    def join(self, rate: float) -> Process:
        self.lives += 1
        member = EscrowMember(QUOTAS, key="k", member=f"life-{self.lives}", interval=INTERVAL, lease=LEASE)
        process = Process(member, epoch=1000.0 * self.lives, rate=rate)
        self.processes.append(process)
        return process

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.store.now += seconds
        for process in self.processes:
            if process.clock(self.now) >= process.runs_until:
                process.running = 0

    def spend(self, process: Process, amount: int, runs: int) -> None:
        """Grant in both dimensions, as a limiter would, or note what is needed."""
        at = process.clock(self.now)
        allowances = process.member.allowances(at)
        fits = [
            level + cost <= allowance
            for level, cost, allowance in zip(process.levels(self.now), (amount, runs), allowances, strict=True)
        ]
        process.needs = [0 if fit else cost for fit, cost in zip(fits, (amount, runs), strict=True)]
        if all(fits):
            process.charges.append(process.ledger.charge(amount, at))
            process.running += runs
            process.granted = [process.granted[0] + amount, process.granted[1] + runs]
            process.runs_until = min(process.member.valid_until(), math.inf) + SPAN

    def settle(self, process: Process, index: int, part: float) -> None:
        if process.charges:
            charge = process.charges[index % len(process.charges)]
            process.ledger.edit(charge, int(charge.amount * part), process.clock(self.now))

    def end_run(self, process: Process) -> None:
        process.running = max(0, process.running - 1)

    def ask(self, process: Process) -> None:
        if not process.asking and not process.left:
            question = process.member.exchange(process.holdings(self.now), process.clock(self.now), self.store.now)
            process.asking = True
            self.network.append((process, question))

    def leave(self, process: Process) -> None:
        """Any question that is still outstanding is not waited for."""
        at = process.clock(self.now)
        question = process.member.leave(process.holdings(self.now), at, self.store.now)
        if not process.left:
            process.left = True
            process.runs_until = min(process.runs_until, at + SPAN)
        process.asking = question is not None
        if question is not None:
            self.network.append((process, question))

    def arrive(self, index: int, again: bool) -> None:
        """A question comes to the store, and may come once more later. Its answer waits for its process."""
        if not self.network:
            return
        place = index % len(self.network)
        process, question = self.network[place]
        if not again:
            del self.network[place]
        if self.store.version == 0 and not process.knows and any(other.knows for other in self.processes):
            return  # "what cannot be helped", in escrow.py's docstring
        process.inbox.append(self.store.ask(question))

    def answer(self, process: Process, index: int) -> bool:
        """An answer comes to its process: the last one, or any that it was ever to get."""
        if not process.asking or not process.inbox:
            return False
        return self.tell(process, process.inbox[-1 - index % len(process.inbox)])

    def tell(self, process: Process, reply: StoreReply) -> bool:
        process.asking = False
        again = process.member.exchanged(reply, process.holdings(self.now), process.clock(self.now), self.store.now)
        process.knows = process.knows or (isinstance(reply, Swapped) and reply.version > 0)
        del process.inbox[:-6]
        return again

    def exchange(self, process: Process) -> None:
        """Without trouble, until there is nothing more to ask."""
        again = True
        while again and not process.asking and not process.left:
            self.ask(process)
            self.arrive(len(self.network) - 1, again=False)
            again = self.answer(process, 0) if process.inbox else self.tell(process, StoreLost())

    def forget(self) -> None:
        """The store loses what it knew, and with it what was on its way."""
        self.store.forget()
        self.network.clear()

    def check(self) -> None:
        """What counts anywhere, and what may still be granted, is within the limits together."""
        for index, quota in enumerate(QUOTAS):
            parts = [
                max(process.levels(self.now)[index], process.member.allowances(process.clock(self.now))[index])
                for process in self.processes
            ]
            assert sum(parts) <= quota.limit, (quota.field, parts, self.now)


RATES = [1.0, 1 - DRIFT / 2.1, 1 + DRIFT / 2.1]


class Storm:
    """A world in which everybody wants everything, and links come and go."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.world = World()
        self.ask_at: dict[Process, float] = {}
        self.asked_at: dict[Process, float] = {}
        self.mood: dict[Process, str] = {}
        self.is_over = False
        for _ in range(self.rng.randint(2, 4)):
            self.world.join(self.rng.choice(RATES))

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.world.pass_time(self.rng.choice([0.05, 0.1, 0.2]))
            if not self.is_over:
                self.happen()
            for process in self.world.processes:
                self.live(process)
            self.deliver()
            self.world.check()

    def happen(self) -> None:
        """Once in a while something out of the ordinary."""
        world, rng = self.world, self.rng
        chance = rng.random()
        somebody = rng.choice(world.processes)
        if chance < 0.01 and len(world.processes) < 9:
            world.join(rng.choice(RATES))
        elif chance < 0.013:
            world.leave(somebody)
        elif chance < 0.015:
            world.forget()
        elif chance < 0.02:
            world.pass_time(rng.choice([1.0, SPAN, 3 * SPAN]))
        elif chance < 0.06:
            self.mood[somebody] = rng.choice(["well", "well", "well", "slow", "cut off", "silent", "idle", "dead"])

    def live(self, process: Process) -> None:
        world, rng, mood = self.world, self.rng, self.mood.get(process, "well")
        if mood == "dead":
            return
        for _ in range(rng.randint(0, 3) if mood != "idle" else 0):
            world.spend(process, rng.choice([0, 1, 1, 2, 3, 9]), rng.randint(0, 1))
        if rng.random() < 0.2 or mood == "idle":
            world.end_run(process)
        if rng.random() < 0.05:
            world.settle(process, rng.randint(0, 9), rng.choice([0.0, 0.5]))
        if process.asking:
            if world.now >= self.asked_at[process] + 1.0:
                world.tell(process, StoreLost())
                self.ask_at[process] = world.now + process.member.interval(any(process.needs))
        elif mood != "silent" and world.now >= self.ask_at.get(process, 0.0):
            world.ask(process)
            self.asked_at[process] = world.now

    def deliver(self) -> None:
        world, rng = self.world, self.rng
        chances = {"well": 0.9, "idle": 0.9, "silent": 0.9, "slow": 0.2}
        for index in reversed(range(len(world.network))):
            if rng.random() < chances.get(self.mood.get(world.network[index][0], "well"), 0.0):
                world.arrive(index, again=rng.random() < 0.1)
        for process in world.processes:
            if process.asking and process.inbox and rng.random() < chances.get(self.mood.get(process, "well"), 0.0):
                again = world.answer(process, rng.randint(0, 40) // 40)
                self.ask_at[process] = world.now + (0.0 if again else process.member.interval(any(process.needs)))


@pytest.mark.parametrize("seed", range(10))
def test_nothing_is_granted_twice_in_a_storm(seed: int) -> None:
    storm = Storm(seed)
    storm.run(400)
    assert sum(process.granted[0] for process in storm.world.processes) > LIMIT  # it was worth watching


WAITS = [0.0, 0.1, 0.3, 0.5, 1.0, 1.9, 2.1, 3.0, 7.0, 10.0, 10.5, 13.0]


class Escrow(RuleBasedStateMachine):
    """Every order of events that Hypothesis finds."""

    which = st.integers(0, 7)

    @initialize(rates=st.lists(st.sampled_from(RATES), min_size=2, max_size=4))
    def begin(self, rates: list[float]) -> None:
        self.world = World()
        for rate in rates:
            self.world.join(rate)

    def pick(self, which: int) -> Process:
        return self.world.processes[which % len(self.world.processes)]

    @rule(which=which, amount=st.integers(0, LIMIT), runs=st.integers(0, AT_A_TIME))
    def spend(self, which: int, amount: int, runs: int) -> None:
        self.world.spend(self.pick(which), amount, runs)

    @rule(which=which, amount=st.integers(1, LIMIT))
    def spend_after_exchange(self, which: int, amount: int) -> None:
        process = self.pick(which)
        self.world.spend(process, amount, 1)
        self.world.exchange(process)
        self.world.check()
        self.world.spend(process, amount, 1)

    @rule(which=which, index=st.integers(0, 9), part=st.sampled_from([0.0, 0.5]))
    def settle(self, which: int, index: int, part: float) -> None:
        self.world.settle(self.pick(which), index, part)

    @rule(which=which)
    def end_run(self, which: int) -> None:
        self.world.end_run(self.pick(which))

    @rule(seconds=st.sampled_from(WAITS))
    def wait(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule(seconds=st.sampled_from([-30.0, 30.0, 500.0]))
    def store_clock_jumps(self, seconds: float) -> None:
        if self.world.store.now + seconds < self.world.now + 550.0:
            self.world.store.now += seconds

    @rule(which=which)
    def exchange(self, which: int) -> None:
        self.world.exchange(self.pick(which))

    @rule(which=which)
    def ask(self, which: int) -> None:
        self.world.ask(self.pick(which))

    @rule(index=st.integers(0, 9), again=st.booleans())
    def arrive(self, index: int, again: bool) -> None:
        self.world.arrive(index, again)

    @rule(which=which, index=st.sampled_from([0, 0, 0, 1, 2]))
    def answer(self, which: int, index: int) -> None:
        self.world.answer(self.pick(which), index)

    @rule(which=which)
    def lose(self, which: int) -> None:
        if self.pick(which).asking:
            self.world.tell(self.pick(which), StoreLost())

    @rule(rate=st.sampled_from(RATES))
    def join(self, rate: float) -> None:
        if len(self.world.processes) < 8:
            self.world.join(rate)

    @rule(which=which)
    def leave(self, which: int) -> None:
        self.world.leave(self.pick(which))

    @rule()
    def forget(self) -> None:
        self.world.forget()

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "world"):
            self.world.check()


TestEscrow = Escrow.TestCase
TestEscrow.settings = settings(max_examples=100, stateful_step_count=60)


# ---- what they make of a limit ---------------------------------------------------------------------------------------


@dataclass(eq=False)
class Node:
    """A process with a queue of what is wanted, granted in its order."""

    member: EscrowMember
    ledger: SlidingLedger
    rate: float  # what is wanted, in limits per span
    queue: list[int] = field(default_factory=list)
    owed: float = 0.0
    need: int = 0
    granted: list[tuple[float, int]] = field(default_factory=list)
    total: int = 0
    asking: bool = False
    ask_at: float = 0.0
    answered_at: float = 0.0
    dead: bool = False

    def holdings(self, now: float) -> list[Holding]:
        return [Holding(self.ledger.level(now), self.need, self.total)]


class Fleet:
    """Nodes and a store, ``delay`` seconds apart, in virtual time."""

    def __init__(
        self,
        *rates: float,
        limit: int = 500,
        span: float = 60.0,
        interval: float = 1.0,
        delay: float = 0.005,
        cost: Callable[[random.Random], int] = lambda rng: 1,
    ) -> None:
        self.limit, self.span, self.interval, self.delay, self.cost = limit, span, interval, delay, cost
        self.quotas = (Quota("requests_per_minute", limit, span),)
        self.rng = random.Random(len(rates))
        self.now = 0.0
        self.step = interval / 10
        self.store = Store()
        self.store_gone = False
        self.nodes: list[Node] = []
        self.due: list[tuple[float, int, Node, StoreRequest | StoreReply]] = []
        self.sent = 0
        for rate in rates:
            self.join(rate)

    def join(self, rate: float) -> Node:
        name = f"node {len(self.nodes)}"
        member = EscrowMember(self.quotas, key="k", member=name, interval=self.interval, lease=5 * self.interval)
        node = Node(member, SlidingLedger(self.limit, self.span), rate)
        self.nodes.append(node)
        return node

    def run(self, until: float) -> None:
        while self.now < until:
            while self.due and self.due[0][0] <= self.now:
                self.deliver(*heapq.heappop(self.due)[2:])
            for node in self.nodes:
                node.owed += node.rate * self.limit / self.span * self.step
                while node.owed > 0:
                    cost = self.cost(self.rng)
                    node.owed -= cost * self.rng.expovariate(1.0)
                    if len(node.queue) < self.limit:
                        node.queue.append(cost)
                self.work(node)
            levels = [node.ledger.level(self.now) for node in self.nodes]
            assert sum(levels) <= self.limit
            self.now += self.step

    def work(self, node: Node) -> None:
        """Grant what can be granted, ask what is to be asked."""
        if node.dead:
            return
        node.need = 0
        allowance = node.member.allowances(self.now)[0]
        while node.queue and not node.need:
            cost = node.queue[0]
            if node.ledger.level(self.now) + cost <= allowance:
                node.ledger.charge(cost, self.now)
                node.granted.append((self.now, cost))
                node.total += cost
                del node.queue[0]
            else:
                node.need = cost if allowance < self.limit else 0
                break
        if node.need:
            node.ask_at = min(node.ask_at, max(self.now, node.answered_at + node.member.interval(True)))
        if not node.asking and node.ask_at <= self.now:
            node.asking = True
            self.post(node, node.member.exchange(node.holdings(self.now), self.now, 0.0))

    def post(self, node: Node, message: StoreRequest | StoreReply) -> None:
        self.sent += 1
        heapq.heappush(self.due, (self.now + self.delay * self.rng.uniform(0.5, 1.5), self.sent, node, message))

    def deliver(self, node: Node, message: StoreRequest | StoreReply) -> None:
        if isinstance(message, (Swapped, StoreLost)):
            again = node.member.exchanged(message, node.holdings(self.now), self.now, 0.0)
            node.asking, node.answered_at = False, self.now
            self.work(node)
            node.ask_at = self.now if again else self.now + node.member.interval(node.need > 0)
        else:
            assert isinstance(message, Swap)
            self.post(node, StoreLost() if self.store_gone else self.store.ask(message))

    def used(self, start: float, end: float, *nodes: Node) -> float:
        """The part of the limit that was granted, in all or by these nodes."""
        granted = sum(cost for node in nodes or self.nodes for at, cost in node.granted if start <= at < end)
        return granted / (self.limit * (end - start) / self.span)


@pytest.mark.parametrize(
    ("about", "rates", "least"),
    [
        ("one alone", [2.0], 0.99),
        ("one of four wants everything", [2.0, 0.0, 0.0, 0.0], 0.99),
        ("one wants everything, the others a little", [2.0, 0.03, 0.03, 0.03], 0.98),
        ("one wants everything, ten others a little", [2.0, *[0.03] * 10], 0.98),
        ("everybody wants everything", [2.0, 2.0, 2.0, 2.0], 0.98),
    ],
)
def test_skewed_demand_uses_the_limit(about: str, rates: list[float], least: float) -> None:
    fleet = Fleet(*rates)
    fleet.run(120.0)
    assert fleet.used(60.0, 120.0) >= least, about


def test_demand_is_shared_fairly() -> None:
    fleet = Fleet(2.0, 2.0, 0.1)
    fleet.run(240.0)
    greedy, other, modest = (fleet.used(120.0, 240.0, node) for node in fleet.nodes)
    assert abs(greedy - other) < 0.03
    assert 0.07 < modest < 0.13


def test_short_windows_and_a_far_store() -> None:
    fleet = Fleet(2.0, 0.03, 0.03, 0.03, span=1.1, interval=0.05, delay=0.01)
    fleet.run(7.5)
    assert fleet.used(2.0, 7.5) >= 0.95


@pytest.mark.parametrize("largest", [10, 40, 100])
def test_what_is_left_over_is_less_than_a_head(largest: int) -> None:
    fleet = Fleet(0.7, 0.7, 0.7, 0.7, 0.7, cost=lambda rng: rng.randint(1, largest))
    fleet.run(300.0)
    assert fleet.used(60.0, 300.0) >= 1 - largest / 500


def test_the_hot_spot_may_move() -> None:
    fleet = Fleet(2.0, 0.0, 0.0)
    fleet.run(120.0)
    fleet.nodes[0].rate, fleet.nodes[1].rate = 0.0, 2.0
    fleet.nodes[0].queue.clear()
    fleet.run(240.0)
    assert fleet.used(120.0, 240.0) >= 0.95
    assert fleet.used(180.0, 240.0, fleet.nodes[1]) >= 0.98


def test_a_large_head_is_served_among_many_small_ones() -> None:
    fleet = Fleet(1.0, 1.0, 0.0)
    fleet.run(70.0)
    fleet.nodes[2].queue.append(450)
    fleet.run(140.0)
    ((at, cost),) = [grant for grant in fleet.nodes[2].granted if grant[1] > 1]
    assert cost == 450 and at < 135.0


def test_the_rights_of_a_dead_one_come_back() -> None:
    fleet = Fleet(1.0, 1.0, 0.0)
    fleet.run(90.0)
    fleet.nodes[0].dead = True
    fleet.run(90.0 + 75.0)
    fleet.nodes[1].rate = 2.0
    fleet.run(300.0)
    assert fleet.used(180.0, 300.0) >= 0.98


def test_a_store_that_is_gone_for_a_while_stops_everybody_and_nothing_more() -> None:
    fleet = Fleet(1.0, 1.0)
    fleet.run(60.0)
    fleet.store_gone = True
    fleet.run(90.0)
    assert fleet.used(65.1, 90.0) == 0.0
    fleet.store_gone = False
    fleet.run(210.0)
    assert fleet.used(90.0, 92.0) > 0.0
    assert fleet.used(90.0, 210.0) >= 0.95


def test_a_store_that_has_forgotten_everything_costs_a_span_and_a_lease() -> None:
    fleet = Fleet(1.0, 1.0)
    fleet.run(60.0)
    fleet.store.forget()
    fleet.run(247.5)
    assert fleet.used(62.0, 127.0) == 0.0
    assert fleet.used(127.0, 247.0) >= 0.95


def test_a_process_that_comes_back_is_another() -> None:
    fleet = Fleet(1.0, 1.0)
    for life in range(6):
        fleet.run(30.0 * (life + 1))
        fleet.nodes[-1].dead = True
        fleet.join(1.0)
    fleet.run(400.0)
    assert fleet.used(280.0, 400.0) >= 0.98


@pytest.mark.parametrize("seed", range(4))
def test_after_a_storm_everything_is_used_again(seed: int) -> None:
    storm = Storm(seed)
    storm.run(200)
    world = storm.world
    for process in world.processes:
        if storm.mood.get(process) != "dead":
            storm.mood[process] = "well"
    newcomer = world.join(1.0)
    assert newcomer in world.processes
    storm.is_over = True
    storm.run(int(4 * TERMS.reissue / 0.116))
    before, at = sum(process.granted[0] for process in world.processes), world.now
    storm.run(600)
    granted = sum(process.granted[0] for process in world.processes) - before
    assert granted / ((world.now - at) / SPAN * LIMIT) > 0.5  # its heads are up to three quarters of the limit
