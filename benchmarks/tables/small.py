"""Tables of one column: what one call costs, ours beside the peers' in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.foreign import NOT_INSTALLED
from benchmarks.machine import version
from benchmarks.options import Options
from benchmarks.report import Row, Table
from benchmarks.timing import cpu_seconds, interleaved


@dataclass(frozen=True, slots=True)
class Peer:
    """make: from a number of times to a function that does it so often. package: the distribution; ``None`` is ours."""

    make: Callable[[int], Callable[[], object]]
    package: str | None = None


def table_of(key: str, title: str, column: str, ours: str, peers: dict[str, Peer], options: Options) -> Table:
    """Measure all that are installed."""
    times = options.count(20_000, 200)
    table = Table(key, f"{title}, CPU", "µs", [column], ours)
    work: dict[str, Callable[[], float]] = {}
    for name, peer in peers.items():
        row = Row(name, ours=peer.package is None, version=version(peer.package) if peer.package else None)
        table.rows.append(row)
        if peer.package is not None and row.version is None:
            row.missing = NOT_INSTALLED
            continue
        work[name] = _sample(peer.make(times), times)
    figures = interleaved(work, options.rounds)
    for row in table.rows:
        if row.name in figures:
            row.figures[column] = figures[row.name]
    return table


def _sample(run: Callable[[], object], times: int) -> Callable[[], float]:
    return lambda: cpu_seconds(run) / times * 1e6
