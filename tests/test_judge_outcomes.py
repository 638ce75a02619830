"""`sansio.simulation.judge`: one outcome for each request, and nothing of it afterwards (spec 5: 4, 17, 19, 24)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import engine_world
import pytest
from engine_harness import BATCH, EVENT_STREAM, OPEN_ENDED, USAGE, deployment
from engine_walk import walk
from judged_rig import JudgedRig, violates

from sansio.batch import TokenChunk, TokenEstimate
from sansio.engine import RemoteEngineCore
from sansio.errors import BadRequest, EngineClosed, InferenceError, NetworkError, ServerError, Unauthorized
from sansio.events import (
    AbortAttempt,
    AddRequest,
    AttemptEnded,
    Cancel,
    Close,
    Committed,
    Complete,
    Drain,
    Drained,
    Effect,
    Event,
    HeadReceived,
    Notice,
    OverrideCircuit,
    RebuildSession,
    RefreshSession,
    SessionReport,
    StartAttempt,
    Tick,
)
from sansio.http import ResponseHead
from sansio.registry import Registry
from sansio.secret import Credential
from sansio.session import SessionRebuildCause
from sansio.simulation.judge.judge import Judge
from sansio.simulation.judge.observed_core import ObservedCore
from sansio.simulation.judge.outcomes import Outcomes
from sansio.simulation.judge.violation import INVARIANTS, InvariantViolated
from sansio.simulation.world.node import Call
from sansio.simulation.world.plan import CallerPlan

SECRET = "sk-very-secret-key"


def add(request_id: int, **rest: object) -> AddRequest:
    return AddRequest(request_id, "chat", BATCH, TokenEstimate(10, 10), **rest)


def running(*request_ids: int, secrets: Sequence[str] = ()) -> JudgedRig:
    """A rig in which these requests run."""
    rig = JudgedRig(secrets=secrets)
    for request_id in request_ids:
        rig.submit(request_id)
        assert rig.started[request_id]
    return rig


# What is right is not disturbed.


def test_a_run_in_which_all_goes_well_passes() -> None:
    rig = running(1, 2, 3, 4)
    rig.commit(1)
    rig.end(1)
    rig.end(2, ServerError(503))
    rig.tick_at_deadline()
    rig.end(2, NetworkError(), stale=True)
    rig.end(2)
    rig.cancel(3)
    rig.cancel(3)
    rig.end(3, NetworkError())
    rig.end(3, NetworkError())
    rig.end(4, BadRequest())
    rig.tell(HeadReceived(4, 99, ResponseHead(200, EVENT_STREAM)))
    rig.tell(Committed(4, 99))
    rig.drain()
    assert rig.drained()
    rig.submit(5)
    assert rig.outcome(5) == "engine_closed"
    rig.tell(RebuildSession(None))
    rig.tell(OverrideCircuit(None, "reset"))
    rig.refresh()
    rig.healed()


def test_close_ends_what_runs_and_what_waits() -> None:
    rig = JudgedRig(deployment(serving={"max_concurrent": 1}))
    rig.submit(1)
    rig.submit(2)
    rig.send(1)
    rig.close()
    assert {rig.outcome(1), rig.outcome(2)} == {"engine_closed"} and not rig.drained()
    rig.end(1, EngineClosed())
    assert rig.drained()
    rig.healed()


def test_an_attempt_that_its_clock_cuts_ends_with_its_report() -> None:
    rig = JudgedRig(deployment(timeouts={"connect_timeout": 1.0}))
    rig.submit(1, timeout=30.0)
    rig.started[1].exchange.connecting(rig.now)
    rig.tick_at_deadline()
    [abort] = rig.of(AbortAttempt)
    rig.end(1, abort.error, sent=False)
    rig.tick_at_deadline()
    rig.end(1)
    assert rig.outcome(1) == "ok"
    rig.healed()


@pytest.mark.parametrize("roster", list(engine_world.ROSTERS))
def test_worlds_of_random_facts_pass(roster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[ObservedCore] = []

    def observed(*arguments: object, **named: object) -> ObservedCore:
        core = ObservedCore(*arguments, **named)
        core.observers = (Outcomes(core),)
        judged.append(core)
        return core

    monkeypatch.setattr(engine_world, "RemoteEngineCore", observed)
    world = walk(roster, 11, 600)
    world.heal()
    assert judged[0].facts > 200
    judged[0].observers[0].healed(world.latest, 0.0)


# 4: orders about requests.


def start(rig: JudgedRig, request_id: int, attempt: int) -> StartAttempt:
    return StartAttempt(request_id, attempt, rig.started[1].exchange)


@pytest.mark.parametrize(
    ("order", "about"),
    [
        (lambda rig: start(rig, 9, 50), "request 9 was started, and is over or was never asked"),
        (lambda rig: start(rig, 1, 50), "attempt 50 of request 1 of 'chat' was started while"),
        (lambda rig: Complete(9, None), "request 9 was told an end, and is over"),
        (lambda rig: Complete(1, BadRequest()), "request 1 of 'chat' was told its end while attempt"),
        (lambda rig: AbortAttempt(9, 1, None), "attempt 1 of request 9 was cut, and is over"),
        (lambda rig: AbortAttempt(1, 50, None), "attempt 50 of request 1 of 'chat' was cut, and 1 runs"),
        (lambda rig: AbortAttempt(1, 1, None), "attempt 1 of request 1 of 'chat' was cut as if its caller had gone"),
        (lambda rig: Notice("budget", "chat", 0.0, 0.0, 9), "a notice of kind 'budget' is about request 9, which is over"),
        (lambda rig: Drained(), "drained (not asked to) with 1 requests and 0 reports outstanding"),
    ],
)
def test_an_order_that_makes_no_sense(order: Callable[[JudgedRig], Effect], about: str) -> None:
    rig = running(1)
    with violates(4, about):
        rig.say(Tick(), order(rig))


def test_generations_rise() -> None:
    rig = running(1)
    rig.core.observers = ()
    rig.submit(2)
    rig.say(add(2), rig.started[2])
    with violates(4, "attempt 2 of request 3 of 'chat' was started after attempt 2"):
        rig.say(add(3), StartAttempt(3, 2, rig.started[2].exchange))


def test_orders_about_nobody_are_not_read() -> None:
    rig = running(1)
    rig.say(Tick(), RefreshSession(0, 7, SessionRebuildCause.MANUAL, None), Notice("circuit", "chat", 0.0, 0.0))


def test_two_outcomes(monkeypatch: pytest.MonkeyPatch) -> None:
    finish = Registry.finish

    def twice(self: Registry, request: object, error: InferenceError | None) -> None:
        finish(self, request, error)
        self.effects.append(Complete(request.add.request_id, error))

    monkeypatch.setattr(Registry, "finish", twice)
    rig = running(1)
    with violates(4, "request 1 was told an end, and is over"):
        rig.end(1)


@pytest.mark.parametrize("error", [None, BadRequest()])
def test_no_outcome_after_the_last_attempt(error: InferenceError | None) -> None:
    rig = running(1)
    with violates(4, "request 1 of 'chat' had its last attempt, and is told no end"):
        rig.say(AttemptEnded(1, 1, error, USAGE, True))


def test_an_answer_is_no_failure() -> None:
    rig = running(1)
    with violates(4, "request 1 of 'chat' was answered, and told an error of kind 'bad_request'"):
        rig.say(AttemptEnded(1, 1, None, USAGE, True), Complete(1, BadRequest()))


def test_nothing_is_said_of_a_request_that_was_cancelled() -> None:
    rig = running(1)
    rig.cancel(1)
    with violates(4, "about request 1, which is over"):
        rig.say(Tick(), Notice("retry_scheduled", "chat", 0.0, 0.0, 1, {"reason": "timeout", "wait": 1.0, "attempt": 1}))


def test_what_drains_takes_nothing_in() -> None:
    rig = running(1)
    rig.drain()
    with violates(4, "request 2 of 'chat' was taken in by an engine that is draining"):
        rig.say(add(2))


def test_close_forgets_nobody() -> None:
    rig = running(1)
    with violates(4, "the engine was closed, and request 1 of 'chat' is told no end"):
        rig.say(Close())


def test_drained_is_said_once_and_when_it_is_true() -> None:
    rig = running(1)
    rig.cancel(1)
    with violates(4, "drained (asked to) with 0 requests and 1 reports outstanding"):
        rig.say(Drain(), Drained())
    rig = JudgedRig()
    rig.drain()
    with violates(4, "not asked to"):
        rig.say(Tick(), Drained())


def test_drained_is_said() -> None:
    rig = JudgedRig()
    with violates(17, "it does not say that it is drained"):
        rig.say(Drain())


# 24: a cancel gives everything back in its step.


def test_a_cancelled_attempt_is_cut() -> None:
    rig = running(1)
    rig.core.observers = ()
    rig.cancel(1)
    with violates(24, "request 1 of 'chat' was cancelled, and its attempt 1 is not cut"):
        rig.say(Cancel(1))


def test_a_slot_leaks(monkeypatch: pytest.MonkeyPatch) -> None:
    release = RemoteEngineCore._release

    def leaky(self: RemoteEngineCore, request: object, error: InferenceError | None) -> None:
        release(self, request, error)
        request.lane.running += 1

    monkeypatch.setattr(RemoteEngineCore, "_release", leaky)
    rig = running(1, 2)
    with violates(24, "1 attempts of 'chat' run, the engine holds 2 slots for them"):
        rig.cancel(1)


@pytest.mark.parametrize("where", ["registry", "lane"])
def test_a_cancelled_request_is_kept(where: str) -> None:
    rig = running(1, 2)
    lane = rig.core.roster.lanes["chat"]
    request = rig.core.registry.requests[1]
    rig.core.observers = ()
    rig.cancel(1)
    (rig.core.registry if where == "registry" else lane).requests[1] = request
    with violates(24, "request 1 of 'chat' was cancelled, and the engine still has it"):
        rig.say(Cancel(1), AbortAttempt(1, 1, None))


@pytest.mark.parametrize("where", ["queue", "parked"])
def test_a_cancelled_request_keeps_its_place(where: str) -> None:
    rig = JudgedRig(deployment(serving={"max_concurrent": 1}))
    rig.submit(1)
    rig.submit(2)
    lane = rig.core.roster.lanes["chat"]
    request = rig.core.registry.requests[2]
    rig.core.observers = ()
    rig.cancel(2)
    if where == "queue":
        lane.queue.requeue(request.entry, rig.now)
    else:
        lane.session.parked[2] = request
    with violates(24, "request 2 of 'chat' was cancelled, and still has its place"):
        rig.say(Cancel(2))


# 17: what is left at the end.


def test_a_request_is_left() -> None:
    rig = running(1)
    with violates(17, "request 1 of 'chat' never ended"):
        rig.healed()


def spoiled(spoil: Callable[[JudgedRig], object]) -> JudgedRig:
    """A rig in which everything is over, but for something."""
    rig = running(1)
    rig.end(1)
    spoil(rig)
    return rig


def keep_request(rig: JudgedRig) -> None:
    rig.core.observers = ()
    rig.submit(2)
    rig.core.registry.timers.set(rig.core.registry.requests[2], None)


def owe_report(rig: JudgedRig) -> None:
    keep_request(rig)
    rig.cancel(2)


def keep_slot(rig: JudgedRig) -> None:
    rig.core.roster.lanes["chat"].running = 1


def keep_entry(rig: JudgedRig) -> None:
    keep_request(rig)
    rig.core.roster.lanes["chat"].queue.requeue(rig.core.registry.requests.pop(2).entry, rig.now)
    rig.core.roster.lanes["chat"].running = 0


def keep_timer(rig: JudgedRig) -> None:
    rig.core.registry.timers.set(rig.core.roster.lanes["chat"], rig.now + 1.0)


@pytest.mark.parametrize(
    ("spoil", "about"),
    [
        (keep_request, "request 2 is over, and the engine still has it"),
        (owe_report, "attempt 2 of request 2 was called off, and never reported"),
        (keep_slot, "1 attempts of 'chat' run and 0 requests are queued"),
        (keep_entry, "0 attempts of 'chat' run and 1 requests are queued"),
        (lambda rig: setattr(rig.core.registry.metrics, "waiting", 1), "0 queued, 1 waiting, 0 in flight"),
        (keep_timer, "1 timers are set that are no session's"),
    ],
)
def test_something_is_left(spoil: Callable[[JudgedRig], object], about: str) -> None:
    rig = spoiled(spoil)
    with violates(17, about):
        rig.healed()


def test_sessions_keep_their_timers() -> None:
    rig = JudgedRig(refreshed=False)
    rig.submit(1)
    rig.refresh(Credential("sk-one", rig.now + rig.unix_ahead + 3_600.0))
    rig.end(1)
    assert rig.core.deadline() is not None
    rig.healed()


# 19: no secret is shown.


def leaking(rig: JudgedRig, event: Event, *effects: Effect) -> None:
    with violates(19, "a credential is shown by"):
        rig.say(event, *effects)


def test_secrets_are_not_shown() -> None:
    shown = ServerError(503, f"your key {SECRET} is fine")
    notice = Notice("refresh_ended", "chat", 0.0, 0.0, None, {"result": f"got {SECRET}"})
    leaking(running(1, secrets=[SECRET]), AttemptEnded(1, 1, shown, None, True))
    leaking(running(1, secrets=["", SECRET]), Tick(), AbortAttempt(1, 1, shown))
    leaking(running(1, secrets=[SECRET]), Tick(), notice)
    leaking(running(1, secrets=[SECRET]), SessionReport(0, 1, Unauthorized(SECRET)))
    caused = BadRequest("no").caused_by(NetworkError("gone").caused_by(OSError(SECRET)))
    leaking(running(1, secrets=[SECRET]), AttemptEnded(1, 1, caused, None, True))
    rig = JudgedRig(deployment(serving={"max_concurrent": 1}), secrets=[SECRET])
    rig.submit(1)
    rig.submit(2)
    leaking(rig, Tick(), Complete(2, shown))


def test_a_secret_is_not_repeated_by_who_found_it() -> None:
    rig = running(1, secrets=[SECRET])
    with pytest.raises(InvariantViolated) as caught:
        rig.say(AttemptEnded(1, 1, ServerError(503, SECRET), None, True))
    assert SECRET not in str(caught.value)


# The judge as a whole.


def test_a_judge_tells_each_part_what_it_wants_to_hear() -> None:
    heard: list[str] = []

    class Deaf:
        def observed(self, event: Event, effects: Sequence[Effect], now: float, unix_now: float) -> None:
            heard.append(type(event).__name__)

        def healed(self, now: float, unix_now: float) -> None:
            heard.append("healed")

    class Curious(Deaf):
        def sent(self, call: Call, key: str | None, now: float, unix_now: float) -> None:
            heard.append(f"sent {key}")

        def delivered(self, call: Call, chunk: TokenChunk) -> None:
            heard.append(f"delivered {chunk.text_delta}")

        def ended(self, call: Call) -> None:
            heard.append("ended")

    rig = JudgedRig()
    judge = Judge(rig.core, parts=[Deaf(), Curious()])
    rig.core.observers = (judge,)
    call = Call(CallerPlan(1, 0.0, "chat", "hello"), 1, 0.0)
    rig.tick()
    judge.sent(call, "sk-one", 0.0, 0.0)
    judge.delivered(call, TokenChunk("hi"))
    judge.ended(call)
    judge.healed(0.0, 0.0)
    assert heard == ["Tick", "Tick", "sent sk-one", "delivered hi", "ended", "healed", "healed"]


def test_a_judge_has_all_parts() -> None:
    rig = JudgedRig(refreshed=False)
    judge = Judge(rig.core)
    rig.core.observers = (judge,)
    rig.submit(1, batch=OPEN_ENDED)
    rig.refresh()
    rig.end(1)
    judge.healed(rig.now, rig.now + rig.unix_ahead)
    assert [type(part).__name__ for part in judge.parts] == [
        "Outcomes", "Progress", "CircuitModel", "LimitModel", "SessionModel", "Reasons",
    ]  # fmt: skip


def test_a_violation_says_which_invariant_in_words() -> None:
    violation = InvariantViolated(7, "2 before 1")
    assert str(violation) == f"invariant 7 ({INVARIANTS[7]}): 2 before 1"
