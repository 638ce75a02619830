"""``python -m benchmarks``: print the tables of spec 8 on this machine, beside the peers that are installed.

Goals are printed, not asserted: the exit status is 0 whenever it ran.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from pathlib import Path

from rich.console import Console

from sansio import __version__

from . import foreign
from .machine import describe
from .options import DEFAULT_PEERS, Options
from .report import Table, print_table
from .tables import TABLES


def main() -> int:
    """Measure, print, write."""
    arguments = _arguments()
    if arguments.install_peers:
        problems = foreign.install(arguments.peers_dir)
        print("\n".join(problems) or f"The peers are in {arguments.peers_dir}.")
        return 0
    rounds = arguments.rounds or (1 if arguments.quick else 5)
    options = Options(quick=arguments.quick, rounds=rounds, peers=arguments.peers_dir.resolve())
    console = Console(width=max(140, Console().width) if sys.stdout.isatty() else 160, soft_wrap=False)
    machine = describe()
    console.print(f"{machine}\ninference-remote-core {__version__}", highlight=False)
    console.print(f"minimum of {rounds} interleaved rounds, +spread to the median, (ratio to ours)\n", highlight=False)
    tables: list[Table] = []
    for key in arguments.tables or TABLES:
        for table in TABLES[key](options):
            print_table(table, console)
            tables.append(table)
    _summary(tables, console)
    record = {
        "machine": machine, "version": __version__,
        "date": datetime.date.today().isoformat(), "rounds": rounds, "quick": arguments.quick,
        "tables": [table.as_json() for table in tables],
    }  # fmt: skip
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if arguments.picture:
        from .picture import draw  # matplotlib takes its time

        draw(record, arguments.picture)
    return 0


def _summary(tables: list[Table], console: Console) -> None:
    goals = [goal for table in tables for goal in table.goals]
    reached = sum(goal.reached is True for goal in goals)
    unknown = sum(goal.reached is None for goal in goals)
    console.print(f"{reached} of {len(goals)} goals reached, {unknown} not known", highlight=False)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("tables", nargs="*", choices=[*TABLES, []], help="which ones (default: all)")
    parser.add_argument("--quick", action="store_true", help="tiny counts, only to see that everything runs")
    parser.add_argument("--rounds", type=int, help="of each contender (default: 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the client table there (.svg or .png)")
    parser.add_argument("--peers-dir", type=Path, default=DEFAULT_PEERS, help="where --install-peers puts its peers")
    parser.add_argument("--install-peers", action="store_true", help="install litellm, and the peers in JavaScript and Rust")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
