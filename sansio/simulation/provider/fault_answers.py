"""Faults that are another answer: a 429 in all its forms, any other status, keys that are no longer good."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .fault import Fault, Scene, check_duration, check_header, check_member
from .formats import Headers, Refusal
from .http_date import DateForm, http_date
from .response_plan import Data, End, Head, Kind, Parts


@dataclass(frozen=True, slots=True)
class Throttle(Fault):
    """A 429.

    retry_after, retry_after_ms: the raw values of these headers, valid or not.
    retry_date: seconds from now, sent as the HTTP date of ``date_form`` in Retry-After (rounded up to a whole second).
    reset: the raw value of the format's reset header, with nothing remaining.
    should_retry: sends ``x-should-retry``.
    body: which of the provider's reasons, or something that is not its JSON.
    """

    refuses = True

    retry_after: str | None = None
    retry_after_ms: str | None = None
    retry_date: float | None = None
    date_form: DateForm = "imf"
    reset: str | None = None
    should_retry: bool | None = None
    body: Literal["rate_limit", "too_large", "slow_down", "quota", "html", "text", "empty"] = "rate_limit"

    def __post_init__(self) -> None:
        check_duration(self, "retry_date", optional=True)
        check_member(self, "date_form", ("imf", "rfc850", "asctime"))
        check_member(self, "body", ("html", "text", "empty", *_THROTTLED))
        if self.retry_after is not None and self.retry_date is not None:
            raise ValueError("retry_after: give it or retry_date, not both")
        check_header("retry_after", self.retry_after)
        check_header("retry_after_ms", self.retry_after_ms)
        check_header("reset", self.reset)

    def bend(self, parts: Parts, scene: Scene) -> Parts:
        """The 429 in place of the answer."""
        fields = [
            ("retry-after", self.retry_after),
            ("retry-after-ms", self.retry_after_ms),
            ("retry-after", self._date(scene.unix_now)),
            ("x-should-retry", None if self.should_retry is None else str(self.should_retry).lower()),
        ]
        headers = tuple((name, value) for name, value in fields if value is not None)
        headers += () if self.reset is None else scene.format.reset_headers(self.reset)
        if self.body in _THROTTLED:
            content_type, body = "application/json", scene.format.error(_THROTTLED[self.body])
        else:
            content_type, body = _PLAIN_BODIES[self.body]
        return _instead(parts, 429, content_type, body, headers)

    def _date(self, unix_now: float) -> str | None:
        return None if self.retry_date is None else http_date(unix_now + self.retry_date, self.date_form)


@dataclass(frozen=True, slots=True)
class Status(Fault):
    """Another status. ``body=None`` gives the error body of the format; a burst is several of these in a row."""

    refuses = True

    code: int = 503
    body: bytes | str | None = None
    content_type: str = "application/json"
    headers: Headers = ()

    def __post_init__(self) -> None:
        if isinstance(self.code, bool) or not isinstance(self.code, int) or not 200 <= self.code <= 599:
            raise ValueError(f"code: {self.code!r} is not a status between 200 and 599")
        if self.body is not None and not isinstance(self.body, (bytes, str)):
            raise ValueError(f"body: {type(self.body).__name__} is neither bytes nor str")
        check_header("content_type", self.content_type)
        for name, value in self.headers:
            check_header("headers", value, name)
            if name != name.lower() or name in ("content-length", "transfer-encoding"):
                raise ValueError(f"headers: {name!r} is not in lower case, or belongs to the framing")

    @classmethod
    def html(cls, code: int = 502) -> Status:
        """An error page of a proxy in between."""
        page = f"<!DOCTYPE html><html><head><title>{code}</title></head><body><h1>{code} Bad Gateway</h1></body></html>"
        return cls(code, page, "text/html")

    def bend(self, parts: Parts, scene: Scene) -> Parts:
        """The status in place of the answer."""
        body = self.body
        if body is None:
            kind = "server_error" if self.code >= 500 else "invalid_request_error"
            body = scene.format.error(Refusal(self.code, kind, None, f"The mock was told to answer {self.code}."))
        encoded = body.encode("utf-8", "replace") if isinstance(body, str) else body
        return _instead(parts, self.code, self.content_type, encoded, self.headers)


@dataclass(frozen=True, slots=True)
class RotateKeys(Fault):
    """From this request on only ``keys`` are good; this request itself meets a 401 if it came with another."""

    keys: tuple[str, ...] = field(repr=False)

    def __post_init__(self) -> None:
        if not self.keys or not all(isinstance(key, str) and key for key in self.keys):
            raise ValueError("keys: must be one or more non-empty strings")


_THROTTLED = {
    "rate_limit": Refusal(
        429, "requests", "rate_limit_exceeded", "Rate limit reached for requests per min (RPM). Please try again later."
    ),
    "too_large": Refusal(
        429, "tokens", "rate_limit_exceeded", "Request too large on tokens per min (TPM): Limit 10000, Requested 20000."
    ),
    "slow_down": Refusal(429, "rate_limit_error", "slow_down", "You are sending requests too fast. Please slow down."),
    "quota": Refusal(
        429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota, please check your plan."
    ),
}
_PLAIN_BODIES = {
    "html": ("text/html", b"<!DOCTYPE html><html><body><h1>429 Too Many Requests</h1></body></html>"),
    "text": ("text/plain", b"Too Many Requests"),
    "empty": ("text/plain", b""),
}


def _instead(parts: Parts, status: int, content_type: str, body: bytes, headers: Headers) -> Parts:
    """Another answer under the same identity: what was planned before the head stays, and the head's other fields."""
    for part in parts:
        if isinstance(part, Head):
            replaced = {"content-type", "content-length", *(name for name, _ in headers)}
            fields = (*part.without(*replaced).headers, *headers)
            if status in (204, 304):  # no body, so no length (RFC 9110, section 8.6)
                yield Head(status, fields)
            else:
                yield Head(status, (*fields, ("content-type", content_type), ("content-length", str(len(body)))))
                yield Data(body, Kind.WHOLE)
            yield End()
            return
        yield part
