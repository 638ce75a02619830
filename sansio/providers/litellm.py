"""LiteLLM's proxy: Chat Completions in front of whatever provider, with keys, budgets and retries of its own.

Requests and answers are OpenAI's (`openai_requests`, `openai_answers`). What is different: the key may travel in any of six
headers; tags, the end user and the proxy's own retries go in headers too; each answer says what it cost; and errors carry
types of the proxy's, some of them under a status that says something else.

The proxy retries and falls back by itself (twice, unless it is told otherwise): a deployment of this provider retries once.

Source: LiteLLM 1.109.1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from ..batch import ExecuteBatch, TokenChunk, TokenEstimate, TokenUsage
from ..classify import first_header
from ..errors import InferenceError, ProtocolError
from ..http import Headers, HttpRequest
from ..rate_limit import RateLimitSnapshot
from ..rate_limit_headers import litellm
from ..scrub import excerpt
from ..session import SessionSnapshot
from ..sse import SseChunk
from .lenient_json import as_dict, loads
from .openai_answers import ChatStreamDecoder, decode_answer
from .openai_errors import ErrorSaid, classify_response, provider_error, read_error
from .openai_requests import chat_body, chat_choices, chat_estimate
from .request import check_base_url, check_strings, credential_header, json_body, json_headers

_PROVIDER: Final = "litellm"

KEY_HEADERS: Final = (
    *("authorization", "api-key", "x-api-key", "x-goog-api-key", "ocp-apim-subscription-key", "x-litellm-api-key"),
)
"""Where the proxy looks for its key. All but the first leave ``authorization`` to a gateway in front of it."""

_SENDABLE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
"""What a header can carry to anybody: visible ASCII, and spaces inside."""


@dataclass(frozen=True, slots=True)
class LiteLLMChat:
    """The codec of a LiteLLM proxy.

    model: a model group of the proxy; needed by `encode` only. endpoint: the proxy's base URL, as one gives it to OpenAI's
    SDK. tags: labels for its spend reports and tag routing. key_header: one of `KEY_HEADERS`. end_user: on whose behalf it
    is asked: the proxy counts spend and budgets by it. num_retries: how often the proxy itself tries again. timeout: seconds
    it gives a provider. What is for one request alone goes into ``extra`` (``fallbacks``, ``disable_fallbacks``, ``tags``…).
    Raises `ValueError` naming the field.
    """

    model: str = ""
    endpoint: str = "http://localhost:4000"
    tags: Sequence[str] = ()
    key_header: str = "authorization"
    end_user: str | None = None
    num_retries: int | None = None
    timeout: float | None = None

    def __post_init__(self) -> None:
        check_strings(self, "model", "key_header", optional=("end_user",))
        check_base_url(self.endpoint)
        if self.key_header not in KEY_HEADERS:
            raise ValueError(f"key_header: {self.key_header!r} is none of {', '.join(KEY_HEADERS)}")
        if isinstance(self.tags, str) or not isinstance(self.tags, Sequence):
            raise ValueError(f"tags: {self.tags!r} is not a list of tags")
        for tag in self.tags:
            if not isinstance(tag, str) or not _SENDABLE.fullmatch(tag) or "," in tag:
                raise ValueError(f"tags: {tag!r} is not a tag: visible ASCII without a comma")
        object.__setattr__(self, "tags", tuple(self.tags))
        if self.end_user is not None and not _SENDABLE.fullmatch(self.end_user):
            raise ValueError(f"end_user: {self.end_user!r} is not visible ASCII")
        if self.num_retries is not None and (type(self.num_retries) is not int or self.num_retries < 0):
            raise ValueError(f"num_retries: {self.num_retries!r} is not a whole number of at least 0")
        if self.timeout is not None and not (type(self.timeout) in (int, float) and 0 < self.timeout < math.inf):
            raise ValueError(f"timeout: {self.timeout!r} is not a number of seconds above 0")

    @property
    def provider(self) -> str:
        """``"litellm"``."""
        return _PROVIDER

    def encode(self, batch: ExecuteBatch, session: SessionSnapshot, *, stream: bool = True) -> HttpRequest:
        """The request. Raises `ValueError` for what the format cannot express, naming the field."""
        headers = [credential_header(session.credential, self.key_header), *json_headers(stream=stream)]
        if self.tags:
            headers.append(("x-litellm-tags", ",".join(self.tags)))
        if self.end_user is not None:
            headers.append(("x-litellm-end-user-id", self.end_user))
        if self.num_retries is not None:
            headers.append(("x-litellm-num-retries", str(self.num_retries)))
        if self.timeout is not None:
            headers.append(("x-litellm-timeout", str(self.timeout)))
        url = self.endpoint.rstrip("/") + "/chat/completions"
        return HttpRequest("POST", url, tuple(headers), json_body(chat_body(batch, self.model, stream=stream)))

    def estimate(self, batch: ExecuteBatch) -> TokenEstimate:
        """`chat_estimate`."""
        return chat_estimate(batch)

    def stream_decoder(self, batch: ExecuteBatch | None = None) -> LiteLLMStreamDecoder:
        """A fresh decoder for one stream, which is complete with all the choices that ``batch`` asks for."""
        return LiteLLMStreamDecoder(1 if batch is None else chat_choices(batch))

    def decode_unary(self, body: bytes, headers: Headers = ()) -> list[TokenChunk] | InferenceError:
        """One chunk per choice, the usage on the first, with what the headers say it cost; or the error in the body."""
        chunks = decode_answer(_PROVIDER, body)
        if isinstance(chunks, InferenceError):
            return chunks if isinstance(chunks, ProtocolError) else _error_in(body)
        usage, cost = chunks[0].usage, _usd(first_header(headers, "x-litellm-response-cost"))
        if usage is not None and cost is not None:
            chunks[0] = msgspec.structs.replace(chunks[0], usage=replace(usage, cost_usd=cost))
        return chunks

    def classify(self, status: int, headers: Headers, body: bytes, unix_now: float) -> InferenceError:
        """What a response that is not an answer means, by status, the proxy's own types, body and headers."""
        said = read_error(body)
        sent = said.status if 200 <= status < 300 and said.explicit else status
        seen = self.rate_limit_snapshot(headers, unix_now)
        meant = _meant(said, sent)
        error = classify_response(_PROVIDER, status if meant is None else meant, headers, body, unix_now, seen)
        error.status = sent
        if (call_id := first_header(headers, "x-litellm-call-id")) is not None and error.provider_request_id is None:
            error.provider_request_id = excerpt(call_id)
        return _with_hint(error, said)

    def rate_limit_snapshot(self, headers: Headers, unix_now: float) -> RateLimitSnapshot | None:
        """Of the proxy's own limits and those of the provider behind it, the tightest."""
        return litellm(headers, unix_now)


class LiteLLMStreamDecoder:
    """Decodes the events of one stream. See `sansio.codec.StreamDecoder` for what its attributes mean.

    OpenAI's frames, with two things read besides: what the answer cost (``usage.cost``, which the proxy sends only where it
    is configured to), and the proxy's types of errors. ``[DONE]`` comes after an error too, and proves nothing.
    """

    __slots__ = ("_frames", "complete", "error", "terminal", "usage")

    def __init__(self, choices: int = 1) -> None:
        self.error: InferenceError | None = None
        self.complete = False
        self.terminal = False
        self.usage: TokenUsage | None = None
        self._frames = ChatStreamDecoder(_PROVIDER, choices)

    def decode(self, events: Sequence[SseChunk]) -> list[TokenChunk]:
        """The chunks of these events: one per choice and frame that says something, in order."""
        frames = self._frames
        chunks: list[TokenChunk] = []
        for event in events:
            usage_before, error_before = frames.usage, frames.error
            chunks += frames.decode((event,))
            if frames.usage is not usage_before:
                self._take_usage(event, chunks)
            if frames.error is not error_before:
                self.error = frames.error if isinstance(frames.error, ProtocolError) else _error_in(event.data)
        self.complete, self.terminal = frames.complete, frames.terminal
        return chunks

    def _take_usage(self, event: SseChunk, chunks: list[TokenChunk]) -> None:
        """A usage came, in the last of the chunks unless there was an error beside it."""
        usage = self.usage = self._frames.usage
        cost = _usd(as_dict(as_dict(loads(event.data)).get("usage")).get("cost"))
        if usage is None or cost is None:
            return
        self.usage = replace(usage, cost_usd=cost)
        if chunks and chunks[-1].usage is usage:
            chunks[-1] = msgspec.structs.replace(chunks[-1], usage=self.usage)


# ---------------------------------------------------------------------------------------------------------------------
# Errors

_STATUS_OF_TYPE: Final[Mapping[str, int]] = {
    **{f"{whose}_model_access_denied": 403 for whose in ("key", "team", "user", "org", "project")},
    **dict.fromkeys(("expired_key", "token_not_found_in_db"), 401),
    "no_db_connection": 503,
}
"""The proxy's own types, and the status that says what they mean: it sends them with this one and that. (``budget_exceeded``
is one as well: `openai_errors` knows it under any status.)"""

_STATUS_OF_EXCEPTION: Final[Mapping[str, int]] = {
    **dict.fromkeys(
        ("BadRequestError", "UnsupportedParamsError", "ContextWindowExceededError", "ContentPolicyViolationError"), 400
    ),
    "AuthenticationError": 401,
    "PermissionDeniedError": 403,
    "NotFoundError": 404,
    "Timeout": 408,
    "UnprocessableEntityError": 422,
    "RateLimitError": 429,
    **dict.fromkeys(("InternalServerError", "APIConnectionError", "APIError"), 500),
    "BadGatewayError": 502,
    **dict.fromkeys(("ServiceUnavailableError", "MidStreamFallbackError"), 503),
}
"""The exceptions that messages begin with ("litellm.RateLimitError: …"), asked where an error names no status."""

_EXCEPTION: Final = re.compile(r"litellm\.([A-Za-z]{1,60}):")
_COOLS_DOWN: Final = re.compile(
    r"no deployments available\b.*?\btry again in ([0-9]{1,6}(?:\.[0-9]{1,9})?) second", re.I | re.S
)


def _meant(said: ErrorSaid, status: int | None) -> int | None:
    """The status that says what an error means: its type's; else the one it came with or names; else its exception's."""
    for code in said.codes:
        if (of_type := _STATUS_OF_TYPE.get(code)) is not None:
            return of_type
    if status is not None:
        return status
    raised = _EXCEPTION.match(said.message)
    return None if raised is None else _STATUS_OF_EXCEPTION.get(raised[1])


def _error_in(body: str | bytes) -> InferenceError:
    """What an error frame of a stream means, or the error in the body of a 200."""
    said = read_error(body)
    error = provider_error(_PROVIDER, _meant(said, said.status), said, body)
    error.status = said.status
    return _with_hint(error, said)


def _with_hint(error: InferenceError, said: ErrorSaid) -> InferenceError:
    """Where all deployments of a model cool down, the message says for how long."""
    if error.retry_after is None and (found := _COOLS_DOWN.search(said.message)):
        error.retry_after = float(found[1])
    return error


_NUMBER: Final = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,40})?(?:[eE][+-]?[0-9]{1,3})?")


def _usd(value: object) -> float | None:
    """An amount in US dollars, as JSON or a header has it; ``None`` for what is none."""
    if isinstance(value, str):
        value = float(value) if _NUMBER.fullmatch(value.strip()) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _LARGEST_USD:
        return None
    return float(value)


_LARGEST_USD: Final = 1e9
"""No answer comes near."""
