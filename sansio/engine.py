"""`RemoteEngineCore`: everything that could go wrong under concurrency, decided in one pure method.

    handle(event, now, unix_now) -> effects        deadline() -> the instant to call it again with Tick

The engine is told facts and gives orders; it never touches bytes. A request goes

    submitted ─▶ QUEUED ─▶ RUNNING ─▶ done | failed            (a lease is held in RUNNING only)
                   ▲          │
                   ├─ BACKOFF ◀┤  a retry waits for its time
                   └─ PARKED  ◀┘  a 401 waits for a new credential

Each `handle` does three things in turn: take the fact, run what has come due, hand out what has come free. Only the heads
of queues are ever looked at, so its cost does not grow with the number of waiting requests.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any, assert_never

from .batch import ExecuteBatch, TokenUsage
from .budget import BudgetRefusal
from .circuit_breaker import CircuitRejection, CircuitState, Outcome
from .codec import ProviderCodec
from .cost import cost_of
from .deployment import Deployment, RemoteEngineConfig
from .errors import (
    BudgetExceeded,
    CircuitOpen,
    DeadlineExceeded,
    EngineClosed,
    InferenceError,
    LimitExceeded,
    RateLimited,
    Unauthorized,
)
from .events import (
    AbortAttempt,
    AddRequest,
    AttemptEnded,
    Cancel,
    CircuitAction,
    Close,
    Committed,
    Complete,
    Drain,
    Drained,
    Effect,
    Event,
    HeadReceived,
    Notice,
    NoticeKind,
    OverrideCircuit,
    RebuildSession,
    RefreshSession,
    SessionReport,
    StartAttempt,
    Tick,
)
from .exchange import Exchange
from .lane import Circuit, Group, Lane, Lease, NoCredential, Rejected, Request, RequestState, SessionSlot
from .metrics import EngineMetrics
from .queue import Priority
from .rate_limit import Wait
from .retry import Attempt, Retry
from .session import AuthVerdict, RefreshResult, SessionOutcome
from .sharing import build_roster
from .timers import Timers

TimerName = tuple[str, int]


class RemoteEngineCore:
    """All the deployments of a process behind one `handle`.

    config: a `RemoteEngineConfig`, or one or several deployments. rng: the only source of randomness (jitter).
    fingerprints: of the deployments' keys at the start, by deployment, as far as the driver knows them.
    """

    def __init__(
        self,
        config: RemoteEngineConfig | Deployment | Sequence[Deployment],
        *,
        rng: random.Random,
        fingerprints: Mapping[str, str] | None = None,
    ) -> None:
        self._roster = build_roster(RemoteEngineConfig.of(config), fingerprints or {}, rng)
        self._requests: dict[int, Request] = {}
        self._unreported: dict[tuple[int, int], Lease] = {}
        self._timers: Timers[TimerName] = Timers()
        self._metrics = EngineMetrics()
        self._effects: list[Effect] = []
        self._dirty: dict[int, Group] = {}
        self._order = 0
        self._generation = 0
        self._now = -math.inf
        self._unix_now = 0.0
        self._ending = False
        self._say_drained = False

    # ---- what may be asked without telling anything --------------------------------------------------------------------

    def prepare(
        self,
        request_id: int,
        batch: ExecuteBatch,
        *,
        deployment: str | None = None,
        stream: bool = True,
        priority: Priority = Priority.NORMAL,
        tenant: str = "",
        timeout: float | None = None,
        wait_for_circuit: bool | None = None,
    ) -> AddRequest:
        """The `AddRequest` for a batch, its tokens estimated. Reads only what never changes: needs no critical section.

        ``deployment`` may be left out where there is only one. Raises `ValueError` naming what is wrong.
        """
        lane = self._lane(deployment)
        if timeout is not None and not (isinstance(timeout, (int, float)) and 0 < timeout < math.inf):
            raise ValueError(f"timeout: {timeout!r} is not a number of seconds above 0, nor None")
        estimate = lane.exchange_config.codec.estimate(batch)
        return AddRequest(
            request_id, lane.deployment.name, batch, estimate, stream, Priority(priority), tenant, timeout, wait_for_circuit
        )

    def codec(self, deployment: str | None = None) -> ProviderCodec:
        """The codec of a deployment."""
        return self._lane(deployment).exchange_config.codec

    def deadline(self) -> float | None:
        """When to call `handle` with `Tick`, at the latest; ``None`` if only an event can change anything."""
        return self._timers.next()

    def metrics(self) -> EngineMetrics:
        """A copy of the counts."""
        metrics = self._metrics
        copy = EngineMetrics(**{name: getattr(metrics, name) for name in EngineMetrics.__slots__})
        for name in ("retries", "failures", "circuit_transitions"):
            setattr(copy, name, dict(getattr(metrics, name)))
        return copy

    def circuit_state(self, now: float, deployment: str | None = None) -> CircuitState:
        """The state of a deployment's endpoint circuit."""
        return self._lane(deployment).circuit.breaker.state(max(now, self._now))

    def limiter_snapshot(self, now: float, deployment: str | None = None) -> Any:
        """The levels of a deployment's limiter (a `RateLimiterSnapshot`)."""
        return self._lane(deployment).group.limiter.snapshot(max(now, self._now))

    # ---- the one way in -----------------------------------------------------------------------------------------------

    def handle(self, event: Event, now: float, unix_now: float) -> list[Effect]:
        """Take a fact, run what is due, hand out what is free; returns the orders, to be carried out in sequence.

        ``now`` is monotonic seconds, ``unix_now`` Unix seconds. Raises `ValueError` for misuse (a request id in use, an
        unknown deployment), and then nothing has changed.
        """
        self._check(event)
        self._now = max(now, self._now)
        self._unix_now = unix_now
        self._effects = []
        match event:
            case AddRequest():
                self._submit(event)
            case AttemptEnded():
                self._attempt_ended(event)
            case HeadReceived():
                self._head_received(event)
            case Committed():
                self._committed(event)
            case Cancel():
                self._cancel(event.request_id)
            case SessionReport():
                self._session_reported(event)
            case RebuildSession():
                self._rebuild(event)
            case OverrideCircuit():
                self._override(event)
            case Tick():
                pass
            case Drain():
                self._ending = self._say_drained = True
            case Close():
                self._close()
            case _:
                assert_never(event)
        self._run_due()
        while self._dirty:
            self._dispatch(self._dirty.pop(next(iter(self._dirty))))
        if self._say_drained and not self._requests and not self._unreported:
            self._say_drained = False
            self._effects.append(Drained())
        return self._effects

    def _check(self, event: Event) -> None:
        if isinstance(event, AddRequest):
            self._lane(event.deployment)
            if event.request_id in self._requests:
                raise ValueError(f"request_id: {event.request_id} is in use")
        elif isinstance(event, (RebuildSession, OverrideCircuit)):
            self._lane(event.deployment)

    def _lane(self, deployment: str | None) -> Lane:
        lanes = self._roster.lanes
        if deployment is None:
            if len(lanes) > 1:
                raise ValueError(f"deployment: there are several, name one of {', '.join(lanes)}")
            return next(iter(lanes.values()))
        if deployment not in lanes:
            raise ValueError(f"deployment: {deployment!r} is not one of {', '.join(lanes)}")
        return lanes[deployment]

    # ---- a request comes ----------------------------------------------------------------------------------------------

    def _submit(self, add: AddRequest) -> None:
        self._metrics.submitted += 1
        self._order += 1
        lane = self._roster.lanes[add.deployment]
        request = Request(add, lane, self._order, self._now)
        refusal = self._refusal(request) or lane.queue.push(request.entry, self._now)
        if refusal is not None:
            if not refusal.provider:
                refusal.provider = lane.provider
            self._metrics.rejected += 1
            _count(self._metrics.failures, refusal.kind)
            self._effects.append(Complete(add.request_id, refusal))
            return
        self._requests[add.request_id] = lane.requests[add.request_id] = request
        self._metrics.queued += 1
        lane.retry_budget.record_request(self._now)
        self._dirty[lane.group.index] = lane.group
        self._arm_queue(lane)

    def _refusal(self, request: Request) -> InferenceError | None:
        """Why a new request is not even queued: what can be known now is not said later."""
        lane = request.lane
        if self._ending:
            return EngineClosed("the engine is draining or closed")
        for circuit in (lane.circuit, lane.key_circuit):
            rejection = self._would_reject(circuit)
            if rejection is not None and not self._may_wait(request, rejection):
                return self._circuit_open(circuit, rejection, lane)
        estimate = request.add.estimate
        too_large = lane.group.limiter.never_fits(1, estimate.input_tokens, estimate.output_tokens)
        return too_large or self._past_pause(request)

    def _past_pause(self, request: Request) -> InferenceError | None:
        """Why a request need not wait for the end of a pause of its limiter, if it need not."""
        pause = request.lane.group.limiter.paused_until
        if pause is None or pause <= self._now:
            return None
        if request.deadline is not None and pause >= request.deadline:
            return DeadlineExceeded("the provider's limit pauses past the request's deadline", provider=request.lane.provider)
        if pause - self._now > request.lane.deployment.config.retry.max_retry_after:
            return RateLimited(request.lane.provider, pause - self._now, "the provider's limit pauses longer than max_retry_after")
        return None

    # ---- handing out --------------------------------------------------------------------------------------------------

    def _dispatch(self, group: Group) -> None:
        """Start what can start now, best head first, until the limiter says to wait."""
        skip: set[int] = set()
        self._timers.set(("group", group.index), None)
        while (request := self._best_head(group, skip)) is not None:
            lane = request.lane
            self._generation += 1
            answer = lane.take(request, self._generation, self._now, self._unix_now)
            self._note_circuits(lane)
            match answer:
                case Lease():
                    self._start(request, answer)
                case NoCredential():
                    self._want_credential(lane.session)
                    skip.add(lane.index)
                case Rejected(circuit, rejection):
                    if self._may_wait(request, rejection):
                        skip.add(lane.index)
                        self._arm_circuit(circuit)
                    else:
                        self._finish(request, self._circuit_open(circuit, rejection, lane, request.last_error))
                case Wait(until):
                    error = self._past_pause(request)
                    if error is None and until is not None and request.deadline is not None and until >= request.deadline:
                        error = DeadlineExceeded("the limit frees too late for the request's deadline", provider=lane.provider)
                    if error is None:
                        self._timers.set(("group", group.index), until)
                        break
                    self._finish(request, error.caused_by(request.last_error))
                case LimitExceeded():
                    answer.provider = lane.provider
                    self._finish(request, answer)
                case BudgetRefusal():
                    self._notice("budget", lane, request.add.request_id, action="reject")
                    self._finish(request, BudgetExceeded("the budget does not cover this request", provider=lane.provider))
                case _:
                    assert_never(answer)
        for lane in group.lanes:
            self._arm_queue(lane)

    def _best_head(self, group: Group, skip: set[int]) -> Request | None:
        best: Request | None = None
        for lane in group.lanes:
            if lane.index in skip or lane.running >= lane.slots(self._now):
                continue
            self._expire_queue(lane)
            entry = lane.queue.peek(self._now)
            if entry is None:
                continue
            request = entry.payload
            assert isinstance(request, Request)
            if best is None or (-request.add.priority, request.order) < (-best.add.priority, best.order):
                best = request
        return best

    def _start(self, request: Request, lease: Lease) -> None:
        lane = request.lane
        popped = lane.queue.pop(self._now)
        assert popped is request.entry
        self._move(request, RequestState.RUNNING)
        lane.running += 1
        request.attempts += 1
        request.aborting = False
        request.lease = lease
        request.exchange = Exchange(
            lane.exchange_config, request.add.batch, lease.credential, self._now,
            stream=request.add.stream, request_deadline=request.deadline,
        )  # fmt: skip
        self._metrics.attempts += 1
        self._effects.append(StartAttempt(request.add.request_id, lease.generation, request.exchange))
        self._arm_attempt(request)
        if lane.budget is not None and lane.budget.warns(self._now):
            self._notice("budget", lane, request.add.request_id, action=str(lane.budget.budget.on_exceeded))

    # ---- facts about an attempt ---------------------------------------------------------------------------------------

    def _running(self, request_id: int, attempt: int) -> Request | None:
        request = self._requests.get(request_id)
        if request is None or request.lease is None or request.lease.generation != attempt:
            return None
        return request

    def _lease_ended(self, lane: Lane) -> None:
        """A lease came back: its limiter has room, and a circuit that is not closed may have a probe to give to any lane."""
        self._note_circuits(lane)
        self._dirty[lane.group.index] = lane.group
        for circuit in (lane.circuit, lane.key_circuit):
            if circuit.breaker.state(self._now) is not CircuitState.CLOSED:
                self._arm_circuit(circuit)
                for other in circuit.lanes:
                    self._dirty[other.group.index] = other.group

    def _head_received(self, event: HeadReceived) -> None:
        request = self._running(event.request_id, event.attempt)
        if request is None:
            return
        self._arm_attempt(request)
        snapshot = request.lane.exchange_config.codec.rate_limit_snapshot(event.head.headers, self._unix_now)
        if snapshot is not None:
            request.lane.group.limiter.observe_headers(snapshot, self._now)

    def _committed(self, event: Committed) -> None:
        request = self._running(event.request_id, event.attempt)
        if request is not None and request.lease is not None:
            request.lease.commit(self._now)
            self._note_circuits(request.lane)

    def _attempt_ended(self, event: AttemptEnded) -> None:
        request = self._running(event.request_id, event.attempt)
        if request is None or request.lease is None:
            self._late_usage(event)
            return
        lease, lane = request.lease, request.lane
        request.lease = None
        lane.running -= 1
        self._timers.set(("attempt", request.add.request_id), None)
        if event.error is not None and event.error.counts_as_circuit_failure:
            lane.circuit.last_error = event.error
        lease.end(event.error, event.usage, event.sent, self._now)
        if event.sent:
            self._account(lane, event.usage)
        self._lease_ended(lane)
        if event.error is None:
            self._finish(request, None)
        else:
            self._attempt_failed(request, event.error, lease)

    def _late_usage(self, event: AttemptEnded) -> None:
        """A report for a lease that was settled by a cancel: its usage still counts, once."""
        lease = self._unreported.pop((event.request_id, event.attempt), None)
        if lease is not None and event.sent:
            lease.account(event.usage, self._now)
            self._account(lease.lane, event.usage)
            self._notice("late_usage", lease.lane, event.request_id, known=event.usage is not None)
            self._dirty[lease.lane.group.index] = lease.lane.group

    def _account(self, lane: Lane, usage: TokenUsage | None) -> None:
        metrics = self._metrics
        cost = cost_of(usage, lane.price).usd
        if cost is None:
            metrics.unknown_cost += 1
        else:
            metrics.cost_usd += cost
        if usage is None:
            metrics.unknown_usage += 1
            return
        total = metrics.usage
        metrics.usage = TokenUsage(
            total.input_tokens + usage.input_tokens,
            total.output_tokens + usage.output_tokens,
            total.cached_input_tokens + usage.cached_input_tokens,
            total.cache_write_tokens + usage.cache_write_tokens,
            total.reasoning_tokens + usage.reasoning_tokens,
            "exact" if total.provenance == usage.provenance == "exact" else "lower_bound",
        )

    def _attempt_failed(self, request: Request, error: InferenceError, lease: Lease) -> None:
        lane = request.lane
        committed = request.exchange is not None and request.exchange.committed
        root = error.cause if committed and isinstance(error.cause, InferenceError) else error
        request.last_error = error
        if isinstance(root, RateLimited):
            self._throttled(lane, root)
        if isinstance(root, Unauthorized):
            if self._unauthorized(request, root, lease, retryable=not committed):
                return
        elif root.blames_key:
            self._trip_key(lane, root)
        attempt = Attempt(request.attempts - request.refreshed, committed, lane.deployment.idempotent)
        decision = lane.retry.decide(attempt, error, self._now, request.deadline)
        if not isinstance(decision, Retry):
            self._finish(request, error)
            return
        for circuit in (lane.circuit, lane.key_circuit):
            rejection = self._would_reject(circuit)
            if rejection is not None and not self._may_wait(request, rejection):
                self._finish(request, self._circuit_open(circuit, rejection, lane, error))
                return
        _count(self._metrics.retries, decision.reason)
        self._notice("retry_scheduled", lane, request.add.request_id, reason=decision.reason, wait=decision.wait, attempt=request.attempts)
        self._move(request, RequestState.BACKOFF)
        self._timers.set(("backoff", request.add.request_id), decision.at)

    def _throttled(self, lane: Lane, error: RateLimited) -> None:
        """A 429 is the bucket's affair, not only that of the request which met it: whoever cannot wait that long fails now."""
        self._metrics.throttled += 1
        group = lane.group
        group.limiter.observe_throttled(error.retry_after, self._now)
        self._notice("throttled", lane, None, retry_after=error.retry_after)
        pause = group.limiter.paused_until
        if pause is None or pause <= max(self._now, group.paused_until):
            return
        group.paused_until = pause
        for other in group.lanes:
            for request in list(other.requests.values()):
                if request.state in (RequestState.QUEUED, RequestState.BACKOFF):
                    refusal = self._past_pause(request)
                    if refusal is not None:
                        self._finish(request, refusal.caused_by(error))

    # ---- credentials --------------------------------------------------------------------------------------------------

    def _unauthorized(self, request: Request, error: Unauthorized, lease: Lease, *, retryable: bool) -> bool:
        """A 401: one rebuild however many meet it, one retry of each if it gives a different credential."""
        lane, slot = request.lane, request.lane.session
        verdict = slot.session.unauthorized(lease.credential.generation, self._now)
        if verdict is AuthVerdict.WAIT_FOR_REBUILD:
            self._want_credential(slot)
        if request.refreshed:  # a fresh credential was refused too: the key itself is to blame
            self._trip_key(lane, error)
        if not retryable or request.refreshed or not lane.deployment.idempotent or error.should_retry is False:
            return False
        request.refreshed = True
        if verdict is AuthVerdict.WAIT_FOR_REBUILD:
            self._move(request, RequestState.PARKED)
            slot.parked[request.add.request_id] = request
            self._timers.set(("parked", request.add.request_id), request.deadline)
        else:
            self._resume(request)
        return True

    def _resume(self, request: Request) -> None:
        """Back to its old place in the queue, after a new credential."""
        _count(self._metrics.retries, "unauthorized")
        self._notice("retry_scheduled", request.lane, request.add.request_id, reason="unauthorized", wait=0.0, attempt=request.attempts)
        self._requeue(request)

    def _want_credential(self, slot: SessionSlot) -> None:
        """Order a refresh, if one is wanted and none is under way."""
        cause = slot.session.wants_refresh(self._now, self._unix_now)
        if cause is not None:
            refresh_id = slot.session.begin_refresh(cause, self._now)
            self._metrics.refreshes += 1
            self._notice("refresh_started", slot.lanes[0], None, cause=str(cause))
            self._effects.append(RefreshSession(slot.index, refresh_id, cause, slot.secret))
        self._timers.set(("session", slot.index), slot.session.deadline())

    def _session_reported(self, event: SessionReport) -> None:
        if not 0 <= event.session < len(self._roster.sessions):
            return
        slot = self._roster.sessions[event.session]
        self._refresh_ended(slot, slot.session.report(event.refresh_id, event.result, self._now, self._unix_now))

    def _refresh_ended(self, slot: SessionSlot, outcome: SessionOutcome) -> None:
        if outcome.result is RefreshResult.STALE:
            return
        self._notice("refresh_ended", slot.lanes[0], None, result=str(outcome.result))
        self._timers.set(("session", slot.index), slot.session.deadline())
        parked, slot.parked = list(slot.parked.values()), {}
        if outcome.error is not None:
            self._metrics.failed_refreshes += 1
            self._fail_waiters(slot, parked, outcome.error)
        elif outcome.result is RefreshResult.RENEWED:
            for lane in slot.lanes:
                if lane.key_circuit.breaker.state(self._now) is not CircuitState.CLOSED:
                    lane.key_circuit.breaker.force_closed(self._now)
                    self._note_circuits(lane)
            for request in parked:
                self._resume(request)
        else:
            for request in parked:  # the same credential again: what it was refused for stands
                error = request.last_error
                assert error is not None
                self._finish(request, error)
            if parked and parked[0].last_error is not None:
                self._trip_key(parked[0].lane, parked[0].last_error)
        for lane in slot.lanes:
            self._dirty[lane.group.index] = lane.group

    def _fail_waiters(self, slot: SessionSlot, parked: list[Request], cause: InferenceError) -> None:
        """Those who need a credential fail together, each with an error of its own and the same cause."""
        waiters = list(parked)
        if slot.session.snapshot(self._now, self._unix_now) is None:
            for lane in slot.lanes:
                waiters += [request for request in lane.requests.values() if request.state is RequestState.QUEUED]
        for request in waiters:
            error = Unauthorized("the credential could not be refreshed", provider=request.lane.provider)
            self._finish(request, error.caused_by(cause))

    def _rebuild(self, event: RebuildSession) -> None:
        slot = self._lane(event.deployment).session
        slot.session.request_rebuild(event.cause, self._now)
        self._want_credential(slot)

    # ---- circuits -----------------------------------------------------------------------------------------------------

    def _would_reject(self, circuit: Circuit) -> CircuitRejection | None:
        if circuit.breaker.state(self._now) is CircuitState.CLOSED:
            return None
        answer = circuit.breaker.acquire(self._now)
        if isinstance(answer, CircuitRejection):
            return answer
        circuit.breaker.record(answer, Outcome.IGNORED, self._now)
        return None

    @staticmethod
    def _may_wait(request: Request, rejection: CircuitRejection) -> bool:
        return request.waits_for_circuit and (request.deadline is None or rejection.retry_at < request.deadline)

    def _circuit_open(
        self, circuit: Circuit, rejection: CircuitRejection, lane: Lane, cause: InferenceError | None = None
    ) -> CircuitOpen:
        """The rejection in both clocks, with what opened the circuit (or the request's own last error) as its cause."""
        to_unix_ms = (self._unix_now - self._now) * 1000.0
        known = rejection.retry_at < math.inf
        error = CircuitOpen(
            lane.provider,
            round(rejection.opened_at * 1000.0 + to_unix_ms),
            round(rejection.retry_at * 1000.0 + to_unix_ms) if known else 0,
            max(0.0, rejection.retry_at - self._now) if known else None,
            f"the circuit of this {'key' if circuit.of_key else 'endpoint'} is open",
        )
        error.__cause__ = cause or circuit.last_error
        return error

    def _trip_key(self, lane: Lane, error: InferenceError) -> None:
        """The key is to blame: nothing more is sent with it until it changes, or its hint (or a bound of ours) passes."""
        circuit = lane.key_circuit
        circuit.last_error = error
        hint = error.retry_after
        circuit.breaker.force_open(lane.deployment.config.circuit_breaker.max_open_duration if hint is None else hint, self._now)
        self._note_circuits(lane)

    def _note_circuits(self, lane: Lane) -> None:
        """Draw the consequences of what a lane's circuits just did."""
        for circuit in (lane.circuit, lane.key_circuit):
            transitions = circuit.breaker.drain_transitions()
            for transition in transitions:
                _count(self._metrics.circuit_transitions, f"{transition.source.name.lower()}->{transition.target.name.lower()}")
                detail = {"source": transition.source.name, "target": transition.target.name, "reason": transition.reason}
                self._notice("key_circuit" if circuit.of_key else "circuit", lane, None, **detail)
                if transition.target is CircuitState.OPEN:
                    self._fail_behind(circuit)
            if transitions:
                self._arm_circuit(circuit)
                for other in circuit.lanes:
                    self._dirty[other.group.index] = other.group

    def _fail_behind(self, circuit: Circuit) -> None:
        """A circuit opened: whoever is queued or backing off behind it fails now, unless it asked to wait it out."""
        rejection = self._would_reject(circuit)
        if rejection is None:
            return
        for lane in circuit.lanes:
            for request in list(lane.requests.values()):
                if request.state in (RequestState.QUEUED, RequestState.BACKOFF) and not self._may_wait(request, rejection):
                    self._finish(request, self._circuit_open(circuit, rejection, lane))

    def _override(self, event: OverrideCircuit) -> None:
        lane = self._lane(event.deployment)
        match event.action:
            case CircuitAction.OPEN:
                lane.circuit.breaker.force_open(event.duration, self._now)
            case CircuitAction.CLOSE:
                lane.circuit.breaker.force_closed(self._now)
            case CircuitAction.RESET:
                lane.circuit.breaker.reset(self._now)
            case _:
                assert_never(event.action)
        self._note_circuits(lane)

    # ---- the end of a request -----------------------------------------------------------------------------------------

    def _cancel(self, request_id: int) -> None:
        request = self._requests.get(request_id)
        if request is None:
            return
        self._release(request)
        self._remove(request)
        self._metrics.cancelled += 1

    def _close(self) -> None:
        self._ending = self._say_drained = True
        for request in list(self._requests.values()):
            self._release(request, EngineClosed("the engine was closed", provider=request.lane.provider))
            self._finish(request, EngineClosed("the engine was closed", provider=request.lane.provider))

    def _release(self, request: Request, error: InferenceError | None = None) -> None:
        """End a running attempt without waiting for its report: what can come back comes back now."""
        lease, exchange = request.lease, request.exchange
        if lease is None or exchange is None:
            return
        request.lease = None
        request.lane.running -= 1
        self._timers.set(("attempt", request.add.request_id), None)
        lease.cancel(exchange.sent, self._now)
        self._lease_ended(request.lane)
        self._unreported[request.add.request_id, lease.generation] = lease
        self._effects.append(AbortAttempt(request.add.request_id, lease.generation, error))

    def _finish(self, request: Request, error: InferenceError | None) -> None:
        """The one terminal outcome of an accepted request."""
        self._remove(request)
        if error is None:
            self._metrics.done += 1
        else:
            self._metrics.failed += 1
            _count(self._metrics.failures, error.kind)
        self._effects.append(Complete(request.add.request_id, error))

    def _remove(self, request: Request) -> None:
        request_id, lane = request.add.request_id, request.lane
        match request.state:
            case RequestState.QUEUED:
                lane.queue.remove(request_id)
                self._dirty[lane.group.index] = lane.group
            case RequestState.BACKOFF:
                self._timers.set(("backoff", request_id), None)
            case RequestState.PARKED:
                self._timers.set(("parked", request_id), None)
                lane.session.parked.pop(request_id, None)
            case RequestState.RUNNING:
                pass
            case _:
                assert_never(request.state)
        self._metrics_move(request.state, -1)
        del self._requests[request_id], lane.requests[request_id]

    def _move(self, request: Request, state: RequestState) -> None:
        self._metrics_move(request.state, -1)
        request.state = state
        self._metrics_move(state, +1)

    def _metrics_move(self, state: RequestState, by: int) -> None:
        if state is RequestState.QUEUED:
            self._metrics.queued += by
        elif state is RequestState.RUNNING:
            self._metrics.in_flight += by
        else:
            self._metrics.waiting += by

    def _requeue(self, request: Request) -> None:
        self._move(request, RequestState.QUEUED)
        request.lane.queue.requeue(request.entry, self._now)
        self._dirty[request.lane.group.index] = request.lane.group

    # ---- time ---------------------------------------------------------------------------------------------------------

    def _run_due(self) -> None:
        while (due := self._timers.pop_due(self._now)) is not None:
            self._run(*due)

    def _run(self, kind: str, key: int) -> None:
        match kind:
            case "attempt":
                self._check_attempt(self._requests[key])
            case "backoff":
                self._requeue(self._requests[key])
            case "parked":
                request = self._requests[key]
                self._finish(request, DeadlineExceeded(provider=request.lane.provider).caused_by(request.last_error))
            case "queue":
                lane = list(self._roster.lanes.values())[key]
                self._expire_queue(lane)
                self._arm_queue(lane)
            case "group":
                self._dirty[key] = self._roster.groups[key]
            case "circuit":
                circuit = self._roster.circuits[key]
                circuit.breaker.state(self._now)
                self._note_circuits(circuit.lanes[0])
                self._arm_circuit(circuit)
            case _:
                self._session_due(self._roster.sessions[key])

    def _check_attempt(self, request: Request) -> None:
        """Look at the clocks of a running attempt; what has run out is ordered to be cut, and ends with the driver's report."""
        assert request.exchange is not None and request.lease is not None
        error = request.exchange.overdue(self._now)
        if error is None:
            self._arm_attempt(request)
        else:
            request.aborting = True
            self._effects.append(AbortAttempt(request.add.request_id, request.lease.generation, error))

    def _arm_attempt(self, request: Request) -> None:
        exchange = request.exchange
        if exchange is not None and not request.aborting:
            when = min(exchange.deadline, self._now + exchange.check_interval)
            self._timers.set(("attempt", request.add.request_id), when)

    def _expire_queue(self, lane: Lane) -> None:
        for entry, error in lane.queue.expire(self._now):
            request = entry.payload
            assert isinstance(request, Request)
            error.provider = lane.provider
            self._finish(request, error.caused_by(request.last_error))

    def _arm_queue(self, lane: Lane) -> None:
        self._timers.set(("queue", lane.index), lane.queue.deadline())

    def _arm_circuit(self, circuit: Circuit) -> None:
        self._timers.set(("circuit", circuit.index), circuit.breaker.deadline())

    def _session_due(self, slot: SessionSlot) -> None:
        outcome = slot.session.expire(self._now)
        if outcome is not None:
            self._refresh_ended(slot, outcome)
        needed = slot.session.snapshot(self._now, self._unix_now) is not None or slot.parked
        if needed or any(lane.queue.peek(self._now) is not None for lane in slot.lanes):
            self._want_credential(slot)
        else:
            self._timers.set(("session", slot.index), None)

    def _notice(self, kind: NoticeKind, lane: Lane, request_id: int | None, **detail: Any) -> None:
        self._effects.append(Notice(kind, lane.deployment.name, self._now, self._unix_now, request_id, detail))


def _count(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1
