"""A general client for threads.

Each connection is an `httpx.Client` of its own, so that which one is used again, and for how long it is kept, is the core's
`ConnectionPool` to decide. A client that the user has built is used as it is instead, with its own pool.

A thread that is blocked in httpx wakes when the socket under it is shut down. httpx tells of a socket once it is connected,
and of the one that an answer comes over: a `Grip` holds on to it. So a TCP connect ends by its own timeout; and with a
client of the user's, so does the wait for a head over a connection that was used before.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from drivers.front import PooledClient
from drivers.front.pooled_client import Args, Result
from sansio import END, Grant, HttpEvent, HttpRequest, InferenceError, Origin, PoolConfig

from .messages import (
    MAX_TAIL_READS,
    PATIENCE,
    Trace,
    build_request,
    extension_of_timeouts,
    failed_before_sending,
    failure,
    is_open,
    is_over_http1,
    private_settings,
    read_head,
    try_environment,
)

Pieces = Iterator[bytes]
Lowered = Callable[[], AbstractContextManager[None]]
"""Lets an interrupt (Ctrl-C) through while a caller waits."""


class Grip:
    """A hold on the socket under a connection, by a descriptor of its own: httpx may close its one at any moment.

    `shut_down` may come from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None

    @property
    def holds(self) -> bool:
        """Whether there is a socket to shut down."""
        return self._socket is not None

    def take(self, stream: Any) -> None:
        """Hold on to this connection, instead of what was held."""
        known = None if stream is None else stream.get_extra_info("socket")
        self.release()
        if known is not None and known.fileno() >= 0:
            with self._lock:
                self._socket = socket.socket(fileno=os.dup(known.fileno()))

    def shut_down(self) -> None:
        """Wake whoever is blocked on the connection, which is of no use after it."""
        with self._lock, contextlib.suppress(OSError):  # not connected any more: then nobody stays blocked on it
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_RDWR)

    def bound_reads(self, seconds: float) -> None:
        """Let no read of a blocking socket take longer; 0 for no bound."""
        with self._lock, contextlib.suppress(OSError):
            if self._socket is not None:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _interval(seconds))

    def release(self) -> None:
        """Hold on no longer. Idempotent."""
        with self._lock:
            known, self._socket = self._socket, None
        if known is not None:
            known.close()


def _interval(seconds: float) -> bytes:
    """As the system's ``SO_RCVTIMEO`` takes it."""
    if sys.platform == "win32":
        return struct.pack("I", int(seconds * 1000))
    return struct.pack("ll", int(seconds), int(seconds % 1 * 1_000_000))


class BlockingLine(ABC):
    """One request by way of a general client. For one thread; `interrupt` may come from any."""

    def __init__(self, module: Any, lowered: Lowered, grip: Grip) -> None:
        self.reused = False
        self._module = module
        self._lowered = lowered
        self._grip = grip
        self._interrupted = False
        self._request: HttpRequest | None = None
        self._trace: Trace | None = None
        self._response: Any = None
        self._pieces: Pieces | None = None
        self._news: list[HttpEvent] = []
        self._problem: OSError | InferenceError | None = None

    @abstractmethod
    def _get(self, origin: Origin, *, fresh: bool) -> Any:
        """The client to send with."""

    @abstractmethod
    def _bounds(self, timeout: float) -> dict[str, float | None]:
        """How long each of the client's waits may take."""

    @abstractmethod
    def _part(self, pieces: Pieces | None, *, keep: bool) -> None:
        """Let go of the client. ``pieces``: what is left of an answer that has not come to its end."""

    def open(self, request: HttpRequest, timeout: float, *, fresh: bool, sending: Callable[[], None]) -> None:
        """Connect within ``timeout`` seconds, call ``sending``, send, and wait for the head. What goes wrong after
        ``sending`` is raised by `receive`, what does before it here: `OSError` (also when interrupted) or
        `InferenceError`."""
        self._check()
        self._request = request
        client = self._get(request.origin, fresh=fresh)
        trace = self._trace = Trace(sending)
        timeouts = self._bounds(timeout)
        read_timeout = timeouts["read"]

        def note(name: str, info: dict[str, Any]) -> None:
            if trace.note(name, info):
                self._hold(trace.stream)
                timeouts["read"] = None  # it can be woken
            elif name.startswith("http2."):
                self._grip.release()  # others use that connection too
                timeouts["read"] = read_timeout

        message = build_request(self._module, request, {"timeout": timeouts, "trace": note})
        self._check()
        try:
            with self._lowered():
                response = self._response = client.send(message, stream=True, auth=None, follow_redirects=False)
        except Exception as error:
            self._problem = failure(self._module, error, request)
            if not (trace.sent or failed_before_sending(self._module, error)):
                trace.send()
            if not trace.sent:
                raise self._problem from self._problem.__cause__
        else:
            trace.send()
            self._begin(response)
            if self._grip.holds:
                timeouts["read"] = None
        finally:
            self.reused = trace.reused
        self._check()

    def _begin(self, response: Any) -> None:
        """A head is there."""
        if is_over_http1(response) and not self._grip.holds:
            self._hold(response.extensions.get("network_stream"))
        read_already = response.is_stream_consumed  # by a transport or a hook of the user's
        self._pieces = iter([response.content] if response.content else []) if read_already else response.iter_raw()
        self._news = read_head(response)

    def _hold(self, stream: Any) -> None:
        self._grip.take(stream)
        if self._interrupted:
            self._grip.shut_down()

    def _check(self) -> None:
        if self._interrupted:
            raise ConnectionAbortedError("interrupted")

    def send(self, request: HttpRequest) -> None:
        """Done by `open`."""
        assert self._trace is not None and self._trace.sent

    def receive(self) -> list[HttpEvent]:
        """The head, then the pieces of the body as they come, then the end. Raises `OSError` or `InferenceError`."""
        if self._problem is not None:
            raise self._problem from self._problem.__cause__
        if self._news:
            news, self._news = self._news, []
            return news
        assert self._pieces is not None and self._request is not None
        try:
            with self._lowered():
                piece = next(self._pieces, None)
        except Exception as error:
            self._problem = failure(self._module, error, self._request)
            raise self._problem from self._problem.__cause__
        if piece is not None:
            return [piece]
        self._pieces = None
        return [END]

    def interrupt(self) -> None:
        """Wake the thread that is blocked on this line. Not after `let_go`."""
        self._interrupted = True
        self._grip.shut_down()

    def let_go(self, *, keep: bool) -> None:
        """Part with the client, wherever the request stands. Idempotent."""
        pieces, self._pieces = self._pieces, None
        self._part(pieces, keep=keep and self._problem is None and not self._interrupted)
        self._response = None


def finish(pieces: Pieces, grip: Grip) -> bool:
    """Bring an answer to its end. Returns whether it came by itself, in a few pieces and nearly at once."""
    if grip.holds:
        grip.bound_reads(PATIENCE)
        with contextlib.suppress(Exception):
            for _ in range(MAX_TAIL_READS):
                if next(pieces, None) is None:
                    grip.bound_reads(0.0)
                    return True
    return False


# ---- clients of our own ------------------------------------------------------------------------------------------------


class Connection:
    """A private client, which holds one connection at most."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.grip = Grip()
        self.stream: Any = None
        self.tail: Pieces | None = None
        """What is left of an answer whose end nobody waited for."""

    def is_fit(self) -> bool:
        """Whether another request may go over it. An answer's last bytes that nobody waited for do not cost it."""
        tail, self.tail = self.tail, None
        return (tail is None or finish(tail, self.grip)) and is_open(self.stream)

    def close(self) -> None:
        """Close the socket. Idempotent."""
        self.client.close()
        self.grip.release()


class PooledBlockingLine(BlockingLine):
    """A line over a pooled connection."""

    def __init__(self, client: BlockingClient) -> None:
        super().__init__(client.module, client.lowered, Grip())
        self._client = client
        self._connection: Connection | None = None
        self._grant: Grant[Connection] | None = None
        self._signal = threading.Event()

    def _get(self, origin: Origin, *, fresh: bool) -> Any:
        while self._connection is None:
            self._client.acquire(self, origin, fresh=fresh)
            while self._grant is None:
                with self._lowered():
                    self._signal.wait()
                self._signal.clear()
                self._check()
            connection = self._grant.connection
            if connection is None:
                connection = Connection(self._client.make(origin))
                self._connection = connection
                self._client.opened(self, connection, None)
            elif connection.is_fit():
                self._connection = connection
            else:
                self._client.lose(connection)
            self._grant = None
        self._grip = self._connection.grip
        return self._connection.client

    def _bounds(self, timeout: float) -> dict[str, float | None]:
        return extension_of_timeouts(timeout)

    def grant(self, grant: Grant[Connection]) -> None:
        """The pool's answer."""
        self._grant = grant
        self._signal.set()

    def refuse(self) -> None:
        """The pool is closed."""
        self.interrupt()

    def interrupt(self) -> None:
        """As above."""
        super().interrupt()
        self._signal.set()

    def _part(self, pieces: Pieces | None, *, keep: bool) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            if self._trace is not None and self._trace.stream is not None:
                connection.stream = self._trace.stream
            connection.tail = pieces
            if keep and is_open(connection.stream):
                self._client.release(connection)
            else:
                self._client.lose(connection)
            return
        self._client.withdraw(self)
        grant, self._grant = self._grant, None
        if grant is not None and grant.connection is not None:  # called off between the grant and its use
            self._client.release(grant.connection)


class BlockingClient(PooledClient[Connection, PooledBlockingLine]):
    """Connections to any number of origins by way of httpx or httpx2, pooled. Thread-safe.

    module: which of the two. lowered: lets an interrupt through. HTTP/1.1 only.
    """

    def __init__(self, module: Any, lowered: Lowered, ssl_context: ssl.SSLContext | None, pool: PoolConfig | None) -> None:
        super().__init__(ssl_context, pool)
        self._lock = threading.Lock()
        try_environment(module)
        self.module = module
        self.lowered = lowered

    def now(self) -> float:
        """The system's monotonic clock."""
        return time.monotonic()

    def _alone(self, work: Callable[Args, Result], *args: Args.args, **kwargs: Args.kwargs) -> Result:
        with self._lock:
            return work(*args, **kwargs)

    def line(self) -> PooledBlockingLine:
        """For one request. Not connected yet."""
        return PooledBlockingLine(self)

    def make(self, origin: Origin) -> Any:
        """A client for one connection."""
        return self.module.Client(**private_settings(self.module, self.tls(origin)))

    def close(self) -> None:
        """Close every idle connection, and from now on each one given back."""
        self.close_idle()


# ---- a client of the user's ----------------------------------------------------------------------------------------------


class GivenBlockingLine(BlockingLine):
    """A line over whatever connection the user's client takes."""

    def __init__(self, module: Any, lowered: Lowered, client: Any) -> None:
        super().__init__(module, lowered, Grip())
        self._client = client

    def _get(self, origin: Origin, *, fresh: bool) -> Any:
        return self._client

    def _bounds(self, timeout: float) -> dict[str, float | None]:
        """Its own read timeout counts, as long as nobody can wake it from a read."""
        return {**extension_of_timeouts(timeout), "read": self._client.timeout.read}

    def _part(self, pieces: Pieces | None, *, keep: bool) -> None:
        if self._response is not None:
            if pieces is not None and keep:
                finish(pieces, self._grip)
            if not keep:
                self._grip.shut_down()
            self._response.close()
        self._grip.release()


class GivenBlockingClient:
    """An `httpx.Client` that the user has built. Never closed here: whoever opens a client closes it."""

    def __init__(self, module: Any, lowered: Lowered, client: Any) -> None:
        if not isinstance(client, module.Client):
            raise ValueError(f"client: this driver needs an {module.__name__}.Client")
        self.module = module
        self._lowered = lowered
        self._client = client

    def line(self) -> GivenBlockingLine:
        """For one request. Not connected yet."""
        return GivenBlockingLine(self.module, self._lowered, self._client)

    def deadline(self) -> float | None:
        """The client keeps time for its own connections."""
        return None

    def expire(self, now: float) -> None:
        """Nothing is kept here."""

    def close(self) -> None:
        """Nothing is kept here."""
