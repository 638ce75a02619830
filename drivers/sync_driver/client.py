"""The byte pump with blocking sockets: connections over the core's HTTP machines, pooled.

A `Line` is one request's use of a connection. Over HTTP/1.1 whoever waits for an answer reads the socket himself; a connect,
a TLS handshake and a read can each be woken from another thread by shutting the socket down, which is how an abort reaches a
caller that is blocked. A look-up of a host's name cannot: it is left to run out by itself. Over HTTP/2, where many wait for
one socket, `http2.py` has a thread for each connection.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import ssl
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from drivers.front import PooledClient
from drivers.front.choice import NATIVE, Choice, choose
from drivers.front.pooled_client import TAIL_PATIENCE, Args, Result
from sansio import Grant, Http1Connection, HttpEvent, HttpRequest, NetworkError, Origin, PoolConfig

from .interrupts import SHIELD, Bell

if TYPE_CHECKING:
    from drivers.general_client import BlockingClient, GivenBlockingClient

READ_BYTES = 64 * 1024
MAX_TAIL_READS = 4
"""How often an idle connection is read from before it is given up: a response may have no end."""
LONGEST_WAIT = 86_400.0
"""Seconds a system call may be asked to wait for: some refuse more."""


class Line:
    """One request's use of a connection. For one thread; `grant`, `wake` and `interrupt` may come from any."""

    def __init__(self, client: HttpClient) -> None:
        self.reused = False
        self.stream_id = 0
        """Which stream of an HTTP/2 connection is this one's."""
        self._client = client
        self._grant: Grant[Connection] | None = None
        self._connection: Connection | None = None
        self._dialling: Dialling | None = None
        self._bell = Bell()
        self._interrupted = False

    def open(self, request: HttpRequest, timeout: float, *, fresh: bool, sending: Callable[[], None]) -> None:
        """Get a connection: from the pool unless ``fresh``, or a new one. Raises `OSError` (a timeout, a failed handshake
        and an interruption are such), or `NetworkError` for a name that cannot be looked up."""
        origin = request.origin
        while self._connection is None:
            self._client.acquire(self, origin, fresh=fresh)
            while self._grant is None:
                self.wait()
            connection, self.reused = self._grant.connection, self._grant.reused
            if connection is None:
                self._dial(origin, timeout)
            elif connection.is_fit():
                self._connection = connection
            else:
                connection.leave(self, keep=False)
            self._grant = None
        self._check()

    def _dial(self, origin: Origin, timeout: float) -> None:
        self._dialling = Dialling(origin)
        self._check()
        with self._client.handshake():
            known = self._dialling.dial(self._client.tls(origin), timeout)
        connection = self._connection = self._client.connection(known)
        self._dialling = None
        connection.begin(self)

    def _check(self) -> None:
        if self._interrupted:
            raise ConnectionAbortedError("interrupted")

    def send(self, request: HttpRequest) -> None:
        """Send the request. Raises `OSError`, also when interrupted."""
        assert self._connection is not None
        self._connection.send(self, request)

    def receive(self) -> list[HttpEvent]:
        """Wait for bytes, and say what they mean. Raises `OSError`, also when interrupted."""
        assert self._connection is not None
        return self._connection.receive(self)

    def wait(self) -> None:
        """Until `wake`. Raises `ConnectionAbortedError` when interrupted."""
        self._bell.wait()
        self._check()

    def wake(self) -> None:
        """There may be something to take."""
        self._bell.ring()

    def grant(self, grant: Grant[Connection]) -> None:
        """The pool's answer."""
        self._grant = grant
        self.wake()

    def refuse(self) -> None:
        """The pool is closed."""
        self.interrupt()

    def interrupt(self) -> None:
        """Wake the thread that is blocked on this line. Not after `let_go`."""
        self._interrupted = True
        self.wake()
        for known in (self._dialling, self._connection):
            if known is not None:
                known.interrupt()

    def let_go(self, *, keep: bool) -> None:
        """Part with the connection, or with the place in line for one. Idempotent."""
        connection, self._connection = self._connection, None
        if self._dialling is not None:
            self._dialling.close()
        if connection is not None:
            connection.leave(self, keep=keep)
            return
        self._client.withdraw(self)
        grant, self._grant = self._grant, None
        if grant is not None and grant.connection is not None:  # called off between the grant and its use
            self._client.release(grant.connection)


class Connection(ABC):
    """One connection."""

    @abstractmethod
    def begin(self, line: Line) -> None:
        """This line has dialled the connection, and is the first to use it."""

    @abstractmethod
    def is_fit(self) -> bool:
        """Whether another request may go over it now."""

    @abstractmethod
    def send(self, line: Line, request: HttpRequest) -> None:
        """Send a request on behalf of a line. Raises `OSError` when the connection is lost."""

    @abstractmethod
    def receive(self, line: Line) -> list[HttpEvent]:
        """Wait for what comes for a line. Raises `OSError` when the connection is lost."""

    @abstractmethod
    def interrupt(self) -> None:
        """Wake the line that is blocked on the socket, if one is. Any thread may call this."""

    @abstractmethod
    def leave(self, line: Line, *, keep: bool) -> None:
        """A line is done with this connection."""

    @abstractmethod
    def close(self) -> None:
        """Close the socket. Idempotent."""


class Http1(Connection):
    """A connection that carries one request at a time."""

    def __init__(self, client: HttpClient, known: socket.socket) -> None:
        self._client = client
        self._socket = known
        self._machine = Http1Connection()

    def begin(self, line: Line) -> None:
        """As above."""
        self._client.opened(line, self, None)

    def is_fit(self) -> bool:
        """As above: still open, the last answer came to its end, and nothing unasked for since.

        Reads what came, and waits a moment for what is missing, so that a response's last bytes that nobody waited for do
        not cost the connection.
        """
        try:
            for _ in range(MAX_TAIL_READS):
                self._socket.settimeout(0.0 if self._machine.ended else TAIL_PATIENCE)
                if not (data := self._socket.recv(READ_BYTES)):
                    break
                self._machine.receive(data)
            return False
        except (BlockingIOError, ssl.SSLWantReadError, TimeoutError):
            self._socket.settimeout(None)
            return self._machine.reusable
        except OSError:
            return False

    def send(self, line: Line, request: HttpRequest) -> None:
        """As above."""
        data = self._machine.send(request)
        with SHIELD.lowered():
            self._socket.sendall(data)

    def receive(self, line: Line) -> list[HttpEvent]:
        """As above."""
        with SHIELD.lowered():
            data = self._socket.recv(READ_BYTES)
        return self._machine.receive(data)

    def interrupt(self) -> None:
        """As above. The owner closes it."""
        shut_down(self._socket)

    def leave(self, line: Line, *, keep: bool) -> None:
        """As above. Kept if the exchange ended well; whether it is fit is seen when it is to be used again."""
        if keep:
            self._client.release(self)
        else:
            self._client.lose(self)

    def close(self) -> None:
        """As above."""
        self._socket.close()


class Dialling:
    """A connect under way, with its TLS handshake. `interrupt` may come from any thread."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._socket: socket.socket | None = None
        self._interrupted = False

    def dial(self, tls: ssl.SSLContext | None, timeout: float) -> socket.socket:
        """Connect, with TLS where ``tls`` is given. Raises `OSError`, or `NetworkError` for what is no host's name."""
        give_up_at = time.monotonic() + timeout
        problem: OSError = OSError(f"{self._origin.host} has no address")
        for family, kind, protocol, _, address in self._addresses():
            self._socket = socket.socket(family, kind, protocol)
            try:
                return self._connect(self._socket, address, tls, give_up_at)
            except OSError as error:
                problem = error
                self.close()
                if self._interrupted or time.monotonic() >= give_up_at:
                    break
        raise problem

    def _addresses(self) -> list[Any]:
        try:
            with SHIELD.lowered():
                return socket.getaddrinfo(self._origin.host, self._origin.port, type=socket.SOCK_STREAM)
        except UnicodeError as error:
            raise NetworkError(f"{self._origin.host!r} is not a host name").caused_by(error) from error

    def _connect(self, known: socket.socket, address: Any, tls: ssl.SSLContext | None, give_up_at: float) -> socket.socket:
        known.setblocking(False)
        problem = known.connect_ex(address)
        if problem in (errno.EINPROGRESS, errno.EWOULDBLOCK):
            problem = self._wait_for_connect(known, give_up_at)
        if problem:
            raise OSError(problem, os.strerror(problem))
        known.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            # Wrapping takes the descriptor: known before the handshake, so that `interrupt` and `close` reach it.
            secured = tls.wrap_socket(known, server_hostname=self._origin.host, do_handshake_on_connect=False)
            self._socket = known = secured
            secured.settimeout(min(self._time_left(give_up_at), LONGEST_WAIT))
            with SHIELD.lowered():
                secured.do_handshake()
        self._check()
        known.settimeout(None)
        return known

    def _wait_for_connect(self, known: socket.socket, give_up_at: float) -> int:
        """Begun first, waited for then: a shutdown wakes a connect that has begun, and goes unnoticed by one about to."""
        with selectors.DefaultSelector() as selector:
            selector.register(known, selectors.EVENT_WRITE)
            while True:
                left = min(self._time_left(give_up_at), LONGEST_WAIT)
                with SHIELD.lowered():
                    if selector.select(left):
                        break
        return known.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def _time_left(self, give_up_at: float) -> float:
        self._check()
        left = give_up_at - time.monotonic()
        if left <= 0:
            raise TimeoutError("connecting took too long")
        return left

    def _check(self) -> None:
        if self._interrupted:
            raise ConnectionAbortedError("interrupted while connecting")

    def interrupt(self) -> None:
        """Wake the thread that is blocked here."""
        self._interrupted = True
        if (known := self._socket) is not None:
            shut_down(known)

    def close(self) -> None:
        """Close what was not handed on. Idempotent."""
        if (known := self._socket) is not None:
            known.close()


def shut_down(known: socket.socket) -> None:
    """Wake whoever is blocked on this socket."""
    with contextlib.suppress(OSError):  # not connected yet, or not any more: then nobody stays blocked on it
        socket.socket.shutdown(known, socket.SHUT_RDWR)  # not SSLSocket's: that one takes TLS from under a reader


class HttpClient(PooledClient[Connection, Line]):
    """Connections to any number of origins, pooled. Thread-safe."""

    def __init__(self, ssl_context: ssl.SSLContext | None = None, pool: PoolConfig | None = None) -> None:
        super().__init__(ssl_context, pool)
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()

    def now(self) -> float:
        """The system's monotonic clock."""
        return time.monotonic()

    def _alone(self, work: Callable[Args, Result], *args: Args.args, **kwargs: Args.kwargs) -> Result:
        with self._lock:
            return work(*args, **kwargs)

    def line(self) -> Line:
        """For one request. Not connected yet."""
        return Line(self)

    def connection(self, known: socket.socket) -> Connection:
        """What speaks over a new socket."""
        if not self.speaks_http2(known if isinstance(known, ssl.SSLSocket) else None):
            return Http1(self, known)
        from .http2 import Http2Streams

        return Http2Streams(self, known)

    def start(self, thread: threading.Thread) -> None:
        """A connection needs a thread of its own."""
        with self._lock:
            self._threads = {known for known in self._threads if known.is_alive()} | {thread}
            thread.start()

    def close(self) -> None:
        """Close every idle connection, and from now on each one given back. No thread is left after it."""
        self.close_idle()
        for thread in list(self._threads):
            thread.join()


def build_client(
    client: object = NATIVE, *, ssl_context: ssl.SSLContext | None = None, pool: PoolConfig | None = None
) -> HttpClient | BlockingClient | GivenBlockingClient:
    """Who moves the bytes of an engine.

    client: ``"native"``, ``"httpx"``, ``"httpx2"``, or a client object of one of these two, which then stays yours to close.
    ssl_context: by default the platform's, verification on; what it offers by ALPN is set here. pool: how many connections
    there may be, for how long, and whether they speak HTTP/2. Raises `ValueError` for what that client cannot do, or when it
    is not installed.
    """
    return build_choice(choose(client, ()), ssl_context, pool)


def build_choice(
    choice: Choice, ssl_context: ssl.SSLContext | None = None, pool: PoolConfig | None = None
) -> HttpClient | BlockingClient | GivenBlockingClient:
    """The client that was chosen."""
    if choice.name == NATIVE:
        return HttpClient(ssl_context, pool)
    from .general import general_client  # not before it is needed: what it is made of may not be installed

    return general_client(choice, ssl_context, pool)
