"""The queue's order, its bound, and what time does to it; then the same against a naive model."""

from __future__ import annotations

import math
import tracemalloc
import weakref
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sansio.errors import Backpressure, DeadlineExceeded
from sansio.queue import CapacityPolicy, Priority, PriorityRequest, RequestQueue

BACKGROUND, NORMAL, HIGH, CRITICAL = Priority


def entry(request_id: int, priority: Priority = NORMAL, tenant: str = "", deadline: float | None = None) -> PriorityRequest:
    return PriorityRequest(request_id, priority, tenant, deadline)


def filled(queue: RequestQueue, *entries: PriorityRequest, now: float = 0.0) -> RequestQueue:
    for each in entries:
        assert queue.push(each, now) is None
    return queue


def ids(entries: list[PriorityRequest]) -> list[int]:
    return [each.request_id for each in entries]


def popped(queue: RequestQueue, now: float = 0.0) -> list[int]:
    """Pop until nothing comes."""
    out = []
    while (head := queue.pop(now)) is not None:
        out.append(head.request_id)
    return out


def expired(queue: RequestQueue, now: float) -> list[tuple[int, str]]:
    return [(each.request_id, error.kind) for each, error in queue.expire(now)]


# Order


@pytest.mark.parametrize(
    ("pushed", "order"),
    [
        ([], []),
        ([(1, NORMAL), (2, NORMAL), (3, NORMAL)], [1, 2, 3]),
        ([(1, BACKGROUND), (2, NORMAL), (3, HIGH), (4, CRITICAL)], [4, 3, 2, 1]),
        ([(9, NORMAL), (1, HIGH), (8, NORMAL), (2, HIGH)], [1, 2, 9, 8]),
    ],
)
def test_higher_classes_go_first_and_equals_in_the_order_they_came(
    pushed: list[tuple[int, Priority]], order: list[int]
) -> None:
    assert popped(filled(RequestQueue(), *(entry(*each) for each in pushed))) == order


def test_peek_shows_what_pop_takes() -> None:
    queue = filled(RequestQueue(), entry(1), entry(2, HIGH))
    head = queue.peek(0.0)
    assert head is not None
    assert head is queue.pop(0.0)
    assert queue.peek(0.0) is not head
    assert RequestQueue().peek(0.0) is None
    assert RequestQueue().pop(0.0) is None


def test_an_entry_that_comes_back_finds_its_old_place() -> None:
    queue = filled(RequestQueue(), entry(1), entry(2), entry(3))
    first, second = queue.pop(0.0), queue.pop(0.0)
    assert first is not None
    assert second is not None
    filled(queue, entry(4), now=1.0)
    queue.requeue(second, 2.0)
    queue.requeue(first, 3.0)
    assert popped(queue, 3.0) == [1, 2, 3, 4]


def test_a_second_push_keeps_the_sequence_too() -> None:
    queue = filled(RequestQueue(), entry(1), entry(2))
    first = queue.pop(0.0)
    assert first is not None
    filled(queue, first, now=5.0)
    assert (first.sequence, first.enqueued_at) == (0, 0.0)
    assert popped(queue, 5.0) == [1, 2]


# The bound


@pytest.mark.parametrize(("policy", "fallback"), [(CapacityPolicy.REJECT, False), (CapacityPolicy.FALLBACK, True)])
def test_a_full_queue_refuses_at_once_and_says_whether_to_fall_back(policy: CapacityPolicy, fallback: bool) -> None:
    queue = filled(RequestQueue(2, policy), entry(1), entry(2))
    late = entry(3, CRITICAL)
    refusal = queue.push(late, 0.0)
    assert isinstance(refusal, Backpressure)
    assert refusal.fallback is fallback
    assert "2 requests" in refusal.message
    assert late.sequence == -1
    assert (len(queue), queue.queued, queue.waiting_outside, 3 in queue) == (2, 2, 0, False)
    queue.pop(0.0)
    assert queue.push(late, 0.0) is None
    assert late.sequence == 2


def test_as_many_again_wait_outside_and_the_next_is_refused() -> None:
    queue = filled(RequestQueue(2), *(entry(n) for n in range(4)))
    assert (len(queue), queue.queued, queue.waiting_outside, 3 in queue) == (4, 2, 2, True)
    refusal = queue.push(entry(4), 0.0)
    assert isinstance(refusal, Backpressure)
    assert not refusal.fallback
    assert popped(queue) == [0, 1, 2, 3]


def test_who_waits_outside_is_not_dispatched_and_enters_in_order_as_room_appears() -> None:
    queue = filled(RequestQueue(2), entry(1), entry(2), entry(3), entry(4, HIGH))
    head = queue.peek(0.0)
    assert head is not None
    assert head.request_id == 1
    assert popped(queue) == [1, 4, 2, 3]


@pytest.mark.parametrize("leave", ["pop", "remove", "expire", "expire_before"])
def test_every_way_out_makes_room(leave: str) -> None:
    queue = filled(RequestQueue(1), entry(1, deadline=10.0), entry(2))
    assert queue.waiting_outside == 1
    if leave == "pop":
        queue.pop(0.0)
    elif leave == "remove":
        queue.remove(1)
    elif leave == "expire":
        queue.expire(10.0)
    else:
        queue.expire_before(10.0, 0.0)
    assert (queue.queued, queue.waiting_outside) == (1, 0)
    assert expired(queue, 1e6) == []


def test_who_comes_back_is_never_refused_and_newcomers_wait_until_the_surplus_is_gone() -> None:
    queue = filled(RequestQueue(1, CapacityPolicy.REJECT), entry(1))
    first = queue.pop(0.0)
    assert first is not None
    filled(queue, entry(2))
    queue.requeue(first, 0.0)
    assert queue.queued == 2
    assert queue.push(entry(3), 0.0) is not None
    queue.pop(0.0)
    assert queue.push(entry(3), 0.0) is not None
    queue.pop(0.0)
    assert queue.push(entry(3), 0.0) is None


# Time


def test_a_deadline_ends_the_wait_inside_and_outside() -> None:
    queue = filled(RequestQueue(2), entry(1, deadline=5.0), entry(2), entry(3, deadline=4.0))
    assert queue.deadline() == 4.0
    assert expired(queue, 3.999) == []
    ((late, error),) = queue.expire(4.0)
    assert late.request_id == 3
    assert isinstance(error, DeadlineExceeded)
    assert queue.deadline() == 5.0
    assert expired(queue, 100.0) == [(1, "deadline_exceeded")]
    assert queue.deadline() is None
    assert popped(queue, 100.0) == [2]


def test_time_outside_runs_out_with_backpressure() -> None:
    queue = filled(RequestQueue(1, queue_timeout=30.0), entry(1), now=100.0)
    filled(queue, entry(2), now=110.0)
    assert queue.deadline() == 140.0
    assert expired(queue, 139.999) == []
    ((late, error),) = queue.expire(140.0)
    assert late.request_id == 2
    assert isinstance(error, Backpressure)
    assert not error.fallback
    assert "30 s" in error.message
    assert len(queue) == 1


def test_the_clock_of_the_time_outside_stops_on_entering() -> None:
    queue = filled(RequestQueue(1, queue_timeout=30.0), entry(1), entry(2))
    queue.pop(29.0)
    assert queue.deadline() is None
    assert expired(queue, 1000.0) == []
    assert popped(queue, 1000.0) == [2]


def test_the_earlier_of_deadline_and_time_outside_decides_and_the_deadline_in_a_tie() -> None:
    queue = filled(RequestQueue(1, queue_timeout=30.0), entry(0))
    filled(queue, entry(1, deadline=30.0))
    assert expired(queue, 50.0) == [(1, "deadline_exceeded")]
    filled(queue, entry(2, deadline=81.0), now=50.0)
    assert expired(queue, 90.0) == [(2, "backpressure")]


def test_expired_entries_come_earliest_first_and_ties_by_sequence() -> None:
    queue = RequestQueue(3, queue_timeout=7.0)
    filled(queue, entry(1, deadline=9.0), entry(2, HIGH, deadline=5.0), entry(3, CRITICAL, deadline=9.0))
    filled(queue, entry(4), entry(5, deadline=6.0), entry(6, deadline=5.0))
    assert expired(queue, 10.0) == [
        (2, "deadline_exceeded"),
        (6, "deadline_exceeded"),
        (5, "deadline_exceeded"),
        (4, "backpressure"),
        (1, "deadline_exceeded"),
        (3, "deadline_exceeded"),
    ]


def test_an_entry_past_its_deadline_is_not_handed_out_though_nobody_called_expire() -> None:
    queue = filled(RequestQueue(), entry(1, HIGH, deadline=5.0), entry(2, deadline=0.0), entry(3), now=-1.0)
    head = queue.peek(5.0)
    assert head is not None
    assert head.request_id == 3
    assert (len(queue), queue.queued, 1 in queue, queue.deadline()) == (3, 3, True, 0.0)
    assert popped(queue, 5.0) == [3]
    assert queue.remove(1) is not None  # a cancellation still finds it
    assert expired(queue, 5.0) == [(2, "deadline_exceeded")]
    assert len(queue) == 0


@pytest.mark.parametrize(("now", "deadline", "kind"), [(0.0, 0.0, "deadline_exceeded"), (20.0, None, "backpressure")])
def test_an_entry_whose_time_ran_out_outside_does_not_enter(now: float, deadline: float | None, kind: str) -> None:
    queue = filled(RequestQueue(2, queue_timeout=30.0), entry(1), entry(4), entry(2, HIGH, deadline=deadline), now=-10.0)
    filled(queue, entry(3), now=-5.0)
    head = queue.pop(now)
    assert head is not None
    assert head.request_id == 1
    assert (queue.queued, queue.waiting_outside) == (2, 1)
    assert expired(queue, now) == [(2, kind)]
    assert popped(queue, now) == [4, 3]


def test_what_cannot_make_it_until_an_instant_leaves_before_it() -> None:
    queue = RequestQueue(3, queue_timeout=1.0)
    filled(queue, entry(1, deadline=20.0), entry(2, deadline=9.0), entry(3), entry(4, deadline=20.5), entry(5, deadline=9.0))
    assert ids(queue.expire_before(8.9, 0.0)) == []
    assert ids(queue.expire_before(20.0, 0.0)) == [2, 5, 1]
    assert popped(queue) == [3, 4]


def test_a_clock_that_goes_backwards_stands_still() -> None:
    queue = filled(RequestQueue(1, queue_timeout=30.0), entry(1, deadline=120.0), now=100.0)
    filled(queue, entry(2), now=0.0)
    assert expired(queue, 50.0) == []
    assert expired(queue, 130.0) == [(1, "deadline_exceeded"), (2, "backpressure")]
    assert queue.push(entry(3, deadline=110.0), -5.0) is None
    assert queue.pop(-5.0) is None
    assert expired(queue, -5.0) == [(3, "deadline_exceeded")]


# Taking out


def test_cancellation_takes_an_entry_out_wherever_it_is() -> None:
    queue = filled(RequestQueue(2), *(entry(n) for n in range(1, 5)))
    assert queue.remove(99) is None
    for request_id in (4, 1):
        gone = queue.remove(request_id)
        assert gone is not None
        assert gone.request_id == request_id
        assert queue.remove(request_id) is None
        assert request_id not in queue
    assert popped(queue) == [2, 3]
    assert queue.deadline() is None


def test_drain_takes_out_everything_in_the_order_of_acceptance() -> None:
    queue = filled(RequestQueue(2), entry(7, deadline=3.0), entry(5, CRITICAL), entry(6, HIGH, deadline=9.0))
    queue.peek(4.0)
    assert ids(queue.drain()) == [7, 5, 6]
    assert (len(queue), queue.queued, queue.waiting_outside, queue.deadline()) == (0, 0, 0, None)
    assert queue.drain() == []
    assert popped(filled(queue, entry(5, CRITICAL), now=4.0), 4.0) == [5]


# Coming back


def test_who_comes_back_stands_where_it_stood() -> None:
    entries = [entry(n) for n in range(1, 6)]
    queue = filled(RequestQueue(), *entries)
    assert popped(queue) == [1, 2, 3, 4, 5]
    for back in (3, 1, 5):
        queue.requeue(entries[back - 1], 0.0)
    filled(queue, entry(6))
    queue.requeue(entries[3], 0.0)
    assert queue.remove(3) is not None
    assert popped(queue) == [1, 4, 5, 6]
    assert len(queue) == 0


def test_and_in_front_of_those_who_came_since_whatever_is_taken_out_between_them() -> None:
    first, second = entry(1), entry(2)
    queue = filled(RequestQueue(), first, second)
    assert popped(queue) == [1, 2]
    filled(queue, entry(3), entry(4))
    queue.requeue(second, 0.0)
    queue.requeue(first, 0.0)
    for gone in (3, 1):
        assert queue.remove(gone) is not None
    assert popped(queue) == [2, 4]


def test_nothing_that_was_taken_out_is_held_on_to() -> None:
    """A payload is a whole request: a storm of cancellations must not keep them until the others have left."""

    class Payload:
        pass

    queue = RequestQueue()
    alive: weakref.WeakSet[Payload] = weakref.WeakSet()
    for n in range(100):
        payload = Payload()
        alive.add(payload)
        queue.push(PriorityRequest(n, payload=payload), 0.0)
    del payload
    for n in range(10, 100):
        queue.remove(n)
    for _ in range(5):
        queue.pop(0.0)
    assert len(alive) == 5


# Ageing


@pytest.mark.parametrize(
    ("now", "first"),
    [
        (9.9, 4),  # the newest, but the highest class
        (10.0, 3),  # HIGH counts as CRITICAL now, and came earlier
        (19.9, 3),
        (20.0, 2),
        (30.0, 1),
        (1000.0, 1),
    ],
)
def test_waiting_lifts_an_entry_one_class_for_every_age_after(now: float, first: int) -> None:
    queue = RequestQueue(age_after=10.0)
    filled(queue, entry(1, BACKGROUND), entry(2, NORMAL), entry(3, HIGH), now=0.0)
    filled(queue, entry(4, CRITICAL), now=9.0)
    head = queue.peek(now)
    assert head is not None
    assert head.request_id == first


def test_without_ageing_a_low_class_waits_for_ever() -> None:
    queue = filled(RequestQueue(), entry(1, BACKGROUND))
    assert popped(filled(queue, entry(2), now=1e9), 1e9) == [2, 1]


def test_age_counts_from_acceptance_so_what_comes_back_has_lost_nothing() -> None:
    queue = filled(RequestQueue(age_after=10.0), first := entry(1, BACKGROUND))
    queue.pop(0.0)
    filled(queue, entry(2, HIGH), entry(3, CRITICAL), now=19.0)
    queue.requeue(first, 20.0)
    assert popped(queue, 20.0) == [3, 1, 2]


def test_those_outside_age_as_well() -> None:
    queue = filled(RequestQueue(2, age_after=10.0), entry(1, CRITICAL), entry(2, CRITICAL), entry(3, BACKGROUND))
    filled(queue, entry(4, HIGH), now=15.0)
    queue.pop(20.0)
    assert (queue.remove(4) is not None, queue.waiting_outside) == (True, 0)
    assert popped(queue, 20.0) == [2, 3]


# Tenants


def test_tenants_of_one_class_take_turns() -> None:
    queue = RequestQueue(fair_tenants=True)
    filled(
        queue,
        *(entry(n, tenant="flood") for n in range(1, 5)),
        entry(5, tenant="b"),
        entry(6, tenant="c"),
        entry(7, tenant="b"),
    )
    assert popped(queue) == [1, 5, 6, 2, 7, 3, 4]


def test_turns_are_taken_inside_a_class_never_across() -> None:
    queue = RequestQueue(fair_tenants=True)
    filled(queue, entry(1, HIGH, "a"), entry(2, HIGH, "a"), entry(3, NORMAL, "b"))
    assert popped(queue) == [1, 2, 3]


def test_without_fairness_tenants_mean_nothing() -> None:
    queue = filled(RequestQueue(), entry(1, tenant="a"), entry(2, tenant="a"), entry(3, tenant="b"))
    assert popped(queue) == [1, 2, 3]


def test_an_idle_tenant_saves_nothing_up() -> None:
    queue = filled(RequestQueue(fair_tenants=True), *(entry(n, tenant="a") for n in range(1, 11)))
    for _ in range(4):
        queue.pop(0.0)
    filled(queue, entry(21, tenant="b"), entry(22, tenant="b"), entry(23, tenant="b"))
    assert popped(queue)[:7] == [5, 21, 6, 22, 7, 23, 8]


def test_sending_one_request_at_a_time_gains_nothing() -> None:
    queue = filled(RequestQueue(fair_tenants=True), *(entry(n, tenant="a") for n in range(1, 4)))
    order = []
    for n in range(21, 24):
        filled(queue, entry(n, tenant="b"))
        for _ in range(2):
            head = queue.pop(0.0)
            assert head is not None
            order.append(head.request_id)
    assert order == [1, 21, 2, 22, 3, 23]


def test_a_request_that_could_not_be_dispatched_gets_its_tenants_turn_back() -> None:
    queue = filled(RequestQueue(fair_tenants=True), entry(1, tenant="a"), entry(2, tenant="a"), entry(3, tenant="b"))
    head = queue.pop(0.0)
    assert head is not None
    queue.requeue(head, 0.0)
    assert popped(queue) == [1, 3, 2]
    filled(queue, entry(4, tenant="c"), entry(5, tenant="b"))
    head = queue.pop(0.0)
    assert head is not None
    queue.requeue(head, 0.0)
    assert popped(queue) == [4, 5]


def test_fairness_holds_outside_too() -> None:
    queue = filled(RequestQueue(3, fair_tenants=True), *(entry(n, tenant="a") for n in range(1, 6)), entry(6, tenant="b"))
    assert queue.waiting_outside == 3
    queue.pop(0.0)  # lets 4 in
    queue.pop(0.0)  # lets 6 in: its tenant's turn outside
    assert expired(queue, 30.0) == [(5, "backpressure")]
    assert popped(queue, 30.0) == [3, 6, 4]


def test_a_tenant_that_rises_a_class_joins_the_end_of_the_round() -> None:
    queue = RequestQueue(fair_tenants=True, age_after=10.0)
    filled(queue, entry(1, tenant="a"), now=0.0)
    filled(queue, entry(2, HIGH, "b"), entry(3, HIGH, "b"), now=5.0)
    filled(queue, entry(4, HIGH, "c"), now=12.0)
    assert popped(queue, 12.0) == [2, 1, 4, 3]


# Misuse


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"capacity": 0}, "capacity"),
        ({"capacity": -1}, "capacity"),
        ({"capacity": True}, "capacity"),
        ({"capacity": 1.5}, "capacity"),
        ({"policy": "drop"}, "policy"),
        ({"policy": None}, "policy"),
        ({"queue_timeout": 0.0}, "queue_timeout"),
        ({"queue_timeout": math.nan}, "queue_timeout"),
        ({"queue_timeout": math.inf}, "queue_timeout"),
        ({"age_after": 0}, "age_after"),
        ({"age_after": -1.0}, "age_after"),
        ({"age_after": True}, "age_after"),
        ({"fair_tenants": 1}, "fair_tenants"),
    ],
)
def test_a_configuration_out_of_range_is_refused_by_name(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        RequestQueue(**arguments)


def test_the_word_of_a_deployment_file_names_a_policy() -> None:
    queue = filled(RequestQueue(1, CapacityPolicy("reject")), entry(1))
    assert queue.push(entry(2), 0.0) is not None


@pytest.mark.parametrize("deadline", [math.nan, math.inf, -math.inf])
def test_a_deadline_is_a_finite_number(deadline: float) -> None:
    with pytest.raises(ValueError, match=r"^deadline: "):
        PriorityRequest(1, deadline=deadline)


def test_a_priority_is_a_priority() -> None:
    seven: Any = 7
    with pytest.raises(ValueError, match=r"^priority: 7"):
        PriorityRequest(1, seven)


def test_misuse_changes_nothing() -> None:
    queue = filled(RequestQueue(), entry(1))
    with pytest.raises(ValueError, match="1 is queued already"):
        queue.push(entry(1, CRITICAL), 0.0)
    with pytest.raises(ValueError, match="1 is queued already"):
        queue.requeue(entry(1, CRITICAL), 0.0)
    with pytest.raises(ValueError, match="2 was never accepted"):
        queue.requeue(entry(2), 0.0)
    assert popped(queue) == [1]


def test_a_payload_is_carried_and_not_shown() -> None:
    carried = PriorityRequest(1, payload="prompt of a user")
    assert carried.payload == "prompt of a user"
    assert "prompt" not in repr(carried)


def test_cancellations_leave_no_garbage_behind() -> None:
    queue = filled(RequestQueue(64, age_after=1e6, fair_tenants=True), *(entry(n, deadline=1e6) for n in range(32)))

    def churn(start: int) -> None:
        for n in range(start, start + 2000):
            filled(queue, entry(n, HIGH, tenant="a", deadline=2e6))
            queue.remove(n)

    churn(1000)
    tracemalloc.start()
    churn(10_000)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 50_000  # 2,000 items left behind would be some 250,000 bytes for each order
    assert len(popped(queue)) == 32


# Against a naive model

BEHIND = st.sampled_from([0.0, 0.0, 50.0])
"""How far behind the latest `now` a call is."""


@dataclass
class Waiting:
    """The model's own note of an entry: everything is found by looking at all of them."""

    entry: PriorityRequest
    sequence: int
    since: float
    level: int
    turn: float = math.inf
    outside_until: float | None = None


@dataclass
class ModelLine:
    fair: bool
    age_after: float | None
    members: list[Waiting] = field(default_factory=list)
    turns: dict[tuple[int, str], float] = field(default_factory=dict)
    clock: int = 0

    def key(self, who: Waiting) -> tuple[int, str]:
        return who.level, who.entry.tenant if self.fair else ""

    def level_at(self, who: Waiting, now: float) -> int:
        level = int(who.entry.priority)
        if self.age_after is not None:
            for steps in range(1, 4):
                if who.since + steps * self.age_after <= now:
                    level = min(3, who.entry.priority + steps)
        return level

    def age(self, now: float) -> None:
        if self.age_after is None:
            return
        rising = []
        for who in self.members:
            for steps in range(1, 4):
                at = who.since + steps * self.age_after
                if who.level < who.entry.priority + steps <= 3 and at <= now:
                    rising.append((at, who.sequence, who))
                    break  # straight to where it belongs
        for _, _, who in sorted(rising, key=lambda each: each[:2]):
            self.leave(who)
            self.join(who, now)

    def join(self, who: Waiting, now: float) -> None:
        who.level = self.level_at(who, now)
        self.members.append(who)
        self.clock += 1
        key = self.key(who)
        self.turns[key] = min(who.turn, self.turns.get(key, self.clock))

    def leave(self, who: Waiting, served: bool = False) -> float:
        self.members.remove(who)
        key = self.key(who)
        turn = self.turns[key]
        if all(self.key(other) != key for other in self.members):
            del self.turns[key]
        elif served:
            self.clock += 1
            self.turns[key] = self.clock
        return turn

    def first(self, now: float) -> Waiting | None:
        self.age(now)
        return min(self.members, key=lambda who: (-who.level, self.turns[self.key(who)], who.sequence), default=None)


class QueueAgainstModel(RuleBasedStateMachine):
    @initialize(
        capacity=st.integers(1, 4),
        policy=st.sampled_from(CapacityPolicy),
        age_after=st.sampled_from([None, 2.0, 5.0]),
        fair=st.booleans(),
    )
    def start(self, capacity: int, policy: CapacityPolicy, age_after: float | None, fair: bool) -> None:
        self.queue = RequestQueue(capacity, policy, 6.0, age_after, fair)
        self.capacity, self.policy = capacity, policy
        self.inside, self.outside = ModelLine(fair, age_after), ModelLine(fair, age_after)
        self.held: list[Waiting] = []
        self.away: list[Waiting] = []
        self.now = 0.0
        self.queue.peek(self.now)
        self.next_id = self.next_sequence = 0

    def gone(self, who: Waiting, now: float) -> tuple[float, str] | None:
        ends = []
        if who.entry.deadline is not None:
            ends.append((who.entry.deadline, 0, "deadline_exceeded"))
        if who.outside_until is not None:
            ends.append((who.outside_until, 1, "backpressure"))
        if not ends:
            return None
        instant, _, kind = min(ends)
        return (instant, kind) if instant <= now else None

    def drop(self, who: Waiting) -> None:
        self.held.remove(who)
        for line in (self.inside, self.outside):
            if who in line.members:
                line.leave(who)

    def count_inside(self) -> int:
        return sum(who.outside_until is None for who in self.held)

    def let_in(self) -> None:
        while self.count_inside() < self.capacity and (who := self.outside.first(self.now)) is not None:
            if self.gone(who, self.now):
                self.outside.leave(who)
            else:
                self.outside.leave(who, served=True)
                who.outside_until = None
                self.enter(self.inside, who)

    def enter(self, line: ModelLine, who: Waiting) -> None:
        line.age(self.now)
        line.join(who, self.now)

    def head(self) -> Waiting | None:
        while (who := self.inside.first(self.now)) is not None and self.gone(who, self.now):
            self.inside.leave(who)
        return who

    # Rules. The queue is told every step of the clock, so that a `now` behind it must change nothing.

    @rule(step=st.sampled_from([0.0, 0.5, 1.0, 3.0]))
    def time_passes(self, step: float) -> None:
        self.now += step
        expected = self.head()
        assert self.queue.peek(self.now) is (None if expected is None else expected.entry)

    @rule(
        priority=st.sampled_from(Priority),
        tenant=st.sampled_from("abc"),
        patience=st.sampled_from([None, None, 0.0, 1.0, 4.0, 6.0, 9.0]),
        behind=BEHIND,
    )
    def push(self, priority: Priority, tenant: str, patience: float | None, behind: float) -> None:
        new = PriorityRequest(self.next_id, priority, tenant, None if patience is None else self.now + patience)
        self.next_id += 1
        refusal = self.queue.push(new, self.now - behind)
        who = Waiting(new, self.next_sequence, self.now, int(priority))
        if self.count_inside() < self.capacity:
            line = self.inside
        elif self.policy is CapacityPolicy.QUEUE and len(self.held) - self.count_inside() < self.capacity:
            line, who.outside_until = self.outside, self.now + 6.0
        else:
            assert refusal is not None
            assert refusal.fallback is (self.policy is CapacityPolicy.FALLBACK)
            return
        assert refusal is None
        assert new.sequence == self.next_sequence
        self.next_sequence += 1
        self.held.append(who)
        self.enter(line, who)

    @rule(behind=BEHIND)
    def pop(self, behind: float) -> None:
        expected = self.head()
        assert self.queue.pop(self.now - behind) is (None if expected is None else expected.entry)
        if expected is not None:
            expected.turn = self.inside.leave(expected, served=True)
            self.held.remove(expected)
            self.away.append(expected)
            self.let_in()

    @precondition(lambda self: self.away)
    @rule(data=st.data(), behind=BEHIND)
    def requeue(self, data: st.DataObject, behind: float) -> None:
        who = self.away.pop(data.draw(st.integers(0, len(self.away) - 1)))
        self.queue.requeue(who.entry, self.now - behind)
        self.held.append(who)
        self.enter(self.inside, who)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        who = data.draw(st.sampled_from(self.held))
        assert self.queue.remove(who.entry.request_id) is who.entry
        self.drop(who)
        self.let_in()

    @rule(behind=BEHIND)
    def expire(self, behind: float) -> None:
        over = [(*end, who.sequence, who) for who in self.held if (end := self.gone(who, self.now))]
        over.sort(key=lambda each: (each[0], each[2]))
        expired = self.queue.expire(self.now - behind)
        assert [(each, error.kind) for each, error in expired] == [(who.entry, kind) for _, kind, _, who in over]
        for *_, who in over:
            self.drop(who)
        self.let_in()

    @rule(ahead=st.sampled_from([-2.0, 0.0, 1.0, 5.0]))
    def expire_before(self, ahead: float) -> None:
        instant = self.now + ahead
        doomed = [who for who in self.held if who.entry.deadline is not None and who.entry.deadline <= instant]
        doomed.sort(key=lambda who: (who.entry.deadline, who.sequence))
        assert self.queue.expire_before(instant, self.now) == [who.entry for who in doomed]
        for who in doomed:
            self.drop(who)
        self.let_in()

    @invariant()
    def agrees(self) -> None:
        assert len(self.queue) == len(self.held)
        assert self.queue.queued == self.count_inside()
        assert self.queue.waiting_outside == len(self.held) - self.count_inside() <= self.capacity
        assert all(who.entry.request_id in self.queue for who in self.held)
        assert not any(who.entry.request_id in self.queue for who in self.away)
        ends = [end[0] for who in self.held if (end := self.gone(who, math.inf))]
        assert self.queue.deadline() == min(ends, default=None)

    def teardown(self) -> None:
        everything = sorted(self.held, key=lambda who: who.sequence)
        assert self.queue.drain() == [who.entry for who in everything]


QueueAgainstModel.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestQueueAgainstModel = QueueAgainstModel.TestCase


@given(
    st.lists(st.tuples(st.sampled_from(Priority), st.sampled_from("abcd")), max_size=40),
)
def test_in_one_class_no_tenant_is_ever_two_turns_ahead_of_another_that_waits(
    pushed: list[tuple[Priority, str]],
) -> None:
    queue = RequestQueue(40, fair_tenants=True)
    waiting: dict[tuple[Priority, str], int] = {}
    for number, (priority, tenant) in enumerate(pushed):
        queue.push(entry(number, priority, tenant), 0.0)
        waiting[priority, tenant] = waiting.get((priority, tenant), 0) + 1
    served: dict[tuple[Priority, str], int] = dict.fromkeys(waiting, 0)
    while (head := queue.pop(0.0)) is not None:
        assert head.priority == max(priority for priority, _ in waiting)
        key = head.priority, head.tenant
        served[key] += 1
        waiting[key] -= 1
        if not waiting[key]:
            del waiting[key]
        pending = [served[each] for each in waiting if each[0] == head.priority]
        assert max(pending, default=0) - min(pending, default=0) <= 1


def test_room_that_comes_after_the_last_one_outside_ran_out_of_time_goes_to_nobody() -> None:
    queue = RequestQueue(capacity=1, policy=CapacityPolicy.QUEUE, queue_timeout=30.0)
    assert queue.push(PriorityRequest(1), 0.0) is None
    assert queue.push(PriorityRequest(2), 0.0) is None
    popped = queue.pop(31.0)
    assert popped is not None and popped.request_id == 1
    assert queue.pop(31.0) is None
    assert [(entry.request_id, error.kind) for entry, error in queue.expire(31.0)] == [(2, "backpressure")]
    assert len(queue) == 0
