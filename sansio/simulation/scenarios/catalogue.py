"""The scenarios by name, and the plans that are drawn from them.

Each is what its name says, and always a little of everything else, so that seeds explore. Everything is drawn from the seed
and the scenario's name: the same two give an equal plan, in any process.
"""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import Final

from ..world.clock import chance
from ..world.plan import Level, Plan
from .healing import heal_bound
from .scenario import Scenario
from .stories import (
    broken_streams,
    brownout,
    clock_jump,
    drain_under_load,
    key_rotation,
    noisy_neighbour,
    outage,
    slow_provider,
    steady,
    throttle_storm,
    thundering_herd,
)
from .throttling import never_throttles
from .trouble import numbered

SCENARIOS: Final[dict[str, Scenario]] = {
    scenario.name: scenario
    for scenario in (
        Scenario("steady", "Nothing goes wrong; our limits are the provider's, which never has to refuse anybody.", steady),
        Scenario("outage", "A provider is down for a while, and then it is back.", outage),
        Scenario("brownout", "For long, a part of the requests fails or is slow.", brownout),
        Scenario("throttle_storm", "The provider allows less than we do, or answers 429 with hints of every kind.",
                 throttle_storm),
        Scenario("key_rotation", "Keys change and expire, and the vault is late, down or silent.", key_rotation),
        Scenario("slow_provider", "First bytes, tokens and bytes come late or never; pings come instead.", slow_provider),
        Scenario("broken_streams", "Answers break off, turn to garbage or outgrow all bounds, at any byte.", broken_streams),
        Scenario("noisy_neighbour", "One tenant floods the engine that others use too.", noisy_neighbour),
        Scenario("thundering_herd", "Many wait out an outage, and all come back at once.", thundering_herd),
        Scenario("drain_under_load", "The engine is drained in the middle of its load.", drain_under_load),
        Scenario("clock_jump", "The clocks are set, forward and back, while everything runs.", clock_jump),
    )
}  # fmt: skip
"""Every scenario."""


def plan(scenario: str, seed: int, level: Level = "bytes") -> Plan:
    """The plan of a seed. Raises `ValueError` for a scenario that is not known."""
    found = SCENARIOS.get(scenario)
    if found is None:
        near = difflib.get_close_matches(str(scenario), SCENARIOS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(SCENARIOS)}"
        raise ValueError(f"scenario: {scenario!r} is unknown; {hint}")
    story = found.draw(chance(seed, "plan", scenario), level)
    drawn = Plan(
        scenario=scenario,
        seed=seed,
        level=level,
        deployments=story.site.deployments,
        hosts=story.site.hosts,
        callers=story.callers,
        disturbances=numbered(story.disturbances),
        conditions=story.site.conditions,
        session=story.site.session,
        pool=story.site.pool,
        seconds=story.seconds,
    )
    return replace(drawn, heal_within=heal_bound(drawn), throttle_free=never_throttles(drawn))
