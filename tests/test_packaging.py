"""What is shipped, and how a newcomer starts: the wheel's contents, the README's two commands, and CI, which runs the same.

The wheel looked into is built here from the checkout, so it makes no difference how the packages under test were installed.
"""

from __future__ import annotations

import configparser
import email
import email.message
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sansio
from sansio._version import __version__

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")

DRIVERS = {"asyncio_driver", "trio_driver", "sync_driver"}
IN_VENV = "python3 -m venv .venv && .venv/bin/pip install --quiet "
DEMO_COMMAND = IN_VENV + "'.[all]' && .venv/bin/remote-core demo"
TEST_COMMAND = IN_VENV + "'.[all,dev]' && .venv/bin/pytest"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=60)
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


@pytest.fixture
def metadata(wheel: zipfile.ZipFile) -> email.message.Message:
    return email.message_from_bytes(read_dist_info(wheel, "METADATA"))


def read_dist_info(wheel: zipfile.ZipFile, name: str) -> bytes:
    return wheel.read(f"inference_remote_core-{__version__}.dist-info/{name}")


def packages_under(wheel: zipfile.ZipFile, folder: str) -> set[str]:
    """The names of the packages directly under ``folder``."""
    return {name.split("/")[1] for name in wheel.namelist() if name.startswith(f"{folder}/") and name.count("/") > 1}


# --- The wheel ---------------------------------------------------------------------------------------------------------


def test_name_and_version(metadata: email.message.Message) -> None:
    assert (metadata["Name"], metadata["Version"]) == ("inference-remote-core", __version__)


def test_the_version_stands_in_one_place_and_in_the_changelog() -> None:
    assert "version" in PROJECT["project"]["dynamic"]
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_it_holds_the_two_import_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    top = {name.split("/")[0] for name in wheel.namelist()}
    assert top == {"sansio", "drivers", f"inference_remote_core-{__version__}.dist-info"}


def test_every_module_of_the_checkout_is_in_it(wheel: zipfile.ZipFile) -> None:
    modules = {path.relative_to(ROOT).as_posix() for top in ("sansio", "drivers") for path in (ROOT / top).rglob("*.py")}
    assert modules == {name for name in wheel.namelist() if name.endswith(".py")}


def test_the_three_drivers_are_in_it(wheel: zipfile.ZipFile) -> None:
    assert packages_under(wheel, "drivers") >= DRIVERS


def test_drivers_is_a_namespace(wheel: zipfile.ZipFile) -> None:
    assert "drivers/__init__.py" not in wheel.namelist()
    assert not [name for name in wheel.namelist() if name.startswith("drivers/") and name.count("/") == 1]


def test_every_package_says_that_it_is_typed(wheel: zipfile.ZipFile) -> None:
    packages = ["sansio", *(f"drivers/{name}" for name in packages_under(wheel, "drivers"))]
    assert [name for name in packages if f"{name}/py.typed" not in wheel.namelist()] == []


def test_the_core_needs_two_libraries_and_the_rest_are_extras(metadata: email.message.Message) -> None:
    requires = [str(line) for line in metadata.get_all("Requires-Dist", [])]
    needed = {re.split(r"[^\w-]", line)[0] for line in requires if "extra ==" not in line}
    assert needed == {"h11", "msgspec"}


def test_all_means_every_extra_but_those_for_work_on_the_project() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    (everything,) = extras["all"]
    named = set(everything.removeprefix("inference-remote-core[").removesuffix("]").split(","))
    assert named == set(extras) - {"all", "bench", "dev"}


def test_the_command_is_declared(wheel: zipfile.ZipFile) -> None:
    scripts = configparser.ConfigParser()
    scripts.read_string(read_dist_info(wheel, "entry_points.txt").decode())
    assert dict(scripts["console_scripts"]) == {"remote-core": "drivers.command_line:main"}


def test_the_licence_goes_with_it(wheel: zipfile.ZipFile, metadata: email.message.Message) -> None:
    assert metadata["License-Expression"] == "Apache-2.0"
    assert read_dist_info(wheel, "licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()


# --- The packages under test -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("driver", sorted(DRIVERS))
def test_core_and_drivers_under_test_are_of_one_installation(driver: str) -> None:
    spec = importlib.util.find_spec(f"drivers.{driver}")
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).parents[2].samefile(Path(sansio.__file__).parents[1])


def test_the_import_contracts_name_every_folder_of_drivers(wheel: zipfile.ZipFile) -> None:
    expected = {"sansio", *(f"drivers.{name}" for name in packages_under(wheel, "drivers"))}
    assert set(PROJECT["tool"]["importlinter"]["root_packages"]) == expected


# --- The two commands, and CI -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [DEMO_COMMAND, TEST_COMMAND])
def test_the_readme_has_each_command_once(command: str) -> None:
    assert README.splitlines().count(command) == 1


def test_ci_runs_the_commands_of_the_readme_and_has_none_of_its_own() -> None:
    patterns = re.findall(r"grep -E '([^']+)' README\.md", CI)
    found = [[line for line in README.splitlines() if re.search(pattern, line)] for pattern in patterns]
    assert found == [[DEMO_COMMAND], [TEST_COMMAND]]
    assert "pip install" not in CI
    assert "bin/pytest" not in CI.replace(patterns[1], "")


def test_ci_can_be_executed() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
