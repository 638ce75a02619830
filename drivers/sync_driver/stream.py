"""One request in a world of threads: the steps of its `RemoteWorker`, each carried out by its caller's own thread.

A *line* is one request's use of a connection: over HTTP/1.1 a connection has one line at a time, over HTTP/2 many at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, assert_never

from drivers.front.engine_front import TimedClient
from sansio import HttpEvent, HttpRequest, InferenceError, RemoteWorker, TokenChunk
from sansio.worker import Connect, Deliver, Discard, Finish, Park, Post, Raise, Receive, Send

from .interrupts import SHIELD, Bell

if TYPE_CHECKING:
    from .engine import RemoteEngine


class Line(Protocol):
    """One request's use of a connection. For one thread; ``interrupt`` may come from any."""

    reused: bool
    """Once open: whether the connection has carried a request before."""

    def open(self, request: HttpRequest, timeout: float, *, fresh: bool, sending: Callable[[], None]) -> None:
        """Get a connection, within ``timeout`` seconds: from the pool unless ``fresh``, or a new one.

        A client that connects and sends in one does both, and calls ``sending`` in between. Raises `OSError` or
        `InferenceError`.
        """
        ...

    def send(self, request: HttpRequest) -> None:
        """Send the request. Raises `OSError` or `InferenceError`."""
        ...

    def receive(self) -> Sequence[HttpEvent]:
        """Wait for bytes, and say what they mean. Raises `OSError` or `InferenceError`."""
        ...

    def interrupt(self) -> None:
        """Wake the thread that is blocked on this line: it fails with an `OSError`."""
        ...

    def let_go(self, *, keep: bool) -> None:
        """Part with the connection, wherever it stands. ``keep``: it ended well, another may follow. Idempotent."""
        ...


class Client(TimedClient, Protocol):
    """Who moves the bytes."""

    def line(self) -> Line:
        """For one request. Not connected yet."""
        ...

    def close(self) -> None:
        """Close every connection, and from now on each one given back."""
        ...


class TokenStream:
    """One request: a context manager that gives an iterator of `TokenChunk`. For one thread at a time."""

    def __init__(self, engine: RemoteEngine, worker: RemoteWorker) -> None:
        self.worker = worker
        self._engine = engine
        self._bell = Bell()
        self._line: Line | None = None
        self._guard = threading.Lock()  # nobody interrupts a line whose connection has just gone to somebody else

    def __enter__(self) -> Iterator[TokenChunk]:
        with SHIELD:
            self._engine.register(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with SHIELD:
            self.let_go(keep=False)  # also what was still connecting
            self._engine.hang_up(self)

    def __iter__(self) -> Iterator[TokenChunk]:
        return self

    def __next__(self) -> TokenChunk:
        if self.worker.chunks:
            return self.worker.chunks.popleft()
        with SHIELD:
            self._engine.enter(self)
            try:
                return self._advance()
            finally:
                self._engine.step_away(self)

    def _advance(self) -> TokenChunk:
        now = time.monotonic()
        while True:
            match self.worker.step(now):
                case Receive():
                    now = self._receive()
                case Deliver(chunk):
                    return chunk
                case Post(event):
                    self._engine.tell(event)
                case Park():
                    self._bell.wait()
                    now = time.monotonic()
                case Connect() as step:
                    self._connect(step)
                    now = time.monotonic()
                case Send(request):
                    self._send(request)
                    now = time.monotonic()
                case Discard(keep):
                    self.let_go(keep=keep)
                case Finish():
                    raise StopIteration
                case Raise(error):
                    raise error
                case step:
                    assert_never(step)

    def _connect(self, step: Connect) -> None:
        line = self._line = self._engine.client.line()
        if self.worker.aborting:  # ordered before there was a line to interrupt
            line.interrupt()
        try:
            line.open(step.request, step.timeout, fresh=step.fresh, sending=self._sending)
        except BaseException as error:
            self.let_go(keep=False)  # also when called off: the caller may come back, and connects anew
            if not isinstance(error, (OSError, InferenceError)):
                raise
            self.worker.failed(error, time.monotonic())
        else:
            self.worker.connected(reused=line.reused)

    def _sending(self) -> None:
        self.worker.sending(time.monotonic())

    def _send(self, request: HttpRequest) -> None:
        assert self._line is not None
        try:
            self._line.send(request)
        except (OSError, InferenceError) as error:
            self.worker.send_failed(error)

    def _receive(self) -> float:
        """Returns the time, which then need not be read again."""
        assert self._line is not None
        try:
            events = self._line.receive()
        except (OSError, InferenceError) as error:
            now = time.monotonic()
            self.worker.failed(error, now)
        else:
            now = time.monotonic()
            self.worker.received(events, now, self._engine.unix_now())
        return now

    def wake(self) -> None:
        """The caller is parked, and has an order. Any thread may call this."""
        self._bell.ring()

    def interrupt(self) -> None:
        """Wake the caller from its line. Any thread may call this."""
        with self._guard:
            if self._line is not None:
                self._line.interrupt()

    def let_go(self, *, keep: bool) -> None:
        """Part with the line: its connection goes back to the client, or is closed."""
        with self._guard:
            line, self._line = self._line, None
        if line is not None:
            line.let_go(keep=keep)
