"""Sockets and timers for the mock provider, on plain asyncio.

No decision is made here: bytes and the clock go into a `MockConnection`, its actions are carried out. Nothing more is drawn
from it while the client does not read, so an endless answer fills no memory. A reset throws away what the client's side has
not taken yet, as resets do: with the small answers of tests that is nothing.

Connections are accepted here and not by `asyncio.Server`, which forgets a connection it accepted just before it was closed,
and one whose TLS handshake hangs.
"""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import ssl
import struct
import time
from contextlib import suppress
from types import TracebackType
from typing import Final, cast

from sansio.simulation import Action, Alpn, Close, MockConnection, MockProvider, Reset, Send

_PIECE_BYTES: Final = 65_536
_BACKLOG: Final = 1024
_ACCEPT_PAUSE: Final = 0.05
_RST_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # struct linger: on, 0 seconds


async def serve(
    provider: MockProvider,
    host: str = "127.0.0.1",
    port: int = 0,
    ssl_context: ssl.SSLContext | None = None,
    *,
    http2: bool | None = None,
) -> MockServer:
    """Listen on ``host`` and ``port`` (0: any free one) and answer with ``provider``, until `MockServer.aclose`.

    ssl_context: the server speaks TLS; what it offers by ALPN is set here. http2: whether it speaks HTTP/2 beside HTTP/1.1,
    over TLS by ALPN or, as over plain sockets, with a client that begins so; ``None``: if the library h2 is installed.
    Raises `OSError` where it cannot listen, `ImportError` for ``http2=True`` without that library.
    """
    if http2 is None or http2:
        installed = importlib.util.find_spec("h2") is not None
        if http2 and not installed:
            raise ImportError("http2=True needs the library h2: install inference-remote-core[http2]")
        http2 = installed
    if ssl_context is not None:
        ssl_context.set_alpn_protocols(["h2", "http/1.1"] if http2 else ["http/1.1"])
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    listener.setblocking(False)
    return MockServer(provider, listener, host, ssl_context, http2=http2)


class MockServer:
    """A listening mock provider. Made by `serve`; also an asynchronous context manager that closes it.

    provider: the machine; on the loop's own thread it may be used freely. port: where it listens.
    url: scheme, host and port, without a path.
    """

    def __init__(
        self,
        provider: MockProvider,
        listener: socket.socket,
        host: str,
        ssl_context: ssl.SSLContext | None,
        *,
        http2: bool,
    ) -> None:
        self.provider = provider
        self.port: int = listener.getsockname()[1]
        scheme = "http" if ssl_context is None else "https"
        self.url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"
        self._listener = listener
        self._ssl_context = ssl_context
        self._http2 = http2
        self._closing = False
        self._connecting: dict[asyncio.Task[None], socket.socket] = {}
        self._protocols: set[_MockProtocol] = set()
        self._all_lost = asyncio.Event()
        self._accepting = asyncio.get_running_loop().create_task(self._accept())

    @property
    def endpoint(self) -> str:
        """The base URL for OpenAI's clients."""
        return f"{self.url}/v1"

    async def __aenter__(self) -> MockServer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop listening and abort every connection. When it returns, no socket and no task is left. May be called again."""
        self._closing = True
        await self._stop_accepting()
        for sock in self._connecting.values():
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # ends a handshake that waits for the client
        await asyncio.gather(*self._connecting)
        while self._protocols:
            self._all_lost.clear()
            for protocol in self._protocols:
                protocol.abort()
            await self._all_lost.wait()
        await asyncio.sleep(0)  # the last transport closes its socket just after its protocol has heard of it

    async def _stop_accepting(self) -> None:
        """Wake the accepting task with a connection of our own: cancelled, it could lose one it has just accepted."""
        if not self._accepting.done():
            with socket.socket(self._listener.family) as waker:
                waker.setblocking(False)
                waker.connect_ex(self._listener.getsockname())
                await self._accepting
        self._listener.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._closing:
            try:
                sock, _ = await loop.sock_accept(self._listener)
            except OSError:  # out of file descriptors, or a client that has already left: the next may do better
                await asyncio.sleep(_ACCEPT_PAUSE)
                continue
            if self._closing:
                sock.close()
                return
            task = loop.create_task(self._connect(sock))
            self._connecting[task] = sock
            task.add_done_callback(self._connecting.pop)

    async def _connect(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with suppress(OSError):  # the client left, or speaks no TLS: there is nobody to tell
            await loop.connect_accepted_socket(lambda: _MockProtocol(self, loop), sock, ssl=self._ssl_context)

    def connection_made(self, protocol: _MockProtocol, transport: asyncio.Transport) -> MockConnection:
        """A connection stands: called by its protocol, which gets the machine for it."""
        self._protocols.add(protocol)
        tls = transport.get_extra_info("ssl_object")
        alpn: Alpn | None = "http/1.1" if not self._http2 else None if tls is None else tls.selected_alpn_protocol()
        return self.provider.connection(alpn)

    def connection_lost(self, protocol: _MockProtocol) -> None:
        """A connection is gone: called by its protocol."""
        self._protocols.discard(protocol)
        if not self._protocols:
            self._all_lost.set()


class _MockProtocol(asyncio.Protocol):
    """One connection: moves bytes between its transport and its machine, and keeps the machine's one timer."""

    _transport: asyncio.Transport
    _machine: MockConnection

    def __init__(self, server: MockServer, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._writable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        # So that "may write" means "all is written". (A bound of 0 pauses asyncio's TLS when it is empty.)
        self._transport.set_write_buffer_limits(high=1, low=0)
        self._machine = self._server.connection_made(self, self._transport)
        self._flush(self._loop.time())  # a server of HTTP/2 may speak first

    def data_received(self, data: bytes) -> None:
        now = self._loop.time()
        self._machine.receive_data(data, now, time.time())
        self._flush(now)

    def eof_received(self) -> None:
        self.data_received(b"")

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._flush(self._loop.time())

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._machine.connection_lost(self._loop.time())
        self._server.connection_lost(self)

    def abort(self) -> None:
        """End the connection without waiting for the client."""
        self._transport.abort()

    def _flush(self, now: float) -> None:
        """Carry out what is due, as far as the client reads, and set the timer for what comes later."""
        self._disarm()
        while self._writable and not self._transport.is_closing():
            for action in self._machine.actions(now, _PIECE_BYTES):
                self._carry_out(action)
            deadline = self._machine.deadline()
            if deadline is None:
                return
            if deadline > now:
                self._timer = self._loop.call_at(deadline, self._on_timer, deadline)
                return

    def _carry_out(self, action: Action) -> None:
        match action:
            case Send(data):
                self._transport.write(data)
            case Close():
                self._transport.close()
            case Reset():
                sock = self._transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
                self._transport.abort()

    def _on_timer(self, deadline: float) -> None:
        self._flush(max(deadline, self._loop.time()))  # timers may fire early

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
