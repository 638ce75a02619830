"""OpenAI's Chat Completions, as their server speaks them: the JSON, the order of the events, the headers, the errors.

Facts from the API reference and from openai-python 3.54, which accepts these answers in the tests.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, cast

from .answers import Answer, Choice, count_tokens
from .formats import Ask, Headers, Refusal, Stamp
from .provider_limiter import LimitView
from .response_plan import Data, Kind

_MAX_CHOICES: Final = 128


class OpenAiChat:
    """``POST …/chat/completions`` and ``GET …/models``. Takes the key as a bearer token, or as ``api-key`` like Azure."""

    __slots__ = ()

    def serves(self, path: str) -> bool:
        """Any path that ends in ``/chat/completions``."""
        return path.endswith("/chat/completions")

    def lists_models(self, path: str) -> bool:
        """Any path that ends in ``/models``."""
        return path.endswith("/models")

    def key(self, headers: Mapping[str, str]) -> str | None:
        """The bearer token or the ``api-key`` field."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token.strip():
            return token.strip()
        return headers.get("api-key")

    def parse(self, path: str, body: Any) -> Ask | Refusal:
        """The fields the mock honours; all others are ignored, as by the real server where they are valid."""
        fields = _object(body)
        if fields is None:
            return _invalid("The body must be a JSON object.", None)
        model, messages, choices = fields.get("model"), _messages(fields.get("messages")), _default(fields.get("n"), 1)
        if not isinstance(model, str) or not model:
            return _invalid("you must provide a model parameter", "model")
        if not messages:
            return _invalid("Invalid 'messages': expected a non-empty array of messages, each with a role.", "messages")
        limit = _default(fields.get("max_completion_tokens"), fields.get("max_tokens"))
        if limit is not None and not _is_count(limit):
            return _invalid("Invalid 'max_completion_tokens': expected an integer of at least 1.", "max_completion_tokens")
        if not _is_count(choices) or choices > _MAX_CHOICES:
            return _invalid(f"Invalid 'n': expected an integer between 1 and {_MAX_CHOICES}.", "n")
        if not isinstance(fields.get("stream"), bool | None):
            return _invalid("Invalid 'stream': expected a boolean.", "stream")
        options = _object(fields.get("stream_options")) or {}
        return Ask(
            model=model,
            prompt=_prompt(messages),
            input_tokens=max(1, sum(count_tokens(_text(message)) for message in messages)),
            stream=fields.get("stream") is True,
            include_usage=options.get("include_usage") is True,
            max_output_tokens=limit,
            choices=choices,
            tools=_tool_names(fields.get("tools")),
            tool_results=messages[-1]["role"] == "tool",
            obfuscated=options.get("include_obfuscation") is not False,
        )

    def frames(self, ask: Ask, answer: Answer, stamp: Stamp) -> Iterator[Data]:
        """Role, content (choices in turn), finish, usage where it was asked for, ``[DONE]``."""
        head = _envelope(ask, stamp, "chat.completion.chunk")

        def frame(kind: Kind, index: int, delta: dict[str, Any], finish: str | None = None) -> Data:
            choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
            chunk = {**head, "choices": [choice]} | ({"usage": None} if ask.include_usage else {})
            return Data(_event(chunk), kind)

        for index, choice in enumerate(answer.choices):
            content = None if choice.kind == "tool_call" else ""
            yield frame(Kind.ROLE, index, {"role": "assistant", "content": content, "refusal": None})
        for index, delta in _in_turn([_deltas(choice, stamp, at) for at, choice in enumerate(answer.choices)]):
            chunk = frame(Kind.CONTENT, index, delta)
            yield _padded(chunk) if ask.obfuscated else chunk
        for index, choice in enumerate(answer.choices):
            yield frame(Kind.FINISH, index, {}, choice.finish)
        if ask.include_usage:
            yield Data(_event({**head, "choices": [], "usage": _usage(answer)}), Kind.USAGE)
        yield Data(self.done_frame(), Kind.DONE)

    def unary(self, ask: Ask, answer: Answer, stamp: Stamp) -> bytes:
        """A ``chat.completion`` object."""
        choices = [
            {"index": index, "message": _message(choice, stamp, index), "logprobs": None, "finish_reason": choice.finish}
            for index, choice in enumerate(answer.choices)
        ]
        return _json({**_envelope(ask, stamp, "chat.completion"), "choices": choices, "usage": _usage(answer)})

    def models(self, names: Sequence[str]) -> bytes:
        """A ``list`` of ``model`` objects."""
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "mock"} for name in names]
        return _json({"object": "list", "data": data})

    def error(self, refusal: Refusal) -> bytes:
        """The ``error`` object with message, type, param and code."""
        error = {"message": refusal.message, "type": refusal.type, "param": refusal.param, "code": refusal.code}
        return _json({"error": error})

    def error_frame(self, error: Mapping[str, Any]) -> bytes:
        """A data frame with a top-level ``error``."""
        return _event({"error": dict(error)})

    def done_frame(self) -> bytes:
        """``data: [DONE]``."""
        return b"data: [DONE]\n\n"

    def headers(self, stamp: Stamp, limits: LimitView | None) -> Headers:
        """``x-request-id``, ``openai-version``, and the ``x-ratelimit-*`` of each dimension that is limited."""
        fields = [("x-request-id", f"req_{stamp.id}"), ("openai-version", "2020-10-01"), ("openai-processing-ms", "1")]
        if limits is not None:
            for name, limit, remaining in (
                ("requests", limits.limits.requests_per_minute, limits.remaining_requests),
                ("tokens", limits.limits.tokens_per_minute, limits.remaining_tokens),
            ):
                if limit is not None:
                    fields.append((f"x-ratelimit-limit-{name}", str(limit)))
                    fields.append((f"x-ratelimit-remaining-{name}", str(remaining)))
                    fields.append((f"x-ratelimit-reset-{name}", go_duration(limits.reset)))
        return tuple(fields)

    def reset_headers(self, reset: str) -> Headers:
        """``x-ratelimit-remaining-requests: 0`` and the reset beside it."""
        return (("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", reset))


def go_duration(seconds: float) -> str:
    """A duration as Go prints it and as OpenAI's reset headers hold it: ``20ms``, ``1.5s``, ``6m0s``. Rounded up to 1 ms."""
    ms = math.ceil(seconds * 1000)
    if ms < 1000:
        return f"{ms}ms" if ms else "0s"
    minutes, ms = divmod(ms, 60_000)
    tail = f"{ms // 1000}{f'.{ms % 1000:03d}'.rstrip('0') if ms % 1000 else ''}s"
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else "") + tail


def _envelope(ask: Ask, stamp: Stamp, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{stamp.id}",
        "object": kind,
        "created": stamp.created,
        "model": ask.model,
        "service_tier": "default",
        "system_fingerprint": "fp_mock",
    }


def _deltas(choice: Choice, stamp: Stamp, index: int) -> Iterator[dict[str, Any]]:
    if choice.kind == "tool_call":
        yield {"tool_calls": [{"index": 0, **_call(choice, stamp, index, "")}]}
        for piece in choice.pieces():
            yield {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
    else:
        field = "content" if choice.kind == "text" else "refusal"
        for piece in choice.pieces():
            yield {field: piece}


def _in_turn(streams: list[Iterator[dict[str, Any]]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """One delta of each choice, then the next of each, until all have ended."""
    left = dict(enumerate(streams))
    while left:
        for index, stream in list(left.items()):
            delta = next(stream, None)
            if delta is None:
                del left[index]
            else:
                yield index, delta


def _message(choice: Choice, stamp: Stamp, index: int) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
    if choice.kind == "tool_call":
        message["tool_calls"] = [_call(choice, stamp, index, choice.text)]
    else:
        message["content" if choice.kind == "text" else "refusal"] = choice.text
    return message


def _call(choice: Choice, stamp: Stamp, index: int, arguments: str) -> dict[str, Any]:
    function = {"name": choice.tool, "arguments": arguments}
    return {"id": f"call_{stamp.id}_{index}", "type": "function", "function": function}


def _usage(answer: Answer) -> dict[str, Any]:
    return {
        "prompt_tokens": answer.input_tokens,
        "completion_tokens": answer.output_tokens,
        "total_tokens": answer.total_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _padded(frame: Data) -> Data:
    """The frame with its ``obfuscation``: random padding at the real server, a length drawn from the frame's own here."""
    padding = "x" * (len(frame.data) * 7 % 13)
    return Data(frame.data[:-3] + b',"obfuscation":"' + padding.encode() + b'"}\n\n', frame.kind)


def _event(value: Any) -> bytes:
    return b"data: " + _json(value) + b"\n\n"


def _json(value: Any) -> bytes:
    """UTF-8 as it is, not escaped, so that clients meet characters split between pieces; a lone surrogate becomes ``?``."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _invalid(message: str, param: str | None) -> Refusal:
    return Refusal(400, "invalid_request_error", None, message, param)


def _default(value: Any, default: Any) -> Any:
    return default if value is None else value


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _object(value: Any) -> dict[str, Any] | None:
    return cast(dict[str, Any], value) if isinstance(value, dict) else None


def _array(value: Any) -> Sequence[Any]:
    return cast(Sequence[Any], value) if isinstance(value, list) else ()


def _messages(value: Any) -> list[dict[str, Any]]:
    """The messages, or none where one of them has no role."""
    found = [message for item in _array(value) if (message := _object(item)) and isinstance(message.get("role"), str)]
    return found if len(found) == len(_array(value)) else []


def _text(message: dict[str, Any]) -> str:
    """The text of a message: a string, or the joined text parts."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    texts = [part.get("text") for item in _array(content) if (part := _object(item))]
    return "".join(text for text in texts if isinstance(text, str))


def _prompt(messages: list[dict[str, Any]]) -> str:
    """The text of the last user message, or of the last message of all."""
    from_user = [message for message in messages if message["role"] == "user"]
    return _text((from_user or messages)[-1])


def _tool_names(tools: Any) -> tuple[str, ...]:
    """The names of the function tools; whatever else is in there is ignored."""
    functions = [_object(tool.get("function")) for item in _array(tools) if (tool := _object(item))]
    names = [function.get("name") for function in functions if function]
    return tuple(name for name in names if isinstance(name, str) and name)
