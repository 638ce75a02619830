"""What is noted during a run, for its report. It costs next to nothing: the engine counts for itself, so all that is kept is
what its counts do not tell, and references to its last steps, which are put into words only where somebody wants to read.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from typing import Final

from ...batch import TokenChunk
from ...events import Effect, Event, Notice
from ...trace import trace_line
from ..world.clock import VirtualClock
from ..world.node import Call
from ..world.plan import Plan
from ..world.world import World
from .failure import Violation
from .report import Report, header, percentile, replay_command
from .throttling import limiters
from .timeline import Timeline

_LAST_EVENTS: Final = 40


class Recorder:
    """Hears of every step of an engine and of every call. ``follow_ups`` is counted by whoever sends them; their numbers
    begin at ``first_follow_up``."""

    def __init__(self, plan: Plan, world: World) -> None:
        self.follow_ups = 0
        self.first_follow_up = max((caller.number for caller in plan.callers), default=-1) + 1
        self._plan = plan
        self._world = world
        self._clock = world.clock
        self._metrics = world.node.core.registry.metrics
        self._steps: deque[tuple[float, Event, Sequence[Effect]]] = deque(maxlen=_LAST_EVENTS)
        self._peak_in_flight = 0
        self._longest_queue = 0
        self._latencies: list[float] = []
        ends = [each.at + each.seconds for each in plan.disturbances]
        self._calm_at = min(max(ends), plan.seconds) if ends else None
        self._recovered_at = 0.0

    def observed(self, event: Event, effects: Sequence[Effect], now: float, unix_now: float) -> None:
        """One step of the engine."""
        self._steps.append((self._clock.now, event, effects))
        metrics = self._metrics
        if metrics.in_flight > self._peak_in_flight:
            self._peak_in_flight = metrics.in_flight
        if metrics.queued > self._longest_queue:
            self._longest_queue = metrics.queued
        for effect in effects:
            if isinstance(effect, Notice):
                self._noticed(effect)

    def sent(self, call: Call, key: str | None, now: float, unix_now: float) -> None:
        """Of no interest here."""

    def delivered(self, call: Call, chunk: TokenChunk) -> None:
        """Of no interest here."""

    def ended(self, call: Call) -> None:
        """A caller was told the end, or has left."""
        if call.plan.number >= self.first_follow_up:
            return
        if call.error is None and not call.left:
            self._latencies.append(self._clock.now - call.submitted_at)
        if self._calm_at is not None and call.submitted_at <= self._calm_at:
            self._recovered_at = self._clock.now

    def report(self, violation: Violation | None, *, digest: str | None, timeline: Timeline | None) -> Report:
        """The run as it is now."""
        plan, metrics = self._plan, self._world.node.core.metrics()
        refused, used = self._provider_limits()
        return Report(
            header=header(plan),
            command=replay_command(plan),
            scenario=plan.scenario,
            seed=plan.seed,
            level=plan.level,
            callers=tuple(caller.number for caller in plan.callers) if plan.callers_left_out else None,
            disturbances=tuple(each.number for each in plan.disturbances) if plan.disturbances_left_out else None,
            violation=violation,
            seconds=self._clock.now,
            facts=self._world.node.core.facts,
            submitted=metrics.submitted,
            done=metrics.done,
            failed=metrics.failed,
            rejected=metrics.rejected,
            cancelled=metrics.cancelled,
            follow_ups=self.follow_ups,
            failures=metrics.failures,
            attempts=metrics.attempts,
            retries=metrics.retries,
            throttled=metrics.throttled,
            throttled_by_limit=refused,
            circuit_transitions=metrics.circuit_transitions,
            refreshes=metrics.refreshes,
            failed_refreshes=metrics.failed_refreshes,
            broken_streams=metrics.failures.get("stream_interrupted", 0),
            peak_in_flight=self._peak_in_flight,
            longest_queue=self._longest_queue,
            limit_used=used,
            latency_p50=percentile(self._latencies, 50),
            latency_p95=percentile(self._latencies, 95),
            recovery=None if self._calm_at is None else max(0.0, self._recovered_at - self._calm_at),
            cost_usd=metrics.cost_usd,
            unknown_cost=metrics.unknown_cost,
            last_events=() if violation is None else tuple(trace_line(*step) for step in self._steps),
            digest=digest,
            timeline=timeline,
        )

    def _noticed(self, notice: Notice) -> None:
        if notice.kind in ("circuit", "key_circuit") and notice.detail["target"] == "closed":
            self._recovered_at = self._clock.now

    def _provider_limits(self) -> tuple[int, float | None]:
        """How often the providers' own limiters refused, and the most that one of their windows held of its limit."""
        refused, used = 0, None
        for _, _, limiter, limits in limiters(self._plan, self._world):
            refused += limiter.refused
            for peak, limit in (
                (limiter.peak_requests, limits.requests_per_minute),
                (limiter.peak_tokens, limits.tokens_per_minute),
            ):
                if limit is not None:
                    used = max(used or 0.0, peak / limit)
        return refused, used


class Digest:
    """Hears of every step of an engine, and makes one number of the whole trace."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._hash = hashlib.sha256()

    def observed(self, event: Event, effects: Sequence[Effect], now: float, unix_now: float) -> None:
        """One step of the engine."""
        self._hash.update(trace_line(self._clock.now, event, effects).encode())
        self._hash.update(b"\n")

    def value(self) -> str:
        """SHA-256 over all lines until now."""
        return self._hash.hexdigest()
