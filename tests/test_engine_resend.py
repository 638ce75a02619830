"""`sansio.engine`: the keep-alive race. A request whose connection was lost before anything can have come of it goes again.

At once, once, over a new connection, with a lease of its own (spec 4.3; RFC 9112, section 9.3.1; RFC 9113, section 8.7).
"""

from __future__ import annotations

from typing import Any

import pytest
from engine_harness import START, Rig, deployment

from sansio.circuit_breaker import CircuitState
from sansio.errors import InferenceError, NetworkError, RateLimited, ServerError, Timeout
from sansio.events import AttemptEnded, CircuitAction, OverrideCircuit, StartAttempt
from sansio.queue import Priority

PRICE = {"input": 1_000_000.0, "output": 1_000_000.0}  # a dollar a token


def sent(**options: Any) -> Rig:
    """A rig whose request 1 has been sent."""
    rig = Rig(deployment(**options))
    rig.submit(1)
    rig.send(1)
    return rig


def lost(**options: Any) -> Rig:
    """A rig whose request 1 was sent over a connection that had been idle, and lost with it."""
    rig = sent(**options)
    rig.end(1, NetworkError("reset"), stale=True)
    return rig


def unprocessed() -> NetworkError:
    """A server that goes away says which requests it never looked at."""
    return NetworkError("goaway", unprocessed=True)


def used(rig: Rig) -> tuple[int, int, int]:
    """Requests and tokens that count against the limit, and how many run."""
    levels = rig.engine.limiter_snapshot(rig.now)
    assert levels.requests is not None and levels.tokens is not None
    return levels.requests.used, levels.tokens.used, levels.in_flight


# What goes again, and how.


@pytest.mark.parametrize(("error", "stale"), [(NetworkError(), True), (unprocessed(), False), (unprocessed(), True)])
def test_it_goes_again_at_once_over_a_new_connection(error: InferenceError, stale: bool) -> None:
    rig = sent()
    first = rig.started[1]
    rig.end(1, error, stale=stale)
    (start,) = rig.of(StartAttempt)
    assert (start.request_id, first.fresh, start.fresh) == (1, False, True)
    assert start.attempt != first.attempt and start.exchange is not first.exchange
    assert rig.notices("retry_scheduled") == [{"reason": "stale_connection", "wait": 0.0, "attempt": 1}]
    assert (rig.metrics.retries, rig.metrics.attempts, rig.metrics.in_flight) == ({"stale_connection": 1}, 2, 1)
    rig.end(1)
    assert rig.outcome(1) == "ok"


@pytest.mark.parametrize(("error", "stale"), [
    (NetworkError(), False), (Timeout(1.0), True), (ServerError(503), True),
    (NetworkError(should_retry=False, unprocessed=True), True),
])  # fmt: skip
def test_any_other_failure_is_one(error: InferenceError, stale: bool) -> None:
    rig = sent()
    rig.end(1, error, stale=stale)
    assert rig.starts() == []
    assert "stale_connection" not in rig.metrics.retries


def test_a_success_is_one_whatever_its_connection() -> None:
    rig = sent()
    rig.end(1, stale=True)
    assert (rig.outcome(1), rig.metrics.retries) == ("ok", {})


def test_what_may_not_be_done_twice_goes_again_only_if_the_server_says_that_it_never_looked() -> None:
    assert lost(idempotent=False).outcome(1) == "network_error"
    rig = sent(idempotent=False)
    rig.end(1, unprocessed())
    assert rig.starts() == [1]
    rig.end(1, unprocessed())
    assert (rig.outcome(1), rig.metrics.attempts) == ("network_error", 2)


def test_nothing_goes_again_after_the_commit_point() -> None:
    """Whatever a driver says: content has reached the caller."""
    for error in (NetworkError(), unprocessed()):
        rig = sent()
        rig.commit(1)
        rig.tell(AttemptEnded(1, rig.started[1].attempt, error, None, True, stale=True))
        assert (rig.outcome(1), rig.metrics.attempts) == ("network_error", 1)


def test_the_second_loss_is_an_ordinary_failure() -> None:
    rig = lost()
    rig.end(1, NetworkError(), stale=True)
    assert rig.notices("retry_scheduled") == [{"reason": "network_error", "wait": 1.0, "attempt": 2}]
    rig.tick(1.0)
    (start,) = rig.of(StartAttempt)
    assert not start.fresh
    assert rig.metrics.retries == {"stale_connection": 1, "network_error": 1}


# What it costs.


def test_it_is_no_retry_of_its_policy() -> None:
    rig = lost(retry={"max_retries": 1})
    rig.end(1, ServerError(503))
    rig.tick_at_deadline()
    assert (rig.now, rig.starts()) == (START + 1.0, [1])
    rig.end(1, ServerError(503))
    assert (rig.outcome(1), rig.metrics.attempts) == ("server_error", 3)


def test_nor_of_the_budget() -> None:
    """A server that was restarted closes every idle connection at once."""
    rig = Rig(deployment(serving={"max_concurrent": 50}, breaker={"failure_threshold": 1}))
    for request_id in range(40):
        rig.submit(request_id)
    for request_id in range(40):
        rig.send(request_id)
        rig.end(request_id, NetworkError(), stale=True)
    assert (rig.metrics.in_flight, rig.metrics.failed) == (40, 0)


def test_nor_a_failure_of_the_endpoint() -> None:
    rig = lost(breaker={"failure_threshold": 2})
    rig.end(1, NetworkError())
    assert rig.engine.circuit_state(rig.now) is CircuitState.CLOSED


def test_nor_is_it_what_an_open_circuit_is_blamed_on() -> None:
    rig = lost(serving={"max_concurrent": 1})
    rig.tell(OverrideCircuit("chat", CircuitAction.OPEN, 10.0))
    rig.submit(2)
    assert (rig.outcome(2), rig.error(2).cause) == ("circuit_open", None)


def test_a_probe_that_is_lost_so_gives_its_place_back_and_takes_it_again() -> None:
    rig = Rig(deployment(breaker={"failure_threshold": 1}))
    rig.tell(OverrideCircuit("chat", CircuitAction.OPEN, 5.0))
    rig.tick(5.0)
    rig.submit(1)
    rig.send(1)
    rig.end(1, NetworkError(), stale=True)
    assert (rig.starts(), rig.engine.circuit_state(rig.now)) == ([1], CircuitState.HALF_OPEN)
    rig.end(1)
    assert rig.engine.circuit_state(rig.now) is CircuitState.CLOSED


def test_each_of_the_two_counts_against_the_limit() -> None:
    limits = {"requests_per_minute": 10, "tokens_per_minute": 100}
    assert used(lost(limits=limits)) == (2, 40, 1)
    rig = sent(limits=limits)
    rig.end(1, unprocessed())
    assert used(rig) == (2, 40, 1)


def test_but_what_never_left_comes_back() -> None:
    rig = Rig(deployment(limits={"requests_per_minute": 10, "tokens_per_minute": 100}))
    rig.submit(1)
    rig.end(1, NetworkError(), sent=False, stale=True)
    assert (rig.starts(), used(rig), rig.metrics.unknown_usage) == ([1], (1, 20, 1), 0)


def test_what_may_have_been_run_may_cost_and_what_the_server_did_not_look_at_does_not() -> None:
    """As with a refusal: no provider bills what it has not run."""
    for error, reserved, unknown in ((NetworkError(), 40.0, 1), (unprocessed(), 20.0, 0)):
        rig = sent(budget={"max_spend_per_hour_usd": 100.0}, price=PRICE)
        rig.end(1, error, stale=True)
        budget = rig.engine._roster.lanes["chat"].budget
        assert budget is not None and budget.spent(rig.now)[0] == reserved
        assert (rig.metrics.unknown_usage, rig.metrics.unknown_cost) == (unknown, unknown)


# What else may have happened meanwhile.


def test_it_stands_at_its_old_place_in_the_queue() -> None:
    rig = Rig(deployment(serving={"max_concurrent": 1}))
    for request_id in (1, 2):
        rig.submit(request_id)
    rig.send(1)
    rig.end(1, NetworkError(), stale=True)
    assert rig.starts() == [1]


def test_a_circuit_that_opened_meanwhile_refuses_it() -> None:
    rig = sent()
    rig.tell(OverrideCircuit("chat", CircuitAction.OPEN, 10.0))
    loss = NetworkError()
    rig.end(1, loss, stale=True)
    assert (rig.outcome(1), rig.error(1).cause, rig.metrics.retries) == ("circuit_open", loss, {})


def test_or_it_waits_for_it_if_it_would() -> None:
    rig = sent(serving={"on_circuit_open": "wait"})
    rig.tell(OverrideCircuit("chat", CircuitAction.OPEN, 10.0))
    rig.end(1, NetworkError(), stale=True)
    assert (rig.outcome(1), rig.metrics.queued) == ("-", 1)
    rig.tick(10.0)
    (start,) = rig.of(StartAttempt)
    assert start.fresh


def test_a_deadline_that_passed_meanwhile_is_its_end() -> None:
    rig = Rig()
    rig.submit(1, timeout=5.0)
    rig.send(1)
    rig.now += 5.0
    loss = NetworkError()
    rig.end(1, loss, stale=True)
    assert (rig.outcome(1), rig.error(1).cause) == ("deadline_exceeded", loss)


def test_a_pause_that_is_too_long_for_it_fails_it_at_once() -> None:
    rig = sent(serving={"max_concurrent": 2})
    rig.submit(2)
    rig.send(2)
    rig.end(2, RateLimited("openai", 600.0))
    loss = NetworkError()
    rig.end(1, loss, stale=True)
    assert (rig.outcome(1), rig.error(1).cause) == ("rate_limited", loss)


def test_also_where_somebody_else_is_before_it_and_can_wait() -> None:
    rig = Rig(deployment(serving={"max_concurrent": 2}))
    rig.submit(1, timeout=20.0)
    rig.submit(2)
    rig.send(1)
    rig.submit(3, priority=Priority.HIGH)
    rig.end(2, RateLimited("openai", 30.0))
    rig.end(1, NetworkError(), stale=True)
    assert (rig.outcome(1), rig.outcome(3), rig.metrics.queued) == ("deadline_exceeded", "-", 1)


def test_its_first_loss_is_the_cause_of_what_it_ends_with_while_it_waits() -> None:
    rig = Rig(deployment(limits={"requests_per_minute": 1}))
    rig.submit(1, timeout=30.0)
    rig.send(1)
    loss = NetworkError()
    rig.end(1, loss, stale=True)
    assert (rig.outcome(1), rig.error(1).cause) == ("deadline_exceeded", loss)


def test_past_its_deadline_it_does_not_go_again() -> None:
    rig = Rig(deployment())
    rig.submit(1, timeout=5.0)
    rig.send(1)
    rig.now += 5.0
    rig.end(1, NetworkError("reset"), stale=True)
    assert rig.outcome(1) == "deadline_exceeded"
    assert isinstance(rig.error(1).cause, NetworkError)
    assert (rig.notices("retry_scheduled"), rig.metrics.retries) == ([], {})
