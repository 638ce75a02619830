"""A breaker by the book that also heeds what other processes found (invariant 15).

    somebody's new opening   opens it for what is left of that, and for its own turn after that; heeded once
    what others found over   is taken back: it closes, unless its own finding or somebody else's opening still stands
    what it says             is what it found out itself: how many openings, and what is left of the latest

What cannot be read, what is its own, and what was heard of before says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from ...circuit_breaker import CircuitBreakerConfig
from ...lane import Circuit
from .naive_breaker import CLOSED, OPEN, NaiveBreaker
from .violation import InvariantViolated

_TURN: Final = 2.0
"""Intervals from one turn of probing to the next."""

_KEPT: Final = 10.0
"""Intervals for which a report and what it says are remembered beyond their end."""

_FOUND: Final = ("failure_threshold", "probe_failed")
"""What a process finds out itself, and tells the others."""

_Number = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Said = tuple[_Number, Annotated[float, msgspec.Meta(ge=0)], dict[str, _Number]]
"""A report: the number of the latest opening, seconds left of it, and whose openings, up to which number, are over."""


@dataclass(slots=True)
class _Opening:
    """The latest that was heard of somebody. ends_at: when it ends; lets_go_at: when this process may probe after it."""

    number: int
    forget_at: float
    ends_at: float = -math.inf
    lets_go_at: float = -math.inf


class NaiveSharedBreaker(NaiveBreaker):
    """What a circuit should be that processes share. interval: seconds between its exchanges."""

    __slots__ = ("_found", "_found_until", "_heard", "_interval", "_own_until")

    def __init__(self, circuit: Circuit, config: CircuitBreakerConfig, interval: float) -> None:
        super().__init__(circuit, config)
        self._interval = interval
        self._heard: dict[str, _Opening] = {}
        self._found = 0
        """How many openings it found itself."""
        self._found_until = -math.inf
        """The end of the latest of them, while it stands."""
        self._own_until = -math.inf
        """The end of what it found or was ordered, while that stands."""

    def force_open(self, duration: float | None, now: float) -> None:
        """As of any breaker. It is nobody else's business, and nobody else makes it shorter."""
        super().force_open(duration, now)
        self._own_until = max(self._own_until, math.inf if duration is None else now + duration)

    def say(self, report: bytes, now: float) -> None:
        """It tells the others, who are to hear neither more nor less than it found out itself."""
        said = _read(report)
        left = max(0.0, self._found_until - now)
        if said is None or said[:2] != (self._found, left):
            told = "what nobody can read" if said is None else f"of opening {said[0]} with {said[1]:g} s left"
            raise InvariantViolated(15, f"{self.name} tells {told}, and found opening {self._found} with {left:g} s left")

    def hear(self, member: str, reports: Mapping[str, tuple[float, bytes]], now: float) -> None:
        """What stands on the board, of which ``member`` is its own name."""
        said: dict[str, tuple[float, _Said]] = {}
        for name, (age, text) in reports.items():
            report = None if name == member else _read(text)
            if report is not None:
                said[name] = (report[1] - max(0.0, age), report)
        forget_at = now + max(self.config.open_duration, self.config.max_open_duration) + _KEPT * self._interval
        is_taken_back = False
        for _, (_, _, over) in said.values():
            for name, number in over.items():
                known = self._heard.get(name)
                if known is None or known.number <= number:
                    is_taken_back |= known is not None and known.ends_at > -math.inf
                    self._heard[name] = _Opening(number, forget_at)
        for name, (left, (number, _, _)) in said.items():
            known = self._heard.get(name)
            if number > (0 if known is None else known.number):
                self._heard[name] = opening = _Opening(number, forget_at)
                before = sum(other < member for other in said if other != name)
                self._heed(opening, left, (before + 1).bit_length(), now)
        if is_taken_back:
            self._take_back(now)
        for name in said.keys() & self._heard.keys():
            self._heard[name].forget_at = forget_at
        self._heard = {name: each for name, each in self._heard.items() if each.forget_at > now}

    def _heed(self, opening: _Opening, left: float, turn: int, now: float) -> None:
        if left <= 0:
            return
        left = min(left, max(self.config.open_duration, self.config.max_open_duration))
        opening.ends_at = opening.lets_go_at = now + left
        if opening.ends_at <= self._own_until:
            return  # it is the first to probe
        opening.lets_go_at += min(_TURN * self._interval, left) * turn
        if self.state is not OPEN:
            self._open("shared_open", 0.0, now)
        self.retry_at = max(self.retry_at, opening.lets_go_at)

    def _take_back(self, now: float) -> None:
        standing = [each.lets_go_at for each in self._heard.values() if each.ends_at > now]
        if standing or self._own_until > -math.inf:
            self.retry_at = max(now, self._own_until, *standing)
        else:
            self.close("shared_closed")

    def _open(self, reason: str, duration: float, now: float) -> None:
        super()._open(reason, duration, now)
        if reason in _FOUND:
            self._found += 1
            self._found_until = self._own_until = self.retry_at

    def _move(self, target: str, reason: str) -> None:
        super()._move(target, reason)
        if target is CLOSED:
            self._found_until = self._own_until = -math.inf
            for each in self._heard.values():
                each.ends_at = each.lets_go_at = -math.inf


def _read(text: bytes) -> _Said | None:
    try:
        said: _Said = msgspec.json.decode(text, type=_Said)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return said
