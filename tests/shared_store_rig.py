"""A real server to ask, a server that answers as it is told, and the three ways to ask, behind one face."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import redis
from valkey_server import ValkeyServer, valkey_server

from drivers.shared_store import AsyncioStore, BlockingStore, StoreThread
from sansio.cluster.config import ClusterConfig
from sansio.cluster.store import StoreReply, StoreRequest

LONG = 30.0
"""Seconds that a test waits for what must come: only a failing one waits as long."""


@dataclass(frozen=True)
class Valkey:
    """A server of a test's own. path: its socket in the file system."""

    server: ValkeyServer
    path: Path

    @property
    def url(self) -> str:
        return f"valkey://127.0.0.1:{self.server.port}"

    @contextlib.contextmanager
    def admin(self) -> Iterator[redis.Redis]:
        """Somebody else's client, for what the stores do not do."""
        with redis.Redis(port=self.server.port, protocol=2) as client:
            yield client

    def commands(self, name: str) -> int:
        """How many times a command was carried out."""
        with self.admin() as admin:
            statistics = admin.info("commandstats").get(f"cmdstat_{name}")
        return int(statistics["calls"]) if statistics else 0


@contextlib.contextmanager
def valkey_for_stores(folder: Path) -> Iterator[Valkey]:
    """One that runs, and listens on both kinds of sockets."""
    path = folder / "valkey.sock"
    with valkey_server(options=("--unixsocket", str(path))) as server:
        yield Valkey(server, path)


Answers = Callable[[Sequence[bytes]], bytes | Iterable[bytes | None] | None]


class ScriptedServer:
    """Answers each command with the bytes that ``answers`` gives for it, in one piece or several; ``None`` hangs up.

    tls: with which certificate. polite: greetings are answered as they should be, without asking ``answers``. Any other
    command is in ``seen`` before it is answered. resets: it hangs up by a reset.
    """

    def __init__(
        self, answers: Answers, *, tls: ssl.SSLContext | None = None, polite: bool = True, resets: bool = False
    ) -> None:
        self._polite = polite
        self._resets = resets
        self.hung_up = threading.Event()
        self._answers = answers
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}"
        self.seen: queue.Queue[Sequence[bytes]] = queue.Queue()
        self.connections = 0
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> ScriptedServer:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        self.hang_up()
        for thread in self._threads:
            thread.join()

    def hang_up(self) -> None:
        """On everybody."""
        for known in self._open:
            with contextlib.suppress(OSError):
                known.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                known, _ = self._listener.accept()
                self.connections += 1
                thread = threading.Thread(target=self._serve, args=(known,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, known: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError), known:
            speaking = known if self._tls is None else self._tls.wrap_socket(known, server_side=True)
            self._open.append(speaking)
            with speaking:
                with speaking.makefile("rb") as lines:
                    self._converse(speaking, lines)
                if self._resets:
                    speaking.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.hung_up.set()

    def _converse(self, speaking: socket.socket, lines: BinaryIO) -> None:
        while command := _read_command(lines):
            if self._polite and command[0] in (b"AUTH", b"CLIENT", b"SELECT"):
                speaking.sendall(b"+OK\r\n")
                continue
            self.seen.put(command)
            answer = self._answers(command)
            for piece in answer if isinstance(answer, Iterable) and not isinstance(answer, bytes) else (answer,):
                if piece is None:
                    return
                speaking.sendall(piece)


def _read_command(lines: BinaryIO) -> list[bytes]:
    head = lines.readline()
    words: list[bytes] = []
    for _ in range(int(head[1:] or b"0")):
        if not (length_line := lines.readline()):
            raise EOFError
        length = int(length_line[1:])
        words.append(lines.read(length + 2)[:length])
    return words


def bulk(*parts: bytes | int) -> bytes:
    """The parts as a list of the protocol's."""
    coded = [b":%d\r\n" % part if isinstance(part, int) else b"$%d\r\n%s\r\n" % (len(part), part) for part in parts]
    return b"*%d\r\n" % len(parts) + b"".join(coded)


class Asking(Protocol):
    """One of the three ways."""

    def execute(self, request: StoreRequest) -> StoreReply: ...

    def close(self) -> None: ...


class OnAsyncio:
    """An event loop that runs while it is asked."""

    def __init__(self, config: ClusterConfig) -> None:
        self._store = AsyncioStore(config)
        self._runner = asyncio.Runner()

    def execute(self, request: StoreRequest) -> StoreReply:
        return self._runner.run(self._store.execute(request))

    def close(self) -> None:
        self._runner.run(self._store.aclose())
        self._runner.close()


class OnThread:
    """A thread's answers, waited for one by one."""

    def __init__(self, config: ClusterConfig) -> None:
        self.answers: queue.Queue[tuple[int, StoreReply]] = queue.Queue()
        self.thread: StoreThread[int] = StoreThread(config, lambda token, reply: self.answers.put((token, reply)))
        self._asked = 0

    def execute(self, request: StoreRequest) -> StoreReply:
        self._asked += 1
        self.thread.ask(self._asked, request)
        token, reply = self.answers.get(timeout=LONG)
        assert token == self._asked
        return reply

    def close(self) -> None:
        self.thread.close(0.0)


WAYS: dict[str, Callable[[ClusterConfig], Asking]] = {"asyncio": OnAsyncio, "thread": OnThread, "blocking": BlockingStore}
