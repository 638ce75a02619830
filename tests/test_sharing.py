"""`sansio.sharing`: which deployments share a limiter, a circuit, a key's circuit and a session."""

from __future__ import annotations

import random

import pytest
from engine_harness import deployment

from sansio.budget import Budget
from sansio.circuit_breaker import CircuitPermit, CircuitState, Outcome
from sansio.deployment import Deployment, RemoteEngineConfig
from sansio.prices import Price
from sansio.rate_limit import RateLimits
from sansio.sharing import Roster, build_roster


def roster(*deployments: Deployment, fingerprints: dict[str, str] | None = None) -> Roster:
    return build_roster(RemoteEngineConfig(deployments), fingerprints or {}, random.Random(1))


@pytest.mark.parametrize(
    ("other", "limiter", "circuit", "key_circuit", "session"),
    [
        ({}, True, True, True, True),
        ({"model": "gpt-4o-mini"}, False, True, True, True),
        ({"key": "sk-two"}, False, True, False, False),
        ({"endpoint": "http://two.test/v1"}, True, False, True, True),
        ({"model": "gpt-4o-mini", "key": "sk-two", "endpoint": "http://two.test/v1"}, False, False, False, False),
    ],
)
def test_what_two_deployments_share(
    other: dict[str, str], limiter: bool, circuit: bool, key_circuit: bool, session: bool
) -> None:
    one, two = roster(deployment("one"), deployment("two", **other)).lanes.values()
    assert (one.group is two.group) is limiter
    assert (one.circuit is two.circuit) is circuit
    assert (one.key_circuit is two.key_circuit) is key_circuit
    assert (one.session is two.session) is session


def test_each_lane_has_its_queue_its_retries_and_its_slots_to_itself() -> None:
    one, two = roster(deployment("one", serving={"max_concurrent": 3}), deployment("two")).lanes.values()
    assert one.queue is not two.queue
    assert one.retry_budget is not two.retry_budget
    assert (one.slots(0.0), two.slots(0.0)) == (3, 32)


def test_keys_are_the_same_account_where_their_fingerprints_are() -> None:
    """Two ways to one key share its limits; each is still refreshed its own way."""
    one, two = roster(
        deployment("one"), deployment("two", key="sk-two"), fingerprints={"one": "abc", "two": "abc"}
    ).lanes.values()
    assert one.group is two.group
    assert one.key_circuit is two.key_circuit
    assert one.session is not two.session


def test_one_reference_with_two_values_is_two_accounts() -> None:
    one, two = roster(deployment("one"), deployment("two"), fingerprints={"one": "abc", "two": "def"}).lanes.values()
    assert one.group is not two.group


def test_what_is_shared_lists_its_lanes_and_everything_is_numbered_in_the_order_of_the_deployments() -> None:
    shared = roster(deployment("one"), deployment("two", model="gpt-4o-mini"), deployment("three"))
    assert list(shared.lanes) == ["one", "two", "three"]
    assert [[lane.deployment.name for lane in group.lanes] for group in shared.groups] == [["one", "three"], ["two"]]
    assert [[lane.deployment.name for lane in circuit.lanes] for circuit in shared.circuits] == [["one", "two", "three"]] * 2
    assert [circuit.of_key for circuit in shared.circuits] == [False, True]
    assert [[lane.deployment.name for lane in slot.lanes] for slot in shared.sessions] == [["one", "two", "three"]]
    for things in (shared.groups, shared.circuits, shared.sessions, list(shared.lanes.values())):
        assert [thing.index for thing in things] == list(range(len(things)))


@pytest.mark.parametrize("speaks", ["one", "two", "both"])
def test_who_says_nothing_of_a_shared_setting_takes_that_of_who_does(speaks: str) -> None:
    asked = {"limits": {"requests_per_minute": 7}, "breaker": {"failure_threshold": 1}}
    lanes = roster(*(deployment(name, **(asked if speaks in (name, "both") else {})) for name in ("one", "two"))).lanes
    assert lanes["one"].group.limiter.limits == RateLimits(requests_per_minute=7)
    breaker = lanes["two"].circuit.breaker
    permit = breaker.acquire(0.0)
    assert isinstance(permit, CircuitPermit)
    breaker.record(permit, Outcome.FAILURE, 0.0)
    assert breaker.state(0.0) is CircuitState.OPEN


def test_two_answers_to_one_question_are_refused_naming_both() -> None:
    with pytest.raises(ValueError, match=r"^rate_limits: deployments 'one' and 'two' share it .*key and model"):
        roster(deployment("one", limits={"requests_per_minute": 7}), deployment("two", limits={"requests_per_minute": 8}))
    with pytest.raises(ValueError, match=r"^circuit_breaker: deployments 'one' and 'two' share it .*endpoint"):
        roster(deployment("one", breaker={"failure_threshold": 2}), deployment("two", breaker={"failure_threshold": 3}))


def test_what_is_not_shared_may_differ() -> None:
    roster(
        deployment("one", limits={"requests_per_minute": 7}),
        deployment("two", limits={"requests_per_minute": 8}, key="sk-two"),
    )


def test_a_budget_and_a_price_belong_to_their_lane() -> None:
    price = Price(1.0, 2.0)
    one, two = roster(deployment("one", budget=Budget(1.0), price=price), deployment("two", price=price)).lanes.values()
    assert one.budget is not None
    assert one.price == price
    assert two.budget is None
