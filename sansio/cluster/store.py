"""What is asked of the store that several processes share, and what it answers: plain values, whoever carries them.

A driver executes them over Redis or Valkey, the simulator over a dictionary behind a bad network. The store decides nothing:

    Publish   put my report on a board, and give me everybody's                        (approximate limits, circuits)
    Swap      replace a document, if it is still the version I know; give me the one    (escrow)
    Take      charge this to one ledger for all, if it fits: the one decision made there, hence exact (strict)

Each is one round trip and atomic. Every answer carries the store's own clock, the only one that all processes share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Publish:
    """Put ``report`` on the board ``key`` under ``member``'s name, in place of its last one, and read the whole board.

    An empty ``report`` takes the member's off. What a member has not renewed for ``ttl`` seconds leaves the board.
    """

    key: str
    member: str
    report: bytes
    ttl: float


@dataclass(frozen=True, slots=True)
class Published:
    """The board after a `Publish`: each member's report with its age, in seconds by the store's clock.

    unix_now: the store's clock.
    """

    reports: Mapping[str, tuple[float, bytes]]
    unix_now: float


@dataclass(frozen=True, slots=True)
class Swap:
    """Let the document at ``key`` be ``document``, if it is still at ``version`` (0: if there is none).

    It is forgotten when nobody has replaced it for ``ttl`` seconds. ``document`` ``None`` only reads.
    """

    key: str
    version: int
    document: bytes | None
    ttl: float


@dataclass(frozen=True, slots=True)
class Swapped:
    """What stands at the key after a `Swap`: ``done`` if it is what was asked, else what somebody else put there.

    version: counts the replacements, 0 where there is no document. unix_now: the store's clock.
    """

    done: bool
    version: int
    document: bytes
    unix_now: float


@dataclass(frozen=True, slots=True)
class Quota:
    """One dimension of what is shared: at most ``limit`` in any interval of ``span`` seconds. With a span of 0: at a
    time (how many run)."""

    field: str
    limit: int
    span: float


@dataclass(frozen=True, slots=True)
class Take:
    """Charge the first of ``asks`` that fit, in order, to the ledger at ``key``, and correct earlier charges.

    quotas: the dimensions; every ask has one amount for each. asks: what each permit wanted costs; the first is the head's,
    the others are fetched ahead, and only while nobody else's head waits. member: who asks; its head keeps its place among
    the heads of all members. running: how many of the member's permits run now (for the quota with a span of 0).
    corrections: for charges made before, by the slot that `Taken` told: how much more (or less) each dimension is to hold.
    known: the highest ``sequence`` this member has seen; a store that knows less has lost what it knew.
    """

    key: str
    member: str
    quotas: tuple[Quota, ...]
    asks: tuple[tuple[int, ...], ...] = ()
    running: int = 0
    corrections: tuple[tuple[int, tuple[int, ...]], ...] = ()
    known: int = 0
    leaves: bool = False
    """Whether the member goes: forget its place and its running permits."""


@dataclass(frozen=True, slots=True)
class Taken:
    """How a `Take` went. granted: how many of its asks, counted from the first, were charged.

    slot: where they were charged, for `Take.corrections`. wait: seconds until the next ask fits, if nothing else happens;
    ``None``: not by time alone. sequence: counts what the ledger has done, never falls unless the store lost something.
    levels: what counts now, for each dimension. unix_now: the store's clock.
    """

    granted: int
    slot: int
    wait: float | None
    sequence: int
    levels: tuple[int, ...]
    unix_now: float


@dataclass(frozen=True, slots=True)
class StoreLost:
    """There is no answer: the store cannot be reached, or did not answer in time, and may or may not have done it."""

    reason: str = field(default="")


StoreRequest: TypeAlias = Publish | Swap | Take
StoreReply: TypeAlias = Published | Swapped | Taken | StoreLost
