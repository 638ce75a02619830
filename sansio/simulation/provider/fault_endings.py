"""Faults that are an end: before the answer, within it, or one that leaves something out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from .fault import Fault, Scene, check_count, check_member
from .response_plan import Data, Decline, End, Hangup, Kind, Parts, Torn, Wire, rechunked, until_chunk


@dataclass(frozen=True, slots=True)
class CloseWithoutResponse(Fault):
    """The connection is closed in good order as soon as the request was read."""

    def bend(self, parts: Parts, scene: Scene) -> Parts:
        """A hang-up at once."""
        yield Hangup()


@dataclass(frozen=True, slots=True)
class CloseOnReuse(Fault):
    """The race of a kept-alive connection: the server ends the idle connection just as the next request arrives on it.

    Not a byte is answered; the request is not charged any token. It waits for a request on a connection that has carried
    one before and (HTTP/2) has no other at the moment; until then other requests pass unharmed and use nothing up.

    reset: with a reset (RST) rather than in good order (FIN): a client that wrote after the close meets either.
    """

    refuses = True
    needs_reuse = True

    reset: bool = False

    def __post_init__(self) -> None:
        check_member(self, "reset", (False, True))

    def bend(self, parts: Parts, scene: Scene) -> Parts:
        """The end of the connection at once."""
        yield Hangup(reset=self.reset, connection=True)


@dataclass(frozen=True, slots=True)
class RefuseStream(Fault):
    """The server says that it never looked at the request: REFUSED_STREAM (RFC 9113, section 8.7).

    HTTP/1.1 cannot say that: there, the connection is closed without an answer.
    """

    refuses = True

    def bend(self, parts: Parts, scene: Scene) -> Parts:
        """A refusal at once."""
        yield Decline()


@dataclass(frozen=True, slots=True)
class GoAway(Fault):
    """The server takes no more requests on this connection, from this one on: GOAWAY (RFC 9113, section 6.8).

    This request, and any later one on the connection, is to be sent again elsewhere; those before it are answered, and
    then the connection is closed. HTTP/1.1 cannot say that: there, the connection is closed without an answer.
    """

    refuses = True

    def bend(self, parts: Parts, scene: Scene) -> Parts:
        """A farewell at once."""
        yield Decline(go_away=True)


@dataclass(frozen=True, slots=True)
class ResetAtByte(Fault):
    """The connection is reset after ``byte`` bytes of the response: 0 is before the first. Past the end, nothing happens.

    Over HTTP/2 the stream is reset, and the bytes are those of the header fields and of the body, without framing.
    """

    byte: int

    def __post_init__(self) -> None:
        check_count(self, "byte")

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
        check_count(self, "chunks")

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
        check_count(self, "chunks")

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
        check_count(self, "chunks")
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
