"""What a request and a response head must be on any version of HTTP: shared by the machines of the wire."""

from __future__ import annotations

from .errors import ProtocolError
from .http import Headers, HttpRequest, Origin

MAX_HEAD_BYTES = 64 * 1024
"""The most a response head may hold."""

_DEFAULT_PORTS = {"http": 80, "https": 443}
_WITHOUT_CONTENT = ("GET", "HEAD", "DELETE")


def authority(origin: Origin) -> str:
    """Host and port as ``Host`` and ``:authority`` have them: without the port where it is the default one."""
    name = f"[{origin.host}]" if ":" in origin.host else origin.host
    return name if origin.port == _DEFAULT_PORTS[origin.scheme] else f"{name}:{origin.port}"


def content_length(request: HttpRequest) -> int | None:
    """The content length to announce, or ``None`` where none is expected (RFC 9110, section 8.6)."""
    return len(request.body) if request.body or request.method not in _WITHOUT_CONTENT else None


def too_large(fields: Headers) -> ProtocolError | None:
    """A head past `MAX_HEAD_BYTES`, counted as HTTP/1.1 writes it."""
    size_bytes = sum(len(name) + len(value) + 4 for name, value in fields)
    return past_bound() if size_bytes > MAX_HEAD_BYTES else None


def past_bound() -> ProtocolError:
    """What a head past `MAX_HEAD_BYTES` is. The next one would be no shorter, so it is not tried again."""
    return ProtocolError(f"a response head is larger than {MAX_HEAD_BYTES} bytes")


def coded(fields: Headers) -> ProtocolError | None:
    """A body that is compressed although that was not asked for (RFC 9110, section 8.4)."""
    codings = ",".join(value for name, value in fields if name == "content-encoding").lower().split(",")
    unknown = sorted({coding.strip() for coding in codings} - {"", "identity"})
    return ProtocolError(f"the body is in the content coding {unknown[0][:40]!r}, not in identity") if unknown else None
