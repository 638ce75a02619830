"""Named timers, first with literal times, then against the simplest model that could be right: a dictionary."""

from __future__ import annotations

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sansio.timers import Timers


def test_none_is_set() -> None:
    timers: Timers[str] = Timers()
    assert (timers.next(), timers.pop_due(math.inf), len(timers)) == (None, None, 0)


def test_the_earliest_comes_first_and_only_when_due() -> None:
    timers: Timers[str] = Timers()
    timers.set("b", 20.0)
    timers.set("a", 10.0)
    assert (timers.next(), len(timers)) == (10.0, 2)
    assert timers.pop_due(9.999) is None
    assert timers.pop_due(10.0) == "a"
    assert timers.pop_due(10.0) is None
    assert timers.next() == 20.0
    assert timers.pop_due(1e9) == "b"
    assert (timers.next(), len(timers)) == (None, 0)


@pytest.mark.parametrize("when", [5.0, 20.0])
def test_setting_again_moves(when: float) -> None:
    timers: Timers[str] = Timers()
    timers.set("a", 10.0)
    timers.set("a", when)
    assert (timers.next(), len(timers)) == (when, 1)
    assert timers.pop_due(100.0) == "a"
    assert timers.pop_due(100.0) is None


@pytest.mark.parametrize("never", [None, math.inf])
def test_none_and_infinity_stop(never: float | None) -> None:
    timers: Timers[str] = Timers()
    timers.set("a", 10.0)
    timers.set("a", never)
    timers.set("unknown", never)
    assert (timers.next(), timers.pop_due(100.0), len(timers)) == (None, None, 0)
    timers.set("a", 10.0)
    assert timers.pop_due(10.0) == "a"


def test_ties_leave_in_the_order_in_which_they_were_set() -> None:
    timers: Timers[str] = Timers()
    for name in "cabd":
        timers.set(name, 10.0)
    timers.set("a", 10.0)  # where it is already: it keeps its place
    timers.set("b", 11.0)
    timers.set("b", 10.0)  # moved there and back: it is last
    assert [timers.pop_due(10.0) for _ in range(5)] == ["c", "a", "d", "b", None]


def test_names_need_not_be_comparable() -> None:
    timers: Timers[object] = Timers()
    timers.set(("a", 1), 10.0)
    timers.set(3, 10.0)
    timers.set(None, 10.0)
    assert [timers.pop_due(10.0) for _ in range(3)] == [("a", 1), 3, None]


def test_what_is_done_about_one_may_stop_the_next() -> None:
    timers: Timers[str] = Timers()
    timers.set("a", 10.0)
    timers.set("b", 10.0)
    assert timers.pop_due(10.0) == "a"
    timers.set("b", None)
    assert timers.pop_due(10.0) is None


@pytest.mark.parametrize("stop", [True, False])
def test_memory_is_bounded_however_often_a_timer_moves(stop: bool) -> None:
    timers: Timers[int] = Timers()
    for name in range(100):
        timers.set(name, 1e6 + name)
    for step in range(10_000):
        timers.set(-1, float(step))
        if stop:
            timers.set(-1, None)
        assert len(timers._heap) <= 2 * len(timers) + 66
    timers.set(-1, None)
    assert [timers.pop_due(math.inf) for _ in range(101)] == [*range(100), None]


def test_a_timer_that_only_ever_moves_later_costs_no_memory() -> None:
    timers: Timers[str] = Timers()
    for step in range(10_000):
        timers.set("a", float(step))
    assert len(timers._heap) == 1
    assert timers.next() == 9_999.0


def test_one_is_asked_for_by_its_name() -> None:
    timers: Timers[str] = Timers()
    timers.set("a", 10.0)
    assert "a" in timers and "b" not in timers
    timers.set("a", None)
    assert "a" not in timers


class TimersAgainstADictionary(RuleBasedStateMachine):
    """The model keeps (when, order of setting) by name, and looks through all of them each time."""

    names = st.integers(0, 5)
    times = st.integers(0, 6).map(float)

    def __init__(self) -> None:
        super().__init__()
        self.timers: Timers[int] = Timers()
        self.model: dict[int, tuple[float, int]] = {}
        self.order = 0

    @rule(name=names, when=times | st.sampled_from([None, math.inf, -1.5]))
    def set(self, name: int, when: float | None) -> None:
        self.timers.set(name, when)
        self.order += 1
        if when is None or when == math.inf:
            self.model.pop(name, None)
        elif name not in self.model or self.model[name][0] != when:
            self.model[name] = (when, self.order)

    @rule(name=names, times=st.integers(30, 60))
    def move_often(self, name: int, times: int) -> None:
        for step in range(times):
            self.set(name, 10.0 + step % 2)

    @rule(now=times)
    def pop(self, now: float) -> None:
        due = [(when, order, name) for name, (when, order) in self.model.items() if when <= now]
        expected = min(due)[2] if due else None
        assert self.timers.pop_due(now) == expected
        if expected is not None:
            del self.model[expected]

    @invariant()
    def the_next_is_the_earliest(self) -> None:
        assert self.timers.next() == min((when for when, _ in self.model.values()), default=None)
        assert len(self.timers) == len(self.model)


TestTimersAgainstADictionary = TimersAgainstADictionary.TestCase
TestTimersAgainstADictionary.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
