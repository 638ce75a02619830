"""What a simulated cluster is made of: plans, the provider, tallies, and what follows from a configuration."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sansio.cluster.config import ClusterConfig, OnSilence, OnStoreLost, SharingMode
from sansio.rate_limit import RateLimits
from sansio.simulation.cluster import troubles
from sansio.simulation.cluster.bounds import (
    allowed,
    counting_spans,
    longest_delay,
    parts,
    recovery,
    refuses_nobody,
    useful_for,
)
from sansio.simulation.cluster.catalogue import CLUSTERS, cluster_plan
from sansio.simulation.cluster.demands import PROFILES, Profile
from sansio.simulation.cluster.naive_provider import Amounts, NaiveProvider
from sansio.simulation.cluster.plan import (
    FASTEST_DRIFT,
    BadWay,
    ClusterPlan,
    Demand,
    FailOver,
    Killed,
    Leaves,
    Life,
    Partition,
    Sleeps,
    StoreGone,
    WallSet,
)
from sansio.simulation.cluster.tally import Tally, dimensions_of
from sansio.simulation.world.shared_store import StoreConditions

LIMITS = RateLimits(requests_per_minute=10, tokens_per_minute=1_000, window=10.0, delivery_guard=1.0)
PLAN = ClusterPlan(
    scenario="cluster_escrow",
    seed=1,
    limits=LIMITS,
    cluster=ClusterConfig("redis://store", mode=SharingMode.ESCROW),
    lives=(Life(0), Life(1)),
    demands=(Demand(0, 0.0, 5.0, 0, 1.0, 10), Demand(3, 1.0, 5.0, 1, 1.0, 10)),
    troubles=(Killed(0, 2.0, 1), StoreGone(4, 3.0, 1.0)),
)

# ---- plans ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Life(-1), "number"),
        (lambda: Life(0, begins=-1.0), "begins"),
        (lambda: Life(0, drift=0.1), "drift"),
        (lambda: Life(0, drift=-0.1), "drift"),
        (lambda: Life(0, wall=-1e9), "wall"),
        (lambda: Demand(0, -1.0, 1.0, 0, 1.0, 1), "at"),
        (lambda: Demand(0, 0.0, 1.0, -1, 1.0, 1), "life"),
        (lambda: Demand(0, 0.0, 1.0, 0, 0.0, 1), "rate"),
        (lambda: Demand(0, 0.0, 1.0, 0, 1.0, 0), "tokens"),
        (lambda: Demand(0, 0.0, 1.0, 0, 1.0, 1, spread=2.0), "spread"),
        (lambda: Demand(0, 0.0, 1.0, 0, 1.0, 1, big=-1.0), "big"),
        (lambda: Demand(0, 0.0, 1.0, 0, 1.0, 1, big_times=0.0), "big_times"),
        (lambda: Killed(0, -1.0, 0), "at"),
        (lambda: Leaves(-1, 0.0, 0), "number"),
        (lambda: Sleeps(0, 0.0, -1.0, 0), "seconds"),
        (lambda: WallSet(0, 0.0, 0, by=-1e9), "by"),
        (lambda: WallSet(0, -1.0, 0, by=1.0), "at"),
        (lambda: Partition(0, -1.0, 0.0, ()), "at"),
        (lambda: Partition(0, 0.0, 0.0, ((1, 2), (2,))), "groups"),
        (lambda: BadWay(0, -1.0, 0.0, StoreConditions()), "at"),
        (lambda: StoreGone(0, -1.0, 0.0), "at"),
        (lambda: FailOver(0, -1.0, 0.0), "at"),
        (lambda: FailOver(0, 0.0, 0.0, ahead=-1e9), "ahead"),
        (lambda: replace(PLAN, seed=-1), "seed"),
        (lambda: replace(PLAN, seconds=0.0), "seconds"),
        (lambda: replace(PLAN, error=2.0), "error"),
        (lambda: replace(PLAN, bias=0.0), "bias"),
        (lambda: replace(PLAN, answers_after=0.0), "answers_after"),
        (lambda: replace(PLAN, delay=-1.0), "delay"),
        (lambda: replace(PLAN, hot=-1), "hot"),
        (lambda: replace(PLAN, tokens=0), "tokens"),
        (lambda: replace(PLAN, lives=()), "lives"),
        (lambda: replace(PLAN, lives=(Life(0), Life(0))), "lives"),
        (lambda: replace(PLAN, demands=(PLAN.demands[0], PLAN.demands[0])), "demands"),
        (lambda: replace(PLAN, troubles=(Killed(0, 61.0, 1),)), "troubles"),
        (lambda: replace(PLAN, troubles=(StoreGone(0, 59.0, 2.0),)), "troubles"),
        (lambda: replace(PLAN, troubles=(Partition(0, 0.0, 1.0, ((0,), (7,))),)), "troubles"),
        (lambda: replace(PLAN, demands=(Demand(0, 0.0, 1.0, 7, 1.0, 1),)), "demands"),
    ],
)
def test_what_cannot_be_names_its_field(make: Callable[[], Any], field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}:"):
        make()


def test_a_part_of_a_plan_can_be_left_out() -> None:
    kept = PLAN.keep({3}, {0})
    assert [each.number for each in kept.demands] == [3] and [each.number for each in kept.troubles] == [0]
    assert (kept.demands_left_out, kept.troubles_left_out) == (1, 1)
    assert kept.keep({3}, set()).troubles_left_out == 2


@pytest.mark.parametrize("scenario", CLUSTERS)
def test_a_seed_is_a_plan(scenario: str) -> None:
    plans = [cluster_plan(scenario, seed) for seed in range(150)]
    assert plans[7] == cluster_plan(scenario, 7)
    assert len({repr(plan) for plan in plans}) == 150
    kinds = {type(trouble) for plan in plans for trouble in plan.troubles}
    there = {Killed, Leaves, Sleeps, WallSet, Partition, BadWay, StoreGone}
    assert kinds == (there if scenario == "cluster_escrow" else there | {FailOver})
    assert any(each.split for plan in plans for each in plan.troubles if isinstance(each, Partition)) is (
        scenario == "cluster_approximate"
    )
    assert {plan.error for plan in plans} == {0.0, 0.5}
    assert {plan.cluster.on_store_lost for plan in plans} == set(OnStoreLost)
    assert {min(32, len(plan.lives)) for plan in plans} >= {2, 3, 8, 32}
    for plan in plans:
        assert plan.limits.strict is (scenario == "cluster_strict")
        assert plan.delay <= plan.limits.delivery_guard
        assert max(abs(life.drift) for life in plan.lives) <= FASTEST_DRIFT


def test_an_unknown_cluster_is_told_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'cluster_escrow'"):
        cluster_plan("cluster_escrw", 0)
    with pytest.raises(ValueError, match="known: cluster_approximate, "):
        cluster_plan("?", 0)


@pytest.mark.parametrize("profile", PROFILES)
@given(seed=st.integers(0, 1000), lives=st.integers(1, 9), seconds=st.floats(1.0, 100.0), span=st.floats(1.0, 20.0))
def test_what_is_wished_for_ends_in_time(profile: Profile, seed: int, lives: int, seconds: float, span: float) -> None:
    for wish in profile(Random(seed), range(lives), seconds, span):
        assert wish.at >= 0 and wish.seconds >= 0 and wish.at + wish.seconds <= seconds * (1 + 1e-9)
        assert wish.life in range(lives) and wish.times > 0


def test_who_comes_back_is_another() -> None:
    scene = troubles.Scene(seconds=100.0, span=5.0, lease=2.0, store_timeout=1.0, loses=True, splits=True)
    for seed in range(50):
        born, ends = troubles.ends(Random(seed), scene, [Life(0), Life(1, 3.0)])
        assert [life.number for life in born] == list(range(2, 2 + len(born)))
        assert len({end.life for end in ends if isinstance(end, (Killed, Leaves))}) == len(ends)
        begins = {life.number: life.begins for life in (Life(0), Life(1, 3.0), *born)}
        for end in ends:
            assert isinstance(end, (Killed, Leaves)) and begins[end.life] <= end.at < 100.0


# ---- the provider -----------------------------------------------------------------------------------------------------


def test_amounts_are_listed_as_they_are_limited() -> None:
    assert Amounts.of(3, 4) == Amounts(requests=1, tokens=7, input_tokens=3, output_tokens=4)


def test_the_provider_counts_what_arrived_within_a_window_and_refuses_the_rest() -> None:
    provider = NaiveProvider(RateLimits(tokens_per_minute=100, window=10.0))
    assert provider.arrives(Amounts.of(30, 30), 0.0) is None
    assert provider.arrives(Amounts.of(20, 20), 1.0) is None
    assert provider.arrives(Amounts.of(0, 1), 9.999) == "100 + 1 in a window of tokens_per_minute=100"
    assert provider.arrives(Amounts.of(30, 30), 10.0) is None
    assert provider.arrives(Amounts.of(30, 30), 10.5) is not None
    assert (provider.accepted, provider.refused) == (3, 2)
    assert provider.mean_level(1, 10.0, 0.0, 20.0) == pytest.approx((60 * 10 + 40 * 10 + 60 * 10) / 20)
    assert provider.mean_level(0, 10.0, 5.0, 6.0) == 2.0


@pytest.mark.parametrize(
    ("limits", "fits"),
    [
        (RateLimits(requests_per_minute=3), 3),
        (RateLimits(input_tokens_per_minute=20), 2),
        (RateLimits(output_tokens_per_minute=79), 3),
        (RateLimits(requests_per_minute=9, tokens_per_minute=30), 1),
    ],
)
def test_each_of_its_limits_counts(limits: RateLimits, fits: int) -> None:
    provider = NaiveProvider(limits)
    assert [provider.arrives(Amounts.of(10, 20), 0.0) is None for _ in range(4)] == [True] * fits + [False] * (4 - fits)


# ---- tallies ------------------------------------------------------------------------------------------------------------


def test_a_charge_counts_for_a_span() -> None:
    tally = Tally(10.0)
    first, second = tally.add(0.0, 5), tally.add(4.0, 7)
    assert tally.at(9.99) == 12
    tally.edit(second, 3)
    assert tally.at(10.0) == 3
    tally.edit(first, 100)
    assert tally.at(10.0) == 3
    assert tally.at(14.0) == 0
    assert not second.counts


def test_of_what_counts_some_was_charged_later_than_an_instant() -> None:
    tally = Tally(10.0)
    assert tally.after(0.0) == 0
    tally.add(0.0, 5)
    tally.edit(tally.add(4.0, 7), 3)
    tally.add(5.0, 1)
    assert [tally.after(at) for at in (-1.0, 0.0, 3.9, 4.0, 5.0)] == [9, 4, 4, 1, 0]


def test_dimensions_are_in_the_order_of_the_limiter() -> None:
    found = dimensions_of(replace(LIMITS, burst=5, output_tokens_per_minute=50))
    assert [(each.field, each.kind, each.limit, each.span) for each in found] == [
        ("requests_per_minute", 0, 10, 11.0),
        ("tokens_per_minute", 1, 1_000, 11.0),
        ("output_tokens_per_minute", 3, 50, 11.0),
        ("burst", 0, 5, 5.0),
    ]
    assert [each.field for each in dimensions_of(replace(LIMITS, burst=10))] == ["requests_per_minute", "tokens_per_minute"]
    assert dimensions_of(RateLimits(concurrent_requests=1)) == []


# ---- what follows from a configuration --------------------------------------------------------------------------------


def test_what_counts_together_counts_for_a_span_by_the_fastest_clock() -> None:
    slow, fast = replace(PLAN, lives=(Life(0, drift=-0.005), Life(1))), replace(PLAN, lives=(Life(0), Life(1, drift=0.005)))
    assert counting_spans(slow) == pytest.approx([11.0 - 0.002, 11.0 - 0.002], abs=1e-5)
    strict = replace(PLAN, limits=replace(LIMITS, strict=True))
    assert counting_spans(strict) == pytest.approx([10.498, 10.498], abs=1e-5)
    assert counting_spans(fast) == pytest.approx([10.998 / 1.005] * 2, abs=1e-5)


def test_what_is_withheld_makes_room_for_local_shares() -> None:
    local = replace(PLAN.cluster, on_store_lost=OnStoreLost.LOCAL_SHARE, local_share=0.1, withheld=0.3)
    assert [allowed(replace(PLAN, cluster=local), limit) for limit in (10, 1_001)] == [7 + 2 * 1, 701 + 2 * 101]
    closed = replace(PLAN.cluster, local_share=0.1, withheld=0.3)
    assert [allowed(replace(PLAN, cluster=closed), limit) for limit in (10, 1_000)] == [7, 700]
    assert allowed(PLAN, 1_000) == 1_000


def test_the_provider_has_nobody_to_refuse_where_no_more_is_granted_than_it_allows() -> None:
    assert refuses_nobody(PLAN)
    assert refuses_nobody(replace(PLAN, error=0.5))
    assert not refuses_nobody(replace(PLAN, bias=1.2))
    approximate = replace(PLAN.cluster, mode=SharingMode.APPROXIMATE)
    assert refuses_nobody(replace(PLAN, cluster=approximate))
    alone = replace(approximate, on_silence=OnSilence.EXPAND)
    assert not refuses_nobody(replace(PLAN, cluster=alone))
    assert refuses_nobody(replace(PLAN, cluster=alone, limits=replace(LIMITS, strict=True)))
    local = replace(PLAN.cluster, on_store_lost=OnStoreLost.LOCAL_SHARE, local_share=0.1)
    assert not refuses_nobody(replace(PLAN, cluster=local))


def test_who_shares_no_board_is_a_part_by_itself() -> None:
    split = Partition(0, 1.0, 5.0, ((0,), (1,)), split=True)
    approximate = replace(PLAN, cluster=replace(PLAN.cluster, mode=SharingMode.APPROXIMATE), troubles=(split,))
    assert parts(approximate) == 3
    assert parts(replace(approximate, troubles=(replace(split, split=False),))) == 1
    assert parts(replace(approximate, troubles=(FailOver(0, 1.0, 0.5), FailOver(1, 4.0, 0.5)))) == 3
    assert parts(replace(PLAN, troubles=(split,))) == 1
    assert parts(replace(approximate, limits=replace(LIMITS, strict=True))) == 1
    assert allowed(approximate, 100) == 300


def test_who_goes_on_alone_is_a_part_until_what_it_granted_has_left() -> None:
    alone = replace(PLAN.cluster, mode=SharingMode.APPROXIMATE, on_silence=OnSilence.EXPAND)
    lives = (Life(0), Life(1), Life(2, 14.0), Life(3, 50.0))
    plan = replace(PLAN, cluster=alone, lives=lives, troubles=(Killed(0, 2.0, 0), Leaves(1, 20.0, 1)))
    assert parts(plan) == 2
    assert parts(replace(plan, troubles=(Killed(0, 4.0, 0), Leaves(1, 20.0, 1)))) == 3


def test_what_was_answered_is_of_use_for_a_lease() -> None:
    assert useful_for(replace(PLAN, cluster=replace(PLAN.cluster, lease=7.0))) == 7.0
    assert useful_for(replace(PLAN, limits=replace(LIMITS, strict=True))) == 0.5
    alone = replace(PLAN.cluster, mode=SharingMode.APPROXIMATE, on_silence=OnSilence.EXPAND)
    assert useful_for(replace(PLAN, cluster=alone)) == math.inf


def test_all_that_anybody_held_is_of_use_again_after_its_lease_and_a_span() -> None:
    plan = replace(PLAN, cluster=replace(PLAN.cluster, lease=7.0, interval=0.5, store_timeout=2.0))
    assert recovery(plan) == pytest.approx(18.0 * 1.03 + 5.0 + 6.0)
    strict = replace(plan, limits=replace(LIMITS, strict=True))
    assert recovery(strict) == pytest.approx(11.0 * (1.0 + 1.0 / 256.0) + 15.0 + 3.0 + 6.0)


def test_two_that_were_granted_a_span_apart_never_arrive_in_one_window() -> None:
    delay = longest_delay(LIMITS, [0.005, -0.005])
    assert delay == pytest.approx(10.998 / 1.005 - 10.0, abs=1e-5)
    assert longest_delay(replace(LIMITS, strict=True), [0.0]) == pytest.approx(0.498, abs=1e-5)
    assert longest_delay(replace(LIMITS, delivery_guard=0.0), [0.0]) == 0.0
