"""A world's engine for code that blocks: the blocking driver's names and behaviour, in virtual time and one thread."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

import pytest

from drivers.front import RequestOptions as DriversOptions
from drivers.sync_driver import RemoteEngine
from sansio import (
    CircuitOpen,
    CircuitState,
    DeadlineExceeded,
    Deployment,
    EngineClosed,
    ExecuteBatch,
    InferenceError,
    Message,
    Notice,
    Priority,
    Secret,
    ServerError,
    StreamInterrupted,
)
from sansio.events import Tick
from sansio.simulation.judge.violation import InvariantViolated
from sansio.simulation.provider.answers import expected_text
from sansio.simulation.provider.fault_script import FaultScript
from sansio.simulation.provider.faults import NeverRespond, ResetAtByte, SlowFirstByte, StallAfterChunks, Status, Throttle
from sansio.simulation.provider.mock_provider import MockProvider
from sansio.simulation.world.plan import Conditions, RotateKey, VaultDown
from sansio.simulation.world.sync_engine import RequestOptions, SimulatedEngine, SimulatedRequest
from sansio.simulation.world.world import World

CALM = Conditions(latency=0.01, jitter=0.0)


def chat(**settings: Any) -> Deployment:
    config = {"api_key": Secret.from_env("NOT_IN_ANY_ENVIRONMENT"), **settings.pop("runtime_config", {})}
    return Deployment(name=settings.pop("name", "chat"), model="gpt-4o", runtime_config=config, **settings)


def batch(prompt: str = "hello", **fields: Any) -> ExecuteBatch:
    return ExecuteBatch(messages=[Message(role="user", content=prompt)], **fields)


def world_with(*faults: Any, deployment: Deployment | None = None, then: Any = None, **settings: Any) -> World:
    provider = MockProvider(answers={"hello": "Hi there"}, faults=FaultScript(faults, then=then), **settings)
    return World(deployment or chat(), provider=provider, conditions=CALM)


# ---- the same face ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["generate", "stream", "metrics", "drain", "close", "rebuild_session"])
def test_methods_are_named_and_called_as_the_drivers_are(name: str) -> None:
    ours, theirs = (inspect.signature(getattr(face, name)) for face in (SimulatedEngine, RemoteEngine))
    assert [(p.name, p.kind, p.default) for p in ours.parameters.values()] == [
        (p.name, p.kind, p.default) for p in theirs.parameters.values()
    ]


def test_the_options_are_the_drivers() -> None:
    assert get_type_hints(RequestOptions) == get_type_hints(DriversOptions)


def test_the_attributes_are_the_drivers() -> None:
    engine = world_with().engine()
    theirs = RemoteEngine(Deployment(name="chat", model="gpt-4o", runtime_config={"api_key": Secret.inline("k")}))
    for name in ("breaker", "limiter"):
        assert type(getattr(engine, name)) is type(getattr(theirs, name))
    assert engine.config.deployments[0].name == theirs.config.deployments[0].name == "chat"


# ---- requests ---------------------------------------------------------------------------------------------------------


def test_a_whole_answer() -> None:
    world = world_with()
    with world.engine() as engine:
        tokens = engine.generate(batch())
        assert (tokens.text, tokens.finish_reason) == ("Hi there", "stop")
        assert tokens.usage is not None and tokens.usage.output_tokens == 2
        assert engine.metrics().done == 1
    assert not world.provider.log[0].stream


def test_a_stream_comes_as_time_goes_by() -> None:
    world = world_with(token_delay=1.0)
    with world.engine() as engine, engine.stream(batch()) as chunks:
        seen = [(chunk.text_delta, round(world.clock.now)) for chunk in chunks if chunk.text_delta]
        assert seen == [("Hi ", 1), ("there", 2)]
        assert next(chunks, None) is None
        assert engine.metrics().done == 1


def test_the_environment_is_not_read_and_https_is_served() -> None:
    world = World(chat(runtime_config={"api_key": Secret.from_file("/nowhere/at/all")}), conditions=CALM)
    with world.engine() as engine:
        assert engine.generate(batch("hello")).text == expected_text("hello")
    assert list(world.providers) == ["api.openai.com"]
    assert world.provider.log[0].key_ok


def test_a_secret_that_is_a_callable_is_not_called() -> None:
    def vault() -> str:
        raise AssertionError("called")

    world = World(chat(runtime_config={"api_key": Secret.from_callable(vault)}), conditions=CALM)
    with world.engine() as engine:
        assert engine.generate(batch("hello")).text == expected_text("hello")


def test_an_error_is_raised_at_its_virtual_time() -> None:
    world = world_with(then=NeverRespond())
    with world.engine() as engine, pytest.raises(DeadlineExceeded):
        engine.generate(batch(), timeout=30.0)
    assert world.clock.now == pytest.approx(30.0, abs=0.1)


def test_retries_take_virtual_time_only() -> None:
    world = world_with(Throttle(retry_after="45"))
    with world.engine() as engine:
        assert engine.generate(batch()).text == "Hi there"
        assert engine.metrics().retries == {"rate_limited": 1}
    assert world.clock.now > 45.0


def test_the_options_arrive() -> None:
    world = World([chat(), chat(name="other")], conditions=CALM)
    facts: list[Any] = []
    world.watch(Watching(facts))
    with world.engine() as engine:
        engine.generate(batch(), deployment="other", priority=Priority.HIGH, tenant="t", timeout=9.0, wait_for_circuit=True)
        with pytest.raises(ValueError, match="deployment"):
            engine.stream(batch())
        with pytest.raises(ValueError, match="timeout"):
            engine.generate(batch(), deployment="other", timeout=-1.0)
    add = facts[0]
    assert (add.deployment, add.priority, add.tenant, add.timeout, add.wait_for_circuit, add.stream) == (
        "other", Priority.HIGH, "t", 9.0, True, False,
    )  # fmt: skip


class Watching:
    def __init__(self, facts: list[Any]) -> None:
        self.facts = facts

    def observed(self, event: Any, effects: Any, now: float, unix_now: float) -> None:
        self.facts.append(event)


def test_a_stream_that_breaks_after_its_first_token() -> None:
    world = world_with(StallAfterChunks(1), token_delay=0.1)
    with world.engine() as engine, engine.stream(batch()) as chunks:
        seen: list[str] = []
        with pytest.raises(StreamInterrupted) as caught:
            seen += [chunk.text_delta for chunk in chunks]
        with pytest.raises(StreamInterrupted) as again:
            next(chunks)
    assert again.value is caught.value


def test_a_stream_keeps_what_came_before_it_broke() -> None:
    world = world_with(StallAfterChunks(1), token_delay=0.1)
    with world.engine() as engine, engine.stream(batch()) as chunks:
        assert next(chunks).text_delta == "Hi "
        began = world.clock.now
        with pytest.raises(StreamInterrupted):
            next(chunks)
        assert world.clock.now - began == pytest.approx(60.0, abs=1.0)  # the clock between two bytes


# ---- several at once --------------------------------------------------------------------------------------------------


def test_what_is_submitted_goes_on_together() -> None:
    world = world_with(first_byte_delay=1.0)
    with world.engine() as engine:
        requests = [engine.submit(batch()) for _ in range(5)]
        assert [request.done for request in requests] == [False] * 5
        world.run()
        assert [request.done for request in requests] == [True] * 5
        assert [request.result().text for request in requests] == ["Hi there"] * 5
        assert requests[0].result() == requests[0].result()
    assert world.provider.max_active == 5
    assert world.clock.now < 3.0


def test_a_result_waits_for_its_own_request_only() -> None:
    world = world_with(SlowFirstByte(60.0), deployment=chat(serving={"max_concurrent": 2}))
    with world.engine() as engine:
        slow, quick = engine.submit(batch()), engine.submit(batch())
        assert quick.result().text == "Hi there"
        assert not slow.done
        assert slow.result().text == "Hi there"


def test_the_error_of_a_submitted_request_is_raised_where_its_result_is_asked_for() -> None:
    world = world_with(then=Status(400))
    with world.engine() as engine:
        request = engine.submit(batch())
        world.run()
        assert request.done
        with pytest.raises(InferenceError) as caught:
            request.result()
        assert caught.value.kind == "bad_request"


def test_a_request_can_be_called_off() -> None:
    world = world_with(first_byte_delay=10.0)
    with world.engine() as engine:
        request = engine.submit(batch())
        world.run(1.0)
        request.cancel()
        request.cancel()
        assert (engine.metrics().cancelled, engine.metrics().in_flight) == (1, 0)
        with pytest.raises(RuntimeError, match="called off"):
            request.result()


def test_streams_are_read_in_turns() -> None:
    world = world_with(token_delay=0.5)
    with world.engine() as engine, engine.stream(batch("a #tokens=3")) as a, engine.stream(batch("b #tokens=3")) as b:
        texts = [(next(a).text_delta, next(b).text_delta) for _ in range(3)]
    assert texts == [("[a #tokens=3]", "[b #tokens=3]"), (" w1", " w1"), (" w2", " w2")]
    assert world.clock.now < 3.0


def test_a_slow_reader_is_no_stalled_server() -> None:
    world = world_with(token_delay=0.01)
    with world.engine() as engine, engine.stream(batch()) as chunks:
        assert next(chunks).text_delta == "Hi "
        world.clock.advance(3_600.0)
        assert "".join(chunk.text_delta for chunk in chunks) == "there"


def test_time_passes_between_calls() -> None:
    world = world_with(*[Status(503)] * 2, deployment=chat(runtime_config=CIRCUIT))
    with world.engine() as engine:
        for _ in range(2):
            with pytest.raises(ServerError):
                engine.generate(batch())
        with pytest.raises(CircuitOpen):
            engine.generate(batch())
        assert engine.breaker.state() is CircuitState.OPEN
        world.clock.advance(30.0)
        assert engine.breaker.state() is CircuitState.HALF_OPEN
        assert engine.generate(batch()).text == "Hi there"
        assert engine.breaker.state() is CircuitState.CLOSED


CIRCUIT: Any = {"retry": {"max_retries": 0}, "circuit_breaker": {"failure_threshold": 2, "open_duration": 30.0}}


# ---- leaving ----------------------------------------------------------------------------------------------------------


def test_leaving_a_stream_gives_back_what_it_held_in_the_same_step() -> None:
    world = world_with(token_delay=1.0)
    with world.engine() as engine:
        with engine.stream(batch()) as chunks:
            next(chunks)
            now = world.clock.now
        assert (engine.metrics().in_flight, engine.metrics().cancelled) == (0, 1)
        assert world.clock.now == now
        with pytest.raises(RuntimeError, match="inside its `with` block"):
            next(chunks)
    world.clock.advance(1.0)
    assert world.provider.log[0].outcome == "client_left"


def test_a_stream_that_is_not_read_asks_for_nothing() -> None:
    world = world_with()
    with world.engine() as engine:
        with engine.stream(batch()):
            world.clock.advance(10.0)
        assert engine.metrics().submitted == 0
    assert world.provider.requests_total == 0


def test_a_stream_that_was_never_entered_is_left_without_a_word() -> None:
    world = world_with()
    with world.engine() as engine, contextlib.ExitStack() as stack:
        stack.push(engine.stream(batch()))
    assert world.provider.requests_total == 0


def test_a_stream_is_entered_once() -> None:
    world = world_with()
    with world.engine() as engine:
        stream = engine.stream(batch())
        with pytest.raises(RuntimeError, match="inside its `with` block"):
            next(iter(stream))
        with stream:
            pass
        with pytest.raises(RuntimeError, match="entered once"), stream:
            pass


def test_an_engine_is_used_inside_its_block_and_entered_once() -> None:
    engine = world_with().engine()
    with pytest.raises(RuntimeError, match="not running"):
        engine.generate(batch())
    with engine:
        pass
    with pytest.raises(RuntimeError, match="entered once"), engine:
        pass
    with pytest.raises(RuntimeError, match="not running"), engine.stream(batch()):
        pass
    engine.close()


def test_a_world_has_one_engine_which_is_entered_once() -> None:
    world = world_with()
    first, second = world.engine(), world.engine()
    with first:
        with pytest.raises(RuntimeError, match="entered once: use the one that is open, or make a new world"), second:
            pass
        with pytest.raises(RuntimeError, match="not running"):
            second.generate(batch())
        assert first.generate(batch()).text == "Hi there"
    with pytest.raises(RuntimeError, match="entered once"), world.engine():
        pass


def test_closing_ends_what_is_under_way_and_leaves_nothing_open() -> None:
    world = world_with(then=NeverRespond())
    with world.engine() as engine:
        request, stream = engine.submit(batch()), engine.stream(batch())
        with stream:
            world.run(1.0)
            engine.close()
            assert engine.metrics().failed == 1
            with pytest.raises(EngineClosed):
                request.result()
    assert world.network is not None and world.client is not None
    assert (world.network.connections, world.client.connections, world.node.calls) == (0, 0, {})


def test_draining_finishes_what_there_is_and_refuses_what_comes() -> None:
    world = world_with(first_byte_delay=5.0)
    with world.engine() as engine:
        request = engine.submit(batch())
        engine.drain()
        assert request.done and request.result().text == "Hi there"
        with pytest.raises(EngineClosed):
            engine.generate(batch())
        engine.drain()


# ---- operators --------------------------------------------------------------------------------------------------------


def test_operators_act_on_it() -> None:
    world = world_with()
    with world.engine() as engine:
        engine.generate(batch())
        engine.breaker.force_open(60.0)
        with pytest.raises(CircuitOpen):
            engine.generate(batch())
        engine.breaker.reset()
        engine.rebuild_session()
        engine.generate(batch())
        assert engine.metrics().refreshes == 2
        assert engine.limiter.snapshot() is not None


def test_notices_are_told() -> None:
    notices: list[Notice] = []
    world = world_with(Status(503))
    with world.engine(on_notice=notices.append) as engine:
        engine.generate(batch())
    assert {"refresh_started", "retry_scheduled"} <= {notice.kind for notice in notices}


def test_notices_are_told_once_and_to_each_who_listens() -> None:
    ours, theirs = list[Notice](), list[Notice]()
    world = world_with()
    world.engine(on_notice=theirs.append)
    with world.engine(on_notice=ours.append) as engine:
        engine.breaker.force_open(10.0)
        assert [notice.kind for notice in ours] == ["circuit"]  # at once
        world.run(1.0)
    assert ours == theirs


class Stumbles:
    """A listener that breaks the first time, in the middle of a step."""

    def __init__(self, defect: BaseException) -> None:
        self.defect = defect
        self.heard: list[str] = []

    def __call__(self, notice: Notice) -> None:
        self.heard.append(notice.kind)
        raise self.defect if len(self.heard) == 1 else ValueError("later")


def test_what_a_listener_raises_is_raised_by_whoever_waits_once_the_step_is_done() -> None:
    stumbles = Stumbles(KeyError("planted"))
    world = world_with(Status(503))
    with world.engine(on_notice=stumbles) as engine:
        with pytest.raises(KeyError, match="planted"):
            engine.generate(batch())
        assert engine.metrics().in_flight == 0
        engine.breaker.force_open(10.0)
        with pytest.raises(ValueError, match="later"):
            engine.drain()
        assert world.node.drained and engine.metrics().cancelled == 1


def test_what_a_listener_raises_is_raised_at_the_end_of_the_block_at_the_latest() -> None:
    stumbles = Stumbles(pytest.fail.Exception("planted"))
    world = world_with()

    def block() -> None:
        with world.engine(on_notice=stumbles) as engine:
            engine.breaker.force_open(10.0)
            engine.breaker.reset()
            assert len(stumbles.heard) == 2  # nothing is raised in the middle

    with pytest.raises(pytest.fail.Exception, match="planted"):
        block()
    assert world.node.drained


def test_a_key_is_rotated_under_it() -> None:
    world = World(chat(), conditions=CALM)
    with world.engine() as engine:
        engine.generate(batch())
        world.disturb(RotateKey(1, at=0.0, host="api.openai.com", vault_lag=0.0))
        assert engine.generate(batch()).text == expected_text("hello")
        assert engine.metrics().refreshes == 2


# ---- what cannot be ---------------------------------------------------------------------------------------------------


def test_what_can_never_come_is_said() -> None:
    world = world_with(deployment=chat(serving={"on_circuit_open": "wait"}))
    with world.engine() as engine:
        engine.breaker.force_open()
        with pytest.raises(RuntimeError, match="nothing is going to happen"):
            engine.generate(batch())
        assert engine.metrics().cancelled == 1


def test_a_drain_waits_for_a_stream_that_nobody_reads_in_vain() -> None:
    world = world_with(token_delay=1.0)
    with world.engine() as engine, engine.stream(batch()) as chunks:
        next(chunks)
        with pytest.raises(RuntimeError, match=r"86400 virtual seconds are over .*a stream that nobody reads"):
            engine.drain()


@pytest.mark.parametrize(("reads", "why"), [(False, "nothing is going to happen"), (True, "86400 virtual seconds are over")])
def test_a_world_does_not_run_for_ever_for_a_stream_that_nobody_reads(reads: bool, why: str) -> None:
    world = world_with(token_delay=1.0)
    with world.engine() as engine, engine.stream(batch()) as chunks:
        if reads:
            next(chunks)
        with pytest.raises(RuntimeError, match=f"{why}.*1 callers have no answer .a stream that nobody reads"):
            world.run()


def test_a_world_of_requests_alone_has_no_engine_for_callers() -> None:
    with pytest.raises(ValueError, match="bytes"):
        World(chat(), level="requests").engine()


def test_a_world_that_breaks_an_invariant_is_not_closed_over_it() -> None:
    world = world_with()

    class Objects:
        def observed(self, event: Any, effects: Any, now: float, unix_now: float) -> None:
            if not isinstance(event, Tick):
                raise InvariantViolated(0, "planted")

    def breaks() -> None:
        with world.engine() as engine:
            world.watch(Objects())
            engine.generate(batch())

    with pytest.raises(InvariantViolated, match="planted") as caught:
        breaks()
    assert caught.value.__context__ is None


def swallows(engine: SimulatedEngine) -> None:
    """Code as there is: an engine must never hide its own defect behind it."""
    with contextlib.suppress(Exception):
        engine.generate(batch())


class ObjectsOnce:
    def __init__(self) -> None:
        self.objects = True

    def observed(self, event: Any, effects: Any, now: float, unix_now: float) -> None:
        if self.objects and not isinstance(event, Tick):
            self.objects = False
            raise InvariantViolated(0, "planted")


@pytest.mark.parametrize("then", ["leave", "fail", "close", "run", "run for a while", "generate", "check"])
def test_a_violation_that_somebody_swallowed_is_raised_again(then: str) -> None:
    world = world_with()
    world.watch(ObjectsOnce())

    def played() -> None:
        with world.engine() as engine:
            assert world.violation is None
            world.check()
            swallows(engine)
            assert world.violation is not None
            match then:
                case "leave":
                    return
                case "fail":
                    raise KeyError("what came of it")
                case "close":
                    engine.close()
                case "run":
                    world.run()
                case "run for a while":
                    world.run(1.0)
                case "generate":
                    engine.generate(batch())
                case _:
                    world.check()
            raise AssertionError("this is not reached")

    with pytest.raises(InvariantViolated, match="planted") as caught:
        played()
    assert caught.value is world.violation
    assert not world.node.drained


def test_a_broken_world_goes_no_further() -> None:
    world = world_with()
    world.watch(ObjectsOnce())
    engine = world.engine()
    engine.__enter__()
    swallows(engine)
    ways: list[Callable[[], object]] = [
        world.run,
        lambda: world.run(1.0),
        lambda: world.wait_until(lambda: True),
        engine.drain,
    ]
    for goes_on in ways:
        with pytest.raises(InvariantViolated, match="planted"):
            goes_on()
        assert world.clock.now == 0.0


def test_what_was_swallowed_while_the_world_ran_is_raised_at_its_end() -> None:
    def broken_in_a_while() -> World:
        world = world_with()
        world.watch(ObjectsOnce())
        engine = world.engine()
        engine.__enter__()
        world.clock.call_later(0.5, lambda: swallows(engine))
        return world

    world = broken_in_a_while()
    with pytest.raises(InvariantViolated, match="planted"):
        world.run(1.0)
    world = broken_in_a_while()
    with pytest.raises(InvariantViolated, match="planted"):
        world.wait_until(lambda: world.clock.now >= 0.5)


def test_a_violation_that_was_swallowed_after_the_block_is_raised_by_close() -> None:
    world = world_with()
    with world.engine() as engine:
        pass
    world.watch(ObjectsOnce())
    with contextlib.suppress(InvariantViolated):
        engine.rebuild_session()
    with pytest.raises(InvariantViolated, match="planted"):
        engine.close()


@pytest.mark.parametrize("what", ["sent", "delivered", "ended"])
def test_what_the_judge_finds_in_what_callers_see_is_remembered(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world = world_with()

    def objects(*_: Any) -> None:
        raise InvariantViolated(4, what)

    monkeypatch.setattr(type(world.judge), what, objects)
    with pytest.raises(InvariantViolated, match=what) as caught, world.engine() as engine:
        swallows(engine)
    assert caught.value is world.violation


def test_only_the_first_violation_is_raised_again() -> None:
    world = world_with()

    class Objects:
        def observed(self, event: Any, effects: Any, now: float, unix_now: float) -> None:
            raise InvariantViolated(0, type(event).__name__)

    world.watch(Objects())

    def played() -> None:
        with world.engine() as engine:
            swallows(engine)
            engine.rebuild_session()

    with pytest.raises(InvariantViolated, match="AddRequest"):
        played()


def test_patience_is_what_one_gives() -> None:
    world = world_with(then=NeverRespond())
    with world.engine(give_up_after=5.0) as engine:
        with pytest.raises(RuntimeError, match=r"5 virtual seconds are over .*; 1 callers have no answer"):
            engine.generate(batch())
        assert world.clock.now <= 5.0
        engine.submit(batch())
        with pytest.raises(RuntimeError, match="7 virtual seconds are over"):
            world.run(give_up_after=7.0)
    for given in (0.0, -1.0):
        with pytest.raises(ValueError, match=r"^give_up_after"):
            world.engine(give_up_after=given)
        with pytest.raises(ValueError, match=r"^give_up_after"):
            world.run(give_up_after=given)


def test_the_same_seed_is_the_same_world() -> None:
    def played(seed: int) -> list[Any]:
        provider = MockProvider(faults=FaultScript([Status(503), ResetAtByte(40)]), token_delay=0.01)
        world = World(chat(), seed=seed, provider=provider)
        with world.engine() as engine:
            return [(engine.generate(batch(prompt)).text, world.clock.now) for prompt in ("a", "b")]

    assert played(1) == played(1)
    assert played(1) != played(2)


def test_a_vault_that_is_down_delays_a_request() -> None:
    world = World(chat(), conditions=CALM)
    world.disturb(VaultDown(1, at=0.0, seconds=20.0, host="api.openai.com"))
    with world.engine() as engine:
        world.clock.advance(0.0)
        with pytest.raises(InferenceError):
            engine.generate(batch())
        world.clock.advance(60.0)
        assert engine.generate(batch()).text == expected_text("hello")


def test_a_request_outside_a_block_runs_to_its_end() -> None:
    world = world_with()
    with world.engine() as engine:
        request = engine.submit(batch())
        assert isinstance(request, SimulatedRequest)
        world.run()
        engine.drain()
        assert request.result().text == "Hi there"
