"""One member of a limit that is divided into shares which follow demand (spec 4.6.2).

All members stand on one board in the store. Each publishes what it *claims* of the limit and how much it uses and wants, and
reads, in the same atomic step, what all the others do. From that every member computes the same fair shares
(`fair_shares.py`). It agrees with nobody, and waits for nobody:

- It lets go at once: above its share nothing is granted any more from the moment it knows. What it has granted and still
  counts stays claimed until it has cooled, whatever its share has become.
- It takes in two steps: it publishes the larger claim, and grants by it only if on the board that comes back all claims, its
  own included, are within the limit (or only by so much of it as fits).
- Without an answer nothing grows. After ``lease`` seconds a member that gets none stops, by its own clock. The others keep
  its claim that long, by theirs, with a margin for clocks that run apart and a span in which the last of it cools.

**Why that holds the limit.** Let a member's *hold* be what it may have granted that still counts: its claim when it last
lowered it, or what fitted when it last took more. Of all members that ever took more, look at the one whose taking was the
last to be carried out by the store. All holds but its own were published before, as claims at least as large: whoever took
something had published it first, and has since published nothing below what it held. And the store, which refuses whatever
comes late (`Publish.sequence`), showed it those claims. It took only what they left of the limit. So all holds together are
within the limit, whatever was lost, doubled, late, or out of date by then. No clock enters into it but for the lease, and of
that only how long it lasts. (The store's own is believed only on how old a report is that came to somebody who had heard
nothing of its member, or nothing for long: it is not to leap by a lease between two questions.)

**What it does not hold for.** There may be several boards that know nothing of each other, or members that wait for no
lease:

    over-spend in any window  <=  (parts - 1) * limit                                                    (`overspend_bound`)

``parts``: by how many boards members grant within one window. Each holds the limit for those who took from it last. One,
as long as there is one store that keeps what it was told, whoever is cut off from it, dies, comes back or has a wrong wall
clock. A store that runs as several copies which have lost sight of each other makes one of each; one that forgets (emptied,
or a fail-over that loses its newest writes) counts once more each time. Those who were there remember each other all the
same, so what it costs then is what was taken in the moment before, and what a newcomer takes before they have come back.
With `OnSilence.EXPAND` every member that gets no answer, or was not heard of for a while, is a part by itself, and from when
it falls silent until a span after it is heard again: that is the choice.

**Whose turn it is.** A limit may have fewer units than members that wait for one. A head that lacks something gets what
cools first anywhere, the longest waiting first (`fair_shares.py`). So whoever comes to be the first of all waits for a span
at most, and as many as fit into the limit side by side are served with it: of ``n`` members whose heads wait, each is served
within ``1 + n`` spans, and within ``1 + ceil(n / limit)`` where all heads cost 1; and some intervals for the questions that
it takes. With a span of 0, a span is as long as the longest that runs.

What a request uses beyond its reservation comes on top, here as in a single process; it is claimed as soon as it is known.
With a span of 0 what counts is what runs. That ends with its process, but not with its lease: what a member that is cut off
has running for longer than its lease and the longest span comes on top as well.

Demand is counted in windows that are labelled by their epoch (`WindowedCounters`), by each member's own wall clock: so what
is heard late is credited to the window in which it was asked, and a clock that is wrong shifts the labels of its member and
nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from ..gcounter import GCounter, WindowedCounters
from .config import OnSilence
from .fair_shares import Demand, fair_shares
from .member import Holding
from .store import Publish, Published, Quota, StoreReply, StoreRequest

_VERSION: Final = 1

_DRIFT: Final = 0.02
"""The part of any duration by which two monotonic clocks may disagree about it."""

_MARGIN: Final = 0.1
"""Seconds added to that: the grain of clocks."""

_SILENT_AFTER: Final = 3.0
"""Intervals (of at least a second, as long as a store is waited for) after which a member that gave no sign is silent."""

_HUNGRY_PACE: Final = 0.25
_ROUNDS: Final = 3
"""How often in a row it asks again at once, where there is something to be had."""

_KEPT_SECONDS: Final = 90.0
"""How far the labels of another member's windows may lie from ours and still be remembered: wall clocks may be wrong by 30
seconds in either direction, and what is late is not late for long."""

_STEP: Final = 8
"""A member whose head waits asks for an eighth more than it uses, and at least a sixteenth of an even share; one whose head
does not keeps a sixteenth more. So it need not ask for each request, and what it does not use is little."""

_MOST_COUNTS: Final = 32
"""Of how many windows a report tells what was granted in them: so that who heard nothing for a while has missed nothing."""

_LONGEST_CLAIM: Final = 86_400.0
"""Seconds for which a claim is remembered at most, where no longer lease is configured, whatever its member says."""

_MOST_BYTES: Final = 1 << 16
_MOST_MEMBERS: Final = 512
"""More than so many are not kept in mind. Where there are more, nobody takes anything."""

_Count = Annotated[int, msgspec.Meta(ge=0)]


class _Report(msgspec.Struct, array_like=True, frozen=True):
    """What a member says of itself. A later version may add to the end of it.

    sequence: counts its reports, from 1. sent: when, by the store's clock, at the latest; 0 where it does not know that.
    counts_for: seconds after which it cannot hold any of this. claims, holds, levels, needs: for each dimension; what it
    may come to hold by this report, what it may hold already, what counts in its ledger, what its head costs. epoch: the
    label of its current window. counts: what it granted in its latest windows, each with its label. since: when its head
    began to wait, by the store's clock as far as it knows that; 0 where it does not, or nobody waits. One number for each
    head, whoever reads it and whenever: all have to agree on who has waited longest. leaves: it grants nothing any more.
    """

    version: Annotated[int, msgspec.Meta(ge=_VERSION)]
    sequence: _Count
    sent: float
    counts_for: Annotated[float, msgspec.Meta(ge=0)]
    claims: tuple[_Count, ...]
    holds: tuple[_Count, ...]
    levels: tuple[_Count, ...]
    needs: tuple[_Count, ...]
    epoch: int
    counts: tuple[tuple[int, tuple[_Count, ...]], ...]
    since: Annotated[float, msgspec.Meta(ge=0)]
    leaves: bool


_decode: Final = msgspec.json.Decoder(_Report).decode
_NOT_AS_EXPECTED: Final = (msgspec.MsgspecError, ValueError, RecursionError)


@dataclass(slots=True)
class _Part:
    """One member's part in one dimension: what it may hold, what counts in its ledger, what its head costs that has waited
    since then (by the store's clock; 0 where that is not known), and the most that one of its latest two windows used."""

    name: str
    hold: int
    level: int
    need: int
    since: float
    used: int


@dataclass(slots=True)
class _Peer:
    """What is known of another member: its newest report, and how old that was, at least, at the instant ``seen_at``."""

    content: bytes
    report: _Report
    age: float
    seen_at: float
    parts: list[_Part]

    def age_at(self, now: float) -> float:
        """How old the report is, at least."""
        return self.age + max(0.0, now - self.seen_at)


class ApproximateMember:
    """A `Member` with a share that follows demand.

    quotas: the limits. key: where the board is. member: a name that no other life of any process has or had. window: seconds
    over which demand is measured. interval: seconds between two questions while there is something to do. lease: seconds
    after a question that it goes on without an answer. on_silence: `OnSilence`.

    A member that is idle for a span gives its share back and asks nothing until somebody wants something; nor does it while
    the store is gone, once its lease is over.

    Raises `ValueError` for no quotas, an empty name, and seconds that are not above 0 and finite.
    """

    __slots__ = (
        "_allowances", "_answered_at", "_asked_at", "_claims", "_cooling", "_counted", "_counters", "_given_back",
        "_granted", "_holds", "_hungry_since", "_idle_since", "_interval", "_is_crowded", "_key", "_lease", "_member",
        "_now", "_on_silence", "_peers", "_question", "_quotas", "_raised_at", "_rests", "_rounds", "_sequence",
        "_since", "_store_time", "_window",
    )  # fmt: skip

    def __init__(
        self,
        quotas: Sequence[Quota],
        *,
        key: str,
        member: str,
        window: float,
        interval: float,
        lease: float,
        on_silence: OnSilence = OnSilence.FREEZE,
    ) -> None:
        if not quotas:
            raise ValueError("quotas: is empty; there is nothing to share")
        if not member:
            raise ValueError("member: is empty; every life of a process needs a name of its own")
        for name, seconds in (("window", window), ("interval", interval), ("lease", lease)):
            if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < math.inf:
                raise ValueError(f"{name}: {seconds!r} is not a number of seconds above 0")
        self._quotas = tuple(quotas)
        self._key = key
        self._member = member
        self._window = window
        self._interval = interval
        self._lease = lease
        self._on_silence = on_silence
        self._cooling = max(window, *(quota.span for quota in quotas)) * (1.0 + _DRIFT) + _MARGIN
        """Seconds after which the last of what was granted has left every ledger."""
        self._counters = [WindowedCounters(window, 2 + math.ceil(_KEPT_SECONDS / window)) for _ in quotas]
        self._counted = [0] * len(quotas)
        """What each holding had granted in all, when it was last counted."""
        self._peers: dict[str, _Peer] = {}
        self._now = -math.inf
        self._allowances = [0] * len(quotas)
        self._holds = [0] * len(quotas)
        """What it may hold, as of its last question: the allowance, or what counts above it."""
        self._claims = [0] * len(quotas)
        """What was claimed with that question."""
        self._sequence = 0
        self._rounds = 0
        self._question = b""
        """The report with which the question that awaits its answer was asked."""
        self._asked_at = -math.inf
        self._answered_at = -math.inf
        """When the last question that was answered was asked."""
        self._store_time = 0.0
        """What the store's clock said in that answer."""
        self._raised_at = -math.inf
        """Up to when it has raised its share by itself, without the others."""
        self._hungry_since: float | None = None
        self._since = 0.0
        """The same by the store's clock, as it was first reckoned for this head; 0 before that."""
        self._idle_since: float | None = None
        self._given_back = False
        self._rests = False
        """Whether it was left without an answer when it had nothing, and wanted nothing."""
        self._granted = [0] * len(quotas)
        self._is_crowded = False

    @property
    def quotas(self) -> Sequence[Quota]:
        """The shared limits."""
        return self._quotas

    def allowances(self, now: float) -> Sequence[int]:
        """Its share."""
        self._advance(now)
        return list(self._allowances)

    def valid_until(self) -> float:
        """When its lease is over; infinity where it goes on alone, or has given its share back. Minus infinity before the
        first answer."""
        if self._given_back or (self._on_silence is OnSilence.EXPAND and self._answered_at > -math.inf):
            return math.inf
        return self._answered_at + self._lease

    def interval(self, hungry: bool) -> float:
        """The pace of its questions; infinite where it has given its share back, or where it is idle, its lease is over and
        nobody answers. Whoever wants to know again after that has granted something (without the store), so it asks."""
        if hungry:
            return self._interval * _HUNGRY_PACE
        rests, self._rests = self._rests, False
        return math.inf if rests or self._given_back else self._interval

    def counted(self, epoch: int) -> list[int]:
        """What all members are known to have granted in the window with this label, for each dimension."""
        return [counters.of(epoch).value() for counters in self._counters]

    # ---- the exchange -------------------------------------------------------------------------------------------------

    def exchange(self, holdings: Sequence[Holding], now: float, unix_now: float) -> StoreRequest:
        """Publish a claim, and what is wanted. A share that has become smaller is not used any more."""
        now = self._advance(now)
        self._notice(holdings, now)
        self._count(holdings, unix_now)
        heard_before = self._answered_at > -math.inf
        for index, holding in enumerate(holdings):
            target, claim = self._share(index, holding, unix_now) if heard_before else (0, 0)
            self._allowances[index] = min(self._allowances[index], target)
            self._holds[index] = max(self._allowances[index], holding.level)
            self._claims[index] = max(self._holds[index], claim)
        self._asked_at = now
        question = self._publish(self._claims, holdings, unix_now, leaves=False)
        self._question = question.report
        return question

    def exchanged(self, reply: StoreReply, holdings: Sequence[Holding], now: float, unix_now: float) -> bool:
        """Read the board. Returns whether more than before may be had at once."""
        now = self._advance(now)
        asked, self._question = self._question, b""
        if not asked:
            return False
        if not isinstance(reply, Published) or not self._is_answer(reply, asked):
            self._unanswered(now)
            return False
        is_first = self._answered_at == -math.inf
        self._answered_at = self._asked_at
        self._store_time = reply.unix_now
        self._read(reply, now, unix_now)
        self._notice(holdings, now)
        is_more = False
        for index, holding in enumerate(holdings):
            limit = self._quotas[index].limit
            room = limit - sum(min(peer.report.claims[index], limit) for peer in self._heeded(now))
            hold = max(self._holds[index], min(self._claims[index], 0 if self._is_crowded else room))
            self._holds[index] = self._allowances[index] = hold
            target, claim = self._share(index, holding, unix_now)
            self._allowances[index] = min(hold, target)
            is_more = is_more or min(claim, room) > hold
        self._given_back = self._is_idle and not any(self._claims)
        asks_again = is_first or (is_more and self._hungry_since is not None and self._rounds < _ROUNDS)
        self._rounds = self._rounds + 1 if asks_again else 0
        return asks_again

    def leave(self, holdings: Sequence[Holding], now: float, unix_now: float) -> StoreRequest | None:
        """Nothing is granted any more; what still counts is claimed until it has cooled. ``None``: nobody knows of it."""
        self._advance(now)
        self._question = b""
        self._allowances = [0] * len(self._quotas)
        if self._sequence == 0:
            return None
        self._holds = [holding.level for holding in holdings]
        return self._publish(self._holds, holdings, unix_now, leaves=True)

    def _publish(self, claims: Sequence[int], holdings: Sequence[Holding], unix_now: float, *, leaves: bool) -> Publish:
        self._sequence += 1
        sent = 0.0
        if self._answered_at > -math.inf:
            sent = self._store_time + (self._now - self._answered_at) * (1.0 + _DRIFT)
        counts_for = self._cooling if leaves else self._counts_for
        epoch = self._counters[0].epoch(unix_now)
        report = _Report(
            version=_VERSION,
            sequence=self._sequence,
            sent=sent,
            counts_for=counts_for,
            claims=tuple(claims),
            holds=tuple(self._holds),
            levels=tuple(holding.level for holding in holdings),
            needs=tuple(holding.need for holding in holdings),
            epoch=epoch,
            counts=self._own_counts(epoch),
            since=self._since,
            leaves=leaves,
        )
        return Publish(self._key, self._member, msgspec.json.encode(report), counts_for, self._sequence)

    def _is_answer(self, reply: Published, asked: bytes) -> bool:
        """Whether this is the answer to what was asked last: the board with just that on it."""
        return math.isfinite(reply.unix_now) and reply.reports.get(self._member, (0.0, b""))[1] == asked

    def _unanswered(self, now: float) -> None:
        """Its share stays as it is. Where it is to go on alone, all of the limit comes to be its own, in a window's time."""
        self._rounds = 0
        self._given_back = False
        self._rests = self._is_idle and now >= self.valid_until()
        if self._on_silence is OnSilence.EXPAND and self._answered_at > -math.inf:
            since = max(self._answered_at + self._silent_after, self._raised_at)
            if now > since:
                self._raised_at = now
                part = (now - since) / self._window
                for index, quota in enumerate(self._quotas):
                    self._allowances[index] = min(quota.limit, self._allowances[index] + math.ceil(quota.limit * part))

    # ---- what it knows of itself --------------------------------------------------------------------------------------

    def _advance(self, now: float) -> float:
        """The latest instant seen. Past its lease it holds nothing."""
        self._now = max(self._now, now)
        if self._now >= self.valid_until():
            self._allowances = [0] * len(self._quotas)
            self._holds = [0] * len(self._quotas)
        return self._now

    def _notice(self, holdings: Sequence[Holding], now: float) -> None:
        """Since when its head waits, or since when nothing happens at all."""
        granted = [holding.granted for holding in holdings]
        if not any(holding.need for holding in holdings):
            self._hungry_since = None
            self._since = 0.0
        elif self._hungry_since is None or granted != self._granted:  # what has been granted is not the head any more
            self._hungry_since, self._since = now, 0.0
        if self._hungry_since is not None and self._answered_at > -math.inf:
            by_the_store = max(0.0, self._store_time + now - self._answered_at)
            # What lies in the future was reckoned by a clock that has been set back since.
            self._since = min(self._since or by_the_store - (now - self._hungry_since), by_the_store)
        self._granted = granted
        if self._hungry_since is not None or any(holding.level for holding in holdings):
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now

    def _count(self, holdings: Sequence[Holding], unix_now: float) -> None:
        """Count what was granted since the last time."""
        for index, holding in enumerate(holdings):
            self._counters[index].increment(self._member, max(0, holding.granted - self._counted[index]), unix_now)
            self._counted[index] = max(self._counted[index], holding.granted)

    def _own_counts(self, epoch: int) -> tuple[tuple[int, tuple[int, ...]], ...]:
        labels = [label for label in self._counters[0].epochs() if label <= epoch][-_MOST_COUNTS:]
        counts = [(label, tuple(each.of(label).of(self._member) for each in self._counters)) for label in labels]
        return tuple((label, amounts) for label, amounts in counts if any(amounts))

    @property
    def _is_idle(self) -> bool:
        is_alone = self._raised_at > self._answered_at  # then there is nobody to give anything back to
        return self._idle_since is not None and self._now - self._idle_since >= self._cooling and not is_alone

    @property
    def _counts_for(self) -> float:
        """Seconds after a report by which it can hold nothing of it, whatever it hears."""
        return self._lease * (1.0 + _DRIFT) + self._cooling

    @property
    def _silent_after(self) -> float:
        return _SILENT_AFTER * max(1.0, self._interval)

    # ---- what it knows of the others ----------------------------------------------------------------------------------

    def _read(self, board: Published, now: float, unix_now: float) -> None:
        """Take in what the others have published. What is no report is passed over; who was known is not forgotten for it,
        nor for not being there, before it cannot hold anything any more."""
        for counters in self._counters:
            counters.advance(unix_now)
        for name, (age, content) in board.reports.items():
            known = self._peers.get(name)
            if known is not None and known.content == content:
                continue  # it grows old from when it was first seen, however often it is put there
            report = None if name == self._member else self._parsed(content)
            if report is None or (known is not None and known.report.sequence > report.sequence):
                continue
            age = age if 0.0 <= age < math.inf else 0.0
            if report.sent and (known is None or self._is_silent(known, now)):  # has it come from the dead?
                age = max(age, board.unix_now - report.sent)
            for label, amounts in set(report.counts).difference(known.report.counts if known is not None else ()):
                for counters, amount in zip(self._counters, amounts, strict=True):
                    counters.merge(label, GCounter.from_dict({name: amount}))
            self._peers[name] = _Peer(content, report, age, now, self._parts_of(name, report))
        longest = max(_LONGEST_CLAIM, self._counts_for)
        peers = {name: peer for name, peer in self._peers.items() if peer.age_at(now) < min(peer.report.counts_for, longest)}
        self._is_crowded = len(peers) > _MOST_MEMBERS
        self._peers = dict(sorted(peers.items())[:_MOST_MEMBERS]) if self._is_crowded else peers

    def _parts_of(self, name: str, report: _Report) -> list[_Part]:
        """What a report says, with no amount above its limit."""
        parts: list[_Part] = []
        for index, quota in enumerate(self._quotas):
            hold, level, need, used = (
                min(amount, quota.limit)
                for amount in (
                    *(report.holds[index], report.levels[index], report.needs[index]),
                    self._used(index, name, report.epoch),
                )
            )
            parts.append(_Part(name, hold, level, need, report.since, used))
        return parts

    def _parsed(self, content: bytes) -> _Report | None:
        """A report; ``None`` for what is none, or is one about other limits."""
        if len(content) > _MOST_BYTES:
            return None
        try:
            report = _decode(content)
        except _NOT_AS_EXPECTED:
            return None
        counts = [amounts for _, amounts in report.counts]
        lengths = {len(each) for each in (report.claims, report.holds, report.levels, report.needs, *counts)}
        return report if lengths == {len(self._quotas)} and len(counts) <= _MOST_COUNTS else None

    def _is_silent(self, peer: _Peer, now: float) -> bool:
        return peer.age_at(now) > self._silent_after

    def _heeded(self, now: float) -> Iterator[_Peer]:
        """Those whose claims count."""
        for peer in self._peers.values():
            if self._on_silence is OnSilence.FREEZE or peer.report.leaves or not self._is_silent(peer, now):
                yield peer

    # ---- what follows -------------------------------------------------------------------------------------------------

    def _share(self, index: int, holding: Holding, unix_now: float) -> tuple[int, int]:
        """Its fair share of one dimension, as every member that knows the same computes it, and what to claim on the way
        there, where that is more than it holds: its part of what nobody does."""
        if self._is_idle:
            return 0, 0
        limit = self._quotas[index].limit
        hold = max(self._allowances[index], holding.level)
        used = self._used(index, self._member, self._counters[index].epoch(unix_now))
        parts = [_Part(self._member, hold, holding.level, holding.need, self._since, used)]
        for peer in self._peers.values():
            if not (peer.report.leaves or self._is_silent(peer, self._now)):
                parts.append(peer.parts[index])
            elif peer.report.leaves or self._on_silence is OnSilence.FREEZE:
                limit -= peer.parts[index].hold  # it keeps that for its time, whatever the others want
        limit = max(0, limit)
        targets = fair_shares(limit, [self._demand(index, part, len(parts)) for part in parts])
        free = limit - sum(part.hold for part in parts)
        if free <= 0 or targets[0] <= hold:
            return targets[0], 0
        lacks = [max(0, target - part.hold) for target, part in zip(targets, parts, strict=True)]
        given = fair_shares(free, [_lack(part, lack) for part, lack in zip(parts, lacks, strict=True)])
        return targets[0], hold + min(lacks[0], given[0])

    def _used(self, index: int, name: str, epoch: int) -> int:
        """What a member has used in its latest two windows, the larger of both."""
        counters = self._counters[index]
        return max(counters.of(epoch - 1).of(name), counters.of(epoch).of(name)) if self._quotas[index].span else 0

    def _demand(self, index: int, part: _Part, count: int) -> Demand:
        """What counts in its ledger now; where its head waits, as much more as that needs, and a growing step beyond. It
        would like to have ready what its latest windows used, and a little."""
        if part.need:
            even = self._quotas[index].limit // count
            amount = part.level + max(part.need, part.level // _STEP, even // (2 * _STEP))
        else:
            amount = part.level + part.level // (2 * _STEP)
        used = max(part.used, part.level)
        reserve = used + used // 4 + 1 - amount
        return Demand(part.name, amount, reserve, part.need > 0, part.need, _waiting(part), part.need > part.hold)


def _lack(part: _Part, lack: int) -> Demand:
    return Demand(part.name, lack, need=min(lack, max(0, part.level + part.need - part.hold)), waiting=_waiting(part))


def _waiting(part: _Part) -> float:
    """Its place among all: the larger, the longer it has waited."""
    return -part.since if part.since else -math.inf


def overspend_bound(limit: int, parts: int) -> int:
    """By how much all members together may exceed ``limit`` in any window, in tokens (or requests), where they have fallen
    into so many ``parts`` (see above); 0 for one."""
    return limit * max(0, parts - 1)
