"""Which run a seed stands for: so that one that was met among thousands is had again by its seed alone."""

from __future__ import annotations

from typing import Final

from ..world.plan import Level, Plan
from .catalogue import SCENARIOS, plan

BYTES_EVERY: Final = 4
"""One seed in so many goes down to the bytes. Has no divisor in common with the number of scenarios, so that each of them
meets both levels."""


def scenario_of(seed: int) -> str:
    """The scenario a seed stands for, where none is named: each in turn."""
    return list(SCENARIOS)[seed % len(SCENARIOS)]


def level_of(seed: int) -> Level:
    """The level a seed stands for, where none is named."""
    return "bytes" if seed % BYTES_EVERY == 0 else "requests"


def plan_of(seed: int, scenario: str | None = None, level: Level | None = None) -> Plan:
    """The run of a seed. Raises `ValueError` for an unknown scenario, naming the nearest."""
    return plan(scenario or scenario_of(seed), seed, level or level_of(seed))
