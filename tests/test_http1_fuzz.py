"""The reader of responses held against h11: stricter in ways that are listed here, never laxer, never of another mind."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

import h11
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sansio.errors import InferenceError
from sansio.http import END, Headers, ResponseHead
from sansio.http1_reader import MAX_FIELDS, MAX_HEAD_BYTES, MAX_INFORMATIONAL, MAX_SIZE_LINE_BYTES, ResponseReader

EXAMPLES = 400
"""Seconds of work. Raised a thousandfold for a long run."""


@dataclass(frozen=True)
class Read:
    """What a reader made of a response and the end of the connection behind it."""

    status: int | None
    headers: Headers
    body: bytes
    refusal: str | None
    reusable: bool


def by_us(pieces: list[bytes], method: str) -> Read:
    reader = ResponseReader(method)
    status, body, refusal, left_over = None, b"", None, False
    headers: Headers = ()
    for piece in [*filter(None, pieces), b""]:
        if reader.ended:
            left_over |= piece != b""
            continue
        for event in reader.receive(piece):
            if isinstance(event, ResponseHead):
                status, headers = event.status, event.headers
            elif isinstance(event, bytes):
                body += event
            elif isinstance(event, InferenceError):
                refusal = f"{event.kind}: {event.message}"
            else:
                assert event is END
    assert reader.ended, "no end, although the connection has ended"
    return Read(status, headers, body, refusal, reader.reusable and not left_over)


def by_h11(response: bytes, method: str) -> Read:
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
    client.send(h11.Request(method=method, target="/", headers=[("host", "h")]))
    client.send(h11.EndOfMessage())
    status, body = None, b""
    headers: Headers = ()
    waiting = [response, b""] if response else [b""]
    try:
        while True:
            event = client.next_event()
            if isinstance(event, h11.Response):
                status = event.status_code
                headers = tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in event.headers)
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                fit = client.their_state is h11.DONE and client.trailing_data[0] == b""
                return Read(status, headers, body, None, fit)
            elif event is h11.NEED_DATA:
                client.receive_data(waiting.pop(0))
            else:
                assert isinstance(event, h11.InformationalResponse), event
    except h11.RemoteProtocolError as error:
        return Read(status, headers, body, str(error), False)


# ---- how we are stricter: a refusal of ours that h11 does not share, and what must be there for it --------------------

STRAY = re.compile(rb"[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f]|\r[^\n]|\r$|(?<!\r)\n")
FOLDED = re.compile(rb"\n[ \t]")
STRICTER: list[tuple[str, re.Pattern[bytes]]] = [
    # A line that ends in a bare LF, holds a bare CR or a control character, or goes on in the next one.
    (r"not HTTP/1\.1: illegal line in a response head", re.compile(STRAY.pattern + b"|" + FOLDED.pattern)),
    (r"not HTTP/1\.1: a control character in", STRAY),
    (r"not HTTP/1\.1: illegal line in a trailer section", re.compile(STRAY.pattern + b"|" + FOLDED.pattern)),
    # A major version that is not 1, though it looks like one.
    (
        r"not HTTP/1\.1: (?:a response head begins with|illegal line in a response head: ) ?HTTP/[02-9]",
        re.compile(rb"HTTP/[02-9]\."),
    ),
    # A length that is told twice, in two ways, or is out of all proportion.
    (
        r"not HTTP/1\.1: content-length and then content-length",
        re.compile(rb"(?i)content-length:[^\n]*\n(?s:.*)content-length:"),
    ),
    (r"not HTTP/1\.1: content-length and then transfer-encoding", re.compile(rb"(?is)content-length:.*transfer-encoding:")),
    (r"not HTTP/1\.1: transfer-encoding and then content-length", re.compile(rb"(?is)transfer-encoding:.*content-length:")),
    (
        r"not HTTP/1\.1: illegal content-length",
        re.compile(rb"(?i)content-length:[ \t]*(?:\d{19,}|(\d+)(?:[ \t]*,[ \t]*\1)+)"),
    ),
    (r"not HTTP/1\.1: Transfer-Encoding in HTTP/1\.0", re.compile(rb"(?is)HTTP/1\.0.*transfer-encoding:")),
    # Chunks: blanks or more than 16 digits in a size, anything but text in an extension, framing among the trailers.
    (
        r"not HTTP/1\.1: illegal chunk size",
        re.compile(rb"(?i)[0-9a-f](?:;[^\n]*)?[ \t]+\r\n|[0-9a-f]{17}|;[^\n]*" + STRAY.pattern),
    ),
    (r"not HTTP/1\.1: the framing of a body in a trailer section", re.compile(rb"(?i)content-length:|transfer-encoding:")),
    # Bounds that h11 does not have.
    (rf"a response head has more than {MAX_FIELDS} fields", re.compile(rb"(?s)(?:\n[^\n]*){%d}" % MAX_FIELDS)),
    (rf"a trailer section has more than {MAX_FIELDS} fields", re.compile(rb"(?s)(?:\n[^\n]*){%d}" % MAX_FIELDS)),
    (
        rf"more than {MAX_INFORMATIONAL} informational responses",
        re.compile(rb"(?s)(?:HTTP/1.*?){%d}" % (MAX_INFORMATIONAL + 1)),
    ),
    (rf"a response head is larger than {MAX_HEAD_BYTES} bytes", re.compile(rb"(?s).{%d}" % MAX_HEAD_BYTES)),
    (rf"a trailer section is larger than {MAX_HEAD_BYTES} bytes", re.compile(rb"(?s).{%d}" % MAX_HEAD_BYTES)),
    (r"a chunk's size line is larger than", re.compile(rb";[^\n]{%d}" % (MAX_SIZE_LINE_BYTES - 20))),
    # None was asked for.
    (r"the body is in the content coding", re.compile(rb"(?i)content-encoding:")),
]


def hold_against_h11(response: bytes, method: str, edges: list[int]) -> str:
    """Compare, and say how the two stand to each other."""
    marks = sorted({0, len(response), *(min(edge, len(response)) for edge in edges)})
    ours = by_us([response[a:b] for a, b in pairwise(marks)], method)
    theirs = by_h11(response, method)
    if ours.status is not None and theirs.status is not None:
        assert ours.status == theirs.status
        assert as_h11_tells(ours.headers) == theirs.headers
        shorter, longer = sorted((ours.body, theirs.body), key=len)
        assert longer.startswith(shorter)
    if ours.refusal is None:
        assert theirs.refusal is None, f"laxer than h11, which says {theirs.refusal}"
        assert (ours.status, ours.body) == (theirs.status, theirs.body)
        assert theirs.reusable or not ours.reusable
        return "both take it"
    if theirs.refusal is not None:
        return "both refuse it"
    for reason, evidence in STRICTER:
        if re.match(f"protocol_error: {reason}", ours.refusal) and evidence.search(response):
            return reason
    raise AssertionError(f"refused for no reason listed: {ours.refusal}")


def as_h11_tells(headers: Headers) -> Headers:
    """h11 lowers the one transfer coding it knows."""
    return tuple((name, value.lower() if name == "transfer-encoding" else value) for name, value in headers)


# ---- responses: mostly legal, then damaged ----------------------------------------------------------------------------


def mostly(usual: list[bytes], odd: list[bytes]) -> st.SearchStrategy[bytes]:
    return st.sampled_from(usual * (1 + 25 * len(odd) // len(usual)) + odd)


line_ends = mostly([b"\r\n"], [b"\n", b"\r", b"\r\r\n", b" \r\n", b"\r\n ", b"\n\r\n"])
statuses = mostly(
    [b"HTTP/1.1 200 OK", b"HTTP/1.1 404 Not Found", b"HTTP/1.1 204 x", b"HTTP/1.1 304 x", b"HTTP/1.0 200 OK",
     b"HTTP/1.1 200", b"HTTP/1.1 500 ", b"HTTP/1.1 999 \t\xe9"],
    [b"HTTP/2.0 200 OK", b"HTTP/0.9 200 OK", b"HTTP/1.1 99 x", b"HTTP/1.1 099 x", b"HTTP/1.1  200 x", b"HTTP/1.2 200 x", b"",
     b"HTTP/1.1 101 x", b"HTTP/1.1 200 \x01", b" HTTP/1.1 200 x", b"http/1.1 200 OK", b"HTTP/1.1 2000 x", b"HTTP/1.1 200x"],
)  # fmt: skip
informational = mostly([b"HTTP/1.1 100 Continue", b"HTTP/1.1 103 x", b"HTTP/1.0 102 "], [b"HTTP/1.1 101 x", b"HTTP/1.1 1 x"])
other_fields = mostly(
    [b"X-A: 1", b"x-b:", b"Content-Type: text/event-stream", b"Connection: keep-alive", b"Connection: close",
     b"connection: x , CLOSE", b"X-C: a \t b", b"X-D:\xe9\xff ", b"Content-Encoding: identity", b"!#$%&'*+-.^_`|~9: ?"],
    [b"X-E : 1", b": 1", b"X-F", b" folded", b"\tX-G: 1", b"X\x00: 1", b"X-H: \x01", b"X-I: a\x00b", b"X-J: a\rb",
     b"X-K: a\nb", b"X-L: \x7f", b"X-M: \x0b", b"\xe9: 1", b"(): 1", b"Content-Encoding: gzip", b"X-N: \x0c1"],
)  # fmt: skip
framing_fields = mostly(
    [b"Content-Length: 5", b"Transfer-Encoding: chunked"],
    [b"Content-Length: 5, 5", b"Content-Length: +5", b"Content-Length: 5 5", b"Content-Length:", b"content-length: 05",
     b"Content-Length: 5,6", b"Content-Length: 9999999999999999999", b"Content-Length: 99999999999999999999",
     b"Content-Length: \xb2", b"Content-Length: 0", b"Content-Length: 1000", b"Transfer-Encoding: Chunked",
     b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: chunked, chunked", b"Transfer-Encoding: identity",
     b"Transfer-Encoding:", b"Transfer-Encoding: chunked ;x", b"Content-Length: 5\r\nContent-Length: 5",
     b"Content-Length: 5\r\nTransfer-Encoding: chunked"],
)  # fmt: skip
chunk_ends = mostly([b"\r\n"], [b"", b"\n", b"\r", b"\n\n", b"\r\r", b"\n\r", b"xy", b"\rx", b"x\n", b"\r\n\r\n"])
chunk_extensions = mostly(
    [b"", b"", b";a=b"], [b" ", b";", b'; a="\xe9\t"', b" ;a", b"\t", b";\x00", b";\r", b";a\nb", b"x", b"; "]
)


@st.composite
def chunked_bodies(draw: st.DrawFn) -> bytes:
    out = b""
    for chunk in draw(st.lists(st.binary(min_size=1, max_size=20) | st.just(b"\r\n0\r\n\r\n"), max_size=4)):
        size = draw(mostly([b"%x", b"%X", b"0%x"], [b"+%x", b" %x", b"0x%x", b"%x_", b"00000000000000000%x", b"%d1"]))
        out += size % len(chunk) + draw(chunk_extensions) + draw(line_ends) + chunk + draw(chunk_ends)
    out += draw(mostly([b"0"], [b"", b"00", b"-0", b"1"])) + draw(chunk_extensions) + draw(line_ends)
    trailers = st.lists(other_fields | framing_fields if draw(st.integers(0, 5)) == 0 else st.just(b"X-T: 1"), max_size=2)
    return out + b"".join(field + draw(line_ends) for field in draw(trailers)) + draw(line_ends)


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    out = b""
    for status in draw(st.lists(informational, max_size=2) if draw(st.integers(0, 3)) == 0 else st.just([])):
        out += (
            status + draw(line_ends) + draw(st.sampled_from([b"", b"", b"Link: x\r\n", b"Content-Length: 5\r\n"])) + b"\r\n"
        )
    framing, body = draw(
        st.tuples(st.just([b"Transfer-Encoding: chunked"]), chunked_bodies())
        | st.tuples(st.just([b"Content-Length: 5"]), mostly([b"hello"], [b"hell", b"hello!"]))
        | st.tuples(st.lists(framing_fields, max_size=1), st.sampled_from([b"", b"hello", b"\r\n\r\n"]) | chunked_bodies())
    )
    fields = draw(st.permutations(draw(st.lists(other_fields, max_size=3)) + framing))
    out += draw(statuses) + draw(line_ends)
    out += b"".join(field + draw(line_ends) for field in fields) + draw(line_ends) + body
    return out


BYTES = [
    b"\r",
    b"\n",
    b"\r\n",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"0",
    b"5",
    b"f",
    b"\x00",
    b"\x80",
    b"x",
    b"-",
    b"+",
    b"\r\n\r\n",
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A response, with bytes put in, taken out, replaced or repeated in some places, or cut off."""
    response = draw(responses())
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 1, 2, 4]))):
        at = draw(st.integers(0, len(response)))
        gone = draw(st.integers(0, 3))
        new = draw(st.sampled_from(BYTES) | st.binary(max_size=3) | st.just(response[at : at + 12]))
        response = response[:at] + new + response[at + gone :]
    return response[: draw(st.integers(0, len(response)))] if draw(st.integers(0, 9)) == 0 else response


@given(damaged(), st.sampled_from(["POST", "POST", "GET", "HEAD"]), st.lists(st.integers(0, 300), max_size=6))
@example(b"HTTP/1.1 200 OK\r\n" + b"A:\r\n" * 300 + b"\r\n", "POST", [])
@example(b"HTTP/1.1 100 x\r\n\r\n" * 40 + b"HTTP/1.1 204 x\r\n\r\n", "POST", [])
@example(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0;" + b"x" * 5000 + b"\r\n\r\n", "POST", [])
@example(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"A:\r\n" * 300 + b"\r\n", "POST", [])
@example(b"HTTP/1.1 200 OK\r\nA: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n", "POST", [])
@settings(max_examples=EXAMPLES, deadline=None)
def test_it_is_of_one_mind_with_h11_or_stricter(response: bytes, method: str, edges: list[int]) -> None:
    hold_against_h11(response, method, edges)


@given(
    st.binary(max_size=60),
    st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"]),
)
@settings(max_examples=200, deadline=None)
def test_so_it_is_with_any_bytes(noise: bytes, opening: bytes) -> None:
    hold_against_h11(opening + noise, "POST", [])


def test_the_comparison_finds_who_is_laxer() -> None:
    refused = b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"
    assert by_h11(refused, "POST").refusal is not None
    assert hold_against_h11(b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", "POST", []).endswith("a control character in")
    assert hold_against_h11(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "POST", []) == "both take it"
    assert hold_against_h11(refused, "POST", []) == "both refuse it"
