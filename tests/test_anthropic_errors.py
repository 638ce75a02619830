"""Errors in Anthropic's format (`sansio.providers.anthropic_errors`)."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mangled import mangled, words

from sansio.errors import InferenceError
from sansio.providers.anthropic import AnthropicMessages
from sansio.providers.anthropic_errors import OVERLOADED_WAIT, in_band_error

CODEC = AnthropicMessages()
KEY = "sk-ant-test-0123456789abcdef"
NOW = datetime(2026, 11, 24, 6, tzinfo=UTC).timestamp()
DAY = 86_400.0
TO_DECEMBER = 6 * DAY + 18 * 3600
HTML = b"<html><h1>Blocked by our gateway</h1></html>"


def said(kind: str, message: str = "m", error_code: str | None = None) -> bytes:
    details = {} if error_code is None else {"details": {"error_code": error_code}}
    return json.dumps(
        {"type": "error", "error": {"type": kind, "message": message, **details}, "request_id": "req_1"}
    ).encode()


# ---- row by row --------------------------------------------------------------------------------------------------------

TOO_LONG = "prompt is too long: 207310 tokens > 200000 maximum"
NO_ROOM = "input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000, decrease input length"
NO_CREDIT = "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade."
OWN_LIMIT = "You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC."
WORKSPACE_LIMIT = "You have reached your specified workspace API usage limits. You will regain access on 2026-12-02."
TIER_LIMIT = (
    "You have reached your API usage limits: your organization has crossed its monthly API usage threshold. "
    "You will regain access on 2026-12-01 at 06:30 UTC."
)

ROWS = [
    # status, body, kind, retryable, counted, blames the key, hint
    (400, said("invalid_request_error"), "bad_request", False, False, False, None),
    (400, said("invalid_request_error", TOO_LONG), "context_length_exceeded", False, False, False, None),
    (
        400,
        said("invalid_request_error", "Input is too long for the model"),
        "context_length_exceeded",
        False,
        False,
        False,
        None,
    ),
    (400, said("invalid_request_error", NO_ROOM), "context_length_exceeded", False, False, False, None),
    (
        400,
        said("invalid_request_error", "this exceeds the context window"),
        "context_length_exceeded",
        *(False, False, False, None),
    ),
    (
        400,
        said("invalid_request_error", "Output blocked by content filtering policy"),
        "content_filtered",
        *(False, False, False, None),
    ),
    (400, said("invalid_request_error", NO_CREDIT), "quota_exhausted", False, False, True, None),
    (400, said("invalid_request_error", OWN_LIMIT), "quota_exhausted", False, False, True, TO_DECEMBER),
    (400, said("invalid_request_error", WORKSPACE_LIMIT), "quota_exhausted", False, False, True, TO_DECEMBER + DAY),
    (
        400,
        said("invalid_request_error", "You have reached your API usage limits: regain access on 2026-11-25T06:00:00Z"),
        "quota_exhausted",
        *(False, False, True, DAY),
    ),
    (
        400,
        said("invalid_request_error", "reached your API usage limits. You will regain access on 2026-13-01."),
        "quota_exhausted",
        False,
        False,
        True,
        None,
    ),
    (400, said("invalid_request_error", error_code="organization_on_hold"), "forbidden", False, False, True, None),
    (400, said("rate_limit_error"), "bad_request", False, False, False, None),  # the status is the better reason
    (401, said("authentication_error", "invalid x-api-key"), "unauthorized", False, False, True, None),
    (401, said("authentication_error", TOO_LONG), "unauthorized", False, False, True, None),
    (401, HTML, "unauthorized", False, False, True, None),
    (402, said("billing_error"), "quota_exhausted", False, False, True, None),
    (402, said("billing_error", error_code="linked_organization_unpaid"), "quota_exhausted", False, False, True, None),
    (402, b"", "quota_exhausted", False, False, True, None),
    (403, said("billing_error"), "quota_exhausted", False, False, True, None),
    (403, said("permission_error"), "forbidden", False, False, True, None),
    (403, said("permission_error", NO_CREDIT), "forbidden", False, False, True, None),
    (403, b"", "forbidden", False, False, True, None),
    (403, HTML, "forbidden", False, False, False, None),  # the page of a proxy says nothing about the key
    (404, said("not_found_error", "model: claude-nope"), "not_found", False, False, False, None),
    (404, said("not_found_error", TOO_LONG), "not_found", False, False, False, None),
    (408, b"", "timeout", True, True, False, None),
    (409, said("conflict_error"), "conflict", True, False, False, None),
    (413, said("request_too_large"), "bad_request", False, False, False, None),
    (413, b"<html><center>413 Request Entity Too Large</center></html>", "bad_request", False, False, False, None),
    (413, said("request_too_large", "Prompt is too long"), "context_length_exceeded", False, False, False, None),
    (422, said("invalid_request_error"), "bad_request", False, False, False, None),
    (429, said("rate_limit_error"), "rate_limited", True, False, False, None),
    (429, said("rate_limit_error", error_code="ramp_limit_exceeded"), "rate_limited", True, False, False, None),
    (
        429,
        said("rate_limit_error", error_code="enforced_spend_limit_reached"),
        "quota_exhausted",
        *(False, False, True, TO_DECEMBER),
    ),
    (
        429,
        said("rate_limit_error", TIER_LIMIT, "enforced_spend_limit_reached"),
        "quota_exhausted",
        *(False, False, True, TO_DECEMBER + 6.5 * 3600),
    ),
    (429, said("rate_limit_error", TIER_LIMIT), "quota_exhausted", False, False, True, TO_DECEMBER + 6.5 * 3600),
    (429, said("rate_limit_error", error_code="contract_spend_limit_reached"), "quota_exhausted", False, False, True, None),
    (429, b"", "rate_limited", True, False, False, None),
    (429, HTML, "rate_limited", True, False, False, None),
    (500, said("api_error"), "server_error", True, True, False, None),
    (
        500,
        said("api_error", TOO_LONG),
        "server_error",
        True,
        True,
        False,
        None,
    ),  # a message is believed where we are to blame
    (500, said("overloaded_error"), "server_error", True, True, False, OVERLOADED_WAIT),
    (502, HTML, "server_error", True, True, False, None),
    (503, b"upstream connect error", "server_error", True, True, False, None),
    (503, said("api_error", error_code="cmek_key_unreachable"), "server_error", True, False, False, None),
    (504, said("timeout_error"), "server_error", True, True, False, None),
    (520, HTML, "server_error", True, True, False, None),
    (529, said("overloaded_error", "Overloaded"), "server_error", True, True, False, OVERLOADED_WAIT),
    (529, said("overloaded_error", error_code="compaction_unavailable"), "server_error", True, True, False, OVERLOADED_WAIT),
    (529, b"", "server_error", True, True, False, OVERLOADED_WAIT),
    (200, b"{}", "protocol_error", False, False, False, None),
    (301, said("rate_limit_error"), "protocol_error", False, False, False, None),
    (0, b"\xff\xfe", "protocol_error", False, False, False, None),
]


@pytest.mark.parametrize(("status", "data", "kind", "retryable", "counted", "blames", "hint"), ROWS)
def test_refusals(
    status: int, data: bytes, kind: str, retryable: bool, counted: bool, blames: bool, hint: float | None
) -> None:
    error = CODEC.classify(status, (), data, NOW)
    assert (error.kind, error.retryable, error.counts_as_circuit_failure, error.blames_key) == (
        *(kind, retryable, counted, blames),
    )
    assert error.retry_after == (None if hint is None else pytest.approx(hint))
    assert (error.provider, error.status) == ("anthropic", status)
    assert InferenceError.from_dict(error.to_dict()).to_dict() == error.to_dict()


@pytest.mark.parametrize(
    ("kind", "status", "found"),
    [
        ("invalid_request_error", 400, "bad_request"),
        ("authentication_error", 401, "unauthorized"),
        ("billing_error", 402, "quota_exhausted"),
        ("permission_error", 403, "forbidden"),
        ("not_found_error", 404, "not_found"),
        ("conflict_error", 409, "conflict"),
        ("request_too_large", 413, "bad_request"),
        ("rate_limit_error", 429, "rate_limited"),
        ("api_error", 500, "server_error"),
        ("timeout_error", 504, "server_error"),
        ("overloaded_error", 529, "server_error"),
        ("brand_new_error", None, "server_error"),
    ],
)
def test_inside_a_200_the_type_stands_for_the_status(kind: str, status: int | None, found: str) -> None:
    error = in_band_error("anthropic", said(kind))
    assert (error.kind, error.status, error.code, error.provider_request_id) == (found, status, kind, "req_1")
    assert error.retryable is (found in ("server_error", "conflict", "rate_limited"))
    assert error.retry_after == (OVERLOADED_WAIT if kind == "overloaded_error" else None)
    assert CODEC.classify(200, (), said(kind), NOW).to_dict() == error.to_dict()


@pytest.mark.parametrize(
    ("data", "found", "status", "message"),
    [
        (said("invalid_request_error", TOO_LONG), "context_length_exceeded", 400, TOO_LONG),
        (said("brand_new_error", TOO_LONG), "context_length_exceeded", None, TOO_LONG),
        (said("rate_limit_error", error_code="enforced_spend_limit_reached"), "quota_exhausted", 429, "m"),
        (b'{"error": {"code": "429", "message": "litellm: slow"}}', "rate_limited", 429, "litellm: slow"),
        (b'{"error": "broken"}', "server_error", None, "broken"),
        (b'{"error": {}, "type": "error"}', "server_error", None, "the provider sent an error without a message"),
    ],
)
def test_other_errors_inside_a_200(data: bytes, found: str, status: int | None, message: str) -> None:
    error = in_band_error("anthropic", data)
    assert (error.kind, error.status, error.message, error.retry_after) == (found, status, message, None)


# ---- hints and headers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "data"),
    [
        (429, said("rate_limit_error")),
        (429, said("rate_limit_error", error_code="ramp_limit_exceeded")),
        (429, said("rate_limit_error", error_code="enforced_spend_limit_reached")),
        (400, said("invalid_request_error", OWN_LIMIT)),
        (529, said("overloaded_error")),
        (503, b""),
    ],
)
def test_a_hint_in_the_headers_wins(status: int, data: bytes) -> None:
    assert CODEC.classify(status, (("retry-after", "7"),), data, NOW).retry_after == 7.0
    assert CODEC.classify(status, (("Retry-After", "0"),), data, NOW).retry_after == 0.0


USED_UP = (
    ("anthropic-ratelimit-input-tokens-remaining", "0"),
    ("anthropic-ratelimit-input-tokens-limit", "30000"),
    ("anthropic-ratelimit-input-tokens-reset", "2026-11-24T06:00:20Z"),
)


def test_a_reset_is_a_hint_on_a_429_for_what_is_used_up() -> None:
    assert CODEC.classify(429, USED_UP, said("rate_limit_error"), NOW).retry_after == pytest.approx(20.0)
    assert CODEC.classify(429, (*USED_UP, ("retry-after", "3")), b"", NOW).retry_after == 3.0
    assert CODEC.classify(503, USED_UP, b"", NOW).retry_after is None
    contract = said("rate_limit_error", error_code="contract_spend_limit_reached")
    assert CODEC.classify(429, USED_UP, contract, NOW).retry_after is None


@pytest.mark.parametrize(
    ("unix_now", "hint"),
    [
        (datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp(), 1.0),
        (datetime(2027, 1, 1, tzinfo=UTC).timestamp(), 31 * DAY),
        (datetime(2028, 2, 1, 12, tzinfo=UTC).timestamp(), 28.5 * DAY),
        (1e30, None),
        (math.inf, None),
        (math.nan, None),
        (datetime(9999, 12, 2, tzinfo=UTC).timestamp(), None),
    ],
)
def test_the_monthly_limit_ends_with_the_month(unix_now: float, hint: float | None) -> None:
    data = said("rate_limit_error", error_code="Enforced_Spend_Limit_Reached")
    assert CODEC.classify(429, (), data, unix_now).retry_after == hint


@pytest.mark.parametrize(
    ("word", "status", "data", "retryable"),
    [
        ("true", 400, said("invalid_request_error"), True),
        ("true", 400, said("invalid_request_error", TOO_LONG), True),
        ("true", 429, said("rate_limit_error"), True),
        ("true", 400, said("invalid_request_error", NO_CREDIT), False),  # never quota
        ("true", 401, said("authentication_error"), False),
        ("true", 400, said("invalid_request_error", error_code="organization_on_hold"), False),
        ("false", 529, said("overloaded_error"), False),
        ("false", 400, said("invalid_request_error", TOO_LONG), False),
    ],
)
def test_the_provider_has_its_own_word_on_retries(word: str, status: int, data: bytes, retryable: bool) -> None:
    error = CODEC.classify(status, (("x-should-retry", word),), data, NOW)
    assert error.retryable is retryable
    assert error.should_retry is (word == "true")


@pytest.mark.parametrize(
    ("data", "message", "code", "request_id"),
    [
        (said("t", "It broke"), "It broke", "t", "req_1"),
        (said("t", "It broke", "Code_X"), "It broke", "Code_X", "req_1"),
        (b'{"type": "error", "message": "It broke"}', "It broke", "error", None),
        (b'{"error": {"type": "t", "message": "It broke", "details": []}}', "It broke", "t", None),
        (b'{"detail": "It broke"}', "It broke", None, None),
        (b"<html>", "anthropic answered with status 418", None, None),
    ],
)
def test_what_an_error_keeps(data: bytes, message: str, code: str | None, request_id: str | None) -> None:
    error = CODEC.classify(418, (), data, NOW)
    assert (error.message, error.code, error.provider_request_id) == (message, code, request_id)
    assert error.body == data.decode()
    assert CODEC.classify(418, (("request-id", "req_2"),), data, NOW).provider_request_id == "req_2"
    assert CODEC.classify(418, (("x-request-id", "req_3"),), data, NOW).provider_request_id == "req_3"


@pytest.mark.parametrize("kind", ["authentication_error", "invalid_request_error"])
def test_a_key_that_an_error_echoes_is_not_kept(kind: str) -> None:
    for message in (f"invalid x-api-key: {KEY}", f"{TOO_LONG} {KEY}"):
        data = said(kind, message)
        for error in (in_band_error("anthropic", data), CODEC.classify(400, (), data, NOW)):
            assert KEY not in repr(error) + str(error) + json.dumps(error.to_dict())


# ---- whatever comes ----------------------------------------------------------------------------------------------------

kinds = st.sampled_from(["rate_limit_error", "billing_error", "overloaded_error", "invalid_request_error", "x"])
codes = st.sampled_from(["enforced_spend_limit_reached", "organization_on_hold", "cmek_key_unreachable", "\ud800"])
messages = words | st.sampled_from([OWN_LIMIT, TIER_LIMIT, TOO_LONG, "regain access on 9999-99-99", NO_CREDIT])
errors = mangled(type=kinds, message=messages, details=mangled(error_code=codes), code=words)
bodies = mangled(type=st.just("error"), error=errors | words, request_id=words).map(json.dumps).map(str.encode)
header_names = st.sampled_from(
    ["retry-after", "retry-after-ms", "x-should-retry", "request-id"]
    + [f"anthropic-ratelimit-{of}-{what}" for of in ("requests", "tokens") for what in ("limit", "remaining", "reset")]
)
header_values = st.text(max_size=10) | st.sampled_from(
    ["0", "-1", "2026-11-24T06:00:20Z", "nan", "9" * 400, "true", "false"]
)


@given(
    st.integers(-1, 1000) | st.sampled_from([200, 400, 403, 429, 503, 529]),
    st.lists(st.tuples(header_names, header_values), max_size=5).map(tuple),
    bodies | st.binary(max_size=40),
    st.floats(0, 1e11) | st.floats(),
)
@settings(max_examples=300, deadline=None)
def test_any_refusal_is_classified(status: int, headers: tuple[tuple[str, str], ...], data: bytes, unix_now: float) -> None:
    error = CODEC.classify(status, headers, data, unix_now)
    assert error.retry_after is None or 0 <= error.retry_after < math.inf
    assert error.provider == "anthropic"
    assert not (error.retryable and error.blames_key)
    assert InferenceError.from_dict(error.to_dict()).to_dict() == error.to_dict()


def test_what_a_body_may_be_is_read_without_expectations() -> None:
    for body in ("[]", "null", "7", '"x"', '{"error": [{"type": "api_error"}]}', '{"error": {"details": "x", "type": 7}}'):
        found: Any = CODEC.classify(400, (), body.encode(), NOW)
        assert found.kind == "bad_request"
