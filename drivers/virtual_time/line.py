"""A world's connections, behind the seam that the asyncio and the trio driver have for whoever moves their bytes.

The world calls back, the drivers wait: in between stands a signal, of whichever kind the backend has.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from sansio import HttpEvent, HttpRequest, InferenceError
from sansio.simulation.world.wire import WireClient
from sansio.simulation.world.world import World


class Signal(Protocol):
    """Set once; whoever waits goes on then. `asyncio.Event` and `trio.Event` are."""

    def set(self) -> object:
        """Let whoever waits go on."""
        ...

    def wait(self) -> Awaitable[object]:
        """Until it is set."""
        ...


class Line:
    """One request's use of a simulated connection. `interrupt` and `let_go` never wait."""

    def __init__(self, client: Client) -> None:
        self.reused = False
        self._client = client
        self._signal = client.signal()
        self._is_open = False
        self._error: OSError | InferenceError | None = None
        self._wire = client.wire.line(self)

    # ---- for the driver -----------------------------------------------------------------------------------------------

    async def open(self, request: HttpRequest, timeout: float, *, fresh: bool, sending: Callable[[], None]) -> None:
        """Get a connection. Raises `OSError` or `InferenceError`, also when interrupted. The engine watches the time."""
        self._wire.open(request, fresh=fresh)
        while not self._is_open:
            await self._wait()
            if self._error is not None:
                raise self._error
        self.reused = self._wire.reused

    async def send(self, request: HttpRequest) -> None:
        """Send the request. Raises `OSError` when the connection is lost."""
        self._wire.send(request)

    async def receive(self) -> list[HttpEvent]:
        """Wait for bytes, and say what they mean. Raises `OSError` when the connection is lost, or when interrupted."""
        await self._client.pause()
        while (events := self._wire.take()) is None:
            await self._wait()
        return events

    def interrupt(self) -> None:
        """Wake whoever waits on this line."""
        self._wire.interrupt()

    def let_go(self, *, keep: bool) -> None:
        """Part with the connection, or with the place in line for one. Idempotent."""
        self._wire.let_go(keep=keep)

    async def _wait(self) -> None:
        await self._signal.wait()
        self._signal = self._client.signal()

    # ---- for the world --------------------------------------------------------------------------------------------------

    def opened(self) -> None:
        """It has a connection."""
        self._is_open = True
        self._signal.set()

    def failed(self, error: OSError | InferenceError) -> None:
        """It gets no connection, or was interrupted before it had one."""
        self._error = error
        self._signal.set()

    def woken(self) -> None:
        """There may be something to take."""
        self._signal.set()


class Client:
    """Who moves the bytes of an engine: over the world's network, with a pool of its own.

    signal: makes a `Signal` of the backend. pause: what the backend wants of everybody who may not wait.
    Raises `ValueError` for a world that does not go down to the bytes.
    """

    def __init__(self, world: World, signal: Callable[[], Signal], pause: Callable[[], Awaitable[None]]) -> None:
        if world.network is None:
            raise ValueError('level: a driver needs a world of level "bytes"')
        self.signal = signal
        self.pause = pause
        self.wire = WireClient(world.network, lambda: world.clock.now, world.pool)

    def start(self, tasks: object) -> None:
        """The engine opens. Nothing here needs tasks."""

    def line(self) -> Line:
        """For one request. Not connected yet."""
        return Line(self)

    def deadline(self) -> float | None:
        """When a connection will have been idle for too long."""
        return self.wire.deadline()

    def expire(self, now: float) -> None:
        """Close the connections that have been idle for too long."""
        self.wire.expire(now)

    async def aclose(self) -> None:
        """Close every idle connection, and from now on each one given back."""
        self.wire.close()
