"""Failures as values: what each kind says of itself, how causes chain, and that everything survives a round trip."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sansio import errors
from sansio.batch import Tokens, TokenUsage, ToolCall
from sansio.errors import (
    Backpressure,
    BadRequest,
    CircuitOpen,
    ForeignError,
    InferenceError,
    Internal,
    NetworkError,
    RateLimited,
    ServerError,
    StreamInterrupted,
    Timeout,
    Unauthorized,
)

# kind: (retryable, counts as a circuit failure, blames the key)
VERDICTS = {
    "RateLimited": (True, False, False),
    "QuotaExhausted": (False, False, True),
    "CircuitOpen": (False, False, False),
    "ContentFiltered": (False, False, False),
    "ContextLengthExceeded": (False, False, False),
    "BadRequest": (False, False, False),
    "Unauthorized": (False, False, True),
    "Forbidden": (False, False, True),
    "NotFound": (False, False, False),
    "Conflict": (True, False, False),
    "Backpressure": (False, False, False),
    "BudgetExceeded": (False, False, False),
    "LimitExceeded": (False, False, False),
    "NetworkError": (True, True, False),
    "ServerError": (True, True, False),
    "Timeout": (True, True, False),
    "DeadlineExceeded": (False, False, False),
    "StreamInterrupted": (False, False, False),
    "ProtocolError": (False, False, False),
    "EngineClosed": (False, False, False),
    "Unsupported": (False, False, False),
    "Internal": (False, False, False),
}
KINDS: list[type[InferenceError]] = [getattr(errors, name) for name in VERDICTS]
PARTIAL = Tokens(
    "half an ans", "because", "", (ToolCall("c1", "f", '{"a"'),), usage=TokenUsage(3, 2, provenance="lower_bound")
)


FLAGS = ("retryable", "counts_as_circuit_failure", "blames_key")


def same(one: BaseException | None, other: BaseException | None) -> bool:
    """Whether two errors are equal in type, text, fields, verdict, and down the chain of causes."""
    if one is None or other is None:
        return one is other
    if type(one) is not type(other) or str(one) != str(other):
        return False
    names = {*vars(one), *vars(other), *(FLAGS if isinstance(one, InferenceError) else ())}
    return all(getattr(one, name) == getattr(other, name) for name in names) and same(one.__cause__, other.__cause__)


def twins(error: InferenceError) -> list[Any]:
    """The error after each way there and back."""
    as_json = json.dumps(error.to_dict(), allow_nan=False)
    return [
        InferenceError.from_dict(error.to_dict()),
        InferenceError.from_dict(json.loads(as_json)),
        pickle.loads(pickle.dumps(error)),
        copy.copy(error),
        copy.deepcopy(error),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_knows_its_verdict(kind: type[InferenceError]) -> None:
    error = kind()
    assert (error.retryable, error.counts_as_circuit_failure, error.blames_key) == VERDICTS[kind.__name__]


def test_the_table_above_is_complete_and_one_level_deep() -> None:
    assert set(KINDS) == set(InferenceError.__subclasses__())
    assert not [kind for kind in KINDS if kind.__subclasses__()]
    assert len({kind.kind for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bare_error_is_readable_and_round_trips(kind: type[InferenceError]) -> None:
    error = kind()
    assert str(error) == error.message != ""
    assert kind.__name__ in repr(error)
    assert error.cause is None
    assert all(same(error, twin) for twin in twins(error))


def test_a_message_left_out_is_the_kind_in_words() -> None:
    assert str(BadRequest()) == "bad request"
    assert str(BadRequest("no such field")) == "no such field"
    assert str(StreamInterrupted()) == "the stream broke after its first content"
    assert str(StreamInterrupted(cause=NetworkError("reset"))) == "the stream broke after its first content: reset"
    assert str(StreamInterrupted(cause=NetworkError("reset"), message="cut")) == "cut"


def test_fields_by_position() -> None:
    limited = RateLimited("openai", 1.5, "slow down", status=429)
    assert (limited.provider, limited.retry_after, limited.message, limited.status) == ("openai", 1.5, "slow down", 429)
    opened = CircuitOpen("openai", 1000, 31_000, 30.0)
    assert (opened.provider, opened.retry_after) == ("openai", 30.0)
    assert (opened.opened_at_unix_ms, opened.retry_at_unix_ms) == (1000, 31_000)
    server = ServerError(502, "<html>", provider="openai")
    assert (server.status, server.body, server.provider) == (502, "<html>", "openai")
    assert ServerError().status == 500
    timeout = Timeout(1500.0, phase="connect")
    assert (timeout.elapsed_ms, timeout.phase) == (1500.0, "connect")
    assert Backpressure("full", fallback=True).fallback
    assert not Backpressure().fallback
    broken = StreamInterrupted(PARTIAL, PARTIAL.usage)
    assert (broken.partial, broken.usage) == (PARTIAL, PARTIAL.usage)
    for error in (limited, opened, server, timeout, broken, Backpressure("full", fallback=True), ServerError(None)):
        assert all(same(error, twin) for twin in twins(error))


def test_an_instance_may_overrule_its_kind() -> None:
    error = ServerError(503, retryable=False, counts_as_circuit_failure=False, blames_key=True)
    assert (error.retryable, error.counts_as_circuit_failure, error.blames_key) == (False, False, True)
    assert (ServerError.retryable, ServerError.counts_as_circuit_failure, ServerError.blames_key) == (True, True, False)
    assert all(same(error, twin) for twin in twins(error))


def test_only_what_differs_from_the_default_is_written() -> None:
    assert BadRequest().to_dict() == {"kind": "bad_request", "message": "bad request", "provider": ""}
    assert "retryable" not in ServerError(retryable=True).to_dict()
    assert Backpressure().to_dict().keys() == {"kind", "message", "provider"}


@pytest.mark.parametrize("kind", [NetworkError, ServerError, BadRequest, Unauthorized])
def test_a_broken_stream_counts_as_its_cause_does(kind: type[InferenceError]) -> None:
    cause = kind(provider="openai")
    error = StreamInterrupted(cause=cause)
    assert (error.provider, error.cause, error.retryable) == ("openai", cause, False)
    assert error.counts_as_circuit_failure == cause.counts_as_circuit_failure
    assert error.blames_key == cause.blames_key
    assert all(same(error, twin) for twin in twins(error))


def test_a_foreign_cause_says_nothing_of_the_circuit() -> None:
    error = StreamInterrupted(cause=OSError("reset"))
    assert (error.provider, error.counts_as_circuit_failure, error.blames_key) == ("", False, False)


def test_what_was_said_of_a_broken_stream_wins_over_its_cause() -> None:
    error = StreamInterrupted(cause=NetworkError(provider="a"), provider="", counts_as_circuit_failure=False)
    assert (error.provider, error.counts_as_circuit_failure) == ("", False)
    assert all(same(error, twin) for twin in twins(error))
    late = StreamInterrupted().caused_by(NetworkError())
    assert all(same(late, twin) for twin in twins(late))


def test_causes_chain() -> None:
    error = NetworkError("connection lost")
    cause = CircuitOpen("openai")
    assert error.caused_by(cause) is error
    assert error.cause is error.__cause__ is cause
    assert error.caused_by(None).cause is None


def test_a_foreign_cause_comes_back_as_its_type_and_message() -> None:
    for twin in twins(NetworkError().caused_by(OSError(111, "refused"))):
        assert isinstance(twin.cause, ForeignError)
        assert (twin.cause.type_name, twin.cause.message) == ("ConnectionRefusedError", "[Errno 111] refused")
        assert str(twin.cause) == "ConnectionRefusedError: [Errno 111] refused"
        assert all(same(twin, again) for again in twins(twin))


def test_a_foreign_cause_is_bounded_and_brings_no_credential() -> None:
    told = OSError("GET https://h/v1?key=hunter2hunter2 failed: Bearer abcdefgh " + "x" * 5000)
    for error in (NetworkError().caused_by(told), StreamInterrupted(cause=told)):
        written = json.dumps(error.to_dict()) + str(error) + repr(error) + repr(pickle.dumps(error))
        assert "hunter2" not in written
        assert "abcdefgh" not in written
        assert len(error.to_dict()["cause"]["message"]) <= 2000


@pytest.mark.parametrize("kind", ["", "inference_error", "no_such_kind", None, 7, [], {}, "foreign"])
def test_an_unknown_kind_is_refused_with_the_known_ones(kind: object) -> None:
    with pytest.raises(ValueError, match=r"is no kind of InferenceError; known: backpressure, .*unsupported"):
        InferenceError.from_dict({"kind": kind})
    with pytest.raises(ValueError, match="kind: None"):
        InferenceError.from_dict({})


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("unprocessed", [False, True])
def test_that_the_server_did_not_look_at_a_request_survives(unprocessed: bool, reset: bool) -> None:
    error = NetworkError("GOAWAY", unprocessed=unprocessed, reset=reset, provider="a")
    for twin in twins(error):
        assert isinstance(twin, NetworkError) and twin.unprocessed is unprocessed and twin.provider == "a"
        assert twin.reset is reset
    assert ("unprocessed" in error.to_dict(), "reset" in error.to_dict()) == (unprocessed, reset)


def test_fields_of_a_later_version_are_ignored() -> None:
    assert same(InferenceError.from_dict({"kind": "internal", "message": "x", "colour": "red"}), Internal("x"))
    assert same(InferenceError.from_dict({"kind": "internal"}), Internal())
    assert same(InferenceError.from_dict({"kind": "timeout"}), Timeout())
    assert same(InferenceError.from_dict({"kind": "circuit_open"}), CircuitOpen())
    assert InferenceError.from_dict({"kind": "internal", "cause": {"kind": "foreign"}}).cause is not None


def test_fewer_retries_than_the_policy_s_are_said_where_they_are_meant() -> None:
    assert ServerError(503).max_retries is None
    assert "max_retries" not in ServerError(503).to_dict()
    error = ServerError(503, max_retries=0)
    assert error.to_dict()["max_retries"] == 0
    assert {twin.max_retries for twin in twins(error)} == {0}


def test_an_error_can_be_raised_and_caught_by_its_base() -> None:
    with pytest.raises(InferenceError) as caught:
        raise RateLimited("openai") from OSError("x")
    assert isinstance(caught.value.cause, OSError)


TEXT = st.text(max_size=12)
FLAG = st.booleans()
COMMON = {
    "provider": TEXT, "status": st.none() | st.integers(), "code": st.none() | TEXT, "body": st.none() | TEXT,
    "provider_request_id": st.none() | TEXT, "retry_after": st.none() | st.floats(0, 1e9), "should_retry": st.none() | FLAG,
    "max_retries": st.none() | st.integers(0, 9), "retryable": FLAG, "counts_as_circuit_failure": FLAG, "blames_key": FLAG,
}  # fmt: skip
USAGES = st.builds(TokenUsage, st.integers(0, 99), st.integers(0, 99), provenance=st.sampled_from(["exact", "lower_bound"]))
OWN: dict[type[InferenceError], dict[str, st.SearchStrategy[Any]]] = {
    CircuitOpen: {"opened_at_unix_ms": st.integers(), "retry_at_unix_ms": st.integers()},
    Backpressure: {"fallback": FLAG},
    Timeout: {"elapsed_ms": st.floats(0, 1e9), "phase": TEXT},
    StreamInterrupted: {
        "partial": st.none() | st.builds(Tokens, TEXT, usage=st.none() | USAGES),
        "usage": st.none() | USAGES,
    },
}


@st.composite
def any_error(draw: st.DrawFn, depth: int = 2) -> InferenceError:
    """An error of any kind, with any fields, and up to ``depth`` causes below it."""
    kind = draw(st.sampled_from(KINDS))
    fields = draw(st.fixed_dictionaries({}, optional={"message": TEXT, **COMMON, **OWN.get(kind, {})}))
    below = draw(st.sampled_from(["none", "ours", "foreign"])) if depth else "none"
    if below == "none":
        return kind(**fields)
    cause = draw(any_error(depth=depth - 1)) if below == "ours" else ForeignError(draw(TEXT), draw(TEXT))
    return kind(**fields, cause=cause) if kind is StreamInterrupted and draw(FLAG) else kind(**fields).caused_by(cause)


@given(any_error())
@settings(max_examples=200, deadline=None)
def test_every_error_round_trips(error: InferenceError) -> None:
    assert all(same(error, twin) for twin in twins(error))


# A key that a provider echoes.


def test_a_known_key_is_blotted_out_of_an_error_and_its_causes() -> None:
    key = "corp.7f3e9a1bQ2"
    error = ServerError(500, f"body {key}", f"message {key}", code=f"code {key}", provider_request_id=f"id {key}")
    error.caused_by(NetworkError(f"inner {key}").caused_by(OSError(f"raw {key}")))
    error.redact((key,))
    assert isinstance(error.cause, NetworkError)
    shown = f"{error} {error!r} {error.to_dict()} {error.cause} {error.cause.cause!r}"
    assert key not in shown
    assert error.body == "body ***"
    assert isinstance(error.cause.cause, ForeignError)


def test_a_cause_that_shows_no_key_stays_as_it_is() -> None:
    cause = OSError("refused")
    error = NetworkError("gone").caused_by(cause)
    error.redact(("corp.7f3e9a1bQ2",))
    assert error.cause is cause
    assert ServerError().redact(("corp.7f3e9a1bQ2",)) is None
