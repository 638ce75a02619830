"""An asyncio event loop in a world's time, whatever is run on it."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
from virtual_worlds import world_with

from drivers.virtual_time import client_of, engine_of, event_loop
from drivers.virtual_time import run as run_with_engine
from drivers.virtual_time.asyncio_loop import VirtualEventLoop
from sansio.simulation.world.world import World

Result = TypeVar("Result")


@pytest.fixture
def world() -> World:
    return world_with()


def run(world: World, main: Callable[[], Awaitable[Result]]) -> Result:
    async def whole() -> Result:
        return await main()

    with asyncio.Runner(loop_factory=lambda: event_loop(world)) as runner:
        return runner.run(whole())


def test_sleeping_takes_no_real_time(world: World) -> None:
    async def main() -> float:
        await asyncio.sleep(10_000.0)
        return asyncio.get_running_loop().time()

    began = time.monotonic()
    assert run(world, main) == world.clock.now == 10_000.0
    assert time.monotonic() - began < 5.0


def test_timers_come_in_order_and_only_if_they_are_not_cancelled(world: World) -> None:
    seen: list[Any] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_at(3.0, seen.append, "c")
        loop.call_later(1.0, seen.append, "a")
        cancelled = loop.call_later(2.0, seen.append, "never")
        loop.call_at(2.5, cancelled.cancel)
        loop.call_at(1.5, cancelled.cancel)
        world.clock.call_at(2.0, lambda: seen.append("b"))
        assert not cancelled.cancelled()
        assert cancelled.when() == 2.0
        await asyncio.sleep(4.0)
        assert cancelled.cancelled()

    run(world, main)
    assert seen == ["a", "b", "c"]


def test_a_cancelled_timer_does_not_stay_in_the_agenda(world: World) -> None:
    async def main() -> None:
        async with asyncio.timeout(1_000.0):
            await asyncio.sleep(1.0)

    run(world, main)
    assert (world.clock.now, world.clock.next()) == (1.0, None)


def test_a_timer_cancelled_by_one_of_the_same_instant_does_not_happen(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        timers: list[asyncio.TimerHandle] = []
        loop.call_at(1.0, lambda: timers[0].cancel())
        world.clock.call_at(1.0, lambda: None)
        timers.append(loop.call_at(1.0, seen.append, "never"))
        await asyncio.sleep(2.0)

    run(world, main)
    assert seen == []
    assert not caplog.records


def test_a_timer_that_is_cancelled_once_it_is_due_does_not_happen(world: World, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        timer = loop.call_at(1.0, seen.append, "never")
        world.clock.call_at(0.5, lambda: None)
        world.clock.advance_to(1.0)  # within the task: it is due, and waits for its turn
        timer.cancel()
        await asyncio.sleep(1.0)

    run(world, main)
    assert seen == []
    assert not caplog.records


def test_a_timer_keeps_its_context(world: World) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")
    seen: list[str] = []

    async def main() -> None:
        variable.set("inside")
        other = contextvars.Context()
        asyncio.get_running_loop().call_later(1.0, lambda: seen.append(variable.get()))
        asyncio.get_running_loop().call_later(1.0, lambda: seen.append(variable.get()), context=other)
        variable.set("later")
        await asyncio.sleep(2.0)

    run(world, main)
    assert seen == ["inside", "outside"]


def test_timeouts_groups_and_queues(world: World) -> None:
    async def main() -> list[Any]:
        queue: asyncio.Queue[float] = asyncio.Queue()

        async def put(after: float) -> None:
            await asyncio.sleep(after)
            await queue.put(asyncio.get_running_loop().time())

        async with asyncio.TaskGroup() as tasks:
            for after in (3.0, 1.0, 2.0):
                tasks.create_task(put(after))
            got = [await queue.get() for _ in range(3)]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(queue.get(), 7.0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5.0):
                await asyncio.gather(queue.get(), asyncio.sleep(60.0))
        return got

    assert run(world, main) == [1.0, 2.0, 3.0]
    assert world.clock.now == 15.0


def test_what_a_loop_leaves_behind_does_not_happen_in_the_next(world: World) -> None:
    seen: list[str] = []

    async def leaves() -> None:
        asyncio.get_running_loop().call_later(1.0, seen.append, "never")

    async def main() -> None:
        await asyncio.sleep(5.0)

    run(world, leaves)
    run(world, main)
    assert seen == []


def test_an_exception_in_a_timer_goes_to_the_loops_handler(world: World) -> None:
    told: list[str] = []

    def wrong() -> None:
        raise LookupError("planted")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(repr(context["exception"])))
        loop.call_later(1.0, wrong)
        await asyncio.sleep(2.0)

    run(world, main)
    assert told == ["LookupError('planted')"]


def test_debug_mode(world: World) -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_debug(True)
        await asyncio.sleep(1.0)

    run(world, main)
    assert world.clock.now == 1.0


# ---- threads ----------------------------------------------------------------------------------------------------------


def test_the_world_stands_still_while_a_thread_of_the_executor_is_at_work(world: World) -> None:
    seen: list[float] = []

    async def main() -> str:
        asyncio.get_running_loop().call_later(0.001, lambda: seen.append(world.clock.now))
        done = await asyncio.to_thread(lambda: time.sleep(0.05) or "done")
        assert (world.clock.now, seen) == (0.0, [])
        return str(done)

    assert run(world, main) == "done"


def test_an_exception_of_a_thread(world: World) -> None:
    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 / 0)
        await asyncio.sleep(1.0)

    run(world, main)
    assert world.clock.now == 1.0


def test_a_thread_of_ones_own_is_waited_for_when_there_is_nothing_else(world: World) -> None:
    async def main() -> str:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[str] = loop.create_future()
        timer = threading.Timer(0.05, lambda: loop.call_soon_threadsafe(future.set_result, "done"))
        timer.start()
        try:
            return await future
        finally:
            timer.join()

    assert run(world, main) == "done"


def test_the_loops_own_kind(world: World) -> None:
    loop = event_loop(world)
    try:
        assert isinstance(loop, VirtualEventLoop)
        assert loop.clock is world.clock
    finally:
        loop.close()


def test_nothing_to_come_while_cleaning_up_is_said_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drivers.virtual_time.asyncio_loop.PATIENCE", 0.01)

    async def main() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="nothing is going to happen"):
        run(world, main)


# ---- backends ---------------------------------------------------------------------------------------------------------


def test_another_backend_than_the_two_is_refused(world: World) -> None:
    async def main(engine: Any) -> None:
        raise AssertionError("run")

    unknown: Any = "curio"
    for wrong in (
        lambda: run_with_engine(world, main, backend=unknown),
        lambda: engine_of(world, unknown),
        lambda: client_of(world, unknown),
    ):
        with pytest.raises(ValueError, match="backend: 'curio' is none of them; take 'asyncio' or 'trio'"):
            wrong()
