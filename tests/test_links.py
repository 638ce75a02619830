"""`sansio.links`: what the engine asks the store, when, whom the answers reach, and how a process takes its leave."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from engine_harness import UNIX_AHEAD, Rig, deployment
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from test_shared_limiter import CALM, HUNGRY, Part

from sansio import sharing
from sansio.batch import TokenUsage
from sansio.cluster.config import ClusterConfig
from sansio.cluster.shared_limiter import SharedRateLimiter
from sansio.cluster.store import Publish, Published, StoreLost, StoreReply, Swapped
from sansio.deployment import Deployment, RemoteEngineConfig
from sansio.engine import RemoteEngineCore
from sansio.errors import NetworkError
from sansio.events import AskStore, Complete, Drained, Effect, Event, Notice, StartAttempt, StoreReport, Tick
from sansio.rate_limit import RateLimiter, RateLimits, quotas_of
from sansio.simulation.world.shared_store import SharedStore
from sansio.trace import trace_line

HIDDEN = "hunter2hunter2"
URL = f"redis://:{HIDDEN}@cache.test"
LIMITS = {"requests_per_minute": 10, "tokens_per_minute": 1_000, "concurrent_requests": 5}
ALL = (10, 1_000, 5)
ANSWER = Published({}, 0.0)
FAREWELL = Publish("board", "me", b"", 1.0)
PATIENCE = 4.0
"""Seconds after which a driver that does not report is not waited for: four times the time that the store has."""


class Parts:
    """Takes the place of what makes limiters: each is shared, and its member holds what the test says."""

    def __init__(self, *allowed: int) -> None:
        self.allowed = allowed
        self.made: list[Part] = []
        self.asked: list[tuple[ClusterConfig, str, str]] = []

    def __call__(self, limits: RateLimits, cluster: ClusterConfig | None, name: str, member: str) -> RateLimiter:
        if cluster is None:
            return RateLimiter(limits)
        self.asked.append((cluster, name, member))
        part = Part(quotas_of(limits), *self.allowed)
        part.farewell = FAREWELL
        self.made.append(part)
        return SharedRateLimiter(limits, part)


class StoreRig(Rig):
    """A `Rig` whose engine shares its limits. Questions are answered when a test says so."""

    def __init__(self, *deployments: Deployment, cluster: Any = URL, seed: int = 1, **rest: Any) -> None:
        super().__init__(**rest)
        given = deployments or (deployment(limits=LIMITS),)
        self.engine = RemoteEngineCore(RemoteEngineConfig(given, cluster=cluster), rng=random.Random(seed))
        self.asks: list[AskStore] = []
        """Questions that are not answered yet, oldest first."""
        self.trace: list[str] = []

    def tell(self, event: Event) -> list[Effect]:
        effects = super().tell(event)
        known = {(order.link, order.ask) for order in self.asks}
        self.asks += [order for order in self.of(AskStore) if (order.link, order.ask) not in known]
        self.trace.append(trace_line(self.now, event, effects))
        return effects

    def answer(self, reply: StoreReply = ANSWER, *allowed: int, part: Part | None = None) -> list[Effect]:
        """The oldest question is answered, and by that so much allowed."""
        order = self.asks.pop(0)
        if part is not None:
            part.allowed = list(allowed)
        return self.tell(StoreReport(order.link, order.ask, reply))

    def ordered(self) -> list[type[Effect]]:
        """What the last fact led to, but for notices and refreshes."""
        kinds = (AskStore, StartAttempt, Complete, Drained)
        return [type(effect) for effect in self.effects if isinstance(effect, kinds)]


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Parts:
    """Nothing is allowed before the first answer."""
    made = Parts()
    monkeypatch.setattr(sharing, "limiter_of", made)
    return made


# ---- asking -----------------------------------------------------------------------------------------------------------


def test_the_first_request_asks_the_store_and_the_answer_starts_it(parts: Parts) -> None:
    rig = StoreRig()
    assert rig.engine.deadline() is None
    rig.submit(1)
    assert rig.of(StartAttempt) == []
    assert rig.of(AskStore) == [AskStore(0, 1, Publish("board", "me", b"1", 1.0))]
    (part,) = parts.made
    assert part.told == [("asks", rig.now, rig.now + UNIX_AHEAD)]
    assert [holding.need for holding in part.holdings] == [1, 20, 1]
    rig.now += 0.1
    rig.answer(ANSWER, *ALL, part=part)
    assert rig.starts() == [1]
    assert part.told[-1] == ("Published", rig.now, rig.now + UNIX_AHEAD)
    rig.end(1)
    assert rig.outcome(1) == "ok"


def test_it_asks_again_after_an_interval_and_in_between_nothing_comes_due(parts: Parts) -> None:
    rig = StoreRig()
    rig.submit(1)
    rig.answer(ANSWER, *ALL, part=parts.made[0])
    rig.end(1)
    assert rig.engine.deadline() == rig.now + CALM
    assert rig.tick(CALM / 2) == []
    assert rig.tick_at_deadline() == [AskStore(0, 2, Publish("board", "me", b"2", 1.0))]
    assert rig.tick(1.0) == []  # one question is under way


def test_whoever_waits_for_more_makes_it_ask_sooner(parts: Parts) -> None:
    rig = StoreRig()
    rig.submit(1)
    (part,) = parts.made
    rig.answer(ANSWER, 1, 1_000, 5, part=part)
    assert rig.starts() == [1]
    rig.submit(2)
    assert rig.ordered() == []
    assert rig.engine.deadline() == rig.now + HUNGRY
    rig.tick_at_deadline()
    assert rig.ordered() == [AskStore]
    assert [holding.need for holding in part.holdings] == [1, 20, 1]
    rig.answer(ANSWER, 2, 1_000, 5, part=part)
    assert rig.starts() == [2]


def test_where_somebody_else_was_quicker_it_asks_again_in_the_same_step_and_starts_what_may_start(parts: Parts) -> None:
    rig = StoreRig()
    rig.submit(1)
    rig.submit(2)
    (part,) = parts.made
    part.again = True
    rig.answer(ANSWER, 1, 1_000, 5, part=part)
    assert rig.ordered() == [StartAttempt, AskStore]
    assert [order.ask for order in rig.asks] == [2]
    assert [holding.need for holding in part.holdings] == [1, 20, 1]  # of who waits now


def test_what_is_answered_reaches_every_lane_of_the_limit_in_their_order(parts: Parts) -> None:
    limits = {"requests_per_minute": 10}
    rig = StoreRig(deployment("one", limits=limits), deployment("two", limits=limits))
    assert len(parts.made) == 1
    rig.submit(1, "two")
    rig.submit(2, "one")
    assert [order.link for order in rig.asks] == [0]
    rig.answer(ANSWER, 2, part=parts.made[0])
    assert rig.starts() == [1, 2]


def test_each_limit_asks_for_itself(parts: Parts) -> None:
    limits = {"requests_per_minute": 10}
    rig = StoreRig(deployment("one", limits=limits), deployment("two", limits=limits, model="gpt-4o-mini"))
    rig.submit(1, "one")
    rig.submit(2, "two")
    assert [(order.link, order.ask) for order in rig.asks] == [(0, 1), (1, 2)]
    rig.asks.reverse()
    rig.answer(ANSWER, 5, part=parts.made[1])
    assert rig.starts() == [2]
    rig.answer(ANSWER, 5, part=parts.made[0])
    assert rig.starts() == [1]


def test_limits_are_called_the_same_in_every_process_and_members_are_not(parts: Parts) -> None:
    for seed in (1, 2):
        StoreRig(seed=seed)
    (one, name, first), (two, same, second) = parts.asked
    assert one == two == ClusterConfig(URL)
    assert name == same
    assert first != second


def test_without_a_credential_the_store_is_not_asked_for_anything(parts: Parts) -> None:
    rig = StoreRig(refreshed=False)
    rig.submit(1)
    assert rig.ordered() == []
    rig.refresh()
    assert rig.ordered() == [AskStore]
    rig.answer(ANSWER, *ALL, part=parts.made[0])
    assert rig.starts() == [1]


def test_without_a_cluster_nothing_is_asked() -> None:
    rig = Rig(deployment(limits=LIMITS))
    rig.submit(1)
    assert rig.starts() == [1]
    assert rig.tell(StoreReport(0, 1, ANSWER)) == []
    rig.close()
    rig.end(1)
    assert rig.drained()


# ---- reports that come late, twice, or for nothing --------------------------------------------------------------------


@pytest.mark.parametrize("report", [(0, 0), (0, 2), (0, -1), (1, 1), (-1, 1), (7, 1)])
def test_a_report_of_what_was_not_asked_does_nothing(parts: Parts, report: tuple[int, int]) -> None:
    rig = StoreRig()
    assert rig.tell(StoreReport(0, 0, ANSWER)) == []
    rig.submit(1)
    parts.made[0].allowed = list(ALL)
    assert rig.tell(StoreReport(*report, ANSWER)) == []
    assert len(parts.made[0].told) == 1
    rig.answer()
    assert rig.starts() == [1]


def test_a_report_that_comes_twice_is_heard_once(parts: Parts) -> None:
    rig = StoreRig()
    rig.submit(1)
    rig.answer(ANSWER, *ALL, part=parts.made[0])
    before = rig.engine.deadline()
    for ask in (0, 1):
        assert rig.tell(StoreReport(0, ask, StoreLost())) == []
    assert [kind for kind, _, _ in parts.made[0].told] == ["asks", "Published"]
    assert rig.engine.deadline() == before


def test_a_driver_that_does_not_report_is_not_waited_for_for_ever(parts: Parts) -> None:
    rig = StoreRig()
    rig.submit(1)
    assert rig.engine.deadline() == rig.now + PATIENCE
    rig.tick(PATIENCE - 0.01)
    assert len(parts.made[0].told) == 1
    rig.tick_at_deadline()
    assert [kind for kind, _, _ in parts.made[0].told] == ["asks", "StoreLost"]
    assert rig.ordered() == []
    rig.tick_at_deadline()
    assert [order.ask for order in rig.asks] == [1, 2]
    parts.made[0].allowed = list(ALL)
    rig.answer()  # to the first, at last
    assert rig.starts() == []
    rig.answer()
    assert rig.starts() == [1]


def test_its_patience_is_in_proportion_to_the_time_that_the_store_has(parts: Parts) -> None:
    rig = StoreRig(cluster=ClusterConfig(URL, store_timeout=0.25))
    rig.submit(1)
    assert rig.engine.deadline() == rig.now + 1.0


def test_a_store_that_is_lost_is_asked_again_and_nobody_fails_by_it(parts: Parts) -> None:
    rig = StoreRig()
    rig.submit(1)
    for _ in range(20):
        rig.answer(StoreLost("connection refused"))
        assert rig.engine.deadline() == rig.now + HUNGRY
        rig.tick_at_deadline()
        assert len(rig.asks) == 1
    rig.answer(ANSWER, *ALL, part=parts.made[0])
    assert rig.starts() == [1]


def test_operators_are_told_when_the_store_is_lost_and_why_and_when_it_is_back(parts: Parts) -> None:
    rig = StoreRig()
    rig.submit(1)
    told: list[list[dict[str, Any]]] = []
    for reply in (ANSWER, StoreLost("refused"), StoreLost("timed out"), ANSWER, ANSWER, StoreLost("gone")):
        rig.answer(reply)
        told.append(rig.notices("store"))
        rig.tick_at_deadline()
    lost, back = {"state": "lost", "reason": "refused"}, {"state": "back", "reason": ""}
    assert told == [[], [lost], [], [back], [], [{"state": "lost", "reason": "gone"}]]


@pytest.mark.parametrize("back", [False, True])
def test_who_runs_out_of_time_while_the_store_is_gone_is_told_of_it(parts: Parts, back: bool) -> None:
    rig = StoreRig()
    rig.submit(1, timeout=1.0)
    rig.answer(StoreLost("refused"))
    if back:
        rig.tick_at_deadline()
        rig.answer(ANSWER)
    while rig.outcome(1) == "-":
        rig.tick_at_deadline()
    assert str(rig.error(1)) == "the deadline passed while the request was queued" + (
        "" if back else "; the store through which its limits are shared does not answer: refused"
    )


def test_and_which_deployment_it_is_shared_for(parts: Parts) -> None:
    limits = {"requests_per_minute": 10}
    rig = StoreRig(deployment("one", limits=limits), deployment("two", limits=limits, model="gpt-4o-mini"))
    rig.submit(1, "two")
    rig.answer(StoreLost("refused"))
    assert [(each.kind, each.deployment, each.now) for each in rig.of(Notice)] == [("store", "two", rig.now)]


def test_a_driver_that_does_not_report_is_a_reason_too(parts: Parts) -> None:
    rig = StoreRig()
    rig.submit(1)
    rig.tick_at_deadline()
    assert rig.notices("store") == [{"state": "lost", "reason": "the driver did not report"}]


def test_a_lease_that_ends_stops_new_attempts_and_leaves_those_alone_that_run(parts: Parts) -> None:
    rig = StoreRig()
    rig.submit(1)
    parts.made[0].lease = rig.now + 2.0
    rig.answer(ANSWER, *ALL, part=parts.made[0])
    rig.submit(2)
    assert rig.starts() == [2]
    rig.tick(2.0)
    rig.submit(3)
    assert rig.starts() == []
    rig.end(1)
    assert rig.outcome(1) == "ok"
    assert rig.starts() == []
    parts.made[0].lease = math.inf
    rig.answer()
    assert rig.starts() == [3]


# ---- deadlines --------------------------------------------------------------------------------------------------------


def test_a_request_that_cannot_wait_for_the_answer_ends_at_its_deadline(parts: Parts) -> None:
    rig = StoreRig()
    rig.submit(1, timeout=0.5)
    rig.submit(2, timeout=5.0)
    assert rig.engine.deadline() == rig.now + 0.5
    rig.tick_at_deadline()
    assert (rig.outcome(1), rig.outcome(2)) == ("deadline_exceeded", "-")
    assert rig.metrics.submitted == rig.metrics.accounted == 2
    rig.answer(ANSWER, *ALL, part=parts.made[0])
    assert rig.starts() == [2]


def test_nobody_is_given_up_for_what_this_process_alone_would_wait_for(parts: Parts) -> None:
    """Its own charges leave too late for the request, but the others may give it more."""
    rig = StoreRig()
    rig.submit(1)
    (part,) = parts.made
    rig.answer(ANSWER, 1, 1_000, 5, part=part)
    rig.end(1)
    rig.submit(2, timeout=5.0)
    assert rig.outcome(2) == "-"
    rig.tick_at_deadline()
    rig.answer(ANSWER, 2, 1_000, 5, part=part)
    assert rig.starts() == [2]


def test_where_all_of_the_limit_is_allowed_the_wait_is_known_and_may_be_too_long(parts: Parts) -> None:
    rig = StoreRig(deployment(limits={"requests_per_minute": 1}))
    rig.submit(1)
    rig.answer(ANSWER, 1, part=parts.made[0])
    rig.submit(2, timeout=5.0)
    assert rig.outcome(2) == "deadline_exceeded"


def test_a_need_is_not_told_of_a_request_that_was_given_up(parts: Parts) -> None:
    rig = StoreRig()
    rig.submit(1)
    (part,) = parts.made
    assert [holding.need for holding in part.holdings] == [1, 20, 1]
    rig.cancel(1)
    rig.answer()
    assert rig.engine.deadline() == rig.now + CALM
    rig.tick_at_deadline()
    assert [holding.need for holding in part.holdings] == [0, 0, 0]


# ---- the end ----------------------------------------------------------------------------------------------------------


def test_who_never_asked_says_its_farewell_all_the_same(parts: Parts) -> None:
    rig = StoreRig()
    rig.close()
    assert rig.of(AskStore) == [AskStore(0, 1, FAREWELL)]
    assert not rig.drained()
    rig.answer()
    assert rig.drained()


def test_where_there_is_nothing_to_say_it_is_over_at_once(parts: Parts) -> None:
    rig = StoreRig()
    parts.made[0].farewell = None
    rig.close()
    assert rig.ordered() == [Drained]


def test_a_question_under_way_is_answered_before_the_farewell(parts: Parts) -> None:
    rig = StoreRig()
    rig.submit(1)
    rig.close()
    assert rig.ordered() == [Complete]
    assert rig.outcome(1) == "engine_closed"
    assert rig.engine.deadline() is None
    rig.answer(ANSWER, *ALL, part=parts.made[0])
    assert rig.of(AskStore) == [AskStore(0, 2, FAREWELL)]
    assert not rig.drained()
    assert [kind for kind, _, _ in parts.made[0].told] == ["asks", "Published", "leaves"]
    rig.answer(StoreLost("too late"))
    assert rig.drained()
    assert rig.engine.deadline() is None


def test_nothing_is_asked_after_the_farewell(parts: Parts) -> None:
    rig = StoreRig()
    rig.submit(1)
    rig.answer(ANSWER, *ALL, part=parts.made[0])
    rig.send(1)
    rig.close()
    assert rig.ordered() == [AskStore, Complete] or rig.ordered() == [Complete, AskStore]
    rig.tick(100.0)
    assert rig.ordered() == []
    rig.answer()
    assert not rig.drained()  # the attempt has not reported yet
    rig.end(1, NetworkError())
    assert rig.drained()
    rig.tick(100.0)
    assert (rig.ordered(), rig.asks) == ([], [])
    assert rig.tell(StoreReport(0, 2, ANSWER)) == []


class Insistent(SharedRateLimiter):
    """Has always something to ask."""

    def exchange_at(self) -> float | None:
        return 0.0


def test_nothing_is_asked_after_the_farewell_of_whatever_would_like_to(monkeypatch: pytest.MonkeyPatch) -> None:
    part = Part(quotas_of(RateLimits(requests_per_minute=10)), 10)
    part.farewell = FAREWELL
    insistent = Insistent(RateLimits(requests_per_minute=10), part)
    rig = StoreRig()
    monkeypatch.setattr(sharing, "limiter_of", lambda *_: insistent)
    rig.engine = RemoteEngineCore(RemoteEngineConfig((deployment(),), cluster=URL), rng=random.Random(1))
    rig.submit(1)
    rig.send(1)
    rig.answer()
    rig.close()
    rig.answer()
    rig.answer()
    rig.end(1, NetworkError())
    assert rig.drained()
    assert rig.asks == []


def test_every_limit_takes_its_leave(parts: Parts) -> None:
    limits = {"requests_per_minute": 10}
    rig = StoreRig(deployment("one", limits=limits), deployment("two", limits=limits, model="gpt-4o-mini"))
    rig.submit(1, "one")
    rig.close()
    assert [(order.link, order.ask) for order in rig.asks] == [(0, 1), (1, 2)]
    rig.asks.reverse()
    rig.answer()
    assert rig.ordered() == []
    rig.answer()
    assert rig.of(AskStore) == [AskStore(0, 3, FAREWELL)]
    rig.answer()
    assert rig.drained()


def test_closing_twice_says_farewell_once(parts: Parts) -> None:
    rig = StoreRig()
    rig.close()
    rig.close()
    assert (rig.ordered(), len(rig.asks)) == ([], 1)
    rig.answer()
    assert rig.drained()
    rig.close()
    assert rig.ordered() == [Drained]


def test_a_farewell_for_which_somebody_else_was_quicker_is_said_again_though_not_for_ever(parts: Parts) -> None:
    rig = StoreRig()
    rig.close()
    for version in range(1, 5):
        rig.answer(Swapped(False, version, b"", 0.0))
        assert rig.ordered() == [AskStore]
    rig.answer(Swapped(False, 5, b"", 0.0))
    assert rig.ordered() == [Drained]
    assert [kind for kind, _, _ in parts.made[0].told] == ["leaves"] + ["Swapped", "leaves"] * 4


@pytest.mark.parametrize("reply", [Swapped(True, 2, b"", 0.0), StoreLost(), ANSWER])
def test_a_farewell_that_was_heard_or_never_will_be_is_over(parts: Parts, reply: StoreReply) -> None:
    rig = StoreRig()
    rig.close()
    rig.answer(reply)
    assert rig.drained()


def test_a_farewell_that_has_become_needless_is_not_said_again(parts: Parts) -> None:
    rig = StoreRig()
    rig.close()
    parts.made[0].farewell = None
    rig.answer(Swapped(False, 1, b"", 0.0))
    assert rig.ordered() == [Drained]


def test_a_drain_waits_for_no_exchange_and_ends_none(parts: Parts) -> None:
    rig = StoreRig()
    rig.submit(1)
    rig.drain()
    rig.answer(ANSWER, *ALL, part=parts.made[0])
    assert rig.starts() == [1]
    rig.tick(CALM)
    assert len(rig.asks) == 1
    rig.end(1)
    assert rig.drained()
    rig.close()
    assert not rig.drained()
    rig.answer()
    rig.answer()
    assert rig.drained()


# ---- what ships -------------------------------------------------------------------------------------------------------


def served(rig: StoreRig, store: SharedStore, until: Callable[[], bool]) -> None:
    """Questions are answered at once, and time passes, until it is so."""
    for _ in range(1_000):
        if until():
            return
        if rig.asks:
            rig.answer(store.execute(rig.asks[0].request, rig.now + UNIX_AHEAD))
        else:
            rig.tick_at_deadline()
    raise AssertionError("it never came to that")


@pytest.mark.parametrize(
    ("cluster", "strict"),
    [(URL, False), ({"url": URL, "mode": "escrow"}, False), (URL, True), ({"url": URL, "share_circuits": True}, False)],
)
def test_two_processes_share_a_limit_through_one_store(cluster: Any, strict: bool) -> None:
    store = SharedStore()
    shared = deployment(limits={"requests_per_minute": 10, "strict": strict})
    rigs = [StoreRig(shared, cluster=cluster, seed=seed) for seed in (1, 2)]
    for number in range(20):
        rigs[number % 2].submit(number)
    for rig in (*rigs, *rigs):
        for _ in range(40):
            for order in list(rig.asks):
                rig.answer(store.execute(order.request, rig.now + UNIX_AHEAD))
            rig.tick(0.125)
            for request_id in set(rig.started) - set(rig.outcomes):
                rig.send(request_id)
                rig.end(request_id, usage=TokenUsage(10, 10))
    assert 9 <= sum(len(rig.outcomes) for rig in rigs) <= 10
    for rig in rigs:
        rig.close()
        served(rig, store, rig.drained)


def test_of_two_that_go_at_once_both_give_back_what_they_held() -> None:
    """Who was not the last to be heard gives back by a version that does not stand any more, and says it again."""
    store = SharedStore()
    shared = deployment(limits={"requests_per_minute": 10})
    first, second, third = (StoreRig(shared, cluster={"url": URL, "mode": "escrow"}, seed=seed) for seed in (1, 2, 3))
    for rig in (first, second):
        rig.submit(1)
        served(rig, store, lambda rig=rig: 1 in rig.started)
        rig.cancel(1)  # unsent: what was granted is free again, and the rights are still held
        rig.end(1, NetworkError(), sent=False)
    for rig in (first, second):
        while rig.asks:
            rig.answer(store.execute(rig.asks[0].request, rig.now + UNIX_AHEAD))
        rig.close()
    refused = 0
    while first.asks or second.asks:
        for rig in (first, second):
            if rig.asks:
                reply = store.execute(rig.asks[0].request, rig.now + UNIX_AHEAD)
                refused += isinstance(reply, Swapped) and not reply.done
                rig.answer(reply)
    assert refused > 0
    third.now = max(first.now, second.now)
    for number in range(10):
        third.submit(number)
    before = third.now
    served(third, store, lambda: len(third.started) == 10)
    assert third.now - before < 2.0  # nothing waits for the leases of the dead


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("mode", ["approximate", "escrow"])
def test_the_password_of_the_store_shows_in_no_effect_and_no_trace(mode: str, strict: bool) -> None:
    store = SharedStore()
    rig = StoreRig(deployment(limits={**LIMITS, "strict": strict}), cluster={"url": URL, "mode": mode})
    rig.submit(1)
    shown = [repr(rig.asks)]
    served(rig, store, lambda: 1 in rig.started)
    rig.end(1)
    rig.close()
    shown += [repr(rig.asks), repr(rig.effects)]
    served(rig, store, rig.drained)
    text = "\n".join([*rig.trace, *shown])
    assert "AskStore(" in text and "StoreReport(" in text
    assert HIDDEN not in text and "cache.test" not in text


def told(seed: int) -> list[str]:
    """What an engine orders for the same facts."""
    rig = StoreRig(
        deployment("one", limits=LIMITS),
        deployment("two", limits=LIMITS, model="gpt-4o-mini"),
        cluster={"url": URL, "share_circuits": True},
        seed=seed,
    )
    store = SharedStore()
    orders: list[str] = []
    for step in range(60):
        if step < 30:
            rig.submit(step, ("one", "two")[step % 2])
        orders.append(repr(rig.effects))
        for order in list(rig.asks):
            rig.answer(store.execute(order.request, rig.now + UNIX_AHEAD))
            orders.append(repr(rig.effects))
        for request_id in sorted(set(rig.started) - set(rig.outcomes)):
            rig.end(request_id)
            orders.append(repr(rig.effects))
        rig.tick(0.25)
    rig.close()
    orders.append(repr(rig.effects))
    return orders


def test_the_same_facts_and_seed_give_the_same_orders_whatever_the_hash_seed_of_the_process() -> None:
    here = told(3)
    assert here == told(3)
    assert here != told(4)  # another life, with another name
    program = "import hashlib, test_links as t; print(hashlib.sha256(repr(t.told(3)).encode()).hexdigest())"
    digests: set[str] = set()
    for hash_seed in ("0", "4242"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        run = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=100
        )
        digests.add(run.stdout.strip())
    assert len(digests) == 1


# ---- any facts in any order -------------------------------------------------------------------------------------------


class AnyReports(RuleBasedStateMachine):
    """Requests, answers and time as they like: one question at a time for each limit, and an end to everything."""

    @initialize()
    def begin(self) -> None:
        self.patch = pytest.MonkeyPatch()
        self.parts = Parts()
        self.patch.setattr(sharing, "limiter_of", self.parts)
        limits = {"requests_per_minute": 4, "concurrent_requests": 2}
        self.rig = StoreRig(deployment("one", limits=limits), deployment("two", limits=limits, model="gpt-4o-mini"))
        self.patch.undo()
        self.next = 1
        self.old: list[AskStore] = []
        self.closed = False
        self.drained = False

    def note(self) -> None:
        self.drained |= self.rig.drained()

    @rule(name=st.sampled_from(["one", "two"]), timeout=st.sampled_from([None, 0.5, 30.0]))
    def submit(self, name: str, timeout: float | None) -> None:
        self.rig.submit(self.next, name, timeout=timeout)
        self.next += 1

    @precondition(lambda self: bool(self.rig.asks))
    @rule(
        data=st.data(),
        lost=st.booleans(),
        again=st.booleans(),
        lease=st.sampled_from([-math.inf, 0.5, math.inf]),
    )
    def answer(self, data: st.DataObject, lost: bool, again: bool, lease: float) -> None:
        self.rig.asks.insert(0, self.rig.asks.pop(data.draw(st.integers(0, len(self.rig.asks) - 1))))
        order = self.rig.asks[0]
        part = self.parts.made[order.link]
        part.again, part.lease = again, self.rig.now + lease
        self.old.append(order)
        self.rig.answer(
            StoreLost() if lost else ANSWER, data.draw(st.integers(0, 4)), data.draw(st.integers(0, 2)), part=part
        )
        self.note()

    @precondition(lambda self: bool(self.old))
    @rule(data=st.data())
    def report_again(self, data: st.DataObject) -> None:
        order = data.draw(st.sampled_from(self.old))
        before = [len(part.told) for part in self.parts.made]
        assert self.rig.tell(StoreReport(order.link, order.ask, ANSWER)) == []
        assert [len(part.told) for part in self.parts.made] == before

    @precondition(lambda self: bool(set(self.rig.started) - set(self.rig.outcomes)))
    @rule(data=st.data(), cancel=st.booleans())
    def end(self, data: st.DataObject, cancel: bool) -> None:
        request_id = data.draw(st.sampled_from(sorted(set(self.rig.started) - set(self.rig.outcomes))))
        if cancel:
            self.rig.cancel(request_id)
        self.rig.end(request_id)
        self.rig.outcomes.setdefault(request_id, None)
        self.note()

    @rule(seconds=st.sampled_from([0.0, 0.25, 1.0, 5.0, 61.0]))
    def pass_time(self, seconds: float) -> None:
        self.rig.tick(seconds)

    @rule()
    def tick_at_deadline(self) -> None:
        if self.rig.engine.deadline() is not None:
            self.rig.tick_at_deadline()

    @precondition(lambda self: self.next > 5)
    @rule()
    def close(self) -> None:
        self.rig.close()
        self.closed = True
        self.drained = False
        self.note()

    @invariant()
    def it_is_in_order(self) -> None:
        if not hasattr(self, "rig"):
            return
        rig = self.rig
        metrics = rig.metrics
        assert metrics.submitted == metrics.accounted
        waited_for = [link for link in rig.engine._roster.links if link.ask]
        asked = {(order.link, order.ask) for order in rig.asks}
        assert {(link.index, link.ask) for link in waited_for} <= asked
        deadline = rig.engine.deadline()
        assert deadline is None or deadline > rig.now, "it would have been done by now"
        assert deadline is not None or self.closed or not metrics.queued, "who waits is looked at again"
        if self.drained:
            assert self.closed and not waited_for
            assert all(link.said_farewell for link in rig.engine._roster.links)

    def teardown(self) -> None:
        if not hasattr(self, "rig"):
            return
        rig = self.rig
        rig.close()
        self.note()
        for request_id in list(rig.started):
            rig.end(request_id)
            self.note()
        while rig.asks:
            rig.answer()
            self.note()
        assert self.drained
        assert rig.engine.deadline() is None
        assert rig.tell(Tick()) == []


AnyReports.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestAnyReports = AnyReports.TestCase


# ---- who is told ---------------------------------------------------------------------------------------------------------


def test_a_store_that_is_lost_and_one_that_is_back_are_told_once_each_time(parts: Parts) -> None:
    rig = StoreRig(deployment(limits=LIMITS))
    rig.submit(0)
    told: list[Any] = []
    for reply in (StoreLost("refused"), StoreLost("refused"), ANSWER, ANSWER, StoreLost("no answer in time")):
        rig.answer(reply)
        told += [effect.detail for effect in rig.effects if isinstance(effect, Notice) and effect.kind == "store"]
        rig.tick_at_deadline()
    assert told == [
        {"state": "lost", "reason": "refused"},
        {"state": "back", "reason": ""},
        {"state": "lost", "reason": "no answer in time"},
    ]
