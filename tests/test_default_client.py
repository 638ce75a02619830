"""Which client an engine has when it is given none, what it says about it, and what is needed for each."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest
import trio

from drivers import asyncio_driver, sync_driver, trio_driver
from drivers.asyncio_driver.client import HttpClient
from sansio import Deployment, Http2, Notice, PoolConfig, Secret

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def deployment() -> Deployment:
    config = {"endpoint": "https://api.example.com/v1", "api_key": Secret.inline("k")}
    return Deployment(name="chat", model="gpt-4o", runtime_config=config)


def notices_of(driver: str) -> list[Notice]:
    """What an engine of this driver says when it is entered, and its client's type."""
    notices: list[Notice] = []

    async def enter(module: Any) -> None:
        async with module.RemoteEngine(deployment(), on_notice=notices.append):
            pass

    match driver:
        case "sync":
            with sync_driver.RemoteEngine(deployment(), on_notice=notices.append):
                pass
        case "asyncio":
            asyncio.run(enter(asyncio_driver))
        case _:
            trio.run(enter, trio_driver)
    return notices


@pytest.mark.parametrize("driver", ["sync", "asyncio", "trio"])
def test_where_the_environment_names_a_proxy_a_general_client_is_taken_with_a_notice(
    driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert notices_of(driver) == []
    monkeypatch.setenv("HTTPS_PROXY", "http://user:password@proxy.example.com:3128")
    (notice,) = notices_of(driver)
    assert (notice.kind, notice.deployment, notice.request_id) == ("client", "", None)
    assert notice.detail == {"client": "httpx2", "reason": "HTTPS_PROXY"}
    monkeypatch.setenv("NO_PROXY", "example.com")
    assert notices_of(driver) == []


def test_the_client_is_native_unless_another_is_named() -> None:
    assert isinstance(asyncio_driver.build_client(), HttpClient)
    assert isinstance(asyncio_driver.RemoteEngine(deployment()).client, HttpClient)
    assert not isinstance(asyncio_driver.build_client("httpx"), HttpClient)
    with pytest.raises(ValueError, match=r"client: 'curl' is none of native, httpx2, httpx"):
        asyncio_driver.build_client("curl")
    with pytest.raises(ValueError, match=r'pool: HTTP/2 needs client="native"'):
        asyncio_driver.build_client("httpx", pool=PoolConfig(http2=Http2.ONLY))


@pytest.mark.parametrize("driver", ["sync", "asyncio"])
def test_a_driver_needs_nothing_that_only_a_general_client_or_http2_needs(driver: str) -> None:
    code = (
        "import sys\n"
        "for name in ('httpx', 'httpx2', 'httpcore', 'httpcore2', 'anyio', 'h2', 'hpack', 'trio'):\n"
        "    sys.modules[name] = None\n"
        f"from drivers.{driver}_driver import RemoteEngine, build_client\n"
        "from sansio import Deployment, Secret\n"
        "RemoteEngine(Deployment(name='a', model='gpt-4o', runtime_config={'api_key': Secret.inline('k')}))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
