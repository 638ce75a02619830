"""A plain line loop: what one writes in a quarter of an hour. It reads what most servers send, and bounds nothing."""

from __future__ import annotations

from sansio.sse import SseChunk


class LineLoop:
    """Split at LF, keep the rest, take each line by its field name."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._event = ""
        self._id = ""

    def feed(self, piece: bytes) -> list[SseChunk]:
        """The events these bytes complete."""
        chunks: list[SseChunk] = []
        lines = (self._rest + piece).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            if line.endswith(b"\r"):
                line = line[:-1]
            if not line:
                if self._data:
                    text = b"\n".join(self._data).decode("utf-8", "replace")
                    chunks.append(SseChunk(text, self._event or "message", self._id))
                    self._data.clear()
                self._event = ""
                continue
            name, _, value = line.partition(b":")
            if value.startswith(b" "):
                value = value[1:]
            if name == b"data":
                self._data.append(value)
            elif name == b"event":
                self._event = value.decode("utf-8", "replace")
            elif name == b"id":
                self._id = value.decode("utf-8", "replace")
        return chunks
