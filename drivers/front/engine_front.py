"""`EngineFront`: how a driver tells the engine a fact and does what comes of it, whatever its world is made of.

In a critical section the `Switchboard` is told; what it asks for is done after it. On an event loop whatever does not await
is one, so here nothing is done about it; the driver for threads puts its lock around, and a shield against what could cut
the two short. Where worlds differ besides is left to the driver: its clock, its one timer, how a session is refreshed, and
whom it tells that the engine is empty.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypedDict, TypeVar

from drivers.credentials import fingerprints
from sansio import (
    AskStore,
    AttemptEnded,
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
from sansio.deployment import Cluster
from sansio.http import parse_origin
from sansio.operations import Alone, Breaker, Limiter, at_once

from .choice import Choice, choose

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
        client: ClientT | None,
        build: Callable[[Choice], ClientT],
        on_notice: Callable[[Notice], None] | None,
        alone: Alone = at_once,
        cluster: Cluster | None = None,
    ) -> None:
        self.config = RemoteEngineConfig.of(deployments, cluster)
        """The deployments and how their sessions refresh."""
        core = self._make_core()
        self._board: Switchboard[CallT] = Switchboard(core)
        self._choice: Choice | None = None
        if client is None:
            origins = [parse_origin(deployment.codec().endpoint) for deployment in self.config.deployments]
            self._choice = choose(None, origins)
            client = build(self._choice)
        self.client: ClientT = client
        """Who moves the bytes."""
        self._on_notice = on_notice
        self._process = os.getpid()
        self._armed = math.inf
        self._ids = itertools.count(1)
        self._running = False
        self.breaker = Breaker(core, self.tell, self.now, alone)
        """The circuit breakers: ``state``, ``force_open``, ``force_closed``, ``reset``."""
        self.limiter = Limiter(core, self.now, alone)
        """The rate limiters: ``snapshot``."""

    # ---- where worlds differ ----------------------------------------------------------------------------------------

    @abstractmethod
    def now(self) -> float:
        """The clock of this world: monotonic seconds."""

    def unix_now(self) -> float:
        """The wall clock of this world: Unix seconds."""
        return time.time()

    def _make_core(self) -> RemoteEngineCore:
        """The engine proper, with what it may not fetch for itself: randomness, and the fingerprints of its keys."""
        return RemoteEngineCore(self.config, rng=random.Random(), fingerprints=fingerprints(self.config.deployments))

    @abstractmethod
    def _wake_at(self, instant: float) -> None:
        """Call `_timer_fired` at this instant, instead of whenever it would have been. Called in the critical section."""

    @abstractmethod
    def _refresh(self, order: RefreshSession) -> None:
        """Fetch a credential in a task or thread of its own, and always report."""

    @abstractmethod
    def _ask(self, order: AskStore) -> None:
        """Put a question to the store that processes share, in a task or thread apart, and always report."""

    @abstractmethod
    def _emptied(self) -> None:
        """Nothing is outstanding any more: tell whoever drains or closes."""

    def _begin(self) -> None:
        """The engine is entered. Raises `RuntimeError` for one with a cluster that another process has made."""
        if self.config.shared is not None and os.getpid() != self._process:
            # What was forked would call itself by the same name in the store, and one process's share would be spent twice.
            raise RuntimeError("an engine with a cluster is made in the process that uses it: make it after the fork")
        self._running = True
        if self._choice is not None and self._choice.detail is not None:
            self._notify(Notice("client", "", self.now(), self.unix_now(), None, self._choice.detail))

    # ---- operators --------------------------------------------------------------------------------------------------

    def metrics(self) -> EngineMetrics:
        """What the engine has done and is doing."""
        return self._board.core.metrics()

    def rebuild_session(self, deployment: str | None = None) -> None:
        """Fetch a deployment's credential again; the old one is served meanwhile."""
        self.tell(RebuildSession(deployment))

    # ---- the driver's contract --------------------------------------------------------------------------------------

    def tell(self, event: Event) -> None:
        """Tell the engine a fact, and do what it orders."""
        self._do(self._handle(event))

    def worker_for(self, batch: ExecuteBatch, options: RequestOptions, *, stream: bool) -> RemoteWorker:
        """The worker of a new request. Raises `ValueError` for what cannot be asked."""
        return RemoteWorker(self._board.core.prepare(next(self._ids), batch, stream=stream, **options))

    def register(self, call: CallT) -> None:
        """Know this call from now on. Raises `RuntimeError` outside the engine's block."""
        if not self._running:
            raise RuntimeError("the engine is not running: use it inside its `with` (or `async with`) block")
        self._board.register(call)

    def enter(self, call: CallT) -> None:
        """The caller waits inside from now on."""
        self._board.enter(call)

    def step_away(self, call: CallT) -> None:
        """The caller is away from now on."""
        if (todo := self._step_away(call)) is not None:
            self._do(todo)

    def hang_up(self, call: CallT) -> None:
        """The caller is gone: give back what its request held."""
        self._do(self._hang_up(call))

    # ---- the critical sections: the clocks are read and the timer is set inside -----------------------------------------

    def _handle(self, event: Event) -> Todo[CallT]:
        todo = self._board.handle(event, self.now(), self.unix_now())
        ended = isinstance(event, AttemptEnded)  # its connection may idle from now on
        self._arm(self._deadline() if ended else self._board.core.deadline())
        return todo

    def _step_away(self, call: CallT) -> Todo[CallT] | None:
        todo = self._board.step_away(call, self.now(), self.unix_now())
        if todo is not None:
            self._arm(self._board.core.deadline())
        return todo

    def _hang_up(self, call: CallT) -> Todo[CallT]:
        todo = self._board.hang_up(call, self.now(), self.unix_now())
        self._arm(self._deadline())  # its connection may idle from now on
        return todo

    def _is_due(self) -> bool:
        """Whether the timer did not fire too early; then it is set again."""
        self._armed = math.inf
        deadline = self._deadline()
        if deadline is not None and deadline <= self.now():
            return True
        self._arm(deadline)
        return False

    # ---- the one timer ----------------------------------------------------------------------------------------------

    def _deadline(self) -> float | None:
        """When the engine, or its client, wants to be called again."""
        engine, client = self._board.core.deadline(), self.client.deadline()
        return engine if client is None else client if engine is None else min(engine, client)

    def _arm(self, deadline: float | None) -> None:
        """Move the timer where that makes it earlier. One that fires too early is set again then, which costs less than
        moving it with each request."""
        if deadline is not None and deadline < self._armed:
            self._armed = deadline
            self._wake_at(deadline)

    def _rearm(self) -> None:
        """The client's deadline may have changed."""
        self._arm(self._deadline())

    def _timer_fired(self) -> None:
        """It is time, or was."""
        if self._is_due():
            self.client.expire(self.now())
            self.tell(Tick())
            self._rearm()  # telling minds the engine's deadline alone, and other connections may idle for a while yet

    def _do(self, todo: Todo[CallT]) -> None:
        for call in todo.wake:
            call.wake()
        for call in todo.interrupt:
            call.interrupt()
        for call in todo.close:
            call.let_go(keep=False)
        if todo.close:
            self._rearm()  # over HTTP/2 that may have left a connection idle
        for order in todo.refresh:
            self._refresh(order)
        for question in todo.ask:
            self._ask(question)
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
