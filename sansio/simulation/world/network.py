"""A network in virtual time: connections from clients to mock providers, over which bytes go late, in pieces, or not at all.

Each connection draws its fate (`Conditions`) from a generator of its own, so that what becomes of one does not depend on
the others.

- At the dial: refused (`ConnectionRefusedError` after a round trip), or lost: nothing is ever heard of it.
- At the dial, and anew by a connection that finds, as something goes over it, that the conditions have changed since: reset
  at a byte of what the server sends from then on (both sides lose it), or stalled there (what follows is held up).
- For each piece: when it arrives, as the conditions are then, though never before what was sent earlier.

So a bad network strikes connections that stand already, and a fair one spares those that were not struck yet. What has
struck stays: a connection that fell silent does so for its time, whatever the weather. Refused and lost concern dials only:
where connections that stand shall fall silent too, let them stall (``stalled=1.0, reset_within=0``: at once).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Final, Protocol, assert_never

from ..provider.mock_connection import MockConnection
from ..provider.mock_exchange import Action, Close, Reset, Send
from ..provider.mock_provider import MockProvider
from .clock import Timer, VirtualClock, chance
from .plan import Conditions
from .weather import Weather

_WINDOW_BYTES: Final = 65_536
"""About how much of an answer is on its way at once. What is left of it is sent when that has arrived."""


class ClientEnd(Protocol):
    """Who dialled. It is only ever called from the clock's agenda, and never once it has closed its link.

    `connected` or `refused` comes first, if anything does; after `refused` and `ended` nothing more.
    """

    def connected(self) -> None:
        """The connection stands."""
        ...

    def refused(self, error: OSError) -> None:
        """There is none."""
        ...

    def received(self, data: bytes) -> None:
        """Bytes came."""
        ...

    def ended(self, error: OSError | None) -> None:
        """The connection is gone, with an error or (``None``) in good order."""
        ...


@dataclass(slots=True, eq=False)
class _Site:
    """One host: who answers there, how the way there is, and what it speaks."""

    host: str
    provider: MockProvider
    weather: Weather
    http2: bool
    dials: int = 0


class Network:
    """Every host that can be reached, and the way there.

    connections: how many links are open: dialled, and neither closed by who dialled nor heard to be refused or ended.
    """

    __slots__ = ("_seed", "_sites", "clock", "connections")

    def __init__(self, clock: VirtualClock, seed: int) -> None:
        self.clock = clock
        self.connections = 0
        self._seed = seed
        self._sites: dict[str, _Site] = {}

    def add(self, host: str, provider: MockProvider, weather: Weather, *, http2: bool = False) -> None:
        """At ``host``, on any port, ``provider`` answers. http2: it speaks HTTP/2 with clients that offer it."""
        self._sites[host] = _Site(host, provider, weather, http2)

    def dial(self, host: str, port: int, end: ClientEnd, *, http2: bool = False) -> Link:
        """Begin to connect; ``end`` hears what comes of it. http2: the client offers HTTP/2.

        Raises `ValueError` for a host that is not in this network.
        """
        site = self._sites.get(host)
        if site is None:
            raise ValueError(f"host: {host!r} is not in this network; add it, or correct the deployment's endpoint")
        site.dials += 1
        return Link(self, site, port, end, chance(self._seed, "network", host, site.dials), http2 and site.http2)


class Link:
    """One connection, as who dialled it has it. http2: what it speaks, once it stands."""

    __slots__ = (
        *("_arrived_at", "_broken", "_clock", "_end", "_heard_at", "_network", "_reset_at", "_rng", "_sent", "_server"),
        *("_silent_until", "_site", "_stall_at", "_timer", "_under", "http2"),
    )

    def __init__(self, network: Network, site: _Site, port: int, end: ClientEnd, rng: Random, http2: bool) -> None:
        self.http2 = http2
        self._network = network
        self._clock = network.clock
        self._site = site
        self._end: ClientEnd | None = end  # until it has closed the link, or has heard its end
        self._rng = rng
        self._server: MockConnection | None = None
        self._timer: Timer | None = None  # the server's
        self._broken = False  # whether it was reset on its way
        self._sent = 0  # by the server, in bytes
        self._reset_at = self._stall_at = math.inf  # bytes of it at which something strikes
        self._silent_until = -math.inf
        self._heard_at = self._arrived_at = -math.inf  # when what was sent last arrives, at the client and at the server
        self._under = site.weather.conditions
        network.connections += 1
        refused, lost = rng.random() < self._under.refused, rng.random() < self._under.lost
        self._draw(self._under)
        if refused:
            error = ConnectionRefusedError(f"{site.host}:{port} refused the connection")
            self._clock.call_later(self._delay() + self._delay(), partial(self._refused, error))
        elif not lost:
            self._arrives(self._accept)

    # ---- the client's side ------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send bytes over a connection that stands. Over one that is gone, nothing happens."""
        if self._end is not None:
            for piece in self._pieces(data):
                self._arrives(partial(self._take, piece))

    def close(self) -> None:
        """Abort it, at once on this side. The server hears of it behind what was sent to it. Idempotent."""
        if self._end is not None:
            self._leave()
            self._arrives(self._server_lost)

    def _leave(self) -> None:
        self._end = None
        self._network.connections -= 1

    # ---- what the client hears --------------------------------------------------------------------------------------

    def _refused(self, error: OSError) -> None:
        if (end := self._end) is not None:
            self._leave()
            end.refused(error)

    def _connected(self) -> None:
        if self._end is not None:
            self._end.connected()

    def _received(self, piece: bytes) -> None:
        if self._end is not None:
            self._end.received(piece)

    def _ended(self, error: OSError | None) -> None:
        if (end := self._end) is not None:
            self._leave()
            end.ended(error)

    # ---- the server's side ------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        if self._end is not None:
            self._server = self._site.provider.connection("h2" if self.http2 else "http/1.1")
            self._is_heard(self._connected)
            self._pump(self._server)

    def _take(self, piece: bytes) -> None:
        if (server := self._server) is not None:
            server.receive_data(piece, self._clock.now, self._clock.unix_now)
            self._pump(server)

    def _tick(self) -> None:
        self._timer = None
        assert self._server is not None  # else the timer were cancelled
        self._pump(self._server)

    def _pump(self, server: MockConnection) -> None:
        """Carry out what is due, and see to it that the timer fires when more is."""
        for action in server.actions(self._clock.now, _WINDOW_BYTES):
            self._carry_out(action)
        due = server.deadline()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due is None:
            return
        if due <= self._clock.now:  # more than a window
            if not self._is_listened_to():
                return
            due = self._heard_at
        self._timer = self._clock.call_at(due, self._tick)

    def _carry_out(self, action: Action) -> None:
        match action:
            case Send(data):
                self._say(data)
            case Close():
                self._hang_up(None)
            case Reset():
                self._hang_up(ConnectionResetError("the server reset the connection"))
            case _:
                assert_never(action)

    def _say(self, data: bytes) -> None:
        """The server sends bytes, as far as the connection's fate lets it."""
        self._look_out()
        while self._is_listened_to() and self._sent + len(data) >= (strikes_at := min(self._reset_at, self._stall_at)):
            before = int(strikes_at) - self._sent
            self._pass_on(data[:before])
            data = data[before:]
            if strikes_at == self._reset_at:
                self._break()
            else:
                self._stall_at = math.inf
                self._silent_until = self._clock.now + self._under.stall_seconds
        self._pass_on(data)

    def _pass_on(self, data: bytes) -> None:
        if self._is_listened_to():
            self._sent += len(data)
            for piece in self._pieces(data):
                self._is_heard(partial(self._received, piece))

    def _hang_up(self, error: OSError | None) -> None:
        """The server has ended it, and says no more."""
        self._is_heard(partial(self._ended, error))

    def _server_lost(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.connection_lost(self._clock.now)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # ---- the way ----------------------------------------------------------------------------------------------------

    def _break(self) -> None:
        """The connection is reset on its way: each side hears of it behind what was sent to it."""
        self._broken = True
        self._is_heard(partial(self._ended, ConnectionResetError("the connection was reset")))
        self._arrives(self._server_lost)

    def _is_listened_to(self) -> bool:
        return not self._broken and self._end is not None

    def _arrives(self, what: Callable[[], None]) -> None:
        """It happens at the server, behind what was sent there before."""
        self._look_out()
        self._arrived_at = max(self._arrived_at, self._clock.now + self._delay())
        self._clock.call_at(self._arrived_at, what)

    def _is_heard(self, what: Callable[[], None]) -> None:
        """It happens at the client, behind what was sent there before."""
        self._look_out()
        self._heard_at = max(self._heard_at, max(self._clock.now, self._silent_until) + self._delay())
        self._clock.call_at(self._heard_at, what)

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        at, random, most = 0, self._rng.random, self._under.piece_bytes
        while at < len(data):
            size = 1 + int(random() * most)
            yield data[at : at + size]
            at += size

    def _delay(self) -> float:
        return self._under.latency + self._under.jitter * self._rng.random()

    def _look_out(self) -> None:
        """Conditions that have changed strike anew."""
        conditions = self._site.weather.conditions
        if conditions is not self._under:
            self._under = conditions
            self._draw(conditions)

    def _draw(self, conditions: Conditions) -> None:
        random = self._rng.random
        reset, stalled = random() < conditions.reset, random() < conditions.stalled
        self._reset_at = self._sent + self._byte(conditions) if reset else math.inf
        self._stall_at = self._sent + self._byte(conditions) if stalled else math.inf

    def _byte(self, conditions: Conditions) -> int:
        return int(self._rng.random() * (conditions.reset_within + 1))
