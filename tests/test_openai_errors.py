"""Errors in OpenAI's format (`sansio.providers.openai_errors`), and JSON without expectations (`lenient_json`)."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mangled import errors, frames

from sansio.codec import ProviderCodec
from sansio.errors import InferenceError
from sansio.providers.azure import AzureChat, AzureResponses
from sansio.providers.lenient_json import as_int, dumps, loads
from sansio.providers.openai import OpenAIChat
from sansio.providers.openai_errors import in_band_error
from sansio.providers.openai_responses import OpenAIResponses

CODEC = OpenAIChat()
KEY = "sk-test-0123456789abcdef"
NOW = 1_800_000_000.0


# ---- inside a 200 ------------------------------------------------------------------------------------------------------


TOO_LARGE = "Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 46573."

IN_BAND = [
    ({"type": "server_error", "message": "oops", "code": None}, "server_error", None, True),
    ({"type": "rate_limit_error", "message": "slow"}, "rate_limited", None, True),
    ({"code": "rate_limit_exceeded", "message": "Please try again in 6.57s."}, "rate_limited", None, True),
    ({"code": "server_is_overloaded", "type": "invalid_request_error"}, "server_error", None, True),
    ({"code": "slow_down"}, "rate_limited", None, True),
    ({"type": "requests", "code": None}, "rate_limited", None, True),
    ({"type": "insufficient_quota", "code": None}, "quota_exhausted", None, False),
    ({"type": "invalid_request_error", "code": "context_length_exceeded"}, "context_length_exceeded", None, False),
    ({"type": "invalid_request_error", "code": "other"}, "bad_request", None, False),
    ({"message": "This model's maximum context length is 4096 tokens"}, "context_length_exceeded", None, False),
    ({"code": "invalid_prompt"}, "content_filtered", None, False),
    ({"code": "invalid_api_key"}, "unauthorized", None, False),
    ({"type": "permission_error"}, "forbidden", None, False),
    ({"code": "model_not_found"}, "not_found", None, False),
    ({"type": "timeout_error"}, "timeout", None, True),
    ({"code": "429", "message": "litellm.RateLimitError: slow"}, "rate_limited", 429, True),
    ({"code": 502, "message": "upstream"}, "server_error", 502, True),
    ({"code": 400, "message": "Token limit reached"}, "bad_request", 400, False),
    ({"code": "1300", "type": "rate_limited"}, "rate_limited", None, True),
    ({"code": "brand_new", "type": "never_seen"}, "server_error", None, True),
    ({"code": "bio_policy"}, "content_filtered", None, False),
    ({"code": "misalignment_policy_violation"}, "content_filtered", None, False),
    ({"code": "image_content_policy_violation"}, "content_filtered", None, False),
    ({"code": "data_residency_mismatch"}, "bad_request", None, False),
    ({"code": "image_too_large"}, "bad_request", None, False),
    ({"code": "invalid_image_url"}, "bad_request", None, False),
    ({"code": "failed_to_download_image"}, "bad_request", None, False),
    ({"code": "vector_store_timeout"}, "timeout", None, True),
    ({"code": "rate_limit_exceeded", "message": TOO_LARGE}, "limit_exceeded", None, False),
    ({"message": None, "code": True}, "server_error", None, True),
    ("overloaded, try later", "server_error", None, True),
    (["x", {"code": "slow_down"}], "rate_limited", None, True),
    (True, "server_error", None, True),
]


@pytest.mark.parametrize(("error", "kind", "status", "retryable"), IN_BAND)
def test_an_error_inside_a_200_is_classified_by_what_it_says(
    error: object, kind: str, status: int | None, retryable: bool
) -> None:
    body = json.dumps({"error": error, "choices": []})
    found = in_band_error("openai", body)
    assert (found.kind, found.status, found.retryable, found.provider) == (kind, status, retryable, "openai")
    assert CODEC.classify(200, (), body.encode(), NOW).to_dict() == found.to_dict()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"Retry-After-Ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": 3}, 6.57),  # no header: what the message says is left
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, 6.57),  # a date, and nobody here knows the time
        ({"retry-after": "Wednesday, 21-Oct-26 07:28:00 GMT"}, 6.57),
        (["retry-after"], 6.57),
    ],
)
def test_an_error_may_repeat_the_headers_of_a_response_that_nobody_saw(headers: object, seconds: float) -> None:
    error = {"code": "rate_limit_exceeded", "message": "Please try again in 6.57s.", "headers": headers}
    assert in_band_error("openai", json.dumps({"error": error})).retry_after == pytest.approx(seconds)


def test_a_key_that_an_error_echoes_is_not_kept() -> None:
    said = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}", "code": "invalid_api_key"}})
    for error in (in_band_error("openai", said), CODEC.classify(401, (), said.encode(), NOW)):
        assert KEY not in repr(error) + str(error) + json.dumps(error.to_dict())


# ---- refusals by status ------------------------------------------------------------------------------------------------


def said(code: str | None = None, kind: str | None = None, message: str = "m", **more: Any) -> bytes:
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code, **more}}).encode()


BAD = "invalid_request_error"
LIMIT_MET = "Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000, Used 29000, Requested 2000."

REFUSALS = [
    (400, said("context_length_exceeded", "invalid_request_error"), "context_length_exceeded"),
    (400, said("content_policy_violation"), "content_filtered"),
    (400, said("invalid_prompt"), "content_filtered"),
    (400, said("content_filter", innererror={"code": "ResponsibleAIPolicyViolation"}), "content_filtered"),
    (
        400,
        said("400", provider_specific_fields={"innererror": {"code": "ResponsibleAIPolicyViolation"}}),
        "content_filtered",
    ),
    (400, said("400", message="litellm.ContentPolicyViolationError: AzureException"), "content_filtered"),
    (400, said("400", message="litellm.ContextWindowExceededError: too long"), "context_length_exceeded"),
    (400, said(None, "BadRequestError", "This model's maximum context length is 8192 tokens."), "context_length_exceeded"),
    (400, said("unsupported_value", "invalid_request_error"), "bad_request"),
    (400, said("rate_limit_exceeded"), "bad_request"),  # the status is the better reason
    (400, b'{"error":"model is required"}', "bad_request"),
    (401, said("invalid_api_key", "invalid_request_error"), "unauthorized"),
    (401, said(message="maximum context length"), "unauthorized"),
    (401, b'{"detail":"Unauthorized"}', "unauthorized"),
    (402, b"", "quota_exhausted"),
    (403, said("unsupported_country_region_territory"), "forbidden"),
    (404, said("model_not_found"), "not_found"),
    (404, b'{"error":{"code":"DeploymentNotFound","message":"m"}}', "not_found"),
    (400, said("model_not_found"), "not_found"),
    (408, b"<html>", "timeout"),
    (409, b"", "conflict"),
    (413, said("rate_limit_exceeded", "tokens", TOO_LARGE), "limit_exceeded"),
    (422, b'{"detail":[{"loc":["body"],"msg":"extra fields"}]}', "bad_request"),
    (422, said(None, "budget_exceeded"), "quota_exhausted"),
    (429, said("rate_limit_exceeded", "requests", LIMIT_MET), "rate_limited"),
    (429, said("rate_limit_exceeded", "tokens", TOO_LARGE), "limit_exceeded"),
    (429, said("insufficient_quota", "insufficient_quota"), "quota_exhausted"),
    (429, said(None, "insufficient_quota"), "quota_exhausted"),
    (429, said("billing_hard_limit_reached"), "quota_exhausted"),
    (429, said("credit_balance_exhausted"), "quota_exhausted"),
    (429, said("organization_spend_limit_exceeded"), "quota_exhausted"),
    (429, said("project_spend_limit_exceeded"), "quota_exhausted"),
    (429, said("organization_usage_limit_exceeded"), "quota_exhausted"),
    (429, said("slow_down"), "rate_limited"),
    (503, said("slow_down"), "rate_limited"),
    (429, said(None, "invalid_request_error", "Service tier capacity exceeded for this model."), "server_error"),
    (429, said("429", message="No deployments available for selected model"), "server_error"),
    (429, b"[]", "rate_limited"),
    (429, b'[7, {"error": {"code": "insufficient_quota"}}]', "quota_exhausted"),
    (498, said("capacity_exceeded"), "rate_limited"),
    (498, b"", "rate_limited"),
    (500, said("internal_server_error", "server_error"), "server_error"),
    (500, said(message="maximum context length"), "server_error"),  # a message is believed where the caller is to blame
    (500, b'\xff\xfe"error"', "server_error"),
    (502, b"<html><h1>502</h1></html>", "server_error"),
    (503, said("server_is_overloaded"), "server_error"),
    (200, b"{}", "protocol_error"),
    (200, b'{"message": "I am an answer of another kind", "type": "rate_limited"}', "protocol_error"),
    (200, b'{"object": "error", "message": "over", "type": "rate_limited"}', "rate_limited"),
    (301, said("rate_limit_exceeded"), "protocol_error"),
    (0, b"", "protocol_error"),
]


@pytest.mark.parametrize(("status", "data", "kind"), REFUSALS)
def test_refusals(status: int, data: bytes, kind: str) -> None:
    error = CODEC.classify(status, (), data, NOW)
    assert error.kind == kind
    assert error.provider == "openai"
    assert error.status == (None if status == 200 and kind != "protocol_error" else status)
    assert error.retryable is (kind in ("rate_limited", "server_error", "conflict", "timeout"))
    assert error.counts_as_circuit_failure is (kind in ("server_error", "timeout"))
    assert error.blames_key is (kind in ("unauthorized", "forbidden", "quota_exhausted"))
    assert InferenceError.from_dict(error.to_dict()).to_dict() == error.to_dict()


# Who says it, how, and what is to be done: whether it is sent again, whether the endpoint's circuit counts it, whether the
# key is to blame, and how long to wait.

OPENAI = (OpenAIChat(), OpenAIResponses())
AZURE = (AzureChat(), AzureResponses())
GROQ = (OpenAIChat("m", "https://api.groq.com/openai/v1"),)
MISTRAL = (OpenAIChat("m", "https://api.mistral.ai/v1"),)
TOGETHER = (OpenAIChat("m", "https://api.together.ai/v1"),)
ANY = (*OPENAI, *AZURE, *GROQ, *MISTRAL, *TOGETHER)

GIVE_UP, BLAME_KEY, THROTTLE, SEND_AGAIN, SERVER = (
    (False, False, False),
    (False, False, True),
    (True, False, False),
    (True, False, False),
    (True, True, False),
)
FILTERED = b"""{"error": {"message": "The response was filtered due to the prompt triggering Azure OpenAI's content \
management policy.", "type": null, "param": "prompt", "code": "content_filter", "status": 400, "innererror": {"code": \
"ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {"filtered": true, "severity": "high"}}}}}"""
OVER_S0 = b"""{"error": {"code": "429", "message": "Requests to the ChatCompletions_Create Operation under Azure OpenAI API \
have exceeded token rate limit of your current OpenAI S0 pricing tier. Please retry after 26 seconds."}}"""
PAGE = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"
EXTRA_FIELD = b'{"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}'
NO_CAPACITY = b"""{"object": "error", "message": "Service tier capacity exceeded for this model.", \
"type": "invalid_request_error", "param": null, "code": null}"""
LIMIT_1300 = b'{"object": "error", "message": "Rate limit exceeded", "type": "rate_limited", "param": null, "code": "1300"}'
NO_MEMBER = b'{"error": {"message": "You must be a member of an organization to use the API", "type": "x", "code": null}}'

ROWS: list[tuple[tuple[ProviderCodec, ...], int, dict[str, str], bytes, str, tuple[bool, bool, bool], float | None]] = [
    (OPENAI, 400, {}, said("context_length_exceeded", BAD), "context_length_exceeded", GIVE_UP, None),
    (OPENAI, 400, {}, said("content_policy_violation", BAD), "content_filtered", GIVE_UP, None),
    (OPENAI, 400, {}, said("invalid_prompt", BAD), "content_filtered", GIVE_UP, None),
    (OPENAI, 400, {}, said("unknown_parameter", BAD), "bad_request", GIVE_UP, None),
    (OPENAI, 400, {"retry-after": "3"}, said(None, BAD), "bad_request", GIVE_UP, 3.0),
    (OPENAI, 401, {}, said("invalid_api_key", BAD), "unauthorized", BLAME_KEY, None),
    (OPENAI, 401, {}, NO_MEMBER, "unauthorized", BLAME_KEY, None),
    (OPENAI, 401, {}, said("ip_not_authorized"), "unauthorized", BLAME_KEY, None),
    (OPENAI, 403, {}, said("unsupported_country_region_territory"), "forbidden", BLAME_KEY, None),
    (OPENAI, 403, {}, said(None, "insufficient_permissions"), "forbidden", BLAME_KEY, None),
    (OPENAI, 404, {}, said("model_not_found", BAD), "not_found", GIVE_UP, None),
    (OPENAI, 408, {}, said(), "timeout", SERVER, None),
    (OPENAI, 409, {}, said(), "conflict", SEND_AGAIN, None),
    (OPENAI, 422, {}, said(), "bad_request", GIVE_UP, None),
    (OPENAI, 429, {"retry-after": "7"}, said("rate_limit_exceeded", "tokens", LIMIT_MET), "rate_limited", THROTTLE, 7.0),
    (
        OPENAI,
        429,
        {"retry-after-ms": "250", "retry-after": "1"},
        said("rate_limit_exceeded"),
        "rate_limited",
        THROTTLE,
        0.25,
    ),
    (OPENAI, 429, {}, said("rate_limit_exceeded", "tokens", LIMIT_MET), "rate_limited", THROTTLE, None),
    (OPENAI, 429, {}, said("rate_limit_exceeded", "tokens", "Please try again in 6.57s."), "rate_limited", THROTTLE, 6.57),
    (
        OPENAI,
        429,
        {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"},
        said("rate_limit_exceeded"),
        "rate_limited",
        THROTTLE,
        360.0,
    ),
    (OPENAI, 429, {}, said("rate_limit_exceeded", "tokens", TOO_LARGE), "limit_exceeded", GIVE_UP, None),
    (OPENAI, 429, {}, said("slow_down"), "rate_limited", THROTTLE, None),
    (OPENAI, 503, {"retry-after": "2"}, said("slow_down"), "rate_limited", THROTTLE, 2.0),
    *(
        (OPENAI, 429, {"retry-after": "5"}, said(code, kind), "quota_exhausted", BLAME_KEY, 5.0)
        for code, kind in (
            ("insufficient_quota", "insufficient_quota"),
            (None, "insufficient_quota"),
            ("credit_balance_exhausted", "insufficient_quota"),
            ("organization_spend_limit_exceeded", None),
            ("project_spend_limit_exceeded", None),
            ("organization_usage_limit_exceeded", None),
            ("billing_hard_limit_reached", None),
        )
    ),
    (OPENAI, 500, {}, said("server_error", "server_error"), "server_error", SERVER, None),
    (OPENAI, 502, {}, PAGE, "server_error", SERVER, None),
    (OPENAI, 503, {"retry-after": "9"}, said("server_is_overloaded"), "server_error", SERVER, 9.0),
    (OPENAI, 504, {}, said(), "server_error", SERVER, None),
    (AZURE, 400, {}, FILTERED, "content_filtered", GIVE_UP, None),
    (AZURE, 400, {}, said("OperationNotSupported"), "bad_request", GIVE_UP, None),
    (
        AZURE,
        401,
        {},
        b'{"statusCode": 401, "message": "Unauthorized. Access token is missing."}',
        "unauthorized",
        BLAME_KEY,
        None,
    ),
    (AZURE, 401, {}, said("401", message="Access denied due to invalid subscription key"), "unauthorized", BLAME_KEY, None),
    (AZURE, 429, {}, OVER_S0, "rate_limited", THROTTLE, 26.0),
    (AZURE, 429, {"retry-after": "12"}, OVER_S0, "rate_limited", THROTTLE, 12.0),
    (AZURE, 429, {"retry-after": "0"}, said("RateLimitReached"), "rate_limited", THROTTLE, None),
    (AZURE, 429, {"retry-after": "-1", "retry-after-ms": "-1"}, OVER_S0, "rate_limited", THROTTLE, 26.0),
    (AZURE, 404, {}, b'{"error": {"code": "DeploymentNotFound", "message": "m"}}', "not_found", GIVE_UP, None),
    (AZURE, 404, {}, said("404", message="Resource not found"), "not_found", GIVE_UP, None),
    (AZURE, 500, {}, said("InternalServerError"), "server_error", SERVER, None),
    (GROQ, 413, {}, said("rate_limit_exceeded", "tokens", "Request too large"), "bad_request", GIVE_UP, None),
    (GROQ, 413, {}, said("rate_limit_exceeded", "tokens", TOO_LARGE), "limit_exceeded", GIVE_UP, None),
    (GROQ, 422, {}, said(None, BAD), "bad_request", GIVE_UP, None),
    (GROQ, 424, {}, said(None, "failed_dependency"), "bad_request", GIVE_UP, None),
    (GROQ, 498, {}, said("capacity_exceeded", "capacity_exceeded"), "rate_limited", THROTTLE, None),
    (GROQ, 498, {"retry-after": "4"}, b"", "rate_limited", THROTTLE, 4.0),
    (GROQ, 429, {"retry-after": "8"}, said("rate_limit_exceeded", "tokens", LIMIT_MET), "rate_limited", THROTTLE, 8.0),
    (MISTRAL, 422, {}, EXTRA_FIELD, "bad_request", GIVE_UP, None),
    (MISTRAL, 422, {}, said("extra_forbidden"), "bad_request", GIVE_UP, None),
    (MISTRAL, 429, {}, LIMIT_1300, "rate_limited", THROTTLE, None),
    (MISTRAL, 503, {}, NO_CAPACITY, "server_error", SERVER, None),
    (MISTRAL, 429, {}, NO_CAPACITY, "server_error", SERVER, None),
    (MISTRAL, 401, {}, b'{"detail": "Unauthorized"}', "unauthorized", BLAME_KEY, None),
    (TOGETHER, 429, {"x-ratelimit-reset": "1"}, said(None, "rate_limit"), "rate_limited", THROTTLE, None),
    (TOGETHER, 503, {}, said(None, "service_unavailable"), "server_error", SERVER, None),
    (ANY, 425, {}, b"", "conflict", SEND_AGAIN, None),
    (ANY, 499, {}, b"", "bad_request", GIVE_UP, None),
    *((ANY, status, {}, PAGE, "server_error", SERVER, None) for status in (500, 502, 503, 504, *range(520, 525))),
    *((ANY, status, {}, b"", "server_error", SERVER, None) for status in (500, 502, 503, 504, *range(520, 525))),
    (ANY, 400, {}, b"", "bad_request", GIVE_UP, None),
    (ANY, 401, {}, b"", "unauthorized", BLAME_KEY, None),
    (ANY, 402, {}, b"", "quota_exhausted", BLAME_KEY, None),
    (ANY, 403, {}, b"", "forbidden", BLAME_KEY, None),
    (ANY, 403, {}, PAGE, "forbidden", GIVE_UP, None),  # of a proxy on the way, which knows nothing of the key
    (ANY, 404, {}, PAGE, "not_found", GIVE_UP, None),
    (ANY, 413, {}, b"", "bad_request", GIVE_UP, None),
    (ANY, 422, {}, b"", "bad_request", GIVE_UP, None),
    (ANY, 424, {}, b"", "bad_request", GIVE_UP, None),
    (ANY, 429, {"retry-after": "30"}, b"", "rate_limited", THROTTLE, 30.0),
    (ANY, 429, {}, PAGE, "rate_limited", THROTTLE, None),
    (ANY, 200, {}, PAGE, "protocol_error", GIVE_UP, None),
    (ANY, 307, {}, b"", "protocol_error", GIVE_UP, None),
    (ANY, 503, {"x-should-retry": "false"}, b"", "server_error", (False, True, False), None),
    (ANY, 400, {"x-should-retry": "true"}, b"", "bad_request", SEND_AGAIN, None),
    (ANY, 401, {"x-should-retry": "true"}, b"", "unauthorized", BLAME_KEY, None),
]


@pytest.mark.parametrize(("who", "status", "headers", "data", "kind", "verdict", "hint"), ROWS)
def test_what_each_provider_means(
    who: tuple[ProviderCodec, ...],
    status: int,
    headers: dict[str, str],
    data: bytes,
    kind: str,
    verdict: tuple[bool, bool, bool],
    hint: float | None,
) -> None:
    for each in who:
        error = each.classify(status, tuple(headers.items()), data, NOW)
        told = (error.retryable, error.counts_as_circuit_failure, error.blames_key)
        assert (error.kind, told, error.retry_after) == (kind, verdict, hint)
        assert error.provider == each.provider


@pytest.mark.parametrize(
    ("data", "message", "code"),
    [
        (said("c", "t", "It broke"), "It broke", "c"),
        (said(None, "t", "It broke"), "It broke", "t"),
        (b'{"error": "It broke", "code": 7}', "It broke", "7"),
        (b'{"message": {"detail": "It broke"}, "code": "c"}', '{"detail": "It broke"}', "c"),
        (b'{"detail": "It broke"}', "It broke", None),
        (b'"It broke"', "It broke", None),
        (b"<html>", "openai answered with status 418", None),
    ],
)
def test_what_an_error_keeps(data: bytes, message: str, code: str | None) -> None:
    error = CODEC.classify(418, (("x-request-id", "req_1"),), data, NOW)
    assert (error.message, error.code, error.provider_request_id) == (message, code, "req_1")
    assert error.body == data.decode()
    assert CODEC.classify(418, (("apim-request-id", "a1"),), data, NOW).provider_request_id == "a1"
    assert len(CODEC.classify(418, (), said("c", message="x" * 10_000), NOW).message) <= 2_000


@pytest.mark.parametrize(
    ("word", "data", "retryable"),
    [
        ("true", said(), True),
        ("true", said("context_length_exceeded"), True),
        ("true", said("insufficient_quota"), False),  # never quota
        ("false", said("slow_down"), False),
        ("false", said(), False),
    ],
)
def test_the_provider_has_its_own_word_on_retries(word: str, data: bytes, retryable: bool) -> None:
    error = CODEC.classify(400, (("x-should-retry", word),), data, NOW)
    assert error.retryable is retryable
    assert error.should_retry is (word == "true")


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Please try again in 6.57s. Visit …", 6.57),
        ("Please try again in 20ms.", 0.02),
        ("Please TRY AGAIN IN 1M30.5S", 90.5),
        ("try again in 1h0m1s", 3601.0),
        ("Please retry after 26 seconds.", 26.0),
        ("Try again in 1 second.", 1.0),
        ("try again in 2 minutes", 120.0),
        ("try again in 500 milliseconds", 0.5),
        ("try again in 1 hour", 3600.0),
        ("try again in 2 days", None),
        ("try again in 5", None),
        ("try again later", None),
        ("", None),
    ],
)
def test_a_429_may_say_in_words_when_to_come_back(message: str, seconds: float | None) -> None:
    data = said("rate_limit_exceeded", message=message)
    assert CODEC.classify(429, (), data, NOW).retry_after == pytest.approx(seconds)
    assert in_band_error("openai", data).retry_after == pytest.approx(seconds)
    assert CODEC.classify(500, (), data, NOW).retry_after is None
    assert CODEC.classify(429, (("retry-after", "3"),), data, NOW).retry_after == 3.0  # a header wins


# ---- whatever comes ----------------------------------------------------------------------------------------------------


header_names = st.sampled_from(
    ["retry-after", "retry-after-ms", "x-should-retry", "x-request-id"]
    + [
        f"x-ratelimit-{what}-{of}"
        for what in ("limit", "remaining", "reset")
        for of in ("requests", "tokens", "project-tokens")
    ]
)
header_values = st.text(max_size=10) | st.sampled_from(
    ["0", "-1", "1s", "6m0s", "nan", "1e400", "9" * 400, "true", "false", "٣"]
)


@given(
    st.integers(-1, 1000),
    st.lists(st.tuples(header_names, header_values), max_size=5).map(tuple),
    frames.map(str.encode) | errors.map(lambda error: json.dumps({"error": error}).encode()) | st.binary(max_size=40),
    st.floats(0, 1e11),
)
@settings(max_examples=200, deadline=None)
def test_any_refusal_is_classified(status: int, headers: tuple[tuple[str, str], ...], data: bytes, unix_now: float) -> None:
    error = CODEC.classify(status, headers, data, unix_now)
    assert error.retry_after is None or 0 <= error.retry_after < math.inf
    assert error.provider == "openai"
    assert InferenceError.from_dict(error.to_dict()).to_dict() == error.to_dict()


def test_json_nested_too_deep_is_absent() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    assert dumps(nested) == ""
    assert loads("[" * 100_000) is None
    while nested:  # taken apart by hand: freeing it whole recurses
        nested = nested[0]


@pytest.mark.parametrize(
    ("value", "number"), [("12", 12), ("1.5", None), (1.5, None), (3.0, 3), (10**18, None), (True, None), (None, None)]
)
def test_whole_numbers(value: object, number: int | None) -> None:
    assert as_int(value) == number


@pytest.mark.parametrize(
    ("data", "blames"), [(said("unsupported_country"), True), (b"", True), (b"<html>blocked by our firewall</html>", False)]
)
def test_a_403_blames_the_key_unless_a_proxy_said_it(data: bytes, blames: bool) -> None:
    error = CODEC.classify(403, (), data, NOW)
    assert (error.kind, error.blames_key) == ("forbidden", blames)
