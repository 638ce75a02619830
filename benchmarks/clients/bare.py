"""A socket and a parser and nothing else: what any client on asyncio costs at least, with a parser in C and with h11."""

from __future__ import annotations

import asyncio
import json
from abc import abstractmethod
from collections import deque
from typing import Any
from urllib.parse import urlsplit

from benchmarks.workload import EVENT_BYTES, REQUEST_BODY, UNARY_PATH

from . import Tally


class _Connection(asyncio.Protocol):
    """One connection, one request at a time: the protocol hands bytes to `feed` and wakes whoever waits."""

    def __init__(self) -> None:
        self.waiter: asyncio.Future[None] | None = None
        self.ended = False
        self.body_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.feed(data)
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    @abstractmethod
    def feed(self, data: bytes) -> None: ...

    def begin(self) -> None:
        """A new request is sent."""
        self.ended, self.body_bytes = False, 0

    async def wait(self) -> None:
        self.waiter = asyncio.get_running_loop().create_future()
        await self.waiter


class _HttptoolsConnection(_Connection):
    def begin(self) -> None:
        import httptools

        super().begin()
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.body_bytes += len(body)

    def on_message_complete(self) -> None:
        self.ended = True


class _H11Connection(_Connection):
    def __init__(self) -> None:
        import h11

        super().__init__()
        self._h11: Any = h11
        self._machine = h11.Connection(h11.CLIENT)

    def request(self, target: str, host: str, body: bytes) -> bytes:
        h11 = self._h11
        if self._machine.our_state is h11.DONE:
            self._machine.start_next_cycle()
        headers = [("host", host), ("content-type", "application/json"), ("content-length", str(len(body)))]
        head = self._machine.send(h11.Request(method="POST", target=target, headers=headers))
        return bytes(head + self._machine.send(h11.Data(data=body)) + self._machine.send(h11.EndOfMessage()))

    def feed(self, data: bytes) -> None:
        h11, machine = self._h11, self._machine
        machine.receive_data(data)
        while True:
            event: Any = machine.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED:
                return
            if type(event) is h11.Data:
                self.body_bytes += len(event.data)
            elif type(event) is h11.EndOfMessage:
                self.ended = True
                return


class Httptools:
    """asyncio and httptools: the floor."""

    connection: type[_Connection] = _HttptoolsConnection

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._idle: deque[_Connection] = deque()
        self._unary = json.dumps(REQUEST_BODY).encode()
        self._stream = json.dumps(REQUEST_BODY | {"stream": True}).encode()

    async def prepare(self, path: str) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Close the idle connections."""
        for connection in self._idle:
            connection.transport.abort()

    def encode(self, connection: Any, target: str, body: bytes) -> bytes:
        """The bytes of one request."""
        head = f"POST {target} HTTP/1.1\r\nhost: {self._host}:{self._port}\r\ncontent-type: application/json\r\n"
        return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body

    async def _send(self, path: str, body: bytes) -> _Connection:
        if self._idle:
            connection = self._idle.popleft()
        else:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(self.connection, self._host, self._port)
        connection.begin()
        connection.transport.write(self.encode(connection, f"{path}/v1/chat/completions", body))
        return connection

    async def unary(self) -> None:
        """One request, its body read."""
        connection = await self._send(UNARY_PATH, self._unary)
        while not connection.ended:
            await connection.wait()
        self._idle.append(connection)

    async def stream(self, path: str, tally: Tally) -> None:
        """One stream, its bytes counted."""
        connection = await self._send(path, self._stream)
        while not connection.ended:
            await connection.wait()
            tally.events += connection.body_bytes / EVENT_BYTES
            connection.body_bytes = 0
        self._idle.append(connection)


class H11(Httptools):
    """asyncio and h11."""

    connection = _H11Connection

    def encode(self, connection: Any, target: str, body: bytes) -> bytes:
        """The bytes of one request."""
        return bytes(connection.request(target, f"{self._host}:{self._port}", body))
