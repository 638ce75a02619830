"""`sansio.simulation.judge.hints`: a Retry-After as the provider said it is not undercut (spec 5: 12)."""

from __future__ import annotations

import pytest
from engine_harness import USAGE, deployment
from judged_rig import violates

from sansio.deployment import RemoteEngineConfig
from sansio.errors import InferenceError, RateLimited, ServerError, StreamInterrupted
from sansio.events import AttemptEnded, Tick
from sansio.simulation.judge.hints import Hints
from sansio.simulation.judge.observed_core import ObservedCore
from sansio.simulation.provider.faults import Fault, Status, Throttle
from sansio.simulation.world.clock import chance
from sansio.simulation.world.node import Call
from sansio.simulation.world.plan import CallerPlan


class Scene:
    """One caller, and what its provider says."""

    def __init__(self, *, respects: bool = True) -> None:
        config = RemoteEngineConfig((deployment("chat", retry={"respect_retry_after": respects}),))
        self.met: tuple[int, Fault | None] = (0, None)
        self.part = Hints(ObservedCore(config, rng=chance(0)), lambda prompt: self.met)
        self.call = Call(CallerPlan(0, 0.0, "chat", "hello"), 1, 0.0)

    def send(self, now: float) -> None:
        self.part.sent(self.call, "sk", now, 0.0)

    def meet(self, fault: Fault | None, error: InferenceError | None) -> None:
        self.met = (self.met[0] + 1, fault)
        self.part.observed(AttemptEnded(1, 1, error, None, True), [], 0.0, 0.0)


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [
        (Throttle(retry_after="5"), 5.0),
        (Throttle(retry_after="0.5"), 0.5),
        (Throttle(retry_after_ms="2500"), 2.5),
        (Throttle(retry_after="9", retry_after_ms="2500"), 2.5),
        (Throttle(retry_after="3", retry_after_ms="soon"), 3.0),
    ],
)
def test_who_comes_back_too_early_is_seen(fault: Throttle, seconds: float) -> None:
    for error in (RateLimited("openai"), StreamInterrupted(cause=RateLimited("openai"))):
        scene = Scene()
        scene.send(10.0)
        scene.meet(fault, error)
        with violates(12, f"request 1 was told to come back after {seconds:g} s, and went out"):
            scene.send(10.0 + seconds - 0.01)
        scene = Scene()
        scene.send(10.0)
        scene.meet(fault, error)
        scene.send(10.0 + seconds)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Throttle(), RateLimited("openai")),
        (Throttle(retry_after="soon"), RateLimited("openai")),
        (Throttle(retry_date=60.0), RateLimited("openai")),
        (Status(503), ServerError(503)),
        (None, RateLimited("openai")),
        (Throttle(retry_after="5"), ServerError(503)),
    ],
)
def test_what_is_no_number_of_seconds_is_not_looked_at(fault: Fault | None, error: InferenceError) -> None:
    scene = Scene()
    scene.send(10.0)
    scene.meet(fault, error)
    scene.send(10.0)


def test_nor_a_hint_that_is_not_to_be_respected() -> None:
    scene = Scene(respects=False)
    scene.send(10.0)
    scene.meet(Throttle(retry_after="5"), RateLimited("openai"))
    scene.send(10.0)


def test_an_attempt_that_never_arrived_was_told_nothing() -> None:
    scene = Scene()
    scene.send(10.0)
    scene.meet(Throttle(retry_after="5"), RateLimited("openai"))
    scene.send(15.0)
    scene.part.observed(AttemptEnded(1, 2, RateLimited("openai"), None, True), [], 0.0, 0.0)
    scene.send(15.1)


def test_what_is_over_is_forgotten() -> None:
    scene = Scene()
    scene.send(10.0)
    scene.meet(Throttle(retry_after="5"), RateLimited("openai"))
    scene.part.observed(Tick(), [], 0.0, 0.0)
    scene.part.ended(scene.call)
    scene.send(10.0)
    scene.meet(None, None)
    scene.part.observed(AttemptEnded(1, 1, None, USAGE, True), [], 0.0, 0.0)
    scene.part.healed(0.0, 0.0)
