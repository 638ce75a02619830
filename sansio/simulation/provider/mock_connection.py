"""One accepted connection of the mock provider, whichever HTTP its client speaks.

TLS may have settled that (ALPN). Otherwise the first bytes tell: a client of HTTP/2 begins with a preface that is no
request of HTTP/1.1. They are held back only as long as they could be that preface.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from .mock_exchange import HTTP2_PREFACE, Action, Answerer, Machine
from .mock_http1 import MockHttp1

if TYPE_CHECKING:
    from .mock_http2 import MockHttp2

Alpn = Literal["h2", "http/1.1"]
"""What a connection speaks, by its name in ALPN (RFC 7301)."""


class MockConnection:
    """The machine of one connection (`Machine` says what its methods mean).

    alpn: what it speaks; ``None``: to be seen from its bytes. max_streams: how many exchanges at once HTTP/2 may carry.
    Raises `ImportError` for ``"h2"`` where the library of that name is not installed; bytes of HTTP/2 are then taken for a
    bad request of HTTP/1.1.
    """

    __slots__ = ("_answerer", "_machine", "_max_streams", "_start")

    def __init__(self, answerer: Answerer, alpn: Alpn | None = None, max_streams: int = 100) -> None:
        self._answerer = answerer
        self._max_streams = max_streams
        self._start: bytes | None = b"" if alpn is None else None  # what came while it was not known what it is
        self._machine: Machine = self._http2() if alpn == "h2" else MockHttp1(answerer)

    @property
    def closed(self) -> bool:
        """Whether the connection has ended: no more actions will come."""
        return self._machine.closed

    def receive_data(self, data: bytes, now: float, unix_now: float) -> None:
        """Take bytes; ``b""``: the client has closed its side."""
        if self._start is not None:
            data = self._start + data if data else b""
            self._start = None
            if data and data[: len(HTTP2_PREFACE)] == HTTP2_PREFACE[: len(data)]:
                if len(data) < len(HTTP2_PREFACE):
                    self._start = data
                    return
                self._try_http2()
        self._machine.receive_data(data, now, unix_now)

    def actions(self, now: float, max_bytes: int | None = None) -> list[Action]:
        """What is due by ``now``; with ``max_bytes`` it stops soon after so many."""
        return self._machine.actions(now, max_bytes)

    def deadline(self) -> float | None:
        """When `actions` has something to give; ``None`` if only the client can change that."""
        return self._machine.deadline()

    def connection_lost(self, now: float) -> None:
        """The connection is gone, whoever ended it. Calling it again does nothing."""
        self._machine.connection_lost(now)

    def _try_http2(self) -> None:
        try:
            self._machine = self._http2()
        except ImportError:
            return

    def _http2(self) -> MockHttp2:
        from .mock_http2 import MockHttp2  # here, because h2 is an extra

        return MockHttp2(self._answerer, self._max_streams)
