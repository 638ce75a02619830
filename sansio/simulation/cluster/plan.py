"""What a cluster is made of, as values: which processes live when, what is asked of them, and what goes wrong.

As in `world/plan.py`, everything is known before it begins, each part has a number, and a part can be left out (`keep`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final, TypeAlias, assert_never

from ...backoff import require_count, require_number, require_positive
from ...cluster.config import ClusterConfig
from ...rate_limit import RateLimits
from ..world.plan_checks import require_share, require_unique, require_when
from ..world.shared_store import StoreConditions

FASTEST_DRIFT: Final = 0.008
"""Seconds that a clock may gain or lose in one. Two such clocks are apart by less than two parts in a hundred."""

_FARTHEST_WALL: Final = 1e6


@dataclass(frozen=True, slots=True)
class Life:
    """One process, from its beginning. Who comes back after an end is another life, with a new name.

    begins: seconds after the cluster's beginning. drift: seconds that its monotonic clock gains in one. wall: by how much
    its wall clock is ahead.
    """

    number: int
    begins: float = 0.0
    drift: float = 0.0
    wall: float = 0.0

    def __post_init__(self) -> None:
        require_count("number", self.number)
        require_number("begins", self.begins)
        require_number("drift", self.drift, at_least=-FASTEST_DRIFT)
        if self.drift > FASTEST_DRIFT:
            raise ValueError(f"drift: {self.drift!r} is above {FASTEST_DRIFT}")
        require_number("wall", self.wall, at_least=-_FARTHEST_WALL)


@dataclass(frozen=True, slots=True)
class Demand:
    """For a while, ``rate`` requests a second come to a life, at random times.

    tokens: what each is estimated to use, about (input and output together). spread: by which part it may be more or less.
    big: how likely one is ``big_times`` as large.
    """

    number: int
    at: float
    seconds: float
    life: int
    rate: float
    tokens: int
    spread: float = 0.5
    big: float = 0.0
    big_times: float = 10.0

    def __post_init__(self) -> None:
        require_when(self.number, self.at, self.seconds)
        require_count("life", self.life)
        require_positive("rate", self.rate)
        require_count("tokens", self.tokens, at_least=1)
        require_share("spread", self.spread)
        require_share("big", self.big)
        require_positive("big_times", self.big_times)


@dataclass(frozen=True, slots=True)
class Killed:
    """A process is no more, and says nothing. What it had sent arrives."""

    number: int
    at: float
    life: int
    seconds: float = 0.0

    def __post_init__(self) -> None:
        require_when(self.number, self.at, self.seconds)


@dataclass(frozen=True, slots=True)
class Leaves:
    """A process says farewell."""

    number: int
    at: float
    life: int
    seconds: float = 0.0

    def __post_init__(self) -> None:
        require_when(self.number, self.at, self.seconds)


@dataclass(frozen=True, slots=True)
class Sleeps:
    """A process stands still for a while, and then goes on as if nothing had been. Its clocks run on."""

    number: int
    at: float
    seconds: float
    life: int

    def __post_init__(self) -> None:
        require_when(self.number, self.at, self.seconds)


@dataclass(frozen=True, slots=True)
class WallSet:
    """Somebody sets a process' wall clock by so many seconds."""

    number: int
    at: float
    life: int
    by: float
    seconds: float = 0.0

    def __post_init__(self) -> None:
        require_when(self.number, self.at, self.seconds)
        require_number("by", self.by, at_least=-_FARTHEST_WALL)


@dataclass(frozen=True, slots=True)
class Partition:
    """For a while the lives of each group hear nothing of the others. Who is in no group stays with the store.

    split: each group has a store of its own meanwhile, that knew what the one did; afterwards there is the one again, as it
    went on. Else they have none.
    """

    number: int
    at: float
    seconds: float
    groups: tuple[tuple[int, ...], ...]
    split: bool = False

    def __post_init__(self) -> None:
        require_when(self.number, self.at, self.seconds)
        require_unique("groups", [life for group in self.groups for life in group])


@dataclass(frozen=True, slots=True)
class BadWay:
    """For a while the ways to the store are like this."""

    number: int
    at: float
    seconds: float
    conditions: StoreConditions

    def __post_init__(self) -> None:
        require_when(self.number, self.at, self.seconds)


@dataclass(frozen=True, slots=True)
class StoreGone:
    """For a while there is no store."""

    number: int
    at: float
    seconds: float

    def __post_init__(self) -> None:
        require_when(self.number, self.at, self.seconds)


@dataclass(frozen=True, slots=True)
class FailOver:
    """The store's replica, whose clock is ``ahead``, takes its place at the end: what came from ``at`` on is lost."""

    number: int
    at: float
    seconds: float
    ahead: float = 0.0

    def __post_init__(self) -> None:
        require_when(self.number, self.at, self.seconds)
        require_number("ahead", self.ahead, at_least=-_FARTHEST_WALL)


Trouble: TypeAlias = Killed | Leaves | Sleeps | WallSet | Partition | BadWay | StoreGone | FailOver
"""Something that goes wrong, or is done."""


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """A whole run.

    limits, cluster: as every process is configured. lives, demands, troubles: by number. seconds: how long the phase in
    which things go wrong lasts. error: how far off estimates are, as a part of them; 0: they are exact. bias: by which
    factor what is used is larger all the same. answers_after: seconds from a request's arrival until its usage is known,
    about. delay: the most seconds between a grant and its arrival at the provider. hot: which of the lives that are left
    gets all the demand after the faults; tokens: what a request is estimated to use then, about.
    """

    scenario: str
    seed: int
    limits: RateLimits
    cluster: ClusterConfig
    lives: tuple[Life, ...]
    demands: tuple[Demand, ...]
    troubles: tuple[Trouble, ...] = ()
    seconds: float = 60.0
    error: float = 0.0
    bias: float = 1.0
    answers_after: float = 0.1
    delay: float = 0.0
    hot: int = 0
    tokens: int = 100
    demands_left_out: int = 0
    troubles_left_out: int = 0

    def __post_init__(self) -> None:
        require_count("seed", self.seed)
        require_positive("seconds", self.seconds)
        require_share("error", self.error)
        for name in ("bias", "answers_after"):
            require_positive(name, getattr(self, name))
        require_number("delay", self.delay)
        require_count("hot", self.hot)
        require_count("tokens", self.tokens, at_least=1)
        if not self.lives:
            raise ValueError("lives: is empty; give at least one Life")
        for name in ("lives", "demands", "troubles"):
            require_unique(name, [each.number for each in getattr(self, name)])
        lives = {life.number for life in self.lives}
        for name, parts in (("demands", self.demands), ("troubles", self.troubles)):
            for each in parts:
                if each.at + each.seconds > self.seconds * (1.0 + 1e-9):
                    raise ValueError(f"{name}: number {each.number} ends after the plan's {self.seconds:g} s")
                for life in _lives_of(each):
                    if life not in lives:
                        raise ValueError(f"{name}: number {each.number} is about life {life}, which there is not")

    def keep(self, demands: Collection[int], troubles: Collection[int]) -> ClusterPlan:
        """The same plan with only these demands and troubles, by number."""
        kept_demands = tuple(each for each in self.demands if each.number in demands)
        kept_troubles = tuple(each for each in self.troubles if each.number in troubles)
        return replace(
            self,
            demands=kept_demands,
            troubles=kept_troubles,
            demands_left_out=self.demands_left_out + len(self.demands) - len(kept_demands),
            troubles_left_out=self.troubles_left_out + len(self.troubles) - len(kept_troubles),
        )


def _lives_of(part: Demand | Trouble) -> tuple[int, ...]:
    match part:
        case Demand() | Killed() | Leaves() | Sleeps() | WallSet():
            return (part.life,)
        case Partition():
            return tuple(life for group in part.groups for life in group)
        case BadWay() | StoreGone() | FailOver():
            return ()
        case _:
            assert_never(part)
