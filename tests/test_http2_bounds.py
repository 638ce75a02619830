"""How much the HTTP/2 machine keeps, and for how long it plays along: flow control, floods, heads without an end."""

from __future__ import annotations

import sys

import pytest
from hpack import Decoder
from http2_wire import (
    CANCEL,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    GET,
    POST,
    Wire,
    asked,
    continued,
    credits_of,
    data,
    farewells,
    frames,
    joined,
    pieces_of,
    raw,
    resets,
    set_to,
    the_error,
    written,
)
from hyperframe.frame import (
    ContinuationFrame,
    HeadersFrame,
    PingFrame,
    WindowUpdateFrame,
)

from sansio.errors import ProtocolError
from sansio.http import HttpRequest
from sansio.http2 import STREAM_WINDOW, Http2Connection
from sansio.http_checks import MAX_HEAD_BYTES

# ---- windows ----------------------------------------------------------------------------------------------------------


def flood(stream: int, size: int) -> bytes:
    """So many bytes of DATA, in frames as large as they may be."""
    return b"".join(data(stream, b"x" * min(16_384, size - at)) for at in range(0, size, 16_384))


def test_a_slow_reader_holds_up_only_itself() -> None:
    wire, connection = Wire(), asked(GET, GET)
    connection.receive(wire.head(1) + wire.head(3))
    connection.receive(flood(1, STREAM_WINDOW))
    assert credits_of(written(connection), 1) == 0  # nobody took it
    credited = 0
    for _ in range(20):  # five megabytes by its side, through a connection window of one
        connection.receive(flood(3, STREAM_WINDOW))
        connection.take(3)
        out = written(connection)
        credited += credits_of(out, 0)
        assert credits_of(out, 3) == STREAM_WINDOW
        assert credits_of(out, 1) == 0
    assert credited > 20 * STREAM_WINDOW - 2**19
    assert sum(len(event) for event in connection.take(1) if isinstance(event, bytes)) == STREAM_WINDOW
    assert credits_of(written(connection), 1) == STREAM_WINDOW


def test_the_connection_is_credited_as_bytes_come_in_large_steps() -> None:
    wire, connection = Wire(), asked(*[GET] * 4)
    connection.receive(b"".join(wire.head(stream) for stream in (1, 3, 5, 7)))
    connection.take(1)
    connection.receive(flood(1, STREAM_WINDOW) + flood(3, STREAM_WINDOW - 1))
    assert written(connection) == b""
    connection.receive(flood(5, 1))
    assert [(type(frame), frame.stream_id) for frame in frames(connection.outgoing())] == [(WindowUpdateFrame, 0)]


def test_a_stream_is_credited_with_half_its_window_or_more() -> None:
    connection = asked(GET)
    connection.receive(Wire().head(1) + flood(1, STREAM_WINDOW // 2 - 1))
    connection.take(1)
    assert written(connection) == b""
    connection.receive(data(1, b"x"))
    assert written(connection) == b""  # came, but was not taken
    connection.take(1)
    assert credits_of(written(connection), 1) == STREAM_WINDOW // 2


def test_a_stream_that_is_over_is_not_credited() -> None:
    connection = asked(GET)
    connection.receive(Wire().head(1) + flood(1, STREAM_WINDOW) + data(1, end=True))
    connection.take(1)
    assert written(connection) == b""


def test_more_than_the_window_lets_come() -> None:
    wire, connection = Wire(), asked(POST, GET)
    connection.receive(wire.head(1) + flood(1, STREAM_WINDOW))
    assert connection.receive(data(1)) == []
    assert connection.receive(data(1, b"x")) == [1]
    status, received, end = joined(connection.take(1))
    assert (status, len(received), end) == (200, STREAM_WINDOW, "protocol_error")
    assert resets(written(connection)) == [(1, FLOW_CONTROL_ERROR)]
    connection.receive(flood(1, 2**20) + wire.head(3, end=True))
    assert joined(connection.take(3)) == (200, b"", "end")


def test_padding_counts_and_is_credited_although_nobody_takes_it() -> None:
    connection = asked(GET)
    connection.receive(Wire().head(1))
    rounds = 4 * STREAM_WINDOW // 256
    assert connection.receive(data(1, padding=255) * rounds) == []  # of 256 bytes each, its length included
    out = written(connection)
    assert credits_of(out, 1) == rounds * 256
    assert credits_of(out, 0) == rounds * 256
    connection.receive(data(1, b"x", end=True))
    assert joined(connection.take(1)) == (200, b"x", "end")


def test_empty_frames_cost_nothing() -> None:
    connection = asked(GET)
    connection.receive(Wire().head(1))
    connection.take(1)
    assert connection.receive(data(1) * 10_000 + data(1, padding=0) * 1000) == []
    assert connection.take(1) == []
    assert connection.usable


def test_what_comes_for_a_forgotten_stream_counts_for_the_connection() -> None:
    wire, connection = Wire(), asked(POST, GET)
    connection.receive(wire.head(1))
    connection.reset(1)
    written(connection)
    for _ in range(8):
        assert connection.receive(flood(1, STREAM_WINDOW)) == []
    out = written(connection)
    assert credits_of(out, 0) == 8 * STREAM_WINDOW
    assert resets(out) == []
    connection.receive(wire.head(3, end=True))
    assert joined(connection.take(3)) == (200, b"", "end")


def test_a_frame_in_small_pieces_is_looked_at_when_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    connection, looks = asked(GET), list[int]()
    read = Http2Connection._read
    monkeypatch.setattr(Http2Connection, "_read", lambda self, data: (looks.append(len(data)), read(self, data)))
    for piece in pieces_of(Wire().head(1) + data(1, b"x" * 16_000), 1):
        connection.receive(piece)
    assert joined(connection.take(1)) == (200, b"x" * 16_000, None)
    assert len(looks) <= 6  # not once for each byte


def test_unread_bytes_cost_their_number_however_small_the_pieces() -> None:
    connection = asked(GET)
    connection.receive(Wire().head(1))
    connection.receive(data(1, b"xy") * (STREAM_WINDOW // 2))
    held = sys.getsizeof(connection._streams[1].body)
    assert held <= 1.25 * STREAM_WINDOW


# ---- bounds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", [("x-a", "y" * MAX_HEAD_BYTES), ("x-a", "y" * 120_000)])
def test_a_head_past_its_bound_is_refused_for_its_stream(field: tuple[str, str]) -> None:
    wire, connection = Wire(), asked(POST, POST)
    block = wire.block([(":status", "200"), field])
    connection.receive(continued(1, block))
    error = the_error(connection, 1)
    assert isinstance(error, ProtocolError)
    assert str(MAX_HEAD_BYTES) in error.message
    assert not error.retryable
    assert resets(written(connection)) == [(1, CANCEL)]
    connection.receive(wire.head(3, ("x-a", "y" * 1000), end=True))
    assert joined(connection.take(3)) == (200, b"", "end")


def test_a_head_below_its_bound_is_taken() -> None:
    connection = asked(GET)
    block = Wire().block([(":status", "200"), ("x-a", "y" * (MAX_HEAD_BYTES - 100))])
    out = continued(1, block, "END_STREAM")
    for step in (len(out), 1000):
        connection = asked(GET)
        for piece in pieces_of(out, step):
            connection.receive(piece)
        assert joined(connection.take(1)) == (200, b"", "end")


def test_heads_are_bounded_one_by_one() -> None:
    wire, connection = Wire(), asked(*[GET] * 8)
    for stream in range(1, 16, 2):
        connection.receive(continued(stream, wire.block([(":status", "200"), ("x-a", "y" * 60_000)]), "END_STREAM"))
        assert joined(connection.take(stream)) == (200, b"", "end")


@pytest.mark.parametrize("piece", [b"x" * 16_384, b"x" * 1000, b""])
def test_a_head_without_an_end_is_given_up(piece: bytes) -> None:
    connection = asked(GET)
    connection.receive(HeadersFrame(1, b"x").serialize())
    received = 0
    while connection.usable:
        connection.receive(ContinuationFrame(1, piece).serialize())
        received += len(piece) + 9
        assert received <= 2 * MAX_HEAD_BYTES + 16_400
    error = the_error(connection, 1)
    assert error.kind == "protocol_error"
    assert error.retryable is (len(piece) < 16_384)  # a flood of small frames says nothing about the size of heads


def test_the_others_on_the_connection_of_a_head_without_an_end_may_try_again() -> None:
    connection = asked(GET, GET)
    connection.reset(1)  # nobody waits for that one any more
    connection.receive(HeadersFrame(1, b"x").serialize())
    while connection.usable:
        connection.receive(ContinuationFrame(1, b"x" * 16_384).serialize())
    assert the_error(connection, 3).retryable


def test_a_small_block_that_stands_for_a_large_head_is_given_up() -> None:
    wire, connection = Wire(), asked(GET)
    first = wire.block([(":status", "200"), ("x-a", "y" * 3000)])
    bomb = first + b"\xbe" * 1000  # the newest entry of the table, again and again
    connection.receive(HeadersFrame(1, bomb, flags=["END_HEADERS"]).serialize())
    assert the_error(connection, 1).kind == "protocol_error"
    assert farewells(written(connection)) == [ENHANCE_YOUR_CALM]


@pytest.mark.parametrize(
    "asking", [PingFrame(opaque_data=b"12345678").serialize(), set_to(max_concurrent_streams=100), set_to()]
)
def test_a_peer_that_asks_and_never_reads_is_given_up(asking: bytes) -> None:
    connection = asked(GET)
    for _ in range(10_000):
        connection.receive(asking)
        if not connection.usable:
            break
    assert the_error(connection, 1).kind == "protocol_error"
    out = connection.outgoing()
    assert len(out) < 64 * 1024 + 100
    assert farewells(out)[-1:] == [ENHANCE_YOUR_CALM]


def test_a_peer_that_pings_and_reads_is_served() -> None:
    connection = asked(GET)
    for _ in range(10_000):
        connection.receive(PingFrame(opaque_data=b"12345678").serialize())
        assert connection.outgoing()
    assert connection.usable


def test_settings_without_end_leave_nothing_behind() -> None:
    connection = asked(GET)
    for i in range(1000):
        connection.receive(set_to(header_table_size=i % 3))
        connection.outgoing()
    assert connection.usable
    assert len(connection._h2.encoder.table_size_changes) <= 2


def test_settings_that_nobody_knows_are_not_kept() -> None:
    connection = asked()
    before = len(connection._h2.remote_settings)
    connection.receive(raw(4, 0, 0, b"".join(name.to_bytes(2, "big") + bytes(4) for name in range(0x100, 0x900))))
    assert len(connection._h2.remote_settings) == before
    assert connection.usable


@pytest.mark.parametrize(
    "sizes", [[2**32 - 1], [0], [100, 2**20], [0, 0], [0, 4096], [100, 100, 4096, 200], [4096, 7], [50, 60, 55]]
)
def test_the_servers_table_is_kept_in_step_and_small(sizes: list[int]) -> None:
    connection, decoder = Http2Connection(), Decoder()
    for _ in range(2):
        for size in sizes:
            connection.receive(set_to(header_table_size=size))
        decoder.max_allowed_table_size = sizes[-1]
        for i in range(3):
            connection.send(HttpRequest("GET", "https://h/", tuple((f"x-{n}", f"{i}" * 200) for n in range(50))))
            block = b"".join(
                frame.data for frame in frames(connection.outgoing()) if isinstance(frame, (HeadersFrame, ContinuationFrame))
            )
            assert len(list(decoder.decode(block))) == 55
        assert connection._h2.encoder.header_table_size <= 4096


def test_the_smallest_size_of_the_table_is_announced_and_the_last() -> None:
    connection = asked()
    for size in (4000, 0, 2**20, 100):
        connection.receive(set_to(header_table_size=size))
    connection.outgoing()
    connection.send(GET)
    head = frames(connection.outgoing())[-1]
    assert isinstance(head, HeadersFrame)
    assert head.data.startswith(b"\x20\x3f\x45\x82")  # 0, then 100, then the method (RFC 7541, 6.3)


def test_streams_that_are_over_leave_nothing_behind() -> None:
    wire, connection = Wire(), asked()
    for _ in range(1500):
        stream = connection.send(GET)
        connection.outgoing()
        connection.receive(wire.head(stream, end=True))
        connection.take(stream)
    assert connection._streams == {}
    assert len(connection._h2.streams) <= 1
    assert len(connection._h2._closed_streams) <= 1000
