"""One client in its own process: rounds are ordered on standard input, a JSON line each, and answered with their cost.

    python -m benchmarks.worker <name in clients.CLIENTS> <url of the server>

It says its version first. A round is ``{"way", "at_once", "count", "begin", "length"}``; the answer is ``{"us": µs of CPU
a unit, "units"}``. A unit is a request (``unary``: ``count`` in each of ``at_once`` tasks) or an event (``burst``,
``paced``: ``at_once`` streams of ``count`` events). A paced round is measured from ``begin`` for ``length`` seconds, while
all its streams run: what requests cost is no part of it.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .clients import CLIENTS, Tally
from .machine import CLIENT_CORE, allow_many_files, pin, version
from .workload import UNARY_PATH

Order = dict[str, Any]
Answer = dict[str, float | None]
Work = Callable[[], Coroutine[Any, Any, None]]


def orders() -> Iterator[Order]:
    """The rounds, until standard input ends."""
    for line in sys.stdin:
        yield json.loads(line)


def report(answer: dict[str, Any]) -> None:
    """Answer a round."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def path_of(order: Order) -> str:
    """Where the server answers so."""
    return UNARY_PATH if order["way"] == "unary" else f"/{order['way']}/{order['count']}"


class Stopwatch:
    """CPU time and events since it was made."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._events = tally.events
        self._cpu = time.process_time()

    def answer(self, units: float | None = None) -> Answer:
        """The cost of a unit by now (``None``: there was none). Units are the events that came, unless they are given."""
        cpu = time.process_time() - self._cpu
        counted = self._tally.events - self._events if units is None else units
        return {"us": cpu / counted * 1e6 if counted else None, "units": counted}


def check(order: Order, tally: Tally) -> None:
    """Every event came: a client that loses some is not fast."""
    expected = order["at_once"] * order["count"]
    if not expected <= tally.events <= expected + 3 * order["at_once"] or (order["way"] == "unary" and tally.events):
        raise RuntimeError(f"{tally.events} events came, and {expected} were sent")


async def measure(
    caller: Any, order: Order, together: Callable[[Work, int], Awaitable[None]],
    sleep: Callable[[float], Awaitable[None]],
) -> Answer:  # fmt: skip
    """One round of an asynchronous caller. ``together`` runs so many at once, ``sleep`` sleeps."""
    path, at_once, count = path_of(order), order["at_once"], order["count"]
    await caller.prepare(path)
    tally = Tally()
    answer: Answer = {}

    async def requests() -> None:
        for _ in range(count):
            await caller.unary()

    async def stream() -> None:
        await caller.stream(path, tally)

    async def clock() -> None:
        await sleep(order["begin"])
        watch = Stopwatch(tally)
        await sleep(order["length"])
        answer.update(watch.answer())

    gc.collect()
    watch = Stopwatch(tally)
    if order["way"] == "unary":
        await together(requests, at_once)
        return watch.answer(at_once * count)
    if order["way"] == "burst":
        await together(stream, at_once)
        answer.update(watch.answer(at_once * count))
    else:
        tasks = iter([clock, *[stream] * at_once])
        await together(lambda: next(tasks)(), at_once + 1)
    check(order, tally)
    return answer


async def on_asyncio(caller: Any) -> None:
    """All rounds in one event loop."""

    async def together(work: Work, times: int) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(times):
                group.create_task(work())

    for order in orders():  # waits for the next one with the loop at rest: nothing is measured meanwhile
        report(await measure(caller, order, together, asyncio.sleep))
    await caller.close()


async def on_trio(caller: Any) -> None:
    """All rounds in one run of trio."""
    import trio

    async def together(work: Work, times: int) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(times):
                nursery.start_soon(work)

    for order in orders():
        report(await measure(caller, order, together, trio.sleep))
    await caller.close()


def in_threads(caller: Any) -> None:
    """All rounds in one pool of threads."""
    with ThreadPoolExecutor(1000) as pool:
        for order in orders():
            report(measure_threads(caller, order, pool))
        caller.close()


def measure_threads(caller: Any, order: Order, pool: ThreadPoolExecutor) -> Answer:
    """One round of a blocking caller."""
    path, at_once, count = path_of(order), order["at_once"], order["count"]
    caller.prepare(path)
    tallies = [Tally() for _ in range(at_once)]  # one a thread: adding to a shared one would lose events

    class Together:
        @property
        def events(self) -> float:
            return sum(tally.events for tally in tallies)

    def requests(_: Tally) -> None:
        for _number in range(count):
            caller.unary()

    gc.collect()
    together: Any = Together()
    watch = Stopwatch(together)
    unary = order["way"] == "unary"
    running = [pool.submit(requests, t) if unary else pool.submit(caller.stream, path, t) for t in tallies]
    answer: Answer = {}
    if order["way"] in ("paced", "staggered"):
        time.sleep(order["begin"])
        watch = Stopwatch(together)
        time.sleep(order["length"])
        answer = watch.answer()
    for future in running:
        future.result()
    if unary:
        return watch.answer(at_once * count)
    check(order, together)
    return answer or watch.answer(at_once * count)


def main() -> None:
    """Serve rounds as the client of this name."""
    name, url = sys.argv[1:]
    contender = next(contender for contender in CLIENTS if contender.name == name)
    pin(CLIENT_CORE)
    allow_many_files()
    module, _, attribute = contender.factory.partition(":")
    report({"version": version(contender.packages[0]) if contender.packages and not contender.ours else None})
    caller = getattr(importlib.import_module(f"benchmarks.clients.{module}"), attribute)(url)
    if contender.world == "threads":
        in_threads(caller)
    elif contender.world == "trio":
        import trio

        trio.run(on_trio, caller)
    else:
        asyncio.run(on_asyncio(caller))


if __name__ == "__main__":
    main()
