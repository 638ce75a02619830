"""Defects to be planted in what processes share a limit by, one at a time, each of which a simulated cluster has to find.

As in `simulation_mutants.py`: a mutant says which seed of which scenario finds it, and by which invariant.
`python tests/cluster_mutants.py [NAME …]` looks for such seeds anew, from seed 0 upwards, and says how long that took.
"""

from __future__ import annotations

import itertools
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from sansio.cluster import limiters, strict_ledger
from sansio.cluster.approximate import ApproximateMember
from sansio.cluster.escrow import EscrowMember
from sansio.cluster.rights_bank import Moves, RightsBank, Terms, Visit
from sansio.cluster.shared_limiter import SharedRateLimiter
from sansio.cluster.store import Correction, StoreLost, StoreReply, Swapped, Take
from sansio.cluster.strict_ledger import StrictLedger
from sansio.gcounter import GCounter, WindowedCounters
from sansio.simulation.cluster.catalogue import cluster_plan
from sansio.simulation.cluster.run import run
from sansio.sliding_ledger import SlidingLedger
from sansio.strict_limiter import StrictRateLimiter

Patch = pytest.MonkeyPatch


@dataclass(frozen=True, slots=True)
class Mutant:
    """plant: puts the defect in. scenario, seed: of a run that finds it. number: the invariant that this finds broken."""

    plant: Callable[[Patch], None]
    scenario: str
    seed: int
    number: int


# ---- counters ---------------------------------------------------------------------------------------------------------


def late_delta_in_the_next_window(patch: Patch) -> None:
    right = WindowedCounters.merge

    def wrong(self: WindowedCounters, epoch: int, delta: GCounter) -> bool:
        return right(self, epoch if self._current is None else max(epoch, self._current), delta)

    patch.setattr(WindowedCounters, "merge", wrong)


def counters_added_when_merged(patch: Patch) -> None:
    def wrong(self: GCounter, other: GCounter) -> None:
        for replica, count in other._counts.items():
            self._counts[replica] = self._counts.get(replica, 0) + count

    patch.setattr(GCounter, "merge", wrong)


# ---- approximate ------------------------------------------------------------------------------------------------------


def raised_on_silence(patch: Patch) -> None:
    def wrong(self: ApproximateMember, now: float) -> None:
        self._rounds = 0
        self._given_back = False
        self._allowances = [quota.limit for quota in self._quotas]

    patch.setattr(ApproximateMember, "_unanswered", wrong)


def used_as_soon_as_claimed(patch: Patch) -> None:
    right = ApproximateMember.exchange

    def wrong(self: ApproximateMember, holdings: Any, now: float, unix_now: float) -> Any:
        question = right(self, holdings, now, unix_now)
        self._allowances = list(self._claims)
        return question

    patch.setattr(ApproximateMember, "exchange", wrong)


def the_silent_are_forgotten_at_once(patch: Patch) -> None:
    right = ApproximateMember._read

    def wrong(self: ApproximateMember, board: Any, now: float, unix_now: float) -> None:
        right(self, board, now, unix_now)
        self._peers = {name: peer for name, peer in self._peers.items() if not self._is_silent(peer, now)}

    patch.setattr(ApproximateMember, "_read", wrong)


def what_counts_is_not_claimed(patch: Patch) -> None:
    right = ApproximateMember.exchange

    def wrong(self: ApproximateMember, holdings: Any, now: float, unix_now: float) -> Any:
        return right(self, [holding._replace(level=0) for holding in holdings], now, unix_now)

    patch.setattr(ApproximateMember, "exchange", wrong)


def a_lease_without_end(patch: Patch) -> None:
    patch.setattr(SharedRateLimiter, "_allow", _allow_for_ever)


def _allow_for_ever(self: SharedRateLimiter, now: float) -> None:
    allowances = self._member.allowances(-math.inf)
    self._allowed_until = math.inf if any(allowances) else -math.inf
    for dimension, allowance in zip(self._dimensions, allowances, strict=False):
        dimension.ledger.allow(min(allowance, dimension.limit))
    if self._at_a_time is not None:
        self._concurrent = min(allowances[-1], self._at_a_time)


# ---- escrow -----------------------------------------------------------------------------------------------------------


def given_before_cooled(patch: Patch) -> None:
    right = RightsBank.visit

    def wrong(self: RightsBank, name: str, visit: Visit) -> Moves | None:
        return right(self, name, replace(visit, level=[0] * len(visit.level)))

    patch.setattr(RightsBank, "visit", wrong)


def spent_after_offered(patch: Patch) -> None:
    def wrong(self: EscrowMember, now: float) -> Sequence[int]:
        return [0] * len(self._held) if self._advance(now) >= self._lease_until or self._gone else list(self._held)

    patch.setattr(EscrowMember, "allowances", wrong)


def lease_from_the_answer(patch: Patch) -> None:
    right = EscrowMember._is_trusted

    def wrong(self: EscrowMember, bank: RightsBank, asked: Any, *, is_older: bool) -> bool:
        before = self._lease_until
        trusted = right(self, bank, asked, is_older=is_older)
        if self._lease_until > before:
            self._lease_until = self._now + self._lease
        return trusted

    patch.setattr(EscrowMember, "_is_trusted", wrong)


def reissued_without_a_span(patch: Patch) -> None:
    patch.setattr(Terms, "reissue", property(lambda self: self.lease * 1.02 + 0.1))


def lots_that_do_not_cool(patch: Patch) -> None:
    patch.setattr(Terms, "cooling", property(lambda self: 0.0))


def an_answer_applied_twice(patch: Patch) -> None:
    right = EscrowMember._is_trusted

    def wrong(self: EscrowMember, bank: RightsBank, asked: Any, *, is_older: bool) -> bool:
        before = list(self._held)
        trusted = right(self, bank, asked, is_older=is_older)
        if asked is not None and self._heard == asked.seq:
            self._held = [after + max(0, after - was) for after, was in zip(self._held, before, strict=True)]
        return trusted

    patch.setattr(EscrowMember, "_is_trusted", wrong)


def granted_before_the_answer(patch: Patch) -> None:
    right = EscrowMember.allowances

    def wrong(self: EscrowMember, now: float) -> Sequence[int]:
        held, pending = right(self, now), self._pending
        if any(held) and pending is not None and pending.question.document is not None:
            bank = RightsBank.decode(pending.question.document, self._terms)
            if bank is not None and self._member in bank.accounts:
                return bank.accounts[self._member].held
        return held

    patch.setattr(EscrowMember, "allowances", wrong)


def a_silent_answer_taken_for_a_yes(patch: Patch) -> None:
    right = EscrowMember.exchanged

    def wrong(self: EscrowMember, reply: StoreReply, holdings: Any, now: float, unix_now: float) -> bool:
        pending = self._pending
        if isinstance(reply, StoreLost) and pending is not None and pending.question.document is not None:
            reply = Swapped(True, pending.question.version + 1, pending.question.document, unix_now)
        return right(self, reply, holdings, now, unix_now)

    patch.setattr(EscrowMember, "exchanged", wrong)


def the_dead_keep_their_rights(patch: Patch) -> None:
    patch.setattr(RightsBank, "expire", lambda self: None)


def wall_clocks_tell_ages(patch: Patch) -> None:
    right = EscrowMember.exchanged

    def wrong(self: EscrowMember, reply: StoreReply, holdings: Any, now: float, unix_now: float) -> bool:
        again = right(self, reply, holdings, now, unix_now)
        if isinstance(reply, Swapped) and self._bank is not None:
            self._ages._known = {
                key: (since, age + abs(unix_now - reply.unix_now)) for key, (since, age) in self._ages._known.items()
            }
        return again

    patch.setattr(EscrowMember, "exchanged", wrong)


# ---- strict -----------------------------------------------------------------------------------------------------------


def used_past_the_shelf_life(patch: Patch) -> None:
    right = StrictRateLimiter.__init__

    def wrong(self: StrictRateLimiter, limits: Any, **rest: Any) -> None:
        right(self, limits, **rest)
        self._useful = 10.0 * limits.delivery_guard

    patch.setattr(StrictRateLimiter, "__init__", wrong)


def shelf_life_from_the_answer(patch: Patch) -> None:
    right = StrictRateLimiter.exchanged

    def wrong(self: StrictRateLimiter, reply: StoreReply, now: float, unix_now: float) -> None:
        self._asked_at = max(self._asked_at, now)
        right(self, reply, now, unix_now)

    patch.setattr(StrictRateLimiter, "exchanged", wrong)


def fail_over_not_noticed(patch: Patch) -> None:
    patch.setattr(StrictLedger, "_notice_loss", lambda self, request, member, terms: None)


def corrections_of_the_wrong_slot(patch: Patch) -> None:
    right = StrictLedger._correct

    def wrong(self: StrictLedger, request: Take, member: Any, terms: Any) -> None:
        here = tuple(Correction(self._now, each.changes, each.question) for each in request.corrections)
        for each in terms.dimensions:
            if each.span:
                self._rows[each.name].add(self._now // each.width, 0)
        right(self, replace(request, corrections=here), member, terms)

    patch.setattr(StrictLedger, "_correct", wrong)


def corrections_made_twice(patch: Patch) -> None:
    right = StrictLedger._correct
    patch.setattr(
        StrictLedger,
        "_correct",
        lambda self, request, member, terms: right(self, request, member._replace(number=0), terms),
    )


def local_share_not_withheld(patch: Patch) -> None:
    patch.setattr(limiters, "without", lambda limits, withheld: limits)


def strict_local_share_not_withheld(patch: Patch) -> None:
    right = StrictRateLimiter.__init__

    def wrong(self: StrictRateLimiter, limits: Any, **rest: Any) -> None:
        right(self, limits, **{**rest, "withheld": 0.0})

    patch.setattr(StrictRateLimiter, "__init__", wrong)


def slots_that_leave_early(patch: Patch) -> None:
    patch.setattr(strict_ledger, "_first", lambda dimension, now: (now - dimension.span) // dimension.width + 2)


def the_line_is_not_kept(patch: Patch) -> None:
    patch.setattr(StrictLedger, "_stand", lambda self, request, terms, granted: None)


# ---- all --------------------------------------------------------------------------------------------------------------


def charges_that_leave_early(patch: Patch) -> None:
    right = SlidingLedger.__init__

    def wrong(self: SlidingLedger, limit: int, window: float, guard: float = 0.0) -> None:
        right(self, limit, window * 0.98, guard)

    patch.setattr(SlidingLedger, "__init__", wrong)


MUTANTS: dict[str, Mutant] = {
    "late delta in the next window": Mutant(late_delta_in_the_next_window, "cluster_approximate", 0, 22),
    "counters added when merged": Mutant(counters_added_when_merged, "cluster_approximate", 0, 22),
    "raised on silence": Mutant(raised_on_silence, "cluster_approximate", 0, 8),
    "used as soon as claimed": Mutant(used_as_soon_as_claimed, "cluster_approximate", 4, 8),
    "the silent are forgotten at once": Mutant(the_silent_are_forgotten_at_once, "cluster_approximate", 3, 8),
    "what counts is not claimed": Mutant(what_counts_is_not_claimed, "cluster_approximate", 0, 8),
    "a lease without end": Mutant(a_lease_without_end, "cluster_approximate", 0, 28),
    "given before cooled": Mutant(given_before_cooled, "cluster_escrow", 1, 8),
    "spent after offered": Mutant(spent_after_offered, "cluster_escrow", 16, 8),
    "lease from the answer": Mutant(lease_from_the_answer, "cluster_escrow", 1, 28),
    "reissued without a span": Mutant(reissued_without_a_span, "cluster_escrow", 4, 8),
    "lots that do not cool": Mutant(lots_that_do_not_cool, "cluster_escrow", 37, 8),
    "an answer applied twice": Mutant(an_answer_applied_twice, "cluster_escrow", 1, 8),
    "granted before the answer": Mutant(granted_before_the_answer, "cluster_escrow", 6, 8),
    "a silent answer taken for a yes": Mutant(a_silent_answer_taken_for_a_yes, "cluster_escrow", 1, 28),
    "the dead keep their rights": Mutant(the_dead_keep_their_rights, "cluster_escrow", 1, 29),
    "wall clocks tell ages": Mutant(wall_clocks_tell_ages, "cluster_escrow", 1, 8),
    "used past the shelf life": Mutant(used_past_the_shelf_life, "cluster_strict", 2, 28),
    "shelf life from the answer": Mutant(shelf_life_from_the_answer, "cluster_strict", 2, 28),
    "fail-over not noticed": Mutant(fail_over_not_noticed, "cluster_strict", 8, 8),
    "corrections of the wrong slot": Mutant(corrections_of_the_wrong_slot, "cluster_strict", 47, 29),
    "corrections made twice": Mutant(corrections_made_twice, "cluster_strict", 37, 10),
    "local share not withheld": Mutant(local_share_not_withheld, "cluster_escrow", 13, 8),
    "strict local share not withheld": Mutant(strict_local_share_not_withheld, "cluster_strict", 23, 8),
    "slots that leave early": Mutant(slots_that_leave_early, "cluster_strict", 2, 10),
    "the line is not kept": Mutant(the_line_is_not_kept, "cluster_strict", 127, 17),
    "charges that leave early": Mutant(charges_that_leave_early, "cluster_escrow", 1, 8),
}
"""By what is wrong."""


def find(name: str) -> str:
    """The first seed whose run finds the defect by the mutant's invariant, is sound without it, and is done quickly."""
    mutant = MUTANTS[name]
    begin = time.process_time()
    others: set[int] = set()
    for seed in itertools.count():
        plan = cluster_plan(mutant.scenario, seed)
        if len(plan.lives) > MOST_LIVES:
            continue
        began = time.process_time()
        with pytest.MonkeyPatch.context() as patch:
            mutant.plant(patch)
            violation = run(plan).violation
        if violation is not None and violation.number == mutant.number:
            mutated = time.process_time() - began
            sound = run(plan).ok
            cost = time.process_time() - began + mutated
            if sound and cost < LONGEST_TEST:
                took = time.process_time() - begin
                said = f"seed {seed} in {took:.1f} s, {cost:.1f} s to test: {violation.number}, {violation.text}"
                return f"{name}: {said.splitlines()[0]}"
        elif violation is not None:
            others.add(violation.number)
        if time.process_time() - begin > LONGEST_SEARCH:
            return f"{name}: not found in the seeds up to {seed}, but for {sorted(others)}"
    raise AssertionError


MOST_LIVES = 8
"""Larger clusters are not looked at: what a small one finds is found sooner."""

LONGEST_TEST = 3.0
LONGEST_SEARCH = 100.0
"""Seconds of CPU: for one run without the defect and two with it, and for a search."""

if __name__ == "__main__":
    for each in sys.argv[1:] or MUTANTS:
        sys.stdout.write(f"{find(each)}\n")
        sys.stdout.flush()
