"""Defects that the drivers' connections once had, each with the smallest server that showed it."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio
import trio.testing

from drivers import asyncio_driver, sync_driver, trio_driver
from drivers.sync_driver.http2 import Http2Streams
from drivers.trio_driver.client import Line, when_ready
from sansio import (
    BadRequest,
    Deployment,
    ExecuteBatch,
    Grant,
    Http2,
    InferenceError,
    Message,
    NetworkError,
    Origin,
    PoolConfig,
    ProtocolError,
    Secret,
    ServerError,
)
from sansio.http import HttpRequest

GENEROUS = 20.0
"""Seconds after which a wait that should have ended has failed."""

HTTP2 = PoolConfig(http2=Http2.ONLY)
SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
PING = bytes([0, 0, 8, 6, 0, 0, 0, 0, 0]) + bytes(8)
GOAWAY = bytes([0, 0, 8, 7, 0, 0, 0, 0, 0]) + bytes(8)
"""Of the streams so far, none was looked at."""

DRIVERS = pytest.mark.parametrize("driver", [sync_driver, asyncio_driver, trio_driver], ids=["sync", "asyncio", "trio"])


@contextmanager
def serving(serve: Callable[[socket.socket], object], receive_buffer: int | None = None) -> Iterator[str]:
    """A server that does this with each connection, in a thread of its own, and then closes it."""
    threads: list[threading.Thread] = []
    sockets: list[socket.socket] = []

    def run(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            serve(connection)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                sockets.append(connection)
                threads.append(threading.Thread(target=run, args=(connection,)))
                threads[-1].start()

    with socket.socket() as listener:
        if receive_buffer is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            acceptor.join(GENEROUS)
            for known in sockets:
                with suppress(OSError):
                    known.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join(GENEROUS)


def saying(data: bytes) -> Callable[[socket.socket], object]:
    """Say this as soon as a connection stands, then listen until the other side has left."""

    def serve(connection: socket.socket) -> None:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65_536):
            pass

    return serve


def deployment(url: str, **settings: Any) -> Deployment:
    config = {
        "endpoint": f"{url}/v1", "api_key": Secret.inline("sk-regressions-0123456789"), "retry": {"max_retries": 0}
    }  # fmt: skip
    return Deployment(name="chat", model="gpt-4o", runtime="openai", runtime_config=config, **settings)


def batch() -> ExecuteBatch:
    return ExecuteBatch(messages=[Message(role="user", content="hello")])


def failure(driver: Any, url: str, pool: PoolConfig | None = None, timeout: float = GENEROUS) -> InferenceError:
    """What a request ends with, in an engine of its own."""
    client = driver.build_client(pool=pool)

    async def ask() -> None:
        async with driver.RemoteEngine(deployment(url), client=client) as engine:
            await engine.generate(batch(), timeout=timeout)

    try:
        if driver is sync_driver:
            with driver.RemoteEngine(deployment(url), client=client) as engine:
                engine.generate(batch(), timeout=timeout)
        elif driver is asyncio_driver:
            asyncio.run(ask())
        else:
            trio.run(ask)
    except InferenceError as error:
        return error
    raise AssertionError("it was answered")


@pytest.fixture
def slow_to_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a server says at once has come before the driver has a connection in its hands."""
    connect = asyncio.BaseEventLoop.create_connection

    async def slowly(*args: Any, **kwargs: Any) -> Any:
        connected = await connect(*args, **kwargs)
        await asyncio.sleep(0.2)
        return connected

    monkeypatch.setattr(asyncio.BaseEventLoop, "create_connection", slowly)
    start = sync_driver.client.HttpClient.connection

    def started(*args: Any) -> Any:
        connection = start(*args)
        threading.Event().wait(0.2)
        return connection

    monkeypatch.setattr(sync_driver.client.HttpClient, "connection", started)


# ---- a server that speaks before it is asked ---------------------------------------------------------------------------


@DRIVERS
@pytest.mark.usefixtures("slow_to_connect")
def test_a_server_that_refuses_before_it_is_asked_is_heard(driver: Any) -> None:
    with serving(saying(b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}")) as url:
        error = failure(driver, url)
    assert isinstance(error, ServerError)
    assert error.status == 503


@DRIVERS
@pytest.mark.usefixtures("slow_to_connect")
def test_a_server_that_speaks_no_http2_before_it_is_asked_names_the_remedy(driver: Any) -> None:
    with serving(saying(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")) as url:
        error = failure(driver, url, HTTP2)
    assert isinstance(error, ProtocolError)
    assert "switch HTTP/2 off" in str(error)


@DRIVERS
@pytest.mark.usefixtures("slow_to_connect")
@pytest.mark.parametrize("data", [SETTINGS + GOAWAY, SETTINGS, b""], ids=["goaway", "settings", "nothing"])
def test_a_server_of_http2_that_leaves_before_it_is_asked_is_a_lost_connection(driver: Any, data: bytes) -> None:
    with serving(saying(data)) as url:
        error = failure(driver, url, HTTP2)
    assert isinstance(error, NetworkError)
    assert error.unprocessed == (GOAWAY in data)


# ---- a server that talks, and does not listen, or does not stop ---------------------------------------------------------


@DRIVERS
def test_a_server_that_wants_answers_and_does_not_read_them_fills_no_memory(driver: Any) -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(SETTINGS)
        for _ in range(2000):
            connection.sendall(PING * 500)

    with serving(serve, receive_buffer=4096) as url:
        error = failure(driver, url, HTTP2)
    assert isinstance(error, ProtocolError)
    assert "flood" in str(error)


def test_on_asyncio_what_a_peer_does_not_read_waits_where_it_is_bounded() -> None:
    class Transport:
        written = b""

        def write(self, data: bytes) -> None:
            self.written += data

        def is_closing(self) -> bool:
            return False

    async def main() -> None:
        transport: Any = Transport()
        client = asyncio_driver.client.HttpClient(pool=HTTP2)
        connection = asyncio_driver.client.Http2Streams(client, transport, asyncio_driver.client._Early())
        connection.data_received(SETTINGS)
        connection.pause_writing()
        transport.written = b""
        connection.data_received(PING)
        assert transport.written == b""
        connection.resume_writing()
        assert len(transport.written) == len(PING)

    asyncio.run(main())


def test_a_server_that_talks_without_end_does_not_keep_a_thread_from_ending() -> None:
    class Endless:
        def send(self, data: memoryview) -> int:
            return len(data)

        def recv(self, size: int) -> bytes:
            said = PING if moved.is_set() else SETTINGS
            moved.set()
            return said

        def setblocking(self, blocking: bool) -> None: ...

        def close(self) -> None: ...

    moved = threading.Event()
    endless: Any = Endless()
    connection = Http2Streams(sync_driver.client.HttpClient(pool=HTTP2), endless)
    moving = threading.Thread(target=connection._move, daemon=True)
    moving.start()
    assert moved.wait(GENEROUS)
    connection.close()
    moving.join(GENEROUS)
    assert not moving.is_alive()


# ---- TLS ----------------------------------------------------------------------------------------------------------------


@DRIVERS
def test_what_is_offered_by_alpn_is_set_once(driver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSL may be copying it for a handshake in another thread."""
    offered: list[list[str]] = []
    monkeypatch.setattr(ssl.SSLContext, "set_alpn_protocols", lambda self, protocols: offered.append(protocols))
    for given in (None, ssl.create_default_context()):
        client = driver.build_client(ssl_context=given, pool=PoolConfig(http2=Http2.OFFER))
        contexts = [client.tls(Origin("https", "localhost", 443)) for _ in range(3)]
        assert contexts[0] is not None
        assert contexts[0] is contexts[1] is contexts[2]
        assert given in (None, contexts[0])
    assert offered == [["h2", "http/1.1"]] * 2


def test_tls_that_wants_to_read_in_order_to_write_is_the_end_of_a_shared_connection_and_no_more() -> None:
    def wants_to_read() -> None:
        raise ssl.SSLWantReadError

    async def main(one: socket.socket) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.lowlevel.wait_readable, one)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(ConnectionAbortedError):
                await when_ready(one, wants_to_read)
            nursery.cancel_scope.cancel()

    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        trio.run(main, one)


# ---- the rest ------------------------------------------------------------------------------------------------------------


@DRIVERS
@pytest.mark.parametrize("http2", [Http2.OFFER, Http2.ONLY])
def test_http2_without_its_extra_is_known_at_once(driver: Any, http2: Http2, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h2.settings", None)
    with pytest.raises(ImportError, match="http2"):
        driver.build_client(pool=PoolConfig(http2=http2))


def test_on_trio_a_line_whose_grant_was_of_no_use_waits_for_the_next() -> None:
    class Unfit:
        def is_fit(self) -> bool:
            return False

        async def settles(self) -> bool:
            return False

        def leave(self, line: Line, *, keep: bool) -> None: ...

    class Fit(Unfit):
        def is_fit(self) -> bool:
            return True

    class Client:
        def __init__(self) -> None:
            self.asked = 0

        def acquire(self, line: Any, origin: Origin, *, fresh: bool) -> None:
            self.asked += 1
            if self.asked == 1:
                line.grant(Grant(Unfit(), reused=True))

    async def main() -> None:
        client: Any = Client()
        line: Any = Line(client)
        request = HttpRequest("GET", "http://localhost")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: line.open(request, 1.0, fresh=False, sending=lambda: None))
            await trio.testing.wait_all_tasks_blocked()
            assert client.asked == 2
            line.grant(Grant(Fit(), reused=True))

    trio.run(main)


EVENTS = b'data: {"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
ANSWER = HEAD + b"%x\r\n%b\r\n" % (len(EVENTS), EVENTS)
"""A streamed answer but for the last chunk, which says that it is over."""


@DRIVERS
@pytest.mark.parametrize("late", [True, False], ids=["late", "never"])
def test_a_connection_is_used_again_though_the_end_of_its_answer_comes_apart(
    driver: Any, late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections: list[socket.socket] = []

    def serve(connection: socket.socket) -> None:
        connections.append(connection)
        while connection.recv(65_536):
            connection.sendall(ANSWER)
            if late:
                threading.Event().wait(0.05)
                connection.sendall(b"0\r\n\r\n")

    async def ask() -> list[str]:
        async with driver.RemoteEngine(deployment(url)) as engine:
            texts: list[str] = []
            for _ in range(3):
                async with engine.stream(batch()) as chunks:
                    texts.append("".join([chunk.text_delta async for chunk in chunks]))
            return texts

    monkeypatch.setattr(driver.client, "TAIL_PATIENCE", GENEROUS if late else 0.01)
    with serving(serve) as url:
        if driver is sync_driver:
            texts: list[str] = []
            with driver.RemoteEngine(deployment(url)) as engine:
                for _ in range(3):
                    with engine.stream(batch()) as chunks:
                        texts.append("".join(chunk.text_delta for chunk in chunks))
        else:
            texts = asyncio.run(ask()) if driver is asyncio_driver else trio.run(ask)
        assert texts == ["hi"] * 3
        assert len(connections) == (1 if late else 3)


# ---- connections that are no longer what they were -----------------------------------------------------------------------

REFUSAL = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n{}"


@DRIVERS
def test_an_answer_that_nobody_asked_for_is_nobodys(driver: Any) -> None:
    told, connections = threading.Event(), []

    def serve(connection: socket.socket) -> None:
        connections.append(connection)
        asked = b""
        while not asked.endswith(b"}"):
            asked += connection.recv(65_536)
        connection.sendall(REFUSAL)
        if len(connections) == 1:
            assert told.wait(GENEROUS)
            connection.sendall(REFUSAL.replace(b"400", b"503"))
            told.clear()
        while connection.recv(65_536):
            pass

    def tell() -> None:
        told.set()
        while told.is_set():
            pass

    async def ask() -> None:
        async with driver.RemoteEngine(deployment(url)) as engine:
            with pytest.raises(BadRequest):
                await engine.generate(batch())
            tell()
            for _ in range(5):
                await anyio.lowlevel.checkpoint()
            with pytest.raises(BadRequest):
                await engine.generate(batch())

    with serving(serve) as url:
        if driver is sync_driver:
            with driver.RemoteEngine(deployment(url)) as engine:
                with pytest.raises(BadRequest):
                    engine.generate(batch())
                tell()
                with pytest.raises(BadRequest):
                    engine.generate(batch())
        else:
            anyio.run(ask, backend="trio" if driver is trio_driver else "asyncio")
    assert len(connections) == 2


@DRIVERS
def test_a_connection_that_was_granted_to_one_who_had_left_is_there_for_the_next(driver: Any) -> None:
    async def run(waited: Callable[[Any], Any]) -> None:
        client = driver.build_client(pool=PoolConfig(max_connections_per_origin=1))
        first, second, third = client.line(), client.line(), client.line()
        await waited(first.open(request, 1.0, fresh=False, sending=nothing))
        client.acquire(second, request.origin, fresh=False)
        first.let_go(keep=True)
        second.let_go(keep=False)
        await waited(third.open(request, 1.0, fresh=False, sending=nothing))
        assert third.reused
        third.let_go(keep=False)
        client.close_idle()

    async def awaited(work: Any) -> None:
        with anyio.fail_after(GENEROUS):
            await work
            await anyio.lowlevel.checkpoint()

    async def done(work: Any) -> None:
        assert work is None

    def nothing() -> None: ...

    with serving(saying_nothing) as url:
        request = HttpRequest("GET", url)
        if driver is sync_driver:
            with suppress(StopIteration):
                run(done).send(None)
        else:
            anyio.run(run, awaited, backend="trio" if driver is trio_driver else "asyncio")


def test_an_abort_that_comes_before_a_thread_has_its_idle_connection_is_not_missed() -> None:
    client: Any = sync_driver.build_client()
    with serving(saying_nothing) as url:
        request = HttpRequest("GET", url)
        first, second = client.line(), client.line()
        first.open(request, 1.0, fresh=False, sending=lambda: None)
        first.let_go(keep=True)
        second.interrupt()
        with pytest.raises(ConnectionAbortedError):
            second.open(request, 1.0, fresh=False, sending=lambda: None)
        second.let_go(keep=False)
        assert len(client._pool) == 0
        client.close()


def test_no_thread_of_an_http2_connection_outlives_its_client() -> None:
    with serving(saying_nothing) as url:
        request = HttpRequest("GET", url)
        for _ in range(5):
            client: Any = sync_driver.build_client(pool=HTTP2)
            line = client.line()
            line.open(request, 1.0, fresh=False, sending=lambda: None)
            line.send(request)
            line.let_go(keep=False)
            assert not client._pool._waits  # nobody is taken to be dialling
            client.close()
            assert not [thread for thread in threading.enumerate() if thread.name == "remote-engine-http2"]


def saying_nothing(connection: socket.socket) -> None:
    while connection.recv(65_536):
        pass


def test_asyncio_forgets_a_connection_that_the_server_has_closed() -> None:
    async def main() -> None:
        client: Any = asyncio_driver.build_client()
        line = client.line()
        await line.open(HttpRequest("GET", url), 1.0, fresh=False, sending=lambda: None)
        line.let_go(keep=True)
        assert len(client._pool) == 1
        go_on.set()
        async with asyncio.timeout(GENEROUS):
            while len(client._pool):
                await anyio.lowlevel.checkpoint()

    go_on = threading.Event()
    with serving(lambda connection: go_on.wait(GENEROUS)) as url:
        asyncio.run(main())


# ---- HTTP/2: how many requests a connection takes is known when its server has said so ------------------------------------

ONE_AT_A_TIME = bytes([0, 0, 6, 4, 0, 0, 0, 0, 0]) + bytes([0, 3, 0, 0, 0, 1])


@DRIVERS
def test_an_http2_connection_is_shared_when_its_server_has_said_how_many_it_takes(driver: Any) -> None:
    told = threading.Event()

    def serve(connection: socket.socket) -> None:
        assert told.wait(GENEROUS)
        connection.sendall(ONE_AT_A_TIME)
        saying_nothing(connection)

    async def use(client: Any, waited: Callable[[Any], Any]) -> None:
        first, second = client.line(), client.line()
        await waited(first.open(request, 1.0, fresh=False, sending=lambda: None))
        await waited(first.send(request))
        client.acquire(second, request.origin, fresh=False)
        assert (second._grant, len(client._pool)) == (None, 0)
        told.set()
        await waited(granted(second))
        while second._grant is None:  # the thread's pool knows of it a moment before its line does
            pass
        assert (second._grant.connection, len(client._pool)) == (None, 1)  # it is to dial one of its own
        second.let_go(keep=False)
        first.let_go(keep=False)

    async def granted(line: Any) -> None:
        while line._grant is None:
            await anyio.lowlevel.checkpoint()

    async def awaited(work: Any) -> None:
        with anyio.fail_after(GENEROUS):
            await work

    async def done(work: Any) -> None:
        if work is not None:
            work.close()
            while not len(client._pool):
                pass

    async def on_asyncio() -> None:
        await use(client, awaited)
        await client.aclose()

    async def on_trio() -> None:
        async with trio.open_nursery() as nursery:
            client.start(nursery)
            await use(client, awaited)
            await client.aclose()

    client = driver.build_client(pool=HTTP2)
    with serving(serve) as url:
        request = HttpRequest("GET", url)
        if driver is sync_driver:
            with suppress(StopIteration):
                use(client, done).send(None)
            client.close()
        elif driver is asyncio_driver:
            asyncio.run(on_asyncio())
        else:
            trio.run(on_trio)


def test_what_is_said_on_a_lost_connection_goes_nowhere() -> None:
    class Lost(asyncio.Transport):
        def is_closing(self) -> bool:
            return True

        def write(self, data: Any) -> None:
            raise AssertionError("asyncio logs a warning for this")

        def abort(self) -> None:
            """It is lost already."""

    async def leave() -> None:
        client = asyncio_driver.client.HttpClient(pool=HTTP2)
        connection = asyncio_driver.client.Http2Streams(client, Lost(), asyncio_driver.client._Early())
        line = client.line()
        connection.begin(line)
        connection.send(line, HttpRequest("GET", "http://127.0.0.1"))
        connection.leave(line, keep=False)

    asyncio.run(leave())
