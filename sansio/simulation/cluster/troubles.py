"""What goes wrong in a cluster, drawn from a seed. Numbers are given later (`numbered`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from ..scenarios.scenario import maybe
from ..world.shared_store import StoreConditions
from .plan import BadWay, FailOver, Killed, Leaves, Life, Partition, Sleeps, StoreGone, Trouble, WallSet


@dataclass(frozen=True, slots=True)
class Scene:
    """What troubles are drawn for. seconds: until all is well; span, lease: of the cluster. loses: whether the store may
    lose what it was told last. splits: whether it may go several ways."""

    seconds: float
    span: float
    lease: float
    store_timeout: float
    loses: bool
    splits: bool


def ends(rng: Random, scene: Scene, lives: Sequence[Life]) -> tuple[list[Life], list[Trouble]]:
    """Some die or leave, most of them coming back as others. Returns those who come, and what becomes of whom."""
    born: list[Life] = []
    troubles: list[Trouble] = []
    number = len(lives)
    for life in lives:
        current, at = life, life.begins
        while maybe(rng, 0.5):
            at += rng.uniform(0.2, 6.0) * scene.span
            if at >= scene.seconds:
                break
            kind = Leaves if maybe(rng, 0.25) else Killed
            troubles.append(kind(0, at, current.number))
            at += rng.choice((0.0, 0.05, 0.5, 2.0)) * scene.span * rng.random()
            if at >= scene.seconds or maybe(rng, 0.2):
                break
            current = Life(number, at, life.drift, life.wall)
            born.append(current)
            number += 1
    return born, troubles


def sleeps(rng: Random, scene: Scene, lives: Sequence[Life]) -> list[Trouble]:
    """Some stand still, shorter or longer than their leases."""
    found: list[Trouble] = []
    for life in lives:
        for _ in range(rng.choice((0, 0, 1, 2))):
            lasts = rng.choice((0.3, 1.0, 1.5)) * rng.uniform(0.2, 1.2) * (scene.lease + rng.choice((0.0, scene.span)))
            found += _placed(rng, scene, Sleeps(0, 0.0, lasts, life.number))
    return found


def wall_clocks(rng: Random, scene: Scene, lives: Sequence[Life]) -> list[Trouble]:
    """Some are set while everything runs."""
    return [
        WallSet(
            0, rng.uniform(0.0, scene.seconds), life.number, rng.choice((-1.0, 1.0)) * rng.choice((0.5, 5.0, 30.0, 3600.0))
        )
        for life in lives
        if maybe(rng, 0.3)
    ]


def partitions(rng: Random, scene: Scene, lives: Sequence[Life]) -> list[Trouble]:
    """The lives fall into parts, once or several times."""
    found: list[Trouble] = []
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        parts = rng.randint(1, max(1, min(4, len(lives))))
        groups: list[list[int]] = [[] for _ in range(parts)]
        for life in lives:
            if maybe(rng, 0.7):
                rng.choice(groups).append(life.number)
        lasts = rng.choice((0.5, 1.0, 2.0)) * rng.uniform(0.1, 1.5) * (scene.lease + scene.span)
        split = scene.splits and maybe(rng, 0.5)
        found += _placed(rng, scene, Partition(0, 0.0, lasts, tuple(map(tuple, filter(None, groups))), split))
    return found


def bad_ways(rng: Random, scene: Scene) -> list[Trouble]:
    """Messages are slow, lost, late, doubled."""
    found: list[Trouble] = []
    for _ in range(rng.choice((0, 1, 2, 3))):
        conditions = StoreConditions(
            latency=rng.choice((0.0005, 0.01, 0.1)),
            jitter=rng.choice((0.001, 0.05, 0.5 * scene.store_timeout)),
            question_lost=rng.choice((0.0, 0.05, 0.4)),
            answer_lost=rng.choice((0.0, 0.05, 0.4)),
            late=rng.choice((0.0, 0.1, 0.4)),
            doubled=rng.choice((0.0, 0.1, 0.4)),
            latest=rng.choice((0.2, 1.0, 4.0)) * scene.span,
        )
        found += _placed(rng, scene, BadWay(0, 0.0, rng.uniform(0.5, 8.0) * scene.span, conditions))
    return found


def gone_stores(rng: Random, scene: Scene) -> list[Trouble]:
    """The store is not there, shorter or longer than anybody's lease."""
    found: list[Trouble] = []
    for _ in range(rng.choice((0, 0, 1, 2))):
        found += _placed(rng, scene, StoreGone(0, 0.0, rng.choice((0.3, 1.0, 2.0)) * rng.uniform(0.2, 1.5) * scene.lease))
    if scene.loses and maybe(rng, 0.5):
        lost = rng.choice((0.001, 0.01, 0.1, 1.0)) * rng.uniform(0.2, 1.0) * scene.span
        found += _placed(rng, scene, FailOver(0, 0.0, lost, rng.choice((0.0, 0.0, -0.3, 0.3, -20.0))))
    return found


def numbered(troubles: Sequence[Trouble]) -> tuple[Trouble, ...]:
    """In the order in which they come."""
    ordered = sorted(troubles, key=lambda each: each.at)
    return tuple(replace(each, number=number) for number, each in enumerate(ordered))


def _placed(rng: Random, scene: Scene, trouble: Trouble) -> list[Trouble]:
    """At some time at which it is over before all is well; nowhere, where it does not fit."""
    room = scene.seconds - trouble.seconds
    return [] if room <= 0 else [replace(trouble, at=rng.uniform(0.0, room))]
