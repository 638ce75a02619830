"""When Google's daily quotas begin anew, checked against the time zone database (`sansio.providers.pacific_midnight`)."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sansio.providers.pacific_midnight import seconds_until_pacific_midnight

PACIFIC = ZoneInfo("America/Los_Angeles")
HOUR = 3600.0


def unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("now", "seconds"),
    [
        ("2026-01-15T00:00:00-08:00", 24 * HOUR),
        ("2026-01-15T23:59:59.750-08:00", 0.25),
        ("2026-07-15T00:00:00-07:00", 24 * HOUR),
        ("2026-07-15T18:00:00-07:00", 6 * HOUR),
        ("2026-07-16T00:30:00+00:00", 6.5 * HOUR),
        # The day on which the clocks go forward has 23 hours, that on which they go back 25.
        ("2026-03-08T00:00:00-08:00", 23 * HOUR),
        ("2026-03-08T01:59:59-08:00", 21 * HOUR + 1),
        ("2026-03-08T03:00:00-07:00", 21 * HOUR),
        ("2026-11-01T00:00:00-07:00", 25 * HOUR),
        ("2026-11-01T01:59:59-07:00", 23 * HOUR + 1),
        ("2026-11-01T01:00:00-08:00", 23 * HOUR),
        ("2026-12-31T12:00:00-08:00", 12 * HOUR),
        # The month may begin on a Sunday, and end on the day before one.
        ("2015-03-08T01:00:00-08:00", 22 * HOUR),
        ("2020-11-01T00:30:00-07:00", 24.5 * HOUR),
    ],
)
def test_the_wait(now: str, seconds: float) -> None:
    assert seconds_until_pacific_midnight(unix(now)) == pytest.approx(seconds, abs=1e-3)


@given(st.floats(unix("2007-01-01T12:00+00:00"), unix("2099-12-31T00:00+00:00")))
def test_it_agrees_with_the_time_zone_database(now: float) -> None:
    there = datetime.fromtimestamp(now, PACIFIC)
    midnight = datetime(there.year, there.month, there.day, tzinfo=PACIFIC) + timedelta(days=1)
    assert seconds_until_pacific_midnight(now) == pytest.approx(midnight.timestamp() - now, abs=1e-3)


@pytest.mark.parametrize("now", [math.nan, math.inf, -math.inf, 1e300, -1e300, 1e12, -1e12, -62135596800.0, 253402300799.0])
def test_beyond_the_calendar_it_is_a_day(now: float) -> None:
    assert seconds_until_pacific_midnight(now) == 24 * HOUR


@given(st.floats())
def test_it_is_total(now: float) -> None:
    assert 0 < seconds_until_pacific_midnight(now) <= 25 * HOUR
