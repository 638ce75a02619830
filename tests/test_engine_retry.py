"""`sansio.engine`: what follows a failed attempt (spec 4.3) and when an attempt is cut (spec 4.9)."""

from __future__ import annotations

from typing import Any

import pytest
from engine_harness import EVENT_STREAM, START, USAGE, Rig, deployment

from sansio.batch import Provenance, TokenUsage
from sansio.errors import (
    BadRequest,
    Conflict,
    ContentFiltered,
    InferenceError,
    NetworkError,
    ProtocolError,
    QuotaExhausted,
    RateLimited,
    ServerError,
    StreamInterrupted,
    Timeout,
)
from sansio.events import AbortAttempt, AttemptEnded, HeadReceived
from sansio.http import ResponseHead


def failed(error: InferenceError, *, after: float = 0.0, **options: Any) -> Rig:
    """A rig whose request 1 has just failed with this."""
    rig = Rig(deployment(**options))
    rig.submit(1)
    rig.send(1)
    rig.tick(after)
    rig.end(1, error)
    return rig


# Retrying.


@pytest.mark.parametrize(
    "error", [NetworkError(), ServerError(503), Timeout(1.0), Conflict(), RateLimited(), ProtocolError(retryable=True)]
)
def test_what_may_pass_is_sent_again_after_its_backoff(error: InferenceError) -> None:
    rig = failed(error)
    assert rig.notices("retry_scheduled") == [{"reason": error.kind, "wait": 1.0, "attempt": 1}]
    assert (rig.metrics.waiting, rig.metrics.in_flight, rig.metrics.retries) == (1, 0, {error.kind: 1})
    rig.tick(0.9)
    assert rig.starts() == []
    rig.tick_at_deadline()
    assert (rig.now, rig.starts(), rig.metrics.attempts) == (START + 1.0, [1], 2)
    rig.end(1)
    assert rig.outcome(1) == "ok"


@pytest.mark.parametrize(
    "error", [BadRequest(), ContentFiltered(), ProtocolError(), QuotaExhausted(), NetworkError(should_retry=False)]
)
def test_what_will_not_is_sent_once(error: InferenceError) -> None:
    rig = failed(error)
    assert rig.outcomes[1] is error
    assert (rig.metrics.failed, rig.metrics.failures) == (1, {error.kind: 1})


def test_a_backoff_of_nothing_is_over_at_once() -> None:
    assert failed(NetworkError(), retry={"initial_backoff": 0.0}).starts() == [1]


def test_backoff_grows_and_ends_after_max_retries() -> None:
    rig = failed(NetworkError(), retry={"max_retries": 2})
    for wait in (1.0, 2.0):
        before = rig.now
        rig.tick_at_deadline()
        assert rig.now == before + wait
        rig.end(1, NetworkError())
    assert (rig.outcome(1), rig.metrics.attempts) == ("network_error", 3)
    assert rig.engine.deadline() is None


def test_waiting_for_a_retry_holds_no_slot() -> None:
    rig = Rig(deployment(serving={"max_concurrent": 1}))
    rig.submit(1)
    rig.submit(2)
    rig.end(1, NetworkError())
    assert rig.starts() == [2]


def test_no_retry_before_the_hint() -> None:
    rig = failed(ServerError(503, retry_after=7.0))
    rig.tick(6.9)
    assert rig.starts() == []
    rig.tick_at_deadline()
    assert (rig.now, rig.starts()) == (START + 7.0, [1])


@pytest.mark.parametrize(("hint", "timeout"), [(60.1, None), (10.0, 10.0)])
def test_a_hint_too_long_or_past_the_deadline_fails_at_once(hint: float, timeout: float | None) -> None:
    rig = Rig()
    rig.submit(1, timeout=timeout)
    rig.end(1, ServerError(503, retry_after=hint))
    assert rig.outcome(1) == "server_error"


def test_work_that_is_not_idempotent_is_sent_once() -> None:
    assert failed(NetworkError(), idempotent=False).outcome(1) == "network_error"


def test_an_outage_does_not_multiply_the_load() -> None:
    """Ten retries in ten seconds are free; a hundred requests earn twenty more (spec 4.3.5)."""
    rig = Rig(deployment(serving={"max_concurrent": 200}, breaker={"failure_threshold": 1_000}))
    for request_id in range(100):
        rig.submit(request_id)
    for request_id in range(100):
        rig.end(request_id, NetworkError())
    assert (rig.metrics.waiting, rig.metrics.failed) == (30, 70)


def test_a_429_that_says_when_to_come_back_costs_the_retry_budget_nothing() -> None:
    rig = Rig(deployment(serving={"max_concurrent": 200}))
    for request_id in range(40):
        rig.submit(request_id)
    for request_id in range(40):
        rig.end(request_id, RateLimited("openai", 5.0))
    assert (rig.metrics.waiting, rig.metrics.failed) == (40, 0)


# The commit point.


def test_nothing_is_replayed_after_the_commit_point() -> None:
    rig = Rig()
    rig.submit(1)
    rig.commit(1)
    rig.end(1, NetworkError())
    error = rig.error(1)
    assert isinstance(error, StreamInterrupted)
    assert isinstance(error.cause, NetworkError)
    assert rig.metrics.attempts == 1


def test_whatever_its_error_says() -> None:
    """The engine knows the commit point from the exchange, not from the shape of the error a driver reports."""
    rig = Rig()
    rig.submit(1)
    rig.commit(1)
    rig.tell(AttemptEnded(1, rig.started[1].attempt, NetworkError(should_retry=True), None, True))
    assert rig.outcome(1) == "network_error"


def test_what_broke_a_stream_is_still_heard() -> None:
    rig = Rig()
    rig.submit(1)
    rig.submit(2)
    rig.commit(1)
    rig.end(1, RateLimited("openai", 5.0))
    assert rig.outcome(1) == "stream_interrupted"
    assert rig.engine.limiter_snapshot(rig.now).paused_until == rig.now + 5.0


def test_a_stream_may_break_for_a_reason_that_is_no_error_of_ours() -> None:
    rig = Rig()
    rig.submit(1)
    rig.commit(1)
    rig.tell(AttemptEnded(1, rig.started[1].attempt, StreamInterrupted(None, None, OSError("gone")), None, True))
    assert rig.outcome(1) == "stream_interrupted"


# Usage.


def test_every_attempt_that_used_tokens_counts_once() -> None:
    rig = failed(NetworkError())
    rig.tick(1.0)
    rig.end(1)
    rig.tell(AttemptEnded(1, rig.started[1].attempt, None, USAGE, True))
    metrics = rig.metrics
    assert (metrics.usage, metrics.unknown_usage, metrics.unknown_cost) == (USAGE, 1, 1)
    assert metrics.cost_usd == pytest.approx(10 * 2.5e-6 + 10 * 10e-6)
    assert metrics.costs["chat", "gpt-4o"].attempts == 2


def test_what_was_never_sent_used_nothing() -> None:
    rig = Rig()
    rig.submit(1)
    rig.end(1, BadRequest(), sent=False)
    assert (rig.metrics.unknown_usage, rig.metrics.costs) == (0, {})


def test_a_sum_with_a_lower_bound_in_it_is_a_lower_bound() -> None:
    rig = Rig()
    provenances: tuple[Provenance, ...] = ("exact", "lower_bound", "exact")
    for request_id, provenance in enumerate(provenances, 1):
        rig.submit(request_id)
        rig.end(request_id, usage=TokenUsage(1, 2, 3, 4, 5, provenance))
    assert rig.metrics.usage == TokenUsage(3, 6, 9, 12, 15, "lower_bound")


def test_success_may_leave_the_usage_unknown() -> None:
    rig = Rig()
    rig.submit(1)
    rig.end(1, usage=None)
    assert (rig.outcome(1), rig.metrics.unknown_usage) == ("ok", 1)


# The clocks of an attempt are the engine's deadline.


TIMEOUTS = {"connect_timeout": 2.0, "request_timeout": 6.0, "read_timeout": 4.0, "content_timeout": 5.0}


def test_an_attempt_that_never_connects_is_cut_and_ends_with_its_report() -> None:
    rig = Rig(deployment(timeouts=TIMEOUTS))
    rig.submit(1)
    rig.started[1].exchange.connecting(rig.now)
    rig.tick_at_deadline()
    assert rig.now == START + 2.0
    (abort,) = rig.of(AbortAttempt)
    assert isinstance(abort.error, Timeout)
    assert (abort.error.phase, rig.outcome(1), rig.metrics.in_flight) == ("connect", "-", 1)
    rig.tick(10.0)
    assert rig.aborts() == []
    rig.end(1, abort.error)
    assert (rig.metrics.in_flight, rig.metrics.retries) == (0, {"timeout": 1})


def test_a_clock_that_started_without_the_engine_hearing_of_it_is_found_in_time() -> None:
    """Only the driver knows that the request was sent: the engine looks again as often as the shortest clock."""
    rig = Rig(deployment(timeouts=TIMEOUTS))
    rig.submit(1)
    rig.now += 1.5
    rig.send(1)
    cut = []
    while not cut:
        rig.tick_at_deadline()
        cut = rig.aborts()
    assert rig.now == START + 7.5


def test_the_head_moves_the_deadline_of_an_attempt_earlier() -> None:
    rig = Rig(deployment(timeouts={"connect_timeout": None, "request_timeout": 60.0, "read_timeout": 4.0}))
    rig.submit(1)
    assert rig.engine.deadline() == START + 60.0
    rig.head(1)
    assert rig.engine.deadline() == START + 4.0


def test_without_clocks_nothing_is_waited_for() -> None:
    off = dict.fromkeys(("connect_timeout", "read_timeout", "content_timeout"))
    rig = Rig(deployment(timeouts=off))
    rig.submit(1)
    rig.head(1)
    assert rig.engine.deadline() is None


def test_a_head_that_comes_after_the_abort_arms_nothing() -> None:
    rig = Rig(deployment(timeouts=TIMEOUTS))
    rig.submit(1)
    rig.send(1)
    rig.tick(6.0)
    assert rig.aborts() == [1]
    attempt = rig.started[1]
    attempt.exchange.receive_head(200, EVENT_STREAM, rig.now, rig.now)
    rig.tell(HeadReceived(1, attempt.attempt, ResponseHead(200, ())))
    assert rig.engine.deadline() is None


def test_the_next_attempt_has_clocks_of_its_own() -> None:
    rig = Rig(deployment(timeouts=TIMEOUTS))
    rig.submit(1)
    rig.send(1)
    rig.tick(6.0)
    rig.end(1, rig.of(AbortAttempt)[0].error)
    rig.tick(1.0)
    assert rig.starts() == [1]
    rig.send(1)
    rig.tick(6.0)
    assert rig.aborts() == [1]
