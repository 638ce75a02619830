"""Which connection a request goes over, when another one is dialled, who waits, and what is closed: a pure decision.

Connections and waiters are opaque (hashable by identity). A waiter asks for a place on a connection (`acquire`). It is
granted one at once or later: a place on a connection that stands, or the order to dial one itself and to say how that went
(`opened`, `failed`). A place is given back with `released`. Every method answers with `PoolOrders`, to be carried out before
the next call.

Over HTTP/1.1 a connection has one place, over HTTP/2 as many as the server allows streams. Whether an origin speaks HTTP/2
is only known once TLS has negotiated it (ALPN, RFC 7301), so the first dial to such an origin is made alone, and the others
wait for what it learns rather than open a connection each where one will do. What the latest dial found is believed.

Who waits does so in the order of asking, once for each origin, and each freed place is granted to exactly one. The pool
owns what it was told about: each connection reported as opened is ordered closed exactly once, whatever becomes of it.
"""

from __future__ import annotations

import enum
import math
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Final, Generic, NamedTuple, TypeVar

from .backoff import require_count, require_positive
from .http import Origin

ConnectionT = TypeVar("ConnectionT", bound=Hashable)
WaiterT = TypeVar("WaiterT", bound=Hashable)

_ASSUMED_STREAMS: Final = 100
"""How many streams a connection that is still being dialled is counted as, while nobody said otherwise: no server should
allow fewer (RFC 9113, section 6.5.2)."""


class Http2(enum.StrEnum):
    """Whether connections speak HTTP/2.

    OFF: HTTP/1.1 only. OFFER: over TLS, the server chooses (ALPN offers both); without TLS, HTTP/1.1. ONLY: over TLS, ALPN
    must give ``h2``; without TLS, by prior knowledge.
    """

    OFF = "off"
    OFFER = "offer"
    ONLY = "only"


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """How many connections there may be, and for how long.

    max_connections_per_origin: open and being dialled, at once; at least 1, ``None`` for no limit.
    max_idle_per_origin: how many are kept without a request on them.
    idle_timeout: seconds after which an idle one is closed; below the keep-alive timeouts servers commonly have, so that the
    peer rarely closes first.
    http2: an `Http2` or its value as a string.

    Raises `ValueError` at construction for a field out of range, naming it.
    """

    max_connections_per_origin: int | None = None
    max_idle_per_origin: int = 128
    idle_timeout: float = 30.0
    http2: Http2 = Http2.OFF

    def __post_init__(self) -> None:
        if self.max_connections_per_origin is not None:
            require_count("max_connections_per_origin", self.max_connections_per_origin, at_least=1)
        require_count("max_idle_per_origin", self.max_idle_per_origin)
        require_positive("idle_timeout", self.idle_timeout)
        if self.http2 not in list(Http2):
            raise ValueError(f"http2: {self.http2!r} is none of {', '.join(Http2)}")
        object.__setattr__(self, "http2", Http2(self.http2))


@dataclass(frozen=True, slots=True)
class Grant(Generic[ConnectionT]):
    """What a waiter gets: a place on ``connection``, to be given back with `ConnectionPool.released`; or, where it is
    ``None``, the order to dial one and report with `ConnectionPool.opened` or `ConnectionPool.failed`.

    reused: the connection stood before the waiter asked, or it is HTTP/1.1 and has carried another request. The server may
    be about to close it (the keep-alive race). Grants are shared between waiters: compare them, do not tell them apart.
    """

    connection: ConnectionT | None
    reused: bool


class PoolOrders(NamedTuple, Generic[ConnectionT, WaiterT]):
    """What is to be done, in any order.

    grants: waiters and what each gets, first asked first. close: connections to be closed, each for the first and only time;
    what has been received on them may still be read. refused: waiters that get nothing, because the pool is closed.
    """

    grants: tuple[tuple[WaiterT, Grant[ConnectionT]], ...] = ()
    close: tuple[ConnectionT, ...] = ()
    refused: tuple[WaiterT, ...] = ()


class ConnectionPool(Generic[ConnectionT, WaiterT]):
    """The connections of one client, by origin.

    A fact may come late, twice or never: one about a connection or a waiter that the pool does not know (any more) changes
    nothing. ``now`` is finite monotonic seconds of any epoch, else `ValueError`, and nothing changes; a clock that goes
    backwards counts as standing still. Every call with ``now`` also closes the connections idle for too long by then.

    Each operation takes constant time, and each grant or closing it orders; however many connections, waiters and origins
    there are. What is remembered is what is open, being dialled or waited for: an origin with nothing of the kind is
    forgotten, and with it what it speaks.
    """

    __slots__ = ("_closed", "_config", "_due", "_idle", "_now", "_records", "_sequence", "_sites", "_waits")

    def __init__(self, config: PoolConfig = PoolConfig()) -> None:
        self._config = config
        self._sites: dict[Origin, _Site[ConnectionT, WaiterT]] = {}
        self._records: dict[ConnectionT, _Record[ConnectionT, WaiterT]] = {}
        self._waits: dict[WaiterT, _Wait[ConnectionT, WaiterT]] = {}
        self._idle: OrderedDict[_Record[ConnectionT, WaiterT], None] = OrderedDict()
        self._due = math.inf  # no idle connection runs out before it
        self._now = -math.inf
        self._sequence = 0
        self._closed = False

    def __len__(self) -> int:
        """How many connections are open."""
        return len(self._records)

    # ---- the waiter's side ------------------------------------------------------------------------------------------

    def acquire(
        self, waiter: WaiterT, origin: Origin, now: float, *, fresh: bool = False
    ) -> PoolOrders[ConnectionT, WaiterT]:
        """Ask for a place on a connection to ``origin``. Unless it is among the grants (or refused), the waiter waits.

        fresh: not on a connection that a server may have given up meanwhile, because that has just happened. Such a waiter
        gets a dial, or a share of an HTTP/2 connection that was opened after it asked, so that all the requests of a
        connection that broke come back on one and not on one each. At the limit of connections the oldest idle one is closed
        to make room; where none is idle it shares an HTTP/2 connection in use, which no server takes for idle (the one case
        in which its grant is `Grant.reused`).

        Raises `ValueError` for a waiter that waits or dials already.
        """
        if waiter in self._waits:
            raise ValueError("waiter: it has asked already, and waits or dials")
        draft = self._advance(now)
        if self._closed:
            draft = draft or _Draft()
            draft.refused.append(waiter)
            return draft.orders()
        site = self._sites.get(origin)
        if site is None:
            site = self._sites[origin] = _Site(origin, self._speaks(origin))
        elif not fresh and (record := site.reusable()) is not None:
            self._use(record)
            return PoolOrders(((waiter, record.grant),), tuple(draft.close) if draft else ())
        self._sequence += 1
        wait = self._waits[waiter] = _Wait(waiter, site, fresh, self._sequence)
        site.queue(wait)[waiter] = wait
        return self._settle(site, draft)

    def withdraw(self, waiter: WaiterT, now: float) -> PoolOrders[ConnectionT, WaiterT]:
        """The waiter no longer wants a connection. What it was dialling is its own to close, and its place is free at once.

        One that was granted a connection has nothing to withdraw: it gives that back (`released`).
        """
        draft = self._advance(now)
        wait = self._waits.pop(waiter, None)
        if wait is None:
            return draft.orders() if draft else _NOTHING
        if wait.dialling:
            wait.site.dialling -= 1
        else:
            del wait.site.queue(wait)[waiter]
        return self._settle(wait.site, draft)

    def opened(
        self, waiter: WaiterT, connection: ConnectionT, streams: int | None, now: float
    ) -> PoolOrders[ConnectionT, WaiterT]:
        """What the waiter dialled stands, and the waiter holds its first place.

        streams: how many it takes at once over HTTP/2 (0: no more than this one); ``None`` for HTTP/1.1. A connection nobody
        waits for any more, because its waiter withdrew or the pool was closed, is among those to close. Raises `ValueError`
        for ``streams`` below 0, and for a dial that ends in a connection the pool has.
        """
        if streams is not None:
            require_count("streams", streams)
        wait = self._waits.get(waiter)
        is_dialling, is_known = wait is not None and wait.dialling, connection in self._records
        if is_dialling and is_known:
            raise ValueError("connection: it is in the pool already")
        draft = self._advance(now) or _Draft()
        if wait is None or not is_dialling:
            if not is_known:
                draft.close.append(connection)
            return draft.orders()
        del self._waits[waiter]
        site = wait.site
        site.dialling -= 1
        if self._closed:
            draft.close.append(connection)
            draft.refused.append(waiter)
        else:
            self._add(site, connection, streams)
        return self._settle(site, draft)

    def failed(self, waiter: WaiterT, now: float) -> PoolOrders[ConnectionT, WaiterT]:
        """The waiter's dial failed. That is no news to the others: whoever is next dials for itself."""
        wait = self._waits.get(waiter)
        if wait is None or not wait.dialling:
            return self.expire(now)
        return self.withdraw(waiter, now)

    # ---- the connection's side --------------------------------------------------------------------------------------

    def released(self, connection: ConnectionT, now: float, *, reusable: bool) -> PoolOrders[ConnectionT, WaiterT]:
        """A place on the connection is free again. Not ``reusable``: it takes no more requests, and is closed once the last
        place is back. (An HTTP/2 connection is reusable though this stream failed.)

        More releases than grants are ignored where they can be told, that is while the connection is idle.
        """
        draft = self._advance(now)
        record = self._records.get(connection)
        if record is None or not record.lines:
            return draft.orders() if draft else _NOTHING
        record.lines -= 1
        if not reusable:
            record.streams = 0
        return self._loosened(record, draft)

    def resized(self, connection: ConnectionT, streams: int, now: float) -> PoolOrders[ConnectionT, WaiterT]:
        """The server changed how many streams it takes in all. 0 (as after GOAWAY): no more, for good, and it is closed once
        the last is back. Raises `ValueError` for ``streams`` below 0, and above 1 over HTTP/1.1.
        """
        require_count("streams", streams)
        record = self._records.get(connection)
        if record is not None and not record.http2 and streams > 1:
            raise ValueError(f"streams: {streams} is not 0 or 1, which is what an HTTP/1.1 connection takes")
        draft = self._advance(now)
        record = self._records.get(connection)
        if record is None or not record.streams:
            return draft.orders() if draft else _NOTHING
        record.streams = streams
        if streams and record.http2:
            record.site.streams = streams
        return self._loosened(record, draft)

    def lost(self, connection: ConnectionT, now: float) -> PoolOrders[ConnectionT, WaiterT]:
        """The connection is gone, with whatever places on it are out: they need not be released."""
        draft = self._advance(now)
        record = self._records.get(connection)
        if record is None:
            return draft.orders() if draft else _NOTHING
        draft = draft or _Draft()
        self._remove(record, draft)
        return self._settle(record.site, draft)

    # ---- time -------------------------------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """When `expire` next has something to close; ``None`` while nothing is idle."""
        return next(iter(self._idle)).idle_until if self._idle else None

    def expire(self, now: float) -> PoolOrders[ConnectionT, WaiterT]:
        """Close what has been idle for `PoolConfig.idle_timeout`, at the very instant too."""
        draft = self._advance(now)
        return draft.orders() if draft else _NOTHING

    def close(self) -> PoolOrders[ConnectionT, WaiterT]:
        """Take no more. Idle connections are closed now, those in use when their last place is back, those being dialled
        when they are reported; who waits, or asks from now on, is refused."""
        draft: _Draft[ConnectionT, WaiterT] = _Draft()
        self._closed = True
        for wait in [wait for wait in self._waits.values() if not wait.dialling]:
            del self._waits[wait.waiter], wait.site.queue(wait)[wait.waiter]
            draft.refused.append(wait.waiter)
        for record in list(self._records.values()):
            record.streams = 0
            record.site.roomy.pop(record, None)
            if not record.lines:
                self._remove(record, draft)
        for site in list(self._sites.values()):
            self._settle(site, draft)
        return draft.orders()

    # ---- one clock, one ledger --------------------------------------------------------------------------------------

    def _advance(self, now: float) -> _Draft[ConnectionT, WaiterT] | None:
        """Let time pass, and close what is due. ``None`` where nothing is, which is nearly always."""
        if now > self._now:
            if now == math.inf:
                raise ValueError(f"now: {now!r} is not a finite number of seconds")
            self._now = now
        elif not now > -math.inf:
            raise ValueError(f"now: {now!r} is not a finite number of seconds")
        if self._now < self._due:
            return None
        draft: _Draft[ConnectionT, WaiterT] = _Draft()
        self._due = math.inf
        while self._idle:
            record = next(iter(self._idle))
            if record.idle_until > self._now:
                self._due = record.idle_until
                break
            self._remove(record, draft)
            self._settle(record.site, draft)
        return draft

    def _add(self, site: _Site[ConnectionT, WaiterT], connection: ConnectionT, streams: int | None) -> None:
        self._sequence += 1
        record = _Record(connection, site, self._sequence, Grant(connection, reused=True))
        self._records[connection] = record
        site.open += 1
        site.http2 = record.http2 = streams is not None
        if streams is not None:
            record.streams = streams
            site.streams = streams or site.streams
            if streams > 1:
                site.roomy[record] = None

    def _remove(self, record: _Record[ConnectionT, WaiterT], draft: _Draft[ConnectionT, WaiterT]) -> None:
        del self._records[record.connection]
        record.site.open -= 1
        record.site.roomy.pop(record, None)
        if record in self._idle:
            del record.site.idle[record], self._idle[record]
        draft.close.append(record.connection)

    def _use(self, record: _Record[ConnectionT, WaiterT]) -> None:
        site = record.site
        if not record.lines:
            del site.idle[record], self._idle[record]
        record.lines += 1
        if record.http2 and record.lines >= record.streams:
            del site.roomy[record]

    def _loosened(
        self, record: _Record[ConnectionT, WaiterT], draft: _Draft[ConnectionT, WaiterT] | None
    ) -> PoolOrders[ConnectionT, WaiterT]:
        """A connection lost a request, or its size changed: see what that makes it, and who can go."""
        site = record.site
        if record.http2:
            if record.lines >= record.streams:
                site.roomy.pop(record, None)
            elif record not in site.roomy:
                site.roomy[record] = None
                site.roomy.move_to_end(record, last=False)
        if not record.streams:
            if record.lines:
                return draft.orders() if draft else _NOTHING
            draft = draft or _Draft()
            self._remove(record, draft)
        elif not record.lines and record not in site.idle:
            record.idle_until = self._now + self._config.idle_timeout
            if record.idle_until < self._due:
                self._due = record.idle_until
            site.idle[record] = self._idle[record] = None
            if len(site.idle) <= self._config.max_idle_per_origin and not site.ordinary and not site.fresh:
                return draft.orders() if draft else _NOTHING  # nearly always
        return self._settle(site, draft)

    # ---- the decision -----------------------------------------------------------------------------------------------

    def _settle(
        self, site: _Site[ConnectionT, WaiterT], draft: _Draft[ConnectionT, WaiterT] | None
    ) -> PoolOrders[ConnectionT, WaiterT]:
        """Grant what can be granted at an origin, close what is idle beyond the bound, forget the origin if it is empty."""
        draft = draft or _Draft()
        while (served := self._serve(site, draft)) is not None:
            draft.grants.append(served)
        while len(site.idle) > self._config.max_idle_per_origin:
            self._remove(next(iter(site.idle)), draft)
        if not (site.open or site.dialling):  # then nobody waits either: there is nothing to wait for
            self._sites.pop(site.origin, None)
        return draft.orders()

    def _serve(
        self, site: _Site[ConnectionT, WaiterT], draft: _Draft[ConnectionT, WaiterT]
    ) -> tuple[WaiterT, Grant[ConnectionT]] | None:
        """The first who can go, and with what. Those who want a fresh connection stand in a queue of their own, because what
        holds one kind up need not hold up the other; between the two heads, who asked first is asked first."""
        heads = [next(iter(queue.values())) for queue in (site.ordinary, site.fresh) if queue]
        for wait in sorted(heads, key=_asked):
            grant = self._grant(site, wait, draft)
            if grant is not None:
                del site.queue(wait)[wait.waiter]
                if grant.connection is None:
                    wait.dialling = True
                else:
                    del self._waits[wait.waiter]
                return wait.waiter, grant
        return None

    def _grant(
        self, site: _Site[ConnectionT, WaiterT], wait: _Wait[ConnectionT, WaiterT], draft: _Draft[ConnectionT, WaiterT]
    ) -> Grant[ConnectionT] | None:
        """What this waiter can have now."""
        record = site.opened_after(wait.asked) if wait.fresh else site.reusable()
        if record is None:
            if not site.wants_another():
                return None
            limit = self._config.max_connections_per_origin
            is_at_limit = limit is not None and site.open + site.dialling >= limit
            if is_at_limit and site.idle:  # left for no other reason than that this one wants a fresh connection
                self._remove(next(iter(site.idle)), draft)
                is_at_limit = False
            if not is_at_limit:
                site.dialling += 1
                return _DIAL
            record = site.reusable()  # in use, with room: as above
            if record is None:
                return None
        self._use(record)
        if record.http2 and record.born > wait.asked:
            return Grant(record.connection, reused=False)
        return record.grant

    def _speaks(self, origin: Origin) -> bool | None:
        """Whether a connection to the origin will be HTTP/2, as far as that can be said before the first."""
        mode = self._config.http2
        return False if mode is Http2.OFF or (mode is Http2.OFFER and origin.scheme == "http") else None


class _Site(Generic[ConnectionT, WaiterT]):
    """One origin: what is open, being dialled and waited for.

    http2: what the latest dial found; ``None`` before any did. streams: how many a connection took when last heard.
    roomy: the HTTP/2 connections that take another stream. Streams go to the first of them; one that had been full comes
    back to the front, a new one is added at the back. So the connections in front are kept busy and the others run dry,
    become idle and expire, instead of all being kept alive by a stream each.
    idle: the connections without a request, the longest idle first.
    """

    __slots__ = ("dialling", "fresh", "http2", "idle", "open", "ordinary", "origin", "roomy", "streams")

    def __init__(self, origin: Origin, http2: bool | None) -> None:
        self.origin = origin
        self.http2 = http2
        self.streams = _ASSUMED_STREAMS
        self.open = 0
        self.dialling = 0
        self.roomy: OrderedDict[_Record[ConnectionT, WaiterT], None] = OrderedDict()
        self.idle: OrderedDict[_Record[ConnectionT, WaiterT], None] = OrderedDict()
        self.ordinary: OrderedDict[WaiterT, _Wait[ConnectionT, WaiterT]] = OrderedDict()
        self.fresh: OrderedDict[WaiterT, _Wait[ConnectionT, WaiterT]] = OrderedDict()

    def queue(self, wait: _Wait[ConnectionT, WaiterT]) -> OrderedDict[WaiterT, _Wait[ConnectionT, WaiterT]]:
        """The queue a waiter belongs in."""
        return self.fresh if wait.fresh else self.ordinary

    def reusable(self) -> _Record[ConnectionT, WaiterT] | None:
        """A connection with a place free: HTTP/2 with room, else the most recently used idle HTTP/1.1 (an idle HTTP/2 one
        always has room)."""
        if self.roomy:
            return next(iter(self.roomy))
        if self.idle:
            return next(reversed(self.idle))
        return None

    def opened_after(self, asked: int) -> _Record[ConnectionT, WaiterT] | None:
        """An HTTP/2 connection with room that is younger than the question.

        Nobody waits while there is one, so it is the one that gained room just now, and lies at one of the two ends.
        """
        if self.roomy:
            for record in (next(iter(self.roomy)), next(reversed(self.roomy))):
                if record.born > asked:
                    return record
        return None

    def wants_another(self) -> bool:
        """Whether those who wait need one more dial than there are, the limit apart.

        HTTP/1.1: always. Not known yet: one at a time. HTTP/2: if the connections being dialled, each less the stream of who
        dials it, will not have room for all of them.
        """
        if self.http2 is None:
            return not self.dialling
        return not self.http2 or len(self.ordinary) + len(self.fresh) > self.dialling * (self.streams - 1)


class _Record(Generic[ConnectionT, WaiterT]):
    """One connection: ``lines`` of its ``streams`` places are taken. ``streams`` 0: it takes no more, and is closed when
    the last is back. ``born``: its place in the order of asking and opening."""

    __slots__ = ("born", "connection", "grant", "http2", "idle_until", "lines", "site", "streams")

    def __init__(
        self, connection: ConnectionT, site: _Site[ConnectionT, WaiterT], born: int, grant: Grant[ConnectionT]
    ) -> None:
        self.connection = connection
        self.site = site
        self.born = born
        self.grant = grant
        self.http2 = False
        self.streams = 1
        self.lines = 1
        self.idle_until = math.inf


@dataclass(slots=True, eq=False)
class _Wait(Generic[ConnectionT, WaiterT]):
    """One waiter, from asking until it has a connection or gave up: in a queue, or dialling."""

    waiter: WaiterT
    site: _Site[ConnectionT, WaiterT]
    fresh: bool
    asked: int
    dialling: bool = False


class _Draft(Generic[ConnectionT, WaiterT]):
    """Orders being written."""

    __slots__ = ("close", "grants", "refused")

    def __init__(self) -> None:
        self.grants: list[tuple[WaiterT, Grant[ConnectionT]]] = []
        self.close: list[ConnectionT] = []
        self.refused: list[WaiterT] = []

    def orders(self) -> PoolOrders[ConnectionT, WaiterT]:
        """As they stand."""
        return PoolOrders(tuple(self.grants), tuple(self.close), tuple(self.refused))


def _asked(wait: _Wait[Any, Any]) -> int:
    return wait.asked


_DIAL: Final[Grant[Any]] = Grant(None, reused=False)
_NOTHING: Final[PoolOrders[Any, Any]] = PoolOrders()
