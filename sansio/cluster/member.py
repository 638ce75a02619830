"""How much of a shared limit is this process's to grant, and how that is agreed with the others.

A `Member` knows nothing of requests or permits. It holds an *allowance* in each dimension: how much may count in this
process's own ledger at a time. While the sum of all members' allowances, and of what still counts above them, is within the
limit, so is the sum of what they grant: every member's ledger is safe in every window by itself (`sliding_ledger.py`).

Two ways to agree: `ApproximateMember` (shares that follow demand, no agreement needed to go on) and `EscrowMember` (rights
that are handed over one by one, so that no failure can double one).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from .store import Quota, StoreReply, StoreRequest


class Holding(NamedTuple):
    """One dimension of this process's ledger at an instant.

    level: what counts in it now. need: what the head of its queue costs, where that waits for a larger allowance; else 0.
    granted: what it has granted in all, since it began (never falls; settlements do not change it).
    """

    level: int
    need: int
    granted: int


class Member(Protocol):
    """One process's part in a shared limit. ``quotas`` are the limits that all members share."""

    @property
    def quotas(self) -> Sequence[Quota]:
        """The shared limits, one for each dimension."""
        ...

    def allowances(self, now: float) -> Sequence[int]:
        """How much may count in each dimension at ``now``."""
        ...

    def valid_until(self) -> float:
        """Until when `allowances` answers the same by itself (a lease ends); infinity: until the next exchange."""
        ...

    def interval(self, hungry: bool) -> float:
        """Seconds from one answer to the next question. hungry: somebody waits for a larger allowance."""
        ...

    def exchange(self, holdings: Sequence[Holding], now: float, unix_now: float) -> StoreRequest:
        """The next question. What it offers to others is not the member's any more, whether or not it ever arrives."""
        ...

    def exchanged(self, reply: StoreReply, holdings: Sequence[Holding], now: float, unix_now: float) -> bool:
        """Take the answer. Returns whether to ask again at once (somebody else was quicker)."""
        ...

    def leave(self, holdings: Sequence[Holding], now: float, unix_now: float) -> StoreRequest | None:
        """The last question of a process that goes; after it there is no allowance."""
        ...
