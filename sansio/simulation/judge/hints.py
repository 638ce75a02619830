"""Invariant 12, as the provider sees it: who was told when to come back does not come before.

The other models take the hint from the error that the engine made of the answer. This one knows what the provider said
itself, before anybody parsed it, and sees the next request go out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from ...errors import RateLimited, StreamInterrupted
from ...events import AttemptEnded, Effect, Event
from ..provider.fault import Fault
from ..provider.fault_answers import Throttle
from .observed_core import ObservedCore
from .violation import InvariantViolated

if TYPE_CHECKING:
    from ..world.node import Call

_NUMBER: Final = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", re.ASCII)

Met = Callable[[str], tuple[int, Fault | None]]
"""How many requests with this prompt have come so far, and what the last of them met."""


class Hints:
    """What each request was told. ``met`` asks the providers."""

    __slots__ = ("_lanes", "_met", "_sent", "_throttled")

    def __init__(self, core: ObservedCore, met: Met) -> None:
        self._lanes = core.roster.lanes
        self._met = met
        self._sent: dict[int, tuple[float, int]] = {}  # when it last went out, and how many like it had come by then
        self._throttled: set[int] = set()  # those whose last attempt met a 429

    def observed(self, event: Event, effects: Sequence[Effect], now: float, unix_now: float) -> None:
        """An attempt may have met a 429."""
        if event.__class__ is AttemptEnded:
            assert isinstance(event, AttemptEnded)
            error = event.error.cause if isinstance(event.error, StreamInterrupted) else event.error
            if isinstance(error, RateLimited):
                self._throttled.add(event.request_id)
            else:
                self._throttled.discard(event.request_id)

    def sent(self, call: Call, key: str | None, now: float, unix_now: float) -> None:
        """A request goes out: not before it may, if it went out before."""
        request_id, prompt = call.request_id, call.plan.said
        times, fault = self._met(prompt)
        before = self._sent.get(request_id)
        self._sent[request_id] = (now, times)
        if before is None or request_id not in self._throttled or times != before[1] + 1:
            return
        hint = _hint(fault) if isinstance(fault, Throttle) else None
        respected = self._lanes[call.plan.deployment].deployment.config.retry.respect_retry_after
        if hint is not None and respected and now - before[0] < hint - 1e-6:
            about = f"request {request_id} was told to come back after {hint:g} s, and went out {now - before[0]:g} s later"
            raise InvariantViolated(12, about)

    def ended(self, call: Call) -> None:
        """A caller was told the end, or left."""
        self._sent.pop(call.request_id, None)
        self._throttled.discard(call.request_id)

    def healed(self, now: float, unix_now: float) -> None:
        """Nothing is left to be looked at."""


def _hint(fault: Throttle) -> float | None:
    """The seconds it said, where it said a number; the more precise header wins."""
    for said, unit in ((fault.retry_after_ms, 1000.0), (fault.retry_after, 1.0)):
        if said is not None and _NUMBER.fullmatch(said):
            return float(said) / unit
    return None
