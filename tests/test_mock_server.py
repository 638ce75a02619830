"""The mock provider on real sockets: plain and TLS, driven by raw sockets, `http.client` and OpenAI's own client."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import openai
import pytest
import trustme
from mock_client import chat

from drivers.mock_provider import MockServer, ThreadedMockServer, serve, serve_in_thread
from sansio.simulation import (
    Break,
    CloseWithoutResponse,
    ErrorFrame,
    FaultScript,
    MockProvider,
    NeverRespond,
    OversizedEvent,
    PingsOnly,
    ProviderLimits,
    ResetAtByte,
    StallAfterChunks,
    Status,
    Throttle,
    expected_text,
)

BIG = 30_000_000
"""More than the socket buffers of both sides hold."""


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


@pytest.fixture(params=["plain", "tls"])
def server_tls(request: pytest.FixtureRequest, tls: ssl.SSLContext) -> ssl.SSLContext | None:
    return tls if request.param == "tls" else None


def connect(server: MockServer | ThreadedMockServer, trusting: ssl.SSLContext | None = None) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    if server.url.startswith("https") and trusting is not None:
        return trusting.wrap_socket(sock, server_hostname="127.0.0.1", suppress_ragged_eofs=False)
    return sock


def read_to_end(sock: socket.socket) -> tuple[bytes, str]:
    """Everything that comes, and how it ended: "eof" or "reset" (which OpenSSL reports as an end without a farewell)."""
    data = bytearray()
    try:
        while piece := sock.recv(65_536):
            data += piece
    except (ConnectionResetError, ssl.SSLEOFError):
        return bytes(data), "reset"
    return bytes(data), "eof"


def read_until(sock: socket.socket, mark: bytes) -> bytes:
    data = b""
    while mark not in data:
        piece = sock.recv(65_536)
        assert piece, f"the connection ended before {mark!r}"
        data += piece
    return data


# --- answers ----------------------------------------------------------------------------------------------------------


def test_it_answers_a_stream_over_plain_sockets_and_tls(server_tls: ssl.SSLContext | None, trusting: ssl.SSLContext) -> None:
    with serve_in_thread(MockProvider(), ssl_context=server_tls) as server, closing(connect(server, trusting)) as sock:
        assert server.url == f"{'http' if server_tls is None else 'https'}://127.0.0.1:{server.port}"
        assert server.endpoint == f"{server.url}/v1"
        for prompt in ("one", "two"):
            sock.sendall(chat(prompt))
            assert f"[{prompt}]".encode() in read_until(sock, b"[DONE]\n\n\r\n0\r\n\r\n")
        sock.sendall(chat("three", headers=[("connection", "close")]))
        data, end = read_to_end(sock)
        assert b"[three]" in data and end == "eof"
        assert [record.outcome for record in server.provider.log] == ["completed"] * 3
        assert server.provider.connections_total == 1


def test_a_standard_client_reads_it() -> None:
    with serve_in_thread(MockProvider(default_output_tokens=3)) as server:
        with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)) as client:
            for _ in range(2):
                body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
                client.request("POST", "/v1/chat/completions", json.dumps(body), {"Authorization": "Bearer k"})
                answer = json.loads(client.getresponse().read())
                assert answer["choices"][0]["message"]["content"] == "[hi] w1 w2"
        assert server.provider.connections_total == 1


def test_delays_are_kept_by_timers() -> None:
    with serve_in_thread(MockProvider(token_delay=0.01, first_byte_delay=0.01, default_output_tokens=5)) as server:
        with closing(connect(server)) as sock:
            sock.sendall(chat("slow"))
            read_until(sock, b"[DONE]\n\n\r\n0\r\n\r\n")
        (record,) = server.provider.log
        assert record.ended_at is not None and record.ended_at - record.arrived_at >= 0.06 - 1e-6


def test_ipv6() -> None:
    try:
        probe = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        return  # a machine without IPv6 has nothing to show
    probe.close()
    with serve_in_thread(MockProvider(), "::1") as server:
        assert server.url == f"http://[::1]:{server.port}"
        with closing(socket.create_connection(("::1", server.port), timeout=20)) as sock:
            sock.sendall(chat("six"))
            assert b"[six]" in read_until(sock, b"[DONE]")


# --- ends -------------------------------------------------------------------------------------------------------------


def test_a_reset_is_a_reset_after_exactly_so_many_bytes(server_tls: ssl.SSLContext | None, trusting: ssl.SSLContext) -> None:
    offsets = [0, 1, 100, 1000]
    provider = MockProvider(faults=FaultScript([ResetAtByte(byte) for byte in offsets]))
    with serve_in_thread(provider, ssl_context=server_tls) as server:
        for byte in offsets:
            with closing(connect(server, trusting)) as sock:
                sock.sendall(chat())
                data, end = read_to_end(sock)
                assert (len(data), end) == (byte, "reset")


def test_a_close_is_in_good_order(server_tls: ssl.SSLContext | None, trusting: ssl.SSLContext) -> None:
    provider = MockProvider(faults=FaultScript([CloseWithoutResponse(), Break(1)]))
    with serve_in_thread(provider, ssl_context=server_tls) as server:
        for content in (b"", b"[hello]"):
            with closing(connect(server, trusting)) as sock:
                sock.sendall(chat())
                data, end = read_to_end(sock)
                assert content in data and end == "eof" and b"[DONE]" not in data


def test_a_client_that_leaves_is_noticed(server_tls: ssl.SSLContext | None, trusting: ssl.SSLContext) -> None:
    provider = MockProvider(faults=FaultScript(then=StallAfterChunks(1)))
    with serve_in_thread(provider, ssl_context=server_tls) as server:
        with closing(connect(server, trusting)) as sock:
            sock.sendall(chat())
            read_until(sock, b"[hello]")
            assert provider.active == 1
        wait_for(server, lambda: provider.active == 0 and provider.connections_open == 0)
        assert provider.log[0].outcome == "client_left"


def test_a_client_that_does_not_read_fills_no_memory() -> None:
    provider = MockProvider(faults=FaultScript([OversizedEvent(1_000_000_000)]))
    with serve_in_thread(provider) as server, closing(connect(server)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(chat())
        wait_for(server, lambda: provider.log != [] and provider.log[0].status == 200)
        for _ in range(50):
            server.call(lambda provider: None)
        assert provider.active == 1
        assert len(read_until(sock, b"xxxx")) < 1_000_000


# --- the end of a server ----------------------------------------------------------------------------------------------


def test_closing_leaves_no_socket_no_task_and_no_thread(server_tls: ssl.SSLContext | None, trusting: ssl.SSLContext) -> None:
    threads = set(threading.enumerate())
    provider = MockProvider(faults=FaultScript([NeverRespond(), PingsOnly(0.01), OversizedEvent(BIG)]))
    socks = []
    with serve_in_thread(provider, ssl_context=server_tls) as server:
        for number in range(3):
            socks.append(connect(server, trusting))
            socks[-1].sendall(chat())
            wait_for(server, lambda number=number: provider.active == number + 1)
        socks.append(socket.create_connection(("127.0.0.1", server.port)))  # says nothing: for TLS, no handshake either
        port = server.port
    assert set(threading.enumerate()) == threads
    assert provider.active == 0
    for sock in socks:
        sock.close()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    with pytest.raises(RuntimeError):
        server.call(lambda provider: None)


@pytest.mark.parametrize("rounds", range(8))
def test_closing_ends_every_task_of_the_loop(tls: ssl.SSLContext, rounds: int) -> None:
    """Whatever point the acceptance or the handshake has reached after so many rounds of the loop."""

    async def main() -> None:
        async with await serve(MockProvider(), ssl_context=tls) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)  # TCP only: the handshake hangs
            for _ in range(rounds):
                await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert await reader.read() == b""
        writer.close()
        await server.aclose()

    asyncio.run(main())


def test_a_client_without_tls_does_no_harm(tls: ssl.SSLContext, trusting: ssl.SSLContext) -> None:
    with serve_in_thread(MockProvider(), ssl_context=tls) as server:
        with closing(connect(server)) as sock:
            sock.sendall(chat())
            read_to_end(sock)
        with closing(connect(server, trusting)) as sock:
            sock.sendall(chat())
            read_until(sock, b"[DONE]")


def test_a_port_in_use_is_an_error() -> None:
    threads = set(threading.enumerate())
    with (
        serve_in_thread(MockProvider()) as server,
        pytest.raises(OSError),
        serve_in_thread(MockProvider(), port=server.port),
    ):
        pytest.fail("two servers on one port")
    assert set(threading.enumerate()) == threads


def test_calls_run_in_the_servers_thread() -> None:
    with serve_in_thread(MockProvider()) as server:
        assert server.call(lambda provider: threading.current_thread().name) == "mock-provider"
        server.call(lambda provider: provider.rotate_keys(["k"]))
        with pytest.raises(ZeroDivisionError):
            server.call(lambda provider: 1 / 0)
        with closing(connect(server)) as sock:
            sock.sendall(chat())
            assert read_until(sock, b"\r\n").startswith(b"HTTP/1.1 401")


def test_an_exception_in_the_block_still_ends_the_server() -> None:
    threads = set(threading.enumerate())
    with pytest.raises(KeyError), serve_in_thread(MockProvider()):
        raise KeyError
    assert set(threading.enumerate()) == threads


def wait_for(server: ThreadedMockServer, condition: Callable[[], bool]) -> None:
    """Until it holds: each round trip through the server's loop lets one round of its events pass."""
    for _ in range(100_000):
        if server.call(lambda provider: condition()):
            return
    pytest.fail("it never came")


# --- OpenAI's own client ----------------------------------------------------------------------------------------------


@pytest.fixture
def provider() -> MockProvider:
    return MockProvider(keys={"test-key"}, default_output_tokens=4)


@pytest.fixture
def client(provider: MockProvider) -> Iterator[openai.OpenAI]:
    with (
        serve_in_thread(provider) as server,
        openai.OpenAI(base_url=server.endpoint, api_key="test-key", max_retries=0) as client,
    ):
        yield client


MESSAGES: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "grün"}]


def test_the_sdk_takes_a_unary_answer(client: openai.OpenAI, provider: MockProvider) -> None:
    answer = client.chat.completions.create(model="gpt-x", messages=MESSAGES, n=2)
    assert [choice.message.content for choice in answer.choices] == [expected_text("grün", 4), expected_text("grün", 4, 1)]
    assert answer.usage is not None and answer.usage.total_tokens == 9
    assert answer._request_id is not None and answer._request_id.startswith("req_")
    assert openai.types.chat.ChatCompletion.model_validate(answer.model_dump(), strict=True) == answer


def test_the_sdk_takes_a_stream(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="gpt-x", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == expected_text("grün", 4)
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 4
    for chunk in chunks:
        openai.types.chat.ChatCompletionChunk.model_validate(chunk.model_dump(), strict=True)


def test_the_sdk_takes_a_tool_call(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="gpt-x",
        messages=[{"role": "user", "content": "#tool"}],
        tools=[{"type": "function", "function": {"name": "look_up", "parameters": {}}}],
    ) as stream:
        message = stream.get_final_completion().choices[0].message
    assert message.tool_calls is not None
    call = message.tool_calls[0]
    assert call.type == "function" and json.loads(call.function.arguments) == {"prompt": "#tool"}


def test_the_sdk_lists_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["mock-model"]


def test_the_sdk_knows_its_errors(client: openai.OpenAI, provider: MockProvider) -> None:
    provider.faults = FaultScript([Throttle("3"), Status(503), Status.html(), ErrorFrame(1), CloseWithoutResponse()])
    with pytest.raises(openai.RateLimitError) as throttled:
        client.chat.completions.create(model="gpt-x", messages=MESSAGES)
    assert throttled.value.response.headers["retry-after"] == "3" and throttled.value.code == "rate_limit_exceeded"
    for _ in range(2):
        with pytest.raises(openai.InternalServerError):
            client.chat.completions.create(model="gpt-x", messages=MESSAGES)
    with pytest.raises(openai.APIError, match="overloaded"):
        list(client.chat.completions.create(model="gpt-x", messages=MESSAGES, stream=True))
    with pytest.raises(openai.APIConnectionError):
        client.chat.completions.create(model="gpt-x", messages=MESSAGES)
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").chat.completions.create(model="gpt-x", messages=MESSAGES)


def test_the_sdk_retries_when_the_limit_says() -> None:
    provider = MockProvider(limits=ProviderLimits(requests_per_minute=1, window=0.3))
    with (
        serve_in_thread(provider) as server,
        openai.OpenAI(base_url=server.endpoint, api_key="k", max_retries=1) as client,
    ):
        for _ in range(2):
            client.chat.completions.create(model="gpt-x", messages=MESSAGES)
    assert [record.outcome for record in provider.log] == ["completed", "throttled", "completed"]


def test_the_asynchronous_sdk_on_the_servers_own_loop() -> None:
    async def main() -> None:
        provider = MockProvider()
        async with await serve(provider) as server, openai.AsyncOpenAI(base_url=server.endpoint, api_key="k") as client:

            async def one(prompt: str) -> str:
                stream = await client.chat.completions.create(
                    model="m", messages=[{"role": "user", "content": prompt}], stream=True
                )
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            prompts = [f"number {number}" for number in range(20)]
            assert await asyncio.gather(*map(one, prompts)) == [expected_text(prompt) for prompt in prompts]
        assert provider.connections_open == 0

    asyncio.run(main())
