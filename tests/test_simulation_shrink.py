"""A failing run made small: to nothing but what it takes, always the same, and within bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from simulation_plans import OUTAGE, deployment, make_plan

from sansio.lane import Lease
from sansio.simulation.scenarios import shrink as shrinking
from sansio.simulation.scenarios.failure import Violation
from sansio.simulation.scenarios.report import Report
from sansio.simulation.scenarios.run import run
from sansio.simulation.scenarios.shrink import shrink
from sansio.simulation.world.plan import DrainNow, Level, Plan

Verdict = Callable[[set[int], set[int]], int | None]
"""Which invariant a plan of these callers and disturbances violates."""

CALM = run(make_plan(callers=1))


class Pretence:
    """Runs that only pretend: what becomes of one is a matter of who takes part."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self.plans: list[Plan] = []

    def run(self, plan: Plan) -> Report:
        self.plans.append(plan)
        number = self.verdict({each.number for each in plan.callers}, {each.number for each in plan.disturbances})
        return replace(CALM, seconds=99.0, violation=None if number is None else Violation(number, f"run {len(self.plans)}"))


def pretend(patch: pytest.MonkeyPatch, verdict: Verdict) -> Pretence:
    pretence = Pretence(verdict)
    patch.setattr(shrinking, "run", pretence.run)
    return pretence


def kept(plan: Plan) -> tuple[list[int], list[int]]:
    return [each.number for each in plan.callers], [each.number for each in plan.disturbances]


PLAN = make_plan(*(replace(OUTAGE, number=number) for number in range(6)), callers=50)


@pytest.mark.parametrize(
    ("callers", "disturbances"),
    [
        ({17}, {3}),
        ({3, 17, 44}, {0, 5}),
        ({0, 1, 2}, set[int]()),
        (set[int](), {2}),
        (set[int](), set[int]()),
        (set(range(50)), {1}),
    ],
)
def test_only_what_it_takes_is_left(callers: set[int], disturbances: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    pretence = pretend(monkeypatch, lambda came, wrong: 10 if callers <= came and disturbances <= wrong else None)
    first = pretence.run(PLAN)
    small, report = shrink(PLAN, first)
    assert kept(small) == (sorted(callers), sorted(disturbances))
    assert report.violation is not None and report.violation.number == 10
    assert len(pretence.plans) <= 301
    again = Pretence(pretence.verdict)
    monkeypatch.setattr(shrinking, "run", again.run)
    assert shrink(PLAN, first) == (small, replace(report, violation=again_violation(again, report)))
    assert [kept(plan) for plan in again.plans] == [kept(plan) for plan in pretence.plans[1:]]


def again_violation(again: Pretence, report: Report) -> Violation:
    """The pretended text counts runs; the second shrinking began one run later."""
    assert report.violation is not None
    return replace(report.violation, text=f"run {int(report.violation.text.split()[1]) - 1}")


def test_callers_that_only_mattered_because_of_a_disturbance_go_in_a_second_round(monkeypatch: pytest.MonkeyPatch) -> None:
    def verdict(came: set[int], wrong: set[int]) -> int | None:
        return 4 if 5 in came and (9 in came or 2 not in wrong) else None

    pretence = pretend(monkeypatch, verdict)
    small, _ = shrink(PLAN, pretence.run(PLAN))
    assert kept(small) == ([5], [])


def test_it_goes_on_until_nobody_more_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def verdict(came: set[int], wrong: set[int]) -> int | None:
        return 4 if 9 in came and (5 not in came or 1 in came) and (7 not in came or 5 in came) else None

    pretence = pretend(monkeypatch, verdict)
    plan = PLAN.keep([1, 5, 7, 9], [])
    small, _ = shrink(plan, pretence.run(plan))
    assert kept(small) == ([9], [])


def test_another_violation_is_another_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    pretence = pretend(monkeypatch, lambda came, wrong: 8 if 7 in came and 30 in came else 17)
    small, report = shrink(PLAN, pretence.run(PLAN))
    assert kept(small) == ([7, 30], [])
    assert report.violation is not None and report.violation.number == 8


@pytest.mark.parametrize(
    "other",
    ["KeyError: 7\n  in a.py, f\n  in b.py, g", "TypeError: 7\n  in b.py, g\n  in c.py, h", "KeyError\n  in c.py, k"],
)
def test_another_crash_is_another_matter(other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two crashes are the same one if the same is raised at the same place, whatever it says and whoever called."""

    def crashing(plan: Plan) -> Report:
        came = {each.number for each in plan.callers}
        same = f"KeyError: {len(came)}\n  in {min(came, default=0)}.py, f\n  in c.py, h"
        return replace(CALM, seconds=99.0, violation=Violation(0, same if {7, 30} <= came else other))

    monkeypatch.setattr(shrinking, "run", crashing)
    small, report = shrink(PLAN, crashing(PLAN))
    assert kept(small) == ([7, 30], [])
    assert report.violation == Violation(0, "KeyError: 2\n  in 7.py, f\n  in c.py, h")


def test_it_ends_when_the_runs_are_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    pretence = pretend(monkeypatch, lambda came, wrong: 8 if {7, 30} <= came else None)
    first = pretence.run(PLAN)
    small, report = shrink(PLAN, first, runs=5)
    assert len(pretence.plans) == 6
    assert {7, 30} <= {each.number for each in small.callers} and len(small.callers) < 50
    assert report == replace(first, violation=report.violation)
    assert shrink(PLAN, first, runs=0) == (PLAN, first)


def test_who_comes_after_the_failure_is_left_out_first(monkeypatch: pytest.MonkeyPatch) -> None:
    pretence = pretend(monkeypatch, lambda came, wrong: 8)
    report = replace(pretence.run(PLAN), seconds=4.0)
    shrink(PLAN, report, runs=1)
    assert kept(pretence.plans[1]) == ([0, 1, 2, 3, 4, 5, 6, 7, 8], [])


def test_a_run_in_which_everything_held_is_refused() -> None:
    with pytest.raises(ValueError, match="report: everything held"):
        shrink(PLAN, CALM)


@pytest.mark.parametrize("level", ["requests", "bytes"])
def test_a_real_defect_is_made_small(level: Level, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(
        OUTAGE, level=level, deployments=(deployment(rate_limits={"concurrent_requests": 3}),), heal_within=60.0
    )
    leaving = (replace(each, leaves_after=0.15) if each.number % 4 == 0 else each for each in plan.callers)
    plan = replace(plan, callers=tuple(leaving), disturbances=(*plan.disturbances, DrainNow(1, 29.0)))

    def leak(self: Lease, sent: bool, now: float) -> None:
        self.ended = self.cancelled = True

    monkeypatch.setattr(Lease, "cancel", leak)
    report = run(plan)
    small, smaller = shrink(plan, report)
    assert report.violation is not None and smaller.violation is not None
    assert smaller.violation.number == report.violation.number
    assert 1 <= len(small.callers) <= 4 and len(small.disturbances) <= 1
    assert run(small) == smaller
    assert shrink(plan, report) == (small, smaller)
