"""General HTTP clients, bare: the body's bytes are read and counted, nothing is decoded."""

from __future__ import annotations

import importlib
from typing import Any

from benchmarks.workload import EVENT_BYTES, REQUEST_BODY, UNARY_PATH

from . import Tally


class Aiohttp:
    """aiohttp."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session: Any = None

    async def prepare(self, path: str) -> None:
        """Make the session."""
        if self._session is None:
            import aiohttp

            self._session = aiohttp.ClientSession()

    async def close(self) -> None:
        """Close the session."""
        await self._session.close()

    async def unary(self) -> None:
        """One request, its body read."""
        async with self._session.post(f"{self._url}{UNARY_PATH}/v1/chat/completions", json=REQUEST_BODY) as response:
            await response.read()

    async def stream(self, path: str, tally: Tally) -> None:
        """One stream, its bytes counted."""
        body = REQUEST_BODY | {"stream": True}
        async with self._session.post(f"{self._url}{path}/v1/chat/completions", json=body) as response:
            async for piece in response.content.iter_any():
                tally.events += len(piece) / EVENT_BYTES


class Httpx:
    """httpx 0.28, its default client with a pool wide enough."""

    module = "httpx"

    def __init__(self, url: str) -> None:
        self._url = url
        self._client: Any = None

    async def prepare(self, path: str) -> None:
        """Make the client."""
        if self._client is None:
            self._client = importlib.import_module(self.module).AsyncClient()

    async def close(self) -> None:
        """Close the client."""
        await self._client.aclose()

    async def unary(self) -> None:
        """One request, its body read."""
        await self._client.post(f"{self._url}{UNARY_PATH}/v1/chat/completions", json=REQUEST_BODY)

    async def stream(self, path: str, tally: Tally) -> None:
        """One stream, its bytes counted."""
        body = REQUEST_BODY | {"stream": True}
        async with self._client.stream("POST", f"{self._url}{path}/v1/chat/completions", json=body) as response:
            async for piece in response.aiter_bytes():
                tally.events += len(piece) / EVENT_BYTES


class Httpx2(Httpx):
    """httpx2."""

    module = "httpx2"
