"""An asyncio event loop whose time is a world's.

Nothing sleeps. When no task can go on, the loop moves the world's clock to whatever comes next: one of its own timers, which
stand in the world's agenda like everything else, or an event of the world. So `asyncio.sleep`, timeouts, anyio and the
driver all live in virtual time, at the speed of the processor.

Code that asks again and again (`while not task.done(): await asyncio.sleep(0)`) never lets the loop come to rest. It is
given so many turns (`Polling`), and then the world moves on all the same, a step at a time.

What runs in the loop's executor takes no virtual time: while it runs, the world stands still. Other threads, and sockets,
are not of this world: the loop hears of them between two events, which are not delayed for them.
"""

from __future__ import annotations

import asyncio
import contextvars
import selectors
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, Final, TypeVar, TypeVarTuple, Unpack

from sansio.simulation.world.clock import VirtualClock
from sansio.simulation.world.world import GIVE_UP_AFTER, World

from .polling import HINT, Polling

Result = TypeVar("Result")
Args = TypeVarTuple("Args")

PATIENCE: Final = 1.0
"""Real seconds for which a loop that has nothing to come waits all the same: a thread may be at work."""


def event_loop(world: World, *, give_up_after: float = GIVE_UP_AFTER) -> VirtualEventLoop:
    """A new event loop in the time of ``world``: ``asyncio.Runner(loop_factory=lambda: event_loop(world))``."""
    return VirtualEventLoop(world.clock, give_up_after=give_up_after)


class VirtualEventLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time. give_up_after: virtual seconds that it may go on for.

    Running it raises `RuntimeError` when nothing can happen any more, or that time is over.
    """

    def __init__(self, clock: VirtualClock, *, give_up_after: float = GIVE_UP_AFTER) -> None:
        self.clock = clock
        self._moments = _Moments(clock, clock.now + give_up_after)
        super().__init__(self._moments)

    def time(self) -> float:
        """The world's clock."""
        return self.clock.now

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Args]], object],
        *args: *Args,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """A timer: it stands in the world's agenda."""
        return _Timer(self, when, callback, args, context)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Args]], Result], *args: *Args
    ) -> asyncio.Future[Result]:
        """A thread does it, and the world stands still meanwhile."""
        future = super().run_in_executor(executor, func, *args)
        self._moments.threads += 1
        future.add_done_callback(self._moments.thread_ended)
        return future

    async def shutdown_default_executor(self, *args: Any) -> None:
        """Ends its threads, which takes real time only."""
        self._moments.threads += 1
        try:
            await super().shutdown_default_executor(*args)
        finally:
            self._moments.thread_ended()


class _Timer(asyncio.TimerHandle):
    """A timer in the world's agenda. When it is due, the loop runs it in its turn."""

    def __init__(
        self,
        loop: VirtualEventLoop,
        when: float,
        callback: Callable[..., object],
        args: Sequence[Any],
        context: contextvars.Context | None,
    ) -> None:
        super().__init__(when, callback, args, loop, context)
        self._virtual_loop = loop
        self._entry = loop.clock.call_at(when, self._due)

    def cancel(self) -> None:
        """Let it not happen."""
        self._entry.cancel()
        super().cancel()

    def _due(self) -> None:
        if not self._virtual_loop.is_closed():
            self._virtual_loop.call_soon(self._happen)

    def _happen(self) -> None:
        if not self.cancelled():
            self._run()


class _Moments(selectors.DefaultSelector):
    """Where a loop would sleep: the world moves on instead."""

    def __init__(self, clock: VirtualClock, until: float) -> None:
        super().__init__()
        self.threads = 0
        """How many are at work for the loop's executor."""
        self._clock = clock
        self._until = until
        self._polling = Polling(clock)

    def thread_ended(self, _: object = None) -> None:
        """One less."""
        self.threads -= 1

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready. The loop asks without a timeout when no task can go on: its timers are the world's."""
        if timeout is not None:
            if not self.threads and self._polling.turned() and not self._clock.step(self._until):
                if self._polling.in_vain():
                    raise RuntimeError(HINT)
                return super().select(PATIENCE)
            return super().select(timeout)
        self._polling.rested()
        ready = super().select(None if self.threads else 0)
        if not ready and not self._clock.step(self._until):
            ready = super().select(PATIENCE)
            if not ready:
                raise RuntimeError(self._stuck())
        return ready

    def _stuck(self) -> str:
        if self._clock.next() is None:
            return "every task waits, and nothing is going to happen any more, neither in the world nor by a timer"
        return "tasks still wait after all the virtual time they were given: raise give_up_after if that is meant"
