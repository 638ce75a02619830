"""`RateLimiter`: one reservation in all dimensions and its settlement, beside the others' single count."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from typing import Any

from benchmarks.options import Options
from benchmarks.report import Table
from benchmarks.tables.small import Peer, table_of
from sansio import Permit, RateLimiter, RateLimits, TokenUsage

OURS = "ours: RateLimiter, requests and tokens"
_PLENTY = 10**9


def measure(options: Options) -> list[Table]:
    """One table."""
    peers = {
        OURS: Peer(_ours),
        "ours: RateLimiter, requests only": Peer(_ours_requests),
        "aiolimiter": Peer(_aiolimiter, "aiolimiter"),
        "pyrate-limiter": Peer(_pyrate_limiter, "pyrate-limiter"),
        "limits, moving window": Peer(_limits, "limits"),
    }
    table = table_of("limiter", "Limiter: reserve + settle", "reserve + settle", OURS, peers, options)
    table.notes.append(
        "ours reserves tokens from an estimate and settles them; the peers count requests, and settle nothing"
    )
    table.ask_at_most("reserve + settle", 2)
    return [table]


def _ours(times: int) -> Callable[[], object]:
    limits = RateLimits(requests_per_minute=_PLENTY, tokens_per_minute=_PLENTY * 1000, concurrent_requests=1000)
    return _reserving(RateLimiter(limits), times)


def _ours_requests(times: int) -> Callable[[], object]:
    return _reserving(RateLimiter(RateLimits(requests_per_minute=_PLENTY)), times)


def _reserving(limiter: RateLimiter, times: int) -> Callable[[], object]:
    usage = TokenUsage(100, 50)
    now = 0.0

    def run() -> None:
        nonlocal now
        for _ in range(times):
            now += 0.001
            permit = limiter.reserve(1, 100, 1000, now)
            assert isinstance(permit, Permit)
            limiter.settle(permit, usage, now)

    return run


def _aiolimiter(times: int) -> Callable[[], object]:
    aiolimiter: Any = importlib.import_module("aiolimiter")

    async def acquire() -> None:
        limiter = aiolimiter.AsyncLimiter(_PLENTY, 60)
        for _ in range(times):
            await limiter.acquire()

    return lambda: asyncio.run(acquire())


def _pyrate_limiter(times: int) -> Callable[[], object]:
    pyrate: Any = importlib.import_module("pyrate_limiter")
    bucket = pyrate.InMemoryBucket([pyrate.Rate(_PLENTY, pyrate.Duration.MINUTE)])
    limiter = pyrate.Limiter(bucket)

    def run() -> None:
        for _ in range(times):
            limiter.try_acquire("benchmark")

    return run


def _limits(times: int) -> Callable[[], object]:
    limits: Any = importlib.import_module("limits")
    storage: Any = importlib.import_module("limits.storage").MemoryStorage()
    limiter: Any = importlib.import_module("limits.strategies").MovingWindowRateLimiter(storage)
    item = limits.RateLimitItemPerMinute(_PLENTY)

    def run() -> None:
        for _ in range(times):
            limiter.hit(item, "benchmark")

    return run
