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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
import uvicorn

from drivers.mock_provider import serve_in_thread
from sansio.simulation import FaultScript, MockProvider
from sansio.simulation.faults import SlowTokens

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


@contextmanager
def service(monkeypatch: pytest.MonkeyPatch, url: str) -> Iterator[int]:
    """The FastAPI example under a real server; yields its port."""
    monkeypatch.setenv("OPENAI_BASE_URL", f"{url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    server = uvicorn.Server(uvicorn.Config(load("fastapi_service").app, port=0, log_level="warning", lifespan="on"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        eventually(lambda: server.started, "the service starts")
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def ask(port: int, prompt: str) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/chat", json.dumps({"prompt": prompt}), {"content-type": "application/json"})
    return connection, connection.getresponse()


def metrics(port: int) -> dict[str, int]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/metrics")
    counts: dict[str, int] = json.loads(connection.getresponse().read())
    connection.close()
    return counts


def test_the_service_streams_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_in_thread(MockProvider(keys={"test-key"})) as provider, service(monkeypatch, provider.url) as port:
        connection, response = ask(port, "hello")
        text = "".join(line.removeprefix("data: ") for line in response.read().decode().split("\n\n"))
        connection.close()
        assert response.status == 200
        assert text.startswith("[hello] w1 w2")
        assert metrics(port)["done"] == 1


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
