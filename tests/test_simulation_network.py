"""The network of a world, with a real mock provider behind it: what each condition does to a connection, and when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from mock_client import Seen, chat, play, read

from sansio import END, Http2Connection, HttpRequest
from sansio.simulation import (
    CloseWithoutResponse,
    Fault,
    FaultScript,
    MockConnection,
    MockProvider,
    NeverRespond,
    OversizedEvent,
    ResetAtByte,
    SlowFirstByte,
    expected_text,
)
from sansio.simulation.provider.response_plan import Pause, Wire
from sansio.simulation.world.clock import VirtualClock, chance
from sansio.simulation.world.network import Link, Network
from sansio.simulation.world.plan import BadNetwork, Conditions
from sansio.simulation.world.weather import Weather

EXACT = Conditions(latency=1.0, jitter=0.0, piece_bytes=1_000_000)
"""A second each way, in whatever pieces; so a test can name each instant."""
SEEDS = range(20)
REQUEST = chat("hello")
POST = HttpRequest(
    "POST",
    "https://api.test/v1/chat/completions",
    (("content-type", "application/json"),),
    b'{"model": "m", "stream": true, "messages": [{"role": "user", "content": "hello"}]}',
)
HEARS_RESET = "ConnectionResetError"


@dataclass(frozen=True, slots=True)
class Says(Fault):
    """These bytes are all that is sent; the connection stays."""

    data: bytes

    def mangle(self, wire: Wire) -> Wire:
        yield self.data
        yield Pause(None)


@dataclass
class End:
    """A client end that writes down what it hears and when, and insists on hearing it from the agenda."""

    clock: VirtualClock
    heard: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])
    pieces: list[tuple[float, bytes]] = field(default_factory=list[tuple[float, bytes]])
    on_connected: Callable[[], None] = lambda: None
    calling: bool = False  # whether the test is calling the network right now

    def _hear(self, what: str) -> None:
        assert not self.calling, "called back from within a call"
        self.heard.append((self.clock.now, what))

    def connected(self) -> None:
        self._hear("connected")
        self.on_connected()

    def refused(self, error: OSError) -> None:
        self._hear(f"{type(error).__name__}: {error}")

    def received(self, data: bytes) -> None:
        assert data and not self.calling
        self.pieces.append((self.clock.now, data))

    def ended(self, error: OSError | None) -> None:
        self._hear("closed" if error is None else type(error).__name__)

    @property
    def data(self) -> bytes:
        return b"".join(piece for _, piece in self.pieces)

    @property
    def seen(self) -> Seen:
        """What h11 makes of it."""
        seen = Seen(self.pieces, "open" if self.end is None else "close")
        read(seen)
        return seen

    @property
    def end(self) -> str | None:
        last = self.heard[-1][1] if self.heard else "connected"
        return None if last == "connected" else last


class Place:
    """A network of one host, and who dials it."""

    def __init__(
        self, conditions: Conditions = EXACT, *faults: Fault | None, seed: int = 0, http2: bool = False, tokens: int = 4
    ) -> None:
        self.clock = VirtualClock()
        self.network = Network(self.clock, seed)
        self.provider = MockProvider(faults=FaultScript(faults), token_delay=0.5, default_output_tokens=tokens)
        self.weather = Weather(chance(0, "weather"), conditions)
        self.network.add("api.test", self.provider, self.weather, http2=http2)

    def dial(self, *, http2: bool = False, request: bytes = b"") -> tuple[Link, End]:
        """Connect; ``request`` is sent as soon as the connection stands."""
        end = End(self.clock)
        end.calling = True
        link = self.network.dial("api.test", 443, end, http2=http2)
        end.calling = False

        def send() -> None:
            end.calling = True
            link.send(request)
            end.calling = False

        end.on_connected = send
        return link, end

    def ask(self, until: float = 1000.0) -> End:
        """One request over a connection of its own, and all that came of it by ``until``."""
        end = self.dial(request=REQUEST)[1]
        self.clock.advance_to(until)
        return end

    def blow(self, conditions: Conditions) -> BadNetwork:
        """From now on conditions are these."""
        disturbance = BadNetwork(0, 0.0, 0.0, "api.test", conditions)
        self.weather.begin(disturbance)
        return disturbance

    def whole_until(self, until: float) -> bytes:
        """What of the answer to the first request is sent by then."""
        at = self.provider.log[0].arrived_at
        provider = MockProvider(token_delay=0.5, default_output_tokens=10)
        return play(provider.connection(), REQUEST, at=at, until=until).data

    @property
    def outcomes(self) -> list[str | None]:
        return [record.outcome for record in self.provider.log]

    @property
    def whole(self) -> bytes:
        """The answer to the first request, as it is sent: it holds the time at which that came."""
        at = self.provider.log[0].arrived_at
        return play(MockProvider(default_output_tokens=4).connection(), REQUEST, at=at, until=at).data


# --- the way there and back -------------------------------------------------------------------------------------------


def test_a_connection_stands_after_a_round_trip_and_an_answer_takes_another() -> None:
    place = Place(EXACT, SlowFirstByte(3.0))
    end = place.ask()
    assert end.heard == [(2.0, "connected")]
    assert place.provider.log[0].arrived_at == 3.0
    assert end.pieces[0][0] == 3.0 + 3.0 + 1.0
    assert end.seen.text == expected_text("hello", 4) and end.seen.complete


def test_a_server_reads_the_clock_of_the_wall_too() -> None:
    place = Place()
    place.clock.set_wall_clock(2_000_000_000.0)
    assert place.ask().seen.frames[0]["created"] == 2_000_000_003


def test_a_connection_carries_one_request_after_another() -> None:
    place = Place()
    link, end = place.dial(request=REQUEST)
    place.clock.advance_to(100.0)
    first = end.data
    link.send(chat("another"))
    place.clock.advance_to(200.0)
    second = End(place.clock, pieces=[(0.0, end.data[len(first) :])])
    assert second.seen.text == expected_text("another", 4)
    assert place.provider.connections_total == 1


@pytest.mark.parametrize("most", [1, 2, 7, 100, 100_000])
@pytest.mark.parametrize("seed", SEEDS)
def test_however_it_is_cut_the_answer_is_the_same(seed: int, most: int) -> None:
    place = Place(replace(EXACT, jitter=5.0, piece_bytes=most), seed=seed)
    end = place.ask()
    assert end.data == place.whole
    assert max(len(piece) for _, piece in end.pieces) <= most
    times = [when for when, _ in end.pieces]
    assert times == sorted(times)


def test_pieces_are_cut_at_random_in_both_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[bytes] = []
    receive = MockConnection.receive_data

    def noted(self: MockConnection, data: bytes, now: float, unix_now: float) -> None:
        taken.append(data)
        receive(self, data, now, unix_now)

    monkeypatch.setattr(MockConnection, "receive_data", noted)
    end = Place(replace(EXACT, piece_bytes=10)).ask()
    assert {len(piece) for _, piece in end.pieces} == set(range(1, 11))
    assert b"".join(taken) == REQUEST
    assert len({len(piece) for piece in taken}) > 5 and max(map(len, taken)) <= 10


def test_latency_is_drawn_for_each_piece_within_its_bounds() -> None:
    place = Place(Conditions(latency=1.0, jitter=0.25, piece_bytes=1_000_000))
    dialled = [place.dial()[1] for _ in range(100)]
    place.clock.advance(100.0)
    stands = [end.heard[0][0] for end in dialled]
    assert 2.0 <= min(stands) < 2.1 and 2.4 < max(stands) <= 2.5
    assert len(set(stands)) == 100


def test_a_long_answer_comes_in_windows_which_take_their_time() -> None:
    size = 1_000_000
    place = Place(replace(EXACT, piece_bytes=100_000), OversizedEvent(size))
    end = place.ask()
    assert end.seen.text == expected_text("hello", 4) and len(end.data) > size
    assert size / 200_000 < len({when for when, _ in end.pieces}) < size / 50_000


@dataclass(frozen=True, slots=True)
class Endless(Fault):
    """An answer without an end and without a pause. ``drawn``: its pieces, as far as they were asked for."""

    drawn: list[bytes]

    def mangle(self, wire: Wire) -> Wire:
        while True:
            self.drawn.append(b"x" * 1_000)
            yield self.drawn[-1]


@pytest.mark.parametrize("on_its_way", [False, True])
def test_of_a_long_answer_no_more_is_drawn_than_somebody_waits_for(on_its_way: bool) -> None:
    endless = Endless([])
    conditions = replace(EXACT, reset=1.0 if on_its_way else 0.0, reset_within=1)
    place = Place(conditions, endless)
    link, end = place.dial(request=REQUEST)
    place.clock.advance_to(2.5)
    if not on_its_way:
        link.close()
    place.clock.advance_to(10.0)
    assert place.outcomes == ["client_left"] and len(end.data) <= 1
    assert len(endless.drawn) < 100
    assert place.clock.next() is None


def test_an_answer_without_end_comes_as_fast_as_it_is_heard() -> None:
    place = Place(EXACT, Endless([]))
    link, end = place.dial(request=REQUEST)
    place.clock.advance_to(23.5)
    assert 20 * 65_536 <= len(end.data) <= 20 * 67_000
    link.close()
    place.clock.advance_to(100.0)
    assert place.outcomes == ["client_left"] and place.clock.next() is None


# --- ends -------------------------------------------------------------------------------------------------------------


def test_a_server_that_closes_is_heard_after_what_it_sent() -> None:
    place = Place(replace(EXACT, jitter=9.0))
    end = place.dial(request=chat("hello", headers=[("connection", "close")]))[1]
    place.clock.advance(1000.0)
    assert end.end == "closed" and end.heard[-1][0] >= end.pieces[-1][0]
    assert end.seen.complete
    assert place.network.connections == place.provider.connections_open == 0


def test_a_server_that_closes_at_once_is_heard_a_latency_later() -> None:
    place = Place(EXACT, CloseWithoutResponse())
    assert place.ask().heard == [(2.0, "connected"), (4.0, "closed")]


def test_a_server_that_resets_is_heard_after_what_it_sent() -> None:
    place = Place(EXACT, ResetAtByte(10))
    end = place.ask()
    assert end.data == place.whole[:10] and end.heard[-1] == (4.0, HEARS_RESET)
    assert place.network.connections == place.provider.connections_open == 0


def test_a_client_that_closes_hears_nothing_more_and_its_server_does_a_latency_later() -> None:
    place = Place(tokens=10)
    link, end = place.dial(request=REQUEST)
    place.clock.advance_to(4.25)  # the head has come, a piece is on its way, more will be sent
    heard, pieces = list(end.heard), list(end.pieces)
    link.close()
    link.close()
    link.send(b"of no effect")
    assert place.network.connections == 0
    place.clock.advance_to(4.75)
    assert place.outcomes == [None] and place.provider.connections_open == 1
    place.clock.advance_to(100.0)
    assert place.outcomes == ["client_left"] and place.provider.log[0].ended_at == 5.25
    assert place.provider.connections_open == 0
    assert (end.heard, end.pieces) == (heard, pieces)


def test_what_was_sent_before_a_close_still_arrives() -> None:
    place = Place(replace(EXACT, jitter=5.0, piece_bytes=10))
    link, _ = place.dial()
    place.clock.advance_to(50.0)
    link.send(REQUEST)
    link.close()
    place.clock.advance_to(100.0)
    assert place.provider.log[0].prompt == "hello" and place.outcomes == ["client_left"]


def test_a_server_that_says_nothing_hears_of_the_close_too() -> None:
    place = Place(EXACT, NeverRespond())
    link, _ = place.dial(request=REQUEST)
    place.clock.advance_to(50.0)
    link.close()
    place.clock.advance_to(100.0)
    assert place.outcomes == ["client_left"]
    assert place.clock.next() is None


@pytest.mark.parametrize("after", [0.0, 0.5, 1.5])
def test_a_dial_may_be_given_up(after: float) -> None:
    place = Place()
    link, end = place.dial()
    place.clock.advance_to(after)
    link.close()
    assert place.network.connections == 0
    place.clock.advance_to(100.0)
    assert not end.heard
    assert place.provider.connections_total == (after > 1.0) and place.provider.connections_open == 0


@pytest.mark.parametrize("fault", [CloseWithoutResponse(), None])
def test_what_is_sent_over_what_the_server_has_left_goes_nowhere(fault: Fault | None) -> None:
    place = Place(EXACT if fault else replace(EXACT, reset=1.0, reset_within=0), fault)
    link, end = place.dial(request=REQUEST)
    place.clock.advance_to(3.5)  # the server has left, or the way is broken; the client has not heard yet
    link.send(REQUEST)
    place.clock.advance_to(100.0)
    assert end.end == ("closed" if fault else HEARS_RESET) and place.provider.requests_total == 1
    link.send(REQUEST)
    link.close()
    assert place.clock.next() is None and place.network.connections == 0


# --- what the network does to a connection ----------------------------------------------------------------------------


def test_a_dial_is_refused_after_a_round_trip() -> None:
    place = Place(replace(EXACT, refused=1.0))
    end = place.ask()
    assert end.heard == [(2.0, "ConnectionRefusedError: api.test:443 refused the connection")]
    assert place.provider.connections_total == place.network.connections == 0


def test_a_dial_that_is_given_up_is_not_refused_any_more() -> None:
    place = Place(replace(EXACT, refused=1.0))
    link, end = place.dial()
    link.close()
    place.clock.advance(100.0)
    assert not end.heard and place.network.connections == 0


def test_of_a_lost_dial_nothing_is_ever_heard() -> None:
    place = Place(replace(EXACT, lost=1.0))
    link, end = place.dial()
    place.clock.advance(1e6)
    assert not end.heard and place.provider.connections_total == 0
    assert place.network.connections == 1
    link.close()
    assert place.network.connections == 0


def test_a_host_that_is_not_there_is_a_mistake_and_no_weather() -> None:
    with pytest.raises(ValueError, match=r"host: 'elsewhere.test' is not in this network"):
        Place().network.dial("elsewhere.test", 443, End(VirtualClock()))


@pytest.mark.parametrize("within", [0, 1, 300, 600])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_connection_is_reset_at_a_byte(seed: int, within: int) -> None:
    place = Place(replace(EXACT, reset=1.0, reset_within=within), seed=seed)
    end = place.ask()
    assert len(end.data) <= within < len(place.whole) and place.whole.startswith(end.data)
    assert end.end == HEARS_RESET
    assert place.outcomes == ["client_left"] and place.provider.connections_open == 0
    assert place.network.connections == 0 and place.clock.next() is None


def test_any_byte_may_be_the_last() -> None:
    def three_bytes(seed: int) -> End:
        place = Place(replace(EXACT, reset=1.0, reset_within=3), Says(b"abc"), seed=seed)
        return place.ask()

    ends = [three_bytes(seed) for seed in range(60)]
    assert {end.data for end in ends} == {b"", b"a", b"ab", b"abc"}
    assert {end.end for end in ends} == {HEARS_RESET}, "also right behind the last one"


def test_a_reset_beyond_the_answer_strikes_a_later_one() -> None:
    calm = Place()
    calm.ask()
    size = len(calm.whole)
    seeds = [seed for seed in SEEDS if Place(replace(EXACT, reset=1.0, reset_within=2 * size), seed=seed).ask().end is None]
    assert 5 < len(seeds) < 15
    place = Place(replace(EXACT, reset=1.0, reset_within=2 * size), seed=seeds[0])
    link, end = place.dial(request=REQUEST)
    place.clock.advance_to(100.0)
    link.send(REQUEST)
    place.clock.advance_to(200.0)
    assert size < len(end.data) < 2 * size and end.end == HEARS_RESET


def test_both_sides_hear_of_a_reset_a_latency_after_it_struck() -> None:
    place = Place(replace(EXACT, reset=1.0, reset_within=0))
    end = place.ask()
    assert end.heard == [(2.0, "connected"), (4.0, HEARS_RESET)]
    assert place.provider.log[0].ended_at == 4.0


@pytest.mark.parametrize("seed", SEEDS)
def test_a_stalled_connection_falls_silent_and_goes_on(seed: int) -> None:
    calm = Place(seed=seed).ask()
    place = Place(replace(EXACT, stalled=1.0, stall_seconds=50.0, reset_within=800), seed=seed)
    link, end = place.dial(request=REQUEST)
    place.clock.advance_to(100.0)
    assert end.data == place.whole and end.end is None
    times = [when for when, _ in end.pieces]
    late = [when for when in times if when > 50.0]
    assert late, "no answer is that short"
    assert min(late) == pytest.approx(times[len(times) - len(late) - 1] + 50.0 if len(late) < len(times) else 54.0)
    assert times[: len(times) - len(late)] == [when for when, _ in calm.pieces][: len(times) - len(late)]
    link.send(REQUEST)
    place.clock.advance_to(110.0)
    assert len(end.data) == 2 * len(place.whole), "it strikes once"


def test_a_stalled_connection_hears_its_end_late_too() -> None:
    place = Place(replace(EXACT, stalled=1.0, stall_seconds=50.0, reset_within=0), ResetAtByte(10))
    end = place.ask()
    assert end.data == place.whole[:10] and end.heard[-1] == (54.0, HEARS_RESET)


def test_a_connection_may_stall_and_be_reset() -> None:
    conditions = replace(EXACT, stalled=1.0, reset=1.0, stall_seconds=50.0, reset_within=900)
    places = [Place(conditions, seed=seed) for seed in SEEDS]
    ends = [place.ask() for place in places]
    assert {end.end for end in ends} == {HEARS_RESET}
    assert {end.heard[-1][0] > 50.0 for end in ends} == {True, False}, "whichever comes first"
    assert all(place.whole.startswith(end.data) for place, end in zip(places, ends, strict=True))


# --- conditions that change -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("idle", [False, True])
def test_a_bad_network_strikes_a_connection_that_stands(idle: bool) -> None:
    place = Place()
    link, end = place.dial(request=b"" if idle else REQUEST)
    place.clock.advance_to(50.0 if idle else 4.25)
    before = len(end.data)
    place.blow(replace(EXACT, reset=1.0, reset_within=0))
    if idle:
        link.send(REQUEST)
    place.clock.advance_to(100.0)
    assert end.end == HEARS_RESET
    assert end.data == place.whole[: len(end.data)]
    assert (before > 0) is not idle and len(end.data) < len(place.whole)


def test_the_byte_is_counted_from_when_the_network_became_bad() -> None:
    def after(seed: int) -> int:
        place = Place(seed=seed, tokens=10)
        end = place.dial(request=REQUEST)[1]
        place.clock.advance_to(5.25)
        place.blow(replace(EXACT, reset=1.0, reset_within=500))
        sent = len(place.whole_until(5.25))
        place.clock.advance_to(100.0)
        assert end.end == HEARS_RESET
        return len(end.data) - sent

    come = [after(seed) for seed in SEEDS]
    assert 0 <= min(come) < 100 and 400 < max(come) <= 500


def test_a_bad_network_that_goes_over_spares_who_did_not_meet_it() -> None:
    place = Place()
    link, end = place.dial()
    place.clock.advance_to(50.0)
    gust = place.blow(replace(EXACT, reset=1.0, reset_within=0))
    place.clock.advance_to(60.0)
    place.weather.end(gust)
    link.send(REQUEST)
    place.clock.advance_to(100.0)
    assert end.data == place.whole and end.end is None


def test_a_fair_network_spares_who_was_not_struck_yet() -> None:
    place = Place()
    gust = place.blow(replace(EXACT, reset=1.0, stalled=1.0, reset_within=0))
    end = place.dial(request=REQUEST)[1]
    place.clock.advance_to(2.5)
    place.weather.end(gust)
    place.clock.advance_to(100.0)
    assert end.data == place.whole and end.end is None and end.pieces[-1][0] < 10.0


def test_a_connection_that_fell_silent_stays_so_for_its_time() -> None:
    place = Place()
    gust = place.blow(replace(EXACT, stalled=1.0, stall_seconds=50.0, reset_within=0))
    end = place.dial(request=REQUEST)[1]
    place.clock.advance_to(3.5)
    place.weather.end(gust)
    place.clock.advance_to(53.9)
    assert not end.pieces
    place.clock.advance_to(54.0)
    assert end.data == place.whole


def test_refusals_and_losses_concern_dials_only() -> None:
    place = Place()
    link, end = place.dial()
    place.clock.advance_to(50.0)
    place.blow(replace(EXACT, refused=1.0, lost=1.0))
    link.send(REQUEST)
    place.clock.advance_to(100.0)
    assert end.data == place.whole and end.end is None


def test_latency_is_as_it_is_when_a_piece_is_sent_but_nothing_overtakes() -> None:
    place = Place()
    slow = place.blow(replace(EXACT, latency=10.0))
    link, end = place.dial(request=REQUEST)
    place.clock.advance_to(30.25)  # the head was sent at 30
    assert end.heard == [(20.0, "connected")] and not end.pieces
    place.weather.end(slow)
    place.clock.advance_to(100.0)
    assert {when for when, _ in end.pieces} == {40.0}, "what was sent later waits behind it"
    link.send(REQUEST)
    place.clock.advance_to(200.0)
    assert end.pieces[-1][0] == 104.0


# --- HTTP/2 -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("spoken", "offered"), [(False, False), (False, True), (True, False), (True, True)])
def test_http2_is_spoken_where_both_sides_will(spoken: bool, offered: bool) -> None:
    place = Place(http2=spoken)
    link, end = place.dial(http2=offered)
    assert link.http2 is (spoken and offered)
    place.clock.advance(100.0)
    assert bool(end.data) is link.http2, "a server of HTTP/2 speaks first"
    assert end.heard == [(2.0, "connected")] and all(when == 2.0 for when, _ in end.pieces)


def test_an_answer_that_is_due_earlier_comes_earlier() -> None:
    place = Place(EXACT, SlowFirstByte(10.0), http2=True)
    machine = Http2Connection()
    link, end = place.dial(http2=True)
    place.clock.advance_to(20.0)
    slow = machine.send(POST)
    link.send(machine.outgoing())
    place.clock.advance_to(21.0)
    quick = machine.send(POST)
    link.send(machine.outgoing())
    place.clock.advance_to(30.0)
    assert machine.receive(end.data) == [quick] and machine.take(quick)[-1] is END
    come = len(end.pieces)
    place.clock.advance_to(40.0)
    assert end.pieces[come][0] == 32.0
    machine.receive(b"".join(piece for _, piece in end.pieces[come:]))
    assert machine.take(slow)[-1] is END


def test_what_comes_while_an_answer_is_due_does_not_delay_it() -> None:
    place = Place(EXACT, SlowFirstByte(10.0))
    link, end = place.dial(request=REQUEST)
    place.clock.advance_to(4.0)
    link.send(chat("too early"))
    place.clock.advance_to(100.0)
    assert end.pieces[0][0] == 14.0 and end.end == "closed" and b"does not pipeline" in end.data


# --- the same again ---------------------------------------------------------------------------------------------------

ROUGH = Conditions(0.1, 0.1, refused=0.2, lost=0.2, reset=0.3, stalled=0.3, reset_within=1500, piece_bytes=300)


def test_the_same_seed_is_the_same_weather() -> None:
    def run(seed: int) -> list[object]:
        place = Place(ROUGH, seed=seed)
        ends = [place.ask() for _ in range(10)]
        return [(end.heard, end.pieces) for end in ends]

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_what_becomes_of_one_connection_does_not_depend_on_the_others() -> None:
    def run(others: int) -> object:
        place = Place(ROUGH, seed=3)
        place.network.add("other.test", place.provider, place.weather)
        for _ in range(others):
            place.network.dial("other.test", 443, End(place.clock))
        end = place.dial(request=REQUEST)[1]
        for _ in range(others):
            place.dial()
        place.clock.advance(1000.0)
        return end.heard, [when for when, _ in end.pieces]

    assert run(0) == run(5)


def test_when_all_is_over_nothing_is_left() -> None:
    place = Place(ROUGH)
    links = [place.dial(request=REQUEST)[0] for _ in range(100)]
    assert place.network.connections == 100
    place.clock.advance_to(3.0)
    for link in links:
        link.close()
    assert place.network.connections == 0
    place.clock.advance_to(1000.0)
    assert place.provider.connections_open == place.provider.active == 0
    assert place.clock.next() is None
