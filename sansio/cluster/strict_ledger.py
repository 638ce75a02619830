"""The one ledger of a strict limit, as the store keeps it for all processes: what a `Take` does, and what is answered.

This is the reference, and what the simulator's store runs. `strict_script.py` is the same as a script for Redis and Valkey,
and the tests hold the two against each other. All is counted in integers: microseconds of the store's clock, and amounts.

A dimension is a sliding ledger in slots of time: a charge counts at every instant before charge + span, and leaves with its
slot, at most one slot later. The number that run is summed over the members, each of which tells its own.

**Who waits keeps a place.** A head that is refused stands in line until it is granted, or has not asked again for a while.
What is asked by others is granted only beside all heads that stand before it, so the large are not starved by the small of
other processes, and nobody has to come back in order: whoever asks takes what the line leaves over.

**Everybody may be wrong about what happened.** Questions and answers are lost, doubled, and late. So a member numbers its
questions: none is done twice, nor after a newer one, and a correction says which question carried it first. A charge whose
answer was lost stays until it leaves: capacity is lost, never doubled.

**The store may lose its newest writes** (a replica takes over). A member that was told something which the ledger does not
know says so by asking, and then nothing is granted until all that may have been charged has left. The sequence jumps then,
so that others who notice the same loss later are not heard again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import takewhile
from typing import Final, NamedTuple

from .store import Quota, Take, Taken

_SLOTS: Final = 512
"""At most so many slots make a span, and more than half as many. Utilisation lost is at most twice the reciprocal."""

_LONGEST: Final = 1 << 50
"""Microseconds (35 years). A longer span is taken for this, so that doubles hold what is computed of it."""

MOST: Final = 10**12
"""No slot holds more, and no limit is above: the sum over all slots is exact in a double."""

MOST_HEADS: Final = 64
"""So many heads stand in line. Who comes when it is full is refused without a place, and tries again."""

MOST_FORGOTTEN: Final = 64
"""So many silent members are forgotten by one question at most; the others by the next."""

PLACE: Final = 1_000_000
"""Microseconds that a head keeps its place without asking again."""

SILENCE: Final = 15_000_000
"""Microseconds. A member is forgotten, with what it runs, when it has been silent for so much longer than the longest span.
By then nothing it charged counts, and no question of its own that is still on its way can do harm."""

RETOLD: Final = 5_000_000
"""Microseconds. By then every member that lives has told again what it runs."""

JUMP: Final = 1 << 32
"""By how much the sequence jumps where writes were lost: more than could have been lost."""

MOST_SEQUENCE: Final = 1 << 52
"""A sequence above it was never told by any ledger."""


class Dimension(NamedTuple):
    """One quota as it is counted. name: of its entries in the store. span, width of a slot: microseconds, 0 for what runs.

    The width is a power of two, so that the slots of one dimension never straddle those of another.
    """

    name: str
    limit: int
    span: int
    width: int


class Terms(NamedTuple):
    """What follows from the quotas of a question.

    grain: the width of the finest slots; charges in the same one are told the same `Taken.slot`. memory: how long a silent
    member is remembered. quarantine: how long nothing is granted after a loss. All in microseconds.
    """

    dimensions: tuple[Dimension, ...]
    grain: int
    memory: int
    quarantine: int


def terms_of(quotas: Sequence[Quota]) -> Terms:
    """How these quotas are counted."""
    dimensions = tuple(_dimension(quota) for quota in quotas)
    longest = max((each.span for each in dimensions), default=0)
    widths = [each.width for each in dimensions if each.span]
    runs = any(not each.span for each in dimensions)
    quarantine = max(longest, RETOLD) if runs else longest
    return Terms(dimensions, min(widths, default=1), longest + max(widths, default=0) + SILENCE, quarantine)


def _dimension(quota: Quota) -> Dimension:
    span = 0 if not quota.span else max(1, min(math.ceil(min(quota.span * 1e6, _LONGEST)), _LONGEST))
    width = 1 << (-(-span // _SLOTS) - 1).bit_length() if span else 0
    return Dimension(f"d:{quota.field}:{span}", min(quota.limit, MOST), span, width)


class _Row:
    """The slots of one dimension that were charged, oldest first, and their sum."""

    __slots__ = ("slots", "total")

    def __init__(self) -> None:
        self.slots: dict[int, int] = {}
        self.total = 0

    def advance(self, first: int) -> None:
        """Let go the slots before ``first``."""
        while self.slots and (oldest := next(iter(self.slots))) < first:
            self.total -= self.slots.pop(oldest)

    def add(self, slot: int, change: int) -> None:
        """Charge or correct a slot. It never holds less than nothing."""
        held = self.slots.get(slot, 0)
        self.slots[slot] = max(0, min(MOST, held + change))
        self.total += self.slots[slot] - held


class _Member(NamedTuple):
    """number, sequence: of the last question that was done, and what it was told."""

    number: int
    sequence: int
    running: int
    forgotten_at: int


_NOBODY: Final = _Member(0, 0, 0, 0)


class _Head(NamedTuple):
    """Somebody in line. costs: by dimension."""

    member: str
    expires: int
    costs: dict[str, int]


class StrictLedger:
    """One ledger. Every `Take` for its key is put to `take`, in whatever order and however often it happens to come."""

    __slots__ = ("_base", "_line", "_members", "_now", "_quarantined_until", "_rows", "_running", "_sequence")

    def __init__(self) -> None:
        self._now = 0
        self._sequence = 0
        self._base = 0
        """Where the sequence began anew at the last loss that was noticed."""
        self._quarantined_until = 0
        self._rows: dict[str, _Row] = {}
        self._members: dict[str, _Member] = {}
        self._running = 0
        self._line: list[_Head] = []

    def take(self, request: Take, unix_now: float) -> Taken:
        """Do what is asked at ``unix_now`` by the store's clock. One that goes backwards counts as standing still."""
        self._now = max(self._now, round(unix_now * 1e6))
        terms = terms_of(request.quotas)
        for each in terms.dimensions:
            if each.span:
                self._rows.setdefault(each.name, _Row()).advance(_first(each, self._now))
        self._forget()
        member = self._members.get(request.member, _NOBODY)
        if request.number <= member.number:
            return self._answer(terms, 0, None)
        self._notice_loss(request, member, terms)
        self._sequence += 1
        self._correct(request, member, terms)
        running = 0 if request.leaves else request.running
        self._running += running - member.running
        granted = 0 if request.leaves else self._grant(request, terms)
        wait = None
        if request.asks and not granted and not request.leaves:
            wait = self._wait(request, terms)
        self._stand(request, terms, granted)
        for each, amounts in zip(terms.dimensions, zip(*request.asks[:granted], strict=True), strict=False):
            running += 0 if each.span else sum(amounts)
        self._members[request.member] = _Member(request.number, self._sequence, running, self._now + terms.memory)
        return self._answer(terms, granted, wait)

    def _forget(self) -> None:
        """Let go of members that have been silent for too long, and of places that were not renewed."""
        now = self._now
        silent = sorted((m.forgotten_at, name.encode(), name) for name, m in self._members.items() if m.forgotten_at <= now)
        for _, _, name in silent[:MOST_FORGOTTEN]:
            self._running -= self._members.pop(name).running
        self._line = [head for head in self._line if head.expires > now]

    def _notice_loss(self, request: Take, member: _Member, terms: Terms) -> None:
        """Compare what the member was told with what is known of it here."""
        if not request.answered or not self._base <= request.known <= MOST_SEQUENCE:
            return
        if member.number == request.answered:
            is_same = member.sequence == request.known
        else:
            is_same = member.number > request.answered and member.sequence > request.known
        if not is_same:
            self._base = self._sequence = max(self._sequence, request.known) + JUMP
            self._quarantined_until = max(self._quarantined_until, self._now + terms.quarantine)

    def _correct(self, request: Take, member: _Member, terms: Terms) -> None:
        for slot, changes, question in request.corrections:
            if question <= member.number:
                continue  # it was done then, though nobody heard of it
            for each, change in zip(terms.dimensions, changes, strict=True):
                if each.span and slot // each.width in self._rows[each.name].slots:
                    self._rows[each.name].add(slot // each.width, change)

    def _grant(self, request: Take, terms: Terms) -> int:
        """Charge what fits, and say how many of the asks did."""
        if self._now < self._quarantined_until:
            return 0
        kept = self._kept(self._before(request.member), terms)
        for granted, ask in enumerate(request.asks):
            if granted == 1:  # the head was served, and what is fetched ahead stands behind everybody
                kept = self._kept([head for head in self._line if head.member != request.member], terms)
            for each, amount, keep in zip(terms.dimensions, ask, kept, strict=True):
                if self._level(each) + keep + amount > each.limit:
                    return granted
            for each, amount in zip(terms.dimensions, ask, strict=True):
                if each.span:
                    self._rows[each.name].add(self._now // each.width, amount)
                else:
                    self._running += amount
        return len(request.asks)

    def _stand(self, request: Take, terms: Terms, granted: int) -> None:
        """Give the head its place in line, or let it go."""
        ahead = self._before(request.member)
        behind = self._line[len(ahead) + 1 :]
        has_place = len(ahead) < len(self._line)
        waits = bool(request.asks) and not granted and not request.leaves
        if waits and (has_place or len(self._line) < MOST_HEADS):
            costs = {each.name: amount for each, amount in zip(terms.dimensions, request.asks[0], strict=True)}
            ahead.append(_Head(request.member, self._now + PLACE, costs))
        self._line = ahead + behind

    def _wait(self, request: Take, terms: Terms) -> int | None:
        """How long until the first ask fits, if nobody comes: charges leave, and the places before it expire.

        The later an instant, the fewer places and the more room. So it is looked for from the end: the last places are gone,
        then one more still stands, and so on, until what stands is gone sooner than there is room beside it.
        """
        before = sorted(self._before(request.member), key=lambda head: head.expires)
        soonest: float = math.inf
        for gone in range(len(before), -1, -1):
            gone_at = before[gone - 1].expires if gone else self._now
            kept = self._kept(before[gone:], terms)
            fits_at = max(
                (
                    self._fits_at(each, keep + amount)
                    for each, keep, amount in zip(terms.dimensions, kept, request.asks[0], strict=True)
                ),
                default=gone_at,
            )
            soonest = min(soonest, max(gone_at, fits_at))
            if fits_at > gone_at:
                break
        return None if soonest == math.inf else int(max(soonest, self._quarantined_until)) - self._now

    def _fits_at(self, dimension: Dimension, amount: int) -> float:
        """When this much more fits into a dimension: now, when slots have left, or never by time alone."""
        excess = self._level(dimension) + amount - dimension.limit
        if excess <= 0:
            return self._now
        if dimension.span:
            for slot, held in self._rows[dimension.name].slots.items():
                excess -= held
                if excess <= 0:
                    return (slot + 1) * dimension.width + dimension.span
        return math.inf

    def _before(self, member: str) -> list[_Head]:
        """Who stands before this member: all, where it does not stand in line."""
        return list(takewhile(lambda head: head.member != member, self._line))

    @staticmethod
    def _kept(heads: Sequence[_Head], terms: Terms) -> list[int]:
        """What is kept for these heads, by dimension."""
        return [sum(head.costs.get(each.name, 0) for head in heads) for each in terms.dimensions]

    def _level(self, dimension: Dimension) -> int:
        return self._rows[dimension.name].total if dimension.span else self._running

    def _answer(self, terms: Terms, granted: int, wait: int | None) -> Taken:
        now = self._now
        return Taken(
            granted,
            now // terms.grain * terms.grain,
            None if wait is None else wait / 1e6,
            self._sequence,
            tuple(self._level(each) for each in terms.dimensions),
            now / 1e6,
        )


def _first(dimension: Dimension, now: int) -> int:
    """The oldest slot that still counts."""
    return (now - dimension.span) // dimension.width
