"""What a driver's engine finds in a world instead of a process: a wall clock, a source of randomness, keys, and a judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sansio import Credential, Effect, Event, InferenceError, RefreshSession, RemoteEngineCore, SessionReport
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

    def unix_now(self) -> float:
        """The world's wall clock."""
        return self.world.clock.unix_now

    def core(self) -> RemoteEngineCore:
        """The engine proper."""
        world = self.world
        core = ObservedCore(world.config, rng=chance(world.seed, self._name, "engine"), fingerprints=world.fingerprints())
        self._places = [place_of(slot.lanes[0].deployment) for slot in core.roster.sessions]
        if world.judge is not None:
            self._judge = Judge(core, lambda: [credential.reveal() for credential in world.vault.handed_out])
            core.observers = (self,)
        return core

    def fetch(self, order: RefreshSession, tell: Callable[[Event], None]) -> None:
        """Ask the world's vault for a credential, and report."""

        def report(result: Credential | InferenceError) -> None:
            tell(SessionReport(order.session, order.refresh_id, result))

        self.world.vault.fetch(self._places[order.session], 0.0, report)

    def observed(self, event: Event, effects: Sequence[Effect], now: float, unix_now: float) -> None:
        """The judge looks at each step. What it finds is raised by the world, in a moment, and not in the middle of a
        driver: what comes of the step must still be done, and an event loop might do no more than log it."""
        if self._judge is not None:
            try:
                self._judge.observed(event, effects, now, unix_now)
            except InvariantViolated as violation:
                self._judge, self._violation = None, violation
                self.world.clock.call_later(0.0, self.check)

    def check(self) -> None:
        """Raise what the judge has found, if that was not done."""
        violation, self._violation = self._violation, None
        if violation is not None:
            raise violation
