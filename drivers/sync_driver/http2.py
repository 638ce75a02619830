"""An HTTP/2 connection with blocking callers: one thread that moves its bytes, many that wait for their part of them.

TLS may not be read and written by two threads at once, and a caller that leaves must never block. So the socket belongs to
one thread alone; whoever has something to say tells the machine under a lock, and pokes that thread.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from sansio import Http2Connection, HttpEvent, HttpRequest, NetworkError

from .client import READ_BYTES, Connection

if TYPE_CHECKING:
    from .client import HttpClient, Line


class Http2Streams(Connection):
    """A connection that carries many requests at once."""

    def __init__(self, client: HttpClient, known: socket.socket) -> None:
        self._client = client
        self._socket = known
        self._lock = threading.Lock()  # the machine, and the poke; nothing else is locked under it
        self._telling = threading.Lock()  # what the pool is told, in order; its lock and the one above come under this one
        self._machine = Http2Connection()
        self._lines: dict[int, Line] = {}
        self._opener: Line | None = None
        """Who dialled, and has it alone until the server has said how many it takes."""
        self._streams = 0
        self._unsent = memoryview(b"")
        self._closing = False
        self._poke_to_hear, self._poke = socket.socketpair()
        for end in (known, self._poke_to_hear, self._poke):
            end.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="remote-engine-http2", daemon=True)

    def begin(self, line: Line) -> None:
        """As above. Nothing moves before its request: whatever the server says is an answer to that."""
        self._opener = line

    # ---- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._poke_to_hear, selectors.EVENT_READ)
                selector.register(self._socket, selectors.EVENT_READ)
                while not self._closing and (wanted := self._move()):
                    selector.modify(self._socket, wanted)
                    selector.select()
                    with suppress(BlockingIOError):
                        self._poke_to_hear.recv(4096)
        except OSError:
            pass  # the end of the connection: told below
        finally:
            with self._lock:
                self._closing = True
                news = self._machine.receive(b"")
                self._close_sockets()
            self._wake(news)
            self._client.lose(self)

    def _close_sockets(self) -> None:
        for end in (self._socket, self._poke_to_hear, self._poke):
            end.close()

    def _move(self) -> int:
        """Write and read until the socket would block. Returns what to wait for, 0 at the end of the connection."""
        while not self._closing:  # a peer may talk without end
            wanted, sent = self._write()
            try:
                data = self._socket.recv(READ_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError):
                if not sent:
                    return wanted | selectors.EVENT_READ
            except ssl.SSLWantWriteError:
                return wanted | selectors.EVENT_WRITE
            else:
                if not data:
                    return 0
                with self._lock:
                    news = self._machine.receive(data)
                self._wake(news)
                with self._telling:
                    self._tell()
        return 0

    def _write(self) -> tuple[int, bool]:
        """Write what there is. Returns what to wait for, and whether anything went out."""
        if not self._unsent:
            with self._lock:
                self._unsent = memoryview(self._machine.outgoing())
        if not self._unsent:
            return 0, False
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except (BlockingIOError, ssl.SSLWantWriteError):
            return selectors.EVENT_WRITE, False
        except ssl.SSLWantReadError:
            return 0, False
        return 0, True

    def _wake(self, stream_ids: list[int]) -> None:
        for stream_id in stream_ids:
            if (line := self._lines.get(stream_id)) is not None:
                line.wake()

    # ---- the callers ----------------------------------------------------------------------------------------------------

    def is_fit(self) -> bool:
        """As above."""
        with self._lock:
            return not self._closing and self._machine.capacity > 0

    def send(self, line: Line, request: HttpRequest) -> None:
        """As above. The whole request is the machine's from here on."""
        with self._lock:
            if self._closing or self._machine.capacity < 1:  # another thread took the last stream, or a GOAWAY came
                raise _no_more()
            line.stream_id = self._machine.send(request)
            self._lines[line.stream_id] = line
            self._prod()
        if self._opener is line:
            self._client.start(self._thread)

    def receive(self, line: Line) -> list[HttpEvent]:
        """As above."""
        if not line.stream_id:
            raise _no_more()
        while True:
            with self._lock:
                if events := self._machine.take(line.stream_id):
                    self._prod()
                    return events
            line.wait()

    def interrupt(self) -> None:
        """As above: a line waits for its own signal here, and the socket goes on."""

    def leave(self, line: Line, *, keep: bool) -> None:
        """As above. The other lines go on."""
        with self._lock:
            self._lines.pop(line.stream_id, None)
            self._machine.reset(line.stream_id)
            self._prod()
        with self._telling:
            if self._opener is not None:  # the pool does not know it yet
                self._opener = None
                self.close()
                self._client.withdraw(line)
            elif self._closing:
                self._client.lose(self)
            else:
                self._tell()
                self._client.release(self)

    def close(self) -> None:
        """As above. The thread does it, if it has begun."""
        with self._lock:
            self._closing = True
            self._prod()
            if self._thread.ident is None:
                self._close_sockets()

    def _prod(self) -> None:
        """The machine may have something to say. Under the lock, so that the descriptor is not somebody else's by now."""
        with suppress(OSError):  # prodded already, or closed
            self._poke.send(b".")

    def _tell(self) -> None:
        """Let the pool know how many streams there may be; the first time also that there is this connection."""
        with self._lock:
            settled = self._machine.settled
            streams = self._machine.capacity + self._machine.open_streams if self._machine.usable else 0
        if self._opener is not None:
            if settled:
                opener, self._opener, self._streams = self._opener, None, streams
                self._client.opened(opener, self, streams)
        elif streams != self._streams:
            self._streams = streams
            self._client.resize(self, streams)


def _no_more() -> NetworkError:
    return NetworkError("the connection takes no more requests", unprocessed=True)
