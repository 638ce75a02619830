"""Who waits how long: one large request among many small ones, at a limit that the small ones alone would use up.

Everybody asks as each library's documentation has it, on one event loop, by the real clock. What is not granted within the
time of the measurement is shown as that time.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.foreign import NOT_INSTALLED
from benchmarks.machine import version
from benchmarks.options import Options
from benchmarks.report import Row, Table
from benchmarks.timing import Figure
from sansio import Permit, RateLimiter, RateLimits, Wait

OURS = "ours: the head of the queue asks alone"
_LIMIT = 100
_LARGE = 60
_SMALL_CALLERS = 16
_DEMAND = 2.0
"""What the small ones want in all, as a part of the limit, spread evenly."""

_WINDOWS = 8
_POLL = 0.005

Take = Callable[[int], Awaitable[None]]


def measure(options: Options) -> list[Table]:
    """One table."""
    window = 0.1 if options.quick else 1.0
    horizon = window * _WINDOWS
    makes: dict[str, tuple[Callable[[float], Take], str | None]] = {
        OURS: (_ours, None),
        "aiolimiter": (_aiolimiter, "aiolimiter"),
        "pyrate-limiter": (_pyrate_limiter, "pyrate-limiter"),
        "limits, moving window": (_limits, "limits"),
    }
    column = "the large one waited, windows"
    title = f"One request of {_LARGE} among requests of 1, limit {_LIMIT}"
    table = Table("fairness", title, "windows", [column], OURS, ratios=False)
    table.notes.append(
        f"{_SMALL_CALLERS} callers ask for 1 again and again, {_DEMAND:.0%} of the limit in all, for at most {_WINDOWS}"
        f" windows of {window:g} s; the large one comes after one and a half"
    )
    table.notes.append("limits waits for nobody: its callers ask again every 5 ms")
    for name, (make, package) in makes.items():
        row = Row(name, ours=package is None, version=version(package) if package else None)
        table.rows.append(row)
        if package is not None and row.version is None:
            row.missing = NOT_INSTALLED
            continue
        row.figures = {column: Figure([asyncio.run(_contest(make(window), window, horizon)) / window])}
    table.ask_at_most(column, 2)
    return [table]


async def _contest(take: Take, window: float, horizon: float) -> float:
    """How many seconds the large one waited, once the small ones have used the limit up."""
    pause = window * _SMALL_CALLERS / (_LIMIT * _DEMAND)

    async def small(number: int) -> None:
        await asyncio.sleep(pause * number / _SMALL_CALLERS)
        while True:
            await take(1)
            await asyncio.sleep(pause)

    callers = [asyncio.create_task(small(number)) for number in range(_SMALL_CALLERS)]
    await asyncio.sleep(1.5 * window)
    asked = time.perf_counter()
    large = asyncio.create_task(_awaited(take(_LARGE)))
    await asyncio.wait([large], timeout=horizon - 1.5 * window)
    waited = time.perf_counter() - asked
    for task in (*callers, large):
        task.cancel()
    await asyncio.gather(*callers, large, return_exceptions=True)
    return waited


async def _awaited(work: Awaitable[None]) -> None:
    await work


def _ours(window: float) -> Take:
    limiter = RateLimiter(RateLimits(tokens_per_minute=_LIMIT, window=window, delivery_guard=0.0))
    queue: deque[tuple[int, asyncio.Future[None]]] = deque()

    def serve() -> None:
        loop = asyncio.get_running_loop()
        while queue:
            cost, waiter = queue[0]
            answer = limiter.reserve(1, cost, 0, loop.time())
            if isinstance(answer, Wait):
                if answer.until is not None:
                    loop.call_at(answer.until, serve)
                return
            assert isinstance(answer, Permit)
            limiter.settle(answer, None, loop.time())
            queue.popleft()
            if not waiter.done():
                waiter.set_result(None)

    async def take(cost: int) -> None:
        waiter = asyncio.get_running_loop().create_future()
        queue.append((cost, waiter))
        if len(queue) == 1:
            serve()
        await waiter

    return take


def _aiolimiter(window: float) -> Take:
    limiter: Any = importlib.import_module("aiolimiter").AsyncLimiter(_LIMIT, window)

    async def take(cost: int) -> None:
        await limiter.acquire(cost)

    return take


def _pyrate_limiter(window: float) -> Take:
    pyrate: Any = importlib.import_module("pyrate_limiter")
    limiter = pyrate.Limiter(pyrate.InMemoryBucket([pyrate.Rate(_LIMIT, int(window * 1000))]))

    async def take(cost: int) -> None:
        await limiter.try_acquire_async("benchmark", weight=cost)

    return take


def _limits(window: float) -> Take:
    limits: Any = importlib.import_module("limits")
    storage: Any = importlib.import_module("limits.aio.storage").MemoryStorage()
    limiter: Any = importlib.import_module("limits.aio.strategies").MovingWindowRateLimiter(storage)
    # Its windows are whole seconds; in a quick run it is only seen to work.
    item = limits.RateLimitItemPerSecond(_LIMIT, max(1, round(window)))

    async def take(cost: int) -> None:
        granted = await limiter.hit(item, "benchmark", cost=cost)
        while not granted:
            await asyncio.sleep(_POLL)
            granted = await limiter.hit(item, "benchmark", cost=cost)

    return take
