"""What providers send, made up from a seed: streams, whole answers and refusals that are right in every byte.

The fuzz of the codecs (`fuzz_codecs.py`) begins with these. What a made-up answer says is known (`Said`), so that a codec
that reads it otherwise is found before anything is broken.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

Format = Literal["chat", "responses", "anthropic", "gemini"]
FORMATS: tuple[Format, ...] = ("chat", "responses", "anthropic", "gemini")

Json = Any
"""A tree of JSON values."""


@dataclass
class Event:
    """One event of a stream: its name, where the format gives it one, and what it holds (a `str` is sent as it is)."""

    data: Json
    name: str | None = None


@dataclass
class Said:
    """What an answer says. calls: id, name and arguments of each. counts: input and output tokens, ``None`` for no usage."""

    texts: list[str] = field(default_factory=lambda: [""])
    reasoning: str = ""
    refusal: str = ""
    calls: list[tuple[str, str, Json]] = field(default_factory=list[tuple[str, str, Json]])
    counts: tuple[int, int] | None = None


@dataclass
class Stream:
    """A stream and what it says. choices: how many answers were asked for. proof: the place of the event that proves it
    complete. last: whether that is the format's last event, which has to have come whole."""

    events: list[Event]
    said: Said
    proof: int
    choices: int = 1
    last: bool = False


@dataclass
class Body:
    """A whole answer and what it says."""

    tree: Json
    said: Said
    choices: int = 1


WORDS = ("Hello", " world", "\n", "é", "日本", "🙂", ' "quoted"', " \\", " data: [DONE]", "\u2028", "</s>", " ", "0")
NAMES = ("get_weather", "search", "f")


def words(rng: Random, most: int = 4) -> list[str]:
    return [rng.choice(WORDS) for _ in range(rng.randint(1, most))]


def arguments(rng: Random) -> Json:
    return {
        rng.choice(("city", "q", "é")): rng.choice(("Paris", 1, 2.5, None, ["a"], {"b": "🙂"}))
        for _ in range(rng.randint(0, 2))
    }


def in_pieces(rng: Random, text: str, most: int = 3) -> list[str]:
    """The text, cut at some places. A piece may be empty."""
    cuts = sorted(rng.randint(0, len(text)) for _ in range(rng.randint(0, most - 1)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def counts(rng: Random) -> tuple[int, int]:
    return rng.randint(1, 5000), rng.randint(0, 5000)


# ---- Chat Completions -------------------------------------------------------------------------------------------------


def _chat_usage(said: Said, rng: Random) -> Json:
    assert said.counts is not None
    prompt, completion = said.counts
    usage: dict[str, Json] = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    if rng.random() < 0.5:
        written = {"cache_write_tokens": 1, "cache_write_tokens_details": {"ttl_12h_tokens": 1}}
        usage["prompt_tokens_details"] = {"cached_tokens": prompt // 2, "audio_tokens": 0, **written}
        usage["completion_tokens_details"] = {"reasoning_tokens": completion // 2, "audio_tokens": 0}
    if rng.random() < 0.2:
        usage["cost"] = 0.00012
    return usage


def _filters() -> Json:
    return {name: {"filtered": False, "severity": "safe"} for name in ("hate", "self_harm", "sexual", "violence")}


def chat_stream(rng: Random) -> Stream:
    said = Said(["".join(words(rng))])
    azure, listed = rng.random() < 0.3, rng.random() < 0.15
    choices = 2 if rng.random() < 0.1 else 1
    base: dict[str, Json] = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    if rng.random() < 0.3:
        base["service_tier"] = "default"
    frames: list[Json] = []

    def say(delta: Json, finish: str | None = None, index: int = 0, **more: Json) -> None:
        frames.append(
            {**base, "choices": [{"index": index, "delta": delta, "logprobs": None, "finish_reason": finish, **more}]}
        )

    if azure:
        results = [{"prompt_index": 0, "content_filter_results": _filters()}]
        frames.append({"id": "", "object": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": results})
    say({"role": "assistant", "content": "", "refusal": None})
    if rng.random() < 0.3:
        name = rng.choice(("reasoning_content", "reasoning"))
        for piece in words(rng):
            said.reasoning += piece
            say({name: piece})
    if rng.random() < 0.1:
        said.refusal = "I can not"
        said.texts = [""]
        say({"refusal": said.refusal})
    for piece in in_pieces(rng, said.texts[0], 4):
        say({"content": [{"type": "text", "text": piece}] if listed else piece}, obfuscation="x" * rng.randint(0, 8))
    called = rng.random() < 0.4
    if called:
        fragments: list[Json] = []
        for index in range(rng.randint(1, 3)):
            given, name = arguments(rng), rng.choice(NAMES)
            said.calls.append((f"call_{index}", name, given))
            say({"tool_calls": [{"index": index, "id": f"call_{index}", "type": "function",
                                 "function": {"name": name, "arguments": ""}}]})  # fmt: skip
            pieces = in_pieces(rng, json.dumps(given))
            fragments += [{"index": index, "function": {"arguments": piece}} for piece in pieces]
        for fragment in fragments:
            say({"tool_calls": [fragment]})
    for index in range(1, choices):
        said.texts.append("other")
        say({"content": "other"}, index=index)
    said.counts = counts(rng) if rng.random() < 0.8 else None
    for index in range(choices):
        say({}, "tool_calls" if called else rng.choice(("stop", "length", "content_filter", "eos", "new")), index)
    proof = len(frames) - 1
    if said.counts is not None:
        match rng.randint(0, 2):
            case 0:
                frames.append({**base, "choices": [], "usage": _chat_usage(said, rng)})
            case 1:
                frames[-1]["usage"] = _chat_usage(said, rng)
            case _:
                frames[-1]["x_groq"] = {"id": "req_1", "usage": _chat_usage(said, rng)}
    if azure:
        offsets = {"check_offset": 1, "start_offset": 1, "end_offset": 9}
        frames.append({"choices": [{"index": 0, "finish_reason": None, "content_filter_offsets": offsets}]})
    return Stream([*map(Event, frames), Event("[DONE]")], said, proof, choices)


def chat_body(rng: Random) -> Body:
    said = Said(["".join(words(rng))], counts=counts(rng))
    message: dict[str, Json] = {"role": "assistant", "content": said.texts[0], "refusal": None, "annotations": []}
    finish = "stop"
    if rng.random() < 0.4:
        given = arguments(rng)
        said.calls.append(("call_0", "f", given))
        function = {"name": "f", "arguments": json.dumps(given)}
        message["tool_calls"] = [{"id": "call_0", "type": "function", "function": function}]
        finish = "tool_calls"
    if rng.random() < 0.3:
        said.reasoning = message["reasoning_content"] = "hm"
    if rng.random() < 0.2:
        said.refusal = message["refusal"] = "no"
    choice = {
        "index": 0,
        "message": message,
        "finish_reason": finish,
        "logprobs": None,
        "content_filter_results": _filters(),
    }
    return Body({"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice],
                 "usage": _chat_usage(said, rng), "service_tier": "default"}, said)  # fmt: skip


# ---- Responses --------------------------------------------------------------------------------------------------------


def _responses_usage(said: Said) -> Json:
    assert said.counts is not None
    taken, given = said.counts
    return {"input_tokens": taken, "input_tokens_details": {"cached_tokens": taken // 2, "cache_write_tokens": 0},
            "output_tokens": given, "output_tokens_details": {"reasoning_tokens": given // 3},
            "total_tokens": taken + given}  # fmt: skip


def _responses_items(rng: Random, said: Said) -> list[Json]:
    """The finished items of a response."""
    items: list[Json] = []
    if rng.random() < 0.4:
        said.reasoning = "".join(words(rng))
        items.append({"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": said.reasoning}],
                      "encrypted_content": "gAAAA"})  # fmt: skip
    if rng.random() < 0.1:
        items.append(
            {"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "q"}}
        )
    if rng.random() < 0.1:
        said.refusal = "no"
        content = [{"type": "refusal", "refusal": "no"}]
    else:
        said.texts = ["".join(words(rng))]
        content = [{"type": "output_text", "text": said.texts[0], "annotations": [], "logprobs": []}]
    items.append({"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": content})
    if rng.random() < 0.4:
        for index in range(rng.randint(1, 2)):
            given, name = arguments(rng), rng.choice(NAMES)
            said.calls.append((f"call_{index}", name, given))
            items.append({"id": f"fc_{index}", "type": "function_call", "status": "completed", "call_id": f"call_{index}",
                          "name": name, "arguments": json.dumps(given)})  # fmt: skip
    return items


def _response(items: list[Json], said: Said, status: str, reason: str | None = None) -> Json:
    return {"id": "resp_1", "object": "response", "created_at": 1, "status": status, "error": None, "model": "m",
            "incomplete_details": None if reason is None else {"reason": reason}, "output": items,
            "usage": None if said.counts is None else _responses_usage(said), "service_tier": "default"}  # fmt: skip


def responses_stream(rng: Random) -> Stream:
    said = Said(counts=counts(rng))
    items = _responses_items(rng, said)
    begun = _response([], Said(), "in_progress")
    trees: list[Json] = [{"type": f"response.{state}", "response": begun} for state in ("created", "in_progress")]
    for place, item in enumerate(items):
        empty = {
            **item,
            **({"arguments": ""} if "arguments" in item else {}),
            **({"content": []} if "content" in item else {}),
        }
        trees.append({"type": "response.output_item.added", "output_index": place, "item": empty})
        at: dict[str, Json] = {"item_id": item["id"], "output_index": place}
        kind = whole = name = ""
        if item["type"] == "reasoning":
            at["summary_index"] = 0
            kind, whole, name = "reasoning_summary_text", said.reasoning, "text"
        elif item["type"] == "message":
            at["content_index"] = 0
            trees.append({"type": "response.content_part.added", **at, "part": item["content"][0]})
            kind, whole, name = (
                ("refusal", said.refusal, "refusal") if said.refusal else ("output_text", said.texts[0], "text")
            )
        elif item["type"] == "function_call":
            kind, whole, name = "function_call_arguments", item["arguments"], "arguments"
        if kind:
            pieces = in_pieces(rng, whole, 4)
            trees += [{"type": f"response.{kind}.delta", **at, "delta": piece, "obfuscation": "x"} for piece in pieces]
            trees.append({"type": f"response.{kind}.done", **at, name: whole})
        trees.append({"type": "response.output_item.done", "output_index": place, "item": item})
    if rng.random() < 0.2:
        reason = rng.choice(("max_output_tokens", "content_filter", "steered"))
        trees.append({"type": "response.incomplete", "response": _response(items, said, "incomplete", reason)})
    else:
        trees.append({"type": "response.completed", "response": _response(items, said, "completed")})
    events = [Event({**tree, "sequence_number": number}, tree["type"]) for number, tree in enumerate(trees)]
    return Stream(events, said, len(events) - 1, last=True)


def responses_body(rng: Random) -> Body:
    said = Said(counts=counts(rng))
    return Body(_response(_responses_items(rng, said), said, "completed"), said)


# ---- Anthropic Messages -----------------------------------------------------------------------------------------------


def _anthropic_usage(said: Said) -> Json:
    assert said.counts is not None
    taken, given = said.counts
    read, written = taken // 4, taken // 5
    return {"input_tokens": taken - read - written, "cache_read_input_tokens": read, "cache_creation_input_tokens": written,
            "cache_creation": {"ephemeral_5m_input_tokens": written, "ephemeral_1h_input_tokens": 0},
            "output_tokens": given, "output_tokens_details": {"thinking_tokens": 0}, "service_tier": "standard"}  # fmt: skip


def _anthropic_blocks(rng: Random, said: Said) -> list[Json]:
    blocks: list[Json] = []
    if rng.random() < 0.4:
        said.reasoning = "".join(words(rng))
        blocks.append({"type": "thinking", "thinking": said.reasoning, "signature": "EqQB"})
    if rng.random() < 0.1:
        blocks.append({"type": "redacted_thinking", "data": "EmwK"})
    said.texts = ["".join(words(rng))]
    blocks.append({"type": "text", "text": said.texts[0], "citations": None})
    if rng.random() < 0.1:
        blocks.append({"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "q"}})
    if rng.random() < 0.4:
        for index in range(rng.randint(1, 2)):
            given, name = arguments(rng), rng.choice(NAMES)
            said.calls.append((f"toolu_{index}", name, given))
            blocks.append({"type": "tool_use", "id": f"toolu_{index}", "name": name, "input": given})
    return blocks


def anthropic_stream(rng: Random) -> Stream:
    said = Said(counts=counts(rng))
    blocks = _anthropic_blocks(rng, said)
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
               "stop_sequence": None, "usage": {**_anthropic_usage(said), "output_tokens": 1}}  # fmt: skip
    trees: list[Json] = [{"type": "message_start", "message": message}]
    for index, block in enumerate(blocks):
        emptied = {"thinking": "", "signature": "", "text": "", "input": {}}
        begun = block["type"] in ("text", "thinking") and rng.random() < 0.2  # it is whole from its start
        start = block if begun else {name: emptied.get(name, value) for name, value in block.items()}
        trees.append({"type": "content_block_start", "index": index, "content_block": start})
        deltas: list[Json] = []
        match block["type"]:
            case _ if begun:
                pass
            case "text":
                deltas = [{"type": "text_delta", "text": piece} for piece in in_pieces(rng, block["text"], 4)]
            case "thinking":
                deltas = [{"type": "thinking_delta", "thinking": piece} for piece in in_pieces(rng, block["thinking"])]
                deltas.append({"type": "signature_delta", "signature": block["signature"]})
            case "tool_use" | "server_tool_use":
                pieces = in_pieces(rng, json.dumps(block["input"])) if block["input"] else [""]
                deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
            case _:
                pass
        trees += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        trees.append({"type": "content_block_stop", "index": index})
        if rng.random() < 0.2:
            trees.append({"type": "ping"})
    reason = "tool_use" if said.calls else rng.choice(("end_turn", "max_tokens", "stop_sequence", "refusal", "pause_turn"))
    delta = {"stop_reason": reason, "stop_sequence": None}
    trees.append(
        {"type": "message_delta", "delta": delta, "usage": {"output_tokens": _anthropic_usage(said)["output_tokens"]}}
    )
    trees.append({"type": "message_stop"})
    return Stream([Event(tree, tree["type"]) for tree in trees], said, len(trees) - 1, last=True)


def anthropic_body(rng: Random) -> Body:
    said = Said(counts=counts(rng))
    blocks = _anthropic_blocks(rng, said)
    return Body({"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": blocks,
                 "stop_reason": "tool_use" if said.calls else "end_turn", "stop_sequence": None,
                 "usage": _anthropic_usage(said)}, said)  # fmt: skip


# ---- Gemini -----------------------------------------------------------------------------------------------------------


def _gemini_usage(said: Said) -> Json:
    assert said.counts is not None
    taken, given = said.counts
    thoughts = given // 3
    return {"promptTokenCount": taken, "cachedContentTokenCount": taken // 2, "candidatesTokenCount": given - thoughts,
            "thoughtsTokenCount": thoughts, "totalTokenCount": taken + given,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": taken}], "trafficType": "ON_DEMAND"}  # fmt: skip


def _gemini_parts(rng: Random, said: Said) -> list[Json]:
    parts: list[Json] = []
    if rng.random() < 0.4:
        for piece in words(rng, 2):
            said.reasoning += piece
            parts.append({"text": piece, "thought": True})
    for piece in words(rng):
        said.texts[0] += piece
        parts.append({"text": piece})
    if rng.random() < 0.1:
        parts.append({"executableCode": {"language": "PYTHON", "code": "1"}})
    if rng.random() < 0.4:
        for index in range(rng.randint(1, 2)):
            given, name = arguments(rng), rng.choice(NAMES)
            said.calls.append((f"id-{index}", name, given))
            signed = {"thoughtSignature": "CiQB"} if index == 0 else {}
            parts.append({"functionCall": {"id": f"id-{index}", "name": name, "args": given}, **signed})
    return parts


def gemini_stream(rng: Random) -> Stream:
    said = Said(counts=counts(rng))
    parts = _gemini_parts(rng, said)
    frames: list[Json] = []
    while parts:
        taken, parts = parts[: (size := rng.randint(1, 3))], parts[size:]
        candidate = {"content": {"parts": taken, "role": "model"}, "index": 0}
        frames.append({"candidates": [candidate], "modelVersion": "m", "responseId": "r"})
        if rng.random() < 0.5:
            frames[-1]["usageMetadata"] = {"promptTokenCount": 1, "totalTokenCount": 1}
    end: dict[str, Json] = {"finishReason": "STOP" if said.calls else rng.choice(("STOP", "MAX_TOKENS", "SAFETY", "NEW"))}
    if rng.random() < 0.5:
        frames.append({"candidates": [{"content": {"parts": [{"text": ""}], "role": "model"}, "index": 0}]})
    frames[-1]["candidates"][0].update(end)
    frames[-1]["usageMetadata"] = _gemini_usage(said)
    return Stream([*map(Event, frames)], said, len(frames) - 1)


def gemini_body(rng: Random) -> Body:
    said = Said(counts=counts(rng))
    candidate = {"content": {"parts": _gemini_parts(rng, said), "role": "model"}, "finishReason": "STOP", "index": 0}
    return Body({"candidates": [candidate], "usageMetadata": _gemini_usage(said), "modelVersion": "m"}, said)


# ---- refusals ---------------------------------------------------------------------------------------------------------

STREAMS: Mapping[Format, Callable[[Random], Stream]] = {
    "chat": chat_stream,
    "responses": responses_stream,
    "anthropic": anthropic_stream,
    "gemini": gemini_stream,
}
BODIES: Mapping[Format, Callable[[Random], Body]] = {
    "chat": chat_body,
    "responses": responses_body,
    "anthropic": anthropic_body,
    "gemini": gemini_body,
}


def _openai_error(message: str, code: Json, type_: str | None, **more: Json) -> Json:
    return {"error": {"message": message, "type": type_, "param": None, "code": code, **more}}


def _google_error(code: int, status: str, message: str = "no", *details: Json) -> Json:
    return {"error": {"code": code, "message": message, "status": status, "details": list(details)}}


def _anthropic_error(type_: str, message: str, **details: Json) -> Json:
    error = {"type": type_, "message": message, **({"details": details} if details else {})}
    return {"type": "error", "error": error, "request_id": "req_1"}


_RPC = "type.googleapis.com/google.rpc."
_VIOLATIONS = [{"quotaMetric": "m", "quotaId": "GenerateRequestsPerDayPerProject", "quotaDimensions": {"model": "m"}}]
_OPENAI_REFUSALS: tuple[tuple[int, Json], ...] = (
    (
        400,
        _openai_error(
            "This model's maximum context length is 8192 tokens", "context_length_exceeded", "invalid_request_error"
        ),
    ),
    (400, _openai_error("blocked", "content_filter", None, status=400, innererror={"code": "ResponsibleAIPolicyViolation"})),
    (401, _openai_error("Incorrect API key provided: sk-abcdefgh1234.", "invalid_api_key", "invalid_request_error")),
    (404, _openai_error("no", "model_not_found", "invalid_request_error")),
    (429, _openai_error("Please try again in 1m6.57s.", "rate_limit_exceeded", "tokens")),
    (429, _openai_error("Request too large for m: Limit 10, Requested 99", "rate_limit_exceeded", "tokens")),
    (429, _openai_error("no money", "insufficient_quota", "insufficient_quota")),
    (429, {"object": "error", "message": "Rate limit exceeded", "type": "rate_limited", "param": None, "code": "1300"}),
    (422, {"detail": [{"loc": ["body", "x"], "msg": "extra", "type": "extra_forbidden"}]}),
    (422, _openai_error("Budget has been exceeded!", "422", "budget_exceeded")),
    (429, _openai_error("No deployments available for selected model, Try again in 5 seconds.", "429", "None")),
    (500, _openai_error("litellm.RateLimitError: no", "500", None)),
    (503, _openai_error("no", "server_is_overloaded", "server_error")),
)
REFUSALS: Mapping[Format, tuple[tuple[int, Json], ...]] = {
    "chat": _OPENAI_REFUSALS,
    "responses": _OPENAI_REFUSALS,
    "anthropic": (
        (400, _anthropic_error("invalid_request_error", "prompt is too long: 2 tokens > 1 maximum")),
        (
            400,
            _anthropic_error(
                "invalid_request_error", "You will regain access on 2026-12-01 at 00:00 UTC. reached your API usage limits"
            ),
        ),
        (401, _anthropic_error("authentication_error", "invalid x-api-key")),
        (402, _anthropic_error("billing_error", "no")),
        (429, _anthropic_error("rate_limit_error", "no", error_code="enforced_spend_limit_reached")),
        (429, _anthropic_error("rate_limit_error", "no")),
        (503, _anthropic_error("api_error", "no", error_code="cmek_key_unreachable")),
        (529, _anthropic_error("overloaded_error", "Overloaded")),
    ),
    "gemini": (
        (
            400,
            _google_error(
                400, "INVALID_ARGUMENT", "API key not valid.", {"@type": _RPC + "ErrorInfo", "reason": "API_KEY_INVALID"}
            ),
        ),
        (429, _google_error(429, "RESOURCE_EXHAUSTED", "no", {"@type": _RPC + "QuotaFailure", "violations": _VIOLATIONS})),
        (429, _google_error(429, "RESOURCE_EXHAUSTED", "no", {"@type": _RPC + "RetryInfo", "retryDelay": "3.957525076s"})),
        (500, _google_error(500, "INTERNAL")),
        (503, [_google_error(503, "UNAVAILABLE")]),
        (500, {"error": "no"}),
        (200, {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 4}}),
    ),
}
"""Statuses and bodies."""

NOT_JSON: tuple[bytes, ...] = (
    b"", b"null", b"<html><body><h1>502 Bad Gateway</h1></body></html>", b"upstream connect error", b"\xff\xfe\x00{", b"{",
    b'""',
)  # fmt: skip

HEADERS: tuple[tuple[str, str], ...] = (
    ("retry-after", "20"), ("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT"), ("retry-after-ms", "1500"),
    ("x-ms-retry-after-ms", "-1"), ("x-should-retry", "true"), ("x-should-retry", "false"), ("x-request-id", "req_1"),
    ("request-id", "req_2"), ("apim-request-id", "a"), ("x-litellm-call-id", "c"), ("x-litellm-response-cost", "0.0012"),
    ("x-ratelimit-limit-requests", "60"), ("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", "6m0s"),
    ("x-ratelimit-limit-tokens", "150000"), ("x-ratelimit-remaining-tokens", "149984"), ("x-ratelimit-reset-tokens", "20ms"),
    ("x-ratelimit-remaining-project-tokens", "3"), ("anthropic-ratelimit-requests-remaining", "0"),
    ("anthropic-ratelimit-requests-reset", "2026-11-24T05:00:00Z"), ("anthropic-ratelimit-tokens-limit", "1000"),
    ("anthropic-ratelimit-input-tokens-remaining", "1000"), ("x-ratelimit-limit-req-minute", "0"), ("x-groq-region", "us"),
    ("x-ratelimit-remaining-tokens-minute", "5"), ("x-ratelimit-reset", "0.5"), ("x-tokenlimit-remaining", "9"),
    ("x-ratelimit-api_key-remaining-requests", "1"), ("llm_provider-x-ratelimit-remaining-tokens", "7"),
)  # fmt: skip


def error_events(wire: Format, rng: Random) -> list[Event]:
    """How a format says inside a stream that it has failed."""
    tree = rng.choice(REFUSALS[wire])[1]
    match wire:
        case "chat":
            groq = {"choices": [{"index": 0, "delta": {}, "finish_reason": None}], "x_groq": {"error": "over capacity"}}
            bare = {"object": "error", "message": "no", "type": "invalid_request_error", "code": None}
            return [Event(rng.choice((_openai_error("no", "server_error", "server_error"), {"error": "no"}, groq, bare)))]
        case "responses":
            flat = {"type": "error", "code": "server_error", "message": "no", "param": None, "sequence_number": 9}
            failed = {
                "type": "response.failed",
                "response": {"status": "failed", "error": {"code": "server_error", "message": "no"}},
            }
            cancelled = {"type": "response.cancelled", "response": {"status": "cancelled"}}
            not_completed = {"type": "response.completed", "response": {**failed["response"], "status": "completed"}}
            data = rng.choice((flat, {"type": "error", "error": flat}, failed, cancelled, not_completed))
            return [Event(data, data["type"])]
        case "anthropic":
            nameless = {"error": {"type": "overloaded_error", "message": "Overloaded"}}
            told = ((tree, "error"), (tree, None), (nameless, None), ({"message": "no"}, "error"), ("no", "error"))
            return [Event(*rng.choice(told))]
        case "gemini":
            return [Event(tree)]
