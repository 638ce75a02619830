"""Failures that pass: each is retried before the commit point, never after it, and never before the provider's hint."""

from __future__ import annotations

import pytest
from conformance.harness import Lab, Way, causes, eventually, said, url_of
from conformance.props import BreakAfterFinish

from sansio import NetworkError, ProtocolError, RateLimited, ServerError, StreamInterrupted
from sansio.simulation import (
    Break,
    CloseWithoutResponse,
    DoneWithoutFinish,
    ErrorFrame,
    Fault,
    GarbageBytes,
    NeverRespond,
    ResetAtByte,
    Status,
    Throttle,
    Truncate,
)

BEFORE_CONTENT: dict[str, tuple[Fault, str]] = {
    "408": (Status(408), "timeout"),
    "409": (Status(409), "conflict"),
    "425": (Status(425), "conflict"),
    "429": (Throttle(), "rate_limited"),
    "429 as html": (Throttle(body="html"), "rate_limited"),
    "429 empty": (Throttle(body="empty"), "rate_limited"),
    "500": (Status(500), "server_error"),
    "502 as html": (Status.html(502), "server_error"),
    "503": (Status(503), "server_error"),
    "503 empty": (Status(503, b""), "server_error"),
    "504": (Status(504), "server_error"),
    "529": (Status(529), "server_error"),
    "closed without a response": (CloseWithoutResponse(), "network_error"),
    "reset before a byte": (ResetAtByte(0), "network_error"),
    "reset in the status line": (ResetAtByte(7), "network_error"),
    "reset in the headers": (ResetAtByte(60), "network_error"),
    "garbage for a head": (GarbageBytes("head"), "protocol_error"),
    "no first byte": (NeverRespond(), "timeout"),
}
"""What may come in place of an answer, and the reason that the retry gives for itself."""

BEFORE_CONTENT_OF_A_STREAM: dict[str, tuple[Fault, str]] = {
    "garbage for a chunk's size": (GarbageBytes("body"), "protocol_error"),
    "a body torn before content": (Break(chunks=0), "network_error"),
    "a body that ends before content": (Truncate(chunks=0), "network_error"),
    "an error frame before content": (ErrorFrame(chunks=0), "server_error"),
    "an error frame and a terminal event": (ErrorFrame(chunks=0, then_done=True), "server_error"),
}

IN_A_UNARY_BODY: dict[str, tuple[Fault, str]] = {
    "reset in the body": (ResetAtByte(400), "network_error"),
    "garbage for a chunk's size": (GarbageBytes("body"), "protocol_error"),
    "a torn body": (Break(chunks=0), "network_error"),
    "an error in a 200": (ErrorFrame(), "server_error"),
}


@pytest.mark.cases_take_turns("case")
@pytest.mark.parametrize("unary", [False, True], ids=["stream", "unary"])
@pytest.mark.parametrize("case", BEFORE_CONTENT)
def test_what_comes_instead_of_an_answer_is_retried(lab: Lab, case: str, unary: bool) -> None:
    fault, reason = BEFORE_CONTENT[case]
    lab.script(fault)
    timeouts = {"request_timeout": 1.0} if isinstance(fault, NeverRespond) else {}
    with lab.engine(timeouts=timeouts) as engine:
        assert engine.ask(unary=unary).answer.text == said()
        assert engine.metrics.retries == {reason: 1}
        assert [notice.detail["reason"] for notice in engine.heard("retry_scheduled")] == [reason]
    assert lab.provider.requests_total == 2


@pytest.mark.cases_take_turns("case")
@pytest.mark.parametrize("case", BEFORE_CONTENT_OF_A_STREAM)
def test_a_stream_that_breaks_before_its_content_is_retried(lab: Lab, case: str) -> None:
    fault, reason = BEFORE_CONTENT_OF_A_STREAM[case]
    lab.script(fault)
    with lab.engine() as engine:
        asked = engine.ask()
        assert (asked.answer.text, asked.text) == (said(), said())
        assert engine.metrics.retries == {reason: 1}


@pytest.mark.cases_take_turns("case")
@pytest.mark.parametrize("case", IN_A_UNARY_BODY)
def test_a_unary_answer_that_breaks_in_its_body_is_retried(lab: Lab, case: str) -> None:
    fault, reason = IN_A_UNARY_BODY[case]
    lab.script(fault)
    with lab.engine() as engine:
        assert engine.generate().text == said()
        assert engine.metrics.retries == {reason: 1}


def test_a_refused_connection_is_retried_until_there_is_a_server(lab: Lab, way: Way) -> None:
    patient = {"initial_backoff": 0.1, "max_backoff": 0.5, "max_retries": 9}
    with lab.nobody() as port, lab.engine(endpoint=url_of(way, port), retry=patient) as engine:
        asked = engine.ask()
        eventually(lambda: engine.heard("retry_scheduled"))
        lab.serve(port=port)
        assert asked.answer.text == said()
        assert engine.metrics.retries.keys() == {"network_error"}


def test_a_refused_connection_fails_with_what_the_system_said(lab: Lab, way: Way) -> None:
    with lab.nobody() as port, lab.engine(endpoint=url_of(way, port), retry={"max_retries": 1}) as engine:
        error = engine.ask().error
        assert isinstance(error, NetworkError)
        assert any(isinstance(cause, ConnectionRefusedError) for cause in causes(error))
        assert engine.metrics.attempts == 2


# ---- Retry-After -----------------------------------------------------------------------------------------------------

HINTS: dict[str, tuple[Throttle | Status, float]] = {
    "seconds": (Throttle(retry_after="1"), 1.0),
    "decimal seconds": (Throttle(retry_after="0.4"), 0.4),
    "milliseconds": (Throttle(retry_after_ms="400"), 0.4),
    "milliseconds win": (Throttle(retry_after="30", retry_after_ms="400"), 0.4),
    "an HTTP date": (Throttle(retry_date=0.4), 0.4),
    "an RFC 850 date": (Throttle(retry_date=0.4, date_form="rfc850"), 0.4),
    "an asctime date": (Throttle(retry_date=0.4, date_form="asctime"), 0.4),
    "a reset header": (Throttle(reset="400ms"), 0.4),
    "seconds on a 503": (Status(503, headers=(("retry-after", "0.4"),)), 0.4),
}


@pytest.mark.cases_take_turns("case")
@pytest.mark.parametrize("case", HINTS)
def test_a_retry_never_undercuts_the_hint(lab: Lab, case: str) -> None:
    fault, hint = HINTS[case]
    lab.script(fault)
    with lab.engine() as engine:
        assert engine.stream().text == said()
    first, second = lab.log
    assert second.arrived_at - first.arrived_at >= hint


@pytest.mark.cases_take_turns("garbage")
@pytest.mark.parametrize("garbage", ["soon", "-1", "NaN", "1e9999", ""])
def test_a_hint_that_means_nothing_is_no_hint(lab: Lab, garbage: str) -> None:
    lab.script(Throttle(retry_after=garbage))
    with lab.engine() as engine:
        assert engine.stream().text == said()
        assert engine.metrics.retries == {"rate_limited": 1}


@pytest.mark.ways_take_turns
def test_a_429_holds_back_every_request_not_only_its_own(lab: Lab) -> None:
    lab.script(Throttle(retry_after="0.5"))
    with lab.engine() as engine:
        first = engine.ask("first")
        eventually(lambda: engine.heard("throttled"))
        others = [engine.ask(f"other {number}") for number in range(5)]
        assert [one.answer.text for one in others] == [said(f"other {number}") for number in range(5)]
        assert first.answer.text == said("first")
        assert engine.metrics.throttled == 1
    throttled, *later = lab.log
    assert len(later) == 6
    assert all(record.arrived_at - throttled.arrived_at >= 0.5 for record in later)


def test_a_hint_longer_than_max_retry_after_fails_at_once(lab: Lab) -> None:
    lab.script(Throttle(retry_after="3600"))
    with lab.engine(retry={"max_retry_after": 5.0}) as engine:
        error = engine.ask().error
        assert isinstance(error, RateLimited)
        assert error.retry_after == 3600.0
        assert isinstance(engine.ask("another").error, RateLimited)  # nor is it even sent
    assert lab.provider.requests_total == 1


def test_the_providers_word_against_a_retry_wins(lab: Lab) -> None:
    lab.script(Throttle(should_retry=False))
    with lab.engine() as engine:
        assert isinstance(engine.ask().error, RateLimited)
    assert lab.provider.requests_total == 1


# ---- how often -------------------------------------------------------------------------------------------------------


def test_after_max_retries_the_last_error_is_raised(lab: Lab) -> None:
    lab.script(Status(500), Status(502), Status(503))
    with lab.engine(retry={"max_retries": 2}) as engine:
        error = engine.ask().error
        assert isinstance(error, ServerError)
        assert error.status == 503
        assert engine.metrics.attempts == 3
    assert lab.provider.requests_total == 3


def test_what_is_not_idempotent_is_sent_once(lab: Lab) -> None:
    lab.script(Status(503))
    with lab.engine(idempotent=False) as engine:
        assert isinstance(engine.ask().error, ServerError)
    assert lab.provider.requests_total == 1


def test_an_outage_does_not_multiply_the_load(lab: Lab) -> None:
    lab.script(then=Status(503))
    with lab.engine(retry={"max_retries": 9}, circuit_breaker={"failure_threshold": 10_000}) as engine:
        for one in [engine.ask(f"prompt {number}") for number in range(40)]:
            assert isinstance(one.error, ServerError)
    assert lab.provider.requests_total <= 40 + 10 + 40 * 0.2


@pytest.mark.ways_take_turns
def test_few_failures_among_many_queued_requests_are_all_retried(lab: Lab) -> None:
    lab.script(*[Status(503), *[None] * 9] * 20)
    patient = {"max_retries": 20}  # the budget is in question here: a retry may meet the next failure by chance
    with lab.engine(serving={"max_concurrent": 4}, retry=patient) as engine:
        for number, one in enumerate([engine.ask(f"prompt {number}") for number in range(150)]):
            assert one.answer.text == said(f"prompt {number}")
        assert engine.metrics.retries["server_error"] > 10  # more than the budget's floor: each request earns its part


# ---- the commit point ------------------------------------------------------------------------------------------------

AFTER_CONTENT: dict[str, tuple[Fault, type[Exception]]] = {
    "a torn body": (Break(chunks=3), NetworkError),
    "no terminal marker": (Truncate(chunks=3), NetworkError),
    "a terminal event without a finish": (DoneWithoutFinish(), NetworkError),
    "an error frame": (ErrorFrame(chunks=3), ServerError),
    "an error frame and a terminal event": (ErrorFrame(chunks=3, then_done=True), ServerError),
    "garbage for a chunk's size": (GarbageBytes("body", chunks=3), ProtocolError),
    "an event that is not JSON": (GarbageBytes("sse", chunks=3), ProtocolError),
}


@pytest.mark.cases_take_turns("case")
@pytest.mark.parametrize("case", AFTER_CONTENT)
def test_a_break_after_the_commit_point_is_never_replayed(lab: Lab, case: str) -> None:
    fault, cause = AFTER_CONTENT[case]
    lab.script(fault)
    with lab.engine() as engine:
        asked = engine.ask()
        error = asked.error
        assert isinstance(error, StreamInterrupted)
        assert isinstance(error.__cause__, cause)
        assert error.partial is not None
        assert error.partial.text == asked.text == said("hello", 20 if isinstance(fault, DoneWithoutFinish) else 3)
        assert error.usage is None  # unknown, not zero
        assert engine.metrics.attempts == engine.metrics.failed == 1
    assert lab.provider.requests_total == 1


def test_a_truncated_unary_answer_is_no_answer(lab: Lab) -> None:
    lab.script(Truncate())
    with lab.engine(retry={"max_retries": 0}) as engine:
        assert isinstance(engine.ask(unary=True).error, ProtocolError)


def test_a_break_behind_the_proof_of_completeness_harms_nobody(lab: Lab) -> None:
    lab.script(BreakAfterFinish())
    with lab.engine() as engine:
        assert engine.stream().text == said()
        assert engine.metrics.attempts == 1
