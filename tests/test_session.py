"""One credential, one refresh in flight, one rebuild for a 401; then the same against a naive model."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sansio.backoff import BackoffPolicy, JitterKind
from sansio.errors import InferenceError, NetworkError, Timeout, Unauthorized
from sansio.secret import Credential
from sansio.session import (
    AuthVerdict,
    RefreshResult,
    RemoteSession,
    SessionConfig,
    SessionOutcome,
    SessionRebuildCause,
    SessionSnapshot,
)

INITIAL, AUTH_FAILURE, CONFIG_CHANGE, MANUAL, EXPIRY = SessionRebuildCause
RENEWED, UNCHANGED, FAILED, STALE = RefreshResult
RETRY_NOW, WAIT_FOR_REBUILD = AuthVerdict

UNIX = 1_700_000_000.0
"""The wall clock when the monotonic one shows 0."""

NO_JITTER = BackoffPolicy(1.0, 60.0, 2.0, JitterKind.NONE)


def new_session(refresh_ahead: float = 60.0, refresh_timeout: float = 30.0) -> RemoteSession:
    return RemoteSession("openai", SessionConfig(refresh_ahead, NO_JITTER, refresh_timeout), random.Random(0))


def key(name: str, expires_at: float | None = None) -> Credential:
    """A credential; its expiry in monotonic seconds, as long as the wall clock does not jump."""
    return Credential(name, None if expires_at is None else UNIX + expires_at)


class Clocked:
    """A session whose wall clock runs along with `now` unless told otherwise."""

    def __init__(self, session: RemoteSession) -> None:
        self.session = session
        self.jump = 0.0

    def sent(self, now: float) -> str | None:
        snapshot = self.session.snapshot(now, UNIX + now + self.jump)
        return None if snapshot is None else f"{snapshot.generation}:{snapshot.credential.reveal()}"

    def wants(self, now: float) -> SessionRebuildCause | None:
        return self.session.wants_refresh(now, UNIX + now + self.jump)

    def report(self, refresh_id: int, result: Credential | InferenceError, now: float) -> SessionOutcome:
        return self.session.report(refresh_id, result, now, UNIX + now + self.jump)

    def refresh(self, result: Credential | InferenceError, now: float) -> RefreshResult:
        """Order what is wanted and have it answered on the spot."""
        cause = self.wants(now)
        assert cause is not None
        return self.report(self.session.begin_refresh(cause, now), result, now).result


def ready(credential: Credential, now: float = 0.0, **config: float) -> Clocked:
    clocked = Clocked(new_session(**config))
    assert clocked.refresh(credential, now) is RENEWED
    return clocked


# The first credential


def test_a_session_begins_with_nothing_and_no_timer() -> None:
    clocked = Clocked(new_session())
    assert clocked.sent(0.0) is None
    assert (clocked.session.generation, clocked.session.refreshing, clocked.session.deadline()) == (0, False, None)
    assert clocked.wants(0.0) is INITIAL
    assert clocked.session.deadline() is None  # without a waiter there is nothing to look at


def test_one_refresh_serves_however_many_wait() -> None:
    clocked = Clocked(new_session())
    refresh_id = clocked.session.begin_refresh(INITIAL, 0.0)
    assert clocked.session.refreshing
    assert clocked.wants(1.0) is None
    with pytest.raises(RuntimeError, match="in flight already"):
        clocked.session.begin_refresh(INITIAL, 1.0)
    assert clocked.report(refresh_id, key("a"), 2.0) == SessionOutcome(RENEWED)
    assert clocked.sent(2.0) == "1:a"
    assert (clocked.session.generation, clocked.session.refreshing) == (1, False)
    assert clocked.wants(1e9) is None
    assert clocked.session.deadline() is None


def test_a_late_or_unknown_report_does_nothing() -> None:
    clocked = Clocked(new_session())
    assert clocked.report(1, key("early"), 0.0).result is STALE
    first = clocked.session.begin_refresh(INITIAL, 0.0)
    assert clocked.report(first + 1, key("stranger"), 0.0).result is STALE
    assert clocked.report(first, key("a"), 0.0).result is RENEWED
    assert clocked.report(first, key("again"), 0.0).result is STALE
    assert clocked.report(first, NetworkError("late"), 0.0).result is STALE
    assert clocked.sent(0.0) == "1:a"


# Failures


def test_a_failed_refresh_backs_off_longer_each_time() -> None:
    clocked = Clocked(new_session())
    now = 0.0
    for wait in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0):
        assert clocked.refresh(NetworkError("vault"), now) is FAILED
        assert clocked.session.deadline() == now + wait
        assert clocked.wants(now + wait - 0.001) is None
        now += wait
        assert clocked.wants(now) is INITIAL
        assert clocked.session.deadline() is None
    assert clocked.refresh(key("a"), now) is RENEWED
    clocked.session.request_rebuild(MANUAL, now)
    assert clocked.refresh(NetworkError("vault"), now) is FAILED
    assert clocked.session.deadline() == now + 1.0  # a success starts the curve afresh


def test_the_failure_is_handed_on() -> None:
    clocked = Clocked(new_session())
    error = NetworkError("vault")
    outcome = clocked.report(clocked.session.begin_refresh(INITIAL, 0.0), error, 0.0)
    assert outcome.result is FAILED
    assert outcome.error is error


@pytest.mark.parametrize("expires_at", [-1e9, 0.0, 5.0, 5.0 + 1e-16])
def test_a_credential_that_has_expired_already_is_a_failure(expires_at: float) -> None:
    clocked = Clocked(new_session())
    outcome = clocked.report(clocked.session.begin_refresh(INITIAL, 0.0), key("old-key", expires_at), 5.0)
    assert outcome.result is FAILED
    assert isinstance(outcome.error, Unauthorized)
    assert outcome.error.provider == "openai"
    assert "old-key" not in repr(outcome)
    assert clocked.sent(5.0) is None
    assert clocked.wants(5.0) is None
    assert clocked.wants(6.0) is INITIAL


def test_a_refresh_that_never_reports_counts_as_failed() -> None:
    clocked = Clocked(new_session(refresh_timeout=30.0))
    assert clocked.session.expire(0.0) is None
    refresh_id = clocked.session.begin_refresh(INITIAL, 10.0)
    assert clocked.session.deadline() == 40.0
    assert clocked.session.expire(39.999) is None
    outcome = clocked.session.expire(40.5)
    assert outcome is not None
    assert outcome.result is FAILED
    assert isinstance(outcome.error, Timeout)
    assert (outcome.error.elapsed_ms, outcome.error.phase, outcome.error.provider) == (30_500.0, "refresh", "openai")
    assert not outcome.error.counts_as_circuit_failure
    assert clocked.session.expire(1000.0) is None
    assert clocked.report(refresh_id, key("late"), 1000.0).result is STALE
    assert clocked.sent(1000.0) is None
    assert clocked.wants(1000.0) is INITIAL


def test_a_report_beats_a_timeout_nobody_has_acted_on() -> None:
    clocked = Clocked(new_session(refresh_timeout=30.0))
    refresh_id = clocked.session.begin_refresh(INITIAL, 0.0)
    assert clocked.wants(50.0) is None
    assert clocked.report(refresh_id, key("a"), 50.0).result is RENEWED


# 401


def test_a_401_takes_the_credential_out_of_service_until_it_is_rebuilt() -> None:
    clocked = ready(key("a"))
    assert clocked.wants(5.0) is None
    assert clocked.session.unauthorized(1, 5.0) is WAIT_FOR_REBUILD
    assert clocked.sent(5.0) is None
    assert clocked.session.deadline() == 5.0  # at once
    assert clocked.wants(5.0) is AUTH_FAILURE
    refresh_id = clocked.session.begin_refresh(AUTH_FAILURE, 5.0)
    assert clocked.session.unauthorized(1, 6.0) is WAIT_FOR_REBUILD
    assert clocked.wants(6.0) is None
    assert clocked.report(refresh_id, key("b"), 7.0).result is RENEWED
    assert clocked.sent(7.0) == "2:b"
    assert clocked.wants(7.0) is None


def test_a_late_401_for_an_older_credential_discards_nothing() -> None:
    clocked = ready(key("a"))
    clocked.session.unauthorized(1, 0.0)
    assert clocked.refresh(key("b"), 0.0) is RENEWED
    assert clocked.session.unauthorized(1, 1.0) is RETRY_NOW
    assert clocked.sent(1.0) == "2:b"
    assert clocked.wants(1.0) is None


def test_a_rebuild_that_brings_the_same_credential_serves_it_again() -> None:
    clocked = ready(key("a"))
    clocked.session.unauthorized(1, 0.0)
    assert clocked.refresh(key("a"), 0.0) is UNCHANGED
    assert clocked.sent(0.0) == "1:a"
    assert clocked.wants(0.0) is None
    assert clocked.session.unauthorized(1, 1.0) is WAIT_FOR_REBUILD
    assert clocked.wants(1.0) is AUTH_FAILURE


def test_a_refresh_in_flight_already_counts_as_the_rebuild() -> None:
    clocked = ready(key("a", 100.0))
    refresh_id = clocked.session.begin_refresh(EXPIRY, 45.0)
    assert clocked.session.unauthorized(1, 46.0) is WAIT_FOR_REBUILD
    assert clocked.sent(46.0) is None
    assert clocked.report(refresh_id, key("a", 100.0), 47.0).result is UNCHANGED
    assert clocked.sent(47.0) == "1:a"
    assert clocked.wants(47.0) is None


def test_a_rebuild_that_failed_is_tried_again_and_the_refused_credential_stays_out() -> None:
    clocked = ready(key("a"))
    clocked.session.unauthorized(1, 0.0)
    assert clocked.refresh(NetworkError("vault"), 0.0) is FAILED
    assert clocked.sent(0.5) is None
    assert clocked.wants(0.5) is None
    assert clocked.session.deadline() == 1.0
    assert clocked.wants(1.0) is AUTH_FAILURE


@pytest.mark.parametrize("generation", [-1, 0, 2])
def test_a_generation_never_given_out_is_misuse(generation: int) -> None:
    clocked = ready(key("a"))
    with pytest.raises(ValueError, match=f"^generation: {generation} was never given out"):
        clocked.session.unauthorized(generation, 0.0)
    assert clocked.sent(0.0) == "1:a"


# On request


@pytest.mark.parametrize("cause", [MANUAL, CONFIG_CHANGE])
def test_a_requested_rebuild_serves_the_old_credential_meanwhile(cause: SessionRebuildCause) -> None:
    clocked = ready(key("a"))
    clocked.wants(3.0)
    clocked.session.request_rebuild(cause, 3.0)
    clocked.session.request_rebuild(MANUAL, 4.0)  # one wish with the first
    assert clocked.session.deadline() == 3.0
    assert clocked.sent(4.0) == "1:a"
    assert clocked.wants(4.0) is cause
    refresh_id = clocked.session.begin_refresh(cause, 4.0)
    assert clocked.sent(5.0) == "1:a"
    assert clocked.report(refresh_id, key("b"), 5.0).result is RENEWED
    assert clocked.sent(5.0) == "2:b"
    assert clocked.wants(5.0) is None


def test_a_request_outlives_a_failure_and_honours_its_backoff() -> None:
    clocked = ready(key("a"))
    clocked.session.request_rebuild(CONFIG_CHANGE, 0.0)
    assert clocked.refresh(NetworkError("vault"), 0.0) is FAILED
    clocked.session.request_rebuild(MANUAL, 0.5)
    assert clocked.wants(0.5) is None
    assert clocked.session.deadline() == 1.0
    assert clocked.sent(0.5) == "1:a"
    assert clocked.wants(1.0) is CONFIG_CHANGE
    assert clocked.refresh(key("a"), 1.0) is UNCHANGED
    assert clocked.wants(1.0) is None


def test_a_request_during_a_refresh_is_followed_by_another() -> None:
    clocked = ready(key("a"))
    clocked.session.request_rebuild(MANUAL, 0.0)
    refresh_id = clocked.session.begin_refresh(MANUAL, 0.0)
    clocked.session.request_rebuild(CONFIG_CHANGE, 1.0)
    assert clocked.wants(1.0) is None
    clocked.report(refresh_id, key("b"), 2.0)
    assert clocked.wants(2.0) is CONFIG_CHANGE
    refresh_id = clocked.session.begin_refresh(CONFIG_CHANGE, 2.0)
    clocked.session.request_rebuild(MANUAL, 3.0)
    clocked.report(refresh_id, NetworkError("vault"), 3.0)
    assert clocked.wants(4.0) is MANUAL


def test_a_request_before_the_first_credential_is_worth_an_order() -> None:
    clocked = Clocked(new_session())
    clocked.session.request_rebuild(MANUAL, 0.0)
    assert clocked.session.deadline() == 0.0
    assert clocked.wants(0.0) is MANUAL


@pytest.mark.parametrize("cause", [INITIAL, AUTH_FAILURE, EXPIRY])
def test_other_causes_cannot_be_requested(cause: SessionRebuildCause) -> None:
    clocked = ready(key("a"))
    with pytest.raises(ValueError, match=r"^cause: "):
        clocked.session.request_rebuild(cause, 0.0)
    assert clocked.wants(0.0) is None


# Expiry


def test_a_credential_is_refreshed_ahead_of_its_expiry_and_served_meanwhile() -> None:
    clocked = ready(key("a", 3600.0))
    assert clocked.session.deadline() == 3540.0
    assert clocked.wants(3539.9) is None
    assert clocked.session.deadline() == 3540.0
    assert clocked.wants(3540.0) is EXPIRY
    refresh_id = clocked.session.begin_refresh(EXPIRY, 3540.0)
    assert clocked.sent(3541.0) == "1:a"
    assert clocked.report(refresh_id, key("b", 7200.0), 3541.0).result is RENEWED
    assert clocked.sent(3541.0) == "2:b"
    assert clocked.session.deadline() == 7140.0


def test_it_is_never_sent_once_expired() -> None:
    clocked = ready(key("a", 100.0))
    assert clocked.wants(50.0) is EXPIRY
    assert clocked.session.deadline() == 100.0  # the answer at 50 was given, and is not repeated
    assert clocked.sent(99.999) == "1:a"
    assert clocked.sent(100.0) is None
    assert clocked.wants(100.0) is EXPIRY
    assert clocked.session.deadline() is None


def test_a_failed_refresh_ahead_is_tried_again_while_the_old_credential_serves() -> None:
    clocked = ready(key("a", 100.0))
    assert clocked.refresh(NetworkError("vault"), 50.0) is FAILED
    assert clocked.session.deadline() == 51.0
    assert clocked.sent(51.0) == "1:a"
    assert clocked.wants(51.0) is EXPIRY


@pytest.mark.parametrize(
    ("lifetime", "first_look"), [(3600.0, 3540.0), (121.0, 61.0), (120.0, 60.0), (60.0, 30.0), (1.0, 0.5)]
)
def test_no_refresh_ahead_in_the_first_half_of_a_life(lifetime: float, first_look: float) -> None:
    clocked = ready(key("a", lifetime))
    assert clocked.session.deadline() == first_look
    assert clocked.wants(first_look - 0.01) is None
    assert clocked.wants(first_look) is EXPIRY


def test_refresh_ahead_of_zero_waits_for_the_expiry() -> None:
    clocked = ready(key("a", 100.0), refresh_ahead=0.0)
    assert clocked.session.deadline() == 100.0
    assert clocked.wants(99.9) is None
    assert clocked.wants(100.0) is EXPIRY


def test_one_refresh_ahead_for_each_credential() -> None:
    clocked = ready(key("a", 100.0))
    assert clocked.refresh(key("a", 100.0), 50.0) is UNCHANGED
    assert clocked.wants(50.0) is None
    assert clocked.session.deadline() == 100.0
    clocked.session.request_rebuild(MANUAL, 60.0)
    assert clocked.refresh(key("a", 99.0), 60.0) is UNCHANGED
    assert clocked.session.deadline() == 99.0
    assert clocked.wants(98.9) is None
    assert clocked.wants(99.0) is EXPIRY


def test_the_same_credential_with_a_longer_life_is_refreshed_ahead_again() -> None:
    clocked = ready(key("a", 100.0))
    assert clocked.refresh(key("a", 300.0), 50.0) is UNCHANGED
    assert clocked.sent(150.0) == "1:a"
    assert clocked.session.deadline() == 240.0


def test_another_cause_does_not_spend_the_refresh_ahead() -> None:
    clocked = ready(key("a", 1000.0))
    clocked.session.request_rebuild(MANUAL, 10.0)
    assert clocked.refresh(key("a", 1000.0), 10.0) is UNCHANGED
    assert clocked.session.deadline() == 940.0


def test_a_life_may_become_endless_and_ended() -> None:
    clocked = ready(key("a", 100.0))
    assert clocked.refresh(key("a"), 50.0) is UNCHANGED
    assert clocked.session.deadline() is None
    assert clocked.sent(1000.0) == "1:a"
    clocked.session.request_rebuild(MANUAL, 1000.0)
    assert clocked.refresh(key("a", 2000.0), 1000.0) is UNCHANGED
    assert clocked.session.deadline() == 1940.0


# Clocks


def test_a_wall_clock_that_jumps_ahead_ends_a_life_for_good() -> None:
    clocked = ready(key("a", 3600.0))
    clocked.wants(10.0)
    clocked.jump = 3590.0
    assert clocked.sent(10.0) is None
    assert clocked.session.deadline() == 10.0
    assert clocked.wants(10.0) is EXPIRY
    clocked.jump = 0.0
    assert clocked.sent(11.0) is None  # it was known to be expired once
    assert clocked.refresh(key("a", 3600.0), 11.0) is UNCHANGED
    assert clocked.sent(11.0) == "1:a"


def test_a_wall_clock_that_jumps_ahead_a_little_brings_the_refresh_forward() -> None:
    clocked = ready(key("a", 3600.0))
    clocked.jump = 3550.0
    assert clocked.sent(10.0) == "1:a"
    assert clocked.wants(10.0) is EXPIRY


def test_a_wall_clock_that_jumps_back_does_not_prolong_a_life() -> None:
    clocked = ready(key("a", 3600.0))
    clocked.jump = -3600.0
    assert clocked.wants(3540.0) is EXPIRY
    assert clocked.sent(3599.0) == "1:a"
    assert clocked.sent(3600.0) is None


def test_a_monotonic_clock_that_goes_backwards_stands_still() -> None:
    clocked = ready(key("a", 100.0))
    assert clocked.sent(100.0) is None
    assert clocked.session.snapshot(50.0, UNIX + 50.0) is None
    refresh_id = clocked.session.begin_refresh(EXPIRY, 0.0)
    assert clocked.session.deadline() == 130.0
    assert clocked.session.report(refresh_id, NetworkError("vault"), 0.0, UNIX).result is FAILED
    assert clocked.session.deadline() == 101.0
    assert clocked.wants(0.0) is None
    clocked.session.request_rebuild(MANUAL, 0.0)
    assert clocked.session.unauthorized(1, 0.0) is WAIT_FOR_REBUILD
    assert clocked.session.expire(0.0) is None


# Values


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"refresh_ahead": -1.0}, "refresh_ahead"),
        ({"refresh_ahead": math.nan}, "refresh_ahead"),
        ({"refresh_ahead": math.inf}, "refresh_ahead"),
        ({"refresh_timeout": 0.0}, "refresh_timeout"),
        ({"refresh_timeout": True}, "refresh_timeout"),
        ({"backoff": 3.0}, "backoff"),
    ],
)
def test_a_configuration_out_of_range_is_refused_by_name(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        SessionConfig(**arguments)


def test_the_defaults() -> None:
    assert SessionConfig() == SessionConfig(60.0, BackoffPolicy(1.0, 60.0, 2.0, JitterKind.EQUAL), 30.0)


def test_no_value_shows() -> None:
    clocked = ready(key("sk-live-Zq7x"))
    assert "Zq7x" not in repr(clocked.session.snapshot(0.0, UNIX)) + repr(clocked.session)


# Against a naive model


@dataclass
class Held:
    """The model's own note of the credential."""

    credential: Credential
    generation: int
    expires_at: float | None
    refresh_from: float | None
    spent: bool = False
    refused: bool = False
    expiring_seen: bool = False
    expired_seen: bool = False


class SessionAgainstModel(RuleBasedStateMachine):
    @initialize(ahead=st.sampled_from([0.0, 5.0, 1000.0]))
    def start(self, ahead: float) -> None:
        self.ahead = ahead
        self.session = new_session(ahead, 8.0)
        self.now, self.jump = 0.0, 0.0
        self.held: Held | None = None
        self.flight: tuple[int, SessionRebuildCause, float, SessionRebuildCause | None] | None = None
        self.asked_for: SessionRebuildCause | None = None
        self.failures, self.retry_at = 0, 0.0
        self.past_refreshes: list[int] = []

    @property
    def unix(self) -> float:
        return UNIX + self.now + self.jump

    def look(self) -> None:
        """What both clocks say of the credential, remembered."""
        held = self.held
        if held is not None and held.expires_at is not None and held.refresh_from is not None:
            expires_at_unix = held.credential.expires_at_unix
            assert expires_at_unix is not None
            left = min(held.expires_at - self.now, expires_at_unix - self.unix)
            held.expired_seen |= left <= 0
            held.expiring_seen |= left <= (0 if held.spent else held.expires_at - held.refresh_from)

    def wanted(self) -> SessionRebuildCause | None:
        if self.flight is not None or self.now < self.retry_at:
            return None
        if self.held is not None and self.held.refused:
            return AUTH_FAILURE
        if self.asked_for is not None:
            return self.asked_for
        if self.held is None:
            return INITIAL
        return EXPIRY if self.held.expiring_seen else None

    def failed(self) -> None:
        assert self.flight is not None
        self.asked_for = self.asked_for or self.flight[3]
        self.flight = None
        self.retry_at = self.now + min(60.0, 2.0**self.failures)
        self.failures += 1

    @rule(step=st.sampled_from([0.0, 1.0, 2.0, 4.0, 8.0, 50.0]))
    def time_passes(self, step: float) -> None:
        self.now += step

    @rule(jump=st.sampled_from([-20.0, -1.0, 1.0, 6.0, 20.0]))
    def the_wall_clock_jumps(self, jump: float) -> None:
        self.jump += jump

    @rule(behind=st.sampled_from([0.0, 0.0, 30.0]))
    def order(self, behind: float) -> None:
        self.session.snapshot(self.now, self.unix)
        self.look()
        cause = self.session.wants_refresh(self.now - behind, self.unix)
        assert cause is self.wanted()
        if cause is not None:
            refresh_id = self.session.begin_refresh(cause, self.now - behind)
            self.flight = (refresh_id, cause, self.now, self.asked_for)
            self.asked_for = None

    @precondition(lambda self: self.flight is not None)
    @rule(name=st.sampled_from("aab"), life=st.sampled_from([None, -1.0, 0.0, 2.0, 4.0, 16.0, 16.0, 64.0]))
    def a_credential_comes(self, name: str, life: float | None) -> None:
        assert self.flight is not None
        refresh_id, cause, *_ = self.flight
        fetched = Credential(name, None if life is None else self.unix + life)
        outcome = self.session.report(refresh_id, fetched, self.now, self.unix)
        self.past_refreshes.append(refresh_id)
        if life is not None and life <= 0:
            assert (outcome.result, type(outcome.error)) == (FAILED, Unauthorized)
            self.failed()
            return
        old = self.held
        same = old is not None and old.credential.reveal() == name
        assert outcome == SessionOutcome(UNCHANGED if same else RENEWED)
        generation = (0 if old is None else old.generation) + (0 if same else 1)
        expires_at = None if life is None else self.now + life
        refresh_from = None if life is None else self.now + max(life - self.ahead, life / 2)
        self.held = Held(fetched, generation, expires_at, refresh_from)
        if same and old is not None and old.credential.expires_at_unix is not None and fetched.expires_at_unix is not None:
            longer = fetched.expires_at_unix > old.credential.expires_at_unix
            self.held.spent = not longer and (old.spent or cause is EXPIRY or self.ahead == 0)
        self.flight = None
        self.failures, self.retry_at = 0, 0.0

    @precondition(lambda self: self.flight is not None)
    @rule()
    def a_refresh_fails(self) -> None:
        assert self.flight is not None
        error = NetworkError("vault")
        outcome = self.session.report(self.flight[0], error, self.now, self.unix)
        assert outcome == SessionOutcome(FAILED, error)
        self.past_refreshes.append(self.flight[0])
        self.failed()

    @precondition(lambda self: self.past_refreshes)
    @rule(data=st.data())
    def a_report_comes_late(self, data: st.DataObject) -> None:
        refresh_id = data.draw(st.sampled_from(self.past_refreshes))
        assert self.session.report(refresh_id, Credential("late"), self.now, self.unix).result is STALE

    @rule()
    def a_timer_fires(self) -> None:
        outcome = self.session.expire(self.now)
        if self.flight is not None and self.now >= self.flight[2] + 8.0:
            assert outcome is not None
            assert (outcome.result, type(outcome.error)) == (FAILED, Timeout)
            self.past_refreshes.append(self.flight[0])
            self.failed()
        else:
            assert outcome is None

    @precondition(lambda self: self.held is not None)
    @rule(older=st.sampled_from([0, 0, 1, 2]), behind=st.sampled_from([0.0, 30.0]))
    def a_401_comes(self, older: int, behind: float) -> None:
        assert self.held is not None
        generation = max(1, self.held.generation - older)
        verdict = self.session.unauthorized(generation, self.now - behind)
        assert verdict is (WAIT_FOR_REBUILD if generation == self.held.generation else RETRY_NOW)
        self.held.refused |= generation == self.held.generation

    @rule(cause=st.sampled_from([MANUAL, CONFIG_CHANGE]))
    def a_rebuild_is_requested(self, cause: SessionRebuildCause) -> None:
        self.session.request_rebuild(cause, self.now)
        self.asked_for = self.asked_for or cause

    @invariant()
    def serves_what_the_model_serves(self) -> None:
        self.look()
        snapshot = self.session.snapshot(self.now, self.unix)
        held = self.held
        if held is None or held.refused or held.expired_seen:
            assert snapshot is None
        else:
            assert snapshot == SessionSnapshot(held.generation, held.credential)
            assert held.credential.expires_at_unix is None or self.unix < held.credential.expires_at_unix
        assert self.session.generation == (0 if held is None else held.generation)
        assert self.session.refreshing is (self.flight is not None)

    @invariant()
    def a_deadline_is_tight_and_never_stuck(self) -> None:
        self.look()
        self.session.snapshot(self.now, self.unix)
        deadline = self.session.deadline()
        if self.flight is not None:
            assert deadline == self.flight[2] + 8.0
        elif deadline is None:
            assert self.wanted() in (None, INITIAL) or self.session.wants_refresh(self.now, self.unix) is not None
        elif deadline > self.now:
            assert self.session.wants_refresh(self.now, self.unix) is self.wanted()
            assert self.session.deadline() == deadline


SessionAgainstModel.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestSessionAgainstModel = SessionAgainstModel.TestCase


@given(
    st.lists(st.tuples(st.sampled_from("aab"), st.sampled_from([None, 0.0, 1e-9, 0.3, 7.0, 90.0, 4000.0])), max_size=30),
    st.sampled_from([0.0, 60.0, 1e6]),
    st.sampled_from([0.0, 1e9 / 7]),
)
def test_a_driver_that_only_follows_the_deadline_never_spins(
    answers: list[tuple[str, float | None]], ahead: float, epoch: float
) -> None:
    """Look at every deadline, order what is wanted: time moves on, and no expired credential is ever served."""
    session = new_session(ahead)
    now = epoch
    for name, life in answers:
        cause = session.wants_refresh(now, UNIX + now)
        if cause is not None:
            refresh_id = session.begin_refresh(cause, now)
            fetched = Credential(name, None if life is None else UNIX + now + life)
            session.report(refresh_id, fetched, now, UNIX + now)
            assert session.wants_refresh(now, UNIX + now) is None
        deadline = session.deadline()
        if deadline is None:
            break
        assert deadline > now
        snapshot = session.snapshot(now, UNIX + now)
        if snapshot is not None and snapshot.credential.expires_at_unix is not None:
            assert UNIX + now < snapshot.credential.expires_at_unix
        now = deadline
