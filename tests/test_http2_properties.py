"""What holds for the HTTP/2 machine whatever comes, in whatever order, and however it is cut."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from http2_wire import (
    CANCEL,
    GET,
    GREETING,
    HEAD,
    INTERNAL_ERROR,
    LAST_ID,
    NO_ERROR,
    POST,
    REFUSED_STREAM,
    Server,
    Wire,
    data,
    frames,
    go_away,
    joined,
    pieces_of,
    raw,
    reset,
    set_to,
    upload,
    window,
    written,
)
from hyperframe.frame import (
    ContinuationFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sansio.errors import InferenceError
from sansio.http import HttpEvent
from sansio.http2 import MAX_STREAMS, STREAM_WINDOW, Http2Connection

# ---- every split gives the same -----------------------------------------------------------------------------------------


def transcript(wire: Wire) -> bytes:
    """Three streams: one answered whole, one reset, one refused for its coding; then a goodbye, or damage."""
    return (
        GREETING
        + wire.head(1, ("x-a", "b"))
        + data(1, b"one")
        + wire.head(5, status="103")
        + data(1, b"two", padding=3)
        + PingFrame(opaque_data=b"12345678").serialize()
        + wire.head(3)
        + data(3, b"hel")
        + wire.head(5, ("content-encoding", "gzip"))
        + reset(3, INTERNAL_ERROR)
        + data(5, b"late")
        + wire.trailers(1, ("x-b", "c"))
        + wire.head(9)
        + data(9, b"xyz")
    )


ENDINGS = {"goodbye": go_away(0) + go_away(0), "damage": raw(0, 0, 0), "nothing": b""}


def played(wire: bytes, cuts: Iterable[int]) -> tuple[list[tuple[int | None, bytes, str | None]], list[str]]:
    connection = Http2Connection()
    for _ in range(5):
        connection.send(POST)
    edges = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    events: dict[int, list[HttpEvent]] = {stream: [] for stream in (1, 3, 5, 7, 9)}
    out = written(connection)
    for piece in [wire[a:b] for a, b in pairwise(edges) if a < b] + [b""]:
        for stream in connection.receive(piece):
            news = connection.take(stream)
            assert news
            events[stream] += news
        out += written(connection)
    assert connection.open_streams == 0
    messages = [event.message for stream in events.values() for event in stream if isinstance(event, InferenceError)]
    said = [f"{frame}" for frame in frames(out)]
    return [joined(stream) for stream in events.values()], messages + said


@pytest.mark.parametrize("ending", ENDINGS)
@given(cuts=st.lists(st.integers(0, 400), max_size=12))
@settings(max_examples=60, deadline=None)
def test_every_split_gives_the_same(ending: str, cuts: list[int]) -> None:
    whole = transcript(Wire()) + ENDINGS[ending]
    assert played(whole, cuts) == played(whole, [])


@pytest.mark.parametrize("ending", ENDINGS)
def test_byte_by_byte_as_well(ending: str) -> None:
    whole = transcript(Wire()) + ENDINGS[ending]
    outcome, _ = played(whole, range(len(whole)))
    assert outcome[:3] == [(200, b"onetwo", "end"), (200, b"hel", "network_error"), (200, b"", "protocol_error")]
    assert outcome[3][2] == {"goodbye": "network_error", "damage": "protocol_error", "nothing": "network_error"}[ending]


# ---- no bytes raise ------------------------------------------------------------------------------------------------------


def survives(wire: Iterable[bytes]) -> None:
    """Whatever comes: nothing raises, and after the end every stream has had its last event."""
    connection = Http2Connection()
    for request in (GET, POST, upload(100_000), HEAD, GET):
        connection.send(request)
    connection.reset(9)
    events: dict[int, list[HttpEvent]] = {1: [], 3: [], 5: [], 7: []}
    for piece in [*(piece for piece in wire if piece), b""]:
        for stream in connection.receive(piece):
            events[stream] += connection.take(stream)
        frames(written(connection))
        assert connection.open_streams == sum(joined(stream)[2] is None for stream in events.values())
    assert all(joined(stream)[2] for stream in events.values())
    assert (connection.open_streams, connection.capacity, connection.usable) == (0, 0, False)


@given(st.lists(st.binary(max_size=60), max_size=4), st.booleans())
@settings(max_examples=150, deadline=None)
def test_no_bytes_raise(pieces: list[bytes], greeted: bool) -> None:
    survives([GREETING * greeted, *pieces])


@given(
    st.lists(
        st.builds(
            raw,
            st.integers(0, 11),
            st.sampled_from([0, 1, 4, 5, 8, 0x20, 0x2D, 0xFF]),
            st.integers(0, 11),
            st.binary(max_size=20),
        ),
        max_size=12,
    )
)
@settings(max_examples=120, deadline=None)
def test_no_frames_raise(pieces: list[bytes]) -> None:
    survives([GREETING, *pieces])


STATUS = b"\x88"
FRAMES = [
    HeadersFrame(1, STATUS, flags=["END_HEADERS"]).serialize(),
    HeadersFrame(3, STATUS, flags=["END_HEADERS"]).serialize(),
    HeadersFrame(7, STATUS, flags=["END_HEADERS", "END_STREAM"]).serialize(),
    HeadersFrame(1, STATUS).serialize(),
    HeadersFrame(3, b"\x00\x01a\x01b", flags=["END_HEADERS", "END_STREAM"]).serialize(),
    HeadersFrame(9, b"\x40\x01a\x01b", flags=["END_HEADERS"]).serialize(),
    HeadersFrame(5, b"\x08\x03100", flags=["END_HEADERS"]).serialize(),
    HeadersFrame(5, STATUS + b"\x5c\x013", flags=["END_HEADERS", "PRIORITY"], depends_on=3).serialize(),
    ContinuationFrame(1, b"\x00\x01a\x01b", flags=["END_HEADERS"]).serialize(),
    *(data(stream, b"abc"[:size], end=end) for stream in (1, 3, 5, 7, 9) for size in (0, 3) for end in (False, True)),
    *(reset(stream, code) for stream in (1, 5, 9) for code in (NO_ERROR, REFUSED_STREAM)),
    *(window(stream, size) for stream in (0, 1, 5, 9) for size in (1000, 2**30)),
    *(go_away(last) for last in (0, 3, LAST_ID)),
    *(set_to(initial_window_size=size, header_table_size=size) for size in (0, 2**31 - 1)),
    set_to(max_concurrent_streams=0, max_frame_size=2**24 - 1),
    PingFrame(opaque_data=b"12345678").serialize(),
    PriorityFrame(1, depends_on=3).serialize(),
]


@given(
    st.lists(st.sampled_from(FRAMES), max_size=14),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=2),
)
@settings(max_examples=150, deadline=None)
def test_no_order_of_frames_raises_nor_any_damage_to_them(order: list[bytes], damage: list[tuple[int, int]]) -> None:
    wire = bytearray(GREETING + b"".join(order))
    for at, value in damage:
        wire[at % len(wire)] = value
    survives(pieces_of(bytes(wire), 40))
    survives([bytes(wire)])


# ---- several streams at once, against a naive model -----------------------------------------------------------------------


class Exchanges(RuleBasedStateMachine):
    """A client and a server by h2, whose windows are real. The model: what each stream is to get, and what it has got."""

    @initialize()
    def connect(self) -> None:
        self.connection, self.server = Http2Connection(), Server()
        self.open: set[int] = set()  # by the model
        self.begun: set[int] = set()
        self.due: dict[int, bytes] = {}  # what the server has said, less what was taken
        self.ended: set[int] = set()  # by the server, not taken yet
        self.requests: dict[int, bytes] = {}
        self.talk()

    def talk(self) -> None:
        while True:
            out, answer = written(self.connection), self.server.says()
            self.server.reads(out)
            for stream, length in [(s, len(b)) for s, b in self.server.bodies.items() if b and s in self.open]:
                self.server.h2.acknowledge_received_data(length, stream)
                self.requests[stream] = self.requests[stream].removeprefix(self.server.bodies[stream])
                self.server.bodies[stream] = b""
            if answer:
                news = self.connection.receive(answer)
                assert len(news) == len(set(news))
                assert set(news) <= self.open | self.ended
            if not out and not answer:
                return

    @precondition(lambda self: len(self.open) < 6)
    @rule(size=st.sampled_from([0, 10, 20_000, 100_000]))
    def send(self, size: int) -> None:
        stream = self.connection.send(upload(size))
        self.requests[stream] = upload(size).body
        self.open.add(stream)
        self.due[stream] = b""
        self.talk()
        assert self.requests[stream] == b""  # read by the server, to the last byte

    @precondition(lambda self: self.open - self.begun)
    @rule(which=st.integers(0, 9))
    def answer(self, which: int) -> None:
        stream = sorted(self.open - self.begun)[which % len(self.open - self.begun)]
        self.server.h2.send_headers(stream, [(":status", "200")])
        self.begun.add(stream)
        self.talk()

    @precondition(lambda self: self.open & self.begun)
    @rule(
        which=st.integers(0, 9), size=st.sampled_from([0, 1, 290, 16_384]), times=st.integers(1, 10), padding=st.booleans()
    )
    def say(self, which: int, size: int, times: int, padding: bool) -> None:
        streams = sorted(self.open & self.begun)
        stream = streams[which % len(streams)]
        for i in range(times):
            piece = bytes([i]) * min(size, 16_384 - 200 * padding)
            unread = len(self.due[stream])
            if self.server.h2.local_flow_control_window(stream) < len(piece) + 101 * padding:
                assert unread + len(piece) + 201 > STREAM_WINDOW // 2  # it waits for its reader, and for nothing else
                break
            self.server.h2.send_data(stream, piece, pad_length=100 if padding else None)
            self.due[stream] += piece
            self.talk()

    @precondition(lambda self: self.open & self.begun)
    @rule(which=st.integers(0, 9))
    def end(self, which: int) -> None:
        streams = sorted(self.open & self.begun)
        stream = streams[which % len(streams)]
        self.server.h2.end_stream(stream)
        self.open.discard(stream)
        self.ended.add(stream)
        self.talk()

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 9))
    def server_resets(self, which: int) -> None:
        stream = sorted(self.open)[which % len(self.open)]
        self.server.h2.reset_stream(stream, CANCEL)
        self.talk()
        self.open.discard(stream)
        assert joined(self.connection.take(stream))[1:] == (self.due[stream], "network_error")

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 9))
    def client_resets(self, which: int) -> None:
        stream = sorted(self.open)[which % len(self.open)]
        self.connection.reset(stream)
        self.open.discard(stream)
        self.talk()
        assert self.connection.take(stream) == []

    @precondition(lambda self: self.due)
    @rule(which=st.integers(0, 9))
    def take(self, which: int) -> None:
        streams = sorted(self.open | self.ended) or [99]
        stream = streams[which % len(streams)]
        _, received, end = joined(self.connection.take(stream))
        assert received == self.due.get(stream, b"")
        assert end == ("end" if stream in self.ended else None)
        self.due[stream] = b""
        self.ended.discard(stream)
        self.talk()

    @invariant()
    def the_count_is_right(self) -> None:
        assert self.connection.open_streams == len(self.open)
        assert self.connection.capacity == MAX_STREAMS - len(self.open)
        assert self.connection.usable

    def teardown(self) -> None:
        news = self.connection.receive(b"")
        assert set(news) == self.open
        for stream in self.open:
            assert joined(self.connection.take(stream))[1:] == (self.due[stream], "network_error")
        for stream in self.ended:
            assert joined(self.connection.take(stream))[1:] == (self.due[stream], "end")


Exchanges.TestCase.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
test_exchanges = Exchanges.TestCase
