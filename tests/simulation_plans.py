"""Small plans made by hand, for the tests of the runner: what a catalogue would draw is not their subject."""

from __future__ import annotations

from typing import Any

from sansio import Deployment, Secret
from sansio.simulation import ProviderLimits, Status
from sansio.simulation.world.plan import CallerPlan, Disturbance, Faults, HostPlan, Level, Plan

HOST = "chat.test"
LIMITS = ProviderLimits(600)
OUTAGE = Faults(0, 5.0, 10.0, HOST, ((Status(500), 0.9),))


def deployment(name: str = "chat", host: str = HOST, **config: Any) -> Deployment:
    """A deployment whose circuit is quick."""
    settings: dict[str, Any] = {
        "endpoint": f"http://{host}/v1",
        "api_key": Secret.from_env("KEY"),
        "circuit_breaker": {"failure_threshold": 4, "open_duration": 3.0, "max_open_duration": 10.0},
        "rate_limits": {"requests_per_minute": 600},
    }
    return Deployment(name=name, model="gpt-4o", runtime="openai", runtime_config={**settings, **config})


def make_plan(
    *disturbances: Disturbance,
    callers: int = 40,
    level: Level = "requests",
    deployments: tuple[Deployment, ...] = (),
    limits: ProviderLimits | None = LIMITS,
    **changes: Any,
) -> Plan:
    """A caller every half second, and what goes wrong meanwhile."""
    return Plan(
        scenario="by hand",
        seed=3,
        level=level,
        deployments=deployments or (deployment(),),
        hosts=(HostPlan(HOST, limits=limits),),
        callers=tuple(CallerPlan(number, number * 0.5, "chat", f"q{number}") for number in range(callers)),
        disturbances=disturbances,
        **{"seconds": 30.0, **changes},
    )
