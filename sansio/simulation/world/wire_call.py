"""One request of a `WireNode` under way: its worker's steps, and what it waits for in between."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Protocol, assert_never

from ...batch import TokenChunk
from ...errors import InferenceError
from ...http import HttpRequest
from ...worker import Connect, Deliver, Discard, Finish, Park, Post, Raise, Receive, RemoteWorker, Send
from .node import Call

if TYPE_CHECKING:
    from .wire import WireLine
    from .wire_node import WireNode


class Listener(Protocol):
    """Whom a request answers to. It may call the node back from here; a caller that leaves is not told."""

    def delivered(self, call: Call, chunk: TokenChunk) -> None:
        """A chunk came. Unless it stays inside, the caller is away from now on: `WireNode.ask` for the next."""
        ...

    def ended(self, call: Call, error: InferenceError | None) -> None:
        """The request is over, and everything it held is given back."""
        ...


class _State(enum.Enum):
    AWAY = "away"
    """The caller does not want anything."""
    READY = "ready"
    """It goes on when it is its turn."""
    INSIDE = "inside"
    """It is its turn."""
    PARKED = "parked"
    OPENING = "opening"
    READING = "reading"
    OVER = "over"


class WireCall:
    """One request under way: its worker, its line, and what it waits for. A `LineOwner`."""

    __slots__ = ("_line", "_listener", "_node", "_state", "_stays", "call", "worker")

    def __init__(self, node: WireNode, call: Call, worker: RemoteWorker, listener: Listener, *, stays: bool) -> None:
        self.call = call
        self.worker = worker
        self._node = node
        self._listener = listener
        self._stays = stays
        self._line: WireLine | None = None
        self._state = _State.AWAY

    # ---- what ends a wait --------------------------------------------------------------------------------------------

    def come(self) -> None:
        """The caller wants the next chunk."""
        self._line_up_from(_State.AWAY)

    def wake(self) -> None:
        """There is an order. One that does not wait for it finds it when it would."""
        self._line_up_from(_State.PARKED)

    def _line_up_from(self, state: _State) -> None:
        if self._state is state:
            self._state = _State.READY
            self._node.line_up(self)

    def opened(self) -> None:
        """The line has a connection."""
        assert self._state is _State.OPENING and self._line is not None
        self.worker.connected(reused=self._line.reused)
        self._go_on()

    def failed(self, error: OSError | InferenceError) -> None:
        """The line gets no connection, or was interrupted while it waited for one."""
        assert self._state is _State.OPENING
        self.let_go(keep=False)
        self.worker.failed(error, self._node.now())
        self._go_on()

    def woken(self) -> None:
        """There may be something to take. Of no interest while the caller is away: what came is kept by the line."""
        if self._state is _State.READING:
            self._go_on()

    def _go_on(self) -> None:
        self._state = _State.READY
        self._node.go_on(self)

    # ---- what others do with it --------------------------------------------------------------------------------------

    def interrupt(self) -> None:
        """Wake it from its line, which says so in a moment."""
        if self._line is not None:
            self._line.interrupt()

    def let_go(self, *, keep: bool) -> None:
        """Part with the line: its connection goes back to the client, or is closed."""
        line, self._line = self._line, None
        if line is not None:
            line.let_go(keep=keep)

    def hang_up(self) -> None:
        """The caller is gone, whatever the state of its request: everything is given back."""
        self._state = _State.OVER
        self.let_go(keep=False)
        self._node.forget(self)

    # ---- the conversation --------------------------------------------------------------------------------------------

    def go_on(self) -> None:
        """It is its turn: until it has to wait."""
        if self._state is _State.OVER:  # its caller has left while it stood in the row
            return
        if not self.worker.attended:
            if self.worker.chunks:
                self._hand_over(self.worker.chunks.popleft())
                return
            self._node.enter(self)
        self._state = _State.INSIDE
        now = self._node.now()
        while self._is_inside():
            self._step(now)

    def _is_inside(self) -> bool:
        return self._state is _State.INSIDE

    def _step(self, now: float) -> None:
        match step := self.worker.step(now):
            case Receive():
                self._receive(now)
            case Deliver(chunk):
                self._deliver(chunk)
            case Post(event):
                self._node.tell(event)
            case Park():
                self._state = _State.PARKED
            case Connect(request, _, fresh):  # the engine watches the clock
                self._state = _State.OPENING
                self._line = self._node.client.line(self)
                self._line.open(request, fresh=fresh)
            case Send(request):
                self._send(request)
            case Discard(keep):
                self.let_go(keep=keep)
            case Finish():
                self._end(None)
            case Raise(error):
                self._end(error)
            case _:
                assert_never(step)

    def _send(self, request: HttpRequest) -> None:
        assert self._line is not None
        self._node.sending(self.call, request)
        try:
            self._line.send(request)
        except (OSError, InferenceError) as error:
            self.worker.send_failed(error)

    def _receive(self, now: float) -> None:
        assert self._line is not None
        try:
            events = self._line.take()
        except (OSError, InferenceError) as error:
            self.worker.failed(error, now)
            return
        if events is None:
            self._state = _State.READING
        else:
            self.worker.received(events, now, self._node.unix_now())

    def _deliver(self, chunk: TokenChunk) -> None:
        if self._stays:
            self._node.hand_over(self.call, chunk)
            self._listener.delivered(self.call, chunk)
        else:
            self._node.step_away(self)
            self._hand_over(chunk)

    def _hand_over(self, chunk: TokenChunk) -> None:
        self._state = _State.AWAY
        self._node.hand_over(self.call, chunk)
        self._listener.delivered(self.call, chunk)

    def _end(self, error: InferenceError | None) -> None:
        self.hang_up()
        self._node.end(self.call, error)
        self._listener.ended(self.call, error)
