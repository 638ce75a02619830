"""A circuit breaker: stop asking an endpoint that fails, and find out with few requests when it has recovered.

CLOSED lets everything through and counts consecutive failures; enough of them open it. OPEN lets nothing through for a
while. HALF_OPEN lets a few *probes* through: enough successes close the circuit, one failure opens it again. (M. Nygard,
"Release It!", 2nd ed., 2018, section 5.2.)

Whoever is let through holds a `CircuitPermit` and reports once what became of it. Every transition begins a new
*generation*, and a report from an earlier one changes nothing: a request that was sent before the circuit opened says
nothing about the endpoint after it. A probe's permit is a lease: unreported for `probe_timeout`, it lapses without a verdict
and another may probe, so a lost probe cannot keep the circuit half-open for ever.

Time acts lazily. Every method that takes ``now`` first lets pass what has passed by then (`_advance`); `deadline` says when
that will next matter. All legal transitions are in `TRANSITIONS`, and there is no other way to change the state.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from types import MappingProxyType
from typing import Final, NoReturn

from .backoff import require_count, require_number, require_positive


class CircuitState(enum.Enum):
    """Whether requests may pass: all, none, or a few that probe."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


_CLOSED: Final = CircuitState.CLOSED
_OPEN: Final = CircuitState.OPEN
_HALF_OPEN: Final = CircuitState.HALF_OPEN

TRANSITIONS: Final[Mapping[tuple[CircuitState, str], CircuitState]] = MappingProxyType(
    {
        (_CLOSED, "failure_threshold"): _OPEN,
        (_OPEN, "open_duration"): _HALF_OPEN,
        (_HALF_OPEN, "success_threshold"): _CLOSED,
        (_HALF_OPEN, "probe_failed"): _OPEN,
        (_CLOSED, "forced_open"): _OPEN,
        (_HALF_OPEN, "forced_open"): _OPEN,
        (_OPEN, "forced_closed"): _CLOSED,
        (_HALF_OPEN, "forced_closed"): _CLOSED,
        (_OPEN, "reset"): _CLOSED,
        (_HALF_OPEN, "reset"): _CLOSED,
        (_CLOSED, "shared_open"): _OPEN,
        (_HALF_OPEN, "shared_open"): _OPEN,
        (_OPEN, "shared_closed"): _CLOSED,
        (_HALF_OPEN, "shared_closed"): _CLOSED,
    }
)
"""(state, reason) -> next state. A pair that is not here cannot happen. A shared circuit alone knows ``shared_open`` and
``shared_closed``: they follow what another process found (`cluster/shared_circuit.py`)."""

_INFINITE: Final = math.inf

_TRANSITIONS_KEPT: Final = 64
"""How many undrained transitions are kept; the oldest go first."""


class Outcome(enum.Enum):
    """What a permit's request says about the endpoint. IGNORED: nothing (cancelled, 429, the caller's own mistake)."""

    SUCCESS = "success"
    FAILURE = "failure"
    IGNORED = "ignored"


_SUCCESS: Final = Outcome.SUCCESS
_FAILURE: Final = Outcome.FAILURE


@dataclass(frozen=True, slots=True)
class CircuitBreakerConfig:
    """When a circuit opens, for how long, and what closes it. Durations are seconds.

    failure_threshold: this many failures without a success between them open it.
    window: where given, only while they lie within this time (both ends included).
    open_duration: from opening to half-open. 0 probes at once.
    open_multiplier: each failed probe makes the next open time this many times longer; at least 1. Closing starts afresh.
    max_open_duration: how long `open_multiplier` may make it; it does not shorten `open_duration` itself.
    half_open_max_probes: probes outstanding at once.
    success_threshold: successful probes that close it.
    probe_timeout: a probe that has not reported by then gives its place back without a verdict.

    Raises `ValueError` at construction for a field out of range, naming it.
    """

    failure_threshold: int = 10
    window: float | None = None
    open_duration: float = 30.0
    open_multiplier: float = 1.0
    max_open_duration: float = 300.0
    half_open_max_probes: int = 1
    success_threshold: int = 1
    probe_timeout: float = 60.0

    def __post_init__(self) -> None:
        for name in ("failure_threshold", "half_open_max_probes", "success_threshold"):
            require_count(name, getattr(self, name), at_least=1)
        require_number("open_duration", self.open_duration)
        require_number("open_multiplier", self.open_multiplier, at_least=1)
        require_number("max_open_duration", self.max_open_duration)
        require_positive("probe_timeout", self.probe_timeout)
        if self.window is not None:
            require_positive("window", self.window)


class CircuitPermit:
    """Leave to send one request, good for one report. Made by `CircuitBreaker.acquire`; compared by identity.

    generation: which period of its breaker's life it belongs to.
    probe: whether it tests a half-open circuit.
    issuer: the breaker that waits for its report; ``None`` once it has reported.
    """

    __slots__ = ("generation", "issuer", "probe")

    def __init__(self, generation: int, probe: bool, issuer: CircuitBreaker) -> None:
        self.generation: int = generation
        self.probe: bool = probe
        self.issuer: CircuitBreaker | None = issuer

    def __repr__(self) -> str:
        return f"CircuitPermit(generation={self.generation}, probe={self.probe})"


@dataclass(frozen=True, slots=True)
class CircuitRejection:
    """No permit now.

    opened_at: when the circuit opened.
    retry_at: when time alone may next let a request through: the end of the open time, or of the earliest outstanding
    probe's lease; infinite where the circuit was forced open until further notice.
    """

    opened_at: float
    retry_at: float


@dataclass(frozen=True, slots=True)
class CircuitTransition:
    """One change of state, at the time it took effect. ``reason`` is the one in `TRANSITIONS`."""

    source: CircuitState
    target: CircuitState
    at: float
    reason: str


class CircuitBreaker:
    """One circuit. Not thread-safe: its owner serialises the calls.

    In every method ``now`` is finite monotonic seconds of any epoch, else `ValueError` and nothing changes. A clock that
    goes backwards counts as standing still.
    """

    __slots__ = (
        *("_config", "_failure_times", "_failures", "_generation", "_now", "_open_duration", "_opened_at"),
        *("_probes", "_retry_at", "_state", "_successes", "_transitions", "undisturbed"),
    )

    def __init__(self, config: CircuitBreakerConfig = CircuitBreakerConfig()) -> None:
        self._config = config
        self._now = -math.inf
        self._state = _CLOSED
        self._generation = 0
        self._failures = 0
        self._failure_times: deque[float] = deque()  # used where the config has a window
        self._successes = 0
        self._opened_at = self._retry_at = -math.inf  # of the latest opening
        self._open_duration: float = config.open_duration  # of the next opening by a failure
        self._probes: dict[CircuitPermit, float] = {}  # outstanding -> end of the lease; in the order they end
        self._transitions: deque[CircuitTransition] = deque(maxlen=_TRANSITIONS_KEPT)
        self.undisturbed = True
        """Closed, and with no transition to drain: nobody is held up here, and time will change nothing. To be read only."""

    # What requests ask and report.

    def acquire(self, now: float) -> CircuitPermit | CircuitRejection:
        """Leave to send one request now, or when to ask again."""
        if self._now < now < _INFINITE:  # not max(): here and in `record` it would cost as much as all the rest
            self._now = now
        elif not isfinite(now):
            _refuse_time(now)
        if self._state is _CLOSED:
            return CircuitPermit(self._generation, False, self)
        self._advance()
        if self._state is _OPEN:
            return CircuitRejection(self._opened_at, self._retry_at)
        if len(self._probes) >= self._config.half_open_max_probes:
            return CircuitRejection(self._opened_at, self._first_lease_end())
        permit = CircuitPermit(self._generation, True, self)
        self._probes[permit] = self._now + self._config.probe_timeout
        return permit

    def record(self, permit: CircuitPermit, outcome: Outcome, now: float) -> None:
        """Report what became of a permit's request.

        Nothing happens for a permit that has reported before, that is of an earlier generation, or whose lease as a probe
        has ended. Raises `ValueError` for another breaker's permit, or for what is no `Outcome`.
        """
        if permit.issuer is not self or not isinstance(outcome, Outcome):
            _refuse_misuse(permit, outcome, now, self)
            return
        if self._now < now < _INFINITE:
            self._now = now
        elif not isfinite(now):
            _refuse_time(now)
        permit.issuer = None
        if self._state is not _CLOSED:
            self._advance()
        if permit.generation != self._generation:
            return
        if permit.probe:
            self._judge_probe(permit, outcome)
        elif outcome is _FAILURE:
            self._count_failure()
        elif outcome is _SUCCESS and self._failures:
            self._forget_failures()

    # What time and operators do.

    def state(self, now: float) -> CircuitState:
        """The state at ``now``."""
        if not isfinite(now):
            _refuse_time(now)
        self._now = max(self._now, now)
        self._advance()
        return self._state

    def deadline(self) -> float | None:
        """When time alone next changes something: the end of the open time or of a probe's lease. ``None``: never."""
        if self._state is _OPEN:
            return self._retry_at if self._retry_at < math.inf else None
        return self._first_lease_end() if self._probes else None

    def force_open(self, duration: float | None, now: float) -> None:
        """Open the circuit for ``duration`` seconds, then probe; ``None``: until `force_closed` or `reset`.

        An open circuit stays open for at least as long as it would have: no order cuts another one short.
        Raises `ValueError` for a negative or non-finite duration.
        """
        if duration is not None:
            require_number("duration", duration)
        self.state(now)
        if self._state is not _OPEN:
            self._open("forced_open", 0)
        self._retry_at = max(self._retry_at, self._now + (math.inf if duration is None else duration))

    def force_closed(self, now: float) -> None:
        """Close the circuit and count from zero. A closed one is left as it is."""
        if self.state(now) is not _CLOSED:
            self._close("forced_closed")

    def reset(self, now: float) -> None:
        """Close the circuit and forget everything: also the failures of a closed one, and the reports still to come."""
        if self.state(now) is not _CLOSED:
            self._close("reset")
        else:
            self._begin_generation()

    # What observers see.

    def drain_transitions(self) -> list[CircuitTransition]:
        """The transitions since the last call, oldest first; only the latest 64 where nobody drained for long."""
        drained = list(self._transitions)
        self._transitions.clear()
        self.undisturbed = self._state is _CLOSED
        return drained

    @property
    def consecutive_failures(self) -> int:
        """Failures counted towards `failure_threshold` as of the last report; 0 unless closed."""
        return self._failures

    @property
    def outstanding_probes(self) -> int:
        """Probes that have neither reported nor lapsed, as of the last call that took the time."""
        return len(self._probes)

    @property
    def opened_at(self) -> float | None:
        """When the circuit last opened; ``None`` while it is closed."""
        return None if self._state is _CLOSED else self._opened_at

    # How the state changes.

    def _advance(self) -> None:
        """Do what the time up to now has brought about."""
        if self._state is _OPEN and self._now >= self._retry_at:
            self._move("open_duration", self._retry_at)
        while self._probes and self._first_lease_end() <= self._now:
            del self._probes[next(iter(self._probes))]

    def _first_lease_end(self) -> float:
        return next(iter(self._probes.values()))

    def _count_failure(self) -> None:
        self._failures += 1
        if self._config.window is not None:
            times = self._failure_times
            times.append(self._now)
            while times[0] < self._now - self._config.window:
                times.popleft()
            self._failures = len(times)
        if self._failures >= self._config.failure_threshold:
            self._open("failure_threshold", self._open_duration)

    def _forget_failures(self) -> None:
        self._failures = 0
        self._failure_times.clear()

    def _judge_probe(self, permit: CircuitPermit, outcome: Outcome) -> None:
        if self._probes.pop(permit, None) is None:
            return  # its lease had ended, and somebody else may be probing since
        if outcome is _FAILURE:
            longest = max(self._config.open_duration, self._config.max_open_duration)
            self._open_duration = min(longest, self._open_duration * self._config.open_multiplier)
            self._open("probe_failed", self._open_duration)
        elif outcome is _SUCCESS:
            self._successes += 1
            if self._successes >= self._config.success_threshold:
                self._close("success_threshold")

    def _open(self, reason: str, duration: float) -> None:
        self._move(reason, self._now)
        self._opened_at = self._now
        self._retry_at = self._now + duration

    def _close(self, reason: str) -> None:
        self._move(reason, self._now)
        self._open_duration = self._config.open_duration

    def _move(self, reason: str, at: float) -> None:
        source, self._state = self._state, TRANSITIONS[self._state, reason]
        self._begin_generation()
        self._transitions.append(CircuitTransition(source, self._state, at, reason))
        self.undisturbed = False

    def _begin_generation(self) -> None:
        self._generation += 1
        self._successes = 0
        self._probes.clear()
        self._forget_failures()


def _refuse_time(now: float) -> NoReturn:
    raise ValueError(f"now: {now!r} is not a finite number of seconds")


def _refuse_misuse(permit: CircuitPermit, outcome: Outcome, now: float, breaker: CircuitBreaker) -> None:
    """Raise for what `CircuitBreaker.record` was misused with; a second report is no misuse."""
    if not isinstance(outcome, Outcome):
        raise ValueError(f"outcome: {outcome!r} is none of {', '.join(map(str, Outcome))}")
    if permit.issuer not in (None, breaker):
        raise ValueError(f"permit: {permit!r} is of another circuit breaker")
    if not isfinite(now):
        _refuse_time(now)
