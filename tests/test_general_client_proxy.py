"""Through a real forward proxy, as the environment names it: the choice, the way, and NO_PROXY; in each driver."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trustme
from conformance.harness import Lab, Tls, Way, causes, eventually, said
from general_wire import listening

from drivers.asyncio_driver import general as on_asyncio
from drivers.front.choice import Choice, choose
from drivers.sync_driver import general as with_threads
from drivers.trio_driver import general as on_trio
from sansio import NetworkError, PoolConfig
from sansio.http import parse_origin
from sansio.simulation import StallAfterChunks

PASSWORD = "hunter2hunter2"
CREDENTIALS = b"proxy-authorization: basic bWU6aHVudGVyMmh1bnRlcjI="  # me:hunter2hunter2
BUILDERS: dict[str, Any] = {"sync": with_threads, "asyncio": on_asyncio, "trio": on_trio}


@dataclass
class Proxy:
    """A forward proxy: tunnels by CONNECT (RFC 9110, section 9.3.6), plain requests in absolute form (RFC 9112, 3.2.2)."""

    refuses: bytes = b""
    heads: list[bytes] = field(default_factory=list[bytes])
    port: int = 0

    def converse(self, known: socket.socket) -> None:
        with known, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                if not (more := known.recv(65536)):
                    return
                head += more
            self.heads.append(head)
            if self.refuses:
                known.sendall(self.refuses)
                return
            method, target, rest = head.split(b" ", 2)
            tunnel = method == b"CONNECT"
            place, _, path = (target if tunnel else target.removeprefix(b"http://")).partition(b"/")
            host, _, port = place.decode().rpartition(":")
            with socket.create_connection((host, int(port))) as upstream:
                if tunnel:
                    known.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                else:
                    upstream.sendall(b"%s /%s %s" % (method, path, rest))
                back = threading.Thread(target=pump, args=(upstream, known))
                back.start()
                pump(known, upstream)
                back.join()


def pump(source: socket.socket, target: socket.socket) -> None:
    """Bytes one way, until either end hangs up; then both ends hear of it."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for known in (source, target):
        with contextlib.suppress(OSError):
            known.shutdown(socket.SHUT_RDWR)


@contextmanager
def forward_proxy(refuses: bytes = b"") -> Iterator[Proxy]:
    proxy = Proxy(refuses)
    with listening(proxy.converse) as port:
        proxy.port = port
        yield proxy


@dataclass(frozen=True)
class ProxiedWay(Way):
    """The client that the environment's choice makes."""

    endpoints: list[str] = field(default_factory=list[str])
    choices: list[Choice] = field(default_factory=list[Choice])

    def client(self, trusting: ssl.SSLContext, pool: PoolConfig | None = None) -> Any:
        choice = choose(None, [parse_origin(endpoint) for endpoint in self.endpoints])
        self.choices.append(choice)
        if choice.name == "native":
            return self.module.build_client(ssl_context=trusting, pool=pool)
        return BUILDERS[self.driver].general_client(choice, trusting, pool)


@pytest.fixture(scope="module")
def tls() -> Tls:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return Tls(server, client)


@dataclass
class Place:
    """A provider, a way to it, and the environment."""

    lab: Lab
    way: ProxiedWay
    variable: str
    environment: pytest.MonkeyPatch

    def name(self, proxy: Proxy) -> None:
        self.environment.setenv(self.variable, f"http://me:{PASSWORD}@127.0.0.1:{proxy.port}")


@pytest.fixture(params=[(driver, secure) for driver in BUILDERS for secure in (False, True)], ids=str)
def place(request: pytest.FixtureRequest, tls: Tls, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    driver, secure = request.param
    way = ProxiedWay(driver, secure)
    with Lab(way, tls).watched() as lab:
        way.endpoints.append(lab.server.endpoint)
        yield Place(lab, way, "HTTPS_PROXY" if secure else "HTTP_PROXY", monkeypatch)


def test_the_way_goes_through_the_proxy_that_the_environment_names(place: Place) -> None:
    with forward_proxy() as proxy:
        place.name(proxy)
        with place.lab.engine() as engine:
            for number in range(4):
                assert engine.ask(f"{number}", unary=number % 2 == 0).answer.text == said(f"{number}")
    [choice] = place.way.choices
    assert choice.detail == {"client": "httpx2", "reason": place.variable}
    [head] = proxy.heads  # and one connection carried it all
    target = f"127.0.0.1:{place.lab.server.port}"
    line = f"CONNECT {target} HTTP/1.1" if place.way.tls else f"POST http://{target}/v1/chat/completions HTTP/1.1"
    assert head.startswith(line.encode())
    assert CREDENTIALS.lower() in head.lower()
    assert (place.lab.provider.requests_total, place.lab.provider.connections_total) == (4, 1)


def test_no_proxy_is_heeded_by_the_choice_and_by_the_client(place: Place) -> None:
    with forward_proxy() as proxy:
        place.name(proxy)
        place.environment.setenv("NO_PROXY", "127.0.0.1")
        for forced in (None, "httpx2"):
            if forced is not None:
                place.environment.setattr(f"{__name__}.choose", lambda client, origins: Choice("httpx2"))
            with place.lab.engine() as engine:
                assert engine.stream().text == said()
    assert [choice.name for choice in place.way.choices] == ["native", "httpx2"]
    assert proxy.heads == []


@pytest.mark.parametrize(("status", "retried"), [(b"407 Proxy Authentication Required", 0), (b"503 Service Unavailable", 1)])
def test_a_proxy_that_refuses_is_told_without_its_password(place: Place, status: bytes, retried: int) -> None:
    if not place.way.tls:
        return  # without a tunnel, its refusal is the answer
    with forward_proxy(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\n\r\n") as proxy:
        place.name(proxy)
        with place.lab.engine(retry={"max_retries": 1}, rate_limits={"requests_per_minute": 100}) as engine:
            error = engine.ask().error
            assert isinstance(error, NetworkError)
            assert f"the proxy refused: ProxyError: {status.decode()}" in str(error)
            assert engine.metrics.retries == ({"network_error": 1} if retried else {})
            assert engine.call(engine.real.limiter.snapshot).requests.used == 0  # the provider heard nothing
            shown = [str(error), repr(error), str(error.to_dict()), *(repr(cause) for cause in causes(error))]
            assert not [text for text in shown if PASSWORD in text]
        assert len(proxy.heads) == 1 + retried
    assert place.lab.provider.requests_total == 0


def test_leaving_closes_the_tunnel_too(place: Place) -> None:
    with forward_proxy() as proxy:
        place.name(proxy)
        place.lab.script(StallAfterChunks(3))
        with place.lab.engine() as engine:
            engine.ask("left", leave_after=2).wait()
            eventually(lambda: place.lab.provider.connections_open == 0)
            assert engine.stream("next").text == said("next")
        assert len(proxy.heads) == 2
