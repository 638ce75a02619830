"""What must hold in every cluster, whatever goes wrong in it. It counts for itself: every grant of every process, by hand.

8   No span holds more than the limit, over all processes together; no more run at a time than may. What counts is what a
    grant was charged, or what it used where that is less. In approximate mode the stated bound is added.
9   Nothing waits in vain (`process.py`: a promised instant is neither too early nor too late).
10  What a limiter counts is what its own process was charged, from the charge to the end of its span, and what runs. What
    the store counts for all of them, in strict mode, is no less than what they were charged.
23  No clock that goes backwards lets more go: all this holds by clocks that stutter.
28  Nothing is granted past a lease, but for a local share where that was chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from ...batch import TokenUsage
from ...cluster.store import StoreReply, Taken
from ...rate_limit import Permit
from ..judge.violation import InvariantViolated
from .bounds import local_share
from .naive_provider import Amounts
from .plan import ClusterPlan, FailOver
from .process import Process
from .tally import Dimension, Entry, Tally, dimensions_of

_HELD_LONGER: Final = 1.001
"""A limiter may hold a charge this many times as long as it counts (its buckets of time)."""

_GRAIN: Final = 1e-6


class Grant:
    """One request that was let go. held: what it was charged for each dimension, before anything was known of its use."""

    __slots__ = ("exact", "held", "kept", "late", "life", "over", "together")

    def __init__(self, life: int, held: Sequence[int]) -> None:
        self.life = life
        self.held = tuple(held)
        self.over = False
        self.together: list[Entry] = []
        """Its entries in the tallies of all processes, and in those of its own."""
        self.exact: list[Entry] = []
        self.kept: list[Entry] = []
        self.late: list[Entry] = []


class _Books:
    """What one process was charged, by its own clock: what counts in a span, and what may still be held."""

    __slots__ = ("exact", "kept", "late", "running")

    def __init__(self, dimensions: Sequence[Dimension]) -> None:
        self.exact = [Tally(each.span) for each in dimensions]
        self.kept = [Tally(each.span * _HELD_LONGER + _GRAIN) for each in dimensions]
        self.late = [Tally(each.span) for each in dimensions]
        self.running = 0


class ClusterJudge:
    """Hears of every grant and of its end.

    spans: for how long what is granted counts for all processes together, for each dimension. allowed: how much of a limit
    may be granted then.
    """

    def __init__(self, plan: ClusterPlan, spans: Sequence[float], allowed: Callable[[int], int]) -> None:
        limits = plan.limits
        self.dimensions = dimensions_of(limits)
        self.most = [0] * len(self.dimensions)
        """The most that a span ever held."""
        self.grants = self.running = self.most_running = 0
        self._allowed = [allowed(each.limit) for each in self.dimensions]
        at_a_time = limits.concurrent_requests
        self._at_a_time = math.inf if at_a_time is None else allowed(at_a_time)
        self._together = [Tally(span) for span in spans]
        self._books: dict[int, _Books] = {}
        self._strict = limits.strict
        self._local = [local_share(plan, each.limit) for each in self.dimensions]
        forgets = any(isinstance(each, FailOver) for each in plan.troubles)
        self._store_counts_all = limits.strict and not forgets and not any(self._local)
        self._asked_at: dict[int, float] = {}
        """When each life put its last question."""

    # ---- what happens -------------------------------------------------------------------------------------------------

    def granted(self, process: Process, permit: Permit, estimate: Amounts, at: float) -> Grant:
        """A process has let a request go."""
        held, its_at = [charge.amount for charge in permit.charges], process.seen
        for dimension, amount in zip(self.dimensions, held, strict=True):
            if amount < estimate[dimension.kind]:
                said = f"charges {amount} for an estimate of {estimate[dimension.kind]}"
                raise InvariantViolated(8, f"life {process.life.number} {said}, of {dimension.field}")
        grant = Grant(process.life.number, held)
        books = self._books.setdefault(grant.life, _Books(self.dimensions))
        self.grants += 1
        self.running += 1
        books.running += 1
        for index, amount in enumerate(held):
            grant.together.append(self._together[index].add(at, amount))
            grant.exact.append(books.exact[index].add(its_at, amount))
            grant.kept.append(books.kept[index].add(its_at, amount))
        self._check_lease(process, its_at, books, grant)
        self._check_sums(at)
        return grant

    def ended(self, process: Process, grant: Grant, usage: TokenUsage | None) -> None:
        """A process knows that a request is over, and what it used; ``None``: nobody knows."""
        self._books[grant.life].running -= 1
        if usage is not None:
            self.corrected(grant, usage)
        self._check_level(process)

    def called_off(self, process: Process, grant: Grant) -> None:
        """A process has called off a request that was never sent."""
        self._books[grant.life].running -= 1
        self._edit(grant, [0] * len(self.dimensions))
        self._check_level(process)

    def asks(self, process: Process, at: float) -> None:
        """A process puts a question to the store."""
        self._asked_at[process.life.number] = at

    def heard(self, process: Process, reply: StoreReply, at: float) -> None:
        """A process has an answer. Whatever was granted before it asked was charged to the store's ledger before that, and
        what still counts now did so when the store answered."""
        if not self._store_counts_all or not isinstance(reply, Taken):
            return
        asked_at = self._asked_at[process.life.number]
        for dimension, tally, told in zip(self.dimensions, self._together, reply.levels, strict=False):
            if told < (counts := tally.at(at) - tally.after(asked_at)):
                raise InvariantViolated(10, f"the store tells of {told} of {dimension.field}, where a span holds {counts}")

    def stopped(self, grant: Grant) -> None:
        """It does not run any more, whether or not its process knows."""
        if not grant.over:
            grant.over = True
            self.running -= 1

    def corrected(self, grant: Grant, usage: TokenUsage) -> None:
        """What it used is known."""
        used = Amounts.of(usage.input_tokens, usage.output_tokens)
        self._edit(grant, [used[each.kind] for each in self.dimensions])

    def _edit(self, grant: Grant, used: Sequence[int]) -> None:
        books = self._books[grant.life]
        for index, amount in enumerate(used):
            self._together[index].edit(grant.together[index], min(grant.held[index], amount))
            books.exact[index].edit(grant.exact[index], amount)
            books.kept[index].edit(grant.kept[index], amount)
            if grant.late:
                books.late[index].edit(grant.late[index], amount)

    # ---- what must hold -----------------------------------------------------------------------------------------------

    def _check_sums(self, at: float) -> None:
        for index, tally in enumerate(self._together):
            total = tally.at(at)
            if total > self.most[index]:
                self.most[index] = total
                if total > self._allowed[index]:
                    dimension = self.dimensions[index]
                    more = "" if self._allowed[index] == dimension.limit else f" (with its bound {self._allowed[index]})"
                    raise InvariantViolated(8, f"{total} in a span, of {dimension.field}={dimension.limit}{more}")
        self.most_running = max(self.most_running, self.running)
        if self.running > self._at_a_time:
            raise InvariantViolated(8, f"{self.running} at a time, of concurrent_requests, and {self._at_a_time} may")

    def _check_lease(self, process: Process, its_at: float, books: _Books, grant: Grant) -> None:
        """Past its lease a process grants nothing, or no more than brings its own ledger to the local share."""
        late = its_at - process.leased_until
        if late < 0:
            return
        if self._strict:  # what was taken from the store does not count for the local share
            grant.late = [books.late[index].add(its_at, amount) for index, amount in enumerate(grant.held)]
        for index, tally in enumerate(books.late if self._strict else books.exact):
            if (counts := tally.at(its_at)) > self._local[index]:
                when = "that never had a lease" if late == math.inf else f"{late:.6f} s past its lease"
                field = self.dimensions[index].field
                raise InvariantViolated(28, f"life {process.life.number}, {when}, brings {field} to {counts}")

    def _check_level(self, process: Process) -> None:
        """Its limiter counts what the process was charged, and what runs."""
        books, life = self._books[process.life.number], process.life.number
        its_now = process.seen
        snapshot = process.limiter.snapshot(its_now)
        if snapshot.in_flight != books.running:
            raise InvariantViolated(10, f"life {life} counts {snapshot.in_flight} of {books.running} in flight")
        if self._strict:
            return  # it tells of all processes
        levels = (snapshot.requests, snapshot.tokens, snapshot.input_tokens, snapshot.output_tokens)
        for index, dimension in enumerate(self.dimensions):
            level = levels[dimension.kind]
            if level is None or dimension.field == "burst":
                continue
            least, most = books.exact[index].at(its_now), books.kept[index].at(its_now)
            if not least <= level.used <= most:
                raise InvariantViolated(
                    10, f"life {life} counts {level.used} of {dimension.field}, where its span holds {least} (kept: {most})"
                )
