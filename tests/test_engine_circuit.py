"""`sansio.engine` and `sansio.circuits`: what follows when a circuit opens, half-opens and closes (spec 4.4)."""

from __future__ import annotations

import math
from typing import Any

import pytest
from engine_harness import START, UNIX_AHEAD, Rig, deployment

from sansio.circuit_breaker import CircuitState
from sansio.errors import (
    BadRequest,
    CircuitOpen,
    Conflict,
    Forbidden,
    InferenceError,
    NetworkError,
    QuotaExhausted,
    RateLimited,
    ServerError,
)
from sansio.events import CircuitAction, Committed, OverrideCircuit

ONCE = {"max_retries": 0}
BREAKER = {"failure_threshold": 1, "open_duration": 30.0, "probe_timeout": 20.0, "max_open_duration": 120.0}
TWO_SLOTS = {"max_concurrent": 2}


def rig_with(**options: Any) -> Rig:
    return Rig(deployment(**({"retry": ONCE, "breaker": BREAKER} | options)))


def opened(**options: object) -> Rig:
    """A rig whose endpoint failed at START, so that its circuit is open for 30 s."""
    rig = rig_with(**options)
    rig.submit(0)
    rig.end(0, ServerError(503))
    assert rig.engine.circuit_state(rig.now) is CircuitState.OPEN
    return rig


def half_open(**options: object) -> Rig:
    """The same 30 s later, with request 1 as its probe and request 2 waiting."""
    rig = opened(**options)
    rig.submit(1, wait_for_circuit=True)
    rig.submit(2, wait_for_circuit=True, timeout=60.0)
    rig.tick(30.0)
    assert rig.starts() == [1]
    return rig


# Opening.


def test_when_it_opens_everything_new_fails_at_once_in_both_clocks() -> None:
    rig = opened()
    rig.now += 10.0
    rig.submit(1)
    error = rig.error(1)
    assert isinstance(error, CircuitOpen)
    assert error.opened_at_unix_ms == round((START + UNIX_AHEAD) * 1000)
    assert error.retry_at_unix_ms == round((START + 30.0 + UNIX_AHEAD) * 1000)
    assert (error.retry_after, error.provider) == (20.0, "openai")
    assert isinstance(error.cause, ServerError)
    assert rig.metrics.rejected == 1


def test_so_does_what_is_queued_and_what_backs_off() -> None:
    rig = Rig(deployment(breaker=BREAKER | {"failure_threshold": 2}, serving=TWO_SLOTS))
    for request_id in (1, 2, 3):
        rig.submit(request_id)
    rig.end(1, NetworkError())
    assert rig.metrics.waiting == 1
    rig.end(2, ServerError(500))
    assert [rig.outcome(request_id) for request_id in (1, 2)] == ["circuit_open", "circuit_open"]
    assert isinstance(rig.error(1).cause, ServerError)
    assert isinstance(rig.error(2).cause, ServerError)
    assert rig.starts() == []
    rig.end(3)
    assert rig.outcome(3) == "ok"
    assert rig.engine.deadline() == START + 30.0


def test_operators_are_told_and_transitions_counted() -> None:
    rig = opened()
    assert rig.notices("circuit") == [{"source": "closed", "target": "open", "reason": "failure_threshold"}]
    rig.tick(30.0)
    rig.submit(1)
    rig.end(1)
    assert rig.metrics.circuit_transitions == {"closed->open": 1, "open->half_open": 1, "half_open->closed": 1}


@pytest.mark.parametrize("error", [RateLimited(), BadRequest(), Conflict()])
def test_what_says_nothing_of_the_endpoint_does_not_open_it(error: InferenceError) -> None:
    rig = rig_with()
    rig.submit(1)
    rig.end(1, error)
    assert rig.engine.circuit_state(rig.now) is CircuitState.CLOSED


def test_deployments_at_one_endpoint_share_its_circuit() -> None:
    rig = Rig(
        deployment("a", breaker=BREAKER, retry=ONCE),
        deployment("b", model="gpt-4o-mini", serving={"max_concurrent": 1}),
        deployment("c", endpoint="http://two.test/v1"),
    )
    rig.submit(0, "a")
    for request_id in (1, 2):
        rig.submit(request_id, "b")
    rig.end(0, NetworkError())
    rig.submit(3, "c")
    assert [rig.outcome(request_id) for request_id in (1, 2, 3)] == ["-", "circuit_open", "-"]
    assert rig.engine.circuit_state(rig.now, "b") is CircuitState.OPEN
    assert rig.engine.circuit_state(rig.now, "c") is CircuitState.CLOSED


# Waiting it out.


def test_a_request_may_ask_to_wait_it_out() -> None:
    rig = half_open()
    rig.end(1)
    assert rig.starts() == [2]


def test_or_its_deployment_for_all_its_requests() -> None:
    rig = opened(serving={"on_circuit_open": "wait"})
    rig.submit(1)
    rig.submit(2, wait_for_circuit=False)
    assert [rig.outcome(request_id) for request_id in (1, 2)] == ["-", "circuit_open"]


@pytest.mark.parametrize(("timeout", "outcome"), [(30.0, "circuit_open"), (30.1, "-")])
def test_but_only_within_its_deadline(timeout: float, outcome: str) -> None:
    rig = opened()
    rig.submit(1, wait_for_circuit=True, timeout=timeout)
    assert rig.outcome(1) == outcome


def test_a_retry_waits_it_out_as_well() -> None:
    rig = rig_with(retry={"max_retries": 1})
    rig.submit(1, wait_for_circuit=True)
    rig.end(1, NetworkError())
    assert rig.metrics.waiting == 1
    rig.tick(1.0)
    assert rig.metrics.queued == 1
    rig.tick(29.0)
    assert rig.starts() == [1]


def test_while_a_probe_is_out_its_report_may_come_in_time() -> None:
    """The end of the probe's lease (START + 50) is beyond the deadline (START + 45), but that is not when it reports."""
    rig = opened()
    rig.submit(1, wait_for_circuit=True)
    rig.submit(2, wait_for_circuit=True, timeout=45.0)
    rig.tick(30.0)
    rig.submit(3, wait_for_circuit=True, timeout=5.0)
    assert rig.outcome(2) == rig.outcome(3) == "-"
    rig.tick(4.0)
    rig.end(1)
    assert rig.starts() == [2, 3]


def test_one_that_does_not_wait_is_refused_while_the_probe_is_out() -> None:
    rig = half_open()
    rig.submit(3)
    assert rig.outcome(3) == "circuit_open"


# Half-open.


def test_at_the_end_of_the_open_time_it_probes_and_not_before() -> None:
    rig = opened()
    rig.submit(1, wait_for_circuit=True)
    rig.tick(29.9)
    assert rig.starts() == []
    rig.tick_at_deadline()
    assert (rig.now, rig.starts()) == (START + 30.0, [1])


def test_never_more_probes_than_allowed() -> None:
    rig = opened(breaker=BREAKER | {"half_open_max_probes": 2})
    for request_id in (1, 2, 3):
        rig.submit(request_id, wait_for_circuit=True)
    rig.tick(30.0)
    assert rig.starts() == [1, 2]


def test_a_probe_succeeds_at_its_commit_point() -> None:
    rig = half_open()
    rig.commit(1)
    assert rig.notices("circuit")[0]["target"] == "closed"
    assert rig.starts() == [2]


def test_a_committed_probe_makes_room_for_the_next_where_several_must_succeed() -> None:
    rig = half_open(breaker=BREAKER | {"success_threshold": 2})
    rig.commit(1)
    assert rig.starts() == [2]
    rig.tell(Committed(1, rig.started[1].attempt))
    assert rig.engine.circuit_state(rig.now) is CircuitState.HALF_OPEN
    rig.end(2)
    assert rig.engine.circuit_state(rig.now) is CircuitState.CLOSED


def test_a_failed_probe_opens_it_again() -> None:
    rig = half_open()
    rig.end(1, NetworkError())
    assert (rig.outcome(2), rig.engine.circuit_state(rig.now)) == ("circuit_open", CircuitState.OPEN)


def test_an_ignored_probe_gives_its_place_to_the_next() -> None:
    rig = half_open()
    rig.end(1, BadRequest())
    assert rig.starts() == [2]


def test_so_does_a_cancelled_one_in_the_same_step() -> None:
    rig = half_open()
    rig.send(1)
    rig.cancel(1)
    assert (rig.aborts(), rig.starts()) == ([1], [2])


def test_so_does_one_whose_lane_shares_nothing_but_the_endpoint() -> None:
    rig = Rig(deployment("a", breaker=BREAKER, retry=ONCE), deployment("b", key="sk-two"))
    rig.submit(0, "a")
    rig.end(0, NetworkError())
    rig.submit(1, "a", wait_for_circuit=True)
    rig.submit(2, "b", wait_for_circuit=True)
    rig.tick(30.0)
    assert rig.starts() == [1]
    rig.cancel(1)
    assert rig.starts() == [2]


def test_a_probe_that_does_not_report_gives_its_place_back_in_time() -> None:
    rig = half_open(timeouts={"connect_timeout": None, "request_timeout": 600.0})
    assert rig.engine.deadline() == START + 50.0
    rig.tick_at_deadline()
    assert (rig.now, rig.starts()) == (START + 50.0, [2])
    rig.end(1, NetworkError())
    assert rig.engine.circuit_state(rig.now) is CircuitState.HALF_OPEN


def test_a_report_from_before_it_opened_changes_nothing() -> None:
    rig = rig_with()
    for request_id in (1, 2, 3):
        rig.submit(request_id)
    rig.end(1, NetworkError())
    rig.end(2)
    rig.end(3, NetworkError())
    assert rig.metrics.circuit_transitions == {"closed->open": 1}
    assert rig.outcome(2) == "ok"


def test_a_waiting_head_that_a_limit_holds_back_does_not_keep_the_probe() -> None:
    rig = opened(limits={"requests_per_minute": 1})
    rig.submit(1, wait_for_circuit=True)
    rig.tick(30.0)
    assert rig.starts() == []
    rig.tick_at_deadline()
    assert (rig.now, rig.starts()) == (START + 60.5, [1])


def test_a_queued_request_that_does_not_wait_fails_when_it_meets_the_probe_of_another() -> None:
    """It was let in while a probe was to be had, and then had to wait for its limit."""
    rig = Rig(
        deployment("a", breaker=BREAKER | {"probe_timeout": 60.0}, retry=ONCE, limits={"requests_per_minute": 1}),
        deployment("b", model="gpt-4o-mini"),
    )
    rig.submit(0, "a")
    rig.end(0, NetworkError())
    rig.tick(30.0)
    rig.submit(1, "a")
    assert rig.outcome(1) == "-"
    rig.submit(2, "b")
    assert rig.starts() == [2]
    rig.tick(30.5)
    assert rig.outcome(1) == "circuit_open"


# Operators.


def test_an_operator_opens_it_for_a_time() -> None:
    rig = rig_with()
    rig.tell(OverrideCircuit(None, CircuitAction.OPEN, 5.0))
    rig.submit(1)
    assert rig.outcome(1) == "circuit_open"
    assert rig.error(1).cause is None
    rig.tick_at_deadline()
    assert rig.now == START + 5.0
    rig.submit(2)
    assert rig.starts() == [2]


def test_opened_for_no_time_at_all_it_probes_at_once() -> None:
    rig = rig_with(serving={"max_concurrent": 1})
    for request_id in (1, 2):
        rig.submit(request_id)
    rig.tell(OverrideCircuit("chat", CircuitAction.OPEN, 0.0))
    assert [notice["target"] for notice in rig.notices("circuit")] == ["open", "half_open"]
    assert rig.engine.circuit_state(rig.now) is CircuitState.HALF_OPEN
    assert rig.outcomes == {}
    rig.end(1)
    assert rig.starts() == [2]


def test_or_until_further_notice() -> None:
    rig = rig_with()
    rig.tell(OverrideCircuit("chat", CircuitAction.OPEN))
    rig.submit(1, wait_for_circuit=True, timeout=1_000.0)
    error = rig.error(1)
    assert isinstance(error, CircuitOpen)
    assert (error.retry_at_unix_ms, error.retry_after) == (0, None)
    rig.submit(2, wait_for_circuit=True)
    assert rig.engine.deadline() is None
    rig.tell(OverrideCircuit("chat", CircuitAction.CLOSE))
    assert rig.starts() == [2]


def test_who_can_no_longer_wait_for_a_circuit_held_open_for_longer_fails_at_once() -> None:
    rig = opened()
    rig.submit(1, wait_for_circuit=True, timeout=40.0)
    rig.tell(OverrideCircuit("chat", CircuitAction.OPEN, 40.0))
    assert rig.outcome(1) == "circuit_open"


def test_or_resets_it() -> None:
    rig = opened()
    rig.submit(1, wait_for_circuit=True)
    rig.tell(OverrideCircuit("chat", CircuitAction.RESET))
    assert rig.starts() == [1]


def test_an_order_that_makes_no_sense_is_refused() -> None:
    rig = rig_with()
    with pytest.raises(ValueError, match=r"^duration: "):
        rig.tell(OverrideCircuit("chat", CircuitAction.OPEN, -1.0))
    with pytest.raises(ValueError, match=r"^deployment: "):
        rig.tell(OverrideCircuit("nowhere", CircuitAction.OPEN, 1.0))
    rig.submit(1)
    assert rig.starts() == [1]


# The key's own circuit.


@pytest.mark.parametrize("error", [QuotaExhausted(), Forbidden(), NetworkError(blames_key=True)])
def test_a_key_to_blame_is_used_no_more_by_any_deployment(error: InferenceError) -> None:
    rig = Rig(
        deployment("a", retry=ONCE, breaker={"failure_threshold": 9}),
        deployment("b", model="gpt-4o-mini", endpoint="http://two.test/v1", serving={"max_concurrent": 1}),
        deployment("c", key="sk-two"),
    )
    for request_id, name in ((0, "a"), (1, "b"), (2, "b")):
        rig.submit(request_id, name)
    rig.end(0, error)
    assert rig.outcome(2) == "circuit_open"
    assert rig.error(2).message == "the circuit of this key is open"
    assert rig.error(2).cause is error
    assert rig.notices("key_circuit")[0]["target"] == "open"
    rig.submit(3, "c")
    assert rig.starts() == [3]
    rig.end(1)
    assert rig.engine.circuit_state(rig.now, "a") is CircuitState.CLOSED


@pytest.mark.parametrize(
    ("hint", "seconds"), [(None, 120.0), (7.0, 7.0), (math.inf, 120.0), (math.nan, 120.0), (-1.0, 120.0)]
)
def test_until_its_hint_has_passed_or_the_longest_open_time(hint: float | None, seconds: float) -> None:
    rig = rig_with()
    rig.submit(1)
    rig.end(1, Forbidden(retry_after=hint))
    rig.submit(2, wait_for_circuit=True)
    rig.tick_at_deadline()
    assert (rig.now, rig.starts()) == (START + seconds, [2])


def test_a_hint_of_no_time_at_all_is_told_as_half_open_at_once() -> None:
    rig = rig_with()
    rig.submit(1)
    rig.end(1, Forbidden(retry_after=0.0))
    assert [notice["target"] for notice in rig.notices("key_circuit")] == ["open", "half_open"]


def test_a_stream_that_broke_for_the_keys_sake_trips_it_too() -> None:
    rig = rig_with()
    rig.submit(1)
    rig.commit(1)
    rig.end(1, QuotaExhausted())
    rig.submit(2)
    assert rig.outcome(2) == "circuit_open"


def test_a_longer_refusal_of_the_key_fails_who_can_no_longer_wait() -> None:
    rig = rig_with()
    for request_id in (1, 2):
        rig.submit(request_id)
    rig.end(1, Forbidden(retry_after=5.0))
    rig.submit(3, wait_for_circuit=True, timeout=10.0)
    rig.end(2, Forbidden(retry_after=20.0))
    assert rig.outcome(3) == "circuit_open"


@pytest.mark.parametrize("action", [CircuitAction.CLOSE, CircuitAction.RESET])
def test_closing_and_resetting_lift_what_is_held_against_the_key(action: CircuitAction) -> None:
    rig = rig_with()
    rig.submit(1)
    rig.end(1, Forbidden())
    rig.submit(2)
    assert rig.outcome(2) == "circuit_open"
    rig.tell(OverrideCircuit("chat", action))
    rig.submit(3)
    assert rig.starts() == [3]
