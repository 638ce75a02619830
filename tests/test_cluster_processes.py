"""Real processes on one key: a store, a provider that counts for itself, and what goes wrong between them.

How much of the limit they use is measured by ``python -m benchmarks.cluster``, with a guard that costs little. Here it is
wide, so that a busy machine does not make requests arrive later than it allows for.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run(*arguments: str) -> dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.cluster",
        "--processes",
        "3",
        "--callers",
        "12",
        "--guard",
        "0.4",
        *arguments,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("mode", ["strict", "escrow", "approximate"])
def test_three_processes_share_a_limit_and_are_never_refused(mode: str) -> None:
    came = run("--mode", mode, "--seconds", "8", "--window", "2", "--tokens", "6000")
    assert came["throttled"] == 0 and came["lost"] == {}
    assert 0.3 < came["peak"] <= 1.0
    assert min(came["windows"][1:3]) > 1500, "they went on, window after window"


@pytest.mark.parametrize("mode", ["strict", "escrow"])
@pytest.mark.parametrize("gone", ["--stop-store", "--restart-store"])
def test_without_the_store_nothing_is_granted_and_nothing_is_lost(mode: str, gone: str) -> None:
    came = run("--mode", mode, "--seconds", "15", "--window", "2", "--tokens", "6000", gone, "6", "--kill-one")
    assert came["throttled"] == 0 and came["lost"] == {}
    assert came["while_gone"] == 0, "fail closed"
    assert came["windows"][-1] > 0, "and on it went"
