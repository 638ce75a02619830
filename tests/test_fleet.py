"""Simulated processes on one key: how much of the limit they use, and how often they are refused."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from sansio import Deployment, Secret
from sansio.simulation.fleet import Fleet, FleetReport

RATE = 60
WINDOW = 4.0


def fleet(mode: str, shares: tuple[float, ...], *, seed: int = 0, **cluster: Any) -> Fleet:
    limits: dict[str, Any] = {"requests_per_minute": int(RATE * WINDOW), "window": WINDOW, "delivery_guard": 0.1}
    if mode == "strict":
        limits["strict"] = True
    else:
        cluster["mode"] = mode
    callers = RATE // 3
    deployment = Deployment(
        name="shared",
        model="gpt-4o",
        runtime_config={"api_key": Secret.inline("k"), "rate_limits": limits},
        serving={"max_concurrent": callers, "queue_timeout": 600.0},
    )
    return Fleet(
        deployment, {"url": "redis://simulated", **cluster}, processes=len(shares), callers=callers, shares=shares, seed=seed
    )


@pytest.mark.no_cover
@pytest.mark.parametrize("mode", ["strict", "escrow", "approximate"])
@pytest.mark.parametrize("shares", [(1, 1, 1, 1), (12, 1, 1, 1), (1,)])
def test_they_use_the_limit_and_are_never_refused(mode: str, shares: tuple[float, ...]) -> None:
    report = fleet(mode, shares).run(3)
    assert report.refused == 0 and report.failed == 0
    assert report.used >= 0.95
    assert len(report.accepted) == 4 and max(report.accepted) <= RATE * WINDOW


def test_without_the_store_they_stop_and_with_it_they_go_on() -> None:
    """Fail closed: nothing is granted past the lease, and nothing extra when the store is back."""
    taken: list[int] = []

    def meanwhile(these: Fleet) -> None:
        def look() -> None:
            taken.append(these.provider.requests_total)

        these.clock.call_at(10.0, lambda: setattr(these.store, "gone", True))
        for at in (13.0, 18.0):
            these.clock.call_at(at, look)
        these.clock.call_at(18.0, lambda: setattr(these.store, "gone", False))

    report = fleet("escrow", (1, 1, 1)).run(8, meanwhile=meanwhile)
    assert taken[0] == taken[1], "the leases are over"
    assert report.refused == 0 and report.failed == 0
    assert report.accepted[-1] == pytest.approx(RATE * WINDOW, rel=0.2), "and on it goes"


def test_a_run_is_the_same_again() -> None:
    one, again = (fleet("approximate", (3, 1), seed=7).run(2) for _ in range(2))
    assert asdict(one) == asdict(again) and isinstance(one, FleetReport)
    assert asdict(fleet("approximate", (3, 1), seed=8).run(2)) != asdict(one)


def test_what_cannot_be_is_refused() -> None:
    free = Deployment(name="free", model="gpt-4o", runtime_config={"api_key": Secret.inline("k")})
    with pytest.raises(ValueError, match="requests_per_minute"):
        Fleet(free, "redis://simulated")
    with pytest.raises(ValueError, match="windows"):
        fleet("escrow", (1,)).run(0)
    with pytest.raises(ValueError, match="processes"):
        Fleet(free, "redis://simulated", processes=0)
    with pytest.raises(ValueError, match="callers"):
        Fleet(free, "redis://simulated", callers=3)


def test_callers_are_spread_evenly_where_nothing_is_said() -> None:
    limits = {"requests_per_minute": 10, "window": 1.0}
    deployment = Deployment(name="d", model="gpt-4o", runtime_config={"api_key": Secret.inline("k"), "rate_limits": limits})
    report = Fleet(deployment, "redis://simulated", processes=3, callers=8).run(1)
    assert report.facts > 0 and report.exchanges > 0
