"""``remote-core simulate --scenario cluster_…``: many processes that share one limit, in virtual time, from a seed."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from sansio.simulation.cluster.catalogue import cluster_plan
from sansio.simulation.cluster.plan import ClusterPlan
from sansio.simulation.cluster.report import ClusterReport, header
from sansio.simulation.cluster.run import run
from sansio.simulation.cluster.shrink import shrink

from .exit_status import FAILED, UsageError
from .many_seeds import progress, run_seeds


def simulate_cluster(arguments: argparse.Namespace) -> int:
    """Run what is asked for. Returns 1 if an invariant did not hold."""
    for name in ("level", "picture"):
        if getattr(arguments, name) is not None:
            raise UsageError(f"--{name}: a cluster has none")
    first: int = arguments.seed or 0
    try:
        plan = cluster_plan(arguments.scenario, first)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if arguments.seeds is not None:
        return _sweep(plan.scenario, range(first, first + arguments.seeds), arguments.jobs)
    return _one(_kept(plan, arguments.callers, arguments.disturbances))


def _kept(plan: ClusterPlan, callers: Sequence[int] | None, disturbances: Sequence[int] | None) -> ClusterPlan:
    demands, troubles = [each.number for each in plan.demands], [each.number for each in plan.troubles]
    for name, known, asked in (("callers", demands, callers), ("disturbances", troubles, disturbances)):
        for number in asked or ():
            if number not in known:
                which = f"has those from {known[0]} to {known[-1]}" if known else "has none"
                raise UsageError(f"--{name}: there is no number {number}; {plan.scenario}, seed {plan.seed}, {which}")
    return plan.keep(demands if callers is None else callers, troubles if disturbances is None else disturbances)


def _one(plan: ClusterPlan) -> int:
    """Run it and tell of it."""
    print(header(plan), flush=True)
    report = run(plan)
    if report.violation is not None:
        small, seen = shrink(plan, report)
        if small != plan:
            print(f"{report.verdict()}\n\nmade small:\n{header(small)}", flush=True)
            report = seen
    print(f"{report.body()}\n", flush=True)
    return 0 if report.ok else FAILED


# ---- many -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Told:
    """What is told of one run among many. failure: the small report of one that failed."""

    lives: int
    grants: int
    refused: int
    questions: int
    seconds: float
    used: float | None
    failure: str | None


def _sweep(scenario: str, seeds: range, jobs: int | None) -> int:
    print(f"remote-core simulate --scenario {scenario} --seeds {len(seeds)} --seed {seeds.start}", flush=True)
    begin = time.monotonic()
    told: list[_Told] = []
    with closing(run_seeds(seeds, partial(_run, scenario), jobs)) as runs, progress(len(seeds)) as advance:
        for each in runs:
            told.append(each)
            if each.failure is not None:
                print(each.failure, flush=True)
            advance()
    failures = sum(each.failure is not None for each in told)
    print(f"{_totals(told)}\n{len(told)} runs, {failures} failed", flush=True)
    print(f"{time.monotonic() - begin:.1f} s", file=sys.stderr)
    return FAILED if failures else 0


def _totals(told: Sequence[_Told]) -> str:
    used = sorted(each.used for each in told if each.used is not None)
    least, typical = (f"{used[0]:.1%}", f"{used[len(used) // 2]:.1%}") if used else ("-", "-")
    return (
        f"{sum(each.lives for each in told):,} lives in {sum(each.seconds for each in told) / 3600:.1f} virtual hours, "
        f"{sum(each.questions for each in told):,} questions to the store\n"
        f"{sum(each.grants for each in told):,} grants, {sum(each.refused for each in told):,} refused by the provider; "
        f"used of the limit, once well again: {typical} (median), {least} (least)"
    )


def _run(scenario: str, seeds: range) -> list[_Told]:
    return [_tell(cluster_plan(scenario, seed)) for seed in seeds]


def _tell(plan: ClusterPlan) -> _Told:
    report = run(plan)
    failure = None if report.ok else _failure(plan, report)
    refused = len(report.refusals)
    return _Told(len(plan.lives), report.grants, refused, report.questions, report.seconds, report.used, failure)


def _failure(plan: ClusterPlan, report: ClusterReport) -> str:
    small, seen = shrink(plan, report)
    if small == plan:
        return f"\n{report.text()}\n"
    return f"\n{header(plan)}\n{report.verdict()}\n\nmade small:\n{seen.text()}\n"
