"""What follows from a cluster's configuration: how much it may grant together, and when it must be well again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ...cluster.config import OnStoreLost, SharingMode
from .plan import ClusterPlan
from .process import LONGEST_STUTTER
from .tally import dimensions_of

_GRAIN: Final = 1e-6
_CLOCKS_APART: Final = 1.03
_RECOVERY_INTERVALS: Final = 10.0
_RECOVERY_ANSWERS: Final = 3.0


def counting_spans(plan: ClusterPlan) -> list[float]:
    """For how long, by the world's clock, what was granted counts in each dimension: a span by the fastest clock there is,
    that may have been read a moment ago."""
    fastest = max(life.drift for life in plan.lives)
    return [(each.span - LONGEST_STUTTER - _GRAIN) / (1.0 + max(0.0, fastest)) for each in dimensions_of(plan.limits)]


def allowed(plan: ClusterPlan) -> list[int]:
    """How much of each dimension all lives together may be charged in a span: what is handed out, and what each of them may
    grant on its own where the deployment chose that."""
    cluster = plan.cluster
    local = cluster.local_share if cluster.on_store_lost is OnStoreLost.LOCAL_SHARE else 0.0
    return [
        each.limit - int(each.limit * cluster.withheld) + len(plan.lives) * int(each.limit * local)
        for each in dimensions_of(plan.limits)
    ]


def recovery(plan: ClusterPlan) -> float:
    """Seconds after the faults until all that anybody held must be of use again."""
    limits, cluster = plan.limits, plan.cluster
    interval = cluster.interval_for(limits.window)
    span = limits.window + limits.delivery_guard
    held = (cluster.lease_for(limits.window) + span) * _CLOCKS_APART
    return held + _RECOVERY_INTERVALS * interval + _RECOVERY_ANSWERS * cluster.store_timeout


def refuses_nobody(plan: ClusterPlan) -> bool:
    """Whether the provider must never have to refuse anybody: no more is ever granted than it allows."""
    if plan.cluster.mode is SharingMode.APPROXIMATE and not plan.limits.strict:
        return False
    is_within = all(most <= each.limit for most, each in zip(allowed(plan), dimensions_of(plan.limits), strict=True))
    return is_within and plan.error == 0.0 and plan.bias <= 1.0


def longest_delay(window: float, guard: float, drifts: Sequence[float]) -> float:
    """How much later than granted a request may arrive, if the provider is never to count two of one window that were
    granted a span apart."""
    span = (window + guard - LONGEST_STUTTER - _GRAIN) / (1.0 + max(0.0, *drifts))
    return max(0.0, span - window)
