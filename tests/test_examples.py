"""The three ways in, run as their users would."""

from __future__ import annotations

import asyncio
import http.client
import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import uvicorn

from drivers.mock_provider import serve_in_thread
from sansio.simulation import FaultScript, MockProvider, expected_text
from sansio.simulation.provider.faults import (
    Break,
    Fault,
    NeverRespond,
    SlowFirstByte,
    SlowTokens,
    StallAfterChunks,
    StallAfterHead,
    Throttle,
)

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def eventually(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at, f"never happened: {what}"
        time.sleep(0.01)


def test_the_script_streams_and_says_what_it_used() -> None:
    with serve_in_thread(MockProvider(keys={"test-key"})) as server:
        done = subprocess.run(
            [sys.executable, "-W", "error", str(EXAMPLES / "sync_script.py"), "how", "are", "you"],
            capture_output=True, text=True, timeout=60, check=False,
            env={
                "OPENAI_BASE_URL": f"{server.url}/v1", "OPENAI_API_KEY": "test-key", "PYTHONPATH": os.pathsep.join(sys.path),
            },
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer, usage = done.stdout.splitlines()
    assert answer.startswith("[how are you] w1 w2")
    assert usage.startswith("TokenUsage(input_tokens=")


def test_the_test_with_a_fake_clock_passes() -> None:
    load("fake_clock_test").test_a_retry_after_is_never_undercut()


@pytest.mark.parametrize(
    "name",
    [
        "test_both_answer_although_the_provider_stumbles",
        "test_one_that_never_answers_is_not_waited_for",
        "test_an_outage_in_code_that_blocks",
    ],
)
def test_the_tests_in_a_simulated_world_pass(name: str) -> None:
    getattr(load("simulated_world_test"), name)()


@contextmanager
def service(monkeypatch: pytest.MonkeyPatch, url: str) -> Iterator[int]:
    """The FastAPI example under a real server; yields its port."""
    monkeypatch.setenv("OPENAI_BASE_URL", f"{url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    server = uvicorn.Server(uvicorn.Config(load("fastapi_service").app, port=0, log_level="warning", lifespan="on"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    try:
        eventually(lambda: server.started, "the service starts")
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def post(port: int, prompt: str) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/chat", json.dumps({"prompt": prompt}), {"content-type": "application/json"})
    return connection


def ask(port: int, prompt: str) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    connection = post(port, prompt)
    return connection, connection.getresponse()


def events(body: bytes) -> list[tuple[str, str]]:
    """The name and the JSON string of each server-sent event."""
    found: list[tuple[str, str]] = []
    for event in body.decode().removesuffix("\n\n").split("\n\n"):
        *named, data = event.split("\n")
        name = named[0].removeprefix("event: ") if named else "message"
        assert len(named) <= 1 and data.startswith("data: ")
        found.append((name, json.loads(data.removeprefix("data: "))))
    return found


def metrics(port: int) -> dict[str, int]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/metrics")
    counts: dict[str, int] = json.loads(connection.getresponse().read())
    connection.close()
    return counts


@pytest.mark.parametrize("prompt", ["hello", "two\nlines", 'an empty line\n\nand \r\n, \u2028 and "quotes"'])
def test_the_service_streams_an_answer(monkeypatch: pytest.MonkeyPatch, prompt: str) -> None:
    with serve_in_thread(MockProvider(keys={"test-key"})) as provider, service(monkeypatch, provider.url) as port:
        connection, response = ask(port, prompt)
        said = events(response.read())
        connection.close()
        assert response.status == 200
        assert len(said) == 20 and {name for name, _ in said} == {"message"}
        assert "".join(text for _, text in said) == expected_text(prompt)
        assert metrics(port)["done"] == 1


def test_a_failure_after_the_first_token_is_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = MockProvider(keys={"test-key"}, faults=FaultScript([Break(3)]))
    with serve_in_thread(provider) as upstream, service(monkeypatch, upstream.url) as port:
        connection, response = ask(port, "hello")
        *said, last = events(response.read())
        connection.close()
        assert response.status == 200
        assert said == [("message", "[hello]"), ("message", " w1"), ("message", " w2")]
        assert last == ("error", "stream_interrupted")
        assert metrics(port)["failed"] == 1


def test_a_failure_before_the_first_token_is_a_status(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_in_thread(MockProvider(keys={"another-key"})) as provider, service(monkeypatch, provider.url) as port:
        connection, response = ask(port, "hello")
        assert response.status == 502
        assert json.loads(response.read()) == {"detail": "unauthorized"}
        connection.close()


def test_a_client_that_disconnects_cancels_upstream(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = MockProvider(keys={"test-key"}, faults=FaultScript([SlowTokens(0.2)]), default_output_tokens=1000)
    with serve_in_thread(provider) as upstream, service(monkeypatch, upstream.url) as port:
        connection, response = ask(port, "hello")
        assert response.readline().startswith(b"data: ")
        assert provider.active == 1
        connection.sock.close() if connection.sock else response.close()
        response.close()
        eventually(lambda: provider.active == 0, "the provider sees its client leave")
        eventually(lambda: metrics(port)["cancelled"] == 1, "the request is counted as cancelled")
        assert metrics(port)["in_flight"] == 0


@pytest.mark.parametrize(
    "fault",
    [SlowFirstByte(60), NeverRespond(), StallAfterHead(), Throttle(retry_after="60")],
    ids=lambda fault: type(fault).__name__,
)
def test_a_client_that_disconnects_before_the_first_token_cancels_upstream(
    monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    provider = MockProvider(keys={"test-key"}, faults=FaultScript([fault]))
    with serve_in_thread(provider) as upstream, service(monkeypatch, upstream.url) as port:
        connection = post(port, "hello")
        eventually(lambda: provider.requests_total == 1, "the request is upstream")
        assert metrics(port)["cancelled"] == 0
        connection.close()
        eventually(lambda: metrics(port)["cancelled"] == 1, "the request is counted as cancelled")
        eventually(lambda: provider.active == 0, "the provider sees its client leave")
        assert metrics(port) == {"in_flight": 0, "done": 0, "cancelled": 1, "failed": 0}
        assert provider.requests_total == 1


def test_a_client_that_disconnects_while_the_model_stalls_cancels_upstream(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = MockProvider(keys={"test-key"}, faults=FaultScript([StallAfterChunks(2)]))
    with serve_in_thread(provider) as upstream, service(monkeypatch, upstream.url) as port:
        connection, response = ask(port, "hello")
        assert response.readline().startswith(b"data: ")
        response.close()
        connection.close()
        eventually(lambda: provider.active == 0, "the provider sees its client leave")
        eventually(lambda: metrics(port)["cancelled"] == 1, "the request is counted as cancelled")


def test_a_response_that_never_begins_leaves_the_stream_too() -> None:
    """The client leaves between the first token and the head: the block is left now, not by the garbage collector."""
    left: list[bool] = []

    async def tokens() -> AsyncIterator[str]:
        try:
            yield "one"
            yield "two"
        finally:
            left.append(True)

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(_: Any) -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        answer = tokens()
        response = load("fastapi_service").Events(await anext(answer), answer)
        await asyncio.wait_for(response({"type": "http"}, receive, send), 20)
        assert left

    asyncio.run(main())
