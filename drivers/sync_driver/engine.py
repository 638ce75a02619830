"""`RemoteEngine` for threads: one lock, one timer thread, callers that drive their own requests.

Nothing is decided here. Under the lock the engine is told a fact; what that asks for is done outside of it. A request runs
in its caller's thread, step by step as its `RemoteWorker` says.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Protocol, TypeVar, Unpack, assert_never

from drivers.credentials import as_credential, credential_error, read_secret
from drivers.front import EngineFront, RequestOptions
from drivers.front.engine_front import Deployments, TimedClient
from sansio import (
    Close,
    Credential,
    Drain,
    EngineMetrics,
    Event,
    ExecuteBatch,
    HttpEvent,
    HttpRequest,
    InferenceError,
    Notice,
    RefreshSession,
    RemoteWorker,
    Secret,
    SessionReport,
    TokenChunk,
    Tokens,
)
from sansio.worker import Connect, Deliver, Discard, Finish, Park, Post, Raise, Receive, Send

from .client import build_choice
from .interrupts import SHIELD, Bell

Result = TypeVar("Result")


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


class RemoteEngine(EngineFront["TokenStream", Client]):
    """Calls the providers of its deployments. A context manager; any number of threads may use it inside.

    deployments: one, several, or a `RemoteEngineConfig`. on_notice: called with each `Notice`, outside the lock, from
    whichever thread met it; it must not wait, close or drain. client: who moves the bytes, by default the
    native client, or a general one where the environment names a proxy;
    closed with the engine. Raises `ValueError` for a configuration that cannot work, such as a missing key.
    """

    def __init__(
        self,
        deployments: Deployments,
        *,
        on_notice: Callable[[Notice], None] | None = None,
        client: Client | None = None,
    ) -> None:
        self._lock = threading.Lock()
        super().__init__(deployments, client, build_choice, on_notice, self._alone)
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

    def _fetch(self, order: RefreshSession) -> None:
        result: Credential | InferenceError
        try:
            result = _fetch(order.secret)
        except BaseException as error:  # always report
            result = credential_error(error)
        self.tell(SessionReport(order.session, order.refresh_id, result))


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
            self.worker.received(events, now, time.time())
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


def _fetch(secret: Secret | None) -> Credential:
    if secret is not None and secret.source == "callable":
        return as_credential(secret.fetch())
    return read_secret(secret)
