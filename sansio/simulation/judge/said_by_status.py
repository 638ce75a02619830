"""What a status means, where the body gives no better reason, and what a body may make of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ...errors import DeadlineExceeded, EngineClosed, InferenceError

_KINDS: Final[Mapping[int, str]] = {
    401: "unauthorized",
    402: "quota_exhausted",
    403: "forbidden",
    404: "not_found",
    408: "timeout",
    409: "conflict",
    425: "conflict",
    429: "rate_limited",
}
_BY_CODE: Final = frozenset(("quota_exhausted", "content_filtered", "not_found", "rate_limited", "context_length_exceeded"))
"""What a provider's own code may make of any status."""

_BY_MESSAGE: Final = frozenset(("limit_exceeded", "server_error", "context_length_exceeded", "content_filtered"))
"""What its message may make of most 4xx."""


def misread(status: int, error: InferenceError) -> str | None:
    """What is wrong with this error for an answer of this status, if anything is."""
    if isinstance(error, (DeadlineExceeded, EngineClosed)):
        return None  # it was called off while its body was read
    expected, kind = _kind_of(status), error.kind
    if kind != expected:
        by_code = kind in _BY_CODE and error.code is not None
        by_message = kind in _BY_MESSAGE and 400 <= status < 500 and status not in (401, 403, 404)
        return None if by_code or by_message else f"was answered with status {status}, which was read as {kind!r}"
    usual = type(error)
    retried = error.should_retry is not None or error.retryable is usual.retryable
    if retried and error.counts_as_circuit_failure is usual.counts_as_circuit_failure:
        return None
    return f"was answered with status {status}, and its {kind!r} is no usual one"


def _kind_of(status: int) -> str:
    if status in _KINDS:
        return _KINDS[status]
    if 400 <= status < 500:
        return "bad_request"
    return "server_error" if 500 <= status < 600 else "protocol_error"
