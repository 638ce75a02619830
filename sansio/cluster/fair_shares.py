"""Max-min fair shares of a limit: nobody gets more than it asks for while somebody else asks for more than it has.

Whole numbers throughout, so nothing is lost or invented by rounding. What nobody asks for is spread evenly on top, so that
whoever was quiet can begin at once.
"""

from __future__ import annotations

from collections.abc import Sequence


def fair_shares(limit: int, demands: Sequence[int]) -> list[int]:
    """The share of each of ``demands``, in their order; together exactly ``limit``, where there are any.

    Small demands are met in full; what is left is divided evenly among the larger ones; what is left even then, evenly among
    all. Where it does not come out even, those that come first get one more. Limit and demands are at least 0; a demand that
    cannot be too large is written as ``limit``.
    """
    shares = [0] * len(demands)
    left = limit
    for taken, number in enumerate(sorted(range(len(demands)), key=demands.__getitem__)):
        shares[number] = min(demands[number], left // (len(demands) - taken))
        left -= shares[number]
    for number in range(len(demands)):
        extra = -(-left // (len(demands) - number))
        shares[number] += extra
        left -= extra
    return shares
