"""Peers that pip cannot put beside the others: litellm (it needs an older openai), and the ones in JavaScript and Rust.

``python -m benchmarks --install-peers`` puts them under the peers' folder; a run uses those that are there.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent / "peers"
HOW = "not installed: python -m benchmarks --install-peers"
NOT_INSTALLED = 'not installed: pip install -e ".[bench]"'


def litellm_python(peers: Path) -> Path | None:
    """The interpreter of the environment with litellm."""
    return _if_there(peers / "litellm" / "bin" / "python")


def node_parser(peers: Path) -> list[str] | None:
    """The command that times eventsource-parser."""
    node, package = shutil.which("node"), peers / "node" / "node_modules" / "eventsource-parser"
    return None if node is None or not package.exists() else [node, str(peers / "node" / "sse.mjs")]


def rust_decoder(peers: Path) -> list[str] | None:
    """The command that times eventsource-stream."""
    program = _if_there(peers / "rust" / "release" / "sse-peer")
    return None if program is None else [str(program)]


def version_of(name: str, peers: Path) -> str | None:
    """The version of a peer in another language."""
    if name.startswith("Node"):
        package = _if_there(peers / "node" / "node_modules" / "eventsource-parser" / "package.json")
        return None if package is None else str(json.loads(package.read_text(encoding="utf-8"))["version"])
    manifest = tomllib.loads((HERE / "rust" / "Cargo.toml").read_text(encoding="utf-8"))
    return str(manifest["dependencies"]["eventsource-stream"]).removeprefix("=")


def install(peers: Path) -> list[str]:
    """Install or build what can be. Returns what cannot, with the reason."""
    peers.mkdir(parents=True, exist_ok=True)
    shutil.copytree(HERE / "rust", peers / "rust" / "source", dirs_exist_ok=True)  # what cargo writes stays there
    problems: list[str] = []
    python = str(peers / "litellm" / "bin" / "python")
    steps: dict[str, list[list[str]]] = {
        "litellm": [
            [sys.executable, "-m", "venv", str(peers / "litellm")],
            [python, "-m", "pip", "install", "--quiet", "litellm"],
        ],
        "eventsource-parser": [["npm", "install", "--silent", "--prefix", str(peers / "node"), "eventsource-parser@3"]],
        "eventsource-stream": [
            ["cargo", "build", "--quiet", "--release", "--manifest-path", str(peers / "rust" / "source" / "Cargo.toml"),
             "--target-dir", str(peers / "rust")],
        ],
    }  # fmt: skip
    for name, commands in steps.items():
        try:
            for command in commands:
                subprocess.run(command, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            problems.append(f"{name}: {error}")
    if (peers / "node").exists():
        shutil.copy(HERE / "node" / "sse.mjs", peers / "node" / "sse.mjs")  # beside node_modules, where its import looks
    return problems


def _if_there(path: Path) -> Path | None:
    return path if path.exists() else None
