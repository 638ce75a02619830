"""The demo through each driver: the same users asking the same prompts, in threads, in asyncio tasks, in trio tasks."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import trio

from drivers import asyncio_driver, sync_driver, trio_driver
from sansio import EngineClosed, ExecuteBatch, InferenceError, TokenChunk

from .demo_scene import USERS, Prompt, Vault, make_deployment
from .demo_tally import Tally


def run_sync(endpoint: str, vault: Vault, tally: Tally) -> None:
    """Threads. Returns once the engine is closed and every user's thread has ended."""
    engine = sync_driver.RemoteEngine(make_deployment(endpoint, vault.secret()), on_notice=tally.notice)
    tally.watch(engine.metrics)
    users = [
        threading.Thread(target=_use, args=(engine, prompts, tally), name=f"demo-user-{number}")
        for number, prompts in enumerate(_shares(tally.prompts))
    ]
    with engine:
        for user in users:
            user.start()
        try:
            for user in users:
                user.join()
        finally:  # of an interrupted demo: closing makes the users' requests fail, and them leave
            engine.close()
    for user in users:
        user.join()


def _use(engine: sync_driver.RemoteEngine, prompts: Sequence[Prompt], tally: Tally) -> None:
    for prompt in prompts:
        asking = True
        while asking:
            begun, pieces = time.monotonic(), list[str]()
            try:
                with engine.stream(prompt.batch()) as chunks:
                    for chunk in chunks:
                        _hear(chunk, pieces, begun, tally)
            except EngineClosed:  # the demo was interrupted
                return
            except InferenceError as error:
                asking = tally.failed_with(prompt, error)
            else:
                asking = False
                tally.answered(prompt, "".join(pieces))


def run_asyncio(endpoint: str, vault: Vault, tally: Tally) -> None:
    """Tasks of asyncio."""

    async def act() -> None:
        deployment = make_deployment(endpoint, vault.async_secret(asyncio.sleep))
        async with asyncio_driver.RemoteEngine(deployment, on_notice=tally.notice) as engine:
            tally.watch(engine.metrics)
            async with asyncio.TaskGroup() as users:
                for prompts in _shares(tally.prompts):
                    users.create_task(_use_async(engine, prompts, tally))
        left = len(asyncio.all_tasks()) - 1
        if left:
            tally.problems.append(f"left behind: {left} asyncio tasks")

    asyncio.run(act())


def run_trio(endpoint: str, vault: Vault, tally: Tally) -> None:
    """Tasks of trio."""

    async def act() -> None:
        before = trio.lowlevel.current_statistics().tasks_living
        deployment = make_deployment(endpoint, vault.async_secret(trio.sleep))
        async with trio_driver.RemoteEngine(deployment, on_notice=tally.notice) as engine:
            tally.watch(engine.metrics)
            async with trio.open_nursery() as users:
                for prompts in _shares(tally.prompts):
                    users.start_soon(_use_async, engine, prompts, tally)
        left = trio.lowlevel.current_statistics().tasks_living - before
        if left:
            tally.problems.append(f"left behind: {left} trio tasks")

    try:
        trio.run(act)
    except* KeyboardInterrupt:
        raise KeyboardInterrupt from None


class _AsyncEngine(Protocol):
    """What the asyncio and the trio engine have in common."""

    def stream(self, batch: ExecuteBatch) -> AbstractAsyncContextManager[AsyncIterator[TokenChunk]]: ...


async def _use_async(engine: _AsyncEngine, prompts: Sequence[Prompt], tally: Tally) -> None:
    for prompt in prompts:
        asking = True
        while asking:
            begun, pieces = time.monotonic(), list[str]()
            try:
                async with engine.stream(prompt.batch()) as chunks:
                    async for chunk in chunks:
                        _hear(chunk, pieces, begun, tally)
            except EngineClosed:  # the demo was interrupted
                return
            except InferenceError as error:
                asking = tally.failed_with(prompt, error)
            else:
                asking = False
                tally.answered(prompt, "".join(pieces))


def _hear(chunk: TokenChunk, pieces: list[str], begun: float, tally: Tally) -> None:
    if chunk.text_delta:
        if not pieces:
            tally.first_token(time.monotonic() - begun)
        pieces.append(chunk.text_delta)


def _shares(prompts: Sequence[Prompt]) -> list[Sequence[Prompt]]:
    """The prompts of each user."""
    return [prompts[user::USERS] for user in range(min(USERS, len(prompts)))]
