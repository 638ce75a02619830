"""Checks of a plan's fields. Each raises `ValueError` naming the field."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...backoff import require_count, require_number


def require_when(number: int, at: float, seconds: float) -> None:
    """What every disturbance has: its place in the plan, when it begins, how long it lasts."""
    require_count("number", number)
    require_number("at", at)
    require_number("seconds", seconds)


def require_share(field: str, value: float) -> None:
    """``value`` must be a probability."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 <= value <= 1.0:
        raise ValueError(f"{field}: {value!r} is not a probability from 0 to 1")


def require_unique(field: str, numbers: Sequence[int]) -> None:
    """No number may be there twice: by them a plan says what it keeps."""
    if len(set(numbers)) < len(numbers):
        twice = next(number for number in numbers if numbers.count(number) > 1)
        raise ValueError(f"{field}: the number {twice} is given twice")


def require_known(field: str, known: Sequence[str], named: Iterable[str]) -> None:
    """Whatever is named must be there."""
    for name in dict.fromkeys(named):
        if name not in known:
            raise ValueError(f"{field}: {name!r} is none of the deployments' {', '.join(dict.fromkeys(known))}")
