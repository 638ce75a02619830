"""`EngineFront`: how a driver tells the engine a fact and does what comes of it, whatever its world is made of.

Under the driver's guard (its lock with threads, nothing on an event loop) the `Switchboard` is told; what it asks for is
done outside of it, and a shield around both keeps out what could cut them short. The four things in which worlds differ
are left to the driver: its clock, its one timer, how a session is refreshed, and whom it tells that the engine is empty.
"""

from __future__ import annotations

import itertools
import logging
import math
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, Protocol, TypedDict, TypeVar

from drivers.credentials import fingerprints
from sansio import (
    Deployment,
    EngineMetrics,
    Event,
    ExecuteBatch,
    Notice,
    Priority,
    RebuildSession,
    RefreshSession,
    RemoteEngineConfig,
    RemoteEngineCore,
    RemoteWorker,
    Switchboard,
    Tick,
    Todo,
)
from sansio.operations import Breaker, Limiter

_log = logging.getLogger("inference_remote_core")

Deployments = RemoteEngineConfig | Deployment | Sequence[Deployment]


class RequestOptions(TypedDict, total=False):
    """What may be said of one request.

    deployment: its name, where there are several. priority: which goes first. tenant: whose turn it is, where tenants take
    turns. timeout: seconds for the whole request, waiting included. wait_for_circuit: wait an open circuit out; ``None``
    leaves it to the deployment.
    """

    deployment: str | None
    priority: Priority
    tenant: str
    timeout: float | None
    wait_for_circuit: bool | None


class TimedClient(Protocol):
    """Who moves the bytes, as far as the engine's timer is concerned. Any thread may ask."""

    def deadline(self) -> float | None:
        """When `expire` has something to do, or ``None``."""
        ...

    def expire(self, now: float) -> None:
        """Close the connections that have been idle for too long."""
        ...


class FrontCall(Protocol):
    """What a driver keeps per request."""

    @property
    def worker(self) -> RemoteWorker:
        """The request's worker."""
        ...

    def wake(self) -> None:
        """The caller is parked, and has an order."""
        ...

    def interrupt(self) -> None:
        """Wake the caller from its connection."""
        ...

    def let_go(self, *, keep: bool) -> None:
        """Part with the connection."""
        ...


CallT = TypeVar("CallT", bound=FrontCall)
ClientT = TypeVar("ClientT", bound=TimedClient)


class EngineFront(ABC, Generic[CallT, ClientT]):
    """What every `RemoteEngine` has. Raises `ValueError` for a configuration that cannot work, such as a missing key."""

    def __init__(
        self,
        deployments: Deployments,
        client: ClientT,
        on_notice: Callable[[Notice], None] | None,
        guard: AbstractContextManager[Any] | None = None,
        shield: AbstractContextManager[Any] | None = None,
    ) -> None:
        self.config = RemoteEngineConfig.of(deployments)
        """The deployments and how their sessions refresh."""
        core = RemoteEngineCore(self.config, rng=random.Random(), fingerprints=fingerprints(self.config.deployments))
        self._board: Switchboard[CallT] = Switchboard(core)
        self.client = client
        """Who moves the bytes."""
        self._on_notice = on_notice
        self._armed = math.inf
        self._guard = guard or nullcontext()
        self._shield = shield or nullcontext()
        self._ids = itertools.count(1)
        self._running = False
        self.breaker = Breaker(core, self.tell, self.now, self._guard)
        """The circuit breakers: ``state``, ``force_open``, ``force_closed``, ``reset``."""
        self.limiter = Limiter(core, self.now, self._guard)
        """The rate limiters: ``snapshot``."""

    # ---- where worlds differ ----------------------------------------------------------------------------------------

    @abstractmethod
    def now(self) -> float:
        """The clock of this world: monotonic seconds."""

    @abstractmethod
    def _wake_at(self, instant: float) -> None:
        """Call `_timer_fired` at this instant, instead of whenever it would have been. Called under the guard."""

    @abstractmethod
    def _refresh(self, order: RefreshSession) -> None:
        """Fetch a credential in a task or thread of its own, and always report."""

    @abstractmethod
    def _emptied(self) -> None:
        """Nothing is outstanding any more: tell whoever drains or closes."""

    # ---- operators --------------------------------------------------------------------------------------------------

    def metrics(self) -> EngineMetrics:
        """What the engine has done and is doing."""
        with self._guard:
            return self._board.core.metrics()

    def rebuild_session(self, deployment: str | None = None) -> None:
        """Fetch a deployment's credential again; the old one is served meanwhile."""
        self.tell(RebuildSession(deployment))

    # ---- the driver's contract --------------------------------------------------------------------------------------

    def tell(self, event: Event) -> None:
        """Tell the engine a fact, and do what it orders."""
        with self._shield:
            with self._guard:
                todo = self._board.handle(event, self.now(), time.time())
                self._arm()
            self._do(todo)

    def worker_for(self, batch: ExecuteBatch, options: RequestOptions, *, stream: bool) -> RemoteWorker:
        """The worker of a new request. Raises `ValueError` for what cannot be asked."""
        return RemoteWorker(self._board.core.prepare(next(self._ids), batch, stream=stream, **options))

    def register(self, call: CallT) -> None:
        """Know this call from now on. Raises `RuntimeError` outside the engine's block."""
        with self._guard:
            if not self._running:
                raise RuntimeError("the engine is not running: use it inside its `with` (or `async with`) block")
            self._board.register(call)

    def enter(self, call: CallT) -> None:
        """The caller waits inside from now on."""
        with self._guard:
            self._board.enter(call)

    def step_away(self, call: CallT) -> None:
        """The caller is away from now on."""
        with self._shield:
            with self._guard:
                todo = self._board.step_away(call, self.now(), time.time())
                if todo is None:
                    return
                self._arm()
            self._do(todo)

    def hang_up(self, call: CallT) -> None:
        """The caller is gone: give back what its request held."""
        with self._shield:
            with self._guard:
                todo = self._board.hang_up(call, self.now(), time.time())
                self._arm()
            self._do(todo)

    # ---- the one timer ----------------------------------------------------------------------------------------------

    def _deadline(self) -> float:
        """When the engine, or its client, wants to be called again."""
        engine, client = self._board.core.deadline(), self.client.deadline()
        if engine is None:
            return math.inf if client is None else client
        return engine if client is None else min(engine, client)

    def _arm(self) -> None:
        """Move the timer where that makes it earlier. One that fires too early is set again then, which costs less than
        moving it with each request."""
        deadline = self._deadline()
        if deadline < self._armed:
            self._armed = deadline
            self._wake_at(deadline)

    def _timer_fired(self) -> None:
        """It is time, or was."""
        with self._guard:
            self._armed = math.inf
            now = self.now()
            early = self._deadline() > now
            if early:
                self._arm()
        if not early:
            self.client.expire(now)
            self.tell(Tick())

    def _do(self, todo: Todo[CallT]) -> None:
        for call in todo.wake:
            call.wake()
        for call in todo.interrupt:
            call.interrupt()
        for call in todo.close:
            call.let_go(keep=False)
        for order in todo.refresh:
            self._refresh(order)
        for notice in todo.notices:
            self._notify(notice)
        if todo.drained:
            self._emptied()

    def _notify(self, notice: Notice) -> None:
        if self._on_notice is not None:
            try:
                self._on_notice(notice)
            except Exception:  # an observer's defect is not a request's
                _log.exception("on_notice failed")
