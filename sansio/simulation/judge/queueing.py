"""Invariants 6, 7 and 11: how many run and wait, for how long, and in which order they go.

In one lane a higher priority goes first, and among equals whoever came first. What bends that is left out where it does:
with ageing a lower priority may go before a higher one; where tenants take turns each has a row of its own; and while a
queue has no room, a higher priority may stand outside of it. Requests that come back after an attempt keep their place; they
must not overtake, and it is not asked whether they are overtaken.
"""

from __future__ import annotations

from collections.abc import Sequence

from .observed_core import ObservedCore
from .seen import Asked, LaneSeen
from .violation import InvariantViolated


class Queueing:
    """Slots, queues and their order."""

    __slots__ = ("_lanes", "_outside")

    def __init__(self, core: ObservedCore, lanes: Sequence[LaneSeen]) -> None:
        self._lanes = lanes
        self._outside = [lane for lane in lanes if lane.outside]

    def added(self, asked: Asked) -> None:
        """Somebody asks."""
        lane = asked.lane
        lane.alive += 1
        lane.new[asked.priority] += 1
        if lane.outside:
            lane.young.append(asked)

    def started(self, asked: Asked) -> None:
        """An attempt begins."""
        lane = asked.lane
        priority = asked.priority
        if asked.new:
            self._no_longer_new(asked)
        row = asked.row
        while row and not row[0].new:
            row.popleft()
        if row and row[0].order < asked.order:
            raise InvariantViolated(7, f"{asked} was started before {row[0]}, which came earlier and waits")
        if priority < 3 and any(lane.new[priority + 1 :]) and not (lane.ages or lane.crowded):
            raise InvariantViolated(7, f"{asked} was started before {_better(asked)}, which has a higher priority and waits")
        lane.running += 1
        if lane.running > lane.slots:
            raise InvariantViolated(6, f"{asked} was started as number {lane.running} with {lane.slots} slots")

    def over(self, asked: Asked) -> None:
        """A request is over, whatever the outcome."""
        asked.lane.alive -= 1
        if asked.new:
            self._no_longer_new(asked)

    def refused(self, asked: Asked, now: float, *, at_once: bool) -> None:
        """A request, still counted as alive, is refused for a full queue: when it comes, or when it stood outside of it for
        long enough."""
        lane = asked.lane
        others = lane.alive - lane.running - 1
        if asked.attempts:
            raise InvariantViolated(6, f"{asked} was refused for a full queue, after {asked.attempts} attempts")
        if at_once and others < lane.bound:
            raise InvariantViolated(6, f"{asked} was refused for a full queue; {others} wait, {lane.bound} may")
        if not at_once and now < asked.added_at + lane.queue_timeout:
            about = f"{asked} was refused for a full queue after {now - asked.added_at:g} s"
            raise InvariantViolated(11, f"{about}, queue_timeout is {lane.queue_timeout:g}")

    def check_added(self, asked: Asked, now: float) -> None:
        """After the step in which a request was accepted."""
        lane = asked.lane
        waiting = sum(lane.new)
        if waiting > lane.bound:
            raise InvariantViolated(6, f"{asked} was taken in; {waiting} wait for their first attempt, {lane.bound} may")
        if lane.outside:
            self._grow_old(lane, now)

    def check_waiting(self, now: float) -> None:
        """After time has passed."""
        for lane in self._outside:
            self._grow_old(lane, now)

    def check_running(self, number: int) -> None:
        """After every fact. ``number``: of the invariant that a difference breaks."""
        for lane in self._lanes:
            if lane.running != lane.lane.running:
                about = f"{lane.running} attempts of {lane.name!r} run, the engine holds {lane.lane.running} slots for them"
                raise InvariantViolated(number, about)

    def _no_longer_new(self, asked: Asked) -> None:
        asked.new = False
        asked.lane.new[asked.priority] -= 1
        if asked.old:
            asked.lane.old -= 1

    def _grow_old(self, lane: LaneSeen, now: float) -> None:
        """Who has waited for longer than anybody may stand outside is inside, so it is no more than there is room for."""
        young = lane.young
        while young and young[0].added_at + lane.queue_timeout <= now:
            asked = young.popleft()
            if asked.new:
                asked.old = True
                lane.old += 1
        if lane.old > lane.capacity:
            raise InvariantViolated(
                11,
                f"{lane.old} requests of {lane.name!r} have waited longer than queue_timeout={lane.queue_timeout:g}, and "
                f"only {lane.capacity} can stand inside the queue",
            )


def _better(asked: Asked) -> Asked:
    """Who of a higher priority waits."""
    rows = asked.lane.rows
    return min(
        (other for key in rows if key[0] > asked.priority for other in rows[key] if other.new),
        key=lambda other: (-other.priority, other.order),
    )
