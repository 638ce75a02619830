"""`sansio.simulation.judge`: slots, queues and their order (spec 5: 6, 7, and 11 for those outside a full queue)."""

from __future__ import annotations

from typing import Any

import pytest
from engine_harness import deployment
from judged_rig import JudgedRig, violates

from sansio.errors import Backpressure, ServerError
from sansio.events import AttemptEnded, Complete, StartAttempt, Tick
from sansio.lane import Lane
from sansio.queue import Priority, RequestQueue

HIGH, CRITICAL = Priority.HIGH, Priority.CRITICAL


def busy(**serving: Any) -> JudgedRig:
    """A rig whose one slot is taken by request 1."""
    rig = JudgedRig(deployment(serving={"max_concurrent": 1} | serving))
    rig.submit(1)
    return rig


def goes_next(rig: JudgedRig, request_id: int) -> None:
    """It is said that this one goes next when request 1 is over."""
    order = StartAttempt(request_id, 50, rig.started[1].exchange)
    metrics = rig.core.registry.metrics
    metrics.queued, metrics.done, metrics.attempts = metrics.queued - 1, 1, 2
    rig.say(AttemptEnded(1, rig.started[1].attempt, None, None, False), Complete(1, None), order)


# What is right is not disturbed.


def test_the_engines_own_order_is_right() -> None:
    rig = busy()
    for request_id, priority in ((2, 1), (3, 0), (4, 3), (5, 1), (6, 3)):
        rig.submit(request_id, priority=Priority(priority))
    for request_id in (1, 4, 6, 2, 5, 3):
        rig.end(request_id)
    rig.healed()


def test_who_comes_back_has_its_old_place() -> None:
    rig = JudgedRig(deployment(serving={"max_concurrent": 2}))
    for request_id in (1, 2, 3):
        rig.submit(request_id)
    rig.end(1, ServerError(503))
    rig.submit(4)
    rig.tick_at_deadline()
    rig.end(2)
    assert rig.starts() == [1]
    for request_id in (3, 1, 4):
        rig.end(request_id)
    rig.healed()


def test_who_stands_outside_is_not_overtaken() -> None:
    rig = busy(queue_capacity=1)
    rig.submit(2)
    rig.submit(3, priority=HIGH)
    rig.end(1)
    assert rig.starts() == [2]
    rig.submit(4)
    for request_id in (2, 3, 4):
        rig.end(request_id)
    rig.healed()


def test_who_ages_goes_before_a_higher_priority() -> None:
    rig = busy(age_after=5.0)
    rig.submit(2)
    rig.tick(6.0)
    rig.submit(3, priority=HIGH)
    rig.end(1)
    assert rig.starts() == [2]


def test_tenants_take_turns() -> None:
    rig = busy(fair_tenants=True)
    for request_id, tenant in ((2, "a"), (3, "a"), (4, "b")):
        rig.submit(request_id, tenant=tenant)
    for request_id in (1, 2, 4, 3):
        rig.end(request_id)
    rig.healed()


# 7: nobody is overtaken.


def test_the_last_goes_first() -> None:
    rig = busy()
    rig.submit(2)
    rig.submit(3)
    with violates(7, "request 3 of 'chat' was started before request 2 of 'chat', which came earlier and waits"):
        goes_next(rig, 3)


def test_the_lowest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = busy()
    rig.submit(2, priority=HIGH)
    rig.submit(3, priority=CRITICAL)
    rig.submit(4, priority=CRITICAL)
    rig.submit(5)
    monkeypatch.setattr("sansio.queue._HIGHEST_FIRST", (0, 1, 2, 3))
    with violates(7, "request 5 of 'chat' was started before request 3 of 'chat', which has a higher priority and waits"):
        rig.end(1)


@pytest.mark.parametrize("serving", [{"queue_capacity": 1}, {"age_after": 5.0}])
def test_among_equals_nothing_excuses_it(serving: dict[str, Any]) -> None:
    rig = busy(**serving)
    rig.submit(2)
    rig.submit(3)
    with violates(7, "request 3 of 'chat' was started before request 2"):
        goes_next(rig, 3)


def test_a_tenants_own_requests_keep_their_order() -> None:
    rig = busy(fair_tenants=True)
    for request_id, tenant in ((2, "a"), (3, "b"), (4, "b")):
        rig.submit(request_id, tenant=tenant)
    with violates(7, "request 4 of 'chat' was started before request 3 of 'chat', which came earlier"):
        goes_next(rig, 4)


def test_tenants_do_not_excuse_a_lower_priority() -> None:
    rig = busy(fair_tenants=True)
    rig.submit(2, tenant="a")
    rig.submit(3, tenant="b", priority=HIGH)
    with violates(7, "request 2 of 'chat' was started before request 3 of 'chat', which has a higher priority"):
        goes_next(rig, 2)


def test_who_comes_back_does_not_overtake() -> None:
    rig = busy()
    rig.submit(2)
    rig.end(1, ServerError(503))
    rig.submit(3, priority=CRITICAL)
    rig.now += 1.0
    order = StartAttempt(1, 50, rig.started[1].exchange)
    with violates(7, "request 1 of 'chat' was started before request 3 of 'chat', which has a higher priority"):
        rig.say(AttemptEnded(2, rig.started[2].attempt, None, None, False), Complete(2, None), order)


# 6: slots and the queue's bound.


def test_more_run_than_may(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = busy()
    monkeypatch.setattr(Lane, "slots", lambda self, now: 2)
    with violates(6, "request 2 of 'chat' was started as number 2 with 1 slots"):
        rig.submit(2)


@pytest.mark.parametrize("by", [1, -1])
def test_a_slot_is_lost_or_won(by: int) -> None:
    rig = busy()
    rig.core.roster.lanes["chat"].running += by
    with violates(6, f"1 attempts of 'chat' run, the engine holds {1 + by} slots for them"):
        rig.tick()


@pytest.mark.parametrize(("policy", "bound"), [("reject", 2), ("queue", 4), ("fallback", 2)])
def test_more_wait_than_may(policy: str, bound: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = busy(queue_capacity=2, on_capacity_exhausted=policy)
    monkeypatch.setattr(RequestQueue, "queued", 0)
    monkeypatch.setattr(RequestQueue, "waiting_outside", 0)
    rig.core.roster.lanes["chat"].queue._capacity = 100
    for request_id in range(2, 2 + bound):
        rig.submit(request_id)
    with violates(6, f"{bound + 1} wait for their first attempt, {bound} may"):
        rig.submit(50)


def test_a_place_is_free_and_refused() -> None:
    rig = busy(queue_capacity=2, on_capacity_exhausted="reject")
    rig.submit(2)
    rig.core.roster.lanes["chat"].queue._capacity = 1
    with violates(6, "request 3 of 'chat' was refused for a full queue; 1 wait, 2 may"):
        rig.submit(3)


def test_a_full_queue_refuses() -> None:
    rig = busy(queue_capacity=1, on_capacity_exhausted="reject")
    rig.submit(2)
    rig.submit(3)
    assert rig.outcome(3) == "backpressure"


def test_who_was_taken_in_and_sent_is_not_refused() -> None:
    rig = busy()
    rig.end(1, ServerError(503))
    with violates(6, "request 1 of 'chat' was refused for a full queue, after 1 attempts"):
        rig.say(Tick(), Complete(1, Backpressure()))


# 11: who stands outside a full queue does so for its timeout.


def test_who_stood_outside_for_long_enough_is_refused() -> None:
    rig = busy(queue_capacity=1, queue_timeout=5.0)
    rig.submit(2)
    rig.submit(3)
    rig.tick_at_deadline()
    assert rig.outcome(3) == "backpressure"
    rig.submit(4)
    rig.end(1)
    rig.end(2)
    rig.end(4)
    rig.tick(10.0)
    rig.healed()


def test_who_got_in_may_wait_longer() -> None:
    rig = busy(queue_capacity=1, queue_timeout=5.0)
    rig.submit(2)
    rig.tick(6.0)
    rig.end(1)
    rig.end(2)
    rig.healed()


def test_who_stands_outside_is_refused_too_early() -> None:
    rig = busy(queue_capacity=1, queue_timeout=5.0)
    rig.submit(2)
    rig.submit(3)
    rig.now += 4.0
    with violates(11, "request 3 of 'chat' was refused for a full queue after 4 s, queue_timeout is 5"):
        rig.say(Tick(), Complete(3, Backpressure()))


@pytest.mark.parametrize("by_tick", [True, False])
def test_who_stands_outside_is_forgotten(by_tick: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = busy(queue_capacity=2, queue_timeout=5.0)
    for request_id in (2, 3, 4):
        rig.submit(request_id)
    monkeypatch.setattr(RequestQueue, "expire", lambda self, now: [])
    monkeypatch.setattr(RequestQueue, "deadline", lambda self: None)
    rig.now += 5.0
    with violates(11, "3 requests of 'chat' have waited longer than queue_timeout=5, and only 2 can stand inside"):
        if by_tick:
            rig.tick()
        else:
            rig.submit(5)
