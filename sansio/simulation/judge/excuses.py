"""What the engine's own errors speak of: which circuits are open, which limiters pause, whose refresh has failed.

Each reason is asked once an error of its kind was told, and says what is wrong with it, if anything is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from heapq import heappop, heappush
from typing import Any, ClassVar

from ...events import Notice
from .observed_core import ObservedCore
from .pending import Deployed, Pending
from .violation import InvariantViolated


class Excuses:
    """What may keep requests from an attempt. `Reasons` tells it of the time, of each step, and of what happens."""

    __slots__ = (
        "_deadlines", "_disturbed", "_lanes", "_pauses", "_refreshes", "closed", "ending", "now", "paused"
    )  # fmt: skip

    def __init__(self, core: ObservedCore, lanes: Mapping[str, Deployed]) -> None:
        roster = core.roster
        self.now = -math.inf
        self.ending = self.closed = False
        self._lanes = lanes
        self._disturbed: dict[int, str] = {}
        """The circuits that are not closed, by number, and what they are instead."""
        self._pauses = [-math.inf] * len(roster.groups)
        """When each limiter's pause ends."""
        self._deadlines: list[list[tuple[float, int, Pending]]] = [[] for _ in roster.groups]
        self.paused: int | None = None
        """The limiter whose pause the last fact has made longer."""
        self._refreshes = [(0, "")] * len(roster.sessions)
        """The step in which each session's last refresh ended, and how."""

    # ---- what happens -------------------------------------------------------------------------------------------------

    def added(self, asked: Pending) -> None:
        """Somebody asks."""
        if asked.deadline is None:
            return
        heap = self._deadlines[asked.lane.group]
        while heap and heap[0][0] <= self.now:
            heappop(heap)  # whoever it was is over, or is being cut
        heappush(heap, (asked.deadline, asked.step, asked))

    def throttled(self, lane: Deployed, hint: float | None) -> None:
        """A 429 came, with this hint."""
        if hint is None or not lane.retry.respect_retry_after or not 0 < hint < math.inf:
            return
        if self.now + hint > self._pauses[lane.group]:
            self._pauses[lane.group] = self.now + hint
            self.paused = lane.group

    def circuit_moved(self, notice: Notice) -> None:
        """A circuit changed its state."""
        circuit = self._lanes[notice.deployment].circuits[notice.kind == "key_circuit"]
        self._disturbed[circuit] = notice.detail["target"]
        if notice.detail["target"] == "closed":
            del self._disturbed[circuit]

    def refreshed(self, notice: Notice, step: int) -> None:
        """A refresh ended."""
        self._refreshes[self._lanes[notice.deployment].session] = (step, notice.detail["result"])

    # ---- reasons ------------------------------------------------------------------------------------------------------

    def wrong(self, asked: Pending, kind: str, step: int) -> str | None:
        """What is wrong with an error of this kind, told in this step, that no attempt ended with."""
        reason = self._REASONS.get(kind)
        return "no attempt of it ended so" if reason is None else reason(self, asked, step)

    def refused_again(self, lane: Deployed, step: int) -> bool:
        """Whether the rebuild that ended in this step brought the credential that was refused."""
        return self._refreshes[lane.session] == (step, "unchanged")

    def _deadline(self, asked: Pending, step: int) -> str | None:
        """There is no time left, or none that can be used."""
        deadline, now, lane = asked.deadline, self.now, asked.lane
        if deadline is None:
            return "it has no deadline"
        if now >= deadline or self._pauses[lane.group] >= deadline or not self._has_room(asked):
            return None
        return f"it has {deadline - now:g} s left"

    def _has_room(self, asked: Pending) -> bool:
        """Whether its limiter would let it pass now, so that there is no wait for it."""
        limits, lane = asked.lane.limits, asked.lane
        if limits.burst is not None:
            return False  # its pace is not shown
        given, wanted = lane.estimate.of(asked.add)
        levels = lane.lane.group.limiter.snapshot(self.now)
        return all(
            level is None or cost <= level.available
            for level, cost in (
                (levels.requests, 1),
                (levels.tokens, given + wanted),
                (levels.input_tokens, given),
                (levels.output_tokens, wanted),
            )
        )

    def _paused_for_long(self, asked: Pending, step: int) -> str | None:
        """A 429 that others met pauses everybody for longer than it waits."""
        lane = asked.lane
        if self._pauses[lane.group] - self.now > lane.retry.max_retry_after:
            return None
        return "its limiter pauses for no longer than it may wait"

    def _circuit(self, asked: Pending, step: int) -> str | None:
        """A circuit of its own is not closed, and it does not wait for it, or not for so long."""
        lane = asked.lane
        if not any(number in self._disturbed for number in lane.circuits):
            return "its circuits are closed"
        if asked.waits and (asked.deadline is None or self._opens_by(lane, asked.deadline)):
            return "it asked to wait for it"
        return None

    def _opens_by(self, lane: Deployed, deadline: float) -> bool:
        """Whether every circuit in the way is probed by then. One that is half-open is probed already."""
        of_lane = lane.lane.circuit, lane.lane.key_circuit
        ends = [circuit.breaker.deadline() for circuit in of_lane if self._disturbed.get(circuit.index) == "open"]
        return all(end is not None and end < deadline for end in ends)

    def _limit(self, asked: Pending, step: int) -> str | None:
        """It is larger than a limit; where it sets no limit on its output, what is reserved for that is cut to fit."""
        limits, estimate = asked.lane.limits, asked.add.estimate
        limited = estimate.output_is_limit or asked.add.batch.max_output_tokens is not None
        given, wanted = estimate.input_tokens, estimate.output_tokens if limited else 0
        for cost, limit in (
            (given + wanted, limits.tokens_per_minute),
            (given, limits.input_tokens_per_minute),
            (wanted, limits.output_tokens_per_minute),
        ):
            if limit is not None and cost > limit:
                return None
        return "it is within every limit"

    def _budget(self, asked: Pending, step: int) -> str | None:
        lane = asked.lane
        if lane.spending is None:
            return "there is no budget that rejects"
        return None if lane.spending.may_refuse(lane.estimate.of(asked.add), self.now) else "its budget covers it"

    def _engine_closed(self, asked: Pending, step: int) -> str | None:
        if self.closed or (self.ending and asked.step == step):
            return None
        return "the engine is not closed, and had taken it in"

    def _no_credential(self, asked: Pending, step: int) -> str | None:
        if self._refreshes[asked.lane.session] == (step, "failed"):
            return None
        return "no refresh has just failed"

    def _queue(self, asked: Pending, step: int) -> str | None:
        """`Queueing` looks at this."""

    # ---- 4.5.5 ---------------------------------------------------------------------------------------------------------

    def check_paused(self, group: int, alive: Mapping[int, Pending]) -> None:
        """Nobody waits any more who cannot wait until the end of a pause that has just become longer."""
        self.paused = None
        pause, now = self._pauses[group], self.now
        heap = self._deadlines[group]
        while heap and heap[0][0] <= pause:
            self._check_waits(heappop(heap)[2], "its deadline")
        impatient = {
            name for name, lane in self._lanes.items() if lane.group == group and pause - now > lane.retry.max_retry_after
        }
        if impatient:
            for asked in alive.values():
                if asked.add.deployment in impatient:
                    self._check_waits(asked, "its max_retry_after")

    def _check_waits(self, asked: Pending, than: str) -> None:
        waits = not asked.attempt and (asked.scheduled or not asked.attempts)
        if waits and not asked.over:
            raise InvariantViolated(27, f"{asked} still waits, and a 429 pauses its limiter past {than}")

    _REASONS: ClassVar[Mapping[str, Callable[[Any, Pending, int], str | None]]] = {
        "backpressure": _queue,
        "budget_exceeded": _budget,
        "circuit_open": _circuit,
        "deadline_exceeded": _deadline,
        "engine_closed": _engine_closed,
        "limit_exceeded": _limit,
        "rate_limited": _paused_for_long,
        "unauthorized": _no_credential,
    }
