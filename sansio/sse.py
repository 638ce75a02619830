"""Server-sent events: bytes in, `SseChunk` out.

The algorithm is the WHATWG's (HTML standard, 9.2.6 "Interpreting an event stream"), carried out on bytes. Only CR and LF
end a line, and in UTF-8 neither is ever part of another character, not even of a broken one. So lines and fields are found
in the bytes, only what is dispatched is decoded, and a character split between two pieces needs no care at all.

Model providers send little else than events in two regular shapes: one ``data`` line (OpenAI, Gemini), or an ``event`` line
that hardly ever changes and one ``data`` line (Anthropic, OpenAI Responses), with one space after the colon. So the next
event is expected to begin as the one before did, and a piece passes up to four stations:

- `feed` itself takes two kinds of piece while the stream is regular: exactly one event, or events the first and the last of
  which are cut somewhere in their data.
- `_normalise` strips the BOM and makes every line end an LF. Pieces that are plain already skip it.
- `_from_event_start` and `_named_events` take a run of regular events, and say whether `feed` may go on like that.
- `_lines` takes all else: the algorithm as the standard words it, line by line. By it alone the chunks would be the same.

What waits for the next piece is the unfinished line, and the fields of the unfinished event. Each byte is looked at a
constant number of times, however small the pieces, and what waits is bounded.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat
from typing import Final

import msgspec

_BOM: Final = b"\xef\xbb\xbf"
_LF: Final = 0x0A
_CR: Final = 0x0D
_NUL: Final = 0x00

_MESSAGE: Final = "message"
_DATA: Final = b"data: "
_DATA_HEAD: Final = slice(6)
_DATA_BODY: Final = slice(6, -2)
_DATA_SEPARATOR: Final = "\n\ndata: "
_LONGEST_NAME: Final = 100
"""A longer type is never expected to come again: what is kept of it stays small."""

_MAX_RETRY_DIGITS: Final = 640
"""What `int` reads under any setting of `sys.set_int_max_str_digits`."""


class SseChunk(msgspec.Struct, frozen=True, gc=False):
    """One dispatched event. ``id`` is the last event ID at that point: it sticks from event to event."""

    data: str
    event: str = "message"
    id: str = ""


class SseLimitExceeded(Exception):
    """An event, or a line of any kind, needs more than its `SseDecoder` may hold. The decoder stays failed."""

    def __init__(self, max_event_bytes: int) -> None:
        super().__init__(max_event_bytes)
        self.max_event_bytes = max_event_bytes

    def __str__(self) -> str:
        return f"a server-sent event is larger than max_event_bytes={self.max_event_bytes}"


class SseDecoder:
    """Decodes one event stream (the body of one HTTP response), however its bytes are cut into pieces.

    max_event_bytes: the most that is held for one event, in bytes: its type, id and data so far, and the unfinished line,
    even if that is only a comment. What needs more fails the decoder, after the same chunks however the stream is cut.
    last_event_id: where the stream resumes, as sent in ``Last-Event-ID``; it holds until the stream names another.

    No bytes raise anything but `SseLimitExceeded`: invalid UTF-8 becomes U+FFFD, unknown fields are ignored.
    """

    __slots__ = (
        "_body",
        "_cut_room",
        "_data",
        "_event",
        "_failed",
        "_finished",
        "_head",
        "_held",
        "_id",
        "_last_event_id",
        "_last_name",
        "_line",
        "_mark",
        "_max_event_bytes",
        "_name",
        "_opening",
        "_plain",
        "_retry_ms",
        "_room",
        "_separator",
        "_skip_lf",
        "_value",
    )

    def __init__(self, *, max_event_bytes: int = 16 * 1024 * 1024, last_event_id: str = "") -> None:
        if type(max_event_bytes) is not int or max_event_bytes < 1:
            raise ValueError(f"max_event_bytes: {max_event_bytes!r} is not a whole number of bytes from 1 up")
        if not isinstance(last_event_id, str):
            raise ValueError(f"last_event_id: {last_event_id!r} is not a string")
        self._max_event_bytes = max_event_bytes
        self._last_event_id = last_event_id
        self._retry_ms: int | None = None
        # What waits: the unfinished line, and of the unfinished event the data (its lines joined, as one element or none),
        # the type, the id (None until a line sets it), and how many bytes these three take: 0 means between events.
        self._line: bytes | bytearray = b""
        self._data: list[bytes | bytearray] = []
        self._event = b""
        self._id: bytes | None = None
        self._held = 0
        # What `_normalise` minds; plain when there is nothing: past the BOM, not after a CR, not ended.
        self._plain = False
        self._mark: bytes | None = b""  # the first bytes, while they may yet turn out a BOM
        self._skip_lf = False  # the last byte was a CR: an LF that follows belongs to it
        self._failed = False
        self._finished = False
        # While the stream is regular: how large a piece `feed` may take by itself, if nothing waits (room) or nothing but
        # the beginning of a value (cut room); else -1. Then that beginning, and what the next event is expected to be.
        self._room = self._cut_room = -1
        self._value = ""
        self._last_name = ""
        self._expect(_DATA, _MESSAGE)

    @property
    def last_event_id(self) -> str:
        """The ID to reconnect with: set by an ``id`` field once its event is complete, even if that had no data."""
        return self._last_event_id

    @property
    def retry_ms(self) -> int | None:
        """The reconnection time the server last asked for, in milliseconds; ``None`` before it did.

        Exact up to 640 digits; more than that counts as the largest number of 640 digits.
        """
        return self._retry_ms

    def feed(self, data: bytes | bytearray | memoryview) -> list[SseChunk]:
        """The events these bytes complete, in order.

        Raises `SseLimitExceeded` when an event needs more than ``max_event_bytes``, and on every call after that. Events
        that were complete before it are not lost: if the same piece completed some, they are returned, and it is the next
        call that raises. Raises `RuntimeError` after `finish`.
        """
        # Fast path. Kept slices and operators, since a call of a method of bytes takes as long as three of them; `decode`
        # without arguments, since these cost, too; no method of our own. Each of these was measured: 5 to 20 % of it all.
        try:
            if len(data) <= self._room and type(data) is bytes:
                # Servers flush every event, so most pieces are exactly one.
                if data[self._head] == self._opening and data[-1] == _LF == data[-2]:
                    value = data[self._body]
                    if _LF not in value and _CR not in value:
                        return [SseChunk(value.decode(), self._name, self._last_event_id)]
            elif len(data) <= self._cut_room and type(data) is bytes and _CR not in data:
                # A busy connection is read in pieces that are cut anywhere. From the right, since that looks for the rare LF
                # first, in half the time of `split`. One look at all values is cheaper than one at each.
                values = data.decode().rsplit(self._separator)
                values[0] = self._value + values[0]
                if len(values) > 1 and "\n" not in "".join(values):
                    self._value = values.pop()
                    if self._name is _MESSAGE and not self._last_event_id:
                        return [*map(SseChunk, values)]
                    return [*map(SseChunk, values, repeat(self._name), repeat(self._last_event_id))]
        except UnicodeDecodeError:  # a character is cut, or broken
            pass
        piece = data if type(data) is bytes else bytes(memoryview(data))
        if not self._plain or _CR in piece:
            piece = self._normalise(piece)
            if self._plain and len(piece) <= self._room:
                return self.feed(piece)  # as it would have come without its CRs
        return self._any(piece)

    def finish(self, *, dispatch_incomplete: bool = False) -> list[SseChunk]:
        """The stream has ended. An unfinished event is dropped, as the standard says.

        With ``dispatch_incomplete`` it is dispatched instead, its unfinished last line included. Raises `SseLimitExceeded`
        if the decoder failed, `RuntimeError` when called twice.
        """
        self._check_usable()
        chunks: list[SseChunk] = []
        self._leave()
        if dispatch_incomplete:
            self._lines([bytes(self._line), b""] if self._line else [b""], chunks)
        self._finished = True
        self._drop_event()
        return chunks

    def _check_usable(self) -> None:
        if self._failed:
            raise SseLimitExceeded(self._max_event_bytes)
        if self._finished:
            raise RuntimeError("the decoder is finished: a new stream needs a new SseDecoder")

    def _drop_event(self) -> None:
        self._line, self._data, self._event, self._id, self._held = b"", [], b"", None, 0
        self._plain = False

    def _normalise(self, piece: bytes) -> bytes:
        """The piece without the stream's BOM, each of its line ends an LF."""
        self._check_usable()
        if self._mark is not None:
            piece = self._mark + piece
            if len(piece) < len(_BOM) and _BOM.startswith(piece):
                self._mark = piece
                return b""
            self._mark = None
            piece = piece.removeprefix(_BOM)
        if self._skip_lf and piece:
            self._skip_lf = False
            piece = piece.removeprefix(b"\n")
        if _CR in piece:
            self._skip_lf = piece[-1] == _CR
            ended = piece[-1] in (_CR, _LF)
            # Unlike that of str, splitlines of bytes knows CR, LF and CRLF only.
            piece = b"\n".join(piece.splitlines()) + (b"\n" if ended else b"")
        self._plain = not self._skip_lf
        return piece

    # From here on every line end is an LF.

    def _lengthen_line(self, piece: bytes) -> list[SseChunk]:
        """Takes a piece that does not end the unfinished line. A bytearray grows in place: linear work, no overhead."""
        if not isinstance(self._line, bytearray):
            self._line = bytearray(self._line)
        self._line += piece
        self._check_limit([])
        return []

    def _near_limit(self, piece: bytes) -> list[SseChunk]:
        """Takes a piece in which the limit could be met (elsewhere it cannot): checks it at each line."""
        chunks: list[SseChunk] = []
        *lines, self._line = piece.split(b"\n")
        for line in lines:
            if self._held + len(line) > self._max_event_bytes:
                self._line = line
                break
            self._lines((line,), chunks)
        self._check_limit(chunks)
        return chunks

    def _check_limit(self, chunks: list[SseChunk]) -> None:
        """Fails the decoder when it holds too much; raises at once unless there are chunks to be returned first."""
        if self._held + len(self._line) > self._max_event_bytes:
            self._failed = True
            self._drop_event()
            if not chunks:
                raise SseLimitExceeded(self._max_event_bytes)

    def _expect(self, opening: bytes, name: str) -> None:
        """The next event is expected to have this type and to begin with these bytes, up to its data."""
        self._opening, self._name = opening, name
        if opening is _DATA:
            self._head, self._body, self._separator = _DATA_HEAD, _DATA_BODY, _DATA_SEPARATOR
        else:
            self._head, self._body = slice(len(opening)), slice(len(opening), -2)
            self._separator = "\n\n" + opening.decode("utf-8", "replace")

    def _go_on(self, tail: bytes) -> None:
        """Keeps what follows a run of regular events. The next piece is likely to go on like them: `feed` may take it."""
        # An eighth of the limit: an unfinished value is part of one piece, and takes four bytes a character at most. So
        # neither what waits, nor that and the next piece together, can be more than the limit.
        room = self._max_event_bytes // 8 - len(self._opening)
        value = tail[self._head.stop :]
        if not tail:
            self._room = room
        elif tail[self._head] == self._opening and _LF not in value and len(value) <= room:
            try:
                self._value = value.decode()
                self._cut_room = room
            except UnicodeDecodeError:  # a character is cut
                self._rest(tail, [])
        else:
            self._rest(tail, [])

    def _leave(self) -> None:
        """The next piece is none for `feed` alone."""
        if self._cut_room >= 0:
            self._rest(self._opening + self._value.encode(), [])
            self._value = ""
        self._room = self._cut_room = -1

    def _any(self, piece: bytes) -> list[SseChunk]:
        """Takes any piece."""
        self._leave()
        if self._line:
            if _LF not in piece:
                return self._lengthen_line(piece)
            piece = b"".join((self._line, piece))
            self._line = b""
        if self._held + len(piece) > self._max_event_bytes:
            return self._near_limit(piece)
        if self._held:
            return self._inside_event(piece)
        return self._from_event_start(piece)

    def _inside_event(self, piece: bytes) -> list[SseChunk]:
        """Takes a piece in the middle of an event: that one goes line by line."""
        end = piece.find(b"\n\n") + 1
        if not end:
            return self._rest(piece, [])
        chunks: list[SseChunk] = []
        self._lines(piece[:end].split(b"\n"), chunks)  # the last one of these is the blank line
        return chunks + self._from_event_start(piece[end + 1 :])

    def _from_event_start(self, piece: bytes) -> list[SseChunk]:
        """Takes a piece that begins where an event does: at a few C calls an event, if it is a run of regular ones."""
        named = piece[:7] == b"event: "
        if named:
            if piece[self._head] != self._opening:
                return self._named_events(piece)
        elif piece[:6] != _DATA:
            return self._rest(piece, [])
        elif self._opening is not _DATA:
            self._expect(_DATA, _MESSAGE)
        run, end, tail = piece.rpartition(b"\n\n")
        values = run[len(self._opening) :].decode("utf-8", "replace").rsplit(self._separator)
        if end and "\n" not in values[0] and "\n" not in "".join(values):  # an irregular stream shows at once
            self._go_on(tail)
            return [*map(SseChunk, values, repeat(self._name), repeat(self._last_event_id))]
        return self._named_events(piece) if named else self._rest(piece, [])

    def _named_events(self, piece: bytes) -> list[SseChunk]:
        """Takes a run of ``event: …``, ``data: …`` events. A type that comes twice in a row is expected from then on."""
        run, _, tail = piece.rpartition(b"\n\n")
        last_event_id, last_name = self._last_event_id, self._last_name
        chunks: list[SseChunk] = []
        again = ""
        for fields in run[7:].decode("utf-8", "replace").rsplit("\n\nevent: "):
            name, separator, value = fields.partition("\ndata: ")
            if not separator or not name or "\n" in name or "\n" in value:
                return self._rest(piece, [])
            chunks.append(SseChunk(value, name, last_event_id))
            if name == last_name:
                again = name
            last_name = name if len(name) <= _LONGEST_NAME else ""
        self._last_name = last_name
        if again:
            self._expect(b"event: " + again.encode() + b"\n" + _DATA, again)
        self._go_on(tail)
        return chunks

    def _rest(self, piece: bytes, chunks: list[SseChunk]) -> list[SseChunk]:
        """Takes what no fast path took, at the start of a line: all its lines, and keeps the one that is unfinished."""
        if _LF in piece:
            lines = piece.split(b"\n")
            piece = lines.pop()
            self._lines(lines, chunks)
        self._line = piece
        return chunks

    def _lines(self, lines: Iterable[bytes], chunks: list[SseChunk]) -> None:
        """The standard's algorithm. A comment is a line whose field name is empty: unknown, thus ignored."""
        data, event, event_id = self._data, self._event, self._id
        for line in lines:
            if line[:6] == b"data: ":  # the most frequent line, without the general way below
                data.append(line[6:])
            elif not line:
                if event_id is not None:
                    self._last_event_id = event_id.decode("utf-8", "replace")
                    event_id = None
                if data:
                    text = b"\n".join(data).decode("utf-8", "replace")
                    name = event.decode("utf-8", "replace") if event else "message"
                    chunks.append(SseChunk(text, name, self._last_event_id))
                    data.clear()
                event = b""
            else:
                field, _, value = line.partition(b":")
                if value[:1] == b" ":
                    value = value[1:]
                if field == b"data":
                    data.append(value)
                elif field == b"event":
                    event = value
                elif field == b"id":
                    if _NUL not in value:
                        event_id = value
                elif field == b"retry" and value.isdigit():  # of bytes: ASCII digits only
                    self._retry_ms = _milliseconds(value)
        self._event, self._id = event, event_id
        if data or event or event_id is not None:
            self._hold()
        else:
            self._held = 0

    def _hold(self) -> None:
        """Makes the unfinished event compact (many short lines would take far more than their bytes) and weighs it."""
        data = self._data
        if len(data) > 1:
            joined = data[0] if isinstance(data[0], bytearray) else bytearray(data[0])
            joined += b"\n"
            joined += b"\n".join(data[1:])
            data[:] = [joined]
        self._held = len(self._event)
        if data:
            self._held += len(data[0]) + 1
        if self._id is not None:
            self._held += len(self._id) + 1


def _milliseconds(digits: bytes) -> int:
    digits = digits.lstrip(b"0") or b"0"
    return int(digits) if len(digits) <= _MAX_RETRY_DIGITS else 10**_MAX_RETRY_DIGITS - 1
