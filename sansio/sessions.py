"""What follows from the state of credentials: who waits for one, who goes on with a new one, who fails without.

One refresh at a time however many wait. A 401 takes the credential out of service, orders one rebuild, and sends the
request again once if the rebuild gave a different one.
"""

from __future__ import annotations

from .circuits import Circuits
from .errors import DeadlineExceeded, InferenceError, Unauthorized
from .events import RefreshSession, SessionReport
from .lane import Lease, Request, RequestState, SessionSlot
from .registry import Registry
from .session import AuthVerdict, RefreshResult, SessionOutcome, SessionRebuildCause


class Sessions:
    """The credentials of one engine."""

    __slots__ = ("_circuits", "_registry", "_slots")

    def __init__(self, registry: Registry, circuits: Circuits, slots: list[SessionSlot]) -> None:
        self._registry = registry
        self._circuits = circuits
        self._slots = slots

    def want(self, slot: SessionSlot) -> None:
        """Order a refresh, if one is wanted and none is under way."""
        registry = self._registry
        cause = slot.session.wants_refresh(registry.now, registry.unix_now)
        if cause is not None:
            refresh_id = slot.session.begin_refresh(cause, registry.now)
            registry.metrics.refreshes += 1
            registry.notice("refresh_started", slot.lanes[0], cause=str(cause))
            registry.effects.append(RefreshSession(slot.index, refresh_id, cause, slot.secret))
        registry.timers.set(slot, slot.session.deadline())

    def unauthorized(self, request: Request, error: Unauthorized, lease: Lease, *, retryable: bool) -> bool:
        """An attempt was answered 401. Returns whether the request goes on: at once, or parked until the rebuild is over."""
        registry, lane, slot = self._registry, request.lane, request.lane.session
        verdict = slot.session.unauthorized(lease.credential.generation, registry.now)
        if verdict is AuthVerdict.WAIT_FOR_REBUILD:
            slot.refusal = (lane, error)
            self.want(slot)
        if request.refreshed:  # a fresh credential was refused too: the key itself is to blame
            self._circuits.trip_key(lane, error)
        if not retryable or request.refreshed or not lane.deployment.idempotent or error.should_retry is False:
            return False
        request.not_before = registry.now + max(0.0, error.retry_after or 0.0)
        too_long = request.not_before - registry.now > lane.deployment.config.retry.max_retry_after
        if too_long or (request.deadline is not None and request.not_before >= request.deadline):
            return False
        request.refreshed = True
        if verdict is AuthVerdict.WAIT_FOR_REBUILD:
            registry.move(request, RequestState.PARKED)
            slot.parked[request.add.request_id] = request
            registry.timers.set(request, request.deadline)
        else:
            self._resume(request)
        return True

    def reported(self, report: SessionReport) -> None:
        """A refresh is over. Reports of sessions or refreshes that are not known do nothing."""
        if 0 <= report.session < len(self._slots):
            slot, registry = self._slots[report.session], self._registry
            self._ended(slot, slot.session.report(report.refresh_id, report.result, registry.now, registry.unix_now))

    def rebuild(self, slot: SessionSlot, cause: SessionRebuildCause) -> None:
        """Somebody asked for a fresh credential; the old one is served meanwhile."""
        slot.session.request_rebuild(cause, self._registry.now)
        self.want(slot)

    def due(self, slot: SessionSlot) -> None:
        """The time of a session has come: a refresh never reported, a credential expires, or a backoff is over."""
        registry = self._registry
        outcome = slot.session.expire(registry.now)
        if outcome is not None:
            self._ended(slot, outcome)
        wanted = slot.session.generation > 0 or slot.parked or any(len(lane.queue) for lane in slot.lanes)
        if wanted:
            self.want(slot)

    def give_up(self, request: Request) -> None:
        """A request that waits for a rebuild has no time left."""
        error = DeadlineExceeded("the deadline passed while waiting for a credential", provider=request.lane.provider)
        self._registry.finish(request, error.caused_by(request.last_error))

    def _ended(self, slot: SessionSlot, outcome: SessionOutcome) -> None:
        if outcome.result is RefreshResult.STALE:
            return
        registry = self._registry
        registry.notice("refresh_ended", slot.lanes[0], result=str(outcome.result))
        registry.timers.set(slot, slot.session.deadline())
        parked, slot.parked = list(slot.parked.values()), {}
        if outcome.error is not None:
            registry.metrics.failed_refreshes += 1
            self._fail_waiters(slot, parked, outcome.error)
        elif outcome.result is RefreshResult.RENEWED:
            slot.refusal = None
            for lane in slot.lanes:
                self._circuits.key_renewed(lane)
            for request in parked:
                self._resume(request)
        else:
            self._refused_again(slot, parked)
        for lane in slot.lanes:
            registry.touch(lane)

    def _refused_again(self, slot: SessionSlot, parked: list[Request]) -> None:
        """The rebuild gave the same credential: what it was refused for stands, whether or not anybody waits for it."""
        refusal, slot.refusal = slot.refusal, None
        for request in parked:
            error = request.last_error
            assert error is not None
            self._registry.finish(request, error)
        if refusal is not None:
            self._circuits.trip_key(*refusal)

    def _fail_waiters(self, slot: SessionSlot, parked: list[Request], cause: InferenceError) -> None:
        """Those who need a credential fail together, each with an error of its own and the same cause."""
        waiters = list(parked)
        if slot.session.snapshot(self._registry.now, self._registry.unix_now) is None:
            for lane in slot.lanes:
                waiters += [request for request in lane.requests.values() if request.state is RequestState.QUEUED]
        for request in waiters:
            error = Unauthorized("the credential could not be refreshed", provider=request.lane.provider)
            self._registry.finish(request, error.caused_by(cause))

    def _resume(self, request: Request) -> None:
        registry = self._registry
        registry.timers.set(request, None)
        refusal = self._circuits.refusal(request, request.last_error)
        if request.deadline is not None and request.deadline <= registry.now:
            self.give_up(request)
        elif refusal is not None:
            registry.finish(request, refusal)
        elif request.not_before > registry.now:  # the refusal came with a hint, and no retry undercuts one
            registry.retried(request, "unauthorized", request.not_before - registry.now)
            registry.move(request, RequestState.BACKOFF)
            registry.timers.set(request, request.not_before)
        else:
            registry.retried(request, "unauthorized", 0.0)
            registry.requeue(request)
