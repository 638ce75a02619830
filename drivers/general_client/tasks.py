"""A general client in a world of tasks: the same on asyncio and on trio, for httpx runs on both, by way of anyio.

Each connection is an `httpx.AsyncClient` of its own, so that which one is used again, and for how long it is kept, is the
core's `ConnectionPool` to decide. A client that the user has built is used as it is instead, with its own pool.

Leaving waits for nothing, and httpx can only be left by waiting: a response is a chain of asynchronous generators, each of
which must come to its end. So leaving closes the socket at once, and keeps the rest as a *remnant*; whoever next opens a
line, or closes the client, brings it to its end. There is nothing left in it to wait for.
"""

from __future__ import annotations

import contextlib
import ssl
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import contextmanager
from typing import Any

import anyio
import anyio.lowlevel

from drivers.front import PooledClient
from sansio import END, Grant, HttpEvent, HttpRequest, InferenceError, NetworkError, Origin, PoolConfig

from .messages import (
    MAX_TAIL_READS,
    PATIENCE,
    Trace,
    build_request,
    extension_of_timeouts,
    failed_before_sending,
    failure,
    is_open,
    is_over_http1,
    private_settings,
    read_head,
    try_environment,
)

Pieces = AsyncIterator[bytes]


class TaskLine(ABC):
    """One request by way of a general client. `interrupt` and `let_go` never wait.

    A wait that is cancelled ends the exchange, because it ends httpx's response: whoever comes back finds it lost.
    """

    def __init__(self, module: Any, remnants: Remnants) -> None:
        self.reused = False
        self._module = module
        self._remnants = remnants
        self._scope: anyio.CancelScope | None = None
        self._interrupted = False
        self._request: HttpRequest | None = None
        self._trace: Trace | None = None
        self._response: Any = None
        self._pieces: Pieces | None = None
        self._news: list[HttpEvent] = []
        self._problem: OSError | InferenceError | None = None

    @abstractmethod
    async def _get(self, origin: Origin, *, fresh: bool) -> Any:
        """The client to send with."""

    @abstractmethod
    def _part(self, pieces: Pieces | None, *, keep: bool) -> None:
        """Let go of the client. ``pieces``: what is left of an answer that has not come to its end."""

    async def open(self, request: HttpRequest, timeout: float, *, fresh: bool, sending: Callable[[], None]) -> None:
        """Connect within ``timeout`` seconds, call ``sending``, send, and wait for the head. What goes wrong after
        ``sending`` is raised by `receive`, what does before it here: `OSError` (also when interrupted) or
        `InferenceError`."""
        self._request = request
        with self._interruptible():
            await self._remnants.clear()
            client = await self._get(request.origin, fresh=fresh)
            trace = self._trace = Trace(sending)

            async def note(name: str, info: dict[str, Any]) -> None:
                trace.note(name, info)

            extensions = {"timeout": extension_of_timeouts(timeout), "trace": note}
            message = build_request(self._module, request, extensions)
            try:
                self._response = await client.send(message, stream=True, auth=None, follow_redirects=False)
            except Exception as error:
                self._problem = _failure(self._module, error, request)
                if not (trace.sent or failed_before_sending(self._module, error)):
                    trace.send()
                if not trace.sent:
                    raise self._problem from self._problem.__cause__
            else:
                trace.send()
                self._pieces = _pieces(self._response)
                self._news = read_head(self._response)
            finally:
                self.reused = trace.reused

    async def send(self, request: HttpRequest) -> None:
        """Done by `open`."""
        assert self._trace is not None and self._trace.sent

    async def receive(self) -> list[HttpEvent]:
        """The head, then the pieces of the body as they come, then the end. Raises `OSError` or `InferenceError`."""
        if self._problem is not None:
            raise self._problem from self._problem.__cause__
        if self._news:
            news, self._news = self._news, []
            return news
        if self._pieces is None or self._request is None:
            raise NetworkError("the wait for this answer was called off")
        pieces, self._pieces = self._pieces, None  # given back unless this ends them
        piece: bytes | None = None
        try:
            with self._interruptible():
                piece = await anext(pieces, None)
        except Exception as error:
            self._problem = _failure(self._module, error, self._request)
            raise self._problem from self._problem.__cause__
        if piece is None:
            return [END]
        self._pieces = pieces
        return [piece]

    @contextmanager
    def _interruptible(self) -> Generator[None]:
        """What waits inside is woken by `interrupt`, and fails."""
        with anyio.CancelScope() as self._scope:
            if self._interrupted:
                self._scope.cancel()
            yield
        scope, self._scope = self._scope, None
        if scope.cancelled_caught:
            raise ConnectionAbortedError("interrupted")

    def interrupt(self) -> None:
        """Wake whoever waits on this line."""
        self._interrupted = True
        if self._scope is not None:
            self._scope.cancel()

    def let_go(self, *, keep: bool) -> None:
        """Part with the client, wherever the request stands. Idempotent."""
        pieces, self._pieces = self._pieces, None
        self._part(pieces, keep=keep and self._problem is None)
        self._response = None


class Remnants:
    """Answers that were left before their end. To be cleared by whoever may wait."""

    def __init__(self) -> None:
        self._left: deque[tuple[Pieces, float]] = deque()

    def __len__(self) -> int:
        return len(self._left)

    def add(self, pieces: Pieces, patience: float = 0.0) -> None:
        """Keep these pieces until they can be brought to their end."""
        self._left.append((pieces, patience))

    async def clear(self) -> None:
        """Bring every one to its end."""
        while self._left:
            await finish(*self._left.popleft())


async def finish(pieces: Pieces, patience: float) -> bool:
    """Bring an answer to its end. Returns whether it came by itself, in a few pieces within ``patience`` seconds."""
    if patience > 0:
        with anyio.move_on_after(patience), contextlib.suppress(Exception):
            for _ in range(MAX_TAIL_READS):
                if await anext(pieces, None) is None:
                    return True
    with anyio.CancelScope() as scope, contextlib.suppress(Exception):
        scope.cancel()  # what would wait for the network is called off, and what holds it lets go
        async for _ in pieces:
            pass
    return False


def hang_up(stream: Any) -> None:
    """Close a connection now. Those of httpcore close their socket, and only then give way to others: so far it is run."""
    if stream is not None:
        closing = stream.aclose()
        with contextlib.suppress(Exception):
            closing.send(None)
        closing.close()


# ---- clients of our own ------------------------------------------------------------------------------------------------


class Connection:
    """A private client, which holds one connection at most."""

    def __init__(self, client: Any, remnants: Remnants) -> None:
        self.client = client
        self.stream: Any = None
        self.tail: Pieces | None = None
        """What is left of an answer whose end nobody waited for."""
        self._remnants = remnants

    async def is_fit(self) -> bool:
        """Whether another request may go over it. An answer's last bytes that nobody waited for do not cost it."""
        tail, self.tail = self.tail, None
        return (tail is None or await finish(tail, PATIENCE)) and is_open(self.stream)

    def close(self) -> None:
        """Close the socket, without waiting. Idempotent."""
        tail, self.tail = self.tail, None
        hang_up(self.stream)
        if tail is not None:
            self._remnants.add(tail)


class PooledTaskLine(TaskLine):
    """A line over a pooled connection."""

    def __init__(self, client: TaskClient) -> None:
        super().__init__(client.module, client.remnants)
        self._client = client
        self._connection: Connection | None = None
        self._grant: Grant[Connection] | None = None
        self._granted = anyio.Event()

    async def _get(self, origin: Origin, *, fresh: bool) -> Any:
        while self._connection is None:
            self._client.acquire(self, origin, fresh=fresh)
            if self._grant is None:
                await self._granted.wait()
            assert self._grant is not None
            grant, self._grant, self._granted = self._grant, None, anyio.Event()
            if grant.connection is None:
                self._connection = Connection(self._client.make(origin), self._remnants)
                self._client.opened(self, self._connection, None)
                break
            self._connection = grant.connection
            if not await grant.connection.is_fit():
                self._connection = None
                self._client.lose(grant.connection)
        return self._connection.client

    def grant(self, grant: Grant[Connection]) -> None:
        """The pool's answer."""
        self._grant = grant
        self._granted.set()

    def refuse(self) -> None:
        """The pool is closed."""
        self.interrupt()

    def _part(self, pieces: Pieces | None, *, keep: bool) -> None:
        connection, self._connection = self._connection, None
        grant, self._grant = self._grant, None
        if connection is not None:
            if self._trace is not None and self._trace.stream is not None:
                connection.stream = self._trace.stream
            connection.tail = pieces
            if keep and is_open(connection.stream):
                self._client.release(connection)
            else:
                self._client.lose(connection)
        elif grant is not None and grant.connection is not None:  # called off between the grant and its use
            self._client.release(grant.connection)
        else:
            self._client.withdraw(self)


class TaskClient(PooledClient[Connection, PooledTaskLine]):
    """Connections to any number of origins by way of httpx or httpx2, pooled. Belongs to one event loop.

    module: which of the two. clock: the time of this world. HTTP/1.1 only.
    """

    def __init__(
        self, module: Any, clock: Callable[[], float], ssl_context: ssl.SSLContext | None, pool: PoolConfig | None
    ) -> None:
        super().__init__(ssl_context, pool)
        try_environment(module)
        self.module = module
        self.remnants = Remnants()
        self._clock = clock

    def now(self) -> float:
        """The clock of this world."""
        return self._clock()

    def start(self, tasks: object) -> None:
        """A driver may lend its tasks (trio's does): none is needed."""

    def line(self) -> PooledTaskLine:
        """For one request. Not connected yet."""
        return PooledTaskLine(self)

    def make(self, origin: Origin) -> Any:
        """A client for one connection."""
        return self.module.AsyncClient(**private_settings(self.module, self.tls(origin)))

    async def aclose(self) -> None:
        """Close every idle connection, and from now on each one given back."""
        self.close_idle()
        await self.remnants.clear()
        await anyio.lowlevel.checkpoint()  # a transport closes its socket in the loop's next round


# ---- a client of the user's ----------------------------------------------------------------------------------------------


class GivenTaskLine(TaskLine):
    """A line over whatever connection the user's client takes."""

    def __init__(self, module: Any, client: Any, remnants: Remnants) -> None:
        super().__init__(module, remnants)
        self._client = client

    async def _get(self, origin: Origin, *, fresh: bool) -> Any:
        return self._client

    def _part(self, pieces: Pieces | None, *, keep: bool) -> None:
        if pieces is None:
            return
        if not keep and self._response is not None and is_over_http1(self._response):
            hang_up(self._response.extensions.get("network_stream"))
        self._remnants.add(pieces, PATIENCE if keep else 0.0)


class GivenTaskClient:
    """An `httpx.AsyncClient` that the user has built. Never closed here: whoever opens a client closes it."""

    def __init__(self, module: Any, client: Any) -> None:
        if not isinstance(client, module.AsyncClient):
            raise ValueError(f"client: this driver needs an {module.__name__}.AsyncClient")
        self.module = module
        self.remnants = Remnants()
        self._client = client

    def start(self, tasks: object) -> None:
        """A driver may lend its tasks (trio's does): none is needed."""

    def line(self) -> GivenTaskLine:
        """For one request. Not connected yet."""
        return GivenTaskLine(self.module, self._client, self.remnants)

    def deadline(self) -> float | None:
        """The client keeps time for its own connections."""
        return None

    def expire(self, now: float) -> None:
        """Nothing is kept here."""

    async def aclose(self) -> None:
        """Let go of what was left before its end."""
        await self.remnants.clear()


def _pieces(response: Any) -> Pieces:
    """The body as it comes. What a transport or a hook of the user's has read already is there as a whole."""
    return _once(response.content) if response.is_stream_consumed else response.aiter_raw()


async def _once(content: bytes) -> AsyncGenerator[bytes]:
    if content:
        yield content


def _failure(module: Any, error: Exception, request: HttpRequest) -> OSError | InferenceError:
    """As `failure`, for what anyio lets through besides."""
    if isinstance(error, (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)):
        return NetworkError(f"{type(error).__name__}: the connection is lost").caused_by(error)
    return failure(module, error, request)
