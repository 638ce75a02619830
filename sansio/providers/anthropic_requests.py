"""Requests in the format of Anthropic Messages: a batch becomes a JSON body.

The format knows turns, which alternate, made of blocks. So what the leading system messages say goes to the top, messages of
one role in a row are one turn, and the answers of tools are blocks of the user's.

Source: https://platform.claude.com/docs/en/api/messages, and the types of Anthropic's SDK.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from ..batch import CacheLifetime, ExecuteBatch, ImagePart, Message, TextPart, TokenEstimate, Tool, ToolCall
from .estimate import estimate_tokens, first_count

OLDEST_VERSION: Final = "2023-06-01"
LATEST_VERSION: Final = "2026-10-21"
"""The values of ``anthropic-version``. The latest refuses ``temperature`` and ``top_p``."""

DEFAULT_MAX_TOKENS: Final = 4096
"""``max_tokens``, which the format requires, where a batch does not say: what every model can be asked for."""

_CACHE_CONTROL: Final[Mapping[CacheLifetime, dict[str, Any]]] = {
    "short": {"type": "ephemeral"},
    "long": {"type": "ephemeral", "ttl": "1h"},
}
_MOST_CACHE_CONTROLS: Final = 4
"""A request with more is refused."""

_DATA_URL: Final = re.compile(r"data:([^;,]+)(?:;[^;,]+)*;base64,(.*)", re.IGNORECASE | re.DOTALL)

_Block: TypeAlias = dict[str, Any]


def messages_body(batch: ExecuteBatch, model: str, version: str, *, stream: bool) -> dict[str, Any]:
    """The body, ``extra`` last. Raises `ValueError` for what the format cannot express, naming the field."""
    _check_expressible(batch, version)
    system, turns = _conversation(batch.messages)
    body: dict[str, Any] = {"model": model, "max_tokens": batch.max_output_tokens or DEFAULT_MAX_TOKENS, "messages": turns}
    if system:
        body["system"] = system
    if batch.tools:
        body["tools"] = [_tool_json(tool) for tool in batch.tools]
    if (choice := _tool_choice_json(batch)) is not None:
        body["tool_choice"] = choice
    if (output := _output_config(batch)) is not None:
        body["output_config"] = output
    if batch.stop:
        body["stop_sequences"] = list(batch.stop)
    if batch.metadata:
        body["metadata"] = dict(batch.metadata)
    for name in ("temperature", "top_p"):
        if (value := getattr(batch, name)) is not None:
            body[name] = value
    if stream:
        body["stream"] = True
    body.update(batch.extra)
    if not body["model"]:
        raise ValueError("model: is empty; give the codec one")
    return body


def messages_estimate(batch: ExecuteBatch) -> TokenEstimate:
    """`estimate_tokens`, with the limit that is sent."""
    return estimate_tokens(
        batch, limit=first_count(batch.extra.get("max_tokens"), batch.max_output_tokens, DEFAULT_MAX_TOKENS)
    )


def _check_expressible(batch: ExecuteBatch, version: str) -> None:
    """Refuse what there are no words for. ``cache_key`` and an image's ``detail`` are hints, and are not told."""
    if version == LATEST_VERSION:
        for name in ("temperature", "top_p"):
            if getattr(batch, name) is not None:
                remedy = f"leave it out, or give the codec api_version={OLDEST_VERSION!r}"
                raise ValueError(f"{name}: anthropic-version {version} refuses it, whatever its value; {remedy}")
    if batch.seed is not None:
        raise ValueError("seed: the format has none; leave it out")
    if unknown := sorted(str(name) for name in batch.metadata if name != "user_id"):
        raise ValueError(f"metadata: {unknown[0]!r} cannot be sent; the format knows user_id only")


# ---- messages ----------------------------------------------------------------------------------------------------------


def _conversation(messages: Sequence[Message]) -> tuple[list[_Block], list[dict[str, Any]]]:
    """The blocks of the leading system messages, and the turns. A message that says nothing is left out."""
    system: list[_Block] = []
    turns: list[dict[str, Any]] = []
    marked: list[_Block] = []
    for message in messages:
        role, blocks = _blocks_of(message)
        if not blocks:
            continue
        if message.cache is not None and (last := _last_cacheable(blocks)) is not None:
            last["cache_control"] = dict(_CACHE_CONTROL[message.cache])
            marked.append(last)
        if role == "system" and not turns:
            system += blocks
        elif turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    if not turns:
        raise ValueError("messages: nothing is said by a user or an assistant; give at least one such Message")
    _check_later_system(turns)
    for turn in turns:
        turn["content"].sort(key=_comes_later)
    _thin_out(marked)
    return system, turns


def _comes_later(block: _Block) -> bool:
    """Whether a block comes after the answers of tools: the format wants those first in their turn."""
    return bool(block["type"] != "tool_result")


def _check_later_system(turns: Sequence[Mapping[str, Any]]) -> None:
    """After the conversation's beginning the format takes a system message behind a user's turn, before an assistant's or
    at the end (and of the newer models only, which is theirs to say)."""
    roles = [turn["role"] for turn in turns]
    for place, role in enumerate(roles):
        if role == "system" and (roles[place - 1] != "user" or roles[place + 1 : place + 2] == ["user"]):
            raise ValueError(
                "messages: a later system message stands after a user or tool message, and before an assistant's or last; "
                "move it there, or to the beginning"
            )


def _thin_out(marked: Sequence[_Block]) -> None:
    """Of too many cache marks the last ones stay, and of a short-lived one before a long-lived one the latter, as the format
    wants them: each stands for the whole prompt up to it."""
    kept, longer = 0, False
    for block in reversed(marked):
        is_long = "ttl" in block["cache_control"]
        if kept == _MOST_CACHE_CONTROLS or (longer and not is_long):
            del block["cache_control"]
        else:
            kept += 1
            longer = longer or is_long


def _last_cacheable(blocks: Sequence[_Block]) -> _Block | None:
    """The last block that may be marked; the model's thoughts may not."""
    return next((block for block in reversed(blocks) if block["type"] not in ("thinking", "redacted_thinking")), None)


def _blocks_of(message: Message) -> tuple[str, list[_Block]]:
    """Whose turn a message belongs to, and its blocks."""
    if message.name is not None and message.role != "tool":  # of a tool's answer the id says whose it is
        raise ValueError(f"name: {message.name!r} cannot be sent with the role {message.role}; say it in the text")
    match message.role:
        case "system" | "developer":
            return "system", _content_json(message, images=False)
        case "user":
            return "user", _content_json(message)
        case "tool":
            return "user", [_tool_result_json(message)]
        case "assistant":
            blocks = _thoughts_json(message) + _content_json(message, images=False)
            if message.refusal:
                blocks.append({"type": "text", "text": message.refusal})
            return "assistant", blocks + [_tool_use_json(call) for call in message.tool_calls]
        case _:
            raise ValueError(f"role: {message.role!r} is none of system, developer, user, assistant, tool")


def _content_json(message: Message, *, images: bool = True) -> list[_Block]:
    """The content without empty texts, which the format refuses."""
    parts = [TextPart(message.content)] if isinstance(message.content, str) else message.content
    blocks: list[_Block] = []
    for part in parts:
        if isinstance(part, TextPart):
            if part.text:
                blocks.append({"type": "text", "text": part.text})
        elif not isinstance(part, ImagePart):
            raise ValueError(f"content: {type(part).__name__} is neither a TextPart nor an ImagePart")
        elif not images:
            raise ValueError(f"content: an image cannot be sent with the role {message.role}; move it to a user message")
        else:
            blocks.append({"type": "image", "source": _image_source(part.url)})
    return blocks


def _image_source(url: str) -> dict[str, str]:
    if url[:5].lower() != "data:":
        return {"type": "url", "url": url}
    if (found := _DATA_URL.fullmatch(url)) is None:
        raise ValueError(f"content: {url[:40]!r} is not an image as data:…;base64,…")
    return {"type": "base64", "media_type": found[1], "data": found[2]}


def _thoughts_json(message: Message) -> list[_Block]:
    """What the model thought, as it came. Those with an id are of another provider's, which this one would refuse."""
    return [
        {"type": "redacted_thinking", "data": thought.signature}
        if thought.redacted
        else {"type": "thinking", "thinking": thought.text, "signature": thought.signature}
        for thought in message.thoughts
        if not thought.id
    ]


def _tool_result_json(message: Message) -> _Block:
    if not message.tool_call_id:
        raise ValueError("tool_call_id: a message with the role tool needs the id of the call it answers")
    out: _Block = {"type": "tool_result", "tool_use_id": message.tool_call_id}
    if content := _content_json(message):
        out["content"] = content
    if message.is_error:
        out["is_error"] = True
    return out


def _tool_use_json(call: ToolCall) -> _Block:
    """The arguments go back as the model wrote them: a prompt that changes is not found in the cache."""
    try:
        parsed = msgspec.json.decode(call.arguments or "{}")
    except (msgspec.MsgspecError, ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise ValueError(f"tool_calls: the arguments of {call.name!r} are no JSON object")
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": msgspec.Raw(call.arguments or "{}")}


# ---- options -----------------------------------------------------------------------------------------------------------


def _tool_json(tool: Tool) -> dict[str, Any]:
    out: dict[str, Any] = {"name": tool.name}
    if tool.description:
        out["description"] = tool.description
    out["input_schema"] = tool.parameters or {"type": "object", "properties": {}}
    if tool.strict is not None:
        out["strict"] = tool.strict
    return out


def _tool_choice_json(batch: ExecuteBatch) -> dict[str, Any] | None:
    """One of the common words, or the name of a tool; with it, that calls come one at a time."""
    choice = batch.tool_choice
    out: dict[str, Any] | None = None
    if choice in ("none", "auto"):
        out = {"type": choice}
    elif choice == "required":
        out = {"type": "any"}
    elif choice is not None and choice in (tool.name for tool in batch.tools):
        out = {"type": "tool", "name": choice}
    elif choice is not None:
        raise ValueError(f"tool_choice: {choice!r} is neither none, auto or required, nor the name of a tool")
    if batch.parallel_tool_calls is False and choice != "none" and (batch.tools or "tools" in batch.extra):
        out = (out or {"type": "auto"}) | {"disable_parallel_tool_use": True}
    return out


def _output_config(batch: ExecuteBatch) -> dict[str, Any] | None:
    out: dict[str, Any] = {}
    wanted = batch.response_format
    if isinstance(wanted, Mapping):
        out["format"] = {"type": "json_schema", "schema": wanted}
    elif wanted == "json_object":
        raise ValueError('response_format: "json_object" cannot be said in this format; give a JSON Schema')
    elif wanted not in (None, "text"):
        raise ValueError(f'response_format: {wanted!r} is neither "text" nor a JSON Schema')
    if batch.reasoning_effort is not None:
        out["effort"] = batch.reasoning_effort
    return out or None
