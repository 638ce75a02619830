"""Invariants 23 and 26: no negative wait, and no step without progress."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...events import Effect, Event, Tick
from .observed_core import ObservedCore
from .violation import InvariantViolated


class Progress:
    """What an engine waits for lies ahead, and a tick that changed nothing is not asked for again at the same time.

    It looks where time is what it is about: at ticks, and wherever the clock went back. Something that is left undone by
    another fact leads to a tick.
    """

    __slots__ = ("_core", "_deadline", "_idle", "_latest", "_now")

    def __init__(self, core: ObservedCore) -> None:
        self._core = core
        self._latest = -math.inf
        self._now = -math.inf
        self._deadline: float | None = None
        self._idle = 0

    def observed(self, event: Event, effects: Sequence[Effect], now: float, unix_now: float) -> None:
        """What is due was done, so what comes next comes later."""
        if now > self._latest:
            self._latest = now
        ticked = event.__class__ is Tick
        if not ticked:
            self._idle = 0
            if now == self._latest:
                return
        deadline = self._core.deadline()
        if deadline is not None and deadline <= self._latest:
            behind = self._latest - deadline
            if now < self._latest:
                raise InvariantViolated(23, f"the clock went back, and now something was due {behind:g} s ago")
            raise InvariantViolated(26, f"something was due {behind:g} s ago, and was not done")
        if ticked:
            self._count(deadline, now, changed=bool(effects))

    def _count(self, deadline: float | None, now: float, *, changed: bool) -> None:
        """Ticks at the same time, of which none changed anything after the first."""
        if changed or now != self._now or deadline != self._deadline:
            self._idle = 0
        self._idle += 1
        self._now, self._deadline = now, deadline
        if self._idle > 2:
            raise InvariantViolated(26, f"{self._idle - 1} ticks in a row changed nothing, at an unchanged time")

    def healed(self, now: float, unix_now: float) -> None:
        """Nothing to add."""
