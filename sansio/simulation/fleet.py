"""Several processes that share a key, at the level of requests: the engines that ship, a store, one provider that counts.

Every process asks as much as it can: each of its callers asks again as soon as it has its answer. The provider's own limiter
(`provider_limiter.py`, no code of ours) charges each request when it arrives, and refuses what is too much. So the one
question is how much of the limit the processes use together, and how often they are refused.

Nobody is judged step by step here, as in a `World`: that is what makes a million requests a matter of a minute or two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ..backoff import require_count, require_positive
from ..batch import TokenChunk
from ..deployment import Cluster, Deployment, RemoteEngineConfig
from ..secret import Credential
from .provider.provider_limiter import ProviderLimits
from .world.clock import VirtualClock, chance
from .world.node import Call
from .world.plan import CallerPlan, Conditions, HostPlan, host_of
from .world.request_node import RequestNode
from .world.request_provider import RequestProvider
from .world.shared_store import SharedStore, StoreWay
from .world.vault import Vault, place_of
from .world.weather import Weather

_KEY: Final = "sk-simulated-fleet"
_PROMPTS: Final = 64
"""How many different questions are asked. They are made once, so that asking costs nothing."""


@dataclass(frozen=True, slots=True)
class FleetReport:
    """What came of a run.

    accepted: how many requests the provider took in each window, the first included. refused: its 429s. failed: callers who
    got an error. used: the part of the limit (requests, all windows but the first) that was granted and counted. facts: how
    many the engines were told. exchanges: questions that the store answered.
    """

    accepted: tuple[int, ...]
    refused: int
    failed: int
    used: float
    facts: int
    exchanges: int


class Fleet:
    """``processes`` engines with ``deployment``, whose limits are the provider's too, and ``callers`` callers in all.

    shares: how the callers are spread over the processes (any positive numbers; evenly, if not given). seed: of all chance.
    latency: seconds each way to the provider, at least, and as much again at most.
    Raises `ValueError` for a deployment without a limit of requests, or numbers out of range.
    """

    def __init__(
        self,
        deployment: Deployment,
        cluster: Cluster,
        *,
        processes: int = 4,
        callers: int = 400,
        shares: Sequence[float] = (),
        seed: int = 0,
        latency: float = 0.02,
        first_byte_delay: float = 0.05,
    ) -> None:
        require_count("processes", processes, at_least=1)
        require_count("callers", callers, at_least=processes)
        limits = deployment.config.rate_limits
        if limits.requests_per_minute is None:
            raise ValueError("deployment: has no rate_limits.requests_per_minute, so nothing is shared; give one")
        self._limit, self._window = limits.requests_per_minute, limits.window
        host = host_of(deployment)
        provider_limits = ProviderLimits(limits.requests_per_minute, limits.tokens_per_minute, limits.window)
        plan = HostPlan(host, provider_limits, first_byte_delay=first_byte_delay, token_delay=0.0)
        self.clock = VirtualClock()
        self.store = SharedStore()
        self.provider = RequestProvider(plan, self._weather(seed, latency), [_KEY], chance(seed, "fleet", "provider"))
        self._model = deployment.model
        vault = Vault(self.clock, chance(seed, "fleet", "vault"))
        vault.store(place_of(deployment), _KEY, None)
        config = RemoteEngineConfig.of(deployment, cluster)
        shared = config.shared
        assert shared is not None
        self.nodes: list[RequestNode] = []
        for number in range(processes):
            node = RequestNode(
                self.clock,
                config,
                seed=seed,
                vault=vault,
                providers={host: self.provider},
                weather={host: self._weather(seed, latency)},
                fingerprints={deployment.name: Credential(_KEY).fingerprint},
                name=f"process-{number}",
                echo=0.0,
            )
            rng = chance(seed, "fleet", "store", str(number))
            node.store = StoreWay(self.clock, self.store, rng, timeout=shared.store_timeout)
            self.nodes.append(node)
        self._asks = [_Asks(node, deployment.name) for node in self.nodes]
        for asks, count in zip(self._asks, _spread(callers, list(shares) or [1.0] * processes), strict=True):
            asks.callers = count

    def run(self, windows: int, *, meanwhile: Callable[[Fleet], None] | None = None) -> FleetReport:
        """Let them ask for the first window and so many more.

        meanwhile: called once, when all has been set going, to arrange for what goes wrong. Raises `ValueError` for a number
        that is not at least 1.
        """
        require_count("windows", windows, at_least=1)
        for asks in self._asks:
            asks.begin()
        if meanwhile is not None:
            meanwhile(self)
        accepted: list[int] = []
        for _ in range(windows + 1):
            before = self._taken()
            self.clock.advance(self._window)
            accepted.append(self._taken() - before)
        return FleetReport(
            tuple(accepted),
            self.provider.throttled,
            sum(asks.failed for asks in self._asks),
            sum(accepted[1:]) / (self._limit * windows),
            sum(node.core.facts for node in self.nodes),
            self.store.executed,
        )

    def _taken(self) -> int:
        return self.provider.requests_total - self.provider.throttled

    @staticmethod
    def _weather(seed: int, latency: float) -> Weather:
        require_positive("latency", latency)
        return Weather(chance(seed, "fleet", "weather"), Conditions(latency=latency, jitter=latency))


class _Asks:
    """The callers of one process: each asks again when it has its answer, whatever that was."""

    def __init__(self, node: RequestNode, deployment: str) -> None:
        self.callers = 0
        self.failed = 0
        self._node = node
        self._plans = [CallerPlan(n, 0.0, deployment, f"question {n}", stream=False) for n in range(_PROMPTS)]
        self._asked = 0
        node.watchers = (self,)

    def begin(self) -> None:
        """Everybody asks for the first time."""
        for _ in range(self.callers):
            self._ask()

    def sent(self, call: Call, key: str | None, now: float, unix_now: float) -> None:
        """A request went out."""

    def delivered(self, call: Call, chunk: TokenChunk) -> None:
        """A chunk was handed to its caller."""

    def ended(self, call: Call) -> None:
        """A caller has its answer."""
        self.failed += call.error is not None
        self._node.clock.call_later(0.0, self._ask)

    def _ask(self) -> None:
        self._asked += 1
        self._node.submit(self._plans[self._asked % _PROMPTS])


def _spread(total: int, shares: Sequence[float]) -> list[int]:
    """``total`` divided by ``shares``; what rounding leaves over goes to the first ones."""
    whole = sum(shares)
    counts = [int(total * share / whole) for share in shares]
    for number in range(total - sum(counts)):
        counts[number % len(counts)] += 1
    return counts
