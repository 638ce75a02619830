"""Sharing: who goes first, who waits, who is turned away, and what deployments have in common."""

from __future__ import annotations

import threading

import pytest
from conformance.harness import KEY, Asked, Engine, Lab, eventually, said
from conformance.props import Held

from sansio import Backpressure, BudgetExceeded, LimitExceeded, Priority, Secret
from sansio.simulation import ProviderLimits, Throttle

ALONE = {"max_concurrent": 1}


def in_turn(lab: Lab, engine: Engine, *requests: tuple[str, Priority]) -> list[Asked]:
    """Ask one after the other, each once the one before it is known to the engine, and the first is being answered."""
    asked: list[Asked] = []
    for prompt, priority in requests:
        asked.append(engine.ask(prompt, priority=priority))
        eventually(lambda: engine.metrics.submitted == len(asked) and lab.provider.active == 1)
    return asked


def test_priority_goes_first_and_age_among_equals(lab: Lab) -> None:
    gate = threading.Event()
    lab.script(Held(gate))
    with lab.engine(serving=ALONE) as engine:
        asked = in_turn(
            lab,
            engine,
            ("holding", Priority.NORMAL),
            ("background", Priority.BACKGROUND),
            ("normal 1", Priority.NORMAL),
            ("critical", Priority.CRITICAL),
            ("high 1", Priority.HIGH),
            ("normal 2", Priority.NORMAL),
            ("high 2", Priority.HIGH),
        )
        assert engine.metrics.queued == 6
        gate.set()
        for one in asked:
            assert one.answer
    order = ["holding", "critical", "high 1", "high 2", "normal 1", "normal 2", "background"]
    assert [record.prompt for record in lab.log] == order


def test_tenants_take_turns_where_they_share_fairly(lab: Lab) -> None:
    gate = threading.Event()
    lab.script(Held(gate))
    with lab.engine(serving={**ALONE, "fair_tenants": True}) as engine:
        asked = []
        for prompt, tenant in [("0", "x"), ("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b")]:
            asked.append(engine.ask(prompt, tenant=tenant))
            eventually(lambda: engine.metrics.submitted == len(asked) and lab.provider.active == 1)
        gate.set()
        for one in asked:
            assert one.answer
    assert [record.prompt for record in lab.log] == ["0", "a1", "b1", "a2", "a3"]


def test_never_more_at_once_than_slots(lab: Lab) -> None:
    with lab.engine(serving={"max_concurrent": 3}) as engine:
        for one in [engine.ask(f"prompt {number}") for number in range(30)]:
            assert one.answer
    assert lab.provider.max_active <= 3


# ---- a full queue ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["reject", "fallback"])
def test_a_full_queue_turns_away_at_once(lab: Lab, policy: str) -> None:
    gate = threading.Event()
    lab.script(Held(gate))
    serving = {**ALONE, "queue_capacity": 1, "on_capacity_exhausted": policy}
    with lab.engine(serving=serving) as engine:
        accepted = in_turn(lab, engine, ("running", Priority.NORMAL), ("queued", Priority.NORMAL))
        error = engine.ask("one too many").error
        assert isinstance(error, Backpressure)
        assert error.fallback is (policy == "fallback")
        assert engine.metrics.rejected == 1
        gate.set()
        assert [one.answer.text for one in accepted] == [said("running"), said("queued")]
    assert lab.provider.requests_total == 2


def test_a_full_queue_lets_wait_outside_for_a_while(lab: Lab) -> None:
    gate = threading.Event()
    lab.script(Held(gate))
    serving = {**ALONE, "queue_capacity": 1, "on_capacity_exhausted": "queue", "queue_timeout": 0.3}
    with lab.engine(serving=serving) as engine:
        accepted = in_turn(lab, engine, ("running", Priority.NORMAL), ("queued", Priority.NORMAL))
        assert isinstance(engine.ask("outside too long").error, Backpressure)
        gate.set()
        assert [one.answer.text for one in accepted] == [said("running"), said("queued")]


def test_who_waits_outside_comes_in_when_there_is_room(lab: Lab) -> None:
    gate = threading.Event()
    lab.script(Held(gate))
    serving = {**ALONE, "queue_capacity": 1, "on_capacity_exhausted": "queue", "queue_timeout": 60.0}
    with lab.engine(serving=serving) as engine:
        names = ["running", "queued", "outside"]
        accepted = in_turn(lab, engine, *((name, Priority.NORMAL) for name in names))
        assert isinstance(engine.ask("one too many").error, Backpressure)
        gate.set()
        assert [one.answer.text for one in accepted] == [said(name) for name in names]


# ---- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.ways_take_turns
def test_the_limiter_keeps_the_provider_from_ever_refusing(lab: Lab) -> None:
    lab.serve(limits=ProviderLimits(requests_per_minute=10, window=1.0))
    with lab.engine(rate_limits={"requests_per_minute": 10, "window": 1.0, "delivery_guard": 1.0}) as engine:
        asked = [engine.ask(f"prompt {number}") for number in range(15)]
        assert [one.answer.text for one in asked] == [said(f"prompt {number}") for number in range(15)]
        assert (engine.metrics.throttled, engine.metrics.attempts) == (0, 15)
    arrivals = sorted(record.arrived_at for record in lab.log)
    assert arrivals[10] - arrivals[0] >= 1.0


def test_who_waits_for_a_permit_holds_no_slot(lab: Lab) -> None:
    gate = threading.Event()
    lab.script(Held(gate))
    narrow = lab.deployment("narrow", rate_limits={"concurrent_requests": 1})
    other = lab.deployment("other", model="gpt-4o-mini")
    with lab.engine(narrow, other) as engine:
        first = engine.ask("first", deployment="narrow")
        eventually(lambda: lab.provider.active == 1)
        second = engine.ask("second", deployment="narrow")
        eventually(lambda: engine.metrics.queued == 1)
        assert engine.stream("other", deployment="other").text == said("other")
        gate.set()
        assert (first.answer.text, second.answer.text) == (said("first"), said("second"))


def test_a_request_larger_than_the_limit_is_refused_saying_which(lab: Lab) -> None:
    with lab.engine(rate_limits={"tokens_per_minute": 100}) as engine:
        error = engine.ask("word " * 1000).error
        assert isinstance(error, LimitExceeded)
        assert "tokens_per_minute" in str(error)
    assert lab.provider.requests_total == 0


def test_two_deployments_of_one_key_and_model_share_its_limits(lab: Lab) -> None:
    gate = threading.Event()
    lab.script(Held(gate))
    limits = {"concurrent_requests": 1}
    with lab.engine(lab.deployment("here", rate_limits=limits), lab.deployment("there", rate_limits=limits)) as engine:
        here = engine.ask("here", deployment="here")
        eventually(lambda: lab.provider.active == 1)
        there = engine.ask("there", deployment="there")
        eventually(lambda: engine.metrics.queued == 1)
        gate.set()
        assert (here.answer.text, there.answer.text) == (said("here"), said("there"))
    assert lab.provider.max_active == 1


def test_priority_and_age_hold_across_deployments_of_one_key(lab: Lab) -> None:
    gate = threading.Event()
    lab.script(Held(gate))
    limits = {"concurrent_requests": 1}
    with lab.engine(lab.deployment("here", rate_limits=limits), lab.deployment("there", rate_limits=limits)) as engine:
        asked = []
        for number, (name, priority) in enumerate(
            [("here", Priority.NORMAL), ("there", Priority.NORMAL), ("here", Priority.NORMAL), ("there", Priority.HIGH)]
        ):
            asked.append(engine.ask(f"{number}", deployment=name, priority=priority))
            eventually(lambda: engine.metrics.submitted == len(asked) and lab.provider.active == 1)
        gate.set()
        for one in asked:
            assert one.answer
    assert [record.prompt for record in lab.log] == ["0", "3", "1", "2"]


@pytest.mark.cases_take_turns("differ")
@pytest.mark.parametrize("differ", ["model", "key"])
def test_deployments_of_other_keys_or_models_do_not(lab: Lab, differ: str) -> None:
    lab.serve(keys=[KEY, f"{KEY}-2"])
    gate = threading.Event()
    lab.script(Held(gate))
    limits = {"concurrent_requests": 1}
    other = {"model": "gpt-4o-mini"} if differ == "model" else {"key": Secret.inline(f"{KEY}-2")}
    with lab.engine(
        lab.deployment("here", rate_limits=limits), lab.deployment("there", rate_limits=limits, **other)
    ) as engine:
        here = engine.ask("here", deployment="here")
        eventually(lambda: lab.provider.active == 1)
        assert engine.stream("there", deployment="there").text == said("there")
        gate.set()
        assert here.answer.text == said("here")


@pytest.mark.ways_take_turns
def test_a_429_of_one_deployment_pauses_the_other_of_its_key(lab: Lab) -> None:

    lab.script(Throttle(retry_after="0.5"))
    with lab.engine(lab.deployment("here"), lab.deployment("there")) as engine:
        here = engine.ask("here", deployment="here")
        eventually(lambda: engine.heard("throttled"))
        assert engine.stream("there", deployment="there").text == said("there")
        assert here.answer.text == said("here")
    throttled, *later = lab.log
    assert all(record.arrived_at - throttled.arrived_at >= 0.5 for record in later)


def test_a_request_names_its_deployment_where_there_are_several(lab: Lab) -> None:
    with lab.engine(lab.deployment("here"), lab.deployment("there", model="gpt-4o-mini")) as engine:
        engine.stream(deployment="there")
        for wrong in ({}, {"deployment": "nowhere"}):
            with pytest.raises(ValueError, match="here, there"):
                engine.stream(**wrong)
    assert [record.model for record in lab.log] == ["gpt-4o-mini"]


def test_a_spent_budget_refuses(lab: Lab) -> None:
    with lab.engine(budget={"max_spend_per_hour_usd": 0.000001}) as engine:
        assert isinstance(engine.ask().error, BudgetExceeded)
    assert lab.provider.requests_total == 0
