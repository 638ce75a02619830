"""Faults that are wrong bytes: garbage in every place, a wrong name for the right thing, too much of something."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from .fault import Fault, Scene, check_count, check_header, check_member
from .response_plan import Data, Hangup, Head, Kind, Parts, Raw, rechunked, until_chunk

GARBAGE: Final = bytes(range(128, 256)) + b"\x00\xff\xfe{]<\r"
"""Bytes that are neither HTTP nor UTF-8 nor JSON."""

_OVERSIZED_PIECE: Final = 65_536


@dataclass(frozen=True, slots=True)
class GarbageBytes(Fault):
    """Bytes that mean nothing. In ``"head"`` and ``"body"`` they cost the whole connection, over HTTP/2 too.

    where: ``"head"``: instead of a status line. ``"body"``: instead of a chunk's size. ``"sse"``: well framed, but as
    an event (or in place of a unary body); the rest of the stream follows.
    chunks: after how many pieces of content, but for ``"head"``.
    """

    where: Literal["head", "body", "sse"] = "sse"
    chunks: int = 0

    def __post_init__(self) -> None:
        check_member(self, "where", ("head", "body", "sse"))
        check_count(self, "chunks")

    def bend(self, parts: Parts, scene: Scene) -> Parts:
        """Garbage in its place."""
        if self.where == "head":
            yield Raw(GARBAGE + b"\r\n\r\n")
            yield Hangup(connection=True)
        elif self.where == "body":
            yield from until_chunk(rechunked(parts), self.chunks)
            yield Raw(GARBAGE + b"\r\n")
            yield Hangup(connection=True)
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
        check_header("content_type", self.content_type)

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
        check_count(self, "size_bytes")

    def bend(self, parts: Parts, scene: Scene) -> Parts:
        """One more field in the head."""
        for part in parts:
            yield Head(part.status, (*part.headers, ("x-filler", "x" * self.size_bytes))) if isinstance(part, Head) else part


@dataclass(frozen=True, slots=True)
class OversizedEvent(Fault):
    """Before the content, one well-formed event of about so many bytes; a unary body is preceded by as many spaces."""

    size_bytes: int = 20_000_000

    def __post_init__(self) -> None:
        check_count(self, "size_bytes")

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


def _filler(size: int, byte: bytes) -> Iterator[bytes]:
    for at in range(0, size, _OVERSIZED_PIECE):
        yield byte * min(_OVERSIZED_PIECE, size - at)
