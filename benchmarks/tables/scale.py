"""Ten thousand open streams, and ten thousand waiting requests, in one process: what they take and do."""

from __future__ import annotations

import sys

from benchmarks import processes
from benchmarks.options import Options
from benchmarks.processes import Child
from benchmarks.report import Goal, Row, Table
from benchmarks.timing import Figure

KINDS = {
    "streams, HTTP/1.1": ("streams", "http1"),
    "streams, HTTP/2": ("streams", "http2"),
    "waiting in the queue": ("waiting", "http1"),
}
COLUMNS = {
    "KB each": "kb_each",
    "µs of CPU to begin, each": "us_each_to_open",
    "silent: ms of CPU a second": "cpu_ms_per_second",
    "silent: wake-ups a second": "wakes_per_second",
    "ended as they should": "complete",
}


def measure(options: Options) -> list[Table]:
    """One table, a row for each kind of crowd."""
    count = options.count(10_000, 20)
    seconds = options.count(5, 1) if not options.quick else 0.2
    first = next(iter(KINDS))
    table = Table(
        "scale", f"{count:,} at the same time in one process, asyncio", "see the columns", list(COLUMNS), first, ratios=False
    )
    table.notes.append(f"memory: resident, above the idle process with its engine; silent for {seconds:g} s; one round")
    server, ports = processes.server("many")
    with server:
        for name, (kind, way) in KINDS.items():
            row = Row(name, ours=True)
            table.rows.append(row)
            if way not in ports:
                row.missing = "needs h2"
                continue
            url = f"http://127.0.0.1:{ports[way]}"
            with Child(sys.executable, "benchmarks.crowd", kind, way, url, str(count), str(seconds)) as crowd:
                try:
                    answer = crowd.hear()
                except RuntimeError as error:
                    row.missing = f"failed: {error}"
                    continue
            row.figures = {column: Figure([answer[key]]) for column, key in COLUMNS.items()}
    for name in KINDS:
        _goals(table, name, count)
    return [table]


def _goals(table: Table, name: str, count: int) -> None:
    memory, complete = table.best(name, "KB each"), table.best(name, "ended as they should")
    cpu, wakes = table.best(name, "silent: ms of CPU a second"), table.best(name, "silent: wake-ups a second")
    if memory is None or complete is None or cpu is None or wakes is None:
        table.goals.append(Goal(name, None, "not measured"))
        return
    by = f"{memory:.1f} KB" + ("" if memory <= 40 else f", {memory / 40 - 1:.0%} above")
    table.goals.append(Goal(f"{name}: ≤ 40 KB each", memory <= 40, by))
    polls = f"{cpu:.2f} ms of CPU and {wakes:.1f} wake-ups a second, for all of them"
    table.goals.append(Goal(f"{name}: no polling", cpu <= 5 and wakes <= 10, polls))
    table.goals.append(Goal(f"{name}: all end as they should", complete == count, f"{complete:,.0f} of {count:,}"))
