"""The ground that a world stands on: virtual time, chance, the weather, the vault, and a node's clocks."""

from __future__ import annotations

import heapq
import math
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_harness import deployment
from hypothesis import given
from hypothesis import strategies as st

from sansio.batch import TokenChunk, TokenUsage
from sansio.deployment import Deployment, RemoteEngineConfig
from sansio.errors import InferenceError, NetworkError
from sansio.events import Drained, Effect, Event, RefreshSession, StartAttempt, Tick
from sansio.http import HttpRequest
from sansio.secret import Credential
from sansio.simulation.provider.answers import expected_text
from sansio.simulation.provider.faults import CloseOnReuse, NeverRespond, Status
from sansio.simulation.provider.formats import Ask
from sansio.simulation.world.clock import UNIX_START, Timer, VirtualClock, chance
from sansio.simulation.world.node import Call, Node, batch_of
from sansio.simulation.world.plan import BadNetwork, CallerPlan, Conditions, Faults
from sansio.simulation.world.vault import Vault, place_of
from sansio.simulation.world.weather import Weather, WeatherScript

INSTANTS = st.floats(min_value=0.0, max_value=1e6)

# ---- virtual time ------------------------------------------------------------------------------------------------------


class Diary:
    """What happened, and when."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.entries: list[tuple[float, object]] = []

    def note(self, what: object) -> Callable[[], None]:
        return lambda: self.entries.append((self.clock.now, what))


@pytest.mark.parametrize("seconds", [-3.0, -1e-9, -math.inf, math.nan])
def test_time_does_not_turn_back(seconds: float) -> None:
    clock = VirtualClock()
    with pytest.raises(ValueError, match=r"^seconds: "):
        clock.advance(seconds)
    assert clock.now == 0.0
    clock.advance(0)


def test_what_is_due_happens_at_its_time_in_order_and_at_the_same_instant_as_it_was_scheduled() -> None:
    clock = VirtualClock()
    diary = Diary(clock)
    for when, what in [(2.0, "c"), (1.0, "a"), (2.0, "d"), (1.0, "b"), (3.0, "e")]:
        clock.call_at(when, diary.note(what))
    clock.advance_to(2.5)
    assert diary.entries == [(1.0, "a"), (1.0, "b"), (2.0, "c"), (2.0, "d")]
    assert clock.now == 2.5
    clock.advance(0.5)
    assert diary.entries[4:] == [(3.0, "e")]


def test_a_step_is_one_action() -> None:
    clock = VirtualClock(start=10.0)
    diary = Diary(clock)
    clock.call_later(1.0, diary.note("a"))
    clock.call_later(1.0, diary.note("b"))
    assert not clock.step(until=10.5)
    assert (clock.now, diary.entries) == (10.0, [])
    assert clock.next() == 11.0
    assert clock.step(until=11.0)
    assert diary.entries == [(11.0, "a")]
    assert clock.step()
    assert not clock.step()
    assert clock.next() is None


def test_what_an_action_schedules_happens_after_what_was_there() -> None:
    clock = VirtualClock()
    diary = Diary(clock)

    def schedule() -> None:
        clock.call_at(0.5, diary.note("late for 0.5, so at once"))

    clock.call_at(1.0, schedule)
    clock.call_at(1.0, diary.note("was there"))
    clock.advance(1.0)
    assert diary.entries == [(1.0, "was there"), (1.0, "late for 0.5, so at once")]


def test_what_is_past_happens_at_the_present_instant_and_time_does_not_go_back() -> None:
    clock = VirtualClock()
    diary = Diary(clock)
    clock.advance_to(5.0)
    assert clock.call_at(1.0, diary.note("x")).when == 5.0
    clock.advance_to(4.0)
    assert (clock.now, diary.entries) == (5.0, [])
    clock.advance_to(5.0)
    assert diary.entries == [(5.0, "x")]


def test_what_is_cancelled_does_not_happen() -> None:
    clock = VirtualClock()
    diary = Diary(clock)
    timers = [clock.call_at(1.0, diary.note(number)) for number in range(3)]
    timers[1].cancel()
    timers[1].cancel()
    clock.advance(2.0)
    assert [what for _, what in diary.entries] == [0, 2]
    assert all(timer.action is None for timer in timers)
    timers[0].cancel()
    assert clock.next() is None


def test_an_action_may_cancel_itself_and_others() -> None:
    clock = VirtualClock()
    diary = Diary(clock)
    timers: list[Timer] = []

    def cancel_all() -> None:
        for timer in timers:
            timer.cancel()

    timers.append(clock.call_at(1.0, cancel_all))
    timers.append(clock.call_at(1.0, diary.note("x")))
    clock.advance(1.0)
    assert diary.entries == []


def test_never_is_never() -> None:
    clock = VirtualClock()
    timer = clock.call_at(math.inf, lambda: pytest.fail("it came"))
    assert clock.next() is None
    assert not clock.step()
    clock.advance(1e9)
    assert timer.when == math.inf
    timer.cancel()


@pytest.mark.parametrize("never", [math.nan, -math.inf])
def test_what_is_no_instant_is_refused(never: float) -> None:
    clock = VirtualClock()
    with pytest.raises(ValueError, match=r"when: .* is not an instant"):
        clock.call_at(never, lambda: None)


@pytest.mark.parametrize("endless", [math.nan, math.inf, -math.inf])
def test_time_does_not_move_to_what_is_no_finite_instant(endless: float) -> None:
    clock = VirtualClock()
    clock.call_later(1.0, lambda: pytest.fail("it came"))
    with pytest.raises(ValueError, match=r"when: .* finite number"):
        clock.advance_to(endless)
    with pytest.raises(ValueError, match=r"unix_now: .* finite number"):
        clock.set_wall_clock(endless)
    with pytest.raises(ValueError, match=r"^start: .* finite number"):
        VirtualClock(start=endless)
    with pytest.raises(ValueError, match=r"unix_start: .* finite number"):
        VirtualClock(unix_start=endless)
    assert clock.now == 0.0


def test_no_step_is_taken_by_an_instant_that_is_no_number() -> None:
    clock = VirtualClock()
    clock.call_later(1.0, lambda: pytest.fail("it came"))
    assert not clock.step(until=math.nan)


def test_the_wall_clock_goes_along_and_can_be_set() -> None:
    clock = VirtualClock(start=100.0)
    assert clock.unix_now == UNIX_START
    clock.advance(5.0)
    assert clock.unix_now == UNIX_START + 5.0
    clock.set_wall_clock(1_000.0)
    assert (clock.now, clock.unix_now) == (105.0, 1_000.0)
    clock.advance(1.0)
    assert clock.unix_now == 1_001.0


@given(st.lists(st.tuples(INSTANTS, st.booleans()), max_size=60), st.lists(INSTANTS, max_size=10))
def test_any_agenda_runs_in_order(plans: list[tuple[float, bool]], stops: list[float]) -> None:
    """Against a list that is sorted once, which keeps the order of equals."""
    clock = VirtualClock()
    diary = Diary(clock)
    timers = [clock.call_at(when, diary.note(number)) for number, (when, _) in enumerate(plans)]
    for timer, (_, cancelled) in zip(timers, plans, strict=True):
        if cancelled:
            timer.cancel()
    wanted = [(when, number) for number, (when, cancelled) in enumerate(plans) if not cancelled]
    wanted.sort(key=lambda entry: entry[0])
    for stop in sorted(stops):
        clock.advance_to(stop)
        assert clock.now == stop
        assert diary.entries == [entry for entry in wanted if entry[0] <= stop]
    clock.advance_to(1e6)
    assert diary.entries == wanted


def test_the_agenda_does_not_fill_with_what_is_not_going_to_happen(monkeypatch: pytest.MonkeyPatch) -> None:
    longest = 0

    def push(heap: list[Any], entry: Any) -> None:
        nonlocal longest
        original(heap, entry)
        longest = max(longest, len(heap))

    original = heapq.heappush
    monkeypatch.setattr(heapq, "heappush", push)
    clock = VirtualClock()
    diary = Diary(clock)
    kept = [clock.call_at(1_000.0 + number, diary.note(number)) for number in range(50)]
    timer = clock.call_at(999.0, lambda: None)
    for number in range(20_000):  # as a deadline that is moved by each request
        timer.cancel()
        timer = clock.call_at(2_000.0 + number % 7, lambda: None)
    assert longest < 300
    clock.advance_to(1_999.0)
    assert [what for _, what in diary.entries] == list(range(50))
    assert [entry.action for entry in kept] == [None] * 50


@pytest.fixture
def sweeps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How long each agenda was after it had been cleared of what is not going to happen."""
    found: list[int] = []

    def heapify(heap: list[Any]) -> None:
        original(heap)
        found.append(len(heap))

    original = heapq.heapify
    monkeypatch.setattr(heapq, "heapify", heapify)
    return found


def test_the_agenda_is_cleared_only_when_it_pays(sweeps: list[int]) -> None:
    clock = VirtualClock()
    for _ in range(10_000):
        clock.call_later(1.0, lambda: None).cancel()
    assert 50 < len(sweeps) < 200
    assert set(sweeps) == {0}


def test_what_is_not_in_the_agenda_is_not_cleared_from_it(sweeps: list[int]) -> None:
    clock = VirtualClock()
    timer = clock.call_later(1.0, lambda: None)
    for _ in range(1_000):
        clock.call_later(0.5, lambda: None).cancel()
        assert clock.next() == 1.0  # it has looked, and found it gone
    clock.advance(2.0)
    for _ in range(1_000):
        timer.cancel()
    assert sweeps == []


# ---- chance ------------------------------------------------------------------------------------------------------------


def test_chances_are_of_their_own() -> None:
    def draws(*purpose: object) -> list[float]:
        rng = chance(7, *purpose)
        return [rng.random() for _ in range(3)]

    assert draws("vault") == draws("vault")
    assert draws("vault") != draws("weather")
    assert draws("network", "one", 1) != draws("network", "one", 2)
    assert chance(8, "vault").random() != chance(7, "vault").random()


def test_chance_is_the_same_under_every_hash_seed() -> None:
    program = (
        "from sansio.simulation.world.clock import chance\n"
        "from sansio.queue import Priority\n"
        "print(chance(3, 'network', ('a', 1.5), Priority.HIGH).random())"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=Path(__file__).parent.parent,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "4294967295")
    }
    assert len(said) == 1


# ---- the weather -------------------------------------------------------------------------------------------------------

FAIR = Conditions()
DOWN = Status(503)


def faults(*rates: tuple[Any, float], number: int = 0) -> Faults:
    return Faults(number, 0.0, 10.0, "one.test", rates)


def test_of_several_bad_networks_the_last_to_come_is_felt() -> None:
    weather = Weather(random.Random(1), FAIR)
    slow, broken = Conditions(latency=3.0), Conditions(reset=1.0)
    first, second = BadNetwork(0, 0.0, 5.0, "one.test", slow), BadNetwork(1, 1.0, 5.0, "one.test", broken)
    assert weather.conditions is FAIR
    weather.begin(first)
    weather.begin(second)
    assert weather.conditions is broken
    weather.end(second)
    assert weather.conditions is slow
    weather.end(second)
    weather.end(first)
    assert weather.conditions is FAIR


def test_the_same_disturbance_twice_is_two_and_each_ends_by_itself() -> None:
    """Equal values are not the same disturbance."""
    weather = Weather(random.Random(1), FAIR)
    first, second = faults((DOWN, 1.0)), faults((DOWN, 1.0))
    weather.begin(first)
    weather.begin(second)
    weather.end(first)
    assert weather.draw(reused=False) == DOWN
    weather.end(second)
    assert weather.draw(reused=False) is None


def test_the_same_bad_network_twice_is_two_as_well() -> None:
    weather = Weather(random.Random(1), FAIR)
    first, second = (BadNetwork(0, 0.0, 5.0, "one.test", Conditions(latency=3.0)) for _ in range(2))
    weather.begin(first)
    weather.begin(second)
    weather.end(first)
    assert weather.conditions is second.conditions


def test_the_same_faults_begun_twice_end_twice() -> None:
    weather = Weather(chance(0), Conditions())
    outage, later = (Faults(1, 0.0, 1.0, "api.test", ((Status(status), 1.0),)) for status in (503, 500))
    weather.begin(outage)
    weather.begin(later)
    weather.begin(outage)
    weather.end(later)
    weather.end(outage)
    assert weather.draw(reused=False) == Status(503)
    weather.end(outage)
    weather.end(outage)
    assert weather.draw(reused=False) is None


def test_the_same_network_begun_twice_ends_twice() -> None:
    weather = Weather(chance(0), Conditions())
    gust = BadNetwork(1, 0.0, 1.0, "api.test", Conditions(latency=3.0))
    weather.begin(gust)
    weather.begin(gust)
    weather.end(gust)
    assert weather.conditions is gust.conditions
    weather.end(gust)
    weather.end(gust)
    assert weather.conditions == Conditions()


def test_faults_of_one_number_are_drawn_independently_and_of_several_as_their_numbers_say() -> None:
    def drawn(*numbers: int) -> list[bool]:
        weather = Weather(chance(0), Conditions())
        for number in numbers:
            weather.begin(Faults(number, 0.0, 1.0, "api.test", ((Status(503), 0.5),)))
        return [weather.draw("a", reused=False) is not None for _ in range(1_000)]

    assert 450 < sum(drawn(1)) < 550
    assert 700 < sum(drawn(1, 1)) < 800
    assert 830 < sum(drawn(1, 1, 1)) < 920
    one, two = drawn(1), drawn(2)
    assert drawn(1, 2) == [a or b for a, b in zip(one, two, strict=True)]


def test_faults_strike_as_often_as_they_say_and_each_of_several_may() -> None:
    weather = Weather(random.Random(5), FAIR)
    weather.begin(faults((DOWN, 0.2), (NeverRespond(), 0.1)))
    weather.begin(faults((Status(500), 0.5), number=1))
    drawn = [weather.draw(reused=False) for _ in range(4_000)]
    assert drawn.count(DOWN) == pytest.approx(800, rel=0.1)
    assert drawn.count(NeverRespond()) == pytest.approx(400, rel=0.15)
    assert drawn.count(Status(500)) == pytest.approx(0.7 * 0.5 * 4_000, rel=0.1)


def test_what_needs_a_used_connection_waits_for_one_and_leaves_the_rest_their_chance() -> None:
    weather = Weather(random.Random(1), FAIR)
    weather.begin(faults((CloseOnReuse(), 1.0)))
    assert weather.draw(reused=False) is None
    weather.begin(faults((DOWN, 1.0)))
    assert weather.draw(reused=False) == DOWN
    assert weather.draw(reused=True) == CloseOnReuse()


def test_what_waits_for_a_used_connection_is_not_replaced_by_another() -> None:
    weather = Weather(random.Random(5), FAIR)
    weather.begin(faults((CloseOnReuse(), 0.5), (DOWN, 0.2)))
    drawn = [weather.draw(reused=False) for _ in range(4_000)]
    assert drawn.count(DOWN) == pytest.approx(800, rel=0.1)
    assert drawn.count(None) == 4_000 - drawn.count(DOWN)


def test_what_somebody_meets_does_not_hang_on_who_else_asks() -> None:
    alone, among_others = (Weather(random.Random(3), FAIR) for _ in range(2))
    for weather in (alone, among_others):
        weather.begin(faults((DOWN, 0.5)))
    mine: list[object] = []
    for _ in range(50):
        among_others.draw("somebody else", reused=False)
        mine.append(among_others.draw("me", reused=False))
    assert mine == [alone.draw("me", reused=False) for _ in range(50)]
    assert {DOWN, None} == set(mine)


def test_the_weather_clears() -> None:
    weather = Weather(random.Random(1), FAIR)
    network = BadNetwork(0, 0.0, 5.0, "one.test", Conditions(lost=1.0))
    weather.begin(faults((DOWN, 1.0)))
    weather.begin(network)
    weather.clear()
    assert weather.draw(reused=True) is None
    assert weather.conditions is FAIR
    weather.end(network)


def test_a_provider_asks_the_weather() -> None:
    weather = Weather(random.Random(1), FAIR)
    script = WeatherScript(weather)
    ask = Ask(model="m", prompt="hello", stream=True)
    assert script.pick(ask) is None
    weather.begin(faults((CloseOnReuse(), 1.0)))
    assert script.pick(ask) is None
    assert script.pick(ask, reused=True) == CloseOnReuse()


# ---- the vault ---------------------------------------------------------------------------------------------------------


class Desk:
    """Somebody who fetches."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.vault = Vault(self.clock, random.Random(1), delay=0.5)
        self.reports: list[tuple[float, Credential | InferenceError]] = []

    def fetch(self, place: str = "one", wall_ahead: float = 0.0) -> None:
        self.vault.fetch(place, wall_ahead, lambda result: self.reports.append((self.clock.now, result)))


def test_a_key_comes_after_a_while_as_it_is_then() -> None:
    desk = Desk()
    desk.vault.store("one", "sk-old")
    desk.fetch()
    desk.vault.store("one", "sk-new")
    desk.clock.advance(10.0)
    [(at, credential)] = desk.reports
    assert 0.5 <= at <= 1.0
    assert isinstance(credential, Credential)
    assert (credential.reveal(), credential.expires_at_unix) == ("sk-new", None)
    assert desk.vault.handed_out == [credential]


def test_what_it_has_given_out_is_secret() -> None:
    desk = Desk()
    assert desk.vault.secrets() == []
    for key in ("sk-one", "sk-two"):
        desk.vault.store("one", key)
        desk.fetch()
        desk.clock.advance(10.0)
    assert desk.vault.secrets() == ["sk-one", "sk-two"]


def test_how_long_it_takes_differs() -> None:
    desk = Desk()
    desk.vault.store("one", "sk-one")
    for _ in range(50):
        desk.fetch()
    desk.clock.advance(10.0)
    times = [at for at, _ in desk.reports]
    assert len(set(times)) > 40
    assert min(times) >= 0.5
    assert max(times) <= 1.0


def test_a_key_lives_for_a_while_on_the_clock_of_who_asked() -> None:
    desk = Desk()
    desk.vault.store("one", "sk-one", lifetime=60.0)
    desk.fetch(wall_ahead=1_000.0)
    desk.clock.advance(10.0)
    [(at, credential)] = desk.reports
    assert isinstance(credential, Credential)
    assert credential.expires_at_unix == pytest.approx(UNIX_START + at + 1_000.0 + 60.0, abs=1e-3)


def test_a_vault_that_is_down_answers_with_an_error_or_not_at_all() -> None:
    desk = Desk()
    desk.vault.store("one", "sk-one")
    desk.vault.store("two", "sk-two")
    desk.vault.break_down("one", silent=False)
    desk.fetch()
    desk.fetch("two")
    desk.clock.advance(5.0)
    assert sorted(type(result).__name__ for _, result in desk.reports) == ["Credential", "NetworkError"]
    desk.vault.break_down("one", silent=True)
    desk.fetch()
    desk.clock.advance(5.0)
    assert len(desk.reports) == 2
    desk.vault.repair("one")
    desk.vault.repair("one")
    desk.clock.advance(5.0)
    assert len(desk.reports) == 2
    desk.fetch()
    desk.clock.advance(5.0)
    assert [credential.reveal() for credential in desk.vault.handed_out] == ["sk-two", "sk-one"]


def test_a_place_without_a_key_is_a_mistake_that_is_said_at_once() -> None:
    with pytest.raises(ValueError, match="place: no key is kept at 'one'; store one"):
        Desk().fetch()


def test_two_deployments_of_one_host_may_keep_two_keys() -> None:
    one, other = deployment("a", key="sk-a"), deployment("b", key="sk-b")
    elsewhere = deployment("c", key="sk-a", endpoint="http://two.test/v1")
    assert len({place_of(one), place_of(other)}) == 2
    assert place_of(elsewhere) == place_of(one), "the same secret, at whichever host"
    assert place_of(one) == place_of(deployment("d", key="sk-a"))
    assert "sk-a" not in place_of(one)


# ---- a node's clocks ---------------------------------------------------------------------------------------------------


class BareNode(Node):
    """A node whose requests go nowhere: it keeps what its engine orders, and carries out refreshes."""

    def __init__(self, clock: VirtualClock, vault: Vault, *deployments: Deployment) -> None:
        config = RemoteEngineConfig.of(deployments or deployment())
        super().__init__(clock, config, seed=1, vault=vault)
        self.vault, self.place = vault, place_of(config.deployments[0])
        vault.store(self.place, "sk-one", lifetime=3_600.0)
        self.effects: list[Effect] = []
        self.ticks: list[float] = []

    def tell(self, event: Event) -> None:
        if isinstance(event, Tick):
            self.ticks.append(self.clock.now)
            assert self.core.deadline() is not None
        effects = self.core.handle(event, self.now(), self.unix_now())
        self.effects += effects
        for effect in effects:
            if isinstance(effect, RefreshSession):
                self.refresh(effect)
        self.rearm()

    def submit(self, caller: CallerPlan) -> Call:
        call = self.new_call(caller)
        self.tell(self.core.prepare(call.request_id, batch_of(caller), deployment=caller.deployment, timeout=caller.timeout))
        return call

    def leave(self, call: Call) -> None:
        self.end(call, None, left=True)

    def ordered(self, kind: type[Effect]) -> int:
        return sum(isinstance(effect, kind) for effect in self.effects)


CALLER = CallerPlan(number=0, at=0.0, deployment="chat", prompt="hello", timeout=100.0)


def bare_node(start: float = 0.0, ahead: float = 0.0) -> BareNode:
    clock = VirtualClock(start)
    node = BareNode(clock, Vault(clock, random.Random(1)))
    node.ahead = ahead
    return node


def waiting(node: BareNode) -> BareNode:
    """Its one request waits for a credential that never comes; refreshes are repeated, and it has 100 seconds."""
    node.vault.break_down(node.place, silent=True)
    node.submit(CALLER)
    return node


def test_a_node_fetches_its_credential_and_goes_on() -> None:
    node = bare_node()
    node.submit(CALLER)
    assert node.ordered(RefreshSession) == 1
    node.clock.advance(1.0)
    assert node.ordered(StartAttempt) == 1
    assert node.ticks == []


def test_a_credential_expires_by_the_clock_of_its_node() -> None:
    node = bare_node()
    node.jump(0.0, -5_000.0)
    node.submit(CALLER)
    assert node.clock.step()
    assert node.ordered(StartAttempt) == 1
    assert node.vault.handed_out[0].expires_at_unix == pytest.approx(node.unix_now() + 3_600.0, abs=1e-3)


def test_each_deployment_has_its_own_key() -> None:
    clock = VirtualClock()
    other = deployment("other", key="sk-other")
    node = BareNode(clock, Vault(clock, random.Random(1)), deployment(), other)
    node.vault.store(place_of(other), "sk-two")
    node.submit(replace(CALLER, deployment="other"))
    clock.advance(1.0)
    assert [credential.reveal() for credential in node.vault.handed_out] == ["sk-two"]
    node.submit(CALLER)
    clock.advance(1.0)
    assert [credential.reveal() for credential in node.vault.handed_out] == ["sk-two", "sk-one"]


def test_a_node_is_drained_and_closed() -> None:
    node = bare_node()
    node.drain()
    node.close()
    assert node.ordered(Drained) == 2
    node.clock.advance(1e4)
    assert node.ticks == []


def test_the_timer_fires_when_something_is_due() -> None:
    node = waiting(bare_node(start=50.0))
    due = node.core.deadline()
    assert due is not None
    node.clock.advance_to(due - 1e-6)
    assert node.ticks == []
    node.clock.advance_to(due)
    assert node.ticks == [due]


@pytest.mark.parametrize("ahead", [0.0, 1e6, -1e3])
@pytest.mark.parametrize("jumped", [-1_000.0, -7.5, 7.5])
def test_a_timer_fires_by_the_clock_of_its_node_also_after_a_jump(ahead: float, jumped: float) -> None:
    node = waiting(bare_node(ahead=ahead))
    node.clock.advance(2.0)
    due = node.core.deadline()
    assert due is not None
    node.jump(jumped, 0.0)
    node.clock.advance(due - node.now() - 1e-6)
    assert node.ticks == []
    node.clock.advance(2e-6)
    assert node.ticks == [pytest.approx(due - ahead - jumped)]


def test_a_jump_past_a_deadline_is_noticed_at_once() -> None:
    node = waiting(bare_node())
    node.clock.advance(2.0)
    node.jump(1e5, 0.0)
    node.clock.advance(0.0)
    assert node.ticks == [2.0]


def test_a_timer_that_fires_too_early_is_set_again() -> None:
    """It is never moved later, as that would cost something with every request."""
    node = waiting(bare_node())
    due = node.core.deadline()
    assert due is not None
    node.jump(-5.0, 0.0)
    node.clock.advance_to(due)
    assert node.ticks == []
    node.clock.advance_to(due + 5.0)
    assert node.ticks == [due + 5.0]


def test_a_timer_that_nobody_needs_any_more_does_nothing() -> None:
    node = waiting(bare_node())
    node.close()
    node.clock.advance(1e4)
    assert node.ticks == []
    assert node.clock.next() is None


def test_a_timer_that_is_moved_leaves_none_behind() -> None:
    node = waiting(bare_node())
    node.clock.advance(1.0)  # the vault says nothing
    due = node.core.deadline()
    assert due is not None
    node.jump(5.0, 0.0)
    assert node.clock.next() == pytest.approx(due - 5.0)
    node.close()
    assert node.clock.step()
    assert node.clock.next() is None


def test_a_timer_that_is_overdue_keeps_its_place() -> None:
    """Or who minds the timer often enough would put it off within the instant."""
    node = waiting(bare_node())
    diary = Diary(node.clock)
    node.jump(1e5, 0.0)
    node.clock.call_later(0.0, lambda: diary.entries.append((0.0, len(node.ticks))))
    node.rearm()
    node.clock.advance(0.0)
    assert diary.entries == [(0.0, 1)]


def test_a_wall_clock_that_is_set_moves_no_timer() -> None:
    node = waiting(bare_node())
    due = node.core.deadline()
    node.jump(0.0, -3_600.0)
    assert node.unix_now() == node.clock.unix_now - 3_600.0
    assert (node.core.deadline(), node.now()) == (due, node.clock.now)
    node.clock.set_wall_clock(5_000.0)
    assert node.unix_now() == 1_400.0


@given(
    ahead=st.floats(min_value=-1e9, max_value=1e9),
    start=st.floats(min_value=0.0, max_value=1e9),
    passed=st.floats(min_value=0.0, max_value=1e3),
)
def test_no_rounding_makes_a_timer_fire_for_ever(ahead: float, start: float, passed: float) -> None:
    """A node's time is a sum, so the instant at which it shows a deadline is only known up to rounding; a timer that fires
    a hair too early would be set for the same instant again."""
    node = bare_node(start, ahead)
    node.clock.advance(passed)
    waiting(node)
    for _ in range(20):
        due = node.core.deadline()
        if due is None or due > node.now() + 200.0:
            break
        facts, before = node.core.facts, node.now()
        assert node.clock.step()
        assert node.now() >= before
        assert node.core.facts > facts or node.now() < due  # either it was told, or time has gone on
        assert node.core.facts == facts or node.now() >= due
    else:
        pytest.fail("twenty steps for a handful of deadlines")


# ---- what a caller sees ------------------------------------------------------------------------------------------------


class Witness:
    """Hears all that a `CallObserver` hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[object, ...]] = []

    def sent(self, call: Call, key: str | None, now: float, unix_now: float) -> None:
        self.heard.append(("sent", call.request_id, key, now, unix_now))

    def delivered(self, call: Call, chunk: TokenChunk) -> None:
        self.heard.append(("delivered", call.request_id, chunk))

    def ended(self, call: Call) -> None:
        self.heard.append(("ended", call.request_id, call.error, call.left))


def test_a_call_remembers_what_its_caller_saw_and_the_watchers_hear_of_it() -> None:
    node, witness = bare_node(ahead=10.0), Witness()
    node.watchers = (witness,)
    node.clock.advance(3.0)
    call = node.new_call(CALLER)
    assert (node.calls, call.submitted_at) == ({1: call}, 3.0)
    chunks = [TokenChunk("he"), TokenChunk("llo", finish_reason="stop"), TokenChunk(usage=TokenUsage(3, 2))]
    for chunk in chunks:
        node.hand_over(call, chunk)
    assert (call.text, call.chunks, call.finish_reason, call.usage) == (["he", "llo"], 3, "stop", TokenUsage(3, 2))
    node.clock.advance(1.0)
    error = NetworkError("gone")
    node.end(call, error)
    assert (call.ended, call.left, call.error, call.ended_at, node.calls) == (True, False, error, 4.0, {})
    assert witness.heard == [*(("delivered", 1, chunk) for chunk in chunks), ("ended", 1, error, False)]


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ((("accept", "*/*"), ("authorization", "Bearer sk-one")), "sk-one"),
        ((("authorization", "bearer sk-one"),), "sk-one"),
        ((("authorization", "Basic c2st"),), None),
        ((), None),
    ],
)
def test_the_key_of_a_request_is_read_from_its_header(headers: tuple[tuple[str, str], ...], key: str | None) -> None:
    node, witness = bare_node(ahead=10.0), Witness()
    node.watchers = (witness,)
    node.jump(0.0, 5.0)
    call = node.new_call(CALLER)
    assert node.sending(call, HttpRequest("POST", "http://one.test/v1", headers)) == key
    assert witness.heard == [("sent", 1, key, 10.0, UNIX_START + 5.0)]


def test_what_a_caller_says_tells_the_provider_how_long_to_answer() -> None:
    caller = CallerPlan(number=3, at=0.0, deployment="chat", prompt="hello", output_tokens=2)
    assert batch_of(caller).messages[0].content == caller.said == "hello #tokens=2"
    assert batch_of(caller).max_output_tokens == 2
    assert expected_text(caller.said, 2) == "[hello #tokens=2] w1"
    unlimited = CallerPlan(number=3, at=0.0, deployment="chat", prompt="hello", limits_output=False)
    assert batch_of(unlimited).max_output_tokens is None
