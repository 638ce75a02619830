"""What a provider is to the core: a pure translator between `ExecuteBatch` and HTTP, and back from bytes to `TokenChunk`.

A provider is one class with these methods (`sansio/providers/openai.py` is the pattern); a third party's needs nothing of
ours changed: a `Deployment` takes it as its ``runtime``. Nothing here does I/O, and nothing raises on what a provider sends:
unknown fields, event types and finish reasons are carried or ignored, failures come back as `InferenceError` values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from .batch import ExecuteBatch, TokenChunk, TokenEstimate, TokenUsage
from .errors import InferenceError
from .http import Headers, HttpRequest
from .rate_limit import RateLimitSnapshot
from .session import SessionSnapshot
from .sse import SseChunk


class StreamDecoder(Protocol):
    """Turns the events of one streamed answer into chunks. One per attempt."""

    error: InferenceError | None
    """The in-stream error, once one came. Nothing after it is decoded."""

    complete: bool
    """Whether the provider's proof of completeness was seen (for OpenAI: a finish reason for every choice asked for)."""

    terminal: bool
    """Whether the format's last event was seen (``[DONE]``): nothing more is to be expected."""

    usage: TokenUsage | None
    """The usage as last reported, or ``None`` while it is unknown."""

    def decode(self, events: Sequence[SseChunk]) -> list[TokenChunk]:
        """The chunks of these events, one per delta; events without a delta yield none.

        Stops at an in-stream error or an event that does not parse: what came before is returned, ``error`` is set.
        """
        ...


@runtime_checkable
class ProviderCodec(Protocol):
    """One provider's wire format. Immutable, shared by all requests of a deployment."""

    @property
    def provider(self) -> str:
        """The name errors, limiters and circuits carry, such as ``"openai"``."""
        ...

    @property
    def endpoint(self) -> str:
        """The base URL requests go to: with ``provider``, the key of the circuit breaker."""
        ...

    def encode(self, batch: ExecuteBatch, session: SessionSnapshot, *, stream: bool = True) -> HttpRequest:
        """The request on the wire. Raises `ValueError` for a batch this provider cannot express, naming the field."""
        ...

    def estimate(self, batch: ExecuteBatch) -> TokenEstimate:
        """What to reserve before sending. Cheap: no tokenizer."""
        ...

    def stream_decoder(self, batch: ExecuteBatch | None = None) -> StreamDecoder:
        """A fresh decoder for one streamed answer to ``batch``: how many choices it asks for, it must get. ``None``: one."""
        ...

    def decode_unary(self, body: bytes, headers: Headers = ()) -> list[TokenChunk] | InferenceError:
        """A whole unary answer: one chunk per choice (usage on the first), or what is wrong with it.

        ``headers`` are those of the response, with lower-case names: some say what it cost.
        """
        ...

    def classify(self, status: int, headers: Headers, body: bytes, unix_now: float) -> InferenceError:
        """What a response that is not a success means. Total: any status, headers and bytes."""
        ...

    def rate_limit_snapshot(self, headers: Headers, unix_now: float) -> RateLimitSnapshot | None:
        """The provider's view of the limits in these headers, or ``None`` where they hold none."""
        ...
