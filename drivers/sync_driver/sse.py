"""Server-sent events from any iterable of bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sansio import SseChunk, SseDecoder


def decode_sse_stream(source: Iterable[bytes], *, max_event_bytes: int = 16 * 1024 * 1024) -> Iterator[SseChunk]:
    """The events in ``source``, as they become complete; an unfinished one at the end is dropped (WHATWG).

    Raises `SseLimitExceeded` for an event above ``max_event_bytes``, and whatever ``source`` raises.
    """
    decoder = SseDecoder(max_event_bytes=max_event_bytes)
    for data in source:
        yield from decoder.feed(data)
    yield from decoder.finish()
