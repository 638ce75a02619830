"""A world is put together from what it is given, and refuses at once what cannot be."""

from __future__ import annotations

from typing import Any

import pytest

from sansio import CircuitState, Deployment, ExecuteBatch, Message, PoolConfig, RateLimited, Secret, ServerError
from sansio.connection_pool import Http2
from sansio.simulation.provider.fault_script import FaultScript
from sansio.simulation.provider.faults import NeverRespond, Status, Throttle
from sansio.simulation.provider.mock_provider import MockProvider
from sansio.simulation.provider.provider_limiter import ProviderLimits
from sansio.simulation.world.plan import (
    BadNetwork,
    CallerPlan,
    ClockJump,
    Conditions,
    Disturbance,
    DrainNow,
    Faults,
    HostPlan,
    Operate,
    RotateKey,
    VaultDown,
)
from sansio.simulation.world.world import World

HOST, OTHER = "api.openai.com", "other.test"
CALM = Conditions(latency=0.01, jitter=0.0)


def chat(name: str = "chat", endpoint: str | None = None, **config: Any) -> Deployment:
    where = {} if endpoint is None else {"endpoint": endpoint}
    secret = {"api_key": Secret.from_env(f"KEY_OF_{name.upper()}")}
    return Deployment(name=name, model="gpt-4o", runtime_config={**secret, **where, **config})


def there(name: str = "other", scheme: str = "https") -> Deployment:
    return chat(name, f"{scheme}://{OTHER}/v1/chat/completions")


def batch(prompt: str = "hello") -> ExecuteBatch:
    return ExecuteBatch(messages=[Message(role="user", content=prompt)])


ONCE: Any = {"retry": {"max_retries": 0}}


# ---- what cannot be ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", ["abc", 1.5, True, -1, None])
def test_a_seed_is_a_whole_number(seed: Any) -> None:
    with pytest.raises(ValueError, match=r"^seed: "):
        World(chat(), seed=seed)


@pytest.mark.parametrize(
    "disturbance",
    [
        Faults(1, 60.0, 1.0, "api.opanai.com", ((Status(503), 1.0),)),
        BadNetwork(1, 60.0, 1.0, "api.opanai.com", CALM),
        RotateKey(1, 60.0, "api.opanai.com"),
        VaultDown(1, 60.0, 1.0, "api.opanai.com"),
    ],
)
def test_an_unknown_host_is_refused_at_once(disturbance: Disturbance) -> None:
    world = World([chat(), there()])
    with pytest.raises(ValueError, match=r"^host: 'api.opanai.com' is none of .* api.openai.com, other.test"):
        world.disturb(disturbance)
    assert world.clock.next() is None


def test_an_unknown_deployment_is_refused_at_once() -> None:
    world = World([chat(), there()])
    with pytest.raises(ValueError, match=r"^deployment: 'caht' is none of .* chat, other"):
        world.disturb(Operate(1, 60.0, "caht", "open", 10.0))
    with pytest.raises(ValueError, match=r"^deployment: 'caht' is none of .* chat, other"):
        world.call(CallerPlan(1, 60.0, "caht", "hello"))
    assert world.clock.next() is None


def test_hosts_and_providers_are_the_deployments() -> None:
    with pytest.raises(ValueError, match=r"^hosts: 'x' is none of .* api.openai.com"):
        World(chat(), hosts=[HostPlan("x")])
    with pytest.raises(ValueError, match=r"^hosts: there are 2 plans for api.openai.com; give one for each"):
        World(chat(), hosts=[HostPlan(HOST), HostPlan(HOST, http2=True)])
    with pytest.raises(ValueError, match=r"^provider: 'x' is none of .* api.openai.com"):
        World(chat(), provider={"x": MockProvider()})
    with pytest.raises(ValueError, match=r"^provider: there are several hosts, .* api.openai.com, other.test"):
        World([chat(), there()], provider=MockProvider())
    with pytest.raises(ValueError, match="level"):
        World(chat(), provider=MockProvider(), level="requests")
    with pytest.raises(ValueError, match=r"several, take one of providers\['api.openai.com', 'other.test'\]"):
        _ = World([chat(), there()]).provider
    with pytest.raises(ValueError, match="level"):
        _ = World(chat(), level="requests").provider


@pytest.mark.parametrize(
    "said", [{"first_byte_delay": 3.0}, {"token_delay": 0.5}, {"limits": ProviderLimits(requests_per_minute=1)}]
)
def test_what_a_given_provider_says_itself_cannot_be_said_of_its_host(said: Any) -> None:
    (name,) = said
    for provider in (MockProvider(), {HOST: MockProvider()}):
        with pytest.raises(ValueError, match=rf"^hosts: {name}=.* 'api.openai.com' .*MockProvider\({name}=…\)"):
            World(chat(), hosts=[HostPlan(HOST, **said)], provider=provider)
    other = World([chat(), there()], hosts=[HostPlan(HOST, **said)], provider={OTHER: MockProvider()})
    assert other.hosts[HOST] == HostPlan(HOST, **said)


def test_what_is_not_the_providers_can_be_said_of_its_host() -> None:
    world = World(chat(), hosts=[HostPlan(HOST, http2=True, key_lifetime=60.0)], provider=MockProvider(), conditions=CALM)
    with world.engine() as engine:
        engine.generate(batch())
        assert world.vault.handed_out[0].expires_at_unix is not None
    assert world.provider.log[0].http_version == "2"


# ---- what hosts speak -------------------------------------------------------------------------------------------------


def spoken(world: World) -> list[str]:
    with world.engine() as engine:
        for deployment in world.config.deployments:
            engine.generate(batch(), deployment=deployment.name)
    providers = [provider for provider in world.providers.values() if isinstance(provider, MockProvider)]
    return [provider.log[0].http_version for provider in providers]


@pytest.mark.parametrize(
    ("first", "second", "versions"),
    [(False, False, ["1.1", "1.1"]), (True, True, ["2", "2"]), (True, False, ["2", "1.1"]), (False, True, ["1.1", "2"])],
)
def test_each_host_speaks_what_its_plan_says(first: bool, second: bool, versions: list[str]) -> None:
    hosts = [HostPlan(HOST, http2=first), HostPlan(OTHER, http2=second)]
    assert spoken(World([chat(), there()], hosts=hosts, conditions=CALM)) == versions


def test_without_tls_one_host_alone_cannot_speak_http2_unless_the_pool_says_what_is_spoken() -> None:
    hosts = [HostPlan(OTHER, http2=True)]
    with pytest.raises(ValueError, match=r"^hosts: 'other.test' speaks HTTP/2 .* only https can .* pool="):
        World([chat(), there(scheme="http")], hosts=hosts)
    pool = PoolConfig(http2=Http2.OFF)
    assert spoken(World([chat(), there(scheme="http")], hosts=hosts, pool=pool, conditions=CALM)) == ["1.1", "1.1"]
    both = [HostPlan(HOST, http2=True), HostPlan(OTHER, http2=True)]
    assert spoken(World([chat(), there(scheme="http")], hosts=both, conditions=CALM)) == ["2", "2"]
    assert spoken(World([there(scheme="http"), chat()], hosts=[HostPlan(HOST, http2=True)], conditions=CALM)) == ["1.1", "2"]


# ---- the weather at a provider that was given -------------------------------------------------------------------------


def outage(number: int = 1, *, at: float = 0.0, share: float = 1.0, seconds: float = 50.0) -> Faults:
    return Faults(number, at, seconds, HOST, ((Status(503), share),))


def test_the_weather_strikes_a_given_provider_where_its_own_script_does_not() -> None:
    provider = MockProvider(faults=FaultScript([None, Throttle(retry_after="1")]))
    world = World(chat(**ONCE), provider=provider, conditions=CALM)
    world.disturb(outage())
    with world.engine() as engine:
        world.run(0.0)
        assert world.provider.faults.remaining == 2
        for error in (ServerError, RateLimited, ServerError):
            with pytest.raises(error):
                engine.generate(batch())
        world.run(100.0)
        assert engine.generate(batch())
    assert [record.fault for record in provider.log] == [Status(503), Throttle(retry_after="1"), Status(503), None]
    assert world.provider.faults.remaining == 0


def test_a_script_that_replaces_another_stands_in_what_comes_after_it() -> None:
    world = World(chat(**ONCE), conditions=CALM)
    assert world.provider.faults.remaining == 0
    world.provider.faults = FaultScript([Throttle()])
    world.disturb(outage())
    world.disturb(outage(2))
    with world.engine() as engine:
        world.run(0.0)
        for error in (RateLimited, ServerError):
            with pytest.raises(error):
                engine.generate(batch())
    assert [record.fault for record in world.provider.log] == [Throttle(), Status(503)]


def test_a_provider_takes_no_weather_along_to_another_world() -> None:
    provider = MockProvider(faults=FaultScript([Status(500)]))
    first, second = (World(chat(**ONCE), provider=provider, conditions=CALM) for _ in range(2))
    first.disturb(outage(seconds=1e6))
    first.run(0.0)
    second.disturb(outage(seconds=0.0))
    second.run(1.0)
    with second.engine() as engine:
        with pytest.raises(ServerError):
            engine.generate(batch())
        assert engine.generate(batch())


def test_a_network_may_be_bad_before_a_given_provider() -> None:
    world = World(chat(**ONCE), provider=MockProvider(faults=FaultScript(then=NeverRespond())), conditions=CALM)
    world.disturb(BadNetwork(1, 0.0, 10.0, HOST, Conditions(refused=1.0)))
    with world.engine() as engine:
        world.run(0.0)
        with pytest.raises(Exception, match="refused"):
            engine.generate(batch())


@pytest.mark.parametrize("level", ["bytes", "requests"])
def test_disturbances_of_one_number_are_drawn_independently(level: Any) -> None:
    world = World(chat(), level=level)
    for _ in range(2):
        world.disturb(outage(1, share=0.5))
    world.run(0.0)
    weather = world.weather[HOST]
    struck = sum(weather.draw(f"prompt {n}", reused=False) is not None for n in range(1_000))
    assert 700 < struck < 800  # three quarters, and not a half


# ---- what happens in it ------------------------------------------------------------------------------------------------


def test_a_world_may_do_without_a_judge() -> None:
    world = World(chat(), judged=False, conditions=CALM)
    with world.engine() as engine:
        engine.generate(batch())
    assert world.judge is None
    world.check()


@pytest.mark.parametrize(("stays", "left"), [(0.1, True), (60.0, False)])
def test_a_caller_leaves_when_its_plan_says_so_unless_it_is_over(stays: float, left: bool) -> None:
    world = World(chat(), conditions=CALM)
    world.call(CallerPlan(1, 0.0, "chat", "hello", leaves_after=stays))
    world.run(0.0)
    (call,) = world.node.calls.values()
    world.run(100.0)
    assert (call.ended, call.left) == (True, left)


def test_an_engine_is_drained_at_its_time() -> None:
    world = World(chat(), conditions=CALM)
    world.disturb(DrainNow(1, at=5.0))
    world.run(4.0)
    assert not world.node.drained
    world.run(2.0)
    assert world.node.drained


def test_an_operator_acts_at_a_time() -> None:
    world = World(chat(), conditions=CALM)
    world.disturb(Operate(1, 5.0, "chat", "rebuild"))
    world.disturb(Operate(2, 6.0, "chat", "open", 10.0))
    with world.engine() as engine:
        engine.generate(batch())
        world.run(5.5)
        assert engine.metrics().refreshes == 2
        world.run(1.0)
        assert engine.breaker.state() is CircuitState.OPEN
        world.run(10.0)
        assert engine.breaker.state() is not CircuitState.OPEN


def test_the_engines_clocks_are_set_and_the_worlds_go_on() -> None:
    world = World(chat(), conditions=CALM)
    world.disturb(ClockJump(1, at=5.0, monotonic=100.0, wall=-50.0))
    world.run(6.0)
    assert (world.clock.now, world.node.now()) == (6.0, 106.0)
    assert world.clock.unix_now - world.node.unix_now() == 50.0


def test_one_secret_at_two_hosts_is_one_key() -> None:
    hello = ExecuteBatch(messages=[Message(role="user", content="hello")])
    config = {"api_key": Secret.from_env("SHARED")}
    two = [
        Deployment(name=name, model="gpt-4o", runtime_config={**config, "endpoint": f"http://{name}.test/v1"})
        for name in ("one", "two")
    ]
    world = World(two)
    with world.engine() as engine:
        for rotated in (False, True):
            if rotated:
                world.disturb(RotateKey(0, 0.0, "one.test", vault_lag=0.1))
                world.run(1)
            for name in ("one", "two"):
                assert engine.generate(hello, deployment=name).text.startswith("[hello]")
    assert engine.metrics().refreshes == 2
