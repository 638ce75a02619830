"""A failing run of a cluster made small: as few demands and troubles as still break the same (`scenarios/shrink.py`)."""

from __future__ import annotations

from collections.abc import Sequence

from ..scenarios.shrink import minimize
from .plan import ClusterPlan
from .report import ClusterReport
from .run import run


def shrink(plan: ClusterPlan, report: ClusterReport, *, runs: int = 150) -> tuple[ClusterPlan, ClusterReport]:
    """The smallest plan found in which still the same goes wrong, and its report. ``runs``: how many may be tried.

    Raises `ValueError` for a report of a run in which everything held.
    """
    violation = report.violation
    if violation is None:
        raise ValueError("report: everything held in this run; give one with a violation")
    best = (plan, report)
    left = runs

    def fails(demands: Sequence[int], troubles: Sequence[int]) -> bool:
        nonlocal best, left
        smaller = best[0].keep(demands, troubles)
        if smaller == best[0] or not left:
            return False
        left -= 1
        tried = run(smaller)
        if tried.violation is None or not tried.violation.same_as(violation):
            return False
        best = (smaller, tried)
        return True

    def demands() -> list[int]:
        return [each.number for each in best[0].demands]

    def troubles() -> list[int]:
        return [each.number for each in best[0].troubles]

    came = [each.number for each in plan.demands if each.at <= report.seconds]
    struck = [each.number for each in plan.troubles if each.at <= report.seconds]
    fails(came, struck)  # who had not come yet cannot be to blame
    minimize(troubles(), lambda kept: fails(demands(), kept))
    minimize(demands(), lambda kept: fails(kept, troubles()))
    minimize(troubles(), lambda kept: fails(demands(), kept))
    return best
