"""What the mock provider and its connections say to each other, and what a connection wants done.

A connection turns bytes into `HttpAsk`s and the provider's `Reply`s into bytes, whichever HTTP it speaks: `mock_http1.py`,
`mock_http2.py`, and `mock_connection.py` where it is not known yet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from .response_plan import Parts, Wire

MAX_BODY_BYTES: Final = 16 * 1024 * 1024
"""A longer request body is read to its end, forgotten, and answered with a 413."""

MAX_HEAD_BYTES: Final = 65_536
"""A longer request head is refused."""

HTTP2_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client of HTTP/2 begins with; no request of HTTP/1.1 does (RFC 9113, section 3.4)."""

HttpVersion = Literal["1.0", "1.1", "2"]

Cut = Literal["client_left", "cut_off"]
"""Why an exchange ended before its plan did: its client went away, or its HTTP/2 connection ended for another reason."""


@dataclass(frozen=True, slots=True)
class Send:
    """Write these bytes."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """Close the connection in good order, once everything before it is written."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Reset the connection (RST), once everything before it is written."""


Action = Send | Close | Reset


@dataclass(frozen=True, slots=True)
class HttpAsk:
    """One request as it came: header names in lower case, ``body`` ``None`` where it was too long.

    reused: its connection has carried a request before, and carries no other now.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes | None
    http_version: HttpVersion
    reused: bool


@dataclass(frozen=True, slots=True)
class Reply:
    """What the provider decided: the parts of the response, what to do to its bytes, and where to report.

    on_status is called with the status when the head goes out; on_end once, with what cut it short (``None``: it was played
    to its end) and the time.
    """

    parts: Parts
    mangle: Callable[[Wire], Wire]
    on_status: Callable[[int], None]
    on_end: Callable[[Cut | None, float], None]


class Answerer(Protocol):
    """The provider, as its connections see it."""

    def respond(self, ask: HttpAsk, now: float, unix_now: float) -> Reply:
        """The response to a request."""
        ...

    def respond_to_garbage(self, status: int, message: str, now: float, unix_now: float) -> Reply:
        """The response to bytes that are no HTTP/1.1 request, or not at this moment."""
        ...

    def connection_ended(self) -> None:
        """Called once when a connection has ended, from whichever side."""
        ...


class Machine(Protocol):
    """One connection. After every call ask `deadline`, and call `actions` then at the latest.

    Times are monotonic seconds in one epoch; a response keeps to its schedule however late it is polled.
    """

    @property
    def closed(self) -> bool:
        """Whether the connection has ended: no more actions will come."""
        ...

    def receive_data(self, data: bytes, now: float, unix_now: float) -> None:
        """Take bytes from the client; ``b""`` says that it has closed its side, which ends the connection."""
        ...

    def actions(self, now: float, max_bytes: int | None = None) -> list[Action]:
        """What is due by ``now``, adjacent sends merged.

        With ``max_bytes`` it stops soon after so many bytes, so that a writer can wait for its peer; what is left is
        still due, and `deadline` says so.
        """
        ...

    def deadline(self) -> float | None:
        """When `actions` has something to give; ``None`` if only the client can change that."""
        ...

    def connection_lost(self, now: float) -> None:
        """The connection is gone, whoever ended it. Calling it again does nothing."""
        ...
