"""Invariant 11: nothing starts, sleeps or waits past its request's deadline, wherever the time went."""

from __future__ import annotations

from heapq import heappop, heappush

from .seen import Asked
from .violation import InvariantViolated


class Deadlines:
    """When each request has to be over."""

    __slots__ = ("heap",)

    def __init__(self) -> None:
        self.heap: list[tuple[float, int, Asked]] = []
        """Who has one, the next first. Who is over leaves when its time comes."""

    def added(self, asked: Asked) -> None:
        """Somebody asks."""
        if asked.deadline is not None:
            heappush(self.heap, (asked.deadline, asked.order, asked))

    def started(self, asked: Asked, now: float) -> None:
        """An attempt begins."""
        if asked.deadline is not None and now >= asked.deadline:
            raise InvariantViolated(11, f"{asked} was started {now - asked.deadline:g} s past its deadline")

    def reported(self, asked: Asked, now: float) -> None:
        """An attempt is over. One that ends past the deadline was ordered cut, and now there is nothing to wait for."""
        if asked.deadline is not None and asked.deadline <= now:
            heappush(self.heap, (asked.deadline, asked.order, asked))

    def scheduled(self, asked: Asked, wait: float, now: float) -> None:
        """A retry is to come, at once or later."""
        if asked.deadline is not None and now + wait >= asked.deadline:
            left = asked.deadline - now
            raise InvariantViolated(11, f"{asked} is to be sent again in {wait:g} s, and has {left:g} s left")

    def check(self, now: float) -> None:
        """After a fact at ``now``: whose time is over is over too, or cut and about to be reported."""
        heap = self.heap
        while heap and heap[0][0] <= now:
            asked = heappop(heap)[2]
            if asked.over or asked.aborting:
                continue
            exchange = asked.exchange
            if exchange is not None and exchange.outcome is not None:
                continue  # it has ended by itself, and its driver is about to say so
            state = "runs" if asked.attempt else "waits"
            raise InvariantViolated(11, f"{asked} still {state} past its deadline, after {asked.attempts} attempts")
