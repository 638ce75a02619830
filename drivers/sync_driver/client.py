"""The byte pump with blocking sockets: connections over the core's HTTP/1.1 machine, kept for reuse.

A connect, a TLS handshake and a read can each be woken from another thread by shutting the socket down, which is how an
abort reaches a caller that is blocked. A look-up of a host's name cannot: it is left to run out by itself.
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
from typing import Any

from sansio import Http1Connection, HttpEvent, HttpRequest, IdleConnections, NetworkError, Origin

READ_BYTES = 64 * 1024
MAX_TAIL_READS = 4
"""How often an idle connection is read from before it is given up: a response may have no end."""
LONGEST_WAIT = 86_400.0
"""Seconds a system call may be asked to wait for: some refuse more."""


class Connection:
    """One connection. Used by one thread at a time; `interrupt` may come from any."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self._machine = Http1Connection()
        self._socket: socket.socket | None = None
        self._interrupted = False

    def open(self, context: ssl.SSLContext | None, timeout: float) -> None:
        """Connect, with TLS where ``context`` is given. Raises `OSError` (a timeout and a failed handshake are such)."""
        give_up_at = time.monotonic() + timeout
        problem: OSError = OSError(f"{self.origin.host} has no address")
        for family, kind, protocol, _, address in socket.getaddrinfo(
            self.origin.host, self.origin.port, type=socket.SOCK_STREAM
        ):
            self._socket = socket.socket(family, kind, protocol)
            try:
                self._connect(address, context, give_up_at)
                return
            except OSError as error:
                problem = error
                self.close()
                if self._interrupted or time.monotonic() >= give_up_at:
                    break
        raise problem

    def _connect(self, address: Any, context: ssl.SSLContext | None, give_up_at: float) -> None:
        assert self._socket is not None
        plain = self._socket
        plain.setblocking(False)
        problem = plain.connect_ex(address)
        if problem in (errno.EINPROGRESS, errno.EWOULDBLOCK):
            problem = self._wait_for_connect(plain, give_up_at)
        if problem:
            raise OSError(problem, os.strerror(problem))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            # Wrapping takes the descriptor from `plain`: known before the handshake, so `interrupt` and `close` reach it.
            secured = context.wrap_socket(plain, server_hostname=self.origin.host, do_handshake_on_connect=False)
            self._socket = secured
            secured.settimeout(min(self._time_left(give_up_at), LONGEST_WAIT))
            secured.do_handshake()
        if self._interrupted:
            raise ConnectionAbortedError("interrupted while connecting")
        self._socket.settimeout(None)

    def _wait_for_connect(self, plain: socket.socket, give_up_at: float) -> int:
        """Begun first, waited for then: a shutdown wakes a connect that has begun, and goes unnoticed by one about to."""
        with selectors.DefaultSelector() as selector:
            selector.register(plain, selectors.EVENT_WRITE)
            while not selector.select(min(self._time_left(give_up_at), LONGEST_WAIT)):
                pass
        return plain.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def _time_left(self, give_up_at: float) -> float:
        if self._interrupted:
            raise ConnectionAbortedError("interrupted while connecting")
        left = give_up_at - time.monotonic()
        if left <= 0:
            raise TimeoutError("connecting took too long")
        return left

    def send(self, request: HttpRequest) -> None:
        """Send a request. Raises `OSError`."""
        assert self._socket is not None
        self._socket.sendall(self._machine.send(request))

    def receive(self) -> list[HttpEvent]:
        """Wait for bytes, and say what they mean. Raises `OSError`."""
        assert self._socket is not None
        return self._machine.receive(self._socket.recv(READ_BYTES))

    def is_fit(self) -> bool:
        """Whether an idle connection can carry another request: still open, and nothing unasked for came.

        Reads without waiting, so that a response's last bytes that nobody waited for do not cost the connection.
        """
        assert self._socket is not None
        self._socket.settimeout(0.0)
        try:
            for _ in range(MAX_TAIL_READS):
                if not (data := self._socket.recv(READ_BYTES)):
                    break
                self._machine.receive(data)
            return False
        except (BlockingIOError, ssl.SSLWantReadError):
            self._socket.settimeout(None)
            return self._machine.reusable
        except OSError:
            return False

    def interrupt(self) -> None:
        """Wake whoever is blocked on this connection. Any thread may call this; the owner closes it."""
        self._interrupted = True
        if (known := self._socket) is not None:
            with contextlib.suppress(OSError):  # not connected yet, or not any more: then nobody stays blocked on it
                socket.socket.shutdown(known, socket.SHUT_RDWR)  # not SSLSocket's: that one takes TLS from under a reader

    def close(self) -> None:
        """Close the socket. Idempotent."""
        if (known := self._socket) is not None:
            known.close()


class HttpClient:
    """Connections to any number of origins, reused. Thread-safe."""

    def __init__(self, ssl_context: ssl.SSLContext | None = None) -> None:
        self._ssl_context = ssl_context
        self._idle: IdleConnections[Connection] = IdleConnections()
        self._lock = threading.Lock()

    def reuse(self, origin: Origin) -> Connection | None:
        """An idle connection that is still fit, or ``None``."""
        while True:
            with self._lock:
                connection, expired = self._idle.take(origin, time.monotonic())
            _close_all(expired)
            if connection is None or connection.is_fit():
                return connection
            connection.close()

    def open(self, connection: Connection, timeout: float) -> None:
        """Connect a new connection. Raises `OSError`, or `NetworkError` for a name that cannot be looked up."""
        try:
            connection.open(self._context() if connection.origin.scheme == "https" else None, timeout)
        except UnicodeError as error:
            raise NetworkError(f"{connection.origin.host!r} is not a host name").caused_by(error) from error

    def _context(self) -> ssl.SSLContext:
        if self._ssl_context is None:  # not before it is needed: it reads all of the platform's certificates
            self._ssl_context = ssl.create_default_context()
        return self._ssl_context

    def give_back(self, connection: Connection) -> None:
        """Keep a connection for the next request; whether it is fit is seen then."""
        with self._lock:
            excess = self._idle.put(connection.origin, connection, time.monotonic())
        _close_all(excess)

    def close(self) -> None:
        """Close every idle connection, and from now on each one given back."""
        with self._lock:
            connections = self._idle.close()
        _close_all(connections)


def build_client(*, ssl_context: ssl.SSLContext | None = None) -> HttpClient:
    """The client an engine uses unless it is given one. ``ssl_context`` is by default the platform's, verification on."""
    return HttpClient(ssl_context)


def _close_all(connections: list[Connection]) -> None:
    for connection in connections:
        connection.close()
