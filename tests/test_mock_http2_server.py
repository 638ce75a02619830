"""The mock provider over HTTP/2 on real sockets: ALPN, prior knowledge, and clients that others wrote."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import httpx
import openai
import pytest
import trustme
from mock_client import chat
from mock_http2_client import Client, body_of

from drivers.mock_provider import ThreadedMockServer, serve, serve_in_thread
from sansio.simulation import (
    Break,
    CloseWithoutResponse,
    FaultScript,
    GarbageBytes,
    MockProvider,
    OversizedEvent,
    RefuseStream,
    StallAfterChunks,
    Status,
    expected_text,
)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


MESSAGES: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "grün"}]
ASK = {"model": "m", "messages": MESSAGES}


# --- who speaks what --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("http2", "offered", "agreed"),
    [
        (None, ["h2", "http/1.1"], "h2"),
        (None, ["http/1.1", "h2"], "h2"),
        (True, ["h2"], "h2"),
        (True, ["http/1.1"], "http/1.1"),
        (True, None, None),
        (False, ["h2", "http/1.1"], "http/1.1"),
        (False, ["h2"], None),
        (False, None, None),
    ],
)
def test_tls_settles_it(
    tls: ssl.SSLContext, trusting: ssl.SSLContext, http2: bool | None, offered: list[str] | None, agreed: str | None
) -> None:
    if offered is not None:
        trusting.set_alpn_protocols(offered)
    with serve_in_thread(MockProvider(), ssl_context=tls, http2=http2) as server:
        plain = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        with closing(trusting.wrap_socket(plain, server_hostname="127.0.0.1")) as sock:
            assert sock.selected_alpn_protocol() == agreed
            if agreed == "h2":
                assert sock.recv(9)[3] == 4, "SETTINGS come unasked"
            else:
                sock.sendall(chat())
                assert sock.recv(12) == b"HTTP/1.1 200"


def over_the_wire(server: ThreadedMockServer, prompts: list[str]) -> Client:
    """These requests with prior knowledge, over a plain socket, until all are answered."""
    client = Client(MockProvider())
    ids = [client.ask(prompt) for prompt in prompts]
    sent = client.outgoing
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=20)) as sock:
        sock.sendall(sent)
        data = b""
        while any(client.got[at].end == "open" for at in ids):
            piece = sock.recv(65_536)
            assert piece, "the connection ended before the answers"
            data += piece
            whole = whole_frames(data)
            client.take(data[:whole], 0.0)
            data = data[whole:]
    return client


def whole_frames(data: bytes) -> int:
    """The length of the whole frames at the beginning."""
    at = 0
    while at + 9 <= len(data) and at + 9 + int.from_bytes(data[at : at + 3], "big") <= len(data):
        at += 9 + int.from_bytes(data[at : at + 3], "big")
    return at


def test_a_plain_client_that_begins_so_is_understood() -> None:
    with serve_in_thread(MockProvider(token_delay=0.001)) as server:
        client = over_the_wire(server, ["one", "two", "three"])
        assert [got.text for got in client.got.values()] == [expected_text(prompt) for prompt in ("one", "two", "three")]
        assert {record.http_version for record in server.provider.log} == {"2"}
        assert server.provider.connections_total == 1


def test_unless_http_2_is_off() -> None:
    with (
        serve_in_thread(MockProvider(), http2=False) as server,
        closing(socket.create_connection(("127.0.0.1", server.port), timeout=20)) as sock,
    ):
        sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert sock.recv(9) == b"HTTP/1.1 "


@pytest.mark.parametrize("tls_too", [False, True])
def test_without_the_library_it_is_not_offered(
    monkeypatch: pytest.MonkeyPatch, tls: ssl.SSLContext, trusting: ssl.SSLContext, tls_too: bool
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "h2" else find_spec(name, *more))
    trusting.set_alpn_protocols(["h2", "http/1.1"])
    with serve_in_thread(MockProvider(), ssl_context=tls if tls_too else None) as server:
        sock = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        with closing(trusting.wrap_socket(sock, server_hostname="127.0.0.1") if tls_too else sock) as sock:
            sock.sendall(chat())
            assert sock.recv(9) == b"HTTP/1.1 "
    with pytest.raises(ImportError, match=r"inference-remote-core\[http2\]"), serve_in_thread(MockProvider(), http2=True):
        pytest.fail("it promised what it has not")


# --- the clients of others --------------------------------------------------------------------------------------------


@pytest.fixture
def provider() -> MockProvider:
    return MockProvider(default_output_tokens=4)


@pytest.fixture
def server(provider: MockProvider, tls: ssl.SSLContext) -> Iterator[ThreadedMockServer]:
    with serve_in_thread(provider, ssl_context=tls) as server:
        yield server


@pytest.fixture
def client(server: ThreadedMockServer, trusting: ssl.SSLContext) -> Iterator[httpx.Client]:
    with httpx.Client(http2=True, verify=trusting, base_url=server.endpoint) as client:
        yield client


def test_httpx_takes_its_answers(client: httpx.Client, provider: MockProvider) -> None:
    unary = client.post("/chat/completions", json=ASK)
    assert (unary.http_version, unary.status_code) == ("HTTP/2", 200)
    assert unary.json()["choices"][0]["message"]["content"] == expected_text("grün", 4)
    with client.stream("POST", "/chat/completions", json={**ASK, "stream": True}) as streamed:
        assert list(streamed.iter_lines())[-2:] == ["data: [DONE]", ""]
    assert client.get("/models").json()["data"][0]["id"] == "mock-model"
    assert provider.connections_total == 1 and [record.http_version for record in provider.log] == ["2"] * 3


def test_httpx_sends_and_takes_much(client: httpx.Client, provider: MockProvider) -> None:
    provider.faults = FaultScript([OversizedEvent(3_000_000)])
    large = {"model": "m", "messages": [{"role": "user", "content": "x" * 3_000_000}]}
    answer = client.post("/chat/completions", json=large)
    assert answer.status_code == 200 and len(answer.content) > 3_000_000
    assert client.post("/chat/completions", content=b"x" * 17_000_000).status_code == 413


def test_the_sdk_takes_its_answers(client: httpx.Client, server: ThreadedMockServer, provider: MockProvider) -> None:
    sdk = openai.OpenAI(base_url=server.endpoint, api_key="k", max_retries=0, http_client=client)
    answer = sdk.chat.completions.create(model="m", messages=MESSAGES)
    assert answer.choices[0].message.content == expected_text("grün", 4)
    stream = sdk.chat.completions.create(model="m", messages=MESSAGES, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in stream) == expected_text("grün", 4)
    provider.faults = FaultScript([Status(503), CloseWithoutResponse(), RefuseStream(), GarbageBytes("head")])
    with pytest.raises(openai.InternalServerError):
        sdk.chat.completions.create(model="m", messages=MESSAGES)
    for _ in range(3):
        with pytest.raises(openai.APIConnectionError):
            sdk.chat.completions.create(model="m", messages=MESSAGES)
    assert sdk.chat.completions.create(model="m", messages=MESSAGES).choices[0].finish_reason == "stop"
    assert {record.http_version for record in provider.log} == {"2"} and provider.connections_total == 2


def test_the_asynchronous_sdk_shares_one_connection(tls: ssl.SSLContext, trusting: ssl.SSLContext) -> None:
    async def main() -> None:
        provider = MockProvider(faults=FaultScript([Break(1)]), token_delay=0.001)
        async with (
            await serve(provider, ssl_context=tls) as server,
            httpx.AsyncClient(http2=True, verify=trusting, limits=httpx.Limits(max_connections=1)) as http,
            openai.AsyncOpenAI(base_url=server.endpoint, api_key="k", max_retries=0, http_client=http) as client,
        ):

            async def one(prompt: str) -> str:
                messages: Any = [{"role": "user", "content": prompt}]
                stream = await client.chat.completions.create(model="m", messages=messages, stream=True)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            with pytest.raises(openai.APIConnectionError):
                await one("torn")
            prompts = [f"number {number}" for number in range(20)]
            assert await asyncio.gather(*map(one, prompts)) == [expected_text(prompt) for prompt in prompts]
            assert provider.connections_total == 1 and provider.max_active > 1
        assert provider.connections_open == 0

    asyncio.run(main())


def test_curl_takes_its_answers() -> None:
    curl = shutil.which("curl")
    if curl is None or "HTTP2" not in subprocess.run([curl, "--version"], capture_output=True, text=True, check=True).stdout:
        return  # a machine without it has nothing to show
    with serve_in_thread(MockProvider(default_output_tokens=3)) as server:
        for stream in (True, False):
            command = [curl, "-sS", "--http2-prior-knowledge", "-w", "%{http_version}", "--data-binary", "@-"]
            done = subprocess.run(
                [*command, f"{server.endpoint}/chat/completions"],
                input=body_of("hi", stream=stream), capture_output=True, timeout=60, check=True,
            )  # fmt: skip
            assert done.stdout.endswith(b"data: [DONE]\n\n2" if stream else b"}2") and b"[hi]" in done.stdout


# --- ends -------------------------------------------------------------------------------------------------------------


def test_a_client_that_leaves_a_stream_or_all_of_them_is_noticed() -> None:
    provider = MockProvider(faults=FaultScript(then=StallAfterChunks(1)))
    with serve_in_thread(provider) as server:
        with closing(socket.create_connection(("127.0.0.1", server.port), timeout=20)) as sock:
            client = Client(MockProvider())
            first = client.ask("first")
            client.ask("second")
            sent = client.outgoing
            sock.sendall(sent)
            wait_for(server, lambda: provider.active == 2)
            client.reset(first)
            sock.sendall(client.outgoing[len(sent) :])
            wait_for(server, lambda: provider.active == 1)
            assert [record.outcome for record in provider.log] == ["client_left", None]
        wait_for(server, lambda: provider.connections_open == 0)
        assert [record.outcome for record in provider.log] == ["client_left", "client_left"]


def wait_for(server: ThreadedMockServer, condition: Callable[[], bool]) -> None:
    """Until it holds: each round trip through the server's loop lets one round of its events pass."""
    for _ in range(100_000):
        if server.call(lambda provider: condition()):
            return
    pytest.fail("it never came")
