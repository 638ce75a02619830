"""The values of the seam to the wire: a request in; a head, pieces of body and an end (or an error) out.

Whoever moves the bytes (the core's own HTTP/1.1 machine under a driver's socket, or a general HTTP client) speaks these
values and nothing else.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from .errors import InferenceError
from .scrub import scrub

Headers = tuple[tuple[str, str], ...]
"""Header fields in order, names in lower case."""

SENSITIVE_HEADERS: Final = frozenset(
    {"authorization", "proxy-authorization", "x-api-key", "api-key", "x-goog-api-key", "ocp-apim-subscription-key",
     "x-litellm-api-key", "cookie", "set-cookie"}
)  # fmt: skip
"""Names whose values `HttpRequest` and `ResponseHead` never show."""


_NOT_IN_A_FIELD: Final = re.compile(r"[^\t\x20-\x7e\x80-\xff]")
"""What no field value may hold (RFC 9110, section 5.5): CR, LF, NUL and kin, and what has no single byte."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a connection goes: the key of the connection pool and of a circuit breaker."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request, ready for any client: an absolute ``http(s)`` URL, headers, and the whole body.

    ``host``, ``content-length`` and connection headers are the client's to add. Raises `ValueError` at construction for
    a URL that is not absolute, not ASCII or holds user information, for a header that HTTP cannot carry, and for any control
    character. One with a header of `SENSITIVE_HEADERS` cannot be pickled (`TypeError`); a copy is the request itself.
    """

    method: str
    url: str
    headers: Headers = ()
    body: bytes = b""

    def __post_init__(self) -> None:
        parse_origin(self.url)
        if not (self.method.isascii() and self.method.isalpha()):
            raise ValueError(f"method: {self.method!r} is not a method name")
        for name, value in self.headers:
            if name != name.lower() or not (name.isascii() and name.replace("-", "").replace("_", "").isalnum()):
                raise ValueError(f"headers: {name!r} is not a lower-case header name")
            if _NOT_IN_A_FIELD.search(value):
                raise ValueError(f"headers: the value of {name!r} holds a control character or one beyond Latin-1")

    @property
    def origin(self) -> Origin:
        """Scheme, host and port of the URL, the port filled in."""
        return parse_origin(self.url)

    @property
    def target(self) -> str:
        """The origin-form request target: path and query (RFC 9112, section 3.2.1)."""
        url, _, _ = self.url.partition("#")
        base, _, query = url.partition("?")
        path = _split(base)[1]
        return f"{path}?{query}" if query else path

    def __getstate__(self) -> list[object]:
        for name, _ in self.headers:
            if name in SENSITIVE_HEADERS:
                raise TypeError(
                    f"an HttpRequest with the header {name!r} cannot be pickled: its value would be in the pickle"
                )
        return [getattr(self, field.name) for field in fields(self)]

    def __copy__(self) -> HttpRequest:
        return self

    def __deepcopy__(self, memo: object) -> HttpRequest:
        return self

    def __repr__(self) -> str:
        return f"HttpRequest({self.method} {scrub(self.url)} {_shown(self.headers)} {len(self.body)} bytes)"


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """Status and header fields of a response; names in lower case."""

    status: int
    headers: Headers = ()

    def header(self, name: str) -> str | None:
        """The first value of ``name`` (lower case), or ``None``."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    def __repr__(self) -> str:
        return f"ResponseHead({self.status} {_shown(self.headers)})"


class EndOfResponse(enum.Enum):
    """The response ended as its framing said it would."""

    END = "end"


END: Final = EndOfResponse.END
"""The one `EndOfResponse`."""

HttpEvent = ResponseHead | bytes | EndOfResponse | InferenceError
"""What a wire yields for one request: a head, then pieces of body, then `END`; or, in place of any of them, an error."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The clocks of one attempt, in seconds; ``None`` switches one off.

    connect_timeout: until the connection (TLS included) stands.
    request_timeout: from sending to the first byte of the head; by default 600 for a unary answer, 60 for a stream.
    read_timeout: between any bytes, while the caller waits for them.
    content_timeout: between content (keep-alive pings are bytes, not content), while the caller waits.
    total_timeout: the whole attempt, the caller's pauses included.
    """

    connect_timeout: float | None = 5.0
    request_timeout: float | None = None
    read_timeout: float | None = 60.0
    content_timeout: float | None = 300.0
    total_timeout: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            if isinstance(value, bool) or not (isinstance(value, (int, float)) and 0 < value < math.inf):
                raise ValueError(f"{field.name}: {value!r} is not a number of seconds above 0, nor None")

    def first_byte(self, *, stream: bool) -> float:
        """The clock from sending to the first byte: as configured, else 60 s for a stream and 600 s for a unary answer."""
        if self.request_timeout is not None:
            return self.request_timeout
        return 60.0 if stream else 600.0


_DEFAULT_PORTS = {"http": 80, "https": 443}


def parse_origin(url: str) -> Origin:
    """The origin of an absolute URL. Raises `ValueError` saying what is wrong with ``url``."""
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise ValueError("url: holds a space, a control character or one beyond ASCII; percent-encode it")
    return _split(url.partition("#")[0].partition("?")[0])[0]


@lru_cache(maxsize=128)  # a deployment has few, and each request asks three times
def _split(url: str) -> tuple[Origin, str]:
    """Origin and path of a URL whose query is left off: that differs from request to request, and may hold a key."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"url: {error}") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("url: holds user information; pass the credential as api_key")
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or port == 0:
        shown = scrub(url.rpartition("@")[2])
        raise ValueError(f"url: {shown!r} is not an absolute http:// or https:// URL")
    return Origin(parts.scheme, parts.hostname, port or _DEFAULT_PORTS[parts.scheme]), parts.path or "/"


def lower_headers(headers: Iterable[tuple[str, str]]) -> Headers:
    """The same fields with lower-case names."""
    return tuple((name.lower(), value) for name, value in headers)


def _shown(headers: Headers) -> str:
    return "{" + ", ".join(f"{n}: ***" if n in SENSITIVE_HEADERS else scrub(f"{n}: {v}") for n, v in headers) + "}"
