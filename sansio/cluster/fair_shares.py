"""Max-min fair shares of a limit: nobody gets more than it asks for while somebody else asks for more than it has.

Whole numbers throughout, so nothing is lost or invented by rounding. The limit is handed out in this order:

1. A head that waits for more than its member's fair share gets what it *needs*, in full, and those that have waited longest
   come first. So a large request is not starved by the small ones of others: what it takes is taken from theirs, for as
   long as it waits. The first need that does not fit beside the earlier ones ends this: no later one, however small, is put
   before it. A need only lifts its member's share up to it; it adds nothing to a share that is large enough.
2. What members *use*: the small amounts in full, the rest is divided evenly among the larger ones.
3. What they would like to have ready besides (*reserve*), in the same way.
   Where a head *lacks* something, nobody who has not waited for longer is served before it by what comes free: those keep
   what is theirs evenly, but none of what does not come out even, and one whose own head does not fit into that keeps
   nothing. So whatever cools first, wherever that is, goes to the head that has waited longest. Who is to let go is not
   decided by who was served last: that one's part cools last of all, and until then the others would serve themselves again.
4. Whatever is left even then, evenly: among the *eager*, who use all they get, or where nobody is, among all. So who was
   quiet can begin at once.

Where it does not come out even, those whose names come first get one more; of equal names, those that stand first. Everybody
who knows the same of all computes the same, in whatever order it was heard.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Demand:
    """What one member asks for.

    name: breaks ties. amount: what it uses; ``None`` is unbounded, it uses whatever it gets. reserve: what it
    would like to have besides. eager: whether it comes first where something is left over. need: what the head of its queue
    costs, where that waits; 0 where nothing does. waiting: for how many seconds it has. lacks: whether that head costs more
    than all that counts in its member's ledger: then no time that passes lets it in, but only what others let go.
    A negative number counts as 0, and a need above the limit, which can never be met, as none.
    """

    name: str = ""
    amount: int | None = 0
    reserve: int = 0
    eager: bool = False
    need: int = 0
    waiting: float = 0.0
    lacks: bool = False


def fair_shares(limit: int, demands: Sequence[Demand | int]) -> list[int]:
    """The share of each of ``demands``, in their order; together exactly ``limit``, where there are any and nobody lacks
    anything, and never more.

    A number stands for the `Demand` of that amount and nothing else. Raises `ValueError` for a negative limit.
    """
    if limit < 0:
        raise ValueError(f"limit: {limit!r} is below 0")
    asked = [Demand(amount=demand) if isinstance(demand, int) else demand for demand in demands]
    order = sorted(range(len(asked)), key=lambda number: asked[number].name)
    behind = behind_a_lack(limit, asked)
    ahead = [number for number in order if number not in behind]
    kept = _needs(limit, asked, ahead)
    wanted = [limit if demand.amount is None else demand.amount for demand in asked]
    shares = _fill(limit, kept, wanted, ahead)
    yields = {number for number in behind if shares[number] < asked[number].need <= limit}
    if yields:
        shares = _fill(limit, kept, [0 if number in yields else amount for number, amount in enumerate(wanted)], ahead)
    wanted = [share if number in yields else share + asked[number].reserve for number, share in enumerate(shares)]
    shares = _fill(limit, shares, wanted, ahead)
    rest = [number for number in order if number not in yields]
    rest = [number for number in rest if asked[number].eager] or rest
    left = limit - sum(shares)
    for place, number in enumerate(rest):
        shares[number] += left // len(rest) + (place < left % len(rest) and number not in behind)
    return shares


def behind_a_lack(limit: int, asked: Sequence[Demand]) -> set[int]:
    """Who comes after a head that lacks something: all that lack nothing, but those in front of it in the line."""
    lacking = [demand for demand in asked if demand.lacks and 0 < demand.need <= limit]
    if not lacking:
        return set()
    first = min(map(_place, lacking))
    ahead = [0 < each.need <= limit and (each.lacks or _place(each) < first) for each in asked]
    return {number for number, is_ahead in enumerate(ahead) if not is_ahead}


def _place(demand: Demand) -> tuple[float, str]:
    """In the line of those that wait: the longest first, and of those that have waited equally long, by name."""
    return -demand.waiting, demand.name


def _needs(limit: int, asked: Sequence[Demand], order: Sequence[int]) -> list[int]:
    """What is kept for heads that wait."""
    kept = [0] * len(asked)
    left = limit
    for number in sorted(order, key=lambda number: _place(asked[number])):
        need = asked[number].need
        if 0 < need <= limit:
            if need > left:
                break
            kept[number] = need
            left -= need
    return kept


def _fill(limit: int, least: Sequence[int], wanted: Sequence[int], odd: Sequence[int]) -> list[int]:
    """Raise all from the ``least`` they have to one level, nobody above what it ``wanted``, as far as the limit goes.

    What does not come out even goes to the first of ``odd``, one each.
    """
    bounds = [(low, max(low, high)) for low, high in zip(least, wanted, strict=True)]
    if sum(high for _, high in bounds) <= limit:
        return [high for _, high in bounds]

    def shares_at(level: int) -> list[int]:
        return [low if level < low else min(high, level) for low, high in bounds]

    corners = sorted({corner for pair in bounds for corner in pair})
    level = corners[bisect_right(corners, limit, key=lambda corner: sum(shares_at(corner))) - 1]
    rising = [number for number, (low, high) in enumerate(bounds) if low <= level < high]
    left = limit - sum(shares_at(level))
    shares = shares_at(level + left // len(rising))
    for number in [number for number in odd if number in rising][: left % len(rising)]:
        shares[number] += 1
    return shares
