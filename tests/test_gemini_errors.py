"""What Google's errors mean, row by row (`sansio.providers.gemini_errors`)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sansio.errors import (
    BadRequest,
    Conflict,
    ContentFiltered,
    ContextLengthExceeded,
    Forbidden,
    InferenceError,
    NotFound,
    ProtocolError,
    QuotaExhausted,
    RateLimited,
    ServerError,
    Timeout,
    Unauthorized,
)
from sansio.providers.gemini import Gemini
from sansio.providers.gemini_errors import in_band_error
from sansio.providers.pacific_midnight import seconds_until_pacific_midnight

CODEC = Gemini("gemini-3.5-flash")
NOW = 1_800_000_000.0
MIDNIGHT = seconds_until_pacific_midnight(NOW)
Json = dict[str, Any]


def said(code: int | None, status: str = "", message: str = "no", *details: Json) -> bytes:
    error: Json = {"code": code, "message": message, "status": status, "details": list(details)}
    return json.dumps({"error": {name: value for name, value in error.items() if value}}, indent=2).encode()


def info(reason: str, **metadata: str) -> Json:
    return {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "metadata": metadata}


def quota(*ids: str) -> Json:
    violations = [{"quotaMetric": "generate_content", "quotaId": each} for each in ids]
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": violations}


def retry(delay: object) -> Json:
    return {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}


PER_MINUTE = quota("GenerateRequestsPerMinutePerProjectPerModel-FreeTier")
PER_DAY = quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier")
INVALID, EXHAUSTED = "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"
TOO_LONG = "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."
HTML = b"<!DOCTYPE html>\n<title>Error (Server Error)!!1</title>"

# status, body, then: kind, retryable, counted by the circuit, blames the key, hint, most retries
ROWS: list[tuple[int, bytes, type[InferenceError], bool, bool, bool, float | None, int | None]] = [
    (400, said(400, INVALID, "API key not valid.", info("API_KEY_INVALID")), Unauthorized, False, False, True, None, None),
    (400, said(400, INVALID, "", info("API_KEY_EXPIRED")), Unauthorized, False, False, True, None, None),
    (400, said(400, INVALID, "API key not valid. Please pass one."), Unauthorized, False, False, True, None, None),
    (400, said(400, INVALID, "API key expired. Please renew it."), Unauthorized, False, False, True, None, None),
    (400, said(400, INVALID), BadRequest, False, False, False, None, None),
    (400, said(400, INVALID, TOO_LONG), ContextLengthExceeded, False, False, False, None, None),
    (
        400,
        said(400, "FAILED_PRECONDITION", "User location is not supported for the API use."),
        *(BadRequest, False, False, False, None, None),
    ),
    (
        400,
        said(400, "FAILED_PRECONDITION", "The free tier is not available in your country. Please enable billing."),
        *(QuotaExhausted, False, False, True, None, None),
    ),
    (401, said(401, "UNAUTHENTICATED"), Unauthorized, False, False, True, None, None),
    (402, said(402, EXHAUSTED), QuotaExhausted, False, False, True, None, None),
    (403, said(403, "PERMISSION_DENIED", "", info("SERVICE_DISABLED")), Forbidden, False, False, True, None, None),
    (403, said(403, "PERMISSION_DENIED", "", info("BILLING_DISABLED")), QuotaExhausted, False, False, True, None, None),
    (403, said(403, "PERMISSION_DENIED", "Please enable billing"), Forbidden, False, False, True, None, None),
    (404, said(404, "NOT_FOUND"), NotFound, False, False, False, None, None),
    (408, b"", Timeout, True, True, False, None, None),
    (409, said(409, "ABORTED"), Conflict, True, False, False, None, None),
    (429, said(429, EXHAUSTED, "", PER_MINUTE, retry("58s")), RateLimited, True, False, False, 58.0, None),
    (429, said(429, EXHAUSTED, "", retry("3.957525076s")), RateLimited, True, False, False, 3.957525076, None),
    (429, said(429, EXHAUSTED, "", retry("1s"), retry("2s")), RateLimited, True, False, False, 2.0, None),
    (429, said(429, EXHAUSTED, "", info("x", quota_limit="PerMinute")), RateLimited, True, False, False, None, None),
    (429, said(429, EXHAUSTED), RateLimited, True, False, False, None, None),
    (429, said(429, EXHAUSTED, "", PER_DAY, retry("58s")), QuotaExhausted, False, False, True, MIDNIGHT, None),
    (
        429,
        said(429, EXHAUSTED, "", quota("PerMinute", "InputTokensPerDay"), retry("5s")),
        *(QuotaExhausted, False, False, True, MIDNIGHT, None),
    ),
    (429, said(429, EXHAUSTED, "", info("x", quota_limit="per_day")), QuotaExhausted, False, False, True, MIDNIGHT, None),
    (429, b"[" + said(429, EXHAUSTED, "", PER_DAY) + b"]", QuotaExhausted, False, False, True, MIDNIGHT, None),
    (499, said(499, "CANCELLED"), BadRequest, False, False, False, None, None),
    (500, said(500, "INTERNAL"), ServerError, True, True, False, None, 2),
    (500, said(500, "INTERNAL", TOO_LONG), ContextLengthExceeded, False, False, False, None, None),
    (503, said(503, "UNAVAILABLE", "overloaded"), ServerError, True, True, False, None, 2),
    (503, b"[" + said(503, "UNAVAILABLE", "overloaded") + b"]", ServerError, True, True, False, None, 2),
    (503, said(503, "UNAVAILABLE", TOO_LONG), ServerError, True, True, False, None, 2),
    (503, said(503, "UNAVAILABLE", "", retry("4s")), ServerError, True, True, False, 4.0, 2),
    (504, said(504, "DEADLINE_EXCEEDED"), ServerError, True, True, False, None, 2),
    # Whatever else answers in its place: a proxy, a gateway, nobody.
    (400, HTML, BadRequest, False, False, False, None, None),
    (403, HTML, Forbidden, False, False, False, None, None),
    (403, b"", Forbidden, False, False, True, None, None),
    (403, b'{"error": "no"}', Forbidden, False, False, True, None, None),
    (404, HTML, NotFound, False, False, False, None, None),
    (429, HTML, RateLimited, True, False, False, None, None),
    (502, HTML, ServerError, True, True, False, None, 2),
    (503, b"", ServerError, True, True, False, None, 2),
    (504, b"\xff\xfe\x00", ServerError, True, True, False, None, 2),
    # A success that is none.
    (200, said(429, EXHAUSTED, "", retry("7s")), RateLimited, True, False, False, 7.0, None),
    (200, b"[" + said(503, "UNAVAILABLE") + b"]", ServerError, True, True, False, None, 2),
    (200, b'{"promptFeedback": {"blockReason": "SAFETY"}}', ContentFiltered, False, False, False, None, None),
    (200, b'{"promptFeedback": {}}', ProtocolError, False, False, False, None, None),
    (200, HTML, ProtocolError, False, False, False, None, None),
    (302, b"", ProtocolError, False, False, False, None, None),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "kind", "retryable", "counted", "blames_key", "hint", "most_retries"), ROWS)
def test_rows(
    status: int,
    body: bytes,
    kind: type[InferenceError],
    retryable: bool,
    counted: bool,
    blames_key: bool,
    hint: float | None,
    most_retries: int | None,
) -> None:
    error = CODEC.classify(status, (), body, NOW)
    assert type(error) is kind
    verdict = (error.retryable, error.counts_as_circuit_failure, error.blames_key, error.retry_after, error.max_retries)
    assert verdict == (retryable, counted, blames_key, hint, most_retries)
    assert error.provider == "gemini"
    assert error.status == (status if status != 200 or b"code" not in body else in_band_error("gemini", body).status)


def test_what_is_kept() -> None:
    body = said(400, INVALID, "API key not valid: AIzaSyD-0123456789abcdef", info("API_KEY_INVALID"))
    error = Gemini("m", variant="vertex", project="p").classify(400, (), body, NOW)
    assert (error.provider, error.status, error.code) == ("vertex", 400, "API_KEY_INVALID")
    assert error.message == "API key not valid: ***"
    assert error.body is not None and "AIzaSy" not in error.body
    assert CODEC.classify(400, (), said(400, INVALID), NOW).code == INVALID
    assert CODEC.classify(400, (), b'{"error": {"message": "no"}}', NOW).code is None
    assert CODEC.classify(400, (), b'{"error": "no way"}', NOW).message == "no way"
    assert CODEC.classify(503, (), b"", NOW).message == "gemini answered with status 503"


def test_only_an_array_of_one_is_taken_for_what_is_in_it() -> None:
    assert CODEC.classify(503, (), b"[" + said(503, "UNAVAILABLE") + b"]", NOW).code == "UNAVAILABLE"
    assert CODEC.classify(503, (), b"[" + said(503, "UNAVAILABLE") + b", 5]", NOW).code is None


# ---- hints ------------------------------------------------------------------------------------------------------------


NO_DELAYS: list[Any] = [
    *("58", "-1s", "s", "1.s", ".5s", "1.0000000001s", "9999999999999s", "1s ", "1m", "NaNs", ""),
    *(58, 5.0, None, True, [], {"seconds": 5}),
]


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [
        ("58s", 58.0),
        ("0s", 0.0),
        ("3.957525076s", 3.957525076),
        ("999999999999s", 999999999999.0),
        *((wrong, None) for wrong in NO_DELAYS),
    ],
)
def test_delays(delay: object, seconds: float | None) -> None:
    assert CODEC.classify(429, (), said(429, EXHAUSTED, "", retry(delay)), NOW).retry_after == seconds


def test_a_hint_in_the_body_is_better_than_one_in_the_headers() -> None:
    headers = (("retry-after", "9"), ("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", "5s"))
    assert CODEC.classify(429, headers, said(429, EXHAUSTED, "", retry("3s")), NOW).retry_after == 3.0
    assert CODEC.classify(429, headers, said(429, EXHAUSTED), NOW).retry_after == 9.0
    assert CODEC.classify(503, headers[:1], b"", NOW).retry_after == 9.0
    assert CODEC.classify(429, headers[1:], b"", NOW).retry_after == 5.0
    assert CODEC.classify(503, headers[1:], b"", NOW).retry_after is None


def test_nothing_shortens_the_wait_for_a_new_day() -> None:
    headers = (("retry-after", "9"), ("x-should-retry", "true"))
    error = CODEC.classify(429, headers, said(429, EXHAUSTED, "", PER_DAY, retry("58s")), NOW)
    assert isinstance(error, QuotaExhausted)
    assert (error.retry_after, error.retryable) == (MIDNIGHT, False)


def test_only_a_429_is_about_a_day_s_quota() -> None:
    error = CODEC.classify(503, (), said(503, "UNAVAILABLE", "", PER_DAY), NOW)
    assert isinstance(error, ServerError)
    assert error.retry_after is None


@pytest.mark.parametrize(
    ("status", "body", "word", "retryable"),
    [
        (503, b"", "false", False),
        (400, said(400, INVALID), "true", True),
        (400, said(400, INVALID, "", info("API_KEY_INVALID")), "true", False),
        (400, said(400, INVALID, TOO_LONG), "true", True),
    ],
)
def test_a_gateway_s_word_on_retries(status: int, body: bytes, word: str, retryable: bool) -> None:
    error = CODEC.classify(status, (("x-should-retry", word),), body, NOW)
    assert (error.retryable, error.should_retry) == (retryable, word == "true")


# ---- in a stream ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (said(429, EXHAUSTED), RateLimited, 429),
        (said(None, EXHAUSTED), RateLimited, 429),
        (said(200, "UNAVAILABLE"), ServerError, 503),
        (said(None, "INTERNAL", TOO_LONG), ContextLengthExceeded, 500),
        (said(None, "", TOO_LONG), ContextLengthExceeded, None),
        (said(None, INVALID), BadRequest, 400),
        (said(None, "FAILED_PRECONDITION"), BadRequest, 400),
        (said(None, "OUT_OF_RANGE"), BadRequest, 400),
        (said(None, "UNAUTHENTICATED"), Unauthorized, 401),
        (said(None, "PERMISSION_DENIED"), Forbidden, 403),
        (said(None, "NOT_FOUND"), NotFound, 404),
        (said(None, "ABORTED"), Conflict, 409),
        (said(None, "ALREADY_EXISTS"), Conflict, 409),
        (said(None, "CANCELLED"), BadRequest, 499),
        (said(None, "UNKNOWN"), ServerError, 500),
        (said(None, "DATA_LOSS"), ServerError, 500),
        (said(None, "UNIMPLEMENTED"), ServerError, 501),
        (said(None, "DEADLINE_EXCEEDED"), ServerError, 504),
        (said(None, "NEW_WORD"), ServerError, None),
        (b'{"error": "no"}', ServerError, None),
        (b'{"error": [1]}', ServerError, None),
        (said(429, EXHAUSTED, "", PER_DAY), QuotaExhausted, 429),
    ],
)
def test_errors_in_a_stream(body: bytes, kind: type[InferenceError], status: int | None) -> None:
    error = in_band_error("gemini", body)
    assert (type(error), error.status) == (kind, status)
    assert error.max_retries == (2 if kind is ServerError else None)


def test_an_error_in_a_stream_has_the_hint_of_its_body() -> None:
    assert in_band_error("gemini", said(429, EXHAUSTED, "", retry("3s"))).retry_after == 3.0
    assert in_band_error("gemini", said(429, EXHAUSTED, "", PER_DAY, retry("3s"))).retry_after is None
    assert in_band_error("gemini", b'{"error": [1]}').message == "the provider sent an error without a message"


# ---- anything ---------------------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["PerDay", "5s", "API_KEY_INVALID"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def objects(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({}, optional={name: field | VALUES for name, field in fields.items()})


DETAILS = objects(
    reason=VALUES,
    metadata=objects(quota_limit=VALUES),
    violations=st.lists(objects(quotaId=VALUES), max_size=2),
    retryDelay=VALUES,
)
BODIES = objects(
    error=objects(code=VALUES, message=VALUES, status=VALUES, details=st.lists(DETAILS, max_size=3)),
    promptFeedback=objects(blockReason=VALUES, blockReasonMessage=VALUES),
)
HEADERS = st.lists(
    st.tuples(st.sampled_from(["retry-after", "x-should-retry", "x-ratelimit-reset-requests", "x"]), st.text(max_size=6)),
    max_size=3,
)


@given(
    st.integers(-1, 700),
    HEADERS,
    st.binary(max_size=80) | (BODIES | VALUES).map(lambda tree: json.dumps(tree).encode()),
    st.floats(),
)
@settings(max_examples=400, deadline=None)
def test_any_response_is_an_error(status: int, headers: list[tuple[str, str]], body: bytes, now: float) -> None:
    error = CODEC.classify(status, tuple(headers), body, now)
    assert isinstance(error, InferenceError)
    assert error.retry_after is None or error.retry_after >= 0
    json.dumps(InferenceError.from_dict(error.to_dict()).to_dict(), allow_nan=False)
    assert isinstance(in_band_error("gemini", body), InferenceError)
