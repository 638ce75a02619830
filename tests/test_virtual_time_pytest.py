"""The pytest plugin: worlds for tests, seeded by an option, named where a test fails, looked at when it is over."""

from __future__ import annotations

import os
import subprocess
import sys
from types import ModuleType

import pytest

HEAD = """
from sansio import Deployment, ExecuteBatch, Message, Secret
from sansio.simulation import MockProvider

deployment = Deployment(name="chat", model="gpt-4o", runtime_config={"api_key": Secret.from_env("NOT_THERE")})
hello = ExecuteBatch(messages=[Message(role="user", content="hello")])
"""


class Keeper:
    """What the inner tests have imported stays imported: `pytester` would forget it, and a second copy would be another."""

    def __init__(self) -> None:
        self._imported: dict[str, ModuleType] = {}

    def pytest_unconfigure(self) -> None:
        """The inner run is over."""
        self._imported = dict(sys.modules)

    def keep(self) -> None:
        for name, module in self._imported.items():
            if not name.startswith("test_"):
                sys.modules.setdefault(name, module)


def pytest_on(pytester: pytest.Pytester, body: str, *options: str, plugin: bool = True) -> str:
    """Runs pytest on a file with this body, with this plugin and no other, in this process. Its output."""
    pytester.makepyfile(test_it=HEAD + body)
    loaded = ["-p", "drivers.virtual_time.pytest_plugin"] if plugin else []
    keeper = Keeper()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        patch.delitem(sys.modules, "drivers.virtual_time.pytest_plugin", raising=False)  # each loads it anew
        done = pytester.runpytest_inprocess("-p", "no:cacheprovider", *loaded, "-W", "error", *options, plugins=[keeper])
        keeper.keep()
    return f"{done.stdout}\n{done.stderr}\n"


def test_a_world_from_the_fixture(pytester: pytest.Pytester) -> None:
    printed = pytest_on(
        pytester,
        """
def test_it(simulated_world):
    world = simulated_world(deployment, provider=MockProvider(answers={"hello": "Hi there"}))
    with world.engine() as engine:
        assert engine.generate(hello).text == "Hi there"
        world.clock.advance(60)
    assert world.seed == 0

def test_its_seed(simulated_world):
    assert simulated_world(deployment, seed=3).seed == 3

def test_other_tests_are_left_alone():
    pass
""",
    )
    assert "3 passed" in printed


def test_the_seed_is_an_option_and_stands_in_the_report_of_a_failure(pytester: pytest.Pytester) -> None:
    body = """
def test_it(simulated_world):
    world = simulated_world(deployment)
    request = world.engine().__enter__().submit(hello)
    world.clock.advance(0.0)
    assert world.seed == 0
"""
    printed = pytest_on(pytester, body, "--world-seed=17")
    assert "1 failed" in printed
    assert "error" not in printed  # what a failing test leaves open is not what is wrong with it
    assert "seed 17 (--world-seed=17), at 0.000 s" in printed


@pytest.mark.parametrize(
    ("left", "said"),
    [
        ("world.engine().__enter__().submit(hello)", "left open in its simulated world: the request 'hello'"),
        ("world.engine().__enter__().stream(hello).__enter__()", "left open in its simulated world: the stream 'hello'"),
        (
            "engine = world.engine().__enter__(); [engine.submit(asking(str(number))) for number in range(7)]",
            "world: the request '0', the request '1', the request '2', the request '3', the request '4' and 2 more",
        ),
        ("world.engine().__enter__().submit(asking('much ' * 99))", "world: the request 'much much mu..."),
        ("connect(world)", "left open in its simulated world: 1 connection\n"),
        ("connect(world); connect(world)", "left open in its simulated world: 2 connections\n"),
    ],
)
def test_what_a_test_leaves_open_is_an_error(pytester: pytest.Pytester, left: str, said: str) -> None:
    body = f"""
from sansio.http import HttpRequest

def request_of(world):
    return HttpRequest("POST", "http://api.openai.com/", (), b"")

def connect(world):
    world.client.line(None).open(request_of(world), fresh=True)
    world.clock.step()

def asking(prompt):
    return ExecuteBatch(messages=[Message(role="user", content=prompt)])

def test_it(simulated_world):
    world = simulated_world(deployment)
    {left}
"""
    printed = pytest_on(pytester, body)
    assert "1 passed, 1 error" in printed
    assert said in printed
    assert "seed 0 (--world-seed=0)" in printed


def test_the_judge_has_the_last_word(pytester: pytest.Pytester) -> None:
    printed = pytest_on(
        pytester,
        """
def test_it(simulated_world):
    world = simulated_world(deployment)
    with world.engine() as engine:
        engine.generate(hello)
    world.node.core.registry.metrics.in_flight += 1

def test_unjudged(simulated_world):
    world = simulated_world(deployment, judged=False, level="requests")
""",
    )
    assert "2 passed, 1 error" in printed
    assert "InvariantViolated" in printed


def test_what_the_judge_found_of_a_drivers_engine_is_no_secret_of_the_test(pytester: pytest.Pytester) -> None:
    printed = pytest_on(
        pytester,
        """
import contextlib, pytest
from simulation_mutants import usage_counted_twice
from drivers.virtual_time import run

@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_it(simulated_world, monkeypatch, backend):
    usage_counted_twice(monkeypatch)
    long = ExecuteBatch(messages=[Message(role="user", content="hello #tokens=8")])
    with contextlib.suppress(Exception):
        run(simulated_world(deployment), lambda engine: engine.generate(long), backend=backend)
""",
    )
    assert "2 passed, 2 errors" in printed
    assert "all attempts used" in printed


def test_loading_it_imports_nothing_of_the_project() -> None:
    code = (
        "import sys, drivers.virtual_time.pytest_plugin; print([m for m in sys.modules if m.startswith(('sansio', 'trio'))])"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, timeout=60,
        env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    assert done.stdout == "[]\n"


def test_without_the_plugin_there_is_no_such_fixture(pytester: pytest.Pytester) -> None:
    printed = pytest_on(pytester, "def test_it(simulated_world):\n    pass\n", plugin=False)
    assert "fixture 'simulated_world' not found" in printed
