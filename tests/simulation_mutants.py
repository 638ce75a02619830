"""Defects to be planted in the engine, one at a time, each of which the simulator has to find.

The first are those of the design: the mistakes that others have made. A mutant says which seed finds it, and by which
invariant. `python tests/simulation_mutants.py [NAME …]` looks for such seeds anew, from seed 0 upwards, as
`remote-core simulate --seeds` would meet them, and says how long that took.
"""

from __future__ import annotations

import itertools
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from sansio import circuits, classify, queue, session, sse
from sansio.batch import TokenEstimate, Tokens, TokensBuilder, TokenUsage
from sansio.budget import BudgetAction, BudgetLedger, BudgetRefusal, OutputPercentile
from sansio.circuit_breaker import CircuitBreaker, CircuitPermit, CircuitState, Outcome
from sansio.cost import CostLedger
from sansio.engine import RemoteEngineCore
from sansio.errors import BadRequest, EngineClosed, Internal, LimitExceeded, StreamInterrupted
from sansio.events import Cancel, Complete, Drain, HeadReceived
from sansio.exchange import Exchange
from sansio.lane import Lane, Lease, Request, RequestState
from sansio.rate_limit import Permit, RateLimiter
from sansio.registry import Registry
from sansio.retry import Attempt, GiveUp, RetryBudget, RetryEngine
from sansio.session import AuthVerdict, RemoteSession
from sansio.sessions import Sessions
from sansio.simulation.scenarios.run import run
from sansio.simulation.scenarios.sweep import plan_of
from sansio.timers import Timers

Patch = pytest.MonkeyPatch


@dataclass(frozen=True, slots=True)
class Mutant:
    """plant: puts the defect in. seed: of a run that finds it. number: the invariant that this run finds broken."""

    plant: Callable[[Patch], None]
    seed: int
    number: int


def fact(patch: Patch, kind: type[Any], method: Callable[..., None]) -> None:
    """Another method for one class of facts: the engine finds them in a table."""
    table = dict(RemoteEngineCore._FACTS)
    table[kind] = (table[kind][0], method)
    patch.setattr(RemoteEngineCore, "_FACTS", table)


# ---- the design's own -------------------------------------------------------------------------------------------------


def replay_after_commit(patch: Patch) -> None:
    decide = RetryEngine.decide

    def wrong(self: RetryEngine, attempt: Attempt, error: Any, now: float, deadline: float | None) -> Any:
        if isinstance(error, StreamInterrupted) and error.cause is not None:
            error = error.cause
        return decide(self, replace(attempt, committed=False), error, now, deadline)

    patch.setattr(RetryEngine, "decide", wrong)


def permit_never_taken(patch: Patch) -> None:
    def wrong(self: RateLimiter, requests: int, input_tokens: int, output_tokens: int, now: float) -> Permit:
        self._advance(now)
        permit = self._grant(self._charged(requests, input_tokens, output_tokens), self._now, input_tokens, output_tokens)
        for dimension, charge in zip(self._dimensions, permit.charges, strict=True):
            dimension.ledger.edit(charge, 0, self._now)
        return permit

    patch.setattr(RateLimiter, "reserve", wrong)


def half_open_without_probe_limit(patch: Patch) -> None:
    acquire = CircuitBreaker.acquire

    def wrong(self: CircuitBreaker, now: float) -> Any:
        if self.state(now) is not CircuitState.HALF_OPEN:
            return acquire(self, now)
        permit = CircuitPermit(self._generation, True, self)
        self._probes[permit] = self._now + self._config.probe_timeout
        return permit

    patch.setattr(CircuitBreaker, "acquire", wrong)


def success_at_first_byte(patch: Patch) -> None:
    right = RemoteEngineCore._head_received

    def wrong(self: RemoteEngineCore, event: HeadReceived) -> None:
        right(self, event)
        lease = self._lease(event)
        if lease is not None and event.head.status == 200:
            lease.lane.circuit.breaker.record(lease.permit, Outcome.SUCCESS, self._registry.now)

    fact(patch, HeadReceived, wrong)


def stale_reports_counted(patch: Patch) -> None:
    record = CircuitBreaker.record

    def wrong(self: CircuitBreaker, permit: CircuitPermit, outcome: Outcome, now: float) -> None:
        if not permit.probe and self.state(now) is CircuitState.CLOSED:
            permit.generation = self._generation
        record(self, permit, outcome, now)

    patch.setattr(CircuitBreaker, "record", wrong)


def slot_leaked_on_cancel(patch: Patch) -> None:
    right = RemoteEngineCore._cancel

    def wrong(self: RemoteEngineCore, event: Cancel) -> None:
        request = self._registry.requests.get(event.request_id)
        running = request is not None and request.lease is not None
        right(self, event)
        if running and request is not None:
            request.lane.running += 1

    fact(patch, Cancel, wrong)


def throttle_pauses_only_its_own(patch: Patch) -> None:
    patch.setattr(RateLimiter, "observe_throttled", lambda self, hint, now: None)


def idle_signal_to_the_wrong_slot(patch: Patch) -> None:
    right = RemoteEngineCore._let_go

    def wrong(self: RemoteEngineCore, request: Request) -> None:
        right(self, request)
        if len(self._lanes) > 1:
            request.lane.running += 1
            self._lanes[(request.lane.index + 1) % len(self._lanes)].running -= 1

    patch.setattr(RemoteEngineCore, "_let_go", wrong)


def refresh_storm(patch: Patch) -> None:
    right = RemoteSession.unauthorized
    patch.setattr(RemoteSession, "unauthorized", lambda self, generation, now: right(self, self.generation, now))


def lease_settled_twice(patch: Patch) -> None:
    right = Lease.end

    def wrong(self: Lease, *args: Any, **options: Any) -> None:
        right(self, *args, **options)
        self.ended = self.accounted = False
        right(self, *args, **options)

    patch.setattr(Lease, "end", wrong)


def retry_after_undercut(patch: Patch) -> None:
    right = RetryEngine._hint

    def wrong(self: RetryEngine, error: Any) -> float | None:
        hint = right(self, error)
        return None if hint is None else hint / 2

    patch.setattr(RetryEngine, "_hint", wrong)


def queue_that_overtakes(patch: Patch) -> None:
    right = queue._Row.first

    def wrong(self: Any) -> Any:
        return next(reversed(self.new.values())) if self.new else right(self)

    patch.setattr(queue._Row, "first", wrong)


def deadline_without_queue_time(patch: Patch) -> None:
    init, start = Request.__init__, RemoteEngineCore._start

    def wrong_init(self: Request, *args: Any) -> None:
        init(self, *args)
        self.deadline = self.entry.deadline = None

    def wrong_start(self: RemoteEngineCore, request: Request, lease: Lease) -> None:
        if request.deadline is None and request.add.timeout is not None:
            request.deadline = self._registry.now + request.add.timeout
        start(self, request, lease)

    patch.setattr(Request, "__init__", wrong_init)
    patch.setattr(RemoteEngineCore, "_start", wrong_start)


def unknown_usage_is_zero(patch: Patch) -> None:
    right = Lease.account

    def wrong(self: Lease, usage: TokenUsage | None, now: float, *, refused: bool = False) -> None:
        right(self, usage or TokenUsage(), now, refused=refused)

    patch.setattr(Lease, "account", wrong)


# ---- ours -------------------------------------------------------------------------------------------------------------


def one_attempt_too_many(patch: Patch) -> None:
    decide = RetryEngine.decide

    def wrong(self: RetryEngine, attempt: Attempt, *rest: Any) -> Any:
        return decide(self, replace(attempt, number=max(1, attempt.number - 1)), *rest)

    patch.setattr(RetryEngine, "decide", wrong)


def retry_budget_ignored(patch: Patch) -> None:
    patch.setattr(RetryBudget, "try_retry", lambda self, now: True)


def done_is_proof_enough(patch: Patch) -> None:
    right = Exchange._receive_stream

    def wrong(self: Exchange, data: bytes) -> Any:
        if b"[DONE]" in data and self._decoder is not None:
            chunks = right(self, data.partition(b"data: [DONE]")[0])
            return chunks if self.outcome is not None else self._succeed(chunks)
        return right(self, data)

    patch.setattr(Exchange, "_receive_stream", wrong)


def clean_end_is_proof_enough(patch: Patch) -> None:
    patch.setattr(Exchange, "_end_stream", lambda self: self._succeed([]))


def probe_lost_on_cancel(patch: Patch) -> None:
    right = Lease.cancel

    def wrong(self: Lease, sent: bool, now: float) -> None:
        breaker = self.lane.circuit.breaker
        kept = {permit: end for permit, end in breaker._probes.items() if permit is self.permit}
        right(self, sent, now)
        breaker._probes.update(kept)

    patch.setattr(Lease, "cancel", wrong)


def tokens_kept_on_unsent_cancel(patch: Patch) -> None:
    right = RateLimiter.cancel
    patch.setattr(RateLimiter, "cancel", lambda self, permit, sent, now: right(self, permit, True, now))


def refund_of_what_was_sent(patch: Patch) -> None:
    right = RateLimiter.cancel
    patch.setattr(RateLimiter, "cancel", lambda self, permit, sent, now: right(self, permit, False, now))


def expired_credential_sent(patch: Patch) -> None:
    patch.setattr(session._Lifetime, "hurry", lambda self, now, unix_now: False)
    right = RemoteSession.snapshot

    def wrong(self: RemoteSession, now: float, unix_now: float) -> Any:
        lifetime, self._lifetime = self._lifetime, None
        try:
            return right(self, now, unix_now)
        finally:
            self._lifetime = lifetime

    patch.setattr(RemoteSession, "snapshot", wrong)


def old_credential_retried(patch: Patch) -> None:
    patch.setattr(RemoteSession, "unauthorized", lambda self, generation, now: AuthVerdict.RETRY_NOW)


def retry_after_misread(patch: Patch) -> None:
    """The header's number is halved where it is parsed, so that nobody behind it could know."""
    right = classify._parse_seconds

    def wrong(text: str) -> float | None:
        seconds = right(text)
        return None if seconds is None else seconds / 2

    patch.setattr(classify, "_parse_seconds", wrong)


def told_twice(patch: Patch) -> None:
    right = Registry.finish

    def wrong(self: Registry, request: Request, error: Any) -> None:
        right(self, request, error)
        if error is not None and error.kind == "deadline_exceeded":
            self.effects.append(Complete(request.add.request_id, error))

    patch.setattr(Registry, "finish", wrong)


def timer_forgotten(patch: Patch) -> None:
    """Moving a timer to an earlier instant is overlooked."""
    right = Timers.set

    def wrong(self: Any, name: Any, when: float | None) -> None:
        known = self._armed.get(name)
        if known is None or when is None or when >= known[0]:
            right(self, name, when)

    patch.setattr(Timers, "set", wrong)


def clock_not_held(patch: Patch) -> None:
    """A clock that goes backwards is believed."""
    right = RemoteEngineCore.handle

    def wrong(self: RemoteEngineCore, event: Any, now: float, unix_now: float) -> Any:
        self._registry.now = -math.inf
        for group in self._roster.groups:
            group.limiter._now = min(group.limiter._now, now)
        return right(self, event, now, unix_now)

    patch.setattr(RemoteEngineCore, "handle", wrong)


def usage_counted_twice(patch: Patch) -> None:
    right = Registry.account

    def wrong(self: Registry, lane: Any, usage: TokenUsage | None) -> None:
        right(self, lane, usage)
        if usage is not None and usage.output_tokens > 5:
            right(self, lane, usage)

    patch.setattr(Registry, "account", wrong)


def fails_open(patch: Patch) -> None:
    """A failed probe closes the circuit."""
    right = CircuitBreaker._judge_probe

    def wrong(self: CircuitBreaker, permit: CircuitPermit, outcome: Outcome) -> None:
        right(self, permit, Outcome.SUCCESS if outcome is Outcome.FAILURE else outcome)

    patch.setattr(CircuitBreaker, "_judge_probe", wrong)


def waiting_out_forgotten(patch: Patch) -> None:
    """Nobody looks at an open circuit again when its time has come."""
    patch.setattr(circuits.Circuits, "arm", lambda self, circuit: None)


def pieces_run_together(patch: Patch) -> None:
    """An event that was cut between two pieces is lost."""
    right = sse.SseDecoder.feed

    def wrong(self: Any, data: Any) -> Any:
        piece = bytes(data)
        whole, end, _ = piece.rpartition(b"\n\n")
        return right(self, whole + end)

    patch.setattr(sse.SseDecoder, "feed", wrong)


def output_not_reserved(patch: Patch) -> None:
    patch.setattr(Lane, "estimate", lambda self, add: TokenEstimate(add.estimate.input_tokens, 0))


def middling_output_reserved(patch: Patch) -> None:
    """Of what answers have used of late the median is reserved."""

    def wrong(self: OutputPercentile) -> int:
        return self._sorted[len(self._sorted) // 2] if len(self._sorted) >= self._warm_up else self._default

    patch.setattr(OutputPercentile, "value", wrong)


# ---- giving up: what is done may be done, and was not called for ---------------------------------------------------------


def never_retried(patch: Patch) -> None:
    patch.setattr(RetryEngine, "decide", lambda self, attempt, error, *rest: GiveUp("not_retryable", error))


def given_up_one_early(patch: Patch) -> None:
    decide = RetryEngine.decide

    def wrong(self: RetryEngine, attempt: Attempt, *rest: Any) -> Any:
        return decide(self, replace(attempt, number=attempt.number + 1), *rest)

    patch.setattr(RetryEngine, "decide", wrong)


def retry_budget_halved(patch: Patch) -> None:
    right = RetryBudget.available
    patch.setattr(RetryBudget, "available", lambda self, now: right(self, now) - 5)


def server_error_is_a_bad_request(patch: Patch) -> None:
    right = classify._kind_of
    patch.setattr(classify, "_kind_of", lambda status: BadRequest if status >= 500 else right(status))


def failure_disguised(patch: Patch) -> None:
    """A 503 ends as a defect of ours."""
    right = Registry.finish

    def wrong(self: Registry, request: Request, error: Any) -> None:
        right(self, request, Internal("boom") if error is not None and error.status == 503 else error)

    patch.setattr(Registry, "finish", wrong)


def deadline_at_half_time(patch: Patch) -> None:
    init = Request.__init__

    def wrong(self: Request, add: Any, lane: Lane, order: int, now: float) -> None:
        init(self, add, lane, order, now)
        if add.timeout is not None:
            self.deadline = self.entry.deadline = now + add.timeout / 2

    patch.setattr(Request, "__init__", wrong)


def timeouts_cut_short(patch: Patch) -> None:
    right = Exchange._enter

    def wrong(self: Exchange, phase: Any, now: float, timeout: float | None) -> None:
        right(self, phase, now, None if timeout is None else timeout * 0.7)

    patch.setattr(Exchange, "_enter", wrong)


def refused_as_too_large(patch: Patch) -> None:
    """Every second request is."""
    right = RemoteEngineCore._refusal

    def wrong(self: RemoteEngineCore, request: Request) -> Any:
        return right(self, request) if request.order % 2 else LimitExceeded()

    patch.setattr(RemoteEngineCore, "_refusal", wrong)


def half_of_the_budget(patch: Patch) -> None:
    right = BudgetLedger.reserve

    def wrong(self: BudgetLedger, usd: float, now: float) -> Any:
        rejects = self.budget.on_exceeded is BudgetAction.REJECT
        spent = any(window.level(now) * 2 > window.limit for window in self._windows)
        return BudgetRefusal(None) if rejects and spent else right(self, usd, now)

    patch.setattr(BudgetLedger, "reserve", wrong)


def circuit_of_somebody_else(patch: Patch) -> None:
    right = circuits.Circuits._fail_behind

    def wrong(self: circuits.Circuits, circuit: Any) -> None:
        lanes = list(circuit.lanes)
        circuit.lanes += {id(each.lane): each.lane for each in self._registry.requests.values()}.values()
        right(self, circuit)
        circuit.lanes[:] = lanes

    patch.setattr(circuits.Circuits, "_fail_behind", wrong)


def nobody_waits_for_a_circuit(patch: Patch) -> None:
    patch.setattr(circuits.Circuits, "may_wait", lambda self, *rest: False)


def nobody_fails_for_a_pause(patch: Patch) -> None:
    patch.setattr(Lane, "cannot_wait", lambda self, pause, now: [])


def drain_fails_who_waits(patch: Patch) -> None:
    right = RemoteEngineCore._drain

    def wrong(self: RemoteEngineCore, event: Drain) -> None:
        right(self, event)
        for request in list(self._registry.requests.values()):
            if request.state is RequestState.QUEUED:
                self._registry.finish(request, EngineClosed())

    fact(patch, Drain, wrong)


def one_error_for_all(patch: Patch) -> None:
    """Those who fail because a refresh failed are told one error."""
    right = Registry.finish
    told: dict[Any, Any] = {}

    def wrong(self: Registry, request: Request, error: Any) -> None:
        shared = error is not None and error.kind == "unauthorized" and error.cause is not None
        right(self, request, told.setdefault(error.cause, error) if shared else error)

    patch.setattr(Registry, "finish", wrong)


def refreshed_for_nothing(patch: Patch) -> None:
    """A 401 has the credential rebuilt, and its request fails all the same."""
    right = Sessions.unauthorized

    def wrong(self: Sessions, request: Request, error: Any, lease: Lease, *, retryable: bool) -> bool:
        return right(self, request, error, lease, retryable=False)

    patch.setattr(Sessions, "unauthorized", wrong)


def partial_output_lost(patch: Patch) -> None:
    patch.setattr(TokensBuilder, "build", lambda self: Tokens())


def late_usage_costs_nothing(patch: Patch) -> None:
    right = RemoteEngineCore._late_usage

    def wrong(self: RemoteEngineCore, event: Any) -> None:
        costs, self._registry.costs = self._registry.costs, CostLedger()
        right(self, event)
        self._registry.costs = costs

    patch.setattr(RemoteEngineCore, "_late_usage", wrong)


DESIGNED: dict[str, Mutant] = {
    "replay_after_commit": Mutant(replay_after_commit, 2, 14),
    "permit_never_taken": Mutant(permit_never_taken, 0, 8),
    "half_open_without_probe_limit": Mutant(half_open_without_probe_limit, 1, 15),
    "success_at_first_byte": Mutant(success_at_first_byte, 1, 15),
    "stale_reports_counted": Mutant(stale_reports_counted, 6, 15),
    "slot_leaked_on_cancel": Mutant(slot_leaked_on_cancel, 0, 24),
    "throttle_pauses_only_its_own": Mutant(throttle_pauses_only_its_own, 3, 12),
    "idle_signal_to_the_wrong_slot": Mutant(idle_signal_to_the_wrong_slot, 0, 6),
    "refresh_storm": Mutant(refresh_storm, 10, 18),
    "lease_settled_twice": Mutant(lease_settled_twice, 0, 10),
    "retry_after_undercut": Mutant(retry_after_undercut, 3, 12),
    "queue_that_overtakes": Mutant(queue_that_overtakes, 0, 7),
    "deadline_without_queue_time": Mutant(deadline_without_queue_time, 0, 11),
    "unknown_usage_is_zero": Mutant(unknown_usage_is_zero, 0, 8),
}

OURS: dict[str, Mutant] = {
    "one_attempt_too_many": Mutant(one_attempt_too_many, 2, 11),
    "retry_budget_ignored": Mutant(retry_budget_ignored, 35, 13),
    "done_is_proof_enough": Mutant(done_is_proof_enough, 6, 20),
    "clean_end_is_proof_enough": Mutant(clean_end_is_proof_enough, 17, 20),
    "probe_lost_on_cancel": Mutant(probe_lost_on_cancel, 17, 16),
    "tokens_kept_on_unsent_cancel": Mutant(tokens_kept_on_unsent_cancel, 12, 24),
    "refund_of_what_was_sent": Mutant(refund_of_what_was_sent, 0, 8),
    "expired_credential_sent": Mutant(expired_credential_sent, 10, 18),
    "old_credential_retried": Mutant(old_credential_retried, 3, 18),
    "retry_after_misread": Mutant(retry_after_misread, 14, 12),
    "told_twice": Mutant(told_twice, 0, 4),
    "timer_forgotten": Mutant(timer_forgotten, 1, 11),
    "clock_not_held": Mutant(clock_not_held, 21, 23),
    "usage_counted_twice": Mutant(usage_counted_twice, 0, 21),
    "fails_open": Mutant(fails_open, 1, 15),
    "waiting_out_forgotten": Mutant(waiting_out_forgotten, 1, 15),
    "pieces_run_together": Mutant(pieces_run_together, 0, 4),
    "output_not_reserved": Mutant(output_not_reserved, 0, 8),
    "middling_output_reserved": Mutant(middling_output_reserved, 1, 8),
    "never_retried": Mutant(never_retried, 1, 27),
    "given_up_one_early": Mutant(given_up_one_early, 1, 27),
    "retry_budget_halved": Mutant(retry_budget_halved, 2, 27),
    "server_error_is_a_bad_request": Mutant(server_error_is_a_bad_request, 1, 27),
    "failure_disguised": Mutant(failure_disguised, 1, 27),
    "deadline_at_half_time": Mutant(deadline_at_half_time, 0, 27),
    "timeouts_cut_short": Mutant(timeouts_cut_short, 5, 27),
    "refused_as_too_large": Mutant(refused_as_too_large, 0, 27),
    "half_of_the_budget": Mutant(half_of_the_budget, 42, 27),
    "circuit_of_somebody_else": Mutant(circuit_of_somebody_else, 2, 27),
    "nobody_waits_for_a_circuit": Mutant(nobody_waits_for_a_circuit, 1, 27),
    "nobody_fails_for_a_pause": Mutant(nobody_fails_for_a_pause, 3, 27),
    "drain_fails_who_waits": Mutant(drain_fails_who_waits, 20, 27),
    "one_error_for_all": Mutant(one_error_for_all, 15, 4),
    "refreshed_for_nothing": Mutant(refreshed_for_nothing, 3, 27),
    "partial_output_lost": Mutant(partial_output_lost, 2, 4),
    "late_usage_costs_nothing": Mutant(late_usage_costs_nothing, 0, 21),
}

MUTANTS = DESIGNED | OURS


def find(plant: Callable[[Patch], None], seconds: float = 60.0) -> tuple[int, int, float] | None:
    """The first seed that finds the defect, by which invariant, after how many seconds of CPU; ``None``: none in time."""
    begin = time.process_time()
    for seed in itertools.count():
        with pytest.MonkeyPatch.context() as patch:
            plant(patch)
            violation = run(plan_of(seed)).violation
        spent = time.process_time() - begin
        if violation is not None:
            return seed, violation.number, spent
        if spent > seconds:
            break
    return None


if __name__ == "__main__":
    for name in sys.argv[1:] or list(MUTANTS):
        sys.stdout.write(f"{name:<36} {find(MUTANTS[name].plant)}\n")
        sys.stdout.flush()
