"""The HTTP/2 machine: many exchanges over one connection.

What it sends is read by the server's side of h2. What it receives is written frame by frame with hyperframe, because h2
refuses to send most of what a server might.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hpack import Decoder, NeverIndexedHeaderTuple
from http2_wire import (
    CANCEL,
    GET,
    GREETING,
    HEAD,
    LAST_ID,
    POST,
    PREFACE,
    PROTOCOL_ERROR,
    Server,
    Wire,
    asked,
    data,
    farewells,
    frames,
    joined,
    pieces_of,
    raw,
    reset,
    resets,
    sent_bytes,
    set_to,
    talk,
    upload,
    window,
    written,
)
from hyperframe.frame import (
    DataFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

import sansio
from sansio.http import END, Headers, HttpEvent, HttpRequest, ResponseHead
from sansio.http2 import MAX_STREAMS, STREAM_WINDOW, Http2Connection
from sansio.http_checks import MAX_HEAD_BYTES

ROOT = Path(sansio.__file__).parents[1]

# ---- what is sent -----------------------------------------------------------------------------------------------------


def test_the_preface_and_the_settings_lie_ready() -> None:
    out = Http2Connection().outgoing()
    assert out.startswith(PREFACE)
    first, enlarged = frames(out)
    assert isinstance(first, SettingsFrame)
    assert first.settings[SettingsFrame.ENABLE_PUSH] == 0
    assert first.settings[SettingsFrame.INITIAL_WINDOW_SIZE] == STREAM_WINDOW
    assert first.settings[SettingsFrame.MAX_HEADER_LIST_SIZE] == MAX_HEAD_BYTES
    assert isinstance(enlarged, WindowUpdateFrame)
    assert (enlarged.stream_id, enlarged.window_increment) == (0, 2**20 - 65_535)


def test_a_request_on_the_wire() -> None:
    connection, server = Http2Connection(), Server()
    assert connection.send(POST) == 1
    talk(connection, server)
    assert server.heads[1] == [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "h"),
        (":path", "/v1"),
        ("content-type", "application/json"),
        ("accept-encoding", "identity"),
        ("content-length", "2"),
    ]
    assert (server.bodies, server.ended) == ({1: b"{}"}, {1})


@pytest.mark.parametrize(
    ("url", "fields"),
    [
        ("http://h", [("http", "h", "/")]),
        ("https://h:443/a?b=c", [("https", "h", "/a?b=c")]),
        ("https://H:8443/?", [("https", "h:8443", "/")]),
        ("http://[::1]:8080/a", [("http", "[::1]:8080", "/a")]),
    ],
)
def test_scheme_authority_and_path_are_those_of_the_url(url: str, fields: list[tuple[str, str, str]]) -> None:
    connection, server = Http2Connection(), Server()
    connection.send(HttpRequest("GET", url))
    talk(connection, server)
    found = dict(server.heads[1])
    assert [(found[":scheme"], found[":authority"], found[":path"])] == fields


@pytest.mark.parametrize(
    "field",
    [
        ("connection", "close, x-a"),
        ("host", "elsewhere"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("te", "gzip"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("content-length", "999"),
    ],
)
def test_what_speaks_of_an_http1_connection_is_not_sent(field: tuple[str, str]) -> None:
    connection, server = Http2Connection(), Server()
    connection.send(HttpRequest("POST", "https://h/", (field, ("x-a", "b")), b"{}"))
    talk(connection, server)
    assert [value for name, value in server.heads[1] if name == field[0]] == ["2"] * (field[0] == "content-length")
    assert ("x-a", "b") in server.heads[1]


@pytest.mark.parametrize(("method", "body", "length"), [("GET", b"", []), ("HEAD", b"", []), ("POST", b"", ["0"])])
def test_a_request_without_a_body_ends_with_its_head(method: str, body: bytes, length: list[str]) -> None:
    connection = Http2Connection()
    connection.send(HttpRequest(method, "https://h/", (), body))
    head = frames(connection.outgoing())[-1]
    assert isinstance(head, HeadersFrame)
    assert "END_STREAM" in head.flags
    assert [value for name, value in Decoder().decode(head.data) if name == "content-length"] == length


def test_a_value_goes_out_as_the_bytes_it_stands_for() -> None:
    connection = Http2Connection()
    connection.send(HttpRequest("GET", "https://h/", (("x-a", " \tB\xe9 \t"), ("x-b", "\t"))))
    fields = Decoder().decode(frames(connection.outgoing())[-1].data, raw=True)
    assert {(b"x-a", b"B\xe9"), (b"x-b", b"")} <= set(fields)


def test_a_coding_asked_for_is_left_to_whoever_asks() -> None:
    connection, server = Http2Connection(), Server()
    connection.send(HttpRequest("GET", "https://h/", (("accept-encoding", "gzip"),)))
    talk(connection, server)
    assert [value for name, value in server.heads[1] if name == "accept-encoding"] == ["gzip"]


def test_no_credential_enters_a_table() -> None:
    connection = Http2Connection()
    secrets = ("authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie")
    decoder = Decoder()
    for _ in range(2):  # in the second, what is in the table would be an index
        connection.send(HttpRequest("GET", "https://h/", (*((name, "sk-" + "x" * 30) for name in secrets), ("x-a", "b"))))
        fields = decoder.decode(frames(connection.outgoing())[-1].data)
        never = {str(field[0]) for field in fields if isinstance(field, NeverIndexedHeaderTuple)}
        assert never == set(secrets)


def test_a_tunnel_is_refused_and_nothing_changes() -> None:
    connection = Http2Connection()
    with pytest.raises(ValueError, match=r"^method: CONNECT"):
        connection.send(HttpRequest("CONNECT", "https://h/"))
    assert connection.open_streams == 0
    assert connection.send(GET) == 1


def test_a_long_head_is_continued() -> None:
    connection, server = Http2Connection(), Server()
    long = "".join(chr(33 + i % 90) for i in range(40_000))
    connection.send(HttpRequest("GET", "https://h/", (("x-long", long),)))
    talk(connection, server)
    assert ("x-long", long) in server.heads[1]


# ---- bodies out -------------------------------------------------------------------------------------------------------


def test_a_body_larger_than_the_window_follows_as_the_window_opens() -> None:
    connection = Http2Connection()
    connection.send(upload(200_000))
    connection.receive(GREETING)
    assert sent_bytes(written(connection), 1) == 65_535
    assert written(connection) == b""
    connection.receive(window(1, 100))
    assert written(connection) == b""  # the connection's window is used up
    connection.receive(window(0, 40))
    assert sent_bytes(written(connection), 1) == 40
    connection.receive(window(0, 1_000_000))
    assert sent_bytes(written(connection), 1) == 60
    connection.receive(set_to(initial_window_size=65_535 + 1000))  # what this adds, open streams get as well
    assert sent_bytes(written(connection), 1) == 1000
    connection.receive(set_to(initial_window_size=0))  # a window may become negative
    connection.receive(window(1, 66_535))
    assert sent_bytes(written(connection), 1) == 0
    connection.receive(window(1, 1_000_000))
    out = written(connection)
    assert sent_bytes(out, 1) == 200_000 - 65_535 - 40 - 60 - 1000
    last = frames(out)[-1]
    assert isinstance(last, DataFrame)
    assert "END_STREAM" in last.flags


def test_only_the_last_frame_of_a_body_ends_the_stream() -> None:
    connection = Http2Connection()
    connection.send(upload(40_000))
    sent = [frame for frame in frames(written(connection)) if isinstance(frame, DataFrame)]
    assert [len(frame.data) for frame in sent] == [16_384, 16_384, 7_232]
    assert ["END_STREAM" in frame.flags for frame in sent] == [False, False, True]


def test_a_body_arrives_whole() -> None:
    connection, server = Http2Connection(), Server(initial_window_size=1000)
    connection.receive(server.says())
    request = upload(5000)
    stream = connection.send(request)
    talk(connection, server)
    while stream not in server.ended:
        server.h2.increment_flow_control_window(700, stream)
        talk(connection, server)
    assert server.bodies[stream] == request.body


def test_bodies_take_turns_frame_by_frame() -> None:
    connection = Http2Connection()
    for _ in range(3):
        connection.send(upload(30_000))
    order = [frame.stream_id for frame in frames(written(connection)) if isinstance(frame, DataFrame)]
    assert order == [1, 3, 5, 1, 3]  # the connection's window is used up in the middle of the second turn
    connection.receive(GREETING + window(0, 1_000_000))
    order += [frame.stream_id for frame in frames(written(connection)) if isinstance(frame, DataFrame)]
    assert order == [1, 3, 5, 1, 3, 5, 3]


def test_the_turn_is_kept_from_one_window_to_the_next() -> None:
    connection = asked(greeting=set_to(initial_window_size=2**20))
    for _ in range(3):
        connection.send(upload(200_000))
    sent = dict.fromkeys((1, 3, 5), 0)
    for _ in range(12):  # from one frame's worth to the next
        out = written(connection)
        for stream in sent:
            sent[stream] += sent_bytes(out, stream)
        connection.receive(window(0, 16_384))
    assert max(sent.values()) - min(sent.values()) <= 2 * 16_384


def test_a_stream_without_a_window_holds_up_no_other() -> None:
    connection = asked(greeting=set_to(initial_window_size=10))
    for length in (50_000, 5, 50_000):
        connection.send(upload(length))
    out = written(connection)
    assert [sent_bytes(out, stream) for stream in (1, 3, 5)] == [10, 5, 10]
    connection.receive(window(5, 50_000))
    out = written(connection)
    assert [sent_bytes(out, stream) for stream in (1, 3, 5)] == [0, 0, 49_990]


def test_a_body_that_was_sent_is_let_go() -> None:
    connection, request = asked(), upload(1000)
    connection.send(request)
    assert connection._streams[1].unsent.obj is request.body
    written(connection)
    assert connection._streams[1].unsent.obj is not request.body


def test_what_the_windows_let_go_goes_at_once_and_no_more() -> None:
    connection = asked(greeting=set_to(initial_window_size=400_000, max_frame_size=2**24 - 1) + window(0, 10**6))
    connection.send(upload(1_000_000))
    assert sent_bytes(connection.outgoing(), 1) == 400_000  # nobody has to ask twice
    assert connection.outgoing() == b""


def test_an_upload_that_nobody_wants_stops() -> None:
    connection = Http2Connection()
    connection.send(upload(200_000))
    connection.send(upload(10))
    connection.reset(1)
    out = written(connection)
    assert (sent_bytes(out, 1), sent_bytes(out, 3)) == (0, 10)
    assert resets(out) == [(1, CANCEL)]


# ---- how many -----------------------------------------------------------------------------------------------------------


def test_until_the_settings_have_come_a_hundred_are_assumed() -> None:
    connection = Http2Connection()
    assert (connection.capacity, connection.usable, connection.open_streams) == (100, True, 0)
    ids = [connection.send(GET) for _ in range(100)]
    assert ids == list(range(1, 200, 2))
    assert (connection.capacity, connection.usable, connection.open_streams) == (0, True, 100)
    with pytest.raises(RuntimeError, match="cannot carry another request"):
        connection.send(GET)
    assert connection.open_streams == 100  # nothing has changed


def test_it_is_settled_once_the_settings_have_come() -> None:
    connection = Http2Connection()
    connection.receive(GREETING[:-1])
    assert not connection.settled
    connection.receive(GREETING[-1:])
    assert connection.settled


def test_the_settings_say_how_many() -> None:
    connection = asked(GET, GET, GET)
    assert connection.capacity == MAX_STREAMS - 3
    for allowed, capacity in [(5, 2), (3, 0), (1, 0), (0, 0), (10, 7), (100_000, MAX_STREAMS - 3)]:
        connection.receive(set_to(max_concurrent_streams=allowed))
        assert connection.capacity == capacity
        assert connection.usable
    assert connection.open_streams == 3


def test_a_shrink_below_what_is_open_ends_nothing() -> None:
    wire, connection = Wire(), asked(GET, GET)
    connection.receive(set_to(max_concurrent_streams=1))
    connection.receive(wire.head(1, end=True))
    assert (connection.capacity, connection.open_streams) == (0, 1)
    connection.receive(wire.head(3, end=True))
    assert (connection.capacity, connection.open_streams) == (1, 0)
    assert connection.send(GET) == 5


def test_a_stream_counts_until_it_is_over_not_until_it_is_taken() -> None:
    wire, connection = Wire(), asked(GET, GET, GET)
    connection.receive(wire.head(1, end=True))
    assert connection.open_streams == 2
    connection.reset(3)
    assert connection.open_streams == 1
    connection.receive(reset(5, CANCEL))
    assert connection.open_streams == 0
    for stream in (1, 5):
        connection.take(stream)
        connection.reset(stream)
    assert (connection.open_streams, connection.capacity) == (0, MAX_STREAMS)


def test_the_stream_ids_run_out() -> None:
    wire, connection = Wire(), asked()
    connection._next_id = LAST_ID - 4  # the third to last
    assert connection.capacity == 3
    assert [connection.send(GET) for _ in range(3)] == [LAST_ID - 4, LAST_ID - 2, LAST_ID]
    assert (connection.capacity, connection.usable, connection.open_streams) == (0, False, 3)
    with pytest.raises(RuntimeError):
        connection.send(GET)
    assert connection.receive(wire.head(LAST_ID, end=True)) == [LAST_ID]
    assert joined(connection.take(LAST_ID)) == (200, b"", "end")
    assert not connection.usable


# ---- what is received -------------------------------------------------------------------------------------------------

LONG = ("content-length", "5")

RESPONSES: list[tuple[HttpRequest, Callable[[Wire], bytes], int | None, bytes, str | None, int | None]] = [
    # request, response, status, body, how it ended, with which code it is reset
    (POST, lambda w: w.head(1, end=True), 200, b"", "end", None),
    (POST, lambda w: w.head(1) + data(1, b"hello", end=True), 200, b"hello", "end", None),
    (POST, lambda w: w.head(1) + data(1, b"hel") + data(1, b"lo") + data(1, end=True), 200, b"hello", "end", None),
    (POST, lambda w: w.head(1, LONG) + data(1, b"hel") + data(1, b"lo", end=True), 200, b"hello", "end", None),
    (POST, lambda w: w.head(1, LONG, LONG) + data(1, b"hello", end=True), 200, b"hello", "end", None),
    (POST, lambda w: w.head(1) + data(1, b"hello", padding=9) + data(1, padding=255, end=True), 200, b"hello", "end", None),
    (POST, lambda w: w.head(1) + data(1, b"hello", padding=0, end=True), 200, b"hello", "end", None),
    (POST, lambda w: w.head(1) + data(1, b"hello") + w.trailers(1, ("x-a", "b")), 200, b"hello", "end", None),
    (POST, lambda w: w.head(1, LONG) + data(1, b"hello") + w.trailers(1), 200, b"hello", "end", None),
    (POST, lambda w: w.head(1, status="103") + w.head(1, status="100") + w.head(1, end=True), 200, b"", "end", None),
    (POST, lambda w: w.head(1, status="204", end=True), 204, b"", "end", None),
    (POST, lambda w: w.head(1, LONG, status="304", end=True), 304, b"", "end", None),
    (POST, lambda w: w.head(1, status="503") + data(1, b"no", end=True), 503, b"no", "end", None),
    (POST, lambda w: w.head(1, status="999", end=True), 999, b"", "end", None),
    (HEAD, lambda w: w.head(1, LONG, end=True), 200, b"", "end", None),
    (POST, lambda w: w.head(1) + data(1, b"hel"), 200, b"hel", None, None),
    (POST, lambda w: w.head(1, status="100"), None, b"", None, None),
    (POST, lambda w: b"", None, b"", None, None),
    # Malformed: of this stream only (RFC 9113, 8.1.1). There is nothing to reset once h2 has seen both sides end.
    (POST, lambda w: w.head(1, LONG) + data(1, b"hell", end=True), 200, b"hell", "protocol_error", PROTOCOL_ERROR),
    (POST, lambda w: w.head(1, LONG) + data(1, b"hel") + data(1, b"lo!"), 200, b"hel", "protocol_error", PROTOCOL_ERROR),
    (POST, lambda w: w.head(1, LONG) + data(1, b"hel") + w.trailers(1), 200, b"hel", "protocol_error", None),
    (GET, lambda w: w.head(1, LONG, end=True), 200, b"", "protocol_error", None),
    (HEAD, lambda w: w.head(1, LONG) + data(1, b"hello", end=True), 200, b"", "protocol_error", PROTOCOL_ERROR),
    (POST, lambda w: w.head(1, status="204") + data(1, b"hello", end=True), 204, b"", "protocol_error", PROTOCOL_ERROR),
    (POST, lambda w: data(1, b"hello"), None, b"", "protocol_error", PROTOCOL_ERROR),
    (POST, lambda w: w.head(1, status="100") + data(1, b"hello"), None, b"", "protocol_error", PROTOCOL_ERROR),
    (POST, lambda w: w.head(1, status="99"), None, b"", "protocol_error", PROTOCOL_ERROR),
    (POST, lambda w: w.head(1, status="099"), None, b"", "protocol_error", PROTOCOL_ERROR),
    (POST, lambda w: w.head(1, status="2000"), None, b"", "protocol_error", PROTOCOL_ERROR),
    (POST, lambda w: w.head(1, status="OK"), None, b"", "protocol_error", PROTOCOL_ERROR),
    (POST, lambda w: w.head(1, status=""), None, b"", "protocol_error", PROTOCOL_ERROR),
    (POST, lambda w: w.fields(1, []), None, b"", "protocol_error", PROTOCOL_ERROR),
    (POST, lambda w: w.fields(1, [("x-a", "b")]), None, b"", "protocol_error", PROTOCOL_ERROR),
    (POST, lambda w: w.fields(1, [("x-a", "b"), (":status", "200")]), None, b"", "protocol_error", PROTOCOL_ERROR),
    (POST, lambda w: w.head(1, (":status", "200")), None, b"", "protocol_error", PROTOCOL_ERROR),
    (POST, lambda w: w.head(1, (":path", "/")), None, b"", "protocol_error", PROTOCOL_ERROR),
    (POST, lambda w: w.head(1, ("X-A", "b")), None, b"", "protocol_error", PROTOCOL_ERROR),
    (POST, lambda w: w.head(1, ("x a", "b")), None, b"", "protocol_error", PROTOCOL_ERROR),
    (POST, lambda w: w.head(1, ("", "b")), None, b"", "protocol_error", PROTOCOL_ERROR),
    (POST, lambda w: w.head(1, ("x-\xe9", "b")), None, b"", "protocol_error", PROTOCOL_ERROR),
    (POST, lambda w: w.head(1, ("x-a", "b\r\nc")), None, b"", "protocol_error", PROTOCOL_ERROR),
    (POST, lambda w: w.head(1, ("x-a", "b\x00c")), None, b"", "protocol_error", PROTOCOL_ERROR),
    (POST, lambda w: w.head(1, ("x-a", " b")), None, b"", "protocol_error", PROTOCOL_ERROR),
    (POST, lambda w: w.head(1, ("x-a", "b\t")), None, b"", "protocol_error", PROTOCOL_ERROR),
    (POST, lambda w: w.head(1, ("connection", "close")), None, b"", "protocol_error", PROTOCOL_ERROR),
    (POST, lambda w: w.head(1, ("transfer-encoding", "chunked")), None, b"", "protocol_error", PROTOCOL_ERROR),
    (POST, lambda w: w.head(1, ("upgrade", "h2c"), end=True), None, b"", "protocol_error", None),
    (POST, lambda w: w.head(1) + w.trailers(1, (":status", "200")), 200, b"", "protocol_error", None),
    (POST, lambda w: w.head(1) + w.trailers(1, ("x-a", "\n")), 200, b"", "protocol_error", None),
    # A coding that was not asked for: the status is still worth something.
    (POST, lambda w: w.head(1, ("content-encoding", "gzip")) + data(1, b"x", end=True), 200, b"", "protocol_error", CANCEL),
    (POST, lambda w: w.head(1, ("content-encoding", "br"), status="429"), 429, b"", "protocol_error", CANCEL),
    (POST, lambda w: w.head(1, ("content-encoding", "Identity"), end=True), 200, b"", "end", None),
]  # fmt: skip


@pytest.mark.parametrize(("request_", "response", "status", "body_", "end", "code"), RESPONSES)
def test_a_response(
    request_: HttpRequest,
    response: Callable[[Wire], bytes],
    status: int | None,
    body_: bytes,
    end: str | None,
    code: int | None,
) -> None:
    for step in (10**6, 1):
        wire, connection = Wire(), asked(request_, POST)
        events: list[HttpEvent] = []
        for piece in pieces_of(response(wire), step):
            if connection.receive(piece):
                events += connection.take(1)
        assert joined(events) == (status, body_, end)
        out = written(connection)
        assert (resets(out), farewells(out)) == ([] if code is None else [(1, code)], [])
        connection.receive(wire.head(3, end=True))  # whatever became of one, the other goes on
        assert joined(connection.take(3)) == (200, b"", "end")
        assert connection.usable
        connection.receive(b"")
        assert joined(connection.take(1)) == (None, b"", None if end else "network_error")


def test_events_come_as_soon_as_their_bytes_do() -> None:
    wire, connection = Wire(), asked(GET, GET)
    head = wire.head(3, ("x-a", "B\xe9"), ("x-a", "2"), ("set-cookie", "a"), ("set-cookie", "b"))
    assert connection.receive(head[:-1]) == []
    assert connection.receive(head[-1:]) == [3]
    fields: Headers = (("x-a", "B\xe9"), ("x-a", "2"), ("set-cookie", "a"), ("set-cookie", "b"))
    assert connection.take(3) == [ResponseHead(200, fields)]
    assert connection.take(3) == []
    assert connection.receive(data(3, b"he")[:-1]) == []  # a frame comes whole
    assert connection.receive(data(3, b"he")[-1:] + data(3) + data(3, b"l")) == [3]
    assert connection.receive(data(3, b"l") + wire.head(1) + data(3, b"o", end=True)) == [3, 1]
    assert connection.take(3) == [b"hello", END]
    assert connection.take(1) == [ResponseHead(200)]


def test_what_is_not_asked_for_is_no_news() -> None:
    connection = asked(GET)
    quiet = [
        set_to(),
        SettingsFrame(flags=["ACK"]).serialize(),
        PingFrame(opaque_data=b"12345678").serialize(),
        PingFrame(opaque_data=b"12345678", flags=["ACK"]).serialize(),
        PriorityFrame(1, depends_on=0, stream_weight=5).serialize(),
        window(0, 1),
        window(1, 1),
        raw(0x42, 0, 1, b"hello"),
        raw(0x42, 0, 2, b"hello"),
        raw(0x0A, 0, 0, b"\xff"),  # ALTSVC, broken
        Wire().head(1, status="100"),
    ]
    for frame in quiet:
        assert connection.receive(frame) == []
        assert connection.take(1) == []
    assert connection.usable


def test_the_reserved_bit_of_a_stream_id_is_ignored() -> None:
    connection, reserved = asked(GET), 2**31
    connection.receive(raw(1, 0x4, 1 | reserved, b"\x88") + raw(0, 0, 1 | reserved, b"hello") + raw(0, 0x1, 1, b""))
    assert joined(connection.take(1)) == (200, b"hello", "end")


def test_a_ping_is_answered() -> None:
    connection = asked()
    connection.receive(PingFrame(opaque_data=b"12345678").serialize())
    (answer,) = frames(connection.outgoing())
    assert isinstance(answer, PingFrame)
    assert ("ACK" in answer.flags, answer.opaque_data) == (True, b"12345678")


def test_settings_are_acknowledged() -> None:
    connection = Http2Connection()
    connection.outgoing()
    connection.receive(set_to(max_concurrent_streams=5))
    (answer,) = frames(connection.outgoing())
    assert isinstance(answer, SettingsFrame)
    assert "ACK" in answer.flags


def test_an_unknown_stream_has_no_news() -> None:
    connection = Http2Connection()
    for stream in (-1, 0, 1, 2, 99):
        assert connection.take(stream) == []
        connection.reset(stream)
    assert connection.usable


def test_a_stream_is_forgotten_with_its_last_event() -> None:
    connection = asked(GET)
    connection.receive(Wire().head(1, end=True))
    assert joined(connection.take(1)) == (200, b"", "end")
    assert connection.take(1) == []
    connection.reset(1)
    assert written(connection) == b""


# ---- without h2 -------------------------------------------------------------------------------------------------------


def test_without_h2_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h2.settings", None)
    with pytest.raises(ImportError, match=r'pip install "inference-remote-core\[http2\]"'):
        Http2Connection()


def test_h2_is_imported_with_the_first_connection() -> None:
    code = (
        "import sys, sansio; early = 'h2' in sys.modules; sansio.Http2Connection(); assert not early and 'h2' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)})
