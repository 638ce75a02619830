"""`sansio.lane`: a lease takes everything an attempt needs or nothing, and gives it back once."""

from __future__ import annotations

import random
from typing import Any

import pytest
from engine_harness import BATCH, OPEN_ENDED, deployment
from engine_world_parts import CountingBreaker, CountingLimiter

from sansio.batch import TokenEstimate, TokenUsage
from sansio.budget import BudgetRefusal
from sansio.circuit_breaker import CircuitState
from sansio.deployment import RemoteEngineConfig
from sansio.errors import BadRequest, LimitExceeded, NetworkError
from sansio.events import AddRequest
from sansio.lane import Blocked, Lane, Lease, NoCredential, Rejected, Request, RequestState
from sansio.rate_limit import Wait
from sansio.secret import Credential
from sansio.session import SessionRebuildCause
from sansio.sharing import build_roster

LIMITS = {"requests_per_minute": 10, "tokens_per_minute": 100, "concurrent_requests": 2}
PRICE = {"input": 1_000_000.0, "output": 1_000_000.0}  # a dollar a token


def lane(credential: bool = True, **options: Any) -> Lane:
    """A lane of its own, with a credential."""
    one = deployment(**({"limits": LIMITS, "breaker": {"failure_threshold": 1, "open_duration": 30.0}} | options))
    found = build_roster(RemoteEngineConfig((one,)), {}, random.Random(1)).lanes["chat"]
    if credential:
        session = found.session.session
        session.report(session.begin_refresh(SessionRebuildCause.INITIAL, 0.0), Credential("sk-1"), 0.0, 0.0)
    return found


def request(of: Lane, *, tokens: tuple[int, int] = (5, 5), request_id: int = 1, **options: Any) -> Request:
    batch = options.pop("batch", BATCH)
    return Request(AddRequest(request_id, "chat", batch, TokenEstimate(*tokens), **options), of, request_id, 0.0)


def take(of: Lane, now: float = 0.0, **options: Any) -> Lease | Blocked:
    return of.take(request(of, **options), 1, now, now)


def lease(of: Lane, now: float = 0.0, **options: Any) -> Lease:
    taken = take(of, now, **options)
    assert isinstance(taken, Lease)
    return taken


def used(of: Lane, now: float = 0.0) -> tuple[int, int, int]:
    """Requests and tokens that count against the limit, and how many run."""
    levels = of.group.limiter.snapshot(now)
    assert levels.requests is not None and levels.tokens is not None
    return levels.requests.used, levels.tokens.used, levels.in_flight


def spent(of: Lane, now: float = 0.0) -> float | None:
    assert of.budget is not None
    return of.budget.spent(now)[0]


def fail(of: Lane, now: float = 0.0) -> None:
    """One failure, which opens the circuit of these lanes."""
    lease(of, now).end(NetworkError(), None, False, now)


# A request.


def test_a_request_starts_queued_with_a_deadline_counted_from_now() -> None:
    one = Request(AddRequest(7, "chat", BATCH, TokenEstimate(1, 1), timeout=5.0), lane(), 3, 100.0)
    assert (one.state, one.deadline, one.entry.deadline, one.order) == (RequestState.QUEUED, 105.0, 105.0, 3)
    assert one.entry.payload is one
    assert request(lane()).deadline is None


@pytest.mark.parametrize(("policy", "asked", "waits"), [
    ("reject", None, False), ("wait", None, True), ("reject", True, True), ("wait", False, False),
])  # fmt: skip
def test_whether_it_waits_for_a_circuit_is_its_own_word_or_else_the_deployments(
    policy: str, asked: bool | None, waits: bool
) -> None:
    assert request(lane(serving={"on_circuit_open": policy}), wait_for_circuit=asked).waits_for_circuit is waits


# What is reserved.


def test_a_limit_on_the_output_is_what_is_reserved() -> None:
    assert request(lane(), tokens=(5, 70)).estimate == TokenEstimate(5, 70)


def test_also_where_only_the_codec_knows_that_it_is_one() -> None:
    one = lane(limits={"output_tokens_per_minute": 1_000})
    for _ in range(20):
        one.outputs.add(200)
    limited = AddRequest(1, "chat", OPEN_ENDED, TokenEstimate(5, 900, True))
    assert Request(limited, one, 1, 0.0).estimate == TokenEstimate(5, 900, True)


@pytest.mark.parametrize(("limits", "reserved"), [
    ({}, (5, 200)), ({"output_tokens_per_minute": 50}, (5, 50)), ({"tokens_per_minute": 30}, (5, 25)),
    ({"tokens_per_minute": 3}, (5, 0)),
])  # fmt: skip
def test_without_one_it_is_the_95th_percentile_of_late_but_no_more_than_could_ever_be_granted(
    limits: dict[str, int], reserved: tuple[int, int]
) -> None:
    one = lane(limits=limits)
    for _ in range(20):
        one.outputs.add(200)
    assert request(one, batch=OPEN_ENDED, tokens=(5, 1_024)).estimate == TokenEstimate(*reserved)


# Taking.


def test_a_lease_takes_everything_at_once() -> None:
    one = lane(budget={"max_spend_per_hour_usd": 100.0}, price=PRICE)
    taken = lease(one)
    assert used(one) == (1, 10, 1)
    assert spent(one) == 10.0
    assert taken.credential.generation == taken.generation == 1
    assert not taken.permit.probe and not taken.key_permit.probe


def test_without_a_credential_nothing_is_held() -> None:
    one = lane(credential=False)
    assert take(one) == NoCredential()
    assert used(one) == (0, 0, 0)


@pytest.mark.parametrize("which", ["circuit", "key_circuit"])
def test_an_open_circuit_rejects_and_nothing_is_held(which: str) -> None:
    one = lane()
    circuit = getattr(one, which)
    circuit.breaker.force_open(30.0, 0.0)
    taken = take(one, 1.0)
    assert isinstance(taken, Rejected)
    assert taken.circuit is circuit
    assert taken.rejection.retry_at == 30.0
    assert used(one) == (0, 0, 0)


@pytest.mark.parametrize("block", ["key", "limit", "budget"])
def test_whatever_blocks_it_gives_the_probe_back(block: str) -> None:
    one = lane(budget={"max_spend_per_hour_usd": 50.0}, price=PRICE)
    tokens = (30, 30) if block == "budget" else (5, 5)
    if block == "limit":
        for _ in range(2):
            lease(one)
    one.circuit.breaker.force_open(10.0, 0.0)
    one.key_circuit.breaker.force_open(60.0 if block == "key" else 10.0, 0.0)
    kind = {"key": Rejected, "limit": Wait, "budget": BudgetRefusal}[block]
    for _ in range(3):
        assert isinstance(take(one, 10.0, tokens=tokens), kind)
        assert one.circuit.breaker.outstanding_probes == one.key_circuit.breaker.outstanding_probes == 0
    assert used(one, 10.0)[2] == (2 if block == "limit" else 0)


def test_a_request_larger_than_a_limit_is_not_made_to_wait() -> None:
    assert isinstance(take(lane(), tokens=(60, 60)), LimitExceeded)


def test_a_budget_that_does_not_cover_it_gives_the_limit_back() -> None:
    one = lane(budget={"max_spend_per_hour_usd": 9.0}, price=PRICE)
    assert isinstance(take(one), BudgetRefusal)
    assert used(one) == (0, 0, 0)


# Slots.


def test_a_lane_is_called_by_its_provider_in_errors() -> None:
    assert lane().provider == "openai"


def test_a_spent_budget_that_throttles_halves_the_slots_but_never_below_one() -> None:
    for slots, halved in ((8, 4), (3, 1), (1, 1)):
        budget = {"max_spend_per_hour_usd": 10.0, "on_exceeded": "throttle"}
        one = lane(budget=budget, price=PRICE, serving={"max_concurrent": slots})
        assert one.slots(0.0) == slots
        lease(one)
        assert one.slots(1.0) == halved
        assert one.slots(4_000.0) == slots


def test_time_matters_to_a_lane_where_a_request_may_run_out_of_it_or_a_throttled_one_waits_for_its_slot() -> None:
    budget = {"max_spend_per_hour_usd": 10.0, "on_exceeded": "throttle"}
    one = lane(budget=budget, price=PRICE)
    lease(one)
    assert one.deadline(1.0) is None  # nobody waits
    one.queue.push(request(one).entry, 1.0)
    assert one.deadline(1.0) == 3_600.0
    one.queue.push(request(one, request_id=2, timeout=50.0).entry, 1.0)
    assert one.deadline(1.0) == 50.0
    assert one.deadline(3_600.0) == 50.0
    assert lane().deadline(1.0) is None


def test_only_a_lease_on_a_circuit_that_is_not_closed_probes() -> None:
    for which in ("circuit", "key_circuit"):
        one = lane()
        assert not lease(one).probes
        getattr(one, which).breaker.force_open(10.0, 0.0)
        assert lease(one, 10.0).probes


# The end of a lease.


def test_success_charges_what_was_used_and_frees_the_rest() -> None:
    one = lane(budget={"max_spend_per_hour_usd": 100.0}, price=PRICE)
    lease(one).end(None, TokenUsage(2, 1), True, 1.0)
    assert used(one, 1.0) == (1, 3, 0)
    assert spent(one, 1.0) == 3.0


def test_unknown_usage_keeps_the_reservation() -> None:
    one = lane(budget={"max_spend_per_hour_usd": 100.0}, price=PRICE)
    lease(one).end(NetworkError(), None, True, 1.0)
    assert used(one, 1.0) == (1, 10, 0)
    assert spent(one, 1.0) == 10.0


@pytest.mark.parametrize(("usage", "counted"), [((1, 1), 10.0), ((20, 5), 25.0)])
def test_a_lower_bound_of_the_usage_only_raises_what_was_reserved(usage: tuple[int, int], counted: float) -> None:
    one = lane(budget={"max_spend_per_hour_usd": 100.0}, price=PRICE)
    lease(one).end(NetworkError(), TokenUsage(*usage, provenance="lower_bound"), True, 1.0)
    assert spent(one, 1.0) == counted
    assert used(one, 1.0)[1] == counted


def test_what_was_never_sent_comes_back_whole() -> None:
    one = lane(budget={"max_spend_per_hour_usd": 100.0}, price=PRICE)
    lease(one).end(NetworkError(), None, False, 1.0)
    assert used(one, 1.0) == (0, 0, 0)
    assert spent(one, 1.0) == 0.0


@pytest.mark.parametrize(("error", "state"), [
    (None, CircuitState.CLOSED), (NetworkError(), CircuitState.OPEN), (BadRequest(), CircuitState.CLOSED),
])  # fmt: skip
def test_the_endpoints_circuit_hears_of_failures_that_count(error: Any, state: CircuitState) -> None:
    one = lane()
    lease(one).end(error, None, True, 1.0)
    assert one.circuit.breaker.state(1.0) is state
    assert one.key_circuit.breaker.state(1.0) is CircuitState.CLOSED


def test_but_not_of_one_that_says_nothing_about_it() -> None:
    one = lane()
    one.circuit.breaker.force_open(10.0, 0.0)
    lease(one, 10.0).end(NetworkError(), None, True, 11.0, excused=True)
    assert one.circuit.breaker.state(11.0) is CircuitState.HALF_OPEN
    assert one.circuit.breaker.outstanding_probes == 0


def test_a_failure_is_no_verdict_on_the_key() -> None:
    one = lane()
    one.key_circuit.breaker.force_open(10.0, 0.0)
    lease(one, 10.0).end(NetworkError(), None, True, 11.0)
    assert one.key_circuit.breaker.state(11.0) is CircuitState.HALF_OPEN
    assert one.key_circuit.breaker.outstanding_probes == 0


def test_a_success_closes_both_circuits() -> None:
    one = lane()
    for circuit in (one.circuit, one.key_circuit):
        circuit.breaker.force_open(10.0, 0.0)
    lease(one, 10.0).end(None, None, True, 11.0)
    assert one.circuit.breaker.state(11.0) is one.key_circuit.breaker.state(11.0) is CircuitState.CLOSED


def test_a_lease_ends_once() -> None:
    one = lane(budget={"max_spend_per_hour_usd": 100.0}, price=PRICE)
    one.group.limiter = CountingLimiter(one.group.limiter)  # these refuse to be told twice
    one.circuit.breaker = CountingBreaker(one.circuit.breaker)
    taken = lease(one)
    taken.end(None, TokenUsage(2, 1), True, 1.0)
    taken.end(NetworkError(), None, False, 1.0)
    taken.cancel(False, 1.0)
    taken.account(TokenUsage(50, 50), 1.0)
    assert used(one, 1.0) == (1, 3, 0)
    assert spent(one, 1.0) == 3.0
    assert one.circuit.breaker.state(1.0) is CircuitState.CLOSED


# The commit point.


def test_a_probe_has_proven_itself_at_its_commit_point() -> None:
    one = lane()
    fail(one)
    one.key_circuit.breaker.force_open(30.0, 0.0)
    taken = lease(one, 30.0)
    taken.commit(31.0)
    assert one.circuit.breaker.state(31.0) is one.key_circuit.breaker.state(31.0) is CircuitState.CLOSED
    taken.end(NetworkError(), None, True, 32.0)
    assert one.circuit.breaker.state(32.0) is CircuitState.CLOSED


def test_while_closed_a_stream_is_judged_at_its_end_and_not_at_its_first_byte() -> None:
    one = lane()
    taken = lease(one)
    taken.commit(1.0)
    taken.end(NetworkError(), None, True, 2.0)
    assert one.circuit.breaker.state(2.0) is CircuitState.OPEN


# Cancelling.


def test_a_cancelled_lease_gives_everything_back_if_nothing_was_sent() -> None:
    one = lane(budget={"max_spend_per_hour_usd": 100.0}, price=PRICE)
    taken = lease(one)
    taken.cancel(False, 1.0)
    assert used(one, 1.0) == (0, 0, 0)
    assert spent(one, 1.0) == 0.0
    taken.account(TokenUsage(50, 50), 2.0)
    assert used(one, 2.0) == (0, 0, 0)


def test_what_was_sent_stays_charged_and_is_corrected_by_one_late_report() -> None:
    one = lane(budget={"max_spend_per_hour_usd": 100.0}, price=PRICE)
    one.group.limiter = CountingLimiter(one.group.limiter)
    taken = lease(one)
    taken.cancel(True, 1.0)
    taken.cancel(True, 1.0)
    assert used(one, 1.0) == (1, 10, 0)
    taken.account(TokenUsage(2, 1), 2.0)
    taken.account(TokenUsage(50, 50), 3.0)
    assert used(one, 3.0) == (1, 3, 0)
    assert spent(one, 3.0) == 3.0


def test_without_a_budget_only_the_limit_hears_of_it() -> None:
    one = lane()
    for sent in (True, False):
        taken = lease(one)
        taken.cancel(sent, 1.0)
        taken.cancel(sent, 1.0)
        taken.end(NetworkError(), None, sent, 1.0)
    assert used(one, 1.0) == (1, 10, 0)
    assert one.circuit.breaker.state(1.0) is CircuitState.CLOSED


def test_a_cancelled_probe_gives_its_place_back_without_a_verdict() -> None:
    one = lane()
    fail(one)
    taken = lease(one, 30.0)
    assert isinstance(take(one, 30.0), Rejected)
    taken.cancel(True, 31.0)
    assert one.circuit.breaker.state(31.0) is CircuitState.HALF_OPEN
    assert lease(one, 31.0).permit.probe
