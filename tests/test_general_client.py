"""Lines over httpx and httpx2, in each world, against a server that says exactly what it is told to."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
from conformance.harness import causes
from general_wire import (
    ALL,
    CLOSE,
    HOLD,
    KEEP,
    OK,
    RESET,
    Scripted,
    World,
    ask,
    eventually,
    exchange,
    read,
    run_without_waiting,
    scripted,
)

from sansio import (
    END,
    BadRequest,
    Http1Connection,
    HttpRequest,
    Internal,
    NetworkError,
    PoolConfig,
    ProtocolError,
    ResponseHead,
)
from sansio.errors import ForeignError

KEY = "sk-general-0123456789abcdef"
HEAD = ResponseHead(200, (("content-length", "5"),))
STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
LAST = b"0\r\n\r\n"

pytestmark = [pytest.mark.parametrize("world", ALL, ids=str)]


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


# ---- what goes out ---------------------------------------------------------------------------------------------------

REQUESTS: dict[str, dict[str, Any]] = {
    "a post": {"headers": (("content-type", "application/json"), ("authorization", f"Bearer {KEY}"))},
    "an empty post": {"body": b""},
    "a get": {"method": "GET", "body": b"", "path": "/v1/models?limit=3&after=%2Fx"},
    "no path": {"path": ""},
    "a coding asked for": {"headers": (("accept-encoding", "gzip"),)},
    "twice the same name": {"headers": (("x-a", "1"), ("x-b", "2"), ("x-a", "3"))},
    "blanks and latin-1": {"headers": (("x-a", "  caf\xe9\t"),)},
    "framing of its own": {"headers": (("host", "elsewhere"), ("content-length", "9"), ("transfer-encoding", "chunked"))},
    "an agent": {"headers": (("user-agent", "mine/1"), ("accept", "text/event-stream"))},
}


@pytest.mark.parametrize("case", REQUESTS)
def test_what_goes_out_is_what_the_native_client_sends(world: World, case: str) -> None:
    with scripted() as server:
        request = server.request(**REQUESTS[case])

        async def scenario(client: Any) -> None:
            await exchange(world, client, request)

        world.run(scenario)
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    native, _, native_body = Http1Connection().send(request).partition(b"\r\n\r\n")
    line, *fields = head.split(b"\r\n")
    native_line, *native_fields = native.split(b"\r\n")
    assert (line, body) == (native_line, native_body)
    assert [field.partition(b":")[0].lower() + b":" + field.partition(b":")[2].strip() for field in fields] == [
        field.partition(b":")[0].lower() + b":" + field.partition(b":")[2].strip() for field in native_fields
    ]


def test_sending_is_told_once_and_before_anything_leaves(world: World) -> None:
    with scripted() as server:
        told: list[int] = []

        async def scenario(client: Any) -> None:
            line = world.line(client)
            await line.open(server.request(), 10.0, fresh=False, sending=lambda: told.append(len(server.requests)))
            await read(line)
            line.let_go(keep=True)

        world.run(scenario)
    assert told == [0]


def test_cookies_redirects_and_netrc_are_left_alone(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n", encoding="ascii")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    moved = b"HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\nset-cookie: a=1; path=/\r\ncontent-length: 0\r\n\r\n"
    with scripted((moved, KEEP)) as server:

        async def scenario(client: Any) -> None:
            for _ in range(2):
                (head, end), _ = await exchange(world, client, server.request())
                assert isinstance(head, ResponseHead)
                assert (head.status, end) == (302, END)

        world.run(scenario)
    assert len(server.requests) == 2
    assert not any(word in request.lower() for request in server.requests for word in (b"cookie", b"authorization"))


# ---- what comes back -------------------------------------------------------------------------------------------------


def test_a_head_its_body_and_its_end(world: World) -> None:
    answer = b"HTTP/1.1 200 Fine\r\nX-Caf\xc3: 1\r\nContent-Length: 5\r\n\r\nhello".replace(b"X-Caf\xc3", b"X-A").replace(
        b": 1", b": \xe9"
    )
    with scripted((answer, KEEP)) as server:

        async def scenario(client: Any) -> None:
            events, _ = await exchange(world, client, server.request())
            assert events == [ResponseHead(200, (("x-a", "\xe9"), ("content-length", "5"))), b"hello", END]

        world.run(scenario)


def test_pieces_come_as_they_come(world: World) -> None:
    with scripted((STREAM, HOLD)) as server:

        async def scenario(client: Any) -> None:
            line = await ask(world, client, server.request())
            (head,) = await line.receive()
            assert isinstance(head, ResponseHead)
            assert await line.receive() == [b"hello"]
            line.let_go(keep=False)

        world.run(scenario)


def test_a_content_coding_is_refused_after_the_head(world: World) -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 5\r\n\r\nhello"
    with scripted((answer, KEEP)) as server:

        async def scenario(client: Any) -> None:
            line = await ask(world, client, server.request())
            head, error = await line.receive()
            line.let_go(keep=False)
            assert isinstance(head, ResponseHead)
            assert isinstance(error, ProtocolError)
            assert "'gzip'" in str(error)
            await pause(world)
            eventually(lambda: server.left == 1)

        world.run(scenario)


@pytest.mark.parametrize("size", [70_000, 300_000])
def test_a_head_past_its_bound(world: World, size: int) -> None:
    with scripted((b"HTTP/1.1 200 OK\r\nx-a: " + b"a" * size + b"\r\ncontent-length: 0\r\n\r\n", HOLD)) as server:

        async def scenario(client: Any) -> None:
            line = await ask(world, client, server.request())
            try:
                (error,) = await line.receive()
            except ProtocolError as raised:
                error = raised
            line.let_go(keep=False)
            assert isinstance(error, ProtocolError)
            assert (str(error), error.retryable) == ("a response head is larger than 65536 bytes", False)

        world.run(scenario)


@pytest.mark.parametrize(
    "garbage", [b"\x00\x01\x02 nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"]
)
def test_what_is_not_http_is_a_protocol_error(world: World, garbage: bytes) -> None:
    with scripted((garbage, HOLD)) as server:

        async def scenario(client: Any) -> None:
            with pytest.raises(ProtocolError, match=r"^not HTTP/1\.1: ") as raised:
                await exchange(world, client, server.request())
            assert raised.value.retryable
            cause = raised.value.__cause__
            assert isinstance(cause, ForeignError)
            assert cause.type_name == "RemoteProtocolError"

        world.run(scenario)


@pytest.mark.parametrize("then", [CLOSE, RESET])
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 2", OK[:-1], STREAM[:-2], STREAM])
def test_an_answer_cut_short_is_a_lost_connection(world: World, answer: bytes, then: str) -> None:
    with scripted((answer, then)) as server:

        async def scenario(client: Any) -> None:
            with pytest.raises(NetworkError) as raised:
                await exchange(world, client, server.request(headers=(("x-api-key", KEY),)))
            assert raised.value.retryable
            assert raised.value.__cause__ is not None
            for cause in causes(raised.value):  # an exception of httpx leads to its request
                assert KEY.encode() not in b"".join(b"".join(pair) for pair in getattr_chain(cause))

        world.run(scenario)


def getattr_chain(error: BaseException) -> list[tuple[bytes, bytes]]:
    """The header fields of the request that an exception refers to."""
    request = getattr(error, "_request", None)
    return [] if request is None else list(request.headers.raw)


def test_a_status_without_a_body(world: World) -> None:
    with scripted((b"HTTP/1.1 204 No Content\r\n\r\n", KEEP)) as server:

        async def scenario(client: Any) -> None:
            for reused in (False, True):
                assert await exchange(world, client, server.request()) == ([ResponseHead(204), END], reused)

        world.run(scenario)


# ---- what is no answer -----------------------------------------------------------------------------------------------


def test_a_refused_connection_is_told_by_open_with_what_the_system_said(world: World) -> None:
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        request = Scripted([], port=placeholder.getsockname()[1]).request()
        told: list[str] = []

        async def scenario(client: Any) -> None:
            line = world.line(client)
            with pytest.raises(NetworkError) as raised:
                await line.open(request, 10.0, fresh=False, sending=lambda: told.append("sent"))
            line.let_go(keep=False)
            assert any(isinstance(cause, ConnectionRefusedError) for cause in causes(raised.value))
            assert (told, line.reused) == ([], False)

        world.run(scenario)


def test_connecting_is_bounded(world: World) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(8)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        request = Scripted([], port=listener.getsockname()[1]).request()

        async def scenario(client: Any) -> None:
            with pytest.raises(TimeoutError):
                await ask(world, client, request, timeout=0.1)
            with pytest.raises(TimeoutError):
                await ask(world, client, request, timeout=0.0)

        world.run(scenario)
        for filler in fillers:
            filler.close()


def test_an_answer_may_take_its_time(world: World) -> None:
    with scripted() as server:
        server.delay = 0.3

        async def scenario(client: Any) -> None:
            for _ in range(2):
                assert (await exchange(world, client, server.request(), timeout=0.2))[0] == [HEAD, b"hello", END]

        world.run(scenario)


def test_no_time_is_no_bound_where_there_is_no_clock(world: World) -> None:
    with scripted() as server:

        async def scenario(client: Any) -> None:
            await exchange(world, client, server.request(), timeout=float("inf"))

        world.run(scenario)


def test_a_name_that_is_none(world: World) -> None:
    request = HttpRequest("POST", f"http://{'a' * 70}.example/")

    async def scenario(client: Any) -> None:
        with pytest.raises(NetworkError, match=r"is not a host name|not known|label"):
            await ask(world, client, request)

    world.run(scenario)


def test_a_url_that_the_client_refuses(world: World) -> None:
    request = Scripted([], port=1).request(path="/" + "a" * 70_000)

    async def scenario(client: Any) -> None:
        with pytest.raises(BadRequest, match=rf"^{world.module} cannot send this request"):
            await ask(world, client, request)

    world.run(scenario)


# ---- one connection after the other ----------------------------------------------------------------------------------


def test_a_connection_is_used_again_and_a_fresh_one_dialled(world: World) -> None:
    with scripted() as server:

        async def scenario(client: Any) -> None:
            for fresh, reused in ((False, False), (False, True), (True, False), (False, True)):
                assert await exchange(world, client, server.request(), fresh=fresh) == ([HEAD, b"hello", END], reused)

        world.run(scenario)
    assert server.left == 2


def test_a_connection_that_dies_under_the_next_request_is_told_as_used_before(world: World) -> None:
    with scripted((OK, KEEP), (b"", CLOSE)) as server:

        async def scenario(client: Any) -> None:
            await exchange(world, client, server.request())
            line = await ask(world, client, server.request())
            assert line.reused
            with pytest.raises(NetworkError):
                await line.receive()
            line.let_go(keep=True)  # of which nothing comes
            assert (await exchange(world, client, server.request(), fresh=True))[1] is False

        server.answers = [(OK, KEEP), (b"", CLOSE), (OK, KEEP)]
        world.run(scenario)


def test_a_kept_connection_that_the_server_closed_is_not_used(world: World) -> None:
    with scripted((OK, CLOSE)) as server:

        async def scenario(client: Any) -> None:
            for _ in range(2):
                assert (await exchange(world, client, server.request()))[1] is False
                passes(0.05)

        world.run(scenario)


def test_a_connection_that_the_answer_closes_is_closed_at_once(world: World) -> None:
    with scripted((OK.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"), HOLD)) as server:

        async def scenario(client: Any) -> None:
            await exchange(world, client, server.request())
            assert client.deadline() is None  # nor is it kept
            await pause(world)
            eventually(lambda: server.left == 1)
            assert (await exchange(world, client, server.request()))[1] is False

        world.run(scenario)


def passes(seconds: float) -> None:
    """Time passes: for what must not happen meanwhile, and for what has no other sign."""
    time.sleep(seconds)


async def pause(world: World) -> None:
    """Let the loop, if there is one, close what it was told to close."""
    if world.driver != "sync":
        await anyio.sleep(0.02)


@pytest.mark.parametrize(
    ("rest", "reused"), [(LAST, True), (b"3\r\nyou\r\n" + LAST, True), (b"1\r\na\r\n" * 9 + LAST, False), (b"", False)]
)
def test_an_end_that_nobody_waited_for(world: World, rest: bytes, reused: bool) -> None:
    with scripted((STREAM + rest, KEEP if rest else HOLD)) as server:

        async def scenario(client: Any) -> None:
            line = await ask(world, client, server.request())
            await line.receive()
            assert await line.receive() == [b"hello"]
            line.let_go(keep=True)
            line.let_go(keep=True)
            before = time.monotonic()
            line = await ask(world, client, server.request())
            assert time.monotonic() - before < 5.0
            assert line.reused is reused
            line.let_go(keep=False)

        world.run(scenario)
    assert len(server.requests) == 2


def test_one_that_is_idle_for_too_long_is_closed(world: World) -> None:
    with scripted((STREAM + LAST, KEEP)) as server:

        async def scenario(client: Any) -> None:
            line = await ask(world, client, server.request())
            await line.receive()
            await line.receive()
            line.let_go(keep=True)
            assert client.deadline() is not None
            client.expire(client.now() + 29.0)
            passes(0.05)
            assert server.left == 0
            client.expire(client.deadline())
            await pause(world)
            eventually(lambda: server.left == 1)
            assert client.deadline() is None
            assert (await exchange(world, client, server.request()))[1] is False

        world.run(scenario)


def test_the_pool_bounds_the_connections(world: World) -> None:
    with scripted((STREAM + LAST, KEEP)) as server:

        async def scenario(client: Any) -> None:
            first = await ask(world, client, server.request())
            await read(first)
            second = world.line(client)
            if world.driver == "sync":
                timer = threading.Timer(0.05, lambda: first.let_go(keep=True))
                timer.start()
                await second.open(server.request(), 10.0, fresh=False, sending=lambda: None)
                timer.join()
            else:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(open_it, second, server)
                    await anyio.sleep(0.05)
                    assert len(server.requests) == 1
                    first.let_go(keep=True)
            assert second.reused
            second.let_go(keep=False)

        world.run(scenario, pool=PoolConfig(max_connections_per_origin=1))


async def open_and_read(line: Any, server: Scripted) -> None:
    await open_it(line, server)
    await read(line)


async def open_it(line: Any, server: Scripted) -> None:
    await line.open(server.request(), 10.0, fresh=False, sending=lambda: None)


# ---- leaving ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [0, 1, 2])
def test_leaving_closes_the_connection_at_once(world: World, pieces: int) -> None:
    with scripted((STREAM, HOLD)) as server:

        async def scenario(client: Any) -> None:
            line = await ask(world, client, server.request())
            for _ in range(pieces):
                await line.receive()
            line.let_go(keep=False)
            await pause(world)
            eventually(lambda: server.left == 1)
            other = await ask(world, client, server.request())
            assert not other.reused
            if world.driver != "sync":
                assert len(client.remnants) == 0
            other.let_go(keep=False)

        world.run(scenario)


@pytest.mark.parametrize("answer", [b"", STREAM], ids=["before the head", "after it"])
def test_who_waits_is_woken(world: World, answer: bytes) -> None:
    with scripted((answer, HOLD)) as server:

        async def wait(line: Any) -> None:
            with pytest.raises((OSError, NetworkError)):
                await open_and_read(line, server)

        async def scenario(client: Any) -> None:
            line = world.line(client)
            if world.driver == "sync":
                waiting = threading.Thread(target=lambda: run_without_waiting(wait(line)))
                waiting.start()
                eventually(lambda: server.requests)
                passes(0.05)
                line.interrupt()
                waiting.join(10.0)
                assert not waiting.is_alive()
            else:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(wait, line)
                    await anyio.to_thread.run_sync(eventually, lambda: server.requests)
                    await anyio.sleep(0.05)
                    line.interrupt()
                    line.interrupt()
            line.let_go(keep=True)  # of which nothing comes
            await pause(world)
            eventually(lambda: server.left == 1)

        world.run(scenario)


def test_one_that_is_interrupted_before_it_opens_asks_for_nothing(world: World) -> None:
    with scripted() as server:

        async def scenario(client: Any) -> None:
            line = world.line(client)
            line.interrupt()
            with pytest.raises(OSError, match="interrupted"):
                await line.open(server.request(), 10.0, fresh=False, sending=lambda: None)
            line.let_go(keep=False)

        world.run(scenario)
    assert server.requests == []


def test_one_that_is_interrupted_while_it_connects_waits_for_no_answer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    if world.driver != "sync":
        return
    with scripted((b"", HOLD)) as server:

        async def scenario(client: Any) -> None:
            line = world.line(client)
            connect = socket.create_connection

            def interrupted(*args: Any, **settings: Any) -> socket.socket:
                line.interrupt()
                return connect(*args, **settings)

            monkeypatch.setattr(socket, "create_connection", interrupted)
            with pytest.raises(OSError, match="interrupted"):
                await open_it(line, server)
            line.let_go(keep=False)

        world.run(scenario)


def test_an_interruption_at_the_very_end_costs_the_connection_only_where_it_shuts_it_down(world: World) -> None:
    with scripted() as server:

        async def scenario(client: Any) -> None:
            line = await ask(world, client, server.request())
            await read(line)
            line.interrupt()
            line.let_go(keep=True)
            assert (client.deadline() is None) is (world.driver == "sync")

        world.run(scenario)


def test_a_wait_that_is_cancelled_ends_the_exchange(world: World) -> None:
    if world.driver == "sync":
        return
    with scripted((STREAM, HOLD)) as server:

        async def scenario(client: Any) -> None:
            line = await ask(world, client, server.request())
            await line.receive()
            await line.receive()
            with anyio.move_on_after(0.05):
                await line.receive()
            with pytest.raises(NetworkError, match="called off"):
                await line.receive()
            line.let_go(keep=False)
            eventually(lambda: server.left == 1)

        world.run(scenario)


# ---- a client of the user's ------------------------------------------------------------------------------------------


def test_a_given_client_is_used_as_it_is_and_stays_open(world: World) -> None:
    given = world.given(headers={"x-mine": "1"}, cookies={"a": "b"}, auth=("me", "secret"), follow_redirects=True)
    with scripted() as server:

        async def scenario(client: Any) -> None:
            for reused in (False, True):
                assert await exchange(world, client, server.request()) == ([HEAD, b"hello", END], reused)
            assert client.deadline() is None
            client.expire(0.0)
            assert not given.is_closed

        world.run(scenario, given=given)
    assert server.left == 1
    assert not any(word in server.requests[0].lower() for word in (b"x-mine", b"cookie", b"authorization"))


def test_leaving_a_given_client_closes_the_connection_at_once(world: World) -> None:
    with scripted((STREAM, HOLD)) as server:

        async def scenario(client: Any) -> None:
            line = await ask(world, client, server.request())
            await line.receive()
            await line.receive()
            line.let_go(keep=False)
            await pause(world)
            eventually(lambda: server.left == 1)
            assert (await ask_and_leave(world, client, server)) is False

        world.run(scenario, given=world.given())


@pytest.mark.parametrize("own", [False, True], ids=["pooled", "given"])
def test_an_end_that_comes_a_moment_later_costs_no_connection(world: World, own: bool) -> None:
    with scripted((STREAM, KEEP)) as server:
        server.later = LAST

        async def scenario(client: Any) -> None:
            for reused in (False, True, True):
                line = await ask(world, client, server.request())
                await line.receive()
                assert await line.receive() == [b"hello"]
                line.let_go(keep=True)
                assert line.reused is reused
                passes(0.1)
                server.delay = 0.2  # and the next may take its time again

        world.run(scenario, given=world.given() if own else None)


async def ask_and_leave(world: World, client: Any, server: Scripted) -> bool:
    line = await ask(world, client, server.request())
    line.let_go(keep=False)
    return bool(line.reused)


@pytest.mark.parametrize(("rest", "reused"), [(LAST, True), (b"", False)])
def test_an_end_that_nobody_waited_for_is_read_for_a_given_client_too(world: World, rest: bytes, reused: bool) -> None:
    with scripted((STREAM + rest, KEEP if rest else HOLD)) as server:

        async def scenario(client: Any) -> None:
            line = await ask(world, client, server.request())
            await line.receive()
            await line.receive()
            line.let_go(keep=True)
            assert (await ask_and_leave(world, client, server)) is reused

        world.run(scenario, given=world.given())


def test_a_transport_that_tells_nothing(world: World) -> None:
    answers: list[Any] = [
        world.library.Response(200, content=b"hello"),
        KeyError("a defect"),
        world.library.ConnectError("no"),
    ]
    answers.append(world.library.ReadError("lost"))

    def respond(request: Any) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    told: list[str] = []

    async def scenario(client: Any) -> None:
        line = world.line(client)
        request = Scripted([], port=1).request()
        await line.open(request, 10.0, fresh=False, sending=lambda: told.append("sent"))
        assert (await read(line), line.reused, told) == ([HEAD, b"hello", END], False, ["sent"])
        line.let_go(keep=True)
        line = await ask(world, client, request)
        with pytest.raises(Internal, match="KeyError"):
            await line.receive()
        line.let_go(keep=False)
        with pytest.raises(NetworkError, match="ConnectError: no"):
            await ask(world, client, request)
        line = await ask(world, client, request)
        with pytest.raises(NetworkError, match="ReadError: lost"):
            await line.receive()
        line.let_go(keep=False)

    world.run(scenario, given=world.given(transport=world.library.MockTransport(respond)))


def test_the_read_timeout_of_a_given_client_counts_only_where_nobody_can_wake_it(world: World) -> None:
    if world.driver != "sync":
        return
    slow = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"
    with scripted((OK, KEEP), (b"", HOLD)) as server:
        given: httpx.Client = world.given(timeout=0.2)

        async def scenario(client: Any) -> None:
            server.delay = 0.4  # longer than that timeout: but it can be woken from a connection that was made for it
            await exchange(world, client, server.request())
            line = await ask(world, client, server.request())  # over the same connection: it tells nothing of its socket
            with pytest.raises(TimeoutError):
                await line.receive()
            line.let_go(keep=False)
            server.answers = [(slow, HOLD)]
            line = await ask(world, client, server.request())
            await line.receive()
            waker = threading.Timer(0.6, line.interrupt)
            waker.start()
            with pytest.raises(NetworkError):
                await line.receive()
            waker.join()
            line.let_go(keep=False)

        world.run(scenario, given=given)
