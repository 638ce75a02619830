"""A long random walk through a `World`, with moods: for a while one kind of thing goes wrong, then another."""

from __future__ import annotations

import random

from engine_world import World
from engine_world_parts import CLOCK_STEPS, FAILURES, HINTS, TIMEOUTS

_WEIGHTS = {
    "submit": 22, "send": 6, "head": 6, "commit": 5, "end_well": 9, "end_badly": 14, "lose": 4, "cancel": 4,
    "report_called_off": 4, "repeat": 4, "refreshed": 10, "refresh_failed": 1, "refresh_repeated": 1, "rebuild": 1,
    "override": 1, "let_pass": 8, "clock_back": 2, "wall_clock_jumps": 1, "tick": 4, "tick_at_deadline": 10,
}  # fmt: skip

_OUTAGE, _THROTTLED, _REFUSED = (1, 1, 2, 3, 8, 1), (0, 0, 0, 1), (4, 4, 6, 4, 1)
_MOODS: tuple[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]], ...] = (
    (_OUTAGE, (0,), (0, 1, 2), (0,)),
    (_OUTAGE, (0, 1, 2), (1, 2, 3, 4), (0, 0, 0, 4)),
    (_THROTTLED, (0, 2, 3, 4, 5), (2, 3, 4, 5, 6), (0, 4)),
    (_REFUSED, (0,), (0, 1, 3, 4), (0, 0, 5)),
    (tuple(range(len(FAILURES))), tuple(range(len(HINTS))), tuple(range(len(CLOCK_STEPS))), tuple(range(len(TIMEOUTS)))),
)
"""What goes wrong for a while: which failures, with which hints, at which pace, for requests with which timeouts."""


def walk(roster: str, seed: int, steps: int) -> World:
    """A world after so many random steps, each checked. The same arguments make the same world."""
    rng = random.Random(seed)
    world = World(roster, seed)
    names, weights = list(_WEIGHTS), list(_WEIGHTS.values())
    mood = _MOODS[0]
    for step, name in enumerate(rng.choices(names, weights, k=steps)):
        if step % 120 == 0:
            mood = rng.choice(_MOODS)
        failures, hints, pace, timeouts = mood
        n = [rng.randrange(1_000) for _ in range(6)]
        match name:
            case "submit":
                world.submit(n[0], n[1], n[2], rng.choice(timeouts), max(0, n[4] % 10 - 3), n[5] % 4)
            case "end_badly":
                world.end_badly(n[0], rng.choice(failures), rng.choice(hints), n[3] % 9)
            case "head" | "end_well" | "lose" | "report_called_off" | "repeat":
                getattr(world, name)(n[0], n[1])
            case "cancel":
                world.cancel(max(len(world.asked) - 1 - n[0] % 12, 0), n[1] % 3 == 0)
            case "refreshed":
                world.refreshed(n[0], n[1] if n[3] % 3 == 0 else 0, n[2] % 5 == 0)
            case "let_pass":
                world.let_pass(rng.choice(pace))
            case "override":
                world.override(n[0], n[1], n[2] / 50)
            case "clock_back":
                world.clock_back(n[0] / 100)
            case "wall_clock_jumps":
                world.wall_clock_jumps((n[0] - 400) / 20)
            case "tick_at_deadline":
                world.tick_at_deadline(n[0] % 4 == 0)
            case "tick":
                world.tick()
            case _:
                getattr(world, name)(n[0])
    return world
