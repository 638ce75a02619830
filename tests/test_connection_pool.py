"""The connection pool: who goes over which connection, who dials, who waits, what is closed.

Connections and waiters are opaque, so here they are words: a connection is named after who dialled it.
"""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Sequence
from typing import Any

import pytest

from sansio.connection_pool import ConnectionPool, Grant, Http2, PoolConfig, PoolOrders
from sansio.http import Origin

A, B = Origin("https", "a", 443), Origin("https", "b", 443)
PLAIN = Origin("http", "a", 80)

DIAL: Grant[str] = Grant(None, reused=False)
NOTHING: PoolOrders[str, str] = PoolOrders()


def over(connection: str) -> Grant[str]:
    return Grant(connection, reused=True)


def young(connection: str) -> Grant[str]:
    return Grant(connection, reused=False)


def granted(*grants: tuple[str, Grant[str]], close: Sequence[str] = ()) -> PoolOrders[str, str]:
    return PoolOrders(grants, tuple(close))


def closed(*connections: str) -> PoolOrders[str, str]:
    return PoolOrders(close=connections)


def new_pool(**config: Any) -> ConnectionPool[str, str]:
    return ConnectionPool(PoolConfig(**config))


def idle(pool: ConnectionPool[str, str], *connections: str, at: float = 0.0, origin: Origin = A) -> None:
    """Open HTTP/1.1 connections, and give each back, in this order."""
    for connection in connections:
        pool.acquire(connection, origin, at, fresh=True)
        assert pool.opened(connection, connection, None, at) == NOTHING
    for connection in connections:
        pool.released(connection, at, reusable=True)


def over_http2(streams: int = 3, **config: Any) -> ConnectionPool[str, str]:
    """A pool with the HTTP/2 connection "x" to A, one stream of it open."""
    pool = new_pool(http2=Http2.OFFER, **config)
    assert pool.acquire("x", A, 0.0) == granted(("x", DIAL))
    assert pool.opened("x", "x", streams, 0.0) == NOTHING
    return pool


# ---- one place a connection ---------------------------------------------------------------------------------------------


def test_without_an_idle_connection_each_dials_at_once() -> None:
    pool = new_pool()
    assert [pool.acquire(name, A, 0.0) for name in "xyz"] == [granted((name, DIAL)) for name in "xyz"]
    assert len(pool) == 0
    assert pool.opened("y", "y", None, 1.0) == NOTHING
    assert len(pool) == 1


def test_an_idle_connection_is_used_again_the_most_recently_used_first() -> None:
    pool = new_pool()
    idle(pool, "x", "y", "z")
    assert [pool.acquire(name, A, 1.0) for name in "1234"] == [
        granted(("1", over("z"))),
        granted(("2", over("y"))),
        granted(("3", over("x"))),
        granted(("4", DIAL)),
    ]


@pytest.mark.parametrize("other", [B, Origin("http", "a", 443), Origin("https", "a", 8443)])
def test_each_origin_has_its_own(other: Origin) -> None:
    pool = new_pool()
    idle(pool, "x")
    assert pool.acquire("1", other, 0.0) == granted(("1", DIAL))
    assert pool.acquire("2", A, 0.0) == granted(("2", over("x")))


def test_one_that_is_not_reusable_is_closed() -> None:
    pool = new_pool()
    pool.acquire("x", A, 0.0)
    pool.opened("x", "x", None, 0.0)
    assert pool.released("x", 0.0, reusable=False) == closed("x")
    assert pool.acquire("1", A, 0.0) == granted(("1", DIAL))
    assert len(pool) == 0


def test_a_fresh_one_is_dialled_though_one_is_idle() -> None:
    pool = new_pool()
    idle(pool, "x")
    assert pool.acquire("1", A, 0.0, fresh=True) == granted(("1", DIAL))
    assert pool.acquire("2", A, 0.0) == granted(("2", over("x")))


def test_one_can_ask_again_once_served() -> None:
    pool = new_pool()
    idle(pool, "x")
    for _ in range(3):
        assert pool.acquire("1", A, 0.0) == granted(("1", over("x")))
        assert pool.released("x", 0.0, reusable=True) == NOTHING


def test_but_not_while_it_waits_or_dials() -> None:
    pool = new_pool(max_connections_per_origin=1)
    pool.acquire("dials", A, 0.0)
    pool.acquire("waits", A, 0.0)
    for name in ("dials", "waits"):
        with pytest.raises(ValueError, match=r"^waiter: "):
            pool.acquire(name, B, 0.0)
    assert pool.opened("dials", "x", None, 0.0) == NOTHING
    assert pool.released("x", 0.0, reusable=True) == granted(("waits", over("x")))


# ---- a limit --------------------------------------------------------------------------------------------------------------


def test_at_the_limit_they_wait_and_go_in_the_order_of_asking() -> None:
    pool = new_pool(max_connections_per_origin=2)
    assert pool.acquire("x", A, 0.0) == granted(("x", DIAL))
    assert pool.acquire("y", A, 0.0) == granted(("y", DIAL))
    for name in "1234":
        assert pool.acquire(name, A, 0.0) == NOTHING
    assert pool.acquire("elsewhere", B, 0.0) == granted(("elsewhere", DIAL))
    pool.opened("x", "x", None, 1.0)
    assert pool.released("x", 2.0, reusable=True) == granted(("1", over("x")))
    assert pool.failed("y", 3.0) == granted(("2", DIAL))
    assert pool.released("x", 4.0, reusable=False) == granted(("3", DIAL), close=["x"])
    assert pool.withdraw("2", 5.0) == granted(("4", DIAL))


def test_each_dials_for_itself_when_everything_fails() -> None:
    pool = new_pool(max_connections_per_origin=1)
    pool.acquire("1", A, 0.0)
    pool.acquire("2", A, 0.0)
    pool.acquire("3", A, 0.0)
    assert pool.failed("1", 1.0) == granted(("2", DIAL))
    assert pool.failed("2", 1.0) == granted(("3", DIAL))
    assert pool.failed("3", 1.0) == NOTHING


def test_a_fresh_one_at_the_limit_takes_the_place_of_the_longest_idle() -> None:
    pool = new_pool(max_connections_per_origin=2)
    idle(pool, "x", "y")
    assert pool.acquire("1", A, 0.0, fresh=True) == granted(("1", DIAL), close=["x"])
    assert pool.acquire("2", A, 0.0) == granted(("2", over("y")))


def test_and_waits_for_one_to_be_idle_where_none_is() -> None:
    pool = new_pool(max_connections_per_origin=1)
    idle(pool, "x")
    assert pool.acquire("1", A, 0.0) == granted(("1", over("x")))
    assert pool.acquire("2", A, 0.0, fresh=True) == NOTHING
    assert pool.acquire("3", A, 0.0) == NOTHING
    assert pool.released("x", 1.0, reusable=True) == granted(("2", DIAL), close=["x"])
    pool.opened("2", "z", None, 1.0)
    assert pool.released("z", 1.0, reusable=True) == granted(("3", over("z")))


def test_between_the_two_kinds_who_asked_first_goes_first() -> None:
    pool = new_pool(max_connections_per_origin=1)
    idle(pool, "x")
    pool.acquire("1", A, 0.0)
    assert pool.acquire("2", A, 0.0) == pool.acquire("3", A, 0.0, fresh=True) == NOTHING
    assert pool.released("x", 1.0, reusable=True) == granted(("2", over("x")))
    assert pool.released("x", 1.0, reusable=True) == granted(("3", DIAL), close=["x"])


# ---- giving up ------------------------------------------------------------------------------------------------------------


def test_one_that_waits_may_withdraw() -> None:
    pool = new_pool(max_connections_per_origin=1)
    pool.acquire("x", A, 0.0)
    pool.opened("x", "x", None, 0.0)
    for name, fresh in (("1", False), ("2", True), ("3", False)):
        pool.acquire(name, A, 0.0, fresh=fresh)
    assert pool.withdraw("1", 0.0) == pool.withdraw("2", 0.0) == NOTHING
    assert pool.released("x", 0.0, reusable=True) == granted(("3", over("x")))


def test_the_place_of_a_dial_withdrawn_is_free_at_once_and_what_it_opens_late_is_closed() -> None:
    pool = new_pool(max_connections_per_origin=1)
    pool.acquire("1", A, 0.0)
    pool.acquire("2", A, 0.0)
    assert pool.withdraw("1", 1.0) == granted(("2", DIAL))
    assert pool.opened("1", "late", None, 2.0) == closed("late")
    assert pool.opened("2", "x", None, 3.0) == NOTHING
    assert len(pool) == 1


def test_what_is_told_twice_late_or_of_strangers_changes_nothing() -> None:
    pool = new_pool(max_connections_per_origin=1)
    idle(pool, "x")
    assert pool.released("x", 0.0, reusable=False) == NOTHING  # nobody has it
    assert pool.opened("x", "x", None, 0.0) == NOTHING  # it was opened before
    assert pool.withdraw("x", 0.0) == pool.failed("x", 0.0) == NOTHING
    assert pool.acquire("1", A, 0.0) == granted(("1", over("x")))
    assert pool.withdraw("1", 0.0) == NOTHING  # it has a connection: nothing to withdraw
    assert pool.acquire("2", A, 0.0) == NOTHING
    assert pool.failed("2", 0.0) == NOTHING  # it was not dialling
    assert pool.lost("x", 0.0) == granted(("2", DIAL), close=["x"])
    assert pool.lost("x", 0.0) == pool.released("x", 0.0, reusable=True) == pool.resized("x", 0, 0.0) == NOTHING
    assert pool.failed("2", 0.0) == pool.failed("2", 0.0) == NOTHING
    assert len(pool) == 0


def test_a_connection_opened_by_one_who_only_waits_is_closed() -> None:
    pool = new_pool(max_connections_per_origin=1)
    pool.acquire("1", A, 0.0)
    pool.acquire("2", A, 0.0)
    assert pool.opened("2", "x", None, 0.0) == closed("x")
    assert pool.failed("1", 0.0) == granted(("2", DIAL))


def test_a_dial_cannot_end_in_a_connection_that_is_there() -> None:
    pool = new_pool(max_connections_per_origin=2)
    idle(pool, "x")
    pool.acquire("1", A, 0.0, fresh=True)
    with pytest.raises(ValueError, match=r"^connection: "):
        pool.opened("1", "x", None, 0.0)
    assert pool.opened("1", "y", None, 0.0) == NOTHING
    assert len(pool) == 2


def test_a_lost_connection_is_closed_and_its_place_is_free() -> None:
    pool = new_pool(max_connections_per_origin=2)
    idle(pool, "x", "y")
    pool.acquire("1", A, 0.0)
    assert pool.lost("x", 0.0) == closed("x")  # idle
    assert pool.acquire("2", A, 0.0) == granted(("2", DIAL))
    assert pool.acquire("3", A, 0.0) == NOTHING
    assert pool.lost("y", 0.0) == granted(("3", DIAL), close=["y"])  # in use
    assert pool.released("y", 0.0, reusable=True) == NOTHING


# ---- idle for too long, or too many ---------------------------------------------------------------------------------------


def test_an_idle_connection_is_closed_at_the_very_instant() -> None:
    pool = new_pool(idle_timeout=30.0)
    assert pool.deadline() is None
    idle(pool, "x", at=5.0)
    idle(pool, "y", at=10.0, origin=B)
    assert pool.deadline() == 35.0
    assert pool.expire(math.nextafter(35.0, 0.0)) == NOTHING
    assert pool.expire(35.0) == closed("x")
    assert pool.deadline() == 40.0
    assert pool.expire(100.0) == closed("y")
    assert (pool.deadline(), len(pool)) == (None, 0)


def test_one_in_use_is_not_idle() -> None:
    pool = new_pool(idle_timeout=30.0)
    idle(pool, "x", "y")
    pool.acquire("1", A, 29.0)
    assert pool.deadline() == 30.0
    pool.acquire("2", A, 29.0)
    assert pool.deadline() is None
    assert pool.expire(1000.0) == NOTHING
    pool.released("y", 1000.0, reusable=True)
    assert pool.deadline() == 1030.0
    assert pool.expire(1030.0) == closed("y")
    assert pool.released("x", 1030.0, reusable=True) == NOTHING


@pytest.mark.parametrize(
    ("call", "orders"),
    [
        (lambda pool: pool.acquire("1", A, 30.0), granted(("1", DIAL), close=["x"])),
        (lambda pool: pool.acquire("1", A, 29.0), granted(("1", over("x")))),
        (lambda pool: pool.withdraw("nobody", 30.0), closed("x")),
        (lambda pool: pool.opened("nobody", "x", None, 30.0), closed("x")),
        (lambda pool: pool.opened("nobody", "late", None, 30.0), closed("x", "late")),
        (lambda pool: pool.failed("nobody", 30.0), closed("x")),
        (lambda pool: pool.released("x", 30.0, reusable=True), closed("x")),
        (lambda pool: pool.resized("x", 0, 30.0), closed("x")),
        (lambda pool: pool.lost("x", 30.0), closed("x")),
    ],
)
def test_every_call_closes_what_is_due_first(call: Any, orders: PoolOrders[str, str]) -> None:
    pool = new_pool(idle_timeout=30.0)
    idle(pool, "x")
    assert call(pool) == orders


def test_the_deadline_moves_with_the_use() -> None:
    pool = new_pool(idle_timeout=30.0)
    idle(pool, "x")
    pool.acquire("1", A, 1.0)
    pool.released("x", 2.0, reusable=True)
    assert pool.deadline() == 32.0


def test_one_used_again_finds_the_old_of_other_origins_too() -> None:
    pool = new_pool(idle_timeout=30.0)
    idle(pool, "x", origin=B)
    idle(pool, "y", at=1.0)
    assert pool.acquire("1", A, 30.0) == granted(("1", over("y")), close=["x"])
    assert pool.acquire("2", A, 30.0) == granted(("2", DIAL))


def test_the_longest_idle_is_closed_when_there_are_too_many() -> None:
    pool = new_pool(max_idle_per_origin=2)
    idle(pool, "other", origin=B)
    for name in "xyz":
        pool.acquire(name, A, 0.0)
        pool.opened(name, name, None, 0.0)
    assert pool.released("y", 0.0, reusable=True) == pool.released("x", 0.0, reusable=True) == NOTHING
    assert pool.released("z", 0.0, reusable=True) == closed("y")
    assert len(pool) == 3


def test_where_none_is_kept_one_is_still_handed_on() -> None:
    pool = new_pool(max_idle_per_origin=0, max_connections_per_origin=1)
    pool.acquire("x", A, 0.0)
    pool.acquire("1", A, 0.0)
    pool.opened("x", "x", None, 0.0)
    assert pool.released("x", 0.0, reusable=True) == granted(("1", over("x")))
    assert pool.released("x", 0.0, reusable=True) == closed("x")
    assert pool.deadline() is None


def test_a_clock_that_goes_backwards_stands_still() -> None:
    pool = new_pool(idle_timeout=30.0)
    idle(pool, "x", at=100.0)
    assert pool.expire(0.0) == NOTHING
    pool.acquire("1", A, 50.0)
    pool.released("x", 60.0, reusable=True)
    assert pool.deadline() == 130.0
    pool.expire(130.0)
    idle(pool, "y", at=0.0)
    assert pool.deadline() == 160.0


# ---- many places a connection: HTTP/2 -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("http2", "origin", "waits"),
    [
        (Http2.OFF, A, False),
        (Http2.OFF, PLAIN, False),
        (Http2.OFFER, A, True),
        (Http2.OFFER, PLAIN, False),
        (Http2.ONLY, A, True),
        (Http2.ONLY, PLAIN, True),
    ],
)
def test_the_first_dial_is_made_alone_where_it_may_find_http2(http2: Http2, origin: Origin, *, waits: bool) -> None:
    pool = new_pool(http2=http2)
    assert pool.acquire("1", origin, 0.0) == granted(("1", DIAL))
    assert pool.acquire("2", origin, 0.0) == (NOTHING if waits else granted(("2", DIAL)))


def test_all_who_waited_share_what_the_first_dial_opened() -> None:
    pool = new_pool(http2=Http2.OFFER)
    for name in "x1234":
        pool.acquire(name, A, 0.0)
    assert pool.opened("x", "x", 4, 1.0) == granted(("1", young("x")), ("2", young("x")), ("3", young("x")), ("4", DIAL))
    assert pool.acquire("5", A, 1.0) == NOTHING
    assert pool.released("x", 2.0, reusable=True) == granted(("5", over("x")))


def test_all_who_waited_dial_at_once_when_it_is_http1() -> None:
    pool = new_pool(http2=Http2.OFFER, max_connections_per_origin=4)
    for name in "x1234":
        pool.acquire(name, A, 0.0)
    assert pool.opened("x", "x", None, 1.0) == granted(("1", DIAL), ("2", DIAL), ("3", DIAL))
    assert pool.opened("2", "y", None, 1.0) == NOTHING
    assert pool.released("x", 1.0, reusable=True) == granted(("4", over("x")))


def test_while_nothing_is_known_one_after_the_other_dials() -> None:
    pool = new_pool(http2=Http2.OFFER)
    for name in "123":
        pool.acquire(name, A, 0.0)
    assert pool.failed("1", 1.0) == granted(("2", DIAL))
    assert pool.withdraw("2", 1.0) == granted(("3", DIAL))
    assert pool.failed("3", 1.0) == NOTHING


def test_streams_share_a_connection_until_it_is_full() -> None:
    pool = over_http2(streams=3)
    assert pool.acquire("1", A, 0.0) == granted(("1", over("x")))
    assert pool.acquire("2", A, 0.0) == granted(("2", over("x")))
    assert pool.acquire("3", A, 0.0) == granted(("3", DIAL))
    assert pool.released("x", 0.0, reusable=True) == NOTHING
    assert pool.acquire("4", A, 0.0) == granted(("4", over("x")))


def test_a_dial_counts_as_room_for_as_many_as_the_last_connection_took() -> None:
    pool = over_http2(streams=3)
    assert [pool.acquire(name, A, 0.0).grants for name in "abcdefghi"] == [
        (("a", over("x")),),
        (("b", over("x")),),
        (("c", DIAL),),  # with room for two more
        (),
        (),
        (("d", DIAL),),  # "f" is one too many; of those who wait, "d" asked first
        (),
        (),
        (("e", DIAL),),
    ]


@pytest.mark.parametrize(("waiting", "dials"), [(1, 1), (100, 1), (101, 2), (200, 2), (201, 3)])
def test_and_as_a_hundred_while_nothing_was_heard(waiting: int, dials: int) -> None:
    pool: ConnectionPool[str, int] = ConnectionPool(PoolConfig(http2=Http2.OFFER))
    pool.acquire(-1, A, 0.0)
    for waiter in range(waiting):
        assert pool.acquire(waiter, A, 0.0) == PoolOrders()
    assert pool.opened(-1, "x", 0, 0.0).grants == tuple((waiter, DIAL) for waiter in range(dials))


def test_where_each_takes_but_one_stream_each_dials() -> None:
    pool = over_http2(streams=1)
    assert [pool.acquire(name, A, 0.0) for name in "12"] == [granted(("1", DIAL)), granted(("2", DIAL))]


def test_streams_go_to_one_connection_so_that_the_others_run_dry() -> None:
    pool = over_http2(streams=2)
    pool.acquire("1", A, 0.0)
    pool.acquire("y", A, 0.0)
    pool.opened("y", "y", 2, 0.0)
    assert pool.released("x", 0.0, reusable=True) == NOTHING
    assert pool.acquire("2", A, 0.0) == granted(("2", over("x")))  # it was full: back to the front
    assert pool.acquire("3", A, 0.0) == granted(("3", over("y")))


def test_without_a_stream_open_a_connection_is_idle() -> None:
    pool = over_http2(streams=3)
    pool.acquire("1", A, 1.0)
    assert pool.released("x", 2.0, reusable=True) == NOTHING
    assert pool.deadline() is None
    assert pool.released("x", 3.0, reusable=True) == NOTHING
    assert pool.deadline() == 33.0
    assert pool.acquire("1", A, 4.0) == granted(("1", over("x")))
    assert pool.deadline() is None
    pool.released("x", 5.0, reusable=True)
    assert pool.expire(35.0) == closed("x")
    assert pool.acquire("1", A, 35.0) == granted(("1", DIAL))


def test_the_latest_dial_is_believed() -> None:
    pool = over_http2(streams=2)
    pool.acquire("1", A, 0.0)
    pool.acquire("y", A, 0.0)
    assert pool.opened("y", "y", None, 0.0) == NOTHING  # the server speaks HTTP/1.1 now
    assert [pool.acquire(name, A, 0.0) for name in "zw"] == [granted(("z", DIAL)), granted(("w", DIAL))]
    pool.opened("z", "z", 2, 0.0)  # and HTTP/2 again
    assert pool.acquire("1", A, 0.0) == granted(("1", over("z")))
    assert pool.acquire("2", A, 0.0) == NOTHING  # "w" dials, and may bring room for it


def test_an_origin_is_forgotten_once_nothing_is_open() -> None:
    pool = new_pool(http2=Http2.OFFER)
    pool.acquire("x", A, 0.0)
    pool.opened("x", "x", None, 0.0)
    pool.lost("x", 0.0)
    assert pool.acquire("1", A, 0.0) == granted(("1", DIAL))
    assert pool.acquire("2", A, 0.0) == NOTHING


def test_but_not_while_some_still_wait() -> None:
    pool = new_pool(http2=Http2.OFFER, max_connections_per_origin=2)
    pool.acquire("x", A, 0.0)
    pool.opened("x", "x", None, 0.0)
    for name in "1234":
        pool.acquire(name, A, 0.0)
    pool.lost("x", 0.0)  # "1" and "2" dial, though no connection is left: HTTP/1.1 is still believed
    assert pool.failed("1", 0.0) == granted(("3", DIAL))
    assert pool.failed("2", 0.0) == granted(("4", DIAL))


@pytest.mark.parametrize(
    ("streams", "goes"),
    [(1, 0), (2, 0), (3, 1), (4, 2), (100, 2)],
)
def test_exactly_as_many_go_as_a_connection_grew(streams: int, goes: int) -> None:
    pool = over_http2(streams=2, max_connections_per_origin=1)
    for name in "123":
        pool.acquire(name, A, 0.0)
    expected = granted(*((name, over("x")) for name in "23"[:goes]))
    assert pool.resized("x", streams, 0.0) == expected


def test_a_connection_that_shrank_is_full_until_enough_are_back() -> None:
    pool = over_http2(streams=3, max_connections_per_origin=1)
    pool.acquire("1", A, 0.0)
    pool.acquire("2", A, 0.0)
    assert pool.resized("x", 1, 0.0) == pool.acquire("3", A, 0.0) == NOTHING
    assert pool.released("x", 0.0, reusable=True) == NOTHING
    assert pool.released("x", 0.0, reusable=True) == NOTHING
    assert pool.released("x", 0.0, reusable=True) == granted(("3", over("x")))


def test_one_that_shrank_while_it_had_room_is_full_too() -> None:
    pool = over_http2(streams=3, max_connections_per_origin=1)
    assert pool.resized("x", 1, 0.0) == NOTHING
    assert pool.acquire("1", A, 0.0) == NOTHING
    assert pool.resized("x", 2, 0.0) == granted(("1", over("x")))


def test_what_is_being_dialled_counts_as_the_size_last_heard() -> None:
    pool = over_http2(streams=2)
    for name in "1234":
        pool.acquire(name, A, 0.0)  # "1" shares, "2" dials with room for one more, "3" dials as "4" comes
    assert pool.acquire("5", A, 0.0) == NOTHING
    assert pool.resized("x", 1, 0.0) == granted(("4", DIAL), ("5", DIAL))


def test_a_lost_connection_that_had_room_is_granted_to_nobody() -> None:
    pool = over_http2(streams=3)
    pool.acquire("y", A, 0.0, fresh=True)
    pool.opened("y", "y", 2, 0.0)
    assert pool.lost("x", 0.0) == closed("x")
    assert pool.acquire("1", A, 0.0) == granted(("1", over("y")))
    assert pool.acquire("2", A, 0.0) == granted(("2", DIAL))


def test_after_goaway_there_are_no_new_streams_and_the_last_closes_it() -> None:
    pool = over_http2(streams=3)
    pool.acquire("1", A, 0.0)
    assert pool.resized("x", 0, 0.0) == NOTHING
    assert pool.resized("x", 3, 0.0) == NOTHING  # for good
    assert pool.acquire("2", A, 0.0) == granted(("2", DIAL))
    assert pool.acquire("3", A, 0.0) == NOTHING  # what is being dialled still counts as three
    assert pool.released("x", 0.0, reusable=True) == NOTHING
    assert pool.released("x", 0.0, reusable=True) == closed("x")


def test_one_that_is_idle_is_closed_by_it_at_once() -> None:
    pool = over_http2(streams=3)
    pool.released("x", 0.0, reusable=True)
    assert pool.resized("x", 0, 0.0) == closed("x")
    assert (len(pool), pool.deadline()) == (0, None)


def test_one_that_drains_still_counts_for_the_limit() -> None:
    pool = over_http2(streams=3, max_connections_per_origin=1)
    pool.resized("x", 0, 0.0)
    assert pool.acquire("1", A, 0.0) == NOTHING
    assert pool.released("x", 0.0, reusable=True) == granted(("1", DIAL), close=["x"])


def test_one_not_reusable_over_http2_drains_as_well() -> None:
    pool = over_http2(streams=3)
    pool.acquire("1", A, 0.0)
    assert pool.released("x", 0.0, reusable=False) == NOTHING
    assert pool.acquire("2", A, 0.0) == granted(("2", DIAL))
    assert pool.released("x", 0.0, reusable=True) == closed("x")


def test_a_size_of_nothing_at_the_start_is_for_who_dialled_only() -> None:
    pool = over_http2(streams=0)
    assert pool.acquire("1", A, 0.0) == granted(("1", DIAL))
    assert pool.acquire("2", A, 0.0) == NOTHING  # counted as a hundred: nothing is no size
    assert pool.released("x", 0.0, reusable=True) == closed("x")


def test_a_size_heard_while_idle_changes_nothing_else() -> None:
    pool = over_http2(streams=3)
    pool.released("x", 1.0, reusable=True)
    assert pool.resized("x", 5, 2.0) == NOTHING
    assert pool.deadline() == 31.0


def test_a_lost_connection_with_open_streams_is_closed_once() -> None:
    pool = over_http2(streams=2, max_connections_per_origin=1)
    for name in "123":
        pool.acquire(name, A, 0.0)
    assert pool.lost("x", 0.0) == granted(("2", DIAL), close=["x"])
    assert pool.released("x", 0.0, reusable=True) == pool.released("x", 0.0, reusable=False) == NOTHING
    assert pool.opened("2", "y", 2, 0.0) == granted(("3", young("y")))


@pytest.mark.parametrize("streams", [0, 1])
def test_http1_has_one_place_or_none(streams: int) -> None:
    pool = new_pool(max_connections_per_origin=1)
    pool.acquire("x", A, 0.0)
    pool.opened("x", "x", None, 0.0)
    pool.acquire("1", A, 0.0)
    assert pool.resized("x", streams, 0.0) == NOTHING
    expected = granted(("1", over("x"))) if streams else granted(("1", DIAL), close=["x"])
    assert pool.released("x", 0.0, reusable=True) == expected


# ---- a fresh one over HTTP/2 ----------------------------------------------------------------------------------------------


def test_all_the_streams_of_a_connection_that_broke_come_back_on_one() -> None:
    pool = over_http2(streams=4)
    for name in "123":
        pool.acquire(name, A, 0.0)
    assert pool.lost("x", 1.0) == closed("x")
    assert pool.acquire("1", A, 1.0, fresh=True) == granted(("1", DIAL))
    assert pool.acquire("2", A, 1.0, fresh=True) == pool.acquire("3", A, 1.0, fresh=True) == NOTHING
    assert pool.opened("1", "y", 4, 2.0) == granted(("2", young("y")), ("3", young("y")))


def test_a_fresh_one_does_not_share_what_stood_before_it_asked() -> None:
    pool = over_http2(streams=3)
    assert pool.acquire("1", A, 0.0, fresh=True) == granted(("1", DIAL))
    assert pool.acquire("2", A, 0.0, fresh=True) == NOTHING
    assert pool.acquire("3", A, 0.0) == granted(("3", over("x")))  # which holds nobody else up
    assert pool.opened("1", "y", 3, 0.0) == granted(("2", young("y")))
    assert pool.acquire("4", A, 0.0, fresh=True) == granted(("4", DIAL))


def test_nor_waits_for_it_in_vain_when_it_gets_room() -> None:
    pool = over_http2(streams=1)
    pool.acquire("1", A, 0.0)
    pool.resized("x", 2, 0.0)
    pool.acquire("2", A, 0.0)
    pool.acquire("3", A, 0.0, fresh=True)
    pool.acquire("4", A, 0.0)
    assert pool.released("x", 0.0, reusable=True) == granted(("4", over("x")))


def test_one_younger_that_was_full_serves_it_once_it_has_room() -> None:
    pool = over_http2(streams=1, max_connections_per_origin=2)
    pool.acquire("1", A, 0.0, fresh=True)
    assert pool.acquire("2", A, 0.0, fresh=True) == NOTHING
    assert pool.opened("1", "y", 1, 0.0) == NOTHING
    assert pool.resized("y", 2, 0.0) == granted(("2", young("y")))


def test_one_that_waits_for_a_dial_holds_up_nobody_who_can_go() -> None:
    pool = over_http2(streams=3)
    pool.acquire("1", A, 0.0)
    pool.acquire("2", A, 0.0)
    assert pool.acquire("3", A, 0.0, fresh=True) == granted(("3", DIAL))
    assert pool.acquire("4", A, 0.0, fresh=True) == pool.acquire("5", A, 0.0) == NOTHING
    assert pool.released("x", 0.0, reusable=True) == granted(("5", over("x")))
    assert pool.opened("3", "y", 3, 0.0) == granted(("4", young("y")))


def test_one_that_can_go_at_once_is_no_reason_for_another_dial() -> None:
    pool = over_http2(streams=3)
    assert pool.acquire("1", A, 0.0, fresh=True) == granted(("1", DIAL))
    assert pool.acquire("2", A, 0.0, fresh=True) == pool.acquire("3", A, 0.0, fresh=True) == NOTHING
    assert pool.acquire("4", A, 0.0) == granted(("4", over("x")))  # as many wait as there will be room for: "4" does not


def test_the_younger_is_found_before_the_older_and_behind_it() -> None:
    pool = over_http2(streams=3)
    orders = [pool.acquire(name, A, 0.0, fresh=True).grants for name in "123456"]
    assert orders == [(("1", DIAL),), (), (), (("2", DIAL),), (), ()]
    assert pool.opened("1", "y", 3, 0.0) == granted(("3", young("y")), ("4", young("y")))  # behind "x", and full
    assert pool.released("y", 0.0, reusable=True) == granted(("5", young("y")))  # before "x"


def test_at_the_limit_it_shares_one_in_use() -> None:
    pool = over_http2(streams=2, max_connections_per_origin=1)
    assert pool.acquire("1", A, 0.0, fresh=True) == granted(("1", over("x")))
    assert pool.acquire("2", A, 0.0, fresh=True) == NOTHING
    assert pool.released("x", 0.0, reusable=True) == granted(("2", over("x")))


def test_but_takes_the_place_of_one_that_is_idle() -> None:
    pool = over_http2(streams=2, max_connections_per_origin=1)
    pool.released("x", 0.0, reusable=True)
    assert pool.acquire("1", A, 0.0, fresh=True) == granted(("1", DIAL), close=["x"])


# ---- the end --------------------------------------------------------------------------------------------------------------


def test_close_closes_what_is_idle_and_refuses_who_waits() -> None:
    pool = new_pool(max_connections_per_origin=2)
    idle(pool, "x")
    idle(pool, "y", origin=B)
    pool.acquire("1", A, 0.0)
    pool.acquire("2", A, 0.0)
    for name, fresh in (("3", True), ("4", False)):
        pool.acquire(name, A, 0.0, fresh=fresh)
    assert pool.close() == PoolOrders(close=("y",), refused=("3", "4"))
    assert pool.close() == NOTHING
    assert pool.deadline() is None
    assert pool.acquire("5", A, 0.0) == PoolOrders(refused=("5",))
    assert pool.released("x", 0.0, reusable=True) == closed("x")
    assert pool.opened("2", "late", None, 0.0) == PoolOrders(close=("late",), refused=("2",))
    assert pool.opened("2", "late", None, 0.0) == closed("late")
    assert len(pool) == 0


def test_close_lets_streams_run_to_their_end() -> None:
    pool = over_http2(streams=3)
    pool.acquire("1", A, 0.0)
    pool.acquire("dials", B, 0.0)
    assert pool.close() == NOTHING
    assert pool.resized("x", 5, 0.0) == pool.withdraw("dials", 0.0) == NOTHING
    assert pool.released("x", 0.0, reusable=True) == NOTHING
    assert pool.released("x", 0.0, reusable=True) == closed("x")


# ---- misuse ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("max_connections_per_origin", value) for value in (0, -1, 1.5, True, "1", math.nan)),
        *(("max_idle_per_origin", value) for value in (-1, 1.5, True, None, "1", math.nan)),
        *(("idle_timeout", value) for value in (0, -1.0, math.nan, math.inf, True, None, "1")),
        *(("http2", value) for value in ("h2", None, True, 1)),
    ],
)
def test_a_bound_out_of_range_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field}: .*{value}"):
        PoolConfig(**{field: value})


def test_the_bounds_are_these() -> None:
    assert PoolConfig() == PoolConfig(None, 128, 30.0, Http2.OFF)
    assert PoolConfig(1, 0, 1, Http2("only")).http2 is Http2.ONLY


@pytest.mark.parametrize("now", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "call",
    [
        lambda pool, now: pool.acquire("1", A, now),
        lambda pool, now: pool.withdraw("dials", now),
        lambda pool, now: pool.opened("dials", "y", None, now),
        lambda pool, now: pool.failed("dials", now),
        lambda pool, now: pool.released("busy", now, reusable=True),
        lambda pool, now: pool.resized("busy", 0, now),
        lambda pool, now: pool.lost("x", now),
        lambda pool, now: pool.expire(now),
    ],
)
def test_a_time_that_is_not_finite_is_refused_and_changes_nothing(call: Any, now: float) -> None:
    pool = new_pool(max_connections_per_origin=3)
    idle(pool, "x", "busy")
    pool.acquire("2", A, 0.0)
    pool.acquire("dials", A, 0.0, fresh=True)
    with pytest.raises(ValueError, match=r"^now: "):
        call(pool, now)
    assert (len(pool), pool.deadline()) == (2, 30.0)
    assert pool.acquire("1", A, 0.0) == granted(("1", over("x")))
    assert pool.opened("dials", "y", None, 0.0) == NOTHING
    assert pool.released("busy", 0.0, reusable=True) == NOTHING


@pytest.mark.parametrize("streams", [-1, 1.5, True, "1", math.nan])
def test_a_size_that_is_none_is_refused_and_changes_nothing(streams: Any) -> None:
    pool = over_http2(streams=3)
    pool.acquire("y", A, 0.0, fresh=True)
    with pytest.raises(ValueError, match=r"^streams: "):
        pool.resized("x", streams, 0.0)
    with pytest.raises(ValueError, match=r"^streams: "):
        pool.opened("y", "y", streams, 0.0)
    assert pool.acquire("1", A, 0.0) == granted(("1", over("x")))
    assert pool.opened("y", "y", 2, 0.0) == NOTHING


def test_http1_does_not_grow() -> None:
    pool = new_pool()
    idle(pool, "x")
    with pytest.raises(ValueError, match=r"^streams: 2 "):
        pool.resized("x", 2, 0.0)
    assert pool.acquire("1", A, 0.0) == granted(("1", over("x")))


# ---- many of everything ---------------------------------------------------------------------------------------------------

MANY = 10_000


class Token:
    """A connection, a waiter or the name of a host's owner: something whose end can be seen."""


class WatchedOrigin(Origin):
    """An `Origin` whose end can be seen."""


def test_what_is_over_is_forgotten() -> None:
    pool: ConnectionPool[Token, Token] = ConnectionPool(PoolConfig(http2=Http2.OFFER, max_connections_per_origin=2))
    seen: list[weakref.ref[Any]] = []
    for number in range(100):
        origin = WatchedOrigin("https", f"host-{number}", 443)
        waiters, connections = [Token() for _ in range(6)], [Token() for _ in range(3)]
        for waiter in waiters:
            pool.acquire(waiter, origin, 0.0, fresh=waiter is waiters[4])
        pool.opened(waiters[0], connections[0], 2, 0.0)  # shared with the second; the third dials
        pool.opened(waiters[2], connections[1], None, 0.0)
        pool.withdraw(waiters[3], 0.0)
        pool.opened(waiters[3], connections[2], None, 0.0)
        pool.resized(connections[0], 0, 0.0)
        pool.lost(connections[0], 0.0)
        pool.released(connections[1], 0.0, reusable=True)  # and granted again
        for waiter in waiters:
            pool.withdraw(waiter, 0.0)
        pool.released(connections[1], 0.0, reusable=True)
        seen += [weakref.ref(thing) for thing in (origin, *waiters, *connections)]
    pool.expire(30.0)
    del origin, waiter, waiters, connections
    gc.collect()
    assert (len(pool), [ref for ref in seen if ref() is not None]) == (0, [])


class Counted:
    """A name that counts how often it is looked up: a measure of work that no clock disturbs."""

    looked_up = 0

    def __hash__(self) -> int:
        Counted.looked_up += 1
        return id(self) >> 4


def work(pool: ConnectionPool[Counted, Counted], origin: Origin) -> int:
    """How many look-ups a request to ``origin`` costs that finds an idle connection, and one that waits and goes away."""
    Counted.looked_up = 0
    waiter, other = Counted(), Counted()
    ((_, grant),) = pool.acquire(waiter, origin, 0.0).grants
    if grant.connection is None:
        pool.opened(waiter, connection := Counted(), None, 0.0)
    else:
        connection = grant.connection
    pool.released(connection, 0.0, reusable=True)
    pool.acquire(other, origin, 0.0, fresh=True)
    pool.withdraw(other, 0.0)
    return Counted.looked_up


def test_the_work_is_the_same_with_ten_thousand_of_each() -> None:
    pool: ConnectionPool[Counted, Counted] = ConnectionPool(PoolConfig(max_idle_per_origin=MANY))
    work(pool, A)
    alone = work(pool, A)
    for number in range(MANY):
        waiter = Counted()
        pool.acquire(waiter, Origin("https", f"host-{number}", 443), 0.0)
    waiters = [Counted() for _ in range(MANY)]
    for waiter in waiters:
        pool.acquire(waiter, A, 0.0, fresh=True)
        pool.opened(waiter, waiter, None, 0.0)
    for waiter in waiters:
        pool.released(waiter, 0.0, reusable=True)
    assert work(pool, A) == alone


def test_ten_thousand_that_wait_are_granted_one_by_one() -> None:
    pool: ConnectionPool[str, int] = ConnectionPool(PoolConfig(max_connections_per_origin=1))
    pool.acquire(-1, A, 0.0)
    pool.opened(-1, "x", None, 0.0)
    assert all(pool.acquire(waiter, A, 0.0) == PoolOrders() for waiter in range(MANY))
    for waiter in range(MANY):
        assert pool.released("x", 0.0, reusable=True).grants == ((waiter, over("x")),)
    assert pool.released("x", 0.0, reusable=True) == PoolOrders()
