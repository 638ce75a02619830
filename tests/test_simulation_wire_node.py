"""A node that drives its requests down to the bytes: against the real network, client and mock provider, in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from engine_harness import deployment

from sansio.batch import TokenChunk
from sansio.connection_pool import Http2, PoolConfig
from sansio.deployment import RemoteEngineConfig
from sansio.errors import (
    DeadlineExceeded,
    EngineClosed,
    InferenceError,
    LimitExceeded,
    NetworkError,
    ProtocolError,
    ServerError,
    StreamInterrupted,
    Timeout,
    Unauthorized,
)
from sansio.events import AddRequest, Effect, Event
from sansio.http import HttpRequest
from sansio.queue import Priority
from sansio.secret import Credential
from sansio.simulation.provider.answers import expected_text
from sansio.simulation.provider.fault_script import FaultScript
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
from sansio.simulation.provider.mock_provider import MockProvider
from sansio.simulation.world.clock import VirtualClock, chance
from sansio.simulation.world.network import Network
from sansio.simulation.world.node import Call, batch_of
from sansio.simulation.world.plan import BadNetwork, CallerPlan, Conditions
from sansio.simulation.world.vault import Vault, place_of
from sansio.simulation.world.weather import Weather
from sansio.simulation.world.wire import LineOwner, WireClient, WireLine
from sansio.simulation.world.wire_call import WireCall
from sansio.simulation.world.wire_node import WireNode

HOST = "one.test"
QUICK: dict[str, Any] = {"initial_backoff": 0.1, "max_backoff": 0.5}
IDLE = 30.0
"""Seconds after which an idle connection is closed."""


class Witness:
    """Hears what callers hear, and holds it against the simplest rules there are."""

    def __init__(self) -> None:
        self.keys: list[str | None] = []
        self.over: list[Call] = []

    def sent(self, call: Call, key: str | None, now: float, unix_now: float) -> None:
        assert not call.ended
        self.keys.append(key)

    def delivered(self, call: Call, chunk: TokenChunk) -> None:
        assert not call.ended

    def ended(self, call: Call) -> None:
        assert call not in self.over
        self.over.append(call)


class Town:
    """One node, one provider, and the way between them."""

    def __init__(
        self,
        *,
        http2: bool = False,
        seed: int = 1,
        faults: Sequence[Fault | None] = (),
        then: Fault | None = None,
        conditions: Conditions | None = None,
        max_connections: int | None = None,
        max_in_flight: int | None = None,
        first_byte_delay: float = 0.2,
        token_delay: float = 0.02,
        client: type[WireClient] = WireClient,
        ahead: float = 1e5,
        keys: Sequence[str] = ("sk-one",),
        **settings: Any,
    ) -> None:
        self.clock = VirtualClock(start=10.0)
        self.provider = MockProvider(
            faults=FaultScript(faults, then=then),
            keys=keys,
            first_byte_delay=first_byte_delay,
            token_delay=token_delay,
        )
        self.weather = Weather(chance(seed, "weather"), conditions or Conditions())
        self.network = Network(self.clock, seed)
        self.network.add(HOST, self.provider, self.weather, http2=http2)
        self.vault = Vault(self.clock, chance(seed, "vault"))
        pool = PoolConfig(max_connections, idle_timeout=IDLE, http2=Http2.ONLY if http2 else Http2.OFF)
        self.client = client(self.network, lambda: self.node.now(), pool)
        settings.setdefault("retry", QUICK)
        serving = {} if max_in_flight is None else {"max_concurrent": max_in_flight}
        self.deployment = deployment(endpoint=f"http://{HOST}/v1", serving=serving, **settings)
        self.vault.store(place_of(self.deployment), "sk-one")
        config = RemoteEngineConfig.of(self.deployment)
        fingerprints = {"chat": Credential("sk-one").fingerprint}
        self.node = WireNode(self.clock, config, seed=seed, vault=self.vault, fingerprints=fingerprints, client=self.client)
        self.node.jump(ahead, 0.0)
        self.witness = Witness()
        self.node.watchers = (self.witness,)

    def ask(self, prompt: str = "hello", **details: Any) -> Call:
        """Somebody asks now."""
        return self.node.submit(CallerPlan(number=0, at=0.0, deployment="chat", prompt=prompt, **details))

    def run(self) -> None:
        """Until nobody waits any more."""
        while self.node.calls:
            assert self.clock.step(), "somebody waits, and nothing is going to happen"

    def outcome(self, prompt: str = "hello", **details: Any) -> Call:
        """What becomes of one request."""
        call = self.ask(prompt, **details)
        self.run()
        return call

    def bad_network(self, conditions: Conditions) -> BadNetwork:
        """From now on it is like this."""
        disturbance = BadNetwork(0, 0.0, 0.0, HOST, conditions)
        self.weather.begin(disturbance)
        return disturbance

    def nothing_is_left(self) -> None:
        """Everything that requests held was given back; and when what idles has run out, nothing is there at all."""
        registry, metrics = self.node.core.registry, self.node.core.metrics()
        assert (metrics.in_flight, metrics.queued, metrics.waiting) == (0, 0, 0)
        assert metrics.submitted == metrics.done + metrics.failed + metrics.rejected + metrics.cancelled
        assert self.node.calls == {}
        assert registry.unreported == {}
        self.clock.advance(1.0)  # what is said to the provider takes a while
        assert self.provider.active == 0
        assert self.client.connections == self.network.connections
        self.clock.advance(2 * IDLE)
        assert (self.client.connections, self.network.connections, self.provider.connections_open) == (0, 0, 0)
        assert (self.node.due_at(), len(registry.timers)) == (None, 0)
        assert self.clock.next() is None


def said(call: Call) -> str:
    """What its caller was told, if it was the whole answer."""
    assert call.usage is not None
    assert call.usage.output_tokens == call.plan.output_tokens
    return said_so_far(call)


def said_so_far(call: Call) -> str:
    """The same, where what it used may have been cut off: the answer had proven complete before."""
    assert (call.ended, call.left, call.error) == (True, False, None)
    assert "".join(call.text) == expected_text(call.plan.said, call.plan.output_tokens)
    assert call.finish_reason is not None
    return "".join(call.text)


@pytest.fixture(params=[False, True], ids=["http/1.1", "h2"])
def http2(request: pytest.FixtureRequest) -> bool:
    """What the provider and the client speak."""
    return bool(request.param)


# ---- answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "unary"])
def test_an_answer_comes_whole_in_the_time_it_takes(http2: bool, stream: bool) -> None:
    town = Town(http2=http2, conditions=Conditions(latency=0.1, jitter=0.0))
    call = town.outcome(stream=stream, output_tokens=5)
    assert said(call) == "[hello #tokens=5] w1 w2 w3 w4"
    assert call.chunks > 4 if stream else call.chunks <= 2
    assert call.ended_at is not None
    # a credential, a round trip to connect, one for the request, and what the provider takes
    assert 0.2 + 0.3 <= call.ended_at - call.submitted_at <= 0.8 + 0.3
    assert town.witness.keys == ["sk-one"]
    town.nothing_is_left()


def test_many_at_once_are_not_mixed_up(http2: bool) -> None:
    town = Town(http2=http2, conditions=Conditions(piece_bytes=40))
    calls = [town.ask(f"caller {number}", stream=number % 3 > 0, output_tokens=1 + number % 7) for number in range(60)]
    town.run()
    assert len({said(call) for call in calls}) == 60
    assert town.node.core.metrics().done == 60
    town.nothing_is_left()


def test_a_connection_is_used_again_and_closed_when_it_has_idled_for_long(http2: bool) -> None:
    town = Town(http2=http2)
    said(town.outcome("one"))
    said(town.outcome("two"))
    assert (town.provider.connections_total, town.client.connections) == (1, 1)
    facts, now = town.node.core.facts, town.clock.now
    town.clock.advance_to(now + IDLE - 0.1)
    assert town.client.connections == 1
    town.clock.advance_to(now + IDLE + 0.1)
    assert town.client.connections == 0
    assert town.node.core.facts == facts  # the client's time is not the engine's
    town.nothing_is_left()


def test_what_the_client_and_the_engine_wait_for_comes_each_at_its_time() -> None:
    """One timer for both, whichever is earlier."""
    town = Town()
    for call in [town.ask("one"), town.ask("two")]:
        town.run()
        said(call)
    assert town.client.connections == 2
    town.provider.faults = FaultScript([SlowFirstByte(40.0)])
    slow = town.ask("slow", timeout=35.0)
    town.clock.advance(31.0)
    assert (town.client.connections, slow.ended) == (1, False)
    town.run()
    assert isinstance(slow.error, DeadlineExceeded)
    assert slow.ended_at == pytest.approx(slow.submitted_at + 35.0)
    said(town.outcome())
    town.provider.faults = FaultScript([SlowFirstByte(40.0)])
    quick = town.outcome("quick", timeout=5.0)
    assert quick.ended_at == pytest.approx(quick.submitted_at + 5.0)
    town.nothing_is_left()


def test_waiting_for_one_of_few_connections_is_no_failure() -> None:
    town = Town(max_connections=2)
    calls = [town.ask(f"caller {number}") for number in range(9)]
    town.run()
    assert [said(call) for call in calls]
    assert town.provider.connections_total == 2
    town.nothing_is_left()


# ---- every fault -----------------------------------------------------------------------------------------------------

RETRIED: list[tuple[Fault, dict[bool, str]]] = [
    (Throttle(retry_after="1"), {True: "rate_limited", False: "rate_limited"}),
    (Status(503), {True: "server_error", False: "server_error"}),
    (NeverRespond(), {True: "timeout", False: "timeout"}),
    (StallAfterHead(), {True: "timeout", False: "timeout"}),
    (StallAfterChunks(0), {True: "timeout", False: "timeout"}),
    (PingsOnly(1.0), {True: "timeout"}),
    (CloseWithoutResponse(), {True: "network_error", False: "network_error"}),
    (RefuseStream(), {True: "unprocessed", False: "unprocessed"}),
    (GoAway(), {True: "unprocessed", False: "unprocessed"}),
    (ResetAtByte(5), {True: "network_error", False: "network_error"}),
    (Truncate(0), {True: "network_error"}),
    (Break(0), {True: "network_error", False: "network_error"}),
    (ErrorFrame(0), {True: "server_error", False: "server_error"}),
    (GarbageBytes("head"), {True: "protocol_error", False: "protocol_error"}),
    (GarbageBytes("body"), {True: "protocol_error", False: "protocol_error"}),
]
"""What is overcome by a second attempt, and the reason that is given for it; by whether the answer is streamed.

"unprocessed": over HTTP/2 the server says that it has not looked at the request, which then goes again at once.
"""

ENDURED: list[Fault] = [SlowFirstByte(3.0), SlowTokens(2.0), DripBytes(0.01), StallAfterHead(3.0), PingsOnly(0.5, 3)]
"""What is only slow."""

FINAL: list[tuple[Fault, bool, type[InferenceError], type[BaseException] | None]] = [
    (StallAfterChunks(2), True, StreamInterrupted, Timeout),
    (Truncate(2), True, StreamInterrupted, NetworkError),
    (Break(2), True, StreamInterrupted, NetworkError),
    (ErrorFrame(2), True, StreamInterrupted, ServerError),
    (GarbageBytes("sse", 2), True, StreamInterrupted, ProtocolError),
    (DoneWithoutFinish(), True, StreamInterrupted, NetworkError),
    (OversizedEvent(), True, ProtocolError, None),
    (WrongContentType(), True, ProtocolError, None),
    (WrongContentType(), False, ProtocolError, None),
    (OversizedHeader(), True, ProtocolError, None),
    (OversizedHeader(), False, ProtocolError, None),
]
"""What cannot be overcome: the error and, of one that came after content, its cause."""

SHORT: dict[str, Any] = {"request_timeout": 5.0, "read_timeout": 5.0, "content_timeout": 8.0}


def test_every_fault_is_tried() -> None:
    tried = {type(fault) for fault, _ in RETRIED} | {type(fault) for fault in ENDURED} | {type(fault) for fault, *_ in FINAL}
    assert set(FAULTS) == tried | {CloseOnReuse, RotateKeys}  # which have tests of their own


@pytest.mark.parametrize(
    ("fault", "stream", "reason"),
    [
        pytest.param(fault, stream, reason, id=f"{type(fault).__name__}-{'stream' if stream else 'unary'}-{at}")
        for at, (fault, reasons) in enumerate(RETRIED)
        for stream, reason in reasons.items()
    ],
)
def test_what_passes_is_overcome(http2: bool, fault: Fault, stream: bool, reason: str) -> None:
    town = Town(http2=http2, faults=[fault], timeouts=SHORT)
    said(town.outcome(stream=stream))
    if reason == "unprocessed":
        reason = "stale_connection" if http2 else "network_error"
    assert town.node.core.metrics().retries == {reason: 1}
    assert len(town.witness.keys) == town.provider.requests_total == 2
    town.nothing_is_left()


@pytest.mark.parametrize("fault", ENDURED, ids=lambda fault: type(fault).__name__)
def test_what_is_only_slow_is_waited_for(http2: bool, fault: Fault) -> None:
    town = Town(http2=http2, faults=[fault], timeouts=SHORT)
    said(town.outcome())
    assert town.provider.requests_total == 1
    town.nothing_is_left()


@pytest.mark.parametrize(
    ("fault", "stream", "kind", "cause"),
    [
        pytest.param(*case, id=f"{type(case[0]).__name__}-{'stream' if case[1] else 'unary'}-{at}")
        for at, case in enumerate(FINAL)
    ],
)
def test_what_cannot_be_overcome_is_said(
    http2: bool, fault: Fault, stream: bool, kind: type[InferenceError], cause: type[BaseException] | None
) -> None:
    town = Town(http2=http2, then=fault, timeouts=SHORT, conditions=Conditions(piece_bytes=200_000))
    call = town.outcome(stream=stream, output_tokens=4)
    assert isinstance(call.error, kind)
    if cause is None:
        assert call.text == []
    else:
        assert isinstance(call.error.cause, cause)
        assert "".join(call.text) == expected_text(call.plan.said, 4 if isinstance(fault, DoneWithoutFinish) else 2)
    town.nothing_is_left()


@pytest.mark.parametrize("reset", [False, True])
def test_a_connection_closed_while_it_idled_costs_no_retry(http2: bool, reset: bool) -> None:
    town = Town(http2=http2, faults=[None, CloseOnReuse(reset=reset)])
    said(town.outcome("one"))
    said(town.outcome("two"))
    assert [*town.node.core.metrics().retries] == ["stale_connection"]
    assert town.provider.connections_total == 2
    town.nothing_is_left()


def test_after_a_connection_that_was_closed_while_it_idled_comes_a_new_one() -> None:
    town = Town()
    for call in [town.ask("one"), town.ask("two")]:
        town.run()
        said(call)
    town.provider.faults = FaultScript(then=CloseOnReuse())  # all that idle
    said(town.outcome("three"))
    assert town.node.core.metrics().retries == {"stale_connection": 1}
    assert town.provider.connections_total == 3
    town.nothing_is_left()


def test_a_date_to_come_back_at_is_read_by_the_wall_clock() -> None:
    town = Town(faults=[Throttle(retry_date=20.0)])
    call = town.outcome()
    said(call)
    assert call.ended_at is not None
    assert 20.0 <= call.ended_at - call.submitted_at <= 22.5  # a date has whole seconds
    town.nothing_is_left()


def test_a_dial_that_nobody_answers_times_out_and_is_repeated(http2: bool) -> None:
    town = Town(http2=http2, conditions=Conditions(latency=0.02), timeouts={"connect_timeout": 2.0})
    bad = town.bad_network(Conditions(lost=1.0))
    call = town.ask()
    town.clock.advance(2.05 + 0.1)
    town.weather.end(bad)
    town.run()
    said(call)
    assert [*town.node.core.metrics().retries] == ["timeout"]
    town.nothing_is_left()


def test_a_dial_that_is_refused_fails_with_what_was_said(http2: bool) -> None:
    town = Town(http2=http2, conditions=Conditions(refused=1.0))
    call = town.outcome()
    assert isinstance(call.error, NetworkError)
    assert isinstance(call.error.cause, ConnectionRefusedError)
    assert town.node.core.metrics().attempts == 4
    town.nothing_is_left()


def test_connections_that_break_anywhere_leave_nothing_behind(http2: bool) -> None:
    within = 60_000 if http2 else 1_500  # all of them go over one connection, or each has its own
    conditions = Conditions(reset=1.0 if http2 else 0.4, reset_within=within, stalled=0.2, refused=0.1)
    failed = 0
    for seed in range(8):
        town = Town(http2=http2, seed=seed, conditions=conditions, timeouts=SHORT, breaker={"failure_threshold": 1_000})
        calls = [town.ask(f"caller {number}", stream=number % 2 > 0) for number in range(20)]
        town.run()
        for call in calls:
            assert call.error is not None or said_so_far(call)  # what breaks after the finish leaves the usage unknown
        failed += sum(call.error is not None for call in calls)
        town.nothing_is_left()
    assert 0 < failed < 8 * 20


class Unsendable(WireClient):
    """Requests break as they are sent."""

    def line(self, owner: LineOwner) -> WireLine:
        return BrokenLine(self, owner)


class BrokenLine(WireLine):
    """A line that loses its connection in the moment of sending."""

    __slots__ = ()

    def send(self, request: HttpRequest) -> None:
        raise ConnectionResetError("reset by peer")


def test_a_connection_that_breaks_as_the_request_is_sent_is_a_failure_like_others() -> None:
    town = Town(client=Unsendable)
    call = town.outcome()
    assert town.node.core.metrics().retries == {"network_error": 3}
    assert isinstance(call.error, NetworkError)
    assert "reset by peer" in str(call.error)  # what went wrong first, not what followed from it
    town.nothing_is_left()


# ---- readers ---------------------------------------------------------------------------------------------------------


def test_a_slow_reader_is_no_stalled_server(http2: bool) -> None:
    town = Town(http2=http2, timeouts={"read_timeout": 1.0, "content_timeout": 2.0})
    call = town.outcome(reads_every=30.0, output_tokens=6)
    said(call)
    assert call.ended_at is not None
    assert call.ended_at - call.submitted_at > 6 * 30.0
    town.nothing_is_left()


def test_a_server_that_stalls_while_its_reader_waits_is_given_up(http2: bool) -> None:
    town = Town(http2=http2, faults=[StallAfterChunks(2)], timeouts={"read_timeout": 1.0})
    call = town.outcome(reads_every=30.0)
    assert isinstance(call.error, StreamInterrupted)
    assert isinstance(call.error.cause, Timeout)
    town.nothing_is_left()


def test_an_attempt_whose_time_is_over_while_its_reader_is_away_ends_without_it(http2: bool) -> None:
    town = Town(http2=http2, token_delay=1.0, timeouts={"total_timeout": 3.0})
    call = town.ask(output_tokens=30, reads_every=100.0)
    town.clock.advance(5.0)
    assert call.chunks == 1
    assert town.node.core.metrics().in_flight == 0
    assert town.provider.active == 0
    assert not call.ended
    town.run()
    assert isinstance(call.error, StreamInterrupted)
    town.nothing_is_left()


def test_who_wants_the_whole_answer_is_never_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(WireNode, "step_away")
    said(Town().outcome(stream=False))
    with pytest.raises(AttributeError):
        Town().outcome()


def test_a_unary_answer_may_be_read_slowly_too() -> None:
    town = Town()
    said(town.outcome(stream=False, reads_every=3.0))
    town.nothing_is_left()


# ---- credentials -----------------------------------------------------------------------------------------------------


def test_a_rotated_key_is_fetched_and_the_request_goes_again(http2: bool) -> None:
    town = Town(http2=http2, faults=[None, RotateKeys(("sk-two",))])
    said(town.outcome("one"))
    town.vault.store(place_of(town.deployment), "sk-two")
    said(town.outcome("two"))
    assert town.witness.keys == ["sk-one", "sk-one", "sk-two"]
    assert [*town.node.core.metrics().retries] == ["unauthorized"]
    town.nothing_is_left()


def test_a_key_that_stays_wrong_fails(http2: bool) -> None:
    town = Town(http2=http2, keys=("sk-two",))
    call = town.outcome()
    assert isinstance(call.error, Unauthorized)
    assert town.witness.keys == ["sk-one"]


def test_a_vault_that_never_answers_is_not_waited_for_in_vain() -> None:
    town = Town()
    town.vault.break_down(place_of(town.deployment), silent=True)
    call = town.outcome()
    assert isinstance(call.error, Unauthorized)
    assert town.provider.requests_total == 0


# ---- leaving, draining, closing, clocks that jump: at every instant --------------------------------------------------

LIVES: dict[str, Callable[[], tuple[Town, list[Call]]]] = {}
"""The beginnings of worlds with some requests in them."""


def life(begin: Callable[[], tuple[Town, list[Call]]]) -> Callable[[], tuple[Town, list[Call]]]:
    """Sweep over this one too."""
    LIVES[begin.__name__] = begin
    return begin


@life
def a_stream() -> tuple[Town, list[Call]]:
    town = Town()
    return town, [town.ask(output_tokens=4)]


@life
def a_stream_over_http2() -> tuple[Town, list[Call]]:
    town = Town(http2=True)
    return town, [town.ask(output_tokens=4)]


@life
def a_unary_answer() -> tuple[Town, list[Call]]:
    town = Town()
    return town, [town.ask(stream=False)]


@life
def a_slow_reader_over_http2() -> tuple[Town, list[Call]]:
    town = Town(http2=True)
    return town, [town.ask(reads_every=0.7, output_tokens=4)]


@life
def a_slow_reader_whose_time_runs_out() -> tuple[Town, list[Call]]:
    town = Town(token_delay=0.5, timeouts={"total_timeout": 2.0})
    return town, [town.ask(reads_every=0.9, output_tokens=9)]


@life
def one_that_is_retried() -> tuple[Town, list[Call]]:
    town = Town(faults=[Status(503), NeverRespond(), Break(0)], timeouts={"request_timeout": 1.0})
    return town, [town.ask()]


@life
def one_with_a_key_that_was_rotated() -> tuple[Town, list[Call]]:
    town = Town(faults=[RotateKeys(("sk-two",))])
    call = town.ask()
    town.clock.advance(0.11)
    town.vault.store(place_of(town.deployment), "sk-two")
    return town, [call]


@life
def one_that_cannot_connect() -> tuple[Town, list[Call]]:
    town = Town(conditions=Conditions(lost=1.0), timeouts={"connect_timeout": 0.5})
    return town, [town.ask()]


@life
def some_that_wait_for_a_connection() -> tuple[Town, list[Call]]:
    town = Town(max_connections=1)
    return town, [town.ask(f"caller {number}", stream=number % 2 > 0) for number in range(3)]


@life
def some_that_wait_for_a_slot_over_http2() -> tuple[Town, list[Call]]:
    town = Town(http2=True, max_in_flight=2)
    return town, [town.ask(f"caller {number}", timeout=20.0) for number in range(5)]


def instants(
    begin: Callable[[], tuple[Town, list[Call]]], acts: Callable[[Town, list[Call]], None], *, catches_up: float = 0.0
) -> Iterator[int]:
    """The same life again and again, cut into by ``acts`` one step later each time, and then lived to its end."""
    steps = 0
    while True:
        town, calls = begin()
        for _ in range(steps):
            town.clock.step()
        alive = bool(town.node.calls)
        acts(town, calls)
        town.run()
        for call in calls:
            assert call.ended
            assert call.error is not None or call.left or said_so_far(call)
        town.clock.advance(catches_up)
        town.nothing_is_left()
        if not alive:
            return
        steps += 1
        yield steps


@pytest.mark.parametrize("begin", LIVES.values(), ids=LIVES)
def test_who_leaves_at_any_instant_leaves_nothing(begin: Callable[[], tuple[Town, list[Call]]]) -> None:
    def leave(town: Town, calls: list[Call]) -> None:
        call = calls[-1]
        was_over, before = call.ended, town.node.core.metrics()
        town.node.leave(call)
        town.node.leave(call)
        assert call.ended
        assert call.left is not was_over
        assert town.node.core.metrics().cancelled - before.cancelled <= 1
        if len(calls) == 1:
            assert town.node.core.metrics().in_flight == 0

    assert sum(1 for _ in instants(begin, leave)) > 4


@pytest.mark.parametrize("begin", LIVES.values(), ids=LIVES)
def test_who_is_closed_at_any_instant_is_told_so(begin: Callable[[], tuple[Town, list[Call]]]) -> None:
    def close(town: Town, calls: list[Call]) -> None:
        pending = [call for call in calls if not call.ended]
        town.node.close()
        town.run()
        for call in pending:
            caused = call.error.cause if isinstance(call.error, StreamInterrupted) else call.error
            # what had come before, and was not read yet, is a slow reader's all the same
            assert isinstance(caused, EngineClosed) or call.plan.reads_every
        assert town.node.drained
        town.clock.advance(1.0)
        assert (town.client.connections, town.provider.connections_open) == (0, 0)
        assert isinstance(town.outcome("too late").error, EngineClosed)

    assert sum(1 for _ in instants(begin, close)) > 4


@pytest.mark.parametrize("begin", LIVES.values(), ids=LIVES)
def test_who_is_drained_at_any_instant_comes_to_the_end_first(begin: Callable[[], tuple[Town, list[Call]]]) -> None:
    def ends(calls: list[Call]) -> list[tuple[Any, ...]]:
        return [("".join(call.text), type(call.error), call.ended_at) for call in calls]

    undisturbed, calls = begin()
    undisturbed.run()
    wanted = ends(calls)

    def drain(town: Town, calls: list[Call]) -> None:
        town.node.drain()
        refused = town.ask("too late")
        assert isinstance(refused.error, EngineClosed)
        town.run()
        assert town.node.drained
        assert ends(calls) == wanted

    assert sum(1 for _ in instants(begin, drain)) > 4


@pytest.mark.parametrize("jump", [-1e6, -0.3, 0.3, 1e6])
@pytest.mark.parametrize("begin", LIVES.values(), ids=LIVES)
def test_clocks_may_jump_at_any_instant(begin: Callable[[], tuple[Town, list[Call]]], jump: float) -> None:
    """Back: the engine's time stands still until its clock is where it was, and what waits for time has to wait."""
    steps = instants(begin, lambda town, _: town.node.jump(jump, -jump), catches_up=max(0.0, -jump))
    assert sum(1 for _ in steps) > 4


def test_the_timer_is_set_by_the_clock_of_the_node() -> None:
    town = Town(then=NeverRespond(), timeouts={"request_timeout": 50.0}, retry={"max_retries": 0})
    town.vault.store(place_of(town.deployment), "sk-one")
    call = town.ask()
    town.clock.advance(10.0)
    town.node.jump(-100.0, 0.0)
    town.clock.advance(100.0)
    assert not call.ended
    town.run()
    assert call.ended_at is not None
    assert 150.0 <= call.ended_at - call.submitted_at <= 151.0
    other = town.ask("other")
    town.clock.advance(10.0)
    town.node.jump(30.0, 0.0)
    town.run()
    assert other.ended_at is not None
    assert 20.0 <= other.ended_at - other.submitted_at <= 21.0
    town.nothing_is_left()


def test_an_engine_drained_with_nothing_to_do_is_drained() -> None:
    town = Town()
    said(town.outcome())
    town.node.drain()
    assert town.node.drained
    assert town.client.connections == 1  # they are not drained, but closed
    town.node.close()
    assert (town.node.drained, town.client.connections) == (True, 0)


def test_a_reader_that_is_away_when_the_engine_is_closed_has_what_came_before() -> None:
    town = Town(token_delay=0.0)
    call = town.ask(output_tokens=5, reads_every=10.0)
    town.clock.advance(3.0)
    assert call.chunks == 1
    assert town.node.core.metrics().in_flight == 1  # it has not read the end yet, though that has come
    town.node.close()
    assert (town.client.connections, town.node.drained) == (0, True)
    town.run()
    assert isinstance(call.error, EngineClosed)
    town.nothing_is_left()


# ---- faces: who is told by callbacks, and asks for each chunk --------------------------------------------------------


class Reader:
    """A listener that remembers, and may do something with each chunk."""

    def __init__(self, act: Callable[[Call], object] = lambda call: None) -> None:
        self.chunks: list[TokenChunk] = []
        self.ends: list[InferenceError | None] = []
        self.act = act

    def delivered(self, call: Call, chunk: TokenChunk) -> None:
        assert self.ends == []
        self.chunks.append(chunk)
        self.act(call)

    def ended(self, call: Call, error: InferenceError | None) -> None:
        assert call.ended
        self.ends.append(error)

    @property
    def text(self) -> str:
        return "".join(chunk.text_delta or "" for chunk in self.chunks)


CALLER = CallerPlan(number=0, at=0.0, deployment="chat", prompt="hello", output_tokens=4)


def begin(town: Town, listener: Reader, caller: CallerPlan = CALLER, *, stays: bool = False) -> Call:
    add = town.node.core.prepare(0, batch_of(caller), stream=caller.stream)
    call = town.node.start(caller, add, listener, stays=stays)
    assert add.request_id == call.request_id
    return call


def test_a_request_is_submitted_by_the_first_time_its_caller_asks() -> None:
    town, reader = Town(), Reader()
    call = begin(town, reader)
    town.clock.advance(5.0)
    assert town.node.core.metrics().submitted == 0
    town.node.leave(call)
    assert (call.left, reader.ends, town.node.core.facts) == (True, [], 0)
    town.node.ask(call)
    assert town.node.core.facts == 0
    town.nothing_is_left()


def test_each_time_a_caller_asks_it_is_told_of_one_chunk() -> None:
    town, reader = Town(token_delay=1.0), Reader()
    call = begin(town, reader)
    while not reader.ends:
        had = len(reader.chunks)
        town.node.ask(call)
        if len(reader.chunks) == had:
            town.node.ask(call)  # of no effect: it waits already
        town.clock.advance(3.0)
        assert len(reader.chunks) + len(reader.ends) == had + 1
    assert (reader.text, reader.ends) == (expected_text(CALLER.said, 4), [None])
    assert said(call) == reader.text
    town.node.ask(call)
    town.nothing_is_left()


def test_who_asks_again_and_again_while_it_waits_gets_nothing_twice(http2: bool) -> None:
    town, reader = Town(http2=http2), Reader()
    call = begin(town, reader)
    while not reader.ends:
        town.node.ask(call)
        town.clock.step()
    assert reader.text == expected_text(CALLER.said, 4)
    assert (town.provider.requests_total, town.provider.connections_total) == (1, 1)
    assert town.node.core.metrics().attempts == 1
    town.nothing_is_left()


def test_chunks_that_are_there_are_handed_over_without_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a driver's stream does: a caller comes inside only to wait."""
    entered: list[object] = []
    enter = WireNode.enter

    def counted(node: WireNode, call: WireCall) -> None:
        entered.append(call)
        enter(node, call)

    monkeypatch.setattr(WireNode, "enter", counted)
    town = Town(token_delay=0.0, conditions=Conditions(piece_bytes=1_000_000))
    reader = Reader(town.node.ask)
    town.node.ask(begin(town, reader, replace(CALLER, output_tokens=500)))
    town.run()
    assert len(entered) < 50 < 500 <= len(reader.chunks)


def test_who_leaves_makes_room_at_once() -> None:
    town = Town(max_in_flight=1, faults=[NeverRespond()])
    first, second = town.ask("one"), town.ask("two")
    town.clock.advance(3.0)
    town.node.leave(first)
    town.clock.advance(1.0)
    said(second)
    town.nothing_is_left()


def test_a_caller_that_stays_is_told_of_everything_and_never_away(monkeypatch: pytest.MonkeyPatch) -> None:
    town = Town()
    reader = Reader()
    call = begin(town, reader, stays=True)
    monkeypatch.delattr(WireNode, "step_away")
    town.node.ask(call)
    town.run()
    assert (reader.text, reader.ends) == (expected_text(CALLER.said, 4), [None])
    town.nothing_is_left()


@pytest.mark.parametrize("stays", [False, True])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_caller_may_leave_in_the_middle_of_being_told(http2: bool, number: int, stays: bool) -> None:
    town = Town(http2=http2)
    reader = Reader(lambda call: town.node.leave(call) if len(reader.chunks) == number else town.node.ask(call))
    call = begin(town, reader, stays=stays)
    town.node.ask(call)
    town.run()
    assert (call.left, len(reader.chunks), reader.ends) == (True, number, [])
    assert town.node.core.metrics().cancelled == 1
    town.nothing_is_left()


def test_who_asks_from_within_is_not_told_deeper_and_deeper(http2: bool) -> None:
    town = Town(http2=http2, token_delay=0.0, conditions=Conditions(piece_bytes=1_000_000))
    reader = Reader(town.node.ask)
    call = begin(town, reader, replace(CALLER, output_tokens=3_000))
    town.node.ask(call)
    town.run()
    assert reader.text == expected_text(call.plan.said, 3_000)
    town.nothing_is_left()


def test_many_that_come_free_at_once_go_on_one_after_the_other() -> None:
    town = Town(max_in_flight=1)
    readers = [Reader() for _ in range(2_000)]
    for reader in readers:
        town.node.ask(begin(town, reader))
    town.clock.advance(0.3)
    town.node.close()
    town.run()
    assert all(isinstance(reader.ends[0], EngineClosed) for reader in readers)
    town.nothing_is_left()


def ended_then(town: Town, act: Callable[[], None]) -> tuple[Call, Reader, Call]:
    """Two requests, one slot: ``act`` at the moment in which the first is over, and the second has just come free."""

    class Acting(Reader):
        def ended(self, call: Call, error: InferenceError | None) -> None:
            super().ended(call, error)
            act()

    first = begin(town, Acting(), stays=True)
    reader = Reader(town.node.ask)
    second = begin(town, reader)
    town.node.ask(first)
    town.node.ask(second)
    return first, reader, second


def test_one_that_has_just_come_free_may_still_leave() -> None:
    town = Town(max_in_flight=1)
    first, reader, second = ended_then(town, lambda: town.node.leave(second))
    town.run()
    said(first)
    assert (second.left, reader.ends, town.node.core.metrics().attempts) == (True, [], 2)
    assert town.provider.requests_total == 1
    town.nothing_is_left()


def test_one_that_has_just_come_free_may_still_be_stopped() -> None:
    town = Town(max_in_flight=1)
    first, reader, _ = ended_then(town, town.node.close)
    town.run()
    said(first)
    assert isinstance(reader.ends[0], EngineClosed)
    assert town.node.drained
    town.nothing_is_left()


class Recorder:
    """Keeps what the engine was asked for."""

    def __init__(self) -> None:
        self.asked: list[AddRequest] = []

    def observed(self, event: Event, effects: Sequence[Effect], now: float, unix_now: float) -> None:
        if isinstance(event, AddRequest):
            self.asked.append(event)


def test_a_request_says_what_its_plan_says() -> None:
    town, recorder = Town(), Recorder()
    town.node.core.observers = (recorder,)
    caller = CallerPlan(
        number=7,
        at=0.0,
        deployment="chat",
        prompt="hello",
        output_tokens=9,
        stream=False,
        priority=Priority.HIGH,
        tenant="them",
        timeout=12.5,
        wait_for_circuit=True,
    )
    call = town.node.submit(caller)
    [add] = recorder.asked
    assert (add.request_id, add.deployment, add.batch, add.stream) == (call.request_id, "chat", batch_of(caller), False)
    assert (add.priority, add.tenant, add.timeout, add.wait_for_circuit) == (Priority.HIGH, "them", 12.5, True)
    assert add.estimate.output_tokens == 9


def test_what_cannot_be_asked_is_refused_before_anybody_knows_of_it() -> None:
    town = Town()
    with pytest.raises(ValueError, match="deployment: 'nobody'"):
        town.node.submit(replace(CALLER, deployment="nobody"))
    assert town.node.calls == {}


def test_a_caller_is_refused_like_any_other_where_the_engine_has_no_room() -> None:
    town = Town(limits={"tokens_per_minute": 10})
    call = town.outcome(output_tokens=50)
    assert isinstance(call.error, LimitExceeded)
    assert call.ended_at == call.submitted_at
    town.nothing_is_left()


def test_two_runs_are_the_same_to_the_byte(http2: bool) -> None:
    def run() -> list[tuple[Any, ...]]:
        town = Town(http2=http2, conditions=Conditions(reset=0.3, piece_bytes=100), timeouts=SHORT)
        calls = [town.ask(f"caller {number}", reads_every=number % 2 * 0.1) for number in range(30)]
        town.run()
        return [("".join(call.text), str(call.error), call.ended_at) for call in calls]

    assert run() == run()
