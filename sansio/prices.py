"""Prices of models: data with a date, not knowledge. A deployment's own ``price`` wins over this table.

US dollars per million tokens, standard tier, text. The rows are those of LiteLLM's community price file as shipped in its
1.109.1 wheel (uploaded 2026-11-12, read 2026-11-23), which is no price sheet: check before you rely on a sum. Not in it, for
no source states them: factors for other service tiers (`Price.tiers`), uplifts for regions, what it costs to cache a long
context for the longer lifetime. DeepSeek's prices are those of its peak hours; at others it charges half.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

SOURCE_DATE: Final = "2026-11-12"
"""How old the table is."""

_LARGEST: Final = 1e9
"""US dollars per million tokens: sums stay finite."""

_STANDARD_TIERS: Final = frozenset({"", "default", "standard", "on_demand"})
"""What providers call the tier that prices are stated for (OpenAI, Anthropic and Mistral, Google and Groq), or say of it:
nothing."""


@dataclass(frozen=True, slots=True)
class LongContext:
    """What the whole request costs, output too, once its input is larger than ``above_input_tokens``. As `Price`."""

    above_input_tokens: int
    input: float
    output: float
    cached_input: float | None = None
    cache_write: float | None = None
    cache_write_long: float | None = None

    def __post_init__(self) -> None:
        if type(self.above_input_tokens) is not int or self.above_input_tokens < 1:
            raise ValueError(f"above_input_tokens: {self.above_input_tokens!r} is not a whole number of at least 1")
        _check_prices(self)


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens.

    cached_input: input read from a cache. cache_write: input written to one, at the provider's shortest lifetime. Where they
    are ``None``, such input costs what other input does. cache_write_long: input written at the longer lifetime (Anthropic:
    an hour, OpenAI: twelve); where it is ``None`` beside a ``cache_write``, it is not known, and costs are estimates.
    long_context: a `LongContext`, or a mapping of its fields.
    tiers: other service tiers by the name that the provider's answers give them (``"flex"``, ``"batch"``, ``"priority"``):
    a factor on all of these prices, or prices of their own (a `Price`, or a mapping of its fields). What a tier costs that
    is not among them is not known: costs are then estimates, at the standard prices.
    varies: the provider charges less or more at some hours, so costs are estimates.
    Raises `ValueError` for a price below 0, absurdly high or no number, naming the field.
    """

    input: float
    output: float
    cached_input: float | None = None
    cache_write: float | None = None
    long_context: LongContext | Mapping[str, Any] | None = None
    cache_write_long: float | None = None
    tiers: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)
    varies: bool = False

    def __post_init__(self) -> None:
        _check_prices(self)
        if isinstance(self.long_context, Mapping):
            try:
                object.__setattr__(self, "long_context", LongContext(**self.long_context))
            except (TypeError, ValueError) as error:
                raise ValueError(f"long_context: {error}") from None
        if self.long_context is not None and not isinstance(self.long_context, LongContext):
            raise ValueError(f"long_context: {self.long_context!r} is neither a LongContext nor a mapping")
        if not isinstance(self.varies, bool):
            raise ValueError(f"varies: {self.varies!r} is neither True nor False")
        if not isinstance(self.tiers, Mapping):
            raise ValueError(f"tiers: {type(self.tiers).__name__} is not a mapping of tiers to factors or prices")
        tiers = {str(name).lower(): self._tier(name, value) for name, value in self.tiers.items()}
        object.__setattr__(self, "tiers", tiers)

    def at(self, input_tokens: int) -> Price | LongContext:
        """The prices of a request with so much input."""
        long_context = self.long_context
        if isinstance(long_context, LongContext) and input_tokens > long_context.above_input_tokens:
            return long_context
        return self

    def of_tier(self, tier: str) -> Price | None:
        """The prices of a service tier, by the provider's word for it in any case; ``None`` where they are not known."""
        if not tier:
            return self
        name = tier.lower()
        known: Price | None = self.tiers.get(name)
        return self if known is None and name in _STANDARD_TIERS else known

    def times(self, factor: float) -> Price:
        """All of these prices, so many times. Raises `ValueError` for what is no factor, or comes to too much."""
        if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 0 <= factor < math.inf:
            raise ValueError(f"{factor!r} is not a finite factor of at least 0")
        longer = self.long_context
        if isinstance(longer, LongContext):
            longer = replace(longer, **_scaled(longer, factor))
        return replace(self, **_scaled(self, factor), long_context=longer, tiers={})

    def _tier(self, name: object, value: object) -> Price:
        try:
            if isinstance(value, Mapping):
                value = Price(**cast("Mapping[str, Any]", value))
            if not isinstance(value, Price):
                return self.times(cast(float, value))
        except (TypeError, ValueError) as error:
            raise ValueError(f"tiers: {name}: {error}") from None
        if value.tiers:
            raise ValueError(f"tiers: {name}: has tiers itself")
        return value


_RATES: Final = ("input", "output", "cached_input", "cache_write", "cache_write_long")
_NEEDED: Final = ("input", "output")


def _scaled(price: Price | LongContext, factor: float) -> dict[str, Any]:
    return {name: None if (rate := getattr(price, name)) is None else rate * factor for name in _RATES}


def _check_prices(price: Price | LongContext) -> None:
    for name in _RATES:
        value = getattr(price, name)
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= _LARGEST
        if not number and not (value is None and name not in _NEEDED):
            raise ValueError(f"{name}: {value!r} is not from 0 to {_LARGEST:.0f} (US dollars per million tokens)")


def prices_from(table: Mapping[str, Any]) -> dict[str, Price]:
    """A table of one's own, by model: what a JSON or TOML file holds of it. Each value is a `Price`, or a mapping of its
    fields; one of them is ``price_for(model, prices_from(table))``. Raises `ValueError` naming the model and the field.
    """
    if not isinstance(table, Mapping):
        raise ValueError(f"prices: {type(table).__name__} is not a mapping of models to prices")
    prices: dict[str, Price] = {}
    for model, value in table.items():
        try:
            prices[model] = value if isinstance(value, Price) else Price(**value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"prices: {model}: {error}") from None
    return prices


_ROWS: Final[tuple[tuple[str, str, Price], ...]] = (
    ("openai", "gpt-6-astra", Price(10.0, 50.0, 1.0, 12.5, LongContext(272_000, 20.0, 75.0, 2.0, 25.0), 25.0)),
    ("openai", "gpt-6.1-sol", Price(2.0, 10.0, 0.1, 2.5, LongContext(272_000, 4.0, 15.0, 0.2, 5.0), 5.0)),
    ("openai", "gpt-6.1-terra", Price(1.0, 5.0, 0.05, 1.25, LongContext(272_000, 2.0, 7.5, 0.1, 2.5), 2.5)),
    ("openai", "gpt-6-sol", Price(2.0, 10.0, 0.2, 2.5, LongContext(272_000, 4.0, 15.0, 0.4, 5.0), 5.0)),
    ("openai", "gpt-6-luna", Price(0.1, 0.5, 0.01, 0.125, LongContext(272_000, 0.2, 0.75, 0.02, 0.25), 0.25)),
    ("openai", "gpt-5.6-sol", Price(4.0, 20.0, 0.4, 5.0, LongContext(272_000, 8.0, 30.0, 0.8, 10.0), 10.0)),
    ("openai", "gpt-5.6-terra", Price(2.0, 12.0, 0.2, 2.5, LongContext(272_000, 4.0, 18.0, 0.4, 5.0), 5.0)),
    ("openai", "gpt-5.6-luna", Price(0.2, 1.2, 0.02, 0.25, LongContext(272_000, 0.4, 1.8, 0.04, 0.5), 0.5)),
    ("openai", "gpt-5.5", Price(5.0, 30.0, 0.5, None, LongContext(272_000, 10.0, 45.0, 1.0))),
    ("openai", "gpt-5.4", Price(2.5, 15.0, 0.25, None, LongContext(272_000, 5.0, 22.5, 0.5))),
    ("openai", "gpt-5.4-mini", Price(0.75, 4.5, 0.075)),
    ("openai", "gpt-5.4-nano", Price(0.2, 1.25, 0.02)),
    ("openai", "gpt-5.2", Price(1.75, 14.0, 0.175)),
    ("openai", "gpt-5.1", Price(1.25, 10.0, 0.125)),
    ("openai", "gpt-5", Price(1.25, 10.0, 0.125)),
    ("openai", "gpt-5-mini", Price(0.25, 2.0, 0.025)),
    ("openai", "gpt-5-nano", Price(0.05, 0.4, 0.005)),
    ("openai", "gpt-4.1", Price(2.0, 8.0, 0.5)),
    ("openai", "gpt-4.1-mini", Price(0.4, 1.6, 0.1)),
    ("openai", "gpt-4o", Price(2.5, 10.0, 1.25)),
    ("openai", "gpt-4o-mini", Price(0.15, 0.6, 0.075)),
    ("anthropic", "claude-fable-5-1", Price(10.0, 50.0, 0.25, 12.5, None, 20.0)),
    ("anthropic", "claude-fable-5", Price(10.0, 50.0, 1.0, 12.5, None, 20.0)),
    ("anthropic", "claude-opus-5-5", Price(4.0, 20.0, 0.2, 5.0, None, 8.0)),
    ("anthropic", "claude-opus-5", Price(5.0, 25.0, 0.5, 6.25, None, 10.0)),
    ("anthropic", "claude-opus-4-8", Price(5.0, 25.0, 0.5, 6.25, None, 10.0)),
    ("anthropic", "claude-sonnet-5-5", Price(2.0, 10.0, 0.1, 2.5, None, 4.0)),
    ("anthropic", "claude-sonnet-5", Price(2.0, 10.0, 0.2, 2.5, None, 4.0)),
    ("anthropic", "claude-sonnet-4-6", Price(3.0, 15.0, 0.3, 3.75, None, 6.0)),
    ("anthropic", "claude-haiku-5-5", Price(0.1, 0.5, 0.01, 0.125, LongContext(100_000, 0.5, 2.5, 0.05, 0.625), 0.2)),
    ("anthropic", "claude-haiku-4-5", Price(1.0, 5.0, 0.1, 1.25, None, 2.0)),
    ("gemini", "gemini-4-argon", Price(2.0, 10.0, 0.1)),
    ("gemini", "gemini-3.8-flash", Price(0.75, 3.75, 0.075)),
    ("gemini", "gemini-3.5-flash", Price(1.5, 9.0, 0.15)),
    ("gemini", "gemini-3.5-flash-lite", Price(0.3, 2.5, 0.03)),
    ("gemini", "gemini-3.1-pro-preview", Price(2.0, 12.0, 0.2, None, LongContext(200_000, 4.0, 18.0, 0.4))),
    ("gemini", "gemini-3.1-flash-lite", Price(0.25, 1.5, 0.025)),
    ("gemini", "gemini-2.5-pro", Price(1.25, 10.0, 0.125, None, LongContext(200_000, 2.5, 15.0, 0.25))),
    ("gemini", "gemini-2.5-flash", Price(0.3, 2.5, 0.03)),
    ("gemini", "gemini-2.5-flash-lite", Price(0.1, 0.4, 0.01)),
    ("mistral", "mistral-large-4", Price(1.36, 4.18, 0.14)),
    ("mistral", "mistral-large-2512", Price(0.5, 1.5, 0.05)),
    ("mistral", "mistral-medium-latest", Price(1.5, 7.5, 0.15)),
    ("mistral", "mistral-small-latest", Price(0.15, 0.6, 0.015)),
    ("mistral", "codestral-latest", Price(0.3, 0.9, 0.03)),
    ("groq", "openai/gpt-oss-120b", Price(0.15, 0.6, 0.075)),
    ("groq", "openai/gpt-oss-20b", Price(0.075, 0.3, 0.0375)),
    ("groq", "qwen/qwen3.8-27b", Price(0.8, 4.0)),
    ("together_ai", "moonshotai/Kimi-K3", Price(3.0, 15.0, 0.3)),
    ("together_ai", "zai-org/GLM-5.3", Price(1.4, 4.4, 0.26)),
    ("together_ai", "openai/gpt-oss-120b", Price(0.15, 0.6)),
    ("xai", "grok-4.7", Price(2.0, 6.0, 0.5, None, LongContext(200_000, 4.0, 12.0, 1.0))),
    ("xai", "grok-4.3", Price(1.25, 2.5, 0.2, None, LongContext(200_000, 2.5, 5.0, 0.4))),
    ("deepseek", "deepseek-v4-pro", Price(1.32, 3.96, 0.044, 0.0, varies=True)),
    ("deepseek", "deepseek-v4-flash", Price(0.3, 1.2, 0.006, 0.0, varies=True)),
    ("azure", "gpt-6-sol", Price(2.0, 10.0, 0.2, 2.5, LongContext(272_000, 4.0, 15.0, 0.4, 5.0))),
    ("azure", "gpt-5.4", Price(2.5, 15.0, 0.25, None, LongContext(272_000, 5.0, 22.5, 0.5))),
    ("azure", "gpt-4.1", Price(2.0, 8.0, 0.5)),
)
"""(provider, model, price)"""

_RESELLERS: Final = frozenset({"azure"})
"""Who sells the models of another maker: a bare name is the maker's."""

_DATED: Final = re.compile(r"(?P<model>.+?)(?:-20[0-9]{2}-[01][0-9]-[0-3][0-9]|[-@]20[0-9]{2}[01][0-9][0-3][0-9])")
"""How providers date a snapshot of a model: gpt-4o-2024-08-06, claude-haiku-4-5-20251001, claude-haiku-4-5@20251001."""

_PRICED_APART: Final = frozenset({"gpt-4o-2024-05-13"})
"""Snapshots that cost something else than the model of that name."""

_OTHER_NAMES: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("azure/", ("openai/",)),
    ("vertex_ai/", ("gemini/", "anthropic/")),
    ("google/", ("gemini/",)),
    ("models/", ("gemini/",)),
    ("publishers/google/models/", ("gemini/",)),
    ("publishers/anthropic/models/", ("anthropic/",)),
)
"""Other ways to say whose a model is: LiteLLM's names for the clouds, Google's names of resources, and whose rows they mean.
(Azure lists its maker's prices, as far as the source has both.)"""

_RESOURCE: Final = re.compile(r"^projects/[^/]+/locations/[^/]+/(?=publishers/)")
"""Where in Google's cloud a model is asked for, which does not change what it is."""

_ANY_PROXY: Final = "litellm_proxy/"
"""How LiteLLM says that a model is behind a proxy: the rest is its name there."""


_OF_PROVIDER: Final = {f"{provider}/{model}": price for provider, model, price in _ROWS}


def _table() -> dict[str, Price]:
    """By name and by ``provider/name``. A name that two providers sell at different prices stands for neither."""
    by_name: dict[str, list[Price]] = {}
    for provider, model, price in _ROWS:
        if provider not in _RESELLERS:
            by_name.setdefault(model, []).append(price)
    return _OF_PROVIDER | {
        model: prices[0] for model, prices in by_name.items() if all(price == prices[0] for price in prices)
    }


_TABLE: Final = _table()


def price_for(model: str, overrides: Mapping[str, Price] | None = None) -> Price | None:
    """The price of ``model``, or ``None`` where it is not known: it is never guessed from a similar name.

    ``model`` may be dated (``gpt-4o-2024-08-06``) or carry its provider as LiteLLM writes it (``azure/gpt-4.1``,
    ``vertex_ai/gemini-2.5-pro``). ``overrides`` are asked first; so are exact names, before the undated one.
    """
    mine = overrides or {}
    model = _RESOURCE.sub("", model)
    names = [model]
    if (dated := _DATED.fullmatch(model)) is not None and model.rpartition("/")[2] not in _PRICED_APART:
        names.append(dated["model"])
    for name in names:
        for prices in (mine, _TABLE):
            if name in prices:
                return prices[name]
    for other in _other_names(names):
        for prices in (mine, _OF_PROVIDER):
            if other in prices:
                return prices[other]
    return price_for(model.removeprefix(_ANY_PROXY), overrides) if model.startswith(_ANY_PROXY) else None


def _other_names(names: Sequence[str]) -> Iterator[str]:
    """The same models under the names of those who make them."""
    for prefix, makers in _OTHER_NAMES:
        for name in names:
            if name.startswith(prefix):
                yield from (maker + name.removeprefix(prefix) for maker in makers)
