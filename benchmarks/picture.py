"""The client table as a picture: bars on a log scale, ours in colour. It stands on a light page and on a dark one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

COLUMNS = {
    "unary": "a request, 50 at once",
    "paced": "a stream event, paced",
    "burst": "a stream event, burst",
}
_INK = "#7d8590"  # legible on white and on black
_OURS, _PEER = "#2f81f7", "#9aa4b0"
_WIDTH, _DOTS_PER_INCH = 9.0, 100


def draw(record: dict[str, Any], path: Path) -> None:
    """Draw the clients of a record (what ``--json`` writes) into an .svg or .png. Raises `ValueError` without them."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    table = next((table for table in record["tables"] if table["key"] == "clients"), None)
    if table is None:
        raise ValueError("the picture shows the table of clients: measure that one too")
    rows = [row for row in table["rows"] if row["figures"]][::-1]
    names = [f"{row['name']} {row['version'] or ''}".strip() for row in rows]
    plt.rcParams.update(
        {"svg.hashsalt": "benchmarks", "font.size": 8, "text.color": _INK, "axes.labelcolor": _INK, "xtick.color": _INK,
         "ytick.color": _INK, "axes.edgecolor": _INK}
    )  # fmt: skip
    size = (_WIDTH, 0.9 + 0.24 * len(rows))
    figure, panels = plt.subplots(1, len(COLUMNS), figsize=size, sharey=True, dpi=_DOTS_PER_INCH)
    for panel, (column, title) in zip(panels, COLUMNS.items(), strict=True):
        _bars(panel, rows, names, column)
        panel.set_title(title, fontsize=9)
    caption = f"µs of client CPU, log scale, less is better · {record['machine']} · {record['date']}"
    figure.text(0.5, 0.01, caption, ha="center", fontsize=7)
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    figure.savefig(path, transparent=True, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


def _bars(panel: Any, rows: list[dict[str, Any]], names: list[str], column: str) -> None:
    values = [row["figures"][column]["best"] for row in rows]
    colours = [_OURS if row["ours"] else _PEER for row in rows]
    bars = panel.barh(names, values, color=colours, height=0.7)
    panel.set_xscale("log")
    panel.set_xlim(min(values) / 2, max(values) * 6)
    panel.bar_label(bars, [f"{value:,.0f}" if value >= 10 else f"{value:.1f}" for value in values], padding=3, fontsize=7)
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(axis="y", length=0)
