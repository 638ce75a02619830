"""The engine as a whole: its life, its counts, what it tells an operator, and a storm that loses nobody."""

from __future__ import annotations

import random

import pytest
from conformance.harness import KEY, Lab, eventually, said
from conformance.props import NEW, Vault

from sansio import Notice, StreamInterrupted
from sansio.simulation import (
    Break,
    CloseWithoutResponse,
    ErrorFrame,
    Fault,
    FaultScript,
    GarbageBytes,
    ResetAtByte,
    RotateKeys,
    Status,
    Throttle,
)

STORM: list[Fault | None] = [
    *[Throttle(retry_after_ms="50"), Throttle(retry_after="0.05")] * 5,
    *[Status(503), Status.html(502), CloseWithoutResponse(), ResetAtByte(40), GarbageBytes("head"), ErrorFrame(chunks=0)],
    *[Break(chunks=4)] * 3,
    RotateKeys((NEW,)),
    *[None] * 80,
]
"""What happens to a hundred requests, in any order: no more than the retry budget allows without asking for hints."""


def storm(seed: int, lab: Lab) -> FaultScript:
    """The storm in an order of its own. Where requests share a connection, bytes that are no HTTP would break fifteen others
    with it, and the retry budget is there to stop just that."""
    faults = [None if lab.way.shares_connections and isinstance(fault, GarbageBytes) else fault for fault in STORM]
    random.Random(seed).shuffle(faults)
    return FaultScript(faults)


def test_a_storm_loses_doubles_and_mixes_up_nobody(lab: Lab) -> None:
    vault = Vault(KEY, NEW)
    lab.serve(faults=storm(7, lab))
    with lab.engine(
        key=vault.secret,
        retry={"max_retries": 8},
        circuit_breaker={"failure_threshold": 10_000},
        serving={"max_concurrent": 16},
    ) as engine:
        asked = [engine.ask(f"prompt {number}", unary=number % 3 == 0) for number in range(120)]
        for number, one in enumerate(asked):
            expected = said(f"prompt {number}")
            broken = one.wait().failure
            if broken is None:
                assert one.answer.text == expected
            else:
                assert isinstance(broken, StreamInterrupted)
                assert broken.partial is not None
                assert broken.partial.text == one.text
                assert expected.startswith(one.text)
        metrics = engine.metrics
        assert metrics.submitted == 120 == metrics.done + metrics.failed
        assert metrics.failures.keys() <= {"stream_interrupted"}
        assert metrics.attempts == lab.provider.requests_total
        assert metrics.attempts == 120 + sum(metrics.retries.values())
    assert vault.calls == 2


@pytest.mark.ways_take_turns
def test_the_counts_add_up_at_every_moment(lab: Lab) -> None:
    lab.serve(keys=[KEY, NEW], faults=storm(11, lab))
    vault = Vault(KEY, NEW)
    with lab.engine(key=vault.secret, serving={"max_concurrent": 5, "queue_capacity": 20}) as engine:
        asked = [engine.ask(f"prompt {number}") for number in range(60)]

        def all_over_and_all_accounted() -> bool:
            metrics = engine.metrics
            assert metrics.submitted == metrics.accounted
            assert metrics.in_flight <= 5
            return all(one.over for one in asked)

        eventually(all_over_and_all_accounted)
        assert engine.metrics.submitted == engine.metrics.accounted == 60


def test_usage_and_cost_are_counted_for_every_attempt_once(lab: Lab) -> None:
    lab.script(None, Break(chunks=2))
    with lab.engine() as engine:
        first = engine.stream("first")
        engine.ask("broken").wait()
        third = engine.generate("third")
        assert first.usage is not None
        assert third.usage is not None
        metrics = engine.metrics
        assert metrics.usage.output_tokens == first.usage.output_tokens + third.usage.output_tokens
        assert metrics.cost_usd > 0
        assert (metrics.unknown_usage, metrics.unknown_cost) == (1, 1)  # unknown is not zero


def test_notices_tell_what_happened_with_its_reason(lab: Lab) -> None:
    lab.script(Throttle(retry_after_ms="50"), Status(503))
    with lab.engine() as engine:
        engine.stream()
        assert [notice.detail["reason"] for notice in engine.heard("retry_scheduled")] == ["rate_limited", "server_error"]
        assert [notice.detail["retry_after"] for notice in engine.heard("throttled")] == [0.05]
        assert engine.heard("refresh_ended")
        assert {notice.deployment for notice in engine.notices} == {"chat"}


def test_an_observer_that_fails_harms_no_request(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    def fail(notice: Notice) -> None:
        raise RuntimeError("observer")

    lab.script(Status(503))
    with lab.engine(on_notice=fail) as engine:
        assert engine.stream().text == said()
    assert "on_notice failed" in caplog.text


def test_two_engines_do_not_know_each_other(lab: Lab) -> None:
    with lab.engine() as one, lab.engine() as other:
        one.call(one.real.breaker.force_open)
        assert other.stream().text == said()
        assert (one.metrics.submitted, other.metrics.submitted) == (0, 1)


def test_an_idle_engine_leaves_nothing_and_does_nothing(lab: Lab) -> None:
    with lab.engine() as engine:
        assert engine.metrics.submitted == 0
    assert lab.peer.connections_total == 0


@pytest.mark.ways_take_turns
def test_many_deployments_and_callers_at_once(lab: Lab) -> None:
    names = [f"deployment {number}" for number in range(5)]
    draw = random.Random(3)
    with lab.engine(*(lab.deployment(name, model=f"gpt-{name[-1]}") for name in names)) as engine:
        asked = [(f"prompt {n}", engine.ask(f"prompt {n}", deployment=draw.choice(names))) for n in range(50)]
        for prompt, one in asked:
            assert one.answer.text == said(prompt)
        eventually(lambda: engine.metrics.done == 50)
