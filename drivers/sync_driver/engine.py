"""`RemoteEngine` for threads: one lock, one timer thread, callers that drive their own requests.

Nothing is decided here. Under the lock the engine is told a fact; what that asks for is done outside of it. A request runs
in its caller's thread, step by step as its `RemoteWorker` says.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar, Unpack

from drivers.credentials import as_credential, credential_error, read_secret
from drivers.front import EngineFront, RequestOptions
from drivers.front.engine_front import Deployments
from sansio import (
    AskStore,
    Close,
    ClusterConfig,
    Credential,
    Drain,
    EngineMetrics,
    Event,
    ExecuteBatch,
    InferenceError,
    Notice,
    RefreshSession,
    Secret,
    SessionReport,
    StoreReport,
    Tokens,
)
from sansio.cluster.store import StoreReply
from sansio.deployment import Cluster

from .client import build_choice
from .interrupts import SHIELD, Bell
from .stream import Client, TokenStream

if TYPE_CHECKING:
    from drivers.shared_store.store_thread import StoreThread

Result = TypeVar("Result")


class RemoteEngine(EngineFront[TokenStream, Client]):
    """Calls the providers of its deployments. A context manager; any number of threads may use it inside.

    deployments: one, several, or a `RemoteEngineConfig`. on_notice: called with each `Notice`, outside the lock, from
    whichever thread met it; it must not wait, close or drain. client: who moves the bytes, by default the
    native client, or a general one where the environment names a proxy;
    closed with the engine. cluster: where several processes share their limits, the store they do it through: its URL, or a
    `ClusterConfig`. Raises `ValueError` for a configuration that cannot work, such as a missing key.
    """

    def __init__(
        self,
        deployments: Deployments,
        *,
        on_notice: Callable[[Notice], None] | None = None,
        client: Client | None = None,
        cluster: Cluster | None = None,
    ) -> None:
        self._lock = threading.Lock()
        super().__init__(deployments, client, build_choice, on_notice, self._alone, cluster)
        self._store = None if self.config.shared is None else _store_for(self.config.shared, self._answered)
        self._alarm = threading.Condition(self._lock)
        self._drains: list[Bell] = []
        self._timer: threading.Thread | None = None
        self._refreshes: set[threading.Thread] = set()

    # ---- life -------------------------------------------------------------------------------------------------------

    def __enter__(self) -> RemoteEngine:
        if self._timer is not None:
            raise RuntimeError("an engine is entered once; make a new one")
        with SHIELD:
            SHIELD.raise_up()
            self._timer = threading.Thread(target=self._keep_time, name="remote-engine-timer", daemon=True)
            self._begin()
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
        try:
            self._end(Close())
        finally:
            with SHIELD, self._lock:
                self._running = False
                self._alarm.notify_all()
                refreshes = list(self._refreshes)
            give_up_at = time.monotonic() + self.config.session.refresh_timeout
            try:
                for thread in refreshes:
                    if thread is not threading.current_thread():
                        thread.join(max(0.0, give_up_at - time.monotonic()))
                if self._timer is not None and self._timer is not threading.current_thread():
                    self._timer.join()
                if self._store is not None:
                    self._store.close()
            finally:
                with SHIELD:
                    self.client.close()
                    SHIELD.take_down()

    def drain(self) -> None:
        """Accept nothing new, and return when everything accepted is over."""
        self._end(Drain())

    def _end(self, event: Event) -> None:
        bell = Bell()
        self._drains.append(bell)
        self.tell(event)
        bell.wait()

    # ---- requests ---------------------------------------------------------------------------------------------------

    def stream(self, batch: ExecuteBatch, **options: Unpack[RequestOptions]) -> TokenStream:
        """A streamed answer: a context manager that gives an iterator of `TokenChunk`. The first ``next`` submits it.

        Options are those of `RequestOptions`. Iterating raises `InferenceError`s; this call itself `ValueError` for what
        cannot be asked.
        """
        return TokenStream(self, self.worker_for(batch, options, stream=True))

    def generate(self, batch: ExecuteBatch, **options: Unpack[RequestOptions]) -> Tokens:
        """A unary answer. Options and errors as for `stream`."""
        with TokenStream(self, self.worker_for(batch, options, stream=False)) as chunks:
            return Tokens.from_chunks(chunks)

    # ---- the critical section: a lock; around it and what follows from it, a shield ---------------------------------------

    def _alone(self, work: Callable[[], Result], /) -> Result:
        with self._lock:
            return work()

    def metrics(self) -> EngineMetrics:
        """What the engine has done and is doing."""
        with self._lock:
            return super().metrics()

    def tell(self, event: Event) -> None:
        """Tell the engine a fact, and do what it orders."""
        with SHIELD:
            with self._lock:
                todo = self._handle(event)
            self._do(todo)

    def register(self, call: TokenStream) -> None:
        """Know this call from now on. Raises `RuntimeError` outside the engine's block."""
        with self._lock:
            super().register(call)

    def enter(self, call: TokenStream) -> None:
        """The caller waits inside from now on."""
        with self._lock:
            super().enter(call)

    def step_away(self, call: TokenStream) -> None:
        """The caller is away from now on."""
        with SHIELD:
            with self._lock:
                todo = self._step_away(call)
            if todo is not None:
                self._do(todo)

    def hang_up(self, call: TokenStream) -> None:
        """The caller is gone: give back what its request held."""
        with SHIELD:
            with self._lock:
                todo = self._hang_up(call)
            self._do(todo)

    def _rearm(self) -> None:
        with self._lock:
            super()._rearm()

    def _is_due(self) -> bool:
        with self._lock:
            return super()._is_due()

    # ---- where this world differs -----------------------------------------------------------------------------------

    def now(self) -> float:
        """The system's monotonic clock."""
        return time.monotonic()

    def _wake_at(self, instant: float) -> None:
        self._alarm.notify()

    def _keep_time(self) -> None:
        while True:
            with self._lock:
                while self._running and (left := self._armed - time.monotonic()) > 0:
                    self._alarm.wait(min(left, threading.TIMEOUT_MAX))
                if not self._running:
                    return
            self._timer_fired()

    def _emptied(self) -> None:
        for bell in list(self._drains):
            bell.ring()

    def _refresh(self, order: RefreshSession) -> None:
        thread = threading.Thread(target=self._fetch, args=(order,), name="remote-engine-refresh", daemon=True)
        with self._lock:
            thread.start()
            self._refreshes = {known for known in self._refreshes if known.is_alive()} | {thread}

    def _ask(self, order: AskStore) -> None:
        assert self._store is not None
        self._store.ask((order.link, order.ask), order.request)

    def _answered(self, token: tuple[int, int], reply: StoreReply) -> None:
        self.tell(StoreReport(*token, reply))

    def _fetch(self, order: RefreshSession) -> None:
        result: Credential | InferenceError
        try:
            result = _fetch(order.secret)
        except BaseException as error:  # always report
            result = credential_error(error)
        self.tell(SessionReport(order.session, order.refresh_id, result))


def _store_for(
    shared: ClusterConfig, deliver: Callable[[tuple[int, int], StoreReply], None]
) -> StoreThread[tuple[int, int]]:
    from drivers.shared_store.store_thread import StoreThread  # only who shares needs its client

    return StoreThread(shared, deliver)


def _fetch(secret: Secret | None) -> Credential:
    if secret is not None and secret.source == "callable":
        return as_credential(secret.fetch())
    return read_secret(secret)
