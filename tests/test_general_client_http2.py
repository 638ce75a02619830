"""A client of the user's that speaks HTTP/2: its requests share a connection, so leaving one must not close the others'."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
import trustme
from general_wire import ALL, World, ask, read

from drivers.mock_provider import ThreadedMockServer, serve_in_thread
from sansio import END, HttpRequest, ResponseHead
from sansio.simulation import FaultScript, MockProvider, StallAfterChunks

KEY = "sk-general-0123456789abcdef"


@pytest.fixture
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.set_alpn_protocols(["h2"])
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


@pytest.fixture
def server(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> Iterator[ThreadedMockServer]:
    provider = MockProvider(keys=[KEY], faults=FaultScript([StallAfterChunks(2)]))
    with serve_in_thread(provider, ssl_context=contexts[0]) as running:
        yield running


def request(server: ThreadedMockServer) -> HttpRequest:
    body = {"model": "gpt-4o", "stream": True, "messages": [{"role": "user", "content": "hello"}]}
    headers = (("content-type", "application/json"), ("authorization", f"Bearer {KEY}"))
    return HttpRequest("POST", f"{server.endpoint}/chat/completions", headers, json.dumps(body).encode())


@pytest.mark.parametrize("world", ALL, ids=str)
def test_leaving_one_request_leaves_the_others_alone(
    world: World, server: ThreadedMockServer, contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    async def scenario(client: Any) -> None:
        stalled = await ask(world, client, request(server))
        (head,) = await stalled.receive()
        assert isinstance(head, ResponseHead)
        assert head.status == 200
        assert await stalled.receive()
        other = await ask(world, client, request(server))
        stalled.let_go(keep=False)
        assert other.reused
        assert (await read(other))[-1] is END
        other.let_go(keep=True)
        after = await ask(world, client, request(server))
        assert (await read(after))[-1] is END
        after.let_go(keep=True)
        assert server.provider.connections_total == 1

    world.run(scenario, given=world.given(http2=True, verify=contexts[1]))


def test_waking_one_request_leaves_the_others_alone(
    server: ThreadedMockServer, contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    world = World("sync", "httpx2")

    async def scenario(client: Any) -> None:
        stalled = await ask(world, client, request(server))
        other = await ask(world, client, request(server))
        stalled.interrupt()
        assert (await read(other))[-1] is END
        stalled.let_go(keep=False)
        other.let_go(keep=True)

    world.run(scenario, given=world.given(http2=True, verify=contexts[1]))
