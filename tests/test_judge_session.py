"""The judge's credentials: quiet beside an engine that is right, and 18 for each way in which it may be wrong."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
from engine_harness import deployment
from judge_models_rig import JudgedRig, breaks, judged_walk

from sansio import errors
from sansio.backoff import BackoffPolicy
from sansio.events import AttemptEnded, RebuildSession, SessionReport
from sansio.registry import Registry
from sansio.secret import Credential
from sansio.session import AuthVerdict, RemoteSession, SessionConfig, SessionRebuildCause
from sansio.sessions import Sessions
from sansio.simulation.judge.session_model import SessionModel
from sansio.simulation.world.node import Call

Patch = pytest.MonkeyPatch
SESSION = SessionConfig(refresh_ahead=5.0, backoff=BackoffPolicy(2.0, 8.0, jitter="none"), refresh_timeout=10.0)


def rig(session: SessionConfig = SESSION, **rest: Any) -> JudgedRig:
    return JudgedRig(SessionModel, deployment(), session=session, **rest)


def key(world: JudgedRig, value: str, seconds: float | None = None) -> Credential:
    return Credential(value, None if seconds is None else world.now + world.unix_ahead + seconds)


def sent(world: JudgedRig, request_id: int, value: str | None) -> None:
    call = cast(Call, SimpleNamespace(request_id=request_id))
    assert isinstance(world.part, SessionModel)
    world.part.sent(call, value, world.now, world.now + world.unix_ahead)


# ---- an engine that is right ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("roster", ["alone", "limited", "mixed", "spending", "ageing"])
def test_it_is_quiet_in_random_worlds(monkeypatch: Patch, roster: str, seed: int) -> None:
    judged_walk(monkeypatch, SessionModel, roster, seed)


def test_a_credential_is_refreshed_ahead_of_its_expiry() -> None:
    world = rig(refreshed=False)
    world.submit(1)
    world.refresh(key(world, "sk-1", 20.0))
    world.tick(14.9)
    assert not world.refreshes
    world.tick(0.1)
    world.refresh(key(world, "sk-1", 5.0))
    world.submit(2)
    assert world.starts() == [2]
    world.tick(5.0)
    world.submit(3)
    assert world.starts() == []
    world.refresh(key(world, "sk-2"))
    assert world.starts() == [3]
    world.healed()


def test_a_wall_clock_that_jumps_ages_a_credential() -> None:
    world = rig(refreshed=False)
    world.submit(1)
    world.refresh(key(world, "sk-1", 100.0))
    world.unix_ahead += 101.0
    world.submit(2)
    world.unix_ahead -= 101.0
    assert world.starts() == []
    assert world.refreshes
    world.refresh(key(world, "sk-2"))
    assert world.starts() == [2]


def test_a_refresh_that_fails_is_tried_again_after_its_backoff() -> None:
    world = rig(refreshed=False)
    world.submit(1)
    world.refresh(errors.NetworkError())
    world.submit(2)
    world.tick(2.0)
    world.refresh(key(world, "sk-late", 0.0))
    world.submit(3)
    world.tick(4.0)
    world.tick(10.0)
    world.submit(4)
    world.tick(8.0)
    stale = world.refreshes.pop(0)
    world.tell(SessionReport(0, stale.refresh_id, key(world, "sk-stale")))
    world.refresh(key(world, "sk-1"))
    assert world.starts() == [4]
    world.tell(SessionReport(9, 1, key(world, "sk-nobody")))
    world.healed()


@pytest.mark.parametrize("jitter", ["equal", "full", "decorrelated"])
def test_a_backoff_with_jitter(jitter: Any) -> None:
    world = rig(SessionConfig(backoff=BackoffPolicy(2.0, 8.0, jitter=jitter)), refreshed=False)
    for request_id in range(1, 9):
        world.submit(request_id)
        if not world.refreshes:
            world.tick_at_deadline()
        world.refresh(errors.NetworkError())


def test_a_401_is_answered_by_one_rebuild() -> None:
    world = rig()
    for request_id in (1, 2, 3):
        world.submit(request_id)
    world.end(1, errors.Unauthorized())
    world.end(2, errors.Unauthorized())
    assert len(world.refreshes) == 1
    world.submit(4)
    world.cancel(2)
    world.refresh()
    assert world.starts() == [1, 4]
    world.end(3, errors.Unauthorized())
    assert world.starts() == [3]
    assert not world.refreshes
    world.end(1, errors.ServerError())
    world.tick(1.0)
    assert world.starts() == [1]
    world.end(1, errors.Unauthorized())
    assert world.outcome(1) == "unauthorized"
    world.tell(AttemptEnded(1, 1, errors.Unauthorized(), None, True))
    world.refresh()
    world.healed()


def test_somebody_asks_for_another_credential() -> None:
    world = rig()
    world.submit(1)
    world.tell(RebuildSession(None))
    world.tell(RebuildSession("chat", SessionRebuildCause.CONFIG_CHANGE))
    world.refresh(errors.NetworkError())
    world.tick(2.0)
    world.refresh()
    assert not world.refreshes
    world.healed()


def test_what_is_sent_is_what_the_attempt_carries() -> None:
    world = rig()
    world.submit(1)
    sent(world, 1, "sk-1")
    sent(world, 1, None)
    sent(world, 2, "sk-of-nobody")
    with breaks(18, "request 1 was sent with another key than its attempt's"):
        sent(world, 1, "sk-2")


def test_nothing_is_held_against_an_engine_that_is_closed() -> None:
    world = rig(refreshed=False)
    world.submit(1)
    world.now += 20.0
    world.close()
    world.tick(20.0)
    world.healed()


# ---- engines that are not ---------------------------------------------------------------------------------------------


def test_two_refreshes_at_once(monkeypatch: Patch) -> None:
    right = Sessions.want

    def wrong(self: Sessions, slot: Any) -> None:
        slot.session._in_flight = None
        right(self, slot)

    world = rig(refreshed=False)
    world.submit(1)
    monkeypatch.setattr(Sessions, "want", wrong)
    with breaks(18, "a refresh was ordered while another one is under way"):
        world.submit(2)


def test_a_refresh_under_an_old_number() -> None:
    world = rig()
    world.submit(1)
    session = world.core.roster.sessions[0].session
    session._refresh_id = 0
    with breaks(18, "a refresh was ordered under the number of an earlier one"):
        world.tell(RebuildSession(None))


def test_a_failed_refresh_that_does_not_back_off() -> None:
    world = rig(refreshed=False)
    world.submit(1)
    world.refresh(errors.NetworkError())
    world.core.roster.sessions[0].session._retry_at = -math.inf
    with breaks(18, "a refresh was ordered before the last failure's backoff can be over"):
        world.submit(2)


def test_a_backoff_that_does_not_grow() -> None:
    world = rig(refreshed=False)
    world.submit(1)
    world.refresh(errors.NetworkError())
    world.submit(2)
    world.tick_at_deadline()
    world.refresh(errors.NetworkError())
    world.core.roster.sessions[0].session._retry_at = world.now + 2.0
    world.now += 2.0
    with breaks(18, "a refresh was ordered before the last failure's backoff can be over"):
        world.submit(3)


def test_a_refresh_storm_on_401(monkeypatch: Patch) -> None:
    right = RemoteSession.unauthorized
    monkeypatch.setattr(RemoteSession, "unauthorized", lambda self, generation, now: right(self, self.generation, now))
    world = rig()
    world.submit(1)
    world.submit(2)
    world.end(1, errors.Unauthorized())
    world.refresh()
    with breaks(18, "a refresh was ordered, cause auth_failure, and there is no such cause"):
        world.end(2, errors.Unauthorized())


@pytest.mark.parametrize("cause", list(SessionRebuildCause))
def test_a_refresh_that_nothing_calls_for(monkeypatch: Patch, cause: SessionRebuildCause) -> None:
    world = rig()
    world.submit(1)
    monkeypatch.setattr(RemoteSession, "snapshot", lambda self, now, unix_now: None)
    monkeypatch.setattr(RemoteSession, "wants_refresh", lambda self, now, unix_now: cause)
    with breaks(18, f"cause {cause}, and there is no such cause"):
        world.submit(2)


def test_a_start_with_a_credential_that_is_refused() -> None:
    world = rig()
    world.submit(1)
    world.end(1, errors.Unauthorized())
    world.core.roster.sessions[0].session._refused_at = None
    with breaks(18, "a credential that was refused, and no rebuild has reported"):
        world.submit(2)


@pytest.mark.parametrize("wall_clock", [False, True])
def test_a_start_with_a_credential_that_has_expired(wall_clock: bool) -> None:
    world = rig(refreshed=False)
    world.submit(1)
    world.refresh(key(world, "sk-1", 50.0))
    world.core.roster.sessions[0].session._lifetime = None
    if wall_clock:
        world.unix_ahead += 50.0
    else:
        world.now += 50.0
    with breaks(18, "a credential that is known to have expired"):
        world.submit(2)


def test_a_start_with_an_older_credential(monkeypatch: Patch) -> None:
    world = rig()
    world.submit(1)
    old = world.core.roster.sessions[0].session._snapshot
    world.tell(RebuildSession(None))
    world.refresh()
    monkeypatch.setattr(RemoteSession, "snapshot", lambda self, now, unix_now: old)
    with breaks(18, "of generation 1, and 2 is the current one"):
        world.submit(2)


def test_a_start_with_a_credential_from_nowhere(monkeypatch: Patch) -> None:
    other = rig()
    other.submit(1)
    snapshot = other.core.roster.sessions[0].session._snapshot
    monkeypatch.setattr(RemoteSession, "snapshot", lambda self, now, unix_now: snapshot)
    with breaks(18, "of generation 1, and 0 is the current one"):
        rig().submit(1)


def test_a_refused_request_that_goes_again_with_the_same_credential(monkeypatch: Patch) -> None:
    monkeypatch.setattr(RemoteSession, "unauthorized", lambda self, generation, now: AuthVerdict.RETRY_NOW)
    world = rig()
    world.submit(1)
    with breaks(18, "request 1 goes again with the credential that was refused"):
        world.end(1, errors.Unauthorized())


def test_a_refused_request_that_goes_again_twice(monkeypatch: Patch) -> None:
    right = Sessions.unauthorized

    def wrong(self: Sessions, request: Any, *rest: Any, **options: Any) -> bool:
        request.refreshed = False
        return right(self, request, *rest, **options)

    monkeypatch.setattr(Sessions, "unauthorized", wrong)
    world = rig()
    world.submit(1)
    world.end(1, errors.Unauthorized())
    world.refresh()
    world.end(1, errors.Unauthorized())
    with breaks(18, "request 1 goes again for a 401 that it did not meet, or twice"):
        world.refresh()


def test_a_refused_request_that_goes_again_in_silence(monkeypatch: Patch) -> None:
    monkeypatch.setattr(Registry, "retried", lambda self, request, reason, wait: None)
    world = rig()
    world.submit(1)
    world.end(1, errors.Unauthorized())
    with breaks(18, "request 1 was started after a 401 that forbids it"):
        world.refresh()


def test_a_refresh_that_ends_in_silence(monkeypatch: Patch) -> None:
    monkeypatch.setattr(Registry, "notice", lambda self, kind, lane, request_id=None, **detail: None)
    world = rig(refreshed=False)
    world.submit(1)
    with breaks(18, "a refresh ended (renewed), and nobody was told"):
        world.refresh(key(world, "sk-1"))


def test_a_refresh_that_is_waited_for_too_long(monkeypatch: Patch) -> None:
    monkeypatch.setattr(RemoteSession, "expire", lambda self, now: None)
    monkeypatch.setattr(RemoteSession, "deadline", lambda self: None)
    world = rig(refreshed=False)
    world.submit(1)
    with breaks(18, "a refresh ended (failed), and nobody was told"):
        world.tick(10.0)


def test_a_refresh_that_ends_otherwise(monkeypatch: Patch) -> None:
    world = rig()
    world.submit(1)
    world.tell(RebuildSession(None))
    right = RemoteSession._take

    def wrong(self: RemoteSession, refresh: Any, credential: Credential, lifetime: Any) -> Any:
        self._snapshot = None
        return right(self, refresh, credential, lifetime)

    monkeypatch.setattr(RemoteSession, "_take", wrong)
    with breaks(18, "a refresh ended (renewed), and should have: unchanged"):
        world.refresh(key(world, "sk-1"))


@pytest.mark.parametrize(
    ("field", "value", "words"), [("_in_flight", None, "refreshing=False"), ("_snapshot", None, "gener")]
)
def test_a_session_that_shows_something_else(field: str, value: Any, words: str) -> None:
    world = rig()
    world.submit(1)
    world.tell(RebuildSession(None))
    setattr(world.core.roster.sessions[0].session, field, value)
    with breaks(18, words):
        world.healed()
