"""Who serves: providers and deployments, with settings that are short, varied and drawn, so that every mechanism is met in
other corners by every seed.

What is drawn leaves the client able to recover in fine weather: no clock of an attempt is shorter than an undisturbed
answer needs, and no probe's lease either. Else a circuit could stay open for ever, and no bound would hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, Literal, TypeAlias

from ...backoff import BackoffPolicy, JitterKind
from ...budget import Budget, BudgetAction
from ...circuit_breaker import CircuitBreakerConfig
from ...connection_pool import Http2, PoolConfig
from ...deployment import Deployment, OpenCircuitPolicy, RuntimeConfig, Serving
from ...http import Timeouts
from ...queue import CapacityPolicy
from ...rate_limit import RateLimits
from ...retry import RetryPolicy
from ...secret import Secret
from ...session import SessionConfig
from ..provider.provider_limiter import ProviderLimits
from ..world.plan import Conditions, HostPlan, Level
from .scenario import Site, maybe, undisturbed_seconds

TheirLimits: TypeAlias = Literal["any", "equal", "lower"]
"""The provider's limits beside ours: none, the same or higher, as it comes; the same; or lower."""

_Place: TypeAlias = tuple[int, int, str]
"""Where a deployment is served: host, key and model. Who has all three in common shares a limiter."""

_MODEL: Final = "gpt-4o"
_LAYOUTS: Final[tuple[tuple[_Place, ...], ...]] = (
    ((0, 0, _MODEL),),
    ((0, 0, _MODEL), (1, 0, _MODEL)),  # nothing in common
    ((0, 0, _MODEL), (0, 0, _MODEL)),  # everything in common
    ((0, 0, _MODEL), (0, 0, "gpt-4o-mini")),  # one key, two models: a limiter each
    ((0, 0, _MODEL), (0, 1, _MODEL)),  # one host, two keys: only the circuit in common
    ((0, 0, _MODEL), (0, 0, _MODEL), (1, 0, _MODEL)),
)
_HOSTS: Final = ("alpha.test", "beta.test")
_NAMES: Final = ("chat", "batch", "tools")
_TOKENS_OF_A_REQUEST: Final = 22
"""About what one reserves: its prompt, what the estimate adds for the message, and the answer."""

_LARGEST_REQUEST_TOKENS: Final = 40
_LONGEST_ANSWER: Final = 60
_PRICE_OF_A_REQUEST_USD: Final = 8e-5


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a scenario asks of its site; everything else is drawn.

    limits: the provider's beside ours; ``equal`` and ``lower`` see to it that there are some. short_lived_keys: whether keys
    may expire. room: whether queues are long and let everybody in. fair_tenants: how likely. outlasts: how likely
    ``on_circuit_open`` is ``wait``. fails: whether anything is going to fail: then a budget that rejects is only given to
    who shares everything with somebody without, or nobody could probe a circuit once it is spent.
    """

    limits: TheirLimits = "any"
    short_lived_keys: float = 0.05
    room: bool = False
    fair_tenants: float = 0.3
    outlasts: float = 0.3
    fails: bool = True


def draw_site(rng: Random, level: Level, load: float, wishes: Wishes = Wishes()) -> Site:
    """A site for about ``load`` callers in a second."""
    layout = rng.choice([each for each in _LAYOUTS if wishes.limits != "equal" or each != _LAYOUTS[4]])
    longest_answer = _LONGEST_ANSWER if level == "bytes" and maybe(rng, 0.5) else 8
    conditions = _conditions(rng)
    hosts: list[HostPlan] = []
    ours: list[RateLimits] = []
    breakers: list[CircuitBreakerConfig] = []
    http2 = maybe(rng, 0.4)
    for number in range(1 + max(host for host, _, _ in layout)):
        share = load * sum(host == number for host, _, _ in layout) / len(layout)
        ours.append(_rate_limits(rng, share, conditions, wishes.limits))
        host = HostPlan(
            _HOSTS[number],
            _their_limits(rng, ours[-1], wishes.limits),
            first_byte_delay=round(rng.uniform(0.01, 0.6), 3),
            token_delay=round(rng.uniform(0.001, 0.05), 4),
            http2=http2,
            key_lifetime=round(rng.uniform(3.0, 20.0), 3) if maybe(rng, wishes.short_lived_keys) else None,
        )
        hosts.append(host)
        breakers.append(_circuit_breaker(rng, undisturbed_seconds(host, conditions, longest_answer)))
    deployments = tuple(
        _deployment(rng, at, layout, hosts, ours, breakers, conditions, longest_answer, load, wishes)
        for at in range(len(layout))
    )
    totals = [deployment.config.timeouts.total_timeout for deployment in deployments]
    patience = min((total for total in totals if total is not None), default=20.0)
    slots = sum(deployment.served.max_concurrent for deployment in deployments)
    pool = _pool(rng, http2, None if wishes.limits == "equal" else slots)
    return Site(deployments, tuple(hosts), conditions, _session(rng), pool, longest_answer, patience)


def secret_of(host: str, key: int = 0) -> Secret:
    """The reference to one of the keys of a host. It is not read: the world's vault knows the key by it."""
    name = host.upper().replace(".", "_").replace("-", "_")
    return Secret.from_env(f"KEY_OF_{name}" + (f"_{key + 1}" if key else ""))


def _deployment(
    rng: Random,
    at: int,
    layout: Sequence[_Place],
    hosts: Sequence[HostPlan],
    ours: Sequence[RateLimits],
    breakers: Sequence[CircuitBreakerConfig],
    conditions: Conditions,
    longest_answer: int,
    load: float,
    wishes: Wishes,
) -> Deployment:
    number, key, model = layout[at]
    host = hosts[number]
    may_reject = not wishes.fails or (at > 0 and layout[at] == layout[0])
    return Deployment(
        name=_NAMES[at],
        model=model,
        runtime="openai",
        runtime_config=RuntimeConfig(
            endpoint=f"http://{host.host}/v1",
            api_key=secret_of(host.host, key),
            rate_limits=ours[number],
            retry=_retry(rng),
            circuit_breaker=breakers[number],
            timeouts=_timeouts(rng, undisturbed_seconds(host, conditions, longest_answer), long=longest_answer > 8),
            max_event_bytes=20_000,
            max_body_bytes=60_000,
        ),
        serving=_serving(rng, load / len(layout), wishes),
        budget=_budget(rng, load, may_reject) if maybe(rng, 0.2) else None,
        idempotent=not maybe(rng, 0.12),
    )


def _conditions(rng: Random) -> Conditions:
    latency = rng.choice((0.0005, 0.005, 0.02, 0.08))
    return Conditions(
        latency, round(latency * rng.uniform(0.0, 3.0), 5), piece_bytes=rng.choice((200, 1_400, 1_400, 16_384))
    )


def delivery_seconds(conditions: Conditions) -> float:
    """The longest from a grant to the request's arrival in fine weather: there and back for the connection (shared, it may
    be one that somebody else dials), there for the request, and as much again to spare."""
    return 6.0 * (conditions.latency + conditions.jitter)


def _rate_limits(rng: Random, load: float, conditions: Conditions, theirs: TheirLimits) -> RateLimits:
    """From half of what comes to four times as much. Where the provider's are lower, ours are not the ones to be felt."""
    must, window = theirs != "any", round(rng.uniform(1.0, 8.0), 3)
    kind = rng.choice(("requests", "tokens", "both", "parts") if must else ("none", "requests", "tokens", "both", "parts"))
    fair = load * window * rng.choice((1.5, 2.5) if theirs == "lower" else (0.5, 0.9, 1.5, 4.0))
    requests = max(2, round(fair)) if kind in ("requests", "both") or (must and kind == "parts") else None
    tokens = max(3 * _LARGEST_REQUEST_TOKENS, round(fair * _TOKENS_OF_A_REQUEST))
    return RateLimits(
        requests_per_minute=requests,
        tokens_per_minute=tokens if kind in ("tokens", "both") else None,
        input_tokens_per_minute=tokens if kind == "parts" else None,
        output_tokens_per_minute=tokens if kind == "parts" else None,
        concurrent_requests=rng.randint(2, 24) if maybe(rng, 0.25) else None,
        burst=max(1, requests // rng.randint(2, 5)) if requests is not None and maybe(rng, 0.3) else None,
        delivery_guard=delivery_seconds(conditions) + rng.choice((0.0, 0.1, 0.5)),
        window=window,
    )


def _their_limits(rng: Random, ours: RateLimits, wish: TheirLimits) -> ProviderLimits | None:
    how = rng.choice(("none", "equal", "higher")) if wish == "any" else wish
    share = {"equal": 1.0, "higher": 1.5}.get(how) or rng.uniform(0.25, 0.75)
    requests, tokens = ours.requests_per_minute, ours.tokens_per_minute
    if how == "none" or (requests is None and tokens is None):
        return None
    return ProviderLimits(
        None if requests is None else max(1, int(requests * share)),
        None if tokens is None else max(2 * _LARGEST_REQUEST_TOKENS, int(tokens * share)),
        ours.window,
    )


def _circuit_breaker(rng: Random, undisturbed: float) -> CircuitBreakerConfig:
    return CircuitBreakerConfig(
        failure_threshold=rng.choice((3, 3, 4, 5, 7, 10)),
        window=round(rng.uniform(1.0, 10.0), 3) if maybe(rng, 0.4) else None,
        open_duration=round(rng.choice((1.0, 2.0, 4.0, 10.0)) * rng.uniform(0.8, 1.6), 3),
        open_multiplier=rng.choice((1.0, 1.5, 2.0)),
        max_open_duration=round(rng.uniform(2.0, 25.0), 3),
        half_open_max_probes=rng.randint(1, 3),
        success_threshold=rng.randint(1, 3),
        probe_timeout=round(2.0 * undisturbed + rng.uniform(1.0, 8.0), 3),
    )


def _timeouts(rng: Random, undisturbed: float, *, long: bool) -> Timeouts:
    """``long``: whether answers may be: each piece has its own time, so without a total they could take minutes."""
    least = 1.5 * undisturbed + 0.25
    return Timeouts(
        connect_timeout=round(least + rng.uniform(0.0, 2.0), 3),
        request_timeout=round(least + rng.uniform(0.0, 4.0), 3),
        read_timeout=round(least + rng.uniform(0.0, 3.0), 3),
        content_timeout=round(least + rng.uniform(0.5, 5.0), 3),
        total_timeout=round(3.0 * least + rng.uniform(1.0, 12.0), 3) if long or maybe(rng, 0.8) else None,
    )


def _retry(rng: Random) -> RetryPolicy:
    initial = round(rng.choice((0.05, 0.3, 1.0)) * rng.uniform(0.5, 1.5), 4)
    return RetryPolicy(
        max_retries=rng.choice((0, 1, 2, 3, 3, 4)),
        initial_backoff=initial,
        max_backoff=round(max(initial, rng.uniform(0.5, 6.0)), 4),
        backoff_multiplier=rng.choice((1.0, 2.0, 3.0)),
        jitter=rng.choice(tuple(JitterKind)),
        respect_retry_after=not maybe(rng, 0.12),
        max_retry_after=round(rng.uniform(2.0, 9.0), 3),
    )


def _serving(rng: Random, load: float, wishes: Wishes) -> Serving:
    policies = (CapacityPolicy.QUEUE,) if wishes.room else tuple(CapacityPolicy)
    return Serving(
        max_concurrent=rng.choice((2, 4, 8, 16, 32, 64)) if load < 4 else rng.choice((4, 8, 16, 32, 64)),
        queue_capacity=rng.choice((256, 1024)) if wishes.room else rng.choice((1, 3, 10, 40, 100, 256, 1024)),
        on_capacity_exhausted=rng.choice(policies),
        queue_timeout=round(rng.uniform(0.3, 8.0), 3),
        on_circuit_open=OpenCircuitPolicy.WAIT if maybe(rng, wishes.outlasts) else OpenCircuitPolicy.REJECT,
        age_after=round(rng.uniform(0.3, 4.0), 3) if maybe(rng, 0.3) else None,
        fair_tenants=maybe(rng, wishes.fair_tenants),
    )


def _budget(rng: Random, load: float, may_reject: bool) -> Budget:
    action = rng.choice(tuple(BudgetAction) if may_reject else (BudgetAction.WARN, BudgetAction.THROTTLE))
    expected = load * 30.0 * _PRICE_OF_A_REQUEST_USD
    hour = round(max(1e-6, expected * rng.uniform(0.1, 1.0)), 6)
    day = round(max(1e-6, expected * rng.uniform(0.1, 1.0)), 6) if maybe(rng, 0.3) else None
    return Budget(hour, day, action)


def _session(rng: Random) -> SessionConfig:
    initial = round(rng.uniform(0.1, 1.0), 3)
    return SessionConfig(
        refresh_ahead=round(rng.uniform(0.0, 8.0), 3),
        backoff=BackoffPolicy(initial, round(initial + rng.uniform(0.0, 4.0), 3), 2.0, rng.choice(tuple(JitterKind))),
        refresh_timeout=round(rng.uniform(0.5, 5.0), 3),
    )


def _pool(rng: Random, http2: bool, most: int | None) -> PoolConfig:
    """``most``: connections at once. Not fewer than slots, or an attempt could use up its time waiting for one, and would
    look like a failing provider."""
    return PoolConfig(
        max_connections_per_origin=most if maybe(rng, 0.4) else None,
        max_idle_per_origin=rng.choice((0, 1, 8, 128)),
        idle_timeout=round(rng.uniform(0.5, 30.0), 3),
        http2=Http2.ONLY if http2 else Http2.OFF,
    )
