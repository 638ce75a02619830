"""`sansio.cluster.shared_circuit`: what one process finds of an endpoint, others need not find out again."""

from __future__ import annotations

import heapq
import json
import math
import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from engine_harness import BATCH, USAGE, deployment
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sansio.circuit_breaker import (
    CircuitBreakerConfig,
    CircuitPermit,
    CircuitRejection,
    CircuitState,
    CircuitTransition,
    Outcome,
)
from sansio.cluster.config import ClusterConfig
from sansio.cluster.shared_circuit import SharedCircuit
from sansio.cluster.store import Publish, Published, StoreLost, StoreReply, StoreRequest, Swapped
from sansio.deployment import Deployment, RemoteEngineConfig
from sansio.engine import RemoteEngineCore
from sansio.errors import CircuitOpen, InferenceError, ServerError
from sansio.events import (
    AskStore,
    AttemptEnded,
    Cancel,
    CircuitAction,
    Close,
    Complete,
    Drained,
    Effect,
    Event,
    Notice,
    OverrideCircuit,
    RefreshSession,
    SessionReport,
    StartAttempt,
    StoreReport,
    Tick,
)
from sansio.lane import Circuit
from sansio.secret import Credential
from sansio.sharing import Roster, build_roster

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
INTERVAL = 1.0
CONFIG = CircuitBreakerConfig(failure_threshold=2, open_duration=30.0, max_open_duration=100.0)

Report = tuple[int, float, dict[str, int]]


class Machine:
    """A `SharedCircuit` and short words for what is done with it. It is asked nothing by itself."""

    def __init__(self, member: str = "m", config: CircuitBreakerConfig = CONFIG) -> None:
        self.in_use = False
        self.circuit = SharedCircuit(config, key="board", member=member, interval=INTERVAL, in_use=lambda: self.in_use)

    def fail(self, now: float, times: int = 2) -> None:
        """So many requests are sent, one after the other, and fail."""
        for _ in range(times):
            self.report(now, Outcome.FAILURE)

    def succeed(self, now: float) -> None:
        self.report(now, Outcome.SUCCESS)

    def report(self, now: float, outcome: Outcome) -> None:
        permit = self.circuit.acquire(now)
        assert isinstance(permit, CircuitPermit)
        self.circuit.record(permit, outcome, now)

    def ask(self, now: float) -> Publish:
        question = self.circuit.exchange(now, 0.0)
        assert isinstance(question, Publish)
        return question

    def say(self, now: float) -> Report:
        """What it says when it is asked now."""
        opening, left, ends = json.loads(self.ask(now).report)
        return opening, left, ends

    def hear(self, now: float, age: float = 0.0, **reports: Report) -> None:
        """It asks, and this stands on the board."""
        self.hear_all(now, reports, age)

    def hear_all(self, now: float, reports: Mapping[str, Report], age: float = 0.0) -> None:
        self.ask(now)
        board = {name: (age, json.dumps(report).encode()) for name, report in reports.items()}
        self.circuit.exchanged(Published(board, 0.0), now, 0.0)

    def state(self, now: float) -> CircuitState:
        return self.circuit.state(now)

    def open_until(self, now: float) -> float:
        assert self.state(now) is OPEN
        until = self.circuit.deadline()
        assert until is not None
        return until

    def reasons(self) -> list[str]:
        return [transition.reason for transition in self.circuit.drain_transitions()]


# What it says.


def test_who_has_found_nothing_says_so() -> None:
    question = Machine().ask(0.0)
    assert question == Publish("board", "m", b"[0,0.0,{}]", 10.0)


def test_what_it_found_is_said_at_once_with_what_is_left_of_it() -> None:
    machine = Machine()
    machine.ask(0.0)
    machine.fail(0.25)
    assert (machine.circuit.exchange_at() or 0.0) <= 0.25
    question = machine.ask(0.25)
    assert json.loads(question.report) == [1, 30.0, {}]
    assert question.ttl == 40.0  # as long as anybody may need to hear of it
    assert machine.say(10.25) == (1, 20.0, {})
    assert machine.say(40.0) == (1, 0.0, {})


def test_openings_are_numbered() -> None:
    machine = Machine(config=CircuitBreakerConfig(failure_threshold=2, open_duration=30.0, open_multiplier=2.0))
    machine.fail(0.0)
    machine.fail(30.0, times=1)
    assert machine.say(40.0) == (2, 50.0, {})


def test_a_probe_that_succeeds_ends_every_opening_it_knows_of() -> None:
    machine = Machine()
    machine.fail(0.0)
    machine.hear(1.0, other=(7, 20.0, {}), third=(3, 25.0, {}), over=(5, 0.0, {}))
    machine.succeed(30.0)
    assert (machine.circuit.exchange_at() or 0.0) <= 30.0
    question = machine.ask(30.0)
    assert json.loads(question.report) == [1, 0.0, {"other": 7, "third": 3, "m": 1}]
    assert question.ttl == 10.0
    assert machine.say(35.99) == (1, 0.0, {"third": 3, "m": 1}), "nobody can be open for the other's any more"
    assert machine.say(40.0) == (1, 0.0, {})


def test_also_an_opening_that_it_only_heard_of() -> None:
    machine = Machine()
    machine.hear(0.0, other=(7, 20.0, {}))
    machine.succeed(22.0)
    assert machine.say(22.0) == (0, 0.0, {"other": 7})


def test_but_none_of_long_ago() -> None:
    machine = Machine()
    machine.hear(0.0, other=(7, 20.0, {}))
    machine.succeed(30.0)
    assert machine.say(30.0) == (0, 0.0, {})
    assert machine.circuit.exchange_at() is None


def test_what_it_ended_is_said_on_though_it_opens_and_closes_again() -> None:
    machine = Machine(config=CircuitBreakerConfig(failure_threshold=2, open_duration=1.0))
    machine.fail(0.0)
    machine.hear(0.0, other=(7, 5.0, {}))
    machine.succeed(7.0)
    machine.hear(7.0, third=(4, 1.0, {}))
    machine.succeed(9.0)
    assert machine.say(9.0) == (1, 0.0, {"other": 7, "m": 1, "third": 4})
    machine.circuit.force_open(0.5, 9.5)
    machine.succeed(10.0)
    assert machine.say(10.0) == (1, 0.0, {"other": 7, "m": 1, "third": 4})
    machine.fail(10.0)
    machine.succeed(11.0)
    assert machine.say(14.0) == (2, 0.0, {"other": 7, "m": 2, "third": 4})
    assert machine.say(20.0) == (2, 0.0, {"m": 2})


def test_what_was_heard_is_not_said_on() -> None:
    machine = Machine()
    machine.hear(0.0, other=(7, 20.0, {}))
    assert machine.state(0.0) is OPEN
    assert machine.circuit.exchange_at() is None
    assert machine.say(1.0) == (0, 0.0, {})
    machine.hear(2.0, third=(1, 0.0, {"other": 7}))
    assert machine.state(2.0) is CLOSED
    assert machine.circuit.exchange_at() is None
    assert machine.say(3.0) == (0, 0.0, {})


def test_what_is_found_after_something_was_heard_is_said() -> None:
    machine = Machine()
    machine.hear(0.0, other=(7, 20.0, {}))
    machine.fail(22.0, times=1)
    assert machine.reasons() == ["shared_open", "open_duration", "probe_failed"]
    assert machine.say(22.0) == (1, 30.0, {})


# What it heeds.


def test_an_opening_of_somebody_else_opens_it_for_the_rest_and_a_turn() -> None:
    machine = Machine()
    machine.hear(5.0, age=4.0, other=(7, 20.0, {}))
    assert machine.open_until(5.0) == 5.0 + 16.0 + 2.0
    assert machine.circuit.opened_at == 5.0
    assert machine.circuit.drain_transitions() == [CircuitTransition(CLOSED, OPEN, 5.0, "shared_open")]
    assert isinstance(machine.circuit.acquire(22.9), CircuitRejection)
    assert isinstance(machine.circuit.acquire(23.0), CircuitPermit)


@pytest.mark.parametrize(("before", "turn"), [(0, 1), (1, 2), (2, 2), (3, 3), (6, 3), (7, 4), (14, 4), (15, 5), (30, 5)])
def test_turns_are_taken_by_one_then_two_then_four(before: int, turn: int) -> None:
    machine = Machine("m")
    board: dict[str, Report] = {f"{number:02}": (0, 0.0, {}) for number in range(before)}
    machine.hear_all(0.0, board | {"a": (1, 20.0, {}), "z": (0, 0.0, {})})
    assert machine.open_until(0.0) == 20.0 + 2.0 * turn


def test_all_of_32_processes_have_their_turn_within_ten_intervals_of_the_end_and_few_at_once() -> None:
    names = [f"{number:02}" for number in range(32)]
    board: dict[str, Report] = {name: (1, 20.0, {}) if name == "17" else (0, 0.0, {}) for name in names}
    ends: list[float] = []
    for name in names[:17] + names[18:]:
        machine = Machine(name)
        machine.hear_all(0.0, board)
        ends.append(machine.open_until(0.0) - 20.0)
    assert {end: ends.count(end) for end in ends} == {2.0: 1, 4.0: 2, 6.0: 4, 8.0: 8, 10.0: 16}


def test_the_turns_of_a_short_opening_are_short() -> None:
    machine = Machine()
    machine.hear(0.0, other=(1, 0.5, {}))
    assert machine.open_until(0.0) == 1.0


def test_an_opening_is_heeded_once() -> None:
    machine = Machine()
    for now in (0.0, 1.0, 5.0):
        machine.hear(now, other=(7, 20.0, {}))
        assert machine.open_until(now) == 22.0
    machine.succeed(22.0)
    for number in (7, 6, 0):
        machine.hear(23.0, other=(number, 20.0, {}))
        assert machine.state(23.0) is CLOSED
    machine.hear(24.0, other=(8, 20.0, {}))
    assert machine.state(24.0) is OPEN


def test_also_one_that_was_over_when_it_was_heard_of() -> None:
    machine = Machine()
    machine.hear(0.0, age=20.0, other=(7, 20.0, {}))
    assert machine.state(0.0) is CLOSED
    machine.hear(1.0, age=0.0, other=(7, 20.0, {}))
    assert machine.state(1.0) is CLOSED
    machine.hear(2.0, other=(6, 0.0, {"other": 6}), third=(8, 0.0, {}))
    assert machine.state(2.0) is CLOSED


def test_the_longer_one_of_two_counts() -> None:
    machine = Machine()
    machine.hear(0.0, a=(1, 20.0, {}))
    machine.hear(1.0, b=(1, 25.0, {}))
    assert machine.open_until(1.0) == 28.0
    machine.hear(2.0, c=(1, 10.0, {}))
    assert machine.open_until(2.0) == 28.0


def test_a_half_open_one_is_opened_again_and_its_probes_count_no_more() -> None:
    machine = Machine()
    machine.fail(0.0)
    probe = machine.circuit.acquire(30.0)
    assert isinstance(probe, CircuitPermit)
    machine.hear(31.0, other=(1, 20.0, {}))
    assert machine.open_until(31.0) == 53.0
    machine.circuit.record(probe, Outcome.SUCCESS, 32.0)
    assert machine.open_until(32.0) == 53.0
    assert machine.reasons() == ["failure_threshold", "open_duration", "shared_open"]


def test_none_opens_it_for_longer_than_it_would_open_itself() -> None:
    machine = Machine()
    machine.hear(0.0, other=(1, 1e300, {}))
    assert machine.open_until(0.0) == 102.0
    machine = Machine(config=CircuitBreakerConfig(open_duration=500.0))
    machine.hear(0.0, other=(1, 1e300, {}))
    assert machine.open_until(0.0) == 502.0


def test_who_opened_longer_than_the_others_is_not_kept_open_by_them_and_probes_first() -> None:
    machine = Machine()
    machine.fail(0.0)
    machine.hear(1.0, other=(1, 29.0, {}))
    assert machine.open_until(1.0) == 30.0
    machine.hear(2.0, third=(1, 28.5, {}))
    assert machine.open_until(2.0) == 32.5
    assert machine.say(2.0) == (1, 28.0, {}), "it says what it found itself"


@pytest.mark.parametrize(
    ("age", "until"), [(-5.0, 22.0), (math.nan, 22.0), (0.0, 22.0), (5.0, 17.0), (math.inf, None), (1e300, None)]
)
def test_an_absurd_age_does_no_harm(age: float, until: float | None) -> None:
    machine = Machine()
    machine.hear(0.0, age=age, other=(1, 20.0, {}))
    if until is None:
        assert machine.state(0.0) is CLOSED
    else:
        assert machine.open_until(0.0) == until


GARBAGE = [
    b"",
    b"{}",
    b"[]",
    b"[1,30.0]",
    b"[1,30.0,{}",
    b"\xff\xfe",
    b'["\xff",30.0,{}]',
    b'["1",30.0,{}]',
    b"[true,30.0,{}]",
    b"[1.5,30.0,{}]",
    b"[-1,30.0,{}]",
    b"[1,-30.0,{}]",
    b"[1,1e999,{}]",
    b"[1,NaN,{}]",
    b"[1,null,{}]",
    b'[1,"30",{}]',
    b"[9007199254740993,30.0,{}]",
    b"[1" + b"0" * 5000 + b",30.0,{}]",
    b"[1,30.0,[]]",
    b'[1,30.0,{"a":-1}]',
    b'[1,30.0,{"a":"1"}]',
    b'[1,30.0,{"a":1e3}]',
    b'[1,30.0,{"\xff":1}]',
    b"[1,30.0,{},".ljust(200_000, b"["),
    b"[" * 200_000,
]


@pytest.mark.parametrize("text", GARBAGE, ids=[f"{number}-{text[:12]!r}" for number, text in enumerate(GARBAGE)])
def test_what_cannot_be_read_is_not_heeded(text: bytes) -> None:
    machine = Machine()
    machine.ask(0.0)
    board = {"bad": (0.0, text), "good": (0.0, b"[1,20.0,{}]"), "": (0.0, text)}
    machine.circuit.exchanged(Published(board, 0.0), 0.0, 0.0)
    assert machine.reasons() == ["shared_open"]
    assert machine.open_until(0.0) == 22.0, "not among those who take turns either"


def test_fields_that_later_versions_may_add_are_passed_over() -> None:
    machine = Machine()
    machine.ask(0.0)
    machine.circuit.exchanged(Published({"new": (0.0, b'[1,20,{},"more"]')}, 0.0), 0.0, 0.0)
    assert machine.open_until(0.0) == 22.0


def test_its_own_report_says_nothing_to_it() -> None:
    machine = Machine("m")
    machine.hear(0.0, m=(9, 20.0, {}), other=(0, 0.0, {"m": 9}))
    assert machine.state(0.0) is CLOSED
    machine.fail(1.0)
    machine.hear(2.0, m=(1, 20.0, {"m": 1}), other=(0, 0.0, {"m": 1}))
    assert machine.open_until(2.0) == 31.0
    assert machine.say(3.0) == (1, 28.0, {})


@pytest.mark.parametrize("reply", [StoreLost("gone"), Swapped(True, 1, b"[1,20.0,{}]", 0.0)])
def test_no_answer_changes_nothing(reply: StoreReply) -> None:
    machine = Machine()
    machine.hear(0.0, other=(1, 20.0, {}))
    machine.ask(1.0)
    machine.circuit.exchanged(reply, 1.5, 0.0)
    assert machine.open_until(2.0) == 22.0
    assert machine.state(22.0) is HALF_OPEN
    machine.succeed(22.0)
    machine.ask(23.0)
    machine.circuit.exchanged(reply, 23.0, 0.0)
    assert machine.state(23.0) is CLOSED


def test_clocks_that_go_back_count_as_standing_still() -> None:
    machine = Machine()
    machine.fail(100.0)
    assert machine.say(50.0) == (1, 30.0, {})
    machine.hear(60.0, other=(1, 40.0, {}))
    assert machine.open_until(70.0) == 142.0
    assert machine.say(10.0) == (1, 30.0, {})
    assert (machine.circuit.exchange_at() or 0.0) <= 101.0


def test_an_opening_that_nobody_speaks_of_any_more_is_forgotten_in_the_end() -> None:
    """When the longest that it could have lasted has passed: until then it may be on its way."""
    machine = Machine()
    machine.hear(0.0, other=(7, 20.0, {}), spoken_of=(3, 20.0, {}), ended=(0, 0.0, {"third": 5}))
    machine.succeed(30.0)
    machine.hear(100.0, spoken_of=(3, 20.0, {}))
    machine.hear(109.9, spoken_of=(3, 20.0, {}), other=(7, 20.0, {}), third=(5, 20.0, {}))
    machine.hear(219.0)
    machine.hear(219.8, spoken_of=(3, 20.0, {}), other=(7, 20.0, {}), third=(5, 20.0, {}))
    machine.hear(329.7, spoken_of=(3, 20.0, {}))
    assert machine.reasons() == ["shared_open", "open_duration", "success_threshold"]
    machine.hear(329.8, spoken_of=(3, 20.0, {}))
    machine.hear(330.0, spoken_of=(3, 20.0, {}))
    assert machine.state(330.0) is CLOSED
    machine.hear(331.0, third=(5, 20.0, {}))
    assert machine.state(331.0) is OPEN


# What is over.


@pytest.mark.parametrize("now", [10.0, 21.0, 22.0, 40.0])
def test_what_others_probes_found_to_be_over_is_over(now: float) -> None:
    """While it is open, in the time until its turn, and while it probes."""
    machine = Machine()
    machine.hear(0.0, other=(7, 20.0, {}))
    before = machine.circuit.acquire(now)
    machine.hear(now, third=(0, 0.0, {"other": 7}))
    assert machine.state(now) is CLOSED
    assert machine.reasons()[-1] == "shared_closed"
    if isinstance(before, CircuitPermit):
        machine.circuit.record(before, Outcome.FAILURE, now)
    machine.fail(now, times=1)
    assert machine.state(now) is CLOSED


def test_whoever_opened_may_say_so_too_and_open_again() -> None:
    machine = Machine()
    machine.hear(0.0, other=(7, 20.0, {}))
    machine.hear(10.0, other=(7, 0.0, {"other": 7}))
    assert machine.state(10.0) is CLOSED
    machine.hear(11.0, other=(8, 20.0, {"other": 7}))
    assert machine.open_until(11.0) == 33.0
    assert machine.reasons() == ["shared_open", "shared_closed", "shared_open"]


def test_one_that_opens_again_before_its_closing_is_heard_of_keeps_it_open() -> None:
    machine = Machine()
    machine.hear(0.0, other=(7, 20.0, {}))
    machine.hear(11.0, other=(8, 5.0, {"other": 7}))
    assert machine.reasons() == ["shared_open"]
    assert machine.open_until(11.0) == 18.0, "and no longer than it says now"


@pytest.mark.parametrize("ends", [{"other": 6}, {"somebody": 7}, {"m": 7}, {}])
def test_what_is_said_of_other_openings_closes_nothing(ends: dict[str, int]) -> None:
    machine = Machine()
    machine.hear(0.0, other=(7, 20.0, {}))
    machine.hear(1.0, third=(1, 0.0, ends))
    assert machine.open_until(1.0) == 22.0


def test_an_opening_that_is_over_opens_nobody() -> None:
    machine = Machine()
    machine.hear(0.0, a=(7, 20.0, {}), b=(0, 0.0, {"a": 7}))
    machine.hear(1.0, c=(7, 20.0, {}), b=(0, 0.0, {"c": 8}))
    machine.hear(2.0, c=(8, 20.0, {}), b=(0, 0.0, {}))
    assert machine.reasons() == []


def test_while_one_of_several_stands_it_stays_open_for_that_one() -> None:
    machine = Machine()
    machine.hear(0.0, a=(1, 50.0, {}), b=(1, 20.0, {}), c=(1, 30.0, {}))
    assert machine.open_until(0.0) == 54.0
    machine.hear(1.0, a=(1, 50.0, {"a": 1}), b=(1, 20.0, {}), c=(1, 30.0, {}))
    assert machine.open_until(1.0) == 34.0
    machine.hear(2.0, d=(0, 0.0, {"b": 1}))
    assert machine.open_until(2.0) == 34.0
    machine.hear(3.0, d=(0, 0.0, {"b": 1, "c": 1}))
    assert machine.state(3.0) is CLOSED


def test_one_that_is_over_by_time_keeps_nobody_from_closing() -> None:
    machine = Machine()
    machine.hear(0.0, a=(1, 20.0, {}), b=(1, 50.0, {}))
    machine.hear(20.0, b=(1, 0.0, {"b": 1}))
    assert machine.state(20.0) is CLOSED


def test_what_it_found_itself_stands() -> None:
    machine = Machine()
    machine.fail(0.0)
    machine.hear(1.0, other=(7, 60.0, {}))
    assert machine.open_until(1.0) == 63.0
    machine.hear(10.0, other=(7, 0.0, {"other": 7, "m": 1}))
    assert machine.open_until(10.0) == 30.0
    assert machine.state(30.0) is HALF_OPEN
    machine.hear(31.0, third=(7, 0.0, {"other": 7, "m": 1}))
    assert machine.state(31.0) is HALF_OPEN


def test_also_while_it_probes() -> None:
    machine = Machine()
    machine.fail(0.0)
    machine.hear(1.0, other=(7, 20.0, {}))
    assert machine.state(30.0) is HALF_OPEN
    machine.hear(31.0, other=(7, 0.0, {"other": 7}))
    assert machine.state(31.0) is HALF_OPEN
    machine.fail(32.0, times=1)
    assert machine.open_until(32.0) == 62.0


def test_what_it_found_itself_is_for_its_own_probes_to_revise_when_the_others_take_theirs_back() -> None:
    machine = Machine()
    machine.fail(0.0)
    machine.hear(1.0, other=(7, 60.0, {}))
    machine.hear(40.0, other=(7, 0.0, {"other": 7}))
    assert machine.state(40.0) is HALF_OPEN
    assert machine.circuit.drain_transitions()[-1] == CircuitTransition(OPEN, HALF_OPEN, 40.0, "open_duration")
    machine.succeed(40.0)
    assert machine.state(40.0) is CLOSED


def test_what_others_say_later_is_taken_back_alone() -> None:
    machine = Machine()
    machine.fail(0.0)
    machine.hear(31.0, other=(7, 20.0, {}))
    assert machine.reasons() == ["failure_threshold", "open_duration", "shared_open"]
    machine.hear(32.0, other=(7, 0.0, {"other": 7}))
    assert machine.reasons() == ["open_duration"]


# Operators.


def test_what_an_operator_orders_is_not_said() -> None:
    machine = Machine()
    machine.circuit.force_open(50.0, 0.0)
    assert machine.circuit.exchange_at() is None
    assert machine.say(1.0) == (0, 0.0, {})
    machine.circuit.force_closed(2.0)
    assert machine.circuit.exchange_at() is None
    assert machine.say(3.0) == (0, 0.0, {})


@pytest.mark.parametrize(("duration", "until"), [(10.0, 11.0), (90.0, 91.0), (None, None)])
def test_what_an_operator_orders_is_not_shortened_by_others(duration: float | None, until: float | None) -> None:
    machine = Machine()
    machine.hear(0.0, other=(7, 20.0, {}))
    machine.circuit.force_open(duration, 1.0)
    machine.hear(2.0, other=(7, 0.0, {"other": 7}))
    assert machine.state(2.0) is OPEN
    assert machine.circuit.deadline() == until


def test_an_operator_does_not_shorten_what_stands_either() -> None:
    machine = Machine()
    machine.fail(0.0)
    machine.circuit.force_open(5.0, 1.0)
    machine.hear(2.0, other=(7, 60.0, {}))
    machine.hear(3.0, other=(7, 0.0, {"other": 7}))
    assert machine.open_until(3.0) == 30.0


def test_who_is_closed_by_an_operator_takes_back_what_it_said_and_leaves_others_to_theirs() -> None:
    machine = Machine()
    machine.fail(0.0)
    machine.ask(1.0)
    machine.circuit.force_closed(2.0)
    assert machine.say(2.0) == (1, 0.0, {})


def test_what_it_was_closed_over_keeps_nobody_else_from_opening_it() -> None:
    machine = Machine()
    machine.fail(0.0)
    machine.circuit.force_closed(1.0)
    machine.hear(2.0, other=(7, 20.0, {}))
    assert machine.open_until(2.0) == 24.0


@pytest.mark.parametrize("action", ["force_closed", "reset"])
def test_an_operator_closes_it_whatever_the_others_say_but_not_for_good(action: str) -> None:
    machine = Machine()
    machine.hear(0.0, other=(7, 60.0, {}))
    getattr(machine.circuit, action)(1.0)
    machine.hear(2.0, other=(7, 58.0, {}))
    assert machine.state(2.0) is CLOSED
    machine.hear(3.0, third=(1, 20.0, {}))
    assert machine.open_until(3.0) == 25.0
    machine.hear(4.0, third=(1, 0.0, {"third": 1}), other=(7, 56.0, {}))
    assert machine.state(4.0) is CLOSED, "what it was closed over does not hold it any more"


# When it asks.


def test_nobody_who_is_idle_asks() -> None:
    machine = Machine()
    assert machine.circuit.exchange_at() is None
    machine.succeed(0.0)
    assert (machine.circuit.exchange_at() or 0.0) <= 0.0
    machine.hear(0.0)
    assert machine.circuit.exchange_at() is None
    machine.in_use = True
    assert machine.circuit.exchange_at() == 1.0
    machine.hear(1.0)
    assert machine.circuit.exchange_at() == 2.0
    machine.in_use = False
    assert machine.circuit.exchange_at() is None


def test_who_is_refused_wants_to_know_as_well() -> None:
    machine = Machine()
    machine.hear(0.0, other=(1, 20.0, {}))
    assert machine.circuit.exchange_at() is None
    assert isinstance(machine.circuit.acquire(0.5), CircuitRejection)
    assert machine.circuit.exchange_at() == 1.0


def test_news_cannot_wait_but_only_once_an_interval() -> None:
    machine = Machine(config=CircuitBreakerConfig(failure_threshold=1, open_duration=0.1))
    machine.hear(0.0)
    machine.fail(0.5, times=1)
    assert (machine.circuit.exchange_at() or 0.0) <= 0.5
    machine.hear(0.5)
    machine.succeed(0.625)
    machine.hear(0.625)  # earlier than it wanted: it carries the news, which need no question of their own any more
    assert machine.circuit.exchange_at() is None
    machine.fail(0.75, times=1)
    machine.hear(0.75)
    machine.fail(0.875, times=1)
    assert machine.circuit.exchange_at() == 1.75


def test_news_that_did_not_arrive_are_told_again_while_anybody_may_need_them() -> None:
    machine = Machine()
    machine.fail(0.0)
    for now in (0.0, 1.0, 29.0):
        machine.ask(now)
        machine.circuit.exchanged(StoreLost("gone"), now, 0.0)
        assert machine.circuit.exchange_at() == now + 1.0
    machine.ask(30.0)
    machine.circuit.exchanged(StoreLost("gone"), 30.0, 0.0)
    assert machine.circuit.exchange_at() is None
    machine.succeed(30.0)
    for now in (30.5, 39.0):
        assert machine.say(now) == (1, 0.0, {"m": 1})
        machine.circuit.exchanged(StoreLost("gone"), now, 0.0)
        assert machine.circuit.exchange_at() == now + 1.0
    assert machine.say(40.0) == (1, 0.0, {})
    machine.circuit.exchanged(StoreLost("gone"), 40.0, 0.0)
    assert machine.circuit.exchange_at() is None


def test_news_since_the_question_was_put_are_not_taken_for_told() -> None:
    machine = Machine()
    machine.ask(0.0)
    machine.fail(0.5)
    machine.circuit.exchanged(Published({}, 0.0), 0.75, 0.0)
    assert (machine.circuit.exchange_at() or 0.0) <= 0.75


# Going.


def test_who_goes_takes_its_report_off_if_it_ever_reported() -> None:
    machine = Machine()
    assert machine.circuit.leave(0.0, 0.0) is None
    machine.ask(1.0)
    farewell = machine.circuit.leave(2.0, 0.0)
    assert isinstance(farewell, Publish)
    assert (farewell.key, farewell.member, farewell.report) == ("board", "m", b"")


# Several processes, whatever becomes of their messages.

NAMES = ("p0", "p1", "p2", "p3")
FLIGHT = 3.0
"""The longest that a question or an answer is under way, but for those that are lost."""

LONGEST_TURNS = 3.0 * 2.0 * INTERVAL
"""Four processes take three turns."""

SMALL = CircuitBreakerConfig(failure_threshold=2, open_duration=8.0, open_multiplier=2.0, max_open_duration=20.0)


class Board:
    """The store: reports and when they came. Several boards by name."""

    def __init__(self) -> None:
        self.entries: dict[str, dict[str, tuple[float, float, bytes]]] = {}

    def publish(self, request: StoreRequest, now: float, unix_now: float = 0.0) -> Published:
        assert isinstance(request, Publish)
        entries = self.entries.setdefault(request.key, {})
        entries.pop(request.member, None)
        if request.report:
            entries[request.member] = (now, now + request.ttl, request.report)
        standing = {name: (now - at, report) for name, (at, until, report) in entries.items() if now < until}
        return Published(standing, unix_now)


class Life:
    """One life of one process, and what is known of it from outside."""

    def __init__(self, name: str) -> None:
        self.machine = Machine(name, SMALL)
        self.name = name
        self.stands_until = -math.inf
        """The end of what it found itself, or was ordered, since it was last closed."""
        self.asked_at: float | None = None
        self.questions: list[float] = []
        self.shared_openings = 0


class SeveralProcesses(RuleBasedStateMachine):
    """Each is told what happens by hand; questions and answers are lost, late, doubled, and overtake each other."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.lives = [Life(name) for name in NAMES]
        self.born = len(NAMES)
        self.board = Board()
        self.flying: list[tuple[float, Life, StoreRequest]] = []
        """Questions on their way: since when, whose."""
        self.answers: list[tuple[float, Life, Published]] = []
        self.found: list[tuple[str, float]] = []
        """Every opening that a process found itself: whose, and its end."""
        self.slowest_question = self.slowest_answer = 0.0

    @initialize(times=st.lists(st.integers(0, 3), min_size=4, max_size=4))
    def some_fail(self, times: list[int]) -> None:
        for life, count in zip(self.lives, times, strict=True):
            for _ in range(min(count, 2)):
                self.send(life, Outcome.FAILURE)

    # What happens.

    @rule(who=st.integers(0, 3), outcome=st.sampled_from(Outcome))
    def request(self, who: int, outcome: Outcome) -> None:
        self.send(self.lives[who], outcome)

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 3.0, 8.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + INTERVAL / 2)
            self.flying = [each for each in self.flying if self.now - each[0] <= FLIGHT]
            for at, life, answer in self.answers[:]:
                if self.now - at > FLIGHT:
                    self.answers.remove((at, life, answer))
            for life in self.lives:
                self.note(life)
                if life.asked_at is not None and self.now - life.asked_at > FLIGHT:
                    self.answer(life, StoreLost("late"))
                self.ask(life)

    @rule(pick=st.integers(0, 2**16), doubled=st.booleans())
    @precondition(lambda self: self.flying)
    def a_question_arrives(self, pick: int, doubled: bool) -> None:
        at, life, request = self.flying[pick % len(self.flying)]
        if not doubled:
            self.flying.remove((at, life, request))
        self.slowest_question = max(self.slowest_question, self.now - at)
        self.answers.append((self.now, life, self.board.publish(request, self.now)))

    @rule()
    def all_questions_arrive_and_are_answered(self) -> None:
        while self.flying:
            self.a_question_arrives(0, False)
        while self.answers:
            self.an_answer_arrives(len(self.answers) - 1)

    @rule(pick=st.integers(0, 2**16))
    @precondition(lambda self: self.answers)
    def an_answer_arrives(self, pick: int) -> None:
        at, life, answer = self.answers.pop(pick % len(self.answers))
        if life.asked_at is not None:
            self.slowest_answer = max(self.slowest_answer, self.now - at)
            self.answer(life, answer)

    @rule()
    def the_store_forgets(self) -> None:
        self.board = Board()

    @rule(who=st.integers(0, 3))
    def a_process_dies_and_another_begins(self, who: int) -> None:
        self.born += 1
        self.lives[who] = Life(f"p{self.born}")

    @rule(who=st.integers(0, 3), duration=st.sampled_from([0.0, 2.0, 15.0]))
    def ordered_open(self, who: int, duration: float) -> None:
        life = self.lives[who]
        life.machine.circuit.force_open(duration, self.now)
        self.note(life)
        life.stands_until = max(life.stands_until, self.now + duration)

    @rule(who=st.integers(0, 3))
    def ordered_closed(self, who: int) -> None:
        self.lives[who].machine.circuit.force_closed(self.now)
        self.note(self.lives[who])

    # How.

    def send(self, life: Life, outcome: Outcome) -> None:
        permit = life.machine.circuit.acquire(self.now)
        if isinstance(permit, CircuitPermit):
            life.machine.circuit.record(permit, outcome, self.now)
        self.note(life)
        self.ask(life)

    def ask(self, life: Life) -> None:
        ask_at = life.machine.circuit.exchange_at()
        if life.asked_at is None and ask_at is not None and ask_at <= self.now:
            life.asked_at = self.now
            life.questions.append(self.now)
            question = life.machine.ask(self.now)
            self.check(life, question)
            self.flying.append((self.now, life, question))

    def check(self, life: Life, question: Publish) -> None:
        """It says what it found itself, and of others' openings only that they are over."""
        number, left, ends = json.loads(question.report)
        found = [until for name, until in self.found if name == life.name]
        assert number == len(found)
        assert left in (0.0, max([0.0, *found[-1:]]) - self.now)
        for other, ended in ends.items():
            assert 1 <= ended <= sum(name == other for name, _ in self.found)

    def answer(self, life: Life, reply: StoreReply) -> None:
        life.asked_at = None
        life.machine.circuit.exchanged(reply, self.now, 0.0)
        self.note(life)
        self.ask(life)

    def note(self, life: Life) -> None:
        """Follow what it found, by its transitions."""
        circuit = life.machine.circuit
        circuit.state(self.now)
        for transition in circuit.drain_transitions():
            if transition.reason in ("failure_threshold", "probe_failed"):
                until = circuit.deadline()
                assert until is not None
                life.stands_until = until
                self.found.append((life.name, until))
            elif transition.reason == "shared_open":
                life.shared_openings += 1
            elif transition.target is CLOSED:
                life.stands_until = -math.inf

    # What must hold.

    @invariant()
    def nobody_is_open_for_longer_than_somebody_found(self) -> None:
        late = self.slowest_question + self.slowest_answer + 1e-6
        for life in self.lives:
            if life.machine.state(self.now) is OPEN:
                others = max((until for name, until in self.found if name != life.name), default=-math.inf)
                bound = max(life.stands_until, others + late + LONGEST_TURNS)
                assert (life.machine.circuit.deadline() or math.inf) <= bound

    @invariant()
    def nobody_shortens_what_another_found_or_was_ordered(self) -> None:
        for life in self.lives:
            if self.now < life.stands_until:
                assert life.machine.state(self.now) is OPEN
                assert (life.machine.circuit.deadline() or math.inf) >= life.stands_until

    @invariant()
    def each_opening_is_heeded_once_at_most_by_each(self) -> None:
        for life in self.lives:
            assert life.shared_openings <= sum(name != life.name for name, _ in self.found)

    @invariant()
    def nobody_asks_more_than_twice_an_interval(self) -> None:
        for life in self.lives:
            last = life.questions[-3:]
            assert len(last) < 3 or last[2] - last[0] >= INTERVAL

    def teardown(self) -> None:
        """The endpoint recovers and messages arrive: all are closed soon, nobody opens again, and then nobody asks."""
        found = len(self.found)
        for _ in range(80):
            self.time_passes(0.5)
            self.all_questions_arrive_and_are_answered()
            for life in self.lives:
                self.send(life, Outcome.SUCCESS)
        assert [life.machine.state(self.now) for life in self.lives] == [CLOSED] * 4
        assert len(self.found) == found
        opened = [life.shared_openings for life in self.lives]
        self.time_passes(40.0)
        self.all_questions_arrive_and_are_answered()
        self.time_passes(3.0)
        self.all_questions_arrive_and_are_answered()
        asked = [len(life.questions) for life in self.lives]
        self.time_passes(40.0)
        assert [len(life.questions) for life in self.lives] == asked
        assert [life.shared_openings for life in self.lives] == opened


TestSeveralProcesses = SeveralProcesses.TestCase
TestSeveralProcesses.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


# Engines that share a store, in virtual time.

LATENCY = 0.01
ANSWER = 0.05
STORE_TIMEOUT = 0.5
BREAKER = {"failure_threshold": 3, "open_duration": 10.0, "max_open_duration": 10.0}


class Town:
    """Processes with an engine each, one endpoint, and one store: what time it is, and what happens next."""

    def __init__(self, count: int, share: bool = True, **options: Any) -> None:
        self.now = 0.0
        self.store_up = True
        self.board = Board()
        self.asked: list[tuple[float, int]] = []
        self._sequence = 0
        self._coming: list[tuple[float, int, Callable[[], object]]] = []
        self.processes = [Process(self, number, share, options) for number in range(count)]

    def up(self, up: bool) -> None:
        """Whether the endpoint answers anybody."""
        for process in self.processes:
            process.up = up

    def at(self, when: float, what: Callable[[], object]) -> None:
        self._sequence += 1
        heapq.heappush(self._coming, (when, self._sequence, what))

    def run(self, until: float) -> None:
        """Let everything happen until then."""
        while True:
            deadlines = [(process.deadline(), process) for process in self.processes]
            when, process = min(deadlines, key=lambda each: each[0])
            if self._coming and self._coming[0][0] <= min(when, until):
                self.now, _, what = heapq.heappop(self._coming)
                what()
            elif when <= until:
                self.now = max(self.now, when)
                process.tell(Tick())
            else:
                self.now = until
                return

    def traffic(self, every: float, until: float) -> None:
        """Every process sends a request so often from now on."""
        for process in self.processes:
            for number in range(int((until - self.now) / every)):
                self.at(self.now + process.number * 0.001 + number * every, process.submit)


class Process:
    """One engine and its driver. Its clocks are its own."""

    def __init__(self, town: Town, number: int, share: bool, options: dict[str, Any]) -> None:
        self.town = town
        self.number = number
        self.up = True
        """Whether the endpoint answers it."""
        self.ahead = 1_000.0 * number
        self.unix_ahead = 1.75e9 + (-30.0, 30.0, 0.0)[number % 3]
        cluster = {"url": "redis://store", "share_circuits": share, "store_timeout": STORE_TIMEOUT}
        self.engine = RemoteEngineCore(RemoteEngineConfig((shop(**options),), cluster=cluster), rng=random.Random(number))
        self.sent: list[float] = []
        self.outcomes: dict[int, InferenceError | None] = {}
        self.notices: list[tuple[float, dict[str, Any]]] = []
        self.answer = ANSWER
        self.gone = self.drained = False
        self.requests = 0

    def submit(self, **rest: Any) -> int:
        self.requests += 1
        if not self.gone:
            self.tell(self.engine.prepare(self.requests, BATCH, **rest))
        return self.requests

    def tell(self, event: Event) -> list[Effect]:
        effects = self.engine.handle(event, self.town.now + self.ahead, self.town.now + self.unix_ahead)
        for effect in effects:
            match effect:
                case StartAttempt(request_id, attempt):
                    self.sent.append(self.town.now)
                    error = None if self.up else ServerError(503)
                    usage = USAGE if error is None else None
                    self.later(self.answer, AttemptEnded(request_id, attempt, error, usage, True))
                case RefreshSession(session, refresh_id):
                    self.later(0.0, SessionReport(session, refresh_id, Credential("sk-1")))
                case AskStore():
                    self.ask(effect)
                case Complete(request_id, error):
                    self.outcomes[request_id] = error
                case Notice(kind="circuit", detail=detail):
                    self.notices.append((self.town.now, detail))
                case Drained():
                    self.drained = True
                case _:
                    pass
        return effects

    def ask(self, order: AskStore) -> None:
        self.town.asked.append((self.town.now, self.number))

        def arrive() -> None:
            if self.town.store_up:
                reply = self.town.board.publish(order.request, self.town.now)
                self.later(LATENCY, StoreReport(order.link, order.ask, reply))
            else:
                self.later(STORE_TIMEOUT, StoreReport(order.link, order.ask, StoreLost("gone")))

        self.town.at(self.town.now + LATENCY, arrive)

    def later(self, seconds: float, event: Event) -> None:
        def tell() -> None:
            if not self.gone:
                self.tell(event)

        self.town.at(self.town.now + seconds, tell)

    def deadline(self) -> float:
        deadline = None if self.gone else self.engine.deadline()
        return math.inf if deadline is None else deadline - self.ahead

    def state(self) -> CircuitState:
        return self.engine.circuit_state(self.town.now + self.ahead)

    def sent_in(self, begin: float, end: float) -> list[float]:
        return [at for at in self.sent if begin <= at < end]

    @property
    def moves(self) -> list[str]:
        return [detail["reason"] for _, detail in self.notices]


def shop(name: str = "chat", **options: Any) -> Deployment:
    usual: dict[str, Any] = {"breaker": BREAKER, "retry": {"max_retries": 0}}
    return deployment(name, **(usual | options))


def test_one_meets_an_outage_and_the_others_stop_within_an_interval_and_go_on_when_it_is_over() -> None:
    town = Town(3)
    first, *others = town.processes
    town.traffic(0.2, 40.0)
    town.run(5.0)
    first.up = False
    town.run(7.0)
    opened_at = first.notices[0][0]
    assert first.moves == ["failure_threshold"]
    assert [process.moves for process in others] == [["shared_open"]] * 2
    assert all(process.notices[0][0] <= opened_at + 1.0 + 2 * LATENCY for process in others)
    assert not any(process.sent_in(opened_at + 1.1, opened_at + 10.0) for process in town.processes)
    error = others[0].outcomes[others[0].requests]
    assert isinstance(error, CircuitOpen)
    assert error.message == "the circuit of this endpoint is open"
    assert error.retry_at_unix_ms - 1_000 * (opened_at + others[0].unix_ahead + 10.0) == pytest.approx(2_000 * 1, abs=100)
    assert isinstance(error.cause, CircuitOpen)
    assert (error.cause.provider, error.cause.message) == ("openai", "another process found that this endpoint fails")
    first.up = True
    town.run(opened_at + 11.5)
    assert first.moves == ["failure_threshold", "open_duration", "success_threshold"]
    assert [process.moves for process in others] == [["shared_open", "shared_closed"]] * 2
    assert all(process.notices[-1][0] <= first.notices[-1][0] + 1.0 + 2 * LATENCY for process in others)
    town.run(39.0)
    assert all(process.state() is CLOSED and process.sent_in(38.0, 39.0) for process in town.processes)


def failed_sends(share: bool) -> int:
    """How many requests of eight processes meet an outage of 25 s."""
    town = Town(8, share=share)
    town.traffic(0.5, 60.0)
    town.run(5.0)
    town.up(False)
    town.run(30.0)
    sent = sum(len(process.sent_in(5.0, 30.0)) for process in town.processes)
    town.up(True)
    town.run(60.0)
    assert all(process.state() is CLOSED for process in town.processes)
    return sent


def test_those_who_found_an_outage_at_the_same_time_do_not_probe_it_each() -> None:
    assert failed_sends(share=False) >= 8 * (3 + 2)
    assert failed_sends(share=True) <= 8 * 3 + 3


@pytest.mark.parametrize("dead", [False, True])
def test_few_probe_at_once_when_an_opening_is_over_and_all_go_on_though_the_one_who_opened_died(dead: bool) -> None:
    town = Town(32)
    first = town.processes[7]
    town.traffic(0.25, 60.0)
    town.run(5.0)
    first.up = False
    town.run(7.0)
    opened_at = first.notices[0][0]
    assert all(process.moves == ["shared_open"] for process in town.processes if process is not first)
    first.gone = dead
    town.up(True)
    town.run(opened_at + 30.0)
    sent = sorted(at for process in town.processes for at in process.sent if at >= opened_at + 2.0)
    assert sent[0] == pytest.approx(opened_at + (12.0 if dead else 10.0), abs=0.3)
    assert len([at for at in sent if at < sent[0] + 0.05]) <= 1, "until the first one has its answer"
    alive = [process for process in town.processes if not process.gone]
    assert all(process.moves[-1] in ("shared_closed", "success_threshold") for process in alive)
    by_probe = [process for process in alive if process.moves[-1] == "success_threshold"]
    assert len(by_probe) <= 3
    assert all(process.notices[-1][0] < sent[0] + 1.5 for process in alive)


def test_while_an_endpoint_stays_down_no_verdict_goes_in_circles() -> None:
    town = Town(8)
    town.traffic(0.5, 150.0)
    town.run(5.0)
    town.up(False)
    town.run(125.0)
    found = sum(move in ("failure_threshold", "probe_failed") for process in town.processes for move in process.moves)
    for process in town.processes:
        assert process.moves.count("shared_open") <= found
    probes = sum(len(process.sent_in(20.0, 125.0)) for process in town.processes)
    assert probes <= 2 * 105.0 / 10.0, "about one in an open time, and not one of each process"
    town.up(True)
    town.run(149.0)
    assert all(process.state() is CLOSED for process in town.processes)


def test_without_the_store_each_is_on_its_own_and_with_it_they_are_together_again() -> None:
    town = Town(2)
    first, second = town.processes
    town.traffic(0.2, 60.0)
    town.run(5.0)
    town.store_up = False
    first.up = False
    town.run(15.0)
    assert first.moves[:1] == ["failure_threshold"]
    assert second.moves == []
    assert second.sent_in(14.0, 15.0)
    town.store_up = True
    town.run(17.0)
    assert second.moves == ["shared_open"]
    assert second.state() is OPEN


def test_an_idle_engine_asks_nothing() -> None:
    town = Town(2)
    town.run(100.0)
    assert town.asked == []
    town.processes[0].submit()
    town.run(200.0)
    assert [number for _, number in town.asked] in ([0], [0, 0])
    assert town.processes[0].deadline() == math.inf
    town.traffic(0.01, 210.0)
    town.run(300.0)
    asked = [at for at, number in town.asked if number == 1]
    assert 10 <= len(asked) <= 12
    assert asked[-1] < 212.0


def test_who_is_only_refused_still_hears_that_it_is_over() -> None:
    town = Town(2)
    first, second = town.processes
    first.up = False
    town.traffic(0.2, 3.0)
    town.run(3.0)
    assert second.state() is OPEN
    first.up = True
    first.tell(OverrideCircuit("chat", CircuitAction.RESET))
    town.run(8.0)
    sent = len(second.sent)
    asked = len(town.asked)
    second.submit()
    assert len(second.sent) == sent
    assert len(town.asked) == asked + 1


def test_what_an_operator_does_to_one_is_not_done_to_the_others() -> None:
    town = Town(2)
    first, second = town.processes
    town.traffic(0.2, 20.0)
    town.run(5.0)
    first.tell(OverrideCircuit("chat", CircuitAction.OPEN, 5.0))
    town.run(9.0)
    assert (first.moves, second.moves) == (["forced_open"], [])


def test_while_all_slots_are_taken_by_long_answers_it_still_hears_of_others() -> None:
    town = Town(2, serving={"max_concurrent": 1})
    first, second = town.processes
    second.answer = 8.0
    waits = second.submit(), second.submit()
    town.run(0.5)
    first.up = False
    for _ in range(3):
        first.submit()
        town.run(town.now + 0.2)
    assert first.state() is OPEN
    town.run(3.0)
    assert second.state() is OPEN
    assert isinstance(second.outcomes[waits[1]], CircuitOpen), "it waits no more"
    town.run(9.0)
    assert second.outcomes[waits[0]] is None
    assert len(second.sent) == 1


def test_who_waits_a_circuit_out_goes_as_soon_as_the_others_have_found_it_to_be_over() -> None:
    town = Town(2)
    first, second = town.processes
    first.up = False
    town.traffic(0.2, 3.0)
    town.run(3.0)
    waits = [second.submit(wait_for_circuit=True) for _ in range(3)]
    late = second.submit(wait_for_circuit=True, timeout=5.0)
    assert isinstance(second.outcomes[late], CircuitOpen)
    first.up = True
    opened_at = first.notices[0][0]
    sent = len(second.sent)
    town.run(opened_at + 10.0)
    first.submit()
    town.run(opened_at + 11.9)
    assert second.moves == ["shared_open", "shared_closed"]
    assert len(second.sent) == sent + 3
    assert [second.outcomes[each] for each in waits] == [None] * 3


def held_open() -> tuple[Town, Process, list[int]]:
    """A process has opened for 10 s by itself, at 0.45 s. Three wait for it, one of them until 13 s."""
    town = Town(1, breaker=BREAKER | {"max_open_duration": 60.0})
    (process,) = town.processes
    process.up = False
    town.run(0.4)
    for _ in range(3):
        process.submit()
    town.run(1.0)
    assert process.moves == ["failure_threshold"]
    waits = [process.submit(wait_for_circuit=True, timeout=timeout) for timeout in (None, 12.0, 30.0)]
    assert not any(each in process.outcomes for each in waits)
    return town, process, waits


def report_of_another(town: Town, left: float, ends: Mapping[str, int] | None = None) -> None:
    """Another process, of which there is no more than this, says so on the board."""
    (key,) = town.board.entries
    text = json.dumps((1, left, ends or {})).encode()
    town.board.publish(Publish(key, "another", text, 60.0), town.now)


def test_who_cannot_wait_for_an_open_time_that_others_made_longer_fails_at_once() -> None:
    town, process, waits = held_open()
    town.run(2.0)
    report_of_another(town, 18.0)
    town.run(3.5)
    assert [each in process.outcomes for each in waits] == [False, True, False]
    assert isinstance(process.outcomes[waits[1]], CircuitOpen)
    process.up = True
    town.run(19.9)
    assert len(process.sent) == 3
    town.run(23.0)
    assert process.moves == ["failure_threshold", "open_duration", "success_threshold"]
    assert [process.outcomes.get(each, "waits") for each in (waits[0], waits[2])] == [None, None]


def test_what_others_made_longer_and_take_back_ends_with_its_own_time() -> None:
    town, process, waits = held_open()
    town.run(2.0)
    report_of_another(town, 18.0)
    town.run(3.5)
    report_of_another(town, 0.0, {"another": 1})
    process.up = True
    town.run(10.4)
    assert len(process.sent) == 3
    town.run(10.6)
    assert process.sent[3] == pytest.approx(10.45, abs=0.001)
    assert process.moves == ["failure_threshold", "open_duration", "success_threshold"]
    assert [process.outcomes.get(each, "waits") for each in (waits[0], waits[2])] == [None, None]


def test_that_it_is_half_open_is_told_in_time_though_nobody_waits() -> None:
    town, process, waits = held_open()
    town.run(2.0)
    report_of_another(town, 18.0)
    town.run(3.5)
    for request_id in waits:
        process.tell(Cancel(request_id))
    report_of_another(town, 0.0, {"another": 1})
    process.submit()
    town.run(11.0)
    at, detail = process.notices[-1]
    assert (at, detail["target"]) == (pytest.approx(10.45, abs=0.001), "half_open")


def test_an_engine_that_closes_takes_its_report_off_and_then_it_is_drained() -> None:
    town = Town(2)
    first, second = town.processes
    town.traffic(0.2, 1.0)
    town.run(1.1)
    (board,) = town.board.entries.values()
    assert len(board) == 2
    first.tell(Close())
    assert not first.drained
    town.run(2.0)
    assert first.drained
    assert len(board) == 1
    assert second.state() is CLOSED


# Which circuits are shared, and under which names.


def roster(number: int, *deployments: Deployment, **cluster: Any) -> Roster:
    usual: dict[str, Any] = {"url": "redis://store", "share_circuits": True}
    shared = ClusterConfig(**(usual | cluster))
    return build_roster(RemoteEngineConfig(deployments, cluster=shared), {}, random.Random(number))


def question_of(circuit: Circuit) -> Publish:
    assert circuit.link is not None
    question = circuit.link.shared.exchange(0.0, 0.0)
    assert isinstance(question, Publish)
    return question


def test_a_circuit_is_called_the_same_in_every_process_and_its_members_are_not() -> None:
    one = roster(1, shop(), shop("other", endpoint="http://two.test/v1"))
    two = roster(2, shop("by another name", model="gpt-4o-mini", key="sk-two"), prefix="remote-core")
    here, there = (question_of(each.circuits[0]) for each in (one, two))
    assert here.key == there.key
    assert here.key.startswith("remote-core:circuit:{")
    assert here.member != there.member
    assert question_of(one.lanes["other"].circuit).key != here.key
    elsewhere = question_of(roster(1, shop(), prefix="elsewhere").circuits[0])
    assert elsewhere.key == here.key.replace("remote-core", "elsewhere")
    assert not any(secret in here.key for secret in ("one.test", "sk-one"))


def test_only_the_circuits_of_endpoints_are_shared_and_only_by_choice() -> None:
    mine = roster(1, shop(), shop("b", model="gpt-4o-mini"))
    lane = mine.lanes["chat"]
    assert lane.key_circuit.link is None
    assert lane.circuit.link is not None
    assert lane.circuit.link.lanes == list(mine.lanes.values())
    assert [link.index for link in mine.links] == list(range(len(mine.links)))
    assert [link.shared for link in mine.links] == [lane.circuit.breaker]
    assert roster(1, shop(), share_circuits=False).links == []


@pytest.mark.parametrize(("cluster", "interval"), [({}, 1.0), ({"interval": 0.25}, 0.25)])
def test_it_is_exchanged_at_the_interval_of_the_cluster(cluster: dict[str, float], interval: float) -> None:
    breaker = roster(1, shop(), **cluster).circuits[0].breaker
    assert isinstance(breaker, SharedCircuit)
    breaker.exchange(5.0, 0.0)
    breaker.acquire(5.0)
    assert breaker.exchange_at() == 5.0 + interval
