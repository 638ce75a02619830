"""A provider of a world without HTTP: what it answers, as beats, and what faults and the weather make of that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from sansio.errors import (
    InferenceError,
    NetworkError,
)
from sansio.http import END, HttpEvent, ResponseHead
from sansio.simulation.provider.answers import Answer, Choice, count_tokens, expected_text, prompt_id
from sansio.simulation.provider.faults import (
    DripBytes,
    Fault,
    RotateKeys,
    Status,
    Truncate,
)
from sansio.simulation.provider.formats import Ask, Stamp
from sansio.simulation.provider.openai_chat import OpenAiChat
from sansio.simulation.provider.provider_limiter import ProviderLimits
from sansio.simulation.provider.response_plan import Data, End, Hangup, Head, Kind, Part, Pause, Raw, Wire
from sansio.simulation.world.clock import chance
from sansio.simulation.world.plan import CallerPlan, Conditions, Faults, HostPlan
from sansio.simulation.world.request_beats import Beat, beats_of, reset_at, stalled_at
from sansio.simulation.world.request_provider import RequestProvider
from sansio.simulation.world.weather import Weather

HOST = "one.test"
KEY = "sk-simulated-one"
STILL = Conditions(latency=0.02, jitter=0.0)
ASKS = CallerPlan(0, 0.0, "chat", "hello")
WHOLE = replace(ASKS, stream=False)


# ---- a provider by itself ------------------------------------------------------------------------------------------------


def provider(host: HostPlan | None = None, *, keys: Sequence[str] | None = (KEY,), conditions: Conditions = STILL) -> Any:
    return RequestProvider(host or HostPlan(HOST), Weather(chance(0, "w"), conditions), keys, chance(0, "p"))


def answer(
    of: RequestProvider, caller: CallerPlan = ASKS, *, model: str = "m", key: str | None = KEY, now: float = 0.0
) -> list[Beat]:
    return list(of.respond(caller, model, key, now, 1e9 + now, reused=False))


def head_of(beats: Sequence[Beat]) -> ResponseHead:
    head = beats[0][1][0]
    assert isinstance(head, ResponseHead)
    return head


def body_of(beats: Sequence[Beat]) -> bytes:
    return b"".join(event for _, events in beats for event in events if isinstance(event, bytes))


PROMPTS = [
    "hello",
    'say "hi" \\ \n\t',
    "日本語 🙂",
    "x" * 200,
    "\ud800 alone",
    "[label] w1",
    "#refuse",
    "#tool",
    "\0",
    "1000000000000",
]


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("token_delay", [0.0, 0.02])
@pytest.mark.parametrize("tokens", [0, 1, 2, 60])
def test_what_is_answered_is_what_the_mock_provider_writes(
    prompt: str, stream: bool, token_delay: float, tokens: int
) -> None:
    of = provider(HostPlan(HOST, token_delay=token_delay))
    caller = replace(ASKS, prompt=prompt, stream=stream, output_tokens=tokens)
    ask = Ask("m", caller.said, count_tokens(caller.said), stream, include_usage=True, obfuscated=False)
    text = Answer((Choice("text", prompt_id(caller.said), tokens, "stop"),), ask.input_tokens)
    assert text.choices[0].text == expected_text(caller.said, tokens)
    if stream:
        wanted = b"".join(frame.data for frame in OpenAiChat().frames(ask, text, Stamp("0" * 24, 0)))
    else:
        wanted = OpenAiChat().unary(ask, text, Stamp("0" * 24, 0))
    for _ in range(2):  # rendered, and taken from what was rendered
        beats = answer(of, caller)
        assert body_of(beats) == wanted
        assert beats[-1][1][-1] is END
        assert head_of(beats).header("content-type") == (
            "text/event-stream; charset=utf-8" if stream else "application/json"
        )
        assert sum(after for after, _ in beats) == pytest.approx(0.2 + tokens * token_delay)


def test_tokens_come_in_their_time() -> None:
    beats = answer(provider(HostPlan(HOST, first_byte_delay=1.0, token_delay=0.2)), replace(ASKS, output_tokens=8))
    assert [round(after, 9) for after, _ in beats] == [1.0, 0.2, 0.4, 0.4, 0.4, 0.2]
    [slow] = answer(provider(HostPlan(HOST, first_byte_delay=1.0, token_delay=2.0)), replace(WHOLE, output_tokens=8))
    assert slow[0] == 17.0
    assert len(answer(provider(HostPlan(HOST, token_delay=2.0)), replace(ASKS, output_tokens=8))) == 9


def test_answers_of_many_sizes_are_each_right() -> None:
    of = provider()
    for number in (*range(1_100), 0):  # more than are kept
        assert f'"model":"m{number}"'.encode() in body_of(answer(of, model=f"m{number}"))


def test_only_good_keys_are_answered() -> None:
    of = provider()
    for key, words in (("sk-other", b"Incorrect API key"), (None, b"You didn't provide an API key")):
        beats = answer(of, key=key)
        assert head_of(beats).status == 401 and words in body_of(beats)
    assert head_of(answer(of)).status == 200
    of.rotate_keys(["sk-other"])
    assert head_of(answer(of)).status == 401
    assert head_of(answer(of, key="sk-other")).status == 200
    assert head_of(answer(provider(keys=None), key=None)).status == 200
    with pytest.raises(ValueError, match="keys"):
        of.rotate_keys([])
    with pytest.raises(ValueError, match="keys"):
        provider(keys=[])


def test_a_fault_may_rotate_the_keys() -> None:
    of = provider()
    strike(of, RotateKeys((KEY, "sk-other")))
    assert body_of(answer(of)) == body_of(answer(provider())), "who came with a good one is answered"
    of._weather.clear()
    assert head_of(answer(of, key="sk-other")).status == 200
    strike(of, RotateKeys(("sk-other",)))
    assert head_of(answer(of)).status == 401
    of._weather.clear()
    assert head_of(answer(of)).status == 401


def test_requests_are_counted() -> None:
    of = provider()
    for _ in range(3):
        answer(of)
    assert (of.requests_total, of.active, of.max_active) == (3, 3, 3)
    of.over()
    of.over()
    answer(of, key=None)
    assert (of.requests_total, of.active, of.max_active, of.throttled) == (4, 2, 3, 0)
    assert of.limiter("m") is None


def test_its_own_limit_refuses_and_says_until_when() -> None:
    of = provider(HostPlan(HOST, limits=ProviderLimits(2)))
    first = head_of(answer(of))
    assert first.header("x-ratelimit-remaining-requests") == "1"
    assert head_of(answer(of, WHOLE, now=10.0)).header("x-ratelimit-remaining-requests") == "0"
    refused = answer(of, now=20.5)
    head = head_of(refused)
    assert (head.status, head.header("retry-after"), head.header("retry-after-ms")) == (429, "40", "39500")
    assert head.header("x-ratelimit-remaining-requests") == "0"
    assert b"Rate limit reached for m on requests per min" in body_of(refused)
    assert head_of(answer(of, model="other", now=20.5)).status == 200, "each model has a limit of its own"
    assert head_of(answer(of, now=60.0)).status == 200
    assert of.throttled == 1 and of.limiter("m") is not None


def test_its_limit_counts_what_is_really_used() -> None:
    of = provider(HostPlan(HOST, limits=ProviderLimits(None, 20)))
    used = count_tokens(ASKS.said) + 3
    assert head_of(answer(of)).header("x-ratelimit-remaining-tokens") == str(20 - used)
    assert head_of(answer(of, replace(ASKS, limits_output=False))).header("x-ratelimit-remaining-tokens") == str(
        20 - 2 * used
    )
    assert head_of(answer(of)).status == 429
    too_large = answer(of, replace(ASKS, output_tokens=50))
    assert head_of(too_large).header("retry-after") is None and b"Request too large" in body_of(too_large)


def test_an_answer_that_never_ran_costs_no_tokens() -> None:
    of = provider(HostPlan(HOST, limits=ProviderLimits(10, 1000)))
    strike(of, Status(503))
    head = head_of(answer(of))
    assert (head.status, head.header("x-ratelimit-remaining-tokens")) == (503, "1000")
    assert head.header("x-ratelimit-remaining-requests") == "9"
    of._weather.clear()
    strike(of, Truncate())
    assert head_of(answer(of)).header("x-ratelimit-remaining-tokens") == str(1000 - count_tokens(ASKS.said) - 3)


def strike(of: RequestProvider, fault: Fault) -> None:
    of._weather.begin(Faults(0, 0.0, 1e9, HOST, ((fault, 1.0),)))


# ---- beats ---------------------------------------------------------------------------------------------------------------

HEAD = Head(200, (("content-type", "text/plain"),))
SEEN = ResponseHead(200, HEAD.headers)
HEAD_BYTES = len(b"HTTP/1.1: 200\r\ncontent-type: text/plain\r\n")


def beats(*parts: Part, http2: bool = False, fault: Fault | None = None) -> list[Beat]:
    return list(beats_of(iter(parts), (fault or Fault()).mangle, http2=http2))


def piece(data: bytes) -> Data:
    return Data(data, Kind.CONTENT)


def test_what_comes_at_once_is_one_beat() -> None:
    assert beats(Pause(1.0), HEAD, piece(b"a"), piece(b"bc"), Pause(0.0), piece(b"d"), End()) == [
        (1.0, (SEEN, b"abcd", END))
    ]
    assert beats(HEAD, Pause(1.0), Pause(2.0), piece(b"ab"), End()) == [(0.0, (SEEN,)), (3.0, (b"ab", END))]


def test_nothing_ever_is_no_beat() -> None:
    assert beats(Pause(None), HEAD, End()) == []
    assert beats(HEAD, piece(b"ab"), Pause(None), End()) == [(0.0, (SEEN, b"ab"))]
    assert beats(HEAD, piece(b"ab")) == [(0.0, (SEEN, b"ab"))]
    assert beats(HEAD, Pause(1.0)) == [(0.0, (SEEN,))]


def test_an_answer_without_end_comes_in_bounded_beats() -> None:
    found = beats(HEAD, *[piece(b"x" * 100_000)] * 7, End())
    assert [after for after, _ in found] == [0.0, 0.0, 0.0]
    assert max(len(body_of([beat])) for beat in found) == 300_000 and len(body_of(found)) == 700_000


def test_bytes_that_trickle_come_in_drops() -> None:
    drops = beats(HEAD, piece(b"0123456789"), End(), fault=DripBytes(0.1))
    whole = (HEAD_BYTES + 10) * 0.1
    assert sum(after for after, _ in drops) == pytest.approx(whole)
    assert len(drops) == -(-(HEAD_BYTES + 10) // 2) and body_of(drops) == b"0123456789"
    assert drops[0] == (0.2, (b"",)), "a head comes with its last byte, but something was heard"
    alone = beats(HEAD, piece(b"0123456789"), End(), fault=DripBytes(1.0))
    assert len(alone) == HEAD_BYTES + 10 and {after for after, _ in alone} == {1.0}


@pytest.mark.parametrize(
    ("part", "http1", "http2"),
    [
        (Hangup(), ("NetworkError", False, False), ("NetworkError", False, True)),
        (Hangup(reset=True), ("NetworkError", False, False), ("NetworkError", False, True)),
        (Hangup(reset=True, connection=True), ("NetworkError", False, False), ("NetworkError", False, False)),
        (Raw(b"?"), ("ProtocolError", None, None), ("ProtocolError", None, None)),
    ],
)
def test_how_an_answer_breaks(part: Part, http1: tuple[Any, ...], http2: tuple[Any, ...]) -> None:
    for wanted, version in ((http1, False), (http2, True)):
        [(_, (*rest, error))] = beats(HEAD, piece(b"ab"), part, End(), http2=version)
        assert rest == [SEEN, b"ab"]
        assert (type(error).__name__, getattr(error, "unprocessed", None), getattr(error, "reset", None)) == wanted
        assert isinstance(error, InferenceError) and error.retryable


def test_bad_weather_strikes_at_any_byte() -> None:
    whole: list[Beat] = [(1.0, (SEEN, b"abc")), (2.0, (b"de", END))]
    for byte in range(HEAD_BYTES + 5):
        cut = list(reset_at(iter(whole), byte))
        assert isinstance(cut[-1][1][-1], NetworkError)
        assert sum(after for after, _ in cut) == (1.0 if byte < HEAD_BYTES + 3 else 3.0)
        assert body_of(cut) == b"abcde"[: max(0, byte - HEAD_BYTES)]
        assert any(isinstance(event, ResponseHead) for _, events in cut for event in events) == (byte >= HEAD_BYTES)
        assert (cut[0][1][:1] == (b"",)) == (0 < byte < HEAD_BYTES), "a part of a head was heard"
        held = list(stalled_at(iter(whole), byte, 20.0))
        assert body_of(held) == b"abcde" and held[-1][1][-1] is END
        assert sum(after for after, _ in held) == 23.0
        came: list[HttpEvent] = [event for _, events in held for event in events if event != b"" and event is not SEEN]
        assert len([event for event in came if event is END]) == 1
    for strike_at in (reset_at(iter(whole), HEAD_BYTES + 5), stalled_at(iter(whole), HEAD_BYTES + 5, 20.0)):
        assert list(strike_at) == whole, "past the end nothing happens"


def test_a_provider_asks_the_weather_for_it() -> None:
    reset = answer(provider(conditions=replace(STILL, reset=1.0, reset_within=0)))
    [(after, (error,))] = reset
    assert after == 0.2 and isinstance(error, NetworkError)
    stalled = answer(provider(conditions=replace(STILL, stalled=1.0, reset_within=0)))
    assert stalled[0][0] == 20.2 and body_of(stalled) == body_of(answer(provider()))
    of, again = (provider(conditions=replace(STILL, reset=0.5, reset_within=0)) for _ in range(2))
    spared = [answer(of)[-1][1][-1] is END for _ in range(40)]
    assert spared == [answer(again)[-1][1][-1] is END for _ in range(40)]
    assert 5 < sum(spared) < 35


def test_a_fault_may_double_bytes() -> None:
    class Twice(Fault):
        def mangle(self, wire: Wire) -> Wire:
            for part in wire:
                yield part
                if isinstance(part, bytes) and part.startswith(b"ab"):
                    yield part

    assert beats(HEAD, piece(b"ab"), End(), fault=Twice()) == [(0.0, (SEEN, b"abab", END))]
