"""The mock provider over HTTP/2, as a machine: many requests on one connection, in virtual time and without a socket."""

from __future__ import annotations

import gc
import json
import sys
from typing import Any, ClassVar
from weakref import WeakSet

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from mock_client import UNIX, ask, chat, play, watch
from mock_http2_client import Client, Got, ask2, body_of, fields_of

from sansio.simulation import (
    Close,
    Fault,
    FaultScript,
    MockProvider,
    NeverRespond,
    OversizedEvent,
    Reset,
    Scene,
    Send,
    SlowFirstByte,
    SlowTokens,
    expected_text,
)
from sansio.simulation.provider.mock_exchange import HTTP2_PREFACE, MAX_BODY_BYTES
from sansio.simulation.provider.response_plan import Data, Hangup, Head, Kind, Parts, Pause, Raw

TOKENS = 5
WHOLE = expected_text("hello", TOKENS)


def meet(fault: Fault | None, *, delay: float = 0.0, until: float = 1000.0, **more: Any) -> Got:
    """One request that meets ``fault``."""
    provider = MockProvider(faults=FaultScript([fault]), default_output_tokens=TOKENS, token_delay=delay)
    return ask2(provider, until=until, **more)


def outcomes(provider: MockProvider) -> list[str | None]:
    return [record.outcome for record in provider.log]


# --- a good answer ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_is_the_same_as_over_http_1(stream: bool) -> None:
    got, seen = ask2(MockProvider(seed=7), stream=stream), ask(MockProvider(seed=7), stream=stream)
    assert (got.status, got.body, got.complete) == (seen.status, seen.body, True)
    seen.headers.pop("transfer-encoding", None)
    assert got.headers == seen.headers


def test_each_event_is_a_frame_at_its_time() -> None:
    got = ask2(MockProvider(first_byte_delay=2.0, token_delay=0.5, default_output_tokens=3), at=10.0)
    assert [at for at, _ in got.sent] == [12.0, 12.5, 13.0, 13.5, 13.5, 13.5]
    assert got.sent[-1] == (13.5, b"data: [DONE]\n\n") and got.ended_at == 13.5


def test_the_log_says_what_was_spoken() -> None:
    provider = MockProvider(keys={"test-key"})
    ask2(provider, headers=[("x-trace", "7"), ("cookie", "c")])
    ask(provider)
    ask(provider, version="1.0")
    play(provider.connection(), b"nonsense\r\n\r\n")
    assert [record.http_version for record in provider.log] == ["2", "1.1", "1.0", ""]
    record = provider.log[0]
    assert (record.method, record.path, record.prompt, record.key_ok) == ("POST", "/v1/chat/completions", "hello", True)
    assert record.headers == (("host", "mock"), ("x-trace", "7"))
    assert record.body == json.loads(body_of())


def test_a_host_field_of_the_clients_own_is_kept() -> None:
    provider = MockProvider()
    named = [(":method", "POST"), (":scheme", "http"), (":path", "/v1/chat/completions"), ("host", "mine")]
    for headers in (named, [*fields_of(key=None), ("host", "mock")]):
        client = Client(provider)
        client.send(body_of(), headers=headers)
        client.run()
    assert [record.headers for record in provider.log] == [(("host", "mine"),), (("host", "mock"),)]


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (body_of(), fields_of(path="/v1/none"), 404),
        (body_of(), fields_of(method="PUT"), 405),
        (body_of(), fields_of(key="wrong"), 401),
        (b"{", fields_of(), 400),
        (b"", fields_of(), 400),
        (b"", fields_of(path="/v1/models", method="GET"), 200),
        (b"x" * (MAX_BODY_BYTES + 1), fields_of(), 413),
        (b"x" * (MAX_BODY_BYTES + 70_000), fields_of(), 413),
        (b"x" * MAX_BODY_BYTES, fields_of(), 400),
    ],
    ids=["path", "method", "key", "json", "empty", "models", "large", "larger", "just not too large"],
)  # fmt: skip
def test_what_is_wrong_is_said(body: bytes, headers: list[tuple[str, str]], status: int) -> None:
    client = Client(MockProvider(keys={"test-key"}))
    refused = client.send(body, headers=headers)
    after = client.ask()
    client.run()
    assert (client.got[refused].status, client.got[refused].complete) == (status, True)
    assert client.got[after].text == expected_text("hello"), "a wrong request does not cost the connection"


def test_a_head_request_gets_no_body() -> None:
    client = Client(MockProvider())
    stream_id = client.send(b"", headers=fields_of(method="HEAD"))
    got = client.run().got[stream_id]
    assert (got.status, got.body, got.complete) == (405, b"", True) and got.headers["content-length"] != "0"


def test_a_client_that_waits_is_told_to_go_on() -> None:
    client = Client(MockProvider())
    stream_id = client.send(None, headers=[*fields_of(), ("expect", "100-continue")])
    assert client.run().got[stream_id].informed == ["100"]
    client.h2.send_data(stream_id, body_of(), end_stream=True)
    assert client.run().got[stream_id].text == expected_text("hello")


def test_trailers_of_a_request_are_read_and_ignored() -> None:
    client = Client(MockProvider())
    stream_id = client.send(None)
    client.h2.send_data(stream_id, body_of())
    client.h2.send_headers(stream_id, [("x-sum", "1")], end_stream=True)
    assert client.run().got[stream_id].text == expected_text("hello")


# --- many at once -----------------------------------------------------------------------------------------------------


def test_answers_take_turns_frame_by_frame() -> None:
    client = Client(MockProvider(default_output_tokens=3))
    ids = [client.ask(prompt) for prompt in ("a", "b", "c")]
    client.run()
    assert ids == [1, 3, 5] and client.order == [1, 3, 5] * 6
    assert [client.got[at].text for at in ids] == [expected_text(prompt, 3) for prompt in ("a", "b", "c")]


def test_each_stream_has_a_clock_of_its_own() -> None:
    provider = MockProvider(faults=FaultScript([SlowFirstByte(9.0), SlowFirstByte(4.0), None]), token_delay=1.0)
    client = Client(provider)
    slow, middle = client.ask("slow #tokens=2"), client.ask("middle #tokens=2")
    client.turn(0.0)
    assert client.machine.deadline() == 4.0
    quick = client.ask("quick #tokens=2", at=2.5)
    client.run(at=2.5)
    times = {at: [when for when, _ in client.got[at].sent] for at in (slow, middle, quick)}
    assert times == {slow: [9, 10, 11, 11, 11], middle: [4, 5, 6, 6, 6], quick: [2.5, 3.5, 4.5, 4.5, 4.5]}
    assert client.machine.deadline() is None


def test_who_is_due_first_goes_first_however_late_it_is_polled() -> None:
    def bytes_of(polls: list[float]) -> bytes:
        client = Client(MockProvider(faults=FaultScript([SlowTokens(0.3), SlowTokens(0.2)])), reading=False)
        client.ask("one #tokens=3")
        client.ask("two #tokens=4")
        for now in polls:
            client.turn(now)
        return client.bytes

    punctual = bytes_of([at / 10 for at in range(20)])
    assert punctual == bytes_of([50.0]) == bytes_of([0.0, 0.5, 50.0])


def test_many_are_counted_as_many() -> None:
    provider = MockProvider(token_delay=1.0)
    client = Client(provider)
    for number in range(10):
        client.ask(f"number {number}")
    client.turn(0.5)
    assert (provider.active, provider.max_active, provider.connections_open, provider.connections_total) == (10, 10, 1, 1)
    client.run(at=0.5)
    assert (provider.active, provider.max_active, provider.connections_open) == (0, 10, 1)
    assert outcomes(provider) == ["completed"] * 10


def test_the_limit_is_announced_and_a_stream_too_many_is_refused_alone() -> None:
    provider = MockProvider(max_concurrent_streams=2, token_delay=1.0)
    client = Client(provider)
    first, second, third = client.ask("first"), client.ask("second"), client.ask("third")
    client.turn(0.0)
    assert client.h2.remote_settings.max_concurrent_streams == 2
    assert (client.got[third].end, client.got[third].code) == ("reset", ErrorCodes.REFUSED_STREAM)
    client.run()
    assert client.got[first].complete and client.got[second].complete and provider.requests_total == 2
    assert ask2(provider).complete
    fourth = client.ask("fourth", at=99.0)
    assert client.run(at=99.0).got[fourth].complete, "the others are done, so there is room again"


def test_a_hundred_are_the_default() -> None:
    client = Client(MockProvider())
    client.turn(0.0)
    assert client.h2.remote_settings.max_concurrent_streams == 100
    with pytest.raises(ValueError, match="max_concurrent_streams"):
        MockProvider(max_concurrent_streams=0)


# --- flow control -----------------------------------------------------------------------------------------------------


def test_a_stream_without_window_stands_still_and_the_others_go_on() -> None:
    client = Client(MockProvider(default_output_tokens=1000), reading=False)
    client.open_window(None, 10_000_000)
    full, other = client.ask("full"), client.ask("other")
    client.open_window(other, 10_000_000)
    client.turn(0.0)
    assert client.got[other].complete and len(client.got[full].body) == 65_535
    assert client.machine.deadline() is None, "only the client can change that"
    client.open_window(full, 7)
    assert client.machine.deadline() is not None
    client.turn(1.0)
    assert len(client.got[full].body) == 65_542 and client.machine.deadline() is None
    client.open_window(full, 10_000_000)
    client.turn(2.0)
    assert client.got[full].text == expected_text("full", 1000)


def test_a_connection_without_window_stands_still_until_it_gets_some() -> None:
    client = Client(MockProvider(default_output_tokens=1000), reading=False)
    ids = [client.ask("one"), client.ask("two")]
    client.turn(0.0)
    assert sum(len(client.got[at].body) for at in ids) == 65_535
    for at in ids:
        client.open_window(at, 10_000_000)
    client.turn(1.0)
    assert sum(len(client.got[at].body) for at in ids) == 65_535 and client.machine.deadline() is None
    client.open_window(None, 10_000_000)
    client.turn(2.0)
    assert [client.got[at].text for at in ids] == [expected_text("one", 1000), expected_text("two", 1000)]


def test_a_larger_window_for_all_streams_wakes_them() -> None:
    client = Client(MockProvider(), reading=False)
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 100})
    stream_id = client.ask()
    client.turn(0.0)
    assert len(client.got[stream_id].body) == 100
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
    client.turn(0.0)
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 50})  # 50 below what was sent: the window is negative
    client.turn(0.0)
    assert len(client.got[stream_id].body) == 100
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1_000_000})
    client.turn(0.0)
    assert client.got[stream_id].text == expected_text("hello")


def test_an_answer_without_end_is_drawn_only_as_it_is_taken() -> None:
    client = Client(MockProvider(faults=FaultScript([OversizedEvent(10**12)])), reading=False)
    stream_id = client.ask()
    client.turn(0.0)
    assert len(client.got[stream_id].body) == 65_535 and client.machine.deadline() is None
    client.reset(stream_id)
    assert outcomes(client.provider) == ["client_left"]


def test_what_waits_for_window_keeps_to_no_frame_larger_than_allowed() -> None:
    client = Client(MockProvider())
    stream_id = client.ask("#tokens=20000", stream=False)
    got = client.run().got[stream_id]
    assert max(len(data) for _, data in got.sent) == 16_384 and got.json["usage"]["completion_tokens"] == 20_000


def test_a_writer_takes_as_much_as_it_likes() -> None:
    machine = MockProvider().connection()
    client = Client(MockProvider(), connection=machine)
    client.ask("one")
    client.ask("two")
    pieces = []
    while machine.deadline() is not None:
        (send,) = machine.actions(0.0, max_bytes=100)
        assert isinstance(send, Send)
        pieces.append(send.data)
        assert machine.actions(0.0, max_bytes=0) == []
    assert len(pieces) > 40 and max(map(len, pieces[1:])) < 1000
    for piece in pieces:
        client.take(piece, 0.0)
    assert [client.got[at].text for at in (1, 3)] == [expected_text("one"), expected_text("two")]


def test_a_client_that_makes_it_talk_and_does_not_read_is_cut_off() -> None:
    provider = MockProvider(faults=FaultScript([NeverRespond()]))
    client = Client(provider)
    client.ask()
    ping = b"\0\0\x08\x06\0\0\0\0\0" + b"12345678"
    for _ in range(70):
        client.machine.receive_data(ping * 1000, 0.0, UNIX)
    *_, last = client.machine.actions(0.0)
    assert last == Reset() and client.machine.closed
    assert (outcomes(provider), provider.connections_open) == (["cut_off"], 0)


# --- ends -------------------------------------------------------------------------------------------------------------


def test_a_client_that_resets_a_stream_has_left_it() -> None:
    provider = MockProvider(token_delay=1.0)
    client = Client(provider)
    left, kept = client.ask("left"), client.ask("kept")
    client.run(until=3.0)
    client.reset(left, at=3.5)
    client.run(at=3.5)
    assert outcomes(provider) == ["client_left", "completed"] and provider.log[0].ended_at == 3.5
    assert len(client.got[left].deltas) == 3 and client.got[kept].text == expected_text("kept")


def test_a_stream_left_before_its_request_was_whole_is_no_request() -> None:
    provider = MockProvider()
    client = Client(provider)
    client.reset(client.send(None))
    client.ask()
    client.run()
    assert provider.requests_total == 1 and outcomes(provider) == ["completed"]


@pytest.mark.parametrize("how", ["eof", "lost", "goaway", "bad frame"])
def test_the_end_of_a_connection_ends_everything_on_it(how: str) -> None:
    provider = MockProvider(token_delay=1.0)
    client = Client(provider)
    client.ask("one")
    client.ask("two")
    client.send(None)
    client.run(until=2.0)
    if how == "lost":
        client.machine.connection_lost(2.5)
    else:
        goaway = b"\0\0\x08\x07\0\0\0\0\0" + bytes(8)
        data = {"eof": b"", "goaway": goaway, "bad frame": b"\0\0\0\0\0\0\0\0\0"}[how]
        client.machine.receive_data(data, 2.5, UNIX)
    ended = "cut_off" if how == "bad frame" else "client_left"
    assert [(r.outcome, r.ended_at) for r in provider.log] == [(ended, 2.5)] * 2
    assert (provider.active, provider.connections_open) == (0, 0)
    seen = client.machine.actions(2.5)
    assert seen[-1:] == ([] if how == "lost" else [Close()])
    assert client.machine.closed and client.machine.deadline() is None
    client.machine.receive_data(b"x", 3.0, UNIX)
    client.machine.connection_lost(3.0)
    assert client.machine.actions(99.0) == [] and provider.connections_open == 0


def test_a_frame_too_large_is_refused_at_its_head() -> None:
    client = Client(MockProvider())
    client.turn(0.0)
    client.machine.receive_data(b"\0\x40\x01\0\0\0\0\0\x01", 0.0, UNIX)
    client.run()
    assert (client.goaway, client.end) == ((0, ErrorCodes.FRAME_SIZE_ERROR), "close")


def test_losing_a_connection_forgets_what_was_to_be_sent() -> None:
    machine = MockProvider().connection("h2")
    machine.connection_lost(0.0)
    assert machine.deadline() is None and machine.actions(0.0) == [] and machine.closed


def test_a_close_is_still_to_be_carried_out() -> None:
    machine = MockProvider().connection("h2")
    machine.receive_data(b"", 0.0, UNIX)
    assert not machine.closed and machine.deadline() == 0.0
    machine.actions(0.0)
    assert machine.closed


class HangUpLater(Fault):
    """A whole answer, and a second later the end of the connection."""

    def bend(self, parts: Parts, scene: Scene) -> Parts:
        yield from parts
        yield Pause(1.0)
        yield Hangup(reset=True)


def test_after_its_end_an_exchange_can_only_tear_the_connection() -> None:
    client = Client(MockProvider(faults=FaultScript([HangUpLater()])))
    stream_id = client.ask()
    client.run()
    assert client.got[stream_id].complete and (client.end, client.ended_at) == ("reset", 1.0)


class Bare(Fault):
    """A plan that just stops, without an end."""

    def bend(self, parts: Parts, scene: Scene) -> Parts:
        yield Head(200, (("connection", "close"), ("upgrade", "x"), ("x-a", "b")))
        yield Data(b"x", Kind.FILLER)


def test_a_plan_without_an_end_is_torn() -> None:
    got = meet(Bare())
    assert (got.status, got.body, got.code) == (200, b"x", ErrorCodes.INTERNAL_ERROR)
    assert got.headers == {"x-a": "b"}, "fields about the connection do not exist here (RFC 9113, section 8.2.2)"


class Held:
    """Something that can be looked for."""


class Kept(Fault):
    """A long silence, with something in hand that shows whether the answer is still kept."""

    alive: ClassVar[WeakSet[Held]] = WeakSet()

    def bend(self, parts: Parts, scene: Scene) -> Parts:
        held = Held()
        self.alive.add(held)
        yield Pause(1000.0)
        yield Raw(repr(held).encode())


def test_who_waits_for_ever_has_no_deadline() -> None:
    client = Client(MockProvider(faults=FaultScript([NeverRespond()])))
    client.ask()
    client.turn(0.0)
    assert client.machine.deadline() is None


def test_what_is_forgotten_takes_no_room() -> None:
    """Streams that wait long and are left: their places in the schedule go with them."""
    client = Client(MockProvider(faults=FaultScript([SlowFirstByte(500.0)], then=Kept())))
    client.ask("due before them all")
    for _ in range(1000):
        left = client.ask()
        client.turn(0.0)
        client.reset(left)
    assert client.provider.requests_total == 1001
    gc.collect()
    assert len(Kept.alive) < 100


# --- which protocol ---------------------------------------------------------------------------------------------------


def test_alpn_says_it_at_once() -> None:
    client = Client(MockProvider(), connection=MockProvider().connection("h2"))
    assert client.machine.deadline() is not None
    client.turn(0.0)
    assert client.bytes.startswith(b"\0\0"), "SETTINGS, before the client has said a word"
    over = client.ask()
    assert client.run().got[over].complete


def test_who_agreed_on_one_and_speaks_the_other_is_told() -> None:
    seen = play(MockProvider().connection("http/1.1"), HTTP2_PREFACE)
    assert seen.data.startswith(b"HTTP/1.1 4") and seen.end == "close"
    provider = MockProvider()
    machine = provider.connection("h2")
    machine.receive_data(chat(), 0.0, UNIX)
    assert machine.actions(0.0)[-1] == Close() and machine.closed
    assert (provider.requests_total, provider.connections_open) == (0, 0)


@pytest.mark.parametrize("cut", range(1, len(HTTP2_PREFACE) + 1))
def test_what_only_begins_like_the_preface_is_http_1(cut: int) -> None:
    data = HTTP2_PREFACE[: cut - 1] + b"!" + b"\r\n\r\n"
    seen = [
        play(MockProvider().connection(), *pieces) for pieces in ([data], [data[:1], data[1:]], [data[:cut], data[cut:]])
    ]
    assert seen[0].data.startswith(b"HTTP/1.1 4") and seen[0].data == seen[1].data == seen[2].data


def test_until_it_is_known_nothing_is_said() -> None:
    provider = MockProvider()
    machine = provider.connection()
    machine.receive_data(HTTP2_PREFACE[:-1], 0.0, UNIX)
    assert machine.deadline() is None and not machine.closed
    machine.receive_data(b"", 1.0, UNIX)
    assert watch(machine, at=1.0).end == "close" and provider.connections_open == 0


def test_without_the_library_it_is_http_1_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sansio.simulation.provider.mock_http2", None)
    provider = MockProvider()
    assert play(provider.connection(), HTTP2_PREFACE).data.startswith(b"HTTP/1.1 4")
    assert ask(provider).complete
    with pytest.raises(ImportError):
        provider.connection("h2")
    assert provider.connections_open == 1
