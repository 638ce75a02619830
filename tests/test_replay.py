"""A recorded response, played offline through the machine that runs in production."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from word_codec import WordCodec, told, wire

from sansio import providers
from sansio.batch import Tokens, TokenUsage
from sansio.errors import NetworkError, ProtocolError, RateLimited, StreamInterrupted
from sansio.replay import replay_response

SSE = [("Content-Type", "text/event-stream")]
JSON = [("content-type", "application/json")]


@pytest.mark.parametrize(
    ("status", "headers", "pieces", "stream", "chunks", "kind"),
    [
        (200, SSE, [wire("t:a", "f:0:stop")], True, ["a", "0=stop"], None),
        (200, [], [wire("t:a"), wire("f:0:stop", "u:1"), wire("[DONE]")], True, ["a", "0=stop", "usage 1"], None),
        (200, SSE, [wire("t:a")], True, ["a"], "stream_interrupted"),
        (200, SSE, [wire("e:no")], True, [], "server_error"),
        (200, SSE, [], True, [], "network_error"),
        (200, JSON, [b"t:a f:0", b":stop"], False, ["a", "0=stop"], None),
        (200, JSON, [b"garbage"], False, [], "protocol_error"),
        (200, [("content-type", "text/html")], [b"<html>"], True, [], "protocol_error"),
        (503, JSON, [b"no"], True, [], "server_error"),
        (200, SSE, [wire("t:a", "f:0:stop", "[DONE]"), wire("t:late")], True, ["a", "0=stop"], None),
    ],
)
def test_a_response_gives_chunks_and_an_error_or_none(
    status: int, headers: list[tuple[str, str]], pieces: list[bytes], stream: bool, chunks: list[str], kind: str | None
) -> None:
    played, error = replay_response(WordCodec(), status, headers, pieces, stream=stream)
    assert (told(played), None if error is None else error.kind) == (chunks, kind)


def test_it_takes_any_iterables() -> None:
    def pieces() -> Iterable[bytes]:
        yield wire("t:a")
        yield wire("f:0:stop")

    played, error = replay_response(WordCodec(), 200, iter(SSE), pieces())
    assert (told(played), error) == (["a", "0=stop"], None)


def test_dates_are_read_against_the_wall_clock_given() -> None:
    _, error = replay_response(WordCodec(), 429, [("Retry-After", "unix_now")], [], unix_now=7.0)
    assert isinstance(error, RateLimited)
    assert error.retry_after == 7.0


def test_a_provider_by_name() -> None:
    pieces = [
        b'data: {"choices":[{"index":0,"delta":{"content":"hel"}}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{"content":"lo"},"finish_reason":"stop"}]}\n\n',
        b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\ndata: [DONE]\n\n',
    ]
    played, error = replay_response(providers.codec("openai"), 200, SSE, pieces)
    tokens = Tokens.from_chunks(played)
    assert (tokens.text, tokens.finish_reason, tokens.usage, error) == ("hello", "stop", TokenUsage(1, 2), None)
    played, error = replay_response(providers.codec("openai"), 200, SSE, pieces[:1])
    assert isinstance(error, StreamInterrupted)
    assert isinstance(error.cause, NetworkError)
    assert error.partial == Tokens("hel")


@given(st.integers(100, 599), st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=3),
       st.lists(st.binary(max_size=40), max_size=5), st.booleans())  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_any_response_ends_in_one_way_or_the_other(
    status: int, headers: list[tuple[str, str]], pieces: list[bytes], stream: bool
) -> None:
    played, error = replay_response(providers.codec("openai"), status, headers, pieces, stream=stream)
    assert error is not None or any(chunk.finish_reason for chunk in played)
    assert not (status != 200 and played)
    assert error is None or isinstance(error, ProtocolError | NetworkError) or status != 200


ANSWERED = (
    b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":3,"output_tokens":1}}}\n\n'
    b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hi"}}\n\n'
    b'data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":2}}\n\n'
)
STOPPED = b'event: message_stop\ndata: {"type":"message_stop"}'
FINISHED = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}]}'


@pytest.mark.parametrize(
    ("name", "stream", "whole"),
    [
        ("anthropic", ANSWERED + STOPPED + b"\n\n", True),
        ("anthropic", ANSWERED + STOPPED + b"\n", False),
        ("anthropic", ANSWERED + STOPPED, False),
        ("openai", FINISHED, True),
        ("openai", FINISHED + b"\n\ndata: [DONE]", True),
    ],
    ids=["whole", "without its blank line", "without its line end", "a finish reason", "a finish reason before"],
)
def test_a_last_event_proves_a_stream_complete_only_as_a_whole(name: str, stream: bytes, whole: bool) -> None:
    chunks, error = replay_response(providers.codec(name), 200, SSE, [stream])
    assert "".join(chunk.text_delta for chunk in chunks) == "Hi"
    assert (error is None) is whole
    assert whole or isinstance(error, StreamInterrupted)
