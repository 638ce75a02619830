"""The byte pump on asyncio: connections as protocols over the core's HTTP machines, pooled.

A `Line` is one request's use of a connection. Bytes that come while nobody waits are kept: for HTTP/1.1 up to a bound,
above which the transport stops reading, for HTTP/2 as far as flow control lets the peer send. So a slow caller neither
fills memory nor is mistaken for a stalled server.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

from drivers.front import PooledClient
from drivers.front.choice import NATIVE, Choice, choose
from drivers.front.pooled_client import TAIL_PATIENCE
from sansio import (
    Grant,
    Http1Connection,
    Http2Connection,
    HttpEvent,
    HttpRequest,
    NetworkError,
    Origin,
    PoolConfig,
    ProtocolError,
)

if TYPE_CHECKING:
    from drivers.general_client import GivenTaskClient, TaskClient

MAX_BUFFERED_BYTES = 256 * 1024


class Line:
    """One request's use of a connection. `interrupt` and `let_go` never wait."""

    def __init__(self, client: HttpClient) -> None:
        self.reused = False
        self.interrupted = False
        self.stream_id = 0
        """Which stream of an HTTP/2 connection is this one's."""
        self._client = client
        self._grant: Grant[Connection] | None = None
        self._connection: Connection | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._scope: asyncio.Timeout | None = None

    async def open(self, request: HttpRequest, timeout: float, *, fresh: bool, sending: Callable[[], None]) -> None:
        """Get a connection: from the pool unless ``fresh``, or a new one. Raises `OSError`, also when interrupted, or
        `NetworkError` for a name that cannot be looked up."""
        origin = request.origin
        while self._connection is None:
            self._client.acquire(self, origin, fresh=fresh)
            if self._grant is None:
                await self.wait()
            assert self._grant is not None
            connection, self.reused = self._grant.connection, self._grant.reused
            if connection is None:
                await self._dial(origin)
            elif connection.is_fit() or await connection.settles():
                self._connection = connection
            else:
                connection.leave(self, keep=False)
            self._grant = None

    async def _dial(self, origin: Origin) -> None:
        try:
            async with asyncio.timeout(None) as self._scope:
                connection = await self._client.dial(origin)
        finally:
            self._scope = None
        self._connection = connection
        connection.begin(self)

    async def send(self, request: HttpRequest) -> None:
        """Send the request. Raises `OSError` when the connection is lost."""
        assert self._connection is not None
        self._connection.send(self, request)

    async def receive(self) -> list[HttpEvent]:
        """Wait for bytes, and say what they mean. Raises `OSError` when the connection is lost, or when interrupted."""
        connection = self._connection
        assert connection is not None
        while (events := connection.take(self)) is None:
            await self.wait()
        return events

    async def wait(self) -> None:
        """Until `wake`. Raises `ConnectionAbortedError` when interrupted."""
        if not self.interrupted:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self.interrupted:
            raise ConnectionAbortedError("interrupted")

    def wake(self) -> None:
        """There may be something to take."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def grant(self, grant: Grant[Connection]) -> None:
        """The pool's answer."""
        self._grant = grant
        self.wake()

    def refuse(self) -> None:
        """The pool is closed."""
        self.interrupt()

    def interrupt(self) -> None:
        """Wake whoever waits on this line."""
        self.interrupted = True
        if self._scope is not None and not self._scope.expired():  # a second abort may come before the first was heard
            self._scope.reschedule(asyncio.get_running_loop().time())
        self.wake()

    def let_go(self, *, keep: bool) -> None:
        """Part with the connection, or with the place in line for one. Idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.leave(self, keep=keep)
            return
        self._client.withdraw(self)
        grant, self._grant = self._grant, None
        if grant is not None and grant.connection is not None:  # called off between the grant and its use
            self._client.release(grant.connection)


class _Early(asyncio.Protocol):
    """Stands in until the handshake has said which protocol is spoken, and keeps what comes meanwhile."""

    def __init__(self) -> None:
        self.data = b""
        self.lost: list[Exception | None] = []

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)


class Connection(asyncio.Protocol, ABC):
    """One connection, and what asyncio tells of it."""

    def __init__(self, client: HttpClient, transport: asyncio.Transport, early: _Early) -> None:
        self._client = client
        self._transport = transport
        self._lost = early.lost[0] if early.lost else None
        self._ended = bool(early.lost)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the connection is gone, with an error or in order."""
        self._lost, self._ended = exc, True
        self._client.lose(self)

    async def settles(self) -> bool:
        """Whether it is fit a moment later, where there is a reason to think so."""
        return False

    @abstractmethod
    def begin(self, line: Line) -> None:
        """This line has dialled the connection, and is the first to use it."""

    def is_fit(self) -> bool:
        """Whether another request may go over it now."""
        return not (self._ended or self._transport.is_closing())

    def close(self) -> None:
        """Close the socket, without waiting and without a farewell. Idempotent."""
        self._transport.abort()

    @abstractmethod
    def send(self, line: Line, request: HttpRequest) -> None:
        """Send a request on behalf of a line. Raises `OSError` when the connection is lost."""

    @abstractmethod
    def take(self, line: Line) -> list[HttpEvent] | None:
        """What came for a line, ``None`` while there is nothing. Raises `OSError` when the connection is lost."""

    @abstractmethod
    def leave(self, line: Line, *, keep: bool) -> None:
        """A line is done with this connection."""


class Http1(Connection):
    """A connection that carries one request at a time."""

    def __init__(self, client: HttpClient, transport: asyncio.Transport, early: _Early) -> None:
        super().__init__(client, transport, early)
        self._machine = Http1Connection()
        self._line: Line | None = None
        self._buffer = [early.data] if early.data else []
        self._buffered_bytes = 0
        self._paused = False
        self._settling: asyncio.Future[None] | None = None

    def begin(self, line: Line) -> None:
        """As above."""
        self._client.opened(line, self, None)

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes came. Above the bound, ask for no more until these are taken."""
        if self._line is None:
            self._machine.receive(data)  # the tail of an answer that nobody waited for, or something unasked for
            self._wake_settling()
            return
        self._buffer.append(data)
        self._buffered_bytes += len(data)
        if self._buffered_bytes > MAX_BUFFERED_BYTES:
            self._paused = True
            self._transport.pause_reading()
        self._line.wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: as above."""
        super().connection_lost(exc)
        self._wake_settling()
        if self._line is not None:
            self._line.wake()

    def is_fit(self) -> bool:
        """As above: the last answer came to its end, and nothing unasked for since."""
        return super().is_fit() and self._machine.reusable

    async def settles(self) -> bool:
        """As above: the last answer has not come to its end yet."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TAIL_PATIENCE):
                while super().is_fit() and not self._machine.ended:
                    self._settling = asyncio.get_running_loop().create_future()
                    await self._settling
        self._settling = None
        return self.is_fit()

    def _wake_settling(self) -> None:
        if self._settling is not None and not self._settling.done():
            self._settling.set_result(None)

    def send(self, line: Line, request: HttpRequest) -> None:
        """As above. What the socket does not take at once is kept by the transport, as the request is kept anyway."""
        self._line = line
        self._transport.write(self._machine.send(request))
        if self._ended:
            raise self._lost or ConnectionResetError("the connection was closed")

    def take(self, line: Line) -> list[HttpEvent] | None:
        """As above."""
        if self._buffer:
            return self._machine.receive(self._take_bytes())
        if not self._ended:
            return None
        if self._lost is not None:
            raise self._lost
        return self._machine.receive(b"")

    def _take_bytes(self) -> bytes:
        data = self._buffer[0] if len(self._buffer) == 1 else b"".join(self._buffer)
        self._buffer.clear()
        self._buffered_bytes = 0
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return data

    def leave(self, line: Line, *, keep: bool) -> None:
        """As above. Kept if the exchange ended well; whether it is fit is seen when it is to be used again."""
        self._line = None
        if keep and not self._ended:
            if self._buffer:
                self._machine.receive(self._take_bytes())
            self._client.release(self)
        else:
            self._client.lose(self)


class Http2Streams(Connection):
    """A connection that carries many requests at once."""

    def __init__(self, client: HttpClient, transport: asyncio.Transport, early: _Early) -> None:
        super().__init__(client, transport, early)
        self._machine = Http2Connection()
        self._lines: dict[int, Line] = {}
        self._opener: Line | None = None
        """Who dialled, and has it alone until the server has said how many it takes."""
        self._early = early.data
        self._streams = 0
        self._writable = True

    def begin(self, line: Line) -> None:
        """As above."""
        self._opener = line

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes came, for any of the lines; or before the first, whose they are then."""
        if self._opener is not None and not self._lines:
            self._early += data
            return
        self._wake(self._machine.receive(data))
        self._flush()

    def pause_writing(self) -> None:
        """asyncio: the peer reads too slowly. What is to be said waits in the machine, which has a bound for it."""
        self._writable = False

    def resume_writing(self) -> None:
        """asyncio: it reads again."""
        self._writable = True
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: as above."""
        super().connection_lost(exc)
        self._wake(self._machine.receive(b""))

    def _wake(self, stream_ids: list[int]) -> None:
        for stream_id in stream_ids:
            if (line := self._lines.get(stream_id)) is not None:
                line.wake()

    def _flush(self) -> None:
        """Write what the machine has to say, and tell the pool how many streams there may be.

        Not once the connection is lost: asyncio logs a warning for each write then, and every line that leaves has a word.
        """
        if self._writable and not self._transport.is_closing() and (data := self._machine.outgoing()):
            self._transport.write(data)
        streams = self._machine.capacity + self._machine.open_streams if self._machine.usable else 0
        if self._opener is not None:
            if self._machine.settled:
                opener, self._opener, self._streams = self._opener, None, streams
                self._client.opened(opener, self, streams)
        elif streams != self._streams:
            self._streams = streams
            self._client.resize(self, streams)

    def is_fit(self) -> bool:
        """As above."""
        return super().is_fit() and self._machine.capacity > 0

    def send(self, line: Line, request: HttpRequest) -> None:
        """As above. A body above the peer's window follows as that opens."""
        line.stream_id = self._machine.send(request)
        self._lines[line.stream_id] = line
        self._flush()
        if early := self._early:
            self._early = b""
            self.data_received(early)
        if self._ended:
            self._wake(self._machine.receive(b""))

    def take(self, line: Line) -> list[HttpEvent] | None:
        """As above."""
        events = self._machine.take(line.stream_id)
        self._flush()
        return events or None

    def leave(self, line: Line, *, keep: bool) -> None:
        """As above. The other lines go on."""
        self._lines.pop(line.stream_id, None)
        self._machine.reset(line.stream_id)
        self._flush()
        if self._opener is not None:  # the pool does not know it yet
            self._opener = None
            self.close()
            self._client.withdraw(line)
        elif super().is_fit():
            self._client.release(self)
        else:
            self._client.lose(self)


class HttpClient(PooledClient[Connection, Line]):
    """Connections to any number of origins, pooled. Belongs to one event loop."""

    def __init__(self, ssl_context: ssl.SSLContext | None = None, pool: PoolConfig | None = None) -> None:
        super().__init__(ssl_context, pool)

    def now(self) -> float:
        """The loop's own clock."""
        return asyncio.get_running_loop().time()

    def line(self) -> Line:
        """For one request. Not connected yet."""
        return Line(self)

    async def dial(self, origin: Origin) -> Connection:
        """A new connection. Raises `OSError`, `NetworkError` for a name that cannot be looked up, or `ProtocolError`."""
        tls = self.tls(origin)
        try:
            with self.handshake():
                transport, early = await asyncio.get_running_loop().create_connection(
                    _Early,
                    origin.host,
                    origin.port,
                    ssl=tls,
                    server_hostname=None if tls is None else origin.host,
                )
        except UnicodeError as error:
            raise NetworkError(f"{origin.host!r} is not a host name").caused_by(error) from error
        try:
            kind = Http2Streams if self.speaks_http2(transport.get_extra_info("ssl_object")) else Http1
        except ProtocolError:
            transport.abort()
            raise
        connection = kind(self, transport, early)
        transport.set_protocol(connection)
        return connection

    async def aclose(self) -> None:
        """Close every idle connection, and from now on each one given back."""
        self.close_idle()
        await asyncio.sleep(0)  # a transport closes its socket in the loop's next round


def build_client(
    client: object = NATIVE, *, ssl_context: ssl.SSLContext | None = None, pool: PoolConfig | None = None
) -> HttpClient | TaskClient | GivenTaskClient:
    """Who moves the bytes of an engine.

    client: ``"native"``, ``"httpx"``, ``"httpx2"``, or a client object of one of these two, which then stays yours to close.
    ssl_context: by default the platform's, verification on; what it offers by ALPN is set here. pool: how many connections
    there may be, for how long, and whether they speak HTTP/2. Raises `ValueError` for what that client cannot do, or when it
    is not installed.
    """
    return build_choice(choose(client, ()), ssl_context, pool)


def build_choice(
    choice: Choice, ssl_context: ssl.SSLContext | None = None, pool: PoolConfig | None = None
) -> HttpClient | TaskClient | GivenTaskClient:
    """The client that was chosen."""
    if choice.name == NATIVE:
        return HttpClient(ssl_context, pool)
    from .general import general_client  # not before it is needed: what it is made of may not be installed

    return general_client(choice, ssl_context, pool)
