"""One connection to the store, over redis-py.

redis-py connects, introduces itself and speaks the protocol. When to connect, what to send and when to give up is decided
by whoever holds the connection: redis-py tries nothing again and sends nothing of its own in between, because a `Take` that
is sent twice is charged twice.

A question and its answer are one step. A connection on which that step was broken off, by an error, a time limit or a
cancellation, may have an answer coming that nobody waits for. It is hung up, and never used again.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import AsyncGenerator
from typing import Any

from .address import StoreAddress
from .commands import Command


class Dialler:
    """Makes connections. Raises `ValueError` naming the extra where redis-py is not installed."""

    __slots__ = ("_address", "_connections", "_exceptions", "_retry", "_tls")

    def __init__(self) -> None:
        try:
            self._connections: Any = importlib.import_module("redis.asyncio.connection")
        except ImportError:
            raise ValueError('cluster: redis-py is not installed: pip install "inference-remote-core[redis]"') from None
        self._exceptions: Any = importlib.import_module("redis.exceptions")
        backoff: Any = importlib.import_module("redis.backoff")
        retry: Any = importlib.import_module("redis.asyncio.retry")
        self._retry: Any = retry.Retry(backoff.NoBackoff(), 0)
        self._address: StoreAddress | None = None
        self._tls: Any = None

    async def dial(self, address: StoreAddress) -> StoreConnection:
        """A new connection, which has said who it is. Raises redis-py's errors and `OSError`; nothing is left open then."""
        connection = StoreConnection(self._unconnected(address), self._exceptions.NoScriptError)
        await connection.open()
        return connection

    def _unconnected(self, address: StoreAddress) -> Any:
        options: dict[str, Any] = {
            "db": address.db,
            "username": address.username,
            "password": address.password,
            "client_name": address.client_name,
            # The older protocol: in it a server says nothing unasked.
            "protocol": 2,
            # Whoever asks bounds the whole step, which any number of short waits would not.
            "socket_timeout": None,
            "socket_connect_timeout": None,
            "retry": self._retry,
            "health_check_interval": 0,
        }
        if address.path is not None:
            return _abrupt(self._connections.UnixDomainSocketConnection)(path=address.path, **options)
        options |= {"host": address.host, "port": address.port, "socket_keepalive": True}
        if address.tls is None:
            return _abrupt(self._connections.Connection)(**options)
        connection = _abrupt(self._connections.SSLConnection)(**options, **dict(address.tls))
        # It reads the platform's certificates when it is first used, which takes long enough to do it once.
        if address == self._address:
            connection.ssl_context = self._tls
        self._address, self._tls = address, connection.ssl_context
        return connection


def _abrupt(kind: Any) -> Any:
    """This kind of redis-py's connections, hanging up at once.

    redis-py hangs up by itself where something is broken off, and would first send what was not sent yet, and over TLS ask
    the server to take leave. With one that takes no notice, that would be a socket that outlives its store.
    """

    async def disconnect(connection: Any, *_: object, **__: object) -> None:
        writer = getattr(connection, "_writer", None)
        if writer is not None:
            writer.transport.abort()
        await kind.disconnect(connection, nowait=True)

    return type(kind.__name__, (kind,), {"disconnect": disconnect})


class StoreConnection:
    """A connection for one question at a time."""

    __slots__ = ("_no_script", "_redis")

    def __init__(self, redis: Any, no_script: type[Exception]) -> None:
        self._redis = redis
        self._no_script = no_script

    async def open(self) -> None:
        """Connect, and say who asks. Broken off or failed, it is hung up."""
        async with self._one_step():
            await self._redis.connect()

    async def is_fit(self) -> bool:
        """Whether it can be used again: the server has neither left since the last answer, nor said anything more.

        Where it cannot, it is hung up.
        """
        reader = getattr(self._redis, "_reader", None)
        try:
            async with self._one_step():
                if reader is None or reader.exception() is not None or await self._has_more():
                    raise ConnectionError
        except Exception:
            return False
        return True

    async def _has_more(self) -> bool:
        """Whether there are bytes that nobody asked for: not read yet, or read by redis-py's parser with an answer."""
        if getattr(getattr(self._redis, "_reader", None), "_buffer", b""):  # redis-py asks for it too, since version 8
            return True
        can_read = getattr(self._redis, "can_read", None) or self._redis.can_read_destructive  # its name before
        return bool(await can_read())

    async def ask(self, command: Command) -> object:
        """A script's answer. Raises redis-py's errors and `OSError`. Broken off or failed, the connection is hung up."""
        async with self._one_step():
            try:
                return await self._send("EVALSHA", command.script.digest, command)
            except self._no_script:  # a new server, or one that has forgotten its scripts: it has done nothing
                return await self._send("EVAL", command.script.text, command)

    @contextlib.asynccontextmanager
    async def _one_step(self) -> AsyncGenerator[None, None]:
        try:
            yield
        except BaseException:
            await self.hang_up()
            raise

    async def _send(self, verb: str, script: str, command: Command) -> object:
        await self._redis.send_command(verb, script, len(command.keys), *command.keys, *command.arguments)
        answer: object = await self._redis.read_response(disable_decoding=True)
        return answer

    async def hang_up(self) -> None:
        """Close it: what was not sent yet never is. The socket is closed with the event loop's next turn.

        Waits for nothing, so that it cannot be interrupted half-way.
        """
        with contextlib.suppress(Exception):  # it is closed all the same
            await self._redis.disconnect()
