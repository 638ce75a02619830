"""A server of HTTP/2 for tests: one that writes frame by frame, legal or not (hyperframe), and one that reads (h2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import h2.config
import h2.connection
import h2.events
import h2.settings
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from sansio.errors import InferenceError
from sansio.http import END, HttpEvent, HttpRequest, ResponseHead
from sansio.http2 import Http2Connection

GET = HttpRequest("GET", "https://h/v1")
HEAD = HttpRequest("HEAD", "https://h/")
POST = HttpRequest("POST", "https://h/v1", (("content-type", "application/json"),), b"{}")
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
LAST_ID = 2**31 - 1

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR = 0, 1, 2, 3, 6
REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM, HTTP_1_1_REQUIRED = 7, 8, 11, 13


class Wire:
    """Writes the frames of a server, legal or not, with one compression context."""

    def __init__(self) -> None:
        self.encoder = Encoder()

    def block(self, fields: Iterable[tuple[str, str]]) -> bytes:
        return self.encoder.encode(
            [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields], huffman=False
        )

    def fields(self, stream: int, fields: Iterable[tuple[str, str]], *flags: str) -> bytes:
        return HeadersFrame(stream, self.block(fields), flags=["END_HEADERS", *flags]).serialize()

    def head(self, stream: int, *fields: tuple[str, str], status: str = "200", end: bool = False) -> bytes:
        return self.fields(stream, [(":status", status), *fields], *["END_STREAM"] * end)

    def trailers(self, stream: int, *fields: tuple[str, str]) -> bytes:
        return self.fields(stream, fields, "END_STREAM")


def continued(stream: int, block: bytes, *flags: str) -> bytes:
    """A header block in as many frames as it takes, and an empty one."""
    first, *others = pieces_of(block, 16_384)
    out = HeadersFrame(stream, first, flags=list(flags)).serialize()
    out += b"".join(ContinuationFrame(stream, piece).serialize() for piece in others)
    return out + ContinuationFrame(stream, flags=["END_HEADERS"]).serialize()


def data(stream: int, payload: bytes = b"", *, end: bool = False, padding: int | None = None) -> bytes:
    flags = ["END_STREAM"] * end + ["PADDED"] * (padding is not None)
    return DataFrame(stream, payload, pad_length=padding or 0, flags=flags).serialize()


def raw(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def set_to(**values: int) -> bytes:
    names = {name.lower(): getattr(SettingsFrame, name) for name in dir(SettingsFrame) if name.isupper()}
    return SettingsFrame(settings={names[name]: value for name, value in values.items()}).serialize()


def reset(stream: int, code: int) -> bytes:
    return RstStreamFrame(stream, code).serialize()


def go_away(last_id: int, code: int = NO_ERROR, said: bytes = b"") -> bytes:
    return GoAwayFrame(last_stream_id=last_id, error_code=code, additional_data=said).serialize()


def window(stream: int, increment: int) -> bytes:
    return WindowUpdateFrame(stream, increment).serialize()


GREETING = set_to()


def asked(*requests: HttpRequest, greeting: bytes = GREETING) -> Http2Connection:
    """A connection over which these requests went (streams 1, 3, 5 …), to a server that has greeted."""
    connection = Http2Connection()
    for request in requests:
        connection.send(request)
    assert connection.receive(greeting) == []
    written(connection)
    return connection


def written(connection: Http2Connection) -> bytes:
    """All there is to write."""
    out = connection.outgoing()
    assert connection.outgoing() == b""
    return out


def frames(out: bytes) -> list[Frame]:
    """What these bytes say, behind a preface."""
    view, read = memoryview(out.removeprefix(PREFACE)), list[Frame]()
    while view:
        frame, length = Frame.parse_frame_header(view[:9])
        frame.parse_body(view[9 : 9 + length])
        read.append(frame)
        view = view[9 + length :]
    return read


def resets(out: bytes) -> list[tuple[int, int]]:
    return [(frame.stream_id, frame.error_code) for frame in frames(out) if isinstance(frame, RstStreamFrame)]


def credits_of(out: bytes, stream: int) -> int:
    found = [frame for frame in frames(out) if isinstance(frame, WindowUpdateFrame) and frame.stream_id == stream]
    return sum(frame.window_increment for frame in found)


def farewells(out: bytes) -> list[int]:
    return [frame.error_code for frame in frames(out) if isinstance(frame, GoAwayFrame)]


def joined(events: Sequence[HttpEvent]) -> tuple[int | None, bytes, str | None]:
    """Status, whole body, and how it ended: ``"end"``, the kind of the error, or ``None`` while it goes on."""
    heads = [event for event in events if isinstance(event, ResponseHead)]
    assert len(heads) <= 1
    assert not heads or events[0] is heads[0]
    ends = [event for event in events if event is END or isinstance(event, InferenceError)]
    assert len(ends) <= 1
    assert not ends or events[-1] is ends[0]
    end = None if not ends else ends[0].kind if isinstance(ends[0], InferenceError) else "end"
    return (heads[0].status if heads else None), b"".join(e for e in events if isinstance(e, bytes)), end


def the_error(connection: Http2Connection, stream: int) -> InferenceError:
    error = connection.take(stream)[-1]
    assert isinstance(error, InferenceError)
    return error


class Server:
    """The server's side by h2: reads what the client writes, and fails on what is not HTTP/2."""

    def __init__(self, **values: int) -> None:
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="latin-1"))
        codes = {h2.settings.SettingCodes[name.upper()]: value for name, value in values.items()}
        self.h2.local_settings = h2.settings.Settings(client=False, initial_values=codes)
        self.h2.initiate_connection()
        self.bodies: dict[int, bytes] = {}
        self.heads: dict[int, list[tuple[str, str]]] = {}
        self.ended: set[int] = set()

    def reads(self, out: bytes) -> None:
        for event in self.h2.receive_data(out):
            if isinstance(event, h2.events.RequestReceived):
                self.heads[event.stream_id] = [(str(name), str(value)) for name, value in event.headers]
                self.bodies[event.stream_id] = b""
            elif isinstance(event, h2.events.DataReceived):
                self.bodies[event.stream_id] += event.data
            elif isinstance(event, h2.events.StreamEnded):
                self.ended.add(event.stream_id)

    def says(self) -> bytes:
        return self.h2.data_to_send()


def talk(connection: Http2Connection, server: Server) -> None:
    """Let both write and read until neither has anything to say."""
    while True:
        out, answer = written(connection), server.says()
        server.reads(out)
        if answer:
            connection.receive(answer)
        if not out and not answer:
            return


def pieces_of(wire: bytes, step: int) -> list[bytes]:
    return [wire[at : at + step] for at in range(0, len(wire), step)]


NUMBERS = b"".join(number.to_bytes(4, "big") for number in range(250_000))


def upload(length: int) -> HttpRequest:
    """A request with a body of so many bytes, no two frames of which are alike."""
    return HttpRequest("POST", "https://h/", (), NUMBERS[:length])


def sent_bytes(out: bytes, stream: int) -> int:
    return sum(len(frame.data) for frame in frames(out) if isinstance(frame, DataFrame) and frame.stream_id == stream)
