"""How long until the clocks on the American Pacific coast show midnight: when Google's daily quotas begin anew.

The rule of daylight saving is computed by hand, because `zoneinfo` reads files. It is the one since 2007 (15 U.S.C. 260a):
from the second Sunday in March to the first in November, changing at two o'clock in the morning.

Source: https://ai.google.dev/gemini-api/docs/rate-limits (requests per day are counted until midnight Pacific time).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1)
_DAY: Final = timedelta(days=1)
_STANDARD, _DAYLIGHT = timedelta(hours=8), timedelta(hours=7)
"""How far the coast is behind UTC."""

_SUNDAY: Final = 6


def seconds_until_pacific_midnight(unix_now: float) -> float:
    """Seconds from ``unix_now`` (Unix time) to the next midnight there: above 0, and 25 hours at most.

    Total: for what no calendar reaches, not a number among it, the answer is a day.
    """
    try:
        now = _EPOCH + timedelta(seconds=unix_now)
        midnight = (now - _behind_utc(now)).replace(hour=0, minute=0, second=0, microsecond=0) + _DAY
        # Midnight there is at 7 or at 8 o'clock UTC, and clocks change at 9 or 10: at either, the same holds.
        return (midnight + _behind_utc(midnight + _DAYLIGHT) - now).total_seconds()
    except (OverflowError, ValueError):
        return _DAY.total_seconds()


def _behind_utc(utc: datetime) -> timedelta:
    """How far the coast is behind at this instant, which is given in UTC."""
    begins = _sunday(utc.year, month=3, count=2) + timedelta(hours=2) + _STANDARD
    ends = _sunday(utc.year, month=11, count=1) + timedelta(hours=2) + _DAYLIGHT
    return _DAYLIGHT if begins <= utc < ends else _STANDARD


def _sunday(year: int, *, month: int, count: int) -> datetime:
    """The first, second … Sunday of a month, at midnight."""
    first = datetime(year, month, 1)
    return first + timedelta(days=(_SUNDAY - first.weekday()) % 7 + 7 * (count - 1))
