"""The judge's circuits where processes share them: quiet beside engines that are right, whatever they hear of each other,
and not beside one that heeds what it should not, or tells what it did not find."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from engine_harness import deployment
from hypothesis import given, settings
from hypothesis import strategies as st
from judge_models_rig import JudgedRig, breaks

from sansio import errors
from sansio.circuit_breaker import CircuitBreaker
from sansio.cluster.shared_circuit import SharedCircuit
from sansio.cluster.store import Publish, Published, StoreLost, StoreReply, Swap
from sansio.deployment import Deployment, RemoteEngineConfig
from sansio.events import AskStore, Effect, Event, StartAttempt, StoreReport
from sansio.simulation import Status
from sansio.simulation.fleet import Fleet
from sansio.simulation.judge.circuit_model import CircuitModel
from sansio.simulation.judge.observed_core import ObservedCore
from sansio.simulation.world.plan import LEVELS, CallerPlan, Faults, Level
from sansio.simulation.world.shared_store import SharedStore
from sansio.simulation.world.weather import Weather
from sansio.simulation.world.world import World

Patch = pytest.MonkeyPatch
BREAKER = {"failure_threshold": 2, "open_duration": 10.0, "open_multiplier": 2.0, "max_open_duration": 30.0}
CLUSTER = {"url": "redis://store", "share_circuits": True}
INTERVAL = 1.0
PATIENCE = 4.0
"""Seconds after a question that its answer may still come."""


def shop() -> Deployment:
    return deployment(breaker=BREAKER, retry={"max_retries": 0}, serving={"on_circuit_open": "wait"})


def said(opening: int, left: float, **over: int) -> bytes:
    """What somebody reports: its latest opening, seconds left of it, whose openings are over."""
    return json.dumps([opening, left, over]).encode()


class SharingRig(JudgedRig):
    """An engine that shares its endpoint's circuit, and the question it has put to the store."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__(CircuitModel, shop())
        config = RemoteEngineConfig((shop(),), cluster=CLUSTER)
        self.core = self.engine = ObservedCore(config, rng=random.Random(seed))
        self.part = CircuitModel(self.core)
        self.core.observers = (self.part,)
        self.asked: AskStore | None = None
        self.running: list[int] = []

    def tell(self, event: Event) -> list[Effect]:
        effects = super().tell(event)
        self.asked = next((each for each in effects if isinstance(each, AskStore)), self.asked)
        self.running += [each.request_id for each in effects if isinstance(each, StartAttempt)]
        return effects

    def question(self) -> Publish:
        """What was asked last."""
        assert self.asked is not None and isinstance(self.asked.request, Publish)
        return self.asked.request

    def reply(self, reply: StoreReply) -> None:
        """The store's answer."""
        asked, self.asked = self.asked, None
        assert asked is not None
        self.tell(StoreReport(asked.link, asked.ask, reply))

    def hear(self, age: float = 0.0, **reports: bytes) -> None:
        """The board, as it stands when the next question is answered."""
        while self.asked is None:
            self.tick_at_deadline()
        self.reply(Published({name: (age, text) for name, text in reports.items()}, self.now))

    def fails(self, request_id: int) -> None:
        self.submit(request_id)
        self.end(request_id, errors.ServerError())

    def tick_until_started(self, request_id: int) -> None:
        """Time passes, and nobody says anything new."""
        while request_id not in self.running:
            if self.asked is None:
                self.tick_at_deadline()
            else:
                self.reply(Published({}, self.now))

    @property
    def is_open(self) -> bool:
        return self.core.roster.circuits[0].breaker.opened_at is not None

    @property
    def open_for(self) -> float:
        deadline = self.core.roster.circuits[0].breaker.deadline()
        return math.inf if deadline is None else deadline - self.now


def listening() -> SharingRig:
    """It has a request that runs, so it asks what the others say."""
    world = SharingRig()
    world.submit(1)
    return world


def own_opening() -> SharingRig:
    """It has found out itself that the endpoint fails: open for 10 seconds."""
    world = listening()
    world.hear()
    world.fails(2)
    world.fails(3)
    assert world.is_open
    return world


# ---- an engine that is right: at the level of the judge, with facts made by hand ------------------------------------------


def test_somebody_elses_opening_is_heeded_once_and_taken_back_when_it_is_over() -> None:
    world = listening()
    world.hear(a=said(1, 5.0))
    assert world.is_open and world.open_for == 5.0 + 2.0 * INTERVAL
    world.hear(a=said(1, 4.0), b=said(0, 0.0, a=1))
    assert not world.is_open
    world.hear(a=said(1, 4.0))
    assert not world.is_open
    world.hear(a=said(2, 4.0), b=said(0, 0.0, a=1))
    assert world.is_open
    world.submit(2)
    world.tick_until_started(2)
    world.commit(2)
    assert not world.is_open


@pytest.mark.parametrize(
    ("age", "text"),
    [
        (0.0, b""), (0.0, b"\xff"), (0.0, b"[1, 5.0]"), (0.0, b"[1, -5.0, {}]"), (0.0, b"[-1, 5.0, {}]"), (0.0, b"{}"),
        (0.0, b"[1e99, 5.0, {}]"), (0.0, b"[" * 9_999), (5.0, said(1, 5.0)), (99.0, said(1, 5.0)), (0.0, said(0, 5.0)),
        (0.0, said(1, 0.0)), (0.0, said(0, 0.0, b=5)),
    ],
)  # fmt: skip
def test_what_cannot_be_read_or_is_over_opens_nothing(age: float, text: bytes) -> None:
    world = listening()
    world.hear(age, a=text)
    assert not world.is_open


def test_what_ended_an_earlier_opening_does_not_end_a_later_one() -> None:
    world = listening()
    world.hear(other=said(2, 8.0))
    assert world.is_open
    world.hear(other=said(2, 8.0), late=said(0, 0.0, other=1))
    assert world.is_open
    world.hear(late=said(0, 0.0, other=2))
    assert not world.is_open


def test_its_own_name_and_an_answer_to_nothing_say_nothing() -> None:
    world = listening()
    world.hear(**{world.question().member: said(1, 5.0)})
    assert not world.is_open
    world.tell(StoreReport(0, 99, Published({"a": (0.0, said(1, 5.0))}, 0.0)))
    world.tell(StoreReport(7, 1, Published({"a": (0.0, said(1, 5.0))}, 0.0)))
    assert not world.is_open


def test_an_answer_that_comes_too_late_says_nothing() -> None:
    world = listening()
    late = world.asked
    assert late is not None
    world.tick(PATIENCE)
    opens = Published({"a": (0.0, said(1, 5.0))}, 0.0)
    world.tell(StoreReport(late.link, late.ask, opens))
    assert not world.is_open
    world.hear(a=said(1, 5.0))
    assert world.is_open


def test_an_answer_of_the_last_moment_is_heeded() -> None:
    world = listening()
    world.now += PATIENCE
    world.hear(a=said(1, 5.0))
    assert world.is_open


def test_a_store_that_is_lost_says_nothing() -> None:
    world = listening()
    world.reply(StoreLost("gone"))
    world.hear(a=said(1, 5.0))
    assert world.is_open


def test_somebody_elses_verdict_does_not_end_its_own() -> None:
    world = own_opening()
    world.hear(a=said(1, 30.0), b=said(1, 1.0))
    assert world.open_for > 29.0
    world.hear(a=said(1, 20.0, a=1, b=1))
    assert world.is_open and world.open_for <= 10.0
    world.override("close")
    assert not world.is_open


def test_what_an_operator_orders_stands_and_is_not_told() -> None:
    world = listening()
    world.override("open", 20.0)
    world.hear(a=said(1, 5.0))
    assert world.open_for == 20.0
    world.hear(b=said(0, 0.0, a=1))
    assert world.open_for == pytest.approx(20.0, abs=2.0)
    world.override("open", None)
    world.hear(b=said(0, 0.0, a=1))
    assert world.open_for == math.inf
    world.override("reset")
    assert not world.is_open


def test_a_farewell_is_no_verdict() -> None:
    world = own_opening()
    world.hear()
    world.close()
    assert world.question().report == b""


MOVES = ("submit", "fails", "ends", "commits", "cancels", "waits", "hears", "loses", "overrides")


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), processes=st.integers(2, 4))
def test_it_is_quiet_beside_any_processes_that_hear_of_each_other(seed: int, processes: int) -> None:
    rng, board = random.Random(seed), SharedStore()
    towns = [SharingRig(number) for number in range(processes)]
    for step in range(300):
        rig = rng.choice(towns)
        move = rng.choice(MOVES)
        if move == "submit":
            rig.submit(step)
        elif rig.running and move in ("fails", "ends", "commits", "cancels"):
            request = rig.running[rng.randrange(len(rig.running))]
            if request in rig.outcomes:
                rig.running.remove(request)
            elif move == "commits" and not rig.started[request].exchange.committed:
                rig.commit(request)
            elif move == "cancels":
                rig.running.remove(request)
                rig.cancel(request)
            elif move != "commits":
                rig.running.remove(request)
                rig.end(request, errors.ServerError() if move == "fails" else None)
        elif move == "waits":
            passes = rng.choice((0.1, 1.0, 3.0, 9.0))
            for each in towns:
                each.tick(passes)
        elif rig.asked is not None and move == "hears":
            rig.reply(board.execute(rig.asked.request, rig.now))
        elif rig.asked is not None and move == "loses":
            rig.reply(StoreLost("gone"))
        elif move == "overrides" and not rng.randrange(5):
            action = rng.choice(("open", "close", "reset"))
            rig.override(action, rng.choice((None, 0.0, 5.0)) if action == "open" else None)


# ---- and in worlds and fleets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
def test_a_world_whose_engine_shares_its_circuit_is_judged_rightly(level: Level) -> None:
    world = World(RemoteEngineConfig((shop(),), cluster=CLUSTER), level=level)
    moves: list[str] = []
    boards: list[Publish] = []

    class Listener:
        def observed(self, event: Event, effects: Sequence[Effect], now: float, unix_now: float) -> None:
            for each in effects:
                if isinstance(each, AskStore) and isinstance(each.request, Publish):
                    boards.append(each.request)
                elif getattr(each, "kind", "") == "circuit":
                    moves.append(getattr(each, "detail", {})["reason"])

    world.watch(Listener())

    def tell(report: bytes) -> None:
        world.store_way("other").ask(Publish(boards[0].key, "other", report, 20.0), lambda reply: None)

    for number in range(40):
        world.call(CallerPlan(number, number * 0.5, "chat", f"prompt {number}"))
    world.clock.call_later(3.0, lambda: tell(said(1, 8.0)))
    world.clock.call_later(7.0, lambda: tell(said(1, 4.0, other=1)))
    world.disturb(Faults(0, 12.0, 3.0, "one.test", ((Status(500), 1.0),)))
    world.run()
    world.run(30.0)
    world.call(CallerPlan(99, 0.0, "chat", "is it over?"))
    world.run()
    assert moves == ["shared_open", "shared_closed", "failure_threshold", "open_duration", "success_threshold"]


def weather_of(fleet: Fleet) -> Weather:
    return fleet.provider._weather


def test_a_fleet_that_shares_its_circuit_can_be_judged() -> None:
    sells = deployment(
        breaker=BREAKER | {"failure_threshold": 25},
        retry={"max_retries": 0},
        serving={"on_circuit_open": "wait", "queue_timeout": 600.0},
        limits={"requests_per_minute": 300, "window": 4.0},
    )
    fleet = Fleet(sells, CLUSTER, processes=3, callers=12, shares=(10, 1, 1))
    moves: list[tuple[int, str]] = []
    for number, node in enumerate(fleet.nodes):
        model = CircuitModel(node.core)

        class Listener:
            def __init__(self, number: int) -> None:
                self.number = number

            def observed(self, event: Event, effects: Sequence[Effect], now: float, unix_now: float) -> None:
                moves.extend(
                    (self.number, getattr(each, "detail", {})["reason"])
                    for each in effects
                    if getattr(each, "kind", "") == "circuit"
                )

        node.core.observers = (model, Listener(number))

    outage = Faults(0, 5.0, 6.0, "one.test", ((Status(500), 1.0),))

    def meanwhile(these: Fleet) -> None:
        these.clock.call_at(5.0, lambda: weather_of(these).begin(outage))
        these.clock.call_at(11.0, lambda: weather_of(these).end(outage))

    fleet.run(12, meanwhile=meanwhile)
    assert {reason for _, reason in moves} >= {"failure_threshold", "shared_open", "success_threshold"}
    assert "failure_threshold" not in {reason for number, reason in moves if number}
    assert all(node.core.roster.circuits[0].breaker.opened_at is None for node in fleet.nodes)


# ---- engines that are wrong -----------------------------------------------------------------------------------------


def test_an_opening_that_was_not_heard_of(monkeypatch: Patch) -> None:
    monkeypatch.setattr(SharedCircuit, "_heed", lambda self, name, number, left, others: self._open("shared_open", 5.0))
    world = listening()
    with breaks(15, "went from closed to open (shared_open), and should have gone nowhere"):
        world.hear(a=said(0, 0.0))


def test_an_opening_that_is_not_heeded(monkeypatch: Patch) -> None:
    monkeypatch.setattr(SharedCircuit, "_heed", lambda *arguments: None)
    world = listening()
    with breaks(15, "should have gone from closed to open (shared_open), and nobody was told"):
        world.hear(a=said(1, 5.0))


def test_an_opening_that_is_heeded_twice(monkeypatch: Patch) -> None:
    world = listening()
    world.hear(a=said(1, 5.0))
    world.override("close")
    heard = world.core.roster.circuits[0].breaker
    assert isinstance(heard, SharedCircuit)
    heard._heard.clear()
    with breaks(15, "should have gone nowhere"):
        world.hear(a=said(1, 4.0))


def test_an_opening_that_is_heeded_for_longer_than_is_left_of_it(monkeypatch: Patch) -> None:
    heed = SharedCircuit._heed

    def wrong(self: SharedCircuit, name: str, number: int, left: float, others: Mapping[str, Any]) -> None:
        heed(self, name, number, left + 1.0, others)

    monkeypatch.setattr(SharedCircuit, "_heed", wrong)
    world = listening()
    with breaks(15, "is open for another time than it should be"):
        world.hear(a=said(1, 5.0))


def test_a_turn_that_is_taken_at_once(monkeypatch: Patch) -> None:
    monkeypatch.setattr(SharedCircuit, "_turn", lambda self, opener, others: 0)
    world = listening()
    with breaks(15, "is open for another time than it should be"):
        world.hear(a=said(1, 5.0))


def test_a_verdict_that_is_not_taken_back(monkeypatch: Patch) -> None:
    monkeypatch.setattr(SharedCircuit, "_take_back", lambda self: None)
    world = listening()
    world.hear(a=said(1, 5.0))
    with breaks(15, "should have gone from open to closed (shared_closed), and nobody was told"):
        world.hear(b=said(0, 0.0, a=1))


def test_its_own_finding_taken_back_by_others(monkeypatch: Patch) -> None:
    monkeypatch.setattr(SharedCircuit, "_take_back", lambda self: self._close("shared_closed"))
    world = own_opening()
    world.hear(a=said(1, 30.0))
    with breaks(15, "went from open to closed (shared_closed), and should have gone nowhere"):
        world.hear(b=said(0, 0.0, a=1))


def test_a_verdict_that_goes_round_in_circles(monkeypatch: Patch) -> None:
    monkeypatch.setattr("sansio.cluster.shared_circuit._FOUND", ("failure_threshold", "probe_failed", "shared_open"))
    world = listening()
    with breaks(15, "tells of opening 1 with "):
        world.hear(a=said(1, 5.0))
        world.hear()


def test_an_order_that_is_told_to_others(monkeypatch: Patch) -> None:
    def wrong(self: SharedCircuit, duration: float | None, now: float) -> None:
        CircuitBreaker.force_open(self, duration, now)
        self._opening += 1
        self._found_until = self._stands_until = self._retry_at

    monkeypatch.setattr(SharedCircuit, "force_open", wrong)
    world = listening()
    world.override("open", 20.0)
    with breaks(15, "tells of opening 1 with "):
        world.hear()
        world.hear()


@pytest.mark.parametrize(
    ("question", "words"),
    [
        (lambda self, now, unix_now: Publish(self._key, self._member, b"well?", 9.0), "tells what nobody can read"),
        (lambda self, now, unix_now: Swap(self._key, 0, None, 9.0), "asks the store something else"),
    ],
)
def test_a_question_about_something_else(monkeypatch: Patch, question: Any, words: str) -> None:
    monkeypatch.setattr(SharedCircuit, "exchange", question)
    with breaks(15, words):
        listening()
