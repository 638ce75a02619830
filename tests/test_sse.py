"""`SseDecoder`, held against the event stream algorithm of the WHATWG's HTML standard (section 9.2.6)."""

from __future__ import annotations

import array
import pickle
import tracemalloc
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sansio.sse import SseChunk, SseDecoder, SseLimitExceeded

BOM = b"\xef\xbb\xbf"
LARGEST_RETRY = int("9" * 640)


def decode(pieces: Iterable[bytes], **options: int | str) -> tuple[list[SseChunk], str, int | None]:
    decoder = SseDecoder(**options)  # type-checked by the tests of its arguments below
    chunks = [chunk for piece in pieces for chunk in decoder.feed(piece)]
    assert decoder.finish() == []
    return chunks, decoder.last_event_id, decoder.retry_ms


def cut(stream: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in pairwise(edges)]


def single_bytes(stream: bytes) -> list[bytes]:
    return [stream[i : i + 1] for i in range(len(stream))]


# The reference: the standard's prose, on text, with the whole stream at hand. Nothing is shared with the decoder.


@dataclass
class Reference:
    """Chunks, last event ID and retry as the standard says; with a limit, where it is met."""

    last_event_id: str = ""
    limit: int = 1 << 60
    retry_ms: int | None = None
    failed: bool = False
    chunks: list[SseChunk] = field(default_factory=list)

    def run(self, stream: bytes, *, dispatch_incomplete: bool = False) -> Reference:
        lines = self.split(stream.removeprefix(BOM))
        data_lines: list[bytes] = []
        event_type = b""
        new_id: bytes | None = None
        for number, line in enumerate(lines):
            unfinished = number == len(lines) - 1
            held = sum(len(value) + 1 for value in data_lines) + len(event_type)
            held += 0 if new_id is None else len(new_id) + 1
            if held + len(line) > self.limit:
                self.failed = True
                return self
            if unfinished and not dispatch_incomplete:
                return self
            if line:
                name, value = [*line.split(b":", 1), b""][:2]
                value = value[1:] if value.startswith(b" ") else value
                if name == b"data":
                    data_lines.append(value)
                elif name == b"event":
                    event_type = value
                elif name == b"id" and b"\0" not in value:
                    new_id = value
                elif name == b"retry" and value and all(byte in b"0123456789" for byte in value):
                    self.retry_ms = LARGEST_RETRY if len(value.lstrip(b"0")) > 640 else int(value)
            if not line or unfinished:
                if new_id is not None:
                    self.last_event_id = new_id.decode("utf-8", "replace")
                if data_lines:
                    data = b"\n".join(data_lines).decode("utf-8", "replace")
                    name_text = event_type.decode("utf-8", "replace") or "message"
                    self.chunks.append(SseChunk(data, name_text, self.last_event_id))
                data_lines, event_type, new_id = [], b"", None
        return self

    @staticmethod
    def split(stream: bytes) -> list[bytes]:
        """All lines; the last one is the unfinished one, perhaps empty."""
        lines, line, position = [], bytearray(), 0
        while position < len(stream):
            byte = stream[position]
            if byte in b"\r\n":
                lines.append(bytes(line))
                line.clear()
                position += 2 if stream[position : position + 2] == b"\r\n" else 1
            else:
                line.append(byte)
                position += 1
        return [*lines, bytes(line)]


def message(data: str, event_id: str = "") -> SseChunk:
    return SseChunk(data, "message", event_id)


STREAMS = {
    # name: (stream, chunks, last event ID, retry)
    "nothing": (b"", [], "", None),
    "one event": (b"data: a\n\n", [message("a")], "", None),
    "events in one piece": (b"data: a\n\ndata: b\n\n", [message("a"), message("b")], "", None),
    "named": (b"event: add\ndata: a\n\n", [SseChunk("a", "add")], "", None),
    "named, several": (
        b"event: add\ndata: a\n\nevent: remove\ndata: b\n\n",
        [SseChunk("a", "add"), SseChunk("b", "remove")],
        "",
        None,
    ),
    "a name holds for one event": (b"event: add\ndata: a\n\ndata: b\n\n", [SseChunk("a", "add"), message("b")], "", None),
    "name after data": (b"data: a\nevent: add\n\n", [SseChunk("a", "add")], "", None),
    "the last name counts": (b"event: x\nevent: y\ndata: a\n\n", [SseChunk("a", "y")], "", None),
    "named, no space": (b"event:add\ndata: a\n\n", [SseChunk("a", "add")], "", None),
    "named, no space before the data": (b"event: add\ndata:a\n\n", [SseChunk("a", "add")], "", None),
    "named, another field": (b"event: add\nid: 1\n\n", [], "1", None),
    "named, unfinished": (b"event: add\ndata: a\ndata: b\n", [], "", None),
    "an empty name is none": (b"event: x\nevent: \ndata: a\n\nevent: \ndata: b\n\n", [message("a"), message("b")], "", None),
    "a dataless event resets the name": (b"event: x\n\ndata: a\n\n", [message("a")], "", None),
    "line ends LF": (b"data: a\ndata: b\n\n", [message("a\nb")], "", None),
    "line ends CR": (b"data: a\rdata: b\r\r", [message("a\nb")], "", None),
    "line ends CRLF": (b"data: a\r\ndata: b\r\n\r\n", [message("a\nb")], "", None),
    "line ends mixed": (b"data: a\rdata: b\r\ndata: c\n\r\n", [message("a\nb\nc")], "", None),
    "LF CR is two line ends": (b"data: a\n\rdata: b\n\r", [message("a"), message("b")], "", None),
    "nothing else ends a line": (
        "data: a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\x1dh\x1ei\n\n".encode(),
        [message("a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\x1dh\x1ei")],
        "",
        None,
    ),
    "nothing else, beside CRLF": (
        "data: a\u2028b\x85c\x0bd\x0ce\x1cf\r\n\r\n".encode(),
        [message("a\u2028b\x85c\x0bd\x0ce\x1cf")],
        "",
        None,
    ),
    "BOM, then CR": (BOM + b"data: a\r\rdata: b\r\r", [message("a"), message("b")], "", None),
    "no BOM after a CR": (b"data: a\r\r" + BOM + b"data: b\r\rdata: c\r\r", [message("a"), message("c")], "", None),
    "BOM": (BOM + b"data: a\n\n", [message("a")], "", None),
    "only one BOM": (BOM + BOM + b"data: a\n\ndata: b\n\n", [message("b")], "", None),
    "only a leading BOM": (b"data: a\n\n" + BOM + b"data: b\n\n", [message("a")], "", None),
    "not quite a BOM": (b"\xef\xbbdata: a\n\ndata: b\n\n", [message("b")], "", None),
    "comment": (b": hello\n:\ndata: a\n:data: b\n\n", [message("a")], "", None),
    "comments between events": (b"data: a\n\n: ping\n\ndata: b\n\n: ping\n\n", [message("a"), message("b")], "", None),
    "no colon": (b"data\n\ndata\ndata\n\nevent\ndata: a\n\n", [message(""), message("\n"), message("a")], "", None),
    "no value": (b"data:\n\ndata: \n\nevent: x\ndata: \n\n", [message(""), message(""), SseChunk("", "x")], "", None),
    "one space is stripped": (
        b"data:a\n\ndata:  b\n\ndata:\tc\n\n",
        [message("a"), message(" b"), message("\tc")],
        "",
        None,
    ),
    "one space of a name, too": (
        b"event:  x\ndata: a\n\nevent:y\ndata:b\n\n",
        [SseChunk("a", " x"), SseChunk("b", "y")],
        "",
        None,
    ),
    "further colons": (b"data: a: b\n\n", [message("a: b")], "", None),
    "unknown fields": (b"datax: a\n data: b\nDATA: c\ndata : d\nfoo\n\n", [], "", None),
    "no data, no event": (b"event: a\n\nid: 1\n\n\n\n", [], "1", None),
    "blank lines": (b"\n\n\ndata: a\n\n\n\n\ndata: b\n\n\n", [message("a"), message("b")], "", None),
    "an unfinished event is dropped": (b"data: a\n\ndata: b\n", [message("a")], "", None),
    "an unfinished line is dropped": (b"data: a\n\ndata: b", [message("a")], "", None),
    "CR CR at the end dispatches": (b"data: a\r\r", [message("a")], "", None),
    "id": (b"id: 1\ndata: a\n\n", [message("a", "1")], "1", None),
    "id sticks": (
        b"id: 1\ndata: a\n\ndata: b\n\nevent: x\ndata: c\n\n",
        [message("a", "1"), message("b", "1"), SseChunk("c", "x", "1")],
        "1",
        None,
    ),
    "id amid regular events": (
        b"data: a\n\nid: 1\ndata: b\n\ndata: c\n\n",
        [message("a"), message("b", "1"), message("c", "1")],
        "1",
        None,
    ),
    "id cleared": (b"id: 1\ndata: a\n\nid\ndata: b\n\n", [message("a", "1"), message("b")], "", None),
    "id with NUL is ignored": (b"id: 1\n\nid: 2\0\ndata: a\n\n", [message("a", "1")], "1", None),
    "id of an unfinished event does not count": (b"id: 1\n\nid: 2\ndata: a\n", [], "1", None),
    "id keeps inner spaces": (b"id:  1 \n\n", [], " 1 ", None),
    "NUL elsewhere is kept": (b"event: \0\ndata: \0\n\n", [SseChunk("\0", "\0")], "", None),
    "retry": (b"retry: 3000\n\n", [], "", 3000),
    "retry counts at once": (b"retry: 30\n", [], "", 30),
    "retry needs its line's end": (b"retry: 30", [], "", None),
    "retry, last one wins": (b"retry: 1\nretry:2\n\n", [], "", 2),
    "retry of nothing": (b"retry: 5\nretry\nretry: \n\n", [], "", 5),
    "retry zero": (b"retry: 000\n\n", [], "", 0),
    "retry, not ASCII digits": (
        "retry: 1s\nretry: -1\nretry: +1\nretry: 1_0\nretry: 1.0\nretry:  1\nretry: ٣\nretry: ²\n\n".encode(),
        [],
        "",
        None,
    ),
    "retry beyond 64 bits": (b"retry: 99999999999999999999\n\n", [], "", 99999999999999999999),
    "retry of 640 digits": (b"retry: 00" + b"8" * 640 + b"\n\n", [], "", int("8" * 640)),
    "retry that int() refuses": (b"retry: " + b"1" * 4301 + b"\n\n", [], "", LARGEST_RETRY),
    "multi-byte characters": (
        "data: é€😀\n\nevent: é\ndata: 😀\n\n".encode(),
        [message("é€😀"), SseChunk("😀", "é")],
        "",
        None,
    ),
    "invalid UTF-8": (
        b"data: a\xffb\xe2\x82c\xf0\x9f\x98\n\nevent: \xc0\ndata: \xed\xa0\x80\n\nid: \x80\ndata: x\n\n",
        [message("a\ufffdb\ufffdc\ufffd"), SseChunk("\ufffd" * 3, "\ufffd"), message("x", "\ufffd")],
        "\ufffd",
        None,
    ),
    "a name without data before one with": (b"event: a\n\nevent: b\ndata: c\n\n", [SseChunk("c", "b")], "", None),
    "a regular name, then more fields": (
        b"event: a\nid: 1\ndata: b\n\nevent: c\ndata: d\ndata: e\n\n",
        [SseChunk("b", "a", "1"), SseChunk("d\ne", "c", "1")],
        "1",
        None,
    ),
    "two regular shapes": (b"event: a\ndata: b\n\ndata: c\n\n", [SseChunk("b", "a"), message("c")], "", None),
    "data lines after regular events": (b"data: a\n\ndata: b\ndata: c\n\n", [message("a"), message("b\nc")], "", None),
}


@pytest.mark.parametrize("name", STREAMS)
def test_streams(name: str) -> None:
    stream, *expected = STREAMS[name]
    assert list(decode([stream])) == expected
    assert list(decode(single_bytes(stream))) == expected
    for place in range(len(stream) + 1):
        assert list(decode([stream[:place], stream[place:]])) == expected
    for place in range(len(stream)):  # with an empty piece, and a single byte between two others
        assert list(decode([stream[:place], b"", stream[place : place + 1], stream[place + 1 :]])) == expected


@pytest.mark.parametrize("name", STREAMS)
def test_the_reference_agrees_with_the_table(name: str) -> None:
    stream, *expected = STREAMS[name]
    reference = Reference().run(stream)
    assert [reference.chunks, reference.last_event_id, reference.retry_ms] == expected


def test_events_come_with_the_piece_that_completes_them() -> None:
    decoder = SseDecoder()
    assert decoder.feed(b"data: a\n") == []
    assert decoder.feed(b"\n") == [message("a")]
    assert decoder.feed(b"data: b\r\r") == [message("b")], "not waiting for an LF"
    assert decoder.feed(b"\ndata: c\n\ndata: d\n\ndat") == [message("c"), message("d")]
    assert decoder.feed(b"a: e\n\n") == [message("e")]


def test_ids_and_retries_are_seen_at_once() -> None:
    decoder = SseDecoder()
    decoder.feed(b"retry: 10\nid: 7\n")
    assert (decoder.retry_ms, decoder.last_event_id) == (10, "")
    decoder.feed(b"\n")
    assert decoder.last_event_id == "7"


def test_a_resumed_stream_starts_with_its_last_event_id() -> None:
    assert decode([b"data: a\n\nid: 8\ndata: b\n\n"], last_event_id="7") == (
        [message("a", "7"), message("b", "8")],
        "8",
        None,
    )
    assert SseDecoder(last_event_id="7").last_event_id == "7"


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"", []),
        (b"data: a\n\n", []),
        (b"data: a\n", [message("a")]),
        (b"data: a", [message("a")]),
        (b"data: a\nda", [message("a")]),
        (b"data: a\ndata: b", [message("a\nb")]),
        (b"data: a\r", [message("a")]),
        (b"data: a\n: comment", [message("a")]),
        (b"data: \xe2\x82", [message("\ufffd")]),
        (b"event: x\nid: 1\ndata", [SseChunk("", "x", "1")]),
        (b"data: a\nid: 1", [message("a", "1")]),
        (b"event: x", []),
        (b"\xef\xbb", []),
    ],
)
def test_an_incomplete_event_is_dispatched_if_asked_for(stream: bytes, expected: list[SseChunk]) -> None:
    for pieces in ([stream], single_bytes(stream)):
        decoder = SseDecoder()
        for piece in pieces:
            decoder.feed(piece)
        assert decoder.finish(dispatch_incomplete=True) == expected
        assert decoder.last_event_id == (expected[0].id if expected else "")


def test_any_bytes_like_object() -> None:
    stream = b"event: x\ndata: a\n\n" * 2
    expected = [SseChunk("a", "x")] * 2
    words = array.array("H", stream)
    spread = memoryview(b"".join(bytes((byte, 0)) for byte in stream))[::2]
    for data in (bytearray(stream), memoryview(stream), memoryview(words), spread):
        assert SseDecoder().feed(data) == expected


def test_a_buffer_may_be_reused_by_its_owner() -> None:
    decoder, buffer = SseDecoder(), bytearray(b"data: a")
    decoder.feed(buffer)
    buffer[:] = b"xxxxxxxxxx"
    assert decoder.feed(b"\n\n") == [message("a")]


@pytest.mark.parametrize("data", ["data: a\n\n", 5, None, [100]])
def test_what_is_not_bytes_is_refused_and_changes_nothing(data: object) -> None:
    decoder = SseDecoder()
    decoder.feed(b"data: a\n")
    with pytest.raises(TypeError):
        decoder.feed(data)  # type-checked callers cannot
    assert decoder.feed(b"\n") == [message("a")]


def test_chunks_are_values() -> None:
    assert SseChunk("a") == SseChunk("a", "message", "") == SseChunk(data="a", event="message", id="")
    assert len({SseChunk("a"), SseChunk("a"), SseChunk("a", "x"), SseChunk("a", id="1")}) == 3
    with pytest.raises(AttributeError):
        SseChunk("a").data = "b"  # frozen


@pytest.mark.parametrize("value", [0, -1, True, 1.5, float("nan"), "1", None])
def test_a_limit_out_of_range_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"max_event_bytes: .* from 1 up"):
        SseDecoder(max_event_bytes=value)


@pytest.mark.parametrize("value", [b"1", 1, None])
def test_a_last_event_id_is_text(value: object) -> None:
    with pytest.raises(ValueError, match="last_event_id: "):
        SseDecoder(last_event_id=value)


@pytest.mark.parametrize("dispatch_incomplete", [False, True])
def test_a_finished_decoder_takes_nothing_more(dispatch_incomplete: bool) -> None:
    decoder = SseDecoder()
    decoder.feed(b"id: 1\nretry: 2\n\ndata: a")
    decoder.finish(dispatch_incomplete=dispatch_incomplete)
    for data in (b"", b"data: a\n\n"):
        with pytest.raises(RuntimeError, match="finished"):
            decoder.feed(data)
    with pytest.raises(RuntimeError, match="finished"):
        decoder.finish()
    assert (decoder.last_event_id, decoder.retry_ms) == ("1", 2)


# The limit.


@pytest.mark.parametrize(
    ("within", "beyond"),
    [
        (b"data: 456789\n\n", b"data: 4567890\n\n"),  # a line: all of its bytes, not its end
        (b"data: 456789", b"data: 4567890"),
        (b"data: 456789\r\n\r\n", b"data: 4567890\r\n\r\n"),
        (b": 3456789012\n", b": 34567890123\n"),
        (b": 3456789012", b": 34567890123"),
        (b"unknown: 012\n", b"unknown: 0123\n"),
        (b"data: 78\ndata: 678\n\n", b"data: 78\ndata: 6789\n\n"),  # data before it: each value and an LF
        (b"data\ndata\ndata: 3456\n\n", b"data\ndata\ndata: 34567\n\n"),
        (b"id: 1\ndata: 6789\n\n", b"id: 1\ndata: 67890\n\n"),
        (b"id\ndata: 56789\n\n", b"id\ndata: 567890\n\n"),
        (b"event: x\ndata: 56789\n\n", b"event: x\ndata: 567890\n\n"),
        (b"event: x\nevent\ndata: 456789\n\n", b"event: x\nevent\ndata: 4567890\n\n"),
        (b": 3456789012\n" * 9, b": 3456789012\n" * 9 + b"data: 4567890"),  # what was ignored is not held
        (b"data: 456789\n\n" * 9, b"data: 456789\n\n" * 9 + b"data: 4567890"),
        (b"id: 1\n\ndata: 456789\n\n", b"id: 1\n\ndata: 4567890\n\n"),
        (BOM + b"data: 456789\n\n", BOM + b"data: 4567890\n\n"),
    ],
)
def test_the_limit_is_met_at_the_same_byte_however_the_stream_is_cut(within: bytes, beyond: bytes) -> None:
    for pieces in ([within], single_bytes(within), *([within[:i], within[i:]] for i in range(len(within)))):
        run_limited(pieces, 12, failed=False)
    for pieces in ([beyond], single_bytes(beyond), *([beyond[:i], beyond[i:]] for i in range(len(beyond)))):
        run_limited(pieces, 12, failed=True)


def run_limited(pieces: Sequence[bytes], limit: int, *, failed: bool) -> list[SseChunk]:
    """All chunks; a failure shows at the latest at the end, and lasts."""
    decoder, chunks = SseDecoder(max_event_bytes=limit), []
    try:
        for piece in pieces:
            chunks += decoder.feed(piece)
        decoder.finish()
    except SseLimitExceeded:
        assert failed
        for last in (lambda: decoder.feed(b""), lambda: decoder.feed(b"data: a\n\n"), decoder.finish):
            with pytest.raises(SseLimitExceeded):
                last()
    else:
        assert not failed
    return chunks


def test_chunks_before_the_limit_are_not_lost() -> None:
    decoder = SseDecoder(max_event_bytes=20)
    assert decoder.feed(b"data: a\n\ndata: b\n\ndata: " + b"c" * 20) == [message("a"), message("b")]
    with pytest.raises(SseLimitExceeded):
        decoder.feed(b"")


def test_the_error_names_the_limit() -> None:
    decoder = SseDecoder(max_event_bytes=1000)
    decoder.feed(b": ping\n")
    for _ in range(1000):
        decoder.feed(b"x")
    with pytest.raises(SseLimitExceeded, match="max_event_bytes=1000") as caught:
        decoder.feed(b"x")
    assert caught.value.max_event_bytes == 1000
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_keep_alive_comments_never_add_up() -> None:
    decoder = SseDecoder(max_event_bytes=30)
    for _ in range(1000):
        assert decoder.feed(b": keep-alive\n") == []
    assert decoder.feed(b"data: a\n\n") == [message("a")]


@pytest.mark.parametrize("piece", [b"data:\n", b"data: ab\n", b"xx"])
def test_what_is_held_takes_about_its_bytes_and_grows_in_place(piece: bytes) -> None:
    """No object for each piece or line, and no copy of it all for the next (work would be quadratic)."""
    decoder, size = SseDecoder(), 1 << 19
    decoder.feed(b"data: a\ndata: b\n")
    tracemalloc.start()
    for _ in range(size // len(piece)):
        decoder.feed(piece)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    for _ in range(100):
        decoder.feed(piece)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 1.3 * size
    assert peak < held + 0.2 * size


@pytest.mark.parametrize("size", [1, 64])
def test_a_large_event_in_small_pieces(size: int) -> None:
    value = b"0123456789abcdef" * (4_000_000 * size // 64 // 16)
    for stream, expected in [
        (b"data: " + value + b"\n\n", [message(value.decode())]),
        (b":" + value + b"\n\ndata: a\n\n", [message("a")]),
        (b"data: " + value.replace(b"f", b"\ndata: ") + b"\n\n", [message(value.decode().replace("f", "\n"))]),
    ]:
        decoder, chunks = SseDecoder(), []
        for start in range(0, len(stream), size):
            chunks += decoder.feed(stream[start : start + size])
        assert chunks == expected


# A stream that has been regular for a while, and what may come then.

REGULAR_SO_FAR = {
    "data": (b"data: one\n\n" * 2, message("one")),
    "named": (b"event: n\ndata: one\n\n" * 2, SseChunk("one", "n")),
}
GOES_ON = [
    b"data: a\n\ndata: b\n\ndata: c\n\n",
    b"event: n\ndata: a\n\nevent: n\ndata: b\n\nevent: n\ndata: c\n\n",
    b"event: n\ndata: a\n\nevent: m\ndata: b\n\nevent: m\ndata: c\n\nevent: n\ndata: d\n\n",
    b"event: n\ndata: a\n\ndata: b\n\nevent: n\ndata: c\n\n",
    b"data: a\n\nevent: n\ndata: b\n\ndata: c\n\n",
    "data: ä€\n\ndata: 😀\n\nevent: n\ndata: ö\n\nevent: n\ndata: ß😀\n\n".encode(),
    b"data: \xff\n\ndata: \xe2\x82\n\nevent: n\ndata: \xf0\x9f\n\nevent: n\ndata: x\n\n",
    b"event: \xff\ndata: a\n\nevent: \xff\ndata: b\n\nevent: \xef\xbf\xbd\ndata: c\n\nevent: \xff\ndata: d\n\n",
    b"data: a\ndata: b\n\ndata: c\n\n",
    b"event: n\ndata: a\ndata: b\n\nevent: n\ndata: c\n\n",
    b"data: a\n\nid: 7\ndata: b\n\ndata: c\n\nevent: n\ndata: d\n\n",
    b"id: 7\nevent: n\ndata: a\n\nevent: n\ndata: b\n\nevent: n\ndata: c\n\n",
    b"data: a\r\n\r\ndata: b\r\n\r\nevent: n\r\ndata: c\r\n\r\n",
    b"data: a\rdata: b\n\ndata: c\r\rdata: d\n\n",
    b"data: data: a\n\ndata: event: n\n\nevent: n\ndata: data: b\n\n",
    b"data: \n\ndata: \n\nevent: n\ndata: \n\nevent: n\ndata: \n\n",
    b"data: a\n\n\n\ndata: b\n\n: ping\n\ndata: c\n\n",
    b"event: nn\ndata: a\n\nevent: n\nretry: 5\ndata: b\n\nevent:n\ndata: c\n\n",
]


@pytest.mark.parametrize("shape", REGULAR_SO_FAR)
@pytest.mark.parametrize("rest", GOES_ON)
def test_a_regular_stream_may_go_on_in_any_way(shape: str, rest: bytes) -> None:
    """What was expected of it makes no difference, wherever the pieces are cut."""
    begun, first = REGULAR_SO_FAR[shape]
    reference = Reference().run(begun + rest)
    expected = (reference.chunks, reference.last_event_id, reference.retry_ms)
    assert reference.chunks[:2] == [first, first]
    events = rest.replace(b"\n\n", b"\n\n|").split(b"|")
    assert decode([begun, *events]) == expected
    for one in range(len(rest) + 1):
        assert decode([begun, rest[:one], rest[one:]]) == expected
        for other in range(one, len(rest) + 1, 5):
            assert decode([begun, begun, rest[:one], rest[one:other], rest[other:]])[0][2:] == reference.chunks


@pytest.mark.parametrize("shape", REGULAR_SO_FAR)
@pytest.mark.parametrize(
    "cut_off", [b"event: n\ndata: ab", b"data: ab", b"data: a\xe2", b"event: n\nda", b"event: n\ndata: a\nid: 3"]
)
def test_a_regular_stream_may_end_anywhere(shape: str, cut_off: bytes) -> None:
    begun, _ = REGULAR_SO_FAR[shape]
    reference = Reference().run(begun + cut_off, dispatch_incomplete=True)
    for place in range(len(cut_off) + 1):
        for dispatch_incomplete in (False, True):
            decoder = SseDecoder()
            chunks = [chunk for piece in (begun + cut_off[:place], cut_off[place:]) for chunk in decoder.feed(piece)]
            chunks += decoder.finish(dispatch_incomplete=dispatch_incomplete)
            assert chunks == reference.chunks[: None if dispatch_incomplete else 2]


BUSY = {
    "data": [f"data: {word * 7}\n\n" for word in ("one", "two", "three", "four", "five", "six")],
    "named": [f"event: n\ndata: {word * 7}\n\n" for word in ("one", "two", "three", "four", "five", "six")],
    "not ASCII": [f"data: {word * 5}\n\n" for word in ("ä", "a€", "😀", "x", "ß", "日本")],
    "openings as data": [f"data: {word}data: event: n\n\n" for word in "abcdef"],
}
BETWEEN = [
    "",
    "data: a\ndata: b\n\n",
    "id: 7\ndata: c\n\n",
    "event: m\ndata: d\n\n",
    ": ping\n\n",
    "data: e\r\n\r\n",
    "data: f\rdata: g\n\n",
    "\n",
]


@pytest.mark.parametrize("begin", ["", "id: 9\n\n", "\ufeff"])
@pytest.mark.parametrize("shape", BUSY)
def test_a_busy_stream_may_be_cut_anywhere(shape: str, begin: str) -> None:
    """Every size of piece, so that events are cut everywhere while the stream is regular; with something else amid it."""
    for other in BETWEEN:
        stream = (begin + "".join([*BUSY[shape], other, *BUSY[shape]])).encode()
        reference = Reference().run(stream)
        for size in range(1, 150):
            pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
            assert decode(pieces) == (reference.chunks, reference.last_event_id, None), (other, size)


@pytest.mark.parametrize("shape", REGULAR_SO_FAR)
def test_a_field_counts_at_once_in_a_regular_stream(shape: str) -> None:
    decoder, (begun, _) = SseDecoder(), REGULAR_SO_FAR[shape]
    decoder.feed(begun)
    decoder.feed(begun + begun[: len(begun) // 2 - 1] + b"retry: 5\n")
    assert decoder.retry_ms == 5


@pytest.mark.parametrize("shape", REGULAR_SO_FAR)
def test_the_limit_holds_in_a_regular_stream(shape: str) -> None:
    begun, _ = REGULAR_SO_FAR[shape]
    opening = begun[: begun.index(b"one")]
    for first in range(0, 420, 20):
        for second in range(0, 420, 20):
            pieces = [begun, begun + opening + b"x" * first, b"y" * second + b"\n\n" + opening + b"z", b"\n\n"]
            reference = Reference(limit=400).run(b"".join(pieces))
            assert run_limited(pieces, 400, failed=reference.failed) == reference.chunks


@pytest.mark.parametrize("shape", REGULAR_SO_FAR)
def test_a_value_without_end_in_a_regular_stream_meets_the_limit(shape: str) -> None:
    begun, _ = REGULAR_SO_FAR[shape]
    decoder = SseDecoder(max_event_bytes=1000)
    decoder.feed(begun)
    decoder.feed(begun + begun[: begun.index(b"one")] + b"x")
    room = 1000 - len(b"data: x")
    for _ in range(room - len(begun) // 2):
        assert decoder.feed(b"y") == []
    pieces = [b"y"] * (len(begun) // 2 + 1)
    with pytest.raises(SseLimitExceeded):
        list(map(decoder.feed, pieces))


@pytest.mark.parametrize("name", ["n", "n" * 100, "n" * 101, "n" * 5000])
def test_a_type_of_any_length_may_come_again(name: str) -> None:
    event = f"event: {name}\ndata: a\n\n".encode()
    for pieces in ([event] * 5, [event * 5], cut(event * 5, range(0, 5 * len(event), 7))):
        assert decode(pieces)[0] == [SseChunk("a", name)] * 5


def test_what_is_expected_takes_little_memory() -> None:
    event = b"event: " + b"n" * 100_000 + b"\ndata: a\n\n"
    decoder = SseDecoder()
    tracemalloc.start()
    for _ in range(5):
        decoder.feed(event)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 5_000


# Properties: any stream, cut anywhere, gives what the reference says.

FIELDS = (b"data: ", b"data:", b"data", b"event: ", b"event", b"id: ", b"id", b"retry: ", b":", b" ")
LINE_ENDS = (b"\n", b"\r", b"\r\n", b"\n\n")
VALUES = (b"a", b"1", b"\0", "é".encode(), "😀".encode(), "\u2028".encode(), b"\x85", b"\x0c", b"\xe2\x82", b"\xff", BOM)
EVENTS = (b"data: x\n\n", b"event: n\ndata: y\n\n", b"id: 1\n", b": c\n\n", b"data: p\ndata: q\n\n", b"data: z\r\n\r\n")
TOKENS = st.sampled_from(FIELDS + LINE_ENDS + VALUES + EVENTS)
SOUP = st.lists(TOKENS | st.binary(max_size=3), max_size=25).map(b"".join)
LINE_END = st.sampled_from([b"\n", b"\n", b"\n", b"\r", b"\r\n"])
EVENT = st.lists(st.sampled_from([b"data: x", b"data: {}", b"data:y", b"event: n", b"id: 7", b": c", b""]), max_size=4)
REGULAR = st.tuples(EVENT | st.sampled_from([[b"data: x"], [b"event: n", b"data: x"]]), LINE_END).map(
    lambda event: b"".join(line + event[1] for line in [*event[0], b""])
)
STREAM = SOUP | st.lists(REGULAR, max_size=8).map(b"".join)
PLACES = st.lists(st.integers(0, 300), max_size=8)


@settings(max_examples=200)
@given(STREAM, PLACES)
def test_every_split_gives_what_the_standard_says(stream: bytes, places: list[int]) -> None:
    reference = Reference().run(stream)
    expected = (reference.chunks, reference.last_event_id, reference.retry_ms)
    assert decode(cut(stream, places)) == expected
    assert decode(single_bytes(stream)) == expected
    assert decode([stream]) == expected


@settings(max_examples=150)
@given(STREAM, PLACES)
def test_every_split_finishes_alike(stream: bytes, places: list[int]) -> None:
    reference = Reference().run(stream, dispatch_incomplete=True)
    for pieces in (cut(stream, places), single_bytes(stream)):
        decoder = SseDecoder()
        chunks = [chunk for piece in pieces for chunk in decoder.feed(piece)]
        assert chunks + decoder.finish(dispatch_incomplete=True) == reference.chunks
        assert (decoder.last_event_id, decoder.retry_ms) == (reference.last_event_id, reference.retry_ms)


@settings(max_examples=200)
@given(STREAM, PLACES, st.integers(1, 40))
def test_every_split_meets_the_limit_after_the_same_chunks(stream: bytes, places: list[int], limit: int) -> None:
    reference = Reference(limit=limit).run(stream)
    for pieces in (cut(stream, places), single_bytes(stream), [stream]):
        assert run_limited(pieces, limit, failed=reference.failed) == reference.chunks


LONG_EVENTS = st.sampled_from(
    [
        b"data: " + b"x" * 30 + b"\n\n",
        b"event: n\ndata: " + b"y" * 20 + b"\n\n",
        "data: é€😀\n\n".encode(),
        b"event: n\ndata: z\n\n",
        b"event: other\ndata: z\n\n",
        b"data: 1\r\n\r\n",
        b"id: 1\ndata: 2\n\n",
        b"data: a\ndata: b\n\n",
    ]
)


@settings(max_examples=200)
@given(st.lists(LONG_EVENTS, max_size=25).map(b"".join), st.lists(st.integers(0, 1000), max_size=25), st.integers(20, 900))
def test_every_split_of_a_long_stream(stream: bytes, places: list[int], limit: int) -> None:
    """Limits that matter to none of these events, to some, and to what `feed` takes by itself."""
    reference = Reference(limit=limit).run(stream)
    for pieces in (cut(stream, places), [stream[:40], stream[40:]]):
        assert run_limited(pieces, limit, failed=reference.failed) == reference.chunks


@settings(max_examples=150)
@given(st.lists(st.binary(max_size=200)))
def test_any_bytes_are_taken(pieces: list[bytes]) -> None:
    reference = Reference().run(b"".join(pieces))
    assert decode(pieces) == (reference.chunks, reference.last_event_id, reference.retry_ms)
