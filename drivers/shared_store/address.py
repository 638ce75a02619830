"""Where the store is, as its URL says: taken apart and checked here, so that no part of it shows in anybody's errors.

A URL holds a password. Errors name what is wrong with it, never what stands there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

_TLS_BY_SCHEME: Final = {"redis": False, "rediss": True, "valkey": False, "valkeys": True, "unix": False}
_DEFAULT_PORT: Final = 6379
_TRUTH: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_OPTIONS: Final = ("client_name", "db")
_TLS_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TLS_OPTIONS: Final = (*_TLS_FILES, "ssl_cert_reqs", "ssl_check_hostname")
_CERTIFICATE: Final = ("none", "optional", "required")


class UnusableUrl(ValueError):
    """There is no URL, or none that can be used. Its text is ours, and holds nothing of the URL."""

    def __init__(self, what: str) -> None:
        super().__init__(f"cluster: url: {what}")


@dataclass(frozen=True, slots=True, repr=False)
class StoreAddress:
    """A server, one of its databases, and who asks it.

    path: the server's socket in the file system; then host and port mean nothing. username, password, client_name: ``None``
    where there is none. tls: the options of redis-py for TLS; ``None`` without TLS. None of it is in the `repr`.
    """

    host: str
    port: int
    path: str | None
    db: int
    username: str | None
    password: str | None
    client_name: str | None
    tls: tuple[tuple[str, str | bool], ...] | None


def parse_address(url: str) -> StoreAddress:
    """The address that a URL stands for: ``valkey://user:password@host:port/db?client_name=…``, or ``unix:///path?db=…``.

    Options are redis-py's, as far as they make sense here: how long to wait, and whether to try again, is said elsewhere.
    Raises `UnusableUrl`.
    """
    if not url.isprintable() or " " in url:
        raise UnusableUrl("holds a space, or a character that cannot be printed")
    if "#" in url:
        raise UnusableUrl("holds a '#' (in a password it is written %23)")
    try:
        parts = urlsplit(url)
        port = parts.port
        query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True) if parts.query else []
    except ValueError:  # its text holds what it cannot read
        raise UnusableUrl("cannot be taken apart (in a password, each of / ? @ [ ] is written as %2F and so on)") from None
    if parts.scheme not in _TLS_BY_SCHEME:
        raise UnusableUrl(f"does not begin with one of {', '.join(f'{scheme}://' for scheme in _TLS_BY_SCHEME)}")
    if port == 0:
        raise UnusableUrl("its port is 0")
    secured = _TLS_BY_SCHEME[parts.scheme]
    options = _options(query, (*_OPTIONS, *_TLS_OPTIONS) if secured else _OPTIONS)
    path = _socket_path(parts) if parts.scheme == "unix" else None
    return StoreAddress(
        host=unquote(parts.hostname or "localhost"),
        port=_DEFAULT_PORT if port is None else port,
        path=path,
        db=_database([unquote(parts.path[1:])] if path is None and len(parts.path) > 1 else [], options),
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        client_name=options.get("client_name") or None,
        tls=_tls(options) if secured else None,
    )


def _options(query: Sequence[tuple[str, str]], known: Sequence[str]) -> dict[str, str]:
    options = dict(query)
    if len(options) < len(query) or not options.keys() <= set(known):
        raise UnusableUrl(f"has an option twice, or one that is none of {', '.join(known)}")
    return options


def _socket_path(parts: SplitResult) -> str:
    if parts.hostname or parts.port is not None or len(parts.path) < 2:
        raise UnusableUrl("does not hold an absolute path after unix:// (three slashes)")
    return unquote(parts.path)


def _database(path: list[str], options: dict[str, str]) -> int:
    named = path + ([options["db"]] if "db" in options else [])
    if not named:
        return 0
    if len(named) > 1 or not named[0].isascii() or not named[0].isdigit() or len(named[0]) > 9:
        raise UnusableUrl("its database is not one number of at least 0")
    return int(named[0])


def _tls(options: dict[str, str]) -> tuple[tuple[str, str | bool], ...]:
    need = options.get("ssl_cert_reqs", "required")
    if need not in _CERTIFICATE:
        raise UnusableUrl(f"its ssl_cert_reqs is none of {', '.join(_CERTIFICATE)}")
    checked = _TRUTH.get(options.get("ssl_check_hostname", "true").lower())
    if checked is None:
        raise UnusableUrl(f"its ssl_check_hostname is none of {', '.join(_TRUTH)}")
    files = ((name, options[name]) for name in _TLS_FILES if options.get(name))
    return ("ssl_cert_reqs", need), ("ssl_check_hostname", checked and need != "none"), *files
