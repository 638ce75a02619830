"""Rounds in turn (A B C, A B C …), so that what disturbs the machine meets all alike; the least is what the work costs."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Figure:
    """The samples of one cell, each the cost of one unit of work (or a rate)."""

    samples: list[float] = field(default_factory=list)
    higher_is_better: bool = False

    @property
    def best(self) -> float:
        """The least cost, or the highest rate."""
        return max(self.samples) if self.higher_is_better else min(self.samples)

    @property
    def spread(self) -> float:
        """How far the median lies from the best, as a part of it."""
        return abs(statistics.median(self.samples) / self.best - 1) if self.best else 0.0


def cpu_seconds(work: Callable[[], object], *, tidy: bool = True) -> float:
    """CPU time of this process for one call. ``tidy``: collect the garbage of others first."""
    if tidy:
        gc.collect()
    start = time.process_time()
    work()
    return time.process_time() - start


def interleaved(
    contenders: Mapping[str, Callable[[], float]], rounds: int, *, higher_is_better: bool = False
) -> dict[str, Figure]:
    """Each contender's sample, once a round, after a first round that does not count."""
    figures = {name: Figure(higher_is_better=higher_is_better) for name in contenders}
    for number in range(rounds + 1):
        for name, sample in contenders.items():
            value = sample()
            if number:
                figures[name].samples.append(value)
    return figures
