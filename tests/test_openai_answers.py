"""Answers of Chat Completions and its dialects, streamed and whole (`sansio.providers.openai_answers`)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mangled import events, frames, texts

from sansio.batch import ExecuteBatch, Message, TokenChunk, Tokens, TokenUsage, ToolCall, ToolCallDelta
from sansio.errors import InferenceError, ProtocolError
from sansio.providers.openai import OpenAIChat
from sansio.providers.openai_answers import ChatStreamDecoder
from sansio.sse import SseChunk

CODEC = OpenAIChat()


# ---- streams -----------------------------------------------------------------------------------------------------------


def event(frame: object) -> SseChunk:
    return SseChunk(frame if isinstance(frame, str) else json.dumps(frame))


def delta(finish: str | None = None, index: int = 0, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": fields, "finish_reason": finish}], "usage": None}


def decoded(*frames: object, asked: int = 1) -> tuple[list[TokenChunk], ChatStreamDecoder]:
    decoder = CODEC.stream_decoder(ExecuteBatch([Message("user", "hello")], extra={"n": asked}))
    return decoder.decode([event(frame) for frame in frames]), decoder


ROLE = delta(role="assistant", content="", refusal=None)
USAGE = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}}
SPENT = TokenUsage(9, 2)


def test_a_stream_from_role_to_done() -> None:
    chunks, decoder = decoded(ROLE, delta(content="Hel"), delta(content="lo"), delta("stop"), USAGE, "[DONE]")
    assert chunks == [
        TokenChunk("Hel"),
        TokenChunk("lo"),
        TokenChunk(finish_reason="stop", raw_finish_reason="stop"),
        TokenChunk(usage=SPENT),
    ]
    assert (decoder.complete, decoder.terminal, decoder.error, decoder.usage) == (True, True, None, SPENT)


@pytest.mark.parametrize(
    "frame",
    [
        ROLE,
        {"choices": []},
        {"choices": None},
        {"choices": [], "usage": None, "prompt_filter_results": [{"prompt_index": 0}]},  # Azure's first
        {"id": "x", "created": 1, "obfuscation": "…"},
        {},
        {"choices": [{"index": 0, "delta": None, "content_filter_offsets": {"check_offset": 1}}]},
        {"choices": [{"index": 0}]},
        delta(content=None, tool_calls=None, refusal=None, reasoning=None),
        delta(content="", tool_calls=[], finish=""),
        {"choices": [{}], "error": None},
        {"choices": [{}], "error": {}},
        {"choices": [{}], "usage": {}},
        {"choices": [{}], "usage": {"total_tokens": 3}},
        {"choices": [{}], "x_groq": {"id": "req_1"}},
        "\n {} ",
    ],
)
def test_frames_that_say_nothing_yield_no_chunk(frame: object) -> None:
    chunks, decoder = decoded(frame)
    assert chunks == []
    assert (decoder.complete, decoder.terminal, decoder.error, decoder.usage) == (False, False, None, None)


CALL = {"index": 1, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}


@pytest.mark.parametrize(
    ("frame", "chunk"),
    [
        (delta(content=" word"), TokenChunk(" word")),
        (delta(content="x", index=3), TokenChunk("x", index=3)),
        (delta(refusal="I can't"), TokenChunk(refusal_delta="I can't")),
        (delta(reasoning_content="hm"), TokenChunk(reasoning_delta="hm")),
        (delta(reasoning="hm", content=""), TokenChunk(reasoning_delta="hm")),
        (delta(reasoning="hm", reasoning_content="hm"), TokenChunk(reasoning_delta="hm")),  # vLLM sends both
        (delta("length", content="x"), TokenChunk("x", finish_reason="length", raw_finish_reason="length")),
        (delta(tool_calls=[CALL]), TokenChunk(tool_call_deltas=(ToolCallDelta(1, "c1", "f", ""),))),
        (
            delta(tool_calls=[{"index": 0, "function": {"arguments": '{"a'}}]),
            TokenChunk(tool_call_deltas=(ToolCallDelta(0, arguments='{"a'),)),
        ),
        (
            delta(tool_calls=[{"index": 0, "id": "c", "type": "custom", "custom": {"name": "g", "input": "in"}}]),
            TokenChunk(tool_call_deltas=(ToolCallDelta(0, "c", "g", "in"),)),
        ),
        (delta(tool_calls=[{"index": 2, "id": None}]), TokenChunk(tool_call_deltas=(ToolCallDelta(2),))),
        (
            delta(function_call={"name": "f", "arguments": "{}"}),
            TokenChunk(tool_call_deltas=(ToolCallDelta(0, "", "f", "{}"),)),
        ),
        # other types than the format's own: that one frame is read again, without expectations
        (delta(content="x", refusal=7), TokenChunk("x")),
        (delta(content="x", index="0"), TokenChunk("x")),
        (delta(content="x", index=2.0), TokenChunk("x", index=2)),
        (delta(content="x", index=None), TokenChunk("x")),
        (delta(content="x", tool_calls="none"), TokenChunk("x")),
        (delta(content="x", function_call=[]), TokenChunk("x")),
        ({"choices": [7, {"delta": {"content": "x"}}, None]}, TokenChunk("x")),
        ({"choices": [{"delta": {"content": "x"}}], "usage": "later"}, TokenChunk("x")),
        ({"choices": [{"delta": {"content": "x"}}], "x_groq": 1}, TokenChunk("x")),
        ('{"choices": [{"delta": {"content": "x"}, "logprobs": NaN}]}', TokenChunk("x")),
        ('{"choices": [{"delta": {"content": "x\\ud83d"}}]}', TokenChunk("x\ufffd")),
        ('{"choices": [{"delta": {"content": "\\ud83d\\ude00"}}], "usage": 1}', TokenChunk("😀")),
        (delta(content=[{"type": "text", "text": "a"}, "b", {"type": "text", "text": "c"}]), TokenChunk("ac")),  # Mistral
        (
            delta(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}, {}]}, {"type": "text"}]),
            TokenChunk(reasoning_delta="hm"),
        ),
        (delta(content=[{"type": "thinking", "thinking": "hm"}]), TokenChunk(reasoning_delta="hm")),
        (
            delta(tool_calls=[{"index": 1, "id": 5, "function": {"name": "f", "arguments": {"a": [1]}}}, "junk"]),
            TokenChunk(tool_call_deltas=(ToolCallDelta(1, "", "f", '{"a": [1]}'),)),
        ),
        (delta(tool_calls=[{"index": 0, "function": "f"}]), TokenChunk(tool_call_deltas=(ToolCallDelta(0),))),
    ],
)
def test_one_delta_one_chunk(frame: object, chunk: TokenChunk) -> None:
    chunks, decoder = decoded(frame)
    assert chunks == [chunk]
    assert decoder.error is None


@pytest.mark.parametrize(
    ("raw", "finish_reason"),
    [
        ("stop", "stop"),
        ("eos", "stop"),
        ("length", "length"),
        ("model_length", "length"),
        ("tool_calls", "tool_calls"),
        ("function_call", "tool_calls"),
        ("content_filter", "content_filter"),
        ("error", "error"),
        ("insufficient_system_resource", "unknown"),
    ],
)
def test_finish_reasons_are_normalised_and_kept(raw: str, finish_reason: str) -> None:
    chunks, decoder = decoded(delta(raw))
    assert [(chunk.finish_reason, chunk.raw_finish_reason) for chunk in chunks] == [(finish_reason, raw)]
    assert decoder.complete
    answer = CODEC.decode_unary(json.dumps({"choices": [{"message": {}, "finish_reason": raw}]}).encode())
    assert answer == chunks


@pytest.mark.parametrize(
    ("extra", "came", "complete"),
    [
        ({}, [0], True),
        ({"n": 2}, [0], False),
        ({"n": 2}, [0, 0], False),
        ({"n": 2}, [1], False),
        ({"n": 2}, [1, 0], True),
        ({"n": 2}, [0, 1, 2], True),
        ({"n": 3}, [0, 1], False),
        ({"n": 0}, [0], True),
        ({"n": True}, [0], True),
        ({"n": "2"}, [0], True),
        ({"n": 2}, [], False),
    ],
)
def test_a_stream_is_complete_with_as_many_finish_reasons_as_choices_were_asked_for(
    extra: dict[str, Any], came: list[int], complete: bool
) -> None:
    decoder = CODEC.stream_decoder(ExecuteBatch([Message("user", "hello")], extra=extra))
    decoder.decode([event(delta("stop", index)) for index in came])
    assert decoder.complete is complete


@pytest.mark.parametrize(("asked", "kept"), [(0, 1), (1, 1), (2, 2), (3, 3)])  # to ask for none is to ask for one
def test_choices_that_nobody_asked_for_are_left_out(asked: int, kept: int) -> None:
    """The first that come are kept, whatever their index."""
    came = [TokenChunk("a", index=2), TokenChunk("b"), TokenChunk("c", index=1)]
    chunks, decoder = decoded(*(delta(content=chunk.text_delta, index=chunk.index) for chunk in came), asked=asked)
    assert chunks == came[:kept]
    assert not decoder.complete
    assert len(decoder.decode([event(delta("stop", index)) for index in (1, 2, 0)])) == kept
    assert decoder.complete
    unasked = delta(index=7, content="x") | {"usage": USAGE["usage"]}
    assert decoder.decode([event(unasked)]) == [TokenChunk(usage=SPENT)]  # what it cost is told all the same
    assert decoder.complete


def test_tool_calls_join_by_index() -> None:
    chunks, decoder = decoded(
        delta(tool_calls=[{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": "{1"}}]),
        delta(tool_calls=[{"index": 1, "id": "b", "function": {"name": "g", "arguments": "[]"}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": "}"}}]),
        delta("tool_calls"),
    )
    assert len(chunks) == 5
    assert Tokens.from_chunks(chunks).tool_calls == (ToolCall("a", "f", "{1}"), ToolCall("b", "g", "[]"))
    assert decoder.complete


def test_without_an_index_a_new_id_opens_the_next_call() -> None:
    chunks, _ = decoded(
        delta(tool_calls=[{"function": {"name": "nameless", "arguments": "0"}}]),
        delta(tool_calls=[{"id": "a", "function": {"name": "f", "arguments": "1"}}]),
        delta(tool_calls=[{"function": {"arguments": "2"}}, {"id": "a", "function": {"arguments": "3"}}]),
        delta(tool_calls=[{"id": "b", "function": {"name": "g", "arguments": "4"}}]),
        delta(index=1, tool_calls=[{"id": "b", "function": {"name": "h", "arguments": "5"}}]),
        asked=2,
    )
    whole = Tokens.from_chunks(chunks)
    assert whole.tool_calls == (ToolCall("", "nameless", "0"), ToolCall("a", "f", "123"), ToolCall("b", "g", "4"))
    assert whole.others[0].tool_calls == (ToolCall("b", "h", "5"),)
    assert chunks[-1].tool_call_deltas[0].index == 0  # each choice counts for itself


def test_choices_come_apart_and_all_must_finish() -> None:
    both = {"choices": [{"index": 0, "delta": {"content": "a"}}, {"index": 1, "delta": {"content": "b"}}]}
    chunks, decoder = decoded(both, delta("stop", index=0), asked=2)
    assert chunks[:2] == [TokenChunk("a"), TokenChunk("b", index=1)]
    assert not decoder.complete
    decoder.decode([event(delta("length", index=1))])
    assert decoder.complete
    decoder.decode([event(delta(content_filter_offsets={}))])  # Azure, after the finish
    assert decoder.complete


@pytest.mark.parametrize("frames", [[], [ROLE], [delta(content="x")], [USAGE], [{"choices": []}]])
def test_done_alone_proves_nothing(frames: list[object]) -> None:
    _, decoder = decoded(*frames, " [DONE] ", delta("stop"))  # and nothing after it is decoded
    assert (decoder.terminal, decoder.complete) == (True, False)
    assert decoder.decode([event(delta(content="x"))]) == []


DETAILS = {
    "prompt_tokens": 9,
    "completion_tokens": 5,
    "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 3, "accepted_prediction_tokens": 0},
}

TTLS = {"ttl_30m_tokens": 1, "ttl_12h_tokens": 1}


@pytest.mark.parametrize(
    ("usage", "known"),
    [
        (DETAILS, TokenUsage(9, 5, 4, 2, 3)),
        ({"prompt_tokens": 9, "completion_tokens": 2}, SPENT),
        ({"prompt_tokens": 9, "completion_tokens": 2, "prompt_cache_hit_tokens": 4}, TokenUsage(9, 2, 4)),  # DeepSeek
        (
            DETAILS | {"prompt_tokens_details": {"cache_write_tokens": 2, "cache_write_tokens_details": TTLS}},
            TokenUsage(9, 5, 0, 2, 3, cache_write_long_tokens=1),
        ),
        (
            DETAILS | {"prompt_tokens_details": {"cache_write_tokens": "2", "cache_write_tokens_details": TTLS}},
            TokenUsage(9, 5, 0, 2, 3, cache_write_long_tokens=1),
        ),
        ({"prompt_tokens": 9, "total_tokens": 11}, SPENT),
        ({"completion_tokens": 2, "total_tokens": 11}, SPENT),
        ({"prompt_tokens": 9}, TokenUsage(9, 0, provenance="lower_bound")),
        ({"completion_tokens": 2}, TokenUsage(0, 2, provenance="lower_bound")),
        ({"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": None}, SPENT),
        ({"prompt_tokens": 9.0, "completion_tokens": "2", "prompt_tokens_details": []}, SPENT),
        ({"prompt_tokens": "9", **{k: v for k, v in DETAILS.items() if k != "prompt_tokens"}}, TokenUsage(9, 5, 4, 2, 3)),
        ({"prompt_tokens": -9, "completion_tokens": 10**30}, TokenUsage(0, 2**53)),
        ({"prompt_tokens": "9", "completion_tokens": 10**30}, TokenUsage(9, 0, provenance="lower_bound")),
        ({}, None),
        ({"prompt_tokens": None, "completion_tokens": None, "total_tokens": 5}, None),
        ({"prompt_tokens": True, "completion_tokens": float("nan")}, None),
    ],
)
def test_usage(usage: dict[str, Any], known: TokenUsage | None) -> None:
    chunks, decoder = decoded({"choices": [], "usage": usage})
    assert decoder.usage == known
    assert chunks == ([] if known is None else [TokenChunk(usage=known)])
    answer = CODEC.decode_unary(json.dumps({"choices": [{"message": {"content": "x"}}], "usage": usage}).encode())
    assert answer == [TokenChunk("x", usage=known)]


@pytest.mark.parametrize(
    ("tier", "known"), [("flex", "flex"), ("", ""), (None, ""), (7, ""), ("\ud83d", "\ufffd"), (["flex"], "")]
)
def test_the_tier_that_served_goes_with_the_usage(tier: object, known: str) -> None:
    spent = TokenUsage(9, 2, service_tier=known)
    _, decoder = decoded(delta(content="x") | {"service_tier": tier}, USAGE | {"service_tier": tier})
    assert decoder.usage == spent
    whole = {"choices": [{"message": {"content": "x"}}], "usage": USAGE["usage"], "service_tier": tier}
    assert CODEC.decode_unary(json.dumps(whole).encode()) == [TokenChunk("x", usage=spent)]


def test_usage_in_the_last_content_chunk_unasked() -> None:
    last = delta("stop", content="x") | {"usage": USAGE["usage"]}
    chunks, _ = decoded(last, "[DONE]")
    assert chunks == [TokenChunk("x", finish_reason="stop", raw_finish_reason="stop", usage=SPENT)]


def test_of_repeated_usages_the_last_counts() -> None:
    _, decoder = decoded(delta(content="a") | {"usage": {"prompt_tokens": 9, "completion_tokens": 1}}, USAGE, delta("stop"))
    assert decoder.usage == SPENT


def test_groq_puts_usage_and_errors_under_its_name() -> None:
    chunks, decoder = decoded(delta("stop") | {"x_groq": {"id": "r", "usage": USAGE["usage"]}})
    assert chunks[0].usage == decoder.usage == SPENT
    _, decoder = decoded(delta() | {"x_groq": {"error": "over capacity"}})
    assert decoder.error is not None
    assert str(decoder.error) == "over capacity"
    _, decoder = decoded({"choices": 0, "x_groq": {"usage": {"prompt_tokens": 9, "completion_tokens": 2}}})
    assert decoder.usage == SPENT


# ---- streams that fail -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        '{"choices": [{"delta": {"con',
        "<html>",
        "",
        "[]",
        "7",
        "null",
        '"text"',
        "[" * 5000,
        '{"x": ' + "[" * 100_000,
        "NaN",
        "\ud800",
    ],
)
def test_what_is_not_a_json_object_is_a_protocol_error_worth_a_retry(data: str) -> None:
    decoder = CODEC.stream_decoder()
    assert decoder.decode([event(delta(content="a")), SseChunk(data), event(delta(content="b"))]) == [TokenChunk("a")]
    error = decoder.error
    assert isinstance(error, ProtocolError)
    assert error.retryable
    assert error.provider == "openai"
    assert len(error.body or "") <= 2_000
    assert decoder.decode([event(delta(content="c"))]) == []


@pytest.mark.parametrize("error", [{"code": "slow_down"}, {"code": 502}, "overloaded", True, [1]])
def test_after_an_error_frame_nothing_is_decoded_and_nothing_is_proven(error: object) -> None:
    frame = {"error": error, "choices": [{"index": 0, "delta": {"content": "ignored"}}]}
    chunks, decoder = decoded(delta("stop", content="a"), frame, "[DONE]", delta(content="b"))
    assert [chunk.text_delta for chunk in chunks] == ["a"]
    assert (decoder.complete, decoder.terminal) == (False, False)
    assert decoder.error is not None
    assert (decoder.error.retryable, decoder.error.provider) == (True, "openai")
    answer = CODEC.decode_unary(json.dumps(frame).encode())
    assert isinstance(answer, InferenceError)
    assert answer.to_dict() == decoder.error.to_dict()


def test_the_usage_in_an_error_frame_is_not_lost() -> None:
    _, decoder = decoded({"error": {"code": 400}, "choices": [], "usage": USAGE["usage"]})
    assert decoder.usage == SPENT


@pytest.mark.parametrize(
    "chunk",
    [
        SseChunk('{"message": "over", "code": "slow_down"}', event="error"),
        SseChunk('{"object": "error", "message": "over", "type": "rate_limited", "code": "1300"}'),
    ],
)
def test_error_frames_without_an_error_field(chunk: SseChunk) -> None:
    decoder = CODEC.stream_decoder()
    assert decoder.decode([chunk]) == []
    assert decoder.error is not None
    assert (decoder.error.kind, decoder.error.message) == ("rate_limited", "over")


# ---- unary answers -----------------------------------------------------------------------------------------------------


def test_a_unary_answer_is_a_chunk_per_choice_the_usage_on_the_first() -> None:
    calls = [{"id": "a", "function": {"name": "f", "arguments": "{}"}}, {"id": "b", "custom": {"name": "g", "input": "x"}}]
    answer = {
        "object": "chat.completion",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "Hi", "reasoning": "hm"}, "finish_reason": "stop"},
            {"index": 1, "message": {"content": None, "tool_calls": calls}, "finish_reason": "tool_calls"},
            {"index": 2, "message": {"refusal": "no"}, "finish_reason": None},
            {"index": 3, "message": None},
        ],
        "usage": USAGE["usage"],
    }
    chunks = CODEC.decode_unary(json.dumps(answer).encode())
    assert chunks == [
        TokenChunk("Hi", "hm", finish_reason="stop", raw_finish_reason="stop", usage=SPENT),
        TokenChunk(
            tool_call_deltas=(ToolCallDelta(0, "a", "f", "{}"), ToolCallDelta(1, "b", "g", "x")),
            index=1,
            finish_reason="tool_calls",
            raw_finish_reason="tool_calls",
        ),
        TokenChunk(refusal_delta="no", index=2),
        TokenChunk(index=3),
    ]


def test_a_unary_answer_of_other_types_is_read_without_expectations() -> None:
    answer = {"choices": [{"index": "0", "message": {"content": [{"type": "text", "text": "Hi"}]}, "finish_reason": 1}]}
    assert CODEC.decode_unary(json.dumps(answer).encode()) == [TokenChunk("Hi")]


@pytest.mark.parametrize(
    "data", [b"", b"<html>", b"[]", b"{}", b'{"choices": []}', b'{"choices": 3}', b"\xff\xfe", b'{"a":"\xff"}']
)
def test_a_unary_answer_that_is_none(data: bytes) -> None:
    error = CODEC.decode_unary(data)
    assert isinstance(error, ProtocolError)
    assert error.retryable


# ---- whatever comes ----------------------------------------------------------------------------------------------------


@given(st.lists(events, max_size=6), st.integers(1, 3), st.data())
@settings(max_examples=200, deadline=None)
def test_any_stream_decodes_to_the_same_chunks_however_it_is_cut(
    stream: list[SseChunk], asked: int, data: st.DataObject
) -> None:
    whole, apart = ChatStreamDecoder(choices=asked), ChatStreamDecoder(choices=asked)
    chunks = whole.decode(stream)
    cut = data.draw(st.integers(0, len(stream)))
    assert apart.decode(stream[:cut]) + apart.decode(stream[cut:]) == chunks
    state = (apart.complete, apart.terminal, apart.usage, None if apart.error is None else apart.error.to_dict())
    assert state == (whole.complete, whole.terminal, whole.usage, None if whole.error is None else whole.error.to_dict())
    for chunk in chunks:
        assert chunk.has_content or chunk.finish_reason or chunk.usage
    assert len({chunk.index for chunk in chunks if chunk.has_content or chunk.finish_reason}) <= asked
    for chunk in chunks:
        json.dumps([chunk.text_delta, chunk.reasoning_delta, chunk.refusal_delta]).encode()
    if whole.error is not None:
        assert InferenceError.from_dict(json.loads(json.dumps(whole.error.to_dict()))).to_dict() == whole.error.to_dict()
    Tokens.from_chunks(chunks)


@given(frames.map(str.encode) | st.binary(max_size=40) | texts.map(lambda text: text.encode("utf-8", "replace")))
@settings(max_examples=150, deadline=None)
def test_any_body_is_an_answer_or_an_error(data: bytes) -> None:
    answer = CODEC.decode_unary(data)
    assert isinstance(answer, InferenceError) or answer
