"""What can go wrong with an answer, as values.

Each fault says what it does to one response: to its parts (`Fault.bend`: other status, missing events, stalls) or to its
bytes (`Fault.mangle`: a reset at any byte, one byte at a time). They are frozen and know nothing of each other;
`fault_script.py` decides which request meets which. All durations are seconds; ``None`` for a duration means for ever.

"After n chunks" counts pieces of content (text, refusal, fragments of a tool call), not role or ping events. An answer with
fewer is hit just before its finish event. A unary body is one such piece, and is hit before it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, ClassVar, Literal

import h11

from .formats import Format, Headers, Refusal
from .http_date import DateForm, http_date
from .response_plan import (
    PING,
    Data,
    End,
    Hangup,
    Head,
    Kind,
    Parts,
    Pause,
    Raw,
    Torn,
    Wire,
    rechunked,
    until_chunk,
)

FOREVER: None = None
"""As a duration: until the client gives up."""

GARBAGE = bytes(range(128, 256)) + b"\x00\xff\xfe{]<\r"
"""Bytes that are neither HTTP nor UTF-8 nor JSON."""

_LONGEST_PAUSE = 1e6
_SHORTEST_BEAT = 0.001
_OVERSIZED_PIECE = 65_536


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a fault happens: the format it must speak, and the Unix time of the request, for dates."""

    format: Format
    unix_now: float


@dataclass(frozen=True, slots=True)
class Fault:
    """The base: a fault that does nothing. A subclass overrides `bend` or `mangle`."""

    refuses: ClassVar[bool] = False
    """Whether the model never runs, so that the request costs no tokens."""

    def bend(self, parts: Parts, scene: Scene) -> Parts:
        """The parts of the response, as this fault leaves them."""
        return parts

    def mangle(self, wire: Wire) -> Wire:
        """The framed bytes of the response, as this fault leaves them."""
        return wire


# --- other answers -------------------------------------------------------------------------------------------------


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
        _check_duration(self, "retry_date", optional=True)
        _check_member(self, "date_form", ("imf", "rfc850", "asctime"))
        _check_member(self, "body", ("html", "text", "empty", *_THROTTLED))
        if self.retry_after is not None and self.retry_date is not None:
            raise ValueError("retry_after: give it or retry_date, not both")
        _check_header("retry_after", self.retry_after)
        _check_header("retry_after_ms", self.retry_after_ms)
        _check_header("reset", self.reset)

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
        _check_header("content_type", self.content_type)
        for name, value in self.headers:
            _check_header("headers", value, name)
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


# --- slowness ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SlowFirstByte(Fault):
    """The head comes ``seconds`` late."""

    seconds: float

    def __post_init__(self) -> None:
        _check_duration(self, "seconds")

    def bend(self, parts: Parts, scene: Scene) -> Parts:
        """A pause before everything."""
        yield Pause(self.seconds)
        yield from parts


@dataclass(frozen=True, slots=True)
class NeverRespond(Fault):
    """Nothing comes, ever; the connection stays open."""

    def bend(self, parts: Parts, scene: Scene) -> Parts:
        """An endless pause."""
        yield Pause(FOREVER)


@dataclass(frozen=True, slots=True)
class StallAfterHead(Fault):
    """The head comes, then silence for ``seconds`` before the body."""

    seconds: float | None = FOREVER

    def __post_init__(self) -> None:
        _check_duration(self, "seconds", optional=True)

    def bend(self, parts: Parts, scene: Scene) -> Parts:
        """A pause after the head."""
        for part in parts:
            yield part
            if isinstance(part, Head):
                yield Pause(self.seconds)


@dataclass(frozen=True, slots=True)
class StallAfterChunks(Fault):
    """After ``chunks`` pieces of content, silence for ``seconds``."""

    chunks: int
    seconds: float | None = FOREVER

    def __post_init__(self) -> None:
        _check_count(self, "chunks")
        _check_duration(self, "seconds", optional=True)

    def bend(self, parts: Parts, scene: Scene) -> Parts:
        """A pause in the middle."""
        rest = yield from until_chunk(parts, self.chunks)
        yield Pause(self.seconds)
        yield rest
        yield from parts


@dataclass(frozen=True, slots=True)
class PingsOnly(Fault):
    """After the head, a ping every ``interval`` seconds: ``count`` of them and then the answer, or for ever (``None``).

    A unary answer gets line breaks instead, which JSON allows before a value.
    """

    interval: float
    count: int | None = FOREVER

    def __post_init__(self) -> None:
        _check_duration(self, "interval", least=_SHORTEST_BEAT)
        _check_count(self, "count", optional=True)

    def bend(self, parts: Parts, scene: Scene) -> Parts:
        """Pings after the head."""
        for part in rechunked(parts):
            yield part
            if isinstance(part, Head):
                ping = PING if part.is_stream else b"\n"
                sent = 0
                while self.count is None or sent < self.count:
                    yield Pause(self.interval)
                    yield Data(ping, Kind.PING)
                    sent += 1


@dataclass(frozen=True, slots=True)
class SlowTokens(Fault):
    """Each piece of content comes ``interval`` seconds late."""

    interval: float

    def __post_init__(self) -> None:
        _check_duration(self, "interval")

    def bend(self, parts: Parts, scene: Scene) -> Parts:
        """A pause before each piece of content."""
        for part in parts:
            if isinstance(part, Data) and part.kind in (Kind.CONTENT, Kind.WHOLE):
                yield Pause(self.interval)
            yield part


@dataclass(frozen=True, slots=True)
class DripBytes(Fault):
    """The response comes one byte at a time, ``interval`` seconds apart."""

    interval: float

    def __post_init__(self) -> None:
        _check_duration(self, "interval")

    def mangle(self, wire: Wire) -> Wire:
        """A pause before each byte."""
        for part in wire:
            if isinstance(part, bytes):
                for at in range(len(part)):
                    yield Pause(self.interval)
                    yield part[at : at + 1]
            else:
                yield part


# --- ends that come too early --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CloseWithoutResponse(Fault):
    """The connection is closed in good order as soon as the request was read."""

    def bend(self, parts: Parts, scene: Scene) -> Parts:
        """A hang-up at once."""
        yield Hangup()


@dataclass(frozen=True, slots=True)
class ResetAtByte(Fault):
    """The connection is reset after ``byte`` bytes of the response: 0 is before the first. Past the end, nothing happens."""

    byte: int

    def __post_init__(self) -> None:
        _check_count(self, "byte")

    def mangle(self, wire: Wire) -> Wire:
        """A reset in the middle of the bytes."""
        left = self.byte
        for part in chain((b"",), wire):  # the empty piece is where byte 0 is, before any pause
            if isinstance(part, bytes):
                if len(part) >= left:
                    yield part[:left]
                    break
                left -= len(part)
            yield part
        else:
            return
        yield Hangup(reset=True)


@dataclass(frozen=True, slots=True)
class Truncate(Fault):
    """The body ends in good order after ``chunks`` pieces of content, without finish event, usage or ``[DONE]``.

    Of a unary body the first half comes.
    """

    chunks: int = 1

    def __post_init__(self) -> None:
        _check_count(self, "chunks")

    def bend(self, parts: Parts, scene: Scene) -> Parts:
        """A proper end in the wrong place."""
        rest = yield from until_chunk(rechunked(parts), self.chunks)
        if isinstance(rest, Data) and rest.kind is Kind.WHOLE:
            yield Data(rest.data[: len(rest.data) // 2], Kind.WHOLE)
        yield End()


@dataclass(frozen=True, slots=True)
class Break(Fault):
    """After ``chunks`` pieces of content the next one comes half, and the connection is closed within the body."""

    chunks: int = 1

    def __post_init__(self) -> None:
        _check_count(self, "chunks")

    def bend(self, parts: Parts, scene: Scene) -> Parts:
        """A torn piece, then a hang-up."""
        rest = yield from until_chunk(parts, self.chunks)
        if isinstance(rest, Data):
            yield Torn(rest.data)
        yield Hangup()


@dataclass(frozen=True, slots=True)
class DoneWithoutFinish(Fault):
    """All content and the terminal ``[DONE]``, but no finish event and no usage. A unary answer is left as it is."""

    def bend(self, parts: Parts, scene: Scene) -> Parts:
        """The parts without finish and usage."""
        for part in parts:
            if not (isinstance(part, Data) and part.kind in (Kind.FINISH, Kind.USAGE)):
                yield part


@dataclass(frozen=True, slots=True)
class ErrorFrame(Fault):
    """After ``chunks`` pieces of content an error event, then the end; with ``then_done`` the terminal event comes between.

    error: the error object. A unary answer becomes a 200 whose body is the error.
    """

    chunks: int = 1
    error: Mapping[str, Any] = field(
        default_factory=lambda: {
            "message": "The server is overloaded.",
            "type": "server_error",
            "param": None,
            "code": None,
        },
        hash=False,
    )
    then_done: bool = False

    def __post_init__(self) -> None:
        _check_count(self, "chunks")
        if not isinstance(self.error, Mapping):
            raise ValueError(f"error: {type(self.error).__name__} is not a mapping")
        try:
            json.dumps(dict(self.error))
        except (TypeError, ValueError) as cause:
            raise ValueError(f"error: is not JSON ({cause})") from None

    def bend(self, parts: Parts, scene: Scene) -> Parts:
        """An error event and the end."""
        rest = yield from until_chunk(rechunked(parts), self.chunks)
        frame = scene.format.error_frame(self.error)
        if isinstance(rest, Data) and rest.kind is Kind.WHOLE:
            yield Data(frame.partition(b"data: ")[2], Kind.WHOLE)
        else:
            yield Data(frame, Kind.FILLER)
            if self.then_done:
                yield Data(scene.format.done_frame(), Kind.DONE)
        yield End()


# --- wrong bytes ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GarbageBytes(Fault):
    """Bytes that mean nothing.

    where: ``"head"``: instead of a status line. ``"body"``: instead of a chunk's size. ``"sse"``: well framed, but as
    an event (or in place of a unary body); the rest of the stream follows.
    chunks: after how many pieces of content, but for ``"head"``.
    """

    where: Literal["head", "body", "sse"] = "sse"
    chunks: int = 0

    def __post_init__(self) -> None:
        _check_member(self, "where", ("head", "body", "sse"))
        _check_count(self, "chunks")

    def bend(self, parts: Parts, scene: Scene) -> Parts:
        """Garbage in its place."""
        if self.where == "head":
            yield Raw(GARBAGE + b"\r\n\r\n")
            yield Hangup()
        elif self.where == "body":
            yield from until_chunk(rechunked(parts), self.chunks)
            yield Raw(GARBAGE + b"\r\n")
            yield Hangup()
        else:
            rest = yield from until_chunk(rechunked(parts), self.chunks)
            if isinstance(rest, Data) and rest.kind is Kind.WHOLE:
                yield Data(GARBAGE, Kind.WHOLE)
            else:
                yield Data(b"data: " + GARBAGE + b"\n\n", Kind.FILLER)
                yield rest
            yield from parts


@dataclass(frozen=True, slots=True)
class WrongContentType(Fault):
    """The right body under the wrong name."""

    content_type: str = "text/html; charset=utf-8"

    def __post_init__(self) -> None:
        _check_header("content_type", self.content_type)

    def bend(self, parts: Parts, scene: Scene) -> Parts:
        """Another content type."""
        for part in parts:
            if isinstance(part, Head):
                part = Head(part.status, (*part.without("content-type").headers, ("content-type", self.content_type)))
            yield part


@dataclass(frozen=True, slots=True)
class OversizedHeader(Fault):
    """A header field with a value of so many bytes."""

    size_bytes: int = 1_048_576

    def __post_init__(self) -> None:
        _check_count(self, "size_bytes")

    def bend(self, parts: Parts, scene: Scene) -> Parts:
        """One more field in the head."""
        for part in parts:
            yield Head(part.status, (*part.headers, ("x-filler", "x" * self.size_bytes))) if isinstance(part, Head) else part


@dataclass(frozen=True, slots=True)
class OversizedEvent(Fault):
    """Before the content, one well-formed event of about so many bytes; a unary body is preceded by as many spaces."""

    size_bytes: int = 20_000_000

    def __post_init__(self) -> None:
        _check_count(self, "size_bytes")

    def bend(self, parts: Parts, scene: Scene) -> Parts:
        """A huge event, made piece by piece."""
        rest = yield from until_chunk(rechunked(parts), 0)
        whole = isinstance(rest, Data) and rest.kind is Kind.WHOLE
        if not whole:
            yield Data(b'data: {"object":"filler","choices":[],"filler":"', Kind.FILLER)
        for piece in _filler(self.size_bytes, b" " if whole else b"x"):
            yield Data(piece, Kind.FILLER)
        if not whole:
            yield Data(b'"}\n\n', Kind.FILLER)
        yield rest
        yield from parts


FAULTS: tuple[type[Fault], ...] = (
    *(Throttle, Status, RotateKeys, SlowFirstByte, NeverRespond, StallAfterHead, StallAfterChunks, PingsOnly, SlowTokens),
    *(DripBytes, CloseWithoutResponse, ResetAtByte, Truncate, Break, DoneWithoutFinish, ErrorFrame, GarbageBytes),
    *(WrongContentType, OversizedHeader, OversizedEvent),
)
"""Every kind."""

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


def _filler(size: int, byte: bytes) -> Iterator[bytes]:
    for at in range(0, size, _OVERSIZED_PIECE):
        yield byte * min(_OVERSIZED_PIECE, size - at)


def _check_duration(fault: Fault, name: str, *, optional: bool = False, least: float = 0.0) -> None:
    value = getattr(fault, name)
    if optional and value is None:
        return
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not least <= value <= _LONGEST_PAUSE:
        raise ValueError(f"{name}: {value!r} is not a number of seconds between {least:g} and {_LONGEST_PAUSE:g}")


def _check_count(fault: Fault, name: str, *, optional: bool = False) -> None:
    value = getattr(fault, name)
    if optional and value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{name}: {value!r} is not a whole number of at least 0")


def _check_header(field_name: str, value: str | None, name: str = "x-any") -> None:
    """Whether this can stand in a header at all: h11 says, now rather than in the middle of an answer."""
    if value is None:
        return
    try:
        h11.Response(status_code=200, headers=[(name.encode("ascii"), value.encode("latin-1"))])
    except (h11.LocalProtocolError, AttributeError, ValueError):
        raise ValueError(f"{field_name}: {value!r} cannot stand in a header") from None


def _check_member(fault: Fault, name: str, allowed: tuple[str, ...]) -> None:
    value = getattr(fault, name)
    if value not in allowed:
        raise ValueError(f"{name}: {value!r} is none of {', '.join(allowed)}")
