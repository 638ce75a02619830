"""A sliding ledger: amounts charged over time, of which no interval of a given length may hold more than a limit.

Fixed windows let twice the limit through around their edge, and a token bucket adds its burst to a full window's
refill. A ledger of dated charges does neither: a charge made at *t* counts at every instant before *t* + span (``span``
is ``window`` + ``guard``), so the charges of every interval ``[s, s + span)``, whatever its start, are those that
counted together at some instant, and that sum was checked.

Memory is bounded by putting charges that follow each other within a thousandth of the span into one bucket, which then
leaves as a whole when its last possible charge would. So a charge may be held longer, by at most
`SlidingLedger.resolution`, and never shorter. A charge alone in its bucket leaves exactly on time.

Amounts are integers (requests, tokens, micro-dollars), so sums never drift. Instants are the caller's floats: they are
only compared, with the instant of leaving rounded up where floats must round.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import NoReturn

_BUCKETS_PER_SPAN = 1000
"""How finely the span is cut. At most this many buckets, and a few, are held; utilisation lost is its reciprocal."""


class Bucket:
    """Charges that leave together: ``amount`` in all, none later than ``latest``, joined by others until ``closes_at``."""

    __slots__ = ("amount", "closes_at", "latest", "leaves_at")

    def __init__(self, amount: int, latest: float, closes_at: float, leaves_at: float) -> None:
        self.amount = amount
        self.latest = latest
        self.closes_at = closes_at
        self.leaves_at = leaves_at


class Charge:
    """One entry of a `SlidingLedger`, kept by whoever made it in order to edit it.

    ``amount`` is what it stands at. Only the ledger writes it.
    """

    __slots__ = ("amount", "bucket")

    def __init__(self, amount: int, bucket: Bucket) -> None:
        self.amount = amount
        self.bucket = bucket

    def __repr__(self) -> str:
        return f"Charge(amount={self.amount})"


class SlidingLedger:
    """Charges of which at most ``limit`` may fall into any interval of ``window + guard`` seconds.

    ``limit`` is an integer of at least 1, ``window`` is above 0 and ``guard`` at least 0, both finite seconds; else
    `ValueError`. The ledger answers and records, it does not refuse: ask `earliest`, then `charge`.

    In every method amounts are integers of at least 0, and ``now`` is finite monotonic seconds of any epoch; else
    `ValueError` and nothing changes. A clock that goes backwards counts as standing still.
    """

    __slots__ = ("_buckets", "_foreign", "_last", "_level", "_now", "limit", "resolution", "span")

    def __init__(self, limit: int, window: float, guard: float = 0.0) -> None:
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise ValueError(f"limit: {limit!r} is not an integer of at least 1")
        if not _is_number(window) or not 0 < window < math.inf:
            raise ValueError(f"window: {window!r} is outside 0 < window < infinity (seconds)")
        if not _is_number(guard) or not 0 <= guard < math.inf:
            raise ValueError(f"guard: {guard!r} is outside 0 <= guard < infinity (seconds)")
        self.limit = limit
        self.span: float = window + guard
        self.resolution: float = self.span / _BUCKETS_PER_SPAN
        self._buckets: deque[Bucket] = deque()
        self._last = Bucket(0, -math.inf, -math.inf, -math.inf)  # the newest one, also when it has left
        self._foreign: Bucket | None = None
        self._level = 0
        self._now = -math.inf

    def allow(self, limit: int) -> None:
        """Let the limit be another from now on, 0 included. What was charged stays: the ledger may be overdrawn by that."""
        if limit.__class__ is not int or limit < 0:
            _refuse_amount("limit", limit)
        self.limit = limit

    def level(self, now: float) -> int:
        """What counts at ``now``: the charges that have not left, and what `pull_down` added."""
        if not now <= self._now:
            self._advance(now)
        return self._level

    def earliest(self, amount: int, now: float, limit: int | None = None) -> float:
        """The instant from which ``amount`` more fits, if nothing else happens: ``now`` itself when it fits at once.

        Infinity means never. A ``limit`` below the ledger's own may be given for this one question.
        """
        if not now <= self._now:
            self._advance(now)
        excess = self._level + amount - (self.limit if limit is None else limit)
        if excess <= 0:
            return now
        for bucket in self._leaving():
            excess -= bucket.amount
            if excess <= 0:
                return bucket.leaves_at
        return math.inf

    def charge(self, amount: int, now: float) -> Charge:
        """Record ``amount`` at ``now``, whether it fits or not."""
        if amount.__class__ is not int or amount < 0:
            _refuse_amount("amount", amount)
        if not now <= self._now:
            self._advance(now)
        bucket = self._last
        if self._now > bucket.latest:
            bucket = self._open_bucket(self._now)
        bucket.amount += amount
        self._level += amount
        return Charge(amount, bucket)

    def edit(self, charge: Charge, amount: int, now: float) -> bool:
        """Let a charge of this ledger stand at ``amount``, as if it had been so from its beginning.

        ``False``, and nothing changes, when it has left: what was not used then cannot be used now. An ``amount`` above
        what fits is recorded all the same; the ledger is then overdrawn, and `earliest` is later for everyone.
        """
        if amount.__class__ is not int or amount < 0:
            _refuse_amount("amount", amount)
        if not now <= self._now:
            self._advance(now)
        if charge.bucket.leaves_at <= self._now:
            return False
        change = amount - charge.amount
        charge.amount = amount
        charge.bucket.amount += change
        self._level += change
        return True

    def remove(self, charge: Charge, now: float) -> bool:
        """Take a charge back whole. ``False``, and nothing changes, when it has left."""
        return self.edit(charge, 0, now)

    def pull_down(self, remaining: int, until: float, now: float) -> None:
        """Believe whoever counts on the other side: only ``remaining`` is left of the limit, until the instant ``until``.

        What they have counted and this ledger has not (another user of the same limit) is added as one amount that
        leaves at ``until``. It replaces what the last call added. It never makes room: a higher ``remaining`` than the
        ledger's own adds nothing.
        """
        if remaining.__class__ is not int or remaining < 0:
            _refuse_amount("remaining", remaining)
        if not now <= self._now:
            self._advance(now)
        if self._foreign is not None:
            self._level -= self._foreign.amount
            self._foreign = None
        unknown = self.limit - self._level - remaining
        if unknown > 0 and until > self._now:
            self._foreign = Bucket(unknown, self._now, self._now, until)
            self._level += unknown

    def _advance(self, now: float) -> None:
        """Time has moved on to ``now`` (or is NaN): let go what has left. Callers compare first, to save the call."""
        if not now < math.inf:
            raise ValueError(f"now: {now!r} is not a finite number of seconds")
        self._now = now
        buckets = self._buckets
        while buckets and buckets[0].leaves_at <= now:
            self._level -= buckets.popleft().amount
        if self._foreign is not None and self._foreign.leaves_at <= now:
            self._level -= self._foreign.amount
            self._foreign = None

    def _open_bucket(self, now: float) -> Bucket:
        """The bucket for a charge at ``now``, an instant for which the last one does not stand yet."""
        if self._buckets and now <= self._buckets[-1].closes_at:
            # A second instant shares the bucket: from here on it stands for every instant until it closes.
            bucket = self._buckets[-1]
            bucket.leaves_at = _leaving_instant(bucket.closes_at, self.span)
            bucket.latest = bucket.closes_at
            return bucket
        bucket = self._last = Bucket(0, now, now + self.resolution, _leaving_instant(now, self.span))
        self._buckets.append(bucket)
        return bucket

    def _leaving(self) -> Iterator[Bucket]:
        """Everything that counts, in the order of leaving."""
        foreign = self._foreign
        for bucket in self._buckets:
            if foreign is not None and foreign.leaves_at <= bucket.leaves_at:
                yield foreign
                foreign = None
            yield bucket
        if foreign is not None:
            yield foreign


def _leaving_instant(charged_at: float, span: float) -> float:
    """The first float that lies ``span`` or more after ``charged_at``, by exact arithmetic."""
    instant = charged_at + span
    while math.fsum((instant, -charged_at, -span)) < 0:
        instant = math.nextafter(instant, math.inf)
    return instant


def _refuse_amount(field: str, amount: int) -> NoReturn:
    raise ValueError(f"{field}: {amount!r} is not an integer of at least 0")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
