"""A breaker by the book (invariant 15).

    CLOSED     counts failures in a row; enough of them (within the window) open it
    OPEN       nothing starts until its time is over; half-open at exactly that instant
    HALF_OPEN  a bounded number of probes; enough successes close it, one failure opens it again, for longer

Each change of state begins a new epoch, and an attempt that began in an earlier one says nothing any more.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from ...circuit_breaker import CircuitBreakerConfig
from ...lane import Circuit
from .violation import InvariantViolated

CLOSED: Final = "closed"
OPEN: Final = "open"
HALF_OPEN: Final = "half_open"


class NaiveBreaker:
    """What one circuit should be.

    untold: changes of state (source, target, reason) that no notice has told yet. lapsed: probes whose lease has ended, as
    far as the engine may not have looked yet.
    """

    __slots__ = (
        "circuit", "config", "epoch", "failures", "lapsed", "opened_at", "opens_for", "probes", "retry_at", "state",
        "successes", "untold",
    )  # fmt: skip

    def __init__(self, circuit: Circuit, config: CircuitBreakerConfig) -> None:
        self.circuit = circuit
        self.config = config
        self.state = CLOSED
        self.epoch = 0
        self.failures: list[float] = []
        self.successes = 0
        self.opened_at = self.retry_at = -math.inf
        self.opens_for: float = config.open_duration
        self.probes: dict[int, float] = {}
        self.lapsed = 0
        self.untold: deque[tuple[str, str, str]] = deque()

    def let_pass(self, now: float) -> None:
        """Do what time does."""
        if self.state is OPEN and now >= self.retry_at:
            self._move(HALF_OPEN, "open_duration")
        for attempt in [attempt for attempt, ends_at in self.probes.items() if ends_at <= now]:
            del self.probes[attempt]
            self.lapsed += 1

    def start(self, attempt: int, now: float) -> None:
        """An attempt goes through."""
        if self.state is OPEN:
            raise InvariantViolated(15, f"attempt {attempt} was started behind {self.name}, which is open")
        if self.state is HALF_OPEN:
            self.probes[attempt] = now + self.config.probe_timeout
            self.lapsed = 0  # the engine has looked
            if len(self.probes) > self.config.half_open_max_probes:
                raise InvariantViolated(15, f"{len(self.probes)} probes are out at once behind {self.name}")

    def report(self, attempt: int, epoch: int, success: bool | None, now: float) -> None:
        """What an attempt says of the endpoint; ``None``: nothing."""
        if epoch != self.epoch:
            return
        if self.state is HALF_OPEN:
            self._judge(attempt, success, now)
        elif success:
            self.failures.clear()
        elif success is False:
            window = math.inf if self.config.window is None else self.config.window
            self.failures = [at for at in self.failures if at >= now - window]
            self.failures.append(now)
            if len(self.failures) >= self.config.failure_threshold:
                self._open("failure_threshold", self.opens_for, now)

    def force_open(self, duration: float | None, now: float) -> None:
        """It is opened from outside; for at least as long as it would have been open."""
        if self.state is not OPEN:
            self._open("forced_open", 0.0, now)
        self.retry_at = max(self.retry_at, math.inf if duration is None else now + duration)

    def close(self, reason: str) -> None:
        """It is closed, from outside or by its probes. A closed one stays as it is."""
        if self.state is not CLOSED:
            self._move(CLOSED, reason)
            self.opens_for = self.config.open_duration

    def forget(self) -> None:
        """Whatever happened so far says nothing any more."""
        self.epoch += 1
        self.failures.clear()
        self.probes.clear()
        self.successes = self.lapsed = 0

    @property
    def name(self) -> str:
        """For messages."""
        return f"circuit {self.circuit.index} ({'key' if self.circuit.of_key else 'endpoint'})"

    def _judge(self, attempt: int, success: bool | None, now: float) -> None:
        if self.probes.pop(attempt, None) is None:
            return
        if success:
            self.successes += 1
            if self.successes >= self.config.success_threshold:
                self.close("success_threshold")
        elif success is False:
            longest = max(self.config.open_duration, self.config.max_open_duration)
            self.opens_for = min(longest, self.opens_for * self.config.open_multiplier)
            self._open("probe_failed", self.opens_for, now)

    def _open(self, reason: str, duration: float, now: float) -> None:
        self._move(OPEN, reason)
        self.opened_at, self.retry_at = now, now + duration

    def _move(self, target: str, reason: str) -> None:
        self.untold.append((self.state, target, reason))
        self.state = target
        self.forget()


def config_of(circuit: Circuit) -> CircuitBreakerConfig:
    """What its deployments ask for, where one asks for anything; a key's has the usual settings."""
    usual = CircuitBreakerConfig()
    asked = [lane.deployment.config.circuit_breaker for lane in circuit.lanes if not circuit.of_key]
    return next((config for config in asked if config != usual), usual)
