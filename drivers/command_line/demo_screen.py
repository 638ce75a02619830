"""What a person sees while the demo runs: a live picture on a terminal, log lines anywhere else."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from .demo_tally import Happening, Tally

_LINES = 12
"""How many of the last happenings are shown."""

_BAR_WIDTH = 12
"""Characters. The rows then fit a terminal of 80."""

_BREAKER_STYLES = {"closed": "green", "open": "bold red", "half-open": "yellow"}


class PlainScreen:
    """One line for each happening."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def happened(self, tally: Tally, happening: Happening) -> None:
        """Print it."""
        metrics = tally.metrics
        state = f"{tally.done} done, {metrics.in_flight} in flight, {metrics.queued + metrics.waiting} waiting"
        line = f"{happening.at:6.2f} s  {tally.driver:<8} {happening}  [{state}]"
        self._console.print(line, markup=False, soft_wrap=True)


class LiveScreen:
    """A row for each driver and the last happenings, redrawn by a thread of its own."""

    def __init__(self, console: Console, title: str) -> None:
        self.tallies: Sequence[Tally] = ()
        self._title = title
        self._happenings: list[tuple[str, Happening]] = []
        self._live = Live(console=console, get_renderable=self.render, refresh_per_second=10, transient=True)

    def __enter__(self) -> None:
        self._live.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.__exit__(kind, error, trace)

    def happened(self, tally: Tally, happening: Happening) -> None:
        """Show it with the next picture."""
        self._happenings.append((tally.driver, happening))

    def render(self) -> RenderableType:
        """The picture now."""
        lines = [self._line(*shown) for shown in self._happenings[-_LINES:]]
        blank = [Text() for _ in range(_LINES - len(lines))]
        return Group(Text(self._title, style="bold"), Text(), self._rows(), Text(), *lines, *blank)

    def _rows(self) -> Table:
        rows = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
        rows.add_column("driver", no_wrap=True)
        rows.add_column("", width=_BAR_WIDTH)
        for heading in ("done", "in flight", "waiting", "breaker", "retries", "time"):
            rows.add_column(heading, justify="left" if heading == "breaker" else "right", no_wrap=True)
        for tally in self.tallies:
            rows.add_row(*_row(tally))
        return rows

    @staticmethod
    def _line(driver: str, happening: Happening) -> Text:
        return Text.assemble((f"{happening.at:5.1f} s  ", "dim"), (f"{driver:<8} ", "cyan"), str(happening), no_wrap=True)


def _row(tally: Tally) -> list[RenderableType]:
    total, metrics = len(tally.prompts), tally.metrics
    if tally.began_at is None:
        return [Text(tally.driver, style="dim"), Text("comes next", style="dim")]
    return [
        Text(tally.driver, style="bold"),
        ProgressBar(total=total, completed=tally.done, width=_BAR_WIDTH),
        f"{tally.done}/{total}",
        str(metrics.in_flight),
        str(metrics.queued + metrics.waiting),
        Text(tally.breaker, style=_BREAKER_STYLES[tally.breaker]),
        str(sum(metrics.retries.values())),
        f"{tally.seconds:.1f} s",
    ]
