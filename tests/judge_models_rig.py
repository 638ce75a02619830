"""A `Rig` whose engine is watched by one part of the judge, and a random walk that is."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import engine_world
import pytest
from engine_harness import Rig, deployment
from engine_walk import walk

from sansio.deployment import Deployment, RemoteEngineConfig
from sansio.events import CircuitAction, Effect, OverrideCircuit
from sansio.session import SessionConfig
from sansio.simulation.judge.observed_core import ObservedCore
from sansio.simulation.judge.part import Part
from sansio.simulation.judge.violation import InvariantViolated
from sansio.simulation.judge.watched_limiter import WatchedLimiter

MakePart = Callable[[ObservedCore], Part]


class JudgedRig(Rig):
    """An engine driven by hand, each fact judged by one part."""

    def __init__(self, part: MakePart, *deployments: Deployment, session: SessionConfig | None = None, **rest: Any) -> None:
        super().__init__(*deployments, session=session, **rest)
        config = RemoteEngineConfig(deployments or (deployment(),), session or SessionConfig())
        self.core = self.engine = ObservedCore(config, rng=random.Random(1))
        self.part = part(self.core)
        self.core.observers = (self.part,)

    def override(self, action: str, duration: float | None = None, name: str | None = None) -> list[Effect]:
        """An operator acts on a circuit."""
        return self.tell(OverrideCircuit(name, CircuitAction(action), duration))

    def healed(self) -> None:
        """Everything should be over."""
        self.part.healed(self.now, self.now + self.unix_ahead)


@contextmanager
def breaks(number: int, words: str) -> Iterator[None]:
    """What happens within breaks exactly this invariant, and the message says so in these words."""
    with pytest.raises(InvariantViolated) as caught:
        yield
    assert (caught.value.number, words in caught.value.about) == (number, True), str(caught.value)


def judged_walk(patch: pytest.MonkeyPatch, part: MakePart, roster: str, seed: int, steps: int = 500) -> Part:
    """The part, after it has watched a random walk of the older world to its end."""
    parts: list[Part] = []
    init = engine_world.World.__init__

    def watched(self: engine_world.World, roster: str, seed: int) -> None:
        init(self, roster, seed)
        assert isinstance(self.engine, ObservedCore)
        parts.append(part(self.engine))
        self.engine.observers = (parts[0],)

    patch.setattr(engine_world, "RemoteEngineCore", ObservedCore)
    patch.setattr(engine_world, "CountingLimiter", lambda original: WatchedLimiter(original.limits))
    patch.setattr(engine_world, "check_leases", lambda world: None)  # it looks for its own limiters
    patch.setattr(engine_world.World, "__init__", watched)
    world = walk(roster, seed, steps)
    world.heal()
    parts[0].healed(world.latest, world.latest + world.unix_ahead)
    return parts[0]
