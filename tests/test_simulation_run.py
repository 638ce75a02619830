"""The runner of plans: what passes, what does not, and that all it says is the same in every run and on every machine."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from simulation_plans import HOST, OUTAGE, deployment, make_plan

import sansio
from sansio import Secret
from sansio.engine import RemoteEngineCore
from sansio.events import Drain, Effect, Event
from sansio.lane import Lease
from sansio.providers.openai import OpenAIChat
from sansio.queue import Priority
from sansio.rate_limit import RateLimiter
from sansio.simulation import ProviderLimits, Status
from sansio.simulation.judge.judge import Judge
from sansio.simulation.judge.violation import InvariantViolated
from sansio.simulation.scenarios import run as runner
from sansio.simulation.scenarios.failure import Violation
from sansio.simulation.scenarios.run import advance, run
from sansio.simulation.world.clock import VirtualClock
from sansio.simulation.world.node import Call, Node
from sansio.simulation.world.plan import CallerPlan, DrainNow, Faults, HostPlan, Level, Operate, Plan, RotateKey, VaultDown
from sansio.simulation.world.request_node import RequestNode
from sansio.simulation.world.request_provider import RequestProvider
from sansio.simulation.world.wire import WireClient
from sansio.simulation.world.world import World

LEVELS: tuple[Level, ...] = ("requests", "bytes")
ROTATION = RotateKey(1, 8.0, HOST, vault_lag=0.5)


def replayed(plan: Plan, command: str) -> Plan:
    """The plan that the printed command names, as the command line takes it apart."""
    words = shlex.split(command.replace(plan.scenario, "NAME"))
    assert words[:2] == ["remote-core", "simulate"]
    given = dict(zip(words[2::2], words[3::2], strict=True))
    assert given.pop("--scenario") == "NAME"
    assert given.pop("--seed") == str(plan.seed)
    assert given.pop("--level") == plan.level

    def numbers(name: str, everybody: list[int]) -> list[int]:
        words = given.pop(name, None)
        return everybody if words is None else [int(word) for word in words.split(",") if word != "none"]

    callers = numbers("--callers", [each.number for each in plan.callers])
    disturbances = numbers("--disturbances", [each.number for each in plan.disturbances])
    assert not given
    return plan.keep(callers, disturbances)


# ---- what passes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
def test_a_calm_run_passes_and_is_counted(level: Level) -> None:
    report = run(make_plan(level=level))
    assert report.violation is None and report.ok
    assert (report.submitted, report.done, report.failed, report.rejected, report.cancelled) == (40, 40, 0, 0, 0)
    assert (report.follow_ups, report.attempts, report.retries, report.failures) == (0, 40, {}, {})
    assert report.peak_in_flight >= 1 and report.refreshes == 1
    assert report.limit_used == 40 / 600 and report.throttled == report.throttled_by_limit == 0
    assert report.latency_p50 is not None and 0.2 < report.latency_p50 < 0.5
    assert report.recovery is None and report.digest is None and report.timeline is None and report.last_events == ()
    assert report.seconds >= 30.0 and report.facts > 80
    assert report.cost_usd > 0 and report.unknown_cost == 0


@pytest.mark.parametrize("level", LEVELS)
def test_after_an_outage_everything_is_well_again(level: Level) -> None:
    report = run(make_plan(OUTAGE, level=level))
    assert report.violation is None
    assert report.circuit_transitions["closed->open"] >= 1 and report.circuit_transitions["half_open->closed"] >= 1
    assert report.failures["circuit_open"] > 0 and report.retries["server_error"] > 0
    assert report.recovery is not None and 0.0 < report.recovery < 30.0
    ended = report.done + report.failed + report.rejected + report.cancelled
    assert report.submitted == ended == 40 + report.follow_ups


def test_requests_keep_coming_until_a_circuit_is_closed_and_then_no_more() -> None:
    plan = make_plan(Operate(0, 29.0, "chat", "open", 60.0), level="requests")
    report = run(plan)
    assert report.violation is None
    assert report.follow_ups > 40, "the circuit opens again a minute after"
    assert report.recovery is not None and 59.0 < report.recovery < 62.0
    assert report.seconds < 96.0
    busy = replace(plan, deployments=(deployment(), deployment("other")))
    assert run(busy).follow_ups > report.follow_ups, "each deployment has its own"


def test_follow_ups_come_after_everybody_else_and_ever_more_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[float, CallerPlan]] = []
    submit = RequestNode.submit

    def noting(self: RequestNode, caller: CallerPlan) -> Call:
        asked.append((self.clock.now, caller))
        return submit(self, caller)

    monkeypatch.setattr(RequestNode, "submit", noting)
    report = run(make_plan(Operate(0, 29.0, "chat", "open", 60.0)))
    times, callers = zip(*asked[40:], strict=True)
    assert report.violation is None and len(callers) == report.follow_ups
    assert [caller.number for caller in callers] == list(range(40, 40 + len(callers)))
    assert {caller.priority for caller in callers} == {Priority.BACKGROUND}
    waits = [later - sooner for sooner, later in pairwise(times)]
    assert set(waits[:30]) == {0.25} and 1.4 < waits[-1] < 1.6


def test_follow_ups_that_wait_are_few() -> None:
    patient = replace(deployment(), serving={"on_circuit_open": "wait"})
    report = run(make_plan(Operate(0, 29.0, "chat", "open", 60.0), deployments=(patient,)))
    assert report.violation is None and report.follow_ups == 2
    assert report.recovery is not None and 59.0 < report.recovery < 60.0
    assert report.latency_p95 is not None and report.latency_p95 < 1.0, "theirs are not counted"


def test_what_was_sent_while_a_world_recovered_has_time_of_its_own() -> None:
    plan = replace(make_plan(Operate(0, 29.0, "chat", "open", 20.0)), hosts=(HostPlan(HOST, token_delay=2.0),))
    whole = run(plan)
    assert whole.recovery is not None
    answered = whole.recovery + 6.5  # three tokens later somebody has an answer
    tight = run(replace(plan, heal_within=answered))
    assert tight.violation is None and tight.seconds > 30.0 + answered
    assert run(replace(plan, heal_within=whole.recovery - 0.25)).violation is not None


def test_somebody_has_to_be_answered_after_the_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody waits any more and every circuit is closed, all may still be refused."""
    monkeypatch.setattr(World, "heal", lambda self: None)
    patient = deployment(circuit_breaker={"failure_threshold": 10_000})
    for_long = Faults(0, 1.0, 500.0, HOST, ((Status(503), 1.0),))
    plan = make_plan(for_long, deployments=(patient,), heal_within=20.0)
    assert still_open(plan) == "20.000 s after the faults stopped: nobody was answered by chat"


def test_recovery_is_of_those_who_had_asked_by_the_end_of_the_last_disturbance() -> None:
    slow = tuple(CallerPlan(number, at, "chat", "q", reads_every=1.0) for number, at in enumerate((1.0, 20.0)))
    plan = replace(make_plan(Operate(0, 3.0, "chat", "rebuild")), callers=slow)
    report = run(plan)
    assert report.violation is None and report.recovery is not None
    assert report.latency_p95 is not None and report.recovery == pytest.approx(report.latency_p95 - 2.0)
    late_key = run(make_plan(RotateKey(0, 10.0, HOST, vault_lag=1.0)))
    assert late_key.recovery is not None and late_key.recovery > 15.0, "until the key's circuit has closed"


def test_only_answers_count_as_latency() -> None:
    hurried = tuple(CallerPlan(number, 10.0 + number, "chat", "q", timeout=0.1) for number in range(9))
    report = run(replace(make_plan(), callers=(*hurried, CallerPlan(9, 1.0, "chat", "q"))))
    assert report.violation is None and report.failures == {"deadline_exceeded": 9}
    assert report.latency_p50 is not None and report.latency_p50 > 0.2
    assert report.follow_ups == 0


def test_one_that_drains_in_the_middle_refuses_the_rest_and_ends() -> None:
    report = run(make_plan(OUTAGE, DrainNow(1, 8.0)))
    assert report.violation is None
    assert report.failures["engine_closed"] == 24 and report.follow_ups == 0


def test_the_provider_s_own_limit_is_told_apart() -> None:
    lower = make_plan(limits=ProviderLimits(20, 5_000))
    report = run(lower)
    assert report.violation is None
    assert report.throttled >= report.throttled_by_limit > 0
    assert report.limit_used == 1.0
    both = (deployment(), replace(deployment("small"), model="gpt-4o-mini"))
    apart = run(replace(lower, deployments=both))
    assert apart.throttled_by_limit == report.throttled_by_limit, "of all models together"
    told = run(make_plan(Faults(0, 0.0, 30.0, HOST, ((Status(429), 0.5),))))
    assert told.throttled > 0 and told.throttled_by_limit == 0


@pytest.mark.parametrize("level", LEVELS)
def test_a_promise_never_to_be_throttled_is_held_to(level: Level) -> None:
    lower = make_plan(limits=ProviderLimits(20, 5_000), level=level)
    assert run(lower).violation is None, "nothing was promised"
    report = run(replace(lower, throttle_free=True))
    assert report.violation == Violation(
        8, "chat.test had to refuse 1 requests for gpt-4o by its own limit, and ours is as strict"
    )
    assert report.throttled == report.throttled_by_limit == 1, "found when it happens"
    assert run(make_plan(OUTAGE, level=level, throttle_free=True)).violation is None


def test_a_refusal_that_nobody_waited_for_is_found_at_the_end() -> None:
    callers = (CallerPlan(0, 1.0, "chat", "q0"), CallerPlan(1, 1.2, "chat", "q1", leaves_after=0.06))
    plan = replace(make_plan(limits=ProviderLimits(1), throttle_free=True), callers=callers)
    report = run(plan)
    assert report.violation is not None and report.violation.number == 8
    assert report.throttled == 0 and report.seconds >= 30.0


def test_where_there_is_no_limit_none_is_used() -> None:
    plan = make_plan(limits=None, deployments=(deployment(rate_limits={}),))
    assert run(plan).limit_used is None
    of_tokens = run(make_plan(limits=ProviderLimits(None, 10_000)))
    assert of_tokens.limit_used is not None and 0 < of_tokens.limit_used < 1


def test_those_who_leave_are_no_latency_and_no_failure() -> None:
    plan = make_plan()
    leaving = replace(plan, callers=tuple(replace(each, leaves_after=0.1) for each in plan.callers))
    report = run(leaving)
    assert report.violation is None
    assert report.cancelled == 40 and report.latency_p50 is None


# ---- the same in every run --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
def test_the_same_plan_gives_the_same_report(level: Level) -> None:
    plan = make_plan(OUTAGE, ROTATION, level=level)
    first = run(plan, digest=True)
    assert first.digest is not None and len(first.digest) == 64
    assert run(plan, digest=True) == first
    assert run(replace(plan, seed=4), digest=True).digest != first.digest


def test_looking_on_changes_nothing() -> None:
    plan = make_plan(OUTAGE, ROTATION, level="bytes")
    plain, watched = run(plan, digest=True), run(plan, digest=True, timeline=True)
    assert watched.timeline is not None
    assert replace(watched, timeline=None) == plain
    assert replace(plain, digest=None) == run(plan)


CHILD = """
from simulation_plans import OUTAGE, make_plan
from sansio.simulation.scenarios.run import run
for level in ("requests", "bytes"):
    print(run(make_plan(OUTAGE, level=level), digest=True).text())
"""


def test_another_process_with_another_hash_seed_says_the_same() -> None:
    paths = os.pathsep.join([str(Path(sansio.__file__).parent.parent), str(Path(__file__).parent)])
    said = [
        subprocess.run(
            [sys.executable, "-c", CHILD],
            env={**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "77")
    ]
    here = "\n".join(run(make_plan(OUTAGE, level=level), digest=True).text() for level in LEVELS)
    assert said[0] == said[1] == here + "\n"


# ---- what does not pass -----------------------------------------------------------------------------------------------


def leak_on_cancel(patch: pytest.MonkeyPatch) -> None:
    def cancel(self: Lease, sent: bool, now: float) -> None:
        self.ended = self.cancelled = True

    patch.setattr(Lease, "cancel", cancel)


def reserve_nothing(patch: pytest.MonkeyPatch) -> None:
    reserve = RateLimiter.reserve

    def free(self: RateLimiter, requests: int, input_tokens: int, output_tokens: int, now: float) -> Any:
        return reserve(self, 0, 0, 0, now)

    patch.setattr(RateLimiter, "reserve", free)


def impatient(plan: Plan) -> Plan:
    """Somebody leaves now and then."""
    leaving = (replace(each, leaves_after=0.15) if each.number % 4 == 0 else each for each in plan.callers)
    return replace(plan, callers=tuple(leaving))


@pytest.mark.parametrize("defect", [leak_on_cancel, reserve_nothing])
@pytest.mark.parametrize("level", LEVELS)
def test_a_defect_is_found_and_its_report_replays(
    level: Level, defect: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = deployment(rate_limits={"requests_per_minute": 40, "concurrent_requests": 3})
    plan = impatient(make_plan(OUTAGE, level=level, deployments=(limited,)))
    assert run(plan).violation is None
    defect(monkeypatch)
    report = run(plan)
    assert report.violation is not None and report.violation.number not in (0, 17)
    assert 1 <= len(report.last_events) <= 40
    assert run(replayed(plan, report.command)) == report
    part = plan.keep([each.number for each in plan.callers if each.number < 30], [])
    again = run(part)
    assert again.violation is not None and again.callers == tuple(range(30)) and again.disturbances == ()
    assert run(replayed(plan, again.command)) == again


def test_a_crash_is_a_violation_that_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: OpenAIChat, headers: object, unix_now: float) -> None:
        raise KeyError(f"/a/place/{HOST} sk-simulated-0-0 {object()!r}")

    monkeypatch.setattr(OpenAIChat, "rate_limit_snapshot", broken)
    report = run(make_plan())
    assert report.violation is not None and report.violation.number == 0
    first, *frames = report.violation.text.split("\n")
    assert first.startswith("KeyError: ") and "sk-simulated" not in first and " at 0x" not in first
    assert frames[-1].startswith("  in test_simulation_run.py, ") and len(frames) == 6
    assert "  in engine.py, RemoteEngineCore.handle" in frames
    assert not any("/" in frame for frame in frames)
    assert report.last_events and run(make_plan()) == report


def test_a_crash_without_a_message_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: World) -> None:
        raise RuntimeError

    monkeypatch.setattr(World, "heal", broken)
    report = run(make_plan(callers=1))
    assert report.violation is not None and report.violation.text.startswith("RuntimeError\n  in run.py, run\n")


def test_an_interrupt_is_no_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: World) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(World, "heal", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(make_plan(callers=1))


def test_a_loop_at_one_instant_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "MOST_STEPS", 500)

    def spin(self: World) -> None:
        def again() -> None:
            self.clock.call_later(1e-9, again)

        again()

    monkeypatch.setattr(World, "heal", spin)
    report = run(make_plan(OUTAGE, callers=20))
    assert report.violation is not None and report.violation.number == 26
    assert report.violation.text.startswith("500 steps were taken, and time has moved by ")


def test_many_steps_are_fine_as_long_as_time_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "MOST_STEPS", 5)
    clock, seen = VirtualClock(), list[float]()
    for at in range(20):
        clock.call_at(at * 0.01, lambda: seen.append(clock.now))
    advance(clock, 1.0)
    assert len(seen) == 20 and clock.now == 1.0
    for _ in range(15):
        clock.call_at(2.0, lambda: None)
    with pytest.raises(InvariantViolated, match="26"):
        advance(clock, 3.0)


# ---- what is still open -----------------------------------------------------------------------------------------------


def still_open(plan: Plan) -> str:
    report = run(plan)
    assert report.violation is not None and report.violation.number == 17
    return report.violation.text


def test_a_circuit_that_does_not_close_in_time() -> None:
    plan = make_plan(Operate(0, 29.0, "chat", "open", 500.0), heal_within=50.0)
    why = "the circuit of chat is not closed, nobody was answered by chat"
    assert still_open(plan) == f"50.000 s after the faults stopped: {why}"
    assert run(plan).seconds == 80.0


def test_requests_that_do_not_end_in_time() -> None:
    slow = tuple(CallerPlan(number, 1.0, "chat", f"q{number}", reads_every=400.0) for number in range(7))
    text = still_open(replace(make_plan(heal_within=20.0), callers=slow))
    named = [f"request #{number} of chat is " for number in range(1, 6)]
    assert all(name in text for name in named) and "#6" not in text and text.endswith(" and 2 more")


def test_requests_that_outlast_a_drain() -> None:
    slow = tuple(CallerPlan(number, 1.0, "chat", f"q{number}", reads_every=400.0) for number in range(2))
    text = still_open(replace(make_plan(DrainNow(0, 5.0), heal_within=20.0), callers=slow))
    assert text.startswith("20.000 s after the faults stopped: request #1 of chat is ")


def test_an_engine_that_does_not_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Node, "drain", lambda self: None)
    text = still_open(make_plan(heal_within=20.0))
    assert re.fullmatch(r"2\d\.\d{3} s after the faults stopped: the engine is not drained", text)


def test_a_closed_engine_that_still_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = replace(make_plan(), hosts=(HostPlan(HOST, key_lifetime=5_000.0),))
    assert run(plan).violation is None
    monkeypatch.setattr(Node, "close", lambda self: None)
    assert still_open(plan) == "a closed engine waits for something"


def test_connections_that_nobody_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(level="bytes", callers=60, heal_within=5.0)
    assert run(plan).violation is None
    monkeypatch.setattr(WireClient, "close", lambda self: None)
    text = still_open(plan)
    assert "the client holds 1 connections" in text and f"1 connections are open at {HOST}" in text


def test_answers_that_never_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RequestProvider, "over", lambda self: None)
    assert f"40 answers are under way at {HOST}" in still_open(make_plan(heal_within=5.0))


def test_the_step_that_was_objected_to_is_the_last_one_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    observe = Judge.observed

    def observed(self: Judge, event: Event, effects: Sequence[Effect], now: float, unix_now: float) -> None:
        observe(self, event, effects, now, unix_now)
        if isinstance(event, Drain):
            raise InvariantViolated(26, "it drains")

    monkeypatch.setattr(Judge, "observed", observed)
    report = run(make_plan(DrainNow(0, 8.0)))
    assert len(report.last_events) == 40 and report.last_events[-1].split() == ["8.000", "Drain", "Drained"]
    assert report.last_events == tuple(sorted(report.last_events))


def test_the_judge_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    def healed(self: Judge, now: float, unix_now: float) -> None:
        raise InvariantViolated(5, "one is missing")

    monkeypatch.setattr(Judge, "healed", healed)
    report = run(make_plan())
    assert report.violation is not None and (report.violation.number, report.violation.text) == (5, "one is missing")


# ---- misuse, and secrets ----------------------------------------------------------------------------------------------


def test_nothing_may_come_after_the_end() -> None:
    with pytest.raises(ValueError, match=r"callers: number 39 comes at 19\.5 s, after the plan's 19 s"):
        run(make_plan(seconds=19.0))
    with pytest.raises(ValueError, match=r"disturbances: number 7 comes at 31 s, after the plan's 30 s"):
        run(make_plan(DrainNow(7, 31.0)))


@pytest.mark.parametrize("level", LEVELS)
def test_no_secret_is_in_anything_said(level: Level, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(ROTATION, VaultDown(2, 10.0, 5.0, HOST), level=level, heal_within=1.0)
    plan = replace(plan, deployments=(deployment(api_key=Secret.inline("sk-inline-0123456789")),))
    handle = RemoteEngineCore.handle

    def broken(self: RemoteEngineCore, event: Any, now: float, unix_now: float) -> Any:
        effects = handle(self, event, now, unix_now)
        if self.metrics().attempts > 20:
            raise InvariantViolated(19, "the keys are sk-simulated-0-0 and sk-simulated-0-1")
        return effects

    monkeypatch.setattr(RemoteEngineCore, "handle", broken)
    report = run(plan, digest=True, timeline=True)
    assert report.violation is not None
    for said in (report.text(), repr(report), repr(report.timeline)):
        assert "sk-" not in said
