"""The store for an asyncio program: questions of one event loop, over a few connections that are kept."""

from __future__ import annotations

import asyncio
from typing import Final

from sansio.cluster.config import ClusterConfig
from sansio.cluster.store import StoreLost, StoreReply, StoreRequest

from .commands import command_for
from .connection import Dialler, StoreConnection
from .fetching import AddressSource
from .reasons import reason_for

MAX_CONNECTIONS: Final = 4
"""How many questions are under way at a time. Further ones wait in line, which counts as part of their time."""


class AsyncioStore:
    """Puts requests to the store that ``config`` names. For one event loop; any number of its tasks may ask at a time.

    It has no task and no thread of its own. Raises `ValueError` for a URL that cannot be used, naming ``cluster: url`` but
    nothing of its value, and where redis-py is not installed.
    """

    def __init__(self, config: ClusterConfig) -> None:
        self._source = AddressSource(config.url)
        self._dialler = Dialler()
        self._timeout = config.store_timeout
        self._idle: list[StoreConnection] = []
        self._places = asyncio.Semaphore(MAX_CONNECTIONS)
        self._under_way: set[asyncio.Timeout] = set()
        self._left = asyncio.Event()
        self._closed = False

    async def execute(self, request: StoreRequest) -> StoreReply:
        """The store's answer, within ``store_timeout`` seconds: `StoreLost` with a short reason where there is none.

        It raises nothing but the caller's own cancellation. After either, a request may or may not have been carried out.
        """
        if self._closed:
            return StoreLost("the store was closed")
        limit = asyncio.timeout(self._timeout)
        try:
            async with limit:
                self._under_way.add(limit)
                async with self._places:
                    return await self._exchange(request)
        except Exception as error:
            if limit.expired():
                return await self._lost("the store was closed" if self._closed else f"no answer in {self._timeout:g} s")
            return await self._lost(reason_for(error))
        finally:
            self._under_way.discard(limit)
            self._left.set()

    async def _exchange(self, request: StoreRequest) -> StoreReply:
        command = command_for(request)
        connection = await self._connection()
        answer = await connection.ask(command)
        self._idle.append(connection)
        return command.read(answer)

    async def _connection(self) -> StoreConnection:
        while self._idle:
            connection = self._idle.pop()
            if await connection.is_fit():
                return connection
        return await self._dialler.dial(await self._source.address())

    async def _lost(self, reason: str) -> StoreLost:
        """What ended one connection has most likely ended the others: the next question begins anew."""
        while self._idle:
            await self._idle.pop().hang_up()
        return StoreLost(reason)

    async def aclose(self) -> None:
        """Break off what is under way, which is then answered with `StoreLost`, and close every connection. Idempotent."""
        self._closed = True
        for limit in self._under_way:
            if not limit.expired():  # else it is broken off already
                limit.reschedule(asyncio.get_running_loop().time())
        while self._under_way:
            self._left.clear()
            await self._left.wait()
        while self._idle:
            await self._idle.pop().hang_up()
        await asyncio.sleep(0)  # the turn of the loop that closes the sockets
