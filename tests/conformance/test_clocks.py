"""Clocks: of bytes and of content, of an attempt and of the whole request; and who they do not run against."""

from __future__ import annotations

import threading
import time

import pytest
from conformance.harness import Lab, eventually, said
from conformance.props import Flood, Held

from sansio import DeadlineExceeded, RateLimited, ServerError, StreamInterrupted, Timeout
from sansio.simulation import (
    NeverRespond,
    PingsOnly,
    SlowFirstByte,
    SlowTokens,
    StallAfterChunks,
    StallAfterHead,
    Status,
    Throttle,
)

ONCE = {"max_retries": 0}


def passes(seconds: float) -> None:
    """Time passes: for tests of what must not happen meanwhile."""
    time.sleep(seconds)


# ---- of an attempt ---------------------------------------------------------------------------------------------------


def test_the_connect_timeout(lab: Lab) -> None:
    short = {"connect_timeout": 0.2}
    with lab.black_hole() as endpoint, lab.engine(endpoint=endpoint, retry=ONCE, timeouts=short) as engine:
        error = engine.ask().error
        assert isinstance(error, Timeout)
        assert (error.phase, error.elapsed_ms >= 200) == ("connect", True)


@pytest.mark.parametrize("unary", [False, True], ids=["stream", "unary"])
def test_the_first_byte_timeout(lab: Lab, unary: bool) -> None:
    lab.script(NeverRespond())
    with lab.engine(retry=ONCE, timeouts={"request_timeout": 0.2}) as engine:
        error = engine.ask(unary=unary).error
        assert isinstance(error, Timeout)
        assert (error.phase, error.elapsed_ms >= 200) == ("first byte", True)
        eventually(lambda: lab.log[0].outcome == "client_left")


@pytest.mark.parametrize("unary", [False, True], ids=["stream", "unary"])
def test_a_stall_right_after_the_head_is_the_read_timeouts(lab: Lab, unary: bool) -> None:
    lab.script(StallAfterHead())
    with lab.engine(retry=ONCE, timeouts={"request_timeout": 20.0, "read_timeout": 0.2}) as engine:
        error = engine.ask(unary=unary).error
        assert isinstance(error, Timeout)
        assert error.phase == "read"
        eventually(lambda: lab.log[0].outcome == "client_left")


@pytest.mark.ways_take_turns
def test_a_stall_before_content_is_retried(lab: Lab) -> None:
    lab.script(StallAfterHead())
    with lab.engine(timeouts={"read_timeout": 1.0}) as engine:
        assert engine.stream().text == said()
        assert engine.metrics.retries == {"timeout": 1}


def test_a_stall_in_the_middle_ends_the_stream_with_what_came(lab: Lab) -> None:
    lab.script(StallAfterChunks(3))
    with lab.engine(timeouts={"read_timeout": 0.5}) as engine:
        error = engine.ask().error
        assert isinstance(error, StreamInterrupted)
        assert error.partial is not None
        assert error.partial.text == said("hello", 3)
        assert isinstance(error.__cause__, Timeout)
        assert error.__cause__.phase == "read"
    assert lab.provider.requests_total == 1


def test_pings_are_bytes_but_no_content(lab: Lab) -> None:
    lab.script(PingsOnly(0.02))
    with lab.engine(retry=ONCE, timeouts={"read_timeout": 20.0, "content_timeout": 0.3}) as engine:
        error = engine.ask().error
        assert isinstance(error, Timeout)
        assert error.phase == "content"


@pytest.mark.ways_take_turns
def test_pings_keep_a_thinking_provider_alive(lab: Lab) -> None:
    lab.script(PingsOnly(0.1, count=20))
    with lab.engine(retry=ONCE, timeouts={"read_timeout": 1.5, "content_timeout": 20.0}) as engine:
        asked = engine.ask()
        assert asked.answer.text == said()
        assert asked.chunks[0].has_content or not asked.chunks[0].text_delta


@pytest.mark.ways_take_turns
def test_content_restarts_its_clock(lab: Lab) -> None:
    lab.script(SlowTokens(0.1))
    with lab.engine(retry=ONCE, timeouts={"content_timeout": 1.5}) as engine:
        assert engine.stream().text == said()  # twenty pieces, two seconds in all


def test_an_attempts_total_timeout_runs_whatever_comes(lab: Lab) -> None:
    lab.script(PingsOnly(0.02))
    with lab.engine(retry=ONCE, timeouts={"total_timeout": 0.3}) as engine:
        error = engine.ask().error
        assert isinstance(error, Timeout)
        assert error.phase == "total"


# ---- a caller that takes its time ------------------------------------------------------------------------------------


@pytest.mark.ways_take_turns
def test_a_caller_may_pause_longer_than_any_clock_between_bytes(lab: Lab) -> None:
    with lab.engine(retry=ONCE, timeouts={"read_timeout": 1.0, "content_timeout": 1.0}) as engine:
        asked = engine.ask("hello #tokens=3000", pause_after=2)
        assert asked.paused.wait(20.0)
        passes(1.5)
        asked.resume()
        assert asked.answer.text == said("hello #tokens=3000", 3000)


@pytest.mark.ways_take_turns
def test_a_caller_that_pauses_while_the_server_is_silent_is_not_charged_for_it(lab: Lab) -> None:
    gate = threading.Event()
    lab.script(Held(gate, chunks=2))
    with lab.engine(retry=ONCE, timeouts={"read_timeout": 1.0, "content_timeout": 1.0}) as engine:
        asked = engine.ask(pause_after=1)
        assert asked.paused.wait(20.0)
        passes(1.5)
        gate.set()
        lab.let_pass(engine)
        asked.resume()
        assert asked.answer.text == said()


def test_a_caller_that_pauses_stops_the_server_instead_of_filling_memory(lab: Lab) -> None:
    flood = Flood(chunks=2, mebibytes=40)
    lab.script(flood)
    with lab.engine(retry=ONCE) as engine:
        asked = engine.ask(pause_after=1)
        assert asked.paused.wait(20.0)
        before = -1
        while before < len(flood.sent):  # as long as it still gets something out
            before = len(flood.sent)
            passes(0.3)
        assert len(flood.sent) < 40
        asked.resume()
        assert asked.answer.text == said()


@pytest.mark.ways_take_turns
def test_the_total_deadline_runs_on_while_the_caller_pauses(lab: Lab) -> None:
    gate = threading.Event()
    lab.script(Held(gate, chunks=2))
    with lab.engine(retry=ONCE) as engine:
        asked = engine.ask(pause_after=1, timeout=1.5)
        assert asked.paused.wait(20.0)
        eventually(lambda: lab.log[0].outcome == "client_left")  # cut while the caller is away
        asked.resume()
        error = asked.error
        assert isinstance(error, StreamInterrupted)
        assert isinstance(error.__cause__, DeadlineExceeded)


# ---- of the whole request --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unary", [False, True], ids=["stream", "unary"])
def test_the_deadline_while_an_attempt_runs(lab: Lab, unary: bool) -> None:
    lab.script(NeverRespond())
    with lab.engine() as engine:
        assert isinstance(engine.ask(unary=unary, timeout=0.3).error, DeadlineExceeded)
    assert lab.provider.requests_total == 1


def test_the_deadline_while_connecting(lab: Lab) -> None:
    with lab.black_hole() as endpoint, lab.engine(endpoint=endpoint, timeouts={"connect_timeout": 20.0}) as engine:
        assert isinstance(engine.ask(timeout=0.3).error, DeadlineExceeded)


@pytest.mark.ways_take_turns
def test_the_deadline_in_the_middle_of_a_stream(lab: Lab) -> None:
    lab.script(StallAfterChunks(3))
    with lab.engine() as engine:
        error = engine.ask(timeout=1.5).error
        assert isinstance(error, StreamInterrupted)
        assert isinstance(error.__cause__, DeadlineExceeded)


def test_the_deadline_while_queued(lab: Lab) -> None:
    gate = threading.Event()
    lab.script(Held(gate))
    with lab.engine(serving={"max_concurrent": 1}) as engine:
        first = engine.ask("first")
        eventually(lambda: lab.provider.active == 1)
        assert isinstance(engine.ask("second", timeout=0.3).error, DeadlineExceeded)
        gate.set()
        assert first.answer.text == said("first")
    assert [record.prompt for record in lab.log] == ["first"]


def test_the_deadline_while_waiting_for_a_permit(lab: Lab) -> None:
    gate = threading.Event()
    lab.script(Held(gate))
    with lab.engine(rate_limits={"concurrent_requests": 1}) as engine:
        first = engine.ask("first")
        eventually(lambda: lab.provider.active == 1)
        assert isinstance(engine.ask("second", timeout=0.3).error, DeadlineExceeded)
        gate.set()
        assert first.answer.text == said("first")
    assert [record.prompt for record in lab.log] == ["first"]


@pytest.mark.ways_take_turns
def test_the_deadline_over_several_attempts(lab: Lab) -> None:
    lab.script(then=SlowFirstByte(20.0))
    with lab.engine(timeouts={"request_timeout": 0.25}, retry={"max_retries": 9}) as engine:
        error = engine.ask(timeout=1.0).error
        assert isinstance(error, (DeadlineExceeded, Timeout))
        assert 1 <= engine.metrics.attempts <= 4


# Each of these would wait for an hour, or for ten minutes; nobody here has that patience.


def test_a_limit_that_frees_too_late_is_refused_at_once(lab: Lab) -> None:
    with lab.engine(rate_limits={"requests_per_minute": 1, "window": 3600.0}) as engine:
        engine.stream("first")
        assert isinstance(engine.ask("second", timeout=600.0).error, DeadlineExceeded)
    assert lab.provider.requests_total == 1


def test_a_backoff_past_the_deadline_is_not_begun(lab: Lab) -> None:
    lab.script(Status(503))
    with lab.engine(retry={"initial_backoff": 3600.0, "max_backoff": 3600.0}) as engine:
        assert isinstance(engine.ask(timeout=600.0).error, ServerError)
        assert engine.metrics.retries == {}


def test_a_hint_past_the_deadline_is_not_waited_for(lab: Lab) -> None:
    lab.script(Throttle(retry_after="3600"))
    with lab.engine(retry={"max_retry_after": 7200.0}) as engine:
        assert isinstance(engine.ask(timeout=600.0).error, RateLimited)
        assert isinstance(engine.ask("behind the pause", timeout=600.0).error, DeadlineExceeded)
    assert lab.provider.requests_total == 1


def test_a_429_fails_those_behind_it_who_cannot_wait_that_long(lab: Lab) -> None:
    gate = threading.Event()
    lab.script(Held(gate, then=Throttle(retry_after="3600")))
    with lab.engine(serving={"max_concurrent": 1}, retry={"max_retry_after": 7200.0}) as engine:
        throttled = engine.ask("throttled", timeout=10_000.0)
        eventually(lambda: lab.provider.active == 1)
        behind = engine.ask("behind", timeout=600.0)
        eventually(lambda: engine.metrics.queued == 1)
        gate.set()
        error = behind.error
        assert isinstance(error, DeadlineExceeded)
        assert isinstance(error.__cause__, RateLimited)
        assert not throttled.over  # it has the patience, and waits on
