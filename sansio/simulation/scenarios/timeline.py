"""What happened over virtual time, in bins: plain values, for somebody who draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from ...circuit_breaker import CircuitState
from ...events import Effect, Event, Notice
from ...lane import Group
from ...metrics import EngineMetrics
from ...rate_limit import RateLimiterSnapshot
from ..judge.observed_core import ObservedCore
from ..world.clock import VirtualClock
from ..world.plan import Disturbance, Plan
from .labels import label_of, name_of

_Value = TypeVar("_Value")

_BINS: Final = 240
"""How many bins the time in which things go wrong is cut into, at first. Where twice as many do not hold the whole run, each
two become one."""


@dataclass(frozen=True, slots=True)
class Span:
    """Something that lasted, by name: the state of a circuit (``closed``, ``open``, ``half_open``), a disturbance."""

    name: str
    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """A run over time. Bin ``i`` begins at ``i * bin_seconds``; every series has one value for each bin.

    seconds: when the run ended; healed_at: when the faults stopped. submitted, done, failed, rejected, cancelled, attempts,
    throttled, retries: how many in each bin. queued (those who back off or wait for a credential among them), in_flight: the
    most at a time. limit_used: by limiter, the most of its limit that was used, in its fullest dimension (where no fact fell
    into a bin, what the last one left). circuits: by circuit, its states one after the other. disturbances: when what went
    wrong. Limiters and circuits are named after the deployments that share them.
    """

    bin_seconds: float
    seconds: float
    healed_at: float
    submitted: tuple[int, ...]
    done: tuple[int, ...]
    failed: tuple[int, ...]
    rejected: tuple[int, ...]
    cancelled: tuple[int, ...]
    attempts: tuple[int, ...]
    throttled: tuple[int, ...]
    retries: tuple[int, ...]
    queued: tuple[int, ...]
    in_flight: tuple[int, ...]
    limit_used: Mapping[str, tuple[float, ...]]
    circuits: Mapping[str, tuple[Span, ...]]
    disturbances: tuple[Span, ...]


class TimelineRecorder:
    """Hears of every step of an engine, and keeps what a `Timeline` tells. Changes nothing."""

    def __init__(self, plan: Plan, core: ObservedCore, clock: VirtualClock) -> None:
        self._plan = plan
        self._clock = clock
        self._metrics = metrics = core.registry.metrics
        self._roster = core.roster
        self._bin_seconds = plan.seconds / _BINS
        self._counted = _counts(metrics)
        self._waiting = self._running = 0
        self._bins: list[list[int]] = []
        self._queued: list[int] = []
        self._in_flight: list[int] = []
        self._limiters = [_LimiterLevels(group) for group in core.roster.groups if any(_limits(group))]
        closed = CircuitState.CLOSED.value
        self._moves: dict[int, list[tuple[str, float]]] = {each.index: [(closed, 0.0)] for each in core.roster.circuits}

    def observed(self, event: Event, effects: Sequence[Effect], now: float, unix_now: float) -> None:
        """One step of the engine."""
        metrics = self._metrics
        begun = len(self._bins)
        at = self._reach()
        for limiter in self._limiters:
            limiter.sample(at, now, anew=at >= begun)
        self._counted, before = _counts(metrics), self._counted
        counts = self._bins[at]
        for index, count in enumerate(self._counted):
            counts[index] += count - before[index]
        self._waiting, self._running = metrics.queued + metrics.waiting, metrics.in_flight
        self._queued[at] = max(self._queued[at], self._waiting)
        self._in_flight[at] = max(self._in_flight[at], self._running)
        for effect in effects:
            if isinstance(effect, Notice) and effect.kind in ("circuit", "key_circuit"):
                lane = self._roster.lanes[effect.deployment]
                circuit = lane.circuit if effect.kind == "circuit" else lane.key_circuit
                self._moves[circuit.index].append((effect.detail["target"], self._clock.now))

    def timeline(self) -> Timeline:
        """All that was heard of until now."""
        seconds = self._clock.now
        self._reach()
        series = [tuple(counts[index] for counts in self._bins) for index in range(len(self._counted))]
        submitted, done, failed, rejected, cancelled, attempts, throttled, retries = series
        return Timeline(
            bin_seconds=self._bin_seconds,
            seconds=seconds,
            healed_at=min(self._plan.seconds, seconds),
            submitted=submitted,
            done=done,
            failed=failed,
            rejected=rejected,
            cancelled=cancelled,
            attempts=attempts,
            throttled=throttled,
            retries=retries,
            queued=tuple(self._queued),
            in_flight=tuple(self._in_flight),
            limit_used={name_of(each.group): tuple(each.levels) for each in self._limiters},
            circuits={name_of(each): _spans(self._moves[each.index], seconds) for each in self._roster.circuits},
            disturbances=tuple(_lasting(each, self._plan.seconds) for each in self._plan.disturbances),
        )

    def _reach(self) -> int:
        """The bin of this moment, and all before it. A new one begins as the last fact left things."""
        while (at := int(self._clock.now / self._bin_seconds)) >= 2 * _BINS:
            self._halve()
        new = at + 1 - len(self._bins)
        if new > 0:
            self._bins += ([0] * len(self._counted) for _ in range(new))
            self._queued += [self._waiting] * new
            self._in_flight += [self._running] * new
            for limiter in self._limiters:
                limiter.levels += [limiter.level] * new
        return at

    def _halve(self) -> None:
        """Each two bins become one."""
        self._bin_seconds *= 2
        self._bins = [[sum(pair) for pair in zip(*two, strict=True)] for two in _by_two(self._bins)]
        self._queued = [max(two) for two in _by_two(self._queued)]
        self._in_flight = [max(two) for two in _by_two(self._in_flight)]
        for limiter in self._limiters:
            limiter.levels = [max(two) for two in _by_two(limiter.levels)]


class _LimiterLevels:
    """How full one limiter was, by bin, and is now."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.level = 0.0
        self.levels: list[float] = []

    def sample(self, at: int, now: float, *, anew: bool) -> None:
        """Look at it. ``anew``: the bin has only just begun, so what was before says nothing of it."""
        self.level = _used(self.group.limiter.snapshot(now))
        self.levels[at] = self.level if anew else max(self.level, self.levels[at])


def _by_two(values: Sequence[_Value]) -> list[Sequence[_Value]]:
    return [values[at : at + 2] for at in range(0, len(values), 2)]


def _counts(metrics: EngineMetrics) -> tuple[int, ...]:
    return (
        metrics.submitted,
        metrics.done,
        metrics.failed,
        metrics.rejected,
        metrics.cancelled,
        metrics.attempts,
        metrics.throttled,
        sum(metrics.retries.values()),
    )


def _limits(group: Group) -> tuple[int | None, ...]:
    limits = group.limiter.limits
    return (
        limits.requests_per_minute,
        limits.tokens_per_minute,
        limits.input_tokens_per_minute,
        limits.output_tokens_per_minute,
    )


def _used(snapshot: RateLimiterSnapshot) -> float:
    levels = (snapshot.requests, snapshot.tokens, snapshot.input_tokens, snapshot.output_tokens)
    return max(level.used / level.limit for level in levels if level is not None)


def _spans(moves: Sequence[tuple[str, float]], end: float) -> tuple[Span, ...]:
    """Each state until the next; those that lasted no time are left out."""
    ends = [*(at for _, at in moves[1:]), end]
    return tuple(Span(state, at, until) for (state, at), until in zip(moves, ends, strict=True) if until > at)


def _lasting(disturbance: Disturbance, healed_at: float) -> Span:
    end = disturbance.at + disturbance.seconds
    return Span(label_of(disturbance), disturbance.at, max(disturbance.at, min(end, healed_at)))
