"""`World`: an engine with its deployments, their providers, and everything between them, in virtual time.

    caller ─▶ node (the engine that ships) ─▶ network ─▶ provider (the mock provider's own machine)
                 │  ▲                            ▲            ▲
               judge vault                    weather ────────┘

Nothing happens by itself: whoever holds the world moves its clock, and everything that is due happens on the way. The same
seed and the same actions give the same world, to the byte.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, assert_never

from ...backoff import require_count, require_positive
from ...connection_pool import PoolConfig
from ...deployment import Deployment, RemoteEngineConfig
from ...events import CircuitAction, Notice, OverrideCircuit, RebuildSession
from ...secret import Credential
from ..judge.judge import Judge
from ..judge.observed_core import Observer
from ..judge.violation import InvariantViolated
from ..provider.fault import Fault
from ..provider.mock_provider import MockProvider
from .clock import VirtualClock, chance
from .hosts import given_providers, host_plans, places_of, pool_for
from .network import Network
from .node import Call, Node
from .plan import (
    BadNetwork,
    CallerPlan,
    ClockJump,
    Conditions,
    Disturbance,
    DrainNow,
    Faults,
    HostPlan,
    Level,
    Operate,
    Plan,
    RotateKey,
    VaultDown,
)
from .plan_checks import require_known
from .remembering import Remembered, RememberedJudge
from .request_node import RequestNode
from .request_provider import RequestProvider
from .shared_store import SharedStore, StoreWay
from .vault import Vault, place_of
from .weather import Weather, WeatherScript, under
from .wire import WireClient
from .wire_node import WireNode

if TYPE_CHECKING:
    from .sync_engine import SimulatedEngine

GIVE_UP_AFTER: Final = 86_400.0
"""Virtual seconds after which whoever waits is taken for stuck, even if something still happens in the world."""

_FARTHEST_START = 1e6
"""How far an engine's monotonic clock may be from the world's at the beginning of a planned run: code that mixes two clocks
does not get away with it."""


class World:
    """One engine and all it has to do with.

    deployments: as for a driver's engine. Secrets are not read: the vault makes a key up for each. seed: of every chance in
    this world. level: down to the bytes, or requests and answers only. hosts: how the providers are, where not as
    `HostPlan` has it. provider: of the only host, or by host: mock providers that you have built. conditions: the network's.
    pool: the client's connections. judged: whether every step is held to the invariants.

    Raises `ValueError` for what cannot be: a host that no deployment names, a provider at level "requests".
    """

    def __init__(
        self,
        deployments: RemoteEngineConfig | Deployment | Sequence[Deployment],
        *,
        seed: int = 0,
        level: Level = "bytes",
        hosts: Sequence[HostPlan] = (),
        provider: MockProvider | Mapping[str, MockProvider] | None = None,
        conditions: Conditions | None = None,
        pool: PoolConfig | None = None,
        judged: bool = True,
    ) -> None:
        require_count("seed", seed)
        self.seed = seed
        self.config = RemoteEngineConfig.of(deployments)
        self.clock = VirtualClock()
        self.vault = Vault(self.clock, chance(seed, "vault"))
        self._places = places_of(self.config)
        self._rotations = {place: 0 for places in self._places.values() for place in places}
        self.hosts = host_plans(hosts, list(self._places))
        self.weather = {host: Weather(chance(seed, "weather", host), conditions or Conditions()) for host in self._places}
        self.providers: dict[str, MockProvider | RequestProvider] = {}
        self.network: Network | None = None
        self.client: WireClient | None = None
        self.pool = pool
        """How its connections are pooled, at level "bytes"."""
        for host in self._places:
            self._store_keys(host)
        given = given_providers(provider, self.hosts)
        if level == "bytes":
            self.node: Node = self._wire_node(given, pool)
        elif given:
            raise ValueError('provider: a world of level "requests" has providers of its own')
        else:
            self.node = self._request_node()
        self.store = None if self.config.shared is None else SharedStore()
        """What its processes share their limits through, where they are configured to."""
        self._store_ways: dict[str, StoreWay] = {}
        if self.store is not None:
            self.node.store = self.store_way(self.node.name)
        self.violation: InvariantViolated | None = None
        """The first that was found, whoever caught it since."""
        self.entered = False
        """Whether its `engine` was entered, which can be done once."""
        self.judge: Judge | None = None
        if judged:
            self.judge = Judge(self.node.core, self.vault.secrets, met=self._met)
            remembered = RememberedJudge(self.judge, self._violated)
            self.node.core.observers, self.node.watchers = (remembered,), (remembered,)

    @classmethod
    def of(cls, plan: Plan) -> World:
        """The world a plan describes. Its callers and disturbances are not scheduled yet."""
        config = RemoteEngineConfig(plan.deployments, plan.session)
        world = cls(config, seed=plan.seed, level=plan.level, hosts=plan.hosts, conditions=plan.conditions, pool=plan.pool)
        world.node.jump(chance(plan.seed, "start").uniform(0.0, _FARTHEST_START), 0.0)
        return world

    @property
    def provider(self) -> MockProvider:
        """The only host's mock provider. Raises `ValueError` where there are several, and at level "requests"."""
        found = list(self.providers.values())
        if len(found) > 1:
            raise ValueError(f"provider: there are several, take one of providers[{', '.join(map(repr, self.providers))}]")
        if not isinstance(found[0], MockProvider):
            raise ValueError('provider: a world of level "requests" has no MockProvider; take providers[host]')
        return found[0]

    def store_way(self, name: str) -> StoreWay:
        """The way of the process of this name to the store. Raises `ValueError` in a world that has none."""
        shared = self.config.shared
        if self.store is None or shared is None:
            raise ValueError("cluster: this world has no store; say RemoteEngineConfig(…, cluster='redis://…')")
        if name not in self._store_ways:
            rng = chance(self.seed, "store", name)
            self._store_ways[name] = StoreWay(self.clock, self.store, rng, timeout=shared.store_timeout)
        return self._store_ways[name]

    # ---- what happens -------------------------------------------------------------------------------------------------

    def watch(self, observer: Observer) -> None:
        """Somebody else is told of every step of the engine, after the judge."""
        self.node.core.observers = (*self.node.core.observers, Remembered(observer, self._violated))

    def call(self, caller: CallerPlan) -> None:
        """Somebody is going to ask, ``caller.at`` seconds from now. Raises `ValueError` for an unknown deployment."""
        self._require_deployment(caller.deployment)
        self.clock.call_later(caller.at, lambda: self._submit(caller))

    def disturb(self, disturbance: Disturbance) -> None:
        """Something is going to go wrong, ``disturbance.at`` seconds from now.

        Faults strike where a provider's own script has none for a request (`under`). Those of several disturbances are
        drawn independently, whatever their numbers. Raises `ValueError` for an unknown host or deployment.
        """
        if isinstance(disturbance, Operate):
            self._require_deployment(disturbance.deployment)
        elif isinstance(disturbance, (Faults, BadNetwork, RotateKey, VaultDown)):
            require_known("host", list(self._places), [disturbance.host])
        self.clock.call_later(disturbance.at, lambda: self._begin(disturbance))

    def heal(self) -> None:
        """Nothing goes wrong any more: fine weather, a vault that answers, with the keys that are good now."""
        for host, weather in self.weather.items():
            weather.clear()
            for place in self._places[host]:
                self.vault.repair(place)
            self._store_keys(host)
        if self.store is not None:
            self.store.gone = False
        for way in self._store_ways.values():
            way.mend()

    def run(self, seconds: float | None = None, *, give_up_after: float = GIVE_UP_AFTER) -> None:
        """Let everything happen: for so many seconds or, without, until nobody waits for an answer any more.

        Raises `RuntimeError` if somebody waits and nothing is going to happen, or has waited for ``give_up_after`` virtual
        seconds; and as `check`.
        """
        if seconds is None:
            self.wait_until(lambda: not self.node.calls, give_up_after)
        else:
            self.check()
            self.clock.advance(seconds)
            self.check()

    def wait_until(self, there: Callable[[], bool], give_up_after: float = GIVE_UP_AFTER) -> None:
        """Let everything happen until it is there. Raises as `run` does."""
        require_positive("give_up_after", give_up_after)
        self.check()
        until = self.clock.now + give_up_after
        while not there():
            if not self.clock.step(until):
                over = f"{give_up_after:g} virtual seconds are over"
                why = "nothing is going to happen any more" if self.clock.next() is None else over
                raise RuntimeError(
                    f"what is waited for does not come: {why} (at {self.clock.now:.3f} s); "
                    f"{len(self.node.calls)} callers have no answer (a stream that nobody reads?)"
                )
        self.check()

    def check(self) -> None:
        """Raise the first `InvariantViolated` that was found in this world, even if somebody has caught it since."""
        if self.violation is not None:
            raise self.violation

    def engine(
        self, *, on_notice: Callable[[Notice], None] | None = None, give_up_after: float = GIVE_UP_AFTER
    ) -> SimulatedEngine:
        """The engine for code that blocks: with the names of the blocking driver's, in virtual time. on_notice: called with
        each `Notice`. give_up_after: virtual seconds that one wait may take."""
        from .sync_engine import SimulatedEngine  # here, because it is built upon this file

        return SimulatedEngine(self, on_notice=on_notice, give_up_after=give_up_after)

    # ---- inside -------------------------------------------------------------------------------------------------------

    def _violated(self, violation: InvariantViolated) -> None:
        if self.violation is None:
            self.violation = violation

    def _require_deployment(self, name: str) -> None:
        require_known("deployment", [deployment.name for deployment in self.config.deployments], [name])

    def _met(self, prompt: str) -> tuple[int, Fault | None]:
        """How many requests with this prompt have come to a provider, and what the last of them met."""
        for weather in self.weather.values():
            times, fault = weather.met(prompt)
            if times:
                return times, fault
        return 0, None

    def _submit(self, caller: CallerPlan) -> None:
        call = self.node.submit(caller)
        if caller.leaves_after is not None and not call.ended:
            self.clock.call_later(caller.leaves_after, lambda: self._leave(call))

    def _leave(self, call: Call) -> None:
        if not call.ended:
            self.node.leave(call)

    def _begin(self, disturbance: Disturbance) -> None:
        match disturbance:
            case Faults() | BadNetwork():
                weather, provider = self.weather[disturbance.host], self.providers[disturbance.host]
                if isinstance(provider, MockProvider):
                    provider.faults = under(weather, provider.faults)
                weather.begin(disturbance)
                self.clock.call_later(disturbance.seconds, lambda: weather.end(disturbance))
            case RotateKey():
                self._rotate(disturbance)
            case VaultDown():
                for place in self._places[disturbance.host]:
                    self.vault.break_down(place, silent=disturbance.silent)
                self.clock.call_later(disturbance.seconds, lambda: self._repair(disturbance.host))
            case ClockJump():
                self.node.jump(disturbance.monotonic, disturbance.wall)
            case Operate():
                self._operate(disturbance)
            case DrainNow():
                self.node.drain()
            case _:
                assert_never(disturbance)

    def _operate(self, order: Operate) -> None:
        if order.action == "rebuild":
            self.node.tell(RebuildSession(order.deployment))
        else:
            seconds = order.seconds if order.action == "open" else None
            self.node.tell(OverrideCircuit(order.deployment, CircuitAction(order.action), seconds))

    def _rotate(self, rotation: RotateKey) -> None:
        """The keys of a host change; so they do at the other hosts that are asked with the same secrets."""
        changed = self._places[rotation.host]
        for place in changed:
            self._rotations[place] += 1
        concerned = [host for host, places in self._places.items() if not set(places).isdisjoint(changed)]
        for host in concerned:
            self.providers[host].rotate_keys(self._keys(host))
        self.clock.call_later(rotation.vault_lag, lambda: self._store_keys(rotation.host))

    def _repair(self, host: str) -> None:
        for place in self._places[host]:
            self.vault.repair(place)

    def _key(self, place: str) -> str:
        """The key that is good now, of one place."""
        return f"sk-simulated-{list(self._rotations).index(place)}-{self._rotations[place]}"

    def _keys(self, host: str) -> list[str]:
        """Those that a host takes now."""
        return [self._key(place) for place in self._places[host]]

    def _store_keys(self, host: str) -> None:
        for place in self._places[host]:
            self.vault.store(place, self._key(place), self.hosts[host].key_lifetime)

    def fingerprints(self) -> dict[str, str]:
        """Those of the keys that are good now, by deployment."""
        return {each.name: Credential(self._key(place_of(each))).fingerprint for each in self.config.deployments}

    def _wire_node(self, given: Mapping[str, MockProvider], pool: PoolConfig | None) -> WireNode:
        self.network = network = Network(self.clock, self.seed)
        for host, plan in self.hosts.items():
            provider = self.providers[host] = given.get(host) or MockProvider(
                faults=WeatherScript(self.weather[host]),
                keys=self._keys(host),
                limits=plan.limits,
                seed=self.seed,
                first_byte_delay=plan.first_byte_delay,
                token_delay=plan.token_delay,
            )
            network.add(host, provider, self.weather[host], http2=plan.http2)
        self.pool = pool or pool_for(self.config, self.hosts)
        self.client = client = WireClient(network, lambda: self.node.now(), self.pool)
        fingerprints = self.fingerprints()
        return WireNode(self.clock, self.config, seed=self.seed, vault=self.vault, fingerprints=fingerprints, client=client)

    def _request_node(self) -> RequestNode:
        providers: dict[str, RequestProvider] = {}
        for host, plan in self.hosts.items():
            rng = chance(self.seed, "provider", host)
            self.providers[host] = providers[host] = RequestProvider(plan, self.weather[host], self._keys(host), rng)
        return RequestNode(
            self.clock,
            self.config,
            seed=self.seed,
            vault=self.vault,
            fingerprints=self.fingerprints(),
            providers=providers,
            weather=self.weather,
        )
