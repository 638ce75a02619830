"""Invariant 17: once nothing goes wrong any more, nothing is left of any request."""

from __future__ import annotations

from collections.abc import Iterable

from .observed_core import ObservedCore
from .seen import Asked
from .violation import InvariantViolated


def check_nothing_left(core: ObservedCore, alive: Iterable[Asked]) -> None:
    """No request, slot, place in a queue, report or timer. ``alive``: the requests that were told no end."""
    registry = core.registry
    for asked in alive:
        raise InvariantViolated(17, f"{asked} never ended")
    for request_id in registry.requests:
        raise InvariantViolated(17, f"request {request_id} is over, and the engine still has it")
    for request_id, attempt in registry.unreported:
        raise InvariantViolated(17, f"attempt {attempt} of request {request_id} was called off, and never reported")
    for name, lane in core.roster.lanes.items():
        if lane.running or len(lane.queue):
            about = f"{lane.running} attempts of {name!r} run and {len(lane.queue)} requests are queued"
            raise InvariantViolated(17, about)
    metrics, timers = registry.metrics, registry.timers
    if metrics.queued or metrics.waiting or metrics.in_flight:
        about = f"metrics: {metrics.queued} queued, {metrics.waiting} waiting, {metrics.in_flight} in flight"
        raise InvariantViolated(17, about)
    still_open = [circuit for circuit in core.roster.circuits if circuit.breaker.opened_at is not None]  # after a drain
    kept = sum(slot in timers for slot in core.roster.sessions) + sum(circuit in timers for circuit in still_open)
    extra = len(timers) - kept
    if extra:
        raise InvariantViolated(17, f"{extra} timers are set that are no session's and no open circuit's")
