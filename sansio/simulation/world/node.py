"""One process in a world: an engine, its clocks, its one timer, and the credentials it fetches. How its requests travel is
a subclass's matter.

A node's clocks may differ from the world's, and may be set: a machine sleeps, a clock is broken, somebody corrects it. The
engine only ever sees the node's.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from ...batch import ExecuteBatch, Message, TokenChunk, TokenUsage
from ...cluster.store import StoreLost, StoreReply, StoreRequest
from ...deployment import RemoteEngineConfig
from ...errors import InferenceError
from ...events import AskStore, Close, Drain, Event, RefreshSession, SessionReport, StoreReport, Tick
from ...http import HttpRequest
from ...secret import Credential
from ..judge.observed_core import ObservedCore
from .clock import Timer, VirtualClock, chance
from .plan import CallerPlan
from .vault import Vault, place_of


@dataclass(slots=True, eq=False)
class Call:
    """One caller's request, as the caller saw it.

    text: the pieces it was handed. ended: it was told the end (``error`` says which), or it has left.
    """

    plan: CallerPlan
    request_id: int
    submitted_at: float
    text: list[str] = field(default_factory=list[str])
    chunks: int = 0
    usage: TokenUsage | None = None
    finish_reason: str | None = None
    error: InferenceError | None = None
    ended: bool = False
    left: bool = False
    ended_at: float | None = None

    def take(self, chunk: TokenChunk) -> None:
        """It is handed a chunk."""
        self.chunks += 1
        if chunk.text_delta:
            self.text.append(chunk.text_delta)
        if chunk.usage is not None:
            self.usage = chunk.usage
        if chunk.finish_reason is not None:
            self.finish_reason = str(chunk.finish_reason)


class CallObserver(Protocol):
    """Somebody who hears what goes out, and what callers see."""

    def sent(self, call: Call, key: str | None, now: float, unix_now: float) -> None:
        """A request went out, with this key, at these times of its node."""
        ...

    def delivered(self, call: Call, chunk: TokenChunk) -> None:
        """A chunk was handed to its caller."""
        ...

    def ended(self, call: Call) -> None:
        """A caller was told the end, or left."""
        ...


class StoreWay(Protocol):
    """A node's way to the store that the processes of a world share."""

    def ask(self, request: StoreRequest, answer: Callable[[StoreReply], None]) -> None:
        """Put a question; ``answer`` is called later, and always, as a driver would have it."""
        ...


class Node(ABC):
    """One engine in a world, by ``name``. ``ahead`` and ``wall_ahead``: by how much its clocks are ahead of the world's.

    fingerprints: of the deployments' keys, as far as they are known at the start (as for `RemoteEngineCore`).
    """

    def __init__(
        self,
        clock: VirtualClock,
        config: RemoteEngineConfig,
        *,
        seed: int,
        vault: Vault,
        fingerprints: Mapping[str, str] | None = None,
        name: str = "node",
    ) -> None:
        self.clock = clock
        self.name = name
        self.core = ObservedCore(config, rng=chance(seed, name, "engine"), fingerprints=fingerprints)
        self.ahead = 0.0
        self.wall_ahead = 0.0
        self.drained = False
        self.calls: dict[int, Call] = {}
        """Those that are not over, by request."""
        self.watchers: tuple[CallObserver, ...] = ()
        self.store: StoreWay | None = None
        """Its way to the store of its world, where there is one."""
        self._vault = vault
        self._timer: Timer | None = None
        self._requests = 0
        self._places = [place_of(slot.lanes[0].deployment) for slot in self.core.roster.sessions]

    # ---- its clocks -------------------------------------------------------------------------------------------------

    def now(self) -> float:
        """Its monotonic clock."""
        return self.clock.now + self.ahead

    def unix_now(self) -> float:
        """Its wall clock."""
        return self.clock.unix_now + self.wall_ahead

    def jump(self, monotonic: float, wall: float) -> None:
        """Its clocks are set by so many seconds."""
        self.ahead += monotonic
        self.wall_ahead += wall
        self.rearm()

    # ---- what is done to it -------------------------------------------------------------------------------------------

    @abstractmethod
    def tell(self, event: Event) -> None:
        """One critical section, and what comes of it."""

    @abstractmethod
    def submit(self, caller: CallerPlan) -> Call:
        """A caller asks."""

    @abstractmethod
    def leave(self, call: Call) -> None:
        """A caller goes, whatever the state of its request. Of no effect once it is over."""

    def drain(self) -> None:
        """Accept nothing new, and finish."""
        self.tell(Drain())

    def close(self) -> None:
        """End everything now."""
        self.tell(Close())

    # ---- for subclasses -----------------------------------------------------------------------------------------------

    def new_call(self, caller: CallerPlan) -> Call:
        """A caller is known from now on."""
        self._requests += 1
        call = self.calls[self._requests] = Call(caller, self._requests, self.clock.now)
        return call

    def sending(self, call: Call, request: HttpRequest) -> str | None:
        """A request goes out. Returns the key it carries."""
        scheme, _, key = dict(request.headers).get("authorization", "").partition(" ")
        carried = key if scheme.lower() == "bearer" else None
        for watcher in self.watchers:
            watcher.sent(call, carried, self.now(), self.unix_now())
        return carried

    def hand_over(self, call: Call, chunk: TokenChunk) -> None:
        """A caller is handed a chunk."""
        call.take(chunk)
        for watcher in self.watchers:
            watcher.delivered(call, chunk)

    def end(self, call: Call, error: InferenceError | None, *, left: bool = False) -> None:
        """A caller is told the end, or has left."""
        call.ended, call.left, call.error, call.ended_at = True, left, error, self.clock.now
        self.calls.pop(call.request_id, None)
        for watcher in self.watchers:
            watcher.ended(call)

    def refresh(self, order: RefreshSession) -> None:
        """Fetch a credential, and report."""

        def report(result: Credential | InferenceError) -> None:
            self.tell(SessionReport(order.session, order.refresh_id, result))

        self._vault.fetch(self._places[order.session], self.wall_ahead, report)

    def ask_store(self, order: AskStore) -> None:
        """Put a question to the store, and report."""

        def report(reply: StoreReply) -> None:
            self.tell(StoreReport(order.link, order.ask, reply))

        if self.store is None:
            self.clock.call_later(0.0, partial(report, StoreLost("this world has no store")))
        else:
            self.store.ask(order.request, report)

    def due_at(self) -> float | None:
        """When something comes due, by the node's clock."""
        return self.core.deadline()

    def rearm(self) -> None:
        """See to it that the timer fires by `due_at`. One that fires earlier is left as it is."""
        due = self.due_at()
        if due is None:
            return
        when = max(self._world_time(due), self.clock.now)
        if self._timer is not None and self._timer.action is not None:
            if self._timer.when <= when:
                return
            self._timer.cancel()
        self._timer = self.clock.call_at(when, self._fired)

    def _world_time(self, due: float) -> float:
        """When the node's clock shows ``due``: never so early, by rounding, that it still shows less."""
        when = due - self.ahead
        if when + self.ahead < due:
            when += math.ulp(when)
        return when

    def _fired(self) -> None:
        self._timer = None
        due = self.core.deadline()
        if due is not None and due <= self.now():
            self.tell(Tick())
        else:
            self.rearm()


def batch_of(caller: CallerPlan) -> ExecuteBatch:
    """What a caller sends."""
    limit = caller.output_tokens if caller.limits_output else None
    return ExecuteBatch(messages=[Message(role="user", content=caller.said)], max_output_tokens=limit)
