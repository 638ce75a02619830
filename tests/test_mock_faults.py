"""Each fault of the mock provider: what it does to one response, in virtual time."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mock_client import UNIX, Seen, ask, chat, play

from sansio.simulation import (
    Break,
    CloseWithoutResponse,
    DoneWithoutFinish,
    DripBytes,
    ErrorFrame,
    Fault,
    FaultScript,
    GarbageBytes,
    MockProvider,
    NeverRespond,
    OpenAiChat,
    OversizedEvent,
    OversizedHeader,
    PingsOnly,
    ResetAtByte,
    RotateKeys,
    Scene,
    SlowFirstByte,
    SlowTokens,
    StallAfterChunks,
    StallAfterHead,
    Status,
    Throttle,
    Truncate,
    WrongContentType,
    expected_text,
)
from sansio.simulation.provider.faults import GARBAGE
from sansio.simulation.provider.response_plan import Data, End, Head, Kind, Part, until_chunk

TOKENS = 5
WHOLE = expected_text("hello", TOKENS)
PIECES = ["[hello]", " w1", " w2", " w3", " w4"]


def meet(fault: Fault | None, *, at: float = 0.0, until: float = 1000.0, delay: float = 0.0, **fields: Any) -> Seen:
    """One request that meets ``fault``."""
    provider = MockProvider(faults=FaultScript([fault]), default_output_tokens=TOKENS, token_delay=delay)
    return ask(provider, at=at, until=until, **fields)


def content_times(seen: Seen) -> list[float]:
    return [at for at, data in seen.sent if b'"content":' in data and b'"role"' not in data]


# --- other answers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "headers"),
    [
        (Throttle(), {}),
        (Throttle("7"), {"retry-after": "7"}),
        (Throttle("1.5"), {"retry-after": "1.5"}),
        (Throttle("soon"), {"retry-after": "soon"}),
        (Throttle("-1"), {"retry-after": "-1"}),
        (Throttle(""), {"retry-after": ""}),
        (Throttle(retry_after_ms="250"), {"retry-after-ms": "250"}),
        (Throttle("2", "1500"), {"retry-after": "2", "retry-after-ms": "1500"}),
        (Throttle(retry_date=5), {"retry-after": "Tue, 14 Nov 2023 22:13:25 GMT"}),
        (Throttle(retry_date=5, date_form="rfc850"), {"retry-after": "Tuesday, 14-Nov-23 22:13:25 GMT"}),
        (Throttle(retry_date=5, date_form="asctime"), {"retry-after": "Tue Nov 14 22:13:25 2023"}),
        (Throttle(reset="6m0s"), {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}),
        (Throttle(should_retry=False), {"x-should-retry": "false"}),
        (Throttle(should_retry=True), {"x-should-retry": "true"}),
    ],
)
def test_a_429_says_when_to_come_back_in_every_form(fault: Throttle, headers: dict[str, str]) -> None:
    seen = meet(fault)
    hints = (
        "retry-after",
        "retry-after-ms",
        "x-should-retry",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests",
    )
    assert seen.status == 429 and seen.complete
    assert {name: value for name, value in seen.headers.items() if name in hints} == headers
    assert seen.json["error"]["code"] == "rate_limit_exceeded"
    assert seen.headers["content-type"] == "application/json" and seen.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(
    ("body", "content_type", "fragment"),
    [
        ("rate_limit", "application/json", b'"code":"rate_limit_exceeded"'),
        ("too_large", "application/json", b"Request too large"),
        ("slow_down", "application/json", b'"code":"slow_down"'),
        ("quota", "application/json", b'"type":"insufficient_quota"'),
        ("html", "text/html", b"<!DOCTYPE html>"),
        ("text", "text/plain", b"Too Many Requests"),
        ("empty", "text/plain", b""),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_a_429_has_many_bodies(body: Any, content_type: str, fragment: bytes, stream: bool) -> None:
    seen = meet(Throttle(body=body), stream=stream)
    assert (seen.status, seen.headers["content-type"]) == (429, content_type)
    assert fragment in seen.body and len(seen.body) == int(seen.headers["content-length"])


@pytest.mark.parametrize(
    ("fault", "status", "content_type", "body"),
    [
        (Status(500, b"\xff"), 500, "application/json", b"\xff"),
        (Status(529, "no \u20ac", "text/plain"), 529, "text/plain", "no \u20ac".encode()),
        (Status(302, "", headers=(("location", "/x"),)), 302, "application/json", b""),
        (Status(204), 204, None, b""),
        (Status(304, "ignored"), 304, None, b""),
    ],
)
def test_any_status(fault: Status, status: int, content_type: str | None, body: bytes) -> None:
    seen = meet(fault)
    assert (seen.status, seen.headers.get("content-type"), seen.body, seen.complete) == (status, content_type, body, True)
    assert all(seen.headers[name] == value for name, value in fault.headers)


def test_a_status_has_the_providers_own_error_body() -> None:
    assert meet(Status(503)).json["error"]["type"] == "server_error"
    assert meet(Status(418)).json["error"]["type"] == "invalid_request_error"


def test_a_page_of_a_proxy() -> None:
    seen = meet(Status.html())
    assert (seen.status, seen.headers["content-type"]) == (502, "text/html") and b"<h1>502" in seen.body
    assert meet(Status.html(504)).status == 504


def test_other_answers_come_when_the_head_was_due() -> None:
    provider = MockProvider(faults=FaultScript([Status(500)]), first_byte_delay=3.0)
    assert [at for at, _ in ask(provider).sent] == [3.0]


# --- slowness ---------------------------------------------------------------------------------------------------------


def test_a_slow_first_byte() -> None:
    seen = meet(SlowFirstByte(7.0), at=1.0)
    assert [at for at, _ in seen.sent] == [8.0] and seen.text == WHOLE


def test_never() -> None:
    seen = meet(NeverRespond(), until=math.inf)
    assert (seen.sent, seen.end) == ([], "open")


def test_a_stall_after_the_head() -> None:
    seen = meet(StallAfterHead(9.0))
    assert [at for at, _ in seen.sent] == [0.0, 9.0] and b"data:" not in seen.sent[0][1] and seen.text == WHOLE
    endless = meet(StallAfterHead(), until=math.inf)
    assert (endless.status, endless.body, endless.end) == (200, b"", "open")


@pytest.mark.parametrize("chunks", [0, 1, 3, 5, 99])
def test_a_stall_between_chunks(chunks: int) -> None:
    seen = meet(StallAfterChunks(chunks, 9.0))
    first, second = seen.sent
    assert (first[0], second[0], seen.text) == (0.0, 9.0, WHOLE)
    endless = meet(StallAfterChunks(chunks), until=math.inf)
    assert (endless.deltas, endless.finish, endless.end) == (PIECES[:chunks], None, "open")


def test_only_pings() -> None:
    seen = meet(PingsOnly(10.0), until=35.0)
    assert [at for at, _ in seen.sent] == [0.0, 10.0, 20.0, 30.0] and seen.frames == [":"] * 3
    counted = meet(PingsOnly(10.0, 2))
    assert [at for at, _ in counted.sent] == [0.0, 10.0, 20.0] and counted.frames[:2] == [":", ":"]
    assert counted.text == WHOLE


def test_a_unary_answer_is_preceded_by_line_breaks_instead() -> None:
    seen = meet(PingsOnly(10.0, 2), stream=False)
    assert seen.body.startswith(b"\n\n{") and seen.complete and seen.json["choices"][0]["message"]["content"] == WHOLE


def test_slow_tokens() -> None:
    assert content_times(meet(SlowTokens(2.0))) == [2.0, 4.0, 6.0, 8.0, 10.0]
    unary = meet(SlowTokens(2.0), stream=False)
    assert [at for at, _ in unary.sent] == [0.0, 2.0] and unary.complete


@pytest.mark.parametrize("stream", [True, False])
def test_bytes_that_drip(stream: bool) -> None:
    seen, whole = meet(DripBytes(0.5), stream=stream, until=math.inf), meet(None, stream=stream)
    assert [(at, len(data)) for at, data in seen.sent] == [(0.5 * (n + 1), 1) for n in range(len(whole.data))]
    assert seen.data == whole.data


def test_dripping_keeps_the_pauses_of_the_answer() -> None:
    assert meet(DripBytes(0.0), delay=1.0).sent == meet(None, delay=1.0).sent


# --- ends that come too early -----------------------------------------------------------------------------------------


def test_a_close_without_an_answer() -> None:
    seen = meet(CloseWithoutResponse())
    assert (seen.sent, seen.end) == ([], "close")


@pytest.mark.parametrize("stream", [True, False])
def test_a_reset_at_any_byte(stream: bool) -> None:
    whole = meet(None, stream=stream).data
    for byte in {0, 1, 2, 17, len(whole) // 2, len(whole) - 1, len(whole)}:
        seen = meet(ResetAtByte(byte), stream=stream)
        assert (seen.data, seen.end) == (whole[:byte], "reset")
    past = meet(ResetAtByte(len(whole) + 1), stream=stream)
    assert (past.data, past.end) == (whole, "open")


@given(st.integers(0, 3000))
def test_a_reset_leaves_exactly_so_many_bytes(byte: int) -> None:
    whole = meet(None).data
    seen = meet(ResetAtByte(byte))
    assert (seen.data, seen.end) == (whole[:byte], "reset" if byte <= len(whole) else "open")


def test_a_reset_in_a_slow_answer_comes_in_its_time() -> None:
    seen = meet(ResetAtByte(900), delay=1.0)
    assert seen.ended_at is not None and seen.ended_at >= 1.0 and len(seen.data) == 900
    assert meet(ResetAtByte(0), delay=1.0).ended_at == 0.0


@pytest.mark.parametrize("chunks", [0, 1, 3, 5, 99])
def test_a_clean_end_too_early(chunks: int) -> None:
    seen = meet(Truncate(chunks), stream_options={"include_usage": True})
    assert seen.complete and seen.end == "open", "the framing is whole"
    assert (seen.deltas, seen.finish) == (PIECES[:chunks], None)
    assert b"[DONE]" not in seen.body and b"prompt_tokens" not in seen.body


def test_a_unary_answer_is_cut_in_half() -> None:
    seen, whole = meet(Truncate(), stream=False), meet(None, stream=False)
    assert seen.complete and seen.body == whole.body[: len(whole.body) // 2]


@pytest.mark.parametrize("chunks", [0, 1, 3, 5, 99])
def test_a_break_within_the_body(chunks: int) -> None:
    seen = meet(Break(chunks))
    assert seen.end == "close" and not seen.complete
    assert (seen.deltas, seen.finish) == (PIECES[:chunks], None)
    assert not seen.data.endswith(b"\r\n"), "torn in the middle of a chunk"


def test_a_break_within_a_unary_body() -> None:
    seen = meet(Break(0), stream=False)
    assert seen.end == "close" and not seen.complete and 0 < len(seen.body) < int(seen.headers["content-length"])


def test_done_without_a_finish() -> None:
    seen = meet(DoneWithoutFinish(), stream_options={"include_usage": True})
    assert (seen.text, seen.finish, seen.frames[-1], seen.complete) == (WHOLE, None, "[DONE]", True)
    assert b"prompt_tokens" not in seen.body
    assert meet(DoneWithoutFinish(), stream=False).data == meet(None, stream=False).data


@pytest.mark.parametrize("chunks", [0, 1, 3, 5, 99])
def test_an_error_within_the_stream(chunks: int) -> None:
    error = {"message": "overloaded", "type": "server_error", "code": None}
    seen = meet(ErrorFrame(chunks, error))
    assert (seen.deltas, seen.frames[-1], seen.complete) == (PIECES[:chunks], {"error": error}, True)
    done = meet(ErrorFrame(chunks, error, then_done=True))
    assert done.frames[-2:] == [{"error": error}, "[DONE]"]


def test_an_error_in_a_unary_200() -> None:
    seen = meet(ErrorFrame(), stream=False)
    assert seen.status == 200 and seen.complete and seen.json["error"]["type"] == "server_error"


# --- wrong bytes ------------------------------------------------------------------------------------------------------


def test_garbage_instead_of_a_head() -> None:
    seen = meet(GarbageBytes("head"))
    assert seen.status is None and seen.error is not None and seen.data.startswith(GARBAGE) and seen.end == "close"


@pytest.mark.parametrize("stream", [True, False])
def test_garbage_instead_of_framing(stream: bool) -> None:
    seen = meet(GarbageBytes("body"), stream=stream)
    assert seen.status == 200 and seen.error is not None and seen.end == "close" and not seen.complete
    assert meet(GarbageBytes("body", 2)).deltas == PIECES[:2]


@pytest.mark.parametrize("chunks", [0, 2, 99])
def test_garbage_instead_of_an_event(chunks: int) -> None:
    seen = meet(GarbageBytes("sse", chunks))
    before, garbage, after = seen.body.partition(b"data: " + GARBAGE + b"\n\n")
    assert garbage and seen.complete and before + after == meet(None).body
    assert before.count(b'"delta":{"content":"') == min(chunks, 5)


def test_garbage_instead_of_a_unary_body() -> None:
    seen = meet(GarbageBytes(), stream=False)
    assert (seen.status, seen.body, seen.complete) == (200, GARBAGE, True)


@pytest.mark.parametrize("stream", [True, False])
def test_the_wrong_content_type(stream: bool) -> None:
    seen = meet(WrongContentType(), stream=stream)
    assert seen.headers["content-type"] == "text/html; charset=utf-8" and seen.body == meet(None, stream=stream).body
    assert meet(WrongContentType("a/b")).headers["content-type"] == "a/b"


def test_a_header_without_end() -> None:
    seen = meet(OversizedHeader(5000))
    assert b"\r\nx-filler: " + b"x" * 5000 + b"\r\n" in seen.data


@pytest.mark.parametrize("size", [0, 1, 65_536, 200_001])
def test_an_event_without_end(size: int) -> None:
    seen = meet(OversizedEvent(size))
    filler = next(frame for frame in seen.frames if isinstance(frame, dict) and "filler" in frame)
    assert filler["filler"] == "x" * size and seen.text == WHOLE and seen.finish == "stop"
    unary = meet(OversizedEvent(size), stream=False)
    assert unary.body.startswith(b" " * size + b"{") and unary.json["choices"][0]["message"]["content"] == WHOLE


def test_an_old_client_gets_the_same_without_chunks() -> None:
    assert meet(Truncate(2), version="1.0").deltas == PIECES[:2]


# --- the values -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Throttle(retry_date=-1), "retry_date"),
        (lambda: Throttle(retry_date=True), "retry_date"),
        (lambda: Throttle("1", retry_date=1), "retry_after"),
        (lambda: Throttle("a\r\nb"), "retry_after"),
        (lambda: Throttle("\u20ac"), "retry_after"),
        (lambda: Throttle(7), "retry_after"),
        (lambda: Throttle(retry_after_ms="\0"), "retry_after_ms"),
        (lambda: Throttle(reset="\n"), "reset"),
        (lambda: Throttle(date_form="iso"), "date_form"),
        (lambda: Throttle(body="none"), "body"),
        (lambda: Status(199), "code"),
        (lambda: Status(600), "code"),
        (lambda: Status(True), "code"),
        (lambda: Status(500.0), "code"),
        (lambda: Status(500, 5), "body"),
        (lambda: Status(500, content_type="\n"), "content_type"),
        (lambda: Status(500, headers=(("x y", "1"),)), "headers"),
        (lambda: Status(500, headers=(("X-Big", "1"),)), "headers"),
        (lambda: Status(500, headers=(("content-length", "1"),)), "headers"),
        (lambda: WrongContentType("\n"), "content_type"),
        (lambda: RotateKeys(()), "keys"),
        (lambda: RotateKeys(("",)), "keys"),
        (lambda: RotateKeys((1,)), "keys"),
        (lambda: SlowFirstByte(-1), "seconds"),
        (lambda: SlowFirstByte(math.inf), "seconds"),
        (lambda: SlowFirstByte("1"), "seconds"),
        (lambda: SlowFirstByte(None), "seconds"),
        (lambda: StallAfterHead(math.nan), "seconds"),
        (lambda: StallAfterChunks(-1), "chunks"),
        (lambda: StallAfterChunks(1, -1), "seconds"),
        (lambda: PingsOnly(0), "interval"),
        (lambda: PingsOnly(1, -1), "count"),
        (lambda: SlowTokens(-1), "interval"),
        (lambda: DripBytes(-1), "interval"),
        (lambda: ResetAtByte(-1), "byte"),
        (lambda: Truncate(1.0), "chunks"),
        (lambda: Break(True), "chunks"),
        (lambda: ErrorFrame(-1), "chunks"),
        (lambda: ErrorFrame(1, "oops"), "error"),
        (lambda: ErrorFrame(1, {"a": object()}), "error"),
        (lambda: GarbageBytes("tail"), "where"),
        (lambda: GarbageBytes("sse", -1), "chunks"),
        (lambda: OversizedHeader(-1), "size_bytes"),
        (lambda: OversizedEvent("1"), "size_bytes"),
    ],
)
def test_a_fault_out_of_range_is_refused(make: Any, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: "):
        make()


def test_faults_are_values() -> None:
    assert len({Status(500), Status(500), ErrorFrame(1, {"a": 1}), ErrorFrame(1, {"a": 1})}) == 2
    assert "new-key" not in repr(RotateKeys(("new-key",)))


def test_the_base_does_nothing() -> None:
    assert meet(Fault()).data == meet(None).data


def test_a_plan_without_a_place_ends_where_it_would() -> None:
    """The providers' own answers always have a body; a plan of someone else's may not."""

    def bare() -> Iterator[Part]:
        yield Head(200, ())

    scene = Scene(OpenAiChat(), UNIX)
    assert list(Truncate(0).bend(bare(), scene)) == [Head(200, ()), End()]
    assert list(Status(500).bend(iter([End()]), scene)) == [End()]
    assert len(list(Break(0).bend(bare(), scene))) == 2
    ping = Data(b":\n\n", Kind.PING)
    assert list(until_chunk(iter([ping]), 0)) == [ping]


def test_tool_fragments_are_content_too() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    provider = MockProvider(faults=FaultScript([Truncate(2)]))
    seen = play(provider.connection(), chat("#tool", tools=tools))
    calls = [frame["choices"][0]["delta"]["tool_calls"][0] for frame in seen.frames[1:]]
    assert [call["function"]["arguments"] for call in calls] == ["", json.dumps({"prompt": "#tool"})[:8]]
