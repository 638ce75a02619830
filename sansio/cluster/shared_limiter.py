"""A rate limiter whose limits are shared with other processes: the ordinary one, allowed as much as its `Member` holds.

Each ledger's limit is the member's allowance in that dimension. So everything a limiter does (all dimensions together,
settling, pauses, headers) is the same as in one process, and what is agreed with the others is the member's affair alone.

A head that does not fit into an allowance makes the limiter hungry: it asks the store earlier, and says what it needs. The
member's answers change the allowances; the engine then asks for the head again, or for the one that has taken its place. So
what was needed is said once, and is forgotten with the answer.
"""

from __future__ import annotations

import math

from ..errors import LimitExceeded
from ..rate_limit import Permit, RateLimiter, RateLimiterSnapshot, RateLimits, Wait, quotas_of
from .config import OnStoreLost
from .member import Holding, Member
from .store import StoreLost, StoreReply, StoreRequest


class SharedRateLimiter(RateLimiter):
    """Grants within ``limits`` together with the other members; an `Exchanging`.

    member: this process's part, in the quotas that `quotas_of` makes of ``limits``, or in less of each; then no more is ever
    granted. on_store_lost, local_share: what is granted while the member has no allowance because the store cannot be
    reached: nothing, or this part of each limit. doubt: as for `RateLimiter`.
    """

    __slots__ = (
        "_allowed_until", "_answered_at", "_ask_at", "_asking", "_gone", "_hungry", "_local", "_lost", "_member", "_needs",
        "_totals",
    )  # fmt: skip

    def __init__(
        self,
        limits: RateLimits,
        member: Member,
        *,
        on_store_lost: OnStoreLost = OnStoreLost.FAIL_CLOSED,
        local_share: float = 0.0,
        doubt: float | None = None,
    ) -> None:
        super().__init__(limits, doubt=doubt)
        quotas = quotas_of(limits)
        self._member = member
        for dimension, quota in zip(self._dimensions, member.quotas, strict=False):
            dimension.limit = quota.limit
        if self._at_a_time is not None:
            self._at_a_time = member.quotas[-1].limit
        self._local = [int(q.limit * local_share) if on_store_lost == OnStoreLost.LOCAL_SHARE else 0 for q in quotas]
        self._needs = [0] * len(quotas)
        self._totals = [0] * len(quotas)
        self._hungry = False
        self._asking = self._gone = False
        self._lost = False
        """Whether the last question had no answer."""
        self._answered_at = -math.inf
        self._ask_at = math.inf
        """When to ask the store, where no answer is awaited; infinity before the first request."""
        self._allowed_until = -math.inf
        self._allow(-math.inf)

    @property
    def member(self) -> Member:
        """This process's part."""
        return self._member

    # ---- a limiter ----------------------------------------------------------------------------------------------------

    def reserve(self, requests: int, input_tokens: int, output_tokens: int, now: float) -> Permit | Wait | LimitExceeded:
        """As `RateLimiter.reserve`. Where the store's next answer may let it in earlier than time would, `Wait.until` is
        ``None``: ask again after that."""
        if self._allowed_until <= now < math.inf:
            self._allow(now)
        answer = super().reserve(requests, input_tokens, output_tokens, now)
        now = self._now
        if isinstance(answer, Permit):
            for index, charge in enumerate(answer.charges):
                self._totals[index] += charge.amount
            if self._at_a_time is not None:
                self._totals[-1] += requests
            self._forget_needs()
            if self._ask_at == math.inf:
                self._ask_at = now + self._member.interval(hungry=False)
        elif isinstance(answer, Wait):
            self._needs = self._lacking(requests, input_tokens, output_tokens, now)
            self._hungry = any(self._needs)
            if self._hungry:
                interval = self._member.interval(hungry=True)
                self._ask_at = min(self._ask_at, max(now, self._answered_at + interval))
                if answer.until is not None and answer.until > now + interval:
                    return Wait(None)
        return answer

    def snapshot(self, now: float) -> RateLimiterSnapshot:
        """As `RateLimiter.snapshot`, of what this process has of the limits: ``available`` is what is its own to grant."""
        if self._allowed_until <= now < math.inf:
            self._allow(now)
        return super().snapshot(now)

    # ---- an `Exchanging` ----------------------------------------------------------------------------------------------

    def exchange_at(self) -> float | None:
        """When `exchange` has a question; ``None``: not before a request comes."""
        return None if self._asking or self._gone or self._ask_at == math.inf else self._ask_at

    def exchange(self, now: float, unix_now: float) -> StoreRequest:
        """The member's next question."""
        now = self._advance(now)
        question = self._member.exchange(self._holdings(now), now, unix_now)
        self._asking = True
        self._allow(now)  # what it offers is not ours any more
        return question

    def exchanged(self, reply: StoreReply, now: float, unix_now: float) -> None:
        """The store's answer, which may allow more, or less."""
        now = self._advance(now)
        again = self._member.exchanged(reply, self._holdings(now), now, unix_now)
        self._asking = False
        self._lost = isinstance(reply, StoreLost)
        self._answered_at = now
        if again:
            self._ask_at = now
        else:
            self._forget_needs()
            self._ask_at = now + self._member.interval(hungry=False)
        self._allow(now)

    def leave(self, now: float, unix_now: float) -> StoreRequest | None:
        """The member's last question. Nothing is granted, and nothing else asked, any more."""
        now = self._advance(now)
        farewell = self._member.leave(self._holdings(now), now, unix_now)
        self._gone = True
        self._local = [0] * len(self._local)
        self._allow(now)
        return farewell

    # ---- between the two ----------------------------------------------------------------------------------------------

    def _allow(self, now: float) -> None:
        """Let the ledgers' limits be what the member holds at ``now``."""
        self._allowed_until = self._member.valid_until()
        allowances = self._member.allowances(now)
        if now >= self._allowed_until:
            self._allowed_until = math.inf  # until an answer comes
            allowances = self._local
        elif self._lost and not any(allowances):  # a process that begins, or begins again, without a store
            allowances = self._local
        for dimension, allowance in zip(self._dimensions, allowances, strict=False):
            dimension.ledger.allow(min(allowance, dimension.limit))
        if self._at_a_time is not None:
            self._concurrent = min(allowances[-1], self._at_a_time)

    def _forget_needs(self) -> None:
        if self._hungry:
            self._hungry = False
            self._needs = [0] * len(self._needs)

    def _holdings(self, now: float) -> list[Holding]:
        levels = [dimension.ledger.level(now) for dimension in self._dimensions]
        if self._at_a_time is not None:
            levels.append(self._in_flight)
        return [Holding(*each) for each in zip(levels, self._needs, self._totals, strict=True)]

    def _lacking(self, requests: int, input_tokens: int, output_tokens: int, now: float) -> list[int]:
        """The head's cost in every dimension, where a larger allowance in any of them would let it in earlier; else 0.

        In every one (and at least 1 in those where it lacks something): what it has of one is no use to it without the
        other, and two heads that each hold what the other needs would wait for ever.
        """
        costs = self._charged(requests, input_tokens, output_tokens)
        needs: list[int] = []
        lacking = False
        for dimension in self._dimensions:
            ledger, cost = dimension.ledger, costs[dimension.kind]
            lacks = ledger.limit < dimension.limit and ledger.earliest(cost, now) > now
            lacking = lacking or lacks
            needs.append(max(int(lacks), cost))
        if self._at_a_time is not None:
            lacks = self._concurrent < self._at_a_time and self._in_flight + requests > self._concurrent
            lacking = lacking or lacks
            needs.append(max(int(lacks), requests))
        return needs if lacking else [0] * len(needs)
