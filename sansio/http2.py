"""One HTTP/2 client connection as a machine over h2: bytes out, bytes in, many streams between (RFC 9113).

h2 has the header compression, the settings, the states of the streams and what may be sent; frames are handed to it one
at a time, so that what came before a malformed one is kept. Three kinds of frame are dealt with here:

- DATA, because nearly everything that comes is DATA, and a frame of it costs h2 ten times what it costs here. So the
  receiving windows are kept here too. The connection's window is credited as bytes come, a stream's as its bytes are
  *taken*: unread bytes are bounded by the stream's window, and a slow reader holds up nobody but itself.
- GOAWAY, because h2 takes it for the end of everything; yet the streams it does not disown go on.
- SETTINGS, of which h2 would keep whatever a peer makes up.

A stream's failure is its own (RST_STREAM); what breaks the framing or the compression breaks the connection (GOAWAY), and so
does what h2 judges by itself: a content-length that is no number, trailers or an informational head that end a stream.
"""

from __future__ import annotations

import enum
import functools
import struct
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from .errors import ForeignError, InferenceError, NetworkError, ProtocolError
from .http import END, EndOfResponse, HttpEvent, HttpRequest, ResponseHead
from .http2_fields import malformed, request_fields, response_head
from .http_checks import MAX_HEAD_BYTES, coded, past_bound, too_large
from .scrub import excerpt

if TYPE_CHECKING:
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from hpack.struct import Header

STREAM_WINDOW = 256 * 1024
"""Bytes a stream may hold that nobody has taken yet."""

MAX_STREAMS = 100
"""The most streams opened at a time, whatever the peer allows; also assumed until its SETTINGS have come."""

_CONNECTION_WINDOW = 1024 * 1024  # credited on receipt, so it bounds what is on the way, not what is kept
_DEFAULT_WINDOW = 65_535
_MAX_FRAME = 16_384  # what SETTINGS_MAX_FRAME_SIZE starts with, in both directions; nothing here changes it
_MAX_BLOCK_BYTES = 2 * MAX_HEAD_BYTES  # a header block beyond this is not even decoded: that breaks the connection
_MAX_ANSWERS_BYTES = 64 * 1024  # what a peer may make us say without reading it
_MAX_TABLE = 4096  # of our header compression: it is searched entry by entry
_LAST_ID = 2**31 - 1

_HEADER = struct.Struct("!HBBBL")  # a frame's: length in 24 bits, type, flags, stream
_GOAWAY = struct.Struct("!LL")
_SETTING = struct.Struct("!HL")
_WINDOW_UPDATE = struct.Struct("!HBBBLL")

_DATA, _HEADERS, _SETTINGS, _PUSH_PROMISE, _GO_AWAY, _CONTINUATION = 0x0, 0x1, 0x4, 0x5, 0x7, 0x9
"""Types of frames (RFC 9113, section 6). Plain numbers: members of an enumeration took a quarter of the time of DATA."""

_END_STREAM, _ACK, _END_HEADERS, _PADDED = 0x1, 0x1, 0x4, 0x8
"""Their flags."""


class _Code(enum.IntEnum):
    """RFC 9113, section 7."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class _Stream:
    """One exchange: what is left to send of it, and what came and was not taken yet."""

    __slots__ = ("begun", "bodiless", "body", "expected", "head", "id", "last", "owed", "received", "unsent", "window")

    def __init__(self, stream_id: int, request: HttpRequest) -> None:
        self.id = stream_id
        self.unsent = memoryview(request.body)
        self.bodiless = request.method == "HEAD"
        self.begun = False  # the head has come
        self.expected: int | None = None  # how long the body is to be
        self.received = 0  # of the body
        self.window = STREAM_WINDOW  # what the peer may still send
        self.owed = 0  # what was taken and is not credited yet: unread + owed + window = STREAM_WINDOW
        self.head: ResponseHead | None = None
        self.body = bytearray()  # not a list of pieces: a piece of one byte must not cost forty
        self.last: EndOfResponse | InferenceError | None = None


class Http2Connection:
    """The client's side of one connection, many exchanges at a time.

    `send` opens a stream, `receive` takes what the socket read. After either, and after `take` and `reset`, write what
    `outgoing` gives. `take` has a stream's events: a head, body, then `END` or an error, which is a
    `NetworkError` (lost or reset; ``unprocessed`` where the server says so) or a `ProtocolError` (not HTTP/2, past a bound,
    or a body in a content coding, none of which is asked for). No byte that comes makes anything raise.

    Raises `ImportError` without the extra ``http2``.
    """

    __slots__ = (
        "_answers_bytes", "_awaits", "_block_bytes", "_broken", "_farewell", "_h2", "_need", "_news", "_next_id", "_open",
        "_out", "_peer_limit", "_rest", "_streams", "_uncredited", "_uploads", "_usable",
    )  # fmt: skip

    def __init__(self) -> None:
        self._h2 = _begin()
        self._out = bytearray(self._h2.data_to_send())
        self._out += _window_update(0, _CONNECTION_WINDOW - _DEFAULT_WINDOW)
        self._answers_bytes = 0  # what of it answers frames of the peer
        self._streams: dict[int, _Stream] = {}  # until the last event of each is taken
        self._open = 0  # those that are not over
        self._uploads: deque[_Stream] = deque()  # those with a body to send, the next one first
        self._next_id = 1
        self._peer_limit = MAX_STREAMS
        self._usable = True
        self._broken = False  # nothing is read any more
        self._farewell = ""  # what the peer's GOAWAY said
        self._awaits: int | None = _SETTINGS  # the only frame that may come next; None: any
        self._block_bytes = 0  # of the header block that is under way
        self._rest = bytearray()  # the beginning of a frame
        self._need = _HEADER.size  # bytes of it before there is something to do
        self._uncredited = 0  # bytes that came and are not credited to the connection's window yet
        self._news: dict[int, None] = {}  # the streams that have news, in order, within one `receive`

    @property
    def usable(self) -> bool:
        """Whether this connection will ever take another request: not after GOAWAY, a failure, or the last stream id."""
        return self._usable and self._next_id <= _LAST_ID

    @property
    def settled(self) -> bool:
        """Whether the peer has said what it takes: its SETTINGS have come, before which `capacity` is a guess."""
        return self._awaits != _SETTINGS

    @property
    def capacity(self) -> int:
        """How many more streams may be opened now."""
        if not self._usable:
            return 0
        ids_left = (_LAST_ID - self._next_id) // 2 + 1
        return max(0, min(MAX_STREAMS - self._open, self._peer_limit - self._open, ids_left))

    @property
    def open_streams(self) -> int:
        """How many streams are not over."""
        return self._open

    def send(self, request: HttpRequest) -> int:
        """Open a stream for ``request`` and give its id.

        Raises `RuntimeError` while `capacity` is 0, `ValueError` for ``CONNECT``: what follows its answer is not HTTP.
        The body follows in `outgoing` as the peer's windows let it, the streams taking turns frame by frame.
        """
        if not self.capacity:
            raise RuntimeError("this connection cannot carry another request")
        if request.method == "CONNECT":
            raise ValueError("method: CONNECT asks for a tunnel, and this connection is none")
        stream = _Stream(self._next_id, request)
        self._h2.send_headers(stream.id, request_fields(request), end_stream=not request.body)
        self._flush()
        self._next_id += 2
        self._streams[stream.id] = stream
        self._open += 1
        if request.body:
            self._uploads.append(stream)
        return stream.id

    def outgoing(self) -> bytes:
        """What is to be written now, of the bodies as much as the peer's windows let go; ``b""``: nothing."""
        if self._uploads:
            self._upload()
        data = bytes(self._out)
        self._out.clear()
        self._answers_bytes = 0
        return data

    def take(self, stream_id: int) -> list[HttpEvent]:
        """The news of a stream, its body in one piece; nothing for one that is not known (any more).

        The peer may send anew what is taken. With `END` or an error the stream is forgotten.
        """
        stream = self._streams.get(stream_id)
        if stream is None:
            return []
        events: list[HttpEvent] = []
        if stream.head is not None:
            events.append(stream.head)
            stream.head = None
        if body := stream.body:
            events.append(bytes(body))
            stream.owed += len(body)
            stream.body = bytearray()
        if stream.last is not None:
            events.append(stream.last)
            del self._streams[stream_id]
        else:
            self._credit(stream)
        return events

    def reset(self, stream_id: int) -> None:
        """Forget a stream that nobody wants any more; unless it is over, the peer is told (CANCEL)."""
        stream = self._streams.pop(stream_id, None)
        if stream is not None and stream.last is None:
            self._close(stream, _Code.CANCEL)

    def receive(self, data: bytes) -> list[int]:
        """The streams that have news in these bytes, in the order of their first; ``b""``: the peer has closed."""
        if self._broken:
            return []
        self._news = {}
        if data == b"":
            self._hang_up()
        elif not self._rest:
            self._read(data)
        else:
            self._rest += data
            if len(self._rest) >= self._need:
                data = bytes(self._rest)
                self._rest.clear()
                self._read(data)
        return list(self._news)

    # ---- frames --------------------------------------------------------------------------------------------------------

    def _read(self, data: bytes) -> None:
        at, end = 0, len(data)
        self._need = _HEADER.size
        while end - at >= _HEADER.size:
            high, low, kind, flags, stream_id = _HEADER.unpack_from(data, at)
            stream_id &= _LAST_ID
            payload = at + _HEADER.size
            after = payload + (high << 8 | low)
            if self._improper(after - payload, kind, flags, stream_id):
                return
            if after > end:
                self._need = after - at
                break
            if kind == _DATA and stream_id and self._awaits is None:
                self._data(data, payload, after, flags, stream_id)
            else:
                self._frame(data[at:after], kind, flags, stream_id)
            at = after
        self._rest += data[at:]

    def _improper(self, length: int, kind: int, flags: int, stream_id: int) -> bool:
        """Whether a frame is refused by its header alone: without waiting for its rest, which may never come.

        So is every frame behind one that broke the connection.
        """
        if self._broken:
            return True
        if self._awaits == _SETTINGS and (kind, flags & _ACK, stream_id) != (_SETTINGS, 0, 0):
            self._fail(_Code.PROTOCOL_ERROR, f"it does not begin with SETTINGS; {_SWITCH_OFF}")
        elif length > _MAX_FRAME:
            self._fail(_Code.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
        elif kind == _PUSH_PROMISE:
            self._fail(_Code.PROTOCOL_ERROR, "a pushed stream")
        elif stream_id and (stream_id >= self._next_id or not stream_id & 1) and kind in _OF_OPENED_STREAMS:
            self._fail(_Code.PROTOCOL_ERROR, "a frame on a stream that was never opened")
        return self._broken

    def _data(self, data: bytes, start: int, after: int, flags: int, stream_id: int) -> None:
        length = after - start
        self._uncredited += length
        if self._uncredited >= _CONNECTION_WINDOW // 2:
            self._out += _window_update(0, self._uncredited)
            self._uncredited = 0
        padding = 0
        if flags & _PADDED:
            padding = 1 + (data[start] if length else 0)
            if padding > length:
                return self._fail(_Code.PROTOCOL_ERROR, "padding longer than its frame")
            start += 1
        stream = self._streams.get(stream_id)
        if stream is None or stream.last is not None:
            return None  # of a stream that is over: on its way when it was reset
        body_bytes = length - padding
        stream.window -= length
        stream.received += body_bytes
        stream.owed += padding
        if stream.window < 0:
            self._end(stream, _garbled("more than its window lets it send"), _Code.FLOW_CONTROL_ERROR)
        elif not stream.begun:
            self._end(stream, _garbled("a body without a head"), _Code.PROTOCOL_ERROR)
        elif stream.expected is not None and stream.received > stream.expected:
            self._end(stream, _garbled("more than its content-length"), _Code.PROTOCOL_ERROR)
        else:
            if body_bytes:
                stream.body += data[start : start + body_bytes]
                self._news[stream_id] = None
            if flags & _END_STREAM:
                self._complete(stream)
            elif padding:
                self._credit(stream)
        return None

    def _frame(self, frame: bytes, kind: int, flags: int, stream_id: int) -> None:
        """Any frame but DATA; and DATA that is out of place, for h2 to refuse."""
        if self._awaits != _CONTINUATION:
            if kind > _CONTINUATION:
                return  # an extension: to be ignored (RFC 9113, section 5.5)
            if kind == _GO_AWAY and not stream_id and len(frame) >= _HEADER.size + _GOAWAY.size:
                self._go_away(frame[_HEADER.size :])
                return
            if kind == _SETTINGS:
                self._awaits = None
                frame = frame if flags & _ACK else self._sane_settings(frame)
        if kind in (_HEADERS, _CONTINUATION):
            self._awaits = None if flags & _END_HEADERS else _CONTINUATION
            self._block_bytes += len(frame)
        if self._block_bytes > _MAX_BLOCK_BYTES:
            stream = self._streams.get(stream_id)
            if stream is not None and stream.last is None:
                self._end(stream, past_bound(), None)  # the others may try again: that one would meet the same again
            self._fail(_Code.ENHANCE_YOUR_CALM, "a head without an end")
            return
        if self._awaits is None:
            self._block_bytes = 0
        self._feed(frame)

    def _sane_settings(self, frame: bytes) -> bytes:
        """A frame of SETTINGS without what is not to reach h2, which keeps anything and grows its table to any size."""
        if len(frame) % _SETTING.size != _HEADER.size % _SETTING.size:
            return frame  # h2 refuses it
        settings = dict(_SETTING.iter_unpack(frame[_HEADER.size :]))
        if _TABLE in settings:
            settings[_TABLE] = min(settings[_TABLE], _MAX_TABLE)
            if settings[_TABLE] == self._h2.encoder.header_table_size:
                del settings[_TABLE]  # told the same again, hpack would not announce the change before
        kept = b"".join(_SETTING.pack(name, settings[name]) for name in sorted(settings) if name <= _LAST_KNOWN_SETTING)
        return len(kept).to_bytes(3, "big") + frame[3 : _HEADER.size] + kept

    def _go_away(self, payload: bytes) -> None:
        last_id, code = _GOAWAY.unpack_from(payload)
        self._usable = False
        said = excerpt(payload[_GOAWAY.size :])[:200]
        self._farewell = f" (GOAWAY: {_name(code)}{': ' if said else ''}{said})"
        for stream in [
            stream for stream in self._streams.values() if stream.last is None and stream.id > last_id & _LAST_ID
        ]:
            message = f"the server did not take the request{self._farewell}"
            self._end(stream, NetworkError(message, unprocessed=not stream.begun), None)

    # ---- what h2 makes of them -----------------------------------------------------------------------------------------

    def _feed(self, frame: bytes) -> None:
        from h2.events import RemoteSettingsChanged, ResponseReceived, StreamReset, TrailersReceived
        from h2.exceptions import ProtocolError as Refused

        try:
            events = self._h2.receive_data(frame)
        except Refused as error:
            self._fail(None, excerpt(str(error))[:200] or type(error).__name__)  # it quotes what it met
            return
        self._answers_bytes += self._flush()
        if self._answers_bytes > _MAX_ANSWERS_BYTES:
            self._fail(_Code.ENHANCE_YOUR_CALM, "a flood of frames that want an answer")
            return
        for event in events:
            if isinstance(event, ResponseReceived):
                self._begin_response(self._streams[event.stream_id], event.headers, ended=event.stream_ended is not None)
            elif isinstance(event, TrailersReceived):
                self._take_trailers(self._streams[event.stream_id], event.headers)
            elif isinstance(event, StreamReset):
                self._was_reset(self._streams[event.stream_id], int(event.error_code or 0), by_peer=event.remote_reset)
            elif isinstance(event, RemoteSettingsChanged):
                self._peer_limit = self._h2.remote_settings.max_concurrent_streams
                if changes := self._h2.encoder.table_size_changes:  # the smallest and the last (RFC 7541, 4.2), not all
                    changes[:] = sorted({min(changes), changes[-1]})

    def _begin_response(self, stream: _Stream, fields: Iterable[Header], *, ended: bool) -> None:
        head = response_head(fields)
        stream.begun = True
        if isinstance(head, str):
            self._end(stream, _garbled(head), _Code.PROTOCOL_ERROR)
            return
        if problem := too_large(head.headers):
            self._end(stream, problem, _Code.CANCEL)
            return
        stream.head = head
        self._news[stream.id] = None
        if problem := coded(head.headers):  # its head is known and useful all the same
            self._end(stream, problem, _Code.CANCEL)
            return
        length = head.header("content-length")
        if stream.bodiless or head.status in (204, 304):
            stream.expected = 0
        elif length is not None:
            stream.expected = int(length)  # h2 has seen that it is a number
        if ended:
            self._complete(stream)

    def _take_trailers(self, stream: _Stream, fields: Iterable[Header]) -> None:
        if problem := malformed(fields):
            self._end(stream, _garbled(problem), _Code.PROTOCOL_ERROR)
        else:
            self._complete(stream)

    def _complete(self, stream: _Stream) -> None:
        if stream.expected is not None and stream.received != stream.expected:
            self._end(stream, _garbled("less than its content-length"), _Code.PROTOCOL_ERROR)
        else:  # a server may answer before it has read everything: it will not need the rest (RFC 9113, section 8.1)
            self._end(stream, END, _Code.NO_ERROR if stream.unsent else None)

    def _was_reset(self, stream: _Stream, code: int, *, by_peer: bool) -> None:
        if not by_peer:
            error: InferenceError = _garbled(_name(code))
        elif code == _Code.HTTP_1_1_REQUIRED:
            error = ProtocolError(f"the server wants HTTP/1.1 for this request; {_SWITCH_OFF}")
        else:
            unprocessed = code == _Code.REFUSED_STREAM and not stream.begun
            error = NetworkError(f"the server reset the stream: {_name(code)}", unprocessed=unprocessed, reset=True)
        self._end(stream, error, None)

    # ---- ends ----------------------------------------------------------------------------------------------------------

    def _end(self, stream: _Stream, last: EndOfResponse | InferenceError, code: _Code | None) -> None:
        stream.last = last
        self._news[stream.id] = None
        self._close(stream, code)

    def _close(self, stream: _Stream, code: _Code | None) -> None:
        """A stream is over. ``code``: what the peer is told; ``None``: nothing, it knows."""
        from h2.exceptions import ProtocolError as Refused

        self._open -= 1
        if stream.unsent:
            self._uploads.remove(stream)
            stream.unsent = _NOTHING
        try:
            self._h2.reset_stream(stream.id, code or 0)
        except Refused:
            return  # h2 has closed it already
        if code is None:
            self._h2.clear_outbound_data_buffer()
        else:
            self._flush()

    def _hang_up(self) -> None:
        self._broken, self._usable = True, False
        message = f"the connection was closed before the response ended{self._farewell}"
        for stream in self._unfinished():
            self._end(stream, NetworkError(message), None)

    def _fail(self, code: _Code | None, said: str) -> None:
        """The connection is of no use any more. ``code``: what the peer is told; ``None``: h2 has told it."""
        self._broken, self._usable = True, False
        if code is not None:
            self._h2.close_connection(code)
        self._flush()
        for stream in self._unfinished():
            self._end(stream, _garbled(said), None)

    def _unfinished(self) -> list[_Stream]:
        return [stream for stream in self._streams.values() if stream.last is None]

    # ---- what goes -----------------------------------------------------------------------------------------------------

    def _flush(self) -> int:
        data = self._h2.data_to_send()
        self._out += data
        return len(data)

    def _credit(self, stream: _Stream) -> None:
        if stream.owed >= STREAM_WINDOW // 2:  # in large steps, as every step is a frame
            self._out += _window_update(stream.id, stream.owed)
            stream.window += stream.owed
            stream.owed = 0

    def _upload(self) -> None:
        """One frame of each body in turn, as far as windows go."""
        blocked = 0
        while blocked < len(self._uploads):
            stream = self._uploads[0]
            size = min(len(stream.unsent), self._h2.local_flow_control_window(stream.id), _MAX_FRAME)
            if size <= 0:
                self._uploads.rotate(-1)
                blocked += 1
                continue
            blocked = 0
            piece, stream.unsent = stream.unsent[:size], stream.unsent[size:]
            self._h2.send_data(stream.id, piece, end_stream=not stream.unsent)
            self._flush()
            if stream.unsent:
                self._uploads.rotate(-1)
            else:
                self._uploads.popleft()
                stream.unsent = _NOTHING  # lets go of the whole body


_NOTHING = memoryview(b"")
_SWITCH_OFF = "if it speaks HTTP/1.1 only, switch HTTP/2 off for it"
_OF_OPENED_STREAMS = frozenset({0, 1, 3, 8, 9})  # DATA, HEADERS, RST_STREAM, WINDOW_UPDATE, CONTINUATION
_TABLE, _LAST_KNOWN_SETTING = 1, 6


def _begin() -> H2Connection:
    try:
        from h2.settings import SettingCodes, Settings
    except ImportError as error:
        raise ImportError('HTTP/2 needs the library h2: pip install "inference-remote-core[http2]"') from error
    connection = _connection_type()(_configuration())
    connection.local_settings = Settings(
        client=True,
        initial_values={
            SettingCodes.ENABLE_PUSH: 0,
            SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEAD_BYTES,
        },
    )
    connection.decoder.max_header_list_size = _MAX_BLOCK_BYTES
    connection.initiate_connection()
    return connection


@functools.cache
def _connection_type() -> type[H2Connection]:
    from h2.connection import H2Connection

    class Connection(H2Connection):
        MAX_CLOSED_STREAMS = 1000  # that h2 remembers; its own 65,536 come to megabytes on a connection that lives long

    return Connection


@functools.cache
def _configuration() -> H2Configuration:
    """The fields are written and checked in `http2_fields.py`."""
    from h2.config import H2Configuration

    return H2Configuration(
        client_side=True,
        validate_outbound_headers=False,
        normalize_outbound_headers=False,
        validate_inbound_headers=False,
        normalize_inbound_headers=False,
    )


def _window_update(stream_id: int, increment: int) -> bytes:
    return _WINDOW_UPDATE.pack(0, 4, 8, 0, stream_id, increment)


def _garbled(said: str) -> ProtocolError:
    error = ProtocolError(f"not HTTP/2: {said}", retryable=True)
    error.__cause__ = ForeignError("RemoteProtocolError", said)
    return error


def _name(code: int) -> str:
    return _Code(code).name if code in _Code.__members__.values() else f"error {code}"
