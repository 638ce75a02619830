"""`CircuitBreaker`: one permit taken and one success recorded, beside a call through the others' closed breakers."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from benchmarks.options import Options
from benchmarks.report import Table
from benchmarks.tables.small import Peer, table_of
from sansio import CircuitBreaker, CircuitBreakerConfig, CircuitPermit, Outcome

OURS = "ours: CircuitBreaker"


def measure(options: Options) -> list[Table]:
    """One table."""
    peers = {
        OURS: Peer(_ours),
        "pybreaker": Peer(_pybreaker, "pybreaker"),
        "purgatory": Peer(_purgatory, "purgatory"),
        "aiobreaker": Peer(_aiobreaker, "aiobreaker"),
    }
    table = table_of("breaker", "Breaker: acquire + record", "acquire + record", OURS, peers, options)
    table.ask_at_most("acquire + record", 0.7)
    return [table]


def _ours(times: int) -> Callable[[], object]:
    breaker = CircuitBreaker(CircuitBreakerConfig())
    now = 0.0

    def run() -> None:
        nonlocal now
        acquire, record, success = breaker.acquire, breaker.record, Outcome.SUCCESS
        for _ in range(times):
            now += 0.001
            permit = acquire(now)
            assert isinstance(permit, CircuitPermit)
            record(permit, success, now)

    return run


def _nothing() -> None:
    pass


def _pybreaker(times: int) -> Callable[[], object]:
    breaker: Any = importlib.import_module("pybreaker").CircuitBreaker()
    return _calls(breaker.call, times)


def _aiobreaker(times: int) -> Callable[[], object]:
    breaker: Any = importlib.import_module("aiobreaker").CircuitBreaker()
    return _calls(breaker.call, times)


def _calls(call: Callable[[Callable[[], None]], object], times: int) -> Callable[[], object]:
    def run() -> None:
        for _ in range(times):
            call(_nothing)

    return run


def _purgatory(times: int) -> Callable[[], object]:
    factory: Any = importlib.import_module("purgatory").SyncCircuitBreakerFactory()
    breaker = factory.get_breaker("benchmark")

    def run() -> None:
        for _ in range(times):
            with breaker:
                pass

    return run
