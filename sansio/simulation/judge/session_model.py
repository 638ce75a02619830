"""Invariant 18, of credentials: which may be sent, for how long, and that nobody asks for a new one without need, or
twice at a time.

A credential is known from the report that brought it (`naive_session.py`). It is out of service once it has expired, by
either clock, and from a 401 of an attempt that carried it until a rebuild has reported one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias

from ...errors import Unauthorized
from ...events import (
    AttemptEnded,
    Cancel,
    Close,
    Complete,
    Effect,
    Event,
    Notice,
    RebuildSession,
    RefreshSession,
    SessionReport,
    StartAttempt,
)
from ...secret import Credential
from .naive_session import NaiveSession
from .observed_core import ObservedCore
from .root_error import root_of
from .violation import InvariantViolated

if TYPE_CHECKING:
    from ..world.node import Call

_WAITS: Final = "waits"
_GOES: Final = "goes"
_SPENT: Final = "spent"
"""After its first 401 a request waits for another credential, goes again with it, and after the next has no chance left."""


_Attempt: TypeAlias = tuple[int, NaiveSession, int, Credential]
"""A running attempt: its number, its session, and the generation and the credential that it carries."""


class SessionModel:
    """Holds the sessions of ``core`` to invariant 18. It has to be there from the first fact on."""

    __slots__ = (
        "_chances", "_closed", "_expiring", "_gives_up_at", "_lanes", "_models", "_news", "_now", "_requests", "_running",
        "_unix_now",
    )  # fmt: skip

    def __init__(self, core: ObservedCore) -> None:
        self._requests = core.registry.requests
        self._lanes = core.roster.lanes
        self._models = [NaiveSession(slot, core.config.session) for slot in core.roster.sessions]
        self._expiring: list[NaiveSession] = []
        """Those whose credential expires."""
        self._news: list[NaiveSession] = []
        """Those that the last fact changed."""
        self._running: dict[int, _Attempt] = {}
        self._chances: dict[int, tuple[str, int]] = {}
        """Requests that met a 401: what they may still do, and the generation they carried."""
        self._gives_up_at = math.inf
        """When the first refresh under way counts as failed."""
        self._now = self._unix_now = -math.inf
        self._closed = False

    def observed(self, event: Event, effects: Sequence[Effect], now: float, unix_now: float) -> None:
        """Follow one fact, and compare. Raises `InvariantViolated`."""
        if self._closed:
            return
        if now > self._now:
            self._now = now
        self._unix_now = unix_now
        if self._expiring:
            for model in self._expiring:
                model.unix_latest = max(model.unix_latest, unix_now)
        take = self._FACTS.get(event.__class__)
        if take is not None:
            take(self, event)
        if self._now >= self._gives_up_at and not self._closed:
            self._give_up()
        for effect in effects:
            read = self._EFFECTS.get(effect.__class__)
            if read is not None:
                read(self, effect)
        if self._news:
            self._compare()

    def sent(self, call: Call, key: str | None, now: float, unix_now: float) -> None:
        """A request went out: with the credential that was good when its attempt began. Raises `InvariantViolated`."""
        run = self._running.get(call.request_id)
        if run is not None and key is not None and key != run[3].reveal():
            raise InvariantViolated(18, f"request {call.request_id} was sent with another key than its attempt's")

    def healed(self, now: float, unix_now: float) -> None:
        """What is known of each credential is still so."""
        for model in self._models:
            model.compare()

    # ---- facts ------------------------------------------------------------------------------------------------------

    def _reported(self, event: SessionReport) -> None:
        if not 0 <= event.session < len(self._models):
            return
        model = self._models[event.session]
        model.report(event.refresh_id, event.result, self._now, self._unix_now)
        self._changed(model)
        self._expiring = [each for each in self._models if each.expires[0] < math.inf]

    def _rebuild(self, event: RebuildSession) -> None:
        lane = self._lanes[event.deployment] if event.deployment is not None else next(iter(self._lanes.values()))
        self._models[lane.session.index].wanted = True

    def _ended(self, event: AttemptEnded) -> None:
        run = self._running.get(event.request_id)
        if run is None or run[0] != event.attempt:
            return
        del self._running[event.request_id]
        if event.error is not None and isinstance(root_of(event.error), Unauthorized):
            _, model, generation, _ = run
            if generation == model.generation:
                model.refused = True
            state = _SPENT if event.request_id in self._chances else _WAITS
            self._chances[event.request_id] = state, generation

    def _cancelled(self, event: Cancel) -> None:
        self._running.pop(event.request_id, None)
        self._chances.pop(event.request_id, None)

    def _close(self, event: Close) -> None:
        """Nothing is sent any more, and nothing comes due."""
        self._closed = True

    def _give_up(self) -> None:
        """A refresh that has not reported in time has failed."""
        for model in self._models:
            if self._now >= model.gives_up_at:
                model.fail(self._now)
                self._changed(model)

    # ---- orders and notices -------------------------------------------------------------------------------------------

    def _started(self, start: StartAttempt) -> None:
        model = self._models[self._requests[start.request_id].lane.session.index]
        generation = start.exchange.generation
        credential = model.check_start(generation, self._now, self._unix_now)
        self._running[start.request_id] = (start.attempt, model, generation, credential)
        if self._chances:
            state, _ = self._chances.get(start.request_id, (_GOES, 0))
            if state is not _GOES:
                raise InvariantViolated(18, f"request {start.request_id} was started after a 401 that forbids it")

    def _completed(self, outcome: Complete) -> None:
        if self._chances:
            self._chances.pop(outcome.request_id, None)

    def _ordered(self, order: RefreshSession) -> None:
        model = self._models[order.session]
        model.order(order.refresh_id, order.cause, self._now)
        self._changed(model)

    def _noticed(self, notice: Notice) -> None:
        if notice.kind == "refresh_ended":
            model = self._models[self._lanes[notice.deployment].session.index]
            told, due, model.due = notice.detail["result"], model.due, None
            if told != due:
                raise InvariantViolated(18, f"session {model.slot.index}: a refresh ended ({told}), and should have: {due}")
        elif notice.kind == "retry_scheduled" and notice.detail["reason"] == "unauthorized":
            self._goes_again(notice)

    def _goes_again(self, notice: Notice) -> None:
        """Once, and with another credential than the one that was refused."""
        model = self._models[self._lanes[notice.deployment].session.index]
        assert notice.request_id is not None
        state, generation = self._chances.get(notice.request_id, (_SPENT, 0))
        if state is not _WAITS:
            raise InvariantViolated(18, f"request {notice.request_id} goes again for a 401 that it did not meet, or twice")
        if generation == model.generation:
            raise InvariantViolated(18, f"request {notice.request_id} goes again with the credential that was refused")
        self._chances[notice.request_id] = _GOES, generation

    # ---- what follows ---------------------------------------------------------------------------------------------------

    def _changed(self, model: NaiveSession) -> None:
        self._news.append(model)
        self._gives_up_at = min(each.gives_up_at for each in self._models)

    def _compare(self) -> None:
        for model in self._news:
            model.compare()
        self._news.clear()

    _FACTS: ClassVar[Mapping[type[Event], Callable[[Any, Any], None]]] = {
        AttemptEnded: _ended,
        Cancel: _cancelled,
        Close: _close,
        RebuildSession: _rebuild,
        SessionReport: _reported,
    }
    _EFFECTS: ClassVar[Mapping[type[Effect], Callable[[Any, Any], None]]] = {
        StartAttempt: _started,
        Complete: _completed,
        RefreshSession: _ordered,
        Notice: _noticed,
    }
