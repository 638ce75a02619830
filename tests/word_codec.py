"""A codec made for reading, so that a recorded stream fits on a line of a test: its events are words, see `WordDecoder`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from sansio.batch import ExecuteBatch, FinishReason, TokenChunk, TokenEstimate, TokenUsage, ToolCallDelta
from sansio.classify import classify_http_status
from sansio.errors import InferenceError, ProtocolError, ServerError
from sansio.http import Headers, HttpRequest
from sansio.rate_limit import RateLimitSnapshot
from sansio.session import SessionSnapshot
from sansio.sse import SseChunk


class WordDecoder:
    """``t:`` text, ``r:`` reasoning, ``x:`` refusal, ``c:`` a tool call, ``f:INDEX:REASON`` a finish, ``u:N`` a usage of N,
    ``e:`` an error, ``role`` nothing, ``[DONE]`` the end; anything else does not parse."""

    def __init__(self) -> None:
        self.error: InferenceError | None = None
        self.complete = False
        self.terminal = False
        self.usage: TokenUsage | None = None

    def decode(self, events: Sequence[SseChunk]) -> list[TokenChunk]:
        chunks: list[TokenChunk] = []
        for event in events:
            if self.error is not None or self.terminal:
                break
            kind, _, rest = event.data.partition(":")
            match kind:
                case "t":
                    chunks.append(TokenChunk(rest))
                case "r":
                    chunks.append(TokenChunk(reasoning_delta=rest))
                case "x":
                    chunks.append(TokenChunk(refusal_delta=rest))
                case "c":
                    chunks.append(TokenChunk(tool_call_deltas=(ToolCallDelta(0, "id", rest),)))
                case "f":
                    index, _, reason = rest.partition(":")
                    chunks.append(TokenChunk(index=int(index), finish_reason=cast(FinishReason, reason)))
                    self.complete = True
                case "u":
                    self.usage = TokenUsage(10, int(rest), 1, 2, 3)
                    chunks.append(TokenChunk(usage=self.usage))
                case "e":
                    self.complete = False
                    self.error = ServerError(503, message=rest)
                case "role":
                    pass
                case "[DONE]":
                    self.terminal = True
                case "defect":
                    raise KeyError(rest)
                case _:
                    self.error = ProtocolError("does not parse", retryable=True)
        return chunks


@dataclass(frozen=True)
class WordCodec:
    """A unary answer is words too, one chunk for each."""

    provider: str = "words"
    endpoint: str = "http://h/v1"

    def encode(self, batch: ExecuteBatch, session: SessionSnapshot, *, stream: bool = True) -> HttpRequest:
        return HttpRequest("POST", self.endpoint, (("x-generation", str(session.generation)),), b"s" if stream else b"u")

    def estimate(self, batch: ExecuteBatch) -> TokenEstimate:
        return TokenEstimate(1, 1)

    def stream_decoder(self, batch: ExecuteBatch | None = None) -> WordDecoder:
        return WordDecoder()

    def decode_unary(self, body: bytes, headers: Headers = ()) -> list[TokenChunk] | InferenceError:
        decoder = WordDecoder()
        chunks = decoder.decode([SseChunk(word) for word in body.decode().split()])
        return decoder.error or chunks

    def classify(self, status: int, headers: Headers, body: bytes, unix_now: float) -> InferenceError:
        hint = unix_now if ("retry-after", "unix_now") in headers else None
        return classify_http_status("words", status, hint, body)

    def rate_limit_snapshot(self, headers: Headers, unix_now: float) -> RateLimitSnapshot | None:
        return None


def wire(*words: str) -> bytes:
    """Each word as an event."""
    return "".join(f"data: {word}\n\n" for word in words).encode()


def told(chunks: Iterable[TokenChunk]) -> list[str]:
    """Chunks as words again."""
    words: list[str] = []
    for chunk in chunks:
        if chunk.has_content:
            call = chunk.tool_call_deltas[0].name if chunk.tool_call_deltas else ""
            words.append(chunk.text_delta or chunk.reasoning_delta or chunk.refusal_delta or call)
        if chunk.finish_reason is not None:
            words.append(f"{chunk.index}={chunk.finish_reason}")
        if chunk.usage is not None:
            words.append(f"usage {chunk.usage.output_tokens}")
    return words
