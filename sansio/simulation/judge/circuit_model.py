"""Invariants 15, 16 and 17, of circuits: beside each breaker of the engine a naive one (`naive_breaker.py`; for one that
processes share `naive_shared_breaker.py`), which only knows the facts and the notices.

The breakers are only looked at, through what they show without being asked for the time: asking would move them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, TypeAlias

from ...cluster.store import Publish, Published
from ...errors import InferenceError, NetworkError, Unauthorized
from ...events import (
    AskStore,
    AttemptEnded,
    Cancel,
    CircuitAction,
    Close,
    Committed,
    Complete,
    Drain,
    Effect,
    Event,
    Notice,
    OverrideCircuit,
    StartAttempt,
    StoreReport,
)
from ...lane import Circuit, Lane
from .naive_breaker import CLOSED, OPEN, NaiveBreaker, config_of
from .naive_shared_breaker import NaiveSharedBreaker
from .observed_core import ObservedCore
from .root_error import root_of
from .violation import InvariantViolated

_WINDOW: Final = 60.0
"""What is said of circuits is exchanged as often as for a limit of this window."""

_PATIENCE: Final = 4.0
"""So many time limits of the store after a question its answer is not waited for any more."""

_Attempt: TypeAlias = tuple[StartAttempt, Lane, NaiveBreaker, int, NaiveBreaker, int]
"""A running attempt: its order, its lane, its endpoint's circuit and its key's, each with the epoch in which it began."""


@dataclass(slots=True)
class _Board:
    """Where a circuit is shared. ask: the question under way, 0 for none. member: who asks, to the others. until: when its
    answer is no longer waited for."""

    model: NaiveSharedBreaker
    ask: int = 0
    member: str = ""
    until: float = -math.inf


class CircuitModel:
    """Holds the circuits of ``core`` to invariants 15 and 16. It has to be there from the first fact on."""

    __slots__ = (
        "_boards", "_closed", "_ending", "_generations", "_ill", "_lanes", "_models", "_now", "_pairs", "_patience",
        "_refusals", "_refused", "_requests", "_resent", "_running", "_touched",
    )  # fmt: skip

    def __init__(self, core: ObservedCore) -> None:
        roster = core.roster
        self._requests = core.registry.requests
        self._lanes = roster.lanes
        shared = core.config.shared
        interval = 0.0 if shared is None else shared.interval_for(_WINDOW)
        self._patience = 0.0 if shared is None else _PATIENCE * shared.store_timeout
        self._models: list[NaiveBreaker] = []
        self._boards: dict[int, _Board] = {}
        """By the number of the link."""
        for circuit in roster.circuits:
            if circuit.link is None:
                self._models.append(NaiveBreaker(circuit, config_of(circuit)))
            else:
                model = NaiveSharedBreaker(circuit, config_of(circuit), interval)
                self._models.append(model)
                self._boards[circuit.link.index] = _Board(model)
        self._pairs = [(self._of(lane.circuit), self._of(lane.key_circuit)) for lane in roster.lanes.values()]
        """Of each lane: its endpoint's and its key's."""
        self._ill: dict[int, NaiveBreaker] = {}
        """Those that are not closed, or count failures."""
        self._touched: list[NaiveBreaker] = []
        """Those that the last fact concerned."""
        self._running: dict[int, _Attempt] = {}
        self._resent: set[int] = set()
        """Requests that went again because their connection was lost unread: once."""
        self._refused: set[int] = set()
        """Requests that have met a 401."""
        self._generations = [0] * len(roster.sessions)
        self._refusals: list[tuple[Lane, InferenceError] | None] = [None] * len(roster.sessions)
        """The 401 that each session's rebuild has to answer."""
        self._now = -math.inf
        self._ending = self._closed = False

    def observed(self, event: Event, effects: Sequence[Effect], now: float, unix_now: float) -> None:
        """Follow one fact, and compare. Raises `InvariantViolated`."""
        if self._closed:
            return
        if now > self._now:
            self._now = now
        if self._ill:
            for model in list(self._ill.values()):
                model.let_pass(self._now)
        take = self._FACTS.get(event.__class__)
        if take is not None:
            take(self, event)
        for board in self._boards.values():
            if board.until <= self._now:
                board.ask = 0
        for effect in effects:
            read = self._EFFECTS.get(effect.__class__)
            if read is not None:
                read(self, effect)
        if (self._touched or self._ill) and not self._closed:
            self._compare_all()

    def healed(self, now: float, unix_now: float) -> None:
        """Every circuit is closed, and no probe is out; where nothing is accepted any more, they stay as they are."""
        if self._ending:
            return
        self._now = max(self._now, now)
        for model in self._models:
            model.let_pass(self._now)
            if model.state is not CLOSED:
                raise InvariantViolated(17, f"{model.name} is still {model.state}")
            self._compare(model)
            if model.circuit.breaker.outstanding_probes:
                raise InvariantViolated(16, f"{model.name} is closed, and a probe is still out")

    # ---- facts ------------------------------------------------------------------------------------------------------

    def _ended(self, event: AttemptEnded) -> None:
        run = self._running.get(event.request_id)
        if run is None or run[0].attempt != event.attempt:
            return
        del self._running[event.request_id]
        error = event.error
        if error is None:
            self._report(run, True, True)
            return
        if self._lost_unread(event.request_id, run, error, event.stale):
            self._resent.add(event.request_id)
            self._report(run, None, None)
            return
        root = root_of(error)
        self._report(run, False if root.counts_as_circuit_failure else None, None)
        if isinstance(root, Unauthorized):
            self._note_refusal(event.request_id, run, root)
        elif root.blames_key:
            self._trip(run[1], root)

    def _lost_unread(self, request_id: int, run: _Attempt, error: InferenceError, stale: bool) -> bool:
        """Whether the connection was lost before the server looked at the request: once, that says nothing of it."""
        if not isinstance(error, NetworkError) or error.should_retry is False or request_id in self._resent:
            return False
        start, lane = run[:2]
        return not start.exchange.committed and (error.unprocessed or (stale and lane.deployment.idempotent))

    def _note_refusal(self, request_id: int, run: _Attempt, error: InferenceError) -> None:
        """A 401 has its rebuild answer for it. The second one of a request is the key's fault."""
        start, lane = run[:2]
        session = lane.session.index
        if start.exchange.generation == self._generations[session]:
            self._refusals[session] = (lane, error)
        if request_id in self._refused:
            self._trip(lane, error)
        self._refused.add(request_id)

    def _committed(self, event: Committed) -> None:
        """A probe has proven its circuit healthy, however long its stream goes on."""
        run = self._running.get(event.request_id) if self._ill else None
        if run is None or run[0].attempt != event.attempt:
            return
        _, _, endpoint, endpoint_epoch, key, key_epoch = run
        for model, epoch in ((endpoint, endpoint_epoch), (key, key_epoch)):
            if event.attempt in model.probes:
                model.report(event.attempt, epoch, True, self._now)
                self._note(model)

    def _cancelled(self, event: Cancel) -> None:
        self._forget_request(event.request_id)
        run = self._running.pop(event.request_id, None)
        if run is not None:
            self._report(run, None, None)

    def _drained(self, event: Drain | Close) -> None:
        """Nobody will probe a circuit any more; after `Close` nothing comes due either."""
        self._ending = True
        self._closed = isinstance(event, Close)

    def _answered(self, event: StoreReport) -> None:
        """What others say is heeded, if it is the answer to what was asked last, and somebody still waits for it."""
        board = self._boards.get(event.link)
        if board is None or not board.ask or board.ask != event.ask:
            return
        board.ask = 0
        if isinstance(event.reply, Published):
            board.model.hear(board.member, event.reply.reports, self._now)
            self._note(board.model)

    def _overridden(self, event: OverrideCircuit) -> None:
        lane = self._lanes[event.deployment] if event.deployment is not None else next(iter(self._lanes.values()))
        endpoint, key = self._pairs[lane.index]
        if event.action is CircuitAction.OPEN:
            endpoint.force_open(event.duration, self._now)
            self._note(endpoint)
            return
        for model in (endpoint, key):
            if event.action is CircuitAction.RESET and model.state is CLOSED:
                model.forget()
            model.close("reset" if event.action is CircuitAction.RESET else "forced_closed")
            self._note(model)

    # ---- orders and notices -------------------------------------------------------------------------------------------

    def _started(self, start: StartAttempt) -> None:
        lane = self._requests[start.request_id].lane
        endpoint, key = self._pairs[lane.index]
        self._running[start.request_id] = (start, lane, endpoint, endpoint.epoch, key, key.epoch)
        if self._ill:
            endpoint.start(start.attempt, self._now)
            key.start(start.attempt, self._now)

    def _asked(self, order: AskStore) -> None:
        board = self._boards.get(order.link)
        if board is None or self._closed:  # a farewell is no verdict
            return
        question = order.request
        if not isinstance(question, Publish):
            raise InvariantViolated(15, f"{board.model.name} asks the store something else than what others say")
        board.ask, board.member, board.until = order.ask, question.member, self._now + self._patience
        board.model.say(question.report, self._now)

    def _completed(self, outcome: Complete) -> None:
        if self._resent or self._refused:
            self._forget_request(outcome.request_id)
        if outcome.error is not None and outcome.error.kind == "circuit_open" and not self._ill:
            raise InvariantViolated(15, f"request {outcome.request_id} was told of an open circuit, and none is")

    def _noticed(self, notice: Notice) -> None:
        kind = notice.kind
        if kind == "circuit" or kind == "key_circuit":
            lane = self._lanes[notice.deployment]
            model = self._of(lane.circuit if kind == "circuit" else lane.key_circuit)
            told = notice.detail["source"], notice.detail["target"], notice.detail["reason"]
            due = model.untold.popleft() if model.untold else None
            if told != due:
                raise InvariantViolated(15, f"{model.name} went {_shown(told)}, and should have gone {_shown(due)}")
        elif kind == "refresh_ended":
            self._refreshed(self._lanes[notice.deployment], notice.detail["result"])

    def _refreshed(self, of: Lane, result: str) -> None:
        """A new credential lifts what is held against the old key; the same one once more makes a 401 stand."""
        slot = of.session
        if result == "renewed":
            self._generations[slot.index] += 1
            self._refusals[slot.index] = None
            for lane in slot.lanes:
                model = self._of(lane.key_circuit)
                model.close("forced_closed")
                self._note(model)
        elif result == "unchanged":
            refusal, self._refusals[slot.index] = self._refusals[slot.index], None
            if refusal is not None:
                self._trip(*refusal)

    # ---- what follows ---------------------------------------------------------------------------------------------------

    def _of(self, circuit: Circuit) -> NaiveBreaker:
        return self._models[circuit.index]

    def _report(self, run: _Attempt, for_endpoint: bool | None, for_key: bool | None) -> None:
        start, _, endpoint, endpoint_epoch, key, key_epoch = run
        if not self._ill and for_endpoint is not False:  # it changes nothing
            self._touched += (endpoint, key)
            return
        endpoint.report(start.attempt, endpoint_epoch, for_endpoint, self._now)
        key.report(start.attempt, key_epoch, for_key, self._now)
        self._note(endpoint)
        self._note(key)

    def _trip(self, lane: Lane, error: InferenceError) -> None:
        """The key is to blame: nothing goes with it until its hint has passed."""
        hint = error.retry_after
        usable = hint is not None and 0 <= hint < math.inf
        model = self._of(lane.key_circuit)
        model.force_open(hint if usable else lane.deployment.config.circuit_breaker.max_open_duration, self._now)
        self._note(model)

    def _note(self, model: NaiveBreaker) -> None:
        model.let_pass(self._now)  # one that is opened for no time at all is half-open at once
        self._touched.append(model)
        if model.state is not CLOSED or model.failures:
            self._ill[model.circuit.index] = model
        elif self._ill:
            self._ill.pop(model.circuit.index, None)

    def _forget_request(self, request_id: int) -> None:
        self._resent.discard(request_id)
        self._refused.discard(request_id)

    # ---- comparing --------------------------------------------------------------------------------------------------------

    def _compare_all(self) -> None:
        for model in self._touched:
            self._compare(model)
        self._touched.clear()
        for model in self._ill.values():
            self._compare(model)

    def _compare(self, model: NaiveBreaker) -> None:
        """What the breaker shows is what it should be. Time that passed unnoticed may not have moved it yet."""
        breaker = model.circuit.breaker
        if model.untold:
            raise InvariantViolated(15, f"{model.name} should have gone {_shown(model.untold[0])}, and nobody was told")
        if model.state is CLOSED:
            if breaker.opened_at is not None:
                raise InvariantViolated(15, f"{model.name} is not closed, and should be")
            if breaker.consecutive_failures != len(model.failures):
                counted = breaker.consecutive_failures
                raise InvariantViolated(15, f"{model.name} counts {counted} failures, and not {len(model.failures)}")
            return
        if breaker.opened_at != model.opened_at:
            raise InvariantViolated(15, f"{model.name} is {model.state}, but did not open when it should have")
        if model.state is OPEN and breaker.deadline() != (model.retry_at if model.retry_at < math.inf else None):
            raise InvariantViolated(15, f"{model.name} is open for another time than it should be")
        self._compare_probes(model, breaker.outstanding_probes)

    def _compare_probes(self, model: NaiveBreaker, outstanding: int) -> None:
        out = len(model.probes)
        if outstanding < out:
            raise InvariantViolated(15, f"{model.name} knows of {outstanding} probes, and {out} are out")
        if outstanding > out + model.lapsed:
            raise InvariantViolated(16, f"{model.name} waits for {outstanding} probes, and only {out} are out")

    _FACTS: ClassVar[Mapping[type[Event], Callable[[Any, Any], None]]] = {
        AttemptEnded: _ended,
        Cancel: _cancelled,
        Close: _drained,
        Committed: _committed,
        Drain: _drained,
        OverrideCircuit: _overridden,
        StoreReport: _answered,
    }
    _EFFECTS: ClassVar[Mapping[type[Effect], Callable[[Any, Any], None]]] = {
        AskStore: _asked,
        StartAttempt: _started,
        Complete: _completed,
        Notice: _noticed,
    }


def _shown(move: tuple[str, str, str] | None) -> str:
    return "nowhere" if move is None else f"from {move[0]} to {move[1]} ({move[2]})"
