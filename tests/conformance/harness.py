"""One interface over every driver, so that each behaviour is written once, as a plain function.

    lab      a mock provider on a real socket, and what is needed to reach it one way to the wire
    engine   the driver under test: `lab.engine(…)` opens it, checks it when it closes
    asked    one request under way, made by a caller of its own: a thread, or a task on the driver's event loop

A test runs in the main thread and looks on: it asks, waits for what should come (`eventually`), and compares. Nothing here
sleeps and hopes. Whatever is left behind (a connection, a thread, a task, a request that no count knows) fails the test that
left it.

`WAYS` is the one list of ways to the wire. A further transport (HTTP/2, a general client) is another row: a `Way` with its
name, and its client in `Way.client`.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import signal
import socket
import ssl
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import anyio
import trio
from anyio.from_thread import BlockingPortal, start_blocking_portal
from conformance import nginx

from drivers.mock_provider import ThreadedMockServer, serve_in_thread
from sansio import (
    Deployment,
    EngineMetrics,
    ExecuteBatch,
    Http2,
    InferenceError,
    Message,
    Notice,
    PoolConfig,
    Secret,
    TokenChunk,
    Tokens,
)
from sansio.simulation import Fault, FaultScript, MockProvider
from sansio.simulation.provider.answers import expected_text
from sansio.simulation.provider.mock_provider import RequestRecord

T = TypeVar("T")

KEY = "sk-conformance-0123456789abcdef"
"""The key that the provider takes, unless a test says otherwise."""

PATIENCE = 30.0
"""Seconds until something that should come counts as missing. Never reached where all is well."""

QUICK_RETRIES: Mapping[str, Any] = {"initial_backoff": 0.01, "max_backoff": 0.1}


# ---- ways to the wire ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Way:
    """One driver, over one transport, with or without TLS."""

    driver: str
    tls: bool
    transport: str = "native"

    def __str__(self) -> str:
        return f"{self.driver}-{self.transport}-{'tls' if self.tls else 'plain'}"

    @property
    def module(self) -> Any:
        """The driver's package."""
        return importlib.import_module(f"drivers.{self.driver}_driver")

    @property
    def shares_connections(self) -> bool:
        """Whether several requests go over one connection at a time."""
        return self.transport.endswith("http2")

    @property
    def through_nginx(self) -> bool:
        """Whether nginx stands between the driver and the provider."""
        return self.transport.startswith("nginx")

    def client(self, trusting: ssl.SSLContext, pool: PoolConfig | None = None) -> Any:
        """A client that moves the bytes this way. ``pool``: also says which HTTP it speaks, unless it leaves that open."""
        match self.transport:
            case "native" | "nginx-http1":
                return self.module.build_client(ssl_context=trusting, pool=pool)
            case "http2" | "nginx-http2":
                pool = pool or PoolConfig()
                if pool.http2 is Http2.OFF:
                    pool = replace(pool, http2=Http2.ONLY)
                return self.module.build_client(ssl_context=trusting, pool=pool)
            case "httpx" | "httpx2":
                return self.module.build_client(self.transport, ssl_context=trusting, pool=pool)
            case _:
                raise ValueError(f"transport: {self.transport!r} is unknown")

    @property
    def cannot(self) -> Mapping[str, str]:
        """Behaviours that this way cannot show, by the name of their test (and of one case of it), each with its reason."""
        if self.through_nginx:
            return {test: why for test, (why, transport) in NOT_THROUGH_NGINX.items() if self.transport.endswith(transport)}
        if self.driver != "sync" or self.transport not in ("httpx", "httpx2"):
            return {}
        return {test: why for test, (why, plain_only) in NOT_WHILE_CONNECTING.items() if not (self.tls and plain_only)}


NOT_WHILE_CONNECTING: Mapping[str, tuple[str, bool]] = {
    "test_called_off_while_connecting": ("Ctrl-C ends the connect, but leaves its socket to the garbage collector", False),
    "test_close_while_connecting": ("a TCP connect ends by connect_timeout, and is not woken; a TLS handshake is", True),
}
"""What the blocking httpx cannot do while it connects (and whether that is so without TLS only): it dials by
`socket.create_connection`, which shows its socket to nobody."""

OWN_CONNECTIONS = "nginx keeps the driver's connection when the provider ends its own"
OWN_FRAMING = "nginx frames the body anew, and hangs up where the provider's framing breaks"
HEAD_HELD_BACK = "nginx (1.22) writes a head into its TLS buffer, and sends it with what follows"
UPSTREAM_HTTP1 = "nginx asks the provider over HTTP/1.1, which has no way to say so"
NOT_LOST = "over HTTP/2, nginx ends the one stream and keeps the connection"
READS_AHEAD = "the sockets between nginx and the provider hold some MiB"

NOT_THROUGH_NGINX: Mapping[str, tuple[str, str]] = {
    "test_a_kept_connection_that_the_server_gave_up_does_not_fail_the_next_request": (OWN_CONNECTIONS, ""),
    "test_a_connection_that_the_server_closes_while_it_is_idle_costs_nothing": (OWN_CONNECTIONS, ""),
    "test_a_shared_connection_that_the_server_closes_is_forgotten_without_another_request": (OWN_CONNECTIONS, ""),
    "test_a_stream_that_breaks_before_its_content_is_retried[garbage for a chunk's size]": (OWN_FRAMING, ""),
    "test_a_unary_answer_that_breaks_in_its_body_is_retried[garbage for a chunk's size]": (OWN_FRAMING, ""),
    "test_a_break_after_the_commit_point_is_never_replayed[garbage for a chunk's size]": (OWN_FRAMING, ""),
    "test_a_stall_right_after_the_head_is_the_read_timeouts": (HEAD_HELD_BACK, "http2"),
    "test_a_stall_before_content_is_retried": (HEAD_HELD_BACK, "http2"),
    "test_what_the_server_never_looked_at_goes_again_even_if_it_must_not_be_done_twice": (UPSTREAM_HTTP1, "http2"),
    "test_requests_before_a_goaway_go_on_to_their_end_and_new_ones_go_elsewhere": (UPSTREAM_HTTP1, "http2"),
    "test_a_caller_that_pauses_stops_its_own_answer_and_no_other": (READS_AHEAD, "http2"),
    "test_a_caller_that_pauses_stops_the_server_instead_of_filling_memory": (READS_AHEAD, ""),
    "test_a_kept_connection_that_breaks_under_the_next_request_does_not_fail_it": (NOT_LOST, "http2"),
    "test_a_request_that_meets_a_connection_just_given_up_goes_again_at_once": (NOT_LOST, "http2"),
    "test_the_second_loss_in_a_row_is_an_ordinary_failure": (NOT_LOST, "http2"),
}
"""What nginx keeps to itself, and over which HTTP (empty: over both). `test_nginx.py` shows what it does of itself."""


ALL_WAYS = bool(os.environ.get("ALL_WAYS"))
"""For the sake of time only some of the combinations are tried, unless this is set in the environment."""

SOME_GENERAL = {("sync", "httpx", False), ("sync", "httpx2", True), ("asyncio", "httpx2", True), ("trio", "httpx", False)}
"""The two general clients are the same code here, and nearly so on asyncio and on trio."""

WAYS = [
    Way(driver, tls, transport)
    for transport in ("native", "http2", "httpx", "httpx2")
    for driver in ("sync", "asyncio", "trio")
    for tls in (False, True)
    if ALL_WAYS or transport not in ("httpx", "httpx2") or (driver, transport, tls) in SOME_GENERAL
]
"""Every behaviour holds on each of these."""

if nginx.PROGRAM is not None:
    WAYS += [
        Way(driver, True, f"nginx-{http}")
        for http in ("http1", "http2")
        for driver in ("sync", "asyncio", "trio")
        if ALL_WAYS or http == "http2" or driver == "asyncio"
    ]
elif os.environ.get("CI"):
    raise RuntimeError(f"the drivers are to be tested through nginx too: {nginx.HOW_TO_INSTALL}")


@dataclass(frozen=True, slots=True)
class Tls:
    """Both ends' contexts: a server's with a certificate of its own authority, a client's that trusts it."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    certificate: Path = Path()
    """The server's key and certificate, where nginx needs them."""


# ---- waiting and telling ---------------------------------------------------------------------------------------------


def eventually(condition: Callable[[], T]) -> T:
    """Wait until ``condition()`` is true, and return what it gave."""
    give_up_at = time.monotonic() + PATIENCE
    while not (found := condition()):
        if time.monotonic() > give_up_at:
            raise AssertionError("this never came true")
        time.sleep(0.002)
    return found


def meanwhile(work: Callable[[], T]) -> Future[T]:
    """Run something that blocks in a thread of its own."""
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name="meanwhile", daemon=True).start()
    return outcome


def said(prompt: str = "hello", tokens: int = 20) -> str:
    """What the mock provider answers to ``prompt``: nothing else has this text."""
    return expected_text(prompt, tokens)


def batch(prompt: str = "hello", **settings: Any) -> ExecuteBatch:
    """The shortest request for ``prompt``."""
    return ExecuteBatch(messages=[Message(role="user", content=prompt)], **settings)


def causes(error: BaseException | None) -> list[BaseException]:
    """The error and what led to it, outermost first; what failed together is opened up."""
    if error is None:
        return []
    together = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return [error, *(cause for one in together for cause in causes(one)), *causes(error.__cause__)]


# ---- one request -----------------------------------------------------------------------------------------------------


class Asked:
    """One request under way. Its caller runs elsewhere; the test looks on."""

    def __init__(self, prompt: str | ExecuteBatch, unary: bool, pause_after: int | None, leave_after: int | None) -> None:
        self.batch = batch(prompt) if isinstance(prompt, str) else prompt
        self.unary = unary
        self.pause_after = pause_after
        self.leave_after = leave_after
        self.chunks: list[TokenChunk] = []
        self.paused = threading.Event()
        self.resume: Callable[[], object] = lambda: None
        self._over = threading.Event()
        self._answer: Tokens | None = None
        self.failure: Exception | None = None
        """What it ended with, once it is over, if that was an error."""

    @property
    def text(self) -> str:
        """What has reached the caller so far."""
        return "".join(chunk.text_delta for chunk in self.chunks)

    @property
    def over(self) -> bool:
        """Whether the caller is done: it has an answer or an error, has left, or was called off."""
        return self._over.is_set()

    def wait(self) -> Asked:
        """Wait until it is over."""
        assert self._over.wait(PATIENCE), "the request never ended"
        return self

    @property
    def answer(self) -> Tokens:
        """The answer, once there is one. Raises what the caller was raised."""
        self.wait()
        if self.failure is not None:
            raise self.failure
        assert self._answer is not None, "it was called off"
        return self._answer

    @property
    def error(self) -> InferenceError:
        """The error it ends with."""
        self.wait()
        assert isinstance(self.failure, InferenceError), f"ended with {self.failure!r}, {self._answer!r}"
        return self.failure

    # ---- for the caller that runs it ------------------------------------------------------------------------------

    def take(self, chunk: TokenChunk) -> None:
        """A chunk has reached the caller."""
        self.chunks.append(chunk)

    @property
    def pauses(self) -> bool:
        """Whether the caller steps away now."""
        return len(self.chunks) == self.pause_after

    @property
    def leaves(self) -> bool:
        """Whether the caller has had enough."""
        return len(self.chunks) == self.leave_after

    @contextmanager
    def noting_the_end(self) -> Iterator[None]:
        """Keep how it ends. What calls a caller off passes through."""
        try:
            yield
        except Exception as error:
            self.failure = error
        finally:
            self._over.set()

    def end(self, answer: Tokens | None = None) -> None:
        """The caller has all it wanted."""
        self._answer = Tokens.from_chunks(self.chunks) if answer is None else answer


# ---- the driver under test -------------------------------------------------------------------------------------------


class Engine(ABC):
    """A running `RemoteEngine` of any driver, used from the test's thread."""

    def __init__(self, real: Any, notices: list[Notice]) -> None:
        self.real = real
        self.notices = notices

    def ask(
        self,
        prompt: str | ExecuteBatch = "hello",
        *,
        unary: bool = False,
        pause_after: int | None = None,
        leave_after: int | None = None,
        **options: Any,
    ) -> Asked:
        """A caller of its own asks. ``pause_after``: after so many chunks it steps away until `Asked.resume`;
        ``leave_after``: it breaks out of its loop. ``options`` go to `stream` or `generate`."""
        asked = Asked(prompt, unary, pause_after, leave_after)
        self._start(asked, options)
        return asked

    def generate(self, prompt: str | ExecuteBatch = "hello", **options: Any) -> Tokens:
        """A unary answer, or what it raises."""
        return self.ask(prompt, unary=True, **options).answer

    def stream(self, prompt: str | ExecuteBatch = "hello", **options: Any) -> Tokens:
        """A streamed answer, folded, or what it raises."""
        return self.ask(prompt, **options).answer

    @property
    def metrics(self) -> EngineMetrics:
        """The engine's own counts."""
        metrics: EngineMetrics = self.call(lambda: self.real.metrics())
        return metrics

    def heard(self, kind: str) -> list[Notice]:
        """The notices of one kind so far."""
        return [notice for notice in self.notices if notice.kind == kind]

    @abstractmethod
    def ask_and_give_up(self, when: Callable[[], object], prompt: str | ExecuteBatch = "hello", **options: Any) -> Asked:
        """A caller asks, and is called off from outside as soon as ``when()`` holds; returns once it has let go.

        A task is cancelled; a thread is interrupted as by Ctrl-C, for there is no other way."""

    @abstractmethod
    def call(self, work: Callable[[], T]) -> T:
        """Run ``work`` where the driver wants to be called."""

    @abstractmethod
    def drain(self) -> None: ...

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def _start(self, asked: Asked, options: Mapping[str, Any]) -> Any: ...


class GaveUp(BaseException):
    """What interrupts a thread."""


class ThreadsEngine(Engine):
    """The blocking driver: every caller is a thread."""

    @classmethod
    @contextmanager
    def running(cls, way: Way, make: Callable[[], tuple[Any, list[Notice]]]) -> Iterator[ThreadsEngine]:
        real, notices = make()
        with real:
            yield cls(real, notices)

    def _start(self, asked: Asked, options: Mapping[str, Any]) -> None:
        threading.Thread(target=self._run, args=(asked, options), name="caller", daemon=True).start()

    def _run(self, asked: Asked, options: Mapping[str, Any]) -> None:
        back = threading.Event()
        asked.resume = back.set
        with asked.noting_the_end():
            if asked.unary:
                asked.end(self.real.generate(asked.batch, **options))
                return
            with self.real.stream(asked.batch, **options) as chunks:
                if asked.leaves:
                    return
                for chunk in chunks:
                    asked.take(chunk)
                    if asked.pauses:
                        asked.paused.set()
                        back.wait()
                    if asked.leaves:
                        break
            asked.end()

    def ask_and_give_up(self, when: Callable[[], object], prompt: str | ExecuteBatch = "hello", **options: Any) -> Asked:
        asked = Asked(prompt, options.pop("unary", False), None, None)
        here = threading.get_ident()

        heard = threading.Event()

        def give_up(*_: object) -> None:
            if not heard.is_set():
                heard.set()
                raise GaveUp

        def watch() -> None:
            try:
                eventually(when)
                eventually(
                    lambda: _stands_still(here)
                )  # it waits: an interrupt between two instructions could harm any code
            finally:
                while not (heard.is_set() or asked.over):
                    signal.pthread_kill(here, signal.SIGUSR1)
                    heard.wait(0.05)  # one that comes just before the thread blocks is not heard until the next

        before = signal.signal(signal.SIGUSR1, give_up)  # signals reach the main thread only, so it is the caller here
        watched = meanwhile(watch)
        try:
            self._run(asked, options)
        except GaveUp:
            pass
        finally:
            heard.set()
            watched.result()
            signal.signal(signal.SIGUSR1, before)
        return asked

    def call(self, work: Callable[[], T]) -> T:
        return work()

    def drain(self) -> None:
        self.real.drain()

    def close(self) -> None:
        self.real.close()


class TasksEngine(Engine):
    """A driver of an event loop: the loop runs in a thread of its own, every caller is a task on it."""

    def __init__(self, real: Any, notices: list[Notice], portal: BlockingPortal) -> None:
        super().__init__(real, notices)
        self._portal = portal

    @classmethod
    @contextmanager
    def running(cls, way: Way, make: Callable[[], tuple[Any, list[Notice]]]) -> Iterator[TasksEngine]:
        async def make_there() -> tuple[Any, list[Notice]]:
            return make()

        async def count_tasks() -> int:
            if way.driver == "trio":
                return trio.lowlevel.current_statistics().tasks_living
            return len(asyncio.all_tasks())

        with start_blocking_portal(way.driver) as portal:
            before = portal.call(count_tasks)
            real, notices = portal.call(make_there)
            with portal.wrap_async_context_manager(real):
                yield cls(real, notices, portal)
            eventually(lambda: portal.call(count_tasks) == before)

    def _start(self, asked: Asked, options: Mapping[str, Any]) -> Future[None]:
        return self._portal.start_task_soon(self._run, asked, options)

    async def _run(self, asked: Asked, options: Mapping[str, Any]) -> None:
        back = anyio.Event()
        asked.resume = lambda: self._portal.start_task_soon(back.set)
        with asked.noting_the_end():
            if asked.unary:
                asked.end(await self.real.generate(asked.batch, **options))
                return
            async with self.real.stream(asked.batch, **options) as chunks:
                if asked.leaves:
                    return
                async for chunk in chunks:
                    asked.take(chunk)
                    if asked.pauses:
                        asked.paused.set()
                        await back.wait()
                    if asked.leaves:
                        break
            asked.end()

    def ask_and_give_up(self, when: Callable[[], object], prompt: str | ExecuteBatch = "hello", **options: Any) -> Asked:
        asked = Asked(prompt, options.pop("unary", False), None, None)
        task = self._start(asked, options)
        eventually(when)
        task.cancel()
        return asked.wait()

    def call(self, work: Callable[[], T]) -> T:
        return self._portal.call(work)

    def drain(self) -> None:
        self._portal.call(self.real.drain)

    def close(self) -> None:
        self._portal.call(self.real.aclose)


# ---- the bench on which all stands -----------------------------------------------------------------------------------


class Lab:
    """A mock provider on a socket, and engines that reach it one way. What is left behind at the end is a failure."""

    def __init__(self, way: Way, tls: Tls) -> None:
        self.way = way
        self._tls = tls
        self._exits = ExitStack()
        self._server: ThreadedMockServer | None = None
        self._front: nginx.Front | None = None

    @contextmanager
    def watched(self) -> Iterator[Lab]:
        """The lab, until the test is over and everything is found to be gone."""
        threads = _threads()
        with self._exits:
            yield self
            if self._server is not None:
                eventually(lambda: self.peer.connections_open == 0 and self.provider.active == 0)
        eventually(lambda: _threads() <= threads)
        gc.collect()  # a socket or a coroutine that was forgotten warns now, and a warning is an error

    # ---- the provider -----------------------------------------------------------------------------------------------

    def serve(
        self, *, port: int = 0, http2: bool | None = None, front: Mapping[str, Any] | None = None, **settings: Any
    ) -> ThreadedMockServer:
        """Start the provider. Done by itself with a plain one where a test does not care. ``front``: for nginx before it."""
        provider = MockProvider(**{"keys": [KEY], **settings})
        if not self.way.through_nginx:
            context = self._tls.server if self.way.tls else None
            self._server = self._exits.enter_context(serve_in_thread(provider, port=port, ssl_context=context, http2=http2))
            return self._server
        server = self._server = self._exits.enter_context(serve_in_thread(provider))
        streams = settings.get("max_concurrent_streams", 100)
        running = nginx.run(
            server.port, self._tls.certificate, port=port, http2=http2 is not False, streams=streams, **(front or {})
        )
        self._front = self._exits.enter_context(running)
        return server

    @property
    def server(self) -> ThreadedMockServer:
        """The running server."""
        return self._server or self.serve()

    @property
    def provider(self) -> MockProvider:
        """The provider itself: its counters and its log may be read at any time."""
        return self.server.provider

    @property
    def front(self) -> nginx.Front:
        """The nginx before it, on the ways that lead through one."""
        assert self.server
        assert self._front is not None
        return self._front

    @property
    def peer(self) -> MockProvider | nginx.Front:
        """What the driver's connections end at, which counts them: the provider, or nginx before it."""
        return self.front if self.way.through_nginx else self.provider

    @property
    def endpoint(self) -> str:
        """Where the driver finds the provider."""
        return url_of(self.way, self.front.port if self.way.through_nginx else self.server.port)

    @property
    def log(self) -> list[RequestRecord]:
        """The requests that reached the provider, in the order of arrival."""
        return self.provider.log

    def script(self, *faults: Fault | None, then: Fault | None = None) -> None:
        """The n-th request from now on meets the n-th fault; every later one ``then``."""
        script = FaultScript(faults, then=then)
        self.server.call(lambda provider: setattr(provider, "faults", script))

    def take_keys(self, *keys: str) -> None:
        """From now on the provider takes these keys only."""
        self.server.call(lambda provider: provider.rotate_keys(keys))

    def let_pass(self, engine: Engine) -> None:
        """Return once the server, and then the engine's loop, have done whatever they had begun."""
        for _ in range(3):
            self.server.call(lambda provider: None)
        for _ in range(3):
            engine.call(lambda: None)

    # ---- engines ----------------------------------------------------------------------------------------------------

    def deployment(
        self,
        name: str = "chat",
        *,
        model: str = "gpt-4o",
        key: Secret | None = None,
        endpoint: str | None = None,
        retry: Mapping[str, Any] | None = None,
        serving: Mapping[str, Any] | None = None,
        idempotent: bool = True,
        budget: Mapping[str, Any] | None = None,
        **runtime: Any,
    ) -> Deployment:
        """A deployment at this provider. Retries come quickly unless told otherwise."""
        return Deployment(
            name=name,
            model=model,
            runtime="openai",
            runtime_config={
                "endpoint": endpoint or self.endpoint,
                "api_key": key or Secret.inline(KEY),
                "retry": {**QUICK_RETRIES, **(retry or {})},
                **runtime,
            },
            serving=serving or {},
            idempotent=idempotent,
            budget=budget,
        )

    @contextmanager
    def engine(
        self,
        *deployments: Deployment,
        on_notice: Callable[[Notice], None] | None = None,
        pool: PoolConfig | None = None,
        **settings: Any,
    ) -> Iterator[Engine]:
        """A running engine: of these deployments, or of the one that ``settings`` describe. ``pool``: its connections."""
        hosted: Sequence[Deployment] = deployments or [self.deployment(**settings)]

        def make() -> tuple[Any, list[Notice]]:
            notices: list[Notice] = []

            def note(notice: Notice) -> None:
                notices.append(notice)
                if on_notice is not None:
                    on_notice(notice)

            client = self.way.client(self._tls.client, pool)
            return self.way.module.RemoteEngine(hosted, client=client, on_notice=note), notices

        kind = ThreadsEngine if self.way.driver == "sync" else TasksEngine
        with kind.running(self.way, make) as engine:
            yield engine
            engine.close()
            metrics = engine.metrics
            assert metrics.queued == metrics.waiting == metrics.in_flight == 0
            assert metrics.submitted == metrics.done + metrics.failed + metrics.cancelled + metrics.rejected

    # ---- places that do not answer ----------------------------------------------------------------------------------

    @contextmanager
    def nobody(self) -> Iterator[int]:
        """A port where connections are refused, until a server is started on it."""
        with socket.socket() as placeholder:
            placeholder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            placeholder.bind(("127.0.0.1", 0))
            yield placeholder.getsockname()[1]

    @contextmanager
    def black_hole(self) -> Iterator[str]:
        """An endpoint where no connection ever stands: its backlog is full, or (TLS) nobody shakes hands."""
        with ExitStack() as sockets:
            listener = sockets.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            listener.listen(0 if not self.way.tls else 128)
            if not self.way.tls:
                for _ in range(8):
                    filler = sockets.enter_context(socket.socket())
                    filler.setblocking(False)
                    filler.connect_ex(listener.getsockname())
            yield f"{'https' if self.way.tls else 'http'}://127.0.0.1:{listener.getsockname()[1]}/v1"


def _stands_still(thread_id: int) -> bool:
    """Whether a thread is where it was a moment ago."""
    frame = sys._current_frames()[thread_id]
    at = frame.f_lasti
    time.sleep(0.02)
    return sys._current_frames()[thread_id] is frame and frame.f_lasti == at


def _threads() -> set[threading.Thread]:
    """The threads there are."""
    return set(threading.enumerate())


def url_of(way: Way, port: int) -> str:
    """The endpoint at a port of this machine."""
    return f"{'https' if way.tls else 'http'}://127.0.0.1:{port}/v1"
