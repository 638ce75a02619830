"""The mock provider as a machine: requests in, answers out, in virtual time and without a socket."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mock_client import UNIX, ask, chat, play, post, watch

from sansio.simulation import (
    FaultScript,
    MockProvider,
    ProviderLimits,
    RotateKeys,
    Send,
    SlowFirstByte,
    StallAfterChunks,
    Status,
    Truncate,
    expected_text,
)
from sansio.simulation.provider.mock_exchange import MAX_BODY_BYTES

KEYS = {"test-key"}


# --- a good answer ----------------------------------------------------------------------------------------------------


def test_a_stream_has_role_content_finish_and_done() -> None:
    seen = ask(MockProvider(default_output_tokens=3), "hello")
    assert (seen.status, seen.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    role, *content, finish, done = seen.frames
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert [chunk["choices"][0]["delta"] for chunk in content] == [{"content": t} for t in ("[hello]", " w1", " w2")]
    assert [chunk["choices"][0]["finish_reason"] for chunk in content] == [None, None, None]
    assert finish["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}]
    assert done == "[DONE]"
    assert {(c["id"], c["created"], c["object"], c["model"]) for c in (role, *content, finish)} == {
        (role["id"], int(UNIX), "chat.completion.chunk", "mock-1")
    }
    assert seen.complete and seen.end == "open"


def test_usage_comes_last_and_only_when_asked_for() -> None:
    plain = ask(MockProvider(), "hello").frames
    assert not any("usage" in frame for frame in plain[:-1])
    *chunks, usage, done = ask(MockProvider(), "hello", stream_options={"include_usage": True}).frames
    assert all(chunk["usage"] is None for chunk in chunks)
    assert usage["choices"] == [] and done == "[DONE]"
    assert (usage["usage"]["prompt_tokens"], usage["usage"]["completion_tokens"], usage["usage"]["total_tokens"]) == (
        2,
        20,
        22,
    )


def test_padding_is_on_unless_it_is_switched_off() -> None:
    assert any("obfuscation" in frame for frame in ask(MockProvider()).frames[:-1])
    quiet = ask(MockProvider(), stream_options={"include_obfuscation": False}).frames
    assert not any("obfuscation" in frame for frame in quiet[:-1])


def test_several_choices_take_turns() -> None:
    frames = ask(MockProvider(default_output_tokens=2), "hi", n=2).frames[:-1]
    assert [frame["choices"][0]["index"] for frame in frames] == [0, 1] * 4
    texts = ["".join(f["choices"][0]["delta"].get("content") or "" for f in frames[index::2]) for index in (0, 1)]
    assert texts == [expected_text("hi", 2, 0), expected_text("hi", 2, 1)]


def test_a_unary_answer_is_one_object_with_its_length() -> None:
    seen = ask(MockProvider(default_output_tokens=3), "hello", stream=False, n=2)
    assert seen.headers["content-length"] == str(len(seen.body))
    assert [c["message"]["content"] for c in seen.json["choices"]] == ["[hello] w1 w2", "[hello/1] w1 w2"]
    assert [c["finish_reason"] for c in seen.json["choices"]] == ["stop", "stop"]
    assert seen.json["object"] == "chat.completion"
    assert seen.json["usage"]["completion_tokens"] == 6


TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {}}}]


def test_a_tool_call_is_streamed_in_fragments() -> None:
    frames = ask(MockProvider(), "#tool now", tools=TOOLS).frames
    assert frames[0]["choices"][0]["delta"]["content"] is None
    calls = [f["choices"][0]["delta"]["tool_calls"][0] for f in frames[1:-2]]
    assert calls[0] == {
        "index": 0, "id": calls[0]["id"], "type": "function", "function": {"name": "look_up", "arguments": ""},
    }  # fmt: skip
    assert all(set(call) == {"index", "function"} for call in calls[1:])
    assert json.loads("".join(call["function"]["arguments"] for call in calls)) == {"prompt": "#tool now"}
    assert frames[-2]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_unary_tool_call_and_a_refusal() -> None:
    message = ask(MockProvider(), "#tool now", tools=TOOLS, stream=False).json["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"][0]["function"] == {"name": "look_up", "arguments": '{"prompt": "#tool now"}'}
    refused = ask(MockProvider(default_output_tokens=1), "#refuse", stream=False).json["choices"][0]["message"]
    assert (refused["content"], refused["refusal"]) == (None, "[#refuse]")
    streamed = ask(MockProvider(default_output_tokens=1), "#refuse").frames
    assert streamed[1]["choices"][0]["delta"] == {"refusal": "[#refuse]"}


def test_ids_come_from_the_seed() -> None:
    def identity(seed: int) -> tuple[str, str]:
        seen = ask(MockProvider(seed=seed), stream=False)
        return seen.headers["x-request-id"], seen.json["id"]

    assert identity(1) == identity(1) != identity(2)
    provider = MockProvider()
    assert ask(provider).headers["x-request-id"] != ask(provider).headers["x-request-id"]


def test_text_that_is_not_ascii_goes_out_as_utf_8() -> None:
    provider = MockProvider(default_output_tokens=1)
    assert "grün €".encode() in ask(provider, "grün €").body
    assert ask(provider, "\ud800").text == "[?]"


def test_models_are_listed() -> None:
    listed = play(MockProvider(models=["a", "b"]).connection(), post(b"", method="GET", path="/v1/models"), method="GET")
    assert [model["id"] for model in listed.json["data"]] == ["a", "b"]
    assert (
        play(MockProvider().connection(), post(b"", method="GET", path="/v1/models")).json["data"][0]["id"] == "mock-model"
    )


# --- time -------------------------------------------------------------------------------------------------------------


def test_delays_put_every_event_at_its_time() -> None:
    seen = ask(MockProvider(first_byte_delay=2.0, token_delay=0.5, default_output_tokens=3), at=10.0)
    assert [at for at, _ in seen.sent] == [12.0, 12.5, 13.0, 13.5]
    assert b'"role"' in seen.sent[0][1] and b"[DONE]" in seen.sent[-1][1]


def test_a_unary_answer_takes_the_time_of_all_its_tokens() -> None:
    seen = ask(MockProvider(first_byte_delay=2.0, token_delay=0.5, default_output_tokens=3), stream=False)
    assert [at for at, _ in seen.sent] == [3.5]


def test_pings_fill_the_silence_of_a_stream() -> None:
    provider = MockProvider(first_byte_delay=5.0, token_delay=2.5, ping_interval=1.0, default_output_tokens=2)
    seen = ask(provider)
    assert [at for at, _ in seen.sent] == [5.0, 6.0, 7.0, 7.5, 8.5, 9.5, 10.0]
    assert [frame == ":" for frame in seen.frames] == [False, True, True, False, True, True, False, False, False]
    assert seen.text == expected_text("hello", 2)
    assert [at for at, _ in ask(provider, stream=False).sent] == [10.0]


def test_a_ping_gives_way_to_a_token_that_is_due() -> None:
    seen = ask(MockProvider(token_delay=2.0, ping_interval=1.0, default_output_tokens=1))
    assert [at for at, _ in seen.sent] == [0.0, 1.0, 2.0] and seen.frames.count(":") == 1


def test_a_late_poll_gives_all_that_is_due_and_changes_no_byte() -> None:
    provider = MockProvider(token_delay=1.0, seed=3)
    punctual = ask(provider).data
    connection = MockProvider(token_delay=1.0, seed=3).connection()
    connection.receive_data(chat(), 0.0, UNIX)
    assert connection.deadline() == 0.0
    (late,) = connection.actions(500.0)
    assert late == Send(punctual) and connection.deadline() is None


def test_a_writer_takes_as_much_as_it_likes() -> None:
    connection = MockProvider().connection()
    connection.receive_data(chat(), 0.0, UNIX)
    pieces = []
    while connection.deadline() is not None:
        (send,) = connection.actions(0.0, max_bytes=100)
        assert connection.actions(0.0, max_bytes=0) == []
        pieces.append(send)
    assert len(pieces) > 20
    assert all(len(getattr(piece, "data", b"")) < 1000 for piece in pieces)


def test_a_clock_that_goes_backwards_hurries_nothing() -> None:
    connection = MockProvider(first_byte_delay=5.0).connection()
    connection.receive_data(chat(), 100.0, UNIX)
    assert connection.actions(100.0) == [] and connection.deadline() == 105.0
    assert connection.actions(50.0) == [] and connection.deadline() == 105.0
    assert watch(connection, at=105.0).complete
    connection.actions(20.0)
    connection.receive_data(chat(), 30.0, UNIX)
    assert connection.actions(30.0) == [] and connection.deadline() == 110.0


# --- who may ask, and for what ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "code"), [("wrong", "invalid_api_key"), (None, None), ("test-ke", "invalid_api_key")]
)  # fmt: skip
def test_a_wrong_key_is_a_401(key: str | None, code: str | None) -> None:
    seen = ask(MockProvider(keys=KEYS), key=key)
    assert (seen.status, seen.json["error"]["type"], seen.json["error"]["code"]) == (401, "invalid_request_error", code)
    assert key is None or key not in seen.data.decode()


def test_rotated_keys_end_the_old_ones() -> None:
    provider = MockProvider(keys=KEYS)
    assert ask(provider).status == 200
    provider.rotate_keys(["new-key"])
    assert ask(provider).status == 401
    assert ask(provider, key="new-key").status == 200


def test_any_key_will_do_where_none_are_given() -> None:
    assert ask(MockProvider(), key=None).status == ask(MockProvider(), key="x").status == 200


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (chat(path="/v1/completions"), 404, "unknown_url"),
        (chat(path="/v1/models"), 405, "method_not_supported"),
        (chat(method="GET"), 405, "method_not_supported"),
        (chat(model="gpt-unknown"), 404, "model_not_found"),
        (post(b"{not json"), 400, None),
        (post(b"\xff\xfe"), 400, None),
        (post(b"[" * 100_000), 400, None),
        (post(b""), 400, None),
        (post(b"[]"), 400, None),
        (post(b"x" * (MAX_BODY_BYTES + 1)), 413, None),
        (chat(path="/any/prefix/chat/completions?api-version=1"), 200, "-"),
    ],
    ids=["path", "models", "method", "model", "json", "utf-8", "nesting", "empty", "array", "size", "prefix"],
)
def test_what_is_wrong_is_said(request_bytes: bytes, status: int, code: str | None) -> None:
    provider = MockProvider(models=["mock-1"])
    seen = play(provider.connection(), request_bytes)
    assert seen.status == status
    assert seen.complete and seen.end == "open", "a wrong request does not cost the connection"
    if status != 200:
        assert seen.json["error"]["code"] == code
        assert provider.log[0].outcome == "rejected"


def test_a_body_past_the_bound_is_read_to_its_end_and_forgotten() -> None:
    request = post(b"x" * (MAX_BODY_BYTES + 200))
    pieces = [request[:-100], request[-100:-50], request[-50:]]
    provider = MockProvider()
    connection = provider.connection()
    assert play(connection, *pieces).status == 413
    assert provider.log[0].body is None and play(connection, chat()).status == 200


def test_the_allowed_method_is_named() -> None:
    assert ask(MockProvider(), method="PUT").headers["allow"] == "POST"


# --- the provider's own limit -----------------------------------------------------------------------------------------


def test_headers_tell_what_is_left() -> None:
    provider = MockProvider(limits=ProviderLimits(requests_per_minute=5, tokens_per_minute=1000))
    seen = ask(provider, "hello")
    found = {name[12:]: value for name, value in seen.headers.items() if name.startswith("x-ratelimit-")}
    assert found == {
        "limit-requests": "5", "remaining-requests": "4", "reset-requests": "1m0s",
        "limit-tokens": "1000", "remaining-tokens": "978", "reset-tokens": "1m0s",
    }  # fmt: skip
    assert "x-ratelimit-limit-tokens" not in ask(MockProvider(limits=ProviderLimits(1)), "hello").headers
    assert "x-ratelimit-limit-requests" not in ask(MockProvider(), "hello").headers


def test_past_the_limit_a_429_says_when_to_come_back() -> None:
    provider = MockProvider(limits=ProviderLimits(requests_per_minute=1))
    ask(provider, at=10.0)
    refused = ask(provider, at=29.75)
    assert refused.status == 429
    assert (refused.headers["retry-after"], refused.headers["retry-after-ms"]) == ("41", "40250")
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert (refused.json["error"]["type"], refused.json["error"]["code"]) == ("requests", "rate_limit_exceeded")
    assert "try again in 40250ms" in refused.json["error"]["message"]
    assert ask(provider, at=69.75).status == 429
    assert ask(provider, at=70.0).status == 200
    assert [record.outcome for record in provider.log] == ["completed", "throttled", "throttled", "completed"]


def test_a_request_that_never_fits_gets_no_hint() -> None:
    refused = ask(MockProvider(limits=ProviderLimits(tokens_per_minute=10)), "hello")
    assert refused.status == 429 and "retry-after" not in refused.headers
    assert "Request too large" in refused.json["error"]["message"] and "Requested 22" in refused.json["error"]["message"]


def test_each_model_has_a_limit_of_its_own() -> None:
    provider = MockProvider(limits=ProviderLimits(requests_per_minute=1))
    assert [ask(provider, model=model).status for model in ("a", "b", "a")] == [200, 200, 429]
    limiter = provider.limiter("a")
    assert limiter is not None and (limiter.peak_requests, limiter.refused) == (1, 1)
    assert MockProvider().limiter("a") is None


@pytest.mark.parametrize(
    ("fault", "tokens"), [(None, 22), (Status(503), 0), (Truncate(1), 22), (RotateKeys(("test-key",)), 22)]
)  # fmt: skip
def test_the_charge_is_what_is_used(fault: Any, tokens: int) -> None:
    """A refusal costs a request and no tokens; an answer cut short was still made."""
    provider = MockProvider(faults=FaultScript([fault]), limits=ProviderLimits(10, 1000))
    ask(provider, "hello")
    limiter = provider.limiter("mock-1")
    assert limiter is not None and (limiter.peak_requests, limiter.peak_tokens) == (1, tokens)
    assert provider.log[0].input_tokens + provider.log[0].output_tokens == tokens


def test_who_is_throttled_or_rejected_uses_up_no_fault() -> None:
    faults = FaultScript([None, Status(500)])
    provider = MockProvider(faults=faults, keys=KEYS, limits=ProviderLimits(requests_per_minute=1))
    statuses = [ask(provider, key=key, at=at).status for key, at in (("test-key", 0), ("bad", 1), ("test-key", 1))]
    assert statuses == [200, 401, 429] and faults.remaining == 1
    assert ask(provider, at=100.0).status == 500


def test_a_rotation_meets_its_own_request() -> None:
    provider = MockProvider(keys=KEYS, faults=FaultScript([RotateKeys(("new-key",))]), limits=ProviderLimits(10))
    assert ask(provider).status == 401
    assert ask(provider).status == 401
    assert ask(provider, key="new-key").status == 200
    assert [(r.outcome, r.key_ok) for r in provider.log] == [("faulted", False), ("rejected", False), ("completed", True)]
    limiter = provider.limiter("mock-1")
    assert limiter is not None and limiter.peak_requests == 1


# --- connections ------------------------------------------------------------------------------------------------------


def test_a_connection_is_kept_for_the_next_request() -> None:
    provider = MockProvider()
    connection = provider.connection()
    for number in range(3):
        seen = play(connection, chat(f"number {number}"), at=float(number))
        assert seen.complete and seen.end == "open" and seen.text == expected_text(f"number {number}")
    assert (provider.connections_total, provider.requests_total) == (1, 3)


def test_a_client_that_asks_for_it_is_closed_after_the_answer() -> None:
    for request in (chat(headers=[("connection", "close")]), chat(version="1.0")):
        seen = play(MockProvider().connection(), request)
        assert seen.complete and seen.end == "close" and seen.text == expected_text("hello")


def test_pipelining_is_refused_politely() -> None:
    provider = MockProvider(token_delay=1.0, default_output_tokens=2)
    connection = provider.connection()
    connection.receive_data(chat("first"), 0.0, UNIX)
    connection.actions(0.5)
    seen = play(connection, chat("second"), at=0.5)
    assert b"[DONE]" in seen.data, "the first answer goes on to its end"
    assert seen.data.count(b"HTTP/1.1 400") == 1 and b"pipeline" in seen.data and seen.end == "close"
    assert [(r.prompt, r.outcome) for r in provider.log] == [("first", "completed"), (None, "rejected")]


def test_two_requests_in_one_piece_are_pipelining_too() -> None:
    seen = play(MockProvider().connection(), chat("first") + chat("second"))
    assert seen.text == expected_text("first") and seen.end == "close"
    assert b"HTTP/1.1 400 Bad Request" in seen.data
    closing = play(MockProvider().connection(), chat("first", headers=[("connection", "close")]) + b"more")
    assert closing.end == "close" and b"400" not in closing.data


def test_a_head_request_gets_no_body() -> None:
    seen = play(MockProvider().connection(), chat(method="HEAD"), chat(), method="HEAD")
    assert seen.status == 405 and seen.complete
    assert seen.data.endswith(b"}") and seen.end == "close", "the refusal of the second has one"


def test_a_client_that_waits_is_told_to_go_on() -> None:
    request = chat(headers=[("expect", "100-continue")])
    head, _, body = request.partition(b"\r\n\r\n")
    connection = MockProvider().connection()
    connection.receive_data(head + b"\r\n\r\n", 0.0, UNIX)
    assert connection.deadline() == 0.0
    assert watch(connection, at=0.0).data.startswith(b"HTTP/1.1 100")
    assert play(connection, body).complete


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET\r\n\r\n", b"A" * 70_000])
def test_bytes_that_are_no_request_are_a_400(garbage: bytes) -> None:
    provider = MockProvider()
    seen = play(provider.connection(), garbage)
    assert seen.status in (400, 431) and seen.end == "close" and seen.headers["connection"] == "close"
    assert (provider.log[0].path, provider.log[0].outcome) == ("", "rejected")


def test_a_client_that_closes_early_has_left() -> None:
    provider = MockProvider(token_delay=1.0)
    connection = provider.connection()
    play(connection, chat(), until=3.0)
    assert provider.active == 1
    seen = play(connection, b"", at=3.5)
    assert (seen.data, seen.end) == (b"", "close")
    assert (provider.active, provider.log[0].outcome, provider.log[0].ended_at) == (0, "client_left", 3.5)
    connection.connection_lost(4.0)
    assert (provider.connections_open, provider.log[0].ended_at) == (0, 3.5)


def test_a_lost_connection_is_a_client_that_left() -> None:
    provider = MockProvider(faults=FaultScript([StallAfterChunks(1)]))
    connection = provider.connection()
    seen = play(connection, chat())
    assert seen.deltas == ["[hello]"] and connection.deadline() is None and not connection.closed
    connection.connection_lost(9.0)
    assert connection.closed
    assert (provider.active, provider.connections_open, provider.log[0].outcome) == (0, 0, "client_left")


def test_after_its_end_a_connection_does_nothing() -> None:
    provider = MockProvider()
    connection = provider.connection()
    connection.receive_data(b"", 0.0, UNIX)
    assert not connection.closed, "the close is still to be carried out"
    assert watch(connection, at=0.0).end == "close" and connection.closed
    seen = play(connection, chat(), b"", at=1.0)
    assert (seen.data, seen.end) == (b"", "open")
    connection.receive_data(b"", 0.0, UNIX)
    assert provider.requests_total == provider.connections_open == 0


def test_losing_a_connection_forgets_what_was_to_be_sent() -> None:
    connection = MockProvider().connection()
    connection.receive_data(b"", 0.0, UNIX)
    connection.connection_lost(0.0)
    assert connection.actions(0.0) == [] and connection.closed


# --- what it remembers ------------------------------------------------------------------------------------------------


def test_the_log_tells_the_story_of_a_request() -> None:
    provider = MockProvider(keys=KEYS, first_byte_delay=1.0)
    ask(provider, "hello", at=5.0, headers=[("x-trace", "7"), ("api-key", "k"), ("Cookie", "c")])
    (record,) = provider.log
    assert (record.index, record.method, record.path, record.model) == (0, "POST", "/v1/chat/completions", "mock-1")
    assert (record.prompt, record.stream, record.body["messages"][0]["content"]) == ("hello", True, "hello")
    assert (record.arrived_at, record.ended_at, record.status, record.outcome) == (5.0, 6.0, 200, "completed")
    assert (record.input_tokens, record.output_tokens, record.fault) == (2, 20, None)
    assert [name for name, _ in record.headers] == ["host", "content-length", "x-trace"]
    assert (record.key_ok, record.key_fingerprint) == (True, hashlib.sha256(b"test-key").hexdigest()[:8])
    assert "test-key" not in repr(record) and "test-key" not in repr(vars(type(provider)))


def test_while_it_is_being_answered_nothing_is_decided() -> None:
    provider = MockProvider(first_byte_delay=1.0)
    connection = provider.connection()
    connection.receive_data(chat(), 0.0, UNIX)
    assert (provider.log[0].status, provider.log[0].outcome, provider.log[0].ended_at) == (None, None, None)


def test_a_fault_is_remembered_with_its_request() -> None:
    provider = MockProvider(faults=FaultScript([SlowFirstByte(1.0)]))
    ask(provider)
    assert (provider.log[0].fault, provider.log[0].outcome) == (SlowFirstByte(1.0), "faulted")


def test_the_log_is_bounded_and_the_counters_are_not() -> None:
    provider = MockProvider(log_size=2)
    for number in range(5):
        ask(provider, f"{number}")
    assert [record.prompt for record in provider.log] == ["3", "4"]
    assert (provider.requests_total, provider.connections_total) == (5, 5)


def test_how_many_are_answered_at_once_is_counted() -> None:
    provider = MockProvider(token_delay=1.0)
    connections = [provider.connection() for _ in range(3)]
    for connection in connections:
        play(connection, chat(), until=1.0)
    assert (provider.active, provider.max_active, provider.connections_open) == (3, 3, 3)
    for connection in connections:
        watch(connection, at=1.0)
    assert (provider.active, provider.max_active) == (0, 3)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"token_delay": -1}, "token_delay"),
        ({"token_delay": True}, "token_delay"),
        ({"first_byte_delay": float("nan")}, "first_byte_delay"),
        ({"first_byte_delay": "1"}, "first_byte_delay"),
        ({"ping_interval": 0}, "ping_interval"),
        ({"default_output_tokens": 0}, "default_output_tokens"),
        ({"default_output_tokens": 1.0}, "default_output_tokens"),
        ({"log_size": True}, "log_size"),
        ({"formats": ()}, "formats"),
        ({"keys": []}, "keys"),
        ({"keys": {""}}, "keys"),
        ({"keys": [1]}, "keys"),
    ],
)
def test_settings_out_of_range_are_refused(fields: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        MockProvider(**fields)


def test_one_key_may_be_given_as_it_is() -> None:
    assert ask(MockProvider(keys="test-key")).status == 200
    with pytest.raises(ValueError, match="keys"):
        MockProvider().rotate_keys([])


# --- any bytes --------------------------------------------------------------------------------------------------------


@given(st.data(), st.booleans())
def test_any_split_of_a_request_gives_the_same_answer(data: st.DataObject, stream: bool) -> None:
    request = chat("grün", stream=stream, headers=[("x-more", "y")])
    cuts = sorted(data.draw(st.lists(st.integers(1, len(request) - 1), max_size=8)))
    pieces = [request[a:b] for a, b in zip([0, *cuts], [*cuts, len(request)], strict=True) if a < b]
    whole, split = MockProvider(seed=1), MockProvider(seed=1)
    assert play(split.connection(), *pieces).data == play(whole.connection(), request).data
    assert split.log == whole.log


def test_even_byte_by_byte() -> None:
    request = chat("hello")
    pieces = [request[at : at + 1] for at in range(len(request))]
    assert play(MockProvider().connection(), *pieces).data == play(MockProvider().connection(), request).data


LINES = st.sampled_from(
    [
        *(b"POST /v1/chat/completions HTTP/1.1\r\n", b"GET /v1/models HTTP/1.1\r\n", b"CONNECT a:1 HTTP/1.1\r\n", b"\r\n"),
        *(b"Host: a\r\n", b"Content-Length: 2\r\n", b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n"),
        *(
            b"Upgrade: websocket\r\nConnection: upgrade\r\n",
            b"Authorization: Bearer \xff\r\n",
            b"{}",
            b"2\r\n{}\r\n0\r\n\r\n",
        ),
        *(
            b"HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n",
            b"",
            chat(),
            chat(version="1.0"),
            post(b'{"model":"m","messages":[{"role":"user"}]}'),
        ),
    ]
)


@given(st.lists(st.one_of(LINES, st.binary(max_size=40)), max_size=12), st.booleans())
def test_whatever_a_client_sends_nothing_is_raised_and_nothing_is_left(pieces: list[bytes], eagerly: bool) -> None:
    provider = MockProvider(default_output_tokens=2, token_delay=0.5)
    connection = provider.connection()
    for step, piece in enumerate(pieces):
        connection.receive_data(piece, float(step), UNIX)
        if eagerly:
            connection.actions(float(step))
    watch(connection, at=50.0)
    connection.connection_lost(60.0)
    assert provider.active == provider.connections_open == 0
    assert all(record.outcome is not None for record in provider.log)
