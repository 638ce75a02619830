"""What the tests of the general clients stand on: a server that says exactly what it is told to, and one way to drive a line
in each of the three worlds."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import trio

from drivers.asyncio_driver import general as on_asyncio
from drivers.front.choice import Choice
from drivers.sync_driver import general as with_threads
from drivers.trio_driver import general as on_trio
from sansio import HttpEvent, HttpRequest, PoolConfig

PATIENCE = 20.0
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
MODULES = ("httpx", "httpx2")
WORLDS = ("sync", "asyncio", "trio")

KEEP, CLOSE, RESET, HOLD = "keep", "close", "reset", "hold"
"""What a server does after an answer: read the next request, hang up, reset, or wait for the client to hang up."""


def eventually(condition: Callable[[], object]) -> None:
    """Wait until it is true."""
    give_up_at = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up_at, "this never came true"
        time.sleep(0.002)


# ---- a server --------------------------------------------------------------------------------------------------------


@dataclass
class Scripted:
    """Answers the n-th request with the n-th answer, whatever it is; the last one for ever."""

    answers: Sequence[tuple[bytes, str]]
    port: int = 0
    requests: list[bytes] = field(default_factory=list[bytes])
    delay: float = 0.0
    """Seconds before each answer."""
    later: bytes = b""
    """What follows each answer a moment later."""
    left: int = 0
    """How many connections the client has closed."""

    def request(self, **settings: Any) -> HttpRequest:
        """A request to this server."""
        defaults: dict[str, Any] = {"method": "POST", "path": "/v1/chat", "headers": (), "body": b"{}"}
        defaults.update(settings)
        path = defaults.pop("path")
        return HttpRequest(url=f"http://127.0.0.1:{self.port}{path}", **defaults)

    def converse(self, known: socket.socket) -> None:
        """One connection, from its first request to its end."""
        with known, contextlib.suppress(OSError):
            while (request := _read_request(known)) is not None:
                self.requests.append(request)
                answer, then = self.answers[min(len(self.requests), len(self.answers)) - 1]
                time.sleep(self.delay)
                known.sendall(answer)
                if self.later:
                    time.sleep(0.01)
                    known.sendall(self.later)
                if then == HOLD:
                    while known.recv(65536):
                        pass
                    break
                if then == RESET:
                    known.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                if then in (CLOSE, RESET):
                    return
        self.left += 1


def _read_request(known: socket.socket) -> bytes | None:
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := known.recv(65536)):
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    while len(body) < length:
        body += known.recv(65536)
    return head + b"\r\n\r\n" + body


@contextmanager
def scripted(*answers: tuple[bytes, str]) -> Iterator[Scripted]:
    """A server on a real socket. No thread of it is left afterwards."""
    server = Scripted(answers or [(OK, KEEP)])
    with listening(server.converse) as port:
        server.port = port
        yield server


@contextmanager
def listening(converse: Callable[[socket.socket], None]) -> Iterator[int]:
    """Accept connections, each in a thread of its own."""
    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    known, _ = listener.accept()
                    threads.append(threading.Thread(target=converse, args=(known,)))
                    threads[-1].start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for thread in threads:
                thread.join(PATIENCE)
                assert not thread.is_alive(), "a connection was left open"


# ---- lines -----------------------------------------------------------------------------------------------------------


class Line(Protocol):
    """A line of any world, awaited."""

    reused: bool

    async def open(self, request: HttpRequest, timeout: float, *, fresh: bool, sending: Callable[[], None]) -> None: ...

    async def receive(self) -> Sequence[HttpEvent]: ...

    def interrupt(self) -> None: ...

    def let_go(self, *, keep: bool) -> None: ...


class Awaited:
    """A blocking line, as if it were awaited."""

    def __init__(self, line: Any) -> None:
        self.line = line

    @property
    def reused(self) -> bool:
        return bool(self.line.reused)

    async def open(self, request: HttpRequest, timeout: float, *, fresh: bool, sending: Callable[[], None]) -> None:
        self.line.open(request, timeout, fresh=fresh, sending=sending)
        self.line.send(request)

    async def receive(self) -> Sequence[HttpEvent]:
        events: Sequence[HttpEvent] = self.line.receive()
        return events

    def interrupt(self) -> None:
        self.line.interrupt()

    def let_go(self, *, keep: bool) -> None:
        self.line.let_go(keep=keep)


@dataclass(frozen=True)
class World:
    """One driver with one of the two libraries."""

    driver: str
    module: str

    def __str__(self) -> str:
        return f"{self.driver}-{self.module}"

    @property
    def library(self) -> Any:
        return __import__(self.module)

    def given(self, **settings: Any) -> Any:
        """A client as a user builds it."""
        return (self.library.Client if self.driver == "sync" else self.library.AsyncClient)(**settings)

    def run(self, scenario: Callable[[Any], Awaitable[None]], given: Any = None, pool: PoolConfig | None = None) -> None:
        """Run a scenario with a client, and close it."""
        builder = {"sync": with_threads, "asyncio": on_asyncio, "trio": on_trio}[self.driver]
        choice = Choice(self.module, given=given)

        async def awaited() -> None:
            client = builder.general_client(choice, None, pool)
            try:
                await scenario(client)
            finally:
                await client.aclose()
                if given is not None:
                    await given.aclose()

        async def blocking() -> None:
            client: Any = builder.general_client(choice, None, pool)
            try:
                await scenario(client)
            finally:
                client.close()
                if given is not None:
                    given.close()

        if self.driver == "sync":
            run_without_waiting(blocking())
        elif self.driver == "asyncio":
            asyncio.run(awaited())
        else:
            trio.run(awaited)

    def line(self, client: Any) -> Line:
        """A line of the client."""
        line: Line = Awaited(client.line()) if self.driver == "sync" else client.line()
        return line


def run_without_waiting(work: Coroutine[Any, Any, None]) -> None:
    """Run what awaits nothing that waits."""
    with contextlib.suppress(StopIteration):
        work.send(None)
        raise AssertionError("it waited")


ALL = [World(driver, module) for driver in WORLDS for module in MODULES]


async def ask(world: World, client: Any, request: HttpRequest, *, fresh: bool = False, timeout: float = 10.0) -> Any:
    """An open line."""
    line = world.line(client)
    try:
        await line.open(request, timeout, fresh=fresh, sending=lambda: None)
    except BaseException:
        line.let_go(keep=False)
        raise
    return line


async def read(line: Any) -> list[HttpEvent]:
    """Everything up to the end."""
    events: list[HttpEvent] = []
    while not events or isinstance(events[-1], bytes) or getattr(events[-1], "status", None) is not None:
        events += await line.receive()
    return events


async def exchange(world: World, client: Any, request: HttpRequest, **settings: Any) -> tuple[list[HttpEvent], bool]:
    """A whole exchange, with its connection kept: what came, and whether it went over a connection used before."""
    line = await ask(world, client, request, **settings)
    try:
        events = await read(line)
    except BaseException:
        line.let_go(keep=False)
        raise
    line.let_go(keep=True)
    return events, line.reused
