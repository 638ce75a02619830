"""The three forms of an HTTP date (RFC 9110, section 5.6.7), written out: a client must read them all."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Literal

DateForm = Literal["imf", "rfc850", "asctime"]

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def http_date(unix: float, form: DateForm = "imf") -> str:
    """``unix`` seconds as an HTTP date, rounded up to a whole second. Day and month names do not depend on a locale."""
    at = _EPOCH + timedelta(seconds=math.ceil(unix))
    day, month = _DAYS[at.weekday()], _MONTHS[at.month - 1]
    clock = f"{at:%H:%M:%S}"
    if form == "imf":
        return f"{day[:3]}, {at.day:02d} {month} {at.year:04d} {clock} GMT"
    if form == "rfc850":
        return f"{day}, {at.day:02d}-{month}-{at.year % 100:02d} {clock} GMT"
    return f"{day[:3]} {month} {at.day:2d} {clock} {at.year:04d}"
