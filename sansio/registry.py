"""Every accepted request, what is counted of it, what is armed for it, and what is ordered about it.

The `Registry` is the state that the engine and its two departments (`circuits.py`, `sessions.py`) share during one `handle`:
the clocks it was told, the effects so far, and the groups whose queues have something to gain.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, TypeAlias

from .batch import TokenUsage
from .cost import CostLedger
from .errors import InferenceError
from .events import Complete, Effect, Notice, NoticeKind
from .lane import Circuit, Group, Lane, Lease, Link, Request, RequestState, SessionSlot
from .metrics import EngineMetrics, UsageSum
from .timers import Timers

Timed: TypeAlias = Request | Lane | Group | Circuit | SessionSlot | Link
"""What may be due. Each has one timer; what a request's is for follows from its state."""

_QUEUED, _RUNNING = RequestState.QUEUED, RequestState.RUNNING


class Registry:
    """What the parts of one engine share. Its attributes are theirs to read; changes go through its methods."""

    __slots__ = ("costs", "dirty", "effects", "metrics", "now", "requests", "timers", "unix_now", "unreported", "usage")

    def __init__(self) -> None:
        self.now = -math.inf
        self.unix_now = 0.0
        self.effects: list[Effect] = []
        self.metrics = EngineMetrics()
        self.usage = UsageSum()
        self.costs = CostLedger()
        self.timers: Timers[Timed] = Timers()
        self.requests: dict[int, Request] = {}
        self.unreported: dict[tuple[int, int], Lease] = {}
        """Leases settled by a cancel whose attempt has not reported yet, by request and attempt."""
        self.dirty: dict[int, Group] = {}
        """The groups to hand out from at the end of this `handle`."""

    def add(self, request: Request) -> None:
        """A request was accepted into its lane's queue."""
        request_id, lane = request.add.request_id, request.lane
        self.requests[request_id] = lane.requests[request_id] = request
        self.metrics.queued += 1
        if lane.running < lane.slots(self.now):
            self.touch(lane)
        else:  # nothing can start; but it may run out of time
            self.timers.set(lane, lane.deadline(self.now))

    def reject(self, request: Request, error: InferenceError) -> None:
        """A request was refused before it was accepted."""
        if not error.provider:
            error.provider = request.lane.provider
        self.metrics.rejected += 1
        count(self.metrics.failures, error.kind)
        self.effects.append(Complete(request.add.request_id, error))

    def finish(self, request: Request, error: InferenceError | None) -> None:
        """The one terminal outcome of an accepted request. A refusal from outside a full queue counts as rejected."""
        outside = error is not None and request.state is _QUEUED and error.kind == "backpressure"
        self.remove(request)
        if error is None:
            self.metrics.done += 1
        else:
            if outside:
                self.metrics.rejected += 1
            else:
                self.metrics.failed += 1
            count(self.metrics.failures, error.kind)
        self.effects.append(Complete(request.add.request_id, error))

    def remove(self, request: Request) -> None:
        """Forget a request, wherever it is."""
        request_id, lane = request.add.request_id, request.lane
        if request.state is _RUNNING:
            self.metrics.in_flight -= 1
        elif request.state is _QUEUED:
            self.metrics.queued -= 1
            lane.queue.remove(request_id)
            self.touch(lane)
        else:  # it backs off or is parked
            self.metrics.waiting -= 1
            self.timers.set(request, None)
            lane.backing_off.pop(request_id, None)
            lane.session.parked.pop(request_id, None)
        del self.requests[request_id], lane.requests[request_id]

    def move(self, request: Request, state: RequestState) -> None:
        """A request changes its state."""
        self._count_state(request.state, -1)
        if request.state is RequestState.BACKOFF:
            del request.lane.backing_off[request.add.request_id]
        request.state = state
        self._count_state(state, +1)
        if state is RequestState.BACKOFF:
            request.lane.backing_off[request.add.request_id] = request

    def started(self, request: Request) -> None:
        """A queued request's attempt begins."""
        metrics = self.metrics
        metrics.queued -= 1
        metrics.in_flight += 1
        metrics.attempts += 1
        request.state = _RUNNING

    def requeue(self, request: Request) -> None:
        """A request returns to its old place in its queue."""
        self.move(request, RequestState.QUEUED)
        request.lane.queue.requeue(request.entry, self.now)
        self.touch(request.lane)

    def touch(self, lane: Lane) -> None:
        """Something may have come free for this lane's group."""
        self.dirty[lane.group.index] = lane.group

    def notice(self, kind: NoticeKind, lane: Lane, request_id: int | None = None, **detail: Any) -> None:
        """Say something to operators."""
        self.effects.append(Notice(kind, lane.deployment.name, self.now, self.unix_now, request_id, detail))

    def retried(self, request: Request, reason: str, wait: float) -> None:
        """A retry was decided."""
        count(self.metrics.retries, reason)
        self.notice(
            "retry_scheduled", request.lane, request.add.request_id, reason=reason, wait=wait, attempt=request.attempts
        )

    def account(self, lane: Lane, usage: TokenUsage | None) -> None:
        """Count what one attempt used and cost; unknown is counted as unknown."""
        deployment = lane.deployment
        self.costs.count(deployment.name, deployment.model, usage, lane.price)
        if usage is None:
            self.metrics.unknown_usage += 1
        else:
            self.usage.add(usage)

    def snapshot(self) -> EngineMetrics:
        """A copy of all counts."""
        totals = self.costs.totals()
        return replace(
            self.metrics,
            retries=dict(self.metrics.retries),
            failures=dict(self.metrics.failures),
            circuit_transitions=dict(self.metrics.circuit_transitions),
            usage=self.usage.value(),
            cost_usd=totals.usd,
            unknown_cost=totals.unknown,
            costs=self.costs.by_deployment_and_model(),
        )

    def _count_state(self, state: RequestState, by: int) -> None:
        if state is _QUEUED:
            self.metrics.queued += by
        elif state is _RUNNING:
            self.metrics.in_flight += by
        else:
            self.metrics.waiting += by


def count(counts: dict[str, int], name: str) -> None:
    """One more of ``name``."""
    counts[name] = counts.get(name, 0) + 1
