"""Answers: what a caller gets when all goes well, alone and among hundreds."""

from __future__ import annotations

import json
import threading

import pytest
from conformance.harness import Lab, batch, eventually, said
from conformance.props import HangUpWhenIdle, Held

from sansio import ExecuteBatch, Message, Tool
from sansio.simulation import CloseWithoutResponse, DripBytes, SlowTokens

WEATHER = Tool("get_weather", "Current weather", {"type": "object", "properties": {"prompt": {"type": "string"}}})


def test_a_stream_gives_every_delta_of_the_provider_in_order(lab: Lab) -> None:
    with lab.engine() as engine:
        asked = engine.ask("hello #tokens=5")
        answer = asked.answer
    deltas = [chunk.text_delta for chunk in asked.chunks if chunk.text_delta]
    assert deltas == ["[hello #tokens=5]", " w1", " w2", " w3", " w4"]
    assert (answer.finish_reason, answer.text) == ("stop", said("hello #tokens=5", 5))
    assert answer.usage is not None
    assert (answer.usage.output_tokens, answer.usage.provenance) == (5, "exact")


def test_a_stream_is_handed_over_as_it_comes_not_at_its_end(lab: Lab) -> None:
    gate = threading.Event()
    lab.script(Held(gate, chunks=3))
    with lab.engine() as engine:
        asked = engine.ask("hello")
        eventually(lambda: asked.text == "[hello] w1 w2")
        gate.set()
        assert asked.answer.text == said("hello")


def test_a_unary_answer_comes_whole(lab: Lab) -> None:
    with lab.engine() as engine:
        answer = engine.generate("hello")
    assert (answer.text, answer.finish_reason) == (said("hello"), "stop")
    assert answer.usage is not None
    assert (answer.usage.output_tokens, answer.usage.provenance) == (20, "exact")
    assert [record.stream for record in lab.log] == [False]


@pytest.mark.cases_take_turns("prompt")
@pytest.mark.parametrize("prompt", ["hello", "one #tokens=1", "no #refuse", "cut #filter", "ünï → 漢字 🦀"])
def test_generate_and_stream_agree(lab: Lab, prompt: str) -> None:
    with lab.engine() as engine:
        assert engine.generate(prompt) == engine.stream(prompt)


def test_an_answer_cut_at_the_callers_limit_says_so(lab: Lab) -> None:
    with lab.engine() as engine:
        for answer in (engine.generate(batch(max_output_tokens=3)), engine.stream(batch(max_output_tokens=3))):
            assert (answer.text, answer.finish_reason) == (said("hello", 3), "length")


def test_several_choices_stay_apart(lab: Lab) -> None:
    with lab.engine() as engine:
        answer = engine.stream(batch("pick", extra={"n": 3}))
    assert [answer.text, *(other.text for other in answer.others)] == [said("pick"), said("pick/1"), said("pick/2")]


@pytest.mark.parametrize("unary", [False, True], ids=["stream", "unary"])
def test_a_tool_call_is_joined_from_its_fragments(lab: Lab, unary: bool) -> None:
    with lab.engine() as engine:
        answer = engine.ask(batch("weather #tool", tools=[WEATHER]), unary=unary).answer
    [call] = answer.tool_calls
    assert (call.name, json.loads(call.arguments)) == ("get_weather", {"prompt": "weather #tool"})
    assert call.id
    assert answer.finish_reason == "tool_calls"


def test_a_tools_result_goes_back_to_the_model(lab: Lab) -> None:
    question = Message(role="user", content="weather #tool")
    with lab.engine() as engine:
        [call] = engine.generate(ExecuteBatch([question], tools=[WEATHER])).tool_calls
        turns = [
            question,
            Message(role="assistant", tool_calls=[call]),
            Message(role="tool", tool_call_id=call.id, content="sunny"),
        ]
        answer = engine.stream(ExecuteBatch(turns, tools=[WEATHER]))
    assert (answer.tool_calls, answer.finish_reason) == ((), "stop")
    assert lab.log[1].body["messages"][2]["tool_call_id"] == call.id


@pytest.mark.parametrize("unary", [False, True], ids=["stream", "unary"])
def test_a_refusal_is_an_answer_of_its_own_kind(lab: Lab, unary: bool) -> None:
    with lab.engine() as engine:
        answer = engine.ask("no #refuse", unary=unary).answer
    assert (answer.refusal, answer.text) == (said("no #refuse"), "")


def test_bytes_that_come_one_at_a_time_make_the_same_answer(lab: Lab) -> None:
    lab.script(DripBytes(0.0))
    with lab.engine() as engine:
        assert engine.stream("ünï → 漢字 🦀 #tokens=2").text == said("ünï → 漢字 🦀 #tokens=2", 2)


@pytest.mark.ways_take_turns
def test_two_hundred_streams_at_once_each_get_their_own_answer(lab: Lab) -> None:
    gate = threading.Event()
    lab.script(then=Held(gate, chunks=1, then=SlowTokens(0.01), every=0.2))
    with lab.engine(serving={"max_concurrent": 200}, timeouts={"connect_timeout": 60.0}) as engine:
        asked = [engine.ask(f"prompt {number}") for number in range(200)]
        eventually(lambda: lab.provider.active == 200)  # all of them are under way, however long that takes
        gate.set()
        assert [one.answer.text for one in asked] == [said(f"prompt {number}") for number in range(200)]
        assert engine.metrics.done == 200
    assert sorted(record.prompt or "" for record in lab.log) == sorted(f"prompt {number}" for number in range(200))


def test_more_callers_than_slots_all_get_their_own_answer(lab: Lab) -> None:
    with lab.engine(serving={"max_concurrent": 4}) as engine:
        asked = [engine.ask(f"prompt {number}", unary=number % 2 == 0) for number in range(60)]
        assert [one.answer.text for one in asked] == [said(f"prompt {number}") for number in range(60)]
    assert lab.provider.max_active <= 4


def test_a_connection_is_used_again(lab: Lab) -> None:
    with lab.engine() as engine:
        for number in range(6):
            assert engine.ask(f"prompt {number}", unary=number % 2 == 0).answer.text == said(f"prompt {number}")
    assert (lab.provider.requests_total, lab.peer.connections_total) == (6, 1)


def test_no_more_connections_than_requests_at_once(lab: Lab) -> None:
    with lab.engine(serving={"max_concurrent": 3}) as engine:
        for one in [engine.ask(f"prompt {number}") for number in range(30)]:
            one.wait()
    assert lab.peer.connections_total <= 3


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_kept_connection_that_the_server_gave_up_does_not_fail_the_next_request(lab: Lab, reset: bool) -> None:
    gate = threading.Event()
    lab.script(HangUpWhenIdle(gate, reset))
    # A reset is known here at once, so the connection is not even tried. The farewell of TLS may cross with the request.
    with lab.engine(retry={"max_retries": 0 if reset else 1}) as engine:
        assert engine.stream("before").text == said("before")
        gate.set()
        eventually(lambda: lab.peer.connections_open == 0)
        lab.let_pass(engine)
        assert engine.stream("after").text == said("after")
    assert lab.peer.connections_total == 2


def test_a_kept_connection_that_breaks_under_the_next_request_does_not_fail_it(lab: Lab) -> None:
    lab.script(None, CloseWithoutResponse())
    with lab.engine() as engine:
        assert engine.stream("before").text == said("before")
        assert engine.stream("after").text == said("after")
        # Over HTTP/2 only the stream is reset: the server is there, and has looked at the request.
        reason = "network_error" if lab.way.shares_connections else "stale_connection"
        assert engine.metrics.retries == {reason: 1}
    assert lab.peer.connections_total == (1 if lab.way.shares_connections else 2)
