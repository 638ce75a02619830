"""What a table says: rows of figures, goals with whether they were reached; printed, and as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from .timing import Figure

UNSTEADY = 0.5
"""How far the median may lie from the best, as a part of it, before the report warns."""


@dataclass(slots=True)
class Row:
    """One contender. missing: why there are no figures, where there are none."""

    name: str
    figures: dict[str, Figure] = field(default_factory=dict)
    ours: bool = False
    version: str | None = None
    missing: str | None = None


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal: what is asked, whether it was reached (``None``: could not be told), and by how much (or not)."""

    asked: str
    reached: bool | None
    by: str


@dataclass(slots=True)
class Table:
    """One table of spec 8. ``reference``: the row of ours that ratios are taken to; ``ratios``: whether
    they are shown, which needs a common unit."""

    key: str
    title: str
    unit: str
    columns: list[str]
    reference: str
    rows: list[Row] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    higher_is_better: bool = False
    notes: list[str] = field(default_factory=list)
    ratios: bool = True

    def best(self, row: str, column: str) -> float | None:
        """One figure, if it is there."""
        for candidate in self.rows:
            if candidate.name == row and column in candidate.figures:
                return candidate.figures[column].best
        return None

    def ask_at_most(self, column: str, limit: float, row: str | None = None) -> None:
        """The goal of a cost: at most ``limit``."""
        asked = f"{column}: ≤ {limit:g} {self.unit}"
        value = self.best(row or self.reference, column)
        if value is None:
            self.goals.append(Goal(asked, None, "not measured"))
        else:
            by = f"{shown(value)} {self.unit}" + ("" if value <= limit else f", {value / limit - 1:.0%} above")
            self.goals.append(Goal(asked, value <= limit, by))

    def ask_ratio(self, column: str, peer: str, times: float, *, words: str | None = None, row: str | None = None) -> None:
        """The goal of a ratio: so many times better than ``peer``."""
        asked = f"{column}: {words or f'{times:g}× {peer}'}"
        ours, theirs = self.best(row or self.reference, column), self.best(peer, column)
        if ours is None or theirs is None:
            self.goals.append(Goal(asked, None, f"{peer}: not measured"))
            return
        ratio = ours / theirs if self.higher_is_better else theirs / ours
        by = f"{ratio:.2f}× {peer}" + ("" if ratio >= times else f", {1 - ratio / times:.0%} short")
        self.goals.append(Goal(asked, ratio >= times, by))

    def as_json(self) -> dict[str, Any]:
        """Everything in it."""
        rows = [
            {
                "name": row.name, "ours": row.ours, "version": row.version, "missing": row.missing,
                "figures": {
                    column: {"best": round(figure.best, 4), "spread": round(figure.spread, 4)}
                    for column, figure in row.figures.items()
                },
            }
            for row in self.rows
        ]  # fmt: skip
        goals = [{"asked": goal.asked, "reached": goal.reached, "by": goal.by} for goal in self.goals]
        return {
            "key": self.key, "title": self.title, "unit": self.unit, "columns": self.columns, "reference": self.reference,
            "higher_is_better": self.higher_is_better, "rows": rows, "goals": goals, "notes": self.notes,
        }  # fmt: skip


def shown(value: float) -> str:
    """A figure with about three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def print_table(table: Table, console: Console) -> None:
    """The rows, each figure as best, spread and ratio to ours; then the goals."""
    grid = RichTable(title=f"{table.title} ({table.unit})", title_justify="left", title_style="bold")
    grid.add_column("")
    grid.add_column("version")
    for column in table.columns:
        grid.add_column(column, justify="right")
    for row in table.rows:
        cells = [_cell(table, row, column) for column in table.columns]
        if row.missing is not None:
            cells = ["–"] * len(table.columns)
        grid.add_row(row.name, row.version or "", *cells, style="bold" if row.ours else None)
    console.print(grid)
    for note in [
        *table.notes,
        *_unsteady(table),
        *(f"{row.name}: {row.missing}" for row in table.rows if row.missing is not None),
    ]:
        console.print(f"  {note}", highlight=False, markup=False)
    for goal in table.goals:
        word = {True: "[green]reached[/]", False: "[red]missed[/]", None: "[yellow]not known[/]"}[goal.reached]
        console.print(f"  goal {word}  {goal.asked}: {goal.by}", highlight=False)
    console.print()


def _unsteady(table: Table) -> list[str]:
    """The figures whose minimum is far from their median: one lucky round, not what the work costs."""
    cells = [
        f"{row.name} ({column})"
        for row in table.rows
        for column, figure in row.figures.items()
        if figure.spread > UNSTEADY and table.ratios
    ]
    return [f"median more than {UNSTEADY:.0%} from the best, do not rely on: {', '.join(cells)}"] if cells else []


def _cell(table: Table, row: Row, column: str) -> str:
    figure = row.figures.get(column)
    if figure is None:
        return ""
    text = shown(figure.best)
    if len(figure.samples) > 1:
        text += f" {'-' if figure.higher_is_better else '+'}{figure.spread:.0%}"
    reference = table.best(table.reference, column)
    if row.name == table.reference or not reference or not table.ratios:
        return text
    return (
        f"{text} ({figure.best / reference:.2g}×)"
        if figure.best / reference < 9.95
        else (f"{text} ({figure.best / reference:.0f}×)")
    )
