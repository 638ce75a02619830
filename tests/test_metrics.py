"""`sansio.metrics`: the counts of an engine, and the identity between them."""

from __future__ import annotations

from sansio.batch import TokenUsage
from sansio.metrics import EngineMetrics


def test_an_engine_begins_with_nothing() -> None:
    metrics = EngineMetrics()
    assert metrics.submitted == metrics.accounted == 0
    assert metrics.usage == TokenUsage()


def test_every_request_is_in_exactly_one_of_seven_places() -> None:
    metrics = EngineMetrics(queued=1, waiting=2, in_flight=4, done=8, failed=16, cancelled=32, rejected=64)
    assert metrics.accounted == 127


def test_what_is_no_place_of_a_request_is_not_accounted() -> None:
    metrics = EngineMetrics(submitted=1, attempts=2, throttled=4, refreshes=8, failed_refreshes=16, unknown_usage=32)
    metrics.unknown_cost = 64
    assert metrics.accounted == 0
