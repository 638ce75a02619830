"""Ctrl-C at any moment: nothing hangs, nothing is left, and the handler of the process is what it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import trio

from drivers.mock_provider import serve_in_thread
from drivers.sync_driver import RemoteEngine as SyncEngine
from drivers.sync_driver.interrupts import Bell, InterruptShield
from drivers.trio_driver import RemoteEngine
from sansio import Deployment, ExecuteBatch, Message, Secret
from sansio.simulation import MockProvider

# In a Python of its own, in whose main thread interrupts are raised at random instants.
STORM = """
import faulthandler, random, signal, sys, threading
from drivers.mock_provider import serve_in_thread
from drivers.sync_driver import RemoteEngine, build_client
from sansio import Deployment, ExecuteBatch, Message, PoolConfig, Secret
from sansio.simulation import MockProvider

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's children inherit it as ignored
signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
chance = random.Random(7)
batch = ExecuteBatch(messages=[Message(role="user", content="hello")])
interrupted = 0
with serve_in_thread(MockProvider(token_delay=0.0002)) as server:
    runtime = {"endpoint": f"{server.url}/v1", "api_key": Secret.inline("test-key")}
    deployment = Deployment(name="chat", model="gpt-4o", runtime_config=runtime)
    for _ in range(200):
        faulthandler.dump_traceback_later(60, exit=True)
        with RemoteEngine(deployment, client=build_client(pool=PoolConfig(http2=sys.argv[1]))) as engine:
            try:
                with engine.stream(batch) as chunks:
                    signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-5, 0.012))
                    try:
                        for _ in chunks:
                            pass
                    finally:
                        signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupted += 1
        assert threading.active_count() == 2, threading.enumerate()
        metrics = engine.metrics()
        assert metrics.in_flight == metrics.queued == metrics.waiting == 0, metrics
        assert metrics.submitted == metrics.accounted, metrics
    faulthandler.cancel_dump_traceback_later()
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
print("interrupted", interrupted)
"""


@pytest.mark.parametrize("http2", ["off", "only"])
def test_an_interrupt_at_any_moment_leaves_nothing_behind(http2: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STORM, http2],
        capture_output=True, text=True, timeout=110, check=False,
        env={"PATH": "", "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) > 10


def test_trio_keeps_an_interrupt_for_the_next_checkpoint_while_the_engine_is_told() -> None:
    kept: list[bool] = []

    async def main(url: str) -> None:
        runtime = {"endpoint": f"{url}/v1", "api_key": Secret.inline("test-key")}
        deployment = Deployment(name="chat", model="gpt-4o", runtime_config=runtime)
        engine = RemoteEngine(deployment, on_notice=lambda _: kept.append(trio.lowlevel.currently_ki_protected()))
        async with engine, engine.stream(ExecuteBatch(messages=[Message(role="user", content="hello")])) as chunks:
            async for _ in chunks:
                assert not trio.lowlevel.currently_ki_protected()  # the caller's own code is as it was

    with serve_in_thread(MockProvider()) as server:
        trio.run(main, server.url)
    assert kept and all(kept)


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.fixture
def shield() -> Iterator[InterruptShield]:
    """A shield in a process whose handler is Python's own, as a script's is; a runner of tests may have another."""
    found = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield InterruptShield()
    signal.signal(signal.SIGINT, found)


def test_an_interrupt_under_the_shield_comes_at_its_end(shield: InterruptShield) -> None:
    shield.raise_up()
    reached = []

    def interrupted() -> None:
        with shield:
            with shield:
                interrupt()
            reached.append("the end of the inner block")
            interrupt()
            reached.append("the end of the outer block")

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(reached) == 2
    shield.take_down()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_comes_at_once_while_the_shield_is_lowered(shield: InterruptShield) -> None:
    shield.raise_up()
    with shield:
        with pytest.raises(KeyboardInterrupt), shield.lowered():
            interrupt()
        interrupt()
        with pytest.raises(KeyboardInterrupt), shield.lowered():
            pytest.fail("one that was held back comes before anything is waited for")
    shield.take_down()


def test_who_waits_no_longer_is_shielded_wherever_the_interrupt_came(shield: InterruptShield) -> None:
    shield.raise_up()
    with shield:
        lowered = shield.lowered()
        lowered.__enter__()
        with pytest.raises(KeyboardInterrupt):
            interrupt()
        interrupt()  # on the way out, before the end of the block was noted
        lowered.__exit__()
        with pytest.raises(KeyboardInterrupt), shield.lowered():
            pytest.fail("it was held back until now")
    with pytest.raises(KeyboardInterrupt):
        interrupt()
    shield.take_down()


def test_what_is_shielded_within_a_wait_is_shielded(shield: InterruptShield) -> None:
    shield.raise_up()
    reached = []

    def interrupted() -> None:
        with shield.lowered(), shield:
            interrupt()
            reached.append("the end of the inner block")

    with shield:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        with shield.lowered():
            with shield, shield.lowered():
                pass
            with pytest.raises(KeyboardInterrupt):
                interrupt()
    assert reached
    shield.take_down()


def test_a_bell_wakes_once_however_often_it_was_rung() -> None:
    bell, heard = Bell(), []

    def wait() -> None:
        bell.wait()
        heard.append(1)
        bell.wait()
        heard.append(2)

    bell.ring()
    bell.ring()
    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    while not heard:
        pass
    thread.join(0.1)
    assert heard == [1]
    bell.ring()
    thread.join(20)
    assert heard == [1, 2]


def test_an_interrupt_outside_the_shield_is_raised_as_ever(shield: InterruptShield) -> None:
    shield.raise_up()
    with pytest.raises(KeyboardInterrupt):
        interrupt()
    shield.take_down()


def test_the_handler_is_put_back_by_the_last_of_several_engines(shield: InterruptShield) -> None:
    shield.raise_up()
    shield.raise_up()
    shield.take_down()
    assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    shield.take_down()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_the_program_is_left_alone(shield: InterruptShield) -> None:
    seen: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: seen.append(number))
    shield.raise_up()
    with shield:
        interrupt()
        assert seen == [signal.SIGINT]
    shield.take_down()
    assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler


def test_other_threads_need_no_shield_and_change_nothing(shield: InterruptShield) -> None:
    def use() -> None:
        shield.raise_up()
        with shield, shield.lowered():
            pass
        shield.take_down()

    thread = threading.Thread(target=use)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("shield")
def test_an_interrupt_while_an_engine_is_closed_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = {"endpoint": "http://127.0.0.1:1/v1", "api_key": Secret.inline("test-key")}
    engine = SyncEngine(Deployment(name="chat", model="gpt-4o", runtime_config=runtime))
    closed: list[bool] = []

    def join() -> None:
        raise KeyboardInterrupt

    with engine:
        timer = engine._timer
        assert timer is not None
        monkeypatch.setattr(timer, "join", join)
        monkeypatch.setattr(engine.client, "close", lambda: closed.append(True))
        with pytest.raises(KeyboardInterrupt):
            engine.close()
    assert closed == [True]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
