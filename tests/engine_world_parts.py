"""What the worlds of `engine_world` are made of: deployments, tables to choose from, records, and leaves that count.

A choice is always a number into a table, so that a step of a world is plain values.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from engine_harness import deployment

from sansio import errors
from sansio.backoff import BackoffPolicy
from sansio.batch import TokenUsage
from sansio.budget import Budget, BudgetAction
from sansio.circuit_breaker import CircuitBreaker, CircuitPermit, CircuitRejection, CircuitState, Outcome
from sansio.deployment import Deployment
from sansio.errors import InferenceError
from sansio.events import Effect, StartAttempt
from sansio.lane import Circuit, Group, Lane, Request
from sansio.prices import Price
from sansio.queue import Priority
from sansio.rate_limit import Permit, RateLimiter
from sansio.session import SessionConfig

_TIMEOUTS = {
    "connect_timeout": 2.0, "request_timeout": 5.0, "read_timeout": 3.0, "content_timeout": 8.0, "total_timeout": 20.0
}  # fmt: skip
RETRY = {"initial_backoff": 0.5, "max_retries": 2, "max_backoff": 4.0, "jitter": "equal", "max_retry_after": 30.0}
_BREAKER = {
    "failure_threshold": 3, "open_duration": 10.0, "probe_timeout": 6.0, "success_threshold": 2, "half_open_max_probes": 2,
    "max_open_duration": 40.0,
}  # fmt: skip
SESSION = SessionConfig(refresh_ahead=5.0, backoff=BackoffPolicy(1.0, 8.0), refresh_timeout=10.0)


def _deployment(name: str, serving: dict[str, Any], **rest: Any) -> Deployment:
    given = {"retry": RETRY, "breaker": _BREAKER, "timeouts": _TIMEOUTS} | rest
    return deployment(name, serving={"max_concurrent": 2, "queue_capacity": 4, "queue_timeout": 5.0} | serving, **given)


ROSTERS: dict[str, tuple[Deployment, ...]] = {
    "alone": (_deployment("a", {}),),
    "limited": (
        _deployment(
            "a", {"on_capacity_exhausted": "reject"},
            limits={"requests_per_minute": 12, "tokens_per_minute": 700, "concurrent_requests": 3},
        ),
        _deployment("b", {"on_circuit_open": "wait", "max_concurrent": 1, "queue_capacity": 6}),
    ),
    "mixed": (
        _deployment("a", {}, limits={"requests_per_minute": 40, "burst": 5}),
        _deployment("b", {"on_circuit_open": "wait"}, model="gpt-4o-mini"),
        _deployment("c", {}, key="sk-two", idempotent=False),
        _deployment("d", {"on_capacity_exhausted": "fallback"}, endpoint="http://two.test/v1"),
    ),
    "spending": (
        _deployment("a", {}, price=Price(1_000.0, 1_000.0), budget=Budget(3.0)),
        _deployment("b", {}, price=Price(1_000.0, 1_000.0), budget=Budget(1.0, on_exceeded=BudgetAction.THROTTLE)),
    ),
    "storm": (_deployment("a", {"max_concurrent": 60}, breaker=_BREAKER | {"failure_threshold": 1_000}),),
    "ageing": (_deployment("a", {"age_after": 2.0, "fair_tenants": True, "queue_capacity": 8}),),
}  # fmt: skip
"""Deployments that share nothing, a limiter, an endpoint, a key."""

FAILURES: tuple[Callable[..., InferenceError], ...] = (
    errors.RateLimited, errors.ServerError, errors.NetworkError, errors.Timeout, errors.Unauthorized, errors.QuotaExhausted,
    errors.Forbidden, errors.NotFound, errors.Conflict, errors.BadRequest, errors.ContentFiltered, errors.ProtocolError,
    errors.ContextLengthExceeded, errors.DeadlineExceeded, errors.LimitExceeded, errors.Internal, errors.Unsupported,
)  # fmt: skip
HINTS = (None, 0.0, 0.25, 3.0, 29.0, 31.0, 500.0)
VERDICTS = (None, None, None, None, None, None, None, True, False)
"""Of ``x-should-retry``."""

TIMEOUTS = (None, None, 0.5, 3.0, 12.0, 45.0)
ESTIMATES = ((10, 10), (100, 50), (1, 300), (900, 1))
LIVES = (None, 4.0, 30.0, -1.0)
"""Seconds until a fetched credential expires."""

HEADERS = (
    (), (("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", "7s")),
    (("x-ratelimit-remaining-tokens", "100"), ("x-ratelimit-reset-tokens", "2s")),
    (("x-ratelimit-remaining-requests", "9"), ("x-ratelimit-remaining-tokens", "600")),
)  # fmt: skip
CLOCK_STEPS = (0.0, 0.01, 0.25, 1.0, 2.5, 6.0, 11.0, 70.0)


@dataclass(eq=False)
class Asked:
    """A request as its caller knows it."""

    id: int
    lane: str
    priority: Priority
    order: int
    deadline: float | None
    waits: bool
    """For a circuit."""
    attempts: int = 0
    refreshed: bool = False
    resent: bool = False
    """Whether it went again because its connection was lost unread: once."""
    fresh: bool = False
    """Whether its next attempt must use a new connection."""
    attempt: Running | None = None
    over: bool = False
    may_start: bool = True
    """Whether what its last attempt ended with allows another."""
    not_before: float = -math.inf


@dataclass(eq=False)
class Running:
    """An attempt as its driver knows it."""

    asked: Asked
    order: StartAttempt
    lane: str
    epochs: tuple[int, int]
    """The generation of its circuits when it started."""
    aborted: InferenceError | None = None
    committed: bool = False


@dataclass(eq=False)
class CircuitModel:
    """A breaker as its notices tell it."""

    state: str = "closed"
    epoch: int = 0
    failures: int = 0
    probes: dict[Running, float] = field(default_factory=dict)


class CountingLimiter(RateLimiter):
    """A limiter that counts how often each permit is ended, and refuses to see one ended twice."""

    def __init__(self, original: RateLimiter) -> None:
        super().__init__(original.limits)
        self.held: dict[int, Permit] = {}
        self.reported_late: Counter[int] = Counter()

    def reserve(self, requests: int, input_tokens: int, output_tokens: int, now: float) -> Any:
        answer = super().reserve(requests, input_tokens, output_tokens, now)
        if isinstance(answer, Permit):
            self.held[answer.id] = answer
        return answer

    def settle(self, permit: Permit, actual: TokenUsage | None, now: float) -> None:
        assert self.held.pop(permit.id, None) is permit, "10: a permit is settled once"
        super().settle(permit, actual, now)

    def cancel(self, permit: Permit, sent: bool, now: float) -> None:
        assert self.held.pop(permit.id, None) is permit, "10: a permit is cancelled once"
        super().cancel(permit, sent, now)

    def report_usage(self, permit: Permit, actual: TokenUsage | None, now: float) -> None:
        assert permit.id not in self.held, "10: usage is late only for what has ended"
        self.reported_late[permit.id] += 1
        assert self.reported_late[permit.id] == 1, "10: late usage is heard once"
        super().report_usage(permit, actual, now)


class CountingBreaker(CircuitBreaker):
    """A breaker that knows which of its permits have not been reported."""

    def __init__(self, original: CircuitBreaker) -> None:
        super().__init__(original._config)
        self.held: list[CircuitPermit] = []

    def acquire(self, now: float) -> CircuitPermit | CircuitRejection:
        answer = super().acquire(now)
        if isinstance(answer, CircuitPermit):
            self.held.append(answer)
        return answer

    def record(self, permit: CircuitPermit, outcome: Outcome, now: float) -> None:
        if permit in self.held:
            self.held.remove(permit)
        else:
            assert permit.probe, "10: only a probe that proved itself at its commit point is reported again"
        super().record(permit, outcome, now)


def shown(effect: Effect) -> str:
    """An effect, errors in full."""
    parts = [type(effect).__name__]
    for name in type(effect).__slots__:
        value = getattr(effect, name)
        if name == "exchange":
            value = value.deadline
        parts.append(f"{name}={value.to_dict() if isinstance(value, InferenceError) else value!r}")
    return " ".join(parts)


def unhealthy(lane: Lane, now: float) -> bool:
    """Whether one of its circuits is not closed. Before the first fact there is no time to ask them at."""
    breakers = (lane.circuit.breaker, lane.key_circuit.breaker)
    return now > -math.inf and any(breaker.state(now) is not CircuitState.CLOSED for breaker in breakers)


def held_back(lane: Lane, now: float, unix_now: float) -> bool:
    """Whether something of its own may keep it from starting anything."""
    return lane.session.session.snapshot(now, unix_now) is None or unhealthy(lane, now)


def check_nothing_waits_in_vain(group: Group, now: float, unix_now: float) -> None:
    """4.5.2: the best head that lacks nothing but the limiter's leave does not have that either."""
    heads: list[Request] = []
    for lane in group.lanes:
        entry = lane.queue.peek(now)
        blocked = lane.session.session.snapshot(now, unix_now) is None or lane.running >= lane.slots(now)
        if entry is not None and not blocked and all(_admits(circuit, now) for circuit in (lane.circuit, lane.key_circuit)):
            assert isinstance(entry.payload, Request)
            heads.append(entry.payload)
    if heads:
        best = min(heads, key=lambda request: (-request.add.priority, request.order))
        limiter, given, wanted = group.limiter, best.estimate.input_tokens, best.estimate.output_tokens
        fits_at = limiter._earliest((1, given + wanted, given, wanted), now)
        assert limiter._in_flight >= limiter._concurrent or fits_at > now, "4.5.2: nothing waits in vain"


def _admits(circuit: Circuit, now: float) -> bool:
    state = circuit.breaker.state(now)
    room = circuit.breaker.outstanding_probes < circuit.breaker._config.half_open_max_probes
    return state is CircuitState.CLOSED or (state is CircuitState.HALF_OPEN and room)
