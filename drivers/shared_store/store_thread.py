"""The store for a program of threads, or of another event loop than asyncio's: a thread that asks and hands over answers.

The thread runs an event loop of its own with an `AsyncioStore`, so a question is bounded as a whole (the look-up of a name,
the connect, every byte of the answer), several are under way at a time, and closing breaks them off from outside: none of it
can be had of a thread that is blocked on a socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from sansio.cluster.config import ClusterConfig
from sansio.cluster.store import StoreReply, StoreRequest

from .asyncio_store import AsyncioStore
from .fetching import in_thread

Token = TypeVar("Token")

WIND_UP: Final = 1.0
"""Seconds that closing waits for the thread to end, beyond those it was told to."""


class StoreThread(Generic[Token]):
    """Puts requests to the store that ``config`` names, and hands each answer to ``deliver`` with its question's token.

    The thread begins with the first question. deliver: called from it, one answer at a time; it must not raise, and while
    it waits nothing else is delivered. Raises `ValueError` as `AsyncioStore`.
    """

    def __init__(self, config: ClusterConfig, deliver: Callable[[Token, StoreReply], None]) -> None:
        self._store = AsyncioStore(config)
        self._deliver = deliver
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._silent = False
        self._questions: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()
        self._patience = 0.0

    def ask(self, token: Token, request: StoreRequest) -> None:
        """Put a question, and return at once. Any thread may; `deliver` may as well. After `close` it does nothing."""
        with self._lock:
            if self._closed:
                return
            if self._loop is None:
                loop = _Loop()
                thread = threading.Thread(target=self._run, args=(loop,), name="shared-store", daemon=True)
                thread.start()
                self._loop, self._thread = loop, thread
            self._loop.call_soon_threadsafe(self._begin, token, request)

    def close(self, timeout: float = 0.0) -> None:
        """Give what is under way ``timeout`` seconds to be answered, break off the rest, and end the thread. Idempotent.

        Nothing is delivered after it returns. Not to be called while holding what `deliver` waits for: it would wait for its
        ``timeout`` and a second more, and then leave the thread to end by itself.
        """
        with self._lock:
            self._closed = True
            loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        with contextlib.suppress(RuntimeError):  # it was closed before
            loop.call_soon_threadsafe(self._leave, timeout)
        if thread is not threading.current_thread():
            thread.join(min(timeout + WIND_UP, threading.TIMEOUT_MAX))
        self._silent = True

    # ---- in the thread ----------------------------------------------------------------------------------------------

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            loop.run_until_complete(self._serve())
        finally:
            loop.close()

    def _begin(self, token: Token, request: StoreRequest) -> None:
        question = asyncio.get_running_loop().create_task(self._answer(token, request))
        self._questions.add(question)
        question.add_done_callback(self._questions.discard)

    async def _answer(self, token: Token, request: StoreRequest) -> None:
        reply = await self._store.execute(request)
        if not self._silent:
            self._deliver(token, reply)

    def _leave(self, timeout: float) -> None:
        self._patience = timeout
        self._closing.set()

    async def _serve(self) -> None:
        await self._closing.wait()
        if self._questions:
            await asyncio.wait(self._questions, timeout=self._patience)
        for question in self._questions:
            question.cancel()
        await asyncio.gather(*self._questions, return_exceptions=True)
        await self._store.aclose()


class _Loop(asyncio.SelectorEventLoop):
    """An event loop whose look-ups of names can be left behind: threads of an executor would be waited for at exit."""

    async def getaddrinfo(self, host: Any, port: Any, **options: int) -> list[Any]:
        """What the system knows of a name."""
        return await in_thread(lambda: socket.getaddrinfo(host, port, **options))
