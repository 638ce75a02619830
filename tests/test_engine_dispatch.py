"""`sansio.engine`: who is taken in, who waits, and who starts next (spec 4.3.6, 4.5, 4.7, 4.10)."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from engine_harness import BATCH, OPEN_ENDED, START, Rig, deployment

from sansio.batch import TokenEstimate, TokenUsage
from sansio.deployment import Deployment
from sansio.engine import RemoteEngineCore
from sansio.errors import (
    Backpressure,
    BudgetExceeded,
    DeadlineExceeded,
    LimitExceeded,
    NetworkError,
    RateLimited,
    ServerError,
)
from sansio.events import AddRequest, AttemptEnded, Complete, StartAttempt
from sansio.http import ResponseHead
from sansio.lane import Request
from sansio.queue import Priority

ONE_SLOT = {"max_concurrent": 1}


def busy(*deployments: Deployment) -> Rig:
    """A rig whose one slot is taken by request 0."""
    rig = Rig(*(deployments or (deployment(serving=ONE_SLOT),)))
    rig.submit(0)
    assert rig.starts() == [0]
    return rig


# Asking.


def test_a_request_is_prepared_with_an_estimate_outside_of_the_critical_section() -> None:
    engine = Rig().engine
    add = engine.prepare(7, BATCH, timeout=3.0, priority=Priority.HIGH, tenant="t", stream=False, wait_for_circuit=True)
    assert add == AddRequest(7, "chat", BATCH, add.estimate, False, Priority.HIGH, "t", 3.0, True)
    assert add.estimate.output_tokens == 10
    assert engine.codec().provider == "openai"


def test_among_several_deployments_one_must_be_named() -> None:
    engine = Rig(deployment("a"), deployment("b")).engine
    assert engine.prepare(1, BATCH, deployment="b").deployment == "b"
    with pytest.raises(ValueError, match=r"^deployment: there are several, name one of a, b$"):
        engine.prepare(1, BATCH)
    with pytest.raises(ValueError, match=r"^deployment: 'c' is not one of a, b$"):
        engine.codec("c")


@pytest.mark.parametrize("timeout", [0, -1.0, math.inf, math.nan, "1", True])
def test_a_timeout_is_seconds(timeout: Any) -> None:
    rig = Rig()
    with pytest.raises(ValueError, match=r"^timeout: "):
        rig.engine.prepare(1, BATCH, timeout=timeout)
    with pytest.raises(ValueError, match=r"^timeout: "):
        rig.submit(1, timeout=timeout)
    assert rig.metrics.submitted == 0


@pytest.mark.parametrize("tokens", [(1.5, 2), (2, -1), (True, 1), (None, 1)])
def test_an_estimate_is_whole_tokens_whoever_wrote_the_codec(tokens: Any) -> None:
    """It must not get into the queue: the limiter would refuse it at its head, with everybody behind it."""
    rig = Rig()
    with pytest.raises(ValueError, match=r"^estimate: .* are not whole numbers of at least 0$"):
        rig.submit(1, tokens=tokens)
    rig.submit(2)
    assert rig.starts() == [2]
    assert rig.metrics.submitted == 1


def test_misuse_is_refused_and_changes_nothing() -> None:
    rig = busy()
    before = rig.metrics
    with pytest.raises(ValueError, match=r"^request_id: 0 is in use$"):
        rig.submit(0)
    with pytest.raises(ValueError, match=r"^deployment: 'nowhere' is not one of chat$"):
        rig.submit(1, "nowhere")
    for now, unix_now in ((math.nan, 0.0), (math.inf, 0.0), (START, math.nan)):
        with pytest.raises(ValueError, match=r"^now: "):
            rig.engine.handle(AddRequest(1, "chat", BATCH, TokenEstimate(1, 1)), now, unix_now)
    assert rig.metrics == before
    rig.end(0)
    assert rig.outcome(0) == "ok"


def test_an_id_may_be_used_again_once_its_request_is_over() -> None:
    rig = busy()
    late = rig.started[0]
    rig.end(0)
    rig.outcomes.clear()
    rig.submit(0)
    assert rig.starts() == [0]
    assert rig.started[0].attempt != late.attempt
    rig.tell(AttemptEnded(0, late.attempt, NetworkError(), None, False))
    assert rig.outcome(0) == "-"


# Order.


def test_a_free_slot_is_taken_at_once() -> None:
    rig = Rig()
    rig.submit(1)
    assert rig.starts() == [1]
    assert rig.metrics.in_flight == rig.metrics.attempts == 1


def test_higher_classes_first_and_first_come_first_served_within_one() -> None:
    rig = busy()
    for request_id, priority in (
        (1, Priority.NORMAL),
        (2, Priority.BACKGROUND),
        (3, Priority.CRITICAL),
        (4, Priority.NORMAL),
    ):
        rig.submit(request_id, priority=priority)
    order = [0]
    while rig.metrics.in_flight:
        rig.end(order[-1])
        order += rig.starts()
    assert order == [0, 3, 1, 4, 2]


def test_a_request_that_comes_back_returns_to_its_old_place() -> None:
    rig = busy()
    rig.submit(1)
    rig.end(0, NetworkError())
    assert rig.starts() == [1]
    rig.submit(2)
    rig.tick(1.0)
    rig.end(1)
    assert rig.starts() == [0]


def test_two_deployments_that_share_a_limit_start_in_one_order() -> None:
    rig = Rig(deployment("a", limits={"concurrent_requests": 1}), deployment("b"))
    rig.submit(0, "a")
    for request_id, name, priority in ((1, "a", 1), (2, "b", 1), (3, "b", 2)):
        rig.submit(request_id, name, priority=Priority(priority))
    order = [0]
    while rig.metrics.in_flight:
        rig.end(order[-1])
        order += rig.starts()
    assert order == [0, 3, 1, 2]


def test_one_without_a_free_slot_does_not_hold_up_the_other() -> None:
    rig = Rig(deployment("a", serving=ONE_SLOT, limits={"concurrent_requests": 3}), deployment("b"))
    rig.submit(0, "a")
    rig.submit(1, "a", priority=Priority.CRITICAL)
    rig.submit(2, "b")
    assert rig.starts() == [2]
    rig.end(0)
    assert rig.starts() == [1]


def test_the_large_is_not_starved_by_the_small_nor_the_one_lane_by_the_other() -> None:
    rig = Rig(deployment("a", limits={"tokens_per_minute": 100}), deployment("b"))
    rig.submit(0, "a", tokens=(50, 0))
    rig.submit(1, "a", tokens=(80, 0))
    for request_id in (2, 3):
        rig.submit(request_id, "b", tokens=(1, 0))
        assert rig.starts() == []
    rig.end(0, usage=TokenUsage(50, 0))
    rig.tick_at_deadline()
    assert rig.now == START + 60.5
    assert rig.starts() == [1, 2, 3]


def test_waiting_for_a_permit_holds_no_slot_and_no_concurrency() -> None:
    rig = Rig(deployment(serving=ONE_SLOT, limits={"requests_per_minute": 1}))
    rig.submit(0)
    rig.end(0)
    rig.submit(1)
    assert (rig.metrics.queued, rig.metrics.in_flight) == (1, 0)
    assert rig.engine.limiter_snapshot(rig.now).in_flight == 0


# The limit.


def test_a_wait_is_as_long_as_the_limiter_says_and_no_longer() -> None:
    rig = Rig(deployment(limits={"requests_per_minute": 1}))
    rig.submit(0)
    rig.submit(1)
    assert rig.engine.deadline() == START + 5.0  # the connect timeout of the first
    rig.end(0)
    assert rig.engine.deadline() == START + 60.5
    rig.tick(60.4)
    assert rig.starts() == []
    rig.tick_at_deadline()
    assert rig.starts() == [1]


def test_what_was_estimated_too_high_is_free_as_soon_as_it_is_known() -> None:
    rig = Rig(deployment(limits={"tokens_per_minute": 100}))
    rig.submit(0, tokens=(10, 80))
    rig.submit(1, tokens=(50, 0))
    assert rig.starts() == []
    rig.end(0, usage=TokenUsage(10, 5))
    assert rig.starts() == [1]


def test_an_open_ended_request_reserves_what_answers_have_been_of_late() -> None:
    rig = Rig(deployment(limits={"tokens_per_minute": 100_000}))
    for request_id in range(20):
        rig.submit(request_id)
        rig.end(request_id, usage=TokenUsage(10, 70))
    rig.end(0)
    rig.submit(20, tokens=(10, 1_024), batch=OPEN_ENDED)
    levels = rig.engine.limiter_snapshot(rig.now)
    assert levels.tokens is not None
    assert levels.tokens.used == 20 * 80 + 80


def test_also_where_that_was_learnt_while_it_waited() -> None:
    rig = Rig(deployment(limits={"tokens_per_minute": 1_500}, serving={"max_concurrent": 20}))
    for request_id in range(20):
        rig.submit(request_id, tokens=(5, 5))
    for request_id in (20, 21, 22):
        rig.submit(request_id, tokens=(10, 1_024), batch=OPEN_ENDED)
    assert rig.metrics.in_flight == 20
    for request_id in range(20):
        rig.end(request_id, usage=TokenUsage(5, 5))
    assert [rig.outcome(request_id) for request_id in (20, 21, 22)] == ["-", "-", "-"]
    assert rig.metrics.in_flight == 3, "one after the other, had each reserved what was believed when it was asked"
    levels = rig.engine.limiter_snapshot(rig.now)
    assert levels.tokens is not None
    assert levels.tokens.used == 20 * 10 + 1_034 + 2 * 15


def test_headers_that_leave_less_hold_back_and_headers_that_leave_more_let_go() -> None:
    rig = Rig(deployment(limits={"requests_per_minute": 10}))
    rig.submit(0)
    rig.submit(1)
    rig.head(0, ("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", "20s"))
    rig.submit(2)
    assert rig.starts() == []
    rig.head(1, ("x-ratelimit-remaining-requests", "8"), ("x-ratelimit-reset-requests", "20s"))
    assert rig.starts() == [2]
    rig.head(2)
    assert rig.effects == []


def test_so_do_headers_that_come_together_with_the_end() -> None:
    rig = Rig(deployment(limits={"requests_per_minute": 10}))
    rig.submit(0)
    rig.submit(1)
    attempt = rig.started[0].attempt
    less = ResponseHead(200, (("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", "20s")))
    rig.tell(AttemptEnded(0, attempt, None, TokenUsage(1, 1), True, head=less))
    rig.submit(2)
    assert rig.starts() == []
    more = ResponseHead(200, (("x-ratelimit-remaining-requests", "8"), ("x-ratelimit-reset-requests", "20s")))
    rig.tell(AttemptEnded(0, attempt, None, TokenUsage(1, 1), True, head=more))  # late: it says nothing any more
    assert rig.starts() == []
    rig.tell(AttemptEnded(1, rig.started[1].attempt, None, TokenUsage(1, 1), True, head=more))
    assert rig.starts() == [2]


def test_a_request_larger_than_a_limit_is_refused_at_once_naming_it() -> None:
    rig = Rig(deployment(limits={"tokens_per_minute": 100}))
    rig.submit(1, tokens=(60, 60))
    error = rig.error(1)
    assert isinstance(error, LimitExceeded)
    assert (error.provider, rig.metrics.rejected) == ("openai", 1)
    assert "tokens_per_minute" in error.message


def test_a_request_that_grew_larger_than_a_limit_ends_at_the_head() -> None:
    """What never fits is seen before it is queued; the limiter has the last word all the same."""
    rig = Rig(deployment(serving=ONE_SLOT, limits={"tokens_per_minute": 100}))
    rig.submit(0)
    rig.submit(1)
    rig.engine._registry.requests[1].estimate = TokenEstimate(200, 0)
    rig.submit(2)
    rig.end(0)
    assert rig.starts() == [2]
    assert rig.error(1).provider == "openai"
    assert (rig.outcome(1), rig.metrics.failed) == ("limit_exceeded", 1)


# Deadlines.


def test_a_request_that_cannot_make_its_deadline_is_refused_at_once() -> None:
    rig = Rig(deployment(limits={"requests_per_minute": 1}))
    rig.submit(0)
    rig.submit(1, timeout=60.5)
    assert isinstance(rig.error(1), DeadlineExceeded)
    rig.submit(2, timeout=60.6)
    assert rig.outcome(2) == "-"


@pytest.mark.parametrize("block", ["slot", "limit"])
def test_the_deadline_bounds_waiting_whatever_it_waits_for(block: str) -> None:
    rig = Rig(deployment(serving=ONE_SLOT) if block == "slot" else deployment(limits={"concurrent_requests": 1}))
    rig.submit(0)
    rig.submit(1, timeout=2.0)
    rig.tick(1.9)
    assert rig.outcome(1) == "-"
    rig.tick_at_deadline()
    assert rig.now == START + 2.0
    assert rig.outcome(1) == "deadline_exceeded"
    assert rig.error(1).provider == "openai"
    rig.end(0)
    assert rig.starts() == []


def test_nothing_starts_at_its_deadline_even_if_a_slot_comes_free_at_that_instant() -> None:
    rig = busy()
    rig.submit(1, timeout=2.0)
    rig.now += 2.0
    rig.end(0)
    assert rig.starts() == []
    assert rig.outcome(1) == "deadline_exceeded"


def test_the_clock_of_an_attempt_ends_no_later_than_its_request() -> None:
    rig = Rig(deployment(timeouts={"connect_timeout": 9.0}))
    rig.submit(1, timeout=2.0)
    rig.send(1)
    rig.tick_at_deadline()
    assert rig.now == START + 2.0
    assert rig.aborts() == [1]


# The queue's bound.


def test_a_full_queue_rejects() -> None:
    rig = busy(deployment(serving={**ONE_SLOT, "queue_capacity": 1, "on_capacity_exhausted": "reject"}))
    rig.submit(1)
    rig.submit(2)
    error = rig.error(2)
    assert isinstance(error, Backpressure)
    assert not error.fallback
    assert error.provider == "openai"
    assert (rig.metrics.rejected, rig.metrics.failures) == (1, {"backpressure": 1})


def test_or_marks_for_a_router() -> None:
    rig = busy(deployment(serving={**ONE_SLOT, "queue_capacity": 1, "on_capacity_exhausted": "fallback"}))
    rig.submit(1)
    rig.submit(2)
    error = rig.error(2)
    assert isinstance(error, Backpressure)
    assert error.fallback


def test_or_lets_as_many_again_wait_outside_for_a_while() -> None:
    rig = busy(deployment(serving={**ONE_SLOT, "queue_capacity": 1, "queue_timeout": 3.0}))
    for request_id in (1, 2, 3):
        rig.submit(request_id)
    assert rig.outcome(3) == "backpressure"
    rig.tick_at_deadline()
    assert rig.now == START + 3.0
    assert (rig.outcome(1), rig.outcome(2)) == ("-", "backpressure")
    assert (rig.metrics.rejected, rig.metrics.failed) == (2, 0)


# Money.


def test_a_budget_that_does_not_cover_a_request_fails_it_and_says_so() -> None:
    price, budget = {"input": 1_000_000.0, "output": 0.0}, {"max_spend_per_hour_usd": 15.0}
    rig = Rig(deployment(price=price, budget=budget))
    rig.submit(1)
    rig.submit(2)
    assert isinstance(rig.error(2), BudgetExceeded)
    assert rig.notices("budget") == [{"action": "reject"}]
    rig.end(1, usage=TokenUsage(4, 0))
    rig.submit(3)
    assert rig.starts() == [3]
    assert rig.metrics.cost_usd == 4.0


def test_a_refusal_says_when_the_budget_would_cover_it() -> None:
    price, budget = {"input": 1_000_000.0, "output": 0.0}, {"max_spend_per_hour_usd": 15.0}
    rig = Rig(deployment(price=price, budget=budget))
    rig.submit(1)
    rig.tick(100.0)
    rig.submit(2)
    rig.submit(3, tokens=(16, 0))
    assert (rig.error(2).retry_after, rig.error(3).retry_after) == (3_500.0, None)  # 16 dollars never fit


@pytest.mark.parametrize(("action", "at_once"), [("warn", [1, 2, 3]), ("throttle", [1])])
def test_a_spent_budget_warns_or_throttles(action: str, at_once: list[int]) -> None:
    price = {"input": 1_000_000.0, "output": 0.0}
    budget = {"max_spend_per_hour_usd": 5.0, "on_exceeded": action}
    rig = Rig(deployment(price=price, budget=budget, serving={"max_concurrent": 3}))
    for request_id in (1, 2, 3):
        rig.submit(request_id)
        assert rig.notices("budget") == ([{"action": action}] if request_id == 1 else [])  # it is said once
    assert [request_id for request_id in (1, 2, 3) if request_id in rig.started] == at_once


def test_a_dear_answer_is_told_when_it_ends() -> None:
    price, budget = {"input": 1_000_000.0, "output": 0.0}, {"max_spend_per_hour_usd": 15.0, "on_exceeded": "warn"}
    rig = Rig(deployment(price=price, budget=budget))
    rig.submit(1)
    assert rig.notices("budget") == []
    rig.end(1, usage=TokenUsage(15, 0))
    assert rig.notices("budget") == [{"action": "warn"}]


def test_a_retry_that_the_budget_does_not_cover_says_what_it_was_for() -> None:
    price, budget = {"input": 1_000_000.0, "output": 0.0}, {"max_spend_per_hour_usd": 15.0}
    rig = Rig(deployment(price=price, budget=budget))
    rig.submit(1)
    rig.send(1)
    failure = ServerError(500)
    rig.end(1, failure)  # of which nobody knows what it came to: its ten dollars stand
    rig.tick_at_deadline()
    assert isinstance(rig.error(1), BudgetExceeded)
    assert rig.error(1).cause is failure


# A 429 is the bucket's affair.


def paused(hint: float | None, *waiting: dict[str, Any]) -> Rig:
    """Request 0 met a 429 with this hint, while the others (1, 2, …) were queued."""
    rig = busy(deployment(serving=ONE_SLOT, retry={"max_retries": 0, "max_retry_after": 20.0}))
    for request_id, options in enumerate(waiting, 1):
        rig.submit(request_id, **options)
    rig.send(0)
    rig.end(0, RateLimited("openai", hint))
    assert rig.outcome(0) == "rate_limited"
    return rig


def test_a_429_pauses_everything_until_its_hint() -> None:
    rig = paused(10.0, {}, {})
    assert rig.starts() == []
    assert rig.notices("throttled") == [{"retry_after": 10.0}]
    rig.tick(9.9)
    assert rig.starts() == []
    rig.tick_at_deadline()
    assert (rig.now, rig.starts()) == (START + 10.0, [1])
    assert rig.metrics.throttled == 1


def test_without_a_hint_nothing_pauses() -> None:
    assert paused(None, {}).starts() == [1]


def test_whoever_cannot_wait_for_the_end_of_a_pause_fails_now_and_not_after_it() -> None:
    rig = paused(10.0, {}, {"timeout": 10.0}, {"timeout": 10.1})
    assert [rig.outcome(request_id) for request_id in (1, 2, 3)] == ["-", "deadline_exceeded", "-"]
    assert isinstance(rig.error(2).cause, RateLimited)


def test_a_pause_looks_only_at_those_who_cannot_wait_for_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(deployment(serving={"max_concurrent": 1}))
    rig.submit(1)
    for request_id in range(2, 60):
        rig.submit(request_id, timeout=5.0 if request_id % 10 == 0 else 500.0)
    looked_at: list[int] = []
    right = RemoteEngineCore._past_pause

    def counting(self: RemoteEngineCore, request: Request) -> object:
        looked_at.append(request.add.request_id)
        return right(self, request)

    monkeypatch.setattr(RemoteEngineCore, "_past_pause", counting)
    rig.end(1, RateLimited("openai", 10.0))
    assert [rig.outcome(request_id) for request_id in (10, 20, 30, 40, 50)] == ["deadline_exceeded"] * 5
    assert set(looked_at) <= {1, 2, 10, 20, 30, 40, 50}  # and the head, which is about to start


def test_a_pause_longer_than_max_retry_after_fails_every_waiter() -> None:
    rig = paused(20.1, {}, {"timeout": 15.0})
    assert [rig.outcome(request_id) for request_id in (1, 2)] == ["rate_limited", "deadline_exceeded"]
    rig.submit(3)
    error = rig.error(3)
    assert isinstance(error, RateLimited)
    assert error.retry_after == pytest.approx(20.1)
    rig.now += 1.0
    rig.submit(4)
    assert rig.outcome(4) == "-"


def test_a_pause_is_drawn_upon_once() -> None:
    rig = Rig(deployment(serving={"max_concurrent": 2}, retry={"max_retries": 0}))
    for request_id in (0, 1, 2):
        rig.submit(request_id)
    rig.end(0, RateLimited("openai", 10.0))
    rig.end(1, RateLimited("openai", 5.0))
    assert rig.outcome(2) == "-"
    assert rig.metrics.throttled == 2


def test_a_pause_reaches_those_who_back_off_and_every_lane_of_the_limiter() -> None:
    rig = Rig(deployment("a", serving={"max_concurrent": 2}, retry={"max_retry_after": 5.0}), deployment("b"))
    rig.submit(0, "a")
    rig.submit(1, "a")
    rig.submit(2, "b", timeout=30.0)
    rig.end(2, NetworkError())
    assert rig.metrics.waiting == 1
    rig.end(1, NetworkError())
    rig.end(0, RateLimited("openai", 29.9))
    assert [rig.outcome(request_id) for request_id in (0, 1, 2)] == ["rate_limited", "rate_limited", "-"]


def test_who_backs_off_and_cannot_wait_for_the_end_of_a_pause_fails_too() -> None:
    rig = Rig(deployment(serving={"max_concurrent": 3}, retry={"initial_backoff": 1.0}))
    rig.submit(0)
    rig.submit(1, timeout=10.0)
    rig.submit(2, timeout=10.1)
    rig.end(1, NetworkError())
    rig.end(2, NetworkError())
    rig.end(0, RateLimited("openai", 10.0))
    assert [rig.outcome(request_id) for request_id in (1, 2)] == ["deadline_exceeded", "-"]
    (lane,) = rig.engine._roster.lanes.values()
    assert list(lane.backing_off) == [2, 0]
    rig.tick(10.05)
    assert list(lane.backing_off) == []


def test_a_pause_is_drawn_upon_whatever_the_epoch_of_the_clock() -> None:
    rig = Rig(deployment(serving=ONE_SLOT, retry={"max_retries": 0}), start=-5_000.0)
    rig.submit(0)
    rig.submit(1)
    rig.submit(2, timeout=5.0)
    rig.end(0, RateLimited("openai", 10.0))
    assert [rig.outcome(request_id) for request_id in (1, 2)] == ["-", "deadline_exceeded"]


def test_a_pause_found_at_the_head_fails_it_too() -> None:
    """A pause that came while there was still time, for a head that has none left when its turn comes."""
    rig = Rig(deployment(serving=ONE_SLOT, retry={"max_retries": 0, "max_retry_after": 5.0}), deployment("b"))
    rig.submit(0)
    rig.submit(1, "b")
    rig.submit(2)
    rig.end(1, RateLimited("openai", 4.0))
    assert rig.outcome(2) == "-"
    rig.submit(3, timeout=3.0)
    assert rig.outcome(3) == "deadline_exceeded"
    rig.engine._registry.requests[2].deadline = rig.now + 2.0
    rig.end(0)
    assert rig.outcome(2) == "deadline_exceeded"


# Time.


def test_a_clock_that_goes_backwards_stands_still() -> None:
    rig = Rig(deployment(limits={"requests_per_minute": 1}))
    rig.submit(0)
    rig.submit(1)
    rig.end(0)
    rig.now -= 500.0
    rig.submit(2, timeout=100.0)  # counted from where the clock stands, not from what it says
    assert rig.starts() == []
    assert rig.outcome(2) == "-"
    assert rig.engine.deadline() == START + 60.5
    assert rig.engine.limiter_snapshot(rig.now).in_flight == 0
    rig.now = START + 60.5
    rig.tick()
    assert rig.starts() == [1]


def test_the_same_facts_and_seed_give_the_same_orders() -> None:
    def run() -> list[Any]:
        engine = RemoteEngineCore(deployment(), rng=random.Random(3))
        return [engine.handle(AddRequest(i, "chat", BATCH, TokenEstimate(1, 1)), 1.0 * i, 2.0 * i) for i in range(5)]

    assert [[type(effect) for effect in effects] for effects in run()] == [
        [type(effect) for effect in effects] for effects in run()
    ]


def test_what_is_ordered_first_is_carried_out_first() -> None:
    rig = busy()
    rig.submit(1)
    rig.end(0)
    assert [type(effect) for effect in rig.effects] == [Complete, StartAttempt]


def test_slots_that_a_budget_took_come_back_by_time_alone() -> None:
    price, budget = {"input": 1_000_000.0, "output": 0.0}, {"max_spend_per_hour_usd": 5.0, "on_exceeded": "throttle"}
    patient = {"connect_timeout": None, "request_timeout": 7200.0}
    rig = Rig(deployment(price=price, budget=budget, serving={"max_concurrent": 2}, timeouts=patient))
    rig.submit(1, tokens=(5, 0))
    rig.submit(2, tokens=(1, 0))
    assert 2 not in rig.started
    rig.tick_at_deadline()
    assert 2 in rig.started
    assert rig.now >= START + 3600.0


def test_a_hint_that_is_not_respected_pauses_nobody() -> None:
    rig = busy(deployment(serving=ONE_SLOT, retry={"max_retries": 0, "respect_retry_after": False}))
    rig.submit(1)
    rig.send(0)
    rig.end(0, RateLimited("openai", 10.0))
    assert rig.starts() == [1]
