"""What a response that is not a success means: the error's kind from its status, and the hints in its headers.

Everything here is total: it takes whatever a server, a proxy or an attacker sends and answers with a value, never with an
exception. A codec knows its provider's bodies and refines what `classify_http_status` says; the hints (``Retry-After`` and
its millisecond cousins, ``x-should-retry``, the resets of rate-limit headers) read the same for all of them.

What is kept of a body is bounded and scrubbed (`scrub.py`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final, cast

from .errors import (
    BadRequest,
    Conflict,
    ErrorContext,
    Forbidden,
    InferenceError,
    NotFound,
    ProtocolError,
    QuotaExhausted,
    RateLimited,
    ServerError,
    Timeout,
    Unauthorized,
)
from .scrub import excerpt

_KIND_BY_STATUS: Final[Mapping[int, type[InferenceError]]] = {
    401: Unauthorized,
    402: QuotaExhausted,
    403: Forbidden,
    404: NotFound,
    408: Timeout,
    409: Conflict,
    425: Conflict,
    429: RateLimited,
}

_NEVER_OVERRULED: Final = (QuotaExhausted, Unauthorized, Forbidden)
"""Kinds that ``x-should-retry: true`` does not make retryable: asking again with the same key and purse cannot help."""


def classify_http_status(
    provider: str,
    status: int,
    retry_after: float | None = None,
    body: bytes | str | None = None,
    *,
    code: str | None = None,
    message: str | None = None,
    provider_request_id: str | None = None,
    should_retry: bool | None = None,
) -> InferenceError:
    """The error a status stands for, where the body gives no better reason. Total: any status, any body.

    ``retry_after`` is the hint in seconds; one that is negative or not finite is dropped. ``should_retry`` is the
    provider's own word: ``False`` makes any error terminal, ``True`` makes any retryable but those of quota and
    credential. ``body``, ``code``, ``message`` and ``provider_request_id`` are kept as `excerpt` gives them. A 2xx, like
    anything outside 400 to 599, is a `ProtocolError`: who asks about it did not get what was asked for.
    """
    kind = _kind_of(status)
    hint = retry_after if retry_after is not None and 0 <= retry_after < math.inf else None
    context: ErrorContext = {
        "provider": provider,
        "status": status,
        "code": _excerpt_or_none(code),
        "body": _excerpt_or_none(body),
        "provider_request_id": _excerpt_or_none(provider_request_id),
        "retry_after": hint,
        "should_retry": should_retry,
    }
    if should_retry is False or (should_retry is True and kind not in _NEVER_OVERRULED):
        context["retryable"] = should_retry
    text = excerpt(message or "") or f"{provider or 'the provider'} answered with status {status}"
    return kind(message=text, **context)


def _kind_of(status: int) -> type[InferenceError]:
    if status in _KIND_BY_STATUS:
        return _KIND_BY_STATUS[status]
    if 400 <= status <= 499:
        return BadRequest
    if 500 <= status <= 599:
        return ServerError
    return ProtocolError


def _excerpt_or_none(text: bytes | str | None) -> str | None:
    return None if text is None else excerpt(text)


_LONGEST_WAIT: Final = 2.0**64
"""Where a delay of absurdly many digits is cut, in seconds: finite, and longer than any deadline (RFC 9111, 1.2.2)."""

_OWS: Final = " \t"
_NUMBER: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH = rf"(?P<month>{'|'.join(_MONTHS)})"
_TIME = r"(?P<hour>[01][0-9]|2[0-3]):(?P<minute>[0-5][0-9]):(?P<second>[0-5][0-9]|60)"
_DAY = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_HTTP_DATES: Final = tuple(
    re.compile(form)
    for form in (
        rf"{_DAY}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT",
        rf"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT",
        rf"{_DAY} {_MONTH} (?P<day>[0-9]{{2}}| [0-9]) {_TIME} (?P<year>[0-9]{{4}})",
    )
)
_RFC_3339: Final = re.compile(
    rf"(?P<year>[0-9]{{4}})-(?P<month>[0-9]{{2}})-(?P<day>[0-9]{{2}})[Tt ]{_TIME}(?P<fraction>\.[0-9]+)?"
    r"(?:[Zz]|(?P<sign>[+-])(?P<off_hour>[01][0-9]|2[0-3]):(?P<off_minute>[0-5][0-9]))"
)
_GO_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_GO_TERM: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_GO_DURATION: Final = re.compile(rf"(?:{_GO_TERM.pattern})+")
_EPOCH: Final = datetime(1970, 1, 1)


def parse_retry_after(value: str | None, unix_now: float) -> float | None:
    """The seconds to wait that a ``Retry-After`` asks for, or ``None`` where it says nothing readable. Never raises.

    RFC 9110, section 10.2.3: whole seconds (decimals are taken too, some providers send them) or an HTTP date in any of
    the three forms of section 5.6.7; a date in the past asks for 0.0. ``unix_now`` is the Unix time in seconds. What is no
    string, such as the ``None`` of an absent header, says nothing.
    """
    if not isinstance(value, str):
        return None
    text = value.strip(_OWS)
    if (seconds := _parse_seconds(text)) is not None:
        return seconds
    for form in _HTTP_DATES:
        if found := form.fullmatch(text):
            return _seconds_until(found, unix_now)
    return None


def retry_after_from_headers(headers: Iterable[tuple[str, str]] | Mapping[str, str], unix_now: float) -> float | None:
    """The hint: seconds to wait before the next attempt, or ``None``. Names in any case. Never raises.

    ``retry-after-ms`` (OpenAI, Azure) is the most precise and wins, then ``x-ms-retry-after-ms``, then ``retry-after``; one
    that cannot be read yields to the next. Of several fields of one name the longest wait counts.
    """
    pairs = _pairs(headers)
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        waits = [ms / 1000 for key, value in pairs if key == name and (ms := _parse_seconds(value.strip(_OWS))) is not None]
        if waits:
            return max(waits)
    waits = [s for key, value in pairs if key == "retry-after" and (s := parse_retry_after(value, unix_now)) is not None]
    return max(waits, default=None)


def should_retry_from_headers(headers: Iterable[tuple[str, str]] | Mapping[str, str]) -> bool | None:
    """The provider's own word on a retry (``x-should-retry: true`` or ``false``), or ``None``. ``false`` beats ``true``."""
    said = {value.strip(_OWS).lower() for key, value in _pairs(headers) if key == "x-should-retry"}
    if "false" in said:
        return False
    return True if "true" in said else None


def first_header(headers: Iterable[tuple[str, str]] | Mapping[str, str], *names: str) -> str | None:
    """The first value of the first of these names (in lower case) that is there, in any case; ``None`` for none."""
    pairs = _pairs(headers)
    return next((value for name in names for key, value in pairs if key == name), None)


def parse_reset(value: str | None, unix_now: float) -> float | None:
    """Seconds from ``unix_now`` until a rate limit is whole again, or ``None`` where it cannot be read. Never raises.

    The forms seen in ``x-ratelimit-reset-*`` and ``anthropic-ratelimit-*-reset``: a Go duration (``6m0s``, ``20ms``; OpenAI,
    Groq), an RFC 3339 instant (Anthropic; one in the past is 0.0), plain seconds (Azure, Together). What is no string says
    nothing.
    """
    if not isinstance(value, str):
        return None
    text = value.strip(_OWS)
    if (seconds := _parse_seconds(text)) is not None:
        return seconds
    if _GO_DURATION.fullmatch(text):
        return min(sum(float(number) * _GO_UNITS[unit] for number, unit in _GO_TERM.findall(text)), _LONGEST_WAIT)
    if found := _RFC_3339.fullmatch(text):
        return _seconds_until(found, unix_now)
    return None


def _pairs(headers: Iterable[tuple[str, str]] | Mapping[str, str]) -> list[tuple[str, str]]:
    pairs = cast("Iterable[tuple[str, str]]", headers.items() if isinstance(headers, Mapping) else headers)
    return [(name.lower(), value) for name, value in pairs if isinstance(name, str) and isinstance(value, str)]


def _parse_seconds(text: str) -> float | None:
    """A number without sign, exponent or grouping. `float` takes any count of digits, where `int` refuses above 4,300."""
    return min(float(text), _LONGEST_WAIT) if _NUMBER.fullmatch(text) else None


def _seconds_until(found: re.Match[str], unix_now: float) -> float | None:
    """Seconds from ``unix_now`` to a matched date, 0.0 if it has passed, ``None`` if the calendar has no such day."""
    part = found.groupdict()
    month = _MONTHS.index(part["month"]) + 1 if part["month"] in _MONTHS else int(part["month"])
    rest = (month, int(part["day"]), int(part["hour"]), int(part["minute"]), int(part["second"]))
    try:
        year = int(part["year"]) if len(part["year"]) == 4 else _full_year(int(part["year"]), rest, unix_now)
        # The second is added, not set: 60 (a leap second) is legal in a date, but not to `datetime`.
        instant = datetime(year, *rest[:4]) + timedelta(seconds=rest[4]) - _EPOCH
    except (ValueError, OverflowError):
        return None
    unix = instant.total_seconds() + float(part.get("fraction") or 0)
    if part.get("sign"):
        offset = 3600 * int(part["off_hour"]) + 60 * int(part["off_minute"])
        unix += offset if part["sign"] == "-" else -offset
    wait = unix - unix_now
    return max(0.0, wait) if math.isfinite(wait) else None


def _full_year(two_digits: int, rest: tuple[int, ...], unix_now: float) -> int:
    """RFC 9110, 5.6.7: a date more than 50 years ahead means the last year before it with the same two digits."""
    now = _EPOCH + timedelta(seconds=unix_now)
    horizon = (now.year + 50, now.month, now.day, now.hour, now.minute, now.second)
    year = horizon[0] - (horizon[0] - two_digits) % 100
    return year if (year, *rest) <= horizon else year - 100
