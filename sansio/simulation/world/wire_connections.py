"""The client's side of each connection in a world: a link and the HTTP machine over it, for the lines that use it.

The decisions are those of the asyncio driver, in its order: what a line may use, when the pool hears of a connection, and
what becomes of it when a line leaves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from ...errors import ProtocolError
from ...http import HttpEvent, HttpRequest, Origin
from ...http1 import Http1Connection
from ...http2 import Http2Connection

if TYPE_CHECKING:
    from .wire import WireClient, WireLine


class Socket:
    """A link from its dial on: it becomes the connection it turns out to be, and is counted until it is over."""

    __slots__ = ("_client", "_connection", "_line", "_link", "_origin", "over")

    def __init__(self, client: WireClient, line: WireLine, origin: Origin) -> None:
        self.over = False
        """Whether it is closed, refused or ended."""
        self._client = client
        self._line = line
        self._origin = origin
        self._connection: Connection | None = None
        self._link = client.network.dial(origin.host, origin.port, self, http2=client.offers_http2(origin))
        client.connections += 1

    def connected(self) -> None:
        """The network: it stands."""
        try:
            kind = Http2 if self._client.speaks_http2(self._origin, agreed=self._link.http2) else Http1
        except ProtocolError as error:
            self.close()
            self._line.failed(error)
        else:
            self._connection = kind(self._client, self)
            self._line.dialled(self._connection)

    def refused(self, error: OSError) -> None:
        """The network: it never will."""
        self._forget()
        self._line.failed(error)

    def received(self, data: bytes) -> None:
        """The network: bytes came."""
        assert self._connection is not None  # the network calls `connected` first
        self._connection.received(data)

    def ended(self, error: OSError | None) -> None:
        """The network: it is gone."""
        self._forget()
        assert self._connection is not None  # as above
        self._connection.ended(error)

    def send(self, data: bytes) -> None:
        """Write, unless it is over."""
        self._link.send(data)

    def close(self) -> None:
        """Abort it. Idempotent."""
        if not self.over:
            self._forget()
            self._link.close()

    def _forget(self) -> None:
        self.over = True
        self._client.connections -= 1


class Connection(ABC):
    """One connection that stands, or stood."""

    def __init__(self, client: WireClient, socket: Socket) -> None:
        self._client = client
        self._socket = socket

    @abstractmethod
    def begin(self, line: WireLine) -> None:
        """This line has dialled the connection, and is the first to use it."""

    @abstractmethod
    def received(self, data: bytes) -> None:
        """Bytes came."""

    @abstractmethod
    def ended(self, error: OSError | None) -> None:
        """It is gone."""

    @abstractmethod
    def is_fit(self) -> bool:
        """Whether another request may go over it now."""

    def settles(self, line: WireLine) -> bool:
        """Whether it may be fit a moment later. Then the line hears when that is to be seen (`WireLine.settled`)."""
        return False

    def close(self) -> None:
        """Close it. Idempotent."""
        self._socket.close()

    @abstractmethod
    def send(self, line: WireLine, request: HttpRequest) -> None:
        """Send a request on behalf of a line, over a connection that is fit."""

    @abstractmethod
    def take(self, line: WireLine) -> list[HttpEvent] | None:
        """What came for a line, ``None`` while there is nothing. Raises `OSError` when the connection is lost."""

    @abstractmethod
    def leave(self, line: WireLine, *, keep: bool) -> None:
        """A line is done with this connection."""


class Http1(Connection):
    """A connection that carries one request at a time."""

    def __init__(self, client: WireClient, socket: Socket) -> None:
        super().__init__(client, socket)
        self._machine = Http1Connection()
        self._line: WireLine | None = None
        self._buffer: list[bytes] = []
        self._error: OSError | None = None
        self._settling: WireLine | None = None

    def begin(self, line: WireLine) -> None:
        """As above."""
        self._client.opened(line, self, None)

    def received(self, data: bytes) -> None:
        """As above. Nobody may wait for them: the tail of an answer, or something unasked for."""
        if (line := self._line) is not None:
            self._buffer.append(data)
            line.wake()
        else:
            self._machine.receive(data)
            self._settle()

    def ended(self, error: OSError | None) -> None:
        """As above."""
        self._error = error
        self._client.lose(self)
        if (line := self._line) is not None:
            line.wake()
        else:
            self._settle()

    def is_fit(self) -> bool:
        """As above: the last answer came to its end, and nothing unasked for since."""
        return self._machine.reusable and not self._socket.over

    def settles(self, line: WireLine) -> bool:
        """As above: the last answer has not come to its end yet."""
        if self._socket.over or self._machine.ended:
            return False
        self._settling = line
        return True

    def _settle(self) -> None:
        if self._settling is not None and (self._socket.over or self._machine.ended):
            line, self._settling = self._settling, None
            line.settled(self)

    def send(self, line: WireLine, request: HttpRequest) -> None:
        """As above."""
        self._line = line
        self._socket.send(self._machine.send(request))

    def take(self, line: WireLine) -> list[HttpEvent] | None:
        """As above."""
        if self._buffer:
            return self._machine.receive(self._take_bytes())
        if not self._socket.over:
            return None
        if self._error is not None:
            raise self._error
        return self._machine.receive(b"")

    def _take_bytes(self) -> bytes:
        data = self._buffer[0] if len(self._buffer) == 1 else b"".join(self._buffer)
        self._buffer.clear()
        return data

    def leave(self, line: WireLine, *, keep: bool) -> None:
        """As above. Kept if the exchange ended well; whether it is fit is seen when it is to be used again."""
        self._line = None
        if keep:
            if self._buffer:
                self._machine.receive(self._take_bytes())
            self._client.release(self)
        else:
            self._client.lose(self)


class Http2(Connection):
    """A connection that carries many requests at once."""

    def __init__(self, client: WireClient, socket: Socket) -> None:
        super().__init__(client, socket)
        self._machine = Http2Connection()
        self._lines: dict[int, WireLine] = {}
        self._opener: WireLine | None = None
        """Who dialled, and has it alone until the server has said how many it takes."""
        self._early = b""
        self._streams = 0

    def begin(self, line: WireLine) -> None:
        """As above."""
        self._opener = line

    def received(self, data: bytes) -> None:
        """As above, for any of the lines; or before the first, whose they are then."""
        if self._opener is not None and not self._lines:
            self._early += data
        else:
            self._wake(self._read(data))

    def ended(self, error: OSError | None) -> None:
        """As above."""
        stream_ids = self._machine.receive(b"")
        self._client.lose(self)
        self._wake(stream_ids)

    def _read(self, data: bytes) -> list[int]:
        """Take bytes, and say whose they are."""
        stream_ids = self._machine.receive(data)
        self._flush()
        return stream_ids

    def _wake(self, stream_ids: list[int]) -> None:
        for stream_id in stream_ids:
            if (line := self._lines.get(stream_id)) is not None:  # none that left, perhaps just now
                line.wake()

    def _flush(self) -> None:
        """Write what the machine has to say, and tell the pool how many streams there may be."""
        if data := self._machine.outgoing():
            self._socket.send(data)
        streams = self._machine.capacity + self._machine.open_streams if self._machine.usable else 0
        if self._opener is not None:
            if self._machine.settled:
                opener, self._opener, self._streams = self._opener, None, streams
                self._client.opened(opener, self, streams)
        elif streams != self._streams:
            self._streams = streams
            self._client.resize(self, streams)

    def is_fit(self) -> bool:
        """As above."""
        return self._machine.capacity > 0 and not self._socket.over

    def send(self, line: WireLine, request: HttpRequest) -> None:
        """As above. A body above the peer's window follows as that opens."""
        line.stream_id = self._machine.send(request)
        self._lines[line.stream_id] = line
        self._flush()
        if early := self._early:
            self._early = b""
            if stream_ids := self._read(early):
                self._client.soon(lambda: self._wake(stream_ids))

    def take(self, line: WireLine) -> list[HttpEvent] | None:
        """As above."""
        events = self._machine.take(line.stream_id)
        self._flush()
        return events or None

    def leave(self, line: WireLine, *, keep: bool) -> None:
        """As above. The other lines go on."""
        self._lines.pop(line.stream_id, None)
        self._machine.reset(line.stream_id)
        self._flush()
        if self._opener is not None:  # the pool does not know it yet
            self._opener = None
            self.close()
            self._client.withdraw(line)
        else:  # of a connection that is lost the pool has heard
            self._client.release(self)
