"""What a world is made of, as values: everything that is going to be done in it is known before it begins.

A plan is drawn from a seed, once. What it leaves to chance while it runs (latencies, which request meets which fault) is
drawn from generators of their own, so a part of it can be left out (`Plan.keep`) and the rest stays nearly as it was: that
is how a failing run is made small.

All of them raise `ValueError` at construction for a value out of range, naming the field.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeAlias

from ...backoff import require_count, require_number, require_positive
from ...connection_pool import PoolConfig
from ...deployment import Deployment
from ...http import parse_origin
from ...queue import Priority
from ...session import SessionConfig
from ..provider.answers import MAX_OUTPUT_TOKENS
from ..provider.fault import Fault
from ..provider.provider_limiter import ProviderLimits
from .plan_checks import require_known, require_share, require_unique, require_when

Level = Literal["bytes", "requests"]
"""How deep a world goes: down to the bytes (HTTP, connections, the whole mock provider), or to requests and answers."""

LEVELS: Final[tuple[Level, ...]] = ("bytes", "requests")

Action = Literal["rebuild", "open", "close", "reset"]
"""What an operator does: fetch a credential anew, or act on a circuit."""

ACTIONS: Final[tuple[Action, ...]] = ("rebuild", "open", "close", "reset")

_LONGEST_JUMP: Final = 1e9


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

    def __post_init__(self) -> None:
        require_count("number", self.number)
        require_number("at", self.at)
        require_count("output_tokens", self.output_tokens)
        require_number("reads_every", self.reads_every)
        if self.output_tokens > MAX_OUTPUT_TOKENS:
            raise ValueError(f"output_tokens: {self.output_tokens!r} is more than {MAX_OUTPUT_TOKENS}")
        if not isinstance(self.priority, Priority):
            raise ValueError(f"priority: {self.priority!r} is not a Priority; write Priority.NORMAL")
        if self.timeout is not None:
            require_positive("timeout", self.timeout)
        if self.leaves_after is not None:
            require_number("leaves_after", self.leaves_after)

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

    def __post_init__(self) -> None:
        for name in ("latency", "jitter", "stall_seconds"):
            require_number(name, getattr(self, name))
        for name in ("refused", "lost", "reset", "stalled"):
            require_share(name, getattr(self, name))
        require_count("reset_within", self.reset_within)
        require_count("piece_bytes", self.piece_bytes, at_least=1)


@dataclass(frozen=True, slots=True)
class Faults:
    """For ``seconds`` from ``at`` on, requests to ``host`` meet these faults, each with its probability."""

    number: int
    at: float
    seconds: float
    host: str
    rates: tuple[tuple[Fault, float], ...]

    def __post_init__(self) -> None:
        require_when(self.number, self.at, self.seconds)
        for fault, rate in self.rates:
            if not isinstance(fault, Fault):
                raise ValueError(f"rates: {fault!r} is not a Fault")
            require_share("rates", rate)
        if (total := sum(rate for _, rate in self.rates)) > 1.0 + 1e-9:
            raise ValueError(f"rates: add up to {total:g}, more than 1")


@dataclass(frozen=True, slots=True)
class BadNetwork:
    """For a while the network to ``host`` is like this."""

    number: int
    at: float
    seconds: float
    host: str
    conditions: Conditions

    def __post_init__(self) -> None:
        require_when(self.number, self.at, self.seconds)


@dataclass(frozen=True, slots=True)
class RotateKey:
    """At ``at`` the provider takes another key, and no longer the old one; the vault knows it ``vault_lag`` later."""

    number: int
    at: float
    host: str
    vault_lag: float = 0.0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        require_when(self.number, self.at, self.seconds)
        require_number("vault_lag", self.vault_lag)


@dataclass(frozen=True, slots=True)
class VaultDown:
    """For a while the vault of ``host`` answers with an error, or (``silent``) not at all."""

    number: int
    at: float
    seconds: float
    host: str
    silent: bool = False

    def __post_init__(self) -> None:
        require_when(self.number, self.at, self.seconds)


@dataclass(frozen=True, slots=True)
class ClockJump:
    """The engine's clocks are set: its monotonic one by ``monotonic`` seconds (a machine that slept, or a broken one that
    runs backwards), its wall clock by ``wall``."""

    number: int
    at: float
    monotonic: float = 0.0
    wall: float = 0.0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        require_when(self.number, self.at, self.seconds)
        for name in ("monotonic", "wall"):
            require_number(name, getattr(self, name), at_least=-_LONGEST_JUMP)


@dataclass(frozen=True, slots=True)
class Operate:
    """An operator acts on a deployment: rebuilds its session, or opens (for ``seconds``), closes or resets its circuit."""

    number: int
    at: float
    deployment: str
    action: Action
    seconds: float = 0.0

    def __post_init__(self) -> None:
        require_when(self.number, self.at, self.seconds)
        if self.action not in ACTIONS:
            raise ValueError(f"action: {self.action!r} is none of {', '.join(ACTIONS)}")


@dataclass(frozen=True, slots=True)
class DrainNow:
    """The engine is drained: it refuses what comes from now on, and finishes what it has."""

    number: int
    at: float
    seconds: float = 0.0

    def __post_init__(self) -> None:
        require_when(self.number, self.at, self.seconds)


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

    def __post_init__(self) -> None:
        require_number("first_byte_delay", self.first_byte_delay)
        require_number("token_delay", self.token_delay)
        if self.key_lifetime is not None:
            require_positive("key_lifetime", self.key_lifetime)


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

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ValueError(f"level: {self.level!r} is none of {', '.join(LEVELS)}")
        require_count("seed", self.seed)
        require_positive("seconds", self.seconds)
        require_positive("heal_within", self.heal_within)
        if not self.deployments:
            raise ValueError("deployments: is empty; give at least one Deployment")
        names = [deployment.name for deployment in self.deployments]
        served = [host_of(deployment) for deployment in self.deployments]
        require_unique("callers", [caller.number for caller in self.callers])
        require_unique("disturbances", [each.number for each in self.disturbances])
        require_known("callers", names, [caller.deployment for caller in self.callers])
        operated = [each.deployment for each in self.disturbances if isinstance(each, Operate)]
        require_known("disturbances", names, operated)
        struck = [each.host for each in self.disturbances if isinstance(each, (Faults, BadNetwork, RotateKey, VaultDown))]
        require_known("disturbances", served, struck)
        require_known("hosts", served, [host.host for host in self.hosts])

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


def host_of(deployment: Deployment) -> str:
    """Where a deployment is served."""
    return parse_origin(deployment.codec().endpoint).host
