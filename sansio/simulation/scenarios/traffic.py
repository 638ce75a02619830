"""Who comes, and when: callers in crowds, each crowd with habits of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, TypeVar

from ...queue import Priority
from ..world.plan import CallerPlan, Level
from .scenario import Site, maybe

_Option = TypeVar("_Option")

_LEAST_AND_MOST: Final[dict[Level, tuple[int, int]]] = {"bytes": (60, 110), "requests": (400, 640)}
_SECONDS: Final[dict[Level, tuple[float, float]]] = {"bytes": (12.0, 28.0), "requests": (25.0, 60.0)}
_OF_EVERY_CLASS: Final = (*(Priority.NORMAL,) * 5, Priority.BACKGROUND, Priority.HIGH, Priority.HIGH, Priority.CRITICAL)
_SHORT_ANSWER: Final = 8
_LONG_ANSWERS: Final = 0.15
"""The part of answers that may be longer than ``_SHORT_ANSWER`` tokens, where a site has room for such."""


@dataclass(frozen=True, slots=True)
class Crowd:
    """How the callers of one kind behave. The numbers are probabilities.

    deployments, tenants, priorities: drawn from, evenly. unary: asks for the whole answer at once. unlimited: does not say
    how long the answer may be. hurried: has a timeout, of up to ``longest_timeout`` seconds. leaving: goes at a random
    moment. slow: takes its time over each chunk. waits: what it says of ``wait_for_circuit``.
    """

    deployments: tuple[str, ...]
    tenants: tuple[str, ...] = ("", "acme", "blue", "coral")
    priorities: tuple[Priority, ...] = _OF_EVERY_CLASS
    unary: float = 0.3
    unlimited: float = 0.03
    hurried: float = 0.35
    longest_timeout: float = 15.0
    leaving: float = 0.05
    slow: float = 0.06
    waits: tuple[bool | None, ...] = (None, None, True, False)


def how_many(rng: Random, level: Level) -> int:
    """Callers of a plan. Bytes cost more than requests, so there are fewer."""
    return rng.randint(*_LEAST_AND_MOST[level])


def how_long(rng: Random, level: Level) -> float:
    """Seconds of a plan's first phase."""
    return round(rng.uniform(*_SECONDS[level]), 3)


def evenly(rng: Random, count: int, start: float, end: float) -> list[float]:
    """So many arrivals of a Poisson process, given how many there are."""
    return [rng.uniform(start, end) for _ in range(count)]


def in_bursts(rng: Random, count: int, start: float, end: float) -> list[float]:
    """So many arrivals, in three to eight bursts of up to half a second."""
    bursts = [(rng.uniform(start, end), rng.uniform(0.0, 0.5)) for _ in range(rng.randint(3, 8))]
    chosen = (rng.choice(bursts) for _ in range(count))
    return [min(end, at + length * rng.random()) for at, length in chosen]


def at_once(rng: Random, count: int, start: float, end: float) -> list[float]:
    """So many arrivals within a second, somewhere in the first half."""
    at = start + rng.uniform(0.1, 0.5) * (end - start)
    return [min(end, at + rng.random()) for _ in range(count)]


def in_some_way(rng: Random, count: int, start: float, end: float) -> list[float]:
    """So many arrivals: evenly, in bursts, in a flood, or half one and half the other."""
    way = rng.choice((evenly, evenly, in_bursts, at_once))
    half = count // 2 if maybe(rng, 0.7) else 0
    return evenly(rng, half, start, end) + way(rng, count - half, start, end)


def gather(rng: Random, site: Site, crowds: Sequence[tuple[Crowd, list[float]]]) -> tuple[CallerPlan, ...]:
    """The callers of all crowds, numbered in the order in which they come."""
    arrivals = sorted((round(at, 6), which) for which, (_, times) in enumerate(crowds) for at in times)
    return tuple(_caller(rng, site, crowds[which][0], number, at) for number, (at, which) in enumerate(arrivals))


def _caller(rng: Random, site: Site, crowd: Crowd, number: int, at: float) -> CallerPlan:
    random = rng.random
    long = site.longest_answer > _SHORT_ANSWER and random() < _LONG_ANSWERS
    tokens = 1 + int(random() * (site.longest_answer if long else _SHORT_ANSWER))
    reads_every = 0.0
    if random() < crowd.slow:
        reads_every = random() * min(0.6, 0.25 * site.patience / (tokens + 4))
    leaves_after = None
    if random() < crowd.leaving:
        leaves_after = random() * (0.3 if random() < 0.5 else 5.0)
    timeout = None
    if random() < crowd.hurried:
        timeout = 0.2 + random() * (crowd.longest_timeout - 0.2)
    return CallerPlan(
        number,
        at,
        _one_of(rng, crowd.deployments),
        f"q{number}" + " and so on" * int(random() * 4),
        output_tokens=tokens,
        limits_output=random() >= crowd.unlimited,
        stream=random() >= crowd.unary,
        priority=_one_of(rng, crowd.priorities),
        tenant=_one_of(rng, crowd.tenants),
        timeout=timeout,
        wait_for_circuit=_one_of(rng, crowd.waits),
        leaves_after=leaves_after,
        reads_every=reads_every,
    )


def _one_of(rng: Random, options: tuple[_Option, ...]) -> _Option:
    """`Random.choice` at half its cost: a plan asks thousands of times."""
    return options[int(rng.random() * len(options))]
