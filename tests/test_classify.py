"""What a status and the headers of an error mean: the table of kinds, and the hints on when to come back."""

from __future__ import annotations

import json
import math
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sansio.classify import (
    classify_http_status,
    parse_reset,
    parse_retry_after,
    retry_after_from_headers,
    should_retry_from_headers,
)
from sansio.errors import InferenceError

NOW = 1_696_004_797.0  # Fri, 29 Sep 2023 16:26:37 GMT
YEAR_2000 = 946_684_800.0


# The status


@pytest.mark.parametrize(
    ("statuses", "kind", "retryable", "counts", "blames_key"),
    [
        ([401], "unauthorized", False, False, True),
        ([402], "quota_exhausted", False, False, True),
        ([403], "forbidden", False, False, True),
        ([404], "not_found", False, False, False),
        ([408], "timeout", True, True, False),
        ([409, 425], "conflict", True, False, False),
        ([429], "rate_limited", True, False, False),
        ([400, 405, 410, 413, 422, 424, 451, 498, 499], "bad_request", False, False, False),
        ([500, 501, 502, 503, 504, 520, 524, 529, 599], "server_error", True, True, False),
        ([-1, 0, 100, 199, 200, 204, 299, 301, 304, 399, 600, 999, 10**9], "protocol_error", False, False, False),
    ],
)
def test_each_status_has_its_kind(statuses: list[int], kind: str, retryable: bool, counts: bool, blames_key: bool) -> None:
    for status in statuses:
        error = classify_http_status("openai", status)
        verdict = (error.kind, error.retryable, error.counts_as_circuit_failure, error.blames_key)
        assert verdict == (kind, retryable, counts, blames_key), status
        assert (error.provider, error.status) == ("openai", status)


def test_what_is_known_is_kept() -> None:
    error = classify_http_status(
        "anthropic", 529, 2.5, b'{"error": 1}', code="overloaded_error", message="Overloaded", provider_request_id="req_1",
    )  # fmt: skip
    assert error.to_dict() == {
        "kind": "server_error", "message": "Overloaded", "provider": "anthropic", "status": 529, "code": "overloaded_error",
        "body": '{"error": 1}', "provider_request_id": "req_1", "retry_after": 2.5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("provider", "message", "said"),
    [
        ("openai", None, "openai answered with status 503"),
        ("openai", "", "openai answered with status 503"),
        ("", None, "the provider answered with status 503"),
        ("openai", "busy", "busy"),
    ],
)
def test_an_error_says_what_happened(provider: str, message: str | None, said: str) -> None:
    assert str(classify_http_status(provider, 503, message=message)) == said


@pytest.mark.parametrize(
    ("hint", "kept"),
    [
        (None, None),
        (0.0, 0.0),
        (7, 7),
        (1e300, 1e300),
        (-0.001, None),
        (math.inf, None),
        (-math.inf, None),
        (math.nan, None),
    ],
)
def test_a_hint_is_a_finite_wait(hint: float | None, kept: float | None) -> None:
    assert classify_http_status("openai", 429, hint).retry_after == kept
    assert classify_http_status("openai", 503, hint).retry_after == kept


@pytest.mark.parametrize("status", [200, 400, 401, 402, 403, 404, 408, 409, 429, 500])
def test_should_retry_false_always_wins(status: int) -> None:
    error = classify_http_status("openai", status, should_retry=False)
    assert (error.should_retry, error.retryable) == (False, False)


@pytest.mark.parametrize(
    ("status", "retryable"),
    [(200, True), (400, True), (404, True), (409, True), (429, True), (500, True), (401, False), (402, False), (403, False)],
)
def test_should_retry_true_overrides_all_but_quota_and_credential(status: int, retryable: bool) -> None:
    error = classify_http_status("openai", status, should_retry=True)
    assert (error.should_retry, error.retryable) == (True, retryable)


def test_no_part_of_what_the_provider_said_holds_a_credential() -> None:
    key = "sk-proj-Ab3dEf6hIj9lMn0pQr2tUv5xYz"
    error = classify_http_status(
        "openai", 401, None, f'{{"error": {{"message": "Incorrect API key provided: {key}"}}}}'.encode(),
        code=f"bad {key}", message=f"Incorrect API key provided: {key}", provider_request_id=f"Bearer {key}",
    )  # fmt: skip
    for shown in (repr(error), str(error), json.dumps(error.to_dict()), repr(error.__reduce__())):
        assert "Ab3d" not in shown
    assert error.message == "Incorrect API key provided: ***"


@given(
    st.text(max_size=8),
    st.integers() | st.integers(390, 610),
    st.none() | st.floats(),
    st.none() | st.binary(max_size=200) | st.text(max_size=200),
    st.none() | st.text(max_size=40),
    st.none() | st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_classification_is_total(
    provider: str, status: int, hint: float | None, body: bytes | str | None, text: str | None, should_retry: bool | None
) -> None:
    error = classify_http_status(
        provider, status, hint, body, code=text, message=text, provider_request_id=text, should_retry=should_retry
    )
    assert error.status == status
    assert error.retry_after is None or 0 <= error.retry_after < math.inf
    assert error.body is None or len(error.body) <= 2000
    json.dumps(error.to_dict(), allow_nan=False)
    again = InferenceError.from_dict(error.to_dict())
    assert (type(again), again.to_dict()) == (type(error), error.to_dict())


KEYS = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", min_size=20, max_size=48)


@given(
    KEYS,
    st.sampled_from([200, 400, 401, 403, 429, 500]),
    st.sampled_from(["sk-{}", "Bearer {}", "api_key={}", '{{"x-api-key": "{}"}}', "AIza{}", "?key={}", "authorization: {}"]),
    st.sampled_from(["", "x", " " * 1970, " " * 1990, " " * 2490]),
)
@settings(max_examples=150, deadline=None)
def test_a_planted_key_is_nowhere_in_the_error(key: str, status: int, form: str, before: str) -> None:
    said = before + " " + form.format(key)
    error = classify_http_status("p", status, None, said.encode(), code=said, message=said, provider_request_id=said)
    shown = repr(error) + str(error) + json.dumps(error.to_dict()) + repr(error.__reduce__())
    words = repr(classify_http_status("p", status).__reduce__())  # such as "function", which is no part of any key
    assert not any(key[i : i + 8] in shown for i in range(len(key) - 7) if key[i : i + 8] not in words)


# Retry-After


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0), ("1", 1.0), ("120", 120.0), ("0007", 7.0), ("1.5", 1.5), ("0.25", 0.25), ("86400", 86400.0),
        (" \t7\t ", 7.0),
        ("9" * 35, 2.0**64), ("9" * 5000, 2.0**64), ("0." + "9" * 5000, 1.0),
        ("1696004817", 1696004817.0),
        ("", None), (" ", None), ("-1", None), ("-0", None), ("+5", None), ("1e3", None), ("0x10", None), ("1_000", None),
        ("1,000", None), ("1, 2", None), ("1 2", None), (".5", None), ("5.", None), ("1.2.3", None), ("120s", None),
        ('"120"', None), ("inf", None), ("-inf", None), ("nan", None), ("soon", None),
        ("５", None), ("\u0661", None), ("²", None), ("5\x00", None), ("\x005", None), ("5\n", None), ("\xa05", None),
    ],
)  # fmt: skip
def test_seconds(value: str, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW) == seconds


@pytest.mark.parametrize("value", [None, 5, 5.0, b"5", True, ["5"], object()])
def test_what_is_no_string_says_nothing(value: Any) -> None:
    assert parse_retry_after(value, NOW) is None
    assert parse_reset(value, NOW) is None
    headers: Any = [("retry-after", value), ("retry-after-ms", value), ("x-should-retry", value), (value, "7")]
    assert retry_after_from_headers(headers, NOW) is None
    assert retry_after_from_headers([*headers, ("retry-after", "7")], NOW) == 7.0
    assert should_retry_from_headers(headers) is None


@pytest.mark.parametrize(
    ("value", "unix"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 784_111_777),
        ("Sun Nov  6 08:49:37 1994", 784_111_777),
        ("Sun Nov 06 08:49:37 1994", 784_111_777),
        ("Wed Nov 16 08:49:37 1994", 784_975_777),
        ("\tSun Nov  6 08:49:37 1994 ", 784_111_777),
        ("Mon, 06 Nov 1994 08:49:37 GMT", 784_111_777),  # the name of the day says nothing
        ("Thu, 29 Feb 2024 00:00:00 GMT", 1_709_164_800),
        ("Tue, 29 Feb 2000 00:00:00 GMT", 951_782_400),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 253_402_300_799),
        ("Tue, 19 Jan 2038 03:14:08 GMT", 2**31),
        ("Sat, 31 Dec 2016 23:59:60 GMT", 1_483_228_800),  # a leap second
    ],
)
def test_the_three_forms_of_an_http_date(value: str, unix: float) -> None:
    assert parse_retry_after(value, unix - 90) == 90.0
    assert parse_retry_after(value, unix - 0.25) == 0.25
    assert parse_retry_after(value, unix) == 0.0
    assert parse_retry_after(value, unix + 1) == 0.0  # over already


@pytest.mark.parametrize("month", range(12))
def test_every_month_is_known(month: int) -> None:
    name = "JanFebMarAprMayJunJulAugSepOctNovDec"[3 * month : 3 * month + 3]
    days_before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334][month]
    assert parse_retry_after(f"Mon, 01 {name} 1973 00:00:00 GMT", 94_694_400.0) == 86400 * days_before
    assert parse_retry_after(f"Monday, 01-{name}-73 00:00:00 GMT", 94_694_400.0) == 86400 * days_before
    assert parse_retry_after(f"Mon {name}  1 00:00:00 1973", 94_694_400.0) == 86400 * days_before


@pytest.mark.parametrize(
    ("date", "unix_now", "unix"),
    [
        ("Saturday, 01-Jan-00 00:00:10 GMT", YEAR_2000, YEAR_2000 + 10),
        ("Friday, 31-Dec-99 23:59:59 GMT", YEAR_2000, YEAR_2000),  # 1999: a second ago
        ("Saturday, 01-Jan-50 00:00:00 GMT", YEAR_2000, 2_524_608_000),  # 50 years ahead to the second: 2050
        ("Saturday, 01-Jan-50 00:00:01 GMT", YEAR_2000, YEAR_2000),  # a second more: 1950
        ("Saturday, 31-Dec-49 23:59:59 GMT", YEAR_2000, 2_524_607_999),
        ("Tuesday, 31-Dec-69 08:49:37 GMT", 1_573_030_177.0, 1_573_030_177),  # 2069 would be 50 years and 55 days ahead
        ("Wednesday, 29-Feb-40 00:00:00 GMT", YEAR_2000, 2_214_086_400),
        ("Monday, 02-Jan-06 00:00:00 GMT", 4_102_444_790.0, 4_291_833_600),  # two digits of the next century: 2106
    ],
)
def test_a_year_of_two_digits_is_at_most_fifty_years_ahead(date: str, unix_now: float, unix: float) -> None:
    assert parse_retry_after(date, unix_now) == unix - unix_now


@pytest.mark.parametrize(
    "value",
    [
        "Zun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 PST", "Sun, 06 Nov 1994 08:49:37 +0000", "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 94 08:49:37 GMT", "Sun, 06-Nov-94 08:49:37 GMT", "Sunday, 06-Nov-1994 08:49:37 GMT",
        "Sun Nov 6 08:49:37 1994", "Sun Nov  6 08:49:37 1994 GMT", "sun, 06 nov 1994 08:49:37 gmt",
        "Sun, 06 Nov 100000 08:49:37 GMT", "Sun, 06 Nov 0000 08:49:37 GMT", "Sun, 06 Now 1994 08:49:37 GMT",
        "Wed, 29 Feb 2023 00:00:00 GMT", "Thu, 29 Feb 1900 00:00:00 GMT", "Sun, 31 Apr 2023 00:00:00 GMT",
        "Sun, 00 Jan 2023 00:00:00 GMT", "Mon, 01 Jan 2024 24:00:00 GMT", "Mon, 01 Jan 2024 00:60:00 GMT",
        "Mon, 01 Jan 2024 00:00:61 GMT", "Fri, 31 Dec 9999 23:59:60 GMT", "Sun, 06 Nov 1994 08:49:37 GMT\n",
        "Sun Nov \uff11\uff12 08:49:37 1994", "2024-01-01T00:00:00Z",
    ],
)  # fmt: skip
def test_what_is_no_http_date_is_no_hint(value: str) -> None:
    assert parse_retry_after(value, NOW) is None


@pytest.mark.parametrize("unix_now", [math.nan, math.inf, -math.inf, 1e300, -1e300, -7e10])
@pytest.mark.parametrize(
    "value", ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "1994-11-06T08:49:37Z"]
)
def test_an_absurd_clock_is_no_reason_to_raise(value: str, unix_now: float) -> None:
    for wait in (parse_retry_after(value, unix_now), parse_reset(value, unix_now)):
        assert wait is None or 0 <= wait < math.inf


@pytest.mark.parametrize(
    ("headers", "hint"),
    [
        ([], None),
        ([("date", "7")], None),
        ([("retry-after", "7")], 7.0),
        ([("Retry-After", " 7 ")], 7.0),
        ([("retry-after", "Fri, 29 Sep 2023 16:26:57 GMT")], 20.0),
        ([("RETRY-AFTER-MS", "250")], 0.25),
        ([("x-ms-retry-after-ms", "1500.5")], 1.5005),
        ([("retry-after", "10"), ("retry-after-ms", "3000")], 3.0),
        ([("retry-after", "10"), ("x-ms-retry-after-ms", "3000")], 3.0),
        ([("x-ms-retry-after-ms", "9000"), ("retry-after-ms", "3000")], 3.0),
        ([("retry-after-ms", "soon"), ("x-ms-retry-after-ms", "3000"), ("retry-after", "7")], 3.0),
        ([("retry-after-ms", "-1"), ("x-ms-retry-after-ms", "nan"), ("retry-after", "7")], 7.0),
        ([("retry-after-ms", "soon"), ("retry-after", "later")], None),
        ([("retry-after-ms", "0"), ("retry-after", "7")], 0.0),
        ([("retry-after", "5"), ("retry-after", "60")], 60.0),
        ([("retry-after", "60"), ("retry-after", "x"), ("retry-after", "5")], 60.0),
        ([("retry-after-ms", "60"), ("retry-after-ms", "5")], 0.06),
    ],
)
def test_the_most_precise_header_that_can_be_read_wins(headers: list[tuple[str, str]], hint: float | None) -> None:
    assert retry_after_from_headers(headers, NOW) == hint
    assert retry_after_from_headers(iter(headers), NOW) == hint


def test_headers_may_be_a_mapping() -> None:
    assert retry_after_from_headers({"Retry-After": "7"}, NOW) == 7.0
    assert should_retry_from_headers({"X-Should-Retry": "true"}) is True


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ([], None),
        ([("x-should-retry", "true")], True),
        ([("X-Should-Retry", " False ")], False),
        ([("x-should-retry", "maybe")], None),
        ([("x-should-retry", "")], None),
        ([("should-retry", "true")], None),
        ([("x-should-retry", "true"), ("x-should-retry", "false")], False),
        ([("x-should-retry", "maybe"), ("x-should-retry", "true")], True),
    ],
)
def test_the_providers_own_word(headers: list[tuple[str, str]], said: bool | None) -> None:
    assert should_retry_from_headers(headers) is said


# Reset headers


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1s", 1.0), ("6m0s", 360.0), ("1m30s", 90.0), ("20ms", 0.02), ("50.529s", 50.529), ("1h2m", 3720.0),
        ("1h2m3s", 3723.0), ("2m59.56s", 179.56), ("7.66s", 7.66), ("0s", 0.0), ("1.s", 1.0), (".5s", 0.5),
        ("500us", 0.0005), ("500µs", 0.0005), ("500μs", 0.0005), ("5ns", 5e-9), (" 1s ", 1.0), ("9" * 400 + "h", 2.0**64),
        ("58", 58.0), ("0", 0.0), ("1.5", 1.5),
        ("-1", None), ("-1s", None), ("", None), ("abc", None), ("s", None), ("1", 1.0), ("1x", None), ("1s2", None),
        ("1 s", None), ("1S", None), (".s", None), ("1..5s", None), ("1d", None), ("\uff11s", None), ("1s\n", None),
        ("1s\x00", None),
    ],
)  # fmt: skip
def test_reset_as_a_duration(value: str, seconds: float | None) -> None:
    assert parse_reset(value, NOW) == (None if seconds is None else pytest.approx(seconds, rel=1e-12))


@pytest.mark.parametrize(
    ("value", "wait"),
    [
        ("2023-09-29T16:26:57Z", 20.0),
        ("2023-09-29t16:26:57z", 20.0),
        ("2023-09-29 16:26:57Z", 20.0),
        ("2023-09-29T16:26:57.5Z", 20.5),
        ("2023-09-29T18:26:57+02:00", 20.0),
        ("2023-09-29T12:56:57-03:30", 20.0),
        ("2023-09-29T16:26:57-00:00", 20.0),
        ("2023-09-29T16:26:37Z", 0.0),
        ("2023-09-29T16:00:00Z", 0.0),
        ("2023-09-29T16:26:60Z", 23.0),
        ("2023-09-29T16:26:57", None),
        ("2023-09-29", None),
        ("2023-9-29T16:26:57Z", None),
        ("2023-13-29T16:26:57Z", None),
        ("2023-00-29T16:26:57Z", None),
        ("2023-09-31T16:26:57Z", None),
        ("2023-09-29T24:26:57Z", None),
        ("2023-09-29T16:26:57+24:00", None),
        ("2023-09-29T16:26:57.Z", None),
        ("0000-09-29T16:26:57Z", None),
    ],
)
def test_reset_as_an_instant(value: str, wait: float | None) -> None:
    assert parse_reset(value, NOW) == wait


ALMOST = st.text("0123456789.-+:,TZ smhnuµ SunNovGMTJanday", max_size=40)


@given(st.text(max_size=40) | ALMOST, st.floats() | st.floats(0, 1e10))
@settings(max_examples=200, deadline=None)
def test_hints_are_total(value: str, unix_now: float) -> None:
    for wait in (
        parse_retry_after(value, unix_now),
        parse_reset(value, unix_now),
        retry_after_from_headers([("retry-after-ms", value), ("Retry-After", value)], unix_now),
    ):
        assert wait is None or 0 <= wait < math.inf
    assert should_retry_from_headers({"x-should-retry": value}) in (None, True, False)


@given(st.integers(0, 253_402_300_799), st.floats(0, 253_402_300_799))
@settings(max_examples=100, deadline=None)
def test_every_instant_reads_back(unix: int, unix_now: float) -> None:
    when = datetime(1970, 1, 1) + timedelta(seconds=unix)
    wait = max(0.0, unix - unix_now)
    year = f"{when.year:04d}"
    assert parse_retry_after(when.strftime(f"%a, %d %b {year} %H:%M:%S GMT"), unix_now) == wait
    assert parse_retry_after(f"{when:%a %b} {when.day:2d} {when:%H:%M:%S} {year}", unix_now) == wait
    assert parse_reset(f"{year}-{when:%m-%dT%H:%M:%S}Z", unix_now) == wait


@given(st.integers(0, 10**7), st.integers(0, 59), st.integers(0, 59_999))
@settings(max_examples=100, deadline=None)
def test_every_duration_reads_back(hours: int, minutes: int, ms: int) -> None:
    want = hours * 3600 + minutes * 60 + ms / 1000
    assert parse_reset(f"{hours}h{minutes}m{ms / 1000}s", NOW) == pytest.approx(want)
    assert parse_reset(f"{minutes}m{ms}ms", NOW) == pytest.approx(minutes * 60 + ms / 1000)
