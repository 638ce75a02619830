"""``remote-core simulate``: the engine in worlds where everything goes wrong, from a seed, and again from the same seed.

One run prints what it is first, then its summary; many print those that failed, made small, and a total. What goes to stdout
holds no time of this machine: two runs of the same command print the same bytes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sansio.simulation.cluster.catalogue import CLUSTERS
from sansio.simulation.scenarios.catalogue import SCENARIOS
from sansio.simulation.scenarios.report import Report, header
from sansio.simulation.scenarios.run import run
from sansio.simulation.scenarios.shrink import shrink
from sansio.simulation.scenarios.sweep import plan_of
from sansio.simulation.world.plan import Level, Plan

from .exit_status import FAILED, UsageError
from .many_seeds import progress, run_seeds
from .simulate_cluster import simulate_cluster

Draw = Callable[[Report], None]


def simulate(arguments: argparse.Namespace) -> int:
    """Run what is asked for. Returns 1 if an invariant did not hold."""
    if arguments.list:
        known = [(each.name, each.about) for each in SCENARIOS.values()]
        for name, about in [*known, *((each.name, each.about) for each in CLUSTERS.values())]:
            print(f"{name:<20} {about}")
        return 0
    if arguments.seeds is not None:
        _refuse_with_seeds(arguments)
    if (arguments.scenario or "").startswith("cluster"):
        return simulate_cluster(arguments)
    if arguments.seeds is not None:
        return _sweep(arguments)
    plans = _plans(arguments)
    pictures = [None if arguments.picture is None else _picture(arguments.picture, each, len(plans)) for each in plans]
    failed = [not _one(plan, picture) for plan, picture in zip(plans, pictures, strict=True)]
    return FAILED if any(failed) else 0


# ---- single runs ------------------------------------------------------------------------------------------------------


def _plans(arguments: argparse.Namespace) -> list[Plan]:
    """The run that was named, or one of each scenario."""
    seed: int = arguments.seed or 0
    try:
        if arguments.scenario is None and arguments.seed is None:
            found = [plan_of(seed, name, arguments.level) for name in SCENARIOS]
        else:
            found = [plan_of(seed, arguments.scenario, arguments.level)]
    except ValueError as error:
        raise UsageError(str(error)) from error
    if arguments.callers is None and arguments.disturbances is None:
        return found
    return [_kept(each, arguments.callers, arguments.disturbances) for each in found]


def _kept(plan: Plan, callers: Sequence[int] | None, disturbances: Sequence[int] | None) -> Plan:
    there, wrong = [caller.number for caller in plan.callers], [each.number for each in plan.disturbances]
    for name, known, asked in (("callers", there, callers), ("disturbances", wrong, disturbances)):
        for number in asked or ():
            if number not in known:
                which = f"has those from {known[0]} to {known[-1]}" if known else "has none"
                run_of = f"{plan.scenario}, seed {plan.seed}, level {plan.level}"
                raise UsageError(f"--{name}: there is no number {number}; {run_of}, {which}")
    return plan.keep(there if callers is None else callers, wrong if disturbances is None else disturbances)


def _one(plan: Plan, draw: Draw | None) -> bool:
    """Run it and tell of it. Returns whether everything held."""
    print(header(plan), flush=True)
    report = run(plan, digest=True, timeline=draw is not None)
    if report.violation is not None:
        small, _ = shrink(plan, report)
        if small != plan:
            print(f"{report.verdict()}\n\nmade small:\n{header(small)}", flush=True)
            report = run(small, digest=True, timeline=draw is not None)
    print(f"{report.body()}\n", flush=True)
    if draw is not None:
        draw(report)
    return report.violation is None


def _picture(given: str, plan: Plan, runs: int) -> Draw:
    """What draws a run into the file that was named, or into one of its own beside it. Known to work before the run."""
    from .simulate_picture import draw

    path = Path(given)
    if path.suffix.lower() not in (".png", ".svg"):
        raise UsageError(f"--picture: {given} ends neither in .png nor in .svg")
    if not path.parent.is_dir():
        raise UsageError(f"--picture: {path.parent} is no directory")
    return partial(draw, path=path if runs == 1 else path.with_name(f"{path.stem}-{plan.scenario}{path.suffix}"))


# ---- many -------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Told:
    """What is told of one run among many. ``failure``: that it failed, and the small report, if it did."""

    scenario: str
    requests: int
    attempts: int
    facts: int
    virtual_seconds: float
    cpu_seconds: float
    failure: str | None


def _sweep(arguments: argparse.Namespace) -> int:
    first: int = arguments.seed or 0
    seeds = range(first, first + arguments.seeds)
    try:
        plan_of(first, arguments.scenario, arguments.level)
    except ValueError as error:
        raise UsageError(str(error)) from error
    print(_command(arguments), flush=True)
    begin = time.monotonic()
    told: list[_Told] = []
    some = partial(_run, arguments.scenario, arguments.level)
    with closing(run_seeds(seeds, some, arguments.jobs)) as runs, progress(len(seeds)) as advance:
        for each in runs:
            told.append(each)
            if each.failure is not None:
                print(each.failure, flush=True)
            advance()
    failures = sum(each.failure is not None for each in told)
    print(_totals(told, arguments.scenario))
    print(f"{len(told)} runs, {failures} failed{_failed_scenarios(told)}", flush=True)
    cpu = sum(each.cpu_seconds for each in told)
    rate = sum(each.facts for each in told) / cpu if cpu else 0.0
    print(f"{time.monotonic() - begin:.1f} s, {cpu:.1f} s of CPU, {rate:,.0f} facts per second of CPU", file=sys.stderr)
    return FAILED if failures else 0


def _run(scenario: str | None, level: Level | None, seeds: range) -> list[_Told]:
    return [_tell(plan_of(seed, scenario, level)) for seed in seeds]


def _tell(plan: Plan) -> _Told:
    begin = time.process_time()
    report = run(plan)
    cpu = time.process_time() - begin
    return _Told(plan.scenario, report.submitted, report.attempts, report.facts, report.seconds, cpu, _failure(plan, report))


def _failure(plan: Plan, report: Report) -> str | None:
    if report.violation is None:
        return None
    small, seen = shrink(plan, report)
    if small == plan:
        return f"\n{report.text()}\n"
    return f"\n{header(plan)}\n{report.verdict()}\n\nmade small:\n{seen.text()}\n"


def _failed_scenarios(told: Sequence[_Told]) -> str:
    """Which of them failed how often."""
    failed = Counter(each.scenario for each in told if each.failure is not None)
    return f": {', '.join(f'{name} {count}' for name, count in failed.items())}" if failed else ""


def _totals(told: Sequence[_Told], scenario: str | None) -> str:
    lines = [f"{'':<18} {'runs':>7} {'failed':>7} {'requests':>10} {'attempts':>10} {'facts':>12} {'virtual hours':>14}"]
    names = list(SCENARIOS) if scenario is None else [scenario]
    for name in [*names, "all"]:
        mine = [each for each in told if name in ("all", each.scenario)]
        hours = sum(each.virtual_seconds for each in mine) / 3600
        lines.append(
            f"{name:<18} {len(mine):>7,} {sum(each.failure is not None for each in mine):>7,} "
            f"{sum(each.requests for each in mine):>10,} {sum(each.attempts for each in mine):>10,} "
            f"{sum(each.facts for each in mine):>12,} {hours:>14,.1f}"
        )
    return "\n".join(lines)


def _command(arguments: argparse.Namespace) -> str:
    """The command that does the same again."""
    parts = ["remote-core simulate", f"--seeds {arguments.seeds}", f"--seed {arguments.seed or 0}"]
    parts += [f"--{name} {value}" for name in ("scenario", "level") if (value := getattr(arguments, name)) is not None]
    return " ".join(parts)


def _refuse_with_seeds(arguments: argparse.Namespace) -> None:
    for name in ("callers", "disturbances", "picture"):
        if getattr(arguments, name) is not None:
            raise UsageError(f"--{name}: is about one run; leave out --seeds")
