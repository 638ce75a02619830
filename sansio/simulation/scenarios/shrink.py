"""A failing run made small: as few callers and disturbances as still break the same invariant, or crash in the same way.

By delta debugging (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", 2002): halves are left out
first, then ever smaller parts, until nothing can be left out any more or the runs are used up. Nothing is left to chance,
so the same failure shrinks to the same plan.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..world.plan import Plan
from .report import Report
from .run import run


def shrink(plan: Plan, report: Report, *, runs: int = 300) -> tuple[Plan, Report]:
    """The smallest plan found in which still the same goes wrong, and its report. ``runs``: how many may be tried.

    Raises `ValueError` for a report of a run in which everything held.
    """
    if report.violation is None:
        raise ValueError("report: everything held in this run; give one with a violation")
    search = _Search(plan, report, runs)
    search.leave_out_the_future()
    search.callers()
    search.disturbances()
    search.callers()
    return search.plan, search.report


class _Search:
    """The smallest failing run so far."""

    def __init__(self, plan: Plan, report: Report, runs: int) -> None:
        self.plan = plan
        self.report = report
        self._runs = runs

    def leave_out_the_future(self) -> None:
        """Who had not come yet cannot be to blame."""
        end = self.report.seconds
        self._try(
            [caller.number for caller in self.plan.callers if caller.at <= end],
            [each.number for each in self.plan.disturbances if each.at <= end],
        )

    def callers(self) -> None:
        """Fewer callers."""
        minimize([each.number for each in self.plan.callers], lambda kept: self._try(kept, self._disturbances()))

    def disturbances(self) -> None:
        """Fewer disturbances."""
        minimize(self._disturbances(), lambda kept: self._try([each.number for each in self.plan.callers], kept))

    def _disturbances(self) -> list[int]:
        return [each.number for each in self.plan.disturbances]

    def _try(self, callers: Sequence[int], disturbances: Sequence[int]) -> bool:
        """Whether it still fails with these alone. If so, it is the smallest so far."""
        smaller = self.plan.keep(set(callers), set(disturbances))
        size = len(self.plan.callers) + len(self.plan.disturbances)
        if len(smaller.callers) + len(smaller.disturbances) == size or not self._runs:
            return False
        self._runs -= 1
        report = run(smaller)
        assert self.report.violation is not None
        if report.violation is None or not report.violation.same_as(self.report.violation):
            return False
        self.plan, self.report = smaller, report
        return True


def minimize(numbers: list[int], fails: Callable[[Sequence[int]], bool]) -> None:
    """Leave out as many of ``numbers`` as can be, asking ``fails`` of what is left each time."""
    if not numbers or fails([]):
        return
    size = max(1, len(numbers) // 2)
    while True:
        begin, smaller = 0, False
        while begin < len(numbers):
            rest = numbers[:begin] + numbers[begin + size :]
            if rest and fails(rest):
                numbers, smaller = rest, True
            else:
                begin += size
        if size > 1:
            size //= 2
        elif not smaller:
            return
