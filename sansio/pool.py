"""Which idle connection is used again, and which is closed: a pure decision over opaque connections.

The most recently used connection goes first (it is the least likely to have been closed by the peer), the oldest are
closed when they have been idle for too long or are too many. Opening, closing and probing are the driver's.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from .backoff import require_count, require_positive
from .http import Origin

Connection = TypeVar("Connection")


class IdleConnections(Generic[Connection]):
    """The idle connections of one engine, by origin.

    max_idle_per_origin: how many are kept for one origin. idle_timeout: seconds after which one is no longer used; below
    the keep-alive timeouts servers commonly have, so that the peer rarely closes first. Raises `ValueError` for either out
    of range.
    """

    __slots__ = ("_closed", "_idle", "idle_timeout", "max_idle_per_origin")

    def __init__(self, *, max_idle_per_origin: int = 128, idle_timeout: float = 30.0) -> None:
        require_count("max_idle_per_origin", max_idle_per_origin)
        require_positive("idle_timeout", idle_timeout)
        self.max_idle_per_origin = max_idle_per_origin
        self.idle_timeout = idle_timeout
        self._idle: dict[Origin, list[tuple[float, Connection]]] = {}
        self._closed = False

    def __len__(self) -> int:
        return sum(len(idle) for idle in self._idle.values())

    def take(self, origin: Origin, now: float) -> tuple[Connection | None, list[Connection]]:
        """A connection to use again, if there is one, and those to close because they were idle for too long.

        The caller checks that the connection is still fit, and asks again if it is not.
        """
        expired = self._expire(origin, now)
        idle = self._idle.get(origin)
        if not idle:
            return None, expired
        connection = idle.pop()[1]
        if not idle:
            del self._idle[origin]
        return connection, expired

    def put(self, origin: Origin, connection: Connection, now: float) -> list[Connection]:
        """Keep a connection whose exchange is over; returns those to close instead (this one, once the pool is closed)."""
        if self._closed:
            return [connection]
        expired = self._expire(origin, now)
        idle = self._idle.setdefault(origin, [])
        idle.append((now, connection))
        while len(idle) > self.max_idle_per_origin:
            expired.append(idle.pop(0)[1])
        return expired

    def close(self) -> list[Connection]:
        """Keep nothing from now on; returns every idle connection, to be closed."""
        self._closed = True
        everything = [connection for idle in self._idle.values() for _, connection in idle]
        self._idle.clear()
        return everything

    def _expire(self, origin: Origin, now: float) -> list[Connection]:
        idle = self._idle.get(origin, [])
        fresh = [entry for entry in idle if now - entry[0] < self.idle_timeout]
        expired = [connection for since, connection in idle if now - since >= self.idle_timeout]
        if expired:
            if fresh:
                self._idle[origin] = fresh
            else:
                del self._idle[origin]
        return expired
