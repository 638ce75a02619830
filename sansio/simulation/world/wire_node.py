"""The driver of a world that goes down to the bytes: what drivers do with tasks or threads, done by callbacks.

    world ─▶ WireNode ─ tell ─▶ Switchboard ─▶ engine
                 │                   │ orders
                 └─ ask, leave ─▶ WireCall ─ step ─▶ RemoteWorker
                                     │  ▲ opened, failed, woken
                                     ▼  │
                                   WireLine ─▶ network

A call goes on until it has to wait, for an order, for a connection, for bytes or for its caller; whoever ends that wait
lets it go on. Calls that come free in the middle of something else stand in a row and go on after it, so nothing recurses.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ...batch import TokenChunk
from ...deployment import RemoteEngineConfig
from ...errors import InferenceError
from ...events import AddRequest, Close, Event, Notice
from ...switchboard import Switchboard, Todo
from ...worker import RemoteWorker
from .clock import VirtualClock
from .node import Call, Node, batch_of
from .plan import CallerPlan
from .vault import Vault
from .wire_call import Listener, WireCall

if TYPE_CHECKING:
    from .wire import WireClient


class WireNode(Node):
    """An engine whose requests go over the connections of ``client``."""

    def __init__(
        self,
        clock: VirtualClock,
        config: RemoteEngineConfig,
        *,
        seed: int,
        vault: Vault,
        client: WireClient,
        fingerprints: Mapping[str, str] | None = None,
        name: str = "node",
    ) -> None:
        super().__init__(clock, config, seed=seed, vault=vault, fingerprints=fingerprints, name=name)
        self.client = client
        self.on_notice: tuple[Callable[[Notice], None], ...] = ()
        """Called with each notice, in the middle of a step: they must not raise."""
        self._board: Switchboard[WireCall] = Switchboard(self.core)
        self._known: dict[int, WireCall] = {}
        self._ready: deque[WireCall] = deque()
        self._settling = False
        self._closing = False
        self._as_planned = _AsPlanned(self)

    # ---- callers -----------------------------------------------------------------------------------------------------

    def submit(self, caller: CallerPlan) -> Call:
        """A caller asks, and does as its plan says."""
        add = self.core.prepare(
            0,
            batch_of(caller),
            deployment=caller.deployment,
            stream=caller.stream,
            priority=caller.priority,
            tenant=caller.tenant,
            timeout=caller.timeout,
            wait_for_circuit=caller.wait_for_circuit,
        )
        call = self.start(caller, add, self._as_planned, stays=not (caller.stream or caller.reads_every))
        self.ask(call)
        return call

    def start(self, caller: CallerPlan, add: AddRequest, listener: Listener, *, stays: bool = False) -> Call:
        """Know a request from now on, as a driver does when a stream's block is entered. The first `ask` submits it.

        add: from `prepare` of the core; it gets the id of the call. stays: the caller never steps away between two chunks,
        as one that wants the whole answer; it asks once.
        """
        call = self.new_call(caller)
        add.request_id = call.request_id
        wired = self._known[call.request_id] = WireCall(self, call, RemoteWorker(add), listener, stays=stays)
        self._board.register(wired)
        return call

    def ask(self, call: Call) -> None:
        """The caller wants the next chunk. Of no effect where it waits for one already, and once the request is over."""
        if (wired := self._known.get(call.request_id)) is not None:
            wired.come()
            self._settle()

    def leave(self, call: Call) -> None:
        """The caller goes, as one that leaves a stream's block. Of no effect once the request is over."""
        if (wired := self._known.get(call.request_id)) is not None:
            wired.hang_up()
            self.end(call, None, left=True)
            self._settle()

    # ---- the engine --------------------------------------------------------------------------------------------------

    def tell(self, event: Event) -> None:
        """Tell the engine a fact, do what it orders, and let those go on who can."""
        self.do(self._board.handle(event, self.now(), self.unix_now()))
        self._settle()

    def close(self) -> None:
        """End everything now: calls fail, and once they are over the connections are closed too."""
        self._closing = True
        self.tell(Close())

    def do(self, todo: Todo[WireCall]) -> None:
        """Carry out what a critical section asks for. Nobody goes on by that alone."""
        for call in todo.wake:
            call.wake()
        for call in todo.interrupt:
            call.interrupt()
        for call in todo.close:
            call.let_go(keep=False)
        for order in todo.refresh:
            self.refresh(order)
        for question in todo.ask:
            self.ask_store(question)
        for notice in todo.notices:
            for told in self.on_notice:
                told(notice)
        if todo.drained:
            self.drained = True
            if self._closing:
                self.client.close()

    def due_at(self) -> float | None:
        """When the engine or its client wants to be called, by the node's clock."""
        engine, client = self.core.deadline(), self.client.deadline()
        return engine if client is None else client if engine is None else min(engine, client)

    def _fired(self) -> None:
        due, now = self.client.deadline(), self.now()
        if due is not None and due <= now:
            self.client.expire(now)
        super()._fired()

    # ---- for calls ---------------------------------------------------------------------------------------------------

    def enter(self, call: WireCall) -> None:
        """Its caller is inside from now on."""
        self._board.enter(call)

    def step_away(self, call: WireCall) -> None:
        """Its caller is away from now on."""
        todo = self._board.step_away(call, self.now(), self.unix_now())
        assert todo is None  # its last step was a chunk, and a worker hands none over while there is anything else to do

    def forget(self, call: WireCall) -> None:
        """Its caller is gone."""
        del self._known[call.call.request_id]
        self.do(self._board.hang_up(call, self.now(), self.unix_now()))

    def line_up(self, call: WireCall) -> None:
        """Let it go on after what is being done now."""
        self._ready.append(call)

    def go_on(self, call: WireCall) -> None:
        """What it waited for is there."""
        self._ready.append(call)
        self._settle()

    def _settle(self) -> None:
        """Let those go on who can, in order, and mind the timer. Does nothing inside of itself."""
        if self._settling:
            return
        self._settling = True
        try:
            while self._ready:
                self._ready.popleft().go_on()
        finally:
            self._settling = False
        self.rearm()


class _AsPlanned:
    """Callers that read as their plan says: at once, or slowly."""

    def __init__(self, node: WireNode) -> None:
        self._node = node

    def delivered(self, call: Call, chunk: TokenChunk) -> None:
        """The next one, at once or in a while."""
        if call.plan.reads_every:
            self._node.clock.call_later(call.plan.reads_every, lambda: self._node.ask(call))
        else:
            self._node.ask(call)

    def ended(self, call: Call, error: InferenceError | None) -> None:
        """What became of it stands in the call."""
