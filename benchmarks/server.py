"""The server of the client tables: fixed bytes at once, so that what is measured is the client.

A process of its own (``python -m benchmarks.server``). The path says how to answer, ``/<way>/<events>/v1/chat/completions``:

- ``unary``: one JSON answer.
- ``burst``: a whole stream in one write, a chunk an event.
- ``paced``: every `STEP` seconds one event to each paced stream that is open, in one go.
- ``staggered``: one event every `GAP` seconds, in turn to every staggered stream that is open.
- ``silent``: one event, then nothing until somebody asks for ``/release``.

For the client tables it never sleeps, but looks for work all the time: to wake a sleeping core can cost the client's
``send`` more than all else it does (on a virtual machine, where that is an exit to the host), and then a client would be
charged for the server's idleness, the more the slower it is.

It prints the ports it listens on as one line of JSON and lives until its standard input is closed. HTTP/2 (prior
knowledge) is served where h2 is installed, see `benchmarks.server_http2`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
import selectors
import sys
import time
from collections import deque
from typing import Protocol

from .machine import SERVER_CORE, allow_many_files, pin
from .workload import openai_event, openai_tail, unary_answer

STEP = 0.025
"""Seconds between two events of a paced stream."""

GAP = 0.0005
"""Seconds between two events of all the staggered streams together."""

_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_UNARY_BODY = unary_answer()
_UNARY = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_1\r\ncontent-length: %d\r\n\r\n"
    % len(_UNARY_BODY)
) + _UNARY_BODY
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nx-request-id: req_1\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


class Answer(Protocol):
    """One open stream, over whichever version of HTTP."""

    def event(self) -> bool:
        """Send the next event, or the end where no more are due. Returns whether more are due."""
        ...

    def rest(self) -> None:
        """Send all that is due."""
        ...


class Streams:
    """The open streams that wait for something."""

    def __init__(self) -> None:
        self.silent: list[Answer] = []
        self._paced: list[Answer] = []
        self._staggered: deque[Answer] = deque()
        self._due = 0.0

    def pace(self, answer: Answer) -> None:
        """From now on this one gets its event with all the others."""
        self._paced.append(answer)
        if len(self._paced) == 1:
            asyncio.get_running_loop().call_later(STEP, self._step)

    def _step(self) -> None:
        self._paced = [answer for answer in self._paced if answer.event()]
        if self._paced:
            asyncio.get_running_loop().call_later(STEP, self._step)

    def stagger(self, answer: Answer) -> None:
        """From now on this one gets its event in turn."""
        self._staggered.append(answer)
        if len(self._staggered) == 1:
            loop = asyncio.get_running_loop()
            self._due = loop.time() + GAP
            loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while self._staggered and self._due <= loop.time():
            self._due += GAP
            answer = self._staggered.popleft()
            if answer.event():
                self._staggered.append(answer)
        if self._staggered:
            loop.call_at(self._due, self._tick)

    def release(self) -> None:
        """Let the silent ones go on."""
        released, self.silent = self.silent, []
        for answer in released:
            answer.rest()


class ChunkedAnswer:
    """A stream in the chunked coding, a chunk an event."""

    def __init__(self, transport: asyncio.Transport, events: int) -> None:
        self._transport = transport
        self._events = events
        self._sent = 0

    def event(self) -> bool:
        """Send the next event, or the end where no more are due. Returns whether more are due."""
        if self._sent == self._events:
            self._transport.write(_chunk(openai_tail(self._events)) + b"0\r\n\r\n")
            return False
        self._transport.write(_chunk(openai_event(self._sent)))
        self._sent += 1
        return True

    def rest(self) -> None:
        """Send all that is due."""
        while self.event():
            pass


class Connection(asyncio.Protocol):
    """One HTTP/1.1 connection: whole requests in, fixed bytes out."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the connection stands."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes came."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n") + 4) > 3:
            length = _CONTENT_LENGTH.search(self._buffer, 0, end)
            end += int(length[1]) if length else 0
            if len(self._buffer) < end:
                return
            target = self._buffer.split(b" ", 2)[1]
            self._buffer = self._buffer[end:]
            self._answer(target.decode())

    def _answer(self, target: str) -> None:
        _, way, *rest = target.split("/")
        if way == "release":
            self._streams.release()
        if way in ("release", "unary"):
            self._transport.write(_UNARY)
            return
        events = int(rest[0])
        if way == "burst":
            self._transport.write(burst(events))
            return
        self._transport.write(_STREAM_HEAD)
        answer = ChunkedAnswer(self._transport, events)
        if way == "paced":
            self._streams.pace(answer)
        elif way == "staggered":
            self._streams.stagger(answer)
        else:
            answer.event()
            self._streams.silent.append(answer)


_bursts: dict[int, bytes] = {}


def burst(events: int) -> bytes:
    """A whole streamed answer, made once."""
    if events not in _bursts:
        chunks = b"".join(_chunk(openai_event(number)) for number in range(events))
        _bursts[events] = _STREAM_HEAD + chunks + _chunk(openai_tail(events)) + b"0\r\n\r\n"
    return _bursts[events]


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def main() -> None:
    """Listen, say where, and wait for the end of standard input."""
    loop = asyncio.get_running_loop()
    streams = Streams()
    server = await loop.create_server(lambda: Connection(streams), "127.0.0.1", 0, backlog=4096)
    ports = {"http1": server.sockets[0].getsockname()[1]}
    with contextlib.suppress(ModuleNotFoundError):
        from .server_http2 import Http2Connection

        second = await loop.create_server(lambda: Http2Connection(streams), "127.0.0.1", 0, backlog=4096)
        ports["http2"] = second.sockets[0].getsockname()[1]
    sys.stdout.write(json.dumps(ports) + "\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)


class Wakeful(selectors.EpollSelector):
    """A selector that never sleeps."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready, or nothing when the time is up."""
        give_up_at = math.inf if timeout is None else time.monotonic() + timeout
        while not (ready := super().select(0)) and time.monotonic() < give_up_at:
            pass
        return ready


def run() -> None:
    """Run it. ``many``: thousands of connections, and asleep while nothing is to be done."""
    pin(SERVER_CORE)
    allow_many_files()
    many = "many" in sys.argv[1:]
    selector: selectors.BaseSelector = selectors.DefaultSelector() if many else Wakeful()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        runner.run(main())


if __name__ == "__main__":
    run()
