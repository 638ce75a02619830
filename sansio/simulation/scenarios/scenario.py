"""What a scenario is, and the two values it is drawn from: a site (who serves, under which settings) and a story (who comes,
and what goes wrong)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from ...connection_pool import PoolConfig
from ...deployment import Deployment
from ...session import SessionConfig
from ..world.plan import CallerPlan, Conditions, Disturbance, HostPlan, Level


@dataclass(frozen=True, slots=True)
class Site:
    """The providers and the client's settings.

    longest_answer: tokens that the timeouts leave room for. patience: the shortest ``total_timeout`` of a deployment, which
    a slow reader must not use up: it would look like a failing provider.
    """

    deployments: tuple[Deployment, ...]
    hosts: tuple[HostPlan, ...]
    conditions: Conditions
    session: SessionConfig
    pool: PoolConfig
    longest_answer: int
    patience: float

    @property
    def names(self) -> tuple[str, ...]:
        """Of the deployments."""
        return tuple(deployment.name for deployment in self.deployments)


@dataclass(frozen=True, slots=True)
class Story:
    """Everything a scenario draws. ``seconds``: how long the phase in which things go wrong lasts."""

    seconds: float
    site: Site
    callers: tuple[CallerPlan, ...]
    disturbances: tuple[Disturbance, ...] = ()


@dataclass(frozen=True, slots=True)
class Scenario:
    """A kind of trouble. ``about``: one sentence. ``draw``: one story of it; all chance comes from the generator."""

    name: str
    about: str
    draw: Callable[[Random, Level], Story]


def maybe(rng: Random, likely: float) -> bool:
    """True with this probability."""
    return rng.random() < likely


def undisturbed_seconds(host: HostPlan, conditions: Conditions, tokens: int) -> float:
    """The longest that one attempt takes where nothing goes wrong: there and back twice (the connection, the request), and
    the provider's own time. One way is counted with all of its jitter."""
    return 4.0 * (conditions.latency + conditions.jitter) + host.first_byte_delay + host.token_delay * tokens
