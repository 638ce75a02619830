"""The judge's circuits: quiet beside an engine that is right, and one number for each way in which it may be wrong."""

from __future__ import annotations

import math
from typing import Any

import pytest
from engine_harness import USAGE, deployment
from judge_models_rig import JudgedRig, breaks, judged_walk

from sansio import errors
from sansio.circuit_breaker import CircuitBreaker, CircuitPermit, CircuitRejection, CircuitState, Outcome
from sansio.circuits import Circuits
from sansio.engine import RemoteEngineCore
from sansio.errors import InferenceError, StreamInterrupted
from sansio.events import AttemptEnded, Committed, RebuildSession
from sansio.lane import Lease
from sansio.secret import Credential
from sansio.simulation.judge.circuit_model import CircuitModel
from sansio.simulation.judge.root_error import root_of

Patch = pytest.MonkeyPatch
BREAKER = {
    "failure_threshold": 2,
    "open_duration": 10.0,
    "open_multiplier": 2.0,
    "max_open_duration": 30.0,
    "probe_timeout": 5.0,
}


def rig(retries: int = 0, **breaker: Any) -> JudgedRig:
    """One deployment whose requests wait for their circuit, and are not retried."""
    retry = {"max_retries": retries}
    return JudgedRig(CircuitModel, deployment(breaker=BREAKER | breaker, retry=retry, serving={"on_circuit_open": "wait"}))


def fail(world: JudgedRig, request_id: int, error: InferenceError | None = None, **rest: Any) -> None:
    world.submit(request_id)
    world.end(request_id, error or errors.ServerError(), **rest)


def opened(**breaker: Any) -> JudgedRig:
    """It has just opened."""
    world = rig(**breaker)
    fail(world, 1)
    fail(world, 2)
    return world


def probing(**breaker: Any) -> JudgedRig:
    """Request 10 is out to probe."""
    world = opened(**breaker)
    world.submit(10)
    world.tick_at_deadline()
    assert world.starts() == [10]
    return world


def is_open(world: JudgedRig, of_key: bool = False) -> bool:
    return world.core.roster.circuits[1 if of_key else 0].breaker.opened_at is not None


# ---- an engine that is right ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("roster", ["alone", "limited", "mixed", "spending", "ageing"])
def test_it_is_quiet_in_random_worlds(monkeypatch: Patch, roster: str, seed: int) -> None:
    judged_walk(monkeypatch, CircuitModel, roster, seed)


def test_failures_open_it_and_a_probe_that_commits_closes_it() -> None:
    world = probing()
    world.submit(11)
    assert world.starts() == []
    world.commit(10)
    assert world.starts() == [11]
    world.end(10, errors.NetworkError())
    world.end(11)
    assert not is_open(world)
    world.healed()


def test_a_failed_probe_opens_it_for_longer_up_to_a_bound() -> None:
    world = opened()
    for request_id, duration in ((10, 20.0), (11, 30.0), (12, 30.0)):
        world.submit(request_id)
        world.tick_at_deadline()
        world.end(request_id, errors.NetworkError())
        assert world.engine.deadline() == world.now + duration
    with breaks(17, "still open"):
        world.healed()


def test_as_many_probes_as_it_takes() -> None:
    world = probing(success_threshold=2, half_open_max_probes=2)
    world.submit(11)
    world.cancel(10)
    world.submit(12)
    world.end(11, errors.RateLimited())
    world.commit(12)
    assert is_open(world)
    world.submit(13)
    world.commit(13)
    assert not is_open(world)


def test_a_probe_that_does_not_report_gives_its_place_back() -> None:
    world = probing()
    world.submit(11)
    world.tick(5.0)
    assert world.starts() == [11]
    world.end(10, errors.NetworkError())
    world.end(11)
    assert not is_open(world)


def test_only_what_counts_is_counted() -> None:
    world = rig()
    fail(world, 1)
    fail(world, 2, errors.RateLimited())
    world.submit(3)
    world.end(3)
    fail(world, 4)
    world.submit(5)
    world.commit(5)
    world.end(5, errors.ContentFiltered())
    world.tell(AttemptEnded(5, 5, errors.ServerError(), None, True))
    world.tell(Committed(5, 5))
    assert not is_open(world)
    world.submit(6)
    world.commit(6)
    world.end(6, errors.ServerError())
    assert is_open(world)


def test_failures_count_within_the_window() -> None:
    world = rig(window=5.0)
    fail(world, 1)
    world.now += 5.5
    fail(world, 2)
    assert not is_open(world)
    world.now += 5.0
    fail(world, 3)
    assert is_open(world)


@pytest.mark.parametrize("error", [errors.NetworkError(), errors.NetworkError(unprocessed=True)])
def test_a_connection_lost_unread_counts_the_second_time(error: errors.NetworkError) -> None:
    world = rig(failure_threshold=1)
    world.submit(1)
    world.end(1, error, stale=True)
    assert world.starts() == [1]
    assert not is_open(world)
    world.end(1, error, stale=True)
    assert is_open(world)


@pytest.mark.parametrize("stale", [False, True])
def test_a_connection_lost_counts_where_the_provider_says_not_to_try_again(stale: bool) -> None:
    world = rig(failure_threshold=1)
    fail(world, 1, errors.NetworkError(should_retry=not stale), stale=stale)
    assert is_open(world)


def test_an_operators_word() -> None:
    world = rig()
    fail(world, 1)
    world.override("reset")
    fail(world, 2)
    world.override("close", name="chat")
    world.override("open", 5.0)
    world.override("open", 15.0)
    world.tick(14.0)
    assert is_open(world)
    world.tick(1.0)
    world.override("reset")
    world.override("open", None)
    world.tick(1e6)
    world.override("close")
    world.override("open", 0.0)
    world.submit(3)
    assert world.starts() == [3]
    world.end(3)
    world.healed()


def test_what_was_sent_before_a_reset_says_nothing() -> None:
    world = rig(failure_threshold=1)
    world.submit(1)
    world.override("reset")
    world.end(1, errors.ServerError())
    assert not is_open(world)


@pytest.mark.parametrize(("hint", "seconds"), [(None, 30.0), (4.0, 4.0), (0.0, 0.0), (math.nan, 30.0)])
def test_a_key_that_is_to_blame(hint: float | None, seconds: float) -> None:
    world = rig()
    fail(world, 1, errors.QuotaExhausted(retry_after=hint))
    assert is_open(world, of_key=True)
    world.submit(2)
    if seconds:
        world.tick(seconds - 0.1)
        world.tick(0.2)
    world.end(2)
    world.healed()


def test_a_new_credential_lifts_what_is_held_against_the_key() -> None:
    world = rig()
    fail(world, 1, errors.Forbidden())
    world.tell(RebuildSession(None))
    world.refresh()
    assert not is_open(world, of_key=True)
    world.tell(RebuildSession(None))
    world.refresh(errors.NetworkError())
    world.tick_at_deadline()
    world.refresh(Credential("sk-2"))
    world.healed()


def test_the_same_credential_again_makes_a_refusal_stand() -> None:
    world = rig()
    world.submit(1)
    world.end(1, errors.Unauthorized())
    world.refresh(Credential("sk-1"))
    assert is_open(world, of_key=True)
    world.tell(RebuildSession(None))
    world.refresh(Credential("sk-1"))
    assert is_open(world, of_key=True)


def test_a_401_for_an_older_credential_waits_for_nothing() -> None:
    world = rig()
    world.submit(1)
    world.tell(RebuildSession(None))
    world.refresh()
    world.end(1, errors.Unauthorized())
    assert world.starts() == [1]
    world.end(1, errors.Unauthorized())
    assert is_open(world, of_key=True)
    world.refresh(Credential("sk-2"))


def test_a_refusal_that_is_answered_does_not_stand() -> None:
    world = rig()
    world.submit(1)
    world.submit(2)
    world.end(1, errors.Unauthorized())
    world.refresh(Credential("sk-2"))
    world.end(2, errors.Unauthorized())  # it carried the older one
    world.tell(RebuildSession(None))
    world.refresh(Credential("sk-2"))
    assert not is_open(world, of_key=True)


def test_nothing_is_held_against_an_engine_that_ends() -> None:
    world = probing()
    world.drain()
    world.healed()
    world.close()
    world.tick(100.0)
    world.healed()


def test_a_clock_that_goes_backwards_stands_still() -> None:
    world = opened()
    world.now -= 50.0
    world.submit(10)
    world.now += 60.0
    world.tick()
    assert world.starts() == [10]
    world.now -= 10.0
    world.end(10)
    world.healed()


def test_what_an_attempt_really_ended_with() -> None:
    root = errors.RateLimited()
    assert root_of(root) is root
    assert root_of(StreamInterrupted(None, None, root)) is root
    foreign = StreamInterrupted(None, None, OSError())
    assert root_of(foreign) is foreign


# ---- engines that are not ---------------------------------------------------------------------------------------------


def test_a_start_behind_an_open_circuit(monkeypatch: Patch) -> None:
    world = opened()
    monkeypatch.setattr(CircuitBreaker, "acquire", lambda self, now: CircuitPermit(self._generation, False, self))
    with breaks(15, "attempt 3 was started behind circuit 0 (endpoint), which is open"):
        world.submit(10)


def test_half_open_without_a_limit_of_probes(monkeypatch: Patch) -> None:
    def wrong(self: CircuitBreaker, now: float) -> CircuitPermit:
        permit = CircuitPermit(self._generation, True, self)
        self._probes[permit] = now + 5.0
        return permit

    world = probing()
    monkeypatch.setattr(CircuitBreaker, "acquire", wrong)
    with breaks(15, "2 probes are out at once"):
        world.submit(11)


def test_a_probe_that_is_never_taken(monkeypatch: Patch) -> None:
    world = opened()
    world.submit(10)
    monkeypatch.setattr(CircuitBreaker, "acquire", lambda self, now: CircuitPermit(self._generation, True, self))
    with breaks(15, "knows of 0 probes, and 1 are out"):
        world.tick_at_deadline()


def test_a_probe_that_is_not_given_back_when_it_is_cancelled(monkeypatch: Patch) -> None:
    world = probing()
    monkeypatch.setattr(Circuits, "lease_ended", lambda self, lane: None)
    record = CircuitBreaker.record

    def wrong(self: CircuitBreaker, permit: CircuitPermit, outcome: Outcome, now: float) -> None:
        if outcome is not Outcome.IGNORED:
            record(self, permit, outcome, now)

    monkeypatch.setattr(CircuitBreaker, "record", wrong)
    with breaks(16, "waits for 1 probes, and only 0 are out"):
        world.cancel(10)


def test_success_recorded_at_the_first_byte(monkeypatch: Patch) -> None:
    right = RemoteEngineCore._head_received

    def wrong(self: RemoteEngineCore, event: Any) -> None:
        right(self, event)
        lease = self._lease(event)
        assert lease is not None
        lease.lane.circuit.breaker.record(lease.permit, Outcome.SUCCESS, self._registry.now)

    world = rig()
    fail(world, 1)
    world.submit(2)
    table = dict(RemoteEngineCore._FACTS)
    for kind, (check, take) in RemoteEngineCore._FACTS.items():
        table[kind] = (check, wrong if take is right else take)
    monkeypatch.setattr(RemoteEngineCore, "_FACTS", table)
    with breaks(15, "counts 0 failures, and not 1"):
        world.head(2)


def test_a_report_from_before_counted(monkeypatch: Patch) -> None:
    record = CircuitBreaker.record

    def wrong(self: CircuitBreaker, permit: CircuitPermit, outcome: Outcome, now: float) -> None:
        permit.generation = self._generation
        record(self, permit, outcome, now)

    world = rig()
    world.submit(1)
    world.override("reset")
    monkeypatch.setattr(CircuitBreaker, "record", wrong)
    with breaks(15, "counts 1 failures, and not 0"):
        world.end(1, errors.ServerError())


def test_a_loss_that_is_excused_counted(monkeypatch: Patch) -> None:
    end = Lease.end

    def wrong(self: Lease, *args: Any, excused: bool = False, **rest: Any) -> None:
        end(self, *args, **rest)

    monkeypatch.setattr(Lease, "end", wrong)
    world = rig()
    world.submit(1)
    with breaks(15, "counts 1 failures, and not 0"):
        world.end(1, errors.NetworkError(), stale=True)


def test_a_circuit_that_opens_too_early(monkeypatch: Patch) -> None:
    monkeypatch.setattr(CircuitBreaker, "_count_failure", lambda self: self._open("failure_threshold", 10.0))
    with breaks(15, "went from closed to open (failure_threshold), and should have gone nowhere"):
        fail(rig(), 1)


def test_a_failed_probe_that_closes(monkeypatch: Patch) -> None:
    monkeypatch.setattr(CircuitBreaker, "_judge_probe", lambda self, permit, outcome: self._close("success_threshold"))
    world = probing()
    with breaks(15, "should have gone from half_open to open (probe_failed)"):
        world.end(10, errors.ServerError())


def test_a_circuit_that_is_never_looked_at_again(monkeypatch: Patch) -> None:
    monkeypatch.setattr(Circuits, "arm", lambda self, circuit: None)
    world = opened()
    with breaks(15, "should have gone from open to half_open (open_duration), and nobody was told"):
        world.tick(10.0)


def test_a_circuit_that_opens_in_silence(monkeypatch: Patch) -> None:
    monkeypatch.setattr(CircuitBreaker, "drain_transitions", lambda self: [])
    monkeypatch.setattr(CircuitBreaker, "_count_failure", lambda self: self._open("failure_threshold", 10.0))
    with breaks(15, "is not closed, and should be"):
        fail(rig(), 1)


@pytest.mark.parametrize(
    ("field", "words"), [("_opened_at", "did not open when it should have"), ("_retry_at", "for another time")]
)
def test_a_circuit_that_is_open_for_another_time(monkeypatch: Patch, field: str, words: str) -> None:
    right = CircuitBreaker._open

    def wrong(self: CircuitBreaker, reason: str, duration: float) -> None:
        right(self, reason, duration)
        setattr(self, field, getattr(self, field) + 1.0)

    monkeypatch.setattr(CircuitBreaker, "_open", wrong)
    with breaks(15, words):
        opened()


def test_a_refusal_behind_closed_circuits(monkeypatch: Patch) -> None:
    world = rig()
    world.submit(1)
    monkeypatch.setattr(CircuitBreaker, "acquire", lambda self, now: CircuitRejection(now, math.inf))
    with breaks(15, "request 2 was told of an open circuit, and none is"):
        world.submit(2, wait_for_circuit=False)


def test_a_circuit_still_half_open_at_the_end() -> None:
    world = probing()
    world.cancel(10)
    assert world.engine.circuit_state(world.now) is CircuitState.HALF_OPEN
    with breaks(17, "still half_open"):
        world.healed()


def test_a_probe_still_out_at_the_end() -> None:
    world = rig()
    fail(world, 1, errors.BadRequest(), usage=USAGE)
    breaker = world.core.roster.circuits[0].breaker
    breaker._probes[CircuitPermit(0, True, breaker)] = math.inf
    with breaks(16, "a probe is still out"):
        world.healed()
