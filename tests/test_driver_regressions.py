"""Defects that the drivers once had, each with the smallest thing that showed it."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import anyio
import pytest

from drivers import asyncio_driver, sync_driver
from drivers.mock_provider import serve_in_thread
from sansio import (
    Close,
    Credential,
    Deployment,
    ExecuteBatch,
    Message,
    RebuildSession,
    RefreshSession,
    RemoteEngineCore,
    Secret,
    SessionReport,
    Unauthorized,
)
from sansio.http import parse_origin
from sansio.simulation import MockProvider

KEY = "sk-regressions-0123456789"
GENEROUS = 20.0
"""Seconds after which a wait that should have ended has failed."""


def deployment(url: str, key: Secret | None = None, **runtime: Any) -> Deployment:
    config = {"endpoint": f"{url}/v1", "api_key": key or Secret.inline(KEY), "retry": {"max_retries": 0}, **runtime}
    return Deployment(name="chat", model="gpt-4o", runtime="openai", runtime_config=config)


def batch(text: str = "hello") -> ExecuteBatch:
    return ExecuteBatch(messages=[Message(role="user", content=text)])


@contextmanager
def provider() -> Iterator[str]:
    """A provider that answers."""
    with serve_in_thread(MockProvider(keys=[KEY])) as server:
        yield server.url


@contextmanager
def mute(scheme: str = "http") -> Iterator[str]:
    """A server whose kernel takes the connection, and who never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def full() -> Iterator[str]:
    """A server whose backlog is full, so that no connection ever stands."""
    with ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):
            filler = sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


# ---- the core, as the drivers meet it ----------------------------------------------------------------------------------


def test_nothing_comes_due_in_a_closed_engine_and_no_credential_is_fetched_for_it() -> None:
    core = RemoteEngineCore(deployment("http://127.0.0.1:1"), rng=random.Random(1))
    (order,) = [effect for effect in core.handle(RebuildSession(None), 0.0, 1000.0) if isinstance(effect, RefreshSession)]
    core.handle(SessionReport(order.session, order.refresh_id, Credential.from_text(KEY, 1100.0)), 0.0, 1000.0)
    assert core.deadline() is not None
    core.handle(Close(), 1.0, 1001.0)
    assert core.deadline() is None
    assert not any(isinstance(effect, RefreshSession) for effect in core.handle(RebuildSession(None), 99.0, 1099.0))
    assert core.deadline() is None


def test_a_stream_iterated_without_its_with_block_is_refused_and_does_not_hang() -> None:
    with provider() as url, sync_driver.RemoteEngine(deployment(url)) as engine:
        with pytest.raises(RuntimeError, match="with"):
            next(engine.stream(batch()))
        assert engine.metrics().submitted == 0


# ---- asyncio -----------------------------------------------------------------------------------------------------------


def test_asyncio_closes_its_connections_also_in_a_scope_that_is_cancelled_again_and_again() -> None:
    async def main(url: str) -> None:
        with anyio.CancelScope() as scope:
            async with asyncio_driver.RemoteEngine(deployment(url)) as engine:
                await engine.generate(batch())
                connection = engine.client.reuse(parse_origin(url))
                assert connection is not None
                engine.client.give_back(connection)
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert connection is not None and not connection.is_fit()

    with provider() as url:
        asyncio.run(main(url))


def test_asyncio_takes_a_second_abort_of_a_connect_that_has_not_heard_the_first() -> None:
    async def main(url: str) -> None:
        connection = asyncio_driver.client.Connection(parse_origin(url))
        opening = asyncio.create_task(connection.open(None))
        await asyncio.sleep(0)
        while not opening.done():
            connection.interrupt()
            await asyncio.sleep(0)
        assert isinstance(opening.exception(), TimeoutError)

    with full() as url:
        asyncio.run(main(url))


def test_asyncio_reports_a_callable_that_raises_stop_iteration() -> None:
    async def main(url: str) -> None:
        keys: Iterator[str] = iter(())
        async with asyncio_driver.RemoteEngine(deployment(url, Secret.from_callable(lambda: next(keys)))) as engine:
            with pytest.raises(Unauthorized):
                await asyncio.wait_for(engine.generate(batch()), GENEROUS)

    with mute() as url:
        asyncio.run(main(url))


def test_an_engine_of_one_event_loop_refuses_another() -> None:
    async def elsewhere(engine: asyncio_driver.RemoteEngine) -> None:
        with pytest.raises(RuntimeError, match="another event loop"):
            await engine.generate(batch())

    async def main(url: str) -> None:
        async with asyncio_driver.RemoteEngine(deployment(url)) as engine:
            await asyncio.to_thread(asyncio.run, elsewhere(engine))

    with mute() as url:
        asyncio.run(main(url))
