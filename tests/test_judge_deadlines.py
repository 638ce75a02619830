"""`sansio.simulation.judge`: nothing is late, nothing waits for the past (spec 5: 11, 23, 26)."""

from __future__ import annotations

import math

import pytest
from engine_harness import deployment
from judged_rig import JudgedRig, violates

from sansio.errors import DeadlineExceeded, NetworkError, ServerError
from sansio.events import AbortAttempt, AttemptEnded, Notice, StartAttempt, Tick
from sansio.queue import RequestQueue
from sansio.simulation.judge.progress import Progress
from sansio.timers import Timers


def busy() -> JudgedRig:
    """A rig whose one slot is taken by request 1, and request 2 has five seconds."""
    rig = JudgedRig(deployment(serving={"max_concurrent": 1}))
    rig.submit(1)
    rig.submit(2, timeout=5.0)
    return rig


# 11: deadlines, wherever the time goes.


def test_who_runs_out_of_time_is_told_so() -> None:
    rig = busy()
    rig.tick_at_deadline()
    assert rig.outcome(2) == "deadline_exceeded"
    rig.submit(3, timeout=5.0)
    rig.end(1)
    rig.send(3)
    rig.tick_at_deadline()
    [abort] = rig.of(AbortAttempt)
    rig.tick(1.0)
    rig.end(3, abort.error)
    assert rig.outcome(3) == "deadline_exceeded"
    rig.healed()


def test_who_has_ended_by_itself_is_waited_for() -> None:
    rig = JudgedRig()
    rig.submit(1, timeout=5.0)
    rig.started[1].exchange.fail(NetworkError(), rig.now)
    rig.tick(6.0)
    rig.end(1, NetworkError())
    assert rig.outcome(1) == "network_error"


def test_who_is_over_in_time_is_forgotten() -> None:
    rig = busy()
    rig.end(1)
    rig.end(2)
    rig.tick(6.0)
    rig.healed()


def test_a_deadline_that_ignores_the_time_in_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RequestQueue, "expire", lambda self, now: [])
    rig = busy()
    with violates(11, "request 2 of 'chat' still waits past its deadline, after 0 attempts"):
        rig.tick(5.0)


def test_a_deadline_that_ignores_the_time_of_an_attempt() -> None:
    rig = JudgedRig()
    rig.submit(1, timeout=5.0)
    rig.started[1].exchange._clock = (math.inf, "", None)
    with violates(11, "request 1 of 'chat' still runs past its deadline, after 1 attempts"):
        rig.tick(5.0)


def test_who_was_cut_for_its_deadline_does_not_go_on() -> None:
    rig = JudgedRig()
    rig.submit(1, timeout=5.0)
    rig.tick(5.0)
    rig.core.observers = ()
    rig.started[1].exchange.fail(NetworkError(), rig.now)
    rig.end(1, NetworkError())
    rig.core.registry.metrics.in_flight, rig.core.registry.metrics.waiting = 0, 1
    rig.core.registry.metrics.failed, rig.core.registry.metrics.unknown_usage = 0, 1
    with violates(11, "request 1 of 'chat' still waits past its deadline, after 1 attempts"):
        rig.say(AttemptEnded(1, 1, NetworkError(), None, True))


def test_a_start_at_the_deadline() -> None:
    rig = busy()
    rig.now += 5.0
    with violates(11, "request 2 of 'chat' was started 0 s past its deadline"):
        rig.say(Tick(), StartAttempt(2, 50, rig.started[1].exchange))


def test_a_retry_that_comes_too_late() -> None:
    rig = JudgedRig()
    rig.submit(1, timeout=5.0)
    rig.now += 4.0
    detail = {"reason": "server_error", "wait": 1.0, "attempt": 1}
    with violates(11, "request 1 of 'chat' is to be sent again in 1 s, and has 1 s left"):
        rig.say(AttemptEnded(1, 1, ServerError(503), None, True), Notice("retry_scheduled", "chat", 0.0, 0.0, 1, detail))


def test_a_request_lost_unread_past_its_deadline_ends() -> None:
    rig = JudgedRig()
    rig.submit(1, timeout=5.0)
    rig.tick(6.0)
    rig.end(1, NetworkError(), stale=True)
    assert isinstance(rig.error(1), DeadlineExceeded)


# 23 and 26: time.


def timed() -> JudgedRig:
    rig = JudgedRig()
    rig.judged_by(Progress(rig.core))
    return rig


def test_time_goes_on() -> None:
    rig = timed()
    rig.submit(1, timeout=5.0)
    rig.tick()
    rig.tick()
    rig.tick(1.0)
    rig.tick()
    rig.end(1, ServerError(503))
    rig.tick()
    rig.tick(-2.0)
    rig.tick(2.0)
    rig.tick_at_deadline()
    rig.core.observers[0].healed(rig.now, 0.0)


def test_ticks_that_change_nothing() -> None:
    rig = timed()
    rig.submit(1, timeout=5.0)
    rig.tick()
    rig.tick()
    with violates(26, "2 ticks in a row changed nothing, at an unchanged time"):
        rig.tick()


def test_another_fact_between_two_ticks_makes_a_difference() -> None:
    rig = timed()
    rig.submit(1, timeout=5.0)
    for _ in range(3):
        rig.tick()
        rig.tick()
        rig.cancel(7)


def test_ticks_that_change_something(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = timed()
    progress = rig.core.observers[0]
    for _ in range(5):
        progress.observed(Tick(), [Notice("throttled", "chat", 0.0, 0.0)], rig.now, 0.0)
    deadlines = iter(rig.now + wait for wait in range(1, 6))
    monkeypatch.setattr(type(rig.core), "deadline", lambda self: next(deadlines))
    for _ in range(5):
        rig.tick()


def test_other_facts_while_the_clock_is_behind() -> None:
    rig = timed()
    rig.cancel(9)
    rig.now -= 3.0
    for _ in range(5):
        rig.cancel(9)
    rig.tick()
    rig.tick()
    with violates(26, "2 ticks in a row"):
        rig.tick()


def test_something_is_left_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Timers, "pop_due", lambda self, now: None)
    rig = timed()
    rig.submit(1, timeout=5.0)
    with violates(26, "something was due 1 s ago, and was not done"):
        rig.tick(6.0)


def test_a_clock_that_goes_back_leaves_something_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = timed()
    rig.submit(1, timeout=5.0)
    rig.cancel(9)
    rig.now -= 3.0
    monkeypatch.setattr(type(rig.core), "deadline", lambda self: rig.now + 1.0)
    with violates(23, "the clock went back, and now something was due 2 s ago"):
        rig.cancel(9)
