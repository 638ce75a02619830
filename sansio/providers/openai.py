"""OpenAI Chat Completions, and the many servers that speak it as it is (vLLM, Groq, Together, DeepSeek, OpenRouter …).

`OpenAIChat` is the codec. How a batch becomes a request stands in `openai_requests`, how what comes back is read in
`openai_answers` (chunks) and `openai_errors`. Other dialects are codecs of their own, from the same parts.

Source: https://developers.openai.com/api/reference/resources/chat.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..batch import ExecuteBatch, TokenChunk, TokenEstimate
from ..errors import InferenceError
from ..http import Headers, HttpRequest
from ..rate_limit import RateLimitSnapshot
from ..rate_limit_headers import reader_for
from ..session import SessionSnapshot
from .openai_answers import ChatStreamDecoder, decode_answer
from .openai_errors import classify_response
from .openai_requests import chat_body, chat_choices, chat_estimate
from .request import check_base_url, check_strings, credential_header, json_body, json_headers


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
        check_strings(self, "model", optional=("organization", "project"))
        check_base_url(self.endpoint)

    @property
    def provider(self) -> str:
        """``"openai"``."""
        return "openai"

    def encode(self, batch: ExecuteBatch, session: SessionSnapshot, *, stream: bool = True) -> HttpRequest:
        """The request. Raises `ValueError` for what the format cannot express, naming the field."""
        headers = [credential_header(session.credential, "authorization"), *json_headers(stream=stream)]
        headers += [(f"openai-{name}", value) for name in ("organization", "project") if (value := getattr(self, name))]
        url = self.endpoint.rstrip("/") + "/chat/completions"
        return HttpRequest("POST", url, tuple(headers), json_body(chat_body(batch, self.model, stream=stream)))

    def estimate(self, batch: ExecuteBatch) -> TokenEstimate:
        """`chat_estimate`."""
        return chat_estimate(batch)

    def stream_decoder(self, batch: ExecuteBatch | None = None) -> ChatStreamDecoder:
        """A fresh decoder for one stream, which is complete with all the choices that ``batch`` asks for."""
        return ChatStreamDecoder(self.provider, 1 if batch is None else chat_choices(batch))

    def decode_unary(self, body: bytes, headers: Headers = ()) -> list[TokenChunk] | InferenceError:
        """One chunk per choice, the usage on the first; or the error in the body, or that it is no answer at all."""
        return decode_answer(self.provider, body)

    def classify(self, status: int, headers: Headers, body: bytes, unix_now: float) -> InferenceError:
        """What a response that is not an answer means, by status, body and headers."""
        seen = self.rate_limit_snapshot(headers, unix_now)
        return classify_response(self.provider, status, headers, body, unix_now, seen)

    def rate_limit_snapshot(self, headers: Headers, unix_now: float) -> RateLimitSnapshot | None:
        """What the headers say of the limits, in the dialect of the endpoint (`rate_limit_headers.reader_for`)."""
        return reader_for(self.endpoint)(headers, unix_now)
