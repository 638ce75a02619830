"""The catalogue of scenarios: every seed draws a plan that makes sense, the same one everywhere, and together they meet
everything there is to meet."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any, cast

import pytest

from sansio import Deployment
from sansio.budget import BudgetAction
from sansio.connection_pool import PoolConfig
from sansio.queue import CapacityPolicy, Priority
from sansio.simulation import (
    FAULTS,
    DripBytes,
    Fault,
    ProviderLimits,
    RotateKeys,
    SlowTokens,
    Status,
    Throttle,
)
from sansio.simulation.scenarios.catalogue import SCENARIOS, plan
from sansio.simulation.scenarios.healing import BEAT, SLOWING, heal_bound
from sansio.simulation.scenarios.run import run
from sansio.simulation.scenarios.scenario import undisturbed_seconds
from sansio.simulation.scenarios.sites import delivery_seconds, secret_of
from sansio.simulation.scenarios.sweep import BYTES_EVERY, level_of, plan_of, scenario_of
from sansio.simulation.scenarios.throttling import never_throttles
from sansio.simulation.world.plan import (
    LEVELS,
    BadNetwork,
    CallerPlan,
    ClockJump,
    Conditions,
    DrainNow,
    Faults,
    HostPlan,
    Level,
    Operate,
    Plan,
    RotateKey,
    VaultDown,
    host_of,
)

SEEDS = 50
EVERY = [(name, level) for name in SCENARIOS for level in LEVELS]
SIZES = {"bytes": (60, 120), "requests": (400, 700)}


@cache
def plans(name: str, level: Level, seeds: int = SEEDS) -> list[Plan]:
    return [plan(name, seed, level) for seed in range(seeds)]


def met(drawn: Plan) -> Iterator[Fault]:
    for each in drawn.disturbances:
        if isinstance(each, Faults):
            yield from (fault for fault, _ in each.rates)


# ---- every plan ---------------------------------------------------------------------------------------------------------


def test_the_catalogue_holds_what_is_promised() -> None:
    promised = "steady outage brownout throttle_storm key_rotation slow_provider broken_streams noisy_neighbour"
    assert list(SCENARIOS) == [*promised.split(), "thundering_herd", "drain_under_load", "clock_jump"]
    for name, scenario in SCENARIOS.items():
        assert scenario.name == name
        assert scenario.about.endswith(".") and scenario.about.count(".") == 1


@pytest.mark.parametrize(("name", "level"), EVERY)
def test_every_seed_draws_a_plan_that_makes_sense(name: str, level: Level) -> None:
    least, most = SIZES[level]
    for seed, drawn in enumerate(plans(name, level)):
        assert (drawn.scenario, drawn.seed, drawn.level) == (name, seed, level)
        assert least <= len(drawn.callers) <= most
        assert [caller.number for caller in drawn.callers] == list(range(len(drawn.callers)))
        assert [each.number for each in drawn.disturbances] == list(range(len(drawn.disturbances)))
        for parts in (drawn.callers, drawn.disturbances):
            times = [each.at for each in parts]
            assert times == sorted(times)
            assert all(0.0 <= at <= drawn.seconds for at in times)
        assert len({caller.said for caller in drawn.callers}) == len(drawn.callers)
        assert drawn.heal_within == heal_bound(drawn) < math.inf
        assert 1 <= len(drawn.deployments) <= 3 and 1 <= len(drawn.hosts) <= 2


@pytest.mark.parametrize(("name", "level"), EVERY)
def test_a_client_can_recover_in_fine_weather(name: str, level: Level) -> None:
    """No clock of an attempt and no probe's lease is shorter than an undisturbed answer, or nothing could ever succeed."""
    for drawn in plans(name, level):
        hosts = {host.host: host for host in drawn.hosts}
        for deployment in drawn.deployments:
            asked = [caller for caller in drawn.callers if caller.deployment == deployment.name]
            tokens = max((caller.output_tokens for caller in asked), default=3)
            takes = undisturbed_seconds(hosts[host_of(deployment)], drawn.conditions, tokens)
            t, breaker = deployment.config.timeouts, deployment.config.circuit_breaker
            for clock in (t.connect_timeout, t.request_timeout, t.read_timeout, t.content_timeout, breaker.probe_timeout):
                assert clock is not None and clock > takes
            if t.total_timeout is not None:
                assert all(t.total_timeout > takes + c.reads_every * (c.output_tokens + 4) for c in asked)
        fair = drawn.conditions
        assert (fair.refused, fair.lost, fair.reset, fair.stalled) == (0.0, 0.0, 0.0, 0.0)


def test_a_budget_that_rejects_leaves_somebody_to_probe_the_circuit() -> None:
    rejecting = 0
    for name, level in EVERY:
        for drawn in plans(name, level):
            if not drawn.disturbances or any(isinstance(each, DrainNow) for each in drawn.disturbances):
                continue
            for deployment in drawn.deployments:
                if deployment.spending is not None and deployment.spending.on_exceeded is BudgetAction.REJECT:
                    rejecting += 1
                    first = drawn.deployments[0]
                    assert host_of(first) == host_of(deployment) and first.config.secret == deployment.config.secret
                    assert first.spending is None or first.spending.on_exceeded is not BudgetAction.REJECT
    assert rejecting >= 10


def test_steady_is_steady() -> None:
    for level in LEVELS:
        leave = [sum(caller.leaves_after is not None for caller in drawn.callers) for drawn in plans("steady", level)]
        assert leave.count(0) <= (3 if level == "bytes" else 0), "callers are few where there are bytes"
        for drawn in plans("steady", level):
            assert drawn.disturbances == ()
            assert drawn.throttle_free
            assert any(host.limits is not None for host in drawn.hosts)


@pytest.mark.parametrize("level", LEVELS)
def test_the_outage_of_a_herd_ends_long_before_the_phase_does(level: Level) -> None:
    for drawn in plans("thundering_herd", level):
        down = [
            each
            for each in drawn.disturbances
            if isinstance(each, (Faults, BadNetwork)) and each.seconds >= 0.25 * drawn.seconds - 0.001
        ]
        assert down and min(each.at + each.seconds for each in down) <= 0.61 * drawn.seconds


def test_a_drain_comes_in_the_middle() -> None:
    for drawn in plans("drain_under_load", "requests"):
        [at] = [each.at for each in drawn.disturbances if isinstance(each, DrainNow)]
        assert 0.3 * drawn.seconds < at < 0.9 * drawn.seconds
        assert any(caller.at > at for caller in drawn.callers)


def test_where_hints_are_dates_the_wall_clock_goes_back_a_little_only() -> None:
    dated = 0
    for level in LEVELS:
        for drawn in plans("clock_jump", level):
            jumps = [each for each in drawn.disturbances if isinstance(each, ClockJump)]
            assert jumps
            if any(isinstance(fault, Throttle) and fault.retry_date is not None for fault in met(drawn)):
                dated += 1
                assert all(jump.wall >= -40.0 for jump in jumps)
    assert dated >= 30


# ---- the same everywhere ------------------------------------------------------------------------------------------------

DIGEST = """
import hashlib, sys
from sansio.simulation.scenarios.catalogue import SCENARIOS, plan
digest = hashlib.sha256()
for name in SCENARIOS:
    for level in ("bytes", "requests"):
        for seed in range(int(sys.argv[1])):
            digest.update(repr(plan(name, seed, level)).encode())
print(digest.hexdigest())
"""


def test_a_plan_is_the_same_in_every_process() -> None:
    digest = hashlib.sha256()
    for name, level in EVERY:
        for drawn in plans(name, level)[:8]:
            digest.update(repr(drawn).encode())
    other = "4711" if os.environ.get("PYTHONHASHSEED") != "4711" else "0"  # than this one's, which is drawn if none is set
    environment = {**os.environ, "PYTHONHASHSEED": other}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    told = subprocess.run([sys.executable, "-c", DIGEST, "8"], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == digest.hexdigest()


@pytest.mark.parametrize(("name", "level"), EVERY)
def test_a_seed_draws_one_plan_and_another_seed_another(name: str, level: Level) -> None:
    assert plan(name, 7, level) == plan(name, 7, level)
    assert len({repr(drawn.callers) for drawn in plans(name, level)}) == SEEDS


def test_a_seed_stands_for_one_run_and_twice_as_many_as_there_are_for_every_scenario_on_both_levels() -> None:
    assert plan_of(17) == plan_of(17, scenario_of(17), level_of(17)) == plan(scenario_of(17), 17, level_of(17))
    assert plan_of(17, "outage", "bytes") == plan("outage", 17, "bytes")
    met = {(scenario_of(seed), level_of(seed)) for seed in range(BYTES_EVERY * len(SCENARIOS))}
    assert met == set(EVERY)


def test_an_unknown_scenario_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"^scenario: 'brown-out' is unknown; did you mean 'brownout'\?$"):
        plan("brown-out", 1)
    with pytest.raises(ValueError, match=r"^scenario: '' is unknown; known: steady, outage, .*clock_jump$"):
        plan("", 1)


def test_a_part_of_a_plan_can_be_kept() -> None:
    whole = plan("key_rotation", 3, "requests")
    part = whole.keep({1, 5, 400_000}, [0])
    assert [caller.number for caller in part.callers] == [1, 5]
    assert [each.number for each in part.disturbances] == [0]
    assert part == replace(
        whole,
        callers=(whole.callers[1], whole.callers[5]),
        disturbances=whole.disturbances[:1],
        callers_left_out=len(whole.callers) - 2,
        disturbances_left_out=len(whole.disturbances) - 1,
    )
    assert part.keep({5}, ()).callers_left_out == len(whole.callers) - 1


# ---- everything there is to meet ----------------------------------------------------------------------------------------

OF_A_PLAN: dict[str, Callable[[Plan], bool]] = {
    **{
        kind.__name__: lambda drawn, kind=kind: any(isinstance(each, kind) for each in drawn.disturbances)
        for kind in (Faults, BadNetwork, RotateKey, VaultDown, ClockJump, Operate, DrainNow)
    },
    "a late vault": lambda p: any(isinstance(each, RotateKey) and each.vault_lag > 0 for each in p.disturbances),
    "a silent vault": lambda p: any(isinstance(each, VaultDown) and each.silent for each in p.disturbances),
    "a clock set back": lambda p: any(isinstance(each, ClockJump) and each.monotonic < 0 for each in p.disturbances),
    "minutes lost": lambda p: any(isinstance(each, ClockJump) and each.monotonic > 60 for each in p.disturbances),
    "hours of wall clock": lambda p: any(isinstance(each, ClockJump) and abs(each.wall) > 3_600 for each in p.disturbances),
    "refused dials": lambda p: any(isinstance(each, BadNetwork) and each.conditions.refused > 0 for each in p.disturbances),
    "a black hole": lambda p: any(isinstance(each, BadNetwork) and each.conditions.lost == 1 for each in p.disturbances),
    "resets": lambda p: any(isinstance(each, BadNetwork) and 0 < each.conditions.reset < 1 for each in p.disturbances),
    "stalls": lambda p: any(isinstance(each, BadNetwork) and 0 < each.conditions.stalled < 1 for each in p.disturbances),
    "three deployments": lambda p: len(p.deployments) == 3,
    "two hosts": lambda p: len(p.hosts) == 2,
    "two keys of a host": lambda p: len({d.config.secret for d in p.deployments}) > len(p.hosts),
    "two models of a key": lambda p: len({d.model for d in p.deployments}) == 2,
    "HTTP/2": lambda p: any(host.http2 for host in p.hosts),
    "keys that expire": lambda p: any(host.key_lifetime is not None for host in p.hosts),
    "few connections": lambda p: p.pool is not None and p.pool.max_connections_per_origin is not None,
    "no limits of theirs": lambda p: all(host.limits is None for host in p.hosts),
    "never throttled": lambda p: p.throttle_free,
    "scripted throttling": lambda p: any(isinstance(fault, Throttle) for fault in met(p)),
    "a date": lambda p: any(isinstance(fault, Throttle) and fault.retry_date is not None for fault in met(p)),
    "a reset": lambda p: any(isinstance(fault, Throttle) and fault.reset is not None for fault in met(p)),
    "lower limits of theirs": lambda p: any(_lower(p, deployment) for deployment in p.deployments),
}
OF_A_DEPLOYMENT: dict[str, Callable[[Deployment], bool]] = {
    "requests limited": lambda d: d.config.rate_limits.requests_per_minute is not None,
    "tokens limited": lambda d: d.config.rate_limits.tokens_per_minute is not None,
    "input and output limited": lambda d: d.config.rate_limits.input_tokens_per_minute is not None,
    "concurrency limited": lambda d: d.config.rate_limits.concurrent_requests is not None,
    "paced": lambda d: d.config.rate_limits.burst is not None,
    "no retries": lambda d: d.config.retry.max_retries == 0,
    "hints ignored": lambda d: not d.config.retry.respect_retry_after,
    "not idempotent": lambda d: not d.idempotent,
    "many failures": lambda d: d.config.circuit_breaker.failure_threshold == 10,
    "failures in a window": lambda d: d.config.circuit_breaker.window is not None,
    "longer each time": lambda d: d.config.circuit_breaker.open_multiplier > 1,
    "three probes": lambda d: d.config.circuit_breaker.half_open_max_probes == 3,
    "three successes": lambda d: d.config.circuit_breaker.success_threshold == 3,
    "no total": lambda d: d.config.timeouts.total_timeout is None,
    **{f"on_capacity_exhausted={it}": lambda d, it=it: d.served.on_capacity_exhausted is it for it in CapacityPolicy},
    **{f"jitter={it}": lambda d, it=it: d.config.retry.jitter == it for it in ("none", "equal", "full", "decorrelated")},
    **{f"budget={it}": lambda d, it=it: d.spending is not None and d.spending.on_exceeded is it for it in BudgetAction},
    "a queue of one": lambda d: d.served.queue_capacity == 1,
    "a long queue": lambda d: d.served.queue_capacity == 1024,
    "two slots": lambda d: d.served.max_concurrent == 2,
    "64 slots": lambda d: d.served.max_concurrent == 64,
    "waits for circuits": lambda d: d.served.on_circuit_open == "wait",
    "ageing": lambda d: d.served.age_after is not None,
    "fair tenants": lambda d: d.served.fair_tenants,
}
OF_A_CALLER: dict[str, Callable[[CallerPlan], bool]] = {
    **{f"{it.name}": lambda c, it=it: c.priority is it for it in Priority},
    **{f"wait_for_circuit={it}": lambda c, it=it: c.wait_for_circuit is it for it in (None, True, False)},
    "a tenant": lambda c: c.tenant != "",
    "no tenant": lambda c: c.tenant == "",
    "a timeout": lambda c: c.timeout is not None,
    "leaves": lambda c: c.leaves_after is not None,
    "reads slowly": lambda c: c.reads_every > 0,
    "unary": lambda c: not c.stream,
    "does not limit the output": lambda c: not c.limits_output,
    "one token": lambda c: c.output_tokens == 1,
    "eight tokens": lambda c: c.output_tokens == 8,
}


def _lower(drawn: Plan, deployment: Deployment) -> bool:
    ours = deployment.config.rate_limits.requests_per_minute
    theirs = next(host for host in drawn.hosts if host.host == host_of(deployment)).limits
    return ours is not None and theirs is not None and (theirs.requests_per_minute or ours) < ours


def test_three_hundred_seeds_meet_everything() -> None:
    """Each mechanism in at least five of them, the scenarios taken in turn."""
    names = list(SCENARIOS)
    seen: Counter[str] = Counter()
    for seed in range(300):
        drawn = plan(names[seed % len(names)], seed, "requests" if seed % 2 else "bytes")
        seen.update(name for name, holds in OF_A_PLAN.items() if holds(drawn))
        seen.update(name for name, holds in OF_A_DEPLOYMENT.items() if any(map(holds, drawn.deployments)))
        seen.update(name for name, holds in OF_A_CALLER.items() if any(map(holds, drawn.callers)))
        seen.update({type(fault).__name__ for fault in met(drawn)})
        seen["long answers"] += any(caller.output_tokens > 30 for caller in drawn.callers)
    wanted = [*OF_A_PLAN, *OF_A_DEPLOYMENT, *OF_A_CALLER, *(kind.__name__ for kind in FAULTS if kind is not RotateKeys)]
    assert {name: seen[name] for name in [*wanted, "long answers"] if seen[name] < 5} == {}
    assert RotateKeys.__name__ not in seen, "the world rotates keys, so that its vault knows"


def test_hints_are_longer_than_anybody_waits_too() -> None:
    too_long = 0
    for drawn in plans("throttle_storm", "requests"):
        patience = min(deployment.config.retry.max_retry_after for deployment in drawn.deployments)
        hints = [float(f.retry_after) for f in met(drawn) if isinstance(f, Throttle) and (f.retry_after or "x").isdigit()]
        too_long += max(hints, default=0.0) > patience
    assert too_long >= 10


# ---- how long a recovery may take ---------------------------------------------------------------------------------------

HOST = "alpha.test"
CALM = Conditions(latency=0.0, jitter=0.0)
SETTINGS: dict[str, Any] = {
    "retry": {"max_retries": 2, "max_backoff": 4.0},
    "circuit_breaker": {"open_duration": 5.0, "max_open_duration": 9.0, "success_threshold": 2},
    "timeouts": {"connect_timeout": 1.0, "request_timeout": 2.0, "read_timeout": 3.0, "content_timeout": 3.0},
    "rate_limits": {"window": 1.0, "delivery_guard": 0.0},
}


def deployment(name: str = "chat", *, key: int = 0, serving: Any = None, budget: Any = None, **config: Any) -> Deployment:
    settings = {**SETTINGS, **config}
    return Deployment(
        name=name,
        model="gpt-4o",
        runtime_config={"endpoint": f"http://{HOST}/v1", "api_key": secret_of(HOST, key), **settings},
        serving=serving or {"max_concurrent": 1},
        budget=budget,
    )


def caller(number: int = 0, at: float = 1.0, **details: Any) -> CallerPlan:
    return CallerPlan(number, at, "chat", "hello", **{"output_tokens": 1, **details})


def made(*disturbances: Any, callers: tuple[CallerPlan, ...] = (caller(),), **changes: Any) -> Plan:
    """A plan by hand: one caller, one slot, and an answer takes a second."""
    details: dict[str, Any] = {
        "deployments": (deployment(),),
        "hosts": (HostPlan(HOST, first_byte_delay=0.5, token_delay=0.5),),
        "conditions": CALM,
        "seconds": 20.0,
    }
    return Plan("by hand", 1, "bytes", callers=callers, disturbances=disturbances, **{**details, **changes})


FAULT = Faults(0, 1.0, 2.0, HOST, ((Status(503), 0.5),))
FETCH, SPARE = 0.2, 1.0


def after_faults(seconds: float, probes: int = 4) -> float:
    """With the beats that the probes wait for."""
    return seconds + max(probes * BEAT, seconds * probes / (SLOWING - probes)) + SPARE


def test_where_nothing_fails_only_the_work_counts() -> None:
    attempt, pause, work, longest = 1.0, 4.0, 1.0, 1.0
    assert heal_bound(made()) == pytest.approx(attempt + pause + FETCH + work + longest + SPARE, abs=0.1)
    assert heal_bound(made(DrainNow(0, 3.0))) == heal_bound(made())
    assert heal_bound(made(callers=())) == pytest.approx(0.5 + 0.5 + pause + FETCH + 1.0 + SPARE, abs=0.1)


def test_the_last_failures_their_circuit_and_their_pauses_count() -> None:
    attempt, pause, work = 1.0 + 2.0 + 2 * 3.0, 4.0, 2.0
    circuit = 9.0 + 3 * 1.0
    usual = attempt + pause + circuit + FETCH + work
    assert heal_bound(made(FAULT)) == pytest.approx(after_faults(usual), abs=0.1)
    total = {**SETTINGS["timeouts"], "total_timeout": 3.5}
    quick = made(FAULT, deployments=(deployment(timeouts=total),))
    assert heal_bound(quick) == pytest.approx(after_faults(usual - attempt + 3.5), abs=0.1)
    for clock in ("connect_timeout", "content_timeout"):
        endless = made(FAULT, deployments=(deployment(timeouts={**SETTINGS["timeouts"], clock: None}),))
        assert heal_bound(endless) == math.inf
    opened = made(FAULT, Operate(1, 19.0, "chat", "open", 13.0), Operate(2, 19.0, "chat", "reset", 99.0))
    assert heal_bound(opened) == pytest.approx(after_faults(usual + 12.0 - 9.0), abs=0.1)
    silent = BadNetwork(1, 1.0, 2.0, HOST, Conditions(stalled=0.1, stall_seconds=7.0))
    assert heal_bound(made(FAULT, silent)) == pytest.approx(after_faults(usual + 7.0), abs=0.1)
    noisy = BadNetwork(1, 1.0, 2.0, HOST, Conditions(reset=0.1, stall_seconds=7.0))
    assert heal_bound(made(FAULT, noisy)) == heal_bound(made(FAULT))


@pytest.mark.parametrize(
    ("fault", "hint"),
    [
        (Throttle(retry_after="20"), 20.0),
        (Throttle(retry_after_ms="20500"), 20.5),
        (Throttle(reset="20s"), 20.0),
        (Throttle(retry_date=20.0), 21.0),
        (Throttle(retry_after="soon"), 0.0),
        (Status(503, headers=(("retry-after", "20"),)), 20.0),
        (DripBytes(1.0), 0.0),
    ],
)
def test_what_a_provider_asks_for_counts(fault: Fault, hint: float) -> None:
    attempt, work, recovers = 9.0, 2.0, 4.5 * isinstance(fault, Throttle)
    pause, circuit = max(4.0, 1.1 * hint), max(9.0, hint) + 3.0
    asks = made(replace(FAULT, rates=((fault, 0.1),)))
    assert heal_bound(asks) == pytest.approx(after_faults(attempt + pause + circuit + FETCH + work + recovers), abs=0.1)


def test_a_clock_that_was_set_back_must_catch_up() -> None:
    before = heal_bound(made(FAULT))
    back = ClockJump(1, 10.0, monotonic=-15.0)
    assert heal_bound(made(FAULT, back)) == pytest.approx(before + 5.0 * (1 + 4 / 36), abs=0.11)
    assert heal_bound(made(FAULT, ClockJump(1, 5.0, 100.0), replace(back, number=2))) > before + 5.0
    assert heal_bound(made(FAULT, ClockJump(1, 5.0, -3.0), ClockJump(2, 10.0, 300.0))) == before
    dated = replace(FAULT, rates=((Throttle(retry_date=5.0), 0.1),))
    wrong = made(dated, ClockJump(1, 5.0, wall=-60.0), ClockJump(2, 6.0, wall=-10.0), ClockJump(3, 7.0, wall=70.0))
    pause, circuit = 1.1 * 76.0, 76.0 + 3.0
    assert heal_bound(wrong) == pytest.approx(after_faults(9.0 + pause + circuit + FETCH + 2.0 + 4.5), abs=0.1)


def test_credentials_take_their_time_where_they_change() -> None:
    before = heal_bound(made(FAULT))
    calm = made(FAULT)
    longer = calm.session.refresh_timeout + calm.session.backoff.max_backoff + FETCH
    for changed in (
        made(FAULT, RotateKey(1, 2.0, HOST)),
        made(FAULT, VaultDown(1, 2.0, 3.0, HOST)),
        made(replace(FAULT, rates=((Status(401), 0.5),))),
        made(FAULT, hosts=(HostPlan(HOST, first_byte_delay=0.5, token_delay=0.5, key_lifetime=5.0),)),
    ):
        assert heal_bound(changed) == pytest.approx(before + longer * (1 + 4 / 36), abs=0.11)


def ten(**details: Any) -> tuple[CallerPlan, ...]:
    return tuple(caller(number, **details) for number in range(10))


def test_everybody_who_may_wait_is_served() -> None:
    one = heal_bound(made(callers=(caller(),)))
    assert heal_bound(made(callers=ten())) == pytest.approx(one + 9.0, abs=0.01)
    two = deployment(serving={"max_concurrent": 2})
    assert heal_bound(made(callers=ten(), deployments=(two,))) == pytest.approx(one + 4.0, abs=0.01)
    narrow = deployment(serving={"max_concurrent": 2}, rate_limits={**SETTINGS["rate_limits"], "concurrent_requests": 1})
    assert heal_bound(made(callers=ten(), deployments=(narrow,))) == pytest.approx(one + 9.0, abs=0.01)
    for action, slots in (("throttle", 1), ("warn", 2)):
        budget = {"max_spend_per_hour_usd": 1.0, "on_exceeded": action}
        spent = deployment(serving={"max_concurrent": 2}, budget=budget)
        assert heal_bound(made(callers=ten(), deployments=(spent,))) == pytest.approx(one - 1.0 + 10 / slots, abs=0.01)
    slow = made(callers=ten(reads_every=0.2))
    reading = 0.2 * 5
    assert heal_bound(slow) == pytest.approx(one - 1.0 + 10 * (1.0 + reading) + 2 * reading, abs=0.01)


def test_who_runs_out_of_time_waits_no_longer() -> None:
    patient, hurried = ten(), tuple(caller(10 + number, timeout=22.0) for number in range(10))
    gone_after = 1.0 + 22.0 - 20.0
    served = heal_bound(made(callers=patient))
    assert heal_bound(made(callers=(*patient, *hurried))) == pytest.approx(served + gone_after, abs=0.01)
    few = (*patient, caller(10, timeout=22.0))
    assert heal_bound(made(callers=few)) == pytest.approx(served + 1.0, abs=0.01), "all can be served in less than that"
    assert heal_bound(made(callers=(*patient, caller(10, timeout=3.0)))) == served, "it is gone already"


def limited(**limits: int) -> Deployment:
    return deployment(rate_limits={**SETTINGS["rate_limits"], **limits})


@pytest.mark.parametrize("name", ["tokens_per_minute", "input_tokens_per_minute", "output_tokens_per_minute"])
def test_tokens_are_had_at_the_pace_of_their_limit(name: str) -> None:
    before = heal_bound(made(callers=ten()))
    cost = len(caller().said) // 4 + 10 + 1
    windows = 2 * math.ceil(12 * cost / 100) + 1
    assert heal_bound(made(callers=ten(), deployments=(limited(**{name: 100}),))) == pytest.approx(
        before + windows, abs=0.11
    )
    untold = made(callers=ten(limits_output=False), deployments=(limited(**{name: 100}),))
    assert heal_bound(untold) == pytest.approx(before + 12 + 1, abs=0.11)
    nobody = made(callers=(), deployments=(limited(**{name: 100}),))
    assert heal_bound(nobody) == heal_bound(made(callers=()))


def test_requests_are_had_at_the_pace_of_their_limit() -> None:
    before = heal_bound(made(callers=ten()))
    assert heal_bound(made(callers=ten(), deployments=(limited(requests_per_minute=3),))) == pytest.approx(
        before + math.ceil(12 / 3), abs=0.01
    )


def theirs(requests: int | None, tokens: int | None = None, window: float = 1.0) -> dict[str, Any]:
    return {"hosts": (HostPlan(HOST, ProviderLimits(requests, tokens, window), first_byte_delay=0.5, token_delay=0.5),)}


def test_a_provider_that_allows_less_than_we_do_costs_attempts() -> None:
    ours = (limited(requests_per_minute=8),)
    alike = heal_bound(made(callers=ten(), deployments=ours, **theirs(8)))
    assert alike == heal_bound(made(callers=ten(), deployments=ours))
    fewer = heal_bound(made(callers=ten(), deployments=ours, **theirs(4)))
    attempts, at_a_quarter, recovery = 3 * 10, 2, 4.5
    extra = (attempts - 10) * 1.0 + math.ceil((attempts + 2) / at_a_quarter) - math.ceil(12 / 8) + recovery
    assert fewer == pytest.approx(alike + extra, abs=0.11)
    unheard = heal_bound(made(callers=ten(), deployments=ours, **theirs(8, 500)))
    assert unheard > fewer, "they count what we do not"
    longer = heal_bound(made(callers=ten(), deployments=ours, **theirs(8, window=2.0)))
    assert longer == pytest.approx(fewer, abs=0.11), "twice the window is half the rate"
    two_keys = (limited(requests_per_minute=8), replace(limited(requests_per_minute=8), name="batch"))
    of_two_keys = replace(two_keys[1], runtime_config=replace(two_keys[1].config, api_key=secret_of(HOST, 1)))
    shared = heal_bound(made(callers=ten(), deployments=two_keys, **theirs(8)))
    apart = heal_bound(made(callers=ten(), deployments=(two_keys[0], of_two_keys), **theirs(8)))
    assert shared < fewer < apart + 0.11 and apart == pytest.approx(fewer, abs=0.11)


def test_a_host_that_nobody_describes_is_an_ordinary_one() -> None:
    plain = replace(made(), hosts=())
    assert heal_bound(plain) == heal_bound(replace(plain, hosts=(HostPlan(HOST),)))


# ---- who is never throttled ---------------------------------------------------------------------------------------------

GUARDED = {"requests_per_minute": 8, "tokens_per_minute": 400, "window": 2.0, "delivery_guard": 1.0}


def guarded(name: str = "chat", key: int = 0, **limits: Any) -> Deployment:
    return deployment(name, key=key, rate_limits={**GUARDED, **limits})


def quiet(*disturbances: Any, **changes: Any) -> Plan:
    details = {"deployments": (guarded(),), "conditions": Conditions(0.1, 0.05), **theirs(8, 400, 2.0)}
    return made(*disturbances, **{**details, **changes})


def test_equal_limits_never_throttle() -> None:
    assert delivery_seconds(Conditions(0.1, 0.05)) == pytest.approx(0.9)
    assert never_throttles(quiet())
    assert never_throttles(quiet(FAULT, DrainNow(1, 3.0), RotateKey(2, 3.0, HOST), Operate(3, 3.0, "chat", "reset")))
    assert never_throttles(quiet(**theirs(9, 500, 2.0)))
    assert never_throttles(quiet(**theirs(8, None, 2.0), callers=(caller(limits_output=False),)))
    assert never_throttles(quiet(deployments=(guarded(), guarded("batch"))))
    other = replace(guarded("batch", 1), model="gpt-4o-mini")
    assert never_throttles(quiet(deployments=(guarded(), other))), "each model has a limit of its own"


@pytest.mark.parametrize(
    "not_so",
    [
        made(),
        quiet(BadNetwork(0, 1.0, 2.0, HOST, Conditions())),
        quiet(ClockJump(0, 1.0, 2.0)),
        quiet(pool=PoolConfig(max_connections_per_origin=64)),
        quiet(deployments=(guarded(), guarded("batch", 1))),
        quiet(callers=(caller(), caller(1, limits_output=False))),
        quiet(deployments=(guarded(window=2.5),)),
        quiet(deployments=(guarded(delivery_guard=0.8),)),
        quiet(deployments=(guarded(requests_per_minute=9),)),
        quiet(deployments=(guarded(tokens_per_minute=None),)),
        quiet(deployments=(guarded(tokens_per_minute=401),)),
    ],
    ids=["no limits", "bad network", "a leap", "a small pool", "two keys", "an untold answer", "another window",
         "a small guard", "more requests", "tokens unheard of", "more tokens"],
)  # fmt: skip
def test_anything_else_may_throttle(not_so: Plan) -> None:
    assert not never_throttles(not_so)


@pytest.mark.parametrize("level", LEVELS)
def test_what_promises_never_to_throttle_does_not(level: Level) -> None:
    for seed in range(6):
        drawn = plan("steady", seed, level)
        assert drawn.throttle_free
        report = run(drawn)
        assert report.violation is None and report.throttled_by_limit == 0


def test_a_drained_engine_may_leave_its_circuit_open() -> None:
    """Nobody is left who could find out that the provider is well again."""
    breaker = {"failure_threshold": 3, "open_duration": 500.0, "max_open_duration": 500.0}
    callers = tuple(caller(number, at=1.0 + number, timeout=20.0) for number in range(10))
    down = replace(FAULT, seconds=19.0, rates=((Status(503), 1.0),))
    drawn = made(down, DrainNow(1, 12.0), callers=callers, deployments=(deployment(circuit_breaker=breaker),))
    report = run(drawn)
    assert report.violation is None
    assert report.circuit_transitions == {"closed->open": 1}


# ---- what a plan may hold -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: caller(-1), "number: -1"),
        (lambda: caller(at=-0.1), "at: -0.1"),
        (lambda: caller(at=math.nan), "at: nan"),
        (lambda: caller(output_tokens=-1), "output_tokens: -1"),
        (lambda: caller(output_tokens=100_001), "output_tokens: 100001 is more than 100000"),
        (lambda: caller(reads_every=-1.0), "reads_every: -1.0"),
        (lambda: caller(timeout=0.0), "timeout: 0.0"),
        (lambda: caller(leaves_after=-1.0), "leaves_after: -1.0"),
        (lambda: caller(priority=2), "priority: 2 is not a Priority"),
        (lambda: Conditions(latency=-1.0), "latency: -1.0"),
        (lambda: Conditions(jitter=math.inf), "jitter: inf"),
        (lambda: Conditions(stall_seconds=-1.0), "stall_seconds: -1.0"),
        (lambda: Conditions(refused=1.1), "refused: 1.1 is not a probability from 0 to 1"),
        (lambda: Conditions(lost=-0.1), "lost: -0.1 is not a probability"),
        (lambda: Conditions(reset=math.nan), "reset: nan is not a probability"),
        (lambda: Conditions(stalled=True), "stalled: True is not a probability"),
        (lambda: Conditions(reset_within=-1), "reset_within: -1"),
        (lambda: Conditions(piece_bytes=0), "piece_bytes: 0"),
        (lambda: replace(FAULT, number=-1), "number: -1"),
        (lambda: replace(FAULT, at=-1.0), "at: -1.0"),
        (lambda: replace(FAULT, seconds=-1.0), "seconds: -1.0"),
        (lambda: replace(FAULT, rates=(("503", 0.5),)), "rates: '503' is not a Fault"),
        (lambda: replace(FAULT, rates=((Status(503), "0.5"),)), "rates: '0.5' is not a probability"),
        (lambda: replace(FAULT, rates=((Status(503), 0.6), (SlowTokens(1.0), 0.6))), "rates: add up to 1.2, more than 1"),
        (lambda: BadNetwork(0, -1.0, 1.0, HOST, CALM), "at: -1.0"),
        (lambda: RotateKey(0, 1.0, HOST, -1.0), "vault_lag: -1.0"),
        (lambda: RotateKey(0, -1.0, HOST), "at: -1.0"),
        (lambda: VaultDown(0, 1.0, -1.0, HOST), "seconds: -1.0"),
        (lambda: ClockJump(0, -1.0), "at: -1.0"),
        (lambda: ClockJump(0, 1.0, monotonic=math.nan), "monotonic: nan"),
        (lambda: ClockJump(0, 1.0, wall=-math.inf), "wall: -inf"),
        (lambda: Operate(0, -1.0, "chat", "open"), "at: -1.0"),
        (lambda: Operate(0, 1.0, "chat", cast(Any, "shut")), "action: 'shut' is none of rebuild, open, close, reset"),
        (lambda: DrainNow(-2, 1.0), "number: -2"),
        (lambda: HostPlan(HOST, first_byte_delay=-1.0), "first_byte_delay: -1.0"),
        (lambda: HostPlan(HOST, token_delay=-1.0), "token_delay: -1.0"),
        (lambda: HostPlan(HOST, key_lifetime=0.0), "key_lifetime: 0.0"),
        (lambda: replace(made(), level="atoms"), "level: 'atoms' is none of bytes, requests"),
        (lambda: replace(made(), seed=-1), "seed: -1"),
        (lambda: replace(made(), seconds=0.0), "seconds: 0.0"),
        (lambda: replace(made(), heal_within=math.inf), "heal_within: inf"),
        (lambda: replace(made(), deployments=()), "deployments: is empty"),
        (lambda: made(callers=(caller(3), caller(3))), "callers: the number 3 is given twice"),
        (lambda: made(FAULT, FAULT), "disturbances: the number 0 is given twice"),
        (lambda: made(callers=(replace(caller(), deployment="chatter"),)), "callers: 'chatter' is none of .* chat"),
        (lambda: made(Operate(0, 1.0, "chatter", "open")), "disturbances: 'chatter' is none of .* chat"),
        (lambda: made(replace(FAULT, host="gamma.test")), "disturbances: 'gamma.test' is none of .* alpha.test"),
        (lambda: made(VaultDown(0, 1.0, 1.0, "gamma.test")), "disturbances: 'gamma.test'"),
        (lambda: made(hosts=(HostPlan("gamma.test"),)), "hosts: 'gamma.test' is none of .* alpha.test"),
    ],
)  # fmt: skip
def test_what_a_plan_cannot_mean_is_refused_by_its_field(make: Callable[[], object], told: str) -> None:
    with pytest.raises(ValueError, match=f"^{told}"):
        make()
