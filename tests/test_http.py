"""The values at the seam to the wire: what is refused before it can be sent, and what never shows in a `repr`."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sansio.http import END, SENSITIVE_HEADERS, HttpRequest, Origin, ResponseHead, Timeouts, lower_headers, parse_origin


@pytest.mark.parametrize(
    ("url", "origin", "shown"),
    [
        ("http://127.0.0.1:8080/v1", Origin("http", "127.0.0.1", 8080), "http://127.0.0.1:8080"),
        ("https://api.openai.com/v1/x?y=1#z", Origin("https", "api.openai.com", 443), "https://api.openai.com:443"),
        ("http://example.org", Origin("http", "example.org", 80), "http://example.org:80"),
        ("http://example.org:/", Origin("http", "example.org", 80), "http://example.org:80"),
        ("HTTPS://Example.ORG", Origin("https", "example.org", 443), "https://example.org:443"),
        ("http://[::1]:8080/", Origin("http", "::1", 8080), "http://[::1]:8080"),
        ("https://h/models/claude@20250514:raw", Origin("https", "h", 443), "https://h:443"),
        ("http://h:65535", Origin("http", "h", 65535), "http://h:65535"),
    ],
)
def test_an_origin_is_scheme_host_and_port(url: str, origin: Origin, shown: str) -> None:
    assert parse_origin(url) == HttpRequest("GET", url).origin == origin
    assert str(origin) == shown
    assert parse_origin(shown) == origin


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "not an absolute"),
        ("api.openai.com/v1", "not an absolute"),
        ("/v1/chat", "not an absolute"),
        ("ftp://h/", "not an absolute"),
        ("http:///v1", "not an absolute"),
        ("https://:443/", "not an absolute"),
        ("http://h:0/", "not an absolute"),
        ("http://h:65536/", "Port out of range"),
        ("http://h:x/", "Port could not be cast"),
        ("http://[::1/", "Invalid IPv6"),
        ("http://user@h/", "user information"),
        ("http://user:word@h/", "user information"),
        ("http://:word@h/", "user information"),
        ("http://h/a b", "percent-encode"),
        ("http://h/\r\nx: y", "percent-encode"),
        ("http://h/\x00", "percent-encode"),
        ("http://h/\x7f", "percent-encode"),
        ("http://h/é", "percent-encode"),
        ("http://h/\u2028", "percent-encode"),
    ],
)
def test_a_url_that_cannot_be_sent_is_refused(url: str, why: str) -> None:
    for build in (lambda: parse_origin(url), lambda: HttpRequest("GET", url)):
        with pytest.raises(ValueError, match=f"^url: .*{why}"):
            build()


@pytest.mark.parametrize(
    "url", ["user:hunter2@h/v1", "ftp://user:hunter2@h/", "ftp://h/?key=hunter2", "http://user:hunter2@h/"]
)
def test_a_refused_url_is_quoted_without_its_secrets(url: str) -> None:
    with pytest.raises(ValueError, match="url: ") as refused:
        parse_origin(url)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://h", "/"),
        ("http://h/", "/"),
        ("http://h?a=b", "/?a=b"),
        ("http://h/v1/x?a=b&c=%20", "/v1/x?a=b&c=%20"),
        ("http://h/v1/m:stream?alt=sse#part", "/v1/m:stream?alt=sse"),
        ("http://h/models/claude@2025", "/models/claude@2025"),
    ],
)
def test_the_target_is_path_and_query(url: str, target: str) -> None:
    assert HttpRequest("POST", url).target == target


@pytest.mark.parametrize("method", ["", "GE T", "GET\r\n", "G\x00T", "1", "ΓΕΤ"])
def test_a_method_is_letters(method: str) -> None:
    with pytest.raises(ValueError, match=r"^method: "):
        HttpRequest(method, "http://h/")


@pytest.mark.parametrize("name", ["", "-", "X-Api-Key", "a b", "a:", "a\r\n", "é", "a\x00", ":authority"])
def test_a_header_name_is_a_lower_case_token(name: str) -> None:
    with pytest.raises(ValueError, match=r"^headers: .* is not a lower-case header name"):
        HttpRequest("GET", "http://h/", ((name, "v"),))


@pytest.mark.parametrize("character", ["\r", "\n", "\x00", "\x1b", "\x1f", "\x7f", "\u0100", "\u2028", "\U0001f511"])
def test_a_header_value_is_what_a_field_may_hold(character: str) -> None:
    with pytest.raises(ValueError, match=r"^headers: the value of 'x-a' holds") as refused:
        HttpRequest("GET", "http://h/", (("x-ok", "1"), ("x-a", f"hunter2{character}b")))
    assert "hunter2" not in str(refused.value)


def test_what_a_header_may_hold_is_taken() -> None:
    headers = (("x-a", "a\tb c"), ("x_b-2", "\x80\xff"), ("x-c", ""), ("x-c", "again"))
    assert HttpRequest("GET", "http://h/", headers).headers == headers


@pytest.mark.parametrize("name", sorted(SENSITIVE_HEADERS))
def test_sensitive_headers_are_never_shown(name: str) -> None:
    headers = ((name, "one, two; hunter2"), ("x-b", "shown"))
    for value in (HttpRequest("POST", "https://h/v1", headers, b"{}"), ResponseHead(200, headers)):
        assert "hunter2" not in repr(value)
        assert f"{name}: ***" in repr(value)
        assert "x-b: shown" in repr(value)
        assert "hunter2" not in str(value)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", sorted(SENSITIVE_HEADERS))
def test_with_a_sensitive_header_a_request_cannot_be_pickled(name: str, protocol: int) -> None:
    request = HttpRequest("POST", "https://h/v1", (("x-b", "shown"), (name, "hunter2")), b"{}")
    for give_out in (
        lambda: pickle.dumps([request], protocol),
        lambda: request.__reduce_ex__(protocol),
        request.__getstate__,
    ):
        with pytest.raises(TypeError, match=f"header '{name}' cannot be pickled") as refused:
            give_out()
        assert "hunter2" not in str(refused.value)
    assert copy.copy(request) is copy.deepcopy(request) is request


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_without_one_it_can(protocol: int) -> None:
    request = HttpRequest("POST", "https://h/v1", (("x-b", "shown"),), b"{}")
    assert pickle.loads(pickle.dumps(request, protocol)) == request


def test_a_repr_is_one_short_line() -> None:
    request = HttpRequest("POST", "https://h/v1?alt=sse&key=hunter2", (("x-a", "1"), ("x-my-api-key", "hunter2")), b"12345")
    assert repr(request) == "HttpRequest(POST https://h/v1?alt=sse&key=*** {x-a: 1, x-my-api-key: ***} 5 bytes)"
    head = ResponseHead(200, (("server", "x"), ("x-token", "Bearer hunter2")))
    assert repr(head) == "ResponseHead(200 {server: x, x-token: Bearer ***})"
    assert repr(ResponseHead(204)) == "ResponseHead(204 {})"


def test_the_first_value_of_a_header() -> None:
    head = ResponseHead(200, (("a", "1"), ("b", "2"), ("b", "3")))
    assert [head.header("a"), head.header("b"), head.header("c"), head.header("A")] == ["1", "2", None, None]


def test_names_to_lower_case() -> None:
    assert lower_headers([("Retry-After", "X"), ("a", "B")]) == (("retry-after", "X"), ("a", "B"))
    assert lower_headers(iter(())) == ()


def test_the_end_is_one_value() -> None:
    assert pickle.loads(pickle.dumps(END)) is END


FIELDS = [field.name for field in dataclasses.fields(Timeouts)]


def test_the_clocks_by_default() -> None:
    assert dataclasses.astuple(Timeouts()) == (5.0, None, 60.0, 300.0, None)


@pytest.mark.parametrize(
    ("timeouts", "stream", "seconds"),
    [
        (Timeouts(), False, 600.0),
        (Timeouts(), True, 60.0),
        (Timeouts(request_timeout=7), False, 7),
        (Timeouts(request_timeout=7), True, 7),
    ],
)
def test_the_clock_of_the_first_byte(timeouts: Timeouts, stream: bool, seconds: float) -> None:
    assert timeouts.first_byte(stream=stream) == seconds


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", [0, 0.0, -1, -0.5, math.nan, math.inf, -math.inf, True, False, "5", [], object()])
def test_a_clock_out_of_range_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name}: .* is not a number of seconds above 0, nor None"):
        Timeouts(**{name: value})


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", [None, 1, 0.001, 1e9])
def test_a_clock_in_range_is_taken(name: str, value: float | None) -> None:
    assert getattr(Timeouts(**{name: value}), name) == value


@given(st.text(max_size=30) | st.text("htps:/@[]?#1a.", max_size=30))
@settings(max_examples=200, deadline=None)
def test_a_url_is_an_origin_or_a_value_error(url: str) -> None:
    try:
        origin = parse_origin(url)
    except ValueError:
        with pytest.raises(ValueError, match=r"^url: "):
            HttpRequest("GET", url)
        return
    assert origin.scheme in ("http", "https")
    assert origin.host
    assert 0 < origin.port < 65536
    assert HttpRequest("GET", url).target.encode("ascii").startswith(b"/")


@given(st.text(max_size=8), st.text(max_size=12))
@settings(max_examples=200, deadline=None)
def test_a_header_that_is_taken_fits_on_the_wire(name: str, value: str) -> None:
    try:
        request = HttpRequest("GET", "http://h/", ((name, value),))
    except ValueError:
        return
    line = f"{request.headers[0][0]}: {request.headers[0][1]}".encode("latin-1")
    assert not set(line) & {0, 10, 13}
