"""The client of a world over its network, with a real mock provider behind it: what a line hears in every condition, and
that nothing is left open whenever it is interrupted or let go."""

from __future__ import annotations

import gc
import json
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import pytest
from http2_wire import GREETING, go_away
from mock_client import Seen

from sansio import END, Http2, HttpEvent, HttpRequest, InferenceError, NetworkError, PoolConfig, ProtocolError, ResponseHead
from sansio.simulation import (
    Action,
    Break,
    CloseOnReuse,
    Fault,
    FaultScript,
    GoAway,
    MockConnection,
    MockProvider,
    NeverRespond,
    OversizedEvent,
    RefuseStream,
    ResetAtByte,
    Send,
    SlowFirstByte,
    StallAfterHead,
    expected_text,
)
from sansio.simulation.provider.response_plan import Hangup, Pause, Wire
from sansio.simulation.world.clock import VirtualClock, chance
from sansio.simulation.world.network import Network
from sansio.simulation.world.plan import BadNetwork, Conditions
from sansio.simulation.world.weather import Weather
from sansio.simulation.world.wire import WireClient

EXACT = Conditions(latency=1.0, jitter=0.0, piece_bytes=1_000_000)
"""A second each way, in whatever pieces; so a test can name each instant."""
TOKENS = 3
H1, H2 = PoolConfig(), PoolConfig(http2=Http2.ONLY)


class Room:
    """A client, a network of one host, and a provider behind it."""

    def __init__(
        self, *faults: Fault | None, conditions: Conditions = EXACT, pool: PoolConfig = H1, seed: int = 0, **more: Any
    ) -> None:
        self.clock = VirtualClock()
        self.network = Network(self.clock, seed)
        settings: dict[str, Any] = {"token_delay": 0.5, "default_output_tokens": TOKENS}
        self.provider = more.pop("provider", None) or MockProvider(faults=FaultScript(faults), **(settings | more))
        self.weather = Weather(chance(0, "weather"), conditions)
        self.network.add("api.test", self.provider, self.weather, http2=True)
        self.network.add("old.test", self.provider, self.weather)
        self.ahead = 0.0
        self.client = WireClient(self.network, lambda: self.clock.now + self.ahead, pool)
        self.calls = 0

    @contextmanager
    def within_a_call(self) -> Iterator[None]:
        """While this lasts nobody may be called back."""
        self.calls += 1
        try:
            yield
        finally:
            self.calls -= 1

    def ask(self, prompt: str = "hello", *, until: float | None = None, **more: Any) -> Owner:
        """A line that is opened now."""
        owner = Owner(self, prompt, **more)
        owner.open()
        if until is not None:
            self.clock.advance_to(until)
        return owner

    def all(self, *prompts: str, until: float, **more: Any) -> list[Owner]:
        """Several that are opened now, and how they stand at ``until``."""
        owners = [self.ask(prompt, **more) for prompt in prompts]
        self.clock.advance_to(until)
        return owners

    def blow(self, **conditions: Any) -> None:
        """From now on the network is like this."""
        self.weather.begin(BadNetwork(0, 0.0, 0.0, "api.test", replace(EXACT, **conditions)))

    def close(self) -> None:
        """Everything ends, and nothing is left."""
        self.client.close()
        self.clock.advance(10_000.0)
        assert self.network.connections == self.client.connections == 0
        assert self.provider.connections_open == self.provider.active == 0
        assert self.clock.next() is None
        assert self.client.deadline() is None

    def close_after(self, *owners: Owner) -> None:
        """Those let go, and everything ends."""
        for owner in owners:
            owner.let_go()
        self.close()


class Owner:
    """Uses one line as a driver would. Insists on being called from the agenda only, and not after it has let go."""

    def __init__(
        self,
        room: Room,
        prompt: str,
        *,
        host: str = "https://api.test",
        fresh: bool = False,
        sends: bool = True,
        leaves_at: bytes = b"",
        looks: bool = True,
    ) -> None:
        body = {"model": "mock", "stream": True, "messages": [{"role": "user", "content": prompt}]}
        headers = (("content-type", "application/json"),)
        self.request = HttpRequest("POST", f"{host}/v1/chat/completions", headers, json.dumps(body).encode())
        self.prompt = prompt
        self.fresh = fresh
        self.room = room
        self.line = room.client.line(self)
        self.sends = sends
        self.leaves_at = leaves_at
        """It is content, and lets go to keep, once it has read this."""
        self.looks = looks
        """Whether it takes what comes."""
        self.heard: list[str] = []
        self.events: list[HttpEvent] = []
        self.error: OSError | InferenceError | None = None
        self.over = False
        self.opened_at = self.ended_at = -1.0

    def open(self) -> None:
        with self.room.within_a_call():
            self.line.open(self.request, fresh=self.fresh)

    def send(self) -> None:
        with self.room.within_a_call():
            self.line.send(self.request)

    def take(self) -> list[HttpEvent] | None:
        with self.room.within_a_call():
            return self.line.take()

    def interrupt(self) -> None:
        with self.room.within_a_call():
            self.line.interrupt()

    def let_go(self, *, keep: bool = False) -> None:
        self.over, self.ended_at = True, self.room.clock.now
        with self.room.within_a_call():
            self.line.let_go(keep=keep)

    def _hear(self, what: str) -> None:
        assert not self.room.calls, "called back from within a call"
        assert not self.over, "called back when it had let go"
        self.heard.append(what)

    def opened(self) -> None:
        self._hear("opened")
        self.opened_at = self.room.clock.now
        if self.sends:
            self.send()

    def failed(self, error: OSError | InferenceError) -> None:
        self._hear("failed")
        self.error = error
        self.let_go()

    def woken(self) -> None:
        self._hear("woken")
        if self.looks:
            self.look()

    def look(self) -> None:
        try:
            events = self.take()
        except OSError as error:
            self.error = error
            self.let_go()
            return
        self.events += events or ()
        last = self.events[-1] if self.events else b""
        if isinstance(last, InferenceError):
            self.error = last
            self.let_go()
        elif last is END or (self.leaves_at and self.leaves_at in self.body):
            self.let_go(keep=True)

    @property
    def body(self) -> bytes:
        return b"".join(event for event in self.events if isinstance(event, bytes))

    @property
    def is_answered(self) -> bool:
        """Whether the answer came, the whole of it, and no other."""
        first, last = (self.events[0], self.events[-1]) if self.events else (None, None)
        whole = isinstance(first, ResponseHead) and last is END
        return whole and Seen(body=self.body).text == expected_text(self.prompt, TOKENS)


class Scripted(MockProvider):
    """A provider whose connections say these bytes as soon as they stand, and no more."""

    def __init__(self, says: bytes) -> None:
        super().__init__()
        self.says = says

    def connection(self, alpn: Any = None) -> MockConnection:
        return cast(MockConnection, _Speech(self.says))


class _Speech:
    def __init__(self, says: bytes) -> None:
        self._says = says

    def receive_data(self, data: bytes, now: float, unix_now: float) -> None: ...

    def actions(self, now: float, max_bytes: int | None = None) -> list[Action]:
        says, self._says = self._says, b""
        return [Send(says)] if says else []

    def deadline(self) -> float | None:
        return None

    def connection_lost(self, now: float) -> None: ...


UNASKED = b"HTTP/1.1 408 Request Timeout\r\n\r\n"
LAST = b"0\r\n\r\n"
"""The end of a body in chunks (RFC 9112, section 7.1)."""


@dataclass(frozen=True, slots=True)
class Tail(Fault):
    """An answer over HTTP/1.1 ends with these parts in place of its last chunk."""

    parts: tuple[bytes | Pause | Hangup, ...]

    def mangle(self, wire: Wire) -> Wire:
        for part in wire:
            if part == LAST:
                yield from self.parts
            else:
                yield part


def late(seconds: float | None, *parts: bytes | Hangup) -> Tail:
    """The end comes so much later than what is before it; by default as it would."""
    return Tail((Pause(seconds), *(parts or (LAST,))))


both = pytest.mark.parametrize("pool", [H1, H2], ids=["HTTP/1.1", "HTTP/2"])


# --- an answer --------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("most", [1, 3, 50, 1_400])
@pytest.mark.parametrize("seed", range(5))
def test_however_it_is_cut_the_answer_is_the_same(seed: int, most: int, pool: PoolConfig) -> None:
    room = Room(conditions=Conditions(jitter=0.5, piece_bytes=most), pool=pool, seed=seed)
    owner = room.ask(until=100.0)
    assert owner.is_answered and not owner.line.reused
    room.close()


@both
def test_a_connection_is_used_again(pool: PoolConfig) -> None:
    room = Room(pool=pool)
    owners = [room.ask(f"ask {number}", until=20.0 * (number + 1)) for number in range(3)]
    assert all(owner.is_answered for owner in owners)
    assert [owner.line.reused for owner in owners] == [False, True, True]
    assert [owner.opened_at for owner in owners] == [2.0, 20.0, 40.0]
    assert room.provider.connections_total == room.client.connections == 1
    room.close()


@both
def test_who_wants_a_fresh_connection_gets_one(pool: PoolConfig) -> None:
    room = Room(pool=pool)
    room.ask(until=20.0)
    owner = room.ask(fresh=True, until=40.0)
    assert owner.is_answered and not owner.line.reused and owner.opened_at == 22.0
    assert room.provider.connections_total == 2
    room.close()


def test_two_at_once_take_two_connections_over_http_1() -> None:
    room = Room()
    assert all(owner.is_answered for owner in room.all("one", "two", until=20.0))
    assert room.provider.connections_total == 2
    room.close()


@both
def test_what_comes_while_nobody_looks_is_kept(pool: PoolConfig) -> None:
    room = Room(pool=pool)
    owner = room.ask(until=20.0, looks=False)
    owner.look()
    assert owner.is_answered and len(owner.events) == 3, "its pieces are joined"
    room.close()


def test_what_nobody_looked_at_is_read_when_the_line_is_let_go() -> None:
    room = Room()
    owner = room.ask(until=20.0, looks=False)
    owner.let_go(keep=True)
    assert room.ask(until=40.0).line.reused
    room.close()


def test_there_is_nothing_to_take_between_two_pieces() -> None:
    room = Room()
    owner = room.ask(until=3.0)
    assert owner.take() is None
    room.close_after(owner)


# --- HTTP/2 -----------------------------------------------------------------------------------------------------------


def test_many_lines_share_a_connection_of_http_2() -> None:
    room = Room(pool=H2)
    prompts = [f"ask {number}" for number in range(20)]
    owners = room.all(*prompts, until=20.0)
    assert all(owner.is_answered for owner in owners)
    assert room.provider.connections_total == 1
    assert sorted(owner.line.stream_id for owner in owners) == list(range(1, 41, 2))
    room.close()


def test_who_dialled_has_a_connection_of_http_2_alone_until_its_server_has_said_how_many_it_takes() -> None:
    pool = replace(H2, max_connections_per_origin=1)
    room = Room(pool=pool, max_concurrent_streams=2, conditions=replace(EXACT, piece_bytes=1))
    owners = [room.ask(prompt) for prompt in ("one", "two", "three")]
    room.clock.advance_to(2.0)
    assert [owner.heard for owner in owners] == [["opened"], ["opened"], []]
    room.clock.advance_to(3.0)
    assert [owner.line.reused for owner in owners[:2]] == [False, False]
    room.clock.advance_to(100.0)
    assert all(owner.is_answered for owner in owners)
    assert owners[2].opened_at == min(owner.ended_at for owner in owners[:2]) > 3.0
    assert room.provider.connections_total == 1
    room.close()


def test_until_the_server_has_said_how_many_it_takes_nobody_else_is_let_in() -> None:
    room = Room(pool=H2, conditions=replace(EXACT, stalled=1.0, stall_seconds=5.0, reset_within=0))
    one, two = room.all("one", "two", until=50.0)
    assert (one.opened_at, two.opened_at) == (2.0, 7.0) and room.provider.connections_total == 1
    assert one.is_answered and two.is_answered and not two.line.reused
    room.close()


def test_the_place_of_a_lost_connection_is_free_at_once() -> None:
    room = Room(SlowFirstByte(5.0), pool=replace(H2, max_connections_per_origin=1), max_concurrent_streams=1)
    one, two = room.ask("one", looks=False), room.ask("two")
    room.clock.advance_to(6.0)
    room.blow(reset=1.0, reset_within=0)
    room.clock.advance_to(8.5)
    room.weather.clear()
    room.clock.advance_to(30.0)
    assert two.is_answered and two.opened_at == 9.0 + 2.0 and not one.over
    room.close_after(one)


def test_the_first_may_wait_before_it_sends() -> None:
    room = Room(pool=H2)
    first, second = room.ask("one", sends=False), room.ask("two")
    room.clock.advance_to(20.0)
    assert second.heard == [], "what has come is the first one's to read"
    first.send()
    room.clock.advance_to(40.0)
    assert first.is_answered and second.is_answered and room.provider.connections_total == 1
    room.close()


@pytest.mark.parametrize("seed", range(5))
def test_the_first_may_send_when_half_of_that_has_come(seed: int) -> None:
    half = replace(EXACT, stalled=1.0, stall_seconds=5.0, reset_within=30)
    room = Room(pool=H2, conditions=half, seed=seed)
    first = room.ask("one", until=4.0, sends=False)
    first.send()
    second = room.ask("two", until=40.0)
    assert first.is_answered and second.is_answered and second.opened_at == 7.0
    room.close()


def test_a_request_that_was_disowned_before_it_was_sent_may_be_sent_again() -> None:
    room = Room(pool=H2, provider=Scripted(GREETING + go_away(0)))
    owner = room.ask(until=20.0, sends=False)
    owner.send()
    assert not owner.events
    room.clock.advance_to(21.0)
    assert isinstance(owner.error, NetworkError) and owner.error.unprocessed
    room.client.close()
    assert room.network.connections == 0


@pytest.mark.parametrize("host", ["https://api.test", "http://api.test"])
def test_only_http_2_is_spoken_with_a_server_that_does(host: str) -> None:
    room = Room(pool=H2)
    assert room.ask(until=20.0, host=host).is_answered
    assert room.provider.log[0].http_version == "2"
    room.close()


def test_a_server_that_agrees_on_no_http_2_is_left() -> None:
    room = Room(pool=H2)
    owner = room.ask(until=20.0, host="https://old.test")
    assert isinstance(owner.error, ProtocolError) and "does not offer HTTP/2" in str(owner.error)
    assert owner.heard == ["failed"]
    room.close()


def test_a_server_that_does_not_know_what_it_is_told_is_not_understood() -> None:
    room = Room(pool=H2)
    owner = room.ask(until=20.0, host="http://old.test")
    assert isinstance(owner.error, ProtocolError) and "does not begin with SETTINGS" in str(owner.error)
    room.close()


@pytest.mark.parametrize(
    ("host", "version"), [("https://api.test", "2"), ("http://api.test", "1.1"), ("https://old.test", "1.1")]
)
def test_http_2_is_offered_where_there_is_a_handshake(host: str, version: str) -> None:
    room = Room(pool=PoolConfig(http2=Http2.OFFER))
    assert room.ask(until=20.0, host=host).is_answered
    assert room.provider.log[0].http_version == version
    room.close()


def test_http_2_without_its_extra_is_known_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h2.settings", None)
    Room(pool=H1)
    with pytest.raises(ImportError, match="HTTP/2 needs the library h2"):
        Room(pool=H2)


def test_a_refused_stream_costs_no_connection() -> None:
    room = Room(RefuseStream(), pool=H2)
    owner = room.ask(until=10.0)
    assert isinstance(owner.error, NetworkError) and owner.error.unprocessed
    assert room.ask(until=20.0).is_answered and room.provider.connections_total == 1
    room.close()


def test_after_goaway_a_connection_takes_no_more_and_finishes_what_it_has() -> None:
    room = Room(SlowFirstByte(5.0), GoAway(), pool=H2)
    first = room.ask("one", until=4.0)
    second = room.ask("two", until=6.0)
    assert isinstance(second.error, NetworkError) and second.error.unprocessed
    third = room.ask("three", until=20.0)
    assert first.is_answered and third.is_answered
    assert room.provider.connections_total == 2
    room.close()


def test_a_lost_connection_of_http_2_is_lost_to_all_its_lines() -> None:
    room = Room(SlowFirstByte(20.0), SlowFirstByte(20.0), pool=H2)
    owners = room.all("one", "two", until=10.0)
    room.blow(reset=1.0, reset_within=0)
    third = room.ask("three", until=40.0)
    assert [str(owner.error) for owner in [*owners, third]] == ["the connection was closed before the response ended"] * 3
    assert len({owner.ended_at for owner in [*owners, third]}) == 1
    room.close()


def test_one_who_leaves_does_not_disturb_the_others() -> None:
    room = Room(pool=H2, token_delay=2.0)
    one, two = room.all("one", "two", until=4.5)
    one.let_go()
    room.clock.advance_to(20.0)
    assert two.is_answered and not one.is_answered
    assert [record.outcome for record in room.provider.log] == ["client_left", "completed"]
    room.close()


def test_who_leaves_says_so_at_once() -> None:
    room = Room(NeverRespond(), pool=H2)
    room.ask(until=10.0).let_go()
    room.clock.advance_to(20.0)
    assert room.provider.log[0].outcome == "client_left" and room.provider.log[0].ended_at == 11.0
    assert room.provider.connections_open == 1
    room.close()


def test_who_has_left_is_forgotten() -> None:
    room = Room(pool=H2)
    room.ask("one", until=20.0)
    left = weakref.ref(room.ask("two", until=40.0))
    gc.collect()
    assert left() is None and room.client.connections == 1
    room.close()


def test_what_was_taken_makes_room_for_more() -> None:
    room = Room(OversizedEvent(1_000_000), pool=H2, conditions=replace(EXACT, piece_bytes=100_000))
    owner = room.ask(until=50.0, looks=False)
    owner.look()
    assert 200_000 < len(owner.body) < 300_000, "a window"
    owner.looks = True
    room.clock.advance_to(100.0)
    assert owner.is_answered and len(owner.body) > 1_000_000
    room.close()


def test_one_may_let_go_of_another_that_has_news_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room(NeverRespond(), NeverRespond(), pool=H2)
    one, two = room.all("one", "two", until=4.0)

    def both_go() -> None:
        one.let_go()
        two.let_go()

    monkeypatch.setattr(one, "look", both_go)
    monkeypatch.setattr(two, "look", both_go)
    room.blow(reset=1.0, reset_within=0)
    three = room.ask("three", until=40.0)
    assert [one.heard, two.heard, three.heard] == [["opened", "woken"], ["opened"], ["opened", "woken"]]
    room.close()


def test_who_was_granted_a_connection_that_is_lost_in_that_moment_dials() -> None:
    room = Room(pool=H2)
    room.ask("one", until=20.0)
    three = Owner(room, "three")
    room.clock.call_at(22.0, three.open)
    room.blow(reset=1.0, reset_within=0)
    two = room.ask("two", until=21.5)
    room.weather.clear()
    room.clock.advance_to(40.0)
    assert two.ended_at == 22.0 and isinstance(two.error, NetworkError)
    assert three.opened_at == 24.0 and three.is_answered and not three.line.reused
    room.close()


def test_who_was_granted_a_connection_that_takes_no_more_in_that_moment_dials() -> None:
    room = Room(SlowFirstByte(20.0), GoAway(), pool=H2)
    one, two = room.ask("one", until=4.0), room.ask("two")
    three = Owner(room, "three")
    room.clock.call_at(6.0, three.open)
    room.clock.advance_to(40.0)
    assert two.ended_at == 6.0 and isinstance(two.error, NetworkError)
    assert three.opened_at == 8.0 and three.is_answered and one.is_answered
    room.close()


# --- connections that are lost ----------------------------------------------------------------------------------------


@both
def test_a_refused_dial_fails(pool: PoolConfig) -> None:
    room = Room(pool=pool, conditions=replace(EXACT, refused=1.0))
    owner = room.ask(until=20.0)
    assert isinstance(owner.error, ConnectionRefusedError) and owner.heard == ["failed"] and owner.ended_at == 2.0
    room.close()


@both
def test_of_a_lost_dial_nothing_is_heard_until_it_is_called_off(pool: PoolConfig) -> None:
    room = Room(pool=pool, conditions=replace(EXACT, lost=1.0))
    owner = room.ask(until=500.0)
    assert owner.heard == [] and room.client.connections == 1
    owner.interrupt()
    assert room.client.connections == room.network.connections == 0
    room.clock.advance(0.0)
    assert isinstance(owner.error, ConnectionAbortedError)
    room.close()


@both
@pytest.mark.parametrize("seed", range(10))
def test_a_connection_that_is_reset_at_a_byte_is_lost(seed: int, pool: PoolConfig) -> None:
    room = Room(pool=pool, conditions=replace(EXACT, reset=1.0, reset_within=700), seed=seed)
    owner = room.ask(until=50.0)
    assert isinstance(owner.error, ConnectionResetError if pool is H1 else NetworkError)
    assert END not in owner.events and room.network.connections == 0
    again = room.ask(until=100.0)
    assert not again.line.reused
    room.close()


@both
def test_a_connection_that_falls_silent_goes_on(pool: PoolConfig) -> None:
    room = Room(pool=pool, conditions=replace(EXACT, stalled=1.0, reset_within=900, stall_seconds=500.0))
    owner = room.ask(until=400.0)
    assert not owner.is_answered and owner.error is None
    room.clock.advance_to(600.0)
    assert owner.is_answered
    room.close()


@both
def test_a_server_that_leaves_in_the_middle_is_a_lost_connection(pool: PoolConfig) -> None:
    room = Room(Break(1), pool=pool)
    owner = room.ask(until=20.0)
    assert isinstance(owner.error, NetworkError) and owner.body
    room.close()


def test_what_came_before_a_reset_is_read_first() -> None:
    room = Room(ResetAtByte(600))
    owner = room.ask(until=20.0, looks=False)
    owner.look()
    assert isinstance(owner.events[0], ResponseHead) and owner.error is None
    owner.look()
    assert isinstance(owner.error, ConnectionResetError)
    room.close()


@both
@pytest.mark.parametrize("reset", [False, True])
def test_in_the_keep_alive_race_a_reused_connection_is_lost_before_any_answer(reset: bool, pool: PoolConfig) -> None:
    room = Room(None, CloseOnReuse(reset=reset), pool=pool)
    room.ask(until=20.0)
    owner = room.ask(until=40.0)
    assert owner.line.reused
    assert isinstance(owner.error, ConnectionResetError if reset and pool is H1 else NetworkError)
    assert [event for event in owner.events if not isinstance(event, InferenceError)] == []
    fresh = room.ask(until=60.0, fresh=True)
    assert fresh.is_answered and not fresh.line.reused
    room.close()


def test_a_connection_that_ends_before_its_first_request_is_lost() -> None:
    room = Room(pool=H2, conditions=replace(EXACT, reset=1.0, reset_within=0))
    owner = room.ask(until=20.0, sends=False)
    assert owner.heard == ["opened"]
    assert room.client.connections == 0
    with pytest.raises(ConnectionResetError, match="lost before the request was sent"):
        owner.send()
    with pytest.raises(ConnectionAbortedError, match="nothing was sent over this line"):
        owner.take()
    room.close_after(owner)


# --- the end of an answer that comes apart ----------------------------------------------------------------------------


def succession(tail: Tail, until: float = 30.0, **more: Any) -> tuple[Room, Owner, Owner]:
    """One who has all it wants before the answer has come to its end, and one who asks in that moment."""
    room = Room(tail, **more)
    first = room.ask("one", leaves_at=b"[DONE]")
    while not first.over:
        assert room.clock.step()
    second = room.ask("two", until=until)
    return room, first, second


def test_the_tail_of_an_answer_is_waited_for_a_moment() -> None:
    room, first, second = succession(late(0.03))
    assert second.is_answered and second.line.reused
    assert second.opened_at == pytest.approx(first.ended_at + 0.03)
    assert room.provider.connections_total == 1
    room.close()


def test_the_tail_may_come_in_pieces() -> None:
    room, first, second = succession(late(0.03), conditions=replace(EXACT, piece_bytes=4))
    assert second.is_answered and second.line.reused and second.opened_at == pytest.approx(first.ended_at + 0.03)
    room.close()


@pytest.mark.parametrize("seconds", [0.06, None])
def test_a_tail_that_does_not_come_is_not_waited_for_any_longer(seconds: float | None) -> None:
    room, first, second = succession(late(seconds))
    assert second.is_answered and not second.line.reused
    assert second.opened_at == pytest.approx(first.ended_at + 0.05 + 2.0)
    assert room.provider.connections_total == 2 and room.client.connections == 1
    room.close()


def test_a_tail_that_never_will_come_is_not_waited_for() -> None:
    room, first, second = succession(late(0.03, Hangup()))
    assert second.is_answered and second.opened_at == pytest.approx(first.ended_at + 0.03 + 2.0)
    room.close()


def test_a_tail_that_came_meanwhile_need_not_be_waited_for() -> None:
    room = Room(late(1.0))
    room.ask(leaves_at=b"[DONE]", until=20.0)
    owner = room.ask(until=40.0)
    assert owner.is_answered and owner.line.reused and owner.opened_at == 20.0
    room.close()


def test_a_server_that_leaves_an_idle_connection_is_forgotten() -> None:
    room = Room(late(1.0, Hangup()))
    room.ask(leaves_at=b"[DONE]", until=20.0)
    assert room.client.connections == 0 and room.client.deadline() is None
    room.close()


def test_what_nobody_asked_for_spoils_a_connection() -> None:
    room = Room(late(1.0, LAST + UNASKED), None, conditions=replace(EXACT, piece_bytes=1))
    room.ask(leaves_at=b"[DONE]", until=20.0)
    assert room.client.connections == 1
    owner = room.ask(until=40.0)
    assert owner.is_answered and not owner.line.reused and owner.opened_at == 22.0
    room.close()


def test_one_who_meets_what_is_spoiled_takes_another_that_is_not() -> None:
    room = Room(None, late(1.0, LAST + UNASKED))
    room.all("one", "two", until=20.0, leaves_at=b"[DONE]")
    assert room.client.connections == 2
    owner = room.ask(until=40.0)
    assert owner.is_answered and owner.line.reused and owner.opened_at == 20.0 and room.client.connections == 1
    room.close()


@pytest.mark.parametrize("parts", [(LAST, Pause(1.5), Hangup()), (Pause(1.5), Hangup())])
def test_who_was_granted_what_its_server_leaves_in_that_moment_dials(parts: tuple[bytes | Pause | Hangup, ...]) -> None:
    room = Room(Tail(parts))
    first = room.ask(leaves_at=b"[DONE]", until=5.75)
    assert first.over
    second = Owner(room, "two")
    room.clock.call_at(7.0, second.open)
    room.clock.advance_to(20.0)
    assert second.is_answered and second.opened_at == 9.0 and room.provider.connections_total == 2
    room.close()


def test_who_does_not_wait_any_more_leaves_no_timer() -> None:
    room, first, second = succession(late(None), until=0.0)
    room.clock.advance(0.01)
    second.let_go()
    room.client.close()
    assert room.clock.next() == first.ended_at + 0.01 + 1.0, "when its server hears of the close"
    room.close()


@pytest.mark.parametrize("interrupted", [False, True])
def test_who_waits_for_a_tail_may_leave_and_the_connection_stays(interrupted: bool) -> None:
    room, first, second = succession(late(0.03), until=0.0)
    room.clock.advance_to(first.ended_at + 0.01)
    if interrupted:
        second.interrupt()
        room.clock.advance(0.0)
        assert isinstance(second.error, ConnectionAbortedError)
    else:
        second.let_go()
    third = room.ask("three", until=30.0)
    assert third.is_answered and third.line.reused and third.opened_at == pytest.approx(first.ended_at + 0.03)
    assert room.provider.connections_total == 1
    room.close()


def test_who_waited_for_a_tail_and_left_hears_no_more_of_it() -> None:
    room, _, second = succession(late(0.03), until=0.0)
    room.clock.advance(0.01)
    second.let_go()
    room.clock.advance_to(20.0)
    assert second.heard == []
    room.close()


# --- the pool ---------------------------------------------------------------------------------------------------------


def test_at_the_limit_lines_wait_in_the_order_of_asking() -> None:
    room = Room(pool=PoolConfig(max_connections_per_origin=2))
    owners = room.all(*"abcdef", until=100.0)
    assert all(owner.is_answered for owner in owners)
    assert room.provider.connections_total == 2 and room.provider.max_active == 2
    assert [owner.opened_at for owner in owners] == sorted(owner.opened_at for owner in owners)
    assert [owner.opened_at for owner in owners[2:]] == sorted(owner.ended_at for owner in owners)[:4]
    room.close()


def test_a_dial_that_failed_is_no_news_to_who_waits() -> None:
    room = Room(pool=PoolConfig(max_connections_per_origin=1), conditions=replace(EXACT, refused=1.0))
    owners = room.all(*"abc", until=4.5)
    assert [owner.heard for owner in owners] == [["failed"], ["failed"], []]
    room.weather.begin(BadNetwork(0, 0.0, 0.0, "api.test", EXACT))
    four = room.ask("d", until=50.0)
    assert [owner.ended_at for owner in owners] == [2.0, 4.0, 6.0] and four.is_answered
    room.close()


def test_an_idle_connection_expires_by_the_clients_own_clock() -> None:
    room = Room(pool=PoolConfig(idle_timeout=10.0))
    room.ahead = 1_000.0
    owner = room.ask(until=20.0)
    assert room.client.deadline() == owner.ended_at + 1_000.0 + 10.0
    room.client.expire(owner.ended_at + 1_009.0)
    assert room.client.connections == 1
    room.client.expire(owner.ended_at + 1_010.0)
    assert room.client.connections == 0 and room.client.deadline() is None
    room.clock.advance(1.0)
    assert room.provider.connections_open == 0
    room.close()


@both
def test_a_client_that_is_closed_gives_nothing(pool: PoolConfig) -> None:
    room = Room(pool=pool)
    room.client.close()
    owner = room.ask(until=10.0)
    assert isinstance(owner.error, ConnectionAbortedError) and room.provider.connections_total == 0
    room.close()


@both
def test_who_is_answered_when_a_client_is_closed_still_is(pool: PoolConfig) -> None:
    room = Room(pool=pool)
    owner = room.ask(until=4.0)
    room.client.close()
    room.clock.advance_to(20.0)
    assert owner.is_answered and room.client.connections == 0
    room.close()


@both
@pytest.mark.parametrize("at", [0.0, 0.5, 2.5])
def test_who_dials_or_waits_when_a_client_is_closed_fails(at: float, pool: PoolConfig) -> None:
    room = Room(pool=replace(pool, max_connections_per_origin=1), conditions=replace(EXACT, piece_bytes=1))
    owners = [room.ask("one"), room.ask("two")]
    if pool is H2 and at > 2.0:
        room.blow(latency=1.0)
    room.clock.advance_to(at)
    room.client.close()
    room.clock.advance_to(100.0)
    assert isinstance(owners[1].error, ConnectionAbortedError) or pool is H2
    assert all(owner.over for owner in owners)
    room.close()


def test_a_connection_whose_server_has_not_said_what_it_takes_is_closed_with_its_client() -> None:
    room = Room(pool=H2)
    owner = room.ask(until=2.0, sends=False)
    room.client.close()
    owner.send()
    room.clock.advance_to(20.0)
    assert isinstance(owner.error, ConnectionAbortedError) and owner.heard == ["opened", "woken"]
    room.close()


def test_a_line_is_opened_once() -> None:
    room = Room()
    owner = room.ask(until=20.0)
    with pytest.raises(RuntimeError, match="a line is opened once"):
        owner.line.open(owner.request, fresh=False)
    room.close()


# --- leaving, at any moment -------------------------------------------------------------------------------------------


def test_a_line_that_was_never_opened_is_let_go() -> None:
    room = Room()
    owner = Owner(room, "never")
    with pytest.raises(ConnectionResetError):
        owner.send()
    with pytest.raises(ConnectionAbortedError, match="nothing was sent"):
        owner.take()
    owner.let_go()
    owner.let_go(keep=True)
    room.close()


def test_a_line_that_was_interrupted_before_it_was_opened_fails() -> None:
    room = Room()
    owner = Owner(room, "never")
    owner.interrupt()
    room.clock.advance(1.0)
    owner.open()
    room.clock.advance(1.0)
    assert owner.heard == ["failed"] and room.provider.connections_total == room.network.connections == 0
    room.close()


def test_what_has_come_is_taken_before_the_interruption_is_heard() -> None:
    room = Room()
    owner = room.ask(until=20.0, looks=False)
    owner.interrupt()
    assert owner.take()
    with pytest.raises(ConnectionAbortedError, match="interrupted"):
        owner.take()
    room.close_after(owner)


def test_the_first_grant_after_one_has_left_goes_to_the_next() -> None:
    room = Room(pool=PoolConfig(max_connections_per_origin=1))
    one, two, three = (room.ask(prompt) for prompt in ("one", "two", "three"))
    while not one.over:
        room.clock.step()
    two.let_go()  # it has been granted the connection, and has not heard yet
    room.clock.advance_to(50.0)
    assert three.is_answered and two.heard == [] and room.provider.connections_total == 1
    room.close()


def test_who_is_interrupted_before_he_uses_what_he_was_granted_fails() -> None:
    room = Room()
    room.ask(until=20.0)
    owner = room.ask()
    owner.interrupt()
    room.clock.advance_to(21.0)
    assert owner.heard == ["failed"] and room.provider.requests_total == 1
    assert room.ask(until=25.0).line.reused
    room.close()


def test_who_has_failed_does_not_fail_again(monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room(conditions=replace(EXACT, refused=1.0))
    owner = room.ask()
    with monkeypatch.context() as patch:
        patch.setattr(owner, "let_go", lambda: None)
        room.clock.advance_to(20.0)
        owner.interrupt()
        room.clock.advance_to(40.0)
    assert owner.heard == ["failed"]
    room.close_after(owner)


def test_who_lets_go_twice_gives_back_once() -> None:
    room = Room(pool=LIMITED)
    room.ask(until=20.0)
    one, two, three = (room.ask(prompt) for prompt in ("one", "two", "three"))
    while not two.events:
        room.clock.step()
        if one.over:
            one.let_go(keep=True)
    assert not three.heard
    room.clock.advance_to(60.0)
    assert all(owner.is_answered for owner in (one, two, three)) and room.provider.max_active == 1
    room.close()


def interrupt(owner: Owner) -> None:
    owner.interrupt()


def interrupt_twice(owner: Owner) -> None:
    owner.interrupt()
    owner.interrupt()


def let_go(owner: Owner) -> None:
    owner.let_go()


def let_go_to_keep(owner: Owner) -> None:
    owner.let_go(keep=True)
    owner.let_go()


def interrupt_and_let_go(owner: Owner) -> None:
    owner.interrupt()
    owner.let_go()


WAYS = [interrupt, interrupt_twice, let_go, let_go_to_keep, interrupt_and_let_go]
LIMITED = replace(H1, max_connections_per_origin=1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("pool", [H1, LIMITED, H2], ids=["HTTP/1.1", "one connection", "HTTP/2"])
@pytest.mark.parametrize("which", ["one", "two"])
def test_whenever_somebody_leaves_nothing_is_left_and_the_others_are_answered(
    which: str, pool: PoolConfig, way: Callable[[Owner], None]
) -> None:
    """At each step of the way, from before the dial to after the end."""
    steps, done = 0, False
    while not done:
        room = Room(pool=pool, conditions=replace(EXACT, jitter=0.1, piece_bytes=1_000), token_delay=0.0)
        owners = {prompt: room.ask(prompt) for prompt in ("one", "two", "three")}
        leaver = owners.pop(which)
        done = not all(room.clock.step() for _ in range(steps))
        was_over = leaver.over
        if not was_over:
            way(leaver)
            if way in (let_go, let_go_to_keep, interrupt_and_let_go):
                heard = list(leaver.heard)
                room.clock.advance(0.0)
                assert leaver.heard == heard
        room.clock.advance(100.0)
        assert all(owner.is_answered for owner in owners.values())
        assert leaver.over
        if not was_over and way in (interrupt, interrupt_twice):
            assert leaver.is_answered or isinstance(leaver.error, ConnectionAbortedError)
            assert leaver.heard.count("failed") <= 1
        room.close()
        steps += 1
    assert steps > 20, "it takes its way"


@both
@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_nothing_is_left(seed: int, pool: PoolConfig) -> None:
    """Many lines over a rough network to a rough provider, each treated somehow at some moment."""
    rng = chance(seed, "test")
    rough = Conditions(0.05, 0.2, refused=0.1, lost=0.1, reset=0.2, stalled=0.2, reset_within=3_000, stall_seconds=3.0)
    faults: list[Fault | None] = [
        rng.choice(
            [None, Break(1), CloseOnReuse(), GoAway(), RefuseStream(), NeverRespond(), late(0.1), StallAfterHead(1.0)]
        )
        for _ in range(40)
    ]
    room = Room(
        *faults, pool=replace(pool, max_connections_per_origin=3), conditions=replace(rough, piece_bytes=300), seed=seed
    )
    owners: list[Owner] = []

    def treat(owner: Owner) -> None:
        if not owner.over:
            rng.choice(WAYS)(owner)

    for number in range(40):
        owner = Owner(room, f"ask {number}", fresh=rng.random() < 0.2)
        owners.append(owner)
        starts = rng.random() * 10.0
        room.clock.call_later(starts, owner.open)
        room.clock.call_later(starts + rng.random() * 8.0, partial(treat, owner))
    room.clock.advance(200.0)
    for owner in owners:
        assert owner.is_answered or owner.error is not None or owner.over
        owner.let_go()
    assert any(owner.is_answered for owner in owners) and any(owner.error is not None for owner in owners)
    room.close()


@both
def test_the_same_seed_is_the_same_run(pool: PoolConfig) -> None:
    def run(seed: int) -> object:
        room = Room(pool=pool, conditions=Conditions(reset=0.3, reset_within=900, piece_bytes=100), seed=seed)
        owners = room.all(*"abcdef", until=50.0)
        return [(owner.heard, owner.ended_at, repr(owner.error)) for owner in owners]

    assert run(1) == run(1) != run(2)
