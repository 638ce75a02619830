"""The reader of HTTP/1.1 responses, byte by byte: every legal framing and every malformed one, however they are cut."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sansio.errors import ForeignError, InferenceError, NetworkError, ProtocolError
from sansio.http import END, Headers, HttpEvent, ResponseHead
from sansio.http1_reader import MAX_FIELDS, MAX_HEAD_BYTES, MAX_INFORMATIONAL, MAX_SIZE_LINE_BYTES, ResponseReader

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a response, however many events told it."""

    status: int | None
    headers: Headers | None
    body: bytes
    end: str  # "end", the kind of the error, or "open"
    retryable: bool | None
    reusable: bool


def read(pieces: Iterable[bytes], *, closes: bool = False, method: str = "POST") -> tuple[Outcome, str]:
    """The outcome, and the words of the error."""
    reader = ResponseReader(method)
    head: ResponseHead | None = None
    body = b""
    end: HttpEvent | None = None
    for piece in [*filter(None, pieces), *([b""] if closes else [])]:
        if reader.ended:
            reader.reusable &= piece == b""  # whoever owns the connection minds what comes when nothing is asked
            continue
        events = reader.receive(piece)
        if events and isinstance(first := events[0], ResponseHead):
            assert head is None
            head = first
            del events[0]
        if events and isinstance(more := events[0], bytes):
            assert head is not None
            assert more
            body += more
            del events[0]
        if events:
            (end,) = events
        assert reader.ended is (end is not None)
    failed = end if isinstance(end, InferenceError) else None
    kind = failed.kind if failed else "end" if end is END else "open"
    status, headers = (head.status, head.headers) if head else (None, None)
    reusable = reader.ended and reader.reusable
    return Outcome(status, headers, body, kind, failed.retryable if failed else None, reusable), str(failed)


def cuts(response: bytes) -> Iterator[list[bytes]]:
    """Whole, byte by byte, and in every two pieces."""
    yield [response]
    yield [response[i : i + 1] for i in range(len(response))]
    for at in range(1, len(response)):
        yield [response[:at], response[at:]]


def fields(outcome: Outcome) -> Headers:
    assert outcome.headers is not None
    return outcome.headers


# ---- every legal framing ----------------------------------------------------------------------------------------------

KEEP, CLOSE = True, False  # whether the connection is fit for another request
LEGAL: dict[str, tuple[str, bytes, bool, int, bytes, bool]] = {
    # method, response, does the connection end after it, status, body, fit
    "a length": ("POST", OK + b"Content-Length: 5\r\n\r\nhello", False, 200, b"hello", KEEP),
    "a length of 0": ("POST", OK + b"Content-Length: 0\r\n\r\n", False, 200, b"", KEEP),
    "a length with zeros in front": ("POST", OK + b"Content-Length: 005\r\n\r\nhello", False, 200, b"hello", KEEP),
    "a body that looks like a head": (
        "POST", OK + b"Content-Length: 12\r\n\r\n\r\n\r\nHTTP/1.1", False, 200, b"\r\n\r\nHTTP/1.1", KEEP,
    ),
    "chunks": ("POST", CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", False, 200, b"hello", KEEP),
    "chunks that hold line ends": (
        "POST", CHUNKED + b"4\r\n\r\n\r\n\r\n3\r\n0\r\n\r\n0\r\n\r\n", False, 200, b"\r\n\r\n0\r\n", KEEP,
    ),
    "no chunks": ("POST", CHUNKED + b"0\r\n\r\n", False, 200, b"", KEEP),
    "many zeros": ("POST", CHUNKED + b"0000000000000001\r\nx\r\n0000000000000000\r\n\r\n", False, 200, b"x", KEEP),
    "sizes in either case": (
        "POST", CHUNKED + b"a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n", False, 200, b"01234567890123456789a", KEEP,
    ),
    "extensions": ("POST", CHUNKED + b'2;a\r\nhe\r\n3;b=1;c="\t\xe9 x"\r\nllo\r\n0;d\r\n\r\n', False, 200, b"hello", KEEP),
    "an empty extension": ("POST", CHUNKED + b"2;\r\nhe\r\n0;;\r\n\r\n", False, 200, b"he", KEEP),
    "trailers": ("POST", CHUNKED + b"2\r\nhe\r\n0\r\nX-A: 1\r\nX-B:\r\n\r\n", False, 200, b"he", KEEP),
    "trailers that say close": ("POST", CHUNKED + b"0\r\nConnection: close\r\n\r\n", False, 200, b"", KEEP),
    "extensions and trailers": ("POST", CHUNKED + b"2;a\r\nhe\r\n0;b\r\nX-A: 1\r\n\r\n", False, 200, b"he", KEEP),
    "chunked in any case": (
        "POST", OK + b"transfer-ENCODING:\tChunKed \r\n\r\n2\r\nhe\r\n0\r\n\r\n", False, 200, b"he", KEEP,
    ),
    "until the end": ("POST", OK + b"\r\nhello\r\n\r\n", True, 200, b"hello\r\n\r\n", CLOSE),
    "until the end, which comes at once": ("POST", OK + b"\r\n", True, 200, b"", CLOSE),
    "HTTP/1.0 until the end": ("POST", b"HTTP/1.0 200 OK\r\n\r\nhello", True, 200, b"hello", CLOSE),
    "HTTP/1.0 with a length": ("POST", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhe", False, 200, b"he", CLOSE),
    "HTTP/1.0 that says keep-alive": (
        "POST", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhe", False, 200, b"he", CLOSE,
    ),
    "a later minor version": ("POST", b"HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nhe", False, 200, b"he", KEEP),
    "204": ("POST", b"HTTP/1.1 204 No Content\r\n\r\n", False, 204, b"", KEEP),
    "204 with a length of 0": ("POST", b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", False, 204, b"", KEEP),
    "204 that tells of a body": ("POST", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", False, 204, b"", CLOSE),
    "204 that tells of chunks": (
        "POST", b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", False, 204, b"", CLOSE,
    ),
    "304 with the length there would be": (
        "POST", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", False, 304, b"", KEEP,
    ),
    "304 with the chunks there would be": (
        "POST", b"HTTP/1.1 304 x\r\nTransfer-Encoding: chunked\r\n\r\n", False, 304, b"", KEEP,
    ),
    "HEAD with the length there would be": ("HEAD", OK + b"Content-Length: 5\r\n\r\n", False, 200, b"", KEEP),
    "HEAD with the chunks there would be": ("HEAD", CHUNKED, False, 200, b"", KEEP),
    "HEAD with neither": ("HEAD", OK + b"\r\n", False, 200, b"", KEEP),
    "205 has the body it tells of": ("POST", b"HTTP/1.1 205 x\r\nContent-Length: 2\r\n\r\nhe", False, 205, b"he", KEEP),
    "one informational response before": ("POST", CONTINUE + OK + b"Content-Length: 2\r\n\r\nhe", False, 200, b"he", KEEP),
    "several": (
        "POST", b"HTTP/1.1 102 x\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\nConnection: close\r\n\r\n" + CONTINUE
        + OK + b"Content-Length: 0\r\n\r\n", False, 200, b"", KEEP,
    ),
    "one that tells of a body, and has none": (
        "POST", b"HTTP/1.1 100 x\r\nContent-Length: 5\r\n\r\n"
        + OK + b"Content-Length: 2\r\n\r\nhe", False, 200, b"he", KEEP,
    ),
    "no reason": ("POST", b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", False, 200, b"", KEEP),
    "no reason, and no space before it": ("POST", b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", False, 200, b"", KEEP),
    "any reason": ("POST", b"HTTP/1.1 200 \t Gr\xfc\xdfe!  \r\nContent-Length: 0\r\n\r\n", False, 200, b"", KEEP),
    "an error": ("POST", b"HTTP/1.1 503 x\r\nContent-Length: 2\r\n\r\nno", False, 503, b"no", KEEP),
    "a status of no class": ("POST", b"HTTP/1.1 999 x\r\nContent-Length: 0\r\n\r\n", False, 999, b"", KEEP),
    "close": ("POST", OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nhe", False, 200, b"he", CLOSE),
    "close in any case": ("POST", OK + b"connection: CLOSE\r\nContent-Length: 2\r\n\r\nhe", False, 200, b"he", CLOSE),
    "close in a list": (
        "POST", OK + b"Connection: x ,\tClose\t, y\r\nContent-Length: 2\r\n\r\nhe", False, 200, b"he", CLOSE,
    ),
    "close in a second field": (
        "POST", OK + b"Connection: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", False, 200, b"", CLOSE,
    ),
    "close with chunks": (
        "POST", OK + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", False, 200, b"", CLOSE,
    ),
    "keep-alive": ("POST", OK + b"Connection: keep-alive, closed\r\nContent-Length: 0\r\n\r\n", False, 200, b"", KEEP),
    "a byte behind a length": ("POST", OK + b"Content-Length: 5\r\n\r\nhello!", False, 200, b"hello", CLOSE),
    "a byte behind no body": ("POST", OK + b"Content-Length: 0\r\n\r\n!", False, 200, b"", CLOSE),
    "a byte behind the trailers": ("POST", CHUNKED + b"0\r\nX-A: 1\r\n\r\n!", False, 200, b"", CLOSE),
    "a byte behind HEAD": ("HEAD", OK + b"Content-Length: 5\r\n\r\nh", False, 200, b"", CLOSE),
    "a line end behind chunks": ("POST", CHUNKED + b"2\r\nhe\r\n0\r\n\r\n\r\n", False, 200, b"he", CLOSE),
    "a response behind a response": ("POST", (OK + b"Content-Length: 0\r\n\r\n") * 2, False, 200, b"", CLOSE),
    "the coding asked for": (
        "POST", OK + b"Content-Encoding: , Identity\r\nContent-Length: 2\r\n\r\nhe", False, 200, b"he", KEEP,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("method", "response", "closes", "status", "body", "fit"), LEGAL.values(), ids=LEGAL)
def test_a_legal_response_in_every_split(
    method: str, response: bytes, closes: bool, status: int, body: bytes, fit: bool
) -> None:
    headers = fields(read([response], closes=closes, method=method)[0])
    for pieces in cuts(response):
        outcome, _ = read(pieces, closes=closes, method=method)
        assert outcome == Outcome(status, headers, body, "end", None, fit)


@given(st.data(), st.sampled_from(sorted(LEGAL)), st.binary(max_size=40))
@settings(max_examples=200, deadline=None)
def test_a_legal_response_in_any_pieces(data: st.DataObject, name: str, body: bytes) -> None:
    method, response, closes, *_ = LEGAL[name]
    expected, _ = read([response], closes=closes, method=method)
    edges = sorted({0, len(response), *data.draw(st.lists(st.integers(0, len(response)), max_size=8))})
    pieces = [response[a:b] for a, b in pairwise(edges)]
    assert read(pieces, closes=closes, method=method)[0] == expected


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=6), st.data())
@settings(max_examples=200, deadline=None)
def test_any_chunks_in_any_pieces(chunks: list[bytes], data: st.DataObject) -> None:
    response = CHUNKED + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    edges = sorted({0, len(response), *data.draw(st.lists(st.integers(0, len(response)), max_size=12))})
    outcome, _ = read(response[a:b] for a, b in pairwise(edges))
    assert (outcome.status, outcome.body, outcome.end, outcome.reusable) == (200, b"".join(chunks), "end", True)


def test_the_fields_of_a_head() -> None:
    response = OK + b"B: 1\r\nA:\t x \t y\t \r\nB:\r\nX!#$%&'*+-.^_`|~9: \xe9\xa0\r\nContent-Length: 0\r\n\r\n"
    expected = (("b", "1"), ("a", "x \t y"), ("b", ""), ("x!#$%&'*+-.^_`|~9", "é\xa0"), ("content-length", "0"))
    for pieces in cuts(response):
        assert fields(read(pieces)[0]) == expected


# ---- every malformed one ----------------------------------------------------------------------------------------------


def chunk(rest: bytes) -> bytes:
    return CHUNKED + b"2\r\nhe\r\n" + rest


MALFORMED_HEADS = {
    "no HTTP": b"garbage\r\n\r\n",
    "TLS": b"\x15\x03\x01\x00\x02\x02\x46",
    "an empty line first": b"\r\n" + OK + b"\r\n",
    "a space first": b" " + OK + b"\r\n",
    "lower case": b"http/1.1 200 OK\r\n\r\n",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\n\r\n",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\n\r\n",
    "no minor version": b"HTTP/1. 200 OK\r\n\r\n",
    "a minor version of two digits": b"HTTP/1.10 200 OK\r\n\r\n",
    "a minor version that is no digit": b"HTTP/1.x 200 OK\r\n\r\n",
    "two spaces before the status": b"HTTP/1.1  200 OK\r\n\r\n",
    "a tab before the status": b"HTTP/1.1\t200 OK\r\n\r\n",
    "a tab behind the status": b"HTTP/1.1 200\tOK\r\n\r\n",
    "no status": b"HTTP/1.1\r\n\r\n",
    "a status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "a status with a sign": b"HTTP/1.1 +20 OK\r\n\r\n",
    "a status in other digits": b"HTTP/1.1 2\xb2\xb2 OK\r\n\r\n",
    "a status below 100": b"HTTP/1.1 099 OK\r\n\r\n",
    "a status of 0": b"HTTP/1.1 000 OK\r\n\r\n",
    "101": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    "101 behind 100": CONTINUE + b"HTTP/1.1 101 x\r\n\r\n",
    "NUL in the reason": b"HTTP/1.1 200 O\x00K\r\n\r\n",
    "a status line behind 100 that is none": CONTINUE + b"HTTP/1.1 x\r\n\r\n",
    "a body behind 100": CONTINUE + b"hello",
    "a bare LF behind the status line": b"HTTP/1.1 200 OK\nA: 1\r\n\r\n",
    "nothing but bare LF": b"HTTP/1.1 200 OK\nA: 1\n\n",
    "a bare LF behind a field": OK + b"A: 1\nB: 2\r\n\r\n",
    "a bare LF for the empty line": OK + b"A: 1\r\n\n",
    "a bare CR for the empty line": OK + b"A: 1\r\n\r!",
    "a bare CR in a value": OK + b"A: 1\r2\r\n\r\n",
    "a bare CR at the end of a value": OK + b"A: 1\r\r\n\r\n",
    "a bare CR in the status line": b"HTTP/1.1 200 OK\rA: 1\r\n\r\n",
    "a folded line": OK + b"A: 1\r\n 2\r\n\r\n",
    "a folded line with a tab": OK + b"A: 1\r\n\t2\r\n\r\n",
    "a folded line first": OK + b" A: 1\r\n\r\n",
    "a folded line of blanks": OK + b"A: 1\r\n \r\n\r\n",
    "no colon": OK + b"A\r\n\r\n",
    "a space before the colon": OK + b"A : 1\r\n\r\n",
    "a tab before the colon": OK + b"A\t: 1\r\n\r\n",
    "no name": OK + b": 1\r\n\r\n",
    "a space in a name": OK + b"A B: 1\r\n\r\n",
    "a name in parentheses": OK + b"(A): 1\r\n\r\n",
    "a name beyond ASCII": OK + b"\xc4: 1\r\n\r\n",
    "NUL in a name": OK + b"A\x00: 1\r\n\r\n",
    "NUL in a value": OK + b"A: \x00\r\n\r\n",
    "an escape in a value": OK + b"A: \x1b[2J\r\n\r\n",
    "a form feed around a value": OK + b"A: \x0c1\x0c\r\n\r\n",
    "a vertical tab in a value": OK + b"A: 1\x0b2\r\n\r\n",
    "DEL in a value": OK + b"A: \x7f\r\n\r\n",
    "length and chunks": OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n",
    "length and chunks where there is no body": b"HTTP/1.1 304 x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "length and chunks in 100": b"HTTP/1.1 100 x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "one length twice": OK + b"Content-Length: 5\r\ncontent-length: 5\r\n\r\nhello",
    "a list of one length": OK + b"Content-Length: 5, 5\r\n\r\nhello",
    "an empty length": OK + b"Content-Length: \r\n\r\n",
    "a negative length": OK + b"Content-Length: -1\r\n\r\n",
    "a length with a sign": OK + b"Content-Length: +5\r\n\r\nhello",
    "a length in hexadecimal": OK + b"Content-Length: 0x5\r\n\r\nhello",
    "a length with a fraction": OK + b"Content-Length: 5.0\r\n\r\nhello",
    "a length with an underscore": OK + b"Content-Length: 1_0\r\n\r\n0123456789",
    "a length in other digits": OK + b"Content-Length: \xb2\r\n\r\nhe",
    "a length with blanks inside": OK + b"Content-Length: 1 0\r\n\r\n0123456789",
    "a huge length": OK + b"Content-Length: " + b"9" * 19 + b"\r\n\r\nx",
    "a transfer coding": OK + b"Transfer-Encoding: gzip\r\n\r\nx",
    "a transfer coding before chunks": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a transfer coding behind chunks": OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "chunked twice": OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked in two fields": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked with a parameter": OK + b"Transfer-Encoding: chunked;x=1\r\n\r\n0\r\n\r\n",
    "identity": OK + b"Transfer-Encoding: identity\r\n\r\nx",
    "an empty transfer coding": OK + b"Transfer-Encoding:\r\n\r\nx",
    "chunks in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
}
MALFORMED_BODIES = {
    # after a chunk of two bytes, "he"
    "no size": (chunk(b"\r\n"), b""),
    "a size that is none": (chunk(b"xyz\r\n"), b""),
    "a size with a sign": (chunk(b"+1\r\nx\r\n0\r\n\r\n"), b""),
    "a negative size": (chunk(b"-1\r\nx\r\n0\r\n\r\n"), b""),
    "a size with 0x": (chunk(b"0x1\r\nx\r\n0\r\n\r\n"), b""),
    "a size with an underscore": (chunk(b"1_0\r\n0123456789012345\r\n0\r\n\r\n"), b""),
    "a space before a size": (chunk(b" 1\r\nx\r\n0\r\n\r\n"), b""),
    "a space behind a size": (chunk(b"1 \r\nx\r\n0\r\n\r\n"), b""),
    "a tab before an extension": (chunk(b"1\t;a\r\nx\r\n0\r\n\r\n"), b""),
    "a size of 17 digits": (chunk(b"0" * 16 + b"1\r\nx\r\n0\r\n\r\n"), b""),
    "an extension without a size": (chunk(b";a\r\nx\r\n0\r\n\r\n"), b""),
    "a comma for the semicolon": (chunk(b"1,a\r\nx\r\n0\r\n\r\n"), b""),
    "a bare LF behind a size": (chunk(b"1\nx\r\n0\r\n\r\n"), b""),
    "a bare CR behind a size": (chunk(b"1\rx\r\n0\r\n\r\n"), b""),
    "a bare LF in an extension": (chunk(b"1;a\nb\r\nx\r\n0\r\n\r\n"), b""),
    "a bare CR in an extension": (chunk(b"1;a\rb\r\nx\r\n0\r\n\r\n"), b""),
    "NUL in an extension": (chunk(b"1;a\x00b\r\nx\r\n0\r\n\r\n"), b""),
    "a bare LF behind a chunk": (chunk(b"1\r\nx\n0\r\n\r\n"), b"x"),
    "a bare CR behind a chunk": (chunk(b"1\r\nx\r0\r\n\r\n"), b"x"),
    "two LF behind a chunk": (chunk(b"1\r\nx\n\n0\r\n\r\n"), b"x"),
    "two CR behind a chunk": (chunk(b"1\r\nx\r\r0\r\n\r\n"), b"x"),
    "LF and CR behind a chunk": (chunk(b"1\r\nx\n\r0\r\n\r\n"), b"x"),
    "two other bytes behind a chunk": (chunk(b"1\r\nxyz0\r\n\r\n"), b"x"),
    "one other byte behind a chunk and its CR": (chunk(b"1\r\nx\rz0\r\n\r\n"), b"x"),
    "nothing behind a chunk": (chunk(b"1\r\nx0\r\n\r\n"), b"x"),
    "a chunk longer than its size": (chunk(b"1\r\nxy\r\n0\r\n\r\n"), b"x"),
    "a chunk shorter than its size": (chunk(b"5\r\nx\r\n0\r\n\r\n"), b"x\r\n0\r"),
    "a bare LF for the last line": (chunk(b"0\r\n\n"), b""),
    "a bare CR for the last line": (chunk(b"0\r\n\r!"), b""),
    "a trailer without a colon": (chunk(b"0\r\nA\r\n\r\n"), b""),
    "a trailer without a name": (chunk(b"0\r\n: 1\r\n\r\n"), b""),
    "a space before a trailer's colon": (chunk(b"0\r\nA : 1\r\n\r\n"), b""),
    "a folded trailer": (chunk(b"0\r\nA: 1\r\n 2\r\n\r\n"), b""),
    "a bare LF behind a trailer": (chunk(b"0\r\nA: 1\nB: 2\r\n\r\n"), b""),
    "NUL in a trailer": (chunk(b"0\r\nA: \x00\r\n\r\n"), b""),
    "a length among the trailers": (chunk(b"0\r\nA: 1\r\nContent-Length: 5\r\n\r\n"), b""),
    "a transfer coding among the trailers": (chunk(b"0\r\ntransfer-encoding: chunked\r\n\r\n"), b""),
}


@pytest.mark.parametrize("closes", [False, True])
@pytest.mark.parametrize("response", MALFORMED_HEADS.values(), ids=MALFORMED_HEADS)
def test_a_malformed_head_in_every_split(response: bytes, closes: bool) -> None:
    for pieces in cuts(response):
        outcome, said = read(pieces, closes=closes)
        assert outcome == Outcome(None, None, b"", "protocol_error", True, False)
        assert said.startswith("not HTTP/1.1: ")


@pytest.mark.parametrize("closes", [False, True])
@pytest.mark.parametrize(("response", "more"), MALFORMED_BODIES.values(), ids=MALFORMED_BODIES)
def test_a_malformed_body_in_every_split(response: bytes, more: bytes, closes: bool) -> None:
    for pieces in cuts(response):
        outcome, _ = read(pieces, closes=closes)
        assert outcome == Outcome(200, (("transfer-encoding", "chunked"),), b"he" + more, "protocol_error", True, False)


@pytest.mark.parametrize("character", [c for c in range(256) if c not in b"\t\r\n" and (c < 32 or c == 127)])
@pytest.mark.parametrize("template", [b"HTTP/1.1 200 O%cK\r\n\r\n", OK + b"A: b%cc\r\n\r\n", OK + b"A%cB: c\r\n\r\n"])
def test_no_control_character_in_a_head(template: bytes, character: int) -> None:
    for pieces in cuts(template % character):
        assert read(pieces)[0].end == "protocol_error"


@pytest.mark.parametrize("character", range(256))
def test_a_name_is_a_token(character: int) -> None:
    legal = chr(character).isascii() and (chr(character).isalnum() or chr(character) in "!#$%&'*+-.^_`|~")
    outcome, _ = read([OK + b"A%c:1\r\nContent-Length: 0\r\n\r\n" % character])
    assert outcome.end == ("end" if legal or character == ord(":") else "protocol_error")


@pytest.mark.parametrize("character", range(256))
def test_a_size_is_hexadecimal(character: int) -> None:
    response = CHUNKED + b"%c\r\n" % character + b"x" * 15 + b"\r\n0\r\n\r\n"
    assert (read([response])[0].end == "end") is (chr(character) in "fF")


# ---- too early an end -------------------------------------------------------------------------------------------------

CUT_SHORT = [
    "a length",
    "chunks",
    "extensions and trailers",
    "several",
    "HTTP/1.0 with a length",
    "204",
    "HEAD with neither",
]


@pytest.mark.parametrize("name", CUT_SHORT)
def test_an_end_before_the_end_is_a_loss(name: str) -> None:
    method, response, _, status, body, _ = LEGAL[name]
    for size in range(len(response)):
        for pieces in ([response[:size]], [response[i : i + 1] for i in range(size)]):
            outcome, said = read(pieces, closes=True, method=method)
            assert (outcome.end, outcome.retryable, outcome.reusable) == ("network_error", True, False)
            assert said == "the connection was closed before the response ended"
            assert outcome.status in (None, status)
            assert body.startswith(outcome.body)


@pytest.mark.parametrize("name", ["until the end", "HTTP/1.0 until the end"])
def test_an_end_within_a_head_is_a_loss_where_the_body_would_go_on_until_it(name: str) -> None:
    _, response, *_ = LEGAL[name]
    head, _, body = response.partition(b"\r\n\r\n")
    for size in range(len(response)):
        outcome, _ = read([response[:size]], closes=True)
        expected = ("end", body[: size - len(head) - 4]) if size >= len(head) + 4 else ("network_error", b"")
        assert (outcome.end, outcome.body) == expected


def test_an_end_before_any_byte_is_a_loss() -> None:
    (error,) = ResponseReader("POST").receive(b"")
    assert isinstance(error, NetworkError)
    assert isinstance(error.cause, ForeignError)
    assert error.cause.type_name == "RemoteProtocolError"
    assert error.__traceback__ is None


# ---- bounds -----------------------------------------------------------------------------------------------------------


def sizes(response: bytes, *places: int) -> Iterator[list[bytes]]:
    """Whole, in larger pieces, and byte by byte: all of it if it is short, else around these places and the end."""
    yield [response]
    if len(response) < 8000:
        yield [response[i : i + 1] for i in range(len(response))]
    yield [response[i : i + 1000] for i in range(0, len(response), 1000)]
    for place in (*places, len(response)):
        start = max(0, place - 20)
        yield [response[:start], *(response[i : i + 1] for i in range(start, place + 10)), response[place + 10 :]]


def refused(response: bytes, words: str, *, status: int | None = None) -> None:
    for pieces in sizes(response):
        outcome, said = read(pieces)
        assert (outcome.status, outcome.end, outcome.retryable, outcome.reusable) == (status, "protocol_error", False, False)
        assert words in said


def taken(response: bytes) -> None:
    for pieces in sizes(response):
        outcome, _ = read(pieces)
        assert (outcome.status, outcome.end, outcome.reusable) == (200, "end", True)


def head_of(size: int, before: bytes = b"") -> bytes:
    rest = b"Content-Length: 0\r\n\r\n"
    return before + OK + b"A:" + b"x" * (size - len(before) - len(OK) - len(rest) - 4) + b"\r\n" + rest


@pytest.mark.parametrize("before", [b"", CONTINUE, CONTINUE * MAX_INFORMATIONAL])
def test_a_head_and_what_comes_before_it_is_bounded(before: bytes) -> None:
    assert len(head_of(MAX_HEAD_BYTES, before)) == MAX_HEAD_BYTES
    taken(head_of(MAX_HEAD_BYTES, before))
    for size in range(MAX_HEAD_BYTES + 1, MAX_HEAD_BYTES + 6):
        refused(head_of(size, before), f"a response head is larger than {MAX_HEAD_BYTES} bytes")


def test_heads_before_a_head_are_bounded_in_bytes() -> None:
    hint = b"HTTP/1.1 103 x\r\nLink: " + b"x" * 10_000 + b"\r\n\r\n"
    taken(hint * 6 + OK + b"Content-Length: 0\r\n\r\n")
    refused(hint * 7 + OK + b"\r\n", "a response head is larger than")
    exactly = b"HTTP/1.1 103 x\r\nLink: " + b"x" * (MAX_HEAD_BYTES - 26) + b"\r\n\r\n"
    assert len(exactly) == MAX_HEAD_BYTES
    refused(exactly + OK, "a response head is larger than")
    refused(exactly.replace(b"xxx", b"", 1) + b"HTTPS", "a response head is larger than")  # three bytes are left, and fine


def test_heads_before_a_head_are_bounded_in_number() -> None:
    taken(CONTINUE * MAX_INFORMATIONAL + OK + b"Content-Length: 0\r\n\r\n")
    refused(CONTINUE * (MAX_INFORMATIONAL + 1) + OK + b"Content-Length: 0\r\n\r\n", "informational responses")


def test_the_fields_of_a_head_are_bounded_in_number() -> None:
    taken(OK + b"A:\r\n" * (MAX_FIELDS - 1) + b"Content-Length: 0\r\n\r\n")
    refused(OK + b"A:\r\n" * MAX_FIELDS + b"Content-Length: 0\r\n\r\n", f"more than {MAX_FIELDS} fields")


def test_the_line_of_a_chunk_is_bounded() -> None:
    line = b"1;" + b"x" * (MAX_SIZE_LINE_BYTES - 4)
    taken(CHUNKED + (line + b"\r\nx\r\n") * 3 + b"0\r\n\r\n")
    for more in range(1, 4):
        refused(CHUNKED + line + b"x" * more + b"\r\nx\r\n0\r\n\r\n", "a chunk's size line is larger than", status=200)


def test_trailers_are_bounded() -> None:
    last = CHUNKED + b"0\r\nA:" + b"x" * (MAX_HEAD_BYTES - 8)
    taken(last + b"\r\n\r\n")
    for more in range(1, 6):
        refused(last + b"x" * more + b"\r\n\r\n", "a trailer section is larger than", status=200)
    taken(CHUNKED + b"0\r\n" + b"A:\r\n" * MAX_FIELDS + b"\r\n")
    refused(CHUNKED + b"0\r\n" + b"A:\r\n" * (MAX_FIELDS + 1) + b"\r\n", f"more than {MAX_FIELDS} fields", status=200)


@pytest.mark.parametrize("opening", [b"HTTP/1.1 ", OK + b"A: ", CHUNKED + b"1;", CHUNKED + b"0\r\nA: "])
@pytest.mark.parametrize("piece_bytes", [1, 999, 100_000])
def test_what_never_ends_is_given_up(opening: bytes, piece_bytes: int) -> None:
    reader = ResponseReader("POST")
    reader.receive(opening)
    received = 0
    while not reader.ended:
        reader.receive(b"x" * piece_bytes)
        received += piece_bytes
    assert received <= MAX_HEAD_BYTES + piece_bytes


@pytest.mark.parametrize("opening", [OK + b"A: ", CHUNKED + b"1;", CHUNKED + b"0\r\nA: "])
@pytest.mark.parametrize("stray", [b"\n", b"\r", b"\x00"])
@pytest.mark.parametrize("room", [-2, -1, 0, 1])
def test_what_is_malformed_and_too_long_is_called_the_same_however_it_is_cut(
    opening: bytes, stray: bytes, room: int
) -> None:
    bound = MAX_SIZE_LINE_BYTES if opening.endswith(b"1;") else MAX_HEAD_BYTES
    spent = len(CHUNKED) if opening.endswith(b"1;") else len(CHUNKED) + 1 if CHUNKED in opening else 0
    before = opening + b"x" * (bound + spent + room - len(opening))
    for ending in (b"xxx\r\n\r\n", b""):
        outcomes = {read(pieces)[0] for pieces in sizes(before + stray + b"xxxx" + ending, bound + spent)}
        (outcome,) = outcomes
        assert outcome.end == "protocol_error"
        assert outcome.retryable is (room < 0 if stray != b"\r" else room < -1)


# ---- what is said -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "a response head begins with SSH-2.0"),
        (b"HTTP/1.1 twohundred\r\n\r\n", "illegal line in a response head: HTTP/1.1 twohundred"),
        (OK + b"A: 1\r\nB 2\r\n\r\n", "illegal line in a response head: B 2"),
        (OK + b"A: 1\r\n B\x002\r\n\r\n", "illegal line in a response head: B2"),
        (OK + b"A: 1\nB: 2", "a control character in a response head"),
        (b"HTTP/1.1 101 x\r\n\r\n", "a response has the status 101"),
        (b"HTTP/1.1 099 x\r\n\r\n", "a response has the status 099"),
        (OK + b"Content-Length: x\r\n\r\n", "illegal content-length: x"),
        (OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "content-length and then transfer-encoding"),
        (OK + b"Transfer-Encoding: gzip\r\n\r\n", "transfer-encoding other than chunked: gzip"),
        (b"HTTP/1.0 200 x\r\nTransfer-Encoding: chunked\r\n\r\n", "Transfer-Encoding in HTTP/1.0"),
        (chunk(b"data: x\r\n"), "illegal chunk size: data: x"),
        (chunk(b"1\r\nxy"), "a chunk goes on past its size"),
        (chunk(b"0\r\nA: 1\r\nB\r\n\r\n"), "illegal line in a trailer section: B"),
        (chunk(b"0\r\nB\r\n\r\n"), "illegal line in a trailer section: B"),
        (chunk(b"0\r\nContent-Length: 1\r\n\r\n"), "the framing of a body in a trailer section"),
    ],
)
def test_an_error_says_what_was_met(response: bytes, words: str) -> None:
    error = ResponseReader("POST").receive(response)[-1]
    assert isinstance(error, ProtocolError)
    assert error.message.replace("  ", " ").startswith(f"not HTTP/1.1: {words}")
    assert isinstance(error.cause, ForeignError)
    assert (error.cause.type_name, error.cause.message) == (
        "RemoteProtocolError",
        error.message.removeprefix("not HTTP/1.1: "),
    )
    assert error.__traceback__ is None


@pytest.mark.parametrize("name", [b"authorization", b"x-api-key\x01"])
@pytest.mark.parametrize(
    "response",
    [
        b"%s: Bearer sk-abcdefghijklmnop\r\n\r\n",
        OK + b"%s Bearer sk-abcdefghijklmnop\r\n\r\n",
        CHUNKED + b"%s: Bearer sk-abcdefghijklmnop\r\n",
        CHUNKED + b"0\r\n%s : Bearer sk-abcdefghijklmnop\r\n\r\n",
        OK + b"Content-Length: %s=sk-abcdefghijklmnop\r\n\r\n",
        OK + b"Transfer-Encoding: %s=sk-abcdefghijklmnop\r\n\r\n",
    ],
)
def test_what_is_quoted_holds_no_credential_and_is_short(response: bytes, name: bytes) -> None:
    error = ResponseReader("POST").receive(response % (name + b"x" * 300) if b"\x01" in name else response % name)[-1]
    assert isinstance(error, ProtocolError)
    assert "sk-abc" not in f"{error} {error.to_dict()} {error.cause!r}"
    assert len(error.message) < 250


@pytest.mark.parametrize("coding", [b"gzip", b"GZip", b"identity, br", b"x\r\nContent-Encoding: identity"])
def test_a_content_coding_is_refused_behind_the_head(coding: bytes) -> None:
    response = OK + b"Content-Encoding: " + coding + b"\r\nContent-Length: 5\r\n\r\nhello"
    for pieces in cuts(response):
        outcome, said = read(pieces)
        assert (outcome.status, outcome.body, outcome.end, outcome.retryable) == (200, b"", "protocol_error", False)
        assert "content coding '" in said
    assert len(fields(read([response])[0])) >= 2


def test_the_body_of_one_call_is_one_piece() -> None:
    events = ResponseReader("POST").receive(CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")
    assert events[1:] == [b"hello", END]


def test_a_piece_that_is_all_body_is_not_copied() -> None:
    for head in (OK + b"Content-Length: 500\r\n\r\n", OK + b"\r\n", CHUNKED + b"1f4\r\n"):
        reader = ResponseReader("POST")
        reader.receive(head)
        piece = b"x" * 300
        assert reader.receive(piece)[0] is piece
