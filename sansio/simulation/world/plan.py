"""What a world is made of, as values: everything that is going to be done in it is known before it begins.

A plan is drawn from a seed, once. What it leaves to chance while it runs (latencies, which request meets which fault) is
drawn from generators of their own, so a part of it can be left out (`Plan.keep`) and the rest stays nearly as it was: that
is how a failing run is made small.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from ...connection_pool import PoolConfig
from ...deployment import Deployment
from ...queue import Priority
from ...session import SessionConfig
from ..provider.fault import Fault
from ..provider.provider_limiter import ProviderLimits

Level = Literal["bytes", "requests"]
"""How deep a world goes: down to the bytes (HTTP, connections, the whole mock provider), or to requests and answers."""


@dataclass(frozen=True, slots=True)
class CallerPlan:
    """Somebody who asks once.

    number: its place in the plan, kept when others are left out. at: seconds after the beginning. deployment: which of the
    plan's. prompt: what it asks; the answer follows from it (`expected_text`). output_tokens: how long that is;
    limits_output: whether the request says so too, so that what it will cost is known beforehand.
    timeout, priority, tenant, wait_for_circuit: as in `AddRequest`. leaves_after: seconds after which it goes, whatever the
    state of its request. reads_every: seconds it takes over each chunk (a slow reader); 0 takes each at once.
    """

    number: int
    at: float
    deployment: str
    prompt: str
    output_tokens: int = 3
    limits_output: bool = True
    stream: bool = True
    priority: Priority = Priority.NORMAL
    tenant: str = ""
    timeout: float | None = None
    wait_for_circuit: bool | None = None
    leaves_after: float | None = None
    reads_every: float = 0.0

    @property
    def said(self) -> str:
        """The whole prompt, with the marker that tells the provider how long to answer (`answers.py`)."""
        return f"{self.prompt} #tokens={self.output_tokens}"


@dataclass(frozen=True, slots=True)
class Conditions:
    """How the network is. Each connection draws for itself.

    latency: seconds one way, at least; jitter: up to so many more, anew for each piece. refused: how likely a dial is
    refused. lost: how likely nothing is ever heard of a dial. reset: how likely a connection is reset, at some byte drawn
    between 0 and ``reset_within`` of what the server sends. stalled: how likely a connection falls silent at such a byte,
    for ``stall_seconds``. piece_bytes: the most bytes that arrive at once; pieces are cut at random.
    """

    latency: float = 0.02
    jitter: float = 0.01
    refused: float = 0.0
    lost: float = 0.0
    reset: float = 0.0
    reset_within: int = 4_000
    stalled: float = 0.0
    stall_seconds: float = 20.0
    piece_bytes: int = 1_400


@dataclass(frozen=True, slots=True)
class Faults:
    """For ``seconds`` from ``at`` on, requests to ``host`` meet these faults, each with its probability."""

    number: int
    at: float
    seconds: float
    host: str
    rates: tuple[tuple[Fault, float], ...]


@dataclass(frozen=True, slots=True)
class BadNetwork:
    """For a while the network to ``host`` is like this."""

    number: int
    at: float
    seconds: float
    host: str
    conditions: Conditions


@dataclass(frozen=True, slots=True)
class RotateKey:
    """At ``at`` the provider takes another key, and no longer the old one; the vault knows it ``vault_lag`` later."""

    number: int
    at: float
    host: str
    vault_lag: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class VaultDown:
    """For a while the vault of ``host`` answers with an error, or (``silent``) not at all."""

    number: int
    at: float
    seconds: float
    host: str
    silent: bool = False


@dataclass(frozen=True, slots=True)
class ClockJump:
    """The engine's clocks are set: its monotonic one by ``monotonic`` seconds (a machine that slept, or a broken one that
    runs backwards), its wall clock by ``wall``."""

    number: int
    at: float
    monotonic: float = 0.0
    wall: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Operate:
    """An operator acts on a deployment: rebuilds its session, or opens (for ``seconds``), closes or resets its circuit."""

    number: int
    at: float
    deployment: str
    action: Literal["rebuild", "open", "close", "reset"]
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class DrainNow:
    """The engine is drained: it refuses what comes from now on, and finishes what it has."""

    number: int
    at: float
    seconds: float = 0.0


Disturbance: TypeAlias = Faults | BadNetwork | RotateKey | VaultDown | ClockJump | Operate | DrainNow
"""Something that goes wrong, or is done, at a time. ``number`` is its place in the plan, kept when others are left out."""


@dataclass(frozen=True, slots=True)
class HostPlan:
    """A provider at ``host``: its limits, how long it takes to its first byte and to each token, whether it speaks HTTP/2,
    and how long its keys live (``None``: for ever)."""

    host: str
    limits: ProviderLimits | None = None
    first_byte_delay: float = 0.2
    token_delay: float = 0.02
    http2: bool = False
    key_lifetime: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole run.

    level: how deep it goes. seconds: how long the phase in which things go wrong lasts. heal_within: how many seconds after
    that everything must be over and every circuit closed. throttle_free: whether the provider must never have to refuse
    anybody by its own limiter (where ours is as strict, and the network keeps within the guard). callers_left_out,
    disturbances_left_out: how many `keep` has taken away. session: how credentials are refreshed. pool: the client's
    connections; ``None``: as the world chooses.
    """

    scenario: str
    seed: int
    level: Level
    deployments: tuple[Deployment, ...]
    hosts: tuple[HostPlan, ...]
    callers: tuple[CallerPlan, ...]
    disturbances: tuple[Disturbance, ...] = ()
    conditions: Conditions = field(default_factory=Conditions)
    seconds: float = 60.0
    heal_within: float = 600.0
    throttle_free: bool = False
    session: SessionConfig = field(default_factory=SessionConfig)
    pool: PoolConfig | None = None
    callers_left_out: int = 0
    disturbances_left_out: int = 0

    def keep(self, callers: Collection[int], disturbances: Collection[int]) -> Plan:
        """The same plan with only these callers and disturbances, by number."""
        kept_callers = tuple(caller for caller in self.callers if caller.number in callers)
        kept_disturbances = tuple(each for each in self.disturbances if each.number in disturbances)
        return replace(
            self,
            callers=kept_callers,
            disturbances=kept_disturbances,
            callers_left_out=self.callers_left_out + len(self.callers) - len(kept_callers),
            disturbances_left_out=self.disturbances_left_out + len(self.disturbances) - len(kept_disturbances),
        )
