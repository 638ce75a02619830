"""Answers of the Responses API, streamed and whole (`sansio.providers.responses_answers`)."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mangled import errors, json_values, mangled, texts

from sansio.batch import Thought, TokenChunk, Tokens, TokenUsage, ToolCall, ToolCallDelta
from sansio.errors import InferenceError, ProtocolError, StreamInterrupted
from sansio.providers.azure import AzureResponses
from sansio.providers.openai_responses import OpenAIResponses
from sansio.providers.responses_answers import ResponsesStreamDecoder
from sansio.replay import replay_response
from sansio.sse import SseChunk

CODEC = OpenAIResponses()


# ---- events ------------------------------------------------------------------------------------------------------------


def event(kind: str, **fields: Any) -> SseChunk:
    return SseChunk(json.dumps({"type": kind, "sequence_number": 1} | fields), kind)


def text(delta: object, item: int = 0, part: int = 0) -> SseChunk:
    """A delta as it is sent, with everything that nobody needs."""
    return event(
        "response.output_text.delta", item_id="msg_1", output_index=item, content_index=part, delta=delta, logprobs=[],
        obfuscation="Qz81",
    )  # fmt: skip


def added(item: dict[str, Any], at: int = 0) -> SseChunk:
    return event("response.output_item.added", output_index=at, item=item)


def done(item: dict[str, Any], at: int = 0) -> SseChunk:
    return event("response.output_item.done", output_index=at, item=item)


def message(*parts: str, item_id: str = "msg_1") -> dict[str, Any]:
    return {"type": "message", "id": item_id, "content": [{"type": "output_text", "text": part} for part in parts]}


def call(call_id: str = "call_1", name: str = "f", arguments: str = "", item_id: str = "fc_1") -> dict[str, Any]:
    return {"type": "function_call", "id": item_id, "call_id": call_id, "name": name, "arguments": arguments}


def completed(*output: object, **fields: Any) -> SseChunk:
    return event("response.completed", response={"status": "completed", "output": list(output), **fields})


def decoded(*events: SseChunk) -> tuple[list[TokenChunk], ResponsesStreamDecoder]:
    decoder = CODEC.stream_decoder()
    return decoder.decode(events), decoder


def called(index: int = 0, call_id: str = "", name: str = "", arguments: str = "") -> TokenChunk:
    return TokenChunk(tool_call_deltas=(ToolCallDelta(index, call_id, name, arguments),))


def end(finish: Any = "stop", raw: str = "completed", usage: TokenUsage | None = None) -> TokenChunk:
    return TokenChunk(finish_reason=finish, raw_finish_reason=raw, usage=usage)


USAGE = {"input_tokens": 9, "output_tokens": 2, "total_tokens": 11}
SPENT = TokenUsage(9, 2)
DONE = SseChunk("[DONE]")
EMPTY: dict[str, Any] = {"id": "resp_1", "status": "in_progress", "error": None, "output": [], "usage": None}


# ---- streams -----------------------------------------------------------------------------------------------------------


def test_a_stream_from_created_to_completed() -> None:
    chunks, decoder = decoded(
        event("response.created", response=EMPTY),
        event("response.queued", response=EMPTY),
        event("response.in_progress", response=EMPTY),
        added({"type": "message", "id": "msg_1", "content": []}),
        event("response.content_part.added", part={"type": "output_text", "text": ""}),
        text("Hel"),
        text("lo"),
        event("response.output_text.done", output_index=0, content_index=0, text="Hello"),
        event("response.content_part.done", part={"type": "output_text", "text": "Hello"}),
        done(message("Hello")),
        completed(message("Hello"), usage=USAGE, service_tier="default"),
        DONE,
    )
    spent = TokenUsage(9, 2, service_tier="default")
    assert chunks == [TokenChunk("Hel"), TokenChunk("lo"), end(usage=spent)]
    assert (decoder.complete, decoder.terminal, decoder.error, decoder.usage) == (True, True, None, spent)


@pytest.mark.parametrize("named", [True, False])
def test_an_event_may_be_named_by_its_line_or_by_its_type_alone(named: bool) -> None:
    events = [text("a"), event("response.refusal.delta", delta="b"), done(call(arguments="{}"), 1), completed()]
    if named:
        events = [SseChunk(json.dumps(json.loads(e.data) | {"type": None}), e.event) for e in events]
    else:
        events = [SseChunk(e.data) for e in events]
    assert decoded(*events)[0] == [
        TokenChunk("a"),
        TokenChunk(refusal_delta="b"),
        called(0, "call_1", "f", "{}"),
        end("tool_calls"),
    ]


@pytest.mark.parametrize(
    "unsaid",
    [
        event("response.created", response=EMPTY),
        event("response.in_progress", response=EMPTY),
        event("response.web_search_call.searching", output_index=0, delta="x", text="x"),
        event("response.brand_new.delta", delta="x"),
        event("response.mcp_call.failed", error={"code": "slow_down"}),
        event("keepalive"),
        text(""),
        text(None),
        text(7),
        event("response.output_text.delta"),
        event("response.refusal.delta", delta=""),
        event("response.function_call_arguments.delta", delta=None),
        event("response.output_text.done", text=None),
        event("response.output_text.done"),
        event("response.output_item.added"),
        event("response.output_item.added", item=[1]),
        added({"type": "reasoning", "id": "rs_1", "summary": []}),
        added({"type": "function_call"}),
        added({"type": ["function_call"]}),
        done({"type": "web_search_call", "id": "ws_1", "status": "completed"}),
        done({"type": "reasoning", "summary": [], "encrypted_content": None}),
        done({"type": "reasoning"}),
        done({"type": "message", "content": "x"}),
        done({"type": ["message"]}),
        done(call("", "", "", "")),
        SseChunk("{}"),
        SseChunk("{}", "response.output_text.delta"),
        SseChunk('\n {"type": 7} '),
        SseChunk('{"error": null}'),
    ],
)
def test_events_that_say_nothing_yield_no_chunk(unsaid: SseChunk) -> None:
    chunks, decoder = decoded(unsaid)
    assert chunks == []
    assert (decoder.complete, decoder.terminal, decoder.error, decoder.usage) == (False, False, None, None)
    assert decoder.decode([text("x"), completed()]) == [TokenChunk("x"), end()]  # and leave no trace


@pytest.mark.parametrize(
    ("one", "chunk"),
    [
        (text(" word"), TokenChunk(" word")),
        (text("x", 3, 2), TokenChunk("x")),
        (event("response.refusal.delta", delta="I can't"), TokenChunk(refusal_delta="I can't")),
        (event("response.reasoning_text.delta", delta="hm"), TokenChunk(reasoning_delta="hm")),
        (event("response.reasoning_summary_text.delta", delta="hm", summary_index=1), TokenChunk(reasoning_delta="hm")),
        (event("response.function_call_arguments.delta", delta="{1"), called(arguments="{1")),
        (event("response.custom_tool_call_input.delta", delta="ls"), called(arguments="ls")),
        (added(call(arguments="")), called(0, "call_1", "f")),
        (added({"type": "custom_tool_call", "call_id": "c", "name": "sh", "input": ""}), called(0, "c", "sh")),
        (added({"type": "function_call", "id": "fc_1", "name": "f"}), called(0, "fc_1", "f")),
        (done(call(arguments="{}")), called(0, "call_1", "f", "{}")),
        (done({"type": "custom_tool_call", "call_id": "c", "name": "sh", "input": "ls"}), called(0, "c", "sh", "ls")),
        # other types than the API's own: that one event is read again, without expectations
        (event("response.output_text.delta", delta="x", output_index="0"), TokenChunk("x")),
        (event("response.output_text.delta", delta="x", content_index=None), TokenChunk("x")),
        (event("response.refusal.delta", delta="x", output_index=[]), TokenChunk(refusal_delta="x")),
        (SseChunk('{"delta": "x\\ud83d"}', "response.output_text.delta"), TokenChunk("x\ufffd")),
        (SseChunk('{"delta": "x", "logprobs": NaN}', "response.output_text.delta"), TokenChunk("x")),
        (SseChunk('{"type": "response.output_text.delta", "delta": "x", "summary_index": {}}'), TokenChunk("x")),
    ],
)
def test_one_delta_one_chunk(one: SseChunk, chunk: TokenChunk) -> None:
    chunks, decoder = decoded(one)
    assert chunks == [chunk]
    assert decoder.error is None


def test_calls_are_counted_by_themselves() -> None:
    chunks, decoder = decoded(
        text("I look"),
        added(call("a", "f"), 1),
        event("response.function_call_arguments.delta", output_index=1, delta="{1"),
        added({"type": "custom_tool_call", "id": "ctc_1", "call_id": "b", "name": "sh", "input": ""}, 3),
        event("response.function_call_arguments.delta", output_index=1, delta="}"),
        event("response.function_call_arguments.done", output_index=1, arguments="{1}"),
        event("response.custom_tool_call_input.delta", output_index=3, delta="ls"),
        event("response.custom_tool_call_input.done", output_index=3, input="ls"),
        done(call("a", "f", "{1}"), 1),
        completed(message("I look"), call("a", "f", "{1}")),
    )
    assert [delta.index for chunk in chunks for delta in chunk.tool_call_deltas] == [0, 0, 1, 0, 1]
    whole = Tokens.from_chunks(chunks)
    assert whole.tool_calls == (ToolCall("a", "f", "{1}"), ToolCall("b", "sh", "ls"))
    assert (whole.text, whole.finish_reason, whole.raw_finish_reason) == ("I look", "tool_calls", "completed")
    assert decoder.complete


def test_a_call_may_get_its_name_last() -> None:
    chunks, _ = decoded(
        added({"type": "function_call", "id": "", "name": ""}),
        event("response.function_call_arguments.delta", delta="{}"),
        done(call("a", "f", "{}")),
        completed(call("a", "f", "{}")),
    )
    assert chunks == [called(arguments="{}"), called(0, "a", "f"), end("tool_calls")]


# Of the four places that tell the same text, any may be missing.

DELTAS = [text("He"), text("llo"), text("again", 0, 1)]
PART_DONE = [
    event("response.output_text.done", output_index=0, content_index=n, text=t) for n, t in ((0, "Hello"), (1, "again"))
]
ITEM_DONE = [done(message("Hello", "again"))]
OUTPUT = [message("Hello", "again")]


@pytest.mark.parametrize("deltas", [True, False])
@pytest.mark.parametrize("part_done", [True, False])
@pytest.mark.parametrize("item_done", [True, False])
@pytest.mark.parametrize("in_output", [True, False])
def test_text_is_neither_lost_nor_doubled(deltas: bool, part_done: bool, item_done: bool, in_output: bool) -> None:
    events = DELTAS * deltas + PART_DONE * part_done + ITEM_DONE * item_done
    chunks, decoder = decoded(*events, completed(*OUTPUT * in_output))
    assert Tokens.from_chunks(chunks).text == ("Helloagain" if deltas or part_done or item_done or in_output else "")
    assert (len(chunks) == 4) is deltas  # each delta is a chunk, and so is the end
    assert decoder.complete


def test_of_each_part_that_is_taken_which_came_first() -> None:
    chunks, _ = decoded(
        text("a", 0, 0),
        event("response.output_text.done", output_index=0, content_index=1, text="b"),
        text("c", 1, 0),
        text("A", 0, 0),
        done(message("aA", "b", "B")),
        completed(message("aA", "b", "B"), message("c", "C", item_id="msg_2"), message("d", item_id="msg_3")),
    )
    assert [chunk.text_delta for chunk in chunks] == ["a", "b", "c", "A", "B", "C", "d", ""]


@pytest.mark.parametrize(
    ("kind", "field", "item", "fold"),
    [
        ("refusal", "refusal", {"type": "message", "content": [{"type": "refusal", "refusal": "no"}]}, "refusal"),
        ("reasoning_text", "text", {"type": "reasoning", "content": [{"text": "no"}], "summary": []}, "reasoning"),
        ("reasoning_summary_text", "text", {"type": "reasoning", "summary": [{"text": "no"}]}, "reasoning"),
    ],
)
@pytest.mark.parametrize("first", range(4))
def test_so_are_refusals_and_reasoning(kind: str, field: str, item: dict[str, Any], fold: str, first: int) -> None:
    told = [
        event(f"response.{kind}.delta", delta="no"),
        event(f"response.{kind}.done", **{field: "no"}),
        done(item),
        completed(item),
    ]
    chunks, _ = decoded(*told[first:], *[completed(item)] * (first < 3))
    assert getattr(Tokens.from_chunks(chunks), fold) == "no"
    assert len(chunks) == 2


@pytest.mark.parametrize("first", range(4))
def test_so_are_inputs_of_tools(first: int) -> None:
    for fields, kind in (
        (call("c", "f", "in"), "function_call_arguments"),
        ({"type": "custom_tool_call", "call_id": "c", "name": "f", "input": "in"}, "custom_tool_call_input"),
    ):
        told = [
            event(f"response.{kind}.delta", delta="in"),
            event(f"response.{kind}.done", arguments="in", input="in"),
            done(fields),
            completed(fields),
        ]
        # What is there when the item is added comes again.
        chunks, _ = decoded(added(fields), *told[first:], *[completed(fields)] * (first < 3))
        assert Tokens.from_chunks(chunks).tool_calls == (ToolCall("c", "f", "in"),)
        assert chunks[0] == called(0, "c", "f")


def test_items_that_were_streamed_are_known_by_their_ids_in_an_output_with_others() -> None:
    chunks, _ = decoded(
        added({"type": "message", "id": "msg_1"}),
        text("Hello"),
        done(call("c", "f", "{}"), 1),
        completed({"type": "reasoning", "id": "rs_1", "summary": []}, message("Hello"), call("c", "f", "{}")),
    )
    whole = Tokens.from_chunks(chunks)
    assert (whole.text, whole.tool_calls, whole.thoughts) == (
        "Hello",
        (ToolCall("c", "f", "{}"),),
        (Thought(id="rs_1"),),
    )


def test_items_without_ids_are_known_by_their_place() -> None:
    nameless = [message("a", item_id=""), message("b", item_id="")]
    told = [text("a"), done(nameless[0], 0), text("b", 1), done(nameless[1], 1)]
    for so_far in range(5):
        chunks, _ = decoded(*told[:so_far], completed(*nameless))
        assert [chunk.text_delta for chunk in chunks] == ["a", "b", ""]


# ---- reasoning that is wanted back -------------------------------------------------------------------------------------


def reasoning(*summary: str, **fields: Any) -> dict[str, Any]:
    return {"type": "reasoning", "summary": [{"type": "summary_text", "text": part} for part in summary], **fields}


@pytest.mark.parametrize(
    ("item", "thought"),
    [
        (reasoning(id="rs_1"), Thought(id="rs_1")),
        (reasoning(encrypted_content="gAAA"), Thought(signature="gAAA")),
        (reasoning("a", "b", id="rs_1", encrypted_content="gAAA"), Thought("a\n\nb", "gAAA", "rs_1")),
        (reasoning(id="rs_1", content=[{"type": "reasoning_text", "text": "hm"}]), Thought(id="rs_1")),
    ],
)
def test_a_finished_item_of_reasoning_is_a_thought(item: dict[str, Any], thought: Thought) -> None:
    told = [event("response.reasoning_summary_text.delta", delta="hm"), done(item)]
    chunks, _ = decoded(*told, completed(item))
    assert chunks == [TokenChunk(reasoning_delta="hm"), TokenChunk(thought=thought), end()]
    assert not chunks[1].has_content
    assert decoded(completed(item))[0][-2:] == [TokenChunk(thought=thought), end()]


def test_reasoning_is_worth_more_than_its_summary() -> None:
    item = reasoning("short", content=[{"type": "reasoning_text", "text": "lo"}, {"text": "ng"}])
    assert decoded(done(item), completed(item))[0] == [TokenChunk(reasoning_delta="long"), end()]
    # but what came first is not said in other words
    began = event("response.reasoning_summary_text.delta", delta="short")
    assert decoded(began, done(item))[0] == [TokenChunk(reasoning_delta="short")]
    assert decoded(began, done(item, 1))[0][1:] == [TokenChunk(reasoning_delta="long")]
    elsewhere = event("response.reasoning_text.delta", delta="short", output_index=1)
    assert decoded(elsewhere, done(item, 1))[0] == [TokenChunk(reasoning_delta="short")]


def test_a_summary_has_parts_of_its_own() -> None:
    def whole(part: int, said: str) -> SseChunk:
        return event("response.reasoning_summary_text.done", summary_index=part, text=said)

    began = event("response.reasoning_summary_text.delta", delta="b", summary_index=1)
    chunks, _ = decoded(whole(0, "a"), began, whole(1, "b"), whole(2, "c"), whole(0, "a"))
    assert [chunk.reasoning_delta for chunk in chunks] == ["a", "b", "c"]
    assert [chunk.reasoning_delta for chunk in decoded(began, whole(0, "a"))[0]] == ["b", "a"]


# ---- how streams end ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "response", "finish", "raw"),
    [
        ("completed", {"status": "completed"}, "stop", "completed"),
        ("completed", {"status": "in_progress"}, "stop", "completed"),
        ("completed", None, "stop", "completed"),
        ("completed", {"output": [call()]}, "tool_calls", "completed"),
        ("completed", {"output": [{"type": "custom_tool_call", "name": "f"}]}, "tool_calls", "completed"),
        ("completed", {"output": [{"type": "web_search_call"}]}, "stop", "completed"),
        ("incomplete", {"incomplete_details": {"reason": "max_output_tokens"}}, "length", "max_output_tokens"),
        ("incomplete", {"incomplete_details": {"reason": "content_filter"}}, "content_filter", "content_filter"),
        ("incomplete", {"incomplete_details": {"reason": "steered"}, "output": [call()]}, "unknown", "steered"),
        ("incomplete", {"incomplete_details": None, "status": "completed"}, "unknown", "incomplete"),
        ("incomplete", {"incomplete_details": {"reason": 7}}, "unknown", "incomplete"),
        # vLLM calls the event completed, whatever the response is
        (
            "completed",
            {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
            "length",
            "max_output_tokens",
        ),
    ],
)
def test_ends(kind: str, response: dict[str, Any] | None, finish: str, raw: str) -> None:
    chunks, decoder = decoded(text("x"), event(f"response.{kind}", response=response), text("y"))
    assert chunks[-1] == end(finish, raw)
    assert (decoder.complete, decoder.terminal, decoder.error) == (True, True, None)
    assert "y" not in [chunk.text_delta for chunk in chunks]
    answer = CODEC.decode_unary(json.dumps({"output": [], **(response or {}), "status": kind}).encode())
    assert not isinstance(answer, InferenceError)
    if response is None or response.get("status") != "incomplete":
        assert (answer[0].finish_reason, answer[0].raw_finish_reason) == (finish, raw)


@pytest.mark.parametrize("events", [[], [text("x")], [event("response.created", response=EMPTY)], [done(message("x"))]])
def test_done_proves_nothing(events: list[SseChunk]) -> None:
    _, decoder = decoded(*events, SseChunk(" [DONE] "), completed())  # and nothing after it is decoded
    assert (decoder.terminal, decoder.complete, decoder.error) == (True, False, None)


DETAILS = {
    "input_tokens": 9,
    "input_tokens_details": {
        "cached_tokens": 4,
        "cache_write_tokens": 3,
        "cache_write_tokens_details": {"ttl_30m_tokens": 2, "ttl_12h_tokens": 1},
    },
    "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 2},
    "total_tokens": 14,
}


@pytest.mark.parametrize(
    ("fields", "known"),
    [
        ({"usage": DETAILS}, TokenUsage(9, 5, 4, 3, 2, cache_write_long_tokens=1)),
        ({"usage": DETAILS, "service_tier": "flex"}, TokenUsage(9, 5, 4, 3, 2, "exact", 1, "flex")),
        ({"usage": USAGE, "service_tier": None}, SPENT),
        ({"usage": {"input_tokens": "9", "output_tokens": 2.0, "input_tokens_details": []}}, SPENT),
        ({"usage": {"input_tokens": 9, "total_tokens": 11}}, SPENT),
        ({"usage": {"output_tokens": 2, "total_tokens": 11}}, SPENT),
        ({"usage": {"input_tokens": 9}}, TokenUsage(9, 0, provenance="lower_bound")),
        ({"usage": {"output_tokens": 2}}, TokenUsage(0, 2, provenance="lower_bound")),
        ({"usage": {"input_tokens": -1, "output_tokens": 10**17}}, TokenUsage(0, 2**53)),
        ({"usage": {"total_tokens": 11}, "service_tier": "flex"}, None),
        ({"usage": {}}, None),
        ({"usage": "later"}, None),
        ({}, None),
    ],
)
def test_usage(fields: dict[str, Any], known: TokenUsage | None) -> None:
    chunks, decoder = decoded(text("x"), completed(**fields))
    assert decoder.usage == known
    assert chunks == [TokenChunk("x"), end(usage=known)]
    whole = {"status": "completed", "output": [message("x")], **fields}
    assert CODEC.decode_unary(json.dumps(whole).encode()) == [TokenChunk("x", finish_reason="stop",
        raw_finish_reason="completed", usage=known)]  # fmt: skip


# ---- streams that fail -------------------------------------------------------------------------------------------------

FAILURES = [
    ({"code": "server_error", "message": "oops"}, "server_error"),
    ({"code": "rate_limit_exceeded", "message": "Please try again in 6.57s."}, "rate_limited"),
    ({"code": "slow_down", "message": "slower"}, "rate_limited"),
    ({"code": "server_is_overloaded", "message": "later"}, "server_error"),
    ({"code": "insufficient_quota", "message": "no money"}, "quota_exhausted"),
    ({"code": "invalid_prompt", "message": "no"}, "content_filtered"),
    ({"code": "bio_policy", "message": "no"}, "content_filtered"),
    ({"code": "image_content_policy_violation", "message": "no"}, "content_filtered"),
    ({"code": "context_length_exceeded", "message": "too long"}, "context_length_exceeded"),
    ({"code": "invalid_image_url", "message": "no"}, "bad_request"),
    ({"code": "vector_store_timeout", "message": "late"}, "timeout"),
    ({"code": "brand_new", "message": "what"}, "server_error"),
]


@pytest.mark.parametrize(("error", "kind"), FAILURES)
@pytest.mark.parametrize("shape", ["failed", "completed but failed", "flat", "nested", "nameless", "unary", "bare unary"])
def test_failures_are_classified_by_what_they_say(error: dict[str, Any], kind: str, shape: str) -> None:
    failed = {"status": "failed", "error": error, "usage": USAGE}
    told = {
        "failed": event("response.failed", response=failed),
        "completed but failed": event("response.completed", response=failed),
        "flat": event("error", param=None, **error),
        "nested": event("error", error={"type": "invalid_request_error", "param": None, **error}),
        "nameless": SseChunk(json.dumps({"error": error})),
    }
    if shape in told:
        # One failure a stream, whatever follows.
        again = event("response.failed", response={"status": "failed", "error": {"code": "other"}})
        chunks, decoder = decoded(text("x"), told[shape], again, text("y"), completed())
        assert chunks == [TokenChunk("x")]
        assert (decoder.complete, decoder.terminal) == (False, False)
        assert decoder.usage == (SPENT if "failed" in shape else None)
        found = decoder.error
    else:
        answer = CODEC.decode_unary(json.dumps(failed if shape == "unary" else {"error": error}).encode())
        assert isinstance(answer, InferenceError)
        found = answer
    assert found is not None
    if shape == "nested" and kind == "server_error" and error["code"] == "brand_new":
        kind = "bad_request"  # its type is known
    assert (found.kind, found.code, found.message, found.status) == (kind, error["code"], error["message"], None)
    assert found.provider == "openai"
    assert found.retry_after == (6.57 if error["code"] == "rate_limit_exceeded" else None)


def test_an_error_that_says_nothing_is_the_servers() -> None:
    for told in (
        event("error"),
        event("error", error=None),
        event("response.failed"),
        event("response.failed", response={"error": None}),
        SseChunk("{}", "error"),
    ):
        _, decoder = decoded(told)
        assert decoder.error is not None
        assert (decoder.error.kind, decoder.error.code) == ("server_error", None)


def test_who_calls_it_completed_and_names_an_error_has_failed() -> None:
    answer = {"status": "completed", "output": [message("secret")], "error": {"code": "slow_down"}}
    _, decoder = decoded(event("response.completed", response=answer))
    for error in (decoder.error, CODEC.decode_unary(json.dumps(answer).encode())):
        assert isinstance(error, InferenceError)
        assert (error.kind, error.body) == ("rate_limited", '{"error": {"code": "slow_down"}}')  # and not what was said
    assert not decoder.complete


def test_a_failure_may_be_told_beside_the_response() -> None:
    _, decoder = decoded(event("response.failed", error={"code": "slow_down"}))
    assert decoder.error is not None
    assert decoder.error.code == "slow_down"


def test_a_hint_may_stand_in_headers_within_the_error() -> None:
    _, decoder = decoded(event("error", error={"code": "rate_limit_exceeded", "headers": {"retry-after": "3"}}))
    assert decoder.error is not None
    assert decoder.error.retry_after == 3.0


def test_what_was_cancelled_is_neither_complete_nor_tried_again() -> None:
    cancelled = {"status": "cancelled", "usage": USAGE}
    _, decoder = decoded(text("x"), event("response.cancelled", response=cancelled))
    answer = CODEC.decode_unary(json.dumps(cancelled).encode())
    for error in (decoder.error, answer):
        assert isinstance(error, ProtocolError)
        assert not error.retryable
        assert "cancelled" in str(error)
        assert error.provider == "openai"
    assert (decoder.complete, decoder.usage) == (False, SPENT)


@pytest.mark.parametrize(
    "data", ['{"type": "response.outp', "<html>", "", "[]", "7", "null", '"x"', "[" * 5000, "NaN", "\ud800"]
)
def test_what_is_not_a_json_object_is_a_protocol_error_worth_a_retry(data: str) -> None:
    for name in ("message", "response.output_text.delta", "response.completed"):
        chunks, decoder = decoded(text("a"), SseChunk(data, name), text("b"))
        assert chunks == [TokenChunk("a")]
        assert isinstance(decoder.error, ProtocolError)
        assert decoder.error.retryable
        assert decoder.error.provider == "openai"


def wire(*events: SseChunk) -> bytes:
    return b"".join(f"event: {each.event}\ndata: {each.data}\n\n".encode() for each in events)


SSE = [("content-type", "text/event-stream")]


def test_a_stream_without_its_end_is_an_interruption() -> None:
    chunks, error = replay_response(CODEC, 200, SSE, [wire(text("a"), done(message("a")))])
    assert chunks == [TokenChunk("a")]
    assert isinstance(error, StreamInterrupted)
    chunks, error = replay_response(CODEC, 200, SSE, [wire(event("response.created", response=EMPTY)), wire(DONE)])
    assert (chunks, getattr(error, "kind", None)) == ([], "network_error")


WHOLE = wire(
    event("response.created", response=EMPTY), done(reasoning("hm", id="rs_1")), added(message(), 1), text("Grüß ", 1),
    text("Gott 😀", 1), done(message("Grüß Gott 😀"), 1), added(call(), 2),
    event("response.function_call_arguments.delta", output_index=2, delta="{}"),
    completed(reasoning("hm", id="rs_1"), message("Grüß Gott 😀"), call(arguments="{}"), usage=USAGE),
)  # fmt: skip


@given(st.lists(st.integers(0, len(WHOLE)), max_size=20))
@settings(max_examples=60, deadline=None)
def test_any_cut_of_the_bytes_gives_the_same_chunks(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(WHOLE)]
    pieces = [WHOLE[a:b] for a, b in pairwise(edges)]
    assert replay_response(CODEC, 200, SSE, pieces) == (
        [
            TokenChunk(reasoning_delta="hm"),
            TokenChunk(thought=Thought("hm", id="rs_1")),
            TokenChunk("Grüß "),
            TokenChunk("Gott 😀"),
            called(0, "call_1", "f"),
            called(arguments="{}"),
            end("tool_calls", usage=SPENT),
        ],
        None,
    )


# ---- unary answers -----------------------------------------------------------------------------------------------------


def test_a_unary_answer_is_one_chunk_and_one_more_for_each_further_thought() -> None:
    answer = {
        "object": "response",
        "status": "completed",
        "error": None,
        "output": [
            reasoning("hm", id="rs_1"),
            message("I ", "look"),
            call("a", "f", "{}", "same"),
            reasoning("aha", id="rs_2"),
            {"type": "custom_tool_call", "id": "same", "call_id": "b", "name": "sh", "input": "ls"},
            {"type": "message", "content": [{"type": "refusal", "refusal": "no"}]},
        ],
        "usage": USAGE,
    }
    assert CODEC.decode_unary(json.dumps(answer).encode()) == [
        TokenChunk(
            "I look",
            "hmaha",
            "no",
            (ToolCallDelta(0, "a", "f", "{}"), ToolCallDelta(1, "b", "sh", "ls")),
            0,
            "tool_calls",
            "completed",
            SPENT,
            Thought("hm", id="rs_1"),
        ),
        TokenChunk(thought=Thought("aha", id="rs_2")),
    ]
    assert AzureResponses().decode_unary(json.dumps(answer).encode()) == CODEC.decode_unary(json.dumps(answer).encode())


@pytest.mark.parametrize(
    "answer",
    [
        {"output": [message("x")]},
        {"output": [message("x")], "status": "brand_new"},
        {"output": [message("x")], "status": None, "error": {}},
    ],
)
def test_a_unary_answer_that_does_not_say_so_is_complete(answer: dict[str, Any]) -> None:
    assert CODEC.decode_unary(json.dumps(answer).encode()) == [
        TokenChunk("x", finish_reason="stop", raw_finish_reason="completed")
    ]


@pytest.mark.parametrize("status", ["queued", "in_progress"])
def test_a_response_in_the_background_is_not_there_yet(status: str) -> None:
    answer = CODEC.decode_unary(json.dumps(EMPTY | {"status": status}).encode())
    assert isinstance(answer, ProtocolError)
    assert not answer.retryable  # it would be begun a second time
    assert f"{status}: it was asked for in the background" in str(answer)
    assert answer.provider == "openai"


@pytest.mark.parametrize(
    "data",
    [
        b"", b"<html>", b"[]", b"{}", b"7", b'{"output": []}', b'{"output": 3}', b'{"status": "completed"}',
        b'{"status": "completed", "output": {}}', b'{"status": "brand_new"}', b"\xff\xfe", b"[" * 100_000,
    ],
)  # fmt: skip
def test_a_unary_answer_that_is_none(data: bytes) -> None:
    error = CODEC.decode_unary(data)
    assert isinstance(error, ProtocolError)
    assert error.retryable
    assert error.provider == "openai"


# ---- whatever comes ----------------------------------------------------------------------------------------------------

words = st.sampled_from(["", "a", "b", "\ud800"])
indices = st.integers(0, 2)
parts = st.lists(mangled(type=words, text=words, refusal=words), max_size=3)
items = mangled(
    type=st.sampled_from(["message", "reasoning", "function_call", "custom_tool_call", "x"]),
    id=words, call_id=words, name=words, arguments=words, input=words, content=parts, summary=parts,
    encrypted_content=words,
)  # fmt: skip
counts = st.integers(0, 9)
details = mangled(
    cached_tokens=counts, cache_write_tokens=counts, reasoning_tokens=counts,
    cache_write_tokens_details=mangled(ttl_12h_tokens=counts),
)  # fmt: skip
responses = mangled(
    status=st.sampled_from(["completed", "incomplete", "failed", "cancelled", "queued", "in_progress", "x"]),
    output=st.lists(items, max_size=4),
    usage=mangled(
        input_tokens=counts, output_tokens=counts, total_tokens=counts, input_tokens_details=details,
        output_tokens_details=details,
    ),
    error=st.none() | errors,
    incomplete_details=mangled(reason=st.sampled_from(["max_output_tokens", "content_filter", "x"])),
    service_tier=words,
)  # fmt: skip
SAID = ["output_text", "refusal", "reasoning_text", "reasoning_summary_text", "function_call_arguments",
        "custom_tool_call_input", "output_item"]  # fmt: skip
kinds = st.sampled_from(
    [f"response.{said}.{how}" for said in SAID for how in ("added", "delta", "done")]
    + ["response.completed", "response.incomplete", "response.failed", "response.cancelled", "error", "message"]
)
events = st.builds(
    SseChunk,
    mangled(
        type=kinds, delta=words, text=words, refusal=words, arguments=words, input=words, output_index=indices,
        content_index=indices, summary_index=indices, item=items, response=responses, error=st.none() | errors,
    ).map(json.dumps)
    | texts,
    kinds,
)  # fmt: skip


@given(st.lists(events, max_size=8), st.data())
@settings(max_examples=300, deadline=None)
def test_any_stream_decodes_to_the_same_chunks_however_it_is_cut(stream: list[SseChunk], data: st.DataObject) -> None:
    whole, apart = CODEC.stream_decoder(), CODEC.stream_decoder()
    chunks = whole.decode(stream)
    cut = data.draw(st.integers(0, len(stream)))
    assert apart.decode(stream[:cut]) + apart.decode(stream[cut:]) == chunks
    state = (apart.complete, apart.terminal, apart.usage, None if apart.error is None else apart.error.to_dict())
    assert state == (whole.complete, whole.terminal, whole.usage, None if whole.error is None else whole.error.to_dict())
    assert not (whole.complete and whole.error)
    assert not whole.complete or whole.terminal
    for chunk in chunks:
        assert chunk.has_content or chunk.finish_reason or chunk.thought
        json.dumps([chunk.text_delta, chunk.reasoning_delta, chunk.refusal_delta]).encode()
    if whole.error is not None:
        assert InferenceError.from_dict(json.loads(json.dumps(whole.error.to_dict()))).to_dict() == whole.error.to_dict()
    calls = Tokens.from_chunks(chunks).tool_calls
    assert len(calls) == len({delta.index for chunk in chunks for delta in chunk.tool_call_deltas})


@given(
    responses.map(json.dumps).map(str.encode)
    | json_values.map(json.dumps).map(str.encode)
    | st.binary(max_size=40)
    | texts.map(lambda data: data.encode("utf-8", "replace"))
)
@settings(max_examples=200, deadline=None)
def test_any_body_is_an_answer_or_an_error(data: bytes) -> None:
    answer = CODEC.decode_unary(data)
    if isinstance(answer, InferenceError):
        assert InferenceError.from_dict(json.loads(json.dumps(answer.to_dict()))).to_dict() == answer.to_dict()
        return
    assert answer[0].finish_reason is not None
    assert not any(chunk.has_content for chunk in answer[1:])


@given(responses.filter(lambda response: isinstance(response, dict)))
@settings(max_examples=150, deadline=None)
def test_a_stream_that_brings_all_of_it_at_its_end_is_the_unary_answer(response: dict[str, Any]) -> None:
    answer = CODEC.decode_unary(json.dumps(response).encode())
    if not isinstance(answer, InferenceError):
        kind = response.get("status")
        name = kind if kind in ("completed", "incomplete") else "completed"
        chunks, decoder = decoded(event(f"response.{name}", response=response))
        assert Tokens.from_chunks(chunks) == Tokens.from_chunks(answer)
        assert decoder.complete
