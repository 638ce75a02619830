"""Clusters in virtual time: what their troubles do, how a run goes, what is told of it, what is left of one that fails."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
from cluster_mutants import MUTANTS

from drivers.command_line import main
from sansio.cluster.config import ClusterConfig, SharingMode
from sansio.rate_limit import RateLimits
from sansio.simulation.cluster.bounds import allowed, counting_spans
from sansio.simulation.cluster.catalogue import CLUSTERS, cluster_plan
from sansio.simulation.cluster.cluster import MOST_WAITING, Cluster
from sansio.simulation.cluster.counters import CounterModel
from sansio.simulation.cluster.judge import ClusterJudge
from sansio.simulation.cluster.plan import (
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
    Trouble,
    WallSet,
)
from sansio.simulation.cluster.process import Process
from sansio.simulation.cluster.report import ClusterReport, header
from sansio.simulation.cluster.run import _Run, run
from sansio.simulation.cluster.shrink import shrink
from sansio.simulation.scenarios.failure import Violation
from sansio.simulation.world.shared_store import StoreConditions

SCENARIOS = sorted(CLUSTERS)

SMALL = ClusterPlan(
    scenario="cluster_escrow",
    seed=5,
    limits=RateLimits(requests_per_minute=100, window=2.0, delivery_guard=0.1),
    cluster=ClusterConfig("redis://store", mode=SharingMode.ESCROW, store_timeout=0.2),
    lives=(Life(0), Life(1)),
    demands=(Demand(0, 0.0, 8.0, 0, 60.0, 10), Demand(1, 0.0, 8.0, 1, 10.0, 10)),
    seconds=8.0,
)


def cluster_of(*troubles: Trouble, plan: ClusterPlan = SMALL) -> Cluster:
    plan = replace(plan, troubles=troubles)
    return Cluster(plan, ClusterJudge(plan, counting_spans(plan), partial(allowed, plan)), CounterModel(plan))


# ---- troubles ---------------------------------------------------------------------------------------------------------


def test_lives_begin_when_they_are_to() -> None:
    cluster = cluster_of(plan=replace(SMALL, lives=(Life(0), Life(1, 3.0))))
    cluster.clock.advance(2.9)
    assert [process.life.number for process in cluster.alive] == [0]
    cluster.clock.advance(0.2)
    assert len(cluster.alive) == 2


def test_who_wants_more_than_is_waited_for_goes_elsewhere() -> None:
    cluster = cluster_of(StoreGone(0, 0.0, 8.0), plan=replace(SMALL, demands=(Demand(0, 0.0, 8.0, 0, 900.0, 10),)))
    cluster.clock.advance(2.0)
    assert len(cluster.processes[0].queue) == MOST_WAITING
    assert cluster.traffic.made > MOST_WAITING


def test_the_killed_and_those_who_leave_are_alive_no_more() -> None:
    cluster = cluster_of(Killed(0, 1.0, 0), Leaves(1, 2.0, 1), Sleeps(2, 3.0, 1.0, 0))
    cluster.clock.advance(1.5)
    assert cluster.processes[0].dead and [process.life.number for process in cluster.alive] == [1]
    cluster.clock.advance(1.5)
    assert cluster.processes[1].gone and cluster.alive == []


def test_who_sleeps_grants_nothing_meanwhile() -> None:
    cluster = cluster_of(Sleeps(0, 2.0, 3.0, 0), plan=replace(SMALL, demands=SMALL.demands[:1]))
    cluster.clock.advance(2.2)
    asleep = cluster.traffic.provider.accepted
    cluster.clock.advance(2.7)
    assert cluster.traffic.provider.accepted == asleep
    cluster.clock.advance(1.0)
    assert cluster.traffic.provider.accepted > asleep


def test_a_wall_clock_is_set() -> None:
    cluster = cluster_of(WallSet(0, 1.0, 0, by=30.0))
    before = cluster.processes.get(0)
    assert before is None
    cluster.clock.advance(2.0)
    process = cluster.processes[0]
    assert process.unix_now() == pytest.approx(cluster.clock.unix_now + 30.0)


def test_a_partition_cuts_all_but_those_in_no_group() -> None:
    cluster = cluster_of(Partition(0, 1.0, 2.0, ((1,),)), Partition(1, 2.0, 3.0, ((0,), (1,))))
    seen: list[tuple[bool, bool]] = []
    for _ in range(6):
        cluster.clock.advance(1.0 if seen else 0.5)
        seen.append((cluster.processes[0].way.cut, cluster.processes[1].way.cut))
    assert seen == [(False, False), (False, True), (True, True), (True, True), (True, True), (False, False)]


def test_a_split_gives_each_group_a_store_of_its_own_until_there_is_the_one_again() -> None:
    cluster = cluster_of(Partition(0, 1.0, 2.0, ((1,),), split=True))
    cluster.clock.advance(1.5)
    first, second = cluster.processes[0].way, cluster.processes[1].way
    assert first.store is cluster.store and second.store is not cluster.store and not second.cut
    cluster.clock.advance(2.0)
    assert second.store is cluster.store


def test_of_bad_ways_the_last_to_come_is_felt() -> None:
    slow, lost = StoreConditions(latency=0.05), StoreConditions(question_lost=0.5)
    cluster = cluster_of(BadWay(0, 1.0, 4.0, slow), BadWay(1, 2.0, 1.0, lost))
    felt: list[StoreConditions] = []
    for _ in range(6):
        cluster.clock.advance(1.0 if felt else 0.5)
        felt.append(cluster.processes[0].way.conditions)
    calm = StoreConditions()
    assert felt == [calm, slow, lost, slow, slow, calm]


def test_the_store_is_gone_as_long_as_any_trouble_says_so() -> None:
    cluster = cluster_of(StoreGone(0, 1.0, 3.0), StoreGone(1, 2.0, 1.0))
    gone: list[bool] = []
    for _ in range(5):
        cluster.clock.advance(1.0 if gone else 0.5)
        gone.append(cluster.store.gone)
    assert gone == [False, True, True, True, False]


def test_a_replica_takes_the_stores_place() -> None:
    cluster = cluster_of(FailOver(0, 1.0, 2.0, ahead=7.0))
    cluster.clock.advance(2.9)
    assert cluster.store.ahead == 0.0
    cluster.clock.advance(0.2)
    assert cluster.store.ahead == 7.0


def test_what_is_healed_stays_well() -> None:
    cluster = cluster_of(
        StoreGone(0, 1.0, 5.0), Partition(1, 1.0, 5.0, ((0,), (1,))), BadWay(2, 1.0, 5.0, StoreConditions(latency=0.05)),
        Sleeps(3, 1.0, 5.0, 1),
    )  # fmt: skip
    cluster.clock.advance(1.5)
    waits = cluster.processes[1]
    for _ in range(3):
        waits.queue.append(cluster.traffic.make(SMALL.demands[0], cluster.traffic._fates[0]))
    cluster.heal()
    for process in cluster.processes.values():
        assert not process.way.cut and process.way.conditions == StoreConditions() and len(process.queue) <= 1
    cluster.clock.advance(20.0)
    assert not cluster.store.gone and all(not process.way.cut for process in cluster.processes.values())


# ---- runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_seed_is_a_run_and_the_same_run_again(scenario: str) -> None:
    reports = [run(cluster_plan(scenario, 2)) for _ in range(2)]
    assert reports[0].ok, reports[0].text()
    assert reports[0] == reports[1]
    assert reports[0].used is not None and reports[0].used > 0.9 and reports[0].grants > 500


def test_a_cluster_in_which_nothing_goes_wrong_uses_all_of_its_limit() -> None:
    report = run(SMALL)
    assert report.ok, report.text()
    assert report.used is not None and report.used > 0.97
    assert report.refusals == () and report.most[0][1] == 100


def test_a_cluster_of_which_nobody_is_left_ends() -> None:
    report = run(replace(SMALL, troubles=(Killed(0, 4.0, 0), Leaves(1, 5.0, 1))))
    assert report.ok, report.text()
    assert report.used is None and "used         -" in report.text()


def test_the_beginning_of_a_report_is_known_before_the_run() -> None:
    plan = cluster_plan("cluster_escrow", 2)
    text = run(plan).text()
    assert text.startswith(f"{header(plan)}\nresult       ok: ")
    assert re.search(r"^digest       [0-9a-f]{64}$", text, re.MULTILINE)
    assert "replay       remote-core simulate --scenario cluster_escrow --seed 2\n" in text
    small = plan.keep({plan.demands[0].number}, set())
    assert "--callers 0 --disturbances none" in header(small)
    assert f"1 of {len(plan.demands)} demands, 0 of {len(plan.troubles)} troubles" in header(small)
    assert "1 life, 1 demand, 0 troubles" in header(replace(SMALL, lives=(Life(0),), demands=SMALL.demands[:1]))


def test_a_run_that_fails_says_what_did_not_hold_and_is_made_small(monkeypatch: pytest.MonkeyPatch) -> None:
    mutant = MUTANTS["given before cooled"]
    plan = cluster_plan(mutant.scenario, mutant.seed)
    mutant.plant(monkeypatch)
    report = run(plan)
    assert report.violation is not None and report.violation.number == 8
    assert report.verdict().startswith("result       VIOLATION of 8 (no window holds more than the limit) after ")
    small, seen = shrink(plan, report, runs=40)
    assert seen.violation is not None and seen.violation.same_as(report.violation)
    assert len(small.demands) + len(small.troubles) < len(plan.demands) + len(plan.troubles)
    assert run(small) == seen
    untried, same = shrink(plan, report, runs=0)
    assert (untried, same) == (plan, report)


@pytest.mark.parametrize(("instead", "kept"), [(None, True), (28, True), (8, False)], ids=["sound", "another", "the same"])
def test_a_part_is_left_out_where_still_the_same_goes_wrong(
    monkeypatch: pytest.MonkeyPatch, instead: int | None, kept: bool
) -> None:
    plan = replace(SMALL, troubles=(Killed(0, 4.0, 0), Leaves(1, 5.0, 1)))
    sound = ClusterReport("", "", plan.scenario, plan.seed, None, 30.0, 9, 9, 9, (), 9, (), None, "")

    def fails(tried: ClusterPlan) -> ClusterReport:
        """Of the first demand and the second trouble together."""
        is_to_blame = plan.demands[0] in tried.demands and plan.troubles[1] in tried.troubles
        number = 8 if is_to_blame else instead
        violation = None if number is None else Violation(number, "what")
        return replace(sound, header=header(tried), violation=violation)

    monkeypatch.setattr("sansio.simulation.cluster.shrink.run", fails)
    small, report = shrink(plan, fails(plan))
    left = ([each.number for each in small.demands], [each.number for each in small.troubles])
    assert left == (([0], [1]) if kept else ([], []))
    assert report == fails(small)


def test_a_run_in_which_everything_held_cannot_be_made_small() -> None:
    with pytest.raises(ValueError, match="report"):
        shrink(SMALL, run(SMALL))


# ---- what a run has to find -------------------------------------------------------------------------------------------


def test_a_provider_that_has_to_refuse_is_found() -> None:
    late = replace(SMALL, delay=1.0)  # far beyond the guard: two of one window were granted a span apart
    report = run(late)
    assert report.violation is not None and report.violation.number == 8
    assert re.search(
        r"^the provider refuses life \d: 100 \+ 1 in a window of requests_per_minute=100$", report.violation.text
    )
    report = run(replace(late, bias=1.1))  # then it may
    assert len(report.refusals) > 1 and report.violation is not None and report.violation.number == 29


@pytest.mark.parametrize(
    ("patch", "number"),
    [
        (("process.Process", "gone", property(lambda self: False)), 17),
        (("naive_provider.NaiveProvider", "mean_level", lambda self, *args: 0.0), 29),
        (("traffic.Traffic", "_over", lambda self, *args: None), 17),
    ],
    ids=["nobody gets away", "nothing is used", "nothing ends"],
)
def test_what_does_not_end_well_is_found(
    monkeypatch: pytest.MonkeyPatch, patch: tuple[str, str, object], number: int
) -> None:
    monkeypatch.setattr(f"sansio.simulation.cluster.{patch[0]}.{patch[1]}", patch[2])
    report = run(SMALL)
    assert report.violation is not None and report.violation.number == number, report.text()


@pytest.mark.parametrize(
    ("estimates", "used", "number"),
    [({}, 95.0, None), ({}, 94.9, 29), ({"error": 0.5}, 90.0, None), ({"bias": 0.7}, 90.0, None), ({"bias": 0.7}, 89.9, 29)],
)
def test_where_estimates_are_wrong_less_need_be_used(
    monkeypatch: pytest.MonkeyPatch, estimates: dict[str, float], used: float, number: int | None
) -> None:
    monkeypatch.setattr("sansio.simulation.cluster.naive_provider.NaiveProvider.mean_level", lambda self, *args: used)
    report = run(replace(SMALL, **estimates))
    assert (report.violation and report.violation.number) == number, report.text()


def test_who_waits_in_vain_though_all_is_well_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Process._work

    def starved(self: Process) -> None:
        if self.life.number == 0 or self._clock.now < SMALL.seconds:
            work(self)

    monkeypatch.setattr(Process, "_work", starved)
    report = run(SMALL)
    assert report.violation is not None and report.violation.number == 17, report.text()
    assert re.search(r"^the head of life 1 waits for \d+\.\d+ s although all is well$", report.violation.text)


def test_a_last_head_that_is_not_let_go_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    farewell = _Run.farewell

    def everybody_stops(self: _Run) -> None:
        monkeypatch.setattr(Process, "_work", lambda self: None)
        farewell(self)

    monkeypatch.setattr(_Run, "farewell", everybody_stops)
    report = run(SMALL)
    assert report.violation is not None and report.violation.number == 17, report.text()
    assert report.violation.text == "the last head of life 0 is not let go, though nobody else wants anything"


# ---- the command ------------------------------------------------------------------------------------------------------


def simulated(hash_seed: str, *arguments: str) -> bytes:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-m", "drivers.command_line", "simulate", *arguments]
    return subprocess.run(command, env=env, capture_output=True, check=True, timeout=100).stdout


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_cluster_prints_the_same_bytes_under_every_hash_seed(scenario: str) -> None:
    one, other = (simulated(seed, "--scenario", scenario, "--seed", "2") for seed in ("1", "2"))
    assert one == other and one.startswith(b"scenario     " + scenario.encode())


def test_the_command_it_prints_does_the_same_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(shlex.split("simulate --scenario cluster_escrow --seed 2 --callers 0 --disturbances none")) == 0
    first = capsys.readouterr().out
    command = re.search(r"^replay +remote-core (.*)$", first, re.MULTILINE)
    assert command is not None
    assert main(shlex.split(command[1])) == 0
    assert capsys.readouterr().out == first


def test_many_clusters_are_told_of_together(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(shlex.split("simulate --scenario cluster_strict --seed 2 --seeds 2 --jobs 1")) == 0
    out = capsys.readouterr().out
    assert out.startswith("remote-core simulate --scenario cluster_strict --seeds 2 --seed 2\n")
    assert out.endswith("\n2 runs, 0 failed\n")
    assert re.search(r"^[\d,]+ grants, 0 refused by the provider; ", out, re.MULTILINE)


def test_one_that_fails_is_told_of(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    mutant = MUTANTS["given before cooled"]
    mutant.plant(monkeypatch)
    arguments = ["simulate", "--scenario", mutant.scenario, "--seed", str(mutant.seed)]
    assert main(arguments) == 1
    alone = capsys.readouterr().out
    assert "VIOLATION of 8" in alone and "\nmade small:\n" in alone
    assert main([*arguments, "--seeds", "1"]) == 1
    swept = capsys.readouterr().out
    assert "VIOLATION of 8" in swept and swept.endswith("1 runs, 1 failed\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--scenario cluster_escrw", "did you mean 'cluster_escrow'"),
        ("--scenario cluster_escrow --level bytes", "--level: a cluster has none"),
        ("--scenario cluster_escrow --picture x.png", "--picture: a cluster has none"),
        ("--scenario cluster_escrow --callers 999", "--callers: there is no number 999"),
        ("--scenario cluster_escrow --disturbances 999", "--disturbances: there is no number 999"),
        ("--scenario cluster_escrow --seeds 2 --callers 0", "leave out --seeds"),
    ],
)
def test_mistakes_are_named(capsys: pytest.CaptureFixture[str], arguments: str, said: str) -> None:
    assert main(["simulate", *shlex.split(arguments)]) == 2
    assert said in capsys.readouterr().err
