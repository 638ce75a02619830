"""Invariant 22, of processes that count what each has granted in which window: no counter of a window says more than was
counted in it, and once all is well everybody knows all of it.

A process counts what it has granted when it next puts a question, in the window that its own wall clock then shows. That is
done again here, by hand.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final

from ...cluster.approximate import ApproximateMember
from ...cluster.shared_limiter import SharedRateLimiter
from ...rate_limit import quotas_of
from ..judge.violation import InvariantViolated
from .plan import ClusterPlan
from .process import Process

_LOOKED_AT: Final = 16
"""One answer in so many is followed by a look at what its process knows."""

_CLOCKS_APART: Final = 75.0
"""Seconds. What is labelled by a wall clock that is further off than two may be is not remembered."""


class CounterModel:
    """What was counted by whom, in which window, of each quota."""

    def __init__(self, plan: ClusterPlan) -> None:
        self._window = plan.limits.window
        self._quotas = quotas_of(plan.limits)
        self._runs = plan.limits.concurrent_requests is not None
        self._uncounted = {life.number: [0] * len(self._quotas) for life in plan.lives}
        self._counted: dict[int, list[Counter[int]]] = defaultdict(lambda: [Counter() for _ in self._quotas])
        """By window: for each quota what each life has counted."""
        self._well_since: dict[int, int] = {}
        """The first window of each life that began when all was well."""
        self._answers = 0

    def granted(self, life: int, held: Sequence[int]) -> None:
        """A life has granted this."""
        uncounted = self._uncounted[life]
        for index, amount in enumerate(held):
            uncounted[index] += amount
        if self._runs:
            uncounted[-1] += 1

    def asks(self, process: Process) -> None:
        """It puts a question, and counts."""
        life = process.life.number
        label = self._label(process)
        for index, amount in enumerate(self._uncounted[life]):
            self._counted[label][index][life] += amount
            self._uncounted[life][index] = 0

    def heard(self, process: Process) -> None:
        """It has taken an answer."""
        self._answers += 1
        if self._answers % _LOOKED_AT == 0 and (member := _member_of(process)) is not None:
            for label, counted in self._counted.items():
                self._check(process, member, label, counted)

    def all_is_well(self, processes: Sequence[Process]) -> None:
        """Nothing goes wrong any more, and everybody hears of the others."""
        self._well_since = {
            process.life.number: self._label(process) + 1 for process in processes if not (process.dead or process.leaving)
        }

    def agree(self, processes: Sequence[Process]) -> None:
        """Everybody that listens knows all of each window that is over, and was counted while all was well."""
        labels = {process.life.number: self._label(process) for process in processes}
        for process in processes:
            member = _member_of(process)
            if member is None or not process.listens:
                continue
            for label, counted in self._counted.items():
                self._check(process, member, label, counted)
                if abs(label - labels[process.life.number]) * self._window > _CLOCKS_APART:
                    continue
                lives = {life for each in counted for life, amount in each.items() if amount}
                if all(self._well_since.get(life, math.inf) <= label < labels.get(life, -math.inf) - 1 for life in lives):
                    known, sums = member.counted(label), [sum(each.values()) for each in counted]
                    if known != sums:
                        raise InvariantViolated(
                            22, f"life {process.life.number} knows {known} of a window in which {sums} were counted"
                        )

    def _label(self, process: Process) -> int:
        return math.floor(process.unix_now() / self._window)

    def _check(self, process: Process, member: ApproximateMember, label: int, counted: Sequence[Counter[int]]) -> None:
        known, sums = member.counted(label), [sum(each.values()) for each in counted]
        if any(more > most for more, most in zip(known, sums, strict=True)):
            raise InvariantViolated(22, f"life {process.life.number} knows {known} of a window in which {sums} were counted")


def _member_of(process: Process) -> ApproximateMember | None:
    limiter = process.limiter
    if isinstance(limiter, SharedRateLimiter) and isinstance(limiter.member, ApproximateMember):
        return limiter.member
    return None
