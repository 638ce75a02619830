"""The connection pool told all facts in any order, late, twice or never, against a naive model of three lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sansio.connection_pool import ConnectionPool, Grant, Http2, PoolConfig, PoolOrders
from sansio.http import Origin

A, B = Origin("https", "a", 443), Origin("https", "b", 443)
PLAIN = Origin("http", "a", 80)

DIAL: Grant[str] = Grant(None, reused=False)


@dataclass(eq=False)
class Known:
    """A connection of the model."""

    name: str
    origin: Origin
    born: int
    http2: bool
    streams: int
    lines: int = 1
    idle_since: float | None = None

    @property
    def has_room(self) -> bool:
        return self.lines < self.streams


@dataclass(eq=False)
class Asking:
    """A waiter of the model."""

    name: str
    origin: Origin
    asked: int
    fresh: bool
    dialling: bool = False


class PoolAgainstLists(RuleBasedStateMachine):
    """The model: three lists, searched from end to end. ``known`` is in the order of opening, ``idle`` in that of becoming
    idle, ``shared`` (HTTP/2 with room) in that of being given to; ``asking`` in that of asking.

    Facts are told of any name that ever was: late, twice, and of connections and waiters that are gone.
    """

    origins = st.sampled_from([A, A, A, A, B, PLAIN])
    times = st.sampled_from([*[0.0] * 12, 1.0, 1.0, 5.0, -20.0])
    sizes = st.sampled_from([None, None, 1, 2, 2, 3, 4])

    @initialize(
        http2=st.sampled_from(Http2),
        limit=st.sampled_from([None, 1, 2, 3]),
        idle=st.integers(0, 3),
        epoch=st.floats(-1e3, 1e6),
    )
    def begin(self, http2: Http2, limit: int | None, idle: int, epoch: float) -> None:
        self.http2, self.limit, self.max_idle = http2, limit, idle
        self.pool: ConnectionPool[str, str] = ConnectionPool(
            PoolConfig(http2=http2, max_connections_per_origin=limit, max_idle_per_origin=idle, idle_timeout=10.0)
        )
        self.now = epoch
        self.sequence = self.made = 0
        self.is_closed = False
        self.known: list[Known] = []
        self.idle: list[Known] = []
        self.shared: list[Known] = []
        self.asking: list[Asking] = []
        self.speaks: dict[Origin, bool | None] = {}
        self.size: dict[Origin, int] = {}
        self.ever: list[str] = []
        self.waiters_ever: list[str] = []
        self.closed_ever: list[str] = []
        self.pending: list[str] = []  # asked, and not yet answered
        self.grants: list[tuple[str, Grant[str]]] = []
        self.closing: list[str] = []
        self.refused: list[str] = []

    # -- the model's decisions --

    def of(self, origin: Origin) -> list[Known]:
        return [known for known in self.known if known.origin == origin]

    def dialling(self, origin: Origin) -> int:
        return sum(asking.dialling for asking in self.asking if asking.origin == origin)

    def waiting(self, origin: Origin) -> list[Asking]:
        return [asking for asking in self.asking if asking.origin == origin and not asking.dialling]

    def first_shared(self, origin: Origin) -> Known | None:
        return next((known for known in self.shared if known.origin == origin), None)

    def can_share(self, asking: Asking) -> Known | None:
        if asking.fresh:
            younger = [known for known in self.shared if known.origin == asking.origin and known.born > asking.asked]
            assert len(younger) <= 1  # nobody waits while there is one
            return younger[0] if younger else None
        idle = [known for known in self.idle if known.origin == asking.origin and not known.http2]
        return self.first_shared(asking.origin) or (idle[-1] if idle else None)

    def needs_a_dial(self, origin: Origin) -> bool:
        if self.speaks[origin] is None:
            return self.dialling(origin) == 0
        room_to_come = self.dialling(origin) * (self.size[origin] - 1)
        return not self.speaks[origin] or len(self.waiting(origin)) > room_to_come

    def is_at_limit(self, origin: Origin) -> bool:
        return self.limit is not None and len(self.of(origin)) + self.dialling(origin) >= self.limit

    def remove(self, known: Known) -> None:
        self.known.remove(known)
        for places in (self.idle, self.shared):
            if known in places:
                places.remove(known)
        self.closing.append(known.name)

    def answer(self, asking: Asking) -> Grant[str] | None:
        mine = [known for known in self.idle if known.origin == asking.origin]
        known = self.can_share(asking)
        if known is None and not self.needs_a_dial(asking.origin):
            return None
        if known is None and self.is_at_limit(asking.origin):
            if asking.fresh and mine:
                self.remove(mine[0])
            elif not asking.fresh or (known := self.first_shared(asking.origin)) is None:
                return None
        if known is None:
            asking.dialling = True
            return DIAL
        self.asking.remove(asking)
        known.lines += 1
        if known in self.idle:
            self.idle.remove(known)
        if known in self.shared and not known.has_room:
            self.shared.remove(known)
        return Grant(known.name, reused=not (known.http2 and known.born > asking.asked))

    def settle(self, origin: Origin) -> None:
        served = True
        while served:
            served = False
            for asking in self.waiting(origin):
                if (grant := self.answer(asking)) is not None:
                    self.grants.append((asking.name, grant))
                    served = True
                    break
        while len(mine := [known for known in self.idle if known.origin == origin]) > self.max_idle:
            self.remove(mine[0])
        self.forget(origin)

    def forget(self, origin: Origin) -> None:
        if not self.of(origin) and not any(asking.origin == origin for asking in self.asking):
            self.speaks.pop(origin, None)
            self.size.pop(origin, None)

    def loosen(self, known: Known) -> None:
        if known.http2 and known.has_room and known not in self.shared:
            self.shared.insert(0, known)
        if known in self.shared and not known.has_room:
            self.shared.remove(known)
        if not known.lines and not known.streams:
            self.remove(known)
        elif not known.lines and known not in self.idle:
            known.idle_since = self.now
            self.idle.append(known)
        self.settle(known.origin)

    def at(self, moved: float) -> float:
        """Let time pass by as much, or turn the clock back: what is due is closed first. The time to be told."""
        told = self.now + moved
        self.now = max(self.now, told)
        for known in list(self.idle):
            assert known.idle_since is not None
            if known.idle_since + 10.0 <= self.now:
                self.remove(known)
                self.forget(known.origin)
        return told

    def find(self, name: str) -> Known | None:
        return next((known for known in self.known if known.name == name), None)

    def find_asking(self, name: str) -> Asking | None:
        return next((asking for asking in self.asking if asking.name == name), None)

    def agree(self, orders: PoolOrders[str, str]) -> None:
        """The pool ordered what the model did; and keep account of it as a driver sees it."""
        assert orders == PoolOrders(tuple(self.grants), tuple(self.closing), tuple(self.refused))
        for name in [name for name, _ in orders.grants] + [name for name in orders.refused if name in self.pending]:
            self.pending.remove(name)  # raises if it is granted twice
        self.closed_ever += orders.close
        self.grants, self.closing, self.refused = [], [], []

    # -- the facts --

    def one_of(self, data: st.DataObject, there: Sequence[str], ever: Sequence[str]) -> str:
        """A name that is there, or now and then one that was; all of them where none is there."""
        lately = list(ever[-3:])
        return data.draw(st.sampled_from([*there] * 3 + lately if there else lately))

    @rule(origin=origins, kinds=st.lists(st.sampled_from([False, False, True]), min_size=1, max_size=4), moved=times)
    def acquire(self, origin: Origin, kinds: list[bool], moved: float) -> None:
        for fresh in kinds:
            self.waiters_ever.append(name := f"waiter-{len(self.waiters_ever)}")
            self.ask(name, origin, fresh, moved)

    def acquire_again(self, data: st.DataObject, moved: float) -> None:
        name = data.draw(st.sampled_from(self.waiters_ever))
        if self.find_asking(name) is None:
            self.ask(name, A, False, moved)
        else:
            with pytest.raises(ValueError, match=r"^waiter: "):
                self.pool.acquire(name, B, self.now + 100.0)

    def ask(self, name: str, origin: Origin, fresh: bool, moved: float) -> None:
        now = self.at(moved)
        self.pending.append(name)
        if self.is_closed:
            self.refused.append(name)
        else:
            if origin not in self.speaks:
                surely_http1 = self.http2 is Http2.OFF or (self.http2 is Http2.OFFER and origin == PLAIN)
                self.speaks[origin], self.size[origin] = (False if surely_http1 else None), 100
            self.sequence += 1
            self.asking.append(asking := Asking(name, origin, self.sequence, fresh))
            if self.can_share(asking) is not None:  # goes at once: never one of those who wait, whom a dial is made for
                grant = self.answer(asking)
                assert grant is not None
                self.grants.append((name, grant))
            else:
                self.settle(origin)
        self.agree(self.pool.acquire(name, origin, now, fresh=fresh))

    def withdraw(self, data: st.DataObject, moved: float) -> None:
        name = self.one_of(data, [asking.name for asking in self.asking], self.waiters_ever)
        now = self.at(moved)
        asking = self.find_asking(name)
        if asking is not None:
            self.asking.remove(asking)
            if not asking.dialling:
                self.pending.remove(name)
            self.settle(asking.origin)
        self.agree(self.pool.withdraw(name, now))

    def failed(self, data: st.DataObject, moved: float) -> None:
        name = self.one_of(data, [asking.name for asking in self.asking], self.waiters_ever)
        now = self.at(moved)
        asking = self.find_asking(name)
        if asking is not None and asking.dialling:
            self.asking.remove(asking)
            self.settle(asking.origin)
        self.agree(self.pool.failed(name, now))

    def open(self, name: str, streams: int | None, moved: float) -> None:
        now = self.at(moved)
        self.made += 1
        self.ever.append(connection := f"connection-{self.made}")
        asking = self.find_asking(name)
        if asking is None or not asking.dialling:
            self.closing.append(connection)
        else:
            self.asking.remove(asking)
            if self.is_closed:
                self.closing.append(connection)
                self.refused.append(name)
            else:
                self.sequence += 1
                known = Known(
                    connection, asking.origin, self.sequence, streams is not None, 1 if streams is None else streams
                )
                self.known.append(known)
                self.speaks[asking.origin] = known.http2
                if known.http2:
                    self.size[asking.origin] = known.streams or self.size[asking.origin]
                    self.shared += [known] if known.has_room else []
            self.settle(asking.origin)
        self.agree(self.pool.opened(name, connection, streams, now))

    def opened_by_anyone(self, data: st.DataObject, moved: float) -> None:
        self.open(data.draw(st.sampled_from(self.waiters_ever)), data.draw(st.sampled_from([None, 0, 2])), moved)

    @precondition(lambda self: any(asking.dialling for asking in self.asking))
    @rule(data=st.data(), streams=sizes, moved=times, reported=st.integers(1, 4))
    def opened(self, data: st.DataObject, streams: int | None, moved: float, reported: int) -> None:
        for _ in range(reported):
            dialling = [asking.name for asking in self.asking if asking.dialling]
            if dialling:
                self.open(data.draw(st.sampled_from(dialling)), streams, moved)

    def opened_what_is_there(self, data: st.DataObject, moved: float) -> None:
        if not self.known:
            return
        connection = data.draw(st.sampled_from([known.name for known in self.known]))
        name = self.one_of(data, [asking.name for asking in self.asking], self.waiters_ever)
        asking = self.find_asking(name)
        if asking is not None and asking.dialling:
            with pytest.raises(ValueError, match=r"^connection: "):
                self.pool.opened(name, connection, None, self.now + 100.0)
        else:
            now = self.at(moved)
            self.agree(self.pool.opened(name, connection, None, now))

    @precondition(lambda self: self.ever)
    @rule(data=st.data(), reusables=st.lists(st.sampled_from([True] * 11 + [False]), min_size=1, max_size=6), moved=times)
    def released(self, data: st.DataObject, reusables: list[bool], moved: float) -> None:
        for reusable in reusables:
            self.release(self.one_of(data, [known.name for known in self.known], self.ever), reusable, moved)

    def release(self, name: str, reusable: bool, moved: float) -> None:
        now = self.at(moved)
        known = self.find(name)
        if known is not None and known.lines:
            known.lines -= 1
            if not reusable:
                known.streams = 0
            self.loosen(known)
        self.agree(self.pool.released(name, now, reusable=reusable))

    @precondition(lambda self: self.ever)
    @rule(data=st.data(), streams=st.sampled_from([0, 1, 1, 2, 2, 2, 3, 3, 4, 4]), moved=times)
    def resized(self, data: st.DataObject, streams: int, moved: float) -> None:
        name = self.one_of(data, [known.name for known in self.known if known.http2], self.ever)
        known = self.find(name)
        if known is not None and not known.http2 and streams > 1:
            with pytest.raises(ValueError, match=r"^streams: "):
                self.pool.resized(name, streams, self.now + 100.0)
            return
        now = self.at(moved)
        known = self.find(name)
        if known is not None and known.streams:
            known.streams = streams
            if known.http2 and streams:
                self.size[known.origin] = streams
            self.loosen(known)
        self.agree(self.pool.resized(name, streams, now))

    def lost(self, data: st.DataObject, moved: float) -> None:
        if not self.ever:
            return
        name = self.one_of(data, [known.name for known in self.known], self.ever)
        now = self.at(moved)
        if (known := self.find(name)) is not None:
            self.remove(known)
            self.settle(known.origin)
        self.agree(self.pool.lost(name, now))

    @precondition(lambda self: self.waiters_ever)
    @rule(
        data=st.data(),
        what=st.sampled_from(["lost", "withdraw", "failed", "opened_by_anyone", "opened_what_is_there", "acquire_again"]),
        moved=times,
    )
    def something_else(self, data: st.DataObject, what: str, moved: float) -> None:
        """The rarer facts, in one rule: so that more is built up than is torn down."""
        getattr(self, what)(data, moved)

    @rule(moved=times)
    def expire(self, moved: float) -> None:
        now = self.at(moved)
        self.agree(self.pool.expire(now))

    @precondition(lambda self: self.idle)
    @rule()
    def expire_at_the_deadline(self) -> None:
        deadline = self.pool.deadline()
        assert deadline is not None
        before = len(self.idle)
        self.at(0.0)
        self.now = max(self.now, deadline)
        self.at(0.0)
        assert len(self.idle) < before
        self.agree(self.pool.expire(deadline))

    @precondition(lambda self: self.sequence > 40)
    @rule()
    def close(self) -> None:
        self.is_closed = True
        for asking in [asking for asking in self.asking if not asking.dialling]:
            self.asking.remove(asking)
            self.refused.append(asking.name)
        self.shared.clear()
        for known in list(self.known):
            known.streams = 0
            if not known.lines:
                self.remove(known)
        for origin in list(self.speaks):
            self.forget(origin)
        self.agree(self.pool.close())

    # -- what holds whatever happens --

    @invariant()
    def the_limit_is_kept(self) -> None:
        if self.limit is not None:
            assert all(len(self.of(origin)) + self.dialling(origin) <= self.limit for origin in (A, B, PLAIN))

    @invariant()
    def the_pool_knows_what_is_open(self) -> None:
        assert len(self.pool) == len(self.known)

    @invariant()
    def each_was_closed_once_or_is_open(self) -> None:
        assert sorted(self.closed_ever + [known.name for known in self.known]) == sorted(self.ever)

    @invariant()
    def each_was_answered_once_or_waits(self) -> None:
        assert sorted(self.pending) == sorted(asking.name for asking in self.asking if not asking.dialling)

    @invariant()
    def nobody_waits_while_a_place_is_free(self) -> None:
        for asking in self.asking:
            if not asking.dialling:
                is_free = not self.is_at_limit(asking.origin) or (
                    asking.fresh and any(known.origin == asking.origin for known in (*self.idle, *self.shared))
                )
                assert self.can_share(asking) is None
                assert not (is_free and self.needs_a_dial(asking.origin))

    @invariant()
    def nothing_is_over_full_but_what_shrank(self) -> None:
        assert all(known.lines <= 1 for known in self.known if not known.http2)

    @invariant()
    def idle_connections_are_few_and_young(self) -> None:
        for origin in (A, B, PLAIN):
            assert sum(known.origin == origin for known in self.idle) <= self.max_idle
        assert {id(known) for known in self.idle} == {id(known) for known in self.known if not known.lines}
        since = [known.idle_since for known in self.idle if known.idle_since is not None]
        assert self.pool.deadline() == (min(since) + 10.0 if since else None)


TestPoolAgainstLists = PoolAgainstLists.TestCase
TestPoolAgainstLists.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
