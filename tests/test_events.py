"""The engine's boundary is plain values: facts and orders that can be built, compared, printed, and hold no secret.

With them, the two protocols of the seam to a provider: any class with these methods is one.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing

import pytest
from word_codec import WordCodec, WordDecoder

from sansio import codec, events, providers
from sansio.batch import ExecuteBatch, Message, TokenEstimate, TokenUsage
from sansio.cluster.store import Publish, StoreLost
from sansio.codec import ProviderCodec, StreamDecoder
from sansio.errors import NetworkError
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
from sansio.queue import Priority
from sansio.secret import Credential, Secret
from sansio.session import SessionRebuildCause, SessionSnapshot

HIDDEN = "hunter2hunter2"
BATCH = ExecuteBatch(messages=[Message(role="user", content="hello")])
ESTIMATE = TokenEstimate(1, 2)
ERROR = NetworkError("reset")
EXCHANGE = Exchange(ExchangeConfig(WordCodec(), Timeouts()), BATCH, SessionSnapshot(1, Credential(HIDDEN)), 0.0, stream=True)

FACTS: list[Event] = [
    AddRequest(1, "chat", BATCH, ESTIMATE),
    Cancel(1),
    HeadReceived(1, 2, ResponseHead(200, (("set-cookie", HIDDEN),))),
    Committed(1, 2),
    AttemptEnded(1, 2, ERROR, TokenUsage(1, 2), True),
    SessionReport(0, 1, Credential(HIDDEN)),
    StoreReport(0, 1, StoreLost("gone")),
    RebuildSession(None),
    OverrideCircuit(None, CircuitAction.OPEN),
    Tick(),
    Drain(),
    Close(),
]
ORDERS: list[Effect] = [
    StartAttempt(1, 2, EXCHANGE),
    AbortAttempt(1, 2, ERROR),
    Complete(1, None),
    RefreshSession(0, 1, SessionRebuildCause.INITIAL, Secret.inline(HIDDEN)),
    AskStore(0, 1, Publish("key", "member", b"{}", 5.0)),
    Notice("throttled", "chat", 1.0, 1001.0),
    Drained(),
]


def test_both_lists_are_closed() -> None:
    assert [type(fact) for fact in FACTS] == list(typing.get_args(Event))
    assert [type(order) for order in ORDERS] == list(typing.get_args(Effect))


@pytest.mark.parametrize("value", [*FACTS, *ORDERS], ids=lambda value: type(value).__name__)
def test_each_is_a_plain_value(value: Event | Effect) -> None:
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    assert type(value)(**fields) == value
    assert not hasattr(value, "__dict__")
    assert inspect.getdoc(type(value))


@pytest.mark.parametrize("value", [*FACTS, *ORDERS], ids=lambda value: type(value).__name__)
def test_none_shows_a_secret_or_an_address_in_memory(value: Event | Effect) -> None:
    assert HIDDEN not in repr(value)
    assert " at 0x" not in repr(value)


def test_what_a_request_is_by_default() -> None:
    add = AddRequest(1, "chat", BATCH, ESTIMATE)
    assert (add.stream, add.priority, add.tenant, add.timeout, add.wait_for_circuit) == (
        True,
        Priority.NORMAL,
        "",
        None,
        None,
    )


def test_the_other_defaults() -> None:
    assert RebuildSession("chat").cause is SessionRebuildCause.MANUAL
    assert OverrideCircuit(None, CircuitAction.OPEN).duration is None
    assert [str(action) for action in CircuitAction] == ["open", "close", "reset"]
    assert not AttemptEnded(1, 2, None, None, True).stale
    assert not StartAttempt(1, 2, EXCHANGE).fresh
    one, two = (Notice("circuit", "chat", 1.0, 2.0) for _ in range(2))
    assert (one.request_id, one.detail) == (None, {})
    one.detail["state"] = "open"
    assert two.detail == {}


# ---- the seam to a provider ---------------------------------------------------------------------------------------------

METHODS = {"encode", "estimate", "stream_decoder", "decode_unary", "classify", "rate_limit_snapshot"}


@pytest.mark.parametrize("made", [WordCodec(), providers.codec("openai")], ids=["a third party's", "openai"])
def test_a_codec_is_whatever_has_these_methods(made: ProviderCodec) -> None:
    assert {name for name in vars(ProviderCodec) if not name.startswith("_")} == METHODS | {"provider", "endpoint"}
    for name in METHODS:
        expected = inspect.signature(getattr(ProviderCodec, name))
        assert list(inspect.signature(getattr(type(made), name)).parameters) == list(expected.parameters)
    assert isinstance(made.provider, str) and isinstance(made.endpoint, str)


@pytest.mark.parametrize(
    "made", [WordDecoder(), providers.codec("openai").stream_decoder()], ids=["a third party's", "openai"]
)
def test_a_fresh_decoder_has_seen_nothing(made: StreamDecoder) -> None:
    assert set(StreamDecoder.__annotations__) == {"error", "complete", "terminal", "usage"}
    assert (made.error, made.complete, made.terminal, made.usage) == (None, False, False, None)
    assert made.decode([]) == []


def test_what_they_promise_is_written_down() -> None:
    for module in (events, codec):
        assert module.__doc__
    for protocol in (ProviderCodec, StreamDecoder):
        assert protocol.__doc__
        for name, member in vars(protocol).items():
            if not name.startswith("_"):
                assert inspect.getdoc(member), name
