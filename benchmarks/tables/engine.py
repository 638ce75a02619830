"""One request through `RemoteEngineCore`, without I/O: four facts and four looks at the deadline, with others waiting."""

from __future__ import annotations

import gc
import random
import time
from collections import deque
from collections.abc import Callable

from benchmarks.options import Options
from benchmarks.report import Goal, Row, Table
from benchmarks.timing import interleaved
from benchmarks.workload import MODEL, PROMPT
from sansio import (
    AttemptEnded,
    Committed,
    Credential,
    Deployment,
    Effect,
    ExecuteBatch,
    HeadReceived,
    Message,
    RefreshSession,
    RemoteEngineCore,
    ResponseHead,
    Secret,
    SessionReport,
    StartAttempt,
    TokenUsage,
)

OURS = "RemoteEngineCore"
_BATCH = ExecuteBatch(messages=[Message(role="user", content=PROMPT)])
_HEAD = ResponseHead(200, (("content-type", "text/event-stream"),))
_USAGE = TokenUsage(24, 20)
_SLOTS = 32


def measure(options: Options) -> list[Table]:
    """One table with a column for each number of waiting requests."""
    requests = options.count(5000, 50)
    waiting = {f"{number:,} waiting": number for number in ((0, 10, 1_000, 10_000) if not options.quick else (0, 10))}
    table = Table("engine", "One request through the engine, no I/O", "µs", list(waiting), OURS)
    table.notes.append("submit, head, first content, end: each a fact, with deadline() read after it; every limit is set")
    work: dict[str, Callable[[], float]] = {column: _Run(number, requests).sample for column, number in waiting.items()}
    table.rows.append(Row(OURS, interleaved(work, options.rounds), ours=True))
    for column in table.columns:
        table.ask_at_most(column, 25)
    few, many = table.columns[1], table.columns[-1]
    first, last = table.best(OURS, few), table.best(OURS, many)
    if first and last:
        by = f"{last / first:.2f}× the cost"
        table.goals.append(Goal(f"flat from {few} to {many} (within a tenth)", last / first <= 1.1, by))
    return [table]


class _Run:
    """An engine whose slots are full and whose queue keeps its length."""

    def __init__(self, waiting: int, requests: int) -> None:
        limits = {"requests_per_minute": 10**9, "tokens_per_minute": 10**12, "concurrent_requests": 10**6}
        deployment = Deployment(
            name="benchmark",
            model=MODEL,
            runtime_config={"api_key": Secret.inline("k"), "rate_limits": limits},
            serving={"max_concurrent": _SLOTS, "queue_capacity": 20_000},
        )
        self._core = RemoteEngineCore(deployment, rng=random.Random(0))
        self._requests, self._submitted, self._now = requests, 0, 0.0
        self._running: deque[StartAttempt] = deque()
        (refresh,) = (effect for effect in self._submit() if isinstance(effect, RefreshSession))
        self._carry_out(self._core.handle(SessionReport(refresh.session, refresh.refresh_id, Credential("k")), 0.0, 0.0))
        for _ in range(waiting + _SLOTS - 1):
            self._carry_out(self._submit())

    def _submit(self) -> list[Effect]:
        self._submitted += 1
        return self._core.handle(self._core.prepare(self._submitted, _BATCH), self._now, self._now)

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, StartAttempt):
                self._running.append(effect)

    def sample(self) -> float:
        """µs of CPU for one request."""
        core, now = self._core, self._now
        adds = [core.prepare(self._submitted + 1 + number, _BATCH) for number in range(self._requests)]
        self._submitted += self._requests
        gc.collect()
        start = time.process_time()
        for add in adds:
            now += 0.001
            order = self._running.popleft()
            request, attempt = order.request_id, order.attempt
            core.handle(HeadReceived(request, attempt, _HEAD), now, now)
            core.deadline()
            core.handle(Committed(request, attempt), now, now)
            core.deadline()
            self._carry_out(core.handle(AttemptEnded(request, attempt, None, _USAGE, sent=True), now, now))
            core.deadline()
            self._carry_out(core.handle(add, now, now))
            core.deadline()
        self._now = now
        return (time.process_time() - start) / self._requests * 1e6
