"""What a request announces and a response head must be, on any version of HTTP."""

from __future__ import annotations

import pytest

from sansio.errors import ProtocolError
from sansio.http import Headers, HttpRequest
from sansio.http_checks import MAX_HEAD_BYTES, authority, coded, content_length, too_large


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://h/", "h"),
        ("http://h:80/", "h"),
        ("http://h:443/", "h:443"),
        ("https://h/", "h"),
        ("https://h:443/", "h"),
        ("https://h:80/", "h:80"),
        ("https://H.Example:8443/", "h.example:8443"),
        ("http://[::1]/", "[::1]"),
        ("http://[::1]:8080/", "[::1]:8080"),
    ],
)
def test_the_authority_has_a_port_that_is_not_the_default_one(url: str, expected: str) -> None:
    assert authority(HttpRequest("GET", url).origin) == expected


@pytest.mark.parametrize(
    ("method", "body", "expected"),
    [
        ("GET", b"", None),
        ("HEAD", b"", None),
        ("DELETE", b"", None),
        ("GET", b"x", 1),
        ("POST", b"", 0),
        ("PUT", b"", 0),
        ("POST", "Grüß".encode(), 6),
    ],
)
def test_the_content_length_is_that_of_the_body(method: str, body: bytes, expected: int | None) -> None:
    assert content_length(HttpRequest(method, "http://h/", (), body)) == expected


@pytest.mark.parametrize(("value_bytes", "fits"), [(0, True), (MAX_HEAD_BYTES - 5, True), (MAX_HEAD_BYTES - 4, False)])
def test_a_head_has_a_bound(value_bytes: int, fits: bool) -> None:
    error = too_large((("a", "x" * value_bytes),))
    assert (error is None) is fits
    if error is not None:
        assert str(MAX_HEAD_BYTES) in error.message
        assert not error.retryable


def test_all_fields_count() -> None:
    assert isinstance(too_large((("a", "b"),) * 12_000), ProtocolError)
    assert too_large((("a", "b"),) * 10_000) is None


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ([], None),
        ([""], None),
        (["identity"], None),
        (["Identity", " identity "], None),
        (["gzip"], "gzip"),
        (["identity, BR"], "br"),
        (["identity", "GZIP"], "gzip"),
        (["x" * 100], "x" * 40),
    ],
)
def test_no_coding_but_identity_is_taken(values: list[str], named: str | None) -> None:
    fields: Headers = (("accept", "gzip"), *(("content-encoding", value) for value in values))
    error = coded(fields)
    assert (None if error is None else error.message.split("'")[1]) == named
