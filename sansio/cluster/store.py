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
from typing import NamedTuple, TypeAlias


@dataclass(frozen=True, slots=True)
class Publish:
    """Put ``report`` on the board ``key`` under ``member``'s name, in place of its last one, and read the whole board.

    An empty ``report`` takes the member's off. What a member has not renewed for ``ttl`` seconds leaves the board. A report
    with a lower ``sequence`` than the one that stands there has come late, and is not put.
    """

    key: str
    member: str
    report: bytes
    ttl: float
    sequence: int = 0


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

    version: rises with each replacement and never comes twice, 0 where there is no document. unix_now: the store's clock.
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


class Correction(NamedTuple):
    """Charges made before are to hold this much more (or less) in each dimension.

    slot: when they were made, as `Taken.slot` told. question: the number of the first `Take` that carried this correction.
    One that was not answered may have been done all the same: sent again, a correction is still known by that number.
    """

    slot: int
    changes: tuple[int, ...]
    question: int


@dataclass(frozen=True, slots=True)
class Take:
    """Charge the first of ``asks`` that fit, in order, to the ledger at ``key``, and correct earlier charges.

    member: who asks; another name in each life of a process. number: counts its questions, from 1. The store does none
    twice, and none that is older than one it did.
    quotas: the dimensions, at most one of them with a span of 0. Limits may differ from question to question; a dimension
    of another span is another one.
    asks: what each permit wanted costs, an amount for each dimension. The first is the head's, which keeps its place among
    the heads of all members for a while. The others are fetched ahead. What is asked is granted if it fits beside the heads
    that wait before it; what is fetched ahead comes after everybody.
    running: how many of the member's permits run now (for the quota with a span of 0).
    answered, known: the number of the member's last question that was answered, and the ``sequence`` it was told then; 0
    where that is longer ago than the longest span. A store that does not know the same has lost what it knew, and then
    grants nothing for the longest span.
    leaves: the member goes: forget its place and its running permits.
    """

    key: str
    member: str
    quotas: tuple[Quota, ...]
    asks: tuple[tuple[int, ...], ...] = ()
    running: int = 0
    corrections: tuple[Correction, ...] = ()
    number: int = 1
    answered: int = 0
    known: int = 0
    leaves: bool = False


@dataclass(frozen=True, slots=True)
class Taken:
    """How a `Take` went. granted: how many of its asks, counted from the first, were charged.

    slot: when they were charged, for `Correction.slot`: an instant by the store's clock, in microseconds, shared by charges
    close to each other. wait: where nothing was granted, seconds until the first ask would be, if nothing else happens;
    ``None``: not by time alone. sequence: counts what the ledger has done, never falls unless the store lost something.
    levels: what counts now, for each dimension. unix_now: the store's clock, which never goes back.
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
