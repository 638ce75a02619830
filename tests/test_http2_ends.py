"""How streams and connections of HTTP/2 end, whose fault it is, and what of it may be tried again."""

from __future__ import annotations

import pytest
from http2_wire import (
    CANCEL,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GET,
    GREETING,
    HTTP_1_1_REQUIRED,
    INTERNAL_ERROR,
    LAST_ID,
    NO_ERROR,
    POST,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    Wire,
    asked,
    data,
    farewells,
    frames,
    go_away,
    joined,
    pieces_of,
    raw,
    reset,
    resets,
    sent_bytes,
    set_to,
    the_error,
    upload,
    window,
    written,
)
from hyperframe.frame import (
    ContinuationFrame,
    HeadersFrame,
    PingFrame,
    PushPromiseFrame,
    SettingsFrame,
)

from sansio.errors import InferenceError, NetworkError, ProtocolError
from sansio.http import END, ResponseHead
from sansio.http2 import Http2Connection

# ---- ends: one stream -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "begun", "kind", "unprocessed", "retryable", "said"),
    [
        (REFUSED_STREAM, False, "network_error", True, True, "REFUSED_STREAM"),
        (REFUSED_STREAM, True, "network_error", False, True, "REFUSED_STREAM"),  # it says what cannot be
        (NO_ERROR, False, "network_error", False, True, "NO_ERROR"),
        (CANCEL, False, "network_error", False, True, "CANCEL"),
        (INTERNAL_ERROR, True, "network_error", False, True, "INTERNAL_ERROR"),
        (PROTOCOL_ERROR, False, "network_error", False, True, "PROTOCOL_ERROR"),
        (ENHANCE_YOUR_CALM, False, "network_error", False, True, "ENHANCE_YOUR_CALM"),
        (0x77, False, "network_error", False, True, "error 119"),
        (HTTP_1_1_REQUIRED, False, "protocol_error", False, False, "switch HTTP/2 off"),
    ],
)
def test_a_stream_that_the_server_resets(
    code: int, begun: bool, kind: str, unprocessed: bool, retryable: bool, said: str
) -> None:
    wire, connection = Wire(), asked(POST, POST)
    if begun:
        connection.receive(wire.head(1) + data(1, b"hel"))
    assert connection.receive(reset(1, code)) == [1]
    events = connection.take(1)
    assert joined(events) == (200 if begun else None, b"hel" if begun else b"", kind)
    error = events[-1]
    assert isinstance(error, InferenceError)
    assert getattr(error, "unprocessed", False) is unprocessed
    assert getattr(error, "reset", False) is (kind == "network_error")
    assert error.retryable is retryable
    assert said in error.message
    assert (connection.open_streams, connection.usable) == (1, True)
    assert written(connection) == b""  # nothing to be said about it
    connection.receive(wire.head(3, end=True))
    assert joined(connection.take(3)) == (200, b"", "end")


@pytest.mark.parametrize("code", [NO_ERROR, CANCEL, REFUSED_STREAM])
def test_a_response_may_come_before_the_request_is_sent(code: int) -> None:
    connection = asked(upload(200_000))
    connection.receive(Wire().head(1, status="413") + data(1, b"big", end=True))
    assert joined(connection.take(1)) == (413, b"big", "end")
    assert resets(written(connection)) == [(1, NO_ERROR)]  # the rest need not be read
    connection.receive(reset(1, code) + window(1, 1000) + window(0, 1_000_000))
    assert written(connection) == b""
    assert (connection.take(1), connection.open_streams, connection.usable) == ([], 0, True)


def test_a_reset_after_the_end_takes_nothing_back() -> None:
    connection = asked(upload(200_000))
    connection.receive(Wire().head(1, end=True) + reset(1, NO_ERROR) + reset(1, INTERNAL_ERROR))
    assert joined(connection.take(1)) == (200, b"", "end")


def test_a_reset_stops_an_upload() -> None:
    connection = asked(upload(200_000))
    connection.receive(reset(1, CANCEL) + window(0, 1_000_000) + window(1, 1_000_000))
    assert written(connection) == b""


def test_a_stream_nobody_wants() -> None:
    wire, connection = Wire(), asked(GET, GET)
    connection.receive(wire.head(1) + data(1, b"hel"))
    connection.reset(1)
    assert resets(connection.outgoing()) == [(1, CANCEL)]
    assert (connection.take(1), connection.open_streams) == ([], 1)
    connection.reset(1)
    assert connection.outgoing() == b""
    # What was on its way: no news, no error. Its fields are read all the same, as the table has to keep step.
    late = data(1, b"lo") + wire.trailers(1, ("x-late", "yes")) + reset(1, CANCEL) + window(1, 1)
    assert connection.receive(late) == []
    connection.receive(wire.head(3, ("x-late", "yes"), end=True))
    assert connection.take(3) == [ResponseHead(200, (("x-late", "yes"),)), END]
    assert farewells(written(connection)) == []


def test_a_head_for_a_stream_nobody_wants() -> None:
    wire, connection = Wire(), asked(GET, GET)
    connection.reset(1)
    assert connection.receive(wire.head(1, ("x-late", "yes")) + data(1, b"late", end=True)) == []
    connection.receive(wire.head(3, ("x-late", "yes"), end=True))
    assert connection.take(3) == [ResponseHead(200, (("x-late", "yes"),)), END]
    assert connection.usable


def test_a_window_that_overflows_ends_its_stream() -> None:
    connection = asked(upload(200_000), GET)
    assert connection.receive(window(1, LAST_ID)) == []  # used up it was
    assert connection.receive(window(1, 1)) == [1]
    error = the_error(connection, 1)
    assert (error.kind, error.retryable, "FLOW_CONTROL_ERROR" in error.message) == ("protocol_error", True, True)
    assert resets(written(connection)) == [(1, FLOW_CONTROL_ERROR)]
    assert (connection.open_streams, connection.usable) == (1, True)


# ---- ends: all streams ------------------------------------------------------------------------------------------------


def test_the_peer_hangs_up() -> None:
    wire, connection = Wire(), asked(GET, GET, GET)
    connection.receive(wire.head(1) + data(1, b"hel") + wire.head(3, end=True))
    assert connection.receive(b"") == [1, 5]
    assert joined(connection.take(1)) == (200, b"hel", "network_error")
    assert joined(connection.take(3)) == (200, b"", "end")
    error = the_error(connection, 5)
    assert isinstance(error, NetworkError)
    assert (error.unprocessed, error.retryable) == (False, True)
    assert error.message == "the connection was closed before the response ended"
    assert (connection.usable, connection.capacity, connection.open_streams) == (False, 0, 0)
    assert connection.receive(b"") == connection.receive(wire.head(5)) == []
    with pytest.raises(RuntimeError):
        connection.send(GET)


def test_a_stream_is_reset_after_everything_is_over() -> None:
    connection = asked(GET, GET)
    connection.receive(b"")
    connection.reset(1)
    assert connection.take(1) == []
    assert connection.outgoing() == b""


@pytest.mark.parametrize(
    ("code", "debug", "said"),
    [
        (NO_ERROR, b"", "(GOAWAY: NO_ERROR)"),
        (ENHANCE_YOUR_CALM, b"too_many_pings", "(GOAWAY: ENHANCE_YOUR_CALM: too_many_pings)"),
        (0x99, b"\xff" * 10_000, "(GOAWAY: error 153: "),
    ],
)
def test_a_server_that_goes_away(code: int, debug: bytes, said: str) -> None:
    wire, connection = Wire(), asked(GET, POST, GET, upload(200_000))
    connection.receive(wire.head(1) + data(1, b"hel"))
    assert connection.receive(go_away(3, code, debug)) == [5, 7]
    assert (connection.usable, connection.capacity, connection.open_streams) == (False, 0, 2)
    for stream in (5, 7):
        error = the_error(connection, stream)
        assert isinstance(error, NetworkError)
        assert error.unprocessed
        assert said in error.message
        assert len(error.message) < 400
    with pytest.raises(RuntimeError):
        connection.send(GET)
    connection.receive(data(1, b"lo", end=True) + window(0, 1_000_000) + window(7, 1_000_000))
    assert joined(connection.take(1)) == (200, b"hello", "end")
    assert written(connection) == b""
    assert connection.receive(b"") == [3]
    error = the_error(connection, 3)
    assert isinstance(error, NetworkError)
    assert not error.unprocessed
    assert said in error.message


def test_what_a_server_has_accepted_it_gets_after_it_said_goodbye() -> None:
    connection = asked(upload(200_000))
    connection.receive(go_away(1) + window(0, 1_000_000) + window(1, 1_000_000))
    assert sent_bytes(written(connection), 1) == 200_000 - 65_535
    connection.receive(Wire().head(1) + data(1, b"x" * 16_000) + data(1, end=True))
    assert joined(connection.take(1)) == (200, b"x" * 16_000, "end")


def test_a_server_that_goes_away_gracefully() -> None:
    wire, connection = Wire(), asked(GET, GET)
    assert connection.receive(go_away(LAST_ID)) == []  # a warning first (RFC 9113, 6.8)
    assert (connection.usable, connection.open_streams) == (False, 2)
    assert connection.receive(go_away(1)) == [3]
    assert connection.receive(wire.head(1, end=True)) == [1]
    assert joined(connection.take(1)) == (200, b"", "end")
    assert connection.receive(b"") == []


def test_the_reserved_bit_of_the_last_stream_id_is_ignored() -> None:
    connection = asked(GET, GET)
    assert connection.receive(raw(7, 0, 0, (2**31 + 1).to_bytes(4, "big") + bytes(4))) == [3]


def test_what_had_begun_was_looked_at_whatever_the_server_says() -> None:
    connection = asked(GET)
    connection.receive(Wire().head(1) + go_away(0))
    error = the_error(connection, 1)
    assert isinstance(error, NetworkError)
    assert not error.unprocessed


def test_what_was_answered_stays_answered() -> None:
    connection = asked(GET)
    connection.receive(Wire().head(1, end=True) + go_away(0))
    assert joined(connection.take(1)) == (200, b"", "end")


def test_going_away_loses_nothing_that_lies_ready() -> None:
    connection = asked(GET)
    connection.receive(PingFrame(opaque_data=b"12345678").serialize() + go_away(1))
    assert [type(frame) for frame in frames(connection.outgoing())] == [PingFrame]


def test_what_a_server_says_when_it_goes_is_kept_without_credentials() -> None:
    connection = asked(GET)
    connection.receive(go_away(0, PROTOCOL_ERROR, b"authorization: Bearer sk-abcdefghijklmnop"))
    error = the_error(connection, 1)
    assert "sk-abc" not in f"{error} {error.to_dict()}"


TOO_LONG = b"\x00\x40\x01\x00\x00\x00\x00\x00\x01"  # the header of a frame of 16,385 bytes

BROKEN: list[tuple[bytes, int]] = [
    (b"\xff" * 9, FRAME_SIZE_ERROR),
    (TOO_LONG, FRAME_SIZE_ERROR),  # before the rest has come: it may never
    (data(2, b"x"), PROTOCOL_ERROR),
    (data(0xB, b"x"), PROTOCOL_ERROR),
    (raw(0, 0, 0, b"x"), PROTOCOL_ERROR),  # on stream 0
    (raw(0, 0x8, 1, b"\x05"), PROTOCOL_ERROR),  # padding beyond the frame
    (raw(0, 0x8, 1), PROTOCOL_ERROR),  # padding of a length that is not there
    (raw(0, 0x8, 1, b"\x02x"), PROTOCOL_ERROR),
    (Wire().head(2), PROTOCOL_ERROR),
    (Wire().head(0xB), PROTOCOL_ERROR),
    (HeadersFrame(1, b"\xff\xff\xff\xff\xff\xff", flags=["END_HEADERS"]).serialize(), PROTOCOL_ERROR),  # not HPACK
    (HeadersFrame(1, b"\xbf", flags=["END_HEADERS"]).serialize(), PROTOCOL_ERROR),  # beyond the table
    (HeadersFrame(1, b"\x88").serialize() + data(1, b"x"), PROTOCOL_ERROR),  # CONTINUATION must follow
    (HeadersFrame(1, b"\x88").serialize() + ContinuationFrame(3, b"", flags=["END_HEADERS"]).serialize(), PROTOCOL_ERROR),
    (HeadersFrame(1, b"\x88").serialize() + raw(0x42, 0, 1, b""), PROTOCOL_ERROR),
    (HeadersFrame(1, b"\x88").serialize() + go_away(0), PROTOCOL_ERROR),
    (HeadersFrame(1, b"\x88").serialize() + set_to(), PROTOCOL_ERROR),
    (ContinuationFrame(1, b"\x88", flags=["END_HEADERS"]).serialize(), PROTOCOL_ERROR),
    (PushPromiseFrame(1, promised_stream_id=2, flags=["END_HEADERS"]).serialize(), PROTOCOL_ERROR),
    (PushPromiseFrame(1, promised_stream_id=2).serialize(), PROTOCOL_ERROR),
    (Wire().head(1, ("content-length", "x")), PROTOCOL_ERROR),
    (Wire().head(1, ("content-length", "9" * 5000)), PROTOCOL_ERROR),
    (Wire().head(1, ("content-length", "5"), ("content-length", "6")), PROTOCOL_ERROR),
    (Wire().head(1, status="100", end=True), PROTOCOL_ERROR),
    (reset(2, CANCEL), PROTOCOL_ERROR),
    (reset(0xB, CANCEL), PROTOCOL_ERROR),
    (raw(3, 0, 1, bytes(3)), FRAME_SIZE_ERROR),
    (window(0, LAST_ID) + window(0, 1), FLOW_CONTROL_ERROR),
    (window(0xB, 1), PROTOCOL_ERROR),
    (raw(8, 0, 0, bytes(4)), PROTOCOL_ERROR),  # an increment of nothing
    (set_to(initial_window_size=2**31), FLOW_CONTROL_ERROR),
    (set_to(max_frame_size=1), PROTOCOL_ERROR),
    (set_to(enable_push=1), PROTOCOL_ERROR),
    (raw(4, 0, 0, bytes(5)), FRAME_SIZE_ERROR),
    (raw(4, 1, 0, b"\x01" + bytes(5)), PROTOCOL_ERROR),  # an ACK that says something
    (raw(4, 0, 1), PROTOCOL_ERROR),  # SETTINGS of a stream
    (raw(6, 0, 0, bytes(7)), FRAME_SIZE_ERROR),
    (raw(7, 0, 0, bytes(7)), FRAME_SIZE_ERROR),  # GOAWAY, cut short
    (raw(7, 0, 1, bytes(8)), PROTOCOL_ERROR),  # GOAWAY of a stream
]  # fmt: skip


@pytest.mark.parametrize(("breaking", "code"), BROKEN)
def test_what_breaks_the_connection(breaking: bytes, code: int) -> None:
    for step in (10**6, 1):
        connection = asked(GET, GET, upload(200_000), GET, GET)
        events = [stream for piece in pieces_of(breaking, step) for stream in connection.receive(piece)]
        assert events == [1, 3, 5, 7, 9]
        for stream in events:
            error = the_error(connection, stream)
            assert isinstance(error, ProtocolError)
            assert error.retryable  # garbled on the way, perhaps
            assert error.message.startswith("not HTTP/2: ")
        assert farewells(written(connection)) == [code]
        assert (connection.usable, connection.capacity, connection.open_streams) == (False, 0, 0)
        assert connection.receive(GREETING) == connection.receive(b"") == []
        assert connection.outgoing() == b""
        with pytest.raises(RuntimeError):
            connection.send(GET)


@pytest.mark.parametrize(
    "begins",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46 and so on",
        PingFrame(opaque_data=b"12345678").serialize(),
        SettingsFrame(flags=["ACK"]).serialize(),
        raw(4, 0, 1),
        go_away(0),
        Wire().head(1),
        raw(0x42, 0, 0),
    ],
)
def test_what_does_not_begin_with_settings_is_not_http2(begins: bytes) -> None:
    connection = Http2Connection()
    connection.send(GET)
    assert connection.receive(begins[:9]) == [1]  # without waiting for the megabytes that "HTTP" promises
    error = the_error(connection, 1)
    assert isinstance(error, ProtocolError)
    assert "switch HTTP/2 off" in error.message
    assert farewells(written(connection)) == [PROTOCOL_ERROR]


def test_what_came_before_the_damage_is_kept() -> None:
    wire, connection = Wire(), asked(GET, GET)
    connection.receive(wire.head(1) + data(1, b"hel") + wire.head(3) + data(3, b"lo", end=True) + data(2))
    assert joined(connection.take(1)) == (200, b"hel", "protocol_error")
    assert joined(connection.take(3)) == (200, b"lo", "end")


def test_what_is_quoted_holds_no_credential() -> None:
    wire, connection = Wire(), asked(GET, GET)
    connection.receive(wire.head(1, ("authorization: Bearer sk-abcdefghijklmnop", "x")))
    connection.receive(wire.head(3, ("content-length", "sk-abcdefghijklmnop")))
    for stream in (1, 3):
        error = the_error(connection, stream)
        assert "sk-abc" not in f"{error} {error.to_dict()} {error.cause!r}"
