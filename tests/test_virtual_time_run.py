"""The real asyncio and trio drivers in a world: one suite, run on both."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio
from simulation_mutants import usage_counted_twice
from virtual_worlds import CALM, batch, chat, world_with

import drivers.asyncio_driver
import drivers.trio_driver
import drivers.virtual_time.trio_clock
from drivers.virtual_time import client_of, engine_of, event_loop, run, run_trio
from sansio import (
    CircuitState,
    Credential,
    EngineClosed,
    InferenceError,
    Notice,
    Secret,
    StreamInterrupted,
    TokenChunk,
)
from sansio.events import AddRequest, Close, Tick
from sansio.simulation.judge.violation import InvariantViolated
from sansio.simulation.provider.answers import expected_text
from sansio.simulation.provider.faults import CloseOnReuse, NeverRespond, StallAfterChunks, Status, Throttle
from sansio.simulation.world.plan import Conditions, HostPlan, RotateKey
from sansio.simulation.world.world import World

HOST = "api.openai.com"

pytestmark = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in these tests comes from a thread."""
    monkeypatch.setattr("drivers.virtual_time.asyncio_loop.PATIENCE", 0.01)
    monkeypatch.setattr("drivers.virtual_time.trio_clock.PATIENCE", 0.01)


def left_open(world: World) -> tuple[int, int]:
    assert world.network is not None
    world.clock.advance(1.0)  # the far ends learn of it
    return world.network.connections, world.provider.connections_open


# ---- requests ---------------------------------------------------------------------------------------------------------


def test_it_is_the_drivers_own_engine(backend: Any) -> None:
    async def main(engine: Any) -> None:
        assert isinstance(engine, getattr(drivers, f"{backend}_driver").RemoteEngine)

    run(world_with(), main, backend=backend)


def test_a_whole_answer(backend: Any) -> None:
    world = world_with(first_byte_delay=2.0)

    async def main(engine: Any, prompt: str) -> str:
        tokens = await engine.generate(batch(prompt))
        assert tokens.usage.output_tokens == 2
        return tokens.text

    assert run(world, main, "hello", backend=backend) == "Hi there"
    assert 2.0 < world.clock.now < 3.0
    assert left_open(world) == (0, 0)


def test_a_stream_comes_as_time_goes_by(backend: Any) -> None:
    world = world_with(token_delay=1.0)

    async def main(engine: Any) -> list[tuple[str, int]]:
        async with engine.stream(batch()) as chunks:
            return [(chunk.text_delta, round(world.clock.now)) async for chunk in chunks if chunk.text_delta]

    assert run(world, main, backend=backend) == [("Hi ", 1), ("there", 2)]


def test_everything_that_waits_waits_in_virtual_time(backend: Any) -> None:
    world = world_with(then=NeverRespond())
    seen: list[float] = []

    async def main(engine: Any) -> None:
        await anyio.sleep(3_600.0)
        seen.append(world.clock.now)
        with anyio.move_on_after(5.0) as scope:
            await engine.generate(batch())
        seen.append(world.clock.now)
        assert scope.cancelled_caught
        with pytest.raises(TimeoutError):
            with anyio.fail_after(1.5):
                await anyio.sleep_forever()
        seen.append(anyio.current_time())

    run(world, main, backend=backend)
    assert seen == [3600.0, 3605.0, 3606.5]
    assert left_open(world) == (0, 0)


def test_many_tasks_at_once(backend: Any) -> None:
    world = world_with(first_byte_delay=1.0)
    texts: list[str] = []

    async def main(engine: Any) -> None:
        async def one(number: int) -> None:
            texts.append((await engine.generate(batch(f"{number}"))).text)

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(one, number)

    run(world, main, backend=backend)
    assert sorted(texts) == sorted(expected_text(str(number)) for number in range(20))
    assert world.provider.max_active == 20
    assert world.clock.now < 2.0


def test_retries_and_hints_take_virtual_time_only(backend: Any) -> None:
    world = world_with(Throttle(retry_after="45"))

    async def main(engine: Any) -> dict[str, int]:
        await engine.generate(batch())
        return engine.metrics().retries

    assert run(world, main, backend=backend) == {"rate_limited": 1}
    assert world.clock.now > 45.0


def test_dates_are_read_by_the_worlds_wall_clock(backend: Any) -> None:
    world = world_with(Throttle(retry_date=30.0))

    async def main(engine: Any) -> None:
        await engine.generate(batch())

    run(world, main, backend=backend)
    assert 29.0 < world.clock.now < 50.0


def test_a_stream_breaks_by_the_clock_between_bytes(backend: Any) -> None:
    world = world_with(StallAfterChunks(1))

    async def main(engine: Any) -> None:
        async with engine.stream(batch()) as chunks:
            assert (await anext(chunks)).text_delta == "Hi "
            await anyio.sleep(600.0)  # a slow reader is no stalled server
            with pytest.raises(StreamInterrupted):
                await anext(chunks)

    run(world, main, backend=backend)
    assert world.clock.now == pytest.approx(660.0, abs=1.0)


def test_a_circuit_opens_and_closes(backend: Any) -> None:
    quick: Any = {"retry": {"max_retries": 0}, "circuit_breaker": {"failure_threshold": 1, "open_duration": 30.0}}
    world = world_with(Status(503), deployment=chat(runtime_config=quick))

    async def main(engine: Any) -> list[CircuitState]:
        states = [engine.breaker.state()]
        with pytest.raises(InferenceError):
            await engine.generate(batch())
        states.append(engine.breaker.state())
        await anyio.sleep(30.0)
        await engine.generate(batch())
        return [*states, engine.breaker.state()]

    assert run(world, main, backend=backend) == [CircuitState.CLOSED, CircuitState.OPEN, CircuitState.CLOSED]


def test_a_connection_is_used_again_and_idles_for_a_while_only(backend: Any) -> None:
    world = world_with()

    async def main(engine: Any) -> list[int]:
        opened: list[int] = []
        for pause in (1.0, 3_600.0, 0.0):
            await engine.generate(batch())
            opened.append(world.provider.connections_total)
            await anyio.sleep(pause)
        return opened

    assert run(world, main, backend=backend) == [1, 1, 2]


def test_a_connection_that_was_closed_while_it_idled_costs_nothing(backend: Any) -> None:
    world = world_with(None, CloseOnReuse())

    async def main(engine: Any) -> Any:
        await engine.generate(batch())
        await engine.generate(batch())
        return engine.metrics().retries

    assert run(world, main, backend=backend) == {"stale_connection": 1}
    assert world.clock.now < 0.5


def test_over_http2(backend: Any) -> None:
    world = World(chat(), hosts=[HostPlan(HOST, http2=True)], conditions=CALM)

    async def main(engine: Any) -> None:
        async def one() -> None:
            assert (await engine.generate(batch())).text == expected_text("hello")

        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(one)

    run(world, main, backend=backend)
    assert (world.provider.connections_total, world.provider.requests_total) == (1, 10)
    assert world.provider.log[0].http_version == "2"


# ---- the connection's ends --------------------------------------------------------------------------------------------


def test_a_host_that_refuses(backend: Any) -> None:
    world = World(chat(runtime_config={"retry": {"max_retries": 0}}), conditions=Conditions(refused=1.0))

    async def main(engine: Any) -> None:
        with pytest.raises(InferenceError) as caught:
            await engine.generate(batch())
        assert caught.value.kind == "network_error"

    run(world, main, backend=backend)


def test_a_dial_that_is_never_answered_is_interrupted(backend: Any) -> None:
    world = World(chat(runtime_config={"retry": {"max_retries": 0}}), conditions=Conditions(lost=1.0))

    async def main(engine: Any) -> None:
        with pytest.raises(InferenceError) as caught:
            await engine.generate(batch())
        assert caught.value.kind == "timeout"

    run(world, main, backend=backend)
    assert 5.0 <= world.clock.now < 6.0


def test_leaving_early_gives_back_at_once(backend: Any) -> None:
    world = world_with(token_delay=1.0)

    async def main(engine: Any) -> tuple[int, int]:
        async with engine.stream(batch()) as chunks:
            await anext(chunks)
        return engine.metrics().in_flight, engine.metrics().cancelled

    assert run(world, main, backend=backend) == (0, 1)
    assert left_open(world) == (0, 0)
    assert world.provider.log[0].outcome == "client_left"


def test_draining_and_closing(backend: Any) -> None:
    world = world_with(first_byte_delay=3.0)
    seen: list[Any] = []

    async def main(engine: Any) -> None:
        async def one() -> None:
            seen.append((await engine.generate(batch())).text)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one)
            await anyio.sleep(1.0)
            await engine.drain()
            seen.append(round(world.clock.now))
            with pytest.raises(EngineClosed):
                await engine.generate(batch())

    run(world, main, backend=backend)
    assert seen == ["Hi there", 3]


# ---- secrets ----------------------------------------------------------------------------------------------------------


def never() -> Credential:
    raise AssertionError("called")


@pytest.mark.parametrize(
    "secret",
    [Secret.from_env("NOT_THERE"), Secret.from_file("/not/there"), Secret.from_callable(never), Secret.inline("sk-own")],
)
def test_secrets_are_the_vaults(backend: Any, secret: Secret) -> None:
    world = World(chat(runtime_config={"api_key": secret}), conditions=CALM)

    async def main(engine: Any) -> None:
        assert (await engine.generate(batch())).text == expected_text("hello")

    run(world, main, backend=backend)
    assert [credential.reveal() for credential in world.vault.handed_out] == ["sk-simulated-0-0"]


def test_a_rotated_key_is_fetched_again(backend: Any) -> None:
    world = World(chat(), conditions=CALM)
    world.disturb(RotateKey(1, at=5.0, host=HOST))

    async def main(engine: Any) -> int:
        await engine.generate(batch())
        await anyio.sleep(10.0)
        await engine.generate(batch())
        return engine.metrics().refreshes

    assert run(world, main, backend=backend) == 2


def test_a_key_is_renewed_before_it_expires(backend: Any) -> None:
    world = World(chat(), conditions=CALM, hosts=[HostPlan(HOST, key_lifetime=600.0)])

    async def main(engine: Any) -> int:
        await engine.generate(batch())
        await anyio.sleep(3_000.0)
        return engine.metrics().refreshes

    assert run(world, main, backend=backend) > 4


# ---- what goes wrong --------------------------------------------------------------------------------------------------


def test_what_main_raises_is_raised(backend: Any) -> None:
    async def main(engine: Any) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        run(world_with(), main, backend=backend)


def test_who_asks_again_and_again_is_answered(backend: Any) -> None:
    world = world_with(Status(503), first_byte_delay=2.0)
    texts: list[str] = []
    looks = 0

    async def main(engine: Any) -> None:
        nonlocal looks

        async def one() -> None:
            texts.append((await engine.generate(batch())).text)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one)
            while not texts:
                await anyio.lowlevel.checkpoint()
                looks += 1

    run(world, main, backend=backend)
    assert texts == ["Hi there"]
    assert 4.0 < world.clock.now < 8.0
    assert 10_000 < looks < 20_000


def test_who_asks_again_and_again_is_timed_out(backend: Any) -> None:
    world = world_with()

    async def main(engine: Any) -> None:
        world.clock.call_at(20.0, lambda: None)
        with anyio.move_on_after(12.5):
            while True:
                await anyio.lowlevel.checkpoint()

    run(world, main, backend=backend)
    assert world.clock.now == 12.5


def test_much_to_do_takes_no_virtual_time(backend: Any) -> None:
    world = world_with()

    async def main(engine: Any) -> None:
        for _ in range(2):
            for _ in range(9_000):
                await anyio.lowlevel.checkpoint()
            began = world.clock.now
            await anyio.sleep(1.0)
            assert world.clock.now == began + 1.0

    run(world, main, backend=backend)
    assert world.clock.now == 2.0


def test_who_moves_the_world_while_asking_again_and_again_is_left_to_it(backend: Any) -> None:
    world = world_with(token_delay=1.0)

    async def main(engine: Any) -> None:
        world.clock.call_at(500.0, lambda: None)
        for _ in range(11_000):
            world.clock.advance(0.01)
            await anyio.lowlevel.checkpoint()
        assert world.clock.now == pytest.approx(110.0)

    run(world, main, backend=backend)


@pytest.mark.parametrize("until", ["never", "too late"])
def test_who_asks_again_and_again_in_vain_is_told(backend: Any, until: str) -> None:
    world = world_with()
    ended: list[str] = []

    async def main(engine: Any) -> None:
        if until == "too late":
            world.clock.call_at(2_000.0, lambda: None)
        try:
            while True:
                await anyio.lowlevel.checkpoint()
        finally:
            with anyio.CancelScope(shield=True):
                for _ in range(1_000):
                    await anyio.lowlevel.checkpoint()
            ended.append("cleaned up")

    with pytest.raises(RuntimeError, match="again and again"):
        run(world, main, backend=backend, give_up_after=1_000.0)
    assert ended == ["cleaned up"]


def test_a_thread_may_be_asked_again_and_again(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the backend's own, which stops the world, and one that nobody knows of, when there is nothing else."""
    monkeypatch.setattr("drivers.virtual_time.asyncio_loop.PATIENCE", 2.0)
    monkeypatch.setattr("drivers.virtual_time.trio_clock.PATIENCE", 2.0)
    world = world_with()

    async def main(engine: Any) -> list[float]:
        world.clock.call_at(5.0, lambda: None)
        done: list[float] = []

        async def wait() -> None:
            sleep = trio.to_thread.run_sync if backend == "trio" else asyncio.to_thread
            await sleep(time.sleep, 0.3)
            done.append(world.clock.now)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            while not done:
                await anyio.lowlevel.checkpoint()
        await anyio.sleep(10.0)
        thread = threading.Timer(0.3, lambda: done.append(world.clock.now))
        thread.start()
        while len(done) < 2:
            await anyio.lowlevel.checkpoint()
        thread.join()
        return done

    assert run(world, main, backend=backend) == [0.0, 10.0]


def test_where_nothing_can_happen_any_more_that_is_said(backend: Any) -> None:
    world = world_with()
    ended: list[str] = []

    async def main(engine: Any) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("cleaned up")

    with pytest.raises(RuntimeError, match="nothing is going to happen any more"):
        run(world, main, backend=backend)
    assert ended == ["cleaned up"]


def test_a_test_that_goes_on_for_ever_is_given_up(backend: Any) -> None:
    async def main(engine: Any) -> None:
        for _ in range(1_000):
            await anyio.sleep(10.0)

    world = world_with()
    with pytest.raises(RuntimeError, match="give_up_after"):
        run(world, main, backend=backend, give_up_after=1_000.0)
    assert 990.0 <= world.clock.now <= 1_000.0


def test_a_world_that_goes_on_for_ever_is_given_up(backend: Any) -> None:
    world = world_with()

    def again() -> None:
        world.clock.call_later(10.0, again)

    async def main(engine: Any) -> None:
        again()
        await anyio.sleep_forever()

    with pytest.raises(RuntimeError, match="give_up_after"):
        run(world, main, backend=backend, give_up_after=1_000.0)


def test_what_the_judge_finds_is_raised_even_where_it_came_up_in_a_timer(
    backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Strict:
        def __init__(self, *_: object) -> None: ...

        def observed(self, event: Any, *_: Any) -> None:
            if isinstance(event, Tick):
                raise InvariantViolated(0, "planted")

        def healed(self, *_: object) -> None: ...

    monkeypatch.setattr("drivers.virtual_time.place.Judge", Strict)
    world = world_with(Status(503))

    async def main(engine: Any) -> None:
        await engine.generate(batch())
        await anyio.sleep_forever()

    with pytest.raises(InvariantViolated, match="planted"):
        run(world, main, backend=backend)


@pytest.mark.parametrize("when", ["at once", "at the end"])
def test_what_the_judge_finds_is_raised_once_even_if_main_minds_nothing(
    backend: Any, when: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Strict:
        def __init__(self, *_: object) -> None: ...

        def observed(self, event: Any, *_: Any) -> None:
            if isinstance(event, Close if when == "at the end" else AddRequest):
                raise InvariantViolated(0, "planted")

        def healed(self, *_: object) -> None: ...

    monkeypatch.setattr("drivers.virtual_time.place.Judge", Strict)

    async def main(engine: Any) -> None:
        with suppress(Exception):
            await engine.generate(batch())

    with pytest.raises(InvariantViolated, match="planted"):
        run(world_with(), main, backend=backend)
    assert not caplog.records


def test_the_judge_looks_at_what_is_left_in_the_end(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    usage_counted_twice(monkeypatch)

    async def main(engine: Any) -> None:
        await engine.generate(batch("hello #tokens=8"))

    with pytest.raises(InvariantViolated, match="all attempts used") as caught:
        run(World(chat(), conditions=CALM), main, backend=backend)
    assert caught.value.number == 21


def test_what_main_raises_goes_before_what_is_left_in_the_end(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    usage_counted_twice(monkeypatch)

    async def main(engine: Any) -> None:
        await engine.generate(batch("hello #tokens=8"))
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        run(World(chat(), conditions=CALM), main, backend=backend)


def test_nothing_is_left_of_a_run_that_was_cut_short(backend: Any) -> None:
    """By an error, by others of its group, by its own time: the judge minds none of them."""
    world = world_with(token_delay=1.0)

    async def main(engine: Any) -> None:
        async def read() -> None:
            with suppress(EngineClosed):
                async with engine.stream(batch()) as chunks:
                    async for _ in chunks:
                        pass

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await anyio.sleep(0.5)
            await engine.aclose()

    run(world, main, backend=backend)
    assert left_open(world) == (0, 0)


@pytest.mark.parametrize("then", [None, LookupError])
def test_what_the_judge_found_and_main_swallowed_is_raised_in_the_end(
    backend: Any, then: type[Exception] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Strict:
        def __init__(self, *_: object) -> None: ...

        def observed(self, event: Any, *_: Any) -> None:
            if isinstance(event, AddRequest):
                raise InvariantViolated(0, "planted")

    monkeypatch.setattr("drivers.virtual_time.place.Judge", Strict)
    world = world_with()
    swallowed: list[InvariantViolated] = []

    async def main(engine: Any) -> None:
        async def one() -> None:
            await engine.generate(batch())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one)
            await anyio.lowlevel.checkpoint()
            try:
                world.clock.advance(0.01)
            except InvariantViolated as violation:
                swallowed.append(violation)
            tasks.cancel_scope.cancel()
        if then is not None:
            raise then("mine")

    with pytest.raises(InvariantViolated) as caught:
        run(world, main, backend=backend)
    assert swallowed == [caught.value] == [world.violation]


def test_what_was_found_of_the_worlds_own_engine_is_raised_too(backend: Any) -> None:
    world = world_with()

    async def main(engine: Any) -> None:
        world.violation = InvariantViolated(0, "planted")

    with pytest.raises(InvariantViolated, match="planted"):
        run(world, main, backend=backend)


def test_an_unjudged_world_has_unjudged_engines(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drivers.virtual_time.place.Judge", None)

    async def main(engine: Any) -> None:
        await engine.generate(batch())

    run(World(chat(), conditions=CALM, judged=False), main, backend=backend)


def test_what_goes_wrong_in_the_world_is_raised(backend: Any) -> None:
    world = world_with()

    def wrong() -> None:
        raise ArithmeticError("planted")

    async def main(engine: Any) -> None:
        world.clock.call_later(1.0, wrong)
        await anyio.sleep_forever()

    with pytest.raises(ArithmeticError, match="planted"):
        run(world, main, backend=backend)


def test_an_engine_of_a_world_needs_that_worlds_time(backend: Any) -> None:
    async def main(world: World) -> None:
        async with engine_of(world, backend):
            pass

    with pytest.raises(RuntimeError, match="that world's time"):
        anyio.run(main, world_with(), backend=backend)

    async def inside(engine: Any) -> None:
        await main(world_with())

    with pytest.raises(RuntimeError, match="that world's time"):
        run(world_with(), inside, backend=backend)


def test_a_world_of_requests_alone_has_nothing_for_a_driver(backend: Any) -> None:
    with pytest.raises(ValueError, match="bytes"):
        client_of(World(chat(), level="requests"), backend)


# ---- one's own main ---------------------------------------------------------------------------------------------------


def run_own(world: World, main: Any, backend: str) -> Any:
    if backend == "trio":
        return run_trio(world, main)
    with asyncio.Runner(loop_factory=lambda: event_loop(world)) as runner:
        return runner.run(main())


def test_engines_side_by_side_draw_their_own_chances(backend: Any) -> None:
    world = world_with(*[Status(503)] * 2)
    notices: list[Notice] = []

    async def main() -> list[str]:
        async with (
            engine_of(world, backend, on_notice=notices.append, name="a") as a,
            engine_of(world, backend, on_notice=notices.append, name="b") as b,
        ):
            return [(await each.generate(batch())).text for each in (a, b)]

    assert run_own(world, main, backend) == ["Hi there"] * 2
    waits = [notice.detail["wait"] for notice in notices if notice.kind == "retry_scheduled"]
    assert len(set(waits)) == 2


def test_an_engine_that_one_makes_oneself_goes_over_the_worlds_network(backend: Any) -> None:
    world = world_with()
    deployment = chat(runtime_config={"api_key": Secret.inline("sk-own")})

    async def main() -> str:
        driver = getattr(drivers, f"{backend}_driver")
        async with driver.RemoteEngine(deployment, client=client_of(world, backend)) as engine:
            chunks: list[TokenChunk] = []
            async with engine.stream(batch()) as stream:
                chunks += [chunk async for chunk in stream]
            return "".join(chunk.text_delta for chunk in chunks)

    assert run_own(world, main, backend) == "Hi there"


def test_one_run_after_another_in_the_same_world(backend: Any) -> None:
    world = world_with(first_byte_delay=10.0)

    async def cut_short(engine: Any) -> None:
        with anyio.move_on_after(5.0):
            await engine.generate(batch())

    async def whole(engine: Any) -> str:
        return (await engine.generate(batch())).text

    run(world, cut_short, backend=backend)
    assert run(world, whole, backend=backend) == "Hi there"
    assert run(world, whole, backend="trio" if backend == "asyncio" else "asyncio") == "Hi there"
    assert left_open(world) == (0, 0)


# ---- the same seed ----------------------------------------------------------------------------------------------------

TRACED = """
import sys
import anyio
from drivers.virtual_time import run
from sansio import Deployment, ExecuteBatch, InferenceError, Message, Secret
from sansio.simulation import Status
from sansio.simulation.world.plan import Conditions, Faults
from sansio.simulation.world.world import World

deployment = Deployment(name="chat", model="gpt-4o", runtime_config={"api_key": Secret.from_env("X")})

def traced(seed):
    world = World(deployment, seed=seed, conditions=Conditions(reset=0.1, jitter=0.05))
    world.disturb(Faults(1, 0.0, 10.0, "api.openai.com", ((Status(503), 0.3),)))

    async def main(engine):
        async def one(number):
            try:
                async with engine.stream(ExecuteBatch(messages=[Message(role="user", content=str(number))])) as chunks:
                    async for chunk in chunks:
                        print(number, repr(chunk.text_delta), world.clock.now)
            except InferenceError as error:
                print(number, error.kind, world.clock.now)
        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(one, number)

    run(world, main, backend=sys.argv[1])

traced(1)
print("---")
traced(2)
"""


def traced(backend: str, hash_seed: str) -> str:
    """What the runs of two seeds print in a process with this hash seed."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", TRACED, backend], capture_output=True, text=True, check=True, timeout=60,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    return done.stdout


def test_the_same_seed_is_the_same_run_under_any_hash_seed(backend: Any) -> None:
    told = traced(backend, "1")
    assert traced(backend, "2") == told
    one, other = told.split("---\n")
    assert one.count("\n") > 100
    assert one != other
