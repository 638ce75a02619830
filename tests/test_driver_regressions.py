"""Defects that the drivers once had, each with the smallest thing that showed it."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import anyio
import pytest
import trio
import trio.testing

from drivers import asyncio_driver, sync_driver, trio_driver
from drivers.front import EngineFront
from drivers.mock_provider import serve_in_thread
from sansio import (
    AskStore,
    BadRequest,
    Close,
    Credential,
    Deployment,
    EngineClosed,
    ExecuteBatch,
    Message,
    RebuildSession,
    RefreshSession,
    RemoteEngineConfig,
    RemoteEngineCore,
    RemoteWorker,
    Secret,
    SessionConfig,
    SessionReport,
    StartAttempt,
    Timeout,
    Timeouts,
    TokenChunk,
    Tokens,
    Unauthorized,
)
from sansio.events import AttemptEnded
from sansio.exchange import Exchange, ExchangeConfig
from sansio.http import HttpRequest
from sansio.session import SessionSnapshot
from sansio.simulation import MockProvider
from sansio.worker import Connect, Post

KEY = "sk-regressions-0123456789"
GENEROUS = 20.0
"""Seconds after which a wait that should have ended has failed."""


def deployment(url: str, key: Secret | None = None, **runtime: Any) -> Deployment:
    config = {"endpoint": f"{url}/v1", "api_key": key or Secret.inline(KEY), "retry": {"max_retries": 0}, **runtime}
    return Deployment(name="chat", model="gpt-4o", runtime="openai", runtime_config=config)


def batch(text: str = "hello") -> ExecuteBatch:
    return ExecuteBatch(messages=[Message(role="user", content=text)])


@contextmanager
def provider() -> Iterator[str]:
    """A provider that answers."""
    with serve_in_thread(MockProvider(keys=[KEY])) as server:
        yield server.url


@contextmanager
def mute(scheme: str = "http") -> Iterator[str]:
    """A server whose kernel takes the connection, and who never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def full() -> Iterator[str]:
    """A server whose backlog is full, so that no connection ever stands."""
    with ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):
            filler = sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


# ---- the core, as the drivers meet it ----------------------------------------------------------------------------------


def test_nothing_comes_due_in_a_closed_engine_and_no_credential_is_fetched_for_it() -> None:
    core = RemoteEngineCore(deployment("http://127.0.0.1:1"), rng=random.Random(1))
    (order,) = [effect for effect in core.handle(RebuildSession(None), 0.0, 1000.0) if isinstance(effect, RefreshSession)]
    core.handle(SessionReport(order.session, order.refresh_id, Credential.from_text(KEY, 1100.0)), 0.0, 1000.0)
    assert core.deadline() is not None
    core.handle(Close(), 1.0, 1001.0)
    assert core.deadline() is None
    assert not any(isinstance(effect, RefreshSession) for effect in core.handle(RebuildSession(None), 99.0, 1099.0))
    assert core.deadline() is None


def test_a_stream_iterated_without_its_with_block_is_refused_and_does_not_hang() -> None:
    with provider() as url, sync_driver.RemoteEngine(deployment(url)) as engine:
        with pytest.raises(RuntimeError, match="with"):
            next(engine.stream(batch()))
        assert engine.metrics().submitted == 0


def test_a_stream_that_was_used_is_refused_and_does_not_look_like_an_empty_answer() -> None:
    with provider() as url, sync_driver.RemoteEngine(deployment(url)) as engine:
        stream = engine.stream(batch())
        with stream as chunks:
            with pytest.raises(RuntimeError, match="once"):
                stream.__enter__()
            assert list(chunks)
        with pytest.raises(RuntimeError, match="once"):
            stream.__enter__()


class Endless:
    """A socket from which there is always more to read."""

    def __init__(self) -> None:
        self.reads = 0

    def settimeout(self, seconds: float | None) -> None: ...

    def recv(self, size: int) -> bytes:
        self.reads += 1
        assert self.reads < 100, "read without end"
        return b"x" * size


@pytest.mark.parametrize("driver", [sync_driver, trio_driver])
def test_a_response_without_end_does_not_hold_up_who_looks_for_an_idle_connection(driver: Any) -> None:
    endless: Any = Endless()
    assert not driver.client.Http1(driver.build_client(), endless).is_fit()


# ---- asyncio -----------------------------------------------------------------------------------------------------------


def test_asyncio_closes_its_connections_also_in_a_scope_that_is_cancelled_again_and_again() -> None:
    async def main(url: str) -> None:
        with anyio.CancelScope() as scope:
            client = asyncio_driver.build_client()
            async with asyncio_driver.RemoteEngine(deployment(url), client=client) as engine:
                await engine.generate(batch())
                line = client.line()
                await line.open(HttpRequest("GET", url), 1.0, fresh=False, sending=lambda: None)
                connection = line._connection
                assert line.reused and connection is not None
                line.let_go(keep=True)
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert connection is not None and not connection.is_fit()

    with provider() as url:
        asyncio.run(main(url))


def test_asyncio_takes_a_second_abort_of_a_connect_that_has_not_heard_the_first() -> None:
    async def main(url: str) -> None:
        line = asyncio_driver.build_client().line()
        request = HttpRequest("GET", url)
        opening = asyncio.create_task(line.open(request, 1.0, fresh=False, sending=lambda: None))
        await asyncio.sleep(0)
        while not opening.done():
            line.interrupt()
            await asyncio.sleep(0)
        assert isinstance(opening.exception(), TimeoutError)

    with full() as url:
        asyncio.run(main(url))


def test_asyncio_reports_a_callable_that_raises_stop_iteration() -> None:
    async def main(url: str) -> None:
        keys: Iterator[str] = iter(())
        async with asyncio_driver.RemoteEngine(deployment(url, Secret.from_callable(lambda: next(keys)))) as engine:
            with pytest.raises(Unauthorized):
                await asyncio.wait_for(engine.generate(batch()), GENEROUS)

    with mute() as url:
        asyncio.run(main(url))


def test_of_two_tasks_in_one_stream_the_second_is_refused_and_the_first_goes_on() -> None:
    async def main(url: str) -> None:
        async with asyncio_driver.RemoteEngine(deployment(url)) as engine, engine.stream(batch()) as chunks:
            first = asyncio.ensure_future(anext(chunks))
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="one thread or task at a time"):
                await anext(chunks)
            assert isinstance(await asyncio.wait_for(first, GENEROUS), TokenChunk)

    with provider() as url:
        asyncio.run(main(url))


def test_an_engine_of_one_event_loop_refuses_another() -> None:
    async def elsewhere(engine: asyncio_driver.RemoteEngine) -> None:
        with pytest.raises(RuntimeError, match="another event loop"):
            await engine.generate(batch())

    async def main(url: str) -> None:
        async with asyncio_driver.RemoteEngine(deployment(url)) as engine:
            await asyncio.to_thread(asyncio.run, elsewhere(engine))

    with mute() as url:
        asyncio.run(main(url))


@pytest.mark.parametrize("steps", range(0, 24, 3))
def test_an_item_of_a_stream_may_be_given_up_and_asked_for_again(steps: int) -> None:
    async def main(url: str) -> None:
        async with asyncio_driver.RemoteEngine(deployment(url)) as engine:
            chunks: list[TokenChunk] = []
            async with engine.stream(batch()) as stream:
                for patience in [steps] * 20 + [10**6] * 200:
                    item = asyncio.ensure_future(anext(stream))
                    while patience and not item.done():
                        patience -= 1
                        await asyncio.sleep(0)
                    item.cancel()
                    try:
                        chunks.append(await item)
                    except asyncio.CancelledError:
                        continue
                    except StopAsyncIteration:
                        break
            assert Tokens.from_chunks(chunks).text == (await engine.generate(batch())).text
            assert (engine.metrics().done, engine.metrics().attempts) == (2, 2)

    with provider() as url:
        asyncio.run(main(url))


# ---- trio --------------------------------------------------------------------------------------------------------------


def test_trio_makes_an_engine_outside_of_a_run() -> None:
    async def main() -> None:
        async with engine:
            assert engine.metrics().submitted == 0

    engine = trio_driver.RemoteEngine(deployment("http://127.0.0.1:1"))
    trio.run(main)


def test_trio_drains_for_everyone_who_waits_for_it() -> None:
    async def main(url: str) -> None:
        async def ask() -> None:
            with pytest.raises(Timeout):
                await engine.generate(batch())

        with trio.fail_after(GENEROUS):
            served = deployment(url, timeouts={"request_timeout": 0.3})
            async with trio_driver.RemoteEngine(served) as engine, trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                await trio.testing.wait_all_tasks_blocked(0.05)
                nursery.start_soon(engine.drain)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(engine.drain)

    with mute() as url:
        trio.run(main, url)


def test_trio_keeps_time_for_who_is_shielded_from_a_cancellation() -> None:
    async def main(url: str) -> None:
        with trio.CancelScope() as scope:
            async with trio_driver.RemoteEngine(deployment(url, timeouts={"request_timeout": 0.1})) as engine:
                scope.cancel()
                with trio.CancelScope(shield=True), trio.fail_after(GENEROUS), pytest.raises(Timeout):
                    await engine.generate(batch())

    with mute() as url:
        trio.run(main, url)


def test_trio_enters_and_leaves_an_engine_in_a_scope_that_is_cancelled_already() -> None:
    async def main() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            async with trio_driver.RemoteEngine(deployment("http://127.0.0.1:1")):
                await trio.sleep_forever()
        assert scope.cancelled_caught

    trio.run(main)


def half_sent(stream: Any) -> bool:
    """Whether the request is on its way and not all sent."""
    return stream._line is not None and stream._line._connection is not None and len(stream._line._connection._unsent) > 0


def test_trio_sends_the_rest_of_a_request_whose_sending_was_called_off() -> None:
    async def main(url: str) -> None:
        async with trio_driver.RemoteEngine(deployment(url)) as engine:
            async with engine.stream(batch("x" * 8_000_000)) as stream:
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(anext, stream)
                        while not half_sent(stream):
                            await trio.lowlevel.checkpoint()
                        scope.cancel()
                with trio.fail_after(GENEROUS):
                    assert [chunk async for chunk in stream]
            assert engine.metrics().attempts == 1

    with provider() as url:
        trio.run(main, url)


# ---- threads -----------------------------------------------------------------------------------------------------------


def test_a_drivers_own_bound_on_a_connect_is_the_timeout_of_that_clock() -> None:
    core = RemoteEngineCore(deployment("http://127.0.0.1:1", timeouts={"connect_timeout": 1.0}), rng=random.Random(1))
    worker = RemoteWorker(core.prepare(1, batch()))
    exchange = Exchange(
        ExchangeConfig(core.codec(), Timeouts(connect_timeout=1.0)), batch(), SessionSnapshot(1, Credential.from_text(KEY)),
        0.0, stream=True,
    )  # fmt: skip
    assert isinstance(worker.step(0.0), Post)
    worker.order(StartAttempt(1, 1, exchange))
    assert isinstance(worker.step(0.0), Connect)
    worker.failed(TimeoutError("timed out"), 1.0)
    step = worker.step(1.0)
    assert isinstance(step, Post) and isinstance(step.event, AttemptEnded)
    assert isinstance(step.event.error, Timeout) and isinstance(step.event.error.__cause__, TimeoutError)


def test_an_abort_that_comes_just_before_the_connect_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    with full() as url, sync_driver.RemoteEngine(deployment(url, timeouts={"connect_timeout": None})) as engine:
        line, taken, go_on = engine.client.line, threading.Event(), threading.Event()

        def line_slowly() -> sync_driver.stream.Line:
            taken.set()
            assert go_on.wait(GENEROUS)
            return line()

        monkeypatch.setattr(engine.client, "line", line_slowly)
        ended = threading.Thread(target=pytest.raises, args=(EngineClosed, engine.generate, batch()))
        ended.start()
        assert taken.wait(GENEROUS)
        closing = threading.Thread(target=engine.close)
        closing.start()
        while engine.metrics().in_flight:
            pass
        go_on.set()
        closing.join(GENEROUS)
        assert not closing.is_alive()
        ended.join()


def test_close_does_not_wait_for_ever_for_a_callable_that_hangs() -> None:
    with mute() as url:
        hung, release = threading.Event(), threading.Event()

        def fetch() -> str:
            hung.set()
            release.wait()
            return KEY

        config = RemoteEngineConfig((deployment(url, Secret.from_callable(fetch)),), SessionConfig(refresh_timeout=0.2))
        engine = sync_driver.RemoteEngine(config)
        with engine:
            engine.rebuild_session()
            assert hung.wait(GENEROUS)
            closing = threading.Thread(target=engine.close)
            closing.start()
            closing.join(GENEROUS)
            assert not closing.is_alive()
            release.set()


# An answer that comes before the request was read.


@contextmanager
def refusing_early() -> Iterator[tuple[str, list[int]]]:
    """A server that reads a head, answers 413 and hangs up, whatever is still on its way; how often it was asked."""
    asked: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    head = b""
                    while b"\r\n\r\n" not in head and (data := connection.recv(1000)):
                        head += data
                    if not head:
                        return
                    asked.append(1)
                    connection.sendall(b"HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}")

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            yield url, asked
        finally:
            with suppress(OSError), socket.create_connection(listener.getsockname()[:2]):
                pass
            listener.close()
            thread.join(GENEROUS)


@pytest.mark.parametrize("driver", ["sync", "asyncio", "trio"])
def test_an_early_refusal_of_a_large_request_is_heard(driver: str) -> None:
    large = batch("x" * 8_000_000)

    async def ask_on_asyncio(url: str) -> None:
        async with asyncio_driver.RemoteEngine(deployment(url)) as engine:
            await engine.generate(large)

    async def ask_on_trio(url: str) -> None:
        async with trio_driver.RemoteEngine(deployment(url)) as engine:
            await engine.generate(large)

    def ask(url: str) -> None:
        if driver == "sync":
            with sync_driver.RemoteEngine(deployment(url)) as engine:
                engine.generate(large)
        elif driver == "asyncio":
            asyncio.run(ask_on_asyncio(url))
        else:
            trio.run(ask_on_trio, url)

    with refusing_early() as (url, asked):
        with pytest.raises(BadRequest) as refused:
            ask(url)
        assert refused.value.status == 413
        assert len(asked) == 1


# ---- a timer that two mind ----------------------------------------------------------------------------------------------


class Idlers:
    """A client whose connections idle until these instants."""

    def __init__(self, *instants: float) -> None:
        self.instants = list(instants)

    def deadline(self) -> float | None:
        return min(self.instants, default=None)

    def expire(self, now: float) -> None:
        self.instants = [instant for instant in self.instants if instant > now]


class Clockwork(EngineFront[Any, Idlers]):
    """A driver without a world: its clock stands where the test puts it."""

    time = 0.0
    wakes_at = 0.0

    def now(self) -> float:
        return self.time

    def _wake_at(self, instant: float) -> None:
        self.wakes_at = instant

    def _refresh(self, order: RefreshSession) -> None:
        raise AssertionError("nobody asks")

    def _ask(self, order: AskStore) -> None:
        raise AssertionError("nothing is shared")

    def _emptied(self) -> None:
        raise AssertionError("nobody drains")


def test_the_timer_goes_on_for_the_connections_that_idle_for_longer() -> None:
    def unbuilt(choice: object) -> Idlers:
        raise AssertionError("the client is given")

    client = Idlers(30.0, 35.0, 35.0, 60.0)
    engine = Clockwork(deployment("http://127.0.0.1"), client, unbuilt, None)
    engine._rearm()
    woken: list[float] = []
    while engine.wakes_at > engine.time:
        engine.time = engine.wakes_at
        woken.append(engine.time)
        engine._timer_fired()
    assert (woken, client.instants) == ([30.0, 35.0, 60.0], [])
