"""The byte pump on trio: connections over the core's HTTP machines, pooled.

A `Line` is one request's use of a connection. Over HTTP/1.1 whoever waits for an answer reads the socket himself. Over
HTTP/2 many wait for one socket, so two tasks in the engine's nursery move its bytes. Sockets are plain non-blocking ones
that trio waits for, so that an idle one can be looked at without waiting, and one that is given up is closed without
awaiting anything.
"""

from __future__ import annotations

import socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import trio

from drivers.front import PooledClient
from drivers.front.choice import NATIVE, Choice, choose
from drivers.front.pooled_client import TAIL_PATIENCE
from sansio import Grant, Http1Connection, Http2Connection, HttpEvent, HttpRequest, NetworkError, Origin, PoolConfig

if TYPE_CHECKING:
    from drivers.general_client import GivenTaskClient, TaskClient

READ_BYTES = 64 * 1024
MAX_TAIL_READS = 4
"""How often an idle connection is read from before it is given up: a response may have no end."""
Result = TypeVar("Result")


class Line:
    """One request's use of a connection. `interrupt` and `let_go` never wait."""

    def __init__(self, client: HttpClient) -> None:
        self.reused = False
        self.stream_id = 0
        """Which stream of an HTTP/2 connection is this one's."""
        self._client = client
        self._grant: Grant[Connection] | None = None
        self._connection: Connection | None = None
        self._signal = trio.Event()
        self._dialling: trio.CancelScope | None = None
        self._interrupted = False

    async def open(self, request: HttpRequest, timeout: float, *, fresh: bool, sending: Callable[[], None]) -> None:
        """Get a connection: from the pool unless ``fresh``, or a new one. Raises `OSError`, also when interrupted, or
        `NetworkError` for a name that cannot be looked up."""
        origin = request.origin
        while self._connection is None:
            self._client.acquire(self, origin, fresh=fresh)
            while self._grant is None:
                await self.wait()
            connection, self.reused = self._grant.connection, self._grant.reused
            if connection is None:
                await self._dial(origin)
            elif connection.is_fit() or await connection.settles():
                self._connection = connection
            else:
                connection.leave(self, keep=False)
            self._grant = None

    async def _dial(self, origin: Origin) -> None:
        with trio.CancelScope() as self._dialling:
            connection = await self._client.dial(origin)
            self._connection = connection
            connection.begin(self)
        self._dialling = None
        if self._connection is None:
            raise ConnectionAbortedError("interrupted while connecting")

    async def send(self, request: HttpRequest) -> None:
        """Send the request. Raises `OSError`, also when interrupted."""
        assert self._connection is not None
        await self._connection.send(self, request)

    async def receive(self) -> list[HttpEvent]:
        """Wait for bytes, and say what they mean. Raises `OSError`, also when interrupted."""
        assert self._connection is not None
        return await self._connection.receive(self)

    async def wait(self) -> None:
        """Until `wake`. Raises `ConnectionAbortedError` when interrupted."""
        if not self._interrupted:
            await self._signal.wait()
            self._signal = trio.Event()
        if self._interrupted:
            raise ConnectionAbortedError("interrupted")

    def wake(self) -> None:
        """There may be something to take."""
        self._signal.set()

    def grant(self, grant: Grant[Connection]) -> None:
        """The pool's answer."""
        self._grant = grant
        self.wake()

    def refuse(self) -> None:
        """The pool is closed."""
        self.interrupt()

    def interrupt(self) -> None:
        """Wake whoever waits on this line."""
        self._interrupted = True
        self.wake()
        if self._dialling is not None:
            self._dialling.cancel()
        elif self._connection is not None:
            self._connection.interrupt()

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


class Connection(ABC):
    """One connection. `close` never waits."""

    def __init__(self, client: HttpClient, known: socket.socket) -> None:
        self._client = client
        self._socket = known

    def close(self) -> None:
        """Close the socket, without waiting and without a farewell. Idempotent."""
        close_socket(self._socket)

    @abstractmethod
    def begin(self, line: Line) -> None:
        """This line has dialled the connection, and is the first to use it."""

    @abstractmethod
    def interrupt(self) -> None:
        """Wake the line that waits for this socket, if one does so itself."""

    async def settles(self) -> bool:
        """Whether it is fit a moment later, where there is a reason to think so."""
        return False

    @abstractmethod
    def is_fit(self) -> bool:
        """Whether another request may go over it now."""

    @abstractmethod
    async def send(self, line: Line, request: HttpRequest) -> None:
        """Send a request on behalf of a line. Raises `OSError` when the connection is lost."""

    @abstractmethod
    async def receive(self, line: Line) -> list[HttpEvent]:
        """Wait for what comes for a line. Raises `OSError` when the connection is lost."""

    @abstractmethod
    def leave(self, line: Line, *, keep: bool) -> None:
        """A line is done with this connection."""


class Http1(Connection):
    """A connection that carries one request at a time."""

    def __init__(self, client: HttpClient, known: socket.socket) -> None:
        super().__init__(client, known)
        self._machine = Http1Connection()
        self._unsent = memoryview(b"")

    def begin(self, line: Line) -> None:
        """As above."""
        self._client.opened(line, self, None)

    def interrupt(self) -> None:
        """As above: the line reads by itself, and the connection is its own."""
        self.close()

    def is_fit(self) -> bool:
        """As above: still open, the last answer came to its end, and nothing unasked for since.

        Reads without waiting, so that a response's last bytes that nobody waited for do not cost the connection.
        """
        try:
            for _ in range(MAX_TAIL_READS):
                if not (data := self._socket.recv(READ_BYTES)):
                    break
                self._machine.receive(data)
            return False
        except (BlockingIOError, ssl.SSLWantReadError):
            return self._machine.reusable
        except OSError:
            return False

    async def settles(self) -> bool:
        """As above: the last answer has not come to its end yet."""
        try:
            with trio.move_on_after(TAIL_PATIENCE):
                while not self._machine.ended:
                    if not (data := await when_ready(self._socket, partial(self._socket.recv, READ_BYTES))):
                        return False
                    self._machine.receive(data)
        except OSError:
            return False
        return self.is_fit()

    async def send(self, line: Line, request: HttpRequest) -> None:
        """As above."""
        self._unsent = memoryview(self._machine.send(request))
        await self._send_rest()

    async def _send_rest(self) -> None:
        try:
            while self._unsent:
                sent = await when_ready(self._socket, partial(self._socket.send, self._unsent), reading=False)
                self._unsent = self._unsent[sent:]
        except OSError:
            self._unsent = memoryview(b"")  # nobody reads it; what was answered may still be read
            raise

    async def receive(self, line: Line) -> list[HttpEvent]:
        """As above; first send what a cancelled `send` left."""
        await self._send_rest()
        return self._machine.receive(await when_ready(self._socket, partial(self._socket.recv, READ_BYTES)))

    def leave(self, line: Line, *, keep: bool) -> None:
        """As above. Kept if the exchange ended well; whether it is fit is seen when it is to be used again."""
        if keep:
            self._client.release(self)
        else:
            self._client.lose(self)


class Http2Streams(Connection):
    """A connection that carries many requests at once. Its bytes are moved by `run`, in the engine's nursery."""

    def __init__(self, client: HttpClient, known: socket.socket) -> None:
        super().__init__(client, known)
        self._machine = Http2Connection()
        self._lines: dict[int, Line] = {}
        self._something_to_send = trio.Event()
        self._opener: Line | None = None
        """Who dialled, and has it alone until the server has said how many it takes."""
        self._streams = 0

    def begin(self, line: Line) -> None:
        """As above."""
        self._opener = line

    @trio.lowlevel.enable_ki_protection  # Ctrl-C half-way through a frame would be the end of more than one request
    async def run(self) -> None:
        """Move bytes until the connection is gone."""
        try:
            async with trio.open_nursery() as pumps:
                pumps.start_soon(self._write)
                await self._read()
                pumps.cancel_scope.cancel()
        finally:
            self._client.lose(self)
            self._wake(self._machine.receive(b""))

    async def _read(self) -> None:
        while True:
            try:
                data = await when_ready(self._socket, partial(self._socket.recv, READ_BYTES))
            except OSError:
                return
            if not data:
                return
            self._wake(self._machine.receive(data))
            self._changed()

    @trio.lowlevel.enable_ki_protection
    async def _write(self) -> None:
        while True:
            unsent = memoryview(self._machine.outgoing())
            try:
                while unsent:
                    unsent = unsent[await when_ready(self._socket, partial(self._socket.send, unsent), reading=False) :]
            except OSError:
                return  # reading tells the end, and what was answered before it
            await self._something_to_send.wait()
            self._something_to_send = trio.Event()

    def _wake(self, stream_ids: list[int]) -> None:
        for stream_id in stream_ids:
            if (line := self._lines.get(stream_id)) is not None:
                line.wake()

    def _changed(self) -> None:
        """The machine may have something to say, and another number of streams."""
        self._something_to_send.set()
        streams = self._machine.capacity + self._machine.open_streams if self._machine.usable else 0
        if self._opener is not None:
            if self._machine.settled:
                opener, self._opener, self._streams = self._opener, None, streams
                self._client.opened(opener, self, streams)
        elif streams != self._streams:
            self._streams = streams
            self._client.resize(self, streams)

    def interrupt(self) -> None:
        """As above: a line waits for its own signal here, and the socket goes on."""

    def is_fit(self) -> bool:
        """As above."""
        return self._socket.fileno() >= 0 and self._machine.capacity > 0

    async def send(self, line: Line, request: HttpRequest) -> None:
        """As above. The whole request is the machine's from here on."""
        line.stream_id = self._machine.send(request)
        self._lines[line.stream_id] = line
        self._changed()
        await trio.lowlevel.checkpoint()

    async def receive(self, line: Line) -> list[HttpEvent]:
        """As above."""
        await trio.lowlevel.checkpoint()
        while not (events := self._machine.take(line.stream_id)):
            await line.wait()
        self._changed()
        return events

    def leave(self, line: Line, *, keep: bool) -> None:
        """As above. The other lines go on."""
        self._lines.pop(line.stream_id, None)
        self._machine.reset(line.stream_id)
        self._changed()
        if self._opener is not None:  # the pool does not know it yet
            self._opener = None
            self.close()
            self._client.withdraw(line)
        elif self._socket.fileno() >= 0:
            self._client.release(self)
        else:
            self._client.lose(self)


class HttpClient(PooledClient[Connection, Line]):
    """Connections to any number of origins, pooled. Belongs to one trio run."""

    def __init__(self, ssl_context: ssl.SSLContext | None = None, pool: PoolConfig | None = None) -> None:
        super().__init__(ssl_context, pool)
        self._tasks: trio.Nursery | None = None

    def now(self) -> float:
        """The run's own clock."""
        return trio.current_time()

    def start(self, tasks: trio.Nursery) -> None:
        """The engine opens: where connections that need tasks have them."""
        self._tasks = tasks

    def line(self) -> Line:
        """For one request. Not connected yet."""
        return Line(self)

    async def dial(self, origin: Origin) -> Connection:
        """A new connection. Raises `OSError`, `NetworkError` for a name that cannot be looked up, or `ProtocolError`."""
        try:
            stream = await trio.open_tcp_stream(origin.host, origin.port)
        except UnicodeError as error:
            raise NetworkError(f"{origin.host!r} is not a host name").caused_by(error) from error
        own = stream.socket
        known = socket.socket(own.family, own.type, own.proto, fileno=own.detach())
        known.setblocking(False)
        secured: ssl.SSLSocket | None = None
        try:
            if (tls := self.tls(origin)) is not None:
                known = secured = tls.wrap_socket(known, server_hostname=origin.host, do_handshake_on_connect=False)
                with self.handshake():
                    await when_ready(secured, secured.do_handshake)
            http2 = self.speaks_http2(secured)
        except BaseException:
            close_socket(known)
            raise
        if not http2:
            return Http1(self, known)
        assert self._tasks is not None, "the client of no engine, or of one that has not been entered"
        connection = Http2Streams(self, known)
        self._tasks.start_soon(connection.run)
        return connection

    async def aclose(self) -> None:
        """Close every idle connection, and from now on each one given back."""
        self.close_idle()
        await trio.lowlevel.checkpoint()


async def when_ready(known: socket.socket, operation: Callable[[], Result], *, reading: bool = True) -> Result:
    """Try until the socket no longer would block: waiting for what TLS says, or as ``reading`` says. A checkpoint, as trio's
    rules ask. Raises `OSError`, also where the socket is closed meanwhile."""
    await trio.lowlevel.checkpoint_if_cancelled()
    try:
        while True:
            try:
                result = operation()
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
                wants_read = reading if isinstance(error, BlockingIOError) else isinstance(error, ssl.SSLWantReadError)
                await (trio.lowlevel.wait_readable if wants_read else trio.lowlevel.wait_writable)(known)
            else:
                await trio.lowlevel.cancel_shielded_checkpoint()
                return result
    except trio.ClosedResourceError as error:
        raise ConnectionAbortedError("interrupted") from error
    except trio.BusyResourceError as error:  # TLS wants to read in order to write: a renegotiation (RFC 9113, section 9.2.1)
        raise ConnectionAbortedError("TLS was to be negotiated anew") from error


def close_socket(known: socket.socket) -> None:
    """Close, and wake whoever waits for it."""
    if known.fileno() >= 0:
        trio.lowlevel.notify_closing(known)
        known.close()


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
