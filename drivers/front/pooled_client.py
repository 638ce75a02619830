"""The part of a native client that is the same in every driver: its connection pool, and who is told what it decides.

In a critical section (a lock with threads, nothing on an event loop) the pool is told, and its grants are handed out; what
is to be closed is closed after it.
"""

from __future__ import annotations

import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Hashable, Sequence
from contextlib import contextmanager
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

from sansio import ConnectionPool, Grant, Http2, Http2Connection, Origin, PoolConfig, ProtocolError
from sansio import PoolOrders as Orders


class PooledConnection(Hashable, Protocol):
    """A connection of any driver."""

    def close(self) -> None:
        """Close the socket, without waiting and without a farewell. Idempotent."""
        ...


ConnectionT = TypeVar("ConnectionT", bound=PooledConnection)
LineT = TypeVar("LineT", bound="PooledLine[Any]")
Args = ParamSpec("Args")
Result = TypeVar("Result")


class PooledLine(Hashable, Protocol[ConnectionT]):
    """One request's use of a connection."""

    def grant(self, grant: Grant[ConnectionT]) -> None:
        """The pool's answer: a connection, or leave to dial one."""
        ...

    def refuse(self) -> None:
        """The pool is closed, and gives nothing."""
        ...


_NO_HTTP2 = "the server does not offer HTTP/2; if it speaks HTTP/1.1 only, switch HTTP/2 off for it"

TAIL_PATIENCE = 0.05
"""Seconds to wait, when an HTTP/1.1 connection is wanted again, for the last bytes of its last answer. A caller has its last
token before the framing's end has come; some servers send that apart."""

ALPN = {Http2.OFF: ["http/1.1"], Http2.OFFER: ["h2", "http/1.1"], Http2.ONLY: ["h2"]}
"""The protocols offered to a server, the best first (RFC 7301, RFC 9113 section 3.2)."""


class PooledClient(ABC, Generic[ConnectionT, LineT]):
    """Connections to any number of origins, kept for reuse. Raises `ImportError` for HTTP/2 without its extra."""

    def __init__(self, ssl_context: ssl.SSLContext | None, config: PoolConfig | None) -> None:
        self._http2 = (config or PoolConfig()).http2
        if self._http2 is not Http2.OFF:
            Http2Connection()  # what is not installed is better known now than at the first answer
        self._ssl_context = ssl_context
        if ssl_context is not None:
            ssl_context.set_alpn_protocols(ALPN[self._http2])
        self._pool: ConnectionPool[ConnectionT, LineT] = ConnectionPool(config or PoolConfig())

    @abstractmethod
    def now(self) -> float:
        """The clock of this world: monotonic seconds."""

    def _alone(self, work: Callable[Args, Result], *args: Args.args, **kwargs: Args.kwargs) -> Result:
        """Do this in a critical section. On an event loop everything that does not await is one."""
        return work(*args, **kwargs)

    # ---- for the engine -----------------------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """When a connection will have been idle for too long."""
        return self._alone(self._pool.deadline)

    def expire(self, now: float) -> None:
        """Close the connections that have been idle for too long."""
        self._decide(self._pool.expire, now)

    def close_idle(self) -> None:
        """Close every idle connection, and from now on each one given back."""
        self._decide(self._pool.close)

    # ---- for lines and connections ------------------------------------------------------------------------------------

    def tls(self, origin: Origin) -> ssl.SSLContext | None:
        """What secures a connection to ``origin``: verification on, and ALPN for what may be spoken; ``None`` for plain."""
        if origin.scheme != "https":
            return None
        return self._ssl_context or self._alone(self._platforms_context)

    def _platforms_context(self) -> ssl.SSLContext:
        """Made when it is needed: it reads all of the platform's certificates. ALPN is set before anybody has it, and not
        again: OpenSSL may be copying it for a handshake in another thread."""
        if self._ssl_context is None:
            context = ssl.create_default_context()
            context.set_alpn_protocols(ALPN[self._http2])
            self._ssl_context = context
        return self._ssl_context

    def speaks_http2(self, tls: ssl.SSLObject | ssl.SSLSocket | None) -> bool:
        """Whether a new connection speaks HTTP/2: by ALPN over TLS (RFC 9113, section 3.2), by prior knowledge without.

        Raises `ProtocolError` for a server that does not, where nothing else will do.
        """
        if tls is None:
            return self._http2 is Http2.ONLY
        agreed = self._http2 is not Http2.OFF and tls.selected_alpn_protocol() == "h2"
        if self._http2 is Http2.ONLY and not agreed:
            raise ProtocolError(_NO_HTTP2)
        return agreed

    @contextmanager
    def handshake(self) -> Generator[None]:
        """A TLS handshake. Raises `ProtocolError` where the server ends it because nothing on offer by ALPN suits it."""
        try:
            yield
        except ssl.SSLError as error:
            if self._http2 is Http2.ONLY and "no application protocol" in str(error):  # by its words: `reason` is empty
                raise ProtocolError(_NO_HTTP2).caused_by(error) from error
            raise

    def acquire(self, line: LineT, origin: Origin, *, fresh: bool) -> None:
        """Ask for a connection. The answer is `PooledLine.grant`, at once or later."""
        self._decide(self._pool.acquire, line, origin, self.now(), fresh=fresh)

    def withdraw(self, line: LineT) -> None:
        """A line needs no connection any more, or could not dial one."""
        self._decide(self._pool.withdraw, line, self.now())

    def opened(self, line: LineT, connection: ConnectionT, streams: int | None) -> None:
        """A line has dialled a connection, and uses it."""
        self._decide(self._pool.opened, line, connection, streams, self.now())

    def release(self, connection: ConnectionT) -> None:
        """A line has left a connection that may be used again."""
        self._decide(self._pool.released, connection, self.now(), reusable=True)

    def resize(self, connection: ConnectionT, streams: int) -> None:
        """An HTTP/2 connection takes another number of streams; none any more, with 0."""
        self._decide(self._pool.resized, connection, streams, self.now())

    def lose(self, connection: ConnectionT) -> None:
        """A connection is of no use to anybody."""
        connection.close()
        self._decide(self._pool.lost, connection, self.now())

    def _decide(self, decide: Callable[Args, Orders[ConnectionT, LineT]], *args: Args.args, **kwargs: Args.kwargs) -> None:
        for connection in self._alone(self._granting, decide, *args, **kwargs):
            connection.close()

    def _granting(
        self, decide: Callable[Args, Orders[ConnectionT, LineT]], /, *args: Args.args, **kwargs: Args.kwargs
    ) -> Sequence[ConnectionT]:
        """In the critical section, so that a line which withdraws in another one either stops its grant or has it."""
        orders = decide(*args, **kwargs)
        for line, grant in orders.grants:
            line.grant(grant)
        for line in orders.refused:
            line.refuse()
        return orders.close
