"""One HTTP attempt, told with literal times: what comes out of which bytes, how it ends, and which clock runs when.

Most tests use the codec of `word_codec`, whose events are words. The last part runs OpenAI's own format through the same
machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from word_codec import WordCodec, told, wire

from sansio.batch import ExecuteBatch, Message, TokenChunk, Tokens, TokenUsage
from sansio.errors import (
    DeadlineExceeded,
    EngineClosed,
    InferenceError,
    Internal,
    NetworkError,
    ProtocolError,
    RateLimited,
    ServerError,
    StreamInterrupted,
    Timeout,
)
from sansio.exchange import (
    MAX_ERROR_BODY_BYTES,
    MAX_HELD_CHUNKS,
    AttemptOutcome,
    Exchange,
    ExchangeConfig,
    Phase,
    internal_error,
)
from sansio.http import Headers, HttpRequest, Timeouts
from sansio.providers import codec
from sansio.secret import Credential
from sansio.session import SessionSnapshot

BATCH = ExecuteBatch(messages=[Message(role="user", content="hello")])
SESSION = SessionSnapshot(7, Credential("k"))
SSE: Headers = (("Content-Type", "text/event-stream; charset=utf-8"),)
JSON: Headers = (("content-type", "application/json"),)
NO_CLOCKS = Timeouts(connect_timeout=None, read_timeout=None, content_timeout=None)


def make(
    *,
    stream: bool = True,
    timeouts: Timeouts = NO_CLOCKS,
    now: float = 0.0,
    deadline: float | None = None,
    max_event_bytes: int = 1 << 20,
    max_body_bytes: int = 1 << 20,
) -> Exchange:
    config = ExchangeConfig(WordCodec(), timeouts, max_event_bytes, max_body_bytes)
    return Exchange(config, BATCH, SESSION, now, stream=stream, request_deadline=deadline)


def answered(
    status: int = 200,
    headers: Headers | None = None,
    *,
    stream: bool = True,
    max_event_bytes: int = 1 << 20,
    max_body_bytes: int = 1 << 20,
) -> Exchange:
    """An exchange whose response's head has come."""
    exchange = make(stream=stream, max_event_bytes=max_event_bytes, max_body_bytes=max_body_bytes)
    exchange.connecting(0.0)
    exchange.sending(0.0)
    exchange.receive_head(status, headers if headers is not None else (SSE if stream else JSON), 0.0, 1000.0)
    return exchange


def ended(exchange: Exchange) -> AttemptOutcome:
    assert exchange.outcome is not None
    assert exchange.phase is Phase.ENDED
    assert exchange.deadline == math.inf
    return exchange.outcome


def error_of(exchange: Exchange) -> InferenceError:
    error = ended(exchange).error
    assert error is not None
    return error


# ---- what is sent -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stream", "body"), [(True, b"s"), (False, b"u")])
def test_it_encodes_with_the_credential_it_was_given(stream: bool, body: bytes) -> None:
    exchange = make(stream=stream)
    assert exchange.request() == HttpRequest("POST", "http://h/v1", (("x-generation", "7"),), body)
    assert exchange.generation == 7
    assert not exchange.sent


def test_its_cost_stands_from_the_moment_it_may_have_been_sent() -> None:
    exchange = make()
    exchange.connecting(0.0)
    assert (exchange.phase, exchange.sent) == (Phase.CONNECTING, False)
    exchange.sending(1.0)
    assert (exchange.phase, exchange.sent) == (Phase.SENT, True)


@pytest.mark.parametrize(("status", "refused"), [(200, False), (399, False), (400, True), (499, True), (500, False)])
def test_what_answered_4xx_was_refused(status: int, refused: bool) -> None:
    assert not make().refused
    assert answered(status).refused is refused


# ---- a stream: which bytes give which chunks, and how it ends ---------------------------------------------------------

DONE, CUT = "clean end", "broken"

STREAMS = [
    # words, how the connection ended, chunks, kind of the error (None: success), committed
    (["role", "t:a", "t:b", "f:0:stop", "u:2", "[DONE]"], DONE, ["a", "b", "0=stop", "usage 2"], None, True),
    (["t:a", "f:0:stop"], DONE, ["a", "0=stop"], None, True),
    (["t:a", "f:0:stop"], CUT, ["a", "0=stop"], None, True),
    (["t:a", "f:0:stop", "u:2"], CUT, ["a", "0=stop", "usage 2"], None, True),
    (["r:hm", "t:a", "f:0:stop"], DONE, ["hm", "a", "0=stop"], None, True),
    (["x:no", "f:0:stop"], DONE, ["no", "0=stop"], None, True),
    (["c:look_up", "f:0:tool_calls"], DONE, ["look_up", "0=tool_calls"], None, True),
    # An answer may be empty: what was held back comes out with the proof.
    (["role", "f:0:stop", "[DONE]"], DONE, ["0=stop"], None, False),
    (["f:0:stop", "u:0"], DONE, ["0=stop", "usage 0"], None, False),
    (["f:0:stop", "u:0"], CUT, ["0=stop", "usage 0"], None, False),
    # What was held back comes out before the first content.
    (["u:0", "t:a", "f:0:stop"], DONE, ["usage 0", "a", "0=stop"], None, True),
    (["f:1:stop", "t:a", "f:0:stop"], DONE, ["1=stop", "a", "0=stop"], None, True),
    # Before the commit point an error is an error as any other; nothing was handed out.
    (["e:overloaded"], DONE, [], "server_error", False),
    (["role", "u:1", "e:overloaded"], CUT, [], "server_error", False),
    (["garbage"], DONE, [], "protocol_error", False),
    ([], DONE, [], "network_error", False),
    ([], CUT, [], "network_error", False),
    (["role"], CUT, [], "network_error", False),
    (["[DONE]"], DONE, [], "network_error", False),
    (["u:1", "[DONE]"], DONE, [], "network_error", False),
    # After it, it is an interruption.
    (["t:a", "e:overloaded"], DONE, ["a"], "stream_interrupted", True),
    (["t:a", "f:0:stop", "e:overloaded"], DONE, ["a", "0=stop"], "stream_interrupted", True),
    (["t:a", "garbage"], DONE, ["a"], "stream_interrupted", True),
    (["t:a"], DONE, ["a"], "stream_interrupted", True),
    (["t:a"], CUT, ["a"], "stream_interrupted", True),
    (["t:a", "[DONE]"], DONE, ["a"], "stream_interrupted", True),
    # Nothing after the end is read.
    (["t:a", "f:0:stop", "[DONE]", "t:b", "e:late"], DONE, ["a", "0=stop"], None, True),
]


def play(exchange: Exchange, pieces: Iterable[bytes], end: str) -> list[TokenChunk]:
    chunks: list[TokenChunk] = []
    for piece in pieces:
        exchange.wait(0.0)
        chunks += exchange.receive_body(piece, 0.0)
    chunks += exchange.receive_end(0.0) if end == DONE else exchange.fail(NetworkError("reset"), 0.0)
    return chunks


@pytest.mark.parametrize(("words", "end", "chunks", "kind", "committed"), STREAMS)
def test_a_stream(words: list[str], end: str, chunks: list[str], kind: str | None, committed: bool) -> None:
    for pieces in ([wire(*words)], [wire(word) for word in words]):
        exchange = answered()
        assert told(play(exchange, pieces, end)) == chunks
        error = ended(exchange).error
        assert (None if error is None else error.kind) == kind
        assert exchange.committed is committed
        assert error is None or error.provider == "words"


@given(st.sampled_from(STREAMS), st.lists(st.integers(0, 120), max_size=12))
@settings(max_examples=150, deadline=None)
def test_every_split_gives_the_same_chunks_and_the_same_end(
    case: tuple[list[str], str, list[str], str | None, bool], cuts: list[int]
) -> None:
    words, end, chunks, kind, committed = case
    stream = wire(*words)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    exchange = answered()
    played = play(exchange, [stream[a:b] for a, b in pairwise(edges)], end)
    error = ended(exchange).error
    assert (told(played), None if error is None else error.kind, exchange.committed) == (chunks, kind, committed)


def test_chunks_come_one_per_delta_as_their_bytes_do() -> None:
    exchange = answered()
    assert told(exchange.receive_body(wire("role"), 0.0)) == []
    assert told(exchange.receive_body(wire("t:a", "t:b"), 0.0)) == ["a", "b"]
    assert told(exchange.receive_body(b"data: t:", 0.0)) == []
    assert told(exchange.receive_body(b"c\n\n", 0.0)) == ["c"]
    assert exchange.committed
    assert exchange.outcome is None


def test_the_terminal_event_ends_it_without_waiting_for_the_connection() -> None:
    exchange = answered()
    exchange.receive_body(wire("t:a", "f:0:stop", "u:2"), 0.0)
    assert exchange.outcome is None
    exchange.receive_body(wire("[DONE]"), 0.0)
    assert ended(exchange) == AttemptOutcome(None, TokenUsage(10, 2, 1, 2, 3))


def test_usage_that_never_came_is_unknown() -> None:
    exchange = answered()
    play(exchange, [wire("t:a", "f:0:stop")], DONE)
    assert ended(exchange) == AttemptOutcome(None, None)


def test_an_interruption_says_what_there_was() -> None:
    exchange = answered()
    exchange.receive_body(wire("t:a", "u:2", "t:b"), 0.0)
    cause = NetworkError("reset")
    assert exchange.fail(cause, 0.0) == []
    error = error_of(exchange)
    assert isinstance(error, StreamInterrupted)
    lower_bound = TokenUsage(10, 2, 1, 2, 3, "lower_bound")
    assert error.partial == Tokens("ab", usage=TokenUsage(10, 2, 1, 2, 3))
    assert (error.usage, ended(exchange).usage) == (lower_bound, lower_bound)
    assert error.cause is cause
    assert error.counts_as_circuit_failure
    assert not error.retryable


def test_an_interruption_without_a_usage_knows_none() -> None:
    exchange = answered()
    play(exchange, [wire("t:a")], CUT)
    error = error_of(exchange)
    assert isinstance(error, StreamInterrupted)
    assert (error.usage, ended(exchange).usage) == (None, None)


def test_a_break_before_any_content_is_retryable_and_keeps_the_usage() -> None:
    exchange = answered()
    play(exchange, [wire("u:0")], CUT)
    assert error_of(exchange).retryable
    assert ended(exchange).usage == TokenUsage(10, 0, 1, 2, 3, "lower_bound")


@pytest.mark.parametrize(
    "error", [NetworkError(), Timeout(), ProtocolError(), DeadlineExceeded()], ids=lambda error: str(error.kind)
)
def test_what_is_lost_after_the_proof_is_no_failure(error: InferenceError) -> None:
    exchange = answered()
    exchange.receive_body(wire("f:0:stop"), 0.0)
    assert told(exchange.fail(error, 0.0)) == ["0=stop"]
    assert ended(exchange).error is None


@pytest.mark.parametrize("error", [EngineClosed(), Internal()], ids=lambda error: str(error.kind))
def test_what_ends_the_request_ends_it_even_after_the_proof(error: InferenceError) -> None:
    exchange = answered()
    exchange.receive_body(wire("f:0:stop"), 0.0)
    assert exchange.fail(error, 0.0) == []
    assert error_of(exchange) is error


def test_closing_the_engine_is_told_as_such_after_content_too() -> None:
    exchange = answered()
    exchange.receive_body(wire("t:a"), 0.0)
    closed = EngineClosed()
    exchange.fail(closed, 0.0)
    assert error_of(exchange) is closed


# An event at the end may lack its blank line, or be cut short.

TAILS = [
    (["t:a"], b"data: f:0:stop\n", ["a", "0=stop"], None),
    (["t:a"], b"data: f:0:stop", ["a", "0=stop"], None),
    ([], b"data: f:0:stop", ["0=stop"], None),
    (["t:a"], b"data: garb", ["a"], "stream_interrupted"),
    (["t:a"], b"data: e:overloaded", ["a"], "stream_interrupted"),
    ([], b"data: e:overloaded", [], "server_error"),
    ([], b"data: garb", [], "network_error"),
    (["t:a", "f:0:stop"], b"data: usa", ["a", "0=stop"], None),  # proven before: only the usage is lost
    (["t:a", "f:0:stop"], b"data: e:overloaded", ["a", "0=stop"], "stream_interrupted"),
]


@pytest.mark.parametrize(("words", "tail", "chunks", "kind"), TAILS)
def test_the_last_event_of_a_stream(words: list[str], tail: bytes, chunks: list[str], kind: str | None) -> None:
    exchange = answered()
    assert told(play(exchange, [wire(*words) + tail], DONE)) == chunks
    error = ended(exchange).error
    assert (None if error is None else error.kind) == kind


def test_an_event_cut_short_is_a_truncation_not_garbage() -> None:
    exchange = answered()
    play(exchange, [wire("t:a") + b"data: garb"], DONE)
    assert isinstance(error_of(exchange).cause, NetworkError)


# ---- bounds -----------------------------------------------------------------------------------------------------------


def test_an_event_past_its_bound_is_a_protocol_error() -> None:
    exchange = answered(max_event_bytes=100)
    assert exchange.receive_body(b"data: " + b"x" * 200, 0.0) == []
    error = error_of(exchange)
    assert isinstance(error, ProtocolError)
    assert "max_event_bytes=100" in error.message
    assert (error.provider, error.retryable) == ("words", False)


def test_an_event_past_its_bound_at_the_very_end_is_one_too() -> None:
    exchange = answered(max_event_bytes=100)
    assert told(exchange.receive_body(wire("t:a") + b"data: " + b"x" * 200, 0.0)) == ["a"]
    assert exchange.outcome is None  # the decoder hands out what was whole, and says so the next time
    assert exchange.receive_end(0.0) == []
    assert isinstance(error_of(exchange).cause, ProtocolError)


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_past_its_bound_is_a_protocol_error(stream: bool) -> None:
    exchange = answered(stream=stream, max_body_bytes=100)
    exchange.receive_body(b"\n" * 60, 0.0)
    exchange.receive_body(b"\n" * 40, 0.0)
    assert exchange.outcome is None
    assert exchange.receive_body(b"\n", 0.0) == []
    error = error_of(exchange)
    assert isinstance(error, ProtocolError)
    assert "max_body_bytes=100" in error.message


def test_what_is_held_back_is_bounded_and_never_dropped() -> None:
    exchange = answered()
    finishes = [f"f:{index}:stop" for index in range(MAX_HELD_CHUNKS)]
    assert exchange.receive_body(wire(*finishes), 0.0) == []
    assert len(exchange.receive_end(0.0)) == MAX_HELD_CHUNKS
    exchange = answered()
    exchange.receive_body(wire(*finishes), 0.0)
    assert exchange.receive_body(wire("u:1"), 0.0) == []
    assert isinstance(error_of(exchange), ProtocolError)


# ---- a unary answer ---------------------------------------------------------------------------------------------------


def test_a_unary_answer_is_read_whole() -> None:
    exchange = answered(stream=False)
    assert exchange.phase is Phase.UNARY
    assert exchange.receive_body(b"t:a t:b f:0:", 0.0) == []
    assert exchange.receive_body(b"stop u:2", 0.0) == []
    assert not exchange.committed
    assert told(exchange.receive_end(0.0)) == ["a", "b", "0=stop", "usage 2"]
    assert exchange.committed
    assert ended(exchange) == AttemptOutcome(None, TokenUsage(10, 2, 1, 2, 3))


def test_a_unary_answer_may_be_empty_and_know_no_usage() -> None:
    exchange = answered(stream=False)
    exchange.receive_body(b"f:0:stop", 0.0)
    assert told(exchange.receive_end(0.0)) == ["0=stop"]
    assert (exchange.committed, ended(exchange)) == (False, AttemptOutcome(None, None))


@pytest.mark.parametrize(("body", "kind"), [(b"e:overloaded", "server_error"), (b"garbage", "protocol_error")])
def test_a_unary_answer_that_is_none(body: bytes, kind: str) -> None:
    exchange = answered(stream=False)
    exchange.receive_body(body, 0.0)
    assert exchange.receive_end(0.0) == []
    assert error_of(exchange).kind == kind


def test_a_unary_answer_that_breaks_off_is_retryable() -> None:
    exchange = answered(stream=False)
    exchange.receive_body(b"t:a f:0:stop", 0.0)
    assert exchange.fail(NetworkError("reset"), 0.0) == []
    assert error_of(exchange).retryable


# ---- a response that is not what was asked for ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stream", "status", "headers", "phase"),
    [
        (True, 200, SSE, Phase.STREAM),
        (True, 200, (("content-type", "TEXT/Event-Stream"),), Phase.STREAM),
        (True, 200, (), Phase.STREAM),
        (True, 200, JSON, Phase.REFUSED),
        (True, 200, (("content-type", "text/html"),), Phase.REFUSED),
        (True, 201, SSE, Phase.REFUSED),
        (True, 204, (), Phase.REFUSED),
        (True, 302, SSE, Phase.REFUSED),
        (True, 500, SSE, Phase.REFUSED),
        (False, 200, JSON, Phase.UNARY),
        (False, 200, (("content-type", " application/json ;charset=utf-8"),), Phase.UNARY),
        (False, 200, (), Phase.UNARY),
        (False, 200, SSE, Phase.REFUSED),
        (False, 429, JSON, Phase.REFUSED),
    ],
)
def test_status_and_content_type_say_how_the_body_is_read(stream: bool, status: int, headers: Headers, phase: Phase) -> None:
    assert answered(status, headers, stream=stream).phase is phase


@pytest.mark.parametrize(
    ("status", "headers", "kind"),
    [
        (200, (("content-type", "text/html"),), "protocol_error"),
        (204, (), "protocol_error"),
        (302, (), "protocol_error"),
        (401, JSON, "unauthorized"),
        (429, JSON, "rate_limited"),
        (503, SSE, "server_error"),
    ],
)
@pytest.mark.parametrize("end", [DONE, CUT])
def test_a_refusal_is_classified_with_its_body(status: int, headers: Headers, kind: str, end: str) -> None:
    exchange = answered(status, headers)
    play(exchange, [b"because ", b"of that"], end)
    error = error_of(exchange)
    assert (error.kind, error.body) == (kind, "because of that")
    assert (ended(exchange).usage, exchange.committed) == (None, False)
    assert isinstance(error.cause, NetworkError) is (end == CUT)


def test_a_refusal_is_classified_with_headers_in_lower_case_and_the_wall_clock() -> None:
    exchange = answered(429, (("Retry-After", "unix_now"),))
    exchange.receive_end(0.0)
    error = error_of(exchange)
    assert isinstance(error, RateLimited)
    assert error.retry_after == 1000.0


def test_a_refused_body_is_read_up_to_a_bound() -> None:
    exchange = answered(500)
    assert exchange.receive_body(b"x" * (MAX_ERROR_BODY_BYTES - 1), 0.0) == []
    assert exchange.outcome is None
    assert exchange.receive_body(b"x" * 500_000, 0.0) == []
    assert isinstance(error_of(exchange), ServerError)


def test_a_small_bound_of_answers_does_not_cut_refusals() -> None:
    exchange = answered(500, max_body_bytes=1)
    exchange.receive_body(b"because", 0.0)
    exchange.receive_end(0.0)
    assert error_of(exchange).body == "because"


@pytest.mark.parametrize("error", [DeadlineExceeded(), EngineClosed()], ids=lambda error: str(error.kind))
def test_the_end_of_the_request_says_more_than_a_refusal(error: InferenceError) -> None:
    exchange = answered(500)
    exchange.fail(error, 0.0)
    assert error_of(exchange) is error


# ---- facts in the wrong place, and late ones --------------------------------------------------------------------------


def test_an_end_before_the_head_is_a_lost_connection() -> None:
    for stream in (True, False):
        exchange = make(stream=stream)
        exchange.sending(0.0)
        assert exchange.receive_end(0.0) == []
        assert isinstance(error_of(exchange), NetworkError)


def test_a_body_before_the_head_and_a_second_head_do_nothing() -> None:
    exchange = make(timeouts=Timeouts())
    exchange.sending(0.0)
    assert exchange.receive_body(wire("t:a"), 0.0) == []
    assert exchange.deadline == 60.0
    exchange.receive_head(200, SSE, 0.0, 0.0)
    exchange.receive_head(500, SSE, 0.0, 0.0)
    assert exchange.phase is Phase.STREAM


def test_an_error_of_the_connection_names_the_provider_unless_it_does() -> None:
    for error, provider in ((NetworkError(), "words"), (NetworkError(provider="other"), "other")):
        exchange = make()
        exchange.fail(error, 0.0)
        assert error_of(exchange) is error
        assert error.provider == provider


@pytest.mark.parametrize("success", [True, False])
def test_late_facts_do_nothing(success: bool) -> None:
    exchange = make(timeouts=Timeouts(total_timeout=50.0))
    exchange.sending(0.0)
    exchange.receive_head(200, SSE, 0.0, 0.0)
    play(exchange, [wire("t:a", "f:0:stop")] if success else [], CUT)
    outcome = ended(exchange)
    exchange.connecting(1.0)
    exchange.sending(1.0)
    exchange.receive_head(200, SSE, 1.0, 1.0)
    exchange.wait(1.0)
    assert exchange.receive_body(wire("t:late"), 1.0) == []
    assert exchange.receive_end(1.0) == []
    assert exchange.fail(NetworkError("late"), 1.0) == []
    assert exchange.overdue(1000.0) is None
    assert ended(exchange) is outcome


def test_what_ended_before_it_was_sent_stays_unsent() -> None:
    exchange = make()
    exchange.fail(NetworkError(), 0.0)
    exchange.sending(0.0)
    assert not exchange.sent


def test_a_defect_becomes_one_internal_error() -> None:
    cause = KeyError("x")
    error = internal_error(cause, "words")
    assert (error.kind, error.provider, error.cause) == ("internal", "words", cause)
    assert "KeyError" in error.message


# ---- the clocks -------------------------------------------------------------------------------------------------------

CLOCKS = Timeouts(connect_timeout=5, request_timeout=20, read_timeout=60, content_timeout=100, total_timeout=1000)


def clock_of(exchange: Exchange, now: float) -> str | None:
    """The name of the clock that has run out."""
    error = exchange.overdue(now)
    if error is None:
        return None
    assert error.provider == "words"
    return error.phase if isinstance(error, Timeout) else error.kind


def test_each_phase_has_its_clock() -> None:
    exchange = make(timeouts=CLOCKS, now=100.0)
    assert exchange.deadline == 1100.0
    exchange.connecting(102.0)
    assert (exchange.deadline, clock_of(exchange, 106.9), clock_of(exchange, 107.0)) == (107.0, None, "connect")
    exchange.wait(103.0)  # no bytes are waited for yet
    assert exchange.deadline == 107.0
    exchange.sending(103.0)
    assert (exchange.deadline, clock_of(exchange, 122.9), clock_of(exchange, 123.0)) == (123.0, None, "first byte")
    exchange.receive_head(200, SSE, 110.0, 0.0)
    assert exchange.deadline == 1100.0  # the caller does not wait yet
    exchange.wait(200.0)
    assert (exchange.deadline, clock_of(exchange, 259.9), clock_of(exchange, 260.0)) == (260.0, None, "read")
    exchange.receive_body(b":ping\n", 250.0)
    exchange.wait(250.0)
    assert (exchange.deadline, clock_of(exchange, 299.9), clock_of(exchange, 300.0)) == (300.0, None, "content")
    exchange.receive_body(wire("t:a"), 280.0)
    assert (exchange.deadline, clock_of(exchange, 1099.9), clock_of(exchange, 1100.0)) == (1100.0, None, "total")


def test_an_overdue_clock_says_how_long_it_was_and_how_long_it_took() -> None:
    exchange = make(timeouts=CLOCKS, now=100.0)
    exchange.connecting(102.0)
    error = exchange.overdue(107.5)
    assert isinstance(error, Timeout)
    assert error.elapsed_ms == 7500.0
    assert error.message == "nothing within the connect timeout of 5 s"
    assert exchange.outcome is None  # it only says so: the driver reports what came of it


@pytest.mark.parametrize(("stream", "seconds"), [(True, 60.0), (False, 600.0)])
def test_the_first_byte_of_a_unary_answer_takes_longer(stream: bool, seconds: float) -> None:
    exchange = make(stream=stream, timeouts=Timeouts())
    exchange.sending(0.0)
    assert exchange.deadline == seconds


@pytest.mark.parametrize("words", [("t:a",), ("r:hm",), ("x:no",), ("c:f",), ("role", "t:a")])
def test_content_winds_the_clock_of_content(words: tuple[str, ...]) -> None:
    exchange = answered_with(CLOCKS)
    exchange.wait(0.0)
    exchange.receive_body(wire(*words), 50.0)
    exchange.wait(50.0)
    exchange.receive_body(b":ping\n", 100.0)
    exchange.wait(100.0)
    assert (exchange.deadline, clock_of(exchange, 150.0)) == (150.0, "content")


@pytest.mark.parametrize("data", [b":ping\n\n", b"d", wire("role"), wire("f:0:stop"), wire("u:1"), b""])
def test_anything_else_is_bytes_but_no_content(data: bytes) -> None:
    exchange = answered_with(CLOCKS)
    for now in (0.0, 50.0):
        exchange.wait(now)
        exchange.receive_body(data, now + 50.0)
    exchange.wait(100.0)
    assert (exchange.deadline, clock_of(exchange, 100.0)) == (100.0, "content")


def test_bytes_that_make_no_piece_of_body_wind_the_clock_of_bytes_only() -> None:
    exchange = answered_with(CLOCKS)
    for now in (0.0, 40.0, 80.0):  # framing that drips
        exchange.receive_body(b"", now)
        exchange.wait(now)
    assert (exchange.deadline, clock_of(exchange, 100.0)) == (100.0, "content")


def test_a_caller_that_asks_again_and_again_winds_no_clock() -> None:
    exchange = answered_with(CLOCKS)
    for now in (0.0, 20.0, 40.0):  # a heartbeat that gives up waiting, looks after something else, and waits again
        exchange.wait(now)
        assert exchange.pause(now + 15.0) == now + 15.0
        assert (exchange.deadline, clock_of(exchange, now + 15.0)) == (1000.0, None)
    exchange.wait(60.0)
    assert (exchange.deadline, clock_of(exchange, 75.0)) == (75.0, "read")


def test_a_pause_before_the_head_stops_no_clock() -> None:
    exchange = make(timeouts=CLOCKS)
    exchange.sending(0.0)
    deadline = exchange.deadline
    exchange.pause(5.0)
    assert exchange.deadline == deadline


@pytest.mark.parametrize("phase", [Phase.STREAM, Phase.UNARY, Phase.REFUSED])
def test_the_clocks_of_bytes_and_content_rest_while_the_caller_does(phase: Phase) -> None:
    exchange = answered_with(CLOCKS, 500 if phase is Phase.REFUSED else 200, stream=phase is not Phase.UNARY)
    assert exchange.phase is phase
    exchange.wait(0.0)
    exchange.receive_body(b"\n", 30.0)
    assert (exchange.deadline, clock_of(exchange, 999.0)) == (1000.0, None)
    exchange.wait(900.0)  # 30 of the 100 seconds of content are used
    assert (exchange.deadline, clock_of(exchange, 960.0)) == (960.0, "read")
    exchange.receive_body(b"\n", 950.0)
    exchange.wait(960.0)
    assert (exchange.deadline, clock_of(exchange, 980.0)) == (980.0, "content")


def answered_with(timeouts: Timeouts, status: int = 200, *, stream: bool = True, deadline: float | None = None) -> Exchange:
    exchange = make(timeouts=timeouts, stream=stream, deadline=deadline)
    exchange.sending(0.0)
    exchange.receive_head(status, SSE if stream else JSON, 0.0, 0.0)
    return exchange


def test_the_total_runs_through_everything() -> None:
    exchange = answered_with(Timeouts(total_timeout=30.0))
    exchange.wait(0.0)
    assert (exchange.deadline, clock_of(exchange, 30.0)) == (30.0, "total")
    exchange.receive_body(wire("t:a"), 29.0)
    assert (exchange.deadline, clock_of(exchange, 30.0)) == (30.0, "total")


def test_the_clock_named_is_the_one_that_ran_out_first_however_late_one_looks() -> None:
    exchange = answered_with(CLOCKS)
    exchange.wait(0.0)
    assert clock_of(exchange, 5000.0) == "read"


@pytest.mark.parametrize("deadline", [10.0, 30.0])
def test_the_deadline_of_the_request_is_one_clock_more(deadline: float) -> None:
    exchange = answered_with(Timeouts(total_timeout=20.0), deadline=deadline)
    exchange.wait(0.0)
    assert exchange.deadline == min(deadline, 20.0)
    assert clock_of(exchange, exchange.deadline) == ("deadline_exceeded" if deadline == 10.0 else "total")
    assert clock_of(exchange, 30.0) == "deadline_exceeded"


def test_before_it_is_taken_up_only_total_and_deadline_run() -> None:
    assert make(timeouts=Timeouts()).deadline == math.inf
    assert make(timeouts=Timeouts(total_timeout=5), now=10.0).deadline == 15.0
    assert make(deadline=12.0).deadline == 12.0
    assert clock_of(make(deadline=12.0), 12.0) == "deadline_exceeded"


def test_a_clock_that_is_off_never_runs_out() -> None:
    exchange = make()
    exchange.connecting(0.0)
    assert exchange.deadline == math.inf
    exchange.sending(0.0)
    exchange.receive_head(200, SSE, 0.0, 0.0)
    exchange.wait(0.0)
    assert (exchange.deadline, clock_of(exchange, 1e12)) == (math.inf, None)
    exchange = answered_with(Timeouts(read_timeout=7, content_timeout=None))
    exchange.wait(0.0)
    assert (exchange.deadline, clock_of(exchange, 7.0)) == (7.0, "read")
    exchange = answered_with(Timeouts(read_timeout=None, content_timeout=8))
    exchange.wait(0.0)
    assert (exchange.deadline, clock_of(exchange, 8.0)) == (8.0, "content")


@pytest.mark.parametrize(
    ("timeouts", "before", "after"),
    [
        (Timeouts(), 5.0, 60.0),
        (Timeouts(connect_timeout=None), 60.0, 60.0),
        (Timeouts(connect_timeout=9, request_timeout=3, read_timeout=8, content_timeout=2), 3.0, 2.0),
        (NO_CLOCKS, 60.0, math.inf),
    ],
)
def test_the_engine_looks_as_often_as_the_shortest_clock_may_start(timeouts: Timeouts, before: float, after: float) -> None:
    exchange = make(timeouts=timeouts)
    assert exchange.check_interval == before
    exchange.connecting(0.0)
    assert exchange.check_interval == before
    exchange.sending(0.0)
    assert exchange.check_interval == before
    exchange.receive_head(200, SSE, 0.0, 0.0)
    assert exchange.check_interval == after


def test_a_clock_that_goes_backwards_grants_nothing_extra_and_takes_nothing_away() -> None:
    exchange = make(timeouts=CLOCKS, now=100.0)
    exchange.connecting(50.0)
    assert exchange.deadline == 105.0
    exchange.sending(101.0)
    exchange.receive_head(200, SSE, 40.0, 0.0)
    exchange.wait(30.0)
    assert exchange.deadline == 161.0
    exchange.receive_body(b"\n", 141.0)
    exchange.wait(20.0)
    assert (exchange.deadline, clock_of(exchange, 10.0)) == (201.0, None)
    error = exchange.overdue(201.0)
    assert isinstance(error, Timeout)
    assert error.elapsed_ms == 101_000.0


@given(st.lists(st.tuples(st.sampled_from(["wait", "body", "look"]), st.floats(-50, 250)), max_size=30))
@settings(max_examples=150, deadline=None)
def test_any_clock_is_borne(steps: list[tuple[str, float]]) -> None:
    exchange = answered_with(CLOCKS)
    latest = 0.0
    for step, now in steps:
        if step == "wait":
            exchange.wait(now)
        elif step == "body":
            exchange.receive_body(b":ping\n", now)
        else:
            error = exchange.overdue(now)
            assert (error is None) == (max(now, latest) < exchange.deadline)
            assert not isinstance(error, Timeout) or error.elapsed_ms >= 0
            continue
        latest = max(latest, now)
        assert exchange.deadline <= min(1000.0, latest + 60.0 if step == "wait" else math.inf)


# ---- OpenAI's format through the same machine -------------------------------------------------------------------------

FRAME = '{{"id":"x","choices":[{{"index":{index},"delta":{delta},"finish_reason":{finish}}}]}}'


def frame(delta: str, finish: str = "null", index: int = 0) -> str:
    return FRAME.format(delta=delta, finish=finish, index=index)


RECORDED = wire(
    frame('{"role":"assistant","content":""}'),
    frame('{"content":"Grüß "}'),
    frame('{"content":"zwei"}', index=1),
    frame('{"content":"Gott 😀"}'),
    frame("{}", '"stop"', index=1),
    frame("{}", '"length"'),
    '{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":9}}',
    "[DONE]",
)


def openai_exchange() -> Exchange:
    made = ExchangeConfig(codec("openai", model="m"), Timeouts())
    exchange = Exchange(made, replace(BATCH, extra={"n": 2}), SESSION, 0.0, stream=True)
    exchange.sending(0.0)
    exchange.receive_head(200, SSE, 0.0, 0.0)
    return exchange


@given(st.lists(st.integers(0, len(RECORDED)), max_size=20))
@settings(max_examples=150, deadline=None)
def test_every_split_of_a_recorded_stream_gives_the_same_chunks(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(RECORDED)]
    exchange = openai_exchange()
    chunks = play(exchange, [RECORDED[a:b] for a, b in pairwise(edges)], DONE)
    assert told(chunks) == ["Grüß ", "zwei", "Gott 😀", "1=stop", "0=length", "usage 9"]
    assert ended(exchange) == AttemptOutcome(None, TokenUsage(3, 9))


@pytest.mark.parametrize("length", range(0, len(RECORDED), 7))
def test_a_recorded_stream_cut_anywhere_succeeds_only_with_its_proof(length: int) -> None:
    for end in (DONE, CUT):
        exchange = openai_exchange()
        chunks = play(exchange, [RECORDED[:length]], end)
        finishes = {chunk.index for chunk in chunks if chunk.finish_reason}
        assert (ended(exchange).error is None) == (finishes == {0, 1})
        assert any(chunk.has_content for chunk in chunks) == exchange.committed


def miscounted(**counts: Any) -> TokenUsage:
    """What a codec with a defect might report."""
    return TokenUsage(**counts)


@pytest.mark.parametrize("usage", [miscounted(input_tokens=-1), miscounted(output_tokens=2, reasoning_tokens=1.5)])
def test_a_usage_that_cannot_be_one_is_unknown(usage: TokenUsage, monkeypatch: pytest.MonkeyPatch) -> None:
    exchange = answered_with(NO_CLOCKS, stream=False)
    monkeypatch.setattr(type(exchange._config.codec), "decode_unary", lambda *_: [TokenChunk("w", usage=usage)])
    exchange.receive_end(0.0)
    assert exchange.outcome is not None
    assert (exchange.outcome.error, exchange.outcome.usage) == (None, None)


# The credential, echoed.

ECHOED = "corp/7f3e9a1b.Q2"


def carrying(key: str, *, stream: bool = True) -> Exchange:
    exchange = Exchange(
        ExchangeConfig(codec("openai"), NO_CLOCKS), ExecuteBatch(messages=[Message(role="user", content="hi")]),
        SessionSnapshot(1, Credential(key)), 0.0, stream=stream,
    )  # fmt: skip
    exchange.sending(0.0)
    return exchange


@pytest.mark.parametrize("status", [401, 500, 200])
@pytest.mark.parametrize("said", [ECHOED, ECHOED.replace("/", "\\/")], ids=["plain", "as JSON may write it"])
@pytest.mark.parametrize(
    "page", ['{{"error": {{"message": "no such key: {}"}}}}', "<html>{}</html>", "x" * 1990 + "{}", "x" * 1994 + "{}"]
)
def test_no_error_of_a_response_holds_the_credential(status: int, said: str, page: str) -> None:
    exchange = carrying(ECHOED)
    exchange.receive_head(status, [("content-type", "text/html"), ("x-request-id", ECHOED)], 0.0, 0.0)
    exchange.receive_body(page.format(said).encode(), 0.0)
    exchange.receive_end(0.0)
    assert exchange.outcome is not None and exchange.outcome.error is not None
    shown = f"{exchange.outcome.error} {exchange.outcome.error.to_dict()}"
    assert "corp" not in shown  # not even its beginning, where the excerpt was cut


def test_nor_does_an_error_in_a_stream() -> None:
    exchange = carrying(ECHOED)
    exchange.receive_head(200, SSE, 0.0, 0.0)
    exchange.receive_body(f'data: {{"error": {{"message": "no such key: {ECHOED}"}}}}\n\n'.encode(), 0.0)
    assert exchange.outcome is not None and exchange.outcome.error is not None
    assert "7f3e9a1b" not in f"{exchange.outcome.error} {exchange.outcome.error.to_dict()}"


def test_a_key_too_short_to_be_one_is_no_reason_to_blot() -> None:
    exchange = carrying("k")
    exchange.receive_head(400, (), 0.0, 0.0)
    exchange.receive_body(b'{"error": {"message": "ask the kingdom"}}', 0.0)
    exchange.receive_end(0.0)
    assert exchange.outcome is not None
    assert "ask the kingdom" in str(exchange.outcome.error)


@pytest.mark.parametrize(
    ("stream", "content_type", "told"),
    [
        (True, "text/html; charset=utf-8", "asked for text/event-stream, was answered with text/html"),
        (False, "text/event-stream", "asked for application/json, was answered with text/event-stream"),
    ],
)
def test_a_wrong_content_type_is_told_beside_the_one_asked_for(stream: bool, content_type: str, told: str) -> None:
    exchange = carrying(ECHOED, stream=stream)
    exchange.receive_head(200, [("content-type", content_type)], 0.0, 0.0)
    exchange.receive_end(0.0)
    assert exchange.outcome is not None
    assert str(exchange.outcome.error) == told


def test_a_stream_is_complete_with_every_choice_that_was_asked_for() -> None:
    batch = ExecuteBatch(messages=[Message(role="user", content="hi")], extra={"n": 2})
    exchange = Exchange(
        ExchangeConfig(codec("openai"), NO_CLOCKS), batch, SessionSnapshot(1, Credential(ECHOED)), 0.0, stream=True
    )
    exchange.sending(0.0)
    exchange.receive_head(200, SSE, 0.0, 0.0)
    exchange.receive_body(b'data: {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]}\n\n', 0.0)
    exchange.receive_end(0.0)
    assert exchange.outcome is not None
    assert exchange.outcome.error is not None
    assert exchange.outcome.error.kind == "stream_interrupted"


def test_the_codec_is_asked_for_a_decoder_when_a_stream_begins_and_not_by_the_engine_that_makes_the_exchange() -> None:
    class NoDecoder(WordCodec):
        def stream_decoder(self, batch: ExecuteBatch | None = None) -> Any:
            raise KeyError("no decoder")

    exchange = Exchange(ExchangeConfig(NoDecoder(), NO_CLOCKS), BATCH, SESSION, 0.0, stream=True)
    exchange.sending(0.0)
    with pytest.raises(KeyError):
        exchange.receive_head(200, SSE, 0.0, 0.0)
