"""The public API is type-checked as its users call it: `tests/typing/api.py` passes, and mistakes in it would be found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
API = ROOT / "tests" / "typing" / "api.py"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mypy")


def mypy(cache: Path, *files: Path) -> subprocess.CompletedProcess[str]:
    options = ["--strict", "--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(cache), "--no-error-summary"]
    return subprocess.run(
        [sys.executable, "-m", "mypy", *options, *map(str, files)],
        cwd=ROOT,
        env={**os.environ, "MYPY_FORCE_COLOR": "0"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def test_the_api_is_typed_as_it_is_used(cache: Path) -> None:
    checked = mypy(cache, API)
    assert (checked.stdout, checked.stderr, checked.returncode) == ("", "", 0)


MISTAKES = {
    "engine.generate(BATCH).txt": "attr-defined",
    "engine.generate('hello')": "arg-type",
    "engine.generate(BATCH, prioritiy=1)": "call-arg",
    "engine.stream(BATCH).__next__().text_delta + 1": "operator",
    "Deployment(name='a', model='b', serving=5)": "arg-type",
    "Message(role='robot', content='x')": "arg-type",
    "Secret('OPENAI_API_KEY')": "call-arg",
}


def test_and_a_mistake_is_found(cache: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    lines = [f"    {mistake}" for mistake in MISTAKES]
    head = "from drivers.sync_driver import RemoteEngine\nfrom sansio import *\n\n\n"
    head += "def use(engine: RemoteEngine, BATCH: ExecuteBatch) -> None:\n"
    wrong.write_text(head + "\n".join(lines) + "\n")
    checked = mypy(cache, wrong)
    found = [line.rpartition("[")[2].rstrip("]") for line in checked.stdout.splitlines() if "error:" in line]
    assert set(MISTAKES.values()) <= set(found), checked.stdout
    assert len(found) >= len(MISTAKES)
