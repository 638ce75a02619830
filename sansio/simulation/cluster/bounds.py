"""What follows from a cluster's configuration: how much it may grant together, and when it must be well again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from ...cluster.approximate import overspend_bound
from ...cluster.config import OnSilence, OnStoreLost, SharingMode
from ...rate_limit import RateLimits
from .plan import ClusterPlan, FailOver, Killed, Leaves, Partition
from .process import LONGEST_STUTTER
from .tally import dimensions_of

_GRAIN: Final = 1e-6
_CLOCKS_APART: Final = 1.03
_RECOVERY_INTERVALS: Final = 10.0
_RECOVERY_ANSWERS: Final = 3.0

_SLOT: Final = 1.0 / 256.0
_FORGOTTEN: Final = 15.0
_NOTICED: Final = 3.0
"""Strict: the ledger forgets who is silent a span, a slot (as a part of it, at most) and so many seconds after the last
question; and seconds until everybody has asked again."""


def useful_for(plan: ClusterPlan) -> float:
    """Seconds after a question that what was answered may be used, by the process' own clock."""
    if plan.limits.strict:
        return plan.limits.delivery_guard / 2.0
    if plan.cluster.mode is SharingMode.APPROXIMATE and plan.cluster.on_silence is OnSilence.EXPAND:
        return math.inf
    return plan.cluster.lease_for(plan.limits.window)


def counting_spans(plan: ClusterPlan) -> list[float]:
    """For how long, by the world's clock, what was granted counts in each dimension: a span by the fastest clock there is,
    that may have been read a moment ago. Strict permits were charged before they are granted."""
    fastest = max(0.0, *(life.drift for life in plan.lives))
    early = useful_for(plan) if plan.limits.strict else 0.0
    return [(each.span - early - LONGEST_STUTTER - _GRAIN) / (1.0 + fastest) for each in dimensions_of(plan.limits)]


def longest_delay(limits: RateLimits, drifts: Sequence[float]) -> float:
    """How much later than granted a request may arrive, if the provider is never to count two of one window that were
    granted a span apart."""
    guard = limits.delivery_guard / 2.0 if limits.strict else limits.delivery_guard
    span = (limits.window + guard - LONGEST_STUTTER - _GRAIN) / (1.0 + max(0.0, *drifts))
    return max(0.0, span - limits.window)


def parts(plan: ClusterPlan) -> int:
    """By how many boards that do not know of each other the lives may grant, in approximate mode: each is a limit."""
    if plan.limits.strict or plan.cluster.mode is not SharingMode.APPROXIMATE:
        return 1
    if plan.cluster.on_silence is OnSilence.EXPAND:
        return _lives_at_a_time(plan)
    boards = sum(len(each.groups) for each in plan.troubles if isinstance(each, Partition) and each.split)
    return 1 + boards + sum(isinstance(each, FailOver) for each in plan.troubles)


def allowed(plan: ClusterPlan, limit: int) -> int:
    """How much of a limit all lives together may be charged in a span: what is handed out, the stated bound, and what each
    may grant on its own where the deployment chose that."""
    handed_out = shared(plan, limit)
    return handed_out + overspend_bound(handed_out, parts(plan)) + len(plan.lives) * local_share(plan, limit)


def shared(plan: ClusterPlan, limit: int) -> int:
    """How much of a limit is handed out through the store."""
    return max(1, limit - int(limit * plan.cluster.withheld))


def local_share(plan: ClusterPlan, limit: int) -> int:
    """How much of a limit a process may grant on its own, where the deployment chose that."""
    cluster = plan.cluster
    return math.ceil(limit * cluster.local_share) if cluster.on_store_lost is OnStoreLost.LOCAL_SHARE else 0


def recovery(plan: ClusterPlan) -> float:
    """Seconds after the faults until all that anybody held must be of use again."""
    limits, cluster = plan.limits, plan.cluster
    span = limits.window + limits.delivery_guard
    answers = _RECOVERY_ANSWERS * cluster.store_timeout
    if limits.strict:  # what ran in processes that died is forgotten; what a loss holds up, it does meanwhile, and for less
        return span * (1.0 + _SLOT) + _FORGOTTEN + _NOTICED + answers
    held = (cluster.lease_for(limits.window) + span) * _CLOCKS_APART
    return held + _RECOVERY_INTERVALS * cluster.interval_for(limits.window) + answers


def refuses_nobody(plan: ClusterPlan) -> bool:
    """Whether the provider must never have to refuse anybody: no more is ever granted than it allows, and more is held back
    than estimated as long as it is not known what was used."""
    is_within = all(allowed(plan, each.limit) <= each.limit for each in dimensions_of(plan.limits))
    return is_within and plan.bias <= 1.0


def _lives_at_a_time(plan: ClusterPlan) -> int:
    """The most lives whose grants may fall into one span."""
    span = plan.limits.window + plan.limits.delivery_guard
    ends = {each.life: each.at + span for each in plan.troubles if isinstance(each, (Killed, Leaves))}
    return max(
        sum(other.begins <= life.begins < ends.get(other.number, math.inf) for other in plan.lives) for life in plan.lives
    )
