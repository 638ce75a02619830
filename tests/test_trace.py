"""`sansio.trace`: a step of an engine in one line, the same for the same facts, and without secrets."""

from __future__ import annotations

import pytest

from sansio.batch import ExecuteBatch, Message, TokenEstimate, TokenUsage
from sansio.cluster.store import Publish, Published, StoreLost, Swap, Swapped, Take, Taken
from sansio.errors import NetworkError, ServerError, Unauthorized
from sansio.events import (
    AbortAttempt,
    AddRequest,
    AskStore,
    AttemptEnded,
    Cancel,
    CircuitAction,
    Close,
    Committed,
    Complete,
    Drain,
    Drained,
    Effect,
    Event,
    HeadReceived,
    Notice,
    OverrideCircuit,
    RebuildSession,
    RefreshSession,
    SessionReport,
    StartAttempt,
    StoreReport,
    Tick,
)
from sansio.exchange import Exchange, ExchangeConfig
from sansio.http import ResponseHead, Timeouts
from sansio.providers import codec
from sansio.queue import Priority
from sansio.secret import Credential, Secret
from sansio.session import SessionRebuildCause, SessionSnapshot
from sansio.trace import describe, trace_line

KEY = "sk-trace-0123456789"
BATCH = ExecuteBatch(messages=[Message(role="user", content="hello")])
EXCHANGE = Exchange(
    ExchangeConfig(codec("openai"), Timeouts()), BATCH, SessionSnapshot(1, Credential(KEY)), 0.0, stream=True
)

LINES: list[tuple[Event | Effect, str]] = [
    (AddRequest(1, "chat", BATCH, TokenEstimate(1, 2), priority=Priority.HIGH), "AddRequest(#1 chat HIGH)"),
    (Cancel(1), "Cancel(#1)"),
    (HeadReceived(1, 2, ResponseHead(200)), "HeadReceived(#1/2 200)"),
    (Committed(1, 2), "Committed(#1/2)"),
    (AttemptEnded(1, 2, None, TokenUsage(1, 2), True), "AttemptEnded(#1/2 ok)"),
    (AttemptEnded(1, 2, ServerError(503), None, True), "AttemptEnded(#1/2 server_error)"),
    (AttemptEnded(1, 2, NetworkError(), None, True, stale=True), "AttemptEnded(#1/2 network_error stale)"),
    (SessionReport(0, 1, Credential(KEY)), "SessionReport(credential)"),
    (SessionReport(0, 1, Unauthorized()), "SessionReport(unauthorized)"),
    (StoreReport(0, 1, Published({KEY: (1.0, b"{}")}, 2.0)), "StoreReport(Published)"),
    (StoreReport(0, 1, Swapped(True, 2, KEY.encode(), 2.0)), "StoreReport(Swapped)"),
    (StoreReport(0, 1, Taken(1, 1, None, 1, (), 2.0)), "StoreReport(Taken)"),
    (StoreReport(0, 1, StoreLost(KEY)), "StoreReport(StoreLost)"),
    (RebuildSession("chat"), "RebuildSession(manual)"),
    (OverrideCircuit("chat", CircuitAction.OPEN, 5.0), "OverrideCircuit(open)"),
    (Tick(), "Tick"),
    (Drain(), "Drain"),
    (Close(), "Close"),
    (Drained(), "Drained"),
    (StartAttempt(1, 2, EXCHANGE), "StartAttempt(#1/2)"),
    (StartAttempt(1, 2, EXCHANGE, fresh=True), "StartAttempt(#1/2 fresh)"),
    (AbortAttempt(1, 2, NetworkError()), "AbortAttempt(#1/2 network_error)"),
    (AbortAttempt(1, 2, None), "AbortAttempt(#1/2 left)"),
    (Complete(1, None), "Complete(#1 ok)"),
    (RefreshSession(0, 1, SessionRebuildCause.EXPIRY, Secret.inline(KEY)), "RefreshSession(expiry)"),
    (AskStore(0, 1, Publish(KEY, "me", KEY.encode(), 5.0)), "AskStore(Publish)"),
    (AskStore(0, 1, Swap(KEY, 1, KEY.encode(), 5.0)), "AskStore(Swap)"),
    (AskStore(0, 1, Take(KEY, "me", ())), "AskStore(Take)"),
    (Notice("throttled", "chat", 1.0, 2.0, None, {"retry_after": 0.5}), "[throttled retry_after=0.500]"),
    (Notice("circuit", "chat", 1.0, 2.0, 1, {"source": "open", "n": 2}), "[circuit source=open n=2]"),
]


@pytest.mark.parametrize(("fact", "line"), LINES)
def test_each_fact_and_order_in_a_few_words(fact: Event | Effect, line: str) -> None:
    assert describe(fact) == line
    assert KEY not in line


def test_a_step_is_the_time_the_event_and_the_effects() -> None:
    line = trace_line(1.25, Tick(), [StartAttempt(1, 2, EXCHANGE), Drained()])
    assert line == "   1.250  Tick                                          StartAttempt(#1/2), Drained"


def test_a_step_that_led_to_nothing_says_so() -> None:
    assert trace_line(1234.5, Cancel(7), []) == "1234.500  Cancel(#7)                                    -"
