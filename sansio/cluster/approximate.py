"""One member of a limit that is divided into shares which follow demand (spec 4.6.2).

All members stand on one board in the store. Each publishes what it *claims* of the limit and how much it wants, and reads,
in the same atomic step, what all the others do. From that every member computes the same fair shares (`fair_shares.py`).

- It lets go at once: what is above its share is not granted any more from the moment it knows.
- It takes in two steps: it publishes the larger claim, and grants by it only if in the answer all claims together, its own
  included, are within the limit. The store puts publications in order; whoever comes last sees all the others, so the claims
  that are in use are never more than the limit.
- What it has granted and still counts stays claimed, whatever its share has become: others may have it when it has cooled.
- A publication that comes late is refused by the store, which keeps the higher sequence number.

So on one board the limit is held, and nobody asks anybody for leave. What this mode gives up is the case that there are
several boards, which do not know of each other, or that members do not wait for each other:

    over-spend in any window  <=  (parts - 1) * limit

where ``parts`` is into how many parts the members have fallen that share no board (`overspend_bound`). With
`OnSilence.FREEZE` there is one part while the store is cut off, dead, or forgets nothing: a member that gets no answer keeps
its share for ``lease`` seconds and then stops, and the others divide it only after that, a margin for clocks that drift, and
a window.
There are several only where the store itself loses what it knew (each member that published before counts as one until it
publishes again) or runs in several copies. With `OnSilence.EXPAND` each member without an answer is a part by itself.

Demand is counted in windows that are labelled by their epoch (`WindowedCounters`), by each member's own wall clock: so what
is heard late is credited to the window in which it was asked, and a clock that is wrong shifts the labels of its member and
nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from ..gcounter import GCounter, WindowedCounters
from .config import OnSilence
from .fair_shares import fair_shares
from .member import Holding
from .store import Publish, Published, Quota, StoreReply, StoreRequest

_DRIFT = 0.02
"""The part of a duration by which two monotonic clocks may disagree about it, taken off a lease by its holder."""

_MARGIN = 0.1
"""Seconds added to what is waited for others: the grain of clocks."""

_SILENT_AFTER = 3.0
"""Intervals (at least one store's time limit) after which a member that gave no sign is taken for silent."""

_HUNGRY_PACE = 0.25
_ROUNDS = 3
"""How often it asks again at once, where there is something to be had."""

_KEPT_SECONDS = 90.0
"""How far the labels of another member's windows may lie from ours and still be remembered: wall clocks may be wrong by 30
seconds in either direction, and what is late is not late for long."""

_MOST_MEMBERS = 512


class _Report(msgspec.Struct, array_like=True):
    """What a member says of itself. claims, levels, needs: for each dimension. counts: of its latest two windows, the last
    of which is labelled ``epoch``. waiting: seconds its needs have been there. leaves: it grants nothing any more."""

    seq: int
    epoch: int
    claims: list[int]
    levels: list[int]
    needs: list[int]
    counts: list[list[int]]
    waiting: float = 0.0
    leaves: bool = False


@dataclass(slots=True)
class _Peer:
    """What is known of another member: its last report, and its age at ``now`` of the last answer."""

    report: _Report
    age: float = 0.0
    demands: list[int] = field(default_factory=list[int])


class ApproximateMember:
    """A `Member` with a share that follows demand.

    quotas: the limits. key: where the board is. member: a name that no other life of any process has or had. window: seconds
    over which demand is measured. interval: seconds between two questions while there is something to do. lease: seconds
    after a question that it goes on without an answer. on_silence: `OnSilence`.

    Raises `ValueError` for no quotas, an empty name, and seconds that are not above 0 and finite.
    """

    __slots__ = (
        "_allowances", "_answered_at", "_asked_at", "_counted", "_counters", "_hungry_since", "_idle_since", "_intents",
        "_interval", "_key", "_lease", "_longest_span", "_member", "_on_silence", "_peers", "_quiet", "_quotas", "_rounds",
        "_sequence", "_window",
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
        self._longest_span = max(window, *(quota.span for quota in quotas))
        self._counters = [WindowedCounters(window, 2 + math.ceil(_KEPT_SECONDS / window)) for _ in quotas]
        self._counted = [0] * len(quotas)
        """What each holding had granted in all, when it was last counted."""
        self._peers: dict[str, _Peer] = {}
        self._allowances = [0] * len(quotas)
        self._intents = [0] * len(quotas)
        """What was claimed with the question under way."""
        self._sequence = 0
        self._rounds = 0
        self._asked_at = -math.inf
        self._answered_at = -math.inf
        """When the last question that was answered was asked."""
        self._hungry_since: float | None = None
        self._idle_since: float | None = None
        self._quiet = False

    @property
    def quotas(self) -> Sequence[Quota]:
        """The shared limits."""
        return self._quotas

    def allowances(self, now: float) -> Sequence[int]:
        """Its share."""
        return self._allowances

    def valid_until(self) -> float:
        """When its lease is over, by its own clock and early by what that may be wrong; infinity where it goes on alone."""
        if self._on_silence is OnSilence.EXPAND and self._answered_at > -math.inf:
            return math.inf
        return self._answered_at + self._lease * (1.0 - _DRIFT)

    def interval(self, hungry: bool) -> float:
        """The pace of its questions; infinite while nobody asks for anything: then it has given its share back."""
        if hungry:
            return self._interval * _HUNGRY_PACE
        return math.inf if self._quiet else self._interval

    def counted(self, epoch: int) -> list[int]:
        """What all members are known to have granted in the window with this label, for each dimension."""
        return [counters.of(epoch).value() for counters in self._counters]

    # ---- the exchange -------------------------------------------------------------------------------------------------

    def exchange(self, holdings: Sequence[Holding], now: float, unix_now: float) -> StoreRequest:
        """Publish a claim, and what is wanted. A share that has become smaller is not used any more."""
        self._count(holdings, unix_now)
        self._notice(holdings, now)
        targets = self._targets(holdings, now, unix_now)
        for index, holding in enumerate(holdings):
            target = targets[index]
            self._allowances[index] = min(self._allowances[index], target)
            free = self._quotas[index].limit - sum(peer.report.claims[index] for peer in self._peers.values())
            claim = max(self._allowances[index], min(target, free))
            self._intents[index] = max(claim, min(holding.level, self._quotas[index].limit))
        self._asked_at = now
        return self._publish(self._intents, holdings, now, unix_now, leaves=False)

    def exchanged(self, reply: StoreReply, holdings: Sequence[Holding], now: float, unix_now: float) -> bool:
        """Read the board. Returns whether more than before may be had at once."""
        if not isinstance(reply, Published):
            self._unanswered(now)
            return False
        first = self._answered_at == -math.inf
        self._answered_at = self._asked_at
        self._read(reply, unix_now)
        for index, quota in enumerate(self._quotas):
            claimed = self._intents[index] + sum(peer.report.claims[index] for peer in self._peers.values())
            if claimed <= quota.limit:
                self._allowances[index] = self._intents[index]
        self._notice(holdings, now)
        targets = self._targets(holdings, now, unix_now)
        self._allowances = [min(pair) for pair in zip(self._allowances, targets, strict=True)]
        more = first or (self._hungry_since is not None and self._more_to_be_had(targets))
        self._rounds = self._rounds + 1 if more else 0
        return more and self._rounds < _ROUNDS

    def leave(self, holdings: Sequence[Holding], now: float, unix_now: float) -> StoreRequest | None:
        """Nothing is granted any more; what still counts is claimed until it has cooled. ``None``: nobody knows of it."""
        self._allowances = [0] * len(self._quotas)
        if self._sequence == 0:
            return None
        levels = [min(holding.level, quota.limit) for holding, quota in zip(holdings, self._quotas, strict=True)]
        return self._publish(levels, holdings, now, unix_now, leaves=True)

    def _publish(
        self, claims: Sequence[int], holdings: Sequence[Holding], now: float, unix_now: float, *, leaves: bool
    ) -> Publish:
        self._sequence += 1
        epoch = self._counters[0].epoch(unix_now)
        counts = [[each.of(label).of(self._member) for each in self._counters] for label in (epoch - 1, epoch)]
        waiting = 0.0 if self._hungry_since is None else max(0.0, now - self._hungry_since)
        report = _Report(
            self._sequence,
            epoch,
            list(claims),
            [holding.level for holding in holdings],
            [holding.need for holding in holdings],
            counts,
            waiting,
            leaves,
        )
        cooling = self._longest_span * (1.0 + _DRIFT) + _MARGIN
        ttl = cooling if leaves else self._lease * (1.0 + _DRIFT) + cooling
        return Publish(self._key, self._member, msgspec.json.encode(report), ttl, self._sequence)

    # ---- what is known ------------------------------------------------------------------------------------------------

    def _count(self, holdings: Sequence[Holding], unix_now: float) -> None:
        """Count what was granted since the last time."""
        for index, holding in enumerate(holdings):
            self._counters[index].increment(self._member, max(0, holding.granted - self._counted[index]), unix_now)
            self._counted[index] = max(self._counted[index], holding.granted)

    def _notice(self, holdings: Sequence[Holding], now: float) -> None:
        """Since when somebody waits, or since when nothing happens at all."""
        if any(holding.need for holding in holdings):
            self._hungry_since = now if self._hungry_since is None else self._hungry_since
        else:
            self._hungry_since = None
        if self._hungry_since is not None or any(holding.level for holding in holdings):
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now

    def _read(self, board: Published, unix_now: float) -> None:
        """Take in what the others have published. What is no report is passed over."""
        found: dict[str, _Peer] = {}
        for counters in self._counters:
            counters.advance(unix_now)
        for name in sorted(board.reports)[:_MOST_MEMBERS]:
            age, content = board.reports[name]
            report = None if name == self._member else self._parsed(content)
            if report is None:
                continue
            known = self._peers.get(name)
            if known is not None and known.report.seq > report.seq:
                report = known.report
            found[name] = peer = _Peer(report, age)
            if self._on_silence is OnSilence.EXPAND and self._is_silent(peer):
                del found[name]
                continue
            self._merge(name, report)
            peer.demands = self._demands_of(name, report)
        self._peers = found

    def _merge(self, name: str, report: _Report) -> None:
        for label, counts in zip((report.epoch - 1, report.epoch), report.counts, strict=True):
            for counters, count in zip(self._counters, counts, strict=True):
                counters.merge(label, GCounter.from_dict({name: count}))

    def _demands_of(self, name: str, report: _Report) -> list[int]:
        """What a member wants of each dimension: the more of what its last two windows used, and a little. While it waits,
        twice what it has, and what it waits for: demand that is there shows within a few exchanges, and a burst does not
        take from the others what it cannot use for long."""
        demands: list[int] = []
        for index, quota in enumerate(self._quotas):
            used = report.levels[index]
            if quota.span:
                counters = self._counters[index]
                used = max(used, counters.of(report.epoch - 1).of(name), counters.of(report.epoch).of(name))
            waits_for = report.needs[index]
            wanted = 2 * max(used, report.claims[index]) + waits_for if waits_for else used + used // 16 + 1
            demands.append(0 if report.leaves else min(quota.limit, wanted))
        return demands

    def _is_silent(self, peer: _Peer) -> bool:
        return peer.age > self._silent_after()

    def _silent_after(self) -> float:
        return max(1.0, self._interval) * _SILENT_AFTER

    def _parsed(self, content: bytes) -> _Report | None:
        """A report, its amounts within the limits; ``None`` for what is none."""
        try:
            report = _DECODER.decode(content)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None
        count = len(self._quotas)
        lists = (report.claims, report.levels, report.needs, *report.counts)
        if len(report.counts) != 2 or any(len(each) != count for each in lists):
            return None
        for index, quota in enumerate(self._quotas):
            for each in lists:
                each[index] = min(max(each[index], 0), quota.limit)
        if not 0.0 <= report.waiting < math.inf:
            report.waiting = 0.0
        return report

    # ---- what follows -------------------------------------------------------------------------------------------------

    def _targets(self, holdings: Sequence[Holding], now: float, unix_now: float) -> list[int]:
        """Its fair share of each dimension, as every member that knows the same computes it."""
        self._quiet = self._idle_since is not None and now - self._idle_since >= self._longest_span
        if self._quiet:
            return [0] * len(self._quotas)
        epoch = self._counters[0].epoch(unix_now)
        waiting = 0.0 if self._hungry_since is None else max(0.0, now - self._hungry_since)
        levels, needs = [each.level for each in holdings], [each.need for each in holdings]
        mine = _Report(self._sequence, epoch, self._allowances, levels, needs, [], waiting)
        members = {self._member: _Peer(mine, 0.0, self._demands_of(self._member, mine))}
        members |= {name: peer for name, peer in self._peers.items() if not (peer.report.leaves or self._is_silent(peer))}
        return [self._target(index, members) for index in range(len(self._quotas))]

    def _target(self, index: int, members: dict[str, _Peer]) -> int:
        # What the silent and those that leave claim is theirs until the store forgets it.
        limit = self._quotas[index].limit
        limit -= sum(peer.report.claims[index] for name, peer in self._peers.items() if name not in members)
        limit = max(0, limit)
        names = sorted(members)
        shares = dict(zip(names, fair_shares(limit, [members[name].demands[index] for name in names]), strict=True))
        # A head larger than its member's share would wait for ever: the one that has waited longest gets what it needs.
        lacking = [name for name in names if members[name].report.needs[index] > shares[name]]
        if lacking:
            first = max(lacking, key=lambda name: (members[name].report.waiting, name))
            need = min(limit, members[first].report.needs[index])
            others = [name for name in names if name != first]
            rest = fair_shares(limit - need, [members[name].demands[index] for name in others])
            shares = dict(zip(others, rest, strict=True)) | {first: need if others else limit}
        return shares[self._member]

    def _more_to_be_had(self, targets: Sequence[int]) -> bool:
        for index, quota in enumerate(self._quotas):
            free = quota.limit - sum(peer.report.claims[index] for peer in self._peers.values())
            if min(targets[index], free) > self._allowances[index]:
                return True
        return False

    def _unanswered(self, now: float) -> None:
        """No answer: its share stays as it is. Where it is to go on alone, all the limit is its own after a while."""
        self._rounds = 0
        since = now - self._answered_at
        if self._on_silence is OnSilence.EXPAND and self._answered_at > -math.inf and since > self._silent_after():
            self._allowances = [quota.limit for quota in self._quotas]
            self._peers = {}


def overspend_bound(limit: int, parts: int) -> int:
    """By how much all members together may exceed ``limit`` in any window, in tokens (or requests), where they have fallen
    into so many ``parts`` that do not share a board; 0 for one."""
    return limit * max(0, parts - 1)


_DECODER = msgspec.json.Decoder(_Report)
