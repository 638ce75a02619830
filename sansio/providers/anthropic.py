"""Anthropic Messages, and the servers that speak it as it is.

`AnthropicMessages` is the codec. How a batch becomes a request stands in `anthropic_requests`, how what comes back is read
in `anthropic_answers` (chunks) and `anthropic_errors`.

Source: https://platform.claude.com/docs/en/api/messages, and Anthropic's SDK.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

from .. import rate_limit_headers
from ..batch import ExecuteBatch, TokenChunk, TokenEstimate
from ..errors import InferenceError
from ..http import Headers, HttpRequest
from ..rate_limit import RateLimitSnapshot
from ..session import SessionSnapshot
from .anthropic_answers import MessageStreamDecoder, decode_answer
from .anthropic_errors import classify_response
from .anthropic_requests import LATEST_VERSION, OLDEST_VERSION, messages_body, messages_estimate
from .request import check_base_url, check_strings, credential_header, json_body, json_headers

_OAUTH_BETA: Final = "oauth-2025-04-20"
"""What a bearer token of OAuth or of a workload identity is accepted with."""

_BETA: Final = re.compile(r"[!-+\--~]+")
"""Visible ASCII but the comma, which separates them."""


@dataclass(frozen=True, slots=True)
class AnthropicMessages:
    """The codec of Anthropic Messages.

    model: what requests name; needed by `encode` only. endpoint: the base URL, as the official SDK has it (without ``/v1``).
    api_version: ``anthropic-version``, ``"2023-06-01"`` or ``"2026-10-21"``. They differ in nothing that is read here; the
    newer one refuses ``temperature`` and ``top_p`` of any value. The older is the default: every server that speaks the
    format knows it, and no batch fails by it alone.
    betas: the features to ask for in ``anthropic-beta``.
    Raises `ValueError` naming the field.
    """

    model: str = ""
    endpoint: str = "https://api.anthropic.com"
    api_version: str = OLDEST_VERSION
    betas: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_strings(self, "model")
        check_base_url(self.endpoint)
        if self.api_version not in (OLDEST_VERSION, LATEST_VERSION):
            raise ValueError(f"api_version: {self.api_version!r} is neither {OLDEST_VERSION!r} nor {LATEST_VERSION!r}")
        if isinstance(self.betas, str):  # a sequence of its characters, which nobody means
            raise ValueError(f"betas: {self.betas!r} is one str; write betas=({self.betas!r},)")
        if not isinstance(self.betas, Sequence):
            raise ValueError(f"betas: {type(self.betas).__name__} is not a list or tuple; leave it out or give one")
        for beta in cast("Sequence[object]", self.betas):
            if not (isinstance(beta, str) and _BETA.fullmatch(beta)):
                raise ValueError(f"betas: {beta!r} is not the name of a beta")
        object.__setattr__(self, "betas", tuple(self.betas))

    @property
    def provider(self) -> str:
        """``"anthropic"``."""
        return "anthropic"

    def encode(self, batch: ExecuteBatch, session: SessionSnapshot, *, stream: bool = True) -> HttpRequest:
        """The request. Raises `ValueError` for what the format cannot express, naming the field."""
        headers = [credential_header(session.credential, "x-api-key"), *json_headers(stream=stream)]
        headers.append(("anthropic-version", self.api_version))
        betas = list(self.betas)
        if session.credential.scheme == "bearer" and _OAUTH_BETA not in betas:
            betas.append(_OAUTH_BETA)
        if betas:
            headers.append(("anthropic-beta", ",".join(betas)))
        url = self.endpoint.rstrip("/") + "/v1/messages"
        body = messages_body(batch, self.model, self.api_version, stream=stream)
        return HttpRequest("POST", url, tuple(headers), json_body(body))

    def estimate(self, batch: ExecuteBatch) -> TokenEstimate:
        """`messages_estimate`."""
        return messages_estimate(batch)

    def stream_decoder(self, batch: ExecuteBatch | None = None) -> MessageStreamDecoder:
        """A fresh decoder for one stream. There is one answer, whatever ``batch`` asks for."""
        return MessageStreamDecoder(self.provider)

    def decode_unary(self, body: bytes, headers: Headers = ()) -> list[TokenChunk] | InferenceError:
        """A chunk for each part of the reasoning, then one with all the rest; or the error in the body, or that it is no
        answer at all."""
        return decode_answer(self.provider, body)

    def classify(self, status: int, headers: Headers, body: bytes, unix_now: float) -> InferenceError:
        """What a response that is not an answer means, by status, body and headers."""
        seen = self.rate_limit_snapshot(headers, unix_now)
        return classify_response(self.provider, status, headers, body, unix_now, seen)

    def rate_limit_snapshot(self, headers: Headers, unix_now: float) -> RateLimitSnapshot | None:
        """What the ``anthropic-ratelimit-*`` headers say of the limits (`rate_limit_headers.anthropic`)."""
        return rate_limit_headers.anthropic(headers, unix_now)
