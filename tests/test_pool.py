"""Idle connections: which one is used again, and which are to be closed. Connections are opaque, so here they are words."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sansio.http import Origin
from sansio.pool import IdleConnections

A, B = Origin("https", "a", 443), Origin("https", "b", 443)


def pool(**config: Any) -> IdleConnections[str]:
    return IdleConnections(**config)


def test_there_is_none_at_first() -> None:
    idle = pool()
    assert (idle.take(A, 0.0), len(idle)) == ((None, []), 0)
    assert (idle.max_idle_per_origin, idle.idle_timeout) == (128, 30.0)


def test_the_most_recently_used_goes_first() -> None:
    idle = pool()
    for name in "xyz":
        assert idle.put(A, name, 0.0) == []
    assert len(idle) == 3
    assert [idle.take(A, 1.0)[0] for _ in range(4)] == ["z", "y", "x", None]
    assert len(idle) == 0


@pytest.mark.parametrize("other", [B, Origin("http", "a", 443), Origin("https", "a", 8443)])
def test_each_origin_has_its_own(other: Origin) -> None:
    idle = pool()
    idle.put(A, "x", 0.0)
    assert idle.take(other, 0.0) == (None, [])
    assert idle.take(A, 0.0) == ("x", [])


def test_one_idle_for_too_long_is_closed_instead() -> None:
    idle = pool(idle_timeout=30.0)
    idle.put(A, "x", 0.0)
    idle.put(A, "y", 10.0)
    assert idle.take(A, 30.0) == ("y", ["x"])
    idle.put(A, "y", 30.0)
    assert idle.take(A, 59.999) == ("y", [])
    idle.put(A, "y", 60.0)
    assert idle.take(A, 90.0) == (None, ["y"])
    assert len(idle) == 0


def test_putting_one_back_finds_the_old_too() -> None:
    idle = pool(idle_timeout=30.0)
    idle.put(A, "x", 0.0)
    assert idle.put(A, "y", 30.0) == ["x"]
    assert idle.take(A, 30.0) == ("y", [])


def test_the_oldest_are_closed_when_there_are_too_many() -> None:
    idle = pool(max_idle_per_origin=2)
    assert idle.put(A, "x", 0.0) == idle.put(A, "y", 0.0) == idle.put(B, "other", 0.0) == []
    assert idle.put(A, "z", 0.0) == ["x"]
    assert len(idle) == 3


def test_none_is_kept_where_none_may_be() -> None:
    idle = pool(max_idle_per_origin=0)
    assert idle.put(A, "x", 0.0) == ["x"]
    assert (idle.take(A, 0.0), len(idle)) == ((None, []), 0)


def test_a_clock_that_goes_backwards_closes_nothing() -> None:
    idle = pool()
    idle.put(A, "x", 100.0)
    assert idle.take(A, 0.0) == ("x", [])


def test_once_closed_it_keeps_nothing() -> None:
    idle = pool()
    idle.put(A, "x", 0.0)
    idle.put(B, "y", 0.0)
    idle.put(A, "z", 0.0)
    assert idle.close() == ["x", "z", "y"]
    assert (len(idle), idle.take(A, 0.0)) == (0, (None, []))
    assert idle.put(A, "late", 0.0) == ["late"]
    assert idle.close() == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("max_idle_per_origin", value) for value in (-1, 1.5, True, None, "1", math.nan)),
        *(("idle_timeout", value) for value in (0, -1.0, math.nan, math.inf, True, None, "1")),
    ],
)
def test_a_bound_out_of_range_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        pool(**{field: value})


class PoolAgainstAList(RuleBasedStateMachine):
    """The model is one list of (origin, name, since), oldest first."""

    origins = st.sampled_from([A, B])

    def __init__(self) -> None:
        super().__init__()
        self.pool: IdleConnections[int] = IdleConnections(max_idle_per_origin=3, idle_timeout=10.0)
        self.model: list[tuple[Origin, int, float]] = []
        self.now = 0.0
        self.made = 0

    def expire(self, origin: Origin) -> list[int]:
        old = [entry for entry in self.model if entry[0] == origin and self.now - entry[2] >= 10.0]
        self.model = [entry for entry in self.model if entry not in old]
        return [name for _, name, _ in old]

    @rule(seconds=st.integers(0, 12))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule(origin=origins)
    def put(self, origin: Origin) -> None:
        self.made += 1
        closed = self.expire(origin)
        self.model.append((origin, self.made, self.now))
        mine = [entry for entry in self.model if entry[0] == origin]
        if len(mine) > 3:
            self.model.remove(mine[0])
            closed.append(mine[0][1])
        assert self.pool.put(origin, self.made, self.now) == closed

    @rule(origin=origins)
    def take(self, origin: Origin) -> None:
        closed = self.expire(origin)
        mine = [entry for entry in self.model if entry[0] == origin]
        if mine:
            self.model.remove(mine[-1])
        assert self.pool.take(origin, self.now) == (mine[-1][1] if mine else None, closed)

    @invariant()
    def none_is_lost(self) -> None:
        assert len(self.pool) == len(self.model)


TestPoolAgainstAList = PoolAgainstAList.TestCase
TestPoolAgainstAList.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
