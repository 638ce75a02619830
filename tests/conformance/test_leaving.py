"""Leaving: callers that give up or have enough, engines that drain or close. Everything is given back at once."""

from __future__ import annotations

import threading

import pytest
from conformance.harness import Lab, eventually, meanwhile, said
from conformance.props import NEW, OLD, Held, Vault

from sansio import CircuitState, EngineClosed
from sansio.simulation import NeverRespond, StallAfterChunks, StallAfterHead, Status, Throttle

ALONE = {"max_concurrent": 1}
COUNTED = {"requests_per_minute": 100}


# ---- a caller is called off, wherever its request stands -------------------------------------------------------------


def test_called_off_while_queued(lab: Lab) -> None:
    gate = threading.Event()
    lab.script(Held(gate))
    with lab.engine(serving=ALONE) as engine:
        first = engine.ask("first")
        eventually(lambda: lab.provider.active == 1)
        engine.ask_and_give_up(lambda: engine.metrics.queued == 1, "second")
        metrics = engine.metrics
        assert (metrics.queued, metrics.cancelled, metrics.in_flight) == (0, 1, 1)
        gate.set()
        assert first.answer.text == said("first")
    assert [record.prompt for record in lab.log] == ["first"]


def test_called_off_while_waiting_for_a_permit(lab: Lab) -> None:
    gate = threading.Event()
    lab.script(Held(gate))
    with lab.engine(rate_limits={"concurrent_requests": 1}) as engine:
        first = engine.ask("first")
        eventually(lambda: lab.provider.active == 1)
        engine.ask_and_give_up(lambda: engine.metrics.queued == 1, "second")
        assert (engine.metrics.queued, engine.metrics.cancelled) == (0, 1)
        gate.set()
        assert first.answer.text == said("first")
    assert [record.prompt for record in lab.log] == ["first"]


def test_called_off_while_backing_off(lab: Lab) -> None:
    lab.script(Status(503))
    with lab.engine(retry={"initial_backoff": 60.0, "max_backoff": 60.0}) as engine:
        engine.ask_and_give_up(lambda: engine.metrics.waiting == 1)
        assert (engine.metrics.waiting, engine.metrics.cancelled) == (0, 1)
    assert lab.provider.requests_total == 1


def test_called_off_while_the_provider_throttles(lab: Lab) -> None:
    lab.script(Throttle(retry_after="50"))
    with lab.engine() as engine:
        engine.ask_and_give_up(lambda: engine.metrics.waiting == 1, "throttled")
        engine.ask_and_give_up(lambda: engine.metrics.queued == 1, "behind the pause")
        assert (engine.metrics.waiting, engine.metrics.queued, engine.metrics.cancelled) == (0, 0, 2)


def test_called_off_while_connecting(lab: Lab) -> None:
    patient = {"connect_timeout": 60.0}
    with lab.black_hole() as endpoint, lab.engine(endpoint=endpoint, timeouts=patient, rate_limits=COUNTED) as engine:
        engine.ask_and_give_up(lambda: engine.metrics.in_flight == 1)
        assert (engine.metrics.in_flight, engine.metrics.cancelled) == (0, 1)
        assert engine.call(engine.real.limiter.snapshot).requests.used == 0  # nothing was sent: it all comes back


@pytest.mark.parametrize("unary", [False, True], ids=["stream", "unary"])
def test_called_off_before_the_head(lab: Lab, unary: bool) -> None:
    lab.script(NeverRespond())
    with lab.engine(serving=ALONE, rate_limits=COUNTED) as engine:
        engine.ask_and_give_up(lambda: lab.provider.active == 1, unary=unary)
        assert (engine.metrics.in_flight, engine.metrics.cancelled) == (0, 1)
        assert engine.call(engine.real.limiter.snapshot).requests.used == 1  # it was sent: it counts there
        eventually(lambda: lab.log[0].outcome == "client_left")
        assert engine.stream("next").text == said("next")


@pytest.mark.parametrize("unary", [False, True], ids=["stream", "unary"])
def test_called_off_after_the_head(lab: Lab, unary: bool) -> None:
    lab.script(StallAfterHead())
    with lab.engine(serving=ALONE) as engine:
        engine.ask_and_give_up(lambda: lab.log and lab.log[0].status == 200, unary=unary)
        assert (engine.metrics.in_flight, engine.metrics.cancelled) == (0, 1)
        eventually(lambda: lab.log[0].outcome == "client_left")
        assert engine.stream("next").text == said("next")


def test_called_off_in_the_middle_of_a_stream(lab: Lab) -> None:
    lab.script(StallAfterChunks(3))
    with lab.engine(serving=ALONE) as engine:
        asked = engine.ask_and_give_up(lambda: lab.log and lab.log[0].status == 200)
        assert (engine.metrics.in_flight, engine.metrics.cancelled) == (0, 1)
        assert said().startswith(asked.text)
        eventually(lambda: lab.log[0].outcome == "client_left")
        assert engine.stream("next").text == said("next")


def test_called_off_while_parked_for_a_credential(lab: Lab) -> None:
    vault = Vault(OLD, NEW)
    vault.gate.clear()
    lab.take_keys(NEW)
    with lab.engine(key=vault.secret) as engine:
        engine.ask_and_give_up(lambda: engine.metrics.waiting == 1)
        assert (engine.metrics.waiting, engine.metrics.cancelled) == (0, 1)
        vault.gate.set()
        assert engine.stream("next").text == said("next")


def test_called_off_while_waiting_for_the_circuit(lab: Lab) -> None:
    with lab.engine() as engine:
        engine.call(engine.real.breaker.force_open)
        engine.ask_and_give_up(lambda: engine.metrics.queued == 1, wait_for_circuit=True)
        assert (engine.metrics.queued, engine.metrics.cancelled) == (0, 1)
        assert engine.call(engine.real.breaker.state) is CircuitState.OPEN
    assert lab.provider.requests_total == 0


# ---- a caller that has enough ----------------------------------------------------------------------------------------


def test_a_stream_left_before_its_end_is_closed_and_its_slot_free_at_once(lab: Lab) -> None:
    lab.script(StallAfterChunks(3))
    with lab.engine(serving=ALONE) as engine:
        left = engine.ask("left", leave_after=2).wait()
        assert left.text and said("left").startswith(left.text)
        assert (engine.metrics.in_flight, engine.metrics.cancelled) == (0, 1)
        assert engine.stream("next").text == said("next")
        eventually(lambda: lab.log[0].outcome == "client_left")


def test_leaving_wakes_the_one_who_waits_for_the_slot(lab: Lab) -> None:
    lab.script(StallAfterChunks(3))
    with lab.engine(serving=ALONE) as engine:
        left = engine.ask("left", pause_after=2, leave_after=2)
        assert left.paused.wait(20.0)
        second = engine.ask("second")
        eventually(lambda: engine.metrics.queued == 1)
        left.resume()
        assert second.answer.text == said("second")


def test_a_stream_that_is_entered_and_never_read_asks_for_nothing(lab: Lab) -> None:
    with lab.engine() as engine:
        engine.ask(leave_after=0).wait()
        assert engine.metrics.submitted == 0
    assert lab.peer.connections_total == 0


# ---- drain -----------------------------------------------------------------------------------------------------------


def test_drain_finishes_what_was_accepted_and_refuses_the_new(lab: Lab) -> None:
    gate = threading.Event()
    lab.script(Held(gate, chunks=3))
    with lab.engine(serving=ALONE) as engine:
        running = engine.ask("running")
        eventually(lambda: running.chunks)
        queued = engine.ask("queued")
        eventually(lambda: engine.metrics.queued == 1)
        drained = meanwhile(engine.drain)
        eventually(lambda: isinstance(engine.ask("new", timeout=0.2).error, EngineClosed))
        assert not drained.done()
        gate.set()
        assert (running.answer.text, queued.answer.text) == (said("running"), said("queued"))
        drained.result(20.0)
        assert isinstance(engine.ask("newer").error, EngineClosed)


def test_drain_lets_a_retry_have_its_turn(lab: Lab) -> None:
    lab.script(Status(503))
    with lab.engine(retry={"initial_backoff": 0.3, "max_backoff": 0.3}) as engine:
        asked = engine.ask()
        eventually(lambda: engine.metrics.waiting == 1)
        engine.drain()
        assert asked.answer.text == said()


def test_draining_an_idle_engine_returns_at_once(lab: Lab) -> None:
    with lab.engine() as engine:
        engine.drain()
        engine.drain()


# ---- close -----------------------------------------------------------------------------------------------------------


def test_close_ends_every_request_wherever_it_stands(lab: Lab) -> None:
    lab.script(StallAfterChunks(3), NeverRespond(), Status(503))
    patient = {"initial_backoff": 60.0, "max_backoff": 60.0}
    with lab.engine(serving={"max_concurrent": 2}, retry=patient) as engine:
        streaming = engine.ask("streaming")
        eventually(lambda: len(streaming.chunks) >= 3)
        before_head = engine.ask("before the head")
        eventually(lambda: lab.provider.active == 2)
        queued = engine.ask("queued")
        eventually(lambda: engine.metrics.queued == 1)
        engine.close()
        assert [one.error.kind for one in (streaming, before_head, queued)] == ["engine_closed"] * 3
        assert engine.metrics.failed == 3
    eventually(lambda: lab.provider.active == 0)


def test_close_ends_requests_that_back_off_or_are_parked(lab: Lab) -> None:
    vault = Vault(OLD, NEW)
    vault.gate.clear()
    lab.script(Status(503))
    backing_off = lab.deployment("backing off", retry={"initial_backoff": 60.0, "max_backoff": 60.0})
    parked = lab.deployment("parked", key=vault.secret)
    with lab.engine(backing_off, parked) as engine:
        asked = [engine.ask(deployment=name) for name in ("backing off", "parked")]
        eventually(lambda: engine.metrics.waiting == 2)
        closed = meanwhile(engine.close)
        assert [one.error.kind for one in asked] == ["engine_closed"] * 2
        vault.gate.set()
        closed.result(20.0)


def test_close_while_connecting(lab: Lab) -> None:
    with lab.black_hole() as endpoint, lab.engine(endpoint=endpoint, timeouts={"connect_timeout": 60.0}) as engine:
        asked = engine.ask()
        eventually(lambda: engine.metrics.in_flight == 1)
        engine.close()
        assert isinstance(asked.error, EngineClosed)


def test_close_reaches_a_stream_whose_caller_is_away(lab: Lab) -> None:
    lab.script(StallAfterChunks(3))
    with lab.engine() as engine:
        asked = engine.ask(pause_after=2)
        assert asked.paused.wait(20.0)
        engine.close()
        eventually(lambda: lab.peer.connections_open == 0)
        asked.resume()
        assert isinstance(asked.error, EngineClosed)


def test_close_with_a_hundred_streams_under_way(lab: Lab) -> None:
    lab.script(then=StallAfterChunks(2))
    with lab.engine(serving={"max_concurrent": 100}, timeouts={"connect_timeout": 60.0}) as engine:
        asked = [engine.ask(f"prompt {number}") for number in range(100)]
        eventually(lambda: all(one.chunks for one in asked))
        engine.close()
        assert [one.error.kind for one in asked] == ["engine_closed"] * 100


def test_a_closed_engine_is_closed_for_good(lab: Lab) -> None:
    with lab.engine() as engine:
        engine.stream()
        engine.close()
        engine.close()
        with pytest.raises(RuntimeError, match="not running"):
            engine.stream()
