"""``remote-core demo``: two hundred prompts through each driver, against an embedded provider in every kind of trouble.

Each driver has its own provider, with the same troubles, and its turn. The demo trusts no one: it compares every answer with
the only right one, counts what the engine counts, and looks for what was left behind. Its exit status is the verdict.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from rich.console import Console

from drivers.mock_provider import serve_in_thread
from sansio.simulation import MockProvider

from .demo_drivers import run_asyncio, run_sync, run_trio
from .demo_scene import USERS, Vault, make_prompts, make_provider
from .demo_screen import LiveScreen, PlainScreen
from .demo_tally import Tally
from .exit_status import FAILED, INTERRUPTED
from .table import summary

Act = Callable[[str, Vault, Tally], None]

ACTS: Final[dict[str, Act]] = {"sync": run_sync, "asyncio": run_asyncio, "trio": run_trio}

_GRACE: Final = 5.0
"""Seconds in which the server may notice that its clients have gone, and the last thread may end."""


def demo(arguments: argparse.Namespace) -> int:
    """Run it, and print the table and the verdict."""
    console = Console(highlight=False)
    prompts = make_prompts(arguments.prompts, arguments.seed)
    title = (
        f"remote-core demo · {len(prompts)} prompts through each driver, {min(USERS, len(prompts))} users at a time · "
        f"seed {arguments.seed}\nThe provider throttles, fails, stalls, breaks streams and rotates its key."
    )
    live = console.is_terminal and not console.is_dumb_terminal and not arguments.plain
    screen = LiveScreen(console, title) if live else PlainScreen(console)
    tallies = [Tally(driver, prompts, screen.happened) for driver in ACTS]
    if isinstance(screen, LiveScreen):
        screen.tallies = tallies
    else:
        console.print(title, markup=False, soft_wrap=True)
    try:
        with screen:
            for tally in tallies:
                perform(ACTS[tally.driver], tally, arguments.seed)
    except KeyboardInterrupt:
        console.print("interrupted")
        return INTERRUPTED
    console.print(summary(tallies))
    return _verdict(console, tallies)


def perform(act: Act, tally: Tally, seed: int) -> None:
    """One driver's turn, and the search for what it left behind."""
    provider = make_provider(len(tally.prompts), seed)
    with serve_in_thread(provider) as server:
        before = set(threading.enumerate())
        tally.begin()
        act(server.endpoint, Vault(provider, tally.sample), tally)
        tally.end()
        tally.problems += left_behind(provider, before)
        if provider.requests_total > tally.metrics.attempts:
            tally.problems.append(
                f"the provider saw {provider.requests_total} requests, the engine knows of {tally.metrics.attempts} attempts"
            )


def left_behind(provider: MockProvider, before: set[threading.Thread], grace: float = _GRACE) -> list[str]:
    """What is still there of an act that is over, after ``grace`` seconds; empty as soon as nothing is."""
    give_up_at = time.monotonic() + grace
    while True:
        threads = sorted(thread.name for thread in set(threading.enumerate()) - before)
        found = [f"left behind: thread {name}" for name in threads]
        if provider.connections_open:
            found.append(f"left behind: {provider.connections_open} open connections")
        if provider.active:
            found.append(f"left behind: {provider.active} requests that the provider still answers")
        if not found or time.monotonic() > give_up_at:
            return found
        time.sleep(0.01)


def _verdict(console: Console, tallies: Sequence[Tally]) -> int:
    for tally in tallies:
        for defect in tally.defects():
            console.print(f"{tally.driver}: {defect}", style="red", markup=False, soft_wrap=True)
    prompts = sum(len(tally.prompts) for tally in tallies)
    well = sum(len(tally.answered_well) for tally in tallies)
    lost, doubled = sum(len(tally.lost) for tally in tallies), sum(len(tally.doubled) for tally in tallies)
    wrong = sum(len(tally.wrong) for tally in tallies)
    left = sum(problem.startswith("left behind") for tally in tallies for problem in tally.problems)
    failed = any(tally.defects() for tally in tallies)
    line = f"{prompts} prompts: {well} answered once and in full; {lost} lost, {doubled} doubled, {wrong} wrong, "
    line += f"{left} left behind."
    console.print(line, style="bold red" if failed else "bold green", markup=False, soft_wrap=True)
    return FAILED if failed else 0
