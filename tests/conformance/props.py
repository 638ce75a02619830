"""What a test holds in its hand while requests run: faults that wait for it, and a vault that does."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from sansio import Credential, Secret
from sansio.simulation import Fault
from sansio.simulation.provider.faults import Scene
from sansio.simulation.provider.response_plan import Data, End, Hangup, Kind, Parts, Pause, until_chunk

OLD, NEW = "sk-old-0123456789abcdef0123", "sk-new-0123456789abcdef0123"
"""What a `Vault` may give out, one after the other."""


@dataclass(frozen=True, slots=True)
class Held(Fault):
    """The answer (or what ``then`` makes of it) waits until the test opens ``gate``: before its head, or after ``chunks``
    pieces of content. ``every``: how often it looks; where hundreds wait, seldom."""

    gate: threading.Event
    chunks: int | None = None
    then: Fault | None = None
    every: float = 0.005

    def bend(self, parts: Parts, scene: Scene) -> Parts:
        """Short pauses until the gate is open."""
        parts = parts if self.then is None else self.then.bend(parts, scene)
        rest = None if self.chunks is None else (yield from until_chunk(parts, self.chunks))
        while not self.gate.is_set():
            yield Pause(self.every)
        if rest is not None:
            yield rest
        yield from parts


@dataclass(frozen=True, slots=True)
class HangUpWhenIdle(Fault):
    """A whole answer; then, once the test opens ``gate``, the server closes or resets the kept-alive connection."""

    gate: threading.Event
    reset: bool

    def bend(self, parts: Parts, scene: Scene) -> Parts:
        """The answer, a wait, a hang-up."""
        for part in parts:
            yield part
            if isinstance(part, End):
                break
        while not self.gate.is_set():
            yield Pause(0.005)
        yield Hangup(reset=self.reset)


@dataclass(frozen=True, slots=True)
class Flood(Fault):
    """After ``chunks`` pieces of content, so many MiB of comments; ``sent`` grows with each MiB that the socket took."""

    chunks: int
    mebibytes: int
    sent: list[int] = field(default_factory=list[int])

    def bend(self, parts: Parts, scene: Scene) -> Parts:
        """Comments in the middle: bytes that mean nothing, and cost next to nothing to read."""
        rest = yield from until_chunk(parts, self.chunks)
        for number in range(self.mebibytes):
            for _ in range(16):
                yield Data(b": " + b"x" * 65_532 + b"\n\n", Kind.PING)
            self.sent.append(number)
        yield rest
        yield from parts


@dataclass(frozen=True, slots=True)
class BreakAfterFinish(Fault):
    """All content and its finish event; then, instead of usage and the terminal event, the connection is closed."""

    def bend(self, parts: Parts, scene: Scene) -> Parts:
        """The answer up to its proof of completeness, and a hang-up."""
        for part in parts:
            yield part
            if isinstance(part, Data) and part.kind is Kind.FINISH:
                break
        yield Hangup()


class Vault:
    """Gives out its keys one after the other, the last one for ever; ``gate`` holds back all but the first."""

    def __init__(self, *keys: str | Credential | Exception) -> None:
        self.keys = list(keys)
        self.calls = 0
        self.gate = threading.Event()
        self.gate.set()

    def fetch(self) -> str | Credential:
        self.calls += 1
        if self.calls > 1:
            assert self.gate.wait(30.0)
        key = self.keys[min(self.calls, len(self.keys)) - 1]
        if isinstance(key, Exception):
            raise key
        return key

    @property
    def secret(self) -> Secret:
        return Secret.from_callable(self.fetch)
