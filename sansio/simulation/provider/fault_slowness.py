"""Faults of time: answers that come late, slowly, in drops, or never."""

from __future__ import annotations

from dataclasses import dataclass

from .fault import FOREVER, SHORTEST_BEAT, Fault, Scene, check_count, check_duration
from .response_plan import PING, Data, Head, Kind, Parts, Pause, Wire, rechunked, until_chunk


@dataclass(frozen=True, slots=True)
class SlowFirstByte(Fault):
    """The head comes ``seconds`` late."""

    seconds: float

    def __post_init__(self) -> None:
        check_duration(self, "seconds")

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
        check_duration(self, "seconds", optional=True)

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
        check_count(self, "chunks")
        check_duration(self, "seconds", optional=True)

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
        check_duration(self, "interval", least=SHORTEST_BEAT)
        check_count(self, "count", optional=True)

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
        check_duration(self, "interval")

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
        check_duration(self, "interval")

    def mangle(self, wire: Wire) -> Wire:
        """A pause before each byte."""
        for part in wire:
            if isinstance(part, bytes):
                for at in range(len(part)):
                    yield Pause(self.interval)
                    yield part[at : at + 1]
            else:
                yield part
