"""`GCounter`: its laws for any states, and replicas whose messages are lost, doubled and reordered. `WindowedCounters`: what
is late goes where it belongs or nowhere."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sansio.gcounter import GCounter, WindowedCounters

REPLICAS = ("a", "b", "c", "d")
MOST_REPLICAS = 1024

counters = st.dictionaries(st.sampled_from(REPLICAS), st.integers(1, 9)).map(GCounter.from_dict)
crowds = st.builds(
    lambda first, step, count, seed: GCounter.from_dict(
        {f"{name:05}": (name * seed) % 7 + 1 for name in range(first, first + step * count, step)}
    ),
    *(st.integers(0, 900), st.integers(1, 3), st.integers(0, MOST_REPLICAS), st.integers(1, 6)),
)


def merged(*states: GCounter) -> GCounter:
    """What somebody knows who heard these, one after the other."""
    result = GCounter()
    for state in states:
        result.merge(state)
    return result


def test_it_counts_for_each_replica() -> None:
    counter = GCounter()
    counter.increment("b", 2)
    counter.increment("a")
    counter.increment("b", 3)
    assert (counter.value(), counter.of("a"), counter.of("b"), counter.of("c")) == (6, 1, 5, 0)
    assert counter.items() == [("a", 1), ("b", 5)]
    assert repr(counter) == "GCounter({'b': 5, 'a': 1})"


def test_counting_nothing_is_knowing_nothing() -> None:
    counter = GCounter()
    counter.increment("a", 0)
    assert counter == GCounter() and counter.items() == []


@pytest.mark.parametrize("n", [-1, True, False, 1.0, math.nan, None, "1"])
def test_what_is_no_count_is_refused_and_changes_nothing(n: Any) -> None:
    counter = GCounter.from_dict({"a": 4})
    with pytest.raises(ValueError, match=r"n: .* only grows"):
        counter.increment("a", n)
    assert counter == GCounter.from_dict({"a": 4})


def test_it_is_equal_to_what_knows_the_same_and_has_no_hash() -> None:
    assert GCounter.from_dict({"a": 1, "b": 2}) == GCounter.from_dict({"b": 2, "a": 1})
    assert GCounter.from_dict({"a": 1}) != GCounter.from_dict({"a": 2})
    assert GCounter() != {}
    with pytest.raises(TypeError, match="unhashable"):
        hash(GCounter())


@given(counters, counters, counters)
def test_merging_is_commutative_associative_and_idempotent(a: GCounter, b: GCounter, c: GCounter) -> None:
    assert merged(a, b) == merged(b, a)
    assert merged(merged(a, b), c) == merged(a, merged(b, c))
    assert merged(a, b, b, a) == merged(a, b)
    a.merge(a)
    assert a == merged(a)


@settings(max_examples=15)
@given(crowds, crowds, crowds)
def test_it_is_so_of_more_replicas_than_are_ever_read(a: GCounter, b: GCounter, c: GCounter) -> None:
    assert merged(a, b) == merged(b, a)
    assert merged(merged(a, b), c) == merged(a, merged(b, c))
    together = merged(a, b, c)
    assert merged(together, a, b, c) == together
    assert {name for name, _ in together.items()} == {name for state in (a, b, c) for name, _ in state.items()}


def test_replicas_are_bounded_when_they_are_read_too() -> None:
    counter = GCounter.from_dict({f"{name:05}": 1 for name in range(5_000, 0, -1)})
    assert counter.value() == MOST_REPLICAS and counter.of("00001") == 1


@given(counters, counters)
def test_merging_never_takes_anything_away(a: GCounter, b: GCounter) -> None:
    both = merged(a, b)
    assert both.value() >= max(a.value(), b.value())
    assert all(both.of(name) == max(a.of(name), b.of(name)) for name in REPLICAS)


@given(counters, counters)
def test_a_delta_tells_all_that_is_not_known_and_nothing_else(a: GCounter, b: GCounter) -> None:
    delta = a.delta(b)
    assert merged(b, delta) == merged(b, a)
    assert all(a.of(name) == count > b.of(name) for name, count in delta.items())
    assert a.delta(a) == GCounter()


def test_a_state_of_its_own_is_not_another_s() -> None:
    a = GCounter.from_dict({"a": 1})
    plain = a.to_dict()
    plain["a"] = 9
    for other in (merged(a), a.delta(GCounter()), GCounter.from_dict(a.to_dict())):
        other.increment("a")
        assert (a.value(), other.value()) == (1, 2)


@given(counters)
def test_it_comes_back_from_plain_numbers(a: GCounter) -> None:
    assert GCounter.from_dict(a.to_dict()) == a


@pytest.mark.parametrize(
    "garbage",
    [
        *(
            None,
            7,
            "a",
            [("a", 1)],
            {1: 2},
            {None: 2},
            {"a": "1"},
            {"a": True},
            {"a": 1.0},
            {"a": 0},
            {"a": -1},
            {"a": None},
        ),
        {"a": 1 << 62},
        {"a": math.nan},
    ],
)
def test_what_is_no_count_is_left_out(garbage: object) -> None:
    counter = GCounter.from_dict(garbage)
    assert counter == GCounter() and counter.items() == []


def test_and_what_is_one_is_kept_beside_it() -> None:
    assert GCounter.from_dict({"a": -1, 3: 3, "b": (1 << 62) - 1}).items() == [("b", (1 << 62) - 1)]


class Replicas(RuleBasedStateMachine):
    """Each replica counts for itself and tells what it knows. What it told may come late, twice, out of order, or never."""

    def __init__(self) -> None:
        super().__init__()
        self.states = {name: GCounter() for name in REPLICAS}
        self.truth = dict.fromkeys(REPLICAS, 0)
        self.on_the_way: list[GCounter] = []

    @rule(name=st.sampled_from(REPLICAS), n=st.integers(0, 5))
    def count(self, name: str, n: int) -> None:
        self.states[name].increment(name, n)
        self.truth[name] += n

    @rule(name=st.sampled_from(REPLICAS), to=st.sampled_from(REPLICAS), whole=st.booleans())
    def tell(self, name: str, to: str, whole: bool) -> None:
        state = self.states[name]
        self.on_the_way.append(merged(state) if whole else state.delta(self.states[to]))

    @rule(to=st.sampled_from(REPLICAS), data=st.data(), again=st.booleans())
    def hear(self, to: str, data: st.DataObject, again: bool) -> None:
        if self.on_the_way:
            number = data.draw(st.integers(0, len(self.on_the_way) - 1))
            self.states[to].merge(self.on_the_way[number])
            if not again:
                del self.on_the_way[number]

    @invariant()
    def nobody_knows_more_than_was_counted(self) -> None:
        for name, state in self.states.items():
            assert state.of(name) == self.truth[name]
            assert all(state.of(other) <= self.truth[other] for other in REPLICAS)

    def teardown(self) -> None:
        everything = merged(*self.states.values())
        assert everything.value() == sum(self.truth.values())
        for state in self.states.values():
            state.merge(everything.delta(state))
            assert state == everything


TestReplicas = Replicas.TestCase


# ---- windows ----------------------------------------------------------------------------------------------------------


def of_each(windowed: WindowedCounters) -> list[tuple[int, int]]:
    """What is known of each window, by its label."""
    return [(epoch, windowed.of(epoch).value()) for epoch in windowed.epochs()]


def test_each_window_has_a_counter_of_its_own() -> None:
    windowed = WindowedCounters(60.0)
    windowed.increment("a", 3, 119.9)
    windowed.increment("a", 4, 120.0)
    windowed.increment("a", 1, 121.0)
    assert of_each(windowed) == [(1, 3), (2, 5)]
    assert windowed.of(7) == GCounter()
    assert (windowed.epoch(179.9), windowed.epoch(-0.1)) == (2, -1)


def test_a_late_delta_cannot_leak_into_the_next_window() -> None:
    """Spec 4.6.1."""
    windowed = WindowedCounters(60.0)
    windowed.increment("a", 1, 60.0)
    windowed.advance(125.0)
    assert windowed.merge(1, GCounter.from_dict({"b": 5}))
    assert (windowed.of(1).value(), windowed.of(2).value()) == (6, 0)


def test_what_is_too_late_goes_nowhere() -> None:
    windowed = WindowedCounters(60.0, keep=2)
    windowed.increment("a", 1, 60.0)
    windowed.advance(60.0 * 4)
    assert not windowed.merge(1, GCounter.from_dict({"b": 5}))
    assert of_each(windowed) == []
    assert windowed.merge(2, GCounter.from_dict({"b": 5}))
    assert of_each(windowed) == [(2, 5)]


def test_a_clock_that_is_far_ahead_pushes_nothing_out() -> None:
    windowed = WindowedCounters(60.0, keep=2)
    windowed.increment("a", 1, 600.0)
    for epoch in (13, 10**6, 10**30, -(10**30)):
        assert not windowed.merge(epoch, GCounter.from_dict({"b": 5}))
    assert windowed.merge(12, GCounter.from_dict({"c": 2}))
    assert of_each(windowed) == [(10, 1), (12, 2)]


def test_nothing_is_remembered_before_the_time_is_known() -> None:
    windowed = WindowedCounters(60.0)
    assert not windowed.merge(0, GCounter.from_dict({"b": 5}))
    assert windowed.advance(0.0) == 0
    assert windowed.merge(0, GCounter.from_dict({"b": 5}))


def test_a_wall_clock_may_be_set_back() -> None:
    windowed = WindowedCounters(60.0, keep=1)
    windowed.increment("a", 1, 600.0)
    windowed.increment("a", 2, 545.0)
    assert of_each(windowed) == [(9, 2), (10, 1)]
    windowed.advance(0.0)
    assert of_each(windowed) == []


@given(
    st.lists(
        st.tuples(st.integers(-3, 12), st.sampled_from(REPLICAS), st.integers(1, 9), st.floats(0.0, 90.0)), max_size=30
    ),
    st.integers(1, 4),
)
def test_every_window_knows_only_what_was_counted_in_it(deltas: list[tuple[int, str, int, float]], keep: int) -> None:
    windowed = WindowedCounters(10.0, keep)
    counted: dict[int, dict[str, int]] = {}
    for label, name, count, now in deltas:
        windowed.advance(now)
        of_label = counted.setdefault(label, {})
        of_label[name] = max(of_label.get(name, 0), count)
        assert windowed.merge(label, GCounter.from_dict({name: count})) == (abs(label - windowed.epoch(now)) <= keep)
        assert len(list(windowed.epochs())) <= 2 * keep + 1
        for epoch in windowed.epochs():
            assert abs(epoch - windowed.epoch(now)) <= keep
            assert all(known <= counted[epoch][replica] for replica, known in windowed.of(epoch).items())


@pytest.mark.parametrize("window", [0.0, -1.0, math.inf, math.nan, True, "60", None])
def test_a_window_out_of_range_is_refused(window: Any) -> None:
    with pytest.raises(ValueError, match=r"window: .* above 0"):
        WindowedCounters(window)


@pytest.mark.parametrize("keep", [0, -1, 1.0, True, None])
def test_so_is_a_keep(keep: Any) -> None:
    with pytest.raises(ValueError, match=r"keep: .* at least 1"):
        WindowedCounters(60.0, keep)


def test_a_count_is_refused_as_by_a_counter() -> None:
    with pytest.raises(ValueError, match="only grows"):
        WindowedCounters(60.0).increment("a", -1, 0.0)
