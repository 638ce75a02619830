"""The example of a provider in one file (`examples/mistral_provider.py`): its dialect, and that it runs as it stands."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sansio import (
    Deployment,
    ExecuteBatch,
    ImagePart,
    InferenceError,
    Message,
    ProviderCodec,
    SseChunk,
    TextPart,
    TokenEstimate,
    Tokens,
    TokenUsage,
    Tool,
    ToolCall,
    replay_response,
)
from sansio.rate_limit import RateLimitDimension, RateLimitSnapshot
from sansio.secret import Credential
from sansio.session import SessionSnapshot

PAGE = Path(__file__).resolve().parent.parent / "examples" / "mistral_provider.py"
SESSION = SessionSnapshot(1, Credential("key"))
NOW = 1_800_000_000.0


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("example_mistral_provider", PAGE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


CODEC: Any = load().MistralChat("mistral-small-latest")
STRICT: Any = load().MistralChat("mistral-small-latest", safe_prompt=True)
HELLO = Message("user", "hello")


def test_it_runs_against_the_mock_provider() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(PAGE)],
        capture_output=True, text=True, timeout=60, check=False, env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[hello] w1 w2 w3 w4 TokenUsage(input_tokens=2, output_tokens=5, ")
    assert float(done.stdout.split()[-1]) > 0


def test_it_takes_no_part_of_ours_that_is_private() -> None:
    imports = [line for line in PAGE.read_text().splitlines() if line.startswith(("from ", "import "))]
    assert len(imports) > 5
    assert not [line for line in imports if "._" in line or " _" in line]


def test_it_is_a_codec_and_a_runtime() -> None:
    assert isinstance(CODEC, ProviderCodec)
    deployment = Deployment(name="chat", model="mistral-small-latest", runtime=CODEC, budget={"max_spend_per_day_usd": 1})
    assert deployment.codec() is CODEC
    assert (CODEC.provider, CODEC.endpoint) == ("mistral", "https://api.mistral.ai/v1")
    assert CODEC.estimate(ExecuteBatch([HELLO], max_output_tokens=7)) == TokenEstimate(10, 7, True)


@pytest.mark.parametrize("field", ["model", "endpoint"])
def test_a_configuration_out_of_range_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        type(CODEC)(**{field: 5})


# ---- requests: mistralai 3.7.0 has these fields and no others, and the server answers 422 to any other -----------------

FIELDS = {
    *("model", "messages", "temperature", "top_p", "max_tokens", "stream", "stop", "random_seed", "metadata", "tools"),
    *("response_format", "tool_choice", "presence_penalty", "frequency_penalty", "n", "prediction", "prompt_mode"),
    *("parallel_tool_calls", "reasoning_effort", "prompt_cache_key", "service_tier", "safe_prompt"),
}
FIELDS_OF_ROLE = {
    "system": {"role", "content"},
    "user": {"role", "content"},
    "assistant": {"role", "content", "tool_calls", "prefix"},
    "tool": {"role", "content", "tool_call_id", "name"},
}
EVERYTHING = ExecuteBatch(
    [
        Message("developer", "be brief", name="d"),
        Message("user", [TextPart("what is it?"), ImagePart("https://h/i.png")], name="me"),
        Message("assistant", "", tool_calls=[ToolCall("c1", "look", "{}")], name="bot"),
        Message("tool", "a cat", tool_call_id="c1", name="look"),
        Message("assistant", "", refusal="I would rather not"),
        Message("assistant", "well", refusal="no"),
    ],
    tools=[Tool("look"), Tool("see", parameters={"type": "object", "properties": {"x": {}}})],
    tool_choice="required",
    parallel_tool_calls=False,
    max_output_tokens=5,
    temperature=0.5,
    top_p=0.9,
    stop=["x"],
    seed=7,
    response_format={"type": "object"},
    reasoning_effort="high",
    cache_key="k",
    metadata={"a": "b"},
)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("batch", [EVERYTHING, ExecuteBatch([HELLO])])
@pytest.mark.parametrize("codec", [CODEC, STRICT])
def test_nothing_is_sent_that_mistral_does_not_know(codec: Any, batch: ExecuteBatch, stream: bool) -> None:
    body = json.loads(codec.encode(batch, SESSION, stream=stream).body)
    assert set(body) <= FIELDS
    assert body.get("stream", False) is stream
    assert ("safe_prompt" in body) is codec.safe_prompt
    for message in body["messages"]:
        assert set(message) <= FIELDS_OF_ROLE[message["role"]]
    assert all(isinstance(tool["function"]["parameters"], dict) for tool in body.get("tools", ()))


def test_a_whole_request() -> None:
    made = CODEC.encode(EVERYTHING, SESSION)
    assert (made.method, made.url) == ("POST", "https://api.mistral.ai/v1/chat/completions")
    assert ("authorization", "Bearer key") in made.headers and ("accept", "text/event-stream") in made.headers
    body = json.loads(made.body)
    assert (body["max_tokens"], body["random_seed"], body["prompt_cache_key"]) == (5, 7, "k")
    assert (body["tool_choice"], body["stop"], body["reasoning_effort"]) == ("required", ["x"], "high")
    turns = [(message["role"], message["content"]) for message in body["messages"]]
    assert turns[0] == ("system", "be brief")
    assert turns[1][1][1] == {"type": "image_url", "image_url": {"url": "https://h/i.png"}}
    assert turns[2:] == [
        ("assistant", None), ("tool", "a cat"), ("assistant", "I would rather not"), ("assistant", "well"),
    ]  # fmt: skip
    assert body["messages"][3]["name"] == "look"
    assert [tool["function"]["parameters"]["properties"] for tool in body["tools"]] == [{}, {"x": {}}]


def test_extras_come_last() -> None:
    batch = ExecuteBatch([HELLO], max_output_tokens=5, extra={"prompt_mode": "reasoning", "max_tokens": 9})
    body = json.loads(STRICT.encode(batch, SESSION, stream=False).body)
    assert (body["prompt_mode"], body["max_tokens"], body["safe_prompt"]) == ("reasoning", 9, True)
    assert CODEC.estimate(batch).output_tokens == 9


# ---- answers -----------------------------------------------------------------------------------------------------------

THINKING = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}, {"type": "text", "text": "m"}], "closed": True}
USAGE = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}


def frame(content: object, finish: str | None = None, **rest: object) -> dict[str, Any]:
    delta = {"role": "assistant", "content": content}
    return {
        "id": "x", "object": "chat.completion.chunk", "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **rest,
    }  # fmt: skip


def streamed(*frames: object) -> tuple[Tokens, InferenceError | None]:
    wire = "".join(f"data: {each if isinstance(each, str) else json.dumps(each)}\n\n" for each in frames)
    chunks, error = replay_response(CODEC, 200, (("content-type", "text/event-stream"),), [wire.encode()])
    return Tokens.from_chunks(chunks), error


@pytest.mark.parametrize(
    ("raw", "finish"),
    [("stop", "stop"), ("length", "length"), ("model_length", "length"), ("tool_calls", "tool_calls"), ("error", "error")],
)
def test_a_stream_of_texts_and_lists(raw: str, finish: str) -> None:
    tokens, error = streamed(
        frame(""), frame([THINKING]), frame([{"type": "text", "text": "Hel"}]), frame("lo", raw, usage=USAGE), "[DONE]"
    )
    assert error is None
    assert (tokens.reasoning, tokens.text) == ("hmm", "Hello")
    assert (tokens.finish_reason, tokens.raw_finish_reason) == (finish, raw)
    assert tokens.usage == TokenUsage(12, 3)


def test_calls_come_whole() -> None:
    call = {"id": "c1", "index": 0, "function": {"name": "look", "arguments": '{"at": "it"}'}}
    delta = {"choices": [{"index": 0, "delta": {"content": "", "tool_calls": [call]}, "finish_reason": "tool_calls"}]}
    tokens, error = streamed({**delta, "usage": USAGE}, "[DONE]")
    assert error is None
    assert tokens.tool_calls == (ToolCall("c1", "look", '{"at": "it"}'),)


def test_done_is_no_proof_and_two_choices_are_two() -> None:
    _, error = streamed(frame("Hel"), "[DONE]")
    assert error is not None and error.kind == "stream_interrupted"
    decoder = CODEC.stream_decoder(ExecuteBatch([HELLO], extra={"n": 2}))
    decoder.decode([SseChunk(json.dumps(frame("Hello", "stop")))])
    assert not decoder.complete


def test_a_unary_answer() -> None:
    message = {"role": "assistant", "content": [THINKING, {"type": "text", "text": "Hello"}]}
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": USAGE}
    tokens = Tokens.from_chunks(CODEC.decode_unary(json.dumps(body).encode()))
    assert (tokens.reasoning, tokens.text, tokens.usage) == ("hmm", "Hello", TokenUsage(12, 3))


# ---- errors ------------------------------------------------------------------------------------------------------------

CAPACITY = {"object": "error", "message": "Service tier capacity exceeded for this model.", "type": "invalid_request_error",
            "param": None, "code": None}  # fmt: skip
LIMITED = {"object": "error", "message": "Rate limit exceeded", "type": "rate_limited", "param": None, "code": "1300",
           "raw_status_code": 429}  # fmt: skip
UNKNOWN_FIELD = {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}


@pytest.mark.parametrize(
    ("status", "body", "kind", "retryable", "circuit", "key"),
    [
        (422, UNKNOWN_FIELD, "bad_request", False, False, False),
        (422, {"object": "error", "message": UNKNOWN_FIELD, "type": "invalid_request_error", "code": None},
         "bad_request", False, False, False),
        (429, LIMITED, "rate_limited", True, False, False),
        (429, CAPACITY, "server_error", True, True, False),
        (503, CAPACITY, "server_error", True, True, False),
        (401, {"detail": "Unauthorized"}, "unauthorized", False, False, True),
        (500, {}, "server_error", True, True, False),
    ],
)  # fmt: skip
def test_errors(status: int, body: object, kind: str, retryable: bool, circuit: bool, key: bool) -> None:
    error = CODEC.classify(status, (), json.dumps(body).encode(), NOW)
    assert (error.kind, error.provider, error.status) == (kind, "mistral", status)
    assert (error.retryable, error.counts_as_circuit_failure, error.blames_key) == (retryable, circuit, key)


@pytest.mark.parametrize(("body", "kind"), [(CAPACITY, "server_error"), (LIMITED, "rate_limited")])
def test_an_error_inside_a_stream_has_no_error_around_it(body: object, kind: str) -> None:
    _, error = streamed(body)
    assert error is not None and error.kind == kind
    _, after = streamed(frame("Hel"), body, "[DONE]")
    assert after is not None and after.kind == "stream_interrupted"
    assert isinstance(after.cause, InferenceError) and after.cause.kind == kind


def test_limits_are_in_headers_of_its_own() -> None:
    headers = (
        ("x-ratelimit-limit-req-minute", "60"), ("x-ratelimit-remaining-req-minute", "59"),
        ("x-ratelimit-limit-tokens-minute", "0"), ("x-ratelimit-remaining-tokens-minute", "0"),
        ("x-ratelimit-remaining-requests", "1"),
    )  # fmt: skip
    assert CODEC.rate_limit_snapshot(headers, NOW) == RateLimitSnapshot(RateLimitDimension(60, 59))
    assert CODEC.classify(429, headers, b"", NOW).retry_after is None
