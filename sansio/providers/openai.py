"""OpenAI Chat Completions, and the many servers that speak its dialects (Azure, Groq, Mistral, Together, vLLM, LiteLLM …).

`OpenAIChat` is the codec. What it sends is here; what comes back is read in `openai_answers` (chunks) and `openai_errors`.

Source: https://developers.openai.com/api/reference/resources/chat.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from .._version import __version__
from ..batch import ExecuteBatch, ImagePart, Message, TextPart, TokenChunk, TokenEstimate, Tool
from ..classify import retry_after_from_headers, should_retry_from_headers
from ..errors import InferenceError, RateLimited
from ..http import Headers, HttpRequest, parse_origin
from ..rate_limit import RateLimitSnapshot
from ..rate_limit_headers import reader_for
from ..session import SessionSnapshot
from .openai_answers import ChatStreamDecoder, decode_answer
from .openai_errors import provider_error, read_error

USER_AGENT: Final = f"inference-remote-core/{__version__}"
"""What requests call their sender."""

DEFAULT_OUTPUT_TOKENS: Final = 1024
"""The output a request without ``max_output_tokens`` is expected to use, for each answer it asks for."""

_IMAGE_TOKENS: Final = 1000
"""About what one image costs: a square picture of 1,024 pixels in high detail is 765 tokens, with ``detail: "low"`` 85."""

_MESSAGE_TOKENS: Final = 4
"""What role and delimiters add to each message, and to the start of the answer."""


@dataclass(frozen=True, slots=True)
class OpenAIChat:
    """The codec of Chat Completions, for OpenAI and whatever speaks its format.

    model: what requests name; needed by `encode` only. endpoint: the base URL, as the official SDK has it (``…/v1``).
    organization, project: sent as ``OpenAI-Organization`` and ``OpenAI-Project`` where given.
    Raises `ValueError` naming the field.
    """

    model: str = ""
    endpoint: str = "https://api.openai.com/v1"
    organization: str | None = None
    project: str | None = None

    def __post_init__(self) -> None:
        for name in ("model", "endpoint", "organization", "project"):
            value = getattr(self, name)
            if not isinstance(value, str) and (value is not None or name in ("model", "endpoint")):
                raise ValueError(f"{name}: {value!r} is not a string")
        try:
            parse_origin(self.endpoint)
        except ValueError as error:
            raise ValueError(f"endpoint: {error}") from None
        if "?" in self.endpoint or "#" in self.endpoint:
            raise ValueError(f"endpoint: {self.endpoint!r} holds a query or a fragment; a path is added to it")

    @property
    def provider(self) -> str:
        """``"openai"``."""
        return "openai"

    def encode(self, batch: ExecuteBatch, session: SessionSnapshot, *, stream: bool = True) -> HttpRequest:
        """The request. Raises `ValueError` for what the format cannot express, naming the field."""
        headers = [
            ("authorization", f"Bearer {session.credential.reveal()}"),
            ("content-type", "application/json"),
            ("accept", "text/event-stream" if stream else "application/json"),
            ("user-agent", USER_AGENT),
        ]
        headers += [(f"openai-{name}", value) for name in ("organization", "project") if (value := getattr(self, name))]
        url = self.endpoint.rstrip("/") + "/chat/completions"
        return HttpRequest("POST", url, tuple(headers), self.body(batch, stream=stream))

    def body(self, batch: ExecuteBatch, *, stream: bool) -> bytes:
        """The JSON body of `encode`."""
        body: dict[str, Any] = {"model": self.model, "messages": [_message_json(message) for message in batch.messages]}
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
        }
        body.update((name, value) for name, value in options.items() if value is not None)
        if stream:
            body["stream"] = True
            body["stream_options"] = {"include_usage": True}
        body.update(batch.extra)
        if not body["model"]:
            raise ValueError("model: is empty; give the codec one")
        try:
            return msgspec.json.encode(body)
        except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
            raise ValueError(f"batch: cannot be written as JSON: {error}") from None

    def estimate(self, batch: ExecuteBatch) -> TokenEstimate:
        """About a token for four bytes of text, a few for each message, and a flat thousand for each image.

        The output is ``max_output_tokens``, else a guess of `DEFAULT_OUTPUT_TOKENS`, for each choice; ``extra`` is heard
        (``n``, and both names of the limit).
        """
        bytes_of_text, images = 0, 0
        for message in batch.messages:
            if isinstance(message.content, str):
                bytes_of_text += _length(message.content)
            else:
                images += sum(isinstance(part, ImagePart) for part in message.content)
                bytes_of_text += sum(_length(part.text) for part in message.content if isinstance(part, TextPart))
            bytes_of_text += sum(_length(call.name) + _length(call.arguments) for call in message.tool_calls)
        for tool in batch.tools:
            bytes_of_text += _length(tool.name) + _length(tool.description) + _length(repr(tool.parameters))
        if isinstance(batch.response_format, Mapping):
            bytes_of_text += _length(repr(batch.response_format))
        overhead = _MESSAGE_TOKENS * (len(batch.messages) + 1)
        limits = (batch.extra.get("max_completion_tokens"), batch.extra.get("max_tokens"), batch.max_output_tokens)
        limit = next((limit for limit in limits if type(limit) is int and limit > 0), None)
        return TokenEstimate(
            input_tokens=-(-bytes_of_text // 4) + overhead + images * _IMAGE_TOKENS,
            output_tokens=(DEFAULT_OUTPUT_TOKENS if limit is None else limit) * _choices(batch),
            output_is_limit=limit is not None,
        )

    def stream_decoder(self, batch: ExecuteBatch | None = None) -> ChatStreamDecoder:
        """A fresh decoder for one stream, which is complete with all the choices that ``batch`` asks for."""
        return ChatStreamDecoder(self.provider, 1 if batch is None else _choices(batch))

    def decode_unary(self, body: bytes) -> list[TokenChunk] | InferenceError:
        """One chunk per choice, the usage on the first; or the error in the body, or that it is no answer at all."""
        return decode_answer(self.provider, body)

    def classify(self, status: int, headers: Headers, body: bytes, unix_now: float) -> InferenceError:
        """What a response that is not an answer means, by status, body and headers.

        The hint is that of the headers, else the one in a 429's message, else the reset of an exhausted limit.
        """
        said = read_error(body)
        in_band = 200 <= status < 300 and said.explicit
        error = provider_error(
            self.provider,
            said.status if in_band else status,
            said,
            body,
            retry_after=retry_after_from_headers(headers, unix_now),
            provider_request_id=_first(headers, "x-request-id") or _first(headers, "apim-request-id"),
            should_retry=should_retry_from_headers(headers),
        )
        if isinstance(error, RateLimited) and error.retry_after is None:
            error.retry_after = self._reset_hint(headers, unix_now)
        return error

    def rate_limit_snapshot(self, headers: Headers, unix_now: float) -> RateLimitSnapshot | None:
        """What the headers say of the limits, in the dialect of the endpoint (`rate_limit_headers.reader_for`)."""
        return reader_for(self.endpoint)(headers, unix_now)

    def _reset_hint(self, headers: Headers, unix_now: float) -> float | None:
        seen = self.rate_limit_snapshot(headers, unix_now) or RateLimitSnapshot()
        resets = [
            dimension.reset_after
            for dimension in (seen.requests, seen.tokens)
            if dimension is not None and dimension.remaining == 0 and dimension.reset_after is not None
        ]
        return max(resets, default=None)


def _choices(batch: ExecuteBatch) -> int:
    """How many answers are asked for: ``extra["n"]``, where it is a count."""
    choices = batch.extra.get("n")
    return choices if type(choices) is int and choices > 0 else 1


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


def _length(text: str) -> int:
    """Bytes of UTF-8: characters outside ASCII take more tokens, and more bytes."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _first(headers: Headers, name: str) -> str | None:
    return next((value for key, value in headers if key.lower() == name), None)
