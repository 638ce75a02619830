"""`sansio.engine` and `sansio.sessions`: what follows from credentials (spec 4.8)."""

from __future__ import annotations

from typing import Any

import pytest
from engine_harness import START, UNIX_AHEAD, Rig, deployment

from sansio.backoff import BackoffPolicy, JitterKind
from sansio.circuit_breaker import CircuitState
from sansio.errors import Forbidden, InferenceError, NetworkError, QuotaExhausted, StreamInterrupted, Unauthorized
from sansio.events import CircuitAction, OverrideCircuit, RebuildSession, RefreshSession, SessionReport, StartAttempt
from sansio.secret import Credential, Secret
from sansio.session import SessionConfig, SessionRebuildCause

SESSION = SessionConfig(refresh_ahead=60.0, backoff=BackoffPolicy(2.0, 60.0, jitter=JitterKind.NONE), refresh_timeout=10.0)


def fresh(*options: Any, **rest: Any) -> Rig:
    """A rig without a credential."""
    return Rig(deployment(*options, **rest), refreshed=False, session=SESSION)


def ready(**options: Any) -> Rig:
    """A rig with one that never expires."""
    return Rig(deployment(**options), session=SESSION)


def causes(rig: Rig) -> list[str]:
    """Why the last fact led to an order for a credential."""
    return [str(order.cause) for order in rig.of(RefreshSession)]


def credential_of(rig: Rig, request_id: int) -> int:
    """The generation of the credential an attempt carries."""
    return rig.started[request_id].exchange.generation


# Without a credential.


def test_requests_wait_for_the_first_credential_in_order_and_hold_no_slot() -> None:
    rig = fresh(serving={"max_concurrent": 2})
    rig.submit(1)
    (order,) = rig.refreshes
    assert (order.session, order.cause, order.secret) == (0, SessionRebuildCause.INITIAL, Secret.inline("sk-one"))
    rig.submit(2)
    rig.submit(3)
    assert (rig.metrics.queued, rig.metrics.in_flight, rig.metrics.refreshes) == (3, 0, 1)
    rig.refresh()
    assert rig.starts() == [1, 2]
    assert rig.notices("refresh_ended") == [{"result": "renewed"}]


def test_nothing_is_fetched_before_somebody_asks() -> None:
    rig = fresh()
    assert rig.tick(100.0) == []
    assert rig.engine.deadline() is None


def test_deployments_with_one_secret_have_one_session() -> None:
    rig = Rig(deployment("a"), deployment("b", model="gpt-4o-mini"), deployment("c", key="sk-two"), refreshed=False)
    for request_id, name in enumerate("abc"):
        rig.submit(request_id, name)
    assert [order.session for order in rig.refreshes] == [0, 1]
    rig.refresh()
    assert rig.starts() == [0, 1]


def test_one_deployment_without_a_credential_does_not_hold_up_another_with_the_same_limit() -> None:
    config = (deployment("a", limits={"requests_per_minute": 9}), deployment("b", key="sk-two"))
    rig = Rig(*config, refreshed=False, fingerprints={"a": "f", "b": "f"})
    rig.submit(1, "a")
    rig.submit(2, "b")
    rig.refreshes.pop(0)
    rig.refresh()
    assert rig.starts() == [2]


def test_waiters_fail_together_each_with_an_error_of_its_own_and_the_same_cause() -> None:
    rig = fresh()
    for request_id in (1, 2):
        rig.submit(request_id)
    cause = NetworkError("no vault")
    rig.refresh(cause)
    assert [rig.outcome(request_id) for request_id in (1, 2)] == ["unauthorized", "unauthorized"]
    assert rig.error(1) is not rig.error(2)
    assert rig.error(1).cause is rig.error(2).cause is cause
    assert (rig.error(1).provider, rig.metrics.failed_refreshes) == ("openai", 1)


def test_a_failed_refresh_backs_off() -> None:
    rig = fresh()
    rig.submit(1)
    rig.refresh(NetworkError())
    rig.submit(2)
    assert rig.of(RefreshSession) == []
    assert rig.engine.deadline() == START + 2.0
    rig.tick_at_deadline()
    assert causes(rig) == ["initial"]
    rig.refresh()
    assert rig.starts() == [2]


def test_with_nobody_waiting_it_is_not_tried_again() -> None:
    rig = fresh()
    rig.submit(1)
    rig.refresh(NetworkError())
    rig.tick_at_deadline()
    assert rig.effects == []
    assert rig.engine.deadline() is None
    rig.submit(2)
    assert causes(rig) == ["initial"]


def test_a_refresh_that_never_reports_has_failed_and_its_late_report_does_nothing() -> None:
    rig = fresh()
    rig.submit(1)
    rig.tick_at_deadline()
    assert rig.now == START + 10.0
    assert rig.outcome(1) == "unauthorized"
    assert rig.error(1).cause is not None
    rig.refresh(Credential("sk-late"))
    assert rig.effects == []
    rig.submit(2)
    assert rig.starts() == []


def test_a_waiters_deadline_bounds_the_wait() -> None:
    rig = fresh()
    rig.submit(1, timeout=3.0)
    rig.tick_at_deadline()
    assert (rig.now, rig.outcome(1)) == (START + 3.0, "deadline_exceeded")


@pytest.mark.parametrize("session", [-1, 1, 99])
def test_a_report_of_nobodys_session_does_nothing(session: int) -> None:
    rig = fresh()
    rig.submit(1)
    rig.tell(SessionReport(session, 1, Credential("sk-x")))
    assert rig.effects == []


# Expiry.


def expiring(seconds: float) -> Rig:
    rig = fresh()
    rig.submit(1)
    rig.refresh(Credential("sk-0", START + UNIX_AHEAD + seconds))
    assert rig.starts() == [1]
    rig.end(1)
    return rig


def test_a_credential_is_refreshed_ahead_of_its_expiry_and_served_meanwhile() -> None:
    rig = expiring(600.0)
    assert rig.engine.deadline() == START + 540.0
    rig.tick_at_deadline()
    assert causes(rig) == ["expiry"]
    rig.submit(2)
    assert (rig.starts(), credential_of(rig, 2)) == ([2], 1)
    rig.refresh()
    rig.submit(3)
    assert credential_of(rig, 3) == 2


def test_it_is_never_sent_once_it_has_expired() -> None:
    rig = expiring(600.0)
    rig.now += 600.0
    rig.submit(2)
    assert rig.starts() == []
    assert causes(rig) == ["expiry"]


def test_nor_when_the_wall_clock_alone_says_so() -> None:
    rig = expiring(600.0)
    rig.unix_ahead += 600.0
    rig.submit(2)
    assert rig.starts() == []


def test_what_runs_finishes_with_the_credential_it_started_with() -> None:
    rig = ready()
    rig.submit(1)
    rig.tell(RebuildSession("chat"))
    rig.refresh()
    rig.end(1)
    assert (rig.outcome(1), credential_of(rig, 1)) == ("ok", 1)


# 401.


def refused(**options: object) -> Rig:
    """A rig whose requests 1 and 2 run with the same credential, and 1 was answered 401."""
    rig = ready(**options)
    rig.submit(1)
    rig.submit(2)
    rig.end(1, Unauthorized())
    return rig


def test_a_401_orders_one_rebuild_however_many_meet_it() -> None:
    rig = refused()
    assert causes(rig) == ["auth_failure"]
    rig.end(2, Unauthorized())
    assert rig.of(RefreshSession) == []
    assert rig.metrics.waiting == 2
    rig.refresh()
    assert rig.starts() == [1, 2]
    assert [credential_of(rig, request_id) for request_id in (1, 2)] == [2, 2]
    assert rig.metrics.retries == {"unauthorized": 2}


def test_who_parks_holds_no_slot() -> None:
    rig = ready(serving={"max_concurrent": 1})
    rig.submit(1)
    rig.submit(2)
    rig.end(1, Unauthorized())
    assert (rig.metrics.queued, rig.metrics.waiting, rig.metrics.in_flight) == (1, 1, 0)
    rig.refresh()
    assert rig.starts() == [1]


def test_the_refused_credential_is_not_sent_again_meanwhile() -> None:
    rig = refused()
    rig.submit(3)
    assert rig.starts() == []


def test_a_late_401_for_an_older_credential_discards_nothing_and_is_retried_at_once() -> None:
    rig = refused()
    rig.refresh()
    rig.end(2, Unauthorized())
    assert rig.of(RefreshSession) == []
    assert (rig.starts(), credential_of(rig, 2)) == ([2], 2)


def test_a_late_401_does_not_go_to_wait_behind_a_circuit_that_is_open() -> None:
    """Request 1 met a 401 with the new credential too, so the key is tripped and there is none to send meanwhile."""
    rig = refused()
    rig.refresh()
    rig.end(1, Unauthorized())
    rig.end(2, Unauthorized())
    assert (rig.outcome(2), rig.metrics.queued) == ("circuit_open", 0)
    assert isinstance(rig.error(2).cause, Unauthorized)


def test_nor_does_one_that_was_parked() -> None:
    rig = refused()
    rig.tell(OverrideCircuit("chat", CircuitAction.OPEN, 30.0))
    rig.refresh()
    assert rig.outcome(1) == "circuit_open"


def test_a_401_is_retried_once_and_a_fresh_key_that_is_refused_too_is_to_blame() -> None:
    rig = refused()
    rig.refresh()
    rig.end(1, Unauthorized())
    assert (rig.outcome(1), rig.metrics.attempts) == ("unauthorized", 3)
    rig.submit(3)
    assert rig.outcome(3) == "circuit_open"
    rig.refresh()
    rig.submit(4)
    assert rig.starts() == [4]


def test_a_retry_after_a_401_is_not_counted_against_max_retries() -> None:
    rig = ready(retry={"max_retries": 1})
    rig.submit(1)
    rig.end(1, Unauthorized())
    rig.refresh()
    rig.end(1, NetworkError())
    rig.tick(1.0)
    assert rig.starts() == [1]
    rig.end(1, NetworkError())
    assert (rig.outcome(1), rig.metrics.attempts) == ("network_error", 3)


def test_the_same_credential_again_means_that_the_401_stands() -> None:
    rig = refused()
    rig.refresh(Credential("sk-1"))
    assert rig.notices("refresh_ended") == [{"result": "unchanged"}]
    assert (rig.outcome(1), rig.metrics.attempts) == ("unauthorized", 2)
    rig.submit(3)
    assert rig.outcome(3) == "circuit_open"
    assert isinstance(rig.error(3).cause, Unauthorized)


@pytest.mark.parametrize(
    ("options", "error"), [({"idempotent": False}, Unauthorized()), ({}, Unauthorized(should_retry=False))]
)
def test_what_may_not_be_repeated_fails_and_the_rebuild_goes_on(options: dict[str, bool], error: InferenceError) -> None:
    rig = ready(**options)
    rig.submit(1)
    rig.end(1, error)
    assert rig.outcome(1) == "unauthorized"
    assert causes(rig) == ["auth_failure"]


@pytest.mark.parametrize("leaves", ["fails", "cancelled"])
def test_a_key_that_stays_the_same_is_tripped_also_where_nobody_is_parked(leaves: str) -> None:
    """Or every request would meet the same 401, with a refresh for each."""
    rig = ready(idempotent=leaves != "fails")
    rig.submit(1)
    rig.end(1, Unauthorized())
    rig.cancel(1)
    rig.refresh(Credential("sk-1"))
    rig.submit(2)
    assert rig.outcome(2) == "circuit_open"


def test_a_rebuild_that_nobody_was_refused_for_blames_no_key() -> None:
    rig = refused()
    rig.refresh(Credential("sk-other"))
    rig.tell(RebuildSession("chat"))
    rig.refresh(Credential("sk-other"))
    assert rig.notices("refresh_ended") == [{"result": "unchanged"}]
    rig.submit(3)
    assert rig.starts() == [3]


def test_after_the_commit_point_a_401_is_a_broken_stream() -> None:
    rig = ready()
    rig.submit(1)
    rig.commit(1)
    rig.end(1, Unauthorized())
    assert isinstance(rig.error(1), StreamInterrupted)
    assert causes(rig) == ["auth_failure"]


def test_a_403_does_not_rebuild() -> None:
    rig = ready()
    rig.submit(1)
    rig.end(1, Forbidden())
    assert rig.of(RefreshSession) == []


def test_a_new_credential_closes_what_was_held_against_the_old_one() -> None:
    rig = Rig(deployment("a"), deployment("b", endpoint="http://two.test/v1"), session=SESSION)
    rig.submit(1, "a")
    rig.end(1, QuotaExhausted())
    rig.submit(2, "b", wait_for_circuit=True)
    rig.tell(RebuildSession("b", SessionRebuildCause.CONFIG_CHANGE))
    rig.refresh()
    assert rig.starts() == [2]
    assert rig.notices("key_circuit") == [{"source": "open", "target": "closed", "reason": "forced_closed"}]
    assert rig.engine.circuit_state(rig.now, "a") is CircuitState.CLOSED


# Parked on a 401.


def test_the_deadline_of_a_parked_request_passes() -> None:
    rig = ready()
    rig.submit(1, timeout=5.0)
    rig.tick(1.0)
    rig.end(1, Unauthorized())
    rig.tick_at_deadline()
    assert (rig.now, rig.outcome(1)) == (START + 5.0, "deadline_exceeded")
    assert isinstance(rig.error(1).cause, Unauthorized)
    rig.refresh()
    assert rig.starts() == []


def test_a_parked_request_that_goes_on_leaves_no_timer_behind() -> None:
    rig = ready(timeouts={"connect_timeout": None, "request_timeout": 99.0})
    rig.submit(1, timeout=5.0)
    rig.end(1, Unauthorized())
    rig.refresh()
    rig.end(1)
    assert (rig.outcome(1), rig.engine.deadline()) == ("ok", None)
    assert rig.tick(5.0) == []


def test_nor_does_one_that_runs_again_meet_the_timer_of_its_wait() -> None:
    rig = ready()
    rig.submit(1, timeout=5.0)
    rig.end(1, Unauthorized())
    rig.refresh()
    assert rig.starts() == [1]
    rig.tick(5.0)
    assert (rig.aborts(), rig.outcome(1), rig.metrics.in_flight) == ([1], "-", 1)


def test_a_credential_that_comes_at_the_deadline_comes_too_late() -> None:
    rig = ready()
    rig.submit(1, timeout=5.0)
    rig.end(1, Unauthorized())
    rig.now += 5.0
    rig.refresh()
    assert rig.starts() == []
    assert rig.outcome(1) == "deadline_exceeded"
    assert isinstance(rig.error(1).cause, Unauthorized)
    assert rig.metrics.retries == {}


def test_a_failed_rebuild_fails_the_parked_and_the_queued() -> None:
    rig = refused()
    rig.submit(3)
    rig.refresh(NetworkError())
    assert [rig.outcome(request_id) for request_id in (1, 2, 3)] == ["unauthorized", "-", "unauthorized"]
    rig.tick_at_deadline()
    assert causes(rig) == ["auth_failure"]


def test_a_parked_request_may_be_cancelled() -> None:
    rig = refused()
    rig.cancel(1)
    assert (rig.metrics.waiting, rig.metrics.cancelled, rig.aborts()) == (0, 1, [])
    rig.refresh()
    assert [start.request_id for start in rig.of(StartAttempt)] == []


# Asked for.


def test_an_operators_rebuild_serves_the_old_credential_meanwhile() -> None:
    rig = ready()
    rig.submit(1)
    rig.tell(RebuildSession(None))
    assert causes(rig) == ["manual"]
    rig.submit(2)
    assert credential_of(rig, 2) == 1
    rig.refresh(NetworkError())
    rig.submit(3)
    assert rig.starts() == [3]


def test_a_wish_during_a_refresh_is_granted_after_it() -> None:
    rig = fresh()
    rig.submit(1)
    rig.tell(RebuildSession("chat"))
    assert rig.of(RefreshSession) == []
    rig.refresh()
    assert causes(rig) == ["manual"]
    assert rig.starts() == [1]


def test_an_operator_cannot_ask_for_what_only_a_provider_can_cause() -> None:
    rig = ready()
    with pytest.raises(ValueError, match=r"^cause: "):
        rig.tell(RebuildSession("chat", SessionRebuildCause.AUTH_FAILURE))


# A 401 that says when to come back.


def refused_until(hint: float, **submitted: Any) -> Rig:
    """Request 1 runs, and is answered 401 with this hint; a new credential comes at once."""
    rig = ready(retry={"max_retry_after": 20.0})
    rig.submit(1, **submitted)
    rig.end(1, Unauthorized(retry_after=hint))
    rig.refresh()
    return rig


def test_a_new_credential_does_not_undercut_the_hint_of_a_401() -> None:
    rig = refused_until(10.0)
    assert (rig.starts(), rig.metrics.waiting) == ([], 1)
    rig.tick(9.9)
    assert rig.starts() == []
    rig.tick_at_deadline()
    assert rig.starts() == [1]
    assert rig.metrics.retries == {"unauthorized": 1}


@pytest.mark.parametrize(("hint", "submitted"), [(20.1, {}), (10.0, {"timeout": 10.0})])
def test_a_401_whose_hint_is_too_long_fails_at_once(hint: float, submitted: dict[str, float]) -> None:
    assert refused_until(hint, **submitted).outcome(1) == "unauthorized"
