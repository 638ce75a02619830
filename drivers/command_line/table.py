"""The table at the end of the demo: what each driver went through, measure by measure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from rich.table import Table

from .demo_tally import Tally

_RETRIES = ("rate_limited", "server_error", "network_error", "timeout", "unauthorized")
"""Always shown, in this order; others only where there were some."""

_TRANSITIONS = (("closed->open", "half_open->open"), ("open->half_open",), ("half_open->closed",))
"""Opened, let a probe pass, closed."""


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of ``values`` that at least ``percent`` of them do not exceed (nearest rank); NaN of none."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def summary(tallies: Sequence[Tally]) -> Table:
    """The whole table."""
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("")
    for tally in tallies:
        table.add_column(tally.driver, justify="right")
    for name, measure in _measures(tallies):
        table.add_row(name, *(measure(tally) for tally in tallies))
    table.add_section()
    table.add_row("verdict", *("[bold red]FAILED[/]" if tally.defects() else "[green]ok[/]" for tally in tallies))
    return table


def _measures(tallies: Sequence[Tally]) -> list[tuple[str, Callable[[Tally], str]]]:
    reasons = {*_RETRIES, *(reason for tally in tallies for reason in tally.metrics.retries)}
    order = [*_RETRIES, *sorted(reasons - {*_RETRIES})]
    return [
        ("prompts", lambda tally: str(len(tally.prompts))),
        ("answered once and in full", lambda tally: str(len(tally.answered_well))),
        ("requests", lambda tally: str(tally.metrics.submitted)),
        ("  interrupted, asked again", lambda tally: str(tally.interrupted)),
        ("  failed otherwise, asked again", lambda tally: str(sum(tally.failed.values()))),
        ("attempts", lambda tally: str(tally.metrics.attempts)),
        *((f"  retries: {reason}", _retries(reason)) for reason in order),
        ("breaker opened / probed / closed", _breaker),
        ("key refreshes, first included", lambda tally: str(tally.metrics.refreshes)),
        ("TTFT with waiting, p50 / p95, ms", _ttft),
        ("tokens in / out", lambda tally: f"{tally.metrics.usage.input_tokens} / {tally.metrics.usage.output_tokens}"),
        ("cost (USD)", lambda tally: f"{tally.metrics.cost_usd:.4f}"),
        ("  attempts whose cost is unknown", lambda tally: str(tally.metrics.unknown_cost)),
        ("time (s)", lambda tally: f"{tally.seconds:.1f}"),
    ]


def _retries(reason: str) -> Callable[[Tally], str]:
    return lambda tally: str(tally.metrics.retries.get(reason, 0))


def _breaker(tally: Tally) -> str:
    counts = tally.metrics.circuit_transitions
    return " / ".join(str(sum(counts.get(name, 0) for name in names)) for names in _TRANSITIONS)


def _ttft(tally: Tally) -> str:
    return " / ".join(f"{percentile(tally.first_token_ms, percent):.0f}" for percent in (50, 95))
