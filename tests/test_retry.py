"""`sansio.retry`: what is sent again and when, what is never, and how many retries an outage may cost."""

from __future__ import annotations

import math
import pickle
import random
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sansio.backoff import BackoffPolicy, JitterKind
from sansio.errors import (
    BadRequest,
    CircuitOpen,
    Conflict,
    ContentFiltered,
    Forbidden,
    InferenceError,
    NetworkError,
    ProtocolError,
    QuotaExhausted,
    RateLimited,
    ServerError,
    StreamInterrupted,
    Timeout,
    Unauthorized,
)
from sansio.retry import DEFAULT_RETRY_ON, Attempt, GiveUp, Retry, RetryBudget, RetryDecision, RetryEngine, RetryPolicy

FIRST = Attempt(1)
STEADY = RetryPolicy(jitter=JitterKind.NONE)


def decide(
    error: InferenceError,
    attempt: Attempt = FIRST,
    *,
    policy: RetryPolicy = STEADY,
    now: float = 100.0,
    deadline: float | None = None,
    budget: RetryBudget | None = None,
    seed: int = 1,
) -> RetryDecision:
    return RetryEngine(policy, budget, random.Random(seed)).decide(attempt, error, now, deadline)


def reason(decision: RetryDecision) -> str:
    return decision.reason


# What is retried.


@pytest.mark.parametrize(
    "error", [RateLimited(), Conflict(), NetworkError(), ServerError(503), Timeout(5.0), ProtocolError(retryable=True)]
)
def test_what_another_attempt_may_cure_is_retried(error: InferenceError) -> None:
    assert decide(error) == Retry(wait=1.0, at=101.0, reason=error.kind)


@pytest.mark.parametrize(("number", "wait"), [(1, 1.0), (2, 2.0), (3, 4.0)])
def test_the_wait_follows_the_backoff_of_the_attempt(number: int, wait: float) -> None:
    assert decide(ServerError(), Attempt(number)) == Retry(wait, 100.0 + wait, "server_error")


def test_an_error_that_allows_fewer_retries_is_retried_so_often() -> None:
    assert decide(ServerError(max_retries=2), Attempt(2)) == Retry(wait=2.0, at=102.0, reason="server_error")


SAYS_YES: dict[str, Any] = {"should_retry": True}
SAYS_NO: dict[str, Any] = {"should_retry": False}


@pytest.mark.parametrize(
    ("error", "attempt", "policy", "why"),
    [
        (BadRequest(), FIRST, STEADY, "not_retryable"),
        (ProtocolError(), FIRST, STEADY, "not_retryable"),
        (CircuitOpen(), FIRST, STEADY, "not_retryable"),
        (ServerError(retryable=False), FIRST, STEADY, "not_retryable"),
        # The provider's own word: no always wins, yes overrides the kind and retry_on ...
        (ServerError(**SAYS_NO), FIRST, STEADY, "not_retryable"),
        (BadRequest(**SAYS_YES), FIRST, STEADY, "bad_request"),
        (ContentFiltered(**SAYS_YES), FIRST, STEADY, "content_filtered"),
        (ServerError(**SAYS_YES), FIRST, RetryPolicy(retry_on=()), "server_error"),
        # ... but never money, identity, the commit point, repeatability or the number of attempts.
        (QuotaExhausted(**SAYS_YES), FIRST, STEADY, "not_retryable"),
        (Unauthorized(**SAYS_YES), FIRST, STEADY, "not_retryable"),
        (Forbidden(**SAYS_YES), FIRST, STEADY, "not_retryable"),
        (QuotaExhausted(retryable=True), FIRST, RetryPolicy(retry_on=["quota_exhausted"]), "not_retryable"),
        (StreamInterrupted(cause=NetworkError(), **SAYS_YES), FIRST, STEADY, "committed"),
        (ServerError(**SAYS_YES), Attempt(1, committed=True), STEADY, "committed"),
        (ServerError(**SAYS_YES), Attempt(1, idempotent=False), STEADY, "not_idempotent"),
        (ServerError(**SAYS_YES), Attempt(4), STEADY, "max_retries"),
        # Without its word.
        (ServerError(), Attempt(1, committed=True), STEADY, "committed"),
        (StreamInterrupted(cause=NetworkError()), FIRST, STEADY, "committed"),
        (ServerError(), Attempt(1, idempotent=False), STEADY, "not_idempotent"),
        (ServerError(), FIRST, RetryPolicy(retry_on={Timeout}), "not_in_retry_on"),
        (Timeout(), FIRST, RetryPolicy(retry_on={Timeout}), "timeout"),
        (ServerError(), Attempt(3), STEADY, "server_error"),
        (ServerError(), Attempt(4), STEADY, "max_retries"),
        (ServerError(), FIRST, RetryPolicy(max_retries=0), "max_retries"),
        (ServerError(max_retries=0), FIRST, STEADY, "max_retries"),
        (ServerError(max_retries=2), Attempt(3), STEADY, "max_retries"),
        (ServerError(max_retries=9), Attempt(4), STEADY, "max_retries"),
        (ServerError(max_retries=2, **SAYS_YES), Attempt(3), STEADY, "max_retries"),
    ],
)
def test_which_rule_decides(error: InferenceError, attempt: Attempt, policy: RetryPolicy, why: str) -> None:
    decision = decide(error, attempt, policy=policy)
    assert reason(decision) == why
    if isinstance(decision, GiveUp):
        assert decision.error is error
        assert why != error.kind


# When: hints and deadlines.


@pytest.mark.parametrize(
    ("hint", "wait"),
    [(20.0, 20.0), (60.0, 60.0), (0.5, 1.0), (0.0, 1.0), (None, 1.0), (-5.0, 1.0), (math.nan, 1.0), (7, 7.0)],
)
def test_the_longer_of_hint_and_backoff_is_waited(hint: float | None, wait: float) -> None:
    decision = decide(RateLimited("p", hint))
    assert decision == Retry(wait, 100.0 + wait, "rate_limited")
    assert isinstance(decision, Retry) and isinstance(decision.wait, float)


@pytest.mark.parametrize("hint", [math.nextafter(60.0, 61.0), 3600.0, math.inf])
def test_a_hint_that_is_too_long_fails_at_once(hint: float) -> None:
    assert reason(decide(RateLimited("p", hint))) == "hint_too_long"


@pytest.mark.parametrize("hint", [20.0, 3600.0, math.inf])
def test_a_policy_may_ignore_hints(hint: float) -> None:
    policy = RetryPolicy(jitter=JitterKind.NONE, respect_retry_after=False)
    assert decide(RateLimited("p", hint), policy=policy) == Retry(1.0, 101.0, "rate_limited")


def test_jitter_is_added_to_a_hint_and_spreads_by_a_tenth_of_it() -> None:
    waits = {seed: decide(RateLimited("p", 20.0), policy=RetryPolicy(), seed=seed) for seed in range(200)}
    seconds = [decision.wait for decision in waits.values() if isinstance(decision, Retry)]
    assert len(seconds) == 200
    assert 20.0 <= min(seconds) < 20.1
    assert 21.9 < max(seconds) <= 22.0


@pytest.mark.parametrize(
    ("deadline", "why"),
    [
        (None, "server_error"),
        (101.5, "server_error"),
        (101.0, "past_deadline"),
        (100.5, "past_deadline"),
        (99.0, "past_deadline"),
    ],
)
def test_a_retry_that_could_only_start_at_the_deadline_is_refused_now(deadline: float | None, why: str) -> None:
    assert reason(decide(ServerError(), deadline=deadline)) == why


def test_a_hint_past_the_deadline_is_not_shortened() -> None:
    assert reason(decide(RateLimited("p", 30.0), deadline=125.0)) == "past_deadline"


def test_a_clock_that_goes_backwards_moves_no_retry_forward() -> None:
    engine = RetryEngine(STEADY, None, random.Random(1))
    engine.decide(FIRST, ServerError(), 100.0, None)
    assert engine.decide(FIRST, ServerError(), 40.0, None) == Retry(1.0, 101.0, "server_error")


def test_a_coarse_clock_does_not_undercut_the_hint() -> None:
    """Near 1e9 a float has steps of 1.2e-7: the nearest one to ``now`` plus the hint may lie below it."""
    for tenths in range(1, 600):
        decision = decide(RateLimited("p", tenths / 10), now=1e9, policy=RetryPolicy(initial_backoff=0))
        assert isinstance(decision, Retry)
        assert decision.at - 1e9 >= decision.wait >= tenths / 10


@settings(max_examples=200)
@given(
    now=st.one_of(st.floats(-1e12, 1e12), st.floats(-1e300, 1e300)),
    hint=st.one_of(st.none(), st.floats(0, 100)),
    room=st.one_of(st.none(), st.floats(0, 200)),
    jitter=st.sampled_from(JitterKind),
    number=st.integers(1, 5),
    seed=st.integers(0, 2**32),
)
def test_no_retry_before_the_hint_nor_past_the_deadline(
    now: float, hint: float | None, room: float | None, jitter: JitterKind, number: int, seed: int
) -> None:
    deadline = None if room is None else now + room
    policy = RetryPolicy(jitter=jitter, max_backoff=10)
    decision = decide(RateLimited("p", hint), Attempt(number), policy=policy, now=now, deadline=deadline, seed=seed)
    if isinstance(decision, Retry):
        assert number <= 3
        assert hint is None or hint <= 60
        assert 0 <= decision.wait <= max(10, 1.1 * (hint or 0))
        assert decision.at - now >= decision.wait >= (hint or 0)
        assert decision.at >= now + decision.wait
        assert deadline is None or decision.at < deadline


# The budget, as the engine draws on it.


@pytest.mark.parametrize(
    ("error", "drawn"),
    [
        (ServerError(), 1),
        (ServerError(503, retry_after=2.0), 1),
        (RateLimited("p"), 1),
        (RateLimited("p", 2.0), 0),
        (RateLimited("p", 0.0), 0),
        (BadRequest(), 0),
        (RateLimited("p", 61.0), 0),
    ],
)
def test_only_a_retry_draws_on_the_budget_and_a_429_with_a_hint_does_not(error: InferenceError, drawn: int) -> None:
    budget = RetryBudget()
    decide(error, budget=budget)
    assert 10 - budget.available(100.0) == drawn


def test_a_hint_that_is_ignored_earns_no_exemption() -> None:
    budget = RetryBudget()
    decide(RateLimited("p", 2.0), budget=budget, policy=RetryPolicy(respect_retry_after=False))
    assert budget.available(100.0) == 9


def test_a_refusal_for_the_deadline_does_not_draw_on_the_budget() -> None:
    budget = RetryBudget()
    assert reason(decide(ServerError(), budget=budget, deadline=100.5)) == "past_deadline"
    assert budget.available(100.0) == 10


def test_a_spent_budget_refuses_but_not_the_429_that_was_invited_back() -> None:
    budget = RetryBudget(floor=1)
    error = ServerError()
    assert isinstance(decide(error, budget=budget), Retry)
    assert decide(error, budget=budget) == GiveUp("retry_budget", error)
    assert isinstance(decide(RateLimited("p", 2.0), budget=budget), Retry)


# The budget itself.


def take(budget: RetryBudget, now: float, wanted: int = 1000) -> int:
    return sum(budget.try_retry(now) for _ in range(wanted))


@pytest.mark.parametrize(
    ("ratio", "floor", "requests", "granted"),
    [
        (0.2, 10, 0, 10),
        (0.2, 10, 4, 10),
        (0.2, 10, 5, 11),
        (0.2, 10, 100, 30),
        (0.2, 0, 4, 0),
        (0.3, 0, 10, 3),  # 0.3 is a little less than three tenths as a float
        (0.29, 0, 100, 29),
        (0.1, 0, 10, 1),
        (1, 0, 7, 7),
        (0, 2, 1000, 2),
        (0, 0, 1000, 0),
    ],
)
def test_a_fraction_of_the_requests_plus_a_floor(ratio: float, floor: int, requests: int, granted: int) -> None:
    budget = RetryBudget(ratio, floor)
    for _ in range(requests):
        budget.record_request(50.0)
    assert budget.available(50.0) == granted
    assert take(budget, 50.0) == granted
    assert budget.available(50.0) == 0


@pytest.mark.parametrize(("later", "granted"), [(0.0, 0), (9.9, 0), (10.0, 0), (10.001, 10), (25.0, 10)])
def test_the_floor_comes_back_when_it_has_left_the_window(later: float, granted: int) -> None:
    budget = RetryBudget()
    assert take(budget, 100.0) == 10
    assert take(budget, 100.0 + later) == granted


def test_retries_taken_one_after_the_other_come_back_one_after_the_other() -> None:
    budget = RetryBudget(floor=3)
    assert [budget.try_retry(t) for t in (0.0, 4.0, 8.0, 9.0, 10.5, 11.0, 14.5, 15.0)] == [
        *(True, True, True, False),
        *(True, False),
        *(True, False),
    ]


def test_retries_close_together_come_back_together_with_the_last_of_them() -> None:
    """Within 1/32 of the window they are remembered as one, so a refund may come that much late, and never early."""
    budget = RetryBudget(floor=3)
    assert [budget.try_retry(t) for t in (0.0, 0.25, 0.5)] == [True] * 3
    assert [budget.available(t) for t in (10.125, 10.25, 10.375, 10.5, 10.75)] == [0, 0, 2, 2, 3]


def test_requests_before_a_retry_do_not_pay_for_it() -> None:
    """Otherwise the interval that starts between the two would hold more retries than its own requests allow."""
    budget = RetryBudget()
    for _ in range(1000):
        budget.record_request(0.0)
    assert take(budget, 5.0) == 10
    for _ in range(10):
        budget.record_request(5.0)
    assert take(budget, 5.0) == 2


def test_an_outage_costs_a_fifth_more_load() -> None:
    """Every request fails, a hundred a second for a minute, and each asks for a retry a second later."""
    budget = RetryBudget()
    retries = 0
    for tick in range(6000):
        budget.record_request(tick / 100)
        retries += budget.try_retry(tick / 100)
    assert 1200 <= retries <= 1200 + 70


def test_memory_is_bounded_however_busy_the_window() -> None:
    budget = RetryBudget(ratio=0.5, floor=1_000_000)
    sizes: set[int] = set()
    for tick in range(20_000):
        budget.try_retry(tick / 100)
        if tick % 1000 == 0:
            sizes.add(len(pickle.dumps(budget)))
    assert max(sizes) < 3000


@pytest.mark.parametrize("epoch", [-1e9, 0.0, 1e9])
def test_any_epoch_will_do(epoch: float) -> None:
    budget = RetryBudget()
    assert take(budget, epoch) == 10
    assert take(budget, epoch + 5) == 0
    assert take(budget, epoch + 11) == 10


def test_a_clock_that_is_no_number_grants_nothing_extra() -> None:
    budget = RetryBudget()
    assert take(budget, math.nan) == 10
    assert take(budget, math.nan) == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("ratio", value) for value in (-0.1, math.nan, math.inf, True, None, "0.2")),
        *(("floor", value) for value in (-1, 1.5, math.nan, True, None)),
        *(("window", value) for value in (0, -1.0, math.nan, math.inf, True, None)),
    ],
)
def test_a_budget_out_of_range_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{field}: "):
        RetryBudget(**{field: value})


class BudgetAgainstHistory(RuleBasedStateMachine):
    """The naive model keeps every fact and tries every interval.

    Safety is asked of the window itself; that retries come back, of a window longer by the budget's grain of 1/32.
    """

    @initialize(
        ratio=st.sampled_from([0, 0.1, 0.2, 0.3, 0.5, 1.0]),
        floor=st.integers(0, 4),
        window=st.sampled_from([1.0, 8.0]),
    )
    def build(self, ratio: float, floor: int, window: float) -> None:
        self.ratio, self.floor, self.window = Fraction(str(ratio)), floor, window
        self.budget = RetryBudget(ratio, floor, window)
        self.now = 1000.0
        self.requests: list[float] = []
        self.retries: list[float] = []

    def room(self, start: float, end: float) -> Fraction:
        """What the rule leaves of the interval, both ends included."""
        requests = sum(start <= t <= end for t in self.requests)
        retries = sum(start <= t <= end for t in self.retries)
        return self.floor + self.ratio * requests - retries

    def left(self, window: float) -> int:
        starts = {t for t in (*self.requests, *self.retries, self.now) if t >= self.now - window}
        return math.floor(min(self.room(start, self.now) for start in starts))

    @rule(steps=st.sampled_from([1, 1, 2, 5, 16, 64, 250, 256, 2000]))
    def time_passes(self, steps: int) -> None:
        self.now += steps / 32

    @rule(times=st.integers(1, 12), back=st.sampled_from([0.0, 0.0, 3.0, 500.0]))
    def requests_are_sent(self, times: int, back: float) -> None:
        self.budget.available(self.now)  # so that the clock below goes back, not late
        for _ in range(times):
            self.budget.record_request(self.now - back)
            self.requests.append(self.now)

    @rule(times=st.integers(1, 6), back=st.sampled_from([0.0, 0.0, 3.0, 500.0]))
    def retries_are_asked_for(self, times: int, back: float) -> None:
        self.budget.available(self.now)  # likewise
        for _ in range(times):
            longer = self.left(self.window * 33 / 32)
            granted = self.budget.try_retry(self.now - back)
            assert granted or longer < 1
            if granted:
                self.retries.append(self.now)

    @rule()
    def what_is_available_is_between_the_two_models(self) -> None:
        assert self.left(self.window * 33 / 32) <= self.budget.available(self.now) <= self.left(self.window)

    @invariant()
    def no_interval_holds_more_retries_than_it_may(self) -> None:
        instants = sorted({*self.requests, *self.retries})
        for start in instants:
            assert all(self.room(start, end) >= 0 for end in instants if start <= end <= start + self.window)


TestBudgetAgainstHistory = BudgetAgainstHistory.TestCase
TestBudgetAgainstHistory.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)


# The values.


def test_defaults() -> None:
    policy = RetryPolicy()
    assert policy.backoff == BackoffPolicy()
    assert (policy.max_retries, policy.respect_retry_after, policy.max_retry_after) == (3, True, 60.0)
    assert policy.retry_on == DEFAULT_RETRY_ON
    assert set(DEFAULT_RETRY_ON) == {
        "rate_limited",
        "conflict",
        "network_error",
        "server_error",
        "timeout",
        "protocol_error",
    }


def test_the_backoff_carries_the_policys_own_fields() -> None:
    policy = RetryPolicy(initial_backoff=2, max_backoff=9, backoff_multiplier=3, jitter=JitterKind.FULL)
    assert policy.backoff == BackoffPolicy(2, 9, 3, JitterKind.FULL)


@pytest.mark.parametrize(
    ("given_kinds", "kinds"),
    [
        (["timeout", "conflict"], {"timeout", "conflict"}),
        ((Timeout, "conflict", Timeout), {"timeout", "conflict"}),
        ({ServerError}, {"server_error"}),
        ((), frozenset[str]()),
        (iter(["bad_request"]), {"bad_request"}),
    ],
)
def test_retry_on_takes_kinds_and_classes(given_kinds: Any, kinds: set[str]) -> None:
    policy = RetryPolicy(retry_on=given_kinds)
    assert policy.retry_on == kinds
    assert isinstance(policy.retry_on, frozenset)
    assert hash(policy) == hash(RetryPolicy(retry_on=kinds))


def test_jitter_may_be_given_as_a_string() -> None:
    table: dict[str, Any] = {"jitter": "full"}
    assert RetryPolicy(**table).jitter is JitterKind.FULL


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("max_retries", value) for value in (-1, 1.0, math.nan, True, None)),
        *(("initial_backoff", value) for value in (-1, math.nan, math.inf, True)),
        *(("max_backoff", value) for value in (-1, math.nan, math.inf, True)),
        *(("backoff_multiplier", value) for value in (0.5, 0, math.nan, math.inf, True)),
        *(("jitter", value) for value in ("lots", 3)),
        *(("respect_retry_after", value) for value in (1, None, "yes")),
        *(("max_retry_after", value) for value in (-1, math.nan, math.inf, True, None)),
        *(("retry_on", value) for value in ("timeout", b"timeout", None, 3, Timeout, [3], [None], [int], ["TIMEOUT!"])),
    ],
)
def test_a_policy_out_of_range_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{field}: "):
        RetryPolicy(**{field: value})


def test_an_unknown_kind_is_refused_with_the_nearest_known() -> None:
    with pytest.raises(ValueError, match=r"^retry_on: 'time_out' is no kind .* nearest known: timeout$"):
        RetryPolicy(retry_on=["time_out"])
    with pytest.raises(ValueError, match=r"nearest known: .*bad_request, .*timeout"):
        RetryPolicy(retry_on=["xyz"])


def test_a_policy_prints_the_same_under_every_hash_seed() -> None:
    shown = repr(RetryPolicy(max_retries=1, retry_on=["timeout", "conflict", "server_error"]))
    assert shown == (
        "RetryPolicy(max_retries=1, initial_backoff=1.0, max_backoff=60.0, backoff_multiplier=2.0, "
        "jitter=<JitterKind.EQUAL: 'equal'>, respect_retry_after=True, max_retry_after=60.0, "
        "retry_on=['conflict', 'server_error', 'timeout'])"
    )


@pytest.mark.parametrize("number", [0, -1, 1.0, True, None])
def test_attempts_count_from_one(number: Any) -> None:
    with pytest.raises(ValueError, match=r"^number: "):
        Attempt(number)
