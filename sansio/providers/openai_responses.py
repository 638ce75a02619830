"""OpenAI's other API, Responses: what the conversation is made of are items, and what is streamed are named events.

`OpenAIResponses` is the codec. How a batch becomes a request stands here, how what comes back is read in
`responses_answers` (chunks) and `openai_errors`. Azure speaks it too (`azure`).

Nothing is decided for the caller: whether the provider keeps the response (``store``, which it does unless told not to) and
whether encrypted reasoning comes back (``include``) are for ``extra`` to say.

Source: https://developers.openai.com/api/reference/resources/responses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..batch import ExecuteBatch, ImagePart, Message, TextPart, Thought, TokenChunk, TokenEstimate, Tool
from ..errors import InferenceError
from ..http import Headers, HttpRequest
from ..rate_limit import RateLimitSnapshot
from ..rate_limit_headers import reader_for
from ..session import SessionSnapshot
from .estimate import estimate_tokens, first_count
from .lenient_json import as_dict
from .openai_errors import classify_response
from .request import check_base_url, check_strings, credential_header, json_body, json_headers
from .responses_answers import ResponsesStreamDecoder, decode_response


@dataclass(frozen=True, slots=True)
class OpenAIResponses:
    """The codec of the Responses API.

    model: what requests name; needed by `encode` only. endpoint: the base URL, as the official SDK has it (``…/v1``).
    organization, project: sent as ``OpenAI-Organization`` and ``OpenAI-Project`` where given.
    Raises `ValueError` naming the field.
    """

    model: str = ""
    endpoint: str = "https://api.openai.com/v1"
    organization: str | None = None
    project: str | None = None

    def __post_init__(self) -> None:
        check_strings(self, "model", optional=("organization", "project"))
        check_base_url(self.endpoint)

    @property
    def provider(self) -> str:
        """``"openai"``."""
        return "openai"

    def encode(self, batch: ExecuteBatch, session: SessionSnapshot, *, stream: bool = True) -> HttpRequest:
        """The request. Raises `ValueError` for what the API cannot express, naming the field."""
        headers = [credential_header(session.credential, "authorization"), *json_headers(stream=stream)]
        headers += [(f"openai-{name}", value) for name in ("organization", "project") if (value := getattr(self, name))]
        url = self.endpoint.rstrip("/") + "/responses"
        return HttpRequest("POST", url, tuple(headers), json_body(responses_body(batch, self.model, stream=stream)))

    def estimate(self, batch: ExecuteBatch) -> TokenEstimate:
        """`responses_estimate`."""
        return responses_estimate(batch)

    def stream_decoder(self, batch: ExecuteBatch | None = None) -> ResponsesStreamDecoder:
        """A fresh decoder for one stream. The API gives one answer, whatever ``batch`` asks for."""
        return ResponsesStreamDecoder(self.provider)

    def decode_unary(self, body: bytes, headers: Headers = ()) -> list[TokenChunk] | InferenceError:
        """The answer as one chunk (`decode_response`); or the error in the body, or that it is no answer at all."""
        return decode_response(self.provider, body)

    def classify(self, status: int, headers: Headers, body: bytes, unix_now: float) -> InferenceError:
        """What a response that is not an answer means, by status, body and headers."""
        seen = self.rate_limit_snapshot(headers, unix_now)
        return classify_response(self.provider, status, headers, body, unix_now, seen)

    def rate_limit_snapshot(self, headers: Headers, unix_now: float) -> RateLimitSnapshot | None:
        """What the headers say of the limits, in the dialect of the endpoint (`rate_limit_headers.reader_for`)."""
        return reader_for(self.endpoint)(headers, unix_now)


# ---------------------------------------------------------------------------------------------------------------------
# A batch becomes a JSON body


def responses_body(batch: ExecuteBatch, model: str, *, stream: bool) -> dict[str, Any]:
    """The body, ``extra`` last: it wins, but of ``text`` and ``reasoning`` only in what it names.

    Raises `ValueError` for what the API cannot express, naming the field.
    """
    if batch.stop:
        raise ValueError("stop: the Responses API takes no stop sequences; leave it out, or use Chat Completions")
    if batch.seed is not None:
        raise ValueError("seed: the Responses API takes none; leave it out, or use Chat Completions")
    body: dict[str, Any] = {"model": model, "input": [item for message in batch.messages for item in _items(message)]}
    if batch.tools:
        body["tools"] = [_tool_json(tool) for tool in batch.tools]
    if batch.tool_choice is not None:
        body["tool_choice"] = _tool_choice_json(batch.tool_choice, batch.tools)
    if batch.response_format is not None:
        body["text"] = {"format": _format_json(batch.response_format)}
    if batch.reasoning_effort is not None:
        body["reasoning"] = {"effort": batch.reasoning_effort}
    if batch.metadata:
        body["metadata"] = dict(batch.metadata)
    options = {
        "max_output_tokens": batch.max_output_tokens,
        "parallel_tool_calls": batch.parallel_tool_calls,
        "temperature": batch.temperature,
        "top_p": batch.top_p,
        "prompt_cache_key": batch.cache_key,
    }
    body.update((name, value) for name, value in options.items() if value is not None)
    if stream:
        body["stream"] = True
    written = {name: as_dict(body.get(name)) for name in ("text", "reasoning")}
    body.update(batch.extra)
    for name, own in written.items():
        if own and isinstance(given := batch.extra.get(name), Mapping):
            body[name] = {**own, **given}
    if not body["model"]:
        raise ValueError("model: is empty; give the codec one")
    return body


def responses_estimate(batch: ExecuteBatch) -> TokenEstimate:
    """`estimate_tokens`, with the limit in ``extra`` before that of the batch."""
    return estimate_tokens(batch, limit=first_count(batch.extra.get("max_output_tokens"), batch.max_output_tokens))


def _items(message: Message) -> list[dict[str, Any]]:
    """The items of one message: an assistant's reasoning, text and calls are items of their own, in this order."""
    if message.name is not None:
        raise ValueError("name: the Responses API takes none; leave it out, or say it in the content")
    if message.role == "tool":
        return [_tool_result(message)]
    if message.role == "assistant":
        thoughts = [_thought_json(thought) for thought in message.thoughts if thought.id or thought.signature]
        calls = [
            {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments}
            for call in message.tool_calls
        ]
        parts = _said_parts(message)
        said = [{"type": "message", "role": "assistant", "content": parts}] if parts or not (thoughts or calls) else []
        return [*thoughts, *said, *calls]
    if message.role not in ("system", "developer", "user"):
        raise ValueError(f"role: {message.role!r} is none of system, developer, user, assistant, tool")
    return [{"type": "message", "role": message.role, "content": _content_json(message)}]


def _tool_result(message: Message) -> dict[str, Any]:
    if not message.tool_call_id:
        raise ValueError("tool_call_id: a message with the role tool needs the id of the call it answers")
    output = message.content if isinstance(message.content, str) else _content_json(message)
    return {"type": "function_call_output", "call_id": message.tool_call_id, "output": output}


def _thought_json(thought: Thought) -> dict[str, Any]:
    """What is shown of a thought is its summary. Its id is known to the provider only where it has kept the response."""
    item: dict[str, Any] = {"type": "reasoning"}
    if thought.id:
        item["id"] = thought.id
    item["summary"] = [{"type": "summary_text", "text": thought.text}] if thought.text else []
    if thought.signature:
        item["encrypted_content"] = thought.signature
    return item


def _said_parts(message: Message) -> list[dict[str, Any]]:
    """What an assistant said, which has types of its own."""
    parts: list[dict[str, Any]] = []
    for part in _content(message):
        if not isinstance(part, TextPart):
            raise ValueError(
                f"content: {type(part).__name__} is not a TextPart, which is all an assistant's message can hold"
            )
        parts.append({"type": "output_text", "text": part.text})
    if message.refusal is not None:
        parts.append({"type": "refusal", "refusal": message.refusal})
    return parts


def _content_json(message: Message) -> list[dict[str, Any]]:
    return [_part_json(part) for part in _content(message)]


def _content(message: Message) -> Sequence[object]:
    """The content in parts; an empty one has none."""
    if isinstance(message.content, str):
        return [TextPart(message.content)] if message.content else []
    return message.content


def _part_json(part: object) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "input_text", "text": part.text}
    if isinstance(part, ImagePart):
        return {"type": "input_image", "image_url": part.url} | ({"detail": part.detail} if part.detail else {})
    raise ValueError(f"content: {type(part).__name__} is neither a TextPart nor an ImagePart")


def _tool_json(tool: Tool) -> dict[str, Any]:
    """Flat, where Chat Completions puts all but the type under ``function``. ``parameters`` must be there."""
    function: dict[str, Any] = {"type": "function", "name": tool.name, "parameters": tool.parameters or None}
    if tool.description:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return function


def _tool_choice_json(choice: str, tools: Sequence[Tool]) -> str | dict[str, Any]:
    """One of the API's own words, or the name of a tool."""
    if choice in ("none", "auto", "required"):
        return choice
    if choice in (tool.name for tool in tools):
        return {"type": "function", "name": choice}
    raise ValueError(f"tool_choice: {choice!r} is neither none, auto or required, nor the name of a tool")


def _format_json(wanted: str | Mapping[str, Any]) -> dict[str, Any]:
    """A JSON Schema needs a name here: its title, as far as that is one, else "answer"."""
    if isinstance(wanted, Mapping):
        name = re.sub(r"[^a-zA-Z0-9_-]+", "_", str(wanted.get("title") or ""))[:64].strip("_")
        return {"type": "json_schema", "name": name or "answer", "schema": wanted}
    if wanted in ("text", "json_object"):
        return {"type": wanted}
    raise ValueError(f'response_format: {wanted!r} is neither "text", "json_object" nor a JSON Schema')
