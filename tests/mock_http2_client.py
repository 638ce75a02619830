"""A client of the mock provider that speaks HTTP/2, without sockets: h2 on this side, virtual time, and what came back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, InformationalResponseReceived, ResponseReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError
from mock_client import UNIX, Seen

from sansio.simulation import (
    DoneWithoutFinish,
    DripBytes,
    ErrorFrame,
    Fault,
    GarbageBytes,
    MockConnection,
    MockProvider,
    OversizedEvent,
    OversizedHeader,
    PingsOnly,
    Reset,
    ResetAtByte,
    RotateKeys,
    Send,
    SlowFirstByte,
    SlowTokens,
    StallAfterChunks,
    StallAfterHead,
    Status,
    Throttle,
    Truncate,
    WrongContentType,
)

GOAWAY = 7
"""The type of the frame (RFC 9113, section 6.8)."""


FRAMED: list[Fault] = [
    *(
        Throttle("7"),
        Throttle(body="empty"),
        Status(503),
        Status.html(),
        Status(204),
        Status(302, "", headers=(("location", "/x"),)),
    ),
    *(RotateKeys(("other",)), SlowFirstByte(2.0), StallAfterHead(3.0), StallAfterChunks(2, 4.0), PingsOnly(1.0, 3)),
    *(
        SlowTokens(1.0),
        Truncate(2),
        DoneWithoutFinish(),
        ErrorFrame(1),
        ErrorFrame(1, then_done=True),
        GarbageBytes("sse", 1),
    ),
    *(WrongContentType(), OversizedEvent(70_000), OversizedHeader(5000), Fault(), ResetAtByte(10_000_000), DripBytes(0.01)),
]
"""Faults that are another answer, or another pace, and leave the framing whole."""


def fields_of(
    path: str = "/v1/chat/completions", method: str = "POST", key: str | None = "test-key"
) -> list[tuple[str, str]]:
    """The header fields of a request."""
    fields = [(":method", method), (":scheme", "http"), (":authority", "mock"), (":path", path)]
    return fields if key is None else [*fields, ("authorization", f"Bearer {key}")]


def body_of(prompt: str = "hello", *, stream: bool = True, **more: Any) -> bytes:
    """The body of a chat request."""
    return json.dumps(
        {"model": "mock-1", "messages": [{"role": "user", "content": prompt}], "stream": stream, **more}
    ).encode()


@dataclass
class Got(Seen):
    """What came back on one stream. ``end`` is "open", "ended" or "reset"; ``sent`` has the body, piece by piece."""

    code: int | None = None
    informed: list[str] = field(default_factory=list)


class Client:
    """One connection from the client's side.

    got: the streams, by their ids. order: the id of each piece of body, as they came.
    bytes: all that came; outgoing: all that went.
    end: "open", "close" or "reset". goaway: (last stream, code). error: what h2 says of the server's bytes.
    reading: whether it gives back the window of what it got.
    """

    def __init__(self, provider: MockProvider, *, reading: bool = True, connection: MockConnection | None = None) -> None:
        self.provider = provider
        self.machine = connection or provider.connection()
        self.reading = reading
        self.h2 = H2Connection()
        self.h2.initiate_connection()
        self.got: dict[int, Got] = {}
        self.order: list[int] = []
        self.outgoing = b""
        self.bytes = b""
        self.end = "open"
        self.ended_at: float | None = None
        self.goaway: tuple[int, int] | None = None
        self.error: str | None = None

    def ask(
        self,
        prompt: str = "hello",
        *,
        at: float = 0.0,
        key: str | None = "test-key",
        headers: Iterable[tuple[str, str]] = (),
        **more: Any,
    ) -> int:
        """Send a chat request; nothing is answered until `run`."""
        return self.send(body_of(prompt, **more), headers=[*fields_of(key=key), *headers], at=at)

    def send(self, body: bytes | None, *, headers: Iterable[tuple[str, str]] | None = None, at: float = 0.0) -> int:
        """Send any request, as one piece where the window allows it; ``None`` leaves its body open."""
        stream_id = self.h2.get_next_available_stream_id()
        self.got[stream_id] = Got()
        self.h2.send_headers(stream_id, fields_of() if headers is None else headers, end_stream=body == b"")
        while body:
            room = min(self.h2.local_flow_control_window(stream_id), 16_384)
            if not room:
                self.turn(at)
                continue
            self.h2.send_data(stream_id, body[:room], end_stream=room >= len(body))
            body = body[room:]
        self.flush(at)
        return stream_id

    def flush(self, at: float) -> bool:
        """Hand over what h2 has ready; whether it had anything."""
        data = self.h2.data_to_send()
        self.outgoing += data
        if data:
            self.machine.receive_data(data, at, UNIX + at)
        return data != b""

    def turn(self, now: float) -> None:
        """Send, and take what is due now."""
        self.flush(now)
        for action in self.machine.actions(now):
            assert self.end == "open", "nothing may follow the end"
            if isinstance(action, Send):
                assert action.data
                self.take(action.data, now)
            else:
                self.end, self.ended_at = ("reset" if isinstance(action, Reset) else "close"), now

    def take(self, data: bytes, now: float) -> None:
        """Whole frames from the server. A GOAWAY is kept from h2, which would not read on after it."""
        self.bytes += data
        while data and self.error is None:
            frame, data = data[: 9 + int.from_bytes(data[:3], "big")], data[9 + int.from_bytes(data[:3], "big") :]
            if frame[3] == GOAWAY:
                self.goaway = (int.from_bytes(frame[9:13], "big"), int.from_bytes(frame[13:17], "big"))
                continue
            try:
                events = self.h2.receive_data(frame)
            except ProtocolError as error:
                self.error = str(error)
                self.h2.data_to_send()  # its own GOAWAY: this client just notes what is wrong
                return
            for event in events:
                self.note(event, now)

    def note(self, event: object, now: float) -> None:
        """One event of the connection."""
        if isinstance(event, InformationalResponseReceived):
            self.got[event.stream_id].informed.append(dict(event.headers)[b":status"].decode())
        elif isinstance(event, ResponseReceived):
            headers = {name.decode(): value.decode("latin-1") for name, value in event.headers}
            got = self.got[event.stream_id]
            got.status, got.headers = int(headers.pop(":status")), headers
        elif isinstance(event, DataReceived):
            got = self.got[event.stream_id]
            if event.data:
                self.order.append(event.stream_id)
                got.sent.append((now, event.data))
                got.body += event.data
            if self.reading:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            got = self.got[event.stream_id]
            got.complete, got.end, got.ended_at = True, "ended", now
        elif isinstance(event, StreamReset):
            got = self.got[event.stream_id]
            got.end, got.code, got.ended_at = "reset", event.error_code, now

    def run(self, *, at: float = 0.0, until: float = 1000.0) -> Client:
        """Jump from deadline to deadline as far as ``until``."""
        now = at
        while True:
            self.turn(now)
            if self.flush(now):
                continue
            deadline = self.machine.deadline()
            if deadline is None or deadline > until:
                return self
            now = max(now, deadline)

    def open_window(self, stream_id: int | None, size: int, at: float = 0.0) -> None:
        """Give window: to a stream, or (``None``) to the connection."""
        self.h2.increment_flow_control_window(size, stream_id)
        self.flush(at)

    def reset(self, stream_id: int, at: float = 0.0) -> None:
        """Lose interest in a stream."""
        self.h2.reset_stream(stream_id, ErrorCodes.CANCEL)
        self.flush(at)


def ask2(provider: MockProvider, prompt: str = "hello", *, at: float = 0.0, until: float = 1000.0, **more: Any) -> Got:
    """One chat request over a connection of its own."""
    client = Client(provider)
    stream_id = client.ask(prompt, at=at, **more)
    return client.run(at=at, until=until).got[stream_id]
