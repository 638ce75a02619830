"""The clusters by name, and the plans that are drawn from a seed: a configuration, a demand, and what goes wrong."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from random import Random
from typing import Final

from ...cluster.config import ClusterConfig, OnSilence, OnStoreLost, SharingMode
from ...rate_limit import RateLimits
from ..scenarios.scenario import maybe
from ..world.clock import chance
from . import troubles as trouble
from .bounds import longest_delay
from .demands import PROFILES
from .plan import FASTEST_DRIFT, ClusterPlan, Demand, Life, Trouble

_URL: Final = "redis://store"

_COUNTS: Final = (2, 2, 2, 3, 3, 3, 4, 4, 5, 5, 6, 6, 7, 8, 10, 12, 16, 32)
"""How many processes there are at the beginning."""

_MANY: Final = 6
_LEAST_EACH: Final = 40
"""A limit allows so many requests in a window for each of them: else what one keeps ready is much of it."""


@dataclass(frozen=True, slots=True)
class ClusterScenario:
    """A way to share a limit. ``about``: one sentence."""

    name: str
    about: str
    mode: SharingMode
    strict: bool = False


CLUSTERS: Final[dict[str, ClusterScenario]] = {
    scenario.name: scenario
    for scenario in (
        ClusterScenario("cluster_approximate", "Processes share a limit by what they hear of each other.",
                        SharingMode.APPROXIMATE),
        ClusterScenario("cluster_escrow", "Processes share a limit as rights that are handed over, and never exceed it.",
                        SharingMode.ESCROW),
        ClusterScenario("cluster_strict", "Processes share one ledger in the store, to the last request.",
                        SharingMode.APPROXIMATE, strict=True),
    )
}  # fmt: skip
"""Every scenario of a cluster."""


def cluster_plan(scenario: str, seed: int) -> ClusterPlan:
    """The plan of a seed. Raises `ValueError` for a scenario that is not known."""
    found = CLUSTERS.get(scenario)
    if found is None:
        near = difflib.get_close_matches(str(scenario), CLUSTERS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(CLUSTERS)}"
        raise ValueError(f"scenario: {scenario!r} is unknown; {hint}")
    rng = chance(seed, "cluster", scenario)
    count = rng.choice(_COUNTS)
    tokens, per_window = rng.choice((20, 100, 1000)), max(_LEAST_EACH * count, rng.choice((150, 300, 600)))
    limits = _limits(rng, tokens, per_window, found.strict)
    cluster = _configured(rng, found, limits, count)
    span = limits.window + limits.delivery_guard
    seconds = rng.uniform(6.0, 12.0) * span
    drifting, wrong = rng.choice((0.0, FASTEST_DRIFT)), rng.choice((0.0, 30.0))
    lives = [
        Life(
            number,
            maybe(rng, 0.3) * rng.uniform(0.0, 2.0 * span),
            drifting * rng.uniform(-1.0, 1.0),
            rng.uniform(-wrong, wrong),
        )
        for number in range(count)
    ]
    lease = cluster.lease_for(limits.window)
    shares = found.mode is SharingMode.APPROXIMATE and not found.strict
    loses, splits = found.strict or (shares and maybe(rng, 0.2)), shares and maybe(rng, 0.3)
    scene = trouble.Scene(seconds, span, lease, cluster.store_timeout, loses, splits)
    struck: list[Trouble] = []
    if maybe(rng, 0.7):
        born, struck = trouble.ends(rng, scene, lives)
        lives += born
    struck += trouble.wall_clocks(rng, scene, lives)
    for kind in (trouble.sleeps, trouble.partitions):
        struck += kind(rng, scene, lives) if maybe(rng, 0.5) else []
    for weather in (trouble.bad_ways, trouble.gone_stores):
        struck += weather(rng, scene) if maybe(rng, 0.6) else []
    delay = longest_delay(limits, [life.drift for life in lives])
    return ClusterPlan(
        scenario=scenario,
        seed=seed,
        limits=limits,
        cluster=cluster,
        lives=tuple(lives),
        demands=_demands(rng, lives, seconds, span, tokens, per_window),
        troubles=trouble.numbered(struck),
        seconds=seconds,
        error=rng.choice((0.0, 0.5)),
        answers_after=span * rng.choice((0.005, 0.02, 0.05)),
        delay=delay * rng.choice((0.2, 1.0)),
        hot=rng.randrange(64),
        bias=rng.choice((1.0, 1.0, 0.7)),
        tokens=tokens,
    )


def _limits(rng: Random, tokens: int, per_window: int, strict: bool) -> RateLimits:
    """Limits of which one dimension or another is the narrow one."""
    window = rng.choice((2.0, 4.0, 8.0))
    kind = rng.randrange(6)
    narrow, wide = per_window, 2 * per_window
    return RateLimits(
        requests_per_minute=(narrow, None, narrow, wide, None, narrow)[kind],
        tokens_per_minute=(None, narrow * tokens, wide * tokens, narrow * tokens, None, None)[kind],
        input_tokens_per_minute=narrow * tokens // 2 if kind == 4 else None,
        output_tokens_per_minute=wide * tokens // 2 if kind == 4 else None,
        concurrent_requests=max(8, per_window // 4) if kind == 5 or maybe(rng, 0.2) else None,
        burst=max(1, narrow // 3) if kind == 0 and maybe(rng, 0.5) else None,
        delivery_guard=window * rng.uniform(0.03, 0.12),
        window=window,
        strict=strict,
    )


def _configured(rng: Random, found: ClusterScenario, limits: RateLimits, count: int) -> ClusterConfig:
    """How the processes share. Where there are many, they ask less often."""
    local = maybe(rng, 0.25) and limits.concurrent_requests is None and limits.burst is None
    often = (8.0, 15.0, 30.0) if count <= _MANY else (4.0, 8.0)
    interval = None if count <= _MANY and maybe(rng, 0.5) else limits.window / rng.choice(often)
    return ClusterConfig(
        _URL,
        mode=found.mode,
        on_store_lost=OnStoreLost.LOCAL_SHARE if local else OnStoreLost.FAIL_CLOSED,
        local_share=0.02 if local else 0.0,
        withheld=rng.choice((0.1, 0.5)) if local else 0.0,
        on_silence=OnSilence.EXPAND if maybe(rng, 0.2) else OnSilence.FREEZE,
        interval=interval,
        lease=limits.window * rng.choice((0.25, 1.0)) if maybe(rng, 0.4) else None,
        store_timeout=limits.window * rng.choice((0.05, 0.25)),
    )


def _demands(
    rng: Random, lives: list[Life], seconds: float, span: float, tokens: int, per_window: int
) -> tuple[Demand, ...]:
    numbers = [life.number for life in lives]
    wishes = rng.choice(PROFILES)(rng, numbers, seconds, span)
    big = 0.02 if maybe(rng, 0.3) else 0.0
    times = rng.choice((5.0, 20.0))
    rate = per_window / span / (1.0 + big * (times - 1.0))
    return tuple(
        Demand(number, each.at, each.seconds, each.life, each.times * rate, tokens, 0.5, big, times)
        for number, each in enumerate(wishes)
    )
