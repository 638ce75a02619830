"""Answers for the comparison with the official SDKs (`test_sdk_differential.py`), and where we read them otherwise.

Written from what the providers document, and from what was seen of servers that imitate them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

Json = Any
Side = Literal["we", "SDK", "both"]


@dataclass(frozen=True)
class Case:
    """A response, and what the codec that reads it is called. sdk: whose reads it too."""

    name: str
    codec: str
    body: bytes
    stream: bool = True


@dataclass(frozen=True)
class Difference:
    """Where two readings differ, who is right, and why.

    truth: the fields, and what they are to whoever is right (to us, where both are).
    """

    right: Side
    why: str
    truth: dict[str, Json]


def sse(*frames: Json, named: bool = False, end: str = "\n") -> bytes:
    """A stream of these events. named: each is called after its ``type``."""
    out = ""
    for frame in frames:
        out += f"event: {frame['type']}{end}" if named else ""
        out += f"data: {frame if isinstance(frame, str) else json.dumps(frame)}{end}{end}"
    return out.encode()


def unary(tree: Json) -> bytes:
    return json.dumps(tree).encode()


# ---- Chat Completions -------------------------------------------------------------------------------------------------

_CHAT: dict[str, Json] = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}


def delta(finish: str | None = None, index: int = 0, **said: Json) -> Json:
    return {**_CHAT, "choices": [{"index": index, "delta": said, "finish_reason": finish}]}


def called(index: int | None, arguments: str = "", id_: str | None = None, name: str | None = None) -> Json:
    call: dict[str, Json] = {"function": {"arguments": arguments, **({} if name is None else {"name": name})}}
    if index is not None:
        call["index"] = index
    if id_ is not None:
        call |= {"id": id_, "type": "function"}
    return delta(tool_calls=[call])


def chat_usage(prompt: int, completion: int, cached: int = 0, reasoning: int = 0) -> Json:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def completion(finish: str = "stop", usage: Json = None, **message: Json) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": None, **message}, "finish_reason": finish}
    usage = chat_usage(9, 3) if usage is None else usage
    return unary({"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage})


ROLE = delta(role="assistant", content="")
USAGE = {**_CHAT, "choices": [], "usage": chat_usage(9, 3)}
STOP = delta("stop")
DONE = "[DONE]"
FILTERED = {"hate": {"filtered": False, "severity": "safe"}}
AZURE_FIRST = {
    "id": "",
    "object": "",
    "created": 0,
    "model": "",
    "choices": [],
    "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": FILTERED}],
}
AZURE_LATER = {
    "id": "",
    "object": "",
    "created": 0,
    "model": "",
    "choices": [
        {
            "index": 0,
            "finish_reason": None,
            "content_filter_offsets": {"check_offset": 1, "start_offset": 1, "end_offset": 9},
        }
    ],
}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
FAILED = {"error": {"message": "the server had an error", "type": "server_error", "param": None, "code": "server_error"}}

CHAT = (
    Case("text and usage", "openai", sse(ROLE, delta(content="Hel"), delta(content="lo é🙂\n"), STOP, USAGE, DONE)),
    Case(
        "one call in fragments",
        "openai",
        sse(ROLE, called(0, "", "call_1", "f"), called(0, '{"a"'), called(0, ": 1}"), delta("tool_calls"), USAGE, DONE),
    ),
    Case(
        "parallel calls in turns",
        "openai",
        sse(
            ROLE,
            called(0, "", "call_1", "f"),
            called(1, "", "call_2", "g"),
            called(0, '{"a": 1}'),
            called(1, "{}"),
            delta("tool_calls"),
            USAGE,
            DONE,
        ),
    ),
    Case(
        "parallel calls in one frame",
        "openai",
        sse(ROLE, delta(tool_calls=[{"index": 0, **CALL}, {"index": 1, **CALL, "id": "call_2"}]), delta("tool_calls"), DONE),
    ),
    Case(
        "text before a call",
        "openai",
        sse(ROLE, delta(content="Let me"), called(0, "{}", "c", "f"), delta("tool_calls"), DONE),
    ),
    Case(
        "reasoning of DeepSeek",
        "openai",
        sse(ROLE, delta(reasoning_content="hm, "), delta(reasoning_content="so"), delta(content="42"), STOP, USAGE, DONE),
    ),
    Case(
        "reasoning of OpenRouter",
        "openai",
        sse(ROLE, delta(reasoning="hm, "), delta(reasoning="so"), delta(content="42"), STOP, USAGE, DONE),
    ),
    Case(
        "a frame with usage null after the usage",
        "openai",
        sse(ROLE, delta(content="x"), STOP, USAGE, {**_CHAT, "choices": [], "moderation": {}, "usage": None}, DONE),
    ),
    Case("refusal", "openai", sse(ROLE, delta(refusal="I can't"), delta(refusal=" do that"), STOP, USAGE, DONE)),
    Case("cut by length", "openai", sse(ROLE, delta(content="Once upon"), delta("length"), USAGE, DONE)),
    Case("filtered", "openai", sse(ROLE, delta(content="Once"), delta("content_filter"), USAGE, DONE)),
    Case(
        "usage with cache and reasoning",
        "openai",
        sse(ROLE, delta(content="x"), STOP, {**_CHAT, "choices": [], "usage": chat_usage(2000, 90, 1920, 64)}, DONE),
    ),
    Case(
        "usage beside the finish reason", "openai", sse(ROLE, delta(content="x"), {**STOP, "usage": chat_usage(9, 3)}, DONE)
    ),
    Case(
        "usage null in each frame",
        "openai",
        sse({**delta(content="x"), "usage": None}, {**STOP, "usage": None}, USAGE, DONE),
    ),
    Case(
        "obfuscated", "openai", sse({**ROLE, "obfuscation": "abc"}, {**delta(content="x"), "obfuscation": "d"}, STOP, DONE)
    ),
    Case("filters of Azure", "azure", sse(AZURE_FIRST, ROLE, delta(content="x"), STOP, AZURE_LATER, USAGE, DONE)),
    Case(
        "odd lines",
        "openai",
        b": hi\r\n\r\nretry: 3\r\n"
        + sse(ROLE, delta(content="x"), STOP, end="\r\n").replace(b"data: ", b"data:")
        + b": \r\n\r\nid: 1\r\ndata: [DONE]\r\n\r\n",
    ),
    Case(
        "data over two lines",
        "openai",
        sse(ROLE, delta(content="x"), STOP, DONE).replace(b', "choices"', b',\ndata: "choices"'),
    ),
    Case("no blank line at the end", "openai", sse(ROLE, delta(content="x"), STOP, DONE).rstrip(b"\n")),
    Case(
        "the function call of old",
        "openai",
        sse(
            ROLE,
            delta(function_call={"name": "f", "arguments": ""}),
            delta(function_call={"arguments": "{}"}),
            delta("function_call"),
            DONE,
        ),
    ),
    Case("an unknown finish reason", "openai", sse(ROLE, delta(content="x"), delta("eos"), DONE)),
    Case("an error, then [DONE]", "litellm", sse(ROLE, delta(content="x"), FAILED, DONE)),
    Case("an error at once", "openai", sse(FAILED)),
    Case("an error after the finish reason", "openai", sse(ROLE, delta(content="x"), STOP, FAILED)),
    Case(
        "an error of Groq",
        "openai",
        sse(ROLE, delta(content="x"), {**delta("stop"), "x_groq": {"id": "r", "error": "over capacity"}}, DONE),
    ),
    Case(
        "an error without error",
        "mistral",
        sse(ROLE, delta(content="x"), {"object": "error", "message": "no", "type": "internal_error", "code": "1"}, DONE),
    ),
    Case("cut off in the text", "openai", sse(ROLE, delta(content="Hel"), delta(content="lo"))),
    Case("cut off inside a frame", "openai", sse(ROLE, delta(content="Hel"), delta(content="lo"))[:-30]),
    Case("[DONE] without a finish reason", "openai", sse(ROLE, delta(content="x"), DONE)),
    Case("cut off before the usage", "openai", sse(ROLE, delta(content="x"), STOP)),
    Case("nothing at all", "openai", b""),
    Case(
        "calls without an index",
        "openai",
        sse(ROLE, called(None, "{}", "call_1", "f"), called(None, '{"a": 1}', "call_2", "g"), delta("tool_calls"), DONE),
    ),
    Case(
        "calls counted from one",
        "openai",
        sse(ROLE, called(1, "", "call_1", "f"), called(1, '{"a": 1}'), delta("tool_calls"), DONE),
    ),
    Case(
        "a call whose id and name come again",
        "openai",
        sse(ROLE, called(0, '{"a"', "call_1", "f"), called(0, ": 1}", "call_1", "f"), delta("tool_calls"), DONE),
    ),
    Case(
        "content in parts",
        "mistral",
        sse(
            ROLE,
            delta(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]),
            delta(content=[{"type": "text", "text": "x"}]),
            {**delta("stop", content=""), "usage": chat_usage(9, 3)},
            DONE,
        ),
    ),
    Case(
        "a choice that nobody asked for",
        "openai",
        sse(ROLE, delta(content="x"), delta(index=1, content="y"), STOP, delta("stop", 1), DONE),
    ),
    Case("a frame that is no JSON", "openai", sse(ROLE, delta(content="x"), "Internal Server Error", STOP, DONE)),
    Case("frames after [DONE]", "openai", sse(ROLE, delta(content="x"), STOP, DONE, delta(content="y"))),
    Case("a byte order mark", "openai", b"\xef\xbb\xbf" + sse(ROLE, delta(content="x"), STOP, DONE)),
    Case("half of a surrogate pair", "openai", sse(ROLE, delta(content="a\ud800b"), STOP, DONE)),
    Case("whole text", "openai", completion(content="Hello é🙂"), stream=False),
    Case("whole calls", "openai", completion("tool_calls", tool_calls=[CALL, {**CALL, "id": "call_2"}]), stream=False),
    Case("whole refusal", "openai", completion(refusal="no"), stream=False),
    Case("whole, cached", "openai", completion("stop", chat_usage(2000, 90, 1920, 64), content="x"), stream=False),
    Case("whole, cut by length", "azure", completion("length", content="Once"), stream=False),
    Case("whole, an error inside a 200", "litellm", unary(FAILED), stream=False),
    Case("whole, no choices", "openai", unary({**_CHAT, "choices": []}), stream=False),
    Case(
        "whole, arguments parsed already",
        "openai",
        completion("tool_calls", tool_calls=[{**CALL, "function": {"name": "f", "arguments": {"a": 1}}}]),
        stream=False,
    ),
)

# ---- Responses --------------------------------------------------------------------------------------------------------

_AT: dict[str, Json] = {"item_id": "msg_1", "output_index": 0, "content_index": 0}


def response(status: str, *output: Json, usage: Json = None, **more: Json) -> Json:
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": status,
        "model": "m",
        "output": list(output),
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "error": None,
        "incomplete_details": None,
        "usage": usage,
        **more,
    }


def responses_usage(taken: int, given: int, cached: int = 0, reasoning: int = 0) -> Json:
    return {
        "input_tokens": taken,
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": given,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": taken + given,
    }


def numbered(*events: Json, end: str = "\n") -> bytes:
    return sse(*({**event, "sequence_number": number} for number, event in enumerate(events)), named=True, end=end)


def message(text: str, id_: str = "msg_1") -> Json:
    return {
        "id": id_,
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "text": text, "annotations": []}],
    }


def function_call(arguments: str, number: int = 1) -> Json:
    return {
        "id": f"fc_{number}",
        "type": "function_call",
        "status": "completed",
        "call_id": f"call_{number}",
        "name": "f",
        "arguments": arguments,
    }


def call_events(place: int, arguments: str, number: int = 1) -> list[Json]:
    at, item = {"item_id": f"fc_{number}", "output_index": place}, function_call(arguments, number)
    half = len(arguments) // 2
    return [
        {
            "type": "response.output_item.added",
            "output_index": place,
            "item": {**item, "arguments": "", "status": "in_progress"},
        },
        {"type": "response.function_call_arguments.delta", **at, "delta": arguments[:half]},
        {"type": "response.function_call_arguments.delta", **at, "delta": arguments[half:]},
        {"type": "response.function_call_arguments.done", **at, "arguments": arguments},
        {"type": "response.output_item.done", "output_index": place, "item": item},
    ]


BEGUN = [{"type": f"response.{state}", "response": response("in_progress")} for state in ("created", "in_progress")]
MESSAGE_ADDED = {
    "type": "response.output_item.added",
    "output_index": 0,
    "item": {"id": "msg_1", "type": "message", "status": "in_progress", "role": "assistant", "content": []},
}
PART_ADDED = {"type": "response.content_part.added", **_AT, "part": {"type": "output_text", "text": "", "annotations": []}}
TEXT_EVENTS = [
    MESSAGE_ADDED,
    PART_ADDED,
    {"type": "response.output_text.delta", **_AT, "delta": "Hel"},
    {"type": "response.output_text.delta", **_AT, "delta": "lo"},
    {"type": "response.output_text.done", **_AT, "text": "Hello"},
    {"type": "response.content_part.done", **_AT, "part": message("Hello")["content"][0]},
    {"type": "response.output_item.done", "output_index": 0, "item": message("Hello")},
]
COMPLETED = {"type": "response.completed", "response": response("completed", message("Hello"), usage=responses_usage(9, 3))}
REFUSED = {**message(""), "content": [{"type": "refusal", "refusal": "I can't"}]}
REFUSAL_EVENTS = [
    MESSAGE_ADDED,
    {"type": "response.content_part.added", **_AT, "part": {"type": "refusal", "refusal": ""}},
    {"type": "response.refusal.delta", **_AT, "delta": "I can't"},
    {"type": "response.refusal.done", **_AT, "refusal": "I can't"},
    {"type": "response.output_item.done", "output_index": 0, "item": REFUSED},
]
REASONED = {
    "id": "rs_1",
    "type": "reasoning",
    "summary": [{"type": "summary_text", "text": "hm"}],
    "encrypted_content": "gA",
}
SHOWN = {"id": "rs_1", "type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}
REASONING_EVENTS = [
    {"type": "response.output_item.added", "output_index": 0, "item": {"id": "rs_1", "type": "reasoning", "summary": []}},
    {
        "type": "response.reasoning_summary_text.delta",
        "item_id": "rs_1",
        "output_index": 0,
        "summary_index": 0,
        "delta": "hm",
    },
    {"type": "response.output_item.done", "output_index": 0, "item": REASONED},
]
SECOND_MESSAGE = [{**event, "output_index": 1} for event in TEXT_EVENTS]
_CUT = {"incomplete_details": {"reason": "max_output_tokens"}}
_RESPONSE_ERROR = {"code": "server_error", "message": "no"}

RESPONSES = (
    Case("text", "openai_responses", numbered(*BEGUN, *TEXT_EVENTS, COMPLETED)),
    Case("text on Azure", "azure_responses", numbered(*BEGUN, *TEXT_EVENTS, COMPLETED)),
    Case(
        "a call",
        "openai_responses",
        numbered(
            *BEGUN,
            *call_events(0, '{"a": 1}'),
            {"type": "response.completed", "response": response("completed", function_call('{"a": 1}'))},
        ),
    ),
    Case(
        "parallel calls",
        "openai_responses",
        numbered(
            *BEGUN,
            *call_events(0, "{}"),
            *call_events(1, '{"a": 1}', 2),
            {
                "type": "response.completed",
                "response": response(
                    "completed", function_call("{}"), function_call('{"a": 1}', 2), usage=responses_usage(50, 20)
                ),
            },
        ),
    ),
    Case(
        "reasoning and text",
        "openai_responses",
        numbered(
            *BEGUN,
            *REASONING_EVENTS,
            *SECOND_MESSAGE,
            {
                "type": "response.completed",
                "response": response("completed", REASONED, message("Hello"), usage=responses_usage(9, 90, 0, 64)),
            },
        ),
    ),
    Case(
        "reasoning that is shown",
        "openai_responses",
        numbered(
            *BEGUN,
            {
                "type": "response.reasoning_text.delta",
                "item_id": "rs_1",
                "output_index": 0,
                "content_index": 0,
                "delta": "hm",
            },
            {"type": "response.output_item.done", "output_index": 0, "item": SHOWN},
            {"type": "response.completed", "response": response("completed", SHOWN, message("Hello"))},
        ),
    ),
    Case(
        "refusal",
        "openai_responses",
        numbered(*BEGUN, *REFUSAL_EVENTS, {"type": "response.completed", "response": response("completed", REFUSED)}),
    ),
    Case(
        "cut by length",
        "openai_responses",
        numbered(
            *BEGUN,
            *TEXT_EVENTS,
            {
                "type": "response.incomplete",
                "response": response("incomplete", message("Hello"), usage=responses_usage(9, 3), **_CUT),
            },
        ),
    ),
    Case(
        "filtered",
        "openai_responses",
        numbered(
            *BEGUN,
            *TEXT_EVENTS,
            {
                "type": "response.incomplete",
                "response": response("incomplete", message("Hello"), incomplete_details={"reason": "content_filter"}),
            },
        ),
    ),
    Case(
        "usage with cache",
        "openai_responses",
        numbered(
            *BEGUN,
            *TEXT_EVENTS,
            {
                "type": "response.completed",
                "response": response("completed", message("Hello"), usage=responses_usage(2000, 90, 1920, 64)),
            },
        ),
    ),
    Case("CRLF and comments", "openai_responses", b": hi\r\n\r\n" + numbered(*BEGUN, *TEXT_EVENTS, COMPLETED, end="\r\n")),
    Case("[DONE] at the end", "openai_responses", numbered(*BEGUN, *TEXT_EVENTS, COMPLETED) + b"data: [DONE]\n\n"),
    Case(
        "events of an unknown type",
        "openai_responses",
        numbered(*BEGUN, {"type": "response.new_thing", "delta": "x"}, *TEXT_EVENTS, COMPLETED),
    ),
    Case(
        "an error event",
        "openai_responses",
        numbered(*BEGUN, *TEXT_EVENTS[:4], {"type": "error", "code": "server_error", "message": "no", "param": None}),
    ),
    Case(
        "an error event around an error",
        "openai_responses",
        numbered(*BEGUN, *TEXT_EVENTS[:4], {"type": "error", "error": {"type": "server_error", **_RESPONSE_ERROR}}),
    ),
    Case(
        "failed",
        "openai_responses",
        numbered(
            *BEGUN, *TEXT_EVENTS[:4], {"type": "response.failed", "response": response("failed", error=_RESPONSE_ERROR)}
        ),
    ),
    Case("cut off in the text", "openai_responses", numbered(*BEGUN, *TEXT_EVENTS[:3])),
    Case("cut off before its last event", "openai_responses", numbered(*BEGUN, *TEXT_EVENTS)),
    Case("cut off inside its last event", "openai_responses", numbered(*BEGUN, *TEXT_EVENTS, COMPLETED)[:-1]),
    Case("without deltas", "openai_responses", numbered(*BEGUN, COMPLETED)),
    Case(
        "without names of events",
        "openai_responses",
        b"\n\n".join(event.partition(b"\n")[2] for event in numbered(*BEGUN, *TEXT_EVENTS, COMPLETED).split(b"\n\n")),
    ),
    Case(
        "a text in an item that was not announced",
        "openai_responses",
        numbered(*BEGUN, TEXT_EVENTS[2], TEXT_EVENTS[3], COMPLETED),
    ),
    Case(
        "completed, but it says failed",
        "openai_responses",
        numbered(*BEGUN, {"type": "response.completed", "response": response("failed", error=_RESPONSE_ERROR)}),
    ),
    Case(
        "whole text",
        "openai_responses",
        unary(response("completed", message("Hello"), usage=responses_usage(9, 3))),
        stream=False,
    ),
    Case(
        "whole calls and reasoning",
        "openai_responses",
        unary(response("completed", REASONED, function_call("{}"), function_call('{"a": 1}', 2))),
        stream=False,
    ),
    Case(
        "whole refusal", "azure_responses", unary(response("completed", REFUSED, usage=responses_usage(9, 3))), stream=False
    ),
    Case("whole, cut by length", "openai_responses", unary(response("incomplete", message("Hel"), **_CUT)), stream=False),
    Case("whole, failed", "openai_responses", unary(response("failed", error=_RESPONSE_ERROR)), stream=False),
    Case("whole, not there yet", "openai_responses", unary(response("queued")), stream=False),
)

# ---- Anthropic Messages -----------------------------------------------------------------------------------------------


def anthropic_usage(fresh: int = 9, given: int = 1, **more: Json) -> Json:
    return {
        "input_tokens": fresh,
        "output_tokens": given,
        "cache_read_input_tokens": 0,
        "cache_creation_input_tokens": 0,
        **more,
    }


def start(usage: Json = None) -> Json:
    return {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": anthropic_usage() if usage is None else usage,
        },
    }


def block(index: int, opened: Json, *deltas: Json) -> list[Json]:
    return [
        {"type": "content_block_start", "index": index, "content_block": opened},
        *({"type": "content_block_delta", "index": index, "delta": each} for each in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def text_block(index: int, *pieces: str) -> list[Json]:
    return block(index, {"type": "text", "text": ""}, *({"type": "text_delta", "text": piece} for piece in pieces))


def tool_block(index: int, *pieces: str, kind: str = "tool_use") -> list[Json]:
    opened = {"type": kind, "id": f"toolu_{index}", "name": "f", "input": {}}
    return block(index, opened, *({"type": "input_json_delta", "partial_json": piece} for piece in pieces))


def end(reason: str = "end_turn", given: int = 3, **usage: Json) -> list[Json]:
    return [
        {
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": None},
            "usage": {"output_tokens": given, **usage},
        },
        {"type": "message_stop"},
    ]


def events(*trees: Json, **how: Json) -> bytes:
    return sse(*trees, named=True, **how)


def whole_message(*content: Json, reason: str = "end_turn", usage: Json = None) -> bytes:
    return unary({**start(usage)["message"], "content": list(content), "stop_reason": reason})


THOUGHT = block(
    0,
    {"type": "thinking", "thinking": "", "signature": ""},
    {"type": "thinking_delta", "thinking": "hm, "},
    {"type": "thinking_delta", "thinking": "so"},
    {"type": "signature_delta", "signature": "EqQB"},
)
OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}

ANTHROPIC = (
    Case("text", "anthropic", events(start(), {"type": "ping"}, *text_block(0, "Hel", "lo é🙂\n"), *end())),
    Case("a call in fragments", "anthropic", events(start(), *tool_block(0, "", '{"a"', ": 1}"), *end("tool_use"))),
    Case(
        "parallel calls",
        "anthropic",
        events(start(), *text_block(0, "Let me"), *tool_block(1, '{"a": 1}'), *tool_block(2, "{}"), *end("tool_use")),
    ),
    Case("a call without input", "anthropic", events(start(), *tool_block(0, ""), *end("tool_use"))),
    Case("thinking", "anthropic", events(start(), *THOUGHT, *text_block(1, "42"), *end())),
    Case(
        "redacted thinking",
        "anthropic",
        events(start(), *block(0, {"type": "redacted_thinking", "data": "EmwK"}), *text_block(1, "42"), *end()),
    ),
    Case(
        "a tool of the server's",
        "anthropic",
        events(start(), *tool_block(0, '{"query": "q"}', kind="server_tool_use"), *text_block(1, "x"), *end()),
    ),
    Case("refusal", "anthropic", events(start(), *text_block(0, "I"), *end("refusal"))),
    Case("cut by length", "anthropic", events(start(), *text_block(0, "Once upon"), *end("max_tokens"))),
    Case("a turn that pauses", "anthropic", events(start(), *text_block(0, "x"), *end("pause_turn"))),
    Case(
        "usage with cache",
        "anthropic",
        events(
            start(
                anthropic_usage(
                    9,
                    1,
                    cache_read_input_tokens=1000,
                    cache_creation_input_tokens=200,
                    cache_creation={"ephemeral_5m_input_tokens": 150, "ephemeral_1h_input_tokens": 50},
                )
            ),
            *text_block(0, "x"),
            *end(given=40),
        ),
    ),
    Case(
        "usage counted anew at the end",
        "anthropic",
        events(start(), *text_block(0, "x"), *end(given=40, input_tokens=90, cache_read_input_tokens=7)),
    ),
    Case(
        "a report on the way",
        "anthropic",
        events(
            start(),
            *text_block(0, "x"),
            {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 2}},
            *end(given=4),
        ),
    ),
    Case("CRLF and comments", "anthropic", b": hi\r\n\r\n" + events(start(), *text_block(0, "x"), *end(), end="\r\n")),
    Case("a byte order mark", "anthropic", b"\xef\xbb\xbf" + events(start(), *text_block(0, "x"), *end())),
    Case(
        "blocks and events of an unknown kind",
        "anthropic",
        events(
            start(),
            *block(0, {"type": "new_block"}, {"type": "new_delta", "x": 1}),
            {"type": "new_event"},
            *text_block(1, "x"),
            *end(),
        ),
    ),
    Case("an error", "anthropic", events(start(), *text_block(0, "x")[:2], OVERLOADED)),
    Case("an error at once", "anthropic", events(OVERLOADED)),
    Case("cut off in the text", "anthropic", events(start(), *text_block(0, "Hel", "lo")[:2])),
    Case("cut off before its last event", "anthropic", events(start(), *text_block(0, "x"), *end()[:1])),
    Case("cut off inside its last event", "anthropic", events(start(), *text_block(0, "x"), *end())[:-1]),
    Case("nothing at all", "anthropic", b""),
    Case("cut off in the input of a call", "anthropic", events(start(), *tool_block(0, '{"a": "Par')[:2])),
    Case("blocks counted from one", "anthropic", events(start(), *text_block(1, "x"), *end())),
    Case("without names of events", "anthropic", sse(start(), *text_block(0, "x"), *end())),
    Case(
        "an error under another name",
        "anthropic",
        events(start(), *text_block(0, "x")[:2]) + b"event: message\ndata: " + unary(OVERLOADED) + b"\n\n",
    ),
    Case(
        "a signature in two deltas",
        "anthropic",
        events(
            start(),
            *block(
                0,
                {"type": "thinking", "thinking": "", "signature": ""},
                {"type": "thinking_delta", "thinking": "hm"},
                {"type": "signature_delta", "signature": "Eq"},
                {"type": "signature_delta", "signature": "QB"},
            ),
            *text_block(1, "x"),
            *end(),
        ),
    ),
    Case(
        "input that is given at the start",
        "anthropic",
        events(start(), *block(0, {"type": "tool_use", "id": "toolu_0", "name": "f", "input": {"a": 1}}), *end("tool_use")),
    ),
    Case(
        "whole text",
        "anthropic",
        whole_message({"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}),
        stream=False,
    ),
    Case(
        "whole call",
        "anthropic",
        whole_message({"type": "tool_use", "id": "toolu_0", "name": "f", "input": {"a": [1, "é"]}}, reason="tool_use"),
        stream=False,
    ),
    Case(
        "whole thinking",
        "anthropic",
        whole_message({"type": "thinking", "thinking": "hm", "signature": "Eq"}, {"type": "text", "text": "42"}),
        stream=False,
    ),
    Case(
        "whole, cached",
        "anthropic",
        whole_message(
            {"type": "text", "text": "x"},
            reason="max_tokens",
            usage=anthropic_usage(9, 90, cache_read_input_tokens=1000, cache_creation_input_tokens=200),
        ),
        stream=False,
    ),
    Case("whole, an error inside a 200", "anthropic", unary(OVERLOADED), stream=False),
)

# ---- Gemini -----------------------------------------------------------------------------------------------------------


def parts(*given: Json, finish: str | None = None, usage: Json = None) -> Json:
    candidate: dict[str, Json] = {"content": {"parts": list(given), "role": "model"}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    frame: dict[str, Json] = {"candidates": [candidate], "modelVersion": "m", "responseId": "r"}
    return frame if usage is None else {**frame, "usageMetadata": usage}


def gemini_usage(prompt: int = 9, given: int = 3, thoughts: int = 0, cached: int = 0, tools: int = 0) -> Json:
    counts = {
        "promptTokenCount": prompt,
        "candidatesTokenCount": given,
        "thoughtsTokenCount": thoughts,
        "cachedContentTokenCount": cached,
        "toolUsePromptTokenCount": tools,
    }
    return {name: count for name, count in counts.items() if count} | {"totalTokenCount": prompt + given + thoughts + tools}


UNAVAILABLE = {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}
BLOCKED = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 4, "totalTokenCount": 4}}
_CALLED = {"functionCall": {"id": "id-1", "name": "f", "args": {"a": 1}}, "thoughtSignature": "CiQB"}

GEMINI = (
    Case("text", "gemini", sse(parts({"text": "Hel"}), parts({"text": "lo é🙂\n"}, finish="STOP", usage=gemini_usage()))),
    Case(
        "text on Vertex", "vertex", sse(parts({"text": "Hel"}), parts({"text": "lo"}, finish="STOP", usage=gemini_usage()))
    ),
    Case(
        "usage in each frame",
        "gemini",
        sse(parts({"text": "x"}, usage=gemini_usage(9, 1)), parts({"text": "y"}, finish="STOP", usage=gemini_usage(9, 2))),
    ),
    Case("a call", "gemini", sse(parts(_CALLED, finish="STOP", usage=gemini_usage()))),
    Case(
        "parallel calls",
        "gemini",
        sse(
            parts({"text": "Let me"}),
            parts(_CALLED, {"functionCall": {"id": "id-2", "name": "g", "args": {}}}),
            parts({"text": ""}, finish="STOP", usage=gemini_usage()),
        ),
    ),
    Case(
        "thoughts",
        "gemini",
        sse(
            parts({"text": "hm, ", "thought": True}),
            parts({"text": "so", "thought": True}),
            parts({"text": "42"}),
            parts({"text": "", "thoughtSignature": "CiQB"}, finish="STOP", usage=gemini_usage(9, 3, 60)),
        ),
    ),
    Case("stopped for safety", "gemini", sse(parts({"text": "Once"}), parts(finish="SAFETY", usage=gemini_usage()))),
    Case("cut by length", "gemini", sse(parts({"text": "Once upon"}, finish="MAX_TOKENS", usage=gemini_usage(9, 3, 60)))),
    Case(
        "usage with cache, thoughts and tools",
        "gemini",
        sse(parts({"text": "x"}, finish="STOP", usage=gemini_usage(2000, 30, 60, 1920, 7))),
    ),
    Case(
        "CRLF and comments",
        "gemini",
        b": hi\r\n\r\n" + sse(parts({"text": "x"}), parts({"text": "y"}, finish="STOP", usage=gemini_usage()), end="\r\n"),
    ),
    Case(
        "data over several lines",
        "gemini",
        sse(parts({"text": "x"}, finish="STOP", usage=gemini_usage())).replace(
            b', "modelVersion"', b',\ndata: "modelVersion"'
        ),
    ),
    Case("no blank line at the end", "gemini", sse(parts({"text": "x"}), parts({"text": "y"}, finish="STOP")).rstrip(b"\n")),
    Case(
        "code that was run",
        "gemini",
        sse(
            parts(
                {"executableCode": {"language": "PYTHON", "code": "1"}}, {"text": "x"}, finish="STOP", usage=gemini_usage()
            )
        ),
    ),
    Case("an unknown finish reason", "gemini", sse(parts({"text": "x"}, finish="NEW_REASON"))),
    Case(
        "line separators of Unicode",
        "gemini",
        sse(parts({"text": "a\u2028b"}, finish="STOP")).replace(b"\\u2028", "\u2028".encode()),
    ),
    Case("an error", "gemini", sse(parts({"text": "x"}), UNAVAILABLE)),
    Case(
        "an error that is no event", "gemini", sse(parts({"text": "x"})) + json.dumps(UNAVAILABLE, indent=1).encode() + b"\n"
    ),
    Case(
        "an error that is no event, after the end",
        "gemini",
        sse(parts({"text": "x"}, finish="STOP")) + json.dumps(UNAVAILABLE, indent=1).encode() + b"\n",
    ),
    Case("an error at once", "gemini", sse(UNAVAILABLE)),
    Case("cut off in the text", "gemini", sse(parts({"text": "Hel"}), parts({"text": "lo"}))),
    Case("cut off inside a frame", "gemini", sse(parts({"text": "Hel"}), parts({"text": "lo"}, finish="STOP"))[:-30]),
    Case("nothing at all", "gemini", b""),
    Case("a blocked prompt", "gemini", sse(BLOCKED)),
    Case("a call without an id", "gemini", sse(parts({"functionCall": {"name": "f", "args": {"a": 1}}}, finish="STOP"))),
    Case("a call without arguments", "gemini", sse(parts({"functionCall": {"id": "id-1", "name": "f"}}, finish="STOP"))),
    Case(
        "no space after the colon",
        "gemini",
        sse(parts({"text": "x"}), parts({"text": "y"}, finish="STOP")).replace(b"data: ", b"data:"),
    ),
    Case("a byte order mark", "gemini", b"\xef\xbb\xbf" + sse(parts({"text": "x"}), parts({"text": "y"}, finish="STOP"))),
    Case(
        "an event with a name and an id",
        "gemini",
        sse(parts({"text": "x"}), parts({"text": "y"}, finish="STOP")).replace(b"data: ", b"event: message\nid: 7\ndata: "),
    ),
    Case(
        "whole text",
        "gemini",
        unary(parts({"text": "Hel"}, {"text": "lo"}, finish="STOP", usage=gemini_usage())),
        stream=False,
    ),
    Case(
        "whole calls",
        "vertex",
        unary(parts(_CALLED, {"functionCall": {"id": "id-2", "name": "g", "args": {}}}, finish="STOP")),
        stream=False,
    ),
    Case(
        "whole thoughts",
        "gemini",
        unary(parts({"text": "hm", "thought": True}, {"text": "42"}, finish="STOP", usage=gemini_usage(2000, 3, 60, 1920))),
        stream=False,
    ),
    Case("whole, stopped for safety", "gemini", unary(parts(finish="SAFETY", usage=gemini_usage(9, 0))), stream=False),
    Case("whole, a blocked prompt", "gemini", unary(BLOCKED), stream=False),
    Case("whole, an error inside a 200", "gemini", unary(UNAVAILABLE), stream=False),
)

CASES = (*CHAT, *RESPONSES, *ANTHROPIC, *GEMINI)

# ---- where they differ ------------------------------------------------------------------------------------------------

_NO_PROOF = "a stream that ends early is not told from a whole one: the SDK asks for no proof that it is complete"
_EARLY = Difference("we", _NO_PROOF, {"failed": True})
_NO_ERROR = "an error inside a 200 without a stream is returned as an answer without content"
_HIDDEN = Difference("we", _NO_ERROR, {"failed": True})
_INCOMPLETE = Difference(
    "we",
    "`responses.stream` waits for `response.completed`, and takes `response.incomplete` for a stream that broke",
    {"failed": False},
)
_NO_INDEX = (
    "the list of calls is indexed by what the provider sent: a missing index, or one that does not begin at 0, breaks it"
)
_NOT_SSE = "the SDK knows `data: ` at the beginning of a line and nothing else of the format of event streams"
_BROKEN_LINES = Difference("we", _NOT_SSE, {"text": "xy", "finish": "STOP", "failed": False})
_MARK = "a byte order mark at the beginning of a stream is part of its first line to the SDK; the standard drops it"
_BLOCKED = "a prompt that was blocked is an answer without candidates"
_WHOLE_OF_X = {"text": "x", "finish": "end_turn", "usage": (9, 3, 0, 0, 0), "failed": False}

DIFFERENCES: dict[str, tuple[Difference, ...]] = {
    "chat: an error of Groq": (
        Difference(
            "we",
            "`x_groq.error` is not known to the SDK: an answer that failed looks whole",
            {"failed": True, "finish": None},
        ),
    ),
    "chat: an error without error": (
        Difference(
            "we", "an error frame without `error` (Mistral, vLLM) is passed on as a chunk without choices", {"failed": True}
        ),
    ),
    "chat: cut off in the text": (_EARLY,),
    "chat: cut off inside a frame": (_EARLY,),
    "chat: [DONE] without a finish reason": (_EARLY,),
    "chat: nothing at all": (_EARLY,),
    "chat: calls without an index": (
        Difference(
            "we",
            _NO_INDEX,
            {"calls": (("call_1", "f", {}), ("call_2", "g", {"a": 1})), "finish": "tool_calls", "failed": False},
        ),
    ),
    "chat: calls counted from one": (
        Difference("we", _NO_INDEX, {"calls": (("call_1", "f", {"a": 1}),), "finish": "tool_calls", "failed": False}),
    ),
    "chat: a call whose id and name come again": (
        Difference(
            "we",
            "an id and a name that are sent with each fragment are strung together",
            {"calls": (("call_1", "f", {"a": 1}),)},
        ),
    ),
    "chat: content in parts": (
        Difference(
            "we",
            "content as a list of parts (Mistral) is no text to the SDK, which is for OpenAI's",
            {"text": "x", "reasoning": "hm"},
        ),
    ),
    "chat: a frame with usage null after the usage": (
        Difference("we", "a later `usage: null` (a frame of moderation) wipes out the usage", {"usage": (9, 3, 0, 0, 0)}),
    ),
    "chat: half of a surrogate pair": (
        Difference(
            "we", "half of a surrogate pair stays in the text, and breaks whoever writes it as UTF-8", {"text": "a\ufffdb"}
        ),
    ),
    "chat: whole, an error inside a 200": (_HIDDEN,),
    "chat: whole, no choices": (Difference("we", "an answer without choices is returned as one", {"failed": True}),),
    "responses: cut by length": (_INCOMPLETE,),
    "responses: filtered": (_INCOMPLETE,),
    "responses: cut off inside its last event": (
        Difference(
            "both",
            "the last event without its blank line is not read by the SDK; we read its usage, and fail as well",
            {"usage": (9, 3, 0, 0, 0), "finish": "completed"},
        ),
    ),
    "responses: a text in an item that was not announced": (
        Difference(
            "we",
            "`responses.stream` breaks where a server leaves out that an item begins",
            {"text": "Hello", "usage": (9, 3, 0, 0, 0), "finish": "completed", "failed": False},
        ),
    ),
    "anthropic: a byte order mark": (Difference("we", _MARK, _WHOLE_OF_X),),
    "anthropic: cut off in the text": (_EARLY,),
    "anthropic: cut off before its last event": (_EARLY,),
    "anthropic: cut off inside its last event": (_EARLY,),
    "anthropic: cut off in the input of a call": (
        _EARLY,
        Difference(
            "both",
            "half the input of a call is half the text to us, and to the SDK the part of it that can be read",
            {"calls": (("toolu_0", "f", '{"a": "Par'),)},
        ),
    ),
    "anthropic: blocks counted from one": (
        Difference("we", "`messages.stream` takes the index of a block for its place in the list", _WHOLE_OF_X),
    ),
    "anthropic: without names of events": (
        Difference(
            "we", "events without a name (proxies drop it) are not read, though their `type` says as much", _WHOLE_OF_X
        ),
    ),
    "anthropic: an error under another name": (
        Difference("we", "an error is known by the name of its event only, not by its `type`", {"failed": True}),
    ),
    "anthropic: whole, an error inside a 200": (_HIDDEN,),
    "gemini: CRLF and comments": (
        Difference("we", _NOT_SSE, {"text": "xy", "usage": (9, 3, 0, 0, 0), "finish": "STOP", "failed": False}),
    ),
    "gemini: an error that is no event, after the end": (
        Difference(
            "SDK",
            "a JSON object that is no event, which Vertex was seen to send, is read; to us the answer is whole",
            {"failed": True},
        ),
    ),
    "gemini: no space after the colon": (_BROKEN_LINES,),
    "gemini: a byte order mark": (Difference("we", _MARK, {"text": "xy", "finish": "STOP", "failed": False}),),
    "gemini: an event with a name and an id": (_BROKEN_LINES,),
    "gemini: cut off in the text": (_EARLY,),
    "gemini: nothing at all": (_EARLY,),
    "gemini: a blocked prompt": (Difference("we", _BLOCKED, {"failed": True}),),
    "gemini: whole, a blocked prompt": (
        Difference("we", _BLOCKED, {"failed": True}),
        Difference(
            "SDK",
            "the usage beside a blocked prompt is read; a whole answer that failed has none with us",
            {"usage": (4, 0, 0, 0, 0)},
        ),
    ),
    "gemini: whole, an error inside a 200": (_HIDDEN,),
    "gemini: a call without an id": (
        Difference(
            "both",
            "a call without an id stays without; we name it by its place, so that its result finds it",
            {"calls": (("call_0", "f", {"a": 1}),)},
        ),
    ),
    "gemini: a call without arguments": (
        Difference(
            "both",
            "a call without arguments has `None`; with us its arguments are always JSON, and so `{}`",
            {"calls": (("id-1", "f", {}),)},
        ),
    ),
}
"""By the format and the name of the case. What is not here is read alike."""
