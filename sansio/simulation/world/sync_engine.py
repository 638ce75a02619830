"""`SimulatedEngine`: a world's engine for code that blocks, with the names of the blocking driver's `RemoteEngine`.

Everything happens in the caller's one thread. Whoever has to wait moves the world's clock, event by event, until its own
request has news; what other requests do meanwhile happens on the way. So a test of an outage of ten minutes takes
milliseconds, and is the same in every run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TypedDict, Unpack

from ...backoff import require_positive
from ...batch import ExecuteBatch, TokenChunk, Tokens
from ...deployment import RemoteEngineConfig
from ...errors import InferenceError
from ...events import AddRequest, Notice, RebuildSession
from ...metrics import EngineMetrics
from ...operations import Breaker, Limiter
from ...queue import Priority
from .node import Call
from .plan import CallerPlan
from .wire_node import WireNode
from .world import GIVE_UP_AFTER, World


class RequestOptions(TypedDict, total=False):
    """What may be said of one request, as in every driver.

    deployment: its name, where there are several. priority: which goes first. tenant: whose turn it is, where tenants take
    turns. timeout: seconds for the whole request, waiting included. wait_for_circuit: wait an open circuit out; ``None``
    leaves it to the deployment.
    """

    deployment: str | None
    priority: Priority
    tenant: str
    timeout: float | None
    wait_for_circuit: bool | None


class SimulatedEngine:
    """Calls the simulated providers of a world. A context manager, for one thread.

    on_notice: called with each `Notice`; it must not wait, close or drain. What it raises is a test's mistake, and no
    request's: it is raised by whatever waits next, or is waiting, and at the latest by `close`, when the step that it was
    told of is done. (A driver logs it and goes on.) give_up_after: virtual seconds that one wait may take. Raises
    `ValueError` for a world that does not go down to the bytes.

    What is waited for may never come (a drain while a stream is held open, and not read): waiting raises `RuntimeError`
    when nothing is going to happen any more, or it has taken too long. An `InvariantViolated` that was caught on its way is
    raised again by the next wait, by `close`, and at the end of the block.
    """

    def __init__(
        self,
        world: World,
        *,
        on_notice: Callable[[Notice], None] | None = None,
        give_up_after: float = GIVE_UP_AFTER,
    ) -> None:
        if not isinstance(world.node, WireNode):
            raise ValueError('level: an engine for callers needs a world of level "bytes"')
        require_positive("give_up_after", give_up_after)
        self.world = world
        self._node = world.node
        self._patience = give_up_after
        self._running = False
        self._on_notice = on_notice
        self._defect: BaseException | None = None
        if on_notice is not None:
            self._node.on_notice += (self._notify,)
        self.breaker = Breaker(self._node.core, self._node.tell, self._node.now)
        """The circuit breakers: ``state``, ``force_open``, ``force_closed``, ``reset``."""
        self.limiter = Limiter(self._node.core, self._node.now)
        """The rate limiters: ``snapshot``."""

    @property
    def config(self) -> RemoteEngineConfig:
        """The deployments and how their sessions refresh."""
        return self.world.config

    # ---- life -------------------------------------------------------------------------------------------------------

    def __enter__(self) -> SimulatedEngine:
        if self.world.entered:
            raise RuntimeError("a world's engine is entered once: use the one that is open, or make a new world")
        self.world.entered = self._running = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None and error is self.world.violation:  # it is on its way
            self._running = False
        else:
            self.close()

    def close(self) -> None:
        """End everything: requests under way fail with `EngineClosed`, connections and timers are gone after it.

        What is broken is not closed, which would only hide what broke it: `InvariantViolated` is raised, even if somebody
        has caught it before.
        """
        running, self._running = self._running, False
        self.world.check()
        if running:
            self._end(self._node.close)

    def drain(self) -> None:
        """Accept nothing new, and return when everything accepted is over."""
        self._end(self._node.drain)

    def _end(self, begin: Callable[[], None]) -> None:
        begin()
        self.wait_until(lambda: self._node.drained)

    # ---- requests ---------------------------------------------------------------------------------------------------

    def generate(self, batch: ExecuteBatch, **options: Unpack[RequestOptions]) -> Tokens:
        """A unary answer. Options are those of `RequestOptions`. Raises `InferenceError`, and `ValueError` for what cannot
        be asked."""
        with self.submit(batch, **options) as request:
            return request.result()

    def submit(self, batch: ExecuteBatch, **options: Unpack[RequestOptions]) -> SimulatedRequest:
        """A unary answer that nobody waits for yet: several of them are under way at once, as from several threads."""
        request = SimulatedRequest(self, self._prepare(batch, options, stream=False))
        request.begin(stays=True)
        request.ask()
        return request

    def stream(self, batch: ExecuteBatch, **options: Unpack[RequestOptions]) -> SimulatedStream:
        """A streamed answer: a context manager that gives an iterator of `TokenChunk`. The first ``next`` submits it.

        Iterating raises `InferenceError`s; this call itself `ValueError` for what cannot be asked.
        """
        return SimulatedStream(SimulatedRequest(self, self._prepare(batch, options, stream=True)))

    def _prepare(self, batch: ExecuteBatch, options: RequestOptions, *, stream: bool) -> AddRequest:
        return self._node.core.prepare(0, batch, stream=stream, **options)

    # ---- operators --------------------------------------------------------------------------------------------------

    def metrics(self) -> EngineMetrics:
        """What the engine has done and is doing."""
        return self._node.core.metrics()

    def rebuild_session(self, deployment: str | None = None) -> None:
        """Fetch a deployment's credential again; the old one is served meanwhile."""
        self._node.tell(RebuildSession(deployment))

    # ---- for requests -------------------------------------------------------------------------------------------------

    def node(self) -> WireNode:
        """Where a request begins. Raises `RuntimeError` outside the engine's block."""
        if not self._running:
            raise RuntimeError("the engine is not running: use it inside its `with` block")
        return self._node

    def wait_until(self, there: Callable[[], bool]) -> None:
        """Let the world go on until it is there. Raises as `World.wait_until`, and what ``on_notice`` raised."""
        self.world.wait_until(lambda: self._defect is not None or there(), self._patience)
        defect, self._defect = self._defect, None
        if defect is not None:
            raise defect

    def _notify(self, notice: Notice) -> None:
        """Hand it on, in the middle of a step, which nothing may keep from being finished."""
        assert self._on_notice is not None  # else nobody listens
        try:
            self._on_notice(notice)
        except BaseException as defect:  # whatever it is: it is raised where somebody waits
            if self._defect is None:
                self._defect = defect


class SimulatedRequest:
    """One request under way. Inside a ``with`` block it is called off at the end; else it runs to its end by itself, as the
    world goes on."""

    def __init__(self, engine: SimulatedEngine, add: AddRequest) -> None:
        self._engine = engine
        self._add = add
        self._call: Call | None = None
        self._ended = False
        self._error: InferenceError | None = None
        self._taken: list[TokenChunk] = []
        self.chunks: deque[TokenChunk] = deque()
        """What came and was not taken yet."""

    def __enter__(self) -> SimulatedRequest:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()

    @property
    def done(self) -> bool:
        """Whether it is over, well or not."""
        return self._ended

    def result(self) -> Tokens:
        """The whole answer, once it is there. Raises the `InferenceError` with which the request ended, and `RuntimeError`
        if it was called off."""
        self.wait()
        if self._error is not None:
            raise self._error
        if not self._ended:
            raise RuntimeError("the request was called off")
        self._taken += self.chunks
        self.chunks.clear()
        return Tokens.from_chunks(self._taken)

    def cancel(self) -> None:
        """Call it off, and give back what it held. Of no effect once it is over."""
        if self._call is not None:
            self._engine.world.node.leave(self._call)

    # ---- for the engine and for streams -----------------------------------------------------------------------------

    def begin(self, *, stays: bool) -> None:
        """Know it from now on. Raises `RuntimeError` outside the engine's block, and the second time."""
        node = self._engine.node()
        if self._call is not None:
            raise RuntimeError("a stream is entered once; ask the engine for another")
        self._call = node.start(_plan(self._add, self._engine.world.clock.now), self._add, self, stays=stays)

    def ask(self) -> None:
        """Let it go on until there is a chunk, or the end."""
        assert self._call is not None
        self._engine.node().ask(self._call)

    def wait(self) -> None:
        """Until it is over, or was called off."""
        call = self._call
        assert call is not None
        self._engine.wait_until(lambda: call.ended)

    def next(self) -> TokenChunk | None:
        """The next chunk, ``None`` at the end. Raises the `InferenceError` with which the request ended."""
        call = self._call
        if call is None or (call.ended and not self._ended):
            raise RuntimeError("a stream is iterated inside its `with` block")
        if not self.chunks and not self._ended:
            self.ask()
            self._engine.wait_until(lambda: bool(self.chunks) or call.ended)
        if self.chunks:
            return self.chunks.popleft()
        if self._error is not None:
            raise self._error
        return None

    def delivered(self, call: Call, chunk: TokenChunk) -> None:
        """A chunk came."""
        self.chunks.append(chunk)

    def ended(self, call: Call, error: InferenceError | None) -> None:
        """It is over."""
        self._ended, self._error = True, error


class SimulatedStream:
    """One request: a context manager that gives an iterator of `TokenChunk`. Several may be open and read in turns."""

    def __init__(self, request: SimulatedRequest) -> None:
        self._request = request

    def __enter__(self) -> Iterator[TokenChunk]:
        self._request.begin(stays=False)
        return self

    def __exit__(self, *_: object) -> None:
        self._request.cancel()

    def __iter__(self) -> Iterator[TokenChunk]:
        return self

    def __next__(self) -> TokenChunk:
        if (chunk := self._request.next()) is None:
            raise StopIteration
        return chunk


def _plan(add: AddRequest, now: float) -> CallerPlan:
    """What the world keeps of a caller that no plan knew."""
    said = "".join(str(message.content) for message in add.batch.messages[-1:])
    return CallerPlan(0, now, add.deployment, said, stream=add.stream, priority=add.priority, tenant=add.tenant)
