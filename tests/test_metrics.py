"""`sansio.metrics`: the counts of an engine, and the identity between them."""

from __future__ import annotations

from sansio.batch import TokenUsage
from sansio.metrics import EngineMetrics, UsageSum


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


def test_usages_add_up_and_one_lower_bound_makes_the_sum_one() -> None:
    total = UsageSum()
    assert total.value() == TokenUsage()
    total.add(TokenUsage(1, 2, 3, 4, 5))
    total.add(TokenUsage(10, 20, 30, 40, 50))
    assert total.value() == TokenUsage(11, 22, 33, 44, 55)
    total.add(TokenUsage(1, 0, provenance="lower_bound"))
    total.add(TokenUsage(0, 1, 0, 9, cache_write_long_tokens=7, service_tier="flex", cost_usd=1.0))
    total.add(TokenUsage(0, 0, 0, 9, cache_write_long_tokens=2))
    assert total.value() == TokenUsage(12, 23, 33, 62, 55, "lower_bound", cache_write_long_tokens=9)  # of all tiers
