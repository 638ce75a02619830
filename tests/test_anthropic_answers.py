"""Answers of Anthropic Messages, streamed and whole (`sansio.providers.anthropic_answers`)."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mangled import mangled, texts, words

from sansio import replay_response
from sansio.batch import Thought, TokenChunk, Tokens, TokenUsage, ToolCall, ToolCallDelta
from sansio.errors import InferenceError, ProtocolError, StreamInterrupted
from sansio.providers.anthropic import AnthropicMessages
from sansio.providers.anthropic_answers import MessageStreamDecoder
from sansio.sse import SseChunk, SseDecoder

CODEC = AnthropicMessages()


# ---- streams -----------------------------------------------------------------------------------------------------------


def event(frame: object) -> SseChunk:
    """An event as Anthropic sends it: named by the type in its data."""
    if isinstance(frame, SseChunk):
        return frame
    data = frame if isinstance(frame, str) else json.dumps(frame)
    return SseChunk(data, str(frame.get("type", "message")) if isinstance(frame, dict) else "message")


def decoded(*frames: object) -> tuple[list[TokenChunk], MessageStreamDecoder]:
    decoder = CODEC.stream_decoder()
    return decoder.decode([event(frame) for frame in frames]), decoder


def message_start(**usage: Any) -> dict[str, Any]:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None}
    return {"type": "message_start", "message": message | {"usage": usage}}


def block(index: int, kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": {"type": kind, **fields}}


def delta(index: int, kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **fields}}


def stop(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def message_delta(reason: str | None = "end_turn", **usage: Any) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": usage}


START = message_start(input_tokens=11, output_tokens=1)
TEXT = block(0, "text", text="")
PING = {"type": "ping"}
DONE = {"type": "message_stop"}


def words_of(text: str, index: int = 0) -> dict[str, Any]:
    return delta(index, "text_delta", text=text)


def test_a_stream_from_start_to_stop() -> None:
    chunks, decoder = decoded(
        START, TEXT, PING, words_of("Hel"), words_of("lo"), stop(0), message_delta(output_tokens=6), DONE
    )
    spent = TokenUsage(11, 6)
    assert chunks == [
        TokenChunk("Hel"),
        TokenChunk("lo"),
        TokenChunk(finish_reason="stop", raw_finish_reason="end_turn", usage=spent),
    ]
    assert (decoder.complete, decoder.terminal, decoder.error, decoder.usage) == (True, True, None, spent)
    assert decoder.decode([event(words_of("more"))]) == []  # nothing after it is decoded


@pytest.mark.parametrize("frames", [[], [START], [START, TEXT, words_of("x"), stop(0)], [message_delta(output_tokens=1)]])
def test_nothing_but_message_stop_proves_that_it_is_all_there(frames: list[object]) -> None:
    _, decoder = decoded(*frames)
    assert (decoder.complete, decoder.terminal) == (False, False)
    decoder.decode([event(DONE)])
    assert (decoder.complete, decoder.terminal) == (True, True)


@pytest.mark.parametrize(
    "frame",
    [
        START,
        TEXT,
        PING,
        stop(0),
        {},
        {"type": "brand_new", "delta": {"type": "x"}, "text": "y"},
        {"type": "message_start"},
        {"type": "message_start", "message": None},
        {"type": "message_delta"},
        {"type": "message_delta", "delta": None, "usage": None},
        {"type": "message_delta", "delta": {"stop_reason": ""}},
        {"type": "content_block_start", "index": 0},
        {"type": "content_block_delta", "index": 0},
        block(0, "fallback", **{"from": {"model": "a"}}),
        block(0, "web_search_tool_result", content=[{"type": "web_search_result"}]),
        block(0, "text", text=None),
        block(0, "thinking", thinking="", signature=""),
        block(0, "redacted_thinking"),
        words_of(""),
        delta(0, "text_delta"),
        delta(0, "compaction_delta", content="summary"),
        delta(0, "citations_delta", citation={"type": "char_location"}),
        delta(0, "input_json_delta", partial_json="{}"),  # of no call that is open
        delta(0, "signature_delta", signature="s"),
        delta(0, "thinking_delta", thinking=""),
        {"type": "content_block_delta", "delta": {"text": "of no type"}},
        SseChunk("not JSON", "ping"),
        SseChunk("7", "brand_new"),
    ],
)
def test_events_that_say_nothing_yield_no_chunk(frame: object) -> None:
    chunks, decoder = decoded(frame)
    assert chunks == []
    assert (decoder.complete, decoder.terminal, decoder.error) == (False, False, None)


@pytest.mark.parametrize(
    ("frame", "chunk"),
    [
        (words_of(" word"), TokenChunk(" word")),
        (words_of("x", 7), TokenChunk("x")),
        (block(0, "text", text="early"), TokenChunk("early")),
        (delta(0, "thinking_delta", thinking="hm"), TokenChunk(reasoning_delta="hm")),
        (block(0, "thinking", thinking="hm"), TokenChunk(reasoning_delta="hm")),
        (block(0, "redacted_thinking", data="blob"), TokenChunk(thought=Thought(signature="blob", redacted=True))),
        (block(1, "tool_use", id="c1", name="f", input={}), TokenChunk(tool_call_deltas=(ToolCallDelta(0, "c1", "f"),))),
        (block(1, "tool_use"), TokenChunk(tool_call_deltas=(ToolCallDelta(0),))),
        (message_delta("end_turn"), TokenChunk(finish_reason="stop", raw_finish_reason="end_turn")),
        (message_delta(None, output_tokens=3), TokenChunk(usage=TokenUsage(0, 3, provenance="lower_bound"))),
        # named by the event alone
        (
            SseChunk('{"delta": {"stop_reason": "end_turn"}}', "message_delta"),
            TokenChunk(finish_reason="stop", raw_finish_reason="end_turn"),
        ),
        # other types than the format's own: that one event is read again, without expectations
        (words_of("x") | {"index": None}, TokenChunk("x")),
        (words_of("x") | {"index": "0", "usage": "later"}, TokenChunk("x")),
        (delta(0, "text_delta", text="x", signature=7), TokenChunk("x")),
        ('{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"x\\ud83d"}}', TokenChunk("x\ufffd")),
        ('{"type":"content_block_delta","delta":{"type":"text_delta","text":"x"},"p":NaN}', TokenChunk("x")),
        (
            block(0, "tool_use", id=5, name="f", input={}),
            TokenChunk(tool_call_deltas=(ToolCallDelta(0, "", "f"),)),
        ),
        (
            {"type": "message_delta", "delta": {"stop_reason": "end_turn", "text": 7}, "usage": []},
            TokenChunk(finish_reason="stop", raw_finish_reason="end_turn"),
        ),
    ],
)
def test_one_delta_one_chunk(frame: object, chunk: TokenChunk) -> None:
    chunks, decoder = decoded(frame)
    assert chunks == [chunk]
    assert decoder.error is None


@pytest.mark.parametrize(
    ("raw", "finish_reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("pause_turn", "continue"),
        ("brand_new", "unknown"),
    ],
)
def test_finish_reasons_are_normalised_and_kept(raw: str, finish_reason: str) -> None:
    chunks, _ = decoded(message_delta(raw))
    assert [(chunk.finish_reason, chunk.raw_finish_reason) for chunk in chunks] == [(finish_reason, raw)]
    assert CODEC.decode_unary(json.dumps({"content": [], "stop_reason": raw}).encode()) == chunks


# ---- tool calls --------------------------------------------------------------------------------------------------------


def test_a_call_comes_in_fragments_under_the_index_of_calls() -> None:
    chunks, _ = decoded(
        TEXT,
        words_of("Let me see."),
        stop(0),
        block(1, "server_tool_use", id="srv", name="web_search", input={}),
        delta(1, "input_json_delta", partial_json='{"query": "x"}'),
        stop(1),
        block(2, "tool_use", id="a", name="f", input={}),
        delta(2, "input_json_delta", partial_json=""),
        delta(2, "input_json_delta", partial_json='{"a'),
        block(3, "tool_use", id="b", name="g", input={}),
        delta(2, "input_json_delta", partial_json='": 1}'),
        delta(3, "input_json_delta", partial_json="{}"),
        stop(2),
        stop(3),
        message_delta("tool_use"),
    )
    assert [chunk.tool_call_deltas for chunk in chunks[1:-1]] == [
        (ToolCallDelta(0, "a", "f"),),
        (ToolCallDelta(0, arguments='{"a'),),
        (ToolCallDelta(1, "b", "g"),),
        (ToolCallDelta(0, arguments='": 1}'),),
        (ToolCallDelta(1, arguments="{}"),),
    ]
    assert Tokens.from_chunks(chunks).tool_calls == (ToolCall("a", "f", '{"a": 1}'), ToolCall("b", "g", "{}"))


@pytest.mark.parametrize(
    ("given_input", "arguments"),
    [({}, "{}"), (None, "{}"), ({"a": [1]}, '{"a": [1]}'), ("absent", "{}")],
)
def test_a_call_without_fragments_has_the_input_that_its_block_began_with(given_input: object, arguments: str) -> None:
    fields = {} if given_input == "absent" else {"input": given_input}
    use = {"id": "a", "name": "f", **fields}
    chunks, _ = decoded(block(0, "tool_use", **use), delta(0, "input_json_delta", partial_json=""), stop(0), stop(0))
    assert Tokens.from_chunks(chunks).tool_calls == (ToolCall("a", "f", arguments),)
    assert len(chunks) == 2
    assert CODEC.decode_unary(json.dumps({"content": [{"type": "tool_use", **use}]}).encode()) == [
        TokenChunk(tool_call_deltas=(ToolCallDelta(0, "a", "f", arguments),))
    ]


def test_of_a_call_with_fragments_what_its_block_began_with_is_not_repeated() -> None:
    chunks, _ = decoded(
        block(0, "tool_use", id="a", name="f", input={"a": 1}), delta(0, "input_json_delta", partial_json='{"a":1}'), stop(0)
    )
    assert Tokens.from_chunks(chunks).tool_calls == (ToolCall("a", "f", '{"a":1}'),)


def test_a_call_that_is_cut_short_keeps_what_came() -> None:
    begun = [block(0, "tool_use", id="a", name="f", input={}), delta(0, "input_json_delta", partial_json='{"a')]
    chunks, decoder = decoded(*begun, message_delta("max_tokens"), DONE)
    assert Tokens.from_chunks(chunks).tool_calls == (ToolCall("a", "f", '{"a'),)
    assert decoder.complete
    chunks, _ = decoded(begun[0], message_delta("max_tokens"), DONE)
    assert Tokens.from_chunks(chunks).tool_calls == (ToolCall("a", "f", ""),)


def test_a_block_that_begins_in_the_place_of_another_ends_it() -> None:
    chunks, _ = decoded(block(0, "tool_use", id="a", name="f"), block(0, "tool_use", id="b", name="g"), stop(0))
    assert Tokens.from_chunks(chunks).tool_calls == (ToolCall("a", "f", "{}"), ToolCall("b", "g", "{}"))


# ---- reasoning ---------------------------------------------------------------------------------------------------------


def test_a_thought_is_whole_when_its_block_stops() -> None:
    chunks, _ = decoded(
        block(0, "thinking", thinking="", signature=""),
        delta(0, "thinking_delta", thinking="Let me "),
        delta(0, "thinking_delta", thinking="überlegen 🙂"),
        delta(0, "signature_delta", signature="EqQB"),
        delta(0, "signature_delta", signature="CgIY"),
        delta(0, "signature_delta", signature=None),
        stop(0),
        block(1, "redacted_thinking", data="blob"),
        stop(1),
        block(2, "thinking", thinking="a", signature="b"),
        delta(2, "thinking_delta", thinking="c"),
        stop(2),
        block(3, "thinking", signature="hidden"),
        stop(3),
        block(4, "thinking"),
        stop(4),
    )
    whole = Tokens.from_chunks(chunks)
    assert whole.reasoning == "Let me überlegen 🙂ac"
    assert whole.thoughts == (
        Thought("Let me überlegen 🙂", "EqQBCgIY"),
        Thought(signature="blob", redacted=True),
        Thought("ac", "b"),
        Thought("", "hidden"),
    )
    assert [chunk.has_content for chunk in chunks] == [True, True, False, False, True, True, False, False]


def test_a_thought_that_is_cut_short_is_not_given_back() -> None:
    chunks, _ = decoded(block(0, "thinking"), delta(0, "thinking_delta", thinking="hm"), message_delta("max_tokens"), DONE)
    whole = Tokens.from_chunks(chunks)
    assert (whole.reasoning, whole.thoughts) == ("hm", ())


# ---- usage -------------------------------------------------------------------------------------------------------------

FULL = {
    "input_tokens": 4,
    "cache_creation_input_tokens": 70,
    "cache_read_input_tokens": 500,
    "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 50},
    "output_tokens": 9,
    "output_tokens_details": {"thinking_tokens": 5},
    "service_tier": "priority",
    "server_tool_use": {"web_search_requests": 1},
}
FULL_USAGE = TokenUsage(574, 9, 500, 70, 5, cache_write_long_tokens=50, service_tier="priority")


@pytest.mark.parametrize(
    ("usage", "known"),
    [
        ({"input_tokens": 11, "output_tokens": 6}, TokenUsage(11, 6)),
        (FULL, FULL_USAGE),
        (FULL | {"cache_creation_input_tokens": None}, FULL_USAGE),  # the sum of its parts
        (FULL | {"cache_creation_input_tokens": 30}, TokenUsage(534, 9, 500, 30, 5, "exact", 30, "priority")),
        ({"input_tokens": 1, "output_tokens": 2, "cache_creation": None, "output_tokens_details": None}, TokenUsage(1, 2)),
        ({"input_tokens": 3}, TokenUsage(3, 0, provenance="lower_bound")),
        ({"output_tokens": 3}, TokenUsage(0, 3, provenance="lower_bound")),
        ({"input_tokens": -9, "output_tokens": 10**18}, TokenUsage(0, 2**53)),
        ({"input_tokens": 2**53, "cache_read_input_tokens": 2**53, "output_tokens": 0}, TokenUsage(2**53, 0, 2**53)),
        (
            {
                "input_tokens": 0,
                "output_tokens": 0,
                "cache_creation": {"ephemeral_5m_input_tokens": 2**53, "ephemeral_1h_input_tokens": 2**53},
            },
            TokenUsage(2**53, 0, 0, 2**53, cache_write_long_tokens=2**53),
        ),
        ({}, None),
        ({"cache_read_input_tokens": 5}, None),
        # other types, read without expectations
        ({"input_tokens": "11", "output_tokens": 6.0, "service_tier": 3}, TokenUsage(11, 6)),
        (FULL | {"speed": "fast", "output_tokens": "9"}, FULL_USAGE),
        (FULL | {"input_tokens": "4", "cache_creation": 3}, TokenUsage(574, 9, 500, 70, 5, service_tier="priority")),
        ({"input_tokens": 1, "output_tokens": 2, "output_tokens_details": "none"}, TokenUsage(1, 2)),
        ({"input_tokens": True, "output_tokens": []}, None),
    ],
)
def test_usage(usage: dict[str, Any], known: TokenUsage | None) -> None:
    chunks, decoder = decoded(message_delta(None, **usage))
    assert decoder.usage == known
    assert chunks == ([] if known is None else [TokenChunk(usage=known)])
    answer = CODEC.decode_unary(json.dumps({"content": [{"type": "text", "text": "x"}], "usage": usage}).encode())
    assert answer == [TokenChunk("x", usage=known)]


def test_what_the_start_counts_is_a_lower_bound() -> None:
    chunks, decoder = decoded(message_start(**FULL))
    assert chunks == []
    assert decoder.usage is not None
    assert decoder.usage.provenance == "lower_bound"
    decoder.decode([event(message_delta())])
    assert decoder.usage.provenance == "lower_bound"
    decoder.decode([event(message_delta(output_tokens=12))])
    assert decoder.usage == TokenUsage(574, 12, 500, 70, 5, cache_write_long_tokens=50, service_tier="priority")


def test_later_reports_replace_what_they_say_again() -> None:
    _, decoder = decoded(
        START,
        message_delta(None, output_tokens=4, input_tokens=None),
        message_delta(input_tokens=61, output_tokens=6, cache_read_input_tokens=3),
    )
    assert decoder.usage == TokenUsage(64, 6, 3)


# ---- streams that fail -------------------------------------------------------------------------------------------------

OVERLOADED = {"type": "error", "error": {"details": None, "type": "overloaded_error", "message": "Overloaded"}}


@pytest.mark.parametrize(
    "frame",
    [
        OVERLOADED,
        SseChunk(json.dumps(OVERLOADED["error"]), "error"),
        {"error": {"type": "overloaded_error"}},
        {"error": {"type": "overloaded_error"}, "index": None},
        SseChunk("{}", "error"),
    ],
)
@pytest.mark.parametrize("before", [[], [START, TEXT, words_of("a")], [START, TEXT, words_of("a"), message_delta()]])
def test_after_an_error_nothing_is_decoded_and_nothing_is_proven(frame: object, before: list[object]) -> None:
    chunks, decoder = decoded(*before, frame, words_of("b"), DONE)
    assert "".join(chunk.text_delta for chunk in chunks) == ("a" if before else "")
    assert (decoder.complete, decoder.terminal) == (False, False)
    assert decoder.error is not None
    assert (decoder.error.kind, decoder.error.retryable, decoder.error.provider) == ("server_error", True, "anthropic")


def test_an_error_in_a_stream_is_classified_by_its_type() -> None:
    _, decoder = decoded({"type": "error", "error": {"type": "rate_limit_error", "message": "slow"}, "request_id": "req_7"})
    error = decoder.error
    assert error is not None
    assert (error.kind, error.status, error.message, error.provider_request_id) == ("rate_limited", 429, "slow", "req_7")


@pytest.mark.parametrize("data", ["{", "<html>", "[]", "7", "null", "[DONE]", "[" * 5000, "\ud800"])
@pytest.mark.parametrize("name", ["message", "content_block_delta", "message_stop", "error"])
def test_what_is_not_a_json_object_is_a_protocol_error_worth_a_retry(data: str, name: str) -> None:
    decoder = CODEC.stream_decoder()
    assert decoder.decode([event(words_of("a")), SseChunk(data, name), event(words_of("b"))]) == [TokenChunk("a")]
    error = decoder.error
    assert isinstance(error, ProtocolError)
    assert error.retryable
    assert len(error.body or "") <= 2_000


# ---- whole responses ---------------------------------------------------------------------------------------------------


def wire(*frames: dict[str, Any]) -> bytes:
    return "".join(f"event: {frame['type']}\ndata: {json.dumps(frame)}\n\n" for frame in frames).encode()


STREAM = [
    START,
    block(0, "thinking"),
    delta(0, "thinking_delta", thinking="hm ü"),
    delta(0, "signature_delta", signature="s"),
    stop(0),
    block(1, "text", text=""),
    PING,
    words_of("Grüße", 1),
    words_of(" 🙂", 1),
    stop(1),
    block(2, "tool_use", id="a", name="f", input={}),
    delta(2, "input_json_delta", partial_json='{"a":1}'),
    stop(2),
    message_delta("tool_use", output_tokens=20),
    DONE,
]
EVENT_STREAM = (("content-type", "text/event-stream; charset=utf-8"),)


def test_a_stream_is_replayed_the_same_however_it_is_cut() -> None:
    data = wire(*STREAM)
    whole, error = replay_response(CODEC, 200, EVENT_STREAM, [data])
    assert error is None
    assert Tokens.from_chunks(whole) == Tokens(
        "Grüße 🙂",
        "hm ü",
        "",
        (ToolCall("a", "f", '{"a":1}'),),
        "tool_calls",
        "tool_use",
        TokenUsage(11, 20),
        (),
        (Thought("hm ü", "s"),),
    )
    for size in (1, 2, 3, 7, 64):
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        assert replay_response(CODEC, 200, EVENT_STREAM, pieces) == (whole, None)


def test_a_stream_that_ends_early_keeps_what_is_known() -> None:
    _, error = replay_response(CODEC, 200, EVENT_STREAM, [wire(*STREAM[:-1])])
    assert isinstance(error, StreamInterrupted)
    assert error.retryable is False
    assert error.usage == TokenUsage(11, 20, provenance="lower_bound")
    _, error = replay_response(CODEC, 200, EVENT_STREAM, [wire(START, TEXT)])
    assert error is not None
    assert (error.kind, error.retryable) == ("network_error", True)
    _, error = replay_response(CODEC, 200, EVENT_STREAM, [wire(OVERLOADED)])
    assert error is not None
    assert (error.kind, error.status) == ("server_error", 529)


def test_a_unary_answer_says_the_same_as_a_stream() -> None:
    answer = {
        "type": "message",
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "redacted_thinking", "data": "blob"},
            {"type": "thinking", "thinking": "", "signature": ""},
            {"type": "redacted_thinking"},
            {"type": "text", "text": "Hel", "citations": [{"type": "char_location"}]},
            {"type": "server_tool_use", "id": "srv", "name": "web_search", "input": {"query": "x"}},
            {"type": "text", "text": "lo"},
            {"type": "text"},
            {"type": "tool_use", "id": "a", "name": "f", "input": {"ü": [1, 2.50]}},
            {"type": "tool_use"},
        ],
        "stop_reason": "tool_use",
        "usage": FULL,
    }
    body = json.dumps(answer, ensure_ascii=False).encode()
    assert CODEC.decode_unary(body) == [
        TokenChunk(reasoning_delta="hm", thought=Thought("hm", "s")),
        TokenChunk(thought=Thought(signature="blob", redacted=True)),
        TokenChunk(
            "Hello",
            tool_call_deltas=(ToolCallDelta(0, "a", "f", '{"ü": [1, 2.5]}'), ToolCallDelta(1, "", "", "{}")),
            finish_reason="tool_calls",
            raw_finish_reason="tool_use",
            usage=FULL_USAGE,
        ),
    ]


@pytest.mark.parametrize(
    ("answer", "chunk"),
    [
        ({"content": []}, TokenChunk()),
        ({"content": [], "stop_reason": "refusal"}, TokenChunk(finish_reason="content_filter", raw_finish_reason="refusal")),
        ({"content": [7, {"type": "text", "text": "x"}], "stop_reason": 3}, TokenChunk("x")),
        (
            {"content": [{"type": "tool_use", "id": 1, "name": "f", "input": {"a": 1}}], "error": None},
            TokenChunk(tool_call_deltas=(ToolCallDelta(0, "", "f", '{"a": 1}'),)),
        ),
        (
            {"content": [{"type": "tool_use", "id": 1, "name": "f", "input": "text"}]},
            TokenChunk(tool_call_deltas=(ToolCallDelta(0, "", "f", "{}"),)),
        ),
    ],
)
def test_unary_answers_of_other_shapes(answer: dict[str, Any], chunk: TokenChunk) -> None:
    assert CODEC.decode_unary(json.dumps(answer).encode()) == [chunk]


def test_an_error_in_a_unary_answer() -> None:
    error = CODEC.decode_unary(json.dumps(OVERLOADED).encode())
    assert isinstance(error, InferenceError)
    assert (error.kind, error.status) == ("server_error", 529)


@pytest.mark.parametrize(
    "data", [b"", b"<html>", b"[]", b"{}", b'{"content": null}', b'{"content": "text"}', b"\xff\xfe", b'{"a":"\xff"}', b"7"]
)
def test_a_unary_answer_that_is_none(data: bytes) -> None:
    error = CODEC.decode_unary(data)
    assert isinstance(error, ProtocolError)
    assert error.retryable


# ---- whatever comes ----------------------------------------------------------------------------------------------------

counts = st.integers(0, 9)
usages = mangled(
    input_tokens=counts,
    output_tokens=counts,
    cache_read_input_tokens=counts,
    cache_creation_input_tokens=counts,
    cache_creation=mangled(ephemeral_5m_input_tokens=counts, ephemeral_1h_input_tokens=counts),
    output_tokens_details=mangled(thinking_tokens=counts),
    service_tier=words,
)
blocks = mangled(
    type=st.sampled_from(["text", "tool_use", "thinking", "redacted_thinking", "server_tool_use"]),
    id=words,
    name=words,
    text=words,
    thinking=words,
    signature=words,
    data=words,
    input=mangled(a=counts),
)
deltas = mangled(
    type=st.sampled_from(["text_delta", "thinking_delta", "signature_delta", "input_json_delta"]),
    text=words,
    thinking=words,
    signature=words,
    partial_json=words,
    stop_reason=words,
)
messages = mangled(content=st.lists(blocks, max_size=3), stop_reason=words, usage=usages, error=words)
types = st.sampled_from(
    [f"content_block_{what}" for what in ("start", "delta", "stop")]
    + [f"message_{what}" for what in ("start", "delta", "stop")]
    + ["ping", "error", "x"]
)
frames = mangled(
    type=types, index=st.integers(0, 2), delta=deltas, content_block=blocks, message=messages, usage=usages, error=st.none()
).map(json.dumps)
events = st.builds(SseChunk, frames | texts, types | st.just("message"))


@given(st.lists(events, max_size=8), st.data())
@settings(max_examples=300, deadline=None)
def test_any_stream_decodes_to_the_same_chunks_however_it_is_cut(stream: list[SseChunk], data: st.DataObject) -> None:
    whole, apart = CODEC.stream_decoder(), CODEC.stream_decoder()
    chunks = whole.decode(stream)
    cut = data.draw(st.integers(0, len(stream)))
    assert apart.decode(stream[:cut]) + apart.decode(stream[cut:]) == chunks
    state = (apart.complete, apart.terminal, apart.usage, None if apart.error is None else apart.error.to_dict())
    assert state == (whole.complete, whole.terminal, whole.usage, None if whole.error is None else whole.error.to_dict())
    for chunk in chunks:
        assert chunk.has_content or chunk.finish_reason or chunk.usage or chunk.thought
        json.dumps(Tokens.from_chunks([chunk]).to_dict(), ensure_ascii=False).encode()


@given(
    st.lists(events.map(lambda each: f"event: {each.event}\ndata: {each.data}\n\n".encode("utf-8", "replace")), max_size=6),
    st.data(),
)
@settings(max_examples=200, deadline=None)
def test_any_bytes_decode_to_the_same_chunks_however_they_are_cut(pieces: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(pieces) + data.draw(st.binary(max_size=10))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=4)))
    edges = [0, *cuts, len(stream)]

    def chunks_of(parts: list[bytes]) -> list[TokenChunk]:
        sse, decoder = SseDecoder(), CODEC.stream_decoder()
        return [chunk for part in parts for chunk in decoder.decode(sse.feed(part))]

    assert chunks_of([stream]) == chunks_of([stream[a:b] for a, b in pairwise(edges)])


@given(messages.map(json.dumps).map(str.encode) | st.binary(max_size=40) | frames.map(str.encode))
@settings(max_examples=300, deadline=None)
def test_any_body_is_an_answer_or_an_error(body: bytes) -> None:
    answer = CODEC.decode_unary(body)
    if isinstance(answer, InferenceError):
        assert InferenceError.from_dict(json.loads(json.dumps(answer.to_dict()))).to_dict() == answer.to_dict()
    else:
        json.dumps(Tokens.from_chunks(answer).to_dict(), ensure_ascii=False).encode()
