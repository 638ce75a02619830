"""`RemoteEngine` for asyncio: one `call_at` timer, callers that drive their own requests.

Nothing is decided here. The engine is told a fact, and what that asks for is done at once: on an event loop the critical
section is whatever does not await. A request runs in its caller's task, step by step as its `RemoteWorker` says.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Unpack

from drivers.credentials import as_credential, credential_error, read_secret, reads_at_once
from drivers.front import AsyncClient as Client
from drivers.front import AsyncTokenStream, EngineFront, RequestOptions
from drivers.front.engine_front import Deployments
from sansio import (
    AskStore,
    Close,
    ClusterConfig,
    Credential,
    Drain,
    Event,
    ExecuteBatch,
    Notice,
    RefreshSession,
    RemoteWorker,
    Secret,
    SessionReport,
    StoreReport,
    Tokens,
)
from sansio.cluster.store import StoreLost, StoreReply
from sansio.deployment import Cluster

from .client import build_choice

if TYPE_CHECKING:
    from drivers.shared_store.asyncio_store import AsyncioStore


class RemoteEngine(EngineFront["TokenStream", Client]):
    """Calls the providers of its deployments. An async context manager; any number of tasks of its loop may use it inside.

    deployments: one, several, or a `RemoteEngineConfig`. on_notice: called with each `Notice`, on the loop. client: who
    moves the bytes, closed with the engine; by default the
    native one, or a general one where the environment names a proxy. cluster: where several processes share their limits,
    the store they do it through: its URL, or a `ClusterConfig`.
    Raises `ValueError` for a configuration that cannot work, such as a missing key.
    """

    def __init__(
        self,
        deployments: Deployments,
        *,
        on_notice: Callable[[Notice], None] | None = None,
        client: Client | None = None,
        cluster: Cluster | None = None,
    ) -> None:
        super().__init__(deployments, client, build_choice, on_notice, cluster=cluster)
        self._store = None if self.config.shared is None else _store_for(self.config.shared)
        self._asks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._drained = asyncio.Event()
        self._refreshes: set[asyncio.Task[None]] = set()

    # ---- life -------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> RemoteEngine:
        if self._loop is not None:
            raise RuntimeError("an engine is entered once; make a new one")
        self._loop = asyncio.get_running_loop()
        self._begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End everything: requests of others fail with `EngineClosed`; tasks, connections and timers are gone after it.

        A cancellation that comes meanwhile (anyio's comes again and again) is raised at the end, not half-way.
        """
        if not self._running:
            return
        closing = asyncio.get_running_loop().create_task(self._close())
        cancelled: asyncio.CancelledError | None = None
        while not closing.done():
            try:
                await asyncio.wait([closing])
            except asyncio.CancelledError as error:
                cancelled = error
        closing.result()
        if cancelled is not None:
            raise cancelled

    async def _close(self) -> None:
        await self._end(Close())
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
        for task in self._refreshes:
            task.cancel()
        await asyncio.gather(*self._refreshes, *self._asks, return_exceptions=True)
        if self._store is not None:
            await self._store.aclose()
        await self.client.aclose()

    async def drain(self) -> None:
        """Accept nothing new, and return when everything accepted is over."""
        await self._end(Drain())

    async def _end(self, event: Event) -> None:
        self._drained.clear()
        self.tell(event)
        await self._drained.wait()

    # ---- requests ---------------------------------------------------------------------------------------------------

    def stream(self, batch: ExecuteBatch, **options: Unpack[RequestOptions]) -> TokenStream:
        """A streamed answer: an async context manager that gives an async iterator of `TokenChunk`. The first item asked
        for submits it.

        Options are those of `RequestOptions`. Iterating raises `InferenceError`s; this call itself `ValueError` for what
        cannot be asked.
        """
        return TokenStream(self, self.worker_for(batch, options, stream=True))

    async def generate(self, batch: ExecuteBatch, **options: Unpack[RequestOptions]) -> Tokens:
        """A unary answer. Options and errors as for `stream`."""
        return Tokens.from_chunks(await TokenStream(self, self.worker_for(batch, options, stream=False)).collect())

    # ---- where this world differs -----------------------------------------------------------------------------------

    def now(self) -> float:
        """The loop's own clock."""
        if self._loop is None:
            raise RuntimeError("the engine is not running: use it inside its `async with` block")
        return self._loop.time()

    def register(self, call: TokenStream) -> None:
        """Know this call from now on. Raises `RuntimeError` outside the engine's block, and in another loop than its own."""
        if self._running and asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("the engine belongs to another event loop; open one in each")
        super().register(call)

    def _wake_at(self, instant: float) -> None:
        assert self._loop is not None
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(instant, self._timer_fired)

    def _emptied(self) -> None:
        self._drained.set()

    def _refresh(self, order: RefreshSession) -> None:
        assert self._loop is not None
        task = self._loop.create_task(self._fetch(order))
        self._refreshes.add(task)
        task.add_done_callback(self._refreshes.discard)

    def _ask(self, order: AskStore) -> None:
        assert self._loop is not None
        task = self._loop.create_task(self._question(order))
        self._asks.add(task)
        task.add_done_callback(self._asks.discard)

    async def _question(self, order: AskStore) -> None:
        reply: StoreReply = StoreLost("the engine's loop ended")
        try:
            if self._store is not None:
                reply = await self._store.execute(order.request)
        finally:  # always report
            self.tell(StoreReport(order.link, order.ask, reply))

    async def _fetch(self, order: RefreshSession) -> None:
        try:
            result = await _fetch(order.secret)
        except BaseException as error:  # always report
            self.tell(SessionReport(order.session, order.refresh_id, credential_error(error)))
            if not isinstance(error, Exception):
                raise
        else:
            self.tell(SessionReport(order.session, order.refresh_id, result))


def _store_for(shared: ClusterConfig) -> AsyncioStore:
    from drivers.shared_store.asyncio_store import AsyncioStore  # only who shares needs its client

    return AsyncioStore(shared)


class TokenStream(AsyncTokenStream):
    """One request: an async context manager that gives an async iterator of `TokenChunk`. For one task at a time."""

    def __init__(self, engine: RemoteEngine, worker: RemoteWorker) -> None:
        super().__init__(engine, engine.client, worker)
        self._signal = asyncio.Event()

    def wake(self) -> None:
        """The caller is parked, and has an order."""
        self._signal.set()

    async def _park(self) -> None:
        await self._signal.wait()
        self._signal.clear()


async def _fetch(secret: Secret | None) -> Credential:
    if reads_at_once(secret):
        return read_secret(secret)
    assert secret is not None
    if secret.source == "callable" and inspect.iscoroutinefunction(secret.fetch):
        return as_credential(await secret.fetch())
    fetched = await _in_thread(secret.fetch if secret.source == "callable" else lambda: read_secret(secret))
    return as_credential(await fetched if inspect.isawaitable(fetched) else fetched)


async def _in_thread(work: Callable[[], object]) -> object:
    """Run blocking ``work`` in a thread of its own, which ends with it (a default executor's would outlive the engine)."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[tuple[object, Exception | None]] = loop.create_future()

    def settle(result: object, error: Exception | None) -> None:
        if not done.done():
            done.set_result((result, error))  # an error as a value: a future takes no StopIteration

    def run() -> None:
        result: object = None
        problem: Exception | None = None
        try:
            result = work()
        except BaseException as error:  # SystemExit ends this thread, not the loop
            problem = error if isinstance(error, Exception) else RuntimeError(type(error).__name__)
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits
            loop.call_soon_threadsafe(settle, result, problem)

    threading.Thread(target=run, name="remote-engine-refresh", daemon=True).start()
    result, problem = await done
    if problem is not None:
        raise problem
    return result
