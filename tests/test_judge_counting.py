"""`sansio.simulation.judge`: the engine's counts are what can be counted from outside (spec 5: 5, 20, 21)."""

from __future__ import annotations

import pytest
from engine_harness import BATCH, USAGE, deployment
from judged_rig import JudgedRig, violates

from sansio.batch import TokenEstimate, TokenUsage
from sansio.errors import BadRequest, BudgetExceeded, NetworkError
from sansio.events import AddRequest, AttemptEnded, Complete, Notice, Tick
from sansio.lane import Lane
from sansio.metrics import UsageSum
from sansio.registry import Registry


def running(*request_ids: int, slots: int = 2) -> JudgedRig:
    rig = JudgedRig(deployment(serving={"max_concurrent": slots}))
    for request_id in request_ids:
        rig.submit(request_id)
    return rig


@pytest.mark.parametrize("name", ["submitted", "queued", "waiting", "in_flight", "done", "failed", "cancelled", "rejected"])
def test_a_count_is_off_by_one(name: str) -> None:
    rig = running(1, 2, 3)
    metrics = rig.core.registry.metrics
    setattr(metrics, name, getattr(metrics, name) + 1)
    with violates(5, "3 submitted, 3 alive (2 in flight)"):
        rig.tick()


@pytest.mark.parametrize(("more", "less"), [("queued", "waiting"), ("waiting", "queued")])
def test_no_count_is_negative(more: str, less: str) -> None:
    rig = running()
    setattr(rig.core.registry.metrics, more, 1)
    setattr(rig.core.registry.metrics, less, -1)
    with violates(5):
        rig.tick()


def test_who_is_refused_at_once_is_counted_as_rejected_or_failed() -> None:
    rig = running(1)
    metrics = rig.core.registry.metrics
    for request_id, name in ((7, "rejected"), (8, "failed")):
        metrics.submitted += 1
        setattr(metrics, name, 1)
        error = BudgetExceeded()
        rig.say(AddRequest(request_id, "chat", BATCH, TokenEstimate(1, 1)), Complete(request_id, error))
    metrics.submitted += 1
    with violates(5, "1 requests failed, 1 were rejected and 1 either; metrics.failed is 1, metrics.rejected 1"):
        rig.say(AddRequest(9, "chat", BATCH, TokenEstimate(1, 1)), Complete(9, BudgetExceeded()))


def test_who_is_refused_at_once_is_not_counted_twice() -> None:
    rig = running()
    metrics = rig.core.registry.metrics
    metrics.submitted = metrics.rejected = metrics.failed = 1
    with violates(5, "0 requests failed, 0 were rejected and 1 either"):
        rig.say(AddRequest(1, "chat", BATCH, TokenEstimate(1, 1)), Complete(1, BudgetExceeded()))


def test_a_cancel_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = running(1)
    remove = Registry.remove

    def uncounted(self: Registry, request: object) -> None:
        remove(self, request)
        self.metrics.cancelled -= 1

    monkeypatch.setattr(Registry, "remove", uncounted)
    with violates(5, "1 cancelled, 0 rejected"):
        rig.cancel(1)


# 21: attempts and their usage, once each.


def test_an_attempt_is_counted_twice() -> None:
    rig = running(1)
    rig.core.registry.metrics.attempts += 1
    with violates(21, "1 attempts were started, metrics.attempts is 2"):
        rig.tick()


def test_usage_that_is_known_is_counted_as_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    account = Registry.account
    monkeypatch.setattr(Registry, "account", lambda self, lane, usage: account(self, lane, None))
    rig = running(1)
    with violates(21, "the usage of 0 attempts is unknown, metrics.unknown_usage is 1"):
        rig.end(1)


def test_usage_is_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    count = UsageSum.add

    def twice(self: UsageSum, usage: TokenUsage) -> None:
        count(self, usage)
        count(self, usage)

    monkeypatch.setattr(UsageSum, "add", twice)
    rig = running(1)
    rig.end(1)
    with violates(21, "all attempts used [10, 10, 0, 0, 0]"):
        rig.healed()


def test_usage_that_came_late_counts() -> None:
    rig = running(1, 2)
    rig.send(1)
    for request_id in (1, 2):
        rig.cancel(request_id)
    rig.end(1, usage=TokenUsage(1, 2, 3, 4, 5))
    rig.end(2, sent=False)
    rig.healed()
    assert rig.metrics.usage == TokenUsage(1, 2, 3, 4, 5)


def test_late_usage_is_heard_once() -> None:
    rig = running(1)
    rig.send(1)
    rig.cancel(1)
    rig.end(1)
    late = Notice("late_usage", "chat", 0.0, 0.0, 1, {"known": True})
    with violates(21, "usage of request 1 came late, and no attempt of it owed a report"):
        rig.say(AttemptEnded(1, 1, None, USAGE, True), late)


# 20: unknown is not zero, and success has a proof.


def test_unknown_usage_is_taken_for_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    account = Registry.account

    def as_zero(self: Registry, lane: Lane, usage: TokenUsage | None) -> None:
        account(self, lane, usage or TokenUsage())

    monkeypatch.setattr(Registry, "account", as_zero)
    rig = running(1)
    with violates(20, "the usage of 1 attempts is unknown, metrics.unknown_usage is 0"):
        rig.end(1, usage=None)


def test_nothing_is_used_by_what_was_not_looked_at() -> None:
    rig = running(1, 2, 3)
    rig.end(1, NetworkError(unprocessed=True))
    exchange = rig.started[2].exchange
    rig.send(2)
    exchange.receive_head(400, (), rig.now, 0.0)
    rig.end(2, BadRequest())
    assert rig.metrics.unknown_usage == 0


def test_an_answer_without_tokens() -> None:
    rig = running(1)
    with violates(20, "request 1 of 'chat' was answered, and its usage is said to be zero"):
        rig.end(1, usage=TokenUsage())


def test_a_success_without_an_answer() -> None:
    rig = running(1, 2, slots=1)
    with violates(20, "request 2 of 'chat' succeeded, and no attempt of it did"):
        rig.say(Tick(), Complete(2, None))
