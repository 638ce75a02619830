"""The pytest plugin: a fixture that makes worlds, and looks at each of them when its test is over.

    def test_it_waits(simulated_world):
        world = simulated_world(deployment)
        with world.engine() as engine: ...

It is loaded with every run of pytest, so it imports nothing of the project before the fixture is used.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

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
    from .place import check

    check(world)
    node = world.node
    if node.calls:
        pytest.fail(f"the test left {len(node.calls)} requests or streams open in its simulated world", pytrace=False)
    node.close()
    if world.network is not None and world.network.connections:
        pytest.fail(f"{world.network.connections} connections were left open in a simulated world", pytrace=False)
    if world.judge is not None:
        world.judge.healed(node.now(), node.unix_now())
