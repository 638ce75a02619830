"""Who of a cluster wants how much, and when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Final, NamedTuple


class Wish(NamedTuple):
    """For a while, one life wants so many times what the limit allows."""

    at: float
    seconds: float
    life: int
    times: float


Profile = Callable[[Random, Sequence[int], float, float], list[Wish]]
"""Draws what the lives want within so many seconds; the last number is a span."""


def even(rng: Random, lives: Sequence[int], seconds: float, span: float) -> list[Wish]:
    """All want the same, all the time."""
    times = rng.uniform(0.5, 2.5) / len(lives)
    return [Wish(0.0, seconds, life, times) for life in lives]


def skewed(rng: Random, lives: Sequence[int], seconds: float, span: float) -> list[Wish]:
    """One wants more than everything, the others next to nothing."""
    hot = rng.choice(lives)
    return [Wish(0.0, seconds, life, rng.uniform(1.2, 2.0) if life == hot else 0.02) for life in lives]


def flipping(rng: Random, lives: Sequence[int], seconds: float, span: float) -> list[Wish]:
    """One after the other wants everything."""
    wishes, at = [Wish(0.0, seconds, life, 0.02) for life in lives], 0.0
    while at < seconds:
        lasts = min(seconds - at, span * rng.uniform(0.3, 3.0))
        wishes.append(Wish(at, lasts, rng.choice(lives), rng.uniform(1.0, 2.0)))
        at += lasts
    return wishes


def bursts(rng: Random, lives: Sequence[int], seconds: float, span: float) -> list[Wish]:
    """Everybody wants much at times, and nothing in between."""
    wishes: list[Wish] = []
    for life in lives:
        at = rng.uniform(0.0, 2.0 * span)
        while at < seconds:
            lasts = min(seconds - at, span * rng.uniform(0.05, 0.8))
            wishes.append(Wish(at, lasts, life, rng.uniform(0.5, 4.0)))
            at += lasts + span * rng.uniform(0.2, 3.0)
    return wishes


PROFILES: Final[tuple[Profile, ...]] = (even, skewed, flipping, bursts)
"""All of them."""
