"""Every decoder of server-sent events behind one function: pieces of bytes in, the number of events out."""

from __future__ import annotations

import importlib
import json
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import foreign
from benchmarks.machine import version
from benchmarks.timing import cpu_seconds
from sansio import SseDecoder

from .line_loop import LineLoop

OURS = "ours: SseDecoder"
NODE = "Node eventsource-parser"
RUST = "Rust eventsource-stream"
LINE_LOOP = "plain line loop"

LONG_ENOUGH = 0.15
"""Seconds of one round after which a slow decoder is not asked to repeat."""

Count = Callable[[Iterable[bytes]], int]


def _fed(make: Callable[[], Any]) -> Count:
    def count(pieces: Iterable[bytes]) -> int:
        feed, events = make().feed, 0
        for piece in pieces:
            for _ in feed(piece):  # each is touched: the others hand theirs out one by one, and pay for that
                events += 1
        return events

    return count


def _httpx_sse(pieces: Iterable[bytes]) -> int:
    """Its two decoders as its event source puts them together, without the response of httpx around it."""
    decoders: Any = importlib.import_module("httpx_sse._decoders")
    lines, decoder, events = decoders.SSELineDecoder(), decoders.SSEDecoder(), 0
    for piece in pieces:
        for line in lines.decode(piece.decode()):
            if decoder.decode(line.rstrip("\n")) is not None:
                events += 1
    return events


def _of_sdk(module: str) -> Count:
    def count(pieces: Iterable[bytes]) -> int:
        decoder: Any = importlib.import_module(f"{module}._streaming").SSEDecoder()
        return sum(1 for _ in decoder.iter_bytes(iter(pieces)))

    return count


def _sseclient(pieces: Iterable[bytes]) -> int:
    sseclient: Any = importlib.import_module("sseclient")
    return sum(1 for _ in sseclient.SSEClient(iter(pieces)).events())


@dataclass(frozen=True, slots=True)
class Decoder:
    """One contender. A round is the least of several passes, in this process as in others.

    count: for those of this process. command: for those of another.
    """

    name: str
    count: Count | None = None
    command: tuple[str, ...] | None = None
    version: str | None = None
    missing: str | None = None

    def seconds(self, sample: Sample) -> float:
        """The CPU time of one pass over a sample: the least of several."""
        if self.count is None:
            assert self.command is not None
            arguments = [str(sample.file), str(sample.piece_bytes), str(sample.repeats), str(sample.events)]
            run = subprocess.run([*self.command, *arguments], check=True, capture_output=True, text=True)
            return float(json.loads(run.stdout)["seconds"])
        count, seen = self.count, 0

        def work() -> None:
            nonlocal seen
            seen = count(sample.pieces)

        passes = [cpu_seconds(work)]
        while len(passes) < sample.repeats and sum(passes) < LONG_ENOUGH:
            passes.append(cpu_seconds(work, tidy=False))
        if seen != sample.events:
            raise RuntimeError(f"{self.name}: {seen} events of {sample.events}")
        return min(passes)


class Sample:
    """One stream in pieces, in memory and in a file. piece_bytes 0: a piece is an event."""

    def __init__(self, folder: Path, events: list[bytes], piece_bytes: int, repeats: int) -> None:
        self.events, self.piece_bytes, self.repeats = len(events), piece_bytes, repeats
        whole = b"".join(events)
        self.bytes = len(whole)
        self.pieces = [whole[at : at + piece_bytes] for at in range(0, len(whole), piece_bytes)] if piece_bytes else events
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            file.write(whole)
        self.file = Path(file.name)


def decoders(peers: Path, *, other_languages: bool) -> list[Decoder]:
    """All of them, also those that are missing."""
    found = [Decoder(OURS, _fed(SseDecoder)), Decoder(LINE_LOOP, _fed(LineLoop))]
    for name, command in ((NODE, foreign.node_parser(peers)), (RUST, foreign.rust_decoder(peers))):
        missing = foreign.HOW if command is None else None if other_languages else "left out by --quick"
        found.append(Decoder(name, command=tuple(command or ()), version=foreign.version_of(name, peers), missing=missing))
    counts = {"httpx-sse": _httpx_sse, "sseclient-py": _sseclient}
    for package in ("httpx-sse", "anthropic", "openai", "groq", "sseclient-py"):
        number = version(package)
        count = counts.get(package) or _of_sdk(package)
        found.append(Decoder(package, count, version=number, missing=None if number else foreign.NOT_INSTALLED))
    return found
