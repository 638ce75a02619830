"""What is sent to OpenAI Chat Completions and read in its headers (`sansio.providers.openai`), and codecs by name."""

from __future__ import annotations

import json
import math
import pickle
from typing import Any

import pytest

from sansio.batch import ExecuteBatch, ImagePart, Message, TextPart, TokenEstimate, Tool, ToolCall
from sansio.errors import InferenceError
from sansio.http import HttpRequest
from sansio.providers import codec
from sansio.providers.openai import OpenAIChat
from sansio.providers.request import USER_AGENT
from sansio.rate_limit import RateLimitDimension, RateLimitSnapshot
from sansio.rate_limit_headers import reader_for
from sansio.secret import Credential
from sansio.session import SessionSnapshot
from sansio.sse import SseChunk

KEY = "sk-test-0123456789abcdef"
SESSION = SessionSnapshot(1, Credential(KEY))
CODEC = OpenAIChat(model="gpt-4o")
HELLO = Message(role="user", content="hello")
NOW = 1_800_000_000.0


# ---- requests ----------------------------------------------------------------------------------------------------------


def request(batch: ExecuteBatch, *, stream: bool = True, of: OpenAIChat = CODEC) -> HttpRequest:
    return of.encode(batch, SESSION, stream=stream)


def body(*messages: Message, stream: bool = False, **fields: Any) -> dict[str, Any]:
    out: dict[str, Any] = json.loads(request(ExecuteBatch(messages or (HELLO,), **fields), stream=stream).body)
    return out


def test_a_streaming_request() -> None:
    made = request(ExecuteBatch([HELLO], max_output_tokens=16))
    assert (made.method, made.url) == ("POST", "https://api.openai.com/v1/chat/completions")
    assert made.headers == (
        ("authorization", f"Bearer {KEY}"),
        ("content-type", "application/json"),
        ("accept", "text/event-stream"),
        ("user-agent", USER_AGENT),
    )
    assert json.loads(made.body) == {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": "hello"}],
        "max_completion_tokens": 16,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_a_unary_request() -> None:
    made = request(ExecuteBatch([HELLO]), stream=False)
    assert dict(made.headers)["accept"] == "application/json"
    assert json.loads(made.body) == {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://127.0.0.1:8080/v1", "http://127.0.0.1:8080/v1/chat/completions"),
        ("http://127.0.0.1:8080/v1//", "http://127.0.0.1:8080/v1/chat/completions"),
        ("https://api.groq.com/openai/v1", "https://api.groq.com/openai/v1/chat/completions"),
    ],
)
def test_the_path_is_added_to_the_endpoint(endpoint: str, url: str) -> None:
    assert request(ExecuteBatch([HELLO]), of=OpenAIChat("m", endpoint)).url == url


def test_organization_and_project_are_sent_where_given() -> None:
    headers = dict(request(ExecuteBatch([HELLO]), of=OpenAIChat("m", organization="org-1", project="proj-1")).headers)
    assert (headers["openai-organization"], headers["openai-project"]) == ("org-1", "proj-1")


def test_the_key_does_not_show() -> None:
    made = request(ExecuteBatch([HELLO]))
    assert KEY not in repr(made) + str(made) + repr(CODEC) + repr(SESSION)
    assert KEY.encode() not in made.body + pickle.dumps(CODEC)


@pytest.mark.parametrize(
    ("message", "written"),
    [
        (Message("system", "be brief"), {"role": "system", "content": "be brief"}),
        (Message("developer", "x", name="d"), {"role": "developer", "content": "x", "name": "d"}),
        (Message("tool", "21", tool_call_id="c1"), {"role": "tool", "content": "21", "tool_call_id": "c1"}),
        (Message("assistant", ""), {"role": "assistant", "content": ""}),
        (Message("assistant", "", refusal="no"), {"role": "assistant", "content": None, "refusal": "no"}),
        (
            Message("assistant", "", tool_calls=[ToolCall("c1", "f", "{}")]),
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
        ),
        (
            Message("user", [TextPart("see"), ImagePart("https://x/y.png"), ImagePart("data:image/png;base64,AA", "low")]),
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "see"},
                    {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "low"}},
                ],
            },
        ),
    ],
)
def test_messages(message: Message, written: dict[str, Any]) -> None:
    assert body(message)["messages"] == [written]


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("fields", "written"),
    [
        ({"temperature": 0.5, "top_p": 1, "seed": 7}, {"temperature": 0.5, "top_p": 1, "seed": 7}),
        ({"temperature": 0.0, "parallel_tool_calls": False}, {"temperature": 0.0, "parallel_tool_calls": False}),
        ({"stop": ("a", "b")}, {"stop": ["a", "b"]}),
        ({"reasoning_effort": "high", "metadata": {"k": "v"}}, {"reasoning_effort": "high", "metadata": {"k": "v"}}),
        ({"response_format": "json_object"}, {"response_format": {"type": "json_object"}}),
        (
            {"response_format": SCHEMA},
            {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}},
        ),
        (
            {"response_format": {"title": "My answer!"}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "My_answer", "schema": {"title": "My answer!"}},
                }
            },
        ),
        (
            {"response_format": {"title": "t" * 99}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "t" * 64, "schema": {"title": "t" * 99}},
                }
            },
        ),
        ({"tools": [Tool("f")]}, {"tools": [{"type": "function", "function": {"name": "f"}}]}),
        (
            {"tools": [Tool("f", "does f", SCHEMA, strict=True)], "tool_choice": "f"},
            {
                "tools": [
                    {
                        "type": "function",
                        "function": {"name": "f", "description": "does f", "parameters": SCHEMA, "strict": True},
                    }
                ],
                "tool_choice": {"type": "function", "function": {"name": "f"}},
            },
        ),
        ({"tool_choice": "required"}, {"tool_choice": "required"}),
        ({"extra": {"n": 2, "model": "other"}}, {"n": 2, "model": "other"}),
        ({"max_output_tokens": 5, "extra": {"max_completion_tokens": 6}}, {"max_completion_tokens": 6}),
    ],
)
def test_options(fields: dict[str, Any], written: dict[str, Any]) -> None:
    plain = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}
    assert body(**fields) == plain | written  # nothing else is sent


@pytest.mark.parametrize(
    ("field", "message", "fields"),
    [
        ("role", Message("robot", "x"), {}),  # ty: the type says no, a file may say yes
        ("tool_call_id", Message("tool", "x"), {}),
        ("content", Message("user", ["x"]), {}),
        ("tool_choice", HELLO, {"tool_choice": "f"}),
        ("response_format", HELLO, {"response_format": "yaml"}),
        ("temperature", HELLO, {"temperature": math.nan}),
        ("top_p", HELLO, {"top_p": math.inf}),
        ("model", HELLO, {"extra": {"model": ""}}),
        ("batch", HELLO, {"extra": {"x": object()}}),
        ("batch", Message("user", "\ud800"), {}),
    ],
)
def test_what_cannot_be_expressed_names_its_field(field: str, message: Message, fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        body(message, **fields)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", None),
        ("model", 4),
        ("endpoint", None),
        ("endpoint", "api.openai.com/v1"),
        ("endpoint", "ftp://x/v1"),
        ("endpoint", "https://user:pw@x/v1"),
        ("endpoint", "https://x/v1?api-version=1"),
        ("endpoint", "https://x/v1#top"),
        ("organization", 1),
        ("project", b"p"),
    ],
)
def test_a_configuration_out_of_range_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        OpenAIChat(**{field: value})


def test_codecs_by_name() -> None:
    assert codec("openai") == OpenAIChat()
    made = codec("openai", model="m", endpoint="http://h/v1", organization="o", project="p")
    assert made == OpenAIChat("m", "http://h/v1", "o", "p")
    assert (made.provider, made.endpoint) == ("openai", "http://h/v1")
    with pytest.raises(ValueError, match=r"^provider: 'opanai' is unknown; did you mean 'openai'\?"):
        codec("opanai")
    with pytest.raises(
        ValueError, match=r"^openai: 'endpont' is no option; did you mean 'endpoint'\? Known: endpoint, model"
    ):
        codec("openai", endpont="http://h")


@pytest.mark.parametrize(
    ("batch", "estimate"),
    [
        (ExecuteBatch([HELLO]), TokenEstimate(2 + 8, 1024)),
        (ExecuteBatch([Message("user", "x" * 4000)], max_output_tokens=10), TokenEstimate(1000 + 8, 10, True)),
        (ExecuteBatch([Message("user", "日本")]), TokenEstimate(2 + 8, 1024)),  # six bytes
        (ExecuteBatch([HELLO] * 3), TokenEstimate(4 + 16, 1024)),
        (ExecuteBatch([Message("user", [TextPart("12345678"), ImagePart("http://x")])]), TokenEstimate(2 + 8 + 1000, 1024)),
        (ExecuteBatch([Message("assistant", tool_calls=[ToolCall("id", "name", "[10]")])]), TokenEstimate(2 + 8, 1024)),
        (ExecuteBatch([HELLO], tools=[Tool("f" * 8, "d" * 8)]), TokenEstimate(6 + 8, 1024)),  # 5 + 8 + 8 + len("{}")
        (ExecuteBatch([HELLO], response_format={"a": 1}), TokenEstimate(4 + 8, 1024)),
        (ExecuteBatch([HELLO], max_output_tokens=10, extra={"n": 3}), TokenEstimate(10, 30, True)),
        (ExecuteBatch([HELLO], extra={"n": 3}), TokenEstimate(10, 3 * 1024)),
        (ExecuteBatch([HELLO], extra={"n": True, "max_tokens": 0}), TokenEstimate(10, 1024)),
        (ExecuteBatch([HELLO], extra={"n": 2, "max_completion_tokens": 50}), TokenEstimate(10, 100, True)),
        (ExecuteBatch([HELLO], max_output_tokens=10, extra={"max_completion_tokens": 7}), TokenEstimate(10, 7, True)),
        (ExecuteBatch([HELLO], extra={"max_tokens": 9, "n": "many"}), TokenEstimate(10, 9, True)),
    ],
)
def test_estimates(batch: ExecuteBatch, estimate: TokenEstimate) -> None:
    assert CODEC.estimate(batch) == estimate


def test_its_answers_and_errors_carry_its_name() -> None:
    assert CODEC.provider == "openai"
    decoder = CODEC.stream_decoder()
    decoder.decode([SseChunk("not JSON")])
    for error in (decoder.error, CODEC.decode_unary(b"not JSON"), CODEC.classify(500, (), b"not JSON", NOW)):
        assert isinstance(error, InferenceError)
        assert error.provider == "openai"


# ---- headers -----------------------------------------------------------------------------------------------------------


def said(code: str | None = None, message: str = "m") -> bytes:
    return json.dumps({"error": {"message": message, "code": code}}).encode()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, 360.0),
        ({"x-ratelimit-remaining-requests": "1", "x-ratelimit-reset-requests": "6m0s"}, None),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "soon"}, None),
        (
            {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "2s",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "3s",
            },
            3.0,
        ),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "3s", "retry-after": "1"}, 1.0),
    ],
)
def test_a_reset_is_a_hint_on_a_429_for_what_is_used_up(headers: dict[str, str], seconds: float | None) -> None:
    pairs = tuple(headers.items())
    assert CODEC.classify(429, pairs, b"", NOW).retry_after == seconds
    assert CODEC.classify(429, pairs, said("slow_down", message="try again in 1.5s"), NOW).retry_after is not None
    if "retry-after" not in headers:
        assert CODEC.classify(503, pairs, b"", NOW).retry_after is None
        assert CODEC.classify(429, pairs, said("insufficient_quota"), NOW).retry_after is None
        assert CODEC.classify(429, pairs, said(message="try again in 1.5s"), NOW).retry_after == 1.5


@pytest.mark.parametrize(
    ("headers", "snapshot"),
    [
        ({}, None),
        ({"x-ratelimit-reset-requests": "1s"}, None),
        ({"x-ratelimit-remaining-requests": "9" * 5_000, "x-ratelimit-limit-requests": ""}, None),
        (
            {
                "x-ratelimit-limit-requests": "500",
                "x-ratelimit-remaining-requests": "499",
                "x-ratelimit-reset-requests": "120ms",
                "X-RateLimit-Limit-Tokens": "30000",
                "x-ratelimit-remaining-tokens": " 29000 ",
                "x-ratelimit-reset-tokens": "1m30s",
            },
            RateLimitSnapshot(RateLimitDimension(500, 499, 0.12), RateLimitDimension(30_000, 29_000, 90.0)),
        ),
        (
            {"x-ratelimit-remaining-requests": "-1", "x-ratelimit-limit-requests": "6", "x-ratelimit-reset-requests": "-1"},
            RateLimitSnapshot(RateLimitDimension(6)),
        ),
        (
            {"x-ratelimit-remaining-tokens": "7", "x-ratelimit-reset-tokens": "0", "x-ratelimit-limit-tokens": "many"},
            RateLimitSnapshot(tokens=RateLimitDimension(None, 7)),
        ),
        (
            {"x-ratelimit-remaining-tokens": "9", "x-ratelimit-remaining-project-tokens": "3"},
            RateLimitSnapshot(tokens=RateLimitDimension(None, 3)),
        ),
        (
            {"x-ratelimit-remaining-tokens": "2", "x-ratelimit-limit-project-tokens": "3"},
            RateLimitSnapshot(tokens=RateLimitDimension(None, 2)),
        ),
    ],
)
def test_rate_limit_headers(headers: dict[str, str], snapshot: RateLimitSnapshot | None) -> None:
    assert CODEC.rate_limit_snapshot(tuple(headers.items()), NOW) == snapshot


@pytest.mark.parametrize(
    ("endpoint", "remaining", "hint"),
    [
        ("https://api.openai.com/v1", 0, 86_400.0),
        ("https://api.groq.com/openai/v1", 0, 86.4),  # of a day's 1,000, the next one
        ("https://api.groq.com/openai/v1", 1, None),
        ("https://my.openai.azure.com/openai/v1", 0, 86_400.0),
        ("http://127.0.0.1:8080/v1", 0, 86_400.0),
        ("https://api.mistral.ai/v1", 0, None),  # not its names
    ],
)
def test_headers_are_read_in_the_dialect_of_the_endpoint(endpoint: str, remaining: int, hint: float | None) -> None:
    said = (
        ("x-ratelimit-limit-requests", "1000"),
        ("x-ratelimit-remaining-requests", str(remaining)),
        ("x-ratelimit-reset-requests", "24h0m0s"),
    )
    one = OpenAIChat("m", endpoint)
    assert one.rate_limit_snapshot(said, NOW) == reader_for(endpoint)(said, NOW)
    assert one.classify(429, said, b"", NOW).retry_after == (None if hint is None else pytest.approx(hint))


def test_a_dialect_that_gives_itself_away_is_read_behind_any_endpoint() -> None:
    said = (("x-ratelimit-limit-req-minute", "60"), ("x-ratelimit-remaining-req-minute", "59"))
    assert OpenAIChat("m", "http://gateway:4000").rate_limit_snapshot(said, NOW) == RateLimitSnapshot(
        RateLimitDimension(60, 59)
    )
