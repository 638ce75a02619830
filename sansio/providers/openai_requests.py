"""Requests in the format of Chat Completions: a batch becomes a JSON body.

Everybody who speaks the format shares this; what one of them wants otherwise, its codec changes in the body (`openai.py`,
`azure.py`, `litellm.py`).

Source: https://developers.openai.com/api/reference/resources/chat.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..batch import ExecuteBatch, ImagePart, Message, TextPart, TokenEstimate, Tool
from .estimate import estimate_tokens, first_count


def chat_body(batch: ExecuteBatch, model: str, *, stream: bool) -> dict[str, Any]:
    """The body, ``extra`` last. Raises `ValueError` for what the format cannot express, naming the field."""
    body: dict[str, Any] = {"model": model, "messages": [_message_json(message) for message in batch.messages]}
    if batch.tools:
        body["tools"] = [_tool_json(tool) for tool in batch.tools]
    if batch.tool_choice is not None:
        body["tool_choice"] = _tool_choice_json(batch.tool_choice, batch.tools)
    if batch.response_format is not None:
        body["response_format"] = _response_format_json(batch.response_format)
    if batch.stop:
        body["stop"] = list(batch.stop)
    if batch.metadata:
        body["metadata"] = dict(batch.metadata)
    options = {
        "max_completion_tokens": batch.max_output_tokens,
        "parallel_tool_calls": batch.parallel_tool_calls,
        "temperature": batch.temperature,
        "top_p": batch.top_p,
        "seed": batch.seed,
        "reasoning_effort": batch.reasoning_effort,
        "prompt_cache_key": batch.cache_key,
    }
    body.update((name, value) for name, value in options.items() if value is not None)
    if stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    body.update(batch.extra)
    if not body["model"]:
        raise ValueError("model: is empty; give the codec one")
    return body


def chat_choices(batch: ExecuteBatch) -> int:
    """How many answers are asked for: ``extra["n"]``, where it is a count."""
    return first_count(batch.extra.get("n")) or 1


def chat_estimate(batch: ExecuteBatch) -> TokenEstimate:
    """`estimate_tokens`, with the limit by either of its names in ``extra``, for each choice."""
    limit = first_count(batch.extra.get("max_completion_tokens"), batch.extra.get("max_tokens"), batch.max_output_tokens)
    return estimate_tokens(batch, limit=limit, choices=chat_choices(batch))


def _message_json(message: Message) -> dict[str, Any]:
    if message.role not in ("system", "developer", "user", "assistant", "tool"):
        raise ValueError(f"role: {message.role!r} is none of system, developer, user, assistant, tool")
    if message.role == "tool" and not message.tool_call_id:
        raise ValueError("tool_call_id: a message with the role tool needs the id of the call it answers")
    out: dict[str, Any] = {"role": message.role}
    if isinstance(message.content, str):
        nothing_said = not message.content and (message.tool_calls or message.refusal)
        out["content"] = None if nothing_said else message.content
    else:
        out["content"] = [_part_json(part) for part in message.content]
    if message.tool_calls:
        out["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    for name in ("name", "tool_call_id", "refusal"):
        if (value := getattr(message, name)) is not None:
            out[name] = value
    return out


def _part_json(part: object) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if isinstance(part, ImagePart):
        return {"type": "image_url", "image_url": {"url": part.url} | ({"detail": part.detail} if part.detail else {})}
    raise ValueError(f"content: {type(part).__name__} is neither a TextPart nor an ImagePart")


def _tool_json(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    if tool.parameters:
        function["parameters"] = tool.parameters
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _tool_choice_json(choice: str, tools: Sequence[Tool]) -> str | dict[str, Any]:
    """One of the format's own words, or the name of a tool."""
    if choice in ("none", "auto", "required"):
        return choice
    if choice in (tool.name for tool in tools):
        return {"type": "function", "function": {"name": choice}}
    raise ValueError(f"tool_choice: {choice!r} is neither none, auto or required, nor the name of a tool")


def _response_format_json(wanted: str | Mapping[str, Any]) -> dict[str, Any]:
    """A JSON Schema needs a name here: its title, as far as that is one, else "answer"."""
    if isinstance(wanted, Mapping):
        name = re.sub(r"[^a-zA-Z0-9_-]+", "_", str(wanted.get("title") or ""))[:64].strip("_")
        return {"type": "json_schema", "json_schema": {"name": name or "answer", "schema": wanted}}
    if wanted in ("text", "json_object"):
        return {"type": wanted}
    raise ValueError(f'response_format: {wanted!r} is neither "text", "json_object" nor a JSON Schema')
