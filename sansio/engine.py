"""`RemoteEngineCore`: everything that could go wrong under concurrency, decided in one pure method.

    handle(event, now, unix_now) -> effects        deadline() -> the instant to call it again with Tick

The engine is told facts and gives orders; it never touches bytes. A request goes

    submitted ─▶ QUEUED ─▶ RUNNING ─▶ done | failed            (a lease is held in RUNNING only)
                   ▲          │
                   ├─ BACKOFF ◀┤  a retry waits for its time
                   └─ PARKED  ◀┘  a 401 waits for a new credential

Each `handle` does three things in turn: take the fact, run what has come due, hand out what has come free. Only the heads
of queues are ever looked at, so its cost does not grow with the number of waiting requests.

Beside this file: `lane.py` (what is shared, and the lease), `registry.py` (who is where), `circuits.py` and `sessions.py`
(what follows from theirs).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeAlias, assert_never

from .batch import ExecuteBatch
from .budget import BudgetRefusal
from .circuit_breaker import CircuitState
from .circuits import Circuits
from .codec import ProviderCodec
from .deployment import Deployment, RemoteEngineConfig
from .errors import (
    BudgetExceeded,
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
    Close,
    Committed,
    Drain,
    Drained,
    Effect,
    Event,
    HeadReceived,
    OverrideCircuit,
    RebuildSession,
    SessionReport,
    StartAttempt,
    StoreReport,
    Tick,
)
from .exchange import Exchange
from .http import ResponseHead
from .lane import Circuit, Group, Lane, Lease, Link, NoCredential, Rejected, Request, RequestState, SessionSlot
from .links import Links
from .metrics import EngineMetrics
from .queue import Priority
from .rate_limit import RateLimiterSnapshot, Wait
from .registry import Registry, Timed
from .retry import Attempt, Retry
from .sessions import Sessions
from .sharing import build_roster

_Taker: TypeAlias = Callable[[Any, Any], None]
"""A method of `RemoteEngineCore` for one class of event."""


class RemoteEngineCore:
    """All the deployments of a process behind one `handle`.

    config: a `RemoteEngineConfig`, or one or several deployments. rng: the only source of randomness (jitter).
    fingerprints: of the deployments' keys at the start, by deployment, as far as the driver knows them.
    """

    __slots__ = (
        "_circuits",
        "_closed",
        "_ending",
        "_generation",
        "_lanes",
        "_links",
        "_order",
        "_registry",
        "_roster",
        "_say_drained",
        "_sessions",
    )

    def __init__(
        self,
        config: RemoteEngineConfig | Deployment | Sequence[Deployment],
        *,
        rng: random.Random,
        fingerprints: Mapping[str, str] | None = None,
    ) -> None:
        self._roster = build_roster(RemoteEngineConfig.of(config), fingerprints or {}, rng)
        self._lanes = list(self._roster.lanes.values())
        self._registry = Registry()
        self._circuits = Circuits(self._registry)
        self._sessions = Sessions(self._registry, self._circuits, self._roster.sessions)
        self._links = Links(self._registry, self._circuits, self._roster.links, self._roster.store_timeout)
        self._order = 0
        self._generation = 0
        self._ending = False
        self._closed = False
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
        _check_timeout(timeout)
        estimate = lane.exchange_config.codec.estimate(batch)
        name = lane.deployment.name
        return AddRequest(request_id, name, batch, estimate, stream, Priority(priority), tenant, timeout, wait_for_circuit)

    def codec(self, deployment: str | None = None) -> ProviderCodec:
        """The codec of a deployment."""
        return self._lane(deployment).exchange_config.codec

    def deadline(self) -> float | None:
        """When to call `handle` with `Tick`, at the latest; ``None`` if only an event can change anything.

        After `Close` nothing comes due any more: a credential that would be refreshed ahead has nobody left to need it.
        """
        return None if self._closed else self._registry.timers.next()

    def metrics(self) -> EngineMetrics:
        """A copy of the counts."""
        return self._registry.snapshot()

    def circuit_state(self, now: float, deployment: str | None = None) -> CircuitState:
        """The state of a deployment's endpoint circuit."""
        return self._lane(deployment).circuit.breaker.state(max(now, self._registry.now))

    def limiter_snapshot(self, now: float, deployment: str | None = None) -> RateLimiterSnapshot:
        """The levels of a deployment's limiter."""
        return self._lane(deployment).group.limiter.snapshot(max(now, self._registry.now))

    # ---- the one way in -----------------------------------------------------------------------------------------------

    def handle(self, event: Event, now: float, unix_now: float) -> list[Effect]:
        """Take a fact, run what is due, hand out what is free; returns the orders, to be carried out in sequence.

        ``now`` is monotonic seconds, ``unix_now`` Unix seconds. Raises `ValueError` for misuse (a request id in use, an
        unknown deployment, a clock that is no number, what is no `Event`), and then nothing has changed.
        """
        if not (-math.inf < now < math.inf and -math.inf < unix_now < math.inf):
            raise ValueError(f"now: {now!r} and unix_now: {unix_now!r} must be finite numbers of seconds")
        fact = self._FACTS.get(event.__class__)
        if fact is None:
            raise ValueError(f"event: {event!r} is none of {', '.join(kind.__name__ for kind in self._FACTS)}")
        check, take = fact
        if check is not None:
            check(self, event)
        registry = self._registry
        if now > registry.now:
            registry.now = now
        registry.unix_now = unix_now
        effects: list[Effect] = []
        registry.effects = effects
        take(self, event)
        while (due := registry.timers.pop_due(registry.now)) is not None:
            if not self._closed:
                self._run(due)
        while registry.dirty:
            self._dispatch(registry.dirty.pop(next(iter(registry.dirty))))
        if self._say_drained and not (registry.requests or registry.unreported or self._links.leaving):
            self._say_drained = False
            effects.append(Drained())
        return effects

    def _check_request(self, add: AddRequest) -> None:
        self._lane(add.deployment)
        if add.request_id in self._registry.requests:
            raise ValueError(f"request_id: {add.request_id} is in use")
        _check_timeout(add.timeout)
        given, wanted = add.estimate.input_tokens, add.estimate.output_tokens  # from a codec, which may be anybody's
        if type(given) is not int or type(wanted) is not int or given < 0 or wanted < 0:
            raise ValueError(f"estimate: {(given, wanted)!r} are not whole numbers of at least 0")

    def _check_deployment(self, event: RebuildSession | OverrideCircuit) -> None:
        self._lane(event.deployment)

    def _nothing(self, event: Tick) -> None:
        """What comes due with time does so at every fact."""

    def _rebuild(self, event: RebuildSession) -> None:
        if not self._closed:
            self._sessions.rebuild(self._lane(event.deployment).session, event.cause)

    def _session_report(self, event: SessionReport) -> None:
        self._sessions.reported(event)

    def _store_report(self, event: StoreReport) -> None:
        self._links.reported(event)

    def _override(self, event: OverrideCircuit) -> None:
        self._circuits.override(self._lane(event.deployment), event.action, event.duration)

    def _drain(self, event: Drain) -> None:
        self._ending = self._say_drained = True

    def _lane(self, deployment: str | None) -> Lane:
        lanes = self._roster.lanes
        if deployment is None:
            if len(lanes) > 1:
                raise ValueError(f"deployment: there are several, name one of {', '.join(lanes)}")
            return self._lanes[0]
        if deployment not in lanes:
            raise ValueError(f"deployment: {deployment!r} is not one of {', '.join(lanes)}")
        return lanes[deployment]

    # ---- a request comes ----------------------------------------------------------------------------------------------

    def _submit(self, add: AddRequest) -> None:
        registry, lane = self._registry, self._roster.lanes[add.deployment]
        registry.metrics.submitted += 1
        self._order += 1
        request = Request(add, lane, self._order, registry.now)
        refusal = self._refusal(request) or lane.queue.push(request.entry, registry.now)
        if refusal is not None:
            registry.reject(request, refusal)
            return
        registry.add(request)

    def _refusal(self, request: Request) -> InferenceError | None:
        """Why a new request is not even queued: what can be known now is not said later."""
        if self._ending:
            return EngineClosed("the engine is draining or closed")
        estimate = request.estimate
        return (
            request.lane.group.limiter.never_fits(1, estimate.input_tokens, estimate.output_tokens)
            or self._circuits.refusal(request)
            or self._past_pause(request)
        )

    def _past_pause(self, request: Request) -> InferenceError | None:
        """Why a request need not wait for the end of a pause of its limiter, if it need not."""
        lane, now = request.lane, self._registry.now
        pause = lane.group.limiter.paused_until
        if pause is None or pause <= now:
            return None
        if request.deadline is not None and pause >= request.deadline:
            return DeadlineExceeded("the provider's limit pauses past the request's deadline", provider=lane.provider)
        if pause - now > lane.deployment.config.retry.max_retry_after:
            return RateLimited(lane.provider, pause - now, "the provider's limit pauses longer than max_retry_after")
        return None

    # ---- handing out --------------------------------------------------------------------------------------------------

    def _dispatch(self, group: Group) -> None:
        """Start what can start now, best head first, until the limiter says to wait."""
        registry, now = self._registry, self._registry.now
        held_back: set[int] = set()
        registry.timers.set(group, None)
        for lane in group.lanes:
            self._expire_queue(lane)
        while (request := self._best_head(group, held_back)) is not None:
            lane = request.lane
            answer = lane.take(request, self._generation + 1, now, registry.unix_now)
            self._circuits.follow(lane)
            if isinstance(answer, Lease):
                self._start(request, answer)
            elif isinstance(answer, Wait):
                error = self._too_late(request, answer)
                if error is None:
                    registry.timers.set(group, answer.until)
                    break
                registry.finish(request, error.caused_by(request.last_error))
            elif not self._settle_blocked(request, answer):
                held_back.add(lane.index)
        for lane in group.lanes:
            registry.timers.set(lane, lane.deadline(now))
            if lane.circuit.link is not None:
                self._links.follow(lane.circuit.link)
        if group.link is not None:
            self._links.follow(group.link)

    def _settle_blocked(self, request: Request, answer: NoCredential | Rejected | LimitExceeded | BudgetRefusal) -> bool:
        """What becomes of a head that cannot start. Returns whether it is over; if not, its lane is held back."""
        registry, lane = self._registry, request.lane
        match answer:
            case NoCredential():
                self._sessions.want(lane.session)
                return False
            case Rejected(circuit, rejection):
                if self._circuits.may_wait(request, circuit, rejection):
                    self._circuits.arm(circuit)
                    return False
                registry.finish(request, self._circuits.error(circuit, rejection, lane, request.last_error))
            case LimitExceeded():
                answer.provider = lane.provider
                registry.finish(request, answer)
            case BudgetRefusal():
                registry.notice("budget", lane, request.add.request_id, action="reject")
                registry.finish(request, self._budget_exceeded(lane, answer).caused_by(request.last_error))
            case _:
                assert_never(answer)
        return True

    def _budget_exceeded(self, lane: Lane, refusal: BudgetRefusal) -> InferenceError:
        """The error of a request that the budget does not cover: ``retry_after`` is when it would, unless it never can."""
        wait = None if refusal.retry_at is None else refusal.retry_at - self._registry.now
        return BudgetExceeded("the budget does not cover this request", provider=lane.provider, retry_after=wait)

    def _announce_budget(self, request: Request) -> None:
        """Say once that a budget is exceeded that does not reject, whether a reservation or a dear answer did it."""
        lane = request.lane
        if lane.budget is not None and lane.budget.announces(self._registry.now):
            action = str(lane.budget.budget.on_exceeded)
            self._registry.notice("budget", lane, request.add.request_id, action=action)

    def _too_late(self, request: Request, wait: Wait) -> InferenceError | None:
        """Why a head does not wait for its limiter: it could not make it anyway."""
        if (error := self._past_pause(request)) is not None:
            return error
        if wait.until is not None and request.deadline is not None and wait.until >= request.deadline:
            message = "the limit frees too late for the request's deadline"
            return DeadlineExceeded(message, provider=request.lane.provider)
        return None

    def _best_head(self, group: Group, held_back: set[int]) -> Request | None:
        best: Request | None = None
        now = self._registry.now
        for lane in group.lanes:
            if lane.running >= lane.slots(now) or lane.index in held_back:
                continue
            entry = lane.queue.peek(now)
            if entry is None:
                continue
            request = entry.payload
            assert isinstance(request, Request)
            if best is None or (-request.add.priority, request.order) < (-best.add.priority, best.order):
                best = request
        return best

    def _start(self, request: Request, lease: Lease) -> None:
        registry, lane = self._registry, request.lane
        now, add = registry.now, request.add
        self._generation = lease.generation
        lane.queue.serve(request.entry)
        registry.started(request)
        lane.running += 1
        request.attempts += 1
        if request.attempts == 1:
            lane.retry_budget.record_request(now)
        request.aborting = False
        request.lease = lease
        request.exchange = exchange = Exchange(
            lane.exchange_config, add.batch, lease.credential, now, stream=add.stream, request_deadline=request.deadline
        )
        registry.effects.append(StartAttempt(add.request_id, lease.generation, exchange, request.fresh))
        request.fresh = False
        self._arm_attempt(request, exchange)
        self._announce_budget(request)

    # ---- facts about an attempt ---------------------------------------------------------------------------------------

    def _lease(self, event: HeadReceived | Committed | AttemptEnded) -> Lease | None:
        """The lease of the attempt that an event is about; ``None`` if that is over: the event is late."""
        request = self._registry.requests.get(event.request_id)
        if request is None or (lease := request.lease) is None or lease.generation != event.attempt:
            return None
        return lease

    def _head_received(self, event: HeadReceived) -> None:
        lease = self._lease(event)
        if lease is None:
            return
        request = lease.request
        assert request.exchange is not None
        self._arm_attempt(request, request.exchange)
        self._observe(lease, event.head)

    def _observe(self, lease: Lease, head: ResponseHead) -> None:
        """What a head says of the provider's limits."""
        registry, lane = self._registry, lease.lane
        snapshot = lane.exchange_config.codec.rate_limit_snapshot(head.headers, registry.unix_now)
        if snapshot is not None:
            lane.group.limiter.observe_headers(snapshot, registry.now, lease.grant.granted_at)
            registry.touch(lane)  # more may be left than was said before

    def _committed(self, event: Committed) -> None:
        lease = self._lease(event)
        if lease is not None and lease.probes:
            lease.commit(self._registry.now)
            self._circuits.lease_ended(lease.lane)

    def _attempt_ended(self, event: AttemptEnded) -> None:
        lease = self._lease(event)
        if lease is None:
            self._late_usage(event)
            return
        registry, lane, request = self._registry, lease.lane, lease.request
        error, usage = event.error, event.usage
        if event.head is not None:
            self._observe(lease, event.head)
        self._let_go(request)
        lost_unread = error is not None and request.lost_unread(error, event.stale)
        if error is not None and error.counts_as_circuit_failure and not lost_unread:
            lane.circuit.last_error = error
        refused = usage is None and request.ran_nothing(error)
        lease.end(error, usage, event.sent, registry.now, refused=refused, excused=lost_unread)
        if event.sent and not refused:
            registry.account(lane, usage)
        self._announce_budget(request)
        self._circuits.lease_ended(lane)
        if error is None:
            if usage is not None:
                lane.outputs.add(usage.output_tokens)
            registry.finish(request, None)
        elif lost_unread:
            self._resend(request, error)
        else:
            self._attempt_failed(request, error, lease)

    def _resend(self, request: Request, error: InferenceError) -> None:
        """The connection was lost before the server looked at the request: it goes again at once, over a new one.

        No backoff, no retry of its policy or its budget: the endpoint has refused nothing. Once; the next loss is a failure.
        """
        registry = self._registry
        request.last_error = error
        refusal = request.out_of_time(registry.now) or self._circuits.refusal(request, error) or self._past_pause(request)
        if refusal is not None:
            registry.finish(request, refusal.caused_by(error))
            return
        request.resent = request.fresh = True
        registry.retried(request, "stale_connection", 0.0)
        registry.requeue(request)

    def _late_usage(self, event: AttemptEnded) -> None:
        """A report for a lease that was settled by a cancel: its usage still counts, once."""
        registry = self._registry
        lease = registry.unreported.pop((event.request_id, event.attempt), None)
        if lease is not None and event.sent:
            refused = event.usage is None and lease.request.ran_nothing(event.error)
            lease.account(event.usage, registry.now, refused=refused)
            if not refused:
                registry.account(lease.lane, event.usage)
                registry.notice("late_usage", lease.lane, event.request_id, known=event.usage is not None)
            registry.touch(lease.lane)

    def _attempt_failed(self, request: Request, error: InferenceError, lease: Lease) -> None:
        registry, lane = self._registry, request.lane
        committed = request.exchange is not None and request.exchange.committed
        root = error.cause if committed and isinstance(error.cause, InferenceError) else error
        request.last_error = error
        if isinstance(root, RateLimited):
            self._throttled(lane, root)
        if isinstance(root, Unauthorized):
            if self._sessions.unauthorized(request, root, lease, retryable=not committed):
                return
        elif root.blames_key:
            self._circuits.trip_key(lane, root)
        number = request.attempts - request.refreshed - request.resent
        attempt = Attempt(number, committed, lane.deployment.idempotent)
        decision = lane.retry.decide(attempt, error, registry.now, request.deadline)
        if not isinstance(decision, Retry):
            registry.finish(request, error)
        elif (refusal := self._circuits.refusal(request, error)) is not None:
            registry.finish(request, refusal)
        else:
            registry.retried(request, decision.reason, decision.wait)
            registry.move(request, RequestState.BACKOFF)
            registry.timers.set(request, decision.at)

    def _throttled(self, lane: Lane, error: RateLimited) -> None:
        """A 429 is the bucket's affair, not only the request's that met it: whoever cannot wait that long fails now."""
        registry, group = self._registry, lane.group
        registry.metrics.throttled += 1
        hint = error.retry_after if lane.deployment.config.retry.respect_retry_after else None
        group.limiter.observe_throttled(hint, registry.now)
        registry.notice("throttled", lane, retry_after=error.retry_after)
        pause = group.limiter.paused_until
        if pause is None or pause <= max(registry.now, group.paused_until):
            return
        group.paused_until = pause
        for other in group.lanes:
            for request in other.cannot_wait(pause, registry.now):
                refusal = self._past_pause(request)
                assert refusal is not None
                registry.finish(request, refusal.caused_by(error))

    # ---- the end of a request that did not end by itself ------------------------------------------------------------------

    def _cancel(self, event: Cancel) -> None:
        request = self._registry.requests.get(event.request_id)
        if request is not None:
            self._release(request, None)
            self._registry.remove(request)
            self._registry.metrics.cancelled += 1

    def _close(self, event: Close) -> None:
        self._closed = self._ending = self._say_drained = True
        for request in list(self._registry.requests.values()):
            error = EngineClosed("the engine was closed", provider=request.lane.provider)
            self._release(request, error)
            self._registry.finish(request, error)
        self._links.leave()

    def _release(self, request: Request, error: InferenceError | None) -> None:
        """End a running attempt without waiting for its report: what can come back comes back now."""
        lease, exchange = request.lease, request.exchange
        if lease is None or exchange is None:
            return
        self._let_go(request)
        lease.cancel(exchange.sent, self._registry.now)
        self._circuits.lease_ended(request.lane)
        self._registry.unreported[request.add.request_id, lease.generation] = lease
        self._registry.effects.append(AbortAttempt(request.add.request_id, lease.generation, error))

    def _let_go(self, request: Request) -> None:
        """The slot of an attempt is free."""
        request.lease = None
        request.lane.running -= 1
        self._registry.timers.set(request, None)
        self._registry.touch(request.lane)

    # ---- time ---------------------------------------------------------------------------------------------------------

    def _run(self, due: Timed) -> None:
        match due:
            case Request():
                self._request_due(due)
            case Lane():
                self._expire_queue(due)
                self._registry.touch(due)
            case Group():
                self._registry.dirty[due.index] = due
            case Circuit():
                self._circuits.due(due)
            case SessionSlot():
                self._sessions.due(due)
            case Link():
                self._links.due(due)
            case _:
                assert_never(due)

    def _request_due(self, request: Request) -> None:
        if request.state is RequestState.RUNNING:
            self._check_attempt(request)
        elif request.state is RequestState.BACKOFF:
            self._registry.requeue(request)
        else:
            self._sessions.give_up(request)

    def _check_attempt(self, request: Request) -> None:
        """Look at the clocks of a running attempt; one that ran out orders it cut, and it ends with the driver's report."""
        assert request.exchange is not None and request.lease is not None
        error = request.exchange.overdue(self._registry.now)
        if error is None:
            self._arm_attempt(request, request.exchange)
        else:
            request.aborting = True
            self._registry.effects.append(AbortAttempt(request.add.request_id, request.lease.generation, error))

    def _arm_attempt(self, request: Request, exchange: Exchange) -> None:
        if not request.aborting:
            registry = self._registry
            deadline, look_again = exchange.deadline, registry.now + exchange.check_interval
            registry.timers.set(request, deadline if deadline < look_again else look_again)

    def _expire_queue(self, lane: Lane) -> None:
        due = lane.queue.deadline()
        if due is None or due > self._registry.now:
            return
        link = lane.group.link
        for entry, error in lane.queue.expire(self._registry.now):
            request = entry.payload
            assert isinstance(request, Request)
            error.provider = lane.provider
            if link is not None and link.lost:
                error.message += f"; the store through which its limits are shared does not answer: {link.lost_because}"
                error.args = (error.message,)
            self._registry.finish(request, error.caused_by(request.last_error))

    _FACTS: ClassVar[Mapping[type[Event], tuple[_Taker | None, _Taker]]] = {
        AddRequest: (_check_request, _submit),
        Cancel: (None, _cancel),
        HeadReceived: (None, _head_received),
        Committed: (None, _committed),
        AttemptEnded: (None, _attempt_ended),
        SessionReport: (None, _session_report),
        StoreReport: (None, _store_report),
        RebuildSession: (_check_deployment, _rebuild),
        OverrideCircuit: (_check_deployment, _override),
        Tick: (None, _nothing),
        Drain: (None, _drain),
        Close: (None, _close),
    }
    """What refuses an event before anything has changed, and what takes it. A table and no `match`, which would ask for up
    to eleven classes in turn; tests/test_engine_lifecycle.py holds it against `Event`."""


def _check_timeout(timeout: float | None) -> None:
    if timeout is None:
        return
    is_number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
    if not (is_number and 0 < timeout < math.inf):
        raise ValueError(f"timeout: {timeout!r} is not a number of seconds above 0, nor None")
