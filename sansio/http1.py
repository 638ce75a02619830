"""One HTTP/1.1 client connection as a machine over h11: bytes out, bytes in, the seam's values between.

h11 does the framing (RFC 9112); what it leaves to its user is decided here: bounds on what is buffered, which ends of a
connection are a lost connection and which an ill-formed response, when a connection may carry another request, and the
tail of a response that a caller no longer waits for.
"""

from __future__ import annotations

import h11

from .errors import ForeignError, NetworkError, ProtocolError
from .http import END, Headers, HttpEvent, HttpRequest, ResponseHead
from .scrub import excerpt

MAX_HEAD_BYTES = 64 * 1024
"""The most a response head (and any one line of chunked framing) may hold."""

_FRAMING = frozenset({"host", "content-length", "transfer-encoding"})
"""Written here, from what is really sent."""


class Http1Connection:
    """The client's side of one connection, one exchange at a time.

    `send` gives the bytes of a request, `receive` takes what the socket read (``b""`` at its end) and gives the events of
    the response. A failure is the last event: `NetworkError` (the connection ended early) or `ProtocolError` (not HTTP, past
    a bound, or a body in a content coding, none of which is asked for); after one the connection is not `reusable`.
    """

    __slots__ = ("_broken", "_connection", "_ended", "_started")

    def __init__(self) -> None:
        self._connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._started = False
        self._ended = True
        self._broken = False

    @property
    def reusable(self) -> bool:
        """Whether another request may go over this connection: nothing is open, and nothing unasked for came."""
        if self._broken or not self._ended:
            return False
        if not self._started:
            return True
        done = self._connection.our_state is h11.DONE and self._connection.their_state is h11.DONE
        return done and self._connection.trailing_data == (b"", False)

    @property
    def ended(self) -> bool:
        """Whether the last exchange is over, as far as the framing goes."""
        return self._ended

    def send(self, request: HttpRequest) -> bytes:
        """The bytes of ``request``. Raises `RuntimeError` on a connection that is not `reusable`."""
        if not self.reusable:
            raise RuntimeError("this connection cannot carry another request")
        if self._started:
            self._connection.start_next_cycle()
        self._started, self._ended = True, False
        origin = request.origin
        default = {"http": 80, "https": 443}[origin.scheme]
        name = f"[{origin.host}]" if ":" in origin.host else origin.host
        headers = [("host", name if origin.port == default else f"{name}:{origin.port}")]
        headers += [(field, value) for field, value in request.headers if field not in _FRAMING]
        if not any(field == "accept-encoding" for field, _ in request.headers):
            headers.append(("accept-encoding", "identity"))  # without it any coding would be acceptable (RFC 9110, 12.5.3)
        if request.body or request.method not in ("GET", "HEAD", "DELETE"):
            headers.append(("content-length", str(len(request.body))))
        fields = [(field.encode("ascii"), value.strip(" \t").encode("latin-1")) for field, value in headers]
        connection = self._connection
        head = connection.send(h11.Request(method=request.method, target=request.target, headers=fields)) or b""
        body = (connection.send(h11.Data(request.body)) or b"") if request.body else b""
        return head + body + (connection.send(h11.EndOfMessage()) or b"")

    def receive(self, data: bytes) -> list[HttpEvent]:
        """The events in these bytes: a head, body, then `END` or an error. The pieces of one call are joined into one."""
        if self._ended:  # nothing was asked for: an unasked response, or the peer hanging up
            self._broken = True
            return []
        events: list[HttpEvent] = []
        pieces: list[bytes] = []
        last: HttpEvent | None = None
        try:
            self._connection.receive_data(data)
            last = self._collect(events, pieces)
        except h11.RemoteProtocolError as error:
            self._broken = self._ended = True
            last = _lost(error) if data == b"" else _malformed(error)
        if pieces:
            events.append(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if last is not None:
            events.append(last)
        return events

    def _collect(self, events: list[HttpEvent], pieces: list[bytes]) -> HttpEvent | None:
        while True:
            event = self._connection.next_event()
            if isinstance(event, h11.Data):
                pieces.append(bytes(event.data))
            elif isinstance(event, h11.Response):
                fields = tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in event.headers)
                problem = _too_large(fields)
                if problem is None:
                    events.append(ResponseHead(event.status_code, fields))  # known and useful, even if the body is coded
                    problem = _coded(fields)
                if problem is not None:
                    self._broken = self._ended = True
                    return problem
            elif isinstance(event, h11.EndOfMessage):
                self._ended = True
                return END
            elif not isinstance(event, h11.InformationalResponse):
                return None  # the rest has not come yet


def _lost(cause: Exception) -> NetworkError:
    error = NetworkError("the connection was closed before the response ended")
    error.__cause__ = ForeignError(type(cause).__name__, excerpt(str(cause))[:200])
    return error


def _malformed(cause: h11.RemoteProtocolError) -> ProtocolError:
    past_bound = cause.error_status_hint == 431  # h11's own mark for "the peer sent more than may be buffered"
    said = excerpt(str(cause))[:200]  # h11 quotes what it met, and that may be anything
    error = ProtocolError(_PAST_BOUND) if past_bound else ProtocolError(f"not HTTP/1.1: {said}", retryable=True)
    error.__cause__ = ForeignError(type(cause).__name__, said)
    return error


_PAST_BOUND = f"a response head is larger than {MAX_HEAD_BYTES} bytes"


def _too_large(fields: Headers) -> ProtocolError | None:
    """A head that came whole in one piece: h11 bounds only what it has to keep."""
    size_bytes = sum(len(name) + len(value) + 4 for name, value in fields)
    return ProtocolError(_PAST_BOUND) if size_bytes > MAX_HEAD_BYTES else None


def _coded(fields: Headers) -> ProtocolError | None:
    """A body that is compressed although that was not asked for (RFC 9110, section 8.4)."""
    codings = ",".join(value for name, value in fields if name == "content-encoding").lower().split(",")
    unknown = sorted({coding.strip() for coding in codings} - {"", "identity"})
    return ProtocolError(f"the body is in the content coding {unknown[0][:40]!r}, not in identity") if unknown else None
