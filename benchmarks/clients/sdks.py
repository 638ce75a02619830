"""The official SDK and the popular layer above it, as their pages show them. Retries off: nothing fails here."""

from __future__ import annotations

import importlib
import os
from typing import Any

from benchmarks.workload import MESSAGES, MODEL, UNARY_PATH

from . import Tally


class OpenAI:
    """The openai SDK. A client for each base URL, since the path is part of it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._clients: dict[str, Any] = {}

    async def prepare(self, path: str) -> None:
        """Make the client of this path."""
        if path not in self._clients:
            import openai

            self._clients[path] = openai.AsyncOpenAI(base_url=f"{self._url}{path}/v1", api_key="k", max_retries=0)

    async def close(self) -> None:
        """Close the clients."""
        for client in self._clients.values():
            await client.close()

    async def unary(self) -> None:
        """One completion."""
        await self._clients[UNARY_PATH].chat.completions.create(model=MODEL, messages=MESSAGES)

    async def stream(self, path: str, tally: Tally) -> None:
        """One streamed completion."""
        chunks = await self._clients[path].chat.completions.create(
            model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        async for _ in chunks:
            tally.events += 1


class LiteLLM:
    """litellm."""

    def __init__(self, url: str) -> None:
        self._url = url
        os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it asks the network while being imported

    async def prepare(self, path: str) -> None:
        """Import it."""
        litellm: Any = importlib.import_module("litellm")
        litellm.telemetry = False
        litellm.suppress_debug_info = True
        self._litellm: Any = litellm

    async def close(self) -> None:
        """Nothing to do."""

    async def _complete(self, path: str, **more: Any) -> Any:
        return await self._litellm.acompletion(
            model=f"openai/{MODEL}", messages=MESSAGES, api_base=f"{self._url}{path}/v1", api_key="k", num_retries=0, **more
        )

    async def unary(self) -> None:
        """One completion."""
        await self._complete(UNARY_PATH)

    async def stream(self, path: str, tally: Tally) -> None:
        """One streamed completion."""
        chunks = await self._complete(path, stream=True, stream_options={"include_usage": True})
        async for _ in chunks:
            tally.events += 1
