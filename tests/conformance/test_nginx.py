"""nginx itself: what it does to connections of its own accord, which no caller is to notice."""

from __future__ import annotations

import threading

import pytest
from conformance.harness import WAYS, Lab, eventually, said
from conformance.props import Flood, Held

from sansio import StreamInterrupted, Timeout
from sansio.simulation import Break, StallAfterHead

THROUGH_NGINX = [way for way in WAYS if way.through_nginx]
pytestmark = pytest.mark.parametrize("way", THROUGH_NGINX, ids=str)

ONCE = {"max_retries": 0}


def test_a_reload_under_a_kept_connection_costs_nothing(lab: Lab) -> None:
    with lab.engine(retry=ONCE) as engine:
        assert engine.stream("before").text == said("before")
        lab.front.reload()
        eventually(lambda: lab.peer.connections_open == 0)
        lab.let_pass(engine)
        assert engine.stream("after").text == said("after")
        assert engine.metrics.failures == {}
    assert lab.peer.connections_total == 2


def test_answers_under_way_outlive_a_reload(lab: Lab) -> None:
    gate = threading.Event()
    lab.script(*[Held(gate, chunks=3)] * 4)
    with lab.engine(retry=ONCE, idempotent=False) as engine:
        under_way = [engine.ask(f"under way {number}") for number in range(4)]
        eventually(lambda: all(len(one.chunks) >= 3 for one in under_way))
        lab.front.reload()
        for number in range(4):
            assert engine.stream(f"after {number}").text == said(f"after {number}")
        gate.set()
        assert [one.answer.text for one in under_way] == [said(f"under way {number}") for number in range(4)]
        assert engine.metrics.failures == {}


@pytest.mark.parametrize("at_once", [1, 4])
def test_a_connection_that_takes_so_many_requests_is_replaced_in_time(lab: Lab, at_once: int) -> None:
    lab.serve(front={"requests": 25})
    with lab.engine(retry=ONCE, idempotent=False, serving={"max_concurrent": at_once}) as engine:
        asked = [engine.ask(f"prompt {number}", unary=number % 2 == 0) for number in range(60)]
        assert [one.answer.text for one in asked] == [said(f"prompt {number}") for number in range(60)]
        assert engine.metrics.failures == {}
    assert lab.provider.requests_total == 60  # none was sent twice
    assert lab.peer.connections_total >= 3


def test_a_stall_right_after_the_head_is_somebodys_timeout(lab: Lab) -> None:
    lab.script(StallAfterHead())
    with lab.engine(retry=ONCE, timeouts={"request_timeout": 0.3, "read_timeout": 0.3}) as engine:
        error = engine.ask().error
        assert isinstance(error, Timeout)
        assert error.phase in ("first byte", "read")
        eventually(lambda: lab.log[0].outcome == "client_left")


def test_a_caller_that_pauses_stops_nobody_else(lab: Lab) -> None:
    flood = Flood(chunks=2, mebibytes=40)
    lab.script(flood)
    with lab.engine(retry=ONCE) as engine:
        paused = engine.ask(pause_after=1)
        assert paused.paused.wait(20.0)
        for number in range(30):
            assert engine.stream(f"other {number}").text == said(f"other {number}")
        assert len(flood.sent) < 40
        paused.resume()
        assert paused.answer.text == said()


def test_a_break_ends_its_own_answer_and_leaves_the_others_alone(lab: Lab) -> None:
    gate = threading.Event()
    lab.script(*[Held(gate, chunks=3)] * 3, Break(chunks=3))
    with lab.engine(retry=ONCE) as engine:
        others = [engine.ask(f"other {number}") for number in range(3)]
        eventually(lambda: all(len(one.chunks) >= 3 for one in others))
        broken = engine.ask("broken")
        eventually(lambda: lab.provider.active == 3 and len(broken.chunks) >= 3)
        gate.set()  # nginx (1.22) sends a stream's reset with what comes after it on the connection
        assert isinstance(broken.error, StreamInterrupted)
        assert [one.answer.text for one in others] == [said(f"other {number}") for number in range(3)]
    assert lab.provider.requests_total == 4
