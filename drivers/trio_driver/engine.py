"""`RemoteEngine` for trio: one nursery with a timer task, callers that drive their own requests.

Nothing is decided here. The engine is told a fact (`Switchboard`), and what that asks for is done at once: on an event
loop the critical section is whatever does not await. A request runs in its caller's task, step by step as its
`RemoteWorker` says.
"""

from __future__ import annotations

import inspect
import itertools
import logging
import math
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import assert_never

import trio

from drivers.credentials import as_credential, credential_error, fingerprints, read_secret, reads_at_once
from sansio import (
    Close,
    Credential,
    Deployment,
    Drain,
    EngineMetrics,
    Event,
    ExecuteBatch,
    HttpRequest,
    InferenceError,
    Notice,
    Origin,
    Priority,
    RebuildSession,
    RefreshSession,
    RemoteEngineConfig,
    RemoteEngineCore,
    RemoteWorker,
    Secret,
    SessionReport,
    Switchboard,
    Tick,
    Todo,
    TokenChunk,
    Tokens,
)
from sansio.operations import Breaker, Limiter
from sansio.worker import Connect, Deliver, Discard, Finish, Park, Post, Raise, Receive, Send

from .client import Connection, HttpClient, build_client

_log = logging.getLogger("inference_remote_core")


class RemoteEngine:
    """Calls the providers of its deployments. An async context manager; any number of tasks may use it inside.

    deployments: one, several, or a `RemoteEngineConfig`. on_notice: called with each `Notice`. client: who
    moves the bytes, by default `build_client()`; closed with the engine.
    Raises `ValueError` for a configuration that cannot work, such as a missing key.
    """

    def __init__(
        self,
        deployments: RemoteEngineConfig | Deployment | Sequence[Deployment],
        *,
        on_notice: Callable[[Notice], None] | None = None,
        client: HttpClient | None = None,
    ) -> None:
        config = RemoteEngineConfig.of(deployments)
        core = RemoteEngineCore(config, rng=random.Random(), fingerprints=fingerprints(config.deployments))
        self._board: Switchboard[TokenStream] = Switchboard(core)
        self.client = client or build_client()
        """Who moves the bytes."""
        self._on_notice = on_notice
        self._ids = itertools.count(1)
        self._entered = False
        self._tasks: trio.Nursery | None = None
        self._nap = trio.CancelScope()
        self._drained = trio.Event()
        self._running = False
        self.breaker = Breaker(core, self.tell, self.now)
        """The circuit breakers: ``state``, ``force_open``, ``force_closed``, ``reset``."""
        self.limiter = Limiter(core, self.now)
        """The rate limiters: ``snapshot``."""

    # ---- life -------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> RemoteEngine:
        if self._entered:
            raise RuntimeError("an engine is entered once; make a new one")
        self._entered = self._running = True
        self._nursery_manager = trio.open_nursery()
        nursery = await self._nursery_manager.__aenter__()
        with trio.CancelScope(shield=True):  # entered whole, and left by whoever cancelled
            self._tasks = await nursery.start(self._keep_tasks)
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

    def stream(
        self,
        batch: ExecuteBatch,
        *,
        deployment: str | None = None,
        priority: Priority = Priority.NORMAL,
        tenant: str = "",
        timeout: float | None = None,
        wait_for_circuit: bool | None = None,
    ) -> TokenStream:
        """A streamed answer: an async context manager that gives an async iterator of `TokenChunk`. The first item asked
        for submits it.

        deployment: its name, where there are several. timeout: seconds for the whole request, waiting included.
        wait_for_circuit: wait an open circuit out; ``None`` leaves it to the deployment. Iterating raises
        `InferenceError`s; this call itself `ValueError` for what cannot be asked.
        """
        return self._call(True, batch, deployment, priority, tenant, timeout, wait_for_circuit)

    async def generate(
        self,
        batch: ExecuteBatch,
        *,
        deployment: str | None = None,
        priority: Priority = Priority.NORMAL,
        tenant: str = "",
        timeout: float | None = None,
        wait_for_circuit: bool | None = None,
    ) -> Tokens:
        """A unary answer. Arguments and errors as for `stream`."""
        async with self._call(False, batch, deployment, priority, tenant, timeout, wait_for_circuit) as chunks:
            return Tokens.from_chunks([chunk async for chunk in chunks])

    def _call(
        self,
        stream: bool,
        batch: ExecuteBatch,
        deployment: str | None,
        priority: Priority,
        tenant: str,
        timeout: float | None,
        wait_for_circuit: bool | None,
    ) -> TokenStream:
        add = self._board.core.prepare(
            next(self._ids), batch, deployment=deployment, stream=stream, priority=priority, tenant=tenant,
            timeout=timeout, wait_for_circuit=wait_for_circuit,
        )  # fmt: skip
        return TokenStream(self, RemoteWorker(add))

    # ---- operators --------------------------------------------------------------------------------------------------

    def metrics(self) -> EngineMetrics:
        """What the engine has done and is doing."""
        return self._board.core.metrics()

    def rebuild_session(self, deployment: str | None = None) -> None:
        """Fetch a deployment's credential again; the old one is served meanwhile."""
        self.tell(RebuildSession(deployment))

    # ---- the driver's contract --------------------------------------------------------------------------------------

    def now(self) -> float:
        """The run's own clock."""
        return trio.current_time()

    def tell(self, event: Event) -> None:
        """Tell the engine a fact, and do what it orders."""
        self._do(self._board.handle(event, self.now(), time.time()))

    def register(self, call: TokenStream) -> None:
        """Know this call from now on. Raises `RuntimeError` outside the engine's block."""
        if not self._running:
            raise RuntimeError("the engine is not running: use it inside its `async with` block")
        self._board.register(call)

    def enter(self, call: TokenStream) -> None:
        """The caller waits inside from now on."""
        self._board.enter(call)

    def step_away(self, call: TokenStream) -> None:
        """The caller is away from now on."""
        self._do(self._board.step_away(call, self.now(), time.time()))

    def hang_up(self, call: TokenStream) -> None:
        """The caller is gone: give back what its request held."""
        self._do(self._board.hang_up(call, self.now(), time.time()))

    def _do(self, todo: Todo[TokenStream]) -> None:
        self._rearm()
        for call in todo.wake:
            call.signal.set()
        for call in todo.interrupt:
            call.interrupt()
        for call in todo.close:
            call.let_go(keep=False)
        for order in todo.refresh:
            self._refresh(order)
        for notice in todo.notices:
            self._notify(notice)
        if todo.drained:
            self._drained.set()

    def _notify(self, notice: Notice) -> None:
        if self._on_notice is not None:
            try:
                self._on_notice(notice)
            except Exception:  # an observer's defect is not a request's
                _log.exception("on_notice failed")

    def _rearm(self) -> None:
        deadline = self._board.core.deadline()
        self._nap.deadline = math.inf if deadline is None else deadline

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
            with trio.CancelScope() as self._nap:
                self._rearm()
                await trio.sleep_forever()
            self.tell(Tick())

    def _refresh(self, order: RefreshSession) -> None:
        assert self._tasks is not None
        self._tasks.start_soon(self._fetch, order)

    async def _fetch(self, order: RefreshSession) -> None:
        try:
            result = await _fetch(order.secret)
        except BaseException as error:  # always report
            self.tell(SessionReport(order.session, order.refresh_id, credential_error(error)))
            if not isinstance(error, Exception):
                raise
        else:
            self.tell(SessionReport(order.session, order.refresh_id, result))


class TokenStream:
    """One request: an async context manager that gives an async iterator of `TokenChunk`. For one task at a time."""

    def __init__(self, engine: RemoteEngine, worker: RemoteWorker) -> None:
        self.worker = worker
        self.signal = trio.Event()
        self._engine = engine
        self._connection: Connection | None = None

    async def __aenter__(self) -> AsyncIterator[TokenChunk]:
        self._engine.register(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.hang_up(self)
        self.let_go(keep=False)  # also what was still connecting

    def __aiter__(self) -> AsyncIterator[TokenChunk]:
        return self

    async def __anext__(self) -> TokenChunk:
        if self.worker.chunks:
            return self.worker.chunks.popleft()
        self._engine.enter(self)
        try:
            return await self._advance()
        finally:
            self._engine.step_away(self)

    async def _advance(self) -> TokenChunk:
        while True:
            match self.worker.step(self._engine.now()):
                case Receive():
                    await self._receive()
                case Deliver(chunk):
                    return chunk
                case Post(event):
                    self._engine.tell(event)
                case Park():
                    await self.signal.wait()
                    self.signal = trio.Event()
                case Connect(request):
                    await self._connect(request.origin)
                case Send(request):
                    await self._send(request)
                case Discard(keep):
                    self.let_go(keep=keep)
                case Finish():
                    raise StopAsyncIteration
                case Raise(error):
                    raise error
                case step:
                    assert_never(step)

    async def _connect(self, origin: Origin) -> None:
        client = self._engine.client
        try:
            self._connection = client.reuse(origin)
            if self._connection is None:
                self._connection = Connection(origin)
                await client.open(self._connection)
        except BaseException as error:
            self.let_go(keep=False)  # also when called off: the caller may come back, and connects anew
            if not isinstance(error, (OSError, InferenceError)):
                raise
            self.worker.failed(error, self._engine.now())
        else:
            self.worker.connected()

    async def _send(self, request: HttpRequest) -> None:
        assert self._connection is not None
        try:
            await self._connection.send(request)
        except OSError as error:
            self.worker.failed(error, self._engine.now())

    async def _receive(self) -> None:
        assert self._connection is not None
        try:
            events = await self._connection.receive()
        except OSError as error:
            self.worker.failed(error, self._engine.now())
        else:
            self.worker.received(events, self._engine.now(), time.time())

    def interrupt(self) -> None:
        """Wake the caller from its connection."""
        if (connection := self._connection) is not None:
            connection.interrupt()

    def let_go(self, *, keep: bool) -> None:
        """Part with the connection: back to the client, or closed."""
        connection, self._connection = self._connection, None
        if connection is not None and keep:
            self._engine.client.give_back(connection)
        elif connection is not None:
            connection.close()


async def _fetch(secret: Secret | None) -> Credential:
    if reads_at_once(secret):
        return read_secret(secret)
    assert secret is not None
    if secret.source == "callable" and inspect.iscoroutinefunction(secret.fetch):
        return as_credential(await secret.fetch())
    work: Callable[[], object] = secret.fetch if secret.source == "callable" else lambda: read_secret(secret)
    fetched = await trio.to_thread.run_sync(work, abandon_on_cancel=True)
    return as_credential(await fetched if inspect.isawaitable(fetched) else fetched)
