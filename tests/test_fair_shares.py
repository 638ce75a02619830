"""`fair_shares`: literal divisions, a reference that hands out one by one, and what must hold of any."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sansio.cluster.fair_shares import Demand, fair_shares


@pytest.mark.parametrize(
    ("limit", "demands", "shares"),
    [
        (10, [], []),
        (10, [3], [10]),
        (0, [3, 4], [0, 0]),
        (10, [3, 4], [5, 5]),  # three are left over: two for the first, one for the other
        (9, [3, 9, 9], [3, 3, 3]),
        (10, [3, 9, 9], [3, 4, 3]),
        (7, [5, 5], [4, 3]),
        (10, [9, 1, 9], [5, 1, 4]),
        (12, [100, 2, 4], [6, 2, 4]),
        (9, [0, 0, 0, 0], [3, 2, 2, 2]),
        (5, [-4, 2], [2, 3]),
        (100, [10, 20, 30], [24, 33, 43]),
    ],
)
def test_numbers(limit: int, demands: list[int], shares: list[int]) -> None:
    assert fair_shares(limit, demands) == shares


def test_a_negative_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="limit: -1 is below 0"):
        fair_shares(-1, [1])


def test_a_number_is_a_demand_of_that_amount() -> None:
    assert fair_shares(10, [9, Demand("", 1), 9]) == fair_shares(10, [9, 1, 9])


def test_who_is_unbounded_takes_part_like_anybody_and_gets_what_is_left() -> None:
    assert fair_shares(90, [Demand("a", 10), Demand("b", None), Demand("c", 20)]) == [10, 60, 20]
    assert fair_shares(90, [Demand("a", 100), Demand("b", None), Demand("c", 20)]) == [35, 35, 20]
    assert fair_shares(91, [Demand("b", None), Demand("a", None)]) == [45, 46]


def test_what_is_left_goes_to_the_eager_and_to_all_where_nobody_is() -> None:
    quiet = [Demand("a", 10), Demand("b", 10), Demand("c", 10)]
    assert fair_shares(60, quiet) == [20, 20, 20]
    eager = [Demand("a", 10), Demand("b", 10, eager=True), Demand("c", 10)]
    assert fair_shares(60, eager) == [10, 40, 10]


def test_a_reserve_comes_after_every_use_and_before_what_is_left_over() -> None:
    demands = [Demand("a", 10, reserve=5), Demand("b", 10, eager=True), Demand("c", 10, reserve=9)]
    assert fair_shares(27, demands) == [9, 9, 9]
    assert fair_shares(34, demands) == [12, 10, 12]
    assert fair_shares(50, demands) == [15, 16, 19]


def test_the_head_that_has_waited_longest_gets_what_it_needs() -> None:
    demands = [Demand("a", 100), Demand("b", 10, need=80, waiting=1.0), Demand("c", 100)]
    assert fair_shares(100, demands) == [10, 80, 10]


def test_a_need_adds_nothing_to_a_share_that_is_large_enough() -> None:
    demands = [Demand("a", 100), Demand("b", 100, need=30, waiting=9.0), Demand("c", 100)]
    assert fair_shares(90, demands) == [30, 30, 30]


def test_heads_are_served_in_the_order_in_which_they_wait() -> None:
    demands = [
        Demand("a", 0, need=60, waiting=1.0),
        Demand("b", 0, need=70, waiting=2.0),
        Demand("c", 0, need=5, waiting=0.5),
    ]
    # The one that needs 60 does not fit beside that of 70, and the small one that came last is not put before it.
    assert fair_shares(100, [*demands, Demand("d", None)]) == [0, 70, 0, 30]
    assert fair_shares(140, [*demands, Demand("d", None)]) == [60, 70, 5, 5]


def test_heads_that_have_waited_equally_long_are_served_by_name() -> None:
    assert fair_shares(10, [Demand("b", need=10, waiting=1.0), Demand("a", need=10, waiting=1.0)]) == [0, 10]


def test_a_need_that_can_never_be_met_is_in_nobody_s_way() -> None:
    demands = [Demand("a", 0, need=101, waiting=9.0), Demand("b", 0, need=90, waiting=1.0), Demand("c", None)]
    assert fair_shares(100, demands) == [0, 90, 10]


def test_nobody_behind_a_head_that_lacks_something_serves_itself_again() -> None:
    """Three of them have one unit each in use. Whichever cools first goes to the one that has none."""
    demands = [
        Demand("a", 2, eager=True, need=1, waiting=2.0),
        Demand("b", 1, need=1, waiting=5.0, lacks=True),
        Demand("c", 2, eager=True, need=1, waiting=1.0),
        Demand("d", 2, eager=True, need=1, waiting=0.5),
    ]
    assert fair_shares(3, demands) == [0, 3, 0, 0]


def test_who_has_waited_for_longer_than_that_head_is_before_it() -> None:
    demands = [
        Demand("a", 2, need=1, waiting=9.0),
        Demand("b", 1, need=1, waiting=5.0, lacks=True),
        Demand("c", 2, need=1, waiting=1.0),
    ]
    assert fair_shares(2, demands) == [1, 1, 0]


def test_behind_a_head_that_lacks_something_an_even_part_that_serves_is_kept() -> None:
    large = Demand("a", 90, need=60, waiting=1.0)
    small = Demand("b", 90, need=5, waiting=1.0)
    lacking = Demand("c", 60, need=60, waiting=5.0, lacks=True)
    assert fair_shares(100, [large, small, lacking]) == [0, 40, 60]
    assert fair_shares(103, [replace(small, name="a"), small, lacking]) == [21, 21, 60]


def test_a_head_that_lacks_what_can_never_be_met_is_in_nobody_s_way() -> None:
    assert fair_shares(3, [Demand("a", 9, need=4, waiting=9.0, lacks=True), Demand("b", 9, need=1)]) == [2, 1]


names = st.sampled_from("abcdef")
amounts = st.integers(-1, 40)
all_demands = st.lists(
    st.builds(
        Demand,
        names,
        st.none() | amounts,
        st.integers(-3, 9),
        st.booleans(),
        st.integers(0, 30),
        st.sampled_from([0.0, 1.0, 2.5]),
    ),
    max_size=7,
)
without_needs = st.lists(
    st.builds(Demand, names, st.none() | amounts, st.integers(-3, 9), st.booleans()), min_size=1, max_size=7
)


def one_by_one(limit: int, demands: list[Demand]) -> list[int]:
    """The same division, one after the other given to whoever has least and still wants something."""
    shares = [0] * len(demands)
    order = sorted(range(len(demands)), key=lambda number: demands[number].name)

    def left() -> int:
        return limit - sum(shares)

    for number in sorted(order, key=lambda number: -demands[number].waiting):
        need = demands[number].need
        if need > limit:
            continue
        if need > left():
            break
        shares[number] = need

    def raise_to(wanted: list[int]) -> None:
        while left() > 0 and (short := [number for number in order if shares[number] < wanted[number]]):
            shares[min(short, key=lambda number: shares[number])] += 1

    raise_to([limit if demand.amount is None else demand.amount for demand in demands])
    raise_to([share + demand.reserve for share, demand in zip(shares, demands, strict=True)])
    rest = [number for number in order if demands[number].eager or demands[number].amount is None] or order
    for place in range(left() if rest else 0):
        shares[rest[place % len(rest)]] += 1
    return shares


@given(st.integers(0, 150), all_demands)
def test_it_is_what_handing_out_one_by_one_comes_to(limit: int, demands: list[Demand]) -> None:
    assert fair_shares(limit, demands) == one_by_one(limit, demands)


@given(st.integers(0, 10**9), all_demands)
def test_all_of_the_limit_is_handed_out_and_no_more(limit: int, demands: list[Demand]) -> None:
    shares = fair_shares(limit, demands)
    assert len(shares) == len(demands)
    assert sum(shares) == (limit if demands else 0)
    assert all(share >= 0 for share in shares)


@given(st.integers(0, 60), all_demands, st.sets(st.integers(0, 6)))
def test_where_heads_lack_something_the_first_of_them_gets_it_and_the_others_what_serves_them(
    limit: int, demands: list[Demand], lacking: set[int]
) -> None:
    demands = [replace(demand, lacks=number in lacking) for number, demand in enumerate(demands)]
    shares = fair_shares(limit, demands)
    assert sum(shares) <= limit and all(share >= 0 for share in shares)
    heads = [number for number, demand in enumerate(demands) if demand.lacks and 0 < demand.need <= limit]
    if heads:
        places = [(-demand.waiting, demand.name) for demand in demands]
        first = min(heads, key=lambda number: (*places[number], number))
        waiting = [number for number, demand in enumerate(demands) if 0 < demand.need <= limit]
        before = sum(demands[number].need for number in waiting if places[number] < places[first])
        assert shares[first] >= demands[first].need or before + demands[first].need > limit
        for number in waiting:
            if places[number] > places[first] and number not in heads:
                assert shares[number] == 0 or shares[number] >= demands[number].need


def test_of_two_that_have_waited_equally_long_the_first_by_name_is_not_behind_the_other() -> None:
    heads = [Demand("a", 1, need=1, waiting=3.0), Demand("b", 0, need=1, waiting=3.0, lacks=True)]
    assert fair_shares(1, heads) == [1, 0]
    assert fair_shares(1, [replace(heads[0], name="c"), heads[1]]) == [0, 1]


@given(st.integers(0, 150), st.lists(amounts, min_size=1, max_size=7))
def test_everybody_gets_what_it_uses_or_an_even_part(limit: int, demands: list[int]) -> None:
    for share, demand in zip(fair_shares(limit, demands), demands, strict=True):
        assert share >= min(demand, limit // len(demands))


@given(st.integers(0, 150), st.lists(amounts, min_size=1, max_size=7))
def test_nobody_has_more_than_it_uses_while_another_has_less(limit: int, demands: list[int]) -> None:
    shares = fair_shares(limit, demands)
    short = [share for share, demand in zip(shares, demands, strict=True) if share < demand]
    if short:
        assert all(share <= max(0, demand) for share, demand in zip(shares, demands, strict=True))
        assert max(shares) <= min(short) + 1


@given(st.integers(0, 150), st.dictionaries(names, all_demands.filter(bool)), st.randoms(use_true_random=False))
def test_the_order_in_which_members_are_heard_of_does_not_matter(
    limit: int, drawn: dict[str, list[Demand]], rng: random.Random
) -> None:
    demands = {name: found[0] for name, found in drawn.items()}
    demands = {
        name: Demand(name, each.amount, each.reserve, each.eager, each.need, each.waiting) for name, each in demands.items()
    }
    shuffled = list(demands)
    rng.shuffle(shuffled)
    straight = dict(zip(demands, fair_shares(limit, list(demands.values())), strict=True))
    assert dict(zip(shuffled, fair_shares(limit, [demands[name] for name in shuffled]), strict=True)) == straight


@given(st.integers(0, 150), without_needs)
def test_one_more_of_a_limit_is_one_more_for_somebody_and_less_for_nobody(limit: int, demands: list[Demand]) -> None:
    before, after = fair_shares(limit, demands), fair_shares(limit + 1, demands)
    assert sorted(now - then for then, now in zip(before, after, strict=True)) == [*[0] * (len(demands) - 1), 1]


@given(st.integers(0, 150), st.lists(st.integers(0, 40), min_size=1, max_size=7), st.integers(0, 6))
def test_who_uses_more_gets_no_less_and_the_others_no_more(limit: int, demands: list[int], number: int) -> None:
    number %= len(demands)
    before = fair_shares(limit, demands)
    after = fair_shares(limit, [demand + (place == number) for place, demand in enumerate(demands)])
    assert after[number] >= before[number]
    assert all(now <= then for place, (then, now) in enumerate(zip(before, after, strict=True)) if place != number)


@given(st.integers(0, 150), all_demands)
def test_the_first_that_waits_gets_what_it_needs(limit: int, demands: list[Demand]) -> None:
    waiting = [number for number, demand in enumerate(demands) if 0 < demand.need <= limit]
    if waiting:
        first = min(waiting, key=lambda number: (-demands[number].waiting, demands[number].name, number))
        assert fair_shares(limit, demands)[first] >= demands[first].need
