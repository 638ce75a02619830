"""`RemoteWorker`: the conversation between one request and its driver.

The driver asks `step(now)` and does what the answer says, until it has a chunk to hand over or the request is over:

    Post        tell the engine this fact
    Park        wait until the engine has an order for this request
    Connect     get a connection to the request's origin          then `connected` or `failed`
    Send        send the request over it                           then nothing or `send_failed`
    Receive     wait for what the connection reads                 then `received` or `failed`
    Discard     let go of the connection: keep it if it is fit to be used again, else close it
    Deliver     hand this chunk to the caller
    Finish      the request ended well
    Raise       the request ended with this error

Orders come from the engine by way of the `Switchboard`, at any moment, also while the caller is away. An abort is carried
out by the caller, woken from its wait, if it is inside (`attended`), and by the switchboard in its stead if it is not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, assert_never

from .batch import TokenChunk
from .errors import BadRequest, InferenceError, NetworkError
from .events import AbortAttempt, AddRequest, AttemptEnded, Cancel, Committed, Complete, Event, HeadReceived, StartAttempt
from .exchange import Exchange, Phase, internal_error
from .http import END, HttpEvent, HttpRequest, ResponseHead
from .scrub import excerpt


@dataclass(slots=True)
class Post:
    """Tell the engine this fact."""

    event: Event


@dataclass(slots=True)
class Park:
    """Wait until the engine has an order for this request."""


@dataclass(slots=True)
class Connect:
    """Get a connection to the request's origin, from the pool unless ``fresh``, or a new one. ``timeout`` seconds are left
    for it (a bound for connects that cannot be interrupted; the engine watches the same clock)."""

    request: HttpRequest
    timeout: float
    fresh: bool


@dataclass(slots=True)
class Send:
    """Send the request over the connection."""

    request: HttpRequest


@dataclass(slots=True)
class Receive:
    """Wait for what the connection reads next."""


@dataclass(slots=True)
class Discard:
    """Let go of the connection. ``keep``: the exchange ended well, so it may be used again if it is fit."""

    keep: bool


@dataclass(slots=True)
class Deliver:
    """Hand this chunk to the caller."""

    chunk: TokenChunk


@dataclass(slots=True)
class Finish:
    """The request ended well; nothing follows."""


@dataclass(slots=True)
class Raise:
    """The request ended with this error; nothing follows."""

    error: InferenceError


Step: TypeAlias = Post | Park | Connect | Send | Receive | Discard | Deliver | Finish | Raise
ImmediateStep: TypeAlias = Post | Discard


class RemoteWorker:
    """One request as its driver sees it. `step` and the facts are one caller's; everything else belongs into the driver's
    critical section (one lock with threads, nothing at all on an event loop)."""

    __slots__ = (
        "_aborted", "_answering", "_attempt", "_connected", "_exchange", "_fresh", "_outcome", "_posts", "_request",
        "_response_ended", "_reused", "_send_error", "_submitted", "_told_commit", "add", "attended", "chunks",
    )  # fmt: skip

    def __init__(self, add: AddRequest) -> None:
        self.add = add
        self.attended = False
        """Whether the caller is inside, so that it can be woken to carry out an abort itself."""
        self.chunks: deque[TokenChunk] = deque()
        """Chunks not handed over yet. A driver may take from here before it asks for a step."""
        self._submitted = False
        self._posts: deque[Event] = deque()
        self._exchange: Exchange | None = None
        self._attempt = 0
        self._request: HttpRequest | None = None
        self._fresh = False
        self._connected = False
        self._reused = False
        self._answering = False
        self._response_ended = False
        self._told_commit = False
        self._aborted: InferenceError | None = None
        self._send_error: InferenceError | None = None
        self._outcome: Complete | None = None

    @property
    def submitted(self) -> bool:
        """Whether the request was handed to the engine, or given up before that."""
        return self._submitted

    @property
    def aborting(self) -> bool:
        """Whether an abort is ordered and not carried out yet. A driver asks when it has made itself interruptible, so as
        not to miss one that was ordered just before."""
        return self._aborted is not None

    # ---- in the critical section ----------------------------------------------------------------------------------------

    def order(self, effect: StartAttempt | AbortAttempt | Complete) -> None:
        """Take an order of the engine."""
        match effect:
            case StartAttempt():
                self._exchange, self._attempt, self._request = effect.exchange, effect.attempt, None
                self._fresh = effect.fresh
                self._reused = self._answering = self._response_ended = self._told_commit = False
                self._aborted = self._send_error = None
            case AbortAttempt():
                if self._exchange is not None and effect.attempt == self._attempt:
                    self._aborted = effect.error or NetworkError("called off by its caller")
            case Complete():
                self._outcome = effect
            case _:
                assert_never(effect)

    def cancel(self) -> None:
        """The caller is gone for good. What is left to do comes from `immediate`."""
        self.chunks.clear()
        if self._outcome is None:
            if self._submitted:
                self._posts.append(Cancel(self.add.request_id))
            self._submitted = True
            self._outcome = Complete(self.add.request_id, None)
        if self._exchange is not None and self._aborted is None:
            self._aborted = NetworkError("called off by its caller")

    def leave(self, now: float) -> None:
        """The caller is away: it waits for nothing until it comes back."""
        self.attended = False
        if self._exchange is not None:
            self._exchange.pause(now)

    @property
    def has_immediate(self) -> bool:
        """Whether `immediate` has something to say."""
        return self._aborted is not None or bool(self._posts) or (self._connected and self._exchange is None)

    def immediate(self, now: float) -> ImmediateStep | None:
        """The next step that needs no waiting, if there is one: how an abort is carried out while the caller is away."""
        if self._aborted is not None:
            self._fail(self._aborted, now)
        if self._connected and self._exchange is None:
            self._connected = False
            return Discard(keep=self._response_ended)
        return Post(self._posts.popleft()) if self._posts else None

    # ---- the conversation -----------------------------------------------------------------------------------------------

    def step(self, now: float) -> Step:
        """What to do next."""
        if (immediate := self.immediate(now)) is not None:
            return immediate
        if self.chunks:
            return Deliver(self.chunks.popleft())
        exchange = self._exchange
        if exchange is None:
            if not self._submitted:
                self._submitted = True
                return Post(self.add)
            if self._outcome is None:
                return Park()
            return Finish() if self._outcome.error is None else Raise(self._outcome.error)
        if not self._connected:
            if exchange.sent:  # by a client that connects and sends in one, until its caller was called off and came back
                self._fail(NetworkError("the caller was called off before the answer began"), now)
                return self.step(now)
            return self._connect(exchange, now)
        if not exchange.sent:
            assert self._request is not None
            exchange.sending(now)
            return Send(self._request)
        exchange.wait(now)
        return Receive()

    def connected(self, *, reused: bool = False) -> None:
        """The driver has a connection. ``reused``: it has carried a request before, so the peer may just have closed it."""
        self._connected, self._reused = True, reused

    def sending(self, now: float) -> None:
        """A client that connects and sends in one begins to send."""
        if self._exchange is not None:
            self._exchange.sending(now)

    def received(self, events: Sequence[HttpEvent], now: float, unix_now: float) -> None:
        """What the connection read: a head, pieces of body, an end or an error; nothing where it was only framing."""
        exchange = self._exchange
        if exchange is None or self._aborted is not None:
            return
        if not (len(events) == 1 and isinstance(events[0], NetworkError)):
            self._answering = True
        head: ResponseHead | None = None
        try:
            for event in events or (b"",):
                if isinstance(event, bytes):
                    self.chunks.extend(exchange.receive_body(event, now))
                elif isinstance(event, ResponseHead):
                    exchange.receive_head(event.status, event.headers, now, unix_now)
                    head = event
                elif event is END:
                    self._response_ended = True
                    self.chunks.extend(exchange.receive_end(now))
                else:
                    self.chunks.extend(exchange.fail(self._first_cause(exchange, event), now))
        except Exception as error:  # a defect of a codec, ours or a third party's: one request fails, nothing else
            exchange.fail(internal_error(error), now)
        outcome = exchange.outcome
        if head is not None and outcome is None:
            self._posts.append(HeadReceived(self.add.request_id, self._attempt, head))
        if exchange.committed and not self._told_commit and (outcome is None or outcome.error is not None):
            self._told_commit = True  # an attempt that has ended well by now says more with that
            self._posts.append(Committed(self.add.request_id, self._attempt))
        if outcome is not None:
            self._attempt_over(exchange, head)

    def failed(self, error: BaseException, now: float) -> None:
        """Connecting, sending or receiving failed. An exception that is no `InferenceError` becomes a `NetworkError`; that
        a driver's own bound on a connect ran out before the engine could say so is the `Timeout` of the same clock."""
        if self._aborted is None:
            overdue = self._exchange.overdue(now) if self._exchange is not None and isinstance(error, TimeoutError) else None
            if overdue is not None:
                error = overdue.caused_by(error)
            said = error if isinstance(error, InferenceError) else network_error(error)
            self._fail(said if self._exchange is None else self._first_cause(self._exchange, said), now)

    def send_failed(self, error: BaseException) -> None:
        """Sending broke. A server may answer before it has read everything, and hang up (a 413, say): what it said is read
        first, and counts (RFC 9112, section 9.5)."""
        if self._aborted is None:
            self._send_error = error if isinstance(error, InferenceError) else network_error(error)

    # ---- inside -----------------------------------------------------------------------------------------------------------

    def _first_cause(self, exchange: Exchange, error: InferenceError) -> InferenceError:
        """Without an answer, a send that broke is what went wrong, not the end that followed."""
        return error if self._send_error is None or exchange.phase is not Phase.SENT else self._send_error

    def _connect(self, exchange: Exchange, now: float) -> Step:
        try:
            self._request = exchange.request()
        except ValueError as error:
            self._fail(BadRequest(f"the provider cannot express this request: {error}").caused_by(error), now)
            return self.step(now)
        except Exception as error:  # as in `received`
            self._fail(internal_error(error), now)
            return self.step(now)
        exchange.connecting(now)
        return Connect(self._request, max(0.0, exchange.deadline - now), self._fresh)

    def _fail(self, error: InferenceError, now: float) -> None:
        self._aborted = None
        exchange = self._exchange
        if exchange is not None:
            chunks = exchange.fail(error, now)
            if self._outcome is None:  # else the caller is gone, or was told the end
                self.chunks.extend(chunks)
            self._attempt_over(exchange)

    def _attempt_over(self, exchange: Exchange, head: ResponseHead | None = None) -> None:
        outcome = exchange.outcome
        assert outcome is not None
        error = outcome.error
        self._response_ended = self._response_ended or error is None
        stale = self._reused and not self._answering and isinstance(error, NetworkError) and not error.reset
        self._posts.append(
            AttemptEnded(self.add.request_id, self._attempt, error, outcome.usage, exchange.sent, stale, head)
        )
        self._exchange = self._request = None


def network_error(cause: BaseException) -> NetworkError:
    """What a failed connect, send or receive becomes, with its cause chained."""
    error = NetworkError(f"{type(cause).__name__}: {excerpt(str(cause))[:200]}")
    error.__cause__ = cause
    return error
