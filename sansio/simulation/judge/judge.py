"""`Judge`: holds one engine to its invariants, after every fact, and says which one does not hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ...batch import TokenChunk
from ...events import Effect, Event
from .circuit_model import CircuitModel
from .hints import Hints, Met
from .limit_model import LimitModel
from .observed_core import ObservedCore
from .outcomes import Outcomes
from .part import Part, SeesChunks, SeesEnds, SeesSending
from .progress import Progress
from .reasons import Reasons
from .session_model import SessionModel

if TYPE_CHECKING:
    from ..world.node import Call


class Judge:
    """All parts, as one `Observer` and one `CallObserver`. Each method raises `InvariantViolated`.

    secrets: gives every credential that was handed out so far. met: asks the providers what somebody met there (`hints.py`).
    parts: others than all there are.
    """

    def __init__(
        self,
        core: ObservedCore,
        secrets: Callable[[], Sequence[str]] = tuple,
        *,
        met: Met | None = None,
        parts: Sequence[Part] | None = None,
    ) -> None:
        if parts is None:
            models = (CircuitModel(core), LimitModel(core), SessionModel(core))
            parts = (Outcomes(core, secrets), Progress(core), *models, Reasons(core))
        if met is not None:
            parts = (*parts, Hints(core, met))
        self.parts = tuple(parts)
        self._observe = [part.observed for part in self.parts]
        self._sent = [part.sent for part in self.parts if isinstance(part, SeesSending)]
        self._delivered = [part.delivered for part in self.parts if isinstance(part, SeesChunks)]
        self._ended = [part.ended for part in self.parts if isinstance(part, SeesEnds)]

    def observed(self, event: Event, effects: Sequence[Effect], now: float, unix_now: float) -> None:
        """After each fact."""
        for observed in self._observe:
            observed(event, effects, now, unix_now)

    def healed(self, now: float, unix_now: float) -> None:
        """At the end, when everything should be over."""
        for part in self.parts:
            part.healed(now, unix_now)

    def sent(self, call: Call, key: str | None, now: float, unix_now: float) -> None:
        """A request went out, with this key, at these times of its node."""
        for sent in self._sent:
            sent(call, key, now, unix_now)

    def delivered(self, call: Call, chunk: TokenChunk) -> None:
        """A chunk was handed to its caller."""
        for delivered in self._delivered:
            delivered(call, chunk)

    def ended(self, call: Call) -> None:
        """A caller was told the end, or left."""
        for ended in self._ended:
            ended(call)
