"""Who shares what: from the deployments of an engine to its lanes, limiters, circuits and sessions.

One limiter per (provider, key, model), one circuit per (provider, endpoint), one key circuit per (provider, key), one
session per (provider, secret). Keys are compared by the fingerprint they had at the start, so that a rotation does not
tear apart what belongs to one account; where no fingerprint is known yet, by where the key comes from.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from .budget import BudgetLedger
from .circuit_breaker import CircuitBreaker, CircuitBreakerConfig
from .deployment import Deployment, OpenCircuitPolicy, RemoteEngineConfig
from .exchange import ExchangeConfig
from .lane import Circuit, Group, Lane, SessionSlot
from .queue import RequestQueue
from .rate_limit import RateLimiter, RateLimits
from .retry import RetryBudget, RetryEngine
from .session import RemoteSession

Value = TypeVar("Value")


@dataclass(slots=True)
class Roster:
    """Every lane and everything shared, each in the order of its first deployment."""

    lanes: dict[str, Lane] = field(default_factory=dict[str, Lane])
    groups: list[Group] = field(default_factory=list[Group])
    circuits: list[Circuit] = field(default_factory=list[Circuit])
    sessions: list[SessionSlot] = field(default_factory=list[SessionSlot])


def build_roster(config: RemoteEngineConfig, fingerprints: Mapping[str, str], rng: random.Random) -> Roster:
    """The lanes of these deployments. ``fingerprints`` are those of their keys at the start, as far as they are known.

    Raises `ValueError` where deployments that share something ask for different settings of it.
    """
    roster = Roster()
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
    for deployment in config.deployments:
        codec = deployment.codec()
        settings = deployment.config
        serving = deployment.served
        group_key = _limiter_key(deployment, fingerprints)
        circuit_key, key = _circuit_key(deployment), _key(deployment, fingerprints)
        group = groups.get(group_key)
        if group is None:
            group = groups[group_key] = Group(len(roster.groups), RateLimiter(limits[group_key]))
            roster.groups.append(group)
        for circuit_of, breaker_config in (
            (circuit_key, breakers[circuit_key]),
            (("key", codec.provider, key), CircuitBreakerConfig()),
        ):
            if circuit_of not in circuits:
                of_key = circuit_of is not circuit_key
                circuits[circuit_of] = Circuit(len(roster.circuits), CircuitBreaker(breaker_config), of_key)
                roster.circuits.append(circuits[circuit_of])
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


def _circuit_key(deployment: Deployment) -> Hashable:
    codec = deployment.codec()
    return codec.provider, codec.endpoint


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
