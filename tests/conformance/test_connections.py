"""Connections: when one is shared, used again, waited for or closed, and what becomes of a request that loses its own."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from conformance.harness import WAYS, Asked, Engine, Lab, eventually, said
from conformance.props import Flood, HangUpWhenIdle, Held

from sansio import (
    CircuitState,
    EngineClosed,
    Http2,
    NetworkError,
    PoolConfig,
    ProtocolError,
    StreamInterrupted,
    Timeout,
)
from sansio.simulation import (
    CloseOnReuse,
    CloseWithoutResponse,
    GoAway,
    RefuseStream,
    SlowTokens,
    StallAfterChunks,
)

ONCE = {"max_retries": 0}
COUNTED = {"requests_per_minute": 100}
TOUCHY = {"failure_threshold": 1, "open_duration": 60.0}
"""A circuit that opens at the first failure."""

OVER_HTTP1 = pytest.mark.parametrize("way", [way for way in WAYS if not way.shares_connections], ids=str)
OVER_HTTP2 = pytest.mark.parametrize("way", [way for way in WAYS if way.shares_connections], ids=str)
OVER_TLS = pytest.mark.parametrize("way", [way for way in WAYS if way.transport == "native" and way.tls], ids=str)
KIND = pytest.mark.parametrize("unary", [False, True], ids=["stream", "unary"])
RESET = pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])


def all_say(asked: list[Asked]) -> None:
    """Each gets its own answer."""
    for one in asked:
        assert one.answer.text == said(str(one.batch.messages[-1].content))


def used(engine: Engine) -> int:
    """How many requests the limiter has counted."""
    count: int = engine.call(engine.real.limiter.snapshot).requests.used
    return count


# ---- the keep-alive race: a server that ends an idle connection just as the next request arrives on it -----------------


@KIND
@RESET
def test_a_request_that_meets_a_connection_just_given_up_goes_again_at_once(lab: Lab, reset: bool, unary: bool) -> None:
    lab.script(None, CloseOnReuse(reset))
    with lab.engine(retry=ONCE, circuit_breaker=TOUCHY, rate_limits=COUNTED) as engine:
        assert engine.stream("before").text == said("before")
        eventually(lambda: lab.provider.active == 0)  # a caller has its last token before the server is through
        assert engine.ask("after", unary=unary).answer.text == said("after")
        metrics = engine.metrics
        assert (metrics.retries, metrics.attempts, metrics.failures) == ({"stale_connection": 1}, 3, {})
        assert engine.call(engine.real.breaker.state) is CircuitState.CLOSED
        assert used(engine) == 3  # the provider may have counted it
        assert engine.stream("next").text == said("next")
    assert (lab.provider.requests_total, lab.peer.connections_total) == (4, 2)


@KIND
def test_what_must_not_be_done_twice_fails_instead(lab: Lab, unary: bool) -> None:
    lab.script(None, CloseOnReuse())
    with lab.engine(idempotent=False) as engine:
        assert engine.stream("before").text == said("before")
        eventually(lambda: lab.provider.active == 0)  # a caller has its last token before the server is through
        assert isinstance(engine.ask("after", unary=unary).error, NetworkError)
        assert engine.metrics.retries == {}
    assert lab.provider.requests_total == 2


@KIND
def test_the_second_loss_in_a_row_is_an_ordinary_failure(lab: Lab, unary: bool) -> None:
    lab.script(None, CloseOnReuse(), CloseWithoutResponse())
    with lab.engine(retry={"max_retries": 1}) as engine:
        assert engine.stream("before").text == said("before")
        eventually(lambda: lab.provider.active == 0)  # a caller has its last token before the server is through
        assert engine.ask("after", unary=unary).answer.text == said("after")
        assert engine.metrics.retries == {"stale_connection": 1, "network_error": 1}
    assert lab.provider.requests_total == 4


@KIND
def test_a_new_connection_that_breaks_is_an_ordinary_failure(lab: Lab, unary: bool) -> None:
    lab.script(CloseWithoutResponse())
    with lab.engine(retry=ONCE) as engine:
        assert isinstance(engine.ask(unary=unary).error, NetworkError)
        assert engine.metrics.retries == {}
    assert lab.provider.requests_total == 1


def test_a_connection_that_the_server_closes_while_it_is_idle_costs_nothing(lab: Lab) -> None:
    gate = threading.Event()
    lab.script(HangUpWhenIdle(gate, reset=True))
    with lab.engine(retry=ONCE, circuit_breaker=TOUCHY) as engine:
        assert engine.stream("before").text == said("before")
        gate.set()
        eventually(lambda: lab.peer.connections_open == 0)
        lab.let_pass(engine)
        assert engine.stream("after").text == said("after")
        assert engine.metrics.failures == {}
    assert lab.peer.connections_total == 2


@OVER_HTTP2
def test_a_shared_connection_that_the_server_closes_is_forgotten_without_another_request(lab: Lab) -> None:
    gate = threading.Event()
    lab.script(HangUpWhenIdle(gate, reset=False))
    with lab.engine(retry=ONCE) as engine:
        assert engine.stream().text == said()
        assert len(engine.real.client._pool) == 1
        gate.set()
        eventually(lambda: len(engine.real.client._pool) == 0)


# ---- HTTP/2: what a server says it never looked at ---------------------------------------------------------------------


@OVER_HTTP2
@KIND
@pytest.mark.parametrize("fault", [RefuseStream(), GoAway()], ids=["refused", "goaway"])
def test_what_the_server_never_looked_at_goes_again_even_if_it_must_not_be_done_twice(
    lab: Lab, fault: Any, unary: bool
) -> None:
    lab.script(fault)
    with lab.engine(idempotent=False, retry=ONCE, circuit_breaker=TOUCHY) as engine:
        assert engine.ask(unary=unary).answer.text == said()
        assert engine.metrics.retries == {"stale_connection": 1}
    assert (lab.provider.requests_total, lab.peer.connections_total) == (2, 2)


@OVER_HTTP2
def test_requests_before_a_goaway_go_on_to_their_end_and_new_ones_go_elsewhere(lab: Lab) -> None:
    gate = threading.Event()
    lab.script(Held(gate, chunks=3), GoAway(), then=Held(gate))
    with lab.engine(idempotent=False, retry=ONCE) as engine:
        first = engine.ask("first")
        eventually(lambda: len(first.chunks) >= 3)
        others = [engine.ask(f"other {number}") for number in range(4)]
        eventually(lambda: lab.provider.active == 5)
        # One other for all of them; but who hears of its loss when that one is open already wants a younger one.
        opened = lab.peer.connections_open
        assert 2 <= opened <= 1 + len(others)
        gate.set()
        all_say([first, *others])
        assert engine.metrics.failures == {}
        eventually(lambda: lab.peer.connections_open == opened - 1)  # the first takes no more, and is closed
    assert lab.peer.connections_total == opened


# ---- HTTP/2: many requests on one connection ---------------------------------------------------------------------------


@OVER_HTTP2
def test_fifty_requests_at_once_share_one_connection(lab: Lab) -> None:
    gate = threading.Event()
    lab.script(then=Held(gate, chunks=1))
    with lab.engine(serving={"max_concurrent": 50}, timeouts={"connect_timeout": 60.0}, retry=ONCE) as engine:
        asked = [engine.ask(f"prompt {number}", unary=number % 2 == 0) for number in range(50)]
        eventually(lambda: lab.provider.active == 50)
        assert lab.peer.connections_open == 1
        gate.set()
        all_say(asked)
    assert lab.peer.connections_total == 1


@OVER_HTTP2
def test_a_server_that_takes_few_requests_at_once_gets_as_many_connections_as_it_needs(lab: Lab) -> None:
    gate = threading.Event()
    lab.serve(max_concurrent_streams=5)
    lab.script(then=Held(gate))
    with lab.engine(serving={"max_concurrent": 12}, retry=ONCE) as engine:
        asked = [engine.ask(f"prompt {number}") for number in range(12)]
        eventually(lambda: lab.provider.active == 12)
        gate.set()
        all_say(asked)
        assert engine.metrics.retries == {}
    assert lab.peer.connections_total == 3


@OVER_HTTP2
def test_a_caller_that_pauses_stops_its_own_answer_and_no_other(lab: Lab) -> None:
    flood = Flood(chunks=2, mebibytes=8)
    lab.script(flood)
    with lab.engine(retry=ONCE) as engine:
        paused = engine.ask(pause_after=1)
        assert paused.paused.wait(20.0)
        all_say([engine.ask(f"other {number}") for number in range(30)])
        assert flood.sent == []  # not even the first MiB
        paused.resume()
        assert paused.answer.text == said()
    assert lab.peer.connections_total == 1


@OVER_HTTP2
def test_leaving_one_of_several_is_told_to_the_server_at_once_and_leaves_the_others_alone(lab: Lab) -> None:
    gate = threading.Event()
    lab.script(StallAfterChunks(3), then=Held(gate, chunks=3))
    with lab.engine(retry=ONCE) as engine:
        left = engine.ask("left", pause_after=2, leave_after=2)
        assert left.paused.wait(20.0)
        others = [engine.ask(f"other {number}") for number in range(4)]
        eventually(lambda: lab.provider.active == 5)
        left.resume()
        eventually(lambda: lab.log[0].outcome == "client_left")
        assert lab.provider.active == 4
        gate.set()
        all_say(others)
    assert (lab.provider.requests_total, lab.peer.connections_total) == (5, 1)


@pytest.mark.ways_take_turns
@OVER_HTTP2
@pytest.mark.parametrize("away", [False, True], ids=["waiting", "away"])
def test_a_timeout_ends_one_of_several_and_leaves_the_others_alone(lab: Lab, away: bool) -> None:
    gate = threading.Event()
    lab.script(StallAfterChunks(3), then=Held(gate, chunks=3))
    with lab.engine(retry=ONCE) as engine:
        late = engine.ask("late", timeout=1.5, pause_after=2 if away else None)
        eventually(lambda: late.chunks)
        others = [engine.ask(f"other {number}") for number in range(4)]
        eventually(lambda: lab.log[0].outcome == "client_left")
        late.resume()
        assert isinstance(late.error, StreamInterrupted)
        assert lab.provider.active == 4
        gate.set()
        all_say(others)
    assert (lab.provider.requests_total, lab.peer.connections_total) == (5, 1)


def test_closing_ends_all_that_are_open(lab: Lab) -> None:
    lab.script(then=StallAfterChunks(3))
    with lab.engine() as engine:
        asked = [engine.ask(f"prompt {number}", pause_after=number) for number in range(4)]
        eventually(lambda: lab.provider.active == 4 and all(one.chunks for one in asked))
        engine.close()
        eventually(lambda: lab.peer.connections_open == 0)
        for one in asked:
            one.resume()
            assert isinstance(one.error.__cause__ or one.error, EngineClosed)


# ---- how many there may be ---------------------------------------------------------------------------------------------

ALONE = PoolConfig(max_connections_per_origin=1)


@OVER_HTTP1
def test_there_are_never_more_connections_than_allowed(lab: Lab) -> None:
    gate = threading.Event()
    lab.script(then=Held(gate))
    with lab.engine(pool=PoolConfig(max_connections_per_origin=2), serving={"max_concurrent": 6}) as engine:
        asked = [engine.ask(f"prompt {number}", unary=number % 2 == 0) for number in range(6)]
        eventually(lambda: lab.provider.active == 2 and engine.metrics.in_flight == 6)
        gate.set()
        all_say(asked)
    assert (lab.peer.connections_total, lab.provider.max_active) == (2, 2)


@OVER_HTTP1
def test_who_waits_for_a_connection_gets_it_in_the_order_of_asking(lab: Lab) -> None:
    gate = threading.Event()
    lab.script(Held(gate))
    with lab.engine(pool=ALONE) as engine:
        asked = [engine.ask("prompt 0")]
        eventually(lambda: lab.provider.active == 1)
        for number in range(1, 5):
            asked.append(engine.ask(f"prompt {number}"))
            eventually(lambda: waiting(engine) == len(asked) - 1)
        gate.set()
        all_say(asked)
    assert [record.prompt for record in lab.log] == [f"prompt {number}" for number in range(5)]
    assert lab.peer.connections_total == 1


def waiting(engine: Engine) -> int:
    """How many requests wait for a connection."""
    return len(engine.real.client._pool._waits)


@OVER_HTTP1
def test_called_off_while_waiting_for_a_connection(lab: Lab) -> None:
    gate = threading.Event()
    lab.script(Held(gate))
    with lab.engine(pool=ALONE, rate_limits=COUNTED) as engine:
        first = engine.ask("first")
        eventually(lambda: lab.provider.active == 1)
        engine.ask_and_give_up(lambda: waiting(engine) == 1, "second")
        assert (engine.metrics.in_flight, engine.metrics.cancelled, waiting(engine), used(engine)) == (1, 1, 0, 1)
        third = engine.ask("third")
        eventually(lambda: waiting(engine) == 1)
        gate.set()
        all_say([first, third])
    assert (lab.provider.requests_total, lab.peer.connections_total) == (2, 1)


@OVER_HTTP1
def test_waiting_for_a_connection_is_a_part_of_connecting(lab: Lab) -> None:
    gate = threading.Event()
    lab.script(Held(gate))
    with lab.engine(pool=ALONE, timeouts={"connect_timeout": 0.5}, retry=ONCE) as engine:
        first = engine.ask("first")
        eventually(lambda: lab.provider.active == 1)
        error = engine.ask("second").error
        assert isinstance(error, Timeout)
        assert (error.phase, waiting(engine)) == ("connect", 0)
        gate.set()
        all_say([first, engine.ask("third")])
    assert (lab.provider.requests_total, lab.peer.connections_total) == (2, 1)


@OVER_HTTP1
def test_closing_ends_who_waits_for_a_connection(lab: Lab) -> None:
    gate = threading.Event()
    lab.script(Held(gate))
    with lab.engine(pool=ALONE) as engine:
        asked = [engine.ask("first")]
        eventually(lambda: lab.provider.active == 1)
        asked += [engine.ask("second"), engine.ask("third")]
        eventually(lambda: waiting(engine) == 2)
        engine.close()
        assert all(isinstance(one.error, EngineClosed) for one in asked)
    assert lab.provider.requests_total == 1


# ---- idle ones ---------------------------------------------------------------------------------------------------------


def test_an_idle_connection_is_closed_by_and_by_without_another_request(lab: Lab) -> None:
    with lab.engine(pool=PoolConfig(idle_timeout=0.2)) as engine:
        assert engine.stream().text == said()
        eventually(lambda: lab.peer.connections_open == 0)
        assert engine.stream("next").text == said("next")
        eventually(lambda: lab.peer.connections_open == 0)
        assert engine.metrics.retries == {}
    assert lab.peer.connections_total == 2


@OVER_HTTP2
def test_a_connection_that_a_timeout_left_idle_is_closed_while_its_caller_stays_away(lab: Lab) -> None:
    lab.script(StallAfterChunks(3))
    with lab.engine(pool=PoolConfig(idle_timeout=0.2), retry=ONCE) as engine:
        late = engine.ask(timeout=1.0, pause_after=1)
        assert late.paused.wait(20.0)
        eventually(lambda: lab.peer.connections_open == 0)
        late.resume()
        assert isinstance(late.error, StreamInterrupted)


@pytest.mark.ways_take_turns
def test_a_connection_in_use_is_not_idle(lab: Lab) -> None:
    lab.script(then=SlowTokens(0.03))
    with lab.engine(pool=PoolConfig(idle_timeout=0.2)) as engine:
        assert engine.stream().text == said()
        assert engine.stream("next").text == said("next")
    assert lab.peer.connections_total == 1


@OVER_HTTP1
def test_no_more_idle_connections_are_kept_than_allowed(lab: Lab) -> None:
    gate = threading.Event()
    lab.script(then=Held(gate))
    with lab.engine(pool=PoolConfig(max_idle_per_origin=1)) as engine:
        asked = [engine.ask(f"prompt {number}") for number in range(3)]
        eventually(lambda: lab.provider.active == 3)
        gate.set()
        all_say(asked)
        eventually(lambda: lab.peer.connections_open == 1)
        assert engine.stream("next").text == said("next")
    assert lab.peer.connections_total == 3


def test_engines_do_not_share_their_connections_and_leave_none_behind(lab: Lab) -> None:
    with lab.engine() as one:
        assert one.stream("one").text == said("one")
        with lab.engine() as other:
            assert other.stream("other").text == said("other")
            assert lab.peer.connections_open == 2
        eventually(lambda: lab.peer.connections_open == 1)
        assert one.stream("again").text == said("again")
    eventually(lambda: lab.peer.connections_open == 0)
    assert lab.peer.connections_total == 2


# ---- which HTTP --------------------------------------------------------------------------------------------------------


@OVER_TLS
@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
def test_http2_on_offer_is_spoken_where_the_server_speaks_it(lab: Lab, http2: bool) -> None:
    gate = threading.Event()
    lab.serve(http2=http2)
    lab.script(then=Held(gate))
    with lab.engine(pool=PoolConfig(http2=Http2.OFFER)) as engine:
        asked = [engine.ask(f"prompt {number}") for number in range(4)]
        eventually(lambda: lab.provider.active == 4)
        gate.set()
        all_say(asked)
    assert {record.http_version for record in lab.log} == {"2" if http2 else "1.1"}
    assert lab.peer.connections_total == (1 if http2 else 4)


@OVER_HTTP2
def test_a_server_without_http2_is_no_riddle(lab: Lab) -> None:
    lab.serve(http2=False)
    with lab.engine(retry=ONCE) as engine:
        error = engine.ask().error
        assert isinstance(error, (NetworkError, ProtocolError))
        assert "switch HTTP/2 off" in str(error)
    assert all(record.status != 200 for record in lab.log)
