"""Between one engine and its many callers: carries orders to the right `RemoteWorker`, and tells the driver whom to wake.

A driver keeps one object per request (its *call*: the worker, a signal to wait on, perhaps a connection). The switchboard
is used inside the driver's critical section; what it returns is carried out outside of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar, assert_never

from .engine import RemoteEngineCore
from .events import AbortAttempt, AskStore, Complete, Drained, Effect, Event, Notice, RefreshSession, StartAttempt
from .worker import Discard, RemoteWorker


class Call(Protocol):
    """What a driver keeps per request."""

    @property
    def worker(self) -> RemoteWorker:
        """The request's worker."""
        ...


CallT = TypeVar("CallT", bound=Call)


@dataclass(slots=True)
class Todo(Generic[CallT]):
    """What a driver does after one critical section. Nothing here waits. To be read, not changed.

    wake: calls parked until an order came. interrupt: calls whose caller waits on a connection and must be woken from that.
    close: calls whose connection is to be closed now, their caller being away. refresh: sessions to refresh, each in a task
    or thread of its own. ask: questions to the store, likewise. drained: the engine is empty.
    """

    wake: list[CallT] = field(default_factory=list[CallT])
    interrupt: list[CallT] = field(default_factory=list[CallT])
    close: list[CallT] = field(default_factory=list[CallT])
    refresh: list[RefreshSession] = field(default_factory=list[RefreshSession])
    ask: list[AskStore] = field(default_factory=list[AskStore])
    notices: list[Notice] = field(default_factory=list[Notice])
    drained: bool = False


class Switchboard(Generic[CallT]):
    """Routes the orders of ``core``. Calls are known from `register` until `hang_up`."""

    __slots__ = ("_calls", "_nothing", "core")

    def __init__(self, core: RemoteEngineCore) -> None:
        self.core = core
        self._nothing: Todo[CallT] = Todo()
        self._calls: dict[int, CallT] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def register(self, call: CallT) -> None:
        """Carry orders to this call from now on. Raises `RuntimeError` for one that was registered before."""
        if call.worker.submitted or call.worker.add.request_id in self._calls:
            raise RuntimeError("a stream is entered once; ask the engine for another")
        self._calls[call.worker.add.request_id] = call

    def handle(self, event: Event, now: float, unix_now: float) -> Todo[CallT]:
        """Tell the engine a fact and route what it orders."""
        effects = self.core.handle(event, now, unix_now)
        if not effects:
            return self._nothing  # as after most facts: made once
        todo: Todo[CallT] = Todo()
        self._route(effects, todo, now, unix_now)
        return todo

    def enter(self, call: CallT) -> None:
        """The caller is inside from now on: it is woken to carry out what is ordered.

        Raises `RuntimeError` for a call that is not registered (no order would ever reach it), and for one that has a
        caller inside (of two, only one would be woken).
        """
        if call.worker.add.request_id not in self._calls:
            raise RuntimeError("a stream is iterated inside its `with` (or `async with`) block")
        if call.worker.attended:
            raise RuntimeError("a stream is iterated by one thread or task at a time")
        call.worker.attended = True

    def step_away(self, call: CallT, now: float, unix_now: float) -> Todo[CallT] | None:
        """The caller is away from now on. An abort that came meanwhile, and that it did not see, is carried out here.

        ``None``, after nearly every chunk, where nothing is to be done, and nothing the engine knows has changed.
        """
        call.worker.leave(now)
        if not call.worker.has_immediate:
            return None
        todo: Todo[CallT] = Todo()
        self._act_for(call, todo, now, unix_now)
        return todo

    def hang_up(self, call: CallT, now: float, unix_now: float) -> Todo[CallT]:
        """The caller is gone, whether or not the request was over: everything it held is given back in this one step."""
        todo: Todo[CallT] = Todo()
        call.worker.cancel()
        self._act_for(call, todo, now, unix_now)
        self._calls.pop(call.worker.add.request_id, None)
        return todo

    def _route(self, effects: Iterable[Effect], todo: Todo[CallT], now: float, unix_now: float) -> None:
        for effect in effects:
            match effect:
                case StartAttempt() | Complete() | AbortAttempt():
                    call = self._calls.get(effect.request_id)
                    if call is None:
                        continue
                    call.worker.order(effect)
                    if call.worker.attended:
                        (todo.interrupt if isinstance(effect, AbortAttempt) else todo.wake).append(call)
                    elif isinstance(effect, AbortAttempt):
                        self._act_for(call, todo, now, unix_now)
                case RefreshSession():
                    todo.refresh.append(effect)
                case AskStore():
                    todo.ask.append(effect)
                case Notice():
                    todo.notices.append(effect)
                case Drained():
                    todo.drained = True
                case _:
                    assert_never(effect)

    def _act_for(self, call: CallT, todo: Todo[CallT], now: float, unix_now: float) -> None:
        """Do in the caller's stead what needs no waiting: close its connection, report its attempt."""
        while (step := call.worker.immediate(now)) is not None:
            if isinstance(step, Discard):
                todo.close.append(call)
            else:
                self._route(self.core.handle(step.event, now, unix_now), todo, now, unix_now)
