"""What the headers of a response say of its key's limits: one pure reader for each provider's dialect.

Everybody names what remains in a way of their own, counts it over windows of their own, and tells its return as a duration,
as an instant or not at all. A reader turns that into the one sentence that `RateLimiter.observe_headers` can believe: of
what the limiter counts by the minute, no more than ``remaining`` may go in the next ``reset_after`` seconds. Hence:

- A value that cannot be read, or that its provider writes where it does not know, leaves its own field unsaid.
- A count over another window (Groq's day, Together's second) is told as that sentence only: for as long as it is true, and
  without its ``limit``, which is no limit of a minute.
- What was rounded is taken at the least it can mean; of several limits on one amount, the one with the least remaining.

The names alone do not always tell the dialect: Groq's are OpenAI's, with another meaning. So `reader_for` goes by the
endpoint's host where that is a provider's own, and by the names (`compatible`) where anybody may be behind it.

Sources: what OpenAI, Anthropic, Groq and Together write about their rate limits, and LiteLLM's source. What Azure and
Mistral send is not documented; it was seen in issues.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final, TypeAlias

from .classify import parse_reset, retry_after_from_headers
from .http import Headers, parse_origin
from .rate_limit import RateLimitDimension, RateLimitSnapshot

SnapshotReader: TypeAlias = Callable[[Headers, float], RateLimitSnapshot | None]
"""From headers (names in any case) and the Unix time they came at to what they say; ``None`` is nothing. Never raises."""

_LONGEST_WAIT: Final = 86_400.0
"""Seconds: the longest wait that was seen (Azure). A larger number is an instant or a mistake, and says nothing."""

_WINDOW_OF_TOGETHER: Final = 1.0
"""Seconds that Together counts its limits over."""

_MOST_ROUNDED_UP: Final = 500
"""Anthropic rounds the tokens that remain to the nearest thousand: as many less may be meant."""

_FIELDS: Final = ("limit", "remaining", "reset")

_Said: TypeAlias = list[str | None]
"""The values of a dialect's headers, three for each amount, in the order of `_FIELDS`. ``None``: it did not come."""


def _places(names: str, *amounts: str) -> dict[str, int]:
    """The place of each of a dialect's headers in `_Said`."""
    order = [(amount, field) for amount in amounts for field in _FIELDS]
    return {names.format(amount=amount, field=field): place for place, (amount, field) in enumerate(order)}


_OPENAI: Final = _places("x-ratelimit-{field}-{amount}", "requests", "tokens", "project-tokens")
_ANTHROPIC: Final = _places("anthropic-ratelimit-{amount}-{field}", "requests", "tokens", "input-tokens", "output-tokens")
_MISTRAL: Final = _places("x-ratelimit-{field}-{amount}", "req-minute", "tokens-minute")
_TOGETHER: Final = _places("x-{amount}-{field}", "ratelimit", "tokenlimit")
_NOTHING_SAID: Final[tuple[str | None, ...]] = (None,) * max(map(len, (_OPENAI, _ANTHROPIC, _MISTRAL, _TOGETHER)))


# ---- one reader for each dialect --------------------------------------------------------------------------------------


def openai(headers: Headers, unix_now: float) -> RateLimitSnapshot | None:
    """OpenAI: ``x-ratelimit-{limit,remaining,reset}-{requests,tokens,project-tokens}``, resets as Go durations.

    Of all tokens and the project's, those of which less remains are told. A negative count and a reset of zero are unknown:
    other servers with these names send them where they have nothing to say.
    """
    said = _said(headers, _OPENAI)
    return None if said is None else _openai_snapshot(said, unix_now)


def azure(headers: Headers, unix_now: float) -> RateLimitSnapshot | None:
    """Azure: OpenAI's names, often ``remaining`` alone, resets in seconds.

    It writes -1 or 0 where it does not know. So a limit or a reset of 0 is unknown, and that nothing remains is believed
    only with a limit, a reset or a ``retry-after`` beside it. The last stands in for a reset.
    """
    said = _said(headers, _OPENAI)
    if said is None:
        return None
    return _snapshot(_doubted(said, 0, headers, unix_now), _doubted(said, 1, headers, unix_now))


def anthropic(headers: Headers, unix_now: float) -> RateLimitSnapshot | None:
    """Anthropic: ``anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}``.

    Resets are RFC 3339 instants; one that has passed is 0.0, for what is whole again holds nobody back. ``tokens`` shows
    whichever limit is the tightest: where it repeats that of input or of output, it says nothing of both together.
    ``anthropic-priority-*`` and ``anthropic-fast-*`` are not read. They are not the key's limits: a request beyond the first
    goes on under the key's, and one beyond the second is told so by a 429.
    """
    said = _said(headers, _ANTHROPIC)
    if said is None:
        return None
    requests, tokens, of_input, of_output = (_anthropic_amount(said, amount, unix_now) for amount in range(4))
    if tokens is not None and any(part is not None and _repeats(tokens, part) for part in (of_input, of_output)):
        tokens = None
    return _snapshot(requests, tokens, of_input, of_output)


def groq(headers: Headers, unix_now: float) -> RateLimitSnapshot | None:
    """Groq: OpenAI's names, but requests are counted by the **day**. Only tokens are counted by the minute.

    What remains of a day binds a minute's ledger once it is less than that has left, as the ledger sees for itself. The
    reset, hours away, is when the whole day's are back. They come back one by one (who has used up 1,000 is told to try
    again in 86.4 s), so what remains is said to hold until the next one is back.
    """
    said = _said(headers, _OPENAI)
    if said is None:
        return None
    return _snapshot(_until_next(_dimension(said, 0, unix_now)), _dimension(said, 1, unix_now))


def mistral(headers: Headers, unix_now: float) -> RateLimitSnapshot | None:
    """Mistral: ``x-ratelimit-{limit,remaining}-{req,tokens}-minute``, without a reset. A limit of 0 is not on the plan."""
    said = _said(headers, _MISTRAL)
    if said is None:
        return None
    dimensions = (_dimension(said, 0, unix_now), _dimension(said, 1, unix_now))
    return _snapshot(*(None if dimension is None or dimension.limit == 0 else dimension for dimension in dimensions))


def together(headers: Headers, unix_now: float) -> RateLimitSnapshot | None:
    """Together: ``x-ratelimit-{limit,remaining,reset}`` and ``x-tokenlimit-*``, counted by the **second**.

    What remains of a second is said for a second at most; that nothing does, until the reset.
    """
    said = _said(headers, _TOGETHER)
    if said is None:
        return None
    return _snapshot(_within_a_second(said, 0, unix_now), _within_a_second(said, 1, unix_now))


def litellm(headers: Headers, unix_now: float) -> RateLimitSnapshot | None:
    """A LiteLLM proxy: of its own limits and those of the provider behind it, the tightest.

    Its own are ``x-ratelimit-{api_key,team,user,…}-{remaining,limit}-{requests,tokens}``; some of its limiters put the scope
    behind the field. What it passes on is ``x-ratelimit-*`` and, of all that the provider sent, ``llm_provider-*``. As that
    may be Azure, nothing that remains is believed only with a limit or a reset beside it.
    """
    passed_on: list[tuple[str, str]] = []
    own: dict[tuple[str, str], dict[str, str]] = {}
    for name, value in headers:
        key = name.lower()
        if key[: len(_PASSED_ON)] == _PASSED_ON:
            upstream_name = key[len(_PASSED_ON) :]
            if upstream_name[: len(_PROXYS_OWN)] != _PROXYS_OWN:  # behind it is another proxy: that tells no dialect
                passed_on.append((upstream_name, value))
        elif key[: len(_RATE_LIMIT)] == _RATE_LIMIT and (read := _scoped(key[len(_RATE_LIMIT) :])) is not None:
            amount, scope, field = read
            own.setdefault((amount, scope), {}).setdefault(field, value)
    upstream = compatible(tuple(passed_on), unix_now) or RateLimitSnapshot()
    tightest = {amount: getattr(upstream, amount) for amount in _AMOUNTS}
    for (amount, _), fields in own.items():
        dimension = _doubted([fields.get(field) for field in _FIELDS], 0, (), unix_now)
        tightest[amount] = _tighter(tightest[amount], dimension)
    return _snapshot(*tightest.values())


def gemini(headers: Headers, unix_now: float) -> RateLimitSnapshot | None:
    """Gemini: it sends no such headers. What it has to say is in the body of a 429."""
    return None


SNAPSHOTS: Final[Mapping[str, SnapshotReader]] = {
    "openai": openai,
    "azure": azure,
    "anthropic": anthropic,
    "gemini": gemini,
    "litellm": litellm,
    "groq": groq,
    "mistral": mistral,
    "together": together,
}
"""The readers by provider."""


# ---- whose dialect it is ----------------------------------------------------------------------------------------------

_HOSTS: Final[Mapping[str, SnapshotReader]] = {
    "openai.com": openai,
    "azure.com": azure,
    "groq.com": groq,
    "mistral.ai": mistral,
    "together.ai": together,
    "together.xyz": together,
}
"""Hosts, and those under them, that nobody but the provider answers for."""

_GIVEN_AWAY_BY: Final[tuple[tuple[SnapshotReader, tuple[str, ...]], ...]] = (
    (litellm, ("x-litellm-call-id", "x-litellm-model-id", "x-litellm-version")),
    (together, tuple(name for name in _TOGETHER if "tokenlimit" in name)),  # the other names are anybody's
    (mistral, tuple(_MISTRAL)),
    (anthropic, tuple(_ANTHROPIC)),
    (azure, ("apim-request-id", "x-ms-region")),
    (groq, ("x-groq-region",)),
)
"""Names that one dialect alone has. The first dialect wins: a proxy passes on what others sent."""

_COMPATIBLE: Final[Mapping[str, int]] = _OPENAI | {
    name: rank - len(_GIVEN_AWAY_BY) for rank, (_, names) in enumerate(_GIVEN_AWAY_BY) for name in names
}
"""OpenAI's names and their places; below zero, the names that give a dialect away and its index in `_GIVEN_AWAY_BY`."""


def compatible(headers: Headers, unix_now: float) -> RateLimitSnapshot | None:
    """Whoever speaks OpenAI's format: the dialect whose own names are among the headers, else OpenAI's.

    Groq is not always known this way, and a bare ``x-ratelimit-remaining`` is not read: nobody knows what it counts.
    """
    said: _Said | None = None
    dialect = 0
    for name, value in headers:
        place = _COMPATIBLE.get(name.lower())
        if place is None:
            continue
        if place < 0:
            dialect = min(dialect, place)
            continue
        if said is None:
            said = [*_NOTHING_SAID]
        if said[place] is None:
            said[place] = value
    if dialect:
        return _GIVEN_AWAY_BY[dialect][0](headers, unix_now)
    return None if said is None else _openai_snapshot(said, unix_now)


@lru_cache(maxsize=128)  # a deployment has one, and each response asks
def reader_for(endpoint: str) -> SnapshotReader:
    """The reader for a server that speaks OpenAI's format, by its base URL: `compatible` where the host is nobody's.

    Raises `ValueError` for what is no URL.
    """
    host = "." + parse_origin(endpoint).host.rstrip(".")
    return next((reader for owned, reader in _HOSTS.items() if host.endswith("." + owned)), compatible)


# ---- headers to values ------------------------------------------------------------------------------------------------


def _said(headers: Headers, places: Mapping[str, int]) -> _Said | None:
    """The values of these names, the first of each; ``None`` if none came. Every response comes by here: one cheap pass."""
    said: _Said | None = None
    for name, value in headers:
        place = places.get(name.lower())
        if place is not None:
            if said is None:
                said = [*_NOTHING_SAID]
            if said[place] is None:
                said[place] = value
    return said


_RATE_LIMIT: Final = "x-ratelimit-"
_PASSED_ON: Final = "llm_provider-"
_PROXYS_OWN: Final = "x-litellm-"
_AMOUNTS: Final = ("requests", "tokens", "input_tokens", "output_tokens")


def _scoped(name: str) -> tuple[str, str, str] | None:
    """What LiteLLM's ``[scope-]field-amount`` or ``field-[scope-]amount`` is of: the amount, the scope, the field."""
    rest, _, amount = name.rpartition("-")
    if amount not in ("requests", "tokens"):
        return None
    field, _, scope = rest.partition("-")
    if field not in _FIELDS:
        scope, _, field = rest.rpartition("-")
        if field not in _FIELDS:
            return None
    if amount == "tokens" and scope.endswith(("_itpm", "_otpm")):
        amount = "input_tokens" if scope.endswith("_itpm") else "output_tokens"
    return amount, scope, field


def _count(value: str | None) -> int | None:
    """A whole number of at most 18 digits."""
    if not isinstance(value, str):
        return None
    text = value if value.isdigit() else value.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def _wait(value: float | None) -> float | None:
    """Seconds that somebody might have to wait: above zero, and no more than were ever seen."""
    return value if value is not None and 0 < value <= _LONGEST_WAIT else None


# ---- values to what they say of one amount ----------------------------------------------------------------------------


def _openai_snapshot(said: _Said, unix_now: float) -> RateLimitSnapshot | None:
    requests, tokens = _dimension(said, 0, unix_now), _dimension(said, 1, unix_now)
    return _snapshot(requests, _tighter(tokens, _dimension(said, 2, unix_now)))


def _dimension(said: _Said, amount: int, unix_now: float) -> RateLimitDimension | None:
    """As OpenAI means it, and most others."""
    at = len(_FIELDS) * amount
    limit, remaining = _count(said[at]), _count(said[at + 1])
    if limit is None and remaining is None:
        return None
    return RateLimitDimension(limit, remaining, parse_reset(said[at + 2], unix_now) or None)


def _doubted(said: _Said, amount: int, headers: Headers, unix_now: float) -> RateLimitDimension | None:
    """As Azure means it: 0 is what it writes for "unknown" too."""
    limit_said, remaining_said, reset_said = said[len(_FIELDS) * amount :][: len(_FIELDS)]
    limit, remaining, reset = _count(limit_said) or None, _count(remaining_said), _wait(parse_reset(reset_said, unix_now))
    if remaining == 0:
        reset = reset or _wait(retry_after_from_headers(headers, unix_now))
        if limit is None and reset is None:
            return None
    return None if limit is None and remaining is None else RateLimitDimension(limit, remaining, reset)


def _anthropic_amount(said: _Said, amount: int, unix_now: float) -> RateLimitDimension | None:
    limit_said, remaining_said, reset_said = said[len(_FIELDS) * amount :][: len(_FIELDS)]
    limit, remaining, reset = _count(limit_said), _count(remaining_said), parse_reset(reset_said, unix_now)
    if limit is None and remaining is None:
        return None
    if amount > 0 and remaining is not None and remaining % 1000 == 0:
        remaining = max(0, remaining - _MOST_ROUNDED_UP)
    return RateLimitDimension(limit, remaining, reset if reset == 0 else _wait(reset))


def _repeats(one: RateLimitDimension, other: RateLimitDimension) -> bool:
    """Whether two amounts are one limit under two names."""
    return (one.limit, one.remaining) == (other.limit, other.remaining)


def _until_next(day: RateLimitDimension | None) -> RateLimitDimension | None:
    """What remains of a limit that refills evenly and slowly, until there is one more."""
    if day is None or day.remaining is None:
        return None
    missing = (day.limit or 0) - day.remaining
    next_after = day.reset_after / missing if day.reset_after is not None and missing > 0 else None
    return RateLimitDimension(None, day.remaining, next_after)


def _within_a_second(said: _Said, amount: int, unix_now: float) -> RateLimitDimension | None:
    """What remains of Together's second."""
    at = len(_FIELDS) * amount
    remaining = _count(said[at + 1])
    if remaining is None:
        return None
    reset = _wait(parse_reset(said[at + 2], unix_now)) or _WINDOW_OF_TOGETHER
    return RateLimitDimension(None, remaining, min(reset, _WINDOW_OF_TOGETHER) if remaining else reset)


def _tighter(one: RateLimitDimension | None, other: RateLimitDimension | None) -> RateLimitDimension | None:
    """The one with the least remaining; of two alike, the one that knows its reset."""
    if one is None or other is None:
        return one or other
    return min(one, other, key=lambda d: (math.inf if d.remaining is None else d.remaining, d.reset_after is None))


def _snapshot(*dimensions: RateLimitDimension | None) -> RateLimitSnapshot | None:
    """What is said of requests, tokens, input and output; ``None`` where nothing is."""
    return RateLimitSnapshot(*dimensions) if any(dimensions) else None
