"""What of an answer arrives at once, in a world without bytes of HTTP.

The provider plans an answer as parts, and faults bend those (`provider/response_plan.py`). Here they become beats: after so
many seconds, these events of the seam to the wire (a head, body, the end, an error), as the core's own HTTP machines would
have read them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from ...errors import InferenceError, NetworkError, ProtocolError
from ...http import END, HttpEvent, ResponseHead
from ...http_checks import too_large
from ..provider.response_plan import Decline, End, Hangup, Head, Parts, Pause, Raw, Torn, Wire

Beat: TypeAlias = tuple[float, tuple[HttpEvent, ...]]
"""Seconds after the beat before (or after the request arrived), and what comes then."""

Beats: TypeAlias = Iterator[Beat]
"""An answer. One that stops without an end or an error falls silent for ever."""

_OF_A_HEAD: Final = b""
"""Bytes that say nothing yet: a part of a head."""

_LARGEST_BEAT: Final = 256 * 1024
"""More bytes than this never come at once, so that an answer without end costs no memory."""

_TRICKLE_SECONDS: Final = 0.25
"""Single bytes that come within so short a time are one piece: nothing but the cost would differ."""


def beats_of(parts: Parts, mangle: Callable[[Wire], Wire], *, http2: bool) -> Beats:
    """The beats of these parts, after a fault has had its way with their bytes.

    Over HTTP/2 a fault tears down a stream, where over HTTP/1.1 it costs the connection.
    """
    framing = _Framing(parts)
    after, events, size = 0.0, list[HttpEvent](), 0
    for part in _gathered(mangle(framing.wire())):
        if isinstance(part, Pause):
            if events and part.seconds != 0:
                yield after, tuple(events)
                after, events, size = 0.0, [], 0
            if part.seconds is None:
                return
            after += part.seconds
        elif isinstance(part, bytes):
            framing.read(part, events)
            size += len(part)
            if size > _LARGEST_BEAT:
                yield after, tuple(events)
                after, events, size = 0.0, [], 0
        elif isinstance(part, End):
            events.append(END)
        else:
            events.append(_ending(part, http2=http2))
            break
    if events:
        yield after, tuple(events)


def reset_at(beats: Beats, byte: int) -> Beats:
    """The same, but the connection is reset after so many bytes; past the end, nothing happens."""
    return _struck(beats, byte, (0.0, (_connection_reset(),)))


def stalled_at(beats: Beats, byte: int, seconds: float) -> Beats:
    """The same, but after so many bytes nothing comes for ``seconds``."""
    return _struck(beats, byte, (seconds, ()))


def _struck(beats: Beats, byte: int, blow: Beat) -> Beats:
    left = byte
    for after, events in beats:
        size = sum(map(_size, events))
        if size <= left:
            left -= size
            yield after, events
            continue
        before, behind = _cut(events, left)
        pause, error = blow
        if before:
            yield after, before
            after = 0.0
        yield after + pause, error or behind
        if not error:
            yield from beats
        return


def _cut(events: tuple[HttpEvent, ...], byte: int) -> tuple[tuple[HttpEvent, ...], tuple[HttpEvent, ...]]:
    """What came by this byte, which is in these events, and what follows. A head comes with its last byte."""
    at = 0
    while (size := _size(events[at])) <= byte:
        byte -= size
        at += 1
    event, before, behind = events[at], events[:at], events[at + 1 :]
    if isinstance(event, bytes):
        return (*before, event[:byte]) if byte else before, (event[byte:], *behind)
    return (*before, _OF_A_HEAD) if byte else before, (event, *behind)


def _size(event: HttpEvent) -> int:
    if isinstance(event, bytes):
        return len(event)
    return len(_written(event)) if isinstance(event, ResponseHead) else 0


class _Framing:
    """An answer as bytes that a fault may count and cut, and what is read of those that are left."""

    __slots__ = ("_head", "_head_left", "_parts")

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._head = ResponseHead(0)
        self._head_left = 0

    def wire(self) -> Wire:
        """The parts, as far as they are bytes: the head about as HTTP/1.1 would write it, and the body."""
        for part in self._parts:
            if isinstance(part, Head):
                self._head = ResponseHead(part.status, part.headers)
                head = _written(self._head)
                self._head_left = len(head)
                yield head
            elif isinstance(part, Torn):
                yield part.data[: (len(part.data) + 1) // 2]
            else:
                yield part if isinstance(part, (Pause, Raw, End, Hangup, Decline)) else part.data

    def read(self, data: bytes, events: list[HttpEvent]) -> None:
        """Add what these bytes mean. The pieces of a body that come at once are one."""
        if self._head_left and data:
            in_head = min(self._head_left, len(data))
            self._head_left -= in_head
            data = data[in_head:]
            events.append(_OF_A_HEAD if self._head_left else too_large(self._head.headers) or self._head)
        if data:
            if events and isinstance(last := events[-1], bytes):
                events[-1] = last + data
            else:
                events.append(data)


def _written(head: ResponseHead) -> bytes:
    fields = [("HTTP/1.1", str(head.status)), *head.headers]
    return "".join(f"{name}: {value}\r\n" for name, value in fields).encode("latin-1")


def _gathered(wire: Wire) -> Wire:
    """The same, where bytes that trickle in one by one come in drops."""
    drop, waited = b"", 0.0
    for part in wire:
        pause = part.seconds if isinstance(part, Pause) else None
        if isinstance(part, bytes) and len(part) == 1:
            drop += part
        elif pause is not None and waited + pause <= _TRICKLE_SECONDS:
            waited += pause
        else:
            yield Pause(waited)
            yield drop
            drop, waited = b"", pause or 0.0
            if pause is None:
                yield part
    yield Pause(waited)
    yield drop


def _ending(part: Raw | Hangup | Decline, *, http2: bool) -> InferenceError:
    """What a client makes of it, before the answer has ended."""
    if isinstance(part, Raw):
        return ProtocolError("not HTTP: garbage in its framing", retryable=True)
    if http2 and isinstance(part, Decline):
        said = "GOAWAY" if part.go_away else "REFUSED_STREAM"
        return NetworkError(f"the server did not take the request: {said}", unprocessed=True, reset=not part.go_away)
    if http2 and isinstance(part, Hangup) and not part.connection:
        return NetworkError("the server reset the stream: INTERNAL_ERROR", reset=True)
    if isinstance(part, Hangup) and part.reset:
        return _connection_reset()
    return NetworkError("the connection was closed before the response ended")


def _connection_reset() -> NetworkError:
    return NetworkError("ConnectionResetError: connection reset by peer")
