"""A crowd in one process: thousands of open streams, or of waiting requests. What they take, and what they do while silent.

    python -m benchmarks.crowd streams|waiting <way: http1|http2> <url of the server> <how many> <seconds of silence>

Prints one line of JSON. A process of its own, so that its memory is its own; the engine is warm before the first measure.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

from drivers.asyncio_driver import RemoteEngine, build_client
from sansio import EngineClosed, Http2, PoolConfig

from .clients.ours import BATCH, deployment
from .machine import CLIENT_CORE, allow_many_files, pin, resident_bytes

EVENTS = 3
"""How many events a stream has: one at once, the others when the server is told to go on."""

OPENING = 250
"""How many streams open at a time: ten thousand connects in one breath would outrun the loop, and their own timeout."""

PATIENCE = 120.0
"""Seconds after which a crowd that has not gathered is given up."""

RUNNING = 10
"""How many run while the others wait."""


def usage() -> tuple[float, int]:
    """CPU seconds of this process so far, and how often it woke up from waiting."""
    return time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw


async def until(reached: Callable[[], bool]) -> None:
    """Look again and again, since nothing measured here gives notice."""
    looks = 0
    while not reached():
        looks += 1
        await asyncio.sleep(0.01)
        if looks > PATIENCE / 0.01:
            raise TimeoutError("the crowd did not gather")


async def silence(seconds: float) -> dict[str, float]:
    """What this process does while nothing happens."""
    gc.collect()
    cpu, wakes = usage()
    await asyncio.sleep(seconds)
    later, more = usage()
    return {"cpu_ms_per_second": (later - cpu) / seconds * 1000, "wakes_per_second": (more - wakes) / seconds}


def make_engine(way: str, url: str, **serving: int) -> RemoteEngine:
    """An engine over this version of HTTP."""
    pool = PoolConfig(http2=Http2.ONLY) if way == "http2" else PoolConfig()
    return RemoteEngine(deployment(url, **serving), client=build_client(pool=pool))


async def release(way: str, url: str) -> None:
    """Tell the server to go on."""
    async with make_engine(way, f"{url}/release/0") as other:
        await other.generate(BATCH)


async def warm_up(engine: RemoteEngine, way: str, url: str) -> None:
    """One stream from its beginning to its end."""
    async with engine.stream(BATCH) as chunks:
        await anext(chunks)
        await release(way, url)
        async for _ in chunks:
            pass


async def streams(way: str, url: str, count: int, seconds: float) -> dict[str, Any]:
    """So many streams, open at the same time, all of which end well."""
    async with make_engine(way, f"{url}/silent/{EVENTS}", max_concurrent=count, queue_capacity=count) as engine:
        await warm_up(engine, way, url)
        gc.collect()
        before = resident_bytes()
        opened, complete = 0, 0
        opening_at_once = asyncio.Semaphore(OPENING)

        async def one() -> None:
            nonlocal opened, complete
            async with engine.stream(BATCH) as chunks:
                async with opening_at_once:
                    await anext(chunks)
                opened += 1
                seen = 1
                async for chunk in chunks:
                    seen += bool(chunk.text_delta)
            complete += seen == EVENTS

        start = usage()[0]
        async with asyncio.TaskGroup() as group:  # one that fails ends the measure
            for _ in range(count):
                group.create_task(one())
            await until(lambda: opened == count)
            opening = usage()[0] - start
            quiet = await silence(seconds)
            memory = (resident_bytes() - before) / count
            await release(way, url)
    return quiet | {"kb_each": memory / 1024, "us_each_to_open": opening / count * 1e6, "complete": complete}


async def waiting(way: str, url: str, count: int, seconds: float) -> dict[str, Any]:
    """So many requests in the queue of one engine, all of which end with it."""
    ended = 0
    engine = make_engine(way, f"{url}/silent/{EVENTS}", max_concurrent=RUNNING, queue_capacity=count + RUNNING)
    async with engine:
        await warm_up(engine, way, url)
        running = [asyncio.create_task(_run_into_the_end(engine)) for _ in range(RUNNING)]
        await until(lambda: engine.metrics().in_flight == RUNNING)
        gc.collect()
        before = resident_bytes()
        tasks = [asyncio.create_task(_run_into_the_end(engine)) for _ in range(count)]
        start = usage()[0]
        await until(lambda: engine.metrics().queued == count)
        opening = usage()[0] - start
        quiet = await silence(seconds)
        memory = (resident_bytes() - before) / count
    for task in [*running, *tasks]:
        ended += await task
    complete = ended - RUNNING
    return quiet | {"kb_each": memory / 1024, "us_each_to_open": opening / count * 1e6, "complete": complete}


async def _run_into_the_end(engine: RemoteEngine) -> bool:
    """One stream that is still there when its engine closes. Returns whether it was told so."""
    try:
        async with engine.stream(BATCH) as chunks:
            async for _ in chunks:
                pass
    except Exception as error:
        cause = error.__cause__ or getattr(error, "cause", None)
        return isinstance(error, EngineClosed) or isinstance(cause, EngineClosed)
    return False


def main() -> None:
    """Measure one crowd."""
    kind, way, url, count, seconds = sys.argv[1:]
    pin(CLIENT_CORE)
    allow_many_files()
    measure = streams if kind == "streams" else waiting
    sys.stdout.write(json.dumps(asyncio.run(measure(way, url, int(count), float(seconds)))) + "\n")


if __name__ == "__main__":
    main()
