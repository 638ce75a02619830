"""One request in a world of tasks: the steps of its `RemoteWorker`, awaited. The same on asyncio and on trio.

A *line* is one request's use of a connection: over HTTP/1.1 a connection has one line at a time, over HTTP/2 many at once.
Leaving awaits nothing, so nothing can interrupt it half-way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Protocol, assert_never

from sansio import HttpEvent, HttpRequest, InferenceError, RemoteWorker, TokenChunk
from sansio.worker import Connect, Deliver, Discard, Finish, Park, Post, Raise, Receive, Send

from .engine_front import EngineFront, TimedClient


class AsyncLine(Protocol):
    """One request's use of a connection. ``interrupt`` and ``let_go`` never wait."""

    reused: bool
    """Once open: whether the connection has carried a request before."""

    async def open(self, request: HttpRequest, timeout: float, *, fresh: bool, sending: Callable[[], None]) -> None:
        """Get a connection, within ``timeout`` seconds: from the pool unless ``fresh``, or a new one.

        A client that connects and sends in one does both, and calls ``sending`` in between. Raises `OSError` or
        `InferenceError`.
        """
        ...

    async def send(self, request: HttpRequest) -> None:
        """Send the request. Raises `OSError` or `InferenceError`."""
        ...

    async def receive(self) -> Sequence[HttpEvent]:
        """Wait for bytes, and say what they mean. Raises `OSError` or `InferenceError`."""
        ...

    def interrupt(self) -> None:
        """Wake whoever waits on this line: it fails with an `OSError`."""
        ...

    def let_go(self, *, keep: bool) -> None:
        """Part with the connection, wherever it stands. ``keep``: it ended well, another may follow. Idempotent."""
        ...


class AsyncClient(TimedClient, Protocol):
    """Who moves the bytes."""

    def line(self) -> AsyncLine:
        """For one request. Not connected yet."""
        ...

    async def aclose(self) -> None:
        """Close every connection, and from now on each one given back."""
        ...


class AsyncTokenStream(ABC):
    """One request: an async context manager that gives an async iterator of `TokenChunk`. For one task at a time."""

    def __init__(self, engine: EngineFront[Any, Any], client: AsyncClient, worker: RemoteWorker) -> None:
        self.worker = worker
        self._engine = engine
        self._client = client
        self._line: AsyncLine | None = None

    @abstractmethod
    def wake(self) -> None:
        """The caller is parked, and has an order."""

    @abstractmethod
    async def _park(self) -> None:
        """Wait until `wake`, or return at once if it came before."""

    async def __aenter__(self) -> AsyncIterator[TokenChunk]:
        self._engine.register(self)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.let_go(keep=False)  # also what was still connecting
        self._engine.hang_up(self)

    def __aiter__(self) -> AsyncIterator[TokenChunk]:
        return self

    async def __anext__(self) -> TokenChunk:
        if self.worker.chunks:
            return self.worker.chunks.popleft()
        self._engine.enter(self)
        try:
            chunk = await self._advance()
        finally:
            self._engine.step_away(self)
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def collect(self) -> list[TokenChunk]:
        """Every chunk there will be, for a caller that never steps away in between."""
        async with self:
            self._engine.enter(self)
            chunks: list[TokenChunk] = []
            while (chunk := await self._advance()) is not None:
                chunks.append(chunk)
            return chunks

    async def _advance(self) -> TokenChunk | None:
        """The next chunk, ``None`` at the end."""
        now = self._engine.now()
        while True:
            match self.worker.step(now):
                case Receive():
                    now = await self._receive()
                case Deliver(chunk):
                    return chunk
                case Post(event):
                    self._engine.tell(event)
                case Park():
                    await self._park()
                    now = self._engine.now()
                case Connect() as step:
                    await self._connect(step)
                    now = self._engine.now()
                case Send(request):
                    await self._send(request)
                    now = self._engine.now()
                case Discard(keep):
                    self.let_go(keep=keep)
                case Finish():
                    return None
                case Raise(error):
                    raise error
                case step:
                    assert_never(step)

    async def _connect(self, step: Connect) -> None:
        line = self._line = self._client.line()
        try:
            await line.open(step.request, step.timeout, fresh=step.fresh, sending=self._sending)
        except BaseException as error:
            self.let_go(keep=False)  # also when called off: the caller may come back, and connects anew
            if not isinstance(error, (OSError, InferenceError)):
                raise
            self.worker.failed(error, self._engine.now())
        else:
            self.worker.connected(reused=line.reused)

    def _sending(self) -> None:
        self.worker.sending(self._engine.now())

    async def _send(self, request: HttpRequest) -> None:
        assert self._line is not None
        try:
            await self._line.send(request)
        except (OSError, InferenceError) as error:
            self.worker.send_failed(error)

    async def _receive(self) -> float:
        """Returns the time, which then need not be read again."""
        assert self._line is not None
        try:
            events = await self._line.receive()
        except (OSError, InferenceError) as error:
            now = self._engine.now()
            self.worker.failed(error, now)
        else:
            now = self._engine.now()
            self.worker.received(events, now, self._engine.unix_now())
        return now

    def interrupt(self) -> None:
        """Wake the caller from its line."""
        if (line := self._line) is not None:
            line.interrupt()

    def let_go(self, *, keep: bool) -> None:
        """Part with the line: its connection goes back to the client, or is closed."""
        line, self._line = self._line, None
        if line is not None:
            line.let_go(keep=keep)
