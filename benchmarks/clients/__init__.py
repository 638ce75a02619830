"""The clients that are measured, each in a process of its own.

Adding one is a class with the methods of `Caller`, and a line in `CLIENTS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Contender:
    """One row of the client table.

    name: what the table calls it. factory: ``module:attribute`` that makes its caller from a server's URL. world: asyncio,
    trio or threads. packages: the distributions it needs (the first one's version is shown). http: which of the server's
    ports. own_environment: it lives in one under the peers' folder, because it conflicts with another peer.
    """

    name: str
    factory: str
    packages: tuple[str, ...] = ()
    world: str = "asyncio"
    http: str = "http1"
    ours: bool = False
    own_environment: bool = False


class Tally:
    """How many events the streams of a round have received so far."""

    __slots__ = ("events",)

    def __init__(self) -> None:
        self.events: float = 0


class Caller(Protocol):
    """An asynchronous client of the benchmark server (the one with threads has the same methods without ``async``)."""

    async def prepare(self, path: str) -> None:
        """Get ready for requests under ``path``. Told before each round, whose clock does not run yet."""
        ...

    async def unary(self) -> None:
        """One request to ``/unary/0/v1/chat/completions``, its answer read and decoded as the client does."""
        ...

    async def stream(self, path: str, tally: Tally) -> None:
        """One stream from ``<path>/v1/chat/completions``, each event counted in ``tally`` as it comes."""
        ...

    async def close(self) -> None:
        """Let go of everything."""
        ...


OURS = "ours: asyncio"

CLIENTS: tuple[Contender, ...] = (
    Contender(OURS, "ours:OnAsyncio", world="asyncio", ours=True),
    Contender("ours: trio", "ours:OnTrio", ("trio",), world="trio", ours=True),
    Contender("ours: threads", "ours:OnThreads", world="threads", ours=True),
    Contender("ours: asyncio, HTTP/2", "ours:OverHttp2", ("h2",), http="http2", ours=True),
    Contender("ours: asyncio, over httpx", "ours:OverHttpx", ("httpx",), ours=True),
    Contender("ours: asyncio, over httpx2", "ours:OverHttpx2", ("httpx2",), ours=True),
    Contender("asyncio + httptools (floor)", "bare:Httptools", ("httptools",)),
    Contender("asyncio + h11", "bare:H11", ("h11",)),
    Contender("aiohttp", "general:Aiohttp", ("aiohttp",)),
    Contender("httpx", "general:Httpx", ("httpx",)),
    Contender("httpx2", "general:Httpx2", ("httpx2",)),
    Contender("openai", "sdks:OpenAI", ("openai",)),
    Contender("litellm", "sdks:LiteLLM", ("litellm",), own_environment=True),
)
