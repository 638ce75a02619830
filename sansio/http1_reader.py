"""One HTTP/1.1 response (RFC 9112) out of bytes that come in pieces: a head, pieces of body, and an end or an error.

A reader of our own because a token's cost is mostly its framing: h11 takes six to nine times as long for a chunk and lets
pass what the RFC calls an error (bare LF, line folding, a length beside chunks), and httptools, a C parser and faster still,
never hears of the end of the connection and bounds no head. h11 is the reference in the tests: what is taken here, it takes
with the same meaning; what it refuses is refused here.

A response passes through stages, each a method that takes what it can from a piece and says where it stopped:

- the head: as many informational ones (1xx) as come before it, skipped; then the one grammar `_HEAD` for the whole of it;
- the body as the head frames it: `_counted`, `_until_close`, or in turn `_chunks` and `_rest_of_chunk`, then `_trailers`.

What waits for the next piece is an `_Unfinished` head, size line or trailer section, nothing else. Each byte is looked at a
constant number of times, however small the pieces, what waits is bounded, and the outcome does not depend on the cuts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from .errors import ForeignError, InferenceError, NetworkError, ProtocolError
from .http import END, HttpEvent, ResponseHead
from .scrub import excerpt

MAX_HEAD_BYTES: Final = 64 * 1024
"""The most a response head may hold, the informational ones before it included; and a trailer section."""

MAX_FIELDS: Final = 256
"""The most fields in a head or a trailer section."""

MAX_INFORMATIONAL: Final = 32
"""The most informational responses (1xx) before a response."""

MAX_SIZE_LINE_BYTES: Final = 4096
"""The most a chunk's size line may hold, with its extensions."""

_CRLF: Final = b"\r\n"
_BLANK_LINE: Final = b"\r\n\r\n"

# RFC 9110, 5.6.2 (token) and 5.5 (field values: no control character but the tab). Nothing here backtracks.
_TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_TEXT: Final = r"[\t\x20-\x7e\x80-\xff]*+"
_FIELD_LINES: Final = rf"(?:{_TOKEN}:{_TEXT}\r\n)*"
# RFC 9112, 4. Too many servers leave out the space before an absent reason to insist on it.
_STATUS_LINE: Final = rf"HTTP/1\.([0-9]) ([0-9]{{3}})(?: {_TEXT})?\r\n"

_HEAD: Final = re.compile(rf"{_STATUS_LINE}({_FIELD_LINES})\r\n")
_STATUS: Final = re.compile(_STATUS_LINE)
_FIELDS: Final = re.compile(_FIELD_LINES)
_LENGTH: Final = re.compile("[0-9]{1,18}")
# RFC 9112, 7.1.
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})\r\n")
_SIZE_AND_EXTENSIONS: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\t\x20-\x7e\x80-\xff]*+)?\r\n")
# In no line: a control character, or CR or LF without the other.
_STRAY: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r[^\n]|(?<!\r)\n")

_FRAMING: Final = frozenset({"content-length", "transfer-encoding"})
_NOTED: Final = _FRAMING | {"connection", "content-encoding"}


class RemoteProtocolError(Exception):
    """What the peer sent breaks the protocol or a bound: the cause of the error that a caller gets."""


class _Lost(RemoteProtocolError):
    """The connection ended in the middle of it."""


class _Unwanted(RemoteProtocolError):
    """It is past a bound, or in a coding: the same would come again."""


class ResponseReader:
    """Reads the response to one request, and nothing behind it.

    method: of the request, because the answer to ``HEAD`` has no body. A failure is the last event: `NetworkError` when the
    connection ended early, `ProtocolError` for what is no HTTP/1.1 (worth another try), or is past a bound or in a content
    coding, none of which is asked for (not worth one).
    """

    __slots__ = ("_bodiless", "_head_bytes", "_informational", "_left", "_stage", "_unfinished", "ended", "reusable")

    def __init__(self, method: str) -> None:
        self.ended = False  # the last event was given
        self.reusable = False  # meaningful at the end: whether the connection may carry another request
        self._bodiless = method == "HEAD"
        self._stage: Callable[[ResponseReader, bytes, int, list[bytes]], int] | None = None  # None: in the head
        self._unfinished: _Unfinished | None = None
        self._left = 0  # bytes until the end of a counted body, or of a chunk and its CRLF
        self._head_bytes = 0  # of the heads that are complete
        self._informational = 0

    def receive(self, data: bytes) -> list[HttpEvent]:
        """The events in what a socket read (``b""``: its end). The body in one call is one piece. Not after the end."""
        events: list[HttpEvent] = []
        pieces: list[bytes] = []
        last: HttpEvent | None = None
        try:
            if data:
                self._read(data, events, pieces)
            else:
                self._read_end_of_file()
            if self.ended:
                last = END
        except RemoteProtocolError as error:
            self.ended, self.reusable = True, False
            last = _told(error)
        if pieces:
            events.append(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if last is not None:
            events.append(last)
        return events

    def _read(self, data: bytes, events: list[HttpEvent], pieces: list[bytes]) -> None:
        if self._unfinished is not None:
            whole = self._unfinished.add(data)
            if whole is None:
                return
            data, self._unfinished = whole, None
        at, size = 0, len(data)
        if self._stage is None:
            at = self._heads(data, events)
        while at < size and self._stage is not None and not self.ended:
            at = self._stage(self, data, at, pieces)
        if at < size:  # nobody asked for what comes behind the end
            self.reusable = False

    def _read_end_of_file(self) -> None:
        if self._stage is not ResponseReader._until_close:
            raise _Lost("the peer closed the connection in the middle of a response")
        self.ended = True

    # ---- the head -------------------------------------------------------------------------------------------------------

    def _heads(self, data: bytes, events: list[HttpEvent]) -> int:
        at = 0
        while self._stage is None:
            end = data.find(_BLANK_LINE, at) + 4
            if end < 4:
                self._unfinished = _Unfinished(data[at:], _HEADS, self._head_bytes)
                return len(data)
            if self._head_bytes + end - at > MAX_HEAD_BYTES:
                _check_beginning(data[at:end], _HEADS, self._head_bytes)
            self._head_bytes += end - at
            self._head(data[at:end].decode("latin-1"), events)
            at = end
        return at

    def _head(self, text: str, events: list[HttpEvent]) -> None:
        match = _HEAD.fullmatch(text)
        if match is None:
            raise RemoteProtocolError(f"illegal line in a response head: {_illegal_line(text)}")
        lines = match[3].split("\r\n")
        if len(lines) > MAX_FIELDS + 1:
            raise _Unwanted(f"a response head has more than {MAX_FIELDS} fields")
        fields: list[tuple[str, str]] = []
        noted: list[tuple[str, str]] = []
        for line in lines[:-1]:
            name, _, value = line.partition(":")
            field = (name.lower(), value.strip(" \t"))
            fields.append(field)
            if field[0] in _NOTED:
                noted.append(field)
        status, chunked, length = int(match[2]), *_framing(noted)
        if status < 200:
            self._skip(status)
        elif chunked and match[1] == "0":
            raise RemoteProtocolError("Transfer-Encoding in HTTP/1.0")
        else:
            events.append(ResponseHead(status, tuple(fields)))  # known and useful, even if the body is in a coding
            _refuse_codings(noted)
            self._begin_body(status, chunked, length)
            self.reusable &= match[1] != "0" and not asks_to_close(noted)

    def _skip(self, status: int) -> None:
        if status < 100 or status == 101:  # no upgrade is ever asked for
            raise RemoteProtocolError(f"a response has the status {status:03}")
        self._informational += 1
        if self._informational > MAX_INFORMATIONAL:
            raise _Unwanted(f"more than {MAX_INFORMATIONAL} informational responses")

    def _begin_body(self, status: int, chunked: bool, length: int | None) -> None:
        """Which body follows: RFC 9112, 6.3."""
        self.reusable = True
        if self._bodiless or status in (204, 304):
            if status == 204 and (chunked or length):  # none by its status, one by its fields: it may yet come
                self.reusable = False
            chunked, length = False, 0
        if chunked:
            self._stage = ResponseReader._chunks
        elif length is None:
            self._stage = ResponseReader._until_close
            self.reusable = False
        else:
            self._stage = ResponseReader._counted
            self._left = length
            self.ended = length == 0

    # ---- the body: each takes what it can of data[at:], and gives where it stopped ----------------------------------------

    def _until_close(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        pieces.append(data[at:])
        return len(data)

    def _counted(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        piece = data[at : at + self._left]
        pieces.append(piece)
        self._left -= len(piece)
        self.ended = self._left == 0
        return at + len(piece)

    def _chunks(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        """Whole chunks, as many as there are: the hot path, a match and two slices a chunk."""
        while (line := _SIZE.match(data, at)) is not None:
            start = line.end()
            end = start + int(line[1], 16)
            if start == end or data[end : end + 2] != _CRLF:
                return self._begin_chunk(start, end - start)
            pieces.append(data[start:end])
            at = end + 2
        return at if at == len(data) else self._size_line(data, at)

    def _size_line(self, data: bytes, at: int) -> int:
        """A size line with extensions (none is known here: dropped), one that is not complete, or what is none."""
        end = data.find(_CRLF, at) + 2
        if end < 2:
            self._unfinished = _Unfinished(data[at:], _SIZE_LINE)
            return len(data)
        if end - at > MAX_SIZE_LINE_BYTES:
            _check_beginning(data[at:end], _SIZE_LINE)
        line = _SIZE_AND_EXTENSIONS.fullmatch(data, at, end)
        if line is None:
            raise RemoteProtocolError(f"illegal chunk size: {data[at:end].decode('latin-1')}")
        return self._begin_chunk(end, int(line[1], 16))

    def _begin_chunk(self, at: int, size: int) -> int:
        if (
            size == 0
        ):  # the last. The CRLF of its line goes to `_trailers`, which so end in a blank line even if there are none
            self._stage = ResponseReader._trailers
            return at - 2
        self._stage = ResponseReader._rest_of_chunk
        self._left = size + 2
        return at

    def _rest_of_chunk(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        if self._left > 2:
            piece = data[at : at + self._left - 2]
            pieces.append(piece)
            at += len(piece)
            self._left -= len(piece)
        if self._left <= 2:
            ending = data[at : at + self._left]
            if not _CRLF.startswith(ending, 2 - self._left):
                raise RemoteProtocolError("a chunk goes on past its size")
            at += len(ending)
            self._left -= len(ending)
            if self._left == 0:
                self._stage = ResponseReader._chunks
        return at

    def _trailers(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        """The fields behind the last chunk: held to their form, and dropped (RFC 9112, 7.1.2)."""
        end = data.find(_BLANK_LINE, at) + 4
        if end < 4:
            self._unfinished = _Unfinished(data[at:], _TRAILERS)
            return len(data)
        if end - at > MAX_HEAD_BYTES:
            _check_beginning(data[at:end], _TRAILERS)
        _check_trailers(data[at + 2 : end - 2].decode("latin-1"))
        self.ended = True
        return end


class _Element(NamedTuple):
    name: str
    ending: bytes
    opening: bytes
    max_bytes: int


_HEADS: Final = _Element("a response head", _BLANK_LINE, b"HTTP/1.", MAX_HEAD_BYTES)
_SIZE_LINE: Final = _Element("a chunk's size line", _CRLF, b"", MAX_SIZE_LINE_BYTES)
_TRAILERS: Final = _Element("a trailer section", _BLANK_LINE, b"", MAX_HEAD_BYTES)


class _Unfinished:
    """The beginning of a head, a size line or a trailer section, until its end comes. It grows in place."""

    __slots__ = ("_bytes", "_element", "_spent")

    def __init__(self, begun: bytes, element: _Element, spent: int = 0) -> None:
        self._bytes, self._element, self._spent = bytearray(begun), element, spent
        _check_beginning(self._bytes, element, spent)

    def add(self, data: bytes) -> bytes | None:
        """All that came, once the end is in it; ``None`` until then."""
        known = len(self._bytes)
        self._bytes += data
        if self._bytes.find(self._element.ending, max(0, known - len(self._element.ending) + 1)) >= 0:
            return bytes(self._bytes)
        _check_beginning(self._bytes, self._element, self._spent, known)
        return None


def _check_beginning(begun: bytes | bytearray, element: _Element, spent: int = 0, known: int = 0) -> None:
    """Refuse what can become no legal element: now, because its end may never come.

    spent: of what it may hold. known: how many bytes were fine the last time. Only what is within the bound is looked at, so
    that what is both malformed and too long is called the same however it was cut.
    """
    room = element.max_bytes - spent
    if not begun.startswith(element.opening[: min(len(begun), room)]):
        raise RemoteProtocolError(f"{element.name} begins with {begun[:80].decode('latin-1')}")
    if _STRAY.search(begun, max(0, known - 1), room) is not None:
        raise RemoteProtocolError(f"a control character in {element.name}")
    if len(begun) > room:
        raise _Unwanted(f"{element.name} is larger than {element.max_bytes} bytes")


def _framing(noted: Iterable[tuple[str, str]]) -> tuple[bool, int | None]:
    """Whether the body is chunked, and its length if that is told.

    One Content-Length or one Transfer-Encoding at most: both, or two that differ, are how messages are smuggled, and RFC
    9110, 8.6, leaves it to the recipient to refuse a length that is repeated.
    """
    framing = [field for field in noted if field[0] in _FRAMING]
    if not framing:
        return False, None
    (name, value), *more = framing
    if more:
        raise RemoteProtocolError(f"{name} and then {more[0][0]}")
    if name == "transfer-encoding":
        if value.lower() != "chunked":
            raise RemoteProtocolError(f"{name} other than chunked: {value}")
        return True, None
    if _LENGTH.fullmatch(value) is None:
        raise RemoteProtocolError(f"illegal {name}: {value}")
    return False, int(value)


def asks_to_close(fields: Iterable[tuple[str, str]]) -> bool:
    """Whether the connection ends with this message (RFC 9112, 9.6)."""
    return any(
        option.strip(" \t") == "close"
        for name, value in fields
        if name == "connection"
        for option in value.lower().split(",")
    )


def _refuse_codings(noted: Iterable[tuple[str, str]]) -> None:
    """A body that is compressed although that was not asked for (RFC 9110, 8.4)."""
    codings = ",".join(value for name, value in noted if name == "content-encoding").lower().split(",")
    unknown = sorted({coding.strip(" \t") for coding in codings} - {"", "identity"})
    if unknown:
        raise _Unwanted(f"the body is in the content coding {unknown[0][:40]!r}, not in identity")


def _check_trailers(text: str) -> None:
    if _FIELDS.fullmatch(text) is None:
        raise RemoteProtocolError(f"illegal line in a trailer section: {_illegal_field(text)}")
    names = [line.partition(":")[0].lower() for line in text.split("\r\n")]
    if len(names) > MAX_FIELDS + 1:
        raise _Unwanted(f"a trailer section has more than {MAX_FIELDS} fields")
    if not _FRAMING.isdisjoint(names):
        raise RemoteProtocolError("the framing of a body in a trailer section")


def _illegal_line(head: str) -> str:
    status_line = _STATUS.match(head)
    return _illegal_field(head[status_line.end() :]) if status_line else head.partition("\r\n")[0]


def _illegal_field(lines: str) -> str:
    good = _FIELDS.match(lines)
    return lines[good.end() if good else 0 :].partition("\r\n")[0]


def _told(cause: RemoteProtocolError) -> InferenceError:
    said = excerpt(str(cause))[:200]  # it quotes what was met, and that may be anything
    error: InferenceError
    if isinstance(cause, _Lost):
        error = NetworkError("the connection was closed before the response ended")
    elif isinstance(cause, _Unwanted):
        error = ProtocolError(said)
    else:
        error = ProtocolError(f"not HTTP/1.1: {said}", retryable=True)
    return error.caused_by(ForeignError(RemoteProtocolError.__name__, said))
