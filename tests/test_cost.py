"""What attempts cost (`sansio.cost`), and the table of prices (`sansio.prices`)."""

from __future__ import annotations

import dataclasses
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sansio.batch import TokenEstimate, TokenUsage
from sansio.cost import CostEntry, CostEstimate, CostLedger, CostTotals, cost_of, estimate_cost
from sansio.prices import SOURCE_DATE, LongContext, Price, price_for, prices_from

PRICE = Price(2.0, 10.0, 0.2, 2.5)
UNKNOWN = CostEstimate(None, "unknown")


# ---- the cost of one attempt ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usage", "usd"),
    [
        (TokenUsage(), 0.0),
        (TokenUsage(1_000_000, 0), 2.0),
        (TokenUsage(0, 1_000_000), 10.0),
        (TokenUsage(1_000, 100), 0.003),
        (TokenUsage(1_000, 0, cached_input_tokens=400), (600 * 2.0 + 400 * 0.2) / 1e6),
        (TokenUsage(1_000, 0, cache_write_tokens=400), (600 * 2.0 + 400 * 2.5) / 1e6),
        (TokenUsage(1_000, 0, cached_input_tokens=400, cache_write_tokens=100), (500 * 2.0 + 400 * 0.2 + 100 * 2.5) / 1e6),
        (TokenUsage(0, 100, reasoning_tokens=90), 0.001),  # reasoning is part of the output
    ],
)
def test_each_token_at_its_price(usage: TokenUsage, usd: float) -> None:
    cost = cost_of(usage, PRICE)
    assert cost.usd == pytest.approx(usd)
    assert cost.provenance == "exact"


@pytest.mark.parametrize(
    ("usage", "usd"),
    [
        (TokenUsage(100, 0, cached_input_tokens=500), 100 * 0.2 / 1e6),  # never more cached than there is input
        (TokenUsage(100, 0, cached_input_tokens=80, cache_write_tokens=500), (80 * 0.2 + 20 * 2.5) / 1e6),
    ],
)
def test_contradictory_counts_never_bill_more_input_than_there_was(usage: TokenUsage, usd: float) -> None:
    assert cost_of(usage, PRICE).usd == pytest.approx(usd)


def test_without_a_price_of_its_own_cached_and_written_input_costs_what_input_does() -> None:
    usage = TokenUsage(1_000, 0, cached_input_tokens=400, cache_write_tokens=100)
    assert cost_of(usage, Price(2.0, 10.0)).usd == pytest.approx(0.002)


@pytest.mark.parametrize(
    ("input_tokens", "usd"),
    [(200_000, 0.2 + 0.01), (200_001, 0.400002 + 0.015)],  # the whole request, from the first token above
)
def test_a_long_context_has_other_prices(input_tokens: int, usd: float) -> None:
    price = Price(1.0, 10.0, long_context=LongContext(200_000, 2.0, 15.0))
    assert cost_of(TokenUsage(input_tokens, 1_000), price).usd == pytest.approx(usd)
    assert estimate_cost(TokenEstimate(input_tokens, 1_000), price).usd == pytest.approx(usd)


@pytest.mark.parametrize(
    ("usage", "price", "provenance"),
    [
        (TokenUsage(10, 10), PRICE, "exact"),
        (TokenUsage(10, 10, provenance="lower_bound"), PRICE, "estimated"),
        (TokenUsage(10, 10, provenance="unknown"), PRICE, "unknown"),
        (None, PRICE, "unknown"),
        (TokenUsage(10, 10), None, "unknown"),
    ],
)
def test_how_well_a_cost_is_known(usage: TokenUsage | None, price: Price | None, provenance: str) -> None:
    cost = cost_of(usage, price)
    assert cost.provenance == provenance
    assert cost.usd == (None if provenance == "unknown" else pytest.approx(0.00012))  # unknown is not zero
    assert cost.currency == "USD"


# ---- what is written to a cache for longer ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("price", "usage", "usd", "provenance"),
    [
        (Price(2.0, 10.0, 0.2, 2.5, None, 4.0), TokenUsage(1_000, 0, 0, 600, cache_write_long_tokens=500),
         400 * 2.0 + 100 * 2.5 + 500 * 4.0, "exact"),
        (Price(2.0, 10.0, 0.2, 2.5, None, 4.0), TokenUsage(1_000, 0, 900, 600, cache_write_long_tokens=600),
         900 * 0.2 + 100 * 4.0, "exact"),  # never more than there is input
        (Price(2.0, 10.0, 0.2, 2.5, None, 4.0), TokenUsage(1_000, 0, 0, 100, cache_write_long_tokens=600),
         900 * 2.0 + 100 * 4.0, "exact"),  # nor than was written
        (Price(2.0, 10.0, 0.2, 2.5), TokenUsage(1_000, 0, 0, 600, cache_write_long_tokens=500),
         400 * 2.0 + 600 * 2.5, "estimated"),
        (Price(2.0, 10.0, 0.2, 2.5), TokenUsage(1_000, 0, 0, 600), 400 * 2.0 + 600 * 2.5, "exact"),
        (Price(2.0, 10.0), TokenUsage(1_000, 0, 0, 600, cache_write_long_tokens=500), 1_000 * 2.0, "exact"),  # unbilled
        (Price(2.0, 10.0, None, None, None, 4.0), TokenUsage(1_000, 0, 0, 600, cache_write_long_tokens=500),
         500 * 2.0 + 500 * 4.0, "exact"),
        (Price(2.0, 10.0, long_context=LongContext(10, 1.0, 1.0, None, 2.0, 3.0), cache_write_long=9.0),
         TokenUsage(1_000, 0, 0, 600, cache_write_long_tokens=500), 400 * 1.0 + 100 * 2.0 + 500 * 3.0, "exact"),
        (Price(2.0, 10.0, long_context=LongContext(10, 1.0, 1.0, None, 2.0), cache_write_long=9.0),
         TokenUsage(1_000, 0, 0, 600, cache_write_long_tokens=500), 400 * 1.0 + 600 * 2.0, "estimated"),
    ],
)  # fmt: skip
def test_what_is_kept_for_longer_has_its_own_price(price: Price, usage: TokenUsage, usd: float, provenance: str) -> None:
    cost = cost_of(usage, price)
    assert cost.usd == pytest.approx(usd / 1e6)
    assert cost.provenance == provenance


# ---- service tiers ----------------------------------------------------------------------------------------------------

TIERED = Price(
    2.0, 10.0, 0.2, 2.5, LongContext(100, 4.0, 20.0, 0.4, 5.0, 8.0), 4.0,
    {"flex": 0.5, "Batch": {"input": 1.0, "output": 3.0}, "free": 0, "priority": Price(7.0, 7.0)},
)  # fmt: skip


@pytest.mark.parametrize(
    ("tier", "usd", "provenance"),
    [
        *((tier, 10 * 2.0 + 5 * 10.0, "exact") for tier in ("", "default", "standard", "on_demand", "ON_DEMAND")),
        ("flex", 10 * 1.0 + 5 * 5.0, "exact"),
        ("FLEX", 10 * 1.0 + 5 * 5.0, "exact"),
        ("batch", 10 * 1.0 + 5 * 3.0, "exact"),
        ("free", 0.0, "exact"),
        ("priority", 15 * 7.0, "exact"),
        ("scale", 10 * 2.0 + 5 * 10.0, "estimated"),  # nobody said what it costs
        ("auto", 10 * 2.0 + 5 * 10.0, "estimated"),  # which may be any
    ],
)
def test_a_tier_costs_what_is_said_of_it_and_else_it_is_an_estimate(tier: str, usd: float, provenance: str) -> None:
    cost = cost_of(TokenUsage(10, 5, service_tier=tier), TIERED)
    assert (cost.usd, cost.provenance) == (pytest.approx(usd / 1e6), provenance)
    part = cost_of(TokenUsage(10, 5, provenance="lower_bound", service_tier=tier), TIERED)
    assert (part.usd, part.provenance) == (cost.usd, "estimated")


def test_a_factor_is_on_every_price() -> None:
    flex = TIERED.of_tier("flex")
    assert flex == Price(1.0, 5.0, 0.1, 1.25, LongContext(100, 2.0, 10.0, 0.2, 2.5, 4.0), 2.0)
    assert Price(1.0, 2.0, tiers={"flex": 3}).of_tier("flex") == Price(3.0, 6.0)  # what is not known stays unknown


def test_a_standard_tier_may_have_a_price_of_its_own_too() -> None:
    assert Price(1.0, 2.0, tiers={"default": 2}).of_tier("default") == Price(2.0, 4.0)
    assert Price(1.0, 2.0, tiers={"default": 2}).of_tier("") == Price(1.0, 2.0, tiers={"default": 2})


@pytest.mark.parametrize(
    ("tiers", "why"),
    [
        ({"flex": -0.5}, "flex: -0.5 is not a finite factor of at least 0"),
        ({"flex": float("nan")}, "flex: nan is not a finite factor"),
        ({"flex": float("inf")}, "flex: inf is not a finite factor"),
        ({"flex": True}, "flex: True is not a finite factor"),
        ({"flex": "0.5"}, "flex: '0.5' is not a finite factor"),
        ({"flex": 1e300}, "flex: input: .* is not from 0 to 1000000000"),
        ({"flex": {"input": 1}}, "flex: .*'output'"),
        ({"flex": {"input": 1, "output": -1}}, "flex: output: -1 is not"),
        ({"flex": {"input": 1, "output": 1, "tiers": {"a": 1}}}, "flex: has tiers itself"),
        (["flex"], "list is not a mapping of tiers"),
        (None, "NoneType is not a mapping of tiers"),
    ],
)
def test_a_tier_that_is_none_is_refused(tiers: Any, why: str) -> None:
    with pytest.raises(ValueError, match=f"^tiers: {why}"):
        Price(2.0, 10.0, tiers=tiers)


def test_a_price_that_varies_by_the_hour_makes_estimates() -> None:
    varies = Price(2.0, 10.0, tiers={"flex": 0.5, "fixed": Price(1.0, 1.0)}, varies=True)
    costs = [cost_of(TokenUsage(10, 10, service_tier=tier), varies) for tier in ("", "flex", "fixed")]
    assert [cost.provenance for cost in costs] == ["estimated", "estimated", "exact"]
    assert costs[0].usd == pytest.approx(120 / 1e6)
    assert cost_of(TokenUsage(10, 10, cost_usd=1.0), varies).provenance == "exact"
    no_bool: Any = 1
    with pytest.raises(ValueError, match=r"^varies: 1 is neither True nor False"):
        Price(2.0, 10.0, varies=no_bool)


def test_a_price_can_be_a_key() -> None:
    assert len({Price(1.0, 2.0), Price(1.0, 2.0), TIERED}) == 2


# ---- what the provider says -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("price", [PRICE, None])
@pytest.mark.parametrize(("provenance", "how"), [("exact", "exact"), ("lower_bound", "estimated")])
def test_what_the_provider_says_it_cost_comes_before_any_price(price: Price | None, provenance: Any, how: Any) -> None:
    usage = TokenUsage(1_000, 100, provenance=provenance, service_tier="whatever", cost_usd=0.25)
    assert cost_of(usage, price) == CostEstimate(0.25, how)
    assert cost_of(TokenUsage(provenance="unknown", cost_usd=0.25), price) == UNKNOWN
    assert cost_of(TokenUsage(1_000, cost_usd=0.0), price) == CostEstimate(0.0, "exact")


def test_an_estimate_says_that_it_is_one() -> None:
    assert estimate_cost(TokenEstimate(1_000, 100), PRICE) == CostEstimate(0.003, "estimated")
    assert estimate_cost(TokenEstimate(1_000, 100), None) == UNKNOWN


@pytest.mark.parametrize(
    ("usd", "provenance", "field"),
    [
        (None, "exact", "usd"),
        (None, "estimated", "usd"),
        (0.0, "unknown", "usd"),
        (-1.0, "exact", "usd"),
        (float("nan"), "exact", "usd"),
        (float("inf"), "estimated", "usd"),
        (1.0, "guessed", "provenance"),
    ],
)
def test_a_cost_that_contradicts_itself_is_refused(usd: float | None, provenance: str, field: str) -> None:
    with pytest.raises(ValueError, match=rf"^{field}: "):
        CostEstimate(usd, provenance)


counts = st.integers(0, 2**53)
rates = st.none() | st.floats(0, 1e9)
prices = st.builds(Price, *[st.floats(0, 1e9)] * 2, rates, rates, cache_write_long=rates)
usages = st.builds(TokenUsage, counts, counts, counts, counts, counts, cache_write_long_tokens=counts)


@given(usages, prices)
@settings(max_examples=150)
def test_any_usage_has_a_finite_cost_between_the_dearest_and_the_cheapest_rate(usage: TokenUsage, price: Price) -> None:
    usd = cost_of(usage, price).usd
    assert usd is not None
    all_rates = (price.input, price.cached_input, price.cache_write, price.cache_write_long)
    rates = [rate for rate in all_rates if rate is not None]
    low = (usage.input_tokens * min(rates) + usage.output_tokens * price.output) / 1e6
    high = (usage.input_tokens * max(rates) + usage.output_tokens * price.output) / 1e6
    assert low * (1 - 1e-9) <= usd <= high * (1 + 1e-9)


# ---- prices -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "same_as"),
    [
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        ("claude-haiku-4-5-20251001", "claude-haiku-4-5"),
        ("claude-haiku-4-5@20251001", "claude-haiku-4-5"),
        ("azure/gpt-4.1", "gpt-4.1"),
        ("openai/gpt-4o", "gpt-4o"),
        ("openai/gpt-4o-2024-08-06", "gpt-4o"),
        ("gemini/gemini-2.5-pro", "gemini-2.5-pro"),
        ("claude-haiku-4-5@20260101", "claude-haiku-4-5"),
        ("azure/gpt-4o", "gpt-4o"),  # not in the table as Azure's, and the maker's price is
        ("azure/gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        ("vertex_ai/gemini-2.5-pro", "gemini-2.5-pro"),
        ("vertex_ai/claude-haiku-4-5@20251001", "claude-haiku-4-5"),
        ("google/gemini-2.5-flash", "gemini-2.5-flash"),
        ("models/gemini-2.5-flash", "gemini-2.5-flash"),
        ("publishers/google/models/gemini-2.5-flash", "gemini-2.5-flash"),
        ("publishers/anthropic/models/claude-sonnet-5", "claude-sonnet-5"),
        ("projects/p-1/locations/global/publishers/google/models/gemini-2.5-flash", "gemini-2.5-flash"),
        ("litellm_proxy/gpt-4o", "gpt-4o"),
        ("litellm_proxy/azure/gpt-5.4", "gpt-5.4"),
        ("litellm_proxy/gpt-4o-2024-08-06", "gpt-4o"),
    ],
)
def test_a_dated_or_prefixed_name_finds_its_model(model: str, same_as: str) -> None:
    assert price_for(model) is not None
    assert price_for(model) == price_for(same_as)


@pytest.mark.parametrize(
    "model",
    [
        "",
        "gpt-4",  # not gpt-4o, not gpt-4.1
        "gpt-4o-audio-preview",
        "gpt-4o-20",
        "gpt-4o-2024-08-06-preview",
        "gpt-4o-latest",
        "-2024-08-06",
        "gpt-4o-2024-05-13",  # costs twice as much as gpt-4o
        "openai/gpt-4o-2024-05-13",
        "mistral-large-2411",  # mistral-large-2512 is another model
        "GPT-4O",
        "openai/gpt-oss-120b",  # sold at different prices
        "azure/gpt-4o-2024-05-13",
        "azure/gpt-4",
        "gpt-oss-20b",  # openai/gpt-oss-20b is what Groq calls it, at Groq's price
        "azure/gpt-oss-20b",
        "litellm_proxy/gpt-4",
        "azure/claude-haiku-4-5",  # nobody says at what price
        "vertex_ai/gpt-4o",
        "vertex_ai/mistral-large-2512",
        "google/gemini-2.5",
        "models/claude-sonnet-5",
        "projects/p/locations/global/gemini-2.5-flash",
        "my-azure/gpt-4o",
        "openai/azure/gpt-4o",
        "gemini-2.5-pro-002",
        "ft:gpt-4o:me::1",
    ],
)
def test_a_price_is_never_guessed(model: str) -> None:
    assert price_for(model) is None


def test_a_name_sold_at_two_prices_needs_its_provider() -> None:
    assert price_for("groq/openai/gpt-oss-120b") == Price(0.15, 0.6, 0.075)
    assert price_for("together_ai/openai/gpt-oss-120b") == Price(0.15, 0.6)


def test_some_rows_of_the_table() -> None:
    assert price_for("gpt-4o") == Price(2.5, 10.0, 1.25)
    assert price_for("claude-haiku-5-5") == Price(
        0.1, 0.5, 0.01, 0.125, LongContext(100_000, 0.5, 2.5, 0.05, 0.625), 0.2
    )  # fmt: skip
    assert price_for("gpt-6-astra") == Price(
        10.0, 50.0, 1.0, 12.5, LongContext(272_000, 20.0, 75.0, 2.0, 25.0), cache_write_long=25.0
    )
    assert price_for("gemini-2.5-pro") == Price(1.25, 10.0, 0.125, long_context=LongContext(200_000, 2.5, 15.0, 0.25))
    assert price_for("deepseek-v4-pro") == Price(1.32, 3.96, 0.044, 0.0, varies=True)
    assert date.fromisoformat(SOURCE_DATE).year == 2026


def test_overrides_come_first_and_exact_names_before_undated_ones() -> None:
    mine, of_the_day = Price(1.0, 1.0), Price(3.0, 3.0)
    assert price_for("gpt-4o", {"gpt-4o": mine}) == mine
    assert price_for("gpt-4o-2024-08-06", {"gpt-4o": mine}) == mine
    assert price_for("gpt-4o-2024-08-06", {"gpt-4o": mine, "gpt-4o-2024-08-06": of_the_day}) == of_the_day
    assert price_for("mistral-large-2512", {"mistral-large": mine}) == Price(0.5, 1.5, 0.05)
    assert price_for("my-model", {"my-model": mine}) == mine
    assert price_for("gpt-4o-2024-05-13", {"gpt-4o": mine}) is None
    assert price_for("gpt-4o-2024-05-13", {"gpt-4o-2024-05-13": mine}) == mine


def test_what_a_cloud_lists_too_it_lists_at_the_makers_price_and_the_bare_name_is_the_makers() -> None:
    for model in ("gpt-6-sol", "gpt-5.4", "gpt-4.1"):
        of_maker, of_azure = price_for(f"openai/{model}"), price_for(f"azure/{model}")
        assert of_maker is not None and of_maker == price_for(model)
        assert of_azure == dataclasses.replace(of_maker, cache_write_long=None)


def test_no_discount_is_assumed() -> None:
    for model in ("gpt-4o", "claude-haiku-4-5", "gemini-2.5-pro"):
        price = price_for(model)
        assert price is not None and price.tiers == {}
        assert cost_of(TokenUsage(10, 10, service_tier="batch"), price).provenance == "estimated"


def test_a_table_of_one_s_own() -> None:
    mine = prices_from({"gpt-4o": {"input": 1, "output": 2, "tiers": {"flex": 0.5}}, "mine": Price(3, 4)})
    assert mine == {"gpt-4o": Price(1, 2, tiers={"flex": 0.5}), "mine": Price(3, 4)}
    assert price_for("gpt-4o-2024-08-06", mine) == mine["gpt-4o"]
    assert price_for("mine", mine) == Price(3, 4)
    assert price_for("azure/gpt-4o", {"openai/gpt-4o": Price(3, 4)}) == Price(3, 4)
    assert price_for("litellm_proxy/mine", mine) == Price(3, 4)
    assert price_for("nobody-s", {"openai/nobody-s": Price(3, 4)}) is None
    assert price_for("gpt-4o-mini", mine) == price_for("gpt-4o-mini")


@pytest.mark.parametrize(
    ("table", "why"),
    [
        (["gpt-4o"], "list is not a mapping of models to prices"),
        ({"gpt-4o": {"input": 1}}, "gpt-4o: .*'output'"),
        ({"gpt-4o": {"input": 1, "output": "2"}}, "gpt-4o: output: '2' is not"),
        ({"gpt-4o": {"input": 1, "output": 2, "outptu": 3}}, "gpt-4o: .*'outptu'"),
        ({"gpt-4o": 5}, "gpt-4o: "),
        ({"gpt-4o": {1: 5}}, "gpt-4o: "),
    ],
)
def test_a_table_that_is_none_is_refused(table: Any, why: str) -> None:
    with pytest.raises(ValueError, match=f"^prices: {why}"):
        prices_from(table)


def test_a_price_from_a_file_is_a_mapping_of_mappings() -> None:
    price = Price(input=1, output=2, long_context={"above_input_tokens": 10, "input": 2, "output": 3})
    assert price == Price(1, 2, long_context=LongContext(10, 2, 3))
    assert price.at(10) is price
    assert price.at(11) == LongContext(10, 2, 3)
    assert Price(1, 2).at(11) == Price(1, 2)


@pytest.mark.parametrize("name", ["input", "output", "cached_input", "cache_write", "cache_write_long"])
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), 2e9, True, "1"])
def test_a_price_out_of_range_is_refused(name: str, value: object) -> None:
    good = {"input": 1.0, "output": 1.0}
    with pytest.raises(ValueError, match=rf"^{name}: "):
        Price(**{**good, name: value})
    with pytest.raises(ValueError, match=rf"^{name}: "):
        LongContext(100, **{**good, name: value})
    with pytest.raises(ValueError, match=rf"^long_context: {name}: "):
        Price(1.0, 1.0, long_context={"above_input_tokens": 100, **good, name: value})


@pytest.mark.parametrize("name", ["input", "output"])
def test_only_cached_and_written_input_may_be_without_a_price(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: None"):
        Price(**{"input": 1.0, "output": 1.0, name: None})


@pytest.mark.parametrize("above", [0, -1, 1.5, True, None])
def test_a_threshold_is_a_count(above: object) -> None:
    with pytest.raises(ValueError, match=r"^above_input_tokens: "):
        LongContext(above, 1.0, 1.0)


@pytest.mark.parametrize("value", [7, "x", {"above": 10}, [1]])
def test_a_long_context_of_another_shape_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"^long_context: "):
        Price(1.0, 1.0, long_context=value)


# ---- sums -------------------------------------------------------------------------------------------------------------


def test_an_attempt_counts_once_and_a_better_figure_takes_its_place() -> None:
    ledger = CostLedger()
    entry = ledger.open("chat", "gpt-4o")
    assert ledger.totals() == CostTotals()
    assert entry.cost is None

    assert ledger.record(entry, UNKNOWN)
    assert ledger.totals() == CostTotals(attempts=1, unknown=1)

    assert ledger.record(entry, CostEstimate(0.25, "estimated"), TokenUsage(10, 1, provenance="lower_bound"))
    assert ledger.totals() == CostTotals(attempts=1, estimated_usd=0.25, input_tokens=10, output_tokens=1)

    assert ledger.record(entry, CostEstimate(0.5, "exact"), TokenUsage(10, 5))
    late = CostTotals(attempts=1, exact_usd=0.5, input_tokens=10, output_tokens=5)
    assert ledger.totals() == late

    for again in (CostEstimate(9.0, "exact"), CostEstimate(9.0, "estimated"), UNKNOWN):
        assert not ledger.record(entry, again, TokenUsage(9, 9))
    assert ledger.totals() == late
    assert (entry.cost, entry.usage) == (CostEstimate(0.5, "exact"), TokenUsage(10, 5))


def test_sums_by_deployment_and_model() -> None:
    ledger = CostLedger()
    for deployment, model, usd in (("b", "m1", 1.0), ("a", "m1", 2.0), ("a", "m2", 4.0), ("a", "m2", 8.0)):
        ledger.record(ledger.open(deployment, model), CostEstimate(usd, "exact"))
    ledger.record(ledger.open("a", "m2"), CostEstimate(0.5, "estimated"))
    assert ledger.totals().usd == 15.5
    assert ledger.totals("a").usd == 14.5
    assert ledger.totals(model="m1").usd == 3.0
    assert ledger.totals("a", "m2") == CostTotals(attempts=3, exact_usd=12.0, estimated_usd=0.5)
    assert ledger.totals("nobody") == CostTotals()
    apart = ledger.by_deployment_and_model()
    assert list(apart) == [("a", "m1"), ("a", "m2"), ("b", "m1")]
    assert sum(totals.usd for totals in apart.values()) == 15.5


def test_an_attempt_of_which_nothing_better_will_be_known_needs_no_entry() -> None:
    ledger = CostLedger()
    for usage in (TokenUsage(1_000, 100), TokenUsage(1_000, 100, provenance="lower_bound"), None):
        ledger.count("a", "m", usage, PRICE)
    assert ledger.totals() == CostTotals(3, 1, 0.003, 0.003, 2_000, 200)


def test_sums_do_not_drift() -> None:
    ledger = CostLedger()
    for _ in range(1_000):
        ledger.record(ledger.open("chat", "m"), CostEstimate(0.1, "exact"))
    assert ledger.totals().exact_usd == 100.0
    guesses = [ledger.open("chat", "m") for _ in range(7)]
    for number, entry in enumerate(guesses, 3):
        ledger.record(entry, CostEstimate(1 / number, "estimated"))
    for entry in guesses:
        ledger.record(entry, CostEstimate(0.0, "exact"))
    assert ledger.totals().estimated_usd == 0.0


class LedgerMachine(RuleBasedStateMachine):
    """Against a list of what each attempt was last counted with."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = CostLedger()
        self.entries: list[CostEntry] = []
        self.counted: dict[int, tuple[CostEstimate, TokenUsage | None]] = {}

    @rule(deployment=st.sampled_from("ab"), model=st.sampled_from("xy"))
    def open(self, deployment: str, model: str) -> None:
        self.entries.append(self.ledger.open(deployment, model))

    @rule(
        number=st.integers(0, 9),
        nano_usd=st.integers(0, 10**12),
        provenance=st.sampled_from(["exact", "estimated", "unknown"]),
        usage=st.none() | st.builds(TokenUsage, st.integers(0, 9), st.integers(0, 9)),
    )
    def record(self, number: int, nano_usd: int, provenance: str, usage: TokenUsage | None) -> None:
        if number >= len(self.entries):
            return
        cost = UNKNOWN if provenance == "unknown" else CostEstimate(nano_usd / 1e9, provenance)
        ranks = ["unknown", "estimated", "exact"]
        known = self.counted.get(number)
        better = known is None or ranks.index(provenance) > ranks.index(known[0].provenance)
        assert self.ledger.record(self.entries[number], cost, usage) is better
        if better:
            self.counted[number] = (cost, usage)

    @invariant()
    def sums_match(self) -> None:
        for deployment in (None, "a", "b"):
            for model in (None, "x", "y"):
                chosen = [
                    counted
                    for number, counted in self.counted.items()
                    if deployment in (None, self.entries[number].deployment) and model in (None, self.entries[number].model)
                ]
                usd = {p: sum(c.usd or 0.0 for c, _ in chosen if c.provenance == p) for p in ("exact", "estimated")}
                totals = self.ledger.totals(deployment, model)
                assert totals.attempts == len(chosen)
                assert totals.unknown == sum(cost.provenance == "unknown" for cost, _ in chosen)
                assert totals.exact_usd == pytest.approx(usd["exact"], abs=1e-8)
                assert totals.estimated_usd == pytest.approx(usd["estimated"], abs=1e-8)
                assert totals.input_tokens == sum(usage.input_tokens for _, usage in chosen if usage is not None)
                assert totals.output_tokens == sum(usage.output_tokens for _, usage in chosen if usage is not None)


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=50, stateful_step_count=20)


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 3), st.booleans()), max_size=12))
def test_counting_at_once_comes_to_the_same_as_recording_an_entry(attempts: list[tuple[str, int, bool]]) -> None:
    usages = (None, TokenUsage(3, 5), TokenUsage(7, 0, provenance="lower_bound"), TokenUsage(1, 1, provenance="unknown"))
    price = Price(2.5, 10.0)
    one, other = CostLedger(), CostLedger()
    for deployment, usage, priced in attempts:
        paid = price if priced else None
        one.count(deployment, "m", usages[usage], paid)
        other.record(other.open(deployment, "m"), cost_of(usages[usage], paid), usages[usage])
    assert one.by_deployment_and_model() == other.by_deployment_and_model()
