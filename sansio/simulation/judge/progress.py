"""Rules 23 and 26: no negative wait, and no step without progress."""

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
        if now >= self._latest:
            self._latest = now
            if event.__class__ is not Tick:
                self._idle = 0
                return
        deadline = self._core.deadline()
        if deadline is not None and deadline <= self._latest:
            behind = self._latest - deadline
            if now < self._latest:
                raise InvariantViolated(23, f"the clock went back, and now something was due {behind:g} s ago")
            raise InvariantViolated(26, f"something was due {behind:g} s ago, and was not done")
        if event.__class__ is Tick and not effects and now == self._now and deadline == self._deadline:
            self._idle += 1
            if self._idle > 2:
                raise InvariantViolated(26, f"{self._idle - 1} ticks in a row changed nothing, at an unchanged time")
        else:
            self._idle = 1
            self._now, self._deadline = now, deadline

    def healed(self, now: float, unix_now: float) -> None:
        """Nothing to add."""
