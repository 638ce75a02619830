"""A run as a picture: who asked and how it ended, what was sent, how full the limit was, what the circuits did, and when
what went wrong (shaded). Drawn by matplotlib, without a screen."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import matplotlib
from matplotlib.figure import Figure

from sansio.simulation.scenarios.report import Report
from sansio.simulation.scenarios.timeline import Timeline

_matplotlib: Any = matplotlib
"""Its own types leave too much open to be of use."""

_STATES: Final = {"closed": "#8bc28b", "half_open": "#f0c75e", "open": "#d9605a"}
_ENDS: Final = {"done": "#4f9d69", "failed": "#c8453b", "rejected": "#e39a3b", "cancelled": "#9a9a9a"}

_ROWS: Final = 6
"""So many names of what went wrong stand below each other."""

_ROW: Final = 0.075
"""How much of the panel's height each of them takes."""

_ABOVE: Final[dict[str, Any]] = {
    "loc": "lower right", "bbox_to_anchor": (1.0, 0.97), "frameon": False, "ncols": 6, "fontsize": 8, "borderaxespad": 0.2,
}  # fmt: skip
"""Where legends stand: above their axes, so that they hide nothing."""


def draw(report: Report, path: Path) -> None:
    """Write the picture of a run that kept its timeline. The same run gives the same file."""
    timeline = report.timeline
    assert timeline is not None
    rows = len(timeline.circuits)
    with _matplotlib.rc_context({"svg.hashsalt": "inference-remote-core", "font.size": 9}):
        figure: Any = Figure(figsize=(11, 7.6 + 0.28 * rows), layout="constrained")
        axes: Any = figure.subplots(4, 1, sharex=True, height_ratios=[3, 2.4, 2.4, 0.4 + 0.35 * rows])
        _requests(axes[0], timeline)
        _attempts(axes[1], timeline)
        _levels(axes[2], timeline)
        _circuits(axes[3], timeline)
        for axis in axes:
            _shade(axis, timeline)
        _name_shades(axes[0], timeline)
        axes[0].set_xlim(0.0, timeline.seconds)
        axes[-1].set_xlabel("virtual seconds")
        verdict = "everything held" if report.violation is None else f"invariant {report.violation.number} does not hold"
        figure.suptitle(f"{report.scenario} · seed {report.seed} · level {report.level} · {verdict}")
        figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix.lower() == ".svg" else {"Software": None})


def _starts(timeline: Timeline) -> list[float]:
    return [at * timeline.bin_seconds for at in range(len(timeline.submitted))]


def _requests(axis: Any, timeline: Timeline) -> None:
    """Who asked, as a line, over how it ended, in bars."""
    starts, width = _starts(timeline), timeline.bin_seconds
    below = [0] * len(starts)
    for name, color in _ENDS.items():
        heights = getattr(timeline, name)
        axis.bar(starts, heights, width, bottom=below, align="edge", color=color, label=name)
        below = [low + height for low, height in zip(below, heights, strict=True)]
    axis.step(starts, timeline.submitted, where="post", color="#222222", linewidth=1.0, label="asked")
    labels = _ROW * (1 + min(len(timeline.disturbances), _ROWS))
    axis.set_ylim(0, max(1, *timeline.submitted, *below) / (1 - labels))
    axis.set_ylabel(f"requests / {width:.2g} s")
    _legend(axis)


def _attempts(axis: Any, timeline: Timeline) -> None:
    starts = _starts(timeline)
    axis.step(starts, timeline.attempts, where="post", color="#3b6fb6", label="attempts")
    axis.step(starts, timeline.retries, where="post", color="#8e5bb5", label="retries")
    axis.step(starts, timeline.throttled, where="post", color="#c8453b", label="429s")
    axis.step(starts, timeline.in_flight, where="post", color="#444444", linewidth=0.8, linestyle="--", label="in flight")
    axis.set_ylabel(f"attempts / {timeline.bin_seconds:.2g} s")
    _legend(axis)


def _levels(axis: Any, timeline: Timeline) -> None:
    """How full the limits are (left) and the queue (right)."""
    starts = _starts(timeline)
    for name, levels in timeline.limit_used.items():
        axis.step(starts[: len(levels)], [100 * level for level in levels], where="post", label=f"limit used, {name}")
    axis.set_ylim(0, 105)
    axis.set_ylabel("% of the limit")
    queue = axis.twinx()
    queue.fill_between(starts, timeline.queued, step="post", color="#bbbbbb", alpha=0.5, label="waiting")
    queue.set_ylabel("waiting requests")
    queue.set_ylim(bottom=0)
    handles, labels = (mine + theirs for mine, theirs in zip(*_handles(axis, queue), strict=True))
    axis.legend(handles, labels, **_ABOVE)


def _handles(*axes: Any) -> list[Any]:
    return [axis.get_legend_handles_labels() for axis in axes]


def _circuits(axis: Any, timeline: Timeline) -> None:
    """One band for each circuit, in the colour of its state."""
    names = list(timeline.circuits)
    for row, name in enumerate(names):
        for span in timeline.circuits[name]:
            axis.barh(row, span.end - span.begin, left=span.begin, height=0.7, color=_STATES[span.name])
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.4, -0.6)
    for state, color in _STATES.items():
        axis.bar(0, 0, color=color, label=state.replace("_", "-"))
    _legend(axis)


def _legend(axis: Any) -> None:
    axis.legend(**_ABOVE)


def _shade(axis: Any, timeline: Timeline) -> None:
    """When what went wrong, and the instant from which nothing does any more."""
    for span in timeline.disturbances:
        if span.end > span.begin:
            axis.axvspan(span.begin, span.end, color="#d9605a", alpha=0.08, linewidth=0)
        else:
            axis.axvline(span.begin, color="#d9605a", alpha=0.5, linewidth=0.8)
    axis.axvline(timeline.healed_at, color="#4f9d69", linewidth=1.2, linestyle=":")


def _name_shades(axis: Any, timeline: Timeline) -> None:
    """What went wrong, above everything that is drawn there (`_requests` leaves room)."""
    place = axis.get_xaxis_transform()
    for row, span in enumerate(timeline.disturbances):
        height = 0.97 - _ROW * (row % _ROWS)
        axis.text(
            span.begin, height, f" {span.name[:70]}", transform=place, fontsize=6.5, color="#8d2f2a", va="top", clip_on=True
        )
    axis.text(timeline.healed_at, 0.5, " healed", transform=place, fontsize=7, color="#2f6d45", clip_on=True)
