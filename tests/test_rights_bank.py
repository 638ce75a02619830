"""`RightsBank`: literal documents first, then every right at one place whatever is done; and no age is ever too high."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sansio.cluster.rights_bank import DRIFT, MARGIN, Account, Ages, Lot, Moves, RightsBank, Terms, Visit, doubt_about
from sansio.cluster.store import Quota

QUOTAS = (Quota("requests_per_minute", 100, 60.0), Quota("concurrent_requests", 10, 0.0))
TERMS = Terms.of(QUOTAS, 5.0)
ONE = Terms.of(QUOTAS[:1], 5.0)


def call(bank: RightsBank, name: str, *, demand: int = 0, level: int = 0, need: int = 0, anew: bool = False) -> Moves:
    """A visit about the only limit of ``bank``."""
    account = bank.accounts.get(name)
    moves = bank.visit(name, Visit(1 if account is None else account.seq + 1, [demand], [level], [need], anew))
    assert moves is not None
    return moves


def held(bank: RightsBank) -> dict[str, int]:
    return {name: account.held[0] for name, account in bank.accounts.items()}


def bank_with(free: int, **accounts: tuple[int, int, int, int]) -> RightsBank:
    """Accounts as (held, demand, level, need), those that need something in the order of their waiting."""
    bank = RightsBank.found(ONE, "era", 0.0)
    bank.free = [free]
    for number, (name, (holds, demand, level, need)) in enumerate(accounts.items(), 1):
        bank.accounts[name] = Account(1, 0.0, [holds], [demand], [level], [need], number if need else 0)
    return bank


# ---- the document ----------------------------------------------------------------------------------------------------


def test_how_long_what_is_waited_for() -> None:
    assert (TERMS.span, TERMS.lease) == (60.0, 5.0)
    assert TERMS.cooling == 60.0 * (1 + DRIFT) + MARGIN
    assert TERMS.reissue == 65.0 * (1 + DRIFT) + MARGIN
    assert TERMS.ttl > 2 * TERMS.reissue + 60.0


def test_a_document_says_all_that_the_bank_holds() -> None:
    bank = RightsBank.found(TERMS, "era", 0.0)
    bank.visit("a", Visit(1, [30, 2], [3, 1], [9, 0], True))
    bank.visit("b", Visit(1, [0, 0], [0, 0], [0, 0], False))
    bank.leave("b", [7, 1])
    document = bank.encode()
    assert RightsBank.decode(document, TERMS) == bank == bank.copy()
    assert json.loads(document) == {
        "born": "era",
        "heir": False,
        "terms": {
            "limits": [["requests_per_minute", 100, 60.0], ["concurrent_requests", 10, 0.0]],
            "lease": 5.0,
            "runs_on": 0.0,
        },
        "serial": 2,
        "free": [28, 3],
        "lots": [{"id": "b", "age": 0.0, "wait": TERMS.cooling, "amounts": [7, 1]}],
        "accounts": {
            "a": {"seq": 1, "age": 0.0, "held": [65, 6], "demand": [30, 2], "level": [3, 1], "need": [9, 0], "since": 1}
        },
    }


def test_a_copy_is_another() -> None:
    bank = bank_with(50, a=(50, 0, 0, 0))
    other = bank.copy()
    call(other, "b", demand=50)
    other.accounts["a"].held[0] = 7
    assert (bank.free, held(bank)) == ([50], {"a": 50})


def test_founded_in_doubt_it_grants_nothing_before_the_wait_is_over() -> None:
    bank = RightsBank.found(ONE, "era", 70.0)
    assert (bank.heir, bank.free, bank.lots) == (True, [0], [Lot("era", 0.0, 70.0, [100])])
    assert call(bank, "a", demand=100, need=100).grant == [0]
    bank.lots[0].age = math.nextafter(70.0, 0.0)
    bank.expire()
    assert bank.free == [0]
    bank.lots[0].age = 70.0
    bank.expire()
    assert (bank.free, bank.lots) == ([100], [])


def mangled(change: Callable[[Any], object]) -> bytes:
    bank = RightsBank.found(TERMS, "era", 0.0)
    bank.visit("a", Visit(1, [30, 2], [0, 0], [9, 0], True))
    bank.visit("b", Visit(1, [30, 2], [0, 0], [9, 0], True))
    bank.leave("b", [7, 1])
    document = json.loads(bank.encode())
    change(document)
    return json.dumps(document).encode()


def put(*path: Any) -> Callable[[Any], object]:
    """Let what is at a path be the last one."""

    def change(document: Any) -> None:
        *way, last, value = path
        for step in way:
            document = document[step]
        document[last] = value

    return change


def shift(*paths: tuple[Any, ...]) -> Callable[[Any], object]:
    """Add 1 to the first, take 1 from the others."""

    def change(document: Any) -> None:
        for sign, path in zip((1, -1, -1), paths, strict=False):
            place = document
            for step in path[:-1]:
                place = place[step]
            place[path[-1]] += sign

    return change


def both(*changes: Callable[[Any], object]) -> Callable[[Any], object]:
    return lambda document: [change(document) for change in changes]


REFUSED: dict[str, Callable[[Any], object]] = {
    "one right too many": shift(("free", 0)),
    "one held too many": shift(("accounts", "a", "held", 1)),
    "one waiting too many": shift(("lots", 0, "amounts", 0)),
    "another limit": put("terms", "limits", 0, 1, 101),
    "another limit, added up": both(put("terms", "limits", 0, 1, 101), shift(("free", 0))),
    "another span": put("terms", "limits", 0, 2, 61.0),
    "another field": put("terms", "limits", 0, 0, "tokens_per_minute"),
    "another lease": put("terms", "lease", 6.0),
    "no limits": put("terms", "limits", []),
    "less than nothing": both(put("accounts", "a", "held", 0, -5), lambda d: d["free"].__setitem__(0, 98)),
    "a limit too few": put("free", [29]),
    "a limit too many": put("accounts", "a", "demand", [30, 2, 0]),
    "more demanded than there is": put("accounts", "a", "demand", [101, 2]),
    "more counted than there is": put("accounts", "a", "level", [0, 11]),
    "more needed than there is": put("accounts", "a", "need", [101, 0]),
    "an account that is too old": put("accounts", "a", "age", math.nextafter(TERMS.reissue, math.inf)),
    "a lot that is too old": put("lots", 0, "age", math.nextafter(TERMS.cooling, math.inf)),
    "an age from the future": put("accounts", "a", "age", -1.0),
    "a wait without an end": put("lots", 0, "wait", 86_401.0),
    "a truth for a number": put("accounts", "a", "held", 0, True),
    "a part of a right": put("free", 0, 29.5),
    "words for numbers": put("free", 0, "29"),
    "nothing for a number": put("serial", None),
    "no accounts": lambda document: document.pop("accounts"),
    "too many accounts": lambda document: document["accounts"].update(
        {f"m{n}": document["accounts"]["a"] | {"held": [0, 0]} for n in range(256)}
    ),
    "too many lots": lambda document: document["lots"].extend(
        [document["lots"][0] | {"id": f"m{n}", "amounts": [0, 0]} for n in range(64)]
    ),
    "more than anybody writes": put("born", "x" * (1 << 19)),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_is_no_document_of_ours_is_none(why: str) -> None:
    assert RightsBank.decode(mangled(lambda _: None), TERMS) is not None
    assert RightsBank.decode(mangled(REFUSED[why]), TERMS) is None


@pytest.mark.parametrize(
    "document", [b"", b"{}", b"[]", b"null", b"1", b"\xff", b"[" * 100_000, b'{"born":"\xff"}', b'"' * 9]
)
def test_what_is_no_document_at_all_is_none(document: bytes) -> None:
    assert RightsBank.decode(document, TERMS) is None
    assert doubt_about(document, TERMS) == TERMS.reissue


def test_terms_without_limits_are_none() -> None:
    document = mangled(put("terms", "limits", []))
    assert doubt_about(document, TERMS) == TERMS.reissue


def test_what_others_may_hold_by_other_terms_is_waited_for() -> None:
    longer, absurd = Terms.of(QUOTAS, 50.0), Terms.of([Quota("requests_per_minute", 1, 1e300)], 1e300)
    assert doubt_about(RightsBank.found(longer, "x", 0.0).encode(), TERMS) == longer.reissue
    assert doubt_about(RightsBank.found(TERMS, "x", 0.0).encode(), longer) == longer.reissue
    assert doubt_about(RightsBank.found(absurd, "x", 0.0).encode(), TERMS) == 86_400.0


def test_a_wait_for_ones_own_terms_may_be_as_long_as_they_need() -> None:
    days = Terms.of([Quota("requests_per_minute", 1, 200_000.0)], 5.0)
    bank = RightsBank.found(days, "x", days.reissue)
    assert RightsBank.decode(bank.encode(), days) == bank


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.data())
def test_whatever_comes_is_read_and_never_gives_more_than_there_is(data: st.DataObject) -> None:
    document: Any = json.loads(mangled(lambda _: None))
    for _ in range(data.draw(st.integers(1, 3))):
        place = document
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = data.draw(st.sampled_from(keys)) if keys else None
            if key is None or not isinstance(place[key], (dict, list)) or data.draw(st.booleans()):
                break
            place = place[key]
        if key is not None:
            place[key] = data.draw(any_json | st.integers(0, 100) | st.just("a"))
    written = json.dumps(document).encode()
    for raw in (written, data.draw(st.binary(max_size=60)), written[: data.draw(st.integers(0, len(written)))]):
        bank = RightsBank.decode(raw, TERMS)
        assert doubt_about(raw, TERMS) >= TERMS.reissue
        if bank is not None:
            bank.visit("c", Visit(1, [100, 10], [0, 0], [100, 10], True))
            assert add_up(bank) == [100, 10]
            assert bank.accounts["c"].held[0] <= 100 - sum(lot.amounts[0] for lot in bank.lots)


def add_up(bank: RightsBank) -> list[int]:
    places = [bank.free, *(lot.amounts for lot in bank.lots), *(account.held for account in bank.accounts.values())]
    assert all(amount >= 0 for amounts in places for amount in amounts)
    return [sum(amounts) for amounts in zip(*places, strict=True)]


@settings(max_examples=60)
@given(st.data())
def test_every_right_is_at_one_place_whatever_is_done(data: st.DataObject) -> None:
    bank = RightsBank.found(TERMS, "era", data.draw(st.sampled_from([0.0, 50.0])))
    amounts = st.tuples(st.integers(0, 150), st.integers(0, 12))
    for _ in range(30):
        name = data.draw(st.sampled_from("abcde"))
        before = bank.accounts.get(name)
        had = list(before.held) if before is not None else [0, 0]
        match data.draw(st.integers(0, 4)):
            case 0:
                bank.leave(name, data.draw(amounts))
            case 1:
                for item in (*bank.accounts.values(), *bank.lots):
                    most = item.wait if isinstance(item, Lot) else TERMS.reissue
                    item.age = min(most, item.age + data.draw(st.sampled_from([0.0, 1.0, 6.0, 30.0, 90.0])))
                bank.expire()
            case _:
                level = data.draw(amounts)
                seq = 1 if before is None else before.seq + 1
                moves = bank.visit(name, Visit(seq, data.draw(amounts), level, data.draw(amounts), data.draw(st.booleans())))
                assert moves is not None
                for index in range(2):
                    give, grant = moves.give[index], moves.grant[index]
                    assert bank.accounts[name].held[index] == had[index] - give + grant
                    assert 0 <= give <= max(0, had[index] - level[index]) and grant >= 0 and not (give and grant)
                    assert 0 <= moves.kept_after[index] <= bank.accounts[name].held[index]
                    assert 0 <= moves.kept_before[index] <= had[index]
        assert add_up(bank) == [100, 10]
        decoded = RightsBank.decode(bank.encode(), TERMS)
        assert decoded == bank


# ---- who should hold how much ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("about", "free", "accounts", "targets"),
    [
        ("one alone, idle: half, the rest for whoever comes", 100, {"a": (0, 0, 0, 0)}, {"a": 50}),
        ("one alone that wants everything", 100, {"a": (0, 100, 0, 0)}, {"a": 100}),
        ("what nobody wants is spread evenly", 100, {"a": (0, 10, 0, 0), "b": (0, 30, 0, 0)}, {"a": 30, "b": 50}),
        ("small demands are met", 100, {"a": (0, 10, 0, 0), "b": (0, 100, 0, 0)}, {"a": 10, "b": 90}),
        ("large ones have equal parts", 0, {"a": (80, 100, 80, 0), "b": (20, 60, 20, 0)}, {"a": 50, "b": 50}),
        ("an idle one keeps nothing", 0, {"a": (60, 0, 0, 0), "b": (40, 100, 0, 0)}, {"a": 0, "b": 100}),
        ("a head needs more than a share", 0, {"a": (50, 100, 50, 0), "b": (50, 100, 0, 90)}, {"a": 10, "b": 90}),
        ("the one that has waited longest comes first", 0,
         {"a": (50, 100, 0, 60), "b": (50, 100, 0, 60)}, {"a": 60, "b": 40}),
        ("and whoever fits beside it", 0,
         {"a": (40, 100, 0, 50), "b": (30, 100, 0, 60), "c": (30, 100, 0, 40)}, {"a": 50, "b": 10, "c": 40}),
        ("a right that is lacking comes from whoever cools first", 0,
         {"a": (1, 3, 1, 1), "b": (0, 3, 0, 1), "c": (1, 3, 1, 1), "d": (1, 3, 1, 0)}, {"a": 1, "b": 1, "c": 0, "d": 1}),
        ("a need within the share changes nothing", 0,
         {"a": (50, 100, 50, 10), "b": (50, 100, 50, 10)}, {"a": 50, "b": 50}),
        ("what is left of all shares serves the next head", 0,
         {"a": (50, 100, 40, 15), "b": (50, 100, 40, 15)}, {"a": 55, "b": 45}),
        ("but not if it is more than there is", 0,
         {"a": (50, 100, 40, 70), "b": (50, 100, 0, 0)}, {"a": 70, "b": 30}),
    ],
)  # fmt: skip
def test_targets(about: str, free: int, accounts: dict[str, tuple[int, int, int, int]], targets: dict[str, int]) -> None:
    assert bank_with(free, **accounts).targets(0) == targets, about


def test_what_the_silent_hold_is_nobodys_to_divide() -> None:
    bank = bank_with(0, a=(60, 100, 0, 50), b=(40, 100, 0, 0))
    bank.accounts["a"].age = math.nextafter(5.0, math.inf)
    assert bank.targets(0) == {"b": 40}
    bank.accounts["a"].age = 5.0
    assert bank.targets(0) == {"a": 50, "b": 50}


def test_only_the_first_of_very_many_heads_are_looked_at() -> None:
    accounts = {f"m{n:02}": (0, 100, 0, 3) for n in range(40)}
    targets = bank_with(100, **accounts).targets(0)
    shares = [targets[name] for name in accounts]
    assert shares == [4] * 4 + [3] * 28 + [0] * 8


# ---- a visit ---------------------------------------------------------------------------------------------------------


def test_a_visit_moves_what_is_cool_towards_the_target() -> None:
    bank = bank_with(0, a=(80, 100, 80, 0))
    bank.free = [20]
    assert call(bank, "b", demand=100).grant == [20]
    moves = call(bank, "a", demand=100, level=70)
    assert (moves.give, moves.kept_before, moves.kept_after, moves.others_short) == ([10], [30], [20], True)
    assert (bank.free, held(bank)) == ([10], {"a": 70, "b": 20})
    moves = call(bank, "b", demand=100)
    assert (moves.grant, moves.short, moves.others_short) == ([10], [20], False)
    moves = call(bank, "a", demand=100, level=90)  # it used more than it holds: there is nothing to give
    assert (moves.give, moves.kept_before) == ([0], [20])


def test_others_may_be_short_of_any_limit() -> None:
    bank = RightsBank.found(TERMS, "era", 0.0)
    for name, demand in (("a", [100, 0]), ("b", [10, 0])):
        moves = bank.visit(name, Visit(1, demand, [0, 0], [0, 0], False))
    moves = bank.visit("a", Visit(2, [100, 0], [100, 0], [0, 0], False))
    assert moves is not None and moves.others_short and moves.short == [0, 0]


def test_a_head_that_is_not_entitled_to_what_it_lacks_is_nobodys_concern() -> None:
    bank = bank_with(10, a=(50, 100, 50, 30), b=(40, 100, 0, 0))
    assert bank.targets(0) == {"a": 50, "b": 50}
    assert call(bank, "b", demand=100).grant == [10]


def test_a_visit_is_noted() -> None:
    bank = bank_with(0, a=(100, 0, 0, 0))
    bank.accounts["a"].age = 3.0
    call(bank, "a", demand=1000, level=1000, need=1000)
    assert bank.accounts["a"] == Account(2, 0.0, [100], [100], [100], [100], 1)


def test_the_place_among_those_that_wait() -> None:
    bank = RightsBank.found(ONE, "era", 0.0)
    for name in "ab":
        call(bank, name, demand=100, need=60)
    assert [bank.accounts[name].since for name in "ab"] == [1, 2]
    call(bank, "a", demand=100, need=60)
    assert bank.accounts["a"].since == 1  # it keeps its place
    call(bank, "a", demand=100, need=60, anew=True)
    assert bank.accounts["a"].since == 4  # another head goes to the end
    call(bank, "a", demand=100, anew=True)
    assert bank.accounts["a"].since == 0


def test_what_does_not_do_for_a_head_goes_to_the_one_that_has_waited_longer() -> None:
    bank = bank_with(0, a=(50, 100, 20, 40), b=(50, 100, 40, 25))
    assert bank.targets(0) == {"a": 60, "b": 40}
    assert call(bank, "b", demand=100, level=40, need=25).give == [10]
    bank = bank_with(0, a=(45, 100, 20, 30), b=(55, 100, 50, 20))
    assert bank.targets(0) == {"a": 50, "b": 50}
    assert call(bank, "b", demand=100, level=50, need=20).give == [5]
    assert call(bank, "a", demand=100, level=20, need=30).grant == [5]


def test_within_its_target_too() -> None:
    bank = bank_with(0, a=(30, 100, 0, 40), b=(30, 100, 0, 60), c=(40, 100, 40, 0))
    assert bank.targets(0)["b"] >= 30
    moves = call(bank, "b", demand=100, need=60)
    assert moves.give == [10]  # it has longer to wait than the other, who lacks just that
    assert call(bank, "b", demand=100, need=60).grant == [0]  # nor does it take it back
    assert call(bank, "a", demand=100, need=40).grant == [10]


def test_what_serves_a_head_is_not_lent() -> None:
    bank = bank_with(0, a=(30, 100, 0, 40), b=(30, 100, 0, 30), c=(40, 100, 40, 0))
    assert call(bank, "b", demand=100, need=30).give == [0]


def test_nobody_takes_for_later_what_a_head_lacks_now() -> None:
    bank = bank_with(20, a=(30, 100, 0, 45), b=(50, 50, 50, 0))
    assert call(bank, "c", demand=20).grant == [5]
    assert call(bank, "a", demand=100, need=45).grant == [15]


def test_those_that_hold_too_much_keep_back_together_just_what_is_wanted() -> None:
    bank = bank_with(0, a=(40, 20, 40, 0), b=(30, 20, 30, 0), c=(25, 20, 25, 0), d=(5, 40, 5, 0))
    targets = bank.targets(0)
    assert targets == {"a": 20, "b": 20, "c": 20, "d": 40}
    kept = {name: call(bank.copy(), name, demand=20, level=40).kept_before[0] for name in "abc"}
    assert kept == {"a": 20, "b": 10, "c": 5}
    bank = bank_with(25, a=(40, 20, 40, 0), b=(30, 20, 30, 0), d=(5, 40, 5, 0))  # of 35 wanted, 25 are free
    kept = {name: call(bank.copy(), name, demand=20, level=40).kept_before[0] for name in "ab"}
    assert sum(kept.values()) == 10 and kept["a"] > kept["b"] > 0


def test_no_account_without_room() -> None:
    bank = RightsBank.found(ONE, "era", 0.0)
    for number in range(256):
        call(bank, f"m{number}")
    assert bank.visit("one more", Visit(1, [0], [0], [0], False)) is None
    assert call(bank, "m7").give == [0]
    assert RightsBank.decode(bank.encode(), ONE) == bank


# ---- who leaves, and who falls silent --------------------------------------------------------------------------------


def test_what_cools_when_somebody_leaves_is_free_a_span_later() -> None:
    bank = bank_with(0, a=(60, 0, 0, 0), b=(40, 0, 0, 0))
    bank.leave("a", [25])
    bank.leave("b", [0])
    bank.leave("nobody", [9])
    assert (bank.free, bank.lots, bank.accounts) == ([75], [Lot("a", 0.0, ONE.cooling, [25])], {})
    bank.lots[0].age = ONE.cooling
    bank.expire()
    assert (bank.free, bank.lots) == ([100], [])


def test_who_used_more_than_it_held_leaves_what_it_held() -> None:
    bank = bank_with(40, a=(60, 0, 0, 0))
    bank.leave("a", [70])
    assert (bank.free, bank.lots[0].amounts) == ([40], [60])


def test_lots_beyond_their_number_wait_with_the_youngest() -> None:
    terms = Terms.of([Quota("requests_per_minute", 200, 60.0)], 5.0)
    bank = RightsBank.found(terms, "era", terms.reissue)
    bank.lots[0].amounts, bank.free = [80], [120]
    for number in range(70):
        bank.accounts[f"m{number}"] = Account(1, 0.0, [1], [0], [0], [0], 0)
        bank.free[0] -= 1
        bank.leave(f"m{number}", [1])
        for lot in bank.lots:
            lot.age = min(lot.wait, lot.age + 0.5)
        assert add_up(bank) == [200]
        assert RightsBank.decode(bank.encode(), terms) == bank
    assert len(bank.lots) == 64
    assert (bank.lots[0].id, bank.lots[1].age, bank.lots[-1]) == ("era", 35.0, Lot("m69", 0.5, terms.cooling, [8]))


def test_a_lot_that_joins_one_with_a_longer_wait_waits_as_long() -> None:
    bank = RightsBank.found(ONE, "era", 80.0)
    bank.lots = [Lot(f"m{n}", 1.0, 80.0, [1]) for n in range(64)]
    bank.free = [26]
    bank.accounts["a"] = Account(1, 0.0, [10], [0], [0], [0], 0)
    bank.leave("a", [10])
    assert bank.lots[-1] == Lot("a", 0.0, 80.0, [11])


def test_the_rights_of_the_silent_come_back_when_they_surely_hold_none() -> None:
    bank = bank_with(0, a=(60, 0, 0, 0), b=(40, 0, 0, 0))
    bank.accounts["a"].age = math.nextafter(ONE.reissue, 0.0)
    bank.expire()
    assert held(bank) == {"a": 60, "b": 40}
    bank.accounts["a"].age = ONE.reissue
    bank.expire()
    assert (bank.free, held(bank)) == ([60], {"b": 40})


# ---- ages ------------------------------------------------------------------------------------------------------------


def test_an_age_is_what_a_document_says_and_what_has_passed_since() -> None:
    bank, ages = bank_with(0, a=(60, 0, 0, 0), b=(40, 0, 0, 0)), Ages()
    bank.lots = [Lot("x", 10.0, 61.3, [0])]
    bank.accounts["b"].age = 4.0
    ages.see(bank, 1000.0)
    ages.tell(bank, 1003.0)
    assert [bank.accounts["a"].age, bank.accounts["b"].age, bank.lots[0].age] == [3.0, 7.0, 13.0]


def test_the_higher_age_counts() -> None:
    bank, ages = bank_with(0, a=(60, 0, 0, 0), b=(40, 0, 0, 0)), Ages()
    ages.see(bank, 1000.0)
    bank.accounts["a"].age, bank.accounts["b"].age = 8.0, 1.0  # somebody has seen the one for longer, the other shorter
    ages.see(bank, 1005.0)
    ages.tell(bank, 1006.0)
    assert [bank.accounts["a"].age, bank.accounts["b"].age] == [9.0, 6.0]


def test_a_visit_begins_a_new_age() -> None:
    bank, ages = bank_with(0, a=(60, 0, 0, 0)), Ages()
    ages.see(bank, 1000.0)
    call(bank, "a")
    ages.see(bank, 1005.0)
    ages.tell(bank, 1006.0)
    assert bank.accounts["a"].age == 1.0


def test_no_age_is_higher_than_what_it_is_needed_for() -> None:
    bank, ages = bank_with(0, a=(60, 0, 0, 0)), Ages()
    bank.lots = [Lot("x", 0.0, 61.3, [40])]
    ages.see(bank, 0.0)
    ages.tell(bank, 1e6)
    assert (bank.accounts["a"].age, bank.lots[0].age) == (ONE.reissue, 61.3)
    assert RightsBank.decode(bank.encode(), ONE) == bank


@settings(max_examples=50)
@given(st.data())
def test_no_age_runs_ahead_of_the_fastest_clock(data: st.DataObject) -> None:
    """Some look at a document, with clocks that drift; each at its own times, and writes down how old everything is."""
    rates = data.draw(st.lists(st.floats(1 - DRIFT / 2, 1 + DRIFT / 2), min_size=1, max_size=3))
    observers = [Ages() for _ in rates]
    documents = [RightsBank.found(ONE, "era", 0.0) for _ in rates]
    document = documents[0]
    visited: dict[tuple[str, int], float] = {}
    now = 0.0
    for _ in range(40):
        now += data.draw(st.sampled_from([0.0, 0.1, 1.0, 5.0]))
        index = data.draw(st.integers(0, len(rates) - 1))
        clock = 1e4 * index + rates[index] * now
        if data.draw(st.booleans()):  # it looks
            observers[index].see(document, clock)
            documents[index] = document.copy()
        elif documents[index] is not document and documents[index].serial == document.serial:  # it replaces it
            bank = documents[index].copy()
            observers[index].tell(bank, clock)
            name = data.draw(st.sampled_from("abc"))
            account = bank.accounts.get(name)
            seq = 1 if account is None else account.seq + 1
            bank.visit(name, Visit(seq, [5], [0], [0], False))
            visited[name, seq] = now
            document = bank
        for name, account in document.accounts.items():
            assert account.age <= (now - visited[name, account.seq]) * (1 + DRIFT / 2) + 1e-9
