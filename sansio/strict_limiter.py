"""A rate limiter whose limits are counted in a store, once for all processes, so that they are exact.

It grants out of a **lot**: permits that the store has charged already, fetched in one round trip, the head's and a few more
like the last ones. So most requests are granted in one step here. What of a lot is not used soon is given back: a permit
that lay around for longer than the delivery guard allows would reach the provider in another window than it was charged in.
Half of the guard is for lying around, counted from before the store was asked; the other half is for getting there.

A head that the lot does not cover makes the limiter ask (it is an `Exchanging`): `reserve` answers `Wait`, and once the
store has granted, the same `reserve` succeeds. How much more or less was used than charged is told with the next question,
or soon after with one of its own.

Whether a question was done whose answer does not come, nobody can know. So none is put twice: what it may have charged is
lost until it leaves, and what it was to correct is told again under its old number, which the store does not do twice. While
the store is lost nothing is granted, or a share that the store never hands out (`OnStoreLost`).

A 429 and headers act as in any `RateLimiter`: by pausing, and by asking with lower limits.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle, islice
from operator import ge, sub
from typing import Any, Final, TypeAlias

from .cluster.config import ClusterConfig, OnStoreLost
from .cluster.store import Correction, Quota, StoreReply, Take, Taken
from .cluster.strict_ledger import MOST, MOST_SEQUENCE, RETOLD
from .errors import LimitExceeded
from .rate_limit import LimitLevel, Permit, RateLimiter, RateLimiterSnapshot, RateLimits, Wait, quotas_of
from .sliding_ledger import Bucket, Charge, SlidingLedger

_MOST_AHEAD: Final = 64
"""How many permits are fetched beside the head's, at most."""

_RECENT: Final = 8
"""What is fetched ahead looks like so many that were granted last."""

_MOST_CORRECTIONS: Final = 128
"""How many a question carries. The others wait for the next."""

_RENEWALS: Final = 250
"""A head that was refused asks again after such a part of the span: before its place is lost, and soon after others have
given back what they did not use."""

_SHORTEST_RENEWAL: Final = 0.005
_LONGEST_RENEWAL: Final = 0.25
_LONGEST_RENEWAL_OF_RUNS: Final = 0.02
"""Seconds, all three. Where what runs is counted, room may come at any time."""

_BEAT: Final = 1.0
"""Seconds after which a process tells again how many of its requests run."""

_FIRST_RETRY: Final = 0.05
_LONGEST_RETRY: Final = 1.0
"""Seconds until a store that was lost is asked again: twice as long each time."""

_Cost: TypeAlias = tuple[int, int, int]
"""What a request is estimated at: requests, input and output tokens."""


class StrictRateLimiter(RateLimiter):
    """Grants requests within limits that all processes share, exactly.

    key: the ledger's name in the store, the same for all. member: this process's, another one in each of its lives.
    store_timeout: seconds after which a question without an answer is taken for lost; by then it is noticed that the store
    is gone. on_store_lost, local_share: what is granted meanwhile, nothing or this part of each limit. withheld: the part
    of each limit that the store never hands out, for local shares. doubt: as for `RateLimiter`.

    ``limits`` are what the store hands out. Raises `ValueError` for limits with a delivery guard of 0, which leaves no time
    to ask the store.
    """

    __slots__ = (
        "_ahead", "_alone", "_alone_at_a_time", "_ask_again_at", "_asked", "_asked_at", "_asked_head", "_books", "_foreign",
        "_has_share", "_heard", "_heard_at", "_kinds", "_known", "_known_for", "_known_from", "_left", "_levels", "_losses",
        "_lot", "_number", "_quotas", "_recent", "_refused", "_refused_until", "_renewal", "_retry_at", "_runs",
        "_runs_alone", "_unanswered", "_useful", "_wanted", "key", "member", "store_timeout",
    )  # fmt: skip

    def __init__(
        self,
        limits: RateLimits,
        *,
        key: str,
        member: str,
        store_timeout: float = 1.0,
        on_store_lost: OnStoreLost = OnStoreLost.FAIL_CLOSED,
        local_share: float = 0.0,
        withheld: float = 0.0,
        doubt: float | None = None,
    ) -> None:
        for name, text in (("key", key), ("member", member)):
            if not text:
                raise ValueError(f"{name}: is empty; all processes call the ledger the same, and themselves something else")
        # What may be said of a store is checked where it is said.
        said = ClusterConfig(
            "redis://", on_store_lost=on_store_lost, local_share=local_share, withheld=withheld, store_timeout=store_timeout
        )
        on_store_lost = said.on_store_lost
        if not limits.delivery_guard:
            raise ValueError("delivery_guard: 0 leaves no time to ask a shared store; give twice the seconds that may take")
        whole = {quota.field: min(quota.limit, MOST) for quota in quotas_of(limits)}
        handed_out: dict[str, Any] = {field: max(1, limit - int(limit * withheld)) for field, limit in whole.items()}
        shared = replace(limits, **handed_out)
        super().__init__(replace(shared, strict=False), doubt=doubt)
        self.limits = shared
        self.key = key
        self.member = member
        self.store_timeout = store_timeout
        self._quotas = quotas_of(shared)
        self._runs = limits.concurrent_requests is not None
        self._kinds = [dimension.kind for dimension in self._dimensions] + [0] * self._runs
        """Which of the costs each quota counts."""
        self._useful = limits.delivery_guard / 2.0
        """Seconds that a permit may be used for, from before it was asked for."""
        longest = _LONGEST_RENEWAL_OF_RUNS if self._runs else _LONGEST_RENEWAL
        self._renewal = max(_SHORTEST_RENEWAL, min(longest, self._span / _RENEWALS))

        # The ledgers count what is granted out of the local share, and know of charges that stand in the store.
        self._has_share = on_store_lost is OnStoreLost.LOCAL_SHARE
        part = local_share if self._has_share else 0.0
        self._books = _Books(len(self._quotas))
        for index, dimension in enumerate(self._dimensions):
            share = max(int(dimension.paces), int(whole[dimension.field] * part))
            dimension.ledger = _StoreLedger(self._books, index, share, dimension.ledger.span)
        self._alone_at_a_time = int(whole["concurrent_requests"] * part) if self._runs else math.inf
        self._alone: dict[int, int] = {}
        """What was granted out of the local share and runs: for how many requests each permit is, by its number."""
        self._runs_alone = 0

        self._lot = None if self._quotas else _Lot(0, [], math.inf, None)
        self._ahead = 0
        self._recent: deque[tuple[int, ...]] = deque(maxlen=_RECENT)
        self._wanted: _Cost | None = None
        """The head, while it waits for permits to be fetched."""
        self._refused: _Cost | None = None
        """The head that the store refused; until when, where that can be said; and when to ask for it again."""
        self._refused_until: float | None = None
        self._ask_again_at = -math.inf

        self._number = 0
        self._asked: Take | None = None
        """The question whose answer is waited for, when it was put, for which head, and after what headers had said."""
        self._asked_at = -math.inf
        self._asked_head: _Head | None = None
        self._heard: dict[int, tuple[int, float]] = {}
        self._unanswered: list[Correction] = []
        """Those that were told, and may have been made or not."""
        self._heard_at = -math.inf
        """When the store last answered, or was lost."""
        self._known = (0, 0)
        """The number of the last question that was answered and the sequence it was told, since when, for how long."""
        self._known_from = -math.inf
        self._known_for = max((quota.span for quota in self._quotas), default=0.0) or RETOLD / 1e6
        self._losses = 0
        """How often in a row there was no answer, or none that was of use."""
        self._retry_at = -math.inf
        self._left = False
        self._levels: Sequence[int] = [0] * len(self._quotas)
        """What counted in the store at the last answer."""
        self._foreign = [(0, -math.inf)] * len(self._quotas)
        """What the provider counts beside that, and until when."""

    # ---- a limiter ----------------------------------------------------------------------------------------------------

    def reserve(self, requests: int, input_tokens: int, output_tokens: int, now: float) -> Permit | Wait | LimitExceeded:
        """Grant a request out of what was fetched, or say when to ask again, and have it fetched.

        As `RateLimiter.reserve`, but a `Wait` also ends with each answer of the store: whoever still waits asks again then.
        Its ``until`` is what the store said; ``None``: the store is yet to be asked, or cannot say.
        """
        cost = (requests, input_tokens, output_tokens)
        if not (requests.__class__ is input_tokens.__class__ is output_tokens.__class__ is int) or min(cost) < 0:
            raise ValueError(f"cost: {cost!r} are not integers of at least 0")
        if not now <= self._now:
            self._advance(now)
        now = self._now
        lot, paused_until = self._lot, self._throttling.paused_until
        if lot is not None and paused_until <= now < lot.good_until:
            head = lot.head
            charged = self._charged(*cost) if head is None or head.cost != cost else head.charged
            amounts = tuple([charged[kind] for kind in self._kinds])
            if all(map(ge, lot.rest, amounts)):
                return self._hand_out(lot, amounts, charged, cost)
        if (refusal := self.never_fits(*cost)) is not None:
            return refusal
        if paused_until > now:
            return Wait(paused_until)
        if self._left:
            return Wait(None)
        self._wanted = cost
        if self._has_share and self._is_lost(now):
            return self._grant_alone(cost)
        if self._refused != cost or self._refused_until is None or self._refused_until <= now:
            return Wait(None)
        self._next = self._refused_until
        return Wait(self._refused_until)

    def observe_throttled(self, hint: float | None, now: float) -> None:
        """As `RateLimiter.observe_throttled`. The lowered rate is one of all processes: this one does not ask beyond it."""
        super().observe_throttled(hint, now)
        self._give_back()
        self._wanted = self._refused = None

    def snapshot(self, now: float) -> RateLimiterSnapshot:
        """The levels of all processes together, as the store told them last."""
        here = super().snapshot(now)
        levels: list[LimitLevel | None] = [None] * 4
        for index, (dimension, quota) in enumerate(zip(self._dimensions, self._quotas_now(), strict=False)):
            if not dimension.paces:
                used = self._levels[index]
                levels[dimension.kind] = LimitLevel(dimension.limit, used, max(0, quota.limit - used))
        requests, tokens, input_tokens, output_tokens = levels
        return replace(here, requests=requests, tokens=tokens, input_tokens=input_tokens, output_tokens=output_tokens)

    # ---- an `Exchanging` ----------------------------------------------------------------------------------------------

    def exchange_at(self) -> float | None:
        """When there is something to ask or to tell; ``None``: not before a request comes, or one ends."""
        if self._asked is not None or self._left:
            return None
        changed_at = max(self._heard_at, self._books.changed_at)  # while an answer is acted upon, nothing else is told
        at = changed_at + self._renewal
        if self._wanted is not None:
            is_refused = self._wanted == self._refused
            at = min(self._ask_again_at, changed_at + _SHORTEST_RENEWAL) if is_refused else self._now
        if self._lot is not None and any(self._lot.rest):
            at = min(at, self._lot.good_until + self._renewal)
        if self._in_flight > self._runs_alone and self._runs:
            at = min(at, self._asked_at + _BEAT)
        if self._losses:
            at = self._retry_at if self._has_share else max(at, self._retry_at)
        return at if at < math.inf else None

    def exchange(self, now: float, unix_now: float) -> Take:
        """Ask for the head and for what may come after it, and tell what has changed."""
        now = self._advance(now)
        wanted, lot = self._wanted, self._lot
        if lot is not None and now >= lot.good_until:
            self._ahead = max(0, lot.used - 1)
            self._give_back()
        elif lot is not None and wanted is not None:  # it did not last as long as it was good: more would have been used
            self._ahead = min(_MOST_AHEAD, 2 * self._ahead + 1)
            self._give_back()
        asks: list[tuple[int, ...]] = []
        if wanted is not None:
            self._asked_head = _Head(wanted, self._charged(*wanted))
            asks.append(tuple(self._asked_head.charged[kind] for kind in self._kinds))
            asks += islice(cycle(self._recent or asks[:1]), self._ahead)
        self._asked_at = now
        self._asked = self._question(tuple(asks), _MOST_CORRECTIONS)
        return self._asked

    def exchanged(self, reply: StoreReply, now: float, unix_now: float) -> None:
        """Take what was granted, or learn how long to wait."""
        now = self._heard_at = self._advance(now)
        asked, head, self._asked = self._asked, self._asked_head, None
        self._wanted = self._refused = self._asked_head = None
        if asked is None:
            return
        if not isinstance(reply, Taken) or not _answers(reply, asked):
            self._lose()
            return
        self._unanswered.clear()
        self._known, self._known_from = (asked.number, reply.sequence), self._asked_at
        fetched = [sum(amounts) for amounts in zip(*asked.asks[: reply.granted], strict=True)] or [0] * len(self._quotas)
        self._levels = reply.levels
        self._hear_out(fetched)
        if reply.granted < len(asked.asks):
            self._ahead = max(reply.granted, self._ahead // 2)
        if reply.granted:
            self._lot = _Lot(reply.slot, fetched, self._asked_at + self._useful, head)
            if now >= self._lot.good_until:  # too late to be used
                self._give_back()
                self._lose()
                return
        elif head is not None:
            self._refused = head.cost
            is_exact = reply.wait is not None and asked.quotas is self._quotas
            wait = math.inf if reply.wait is None else reply.wait
            self._refused_until = now + wait if is_exact else None
            self._ask_again_at = now + min(self._renewal, wait)
        self._losses = 0

    def leave(self, now: float, unix_now: float) -> Take | None:
        """Give everything back, and tell all that has changed. Nothing is granted any more."""
        self._advance(now)
        self._give_back()
        self._left, self._lot = True, None
        return replace(self._question((), None), leaves=True) if self._number else None

    # ---- granting -----------------------------------------------------------------------------------------------------

    def _hand_out(self, lot: _Lot, amounts: tuple[int, ...], charged: tuple[int, ...], cost: _Cost) -> Permit:
        lot.rest = list(map(sub, lot.rest, amounts))
        lot.used += 1
        if lot.head is not None and lot.head.cost == cost:
            lot.head = None
        self._recent.append(amounts)
        self._wanted = None
        self._books.slot = lot.slot
        permit = self._grant(charged, self._now, cost[1], cost[2])
        self._books.slot = None
        return permit

    def _grant_alone(self, cost: _Cost) -> Permit | Wait | LimitExceeded:
        """Grant out of the local share."""
        self._concurrent = self._alone_at_a_time + self._in_flight - self._runs_alone
        answer = super().reserve(*cost, self._now)
        if isinstance(answer, Permit):
            self._wanted = None
            self._alone[answer.id] = answer.requests
            self._runs_alone += answer.requests
        return answer

    def _close(self, permit: Permit, now: float) -> bool:
        """End a permit. What runs has changed."""
        is_closed = super()._close(permit, now)
        if is_closed and (self._runs or self._alone):
            alone = self._alone.pop(permit.id, 0)
            self._runs_alone -= alone
            if not alone:
                self._books.changed_at = min(self._books.changed_at, self._now)
        return is_closed

    def _give_back(self) -> None:
        """What is left of a lot was never used."""
        lot = self._lot
        if lot is not None and self._quotas:
            for index, amount in enumerate(lot.rest[: len(self._dimensions)]):
                self._books.change(lot.slot, index, -amount, self._now)
            self._lot = None

    # ---- asking -------------------------------------------------------------------------------------------------------

    def _question(self, asks: tuple[tuple[int, ...], ...], most: int | None) -> Take:
        """The next question, with at most so many corrections."""
        self._number += 1
        self._hear()
        room = None if most is None else max(0, most - len(self._unanswered))
        self._unanswered += self._books.corrections(self._number, room, self._now)
        answered, known = self._known if self._now - self._known_from < self._known_for else (0, 0)
        running = self._in_flight - self._runs_alone
        if self._runs and self._lot is not None:
            running += self._lot.rest[-1]
        return Take(
            key=self.key,
            member=self.member,
            quotas=self._quotas_now(),
            asks=asks,
            running=running,
            corrections=tuple(self._unanswered),
            number=self._number,
            answered=answered,
            known=known,
        )

    def _lose(self) -> None:
        """The store did not answer, or not in a way that is of use."""
        self._losses += 1
        self._ahead = 0
        self._retry_at = self._now + min(_LONGEST_RETRY, _FIRST_RETRY * 2.0 ** min(self._losses - 1, 10))

    def _is_lost(self, now: float) -> bool:
        return self._losses > 0 or (self._asked is not None and now > self._asked_at + self.store_timeout)

    # ---- what the provider says ---------------------------------------------------------------------------------------

    def _quotas_now(self) -> tuple[Quota, ...]:
        """The limits to ask within: less while the rate is lowered, and by what the provider counts beside the ledger."""
        now, percent = self._now, 100
        if now < self._throttling.lowered_until:
            percent = self._throttling.percent(now)
        if percent == 100 and all(until <= now for _, until in self._foreign):
            return self._quotas
        quotas: list[Quota] = []
        for quota, (foreign, until) in zip(self._quotas, self._foreign, strict=True):
            limit = max(1, quota.limit * percent // 100) if quota.span else quota.limit
            quotas.append(replace(quota, limit=limit - foreign if until > now else limit))
        return tuple(quotas)

    def _hear(self) -> None:
        """Believe what headers have said: what is missing of the limit and is not in the ledger was used by somebody else.

        The levels are those of the last answer. What other processes were charged since then would be taken for foreign, so
        the next answer sets that right (`_hear_out`).
        """
        self._heard, self._books.said = self._books.said, {}
        for index, (remaining, until) in self._heard.items():
            self._foreign[index] = (max(0, self._quotas[index].limit - self._levels[index] - remaining), until)

    def _hear_out(self, fetched: Sequence[int]) -> None:
        """What the ledger counted before what was just ``fetched`` is no foreign use."""
        for index, (remaining, until) in self._heard.items():
            level = self._levels[index] - fetched[index]
            self._foreign[index] = (max(0, self._quotas[index].limit - level - remaining), until)
        self._heard = {}


class _Head:
    """Who waits: what it was estimated at, and what is charged for that, by kind. It is asked for, and granted, as one."""

    __slots__ = ("charged", "cost")

    def __init__(self, cost: _Cost, charged: tuple[int, ...]) -> None:
        self.cost = cost
        self.charged = charged


class _Lot:
    """What was fetched: the amounts left of it, and until when they may be used."""

    __slots__ = ("good_until", "head", "rest", "slot", "used")

    def __init__(self, slot: int, rest: list[int], good_until: float, head: _Head | None) -> None:
        self.slot = slot
        self.rest = rest
        self.good_until = good_until
        self.head = head
        self.used = 0
        """How many permits came out of it."""


class _Books:
    """What the store is yet to be told, and what the provider has said.

    slot: where charges stand that are made now; ``None``: here, as part of the local share.
    """

    __slots__ = ("_changes", "_width", "changed_at", "said", "slot")

    def __init__(self, width: int) -> None:
        self._width = width
        self._changes: dict[int, list[int]] = {}
        self.changed_at = math.inf
        """Since when there is something to tell."""
        self.said: dict[int, tuple[int, float]] = {}
        """What remains, and until when, by quota."""
        self.slot: int | None = None

    def change(self, slot: int, index: int, by: int, now: float) -> None:
        """What was charged in a slot is to be so much more, or less."""
        if by:
            changes = self._changes.get(slot)
            if changes is None:
                changes = self._changes[slot] = [0] * self._width
            changes[index] += by
            self.changed_at = min(self.changed_at, now)

    def corrections(self, question: int, most: int | None, now: float) -> list[Correction]:
        """What a question tells of it, the oldest first, and at most so much."""
        told = [Correction(slot, tuple(self._changes.pop(slot)), question) for slot in list(self._changes)[:most]]
        self.changed_at = now if self._changes else math.inf
        return [each for each in told if any(each.changes)]


class _StoreCharge(Charge):
    """A charge that stands in the store."""

    __slots__ = ("slot",)

    def __init__(self, amount: int, slot: int) -> None:
        self.amount = amount
        self.bucket = _ELSEWHERE
        self.slot = slot


_ELSEWHERE: Final = Bucket(0, -math.inf, -math.inf, -math.inf)


class _StoreLedger(SlidingLedger):
    """One dimension, as it is known here: what of the local share is used, and edits of what stands in the store."""

    __slots__ = ("_books", "_index")

    def __init__(self, books: _Books, index: int, share: int, span: float) -> None:
        super().__init__(max(1, share), span)
        self.allow(share)
        self._books = books
        self._index = index

    def charge(self, amount: int, now: float) -> Charge:
        """Record what is granted; of a lot it was charged when that was fetched."""
        slot = self._books.slot
        return super().charge(amount, now) if slot is None else _StoreCharge(amount, slot)

    def edit(self, charge: Charge, amount: int, now: float) -> bool:
        """Let a charge stand at ``amount``, wherever it stands. What has left the store is no longer edited there."""
        if not isinstance(charge, _StoreCharge):
            return super().edit(charge, amount, now)
        amount = min(amount, MOST)
        self._books.change(charge.slot, self._index, amount - charge.amount, now)
        charge.amount = amount
        return True

    def pull_down(self, remaining: int, until: float, now: float) -> None:
        """Note what the provider says, for the next question and for the local share."""
        super().pull_down(remaining, until, now)
        self._books.said[self._index] = (remaining, until)


def _answers(reply: Taken, asked: Take) -> bool:
    """Whether this can be the answer to that question. Whatever else comes from a store is none."""
    counts = (reply.granted, reply.slot, reply.sequence, *reply.levels)
    return (
        all(type(count) is int and 0 <= count <= MOST_SEQUENCE for count in counts)
        and reply.granted <= len(asked.asks)
        and len(reply.levels) == len(asked.quotas)
        and (reply.wait is None or 0 <= reply.wait < math.inf)
    )
