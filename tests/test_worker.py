"""The conversation of one request with its driver: which step follows which fact.

A script is a list of pairs: what the worker says next, and what the driver (or the engine) tells it then.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from word_codec import WordCodec, wire

from sansio.batch import ExecuteBatch, Message, TokenEstimate
from sansio.errors import (
    BadRequest,
    EngineClosed,
    InferenceError,
    Internal,
    NetworkError,
    ProtocolError,
    RateLimited,
    StreamInterrupted,
    Timeout,
)
from sansio.events import AbortAttempt, AddRequest, AttemptEnded, Cancel, Committed, Complete, HeadReceived, StartAttempt
from sansio.exchange import Exchange, ExchangeConfig
from sansio.http import END, HttpEvent, HttpRequest, ResponseHead, Timeouts
from sansio.secret import Credential
from sansio.session import SessionSnapshot
from sansio.worker import (
    Connect,
    Deliver,
    Discard,
    Finish,
    Park,
    Post,
    Raise,
    Receive,
    RemoteWorker,
    Send,
    Step,
    network_error,
)

BATCH = ExecuteBatch(messages=[Message(role="user", content="hello")])
SSE = ResponseHead(200, (("content-type", "text/event-stream"),))
JSON = ResponseHead(200, (("content-type", "application/json"),))
TIMEOUTS = Timeouts(connect_timeout=5.0)


class Defective(WordCodec):
    """A codec whose ``encode`` raises."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        object.__setattr__(self, "error", error)

    def encode(self, batch: ExecuteBatch, session: SessionSnapshot, *, stream: bool = True) -> HttpRequest:
        error: Exception = object.__getattribute__(self, "error")
        raise error


def make(*, stream: bool = True) -> RemoteWorker:
    return RemoteWorker(AddRequest(1, "chat", BATCH, TokenEstimate(1, 1), stream))


def start(attempt: int = 1, *, stream: bool = True, codec: WordCodec | None = None) -> StartAttempt:
    config = ExchangeConfig(codec or WordCodec(), TIMEOUTS)
    session = SessionSnapshot(1, Credential("k"))
    return StartAttempt(1, attempt, Exchange(config, BATCH, session, 0.0, stream=stream))


def say(step: Step) -> str:
    """A step as a word or two."""
    match step:
        case Post(AddRequest()):
            return "post add"
        case Post(HeadReceived(_, attempt, head)):
            return f"post head {attempt} {head.status}"
        case Post(Committed(_, attempt)):
            return f"post committed {attempt}"
        case Post(AttemptEnded(_, attempt, error, _, sent, stale, head)):
            how = "well" if error is None else error.kind
            after = "" if head is None else f" after {head.status}"
            return f"post ended {attempt} {how}{'' if sent else ' unsent'}{' stale' if stale else ''}{after}"
        case Post(Cancel()):
            return "post cancel"
        case Deliver(chunk):
            return f"deliver {chunk.text_delta or chunk.finish_reason}"
        case Raise(error):
            return f"raise {error.kind}"
        case Discard(keep):
            return "keep" if keep else "discard"
        case Connect(fresh=True):
            return "connect anew"
        case _:
            return type(step).__name__.lower()


Tell = Callable[[RemoteWorker], None]


def nothing(_: RemoteWorker) -> None:
    """The driver did as it was told, and there is nothing to say about it."""


def connected(worker: RemoteWorker) -> None:
    worker.connected()


def reused(worker: RemoteWorker) -> None:
    worker.connected(reused=True)


def sending(worker: RemoteWorker) -> None:
    worker.sending(0.0)


def order(effect: Any) -> Tell:
    return lambda worker: worker.order(effect)


def begin(attempt: int = 1, *, stream: bool = True, codec: WordCodec | None = None) -> Tell:
    return lambda worker: worker.order(start(attempt, stream=stream, codec=codec))


def over(error: InferenceError | None = None) -> Tell:
    return order(Complete(1, error))


def abort(attempt: int, error: InferenceError | None) -> Tell:
    return order(AbortAttempt(1, attempt, error))


def failed(error: BaseException) -> Tell:
    return lambda worker: worker.failed(error, 0.0)


def received(*events: HttpEvent) -> Tell:
    return lambda worker: worker.received(events, 0.0, 1000.0)


def cancel(worker: RemoteWorker) -> None:
    worker.cancel()


def both(first: Tell, second: Tell) -> Tell:
    def tell(worker: RemoteWorker) -> None:
        first(worker)
        second(worker)

    return tell


def test_a_client_may_say_that_it_sends_when_nobody_wants_it_any_more() -> None:
    worker = make()
    worker.sending(0.0)
    assert say(worker.step(0.0)) == "post add"


Script = list[tuple[str, Tell]]

GO: Script = [("post add", begin()), ("connect", connected), ("send", nothing)]
"""The first attempt is under way."""


def play(worker: RemoteWorker, script: Script) -> None:
    for number, (expected, tell) in enumerate(script):
        assert (number, say(worker.step(0.0))) == (number, expected)
        tell(worker)


SCRIPTS: dict[str, Script] = {
    "a stream": [
        *GO,
        ("receive", received(SSE)),
        ("post head 1 200", nothing),
        ("receive", received(wire("role"))),
        ("receive", received(wire("t:a"))),
        ("post committed 1", nothing),
        ("deliver a", nothing),
        ("receive", received(wire("t:b", "f:0:stop"), END)),
        ("keep", nothing),
        ("post ended 1 well", over()),
        ("deliver b", nothing),
        ("deliver stop", nothing),
        ("finish", nothing),
        ("finish", nothing),
    ],
    "a stream that came at once": [
        *GO,
        ("receive", received(SSE, wire("t:a", "f:0:stop"), END)),
        ("keep", nothing),
        ("post ended 1 well after 200", over()),
        ("deliver a", nothing),
        ("deliver stop", nothing),
        ("finish", nothing),
    ],
    "a stream that is over before its connection says so": [
        *GO,
        ("receive", received(SSE, wire("f:0:stop", "[DONE]"))),
        ("keep", nothing),
        ("post ended 1 well after 200", over()),
        ("deliver stop", nothing),
        ("finish", nothing),
    ],
    "the order is awaited, and so is the end": [
        ("post add", nothing),
        ("park", nothing),
        ("park", begin()),
        ("connect", connected),
        ("send", nothing),
        ("receive", received(SSE, wire("f:0:stop"), END)),
        ("keep", nothing),
        ("post ended 1 well after 200", nothing),
        ("deliver stop", nothing),
        ("park", over()),
        ("finish", nothing),
    ],
    "a kept connection that the server had closed": [
        ("post add", begin()),
        ("connect", reused),
        ("send", nothing),
        ("receive", received(NetworkError("closed"))),
        ("discard", nothing),
        ("post ended 1 network_error stale", order(StartAttempt(1, 2, start(2).exchange, fresh=True))),
        ("connect anew", connected),
        ("send", nothing),
        ("receive", received(NetworkError("closed"))),
        ("discard", nothing),
        ("post ended 2 network_error", nothing),  # a new one cannot have been given up meanwhile
    ],
    "a server that gives a request up on a kept connection has answered it": [
        ("post add", begin()),
        ("connect", reused),
        ("send", nothing),
        ("receive", received(NetworkError("ENHANCE_YOUR_CALM", reset=True))),
        ("discard", nothing),
        ("post ended 1 network_error", over(NetworkError())),
        ("raise network_error", nothing),
    ],
    "a kept connection that breaks while the request goes out": [
        ("post add", begin()),
        ("connect", reused),
        ("send", lambda worker: worker.send_failed(BrokenPipeError("gone"))),
        ("receive", failed(ConnectionResetError("gone"))),
        ("discard", nothing),
        ("post ended 1 network_error stale", nothing),
    ],
    "a kept connection that breaks after the first byte": [
        ("post add", begin()),
        ("connect", reused),
        ("send", nothing),
        ("receive", received()),
        ("receive", received(NetworkError("closed"))),
        ("discard", nothing),
        ("post ended 1 network_error", begin(2)),
        ("connect", reused),
        ("send", nothing),
        ("receive", received(SSE, NetworkError("closed"))),
        ("discard", nothing),
        ("post ended 2 network_error after 200", nothing),
    ],
    "a kept connection on which something else goes wrong": [
        ("post add", begin()),
        ("connect", reused),
        ("send", nothing),
        ("receive", received(ProtocolError("no HTTP"))),
        ("discard", nothing),
        ("post ended 1 protocol_error", nothing),
    ],
    "a client that connects and sends in one": [
        ("post add", begin()),
        ("connect", both(sending, connected)),
        ("receive", received(SSE, wire("t:a", "f:0:stop"), END)),
        ("keep", nothing),
        ("post ended 1 well after 200", nothing),
    ],
    "such a client fails after it began to send": [
        ("post add", begin()),
        ("connect", both(sending, failed(ConnectionResetError("gone")))),
        ("post ended 1 network_error", nothing),
    ],
    "the caller of such a client was called off, and comes back": [
        ("post add", begin()),
        ("connect", sending),
        ("post ended 1 network_error", begin(2)),  # it may have been asked already: once in each attempt
        ("connect", nothing),
        ("connect", nothing),
    ],
    "no bytes of any meaning": [*GO, ("receive", received()), ("receive", received()), ("receive", nothing)],
    "refused by the engine": [("post add", over(EngineClosed())), ("raise engine_closed", nothing)],
    "refused by the provider, then not": [
        *GO,
        ("receive", received(ResponseHead(429), b"slow down", END)),
        ("keep", nothing),
        ("post ended 1 rate_limited after 429", nothing),
        ("park", begin(2)),
        ("connect", connected),
        ("send", nothing),
        ("receive", received(SSE, wire("t:a", "f:0:stop"), END)),
        ("keep", nothing),
        ("post ended 2 well after 200", over()),
        ("deliver a", nothing),
        ("deliver stop", nothing),
        ("finish", nothing),
    ],
    "a connection that cannot be made": [
        ("post add", begin()),
        ("connect", failed(ConnectionRefusedError("refused"))),
        ("post ended 1 network_error unsent", begin(2)),  # there is nothing to discard
        ("connect", failed(NetworkError("no such name"))),
        ("post ended 2 network_error unsent", over(NetworkError())),
        ("raise network_error", nothing),
    ],
    "a request that cannot be sent": [
        ("post add", begin()),
        ("connect", connected),
        ("send", failed(BrokenPipeError("gone"))),
        ("discard", nothing),
        ("post ended 1 network_error", over(NetworkError())),
        ("raise network_error", nothing),
    ],
    "a connection that breaks before content": [
        *GO,
        ("receive", received(SSE, wire("role"))),
        ("post head 1 200", nothing),
        ("receive", failed(ConnectionResetError("reset"))),
        ("discard", nothing),
        ("post ended 1 network_error", begin(2)),
        ("connect", nothing),
    ],
    "a connection that breaks after content: what came is delivered first": [
        *GO,
        ("receive", received(SSE, wire("t:a", "t:b"), NetworkError("lost"))),
        ("discard", nothing),
        ("post committed 1", nothing),
        ("post ended 1 stream_interrupted after 200", over(StreamInterrupted())),
        ("deliver a", nothing),
        ("deliver b", nothing),
        ("raise stream_interrupted", nothing),
    ],
    "a connection that breaks after the proof": [
        *GO,
        ("receive", received(SSE, wire("f:0:stop"))),
        ("post head 1 200", nothing),
        ("receive", failed(ConnectionResetError("reset"))),
        ("keep", nothing),  # kept only if it is fit, which a broken one is not
        ("post ended 1 well", over()),
        ("deliver stop", nothing),
        ("finish", nothing),
    ],
    "a batch that cannot be expressed": [
        ("post add", begin(codec=Defective(ValueError("tools: too many")))),
        ("post ended 1 bad_request unsent", over(BadRequest())),
        ("raise bad_request", nothing),
    ],
    "a codec with a defect in encode": [
        ("post add", begin(codec=Defective(KeyError("x")))),
        ("post ended 1 internal unsent", over(Internal())),
        ("raise internal", nothing),
    ],
    "a codec with a defect in decode, before content": [
        *GO,
        ("receive", received(SSE, wire("defect"))),
        ("discard", nothing),
        ("post ended 1 internal after 200", over(Internal())),
        ("raise internal", nothing),
    ],
    "a codec with a defect in decode, after content": [
        *GO,
        ("receive", received(SSE, wire("t:a"), wire("defect"), wire("t:b"))),
        ("discard", nothing),
        ("post committed 1", nothing),
        ("post ended 1 stream_interrupted after 200", over(StreamInterrupted())),
        ("deliver a", nothing),
        ("raise stream_interrupted", nothing),
    ],
    # An abort while the caller is inside: it is woken (its connection fails) and carries it out with its next step.
    "aborted while connecting": [
        ("post add", begin()),
        ("connect", abort(1, Timeout(phase="connect"))),
        ("post ended 1 timeout unsent", over(Timeout())),
        ("raise timeout", nothing),
    ],
    "aborted when just connected": [
        ("post add", begin()),
        ("connect", both(abort(1, Timeout()), connected)),
        ("discard", nothing),
        ("post ended 1 timeout unsent", over(Timeout())),
        ("raise timeout", nothing),
    ],
    "aborted while receiving, woken by the connection's end": [
        *GO,
        ("receive", received(SSE, wire("t:a"))),
        ("post head 1 200", nothing),
        ("post committed 1", nothing),
        ("deliver a", nothing),
        (
            "receive",
            both(abort(1, Timeout()), received(NetworkError())),
        ),
        ("discard", nothing),
        ("post ended 1 stream_interrupted", over(StreamInterrupted())),
        ("raise stream_interrupted", nothing),
    ],
    "aborted while receiving, woken by an exception": [
        *GO,
        ("receive", both(abort(1, Timeout()), failed(OSError()))),
        ("discard", nothing),
        ("post ended 1 timeout", begin(2)),
        ("connect", nothing),
    ],
    "a failure when nothing runs any more": [
        *GO,
        ("receive", received(ResponseHead(500), END)),
        ("keep", failed(OSError("late"))),
        ("post ended 1 server_error after 500", nothing),
        ("park", nothing),
    ],
    "what comes after an abort is not read": [
        *GO,
        ("receive", both(abort(1, Timeout()), received(SSE, wire("t:a", "f:0:stop"), END))),
        ("discard", nothing),
        ("post ended 1 timeout", nothing),
        ("park", nothing),
    ],
    "whether a connection is kept is asked anew for each attempt": [
        *GO,
        ("receive", received(ResponseHead(429), END)),
        ("keep", nothing),
        ("post ended 1 rate_limited after 429", begin(2)),
        ("connect", connected),
        ("send", nothing),
        ("receive", failed(ConnectionResetError("reset"))),
        ("discard", nothing),
        ("post ended 2 network_error", nothing),
    ],
    "closed while it waits": [("post add", nothing), ("park", over(EngineClosed())), ("raise engine_closed", nothing)],
    "closed while it runs: what came is delivered, the end is told": [
        *GO,
        ("receive", received(SSE, wire("t:a"))),
        (
            "post head 1 200",
            both(abort(1, EngineClosed()), over(EngineClosed())),
        ),
        ("discard", nothing),
        ("post committed 1", nothing),
        ("post ended 1 engine_closed", nothing),
        ("deliver a", nothing),
        ("raise engine_closed", nothing),
    ],
    "an abort of an earlier attempt is late": [
        ("post add", begin(2)),
        ("connect", abort(1, Timeout())),
        ("connect", connected),
        ("send", nothing),
        ("receive", nothing),
    ],
    "an abort of an attempt that has ended is late": [
        *GO,
        ("receive", received(ResponseHead(500), END)),
        ("keep", abort(1, Timeout())),
        ("post ended 1 server_error after 500", begin(2)),
        ("connect", nothing),
    ],
    # The caller leaves.
    "cancelled before it was submitted": [],
    "cancelled while it waits": [("post add", nothing), ("park", cancel), ("post cancel", nothing), ("finish", nothing)],
    "cancelled when its attempt was ordered": [
        ("post add", begin()),
        ("connect", cancel),
        ("post cancel", nothing),
        ("post ended 1 network_error unsent", nothing),
        ("finish", nothing),
    ],
    "cancelled in the middle": [
        *GO,
        ("receive", received(SSE, wire("t:a", "t:b"))),
        ("post head 1 200", nothing),
        ("post committed 1", nothing),
        ("deliver a", cancel),
        ("discard", nothing),
        ("post cancel", abort(1, None)),
        ("post ended 1 stream_interrupted", nothing),
        ("finish", nothing),  # the second chunk is not delivered
    ],
    "cancelled when the answer was proven, with chunks held back": [
        *GO,
        ("receive", received(SSE, wire("f:0:stop"))),
        ("post head 1 200", cancel),
        ("keep", nothing),
        ("post cancel", nothing),
        ("post ended 1 well", nothing),
        ("finish", nothing),  # nor what was held back
    ],
    "cancelled when it is over": [
        *GO,
        ("receive", received(SSE, wire("t:a", "f:0:stop"), END)),
        ("keep", nothing),
        ("post ended 1 well after 200", over()),
        ("deliver a", cancel),
        ("finish", nothing),
    ],
    "cancelled after an error": [
        ("post add", over(RateLimited())),
        ("raise rate_limited", cancel),
        ("raise rate_limited", nothing),
    ],
    "cancelled twice": [("post add", nothing), ("park", cancel), ("post cancel", cancel), ("finish", nothing)],
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_conversation(name: str) -> None:
    play(make(), SCRIPTS[name])


def test_cancelled_before_it_was_submitted_it_says_nothing() -> None:
    worker = make()
    worker.cancel()
    assert worker.immediate(0.0) is None
    assert say(worker.step(0.0)) == "finish"


def test_a_unary_answer_goes_the_same_way() -> None:
    play(
        make(stream=False),
        [
            ("post add", begin(stream=False)),
            ("connect", connected),
            ("send", nothing),
            ("receive", received(JSON, b"t:a f:0:")),
            ("post head 1 200", nothing),
            ("receive", received(b"stop", END)),
            ("keep", nothing),
            ("post ended 1 well", over()),
            ("deliver a", nothing),
            ("deliver stop", nothing),
            ("finish", nothing),
        ],
    )


def test_what_the_facts_carry() -> None:
    worker = make()
    assert worker.step(0.0) == Post(worker.add)
    effect = start(5)
    worker.order(effect)
    step = worker.step(2.0)
    assert isinstance(step, Connect)
    assert (step.request, step.timeout) == (effect.exchange.request(), 5.0)
    worker.connected()
    assert worker.step(3.0) == Send(step.request)
    assert effect.exchange.sent
    assert worker.step(3.0) == Receive()
    worker.received([ResponseHead(429, (("retry-after", "unix_now"),)), b"slow down", END], 4.0, 1234.0)
    assert worker.step(4.0) == Discard(keep=True)
    posted = worker.step(4.0)
    assert isinstance(posted, Post)
    ended = posted.event
    assert isinstance(ended, AttemptEnded)
    assert isinstance(ended.error, RateLimited)
    assert (ended.request_id, ended.attempt, ended.error.retry_after, ended.usage, ended.sent) == (1, 5, 1234.0, None, True)
    assert ended.head == ResponseHead(429, (("retry-after", "unix_now"),))
    assert worker.step(4.0) == Park()
    worker.order(Complete(1, ended.error))
    assert worker.step(4.0) == Raise(ended.error)


def test_the_time_left_to_connect_is_never_negative() -> None:
    worker = make()
    worker.step(0.0)
    config = ExchangeConfig(WordCodec(), TIMEOUTS)
    exchange = Exchange(config, BATCH, SessionSnapshot(1, Credential("k")), 0.0, stream=True, request_deadline=3.0)
    worker.order(StartAttempt(1, 1, exchange))
    for now, left in ((1.0, 2.0), (10.0, 0.0)):
        step = worker.step(now)
        assert isinstance(step, Connect)
        assert step.timeout == left
    no_clock = ExchangeConfig(WordCodec(), Timeouts(connect_timeout=None))
    worker.order(StartAttempt(1, 2, Exchange(no_clock, BATCH, SessionSnapshot(1, Credential("k")), 0.0, stream=True)))
    step = worker.step(0.0)
    assert isinstance(step, Connect)
    assert step.timeout == math.inf


def test_the_clock_of_bytes_starts_with_each_receive() -> None:
    worker = make()
    worker.step(0.0)
    effect = start()
    worker.order(effect)
    play(worker, [("connect", connected), ("send", nothing), ("receive", received(SSE)), ("post head 1 200", nothing)])
    assert effect.exchange.deadline == math.inf
    assert worker.step(7.0) == Receive()
    assert effect.exchange.deadline == 67.0
    worker.received([wire("t:a")], 8.0, 0.0)
    assert say(worker.step(8.0)) == "post committed 1"
    assert say(worker.step(8.0)) == "deliver a"
    assert effect.exchange.deadline == math.inf  # the caller is busy with its chunk


def test_an_attempt_says_once_that_it_is_committed() -> None:
    worker = make()
    play(worker, [*GO, ("receive", received(SSE, wire("t:a"))), ("post head 1 200", nothing), ("post committed 1", nothing)])
    play(worker, [("deliver a", nothing), ("receive", received(wire("t:b"))), ("deliver b", nothing), ("receive", nothing)])


def test_a_refusal_too_long_to_read_costs_the_connection() -> None:
    play(
        make(),
        [
            *GO,
            ("receive", received(ResponseHead(500), b"x" * 100_000)),
            ("discard", nothing),
            ("post ended 1 server_error after 500", nothing),
        ],
    )


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ValueError("tools: too many"), "bad_request", "the provider cannot express this request: tools: too many"),
        (KeyError("x"), "internal", "KeyError while decoding"),
    ],
)
def test_what_encode_raises_is_chained(error: Exception, kind: str, message: str) -> None:
    worker = make()
    worker.step(0.0)
    worker.order(start(codec=Defective(error)))
    step = worker.step(0.0)
    assert isinstance(step, Post) and isinstance(step.event, AttemptEnded) and step.event.error is not None
    assert (step.event.error.kind, step.event.error.cause) == (kind, error)
    assert step.event.error.message == message


def test_an_exception_becomes_a_network_error_with_its_cause() -> None:
    cause = ConnectionResetError(104, "x" * 1000)
    error = network_error(cause)
    assert error.cause is cause
    assert error.message.startswith("ConnectionResetError: [Errno 104] xxx")
    assert len(error.message) < 250
    assert error.retryable


@pytest.mark.parametrize(
    ("error", "now", "kind"),
    [
        (TimeoutError("connecting took too long"), 5.0, "timeout"),
        (TimeoutError("ETIMEDOUT, of the system"), 4.9, "network_error"),
        (ConnectionRefusedError(), 5.0, "network_error"),
    ],
)
def test_a_connect_that_ran_out_in_the_driver_is_the_timeout_of_the_same_clock(
    error: OSError, now: float, kind: str
) -> None:
    worker = make()
    play(worker, [("post add", begin()), ("connect", nothing)])
    worker.failed(error, now)
    step = worker.step(now)
    assert isinstance(step, Post) and isinstance(step.event, AttemptEnded) and step.event.error is not None
    assert (step.event.error.kind, step.event.error.cause) == (kind, error)
    worker.failed(TimeoutError(), 1000.0)  # nothing runs any more
    assert say(worker.step(1000.0)) == "park"


# ---- the caller is away: what needs no waiting is done in its stead ------------------------------------------------------


def away(worker: RemoteWorker) -> list[str]:
    said: list[str] = []
    while (step := worker.immediate(0.0)) is not None:
        said.append(say(step))
    return said


def test_an_abort_is_carried_out_while_the_caller_is_away() -> None:
    worker = make()
    play(worker, [*GO, ("receive", received(SSE, wire("t:a", "t:b"))), ("post head 1 200", nothing)])
    play(worker, [("post committed 1", nothing), ("deliver a", nothing)])
    assert away(worker) == []
    worker.order(AbortAttempt(1, 1, Timeout()))
    assert away(worker) == ["discard", "post ended 1 stream_interrupted"]
    assert away(worker) == []
    worker.order(Complete(1, StreamInterrupted()))
    play(worker, [("deliver b", nothing), ("raise stream_interrupted", nothing)])


def test_an_abort_shows_from_its_order_until_it_is_carried_out() -> None:
    worker = make()
    play(worker, [("post add", begin()), ("connect", nothing)])
    assert not worker.aborting
    worker.order(AbortAttempt(1, 1, Timeout()))
    assert worker.aborting
    assert away(worker) == ["post ended 1 timeout unsent"]
    assert not worker.aborting


def test_nothing_that_waits_is_immediate() -> None:
    worker = make()
    assert away(worker) == []
    worker.step(0.0)
    worker.order(start())
    assert away(worker) == []


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ([], []),
        ([("post add", nothing)], ["post cancel"]),
        ([("post add", begin())], ["post cancel", "post ended 1 network_error unsent"]),
        ([("post add", begin()), ("connect", connected)], ["discard", "post cancel", "post ended 1 network_error unsent"]),
        (GO, ["discard", "post cancel", "post ended 1 network_error"]),
        ([*GO, ("receive", received(SSE, wire("t:a")))], [
            "discard", "post head 1 200", "post committed 1", "post cancel", "post ended 1 stream_interrupted"]),
        ([*GO, ("receive", received(ResponseHead(429), END))], [
            "keep", "post ended 1 rate_limited after 429", "post cancel"]),
        ([("post add", over())], []),
    ],
)  # fmt: skip
def test_cancelled_in_each_state_everything_is_said_at_once(script: Script, said: list[str]) -> None:
    worker = make()
    play(worker, script)
    worker.cancel()
    assert away(worker) == said
    assert away(worker) == []
    assert say(worker.step(0.0)) == "finish"
    assert not worker.chunks


# ---- any course of events ---------------------------------------------------------------------------------------------

READS: list[list[HttpEvent]] = [
    [],
    [SSE],
    [SSE, wire("t:a")],
    [wire("t:b")],
    [wire("f:0:stop")],
    [wire("f:0:stop", "[DONE]"), END],
    [wire("e:no")],
    [wire("defect")],
    [END],
    [NetworkError()],
    [ResponseHead(500), b"no", END],
]


class Course:
    """A driver and an engine that keep the rules, whatever happens between them."""

    def __init__(self) -> None:
        self.worker = make()
        self.started = self.reported = self.connected = self.let_go = 0
        self.over = self.told = self.committed = False

    def start(self) -> None:
        self.started += 1
        self.worker.order(start(self.started))

    def step(self, choice: int) -> None:
        worker, step = self.worker, self.worker.step(0.0)
        match step:
            case Post(event):
                self.post(event, choice)
            case Connect() if choice % 3 == 0:
                worker.failed(ConnectionRefusedError(), 0.0)
            case Connect():
                self.connected += 1
                worker.connected()
            case Send() if choice % 5 == 0:
                worker.failed(BrokenPipeError(), 0.0)
            case Receive():
                worker.received(READS[choice % len(READS)], 0.0, 0.0)
            case Discard():
                self.let_go += 1
            case Deliver():
                assert not self.told
            case Finish() | Raise():
                self.told = True

    def post(self, event: object, choice: int) -> None:
        if isinstance(event, AddRequest):
            self.start()
        elif isinstance(event, Committed):
            assert not self.committed
            self.committed = True
        elif isinstance(event, AttemptEnded):
            assert event.attempt == self.started
            self.reported += 1
            if not self.over:
                if event.error is not None and event.error.retryable and choice % 2:
                    assert not self.committed
                    self.start()
                else:
                    self.over = True
                    self.worker.order(Complete(1, event.error))
        elif isinstance(event, Cancel):
            self.over = True
            self.worker.order(AbortAttempt(1, self.started, None))

    def close(self) -> None:
        if self.started and not self.over:
            self.over = True
            self.worker.order(AbortAttempt(1, self.started, EngineClosed()))
            self.worker.order(Complete(1, EngineClosed()))

    def hang_up(self) -> None:
        self.worker.cancel()
        while (step := self.worker.immediate(0.0)) is not None:
            if isinstance(step, Discard):
                self.let_go += 1
            else:
                self.post(step.event, 0)


HAPPENINGS = st.sampled_from(["step"] * 8 + ["abort", "late abort", "close"])


@given(st.lists(st.tuples(HAPPENINGS, st.integers(0, 100)), max_size=60))
@settings(max_examples=200, deadline=None)
def test_whatever_happens_each_attempt_is_reported_and_each_connection_let_go_once(course: list[tuple[str, int]]) -> None:
    game = Course()
    for what, choice in course:
        match what:
            case "abort" if not game.over:
                game.worker.order(AbortAttempt(1, game.started, Timeout()))
            case "late abort":
                game.worker.order(AbortAttempt(1, game.started - 1, Timeout()))
            case "close":
                game.close()
            case _:
                game.step(choice)
    game.hang_up()
    assert (game.reported, game.let_go) == (game.started, game.connected)
    assert not game.worker.chunks
    assert isinstance(game.worker.step(0.0), Finish | Raise)


def test_leaving_between_attempts_rests_no_clock() -> None:
    worker = RemoteWorker(AddRequest(1, "chat", BATCH, TokenEstimate(1, 1)))
    worker.attended = True
    worker.leave(1.0)
    assert not worker.attended


# A send that breaks because the server has answered already (RFC 9112, section 9.5).


def outcome_of(*answer: HttpEvent, broken: BaseException | None = None) -> InferenceError | None:
    """How an attempt ended whose send broke, and whose connection then read this."""
    worker = make()
    worker.order(start())
    worker._submitted = True
    assert isinstance(worker.step(0.0), Connect)
    worker.connected()
    assert isinstance(worker.step(0.0), Send)
    worker.send_failed(broken or BrokenPipeError("gone"))
    assert isinstance(worker.step(0.0), Receive)
    worker.received(answer, 0.0, 1000.0)
    ended = [post.event for post in iter(lambda: worker.immediate(0.0), None) if isinstance(post, Post)]
    (report,) = [event for event in ended if isinstance(event, AttemptEnded)]
    return report.error


def test_what_the_server_said_before_it_hung_up_counts() -> None:
    error = outcome_of(ResponseHead(413), b"too large", END)
    assert error is not None
    assert error.status == 413


def test_without_an_answer_the_broken_send_is_what_went_wrong() -> None:
    error = outcome_of(NetworkError("closed"))
    assert isinstance(error, NetworkError)
    assert "BrokenPipeError" in error.message
    worded = outcome_of(NetworkError("closed"), broken=NetworkError("its own words"))
    assert worded is not None
    assert worded.message == "its own words"


def test_an_answer_that_breaks_off_is_its_own_failure() -> None:
    error = outcome_of(SSE, NetworkError("closed"))
    assert isinstance(error, NetworkError)
    assert error.message == "closed"


def test_a_broken_send_is_forgotten_with_its_attempt_and_nothing_after_an_abort() -> None:
    worker = make()
    worker.order(start())
    worker.send_failed(BrokenPipeError("gone"))
    worker.order(start(2))
    assert worker._send_error is None
    worker.order(AbortAttempt(1, 2, Timeout(1.0)))
    worker.send_failed(BrokenPipeError("gone"))
    assert worker._send_error is None
