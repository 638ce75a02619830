"""What a driver's engine finds in a world instead of a process: a wall clock, a source of randomness, keys, and a judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sansio import (
    AskStore,
    Credential,
    Effect,
    Event,
    InferenceError,
    RefreshSession,
    RemoteEngineCore,
    SessionReport,
    StoreReport,
)
from sansio.cluster.store import StoreReply
from sansio.simulation.judge.judge import Judge
from sansio.simulation.judge.observed_core import ObservedCore
from sansio.simulation.judge.violation import InvariantViolated
from sansio.simulation.world.clock import chance
from sansio.simulation.world.vault import place_of
from sansio.simulation.world.world import World


class Place:
    """Where one engine of a driver runs. name: tells its chances from those of the world's other engines.

    Where the world is judged, so is this engine, by the facts it is told and what it makes of them.
    """

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self._name = name
        self._judge: Judge | None = None
        self._places: list[str] = []
        self._violation: InvariantViolated | None = None
        self._was_raised = False

    def unix_now(self) -> float:
        """The world's wall clock."""
        return self.world.clock.unix_now

    def core(self) -> RemoteEngineCore:
        """The engine proper."""
        world = self.world
        core = ObservedCore(world.config, rng=chance(world.seed, self._name, "engine"), fingerprints=world.fingerprints())
        self._places = [place_of(slot.lanes[0].deployment) for slot in core.roster.sessions]
        if world.judge is not None:
            self._judge = Judge(core, world.vault.secrets)
            core.observers = (self,)
        return core

    def fetch(self, order: RefreshSession, tell: Callable[[Event], None]) -> None:
        """Ask the world's vault for a credential, and report."""

        def report(result: Credential | InferenceError) -> None:
            tell(SessionReport(order.session, order.refresh_id, result))

        self.world.vault.fetch(self._places[order.session], 0.0, report)

    def ask(self, order: AskStore, tell: Callable[[Event], None]) -> None:
        """Put a question to the world's store, and report."""

        def report(reply: StoreReply) -> None:
            tell(StoreReport(order.link, order.ask, reply))

        self.world.store_way(self._name).ask(order.request, report)

    def observed(self, event: Event, effects: Sequence[Effect], now: float, unix_now: float) -> None:
        """The judge looks at each step. What it finds is raised by the world, in a moment, and not in the middle of a
        driver: what comes of the step must still be done, and an event loop might do no more than log it."""
        if self._judge is not None:
            try:
                self._judge.observed(event, effects, now, unix_now)
            except InvariantViolated as violation:
                self._remember(violation)
                self.world.clock.call_later(0.0, self._raise)

    def closed(self, *raised: object) -> None:
        """The engine is closed; what ended its block is among ``raised``, if it did not end well. Raises what the judge has
        found, and what it finds now that everything should be over.

        A block that did not end well may have left anything behind. What the world has raised before has cancelled it, and
        is not raised twice; but whoever swallowed that and went on is told again.
        """
        error = next((each for each in raised if isinstance(each, BaseException)), None)
        if self._judge is not None and error is None:
            try:
                self._judge.healed(self.world.clock.now, self.unix_now())
            except InvariantViolated as violation:
                self._remember(violation)
        if not self._was_raised or error is None or isinstance(error, Exception):
            self._raise()

    def _remember(self, violation: InvariantViolated) -> None:
        self._judge, self._violation = None, violation
        if self.world.violation is None:
            self.world.violation = violation

    def _raise(self) -> None:
        if self._violation is not None:
            self._was_raised = True
            raise self._violation
