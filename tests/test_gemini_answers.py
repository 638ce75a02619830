"""What comes back from Gemini, as chunks (`sansio.providers.gemini_answers`)."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sansio.batch import ExecuteBatch, Message, Thought, TokenChunk, Tokens, TokenUsage, ToolCall, ToolCallDelta
from sansio.errors import ContentFiltered, InferenceError, ProtocolError, RateLimited, ServerError, StreamInterrupted
from sansio.providers.gemini import Gemini
from sansio.providers.gemini_answers import GeminiStreamDecoder
from sansio.replay import replay_response
from sansio.sse import SseChunk, SseDecoder

CODEC = Gemini("gemini-3.5-flash")
Json = dict[str, Any]


def text(said: str, **more: Any) -> Json:
    return {"candidates": [{"content": {"role": "model", "parts": [{"text": said}]}, **more}]}


def parts(*of: Json, **more: Any) -> Json:
    return {"candidates": [{"content": {"role": "model", "parts": list(of)}, **more}]}


def frame(tree: object) -> SseChunk:
    return SseChunk(json.dumps(tree))


def decoded(*trees: object, choices: int = 1) -> tuple[list[TokenChunk], GeminiStreamDecoder]:
    decoder = GeminiStreamDecoder(choices=choices)
    chunks = [chunk for tree in trees for chunk in decoder.decode([frame(tree)])]
    return chunks, decoder


STOP = text("", finishReason="STOP")
COUNTS = {"promptTokenCount": 7, "candidatesTokenCount": 10, "totalTokenCount": 17}
USED = TokenUsage(7, 10)


# ---- streams ----------------------------------------------------------------------------------------------------------


def test_a_stream_of_text() -> None:
    chunks, decoder = decoded(
        text("The") | {"usageMetadata": {"promptTokenCount": 7, "totalTokenCount": 7}},
        text(" end") | {"usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 1}},
        text(".", finishReason="STOP", index=0) | {"usageMetadata": COUNTS, "modelVersion": "m", "responseId": "r"},
    )
    assert chunks == [
        TokenChunk("The"),
        TokenChunk(" end"),
        TokenChunk(".", finish_reason="stop", raw_finish_reason="STOP", usage=USED),
    ]
    assert (decoder.complete, decoder.terminal, decoder.error, decoder.usage) == (True, False, None, USED)


def test_each_part_is_a_chunk() -> None:
    chunks, _ = decoded(parts({"text": "a"}, {"text": "hm", "thought": True}, {"text": "b"}, finishReason="STOP"))
    assert chunks == [
        TokenChunk("a"),
        TokenChunk(reasoning_delta="hm"),
        TokenChunk("b", finish_reason="stop", raw_finish_reason="STOP"),
    ]


@pytest.mark.parametrize(
    ("part", "chunk"),
    [
        ({"text": "x", "thought": False}, TokenChunk("x")),
        ({"text": "x", "thoughtSignature": ""}, TokenChunk("x")),
        ({"text": "x", "thoughtSignature": "s"}, TokenChunk("x", thought=Thought(signature="s"))),
        ({"text": "", "thoughtSignature": "s"}, TokenChunk(thought=Thought(signature="s"))),
        ({"text": "x", "thought": True}, TokenChunk(reasoning_delta="x")),
        (
            {"text": "x", "thought": True, "thoughtSignature": "s"},
            TokenChunk(reasoning_delta="x", thought=Thought("x", "s")),
        ),
        ({"thought": True, "thoughtSignature": "s"}, TokenChunk(thought=Thought("", "s"))),
        ({"thought": True}, None),
        ({"text": ""}, None),
        ({}, None),
        ({"executableCode": {"language": "PYTHON", "code": "1"}, "thoughtSignature": "s"}, None),
        ({"inlineData": {"mimeType": "image/png", "data": "AA"}}, None),
        (
            {"functionCall": {"name": "f"}},
            TokenChunk(tool_call_deltas=(ToolCallDelta(0, "call_0", "f", "{}"),)),
        ),
        (
            {"functionCall": {"id": "8f2k", "name": "f", "args": {"a": "ü"}}, "thoughtSignature": "s"},
            TokenChunk(tool_call_deltas=(ToolCallDelta(0, "8f2k", "f", '{"a": "\\u00fc"}', "s"),)),
        ),
        (
            {"functionCall": {"name": "f", "args": None}},
            TokenChunk(tool_call_deltas=(ToolCallDelta(0, "call_0", "f", "{}"),)),
        ),
        (
            {"functionCall": {"id": None, "args": [1]}},
            TokenChunk(tool_call_deltas=(ToolCallDelta(0, "call_0", "", "{}"),)),
        ),
    ],
)
def test_parts(part: Json, chunk: TokenChunk | None) -> None:
    chunks, decoder = decoded(parts(part))
    assert chunks == ([] if chunk is None else [chunk])
    assert decoder.error is None
    unary = CODEC.decode_unary(json.dumps(parts(part)).encode())
    assert unary == [chunk or TokenChunk()]


def test_arguments_are_passed_on_as_they_were_written() -> None:
    written = '{ "a":1.50,\n"b": ["\u00fc\\u00fc"] }'
    data = json.dumps(parts({"functionCall": {"name": "f", "args": "?"}})).replace('"?"', written)
    (chunk,) = GeminiStreamDecoder().decode([SseChunk(data)])
    assert chunk.tool_call_deltas[0].arguments == written
    unary = CODEC.decode_unary(data.encode())
    assert unary == [chunk]


def test_calls_are_counted_over_the_whole_answer() -> None:
    call: Json = {"functionCall": {"name": "f", "args": {}}}
    chunks, decoder = decoded(parts(call, {"text": "and"}, call), parts(call), STOP)
    assert [delta.id for chunk in chunks for delta in chunk.tool_call_deltas] == ["call_0", "call_1", "call_2"]
    whole = Tokens.from_chunks(chunks)
    assert whole.tool_calls == tuple(ToolCall(f"call_{place}", "f", "{}") for place in range(3))
    assert (whole.finish_reason, whole.raw_finish_reason, decoder.complete) == ("tool_calls", "STOP", True)


def test_arguments_that_come_in_pieces_of_their_own_kind_do_no_harm() -> None:
    def piece(**fields: Any) -> Json:
        return parts({"functionCall": fields})

    chunks, decoder = decoded(
        piece(name="f", willContinue=True),
        piece(partialArgs=[{"jsonPath": "$.a", "stringValue": "x"}], willContinue=True),
        piece(args={"a": "x"}),
        piece(name="g", partialArgs=[{"jsonPath": "$.a"}]),
        piece(name="h"),
        STOP,
    )
    whole = Tokens.from_chunks(chunks)
    assert [(call.id, call.name, call.arguments) for call in whole.tool_calls] == [
        ("call_0", "f", '{"a": "x"}'),
        ("call_1", "g", ""),
        ("call_2", "h", "{}"),
    ]
    assert decoder.complete


def test_a_call_in_pieces_may_get_its_signature_late() -> None:
    chunks, _ = decoded(
        parts({"functionCall": {"name": "e"}}),
        parts({"functionCall": {"name": "f", "willContinue": True}}),
        parts({"functionCall": {}, "thoughtSignature": "s"}),
    )
    assert Tokens.from_chunks(chunks).tool_calls == (ToolCall("call_0", "e", "{}"), ToolCall("call_1", "f", "", "s"))


@pytest.mark.parametrize(
    ("raw", "normal"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("LANGUAGE", "content_filter"),
        ("BLOCKLIST", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("SPII", "content_filter"),
        ("MODEL_ARMOR", "content_filter"),
        ("IMAGE_SAFETY", "content_filter"),
        ("IMAGE_PROHIBITED_CONTENT", "content_filter"),
        ("IMAGE_RECITATION", "content_filter"),
        ("ESCALATION", "content_filter"),
        ("PUP_LIMITED_DISABLED", "content_filter"),
        ("MALFORMED_FUNCTION_CALL", "error"),
        ("UNEXPECTED_TOOL_CALL", "error"),
        ("TOO_MANY_TOOL_CALLS", "error"),
        ("MISSING_THOUGHT_SIGNATURE", "error"),
        ("MALFORMED_RESPONSE", "error"),
        ("NO_IMAGE", "error"),
        ("IMAGE_OTHER", "error"),
        ("CONTINUATION", "continue"),
        ("OTHER", "unknown"),
        ("FAKE_ENUM", "unknown"),
    ],
)
def test_finish_reasons(raw: str, normal: str) -> None:
    chunks, decoder = decoded(text("x"), {"candidates": [{"finishReason": raw, "finishMessage": "…"}]})
    assert (chunks[-1].finish_reason, chunks[-1].raw_finish_reason) == (normal, raw)
    assert decoder.complete
    unary = CODEC.decode_unary(json.dumps(text("x", finishReason=raw)).encode())
    assert unary == [TokenChunk("x", finish_reason=chunks[-1].finish_reason, raw_finish_reason=raw)]


def test_only_a_natural_end_is_one_to_call_tools() -> None:
    call: Json = {"functionCall": {"name": "f"}}
    chunks, _ = decoded(parts(call, finishReason="MAX_TOKENS"))
    assert chunks[-1].finish_reason == "length"


@pytest.mark.parametrize("raw", ["", None, "FINISH_REASON_UNSPECIFIED"])
def test_what_is_no_reason_ends_nothing(raw: Any) -> None:
    chunks, decoder = decoded(text("x", finishReason=raw))
    assert (chunks, decoder.complete) == ([TokenChunk("x")], False)
    assert CODEC.decode_unary(json.dumps(text("x", finishReason=raw)).encode()) == [TokenChunk("x")]


def test_every_candidate_must_end() -> None:
    _, decoder = decoded(text("a", index=1, finishReason="STOP"), choices=2)
    assert not decoder.complete
    decoder.decode([frame(text("b"))])
    assert not decoder.complete
    decoder.decode([frame(text("", finishReason="STOP"))])
    assert decoder.complete
    decoder.decode([frame(text("c", index=2))])
    assert not decoder.complete


def test_one_that_still_runs_keeps_a_whole_one_waiting() -> None:
    running, done = text("b", index=1)["candidates"], text("a", finishReason="STOP")["candidates"]
    _, decoder = decoded({"candidates": [*running, *done]})
    assert not decoder.complete


def test_an_end_without_words_is_a_chunk_of_its_own() -> None:
    decoder = GeminiStreamDecoder()
    chunks = decoder.decode([frame(text("a", index=1)), frame({"candidates": [{"finishReason": "STOP", "index": 1}]})])
    assert chunks == [
        TokenChunk("a", index=1),
        TokenChunk(index=1, finish_reason="stop", raw_finish_reason="STOP"),
    ]


def test_candidates_in_one_frame() -> None:
    tree: Json = {"candidates": [*text("a", finishReason="STOP")["candidates"], *text("b", index=1)["candidates"]]}
    chunks, _ = decoded(tree, parts({"functionCall": {"name": "f"}}, index=1, finishReason="STOP"), choices=2)
    assert [(chunk.index, chunk.text_delta, chunk.finish_reason) for chunk in chunks] == [
        (0, "a", "stop"),
        (1, "b", None),
        (1, "", "tool_calls"),
    ]


def test_the_batch_says_how_many_candidates_there_must_be() -> None:
    batch = ExecuteBatch([Message("user", "x")], extra={"generationConfig": {"candidateCount": 2}})
    for decoder, complete in ((CODEC.stream_decoder(batch), False), (CODEC.stream_decoder(), True)):
        decoder.decode([frame(STOP)])
        assert decoder.complete is complete


# ---- usage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "usage"),
    [
        (COUNTS, USED),
        ({"promptTokenCount": 7}, TokenUsage(7, 0)),
        ({"promptTokenCount": 7, "cachedContentTokenCount": 5}, TokenUsage(7, 0, 5)),
        ({"promptTokenCount": 7, "toolUsePromptTokenCount": 20}, TokenUsage(27, 0)),
        (
            {"promptTokenCount": 7, "candidatesTokenCount": 2, "thoughtsTokenCount": 30, "totalTokenCount": 39},
            TokenUsage(7, 32, reasoning_tokens=30),
        ),
        ({"candidatesTokenCount": 2}, TokenUsage(0, 2, provenance="lower_bound")),
        ({"thoughtsTokenCount": 2}, TokenUsage(0, 2, reasoning_tokens=2, provenance="lower_bound")),
        (COUNTS | {"serviceTier": "flex", "trafficType": "ON_DEMAND"}, TokenUsage(7, 10, service_tier="flex")),
        (COUNTS | {"trafficType": "ON_DEMAND_FLEX"}, TokenUsage(7, 10, service_tier="ON_DEMAND_FLEX")),
        (COUNTS | {"promptTokenCount": 2**60}, TokenUsage(2**53, 10)),
        (COUNTS | {"promptTokenCount": 2**60, "toolUsePromptTokenCount": 1}, TokenUsage(2**53, 10)),
        (COUNTS | {"thoughtsTokenCount": 2**60}, TokenUsage(7, 2**53, reasoning_tokens=2**53)),
        (COUNTS | {"promptTokenCount": -1}, TokenUsage(0, 10)),
        (COUNTS | {"promptTokenCount": "7", "candidatesTokenCount": 10.0}, USED),
        ({"trafficType": "ON_DEMAND"}, None),
        ({}, None),
        (None, None),
        ("many", None),
    ],
)
def test_usages(counts: Any, usage: TokenUsage | None) -> None:
    tree = text("x", finishReason="STOP") | {"usageMetadata": counts}
    chunks, decoder = decoded(tree)
    unary = CODEC.decode_unary(json.dumps(tree).encode())
    assert isinstance(unary, list)
    assert (chunks[-1].usage, decoder.usage, unary[0].usage) == (usage, usage, usage)


def test_a_usage_before_the_end_is_a_lower_bound() -> None:
    chunks, decoder = decoded(text("x") | {"usageMetadata": COUNTS})
    assert chunks == [TokenChunk("x")]
    assert decoder.usage == TokenUsage(7, 10, provenance="lower_bound")


def test_and_stays_one_where_none_comes_at_the_end() -> None:
    chunks, decoder = decoded(
        text("x") | {"usageMetadata": COUNTS}, STOP, text("") | {"usageMetadata": {"trafficType": "x"}}
    )
    bound = TokenUsage(7, 10, provenance="lower_bound")
    assert chunks[-1] == TokenChunk(finish_reason="stop", raw_finish_reason="STOP", usage=bound)
    assert decoder.usage == bound


def test_a_usage_after_the_end_is_not_lost() -> None:
    chunks, decoder = decoded(
        STOP, {"usageMetadata": COUNTS}, {"candidates": [], "usageMetadata": COUNTS | {"promptTokenCount": 8}}
    )
    assert chunks == [
        TokenChunk(finish_reason="stop", raw_finish_reason="STOP"),
        TokenChunk(usage=USED),
        TokenChunk(usage=TokenUsage(8, 10)),
    ]
    assert (decoder.usage, decoder.complete) == (TokenUsage(8, 10), True)
    at_once = GeminiStreamDecoder().decode([frame(STOP), frame({"usageMetadata": COUNTS})])
    assert at_once == chunks[:2]


def test_an_answer_that_goes_on_after_all_makes_it_a_lower_bound_again() -> None:
    _, decoder = decoded(STOP | {"usageMetadata": COUNTS}, text("x", index=1))
    assert decoder.usage == TokenUsage(7, 10, provenance="lower_bound")


# ---- what is no answer ------------------------------------------------------------------------------------------------

BLOCKED = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 7}}


def test_a_blocked_prompt() -> None:
    chunks, decoder = decoded(BLOCKED, text("never"))
    assert chunks == []
    error = decoder.error
    assert isinstance(error, ContentFiltered)
    assert (error.status, error.code, error.provider, error.retryable) == (200, "SAFETY", "gemini", False)
    assert error.message == "the prompt was blocked: SAFETY"
    assert decoder.usage == TokenUsage(7, 0, provenance="lower_bound")
    unary = CODEC.decode_unary(json.dumps(BLOCKED).encode())
    assert isinstance(unary, ContentFiltered)
    assert unary.code == "SAFETY"


def test_a_blocked_prompt_may_say_more() -> None:
    _, decoder = decoded({"promptFeedback": {"blockReason": "OTHER", "blockReasonMessage": "because"}})
    assert decoder.error is not None
    assert decoder.error.message == "because"


@pytest.mark.parametrize("feedback", [{}, {"safetyRatings": []}, {"blockReason": ""}, None, []])
def test_feedback_without_a_reason_blocks_nothing(feedback: object) -> None:
    _, decoder = decoded({"promptFeedback": feedback})
    assert decoder.error is None


def test_feedback_beside_an_answer_blocks_nothing() -> None:
    chunks, decoder = decoded(text("x") | BLOCKED)
    assert (chunks, decoder.error) == ([TokenChunk("x")], None)


REFUSED = {"error": {"code": 429, "message": "later", "status": "RESOURCE_EXHAUSTED"}}


@pytest.mark.parametrize("tree", [REFUSED, [REFUSED]])
def test_an_error_in_the_stream(tree: object) -> None:
    chunks, decoder = decoded(text("x", finishReason="STOP"), tree, text("never"))
    assert [chunk.text_delta for chunk in chunks] == ["x"]
    assert isinstance(decoder.error, RateLimited)
    assert not decoder.complete
    assert isinstance(CODEC.decode_unary(json.dumps(tree).encode()), RateLimited)


def test_what_came_before_an_error_is_kept() -> None:
    decoder = GeminiStreamDecoder("vertex")
    events = [frame(text("x") | {"usageMetadata": COUNTS}), frame({"error": {"code": 503}}), frame(text("y"))]
    assert decoder.decode(events) == [TokenChunk("x")]
    assert isinstance(decoder.error, ServerError)
    assert decoder.error.provider == "vertex"
    assert decoder.usage == TokenUsage(7, 10, provenance="lower_bound")
    assert decoder.decode(events) == []


@pytest.mark.parametrize("data", ["", "nope", "[1]", "[]", "5", "null", '"x"', '{"candidates":', "[[" * 9999])
def test_garbage(data: str) -> None:
    decoder = GeminiStreamDecoder()
    assert decoder.decode([SseChunk(data), frame(STOP)]) == []
    assert isinstance(decoder.error, ProtocolError)
    assert decoder.error.retryable
    assert isinstance(CODEC.decode_unary(data.encode()), ProtocolError)


@pytest.mark.parametrize("tree", [{}, {"candidates": []}, {"candidates": None}, {"this": {"is": "not"}}])
def test_a_frame_without_an_answer_is_passed_over_but_no_answer(tree: Json) -> None:
    chunks, decoder = decoded(tree)
    assert (chunks, decoder.error, decoder.complete) == ([], None, False)
    assert isinstance(CODEC.decode_unary(json.dumps(tree).encode()), ProtocolError)


@pytest.mark.parametrize(
    ("tree", "chunk"),
    [
        ([text("x")], TokenChunk("x")),
        (text("x", index="1"), TokenChunk("x", index=1)),
        (text("x", index="one", finishReason=5), TokenChunk("x")),
        ({"candidates": [5, *text("x")["candidates"]]}, TokenChunk("x")),
        (parts({"text": 5}, {"text": "x", "thought": "no", "thoughtSignature": 5}), TokenChunk("x")),
        (parts({"text": "x\ud800"}), TokenChunk("x\ufffd")),
        (parts({"text": "x", "functionCall": "f"}), TokenChunk("x")),
        (
            parts({"functionCall": {"name": "f\ud800", "id": 5, "args": {"a": 1}}}),
            TokenChunk(tool_call_deltas=(ToolCallDelta(0, "call_0", "f\ufffd", '{"a": 1}'),)),
        ),
        (
            parts({"functionCall": {"name": "f", "id": 5, "args": "x"}}),
            TokenChunk(tool_call_deltas=(ToolCallDelta(0, "call_0", "f", "{}"),)),
        ),
        (
            parts({"functionCall": {"name": "f", "willContinue": "yes"}}),
            TokenChunk(tool_call_deltas=(ToolCallDelta(0, "call_0", "f", "{}"),)),
        ),
    ],
)
def test_another_type_in_a_field_costs_that_field_alone(tree: object, chunk: TokenChunk) -> None:
    chunks, decoder = decoded(tree)
    assert (chunks, decoder.error) == ([chunk], None)
    assert CODEC.decode_unary(json.dumps(tree).encode()) == [chunk]


# ---- whole answers ----------------------------------------------------------------------------------------------------


def test_a_whole_answer_is_one_chunk_for_each_candidate() -> None:
    first = parts(
        {"text": "hm", "thought": True},
        {"text": "a"},
        {"text": "b"},
        {"functionCall": {"name": "f"}, "thoughtSignature": "s"},
        {"functionCall": {"id": "i", "name": "g", "args": {"a": 1}}},
        finishReason="STOP",
    )
    tree: Json = {"candidates": [*first["candidates"], *text("c", index=1)["candidates"]], "usageMetadata": COUNTS}
    assert CODEC.decode_unary(json.dumps(tree).encode(), ()) == [
        TokenChunk(
            "ab",
            "hm",
            tool_call_deltas=(ToolCallDelta(0, "call_0", "f", "{}", "s"), ToolCallDelta(1, "i", "g", '{"a": 1}')),
            finish_reason="tool_calls",
            raw_finish_reason="STOP",
            usage=USED,
        ),
        TokenChunk("c", index=1),
    ]


def test_each_signed_thought_of_a_whole_answer_is_kept() -> None:
    signed = [{"text": word, "thought": True, "thoughtSignature": word} for word in ("a", "b")]
    tree = parts(*signed, {"text": "x", "thoughtSignature": "c"}, index=3, finishReason="STOP") | {"usageMetadata": COUNTS}
    chunks = CODEC.decode_unary(json.dumps(tree).encode())
    assert isinstance(chunks, list)
    assert [chunk.index for chunk in chunks] == [3, 3, 3]
    whole = Tokens.from_chunks(chunks)
    assert whole.thoughts == (Thought("a", "a"), Thought("b", "b"), Thought(signature="c"))
    assert (whole.text, whole.reasoning, whole.finish_reason, whole.usage) == ("x", "ab", "stop", USED)
    assert chunks[0].usage == USED


def test_bytes_that_are_no_text_are_replaced_in_arguments_and_no_answer_elsewhere() -> None:
    data = json.dumps(parts({"functionCall": {"name": "f", "args": {"a": "?"}}})).encode()
    chunks = CODEC.decode_unary(data.replace(b"?", b"\xff"))
    assert isinstance(chunks, list)
    assert chunks[0].tool_call_deltas == (ToolCallDelta(0, "call_0", "f", '{"a": "\ufffd"}'),)
    assert isinstance(CODEC.decode_unary(data.replace(b'"f"', b'"\xff"')), ProtocolError)


# ---- through the exchange ---------------------------------------------------------------------------------------------

SSE = [("content-type", "text/event-stream")]


def sse(*trees: object) -> bytes:
    return b"".join(b"data: " + json.dumps(tree).encode() + b"\r\n\r\n" for tree in trees)


def test_a_stream_ends_well_without_a_last_event() -> None:
    chunks, error = replay_response(CODEC, 200, SSE, [sse(text("x"), STOP, {"usageMetadata": COUNTS})])
    assert error is None
    assert Tokens.from_chunks(chunks).usage == USED


def test_a_stream_that_breaks_off_says_what_is_known() -> None:
    _, error = replay_response(CODEC, 200, SSE, [sse(text("x") | {"usageMetadata": COUNTS})])
    assert isinstance(error, StreamInterrupted)
    assert error.usage == TokenUsage(7, 10, provenance="lower_bound")


def test_a_blocked_prompt_is_an_error_and_no_empty_answer() -> None:
    for stream, headers, body in (
        (True, SSE, sse(BLOCKED)),
        (False, [("content-type", "application/json")], json.dumps(BLOCKED).encode()),
    ):
        chunks, error = replay_response(CODEC, 200, headers, [body], stream=stream)
        assert chunks == []
        assert isinstance(error, ContentFiltered)


# ---- anything ---------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def objects(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({}, optional={name: field | JSON for name, field in fields.items()})


CALLS = objects(id=st.text(max_size=3), name=st.text(max_size=3), args=JSON, partialArgs=JSON, willContinue=st.booleans())
PARTS = objects(text=st.text(max_size=4), thought=st.booleans(), thoughtSignature=st.text(max_size=3), functionCall=CALLS)
CANDIDATES = objects(
    content=objects(parts=st.lists(PARTS, max_size=3)),
    finishReason=st.sampled_from(["STOP", "MAX_TOKENS", "", "NEW"]),
    index=st.integers(-1, 2),
)
NUMBERS = st.integers() | st.sampled_from(["3", 3.0, "x"])
FRAMES = objects(
    candidates=st.lists(CANDIDATES, max_size=2),
    usageMetadata=objects(promptTokenCount=NUMBERS, candidatesTokenCount=NUMBERS, thoughtsTokenCount=NUMBERS),
    promptFeedback=objects(blockReason=st.text(max_size=3)),
    error=objects(code=NUMBERS, message=st.text(max_size=4), status=st.sampled_from(["INTERNAL", "x"]), details=JSON),
)


def outcome(data: bytes, cuts: list[int]) -> tuple[list[TokenChunk], object, object, bool]:
    decoder, lines = GeminiStreamDecoder(), SseDecoder()
    chunks: list[TokenChunk] = []
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        chunks += decoder.decode(lines.feed(data[start:end]))
    chunks += decoder.decode(lines.finish(dispatch_incomplete=True))
    error = decoder.error
    return chunks, None if error is None else error.to_dict(), decoder.usage, decoder.complete


@given(st.lists(FRAMES | JSON, max_size=4), st.lists(st.integers(0, 9999), max_size=6))
@settings(max_examples=300, deadline=None)
@example([STOP | {"usageMetadata": COUNTS}, text("x", index=1)], [10])
@example([text("x") | {"usageMetadata": COUNTS}, {"error": {"code": 1}}], [150])
def test_any_cut_of_any_frames_gives_the_same(trees: list[object], cuts: list[int]) -> None:
    data = sse(*trees)
    whole = outcome(data, [])
    assert outcome(data, cuts) == whole
    usage = whole[2]
    assert usage is None or isinstance(usage, TokenUsage)
    Tokens.from_chunks(whole[0])


@given(FRAMES | JSON)
@settings(max_examples=200, deadline=None)
def test_any_json_is_an_answer_or_an_error(tree: object) -> None:
    answer = CODEC.decode_unary(json.dumps(tree).encode())
    assert isinstance(answer, (list, InferenceError))
    if isinstance(answer, list):
        assert answer
        Tokens.from_chunks(answer)


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_an_answer_or_an_error(data: bytes) -> None:
    assert isinstance(CODEC.decode_unary(data), (list, InferenceError))
    outcome(b"data: " + data + b"\n\n" + data, [7])
