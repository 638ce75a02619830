"""One member of a limit that is held in rights: it may spend what it holds, and nobody else can hold the same (spec 4.6.3).

The rights stand in one document in the store, `RightsBank`. A member reads it, and where it has something to give or to get,
or its lease is to be renewed, asks to replace the version it knows by the next one. The store replaces a document only while
that version stands, so of all that members ask of one version at most one thing happens, and what comes late, twice or never
does no harm:

- What a question gives away is not spent from the moment it is asked; what it takes is not spent before the answer.
- A question without an answer may have been heard or not, or may still be on its way. It is asked again, word for word,
  until another version stands. That one says by the member's own account which of its visits were heard.
- The lease runs from the moment of the question, on the member's own clock. When it is over nothing is granted any more; the
  others take the rights back only when it is over by their clocks too, and a span has passed since.

A store may also forget. Where the document is gone, is an older one, or is another's who did not know of this one, nobody
can say who holds what. A member that notices drops its rights and founds a new document, by which nothing is granted until
all that could be held by any earlier one is over (`RightsBank.heir`). What cannot be helped: until the first who knows
better has come, others believe what they find. So a process that has never seen a document, and finds a store that has just
lost one, starts at once. And no version may come twice in a store's life, or the very question that was meant for the first
could be heard at the second.

A limit may have fewer rights than members that wait for one. Then those that have cooled first go to the head that has
waited longest, and their last holder asks anew, behind the others (`RightsBank.targets`). Of ``n`` members whose heads wait,
each is served within ``1 + n`` spans, and within ``1 + ceil(n / limit)`` where all heads cost 1; and some intervals for the
questions that it takes. With a span of 0, a span is as long as the longest that runs.

It is taken for granted that a monotonic clock runs while its process may run, right to one part in a hundred; and that what
is counted at a time (a span of 0) does not run on for longer than ``runs_on`` seconds, or the longest span where that is
more, after its member's lease or its leave.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from .member import Holding
from .rights_bank import LONGEST_NAME, Account, Ages, Moves, RightsBank, Terms, Visit, doubt_about
from .store import Quota, StoreReply, StoreRequest, Swap, Swapped

_ROUNDS = 6
"""Questions in a row, each asked at once after the other's answer."""

_PACES_PER_LEASE = 4.0
"""How often in a lease a member asks at least, so that an answer or two may fail."""

_HUNGRY_PACE = 0.25
"""The pace of a member that may get something, as a part of the ordinary one."""

_SPREAD = 0.2
"""How far the paces of members lie apart, as a part: who asks in step is in each other's way every time."""

_LOOKS_PER_LEASE = 3.0
"""How often in a lease an idle member asks, so that it goes on."""

_IDLE_LEASES = 12.0
"""A member that was idle for a span, and so many leases, gives everything back and visits no more."""

_WATCHES_PER_TTL = 4.0
"""How often in the document's time to live such a member sees to it that it is not forgotten."""

_PEAKS_PER_SPAN = 16.0
"""A demand is what counted lately: in one such part of the span, or two."""

_GROWTH = 4
"""How many times as much is asked for, where what was asked for before is spent and more is needed."""


class EscrowMember:
    """A `Member` that never exceeds the limits, whatever is lost. ``quotas``: the limits.

    key: where the document is. member: a name that no other life of any process has or had. interval: seconds between two
    questions while there is something to do. lease: seconds after a question that it goes on without another answer.

    Raises `ValueError` for no quotas, a name that is empty, too long or not printable, and seconds that are not above 0 and
    finite.
    """

    __slots__ = (
        "_ages",
        "_answered",
        "_bank",
        "_busy_at",
        "_demands",
        "_doubt",
        "_era",
        "_gone",
        "_granted",
        "_heard",
        "_heard_granted",
        "_held",
        "_is_short",
        "_kept",
        "_key",
        "_lease",
        "_lease_until",
        "_looked",
        "_member",
        "_now",
        "_pace",
        "_pending",
        "_quotas",
        "_replaced_at",
        "_rounds",
        "_seq",
        "_terms",
        "_version",
    )  # fmt: skip

    def __init__(
        self, quotas: Sequence[Quota], *, key: str, member: str, interval: float, lease: float, runs_on: float = 0.0
    ) -> None:
        if not quotas:
            raise ValueError("quotas: there are none, so there is nothing to share")
        if not 1 <= len(member) <= LONGEST_NAME or not member.isprintable():
            raise ValueError(f"member: {member!r} is not 1 to {LONGEST_NAME} printable characters")
        for name, value in (("interval", interval), ("lease", lease)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name}: {value!r} is outside 0 < {name} < infinity (seconds)")
        self._quotas = tuple(quotas)
        self._key = key
        self._member = member
        self._lease = lease
        if not 0 <= runs_on < math.inf:
            raise ValueError(f"runs_on: {runs_on!r} is outside 0 <= runs_on < infinity (seconds)")
        self._terms = Terms.of(quotas, lease, runs_on)
        apart = zlib.crc32(member.encode("utf-8", "replace")) / 0xFFFFFFFF
        self._pace = min(interval, lease / _PACES_PER_LEASE) * (1 - _SPREAD * apart)
        self._now = -math.inf
        self._demands = [_Demand(quota, self._pace) for quota in quotas]
        self._granted = 0  # in all dimensions together, as told last
        self._busy_at: float | None = None  # when last anything counted, was granted or waited
        self._gone = False

        # What is known of the document.
        self._looked = False  # whether the store has ever answered
        self._answered = True  # whether it answered last
        self._version = 0
        self._replaced_at = -math.inf  # when that was first seen
        self._bank: RightsBank | None = None  # what stands there; None: nothing, or nothing to be trusted
        self._era: str | None = None  # of the last one that was trusted
        self._doubt = 0.0  # seconds that a new document has to wait for what others may hold by earlier ones
        self._ages = Ages()

        # What is ours.
        self._seq = 0  # counts the visits asked for
        self._heard = 0  # the last one known to have happened
        self._heard_granted = -1  # `_granted` when that was asked
        self._held = [0] * len(quotas)  # as of that one
        self._lease_until = -math.inf
        self._pending: _Pending | None = None  # asked, and not known to have happened or not
        self._kept = [0] * len(quotas)  # not to be spent of what is held, since others wait for it
        self._is_short = True  # whether there is anything to get, by what is known
        self._rounds = 0

    @property
    def quotas(self) -> Sequence[Quota]:
        """The shared limits, one for each dimension."""
        return self._quotas

    def allowances(self, now: float) -> Sequence[int]:
        """How much may count in each dimension at ``now``: the rights held, nothing once the lease is over."""
        if self._advance(now) >= self._lease_until or self._gone:
            return [0] * len(self._held)
        gives = self._pending.give if self._pending is not None else [0] * len(self._held)
        return [max(0, held - give - kept) for held, give, kept in zip(self._held, gives, self._kept, strict=True)]

    def valid_until(self) -> float:
        """The end of the lease. Where there is none: infinity, or if the store did not answer, minus infinity."""
        if self._lease_until > -math.inf:
            return self._lease_until
        return math.inf if self._answered else -math.inf

    def interval(self, hungry: bool) -> float:
        """Seconds from one answer to the next question. Who is idle asks as often as its lease needs, and in the end hardly
        ever; who is hungry, and may get something, more often than others."""
        if hungry:
            return self._pace * (_HUNGRY_PACE if self._is_short else 1.0)
        if self._lease_until == -math.inf and self._rests():
            return self._terms.ttl / _WATCHES_PER_TTL
        if any(demand.amount for demand in self._demands):
            return self._pace
        return self._lease / _LOOKS_PER_LEASE

    def exchange(self, holdings: Sequence[Holding], now: float, unix_now: float) -> StoreRequest:
        """The next question: a visit, the last one again while nobody knows what became of it, or only a look."""
        self._listen(holdings, now)
        if self._pending is None and self._looked and not self._gone:
            draft = self._draft(holdings)
            if draft.is_worth_it or self._now >= self._replaced_at + self._terms.ttl / (2 * _WATCHES_PER_TTL):
                self._seq += 1
                question = Swap(self._key, self._version, draft.bank.encode(), self._terms.ttl)
                self._pending = _Pending(question, self._seq, self._now, draft.moves.give, self._granted)
                self._kept = draft.moves.kept_after
        if self._pending is not None:
            return self._pending.question
        return Swap(self._key, self._version, None, self._terms.ttl)

    def exchanged(self, reply: StoreReply, holdings: Sequence[Holding], now: float, unix_now: float) -> bool:
        """Take the answer. Returns whether to ask again at once: by what stands there now there is something to do."""
        self._listen(holdings, now)
        self._answered = isinstance(reply, Swapped) and self._settle(reply)
        if not self._answered:
            self._rounds = 0
            return False
        self._looked = True
        if self._gone:
            return self._bank is not None and self._member in self._bank.accounts
        draft = self._draft(holdings)
        self._kept = draft.moves.kept_before
        self._is_short = any(draft.moves.short)
        most = _ROUNDS if self._bank is not None else 1  # those who disagree about the terms found one after the other
        self._rounds = self._rounds + 1 if draft.is_worth_it and self._rounds < most else 0
        return self._rounds > 0

    def leave(self, holdings: Sequence[Holding], now: float, unix_now: float) -> StoreRequest | None:
        """Give everything back; there is no allowance any more. What still cools is handed over, to be free when it has.

        ``None`` where there is nothing (more) to give back. Somebody else may have been quicker: while `exchanged` returns
        True, this has another question. What is not given back comes to the others as from a member that died.
        """
        now = self._advance(now)
        self._gone = True
        if self._pending is None or not self._pending.leaves:
            if self._bank is None or (self._pending is None and self._member not in self._bank.accounts):
                return None
            bank = self._known_bank(self._bank)
            bank.leave(self._member, [holding.level for holding in holdings])
            question = Swap(self._key, self._version, bank.encode(), self._terms.ttl)
            self._pending = _Pending(question, self._seq, now, self._held, self._granted, leaves=True)
        return self._pending.question

    # ---- what an answer says -------------------------------------------------------------------------------------------

    def _settle(self, reply: Swapped) -> bool:
        """Learn what stands in the store, and from that what became of our question. ``False``: the reply does not say."""
        asked, known = self._pending, self._version
        if reply.version == known and (asked is not None or self._looked):
            return asked is None  # only another version says what became of a question
        self._pending = None
        self._version = reply.version
        self._replaced_at = self._now
        bank = RightsBank.decode(reply.document, self._terms) if reply.version > 0 else None
        if bank is None and reply.version == 0 and self._era is None:
            return True  # nobody can have been here
        if bank is None or not self._is_trusted(bank, asked, is_older=reply.version < known):
            self._drop()
            self._bank = None
            self._doubt = max(self._doubt, doubt_about(reply.document, self._terms))
        else:
            self._bank = bank
            self._era = bank.born
            self._doubt = 0.0
            self._ages.see(bank, self._now)
        return True

    def _is_trusted(self, bank: RightsBank, asked: _Pending | None, is_older: bool) -> bool:
        """Whether a document says what is so: then learn from our own account which of our visits happened."""
        if self._doubt or (self._era is not None and bank.born != self._era):
            if not bank.heir or bank.born == self._era:
                return False  # whoever founded it did not know what we know
        elif is_older:
            return False  # the store has forgotten what it said
        account = bank.accounts.get(self._member)
        if account is None:  # given back; or taken from us, after we were not heard of for so long; or never there
            self._drop()
        elif asked is not None and account.seq == asked.seq:
            self._heard = asked.seq
            self._heard_granted = asked.granted
            self._held = account.held
            self._lease_until = asked.asked_at + self._lease
        elif account.seq != self._heard or account.held != self._held:
            return False  # the store has forgotten something of ours
        return True

    def _drop(self) -> None:
        """We hold nothing."""
        self._held = [0] * len(self._held)
        self._lease_until = -math.inf

    # ---- what to ask ---------------------------------------------------------------------------------------------------

    def _draft(self, holdings: Sequence[Holding]) -> _Draft:
        """The next version of the document, if we were to visit now, and whether that is worth it."""
        founds = self._bank is None
        if self._bank is None:
            bank = RightsBank.found(self._terms, f"{self._member}\n{self._seq + 1}", self._doubt)
        else:
            bank = self._known_bank(self._bank)
        said = None if self._bank is None else self._bank.accounts.get(self._member)
        if self._rests():
            bank.leave(self._member, [0] * len(holdings))
            gives = Moves.nothing(len(holdings)) if said is None else Moves.all_of(said.held)
            return _Draft(bank, gives, founds or said is not None)
        levels = [holding.level for holding in holdings]
        amounts = [demand.amount for demand in self._demands]
        needs = [demand.need for demand in self._demands]
        anew = self._granted != self._heard_granted
        moves = bank.visit(self._member, Visit(self._seq + 1, amounts, levels, needs, anew))
        if moves is None:
            return _Draft(bank, Moves.nothing(len(holdings)), False)
        return _Draft(bank, moves, said is None or self._is_worth_it(said, bank.accounts[self._member], moves))

    def _is_worth_it(self, said: Account, says: Account, moves: Moves) -> bool:
        """Whether a visit changes anything that matters now: if not, a look will do, which is in nobody's way."""
        if self._now >= self._lease_until - self._lease / 2:
            return True
        if moves.others_short and (any(moves.give) or said.since != says.since):
            return True
        for index, short in enumerate(moves.short):
            if moves.grant[index] and said.held[index] < says.demand[index]:
                return True
            if short and (said.demand[index], said.need[index]) != (says.demand[index], says.need[index]):
                return True
        return False

    def _known_bank(self, bank: RightsBank) -> RightsBank:
        """What is known to stand in the store, to be changed, as old as it is by now."""
        bank = bank.copy()
        self._ages.tell(bank, self._now)
        bank.expire()
        return bank

    def _listen(self, holdings: Sequence[Holding], now: float) -> None:
        """Note what this process uses and waits for."""
        self._advance(now)
        granted = sum(holding.granted for holding in holdings)
        if self._busy_at is None or granted != self._granted or any(each.level or each.need for each in holdings):
            self._busy_at = self._now
        self._granted = granted
        for demand, holding in zip(self._demands, holdings, strict=True):
            demand.observe(holding, self._now)

    def _rests(self) -> bool:
        """Whether it has been idle for so long that it need not be a member."""
        idle = 0.0 if self._busy_at is None else self._now - self._busy_at
        return idle >= max(self._terms.span, _IDLE_LEASES * self._lease)

    def _advance(self, now: float) -> float:
        self._now = max(self._now, now)
        return self._now


class _Demand:
    """How much of one limit a process would use: what counted lately, and more while something waits."""

    __slots__ = (
        "_before",
        "_peak",
        "_period",
        "_quota",
        "_since",
        "_step",
        "_surge",
        "_surged_at",
        "_surged_from",
        "amount",
        "need",
    )

    def __init__(self, quota: Quota, pace: float) -> None:
        self._quota = quota
        self._period = max(quota.span / _PEAKS_PER_SPAN, 2 * pace)
        self._step = pace / 8  # at most so often a surge goes down: several exchanges may come at once
        self._since = -math.inf
        self._peak = self._before = 0
        self._surge = 0
        self._surged_at = -math.inf
        self._surged_from = 0
        self.amount = 0
        self.need = 0

    def observe(self, holding: Holding, now: float) -> None:
        """What counts and what waits at ``now``.

        What can never fit is not needed. As long as something is, several times as much is asked for each time that what was
        asked for is spent. So who could use everything has it soon, and who lacks little takes little from the others.
        """
        if now >= self._since + self._period:
            self._before = self._peak if now < self._since + 2 * self._period else 0
            self._peak = 0
            self._since = now
        self._peak = max(self._peak, holding.level)
        self.need = holding.need if holding.need <= self._quota.limit else 0
        if self.need:
            if holding.granted - self._surged_from >= self._surge:
                self._surge *= _GROWTH
                self._surged_from = holding.granted
        elif now >= self._surged_at + self._step:
            self._surge //= 2
            self._surged_at = now
        self._surge = min(max(self._surge, self.need), self._quota.limit)
        self.amount = min(max(self._peak, self._before) + self._surge, self._quota.limit)


@dataclass(frozen=True, slots=True)
class _Pending:
    """A visit that was asked for. give: what it offers. granted: how much had been granted in all."""

    question: Swap
    seq: int
    asked_at: float
    give: list[int]
    granted: int
    leaves: bool = False


@dataclass(frozen=True, slots=True)
class _Draft:
    """A visit that could be asked for."""

    bank: RightsBank
    moves: Moves
    is_worth_it: bool
