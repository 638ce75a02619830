"""One HTTP/1.1 client connection as a machine: bytes out, bytes in, the seam's values between.

A request is written here; its response is read by a `ResponseReader`, one for each exchange, so that an idle connection
holds next to nothing. What is decided here is when a connection may carry another request.
"""

from __future__ import annotations

from .http import HttpEvent, HttpRequest
from .http1_reader import MAX_HEAD_BYTES, ResponseReader, asks_to_close

__all__ = ["MAX_HEAD_BYTES", "Http1Connection"]

_WRITTEN_HERE = frozenset({"host", "content-length", "transfer-encoding"})
"""Written from what is really sent, whatever the request says."""

_BLANKS = " \t"


class Http1Connection:
    """The client's side of one connection, one exchange at a time.

    `send` gives the bytes of a request, `receive` takes what the socket read (``b""`` at its end) and gives the events of
    the response. A failure is the last event: `NetworkError` (the connection ended early) or `ProtocolError` (not HTTP, past
    a bound, or a body in a content coding, none of which is asked for); after one the connection is not `reusable`.
    """

    __slots__ = ("_fit", "_last", "_reader")

    def __init__(self) -> None:
        self._reader: ResponseReader | None = None  # of the exchange that is open
        self._fit = True  # between exchanges: nothing speaks against another one
        self._last = False  # the request says that no other follows

    @property
    def reusable(self) -> bool:
        """Whether another request may go over this connection: nothing is open, and nothing unasked for came."""
        return self._fit and self._reader is None

    @property
    def ended(self) -> bool:
        """Whether the last exchange is over, as far as the framing goes."""
        return self._reader is None

    def send(self, request: HttpRequest) -> bytes:
        """The bytes of ``request``.

        Raises `RuntimeError` on a connection that is not `reusable`, `ValueError` for ``CONNECT``: what follows its answer
        is not HTTP.
        """
        if not self.reusable:
            raise RuntimeError("this connection cannot carry another request")
        if request.method == "CONNECT":
            raise ValueError("method: CONNECT asks for a tunnel, and this connection is none")
        written = _written(request)
        self._reader = ResponseReader(request.method)
        self._last = asks_to_close(request.headers)
        return written

    def receive(self, data: bytes | bytearray | memoryview) -> list[HttpEvent]:
        """The events in these bytes: a head, body, then `END` or an error. The pieces of one call are joined into one."""
        reader = self._reader
        if reader is None:  # nothing was asked for: an unasked response, or the peer hanging up
            self._fit = False
            return []
        events = reader.receive(bytes(data))
        if reader.ended:
            self._fit = reader.reusable and not self._last
            self._reader = None
        return events


def _written(request: HttpRequest) -> bytes:
    """RFC 9112, 3 and 5. Nothing needs a check: `HttpRequest` holds no character that could end a line or a field."""
    origin = request.origin
    default = 443 if origin.scheme == "https" else 80
    name = f"[{origin.host}]" if ":" in origin.host else origin.host
    lines = [f"{request.method} {request.target} HTTP/1.1\r\nhost: {name}"]
    if origin.port != default:
        lines[0] += f":{origin.port}"
    accepts = False
    for field, value in request.headers:
        accepts |= field == "accept-encoding"
        if field not in _WRITTEN_HERE:
            lines.append(f"{field}: {value.strip(_BLANKS)}")
    if not accepts:
        lines.append("accept-encoding: identity")  # without it any coding would be acceptable (RFC 9110, 12.5.3)
    if request.body or request.method not in ("GET", "HEAD", "DELETE"):
        lines.append(f"content-length: {len(request.body)}")
    lines.append("\r\n")
    return "\r\n".join(lines).encode("latin-1") + request.body
