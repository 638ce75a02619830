"""A day of spending under a budget, counted again by hand: the bound that `sansio.budget` states, and that nobody is refused
who fits.

Requests come for 27 hours to a real engine with a budget by the hour and by the day. Their answers are longer or shorter
than was reserved, break off with part of a usage or none, fail before or after they were sent, are refused, retried, and
given up by their callers, with a late report or without one. `Count` is a list of what was reserved when, and what became
of it.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from engine_harness import BATCH, EVENT_STREAM, OPEN_ENDED, Rig, deployment

from sansio.batch import TokenUsage
from sansio.budget import Budget, BudgetLedger, BudgetReservation
from sansio.errors import BudgetExceeded, InferenceError, NetworkError, RateLimited, ServerError, StreamInterrupted
from sansio.events import AttemptEnded, Cancel, Complete, Effect, Notice, StartAttempt, Tick

HOUR, DAY = 3_600.0, 86_400.0
LONGER = 1.001
"""How much longer than its window a charge may count."""

INPUT, OUTPUT = 3_000, 12_000
"""Nano-dollars a token, which is 3 and 12 dollars a million."""


def nano(tokens: tuple[int, int]) -> int:
    return tokens[0] * INPUT + tokens[1] * OUTPUT


@dataclass(eq=False)
class Charge:
    """One attempt, in nano-dollars. held: what a budget is to count. cost: what it came to in truth. order: of its
    reservation among all that happened. closed: the same of its end."""

    at: float
    order: int
    reserved: int
    held: int
    cost: int = 0
    closed: float = math.inf


@dataclass
class Count:
    """Everything that was ever reserved, in order, and the limits in nano-dollars with their windows."""

    limits: tuple[tuple[int, float], ...]
    charges: list[Charge] = field(default_factory=list)
    happened: int = 0
    refusals: Counter[float] = field(default_factory=Counter)
    """By the window that was full."""

    def held(self, span: float, now: float) -> int:
        total = 0
        for charge in reversed(self.charges):
            if charge.at + span <= now:
                break
            total += charge.held
        return total

    def exceeded(self, now: float, longer: float = 1.0) -> bool:
        return any(self.held(span * longer, now) >= limit for limit, span in self.limits)

    def reserve(self, amount: int, now: float, *, checked: bool = True) -> Charge:
        """It was granted: then it fits."""
        for limit, span in self.limits if checked else ():
            assert self.held(span, now) + amount <= limit, "granted, and it does not fit"
        self.happened += 1
        self.charges.append(Charge(now, self.happened, amount, amount))
        return self.charges[-1]

    def refuse(self, amount: int, now: float) -> None:
        """It was refused: then it does not fit."""
        full = [span for limit, span in self.limits if self.held(span * LONGER, now) + amount > limit]
        assert full, "refused, and it fits"
        self.refusals[full[0]] += 1

    def close(self, charge: Charge, held: int, cost: int) -> None:
        self.happened += 1
        charge.held, charge.cost, charge.closed = held, cost, self.happened

    def overdrawn(self, most_in_flight: int) -> int:
        """The most by which any window was overdrawn in truth; that it is within the bound is asserted."""
        worst = 0
        for limit, span in self.limits:
            first = 0
            for last, newest in enumerate(self.charges):
                while self.charges[first].at + span <= newest.at:
                    first += 1
                window = self.charges[first : last + 1]  # the fullest windows end with a reservation
                in_flight = [each for each in window if each.closed > newest.order]
                over_by_now = [each for each in window if each.closed < newest.order]
                assert len(in_flight) <= most_in_flight
                bound = sum(max(0, each.cost - each.reserved) for each in in_flight)
                bound += sum(max(0, each.cost - each.held) for each in over_by_now)
                over = sum(each.cost for each in window) - limit
                assert over <= bound, "more was spent than the limit and what was in flight"
                worst = max(worst, over)
        return worst


class Percentile:
    """What is reserved for an answer without a limit, by its definition."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def value(self) -> int:
        last = sorted(self.seen[-512:])
        if not last:
            return 1024
        covers = next(value for rank, value in enumerate(last, 1) if rank >= 0.95 * len(last))
        return covers if len(last) >= 20 else max(covers, 1024)


SLOTS = 6
PATIENT = {"connect_timeout": None, "request_timeout": 7_200.0}
ENDINGS = {
    "whole": 60, "in part": 6, "broken off, known": 8, "broken off, unknown": 8, "failed": 6, "refused": 4, "not sent": 4,
    "given up, reported": 2, "given up, unknown": 2,
}  # fmt: skip


class World:
    """An engine with a budget, requests, and the answers of a provider; ``count`` follows every decision."""

    def __init__(self, seed: int, budget: Budget) -> None:
        price = {"input": INPUT / 1_000, "output": OUTPUT / 1_000}
        self.rig = Rig(
            deployment(
                price=price, budget=budget, timeouts=PATIENT, breaker={"failure_threshold": 10_000},
                serving={"max_concurrent": SLOTS}, retry={"max_retries": 2, "initial_backoff": 5.0},
            )
        )  # fmt: skip
        limits = ((budget.max_spend_per_hour_usd, HOUR), (budget.max_spend_per_day_usd, DAY))
        self.count = Count(tuple((round(limit * 1e9), span) for limit, span in limits if limit is not None))
        self.rejects = budget.on_exceeded == "reject"
        self.rng = random.Random(seed)
        self.outputs = Percentile()
        self.asked: dict[int, tuple[int, int | None]] = {}
        """Input and, where there is one, the limit on the output."""
        self.running: dict[int, Charge] = {}
        self.endings: Counter[str] = Counter()
        self.bill: Counter[str] = Counter()
        """Attempts that cost something, by how well that is known, and what (in nano-dollars)."""
        self.announced = self.starts_while_exceeded = 0
        self._left_since_said = True
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0

    def at(self, when: float, do: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._due, (when, self._order, do))

    def run(self) -> None:
        rig = self.rig
        while self._due or rig.metrics.queued + rig.metrics.waiting:
            due = self._due[0][0] if self._due else math.inf
            wakes = rig.engine.deadline()
            if wakes is not None and wakes < due:
                rig.now = max(rig.now, wakes)
                self._follow(rig.tell(Tick()))
            else:
                rig.now = max(rig.now, due)
                heapq.heappop(self._due)[2]()

    # Requests.

    def ask(self, request_id: int) -> None:
        rng = self.rng
        limit = rng.randrange(50, 2_000) if rng.random() < 0.6 else None
        self.asked[request_id] = (rng.randrange(10, 3_000), limit)
        batch = OPEN_ENDED if limit is None else BATCH
        self._follow(self.rig.submit(request_id, tokens=(self.asked[request_id][0], limit or 1_024), batch=batch))

    def _follow(self, effects: Sequence[Effect]) -> None:
        """What the engine decided, in order."""
        for effect in effects:
            if isinstance(effect, StartAttempt):
                self._started(effect.request_id)
            elif isinstance(effect, Complete) and isinstance(effect.error, BudgetExceeded):
                self.count.refuse(self._estimate(effect.request_id), self.rig.now)
            elif isinstance(effect, Notice) and effect.kind == "budget" and not self.rejects:
                assert self.count.exceeded(self.rig.now, LONGER), "said, and it is not so"
                assert self._left_since_said, "said twice"
                self._left_since_said = False
                self.announced += 1
        self._look()

    def _look(self) -> None:
        if not self.count.exceeded(self.rig.now):
            self._left_since_said = True

    def _estimate(self, request_id: int) -> int:
        input_tokens, limit = self.asked[request_id]
        return nano((input_tokens, self.outputs.value() if limit is None else limit))

    def _started(self, request_id: int) -> None:
        rig, rng = self.rig, self.rng
        self._look()
        if not self.rejects and self.count.exceeded(rig.now):
            self.starts_while_exceeded += 1
            if rig.engine._lanes[0].deployment.spending.on_exceeded == "throttle":
                assert len(self.running) < SLOTS // 2, "exceeded, and more than half of the slots run"
        charge = self.count.reserve(self._estimate(request_id), rig.now, checked=self.rejects)
        self.running[request_id] = charge
        assert len(self.running) <= SLOTS
        (ending,) = rng.choices(list(ENDINGS), list(ENDINGS.values()))
        self.endings[ending] += 1
        if ending.startswith("broken off"):
            rig.commit(request_id)
        elif ending != "not sent":
            rig.send(request_id)
        attempt = rig.started[request_id]
        if ending.startswith("given up"):
            self.at(rig.now + rng.uniform(1, 60), lambda: self._give_up(request_id, attempt, ending, charge))
        else:
            self.at(rig.now + rng.uniform(1, 240), lambda: self._end(request_id, attempt, ending, charge))

    # Answers.

    def _used(self, request_id: int) -> tuple[int, int]:
        """What an attempt used in truth: never more output than its limit, now and then ten times what is usual."""
        input_tokens, limit = self.asked[request_id]
        output = int(self.rng.lognormvariate(5.5, 1.6))
        return int(input_tokens * self.rng.uniform(0.7, 1.6)), output if limit is None else min(limit, output)

    def _end(self, request_id: int, attempt: StartAttempt, ending: str, charge: Charge) -> None:
        used = self._used(request_id)
        cost, error, usage, sent = nano(used), None, None, True
        held = charge.reserved  # while it is not known
        if ending == "whole":
            usage, held = TokenUsage(*used), cost
        elif ending == "in part":
            usage, held = TokenUsage(used[0], 0, provenance="lower_bound"), max(held, used[0] * INPUT)
        elif ending == "broken off, known":
            part = (used[0], used[1] // 2)
            usage, held = TokenUsage(*part, provenance="lower_bound"), max(held, nano(part))
            error = StreamInterrupted(None, usage, NetworkError())
        elif ending == "broken off, unknown":
            error = StreamInterrupted(None, None, NetworkError())
        elif ending == "failed":
            error = ServerError(500)
        elif ending == "refused":
            attempt.exchange.receive_head(429, EVENT_STREAM, self.rig.now, 0.0)
            error, held, cost = RateLimited("openai", 2.0), 0, 0
        else:
            error, held, cost, sent = NetworkError(), 0, 0, False
        self._report(request_id, attempt, error, usage, sent, charge, held, cost)

    def _give_up(self, request_id: int, attempt: StartAttempt, ending: str, charge: Charge) -> None:
        del self.running[request_id]
        self._follow(self.rig.tell(Cancel(request_id)))
        used = self._used(request_id)
        usage = TokenUsage(*used) if ending == "given up, reported" else None
        held = charge.reserved if usage is None else nano(used)

        def report() -> None:
            self._report(request_id, attempt, NetworkError(), usage, True, charge, held, nano(used))

        self.at(self.rig.now + self.rng.uniform(0, 30), report)

    def _report(
        self, request_id: int, attempt: StartAttempt, error: InferenceError | None, usage: TokenUsage | None,
        sent: bool, charge: Charge, held: int, cost: int,
    ) -> None:  # fmt: skip
        self.running.pop(request_id, None)
        self._look()
        self.count.close(charge, held, cost)
        self._look()
        if error is None and usage is not None:
            self.outputs.seen.append(usage.output_tokens)
        if usage is not None:
            how = "exact" if usage.provenance == "exact" else "estimated"
            self.bill[how] += nano((usage.input_tokens, usage.output_tokens))
        elif held:
            self.bill["unknown"] += 1
        self._follow(self.rig.tell(AttemptEnded(request_id, attempt.attempt, error, usage, sent)))

    def check(self) -> None:
        """When all is over: the engine's sums are the count's."""
        rig, count = self.rig, self.count
        assert not self.running and rig.metrics.accounted == rig.metrics.submitted == len(self.asked)
        (totals,) = rig.metrics.costs.values()
        assert (totals.exact_usd, totals.estimated_usd) == (self.bill["exact"] / 1e9, self.bill["estimated"] / 1e9)
        assert totals.unknown == rig.metrics.unknown_usage == self.bill["unknown"]
        ledger = rig.engine._lanes[0].budget
        assert ledger is not None
        for (_, span), spent in zip(count.limits, ledger.spent(rig.now), strict=True):
            assert count.held(span, rig.now) <= round((spent or 0.0) * 1e9) <= count.held(span * LONGER, rig.now)


def a_day(seed: int, budget: Budget, requests: int) -> World:
    """27 hours, quiet and busy ones: in the busy ones the hour is too short, and in the end the day is."""
    world = World(seed, budget)
    busy = [world.rng.choice((0.3, 1.0, 3.0)) for _ in range(27)]
    hours = world.rng.choices(range(27), busy, k=requests)
    for request_id, hour in enumerate(hours):
        world.at(world.rig.now + (hour + world.rng.random()) * HOUR, lambda request_id=request_id: world.ask(request_id))
    world.run()
    world.check()
    return world


@pytest.mark.parametrize("seed", range(1, 7))
def test_a_day_costs_its_budget_and_at_most_what_was_in_flight(seed: int) -> None:
    world = a_day(seed, Budget(1.0, 16.0), 2_500)
    given_up = world.endings["given up, reported"] + world.endings["given up, unknown"]
    overdrawn = world.count.overdrawn(SLOTS + given_up)
    assert world.count.refusals[HOUR] > 100 and world.count.refusals[DAY] > 20
    assert min(world.endings[ending] for ending in ENDINGS) > 10
    assert overdrawn > 0, "answers that are dearer than was reserved do overdraw it: the bound is not idle"
    assert len(world.count.charges) > 1_000


@pytest.mark.parametrize("action", ["warn", "throttle"])
def test_a_budget_that_lets_everything_through_says_so_once_each_time(action: str) -> None:
    world = a_day(7, Budget(1.0, 16.0, action), 1_200)
    assert not world.count.refusals
    assert world.starts_while_exceeded > 50
    assert 2 <= world.announced < world.starts_while_exceeded


@pytest.mark.parametrize("seed", range(2))
def test_the_ledger_alone(seed: int) -> None:
    """Many more reservations, of a ledger without an engine, with an instant to come back told for each refusal."""
    rng = random.Random(seed)
    ledger, count = BudgetLedger(Budget(1.0, 16.0)), Count(((10**9, HOUR), (16 * 10**9, DAY)))
    now, open_ones, granted = 0.0, list[tuple[BudgetReservation, Charge]](), 0
    for _ in range(4_500):
        now += rng.expovariate(1 / 20.0)
        amount = rng.randrange(1, 16_000_000)
        answer = ledger.reserve(amount / 1e9, now)
        if isinstance(answer, BudgetReservation):
            granted += 1
            open_ones.append((answer, count.reserve(amount, now)))
        else:
            count.refuse(amount, now)
            assert answer.retry_at is not None and now < answer.retry_at <= now + DAY * LONGER
        while open_ones and rng.random() < 0.55:
            reservation, charge = open_ones.pop(rng.randrange(len(open_ones)))
            match rng.randrange(6):
                case 0:
                    ledger.cancel(reservation, now)
                    count.close(charge, 0, 0)
                case 1:
                    ledger.settle(reservation, None, now)
                    count.close(charge, charge.reserved, charge.reserved)
                case _:
                    cost = int(charge.reserved * rng.uniform(0.2, 1.6))
                    ledger.settle(reservation, cost / 1e9, now)
                    count.close(charge, cost, cost)
    assert granted > 1_000 and count.refusals[HOUR] > 200 and count.refusals[DAY] > 20
    assert count.overdrawn(granted) > 0
