"""The documents tell the truth: every example in them runs, and every printed output is what is printed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from valkey_server import valkey_server

from drivers.mock_provider import ThreadedMockServer, serve_in_thread
from sansio import RemoteEngineConfig
from sansio.circuit_breaker import TRANSITIONS
from sansio.simulation import MockProvider

ROOT = Path(__file__).resolve().parent.parent
OPENAI = "https://api.openai.com/v1"
STORE = "redis://127.0.0.1:6379"


def blocks(document: str, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```$", (ROOT / document).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


@pytest.fixture
def server() -> Iterator[ThreadedMockServer]:
    with serve_in_thread(MockProvider(keys={"test-key"})) as running:
        yield running


def run(code: str, *arguments: str, **environment: str) -> str:
    """The code in a Python of its own, as a reader would run it; its output."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments, "-"] if not arguments else [sys.executable, "-W", "error", *arguments],
        input=code, capture_output=True, text=True, timeout=60, cwd=ROOT,
        env={"PATH": "", "PYTHONPATH": ":".join(path for path in sys.path if path), **environment},
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readme_has_an_example_for_each_driver() -> None:
    text = "\n".join(blocks("README.md", "python"))
    for driver in ("sync_driver", "asyncio_driver", "trio_driver"):
        assert f"from drivers.{driver} import RemoteEngine" in text


EXAMPLES = [
    pytest.param(code, id=f"{document}-{number}")
    for document in ("README.md", "docs/rate_limits.md", "docs/providers.md")
    for number, code in enumerate(blocks(document, "python"))
]


@pytest.mark.parametrize("code", EXAMPLES)
def test_every_example_runs(code: str, server: ThreadedMockServer) -> None:
    with ExitStack() as stack:
        code = code.replace(OPENAI, f"{server.url}/v1")
        if STORE in code:
            code = code.replace(STORE, stack.enter_context(valkey_server()).url)
        printed = run(code, OPENAI_API_KEY="test-key")
    assert "w1 w2" in printed or "hello" in printed


@pytest.mark.parametrize("document", ["README.md", "docs/providers.md"])
def test_every_file_of_deployments_is_one(document: str) -> None:
    (text,) = blocks(document, "toml")
    assert RemoteEngineConfig.from_toml(text).deployments


def test_the_trace_in_the_architecture_is_what_the_example_prints() -> None:
    printed = run("", str(ROOT / "examples" / "trace_one_request.py"))
    assert printed == blocks("ARCHITECTURE.md", "text")[0]


def test_the_circuit_states_in_the_architecture_are_those_of_the_machine() -> None:
    rows = [f"{state.name:<10} ── {reason} ─▶ {target.name}\n" for (state, reason), target in TRANSITIONS.items()]
    assert blocks("ARCHITECTURE.md", "text")[1] == "".join(rows)


def test_every_file_of_the_core_has_its_row_in_the_reading_order() -> None:
    order = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").partition("## Reading order")[2]
    for path in sorted((ROOT / "sansio").glob("*.py")):
        if not path.name.startswith("_"):
            assert f"`{path.name}`" in order, f"{path.name} is not in the reading order of ARCHITECTURE.md"
