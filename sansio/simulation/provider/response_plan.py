"""A response as a lazy sequence of timed parts: what a fault bends before it reaches the wire.

An answer is planned as parts (pause, head, pieces of body, end). A fault rewrites that sequence: it drops parts, puts
pauses or garbage between them, or hangs up. The connection then frames the parts, as HTTP/1.1 (`mock_http1.py`) or HTTP/2
(`mock_http2.py`), and sends each when it is due. Parts are drawn one at a time, so an answer without end costs no memory.
"""

from __future__ import annotations

import enum
from collections.abc import Generator, Iterator
from dataclasses import dataclass


class Kind(enum.Enum):
    """What a piece of body is, so that a fault can find its place."""

    ROLE = "role"
    CONTENT = "content"
    FINISH = "finish"
    USAGE = "usage"
    DONE = "done"
    PING = "ping"
    WHOLE = "whole"
    """All of a unary body."""
    FILLER = "filler"
    """Something a fault put there."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing for so many seconds, or for ever (``None``)."""

    seconds: float | None


@dataclass(frozen=True, slots=True)
class Head:
    """Status line and header fields. Without a ``content-length`` the body is sent chunked."""

    status: int
    headers: tuple[tuple[str, str], ...]

    @property
    def is_stream(self) -> bool:
        """Whether it announces an event stream."""
        return ("content-type", "text/event-stream; charset=utf-8") in self.headers

    def chunked(self) -> Head:
        """The same head without a length, for a body whose length a fault changes."""
        return self.without("content-length")

    def without(self, *names: str) -> Head:
        """The same head without these fields (lower-case names)."""
        return Head(self.status, tuple(field for field in self.headers if field[0] not in names))


@dataclass(frozen=True, slots=True)
class Data:
    """A piece of body: one event of a stream, or all of a unary body."""

    data: bytes
    kind: Kind


@dataclass(frozen=True, slots=True)
class Torn:
    """A piece of body of which only the first half goes out, framing included: the connection must end here."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes that go out as they are, past all framing: the connection must end soon after."""

    data: bytes


@dataclass(frozen=True, slots=True)
class End:
    """The body ends as its framing says."""


@dataclass(frozen=True, slots=True)
class Hangup:
    """The exchange is torn down.

    Over HTTP/1.1 the connection ends: in good order (FIN), or with a reset (RST). Over HTTP/2 the stream is reset; where the
    body had ended already, or with ``connection``, the connection ends there too.
    """

    reset: bool = False
    connection: bool = False


@dataclass(frozen=True, slots=True)
class Decline:
    """The request was not looked at, and should be sent again: REFUSED_STREAM or, with ``go_away``, GOAWAY.

    Over HTTP/1.1 the connection is closed.
    """

    go_away: bool = False


Part = Pause | Head | Data | Torn | Raw | End | Hangup | Decline
Parts = Iterator[Part]
Wire = Iterator[Pause | bytes | Raw | End | Hangup | Decline]
"""The same, as bytes where a fault may count and cut them. HTTP/1.1 has nothing but bytes, pauses and the ends that come too
early; HTTP/2 keeps what is no byte of a stream."""

PING = b": ping\n\n"
"""An SSE comment: bytes, but no event (WHATWG HTML, section 9.2.6)."""


def unary_plan(head: Head, body: bytes) -> Parts:
    """A whole body with its length."""
    yield Head(head.status, (*head.without("content-length").headers, ("content-length", str(len(body)))))
    yield Data(body, Kind.WHOLE)
    yield End()


def stream_plan(head: Head, frames: Iterator[Data], token_delay: float) -> Parts:
    """A stream: each content event comes ``token_delay`` seconds after what was before it."""
    yield head
    for frame in frames:
        if frame.kind is Kind.CONTENT and token_delay:
            yield Pause(token_delay)
        yield frame
    yield End()


def delayed(parts: Parts, seconds: float) -> Parts:
    """The same parts, ``seconds`` later."""
    if seconds:
        yield Pause(seconds)
    yield from parts


def with_pings(parts: Parts, interval: float) -> Parts:
    """A ping after every ``interval`` seconds of silence within a stream (not before its head)."""
    streaming = False
    for part in parts:
        if isinstance(part, Head):
            streaming = part.is_stream
        elif streaming and isinstance(part, Pause) and part.seconds is not None:
            rest = part.seconds
            while rest > interval:
                yield Pause(interval)
                yield Data(PING, Kind.PING)
                rest -= interval
            part = Pause(rest)
        yield part


def until_chunk(parts: Parts, chunks: int) -> Generator[Part, None, Part]:
    """Yields what comes before the place "after ``chunks`` pieces of content", and returns the part that is next.

    A stream with fewer pieces is cut before its finish event; a unary body counts as one piece and is cut before it.
    """
    for part in parts:
        if isinstance(part, Data):
            if part.kind in (Kind.WHOLE, Kind.FINISH) or (part.kind is Kind.CONTENT and chunks == 0):
                return part
            chunks -= part.kind is Kind.CONTENT
        yield part
    return End()


def rechunked(parts: Parts) -> Parts:
    """The same parts with a chunked body, so that its length may change."""
    for part in parts:
        yield part.chunked() if isinstance(part, Head) else part
