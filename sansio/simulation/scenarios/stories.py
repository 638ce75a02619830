"""What happens in each scenario: a site, a crowd, and its own kind of trouble."""

from __future__ import annotations

from random import Random

from ...queue import Priority
from ..world.plan import ClockJump, Disturbance, DrainNow, HostPlan, Level, RotateKey, VaultDown
from . import trouble
from .scenario import Site, Story, maybe
from .sites import Wishes, draw_site
from .traffic import Crowd, at_once, evenly, gather, how_long, how_many, in_bursts, in_some_way


def steady(rng: Random, level: Level) -> Story:
    """Nothing goes wrong but jitter, callers who leave and slow readers. Everybody says how long the answer may be, so that
    nothing costs more than was reserved."""
    count, seconds = how_many(rng, level), how_long(rng, level)
    site = draw_site(rng, level, count / seconds, Wishes(limits="equal", short_lived_keys=0.0, fails=False))
    crowd = Crowd(site.names, unlimited=0.0)
    callers = gather(rng, site, [(crowd, in_some_way(rng, count, 0.0, seconds))])
    return Story(seconds, site, callers)


def outage(rng: Random, level: Level) -> Story:
    """One or both providers are down for a while."""
    count, seconds = how_many(rng, level), how_long(rng, level)
    site = draw_site(rng, level, count / seconds, Wishes())
    disturbances = trouble.a_little_of_everything(rng, site, seconds)
    for host in _some(rng, site):
        disturbances.append(trouble.outage(rng, site, host.host, *_while(rng, seconds, 0.2, 0.5)))
    callers = gather(rng, site, [(Crowd(site.names), in_some_way(rng, count, 0.0, seconds))])
    return Story(seconds, site, callers, tuple(disturbances))


def brownout(rng: Random, level: Level) -> Story:
    """For most of the time a part of the requests fails or is slow."""
    count, seconds = how_many(rng, level), how_long(rng, level)
    site = draw_site(rng, level, count / seconds, Wishes())
    disturbances = trouble.a_little_of_everything(rng, site, seconds)
    for host in _some(rng, site):
        families = rng.sample((trouble.refusals, trouble.slowness, trouble.breakages), 2)
        at, lasts = _while(rng, seconds, 0.5, 0.9)
        disturbances.append(trouble.faults(rng, host.host, at, lasts, families, rng.uniform(0.15, 0.9), kinds=8))
        if maybe(rng, 0.3):
            disturbances.append(trouble.bad_network(rng, site, host.host, at, lasts, rate=0.3))
    callers = gather(rng, site, [(Crowd(site.names), in_some_way(rng, count, 0.0, seconds))])
    return Story(seconds, site, callers, tuple(disturbances))


def throttle_storm(rng: Random, level: Level) -> Story:
    """The provider's limits are lower than ours, or it answers 429 whatever we do, or both."""
    count, seconds = how_many(rng, level), how_long(rng, level)
    lower = maybe(rng, 0.6)
    site = draw_site(rng, level, count / seconds, Wishes(limits="lower" if lower else "any"))
    disturbances = trouble.a_little_of_everything(rng, site, seconds)
    for host in site.hosts:
        for _ in range(rng.randint(1, 3)):
            at, lasts = _while(rng, seconds, 0.05, 0.4)
            rate = rng.choice((0.1, 0.5, 1.0))
            disturbances.append(trouble.faults(rng, host.host, at, lasts, (trouble.throttles,), rate, kinds=5))
    callers = gather(rng, site, [(Crowd(site.names), in_some_way(rng, count, 0.0, seconds))])
    return Story(seconds, site, callers, tuple(disturbances))


def key_rotation(rng: Random, level: Level) -> Story:
    """Keys change several times, expire, and are not to be had at times."""
    count, seconds = how_many(rng, level), how_long(rng, level)
    site = draw_site(rng, level, count / seconds, Wishes(short_lived_keys=0.5))
    disturbances = trouble.a_little_of_everything(rng, site, seconds)
    for host in site.hosts:
        for _ in range(rng.randint(1, 4)):
            lag = rng.choice((0.0, 0.0, 0.0, rng.uniform(0.05, 0.5), rng.uniform(0.5, 5.0)))
            disturbances.append(RotateKey(0, round(rng.uniform(0.02, 0.9) * seconds, 3), host.host, round(lag, 3)))
        for _ in range(rng.randint(0, 2)):
            at, lasts = _while(rng, seconds, 0.03, 0.25)
            disturbances.append(VaultDown(0, at, lasts, host.host, maybe(rng, 0.4)))
        if maybe(rng, 0.3):
            at, lasts = _while(rng, seconds, 0.1, 0.4)
            disturbances.append(trouble.faults(rng, host.host, at, lasts, (trouble.blames,), rng.uniform(0.02, 0.15)))
    disturbances += trouble.operations(rng, site, seconds, rng.randint(0, 2))
    callers = gather(rng, site, [(Crowd(site.names), in_some_way(rng, count, 0.0, seconds))])
    return Story(seconds, site, callers, tuple(disturbances))


def slow_provider(rng: Random, level: Level) -> Story:
    """Answers come late, slowly, in drops, or never, and the clocks of an attempt decide."""
    count, seconds = how_many(rng, level), how_long(rng, level)
    site = draw_site(rng, level, count / seconds, Wishes())
    disturbances = trouble.a_little_of_everything(rng, site, seconds)
    for host in site.hosts:
        at, lasts = _while(rng, seconds, 0.3, 0.9)
        disturbances.append(trouble.faults(rng, host.host, at, lasts, (trouble.slowness,), rng.uniform(0.2, 0.95), kinds=6))
    crowd = Crowd(site.names, slow=0.15, leaving=0.1)
    callers = gather(rng, site, [(crowd, in_some_way(rng, count, 0.0, seconds))])
    return Story(seconds, site, callers, tuple(disturbances))


def broken_streams(rng: Random, level: Level) -> Story:
    """Answers break at any byte, before the commit point and after it."""
    count, seconds = how_many(rng, level), how_long(rng, level)
    site = draw_site(rng, level, count / seconds, Wishes())
    disturbances = trouble.a_little_of_everything(rng, site, seconds)
    for host in site.hosts:
        at, lasts = _while(rng, seconds, 0.4, 0.9)
        families = (trouble.breakages, trouble.farewells)
        disturbances.append(trouble.faults(rng, host.host, at, lasts, families, rng.uniform(0.2, 0.9), kinds=9))
        if maybe(rng, 0.6):
            at, lasts = _while(rng, seconds, 0.1, 0.5)
            disturbances.append(trouble.bad_network(rng, site, host.host, at, lasts, rate=0.5))
    crowd = Crowd(site.names, unary=0.2)
    callers = gather(rng, site, [(crowd, in_some_way(rng, count, 0.0, seconds))])
    return Story(seconds, site, callers, tuple(disturbances))


def noisy_neighbour(rng: Random, level: Level) -> Story:
    """One tenant floods, once or for long; the others come evenly."""
    count, seconds = how_many(rng, level), how_long(rng, level)
    site = draw_site(rng, level, count / seconds, Wishes(room=maybe(rng, 0.5), fair_tenants=0.6))
    loud = int(count * rng.uniform(0.4, 0.75))
    flood = Crowd(
        site.names if maybe(rng, 0.5) else site.names[:1],
        tenants=("flood",),
        priorities=rng.choice(((Priority.NORMAL,), (Priority.BACKGROUND, Priority.NORMAL), tuple(Priority))),
        hurried=rng.choice((0.0, 0.5)),
    )
    times = rng.choice((at_once, in_bursts, evenly))(rng, loud, 0.05 * seconds, 0.8 * seconds)
    others = Crowd(site.names, tenants=("acme", "blue", "coral"))
    callers = gather(rng, site, [(flood, times), (others, evenly(rng, count - loud, 0.0, seconds))])
    return Story(seconds, site, callers, tuple(trouble.a_little_of_everything(rng, site, seconds)))


def thundering_herd(rng: Random, level: Level) -> Story:
    """Everybody waits out an outage, which ends well before the phase does: the herd comes back in it."""
    count, seconds = how_many(rng, level), how_long(rng, level)
    site = draw_site(rng, level, count / seconds, Wishes(room=True, outlasts=0.8))
    disturbances: list[Disturbance] = []
    if maybe(rng, 0.5):
        disturbances += trouble.a_little_of_everything(rng, site, seconds)
    at = rng.uniform(0.05, 0.2) * seconds
    for host in site.hosts:
        lasts = rng.uniform(0.25, 0.4) * seconds
        disturbances.append(trouble.outage(rng, site, host.host, round(at, 3), round(lasts, 3)))
    waits = (True, True, True, None) if maybe(rng, 0.7) else (None,)
    crowd = Crowd(site.names, hurried=rng.choice((0.0, 0.2)), longest_timeout=seconds, waits=waits)
    herd = int(count * rng.uniform(0.6, 0.9))
    times = evenly(rng, herd, at, at + 0.3 * seconds) + evenly(rng, count - herd, 0.0, seconds)
    return Story(seconds, site, gather(rng, site, [(crowd, times)]), tuple(disturbances))


def drain_under_load(rng: Random, level: Level) -> Story:
    """The engine is drained while callers come, wait and stream."""
    count, seconds = how_many(rng, level), how_long(rng, level)
    site = draw_site(rng, level, count / seconds, Wishes(room=maybe(rng, 0.5), fails=False))
    disturbances = trouble.a_little_of_everything(rng, site, seconds)
    drain_at = rng.uniform(0.4, 0.8) * seconds
    disturbances.append(DrainNow(0, round(drain_at, 3)))
    if maybe(rng, 0.4):
        host = rng.choice(site.hosts)
        disturbances.append(trouble.outage(rng, site, host.host, round(0.8 * drain_at, 3), round(0.15 * seconds, 3)))
    before = int(count * rng.uniform(0.75, 0.95))
    times = in_some_way(rng, before, 0.0, drain_at) + evenly(rng, count - before, drain_at, seconds)
    return Story(seconds, site, gather(rng, site, [(Crowd(site.names), times)]), tuple(disturbances))


def clock_jump(rng: Random, level: Level) -> Story:
    """The monotonic clock is set by seconds to minutes, the wall clock by hours, while hints are dates, keys expire and
    streams run. Where hints are dates the wall clock goes back by less than a minute: a provider that says "not before
    noon" is believed, however wrong our clock is, and nobody wants to wait for that."""
    count, seconds = how_many(rng, level), how_long(rng, level)
    site = draw_site(rng, level, count / seconds, Wishes(short_lived_keys=0.6))
    disturbances = trouble.a_little_of_everything(rng, site, seconds)
    families = rng.choice(((trouble.dated_throttles,), (trouble.refusals, trouble.slowness)))
    for host in site.hosts:
        at, lasts = _while(rng, seconds, 0.3, 0.7)
        disturbances.append(trouble.faults(rng, host.host, at, lasts, families, rng.uniform(0.05, 0.3)))
    dated = trouble.has_dates(disturbances)
    for _ in range(rng.randint(1, 4)):
        monotonic = rng.choice((0.0, rng.uniform(0.5, 10.0), rng.uniform(10.0, 300.0), -rng.uniform(0.5, 25.0)))
        wall = rng.choice(
            (0.0, monotonic, rng.uniform(-40.0, 40.0), rng.uniform(600.0, 20_000.0), -rng.uniform(600.0, 20_000.0))
        )
        if dated:
            wall = max(wall, -40.0)
        disturbances.append(ClockJump(0, round(rng.uniform(0.05, 0.9) * seconds, 3), round(monotonic, 3), round(wall, 3)))
    callers = gather(rng, site, [(Crowd(site.names), in_some_way(rng, count, 0.0, seconds))])
    return Story(seconds, site, callers, tuple(disturbances))


def _while(rng: Random, seconds: float, shortest: float, longest: float) -> tuple[float, float]:
    """When something begins and how long it lasts, in parts of the phase, within which it ends."""
    lasts = rng.uniform(shortest, longest)
    return round(rng.uniform(0.02, 1.0 - lasts) * seconds, 3), round(lasts * seconds, 3)


def _some(rng: Random, site: Site) -> list[HostPlan]:
    """All hosts, or only the first."""
    return list(site.hosts) if maybe(rng, 0.5) else [site.hosts[0]]
