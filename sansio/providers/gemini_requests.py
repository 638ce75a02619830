"""Requests in Gemini's format: a batch becomes a JSON body, for AI Studio and Vertex alike.

What the format has no word for is not sent. It is an error where it would change what comes back, as an image among the
instructions or a refusal of parallel calls would; it is passed over where it is a hint or an annotation: `Message.cache`
and `ExecuteBatch.cache_key` (Gemini caches by itself; a cache of one's own is named in ``extra["cachedContent"]``),
`ImagePart.detail`, and the name of whoever speaks.

Source: https://ai.google.dev/api/generate-content.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast
from urllib.parse import unquote_to_bytes

from ..batch import ExecuteBatch, ImagePart, Message, TextPart, Thought, TokenEstimate, Tool, ToolCall
from .estimate import estimate_tokens, first_count
from .lenient_json import is_object, loads

_MEDIA_TYPES: Final[Mapping[str, str]] = {
    "png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "webp": "image/webp", "gif": "image/gif",
    "heic": "image/heic", "heif": "image/heif", "avif": "image/avif", "bmp": "image/bmp", "pdf": "application/pdf",
}  # fmt: skip
"""What an image by URL is called by the end of its path. Vertex insists on it; without a known end it is left out."""

_DATA_URL: Final = re.compile(r"data:([^;,]+)((?:;[^;,]*)*),(.*)", re.DOTALL)
"""RFC 2397: the media type, its parameters (``;base64`` the last), the data."""

_MODES: Final[Mapping[str, str]] = {"auto": "AUTO", "none": "NONE", "required": "ANY"}


def gemini_body(batch: ExecuteBatch, *, labels: bool) -> dict[str, Any]:
    """The body. Raises `ValueError` for what the format cannot express, naming the field.

    ``extra`` comes last and wins; only its ``generationConfig`` is merged into the one written here, whose settings are too
    many to be given twice. labels: whether metadata can be sent.
    """
    if batch.parallel_tool_calls is False:
        raise ValueError("parallel_tool_calls: False cannot be said to Gemini; leave it out")
    if batch.metadata and not labels:
        raise ValueError("metadata: Gemini takes it on Vertex only (as labels); leave it out")
    body: dict[str, Any] = {"contents": _contents(batch.messages)}
    if instructions := _instructions(batch.messages):
        body["systemInstruction"] = {"parts": instructions}
    if batch.tools:
        body["tools"] = [{"functionDeclarations": [_declaration(tool) for tool in batch.tools]}]
    if (calling := _calling_config(batch.tool_choice, batch.tools)) is not None:
        body["toolConfig"] = {"functionCallingConfig": calling}
    if batch.metadata:
        body["labels"] = dict(batch.metadata)
    config = _generation_config(batch)
    extra = dict(batch.extra)
    own = extra.get("generationConfig")
    if isinstance(own, Mapping):
        extra["generationConfig"] = config | dict(cast("Mapping[str, Any]", own))
    elif config:
        body["generationConfig"] = config
    return body | extra


def gemini_choices(batch: ExecuteBatch) -> int:
    """How many answers are asked for: ``candidateCount`` in ``extra["generationConfig"]``, where it is a count."""
    return first_count(_own_config(batch).get("candidateCount")) or 1


def gemini_estimate(batch: ExecuteBatch) -> TokenEstimate:
    """`estimate_tokens`, with the limit that ``extra`` may have set too, for each choice."""
    limit = first_count(_own_config(batch).get("maxOutputTokens"), batch.max_output_tokens)
    return estimate_tokens(batch, limit=limit, choices=gemini_choices(batch))


def _own_config(batch: ExecuteBatch) -> Mapping[str, Any]:
    own = batch.extra.get("generationConfig")
    return cast("Mapping[str, Any]", own) if isinstance(own, Mapping) else {}


# ---------------------------------------------------------------------------------------------------------------------
# Messages


def _instructions(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """All that system and developers say, wherever it stands: there is one place for it, before the conversation."""
    spoken = [message for message in messages if message.role in ("system", "developer")]
    parts = [part for message in spoken for part in _content_parts(message)]
    if not all("text" in part for part in parts):
        raise ValueError("content: Gemini takes only text from the roles system and developer; give images to a user")
    return parts


def _contents(messages: Sequence[Message]) -> list[dict[str, Any]]:
    contents: list[dict[str, Any]] = []
    called: dict[str, str] = {}
    answering = False
    for message in messages:
        if message.role in ("system", "developer"):
            continue
        if message.role == "tool":
            part = _function_response(message, called)
            if answering:  # calls made together are answered together, in one turn
                contents[-1]["parts"].append(part)
            else:
                contents.append({"role": "user", "parts": [part]})
        elif message.role == "assistant":
            contents.append({"role": "model", "parts": _model_parts(message)})
            called.update((call.id, call.name) for call in message.tool_calls)
        elif message.role == "user":
            contents.append({"role": "user", "parts": _content_parts(message) or [{"text": ""}]})
        else:
            raise ValueError(f"role: {message.role!r} is none of system, developer, user, assistant, tool")
        answering = message.role == "tool"
    if not contents:
        raise ValueError("messages: hold instructions only; Gemini wants a message of the role user, too")
    return contents


def _model_parts(message: Message) -> list[dict[str, Any]]:
    """What the model said, in the order in which it says it: thoughts, text, calls.

    A signature without a text came with the answer's, and goes back beside it, in a part of its own.
    """
    shown = [thought for thought in message.thoughts if thought.text]
    silent = [thought for thought in message.thoughts if thought.signature and not thought.text]
    parts = [_thought_part(thought) for thought in shown]
    parts += _content_parts(message)
    if message.refusal:
        parts.append({"text": message.refusal})
    parts += [{"text": "", "thoughtSignature": thought.signature} for thought in silent]
    parts += [_call_part(call) for call in message.tool_calls]
    return parts or [{"text": ""}]


def _thought_part(thought: Thought) -> dict[str, Any]:
    part: dict[str, Any] = {"text": thought.text, "thought": True}
    return part | {"thoughtSignature": thought.signature} if thought.signature else part


def _call_part(call: ToolCall) -> dict[str, Any]:
    arguments = loads(call.arguments or "{}")
    if not is_object(arguments):
        raise ValueError(f"tool_calls: the arguments of {call.name!r} are not a JSON object, which Gemini wants")
    function: dict[str, Any] = {"id": call.id} if call.id else {}
    part: dict[str, Any] = {"functionCall": {**function, "name": call.name, "args": arguments}}
    return part | {"thoughtSignature": call.signature} if call.signature else part


def _function_response(message: Message, called: Mapping[str, str]) -> dict[str, Any]:
    """The result of a call, under its function's name: the message's own, else that of the call it answers."""
    if not message.tool_call_id:
        raise ValueError("tool_call_id: a message with the role tool needs the id of the call it answers")
    name = message.name or called.get(message.tool_call_id)
    if not name:
        raise ValueError(
            f"name: Gemini wants the function's; no earlier message has a call with the id {message.tool_call_id!r}, "
            "so give it in the message"
        )
    parts = _content_parts(message)
    if not all("text" in part for part in parts):
        raise ValueError("content: an image in a message with the role tool cannot be said; give it to a user")
    text = "".join(part["text"] for part in parts)
    said = loads(text)
    response = said if is_object(said) and not message.is_error else {"error" if message.is_error else "result": text}
    return {"functionResponse": {"id": message.tool_call_id, "name": name, "response": response}}


def _content_parts(message: Message) -> list[dict[str, Any]]:
    if isinstance(message.content, str):
        return [{"text": message.content}] if message.content else []
    return [_part(part) for part in message.content]


def _part(part: object) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"text": part.text}
    if isinstance(part, ImagePart):
        return _image_part(part.url)
    raise ValueError(f"content: {type(part).__name__} is neither a TextPart nor an ImagePart")


def _image_part(url: str) -> dict[str, Any]:
    """An image within its URL goes along; one elsewhere is fetched by Google, by the type that its path ends in."""
    scheme = url.partition(":")[0].lower()
    if scheme == "data":
        return {"inlineData": _inline_data(url)}
    if scheme not in ("https", "http", "gs"):
        raise ValueError(f"content: {url[:40]!r} is no image for Gemini; give a URL with data:, https: or gs:")
    path = re.split("[?#]", url, maxsplit=1)[0]
    media_type = _MEDIA_TYPES.get(path.rpartition(".")[2].lower())
    return {"fileData": ({"mimeType": media_type} if media_type else {}) | {"fileUri": url}}


def _inline_data(url: str) -> dict[str, str]:
    found = _DATA_URL.fullmatch(url[:5].lower() + url[5:])
    if found is None:
        raise ValueError(f"content: {url[:40]!r} is not a data: URL with a media type (RFC 2397)")
    media_type, parameters, data = found.groups()
    if not parameters.lower().endswith(";base64"):
        data = base64.b64encode(unquote_to_bytes(data)).decode("ascii")
    return {"mimeType": media_type, "data": data}


# ---------------------------------------------------------------------------------------------------------------------
# Tools and settings


def _declaration(tool: Tool) -> dict[str, Any]:
    """``parametersJsonSchema`` rather than ``parameters``: the latter takes only some of what a JSON Schema may hold, in
    words of its own, and answers 400 to the rest (``$ref``, ``additionalProperties``, ``const`` …)."""
    declared: dict[str, Any] = {"name": tool.name}
    if tool.description:
        declared["description"] = tool.description
    if tool.parameters:
        declared["parametersJsonSchema"] = tool.parameters
    return declared


def _calling_config(choice: str | None, tools: Sequence[Tool]) -> dict[str, Any] | None:
    """One of the common words, or the name of a tool. Where a tool is strict and may be called, so is the mode."""
    if choice is not None and choice not in _MODES:
        if choice not in (tool.name for tool in tools):
            raise ValueError(f"tool_choice: {choice!r} is neither none, auto or required, nor the name of a tool")
        return {"mode": "ANY", "allowedFunctionNames": [choice]}
    if choice in (None, "auto") and any(tool.strict for tool in tools):
        return {"mode": "VALIDATED"}
    return None if choice is None else {"mode": _MODES[choice]}


def _generation_config(batch: ExecuteBatch) -> dict[str, Any]:
    options: dict[str, Any] = {
        "maxOutputTokens": batch.max_output_tokens,
        "temperature": batch.temperature,
        "topP": batch.top_p,
        "stopSequences": list(batch.stop) or None,
        "seed": batch.seed,
    }
    config = {name: value for name, value in options.items() if value is not None}
    wanted = batch.response_format
    if isinstance(wanted, Mapping):
        config |= {"responseMimeType": "application/json", "responseJsonSchema": wanted}
    elif wanted in ("text", "json_object"):
        config["responseMimeType"] = "text/plain" if wanted == "text" else "application/json"
    elif wanted is not None:
        raise ValueError(f'response_format: {wanted!r} is neither "text", "json_object" nor a JSON Schema')
    if batch.reasoning_effort is not None:
        config["thinkingConfig"] = {"thinkingLevel": batch.reasoning_effort, "includeThoughts": True}
    return config
