"""docs/simulation.md tells the truth: each of its blocks is a file of tests, and they pass."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from test_virtual_time_pytest import pytest_on

DOCUMENT = (Path(__file__).resolve().parent.parent / "docs" / "simulation.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)


def test_every_block_is_a_file_of_tests_that_pass(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(**{f"test_block_{number}": block for number, block in enumerate(BLOCKS)})
    printed = pytest_on(pytester, "")
    tests = sum(block.count("def test_") for block in BLOCKS)
    assert f"{tests} passed" in printed, printed
    assert all("def test_" in block for block in BLOCKS)


def test_no_block_knows_more_than_what_is_public() -> None:
    public = {
        "sansio",
        "sansio.simulation",
        "drivers.asyncio_driver",
        "drivers.virtual_time",
        "drivers.virtual_time.pytest_plugin",
    }
    assert set(re.findall(r"^from ((?:sansio|drivers)\b\S*) import", DOCUMENT, re.MULTILINE)) == public


def test_the_plugin_it_asks_for_is_there() -> None:
    (line,) = re.findall(r"^```py\npytest_plugins = \[\"(.*)\"\]\n```$", DOCUMENT, re.MULTILINE)
    assert hasattr(importlib.import_module(line), "simulated_world")


def test_the_first_has_ten_lines() -> None:
    assert len([line for line in BLOCKS[0].splitlines() if line]) <= 10
