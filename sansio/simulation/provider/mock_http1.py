"""One accepted connection of the mock provider that speaks HTTP/1.1: framing by h11, and the clock of a response.

Bytes and the time go in, actions come out: send these bytes, close, reset. Requests of a kept-alive connection are answered
one after the other; a second request sent before the first was answered is refused with a 400 and the connection is closed.
Whatever a client sends, nothing is raised.
"""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Final, Literal

import h11

from .mock_exchange import MAX_BODY_BYTES, MAX_HEAD_BYTES, Action, Answerer, Close, Cut, HttpAsk, Reply, Reset, Send
from .response_plan import Data, End, Hangup, Head, Pause, Raw, Torn, Wire

_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}


class MockHttp1:
    """The machine of one HTTP/1.1 connection (`Machine` says what its methods mean)."""

    __slots__ = (
        *("_answerer", "_ask", "_body", "_closed", "_due", "_early"),
        *("_h11", "_now", "_pending", "_reply", "_reused", "_unix_now", "_wire"),
    )

    def __init__(self, answerer: Answerer) -> None:
        self._answerer = answerer
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._ask: h11.Request | None = None
        self._body: bytearray | None = bytearray()
        self._reply: Reply | None = None
        self._wire: Wire | None = None
        self._due = math.inf
        self._reused = False  # whether it has carried a request
        self._early = False  # whether the client sent more before its answer was out
        self._pending: list[Action] = []
        self._closed = False
        self._now = -math.inf
        self._unix_now = 0.0

    @property
    def closed(self) -> bool:
        """Whether the connection has ended: no more actions will come."""
        return self._closed and not self._pending

    def receive_data(self, data: bytes, now: float, unix_now: float) -> None:
        """Take bytes; ``b""``: the client has closed its side."""
        self._now, self._unix_now = max(self._now, now), unix_now
        if self._closed:
            return
        if not data:
            self._end("client_left")
            self._pending.append(Close())
        elif self._wire is not None:
            self._early = True
        else:
            self._h11.receive_data(data)
            self._read()

    def actions(self, now: float, max_bytes: int | None = None) -> list[Action]:
        """What is due by ``now``; with ``max_bytes`` it stops soon after so many."""
        self._now = max(self._now, now)
        done, self._pending = self._pending, []
        unsent = bytearray()
        while self._wire is not None and self._due <= self._now and (max_bytes is None or len(unsent) < max_bytes):
            part = next(self._wire, None)
            if isinstance(part, bytes):
                unsent += part
            elif isinstance(part, Pause):
                self._due += math.inf if part.seconds is None else part.seconds
            else:
                _flush(unsent, done)
                done += self._response_ended() if part is None else self._hang_up(isinstance(part, Hangup) and part.reset)
        _flush(unsent, done)
        return done

    def deadline(self) -> float | None:
        """When `actions` has something to give; ``None`` if only the client can change that."""
        if self._pending:
            return self._now
        return None if self._wire is None or self._due == math.inf else self._due

    def connection_lost(self, now: float) -> None:
        """The connection is gone, whoever ended it. Calling it again does nothing."""
        self._now = max(self._now, now)
        self._pending.clear()
        if not self._closed:
            self._end("client_left")

    def _read(self) -> None:
        """Take events out of h11 until a request is complete, or more bytes are needed."""
        while self._wire is None:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                status = error.error_status_hint
                self._start(self._answerer.respond_to_garbage(status, str(error), self._now, self._unix_now))
                return
            if isinstance(event, h11.Request):
                self._ask, self._body = event, bytearray()
            elif isinstance(event, h11.Data):
                self._keep(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self._early = bool(self._h11.trailing_data[0])
                self._start(self._answerer.respond(self._request(), self._now, self._unix_now))
            else:
                if self._h11.they_are_waiting_for_100_continue:
                    head = h11.InformationalResponse(status_code=100, headers=[])
                    self._pending.append(Send(self._framed(head)))
                return

    def _keep(self, data: bytes | bytearray) -> None:
        if self._body is not None:
            self._body += data
            if len(self._body) > MAX_BODY_BYTES:
                self._body = None

    def _request(self) -> HttpAsk:
        assert self._ask is not None  # h11 gives the end of a message only after its head
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in self._ask.headers)
        body = None if self._body is None else bytes(self._body)
        version: Literal["1.0", "1.1"] = "1.0" if self._ask.http_version == b"1.0" else "1.1"
        reused, self._reused = self._reused, True
        return HttpAsk(
            self._ask.method.decode("latin-1"), self._ask.target.decode("latin-1"), headers, body, version, reused
        )

    def _start(self, reply: Reply) -> None:
        self._reply, self._due = reply, self._now
        self._wire = reply.mangle(self._frame(reply))

    def _frame(self, reply: Reply) -> Wire:
        """The parts of a response as HTTP/1.1 (or 1.0, to a client that speaks that)."""
        bodiless = self._ask is not None and self._ask.method == b"HEAD"
        for part in reply.parts:
            if isinstance(part, Head):
                reply.on_status(part.status)
                headers = [(name.encode("ascii"), value.encode("latin-1")) for name, value in part.headers]
                reason = _REASONS.get(part.status, "")
                yield self._framed(h11.Response(status_code=part.status, headers=headers, reason=reason))
            elif isinstance(part, Data):
                yield b"" if bodiless else self._framed(h11.Data(data=part.data))
            elif isinstance(part, Torn):
                framed = self._framed(h11.Data(data=part.data))
                yield framed[: (len(framed) + 1) // 2]
            elif isinstance(part, Raw):
                yield part.data
            elif isinstance(part, End):
                yield self._framed(h11.EndOfMessage())
            else:
                yield part

    def _framed(self, event: h11.Event) -> bytes:
        return self._h11.send(event) or b""

    def _hang_up(self, reset: bool) -> list[Action]:
        self._end(None)
        return [Reset() if reset else Close()]

    def _response_ended(self) -> list[Action]:
        """The response is out: wait for the next request, or close where HTTP or an early request says so."""
        if self._h11.our_state is not h11.DONE:
            self._end(None)
            return [Close()]
        self._report(None)
        self._h11.start_next_cycle()
        self._ask = None
        if self._early:
            self._early = False
            message = "This server does not pipeline: wait for an answer before sending the next request."
            self._start(self._answerer.respond_to_garbage(400, message, self._now, self._unix_now))
        return []

    def _end(self, cut: Cut | None) -> None:
        self._closed = True
        self._report(cut)
        self._answerer.connection_ended()

    def _report(self, cut: Cut | None) -> None:
        reply, self._reply, self._wire = self._reply, None, None
        if reply is not None:
            reply.on_end(cut, self._now)


def _flush(unsent: bytearray, into: list[Action]) -> None:
    if unsent:
        into.append(Send(bytes(unsent)))
        unsent.clear()
