"""One accepted connection of the mock provider that speaks HTTP/2 (RFC 9113): framing by h2, and a clock for each stream.

Each stream is one exchange, with a reply, a schedule and faults of its own (`faults.py` says what each means here). Streams
that are due take turns, a frame each. What the client gives no window for is not drawn from its answer: one piece waits, its
stream stands still, the others go on. More streams than the limit, and those after a GOAWAY, are refused one by one.

Bytes go to h2 frame by frame, so that a bad frame costs nothing that came before it, however the bytes were split. A client
that sends GOAWAY is taken to leave. Whatever a client sends, nothing is raised.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from typing import Any, Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from hpack import Encoder

from .mock_exchange import (
    HTTP2_PREFACE,
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    Action,
    Answerer,
    Close,
    Cut,
    HttpAsk,
    Reply,
    Reset,
    Send,
)
from .response_plan import Data, Decline, End, Hangup, Head, Pause, Raw, Torn, Wire

_FRAME_HEAD: Final = 9
_DATA: Final = 0
_GOAWAY: Final = 7
_MAX_UNREAD_BYTES: Final = 1_048_576
"""So much may lie here for a client that makes us talk (pings, settings) and does not read."""
_OF_THE_CONNECTION: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"upgrade"}
)
"""Header fields that HTTP/2 does not have (RFC 9113, section 8.2.2)."""

_Fields = list[tuple[bytes, bytes]]


class MockHttp2:
    """The machine of one HTTP/2 connection (`Machine` says what its methods mean).

    max_streams: how many exchanges at once it takes and announces.
    """

    __slots__ = (
        *("_answerer", "_blocked", "_closed", "_ending", "_h2", "_heap", "_in", "_last_id", "_max_streams", "_now", "_out"),
        *("_preface_left", "_streams", "_turn", "_unix_now", "_used"),
    )

    def __init__(self, answerer: Answerer, max_streams: int) -> None:
        self._answerer = answerer
        self._max_streams = max_streams
        self._h2 = H2Connection(
            H2Configuration(client_side=False, validate_outbound_headers=False, normalize_outbound_headers=False)
        )
        self._h2.encoder = _PlainEncoder()
        announced = {SettingCodes.MAX_CONCURRENT_STREAMS: max_streams, SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEAD_BYTES}
        self._h2.local_settings = Settings(client=False, initial_values=announced)
        self._h2.initiate_connection()
        # h2 ends the connection over a stream too many; without a limit of its own it leaves that to us.
        self._h2.local_settings = Settings(client=False)
        self._in = bytearray()
        self._preface_left = len(HTTP2_PREFACE)
        self._out = bytearray(self._h2.data_to_send())
        self._streams: dict[int, _Stream] = {}
        self._heap: list[tuple[float, int, _Stream]] = []  # streams that go on by themselves: (when, whose turn, which)
        self._blocked: dict[int, _Stream] = {}  # streams that wait for window
        self._turn = 0
        self._used = False  # whether it has carried a request
        self._last_id: int | None = None  # the last stream that is still answered, once GOAWAY was said
        self._ending: Action | None = None
        self._closed = False
        self._now = -math.inf
        self._unix_now = 0.0

    @property
    def closed(self) -> bool:
        """Whether the connection has ended: no more actions will come."""
        return self._closed and self._ending is None

    def receive_data(self, data: bytes, now: float, unix_now: float) -> None:
        """Take bytes; ``b""``: the client has closed its side."""
        self._now, self._unix_now = max(self._now, now), unix_now
        if self._closed:
            return
        if not data:
            self._shut(Close(), "client_left")
            return
        self._in += data
        try:
            for frame in self._frames():
                for event in self._h2.receive_data(frame):
                    self._take(event)
                self._collect()  # at once, because h2 forgets it over a GOAWAY
        except ProtocolError:  # h2 has a GOAWAY ready, unless not even the preface was HTTP/2
            self._collect()
            self._shut(Close(), "cut_off")
        if len(self._out) > _MAX_UNREAD_BYTES:
            self._shut(Reset(), "cut_off")

    def actions(self, now: float, max_bytes: int | None = None) -> list[Action]:
        """What is due by ``now``; with ``max_bytes`` it stops soon after so many."""
        self._now = max(self._now, now)
        while (due := self._next_due()) is not None and due <= self._now:
            if max_bytes is not None and len(self._out) >= max_bytes:
                break
            self._step(heapq.heappop(self._heap)[2])
            self._collect()
        done: list[Action] = [Send(bytes(self._out))] if self._out else []
        self._out.clear()
        if self._ending is not None:
            done.append(self._ending)
            self._ending = None
        return done

    def deadline(self) -> float | None:
        """When `actions` has something to give; ``None`` if only the client can change that."""
        return self._now if self._out or self._ending is not None else self._next_due()

    def connection_lost(self, now: float) -> None:
        """The connection is gone, whoever ended it."""
        self._now = max(self._now, now)
        self._shut(None, "client_left")
        self._out.clear()
        self._ending = None

    # --- what comes in ------------------------------------------------------------------------------------------------

    def _frames(self) -> Iterator[bytes]:
        """The preface, as far as it has come, and then each whole frame. An overlong one is an error at its head."""
        if self._preface_left:
            piece = bytes(self._in[: self._preface_left])
            self._preface_left -= len(piece)
            del self._in[: len(piece)]
            yield piece
        while not self._closed and len(self._in) >= _FRAME_HEAD:
            length = int.from_bytes(self._in[:3], "big")
            if length > self._h2.max_inbound_frame_size:
                self._h2.close_connection(ErrorCodes.FRAME_SIZE_ERROR)
                raise ProtocolError
            if len(self._in) < _FRAME_HEAD + length:
                return
            frame = bytes(self._in[: _FRAME_HEAD + length])
            del self._in[: len(frame)]
            yield frame

    def _take(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            self._open(event.stream_id, event.headers)
        elif isinstance(event, DataReceived):
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if (stream := self._streams.get(event.stream_id)) is not None:
                stream.keep(event.data)
        elif isinstance(event, StreamEnded):
            if (stream := self._streams.get(event.stream_id)) is not None:
                self._respond(stream)
        elif isinstance(event, StreamReset):
            if (stream := self._streams.get(event.stream_id)) is not None:
                self._finish(stream, "client_left")
        elif isinstance(event, WindowUpdated) and event.stream_id:
            self._unblock(event.stream_id)
        elif isinstance(event, (WindowUpdated, RemoteSettingsChanged)):
            for stream_id in list(self._blocked):
                self._unblock(stream_id)
        elif isinstance(event, ConnectionTerminated):
            self._shut(Close(), "client_left")

    def _open(self, stream_id: int, fields: _Fields) -> None:
        if len(self._streams) >= self._max_streams or self._last_id is not None:
            self._h2.reset_stream(stream_id, ErrorCodes.REFUSED_STREAM)
            return
        self._streams[stream_id] = _Stream(stream_id, fields)
        if (b"expect", b"100-continue") in fields:
            self._h2.send_headers(stream_id, [(b":status", b"100")])

    def _respond(self, stream: _Stream) -> None:
        reused, self._used = self._used and len(self._streams) == 1, True
        stream.reply = self._answerer.respond(stream.ask(reused), self._now, self._unix_now)
        stream.wire = stream.reply.mangle(_frame(stream, stream.reply))
        stream.due = self._now
        self._queue(stream)

    # --- what goes out ------------------------------------------------------------------------------------------------

    def _queue(self, stream: _Stream) -> None:
        """It takes its turn when it is due, after those that are due at the same time already."""
        if stream.due < math.inf:
            self._turn += 1
            heapq.heappush(self._heap, (stream.due, self._turn, stream))

    def _unblock(self, stream_id: int) -> None:
        if (stream := self._blocked.pop(stream_id, None)) is not None:
            self._queue(stream)

    def _next_due(self) -> float | None:
        while self._heap and self._heap[0][2].over:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def _step(self, stream: _Stream) -> None:
        """One turn of a stream: a frame, a pause or an end."""
        part = stream.unsent or next(stream.wire, None)
        if isinstance(part, bytes):
            self._send(stream, part)
        elif isinstance(part, Pause):
            stream.due += math.inf if part.seconds is None else part.seconds
        elif isinstance(part, End):
            self._h2.end_stream(stream.id)
            stream.complete = True
        elif isinstance(part, Raw):
            self._collect()
            self._out += _frame_bytes(_DATA, part.data)
        elif isinstance(part, Decline):
            self._decline(stream, part)
        elif part is None and stream.complete:
            self._finish(stream)
        else:
            self._hang_up(stream, part or Hangup())
        if not stream.over and stream.id not in self._blocked:
            self._queue(stream)

    def _send(self, stream: _Stream, data: bytes) -> None:
        """The head goes out with its last byte; of the body, what fits into the window and one frame."""
        if stream.head_left:
            in_head = min(stream.head_left, len(data))
            stream.head_left -= in_head
            data = data[in_head:]
            if not stream.head_left:
                self._h2.send_headers(stream.id, stream.head)
        if data:
            room = max(0, min(self._h2.local_flow_control_window(stream.id), self._h2.max_outbound_frame_size))
            if room:
                self._h2.send_data(stream.id, data[:room])
            else:
                self._blocked[stream.id] = stream
            stream.unsent = data[room:]

    def _hang_up(self, stream: _Stream, part: Hangup) -> None:
        """The stream is torn down; or the connection, if the fault is about it, or there is no exchange left to tear."""
        if part.connection or stream.complete:
            self._finish(stream)
            self._shut(Reset() if part.reset else Close(), "cut_off")
        else:
            self._h2.reset_stream(stream.id, ErrorCodes.INTERNAL_ERROR)
            self._finish(stream)

    def _decline(self, stream: _Stream, part: Decline) -> None:
        if not part.go_away:
            self._h2.reset_stream(stream.id, ErrorCodes.REFUSED_STREAM)
            self._finish(stream)
            return
        # Written past h2: once it has sent a GOAWAY it lets the streams before that not be answered any more.
        self._collect()
        self._last_id = max(0, stream.id - 2)
        self._out += _frame_bytes(_GOAWAY, self._last_id.to_bytes(4, "big") + bytes(4))
        self._finish(stream)
        for later in [other for other in self._streams.values() if other.id > stream.id]:
            self._finish(later, "cut_off")

    def _finish(self, stream: _Stream, cut: Cut | None = None) -> None:
        """An exchange is over. After a GOAWAY, the last one takes the connection with it."""
        self._forget(stream, cut)
        if len(self._heap) > 2 * len(self._streams) + 64:  # those of forgotten streams need not wait for their turn
            self._heap = [entry for entry in self._heap if not entry[2].over]
            heapq.heapify(self._heap)
        if self._last_id is not None and not self._streams:
            self._shut(Close(), "cut_off")

    def _forget(self, stream: _Stream, cut: Cut | None) -> None:
        stream.over = True
        del self._streams[stream.id]
        self._blocked.pop(stream.id, None)
        if stream.reply is not None:
            stream.reply.on_end(cut, self._now)

    def _shut(self, ending: Action | None, cut: Cut) -> None:
        """The connection ends, and with it whatever it carried."""
        if not self._closed:
            self._closed = True
            self._ending = ending
            for stream in list(self._streams.values()):
                self._forget(stream, cut)
            self._answerer.connection_ended()

    def _collect(self) -> None:
        self._out += self._h2.data_to_send()


class _PlainEncoder(Encoder):
    """hpack's encoder without Huffman codes: those take it quadratic time, minutes for a header field of a MiB."""

    def encode(self, headers: Any, huffman: bool = False) -> bytes:
        """The header block, each literal as it is."""
        return super().encode(headers, huffman)


class _Stream:
    """One exchange: its request as it grows, then its answer as it is drawn."""

    __slots__ = ("_body", "_fields", "complete", "due", "head", "head_left", "id", "over", "reply", "unsent", "wire")

    def __init__(self, stream_id: int, fields: _Fields) -> None:
        self.id = stream_id
        self._fields = fields
        self._body: bytearray | None = bytearray()
        self.reply: Reply | None = None
        self.wire: Wire = iter(())
        self.due = math.inf
        self.head: _Fields = []
        self.head_left = 0  # how many bytes of the head are still to come, before it can go out
        self.unsent = b""  # drawn, but not taken by the window yet
        self.complete = False  # whether its body has ended
        self.over = False

    def keep(self, data: bytes) -> None:
        """A piece of the request's body."""
        if self._body is not None:
            self._body += data
            if len(self._body) > MAX_BODY_BYTES:
                self._body = None

    @property
    def bodiless(self) -> bool:
        """Whether its answer has no body, whatever the plan says (HEAD)."""
        return (b":method", b"HEAD") in self._fields

    def ask(self, reused: bool) -> HttpAsk:
        """The whole request. ``:authority`` becomes ``host`` (RFC 9113, section 8.3.1)."""
        fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self._fields]
        pseudo = {name: value for name, value in fields if name.startswith(":")}
        headers = [field for field in fields if not field[0].startswith(":")]
        if ":authority" in pseudo and not any(name == "host" for name, _ in headers):
            headers.insert(0, ("host", pseudo[":authority"]))
        body = None if self._body is None else bytes(self._body)
        return HttpAsk(pseudo.get(":method", ""), pseudo.get(":path", ""), tuple(headers), body, "2", reused)


def _frame(stream: _Stream, reply: Reply) -> Wire:
    """The parts of a response as far as they are bytes: the head as HTTP/1.1 would write it, to be counted; the body."""
    for part in reply.parts:
        if isinstance(part, Head):
            reply.on_status(part.status)
            fields = [(name.encode("ascii"), value.encode("latin-1")) for name, value in part.headers]
            stream.head = [(b":status", b"%d" % part.status), *(f for f in fields if f[0] not in _OF_THE_CONNECTION)]
            head = b"".join(b"%s: %s\r\n" % field for field in stream.head)
            stream.head_left = len(head)
            yield head
        elif isinstance(part, Data):
            yield b"" if stream.bodiless else part.data
        elif isinstance(part, Torn):
            yield part.data[: (len(part.data) + 1) // 2]
        else:
            yield part


def _frame_bytes(kind: int, payload: bytes) -> bytes:
    """A frame about the connection (stream 0) that h2 would not write, or not so."""
    return len(payload).to_bytes(3, "big") + bytes([kind, 0]) + bytes(4) + payload
