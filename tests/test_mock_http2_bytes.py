"""Any bytes, any split, any company: what may not change the answers of the mock provider over HTTP/2."""

from __future__ import annotations

from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes
from hypothesis import given, settings
from hypothesis import strategies as st
from mock_client import UNIX
from mock_http2_client import FRAMED, Client, Got, ask2, body_of, fields_of

from sansio.simulation import (
    Break,
    CloseOnReuse,
    CloseWithoutResponse,
    Fault,
    FaultScript,
    GoAway,
    MockConnection,
    MockProvider,
    NeverRespond,
    RefuseStream,
    ResetAtByte,
    Send,
    expected_text,
)
from sansio.simulation.provider.mock_exchange import HTTP2_PREFACE

TOKENS = 5
WHOLE = expected_text("hello", TOKENS)


def meet(fault: Fault | None, *, delay: float = 0.0, until: float = 1000.0, **more: Any) -> Got:
    """One request that meets ``fault``."""
    provider = MockProvider(faults=FaultScript([fault]), default_output_tokens=TOKENS, token_delay=delay)
    return ask2(provider, until=until, **more)


def outcomes(provider: MockProvider) -> list[str | None]:
    return [record.outcome for record in provider.log]


# --- any bytes --------------------------------------------------------------------------------------------------------


def requests(*prompts: str) -> bytes:
    """What a client sends that asks these things one after the other and hears nothing."""
    h2 = H2Connection(H2Configuration())
    h2.initiate_connection()
    for number, prompt in enumerate(prompts):
        h2.send_headers(2 * number + 1, fields_of())
        h2.send_data(2 * number + 1, body_of(prompt), end_stream=True)
    return h2.data_to_send()


def answer(pieces: list[bytes], alpn: Any = None, **settings: Any) -> tuple[bytes, list[Any], MockConnection]:
    """All that comes back, in one go at the end."""
    provider = MockProvider(seed=1, **settings)
    machine = provider.connection(alpn)
    for piece in pieces:
        machine.receive_data(piece, 0.0, UNIX)
    return watch_raw(machine), provider.log, machine


def watch_raw(machine: MockConnection) -> bytes:
    found, now = b"", 0.0
    while True:
        for action in machine.actions(now):
            found += action.data if isinstance(action, Send) else repr(action).encode()
        deadline = machine.deadline()
        if deadline is None or deadline > 1000:
            return found
        now = deadline


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    cuts = sorted(cut % len(data) for cut in cuts)
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a < b]


BROKEN = st.sampled_from(
    [
        b"",
        b"\0\0\0\0\0\0\0\0\0",  # DATA on stream 0
        b"\xff\xff\xff\0\0\0\0\0\x01",  # far too long
        b"\0\0\x04\x08\0\0\0\0\0\0\0\0\0",  # a window of nothing
        b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08",  # the first request is withdrawn
        b"\0\0\x08\x07\0\0\0\0\0" + bytes(8),  # GOAWAY
        b"\0\0\x08\x06\0\0\0\0\0pingping",
        b"\0\0\x01\x01\x04\0\0\0\x07\x82",  # a head with a method and nothing else
        b"garbage",
    ]
)


@given(BROKEN, st.lists(st.integers(1, 10_000), max_size=8), st.booleans())
def test_any_split_gives_the_same_answer(after: bytes, cuts: list[int], delayed: bool) -> None:
    data = requests("one", "grün") + after + requests("x")[len(HTTP2_PREFACE) :]
    pace: dict[str, Any] = {"default_output_tokens": 3, "token_delay": 0.5 if delayed else 0.0}
    whole, log, _ = answer([data], **pace)
    assert (whole, log) == answer(split(data, cuts), **pace)[:2]


def test_even_byte_by_byte() -> None:
    data = requests("one", "two")
    assert answer([data])[0] == answer([data[at : at + 1] for at in range(len(data))])[0]


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream_id.to_bytes(4, "big") + payload


HEADS = [b"\x83\x86\x44\x0a/v1/models\x41\x01a", b"\x82\x86\x84\x41\x01a"]
FRAME = st.builds(
    frame,
    st.integers(0, 11),
    st.sampled_from([0, 1, 4, 5, 8, 32, 0x2D, 255]),
    st.integers(0, 6),
    st.one_of(st.binary(max_size=20), st.sampled_from([*HEADS, body_of("hi"), bytes(4), bytes(8)])),
)


@given(
    st.lists(
        st.one_of(FRAME, st.binary(max_size=30), st.sampled_from([requests("a"), requests("a", "b")[24:]])), max_size=12
    ),
    st.booleans(),
    st.sampled_from([None, "h2"]),
    st.lists(st.sampled_from([*FRAMED, None, GoAway(), CloseOnReuse(), RefuseStream(), NeverRespond()]), max_size=4),
)
def test_whatever_a_client_sends_nothing_is_raised_and_nothing_is_left(
    pieces: list[bytes], eagerly: bool, alpn: Any, faults: list[Fault | None]
) -> None:
    provider = MockProvider(default_output_tokens=2, token_delay=0.5, faults=FaultScript(faults))
    machine = provider.connection(alpn)
    for step, piece in enumerate([HTTP2_PREFACE, *pieces]):
        machine.receive_data(piece, float(step), UNIX)
        if eagerly:
            machine.actions(float(step))
    watch_raw(machine)
    machine.connection_lost(2000.0)
    assert provider.active == provider.connections_open == 0
    assert all(record.outcome is not None for record in provider.log)
    assert machine.closed and machine.deadline() is None


@settings(max_examples=40)
@given(
    st.lists(st.sampled_from([*FRAMED, None, Break(2), ResetAtByte(300), CloseWithoutResponse()]), min_size=1, max_size=6),
    st.integers(200, 3000),
)
def test_however_many_share_a_connection_each_gets_what_it_would_get_alone(faults: list[Any], at_once: int) -> None:
    """Also for a writer who takes a little at a time, and with a window that is always short."""

    def provider() -> MockProvider:
        return MockProvider(faults=FaultScript(faults), default_output_tokens=3, token_delay=0.1, seed=5)

    alone, together = Client(provider()), Client(provider())
    together.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: at_once})
    for number in range(len(faults)):
        alone.ask(f"number {number}")
        alone.run(until=10_000.0)
    for number in range(len(faults)):
        together.ask(f"number {number}")
    together.run(until=10_000.0)
    for stream_id, got in together.got.items():
        one = alone.got[stream_id]
        assert (got.status, got.body, got.end, got.code) == (one.status, one.body, one.end, one.code)
    assert outcomes(together.provider) == outcomes(alone.provider)
