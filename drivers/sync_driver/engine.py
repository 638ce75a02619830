"""`RemoteEngine` for threads: one lock, one timer thread, callers that drive their own requests.

Nothing is decided here. Under the lock, the engine is told a fact (`Switchboard`); what that asks for is done outside of
it. A request runs in its caller's thread, step by step as its `RemoteWorker` says.
"""

from __future__ import annotations

import itertools
import logging
import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import assert_never

from drivers.credentials import as_credential, credential_error, fingerprints, read_secret
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
    """Calls the providers of its deployments. A context manager; any number of threads may use it inside.

    deployments: one, several, or a `RemoteEngineConfig`. on_notice: called with each `Notice`, outside the lock, from
    whichever thread met it. client: who moves the bytes, by default `build_client()`; closed with the engine.
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
        self._lock = threading.Lock()
        self._alarm = threading.Condition(self._lock)
        self._drained = threading.Event()
        self._armed = -math.inf
        self._timer: threading.Thread | None = None
        self._running = False
        self._refreshes: set[threading.Thread] = set()
        self._refresh_timeout = config.session.refresh_timeout
        self.breaker = Breaker(core, self.tell, time.monotonic, self._lock)
        """The circuit breakers: ``state``, ``force_open``, ``force_closed``, ``reset``."""
        self.limiter = Limiter(core, time.monotonic, self._lock)
        """The rate limiters: ``snapshot``."""

    # ---- life -------------------------------------------------------------------------------------------------------

    def __enter__(self) -> RemoteEngine:
        if self._timer is not None:
            raise RuntimeError("an engine is entered once; make a new one")
        self._running = True
        self._timer = threading.Thread(target=self._keep_time, name="remote-engine-timer", daemon=True)
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End everything: requests of others fail with `EngineClosed`; threads, connections and timers are gone after it.

        Only a secret's callable cannot be stopped: it is waited for as long as a session waits for it
        (`SessionConfig.refresh_timeout`), and then left to itself. Not to be called by ``on_notice``.
        """
        if not self._running:
            return
        self._end(Close())
        with self._lock:
            self._running = False
            self._alarm.notify_all()
            refreshes = list(self._refreshes)
        give_up_at = time.monotonic() + self._refresh_timeout
        for thread in refreshes:
            if thread is not threading.current_thread():
                thread.join(max(0.0, give_up_at - time.monotonic()))
        if self._timer is not None and self._timer is not threading.current_thread():
            self._timer.join()
        self.client.close()

    def drain(self) -> None:
        """Accept nothing new, and return when everything accepted is over."""
        self._end(Drain())

    def _end(self, event: Event) -> None:
        self._drained.clear()
        self.tell(event)
        self._drained.wait()

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
        """A streamed answer: a context manager that gives an iterator of `TokenChunk`. The first ``next`` submits it.

        deployment: its name, where there are several. timeout: seconds for the whole request, waiting included.
        wait_for_circuit: wait an open circuit out; ``None`` leaves it to the deployment. Iterating raises
        `InferenceError`s; this call itself `ValueError` for what cannot be asked.
        """
        return self._call(True, batch, deployment, priority, tenant, timeout, wait_for_circuit)

    def generate(
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
        with self._call(False, batch, deployment, priority, tenant, timeout, wait_for_circuit) as chunks:
            return Tokens.from_chunks(chunks)

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
        with self._lock:
            return self._board.core.metrics()

    def rebuild_session(self, deployment: str | None = None) -> None:
        """Fetch a deployment's credential again; the old one is served meanwhile."""
        self.tell(RebuildSession(deployment))

    # ---- the driver's contract --------------------------------------------------------------------------------------

    def tell(self, event: Event) -> None:
        """Tell the engine a fact, and do what it orders."""
        with self._lock:
            todo = self._board.handle(event, time.monotonic(), time.time())
            self._rearm()
        self._do(todo)

    def register(self, call: TokenStream) -> None:
        """Know this call from now on. Raises `RuntimeError` outside the engine's block."""
        with self._lock:
            if not self._running:
                raise RuntimeError("the engine is not running: use it inside its `with` block")
            self._board.register(call)

    def enter(self, call: TokenStream) -> None:
        """The caller waits inside from now on."""
        with self._lock:
            self._board.enter(call)

    def step_away(self, call: TokenStream) -> None:
        """The caller is away from now on."""
        with self._lock:
            todo = self._board.step_away(call, time.monotonic(), time.time())
            self._rearm()
        self._do(todo)

    def hang_up(self, call: TokenStream) -> None:
        """The caller is gone: give back what its request held."""
        with self._lock:
            todo = self._board.hang_up(call, time.monotonic(), time.time())
            self._rearm()
        self._do(todo)

    def _rearm(self) -> None:
        deadline = self._board.core.deadline()
        if deadline is not None and deadline < self._armed:
            self._alarm.notify()

    def _do(self, todo: Todo[TokenStream]) -> None:
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

    def _keep_time(self) -> None:
        while True:
            with self._lock:
                while self._running:
                    deadline = self._board.core.deadline()
                    self._armed = math.inf if deadline is None else deadline
                    left = self._armed - time.monotonic()
                    if left <= 0:
                        break
                    self._alarm.wait(min(left, threading.TIMEOUT_MAX))
                self._armed = -math.inf
                if not self._running:
                    return
            self.tell(Tick())

    def _refresh(self, order: RefreshSession) -> None:
        thread = threading.Thread(target=self._fetch, args=(order,), name="remote-engine-refresh", daemon=True)
        with self._lock:
            self._refreshes = {known for known in self._refreshes if known.is_alive()} | {thread}
            thread.start()

    def _fetch(self, order: RefreshSession) -> None:
        try:
            result = _fetch(order.secret)
        except BaseException as error:  # always report
            self.tell(SessionReport(order.session, order.refresh_id, credential_error(error)))
        else:
            self.tell(SessionReport(order.session, order.refresh_id, result))


class TokenStream:
    """One request: a context manager that gives an iterator of `TokenChunk`. For one thread at a time."""

    def __init__(self, engine: RemoteEngine, worker: RemoteWorker) -> None:
        self.worker = worker
        self.signal = threading.Event()
        self._engine = engine
        self._connection: Connection | None = None
        self._guard = threading.Lock()  # nobody interrupts a connection that has just gone to somebody else

    def __enter__(self) -> Iterator[TokenChunk]:
        self._engine.register(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._engine.hang_up(self)
        self.let_go(keep=False)  # also what was still connecting

    def __iter__(self) -> Iterator[TokenChunk]:
        return self

    def __next__(self) -> TokenChunk:
        if self.worker.chunks:
            return self.worker.chunks.popleft()
        self._engine.enter(self)
        try:
            return self._advance()
        finally:
            self._engine.step_away(self)

    def _advance(self) -> TokenChunk:
        while True:
            match self.worker.step(time.monotonic()):
                case Receive():
                    self._receive()
                case Deliver(chunk):
                    return chunk
                case Post(event):
                    self._engine.tell(event)
                case Park():
                    self.signal.wait()
                    self.signal.clear()
                case Connect(request, timeout):
                    self._connect(request.origin, timeout)
                case Send(request):
                    self._send(request)
                case Discard(keep):
                    self.let_go(keep=keep)
                case Finish():
                    raise StopIteration
                case Raise(error):
                    raise error
                case step:
                    assert_never(step)

    def _connect(self, origin: Origin, timeout: float) -> None:
        client = self._engine.client
        try:
            self._connection = client.reuse(origin)
            if self._connection is None:
                self._connection = Connection(origin)
                if self.worker.aborting:  # ordered before there was a connection to interrupt
                    self._connection.interrupt()
                client.open(self._connection, timeout)
        except BaseException as error:
            self.let_go(keep=False)  # also when called off: the caller may come back, and connects anew
            if not isinstance(error, (OSError, InferenceError)):
                raise
            self.worker.failed(error, time.monotonic())
        else:
            self.worker.connected()

    def _send(self, request: HttpRequest) -> None:
        assert self._connection is not None
        try:
            self._connection.send(request)
        except OSError as error:
            self.worker.failed(error, time.monotonic())

    def _receive(self) -> None:
        assert self._connection is not None
        try:
            events = self._connection.receive()
        except OSError as error:
            self.worker.failed(error, time.monotonic())
        else:
            self.worker.received(events, time.monotonic(), time.time())

    def interrupt(self) -> None:
        """Wake the caller from its connection. Any thread may call this."""
        with self._guard:
            if self._connection is not None:
                self._connection.interrupt()

    def let_go(self, *, keep: bool) -> None:
        """Part with the connection: back to the client, or closed."""
        with self._guard:
            connection, self._connection = self._connection, None
        if connection is not None and keep:
            self._engine.client.give_back(connection)
        elif connection is not None:
            connection.close()


def _fetch(secret: Secret | None) -> Credential:
    if secret is not None and secret.source == "callable":
        return as_credential(secret.fetch())
    return read_secret(secret)
