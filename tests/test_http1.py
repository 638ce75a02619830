"""The HTTP/1.1 machine: bytes of a request out, bytes of a response in, and what each end of a connection means."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sansio.errors import ForeignError, InferenceError, NetworkError, ProtocolError
from sansio.http import END, Headers, HttpEvent, HttpRequest, ResponseHead
from sansio.http1 import MAX_HEAD_BYTES, Http1Connection

POST = HttpRequest("POST", "http://h/v1/chat", (("content-type", "application/json"),), b"{}")
OK = b"HTTP/1.1 200 OK\r\n"


def asked(request: HttpRequest = POST) -> Http1Connection:
    """A connection over which a request went."""
    connection = Http1Connection()
    connection.send(request)
    return connection


def receive(connection: Http1Connection, pieces: Iterable[bytes]) -> list[HttpEvent]:
    return [event for piece in pieces for event in connection.receive(piece)]


def joined(events: list[HttpEvent]) -> tuple[int | None, bytes, object]:
    """Status, whole body, and how it ended: ``"end"``, the kind of the error, or ``None`` while it goes on."""
    heads = [event for event in events if isinstance(event, ResponseHead)]
    assert len(heads) <= 1
    assert not heads or events[0] is heads[0]
    ends = [event for event in events if event is END or isinstance(event, InferenceError)]
    assert len(ends) <= 1
    assert not ends or events[-1] is ends[0]
    end = None if not ends else ends[0].kind if isinstance(ends[0], InferenceError) else "end"
    return (heads[0].status if heads else None), b"".join(e for e in events if isinstance(e, bytes)), end


# ---- what is sent -----------------------------------------------------------------------------------------------------


def test_a_request_on_the_wire() -> None:
    assert Http1Connection().send(POST) == (
        b"POST /v1/chat HTTP/1.1\r\n"
        b"host: h\r\n"
        b"content-type: application/json\r\n"
        b"accept-encoding: identity\r\n"
        b"content-length: 2\r\n"
        b"\r\n"
        b"{}"
    )


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://h/", b"h"),
        ("http://h:80/", b"h"),
        ("http://h:8080/", b"h:8080"),
        ("http://h:443/", b"h:443"),
        ("https://h/", b"h"),
        ("https://h:443/", b"h"),
        ("https://h:80/", b"h:80"),
        ("https://H.Example/", b"h.example"),
        ("http://[::1]/", b"[::1]"),
        ("http://[::1]:8080/", b"[::1]:8080"),
        ("http://127.0.0.1:1/", b"127.0.0.1:1"),
    ],
)
def test_the_host_and_a_port_that_is_not_the_default_one(url: str, host: bytes) -> None:
    sent = Http1Connection().send(HttpRequest("GET", url))
    assert sent.split(b"\r\n")[1].lower() == b"host: " + host


@pytest.mark.parametrize(
    ("method", "body", "length"),
    [
        ("GET", b"", None),
        ("HEAD", b"", None),
        ("DELETE", b"", None),
        ("POST", b"", b"0"),
        ("PUT", b"", b"0"),
        ("PATCH", b"", b"0"),
        ("POST", "Grüß".encode(), b"6"),
        ("GET", b"x", b"1"),
        ("POST", b"x" * 100_000, b"100000"),
    ],
)
def test_the_content_length_is_that_of_the_body(method: str, body: bytes, length: bytes | None) -> None:
    head, _, sent = Http1Connection().send(HttpRequest(method, "http://h/", (), body)).partition(b"\r\n\r\n")
    lengths = [line.split(b": ")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
    assert (lengths, sent) == ([] if length is None else [length], body)


@pytest.mark.parametrize(
    "wrong", [("content-length", "999"), ("content-length", "x"), ("transfer-encoding", "chunked"), ("host", "elsewhere")]
)
def test_framing_and_host_are_written_here_whatever_the_request_says(wrong: tuple[str, str]) -> None:
    request = HttpRequest("POST", "http://h/", (wrong,), b"{}")
    assert Http1Connection().send(request) == Http1Connection().send(HttpRequest("POST", "http://h/", (), b"{}"))


def test_a_value_goes_out_as_the_bytes_it_stands_for() -> None:
    sent = Http1Connection().send(HttpRequest("GET", "http://h/", (("x-a", " \tB\xe9 \t"), ("x-b", "\t"))))
    assert b"\r\nx-a: B\xe9\r\nx-b: \r\n" in sent


def test_a_coding_asked_for_is_left_to_whoever_asks() -> None:
    sent = Http1Connection().send(HttpRequest("GET", "http://h/", (("accept-encoding", "gzip"),)))
    assert sent.lower().count(b"accept-encoding") == 1


@pytest.mark.parametrize("where", ["name", "value", "url", "method"])
@pytest.mark.parametrize("injected", ["\r\nx-evil: 1", "\nx-evil: 1", "\r", "\x00"])
def test_nothing_can_be_injected_into_a_head(where: str, injected: str) -> None:
    parts = {"name": "x-a", "value": "b", "url": "http://h/", "method": "GET"}
    parts[where] += injected
    with pytest.raises(ValueError, match=r"^(headers|url|method): "):
        HttpRequest(parts["method"], parts["url"], ((parts["name"], parts["value"]),))


@given(
    st.sampled_from(["GET", "POST", "PUT", "DELETE"]),
    st.text("abc/%20?=&", max_size=12),
    st.dictionaries(st.text("abcx-", min_size=1, max_size=6), st.text(max_size=12), max_size=4),
    st.binary(max_size=60),
)
@settings(max_examples=150, deadline=None)
def test_a_server_reads_what_was_asked(method: str, path: str, fields: dict[str, str], body: bytes) -> None:
    try:
        request = HttpRequest(method, f"http://h/{path}", tuple(fields.items()), body)
    except ValueError:
        return  # refused before anything is sent
    server = h11.Connection(h11.SERVER)
    server.receive_data(Http1Connection().send(request))
    head = server.next_event()
    assert isinstance(head, h11.Request)
    assert (head.method.decode(), head.target.decode()) == (method, request.target)
    received = {name.decode(): value.decode("latin-1") for name, value in head.headers}
    assert {name: received[name] for name in fields} == {name: value.strip(" \t") for name, value in fields.items()}
    data = b""
    while isinstance(event := server.next_event(), h11.Data):
        data += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage)
    assert (data, server.trailing_data) == (body, (b"", False))


@given(
    st.sampled_from(["GET", "POST", "HEAD", "DELETE", "patch"]),
    st.text("abc/%20?=&#.:@", max_size=12),
    st.lists(st.tuples(st.text("abcx-_1", min_size=1, max_size=6), st.text(max_size=12)), max_size=4),
    st.binary(max_size=60),
    st.sampled_from(["http://h", "https://h:8443", "http://[::1]:80", "HTTP://A.b"]),
)
@settings(max_examples=200, deadline=None)
def test_what_is_written_is_what_h11_would_write(
    method: str, path: str, fields: list[tuple[str, str]], body: bytes, base: str
) -> None:
    try:
        request = HttpRequest(method, f"{base}/{path}", tuple(fields), body)
    except ValueError:
        return
    sent = Http1Connection().send(request)
    lines = sent.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    said = [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
    assert [name.decode() for name, _ in said][: len(fields) + 1] == ["host", *(name for name, _ in fields)]
    client = h11.Connection(h11.CLIENT)
    written = client.send(h11.Request(method=method, target=request.target, headers=said)) or b""
    written += (client.send(h11.Data(body)) or b"") if body else b""
    assert sent == written + (client.send(h11.EndOfMessage()) or b"")


@given(
    st.lists(
        st.sampled_from(["\r", "\n", "\r\n", "\0", " ", "\t", ":", "a", "\x85", "\u2028", "\u010a", "\xff"]), max_size=6
    )
)
@settings(max_examples=200, deadline=None)
def test_one_request_is_never_two(bits: list[str]) -> None:
    evil = "".join(bits)
    for parts in (
        ("P" + evil, "/", "x-a", "1"),
        ("POST", evil, "x-a", "1"),
        ("POST", "/", "x" + evil, "1"),
        ("POST", "/", "x-a", evil),
    ):
        method, path, name, value = parts
        try:
            request = HttpRequest(method, f"http://h/{path}", ((name, value), ("connection", "keep-alive")), b"{}")
        except ValueError:
            continue
        server = h11.Connection(h11.SERVER)
        server.receive_data(Http1Connection().send(request))
        head, data, end = server.next_event(), server.next_event(), server.next_event()
        assert isinstance(head, h11.Request)
        assert [name for name, _ in head.headers] == [
            b"host",
            name.encode(),
            b"connection",
            b"accept-encoding",
            b"content-length",
        ]
        assert isinstance(data, h11.Data)
        assert (bytes(data.data), isinstance(end, h11.EndOfMessage), server.trailing_data) == (b"{}", True, (b"", False))


def test_a_tunnel_is_not_asked_for() -> None:
    connection = Http1Connection()
    with pytest.raises(ValueError, match=r"^method: CONNECT"):
        connection.send(HttpRequest("CONNECT", "http://h/"))
    assert (connection.reusable, connection.ended) == (True, True)  # nothing has changed


# ---- what is received: every framing, however it is cut ---------------------------------------------------------------

LENGTH = OK + b"Content-Length: 5\r\nContent-Type: text/plain\r\n\r\nhello"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;ext=1\r\nllo\r\n0\r\nX-Trailer: 1\r\n\r\n"
UNTIL_CLOSE = OK + b"\r\nhello"
HEAD = HttpRequest("HEAD", "http://h/")

FRAMINGS = [
    # request, response, does the connection end after it, status, body, how it ended, is the connection fit for more
    (POST, LENGTH, False, 200, b"hello", "end", True),
    (POST, CHUNKED, False, 200, b"hello", "end", True),
    (POST, UNTIL_CLOSE, True, 200, b"hello", "end", False),
    (POST, OK + b"\r\n", True, 200, b"", "end", False),
    (POST, b"HTTP/1.0 200 OK\r\n\r\nhello", True, 200, b"hello", "end", False),
    (POST, b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", False, 200, b"hello", "end", False),
    (POST, OK + b"Content-Length: 0\r\n\r\n", False, 200, b"", "end", True),
    (POST, OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", False, 200, b"", "end", True),
    (POST, b"HTTP/1.1 204 No Content\r\n\r\n", False, 204, b"", "end", True),
    (POST, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", False, 304, b"", "end", True),
    (HEAD, OK + b"Content-Length: 5\r\n\r\n", False, 200, b"", "end", True),
    (POST, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + LENGTH, False, 200, b"hello", "end",
     True),
    (POST, LENGTH.replace(b"Content-Type: text/plain", b"Connection: close"), False, 200, b"hello", "end", False),
    (POST, b"HTTP/1.1 503 \r\nContent-Length: 2\r\n\r\nno", False, 503, b"no", "end", True),
    (POST, b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", False, 200, b"", "end", True),
    # Too early an end.
    (POST, b"", True, None, b"", "network_error", False),
    (POST, b"HTTP/1.1 20", True, None, b"", "network_error", False),
    (POST, b"HTTP/1.1 100 Continue\r\n\r\n", True, None, b"", "network_error", False),
    (POST, LENGTH[:-2], True, 200, b"hel", "network_error", False),
    (POST, CHUNKED[:-4], True, 200, b"hello", "network_error", False),
    (POST, OK + b"Transfer-Encoding: chunked\r\n\r\n9\r\nhel", True, 200, b"hel", "network_error", False),
    # Not HTTP: what came before the damage is kept.
    (POST, b"garbage\r\n\r\n", False, None, b"", "protocol_error", False),
    (POST, b"\x16\x03\x01\x02\x00\x01\r\n\r\n", False, None, b"", "protocol_error", False),
    (POST, b"HTTP/1.1 999999 x\r\n\r\n", False, None, b"", "protocol_error", False),
    (POST, b"HTTP/1.1 101 Switching Protocols\r\n\r\n", False, None, b"", "protocol_error", False),
    (POST, OK + b"no colon\r\n\r\n", False, None, b"", "protocol_error", False),
    (POST, OK + b"Content-Length: -1\r\n\r\n", False, None, b"", "protocol_error", False),
    (POST, OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", False, None, b"", "protocol_error", False),
    (POST, OK + b"Transfer-Encoding: gzip\r\n\r\n", False, None, b"", "protocol_error", False),
    (POST, OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\nnot a size\r\n", False, 200, b"he", "protocol_error", False),
    # A coding that was not asked for: the status is still worth something.
    (POST, OK + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello", False, 200, b"", "protocol_error", False),
    (POST, OK + b"Content-Encoding: identity, br\r\n\r\n", False, 200, b"", "protocol_error", False),
    (POST, OK + b"Content-Encoding: identity\r\nContent-Encoding: GZIP\r\n\r\n", False, 200, b"", "protocol_error", False),
    (POST, b"HTTP/1.1 429 x\r\nContent-Encoding: zstd\r\n\r\nx", False, 429, b"", "protocol_error", False),
    (POST, LENGTH.replace(b"Content-Type: text/plain", b"Content-Encoding: Identity"), False, 200, b"hello", "end", True),
    (POST, LENGTH.replace(b"Content-Type: text/plain", b"Content-Encoding:"), False, 200, b"hello", "end", True),
]  # fmt: skip


@pytest.mark.parametrize(("request_", "response", "closes", "status", "body", "end", "fit"), FRAMINGS)
def test_a_response(
    request_: HttpRequest, response: bytes, closes: bool, status: int | None, body: bytes, end: str, fit: bool
) -> None:
    for pieces in ([response], [response[i : i + 1] for i in range(len(response))]):
        connection = asked(request_)
        events = receive(connection, [piece for piece in pieces if piece] + [b""] * closes)
        assert joined(events) == (status, body, end)
        assert (connection.ended, connection.reusable) == (True, fit)


@given(st.sampled_from(FRAMINGS), st.lists(st.integers(0, 120), max_size=8))
@settings(max_examples=200, deadline=None)
def test_every_split_gives_the_same(
    case: tuple[HttpRequest, bytes, bool, int | None, bytes, str, bool], cuts: list[int]
) -> None:
    request, response, closes, status, body, end, fit = case
    edges = [0, *sorted(min(cut, len(response)) for cut in cuts), len(response)]
    pieces = [response[a:b] for a, b in pairwise(edges) if a < b]
    connection = asked(request)
    assert joined(receive(connection, pieces + [b""] * closes)) == (status, body, end)
    assert connection.reusable is fit


@given(st.binary(max_size=80), st.binary(max_size=40), st.sampled_from([b"", OK, OK + b"\r\n", LENGTH[:-3], CHUNKED[:60]]))
@settings(max_examples=200, deadline=None)
def test_no_bytes_raise(data: bytes, more: bytes, opening: bytes) -> None:
    connection = asked()
    events = receive(connection, [piece for piece in (opening, data, more) if piece] + [b""])
    joined(events)  # a head first, one end last
    assert connection.ended
    assert connection.receive(data) == connection.receive(b"") == []


def test_events_come_as_soon_as_their_bytes_do() -> None:
    connection = asked()
    assert connection.receive(b"HTTP/1.1 200 OK\r\nX-A") == []
    assert connection.receive(b": B\xe9\r\nContent-Length: 6\r\n\r\nhe") == [
        ResponseHead(200, (("x-a", "B\xe9"), ("content-length", "6"))),
        b"he",
    ]
    assert connection.receive(b"l") == [b"l"]
    assert not connection.ended
    assert connection.receive(b"lo!") == [b"lo!", END]
    assert connection.ended


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_of_any_kind_are_taken_and_not_kept(kind: type[bytes] | type[bytearray] | type[memoryview]) -> None:
    buffer = bytearray(LENGTH[:-2])
    connection = asked()
    head, body = connection.receive(kind(buffer))
    buffer[:] = bytes(len(buffer))
    assert (isinstance(head, ResponseHead), body, type(body)) == (True, b"hel", bytes)
    assert connection.receive(kind(b"lo")) == [b"lo", END]
    assert connection.receive(kind(b"")) == []
    assert not connection.reusable


def test_the_pieces_of_one_call_are_one() -> None:
    head, *rest = asked().receive(CHUNKED)
    assert isinstance(head, ResponseHead)
    assert rest == [b"hello", END]


def test_what_was_read_before_a_loss_is_kept() -> None:
    head, body, error = asked().receive(OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\nzz\r\n")
    assert (isinstance(head, ResponseHead), body, isinstance(error, ProtocolError)) == (True, b"he", True)


def test_a_loss_has_its_cause_and_may_be_tried_again() -> None:
    (error,) = asked().receive(b"")
    assert isinstance(error, NetworkError)
    assert error.retryable
    assert isinstance(error.cause, ForeignError)
    assert error.cause.type_name == "RemoteProtocolError"
    (error,) = asked().receive(b"garbage\r\n\r\n")
    assert isinstance(error, ProtocolError)
    assert error.retryable  # garbled on the way, perhaps
    assert isinstance(error.cause, ForeignError)
    assert error.cause.type_name == "RemoteProtocolError"
    assert error.message.startswith("not HTTP/1.1: ")


def test_what_is_quoted_of_a_malformed_head_holds_no_credential() -> None:
    (error,) = asked().receive(b"HTTP/1.1 200 OK\r\nauthorization\x01: Bearer sk-abcdefghijklmnop\r\n\r\n")
    assert isinstance(error, ProtocolError)
    assert "sk-abc" not in f"{error} {error.to_dict()} {error.cause!r}"


def test_a_coding_is_named_and_not_tried_again() -> None:
    _, error = asked().receive(OK + b"Content-Encoding: " + b"X" * 500 + b"\r\n\r\n")
    assert isinstance(error, ProtocolError)
    assert "'" + "x" * 40 + "'" in error.message
    assert not error.retryable


# ---- bounds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("piece_bytes", [1000, 65_536, 10_000_000])
@pytest.mark.parametrize("line", [b"x-a: " + b"y" * 200_000, b"x-a: y\r\n" * 20_000])
def test_a_head_past_its_bound_is_refused_for_good(piece_bytes: int, line: bytes) -> None:
    response = OK + line + b"\r\n\r\n"
    connection = asked()
    events = receive(connection, [response[i : i + piece_bytes] for i in range(0, len(response), piece_bytes)])
    (error,) = events
    assert isinstance(error, ProtocolError)
    assert str(MAX_HEAD_BYTES) in error.message
    assert not error.retryable
    assert not connection.reusable


@pytest.mark.parametrize("piece_bytes", [1000, 10_000_000])
def test_a_head_below_its_bound_is_taken(piece_bytes: int) -> None:
    response = OK + b"x-a: " + b"y" * (MAX_HEAD_BYTES - 200) + b"\r\nContent-Length: 0\r\n\r\n"
    events = receive(asked(), [response[i : i + piece_bytes] for i in range(0, len(response), piece_bytes)])
    assert joined(events) == (200, b"", "end")


def test_a_head_that_never_ends_is_given_up_while_it_comes() -> None:
    connection = asked()
    received = 0
    while not connection.ended:
        connection.receive(b"x" * 1000)
        received += 1000
    assert received <= MAX_HEAD_BYTES + 1000


def test_a_line_of_chunked_framing_is_bounded_too() -> None:
    connection = asked()
    connection.receive(OK + b"Transfer-Encoding: chunked\r\n\r\n")
    (error,) = receive(connection, [b"1;" + b"x" * 1000, *[b"x" * 1000] * 100])
    assert isinstance(error, ProtocolError)
    assert not error.retryable


# ---- using a connection again -----------------------------------------------------------------------------------------


def test_a_new_connection_is_fit() -> None:
    connection = Http1Connection()
    assert (connection.reusable, connection.ended) == (True, True)


@pytest.mark.parametrize("response", [LENGTH, CHUNKED])
def test_one_exchange_after_another(response: bytes) -> None:
    connection = Http1Connection()
    for _ in range(3):
        assert connection.reusable
        first = connection.send(POST)
        assert first.endswith(b"\r\n\r\n{}")
        assert (connection.reusable, connection.ended) == (False, False)
        assert joined(connection.receive(response)) == (200, b"hello", "end")


def test_a_connection_in_use_cannot_be_used() -> None:
    connection = asked()
    with pytest.raises(RuntimeError, match="cannot carry another request"):
        connection.send(POST)
    assert joined(connection.receive(LENGTH)) == (200, b"hello", "end")  # nothing has changed


@pytest.mark.parametrize("unasked", [b"HTTP/1.1 408 Request Timeout\r\n\r\n", b"x", b""])
@pytest.mark.parametrize("used", [True, False])
def test_what_nobody_asked_for_makes_it_unfit(unasked: bytes, used: bool) -> None:
    connection = Http1Connection()
    if used:
        connection.send(POST)
        connection.receive(LENGTH)
    assert connection.receive(unasked) == []
    assert not connection.reusable
    with pytest.raises(RuntimeError):
        connection.send(POST)


@pytest.mark.parametrize("left_over", [b"x", b"\r\n", LENGTH])
def test_bytes_behind_a_response_make_it_unfit(left_over: bytes) -> None:
    connection = asked()
    assert joined(connection.receive(LENGTH + left_over)) == (200, b"hello", "end")
    assert not connection.reusable


@pytest.mark.parametrize("options", ["close", "Close", "x , CLOSE"])
def test_a_request_that_says_close_is_the_last(options: str) -> None:
    connection = asked(HttpRequest("POST", "http://h/", (("connection", options),)))
    connection.receive(LENGTH)
    assert not connection.reusable


def test_the_tail_of_a_response_may_come_when_its_caller_has_gone() -> None:
    connection = asked()
    connection.receive(CHUNKED[:-10])
    assert (connection.ended, connection.reusable) == (False, False)
    connection.receive(CHUNKED[-10:])
    assert (connection.ended, connection.reusable) == (True, True)


def test_headers_are_lower_case_pairs_in_order() -> None:
    head = asked().receive(OK + b"B: 1\r\nA: 2\r\nB: 3\r\n\r\n")[0]
    assert isinstance(head, ResponseHead)
    expected: Headers = (("b", "1"), ("a", "2"), ("b", "3"))
    assert head.headers == expected
