"""Who shares what: from the deployments of an engine to its lanes, limiters, circuits and sessions.

One limiter per (provider, key, model), one circuit per (provider, endpoint), one key circuit per (provider, key), one
session per (provider, secret). Keys are compared by the fingerprint they had at the start, so that a rotation does not
tear apart what belongs to one account; where no fingerprint is known yet, by where the key comes from.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from .budget import BudgetLedger
from .circuit_breaker import CircuitBreaker, CircuitBreakerConfig
from .cluster.config import ClusterConfig
from .cluster.limiters import limiter_of
from .cluster.shared_circuit import SharedCircuit
from .cluster.shared_limiter import SharedRateLimiter
from .deployment import Deployment, OpenCircuitPolicy, RemoteEngineConfig
from .exchange import ExchangeConfig
from .lane import Circuit, Group, Lane, Link, SessionSlot
from .queue import RequestQueue
from .rate_limit import RateLimits
from .retry import RetryBudget, RetryEngine
from .session import RemoteSession
from .strict_limiter import StrictRateLimiter

Value = TypeVar("Value")

_MEMBER_BITS: Final = 64

_CIRCUITS_WINDOW: Final = 60.0
"""A circuit has no window. What is said of it is exchanged as often as for a limit of this one."""


@dataclass(slots=True)
class Roster:
    """Every lane and everything shared, each in the order of its first deployment."""

    lanes: dict[str, Lane] = field(default_factory=dict[str, Lane])
    groups: list[Group] = field(default_factory=list[Group])
    circuits: list[Circuit] = field(default_factory=list[Circuit])
    sessions: list[SessionSlot] = field(default_factory=list[SessionSlot])
    links: list[Link] = field(default_factory=list[Link])
    store_timeout: float = 0.0


def build_roster(config: RemoteEngineConfig, fingerprints: Mapping[str, str], rng: random.Random) -> Roster:
    """The lanes of these deployments. ``fingerprints`` are those of their keys at the start, as far as they are known.

    Raises `ValueError` where deployments that share something ask for different settings of it.
    """
    roster = Roster(store_timeout=0.0 if config.shared is None else config.shared.store_timeout)
    groups: dict[Hashable, Group] = {}
    circuits: dict[Hashable, Circuit] = {}
    sessions: dict[Hashable, SessionSlot] = {}
    limits = _agreed(
        [(d, _limiter_key(d, fingerprints), d.config.rate_limits) for d in config.deployments], RateLimits(), "rate_limits"
    )
    breakers = _agreed(
        [(d, _circuit_key(d), d.config.circuit_breaker) for d in config.deployments],
        CircuitBreakerConfig(),
        "circuit_breaker",
    )
    member = "" if config.shared is None else f"{rng.getrandbits(_MEMBER_BITS):016x}"  # each life of a process is another
    for deployment in config.deployments:
        codec = deployment.codec()
        settings = deployment.config
        serving = deployment.served
        group_key = _limiter_key(deployment, fingerprints)
        circuit_key, key = _circuit_key(deployment), _key(deployment, fingerprints)
        group = groups.get(group_key)
        if group is None:
            limiter = limiter_of(limits[group_key], config.shared, _shared_key(deployment, fingerprints), member)
            group = groups[group_key] = Group(len(roster.groups), limiter)
            if isinstance(limiter, SharedRateLimiter | StrictRateLimiter):
                group.link = Link(len(roster.links), limiter, group.lanes)
                roster.links.append(group.link)
            roster.groups.append(group)
        for circuit_of, breaker_config in (
            (circuit_key, breakers[circuit_key]),
            (("key", codec.provider, key), CircuitBreakerConfig()),
        ):
            if circuit_of not in circuits:
                of_key = circuit_of is not circuit_key
                circuit = circuits[circuit_of] = Circuit(len(roster.circuits), CircuitBreaker(breaker_config), of_key)
                if config.shared is not None and config.shared.share_circuits and not of_key:
                    _share_circuit(circuit, breaker_config, config.shared, deployment, member, roster.links)
                roster.circuits.append(circuit)
        session_key = (codec.provider, settings.secret)
        if session_key not in sessions:
            session = RemoteSession(codec.provider, config.session, rng)
            sessions[session_key] = SessionSlot(len(roster.sessions), session, settings.secret)
            roster.sessions.append(sessions[session_key])
        retry_budget = RetryBudget()
        lane = Lane(
            index=len(roster.lanes),
            deployment=deployment,
            exchange_config=ExchangeConfig(codec, settings.timeouts, settings.max_event_bytes, settings.max_body_bytes),
            queue=RequestQueue(
                serving.queue_capacity,
                serving.on_capacity_exhausted,
                serving.queue_timeout,
                serving.age_after,
                serving.fair_tenants,
            ),
            retry=RetryEngine(settings.retry, retry_budget, rng),
            retry_budget=retry_budget,
            group=group,
            circuit=circuits[circuit_key],
            key_circuit=circuits["key", codec.provider, key],
            session=sessions[session_key],
            price=deployment.price_of_model,
            budget=None if deployment.spending is None else BudgetLedger(deployment.spending),
            max_concurrent=serving.max_concurrent,
            waits_for_circuit=serving.on_circuit_open is OpenCircuitPolicy.WAIT,
            provider=codec.provider,
        )
        roster.lanes[deployment.name] = lane
        for shared in (lane.group, lane.circuit, lane.key_circuit, lane.session):
            shared.lanes.append(lane)
    return roster


def _key(deployment: Deployment, fingerprints: Mapping[str, str]) -> Hashable:
    return fingerprints.get(deployment.name) or deployment.config.secret


def _limiter_key(deployment: Deployment, fingerprints: Mapping[str, str]) -> Hashable:
    return deployment.codec().provider, _key(deployment, fingerprints), deployment.model


def _shared_key(deployment: Deployment, fingerprints: Mapping[str, str]) -> str:
    """What this limit is called in the store: the same in every process that uses the same key and model, and not the key.

    Where the key is not known at the start, the deployment's name stands for it.
    """
    codec = deployment.codec()
    known = fingerprints.get(deployment.name) or f"of {deployment.name}"
    return hashlib.sha256(repr((codec.provider, known, deployment.model)).encode()).hexdigest()[:32]


def _circuit_key(deployment: Deployment) -> Hashable:
    codec = deployment.codec()
    return codec.provider, codec.endpoint


def _share_circuit(
    circuit: Circuit,
    breaker: CircuitBreakerConfig,
    cluster: ClusterConfig,
    deployment: Deployment,
    member: str,
    links: list[Link],
) -> None:
    """Let a circuit be one that other processes have a part in: an endpoint's. A key's stays each process's own, for one
    refusal is enough to find it out, and a process with another key may not suffer by it."""
    board = hashlib.sha256(repr(_circuit_key(deployment)).encode()).hexdigest()[:32]
    shared = SharedCircuit(
        breaker,
        key=f"{cluster.prefix}:circuit:{{{board}}}",
        member=member,
        interval=cluster.interval_for(_CIRCUITS_WINDOW),
        in_use=lambda: any(lane.requests for lane in circuit.lanes),
    )
    circuit.breaker = shared
    circuit.link = Link(len(links), shared, circuit.lanes)
    links.append(circuit.link)


def _agreed(asked: Sequence[tuple[Deployment, Hashable, Value]], default: Value, name: str) -> dict[Hashable, Value]:
    """The setting of each shared thing: what its deployments ask for, where those that ask agree."""
    found: dict[Hashable, tuple[Deployment, Value]] = {}
    for deployment, key, value in asked:
        known = found.get(key)
        if known is None or known[1] == default:
            found[key] = (deployment, value)
        elif value not in (default, known[1]):
            raise ValueError(
                f"{name}: deployments {known[0].name!r} and {deployment.name!r} share it (same provider and "
                f"{'endpoint' if name == 'circuit_breaker' else 'key and model'}) but ask for different values"
            )
    return {key: value for key, (_, value) in found.items()}
