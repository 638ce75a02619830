"""`sansio.circuit_breaker`: when a circuit opens, who may probe, what closes it, and that it cannot get stuck."""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sansio.circuit_breaker import (
    TRANSITIONS,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitPermit,
    CircuitRejection,
    CircuitState,
    CircuitTransition,
    Outcome,
)

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
SUCCESS, FAILURE, IGNORED = Outcome.SUCCESS, Outcome.FAILURE, Outcome.IGNORED


def permit(breaker: CircuitBreaker, now: float) -> CircuitPermit:
    answer = breaker.acquire(now)
    assert isinstance(answer, CircuitPermit)
    return answer


def rejection(breaker: CircuitBreaker, now: float) -> CircuitRejection:
    answer = breaker.acquire(now)
    assert isinstance(answer, CircuitRejection)
    return answer


def report(breaker: CircuitBreaker, now: float, *outcomes: Outcome) -> None:
    for outcome in outcomes:
        breaker.record(permit(breaker, now), outcome, now)


def opened(now: float = 100.0, **config: Any) -> CircuitBreaker:
    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=1, **config))
    report(breaker, now, FAILURE)
    return breaker


@pytest.mark.parametrize("now", [math.nan, math.inf, -math.inf])
def test_a_time_that_is_none_is_refused_and_changes_nothing(now: float) -> None:
    fresh, failing, probed = CircuitBreaker(), CircuitBreaker(CircuitBreakerConfig(failure_threshold=2)), opened(100.0)
    report(failing, 5.0, FAILURE)
    held, probe, reported = permit(failing, 5.0), permit(probed, 130.0), permit(probed, 190.0)
    probed.record(reported, IGNORED, 190.0)
    for breaker, of in ((fresh, permit(fresh, 1.0)), (failing, held), (probed, probe), (probed, reported)):
        before = pickle.dumps((breaker, of))
        for misuse in (
            lambda b=breaker: b.acquire(now),
            lambda b=breaker, p=of: b.record(p, FAILURE, now),
            lambda b=breaker: b.state(now),
            lambda b=breaker: b.force_open(1.0, now),
            lambda b=breaker: b.force_closed(now),
            lambda b=breaker: b.reset(now),
        ):
            with pytest.raises(ValueError, match=r"^now: -?(nan|inf) is not a finite number of seconds"):
                misuse()
        assert pickle.dumps((breaker, of)) == before
    failing.record(held, FAILURE, 6.0)
    assert failing.opened_at == 6.0
    with pytest.raises(ValueError, match=r"^now: "):
        CircuitBreaker().acquire(now)


# Closed.


@pytest.mark.parametrize(
    ("outcomes", "state", "failures"),
    [
        ([FAILURE, FAILURE], CLOSED, 2),
        ([FAILURE, FAILURE, FAILURE], OPEN, 0),
        ([FAILURE, FAILURE, SUCCESS, FAILURE, FAILURE], CLOSED, 2),
        ([FAILURE, IGNORED, FAILURE, IGNORED, FAILURE], OPEN, 0),
        ([IGNORED] * 10, CLOSED, 0),
        ([SUCCESS, FAILURE] * 10, CLOSED, 1),
    ],
)
def test_consecutive_failures_open_it(outcomes: list[Outcome], state: CircuitState, failures: int) -> None:
    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=3))
    report(breaker, 5.0, *outcomes)
    assert breaker.state(5.0) is state
    assert breaker.consecutive_failures == failures


@pytest.mark.parametrize(
    ("times", "state", "failures"),
    [
        ([0, 5, 10], OPEN, 0),
        ([0, 5, 10.5], CLOSED, 2),
        ([0, 5, 10.5, 14], OPEN, 0),
        ([0, 20, 40, 60], CLOSED, 1),
    ],
)
def test_with_a_window_they_must_lie_within_it(times: list[float], state: CircuitState, failures: int) -> None:
    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=3, window=10))
    for t in times:
        report(breaker, t, FAILURE)
    assert breaker.state(times[-1]) is state
    assert breaker.consecutive_failures == failures


def test_a_success_also_empties_the_window() -> None:
    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=2, window=10))
    report(breaker, 0.0, FAILURE, SUCCESS, FAILURE)
    assert breaker.state(0.0) is CLOSED
    assert breaker.consecutive_failures == 1


def test_a_report_counts_when_it_is_made_not_when_its_permit_was_taken() -> None:
    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=2))
    first, second = permit(breaker, 0.0), permit(breaker, 0.0)
    breaker.record(first, FAILURE, 50.0)
    breaker.record(second, FAILURE, 70.0)
    assert breaker.opened_at == 70.0


def test_a_permit_reports_once() -> None:
    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=2))
    once = permit(breaker, 0.0)
    for _ in range(3):
        breaker.record(once, FAILURE, 0.0)
    assert breaker.consecutive_failures == 1


# Open.


@pytest.mark.parametrize(
    ("later", "state"), [(0.0, OPEN), (29.999, OPEN), (30.0, HALF_OPEN), (30.001, HALF_OPEN), (1e6, HALF_OPEN)]
)
def test_at_exactly_the_open_duration_it_is_half_open(later: float, state: CircuitState) -> None:
    assert opened(100.0).state(100.0 + later) is state


def test_a_rejection_says_since_when_and_until_when() -> None:
    breaker = opened(100.0)
    assert rejection(breaker, 110.0) == CircuitRejection(opened_at=100.0, retry_at=130.0)
    assert breaker.deadline() == 130.0
    assert breaker.opened_at == 100.0


def test_no_open_duration_probes_at_once() -> None:
    breaker = opened(100.0, open_duration=0)
    assert permit(breaker, 100.0).probe


def test_reports_from_before_it_opened_change_nothing() -> None:
    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=1))
    early, other, late = (permit(breaker, 0.0) for _ in range(3))
    breaker.record(early, FAILURE, 0.0)
    breaker.record(other, SUCCESS, 1.0)
    assert breaker.state(1.0) is OPEN
    assert breaker.state(30.0) is HALF_OPEN
    breaker.record(late, FAILURE, 31.0)
    assert breaker.state(31.0) is HALF_OPEN


# Half-open.


def test_no_more_probes_than_it_allows_are_outstanding() -> None:
    breaker = opened(100.0, half_open_max_probes=2, success_threshold=2)
    probes = [permit(breaker, 130.0), permit(breaker, 140.0)]
    assert all(probe.probe for probe in probes)
    assert breaker.outstanding_probes == 2
    assert rejection(breaker, 150.0) == CircuitRejection(opened_at=100.0, retry_at=190.0)
    breaker.record(probes[0], SUCCESS, 151.0)
    assert breaker.outstanding_probes == 1
    assert permit(breaker, 152.0).probe
    rejection(breaker, 153.0)


def test_enough_successes_close_it_and_the_count_starts_afresh() -> None:
    breaker = opened(100.0, success_threshold=2)
    report(breaker, 130.0, SUCCESS)
    assert breaker.state(130.0) is HALF_OPEN
    report(breaker, 131.0, IGNORED, SUCCESS)
    assert breaker.state(131.0) is CLOSED
    assert (breaker.opened_at, breaker.consecutive_failures, breaker.deadline()) == (None, 0, None)
    assert not permit(breaker, 131.0).probe


def test_successes_of_an_earlier_half_open_time_do_not_count() -> None:
    breaker = opened(100.0, success_threshold=2)
    report(breaker, 130.0, SUCCESS, FAILURE)
    report(breaker, 160.0, SUCCESS)
    assert breaker.state(160.0) is HALF_OPEN


def test_one_failure_opens_it_again_for_the_full_time() -> None:
    breaker = opened(100.0, half_open_max_probes=2)
    probe, sibling = permit(breaker, 130.0), permit(breaker, 130.0)
    breaker.record(probe, FAILURE, 135.0)
    assert rejection(breaker, 164.9) == CircuitRejection(opened_at=135.0, retry_at=165.0)
    breaker.record(sibling, SUCCESS, 164.9)
    assert breaker.state(164.9) is OPEN
    assert breaker.state(165.0) is HALF_OPEN
    assert breaker.outstanding_probes == 0


@pytest.mark.parametrize(
    ("config", "durations"),
    [
        ({"open_duration": 10}, [10, 10, 10]),
        ({"open_duration": 10, "open_multiplier": 2}, [10, 20, 40]),
        ({"open_duration": 10, "open_multiplier": 2, "max_open_duration": 25}, [10, 20, 25, 25]),
        ({"open_duration": 400, "open_multiplier": 2}, [400, 400]),  # the maximum bounds the growth
        ({"open_duration": 10, "open_multiplier": 1e308}, [10, 300, 300, 300]),
    ],
)
def test_each_failed_probe_may_lengthen_the_open_time(config: dict[str, Any], durations: list[float]) -> None:
    now = 100.0
    breaker = opened(now, **config)
    for duration in durations:
        assert breaker.deadline() == now + duration
        now += duration
        report(breaker, now, FAILURE)


def test_closing_forgets_how_long_it_had_become() -> None:
    breaker = opened(100.0, open_duration=10, open_multiplier=2)
    report(breaker, 110.0, FAILURE)
    report(breaker, 130.0, SUCCESS, FAILURE)
    assert breaker.deadline() == 140.0


def test_an_ignored_probe_gives_its_place_back() -> None:
    breaker = opened(100.0)
    for _ in range(5):
        report(breaker, 130.0, IGNORED)
    assert breaker.state(130.0) is HALF_OPEN
    assert breaker.outstanding_probes == 0


@pytest.mark.parametrize("late", [SUCCESS, FAILURE, IGNORED])
def test_an_unreported_probe_gives_its_place_back_and_its_late_report_changes_nothing(late: Outcome) -> None:
    breaker = opened(100.0)
    lost = permit(breaker, 130.0)
    assert breaker.deadline() == 190.0
    assert rejection(breaker, 189.9).retry_at == 190.0
    second = permit(breaker, 190.0)
    breaker.record(lost, late, 191.0)
    assert breaker.state(191.0) is HALF_OPEN
    assert breaker.outstanding_probes == 1
    breaker.record(second, SUCCESS, 192.0)
    assert breaker.state(192.0) is CLOSED


@pytest.mark.parametrize(("later", "state"), [(59.9, CLOSED), (60.0, HALF_OPEN)])
def test_a_report_at_the_end_of_the_lease_is_too_late_also_if_it_is_the_first_to_tell(
    later: float, state: CircuitState
) -> None:
    breaker = opened(100.0)
    probe = permit(breaker, 130.0)
    breaker.record(probe, SUCCESS, 130.0 + later)
    assert breaker.state(130.0 + later) is state
    assert breaker.outstanding_probes == 0


def test_leases_end_one_by_one() -> None:
    breaker = opened(100.0, half_open_max_probes=3)
    for now in (130.0, 135.0, 140.0):
        permit(breaker, now)
    seen: list[tuple[float | None, int]] = []
    for now in (190.0, 195.0, 200.0):
        seen.append((breaker.deadline(), breaker.outstanding_probes))
        assert breaker.state(now) is HALF_OPEN
    assert seen == [(190.0, 3), (195.0, 2), (200.0, 1)]
    assert (breaker.deadline(), breaker.outstanding_probes) == (None, 0)


# Operators.


def test_forced_open_for_a_time() -> None:
    breaker = CircuitBreaker()
    before = permit(breaker, 0.0)
    breaker.force_open(5.0, 1.0)
    assert rejection(breaker, 5.9) == CircuitRejection(opened_at=1.0, retry_at=6.0)
    breaker.record(before, SUCCESS, 5.9)
    assert breaker.state(5.9) is OPEN
    assert breaker.state(6.0) is HALF_OPEN


def test_forced_open_until_further_notice() -> None:
    breaker = CircuitBreaker()
    breaker.force_open(None, 1.0)
    assert breaker.deadline() is None
    assert rejection(breaker, 1e9) == CircuitRejection(opened_at=1.0, retry_at=math.inf)
    breaker.force_closed(1e9)
    assert breaker.state(1e9) is CLOSED


@pytest.mark.parametrize(
    ("orders", "deadline"),
    [([50.0], 160.0), ([5.0], 130.0), ([50.0, 5.0], 160.0), ([None], None), ([None, 5.0], None), ([5.0, None], None)],
)
def test_no_order_to_open_cuts_another_one_short(orders: list[float | None], deadline: float | None) -> None:
    breaker = opened(100.0)
    for duration in orders:
        breaker.force_open(duration, 110.0)
    assert breaker.deadline() == deadline
    assert breaker.opened_at == 100.0
    assert len(breaker.drain_transitions()) == 1


def test_forcing_a_half_open_circuit_withdraws_its_probes() -> None:
    breaker = opened(100.0)
    probe = permit(breaker, 130.0)
    breaker.force_open(10.0, 131.0)
    breaker.record(probe, SUCCESS, 132.0)
    assert rejection(breaker, 132.0) == CircuitRejection(opened_at=131.0, retry_at=141.0)
    assert breaker.outstanding_probes == 0


def test_forced_closed_leaves_a_closed_circuit_as_it_is_and_reset_does_not() -> None:
    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=2))
    report(breaker, 0.0, FAILURE)
    late = permit(breaker, 0.0)
    breaker.force_closed(1.0)
    assert breaker.consecutive_failures == 1
    breaker.reset(1.0)
    assert breaker.consecutive_failures == 0
    breaker.record(late, FAILURE, 1.0)
    assert breaker.consecutive_failures == 0
    assert breaker.drain_transitions() == []


@pytest.mark.parametrize("method", ["force_closed", "reset"])
@pytest.mark.parametrize(("now", "source"), [(110.0, OPEN), (130.0, HALF_OPEN)])
def test_both_close_what_is_not_closed_and_start_afresh(method: str, now: float, source: CircuitState) -> None:
    breaker = opened(100.0, open_multiplier=2)
    report(breaker, 130.0, FAILURE)
    breaker.drain_transitions()
    getattr(breaker, method)(now + 60)
    assert breaker.drain_transitions()[-1] == CircuitTransition(
        source, CLOSED, now + 60, method.replace("force_", "forced_")
    )
    report(breaker, 200.0, FAILURE)
    assert breaker.deadline() == 230.0


@pytest.mark.parametrize("duration", [-1.0, math.nan, math.inf, True, "5"])
def test_a_senseless_duration_is_refused_and_changes_nothing(duration: Any) -> None:
    breaker = CircuitBreaker()
    with pytest.raises(ValueError, match=r"^duration: "):
        breaker.force_open(duration, 0.0)
    assert breaker.state(0.0) is CLOSED


# Misuse, clocks, observers.


def test_another_breakers_permit_is_refused_and_stays_good_there() -> None:
    one, other = (CircuitBreaker(CircuitBreakerConfig(failure_threshold=1)) for _ in range(2))
    foreign = permit(one, 0.0)
    with pytest.raises(ValueError, match=r"^permit: CircuitPermit\(generation=0, probe=False\) is of another"):
        other.record(foreign, FAILURE, 0.0)
    assert other.state(0.0) is CLOSED
    one.record(foreign, FAILURE, 0.0)
    assert one.state(0.0) is OPEN


def test_what_is_no_outcome_is_refused_and_the_permit_stays_good() -> None:
    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=1))
    held = permit(breaker, 0.0)
    wrong: Any = "failure"
    with pytest.raises(ValueError, match=r"^outcome: 'failure' is none of Outcome.SUCCESS, "):
        breaker.record(held, wrong, 0.0)
    breaker.record(held, FAILURE, 0.0)
    assert breaker.state(0.0) is OPEN


def test_a_clock_that_goes_backwards_neither_opens_nor_lengthens_anything() -> None:
    breaker = opened(100.0)
    assert rejection(breaker, 20.0) == CircuitRejection(100.0, 130.0)
    assert breaker.state(130.0) is HALF_OPEN
    probe = permit(breaker, 50.0)
    assert breaker.deadline() == 190.0
    breaker.record(probe, FAILURE, 60.0)
    assert rejection(breaker, 70.0) == CircuitRejection(130.0, 160.0)
    assert breaker.state(160.0) is HALF_OPEN
    assert breaker.state(10.0) is HALF_OPEN
    permit(breaker, 10.0)
    assert breaker.deadline() == 220.0
    breaker.reset(10.0)
    permit(breaker, 250.0)
    report(breaker, 149.0, FAILURE)
    assert breaker.opened_at == 250.0


def test_transitions_are_reported_once_at_the_time_they_took_effect() -> None:
    breaker = opened(100.0)
    report(breaker, 1000.0, FAILURE)
    report(breaker, 1030.0, SUCCESS)
    assert breaker.drain_transitions() == [
        CircuitTransition(CLOSED, OPEN, 100.0, "failure_threshold"),
        CircuitTransition(OPEN, HALF_OPEN, 130.0, "open_duration"),
        CircuitTransition(HALF_OPEN, OPEN, 1000.0, "probe_failed"),
        CircuitTransition(OPEN, HALF_OPEN, 1030.0, "open_duration"),
        CircuitTransition(HALF_OPEN, CLOSED, 1030.0, "success_threshold"),
    ]
    assert breaker.drain_transitions() == []


def test_undrained_transitions_and_failures_take_bounded_memory() -> None:
    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=10**9))
    for cycle in range(1000):
        breaker.force_open(None, cycle)
        breaker.force_closed(cycle)
        report(breaker, cycle, FAILURE)
    kept = breaker.drain_transitions()
    assert len(kept) == 64
    assert kept[-1] == CircuitTransition(OPEN, CLOSED, 999, "forced_closed")
    size = len(pickle.dumps(breaker))
    report(breaker, 1000.0, *[FAILURE] * 1000)
    assert len(pickle.dumps(breaker)) < size + 100


def test_the_table_is_the_whole_of_the_machine() -> None:
    forced = {"forced_open": OPEN, "forced_closed": CLOSED, "reset": CLOSED, "shared_open": OPEN, "shared_closed": CLOSED}
    expected = {
        (CLOSED, "failure_threshold"): OPEN,
        (OPEN, "open_duration"): HALF_OPEN,
        (HALF_OPEN, "success_threshold"): CLOSED,
        (HALF_OPEN, "probe_failed"): OPEN,
        **{(source, why): target for why, target in forced.items() for source in CircuitState if source is not target},
    }
    assert dict(TRANSITIONS) == expected


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((field, value) for field in ("failure_threshold", "half_open_max_probes", "success_threshold")
          for value in (0, -1, 1.0, math.nan, True, None)),
        *((field, value) for field in ("open_duration", "max_open_duration")
          for value in (-1, math.nan, math.inf, True, None)),
        *((field, value) for field in ("window", "probe_timeout") for value in (0, -1, math.nan, math.inf, True, "1")),
        *(("open_multiplier", value) for value in (0.9, 0, -1, math.nan, math.inf, True)),
        ("probe_timeout", None),
    ],
)  # fmt: skip
def test_a_config_out_of_range_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{field}: "):
        CircuitBreakerConfig(**{field: value})


def test_defaults() -> None:
    assert CircuitBreakerConfig() == CircuitBreakerConfig(10, None, 30.0, 1.0, 300.0, 1, 1, 60.0)


class Held:
    """What the model remembers of a permit: the epoch it was taken in, and when its lease ends (never, unless a probe)."""

    def __init__(self, permit: CircuitPermit, epoch: int, ends: float) -> None:
        self.permit, self.epoch, self.ends, self.reported = permit, epoch, ends, False


class BreakerAgainstModel(RuleBasedStateMachine):
    """The naive model keeps every permit ever granted and works out from them what is outstanding."""

    @initialize(
        config=st.builds(
            CircuitBreakerConfig,
            failure_threshold=st.integers(1, 3),
            window=st.sampled_from([None, 4.0]),
            open_duration=st.sampled_from([0.0, 8.0]),
            open_multiplier=st.sampled_from([1.0, 2.0]),
            max_open_duration=st.just(20.0),
            half_open_max_probes=st.integers(1, 3),
            success_threshold=st.integers(1, 3),
            probe_timeout=st.sampled_from([2.0, 16.0]),
        )
    )
    def build(self, config: CircuitBreakerConfig) -> None:
        self.config = config
        self.breaker = CircuitBreaker(config)
        self.now = 1000.0
        self.model_state = CLOSED
        self.epoch = 0
        self.failed_at: list[float] = []
        self.successes = 0
        self.reopened = 0
        self.opened_at = self.half_open_at = 0.0
        self.held: list[Held] = []
        self.path = [CLOSED]

    # The model.

    def outstanding(self) -> list[Held]:
        if self.model_state is not HALF_OPEN:
            return []
        return [held for held in self.held if held.epoch == self.epoch and not held.reported and held.ends > self.now]

    def enter(self, state: CircuitState) -> None:
        self.model_state, self.epoch, self.failed_at, self.successes = state, self.epoch + 1, [], 0
        self.path.append(state)

    def model_opens(self, duration: float) -> None:
        self.enter(OPEN)
        self.opened_at, self.half_open_at = self.now, self.now + duration

    def model_judges(self, held: Held, outcome: Outcome) -> None:
        void = held.reported or held.epoch != self.epoch or held.ends <= self.now
        held.reported = True
        if void or outcome is IGNORED:
            return
        if self.model_state is CLOSED and outcome is SUCCESS:
            self.failed_at = []
        elif self.model_state is CLOSED:
            self.failed_at = [t for t in self.failed_at if self.config.window is None or t >= self.now - self.config.window]
            self.failed_at.append(self.now)
            if len(self.failed_at) >= self.config.failure_threshold:
                self.model_opens(self.config.open_duration)
        elif outcome is FAILURE:
            self.reopened += 1
            self.model_opens(min(20.0, self.config.open_duration * self.config.open_multiplier**self.reopened))
        else:
            self.successes += 1
            if self.successes == self.config.success_threshold:
                self.model_closes()

    def model_closes(self) -> None:
        self.enter(CLOSED)
        self.reopened = 0

    def time_acts(self) -> None:
        if self.model_state is OPEN and self.now >= self.half_open_at:
            self.enter(HALF_OPEN)

    # The facts.

    @rule(quarters=st.sampled_from([1, 4, 8, 32, 64, 400]))
    def time_passes(self, quarters: int) -> None:
        self.now += quarters / 4

    @rule()
    def the_clock_goes_back(self) -> None:
        assert self.breaker.state(self.now - 77.0) is self.model_state

    @rule()
    def time_passes_to_the_deadline(self) -> None:
        self.now = max(self.now, self.breaker.deadline() or self.now)

    @rule(back=st.sampled_from([0.0, 0.0, 0.0, 3.0, 900.0]))
    def acquire(self, back: float) -> None:
        self.breaker.state(self.now)
        self.time_acts()
        answer = self.breaker.acquire(self.now - back)
        if self.model_state is OPEN:
            assert answer == CircuitRejection(self.opened_at, self.half_open_at)
        elif self.model_state is HALF_OPEN and len(self.outstanding()) == self.config.half_open_max_probes:
            assert answer == CircuitRejection(self.opened_at, min(held.ends for held in self.outstanding()))
        else:
            assert isinstance(answer, CircuitPermit)
            assert answer.probe == (self.model_state is HALF_OPEN)
            ends = self.now + self.config.probe_timeout if answer.probe else math.inf
            self.held.append(Held(answer, self.epoch, ends))

    @rule(pick=st.integers(0, 2**16), outcome=st.sampled_from(Outcome))
    def report_any(self, pick: int, outcome: Outcome) -> None:
        """Also permits that have reported, lapsed, or are of an earlier generation."""
        if self.held:
            self.report_one(self.held[pick % len(self.held)], outcome)

    @rule(pick=st.integers(0, 2**16), outcome=st.sampled_from(Outcome))
    def report_latest(self, pick: int, outcome: Outcome) -> None:
        current = [held for held in self.held if held.epoch == self.epoch and not held.reported]
        if current:
            self.report_one(current[pick % len(current)], outcome)

    def report_one(self, held: Held, outcome: Outcome) -> None:
        self.breaker.record(held.permit, outcome, self.now)
        self.time_acts()
        self.model_judges(held, outcome)

    @rule(duration=st.sampled_from([None, 0.0, 4.0, 40.0]))
    def force_open(self, duration: float | None) -> None:
        self.breaker.force_open(duration, self.now)
        self.time_acts()
        if self.model_state is not OPEN:
            self.model_opens(0.0)
        self.half_open_at = max(self.half_open_at, self.now + (math.inf if duration is None else duration))

    @rule()
    def force_closed(self) -> None:
        self.breaker.force_closed(self.now)
        self.time_acts()
        if self.model_state is not CLOSED:
            self.model_closes()

    @rule()
    def reset(self) -> None:
        self.breaker.reset(self.now)
        self.time_acts()
        if self.model_state is not CLOSED:
            self.model_closes()
        self.epoch += 1
        self.failed_at = []

    # What must hold.

    @invariant()
    def it_is_where_the_model_is(self) -> None:
        self.time_acts()
        assert self.breaker.state(self.now) is self.model_state
        assert self.breaker.outstanding_probes == len(self.outstanding()) <= self.config.half_open_max_probes
        assert self.breaker.opened_at == (None if self.model_state is CLOSED else self.opened_at)
        assert self.breaker.consecutive_failures == len(self.failed_at)

    @invariant()
    def its_deadline_is_ahead_and_right(self) -> None:
        waiting = [self.half_open_at] if self.model_state is OPEN else [held.ends for held in self.outstanding()]
        expected = min(waiting, default=math.inf)
        assert self.breaker.deadline() == (expected if expected < math.inf else None)
        assert expected > self.now

    @invariant()
    def it_moved_as_the_model_did_and_only_along_the_table(self) -> None:
        self.breaker.state(self.now)
        assert self.breaker.undisturbed == (self.path == [CLOSED])
        for transition in self.breaker.drain_transitions():
            assert TRANSITIONS[transition.source, transition.reason] is transition.target
            assert [transition.source, transition.target] == self.path[:2]
            assert transition.at <= self.now
            del self.path[0]
        assert self.path == [self.model_state]
        assert self.breaker.undisturbed == (self.model_state is CLOSED)

    def teardown(self) -> None:
        """Whatever happened, an endpoint that answers again closes it, unless an operator holds it open."""
        if not hasattr(self, "breaker") or (self.model_state is OPEN and self.half_open_at == math.inf):
            return
        for _ in range(2 * self.config.half_open_max_probes + self.config.success_threshold + 2):
            answer = self.breaker.acquire(self.now)
            if isinstance(answer, CircuitPermit):
                self.breaker.record(answer, SUCCESS, self.now)
            else:
                self.now = answer.retry_at
        assert self.breaker.state(self.now) is CLOSED


TestBreakerAgainstModel = BreakerAgainstModel.TestCase
TestBreakerAgainstModel.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
