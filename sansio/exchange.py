"""One HTTP attempt: a request in, bytes in, chunks out, exactly one outcome.

An `Exchange` is made by the engine's order and driven by one caller without a lock. It owns the decoder and the codec's
stream state, knows the commit point, and keeps the attempt's clocks. It never acts on a clock by itself: the engine looks
at `deadline` and asks `overdue`, and the driver reports what came of it.

    CREATED → CONNECTING → SENT → (head) → STREAM | UNARY | REFUSED → ENDED

The clocks of bytes and of content run only between `wait` and the next fact: a caller that pauses is not a stalled server.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field, replace

from .batch import ExecuteBatch, TokenChunk, TokensBuilder, TokenUsage
from .codec import ProviderCodec, StreamDecoder
from .errors import (
    DeadlineExceeded,
    EngineClosed,
    InferenceError,
    Internal,
    NetworkError,
    ProtocolError,
    StreamInterrupted,
    Timeout,
)
from .http import Headers, HttpRequest, Timeouts, lower_headers
from .scrub import REDACTED, SHORTEST_SECRET_CHARS
from .session import SessionSnapshot
from .sse import SseDecoder, SseLimitExceeded

MAX_ERROR_BODY_BYTES = 64 * 1024
"""How much of a response that is not a success is read before it is classified."""

MAX_HELD_CHUNKS = 1024
"""How many chunks without content (a finish reason, a usage) are held back before the commit point."""


class Phase(enum.Enum):
    """Where an exchange is; each phase has clocks of its own."""

    CREATED = "created"
    CONNECTING = "connect"
    SENT = "first byte"
    STREAM = "stream"
    UNARY = "unary"
    REFUSED = "refused"
    ENDED = "ended"


_STREAM = Phase.STREAM
_READING = (Phase.STREAM, Phase.UNARY, Phase.REFUSED)
"""Names of their own: looking a member up in its enumeration costs more than the rest of a comparison."""

_BEFORE_THE_HEAD = (Phase.CREATED, Phase.CONNECTING, Phase.SENT)


@dataclass(frozen=True, slots=True)
class AttemptOutcome:
    """How an attempt ended: ``error`` is ``None`` for success, ``usage`` ``None`` where it is unknown."""

    error: InferenceError | None
    usage: TokenUsage | None


@dataclass(frozen=True, slots=True)
class ExchangeConfig:
    """What all the exchanges of a deployment share."""

    codec: ProviderCodec
    timeouts: Timeouts
    max_event_bytes: int = 16 * 1024 * 1024
    max_body_bytes: int = 64 * 1024 * 1024
    check_intervals: tuple[float, float, float] = field(init=False, repr=False)
    """`Exchange.check_interval` before the head (unary, streamed) and after it: asked for twice in each attempt."""

    def __post_init__(self) -> None:
        t = self.timeouts
        unary, streamed = (_least(t.connect_timeout, t.first_byte(stream=stream)) for stream in (False, True))
        object.__setattr__(self, "check_intervals", (unary, streamed, _least(t.read_timeout, t.content_timeout)))


class Exchange:
    """One HTTP attempt. Facts may come late or twice; after the outcome they do nothing."""

    __slots__ = (
        "_batch", "_body", "_builder", "_clock", "_config", "_content_left", "_content_timeout", "_decoder", "_head",
        "_held", "_now", "_phase", "_read_left", "_read_timeout", "_received_bytes", "_request_deadline", "_session",
        "_sse", "_started_at", "_total_at", "_unix_now", "_waiting_since", "committed", "outcome", "sent", "stream",
    )  # fmt: skip

    def __init__(
        self,
        config: ExchangeConfig,
        batch: ExecuteBatch,
        session: SessionSnapshot,
        now: float,
        *,
        stream: bool,
        request_deadline: float | None = None,
    ) -> None:
        self.stream = stream
        self.sent = False
        """Whether any byte of the request may have left: then its cost stands, whatever happens."""
        self.committed = False
        """Whether content was handed out: then it is never replayed."""
        self.outcome: AttemptOutcome | None = None
        self._config = config
        self._batch = batch
        self._session = session
        self._phase = Phase.CREATED
        self._started_at = now
        self._now: float = now
        self._request_deadline = math.inf if request_deadline is None else request_deadline
        total = config.timeouts.total_timeout
        self._total_at = min(self._request_deadline, math.inf if total is None else now + total)
        self._clock: tuple[float, str, float | None] = (self._total_at, "total", total)
        """The one that runs out first: when, its name, its length. One value: the engine may look from another thread."""
        self._waiting_since: float | None = None
        self._content_timeout = _seconds(config.timeouts.content_timeout)
        self._read_timeout = _seconds(config.timeouts.read_timeout)
        self._content_left: float = self._content_timeout
        self._read_left: float = self._read_timeout
        self._head: tuple[int, Headers] = (0, ())
        self._unix_now = 0.0
        self._received_bytes = 0
        self._body: list[bytes] = []
        self._held: list[TokenChunk] = []
        self._builder = TokensBuilder()
        self._sse: SseDecoder | None = None
        self._decoder: StreamDecoder | None = None

    @property
    def phase(self) -> Phase:
        """Where this exchange is."""
        return self._phase

    @property
    def deadline(self) -> float:
        """The instant at which a clock runs out, infinity if none runs. Moves in both directions."""
        return self._clock[0]

    @property
    def generation(self) -> int:
        """The generation of the credential this attempt carries."""
        return self._session.generation

    @property
    def refused(self) -> bool:
        """Whether the provider answered 4xx: then it ran nothing, and bills nothing."""
        return 400 <= self._head[0] < 500

    @property
    def check_interval(self) -> float:
        """The shortest clock that may start without the engine hearing of it: it looks at `deadline` at least so often."""
        unary, streamed, after = self._config.check_intervals
        if self._phase in _BEFORE_THE_HEAD:
            return streamed if self.stream else unary
        return after

    # ---- what the driver does, told before it does it ------------------------------------------------------------------

    def request(self) -> HttpRequest:
        """The request to send. Raises `ValueError` for a batch the provider cannot express."""
        return self._config.codec.encode(self._batch, self._session, stream=self.stream)

    def connecting(self, now: float) -> None:
        """A connection is being made, or taken from the pool."""
        self._enter(Phase.CONNECTING, now, self._config.timeouts.connect_timeout)

    def sending(self, now: float) -> None:
        """The request is about to be sent: from here on its cost stands."""
        if self._phase is Phase.ENDED:
            return
        self.sent = True
        self._enter(Phase.SENT, now, self._config.timeouts.first_byte(stream=self.stream))

    def wait(self, now: float) -> None:
        """The caller waits for bytes from now on. Of no effect before the head, when another clock runs."""
        if self._phase in _READING:
            self._waiting_since = now = self.pause(now)
            if self._read_left < self._content_left:
                self._run(now + self._read_left, "read", self._read_timeout)
            else:
                self._run(now + self._content_left, "content", self._content_timeout)

    def pause(self, now: float) -> float:
        """The caller waits no longer, with or without bytes: what is left of its clocks runs on when it waits again.

        From ``now`` on only the total runs. Returns the time, which stands still where a clock goes backwards.
        """
        if now < self._now:
            now = self._now
        self._now = now
        if self._waiting_since is not None:
            waited = now - self._waiting_since
            self._content_left -= waited
            self._read_left -= waited
            self._waiting_since = None
            self._clock = (self._total_at, "total", self._config.timeouts.total_timeout)
        return now

    # ---- what the driver met ------------------------------------------------------------------------------------------

    def receive_head(self, status: int, headers: Headers, now: float, unix_now: float) -> None:
        """Status and headers. Decides how the body is read; a status or content type not asked for is a refusal."""
        if self._phase is not Phase.SENT:
            return
        headers = lower_headers(headers)
        self._head, self._unix_now = (status, headers), unix_now
        if status != 200 or _content_type(headers) not in ("", self._wanted):
            self._enter(Phase.REFUSED, now, None)
        elif self.stream:
            self._sse = SseDecoder(max_event_bytes=self._config.max_event_bytes)
            self._decoder = self._config.codec.stream_decoder(self._batch)  # not in the engine: it may raise
            self._enter(Phase.STREAM, now, None)
        else:
            self._enter(Phase.UNARY, now, None)

    def receive_body(self, data: bytes, now: float) -> list[TokenChunk]:
        """The chunks in these bytes, one per delta of the provider. Before the commit point only content lets any out.

        The piece that crosses ``max_body_bytes`` is not decoded at all: the exchange fails, and that piece is dropped whole.
        """
        if self._phase not in _READING:
            return []
        self.pause(now)
        self._read_left = self._read_timeout
        self._received_bytes += len(data)
        if self._received_bytes > self._config.max_body_bytes and self._phase is not Phase.REFUSED:
            return self._fail(ProtocolError(f"the answer is larger than max_body_bytes={self._config.max_body_bytes}"))
        if self._phase is _STREAM:
            return self._receive_stream(data)
        self._body.append(data)
        if self._phase is Phase.REFUSED and self._received_bytes >= MAX_ERROR_BODY_BYTES:
            return self._fail(self._refusal())
        return []

    def receive_end(self, now: float) -> list[TokenChunk]:
        """The response ended as its framing said. For a stream that proves nothing: the provider's own proof is needed."""
        match self._phase:
            case Phase.STREAM:
                return self._end_stream()
            case Phase.UNARY:
                answer = self._config.codec.decode_unary(b"".join(self._body), self._head[1])
                if isinstance(answer, InferenceError):
                    return self._fail(answer)
                self.committed = any(chunk.has_content for chunk in answer)
                usage = next((chunk.usage for chunk in answer if chunk.usage is not None), None)
                self._end(None, usage)
                return answer
            case Phase.REFUSED:
                return self._fail(self._refusal())
            case Phase.ENDED:
                return []
            case _:
                return self._fail(NetworkError("the response ended before its head", provider=self._config.codec.provider))

    def fail(self, error: InferenceError, now: float) -> list[TokenChunk]:
        """The connection broke, a clock ran out, or the request was stopped. Returns chunks that were held back, if the
        answer had already proven complete (then the loss of what follows is no failure)."""
        if self._phase is Phase.ENDED:
            return []
        if not error.provider:
            error.provider = self._config.codec.provider
        passing = isinstance(error, (NetworkError, Timeout, ProtocolError, DeadlineExceeded))
        if passing and self._phase is Phase.STREAM and self._decoder is not None and self._decoder.complete:
            return self._succeed([])
        if passing and self._phase is Phase.REFUSED and not isinstance(error, DeadlineExceeded):
            return self._fail(self._refusal().caused_by(error))  # the status is known, and says more than the broken body
        return self._fail(error)

    def overdue(self, now: float) -> InferenceError | None:
        """The clock that has run out by ``now``, as the error to fail with, or ``None``."""
        at, clock, seconds = self._clock
        now = max(now, self._now)
        if now < at:
            return None
        provider = self._config.codec.provider
        if now >= self._request_deadline:
            return DeadlineExceeded("the request's deadline passed during an attempt", provider=provider)
        elapsed_ms = (now - self._started_at) * 1000.0
        return Timeout(elapsed_ms, f"nothing within the {clock} timeout of {seconds:g} s", phase=clock, provider=provider)

    # ---- inside -------------------------------------------------------------------------------------------------------

    def _enter(self, phase: Phase, now: float, timeout: float | None) -> None:
        if self._phase is Phase.ENDED:
            return
        self._phase = phase
        now = self.pause(now)
        self._clock = (self._total_at, "total", self._config.timeouts.total_timeout)
        if timeout is not None:
            self._run(now + timeout, phase.value, timeout)

    def _run(self, at: float, clock: str, seconds: float | None) -> None:
        """This clock runs beside the total."""
        if at < self._total_at:
            self._clock = (at, clock, seconds)

    def _receive_stream(self, data: bytes) -> list[TokenChunk]:
        decoder = self._decoder
        assert self._sse is not None and decoder is not None
        try:
            chunks = decoder.decode(self._sse.feed(data))
        except SseLimitExceeded as error:
            return self._fail(ProtocolError(str(error)))
        if chunks:
            chunks = self._release(chunks)
            if len(self._held) > MAX_HELD_CHUNKS:
                return self._fail(ProtocolError(f"more than {MAX_HELD_CHUNKS} chunks came before any content"))
        if decoder.error is not None:
            return chunks + self._fail(decoder.error)
        if decoder.terminal:
            return self._succeed(chunks) if decoder.complete else chunks + self._fail(self._incomplete())
        return chunks

    def _release(self, chunks: list[TokenChunk]) -> list[TokenChunk]:
        """Let chunks out: all of them once committed; before that, nothing until the first content."""
        # The first chunk answers it nearly always, and text is what nearly every chunk has.
        if chunks and (chunks[0].text_delta or any(chunk.has_content for chunk in chunks)):
            self._content_left = self._content_timeout
            if not self.committed:
                self.committed = True
                chunks, self._held = self._held + chunks, []
        elif not self.committed:
            self._held += chunks
            return []
        self._builder.add(chunks)
        return chunks

    def _end_stream(self) -> list[TokenChunk]:
        assert self._sse is not None and self._decoder is not None
        # Some servers leave out the last blank line. An event cut short does not parse, and is a truncation like any other.
        # But where the proof of completeness is the format's last event itself, that has to have come as the SSE standard
        # wants it (WHATWG HTML, 9.2.6: what no blank line ends is not dispatched).
        proven = self._decoder.complete
        try:
            chunks = self._release(self._decoder.decode(self._sse.finish(dispatch_incomplete=True)))
        except SseLimitExceeded as past_bound:
            return self._fail(ProtocolError(str(past_bound)))
        error = self._decoder.error
        if error is not None and not isinstance(error, ProtocolError):
            return chunks + self._fail(error)
        proven = proven or (self._decoder.complete and not self._decoder.terminal)
        return self._succeed(chunks) if proven else chunks + self._fail(self._incomplete())

    def _incomplete(self) -> InferenceError:
        return NetworkError("the stream ended without its proof of completeness", provider=self._config.codec.provider)

    def _refusal(self) -> InferenceError:
        status, headers = self._head
        body = b"".join(self._body)
        for secret in self._secrets():
            if len(secret) >= SHORTEST_SECRET_CHARS:
                body = body.replace(secret.encode(), REDACTED.encode())  # before anybody cuts it
        error = self._config.codec.classify(status, headers, body[:MAX_ERROR_BODY_BYTES], self._unix_now)
        if status == 200 and isinstance(error, ProtocolError):
            error.message = f"asked for {self._wanted}, was answered with {_content_type(headers) or 'no content type'}"
            error.args = (error.message,)
        return error

    @property
    def _wanted(self) -> str:
        return "text/event-stream" if self.stream else "application/json"

    def _secrets(self) -> tuple[str, str]:
        """What must not be echoed in an error: the credential, as it is and as JSON may write it."""
        value = self._session.credential.reveal()
        return value, value.replace("/", "\\/")

    def _succeed(self, chunks: list[TokenChunk]) -> list[TokenChunk]:
        assert self._decoder is not None
        self._end(None, self._decoder.usage)
        held, self._held = self._held, []
        return chunks + held

    def _fail(self, error: InferenceError) -> list[TokenChunk]:
        error.redact(self._secrets())
        if not error.provider:
            error.provider = self._config.codec.provider
        usage = self._decoder.usage if self._decoder is not None else None
        if usage is not None:
            usage = replace(usage, provenance="lower_bound")
        if self.committed and not isinstance(error, (StreamInterrupted, EngineClosed)):
            error = StreamInterrupted(self._builder.build(), usage, error)
        self._end(error, usage)
        return []

    def _end(self, error: InferenceError | None, usage: TokenUsage | None) -> None:
        self._phase, self._waiting_since = Phase.ENDED, None
        self._clock = (math.inf, "", None)
        self._body, self._held = [], self._held if error is None else []
        self.outcome = AttemptOutcome(error, usage if usage is not None and _is_plausible(usage) else None)


def internal_error(cause: BaseException, provider: str = "") -> InferenceError:
    """What a defect in a codec or a decoder becomes: an `Internal` error of one request, not a crash of its driver."""
    return Internal(f"{type(cause).__name__} while decoding", provider=provider).caused_by(cause)


def _content_type(headers: Headers) -> str:
    value = next((value for name, value in headers if name == "content-type"), "")
    return value.partition(";")[0].strip().lower()[:100]


def _is_plausible(usage: TokenUsage) -> bool:
    """Whether these can be counts at all. What a codec got wrong is unknown, and harms no ledger."""
    counts = (
        *(usage.input_tokens, usage.output_tokens, usage.cached_input_tokens, usage.cache_write_tokens),
        *(usage.reasoning_tokens, usage.cache_write_long_tokens),
    )
    cost = 0.0 if usage.cost_usd is None else usage.cost_usd
    return all(isinstance(count, int) and count >= 0 for count in counts) and 0.0 <= cost < math.inf


def _seconds(timeout: float | None) -> float:
    return math.inf if timeout is None else timeout


def _least(one: float | None, other: float | None) -> float:
    return min(_seconds(one), _seconds(other))
