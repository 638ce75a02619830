"""The mock provider in a thread with an event loop of its own: for tests and demos that have none, or another kind."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

from sansio.simulation import MockProvider

from .server import MockServer, serve

T = TypeVar("T")


class ThreadedMockServer:
    """A mock provider served by another thread. Made by `serve_in_thread`.

    Reading the provider's counters and its ``log`` from here is safe. Everything else goes through `call`.
    """

    def __init__(self, server: MockServer, loop: asyncio.AbstractEventLoop) -> None:
        self.provider = server.provider
        self.url = server.url
        self.endpoint = server.endpoint
        self.port = server.port
        self._loop = loop

    def call(self, function: Callable[[MockProvider], T]) -> T:
        """Run ``function(provider)`` in the server's thread, between two events, and return (or raise) what it does.

        Raises `RuntimeError` once the server has ended.
        """
        outcome: Future[T] = Future()

        def run() -> None:
            try:
                outcome.set_result(function(self.provider))
            except BaseException as error:
                outcome.set_exception(error)

        self._loop.call_soon_threadsafe(run)
        return outcome.result()


@contextmanager
def serve_in_thread(
    provider: MockProvider,
    host: str = "127.0.0.1",
    port: int = 0,
    ssl_context: ssl.SSLContext | None = None,
    *,
    http2: bool | None = None,
) -> Generator[ThreadedMockServer, None, None]:
    """Serve ``provider`` while the ``with`` block runs; on leaving, all connections are aborted and the thread is joined.

    The arguments, and what is raised, are those of `serve`.
    """
    started: Future[tuple[MockServer, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def run() -> None:
        try:
            server = await serve(provider, host, port, ssl_context, http2=http2)
        except BaseException as error:
            started.set_exception(error)
            return
        async with server:
            stop = asyncio.Event()
            started.set_result((server, asyncio.get_running_loop(), stop))
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="mock-provider")
    thread.start()
    try:
        server, loop, stop = started.result()
    except BaseException:
        thread.join()
        raise
    try:
        yield ThreadedMockServer(server, loop)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
