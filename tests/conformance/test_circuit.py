"""The circuit: a provider that fails is left alone, probed by one, and trusted again."""

from __future__ import annotations

import threading

import pytest
from conformance.harness import Lab, causes, eventually, said
from conformance.props import Held

from sansio import CircuitOpen, CircuitState, QuotaExhausted, ServerError, StreamInterrupted
from sansio.simulation import Break, Status, Throttle

ONCE = {"max_retries": 0}
AFTER_THREE = {"failure_threshold": 3, "open_duration": 60.0}
SOON_HALF_OPEN = {"failure_threshold": 3, "open_duration": 0.3}


def test_it_opens_after_so_many_failures_and_then_sends_nothing(lab: Lab) -> None:
    lab.script(then=Status(503))
    with lab.engine(retry=ONCE, circuit_breaker=AFTER_THREE) as engine:
        for _ in range(3):
            assert isinstance(engine.ask().error, ServerError)
        error = engine.ask().error
        assert isinstance(error, CircuitOpen)
        assert error.retry_after is not None
        assert 0 < error.retry_after <= 60.0
        assert error.retry_at_unix_ms - error.opened_at_unix_ms == pytest.approx(60_000, abs=2)
        assert engine.metrics.circuit_transitions == {"closed->open": 1}
    assert lab.provider.requests_total == 3


def test_the_refusal_tells_what_opened_it(lab: Lab) -> None:
    lab.script(then=Status(503))
    with lab.engine(retry=ONCE, circuit_breaker=AFTER_THREE) as engine:
        for _ in range(3):
            engine.ask().wait()
        refused = engine.ask().error
        assert isinstance(refused.__cause__, ServerError)
        assert refused.__cause__.status == 503


def test_a_request_that_would_retry_learns_that_it_opened(lab: Lab) -> None:
    lab.script(then=Status(503))
    with lab.engine(retry={"max_retries": 9}, circuit_breaker=AFTER_THREE) as engine:
        error = engine.ask().error
        assert isinstance(error, CircuitOpen)
        assert any(isinstance(cause, ServerError) for cause in causes(error))
    assert lab.provider.requests_total == 3


def test_whoever_is_queued_behind_it_fails_with_it(lab: Lab) -> None:
    gate = threading.Event()
    lab.script(Status(503), Status(503), Held(gate), then=Status(503))
    with lab.engine(
        retry=ONCE, circuit_breaker={"failure_threshold": 2, "open_duration": 60.0}, serving={"max_concurrent": 1}
    ) as engine:
        engine.ask().wait()
        queued = [engine.ask(f"queued {number}") for number in range(4)]
        assert sorted(one.error.kind for one in queued) == ["circuit_open"] * 3 + ["server_error"]
        gate.set()
    assert lab.provider.requests_total == 2


def test_half_open_lets_one_probe_through(lab: Lab) -> None:
    gate = threading.Event()
    lab.script(Status(503), Status(503), Status(503), Held(gate))
    with lab.engine(retry=ONCE, circuit_breaker=SOON_HALF_OPEN) as engine:
        for _ in range(3):
            engine.ask().wait()
        eventually(lambda: engine.call(engine.real.breaker.state) is CircuitState.HALF_OPEN)
        probe = engine.ask("probe")
        eventually(lambda: lab.provider.active == 1)
        others = [engine.ask(f"other {number}") for number in range(10)]
        assert [one.error.kind for one in others] == ["circuit_open"] * 10
        gate.set()
        assert probe.answer.text == said("probe")
        assert engine.stream("after").text == said("after")
        assert engine.metrics.circuit_transitions == {"closed->open": 1, "open->half_open": 1, "half_open->closed": 1}
    assert [record.prompt for record in lab.log[3:]] == ["probe", "after"]


def test_a_streaming_probe_closes_it_with_its_first_content(lab: Lab) -> None:
    gate = threading.Event()
    lab.script(Status(503), Status(503), Status(503), Held(gate, chunks=2))
    with lab.engine(retry=ONCE, circuit_breaker=SOON_HALF_OPEN) as engine:
        for _ in range(3):
            engine.ask().wait()
        eventually(lambda: engine.call(engine.real.breaker.state) is CircuitState.HALF_OPEN)
        probe = engine.ask("probe")
        eventually(lambda: engine.call(engine.real.breaker.state) is CircuitState.CLOSED)
        assert engine.stream("meanwhile").text == said("meanwhile")
        gate.set()
        assert probe.answer.text == said("probe")


@pytest.mark.ways_take_turns
def test_a_failed_probe_opens_it_again(lab: Lab) -> None:
    lab.script(*[Status(503)] * 4)
    with lab.engine(retry=ONCE, circuit_breaker=SOON_HALF_OPEN) as engine:
        for _ in range(3):
            engine.ask().wait()
        eventually(lambda: engine.call(engine.real.breaker.state) is CircuitState.HALF_OPEN)
        assert isinstance(engine.ask("probe").error, ServerError)
        assert engine.metrics.circuit_transitions["half_open->open"] == 1
        eventually(lambda: engine.call(engine.real.breaker.state) is CircuitState.HALF_OPEN)
        assert engine.stream("second probe").text == said("second probe")


def test_a_probe_whose_caller_leaves_gives_its_place_to_another(lab: Lab) -> None:
    gate = threading.Event()
    lab.script(Status(503), Status(503), Status(503), Held(gate))
    with lab.engine(retry=ONCE, circuit_breaker=SOON_HALF_OPEN) as engine:
        for _ in range(3):
            engine.ask().wait()
        eventually(lambda: engine.call(engine.real.breaker.state) is CircuitState.HALF_OPEN)
        engine.ask_and_give_up(lambda: lab.provider.active == 1, "probe")
        assert engine.stream("next probe").text == said("next probe")
        assert engine.call(engine.real.breaker.state) is CircuitState.CLOSED


def test_a_request_may_wait_it_out(lab: Lab) -> None:
    lab.script(*[Status(503)] * 3)
    with lab.engine(retry=ONCE, circuit_breaker=SOON_HALF_OPEN) as engine:
        for _ in range(3):
            engine.ask().wait()
        waiting = [engine.ask(f"waiting {number}", wait_for_circuit=True) for number in range(5)]
        assert [one.answer.text for one in waiting] == [said(f"waiting {number}") for number in range(5)]
    assert lab.provider.requests_total == 8


def test_a_deployment_may_wait_it_out_and_a_request_not(lab: Lab) -> None:
    lab.script(*[Status(503)] * 3)
    with lab.engine(retry=ONCE, circuit_breaker=SOON_HALF_OPEN, serving={"on_circuit_open": "wait"}) as engine:
        for _ in range(3):
            engine.ask().wait()
        assert isinstance(engine.ask(wait_for_circuit=False).error, CircuitOpen)
        assert engine.stream("patient").text == said("patient")


def test_waiting_it_out_ends_where_the_deadline_is_nearer(lab: Lab) -> None:
    lab.script(*[Status(503)] * 3)
    with lab.engine(retry=ONCE, circuit_breaker=AFTER_THREE) as engine:
        for _ in range(3):
            engine.ask().wait()
        assert isinstance(engine.ask(wait_for_circuit=True, timeout=5.0).error, CircuitOpen)


@pytest.mark.cases_take_turns("fault")
@pytest.mark.parametrize("fault", [Throttle(), Status(400), Status(404), Status(409)], ids=["429", "400", "404", "409"])
def test_what_is_not_the_endpoints_fault_does_not_open_it(lab: Lab, fault: Status | Throttle) -> None:
    lab.script(*[fault] * 6)
    with lab.engine(retry=ONCE, circuit_breaker=AFTER_THREE) as engine:
        for _ in range(6):
            engine.ask().wait()
        assert engine.stream().text == said()
        assert engine.metrics.circuit_transitions == {}


def test_a_break_after_the_commit_point_counts_as_its_cause_does(lab: Lab) -> None:
    lab.script(then=Break(chunks=2))
    with lab.engine(retry=ONCE, circuit_breaker=AFTER_THREE) as engine:
        for _ in range(3):
            assert isinstance(engine.ask().error, StreamInterrupted)
        assert isinstance(engine.ask().error, CircuitOpen)


def test_deployments_of_one_endpoint_share_it(lab: Lab) -> None:
    lab.script(then=Status(503))
    settings = {"retry": ONCE, "circuit_breaker": AFTER_THREE}
    here, there = lab.deployment("here", **settings), lab.deployment("there", model="gpt-4o-mini", **settings)
    with lab.engine(here, there) as engine:
        for _ in range(3):
            engine.ask(deployment="here").wait()
        assert isinstance(engine.ask(deployment="there").error, CircuitOpen)


def test_an_exhausted_quota_shuts_the_key_for_all_its_deployments(lab: Lab) -> None:
    lab.script(Throttle(body="quota"))
    here, there = lab.deployment("here"), lab.deployment("there", model="gpt-4o-mini")
    with lab.engine(here, there) as engine:
        assert isinstance(engine.ask(deployment="here").error, QuotaExhausted)
        refused = engine.ask(deployment="there").error
        assert isinstance(refused, CircuitOpen)
        assert isinstance(refused.__cause__, QuotaExhausted)
        assert engine.call(lambda: engine.real.breaker.state("there")) is CircuitState.CLOSED  # the endpoint is well
    assert lab.provider.requests_total == 1


def test_an_operator_opens_and_closes_it_by_hand(lab: Lab) -> None:
    with lab.engine() as engine:
        engine.call(engine.real.breaker.force_open)
        assert isinstance(engine.ask("shut").error, CircuitOpen)
        engine.call(engine.real.breaker.force_closed)
        assert engine.stream("open").text == said("open")
        engine.call(engine.real.breaker.force_open)
        engine.call(engine.real.breaker.reset)
        assert engine.stream("again").text == said("again")
    assert [record.prompt for record in lab.log] == ["open", "again"]
