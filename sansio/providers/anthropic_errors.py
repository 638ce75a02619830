"""Errors in Anthropic's format: from a status and a body, or from an event inside a stream that began with 200.

``{"type": "error", "error": {"type", "message", "details"?: {"error_code"}}, "request_id"}``: the status says nearly all of
it, and an error inside a stream has the status that its type stands for. What only the body tells (money, a prompt that is
too long, an organization on hold) stands in two tables: of codes, and of messages. Proxies put other shapes in its place,
which are read as everywhere (`openai_errors.read_error`). All of it is total.

Source: https://platform.claude.com/docs/en/api/errors and …/rate-limits; the messages were seen in logs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from ..classify import (
    classify_http_status,
    first_header,
    parse_reset,
    retry_after_from_headers,
    should_retry_from_headers,
)
from ..errors import (
    ContentFiltered,
    ContextLengthExceeded,
    ErrorContext,
    Forbidden,
    InferenceError,
    QuotaExhausted,
    RateLimited,
    ServerError,
)
from ..http import Headers
from ..rate_limit import RateLimitSnapshot
from .lenient_json import as_dict, as_str, loads
from .openai_errors import read_error

OVERLOADED_WAIT: Final = 5.0
"""Seconds to wait after a 529 that names no time: it is not one server that is in trouble, they all are for a while."""

_STATUS_BY_TYPE: Final[Mapping[str, int]] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""What a type stands for where the response has no status to say so: inside a stream, or in the body of a 200."""

_SPEND_LIMIT: Final = "_spend_limit_reached"
_MONTHLY_SPEND_LIMIT: Final = "enforced_spend_limit_reached"

_BY_CODE: Final[Mapping[str, type[InferenceError]]] = {
    "billing_error": QuotaExhausted,
    "organization_on_hold": Forbidden,
}
"""Codes and types that decide, whatever the status. So do all that end in `_SPEND_LIMIT`."""

_BY_MESSAGE: Final[tuple[tuple[re.Pattern[str], type[InferenceError]], ...]] = tuple(
    (re.compile(pattern, re.IGNORECASE), kind)
    for pattern, kind in (
        (r"credit balance is too low|reached your (?:specified )?(?:workspace )?API usage limits", QuotaExhausted),
        (r"(?:prompt|input) is too long|exceeds? (?:the )?context (?:limit|window)", ContextLengthExceeded),
        (r"blocked by content filtering policy", ContentFiltered),
    )
)
"""What only the message tells. Asked where the status leaves it open: 4xx but those about the key and the model."""

_REGAIN_ACCESS: Final = re.compile(
    r"regain access on ([0-9]{4}-[0-9]{2}-[0-9]{2})(?:(?:T| at )([0-9]{2}:[0-9]{2}))?", re.IGNORECASE
)
_EPOCH: Final = datetime(1970, 1, 1)


def in_band_error(provider: str, body: str | bytes) -> InferenceError:
    """What an ``error`` event of a stream means, or the error in the body of a 200: its status is the one its type stands
    for. Of a type that is unknown it is a `ServerError` without one: retryable, and counted by the circuit."""
    return _error(provider, None, body)


def classify_response(
    provider: str,
    status: int,
    headers: Headers,
    body: bytes,
    unix_now: float,
    seen: RateLimitSnapshot | None = None,
) -> InferenceError:
    """What a response that is not an answer means, by status, body and headers.

    The hint is that of the headers. Where they have none it is, of a 429, the reset of a limit that is exhausted (``seen``:
    what the headers say of the limits); of a 529, `OVERLOADED_WAIT`; of a spending limit, the instant in the message, and of
    the monthly one else the first of the next month, in UTC.
    """
    error = _error(
        provider,
        None if 200 <= status < 300 and read_error(body).explicit else status,
        body,
        retry_after=retry_after_from_headers(headers, unix_now),
        provider_request_id=first_header(headers, "request-id", "x-request-id"),
        should_retry=should_retry_from_headers(headers),
    )
    if error.retry_after is None:
        if isinstance(error, RateLimited) and seen is not None:
            error.retry_after = seen.exhausted_for()
        elif isinstance(error, QuotaExhausted):
            error.retry_after = _access_regained(error, unix_now)
    return error


def _error(
    provider: str,
    status: int | None,
    body: str | bytes,
    *,
    retry_after: float | None = None,
    provider_request_id: str | None = None,
    should_retry: bool | None = None,
) -> InferenceError:
    """``status``: ``None`` for an error inside a 200."""
    said = read_error(body)
    tree = as_dict(loads(body))
    error_code = as_str(as_dict(as_dict(tree.get("error")).get("details")).get("error_code"))
    own_code = next((code for code in (error_code, *said.codes) if code), None)
    codes = [code.lower() for code in (error_code, *said.codes)]
    in_band = status is None
    if in_band:
        status = next((_STATUS_BY_TYPE[code] for code in codes if code in _STATUS_BY_TYPE), said.status)
    error = classify_http_status(
        provider,
        500 if status is None else status,
        retry_after,
        body,
        code=own_code,
        message=said.message or ("the provider sent an error without a message" if in_band else None),
        provider_request_id=provider_request_id or as_str(tree.get("request_id")) or None,
        should_retry=should_retry,
    )
    error.status = status
    kind = _refined(status, codes, said.message)
    if kind is not None:
        error = _as_kind(kind, error)
    if isinstance(error, ServerError):
        if "cmek_key_unreachable" in codes:
            error.counts_as_circuit_failure = False  # it is the customer's own key service that does not answer
        if error.retry_after is None and (status == 529 or "overloaded_error" in codes):
            error.retry_after = OVERLOADED_WAIT
    elif isinstance(error, Forbidden) and body and not (own_code or said.message):
        error.blames_key = False  # the page of a proxy on the way: it says nothing about the key
    return error


def _refined(status: int | None, codes: list[str], message: str) -> type[InferenceError] | None:
    """The kind that the body tells, or ``None`` where the status is the better reason."""
    for code in codes:
        if code in _BY_CODE:
            return _BY_CODE[code]
        if code.endswith(_SPEND_LIMIT):
            return QuotaExhausted
    if status is None or (400 <= status < 500 and status not in (401, 403, 404)):
        return next((kind for pattern, kind in _BY_MESSAGE if pattern.search(message)), None)
    return None


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


def _access_regained(error: InferenceError, unix_now: float) -> float | None:
    """Seconds until there is money again, as far as that is said or known."""
    if (said := _REGAIN_ACCESS.search(error.message)) is not None:
        return parse_reset(f"{said[1]}T{said[2] or '00:00'}:00Z", unix_now)
    return _until_next_month(unix_now) if (error.code or "").lower() == _MONTHLY_SPEND_LIMIT else None


def _until_next_month(unix_now: float) -> float | None:
    """Seconds until the first of the next month, 0:00 UTC; ``None`` where the calendar ends."""
    try:
        now = _EPOCH + timedelta(seconds=unix_now)
        first = datetime(now.year + now.month // 12, now.month % 12 + 1, 1)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (first - _EPOCH).total_seconds() - unix_now)
