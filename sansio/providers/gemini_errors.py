"""Errors in Google's format: from a status and a body, or from a frame inside a stream that began with 200.

All of Google's APIs answer with ``{"error": {code, message, status, details}}`` (google.rpc.Status), where each detail says
of what kind it is. What counts: ``ErrorInfo.reason`` (a bad key comes with status 400), ``QuotaFailure`` (a quota per day
is not back in a minute, whatever else is said) and ``RetryInfo.retryDelay``, the only hint there is. Total: any bytes.

Source: https://ai.google.dev/gemini-api/docs/api-errors, https://cloud.google.com/apis/design/errors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ..classify import classify_http_status, retry_after_from_headers, should_retry_from_headers
from ..errors import (
    ContentFiltered,
    ContextLengthExceeded,
    Forbidden,
    InferenceError,
    QuotaExhausted,
    RateLimited,
    ServerError,
    Unauthorized,
)
from ..http import Headers
from ..rate_limit import RateLimitSnapshot
from ..scrub import excerpt
from .lenient_json import as_dict, as_int, as_str, is_array, is_object, loads, objects
from .pacific_midnight import seconds_until_pacific_midnight

MOST_RETRIES: Final = 2
"""How often what failed on Google's side is sent again: a 500 may be about the size of the prompt, and then comes back."""

_STATUSES: Final[Mapping[str, int]] = {
    **dict.fromkeys(("INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE"), 400),
    "UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403, "NOT_FOUND": 404,
    **dict.fromkeys(("ABORTED", "ALREADY_EXISTS"), 409),
    "RESOURCE_EXHAUSTED": 429, "CANCELLED": 499,
    **dict.fromkeys(("INTERNAL", "UNKNOWN", "DATA_LOSS"), 500),
    "UNIMPLEMENTED": 501, "UNAVAILABLE": 503, "DEADLINE_EXCEEDED": 504,
}  # fmt: skip
"""google.rpc.Code, as HTTP has it."""

_BY_REASON: Final[Mapping[str, type[InferenceError]]] = {
    **dict.fromkeys(("API_KEY_INVALID", "API_KEY_EXPIRED"), Unauthorized),
    "BILLING_DISABLED": QuotaExhausted,
}
"""The reasons that decide, whatever the status."""

_BY_MESSAGE: Final[tuple[tuple[re.Pattern[str], frozenset[int], type[InferenceError]], ...]] = tuple(
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), frozenset(statuses), kind)
    for pattern, statuses, kind in (
        (r"api key (?:not valid|not found|expired)", (400,), Unauthorized),
        (r"enable billing|billing (?:account|to be enabled)", (400,), QuotaExhausted),
        (r"(?:input token count|prompt token count)\b.{0,80}\bexceeds", (400, 500), ContextLengthExceeded),
    )
)
"""What only the message tells, at these statuses."""

_PER_DAY: Final = re.compile(r"per_?day", re.IGNORECASE)
_DURATION: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)s")
"""A span of time as protobuf writes it in JSON: seconds, with up to nine decimals."""

_LONGEST_MESSAGE: Final = 4096


@dataclass(frozen=True, slots=True)
class ErrorSaid:
    """What an error body says.

    status: google.rpc.Code's word. http_status: as a number, where it gives one. reasons: of its ``ErrorInfo``.
    quotas: the limits that were met, by their ids. retry_delay: the hint in seconds.
    """

    message: str = ""
    status: str = ""
    http_status: int | None = None
    reasons: tuple[str, ...] = ()
    quotas: tuple[str, ...] = ()
    retry_delay: float | None = None

    @property
    def is_daily(self) -> bool:
        """Whether a quota for a whole day is used up."""
        return any(_PER_DAY.search(quota) for quota in self.quotas)


def read_error(body: str | bytes) -> ErrorSaid | None:
    """What an error body says, also inside an array of one; ``None`` where there is no ``error`` in it."""
    error = as_dict(unwrapped(loads(body))).get("error")
    if isinstance(error, str) and error:
        return ErrorSaid(message=as_str(error)[:_LONGEST_MESSAGE])
    if not is_object(error):
        return None
    details = objects(error.get("details"))
    status = as_str(error.get("status"))
    code = as_int(error.get("code"))
    violations = [violation for detail in details for violation in objects(detail.get("violations"))]
    infos = [as_dict(detail.get("metadata")) for detail in details]
    quotas = [violation.get("quotaId") for violation in violations] + [info.get("quota_limit") for info in infos]
    delays = [delay for detail in details if (delay := _duration(detail.get("retryDelay"))) is not None]
    return ErrorSaid(
        message=as_str(error.get("message"))[:_LONGEST_MESSAGE],
        status=status,
        http_status=code if code is not None and 400 <= code <= 599 else _STATUSES.get(status),
        reasons=tuple(reason for detail in details if (reason := as_str(detail.get("reason")))),
        quotas=tuple(quota for value in quotas if (quota := as_str(value))),
        retry_delay=max(delays, default=None),
    )


def unwrapped(tree: object) -> object:
    """The value, out of the array of one that Google sometimes puts around an answer or an error."""
    return tree[0] if is_array(tree) and len(tree) == 1 else tree


def in_band_error(provider: str, body: str | bytes) -> InferenceError:
    """What an error frame of a stream means, or the error in the body of a 200.

    One that names no status is a `ServerError`: retryable, and counted by the circuit. A daily quota has no hint here: there
    is no clock.
    """
    said = read_error(body) or ErrorSaid()
    error = _error(provider, said.http_status, said, body)
    if isinstance(error, QuotaExhausted):
        error.retry_after = None  # of a day's quota, what it says is too short
    return error


def blocked_prompt(provider: str, feedback: object, body: str | bytes) -> ContentFiltered:
    """A prompt that was refused: an answer with status 200 and without candidates."""
    told = as_dict(feedback)
    reason, message = excerpt(as_str(told.get("blockReason"))), as_str(told.get("blockReasonMessage"))
    text = excerpt(message) or f"the prompt was blocked: {reason}"
    return ContentFiltered(text, provider=provider, status=200, code=reason, body=excerpt(body))


def classify_response(
    provider: str,
    status: int,
    headers: Headers,
    body: bytes,
    unix_now: float,
    seen: RateLimitSnapshot | None = None,
) -> InferenceError:
    """What a response that is not an answer means, by status, body and headers.

    The hint is ``RetryInfo``'s, else that of the headers, else the reset of a limit that is exhausted (``seen``: what the
    headers say of the limits). For a daily quota it is the time until midnight on the Pacific coast, whatever they say.
    """
    found = read_error(body)
    said = found or ErrorSaid()
    feedback = as_dict(as_dict(unwrapped(loads(body))).get("promptFeedback")) if status == 200 else {}
    if feedback.get("blockReason"):
        return blocked_prompt(provider, feedback, body)
    in_band = found is not None and 200 <= status < 300
    hint = said.retry_delay if said.retry_delay is not None else retry_after_from_headers(headers, unix_now)
    should_retry = should_retry_from_headers(headers)
    error = _error(provider, said.http_status if in_band else status, said, body, hint=hint, should_retry=should_retry)
    if said.is_daily and isinstance(error, QuotaExhausted):
        error.retry_after = seconds_until_pacific_midnight(unix_now)
    if isinstance(error, RateLimited) and error.retry_after is None and seen is not None:
        error.retry_after = seen.exhausted_for()
    if isinstance(error, Forbidden) and body and found is None:
        error.blames_key = False  # the page of a proxy on the way: it says nothing about the key
    return error


def _error(
    provider: str,
    status: int | None,
    said: ErrorSaid,
    body: str | bytes,
    *,
    hint: float | None = None,
    should_retry: bool | None = None,
) -> InferenceError:
    """`classify_http_status`, refined by what the body says. ``status`` is ``None`` for an error that has none."""
    error = classify_http_status(
        provider,
        500 if status is None else status,
        said.retry_delay if hint is None else hint,
        body,
        code=next(iter(said.reasons), said.status) or None,
        message=said.message or ("the provider sent an error without a message" if status is None else None),
        should_retry=should_retry,
    )
    error.status = status
    kind = _refined(status, said)
    if kind is not None:
        error = _as_kind(kind, error)
    if isinstance(error, ServerError):
        error.max_retries = MOST_RETRIES
    return error


def _refined(status: int | None, said: ErrorSaid) -> type[InferenceError] | None:
    """The kind that the body tells, or ``None`` where the status is the better reason."""
    for reason in said.reasons:
        if reason in _BY_REASON:
            return _BY_REASON[reason]
    if status == 429 and said.is_daily:
        return QuotaExhausted
    for pattern, statuses, kind in _BY_MESSAGE:
        if (500 if status is None else status) in statuses and pattern.search(said.message):
            return kind
    return None


def _as_kind(kind: type[InferenceError], base: InferenceError) -> InferenceError:
    """The same error as another kind. ``x-should-retry: true`` does not reach the kinds that blame the key."""
    told: dict[str, Any] = base.to_dict() | {"kind": kind.kind}
    if kind.blames_key:
        told.pop("retryable", None)
    return InferenceError.from_dict(told)


def _duration(value: object) -> float | None:
    found = _DURATION.fullmatch(as_str(value))
    return None if found is None else float(found[1])
