"""How hard Hypothesis works, and which tests the coverage is measured by.

`default` for every day, `ci` the same examples each time, `thorough` for a long run: `pytest --hypothesis-profile=thorough`
picks one by hand.
"""

from __future__ import annotations

import gc
import importlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import is_hypothesis_test, settings

from sansio.http2 import Http2Connection

settings.register_profile("default", max_examples=100, deadline=None)
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, database=None, print_blob=True)
settings.register_profile("thorough", settings.get_profile("default"), max_examples=5_000)
settings.load_profile("ci" if os.environ.get("CI") else "default")

pytest_plugins = ["pytester"]

MARKERS = (
    "no_cover: coverage is not measured by this test (pytest-cov)",
    "cases_take_turns(parameter): of a behaviour of the drivers, each of these cases once on each driver",
    "ways_take_turns: of a behaviour of the drivers, each driver once over each transport",
)

TESTS = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    """The marks there are."""
    for line in MARKERS:
        config.addinivalue_line("markers", line)


@pytest.fixture(scope="session", autouse=True)
def done_once() -> None:
    """What happens once in a process (it waits until h2 is wanted) happens before any test that is not measured."""
    importlib.import_module("sansio.simulation.provider.mock_http2")
    Http2Connection()


@pytest.fixture(scope="session", autouse=True)
def quick_collections() -> Iterator[None]:
    """Many tests collect their garbage; what the imports and the collection of ten thousand tests have made before the first
    is not looked through every time, which would take a second."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


WHOLE: frozenset[str] = frozenset(
    {
        "conformance",
        "test_cluster_processes.py",
        "test_command_line.py",
        "test_command_line_simulate.py",
        "test_demo.py",
        "test_examples.py",
        "test_general_client.py",
        "test_general_client_choice.py",
        "test_general_client_http2.py",
        "test_general_client_proxy.py",
        "test_simulation_mutants.py",
        "test_virtual_time_run.py",
    }
)
"""The tests (a file, or a folder of them) in which all runs together: over sockets, or in a simulated world."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Coverage says which lines a test was written for. So it is measured by neither what runs the whole, which touches most
    lines and looks at few, nor by what Hypothesis happens to draw; both would take three times as long if it were."""
    for item in items:
        if item.path.relative_to(TESTS).parts[0] in WHOLE or is_hypothesis_test(getattr(item, "obj", None)):
            item.add_marker("no_cover")
