"""Azure OpenAI: both of OpenAI's APIs under addresses, headers and errors of Azure's own.

`AzureChat` and `AzureResponses` are the codecs. What is asked by the name of a model elsewhere is asked here by that of a
deployment. There are two sets of addresses: the v1 ones, which are OpenAI's under another host, and the older ones, which
name a dated version and, for chat, hold the deployment in their path.

A key goes into ``api-key``, a token of Entra ID into ``authorization``. Where Azure does not know how long to wait, it says
0 or -1, and both mean that nothing is said.

Source: https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle; what errors and headers look like was seen
in issues.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from ..batch import ExecuteBatch, TokenChunk, TokenEstimate
from ..classify import parse_retry_after
from ..errors import InferenceError
from ..http import Headers, HttpRequest
from ..rate_limit import RateLimitSnapshot
from ..rate_limit_headers import azure as read_rate_limits
from ..session import SessionSnapshot
from .openai_answers import ChatStreamDecoder, decode_answer
from .openai_errors import classify_response
from .openai_requests import chat_body, chat_choices, chat_estimate
from .openai_responses import responses_body, responses_estimate
from .request import check_base_url, check_strings, credential_header, json_body, json_headers
from .responses_answers import ResponsesStreamDecoder, decode_response

_PROVIDER: Final = "azure"
_RESOURCE: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?")
_DATED: Final = re.compile(r"[0-9]{4}-")
_HINTS: Final = ("retry-after", "retry-after-ms", "x-ms-retry-after-ms")


@dataclass(frozen=True, slots=True)
class AzureChat:
    """The codec of Chat Completions on Azure.

    model: the deployment's name, unless ``deployment`` gives it. resource: stands for the endpoint
    ``https://{resource}.openai.azure.com``. endpoint: where that is another; one that ends in ``/openai`` or ``/openai/v1``
    is taken as it is. One of the two is needed by whoever names a model.
    api_version: ``None`` for the v1 addresses; a dated version, such as ``"2024-10-21"``, for the older ones; any other
    word, such as ``"preview"``, goes with the v1 addresses.
    Raises `ValueError` naming the field.
    """

    model: str = ""
    endpoint: str = ""
    resource: str | None = None
    deployment: str | None = None
    api_version: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "endpoint", _checked_endpoint(self))

    @property
    def provider(self) -> str:
        """``"azure"``."""
        return _PROVIDER

    def encode(self, batch: ExecuteBatch, session: SessionSnapshot, *, stream: bool = True) -> HttpRequest:
        """The request. Raises `ValueError` for what the format cannot express, naming the field."""
        body = chat_body(batch, self.deployment or self.model, stream=stream)
        url = _url(self, "/chat/completions", deployment=self.deployment or self.model)
        return HttpRequest("POST", url, _headers(session, stream=stream), json_body(body))

    def estimate(self, batch: ExecuteBatch) -> TokenEstimate:
        """`chat_estimate`."""
        return chat_estimate(batch)

    def stream_decoder(self, batch: ExecuteBatch | None = None) -> ChatStreamDecoder:
        """A fresh decoder for one stream, which is complete with all the choices that ``batch`` asks for."""
        return ChatStreamDecoder(_PROVIDER, 1 if batch is None else chat_choices(batch))

    def decode_unary(self, body: bytes, headers: Headers = ()) -> list[TokenChunk] | InferenceError:
        """One chunk per choice, the usage on the first; or the error in the body, or that it is no answer at all."""
        return decode_answer(_PROVIDER, body)

    def classify(self, status: int, headers: Headers, body: bytes, unix_now: float) -> InferenceError:
        """What a response that is not an answer means, by status, body and headers."""
        return _classify(status, headers, body, unix_now)

    def rate_limit_snapshot(self, headers: Headers, unix_now: float) -> RateLimitSnapshot | None:
        """What the headers say of the limits (`rate_limit_headers.azure`)."""
        return read_rate_limits(headers, unix_now)


@dataclass(frozen=True, slots=True)
class AzureResponses:
    """The codec of the Responses API on Azure. The options are those of `AzureChat`.

    Raises `ValueError` naming the field.
    """

    model: str = ""
    endpoint: str = ""
    resource: str | None = None
    deployment: str | None = None
    api_version: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "endpoint", _checked_endpoint(self))

    @property
    def provider(self) -> str:
        """``"azure"``."""
        return _PROVIDER

    def encode(self, batch: ExecuteBatch, session: SessionSnapshot, *, stream: bool = True) -> HttpRequest:
        """The request. Raises `ValueError` for what the API cannot express, naming the field."""
        body = responses_body(batch, self.deployment or self.model, stream=stream)
        url = _url(self, "/responses")
        return HttpRequest("POST", url, _headers(session, stream=stream), json_body(body))

    def estimate(self, batch: ExecuteBatch) -> TokenEstimate:
        """`responses_estimate`."""
        return responses_estimate(batch)

    def stream_decoder(self, batch: ExecuteBatch | None = None) -> ResponsesStreamDecoder:
        """A fresh decoder for one stream. The API gives one answer, whatever ``batch`` asks for."""
        return ResponsesStreamDecoder(_PROVIDER)

    def decode_unary(self, body: bytes, headers: Headers = ()) -> list[TokenChunk] | InferenceError:
        """The answer as one chunk (`decode_response`); or the error in the body, or that it is no answer at all."""
        return decode_response(_PROVIDER, body)

    def classify(self, status: int, headers: Headers, body: bytes, unix_now: float) -> InferenceError:
        """What a response that is not an answer means, by status, body and headers."""
        return _classify(status, headers, body, unix_now)

    def rate_limit_snapshot(self, headers: Headers, unix_now: float) -> RateLimitSnapshot | None:
        """What the headers say of the limits (`rate_limit_headers.azure`)."""
        return read_rate_limits(headers, unix_now)


def _checked_endpoint(of: AzureChat | AzureResponses) -> str:
    """The endpoint, made of the resource where that is given. A codec without a model only reads, and needs none."""
    check_strings(of, "model", "endpoint", optional=("resource", "deployment", "api_version"))
    endpoint = of.endpoint
    if of.resource is not None:
        if not _RESOURCE.fullmatch(of.resource):
            raise ValueError(f"resource: {of.resource!r} is not the name of a resource: letters, digits and hyphens")
        endpoint = f"https://{of.resource}.openai.azure.com"
        if of.endpoint not in ("", endpoint):
            raise ValueError("endpoint: is given beside resource, which stands for one; leave one of them out")
    if endpoint:
        check_base_url(endpoint)
    elif of.model or of.deployment:
        raise ValueError("endpoint: is missing; give it, or resource for https://{resource}.openai.azure.com")
    if _is_dated(of.api_version) and endpoint.rstrip("/").endswith("/openai/v1"):
        raise ValueError(
            f"api_version: {of.api_version!r} does not go with an endpoint in /openai/v1; leave out one of them"
        )
    return endpoint


def _is_dated(api_version: str | None) -> bool:
    return api_version is not None and _DATED.match(api_version) is not None


def _url(of: AzureChat | AzureResponses, path: str, *, deployment: str | None = None) -> str:
    """deployment: where the older address holds one. Raises `ValueError` where it is missing, or the endpoint."""
    if not of.endpoint:
        raise ValueError("endpoint: is missing; give it, or resource for https://{resource}.openai.azure.com")
    base = of.endpoint.rstrip("/")
    if not base.endswith(("/openai", "/openai/v1")):
        base += "/openai"
    query = f"?api-version={_quoted('api_version', of.api_version)}" if of.api_version else ""
    if not _is_dated(of.api_version):
        return base.removesuffix("/v1") + "/v1" + path + query
    if deployment is None:
        return base + path + query
    if not deployment:
        raise ValueError("deployment: is missing; the address of a dated version holds its name")
    return f"{base}/deployments/{_quoted('deployment', deployment)}{path}{query}"


def _quoted(name: str, value: str) -> str:
    """All but letters, digits and ``_.-~`` percent-encoded, so that nothing leaves its place in the address."""
    try:
        return quote(value, safe="")
    except UnicodeEncodeError:
        raise ValueError(f"{name}: {value!r} holds half of a surrogate pair, which cannot be written") from None


def _headers(session: SessionSnapshot, *, stream: bool) -> Headers:
    return credential_header(session.credential, "api-key"), *json_headers(stream=stream)


def _classify(status: int, headers: Headers, body: bytes, unix_now: float) -> InferenceError:
    """As OpenAI's errors, but a hint of 0 is none: it would send the next request at once."""
    said = tuple(
        (name, value) for name, value in headers if name.lower() not in _HINTS or parse_retry_after(value, unix_now) != 0.0
    )
    error = classify_response(_PROVIDER, status, said, body, unix_now, read_rate_limits(headers, unix_now))
    error.retry_after = error.retry_after or None  # a message says 0 too
    return error
