"""The client in a world: connections over a simulated network, pooled, under the core's own HTTP machines.

It decides as the asyncio driver's client does, but calls back instead of being awaited: a line's owner hears when it is
open, when it failed, and when there may be something to take. All of that comes from the clock's agenda, never from within
a call. So whoever moves requests through a world (a node of events, an adapter for asyncio or trio) stands on this.

After `LineOwner.failed`, as at any other moment, a line is the owner's until it lets go of it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final, Protocol

from ...connection_pool import ConnectionPool, Grant, Http2, PoolConfig, PoolOrders
from ...errors import InferenceError, ProtocolError
from ...http import HttpEvent, HttpRequest, Origin
from ...http2 import Http2Connection
from .clock import Timer
from .network import Network
from .wire_connections import Connection, Socket

_TAIL_PATIENCE: Final = 0.05
"""Seconds to wait, when an HTTP/1.1 connection is wanted again, for the last bytes of its last answer."""


class LineOwner(Protocol):
    """Who uses a line. Only ever called from the clock's agenda, and never once it has let go of the line."""

    def opened(self) -> None:
        """The line has a connection: send."""
        ...

    def failed(self, error: OSError | InferenceError) -> None:
        """The line gets no connection, or was interrupted before it had one: let go of it."""
        ...

    def woken(self) -> None:
        """There may be something to take."""
        ...


class _Phase(enum.Enum):
    NEW = enum.auto()
    OPENING = enum.auto()
    """The owner waits for `LineOwner.opened` or `LineOwner.failed`."""
    OPEN = enum.auto()
    FAILED = enum.auto()
    OVER = enum.auto()


class WireLine:
    """One request's use of a connection. `interrupt` and `let_go` may be called at any moment."""

    __slots__ = (
        *("_client", "_connection", "_fresh", "_grant", "_interrupted", "_origin", "_owner", "_patience", "_phase", "_sent"),
        *("_socket", "reused", "stream_id"),
    )

    def __init__(self, client: WireClient, owner: LineOwner) -> None:
        self.reused = False
        """Once open: whether the connection has carried a request before."""
        self.stream_id = 0
        """Which stream of an HTTP/2 connection is this one's."""
        self._client = client
        self._owner = owner
        self._phase = _Phase.NEW
        self._interrupted = False
        self._origin: Origin | None = None
        self._fresh = False
        self._grant: Grant[Connection] | None = None
        self._socket: Socket | None = None  # what it dials
        self._connection: Connection | None = None
        self._patience: Timer | None = None
        self._sent = False

    # ---- for its owner ----------------------------------------------------------------------------------------------

    def open(self, request: HttpRequest, *, fresh: bool) -> None:
        """Get a connection: from the pool unless ``fresh``, or a new one. Raises `RuntimeError` for a line that was opened
        or let go already."""
        if self._phase is not _Phase.NEW:
            raise RuntimeError("a line is opened once")
        self._phase, self._origin, self._fresh = _Phase.OPENING, request.origin, fresh
        if self._interrupted:
            self._client.soon(self._called_off)
        else:
            self._client.acquire(self, self._origin, fresh=fresh)

    def send(self, request: HttpRequest) -> None:
        """Send the request. Raises `OSError` when the connection is lost, or there is none."""
        if self._connection is None or not self._connection.is_fit():
            raise ConnectionResetError("the connection was lost before the request was sent")
        self._sent = True
        self._connection.send(self, request)

    def take(self) -> list[HttpEvent] | None:
        """What came, ``None`` while there is nothing. Raises `OSError` when the connection is lost, or the line was
        interrupted."""
        if self._connection is not None and self._sent:
            events = self._connection.take(self)
            if events is not None or not self._interrupted:
                return events
        raise ConnectionAbortedError("interrupted" if self._interrupted else "nothing was sent over this line")

    def interrupt(self) -> None:
        """Wake whoever waits on this line: it fails with an `OSError`."""
        self._interrupted = True
        self._stop_waiting()
        self._client.soon(self._called_off)

    def let_go(self, *, keep: bool) -> None:
        """Part with the connection, or with the place in line for one. ``keep``: the exchange ended well. Idempotent."""
        self._phase = _Phase.OVER
        self._stop_waiting()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.leave(self, keep=keep)
            return
        self._client.withdraw(self)
        grant, self._grant = self._grant, None
        if grant is not None and grant.connection is not None:  # called off between the grant and its use
            self._client.release(grant.connection)

    # ---- for the pool and the connections ---------------------------------------------------------------------------

    def grant(self, grant: Grant[Connection]) -> None:
        """The pool's answer."""
        self._grant = grant
        self._client.soon(self._use_grant)

    def dialled(self, connection: Connection) -> None:
        """What it has dialled stands."""
        self._socket, self._connection = None, connection
        connection.begin(self)
        if not self._interrupted:  # by a pool that was closed meanwhile
            self._opened()

    def failed(self, error: OSError | InferenceError) -> None:
        """What it has dialled does not stand."""
        self._socket = None
        self._fail(error)

    def settled(self, connection: Connection) -> None:
        """A connection that it was granted is now what it will be."""
        if self._patience is not None:
            self._stop_waiting()
            self._use(connection, patient=False)

    def wake(self) -> None:
        """There may be something to take."""
        if self._phase is _Phase.OPEN:
            self._owner.woken()

    # ---- inside -----------------------------------------------------------------------------------------------------

    def _use_grant(self) -> None:
        grant = self._grant
        if grant is None or self._interrupted:  # called off: what was granted is given back when it is let go
            return
        self.reused = grant.reused
        if grant.connection is not None:
            self._use(grant.connection, patient=True)
        else:
            assert self._origin is not None  # it has asked
            self._socket = Socket(self._client, self, self._origin)

    def _use(self, connection: Connection, *, patient: bool) -> None:
        if connection.is_fit():
            self._grant, self._connection = None, connection
            self._opened()
        elif patient and connection.settles(self):
            self._patience = self._client.later(_TAIL_PATIENCE, lambda: self.settled(connection))
        else:
            assert self._origin is not None  # as above
            self._grant = None
            connection.leave(self, keep=False)
            self._client.acquire(self, self._origin, fresh=self._fresh)

    def _opened(self) -> None:
        self._phase = _Phase.OPEN
        self._owner.opened()

    def _fail(self, error: OSError | InferenceError) -> None:
        self._phase = _Phase.FAILED
        self._owner.failed(error)

    def _called_off(self) -> None:
        if self._phase is _Phase.OPENING:
            self._fail(ConnectionAbortedError("interrupted"))
        else:
            self.wake()

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class WireClient:
    """Connections to any number of hosts of a network, pooled.

    now: the clock of whoever it belongs to, which may differ from the network's. pool: how many connections there may be,
    and what they speak. connections: how many are open or being dialled. Raises `ImportError` for HTTP/2 without its extra.
    """

    __slots__ = ("_http2", "_now", "_pool", "connections", "network")

    def __init__(self, network: Network, now: Callable[[], float], pool: PoolConfig | None = None) -> None:
        config = pool or PoolConfig()
        if config.http2 is not Http2.OFF:
            Http2Connection()  # what is not installed is better known now than at the first answer
        self.network = network
        self.connections = 0
        self._now = now
        self._http2 = config.http2
        self._pool: ConnectionPool[Connection, WireLine] = ConnectionPool(config)

    # ---- for who uses it ----------------------------------------------------------------------------------------------

    def line(self, owner: LineOwner) -> WireLine:
        """For one request. Not connected yet."""
        return WireLine(self, owner)

    def deadline(self) -> float | None:
        """When a connection will have been idle for too long, by ``now``'s clock."""
        return self._pool.deadline()

    def expire(self, now: float) -> None:
        """Close the connections that have been idle for too long."""
        self._decide(self._pool.expire(now))

    def close(self) -> None:
        """Close every idle connection, and from now on each one given back. Who waits for one is interrupted."""
        self._decide(self._pool.close())

    # ---- for lines and connections ------------------------------------------------------------------------------------

    def offers_http2(self, origin: Origin) -> bool:
        """Whether a dial offers HTTP/2: by ALPN over TLS, by prior knowledge without."""
        return self._http2 is Http2.ONLY or (self._http2 is Http2.OFFER and origin.scheme == "https")

    def speaks_http2(self, origin: Origin, *, agreed: bool) -> bool:
        """Whether a new connection speaks HTTP/2. Raises `ProtocolError` where nothing else will do, and the server has not
        agreed."""
        if origin.scheme == "http":
            return self._http2 is Http2.ONLY
        if self._http2 is Http2.ONLY and not agreed:
            raise ProtocolError("the server does not offer HTTP/2; if it speaks HTTP/1.1 only, switch HTTP/2 off for it")
        return agreed

    def soon(self, action: Callable[[], None]) -> None:
        """Let it happen next, from the agenda."""
        self.network.clock.call_later(0.0, action)

    def later(self, delay: float, action: Callable[[], None]) -> Timer:
        """Let it happen after ``delay`` seconds."""
        return self.network.clock.call_later(delay, action)

    def acquire(self, line: WireLine, origin: Origin, *, fresh: bool) -> None:
        """Ask for a connection. The answer is `WireLine.grant`, at once or later."""
        self._decide(self._pool.acquire(line, origin, self._now(), fresh=fresh))

    def withdraw(self, line: WireLine) -> None:
        """A line needs no connection any more, or could not dial one."""
        self._decide(self._pool.withdraw(line, self._now()))

    def opened(self, line: WireLine, connection: Connection, streams: int | None) -> None:
        """A line has dialled a connection, and uses it."""
        self._decide(self._pool.opened(line, connection, streams, self._now()))

    def release(self, connection: Connection) -> None:
        """A line has left a connection that may be used again."""
        self._decide(self._pool.released(connection, self._now(), reusable=True))

    def resize(self, connection: Connection, streams: int) -> None:
        """An HTTP/2 connection takes another number of streams; none any more, with 0."""
        self._decide(self._pool.resized(connection, streams, self._now()))

    def lose(self, connection: Connection) -> None:
        """A connection is of no use to anybody: the pool closes it."""
        self._decide(self._pool.lost(connection, self._now()))

    def _decide(self, orders: PoolOrders[Connection, WireLine]) -> None:
        for line, grant in orders.grants:
            line.grant(grant)
        for line in orders.refused:
            line.interrupt()
        for connection in orders.close:
            connection.close()
