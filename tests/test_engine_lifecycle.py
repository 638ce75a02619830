"""`sansio.engine`: how requests and the engine itself end, and that what is late or doubled does nothing (spec 4.10)."""

from __future__ import annotations

import typing
from typing import Any

import pytest
from engine_harness import USAGE, Rig, deployment

from sansio.batch import TokenUsage
from sansio.circuit_breaker import CircuitState
from sansio.engine import RemoteEngineCore
from sansio.errors import BadRequest, EngineClosed, NetworkError, ServerError, Unauthorized
from sansio.events import (
    AbortAttempt,
    AttemptEnded,
    Cancel,
    CircuitAction,
    Committed,
    Complete,
    Event,
    HeadReceived,
    OverrideCircuit,
    RebuildSession,
)
from sansio.http import ResponseHead
from sansio.secret import Credential

LIMITS = {"requests_per_minute": 10, "tokens_per_minute": 1_000, "concurrent_requests": 4}
PRICE = {"input": 1_000_000.0, "output": 0.0}


def in_state(state: str) -> Rig:
    """A rig whose request 1 is queued, waiting for a retry, parked on a 401, running, or running and sent."""
    budget = {"max_spend_per_hour_usd": 100.0}
    rig = Rig(deployment(serving={"max_concurrent": 1}, limits=LIMITS, budget=budget, price=PRICE))
    if state == "queued":
        rig.submit(0)
    rig.submit(1, timeout=50.0)
    if state == "backoff":
        rig.end(1, NetworkError(), sent=False)
    elif state == "parked":
        rig.end(1, Unauthorized(), sent=False)
    elif state == "sent":
        rig.send(1)
    return rig


STATES = ("queued", "backoff", "parked", "running", "sent")


def levels(rig: Rig) -> tuple[int, int, int]:
    """Requests, tokens and concurrency that count against the limit."""
    snapshot = rig.engine.limiter_snapshot(rig.now)
    assert snapshot.requests is not None and snapshot.tokens is not None
    return snapshot.requests.used, snapshot.tokens.used, snapshot.in_flight


# Facts.


def test_every_event_has_its_taker_and_nothing_else_has() -> None:
    assert set(RemoteEngineCore._FACTS) == set(typing.get_args(Event))


@pytest.mark.parametrize("event", [None, "Tick", Complete(1, None)])
def test_what_is_no_event_is_misuse_and_changes_nothing(event: Any) -> None:
    rig = Rig()
    rig.now += 5.0
    with pytest.raises(ValueError, match=r"event: .* is none of AddRequest, Cancel, HeadReceived"):
        rig.tell(event)
    assert rig.engine.deadline() is None
    rig.now -= 5.0
    rig.submit(1, timeout=20.0)  # at the time before: the clock was not read
    assert rig.started[1].exchange.deadline == rig.now + 20.0


# Cancelling.


@pytest.mark.parametrize("state", STATES)
def test_cancel_works_in_every_state_and_twice(state: str) -> None:
    rig = in_state(state)
    rig.cancel(1)
    assert [type(effect) for effect in rig.effects] == ([AbortAttempt] if state in ("running", "sent") else [])
    metrics = rig.metrics
    assert (metrics.cancelled, metrics.waiting, metrics.submitted) == (1, 0, metrics.accounted)
    assert rig.cancel(1) == []
    assert rig.metrics == metrics
    rig.tick(100.0)
    assert rig.outcome(1) == "-"


@pytest.mark.parametrize("state", STATES)
def test_no_timer_of_a_cancelled_request_stays(state: str) -> None:
    rig = in_state(state)
    rig.cancel(1)
    for request_id in rig.started:
        rig.end(request_id)
    if rig.refreshes:
        rig.refresh()
    assert rig.engine.deadline() is None


def test_cancelling_gives_the_slot_and_the_concurrency_back_in_the_same_step() -> None:
    rig = in_state("sent")
    rig.submit(2)
    rig.cancel(1)
    assert rig.starts() == [2]
    assert levels(rig)[2] == 1


@pytest.mark.parametrize(("state", "used"), [("running", (0, 0, 0)), ("sent", (1, 20, 0))])
def test_requests_tokens_and_money_come_back_only_if_nothing_was_sent(state: str, used: tuple[int, int, int]) -> None:
    rig = in_state(state)
    rig.cancel(1)
    assert levels(rig) == used


def test_what_was_used_all_the_same_is_heard_once() -> None:
    rig = in_state("sent")
    rig.cancel(1)
    rig.end(1, usage=TokenUsage(3, 1))
    assert rig.notices("late_usage") == [{"known": True}]
    assert (levels(rig), rig.metrics.cost_usd, rig.metrics.usage) == ((1, 4, 0), 3.0, TokenUsage(3, 1))
    assert rig.end(1, usage=TokenUsage(3, 1)) == []
    assert rig.metrics.cost_usd == 3.0


def test_or_counted_as_unknown() -> None:
    rig = in_state("sent")
    rig.cancel(1)
    rig.end(1, NetworkError())
    assert rig.notices("late_usage") == [{"known": False}]
    assert (levels(rig), rig.metrics.unknown_usage) == ((1, 20, 0), 1)


@pytest.mark.parametrize("refused", [True, False])
def test_what_the_provider_refused_before_its_caller_left_used_nothing(refused: bool) -> None:
    rig = in_state("sent")
    rig.started[1].exchange.receive_head(503 if not refused else 404, [], rig.now, 0.0)
    rig.cancel(1)
    rig.end(1, NetworkError())
    assert rig.notices("late_usage") == ([] if refused else [{"known": False}])
    assert rig.metrics.unknown_usage == (0 if refused else 1)
    assert levels(rig)[0] == 1


def test_a_report_of_what_was_never_sent_says_nothing() -> None:
    rig = in_state("running")
    rig.cancel(1)
    assert rig.end(1, NetworkError(), sent=False) == []
    assert rig.metrics.unknown_usage == 0


def test_room_that_a_late_report_makes_is_used_at_once() -> None:
    rig = Rig(deployment(limits={"tokens_per_minute": 100}))
    rig.submit(1, tokens=(10, 80))
    rig.send(1)
    rig.submit(2, tokens=(50, 0))
    rig.cancel(1)
    assert rig.starts() == []
    rig.end(1, usage=TokenUsage(10, 5))
    assert rig.starts() == [2]


def test_a_cancel_is_no_verdict_on_the_endpoint() -> None:
    rig = Rig(deployment(breaker={"failure_threshold": 1}))
    rig.submit(1)
    rig.send(1)
    rig.cancel(1)
    rig.end(1, ServerError(500))
    assert rig.engine.circuit_state(rig.now) is CircuitState.CLOSED


def test_cancelling_what_is_being_cut_already() -> None:
    rig = Rig()
    rig.submit(1)
    rig.send(1)
    rig.tick(60.0)
    assert rig.aborts() == [1]
    rig.cancel(1)
    rig.end(1, NetworkError())
    assert (rig.metrics.cancelled, rig.metrics.retries, rig.engine.deadline()) == (1, {}, None)


# What is late, doubled or unheard of.


def test_facts_of_an_attempt_that_is_over_do_nothing() -> None:
    rig = Rig()
    rig.submit(1)
    first = rig.started[1].attempt
    rig.end(1, NetworkError())
    rig.tick(1.0)
    assert rig.starts() == [1]
    before = rig.metrics
    for fact in (
        AttemptEnded(1, first, None, USAGE, True),
        Committed(1, first),
        HeadReceived(1, first, ResponseHead(200, (("x-ratelimit-remaining-requests", "0"),))),
    ):
        assert rig.tell(fact) == []
    assert rig.metrics == before


def test_facts_of_requests_that_never_were_do_nothing() -> None:
    rig = Rig()
    head = HeadReceived(7, 1, ResponseHead(200, ()))
    for fact in (Cancel(7), AttemptEnded(7, 1, None, USAGE, True), Committed(7, 1), head):
        assert rig.tell(fact) == []
    assert rig.metrics.submitted == 0


# Draining.


@pytest.mark.parametrize("state", STATES)
def test_drain_finishes_what_was_accepted_and_refuses_what_is_new(state: str) -> None:
    rig = in_state(state)
    rig.drain()
    assert not rig.drained()
    rig.submit(2)
    assert rig.outcome(2) == "engine_closed"
    assert not rig.drained()
    while not rig.drained():
        running = [request_id for request_id in rig.started if rig.outcome(request_id) == "-"]
        if rig.refreshes:
            rig.refresh()
        elif rig.metrics.in_flight:
            rig.end(running[-1])
        else:
            rig.tick_at_deadline()
    assert rig.outcome(1) == "ok"


def test_an_engine_with_nothing_to_do_is_drained_at_once_and_each_time() -> None:
    rig = Rig()
    for _ in range(2):
        rig.drain()
        assert rig.drained()
    rig.tick()
    assert not rig.drained()


def test_a_drain_waits_for_the_report_of_what_was_called_off() -> None:
    rig = in_state("sent")
    rig.drain()
    rig.cancel(1)
    assert not rig.drained()
    rig.end(1, NetworkError())
    assert rig.drained()


# Closing.


@pytest.mark.parametrize("state", STATES)
def test_close_ends_everything_at_once_with_engine_closed(state: str) -> None:
    rig = in_state(state)
    rig.close()
    assert isinstance(rig.error(1), EngineClosed)
    assert rig.error(1).provider == "openai"
    metrics = rig.metrics
    assert (metrics.failed, metrics.submitted) == (len(rig.outcomes), metrics.accounted)
    assert rig.drained() is (state in ("backoff", "parked"))
    for request_id in rig.started:
        if state not in ("backoff", "parked"):
            rig.end(request_id, NetworkError())
    assert state in ("backoff", "parked") or rig.drained()
    rig.submit(3)
    assert rig.outcome(3) == "engine_closed"


def test_what_runs_is_told_why_it_is_cut_and_gives_back_what_it_held() -> None:
    rig = in_state("running")
    rig.close()
    (abort,) = rig.of(AbortAttempt)
    (complete,) = rig.of(Complete)
    assert abort.error is complete.error
    assert levels(rig) == (0, 0, 0)


def test_close_while_some_wait_for_a_circuit() -> None:
    rig = Rig()
    rig.tell(OverrideCircuit("chat", CircuitAction.OPEN))
    rig.submit(1, wait_for_circuit=True)
    rig.close()
    assert (rig.outcome(1), rig.drained(), rig.engine.deadline()) == ("engine_closed", True, None)


def test_after_it_nothing_comes_due_and_no_credential_is_fetched() -> None:
    rig = Rig(refreshed=False)
    rig.submit(1)
    rig.refresh(Credential("sk-1", rig.now + rig.unix_ahead + 600.0))
    rig.end(1)
    assert rig.engine.deadline() is not None
    rig.close()
    assert rig.engine.deadline() is None
    rig.tell(RebuildSession("chat"))
    rig.tick(10_000.0)
    assert rig.refreshes == []


def test_nothing_starts_while_it_closes() -> None:
    rig = Rig(deployment(serving={"max_concurrent": 1}))
    for request_id in range(4):
        rig.submit(request_id)
    rig.close()
    assert rig.starts() == []
    assert rig.metrics.failures == {"engine_closed": 4}


def test_close_after_drain_and_close_after_close() -> None:
    rig = in_state("sent")
    rig.drain()
    rig.close()
    rig.end(1, NetworkError())
    assert rig.drained()
    rig.close()
    assert rig.drained()


# What a refusal costs.


@pytest.mark.parametrize(("status", "billed"), [(400, False), (429, False), (500, True)])
def test_a_refusal_is_not_billed_but_may_count_against_the_limits(status: int, billed: bool) -> None:
    rig = in_state("sent")
    rig.started[1].exchange.receive_head(status, (), rig.now, rig.now)
    rig.end(1, BadRequest())
    assert levels(rig) == (1, 20, 0)
    assert (rig.metrics.unknown_usage, rig.metrics.unknown_cost) == ((1, 1) if billed else (0, 0))
    rig.submit(2, tokens=(95, 0))  # of 100 dollars an hour, at a dollar a token
    assert rig.outcome(2) == ("budget_exceeded" if billed else "-")
