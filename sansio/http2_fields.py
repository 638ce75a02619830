"""Header fields as HTTP/2 carries them: those of a request, and what those of a response must be (RFC 9113, 8.2 and 8.3).

h2 could check them too, but takes a bad field for the end of the whole connection, where the RFC has it end one stream, and
twice the time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from .http import SENSITIVE_HEADERS, HttpRequest, ResponseHead
from .http_checks import authority, content_length
from .scrub import excerpt

if TYPE_CHECKING:
    from hpack import HeaderTuple
    from hpack.struct import Header

_OF_A_CONNECTION = frozenset({"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"})
"""What HTTP/1.1 says of its connection; HTTP/2 has no such fields (8.2.2)."""

_NOT_SENT = _OF_A_CONNECTION | {"content-length", "host", "te"}
"""Those, and what is written here."""

_REFUSED = frozenset(name.encode() for name in _OF_A_CONNECTION)

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
_STATUS = re.compile(rb"[2-9][0-9][0-9]")


def request_fields(request: HttpRequest) -> list[HeaderTuple]:
    """The fields that open a stream. What `HttpRequest` has checked is not checked again."""
    from hpack import HeaderTuple, NeverIndexedHeaderTuple

    origin = request.origin
    fields: list[HeaderTuple] = [
        HeaderTuple(b":method", request.method.encode()),
        HeaderTuple(b":scheme", origin.scheme.encode()),
        HeaderTuple(b":authority", authority(origin).encode()),
        HeaderTuple(b":path", request.target.encode()),
    ]
    for name, value in request.headers:
        if name not in _NOT_SENT:  # a credential is not to enter a table that is compared with what others choose
            kind = NeverIndexedHeaderTuple if name in SENSITIVE_HEADERS else HeaderTuple
            fields.append(kind(name.encode(), value.strip(" \t").encode("latin-1")))
    if not any(name == "accept-encoding" for name, _ in request.headers):
        fields.append(HeaderTuple(b"accept-encoding", b"identity"))  # without it any coding would do (RFC 9110, 12.5.3)
    if (length := content_length(request)) is not None:
        fields.append(HeaderTuple(b"content-length", b"%d" % length))
    return fields


def response_head(fields: Iterable[Header]) -> ResponseHead | str:
    """The head of a final response, or what is wrong with it."""
    (name, status), *rest = [*fields] or [(b"", b"")]
    if name != b":status" or not _STATUS.fullmatch(status):
        return "a head without a status"
    if problem := malformed(rest):
        return problem
    return ResponseHead(int(status), tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in rest))


def malformed(fields: Iterable[Header]) -> str | None:
    """What is wrong with these fields, none of which may be a pseudo-header field; ``None``: nothing."""
    for name, value in fields:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value) or name in _REFUSED:
            return f"the field {excerpt(name)[:40]!r}, or its value, is not allowed"
    return None
