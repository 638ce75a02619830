"""Server-sent events from any async iterable of bytes."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator

from sansio import SseChunk, SseDecoder


async def decode_sse_stream(
    source: AsyncIterable[bytes], *, max_event_bytes: int = 16 * 1024 * 1024
) -> AsyncIterator[SseChunk]:
    """The events in ``source``, as they become complete; an unfinished one at the end is dropped (WHATWG).

    Raises `SseLimitExceeded` for an event above ``max_event_bytes``, and whatever ``source`` raises.
    """
    decoder = SseDecoder(max_event_bytes=max_event_bytes)
    async for data in source:
        for chunk in decoder.feed(data):
            yield chunk
    for chunk in decoder.finish():
        yield chunk
