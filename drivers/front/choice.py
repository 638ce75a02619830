"""Who moves the bytes: decided here, at one place, from what the caller names and what the environment asks for.

The native client goes straight to the provider. Where the environment names a proxy for it, a general client is taken by
itself, because such a network commonly lets nothing else out. A value of the environment may hold a password: none of them
is ever shown, only the names of the variables.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import ssl
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final
from urllib.request import getproxies_environment

from sansio import Http2, Origin, PoolConfig

NATIVE: Final = "native"
GENERAL: Final = ("httpx2", "httpx")
"""Those that may be named; taken by themselves in this order."""

_KINDS: Final = ("Client", "AsyncClient")


@dataclass(frozen=True, slots=True)
class Choice:
    """Who moves the bytes.

    name: ``"native"`` or one of `GENERAL`. given: a client that the caller has built. because: the variable that made the
    choice, where nobody named a client.
    """

    name: str
    given: Any = None
    because: str | None = None

    @property
    def detail(self) -> dict[str, str] | None:
        """What a `Notice` of the kind ``client`` tells: nothing where the caller chose, or nothing was to be chosen."""
        return None if self.because is None else {"client": self.name, "reason": self.because}

    def require_general(self, ssl_context: ssl.SSLContext | None, pool: PoolConfig | None) -> None:
        """Raise `ValueError` for what only the native client has, and for what a given client has of its own."""
        if pool is not None and pool.http2 is not Http2.OFF:
            raise ValueError(f'pool: HTTP/2 needs client="native"; {self.name} is spoken to over HTTP/1.1')
        if self.given is not None and (ssl_context is not None or pool is not None):
            raise ValueError("client: one that you have built keeps to its own TLS and its own pool; leave out the others")


def choose(client: object, origins: Iterable[Origin]) -> Choice:
    """Who moves the bytes to these origins.

    client: a name, a client object of httpx or httpx2, or ``None``: native, unless `proxied_by` says otherwise. Raises
    `ValueError` for anything else, and for a client that is not installed, saying what to install.
    """
    if client is None:
        return _by_itself(proxied_by(origins))
    if isinstance(client, str):
        if client not in (NATIVE, *GENERAL):
            raise ValueError(
                f"client: {client!r} is none of {', '.join((NATIVE, *GENERAL))}, nor a client of the latter two"
            )
        if client != NATIVE:
            load(client)
        return Choice(client)
    for name in GENERAL:
        module = sys.modules.get(name)  # whoever has built a client of it has imported it
        if module is not None and isinstance(client, tuple(getattr(module, kind) for kind in _KINDS)):
            return Choice(name, given=client)
    raise ValueError(f"client: a {type(client).__name__} is no client of httpx or httpx2, nor the name of one")


def load(name: str) -> Any:
    """The module of a general client. Raises `ValueError` naming the extra where it is not installed."""
    if not _is_installed(name):
        raise ValueError(f'client: {name!r} is not installed: pip install "inference-remote-core[{name}]"')
    return importlib.import_module(name)


def proxied_by(origins: Iterable[Origin]) -> str | None:
    """The environment variable that names a proxy for one of these origins, ``None`` where they are reached directly.

    HTTP_PROXY, HTTPS_PROXY and ALL_PROXY count in either case, less what NO_PROXY excepts.
    """
    proxies = getproxies_environment()
    for origin in origins:
        for scheme in (origin.scheme, "all"):
            if proxies.get(scheme) and not _is_excepted(origin, proxies.get("no", "")):
                return _variable(f"{scheme}_proxy")
    return None


def _by_itself(variable: str | None) -> Choice:
    if variable is None:
        return Choice(NATIVE)
    for name in GENERAL:
        if _is_installed(name):
            return Choice(name, because=variable)
    raise ValueError(
        f"client: {variable} names a proxy, and the native client uses none: "
        'pip install "inference-remote-core[httpx2]", or client="native" to go without the proxy'
    )


def _is_excepted(origin: Origin, exceptions: str) -> bool:
    """Whether NO_PROXY names this origin: its host, a domain above it, either with the port, or everything."""
    for entry in exceptions.lower().split(","):
        name = entry.strip().lstrip(".")
        if name == "*":
            return True
        for host in (origin.host, str(origin).partition("://")[2], f"{origin.host}:{origin.port}"):
            if name and (host == name or host.endswith(f".{name}")):
                return True
    return False


def _variable(lower: str) -> str:
    """The name as it stands in the environment. The one in lower case wins, as it does for `urllib`."""
    return lower if os.environ.get(lower) else lower.upper()


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None
