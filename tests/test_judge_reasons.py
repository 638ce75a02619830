"""`sansio.simulation.judge`: nobody fails without a reason (27), and what goes with it (4, 20, 21)."""

from __future__ import annotations

from typing import Any

import pytest
from engine_harness import BATCH, OPEN_ENDED, USAGE, deployment
from judge_models_rig import JudgedRig, breaks, judged_walk

from sansio.backoff import JitterKind
from sansio.batch import TokenEstimate, Tokens, TokenUsage
from sansio.budget import BudgetLedger, BudgetRefusal
from sansio.circuits import Circuits
from sansio.classify import classify_http_status
from sansio.deployment import Deployment
from sansio.engine import RemoteEngineCore
from sansio.errors import (
    Backpressure,
    BadRequest,
    BudgetExceeded,
    CircuitOpen,
    ContentFiltered,
    DeadlineExceeded,
    EngineClosed,
    Forbidden,
    InferenceError,
    Internal,
    LimitExceeded,
    NetworkError,
    NotFound,
    QuotaExhausted,
    RateLimited,
    ServerError,
    StreamInterrupted,
    Timeout,
    Unauthorized,
)
from sansio.events import AddRequest, AttemptEnded, Close, Complete, Effect, Event, HeadReceived, Notice, StartAttempt, Tick
from sansio.http import ResponseHead
from sansio.lane import Lane
from sansio.prices import LongContext, Price
from sansio.retry import GiveUp, RetryEngine
from sansio.secret import Credential
from sansio.simulation.judge import reasons
from sansio.simulation.judge.money import usd_of
from sansio.simulation.judge.reasons import Reasons
from sansio.simulation.world.node import Call
from sansio.simulation.world.plan import CallerPlan

PRICE = {"input": 1000.0, "output": 1000.0}
"""A thousandth of a dollar for a token."""


def rig_of(*deployments: Deployment, **options: Any) -> JudgedRig:
    return JudgedRig(Reasons, *deployments, **options)


def running(*request_ids: int, **options: Any) -> JudgedRig:
    """A rig in which these requests run, as far as there are slots."""
    rig = rig_of(deployment(**options))
    for request_id in request_ids or (1,):
        rig.submit(request_id)
    return rig


def say(rig: JudgedRig, event: Event, *effects: Effect) -> None:
    """The part is told of a fact, and of orders that no engine gave."""
    rig.part.observed(event, effects, rig.now, rig.now + rig.unix_ahead)


def ended(rig: JudgedRig, error: InferenceError, **options: Any) -> AttemptEnded:
    return AttemptEnded(1, rig.started[1].attempt, error, None, True, **options)


def fails_for_good(rig: JudgedRig, error: InferenceError, **options: Any) -> None:
    """It is said that an attempt failed so, and that this was the end."""
    say(rig, ended(rig, error, **options), Complete(1, error))


def is_told(rig: JudgedRig, error: InferenceError) -> None:
    say(rig, Tick(), Complete(1, error))


UNDUE = "request 1 of 'chat' failed with {!r} after {} attempts, and "


# ---- the error of its last attempt ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        ServerError(503),
        NetworkError(),
        BadRequest(should_retry=True),
        RateLimited(retry_after=60.0),
        ServerError(retry_after=-1.0),
    ],
)
def test_what_could_have_been_sent_again(error: InferenceError) -> None:
    with breaks(27, UNDUE.format(error.kind, 1) + "nothing forbade to send it again"):
        fails_for_good(running(), error)


def test_what_was_lost_unread_could_have_been_sent_again() -> None:
    for options in ({"retry": {"max_retries": 0}}, {"retry": {"max_retries": 0}, "idempotent": False}):
        with breaks(27, "nothing forbade"):
            fails_for_good(running(**options), NetworkError(unprocessed=True))
    with breaks(27, "nothing forbade"):
        fails_for_good(running(retry={"max_retries": 0}), NetworkError(), stale=True)


def test_a_refreshed_credential_could_have_been_tried() -> None:
    with breaks(27, UNDUE.format("unauthorized", 1) + "nothing forbade"):
        fails_for_good(running(), Unauthorized())


@pytest.mark.parametrize(
    ("error", "options"),
    [
        (BadRequest(), {}),
        (QuotaExhausted(should_retry=True), {}),
        (Forbidden(should_retry=True), {}),
        (ServerError(503, should_retry=False), {}),
        (StreamInterrupted(cause=NetworkError()), {}),
        (ServerError(503), {"idempotent": False}),
        (NetworkError(), {"retry": {"retry_on": ["timeout"]}}),
        (ServerError(503), {"retry": {"max_retries": 0}}),
        (RateLimited(retry_after=61.0), {}),
        (Unauthorized(retry_after=61.0), {}),
        (Unauthorized(should_retry=False), {}),
        (Unauthorized(), {"idempotent": False}),
    ],
)
def test_what_must_not_be_sent_again(error: InferenceError, options: dict[str, Any]) -> None:
    fails_for_good(running(**options), error)


@pytest.mark.parametrize(("timeout", "due"), [(1.0, True), (1.001, False)])
def test_a_wait_that_reaches_the_deadline(timeout: float, due: bool) -> None:
    rig = rig_of()
    rig.submit(1, timeout=timeout)
    if due:
        fails_for_good(rig, ServerError(503))
    else:
        with breaks(27, "nothing forbade"):
            fails_for_good(rig, ServerError(503))


@pytest.mark.parametrize(
    ("jitter", "hint", "longest"),
    [("none", 2.0, 2.0), ("equal", 2.0, 2.2), ("equal", None, 1.0), ("decorrelated", None, 3.0)],
)
def test_the_longest_wait_there_may_be(jitter: str, hint: float | None, longest: float) -> None:
    for timeout, due in ((longest, True), (longest + 0.001, False)):
        rig = rig_of(deployment(retry={"jitter": JitterKind(jitter)}))
        rig.submit(1, timeout=timeout)
        if due:
            fails_for_good(rig, ServerError(503, retry_after=hint))
        else:
            with breaks(27, "nothing forbade"):
                fails_for_good(rig, ServerError(503, retry_after=hint))


def test_an_engine_that_always_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RetryEngine, "decide", lambda self, attempt, error, *rest: GiveUp("not_retryable", error))
    with breaks(27, "nothing forbade"):
        running().end(1, ServerError(503))


def test_the_engine_retries_as_long_as_it_may() -> None:
    rig = running(retry={"max_retries": 2})
    for _ in range(2):
        rig.end(1, NetworkError(), stale=True)  # the first goes again at once, and does not count
        if not rig.starts():
            rig.tick_at_deadline()
    rig.end(1, ServerError(503))
    rig.tick_at_deadline()
    rig.end(1, ServerError(503))
    assert rig.outcome(1) == "server_error"
    rig.submit(2)
    rig.end(2)
    rig.healed()


def test_a_spent_retry_budget_is_a_reason() -> None:
    rig = rig_of(deployment(breaker={"failure_threshold": 10_000}, retry={"initial_backoff": 30.0}))
    failed = 0
    for request_id in range(1, 40):
        rig.submit(request_id)
        rig.end(request_id, ServerError(503))
        failed += rig.outcome(request_id) == "server_error"
        if request_id % 20 == 0:
            rig.tick(11.0)
    assert 0 < failed < 39
    assert rig.metrics.retries["server_error"] == 39 - failed


def test_a_retry_that_its_provider_asked_for_is_free() -> None:
    rig = rig_of(deployment(serving={"max_concurrent": 50}))
    for request_id in range(40):
        rig.submit(request_id)
    for request_id in range(40):
        rig.end(request_id, RateLimited(retry_after=1.0))
    rig.tick(1.0)
    with breaks(27, "nothing forbade"):
        say(rig, AttemptEnded(0, rig.started[0].attempt, error := ServerError(503), None, True), Complete(0, error))


def test_a_401_that_comes_back_unchanged() -> None:
    rig = running()
    rig.end(1, Unauthorized())
    rig.refresh(Credential("sk-1"))
    assert rig.outcome(1) == "unauthorized"


def test_a_401_after_a_refreshed_credential() -> None:
    rig = running()
    rig.end(1, Unauthorized())
    rig.refresh()
    rig.end(1, Unauthorized())
    assert rig.outcome(1) == "unauthorized"


def test_what_was_to_be_sent_again() -> None:
    rig = running()
    rig.end(1, error := ServerError(503))
    with breaks(27, "it was to be sent again"):
        is_told(rig, error)


# ---- errors of the engine's own ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [Internal("boom"), BadRequest(), Timeout(), NetworkError(), StreamInterrupted()])
def test_what_no_attempt_ended_with(error: InferenceError) -> None:
    with breaks(27, UNDUE.format(error.kind, 1) + "no attempt of it ended so"):
        is_told(running(), error)


def test_another_error_than_the_attempts() -> None:
    rig = running()
    with breaks(27, UNDUE.format("internal", 1) + "no attempt of it ended so"):
        say(rig, ended(rig, ServerError(503)), Complete(1, Internal("boom")))


def test_a_deadline_that_is_none_or_has_not_come() -> None:
    with breaks(27, UNDUE.format("deadline_exceeded", 1) + "it has no deadline"):
        is_told(running(), DeadlineExceeded())
    rig = rig_of()
    rig.submit(1, timeout=10.0)
    rig.now += 5.0
    with breaks(27, UNDUE.format("deadline_exceeded", 1) + "it has 5 s left"):
        is_told(rig, DeadlineExceeded())
    rig = rig_of()
    rig.submit(1, timeout=10.0)
    rig.now += 10.0
    is_told(rig, DeadlineExceeded())


@pytest.mark.parametrize(
    ("limits", "due"),
    [
        ({"requests_per_minute": 1}, True),
        ({"requests_per_minute": 3}, False),
        ({"tokens_per_minute": 39}, True),
        ({"tokens_per_minute": 40}, False),
        ({"input_tokens_per_minute": 19}, True),
        ({"output_tokens_per_minute": 19}, True),
        ({"output_tokens_per_minute": 20, "input_tokens_per_minute": 20}, False),
        ({"requests_per_minute": 10, "burst": 5}, True),
    ],
)
def test_a_limit_that_frees_too_late(limits: dict[str, int], due: bool) -> None:
    rig = rig_of(deployment(limits=limits))
    rig.submit(1)
    rig.core.observers = ()
    rig.submit(2, timeout=5.0)
    told = Complete(2, DeadlineExceeded())
    add = AddRequest(2, "chat", BATCH, TokenEstimate(10, 10), timeout=5.0)
    rig.core.observers = (rig.part,)
    if rig.outcome(2) == "-":
        rig.cancel(2)
    if due:
        say(rig, add, told)
    else:
        with breaks(27, "it has 5 s left"):
            say(rig, add, told)


def test_a_pause_past_a_deadline_or_max_retry_after() -> None:
    rig = running(1, serving={"max_concurrent": 1}, retry={"max_retry_after": 20.0})
    rig.submit(2, timeout=300.0)
    rig.submit(3, timeout=5.0)
    rig.submit(4)
    rig.end(1, RateLimited(retry_after=10.0))
    assert (rig.outcome(2), rig.outcome(3), rig.outcome(4)) == ("-", "deadline_exceeded", "-")
    rig.submit(5, timeout=10.0)
    assert rig.outcome(5) == "deadline_exceeded"
    rig.tick(10.0)
    rig.end(1, RateLimited(retry_after=20.5))
    assert [rig.outcome(each) for each in (1, 2, 4)] == ["rate_limited"] * 3
    rig.submit(6)
    assert rig.outcome(6) == "rate_limited"
    with breaks(27, UNDUE.format("rate_limited", 1) + "its limiter pauses for no longer than it may wait"):
        is_told(running(), RateLimited())


def test_somebody_waits_for_a_pause_that_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lane, "cannot_wait", lambda self, pause, now: [])
    rig = running(1, 2, serving={"max_concurrent": 1})
    rig.submit(3, timeout=5.0)
    with breaks(27, "request 3 of 'chat' still waits, and a 429 pauses its limiter past its deadline"):
        rig.end(1, RateLimited(retry_after=5.0))
    rig = running(1, 2)
    rig.end(2, ServerError(503))
    with breaks(27, "request 2 of 'chat' still waits, and a 429 pauses its limiter past its max_retry_after"):
        rig.end(1, RateLimited(retry_after=61.0))


def test_a_429_pauses_only_those_who_share_its_limiter() -> None:
    other = deployment("other", model="gpt-4o-mini")
    rig = rig_of(deployment(), other)
    rig.submit(1)
    rig.submit(2, "other")
    for request_id, hint in enumerate((0.0, None, 2.0, 61.0), 3):
        rig.submit(request_id)
        rig.end(request_id, RateLimited(retry_after=hint))
        rig.cancel(request_id)
        rig.tick(5.0)
    assert (rig.outcome(1), rig.outcome(2)) == ("-", "-")  # one of them runs, the other has another limiter


def test_a_hint_that_is_not_followed_pauses_nobody() -> None:
    rig = running(1, serving={"max_concurrent": 1}, retry={"respect_retry_after": False})
    rig.submit(2, timeout=5.0)
    rig.end(1, RateLimited(retry_after=50.0))
    assert rig.outcome(2) == "-"


# Circuits.


def test_a_circuit_that_is_open() -> None:
    rig = running(1, 2, breaker={"failure_threshold": 1, "open_duration": 10.0}, serving={"max_concurrent": 1})
    rig.submit(3, wait_for_circuit=True, timeout=9.0)
    rig.submit(4, wait_for_circuit=True, timeout=11.0)
    rig.submit(5, wait_for_circuit=True)
    rig.end(1, ServerError(503))
    assert [rig.outcome(each) for each in (1, 2, 3, 4, 5)] == ["circuit_open"] * 3 + ["-"] * 2
    rig.override("open")
    assert [rig.outcome(each) for each in (4, 5)] == ["circuit_open", "-"]
    rig.override("close")
    assert rig.starts() == [5]
    with breaks(27, "request 5 of 'chat' failed with 'circuit_open' after 1 attempts, and its circuits are closed"):
        say(rig, Tick(), Complete(5, CircuitOpen()))


def test_who_waits_for_a_circuit_is_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Circuits, "may_wait", lambda self, *rest: False)
    for timeout in (None, 31.0):
        rig = running(1, breaker={"failure_threshold": 1}, serving={"max_concurrent": 1})
        rig.submit(2, wait_for_circuit=True, timeout=timeout)
        with breaks(27, "request 2 of 'chat' failed with 'circuit_open' after 0 attempts, and it asked to wait for it"):
            rig.end(1, ServerError(503))


def test_who_waits_does_so_while_a_probe_is_out() -> None:
    rig = running(1, breaker={"failure_threshold": 1, "open_duration": 1.0})
    rig.end(1, ServerError(503))
    rig.submit(2, wait_for_circuit=True)
    rig.tick_at_deadline()
    assert rig.starts() == [2]
    add = AddRequest(3, "chat", BATCH, TokenEstimate(1, 1), timeout=5.0, wait_for_circuit=True)
    with breaks(27, "it asked to wait for it"):
        say(rig, add, Complete(3, CircuitOpen()))


def test_a_circuit_of_somebody_elses() -> None:
    rig = rig_of(
        deployment(breaker={"failure_threshold": 1}), deployment("other", endpoint="http://two.test/v1", key="sk-two")
    )
    rig.submit(1)
    rig.submit(2, "other")
    rig.end(1, ServerError(503))
    with breaks(27, "request 2 of 'other' failed with 'circuit_open' after 1 attempts, and its circuits are closed"):
        say(rig, Tick(), Complete(2, CircuitOpen()))


def test_the_circuit_of_a_key() -> None:
    rig = running(1, 2, serving={"max_concurrent": 1})
    rig.end(1, Forbidden())
    assert rig.outcome(2) == "circuit_open"


def test_a_retry_that_was_granted_and_met_an_open_circuit_is_drawn() -> None:
    rig = running(*range(1, 12), breaker={"failure_threshold": 1}, serving={"max_concurrent": 20})
    for request_id in range(1, 12):
        rig.end(request_id, ServerError(503))
    assert [rig.outcome(each) for each in range(1, 12)].count("circuit_open") == 11
    rig = running(1, breaker={"failure_threshold": 1})
    rig.override("open")
    rig.end(1, RateLimited(retry_after=1.0))
    assert rig.outcome(1) == "circuit_open"


# Limits and budgets.


@pytest.mark.parametrize(
    ("limits", "tokens"),
    [
        ({"tokens_per_minute": 19}, (10, 10)),
        ({"input_tokens_per_minute": 9}, (10, 1)),
        ({"output_tokens_per_minute": 9}, (1, 10)),
    ],
)
def test_a_request_that_is_larger_than_a_limit(limits: dict[str, int], tokens: tuple[int, int]) -> None:
    rig = rig_of(deployment(limits=limits))
    rig.submit(1, tokens=tokens)
    assert rig.outcome(1) == "limit_exceeded"
    add = AddRequest(2, "chat", OPEN_ENDED, TokenEstimate(1, 1_000))
    with breaks(27, "request 2 of 'chat' failed with 'limit_exceeded' after 0 attempts, and it is within every limit"):
        say(rig, add, Complete(2, LimitExceeded()))


def test_a_request_that_is_within_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RemoteEngineCore, "_refusal", lambda self, request: LimitExceeded())
    with breaks(27, UNDUE.format("limit_exceeded", 0) + "it is within every limit"):
        running()


def budgeted(**budget: Any) -> Deployment:
    return deployment(serving={"max_concurrent": 9}, price=PRICE, budget={"max_spend_per_hour_usd": 0.05} | budget)


def test_a_budget_that_is_spent() -> None:
    rig = rig_of(budgeted())
    rig.submit(1)
    rig.submit(2)
    rig.submit(3)
    assert rig.outcome(3) == "budget_exceeded"
    rig.send(1)
    rig.end(1, usage=TokenUsage(10, 5))
    rig.cancel(2)
    rig.submit(4)
    assert rig.starts() == [4]
    with breaks(27, "request 5 of 'chat' failed with 'budget_exceeded' after 0 attempts, and its budget covers it"):
        add = AddRequest(5, "chat", BATCH, TokenEstimate(10, 5))
        say(rig, add, Complete(5, BudgetExceeded()))


@pytest.mark.parametrize(
    ("usage", "sent", "left"),
    [
        (TokenUsage(10, 5), True, 35),
        (None, True, 30),
        (TokenUsage(1, 1, provenance="unknown"), True, 30),
        (TokenUsage(10, 5, provenance="lower_bound"), True, 30),
        (TokenUsage(20, 10, provenance="lower_bound"), True, 20),
        (None, False, 50),
    ],
)
def test_what_a_budget_has_left(usage: TokenUsage | None, sent: bool, left: int) -> None:
    for cost, due in ((left + 1, True), (left, False)):
        rig = rig_of(budgeted())
        rig.submit(1)
        say(rig, AttemptEnded(1, rig.started[1].attempt, None, usage, sent))
        add = AddRequest(2, "chat", BATCH, TokenEstimate(cost, 0))
        if due:
            say(rig, add, Complete(2, BudgetExceeded()))
        else:
            with breaks(27, "its budget covers it"):
                say(rig, add, Complete(2, BudgetExceeded()))


def test_a_refused_attempt_costs_nothing_and_a_late_report_counts() -> None:
    rig = rig_of(budgeted())
    rig.submit(1)
    rig.send(1)
    rig.cancel(1)
    rig.end(1, usage=TokenUsage(30, 19))
    rig.submit(2, tokens=(1, 1))
    assert rig.outcome(2) == "budget_exceeded"
    rig.submit(3, tokens=(1, 0))
    rig.end(3, NetworkError(unprocessed=True, should_retry=False))
    rig.submit(4, tokens=(1, 0))
    assert rig.starts() == [4]
    rig.end(4)
    rig.healed()


def test_money_comes_back_with_time() -> None:
    rig = rig_of(budgeted(max_spend_per_day_usd=0.06))
    rig.submit(1, tokens=(25, 25))
    rig.submit(2)
    rig.tick(3_600.0 * 1.01)
    rig.submit(3)
    rig.submit(4, tokens=(5, 5))
    assert (rig.outcome(2), rig.outcome(3), rig.outcome(4)) == ("budget_exceeded", "budget_exceeded", "-")


def test_what_was_spent_yesterday_is_forgotten() -> None:
    rig = rig_of(budgeted())
    rig.submit(1)
    rig.tick(86_400.0 * 1.01)
    rig.submit(2)
    rig.end(1, usage=TokenUsage(99, 99))
    rig.submit(3)
    with breaks(27, "its budget covers it"):
        say(rig, AddRequest(4, "chat", BATCH, TokenEstimate(5, 5)), Complete(4, BudgetExceeded()))


def test_deadlines_that_have_passed_are_forgotten() -> None:
    rig = running(1, serving={"max_concurrent": 1})
    for request_id in range(2, 5):
        rig.submit(request_id, timeout=1.0)
        rig.tick(1.0)
        assert rig.outcome(request_id) == "deadline_exceeded"
    assert isinstance(rig.part, Reasons)
    assert len(rig.part._excuses._deadlines[0]) == 1


def test_a_budget_that_does_not_reject(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BudgetLedger, "reserve", lambda self, usd, now: BudgetRefusal(None))
    for given in (budgeted(on_exceeded="warn"), budgeted(on_exceeded="throttle")):
        with breaks(27, UNDUE.format("budget_exceeded", 0) + "there is no budget that rejects"):
            rig_of(given).submit(1)
    with breaks(27, UNDUE.format("budget_exceeded", 0) + "its budget covers it"):
        rig_of(budgeted()).submit(1)


# The engine closes, a queue is full, a credential is not to be had.


def test_an_engine_that_closes() -> None:
    rig = rig_of(
        deployment(serving={"max_concurrent": 1}),
    )
    rig.submit(1)
    rig.submit(2)
    rig.drain()
    rig.submit(3)
    assert (rig.outcome(2), rig.outcome(3)) == ("-", "engine_closed")
    with breaks(27, "request 2 of 'chat' failed with 'engine_closed' after 0 attempts, and the engine is not closed"):
        say(rig, Tick(), Complete(2, EngineClosed()))
    rig = running(1, 2, serving={"max_concurrent": 1})
    rig.close()
    assert (rig.outcome(1), rig.outcome(2)) == ("engine_closed", "engine_closed")
    rig.end(1)
    rig.healed()


def test_a_full_queue_is_looked_at_elsewhere() -> None:
    is_told(running(), Backpressure())


def test_a_refresh_that_fails() -> None:
    rig = rig_of(refreshed=False)
    rig.submit(1)
    rig.submit(2)
    rig.refresh(NetworkError())
    assert (rig.outcome(1), rig.outcome(2)) == ("unauthorized", "unauthorized")
    rig.submit(3)
    with breaks(27, "request 3 of 'chat' failed with 'unauthorized' after 0 attempts, and no refresh has just failed"):
        say(rig, Tick(), Complete(3, Unauthorized()))


# ---- 4: an error each ---------------------------------------------------------------------------------------------------


def test_two_are_told_the_same_error() -> None:
    rig = running(1, 2)
    rig.now += 1.0
    rig.drain()
    error = EngineClosed()
    add = AddRequest(3, "chat", BATCH, TokenEstimate(1, 1))
    say(rig, add)
    with breaks(4, "request 3 of 'chat' was told the very error ('engine_closed') that another was told"):
        say(rig, Close(), Complete(1, error), Complete(3, error))


# ---- what an attempt ended with -----------------------------------------------------------------------------------------


def answered(rig: JudgedRig, status: int, error: InferenceError | None, *, apart: bool = True) -> None:
    """An attempt is answered with this status, and ends so."""
    head, attempt = ResponseHead(status, ()), rig.started[1].attempt
    if apart:
        say(rig, HeadReceived(1, attempt, head))
    say(rig, AttemptEnded(1, attempt, error, None, True, head=None if apart else head))


@pytest.mark.parametrize("status", [204, 302, 400, 401, 402, 403, 404, 408, 409, 418, 425, 429, 500, 503, 599])
def test_a_status_is_read_as_it_is(status: int) -> None:
    for should_retry in (None, False, True):
        answered(running(), status, classify_http_status("openai", status, should_retry=should_retry))
    answered(running(), status, EngineClosed())
    for wrong in (Internal(), Timeout() if status != 408 else BadRequest()):
        with breaks(27, f"request 1 of 'chat' was answered with status {status}, which was read as {wrong.kind!r}"):
            answered(running(), status, wrong, apart=False)
    with breaks(20, f"request 1 of 'chat' was answered with status {status}, and that counts as a success"):
        answered(running(), status, None)


def test_what_a_body_may_make_of_a_status() -> None:
    answered(running(), 429, QuotaExhausted(code="insufficient_quota"))
    answered(running(), 429, LimitExceeded())
    answered(running(), 400, ContentFiltered())
    for status, error in ((429, QuotaExhausted()), (503, LimitExceeded()), (404, ContentFiltered()), (400, NotFound())):
        with breaks(27, "which was read as"):
            answered(running(), status, error)


@pytest.mark.parametrize("flag", ["retryable", "counts_as_circuit_failure"])
def test_an_error_that_is_its_kind_only_by_name(flag: str) -> None:
    error = ServerError(503)
    setattr(error, flag, False)
    with breaks(27, "request 1 of 'chat' was answered with status 503, and its 'server_error' is no usual one"):
        answered(running(), 503, error)


def test_a_head_that_comes_late_says_nothing() -> None:
    rig = running()
    say(rig, HeadReceived(1, 99, ResponseHead(503, ())))
    say(rig, HeadReceived(7, 1, ResponseHead(503, ())))
    rig.head(1)
    rig.end(1)
    assert rig.outcome(1) == "ok"


@pytest.mark.parametrize(
    ("phase", "after"), [("connect", 1.0), ("first byte", 2.0), ("read", 3.0), ("content", 4.0), ("total", 5.0)]
)
def test_a_clock_that_has_not_run_out(phase: str, after: float) -> None:
    timeouts = {
        "connect_timeout": 1.0, "request_timeout": 2.0, "read_timeout": 3.0, "content_timeout": 4.0, "total_timeout": 5.0,
    }  # fmt: skip
    rig = running(timeouts=timeouts)
    rig.now += after
    say(rig, ended(rig, Timeout(phase=phase)))
    rig = running(timeouts=timeouts)
    rig.now += after - 0.25
    about = f"request 1 of 'chat' ended for its {phase} timeout of {after} s after {after - 0.25:g} s"
    with breaks(27, about):
        say(rig, ended(rig, StreamInterrupted(cause=Timeout(phase=phase))))
    say(running(), ended(running(), Timeout()))  # a 408


def test_a_clock_that_does_not_run() -> None:
    with breaks(27, "ended for its total timeout of None s"):
        rig = running()
        say(rig, ended(rig, Timeout(phase="total")))


def test_an_attempt_that_is_cut_for_its_deadline() -> None:
    rig = rig_of()
    rig.submit(1, timeout=5.0)
    rig.now += 5.0
    fails_for_good(rig, DeadlineExceeded())
    for timeout in (None, 5.001):
        rig = rig_of()
        rig.submit(1, timeout=timeout)
        rig.now += 5.0
        with breaks(27, "request 1 of 'chat' ended for its deadline, which has not come"):
            say(rig, ended(rig, DeadlineExceeded()))


# ---- 4: what a broken stream says of itself -------------------------------------------------------------------------------


def told(error: InferenceError | None, *text: str, left: bool = False) -> Call:
    return Call(CallerPlan(0, 0.0, "chat", "hello"), 1, 0.0, text=list(text), error=error, ended=True, left=left)


def test_a_stream_that_broke_says_what_was_delivered() -> None:
    part = Reasons(running().core)
    part.ended(told(None, "all"))
    part.ended(told(ServerError()))
    part.ended(told(StreamInterrupted(Tokens("some of it")), "some ", "of it"))
    part.ended(told(StreamInterrupted()))
    part.ended(told(StreamInterrupted(Tokens("more")), left=True))
    for partial in (None, Tokens("some"), Tokens("some of it")):
        with breaks(4, "request 1 was handed 'some of' before its stream broke, and was told"):
            part.ended(told(StreamInterrupted(partial), "some ", "of"))


# ---- 21: what is counted, and what it costs ----------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "off"), [("retries", {"x": 1}), ("failures", {}), ("throttled", 7)])
def test_a_count_that_is_off(name: str, off: Any) -> None:
    rig = running(1, 2)
    rig.end(1, RateLimited(retry_after=1.0))
    rig.end(2, BadRequest())
    rig.cancel(1)
    rig.healed()
    setattr(rig.core.registry.metrics, name, off)
    with breaks(21, f"metrics.{name} is"):
        rig.healed()


def test_what_all_attempts_cost() -> None:
    rig = rig_of(deployment(price=PRICE), deployment("free", model="unheard-of"))
    for request_id, usage in enumerate(
        (
            USAGE,
            TokenUsage(7, 3, provenance="lower_bound"),
            TokenUsage(1, 1, provenance="unknown"),
            TokenUsage(9, 9, 5, 2),
            None,
        )
    ):
        rig.submit(request_id)
        rig.end(request_id, usage=usage)
    rig.submit(6, "free")
    rig.end(6)
    rig.healed()
    rig.core.registry.costs.count("chat", "gpt-4o", USAGE, Price(1.0, 1.0))
    with breaks(21, "what was used costs (6, 3, "):
        rig.healed()


def test_a_price_list() -> None:
    price = Price(1.0, 2.0, 0.5, 4.0, LongContext(100, 10.0, 20.0))
    assert usd_of(TokenUsage(100, 10), price) == pytest.approx(120e-6)
    assert usd_of(TokenUsage(100, 10, 50, 10), price) == pytest.approx((40 + 25 + 40 + 20) / 1e6)
    assert usd_of(TokenUsage(101, 1, 1, 1), price) == pytest.approx(1030e-6)


# ---- what others say ---------------------------------------------------------------------------------------------------


def test_what_is_not_known_is_somebody_elses_to_say() -> None:
    rig = running()
    start = rig.started[1]
    say(rig, Tick(), StartAttempt(9, 9, start.exchange), Complete(9, None))
    say(rig, Tick(), Notice("retry_scheduled", "chat", 0.0, 0.0, 9, {"reason": "timeout"}))
    say(rig, Tick(), Notice("retry_scheduled", "chat", 0.0, 0.0, 1, {"reason": "timeout"}))
    say(rig, Tick(), Notice("throttled", "chat", 0.0, 0.0))
    say(rig, AttemptEnded(9, 9, None, None, True))
    rig.cancel(9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("roster", ["alone", "limited", "mixed", "spending", "ageing"])
def test_it_is_quiet_in_random_worlds(roster: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reasons, "mistimed", lambda *rest: None)  # these drivers call off what they like
    judged_walk(monkeypatch, Reasons, roster, seed)
