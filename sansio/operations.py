"""What an operator does to a running engine: the same small handles for every driver.

They tell the engine facts by whichever way their driver has (``tell``), and read what it shows inside the driver's critical
section (``alone``: under its lock with threads, at once on an event loop).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from .circuit_breaker import CircuitState
from .engine import RemoteEngineCore
from .events import CircuitAction, Event, OverrideCircuit
from .rate_limit import RateLimiterSnapshot

Tell = Callable[[Event], None]
Clock = Callable[[], float]
Result = TypeVar("Result")


class Alone(Protocol):
    """Runs something in the driver's critical section."""

    def __call__(self, work: Callable[[], Result], /) -> Result:
        """What ``work`` returns."""
        ...


def at_once(work: Callable[[], Result], /) -> Result:
    """Where everything that does not wait is a critical section."""
    return work()


class Breaker:
    """The circuit of each deployment's endpoint. ``deployment`` may be left out where there is only one."""

    __slots__ = ("_alone", "_clock", "_core", "_tell")

    def __init__(self, core: RemoteEngineCore, tell: Tell, clock: Clock, alone: Alone = at_once) -> None:
        self._core, self._tell, self._clock, self._alone = core, tell, clock, alone

    def state(self, deployment: str | None = None) -> CircuitState:
        """Closed, open or half-open."""
        return self._alone(lambda: self._core.circuit_state(self._clock(), deployment))

    def force_open(self, duration: float | None = None, deployment: str | None = None) -> None:
        """Send nothing for ``duration`` seconds, or until `force_closed` or `reset`."""
        self._tell(OverrideCircuit(deployment, CircuitAction.OPEN, duration))

    def force_closed(self, deployment: str | None = None) -> None:
        """Let everything through again, also what a refused key held back."""
        self._tell(OverrideCircuit(deployment, CircuitAction.CLOSE))

    def reset(self, deployment: str | None = None) -> None:
        """As if nothing had happened yet."""
        self._tell(OverrideCircuit(deployment, CircuitAction.RESET))


class Limiter:
    """The limiter of each deployment's key and model."""

    __slots__ = ("_alone", "_clock", "_core")

    def __init__(self, core: RemoteEngineCore, clock: Clock, alone: Alone = at_once) -> None:
        self._core, self._clock, self._alone = core, clock, alone

    def snapshot(self, deployment: str | None = None) -> RateLimiterSnapshot:
        """Its levels now."""
        return self._alone(lambda: self._core.limiter_snapshot(self._clock(), deployment))
