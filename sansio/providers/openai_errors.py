"""Errors in OpenAI's format: from a status and a body, or from a frame inside a stream that began with 200.

Everybody who speaks OpenAI's API answers with such errors, and many with a shape of their own: gateways with a string,
FastAPI with ``detail``, Mistral without the ``error`` around them, LiteLLM with a status as the code. `read_error` knows the
shapes, `provider_error` what they mean: a table of codes, a table of messages, else the status. Both are total.

Source: https://developers.openai.com/api/docs/guides/error-codes, and the pages of the providers named at each row.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ..classify import (
    classify_http_status,
    first_header,
    parse_reset,
    retry_after_from_headers,
    should_retry_from_headers,
)
from ..errors import (
    BadRequest,
    ContentFiltered,
    ContextLengthExceeded,
    ErrorContext,
    Forbidden,
    InferenceError,
    LimitExceeded,
    NotFound,
    QuotaExhausted,
    RateLimited,
    ServerError,
    Timeout,
    Unauthorized,
)
from ..http import Headers
from ..rate_limit import RateLimitSnapshot
from .lenient_json import as_dict, as_int, as_str, dumps, is_array, is_object, loads, objects


@dataclass(frozen=True, slots=True)
class ErrorSaid:
    """What an error body says, whoever wrote it.

    codes: its codes and types, the most telling first. message: its text, bounded. status: an HTTP status it names.
    explicit: whether it calls itself an error, which is all there is to tell one from an answer inside a 200. headers: those
    it repeats from a response that nobody saw (Responses, where an answer has begun).
    """

    codes: tuple[str, ...] = ()
    message: str = ""
    status: int | None = None
    explicit: bool = False
    headers: Headers = ()


_BY_CODE: Final[Mapping[str, type[InferenceError]]] = {
    **dict.fromkeys(
        (
            *("insufficient_quota", "credit_balance_exhausted", "billing_hard_limit_reached", "budget_exceeded"),
            *("organization_spend_limit_exceeded", "project_spend_limit_exceeded", "organization_usage_limit_exceeded"),
        ),
        QuotaExhausted,
    ),
    **dict.fromkeys(
        (
            *("content_policy_violation", "content_filter", "invalid_prompt", "responsibleaipolicyviolation"),
            *("bio_policy", "misalignment_policy_violation", "image_content_policy_violation"),
        ),
        ContentFiltered,
    ),
    **dict.fromkeys(("model_not_found", "deploymentnotfound"), NotFound),
    **dict.fromkeys(("slow_down", "capacity_exceeded"), RateLimited),  # capacity_exceeded: Groq's flex tier
    "context_length_exceeded": ContextLengthExceeded,
}
"""Codes and types that decide, whatever the status."""

_IN_BAND: Final[Mapping[str, type[InferenceError]]] = {
    **dict.fromkeys(
        ("rate_limit_exceeded", "rate_limit_error", "rate_limited", "too_many_requests", "tokens", "requests"), RateLimited
    ),
    **dict.fromkeys(
        (
            *("server_error", "internal_server_error", "internal_error", "api_error", "service_unavailable"),
            *("server_is_overloaded", "engine_overloaded", "overloaded_error", "overloaded"),
        ),
        ServerError,
    ),
    **dict.fromkeys(("invalid_api_key", "authentication_error", "auth_error"), Unauthorized),
    **dict.fromkeys(("permission_error", "permission_denied"), Forbidden),
    **dict.fromkeys(("not_found_error", "not_found"), NotFound),
    **dict.fromkeys(("timeout_error", "timeout", "vector_store_timeout"), Timeout),
    **dict.fromkeys(
        (
            *("invalid_request_error", "bad_request", "data_residency_mismatch"),
            *("invalid_image", "invalid_image_format", "invalid_base64_image", "invalid_image_url", "invalid_image_mode"),
            *("image_too_large", "image_too_small", "image_parse_error", "image_file_too_large", "image_file_not_found"),
            *("unsupported_image_media_type", "empty_image_file", "failed_to_download_image"),
        ),
        BadRequest,
    ),
}
"""Further codes and types that decide where there is no status: in a frame of a stream, or in the body of a 200."""

_BY_STATUS: Final[Mapping[int, type[InferenceError]]] = {498: RateLimited}
"""Where `classify_http_status` is not the last word: Groq's own status, for a flex tier that is full."""

_BY_MESSAGE: Final[tuple[tuple[re.Pattern[str], type[InferenceError]], ...]] = tuple(
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), kind)
    for pattern, kind in (
        (r"request too large\b.*\brequested [0-9]", LimitExceeded),
        (r"service tier capacity exceeded|no deployments available", ServerError),  # Mistral's and LiteLLM's own 429
        (r"maximum context length|ContextWindowExceededError", ContextLengthExceeded),  # vLLM and LiteLLM have no code
        (r"content management policy|ContentPolicyViolationError", ContentFiltered),
    )
)
"""What only the message tells. Asked where the status leaves it open: 4xx but those about the key and the model."""

_TRY_AGAIN: Final = re.compile(
    r"(?:try again in|retry after) "
    r"(?:((?:[0-9]{1,9}(?:\.[0-9]{1,9})?(?:ms|s|m|h))+)\b"
    r"|([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(millisecond|second|minute|hour)s?\b)",
    re.IGNORECASE,
)
_SECONDS: Final = {"millisecond": 0.001, "second": 1.0, "minute": 60.0, "hour": 3600.0}
_LONGEST_MESSAGE: Final = 4096


def read_error(body: str | bytes) -> ErrorSaid:
    """What an error body says. Total: an object, an array around one, a bare string, HTML or nothing.

    Known shapes: ``{"error": {…}}``, ``{"error": "text"}``, the same fields without ``error`` (Mistral), FastAPI's
    ``{"detail": …}``, Groq's ``{"x_groq": {"error": …}}``; codes as strings or as status numbers.
    """
    tree = loads(body)
    if is_array(tree):
        tree = next(iter(objects(tree)), None)
    if not is_object(tree):
        return ErrorSaid(message=as_str(tree)[:_LONGEST_MESSAGE])
    error = tree.get("error") or as_dict(tree.get("x_groq")).get("error")
    fields = as_dict(error) or next(iter(objects(error)), tree)
    inner = as_dict(fields.get("innererror") or as_dict(fields.get("provider_specific_fields")).get("innererror"))
    codes = (fields.get("code"), inner.get("code"), fields.get("type"))
    numbers = (as_int(fields.get(name)) for name in ("code", "status", "raw_status_code", "status_code"))
    message = fields.get("message") or tree.get("message") or tree.get("detail")
    return ErrorSaid(
        codes=tuple(code for value in codes if (code := as_str(value) or str(as_int(value) or ""))),
        message=_message(error if isinstance(error, str) and error else message),
        status=next((number for number in numbers if number is not None and 400 <= number <= 599), None),
        explicit=bool(error) or tree.get("object") == "error",
        headers=tuple((name.lower(), as_str(value)) for name, value in as_dict(fields.get("headers")).items()),
    )


def _message(value: object) -> str:
    """A message is a string, or (Mistral, FastAPI) an object, which is shown as it came."""
    text = as_str(value) or ("" if value is None else dumps(value))
    return text[:_LONGEST_MESSAGE]


def in_band_error(provider: str, body: str | bytes) -> InferenceError:
    """What an error frame of a stream means, or the error in the body of a 200: classified by its code, type or message.

    An unknown one is a `ServerError`: retryable, and counted by the circuit. ``status`` is the one that the error names.
    """
    said = read_error(body)
    # Nobody here has a clock: how long it is until a date is not known.
    hint = retry_after_from_headers(said.headers, unix_now=math.inf)
    return provider_error(provider, said.status, said, body, retry_after=hint)


def classify_response(
    provider: str,
    status: int,
    headers: Headers,
    body: bytes,
    unix_now: float,
    seen: RateLimitSnapshot | None = None,
) -> InferenceError:
    """What a response that is not an answer means, by status, body and headers.

    The hint is that of the headers, else the one in a 429's message, else the reset of a limit that is exhausted (``seen``:
    what the headers say of the limits).
    """
    said = read_error(body)
    in_band = 200 <= status < 300 and said.explicit
    error = provider_error(
        provider,
        said.status if in_band else status,
        said,
        body,
        retry_after=retry_after_from_headers(headers, unix_now),
        provider_request_id=first_header(headers, "x-request-id", "apim-request-id"),
        should_retry=should_retry_from_headers(headers),
    )
    if isinstance(error, RateLimited) and error.retry_after is None and seen is not None:
        error.retry_after = seen.exhausted_for()
    return error


def provider_error(
    provider: str,
    status: int | None,
    said: ErrorSaid,
    body: str | bytes,
    *,
    retry_after: float | None = None,
    provider_request_id: str | None = None,
    should_retry: bool | None = None,
) -> InferenceError:
    """`classify_http_status`, refined by what the body says. ``status`` is ``None`` for an error that has none.

    Where ``retry_after`` is, the hint in the message of a `RateLimited` is not looked for.
    """
    base = classify_http_status(
        provider,
        500 if status is None else status,
        retry_after,
        body,
        code=said.codes[0] if said.codes else None,
        message=said.message or ("the provider sent an error without a message" if status is None else None),
        provider_request_id=provider_request_id,
        should_retry=should_retry,
    )
    base.status = status
    kind = _refined(status, said)
    error = base if kind is None else _as_kind(kind, base)
    if isinstance(error, RateLimited) and error.retry_after is None:
        error.retry_after = _hint_in_message(said.message)
    if isinstance(error, Forbidden) and body and not (said.codes or said.message):
        error.blames_key = False  # the page of a proxy on the way: it says nothing about the key
    return error


def _refined(status: int | None, said: ErrorSaid) -> type[InferenceError] | None:
    """The kind that the body tells, or ``None`` where the status is the better reason."""
    codes = [code.lower() for code in said.codes]
    for code in codes:
        if code in _BY_CODE:
            return _BY_CODE[code]
    if status is None or (400 <= status < 500 and status not in (401, 403, 404)):
        for pattern, kind in _BY_MESSAGE:
            if pattern.search(said.message):
                return kind
    if status is not None:
        return _BY_STATUS.get(status)
    return next((_IN_BAND[code] for code in codes if code in _IN_BAND), None)


def _as_kind(kind: type[InferenceError], base: InferenceError) -> InferenceError:
    """The same error as another kind. ``x-should-retry: true`` does not reach the kinds that blame the key."""
    context: ErrorContext = {
        "provider": base.provider,
        "status": base.status,
        "code": base.code,
        "body": base.body,
        "provider_request_id": base.provider_request_id,
        "retry_after": base.retry_after,
        "should_retry": base.should_retry,
    }
    if base.should_retry is False or (base.should_retry is True and not kind.blames_key):
        context["retryable"] = base.should_retry
    return kind(message=base.message, **context)


def _hint_in_message(message: str) -> float | None:
    """Seconds from "Please try again in 1m6.57s" (OpenAI, Groq) or "Please retry after 26 seconds" (Azure)."""
    found = _TRY_AGAIN.search(message)
    if found is None:
        return None
    if found[1] is not None:
        return parse_reset(found[1].lower(), 0.0)
    return float(found[2]) * _SECONDS[found[3].lower()]
