"""The byte pump on trio: connections over the core's HTTP/1.1 machine, kept for reuse.

Sockets are plain non-blocking ones that trio waits for, so that an idle one can be looked at without waiting, and one that
is given up is closed without awaiting anything.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import trio

from sansio import Http1Connection, HttpEvent, HttpRequest, IdleConnections, NetworkError, Origin

READ_BYTES = 64 * 1024
MAX_TAIL_READS = 4
"""How often an idle connection is read from before it is given up: a response may have no end."""
Result = TypeVar("Result")


class Connection:
    """One connection. `interrupt` and `close` never wait."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self._machine = Http1Connection()
        self._socket: socket.socket | None = None
        self._scope: trio.CancelScope | None = None
        self._unsent = memoryview(b"")

    async def open(self, context: ssl.SSLContext | None) -> None:
        """Connect, with TLS where ``context`` is given. Raises `OSError`, also when interrupted."""
        with trio.CancelScope() as self._scope:
            stream = await trio.open_tcp_stream(self.origin.host, self.origin.port)
            own = stream.socket
            self._socket = socket.socket(own.family, own.type, own.proto, fileno=own.detach())
            self._socket.setblocking(False)
            if context is not None:
                secured = context.wrap_socket(self._socket, server_hostname=self.origin.host, do_handshake_on_connect=False)
                self._socket = secured
                await self._when_ready(secured.do_handshake, trio.lowlevel.wait_readable)
        scope, self._scope = self._scope, None
        if scope.cancelled_caught:
            raise ConnectionAbortedError("interrupted while connecting")

    async def _when_ready(self, operation: Callable[[], Result], wait: Callable[[socket.socket], Awaitable[None]]) -> Result:
        """Try, and ``wait`` (or as TLS says), until the socket no longer would block. A checkpoint, as trio's rules ask."""
        await trio.lowlevel.checkpoint_if_cancelled()
        assert self._socket is not None
        try:
            while True:
                try:
                    result = operation()
                except BlockingIOError:
                    await wait(self._socket)
                except ssl.SSLWantReadError:
                    await trio.lowlevel.wait_readable(self._socket)
                except ssl.SSLWantWriteError:
                    await trio.lowlevel.wait_writable(self._socket)
                else:
                    await trio.lowlevel.cancel_shielded_checkpoint()
                    return result
        except trio.ClosedResourceError as error:
            raise ConnectionAbortedError("interrupted") from error

    async def send(self, request: HttpRequest) -> None:
        """Send a request. Raises `OSError`, also when interrupted."""
        self._unsent = memoryview(self._machine.send(request))
        await self._send_rest()

    async def _send_rest(self) -> None:
        assert self._socket is not None
        try:
            while self._unsent:
                sent = await self._when_ready(partial(self._socket.send, self._unsent), trio.lowlevel.wait_writable)
                self._unsent = self._unsent[sent:]
        except OSError:
            self._unsent = memoryview(b"")  # nobody reads it; what was answered may still be read
            raise

    async def receive(self) -> list[HttpEvent]:
        """Wait for bytes, and say what they mean; first send what a cancelled `send` left. Raises `OSError` likewise."""
        assert self._socket is not None
        await self._send_rest()
        data = await self._when_ready(partial(self._socket.recv, READ_BYTES), trio.lowlevel.wait_readable)
        return self._machine.receive(data)

    def is_fit(self) -> bool:
        """Whether an idle connection can carry another request: still open, and nothing unasked for came.

        Reads without waiting, so that a response's last bytes that nobody waited for do not cost the connection.
        """
        assert self._socket is not None
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

    def interrupt(self) -> None:
        """Wake whoever waits on this connection, and close it."""
        if self._scope is not None:
            self._scope.cancel()
        else:
            self.close()

    def close(self) -> None:
        """Close the socket, without waiting and without a farewell. Idempotent."""
        if (known := self._socket) is not None and known.fileno() >= 0:
            trio.lowlevel.notify_closing(known)
            known.close()


class HttpClient:
    """Connections to any number of origins, reused. Belongs to one trio run."""

    def __init__(self, ssl_context: ssl.SSLContext | None = None) -> None:
        self._ssl_context = ssl_context
        self._idle: IdleConnections[Connection] = IdleConnections()

    def reuse(self, origin: Origin) -> Connection | None:
        """An idle connection that is still fit, or ``None``."""
        while True:
            connection, expired = self._idle.take(origin, trio.current_time())
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
        _close_all(self._idle.put(connection.origin, connection, trio.current_time()))

    async def aclose(self) -> None:
        """Close every idle connection, and from now on each one given back."""
        _close_all(self._idle.close())
        await trio.lowlevel.checkpoint()


def build_client(*, ssl_context: ssl.SSLContext | None = None) -> HttpClient:
    """The client an engine uses unless it is given one. ``ssl_context`` is by default the platform's, verification on."""
    return HttpClient(ssl_context)


def _close_all(connections: list[Connection]) -> None:
    for connection in connections:
        connection.close()
