"""Limits of fewer units than there are members that wait: nobody starves, in either mode, and nobody grants too much."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

import pytest

from sansio import TokenUsage
from sansio.cluster.config import ClusterConfig, SharingMode
from sansio.cluster.limiters import limiter_of
from sansio.cluster.shared_limiter import SharedRateLimiter
from sansio.cluster.store import StoreReply
from sansio.rate_limit import Permit, RateLimits
from sansio.simulation.world.shared_store import SharedStore

WINDOW = 4.0
GUARD = 0.5
TICK = 0.1
RUNS_FOR = 1.0
UNIX = 1.75e9


@dataclass
class Process:
    """A limiter, and heads that wait: always one, or one that comes so many seconds after the last was granted."""

    limiter: SharedRateLimiter
    tokens: int
    comes_after: float
    waits_since: float = 0.0
    waited: float = 0.0
    granted: list[float] = field(default_factory=list[float])
    running: deque[tuple[float, Permit]] = field(default_factory=deque[tuple[float, Permit]])
    answer: tuple[float, StoreReply] | None = None

    def step(self, store: SharedStore, now: float, latency: float) -> None:
        while self.running and self.running[0][0] <= now:
            self.limiter.settle(self.running.popleft()[1], TokenUsage(self.tokens, 0), now)
        self.serve(now)
        at = self.limiter.exchange_at()
        if at is not None and at <= now:
            reply = store.execute(self.limiter.exchange(now, UNIX + now), UNIX + now + latency / 2)
            self.answer = now + latency, reply
        if self.answer is not None and self.answer[0] <= now:
            self.limiter.exchanged(self.answer[1], now, UNIX + now)
            self.answer = None
            self.serve(now)

    def serve(self, now: float) -> None:
        while now >= self.waits_since:
            self.waited = max(self.waited, now - self.waits_since)
            permit = self.limiter.reserve(1, self.tokens, 0, now)
            if not isinstance(permit, Permit):
                return
            self.granted.append(now)
            self.running.append((now + RUNS_FOR, permit))
            self.waits_since = now + self.comes_after


def run(
    limits: RateLimits,
    mode: SharingMode,
    count: int,
    seconds: float,
    *,
    tokens: int = 1,
    rests: bool = False,
    latency: float = 0.0,
    tick: float = TICK,
    apart: float = 0.0,
) -> list[Process]:
    """Processes that all have heads from the beginning, each so much later than the one before (``apart``)."""
    cluster = ClusterConfig("redis://x", mode=mode, estimate_error=0.0)
    store = SharedStore()
    processes: list[Process] = []
    for number in range(count):
        limiter = limiter_of(limits, cluster, "limit", f"m{number}")
        assert isinstance(limiter, SharedRateLimiter)
        processes.append(Process(limiter, tokens, (0.3 + 0.17 * number) * WINDOW if rests else 0.0, number * apart))
    for number in range(int(seconds / tick) + 1):
        for process in processes:
            process.step(store, number * tick, latency)
    return processes


def bound(spans: float, span: float) -> float:
    """The time of so many spans, and of the questions on the way."""
    return spans * (span + 1.0)


def assert_within(processes: list[Process], limit: int) -> None:
    grants = sorted(at for process in processes for at in process.granted)
    span = WINDOW + GUARD - 1e-6
    assert max(sum(at - span < other <= at for other in grants) for at in grants) <= limit


MODES = pytest.mark.parametrize("mode", [SharingMode.APPROXIMATE, SharingMode.ESCROW])


@MODES
@pytest.mark.parametrize("rests", [False, True], ids=["always one", "now and then"])
@pytest.mark.parametrize(("limit", "count"), [(1, 2), (2, 3), (2, 5), (3, 4), (5, 8), (6, 4)])
def test_requests(mode: SharingMode, limit: int, count: int, rests: bool) -> None:
    limits = RateLimits(requests_per_minute=limit, window=WINDOW, delivery_guard=GUARD)
    processes = run(limits, mode, count, 6 * (WINDOW + GUARD), rests=rests)
    assert_within(processes, limit)
    longest = max(process.waited for process in processes)
    assert longest <= bound(1 + math.ceil(count / limit), WINDOW + GUARD)


@MODES
@pytest.mark.parametrize(("fit", "count"), [(1, 3), (2, 3), (3, 4)])
def test_tokens(mode: SharingMode, fit: int, count: int) -> None:
    limits = RateLimits(tokens_per_minute=1000 * fit + 300, window=WINDOW, delivery_guard=GUARD)
    processes = run(limits, mode, count, (3 + count) * (WINDOW + GUARD), tokens=1000)
    assert_within(processes, fit)
    assert max(process.waited for process in processes) <= bound(1 + count, WINDOW + GUARD)


@MODES
@pytest.mark.parametrize(("limit", "count"), [(1, 2), (2, 5), (3, 4)])
def test_how_many_run(mode: SharingMode, limit: int, count: int) -> None:
    limits = RateLimits(concurrent_requests=limit, window=WINDOW)
    processes = run(limits, mode, count, 12.0)
    assert max(process.waited for process in processes) <= bound(1 + math.ceil(count / limit), RUNS_FOR)


@MODES
@pytest.mark.parametrize(("requests", "tokens", "cost", "count"), [(2, 9, 9, 3), (3, 10, 5, 5), (2, 9, 5, 5), (3, 9, 9, 4)])
def test_two_scarce_limits(mode: SharingMode, requests: int, tokens: int, cost: int, count: int) -> None:
    """Two heads that each hold what the other needs would wait for ever."""
    limits = RateLimits(requests_per_minute=requests, tokens_per_minute=tokens, window=WINDOW, delivery_guard=GUARD)
    processes = run(limits, mode, count, (3 + count) * (WINDOW + GUARD), tokens=cost)
    assert_within(processes, requests)
    assert_within(processes, tokens // cost)
    now = (3 + count) * (WINDOW + GUARD)
    assert max(max(process.waited, now - process.waits_since) for process in processes) <= bound(1 + count, WINDOW + GUARD)


@MODES
@pytest.mark.parametrize("latency", [0.02, 0.05])
@pytest.mark.parametrize("apart", [0.0, 0.01, 0.03])
def test_heads_that_begin_within_the_latency_of_each_other(mode: SharingMode, latency: float, apart: float) -> None:
    """They have to agree on who was first, though each hears of the other later."""
    limits = RateLimits(tokens_per_minute=1000, window=WINDOW, delivery_guard=GUARD)
    processes = run(limits, mode, 2, 4 * (WINDOW + GUARD), tokens=600, latency=latency, tick=0.01, apart=apart)
    assert_within(processes, 1)
    assert min(len(process.granted) for process in processes) >= 1
    assert max(process.waited for process in processes) <= bound(3, WINDOW + GUARD)


def test_what_runs_in_a_process_that_is_cut_off_counts_for_its_lease_and_a_window() -> None:
    """Escrow: it starts nothing any more, but what it started runs on, and nobody hears when it ends."""
    cluster, store = ClusterConfig("redis://x", mode=SharingMode.ESCROW), SharedStore()
    limits = RateLimits(concurrent_requests=4, window=WINDOW)
    cut_off, other = (limiter_of(limits, cluster, "limit", name) for name in ("cut off", "other"))
    assert isinstance(cut_off, SharedRateLimiter) and isinstance(other, SharedRateLimiter)
    started: list[float] = []
    lease = cluster.lease_for(WINDOW)
    ticks = 150
    for tick in range(ticks):
        now = tick * TICK
        for limiter in (cut_off, other) if now < 1.0 else (other,):
            while (limiter is cut_off or now >= 1.0) and isinstance(limiter.reserve(1, 1, 1, now), Permit):
                if limiter is other:
                    started.append(now)
            at = limiter.exchange_at()
            if at is not None and at <= now:
                limiter.exchanged(store.execute(limiter.exchange(now, UNIX + now), UNIX + now), now, UNIX + now)
    assert len(started) == 4
    assert 1.0 + lease + WINDOW - 2 * TICK <= started[0] <= (ticks - 1) * TICK
