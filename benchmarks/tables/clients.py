"""Clients: a unary request, a stream event that comes by itself, a stream event that comes in a burst."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from benchmarks import processes
from benchmarks.clients import CLIENTS, OURS, Contender
from benchmarks.foreign import NOT_INSTALLED
from benchmarks.machine import version
from benchmarks.options import Options
from benchmarks.processes import Child
from benchmarks.report import Row, Table
from benchmarks.server import GAP, STEP
from benchmarks.timing import Figure


def measure(options: Options) -> list[Table]:
    """One table with a column for each kind of work."""
    at_once = options.count(50, 5)
    orders = _orders(options, at_once)
    table = Table("clients", "Clients: CPU of the client", "µs", list(orders), OURS)
    table.notes.append(
        f"{at_once} at once; unary: a request; paced: an event, each stream gets one every {STEP * 1000:g} ms, all in step;"
        f" staggered: the same, one stream every {GAP * 1000:g} ms; burst: an event of an answer written at once"
    )
    with ExitStack() as stack:
        child, ports = processes.server()
        stack.enter_context(child)
        workers: dict[str, Child] = {}
        for contender in CLIENTS:
            row, worker = _start(contender, ports, options)
            table.rows.append(row)
            if worker is not None:
                workers[contender.name] = stack.enter_context(worker)
        _hear_versions(table, workers)
        _run(table, orders, workers, options)
    _goals(table)
    return [table]


def _orders(options: Options, at_once: int) -> dict[str, dict[str, Any]]:
    def spread(way: str, events: int, seconds_each: float) -> dict[str, Any]:
        """The middle of a round: by then all have begun, and none has ended."""
        seconds = events * seconds_each
        return {"way": way, "at_once": at_once, "count": events, "begin": 0.25 * seconds, "length": 0.6 * seconds}

    return {
        "unary": {"way": "unary", "at_once": at_once, "count": options.count(60, 2)},
        "paced": spread("paced", options.count(100, 12), STEP),
        "staggered": spread("staggered", options.count(100, 80), at_once * GAP),
        "burst": {"way": "burst", "at_once": at_once, "count": options.count(300, 20)},
    }


def _start(contender: Contender, ports: dict[str, Any], options: Options) -> tuple[Row, Child | None]:
    """Its row, and its worker if there can be one."""
    row = Row(contender.name, ours=contender.ours)
    if contender.packages and not contender.own_environment:
        versions = {package: version(package) for package in contender.packages}
        row.version = None if contender.ours else versions[contender.packages[0]]
        if None in versions.values():
            row.missing = NOT_INSTALLED
            return row, None
    worker = processes.worker(contender, ports, options.peers)
    if isinstance(worker, str):
        row.missing = worker
        return row, None
    return row, worker


def _hear_versions(table: Table, workers: dict[str, Child]) -> None:
    """Wait for the workers, which have started side by side."""
    for row in table.rows:
        if row.name in workers:
            try:
                row.version = workers[row.name].hear().get("version") or row.version
            except RuntimeError as error:
                row.missing = f"failed: {error}"
                del workers[row.name]


def _run(table: Table, orders: dict[str, dict[str, Any]], workers: dict[str, Child], options: Options) -> None:
    rows = {row.name: row for row in table.rows}
    for column, order in orders.items():
        warm_up = order if options.quick or "length" in order else order | {"count": max(1, order["count"] // 5)}
        for number in range(options.rounds + 1):
            for name in list(workers):
                if number == 0 and "length" in order:
                    continue  # warm already
                try:
                    answer = workers[name].ask(order if number else warm_up)
                except RuntimeError as error:
                    rows[name].missing = f"failed: {error}"
                    rows[name].figures.clear()
                    del workers[name]
                    continue
                if number and answer["us"] is None:
                    table.notes.append(f"{name}: no event of a {column} round came while it was measured")
                elif number:
                    rows[name].figures.setdefault(column, Figure()).samples.append(answer["us"])


def _goals(table: Table) -> None:
    for column, limit, openai, litellm in (("unary", 150, 10, 20), ("paced", 35, 6, 11), ("burst", 5, 20, 70)):
        table.ask_at_most(column, limit)
        table.ask_ratio(column, "openai", openai)
        table.ask_ratio(column, "litellm", litellm)
