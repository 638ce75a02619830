"""`RemoteEngine` for trio: a nursery of its own with one timer task, callers that drive their own requests.

Nothing is decided here. The engine is told a fact, and what that asks for is done at once: on an event loop the critical
section is whatever does not await. A request runs in its caller's task, step by step as its `RemoteWorker` says.
"""

from __future__ import annotations

import contextlib
import inspect
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, Unpack

import trio

from drivers.credentials import as_credential, credential_error, read_secret, reads_at_once
from drivers.front import AsyncClient, AsyncTokenStream, EngineFront, RequestOptions
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
    TokenChunk,
    Tokens,
)
from sansio.cluster.store import StoreReply
from sansio.deployment import Cluster

from .client import build_choice

if TYPE_CHECKING:
    from drivers.shared_store.store_thread import StoreThread


class Client(AsyncClient, Protocol):
    """Who moves the bytes, on trio."""

    def start(self, tasks: trio.Nursery) -> None:
        """The engine opens: where connections that need tasks of their own have them."""
        ...


class RemoteEngine(EngineFront["TokenStream", Client]):
    """Calls the providers of its deployments. An async context manager; any number of tasks may use it inside.

    deployments: one, several, or a `RemoteEngineConfig`. on_notice: called with each `Notice`. client: who
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
        self._store = None if self.config.shared is None else _store_for(self.config.shared, self._answered)
        self._token: trio.lowlevel.TrioToken | None = None
        self._entered = False
        self._tasks: trio.Nursery | None = None
        self._nap = trio.CancelScope()
        self._drained = trio.Event()

    # ---- life -------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> RemoteEngine:
        if self._entered:
            raise RuntimeError("an engine is entered once; make a new one")
        self._entered = True
        self._token = trio.lowlevel.current_trio_token()
        self._begin()
        self._nursery_manager = trio.open_nursery()
        nursery = await self._nursery_manager.__aenter__()
        with trio.CancelScope(shield=True):  # entered whole, and left by whoever cancelled
            tasks: trio.Nursery = await nursery.start(self._keep_tasks)
            self._tasks = tasks
            self.client.start(tasks)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
        await self._nursery_manager.__aexit__(None, None, None)

    async def aclose(self) -> None:
        """End everything: requests of others fail with `EngineClosed`; tasks, connections and timers are gone after it."""
        if not self._running or self._tasks is None:
            return
        with trio.CancelScope(shield=True):
            await self._end(Close())
            self._running = False
            if self._store is not None:
                await _in_thread(self._store.close)
            await self.client.aclose()
        self._tasks.cancel_scope.cancel()

    async def drain(self) -> None:
        """Accept nothing new, and return when everything accepted is over."""
        await self._end(Drain())

    async def _end(self, event: Event) -> None:
        if self._drained.is_set():  # else somebody waits for it already, and goes on waiting for the same
            self._drained = trio.Event()
        drained = self._drained
        self.tell(event)
        await drained.wait()

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
        """The run's own clock."""
        return trio.current_time()

    @trio.lowlevel.enable_ki_protection
    def tell(self, event: Event) -> None:
        """Tell the engine a fact, and do what it orders.

        Ctrl-C is raised between any two instructions, except where trio is told to keep it for the next checkpoint: an
        order lost half-way would be waited for for ever.
        """
        super().tell(event)

    def _wake_at(self, instant: float) -> None:
        self._nap.deadline = instant

    def _emptied(self) -> None:
        self._drained.set()

    async def _keep_tasks(self, *, task_status: trio.TaskStatus[trio.Nursery]) -> None:
        """The engine's own tasks, in a nursery apart: closing cancels them, and not whoever is inside the `async with`.

        Nothing else does, so that a caller who is shielded from a cancellation still has timers and credentials.
        """
        async with trio.open_nursery() as tasks:
            tasks.cancel_scope.shield = True
            tasks.start_soon(self._keep_time)
            task_status.started(tasks)

    async def _keep_time(self) -> None:
        while True:
            with trio.CancelScope(deadline=self._armed) as self._nap:
                await trio.sleep_forever()
            self._timer_fired()

    def _refresh(self, order: RefreshSession) -> None:
        assert self._tasks is not None
        self._tasks.start_soon(self._fetch, order)

    def _ask(self, order: AskStore) -> None:
        assert self._store is not None
        self._store.ask((order.link, order.ask), order.request)

    def _answered(self, asked: tuple[int, int], reply: StoreReply) -> None:
        """Called in the store's thread: what came is told on the run's own."""
        assert self._token is not None
        with contextlib.suppress(trio.RunFinishedError):  # nobody waits any more
            self._token.run_sync_soon(self.tell, StoreReport(*asked, reply))

    async def _fetch(self, order: RefreshSession) -> None:
        try:
            result = await _fetch(order.secret)
        except BaseException as error:  # always report
            self.tell(SessionReport(order.session, order.refresh_id, credential_error(error)))
            if not isinstance(error, Exception):
                raise
        else:
            self.tell(SessionReport(order.session, order.refresh_id, result))


def _store_for(
    shared: ClusterConfig, deliver: Callable[[tuple[int, int], StoreReply], None]
) -> StoreThread[tuple[int, int]]:
    from drivers.shared_store.store_thread import StoreThread  # only who shares needs its client

    return StoreThread(shared, deliver)


class TokenStream(AsyncTokenStream):
    """One request: an async context manager that gives an async iterator of `TokenChunk`. For one task at a time."""

    def __init__(self, engine: RemoteEngine, worker: RemoteWorker) -> None:
        super().__init__(engine, engine.client, worker)
        self._signal = trio.Event()

    @trio.lowlevel.enable_ki_protection  # as for `RemoteEngine.tell`
    async def __anext__(self) -> TokenChunk:
        return await super().__anext__()

    @trio.lowlevel.enable_ki_protection
    async def collect(self) -> list[TokenChunk]:
        """Every chunk there will be."""
        return await super().collect()

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(self, *_: object) -> None:
        await super().__aexit__()

    def wake(self) -> None:
        """The caller is parked, and has an order."""
        self._signal.set()

    async def _park(self) -> None:
        await self._signal.wait()
        self._signal = trio.Event()


async def _fetch(secret: Secret | None) -> Credential:
    if reads_at_once(secret):
        return read_secret(secret)
    assert secret is not None
    if secret.source == "callable" and inspect.iscoroutinefunction(secret.fetch):
        return as_credential(await secret.fetch())
    fetched = await _in_thread(secret.fetch if secret.source == "callable" else lambda: read_secret(secret))
    return as_credential(await fetched if inspect.isawaitable(fetched) else fetched)


async def _in_thread(work: Callable[[], object]) -> object:
    """Run blocking ``work`` in a thread of its own, which ends with it (trio's own would stay a while after the engine)."""
    token = trio.lowlevel.current_trio_token()
    done = trio.Event()
    outcome: list[tuple[object, Exception | None]] = []

    def run() -> None:
        try:
            outcome.append((work(), None))
        except BaseException as error:  # SystemExit ends this thread, not the run
            outcome.append((None, error if isinstance(error, Exception) else RuntimeError(type(error).__name__)))
        with contextlib.suppress(trio.RunFinishedError):  # nobody waits any more
            token.run_sync_soon(done.set)

    threading.Thread(target=run, name="remote-engine-refresh", daemon=True).start()
    await done.wait()
    result, problem = outcome[0]
    if problem is not None:
        raise problem
    return result
