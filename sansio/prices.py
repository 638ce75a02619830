"""Prices of models: data with a date, not knowledge. A deployment's own ``price`` wins over this table.

US dollars per million tokens, standard tier, text. The rows are those of LiteLLM's community price file as shipped in its
1.109.1 wheel (uploaded 2026-11-12, read 2026-11-23), which is no price sheet: check before you rely on a sum. Uplifts for
priority, regions or longer cache lifetimes, and discounts for batches or off-peak hours, are not in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

SOURCE_DATE: Final = "2026-11-12"
"""How old the table is."""

_LARGEST: Final = 1e9
"""US dollars per million tokens: sums stay finite."""


@dataclass(frozen=True, slots=True)
class LongContext:
    """What the whole request costs, output too, once its input is larger than ``above_input_tokens``. As `Price`."""

    above_input_tokens: int
    input: float
    output: float
    cached_input: float | None = None
    cache_write: float | None = None

    def __post_init__(self) -> None:
        if type(self.above_input_tokens) is not int or self.above_input_tokens < 1:
            raise ValueError(f"above_input_tokens: {self.above_input_tokens!r} is not a whole number of at least 1")
        _check_prices(self)


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens.

    cached_input: input read from a cache. cache_write: input written to one (at the provider's shortest lifetime). Where
    they are ``None``, such input costs what other input does. long_context: a `LongContext`, or a mapping of its fields.
    Raises `ValueError` for a price below 0, absurdly high or no number, naming the field.
    """

    input: float
    output: float
    cached_input: float | None = None
    cache_write: float | None = None
    long_context: LongContext | Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        _check_prices(self)
        if isinstance(self.long_context, Mapping):
            try:
                object.__setattr__(self, "long_context", LongContext(**self.long_context))
            except (TypeError, ValueError) as error:
                raise ValueError(f"long_context: {error}") from None
        if self.long_context is not None and not isinstance(self.long_context, LongContext):
            raise ValueError(f"long_context: {self.long_context!r} is neither a LongContext nor a mapping")

    def at(self, input_tokens: int) -> Price | LongContext:
        """The prices of a request with so much input."""
        long_context = self.long_context
        if isinstance(long_context, LongContext) and input_tokens > long_context.above_input_tokens:
            return long_context
        return self


def _check_prices(price: Price | LongContext) -> None:
    for name, optional in (("input", False), ("output", False), ("cached_input", True), ("cache_write", True)):
        value = getattr(price, name)
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= _LARGEST
        if not number and not (optional and value is None):
            raise ValueError(f"{name}: {value!r} is not from 0 to {_LARGEST:.0f} (US dollars per million tokens)")


_ROWS: Final[tuple[tuple[str, str, Price], ...]] = (
    ("openai", "gpt-6-astra", Price(10.0, 50.0, 1.0, 12.5, LongContext(272_000, 20.0, 75.0, 2.0, 25.0))),
    ("openai", "gpt-6.1-sol", Price(2.0, 10.0, 0.1, 2.5, LongContext(272_000, 4.0, 15.0, 0.2, 5.0))),
    ("openai", "gpt-6.1-terra", Price(1.0, 5.0, 0.05, 1.25, LongContext(272_000, 2.0, 7.5, 0.1, 2.5))),
    ("openai", "gpt-6-sol", Price(2.0, 10.0, 0.2, 2.5, LongContext(272_000, 4.0, 15.0, 0.4, 5.0))),
    ("openai", "gpt-6-luna", Price(0.1, 0.5, 0.01, 0.125, LongContext(272_000, 0.2, 0.75, 0.02, 0.25))),
    ("openai", "gpt-5.6-sol", Price(4.0, 20.0, 0.4, 5.0, LongContext(272_000, 8.0, 30.0, 0.8, 10.0))),
    ("openai", "gpt-5.6-terra", Price(2.0, 12.0, 0.2, 2.5, LongContext(272_000, 4.0, 18.0, 0.4, 5.0))),
    ("openai", "gpt-5.6-luna", Price(0.2, 1.2, 0.02, 0.25, LongContext(272_000, 0.4, 1.8, 0.04, 0.5))),
    ("openai", "gpt-5.5", Price(5.0, 30.0, 0.5, None, LongContext(272_000, 10.0, 45.0, 1.0, None))),
    ("openai", "gpt-5.4", Price(2.5, 15.0, 0.25, None, LongContext(272_000, 5.0, 22.5, 0.5, None))),
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
    ("anthropic", "claude-fable-5-1", Price(10.0, 50.0, 0.25, 12.5)),
    ("anthropic", "claude-fable-5", Price(10.0, 50.0, 1.0, 12.5)),
    ("anthropic", "claude-opus-5-5", Price(4.0, 20.0, 0.2, 5.0)),
    ("anthropic", "claude-opus-5", Price(5.0, 25.0, 0.5, 6.25)),
    ("anthropic", "claude-opus-4-8", Price(5.0, 25.0, 0.5, 6.25)),
    ("anthropic", "claude-sonnet-5-5", Price(2.0, 10.0, 0.1, 2.5)),
    ("anthropic", "claude-sonnet-5", Price(2.0, 10.0, 0.2, 2.5)),
    ("anthropic", "claude-sonnet-4-6", Price(3.0, 15.0, 0.3, 3.75)),
    ("anthropic", "claude-haiku-5-5", Price(0.1, 0.5, 0.01, 0.125, LongContext(100_000, 0.5, 2.5, 0.05, 0.625))),
    ("anthropic", "claude-haiku-4-5", Price(1.0, 5.0, 0.1, 1.25)),
    ("gemini", "gemini-4-argon", Price(2.0, 10.0, 0.1)),
    ("gemini", "gemini-3.8-flash", Price(0.75, 3.75, 0.075)),
    ("gemini", "gemini-3.5-flash", Price(1.5, 9.0, 0.15)),
    ("gemini", "gemini-3.5-flash-lite", Price(0.3, 2.5, 0.03)),
    ("gemini", "gemini-3.1-pro-preview", Price(2.0, 12.0, 0.2, None, LongContext(200_000, 4.0, 18.0, 0.4, None))),
    ("gemini", "gemini-3.1-flash-lite", Price(0.25, 1.5, 0.025)),
    ("gemini", "gemini-2.5-pro", Price(1.25, 10.0, 0.125, None, LongContext(200_000, 2.5, 15.0, 0.25, None))),
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
    ("xai", "grok-4.7", Price(2.0, 6.0, 0.5, None, LongContext(200_000, 4.0, 12.0, 1.0, None))),
    ("xai", "grok-4.3", Price(1.25, 2.5, 0.2, None, LongContext(200_000, 2.5, 5.0, 0.4, None))),
    ("deepseek", "deepseek-v4-pro", Price(1.32, 3.96, 0.044, 0.0)),
    ("deepseek", "deepseek-v4-flash", Price(0.3, 1.2, 0.006, 0.0)),
    ("azure", "gpt-6-sol", Price(2.0, 10.0, 0.2, 2.5, LongContext(272_000, 4.0, 15.0, 0.4, 5.0))),
    ("azure", "gpt-5.4", Price(2.5, 15.0, 0.25, None, LongContext(272_000, 5.0, 22.5, 0.5, None))),
    ("azure", "gpt-4.1", Price(2.0, 8.0, 0.5)),
)
"""(provider, model, price)"""

_DATED: Final = re.compile(r"(?P<model>.+?)(?:-20[0-9]{2}-[01][0-9]-[0-3][0-9]|[-@]20[0-9]{2}[01][0-9][0-3][0-9])")
"""How providers date a snapshot of a model: gpt-4o-2024-08-06, claude-haiku-4-5-20251001, claude-haiku-4-5@20251001."""

_PRICED_APART: Final = frozenset({"gpt-4o-2024-05-13"})
"""Snapshots that cost something else than the model of that name."""


def _table() -> dict[str, Price]:
    """By name and by ``provider/name``. A name that two providers sell at different prices stands for neither."""
    table = {f"{provider}/{model}": price for provider, model, price in _ROWS}
    by_name: dict[str, list[Price]] = {}
    for _, model, price in _ROWS:
        by_name.setdefault(model, []).append(price)
    return table | {model: prices[0] for model, prices in by_name.items() if all(price == prices[0] for price in prices)}


_TABLE: Final = _table()


def price_for(model: str, overrides: Mapping[str, Price] | None = None) -> Price | None:
    """The price of ``model``, or ``None`` where it is not known: it is never guessed from a similar name.

    ``model`` may be dated (``gpt-4o-2024-08-06``) or carry its provider as LiteLLM writes it (``azure/gpt-4.1``).
    ``overrides`` are asked first; so are exact names, before the undated one.
    """
    names = [model]
    if (dated := _DATED.fullmatch(model)) is not None and model.rpartition("/")[2] not in _PRICED_APART:
        names.append(dated["model"])
    for name in names:
        for prices in (overrides or {}, _TABLE):
            if name in prices:
                return prices[name]
    return None
