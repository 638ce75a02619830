"""What is sent to OpenAI's Responses API (`sansio.providers.openai_responses`)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sansio.batch import ExecuteBatch, ImagePart, Message, TextPart, Thought, TokenEstimate, Tokens, Tool, ToolCall
from sansio.codec import ProviderCodec
from sansio.errors import InferenceError
from sansio.http import HttpRequest
from sansio.providers.openai_responses import OpenAIResponses
from sansio.providers.request import USER_AGENT
from sansio.rate_limit import RateLimitDimension, RateLimitSnapshot
from sansio.secret import Credential
from sansio.session import SessionSnapshot
from sansio.sse import SseChunk

KEY = "sk-test-0123456789abcdef"
SESSION = SessionSnapshot(1, Credential(KEY))
CODEC = OpenAIResponses(model="gpt-5")
HELLO = Message(role="user", content="hello")
HELLO_ITEM = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}
NOW = 1_800_000_000.0


def request(batch: ExecuteBatch, *, stream: bool = True, of: OpenAIResponses = CODEC) -> HttpRequest:
    return of.encode(batch, SESSION, stream=stream)


def body(*messages: Message, stream: bool = False, **fields: Any) -> dict[str, Any]:
    out: dict[str, Any] = json.loads(request(ExecuteBatch(messages or (HELLO,), **fields), stream=stream).body)
    return out


def test_a_streaming_request() -> None:
    made = request(ExecuteBatch([HELLO], max_output_tokens=16))
    assert (made.method, made.url) == ("POST", "https://api.openai.com/v1/responses")
    assert made.headers == (
        ("authorization", f"Bearer {KEY}"),
        ("content-type", "application/json"),
        ("accept", "text/event-stream"),
        ("user-agent", USER_AGENT),
    )
    assert json.loads(made.body) == {"model": "gpt-5", "input": [HELLO_ITEM], "max_output_tokens": 16, "stream": True}


def test_a_unary_request() -> None:
    made = request(ExecuteBatch([HELLO]), stream=False)
    assert dict(made.headers)["accept"] == "application/json"
    assert json.loads(made.body) == {"model": "gpt-5", "input": [HELLO_ITEM]}  # whether it is kept is the provider's default


def test_the_path_is_added_to_the_endpoint_and_who_pays_is_sent_along() -> None:
    made = request(ExecuteBatch([HELLO]), of=OpenAIResponses("m", "http://127.0.0.1:8080/v1//", "org-1", "proj-1"))
    assert made.url == "http://127.0.0.1:8080/v1/responses"
    headers = dict(made.headers)
    assert (headers["openai-organization"], headers["openai-project"]) == ("org-1", "proj-1")


def said(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text}


CALL = ToolCall("call_1", "f", '{"a":1}')
CALL_ITEM = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": '{"a":1}'}
PICTURE = ImagePart("https://x/y.png")
PICTURE_ITEM = {"type": "input_image", "image_url": "https://x/y.png"}


@pytest.mark.parametrize(
    ("message", "items"),
    [
        (
            Message("system", "be brief"),
            [{"type": "message", "role": "system", "content": [{"type": "input_text", "text": "be brief"}]}],
        ),
        (
            Message("developer", [TextPart("x"), TextPart("y")]),
            [
                {
                    "type": "message",
                    "role": "developer",
                    "content": [{"type": "input_text", "text": "x"}, {"type": "input_text", "text": "y"}],
                }
            ],
        ),
        (Message("user", ""), [{"type": "message", "role": "user", "content": []}]),
        (
            Message("user", [TextPart("see"), PICTURE, ImagePart("data:image/png;base64,AA", "low")]),
            [
                {
                    "type": "message",
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "see"},
                        PICTURE_ITEM,
                        {"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "low"},
                    ],
                }
            ],
        ),
        (Message("assistant", "hi"), [{"type": "message", "role": "assistant", "content": [said("hi")]}]),
        (Message("assistant", ""), [{"type": "message", "role": "assistant", "content": []}]),
        (
            Message("assistant", [TextPart("a"), TextPart("b")]),
            [{"type": "message", "role": "assistant", "content": [said("a"), said("b")]}],
        ),
        (
            Message("assistant", "", refusal="no"),
            [{"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}],
        ),
        (Message("assistant", "", tool_calls=[CALL]), [CALL_ITEM]),
        (
            Message("assistant", "I look", tool_calls=[CALL, CALL], thoughts=[Thought("hm", "gAAA", "rs_1")]),
            [
                {
                    "type": "reasoning",
                    "id": "rs_1",
                    "summary": [{"type": "summary_text", "text": "hm"}],
                    "encrypted_content": "gAAA",
                },
                {"type": "message", "role": "assistant", "content": [said("I look")]},
                CALL_ITEM,
                CALL_ITEM,
            ],
        ),
        (Message("assistant", "", thoughts=[Thought(id="rs_1")]), [{"type": "reasoning", "id": "rs_1", "summary": []}]),
        (
            Message("assistant", "", thoughts=[Thought(signature="gAAA"), Thought("shown to nobody again")]),
            [{"type": "reasoning", "summary": [], "encrypted_content": "gAAA"}],
        ),
        (Message("tool", "21", tool_call_id="c"), [{"type": "function_call_output", "call_id": "c", "output": "21"}]),
        (Message("tool", "", tool_call_id="c"), [{"type": "function_call_output", "call_id": "c", "output": ""}]),
        (
            Message("tool", [TextPart("see"), PICTURE], tool_call_id="c"),
            [
                {
                    "type": "function_call_output",
                    "call_id": "c",
                    "output": [{"type": "input_text", "text": "see"}, PICTURE_ITEM],
                }
            ],
        ),
    ],
)
def test_messages_become_items(message: Message, items: list[dict[str, Any]]) -> None:
    assert body(message)["input"] == items
    assert body(HELLO, message, HELLO)["input"] == [HELLO_ITEM, *items, HELLO_ITEM]


def test_an_answer_goes_back_as_it_came() -> None:
    """What was decoded of an answer is encoded to the items that it was made of."""
    reasoning = {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "hm"}],
        "encrypted_content": "gAAA",
    }
    output = [reasoning, {"type": "message", "role": "assistant", "content": [said("I look")]}, CALL_ITEM]
    answer = CODEC.decode_unary(json.dumps({"status": "completed", "output": output}).encode())
    assert not isinstance(answer, InferenceError)
    assert body(Tokens.from_chunks(answer).message())["input"] == output


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("fields", "written"),
    [
        ({"temperature": 0.5, "top_p": 1}, {"temperature": 0.5, "top_p": 1}),
        ({"temperature": 0.0, "parallel_tool_calls": False}, {"temperature": 0.0, "parallel_tool_calls": False}),
        ({"reasoning_effort": "high", "metadata": {"k": "v"}}, {"reasoning": {"effort": "high"}, "metadata": {"k": "v"}}),
        ({"cache_key": "k"}, {"prompt_cache_key": "k"}),
        ({"response_format": "text"}, {"text": {"format": {"type": "text"}}}),
        ({"response_format": "json_object"}, {"text": {"format": {"type": "json_object"}}}),
        (
            {"response_format": SCHEMA},
            {"text": {"format": {"type": "json_schema", "name": "answer", "schema": SCHEMA}}},
        ),
        (
            {"response_format": {"title": "My answer!"}},
            {"text": {"format": {"type": "json_schema", "name": "My_answer", "schema": {"title": "My answer!"}}}},
        ),
        (
            {"response_format": {"title": "t" * 99}},
            {"text": {"format": {"type": "json_schema", "name": "t" * 64, "schema": {"title": "t" * 99}}}},
        ),
        ({"tools": [Tool("f")]}, {"tools": [{"type": "function", "name": "f", "parameters": None}]}),
        (
            {"tools": [Tool("f", "does f", SCHEMA, strict=False)], "tool_choice": "f"},
            {
                "tools": [{"type": "function", "name": "f", "description": "does f", "parameters": SCHEMA, "strict": False}],
                "tool_choice": {"type": "function", "name": "f"},
            },
        ),
        ({"tool_choice": "required"}, {"tool_choice": "required"}),
        ({"tool_choice": "none"}, {"tool_choice": "none"}),
        # extra passes through, and wins
        (
            {"extra": {"store": False, "include": ["reasoning.encrypted_content"], "model": "other"}},
            {"store": False, "include": ["reasoning.encrypted_content"], "model": "other"},
        ),
        ({"max_output_tokens": 5, "extra": {"max_output_tokens": 6}}, {"max_output_tokens": 6}),
        ({"extra": {"stop": ["a"], "seed": 1}}, {"stop": ["a"], "seed": 1}),
        # of these two it names one part, and the batch another
        (
            {"reasoning_effort": "high", "extra": {"reasoning": {"summary": "auto"}}},
            {"reasoning": {"effort": "high", "summary": "auto"}},
        ),
        ({"reasoning_effort": "high", "extra": {"reasoning": {"effort": "low"}}}, {"reasoning": {"effort": "low"}}),
        ({"reasoning_effort": "high", "extra": {"reasoning": None}}, {"reasoning": None}),
        ({"extra": {"reasoning": {"summary": "auto"}}}, {"reasoning": {"summary": "auto"}}),
        (
            {"response_format": "text", "extra": {"text": {"verbosity": "low"}}},
            {"text": {"format": {"type": "text"}, "verbosity": "low"}},
        ),
    ],
)
def test_options(fields: dict[str, Any], written: dict[str, Any]) -> None:
    assert body(**fields) == {"model": "gpt-5", "input": [HELLO_ITEM]} | written  # nothing else is sent


@pytest.mark.parametrize(
    ("field", "message", "fields"),
    [
        ("stop", HELLO, {"stop": ("a",)}),
        ("seed", HELLO, {"seed": 0}),
        ("name", Message("user", "x", name="Ann"), {}),
        ("role", Message("robot", "x"), {}),
        ("tool_call_id", Message("tool", "x"), {}),
        ("content", Message("user", ["x"]), {}),
        ("content", Message("assistant", [PICTURE]), {}),
        ("content", Message("tool", ["x"], tool_call_id="c"), {}),
        ("tool_choice", HELLO, {"tool_choice": "f"}),
        ("response_format", HELLO, {"response_format": "yaml"}),
        ("model", HELLO, {"extra": {"model": ""}}),
        ("batch", HELLO, {"extra": {"x": object()}}),
        ("batch", Message("user", "\ud800"), {}),
    ],
)
def test_what_cannot_be_expressed_names_its_field(field: str, message: Message, fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        body(message, **fields)


def test_who_names_no_model_is_told() -> None:
    with pytest.raises(ValueError, match=r"^model: is empty"):
        request(ExecuteBatch([HELLO]), of=OpenAIResponses())


@pytest.mark.parametrize(
    ("field", "value"),
    [("model", None), ("endpoint", None), ("endpoint", "api.openai.com/v1"), ("organization", 1), ("project", b"p")],
)
def test_a_configuration_out_of_range_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        OpenAIResponses(**{field: value})


@pytest.mark.parametrize(
    ("batch", "estimate"),
    [
        (ExecuteBatch([HELLO]), TokenEstimate(2 + 8, 1024)),
        (ExecuteBatch([HELLO], max_output_tokens=10), TokenEstimate(2 + 8, 10, True)),
        (ExecuteBatch([HELLO], max_output_tokens=10, extra={"max_output_tokens": 7}), TokenEstimate(2 + 8, 7, True)),
        (ExecuteBatch([HELLO], extra={"max_output_tokens": "7", "n": 3}), TokenEstimate(2 + 8, 1024)),
    ],
)
def test_estimates(batch: ExecuteBatch, estimate: TokenEstimate) -> None:
    assert CODEC.estimate(batch) == estimate


def test_it_is_a_codec_whose_answers_and_errors_carry_its_name() -> None:
    assert isinstance(CODEC, ProviderCodec)
    assert CODEC.provider == "openai"
    decoder = CODEC.stream_decoder(ExecuteBatch([HELLO], extra={"n": 2}))
    decoder.decode([SseChunk("not JSON")])
    for error in (decoder.error, CODEC.decode_unary(b"not JSON"), CODEC.classify(500, (), b"not JSON", NOW)):
        assert isinstance(error, InferenceError)
        assert error.provider == "openai"


def test_headers_are_read_in_the_dialect_of_the_endpoint() -> None:
    headers = (
        ("x-ratelimit-limit-requests", "1000"),
        ("x-ratelimit-remaining-requests", "0"),
        ("x-ratelimit-reset-requests", "24h0m0s"),
    )
    assert CODEC.rate_limit_snapshot((), NOW) is None
    assert CODEC.rate_limit_snapshot(headers, NOW) == RateLimitSnapshot(RateLimitDimension(1000, 0, 86_400.0))
    assert CODEC.classify(429, headers, b"", NOW).retry_after == 86_400.0
    groq = OpenAIResponses("m", "https://api.groq.com/openai/v1")
    assert groq.classify(429, headers, b"", NOW).retry_after == pytest.approx(86.4)
