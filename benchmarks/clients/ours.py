"""Our own drivers with everything on: queue, slots, breaker, limiter in three dimensions, retry, session, codec, cost.

The path is part of a deployment's endpoint, so each has an engine of its own.
"""

from __future__ import annotations

import contextlib
from contextlib import AsyncExitStack, ExitStack
from typing import Any

from benchmarks.workload import MODEL, PROMPT, UNARY_PATH
from sansio import Deployment, ExecuteBatch, Message, Secret

from . import Tally

BATCH = ExecuteBatch(messages=[Message(role="user", content=PROMPT)])


def deployment(url: str, *, max_concurrent: int = 50, queue_capacity: int = 1024) -> Deployment:
    """A deployment with limits that count everything and stop nothing."""
    limits = {"requests_per_minute": 10**8, "tokens_per_minute": 10**11, "concurrent_requests": 10**6}
    return Deployment(
        name="benchmark",
        model=MODEL,
        runtime_config={"endpoint": f"{url}/v1", "api_key": Secret.inline("k"), "rate_limits": limits},
        serving={"max_concurrent": max_concurrent, "queue_capacity": queue_capacity},
    )


class OnAsyncio:
    """The asyncio driver over its own HTTP/1.1."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._engines: dict[str, Any] = {}
        self._stack = AsyncExitStack()

    def make_engine(self, url: str) -> Any:
        """An engine that is not entered yet."""
        from drivers.asyncio_driver import RemoteEngine

        return RemoteEngine(deployment(url))

    async def prepare(self, path: str) -> None:
        """Enter the engine of this path."""
        if path not in self._engines:
            self._engines[path] = await self._stack.enter_async_context(self.make_engine(self._url + path))

    async def close(self) -> None:
        """Close the engines."""
        await self._stack.aclose()

    async def unary(self) -> None:
        """One answer."""
        await self._engines[UNARY_PATH].generate(BATCH)

    async def stream(self, path: str, tally: Tally) -> None:
        """One streamed answer."""
        async with self._engines[path].stream(BATCH) as chunks:
            async for _ in chunks:
                tally.events += 1


class OnTrio(OnAsyncio):
    """The trio driver over its own HTTP/1.1."""

    def make_engine(self, url: str) -> Any:
        """An engine that is not entered yet."""
        from drivers.trio_driver import RemoteEngine

        return RemoteEngine(deployment(url))


class OverHttp2(OnAsyncio):
    """The asyncio driver over its own HTTP/2."""

    def make_engine(self, url: str) -> Any:
        """An engine that is not entered yet."""
        from drivers.asyncio_driver import RemoteEngine, build_client
        from sansio import Http2, PoolConfig

        return RemoteEngine(deployment(url), client=build_client(pool=PoolConfig(http2=Http2.ONLY)))


class OverHttpx(OnAsyncio):
    """The asyncio driver over httpx."""

    client = "httpx"

    def make_engine(self, url: str) -> Any:
        """An engine that is not entered yet."""
        from drivers.asyncio_driver import RemoteEngine, build_client

        client: Any = build_client
        return RemoteEngine(deployment(url), client=client(self.client))


class OverHttpx2(OverHttpx):
    """The asyncio driver over httpx2."""

    client = "httpx2"


class OnThreads:
    """The blocking driver over its own HTTP/1.1."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._engines: dict[str, Any] = {}
        self._stack = ExitStack()

    def prepare(self, path: str) -> None:
        """Enter the engine of this path."""
        from drivers.sync_driver import RemoteEngine

        if path not in self._engines:
            self._engines[path] = self._stack.enter_context(RemoteEngine(deployment(self._url + path)))

    def close(self) -> None:
        """Close the engines."""
        with contextlib.closing(self._stack):
            self._engines.clear()

    def unary(self) -> None:
        """One answer."""
        self._engines[UNARY_PATH].generate(BATCH)

    def stream(self, path: str, tally: Tally) -> None:
        """One streamed answer."""
        with self._engines[path].stream(BATCH) as chunks:
            for _ in chunks:
                tally.events += 1
