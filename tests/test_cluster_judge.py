"""The judge of a cluster finds what is wrong, and nothing else."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Any, cast

import pytest
from test_cluster_parts import LIMITS, PLAN

from sansio.batch import TokenUsage
from sansio.cluster.approximate import ApproximateMember
from sansio.cluster.config import OnStoreLost
from sansio.cluster.shared_limiter import SharedRateLimiter
from sansio.cluster.store import Published, Quota, StoreLost, Taken
from sansio.rate_limit import Permit, RateLimiter, RateLimits, quotas_of
from sansio.simulation.cluster.bounds import allowed
from sansio.simulation.cluster.counters import CounterModel
from sansio.simulation.cluster.judge import ClusterJudge, Grant
from sansio.simulation.cluster.naive_provider import Amounts
from sansio.simulation.cluster.plan import ClusterPlan, FailOver, Life
from sansio.simulation.cluster.process import Process
from sansio.simulation.cluster.tally import dimensions_of
from sansio.simulation.judge.violation import InvariantViolated

PLAIN = replace(PLAN, demands=(), troubles=())


class FakeProcess:
    """What the judge reads of a process: a limiter that has whatever it is made to have, and its clock."""

    def __init__(self, life: int, limits: RateLimits) -> None:
        self.life = Life(life)
        self.limiter = RateLimiter(limits)
        self.seen = 0.0
        self.leased_until = 1e9


class Court:
    """A judge, and two processes that do as they like."""

    def __init__(self, plan: ClusterPlan = PLAIN) -> None:
        self.judge = ClusterJudge(plan, [each.span for each in dimensions_of(plan.limits)], partial(allowed, plan))
        own = replace(plan.limits, strict=False)
        self.processes = [FakeProcess(life.number, own) for life in plan.lives]
        self.permits: dict[int, Permit] = {}

    def grant(self, life: int, at: float, tokens: int = 10, estimate: int | None = None) -> Grant:
        process = self.processes[life]
        process.seen = at
        permit = process.limiter.reserve(1, tokens // 2, tokens - tokens // 2, at)
        assert isinstance(permit, Permit)
        said = tokens if estimate is None else estimate
        grant = self.judge.granted(cast(Process, process), permit, Amounts.of(said // 2, said - said // 2), at)
        self.permits[id(grant)] = permit
        return grant

    def end(self, grant: Grant, at: float, tokens: int | None) -> None:
        process = self.processes[grant.life]
        process.seen = at
        self.judge.stopped(grant)
        usage = None if tokens is None else TokenUsage(tokens // 2, tokens - tokens // 2)
        process.limiter.settle(self.permits[id(grant)], usage, at)
        self.judge.ended(cast(Process, process), grant, usage)

    def call_off(self, grant: Grant, at: float) -> None:
        process = self.processes[grant.life]
        process.seen = at
        self.judge.stopped(grant)
        process.limiter.cancel(self.permits[id(grant)], False, at)
        self.judge.called_off(cast(Process, process), grant)


def violated(number: int, about: str) -> Any:
    return pytest.raises(InvariantViolated, match=rf"^invariant {number} .*{about}")


def test_what_all_processes_grant_together_is_within_the_limit() -> None:
    court = Court()
    for at in range(10):
        court.grant(at % 2, float(at))
    assert court.judge.most == [10, 100]
    with violated(8, "11 in a span, of requests_per_minute=10"):
        court.grant(0, 10.999)


def test_what_was_granted_a_span_ago_does_not_count() -> None:
    court = Court()
    for at in range(10):
        court.grant(at % 2, float(at))
    court.grant(0, 11.0)
    assert court.judge.grants == 11


def test_the_stated_bound_is_added() -> None:
    plan = replace(PLAIN, cluster=replace(PLAIN.cluster, on_store_lost=OnStoreLost.LOCAL_SHARE, local_share=0.1))
    court = Court(plan)
    for at in range(12):
        court.grant(at % 2, float(at) / 2)
    with violated(8, r"13 in a span, of requests_per_minute=10 \(with its bound 12\)"):
        court.grant(0, 6.0)


def test_what_was_used_takes_the_place_of_what_was_held() -> None:
    court = Court()
    grant = court.grant(0, 0.0, tokens=900)
    court.end(grant, 1.0, 400)
    court.grant(1, 2.0, tokens=600)
    with violated(8, "1001 in a span, of tokens_per_minute=1000"):
        court.grant(1, 3.0, tokens=1)


def test_what_is_used_beyond_what_was_held_is_nobodys_grant() -> None:
    court = Court()
    grant = court.grant(0, 0.0, tokens=400)
    court.end(grant, 1.0, 900)
    court.grant(1, 2.0, tokens=600)


def test_what_was_never_sent_uses_nothing() -> None:
    court = Court()
    court.call_off(court.grant(0, 0.0, tokens=900), 1.0)
    court.grant(1, 2.0, tokens=1_000)
    assert court.judge.running == 1


def test_what_nobody_knows_stays_held_until_a_late_word() -> None:
    court = Court()
    grant = court.grant(0, 0.0, tokens=900)
    court.end(grant, 1.0, None)
    with violated(8, "tokens_per_minute"):
        court.grant(1, 2.0, tokens=200)
    court = Court()
    grant = court.grant(0, 0.0, tokens=900)
    court.end(grant, 1.0, None)
    court.judge.corrected(grant, TokenUsage(1, 1))
    court.grant(1, 2.0, tokens=200)


def test_no_more_run_at_a_time_than_may() -> None:
    court = Court(replace(PLAIN, limits=replace(LIMITS, concurrent_requests=2)))
    first = court.grant(0, 0.0)
    court.grant(1, 0.0)
    court.judge.stopped(first)
    court.judge.stopped(first)
    court.grant(1, 1.0)
    with violated(8, "3 at a time"):
        court.grant(0, 1.0)
    assert court.judge.most_running == 3


def test_no_more_come_at_once_than_may_and_what_a_limiter_tells_is_not_the_burst() -> None:
    court = Court(replace(PLAIN, limits=replace(LIMITS, burst=5)))
    grants = [court.grant(0, 0.0) for _ in range(5)]
    for at in (5.0, 6.0):
        court.grant(1, at)
    court.end(grants[0], 6.0, 5)
    assert court.judge.most == [7, 70, 5]
    for at in (7.0, 7.5, 8.0):
        court.grant(1, at)
    assert court.judge.most == [10, 95, 5]
    court = Court(replace(PLAIN, limits=replace(LIMITS, burst=5)))
    for _ in range(5):
        court.grant(0, 0.0)
    with violated(8, "6 in a span, of burst=5"):
        court.grant(1, 4.999)


def test_less_is_not_charged_than_was_estimated() -> None:
    with violated(8, "life 0 charges 10 for an estimate of 11, of tokens_per_minute"):
        Court().grant(0, 0.0, tokens=10, estimate=11)


def test_a_limiter_counts_what_its_process_was_charged() -> None:
    court = Court()
    grant = court.grant(0, 0.0, tokens=100)
    other = court.grant(0, 0.0, tokens=100)
    court.processes[0].limiter.cancel(court.permits[id(other)], False, 1.0)
    court.judge._books[0].running -= 1
    with violated(10, "life 0 counts 1 of requests_per_minute, where its span holds 2"):
        court.end(grant, 1.0, 50)


def test_a_limiter_counts_what_runs() -> None:
    court = Court()
    grant = court.grant(0, 0.0)
    with violated(10, "life 0 counts 1 of 0 in flight"):
        court.judge.ended(cast(Process, court.processes[0]), grant, None)


def test_nothing_is_granted_past_a_lease() -> None:
    court = Court()
    court.processes[0].leased_until = 5.0
    court.grant(0, 4.999)
    with violated(28, "life 0, 0.000000 s past its lease, brings requests_per_minute to 2"):
        court.grant(0, 5.0)


def test_a_local_share_was_chosen() -> None:
    plan = replace(PLAIN, cluster=replace(PLAIN.cluster, on_store_lost=OnStoreLost.LOCAL_SHARE, local_share=0.2))
    court = Court(plan)
    court.processes[0].leased_until = float("-inf")
    court.grant(0, 0.0)
    court.grant(0, 1.0)
    with violated(28, "life 0, that never had a lease, brings requests_per_minute to 3"):
        court.grant(0, 2.0)


def test_in_strict_mode_what_the_store_gave_is_not_of_the_local_share() -> None:
    cluster = replace(PLAIN.cluster, on_store_lost=OnStoreLost.LOCAL_SHARE, local_share=0.2)
    court = Court(replace(PLAIN, cluster=cluster, limits=replace(LIMITS, strict=True)))
    court.processes[0].leased_until = 2.0
    for at in (0.0, 1.0, 2.0):
        court.grant(0, at)
    court.call_off(court.grant(0, 2.0), 2.0)
    court.grant(0, 2.0)
    with violated(28, "requests_per_minute to 3"):
        court.grant(0, 2.0)


def strict_court(**also: Any) -> Court:
    """Two were granted before life 0 asked the store, and one after that."""
    court = Court(replace(PLAIN, limits=replace(LIMITS, strict=True), **also))
    process = cast(Process, court.processes[0])
    court.grant(0, 0.0)
    grant = court.grant(1, 1.0, tokens=20)
    court.judge.asks(process, 1.0)
    court.grant(1, 1.5)
    court.end(grant, 1.5, 15)
    return court


@pytest.mark.parametrize(
    ("levels", "at", "said"),
    [
        ((2, 25), 2.0, None),
        ((3, 35), 2.0, None),
        ((1, 25), 2.0, "1 of requests_per_minute, where a span holds 2"),
        ((2, 24), 2.0, "24 of tokens_per_minute, where a span holds 25"),
        ((1, 15), 11.0, None),
        ((0, 15), 11.0, "0 of requests_per_minute, where a span holds 1"),
        ((0, 0), 12.0, None),
    ],
)
def test_the_store_counts_what_all_were_charged_before_it_was_asked(
    levels: tuple[int, ...], at: float, said: str | None
) -> None:
    court = strict_court()
    reply = Taken(1, 0, None, 1, (*levels, 0), 0.0)
    if said is None:
        court.judge.heard(cast(Process, court.processes[0]), reply, at)
    else:
        with violated(10, f"the store tells of {said}"):
            court.judge.heard(cast(Process, court.processes[0]), reply, at)


def test_a_store_that_forgets_or_is_not_alone_need_not_count_everything() -> None:
    nothing = Taken(0, 0, None, 1, (0, 0), 0.0)
    shares = replace(PLAIN.cluster, on_store_lost=OnStoreLost.LOCAL_SHARE, local_share=0.2)
    for court in (strict_court(troubles=(FailOver(0, 1.0, 1.0),)), strict_court(cluster=shares)):
        court.judge.heard(cast(Process, court.processes[0]), nothing, 2.0)
    court = strict_court()
    for says_nothing in (StoreLost(), Published({}, 0.0)):
        court.judge.heard(cast(Process, court.processes[0]), says_nothing, 2.0)
    divided = Court()
    divided.grant(0, 0.0)
    divided.judge.asks(cast(Process, divided.processes[0]), 1.0)
    divided.judge.heard(cast(Process, divided.processes[0]), nothing, 2.0)


# ---- counters ---------------------------------------------------------------------------------------------------------


class Counting:
    """A model, and processes whose members know what they are told to."""

    def __init__(self) -> None:
        self.model = CounterModel(PLAIN)
        self.known: Counter[int] = Counter()
        self.processes = [self._process(number) for number in range(2)]

    def _process(self, number: int) -> Any:
        known = self.known

        class Member(ApproximateMember):
            def counted(self, epoch: int) -> list[int]:
                return [known[epoch], known[epoch]]

        quotas = quotas_of(LIMITS)
        member = Member(quotas, key="k", member="m", window=10.0, interval=1.0, lease=5.0)

        class Fake:
            life = Life(number)
            limiter = SharedRateLimiter(LIMITS, member)
            dead = leaving = False
            listens = True
            wall = 0.0

            def unix_now(self) -> float:
                return self.wall

        return Fake()

    def set_clocks(self, wall: float) -> None:
        for process in self.processes:
            process.wall = wall


def test_no_counter_says_more_than_was_counted_in_its_window() -> None:
    counting = Counting()
    counting.model.granted(0, [3, 3])
    counting.set_clocks(25.0)
    counting.model.asks(counting.processes[0])
    counting.known[2] = 3
    for _ in range(64):
        counting.model.heard(counting.processes[1])
    counting.known[2] = 4
    with violated(22, r"life 1 knows \[4, 4\] of a window in which \[3, 3\] were counted"):
        for _ in range(64):
            counting.model.heard(counting.processes[1])


def test_once_all_is_well_everybody_knows_everything() -> None:
    counting = Counting()
    model = counting.model
    model.granted(0, [9, 9])
    counting.set_clocks(25.0)
    model.asks(counting.processes[0])  # before all is well: nobody need know
    model.all_is_well(counting.processes)
    model.granted(0, [5, 5])
    counting.set_clocks(35.0)
    model.asks(counting.processes[0])
    model.granted(1, [7, 7])
    counting.set_clocks(45.0)
    model.asks(counting.processes[1])
    model.agree(counting.processes)  # what was counted a moment ago need not be known yet
    counting.set_clocks(55.0)
    with violated(22, r"life 0 knows \[0, 0\] of a window in which \[5, 5\] were counted"):
        model.agree(counting.processes)
    counting.processes[0].listens = counting.processes[1].listens = False
    model.agree(counting.processes)
    counting.processes[0].listens = True
    counting.known[3] = 5
    model.agree(counting.processes)
    counting.set_clocks(500.0)
    model.agree(counting.processes)  # so late, everything is forgotten


def test_what_runs_is_counted_too() -> None:
    model = CounterModel(replace(PLAIN, limits=replace(LIMITS, concurrent_requests=5)))
    model.granted(0, [1, 10])
    process = Counting().processes[0]
    process.limiter = RateLimiter(LIMITS)
    model.asks(process)
    for _ in range(32):
        model.heard(process)  # who has no counters says nothing
    model.agree([process])
    assert [Quota("concurrent_requests", 5, 0.0)] == [each for each in model._quotas if not each.span]
