"""`sansio.simulation.judge`: what is sent again, when, how often, and within which budget (spec 5: 11 to 14)."""

from __future__ import annotations

from typing import Any

import pytest
from engine_harness import deployment
from judged_rig import JudgedRig, violates

from sansio.backoff import JitterKind
from sansio.errors import (
    BadRequest,
    Forbidden,
    InferenceError,
    NetworkError,
    ProtocolError,
    QuotaExhausted,
    RateLimited,
    ServerError,
    StreamInterrupted,
    Unauthorized,
)
from sansio.events import AttemptEnded, Committed, Notice, StartAttempt, Tick
from sansio.retry import RetryBudget, RetryEngine


def running(**options: Any) -> JudgedRig:
    """A rig in which request 1 runs."""
    rig = JudgedRig(deployment(**options))
    rig.submit(1)
    return rig


def scheduled(reason: str, wait: float) -> Notice:
    return Notice("retry_scheduled", "chat", 0.0, 0.0, 1, {"reason": reason, "wait": wait, "attempt": 1})


def ended(error: InferenceError, *, stale: bool = False, attempt: int = 1) -> AttemptEnded:
    return AttemptEnded(1, attempt, error, None, True, stale)


def again(rig: JudgedRig, attempt: int = 50) -> StartAttempt:
    return StartAttempt(1, attempt, rig.started[1].exchange)


def is_started_again(rig: JudgedRig, error: InferenceError | None, **options: Any) -> None:
    """It is said that an attempt failed so, and that another follows at once."""
    failed = AttemptEnded(1, 1, error, None, False, **options)
    rig.say(failed, again(rig))


# What is right is not disturbed.


@pytest.mark.parametrize("jitter", list(JitterKind))
@pytest.mark.parametrize("hint", [None, 0.0, 3.0, 59.0])
def test_the_engines_own_waits_are_right(jitter: JitterKind, hint: float | None) -> None:
    retry = {"jitter": jitter, "max_retries": 8, "max_backoff": 20.0, "initial_backoff": 0.5}
    rig = JudgedRig(deployment(retry=retry, breaker={"failure_threshold": 1_000}))
    for request_id in range(1, 21):
        rig.submit(request_id)
        while rig.outcome(request_id) == "-":
            rig.end(request_id, ServerError(503, retry_after=hint))
            if rig.outcome(request_id) == "-":
                rig.tick_at_deadline()
                assert rig.starts() == [request_id]
    rig.healed()


@pytest.mark.parametrize("hint", [None, 2.0])
def test_a_refreshed_credential_allows_one_more(hint: float | None) -> None:
    rig = running(retry={"max_retries": 1})
    error = Unauthorized()
    error.retry_after = hint
    rig.end(1, error)
    rig.refresh()
    if hint:
        rig.tick_at_deadline()
    assert rig.starts() == [1]
    rig.end(1, ServerError(503))
    rig.tick_at_deadline()
    rig.end(1, Unauthorized())
    assert rig.outcome(1) == "unauthorized"


def test_a_hint_that_the_policy_does_not_follow() -> None:
    rig = running(retry={"respect_retry_after": False})
    rig.end(1, ServerError(503, retry_after=40.0))
    rig.tick_at_deadline()
    assert rig.starts() == [1]


@pytest.mark.parametrize("idempotent", [True, False])
def test_what_was_lost_unread_goes_again_at_once(idempotent: bool) -> None:
    rig = running(idempotent=idempotent, retry={"max_retries": 0})
    rig.end(1, NetworkError(unprocessed=not idempotent, retry_after=3.0), stale=True)
    assert rig.starts() == [1]
    rig.end(1, NetworkError(unprocessed=True), stale=True)
    assert rig.outcome(1) == "network_error"


# 14: what must not be repeated.


@pytest.mark.parametrize(
    "error",
    [
        BadRequest(),
        QuotaExhausted(should_retry=True),
        Forbidden(should_retry=True),
        ServerError(503, should_retry=False),
        NetworkError(unprocessed=True, should_retry=False),
        ProtocolError(),
        StreamInterrupted(),
    ],
)
def test_it_is_sent_again_and_must_not_be(error: InferenceError) -> None:
    with violates(14, f"request 1 of 'chat' was sent again, after an error of kind {error.kind!r}"):
        is_started_again(running(), error)
    with violates(14, f"request 1 of 'chat' is to be sent again (timeout), after an error of kind {error.kind!r}"):
        running().say(ended(error), scheduled("timeout", 1.0))


def test_after_the_commit_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RetryEngine, "_forbidden", lambda self, attempt, error: None)
    rig = running()
    rig.commit(1)
    with violates(14, "its commit point was passed"):
        rig.end(1, NetworkError())


def test_after_a_commit_that_only_its_driver_told() -> None:
    rig = running()
    rig.say(Committed(1, 1))
    with violates(14, "its commit point was passed"):
        is_started_again(rig, NetworkError(), stale=True)


def test_what_is_not_idempotent() -> None:
    with violates(14, "after an error of kind 'network_error' (should_retry=None; it was not)"):
        is_started_again(running(idempotent=False), NetworkError(), stale=True)


def test_what_the_policy_does_not_retry() -> None:
    with violates(14):
        is_started_again(running(retry={"retry_on": ["timeout"]}), ServerError(503))


def test_a_second_refreshed_credential() -> None:
    rig = running()
    rig.end(1, Unauthorized())
    rig.refresh()
    assert rig.starts() == [1]
    with violates(14, "request 1 of 'chat' is to be sent again (unauthorized)"):
        rig.say(ended(Unauthorized(), attempt=rig.started[1].attempt), scheduled("unauthorized", 0.0))


def test_a_retry_of_what_runs_or_waits_for_its_first_attempt() -> None:
    with violates(14, "request 1 of 'chat' is to be sent again (timeout), while attempt 1 runs"):
        running().say(Tick(), scheduled("timeout", 1.0))
    rig = JudgedRig(deployment(serving={"max_concurrent": 1}))
    rig.submit(2)
    rig.submit(1)
    with violates(14, "though nothing went wrong"):
        rig.say(Tick(), scheduled("timeout", 1.0))


@pytest.mark.parametrize("reason", ["unauthorized", "stale_connection", "timeout"])
def test_another_reason_than_the_error(reason: str) -> None:
    with violates(14, f"for {reason!r}, after an error of kind 'server_error'"):
        running().say(ended(ServerError(503)), scheduled(reason, 0.0))


# 11: how often.


def test_more_retries_than_the_policy_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RetryEngine, "_forbidden", lambda self, attempt, error: None)
    rig = running(retry={"max_retries": 1}, breaker={"failure_threshold": 1_000})
    rig.end(1, ServerError(503))
    rig.tick_at_deadline()
    rig.end(1, NetworkError(), stale=True)
    with violates(11, "request 1 of 'chat' is to be retried (retry number 2), max_retries is 1"):
        rig.end(1, ServerError(503))


# 12: when.


def test_sent_again_without_a_wait() -> None:
    with violates(12, "request 1 of 'chat' was sent again without a wait, after attempt number 1"):
        is_started_again(running(), ServerError(503))


@pytest.mark.parametrize(
    ("error", "reason"),
    [(ServerError(503, retry_after=3.0), "server_error"), (RateLimited(retry_after=3.0), "rate_limited")],
)
def test_sent_again_before_its_hint(error: InferenceError, reason: str) -> None:
    rig = running()
    rig.core.observers = ()
    rig.end(1, error)
    rig.say(ended(error), scheduled(reason, 3.0))
    rig.now += 2.0
    with violates(12, "request 1 of 'chat' was sent again 1 s before its hint or the end of its backoff"):
        rig.say(Tick(), again(rig))


def test_a_refreshed_request_sent_before_its_hint() -> None:
    rig = running()
    error = Unauthorized()
    error.retry_after = 3.0
    with violates(12, "3 s before its hint"):
        rig.say(ended(error), scheduled("unauthorized", 0.0), again(rig))


def test_a_hint_is_undercut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RetryEngine, "_wait", lambda self, attempt, hint: 1.0)
    with violates(12, "request 1 of 'chat' is to wait 1 s after attempt 1 (hint: 3.0), which is not within 3 and 3"):
        running().end(1, RateLimited(retry_after=3.0))


def test_a_hint_is_undercut_by_a_hair() -> None:
    error = RateLimited(retry_after=3.0)
    with violates(12, "hint: 3.0"):
        running().say(ended(error), scheduled("rate_limited", 3.0 - 1e-12))


def test_a_hint_that_is_too_long_is_not_waited_for() -> None:
    error = RateLimited(retry_after=61.0)
    with violates(12, "request 1 of 'chat' is to wait for a hint of 61 s, max_retry_after is 60"):
        running().say(ended(error), scheduled("rate_limited", 61.0))


def test_what_was_lost_unread_does_not_wait() -> None:
    with violates(12, "request 1 of 'chat' was lost unread, and is to be sent again in 1 s instead of at once"):
        running().say(ended(NetworkError(), stale=True), scheduled("stale_connection", 1.0))


def test_nobody_waits_for_the_past() -> None:
    with violates(23, "request 1 of 'chat' is to be sent again in -1 s"):
        running().say(ended(ServerError(503)), scheduled("server_error", -1.0))


@pytest.mark.parametrize(
    ("jitter", "hint", "shortest", "longest"),
    [
        ("none", None, 4.0, 4.0),
        ("equal", None, 2.0, 4.0),
        ("full", None, 0.0, 4.0),
        ("decorrelated", None, 1.0, 20.0),
        ("none", 10.0, 10.0, 10.0),
        ("equal", 10.0, 10.0, 11.0),
        ("full", 10.0, 10.0, 11.0),
        ("decorrelated", 10.0, 10.0, 20.0),
    ],
)
def test_the_bounds_of_the_third_wait(jitter: str, hint: float | None, shortest: float, longest: float) -> None:
    retry = {"jitter": jitter, "max_backoff": 20.0}
    error = ServerError(503, retry_after=hint)

    def third(wait: float) -> JudgedRig:
        rig = running(retry=retry)
        rig.part._requests[1].attempts = 3
        rig.core.observers = ()
        rig.end(1, error)
        rig.say(ended(error), scheduled("server_error", wait))
        return rig

    third(shortest)
    third(longest)
    third((shortest + longest) / 2)
    for wait in (shortest - 0.001, longest + 0.001):
        if wait > 0.0:
            with violates(12, f"which is not within {shortest:g} and {longest:g}"):
                third(wait)


@pytest.mark.parametrize(("initial", "cap", "wait"), [(30.0, 20.0, 20.0), (0.0, 20.0, 0.0)])
def test_bounds_at_the_edges(initial: float, cap: float, wait: float) -> None:
    rig = running(retry={"initial_backoff": initial, "max_backoff": cap})
    rig.end(1, ServerError(503))
    assert rig.notices("retry_scheduled")[0]["wait"] == wait


# 13: within which budget.


def flood(rig: JudgedRig, requests: range) -> None:
    """These all fail, now."""
    for request_id in requests:
        rig.submit(request_id)
        rig.end(request_id, ServerError(503))


def slots(**options: Any) -> JudgedRig:
    return JudgedRig(deployment(breaker={"failure_threshold": 10_000}, retry={"initial_backoff": 30.0}, **options))


def test_a_flood_of_failures_is_retried_within_the_budget() -> None:
    rig = slots()
    for second in range(30):
        flood(rig, range(second * 20, second * 20 + 20))
        rig.tick(1.0)
    assert rig.metrics.retries["server_error"] > 40


def test_more_retries_than_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RetryBudget, "try_retry", lambda self, now: True)
    rig = slots()
    with violates(
        13, "request 12 of 'chat' is retried; within 0 s retries are 10.4 more than a fifth of the first attempts"
    ):
        flood(rig, range(100))


@pytest.mark.parametrize(("pause", "ok"), [(10.0, False), (10.001, True)])
def test_the_window_has_both_its_ends(pause: float, ok: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RetryBudget, "try_retry", lambda self, now: True)
    rig = slots()
    flood(rig, range(12))
    rig.tick(pause)
    if ok:
        flood(rig, range(12, 20))
    else:
        with violates(13, "within 10 s"):
            flood(rig, range(12, 20))


def test_what_was_asked_long_ago_pays_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RetryBudget, "try_retry", lambda self, now: True)
    rig = slots()
    for request_id in range(1_000, 1_100):
        rig.submit(request_id)
        rig.end(request_id)
    rig.tick(10.001)
    with violates(13, "request 12 of 'chat' is retried; within 0 s retries are 10.4 more"):
        flood(rig, range(13))


def test_a_throttled_retry_with_a_hint_is_free() -> None:
    rig = slots(serving={"max_concurrent": 50})
    for request_id in range(40):
        rig.submit(request_id)
    for request_id in range(40):
        rig.end(request_id, RateLimited(retry_after=1.0))
    assert rig.metrics.retries == {"rate_limited": 40}
