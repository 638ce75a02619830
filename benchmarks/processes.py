"""The processes of the client tables: one server, and a worker for each client."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from . import foreign
from .clients import Contender

ROOT = Path(__file__).parent.parent

PATIENCE = 180.0
"""Seconds without an answer after which a process is ended: one that hangs must not hang the others."""


class Child:
    """A process that is asked and answers in lines of JSON. Ends when it is closed."""

    def __init__(self, python: str, module: str, *arguments: str) -> None:
        command = [python, "-m", module, *arguments]
        with ExitStack() as stack:  # a file, because a pipe could fill up
            self._errors = stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace"))
            self._closing = stack.pop_all()
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, cwd=ROOT
        )

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """One line there, one line back. Raises `RuntimeError` with its last words when it has died."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise RuntimeError(self._last_words()) from None
        return self.hear()

    def tell(self, word: str) -> None:
        """One line there, and nothing back."""
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def hear(self) -> dict[str, Any]:
        """The next line. Raises `RuntimeError` with its last words when it has died, or when it is silent for too long."""
        assert self._process.stdout is not None
        patience = threading.Timer(PATIENCE, self._process.kill)
        patience.start()
        try:
            line = self._process.stdout.readline()
            while line and not line.startswith("{"):  # a library that prints
                line = self._process.stdout.readline()
        finally:
            patience.cancel()
        if not line:
            raise RuntimeError(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_words(self) -> str:
        self._process.wait()
        self._errors.seek(0)
        lines = [line for line in self._errors.read().splitlines() if line.strip()]
        return lines[-1].strip() if lines else f"ended with status {self._process.returncode}"

    def __enter__(self) -> Child:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._process.communicate(timeout=3)  # closes its input: that is the end
        except (subprocess.TimeoutExpired, ValueError, BrokenPipeError):
            self._process.kill()
            self._process.wait()
        finally:
            self._closing.close()


def server(*arguments: str) -> tuple[Child, dict[str, Any]]:
    """A running server, and its ports."""
    child = Child(sys.executable, "benchmarks.server", *arguments)
    return child, child.hear()


def worker(contender: Contender, ports: dict[str, Any], peers: Path) -> Child | str:
    """The worker of this client, or why there is none."""
    if contender.http not in ports:
        return f"needs {', '.join(contender.packages)} here"
    python = sys.executable
    if contender.own_environment:
        other = foreign.litellm_python(peers)
        if other is None:
            return foreign.HOW
        python = str(other)
    return Child(python, "benchmarks.worker", contender.name, f"http://127.0.0.1:{ports[contender.http]}")
