"""Between one engine and its many callers: who is woken, who is interrupted, and what is done for those who are away.

The engine is scripted here (a fact, and the orders it gives for it), but for the last part, where it is the real one.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import cast

import pytest
from word_codec import WordCodec, wire

from sansio.batch import ExecuteBatch, Message, TokenEstimate
from sansio.cluster.store import Publish
from sansio.deployment import Deployment
from sansio.engine import RemoteEngineCore
from sansio.errors import EngineClosed, InferenceError, StreamInterrupted, Timeout
from sansio.events import (
    AbortAttempt,
    AddRequest,
    AskStore,
    AttemptEnded,
    Cancel,
    Close,
    Complete,
    Drained,
    Effect,
    Event,
    Notice,
    RefreshSession,
    SessionReport,
    StartAttempt,
    Tick,
)
from sansio.exchange import Exchange, ExchangeConfig
from sansio.http import ResponseHead, Timeouts
from sansio.secret import Credential, Secret
from sansio.session import SessionRebuildCause, SessionSnapshot
from sansio.switchboard import Switchboard, Todo
from sansio.worker import Connect, Deliver, Post, Raise, Receive, RemoteWorker, Send

BATCH = ExecuteBatch(messages=[Message(role="user", content="hello")])
SSE = ResponseHead(200, (("content-type", "text/event-stream"),))


class ACall:
    """What a driver keeps."""

    def __init__(self, request_id: int) -> None:
        self.worker = RemoteWorker(AddRequest(request_id, "chat", BATCH, TokenEstimate(1, 1)))


class ScriptedEngine:
    """Answers each fact by the next function that is told to answer, with nothing if there is none, and remembers it."""

    def __init__(self) -> None:
        self.facts: list[tuple[Event, float, float]] = []
        self.answers: list[list[Effect]] = []

    def handle(self, event: Event, now: float, unix_now: float) -> list[Effect]:
        self.facts.append((event, now, unix_now))
        return self.answers.pop(0) if self.answers else []


def board_of(engine: ScriptedEngine) -> Switchboard[ACall]:
    return Switchboard(cast(RemoteEngineCore, engine))


def setup(calls: int = 1) -> tuple[ScriptedEngine, Switchboard[ACall], list[ACall]]:
    engine = ScriptedEngine()
    board = board_of(engine)
    made = [ACall(number + 1) for number in range(calls)]
    for call in made:
        board.register(call)
    return engine, board, made


def start(request_id: int = 1, attempt: int = 1) -> StartAttempt:
    config = ExchangeConfig(WordCodec(), Timeouts())
    exchange = Exchange(config, BATCH, SessionSnapshot(1, Credential("k")), 0.0, stream=True)
    return StartAttempt(request_id, attempt, exchange)


def give(engine: ScriptedEngine, board: Switchboard[ACall], *effects: Effect) -> Todo[ACall]:
    """Let the engine order this."""
    engine.answers.append(list(effects))
    return board.handle(Tick(), 1.0, 1001.0)


def stream_until_first_chunk(board: Switchboard[ACall], engine: ScriptedEngine, call: ACall) -> None:
    """A caller takes its first chunk of two and goes away with it."""
    worker = call.worker
    board.enter(call)
    assert isinstance(worker.step(0.0), Post)
    give(engine, board, start(worker.add.request_id))
    assert isinstance(worker.step(0.0), Connect)
    worker.connected()
    assert isinstance(worker.step(0.0), Send)
    assert isinstance(worker.step(0.0), Receive)
    worker.received([SSE, wire("t:a", "t:b")], 0.0, 0.0)
    while isinstance(worker.step(0.0), Post):
        pass
    board.step_away(call, 0.0, 0.0)
    engine.facts.clear()


def test_a_fact_goes_to_the_engine_with_both_clocks() -> None:
    engine, board, _ = setup(0)
    assert board.handle(Tick(), 3.0, 1003.0) == Todo()
    assert engine.facts == [(Tick(), 3.0, 1003.0)]


def test_calls_are_known_from_register_to_hang_up() -> None:
    _, board, (one, two) = setup(2)
    assert len(board) == 2
    board.hang_up(one, 0.0, 0.0)
    board.hang_up(one, 0.0, 0.0)
    assert len(board) == 1
    board.hang_up(two, 0.0, 0.0)
    assert len(board) == 0


def test_whom_no_order_would_reach_cannot_come_in() -> None:
    _, board, (call,) = setup()
    board.hang_up(call, 0.0, 0.0)
    for stranger in (call, ACall(7)):
        with pytest.raises(RuntimeError, match="inside its `with`"):
            board.enter(stranger)
        assert not stranger.worker.attended


@pytest.mark.parametrize("effect", [start, lambda: Complete(1, None)])
def test_who_waits_inside_is_woken_by_an_order(effect: Callable[[], Effect]) -> None:
    engine, board, (call,) = setup()
    board.enter(call)
    assert call.worker.attended
    assert give(engine, board, effect()) == Todo(wake=[call])


@pytest.mark.parametrize("effect", [start, lambda: Complete(1, EngineClosed())])
def test_who_is_away_finds_the_order_on_coming_back(effect: Callable[[], Effect]) -> None:
    engine, board, (call,) = setup()
    call.worker.step(0.0)
    assert give(engine, board, effect()) == Todo()
    board.enter(call)
    assert isinstance(call.worker.step(0.0), Connect | Raise)


def test_orders_go_to_the_request_they_name() -> None:
    engine, board, (one, two) = setup(2)
    board.enter(one)
    board.enter(two)
    assert give(engine, board, start(2), Complete(1, None), Complete(3, None)) == Todo(wake=[two, one])


def test_orders_for_nobody_are_no_one_s() -> None:
    engine, board, _ = setup(0)
    assert give(engine, board, start(), AbortAttempt(1, 1, None), Complete(1, None)) == Todo()


def test_what_is_for_the_driver_is_handed_on() -> None:
    engine, board, _ = setup(0)
    refresh = RefreshSession(0, 1, SessionRebuildCause.INITIAL, Secret.from_env("KEY"))
    questions = [AskStore(link, 1 + link, Publish("board", "me", b"{}", 5.0)) for link in (0, 1)]
    notice = Notice("throttled", "chat", 1.0, 1001.0)
    todo = give(engine, board, questions[0], refresh, notice, questions[1], Drained())
    assert todo == Todo(refresh=[refresh], ask=questions, notices=[notice], drained=True)
    assert engine.facts == [(Tick(), 1.0, 1001.0)]  # who asks is the driver, and what comes of it is a fact of its own


# ---- aborts -----------------------------------------------------------------------------------------------------------


def test_who_is_inside_is_interrupted_and_carries_the_abort_out() -> None:
    engine, board, (call,) = setup()
    stream_until_first_chunk(board, engine, call)
    board.enter(call)
    assert give(engine, board, AbortAttempt(1, 1, Timeout())) == Todo(interrupt=[call])
    assert [type(event) for event, _, _ in engine.facts] == [Tick]  # no report yet: that is the caller's


def test_for_who_is_away_the_connection_is_closed_and_the_attempt_reported_at_once() -> None:
    engine, board, (call,) = setup()
    stream_until_first_chunk(board, engine, call)
    interrupted = StreamInterrupted()
    engine.answers = [[AbortAttempt(1, 1, Timeout())], [Complete(1, interrupted), Drained()]]
    assert board.handle(Tick(), 2.0, 1002.0) == Todo(close=[call], drained=True)
    (_, report) = engine.facts
    assert isinstance(report[0], AttemptEnded)
    assert isinstance(report[0].error, StreamInterrupted)
    assert isinstance(report[0].error.cause, Timeout)
    assert (report[0].request_id, report[0].attempt, report[1:]) == (1, 1, (2.0, 1002.0))
    # On coming back the caller gets what had come, then the end.
    assert isinstance(call.worker.step(2.0), Deliver)
    assert call.worker.step(2.0) == Raise(interrupted)


def test_an_abort_that_came_while_the_caller_turned_away_is_carried_out_then() -> None:
    engine, board, (call,) = setup()
    stream_until_first_chunk(board, engine, call)
    board.enter(call)
    give(engine, board, AbortAttempt(1, 1, Timeout()))
    assert board.step_away(call, 3.0, 1003.0) == Todo(close=[call])
    assert isinstance(engine.facts[-1][0], AttemptEnded)
    assert not call.worker.attended


def test_stepping_away_from_a_stream_that_goes_on_does_nothing() -> None:
    engine, board, (call,) = setup()
    stream_until_first_chunk(board, engine, call)
    board.enter(call)
    assert board.step_away(call, 3.0, 1003.0) is None
    assert engine.facts == []


def test_what_one_report_sets_free_reaches_another_call() -> None:
    engine, board, (one, two) = setup(2)
    stream_until_first_chunk(board, engine, one)
    board.enter(two)
    engine.answers = [[AbortAttempt(1, 1, Timeout())], [start(2), Complete(1, StreamInterrupted())]]
    assert board.handle(Tick(), 2.0, 1002.0) == Todo(close=[one], wake=[two])


def test_closing_ends_all_who_are_away_in_one_step() -> None:
    engine, board, calls = setup(50)
    for call in calls:
        stream_until_first_chunk(board, engine, call)
    closed: list[Effect] = []
    for call in calls:
        request_id = call.worker.add.request_id
        closed += [AbortAttempt(request_id, 1, EngineClosed()), Complete(request_id, EngineClosed())]
    engine.answers = [closed]
    todo = board.handle(Close(), 2.0, 1002.0)
    assert todo == Todo(close=calls)
    assert sum(isinstance(event, AttemptEnded) for event, _, _ in engine.facts) == 50


# ---- hanging up -------------------------------------------------------------------------------------------------------


def test_hanging_up_gives_everything_back_in_one_step() -> None:
    engine, board, (call,) = setup()
    stream_until_first_chunk(board, engine, call)
    engine.answers = [[AbortAttempt(1, 1, None)], []]
    assert board.hang_up(call, 4.0, 1004.0) == Todo(close=[call])
    assert [type(event) for event, _, _ in engine.facts] == [Cancel, AttemptEnded]
    assert len(board) == 0
    assert give(engine, board, Complete(1, None)) == Todo()


def test_hanging_up_before_anything_was_asked_says_nothing() -> None:
    engine, board, (call,) = setup()
    assert board.hang_up(call, 0.0, 0.0) == Todo()
    assert engine.facts == []


def test_hanging_up_when_all_is_over_says_nothing() -> None:
    engine, board, (call,) = setup()
    call.worker.step(0.0)
    give(engine, board, Complete(1, None))
    engine.facts.clear()
    assert board.hang_up(call, 0.0, 0.0) == Todo()
    assert engine.facts == []


# ---- with the real engine ---------------------------------------------------------------------------------------------


def real_board(max_concurrent: int) -> Switchboard[ACall]:
    deployment = Deployment(
        name="chat",
        model="gpt-4o",
        runtime_config={"api_key": Secret.inline("k")},
        serving={"max_concurrent": max_concurrent},
    )
    return Switchboard(RemoteEngineCore(deployment, rng=random.Random(0)))


def submit(board: Switchboard[ACall], call: ACall, *, now: float = 0.0) -> Todo[ACall]:
    board.register(call)
    board.enter(call)
    step = call.worker.step(now)
    assert isinstance(step, Post)
    todo = board.handle(step.event, now, now)
    for order in todo.refresh:
        report = SessionReport(order.session, order.refresh_id, Credential("k"))
        todo.wake += board.handle(report, now, now).wake
    return todo


def test_the_slot_of_who_hangs_up_goes_to_who_waits_in_the_same_step() -> None:
    board = real_board(max_concurrent=1)
    first, second = ACall(1), ACall(2)
    assert submit(board, first).wake == [first]
    assert isinstance(first.worker.step(0.0), Connect)
    first.worker.connected()
    assert submit(board, second).wake == []
    board.step_away(first, 1.0, 1.0)
    todo = board.hang_up(first, 1.0, 1.0)
    assert (todo.close, todo.wake) == ([first], [second])
    metrics = board.core.metrics()
    assert (metrics.in_flight, metrics.queued, metrics.cancelled) == (1, 0, 1)
    assert isinstance(second.worker.step(1.0), Connect)


@pytest.mark.parametrize("away", [True, False])
def test_closing_the_engine_reaches_everyone_and_leaves_nothing(away: bool) -> None:
    board = real_board(max_concurrent=1)
    running, waiting = ACall(1), ACall(2)
    submit(board, running)
    running.worker.step(0.0)
    running.worker.connected()
    submit(board, waiting)
    if away:
        board.step_away(running, 1.0, 1.0)
    todo = board.handle(Close(), 2.0, 2.0)
    assert waiting in todo.wake
    assert (todo.close, todo.interrupt) == (([running], []) if away else ([], [running]))
    ends: list[InferenceError | None] = []
    drained = todo.drained
    for call in (running, waiting):
        while not isinstance(step := call.worker.step(2.0), Raise):
            drained = (isinstance(step, Post) and board.handle(step.event, 2.0, 2.0).drained) or drained
        ends.append(step.error)
    assert [error.kind for error in ends if error is not None] == ["engine_closed"] * 2
    assert drained
    for call in (running, waiting):
        board.hang_up(call, 3.0, 3.0)
    assert (len(board), board.core.metrics().in_flight, board.core.deadline()) == (0, 0, None)


# Misuse, which would otherwise hang or look like an empty answer.


def test_a_stream_is_entered_once() -> None:
    _, board, (call,) = setup()
    with pytest.raises(RuntimeError, match="entered once"):
        board.register(call)
    board.hang_up(call, 1.0, 1001.0)
    with pytest.raises(RuntimeError, match="entered once"):
        board.register(call)


def test_a_stream_is_iterated_inside_its_block() -> None:
    _, board, _ = setup()
    with pytest.raises(RuntimeError, match="inside its"):
        board.enter(ACall(9))


def test_a_stream_is_iterated_by_one_caller_at_a_time() -> None:
    _, board, (call,) = setup()
    board.enter(call)
    with pytest.raises(RuntimeError, match="at a time"):
        board.enter(call)
    board.step_away(call, 1.0, 1001.0)
    board.enter(call)


def test_the_clocks_of_bytes_rest_while_the_caller_is_away() -> None:
    engine, board, (call,) = setup()
    stream_until_first_chunk(board, engine, call)
    exchange = call.worker._exchange
    assert exchange is not None
    exchange.wait(2.0)
    assert exchange.deadline == 62.0
    board.step_away(call, 3.0, 1003.0)
    assert exchange.deadline == float("inf")
