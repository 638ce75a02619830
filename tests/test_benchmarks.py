"""The benchmarks run: every table and every row is printed, and the record is JSON. What they measure is not looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent

OURS = {
    "clients": ["ours: asyncio", "ours: trio", "ours: threads", "ours: asyncio, HTTP/2", "ours: asyncio, over httpx"],
    "sse_openai": ["ours: SseDecoder"],
    "chunks": ["ours: Exchange"],
    "engine": ["RemoteEngineCore"],
    "breaker": ["ours: CircuitBreaker"],
    "limiter": ["ours: RateLimiter, requests and tokens"],
    "scale": ["streams, HTTP/1.1", "streams, HTTP/2", "waiting in the queue"],
}
PEERS = {
    "clients": ["asyncio + httptools (floor)", "asyncio + h11", "aiohttp", "httpx", "httpx2", "openai", "litellm"],
    "sse_openai": [
        "plain line loop",
        "Node eventsource-parser",
        "Rust eventsource-stream",
        "httpx-sse",
        "anthropic",
        "openai",
    ],
    "sse_large": ["anthropic", "groq", "sseclient-py", "Rust eventsource-stream"],
    "chunks": ["openai SDK, its Stream"],
    "breaker": ["pybreaker", "purgatory", "aiobreaker"],
    "limiter": ["aiolimiter", "pyrate-limiter", "limits, moving window"],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """What a quick run prints, and its record."""
    folder = tmp_path_factory.mktemp("benchmarks")
    command = [sys.executable, "-m", "benchmarks", "--quick", "--json", str(folder / "record.json")]
    command += ["--peers-dir", str(folder)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout, json.loads((folder / "record.json").read_text(encoding="utf-8"))


def rows_of(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {table["key"]: {row["name"]: row for row in table["rows"]} for table in record["tables"]}


def test_every_row_is_there(run: tuple[str, dict[str, Any]]) -> None:
    printed, record = run
    rows = rows_of(record)
    for wanted in (OURS, PEERS):
        for table, names in wanted.items():
            assert set(names) <= set(rows[table])
            assert all(name in printed for name in names)


def test_a_row_has_every_figure_or_the_reason_why_not(run: tuple[str, dict[str, Any]]) -> None:
    printed, record = run
    for table in record["tables"]:
        for row in table["rows"]:
            if row["missing"] is None:
                assert row["figures"] and all(figure["best"] >= 0 for figure in row["figures"].values())
            else:
                assert f"{row['name']}: {row['missing']}" in printed


def test_our_own_rows_are_measured(run: tuple[str, dict[str, Any]]) -> None:
    rows = rows_of(run[1])
    needs_an_extra = ("HTTP/2", "httpx")
    for table, names in OURS.items():
        for name in names:
            if not any(extra in name for extra in needs_an_extra):
                assert rows[table][name]["missing"] is None


def test_every_goal_says_whether_it_was_reached(run: tuple[str, dict[str, Any]]) -> None:
    printed, record = run
    goals = [goal for table in record["tables"] for goal in table["goals"]]
    assert goals
    assert all(goal["reached"] in (True, False, None) and goal["by"] for goal in goals)
    assert f"of {len(goals)} goals reached" in printed
