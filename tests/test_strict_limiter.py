"""`StrictRateLimiter`: each rule with literal times, then several over one ledger and a network that does its worst."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sansio.batch import TokenUsage
from sansio.cluster.config import OnStoreLost
from sansio.cluster.exchanging import Exchanging
from sansio.cluster.store import Correction, Published, Quota, StoreLost, StoreReply, Swapped, Take, Taken
from sansio.cluster.strict_ledger import MOST, StrictLedger
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
)
from sansio.strict_limiter import StrictRateLimiter

GUARD = 0.5
SPAN = 60.5
SLOT = 131_072e-6

UNIX = 13_732_910_160 * SLOT
"""What the store's clock shows at 0: the beginning of a slot."""

RENEWAL = SPAN / 250
"""Seconds, for limits of a minute."""

ONE = (1, 10, 10)


def limiter(member: str = "one", options: dict[str, Any] | None = None, **limits: Any) -> StrictRateLimiter:
    return StrictRateLimiter(RateLimits(**limits, strict=True), key="key", member=member, **(options or {}))


def grant(one: RateLimiter, cost: tuple[int, int, int], now: float) -> Permit:
    answer = one.reserve(*cost, now)
    assert isinstance(answer, Permit), answer
    return answer


class Store:
    """One ledger, for a limiter at a time."""

    def __init__(self) -> None:
        self.ledger = StrictLedger()

    def serve(self, one: StrictRateLimiter, now: float, later: float = 0.0) -> tuple[Take, Taken]:
        """Put the limiter's question and bring the answer."""
        question = one.exchange(now, UNIX + now)
        answer = self.ledger.take(question, UNIX + now)
        one.exchanged(answer, now + later, UNIX + now + later)
        return question, answer

    def fetch(self, one: StrictRateLimiter, cost: tuple[int, int, int], now: float) -> Permit:
        """A permit, out of what was fetched already or is now."""
        answer = one.reserve(*cost, now)
        if isinstance(answer, Permit):
            return answer
        self.serve(one, now)
        return grant(one, cost, now)


@pytest.fixture
def store() -> Store:
    return Store()


# ---- fetching ---------------------------------------------------------------------------------------------------------


def test_it_is_a_limiter_and_exchanges() -> None:
    one: Exchanging = limiter(requests_per_minute=10)
    assert isinstance(one, RateLimiter)
    assert one.exchange_at() is None  # nobody has asked for anything


def test_a_head_waits_for_the_store_and_is_granted_when_that_has_granted(store: Store) -> None:
    one = limiter(requests_per_minute=10, tokens_per_minute=100)
    assert one.reserve(1, 20, 30, 5.0) == Wait(None)
    assert one.exchange_at() == 5.0
    question = one.exchange(5.0, UNIX + 5)
    quotas = (Quota("requests_per_minute", 10, SPAN), Quota("tokens_per_minute", 100, SPAN))
    assert question == Take("key", "one", quotas, ((1, 50),), number=1)
    assert one.exchange_at() is None  # one question at a time
    assert one.reserve(1, 20, 30, 5.0) == Wait(None)
    one.exchanged(store.ledger.take(question, UNIX + 5), 5.01, UNIX + 5.01)
    permit = grant(one, (1, 20, 30), 5.01)
    assert (permit.id, permit.requests, permit.input_tokens, permit.output_tokens, permit.granted_at) == (1, 1, 20, 30, 5.01)
    assert one.exchange_at() is None
    assert one.reserve(1, 20, 30, 5.01) == Wait(None)


@pytest.mark.parametrize("cost", [(-1, 0, 0), (1, 1.0, 1), (True, 0, 0), (1, None, 0)])
def test_a_cost_that_is_no_count_is_refused_and_asks_for_nothing(cost: Any) -> None:
    one = limiter(requests_per_minute=10)
    with pytest.raises(ValueError, match="cost: "):
        one.reserve(*cost, 0.0)
    assert one.exchange_at() is None


def test_what_can_never_fit_is_refused_without_asking() -> None:
    one = limiter(tokens_per_minute=100, concurrent_requests=2)
    for cost in ((1, 60, 41), (3, 0, 0)):
        assert isinstance(one.reserve(*cost, 0.0), LimitExceeded)
        assert isinstance(one.never_fits(*cost), LimitExceeded)
    assert one.never_fits(2, 50, 50) is None
    assert one.exchange_at() is None


def test_without_limits_everything_is_granted_at_once() -> None:
    free = limiter()
    for _ in range(100):
        free.settle(grant(free, (1, 10**9, 10**9), 5.0), TokenUsage(1, 1), 5.0)
    assert free.exchange_at() is None
    free.observe_throttled(3.0, 5.0)
    assert free.reserve(1, 1, 1, 6.0) == Wait(8.0)
    grant(free, ONE, 8.0)
    assert free.leave(9.0, UNIX) is None
    assert free.reserve(1, 1, 1, 9.0) == Wait(None)


def test_while_requests_keep_coming_more_is_fetched_each_time_up_to_a_bound(store: Store) -> None:
    one = limiter(requests_per_minute=10_000)
    asked = []
    for _ in range(9):
        assert one.reserve(*ONE, 1.0) == Wait(None)
        question, _ = store.serve(one, 1.0)
        asked.append(len(question.asks))
        for _ in question.asks:
            grant(one, ONE, 1.0)
    assert asked == [1, 2, 4, 8, 16, 32, 64, 65, 65]


def test_what_is_fetched_ahead_looks_like_what_was_granted_last(store: Store) -> None:
    one = limiter(tokens_per_minute=10_000)
    for tokens in (1, 2, 3):
        store.fetch(one, (1, tokens, 0), 1.0)
    one.reserve(1, 50, 0, 1.0)
    question = one.exchange(1.0, UNIX)
    assert question.asks == ((50,), (1,), (2,), (3,), (1,), (2,), (3,), (1,))


def test_a_lot_is_amounts_that_any_request_may_use_which_they_cover(store: Store) -> None:
    one = limiter(requests_per_minute=10, tokens_per_minute=1000)
    store.fetch(one, (1, 300, 0), 1.0)
    assert one.reserve(1, 100, 0, 1.0) == Wait(None)
    store.serve(one, 1.0)  # (1, 100) and, like the last one, (1, 300)
    for tokens in (150, 200):
        grant(one, (1, tokens, 0), 1.0)
    assert one.reserve(1, 1, 0, 1.0) == Wait(None)  # fifty tokens are left, and no request


def test_what_is_left_of_a_lot_is_given_back_with_the_question_for_a_head_that_it_does_not_cover(store: Store) -> None:
    one = limiter(tokens_per_minute=1000)
    store.fetch(one, (1, 300, 0), 1.0)
    one.reserve(1, 300, 0, 1.0)
    _, fetched = store.serve(one, 1.0)
    grant(one, (1, 100, 0), 1.0)
    assert one.reserve(1, 700, 0, 1.0) == Wait(None)
    question, answer = store.serve(one, 1.0)
    assert question.corrections == (Correction(fetched.slot, (-500,), 3),)
    assert (question.asks[0], answer.granted, answer.levels) == ((700,), 0, (400,))
    store.serve(one, 1.0)


def test_what_was_fetched_is_good_for_half_of_the_guard_from_before_it_was_asked_for(store: Store) -> None:
    one = limiter(requests_per_minute=10)
    one.reserve(*ONE, 1.0)
    store.serve(one, 1.0, later=0.2)
    grant(one, ONE, 1.2)
    one.reserve(*ONE, 1.2)
    store.serve(one, 1.2)
    early, late = deepcopy(one), one
    grant(early, ONE, math.nextafter(1.45, 0.0))
    assert isinstance(late.reserve(*ONE, 1.45), Wait)


def test_what_was_not_used_in_time_is_given_back_soon(store: Store) -> None:
    one = limiter(requests_per_minute=10)
    store.fetch(one, ONE, 1.0)
    one.reserve(*ONE, 1.1)
    _, fetched = store.serve(one, 1.1)
    assert fetched.levels == (3,)
    grant(one, ONE, 1.1)
    assert one.exchange_at() == 1.1 + GUARD / 2 + RENEWAL
    question, answer = store.serve(one, 1.1 + GUARD / 2 + RENEWAL)
    assert question.corrections == (Correction(fetched.slot, (-1,), 3),)
    assert (question.asks, answer.levels, one.exchange_at()) == ((), (2,), None)


def test_as_much_is_fetched_ahead_the_next_time_as_was_used(store: Store) -> None:
    one = limiter(requests_per_minute=100)
    asked = []
    for used in (1, 2, 4, 5, 6):
        now = 10.0 if len(asked) < 4 else 20.0
        one.reserve(*ONE, now)
        question, _ = store.serve(one, now)
        asked.append(len(question.asks))
        for _ in range(min(used, len(question.asks))):
            grant(one, ONE, now)
        one.reserve(100, 0, 0, now) if used < 5 else None  # a head that the rest does not cover
    assert asked == [1, 2, 4, 8, 5]


def test_when_less_is_granted_less_is_asked_for(store: Store) -> None:
    one = limiter(requests_per_minute=10)
    asked = []
    for _ in range(7):
        one.reserve(*ONE, 1.0)
        question, answer = store.serve(one, 1.0)
        asked.append((len(question.asks), answer.granted))
        for _ in range(answer.granted):
            grant(one, ONE, 1.0)
    assert asked == [(1, 1), (2, 2), (4, 4), (8, 3), (8, 0), (4, 0), (2, 0)]


def test_the_head_is_granted_what_was_asked_for_it_though_its_estimate_is_doubted_more_by_now(store: Store) -> None:
    one = limiter(tokens_per_minute=10**6, options={"doubt": 0.3})
    for _ in range(50):
        one.settle(store.fetch(one, (1, 100, 0), 1.0), TokenUsage(100, 0), 1.0)
    under_way = store.fetch(one, (1, 100, 0), 1.0)
    one.reserve(1, 100, 0, 2.0)
    question = one.exchange(2.0, UNIX + 2)
    one.settle(under_way, TokenUsage(300, 0), 2.0)
    asked, reply = question.asks[0], store.ledger.take(question, UNIX + 2)
    one.exchanged(Taken(1, reply.slot, None, reply.sequence, reply.levels, UNIX), 2.0, UNIX + 2)
    other = deepcopy(one)
    assert [charge.amount for charge in grant(one, (1, 100, 0), 2.0).charges] == list(asked)
    assert isinstance(other.reserve(1, 99, 1, 2.0), Wait)


def test_only_the_head_is_granted_what_was_asked_for_it(store: Store) -> None:
    one = limiter(tokens_per_minute=10**6, options={"doubt": 0.3})
    for _ in range(50):
        one.settle(store.fetch(one, (1, 100, 0), 1.0), TokenUsage(100, 0), 1.0)
    one.settle(store.fetch(one, (1, 100, 0), 1.0), TokenUsage(300, 0), 1.0)
    one.reserve(1, 10_000, 0, 1.0)
    store.serve(one, 1.0)
    grant(one, (1, 10_000, 0), 1.0)
    one.reserve(1, 10_000, 0, 1.0)
    question, _ = store.serve(one, 1.0)
    head, next_one = (grant(one, (1, 10_000, 0), 1.0).charges[0].amount for _ in range(2))
    assert head == question.asks[0][0] > next_one  # the more are under way, the less is doubted of each


# ---- waiting ----------------------------------------------------------------------------------------------------------


def test_a_head_that_is_refused_waits_until_the_store_said_and_renews_its_place_meanwhile(store: Store) -> None:
    one = limiter(requests_per_minute=2)
    for _ in range(2):
        store.fetch(one, ONE, 0.0)
    one.reserve(*ONE, 10.0)
    _, answer = store.serve(one, 10.0, later=0.5)
    assert answer.wait is not None
    due = 10.5 + answer.wait
    assert one.reserve(*ONE, 10.5) == Wait(due)
    assert one.deadline() == due
    assert one.exchange_at() == 10.5 + RENEWAL
    store.serve(one, 10.5 + RENEWAL)
    assert one.exchange_at() is None  # whoever still waits asks again
    assert isinstance(one.reserve(*ONE, 10.5 + RENEWAL), Wait)
    assert one.exchange_at() == pytest.approx(10.5 + 2 * RENEWAL)
    due = SPAN + SLOT
    store.serve(one, due - 0.125)
    assert one.reserve(*ONE, due - 0.125) == Wait(pytest.approx(due))
    assert one.exchange_at() == pytest.approx(due)
    store.serve(one, due)
    grant(one, ONE, due)
    assert one.deadline() is None


def test_another_head_is_asked_for_at_once(store: Store) -> None:
    one = limiter(requests_per_minute=2)
    for _ in range(2):
        store.fetch(one, ONE, 0.0)
    one.reserve(*ONE, 10.0)
    store.serve(one, 10.0)
    assert one.reserve(1, 1, 1, 10.0) == Wait(None)
    assert one.exchange_at() == 10.0


def test_a_wait_that_is_over_is_not_told_again(store: Store) -> None:
    one = limiter(requests_per_minute=1)
    store.fetch(one, ONE, 0.0)
    one.reserve(*ONE, 60.5)
    _, answer = store.serve(one, 60.5)
    assert answer.wait is not None and answer.wait < RENEWAL
    assert one.reserve(*ONE, 60.5 + 2 * SLOT) == Wait(None)
    assert one.exchange_at() == 60.5 + answer.wait


def test_when_its_own_requests_give_back_a_refused_head_asks_again_soon(store: Store) -> None:
    one = limiter(tokens_per_minute=100)
    permit = store.fetch(one, (1, 100, 0), 0.0)
    one.reserve(1, 50, 0, 1.0)
    store.serve(one, 1.0)
    one.reserve(1, 50, 0, 1.0)
    one.settle(permit, TokenUsage(40, 0), 1.1)
    assert one.exchange_at() == 1.105
    store.serve(one, 1.105)
    grant(one, (1, 50, 0), 1.105)


@pytest.mark.parametrize(
    ("window", "runs", "renewal"),
    [
        (60.0, None, 60.5 / 250),
        (3600.0, None, 0.25),
        (2.0, None, 0.01),
        (0.1, None, 0.005),
        (60.0, 5, 0.02),
        (0.5, 5, 0.005),
    ],
)
def test_a_head_asks_again_often_for_its_span(window: float, runs: int | None, renewal: float, store: Store) -> None:
    one = limiter(requests_per_minute=5, window=window, concurrent_requests=runs)
    store.fetch(one, (5, 0, 0), 0.0)
    one.reserve(*ONE, 0.0)
    store.serve(one, 0.0)
    one.reserve(*ONE, 0.0)
    assert one.exchange_at() == pytest.approx(renewal)


def test_heads_of_two_processes_take_turns_and_neither_takes_what_the_other_waits_for(store: Store) -> None:
    one, two = limiter(tokens_per_minute=100), limiter("two", tokens_per_minute=100)
    store.fetch(one, (1, 60, 0), 0.0)
    two.reserve(1, 70, 0, 1.0)
    store.serve(two, 1.0)
    one.reserve(1, 40, 0, 1.0)
    store.serve(one, 1.0)
    assert isinstance(one.reserve(1, 40, 0, 1.0), Wait)
    assert isinstance(two.reserve(1, 30, 0, 1.0), Wait)  # another head in the same place
    store.serve(two, 1.0)
    grant(two, (1, 30, 0), 1.0)


def test_who_asked_before_and_is_not_the_head_any_more_is_not_asked_for(store: Store) -> None:
    one = limiter(tokens_per_minute=1000)
    store.fetch(one, (1, 100, 0), 1.0)
    one.reserve(1, 100, 0, 1.0)
    store.serve(one, 1.0)
    one.reserve(1, 900, 0, 1.0)
    grant(one, (1, 200, 0), 1.0)
    assert one.exchange_at() is None


def test_what_a_head_was_told_is_over_once_one_like_it_was_granted(store: Store) -> None:
    one = limiter(tokens_per_minute=100)
    permit = store.fetch(one, (1, 90, 0), 0.0)
    one.reserve(1, 50, 0, 1.0)
    store.serve(one, 1.0)
    one.settle(permit, TokenUsage(10, 0), 1.0)
    one.reserve(1, 50, 0, 1.0)
    store.serve(one, 1.1)
    grant(one, (1, 50, 0), 1.1)
    assert one.reserve(1, 50, 0, 1.1) == Wait(None)
    assert one.exchange_at() == 1.1


# ---- what was used ----------------------------------------------------------------------------------------------------

BOTH = {"requests_per_minute": 100, "tokens_per_minute": 1000}


@pytest.mark.parametrize(
    ("end", "changes"),
    [
        (lambda one, permit: one.settle(permit, TokenUsage(10, 5), 2.0), (0, -15)),
        (lambda one, permit: one.settle(permit, TokenUsage(40, 5), 2.0), (0, 15)),
        (lambda one, permit: one.settle(permit, TokenUsage(20, 10), 2.0), None),
        (lambda one, permit: one.settle(permit, None, 2.0), None),
        (lambda one, permit: one.settle(permit, TokenUsage(1, 1, provenance="unknown"), 2.0), None),
        (lambda one, permit: one.settle(permit, TokenUsage(25, 1, provenance="lower_bound"), 2.0), (0, 5)),
        (lambda one, permit: one.settle(permit, TokenUsage(10**40, 0), 2.0), (0, MOST - 30)),
        (lambda one, permit: one.cancel(permit, True, 2.0), None),
        (lambda one, permit: one.cancel(permit, False, 2.0), (-1, -30)),
        (lambda one, permit: (one.cancel(permit, True, 2.0), one.report_usage(permit, TokenUsage(1, 1), 2.0)), (0, -28)),
        (lambda one, permit: (one.settle(permit, TokenUsage(1, 1), 2.0), one.cancel(permit, False, 2.0)), (0, -28)),
    ],
)
def test_what_was_used_is_told_soon(
    end: Callable[[Any, Permit], None], changes: tuple[int, ...] | None, store: Store
) -> None:
    one = limiter(**BOTH)
    permit = store.fetch(one, (1, 20, 10), 1.0)
    slot = store.serve(one, 1.5)[1].slot // 131_072 * 131_072 - 4 * 131_072
    end(one, permit)
    if changes is None:
        assert one.exchange_at() is None
        return
    assert one.exchange_at() == 2.0 + RENEWAL
    question, answer = store.serve(one, 2.0 + RENEWAL)
    ((told, told_changes, number),) = question.corrections
    assert (told_changes, number, question.asks) == (changes, 3, ())
    assert slot <= told < slot + 2 * 131_072
    assert answer.levels == (1 + changes[0], min(30 + changes[1], MOST))
    assert one.exchange_at() is None


def test_a_permit_of_another_limiter_is_refused(store: Store) -> None:
    one, two = limiter(**BOTH), limiter("two", **BOTH)
    permit = store.fetch(one, ONE, 1.0)
    with pytest.raises(ValueError, match="another limiter"):
        two.settle(permit, None, 1.0)


def test_changes_in_one_slot_are_told_as_one_and_such_as_cancel_out_not_at_all(store: Store) -> None:
    one = limiter(**BOTH)
    first, second, third = (store.fetch(one, (1, 20, 10), 1.0) for _ in range(3))
    one.settle(first, TokenUsage(10, 10), 1.0)
    one.settle(second, TokenUsage(15, 10), 1.0)
    question, _ = store.serve(one, 2.0)
    assert [each.changes for each in question.corrections] == [(0, -15)]
    fourth = store.fetch(one, (1, 20, 10), 2.0)
    fifth = store.fetch(one, (1, 20, 10), 2.0)
    one.settle(fourth, TokenUsage(10, 10), 2.0)
    one.settle(fifth, TokenUsage(30, 10), 2.0)
    assert store.serve(one, 2.5)[0].corrections == ()
    one.settle(third, TokenUsage(10, 10), 3.0)
    assert len(store.serve(one, 3.5)[0].corrections) == 1


def test_a_question_carries_so_many_corrections_and_the_next_the_others(store: Store) -> None:
    one = limiter(requests_per_minute=10_000, tokens_per_minute=10**6)
    for permit in [store.fetch(one, (1, 20, 10), step * 0.3) for step in range(200)]:
        one.settle(permit, TokenUsage(10, 10), 60.0)
    told = []
    now = 60.0
    while (at := one.exchange_at()) is not None:
        now = max(now, at)
        told.append(len(store.serve(one, now)[0].corrections))
    assert told == [128, 72]
    assert now == pytest.approx(60.0 + 2 * RENEWAL)


def test_while_an_answer_is_acted_upon_nothing_else_is_told(store: Store) -> None:
    one = limiter(**BOTH)
    permit = store.fetch(one, ONE, 1.0)
    one.reserve(*ONE, 2.0)
    question = one.exchange(2.0, UNIX + 2)
    one.settle(permit, TokenUsage(1, 1), 2.0)
    one.exchanged(store.ledger.take(question, UNIX + 2), 9.0, UNIX + 9)
    assert one.exchange_at() == 9.0 + RENEWAL  # the head is to ask first
    one.reserve(*ONE, 9.0)
    assert one.exchange_at() == 9.0 + 0.05


# ---- the store is lost ------------------------------------------------------------------------------------------------


def lose(one: StrictRateLimiter, at: float, noticed: float = 0.0, reply: StoreReply | None = None) -> Take:
    question = one.exchange(at, UNIX + at)
    one.exchanged(reply or StoreLost("gone"), at + noticed, UNIX + at + noticed)
    return question


def test_while_the_store_is_lost_nothing_is_granted_and_it_is_asked_again_at_a_bounded_rate(store: Store) -> None:
    one = limiter(requests_per_minute=10)
    now, gaps = 1.0, []
    for _ in range(8):
        assert one.reserve(*ONE, now) == Wait(None)
        lose(one, now)
        assert one.reserve(*ONE, now) == Wait(None)
        at = one.exchange_at()
        assert at is not None
        gaps.append(round(at - now, 9))
        now = at
    assert gaps == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0]
    store.serve(one, now)
    grant(one, ONE, now)
    one.reserve(*ONE, now)
    lose(one, now)
    one.reserve(*ONE, now)
    assert one.exchange_at() == now + 0.05  # the next loss begins anew


def test_nobody_asks_a_store_that_is_lost_for_nothing() -> None:
    one = limiter(requests_per_minute=10)
    one.reserve(*ONE, 1.0)
    lose(one, 1.0)
    assert one.exchange_at() is None


def test_what_was_fetched_before_the_store_was_lost_may_be_used(store: Store) -> None:
    one = limiter(requests_per_minute=10)
    store.fetch(one, ONE, 1.0)
    one.reserve(*ONE, 1.0)
    store.serve(one, 1.0)
    grant(one, ONE, 1.0)
    lose(one, 1.1)
    grant(one, ONE, 1.1)
    assert one.reserve(*ONE, 1.1) == Wait(None)


def test_after_a_loss_only_the_head_is_asked_for(store: Store) -> None:
    one = limiter(requests_per_minute=100)
    for _ in range(4):
        one.reserve(*ONE, 1.0)
        for _ in store.serve(one, 1.0)[0].asks:
            grant(one, ONE, 1.0)
    one.reserve(*ONE, 1.0)
    assert len(lose(one, 1.0).asks) == 16
    one.reserve(*ONE, 1.0)
    assert len(one.exchange(2.0, UNIX).asks) == 1


def test_corrections_outlive_a_loss_under_the_number_of_the_question_that_carried_them_first(store: Store) -> None:
    one = limiter(**BOTH)
    permits = [store.fetch(one, (1, 20, 10), 1.0 + step) for step in range(3)]
    one.settle(permits[0], TokenUsage(10, 10), 4.0)
    lost = lose(one, 5.0)
    assert [each.question for each in lost.corrections] == [4]
    one.settle(permits[1], TokenUsage(10, 10), 5.0)
    again = lose(one, 6.0)
    assert again.corrections[0] == lost.corrections[0]
    assert [each.question for each in again.corrections] == [4, 5]
    assert again.number == 5
    question, answer = store.serve(one, 7.0)
    assert question.corrections == again.corrections
    assert answer.levels == (3, 70)
    one.settle(permits[2], TokenUsage(10, 10), 7.0)
    assert [each.question for each in store.serve(one, 8.0)[0].corrections] == [7]


def test_a_question_that_was_done_though_its_answer_was_lost_costs_capacity_and_nothing_is_done_twice(store: Store) -> None:
    one = limiter(**BOTH)
    permit = store.fetch(one, (1, 20, 10), 1.0)
    one.settle(permit, TokenUsage(10, 10), 2.0)
    one.reserve(1, 40, 0, 2.0)
    store.ledger.take(lose(one, 2.0), UNIX + 2.0)  # done
    one.reserve(1, 40, 0, 2.0)
    _, answer = store.serve(one, 3.0)
    assert answer.levels == (3, 100)  # the twenty that were used, and twice the forty
    grant(one, (1, 40, 0), 3.0)


def test_many_corrections_that_were_never_answered_leave_no_room_for_others(store: Store) -> None:
    one = limiter(requests_per_minute=10_000, tokens_per_minute=10**6)
    for permit in [store.fetch(one, (1, 20, 10), step * 0.3) for step in range(200)]:
        one.settle(permit, TokenUsage(10, 10), 60.0)
    first = lose(one, 61.0)
    second = lose(one, 62.0)
    assert len(first.corrections) == 128 and second.corrections == first.corrections
    store.serve(one, 63.0)
    assert len(store.serve(one, 64.0)[0].corrections) == 72


@pytest.mark.parametrize("late", [0.25, 0.3, 0.9])
def test_an_answer_that_comes_too_late_to_use_what_it_grants_is_taken_for_none_and_that_is_given_back(
    late: float, store: Store
) -> None:
    one = limiter(requests_per_minute=10)
    one.reserve(*ONE, 1.0)
    store.serve(one, 1.0, later=late)
    assert one.reserve(*ONE, 1.0 + late) == Wait(None)
    assert one.exchange_at() == 1.0 + late + 0.05
    one.reserve(*ONE, 1.0 + late)
    question, answer = store.serve(one, 1.5 + late)
    assert [each.changes for each in question.corrections] == [(-1,)]
    assert (answer.granted, answer.levels) == (1, (1,))
    grant(one, ONE, 1.5 + late)


def test_answers_that_keep_coming_too_late_are_asked_for_less_and_less_often(store: Store) -> None:
    one = limiter(requests_per_minute=10)
    gaps = []
    for now in (10.0, 20.0, 30.0):
        one.reserve(*ONE, now)
        store.serve(one, now, later=0.4)
        one.reserve(*ONE, now + 0.4)
        at = one.exchange_at()
        assert at is not None
        gaps.append(round(at - now - 0.4, 9))
    assert gaps == [0.05, 0.1, 0.2]


TAKEN = Taken(1, 5, None, 1, (1,), UNIX)


@pytest.mark.parametrize(
    "reply",
    [
        StoreLost(),
        Published({}, UNIX),
        Swapped(True, 1, b"", UNIX),
        *(
            Taken(*(bad if place == index else value for index, value in enumerate((1, 5, None, 1, (1,), UNIX))))
            for place, bads in {
                0: (-1, 2, True, 1.0, None, "1"),
                1: (-5, 2.5, None, 2**60),
                2: (-1.0, math.nan, math.inf),
                3: (-1, 2**60, None, 1.5),
                4: ((), (1, 1), (-1,), (None,), (1.5,), (2**60,)),
            }.items()
            for bad in bads
        ),
    ],
)
def test_what_cannot_be_an_answer_is_none(reply: Any) -> None:
    one = limiter(requests_per_minute=10)
    one.reserve(*ONE, 1.0)
    lose(one, 1.0, reply=reply)
    assert one.reserve(*ONE, 1.0) == Wait(None)
    assert one.exchange_at() == 1.05


def test_an_answer_that_nobody_asked_for_does_nothing() -> None:
    one = limiter(requests_per_minute=10)
    one.exchanged(TAKEN, 1.0, UNIX)
    assert one.reserve(*ONE, 1.0) == Wait(None)
    assert one.snapshot(1.0).requests == LimitLevel(10, 0, 10)


def test_it_tells_what_it_was_told_as_long_as_that_matters(store: Store) -> None:
    one = limiter(requests_per_minute=10)
    one.reserve(*ONE, 1.0)
    store.serve(one, 1.0, later=0.1)
    one.reserve(*ONE, 60.0)
    assert (lose(one, 60.0).answered, one.exchange(61.0, UNIX).known) == (1, 1)
    one.exchanged(StoreLost(), 61.0, UNIX)
    forgets = one.exchange(1.0 + SPAN, UNIX)
    assert (forgets.number, forgets.answered, forgets.known) == (4, 0, 0)


def test_where_only_what_runs_is_counted_it_tells_it_for_some_seconds(store: Store) -> None:
    one = limiter(concurrent_requests=10)
    store.fetch(one, ONE, 1.0)
    assert store.serve(one, 5.9)[0].answered == 1
    assert store.serve(one, 10.8)[0].answered == 2
    assert store.serve(one, 15.8)[0].answered == 0


def test_after_the_store_has_lost_what_it_knew_nothing_is_granted_for_a_span(store: Store) -> None:
    one = limiter(requests_per_minute=10)
    before = deepcopy(store.ledger)
    store.fetch(one, (9, 0, 0), 1.0)
    store.ledger = before
    one.reserve(*ONE, 2.0)
    store.serve(one, 2.0)
    assert one.reserve(*ONE, 2.0) == Wait(2.0 + SPAN)
    store.serve(one, 2.0 + SPAN)
    grant(one, ONE, 2.0 + SPAN)


# ---- the local share --------------------------------------------------------------------------------------------------

SHARE = {"on_store_lost": OnStoreLost.LOCAL_SHARE, "local_share": 0.25, "withheld": 0.5}


def test_a_part_that_is_withheld_is_no_part_of_the_limits() -> None:
    one = limiter(options=SHARE, requests_per_minute=9, tokens_per_minute=1, concurrent_requests=3)
    assert [quota.limit for quota in one.exchange(0.0, UNIX).quotas] == [5, 1, 2]
    assert (one.limits.requests_per_minute, one.limits.tokens_per_minute, one.limits.concurrent_requests) == (5, 1, 2)
    assert one.limits.strict
    assert one.never_fits(6, 0, 0) is not None


def test_while_the_store_is_lost_the_local_share_is_granted_and_afterwards_the_store_decides(store: Store) -> None:
    one = limiter(options=SHARE, requests_per_minute=12)
    assert one.reserve(*ONE, 1.0) == Wait(None)
    lose(one, 1.0, noticed=0.5)
    permits = [grant(one, ONE, 1.5) for _ in range(3)]
    assert [permit.id for permit in permits] == [1, 2, 3]
    assert one.reserve(*ONE, 1.5) == Wait(1.5 + SPAN)
    assert one.exchange_at() == 1.55
    one.settle(permits[0], TokenUsage(1, 1), 1.6)
    one.cancel(permits[1], False, 1.6)
    grant(one, ONE, 1.6)  # in place of the one that was never sent
    question, _ = store.serve(one, 1.7)
    assert (question.asks, question.corrections) == ((), ())  # nothing of that is the store's affair
    assert one.reserve(*ONE, 1.7) == Wait(None)
    store.serve(one, 1.7)
    grant(one, ONE, 1.7)


def test_the_local_share_is_a_limit_in_any_span_however_often_the_store_is_lost(store: Store) -> None:
    one = limiter(options=SHARE, requests_per_minute=8)
    alone = 0
    for start in range(0, 60, 5):
        one.reserve(*ONE, float(start))
        lose(one, float(start))
        alone += isinstance(one.reserve(*ONE, float(start)), Permit)
        store.serve(one, start + 2.0)
    assert alone == 2


def test_a_head_that_the_share_refuses_is_asked_for_when_the_store_is_back(store: Store) -> None:
    one = limiter(options=SHARE, tokens_per_minute=100)
    one.reserve(1, 26, 0, 1.0)
    lose(one, 1.0)
    assert one.reserve(1, 26, 0, 1.0) == Wait(None)  # more than the share
    assert isinstance(one.reserve(1, 51, 0, 1.0), LimitExceeded)
    one.reserve(1, 26, 0, 1.0)
    store.serve(one, 1.05)
    grant(one, (1, 26, 0), 1.05)


def test_an_answer_that_does_not_come_is_noticed_after_the_time_limit() -> None:
    one = limiter(options={**SHARE, "store_timeout": 0.5}, requests_per_minute=12)
    one.reserve(*ONE, 1.0)
    one.exchange(1.0, UNIX)
    assert one.reserve(*ONE, 1.5) == Wait(None)
    grant(one, ONE, 1.501)


def test_without_a_share_a_question_without_an_answer_grants_nothing() -> None:
    one = limiter(requests_per_minute=12)
    one.reserve(*ONE, 1.0)
    one.exchange(1.0, UNIX)
    assert one.reserve(*ONE, 100.0) == Wait(None)


def test_a_store_that_is_lost_is_asked_whether_it_is_back_while_the_share_is_granted() -> None:
    one = limiter(options=SHARE, requests_per_minute=12)
    one.reserve(*ONE, 1.0)
    lose(one, 1.0)
    grant(one, ONE, 1.0)
    assert one.exchange_at() == 1.05


def test_of_what_may_run_at_a_time_a_share_may_run_beside_what_the_store_granted(store: Store) -> None:
    one = limiter(options=SHARE, concurrent_requests=8)
    granted = [store.fetch(one, ONE, 0.0) for _ in range(3)]
    one.reserve(*ONE, 1.0)
    lose(one, 1.0)
    alone = [grant(one, ONE, 1.0) for _ in range(2)]
    assert one.reserve(*ONE, 1.0) == Wait(None)
    one.settle(granted.pop(), None, 1.0)
    assert one.reserve(*ONE, 1.0) == Wait(None)  # what the store granted is the store's
    one.settle(alone.pop(), None, 1.0)
    grant(one, ONE, 1.0)
    question, _ = store.serve(one, 2.0)
    assert question.running == 2


def test_a_burst_of_one_may_go_out_of_the_share_too() -> None:
    one = limiter(options=SHARE, requests_per_minute=60, burst=2)
    one.reserve(*ONE, 1.0)
    lose(one, 1.0)
    grant(one, ONE, 1.0)
    assert isinstance(one.reserve(*ONE, 1.0), Wait)


# ---- what runs --------------------------------------------------------------------------------------------------------


def test_what_runs_is_told_and_freed_places_are_told_soon(store: Store) -> None:
    one, two = limiter(concurrent_requests=2), limiter("two", concurrent_requests=2)
    permits = [store.fetch(one, ONE, 0.0) for _ in range(2)]
    two.reserve(*ONE, 0.0)
    store.serve(two, 0.0)
    assert two.reserve(*ONE, 0.0) == Wait(None)
    one.settle(permits[0], None, 0.5)
    assert one.exchange_at() == 0.52
    assert store.serve(one, 0.52)[0].running == 1
    store.serve(two, 0.53)
    grant(two, ONE, 0.53)


def test_what_was_fetched_and_is_not_used_yet_runs(store: Store) -> None:
    one = limiter(concurrent_requests=10)
    store.fetch(one, ONE, 0.0)
    one.reserve(*ONE, 0.0)
    store.serve(one, 0.0)
    grant(one, ONE, 0.0)
    assert store.serve(one, 0.1)[0].running == 3
    grant(one, ONE, 0.2)
    one.reserve(*ONE, 0.2)
    assert store.serve(one, 0.2)[0].running == 3


def test_while_requests_run_their_number_is_told_every_second(store: Store) -> None:
    one = limiter(concurrent_requests=2)
    permit = store.fetch(one, ONE, 0.0)
    for now in (1.0, 2.0, 3.0):
        assert one.exchange_at() == now
        assert store.serve(one, now)[0].running == 1
    one.settle(permit, None, 3.5)
    store.serve(one, 3.52)
    assert one.exchange_at() is None


# ---- feedback ---------------------------------------------------------------------------------------------------------


def test_a_429_pauses_gives_back_what_was_fetched_and_lowers_what_is_asked_within(store: Store) -> None:
    one = limiter(requests_per_minute=100, burst=10, concurrent_requests=50)
    store.fetch(one, ONE, 1.0)
    one.reserve(*ONE, 1.0)
    store.serve(one, 1.0)
    one.observe_throttled(5.0, 1.0)
    assert one.paused_until == one.deadline() == 6.0
    assert one.reserve(*ONE, 1.0) == Wait(6.0)
    question, answer = store.serve(one, 1.5)
    assert (question.asks, [each.changes for each in question.corrections]) == ((), [(-2, -2, 0)])
    assert [quota.limit for quota in question.quotas] == [50, 5, 50]
    assert answer.levels == (1, 1, 1)
    assert one.exchange_at() == 2.5  # the one that runs
    assert one.reserve(*ONE, 6.0) == Wait(None)
    store.serve(one, 6.0)
    grant(one, ONE, 6.0)


def test_in_a_pause_nothing_is_asked_for_and_nothing_told_that_has_not_changed(store: Store) -> None:
    one = limiter(requests_per_minute=100)
    store.fetch(one, ONE, 1.0)
    one.reserve(*ONE, 1.0)
    one.observe_throttled(5.0, 1.0)
    assert one.exchange_at() is None


def test_under_a_lowered_rate_no_instant_is_promised_for_it_rises_meanwhile(store: Store) -> None:
    one = limiter(requests_per_minute=4)
    for _ in range(2):
        store.fetch(one, ONE, 1.0)
    one.observe_throttled(None, 1.0)
    one.reserve(*ONE, 1.0)
    _, answer = store.serve(one, 1.0)
    assert answer.granted == 0 and answer.wait is not None
    assert one.reserve(*ONE, 1.0) == Wait(None)
    assert one.exchange_at() == 1.0 + RENEWAL
    assert one.reserve(*ONE, 151.0) == Wait(None)
    question, _ = store.serve(one, 151.0)
    assert question.quotas[0].limit == 4
    grant(one, ONE, 151.0)


def test_an_answer_that_comes_in_a_pause_is_kept_for_its_end(store: Store) -> None:
    one = limiter(requests_per_minute=4)
    one.reserve(*ONE, 1.0)
    question = one.exchange(1.0, UNIX)
    one.observe_throttled(0.1, 1.0)
    one.exchanged(store.ledger.take(question, UNIX), 1.0, UNIX)
    assert one.reserve(*ONE, 1.05) == Wait(1.1)
    grant(one, ONE, 1.1)


@pytest.mark.parametrize("name", ["requests", "tokens", "input_tokens", "output_tokens"])
def test_headers_pull_a_limit_down_until_the_reset(name: str, store: Store) -> None:
    one = limiter(**{f"{name}_per_minute": 10})
    cost = (2, 0, 0) if name == "requests" else (0, 1, 1)
    store.fetch(one, cost, 100.0)
    said = RateLimitDimension(limit=10, remaining=3, reset_after=6.0)
    one.observe_headers(RateLimitSnapshot(**{name: said}), 100.0)
    one.reserve(*cost, 101.0)
    used = 1 if name.startswith(("input", "output")) else 2
    question, answer = store.serve(one, 101.0)
    assert question.quotas[0].limit == 10 - (7 - used)
    assert getattr(one.snapshot(101.0), name) == LimitLevel(10, answer.levels[0], max(0, 3 + used - answer.levels[0]))
    store.serve(one, 106.0)
    assert getattr(one.snapshot(106.0), name) == LimitLevel(10, used, 10 - used)


def test_each_limit_is_pulled_down_until_its_own_reset(store: Store) -> None:
    one = limiter(requests_per_minute=10, tokens_per_minute=100)
    said = RateLimitSnapshot(RateLimitDimension(10, 3, 5.0), RateLimitDimension(100, 30, 50.0))
    one.observe_headers(said, 1.0)
    limits = [tuple(quota.limit for quota in store.serve(one, at)[0].quotas) for at in (1.0, 6.0, 51.0)]
    assert limits == [(3, 30), (10, 30), (10, 100)]


def test_headers_say_nothing_against_what_others_were_charged_since_the_last_answer(store: Store) -> None:
    one, two = limiter(requests_per_minute=100), limiter("two", requests_per_minute=100)
    store.fetch(one, ONE, 1.0)
    store.fetch(two, (50, 0, 0), 1.0)
    one.observe_headers(RateLimitSnapshot(requests=RateLimitDimension(100, 49, 50.0)), 1.1)
    one.reserve(*ONE, 1.1)
    question, answer = store.serve(one, 1.1)
    assert (question.quotas[0].limit, answer.granted) == (50, 0)  # taken for foreign at first
    assert one.reserve(*ONE, 1.1) == Wait(None)
    question, answer = store.serve(one, 1.2)
    assert (question.quotas[0].limit, answer.granted) == (100, 1)
    grant(one, ONE, 1.2)


def test_what_is_granted_with_the_next_answer_is_not_set_against_what_headers_said(store: Store) -> None:
    one = limiter(requests_per_minute=10)
    store.fetch(one, ONE, 1.0)
    one.observe_headers(RateLimitSnapshot(requests=RateLimitDimension(10, 4, 50.0)), 1.0)
    for _ in range(4):
        store.fetch(one, ONE, 1.3)
    for at in (1.3, 1.6, 2.0):
        one.reserve(*ONE, at)
        question, answer = store.serve(one, at)
        assert (question.quotas[0].limit, answer.granted) == (5, 0)


def test_headers_that_come_while_an_answer_is_awaited_are_heard_with_the_next_question(store: Store) -> None:
    one = limiter(requests_per_minute=10)
    one.reserve(*ONE, 1.0)
    question = one.exchange(1.0, UNIX)
    one.observe_headers(RateLimitSnapshot(requests=RateLimitDimension(10, 0, 50.0)), 1.0)
    one.exchanged(store.ledger.take(question, UNIX), 1.0, UNIX)
    grant(one, ONE, 1.0)
    one.reserve(*ONE, 1.0)
    question, answer = store.serve(one, 1.0)
    assert (question.quotas[0].limit, answer.granted) == (1, 0)


def test_headers_leave_the_pacing_of_a_burst_alone(store: Store) -> None:
    one = limiter(requests_per_minute=60, burst=2)
    one.observe_headers(RateLimitSnapshot(requests=RateLimitDimension(60, 1, 30.0)), 0.0)
    assert [quota.limit for quota in store.serve(one, 0.0)[0].quotas] == [1, 2]


def test_headers_are_heard_by_the_local_share_too() -> None:
    one = limiter(options=SHARE, requests_per_minute=12)
    one.reserve(*ONE, 1.0)
    lose(one, 1.0)
    one.observe_headers(RateLimitSnapshot(requests=RateLimitDimension(12, 0, 30.0)), 1.0)
    assert one.reserve(*ONE, 1.0) == Wait(31.0)


def test_the_snapshot_is_of_all_processes(store: Store) -> None:
    one, two = (limiter(name, requests_per_minute=10, tokens_per_minute=100, burst=5) for name in ("one", "two"))
    store.fetch(two, (3, 20, 0), 1.0)
    store.fetch(one, (1, 20, 0), 1.0)
    assert one.snapshot(1.0) == RateLimiterSnapshot(
        LimitLevel(10, 4, 6), LimitLevel(100, 40, 60), None, None, in_flight=1, paused_until=None, rate_factor=1.0
    )


# ---- leaving ----------------------------------------------------------------------------------------------------------


def test_a_process_that_goes_gives_back_what_it_did_not_use_and_tells_what_it_used(store: Store) -> None:
    one = limiter(requests_per_minute=10, tokens_per_minute=100, concurrent_requests=5)
    permit = store.fetch(one, (1, 10, 0), 1.0)
    one.reserve(1, 10, 0, 1.0)
    store.serve(one, 1.0)
    one.settle(permit, TokenUsage(4, 0), 1.0)
    farewell = one.leave(1.1, UNIX + 1.1)
    assert farewell is not None and farewell.leaves and farewell.asks == ()
    assert store.ledger.take(farewell, UNIX + 1.1).levels == (1, 4, 0)
    assert one.exchange_at() is None
    assert one.reserve(1, 10, 0, 1.1) == Wait(None)
    assert one.exchange_at() is None


def test_who_has_left_grants_nothing_of_the_local_share_either() -> None:
    one = limiter(options=SHARE, requests_per_minute=12)
    one.reserve(*ONE, 1.0)
    lose(one, 1.0)
    one.leave(1.0, UNIX + 1)
    assert one.reserve(*ONE, 1.0) == Wait(None)


def test_a_process_that_never_asked_has_nothing_to_say() -> None:
    assert limiter(requests_per_minute=10).leave(1.0, UNIX) is None


def test_a_farewell_carries_all_there_is_to_correct(store: Store) -> None:
    one = limiter(requests_per_minute=10_000, tokens_per_minute=10**6)
    for permit in [store.fetch(one, (1, 20, 10), step * 0.3) for step in range(200)]:
        one.settle(permit, TokenUsage(10, 10), 60.0)
    lose(one, 60.0)
    farewell = one.leave(60.1, UNIX + 60.1)
    assert farewell is not None and len(farewell.corrections) == 200
    assert store.ledger.take(farewell, UNIX + 60.1).levels == (200, 200 * 20)


# ---- configuration and clocks -----------------------------------------------------------------------------------------


def test_a_guard_of_nothing_leaves_no_time_to_ask() -> None:
    with pytest.raises(ValueError, match="delivery_guard: 0 leaves no time"):
        limiter(requests_per_minute=10, delivery_guard=0.0)


def test_limits_beyond_what_a_store_counts_are_taken_for_the_most() -> None:
    one = limiter(tokens_per_minute=10**20)
    assert one.exchange(0.0, UNIX).quotas[0].limit == MOST


def test_a_clock_that_goes_backwards_grants_nothing_extra(store: Store) -> None:
    one = limiter(requests_per_minute=2)
    one.reserve(*ONE, 100.0)
    store.serve(one, 50.0)
    assert grant(one, ONE, 10.0).granted_at == 100.0
    one.reserve(*ONE, 10.0)
    store.serve(one, 0.0)
    assert grant(one, ONE, 0.0).granted_at == 100.0
    assert isinstance(one.reserve(*ONE, 0.0), Wait)


@pytest.mark.parametrize("now", [math.nan, math.inf])
def test_an_instant_that_is_not_finite_is_refused(now: float) -> None:
    one = limiter(requests_per_minute=10)
    for call in (
        lambda: one.reserve(*ONE, now),
        lambda: one.exchange(now, UNIX),
        lambda: one.exchanged(StoreLost(), now, UNIX),
        lambda: one.leave(now, UNIX),
    ):
        with pytest.raises(ValueError, match=r"now: .* finite"):
            call()
    assert one.exchange_at() is None and one.reserve(*ONE, 0.0) == Wait(None)


# ---- several, over one ledger and a bad network -----------------------------------------------------------------------


class World:
    """Virtual time, one ledger, a way to it that loses, delays and doubles, and a provider that counts what arrives."""

    def __init__(self, rng: random.Random, *, lost: float = 0.0, doubled: float = 0.0, late: float = 0.0) -> None:
        self.rng = rng
        self.now = 1000.0
        self.ledger = StrictLedger()
        self.gone = False
        self.lost, self.doubled, self.late = lost, doubled, late
        self.arrived: list[tuple[float, int, int]] = []
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()

    def at(self, when: float, do: Callable[[], object]) -> None:
        heapq.heappush(self._events, (when, next(self._order), do))

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            when, _, do = heapq.heappop(self._events)
            self.now = max(self.now, when)
            do()
        self.now = until

    def ask(self, question: Take, timeout: float, answer: Callable[[StoreReply], None]) -> None:
        """Put a question; it is answered once, perhaps with `StoreLost`."""
        waiting = [answer]

        def end(reply: StoreReply) -> None:
            if waiting:
                waiting.pop()(reply)

        def arrive() -> None:
            if not self.gone:
                reply = self.ledger.take(question, UNIX + self.now)
                if self.rng.random() >= self.lost:
                    self.at(self.now + self._one_way(), lambda: end(reply))

        if self.rng.random() >= self.lost:
            self.at(self.now + self._one_way(), arrive)
        if self.rng.random() < self.doubled:
            self.at(self.now + 3.0 * self.rng.random(), arrive)
        self.at(self.now + timeout, lambda: end(StoreLost("no answer in time")))

    def _one_way(self) -> float:
        late = 2.0 * self.rng.random() if self.rng.random() < self.late else 0.0
        return self.rng.uniform(0.0002, 0.002) + late

    def most(self, index: int, window: float) -> int:
        """The most that arrived in any window."""
        return max(
            (
                sum(arrival[index] for arrival in self.arrived if start <= arrival[0] < start + window)
                for start, *_ in self.arrived
            ),
            default=0,
        )


class Process:
    """What an engine does with one limiter: a queue whose head alone asks, one question at a time, answers acted upon."""

    def __init__(self, world: World, limiter: StrictRateLimiter, rate: float, most_tokens: int) -> None:
        self.world, self.limiter = world, limiter
        self.rate, self.most_tokens = rate, most_tokens
        self.queue: list[tuple[int, int, int]] = []
        self.granted = 0
        self.alive = True
        self._asking = False
        self._come()

    def _come(self) -> None:
        if self.alive:
            tokens = self.world.rng.randint(0, self.most_tokens)
            self.queue.append((1, tokens, self.world.rng.randint(0, tokens)))
            self.dispatch()
            self.world.at(self.world.now + self.world.rng.expovariate(self.rate), self._come)

    def dispatch(self) -> None:
        world = self.world
        while self.queue and self.alive:
            answer = self.limiter.reserve(*self.queue[0], world.now)
            if isinstance(answer, Wait):
                assert answer.until is None or answer.until > world.now
                break
            assert isinstance(answer, Permit)
            self._send(answer, self.queue.pop(0))
        self.follow()

    def _send(self, permit: Permit, cost: tuple[int, int, int]) -> None:
        world = self.world
        self.granted += 1
        if world.rng.random() < 0.05:
            world.at(world.now + world.rng.random() / 10, lambda: self._end(permit, None, sent=False))
            return
        used = TokenUsage(*(world.rng.randint(tokens // 2, tokens) for tokens in cost[1:]))
        arrives_at = world.now + world.rng.random() * self.limiter.limits.delivery_guard / 2
        world.at(arrives_at, lambda: world.arrived.append((world.now, 1, used.total_tokens)))
        usage = used if world.rng.random() < 0.9 else None
        world.at(arrives_at + world.rng.expovariate(3.0), lambda: self._end(permit, usage, sent=True))

    def _end(self, permit: Permit, usage: TokenUsage | None, sent: bool) -> None:
        if self.alive:
            if sent:
                self.limiter.settle(permit, usage, self.world.now)
            else:
                self.limiter.cancel(permit, False, self.world.now)
            self.dispatch()

    def follow(self) -> None:
        at = None if self._asking or not self.alive else self.limiter.exchange_at()
        if at is None:
            return
        if at > self.world.now:
            self.world.at(at, self.follow)
            return
        self._asking = True
        question = self.limiter.exchange(self.world.now, UNIX + self.world.now)
        self.world.ask(question, self.limiter.store_timeout, self._answered)

    def _answered(self, reply: StoreReply) -> None:
        self._asking = False
        if self.alive:
            self.limiter.exchanged(reply, self.world.now, UNIX + self.world.now)
            self.follow()  # as an engine does: before it has asked for the head again
            self.dispatch()


WINDOW = 1.0


def processes(world: World, count: int, rate: float, most_tokens: int, **limits: Any) -> list[Process]:
    options = {"store_timeout": 0.05, **limits.pop("options", {})}
    return [
        Process(
            world,
            limiter(f"process {index}", options, window=WINDOW, delivery_guard=0.1, **limits),
            rate / count,
            most_tokens,
        )
        for index in range(count)
    ]


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 4),
    lost=st.sampled_from([0.0, 0.05, 0.3]),
    doubled=st.sampled_from([0.0, 0.2]),
    late=st.sampled_from([0.0, 0.05]),
    limits=st.sampled_from(
        [
            {"requests_per_minute": 20},
            {"tokens_per_minute": 300},
            {"requests_per_minute": 40, "tokens_per_minute": 900, "burst": 5},
            {"requests_per_minute": 40, "concurrent_requests": 6},
        ]
    ),
    share=st.booleans(),
)
def test_whatever_happens_on_the_way_no_window_holds_more_than_a_limit(
    seed: int, count: int, lost: float, doubled: float, late: float, limits: dict[str, int], share: bool
) -> None:
    rng = random.Random(seed)
    world = World(rng, lost=lost, doubled=doubled, late=late)
    options = {"on_store_lost": OnStoreLost.LOCAL_SHARE, "local_share": 0.1, "withheld": 0.1 * (count + 1)} if share else {}
    running = processes(world, count, 60.0, 40, options=options, **limits)
    for step in range(8):
        world.run(1000.0 + step)
        world.gone = rng.random() < 0.2
        if rng.random() < 0.15 and step == 4:
            rng.choice(running).alive = False
    assert "requests_per_minute" not in limits or world.most(1, WINDOW) <= limits["requests_per_minute"]
    assert "tokens_per_minute" not in limits or world.most(2, WINDOW) <= limits["tokens_per_minute"]
    world.gone, world.lost, world.doubled, world.late = False, 0.0, 0.0, 0.0
    world.run(1011.0)
    before = [process.granted for process in running]
    world.run(1014.0)
    assert all(process.granted > old for process, old in zip(running, before, strict=True) if process.alive)


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize(
    ("limits", "index"), [({"requests_per_minute": 500}, 1), ({"tokens_per_minute": 5000}, 2)], ids=["requests", "tokens"]
)
def test_together_they_use_nearly_all_of_a_limit(count: int, limits: dict[str, int], index: int) -> None:
    world = World(random.Random(7))
    processes(world, count, 1500.0, 20, **limits)
    world.run(1005.5)
    (limit,) = limits.values()
    used = sum(arrival[index] for arrival in world.arrived if arrival[0] >= 1001.1)
    assert world.most(index, WINDOW) <= limit
    # What is used is less than what was estimated, and is charged as estimated until it is known.
    assert used >= (0.95 if index == 1 else 0.8) * limit * 4.4 / 1.1


def test_a_store_that_comes_back_is_used_again_without_a_burst() -> None:
    world = World(random.Random(3))
    (process,) = processes(world, 1, 300.0, 20, requests_per_minute=100)
    world.run(1002.0)
    world.gone = True
    world.run(1002.5)
    during = process.granted
    world.run(1012.0)
    assert process.granted == during
    world.gone = False
    world.run(1013.1)
    assert process.granted > during + 80
    assert world.most(1, WINDOW) <= 100


def test_a_fail_over_that_loses_writes_grants_nothing_extra_to_who_notices_it() -> None:
    world = World(random.Random(5))
    (process,) = processes(world, 1, 300.0, 20, requests_per_minute=100)
    for step in range(4):
        world.run(1000.9 + 3.0 * step)
        replica = deepcopy(world.ledger)
        world.run(1001.3 + 3.0 * step)
        world.ledger = replica
    world.run(1014.0)
    assert world.most(1, WINDOW) <= 100
    assert process.granted > 300
