"""A trio run in a world's time, whatever is run in it."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from virtual_worlds import batch, world_with

from drivers.virtual_time import client_of, engine_of, run_trio
from sansio import HttpRequest
from sansio.simulation.world.world import World

TESTS = Path(__file__).resolve().parent


@pytest.fixture
def world() -> World:
    return world_with(first_byte_delay=5.0)


def test_sleeping_takes_no_real_time(world: World) -> None:
    async def main(seconds: float) -> float:
        await trio.sleep(seconds)
        return trio.current_time()

    began = time.monotonic()
    assert run_trio(world, main, 10_000.0) == world.clock.now == 10_000.0
    assert time.monotonic() - began < 5.0


def test_deadlines_and_events_of_the_world_come_in_order(world: World) -> None:
    seen: list[str] = []

    async def main() -> None:
        async def one(name: str, at: float) -> None:
            await trio.sleep_until(at)
            seen.append(name)

        world.clock.call_at(2.0, lambda: seen.append("b"))
        async with trio.open_nursery() as tasks:
            for name, at in (("c", 3.0), ("a", 1.0), ("d", 4.0)):
                tasks.start_soon(one, name, at)
        with trio.move_on_after(1.5):
            await trio.sleep_forever()
        seen.append(f"{trio.current_time()}")

    run_trio(world, main)
    assert seen == ["a", "b", "c", "d", "5.5"]


@pytest.mark.parametrize("times", [1, 3])
def test_who_waits_for_all_tasks_to_be_blocked_sees_no_time_pass(world: World, times: int) -> None:
    seen: list[float] = []

    async def main() -> None:
        for number in range(20):
            world.clock.call_later(0.001 * (number + 1), lambda: None)
        for _ in range(times):
            await trio.testing.wait_all_tasks_blocked()
        seen.append(world.clock.now)
        await trio.sleep(1.0)
        await trio.testing.wait_all_tasks_blocked()
        seen.append(world.clock.now)

    run_trio(world, main)
    assert seen == [0.0, 1.0]


def test_a_world_stands_still_while_trios_threads_are_at_work(world: World) -> None:
    seen: list[float] = []

    async def main() -> None:
        world.clock.call_later(0.001, lambda: seen.append(world.clock.now))
        await trio.to_thread.run_sync(time.sleep, 0.05)
        assert (world.clock.now, seen) == (0.0, [])

    run_trio(world, main)


def test_a_thread_of_ones_own_is_waited_for_when_there_is_nothing_else(world: World) -> None:
    async def main() -> str:
        event = trio.Event()
        token = trio.lowlevel.current_trio_token()
        timer = threading.Timer(0.05, lambda: token.run_sync_soon(event.set))
        timer.start()
        await event.wait()
        timer.join()
        return "done"

    assert run_trio(world, main) == "done"


def ends_in(world: World, main: Callable[[], Awaitable[Any]], monkeypatch: pytest.MonkeyPatch) -> BaseException:
    monkeypatch.setattr("drivers.virtual_time.trio_clock.PATIENCE", 0.01)
    with pytest.raises(RuntimeError) as caught:
        run_trio(world, main)
    return caught.value


def test_what_main_raises_instead_of_ending_stands_behind(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            raise LookupError("mine") from None

    error = ends_in(world, main, monkeypatch)
    assert "nothing is going to happen" in str(error)
    assert isinstance(error.__context__, LookupError)


SHIELDED = """
import trio
from virtual_worlds import world_with
from drivers.virtual_time import run_trio, trio_clock

async def main():
    with trio.CancelScope(shield=True):
        while True:
            await WAIT()

trio_clock.PATIENCE = 0.01
run_trio(world_with(), main)
"""


@pytest.mark.parametrize(
    ("wait", "said"),
    [
        ("trio.sleep_forever", "every task waits, and nothing is going to happen any more"),
        ("trio.lowlevel.checkpoint", "somebody asks again and again"),
    ],
)
def test_who_is_shielded_from_the_end_does_not_hang(wait: str, said: str) -> None:
    """In a process of its own: trio itself is left in pieces by that."""
    code = SHIELDED.replace("WAIT", wait)
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)])},
    )  # fmt: skip
    assert done.returncode == 1
    assert f"RuntimeError: {said}" in done.stderr


def test_an_internal_error_of_trio_stays_one(world: World) -> None:
    async def main() -> None:
        async def wrong() -> None:
            raise LookupError("planted")

        trio.lowlevel.spawn_system_task(wrong)
        await trio.sleep_forever()

    with pytest.raises(trio.TrioInternalError):
        run_trio(world, main)


def test_the_order_of_tasks_is_drawn_from_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    def order(seed: int) -> list[int]:
        seen: list[int] = []

        async def main() -> None:
            async def one(number: int) -> None:
                seen.append(number)

            async with trio.open_nursery() as tasks:
                for number in range(30):
                    tasks.start_soon(one, number)

        run_trio(world_with(seed=seed), main)
        return seen

    scheduler: Any = importlib.import_module("trio._core._run")
    before = scheduler._r, scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    assert order(1) == order(1) != order(2)
    assert (scheduler._r, scheduler._ALLOW_DETERMINISTIC_SCHEDULING) == before


def test_receiving_is_a_checkpoint_also_where_something_came_already() -> None:
    world = world_with()

    async def main() -> Any:
        request = HttpRequest("GET", "https://api.openai.com/v1/models", (("authorization", "Bearer key"),), b"")
        client = client_of(world, "trio")
        line = client.line()
        await line.open(request, 5.0, fresh=True, sending=lambda: None)
        await line.send(request)
        await trio.sleep(1.0)
        with trio.testing.assert_checkpoints():
            events = await line.receive()
        line.let_go(keep=False)
        await client.aclose()
        return events[0]

    assert run_trio(world, main).status == 200


def test_a_request_in_a_main_of_ones_own(world: World) -> None:
    async def main() -> str:
        await trio.sleep(1.0)
        async with engine_of(world, "trio") as engine:
            return str((await engine.generate(batch())).text)

    assert run_trio(world, main) == "Hi there"
    assert 6.0 < world.clock.now < 7.0
