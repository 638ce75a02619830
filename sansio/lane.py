"""What deployments have to themselves and what they share, and the lease that takes from all of it at once.

    Lane        one deployment: queue, slots, retry policy, budget
    Group       one limiter (provider, key, model) and the lanes that draw on it
    Circuit     one breaker (provider and endpoint, or provider and key) and the lanes behind it
    SessionSlot one credential (provider, secret) and the lanes that send it
    Link        one exchange about a limiter or circuit with the store that processes share

A `Lease` is everything one attempt holds. `Lane.take` takes all of it or nothing; `Lease.end` gives it back, once.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from .batch import TokenEstimate, TokenUsage
from .budget import BudgetLedger, BudgetRefusal, BudgetReservation, OutputPercentile
from .circuit_breaker import CircuitBreaker, CircuitPermit, CircuitRejection, Outcome
from .cluster.exchanging import Exchanging
from .cost import cost_of, estimate_cost
from .deployment import Deployment
from .errors import DeadlineExceeded, InferenceError, LimitExceeded, NetworkError
from .events import AddRequest
from .exchange import Exchange, ExchangeConfig
from .prices import Price
from .queue import PriorityRequest, RequestQueue
from .rate_limit import Permit, RateLimiter, Wait
from .retry import RetryBudget, RetryEngine
from .secret import Secret
from .session import RemoteSession, SessionSnapshot


class RequestState(enum.Enum):
    """Where an accepted request is. `EngineMetrics` counts BACKOFF and PARKED together as waiting."""

    QUEUED = "queued"
    BACKOFF = "backoff"
    PARKED = "parked"
    RUNNING = "running"


# Looking up a member of an enumeration by name costs as much as a call (CPython 3.11).
_QUEUED: Final = RequestState.QUEUED
_SUCCESS: Final = Outcome.SUCCESS
_FAILURE: Final = Outcome.FAILURE
_IGNORED: Final = Outcome.IGNORED


class Request:
    """One accepted request, from its submission to its terminal outcome."""

    __slots__ = (
        "aborting", "add", "attempts", "deadline", "entry", "estimate", "exchange", "fresh", "lane", "last_error", "lease",
        "not_before", "open_ended", "order", "refreshed", "resent", "state", "waits_for_circuit",
    )  # fmt: skip

    def __init__(self, add: AddRequest, lane: Lane, order: int, now: float) -> None:
        self.add = add
        self.lane = lane
        self.order = order
        self.open_ended = not (add.estimate.output_is_limit or add.batch.max_output_tokens is not None)
        """Whether it sets no limit on its output: what to reserve for it is learnt meanwhile."""
        self.estimate = lane.estimate(add)
        self.deadline: float | None = None if add.timeout is None else now + add.timeout
        self.waits_for_circuit = lane.waits_for_circuit if add.wait_for_circuit is None else add.wait_for_circuit
        self.entry = PriorityRequest(add.request_id, add.priority, add.tenant, self.deadline, payload=self)
        self.state = _QUEUED
        self.attempts = 0
        self.refreshed = False
        """Whether it was sent again with a new credential; once."""
        self.resent = False
        """Whether it was sent again because its connection was lost unread; once."""
        self.fresh = False
        """Whether its next attempt is to use a new connection."""
        self.not_before = now
        self.aborting = False
        self.last_error: InferenceError | None = None
        self.lease: Lease | None = None
        self.exchange: Exchange | None = None

    def lost_unread(self, error: InferenceError, stale: bool) -> bool:
        """Whether its attempt was lost with its connection before anything can have come of it, for the first time.

        On a connection that had been idle the server's close may have crossed the request. That is likely, not certain, so
        only what may be done twice goes again; where the server itself said that it never looked, anything does.
        """
        if not isinstance(error, NetworkError) or error.should_retry is False or self.resent:
            return False
        if self.exchange is not None and self.exchange.committed:
            return False
        return error.unprocessed or (stale and self.lane.deployment.idempotent)

    def out_of_time(self, now: float) -> InferenceError | None:
        """Why it does not go again, though it could at once: its deadline has passed."""
        if self.deadline is None or now < self.deadline:
            return None
        return DeadlineExceeded("the request's deadline passed during an attempt", provider=self.lane.provider)

    def ran_nothing(self, error: InferenceError | None) -> bool:
        """Whether the provider refused its attempt, or said that it never looked: then it bills nothing."""
        if isinstance(error, NetworkError) and error.unprocessed:
            return True
        return self.exchange is not None and self.exchange.refused


@dataclass(slots=True, eq=False)
class Link:
    """Something shared with other processes through a store, and the lanes that its answers concern.

    ask: the question under way, 0 for none. leaving: the process goes, and has not finished saying so.
    """

    index: int
    shared: Exchanging
    lanes: list[Lane]
    ask: int = 0
    leaving: bool = False
    said_farewell: bool = False
    lost: bool = False
    """Whether the last question had no answer."""
    lost_because: str = ""
    """Why, in the driver's words; empty where it had one."""


@dataclass(slots=True, eq=False)
class Group:
    """The lanes that share one limiter. Only the best of their heads asks it, so the large are not starved by the small."""

    index: int
    limiter: RateLimiter
    lanes: list[Lane] = field(default_factory=list["Lane"])
    link: Link | None = None
    """Its exchange with other processes, where it is shared with any."""
    paused_until: float = -math.inf
    """The pause whose consequences for waiters have been drawn."""


@dataclass(slots=True, eq=False)
class Circuit:
    """A breaker, the lanes behind it, and what last went wrong there."""

    index: int
    breaker: CircuitBreaker
    of_key: bool
    lanes: list[Lane] = field(default_factory=list["Lane"])
    last_error: InferenceError | None = None
    link: Link | None = None
    """Its exchange with other processes, where it is shared with any."""
    retry_at: float = -math.inf
    """Where it is shared: the end of the open time whose consequences for waiters have been drawn."""


@dataclass(slots=True, eq=False)
class SessionSlot:
    """A credential, where it comes from, and the requests that wait for a new one after a 401."""

    index: int
    session: RemoteSession
    secret: Secret | None
    lanes: list[Lane] = field(default_factory=list["Lane"])
    parked: dict[int, Request] = field(default_factory=dict[int, Request])
    refusal: tuple[Lane, InferenceError] | None = None
    """The 401 that took the credential out of service, and whose it was, until a rebuild has answered it."""


@dataclass(slots=True, eq=False)
class Lane:
    """One deployment in the engine."""

    index: int
    deployment: Deployment
    exchange_config: ExchangeConfig
    queue: RequestQueue
    retry: RetryEngine
    retry_budget: RetryBudget
    group: Group
    circuit: Circuit
    key_circuit: Circuit
    session: SessionSlot
    price: Price | None
    budget: BudgetLedger | None
    max_concurrent: int
    waits_for_circuit: bool
    provider: str
    """The codec's name for it."""
    requests: dict[int, Request] = field(default_factory=dict[int, Request])
    backing_off: dict[int, Request] = field(default_factory=dict[int, Request])
    """Those of them that wait for the time of a retry."""
    running: int = 0
    outputs: OutputPercentile = field(default_factory=OutputPercentile)
    """How long answers have been: what to reserve for a request that sets no limit."""

    def deadline(self, now: float) -> float | None:
        """When time alone changes something here: a request runs out of it, or a throttled one has its slot back."""
        due = self.queue.deadline()
        if self.budget is None or len(self.queue) == 0 or not self.budget.throttles(now):
            return due
        recovers_at = self.budget.recovers_at(now)
        return recovers_at if due is None else min(due, recovers_at)

    def cannot_wait(self, pause: float, now: float) -> list[Request]:
        """Who waits, and cannot wait until the end of a ``pause`` of the limiter; of the queue they are taken out. Found
        without a look at everybody: a throttled provider says 429 often, and thousands may wait."""
        if pause - now > self.deployment.config.retry.max_retry_after:
            waiting = (RequestState.QUEUED, RequestState.BACKOFF)
            return [request for request in self.requests.values() if request.state in waiting]
        late: list[Request] = []
        for entry in self.queue.expire_before(pause, now):
            assert isinstance(entry.payload, Request)
            late.append(entry.payload)
        late += [each for each in self.backing_off.values() if each.deadline is not None and each.deadline <= pause]
        return late

    def slots(self, now: float) -> int:
        """How many attempts may run: as configured, half of that (never below one) while a throttling budget is exceeded."""
        if self.budget is not None and self.budget.throttles(now):
            return max(1, self.max_concurrent // 2)
        return self.max_concurrent

    def estimate(self, add: AddRequest) -> TokenEstimate:
        """What to reserve for a request: its own limit on the output, else the 95th percentile of what came lately, and then
        never more than the limiter could grant.

        The percentile is of whole answers, all choices together, so it is not multiplied by the choices asked for.
        """
        asked = add.estimate
        if asked.output_is_limit or add.batch.max_output_tokens is not None:
            return asked
        limits, input_tokens, output_tokens = self.group.limiter.limits, asked.input_tokens, self.outputs.value()
        of_output, of_both = limits.output_tokens_per_minute, limits.tokens_per_minute
        if of_output is not None and output_tokens > of_output:
            output_tokens = of_output
        if of_both is not None and input_tokens + output_tokens > of_both:
            output_tokens = max(0, of_both - input_tokens)
        return TokenEstimate(input_tokens, output_tokens)

    def take(self, request: Request, generation: int, now: float, unix_now: float) -> Lease | Blocked:
        """Everything an attempt needs, or the first thing that is not to be had (and then nothing is held)."""
        snapshot = self.session.session.snapshot(now, unix_now)
        if snapshot is None:
            return NoCredential()
        permit = self.circuit.breaker.acquire(now)
        if isinstance(permit, CircuitRejection):
            return Rejected(self.circuit, permit)
        key_permit = self.key_circuit.breaker.acquire(now)
        if isinstance(key_permit, CircuitRejection):
            self.circuit.breaker.record(permit, _IGNORED, now)
            return Rejected(self.key_circuit, key_permit)
        if request.open_ended:  # answers since it was asked may have shown how long they are
            request.estimate = self.estimate(request.add)
        estimate = request.estimate
        grant = self.group.limiter.reserve(1, estimate.input_tokens, estimate.output_tokens, now)
        refusal: Blocked
        if isinstance(grant, Permit):
            reservation = self._reserve_money(request, now)
            if not isinstance(reservation, BudgetRefusal):
                return Lease(request, self, generation, snapshot, permit, key_permit, grant, reservation)
            self.group.limiter.cancel(grant, False, now)
            refusal = reservation
        else:
            refusal = grant
        self.circuit.breaker.record(permit, _IGNORED, now)
        self.key_circuit.breaker.record(key_permit, _IGNORED, now)
        return refusal

    def _reserve_money(self, request: Request, now: float) -> BudgetReservation | BudgetRefusal | None:
        if self.budget is None:
            return None
        return self.budget.reserve(estimate_cost(request.estimate, self.price).usd or 0.0, now)


@dataclass(slots=True, eq=False)
class Lease:
    """What one attempt holds: a slot, two breaker permits, requests, tokens, concurrency and money, under one generation."""

    request: Request
    lane: Lane
    generation: int
    credential: SessionSnapshot
    permit: CircuitPermit
    key_permit: CircuitPermit
    grant: Permit
    reservation: BudgetReservation | None
    ended: bool = False
    cancelled: bool = False
    accounted: bool = False

    @property
    def probes(self) -> bool:
        """Whether a circuit that is not closed let it through to find out."""
        return self.permit.probe or self.key_permit.probe

    def commit(self, now: float) -> None:
        """The commit point: a probe has proven its circuits healthy, however long its stream goes on."""
        if self.permit.probe:
            self.lane.circuit.breaker.record(self.permit, _SUCCESS, now)
        if self.key_permit.probe:
            self.lane.key_circuit.breaker.record(self.key_permit, _SUCCESS, now)

    def end(
        self,
        error: InferenceError | None,
        usage: TokenUsage | None,
        sent: bool,
        now: float,
        *,
        refused: bool = False,
        excused: bool = False,
    ) -> None:
        """Give everything back with the attempt's outcome. A second call does nothing.

        ``refused``: the provider ran nothing (4xx, or it said so). It bills nothing for that, but may well count it against
        its limits. ``excused``: the error says nothing about the endpoint.
        """
        if self.ended:
            return
        self.ended = True
        counts = error is not None and error.counts_as_circuit_failure and not excused
        failed = _FAILURE if counts else _IGNORED
        self.lane.circuit.breaker.record(self.permit, _SUCCESS if error is None else failed, now)
        self.lane.key_circuit.breaker.record(self.key_permit, _SUCCESS if error is None else _IGNORED, now)
        if sent:
            self.account(usage, now, refused=refused)
        else:
            self._give_back(now)

    def cancel(self, sent: bool, now: float) -> None:
        """The request is gone: slot, concurrency and probe come back at once, requests, tokens and money if nothing was
        sent. What was sent is accounted for when its report comes. A second call does nothing."""
        if self.ended:
            return
        self.ended = self.cancelled = True
        self.lane.circuit.breaker.record(self.permit, _IGNORED, now)
        self.lane.key_circuit.breaker.record(self.key_permit, _IGNORED, now)
        if sent:
            self.lane.group.limiter.cancel(self.grant, True, now)
        else:
            self._give_back(now)

    def account(self, usage: TokenUsage | None, now: float, *, refused: bool = False) -> None:
        """Replace the reservation by what was really used; once. Unknown usage keeps it, but for the money of a refusal."""
        if self.accounted:
            return
        self.accounted = True
        limiter = self.lane.group.limiter
        if self.cancelled:
            limiter.report_usage(self.grant, usage, now)
        else:
            limiter.settle(self.grant, usage, now)
        if self.reservation is not None and self.lane.budget is not None:
            spent = 0.0 if refused and usage is None else self._spent(usage, self.reservation)
            self.lane.budget.settle(self.reservation, spent, now)

    def _spent(self, usage: TokenUsage | None, reserved: BudgetReservation) -> float | None:
        cost = cost_of(usage, self.lane.price).usd
        exact = usage is not None and usage.provenance == "exact"
        return cost if exact or cost is None else max(cost, reserved.usd)

    def _give_back(self, now: float) -> None:
        self.accounted = True
        self.lane.group.limiter.cancel(self.grant, False, now)
        if self.reservation is not None and self.lane.budget is not None:
            self.lane.budget.cancel(self.reservation, now)


@dataclass(frozen=True, slots=True)
class NoCredential:
    """There is no credential to send now."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A circuit does not let the attempt through."""

    circuit: Circuit
    rejection: CircuitRejection


Blocked: TypeAlias = NoCredential | Rejected | Wait | LimitExceeded | BudgetRefusal
