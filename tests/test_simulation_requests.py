"""A node of a world without HTTP: it treats the engine as a driver does, whatever its provider and its callers do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from engine_harness import deployment

from sansio.batch import TokenChunk
from sansio.deployment import RemoteEngineConfig
from sansio.errors import (
    BadRequest,
    DeadlineExceeded,
    EngineClosed,
    InferenceError,
    NetworkError,
    ProtocolError,
    RateLimited,
    ServerError,
    StreamInterrupted,
    Timeout,
    Unauthorized,
)
from sansio.events import (
    AbortAttempt,
    AddRequest,
    AttemptEnded,
    Cancel,
    Committed,
    Complete,
    Effect,
    Event,
    HeadReceived,
    SessionReport,
    StartAttempt,
    Tick,
)
from sansio.simulation.provider.answers import count_tokens, expected_text
from sansio.simulation.provider.faults import (
    FAULTS,
    Break,
    CloseOnReuse,
    CloseWithoutResponse,
    DoneWithoutFinish,
    DripBytes,
    ErrorFrame,
    Fault,
    GarbageBytes,
    GoAway,
    NeverRespond,
    OversizedEvent,
    OversizedHeader,
    PingsOnly,
    RefuseStream,
    ResetAtByte,
    RotateKeys,
    SlowFirstByte,
    SlowTokens,
    StallAfterChunks,
    StallAfterHead,
    Status,
    Throttle,
    Truncate,
    WrongContentType,
)
from sansio.simulation.provider.provider_limiter import ProviderLimits
from sansio.simulation.world.clock import VirtualClock, chance
from sansio.simulation.world.node import Call, batch_of
from sansio.simulation.world.plan import BadNetwork, CallerPlan, Conditions, Faults, HostPlan
from sansio.simulation.world.request_node import RequestNode
from sansio.simulation.world.request_provider import RequestProvider
from sansio.simulation.world.vault import Vault, place_of
from sansio.simulation.world.weather import Weather

HOST = "one.test"
KEY = "sk-simulated-one"
STILL = Conditions(latency=0.02, jitter=0.0)
ASKS = CallerPlan(0, 0.0, "chat", "hello")
WHOLE = replace(ASKS, stream=False)


def strike(weather: Weather, fault: Fault) -> None:
    """From now on every request meets this."""
    weather.begin(Faults(0, 0.0, 1e9, HOST, ((fault, 1.0),)))


LAST: dict[str, Any] = {"max_retries": 0}
"""A retry policy that tries nothing again."""


class Witness:
    """Hears what the engine is told and what callers see, and holds it against the simplest rules there are."""

    def __init__(self, node: RequestNode) -> None:
        self.facts: list[tuple[float, Event]] = []
        self.effects: list[Effect] = []
        self.keys: list[str | None] = []
        self.seen: list[tuple[str, int]] = []
        self._node = node
        node.core.observers = (self,)
        node.watchers = (self,)

    def observed(self, event: Event, effects: Sequence[Effect], now: float, unix_now: float) -> None:
        metrics = self._node.core.metrics()
        assert metrics.accounted == metrics.submitted
        assert (now, unix_now) == (self._node.now(), self._node.unix_now())
        self.facts.append((now, event))
        self.effects += effects

    def sent(self, call: Call, key: str | None, now: float, unix_now: float) -> None:
        assert not call.ended
        self.keys.append(key)

    def delivered(self, call: Call, chunk: TokenChunk) -> None:
        assert not call.ended
        self.seen.append(("chunk", call.request_id))

    def ended(self, call: Call) -> None:
        assert ("end", call.request_id) not in self.seen, "one end"
        self.seen.append(("end", call.request_id))

    def kinds(self, request_id: int | None = None) -> list[str]:
        """The facts about requests, by name."""
        return [
            type(event).__name__
            for _, event in self.facts
            if not isinstance(event, (Tick, SessionReport)) and request_id in (None, getattr(event, "request_id", None))
        ]


class Small:
    """A world with one deployment, one provider and no echo."""

    def __init__(
        self,
        *,
        seed: int = 0,
        host: HostPlan | None = None,
        conditions: Conditions = STILL,
        echo: float = 0.0,
        keys: Sequence[str] = (KEY,),
        **config: Any,
    ) -> None:
        self.clock = VirtualClock()
        self.weather = Weather(chance(seed, "weather"), conditions)
        self.vault = Vault(self.clock, chance(seed, "vault"))
        of = deployment(**{"retry": LAST, **config})
        self.vault.store(place_of(of), KEY)
        self.place = place_of(of)
        self.provider = RequestProvider(host or HostPlan(HOST), self.weather, keys, chance(seed, "provider"))
        self.node = RequestNode(
            self.clock,
            RemoteEngineConfig((of,)),
            seed=seed,
            vault=self.vault,
            providers={HOST: self.provider},
            weather={HOST: self.weather},
            echo=echo,
        )
        self.witness = Witness(self.node)

    def ask(self, caller: CallerPlan = ASKS, *, seconds: float = 2_000.0) -> Call:
        """Somebody asks, and so much time passes."""
        call = self.node.submit(caller)
        self.clock.advance(seconds)
        return call

    def settled(self) -> None:
        """Nothing is left of anything."""
        core = self.node.core
        assert not (self.node.calls or self.node._runs or self.node._facts or self.provider.active)
        assert not (core.registry.requests or core.registry.unreported)
        assert all(lane.running == 0 for lane in core.roster.lanes.values())
        metrics = core.metrics()
        assert metrics.submitted == metrics.done + metrics.failed + metrics.cancelled + metrics.rejected


def text_of(call: Call) -> str:
    return "".join(call.text)


@pytest.mark.parametrize("caller", [ASKS, WHOLE])
def test_an_answer_reaches_its_caller(caller: CallerPlan) -> None:
    small = Small()
    call = small.ask(caller)
    assert call.ended and call.error is None and not call.left
    assert text_of(call) == expected_text(caller.said, 3) and call.finish_reason == "stop"
    assert call.usage is not None and (call.usage.input_tokens, call.usage.output_tokens) == (count_tokens(caller.said), 3)
    assert small.witness.keys == [KEY]
    wanted = ["AddRequest", "HeadReceived", "Committed", "AttemptEnded"] if caller.stream else ["AddRequest", "AttemptEnded"]
    assert small.witness.kinds() == wanted
    small.settled()


def test_facts_come_when_their_bytes_do() -> None:
    small = Small(host=HostPlan(HOST, first_byte_delay=1.0, token_delay=0.1), conditions=replace(STILL, latency=0.25))
    start = small.clock.now
    small.ask()
    times = {type(event): round(now - start, 6) for now, event in small.witness.facts}
    dialled = round(times[SessionReport] + 0.5, 6)
    assert times[AddRequest] == 0.0
    assert times[HeadReceived] == pytest.approx(dialled + 0.25 + 1.0 + 0.25)
    assert times[Committed] == pytest.approx(times[HeadReceived] + 0.1)
    assert times[AttemptEnded] == pytest.approx(times[HeadReceived] + 0.3)
    start = small.clock.now
    small.ask()
    heads = [now for now, event in small.witness.facts if isinstance(event, HeadReceived)]
    assert heads[-1] - start == pytest.approx(1.5), "the second goes over the connection of the first"


def test_a_head_that_comes_with_the_end_is_told_with_it() -> None:
    small = Small(host=HostPlan(HOST, first_byte_delay=0.0, token_delay=0.0))
    call = small.ask()
    assert text_of(call) == expected_text(ASKS.said, 3)
    [end] = [event for _, event in small.witness.facts if isinstance(event, AttemptEnded)]
    assert end.head is not None and end.head.status == 200 and end.sent and end.usage is not None
    assert small.witness.kinds() == ["AddRequest", "AttemptEnded"]


def test_a_commit_is_told_once() -> None:
    small = Small(host=HostPlan(HOST, token_delay=1.0))
    small.ask(replace(ASKS, output_tokens=6))
    assert small.witness.kinds() == ["AddRequest", "HeadReceived", "Committed", "AttemptEnded"]


def test_chunks_are_handed_over_before_the_end() -> None:
    small = Small()
    small.ask()
    assert small.witness.seen == [("chunk", 1)] * 5 + [("end", 1)]


OK: type[InferenceError] | None = None
SLOW_READ = {"read_timeout": 5.0, "content_timeout": 8.0, "request_timeout": 4.0}

WHAT_FAULTS_DO: list[tuple[Fault, Any, Any]] = [
    (Throttle(retry_after="1"), RateLimited, RateLimited),
    (Throttle(body="empty", reset="1s"), RateLimited, RateLimited),
    (Status(503), ServerError, ServerError),
    (Status(204), ProtocolError, ProtocolError),
    (Status.html(), ServerError, ServerError),
    (RotateKeys(("sk-other",)), Unauthorized, Unauthorized),
    (RotateKeys((KEY,)), OK, OK),
    (SlowFirstByte(2.0), OK, OK),
    (SlowFirstByte(20.0), Timeout, Timeout),
    (NeverRespond(), Timeout, Timeout),
    (StallAfterHead(2.0), OK, OK),
    (StallAfterHead(), Timeout, Timeout),
    (StallAfterChunks(1, 2.0), OK, OK),
    (StallAfterChunks(1), (StreamInterrupted, Timeout), Timeout),
    (PingsOnly(1.0, 3), OK, OK),
    (PingsOnly(1.0), Timeout, Timeout),
    (SlowTokens(1.0), OK, OK),
    (DripBytes(0.0001), OK, OK),
    (DripBytes(1.0), Timeout, Timeout),
    (CloseWithoutResponse(), NetworkError, NetworkError),
    (CloseOnReuse(), OK, OK),
    (RefuseStream(), NetworkError, NetworkError),
    (GoAway(), NetworkError, NetworkError),
    (ResetAtByte(0), NetworkError, NetworkError),
    (ResetAtByte(400), NetworkError, NetworkError),
    (ResetAtByte(1_000_000), OK, OK),
    (Truncate(), (StreamInterrupted, NetworkError), ProtocolError),
    (Break(), (StreamInterrupted, NetworkError), NetworkError),
    (DoneWithoutFinish(), (StreamInterrupted, NetworkError), OK),
    (ErrorFrame(), (StreamInterrupted, ServerError), ServerError),
    (ErrorFrame(0), ServerError, ServerError),
    (GarbageBytes(), ProtocolError, ProtocolError),
    (GarbageBytes("head"), ProtocolError, ProtocolError),
    (GarbageBytes("body", 1), (StreamInterrupted, ProtocolError), ProtocolError),
    (WrongContentType(), ProtocolError, ProtocolError),
    (OversizedHeader(70_000), ProtocolError, ProtocolError),
    (OversizedEvent(17_000_000), ProtocolError, OK),
    (OversizedEvent(1_000), OK, OK),
]


def test_every_fault_has_its_line() -> None:
    assert {type(fault) for fault, _, _ in WHAT_FAULTS_DO} == set(FAULTS)


@pytest.mark.parametrize("http2", [False, True])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("line", WHAT_FAULTS_DO, ids=lambda line: str(line[0])[:40])
def test_what_a_fault_does(line: tuple[Fault, Any, Any], stream: bool, http2: bool) -> None:
    fault, streamed, whole = line
    small = Small(host=HostPlan(HOST, http2=http2), timeouts=SLOW_READ)
    caller = replace(ASKS, stream=stream)
    assert small.ask(caller).error is None  # a connection that has carried a request
    strike(small.weather, fault)
    call = small.ask(caller)
    kind, cause = wanted if isinstance(wanted := streamed if stream else whole, tuple) else (wanted, None)
    assert call.ended
    if kind is None:
        assert call.error is None and text_of(call) == expected_text(caller.said, 3)
    else:
        assert type(call.error) is kind
        assert cause is None or type(call.error.cause) is cause
        assert expected_text(caller.said, 3).startswith(text_of(call))
    small.settled()


@pytest.mark.parametrize(
    ("fault", "http1", "http2"),
    [
        # stale, unprocessed, reset
        (CloseWithoutResponse(), (True, False, False), (False, False, True)),
        (CloseOnReuse(), (True, False, False), (True, False, False)),
        (CloseOnReuse(reset=True), (True, False, False), (True, False, False)),
        (RefuseStream(), (True, False, False), (False, True, True)),
        (GoAway(), (True, False, False), (True, True, False)),
        (ResetAtByte(0), (True, False, False), (False, False, True)),
        (ResetAtByte(50), (False, False, False), (False, False, True)),
        (Break(0), (False, False, False), (False, False, True)),
    ],
    ids=str,
)
def test_how_a_connection_is_lost(fault: Fault, http1: tuple[bool, ...], http2: tuple[bool, ...]) -> None:
    for wanted, version in ((http1, False), (http2, True)):
        small = Small(host=HostPlan(HOST, http2=version))
        small.ask()
        strike(small.weather, fault)
        small.ask()
        ends = [event for _, event in small.witness.facts if isinstance(event, AttemptEnded)]
        error = ends[1].error
        assert isinstance(error, NetworkError)
        assert (ends[1].stale, error.unprocessed, error.reset) == wanted
        starts = [effect for effect in small.witness.effects if isinstance(effect, StartAttempt)]
        unread = wanted[0] or wanted[1]
        assert [start.fresh for start in starts] == [False, False, *[True] * unread]
        assert not any(end.stale for end in ends[2:]), "over a new connection nothing is stale"


def test_a_new_connection_is_dialled_where_none_is_idle() -> None:
    small = Small(serving={"max_concurrent": 2})
    calls = [small.node.submit(ASKS) for _ in range(3)]
    small.clock.advance(60.0)
    assert all(call.error is None for call in calls)
    took = [call.ended_at for call in calls]
    assert took[0] == took[1] and took[2] is not None and took[0] is not None
    assert took[2] - took[0] == pytest.approx(0.2 + 3 * 0.02 + 2 * 0.02), "the third needed no dial"


def test_an_idle_connection_carries_one_request_at_a_time() -> None:
    small = Small()
    small.ask()
    start = small.clock.now
    calls = [small.node.submit(ASKS) for _ in range(3)]
    small.clock.advance(60.0)
    assert [round((call.ended_at or 0) - start, 6) for call in calls] == [0.3, 0.34, 0.34]


def test_a_refusal_that_came_whole_leaves_its_connection_fit() -> None:
    small = Small(breaker=NEVER_OPENS)
    strike(small.weather, Status(503))
    first = small.ask()
    assert isinstance(first.error, ServerError)
    small.weather.clear()
    start = small.clock.now
    assert round((small.ask().ended_at or 0) - start, 6) == 0.3


def test_over_http2_all_share_a_connection() -> None:
    small = Small(host=HostPlan(HOST, http2=True))
    small.ask()
    start = small.clock.now
    calls = [small.node.submit(ASKS) for _ in range(3)]
    small.clock.advance(60.0)
    assert {round((call.ended_at or 0) - start, 6) for call in calls} == {0.3}


def test_a_refused_dial_is_a_lost_connection() -> None:
    small = Small(conditions=replace(STILL, refused=1.0))
    call = small.ask()
    assert isinstance(call.error, NetworkError) and "refused" in call.error.message
    [end] = [event for _, event in small.witness.facts if isinstance(event, AttemptEnded)]
    assert not end.sent and not end.stale and small.provider.requests_total == 0
    small.settled()


def test_a_lost_dial_is_never_heard_of() -> None:
    small = Small(conditions=replace(STILL, lost=1.0), timeouts={"connect_timeout": 5.0})
    call = small.ask()
    assert isinstance(call.error, Timeout) and call.error.phase == "connect"
    assert small.witness.keys == [] and small.provider.requests_total == 0
    small.settled()


def test_chances_are_chances() -> None:
    small = Small(conditions=replace(STILL, lost=0.3, refused=0.3), timeouts={"connect_timeout": 1.0}, breaker=NEVER_OPENS)
    calls = [small.node.submit(ASKS) for _ in range(60)]
    small.clock.advance(600.0)
    kinds = {kind: sum(type(call.error) is kind for call in calls) for kind in (NetworkError, Timeout, type(None))}
    assert sum(kinds.values()) == 60 and min(kinds.values()) > 5


NEVER_OPENS: dict[str, Any] = {"failure_threshold": 10_000}


def test_a_bad_network_strikes_what_is_under_way() -> None:
    small = Small()
    small.ask()
    bad = BadNetwork(0, 0.0, 10.0, HOST, replace(STILL, reset=1.0, reset_within=0))
    small.weather.begin(bad)
    call = small.ask()
    assert isinstance(call.error, NetworkError)
    small.weather.end(bad)
    assert small.ask().error is None
    small.settled()


def test_what_the_format_cannot_say_is_refused() -> None:
    small = Small()
    call = small.ask(replace(ASKS, prompt="\ud800"))
    assert isinstance(call.error, BadRequest) and small.witness.keys == []
    [end] = [event for _, event in small.witness.facts if isinstance(event, AttemptEnded)]
    assert not end.sent
    small.settled()


def test_a_host_needs_a_provider_and_weather() -> None:
    small = Small()
    for providers, weather in (({}, {HOST: small.weather}), ({HOST: small.provider}, {})):
        with pytest.raises(ValueError, match=r"providers: 'one\.test'"):
            RequestNode(
                small.clock,
                RemoteEngineConfig((deployment(),)),
                seed=0,
                vault=small.vault,
                providers=providers,
                weather=weather,
            )


def test_the_provider_knows_the_model_and_its_limit() -> None:
    small = Small(host=HostPlan(HOST, limits=ProviderLimits(2)), model="gpt-4o-mini")
    calls = [small.node.submit(ASKS) for _ in range(3)]
    small.clock.advance(30.0)
    assert [type(call.error) for call in calls].count(RateLimited) == 1
    limiter = small.provider.limiter("gpt-4o-mini")
    assert limiter is not None and limiter.refused == small.provider.throttled == 1 and limiter.peak_requests == 2


def test_a_rotated_key_is_fetched_anew() -> None:
    small = Small()
    small.ask()
    small.provider.rotate_keys(["sk-simulated-two"])
    small.vault.store(small.place, "sk-simulated-two")
    call = small.ask()
    assert call.error is None and text_of(call) == expected_text(ASKS.said, 3)
    assert small.witness.keys == [KEY, KEY, "sk-simulated-two"]
    small.settled()


def test_a_vault_that_is_down_is_reported() -> None:
    small = Small()
    small.vault.break_down(small.place, silent=False)
    call = small.ask(replace(ASKS, timeout=5.0))
    assert call.error is not None and small.provider.requests_total == 0
    small.settled()


# ---- whoever leaves, and when --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("http2", [False, True])
@pytest.mark.parametrize("caller", [ASKS, WHOLE, replace(ASKS, reads_every=0.05)], ids=["stream", "whole", "slow"])
def test_a_caller_may_leave_at_any_instant(caller: CallerPlan, http2: bool) -> None:
    outcomes: set[tuple[bool, bool, int]] = set()
    for instant in range(140):
        small = Small(host=HostPlan(HOST, http2=http2))
        call = small.ask(caller, seconds=instant * 0.005)
        taken, over = call.chunks, call.ended
        small.node.leave(call)
        assert call.ended and call.left is not over
        assert all(lane.running == 0 for lane in small.node.core.roster.lanes.values()), "at once"
        small.clock.advance(30.0)
        assert call.chunks == taken, "nothing is handed over to whoever has left"
        cancels = small.witness.kinds().count("Cancel")
        assert over or cancels <= 1
        arrived = small.provider.requests_total
        assert arrived == len(small.witness.keys), "what was sent arrives"
        outcomes.add((over, bool(cancels), taken))
        metrics = small.node.core.metrics()
        assert metrics.cancelled == cancels
        small.settled()
        assert small.ask().error is None, "the next one is answered"
    assert {over for over, _, _ in outcomes} == {False, True}
    assert len(outcomes) >= (5 if caller.reads_every else 3 if caller.stream else 2)


def test_what_is_known_of_the_usage_is_reported_after_a_cancel() -> None:
    small = Small(host=HostPlan(HOST, token_delay=1.0))
    call = small.ask(replace(ASKS, output_tokens=5), seconds=2.0)
    assert call.chunks == 1
    small.node.leave(call)
    assert small.witness.kinds() == ["AddRequest", "HeadReceived", "Committed", "Cancel", "AttemptEnded"]
    [end] = [event for _, event in small.witness.facts if isinstance(event, AttemptEnded)]
    assert end.sent and end.usage is None and isinstance(end.error, StreamInterrupted)
    small.node.leave(call)
    assert len(small.witness.kinds()) == 5, "leaving twice is leaving once"


def test_what_was_sent_arrives_although_nobody_waits() -> None:
    small = Small(host=HostPlan(HOST, limits=ProviderLimits(10)), conditions=replace(STILL, latency=1.0))
    call = small.ask(seconds=3.0)
    assert small.witness.keys == [KEY] and small.provider.requests_total == 0
    small.node.leave(call)
    small.clock.advance(0.9)
    limiter = small.provider.limiter("gpt-4o")
    assert limiter is not None and (small.provider.requests_total, limiter.peak_requests) == (1, 1)
    small.settled()


def test_the_engine_calls_off_what_is_late() -> None:
    for timeout in (0.01, 0.12, 0.16, 0.3, 0.35):
        small = Small()
        call = small.ask(replace(ASKS, timeout=timeout))
        assert isinstance(call.error, DeadlineExceeded) or isinstance(
            call.error.cause if call.error else None, DeadlineExceeded
        )
        assert call.ended_at == pytest.approx(timeout)
        small.settled()


@pytest.mark.parametrize("token_delay", [0.0, 0.02])
@pytest.mark.parametrize("reads_every", [0.0, 0.05])
@pytest.mark.parametrize("chunks", [1, 2, 5])
def test_a_caller_may_leave_while_it_is_handed_a_chunk(chunks: int, reads_every: float, token_delay: float) -> None:
    class Impatient(Witness):
        def delivered(self, call: Call, chunk: TokenChunk) -> None:
            super().delivered(call, chunk)
            if call.chunks == chunks:
                small.node.leave(call)

    small = Small(host=HostPlan(HOST, token_delay=token_delay))
    small.witness = Impatient(small.node)
    call = small.ask(replace(ASKS, reads_every=reads_every))
    assert call.left and call.chunks == chunks and small.witness.seen[-1] == ("end", 1)
    small.settled()


# ---- slow readers --------------------------------------------------------------------------------------------------------


def test_a_slow_reader_takes_its_time() -> None:
    small = Small(host=HostPlan(HOST, token_delay=0.0))
    caller = replace(ASKS, reads_every=10.0, output_tokens=4)
    call = small.ask(caller, seconds=25.0)
    assert (call.chunks, call.ended) == (3, False)
    assert small.node.core.metrics().done == 1, "the engine is done with it"
    small.clock.advance(100.0)
    assert call.ended and call.error is None and text_of(call) == expected_text(caller.said, 4)
    assert small.witness.seen == [("chunk", 1)] * 6 + [("end", 1)]
    small.settled()


def test_a_reader_that_pauses_is_no_server_that_stalls() -> None:
    small = Small(host=HostPlan(HOST, token_delay=1.0), timeouts=SLOW_READ)
    call = small.ask(replace(ASKS, reads_every=30.0))
    assert call.error is None and text_of(call) == expected_text(ASKS.said, 3)
    small.settled()
    stalls = Small(host=HostPlan(HOST, token_delay=1.0), timeouts=SLOW_READ)
    strike(stalls.weather, StallAfterChunks(1))
    call = stalls.ask(replace(ASKS, reads_every=30.0))
    assert isinstance(call.error, StreamInterrupted) and isinstance(call.error.cause, Timeout)
    [(when, _)] = [fact for fact in stalls.witness.facts if isinstance(fact[1], AttemptEnded)]
    committed = next(now for now, event in stalls.witness.facts if isinstance(event, Committed))
    assert when == pytest.approx(committed + 30.0 + 5.0), "its clock runs again when the caller reads again"
    stalls.settled()


def test_what_came_while_nobody_read_is_read_once() -> None:
    small = Small(host=HostPlan(HOST, token_delay=1.0))
    strike(small.weather, StallAfterChunks(2, 20.0))
    call = small.ask(replace(ASKS, reads_every=1.5))
    assert call.error is None and text_of(call) == expected_text(ASKS.said, 3)
    assert call.ended_at is not None and call.ended_at > 20.0, "nor does anything come before its time"
    small.settled()


def test_what_a_slow_reader_did_not_take_comes_before_the_error() -> None:
    small = Small(host=HostPlan(HOST, token_delay=0.0))
    strike(small.weather, ErrorFrame(2))
    call = small.ask(replace(ASKS, reads_every=5.0))
    assert call.chunks == 2 and isinstance(call.error, StreamInterrupted)
    assert small.witness.seen[-1] == ("end", 1) and call.ended_at is not None and call.ended_at > 10.0
    small.settled()


def test_an_abort_reaches_a_reader_that_is_away() -> None:
    small = Small(host=HostPlan(HOST, token_delay=1.0))
    call = small.ask(replace(ASKS, reads_every=10.0, timeout=5.0), seconds=5.1)
    assert small.node.core.metrics().failed == 1 and not call.ended and small.provider.active == 0
    small.clock.advance(60.0)
    assert isinstance(call.error, StreamInterrupted) and isinstance(call.error.cause, DeadlineExceeded)
    small.settled()


# ---- echoes, clocks, ends ------------------------------------------------------------------------------------------------


def crowd(small: Small, *, callers: int = 60, every: float = 0.05) -> list[Call]:
    """Callers of all kinds, some of whom leave."""
    calls: list[Call] = []
    rng = chance(7, "crowd")

    def come(number: int) -> None:
        caller = CallerPlan(
            number, 0.0, "chat", f"q{number}", stream=number % 3 > 0, reads_every=0.1 if number % 7 == 0 else 0.0,
            output_tokens=1 + number % 5, timeout=20.0,
        )  # fmt: skip
        call = small.node.submit(caller)
        calls.append(call)
        if number % 5 == 0:
            small.clock.call_later(rng.random(), lambda: small.node.leave(call))

    for number in range(callers):
        small.clock.call_later(number * every, lambda number=number: come(number))
    return calls


def stormy(seed: int, echo: float = 0.3) -> Small:
    return Small(
        seed=seed,
        host=HostPlan(HOST, limits=ProviderLimits(600)),
        conditions=Conditions(refused=0.05, lost=0.02, reset=0.1, stalled=0.05, stall_seconds=2.0),
        echo=echo,
        retry={"max_retries": 3, "initial_backoff": 0.1, "max_backoff": 1.0},
        serving={"max_concurrent": 8},
        timeouts={"connect_timeout": 2.0, "read_timeout": 5.0},
    )


def story(small: Small) -> list[str]:
    return [f"{now!r} {event!r}" for now, event in small.witness.facts] + [repr(seen) for seen in small.witness.seen]


def test_doubled_and_late_facts_do_nothing() -> None:
    small = Small(echo=1.0, host=HostPlan(HOST, token_delay=0.5))
    left = small.ask(seconds=1.0)
    small.node.leave(left)
    call = small.ask(replace(ASKS, prompt="again"))
    told = small.witness.kinds(1)
    assert told.count("HeadReceived") == told.count("AttemptEnded") == 2
    assert small.witness.kinds(2).count("HeadReceived") == small.witness.kinds(2).count("AttemptEnded") == 2
    assert small.witness.kinds(1).index("Cancel") < len(told) - 2
    assert text_of(call) == expected_text(call.plan.said, 3)
    metrics = small.node.core.metrics()
    assert (metrics.done, metrics.cancelled, metrics.attempts, metrics.unknown_usage) == (1, 1, 2, 1)
    small.settled()


def test_an_echo_is_an_exception() -> None:
    small = Small(echo=0.1, serving={"max_concurrent": 100})
    crowd(small, callers=200, every=0.01)
    small.clock.advance(60.0)
    kinds = small.witness.kinds()
    ended, attempts = kinds.count("AttemptEnded"), small.node.core.metrics().attempts
    assert attempts * 1.02 < ended < attempts * 1.25


@pytest.mark.parametrize("seed", range(6))
def test_the_same_seed_is_the_same_world(seed: int) -> None:
    first, again, other = stormy(seed), stormy(seed), stormy(seed + 100)
    for small in (first, again, other):
        calls = crowd(small)
        small.clock.advance(300.0)
        assert len(calls) == 60 and all(call.ended for call in calls)
        for call in calls:
            wanted = expected_text(call.plan.said, call.plan.output_tokens)
            assert wanted.startswith(text_of(call)) and (call.left or call.error or text_of(call) == wanted)
        small.settled()
    assert story(first) == story(again)
    assert story(first) != story(other)


@pytest.mark.parametrize("seed", range(4))
def test_clocks_that_jump_lose_nobody(seed: int) -> None:
    small = stormy(seed)
    calls = crowd(small)
    for at, (monotonic, wall) in enumerate([(5.0, 0.0), (-3.0, 100.0), (0.0, -1e6), (30.0, 30.0), (-20.0, 0.0)]):
        small.clock.call_later(0.4 + at * 0.6, lambda by=monotonic, wall=wall: small.node.jump(by, wall))
    small.clock.advance(600.0)
    assert all(call.ended for call in calls)
    small.settled()


@pytest.mark.parametrize("instant", range(0, 80, 4))
def test_draining_finishes_what_was_accepted(instant: int) -> None:
    small = stormy(1)
    calls = crowd(small)
    small.clock.advance(instant * 0.05)
    accepted = [call for call in calls if not call.ended]
    small.node.drain()
    late = small.node.submit(ASKS)
    assert isinstance(late.error, EngineClosed)
    small.clock.advance(600.0)
    assert small.node.drained and all(call.ended for call in calls)
    assert not any(isinstance(call.error, EngineClosed) for call in accepted)
    small.settled()


@pytest.mark.parametrize("instant", range(0, 80, 4))
def test_closing_ends_everything_now(instant: int) -> None:
    small = stormy(2)
    calls = crowd(small)
    small.clock.advance(instant * 0.05)
    waiting = [call for call in calls if not call.ended]
    small.node.close()
    assert small.node.drained and small.node.core.metrics().in_flight == 0 and small.provider.active == 0
    for call in waiting:
        assert call.ended or call.plan.reads_every, "but for what a slow reader has not taken yet"
    small.clock.advance(600.0)
    for call in waiting:
        assert call.ended and (call.left or call.error is None or isinstance(call.error, EngineClosed) or call.chunks)
    small.settled()


def test_a_misused_engine_can_be_told_more() -> None:
    small = Small()
    with pytest.raises(ValueError, match="deployment"):
        small.node.submit(replace(ASKS, deployment="other"))
    wrong_event: Any = "nothing"
    with pytest.raises(ValueError, match="event"):
        small.node.tell(wrong_event)
    assert small.ask().error is None
    small.settled()


def test_orders_for_somebody_unknown_are_nobodys() -> None:
    small = Small()
    for request_id in (1, 2):
        small.node.tell(small.node.core.prepare(request_id, batch_of(ASKS)))
    small.clock.advance(1.0)
    small.node.tell(Cancel(1))
    small.node.close()
    assert small.provider.requests_total == 0
    kinds = [type(effect) for effect in small.witness.effects]
    assert (kinds.count(StartAttempt), kinds.count(AbortAttempt), kinds.count(Complete)) == (2, 2, 1)


def test_an_abort_of_another_attempt_is_not_ours() -> None:
    small = Small()
    call = small.ask(seconds=0.3)
    small.node._carry_out(AbortAttempt(call.request_id, 999, None))
    small.clock.advance(30.0)
    assert call.ended and call.error is None
    small.settled()
