"""How long to wait before trying again, as a pure function of the attempt's number.

The wait grows by a constant factor up to a cap, and jitter spreads the clients that failed together so that they do not
come back together (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015: the kinds below carry its
names). Nothing is remembered between calls: the same policy, attempt and random state give the same wait.
"""

from __future__ import annotations

import enum
import random
import sys
from dataclasses import dataclass
from typing import Final

_LARGEST_EXPONENT: Final = 2**1000
"""Attempts above this count as this one: it still converts to a float, and every factor above 1 is past any cap by then."""

_LONGEST_CHAIN: Final = 32
"""Draws of the decorrelated chain. It has long reached the cap, or forgotten where it began, by then."""


class JitterKind(enum.StrEnum):
    """How much of the exponential wait is left to chance.

    NONE: nothing.
    EQUAL: the upper half.
    FULL: all of it.
    DECORRELATED: each wait is drawn between the first one and three times the one before; `backoff_multiplier` plays no
    part in it.
    """

    NONE = "none"
    EQUAL = "equal"
    FULL = "full"
    DECORRELATED = "decorrelated"


@dataclass(frozen=True, slots=True)
class BackoffPolicy:
    """The curve of the waits, in seconds.

    initial_backoff: the wait after the first failure, before jitter.
    max_backoff: no wait is longer, not even the first.
    backoff_multiplier: each wait is this many times the one before; at least 1.
    jitter: a `JitterKind` or its value as a string.

    Raises `ValueError` at construction for a field out of range, naming it.
    """

    initial_backoff: float = 1.0
    max_backoff: float = 60.0
    backoff_multiplier: float = 2.0
    jitter: JitterKind = JitterKind.EQUAL

    def __post_init__(self) -> None:
        require_number("initial_backoff", self.initial_backoff)
        require_number("max_backoff", self.max_backoff)
        require_number("backoff_multiplier", self.backoff_multiplier, at_least=1)
        if self.jitter not in list(JitterKind):
            raise ValueError(f"jitter: {self.jitter!r} is none of {', '.join(JitterKind)}")
        object.__setattr__(self, "jitter", JitterKind(self.jitter))


def compute_backoff(policy: BackoffPolicy, attempt: int, rng: random.Random) -> float:
    """Seconds to wait after failure number ``attempt``, counted from 0.

    Never negative, never above `BackoffPolicy.max_backoff`, in constant time for every ``attempt``. Draws from ``rng``
    only. Raises `ValueError` for a negative attempt.
    """
    require_count("attempt", attempt)
    if policy.jitter is JitterKind.DECORRELATED:
        return _decorrelated(policy, attempt, rng)
    whole = _exponential(policy, attempt)
    if policy.jitter is JitterKind.NONE:
        return whole
    if policy.jitter is JitterKind.FULL:
        return whole * rng.random()
    return whole / 2 + whole / 2 * rng.random()


def require_number(field: str, value: float, at_least: float = 0) -> None:
    """Raise `ValueError` naming ``field`` unless ``value`` is a finite number (no bool) of at least ``at_least``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not at_least <= value <= sys.float_info.max:
        raise ValueError(f"{field}: {value!r} is not a finite number of at least {at_least}")


def require_positive(field: str, value: float) -> None:
    """Raise `ValueError` naming ``field`` unless ``value`` is a finite number (no bool) above 0."""
    require_number(field, value)
    if not value:
        raise ValueError(f"{field}: {value!r} is not above 0")


def require_count(field: str, value: int, at_least: int = 0) -> None:
    """Raise `ValueError` naming ``field`` unless ``value`` is an integer (no bool) of at least ``at_least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise ValueError(f"{field}: {value!r} is not an integer of at least {at_least}")


def _exponential(policy: BackoffPolicy, attempt: int) -> float:
    cap = float(policy.max_backoff)
    if not policy.initial_backoff:
        return 0.0  # also where the power below would overflow
    try:
        return min(cap, policy.initial_backoff * float(policy.backoff_multiplier) ** min(attempt, _LARGEST_EXPONENT))
    except OverflowError:
        return cap


def _decorrelated(policy: BackoffPolicy, attempt: int, rng: random.Random) -> float:
    """Replay the chain of waits up to this attempt: only its distribution matters, not the waits really drawn before."""
    cap = float(policy.max_backoff)
    low = wait = float(policy.initial_backoff)
    for _ in range(min(attempt + 1, _LONGEST_CHAIN)):
        wait = min(cap, low + (3 * wait - low) * rng.random())
    return wait
