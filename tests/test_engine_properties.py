"""`sansio.engine` under random facts: the invariants of the specification, section 5, after every single one.

The world and its naive model are in `engine_world`, the walk in `engine_walk`. Here worlds are walked at random, walked
again to show that nothing depends on chance or on the process, and handed to Hypothesis, which shrinks what it finds.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from engine_walk import walk
from engine_world import World
from engine_world_parts import CLOCK_STEPS, ESTIMATES, FAILURES, HEADERS, HINTS, LIVES, ROSTERS, TIMEOUTS, VERDICTS
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

SEEDS = range(8)


@pytest.mark.parametrize("roster", ROSTERS)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_long_walk_keeps_every_invariant_and_heals(roster: str, seed: int) -> None:
    world = walk(roster, seed, 800)
    if seed % 4 == 1:
        world.drain()
    elif seed % 4 == 2:
        world.close()
    world.heal()


def test_the_walks_go_everywhere() -> None:
    """A walk that meets no outage, or lets nothing through, would keep every invariant too."""
    seen: dict[str, int] = {}
    for roster in ROSTERS:
        for seed in SEEDS:
            metrics = walk(roster, seed, 800).engine.metrics()
            outcomes = {"done": metrics.done, "cancelled": metrics.cancelled, "rejected": metrics.rejected}
            for counts in (outcomes, metrics.retries, metrics.failures, metrics.circuit_transitions):
                for name, count in counts.items():
                    seen[name] = seen.get(name, 0) + count
    refusals = ("circuit_open", "deadline_exceeded", "backpressure", "budget_exceeded", "limit_exceeded", "unauthorized")
    troubles = ("server_error", "rate_limited", "stream_interrupted", "half_open->open", "half_open->closed")
    for name in (*refusals, *troubles, "stale_connection"):
        assert seen[name] >= 10, f"{name}: {seen}"
    assert seen["done"] >= 500 and seen["cancelled"] >= 100


@pytest.mark.parametrize("roster", ROSTERS)
def test_the_same_seed_and_facts_give_the_same_orders(roster: str) -> None:
    assert walk(roster, 42, 500).trace == walk(roster, 42, 500).trace


def test_and_so_they_do_whatever_the_hash_seed_of_the_process() -> None:
    program = "import engine_walk as e, engine_world_parts as p\nfor name in p.ROSTERS: print(e.walk(name, 7, 500).digest())"
    here = [walk(name, 7, 500).digest() for name in ROSTERS]
    for hash_seed in ("0", "1", "4242"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        run = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=100
        )
        assert run.stdout.split() == here


NUMBER = st.integers(0, 7)
"""Which of several: the smallest is the latest thing that a shrunk example still needs."""


def one_of(choices: Any) -> st.SearchStrategy[int]:
    return st.integers(0, len(choices) - 1)


class Facts(RuleBasedStateMachine):
    """Any facts in any order. What is known is checked by `World`; here is only which facts there are."""

    world: World

    @initialize(roster=st.sampled_from(list(ROSTERS)), seed=st.integers(0, 9))
    def begin(self, roster: str, seed: int) -> None:
        self.world = World(roster, seed)
        self.roster, self.seed = roster, seed
        self.steps: list[tuple[str, tuple[Any, ...]]] = []

    def do(self, name: str, *arguments: Any) -> None:
        self.steps.append((name, arguments))
        getattr(self.world, name)(*arguments)

    @rule(
        lane=NUMBER,
        priority=st.integers(0, 3),
        tenant=st.integers(0, 2),
        timeout=one_of(TIMEOUTS),
        wait=st.integers(0, 2),
        estimate=st.integers(0, len(ESTIMATES) + 2),
        times=st.integers(1, 6),
    )
    def submit(self, lane: int, priority: int, tenant: int, timeout: int, wait: int, estimate: int, times: int) -> None:
        for _ in range(times):
            self.do("submit", lane, priority, tenant, timeout, estimate, wait)

    @rule(which=NUMBER, life=one_of(LIVES), same=st.booleans())
    @precondition(lambda self: self.world.refreshing)
    def refreshed(self, which: int, life: int, same: bool) -> None:
        self.do("refreshed", which, life, same)

    @rule(which=NUMBER)
    @precondition(lambda self: self.world.refreshing)
    def refresh_failed(self, which: int) -> None:
        self.do("refresh_failed", which)

    @rule(which=NUMBER)
    def refresh_repeated(self, which: int) -> None:
        self.do("refresh_repeated", which)

    @rule(which=NUMBER)
    @precondition(lambda self: self.world.running)
    def send(self, which: int) -> None:
        self.do("send", which)

    @rule(which=NUMBER, headers=one_of(HEADERS))
    @precondition(lambda self: self.world.running)
    def head(self, which: int, headers: int) -> None:
        self.do("head", which, headers)

    @rule(which=NUMBER)
    @precondition(lambda self: self.world.running)
    def commit(self, which: int) -> None:
        self.do("commit", which)

    @rule(which=NUMBER, usage=st.integers(0, 2))
    @precondition(lambda self: self.world.running)
    def end_well(self, which: int, usage: int) -> None:
        self.do("end_well", which, usage)

    @rule(which=NUMBER, failure=one_of(FAILURES), hint=one_of(HINTS), verdict=one_of(VERDICTS))
    @precondition(lambda self: self.world.running)
    def end_badly(self, which: int, failure: int, hint: int, verdict: int) -> None:
        self.do("end_badly", which, failure, hint, verdict)

    @rule(which=NUMBER, how=st.integers(0, 8))
    @precondition(lambda self: self.world.running)
    def lose(self, which: int, how: int) -> None:
        self.do("lose", which, how)

    @rule(which=NUMBER, failure=st.sampled_from([1, 2, 4]))
    @precondition(lambda self: self.world.running)
    def outage(self, which: int, failure: int) -> None:
        for _ in range(4):
            self.do("end_badly", which, failure, 0, 0)

    @rule(which=st.integers(0, 40), twice=st.booleans())
    def cancel(self, which: int, twice: bool) -> None:
        self.do("cancel", which, twice)

    @rule(which=NUMBER, usage=st.integers(0, 1))
    @precondition(lambda self: self.world.unreported)
    def report_called_off(self, which: int, usage: int) -> None:
        self.do("report_called_off", which, usage)

    @rule(which=NUMBER, what=st.integers(0, 2))
    @precondition(lambda self: self.world.past)
    def repeat(self, which: int, what: int) -> None:
        self.do("repeat", which, what)

    @rule(lane=NUMBER)
    def rebuild(self, lane: int) -> None:
        self.do("rebuild", lane)

    @rule(lane=NUMBER, action=st.integers(0, 2), seconds=st.sampled_from([0.0, 1.0, 15.0, 100.0]))
    def override(self, lane: int, action: int, seconds: float) -> None:
        self.do("override", lane, action, seconds)

    @rule(step=one_of(CLOCK_STEPS), tick=st.booleans())
    def let_pass(self, step: int, tick: bool) -> None:
        self.do("let_pass", step)
        if tick:
            self.do("tick")

    @rule(early=st.booleans())
    def tick_at_deadline(self, early: bool) -> None:
        self.do("tick_at_deadline", early)

    @rule(seconds=st.sampled_from([0.001, 1.0, 500.0]))
    def clock_back(self, seconds: float) -> None:
        self.do("clock_back", seconds)

    @rule(seconds=st.sampled_from([-100.0, -1.0, 3.0, 3_600.0]))
    def wall_clock_jumps(self, seconds: float) -> None:
        self.do("wall_clock_jumps", seconds)

    @rule(how=st.sampled_from(["drain", "close"]))
    @precondition(lambda self: len(self.steps) > 20)
    def end(self, how: str) -> None:
        self.do(how)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            again = World(self.roster, self.seed)
            for name, arguments in self.steps:
                getattr(again, name)(*arguments)
            assert again.trace == self.world.trace, "1: the same facts give the same orders"
            self.world.heal()


TestFacts = Facts.TestCase
TestFacts.settings = settings(stateful_step_count=50)
