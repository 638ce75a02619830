"""The connection pool: who goes over which connection, who dials, who waits, what is closed.

Connections and waiters are opaque, so here they are words: a connection is named after who dialled it.
"""

from __future__ import annotations

import math
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


def test_and_as_a_hundred_while_nothing_was_heard() -> None:
    pool: ConnectionPool[str, int] = ConnectionPool(PoolConfig(http2=Http2.OFFER))
    pool.acquire(-1, A, 0.0)
    for waiter in range(250):
        assert pool.acquire(waiter, A, 0.0) == PoolOrders()
    assert pool.opened(-1, "x", 0, 0.0).grants == ((0, Grant(None, reused=False)), (1, Grant(None, reused=False)), (2, DIAL))
