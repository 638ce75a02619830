"""A `Rig` whose engine is judged, and ways to break it: by what it is told, or by what is said of it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from engine_harness import START, Rig, deployment

from sansio.deployment import Deployment, RemoteEngineConfig
from sansio.events import Effect, Event
from sansio.session import SessionConfig
from sansio.simulation.judge.observed_core import ObservedCore
from sansio.simulation.judge.outcomes import Outcomes
from sansio.simulation.judge.part import Part
from sansio.simulation.judge.violation import InvariantViolated


class JudgedRig(Rig):
    """A rig with an observed engine. ``part``: what it is judged by."""

    def __init__(
        self,
        *deployments: Deployment,
        secrets: Sequence[str] = (),
        refreshed: bool = True,
        session: SessionConfig | None = None,
        start: float = START,
    ) -> None:
        super().__init__(*deployments, refreshed=refreshed, session=session, start=start)
        config = RemoteEngineConfig(deployments or (deployment(),), session or SessionConfig())
        self.core = self.engine = ObservedCore(config, rng=random.Random(1))
        self.part = Outcomes(self.core, lambda: secrets)
        self.judged_by(self.part)

    def judged_by(self, *parts: Part) -> None:
        """Others than before judge from now on."""
        self.core.observers = parts

    def say(self, event: Event, *effects: Effect) -> None:
        """The part is told of a fact, and of orders that no engine gave."""
        self.part.observed(event, effects, self.now, self.now + self.unix_ahead)

    def healed(self) -> None:
        """Everything should be over."""
        self.part.healed(self.now, self.now + self.unix_ahead)


@contextmanager
def violates(number: int, about: str = "") -> Iterator[None]:
    """An invariant does not hold: this one, and it is said why."""
    with pytest.raises(InvariantViolated) as caught:
        yield
    assert caught.value.number == number, str(caught.value)
    assert about in caught.value.about
