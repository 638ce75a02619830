"""The rights of one shared limit, as the document that its members replace in turn (spec 4.6.3).

Every unit of every limit is a right, and every right is at one place: with a member, free for whoever asks first, or in a
lot that waits (its last holder is gone, and may have spent it a moment ago). The places always add up to the limit; a
document that does not is no document.

                    visit: grant                        leave: what cools
       free ──────────────────────────▶ held ──────────────────────────▶ lot
         ▲ ◀──────────────────────────   │                                │
         │          visit: give          │ silent for `Terms.reissue`     │ as old as its wait
         └───────────────────────────────┴────────────────────────────────┘  expire

Only what a member has not spent for a span may be given away, so whoever is granted a right may spend it at once. What a
member that falls silent holds comes back after its lease, the drift margin and one span more: by then it has stopped, and
what it spent last has cooled.

No clock is shared. The document says of each account and lot how *old* it is: for how long, at least, it has been there.
Each member adds what its own monotonic clock has seen pass (`Ages`), and all of them are lower bounds of the same age, so
the highest counts. A wall clock that jumps, the store's in a fail-over for one, reissues nothing early; and rights that
nobody watches stay where they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Final

import msgspec

from .fair_shares import Demand, behind_a_lack, fair_shares
from .store import Quota

DRIFT: Final = 0.02
"""The part of any duration by which two monotonic clocks may disagree about it (each may be wrong by half of that)."""

MARGIN: Final = 0.1
"""Seconds added to that: the grain of clocks."""

LONGEST_NAME: Final = 100
"""Characters that a member's name may have at most."""

_MOST_BYTES: Final = 1 << 19
_MOST_ACCOUNTS: Final = 256
_MOST_LOTS: Final = 64

_MOST_FLOORS: Final = 32
"""Of how many waiting heads the needs are looked at, those that have waited longest."""

_LONGEST_WAIT: Final = 86_400.0
"""Seconds. What somebody else's configuration asks to wait is believed this far."""

_TTL_BEYOND: Final = 600.0
"""Seconds that a document outlives all that anybody may hold by it: a store's clock that jumps by less forgets nothing."""

_Amount = Annotated[int, msgspec.Meta(ge=0)]
_Seconds = Annotated[float, msgspec.Meta(ge=0)]


class Terms(msgspec.Struct, frozen=True):
    """What all members of a document must agree on: the limits (field, limit, span in seconds), a lease, and for how many
    seconds what runs at a time may run on after its member's lease or its leave."""

    limits: tuple[tuple[str, _Amount, _Seconds], ...]
    lease: _Seconds
    runs_on: _Seconds = 0.0

    @staticmethod
    def of(quotas: Sequence[Quota], lease: float, runs_on: float = 0.0) -> Terms:
        """The terms for these quotas."""
        return Terms(tuple((quota.field, quota.limit, quota.span) for quota in quotas), lease, runs_on)

    @property
    def span(self) -> float:
        """The longest span: after so many seconds without a grant, nothing counts in any ledger."""
        return max(self.runs_on, *(span for _, _, span in self.limits))

    @property
    def cooling(self) -> float:
        """Seconds until what was spent just now may be spent by somebody else, by that one's clock."""
        return self.span * (1 + DRIFT) + MARGIN

    @property
    def reissue(self) -> float:
        """Seconds until the rights of a member that has just visited, and never will again, may be spent by another."""
        return (self.lease + self.span) * (1 + DRIFT) + MARGIN

    @property
    def ttl(self) -> float:
        """Seconds after which a document that nobody replaces may be forgotten: nobody holds anything by it any more."""
        return 2 * self.reissue + _TTL_BEYOND


class Account(msgspec.Struct):
    """One member's part. Lists have one number for each limit.

    seq: the member's count of its visits; the last one is this. age: seconds since that visit, at least. held: its rights.
    demand: how many it would use. level: how many of them counted in its ledger. need: what the head of its queue costs,
    where that waits for more rights. since: its place among all that wait (the lower, the longer), 0 where nobody waits.
    """

    seq: _Amount
    age: _Seconds
    held: list[_Amount]
    demand: list[_Amount]
    level: list[_Amount]
    need: list[_Amount]
    since: _Amount


class Lot(msgspec.Struct):
    """Rights that wait: ``amounts`` are free once the lot is ``wait`` seconds old. id: the member that left it, or the era
    that began with it. age: seconds it has been, at least."""

    id: str
    age: _Seconds
    wait: _Seconds
    amounts: list[_Amount]


@dataclass(frozen=True, slots=True)
class Visit:
    """What a member says of itself when it visits. Lists have one number for each limit.

    seq, demand, level, need: as in its `Account`. anew: whether its head is another one than at its last visit.
    """

    seq: int
    demand: Sequence[int]
    level: Sequence[int]
    need: Sequence[int]
    anew: bool


@dataclass(frozen=True, slots=True)
class Moves:
    """What a visit comes to. Lists have one number for each limit.

    give, grant: what the member hands back and what it gets; of each limit one of them is 0. kept_before, kept_after: what
    it holds and must not spend, because others wait for it: before and after these moves. short: how much less it has, after
    them, than it would use and is entitled to. others_short: whether any other member is, and the free rights do not do.
    """

    give: list[int]
    grant: list[int]
    kept_before: list[int]
    kept_after: list[int]
    short: list[int]
    others_short: bool

    @staticmethod
    def nothing(dimensions: int) -> Moves:
        """No moves at all."""
        return Moves.all_of([0] * dimensions)

    @staticmethod
    def all_of(held: list[int]) -> Moves:
        """Everything is handed back."""
        nothing = [0] * len(held)
        return Moves(held, nothing, nothing, nothing, nothing, False)


class RightsBank(msgspec.Struct):
    """The document. Whoever has decoded or founded one may change it; the next who reads it sees the outcome.

    born: its era, different for each document that was founded. heir: whether it was founded in the knowledge that there had
    been another; then nobody has been granted anything before all rights of that one were void. serial: counts the visits.
    """

    born: str
    heir: bool
    terms: Terms
    serial: _Amount
    free: list[_Amount]
    lots: list[Lot]
    accounts: dict[str, Account]

    @staticmethod
    def found(terms: Terms, born: str, wait: float) -> RightsBank:
        """The first document of an era.

        wait: seconds before anything is granted, where there is reason to think that others hold rights of another era.
        """
        limits = [limit for _, limit, _ in terms.limits]
        if wait <= 0:
            return RightsBank(born, False, terms, 0, limits, [], {})
        return RightsBank(born, True, terms, 0, [0] * len(limits), [Lot(born, 0.0, wait, limits)], {})

    @staticmethod
    def decode(document: bytes, terms: Terms) -> RightsBank | None:
        """What stands in a document. ``None`` for what is none, does not add up, or was made for other terms."""
        bank = _parsed(document)
        return bank if bank is not None and bank.terms == terms and bank._adds_up() else None

    def encode(self) -> bytes:
        """The document."""
        return msgspec.json.encode(self)

    def copy(self) -> RightsBank:
        """The same once more, to be changed."""
        return _decode(msgspec.json.encode(self))

    def expire(self) -> None:
        """Free what has waited long enough: lots, and the rights of members that have been silent."""
        for lot in [lot for lot in self.lots if lot.age >= lot.wait]:
            self.lots.remove(lot)
            self._free(lot.amounts)
        silent = [name for name, account in self.accounts.items() if account.age >= self.terms.reissue]
        for name in silent:
            self._free(self.accounts.pop(name).held)

    def visit(self, name: str, visit: Visit) -> Moves | None:
        """Hear a member, renew its lease, and move rights towards everybody's `targets`. ``None``: no room for it."""
        nothing = [0] * len(self.free)
        account = self.accounts.get(name)
        if account is None:
            if len(self.accounts) >= _MOST_ACCOUNTS:
                return None
            account = self.accounts[name] = Account(0, 0.0, list(nothing), nothing, nothing, nothing, 0)
        self.serial += 1
        account.seq, account.age = visit.seq, 0.0
        limits = self.terms.limits
        account.demand = [min(demand, limit) for demand, (_, limit, _) in zip(visit.demand, limits, strict=True)]
        account.level = [min(level, limit) for level, (_, limit, _) in zip(visit.level, limits, strict=True)]
        account.need = [min(need, limit) for need, (_, limit, _) in zip(visit.need, limits, strict=True)]
        if not any(account.need):
            account.since = 0
        elif visit.anew or not account.since:
            account.since = self.serial
        return self._move(name, account)

    def leave(self, name: str, level: Sequence[int]) -> None:
        """Close an account. What cannot be spent again yet (``level``) waits in a lot; the rest is free."""
        account = self.accounts.pop(name, None)
        if account is None:
            return
        cooling = [min(held, counts) for held, counts in zip(account.held, level, strict=True)]
        self._free([held - cools for held, cools in zip(account.held, cooling, strict=True)])
        if any(cooling):
            if len(self.lots) >= _MOST_LOTS:  # it waits with the youngest of the others, as long as the longer of the two
                other = self.lots.pop()
                cooling = [mine + its for mine, its in zip(cooling, other.amounts, strict=True)]
                wait = max(self.terms.cooling, other.wait)
            else:
                wait = self.terms.cooling
            self.lots.append(Lot(name, 0.0, wait, cooling))

    def targets(self, index: int) -> dict[str, int]:
        """How many rights of one limit each member that is not silent should hold.

        Max-min fairness over the demands. What nobody demands is spread evenly, with one part left for who comes next. A
        head that waits gets what it needs even where that is above its member's share, those that have waited longest first.
        Where it holds less than that, those behind it let go of what cools first, instead of serving their own heads again.
        """
        live = {name: self.accounts[name] for name in sorted(self.accounts) if self.accounts[name].age <= self.terms.lease}
        amount = self.free[index] + sum(account.held[index] for account in live.values())
        waiting = [name for name, account in live.items() if 0 < account.need[index] <= amount]
        waiting = sorted(waiting, key=lambda name: live[name].since)[:_MOST_FLOORS]
        asked = {name: Demand(amount=account.demand[index]) for name, account in live.items()}
        shares = _divided(amount, asked)
        for place, name in enumerate(waiting):
            account = live[name]
            need = account.need[index]
            asked[name] = replace(asked[name], need=need, waiting=-float(place), lacks=account.held[index] < need)
        behind = behind_a_lack(amount, list(asked.values()))
        ahead = {name for number, name in enumerate(asked) if number not in behind}
        left = amount
        for name in [name for name in waiting if name in ahead]:
            account, floor = live[name], asked[name].need
            # Who has not used its share, but has less left of it than one head costs, may go above it by less than that:
            # so what remains of all shares serves heads, one after the other.
            if account.level[index] < shares[name] and account.level[index] + floor <= left:
                floor += account.level[index]
            if floor > left:
                floor = 0
            left -= floor
            asked[name] = replace(asked[name], need=floor)
        return _divided(amount, asked)

    def _move(self, name: str, account: Account) -> Moves:
        give, grant, before, after, short = ([0] * len(self.free) for _ in range(5))
        others_short = False
        for index in range(len(self.free)):
            targets = self.targets(index)
            before[index] = self._kept(name, index, targets)
            cooled = max(0, account.held[index] - account.level[index])
            below = targets[name] - account.held[index]
            ahead = self._lacking_ahead(account, index, targets) - self.free[index]
            grant[index] = max(0, min(below, -ahead))
            give[index] = min(max(0, -below), cooled)
            lacks = account.level[index] + account.need[index] - account.held[index] - grant[index]
            if account.need[index] and lacks > 0:
                # What is left does not do for its head, but may do for one that has waited longer.
                give[index] = max(give[index], min(cooled, ahead))
            moved = grant[index] - give[index]
            account.held[index] += moved
            self.free[index] -= moved
            after[index] = self._kept(name, index, targets)
            short[index] = self._shortage(name, index, targets)
            others = sum(self._shortage(other, index, targets) for other in targets if other != name)
            others_short = others_short or others > self.free[index] - give[index]
        return Moves(give, grant, before, after, short, others_short)

    def _lacking_ahead(self, account: Account, index: int, targets: Mapping[str, int]) -> int:
        """How much those lack whose heads have waited longer than this member's, and are within their targets."""
        lacking = 0
        for name, target in targets.items():
            other = self.accounts[name]
            if other.need[index] and (not account.since or other.since < account.since):
                wants = other.level[index] + other.need[index]
                lacking += max(0, wants - other.held[index]) if wants <= target else 0
        return lacking

    def _shortage(self, name: str, index: int, targets: Mapping[str, int]) -> int:
        account = self.accounts[name]
        return max(0, min(targets[name], account.demand[index]) - account.held[index])

    def _kept(self, name: str, index: int, targets: Mapping[str, int]) -> int:
        """How much of what a member holds above its target others wait for: it is not spent again, so that it can be given.

        Those above their targets keep back together just what is wanted, each in proportion.
        """
        wanted = sum(self._shortage(other, index, targets) for other in targets) - self.free[index]
        beyond = {other: max(0, self.accounts[other].held[index] - target) for other, target in targets.items()}
        total = sum(beyond.values())
        if wanted <= 0 or not beyond[name]:
            return 0
        wanted = min(wanted, total)
        passed = sum(beyond[other] for other in beyond if other < name)
        return (passed + beyond[name]) * wanted // total - passed * wanted // total

    def _free(self, amounts: Sequence[int]) -> None:
        self.free = [free + amount for free, amount in zip(self.free, amounts, strict=True)]

    def _adds_up(self) -> bool:
        """Whether every right is at one place, and nothing is out of bounds."""
        limits = [limit for _, limit, _ in self.terms.limits]
        places = [self.free, *(lot.amounts for lot in self.lots), *(account.held for account in self.accounts.values())]
        said = [said for account in self.accounts.values() for said in (account.demand, account.level, account.need)]
        if any(len(amounts) != len(limits) for amounts in (*places, *said)):
            return False
        longest = max(self.terms.reissue, _LONGEST_WAIT)
        return (
            [sum(amounts) for amounts in zip(*places, strict=True)] == limits
            and all(amount <= limit for amounts in said for amount, limit in zip(amounts, limits, strict=True))
            and len(self.accounts) <= _MOST_ACCOUNTS
            and len(self.lots) <= _MOST_LOTS
            and all(lot.age <= lot.wait <= longest for lot in self.lots)
            and all(account.age <= self.terms.reissue for account in self.accounts.values())
        )


class Ages:
    """How old the accounts and lots of a document are, as far as one member can vouch for it. Its own monotonic clock runs
    on between two documents."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], tuple[float, float]] = {}

    def see(self, bank: RightsBank, now: float) -> None:
        """A document has come at ``now``: what is new in it is at least as old as it says, what is known is older."""
        known, self._known = self._known, {}
        for key, item in _items(bank).items():
            since, age = known.get(key, (now, 0.0))
            self._known[key] = (now, item.age) if item.age >= age + now - since else (since, age)

    def tell(self, bank: RightsBank, now: float) -> None:
        """Let the document that was seen last say how old everything in it is at ``now``."""
        for key, item in _items(bank).items():
            since, age = self._known[key]
            item.age = min(max(item.age, age + now - since), item.wait if isinstance(item, Lot) else bank.terms.reissue)


def doubt_about(document: bytes, terms: Terms) -> float:
    """Seconds after which nobody holds anything by a document that was not made for these terms, or by one before it."""
    bank = _parsed(document)
    return terms.reissue if bank is None else max(terms.reissue, min(bank.terms.reissue, _LONGEST_WAIT))


def _items(bank: RightsBank) -> dict[tuple[str, int], Account | Lot]:
    """What has an age, by what tells it from everything else there ever was: an account by its last visit, a lot by who left
    it (who visits no more: -1)."""
    accounts: dict[tuple[str, int], Account | Lot] = {(name, a.seq): a for name, a in bank.accounts.items()}
    return accounts | {(lot.id, -1): lot for lot in bank.lots}


def _divided(amount: int, asked: Mapping[str, Demand]) -> dict[str, int]:
    """The fair shares of ``amount``; of what nobody asks for, one part is left for who comes next."""
    return dict(zip(asked, fair_shares(amount, [*asked.values(), Demand()]), strict=False))


def _parsed(document: bytes) -> RightsBank | None:
    if len(document) > _MOST_BYTES:
        return None
    try:
        bank = _decode(document)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return bank if bank.terms.limits else None


_decode: Final = msgspec.json.Decoder(RightsBank).decode
