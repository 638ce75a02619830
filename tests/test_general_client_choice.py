"""Who moves the bytes: what the caller names, what the environment asks for, and what is said when neither can be had."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from typing import Any

import httpx
import httpx2
import pytest
from conformance import test_leaving
from conformance.harness import NOT_WHILE_CONNECTING, Way

from drivers.asyncio_driver import general as on_asyncio
from drivers.front.choice import Choice, choose, proxied_by
from drivers.sync_driver import general as with_threads
from drivers.trio_driver import general as on_trio
from sansio import Http2, Origin, PoolConfig

HTTPS = Origin("https", "api.example.com", 443)
HTTP = Origin("http", "api.example.com", 8080)
LOCAL = Origin("http", "::1", 8080)
PROXY = "http://user:hunter2hunter2@proxy.example.com:3128"

WORLDS = pytest.mark.parametrize("world", [with_threads, on_asyncio, on_trio], ids=["sync", "asyncio", "trio"])


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """None of the variables is set."""
    for scheme in ("http", "https", "all", "no"):
        for name in (f"{scheme}_proxy", f"{scheme}_PROXY".upper()):
            monkeypatch.delenv(name, raising=False)
    return monkeypatch


def forget(monkeypatch: pytest.MonkeyPatch, *missing: str) -> None:
    """These packages are not installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing else find(name))


# ---- what the environment says ----------------------------------------------------------------------------------------

CASES: list[tuple[Mapping[str, str], list[Origin], str | None]] = [
    ({}, [HTTPS, HTTP], None),
    ({"HTTPS_PROXY": PROXY}, [HTTPS], "HTTPS_PROXY"),
    ({"https_proxy": PROXY}, [HTTPS], "https_proxy"),
    ({"https_proxy": PROXY, "HTTPS_PROXY": PROXY}, [HTTPS], "https_proxy"),
    ({"HTTPS_PROXY": PROXY}, [HTTP], None),
    ({"HTTPS_PROXY": PROXY}, [], None),
    ({"HTTP_PROXY": PROXY}, [HTTP], "HTTP_PROXY"),
    ({"HTTP_PROXY": PROXY}, [HTTPS], None),
    ({"HTTP_PROXY": PROXY}, [HTTPS, HTTP], "HTTP_PROXY"),
    ({"ALL_PROXY": PROXY}, [HTTPS], "ALL_PROXY"),
    ({"all_proxy": PROXY}, [HTTP], "all_proxy"),
    ({"ALL_PROXY": PROXY, "HTTPS_PROXY": PROXY}, [HTTPS], "HTTPS_PROXY"),
    ({"HTTPS_PROXY": ""}, [HTTPS], None),
    ({"HTTPS_PROXY": PROXY, "NO_PROXY": "api.example.com"}, [HTTPS], None),
    ({"HTTPS_PROXY": PROXY, "no_proxy": "other.com, EXAMPLE.com"}, [HTTPS], None),
    ({"HTTPS_PROXY": PROXY, "NO_PROXY": ".example.com"}, [HTTPS], None),
    ({"HTTPS_PROXY": PROXY, "NO_PROXY": "*"}, [HTTPS], None),
    ({"HTTPS_PROXY": PROXY, "NO_PROXY": "ample.com, ,"}, [HTTPS], "HTTPS_PROXY"),
    ({"HTTPS_PROXY": PROXY, "NO_PROXY": "api.example.com:443"}, [HTTPS], None),
    ({"ALL_PROXY": PROXY, "NO_PROXY": "api.example.com:443"}, [HTTP], "ALL_PROXY"),
    ({"ALL_PROXY": PROXY, "NO_PROXY": "api.example.com:8080"}, [HTTP, HTTPS], "ALL_PROXY"),
    ({"ALL_PROXY": PROXY, "NO_PROXY": "::1"}, [LOCAL], None),
    ({"ALL_PROXY": PROXY, "NO_PROXY": "[::1]:8080"}, [LOCAL], None),
]


@pytest.mark.parametrize(("variables", "origins", "expected"), CASES)
def test_the_variable_that_names_a_proxy(
    environment: pytest.MonkeyPatch, variables: Mapping[str, str], origins: list[Origin], expected: str | None
) -> None:
    for name, value in variables.items():
        environment.setenv(name, value)
    assert proxied_by(origins) == expected


# ---- the choice ---------------------------------------------------------------------------------------------------------


def test_native_where_nobody_asks_for_anything_else(environment: pytest.MonkeyPatch) -> None:
    choice = choose(None, [HTTPS])
    assert (choice, choice.detail) == (Choice("native"), None)


def test_a_proxy_makes_the_choice_and_that_is_told(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("HTTPS_PROXY", PROXY)
    choice = choose(None, [HTTPS])
    assert choice == Choice("httpx2", because="HTTPS_PROXY")
    assert choice.detail == {"client": "httpx2", "reason": "HTTPS_PROXY"}
    forget(environment, "httpx2")
    assert choose(None, [HTTPS]).name == "httpx"


def test_a_proxy_that_no_client_can_use_is_told_with_its_remedies(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("HTTPS_PROXY", PROXY)
    forget(environment, "httpx", "httpx2")
    with pytest.raises(ValueError, match=r'HTTPS_PROXY .*"inference-remote-core\[httpx2\]".*client="native"') as raised:
        choose(None, [HTTPS])
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("name", ["native", "httpx", "httpx2"])
def test_what_the_caller_names_counts_whatever_the_environment_says(environment: pytest.MonkeyPatch, name: str) -> None:
    environment.setenv("HTTPS_PROXY", PROXY)
    choice = choose(name, [HTTPS])
    assert (choice, choice.detail) == (Choice(name), None)


@pytest.mark.parametrize("name", ["httpx", "httpx2"])
def test_a_client_that_is_not_installed_is_told_with_its_extra(environment: pytest.MonkeyPatch, name: str) -> None:
    forget(environment, name)
    with pytest.raises(ValueError, match=rf'"inference-remote-core\[{name}\]"'):
        choose(name, [])


@pytest.mark.parametrize("wrong", ["requests", "", 1, object(), httpx.HTTPTransport, httpx.Request("GET", "http://x")])
def test_what_is_no_client_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="client: "):
        choose(wrong, [])


class OwnClient(httpx2.AsyncClient):
    """As the SDKs have them."""


@pytest.mark.parametrize(
    ("client", "name"),
    [(httpx.Client, "httpx"), (httpx.AsyncClient, "httpx"), (httpx2.Client, "httpx2"), (OwnClient, "httpx2")],
)
def test_a_client_object_tells_its_library(environment: pytest.MonkeyPatch, client: Any, name: str) -> None:
    environment.setenv("HTTPS_PROXY", PROXY)
    built = client(trust_env=False)
    choice = choose(built, [HTTPS])
    assert (choice.name, choice.detail) == (name, None)
    assert choice.given is built


# ---- what a driver makes of it ---------------------------------------------------------------------------------------


@WORLDS
def test_http2_is_the_native_clients(world: Any) -> None:
    with pytest.raises(ValueError, match='client="native"'):
        world.general_client(Choice("httpx"), None, PoolConfig(http2=Http2.OFFER))


@WORLDS
def test_a_client_of_the_users_keeps_its_own_settings(world: Any) -> None:
    kind = httpx.Client if world is with_threads else httpx.AsyncClient
    given = choose(kind(), [])
    with pytest.raises(ValueError, match="leave out"):
        world.general_client(given, None, PoolConfig())
    with pytest.raises(ValueError, match="leave out"):
        world.general_client(given, httpx.create_ssl_context(), None)
    assert world.general_client(given, None, None).deadline() is None


@WORLDS
def test_a_client_of_another_world_is_refused(world: Any) -> None:
    kind, needed = (httpx.AsyncClient, "Client") if world is with_threads else (httpx.Client, "AsyncClient")
    with pytest.raises(ValueError, match=rf"needs an httpx\.{needed}$"):
        world.general_client(choose(kind(), []), None, None)


@WORLDS
@pytest.mark.parametrize("name", ["httpx", "httpx2"])
@pytest.mark.parametrize(
    "proxy", ["nonsense://u:hunter2hunter2@host:1", "http://u:hunter2hunter2@host:port", "socks5://u:hunter2@h"]
)
def test_a_proxy_that_means_nothing_is_told_once_and_without_its_password(
    environment: pytest.MonkeyPatch, world: Any, name: str, proxy: str
) -> None:
    environment.setenv("HTTPS_PROXY", proxy)
    environment.setitem(sys.modules, "socksio", None)  # as if it were not installed
    with pytest.raises(ValueError, match=f"client: {name}") as raised:
        world.general_client(Choice(name), None, None)
    assert "hunter2" not in repr(raised.value)
    assert raised.value.__cause__ is None


# ---- what the suite of the drivers leaves out -------------------------------------------------------------------------


def test_what_a_way_cannot_show_is_little_and_is_the_blocking_clients() -> None:
    general = [Way(d, tls, t) for d in ("sync", "asyncio", "trio") for tls in (False, True) for t in ("httpx", "httpx2")]
    left_out = {(str(way), name) for way in general for name in way.cannot}
    assert {way.split("-")[0] for way, _ in left_out} == {"sync"}
    assert {name for _, name in left_out} == {name for name in vars(test_leaving) if name in NOT_WHILE_CONNECTING}
    assert len(left_out) == 6
