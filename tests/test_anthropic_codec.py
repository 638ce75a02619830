"""What is sent to Anthropic Messages and read in its headers (`sansio.providers.anthropic`)."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

from sansio.batch import ExecuteBatch, ImagePart, Message, TextPart, Thought, TokenEstimate, Tokens, Tool, ToolCall
from sansio.codec import ProviderCodec
from sansio.errors import InferenceError
from sansio.http import HttpRequest
from sansio.providers.anthropic import AnthropicMessages
from sansio.providers.request import USER_AGENT
from sansio.rate_limit import RateLimitDimension, RateLimitSnapshot
from sansio.secret import Credential
from sansio.session import SessionSnapshot
from sansio.sse import SseChunk

KEY = "sk-ant-test-0123456789abcdef"
SESSION = SessionSnapshot(1, Credential(KEY))
CODEC = AnthropicMessages(model="claude-opus-4-8")
LATEST = AnthropicMessages(model="claude-opus-4-8", api_version="2026-10-21")
HELLO = Message("user", "hello")
NOW = 1_800_000_000.0


def request(
    batch: ExecuteBatch, *, stream: bool = True, of: AnthropicMessages = CODEC, credential: Credential | None = None
) -> HttpRequest:
    return of.encode(batch, SESSION if credential is None else SessionSnapshot(1, credential), stream=stream)


def body(*messages: Message, of: AnthropicMessages = CODEC, **fields: Any) -> dict[str, Any]:
    out: dict[str, Any] = json.loads(request(ExecuteBatch(messages or (HELLO,), **fields), stream=False, of=of).body)
    return out


def text(said: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": said, **more}


def turn(role: str, *blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": role, "content": list(blocks)}


# ---- headers and address -----------------------------------------------------------------------------------------------


def test_a_streaming_request() -> None:
    made = request(ExecuteBatch([HELLO], max_output_tokens=16))
    assert (made.method, made.url) == ("POST", "https://api.anthropic.com/v1/messages")
    assert made.headers == (
        ("x-api-key", KEY),
        ("content-type", "application/json"),
        ("accept", "text/event-stream"),
        ("user-agent", USER_AGENT),
        ("anthropic-version", "2023-06-01"),
    )
    assert json.loads(made.body) == {
        "model": "claude-opus-4-8",
        "max_tokens": 16,
        "messages": [turn("user", text("hello"))],
        "stream": True,
    }


def test_a_unary_request() -> None:
    made = request(ExecuteBatch([HELLO]), stream=False, of=LATEST)
    assert dict(made.headers)["accept"] == "application/json"
    assert dict(made.headers)["anthropic-version"] == "2026-10-21"
    assert json.loads(made.body) == {
        "model": "claude-opus-4-8",
        "max_tokens": 4096,
        "messages": [turn("user", text("hello"))],
    }


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:8080", "http://127.0.0.1:8080//"])
def test_the_path_is_added_to_the_endpoint(endpoint: str) -> None:
    assert request(ExecuteBatch([HELLO]), of=AnthropicMessages("m", endpoint)).url == "http://127.0.0.1:8080/v1/messages"


@pytest.mark.parametrize(
    ("scheme", "betas", "header", "asked_for"),
    [
        (None, (), ("x-api-key", KEY), None),
        ("api_key", ["one", "two"], ("x-api-key", KEY), "one,two"),
        ("bearer", (), ("authorization", f"Bearer {KEY}"), "oauth-2025-04-20"),
        ("bearer", ["one"], ("authorization", f"Bearer {KEY}"), "one,oauth-2025-04-20"),
        ("bearer", ["oauth-2025-04-20", "one"], ("authorization", f"Bearer {KEY}"), "oauth-2025-04-20,one"),
    ],
)
def test_a_key_and_a_token_go_their_own_ways(
    scheme: Any, betas: Any, header: tuple[str, str], asked_for: str | None
) -> None:
    made = request(ExecuteBatch([HELLO]), of=AnthropicMessages("m", betas=betas), credential=Credential(KEY, scheme=scheme))
    assert [pair for pair in made.headers if KEY in pair[1]] == [header]
    assert dict(made.headers).get("anthropic-beta") == asked_for


def test_the_key_does_not_show() -> None:
    made = request(ExecuteBatch([HELLO]))
    assert KEY not in repr(made) + str(made) + repr(CODEC)
    assert KEY.encode() not in made.body + pickle.dumps(CODEC)


# ---- messages ----------------------------------------------------------------------------------------------------------

CALLS = [ToolCall("c1", "f", '{"a": 1}'), ToolCall("c2", "g", "")]
USE_1 = {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}}
USE_2 = {"type": "tool_use", "id": "c2", "name": "g", "input": {}}


@pytest.mark.parametrize(
    ("messages", "system", "turns"),
    [
        ([Message("system", "be brief"), HELLO], [text("be brief")], [turn("user", text("hello"))]),
        (
            [Message("system", "a"), Message("developer", [TextPart("b"), TextPart("c")]), HELLO],
            [text("a"), text("b"), text("c")],
            [turn("user", text("hello"))],
        ),
        ([Message("system", ""), HELLO], None, [turn("user", text("hello"))]),
        # one role in a row is one turn
        ([HELLO, Message("user", "there")], None, [turn("user", text("hello"), text("there"))]),
        (
            [HELLO, Message("assistant", "a"), Message("assistant", "b")],
            None,
            [turn("user", text("hello")), turn("assistant", text("a"), text("b"))],
        ),
        # what says nothing is left out, and what it stood between comes together
        ([HELLO, Message("assistant", ""), Message("user", "?")], None, [turn("user", text("hello"), text("?"))]),
        ([Message("user", [TextPart(""), TextPart("x")])], None, [turn("user", text("x"))]),
        ([Message("assistant", "I begin")], None, [turn("assistant", text("I begin"))]),
        (
            [HELLO, Message("assistant", "", refusal="I can't")],
            None,
            [turn("user", text("hello")), turn("assistant", text("I can't"))],
        ),
        # calls, and what came of them
        (
            [
                HELLO,
                Message("assistant", "let me see", tool_calls=CALLS),
                Message("tool", "21", tool_call_id="c1", name="f"),
                Message("tool", "broke", tool_call_id="c2", is_error=True),
                Message("user", "and?"),
            ],
            None,
            [
                turn("user", text("hello")),
                turn("assistant", text("let me see"), USE_1, USE_2),
                turn(
                    "user",
                    {"type": "tool_result", "tool_use_id": "c1", "content": [text("21")]},
                    {"type": "tool_result", "tool_use_id": "c2", "content": [text("broke")], "is_error": True},
                    text("and?"),
                ),
            ],
        ),
        (
            [
                Message("assistant", tool_calls=CALLS),
                Message("user", "meanwhile"),
                Message("tool", "", tool_call_id="c1"),
                Message("tool", [ImagePart("https://x/y.png")], tool_call_id="c2"),
            ],
            None,
            [
                turn("assistant", USE_1, USE_2),
                turn(
                    "user",
                    {"type": "tool_result", "tool_use_id": "c1"},
                    {
                        "type": "tool_result",
                        "tool_use_id": "c2",
                        "content": [{"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}],
                    },
                    text("meanwhile"),
                ),
            ],
        ),
        # thoughts go back first, but not another provider's
        (
            [
                HELLO,
                Message(
                    "assistant",
                    "42",
                    tool_calls=CALLS[:1],
                    thoughts=[
                        Thought("hm", "sig"),
                        Thought(signature="blob", redacted=True),
                        Thought("x", "s", id="rs_1"),
                        Thought("unsigned"),
                    ],
                ),
            ],
            None,
            [
                turn("user", text("hello")),
                turn(
                    "assistant",
                    {"type": "thinking", "thinking": "hm", "signature": "sig"},
                    {"type": "redacted_thinking", "data": "blob"},
                    {"type": "thinking", "thinking": "unsigned", "signature": ""},
                    text("42"),
                    USE_1,
                ),
            ],
        ),
        # images
        (
            [
                Message(
                    "user",
                    [
                        TextPart("see"),
                        ImagePart("https://x/y.png", "low"),
                        ImagePart("data:image/png;base64,AA=="),
                        ImagePart("DATA:image/svg+xml;charset=utf-8;BASE64,BB"),
                    ],
                )
            ],
            None,
            [
                turn(
                    "user",
                    text("see"),
                    {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/svg+xml", "data": "BB"}},
                )
            ],
        ),
        # system messages behind the beginning
        (
            [HELLO, Message("system", "now in French")],
            None,
            [turn("user", text("hello")), turn("system", text("now in French"))],
        ),
        (
            [
                Message("system", "a"),
                HELLO,
                Message("developer", "b"),
                Message("system", "c"),
                Message("assistant", "d"),
                HELLO,
            ],
            [text("a")],
            [
                turn("user", text("hello")),
                turn("system", text("b"), text("c")),
                turn("assistant", text("d")),
                turn("user", text("hello")),
            ],
        ),
    ],
)
def test_messages(messages: list[Message], system: Any, turns: list[dict[str, Any]]) -> None:
    made = body(*messages)
    assert made["messages"] == turns
    assert made.get("system") == system


def test_arguments_go_back_as_they_were_written() -> None:
    written = '{ "b":1e2,\n"a" : 123456789012345678901234567890 }'
    made = request(ExecuteBatch([Message("assistant", tool_calls=[ToolCall("c", "f", written)])]))
    assert b'"input":' + written.encode() in made.body


def test_an_answer_can_be_gone_on_with() -> None:
    answer = Tokens("42", "hm", tool_calls=(CALLS[0],), thoughts=(Thought("hm", "sig"),))
    assert body(HELLO, answer.message())["messages"][1] == turn(
        "assistant", {"type": "thinking", "thinking": "hm", "signature": "sig"}, text("42"), USE_1
    )


SHORT, LONG = {"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}


def test_cache_marks_stand_on_the_last_block_of_their_message() -> None:
    made = body(
        Message("system", [TextPart("a"), TextPart("b")], cache="long"),
        Message("user", [TextPart("c"), ImagePart("https://x")], cache="short"),
        Message("assistant", thoughts=[Thought("hm", "sig")], tool_calls=CALLS, cache="short"),
        Message("tool", "1", tool_call_id="c1", cache="short"),
        Message("tool", "2", tool_call_id="c2"),
    )
    assert made["system"] == [text("a"), text("b", cache_control=LONG)]
    user, assistant, results = (each["content"] for each in made["messages"])
    assert [block.get("cache_control") for block in user] == [None, SHORT]
    assert [block.get("cache_control") for block in assistant] == [None, None, SHORT]
    assert [block.get("cache_control") for block in results] == [SHORT, None]


@pytest.mark.parametrize(
    ("asked_for", "sent"),
    [
        ("sss", "sss"),
        ("ssssss", "..ssss"),  # four at most
        ("lls", "lls"),
        ("sls", ".ls"),  # a longer one never follows a shorter one
        ("lslssss", "...ssss"),
        ("lslsss", "..lsss"),
        ("-s-", ".s."),
    ],
)
def test_of_cache_marks_as_many_are_sent_as_the_format_takes(asked_for: str, sent: str) -> None:
    lifetimes: dict[str, Any] = {"s": "short", "l": "long", "-": None}
    messages = [Message("user", "x", cache=lifetimes[letter]) for letter in asked_for]
    marks = [block.get("cache_control") for block in body(*messages)["messages"][0]["content"]]
    assert marks == [{"s": SHORT, "l": LONG, ".": None}[letter] for letter in sent]


@pytest.mark.parametrize(
    "message", [Message("assistant", thoughts=[Thought("hm", "s")], cache="short"), Message("user", "", cache="short")]
)
def test_a_mark_that_can_stand_nowhere_is_not_sent(message: Message) -> None:
    assert "cache_control" not in json.dumps(body(HELLO, message))


# ---- options -----------------------------------------------------------------------------------------------------------

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
NO_SCHEMA = {"type": "object", "properties": {}}
TOOLS = {"tools": [{"name": "f", "input_schema": NO_SCHEMA}]}


@pytest.mark.parametrize(
    ("fields", "written"),
    [
        ({"temperature": 0.0, "top_p": 1}, {"temperature": 0.0, "top_p": 1}),
        ({"stop": ("a", "b")}, {"stop_sequences": ["a", "b"]}),
        ({"metadata": {"user_id": "u1"}}, {"metadata": {"user_id": "u1"}}),
        ({"cache_key": "k"}, {}),
        ({"reasoning_effort": "high"}, {"output_config": {"effort": "high"}}),
        ({"response_format": "text"}, {}),
        ({"response_format": SCHEMA}, {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}),
        (
            {"response_format": SCHEMA, "reasoning_effort": "low"},
            {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}, "effort": "low"}},
        ),
        ({"tools": [Tool("f")]}, TOOLS),
        (
            {"tools": [Tool("f", "does f", SCHEMA, strict=False)], "tool_choice": "f"},
            {
                "tools": [{"name": "f", "description": "does f", "input_schema": SCHEMA, "strict": False}],
                "tool_choice": {"type": "tool", "name": "f"},
            },
        ),
        ({"tools": [Tool("f")], "tool_choice": "auto"}, TOOLS | {"tool_choice": {"type": "auto"}}),
        ({"tools": [Tool("f")], "tool_choice": "none"}, TOOLS | {"tool_choice": {"type": "none"}}),
        ({"tools": [Tool("f")], "tool_choice": "required"}, TOOLS | {"tool_choice": {"type": "any"}}),
        ({"tools": [Tool("f")], "parallel_tool_calls": True}, TOOLS),
        (
            {"tools": [Tool("f")], "parallel_tool_calls": False},
            TOOLS | {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        ),
        (
            {"tools": [Tool("f")], "tool_choice": "required", "parallel_tool_calls": False},
            TOOLS | {"tool_choice": {"type": "any", "disable_parallel_tool_use": True}},
        ),
        (
            {"tools": [Tool("f")], "tool_choice": "none", "parallel_tool_calls": False},
            TOOLS | {"tool_choice": {"type": "none"}},
        ),
        ({"parallel_tool_calls": False}, {}),  # of no tools there are no calls
        (
            {"parallel_tool_calls": False, "extra": {"tools": [{"type": "bash"}]}},
            {"tools": [{"type": "bash"}], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        ),
        ({"extra": {"top_k": 4, "model": "other"}}, {"top_k": 4, "model": "other"}),
        ({"max_output_tokens": 5}, {"max_tokens": 5}),
        ({"max_output_tokens": 5, "extra": {"max_tokens": 6}}, {"max_tokens": 6}),
    ],
)
def test_options(fields: dict[str, Any], written: dict[str, Any]) -> None:
    plain = {"model": "claude-opus-4-8", "max_tokens": 4096, "messages": [turn("user", text("hello"))]}
    assert body(**fields) == plain | written  # nothing else is sent


def call(arguments: str) -> Message:
    return Message("assistant", tool_calls=[ToolCall("c", "f", arguments)])


@pytest.mark.parametrize(
    ("field", "messages", "fields"),
    [
        ("role", [Message("robot", "x")], {}),  # type: the hint says no, a file may say yes
        ("tool_call_id", [Message("tool", "x")], {}),
        ("name", [Message("user", "x", name="Ann")], {}),
        ("content", [Message("user", ["x"])], {}),
        ("content", [Message("assistant", [ImagePart("https://x")])], {}),
        ("content", [Message("system", [ImagePart("https://x")]), HELLO], {}),
        ("content", [Message("user", [ImagePart("data:image/png,raw")])], {}),
        ("content", [Message("user", [ImagePart("data:;base64,AA")])], {}),
        ("messages", [Message("system", "alone")], {}),
        ("messages", [Message("user", "")], {}),
        ("messages", [HELLO, Message("assistant", "a"), Message("system", "b")], {}),
        ("messages", [HELLO, Message("system", "a"), HELLO], {}),
        ("tool_calls", [call("[1]")], {}),
        ("tool_calls", [call('{"a":')], {}),
        ("tool_calls", [call("null")], {}),
        ("tool_calls", [call('{"a": NaN}')], {}),
        ("tool_calls", [call('{"a": "\ud800"}')], {}),
        ("tool_calls", [call('{"a":' + "[" * 100_000)], {}),
        ("tool_choice", [HELLO], {"tool_choice": "f"}),
        ("response_format", [HELLO], {"response_format": "json_object"}),
        ("response_format", [HELLO], {"response_format": "yaml"}),
        ("seed", [HELLO], {"seed": 0}),
        ("metadata", [HELLO], {"metadata": {"user_id": "u", "team": "x"}}),
        ("model", [HELLO], {"extra": {"model": ""}}),
        ("batch", [HELLO], {"extra": {"x": object()}}),
        ("batch", [Message("user", "\ud800")], {}),
    ],
)
def test_what_cannot_be_expressed_names_its_field(field: str, messages: list[Message], fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        body(*messages, **fields)


@pytest.mark.parametrize("field", ["temperature", "top_p"])
def test_the_latest_version_refuses_sampling_which_is_said_here_with_a_remedy(field: str) -> None:
    with pytest.raises(ValueError, match=rf"^{field}: anthropic-version 2026-10-21 refuses .* api_version='2023-06-01'"):
        body(of=LATEST, **{field: 1.0})
    assert body(of=LATEST, extra={field: 1.0})[field] == 1.0  # who says so in extra is not held up


def test_which_tool_call_and_which_metadata_cannot_be_sent_is_said() -> None:
    with pytest.raises(ValueError, match="'f'"):
        body(call("7"))
    with pytest.raises(ValueError, match="'team'"):
        body(metadata={"team": "x"})


# ---- configuration -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", None),
        ("endpoint", "api.anthropic.com"),
        ("endpoint", "https://x?beta=true"),
        ("api_version", "2023-01-01"),
        ("api_version", None),
        ("betas", "files-api-2025-04-14"),
        ("betas", 3),
        ("betas", [""]),
        ("betas", ["a,b"]),
        ("betas", ["a b"]),
        ("betas", [7]),
    ],
)
def test_a_configuration_out_of_range_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        AnthropicMessages(**{field: value})


def test_a_codec_is_a_value() -> None:
    made = AnthropicMessages("m", betas=["a"])
    assert made == AnthropicMessages("m", "https://api.anthropic.com", "2023-06-01", ("a",))
    assert hash(made) == hash(AnthropicMessages("m", betas=("a",)))
    assert isinstance(made, ProviderCodec)
    assert (made.provider, made.endpoint) == ("anthropic", "https://api.anthropic.com")


def test_its_answers_and_errors_carry_its_name() -> None:
    decoder = CODEC.stream_decoder(ExecuteBatch([HELLO]))
    decoder.decode([SseChunk("not JSON")])
    for error in (decoder.error, CODEC.decode_unary(b"not JSON"), CODEC.classify(500, (), b"not JSON", NOW)):
        assert isinstance(error, InferenceError)
        assert error.provider == "anthropic"


@pytest.mark.parametrize(
    ("batch", "estimate"),
    [
        (ExecuteBatch([HELLO]), TokenEstimate(2 + 8, 4096, True)),
        (ExecuteBatch([HELLO], max_output_tokens=10), TokenEstimate(10, 10, True)),
        (ExecuteBatch([HELLO], max_output_tokens=10, extra={"max_tokens": 7}), TokenEstimate(10, 7, True)),
        (ExecuteBatch([HELLO], max_output_tokens=10, extra={"max_tokens": "many"}), TokenEstimate(10, 10, True)),
    ],
)
def test_estimates(batch: ExecuteBatch, estimate: TokenEstimate) -> None:
    assert CODEC.estimate(batch) == estimate


def test_rate_limit_headers() -> None:
    said = (
        ("anthropic-ratelimit-requests-limit", "50"),
        ("anthropic-ratelimit-requests-remaining", "49"),
        ("anthropic-ratelimit-requests-reset", "2027-01-15T08:00:30Z"),
    )
    assert CODEC.rate_limit_snapshot(said, NOW) == RateLimitSnapshot(RateLimitDimension(50, 49, 30.0))
    assert CODEC.rate_limit_snapshot((("x-ratelimit-limit-requests", "50"),), NOW) is None
