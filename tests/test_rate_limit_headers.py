"""What each provider's rate-limit headers say (`sansio.rate_limit_headers`): sets of headers, and the snapshot they give."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sansio.http import Headers
from sansio.rate_limit import Permit, RateLimitDimension, RateLimiter, RateLimits, RateLimitSnapshot, Wait
from sansio.rate_limit_headers import SNAPSHOTS, SnapshotReader, compatible, reader_for

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z
Dimension = RateLimitDimension
Snapshot = RateLimitSnapshot


def pairs(text: str) -> tuple[tuple[str, str], ...]:
    """A block of header lines, indented or not."""
    lines = [line.strip().partition(":") for line in text.strip().splitlines()]
    return tuple((name, value.strip()) for name, _, value in lines)


def read(dialect: str, text: str) -> RateLimitSnapshot | None:
    return SNAPSHOTS[dialect](pairs(text), NOW)


# ---- sets of headers as they come -------------------------------------------------------------------------------------

OPENAI = """
    date: Fri, 15 Jan 2027 08:00:00 GMT
    content-type: text/event-stream; charset=utf-8
    openai-organization: org-0123
    openai-processing-ms: 132
    x-ratelimit-limit-requests: 10000
    x-ratelimit-limit-tokens: 2000000
    x-ratelimit-remaining-requests: 9999
    x-ratelimit-remaining-tokens: 1999211
    x-ratelimit-reset-requests: 6ms
    x-ratelimit-reset-tokens: 23ms
    x-request-id: req_0123456789abcdef
"""
OPENAI_SAYS = Snapshot(Dimension(10_000, 9_999, 0.006), Dimension(2_000_000, 1_999_211, 0.023))

AZURE = """
    apim-request-id: bb943c68-99ed-46ab-bda9-a5efbdf5897a
    x-ms-region: North Central US
    x-ratelimit-remaining-requests: 79
    x-ratelimit-remaining-tokens: 61353
    x-ms-client-request-id: bb943c68-99ed-46ab-bda9-a5efbdf5897a
"""
AZURE_SAYS = Snapshot(Dimension(None, 79), Dimension(None, 61_353))

ANTHROPIC = """
    request-id: req_0123456789
    anthropic-organization-id: 0b1e
    anthropic-ratelimit-requests-limit: 1000
    anthropic-ratelimit-requests-remaining: 999
    anthropic-ratelimit-requests-reset: 2027-01-15T08:00:01Z
    anthropic-ratelimit-tokens-limit: 2400000
    anthropic-ratelimit-tokens-remaining: 2396000
    anthropic-ratelimit-tokens-reset: 2027-01-15T08:00:02Z
    anthropic-ratelimit-input-tokens-limit: 2000000
    anthropic-ratelimit-input-tokens-remaining: 1997000
    anthropic-ratelimit-input-tokens-reset: 2027-01-15T08:00:03.5Z
    anthropic-ratelimit-output-tokens-limit: 400000
    anthropic-ratelimit-output-tokens-remaining: 399000
    anthropic-ratelimit-output-tokens-reset: 2027-01-15T10:00:04+02:00
"""
ANTHROPIC_SAYS = Snapshot(
    Dimension(1000, 999, 1.0),
    Dimension(2_400_000, 2_395_500, 2.0),
    Dimension(2_000_000, 1_996_500, 3.5),
    Dimension(400_000, 398_500, 4.0),
)

GROQ = """
    x-groq-region: us-west-1
    x-ratelimit-limit-requests: 14400
    x-ratelimit-limit-tokens: 18000
    x-ratelimit-remaining-requests: 14370
    x-ratelimit-remaining-tokens: 17997
    x-ratelimit-reset-requests: 3m0s
    x-ratelimit-reset-tokens: 7.66s
"""
GROQ_SAYS = Snapshot(Dimension(None, 14_370, 6.0), Dimension(18_000, 17_997, 7.66))

MISTRAL = """
    x-kong-request-id: 019c6f45-6523-7b29-a0d1-2e9d64650277
    x-ratelimit-limit-req-minute: 60
    x-ratelimit-limit-tokens-minute: 50000
    x-ratelimit-limit-tokens-month: 4000000
    x-ratelimit-remaining-req-minute: 59
    x-ratelimit-remaining-tokens-minute: 47196
    x-ratelimit-remaining-tokens-month: 3950246
    x-ratelimit-tokens-query-cost: 2804
"""
MISTRAL_SAYS = Snapshot(Dimension(60, 59), Dimension(50_000, 47_196))

TOGETHER = """
    x-ratelimit-limit: 10
    x-ratelimit-remaining: 9
    x-ratelimit-reset: 1
    x-tokenlimit-limit: 3000
    x-tokenlimit-remaining: 2811
"""
TOGETHER_SAYS = Snapshot(Dimension(None, 9, 1.0), Dimension(None, 2811, 1.0))

LITELLM = """
    x-litellm-call-id: 2f6e
    x-litellm-version: 1.109.1
    x-litellm-model-api-base: https://api.openai.com
    x-ratelimit-api_key-remaining-requests: 45
    x-ratelimit-api_key-limit-requests: 50
    x-ratelimit-api_key-remaining-tokens: 99000
    x-ratelimit-api_key-limit-tokens: 100000
    x-ratelimit-api_key-remaining-max_parallel_requests: 3
    x-ratelimit-team-remaining-requests: 12
    x-ratelimit-team-limit-requests: 200
    x-ratelimit-remaining-requests: 9999
    x-ratelimit-limit-requests: 10000
    x-ratelimit-remaining-tokens: 1999
    x-ratelimit-limit-tokens: 2000
    llm_provider-x-ratelimit-remaining-requests: 9999
    llm_provider-x-ratelimit-limit-requests: 10000
    llm_provider-x-ratelimit-reset-requests: 6ms
    llm_provider-x-ratelimit-remaining-tokens: 1999
    llm_provider-x-ratelimit-limit-tokens: 2000
    llm_provider-x-ratelimit-reset-tokens: 30ms
"""
LITELLM_SAYS = Snapshot(Dimension(200, 12), Dimension(2000, 1999, 0.03))

SETS = {
    "openai": (OPENAI, OPENAI_SAYS),
    "azure": (AZURE, AZURE_SAYS),
    "anthropic": (ANTHROPIC, ANTHROPIC_SAYS),
    "groq": (GROQ, GROQ_SAYS),
    "mistral": (MISTRAL, MISTRAL_SAYS),
    "together": (TOGETHER, TOGETHER_SAYS),
    "litellm": (LITELLM, LITELLM_SAYS),
}


@pytest.mark.parametrize("dialect", SETS)
def test_a_set_of_headers_as_it_comes(dialect: str) -> None:
    headers, says = SETS[dialect]
    assert read(dialect, headers) == says


@pytest.mark.parametrize("dialect", SETS)
def test_names_in_any_case_and_any_order(dialect: str) -> None:
    headers, says = SETS[dialect]
    assert SNAPSHOTS[dialect](tuple((name.title(), value) for name, value in pairs(headers)), NOW) == says
    assert SNAPSHOTS[dialect](tuple((name.upper(), f" {value}\t") for name, value in pairs(headers)[::-1]), NOW) == says
    assert compatible(tuple((name.swapcase(), value) for name, value in pairs(headers)), NOW) == says


@pytest.mark.parametrize("dialect", [*SETS, "gemini"])
def test_headers_of_no_limit_say_nothing(dialect: str) -> None:
    assert read(dialect, "content-type: application/json\n retry-after: 3\n x-ratelimit-reset-requests: 3s") is None
    assert SNAPSHOTS[dialect]((), NOW) is None


def test_gemini_has_nothing_to_say() -> None:
    assert [read("gemini", headers) for headers, _ in SETS.values()] == [None] * len(SETS)


def test_there_is_a_reader_for_each_provider() -> None:
    assert {*SNAPSHOTS} == {*SETS, "gemini"}


@pytest.mark.parametrize("dialect", SETS)
def test_of_two_headers_with_one_name_the_first_is_read(dialect: str) -> None:
    headers, says = SETS[dialect]
    again = tuple((name, "1") for name, _ in pairs(headers))
    assert SNAPSHOTS[dialect](pairs(headers) + again, NOW) == compatible(pairs(headers) + again, NOW) == says


# ---- one value goes wrong ---------------------------------------------------------------------------------------------

BAD_COUNTS = ("", "-1", "many", "1.5", "1e3", "1_000", "+5", "0x10", "²", "٣", "9" * 19, "NaN", "1,000", "5 5", "\x00")
BAD_RESETS = ("", "-1", "soon", "-5s", "1h-3s", "inf", "nan", "2027-13-45T99:00:00Z", "٣s", "1s 2s", "\ud800", "1e5")

FIELD_BY_NAME = {
    "openai": ("x-ratelimit-{field}-{amount}", {"requests": "requests", "tokens": "tokens"}),
    "azure": ("x-ratelimit-{field}-{amount}", {"requests": "requests", "tokens": "tokens"}),
    "anthropic": (
        "anthropic-ratelimit-{amount}-{field}",
        {"requests": "requests", "tokens": "tokens", "input-tokens": "input_tokens", "output-tokens": "output_tokens"},
    ),
    "mistral": ("x-ratelimit-{field}-{amount}", {"req-minute": "requests", "tokens-minute": "tokens"}),
    "litellm": ("x-ratelimit-user-{field}-{amount}", {"requests": "requests", "tokens": "tokens"}),
}


@pytest.mark.parametrize("bad", [*BAD_COUNTS, *BAD_RESETS])
@pytest.mark.parametrize("dialect", FIELD_BY_NAME)
def test_a_bad_value_leaves_its_own_field_unsaid_and_no_other(dialect: str, bad: str) -> None:
    names, amounts = FIELD_BY_NAME[dialect]
    reset = "2027-01-15T08:00:07Z" if dialect == "anthropic" else "7"
    good = {"limit": "4096", "remaining": "1234", "reset": reset}
    headers = {names.format(amount=amount, field=field): good[field] for amount in amounts for field in good}
    if dialect == "anthropic":  # where two amounts say the same, the one is the other
        headers |= {names.format(amount="tokens", field="limit"): "8192"}
    whole = SNAPSHOTS[dialect](tuple(headers.items()), NOW)
    assert whole is not None
    of_limits: dict[str, Any] = {"limit": 4096, "remaining": 1234, "reset_after": 7.0}
    for amount, attribute in amounts.items():
        said = getattr(whole, attribute)
        assert said in (Dimension(*of_limits.values()), Dimension(8192, 1234, 7.0))
        for field, of in zip(good, of_limits, strict=True):
            if bad not in (BAD_RESETS if field == "reset" else BAD_COUNTS):
                continue
            seen = SNAPSHOTS[dialect](tuple((headers | {names.format(amount=amount, field=field): bad}).items()), NOW)
            assert seen == replace(whole, **{attribute: replace(said, **{of: None})})


# ---- OpenAI -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("1m30s", 90.0),
        ("20ms", 0.02),
        ("50.529s", 50.529),
        ("1h2m3.5s", 3723.5),
        ("24h0m1s", 86_401.0),  # no bound here: a duration is no instant
    ],
)
def test_a_reset_is_a_go_duration(reset: str, seconds: float) -> None:
    said = read("openai", f"x-ratelimit-remaining-tokens: 1\n x-ratelimit-reset-tokens: {reset}")
    assert said == Snapshot(tokens=Dimension(None, 1, pytest.approx(seconds)))


@pytest.mark.parametrize(
    ("all_tokens", "of_project", "told"),
    [
        (("500000", "490000", "30s"), ("100000", "90000", "1m"), Dimension(100_000, 90_000, 60.0)),
        (("500000", "80000", "30s"), ("100000", "90000", "1m"), Dimension(500_000, 80_000, 30.0)),
        (("500000", "7", "?"), ("100000", "7", "1m"), Dimension(100_000, 7, 60.0)),
        (("500000", "7", "30s"), ("100000", "7", "?"), Dimension(500_000, 7, 30.0)),
        (("500000", "?", "30s"), ("100000", "90000", "1m"), Dimension(100_000, 90_000, 60.0)),
        (("500000", "9", "30s"), ("100000", "?", "1m"), Dimension(500_000, 9, 30.0)),
        (("?", "?", "30s"), ("100000", "90000", "1m"), Dimension(100_000, 90_000, 60.0)),
        (("500000", "0", "30s"), ("?", "?", "1m"), Dimension(500_000, 0, 30.0)),
    ],
)
def test_of_all_tokens_and_the_projects_the_tighter_are_told(
    all_tokens: tuple[str, ...], of_project: tuple[str, ...], told: RateLimitDimension
) -> None:
    headers = "\n".join(
        f"x-ratelimit-{field}-{amount}: {value}"
        for amount, values in (("tokens", all_tokens), ("project-tokens", of_project))
        for field, value in zip(("limit", "remaining", "reset"), values, strict=True)
    )
    assert read("openai", headers) == Snapshot(tokens=told)


def test_a_count_has_at_most_eighteen_digits() -> None:
    assert read("openai", f"x-ratelimit-remaining-tokens: {'9' * 18}") == Snapshot(tokens=Dimension(None, 10**18 - 1))
    assert read("openai", f"x-ratelimit-remaining-tokens: {'9' * 19}") is None


def test_a_reset_of_zero_is_none_that_openai_sends() -> None:
    assert read("openai", "x-ratelimit-remaining-tokens: 7\n x-ratelimit-reset-tokens: 0") == Snapshot(
        tokens=Dimension(None, 7)
    )


# ---- Azure ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "remaining", "reset", "retry_after", "told"),
    [
        ("-1", "-1", "0", None, None),  # as seen since November 2025
        ("0", "0", "0", None, None),
        ("-1", "0", "0", None, None),
        (None, "0", None, None, None),
        (None, "0", None, "0", None),
        (None, "0", None, "soon", None),
        (None, "0", None, "86401", None),
        (None, "0", None, "17", Dimension(None, 0, 17.0)),
        (None, "0", None, "86400", Dimension(None, 0, 86_400.0)),
        ("120000", "0", None, None, Dimension(120_000, 0)),
        ("120000", "0", None, "5", Dimension(120_000, 0, 5.0)),
        ("120000", "0", "55", "5", Dimension(120_000, 0, 55.0)),
        ("-1", "0", "55", None, Dimension(None, 0, 55.0)),
        ("120000", "400", "55", "5", Dimension(120_000, 400, 55.0)),
        ("120000", "400", None, "5", Dimension(120_000, 400)),
        ("0", "400", "0", None, Dimension(None, 400)),
        ("120000", "-1", "55", None, Dimension(120_000, None, 55.0)),
        ("120000", "400", "86400", None, Dimension(120_000, 400, 86_400.0)),
        ("120000", "400", "1800000055", None, Dimension(120_000, 400)),  # an instant, not a wait
    ],
)
def test_what_azure_writes_where_it_does_not_know_is_unknown(
    limit: str | None, remaining: str | None, reset: str | None, retry_after: str | None, told: RateLimitDimension | None
) -> None:
    for amount in ("requests", "tokens"):
        said = {
            f"x-ratelimit-limit-{amount}": limit,
            f"x-ratelimit-remaining-{amount}": remaining,
            f"x-ratelimit-reset-{amount}": reset,
            "Retry-After": retry_after,
        }
        headers = tuple((name, value) for name, value in said.items() if value is not None)
        assert SNAPSHOTS["azure"](headers, NOW) == (None if told is None else Snapshot(**{amount: told}))


def test_azures_more_precise_hint_wins() -> None:
    headers = "x-ratelimit-remaining-requests: 0\n retry-after: 9\n retry-after-ms: 1500"
    assert read("azure", headers) == Snapshot(Dimension(None, 0, 1.5))


# ---- Anthropic --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [
        ("2027-01-15T08:00:06Z", 6.0),
        ("2027-01-15T08:01:00.25Z", 60.25),
        ("2027-01-15t09:30:06+01:30", 6.0),
        ("2027-01-15T08:00:00Z", 0.0),
        ("2027-01-15T07:59:30Z", 0.0),  # passed, or our clock is fast: whole, as far as we know
        ("2019-01-01T00:00:00Z", 0.0),
        ("2027-01-16T08:00:00Z", 86_400.0),
        ("2027-01-16T08:00:01Z", None),
        ("9999-12-31T23:59:59Z", None),
        ("2027-02-30T08:00:06Z", None),
        ("1800000006", None),
    ],
)
def test_a_reset_is_an_instant(reset: str, seconds: float | None) -> None:
    said = read("anthropic", f"anthropic-ratelimit-requests-remaining: 9\n anthropic-ratelimit-requests-reset: {reset}")
    assert said == Snapshot(Dimension(None, 9, seconds))


@pytest.mark.parametrize(
    ("remaining", "at_least"),
    [("400000", 399_500), ("1000", 500), ("0", 0), ("9618", 9_618), ("500", 500), ("999", 999)],
)
@pytest.mark.parametrize("amount", ["tokens", "input-tokens", "output-tokens"])
def test_tokens_rounded_to_thousands_are_taken_at_the_least_they_mean(amount: str, remaining: str, at_least: int) -> None:
    said = read("anthropic", f"anthropic-ratelimit-{amount}-remaining: {remaining}")
    assert said == Snapshot(**{amount.replace("-", "_"): Dimension(None, at_least)})


@given(st.integers(0, 10**7))
def test_rounding_never_makes_room(truly: int) -> None:
    rounded = (truly + 500) // 1000 * 1000
    said = read("anthropic", f"anthropic-ratelimit-output-tokens-remaining: {rounded}")
    assert said is not None and said.output_tokens is not None and said.output_tokens.remaining is not None
    assert truly - 1000 < said.output_tokens.remaining <= truly


def test_requests_are_not_rounded() -> None:
    assert read("anthropic", "anthropic-ratelimit-requests-remaining: 4000") == Snapshot(Dimension(None, 4000))


@pytest.mark.parametrize(
    ("tokens", "of_input", "of_output", "told"),
    [
        ((2_400_000, 11_000), (2_000_000, 11_000), (400_000, 399_000), True),
        ((2_000_000, 11_000), (2_000_000, 11_000), (400_000, 399_000), False),
        ((400_000, 399_000), (2_000_000, 11_000), (400_000, 399_000), False),
        ((400_000, 90_000), (2_000_000, 11_000), (400_000, 399_000), True),  # of a workspace, as large as that of output
    ],
)
def test_tokens_that_repeat_those_of_input_or_output_say_nothing_of_both(
    tokens: tuple[int, int], of_input: tuple[int, int], of_output: tuple[int, int], told: bool
) -> None:
    said = read(
        "anthropic",
        "\n".join(
            f"anthropic-ratelimit-{amount}-limit: {limit}\n anthropic-ratelimit-{amount}-remaining: {remaining}"
            f"\n anthropic-ratelimit-{amount}-reset: {'soon' if amount == 'tokens' else '2027-01-15T08:00:09Z'}"
            for amount, (limit, remaining) in (("tokens", tokens), ("input-tokens", of_input), ("output-tokens", of_output))
        ),
    )
    assert said == Snapshot(
        tokens=Dimension(tokens[0], tokens[1] - 500) if told else None,
        input_tokens=Dimension(of_input[0], of_input[1] - 500, 9.0),
        output_tokens=Dimension(of_output[0], of_output[1] - 500, 9.0),
    )


def test_limits_of_priority_and_fast_requests_are_not_the_keys() -> None:
    other = """
        anthropic-priority-input-tokens-limit: 10000
        anthropic-priority-input-tokens-remaining: 0
        anthropic-priority-input-tokens-reset: 2027-01-15T08:00:59Z
        anthropic-priority-output-tokens-remaining: 0
        anthropic-fast-input-tokens-remaining: 0
        anthropic-ratelimit-unified-5h-utilization: 0.33
        anthropic-ratelimit-unified-tokens-remaining: 0
    """
    assert read("anthropic", other) is None
    assert read("anthropic", other + ANTHROPIC.strip()) == ANTHROPIC_SAYS


# ---- Groq -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "remaining", "reset", "told"),
    [
        ("1000", "0", "24h0m0s", Dimension(None, 0, 86.4)),  # what Groq itself says on such a 429: in 1m26.4s
        ("1000", "995", "7m12s", Dimension(None, 995, 86.4)),
        ("14400", "0", "24h", Dimension(None, 0, 6.0)),
        ("1000", "1000", "0s", Dimension(None, 1000)),
        ("1000", "1000", "5s", Dimension(None, 1000)),
        ("1000", "2000", "5s", Dimension(None, 2000)),
        ("1000", "0", "?", Dimension(None, 0)),
        ("?", "0", "24h", Dimension(None, 0)),
        ("1000", "?", "24h", None),
    ],
)
def test_what_remains_of_a_day_holds_until_there_is_one_more(
    limit: str, remaining: str, reset: str, told: RateLimitDimension | None
) -> None:
    headers = (
        f"x-ratelimit-limit-requests: {limit}\n x-ratelimit-remaining-requests: {remaining}\n"
        f" x-ratelimit-reset-requests: {reset}"
    )
    assert read("groq", headers) == (None if told is None else Snapshot(told))


def limiter(**limits: Any) -> RateLimiter:
    return RateLimiter(RateLimits(**limits))


def grants(one: RateLimiter, now: float, output_tokens: int = 0) -> int:
    """How many requests go at once."""
    count = 0
    while isinstance(one.reserve(1, 0, output_tokens, now), Permit):
        count += 1
    return count


def observed(one: RateLimiter, dialect: str, headers: str, now: float) -> RateLimiter:
    said = read(dialect, headers)
    assert said is not None
    one.observe_headers(said, now)
    return one


def test_what_remains_of_a_day_binds_a_minute_only_where_it_is_less() -> None:
    assert grants(observed(limiter(requests_per_minute=30), "groq", GROQ, 0.0), 0.0) == 30
    nearly_over = "x-ratelimit-limit-requests: 1000\n x-ratelimit-remaining-requests: 7\n x-ratelimit-reset-requests: 23h"
    assert grants(observed(limiter(requests_per_minute=30), "groq", nearly_over, 0.0), 0.0) == 7
    over = nearly_over.replace(": 7", ": 0").replace("23h", "24h")
    assert observed(limiter(requests_per_minute=30), "groq", over, 0.0).reserve(1, 0, 0, 0.0) == Wait(pytest.approx(86.4))


# ---- Mistral ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ("x-ratelimit-limit-req-minute: 0\n x-ratelimit-remaining-req-minute: 0", None),
        (
            "x-ratelimit-limit-req-minute: 0\n x-ratelimit-remaining-req-minute: 0\n x-ratelimit-remaining-tokens-minute: 5",
            Snapshot(tokens=Dimension(None, 5)),
        ),
        ("x-ratelimit-limit-tokens-minute: 0\n x-ratelimit-remaining-tokens-minute: 7", None),
        ("x-ratelimit-limit-req-minute: 60\n x-ratelimit-remaining-req-minute: 0", Snapshot(Dimension(60, 0))),
        ("x-ratelimit-remaining-req-minute: 0", Snapshot(Dimension(None, 0))),
        ("x-ratelimit-remaining-requests: 0", None),
    ],
)
def test_a_limit_of_zero_is_that_of_another_plan(headers: str, told: RateLimitSnapshot | None) -> None:
    assert read("mistral", headers) == told


# ---- Together ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("remaining", "reset", "told"),
    [
        ("9", "0.4", Dimension(None, 9, 0.4)),
        ("9", "30", Dimension(None, 9, 1.0)),  # in half a minute it is full, but nine are left of this second only
        ("9", None, Dimension(None, 9, 1.0)),
        ("9", "0", Dimension(None, 9, 1.0)),
        ("0", "0", Dimension(None, 0, 1.0)),
        ("0", "12", Dimension(None, 0, 12.0)),
        ("0", "1800000012", Dimension(None, 0, 1.0)),
        ("0", None, Dimension(None, 0, 1.0)),
        ("-1", "12", None),
    ],
)
@pytest.mark.parametrize(("names", "amount"), [("x-ratelimit", "requests"), ("x-tokenlimit", "tokens")])
def test_what_remains_of_a_second_holds_for_a_second(
    names: str, amount: str, remaining: str, reset: str | None, told: RateLimitDimension | None
) -> None:
    headers = [(f"{names}-limit", "10"), (f"{names}-remaining", remaining)]
    headers += [] if reset is None else [(f"{names}-reset", reset)]
    assert SNAPSHOTS["together"](tuple(headers), NOW) == (None if told is None else Snapshot(**{amount: told}))


def test_a_second_is_not_taken_for_a_minute() -> None:
    one = observed(limiter(requests_per_minute=600), "together", TOGETHER, 0.0)
    assert [grants(one, 0.0), grants(one, 1.0)] == [9, 591]


# ---- LiteLLM ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ("x-ratelimit-remaining-requests: 9", Snapshot(Dimension(None, 9))),
        ("x-ratelimit-model_per_key-remaining-requests: 9", Snapshot(Dimension(None, 9))),
        ("x-ratelimit-tag_per_key-limit-tokens: 9", Snapshot(tokens=Dimension(9))),
        ("x-ratelimit-remaining-litellm-project-tokens: 8", Snapshot(tokens=Dimension(None, 8))),
        ("x-ratelimit-remaining-model-requests: 8", Snapshot(Dimension(None, 8))),
        ("x-ratelimit-model_per_project_itpm-remaining-tokens: 8", Snapshot(input_tokens=Dimension(None, 8))),
        ("x-ratelimit-model_per_project_otpm-remaining-tokens: 8", Snapshot(output_tokens=Dimension(None, 8))),
        ("x-ratelimit-model_per_project_itpm-remaining-requests: 8", Snapshot(Dimension(None, 8))),
        ("x-ratelimit-api_key-remaining-max_parallel_requests: 0", None),
        ("x-ratelimit-api_key-used-requests: 3", None),
        ("x-ratelimit-requests: 3", None),
        ("x-ratelimit-current-active-projects: 3", None),
        ("x-ratelimit-: 3", None),
        ("x-ratelimit-reset-requests: 3s", None),
        # what belongs together is of one scope
        (
            "x-ratelimit-user-limit-requests: 5\n x-ratelimit-team-remaining-requests: 9",
            Snapshot(Dimension(None, 9)),
        ),
        (
            "x-ratelimit-user-remaining-requests: 9\n x-ratelimit-team-remaining-requests: 4"
            "\n x-ratelimit-team-limit-requests: 50\n x-ratelimit-remaining-requests: 7",
            Snapshot(Dimension(50, 4)),
        ),
        # nothing remains: of a limit, or as Azure says "unknown"
        ("x-ratelimit-user-remaining-requests: 0\n x-ratelimit-user-limit-requests: 5", Snapshot(Dimension(5, 0))),
        ("x-ratelimit-user-remaining-requests: 0\n x-ratelimit-team-remaining-requests: 5", Snapshot(Dimension(None, 5))),
        ("x-ratelimit-remaining-tokens: 0\n x-ratelimit-limit-tokens: -1\n x-ratelimit-reset-tokens: 0", None),
        (
            "llm_provider-apim-request-id: x\n llm_provider-x-ratelimit-remaining-tokens: 0"
            "\n llm_provider-x-ratelimit-limit-tokens: -1\n llm_provider-x-ratelimit-reset-tokens: 0",
            None,
        ),
        # whoever is behind it speaks as ever
        (
            "llm_provider-x-ratelimit-remaining-tokens: 30\n llm_provider-x-ratelimit-reset-tokens: 2s"
            "\n x-ratelimit-key-remaining-tokens: 40",
            Snapshot(tokens=Dimension(None, 30, 2.0)),
        ),
        ("llm_provider-retry-after: 3", None),
        ("llm_provider-x-litellm-call-id: 1\n llm_provider-x-ratelimit-key-remaining-tokens: 40", None),
    ],
)
def test_a_proxys_own_limits_and_those_behind_it(headers: str, told: RateLimitSnapshot | None) -> None:
    assert read("litellm", headers) == told


@pytest.mark.parametrize("dialect", [name for name in SETS if name != "litellm"])
def test_what_a_proxy_passes_on_is_read_in_its_dialect(dialect: str) -> None:
    headers, says = SETS[dialect]
    passed_on = tuple((f"LLM_Provider-{name}", value) for name, value in pairs(headers))
    assert SNAPSHOTS["litellm"](passed_on, NOW) == says


def test_proxies_behind_proxies_do_not_pile_up() -> None:
    headers = tuple(("llm_provider-" * depth + "x-litellm-call-id", "1") for depth in range(2000))
    assert SNAPSHOTS["litellm"](headers, NOW) is compatible(headers, NOW) is None


# ---- whose dialect it is ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "dialect"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://eu.api.openai.com/v1", "openai"),
        ("https://MY.openai.azure.com/openai/v1/", "azure"),
        ("https://my.services.ai.azure.com/openai/v1", "azure"),
        ("https://api.groq.com/openai/v1", "groq"),
        ("https://api.groq.com.:443/openai/v1", "groq"),
        ("https://groq.com/", "groq"),
        ("https://api.eu.mistral.ai/v1", "mistral"),
        ("https://api-inference.together.ai/v1", "together"),
        ("https://api.together.xyz/v1", "together"),
        ("https://api.groq.com.example.org/v1", None),
        ("https://notgroq.com/v1", None),
        ("https://api.x.ai/v1", None),
        ("http://127.0.0.1:8080/v1", None),
        ("http://localhost:4000/api.groq.com", None),
        ("http://[::1]:4000/v1", None),
    ],
)
def test_the_dialect_by_endpoint(endpoint: str, dialect: str | None) -> None:
    assert reader_for(endpoint) is (compatible if dialect is None else SNAPSHOTS[dialect])


@pytest.mark.parametrize("endpoint", ["", "api.openai.com/v1", "ftp://api.openai.com", "https://", "http://\ud800"])
def test_an_endpoint_that_is_no_url_is_refused(endpoint: str) -> None:
    with pytest.raises(ValueError, match=r"^url: "):
        reader_for(endpoint)


@pytest.mark.parametrize(
    ("sign", "dialect"),
    [
        ("x-litellm-call-id: 1", "litellm"),
        ("x-litellm-model-id: 1", "litellm"),
        ("x-litellm-version: 1", "litellm"),
        ("apim-request-id: 1", "azure"),
        ("x-ms-region: West US", "azure"),
        ("x-groq-region: us", "groq"),
        ("x-tokenlimit-limit: 1", "together"),
        ("anthropic-ratelimit-requests-reset: 1", "anthropic"),
        ("x-ratelimit-limit-tokens-minute: 1", "mistral"),
        ("x-request-id: 1", "openai"),
        ("x-ratelimit-remaining: 0", "openai"),
    ],
)
def test_the_dialect_by_the_names_that_it_alone_has(sign: str, dialect: str) -> None:
    headers = """
        x-ratelimit-limit-requests: 100
        x-ratelimit-remaining-requests: 0
        x-ratelimit-reset-requests: 1m40s
        x-ratelimit-remaining-tokens: 0
        x-ratelimit-user-remaining-tokens: 5
        x-ratelimit-remaining: 5
    """
    for text in (headers + sign, f"{sign}\n{headers.strip()}"):
        assert compatible(pairs(text), NOW) == read(dialect, text)
    told = {"openai": (0, 100.0, 0), "litellm": (0, 100.0, 5), "azure": (0, 100.0, None), "groq": (0, 1.0, 0)}
    if dialect in told:
        said = compatible(pairs(headers + sign), NOW)
        assert said is not None and said.requests is not None
        tokens = None if said.tokens is None else said.tokens.remaining
        assert (said.requests.remaining, said.requests.reset_after, tokens) == told[dialect]


def test_a_proxys_name_counts_for_more_than_those_it_passed_on() -> None:
    signs = ["x-litellm-call-id: 1", *(SETS[d][0].strip() for d in ("together", "mistral", "anthropic", "azure", "groq"))]
    ranked = ["litellm", "together", "mistral", "anthropic", "azure", "groq"]
    for at, dialect in enumerate(ranked):
        for text in ("\n".join(signs[at:]), "\n".join(signs[at:][::-1])):
            assert compatible(pairs(text), NOW) == read(dialect, text)


# ---- anything -----------------------------------------------------------------------------------------------------------

ALL_READERS: list[SnapshotReader] = [*SNAPSHOTS.values(), compatible]
NAMES = sorted(
    {name for headers, _ in SETS.values() for name, _ in pairs(headers)}
    | {
        "retry-after",
        "retry-after-ms",
        "x-ratelimit-reset-req-minute",
        "x-tokenlimit-reset",
        "x-ratelimit-",
        "llm_provider-",
    }
)
INSTANTS = st.integers(-(10**5), 10**5).map(
    lambda seconds: f"{datetime.fromtimestamp(NOW, UTC) + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"
)
VALUES = (
    st.integers(-5, 10**20).map(str)
    | st.floats().map(str)
    | st.text(alphabet="0123456789hmsµnu.-:TZ ", max_size=20)
    | INSTANTS
    | st.binary(max_size=8).map(lambda data: data.decode("latin-1"))
    | st.text(max_size=8)
)
HEADERS = st.lists(st.tuples(st.sampled_from(NAMES) | st.text(max_size=12), VALUES), max_size=12).map(tuple)


@given(HEADERS, st.sampled_from([NOW, 0.0, -1e300, math.inf, math.nan]) | st.floats())
def test_no_headers_and_no_clock_make_a_reader_raise_or_say_what_cannot_be(
    headers: tuple[tuple[str, str], ...], unix_now: float
) -> None:
    for reader in ALL_READERS:
        said = reader(headers, unix_now)
        if said is None:
            continue
        told = [getattr(said, field.name) for field in fields(said)]
        assert any(dimension is not None for dimension in told)
        for dimension in told:
            if dimension is not None:
                assert (dimension.limit, dimension.remaining) != (None, None)
                assert all(n is None or (type(n) is int and 0 <= n < 10**18) for n in (dimension.limit, dimension.remaining))
                assert dimension.reset_after is None or 0 <= dimension.reset_after < math.inf
        one = limiter(requests_per_minute=5, tokens_per_minute=50, input_tokens_per_minute=50, output_tokens_per_minute=50)
        one.observe_headers(said, 0.0)
        answer = one.reserve(1, 1, 1, 0.0)
        assert isinstance(answer, Permit) or (isinstance(answer, Wait) and answer.until is not None)


UNDECODED = st.sampled_from([b"12", b"0"]) | st.binary(max_size=9)


@given(st.lists(st.tuples(st.sampled_from(NAMES) | st.text(max_size=12), UNDECODED)))
def test_bytes_that_nobody_decoded_say_nothing_and_do_no_harm(headers: list[tuple[str, bytes]]) -> None:
    for reader in ALL_READERS:
        assert reader(cast("Headers", tuple(headers)), NOW) is None
        in_bytes = tuple((name.encode("utf-8", "surrogatepass"), value) for name, value in headers)
        assert reader(cast("Headers", in_bytes), NOW) is None


@given(HEADERS)
def test_other_headers_around_them_change_nothing(headers: tuple[tuple[str, str], ...]) -> None:
    around = (("date", "x"), ("Server", "y"), ("x-request-id", "z"), ("x-ratelimit-tokens-query-cost", "1"))
    for reader in ALL_READERS:
        assert reader(around + headers + around, NOW) == reader(headers, NOW)
