"""Requests to the store over a real server, in each of the three ways; and over servers and networks that misbehave.

Times are never asserted. That nothing hangs is shown by the tests' coming to an end.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import queue
import socket
import ssl
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shared_store_rig import LONG, WAYS, Asking, OnThread, ScriptedServer, Valkey, bulk, valkey_for_stores

from drivers.shared_store import AsyncioStore, BlockingStore, StoreThread
from drivers.shared_store.address import UnusableUrl, parse_address
from drivers.shared_store.asyncio_store import MAX_CONNECTIONS
from drivers.shared_store.reasons import reason_for
from sansio import Credential, Secret
from sansio.cluster.config import ClusterConfig
from sansio.cluster.store import (
    Correction,
    Publish,
    Published,
    Quota,
    StoreLost,
    StoreReply,
    StoreRequest,
    Swap,
    Swapped,
    Take,
    Taken,
)
from sansio.cluster.strict_script import keys_of
from sansio.simulation.world.shared_store import SharedStore

BOARD, DOCUMENT = "test:board", "test:document"
MINE = Publish(BOARD, "me", b"mine", 60.0)
READ = Swap(DOCUMENT, 0, None, 60.0)
WRITE = Swap(DOCUMENT, 0, b"written", 60.0)
TAKE = Take("test:ledger", "me", (Quota("requests", 100, 60.0), Quota("tokens", 1000, 60.0)), asks=((1, 10), (1, 10)))
SHORT = 0.5
"""Seconds for a store that is not going to answer."""

Opens = Callable[..., Asking]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with valkey_for_stores(tmp_path_factory.mktemp("valkey")) as valkey:
        yield valkey


@pytest.fixture
def valkey(running: Valkey) -> Valkey:
    """A server that knows nothing, neither data nor scripts."""
    with running.admin() as admin:
        admin.flushall()
        admin.script_flush()
        admin.config_resetstat()
    return running


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Valkey]:
    """A server that a test may kill."""
    with valkey_for_stores(tmp_path) as valkey:
        yield valkey


@pytest.fixture(scope="module", autouse=True)
def _no_socket_is_left() -> Iterator[None]:
    """One would warn when it is collected."""
    yield
    gc.collect()


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    """No thread. A name's look-up may be left behind, as it cannot be interrupted."""
    before = set(threading.enumerate())
    yield
    assert {thread for thread in threading.enumerate() if not thread.name.startswith("shared-store-look-up")} <= before


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Iterator[Opens]:
    """Opens a store of one of the three kinds; it is closed with the test."""
    with contextlib.ExitStack() as closing:

        def open_store(url: str | Secret, store_timeout: float = LONG) -> Asking:
            store = WAYS[request.param](ClusterConfig(url, store_timeout=store_timeout))
            closing.callback(store.close)
            return store

        yield open_store


def opened(url: str | Secret, store_timeout: float = LONG) -> contextlib.AbstractAsyncContextManager[AsyncioStore]:
    @contextlib.asynccontextmanager
    async def block() -> Any:
        store = AsyncioStore(ClusterConfig(url, store_timeout=store_timeout))
        try:
            yield store
        finally:
            await store.aclose()

    return block()


def reason(reply: StoreReply) -> str:
    assert isinstance(reply, StoreLost), reply
    return reply.reason


def swapped(reply: StoreReply) -> tuple[bool, bytes]:
    assert isinstance(reply, Swapped), reply
    return reply.done, reply.document


def version(reply: StoreReply) -> int:
    assert isinstance(reply, Swapped), reply
    return reply.version


@contextlib.contextmanager
def counting_connections(valkey: Valkey) -> Iterator[list[int]]:
    """How many were made to the server inside the block."""
    made: list[int] = []
    with valkey.admin() as admin:
        before = admin.info("stats")["total_connections_received"]
        yield made
        made.append(admin.info("stats")["total_connections_received"] - before)


def reports(reply: StoreReply) -> dict[str, bytes]:
    assert isinstance(reply, Published), reply
    return {member: report for member, (_, report) in reply.reports.items()}


# --- The requests -----------------------------------------------------------------------------------------------------


def test_a_board_holds_the_last_report_of_each_member(valkey: Valkey, way: Opens) -> None:
    one, other = way(valkey.url), way(valkey.url)
    assert reports(one.execute(Publish(BOARD, "a", b"1", 60.0))) == {"a": b"1"}
    assert reports(other.execute(Publish(BOARD, "b", b"2", 60.0))) == {"a": b"1", "b": b"2"}
    assert reports(one.execute(Publish(BOARD, "a", b"3", 60.0))) == {"a": b"3", "b": b"2"}
    assert reports(other.execute(Publish("another", "b", b"4", 60.0))) == {"b": b"4"}


def test_an_empty_report_takes_a_member_off_the_board(valkey: Valkey, way: Opens) -> None:
    store = way(valkey.url)
    store.execute(Publish(BOARD, "a", b"1", 60.0))
    store.execute(Publish(BOARD, "b", b"2", 60.0))
    assert reports(store.execute(Publish(BOARD, "a", b"", 60.0))) == {"b": b"2"}
    assert reports(store.execute(Publish(BOARD, "nobody", b"", 60.0))) == {"b": b"2"}
    assert reports(store.execute(Publish(BOARD, "b", b"", 60.0))) == {}
    with valkey.admin() as admin:
        assert not admin.exists(BOARD)


def test_ages_and_times_are_the_servers(valkey: Valkey, way: Opens) -> None:
    store = way(valkey.url)
    first = store.execute(Publish(BOARD, "a", b"1", 60.0))
    second = store.execute(Publish(BOARD, "b", b"2", 60.0))
    assert isinstance(first, Published) and isinstance(second, Published)
    assert first.reports["a"][0] == second.reports["b"][0] == 0.0
    assert second.reports["a"][0] == pytest.approx(second.unix_now - first.unix_now, abs=1e-6)
    assert second.unix_now > first.unix_now
    with valkey.admin() as admin:
        seconds, _ = admin.time()
    assert seconds - LONG < first.unix_now <= seconds + 1


NOW = 2_000_000_000_000_000
"""Microseconds: an instant that the server has not reached yet."""


@pytest.mark.parametrize(
    ("entry", "stands"),
    [
        (b"%d %d 7 old" % (0, 60_000_000), False),
        (b"%d %d 7 long ago, for longer" % (NOW * 3 // 4, NOW // 2), True),
        (b"%d %d 7 an absurd time" % (NOW * 3 // 4, 10**40), True),
        (b"%d %d 7 of a later time" % (NOW, 60_000_000), True),
        (b"%d %d 7 \n\0binary" % (NOW, 60_000_000), True),
    ],
)
def test_an_entry_stands_as_long_as_its_own_member_said(valkey: Valkey, way: Opens, entry: bytes, stands: bool) -> None:
    store = way(valkey.url)
    with valkey.admin() as admin:
        admin.hset(BOARD, "other", entry)
        found = reports(store.execute(MINE))
        assert found == {"me": b"mine"} | ({"other": entry.split(b" ", 3)[3]} if stands else {})
        assert admin.hexists(BOARD, "other") == stands


def test_an_entry_of_a_later_time_grows_old_from_now_on(valkey: Valkey, way: Opens) -> None:
    """Another server with another clock may have been in this one's place: its members are not young for ever."""
    store = way(valkey.url)
    with valkey.admin() as admin:
        admin.hset(BOARD, "other", b"%d 60000000 1 x" % NOW)
        first, second = store.execute(MINE), store.execute(MINE)
    assert isinstance(first, Published) and isinstance(second, Published)
    assert first.reports["other"] == (0.0, b"x")
    assert second.reports["other"][0] == pytest.approx(second.unix_now - first.unix_now, abs=1e-6)
    assert reports(store.execute(Publish(BOARD, "other", b"late", 60.0, 0))) == {"me": b"mine", "other": b"x"}


@pytest.mark.parametrize(
    "garbage", [b"", b"garbage", b"1 x", b"-1 60000000 1 x", b"1.5 2 1 x", b" 1 2 1 x", b"1 2 3", b"1 2 x"]
)
def test_what_no_member_wrote_is_passed_over(valkey: Valkey, way: Opens, garbage: bytes) -> None:
    with valkey.admin() as admin:
        admin.hset(BOARD, "other", garbage)
        assert reports(way(valkey.url).execute(MINE)) == {"me": b"mine"}
        assert admin.hget(BOARD, "other") == garbage


def test_a_report_that_comes_late_is_not_put(valkey: Valkey, way: Opens) -> None:
    store = way(valkey.url)
    store.execute(Publish(BOARD, "a", b"two", 10.0, 2))
    assert reports(store.execute(Publish(BOARD, "a", b"one", 10.0, 1))) == {"a": b"two"}
    assert reports(store.execute(Publish(BOARD, "a", b"", 10.0, 1))) == {"a": b"two"}
    assert reports(store.execute(Publish(BOARD, "a", b"two again", 10.0, 2))) == {"a": b"two again"}
    assert reports(store.execute(Publish(BOARD, "a", b"", 10.0, 3))) == {}


def test_a_board_is_forgotten_with_the_last_of_its_members(valkey: Valkey, way: Opens) -> None:
    store = way(valkey.url)
    with valkey.admin() as admin:
        store.execute(Publish(BOARD, "a", b"1", 1000.0))
        assert 900_000 < admin.pttl(BOARD) <= 1_000_000
        store.execute(Publish(BOARD, "b", b"2", 10.0))
        assert 900_000 < admin.pttl(BOARD) <= 1_000_000
        store.execute(Publish(BOARD, "a", b"", 10.0))
        assert 0 < admin.pttl(BOARD) <= 10_000


@pytest.mark.parametrize("ttl", [1e-9, 0.0, -1.0, 1e300, float("inf")])
def test_any_time_to_live_is_one(valkey: Valkey, way: Opens, ttl: float) -> None:
    store = way(valkey.url)
    assert reports(store.execute(Publish(BOARD, "a", b"1", ttl))) == {"a": b"1"}
    assert swapped(store.execute(Swap(DOCUMENT, 0, b"x", ttl))) == (True, b"x")


def test_a_document_is_replaced_at_the_version_it_is_known_at(valkey: Valkey, way: Opens) -> None:
    one, other = way(valkey.url), way(valkey.url)
    nothing = one.execute(Swap(DOCUMENT, 0, None, 60.0))
    assert (swapped(nothing), version(nothing)) == ((False, b""), 0)
    assert swapped(one.execute(Swap(DOCUMENT, 1, b"early", 60.0))) == (False, b"")
    first = one.execute(Swap(DOCUMENT, 0, b"first", 60.0))
    assert swapped(first) == (True, b"first")
    late = other.execute(Swap(DOCUMENT, 0, b"late", 60.0))
    assert (swapped(late), version(late)) == ((False, b"first"), version(first))
    second = other.execute(Swap(DOCUMENT, version(first), b"", 60.0))
    assert swapped(second) == (True, b"")
    assert swapped(other.execute(Swap(DOCUMENT, version(first), b"late", 60.0))) == (False, b"")
    looked = one.execute(Swap(DOCUMENT, version(second), None, 60.0))
    assert (swapped(looked), version(looked)) == ((False, b""), version(second))
    assert swapped(one.execute(Swap("another", 0, None, 60.0))) == (False, b"")


def test_no_version_comes_twice(valkey: Valkey, way: Opens) -> None:
    """Else what was meant for a document that the store has lost could be taken for another in its place."""
    store = way(valkey.url)
    seen = [version(store.execute(WRITE))]
    with valkey.admin() as admin:
        for _ in range(3):
            seen.append(version(store.execute(Swap(DOCUMENT, seen[-1], b"x", 60.0))))
            lost = admin.dump(DOCUMENT)
            seen.append(version(store.execute(Swap(DOCUMENT, seen[-1], b"lost", 60.0))))
            admin.restore(DOCUMENT, 0, lost, replace=True)  # as in a fail-over to a replica that had not heard of it
            seen.append(version(store.execute(Swap(DOCUMENT, seen[-2], b"instead", 60.0))))
            admin.delete(DOCUMENT)
            seen.append(version(store.execute(WRITE)))
    assert seen == sorted(set(seen))


def test_versions_rise_also_where_the_clock_has_gone_back(valkey: Valkey, way: Opens) -> None:
    store = way(valkey.url)
    with valkey.admin() as admin:
        admin.hset(DOCUMENT, mapping={"version": NOW, "document": "x"})
    assert version(store.execute(Swap(DOCUMENT, NOW, b"y", 60.0))) == NOW + 1
    assert version(store.execute(Swap(DOCUMENT, NOW + 1, b"y", 60.0))) == NOW + 2


def test_a_document_is_forgotten_a_while_after_it_was_replaced(valkey: Valkey, way: Opens) -> None:
    store = way(valkey.url)
    with valkey.admin() as admin:
        first = version(store.execute(Swap(DOCUMENT, 0, b"x", 1000.0)))
        assert 900_000 < admin.pttl(DOCUMENT) <= 1_000_000
        store.execute(Swap(DOCUMENT, 0, b"refused", 10.0))
        store.execute(Swap(DOCUMENT, first, None, 10.0))
        assert 900_000 < admin.pttl(DOCUMENT) <= 1_000_000
        store.execute(Swap(DOCUMENT, first, b"y", 10.0))
        assert 0 < admin.pttl(DOCUMENT) <= 10_000


@pytest.mark.parametrize(
    "found",
    [{"version": "7"}, {"document": "x"}]
    + [
        {"version": version, "document": "x"}
        for version in ("", "x", "-1", "1.5", "nan", "inf", "0x1", " 1", "9" * 16, "9" * 40)
    ],
)
def test_what_is_no_document_is_none(valkey: Valkey, way: Opens, found: dict[str, str]) -> None:
    store = way(valkey.url)
    with valkey.admin() as admin:
        admin.hset(DOCUMENT, mapping=found)
    assert swapped(store.execute(Swap(DOCUMENT, 1, b"refused", 60.0))) == (False, b"")
    assert swapped(store.execute(Swap(DOCUMENT, 0, b"mine", 60.0))) == (True, b"mine")


def taken(reply: StoreReply) -> Taken:
    assert isinstance(reply, Taken), reply
    return reply


def test_a_ledger_is_charged(valkey: Valkey, way: Opens) -> None:
    one, other = way(valkey.url), way(valkey.url)
    first = taken(one.execute(TAKE))
    assert (first.granted, first.levels, first.sequence) == (2, (2, 20), 1)
    second = taken(other.execute(replace(TAKE, member="other")))
    assert (second.granted, second.levels, second.sequence) == (2, (4, 40), 2)
    assert 0 < second.unix_now - first.unix_now < LONG
    costly = taken(one.execute(replace(TAKE, number=2, asks=((1, 970),), answered=1, known=1)))
    assert (costly.granted, costly.levels) == (0, (4, 40))
    assert costly.wait is not None and 0 < costly.wait < 62
    corrected = replace(TAKE, number=3, asks=((1, 970),), corrections=(Correction(first.slot, (0, -10), 3),))
    assert taken(one.execute(corrected)).levels == (5, 1000)


def test_a_ledger_is_charged_once_for_each_question(valkey: Valkey, way: Opens) -> None:
    store = way(valkey.url)
    for number in range(1, 4):
        with valkey.admin() as admin:
            admin.script_flush()  # so that it is sent by its name, and then as it is
        assert taken(store.execute(replace(TAKE, number=number))).levels == (2 * number, 20 * number)
        assert taken(store.execute(replace(TAKE, number=number))).granted == 0


def test_clients_that_charge_at_a_time_use_all_of_a_limit_and_no_more(valkey: Valkey, way: Opens) -> None:
    quotas = (Quota("requests", 60, 3600.0),)

    def charge(member: str, store: Asking) -> int:
        granted = 0
        for number in itertools.count(1):
            reply = taken(store.execute(Take("test:ledger", member, quotas, asks=((1,),), number=number)))
            granted += reply.granted
            if not reply.granted:
                return granted
        raise AssertionError

    with ThreadPoolExecutor(4) as pool:
        stores = [way(valkey.url) for _ in range(4)]
        assert sum(pool.map(charge, ["a", "b", "c", "d"], stores)) == 60


# --- What was asked before does not show: any sequence, by two clients in turn ----------------------------------------

NAMES = st.sampled_from(["a", "b", "c d", "é\u20ac", "", "\0\r\n"])
BYTES = st.binary(max_size=40) | st.sampled_from([b"1 2 ", b"\0\xff\r\n", b"x" * 70_000])
REQUESTS = st.one_of(
    st.builds(Publish, NAMES, NAMES, BYTES, st.just(60.0), st.integers(0, 2)),
    st.builds(Swap, NAMES.map("doc:".__add__), st.integers(0, 3), st.none() | BYTES, st.just(60.0)),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests=st.lists(REQUESTS, max_size=12))
def test_any_sequence_is_answered_as_by_the_simulated_store(valkey: Valkey, requests: list[Publish | Swap]) -> None:
    with valkey.admin() as admin:
        admin.flushall()
    simulated = SharedStore()

    async def ask() -> None:
        versions: dict[tuple[str, int], int] = {}  # the server's by the simulated ones, which count
        async with opened(valkey.url) as one, opened(valkey.url) as other:
            for store, request in zip(itertools.cycle((one, other)), requests, strict=False):
                expected = simulated.execute(request, 0.0)
                if isinstance(request, Publish):
                    assert reports(await store.execute(request)) == reports(expected)
                    continue
                answer = await store.execute(
                    replace(request, version=versions.get((request.key, request.version), request.version))
                )
                assert swapped(answer) == swapped(expected)
                known = versions.setdefault((request.key, version(expected)), version(answer))
                assert version(answer) == known and (known > 0) == (version(expected) > 0)

    asyncio.run(ask())


# --- Many at a time ---------------------------------------------------------------------------------------------------


def test_of_all_that_replace_one_version_one_succeeds(valkey: Valkey, way: Opens) -> None:
    """Clients count together: each reads, adds one, and tries again when somebody else was quicker."""
    clients, each = 4, 25
    done = [0] * clients

    def count(index: int, store: Asking) -> None:
        known, total = 0, 0
        while done[index] < each:
            reply = store.execute(Swap(DOCUMENT, known, b"%d" % (total + 1), 60.0))
            succeeded, document = swapped(reply)
            known, total = version(reply), int(document)
            done[index] += succeeded

    threads = [threading.Thread(target=count, args=(index, way(valkey.url))) for index in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = clients * each
    assert swapped(way(valkey.url).execute(READ)) == (False, b"%d" % total)


def test_members_that_publish_at_a_time_are_all_on_the_board(valkey: Valkey, way: Opens) -> None:
    store = way(valkey.url)
    others = [way(valkey.url) for _ in range(3)]

    def publish(index: int, of: Asking) -> None:
        for turn in range(20):
            seen = reports(of.execute(Publish(BOARD, f"{index}", b"%d" % turn, 60.0)))
            assert seen[f"{index}"] == b"%d" % turn

    with ThreadPoolExecutor(len(others)) as pool:
        list(pool.map(publish, range(len(others)), others))
    assert reports(store.execute(MINE)) == {"me": b"mine", "0": b"19", "1": b"19", "2": b"19"}


def test_questions_of_many_tasks_share_a_few_connections(valkey: Valkey) -> None:
    async def ask() -> list[StoreReply]:
        async with opened(valkey.url) as store:
            return await asyncio.gather(*(store.execute(Publish(f"{n}", "a", b"%d" % n, 60.0)) for n in range(100)))

    with counting_connections(valkey) as made:
        assert [reports(reply) for reply in asyncio.run(ask())] == [{"a": b"%d" % n} for n in range(100)]
    assert made == [MAX_CONNECTIONS]


@pytest.mark.parametrize("kind", ["thread", "blocking"])
def test_any_thread_may_ask(valkey: Valkey, kind: str) -> None:
    answers: queue.Queue[tuple[int, StoreReply]] = queue.Queue()
    config = ClusterConfig(valkey.url, store_timeout=LONG)
    thread: StoreThread[int] = StoreThread(config, lambda token, reply: answers.put((token, reply)))
    blocking = BlockingStore(config)

    def ask(n: int) -> None:
        request = Publish(f"{n}", "a", b"%d" % n, 60.0)
        if kind == "thread":
            thread.ask(n, request)
        else:
            answers.put((n, blocking.execute(request)))

    with contextlib.closing(thread), contextlib.closing(blocking), ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(50)))
        found = dict(answers.get(timeout=LONG) for _ in range(50))
    assert {n: reports(reply) for n, reply in found.items()} == {n: {"a": b"%d" % n} for n in range(50)}


# --- A connection is kept, and a script is sent once ------------------------------------------------------------------


def test_a_connection_serves_many_questions_and_a_script_is_sent_once(valkey: Valkey, way: Opens) -> None:
    store = way(valkey.url)
    with counting_connections(valkey) as made:
        for _ in range(5):
            assert swapped(store.execute(READ)) == (False, b"")
            assert reports(store.execute(MINE)) == {"me": b"mine"}
    assert made == [1]
    assert (valkey.commands("eval"), valkey.commands("evalsha")) == (2, 10)


def test_a_server_that_forgot_its_scripts_is_sent_them_again(valkey: Valkey, way: Opens) -> None:
    store = way(valkey.url)
    store.execute(MINE)
    with valkey.admin() as admin:
        admin.script_flush()
    assert reports(store.execute(MINE)) == {"me": b"mine"}
    assert valkey.commands("eval") == 2


def test_an_idle_connection_that_the_server_has_closed_is_not_used(valkey: Valkey) -> None:
    async def ask() -> None:
        async with opened(valkey.url) as store, opened(valkey.url) as other:
            await store.execute(MINE)
            with valkey.admin() as admin:
                admin.client_kill_filter(_type="normal", skipme=True)
            await other.execute(MINE)  # the loop has heard of the other connection's end by then
            assert reports(await store.execute(MINE)) == {"me": b"mine"}

    asyncio.run(ask())


def test_a_connection_that_is_told_something_unasked_is_not_used_again() -> None:
    """An answer too many would be taken for the next question's."""
    board = bulk(b"1", b"0", b"a", b"0", b"x")

    async def ask(server: ScriptedServer) -> list[StoreReply]:
        async with opened(server.url) as store:
            return [await store.execute(MINE) for _ in range(3)]

    with ScriptedServer(lambda _: board + bulk(b"2", b"0")) as server:
        assert [reports(reply) for reply in asyncio.run(ask(server))] == [{"a": b"x"}] * 3
        assert server.connections == 3


# --- Servers that go and come -----------------------------------------------------------------------------------------


def test_a_server_that_is_killed_and_started_again(mortal: Valkey, way: Opens) -> None:
    store = way(mortal.url)
    assert reports(store.execute(MINE)) == {"me": b"mine"}
    mortal.server.stop()
    assert isinstance(store.execute(MINE), StoreLost)
    assert reason(store.execute(MINE)) == "Connection refused"
    mortal.server.start()
    assert swapped(store.execute(READ)) == (False, b"")
    assert reports(store.execute(MINE)) == {"me": b"mine"}


def test_a_server_that_stands_still_is_lost_in_time_and_its_late_answer_is_nobodys(mortal: Valkey, way: Opens) -> None:
    hasty, patient = way(mortal.url, 1.5), way(mortal.url)  # long enough for an answer on a machine that has much to do
    assert swapped(hasty.execute(WRITE)) == (True, b"written")
    mortal.server.freeze()
    assert reason(hasty.execute(MINE)) == "no answer in 1.5 s"
    assert reason(hasty.execute(MINE)) == "no answer in 1.5 s"  # over a new connection, which the kernel has taken
    mortal.server.thaw()
    assert reports(patient.execute(Publish(BOARD, "another", b"1", 60.0))).keys() >= {"another"}
    for _ in range(3):
        assert swapped(hasty.execute(READ)) == (False, b"written")


def test_a_server_that_is_paused(valkey: Valkey, way: Opens) -> None:
    hasty = way(valkey.url, SHORT)
    hasty.execute(WRITE)
    with valkey.admin() as admin:
        admin.client_pause(60_000, all=False)
        assert reason(hasty.execute(MINE)) == "no answer in 0.5 s"
        admin.client_unpause()
    assert swapped(hasty.execute(READ)) == (False, b"written")


def test_a_question_is_never_sent_twice(way: Opens) -> None:
    """Whoever hangs up without an answer may have done it."""
    with ScriptedServer(lambda _: None) as server:
        store = way(server.url)
        assert reason(store.execute(MINE)) == "the connection was lost"
        assert server.seen.qsize() == 1
        assert reason(store.execute(MINE)) == "the connection was lost"
        assert server.seen.qsize() == 2


def test_one_lost_connection_takes_the_idle_ones_with_it() -> None:
    """They lead to the same server: each would cost a question otherwise."""
    together = threading.Barrier(MAX_CONNECTIONS)
    served: set[threading.Thread] = set()

    def answers(_: Sequence[bytes]) -> bytes | None:
        if threading.current_thread() in served:
            return None  # this connection has had its one answer
        if len(served) < MAX_CONNECTIONS:
            together.wait(LONG)
        served.add(threading.current_thread())
        return bulk(b"1", b"0")

    async def ask(server: ScriptedServer) -> None:
        async with opened(server.url) as store:
            await asyncio.gather(*(store.execute(MINE) for _ in range(MAX_CONNECTIONS)))
            assert reason(await store.execute(MINE)) == "the connection was lost"
            assert reports(await store.execute(MINE)) == {}

    with ScriptedServer(answers) as server:
        asyncio.run(ask(server))


def test_an_idle_connection_that_was_reset_is_not_used(valkey: Valkey) -> None:
    """As by a router that has forgotten it."""
    asked = threading.Event()

    def answers(_: Sequence[bytes]) -> Iterator[bytes | None]:
        yield bulk(b"1", b"0")
        asked.wait(LONG)
        yield None

    async def ask(server: ScriptedServer) -> None:
        async with opened(server.url) as store, opened(valkey.url) as other:
            assert reports(await store.execute(MINE)) == {}
            asked.set()
            await asyncio.to_thread(server.hung_up.wait, LONG)
            await other.execute(MINE)  # the loop has heard of the other connection's end by then
            assert reports(await store.execute(MINE)) == {}

    with ScriptedServer(answers, resets=True) as server:
        asyncio.run(ask(server))
        assert server.connections == 2


def test_a_connection_is_tried_once(way: Opens) -> None:
    """How often to ask is the core's to say."""
    with ScriptedServer(lambda _: None, polite=False) as server:
        assert reason(way(server.url).execute(MINE)) == "the connection was lost"
        assert server.connections == 1


# --- Broken off -------------------------------------------------------------------------------------------------------


def test_an_answer_to_a_cancelled_question_is_nobodys() -> None:
    """The server answers it when the next one is already asked."""
    arrived, answer = threading.Event(), threading.Event()

    def answers(command: Sequence[bytes]) -> bytes:
        if b"cancelled" not in command:
            return bulk(b"1", b"0", b"b", b"0", b"right")
        arrived.set()
        answer.wait(LONG)
        return bulk(b"1", b"0", b"a", b"0", b"wrong")

    async def ask(server: ScriptedServer) -> None:
        async with opened(server.url) as store:
            assert reports(await store.execute(MINE)) == {"b": b"right"}
            task = asyncio.create_task(store.execute(Publish(BOARD, "cancelled", b"", 60.0)))
            await asyncio.to_thread(arrived.wait, LONG)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            answer.set()
            for _ in range(3):
                assert reports(await store.execute(MINE)) == {"b": b"right"}

    with ScriptedServer(answers) as server:
        asyncio.run(ask(server))
        assert server.connections == 2


@pytest.mark.parametrize("kept", [False, True])
def test_a_question_may_be_cancelled_at_any_moment(valkey: Valkey, kept: bool) -> None:
    """kept: over a connection that has served before, else while one is made."""

    async def ask() -> int:
        for turns in itertools.count():
            async with opened(valkey.url.replace("://", "://default:@") + "/3") as store:
                if kept:
                    await store.execute(WRITE)
                task = asyncio.create_task(store.execute(Publish("cancelled", "a", b"1", 60.0)))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                assert swapped(await store.execute(READ)) == (False, b"written" if kept else b"")
                assert reports(await store.execute(MINE)) == {"me": b"mine"}
                if not task.cancelled():
                    return turns
        raise AssertionError

    with valkey.admin() as admin:
        admin.config_set("requirepass", "")
    assert asyncio.run(ask()) > (1 if kept else 4)


def test_a_cancelled_question_leaves_the_others_alone(valkey: Valkey) -> None:
    async def ask() -> None:
        async with opened(valkey.url) as store:
            tasks = [asyncio.create_task(store.execute(Publish(f"{n}", "a", b"%d" % n, 60.0))) for n in range(20)]
            await tasks[0]
            cancelled = {n for n, task in enumerate(tasks) if n % 2 and task.cancel()}
            assert len(cancelled) >= 20 // 2 - MAX_CONNECTIONS
            await asyncio.wait(tasks)
            for n, task in enumerate(tasks):
                assert task.cancelled() if n in cancelled else reports(task.result()) == {"a": b"%d" % n}

    asyncio.run(ask())


def test_closing_answers_what_is_under_way(mortal: Valkey) -> None:
    """One that waits for an answer, one that waits in line, and one that is asked too late."""

    async def ask() -> list[StoreReply]:
        store = AsyncioStore(ClusterConfig(mortal.url, store_timeout=LONG))
        mortal.server.freeze()
        tasks = [asyncio.create_task(store.execute(MINE)) for _ in range(MAX_CONNECTIONS + 1)]
        await asyncio.sleep(0)
        await store.aclose()
        await store.aclose()
        assert all(task.done() for task in tasks)
        return [*(task.result() for task in tasks), await store.execute(MINE)]

    assert {reason(reply) for reply in asyncio.run(ask())} == {"the store was closed"}


@pytest.fixture
def silent() -> Iterator[ScriptedServer]:
    """Takes every question and answers none before the test is over."""
    over = threading.Event()

    def answers(_: Sequence[bytes]) -> None:
        over.wait(LONG)

    with ScriptedServer(answers) as server:
        yield server
        over.set()


def test_a_blocking_store_that_is_closed_answers_who_waits(silent: ScriptedServer) -> None:
    store = BlockingStore(ClusterConfig(silent.url, store_timeout=LONG))
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(store.execute, MINE) for _ in range(2)]
        for _ in waiting:
            silent.seen.get(timeout=LONG)
        store.close()
        store.close()
        assert {reason(each.result(LONG)) for each in waiting} == {"the store was closed"}
    assert reason(store.execute(MINE)) == "the store was closed"


# --- The thread -------------------------------------------------------------------------------------------------------


def test_no_thread_is_begun_before_the_first_question(valkey: Valkey) -> None:
    store = OnThread(ClusterConfig(valkey.url))
    before = threading.active_count()
    store.close()
    store.thread.ask(1, MINE)
    assert (threading.active_count(), store.answers.qsize()) == (before, 0)


def test_a_thread_is_closed_while_questions_hang(silent: ScriptedServer) -> None:
    store = OnThread(ClusterConfig(silent.url, store_timeout=LONG))
    before = threading.active_count()
    for token in range(MAX_CONNECTIONS):
        store.thread.ask(token, MINE)  # returns at once, whatever the server does
    for _ in range(MAX_CONNECTIONS):
        silent.seen.get(timeout=LONG)
    store.thread.close()
    store.thread.close()
    store.thread.ask(9, MINE)
    assert (threading.active_count() - before, store.answers.qsize()) == (MAX_CONNECTIONS, 0)  # the server's threads


def test_what_is_under_way_when_a_thread_is_closed_has_its_time(valkey: Valkey) -> None:
    store = OnThread(ClusterConfig(valkey.url, store_timeout=LONG))
    for token in range(10):
        store.thread.ask(token, Publish(f"{token}", "a", b"%d" % token, 60.0))
    store.thread.close(LONG)
    found = dict(store.answers.get_nowait() for _ in range(10))
    assert {token: reports(reply) for token, reply in found.items()} == {n: {"a": b"%d" % n} for n in range(10)}


def test_nothing_is_delivered_once_close_has_returned(valkey: Valkey) -> None:
    """Not even where it gave up waiting for whoever takes an answer."""
    taking, taken = threading.Event(), threading.Event()
    delivered: list[int] = []

    def deliver(token: int, _: StoreReply) -> None:
        delivered.append(token)
        taking.set()
        taken.wait(LONG)

    thread = StoreThread(ClusterConfig(valkey.url, store_timeout=LONG), deliver)
    before = set(threading.enumerate())
    for token in range(5):
        thread.ask(token, MINE)
    taking.wait(LONG)
    thread.close()
    assert len(delivered) == 1
    taken.set()
    for left in set(threading.enumerate()) - before:
        left.join(LONG)
    assert len(delivered) == 1


def test_whoever_takes_an_answer_may_ask_again_and_close(valkey: Valkey) -> None:
    ended = threading.Event()
    replies: list[StoreReply] = []

    def deliver(token: int, reply: StoreReply) -> None:
        replies.append(reply)
        if token < 3:
            thread.ask(token + 1, MINE)
        else:
            thread.close(LONG)
            ended.set()

    thread = StoreThread(ClusterConfig(valkey.url, store_timeout=LONG), deliver)
    thread.ask(1, MINE)
    assert ended.wait(LONG)
    thread.close(LONG)
    assert [reports(reply) for reply in replies] == [{"me": b"mine"}] * 3


def test_a_look_up_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a name that is nobody's is said to be that."""
    look_up = threading.Event()

    def getaddrinfo(host: str, *_: Any, **__: Any) -> Any:
        if host == "hangs.test":
            look_up.wait(LONG)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    hangs, nobody = (
        BlockingStore(ClusterConfig(f"redis://{host}.test", store_timeout=SHORT)) for host in ("hangs", "nobody")
    )
    with contextlib.closing(hangs), contextlib.closing(nobody):
        assert reason(hangs.execute(MINE)) == "no answer in 0.5 s"
        assert reason(nobody.execute(MINE)) == "the host's name cannot be looked up"
    look_up.set()


# --- Refused ----------------------------------------------------------------------------------------------------------

SECRETS = ("hunter2", "alice", "s3cr3t")


def is_clean(text: str) -> bool:
    return not any(secret in text.lower() for secret in SECRETS)


@pytest.fixture
def guarded(valkey: Valkey) -> Iterator[Valkey]:
    with valkey.admin() as admin:
        admin.acl_setuser("alice", enabled=True, passwords=["+hunter2"], keys=["test:*"], commands=["+@all"])
        admin.acl_setuser("bob", enabled=True, passwords=["+hunter2"], keys=["nothing"], commands=["+@all"])
        yield valkey
        admin.acl_deluser("alice", "bob")


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("alice:s3cr3t", "the user or the password is refused"),
        ("nobody:hunter2", "the user or the password is refused"),
        ("alice", "the user or the password is refused"),
        (":hunter2", "the user or the password is refused"),
        ("bob:hunter2", "the user may not run scripts on this key"),
        ("alice:hunter2", None),
    ],
)
def test_users_and_passwords(guarded: Valkey, way: Opens, user: str, expected: str | None) -> None:
    with guarded.admin() as admin:
        admin.config_set("requirepass", "s3cr3t")
        try:
            store = way(guarded.url.replace("://", f"://{user}@"))
            for reply in (store.execute(MINE), store.execute(MINE)):
                assert reports(reply) == {"me": b"mine"} if expected is None else reason(reply) == expected
            assert is_clean(repr(store) + str(vars(store)))
        finally:
            admin.config_set("requirepass", "")


def test_something_else_at_the_key(valkey: Valkey, way: Opens) -> None:
    store = way(valkey.url)
    with valkey.admin() as admin:
        admin.set(BOARD, "a string")
        admin.lpush(DOCUMENT, "a list")
        admin.set(keys_of(TAKE)[0], "a string")
        for request in (MINE, WRITE, READ, TAKE):
            assert reason(store.execute(request)) == "something else is stored at the key"
        assert admin.get(BOARD) == b"a string"
        admin.delete(BOARD)
    assert reports(store.execute(MINE)) == {"me": b"mine"}


def test_a_server_that_became_a_replica(mortal: Valkey, way: Opens) -> None:
    store = way(mortal.url)
    store.execute(MINE)
    with mortal.admin() as admin:
        admin.replicaof("127.0.0.1", 1)
        assert reason(store.execute(MINE)) == "the server is a replica, which takes no writes"
        admin.config_set("replica-serve-stale-data", "no")
        assert reason(store.execute(MINE)) == "the server is a replica that has lost its primary"
        admin.replicaof("NO", "ONE")
    assert reports(store.execute(MINE)) == {"me": b"mine"}


def test_a_server_without_memory(mortal: Valkey, way: Opens) -> None:
    store = way(mortal.url)
    with mortal.admin() as admin:
        admin.config_set("maxmemory", 1)
        assert reason(store.execute(MINE)) == "the server's memory is full"
        admin.config_set("maxmemory", 0)
    assert reports(store.execute(MINE)) == {"me": b"mine"}


LOST = "the connection was lost"
UNREADABLE = "the answer cannot be read"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"-LOADING Redis is loading the dataset in memory\r\n", "the server is still loading its data"),
        (b"-MOVED 3999 127.0.0.1:6381\r\n", "the key belongs to another server of a cluster"),
        (b"-ASK 3999 127.0.0.1:6381\r\n", "the key belongs to another server of a cluster"),
        (b"-MOVED\r\n", None),
        (b"-CLUSTERDOWN The cluster is down\r\n", "the server's cluster is down"),
        (b"-TRYAGAIN Multiple keys request during rehashing\r\n", "the key is being moved to another server of a cluster"),
        (b"-NOAUTH Authentication required.\r\n", "the user or the password is refused"),
        (b"-NOPERM User alice has no permissions\r\n", "the user may not run scripts on this key"),
        (b"-MISCONF Errors writing to the AOF file\r\n", "the server cannot save, and takes no writes"),
        (b"-NOREPLICAS Not enough good replicas\r\n", "the server has too few replicas to take writes"),
        (b"-BUSY Redis is busy running a script\r\n", "the server is busy with another script"),
        (b"-OOM command not allowed\r\n", "the server's memory is full"),
        (
            b"-ERR Error running script (call to f_1): @user_script:9: -READONLY You can't write against a replica.\r\n",
            "the server is a replica, which takes no writes",
        ),
        (b"-ERR hunter2 by alice, s3cr3t\r\n", "the server answered with an error"),
        (b"-HUNTER2 ALICE S3CR3T\r\n", "the server answered with an error"),
        (b"-\r\n", "the server answered with an error"),
        (b"+OK\r\n", UNREADABLE),
        (b":1\r\n", UNREADABLE),
        (b"$-1\r\n", UNREADABLE),
        (b"*-1\r\n", UNREADABLE),
        (b"*0\r\n", UNREADABLE),
        (b"hunter2\r\n", UNREADABLE),
        (b"\r\n", None),
        (b"*1\r\n*1\r\n:1\r\n", UNREADABLE),
        (b"$hunter2\r\n", UNREADABLE),
        (b"*5\r\n$1\r\n1\r\n", LOST),
        (b"$100\r\nhunter2", LOST),
        (b"*1\r\n" * 5000, None),
        (bulk(b"1", b"0", b"a"), UNREADABLE),
        (bulk(b"1", b"0", b"a", b"0"), UNREADABLE),
        (bulk(b"1", b"0", b"a", b"x", b"report"), UNREADABLE),
        (bulk(b"1", b"0", b"a", -1, b"report"), UNREADABLE),
        (bulk(b"1", b"0", b"a", b"9" * 400, b"report"), UNREADABLE),
        (bulk(b"1", b"0", 0, 1, 1), UNREADABLE),
        (bulk(b"1", b"0", 2, 1, b""), UNREADABLE),
        (bulk(b"1", b"0", 0, b"9" * 19, b""), UNREADABLE),
        (bulk(b"1", b"0", 0, 10**19, b""), UNREADABLE),
        (bulk(b"1", b"0", b"a", b"9" * 19, b""), UNREADABLE),
        (bulk(b"x", b"0"), UNREADABLE),
    ],
)
@pytest.mark.parametrize("request_", [MINE, WRITE, READ, TAKE], ids=["publish", "swap", "read", "take"])
def test_whatever_a_server_answers_is_an_answer(answer: bytes, expected: str | None, request_: StoreRequest) -> None:
    """It answers, and hangs up. `None` stands for any reason."""

    async def ask(server: ScriptedServer) -> str:
        async with opened(server.url.replace("://", "://:s3cr3t@")) as store:
            return reason(await store.execute(request_))

    with ScriptedServer(lambda _: [answer, None]) as server:
        found = asyncio.run(ask(server))
    assert is_clean(found)
    assert expected is None or found.startswith(expected), found


def test_a_reader_is_not_told_that_it_wrote(way: Opens) -> None:
    with ScriptedServer(lambda _: bulk(b"1", b"0", 1, 1, b"")) as server:
        assert swapped(way(server.url).execute(WRITE)) == (True, b"written")
        assert reason(way(server.url).execute(READ)).startswith(UNREADABLE)


def test_a_server_that_knows_no_script_ever(way: Opens) -> None:
    with ScriptedServer(lambda _: b"-NOSCRIPT No matching script. Please use EVAL.\r\n") as server:
        assert reason(way(server.url).execute(MINE)) == "the server answered with an error"
        assert [server.seen.get_nowait()[0] for _ in range(2)] == [b"EVALSHA", b"EVAL"]
        assert server.seen.empty()


@pytest.mark.parametrize("command", [b"AUTH", b"SELECT", b"CLIENT"])
@pytest.mark.parametrize(
    "answer", [b"-ERR you said hunter2\r\n", b"+hunter2\r\n", b"*1\r\n$7\r\nhunter2\r\n", b"x\r\n", None]
)
def test_whatever_a_server_answers_to_a_greeting(command: bytes, answer: bytes | None) -> None:
    board = bulk(b"1", b"0")

    async def ask(server: ScriptedServer) -> StoreReply:
        async with opened(server.url.replace("://", "://alice:hunter2@") + "/3?client_name=s3cr3t") as store:
            return await store.execute(MINE)

    def answers(said: Sequence[bytes]) -> bytes | None:
        if said[0] == command:
            return answer
        return board if said[0].startswith(b"EVAL") else b"+OK\r\n"

    with ScriptedServer(answers, polite=False) as server:
        reply = asyncio.run(ask(server))
    assert isinstance(reply, Published) or is_clean(reply.reason)


def test_an_answer_that_trickles_in_is_not_waited_for_longer_than_any_other(way: Opens) -> None:
    """Each byte comes in time, the whole does not."""
    over = threading.Event()

    def answers(_: Sequence[bytes]) -> Iterator[bytes]:
        yield b"$100000\r\n"
        while not over.wait(0.01):
            yield b"x"

    with ScriptedServer(answers) as server:
        assert reason(way(server.url, SHORT).execute(MINE)) == "no answer in 0.5 s"
        over.set()


def test_a_server_that_accepts_nobody(way: Opens) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        store = way(f"redis://:hunter2@127.0.0.1:{listener.getsockname()[1]}", SHORT)
        assert reason(store.execute(MINE)) == "no answer in 0.5 s"


def test_no_server(way: Opens, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert reason(way(f"redis://127.0.0.1:{port}").execute(MINE)) == "Connection refused"
    assert reason(way(f"unix://{tmp_path}/none").execute(MINE)) == "No such file or directory"


def test_a_reason_without_any_hint() -> None:
    assert reason_for(OSError("hunter2")) == "the server cannot be reached"
    assert reason_for(KeyError("hunter2")) == "the answer cannot be read (KeyError)"
    loop: Exception = KeyError("hunter2")
    loop.__context__ = other = ValueError("hunter2")
    other.__context__ = loop
    assert reason_for(loop) == "the answer cannot be read (KeyError)"


# --- Where it is ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", {"host": "localhost", "port": 6379, "db": 0, "username": None, "password": None, "tls": None}),
        ("valkey://", {"host": "localhost", "port": 6379, "tls": None}),
        ("redis://store.test:7000/", {"host": "store.test", "port": 7000, "db": 0, "path": None}),
        ("redis://[::1]:7000/12", {"host": "::1", "port": 7000, "db": 12}),
        ("redis://h?db=3&client_name=me", {"host": "h", "db": 3, "client_name": "me"}),
        ("redis://h?client_name=", {"client_name": None}),
        ("redis://:p%40%2F%23@h", {"username": None, "password": "p@/#", "host": "h"}),
        ("redis://us%65r:p%C3%A4ss@h", {"username": "user", "password": "päss"}),
        ("redis://user@h", {"username": "user", "password": None}),
        ("redis://a:b@c@h", {"username": "a", "password": "b@c", "host": "h"}),
        ("unix:///run/valkey%20one.sock?db=2", {"path": "/run/valkey one.sock", "db": 2, "tls": None}),
        ("unix://user:pass@/run/valkey.sock", {"path": "/run/valkey.sock", "username": "user", "password": "pass"}),
        ("rediss://h", {"port": 6379, "tls": (("ssl_cert_reqs", "required"), ("ssl_check_hostname", True))}),
        ("valkeys://h?ssl_cert_reqs=none", {"tls": (("ssl_cert_reqs", "none"), ("ssl_check_hostname", False))}),
        (
            "rediss://h?ssl_check_hostname=no&ssl_ca_certs=/ca.pem&ssl_certfile=c&ssl_keyfile=k",
            {
                "tls": (
                    ("ssl_cert_reqs", "required"),
                    ("ssl_check_hostname", False),
                    ("ssl_ca_certs", "/ca.pem"),
                    ("ssl_certfile", "c"),
                    ("ssl_keyfile", "k"),
                )
            },
        ),
    ],
)
def test_what_a_url_says(url: str, expected: dict[str, object]) -> None:
    address = parse_address(url)
    assert {name: getattr(address, name) for name in expected} == expected


UNUSABLE = {
    "http://alice:hunter2@h": "does not begin with",
    "alice:hunter2@h": "does not begin with",
    "hunter2": "does not begin with",
    "redis://alice:hunter2@h:port": "taken apart",
    "redis://alice:hunter2@h:70000": "taken apart",
    "redis://alice:hunter2@h:-1": "taken apart",
    "redis://alice:hunter2/x@h": "taken apart",
    "redis://alice:[hunter2@h": "taken apart",
    "redis://alice:hunter2\u2100@h": "taken apart",
    "redis://alice:hunter2@h?hunter2": "taken apart",
    "redis://alice:hunter2@h:0": "port is 0",
    "redis://alice:hunter2@h/x": "database",
    "redis://alice:hunter2@h/-1": "database",
    "redis://alice:hunter2@h/1/2": "database",
    "redis://alice:hunter2@h/\u0661": "database",
    "redis://alice:hunter2@h/1234567890": "database",
    "redis://alice:hunter2@h/1?db=1": "database",
    "redis://alice:hunter2@h?db=": "database",
    "redis://alice:hunter2@h?db=hunter2": "database",
    "redis://alice:hunter2@h?db=1&db=1": "option",
    "redis://alice:hunter2@h?hunter2=1": "option",
    "redis://alice:hunter2@h?retry_on_timeout=yes": "option",
    "redis://alice:hunter2@h?ssl_cert_reqs=none": "option",
    "rediss://alice:hunter2@h?ssl_cert_reqs=hunter2": "ssl_cert_reqs",
    "rediss://alice:hunter2@h?ssl_check_hostname=hunter2": "ssl_check_hostname",
    "redis://alice:hun#ter2@h": "'#'",
    "redis://alice:hunter2@h#": "'#'",
    "redis://alice:hunter 2@h": "space",
    "redis://alice:hunter2\n@h": "space",
    "unix://": "path",
    "unix:///": "path",
    "unix://hunter2/run/valkey.sock": "path",
    "unix://alice:hunter2@:1/run/valkey.sock": "path",
}


@pytest.mark.parametrize(("url", "complaint"), UNUSABLE.items())
def test_a_url_that_cannot_be_used_is_refused_without_being_shown(url: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=r"^cluster: url: ") as raised:
        parse_address(url)
    assert complaint in str(raised.value)
    assert is_clean("".join(traceback.format_exception_only(raised.value)))
    assert raised.value.__cause__ is None and (raised.value.__suppress_context__ or raised.value.__context__ is None)


@given(url=st.one_of(st.text(), st.tuples(st.sampled_from(["redis://", "rediss://", "unix://"]), st.text()).map("".join)))
def test_any_url_is_taken_or_refused(url: str) -> None:
    with contextlib.suppress(UnusableUrl):
        parse_address(url)


@pytest.mark.parametrize("kind", [AsyncioStore, BlockingStore, OnThread])
def test_a_store_is_not_made_with_what_cannot_be_used(kind: Callable[[ClusterConfig], object], tmp_path: Path) -> None:
    unusable = {
        "redis://alice:hunter2@h/x": "cluster: url: its database is not one number of at least 0",
        Secret.inline("redis://alice:hunter2@h/x"): "cluster: url: its database is not one number of at least 0",
        Secret.from_env("NO_SUCH_VARIABLE"): "cluster: url: the environment variable NO_SUCH_VARIABLE is not set",
        Secret.from_file(tmp_path / "none"): f"cluster: url: {tmp_path}/none: No such file or directory",
    }
    for url, expected in unusable.items():
        with pytest.raises(ValueError) as raised:
            kind(ClusterConfig(url))
        assert str(raised.value) == expected


@pytest.mark.parametrize("url", ["redis://alice:hunter2@s3cr3t", Secret.inline("redis://alice:hunter2@s3cr3t")])
@pytest.mark.parametrize("kind", [AsyncioStore, BlockingStore, OnThread])
def test_nothing_of_the_url_shows(kind: Callable[[ClusterConfig], object], url: str | Secret) -> None:
    store = kind(ClusterConfig(url))
    assert is_clean(repr(store) + str(store) + repr(vars(store)) + repr(parse_address("redis://alice:hunter2@s3cr3t")))


def test_a_database_and_a_name_for_the_connection(valkey: Valkey, way: Opens) -> None:
    store = way(f"{valkey.url}/5?client_name=shop")
    store.execute(MINE)
    with valkey.admin() as admin:
        assert [client["db"] for client in admin.client_list() if client["name"] == "shop"] == ["5"]
        assert not admin.exists(BOARD)
        admin.select(5)
        assert admin.exists(BOARD)


def test_a_socket_in_the_file_system(valkey: Valkey, way: Opens) -> None:
    store = way(f"unix://{valkey.path}?db=1")
    assert reports(store.execute(MINE)) == {"me": b"mine"}
    assert reports(store.execute(Publish(BOARD, "a", b"1", 60.0))).keys() == {"me", "a"}


# --- References to a URL ----------------------------------------------------------------------------------------------


def fetched_in_a_coroutine(url: str) -> Secret:
    async def fetch() -> str:
        await asyncio.sleep(0)
        return url

    return Secret.from_callable(fetch)


def fetched_with_an_awaitable(url: str) -> Secret:
    async def fetch() -> Credential:
        return Credential(url)

    return Secret.from_callable(lambda: fetch())


REFERENCES: dict[str, Callable[[str, Path, pytest.MonkeyPatch], Secret]] = {
    "inline": lambda url, *_: Secret.inline(url),
    "env": lambda url, _, patch: patch.setenv("STORE_URL", url) or Secret.from_env("STORE_URL"),
    "file": lambda url, folder, _: (folder / "url").write_text(url + "\n") and Secret.from_file(folder / "url"),
    "callable": lambda url, *_: Secret.from_callable(lambda: url),
    "a credential": lambda url, *_: Secret.from_callable(lambda: Credential(url)),
    "a coroutine": lambda url, *_: fetched_in_a_coroutine(url),
    "an awaitable": lambda url, *_: fetched_with_an_awaitable(url),
}


@pytest.mark.parametrize("kind", REFERENCES)
def test_the_url_may_be_kept_elsewhere(
    valkey: Valkey, way: Opens, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = way(REFERENCES[kind](valkey.url, tmp_path, monkeypatch))
    assert reports(store.execute(MINE)) == {"me": b"mine"}


def test_a_reference_is_followed_again_for_the_next_connection(
    guarded: Valkey, way: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORE_URL", guarded.url.replace("://", "://alice:s3cr3t@"))
    store = way(Secret.from_env("STORE_URL"))
    assert reason(store.execute(MINE)) == "the user or the password is refused"
    monkeypatch.setenv("STORE_URL", guarded.url.replace("://", "://alice:hunter2@"))
    assert reports(store.execute(MINE)) == {"me": b"mine"}
    monkeypatch.delenv("STORE_URL")
    assert reports(store.execute(MINE)) == {"me": b"mine"}
    with guarded.admin() as admin:
        admin.client_kill_filter(user="alice")
    assert {reason(store.execute(MINE)), reason(store.execute(MINE))} >= {
        "cluster: url: the environment variable STORE_URL is not set"
    }


def raising(error: BaseException) -> Callable[[], str]:
    def fetch() -> str:
        raise error

    return fetch


async def cancelling() -> str:
    raise asyncio.CancelledError("hunter2")


@pytest.mark.parametrize(
    ("fetch", "expected"),
    [
        (raising(KeyError("hunter2")), "cluster: url: could not be fetched (KeyError)"),
        (raising(ValueError("hunter2")), "cluster: url: could not be fetched (ValueError)"),
        (raising(TimeoutError("hunter2")), "cluster: url: could not be fetched (TimeoutError)"),
        (cancelling, "cluster: url: could not be fetched (CancelledError)"),
        (raising(StopIteration("hunter2")), "cluster: url: could not be fetched (RuntimeError)"),
        (raising(SystemExit("hunter2")), "cluster: url: could not be fetched (RuntimeError)"),
        (lambda: "http://alice:hunter2@h", "cluster: url: does not begin with one of redis://"),
        (lambda: 5, "cluster: url: the callable returned int, not a string or a Credential"),
        (lambda: "", "cluster: url: value: is empty"),
    ],
)
def test_a_url_that_cannot_be_had_is_a_store_that_is_lost(way: Opens, fetch: Callable[[], Any], expected: str) -> None:
    store = way(Secret.from_callable(fetch))
    for _ in range(2):
        found = reason(store.execute(MINE))
        assert found.startswith(expected) and is_clean(found)


def test_a_vault_that_hangs_is_not_waited_for(way: Opens, caplog: pytest.LogCaptureFixture) -> None:
    """What it says in the end is nobody's."""
    over, ended = threading.Event(), threading.Event()

    def fetch() -> str:
        over.wait(LONG)
        ended.set()
        return "redis://alice:hunter2@h"

    store = way(Secret.from_callable(fetch), SHORT)
    assert reason(store.execute(MINE)) == "no answer in 0.5 s"
    over.set()
    for thread in threading.enumerate():
        if thread.name == "shared-store-look-up":
            thread.join(LONG)
    assert ended.is_set()
    assert isinstance(store.execute(MINE), StoreLost)
    assert not caplog.records


def test_a_process_ends_whatever_is_still_waited_for() -> None:
    """The vault, the answer, and the thread of a store that nobody closed."""
    program = """
import threading
from drivers.shared_store import BlockingStore
from sansio import Secret
from sansio.cluster.config import ClusterConfig
from sansio.cluster.store import Swap
store = BlockingStore(ClusterConfig(Secret.from_callable(threading.Event().wait), store_timeout=0.1))
print(store.execute(Swap("key", 0, None, 1.0)).reason)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert (ended.stdout, ended.stderr) == ("no answer in 0.1 s\n", "")


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secured(authority: trustme.CA) -> Iterator[ScriptedServer]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    with ScriptedServer(lambda _: bulk(b"1", b"0", b"a", b"0", b"x"), tls=context) as server:
        yield server


@pytest.mark.parametrize(
    ("host", "options", "expected"),
    [
        ("localhost", "?ssl_ca_certs={ca}", None),
        ("localhost", "", "TLS failed (CERTIFICATE_VERIFY_FAILED)"),
        ("localhost", "?ssl_cert_reqs=none", None),
        ("127.0.0.1", "?ssl_ca_certs={ca}", "TLS failed (CERTIFICATE_VERIFY_FAILED)"),
        ("127.0.0.1", "?ssl_ca_certs={ca}&ssl_check_hostname=no", None),
        ("localhost", "?ssl_ca_certs=/no/such/file", "No such file or directory"),
    ],
)
def test_tls(
    secured: ScriptedServer, authority: trustme.CA, tmp_path: Path, host: str, options: str, expected: str | None
) -> None:
    certificate = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(certificate)

    async def ask() -> list[StoreReply]:
        url = f"rediss://alice:hunter2@{host}:{secured.port}{options.format(ca=certificate)}"
        async with opened(url) as store:
            return await asyncio.gather(*(store.execute(MINE) for _ in range(2)))

    for reply in asyncio.run(ask()):
        assert reports(reply) == {"a": b"x"} if expected is None else reason(reply) == expected


def test_certificates_are_read_once(
    secured: ScriptedServer, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[ssl.SSLContext] = []
    create = ssl.create_default_context
    monkeypatch.setattr(
        ssl, "create_default_context", lambda *args, **named: made.append(create(*args, **named)) or made[-1]
    )

    async def ask() -> None:
        async with opened(f"rediss://localhost:{secured.port}?ssl_cert_reqs=none") as store:
            for _ in range(3):
                await asyncio.gather(*(store.execute(MINE) for _ in range(MAX_CONNECTIONS)))

    asyncio.run(ask())
    assert (secured.connections, len(made)) == (MAX_CONNECTIONS, 1)


def test_another_url_has_its_own_tls(secured: ScriptedServer, way: Opens, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE_URL", f"rediss://localhost:{secured.port}?ssl_cert_reqs=none")
    store = way(Secret.from_env("STORE_URL"))
    assert reports(store.execute(MINE)) == {"a": b"x"}
    secured.hang_up()
    monkeypatch.setenv("STORE_URL", f"rediss://localhost:{secured.port}")
    assert {reason(store.execute(MINE)), reason(store.execute(MINE))} >= {"TLS failed (CERTIFICATE_VERIFY_FAILED)"}


@pytest.mark.parametrize("tls", [False, True])
def test_no_socket_is_open_when_closing_has_returned(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch, tls: bool
) -> None:
    """Not even one whose server takes no notice: over TLS, it would be asked to take leave first."""
    over = threading.Event()
    sockets: list[Any] = []
    connect = asyncio.open_connection

    def answers(command: Sequence[bytes]) -> bytes:
        if b"hangs" in command:
            over.wait(LONG)
        return bulk(b"1", b"0")

    async def noted(*args: Any, **named: Any) -> Any:
        reader, writer = await connect(*args, **named)
        sockets.append(writer.get_extra_info("socket"))
        return reader, writer

    async def ask(server: ScriptedServer) -> None:
        url = f"rediss://localhost:{server.port}?ssl_cert_reqs=none" if tls else server.url
        async with opened(url) as store, opened(url, SHORT) as hasty:
            assert isinstance(await store.execute(MINE), Published)
            while not isinstance(await hasty.execute(MINE), Published):
                pass  # it is hasty; now it is connected
            assert isinstance(await hasty.execute(Publish(BOARD, "hangs", b"x" * 10_000_000, 60.0)), StoreLost)
        assert len(sockets) > 1 and {each.fileno() for each in sockets} == {-1}

    monkeypatch.setattr(asyncio, "open_connection", noted)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    with ScriptedServer(answers, tls=context if tls else None) as server:
        asyncio.run(ask(server))
        over.set()


def test_a_server_without_tls_is_not_spoken_to_in_the_clear(valkey: Valkey, way: Opens) -> None:
    store = way(valkey.url.replace("valkey://", "valkeys://alice:hunter2@"), SHORT)
    assert isinstance(store.execute(MINE), StoreLost)
    assert valkey.commands("auth") == 0


# --- redis-py ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [AsyncioStore, BlockingStore, OnThread])
def test_without_redis_py_it_is_said_what_to_install(
    kind: Callable[[ClusterConfig], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio.connection", None)
    with pytest.raises(ValueError, match=r'pip install "inference-remote-core\[redis\]"'):
        kind(ClusterConfig("redis://alice:hunter2@h"))


def test_redis_py_is_imported_when_it_is_needed() -> None:
    program = "import sys, drivers.shared_store; sys.exit('redis' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
