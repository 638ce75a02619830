"""A trio run whose time is a world's.

A system task waits until every other task is blocked, and then moves the world's clock to whatever comes next: the earliest
deadline of the run, or an event of the world. An instrument tells it whether somebody else ran meanwhile, so those that
wait for the same (`trio.testing.wait_all_tasks_blocked`) go first. Where a task asks again and again, they never all are
(`Polling`): the instrument counts the turns, and wakes the system task after many.

trio shuffles the tasks that are ready at the same moment, on purpose. Here that is drawn from the world's seed, by the two
switches that pytest-trio uses for it.
"""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any, Final, TypeVar, TypeVarTuple, Unpack

import trio
import trio.testing

from sansio.simulation.world.clock import chance
from sansio.simulation.world.world import GIVE_UP_AFTER, World

from .asyncio_loop import PATIENCE
from .polling import HINT, Polling

Result = TypeVar("Result")
Args = TypeVarTuple("Args")

_NEVER_SLEEP: Final = 86_400.0
"""Real seconds. Not slept: the system task waits for the run to be idle."""

_THREADS_LOOKED_AT_EVERY: Final = 0.005


class WorldClock(trio.abc.Clock, trio.abc.Instrument):
    """The clock of a run, and what moves it. give_up_after: virtual seconds that the run may go on for."""

    def __init__(self, world: World, *, give_up_after: float = GIVE_UP_AFTER) -> None:
        self.world = world
        self._until = world.clock.now + give_up_after
        self._deadline = math.inf
        self._stirred = False
        self._mover: trio.lowlevel.Task | None = None
        self._scope = trio.CancelScope()
        self._polling = Polling(world.clock)
        self._rest = trio.CancelScope()
        self._is_over = False
        self.error: Exception | None = None
        """What went wrong in the world, or with its time."""

    # ---- what trio asks for ---------------------------------------------------------------------------------------------

    def start_clock(self) -> None:
        """It runs by itself."""

    def current_time(self) -> float:
        """The world's clock. To raise ends the run here and now, whoever is shielded from being cancelled."""
        if self._is_over:
            raise RuntimeError("the run does not end by being cancelled")
        return self.world.clock.now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Nothing for what is due. Nobody sleeps until a deadline: the clock comes to it."""
        self._deadline = deadline
        return 0.0 if deadline <= self.current_time() else _NEVER_SLEEP

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Somebody runs."""
        if task is not self._mover:
            self._stirred = True

    def before_io_wait(self, timeout: float) -> None:
        """A turn is over. If somebody goes on at once, and has done so for long, no time would ever go by."""
        if timeout <= 0.0 and not _threads_at_work() and self._polling.turned():
            self._rest.cancel()

    # ---- a run ----------------------------------------------------------------------------------------------------------

    async def around(self, main: Callable[[Unpack[Args]], Awaitable[Result]], *args: *Args) -> Result:
        """Run ``main`` while the world moves on. What goes wrong in the world cancels it, and is raised in its stead."""
        self._mover = trio.lowlevel.spawn_system_task(self._move_on)
        try:
            with self._scope:
                return await main(*args)
        finally:
            if self.error is not None:
                raise self.error
        raise AssertionError("nothing but an error ends the scope")

    async def _move_on(self) -> None:
        while True:
            idle = await self._until_idle()
            try:
                if not idle:
                    self._move_under_way()
                elif not self._move():
                    await self._until_idle(PATIENCE)  # a thread may be at work
                    if not self._stirred:
                        raise RuntimeError(self._stuck())
            except Exception as error:
                self._is_over = self.error is not None
                self.error = self.error or error
                self._scope.cancel()

    async def _until_idle(self, seconds: float = 0.0) -> bool:
        """Until nobody else can go on; or until that has been waited for in vain, which is ``False``."""
        with trio.CancelScope() as self._rest:
            self._stirred = True
            while self._stirred:
                self._stirred = False
                await trio.testing.wait_all_tasks_blocked(seconds)
                self._polling.rested()
                await trio.lowlevel.cancel_shielded_checkpoint()  # who waited for the same goes first
                if seconds:
                    break
                if _threads_at_work():  # they take no virtual time
                    await trio.testing.wait_all_tasks_blocked(_THREADS_LOOKED_AT_EVERY)
                    self._stirred = True
        return not self._rest.cancelled_caught

    def _move_under_way(self) -> None:
        """Somebody asks again and again."""
        self._deadline = self.world.clock.now + trio.lowlevel.current_statistics().seconds_to_next_deadline
        if not self._move():
            if self._polling.in_vain():
                raise RuntimeError(HINT)
            time.sleep(PATIENCE)  # a thread may be at work

    def _move(self) -> bool:
        clock = self.world.clock
        when = clock.next()
        if when is not None and when <= self._deadline:
            return clock.step(self._until)
        if self._deadline <= self._until:
            clock.advance_to(self._deadline)
            return True
        return False

    def _stuck(self) -> str:
        if self._deadline == math.inf and self.world.clock.next() is None:
            return "every task waits, and nothing is going to happen any more, neither in the world nor by a deadline"
        return "tasks still wait after all the virtual time they were given: raise give_up_after if that is meant"


def _threads_at_work() -> bool:
    return trio.to_thread.current_default_thread_limiter().borrowed_tokens > 0


def run_trio(
    world: World,
    main: Callable[[Unpack[Args]], Awaitable[Result]],
    *args: *Args,
    give_up_after: float = GIVE_UP_AFTER,
) -> Result:
    """`trio.run` in the time of ``world``. Raises `RuntimeError` when nothing can happen any more, or the virtual seconds
    ``give_up_after`` are over."""
    clock = WorldClock(world, give_up_after=give_up_after)
    with _drawn_from(world.seed):
        try:
            return trio.run(clock.around, main, *args, clock=clock, instruments=[clock])
        except trio.TrioInternalError:
            if clock.error is not None:  # a run that was ended here and now
                raise clock.error from None
            raise


@contextmanager
def _drawn_from(seed: int) -> Generator[None]:
    """The order in which trio takes tasks that are ready at the same moment comes from the seed."""
    scheduler: Any = importlib.import_module("trio._core._run")
    before = scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r = True, chance(seed, "trio")
    try:
        yield
    finally:
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r = before
