"""The pytest plugin: a fixture that makes worlds, and looks at each of them when its test is over.

    def test_it_waits(simulated_world):
        world = simulated_world(deployment)
        with world.engine() as engine: ...

Whoever wants it says so: ``pytest_plugins = ["drivers.virtual_time.pytest_plugin"]`` in a conftest.py. (A plugin that loads
by itself would break runs of projects which have a package called ``drivers`` of their own.) It imports nothing of the
project before the fixture is used.
"""

from __future__ import annotations

import reprlib
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import pytest

if TYPE_CHECKING:
    from sansio import Deployment, RemoteEngineConfig
    from sansio.simulation.world.world import World


class WorldFactory(Protocol):
    """Makes worlds."""

    def __call__(
        self,
        deployments: RemoteEngineConfig | Deployment | Sequence[Deployment],
        *,
        seed: int | None = None,
        **settings: Any,
    ) -> World:
        """A `World`, with its settings. seed: of every chance in it, by default that of ``--world-seed``."""
        ...


_WORLDS = pytest.StashKey[list[Any]]()
_FAILED = pytest.StashKey[bool]()

_NAMED: Final = 5
"""So many of what was left open are named."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The seed."""
    group = parser.getgroup("simulated world")
    group.addoption(
        "--world-seed", type=int, default=0, metavar="N", help="seed of each `simulated_world` that names none (default: 0)"
    )


@pytest.fixture
def simulated_world(request: pytest.FixtureRequest) -> Iterator[WorldFactory]:
    """Makes simulated worlds: ``simulated_world(deployment, seed=…, **settings of World)``.

    When the test has passed, nothing may be under way in them any more, no connection be left behind, and what the judge
    looks at in the end must hold.
    """
    worlds: list[World] = []
    request.node.stash[_WORLDS] = worlds

    def make(deployments: Any, *, seed: int | None = None, **settings: Any) -> World:
        from sansio.simulation.world.world import World

        by_default: Any = request.config.getoption("--world-seed")
        worlds.append(World(deployments, seed=by_default if seed is None else seed, **settings))
        return worlds[-1]

    yield make
    if not request.node.stash.get(_FAILED, False):
        for world in worlds:
            _check(world)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say with a failure which worlds there were."""
    report = yield
    if report.failed and (worlds := item.stash.get(_WORLDS, None)):
        item.stash[_FAILED] = True
        lines = [f"seed {world.seed} (--world-seed={world.seed}), at {world.clock.now:.3f} s" for world in worlds]
        report.sections.append(("simulated worlds", "\n".join(lines)))
    return report


def _check(world: World) -> None:
    world.check()
    node = world.node
    if node.calls:
        plans = [call.plan for call in node.calls.values()]
        left = [f"the {'stream' if plan.stream else 'request'} {reprlib.repr(plan.prompt)}" for plan in plans]
        more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
        pytest.fail(f"the test left open in its simulated world: {', '.join(left[:_NAMED])}{more}", pytrace=False)
    node.close()
    if world.network is not None and (number := world.network.connections):
        pytest.fail(f"the test left open in its simulated world: {number} connection{'s'[: number - 1]}", pytrace=False)
    if world.judge is not None:
        world.judge.healed(node.now(), node.unix_now())
