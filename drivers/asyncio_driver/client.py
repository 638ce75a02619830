"""The byte pump on asyncio: connections as protocols over the core's HTTP/1.1 machine, kept for reuse.

Bytes that come while nobody waits are buffered; above a bound the transport stops reading, so a slow caller neither fills
memory nor is mistaken for a stalled server.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable

from sansio import Http1Connection, HttpEvent, HttpRequest, IdleConnections, NetworkError, Origin

MAX_BUFFERED_BYTES = 256 * 1024


class Connection(asyncio.Protocol):
    """One connection. `interrupt` and `close` never wait."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self._machine = Http1Connection()
        self._transport: asyncio.Transport | None = None
        self._scope: asyncio.Timeout | None = None
        self._buffer: list[bytes] = []
        self._buffered_bytes = 0
        self._paused = False
        self._lost: Exception | None = None
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    # ---- the transport's side ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the connection stands."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes came. Above the bound, ask for no more until these are taken."""
        self._buffer.append(data)
        self._buffered_bytes += len(data)
        if self._buffered_bytes > MAX_BUFFERED_BYTES and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the connection is gone, with an error or in order."""
        self._lost, self._ended = exc, True
        self._writable.set()
        self._wake()

    def pause_writing(self) -> None:
        """asyncio: too much is waiting to be sent."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """asyncio: sending goes on."""
        self._writable.set()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # ---- the caller's side ------------------------------------------------------------------------------------------

    async def open(self, context: ssl.SSLContext | None) -> None:
        """Connect, with TLS where ``context`` is given. Raises `OSError`; `TimeoutError` when interrupted."""
        loop = asyncio.get_running_loop()
        name = self.origin.host if context is not None else None
        opening = loop.create_connection(lambda: self, self.origin.host, self.origin.port, ssl=context, server_hostname=name)
        await self._interruptible(opening)

    async def send(self, request: HttpRequest) -> None:
        """Send a request. Raises `OSError` when the connection is lost meanwhile."""
        assert self._transport is not None
        self._transport.write(self._machine.send(request))
        if not self._writable.is_set():
            await self._interruptible(self._writable.wait())
        if self._ended:
            raise self._lost or ConnectionResetError("the connection was closed")

    async def _interruptible(self, work: Awaitable[object]) -> None:
        try:
            async with asyncio.timeout(None) as self._scope:
                await work
        finally:
            self._scope = None

    async def receive(self) -> list[HttpEvent]:
        """Wait for bytes, and say what they mean. Raises `OSError` when the connection is lost."""
        if not self._buffer and not self._ended:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._buffer:
            return self._machine.receive(self._take())
        if self._lost is not None:
            raise self._lost
        return self._machine.receive(b"")

    def _take(self) -> bytes:
        data = self._buffer[0] if len(self._buffer) == 1 else b"".join(self._buffer)
        self._buffer.clear()
        self._buffered_bytes = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    def is_fit(self) -> bool:
        """Whether an idle connection can carry another request: still open, and nothing unasked for came.

        Takes what was read meanwhile, so that a response's last bytes that nobody waited for do not cost the connection.
        """
        if self._buffer:
            self._machine.receive(self._take())
        return (
            not self._ended and self._transport is not None and not self._transport.is_closing() and self._machine.reusable
        )

    def interrupt(self) -> None:
        """Wake whoever waits on this connection, and close it."""
        if self._scope is not None and not self._scope.expired():  # a second abort may come before the first was heard
            self._scope.reschedule(asyncio.get_running_loop().time())
        self.close()

    def close(self) -> None:
        """Close the socket, without waiting and without a farewell. Idempotent."""
        if self._transport is not None:
            self._transport.abort()


class HttpClient:
    """Connections to any number of origins, reused. Belongs to one event loop."""

    def __init__(self, ssl_context: ssl.SSLContext | None = None) -> None:
        self._ssl_context = ssl_context
        self._idle: IdleConnections[Connection] = IdleConnections()

    def reuse(self, origin: Origin) -> Connection | None:
        """An idle connection that is still fit, or ``None``."""
        now = asyncio.get_running_loop().time()
        while True:
            connection, expired = self._idle.take(origin, now)
            _close_all(expired)
            if connection is None or connection.is_fit():
                return connection
            connection.close()

    def new(self, origin: Origin) -> Connection:
        """A connection that is not open yet."""
        return Connection(origin)

    async def open(self, connection: Connection) -> None:
        """Connect a new connection. Raises `OSError`, or `NetworkError` for a name that cannot be looked up."""
        try:
            await connection.open(self._context() if connection.origin.scheme == "https" else None)
        except UnicodeError as error:
            raise NetworkError(f"{connection.origin.host!r} is not a host name").caused_by(error) from error

    def _context(self) -> ssl.SSLContext:
        if self._ssl_context is None:  # not before it is needed: it reads all of the platform's certificates
            self._ssl_context = ssl.create_default_context()
        return self._ssl_context

    def give_back(self, connection: Connection) -> None:
        """Keep a connection for the next request; whether it is fit is seen then."""
        _close_all(self._idle.put(connection.origin, connection, asyncio.get_running_loop().time()))

    async def aclose(self) -> None:
        """Close every idle connection, and from now on each one given back."""
        _close_all(self._idle.close())
        await asyncio.sleep(0)  # a transport closes its socket in the loop's next round


def build_client(*, ssl_context: ssl.SSLContext | None = None) -> HttpClient:
    """The client an engine uses unless it is given one. ``ssl_context`` is by default the platform's, verification on."""
    return HttpClient(ssl_context)


def _close_all(connections: list[Connection]) -> None:
    for connection in connections:
        connection.close()
