"""A recorded response through a codec, offline: the same `Exchange` that runs in production, without a network."""

from __future__ import annotations

from collections.abc import Iterable

from .batch import ExecuteBatch, Message, TokenChunk
from .codec import ProviderCodec
from .errors import InferenceError
from .exchange import Exchange, ExchangeConfig
from .http import Timeouts
from .secret import Credential
from .session import SessionSnapshot


def replay_response(
    codec: ProviderCodec,
    status: int,
    headers: Iterable[tuple[str, str]],
    pieces: Iterable[bytes],
    *,
    stream: bool = True,
    unix_now: float = 0.0,
) -> tuple[list[TokenChunk], InferenceError | None]:
    """The chunks and the error (``None`` for success) that this response gives. ``unix_now`` is when its head came."""
    batch = ExecuteBatch(messages=[Message(role="user", content="replay")])
    session = SessionSnapshot(1, Credential("replay"))
    exchange = Exchange(ExchangeConfig(codec, Timeouts()), batch, session, 0.0, stream=stream)
    exchange.sending(0.0)
    exchange.receive_head(status, tuple(headers), 0.0, unix_now)
    chunks: list[TokenChunk] = []
    for piece in pieces:
        chunks += exchange.receive_body(piece, 0.0)
    chunks += exchange.receive_end(0.0)
    assert exchange.outcome is not None
    return chunks, exchange.outcome.error
