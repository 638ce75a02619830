"""`SharedRateLimiter`: the ordinary limiter, allowed what its member holds; when it asks the store, and what it needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sansio.batch import TokenUsage
from sansio.cluster.config import OnStoreLost
from sansio.cluster.member import Holding
from sansio.cluster.shared_limiter import SharedRateLimiter
from sansio.cluster.store import Publish, Published, Quota, StoreLost, StoreReply, StoreRequest
from sansio.errors import LimitExceeded
from sansio.rate_limit import (
    LimitLevel,
    Permit,
    RateLimitDimension,
    RateLimiter,
    RateLimits,
    RateLimitSnapshot,
    Wait,
    quotas_of,
)

SPAN = 60.5
"""The default window and guard."""

CALM, HUNGRY = 1.0, 0.25
ANSWER = Published({}, 0.0)


class Part:
    """A member that holds what the test says."""

    def __init__(self, quotas: Sequence[Quota], *allowed: int) -> None:
        self.quotas = quotas
        self.allowed: list[int] = list(allowed) or [0] * len(quotas)
        self.lease = math.inf
        self.offers: list[int] | None = None
        """What is left to it when it has asked."""
        self.again = False
        self.farewell: StoreRequest | None = None
        self.holdings: list[Holding] = []
        """As it was told last."""
        self.told: list[tuple[str, float, float]] = []
        self.questions = 0

    def allowances(self, now: float) -> Sequence[int]:
        return self.allowed

    def valid_until(self) -> float:
        return self.lease

    def interval(self, hungry: bool) -> float:
        return HUNGRY if hungry else CALM

    def exchange(self, holdings: Sequence[Holding], now: float, unix_now: float) -> StoreRequest:
        self.holdings = list(holdings)
        self.told.append(("asks", now, unix_now))
        self.questions += 1
        if self.offers is not None:
            self.allowed = self.offers
        return Publish("board", "me", str(self.questions).encode(), 1.0)

    def exchanged(self, reply: StoreReply, holdings: Sequence[Holding], now: float, unix_now: float) -> bool:
        self.holdings = list(holdings)
        self.told.append((type(reply).__name__, now, unix_now))
        return self.again

    def leave(self, holdings: Sequence[Holding], now: float, unix_now: float) -> StoreRequest | None:
        self.holdings = list(holdings)
        self.told.append(("leaves", now, unix_now))
        self.allowed = [0] * len(self.quotas)
        return self.farewell


def shared(*allowed: int, options: Any = MappingProxyType({}), **limits: Any) -> tuple[SharedRateLimiter, Part]:
    part = Part(quotas_of(RateLimits(**limits)), *allowed)
    return SharedRateLimiter(RateLimits(**limits), part, **options), part


def grant(limiter: SharedRateLimiter, cost: tuple[int, int, int], now: float) -> Permit:
    answer = limiter.reserve(*cost, now)
    assert isinstance(answer, Permit), answer
    return answer


def exchange(limiter: SharedRateLimiter, part: Part, now: float, *allowed: int, reply: StoreReply = ANSWER) -> None:
    """A question, and an answer by which so much is allowed."""
    limiter.exchange(now, now + 1e9)
    part.allowed = list(allowed) or part.allowed
    limiter.exchanged(reply, now, now + 1e9)


# ---- before it knows anything -------------------------------------------------------------------------------------------


def test_nothing_is_granted_before_the_store_has_answered_and_the_first_request_asks_it_at_once() -> None:
    limiter, part = shared(requests_per_minute=10)
    assert limiter.member is part
    assert limiter.exchange_at() is None
    assert limiter.reserve(1, 0, 0, 100.0) == Wait(None)
    assert limiter.exchange_at() == 100.0
    assert limiter.exchange(100.0, 1e9) == Publish("board", "me", b"1", 1.0)
    assert part.holdings == [Holding(level=0, need=1, granted=0)]
    part.allowed = [4]
    limiter.exchanged(ANSWER, 100.5, 1e9 + 0.5)
    assert part.told == [("asks", 100.0, 1e9), ("Published", 100.5, 1e9 + 0.5)]
    for _ in range(4):
        grant(limiter, (1, 0, 0), 100.5)
    assert limiter.reserve(1, 0, 0, 100.5) == Wait(None)


def test_one_that_is_not_used_asks_nothing() -> None:
    limiter, part = shared(requests_per_minute=10)
    limiter.snapshot(100.0)
    limiter.never_fits(1, 0, 0)
    assert isinstance(limiter.reserve(11, 0, 0, 100.0), LimitExceeded)
    limiter.observe_throttled(None, 100.0)
    limiter.observe_headers(RateLimitSnapshot(requests=RateLimitDimension(10, 5, 1.0)), 100.0)
    assert limiter.exchange_at() is None
    assert part.questions == 0


def test_what_is_allowed_from_the_start_is_granted_and_told_after_an_interval() -> None:
    limiter, part = shared(3, requests_per_minute=10)
    permit = grant(limiter, (2, 0, 0), 100.0)
    assert limiter.exchange_at() == 100.0 + CALM
    grant(limiter, (1, 0, 0), 100.5)
    assert limiter.exchange_at() == 100.0 + CALM
    limiter.settle(permit, None, 100.6)
    limiter.exchange(101.0, 0.0)
    assert part.holdings == [Holding(level=3, need=0, granted=3)]


# ---- what it is allowed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "allowed", "fits", "too_much"),
    [
        ({"requests_per_minute": 9}, (4,), (4, 0, 0), (5, 0, 0)),
        ({"tokens_per_minute": 90}, (40,), (1, 20, 20), (1, 21, 20)),
        ({"input_tokens_per_minute": 90}, (40,), (1, 40, 90), (1, 41, 0)),
        ({"output_tokens_per_minute": 90}, (40,), (1, 90, 40), (1, 0, 41)),
        ({"requests_per_minute": 9, "tokens_per_minute": 90}, (4, 40), (4, 40, 0), (1, 41, 0)),
        ({"requests_per_minute": 9, "burst": 5}, (9, 3), (3, 0, 0), (4, 0, 0)),
        ({"concurrent_requests": 9}, (3,), (3, 0, 0), (4, 0, 0)),
        ({"tokens_per_minute": 90, "concurrent_requests": 9}, (40, 3), (3, 40, 0), (4, 0, 0)),
    ],
)
def test_each_dimension_has_its_allowance(
    limits: dict[str, int], allowed: tuple[int, ...], fits: tuple[int, int, int], too_much: tuple[int, int, int]
) -> None:
    limiter, _ = shared(*allowed, **limits)
    assert limiter.reserve(*too_much, 0.0) == Wait(None)
    grant(limiter, fits, 0.0)
    assert isinstance(limiter.reserve(1, 1, 1, 0.0), Wait)


def test_an_answer_may_allow_more_or_less_and_what_was_granted_stays_granted() -> None:
    limiter, part = shared(5, requests_per_minute=10)
    grant(limiter, (4, 0, 0), 0.0)
    exchange(limiter, part, 1.0, 2)
    assert limiter.snapshot(1.0).requests == LimitLevel(10, 4, 0)
    assert limiter.reserve(1, 0, 0, 1.0) == Wait(None)
    exchange(limiter, part, 2.0, 6)
    assert limiter.snapshot(2.0).requests == LimitLevel(10, 4, 2)
    grant(limiter, (2, 0, 0), 2.0)


def test_what_it_offers_is_not_granted_from_the_moment_it_asks() -> None:
    limiter, part = shared(5, requests_per_minute=10)
    part.offers = [2]
    limiter.exchange(1.0, 0.0)
    assert limiter.reserve(3, 0, 0, 1.0) == Wait(None)
    grant(limiter, (2, 0, 0), 1.0)


@pytest.mark.parametrize("allowed", [10, 11, 10**9])
def test_no_allowance_is_above_the_limit(allowed: int) -> None:
    limiter, _ = shared(allowed, allowed, requests_per_minute=10, concurrent_requests=10)
    assert isinstance(limiter.reserve(11, 0, 0, 0.0), LimitExceeded)
    grant(limiter, (10, 0, 0), 0.0)
    assert limiter.reserve(1, 0, 0, 0.0) == Wait(None)  # ten run


def test_where_members_share_less_than_the_limits_no_more_than_that_is_ever_waited_for() -> None:
    quotas = (Quota("tokens_per_minute", 75, SPAN), Quota("concurrent_requests", 3, 0.0))
    part = Part(quotas, 75, 3)
    limiter = SharedRateLimiter(RateLimits(tokens_per_minute=100, concurrent_requests=4), part, doubt=0.3)
    for cost, field in (((1, 76, 0), "tokens_per_minute"), ((4, 1, 0), "concurrent_requests")):
        answer = limiter.reserve(*cost, 0.0)
        foreseen = limiter.never_fits(*cost)
        assert isinstance(answer, LimitExceeded) and foreseen is not None
        assert answer.message == foreseen.message
        assert answer.message.startswith(field)
    permit = grant(limiter, (3, 75, 0), 0.0)  # of which more would be held back, if there were more
    assert limiter.snapshot(0.0).tokens == LimitLevel(75, 75, 0)
    assert limiter.reserve(1, 0, 0, 0.0) == Wait(None)
    limiter.settle(permit, TokenUsage(75, 0), 0.0)
    assert limiter.reserve(1, 1, 0, 0.0) == Wait(SPAN)
    limiter.exchange(1.0, 0.0)
    assert [holding.need for holding in part.holdings] == [0, 0]


# ---- what it needs ------------------------------------------------------------------------------------------------------

BOTH = {"requests_per_minute": 10, "tokens_per_minute": 100, "concurrent_requests": 5}


@pytest.mark.parametrize(
    ("allowed", "cost", "needs"),
    [
        ((1, 100, 5), (2, 50, 0), [2, 50, 2]),
        ((10, 40, 5), (2, 50, 0), [2, 50, 2]),
        ((10, 100, 1), (2, 50, 0), [2, 50, 2]),
        ((0, 0, 0), (2, 50, 10), [2, 60, 2]),
        ((1, 100, 5), (2, 0, 0), [2, 0, 2]),
    ],
)
def test_it_needs_all_that_the_head_costs_where_a_larger_allowance_of_anything_would_let_it_in(
    allowed: tuple[int, ...], cost: tuple[int, int, int], needs: list[int]
) -> None:
    limiter, part = shared(*allowed, **BOTH)
    assert isinstance(limiter.reserve(*cost, 0.0), Wait)
    limiter.exchange(0.0, 0.0)
    assert [holding.need for holding in part.holdings] == needs


def test_what_costs_nothing_waits_where_more_counts_than_is_allowed_and_says_so() -> None:
    limiter, part = shared(6, 60, 5, **BOTH)
    grant(limiter, (1, 60, 0), 0.0)
    exchange(limiter, part, 0.0, 6, 40, 0)
    assert limiter.reserve(0, 0, 0, 1.0) == Wait(None)
    assert limiter.exchange_at() == 1.0
    limiter.exchange(1.0, 0.0)
    assert part.holdings == [Holding(1, 0, 1), Holding(60, 1, 60), Holding(1, 1, 1)]


def test_what_waits_for_time_or_for_its_own_permits_alone_needs_nothing() -> None:
    limiter, part = shared(10, 100, 5, **BOTH)
    grant(limiter, (5, 80, 0), 0.0)
    assert limiter.reserve(1, 30, 0, 1.0) == Wait(None)  # five run
    exchange(limiter, part, 1.0)
    assert [holding.need for holding in part.holdings] == [0, 0, 0]
    assert limiter.exchange_at() == 1.0 + CALM


def test_in_doubt_it_needs_what_would_be_held_back() -> None:
    limiter, part = shared(100, tokens_per_minute=1_000, options={"doubt": 0.3})
    assert limiter.reserve(1, 60, 0, 0.0) == Wait(None)
    limiter.exchange(0.0, 0.0)
    assert 120 < part.holdings[0].need < 130
    part.allowed = [130]
    limiter.exchanged(ANSWER, 0.0, 0.0)
    limiter.settle(grant(limiter, (1, 60, 0), 0.0), TokenUsage(70, 0), 1.0)
    limiter.exchange(1.0, 0.0)
    level, need, granted = part.holdings[0]
    assert (level, need) == (70, 0)
    assert 120 < granted < 130  # settling changes what counts, not what was granted


def test_who_needs_more_asks_sooner_but_not_before_an_interval_of_hunger_has_passed_since_the_last_answer() -> None:
    limiter, part = shared(1, requests_per_minute=10)
    grant(limiter, (1, 0, 0), 0.0)
    assert limiter.exchange_at() == CALM
    assert limiter.reserve(1, 0, 0, 0.1) == Wait(None)
    assert limiter.exchange_at() == 0.1
    exchange(limiter, part, 0.2)
    assert limiter.exchange_at() == 0.2 + CALM
    assert limiter.reserve(1, 0, 0, 0.2) == Wait(None)
    assert limiter.exchange_at() == 0.2 + HUNGRY
    assert limiter.reserve(1, 0, 0, 0.3) == Wait(None)
    assert limiter.exchange_at() == 0.2 + HUNGRY
    exchange(limiter, part, 0.45, 2)
    grant(limiter, (1, 0, 0), 0.45)
    assert limiter.exchange_at() == 0.45 + CALM
    assert limiter.reserve(1, 0, 0, 1.25) == Wait(None)
    assert limiter.exchange_at() == 1.25


def test_a_need_is_over_when_it_is_granted() -> None:
    limiter, part = shared(1, requests_per_minute=10)
    assert limiter.reserve(2, 0, 0, 0.0) == Wait(None)
    grant(limiter, (1, 0, 0), 0.0)  # another head
    limiter.exchange(1.0, 0.0)
    assert part.holdings == [Holding(1, 0, 1)]


def test_a_need_of_a_head_that_was_given_up_is_said_once() -> None:
    limiter, part = shared(1, requests_per_minute=10)
    assert limiter.reserve(2, 0, 0, 0.0) == Wait(None)
    limiter.exchange(0.0, 0.0)
    assert part.holdings == [Holding(0, 2, 0)]
    limiter.exchanged(ANSWER, 0.0, 0.0)
    assert limiter.exchange_at() == CALM  # nobody has asked again
    limiter.exchange(CALM, 0.0)
    assert part.holdings == [Holding(0, 0, 0)]


def test_another_head_needs_what_it_costs_itself() -> None:
    limiter, part = shared(1, 100, 5, **BOTH)
    assert limiter.reserve(3, 50, 0, 0.0) == Wait(None)
    assert limiter.reserve(2, 40, 0, 0.0) == Wait(None)
    limiter.exchange(0.0, 0.0)
    assert [holding.need for holding in part.holdings] == [2, 40, 2]


def test_where_somebody_else_was_quicker_it_asks_again_at_once_and_for_the_same() -> None:
    limiter, part = shared(1, requests_per_minute=10)
    assert limiter.reserve(2, 0, 0, 0.0) == Wait(None)
    part.again = True
    exchange(limiter, part, 0.5)
    assert limiter.exchange_at() == 0.5
    assert limiter.reserve(2, 0, 0, 0.5) == Wait(None)
    assert limiter.exchange_at() == 0.5
    part.again = False
    limiter.exchange(0.5, 0.0)
    assert part.holdings == [Holding(0, 2, 0)]
    limiter.exchanged(ANSWER, 0.75, 0.0)
    assert limiter.exchange_at() == 0.75 + CALM


def test_one_question_is_outstanding_at_a_time() -> None:
    limiter, part = shared(1, requests_per_minute=10)
    assert limiter.reserve(2, 0, 0, 0.0) == Wait(None)
    limiter.exchange(0.0, 0.0)
    assert limiter.exchange_at() is None
    assert limiter.reserve(2, 0, 0, 5.0) == Wait(None)
    grant(limiter, (1, 0, 0), 5.0)
    assert limiter.exchange_at() is None
    limiter.exchanged(StoreLost("gone"), 6.0, 0.0)
    assert part.told[-1] == ("StoreLost", 6.0, 0.0)
    assert limiter.exchange_at() == 6.0 + CALM


# ---- how long it waits ---------------------------------------------------------------------------------------------------


def test_it_waits_for_the_answer_where_that_may_come_before_its_own_charges_leave() -> None:
    limiter, part = shared(5, requests_per_minute=10)
    grant(limiter, (5, 0, 0), 0.0)
    assert limiter.reserve(5, 0, 0, SPAN - HUNGRY - 0.01) == Wait(None)
    assert limiter.reserve(5, 0, 0, SPAN - HUNGRY) == Wait(SPAN)
    assert limiter.reserve(6, 0, 0, SPAN - HUNGRY) == Wait(None)  # which five of its own will not let in
    exchange(limiter, part, SPAN - HUNGRY, 10)
    grant(limiter, (5, 0, 0), SPAN - HUNGRY)
    assert limiter.reserve(5, 0, 0, SPAN - 0.1) == Wait(SPAN)


def test_with_the_whole_limit_allowed_it_waits_for_time_alone() -> None:
    limiter, _ = shared(10, requests_per_minute=10)
    grant(limiter, (10, 0, 0), 0.0)
    assert limiter.reserve(1, 0, 0, 1.0) == Wait(SPAN)
    assert limiter.exchange_at() == CALM
    limiter.observe_throttled(100.0, 1.0)
    assert limiter.reserve(1, 0, 0, 1.0) == Wait(101.0)


def test_a_429_and_headers_are_heard_as_in_one_process() -> None:
    limiter, part = shared(10, requests_per_minute=20)
    limiter.observe_headers(RateLimitSnapshot(requests=RateLimitDimension(20, 7, 9.0)), 0.0)
    assert limiter.snapshot(0.0).requests == LimitLevel(20, 3, 7)
    limiter.observe_throttled(5.0, 0.0)
    assert limiter.paused_until == 5.0
    assert isinstance(limiter.reserve(1, 0, 0, 1.0), Wait)
    assert limiter.snapshot(5.0).requests == LimitLevel(20, 3, 2)  # of ten, of which a 429 leaves half
    grant(limiter, (2, 0, 0), 5.0)
    assert isinstance(limiter.reserve(1, 0, 0, 5.0), Wait)
    exchange(limiter, part, 5.0, 20)
    grant(limiter, (5, 0, 0), 5.0)
    assert limiter.reserve(1, 0, 0, 5.0) == Wait(9.0)


# ---- a lease that ends ---------------------------------------------------------------------------------------------------


def test_when_its_lease_is_over_nothing_is_granted_until_the_store_answers() -> None:
    limiter, part = shared(5, requests_per_minute=10)
    part.lease = 7.0
    exchange(limiter, part, 1.0)
    permit = grant(limiter, (2, 0, 0), math.nextafter(7.0, 0.0))
    assert limiter.snapshot(math.nextafter(7.0, 0.0)).requests == LimitLevel(10, 2, 3)
    assert limiter.snapshot(7.0).requests == LimitLevel(10, 2, 0)
    assert limiter.reserve(1, 0, 0, 7.0) == Wait(None)
    limiter.cancel(permit, False, 7.0)
    exchange(limiter, part, 8.0, reply=StoreLost("gone"))
    assert limiter.reserve(1, 0, 0, 8.0) == Wait(None)
    part.lease = 20.0
    exchange(limiter, part, 9.0)
    grant(limiter, (5, 0, 0), 9.0)


def test_it_is_over_for_who_asks_for_nothing_but_the_levels_too() -> None:
    limiter, part = shared(5, requests_per_minute=10)
    part.lease = 7.0
    exchange(limiter, part, 1.0)
    assert limiter.snapshot(7.0).requests == LimitLevel(10, 0, 0)


LOCAL = {"on_store_lost": OnStoreLost.LOCAL_SHARE, "local_share": 0.25}


def test_by_choice_a_share_of_each_limit_is_granted_when_the_lease_is_over() -> None:
    limiter, part = shared(8, 80, 4, options=LOCAL, requests_per_minute=10, tokens_per_minute=100, concurrent_requests=5)
    part.lease = 7.0
    exchange(limiter, part, 1.0)
    assert limiter.reserve(1, 26, 0, 7.0) == Wait(None)
    grant(limiter, (1, 12, 0), 7.0)
    assert limiter.reserve(1, 12, 0, 7.0) == Wait(None)  # one at a time is a quarter of five
    assert limiter.reserve(0, 14, 0, 7.0) == Wait(None)
    grant(limiter, (0, 13, 0), 7.0)
    exchange(limiter, part, 8.0, reply=StoreLost("still gone"))
    assert limiter.reserve(0, 1, 0, 8.0) == Wait(None)
    part.lease = 20.0
    exchange(limiter, part, 9.0)
    grant(limiter, (3, 55, 0), 9.0)


def test_what_was_granted_before_counts_against_the_local_share() -> None:
    limiter, part = shared(8, options=LOCAL, requests_per_minute=10)
    part.lease = 7.0
    exchange(limiter, part, 0.0)
    grant(limiter, (3, 0, 0), 0.0)
    assert limiter.reserve(1, 0, 0, 7.0) == Wait(None)
    grant(limiter, (2, 0, 0), SPAN)
    assert limiter.reserve(1, 0, 0, SPAN) == Wait(None)


@pytest.mark.parametrize(
    ("options", "granted"),
    [({}, 0), (LOCAL, 2), ({"local_share": 0.25}, 0), ({"on_store_lost": "local_share", "local_share": 0.25}, 2)],
)
def test_a_store_that_never_answered_is_lost_when_the_member_says_so(options: dict[str, Any], granted: int) -> None:
    limiter, part = shared(options=options, requests_per_minute=10)
    assert limiter.reserve(1, 0, 0, 0.0) == Wait(None)  # it may answer yet
    part.lease = -math.inf
    exchange(limiter, part, 1.0, reply=StoreLost("nobody there"))
    assert limiter.snapshot(1.0).requests == LimitLevel(10, 0, granted)


def test_who_begins_without_a_store_has_its_local_share_until_the_store_answers() -> None:
    limiter, part = shared(0, options=LOCAL, requests_per_minute=10)
    assert limiter.reserve(1, 0, 0, 0.0) == Wait(None)
    exchange(limiter, part, 0.0, reply=StoreLost("nobody there"))
    assert limiter.snapshot(0.0).requests == LimitLevel(10, 0, 2)
    limiter.exchange(1.0, 0.0)
    grant(limiter, (1, 0, 0), 1.0)  # also while it is asked again
    limiter.exchanged(StoreLost("nobody there"), 1.0, 0.0)
    assert limiter.snapshot(1.0).requests == LimitLevel(10, 1, 1)
    exchange(limiter, part, 2.0)
    assert limiter.snapshot(2.0).requests == LimitLevel(10, 1, 0)  # it is nothing that it is allowed


def test_who_has_an_allowance_keeps_it_when_an_answer_is_lost_and_its_lease_is_not_over() -> None:
    limiter, part = shared(1, options=LOCAL, requests_per_minute=10)
    exchange(limiter, part, 0.0, reply=StoreLost("a packet"))
    assert limiter.snapshot(0.0).requests == LimitLevel(10, 0, 1)


def test_a_local_share_is_not_more_than_members_share() -> None:
    part = Part((Quota("requests_per_minute", 3, SPAN), Quota("concurrent_requests", 3, 0.0)), 0, 0)
    part.lease = -math.inf
    limits = RateLimits(requests_per_minute=10, concurrent_requests=10)
    limiter = SharedRateLimiter(limits, part, on_store_lost=OnStoreLost.LOCAL_SHARE, local_share=0.5)
    assert isinstance(limiter.reserve(4, 0, 0, 0.0), LimitExceeded)
    grant(limiter, (3, 0, 0), 0.0)


# ---- leaving -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("farewell", [None, Publish("board", "me", b"", 1.0)])
@pytest.mark.parametrize("options", [{}, LOCAL])
def test_who_leaves_grants_nothing_and_asks_nothing_any_more(farewell: StoreRequest | None, options: dict[str, Any]) -> None:
    limiter, part = shared(8, options=options, requests_per_minute=10)
    part.lease = 7.0
    part.farewell = farewell
    permit = grant(limiter, (2, 0, 0), 0.0)
    assert limiter.leave(1.0, 1e9) == farewell
    assert part.told[-1] == ("leaves", 1.0, 1e9)
    assert part.holdings == [Holding(2, 0, 2)]
    for now in (1.0, 7.0, 100.0):
        assert limiter.reserve(1, 0, 0, now) == Wait(None)
        assert limiter.exchange_at() is None
    limiter.settle(permit, None, 100.0)
    limiter.exchanged(ANSWER, 101.0, 0.0)
    assert limiter.exchange_at() is None


# ---- clocks --------------------------------------------------------------------------------------------------------------


def test_a_clock_that_goes_backwards_stands_still() -> None:
    limiter, part = shared(5, requests_per_minute=10)
    part.lease = 107.0
    exchange(limiter, part, 100.0)
    assert limiter.reserve(9, 0, 0, 100.9) == Wait(None)
    assert limiter.exchange_at() == 100.9
    assert limiter.reserve(9, 0, 0, 105.0) == Wait(None)
    assert limiter.exchange_at() == 100.9
    exchange(limiter, part, 50.0)
    assert part.told[-2:] == [("asks", 105.0, 50.0 + 1e9), ("Published", 105.0, 50.0 + 1e9)]
    assert limiter.exchange_at() == 105.0 + CALM
    assert limiter.reserve(1, 0, 0, 107.0) == Wait(None)
    assert limiter.reserve(1, 0, 0, 106.0) == Wait(None)  # a lease that was over is not back
    limiter.leave(1.0, 0.0)
    assert part.told[-1][1] == 107.0


@pytest.mark.parametrize("now", [math.inf, math.nan])
def test_an_instant_that_is_not_finite_is_refused_and_changes_nothing(now: float) -> None:
    limiter, part = shared(5, requests_per_minute=10)
    part.lease = 107.0
    exchange(limiter, part, 100.0)
    for call in (
        lambda: limiter.reserve(1, 0, 0, now),
        lambda: limiter.snapshot(now),
        lambda: limiter.exchange(now, 0.0),
        lambda: limiter.exchanged(ANSWER, now, 0.0),
        lambda: limiter.leave(now, 0.0),
    ):
        with pytest.raises(ValueError, match=r"now: .* finite"):
            call()
    assert len(part.told) == 2
    assert limiter.exchange_at() == 100.0 + CALM
    grant(limiter, (5, 0, 0), 100.0)


@pytest.mark.parametrize("cost", [(-1, 0, 0), (1, 0.5, 0), (1, 0, None)])
def test_a_cost_that_is_no_count_is_refused(cost: Any) -> None:
    limiter, _ = shared(5, requests_per_minute=10)
    with pytest.raises(ValueError, match="cost: "):
        limiter.reserve(*cost, 0.0)
    assert limiter.exchange_at() is None


# ---- it does not spin ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reply", "lease"), [(ANSWER, math.inf), (StoreLost("gone"), -math.inf), (StoreLost("gone"), 5.0)])
def test_answers_that_change_nothing_are_asked_for_no_more_often_than_every_interval(
    reply: StoreReply, lease: float
) -> None:
    limiter, part = shared(requests_per_minute=10)
    part.lease = lease
    now, steps = 0.0, 0
    while now < 100.0:
        steps += 1
        assert isinstance(limiter.reserve(1, 0, 0, now), Wait)
        ask_at = limiter.exchange_at()
        assert ask_at is not None
        now = max(now, ask_at)
        limiter.exchange(now, 0.0)
        limiter.exchanged(reply, now, 0.0)
    assert part.questions == steps <= 100.0 / HUNGRY + 1


# ---- any traffic --------------------------------------------------------------------------------------------------------


class AnyAllowance(RuleBasedStateMachine):
    """Allowances that change as they like, beside a list of what was granted; and an ordinary limiter, which is allowed all.

    Times are multiples of 1/64 s, so that the reference's comparisons are exact.
    """

    @initialize(
        limits=st.fixed_dictionaries(
            {"tokens_per_minute": st.integers(1, 60)},
            optional={"requests_per_minute": st.integers(1, 8), "concurrent_requests": st.integers(1, 4)},
        ),
        local_share=st.sampled_from([0.0, 0.5]),
    )
    def start(self, limits: dict[str, Any], local_share: float) -> None:
        self.limits = RateLimits(window=4.0, **limits)
        self.part = Part(quotas_of(self.limits))
        lost = OnStoreLost.LOCAL_SHARE if local_share else OnStoreLost.FAIL_CLOSED
        self.limiter = SharedRateLimiter(self.limits, self.part, on_store_lost=lost, local_share=local_share)
        whole = Part(quotas_of(self.limits), *(quota.limit for quota in self.part.quotas))
        self.whole, self.ordinary = SharedRateLimiter(self.limits, whole), RateLimiter(self.limits)
        self.local = [int(quota.limit * local_share) for quota in self.part.quotas]
        self.tick = 0
        self.granted: list[tuple[Permit, list[int]]] = []
        self.open: list[int] = []
        self.asking = False
        self.answered_at = -math.inf
        self.hungry = False

    @property
    def now(self) -> float:
        return self.tick / 64

    def allowed(self) -> list[int]:
        if self.now >= self.part.lease:
            return [min(share, quota.limit) for share, quota in zip(self.local, self.part.quotas, strict=True)]
        return [min(part, quota.limit) for part, quota in zip(self.part.allowed, self.part.quotas, strict=True)]

    def counts(self, held_longer: float = 0.0) -> list[int]:
        """What counts now in each dimension."""
        span = 4.5 + held_longer
        levels = [
            sum(net[index] for permit, net in self.granted if self.now < permit.granted_at + span)
            for index in range(len(self.part.quotas))
        ]
        if self.limits.concurrent_requests is not None:
            levels[-1] = sum(self.granted[index][0].requests for index in self.open)
        return levels

    def cost(self, requests: int, tokens: int) -> list[int]:
        of = {"requests_per_minute": requests, "tokens_per_minute": tokens, "concurrent_requests": requests}
        return [of[quota.field] for quota in self.part.quotas]

    @rule(ticks=st.one_of(st.integers(0, 4), st.integers(0, 64 * 6)))
    def pass_time(self, ticks: int) -> None:
        self.tick += ticks

    @rule(requests=st.integers(0, 2), tokens=st.integers(0, 40))
    def reserve(self, requests: int, tokens: int) -> None:
        assert repr(self.whole.reserve(requests, tokens, 0, self.now)) == repr(
            self.ordinary.reserve(requests, tokens, 0, self.now)
        )
        answer = self.limiter.reserve(requests, tokens, 0, self.now)
        cost, allowed = self.cost(requests, tokens), self.allowed()
        assert isinstance(answer, LimitExceeded) == any(
            amount > quota.limit for amount, quota in zip(cost, self.part.quotas, strict=True)
        )
        if isinstance(answer, Permit):
            for level, amount, most in zip(self.counts(), cost, allowed, strict=True):
                assert level + amount <= most
            self.hungry = False
            self.open.append(len(self.granted))
            self.granted.append((answer, cost))
        elif isinstance(answer, Wait):
            surely = zip(self.counts(4.5 / 1000), cost, allowed, strict=True)
            assert not all(level + amount <= most for level, amount, most in surely)
            self.hungry = any(
                level + amount > most and most < quota.limit
                for level, amount, most, quota in zip(self.counts(), cost, allowed, self.part.quotas, strict=True)
            )

    @precondition(lambda self: bool(self.open))
    @rule(data=st.data(), tokens=st.integers(0, 40))
    def settle(self, data: st.DataObject, tokens: int) -> None:
        index = data.draw(st.sampled_from(self.open), label="permit")
        permit, net = self.granted[index]
        self.limiter.settle(permit, TokenUsage(tokens, 0), self.now)
        self.open.remove(index)
        if self.now < permit.granted_at + 4.5:
            net[:] = self.cost(permit.requests, tokens)

    @precondition(lambda self: not self.asking)
    @rule()
    def ask(self) -> None:
        self.limiter.exchange(self.now, 0.0)
        self.asking = True
        for holding, level in zip(self.part.holdings, self.counts(), strict=True):
            assert holding.level >= level
        assert not self.hungry or any(holding.need for holding in self.part.holdings)

    @precondition(lambda self: self.asking)
    @rule(data=st.data(), lease=st.sampled_from([0.0, 0.5, 3.0, math.inf, -math.inf]))
    def answer(self, data: st.DataObject, lease: float) -> None:
        self.part.allowed = [data.draw(st.integers(0, quota.limit + 2)) for quota in self.part.quotas]
        self.part.lease = self.now + lease
        self.limiter.exchanged(ANSWER, self.now, 0.0)
        self.asking = self.hungry = False
        self.answered_at = self.now

    @invariant()
    def it_asks_when_it_is_due(self) -> None:
        if not hasattr(self, "limiter"):
            return
        ask_at = self.limiter.exchange_at()
        if self.asking:
            assert ask_at is None
        elif ask_at is not None:
            assert ask_at >= self.answered_at + HUNGRY
            assert self.answered_at == -math.inf or ask_at <= self.answered_at + CALM or ask_at <= self.now
        assert not self.hungry or self.asking or (ask_at is not None and ask_at <= max(self.now, self.answered_at + HUNGRY))


AnyAllowance.TestCase.settings = settings(max_examples=100, stateful_step_count=40)
TestAnyAllowance = AnyAllowance.TestCase
