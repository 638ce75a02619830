"""Many runs, shared out among processes, and told of in the order of their seeds."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Told = TypeVar("Told")

_SEEDS_AT_ONCE = 8
"""How many a process is given at a time."""


def run_seeds(seeds: range, run: Callable[[range], list[Told]], jobs: int | None) -> Generator[Told]:
    """What is told of each run, whoever made it. If it is closed before its end, so is who makes them.

    run: makes some of them; other processes must be able to find it. jobs: how many processes; ``None``: one for each core.
    """
    shares = [seeds[at : at + _SEEDS_AT_ONCE] for at in range(0, len(seeds), _SEEDS_AT_ONCE)]
    jobs = jobs or multiprocessing.cpu_count()
    if jobs == 1 or len(shares) == 1:
        for share in shares:
            yield from run(share)
        return
    pool = ProcessPoolExecutor(
        min(jobs, len(shares)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_leave_interrupts_to_the_parent,
    )
    try:
        with _nobody_interrupted():
            made = pool.map(run, shares)
        for told in made:
            yield from told
    except BaseException:  # Ctrl-C, or nobody reads on: what is under way is of no use
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def progress(runs: int) -> Generator[Callable[[], None]]:
    """A bar for whoever watches; what it gives is called after each run."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console  # here, because nothing else of this command needs it
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task("runs", total=runs)
        yield lambda: shown.advance(task)


def _leave_interrupts_to_the_parent() -> None:
    """Ctrl-C goes to all processes; one of them acts on it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _nobody_interrupted() -> Generator[None]:
    """Processes that are started meanwhile know nothing of Ctrl-C, not even before they run anything of ours."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may say what signals do
        yield
        return
    found = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, found)
