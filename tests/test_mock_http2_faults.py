"""Each fault of the mock provider over HTTP/2: what it does to its stream, to the neighbours, to the connection."""

from __future__ import annotations

from typing import Any

import pytest
from h2.errors import ErrorCodes
from hypothesis import given
from hypothesis import strategies as st
from mock_client import ask, chat, play
from mock_http2_client import FRAMED, Client, Got, ask2, body_of

from sansio.simulation import (
    Break,
    CloseOnReuse,
    CloseWithoutResponse,
    DripBytes,
    Fault,
    FaultScript,
    GarbageBytes,
    GoAway,
    MockProvider,
    NeverRespond,
    OversizedHeader,
    PingsOnly,
    ProviderLimits,
    RefuseStream,
    ResetAtByte,
    Scene,
    SlowFirstByte,
    StallAfterChunks,
    StallAfterHead,
    Status,
    expected_text,
)
from sansio.simulation.provider.faults import FAULTS, GARBAGE
from sansio.simulation.provider.response_plan import Parts, Pause

TOKENS = 5
WHOLE = expected_text("hello", TOKENS)


def meet(fault: Fault | None, *, delay: float = 0.0, until: float = 1000.0, **more: Any) -> Got:
    """One request that meets ``fault``."""
    provider = MockProvider(faults=FaultScript([fault]), default_output_tokens=TOKENS, token_delay=delay)
    return ask2(provider, until=until, **more)


def outcomes(provider: MockProvider) -> list[str | None]:
    return [record.outcome for record in provider.log]


# --- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fault", FRAMED, ids=repr)
def test_another_answer_is_the_same_as_over_http_1(fault: Fault, stream: bool) -> None:
    def provider() -> MockProvider:
        return MockProvider(faults=FaultScript([fault]), default_output_tokens=TOKENS)

    got, seen = ask2(provider(), stream=stream), ask(provider(), stream=stream)
    assert (got.status, got.body, got.complete) == (seen.status, seen.body, True)
    assert {**got.headers, "transfer-encoding": ""} == {**seen.headers, "transfer-encoding": ""}
    if not isinstance(fault, DripBytes):
        assert got.ended_at == seen.sent[-1][0]


@pytest.mark.parametrize("fault", [NeverRespond(), StallAfterHead(), StallAfterChunks(2), PingsOnly(10.0)], ids=repr)
def test_an_endless_fault_is_endless(fault: Fault) -> None:
    got = meet(fault, until=35.0)
    assert got.end == "open" and got.status == (None if isinstance(fault, NeverRespond) else 200)
    assert got.deltas == {StallAfterChunks: ["[hello]", " w1"]}.get(type(fault), [])
    assert [at for at, _ in got.sent if at] == ([10.0, 20.0, 30.0] if isinstance(fault, PingsOnly) else [])


def test_bytes_that_drip_come_one_to_a_frame() -> None:
    got = meet(DripBytes(0.5), until=1e6)
    head = len(":status: 200\r\n" + "".join(f"{name}: {value}\r\n" for name, value in got.headers.items()))
    assert {len(data) for _, data in got.sent} == {1}
    assert [at for at, _ in got.sent] == [0.5 * (head + 1 + at) for at in range(len(got.body))] and got.text == WHOLE


@pytest.mark.parametrize(
    ("fault", "status", "pieces"),
    [
        (CloseWithoutResponse(), None, 0),
        (ResetAtByte(0), None, 0),
        (ResetAtByte(60), None, 0),
        (Break(0), 200, 0),
        (Break(2), 200, 2),
    ],
    ids=repr,
)
def test_a_torn_exchange_is_a_reset_stream_and_its_neighbours_go_on(fault: Fault, status: int | None, pieces: int) -> None:
    provider = MockProvider(faults=FaultScript([None, fault, None]), default_output_tokens=TOKENS)
    client = Client(provider)
    ids = [client.ask(), client.ask(), client.ask()]
    client.run()
    before, torn, after = (client.got[at] for at in ids)
    assert (torn.end, torn.code, torn.status) == ("reset", ErrorCodes.INTERNAL_ERROR, status)
    assert torn.text == "".join(["[hello]", " w1", " w2"][:pieces])
    assert before.text == after.text == WHOLE and client.end == "open" and client.goaway is None
    assert outcomes(provider) == ["completed", "faulted", "completed"]


def test_a_head_without_end_comes_at_once_and_is_the_clients_to_refuse() -> None:
    client = Client(MockProvider(faults=FaultScript([OversizedHeader()])))
    stream_id = client.ask()
    client.run()
    assert b"x" * 10_000 in client.bytes and len(client.bytes) > 1_048_576
    assert client.error is not None and client.got[stream_id].status is None


def test_a_break_leaves_half_a_piece() -> None:
    whole = meet(None)
    got = meet(Break(1))
    assert [data for _, data in got.sent[:2]] == [data for _, data in whole.sent[:2]]
    half = whole.sent[2][1]
    assert got.sent[2][1] == half[: (len(half) + 1) // 2] and len(got.sent) == 3
    unary = meet(Break(0), stream=False)
    assert 0 < len(unary.body) < int(unary.headers["content-length"]) and unary.end == "reset"


@given(st.integers(0, 2500))
def test_a_reset_leaves_exactly_so_many_bytes(byte: int) -> None:
    whole, got = meet(None), meet(ResetAtByte(byte))
    head = len(":status: 200\r\n" + "".join(f"{name}: {value}\r\n" for name, value in whole.headers.items()))
    if byte > head + len(whole.body):
        assert got == whole
    else:
        assert (got.end, got.code, got.complete) == ("reset", ErrorCodes.INTERNAL_ERROR, False)
        assert got.body == whole.body[: max(0, byte - head)]
        assert got.status == (200 if byte >= head else None)


def test_a_reset_in_a_slow_answer_comes_in_its_time() -> None:
    assert meet(ResetAtByte(900), delay=1.0).ended_at == 2.0
    assert meet(ResetAtByte(0), delay=1.0).ended_at == 0.0


@pytest.mark.parametrize("where", ["head", "body"])
def test_garbage_past_the_framing_costs_the_whole_connection(where: Any) -> None:
    script = FaultScript([None, GarbageBytes(where, 2)])
    provider = MockProvider(faults=script, default_output_tokens=TOKENS, token_delay=1.0)
    client = Client(provider)
    neighbour, struck = client.ask(), client.ask()
    client.run()
    assert client.error is not None and GARBAGE in client.bytes
    assert (client.end, client.ended_at) == ("close", 0.0 if where == "head" else 3.0)
    assert client.got[neighbour].end == client.got[struck].end == "open"
    assert client.got[struck].text == ("" if where == "head" else "[hello] w1")
    assert (outcomes(provider), provider.active, provider.connections_open) == (["cut_off", "faulted"], 0, 0)


def test_a_refused_stream_was_never_looked_at() -> None:
    provider = MockProvider(faults=FaultScript([RefuseStream()]), limits=ProviderLimits(10, 1000))
    client = Client(provider)
    refused, other = client.ask(), client.ask()
    client.run()
    assert (client.got[refused].code, client.got[refused].status) == (ErrorCodes.REFUSED_STREAM, None)
    assert client.got[other].complete and client.end == "open"
    assert (outcomes(provider), provider.log[0].output_tokens) == (["faulted", "completed"], 0)


def test_goaway_ends_the_connection_when_those_before_are_answered() -> None:
    provider = MockProvider(faults=FaultScript([None, SlowFirstByte(1.0), GoAway(), None]), token_delay=1.0)
    client = Client(provider)
    ids = [client.ask(f"#tokens={size}") for size in (2, 5, 1, 1)]
    client.turn(0.0)
    assert client.goaway == (3, ErrorCodes.NO_ERROR) and outcomes(provider)[2:] == ["faulted", "cut_off"]
    late = client.ask("late", at=0.5)
    client.run(at=0.5)
    assert (client.got[late].end, client.got[late].code) == ("reset", ErrorCodes.REFUSED_STREAM)
    assert [client.got[at].complete for at in ids] == [True, True, False, False]
    assert (client.end, client.ended_at) == ("close", 6.0)
    assert outcomes(provider) == ["completed", "faulted", "faulted", "cut_off"] and provider.active == 0


def test_goaway_on_the_first_request_leaves_nothing_to_wait_for() -> None:
    client = Client(MockProvider(faults=FaultScript([GoAway()])))
    client.ask()
    client.run()
    assert (client.goaway, client.end) == ((0, ErrorCodes.NO_ERROR), "close")
    assert client.provider.connections_open == 0


def test_what_still_comes_for_streams_after_a_goaway_is_ignored() -> None:
    provider = MockProvider(faults=FaultScript([SlowFirstByte(5.0), Late()]))
    client = Client(provider)
    answered, _, ended, left = client.ask(), client.ask(), client.send(None), client.send(None)
    client.run(until=1.0)
    assert client.goaway == (1, ErrorCodes.NO_ERROR)
    client.h2.send_data(ended, body_of(), end_stream=True)
    client.reset(left, at=2.0)
    client.run(at=2.0)
    assert client.got[answered].complete and (client.end, client.ended_at) == ("close", 5.0)
    assert outcomes(provider) == ["faulted", "faulted"]


def test_a_second_goaway_lowers_the_first() -> None:
    client = Client(MockProvider(faults=FaultScript([NeverRespond(), Late(), GoAway()])))
    for _ in range(3):
        client.ask()
    client.turn(0.0)
    assert client.goaway == (3, ErrorCodes.NO_ERROR)
    client.run()
    assert client.goaway == (1, ErrorCodes.NO_ERROR) and client.end == "open"
    assert outcomes(client.provider) == [None, "faulted", "faulted"]


class Late(GoAway):
    """A farewell that comes a second after the request."""

    def bend(self, parts: Parts, scene: Scene) -> Parts:
        yield Pause(1.0)
        yield from GoAway.bend(self, parts, scene)


@pytest.mark.parametrize("fault", [RefuseStream(), GoAway()], ids=repr)
def test_http_1_cannot_say_so_and_closes(fault: Fault) -> None:
    provider = MockProvider(faults=FaultScript([fault]))
    seen = ask(provider)
    assert (seen.data, seen.end, outcomes(provider)) == (b"", "close", ["faulted"])


def test_every_fault_is_played_here() -> None:
    here = {type(fault) for fault in FRAMED} | {
        NeverRespond,
        CloseWithoutResponse,
        Break,
        RefuseStream,
        GoAway,
        CloseOnReuse,
    }
    assert here == set(FAULTS) | {Fault}


# --- the race of a connection that is kept ----------------------------------------------------------------------------


@pytest.mark.parametrize(("reset", "end"), [(False, "close"), (True, "reset")])
def test_a_connection_is_closed_as_it_is_used_again(reset: bool, end: str) -> None:
    provider = MockProvider(faults=FaultScript([CloseOnReuse(reset), Status(500)]), limits=ProviderLimits(10, 1000))
    connection = provider.connection()
    assert play(connection, chat("first")).status == 200, "it waits for a connection that is used again"
    assert ask(provider).status == 200 and provider.faults.remaining == 2
    seen = play(connection, chat("second"), at=5.0)
    assert (seen.data, seen.end, connection.closed) == (b"", end, True)
    assert ask(provider).status == 500
    assert outcomes(provider) == ["completed", "completed", "faulted", "faulted"] and provider.log[2].output_tokens == 0


@pytest.mark.parametrize(("reset", "end"), [(False, "close"), (True, "reset")])
def test_a_connection_of_http_2_too_once_it_is_idle(reset: bool, end: str) -> None:
    provider = MockProvider(faults=FaultScript([CloseOnReuse(reset)]), token_delay=1.0)
    client = Client(provider)
    client.ask("first #tokens=5")
    client.turn(0.0)
    client.ask("second, beside the first #tokens=1", at=1.0)
    client.run(at=1.0)
    assert outcomes(provider) == ["completed", "completed"] and provider.faults.remaining == 1
    so_far = client.bytes
    client.ask("third", at=9.0)
    client.run(at=9.0)
    assert (client.bytes[len(so_far) :].replace(b"\0\0\0\x04\x01\0\0\0\0", b""), client.end) == (b"", end)
    assert (outcomes(provider)[2:], provider.connections_open) == (["faulted"], 0)


def test_where_it_waits_the_other_scripts_are_asked() -> None:
    script = FaultScript(then=CloseOnReuse(), otherwise=FaultScript([Status(500)]))
    connection = MockProvider(faults=script).connection()
    assert play(connection, chat()).status == 500
    assert play(connection, chat()).end == "close"


def test_it_may_be_one_of_the_other_scripts() -> None:
    script = FaultScript(then=Status(500), when="never", otherwise=FaultScript([CloseOnReuse()]))
    connection = MockProvider(faults=script).connection()
    assert [play(connection, chat()).end for _ in range(2)] == ["open", "close"]
