"""What goes wrong: families of faults, and disturbances made of them. Numbers are given out at the end (`numbered`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from random import Random
from typing import Final

from ..provider.fault import Fault
from ..provider.faults import (
    Break,
    CloseOnReuse,
    CloseWithoutResponse,
    DoneWithoutFinish,
    DripBytes,
    ErrorFrame,
    GarbageBytes,
    GoAway,
    NeverRespond,
    OversizedEvent,
    OversizedHeader,
    PingsOnly,
    RefuseStream,
    ResetAtByte,
    SlowFirstByte,
    SlowTokens,
    StallAfterChunks,
    StallAfterHead,
    Status,
    Throttle,
    Truncate,
    WrongContentType,
)
from ..world.plan import ACTIONS, BadNetwork, Disturbance, Faults, Operate, RotateKey
from .scenario import Site, maybe

LONGEST_HINT: Final = 14.0
"""Seconds. No scripted 429 asks for more."""

Family = Callable[[Random], list[Fault]]
"""Faults of a kind, drawn anew at each call."""


def refusals(rng: Random) -> list[Fault]:
    """What a provider says that is down."""
    return [
        Status(503),
        Status(500),
        Status(529),
        Status.html(502),
        Status(503, headers=(("retry-after", str(rng.randint(1, 4))),)),
        Status(504, "upstream timed out", "text/plain"),
        CloseWithoutResponse(),
    ]


def throttles(rng: Random) -> list[Fault]:
    """429s, with hints of every form: none, short, longer than anybody waits, unreadable, dates, resets."""
    return [
        Throttle(),
        Throttle(retry_after=str(rng.randint(1, 5))),
        Throttle(retry_after=f"{rng.uniform(0.1, 3.0):.2f}"),
        Throttle(retry_after=str(rng.randint(6, int(LONGEST_HINT)))),
        Throttle(retry_after="soon"),
        Throttle(retry_after="0"),
        Throttle(retry_after_ms=str(rng.randint(20, 4_000))),
        Throttle(retry_after="9", retry_after_ms=str(rng.randint(100, 900))),
        Throttle(retry_date=round(rng.uniform(0.5, 5.0), 2), date_form=rng.choice(("imf", "rfc850", "asctime"))),
        Throttle(reset=f"{rng.randint(100, 3_000)}ms"),
        Throttle(should_retry=False, retry_after="1"),
        Throttle(body=rng.choice(("slow_down", "html", "text", "empty")), retry_after=str(rng.randint(1, 3))),
    ]


def dated_throttles(rng: Random) -> list[Fault]:
    """429s whose hint is a date, which a wrong clock misreads."""
    return [
        Throttle(retry_date=round(rng.uniform(0.0, 5.0), 2), date_form="imf"),
        Throttle(retry_date=round(rng.uniform(0.0, 3.0), 2), date_form="rfc850"),
        Throttle(retry_date=round(rng.uniform(2.0, 8.0), 2), date_form="asctime"),
    ]


def slowness(rng: Random) -> list[Fault]:
    """Answers that come late, slowly, in drops, or never."""
    return [
        SlowFirstByte(round(rng.uniform(0.3, 6.0), 2)),
        SlowFirstByte(round(rng.uniform(0.3, 2.0), 2)),
        NeverRespond(),
        StallAfterHead(rng.choice((None, 0.5, 2.0))),
        StallAfterChunks(rng.randint(0, 4), rng.choice((None, 0.7, 2.5))),
        PingsOnly(round(rng.uniform(0.3, 1.5), 2), rng.choice((None, 2, 5))),
        SlowTokens(round(rng.uniform(0.1, 1.5), 2)),
        DripBytes(round(rng.uniform(0.02, 0.3), 3)),
    ]


def breakages(rng: Random) -> list[Fault]:
    """Answers that break off or turn to garbage, before the commit point and after it."""
    return [
        Truncate(rng.randint(0, 4)),
        Break(rng.randint(0, 4)),
        ResetAtByte(rng.choice((0, rng.randint(1, 400), rng.randint(400, 2_000)))),
        DoneWithoutFinish(),
        ErrorFrame(rng.randint(0, 3), then_done=maybe(rng, 0.3)),
        GarbageBytes("head"),
        GarbageBytes("body", rng.randint(0, 3)),
        GarbageBytes("sse", rng.randint(0, 3)),
        WrongContentType(),
        OversizedHeader(70_000),
        OversizedEvent(30_000),
        OversizedEvent(70_000),
        CloseWithoutResponse(),
    ]


def farewells(rng: Random) -> list[Fault]:
    """What is lost before the server looked at it."""
    return [CloseOnReuse(maybe(rng, 0.5)), CloseOnReuse(maybe(rng, 0.5)), RefuseStream(), GoAway()]


def blames(rng: Random) -> list[Fault]:
    """Answers that blame the key, the purse or the request."""
    return [
        Status(401),
        Status(403),
        Status(402),
        Throttle(body="quota"),
        Status(400),
        Status(404),
        Status(408),
        Status(409),
        Throttle(body="too_large"),
        Status(rng.choice((418, 451, 204, 302))),
    ]


FAMILIES: Final[tuple[Family, ...]] = (refusals, throttles, slowness, breakages, farewells, blames)
"""Every kind. `RotateKeys` is left out: keys are rotated by the world, so that its vault knows."""


def faults(
    rng: Random, host: str, at: float, seconds: float, families: Sequence[Family], rate: float, *, kinds: int = 6
) -> Faults:
    """For a while a part of the requests, ``rate`` in all, meets up to ``kinds`` faults of these families."""
    pool = [fault for family in families for fault in family(rng)]
    chosen = rng.sample(pool, min(kinds, len(pool)))
    weights = [rng.uniform(0.2, 1.0) for _ in chosen]
    scale = rate / sum(weights)
    rates = tuple((fault, weight * scale) for fault, weight in zip(chosen, weights, strict=True))
    return Faults(0, round(at, 3), round(seconds, 3), host, rates)


def bad_network(rng: Random, site: Site, host: str, at: float, seconds: float, *, rate: float) -> BadNetwork:
    """For a while the network loses, refuses, resets or stalls a part of the connections, ``rate`` or less of each."""
    refused, lost, reset, stalled = (rng.uniform(0.0, rate) if maybe(rng, 0.6) else 0.0 for _ in range(4))
    conditions = replace(
        site.conditions,
        latency=round(site.conditions.latency * rng.uniform(1.0, 4.0), 5),
        jitter=round(site.conditions.jitter + rng.uniform(0.0, 0.3), 5),
        refused=round(refused, 3),
        lost=round(lost, 3),
        reset=round(reset, 3),
        reset_within=rng.choice((300, 1_500, 6_000)),
        stalled=round(stalled, 3),
        stall_seconds=round(rng.uniform(0.5, 12.0), 2),
        piece_bytes=rng.choice((60, 300, 1_400)),
    )
    return BadNetwork(0, round(at, 3), round(seconds, 3), host, conditions)


def unreachable(rng: Random, site: Site, host: str, at: float, seconds: float) -> BadNetwork:
    """For a while nobody gets through. Either dials are refused and connections reset, or (a black hole) nothing is heard of
    either."""
    if maybe(rng, 0.6):
        conditions = replace(site.conditions, refused=1.0, reset=1.0, reset_within=0)
    else:
        conditions = replace(site.conditions, lost=1.0, stalled=1.0, reset_within=0, stall_seconds=round(seconds, 3))
    return BadNetwork(0, round(at, 3), round(seconds, 3), host, conditions)


def outage(rng: Random, site: Site, host: str, at: float, seconds: float) -> Disturbance:
    """For a while a provider is down, one way or the other."""
    way = rng.choice(("unreachable", "refuses", "refuses", "503"))
    if way == "unreachable":
        return unreachable(rng, site, host, at, seconds)
    if way == "refuses":
        return faults(rng, host, at, seconds, (refusals,), 1.0)
    return Faults(0, round(at, 3), round(seconds, 3), host, ((Status(503), 1.0),))


def operations(rng: Random, site: Site, seconds: float, count: int) -> list[Disturbance]:
    """What an operator does now and then."""
    return [
        Operate(
            0,
            round(rng.uniform(0.1, 0.9) * seconds, 3),
            rng.choice(site.names),
            rng.choice(ACTIONS),
            round(rng.uniform(0.2, 6.0), 3),
        )
        for _ in range(count)
    ]


def a_little_of_everything(rng: Random, site: Site, seconds: float) -> list[Disturbance]:
    """Small troubles beside the great one, so that seeds meet combinations nobody thought of."""
    found: list[Disturbance] = []
    for host in site.hosts:
        at, lasts = rng.uniform(0.0, 0.7) * seconds, rng.uniform(0.1, 0.3) * seconds
        if maybe(rng, 0.6):
            found.append(faults(rng, host.host, at, lasts, FAMILIES, rng.uniform(0.01, 0.1)))
        if maybe(rng, 0.2):
            found.append(bad_network(rng, site, host.host, rng.uniform(0.0, 0.8) * seconds, lasts / 2, rate=0.2))
        if maybe(rng, 0.12):
            found.append(RotateKey(0, round(rng.uniform(0.1, 0.9) * seconds, 3), host.host, rng.choice((0.0, 0.0, 1.0))))
    if maybe(rng, 0.15):
        found += operations(rng, site, seconds, rng.randint(1, 2))
    return found


def numbered(disturbances: Iterable[Disturbance]) -> tuple[Disturbance, ...]:
    """In the order in which they come, numbered from 0."""
    in_order = sorted(disturbances, key=lambda each: each.at)
    return tuple(replace(each, number=number) for number, each in enumerate(in_order))


def has_dates(disturbances: Iterable[Disturbance]) -> bool:
    """Whether somebody is going to be told to wait until a date."""
    met = (fault for each in disturbances if isinstance(each, Faults) for fault, _ in each.rates)
    return any(isinstance(fault, Throttle) and fault.retry_date is not None for fault in met)
