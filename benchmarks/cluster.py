"""Real processes, one key, a real store: do they use all of the limit, and never exceed it?

    python -m benchmarks.cluster --mode escrow --seconds 60 [--kill-one] [--stop-store 10 | --restart-store 10]

Starts a store, the mock provider with a limiter of its own (which charges what a request really used, when it arrives, and
answers 429), and processes that ask as much as they may with estimates that err by up to a half. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.processes import Child
from benchmarks.store import Store
from drivers.mock_provider.threaded import ThreadedMockServer, serve_in_thread
from sansio.simulation import MockProvider, ProviderLimits

_TOKENS_A_REQUEST = 60
_LOG = 1_000_000


@dataclass(frozen=True, slots=True)
class Run:
    """What is done. The tokens are what limits; requests have the same limit, in their number, with some room.

    mode: ``strict``, ``escrow`` or ``approximate``. tokens: the limit in each window of ``window`` seconds. guard: the
    delivery guard, as a part of the window. error: of the estimates, at most, as a part. stop_store: for
    so many seconds, from a third of the time on, the store answers nothing; restart_store: it is killed, comes back empty.
    """

    mode: str = "escrow"
    processes: int = 4
    seconds: float = 60.0
    window: float = 10.0
    tokens: int = 120_000
    callers: int = 40
    guard: float = 0.025
    error: float = 0.5
    kill_one: bool = False
    stop_store: float = 0.0
    restart_store: float = 0.0
    options: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it.

    throttled: 429s of the provider. used: part of the limit that was counted, over whole windows, the first left out. peak:
    the most any window has held, as a part of the limit. windows: tokens taken in each. lost: requests that did not succeed
    (but those cut with their process), by kind of error. while_gone: tokens taken in the second half of the store's absence.
    """

    throttled: int
    used: float
    peak: float
    windows: list[int]
    requests: int
    lost: dict[str, int]
    while_gone: int


def run(plan: Run) -> Outcome:
    """Do it. Raises `RuntimeError` with the last words of a process that died by itself."""
    limits: dict[str, Any] = {
        "tokens_per_minute": plan.tokens,
        "requests_per_minute": plan.tokens * 2 // _TOKENS_A_REQUEST,
        "window": plan.window,
        "delivery_guard": plan.window * plan.guard,
    }
    provider_limits = ProviderLimits(limits["requests_per_minute"], plan.tokens, plan.window)
    provider = MockProvider(limits=provider_limits, first_byte_delay=0.0, token_delay=0.0, log_size=_LOG)
    with ExitStack() as stack:
        store = stack.enter_context(Store())
        server = stack.enter_context(serve_in_thread(provider))
        cluster: dict[str, Any] = {"url": store.url, **plan.options}
        if plan.mode == "strict":
            limits["strict"] = True
        else:
            cluster["mode"] = plan.mode
        children: list[Child] = []
        for number in range(plan.processes):
            task: dict[str, Any] = {"endpoint": server.endpoint, "cluster": cluster, "limits": limits}
            task |= {"callers": plan.callers, "seed": number, "error": plan.error}
            children.append(stack.enter_context(Child(sys.executable, "benchmarks.cluster_worker", json.dumps(task))))
        for child in children:
            child.hear()
        begin = time.monotonic()
        for child in children:
            child.tell("go")
        while_gone = _disturb(plan, store, server, children, begin)
        _wait_until(begin + plan.seconds)
        windows = server.call(lambda mock: _by_window(mock, plan.window))
        answers = [child.ask({"stop": True}) for child in children]
    lost: dict[str, int] = {}
    for answer in answers:
        for kind, count in answer["outcomes"].items():
            if kind != "ok":
                lost[kind] = lost.get(kind, 0) + count
    limiter = provider.limiter("gpt-4o")
    assert limiter is not None
    whole = windows[1 : max(2, int(plan.seconds / plan.window))]
    used = sum(whole) / (plan.tokens * len(whole)) if whole else 0.0
    return Outcome(
        limiter.refused,
        used,
        limiter.peak_tokens / plan.tokens,
        windows,
        sum(answer["outcomes"].get("ok", 0) for answer in answers),
        lost,
        while_gone,
    )


def _disturb(plan: Run, store: Store, server: ThreadedMockServer, children: list[Child], begin: float) -> int:
    """What goes wrong in between. Returns what was taken while the store was gone, once the leases had run out."""
    gone = plan.stop_store or plan.restart_store
    taken = 0
    if gone:
        _wait_until(begin + plan.seconds / 3)
        stopped = time.monotonic()
        if plan.stop_store:
            store.freeze()
        else:
            store.kill()
        _wait_until(stopped + gone / 2)
        before = server.call(_total)
        _wait_until(stopped + gone)
        taken = server.call(_total) - before
        if plan.stop_store:
            store.thaw()
        else:
            store.start()
    if plan.kill_one:
        _wait_until(begin + plan.seconds / 2)
        children.pop().kill()
    return taken


def _total(provider: MockProvider) -> int:
    return sum(record.input_tokens + record.output_tokens for record in provider.log if record.status == 200)


def _by_window(provider: MockProvider, window: float) -> list[int]:
    """Tokens taken in each window since the first request."""
    taken = [record for record in provider.log if record.status == 200]
    if not taken:
        return []
    first = taken[0].arrived_at
    windows = [0] * (int((taken[-1].arrived_at - first) / window) + 1)
    for record in taken:
        windows[int((record.arrived_at - first) / window)] += record.input_tokens + record.output_tokens
    return windows


def _wait_until(instant: float) -> None:
    time.sleep(max(0.0, instant - time.monotonic()))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cluster", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--mode", choices=("strict", "escrow", "approximate"), default="escrow")
    for name in ("seconds", "window", "guard", "error", "stop-store", "restart-store"):
        parser.add_argument(f"--{name}", type=float, default=getattr(Run(), name.replace("-", "_")))
    for name in ("processes", "tokens", "callers"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Run(), name))
    parser.add_argument("--kill-one", action="store_true")
    print(json.dumps(asdict(run(Run(**vars(parser.parse_args(arguments)))))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
