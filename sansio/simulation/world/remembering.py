"""What a judge objects to is remembered: code under test may catch the exception, and know nothing of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ...batch import TokenChunk
from ...events import Effect, Event
from ..judge.observed_core import Observer
from ..judge.violation import InvariantViolated

if TYPE_CHECKING:
    from ..judge.judge import Judge
    from .node import Call

Violated = Callable[[InvariantViolated], None]
"""Whoever remembers."""


class Remembered:
    """An observer whose objections are remembered, before they are raised."""

    __slots__ = ("_observed", "_violated")

    def __init__(self, observer: Observer, violated: Violated) -> None:
        self._observed = observer.observed
        self._violated = violated

    def observed(self, event: Event, effects: Sequence[Effect], now: float, unix_now: float) -> None:
        """After each fact."""
        try:
            self._observed(event, effects, now, unix_now)
        except InvariantViolated as violation:
            self._violated(violation)
            raise


class RememberedJudge(Remembered):
    """The same of a judge, who also hears what goes out, and what callers see."""

    __slots__ = ("_judge",)

    def __init__(self, judge: Judge, violated: Violated) -> None:
        super().__init__(judge, violated)
        self._judge = judge

    def sent(self, call: Call, key: str | None, now: float, unix_now: float) -> None:
        """A request went out, with this key, at these times of its node."""
        try:
            self._judge.sent(call, key, now, unix_now)
        except InvariantViolated as violation:
            self._violated(violation)
            raise

    def delivered(self, call: Call, chunk: TokenChunk) -> None:
        """A chunk was handed to its caller."""
        try:
            self._judge.delivered(call, chunk)
        except InvariantViolated as violation:
            self._violated(violation)
            raise

    def ended(self, call: Call) -> None:
        """A caller was told the end, or left."""
        try:
            self._judge.ended(call)
        except InvariantViolated as violation:
            self._violated(violation)
            raise
