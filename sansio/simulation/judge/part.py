"""What a judge is made of: parts that each know some invariants, and keep a naive model of their own to hold the engine to.

A part reads facts and orders, works out for itself what should come of them, and compares that with what the engine shows.
In two places it takes the engine's word: whether somebody waits in vain (9) is judged by who the queue says is first, by how
many slots the lane says it has, and by whether there is room by what the limiter counts; and how requests that were refused
at once are divided into failed and rejected (5) is not for an outsider to know.

A clock that goes backwards counts as standing still, for a part as for the engine: it goes by the latest time it was told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ...batch import TokenChunk
from ...events import Effect, Event

if TYPE_CHECKING:
    from ..world.node import Call


class Part(Protocol):
    """Some of the invariants. Constructed with the `ObservedCore` they are about.

    A part that also has `sent`, `delivered` or `ended` (each of these alone, if it likes) is told of those as well.
    """

    def observed(self, event: Event, effects: Sequence[Effect], now: float, unix_now: float) -> None:
        """The engine was told ``event``, and answered with ``effects``. Raises `InvariantViolated`."""
        ...

    def healed(self, now: float, unix_now: float) -> None:
        """Nothing has gone wrong for long, so everything should be over. Raises `InvariantViolated`."""
        ...


@runtime_checkable
class SeesSending(Protocol):
    """Is told of each request that goes out."""

    def sent(self, call: Call, key: str | None, now: float, unix_now: float) -> None:
        """A request went out, with this key, at these times of its node."""
        ...


@runtime_checkable
class SeesChunks(Protocol):
    """Is told of each chunk that a caller gets."""

    def delivered(self, call: Call, chunk: TokenChunk) -> None:
        """A chunk was handed to its caller."""
        ...


@runtime_checkable
class SeesEnds(Protocol):
    """Is told of each caller's end."""

    def ended(self, call: Call) -> None:
        """A caller was told the end, or left."""
        ...
