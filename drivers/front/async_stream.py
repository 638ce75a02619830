"""One request in a world of tasks: the steps of its `RemoteWorker`, awaited. The same on asyncio and on trio.

Leaving awaits nothing, so nothing can interrupt it half-way.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import Any, Generic, Protocol, TypeVar, assert_never

from sansio import HttpEvent, HttpRequest, InferenceError, Origin, RemoteWorker, TokenChunk
from sansio.worker import Connect, Deliver, Discard, Finish, Park, Post, Raise, Receive, Send

from .engine_front import EngineFront


class AsyncConnection(Protocol):
    """One connection of a client. ``interrupt`` and ``close`` never wait."""

    async def send(self, request: HttpRequest) -> None:
        """Send a request. Raises `OSError`."""
        ...

    async def receive(self) -> Sequence[HttpEvent]:
        """Wait for bytes, and say what they mean. Raises `OSError`."""
        ...

    def interrupt(self) -> None:
        """Wake whoever waits on this connection, and close it."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


ConnectionT = TypeVar("ConnectionT", bound=AsyncConnection)


class AsyncClient(Protocol[ConnectionT]):
    """Who moves the bytes."""

    def reuse(self, origin: Origin) -> ConnectionT | None:
        """An idle connection that is still fit, or ``None``."""
        ...

    def new(self, origin: Origin) -> ConnectionT:
        """A connection that is not open yet."""
        ...

    async def open(self, connection: ConnectionT) -> None:
        """Connect it. Raises `OSError` or `InferenceError`."""
        ...

    def give_back(self, connection: ConnectionT) -> None:
        """Keep it for the next request."""
        ...


class AsyncTokenStream(ABC, Generic[ConnectionT]):
    """One request: an async context manager that gives an async iterator of `TokenChunk`. For one task at a time."""

    def __init__(self, engine: EngineFront[Any], client: AsyncClient[ConnectionT], worker: RemoteWorker) -> None:
        self.worker = worker
        self._engine = engine
        self._client = client
        self._connection: ConnectionT | None = None

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
        self._engine.hang_up(self)
        self.let_go(keep=False)  # also what was still connecting

    def __aiter__(self) -> AsyncIterator[TokenChunk]:
        return self

    async def __anext__(self) -> TokenChunk:
        if self.worker.chunks:
            return self.worker.chunks.popleft()
        self._engine.enter(self)
        try:
            return await self._advance()
        finally:
            self._engine.step_away(self)

    async def _advance(self) -> TokenChunk:
        while True:
            match self.worker.step(self._engine.now()):
                case Receive():
                    await self._receive()
                case Deliver(chunk):
                    return chunk
                case Post(event):
                    self._engine.tell(event)
                case Park():
                    await self._park()
                case Connect(request):
                    await self._connect(request.origin)
                case Send(request):
                    await self._send(request)
                case Discard(keep):
                    self.let_go(keep=keep)
                case Finish():
                    raise StopAsyncIteration
                case Raise(error):
                    raise error
                case step:
                    assert_never(step)

    async def _connect(self, origin: Origin) -> None:
        try:
            self._connection = self._client.reuse(origin)
            if self._connection is None:
                self._connection = self._client.new(origin)
                await self._client.open(self._connection)
        except BaseException as error:
            self.let_go(keep=False)  # also when called off: the caller may come back, and connects anew
            if not isinstance(error, (OSError, InferenceError)):
                raise
            self.worker.failed(error, self._engine.now())
        else:
            self.worker.connected()

    async def _send(self, request: HttpRequest) -> None:
        assert self._connection is not None
        try:
            await self._connection.send(request)
        except OSError as error:
            self.worker.send_failed(error)

    async def _receive(self) -> None:
        assert self._connection is not None
        try:
            events = await self._connection.receive()
        except OSError as error:
            self.worker.failed(error, self._engine.now())
        else:
            self.worker.received(events, self._engine.now(), time.time())

    def interrupt(self) -> None:
        """Wake the caller from its connection."""
        if (connection := self._connection) is not None:
            connection.interrupt()

    def let_go(self, *, keep: bool) -> None:
        """Part with the connection: back to the client, or closed."""
        connection, self._connection = self._connection, None
        if connection is not None and keep:
            self._client.give_back(connection)
        elif connection is not None:
            connection.close()
