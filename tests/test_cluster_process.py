"""One process of a simulated cluster does what the engine does, and notices when its limiter does not keep its word."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from test_cluster_parts import LIMITS

from sansio.cluster.store import (
    Publish,
    Published,
    StoreLost,
    StoreReply,
    StoreRequest,
    Swap,
    Swapped,
    Take,
    Taken,
)
from sansio.errors import LimitExceeded
from sansio.lane import Group, Link
from sansio.rate_limit import Permit, RateLimiter, Wait
from sansio.simulation.cluster import process as process_module
from sansio.simulation.cluster.naive_provider import Amounts
from sansio.simulation.cluster.plan import Life
from sansio.simulation.cluster.process import Process, Request
from sansio.simulation.judge.violation import InvariantViolated
from sansio.simulation.world.clock import VirtualClock, chance

SMALL = Request(Amounts.of(1, 1), Amounts.of(1, 1))


class Limiter(RateLimiter):
    """Answers as it is told, with instants counted from the process' beginning; else grants. Asks the store when told to."""

    def __init__(self) -> None:
        super().__init__(LIMITS)
        self.start = 0.0
        self.answers: list[Wait | LimitExceeded | None] = []
        self.asked_at: list[float] = []
        self.ask_at: float | None = None
        self.question: StoreRequest = Publish("k", "m", b"r", 1.0)
        self.heard: list[StoreReply] = []
        self.farewells: list[StoreRequest] = []

    def reserve(self, requests: int, input_tokens: int, output_tokens: int, now: float) -> Permit | Wait | LimitExceeded:
        self.asked_at.append(now - self.start)
        answer = self.answers.pop(0) if self.answers else None
        if answer is None:
            return super().reserve(0, 0, 0, now)
        if isinstance(answer, Wait) and answer.until is not None:
            return Wait(answer.until + self.start)
        return answer

    def exchange_at(self) -> float | None:
        return None if self.ask_at is None else self.ask_at + self.start

    def exchange(self, now: float, unix_now: float) -> StoreRequest:
        self.ask_at = None
        return self.question

    def exchanged(self, reply: StoreReply, now: float, unix_now: float) -> None:
        self.heard.append(reply)

    def leave(self, now: float, unix_now: float) -> StoreRequest | None:
        return self.farewells.pop(0) if self.farewells else None


class Way:
    """Keeps the questions until somebody answers."""

    def __init__(self) -> None:
        self.questions: list[StoreRequest] = []
        self.answers: list[Callable[[StoreReply], None]] = []

    def ask(self, request: StoreRequest, answer: Callable[[StoreReply], None]) -> None:
        self.questions.append(request)
        self.answers.append(answer)

    def answer(self, reply: StoreReply) -> None:
        self.answers.pop(0)(reply)


class Rig:
    """A process, and everything around it."""

    def __init__(self, lease: float = 5.0, drift: float = 0.0) -> None:
        self.clock = VirtualClock()
        self.limiter = Limiter()
        self.way = Way()
        self.granted_at: list[float] = []
        limiter: Any = self.limiter
        group = Group(0, limiter, link=Link(0, limiter, []))
        way: Any = self.way
        life = Life(3, drift=drift, wall=100.0)
        self.process = Process(life, self.clock, group, way, self, chance(0, "rig"), lease)
        self.limiter.start = self.process.now()

    def granted(self, process: Process, request: Request, permit: Permit) -> None:
        self.granted_at.append(self.clock.now)

    def asks(self, process: Process) -> None:
        """Of no interest."""

    def heard(self, process: Process, reply: StoreReply) -> None:
        """Of no interest."""

    def ask_store(self) -> None:
        """The next question goes out."""
        self.limiter.ask_at = self.process.now() - self.limiter.start
        self.process.do(lambda: None)

    @property
    def leased(self) -> float:
        return self.process.leased_until - self.limiter.start


@pytest.fixture(autouse=True)
def good_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "STUTTERS", 0.0)
    monkeypatch.setattr(process_module, "PROBES", 0.0)


def leased_rig() -> Rig:
    """A rig whose process has a lease, so that promises hold."""
    rig = Rig()
    rig.ask_store()
    rig.way.answer(Published({}, 0.0))
    return rig


def test_the_head_goes_when_its_limiter_lets_it() -> None:
    rig = leased_rig()
    rig.limiter.answers = [None, Wait(2.0), None, None]
    for _ in range(3):
        rig.process.submit(SMALL)
    assert rig.granted_at == [0.0]
    rig.clock.advance(1.9)
    assert rig.granted_at == [0.0]
    rig.clock.advance(1.0)
    assert rig.granted_at == pytest.approx([0.0, 2.0, 2.0])
    assert rig.process.front_since == pytest.approx(2.0)


def test_only_the_head_asks_and_again_when_something_happened() -> None:
    rig = Rig()
    rig.limiter.answers = [Wait(None), Wait(None), None]
    rig.process.submit(SMALL)
    rig.process.submit(SMALL)
    assert len(rig.limiter.asked_at) == 1
    rig.process.do(lambda: None)
    assert len(rig.limiter.asked_at) == 2
    rig.process.do(lambda: None)
    assert len(rig.granted_at) == 2


def test_a_queue_that_is_refilled_goes_on() -> None:
    rig = Rig()
    rig.limiter.answers = [None, None, Wait(None)]
    rig.process.refill = lambda: rig.process.queue.append(SMALL)
    rig.process.submit(SMALL)
    assert len(rig.granted_at) == 2 and len(rig.process.queue) == 1


def test_a_request_that_fits_is_not_refused() -> None:
    rig = Rig()
    rig.limiter.answers = [LimitExceeded("too large")]
    with pytest.raises(InvariantViolated, match=r"invariant 9 .*refuses a request that fits"):
        rig.process.submit(SMALL)


def test_a_promise_is_kept() -> None:
    rig = leased_rig()
    rig.limiter.answers = [Wait(2.0), Wait(3.0)]
    rig.process.submit(SMALL)
    with pytest.raises(InvariantViolated, match=r"invariant 9 .*does not let its head go when it was promised"):
        rig.clock.advance(2.5)


@pytest.mark.parametrize("happens", ["settled", "asked", "lease ends", "never leased"])
def test_a_promise_is_about_nothing_else_happening(happens: str) -> None:
    rig = Rig() if happens == "never leased" else leased_rig()
    until = 6.0 if happens == "lease ends" else 2.0
    rig.limiter.answers = [Wait(until), Wait(until), Wait(until + 1.0)]
    rig.process.submit(SMALL)
    if happens == "settled":
        rig.process.do(lambda: None)
        rig.limiter.answers.append(Wait(4.0))
        rig.clock.advance(1.0)
        rig.process.do(lambda: rig.limiter.answers.insert(0, Wait(None)))
    elif happens == "asked":
        rig.clock.advance(1.0)
        rig.ask_store()
    rig.clock.advance(until + 0.5)


def test_a_wait_is_not_for_what_is_past() -> None:
    rig = Rig()
    rig.limiter.answers = [Wait(-0.1)]
    with pytest.raises(InvariantViolated, match=r"invariant 9 .*wait for what is past"):
        rig.process.submit(SMALL)


def test_a_wait_is_not_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "PROBES", 1.0)
    rig = leased_rig()
    rig.limiter.answers = [Wait(2.0), None]
    rig.process.submit(SMALL)
    with pytest.raises(InvariantViolated, match=r"invariant 9 .*before it was promised"):
        rig.clock.advance(2.5)


def test_its_clocks_are_its_own() -> None:
    rig = Rig(drift=0.005)
    began = rig.process.now()
    rig.clock.advance(1000.0)
    assert rig.process.now() - began == pytest.approx(1005.0)
    assert rig.process.unix_now() == rig.clock.unix_now + 100.0
    rig.process.wall += 5.0
    assert rig.process.unix_now() == rig.clock.unix_now + 105.0


@pytest.mark.parametrize("drift", [-0.008, 0.0, 0.0071])
def test_it_wakes_when_its_own_clock_says_so(drift: float) -> None:
    rig = Rig(drift=drift)
    rig.limiter.answers = [Wait(900.0), None]
    rig.process.submit(SMALL)
    rig.clock.advance(1000.0)
    assert rig.limiter.asked_at[1] >= 900.0
    assert rig.granted_at == pytest.approx([900.0 / (1.0 + drift)])


@pytest.mark.parametrize("drift", [-0.008, 0.0, 0.0071])
def test_no_rounding_lets_it_wake_too_early(drift: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "_FARTHEST_START", 1e-3)
    process = Rig(drift=drift).process
    for number in range(1, 500):
        due = number / 7.0
        when = process._world_time(due)
        assert process._offset + when * (1.0 + drift) >= due
        assert when == pytest.approx((due - process._offset) / (1.0 + drift))


def test_its_clock_may_be_read_as_it_was_a_moment_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "STUTTERS", 0.5)
    process = Rig().process
    read = [process.read() for _ in range(100)]
    assert 20 < sum(each < process.now() for each in read) < 80
    assert all(process.now() - 0.002 <= each <= process.now() for each in read)
    assert process.seen == process.now()


# ---- the store --------------------------------------------------------------------------------------------------------


def test_it_asks_when_it_is_time_and_one_question_at_a_time() -> None:
    rig = Rig()
    rig.limiter.ask_at = 2.0
    rig.process.do(lambda: None)
    assert rig.way.questions == [] and rig.process.listens
    rig.clock.advance(2.0)
    assert rig.way.questions == [rig.limiter.question] and rig.process.listens
    rig.ask_store()
    assert len(rig.way.questions) == 1
    reply = Published({}, 0.0)
    rig.way.answer(reply)
    assert rig.limiter.heard == [reply]
    assert len(rig.way.questions) == 2  # it was due already
    rig.way.answer(StoreLost("x"))
    assert not rig.process.listens


@pytest.mark.parametrize(
    ("question", "reply", "leased", "is_sure"),
    [
        (Publish("k", "m", b"r", 1.0), Published({}, 0.0), 6.0, True),
        (Publish("k", "m", b"r", 1.0), StoreLost(""), -math.inf, False),
        (Swap("k", 1, b"d", 1.0), Swapped(True, 2, b"d", 0.0), 6.0, True),
        (Swap("k", 1, b"d", 1.0), Swapped(False, 2, b"e", 0.0), 6.0, False),
        (Swap("k", 1, None, 1.0), Swapped(False, 2, b"e", 0.0), -math.inf, False),
        (Take("k", "m", ()), Taken(1, 0, None, 1, (), 0.0), 6.0, False),
    ],
)
def test_a_lease_begins_with_its_question(question: StoreRequest, reply: StoreReply, leased: float, is_sure: bool) -> None:
    rig = Rig(lease=5.0)
    rig.limiter.question = question
    rig.clock.advance(1.0)
    rig.ask_store()
    rig.clock.advance(0.75)
    rig.way.answer(reply)
    assert rig.leased == pytest.approx(leased)
    rig.limiter.answers = [Wait(2.0), Wait(3.0)]
    rig.process.submit(SMALL)
    if is_sure:
        with pytest.raises(InvariantViolated):
            rig.clock.advance(0.5)
    else:
        rig.clock.advance(0.5)


def test_a_question_put_again_word_for_word_may_have_been_heard_the_first_time() -> None:
    rig = Rig(lease=5.0)
    rig.ask_store()
    rig.clock.advance(1.0)
    rig.way.answer(StoreLost(""))
    rig.ask_store()
    rig.clock.advance(1.0)
    rig.way.answer(Published({}, 0.0))
    assert rig.leased == pytest.approx(5.0)
    rig.ask_store()
    rig.way.answer(Published({}, 0.0))
    assert rig.leased == pytest.approx(7.0)


# ---- ends -------------------------------------------------------------------------------------------------------------


def test_who_is_dead_does_nothing() -> None:
    rig = leased_rig()
    rig.limiter.answers = [Wait(2.0)]
    rig.process.submit(SMALL)
    rig.process.kill()
    rig.process.submit(SMALL)
    rig.process.do(lambda: rig.granted_at.append(-1.0))
    rig.clock.advance(10.0)
    assert rig.granted_at == [] and rig.process.dead
    untimed = Rig()
    untimed.process.kill()


def test_who_sleeps_does_everything_later_and_in_order() -> None:
    rig = leased_rig()
    rig.limiter.answers = [Wait(2.0)]
    rig.process.submit(SMALL)
    rig.process.sleep()
    done: list[int] = []
    rig.process.do(lambda: done.append(1))
    rig.process.sleep()
    rig.process.do(lambda: done.append(2))
    rig.clock.advance(10.0)
    assert (done, rig.granted_at) == ([], [])
    rig.process.wake()
    assert (done, rig.granted_at) == ([1, 2], [10.0])
    rig.process.wake()


@pytest.mark.parametrize("is_asking", [False, True])
def test_who_leaves_says_farewell_after_its_last_answer(is_asking: bool) -> None:
    rig = Rig()
    rig.limiter.farewells = [Publish("k", "m", b"", 1.0)]
    if is_asking:
        rig.ask_store()
    rig.limiter.answers = [Wait(2.0)]
    rig.process.submit(SMALL)
    rig.process.leave()
    if is_asking:
        assert len(rig.way.questions) == 1
        rig.way.answer(StoreLost(""))
    assert rig.process.leaving and not rig.process.gone
    rig.process.submit(SMALL)
    assert rig.way.questions[-1] == Publish("k", "m", b"", 1.0)
    rig.way.answer(StoreLost(""))
    assert rig.process.gone
    rig.ask_store()
    rig.clock.advance(10.0)
    assert rig.way.answers == [] and rig.granted_at == []


def test_a_farewell_for_which_somebody_was_quicker_is_said_again() -> None:
    rig = Rig()
    rig.limiter.farewells = [Swap("k", number, b"d", 1.0) for number in range(9)]
    rig.process.leave()
    for _ in range(5):
        assert not rig.process.gone
        rig.way.answer(Swapped(False, 7, b"e", 0.0))
    assert rig.process.gone and len(rig.way.questions) == 5
    other = Rig()
    other.limiter.farewells = [Swap("k", 1, b"d", 1.0), Swap("k", 2, b"d", 1.0)]
    other.process.leave()
    other.way.answer(Swapped(True, 2, b"d", 0.0))
    assert other.process.gone


def test_who_has_nothing_to_say_is_gone_at_once() -> None:
    rig = Rig()
    rig.process.leave()
    assert rig.process.gone and rig.way.questions == []
