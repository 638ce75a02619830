"""The same answers over HTTP/2 with prior knowledge, by h2: slower, but nobody measures the server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RemoteSettingsChanged, RequestReceived, StreamEnded, StreamReset, WindowUpdated
from h2.settings import SettingCodes

from .workload import openai_event, openai_tail, unary_answer

if TYPE_CHECKING:
    from .server import Streams

MAX_STREAMS = 100
"""How many streams a connection takes: what most servers say."""


class Http2Connection(asyncio.Protocol):
    """One HTTP/2 connection."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self.machine = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self._targets: dict[int, str] = {}
        self._unsent: dict[int, bytes] = {}
        self._ending: set[int] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the connection stands."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.machine.local_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = MAX_STREAMS
        self.machine.initiate_connection()
        self._flush()

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes came."""
        for event in self.machine.receive_data(data):
            if isinstance(event, RequestReceived):
                self._targets[event.stream_id] = str(dict(event.headers)[":path"])
            elif isinstance(event, DataReceived):
                self.machine.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                self._answer(event.stream_id, self._targets.pop(event.stream_id))
            elif isinstance(event, StreamReset):
                self._unsent.pop(event.stream_id, None)
            elif isinstance(event, (WindowUpdated, RemoteSettingsChanged)):
                for stream_id in list(self._unsent):
                    self.send(stream_id, b"")
        self._flush()

    def _answer(self, stream_id: int, target: str) -> None:
        _, way, *rest = target.split("/")
        if way == "release":
            self._streams.release()
        stream = way not in ("unary", "release")
        kind = "text/event-stream; charset=utf-8" if stream else "application/json"
        self.machine.send_headers(stream_id, [(":status", "200"), ("content-type", kind), ("x-request-id", "req_1")])
        if not stream:
            self.send(stream_id, unary_answer(), end=True)
            return
        answer = _Answer(self, stream_id, int(rest[0]))
        if way == "burst":
            answer.rest()
        elif way == "paced":
            self._streams.pace(answer)
        elif way == "staggered":
            self._streams.stagger(answer)
        else:
            answer.event()
            self._streams.silent.append(answer)

    def send(self, stream_id: int, data: bytes, *, end: bool = False) -> None:
        """Send as much as the windows allow, and keep the rest until they open."""
        data = self._unsent.pop(stream_id, b"") + data
        if end:
            self._ending.add(stream_id)
        while data:
            room = min(self.machine.local_flow_control_window(stream_id), self.machine.max_outbound_frame_size, len(data))
            if room <= 0:
                self._unsent[stream_id] = data
                break
            self.machine.send_data(stream_id, data[:room])
            data = data[room:]
        if not data and stream_id in self._ending:
            self._ending.discard(stream_id)
            self.machine.end_stream(stream_id)
        self._flush()

    def _flush(self) -> None:
        if data := self.machine.data_to_send():
            self._transport.write(data)


class _Answer:
    """A stream in DATA frames, a frame an event."""

    def __init__(self, connection: Http2Connection, stream_id: int, events: int) -> None:
        self._connection, self._stream_id, self._events, self._sent = connection, stream_id, events, 0

    def event(self) -> bool:
        """Send the next event, or the end where no more are due. Returns whether more are due."""
        if self._sent == self._events:
            self._connection.send(self._stream_id, openai_tail(self._events), end=True)
            return False
        self._connection.send(self._stream_id, openai_event(self._sent))
        self._sent += 1
        return True

    def rest(self) -> None:
        """Send all that is due."""
        content = b"".join(openai_event(number) for number in range(self._sent, self._events))
        self._sent = self._events
        self._connection.send(self._stream_id, content + openai_tail(self._events), end=True)
