"""A world of random facts around one `RemoteEngineCore`, and a naive model that holds it to the invariants of the spec.

`World` is a driver with a short memory and no manners: it knows what it was ordered, tells facts early, late, twice and out
of order, and checks after every single one what must always hold. The model never asks the engine what to expect: it
reads the orders, as a driver does. Only the leases are looked at from inside, and the limiter and the breakers are replaced
by ones that count (`CountingLimiter`, `CountingBreaker`).

Everything a world does is one `step` of plain values, so a run can be repeated: on a fresh engine, by Hypothesis when it
shrinks, or in another process. The numbers in the messages are those of the invariants.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections import Counter

from engine_harness import BATCH, CONTENT, EVENT_STREAM, OPEN_ENDED, START, UNIX_AHEAD, USAGE
from engine_world_checks import check_lane, check_leases, check_order
from engine_world_parts import (
    CLOCK_STEPS,
    ESTIMATES,
    FAILURES,
    HEADERS,
    HINTS,
    LIVES,
    RETRY,
    ROSTERS,
    SESSION,
    TIMEOUTS,
    VERDICTS,
    Asked,
    CircuitModel,
    CountingBreaker,
    CountingLimiter,
    Running,
    check_nothing_waits_in_vain,
    shown,
    unhealthy,
)

from sansio import errors
from sansio.batch import TokenEstimate, TokenUsage
from sansio.deployment import RemoteEngineConfig
from sansio.engine import RemoteEngineCore
from sansio.errors import InferenceError, StreamInterrupted
from sansio.events import (
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
    OverrideCircuit,
    RebuildSession,
    RefreshSession,
    SessionReport,
    StartAttempt,
    Tick,
)
from sansio.http import ResponseHead
from sansio.lane import Lane, RequestState, SessionSlot
from sansio.queue import Priority
from sansio.secret import Credential


class World:
    """One engine and all that happens to it. Each public method is one fact, told and checked."""

    def __init__(self, roster: str, seed: int) -> None:
        self.roster = roster
        self.engine = RemoteEngineCore(RemoteEngineConfig(ROSTERS[roster], SESSION), rng=random.Random(seed))
        self.lanes: dict[str, Lane] = self.engine._roster.lanes
        self.parts = self.engine._roster
        for group in self.parts.groups:
            group.limiter = CountingLimiter(group.limiter)
        for circuit in self.parts.circuits:
            circuit.breaker = CountingBreaker(circuit.breaker)
        self.now, self.latest = START, -math.inf
        self.unix_ahead = UNIX_AHEAD
        self.asked: dict[int, Asked] = {}
        self.running: list[Running] = []
        self.past: list[Running] = []
        """Attempts that are over, kept to be told of again."""
        self.unreported: list[Running] = []
        """Attempts that were called off and owe a report."""
        self.circuits = [CircuitModel() for _ in self.parts.circuits]
        self.refreshing: dict[int, RefreshSession] = {}
        self.old_refreshes: list[RefreshSession] = []
        self.expiries: dict[str, tuple[float, float]] = {}
        """When each credential expires, by both clocks."""
        self.keys = 0
        self.paused: dict[int, float] = {}
        """Until when each limiter grants nothing."""
        self.refused: set[tuple[int, int]] = set()
        """Credentials that met a 401 which no rebuild has answered."""
        self.expect_drained = False
        self.ending = False
        self.retries: dict[str, list[float]] = {name: [] for name in self.lanes}
        self.sent: dict[str, list[float]] = {name: [] for name in self.lanes}
        self.counts: Counter[str] = Counter()
        self.usage = 0
        self.outside: set[int] = set()
        """Who stood outside of a full queue when the last fact came."""
        self.resending: Asked | None = None
        """Whose connection was just lost unread, until it is told that it goes again."""
        self.trace: list[str] = []

    # ---- facts ------------------------------------------------------------------------------------------------------

    def submit(self, lane: int, priority: int, tenant: int, timeout: int, estimate: int, wait: int) -> None:
        """Somebody asks."""
        name = list(self.lanes)[lane % len(self.lanes)]
        request_id = self.counts["submitted"] % 997  # ids come round again, as a driver's might
        if request_id in self.asked and not self.asked[request_id].over:
            return
        seconds = TIMEOUTS[timeout % len(TIMEOUTS)]
        batch = OPEN_ENDED if estimate % 7 == 6 else BATCH
        add = AddRequest(
            request_id, name, batch, TokenEstimate(*ESTIMATES[estimate % len(ESTIMATES)]), True, Priority(priority % 4),
            f"t{tenant % 3}", seconds, (None, None, True, False)[wait % 4],
        )  # fmt: skip
        self.counts["submitted"] += 1
        deadline = None if seconds is None else max(self.now, self.latest) + seconds
        waits = self.lanes[name].deployment.served.on_circuit_open == "wait"
        waits = waits if add.wait_for_circuit is None else add.wait_for_circuit
        self.asked[request_id] = Asked(request_id, name, add.priority, self.counts["submitted"], deadline, waits)
        self._tell(add, asked=self.asked[request_id])

    def cancel(self, which: int, twice: bool) -> None:
        """A caller leaves, once or twice."""
        if self.asked:
            asked = list(self.asked.values())[which % len(self.asked)]
            for _ in range(1 + twice):
                if not asked.over:
                    self.counts["cancelled"] += 1
                    asked.over = True
                    if asked.attempt is not None:
                        self._call_off(asked.attempt)
                self._tell(Cancel(asked.id))

    def send(self, which: int) -> None:
        """A driver sends an attempt's request. The engine hears nothing of it."""
        if self.running:
            exchange = self.running[which % len(self.running)].order.exchange
            if not exchange.sent:
                exchange.connecting(self.now)
                exchange.sending(self.now)

    def head(self, which: int, headers: int) -> None:
        """The head of an answer comes."""
        if self.running:
            run = self.running[which % len(self.running)]
            self._head(run, HEADERS[headers % len(HEADERS)])

    def commit(self, which: int) -> None:
        """The first content of an answer comes."""
        if self.running:
            run = self.running[which % len(self.running)]
            exchange = run.order.exchange
            if not exchange.committed:
                self._head(run, ())
                if run in self.running:
                    exchange.wait(self.now)
                    exchange.receive_body(CONTENT, self.now)
                    self._tell(Committed(run.asked.id, run.order.attempt), committed=run)

    def end_well(self, which: int, usage: int) -> None:
        """An attempt succeeds."""
        if self.running:
            run = self.running[which % len(self.running)]
            self.send(which)
            self._end(run, None, (USAGE, TokenUsage(5, 400), None)[usage % 3])

    def end_badly(self, which: int, failure: int, hint: int, verdict: int) -> None:
        """An attempt fails, one way or another, or as it was ordered to."""
        if self.running:
            run = self.running[which % len(self.running)]
            error = run.aborted
            if error is None or failure % 5 == 0:
                kind = FAILURES[failure % len(FAILURES)]
                error = kind(should_retry=VERDICTS[verdict % len(VERDICTS)])
                # No provider says "not you, but later": a 401 has no hint.
                error.retry_after = None if isinstance(error, errors.Unauthorized) else HINTS[hint % len(HINTS)]
            self._end(run, error, None, wrapped=verdict % 2 == 0)

    def lose(self, which: int, how: int) -> None:
        """A connection is lost: one that was used before, or one whose server says that it never looked; or just lost."""
        if self.running:
            run = self.running[which % len(self.running)]
            error = errors.NetworkError(unprocessed=how % 4 >= 2, should_retry=False if how % 9 == 8 else None)
            self._end(run, error, None, wrapped=how % 5 == 0, stale=how % 2 == 1)

    def report_called_off(self, which: int, usage: int) -> None:
        """The report that a cancelled attempt owes."""
        if self.unreported:
            run = self.unreported.pop(which % len(self.unreported))
            used = (USAGE, None)[usage % 2]
            if run.order.exchange.sent:
                self._count_usage(used)
            self.past.append(run)
            self._tell(AttemptEnded(run.asked.id, run.order.attempt, errors.NetworkError(), used, run.order.exchange.sent))

    def repeat(self, which: int, what: int) -> None:
        """Something is told again that is long over."""
        if not self.past:
            return
        run = self.past[which % len(self.past)]
        request_id, attempt = run.asked.id, run.order.attempt
        late: Event
        if what % 3 == 0:
            late = AttemptEnded(request_id, attempt, None, USAGE, True)
        elif what % 3 == 1:
            late = HeadReceived(request_id, attempt, ResponseHead(200, HEADERS[1]))
        else:
            late = Committed(request_id, attempt)
        self._tell(late)

    def refreshed(self, which: int, life: int, same: bool) -> None:
        """A credential is fetched: the same or another, and it may have expired on the way."""
        if self.refreshing:
            order = list(self.refreshing.values())[which % len(self.refreshing)]
            self.keys += not same
            value, seconds = f"sk-{order.session}-{self.keys}", LIVES[life % len(LIVES)]
            self._report(order, Credential(value, None if seconds is None else self.now + self.unix_ahead + seconds))

    def refresh_failed(self, which: int) -> None:
        """No credential is to be had."""
        if self.refreshing:
            self._report(list(self.refreshing.values())[which % len(self.refreshing)], errors.NetworkError("no vault"))

    def refresh_repeated(self, which: int) -> None:
        """A refresh reports again, or one of a session that does not exist."""
        if self.old_refreshes:
            order = self.old_refreshes[which % len(self.old_refreshes)]
            self._tell(SessionReport(order.session, order.refresh_id, Credential("sk-late")))
        self._tell(SessionReport(99, 1, Credential("sk-of-nobody")))

    def rebuild(self, lane: int) -> None:
        """An operator wants a fresh credential."""
        self._tell(RebuildSession(list(self.lanes)[lane % len(self.lanes)]))

    def override(self, lane: int, action: int, seconds: float) -> None:
        """An operator opens, closes or resets a circuit."""
        name = list(self.lanes)[lane % len(self.lanes)]
        if list(CircuitAction)[action % 3] is CircuitAction.RESET:  # what was under way says nothing any more
            circuit = self.circuits[self.lanes[name].circuit.index]
            circuit.failures, circuit.epoch = 0, circuit.epoch + 1
        self._tell(OverrideCircuit(name, list(CircuitAction)[action % 3], seconds), overridden=name)

    def let_pass(self, step: int) -> None:
        """Time passes, and the engine is not told."""
        self.now += CLOCK_STEPS[step % len(CLOCK_STEPS)]

    def clock_back(self, seconds: float) -> None:
        """The monotonic clock is read before it was."""
        self.now -= seconds

    def wall_clock_jumps(self, seconds: float) -> None:
        """Somebody sets the wall clock."""
        self.unix_ahead += seconds

    def tick(self) -> None:
        """A timer fires, for whatever reason."""
        self._tell(Tick())

    def tick_at_deadline(self, early: bool) -> None:
        """The timer fires, at its time or a little before it."""
        deadline = self.engine.deadline()
        if deadline is not None:
            self.now = max(self.now, deadline - 0.01 * early)
            self._tell(Tick())

    def drain(self) -> None:
        """Nothing new is accepted."""
        self.ending = self.expect_drained = True
        self._tell(Drain())

    def close(self) -> None:
        """Everything ends now."""
        self.ending = self.expect_drained = True
        for run in list(self.running):
            self._call_off(run)
        self._tell(Close())
        assert all(asked.over for asked in self.asked.values()), "4: close ends every request"

    # ---- heal -------------------------------------------------------------------------------------------------------

    def heal(self) -> None:
        """17: when nothing goes wrong any more and requests keep coming, everything ends and nothing is armed."""
        for _ in range(600):
            while self.unreported:
                self.report_called_off(0, 0)
            while self.refreshing:
                self.refreshed(0, 0, False)
            while self.running:
                self.end_well(0, 0)
            waiting = [asked for asked in self.asked.values() if not asked.over]
            ill = [name for name, lane in self.lanes.items() if unhealthy(lane, self.latest)]
            if not (waiting or self.running or self.refreshing) and (self.ending or not ill):
                break
            if not self.ending and not waiting:
                for name in ill:
                    self.submit(list(self.lanes).index(name), 1, 0, 0, 0, 0)
            if not (self.running or self.refreshing):
                self.now += 0.0 if waiting else 5.0
                self.tick_at_deadline(False)
        assert not self.refreshing and not self.running and not self.unreported
        assert all(asked.over for asked in self.asked.values()), "17: every accepted request ends"
        if not self.ending:
            assert not any(unhealthy(lane, self.latest) for lane in self.lanes.values()), "17: every circuit closes"
            self.drain()
        assert not self.expect_drained, "5: an engine with nothing outstanding says that it is drained"
        self.now = max(self.now, self.latest) + 3_600.0
        self.tick()
        armed = {type(due) for due in self.engine._registry.timers._armed}
        assert armed <= {SessionSlot}, f"17: no request's timer stays, nor a circuit's: {armed}"

    # ---- telling, and reading the orders ----------------------------------------------------------------------------------

    def _head(self, run: Running, headers: tuple[tuple[str, str], ...]) -> None:
        self.send(self.running.index(run))
        run.order.exchange.receive_head(200, EVENT_STREAM, self.now, self.now + self.unix_ahead)
        self._tell(HeadReceived(run.asked.id, run.order.attempt, ResponseHead(200, headers)))

    def _report(self, order: RefreshSession, result: Credential | InferenceError) -> None:
        del self.refreshing[order.session]
        self.old_refreshes.append(order)
        if isinstance(result, Credential):
            unix = math.inf if result.expires_at_unix is None else result.expires_at_unix
            left = unix - self.now - self.unix_ahead
            if left > 0:  # one that has expired already is not taken
                self.refused = {(session, generation) for session, generation in self.refused if session != order.session}
                self.expiries[result.fingerprint] = (max(self.now, self.latest) + left, unix)
        self._tell(SessionReport(order.session, order.refresh_id, result))

    def _call_off(self, run: Running) -> None:
        """A running attempt is taken from its request, and owes a report."""
        self._over(run)
        self.unreported.append(run)

    def _over(self, run: Running) -> None:
        self.running.remove(run)
        run.asked.attempt = None
        for circuit in self.circuits:
            circuit.probes.pop(run, None)

    def _end(
        self, run: Running, error: InferenceError | None, usage: TokenUsage | None, wrapped: bool = True, stale: bool = False
    ) -> None:
        asked, sent = run.asked, run.order.exchange.sent
        root = error
        if error is not None and run.order.exchange.committed and wrapped:  # or its driver forgot
            error = StreamInterrupted(None, None, error)
        self._over(run)
        self.past.append(run)
        unprocessed = isinstance(error, errors.NetworkError) and error.unprocessed
        if sent and not unprocessed:
            self._count_usage(usage)
        if self._goes_again(run, error, stale):
            self._lost_unread(run, error, stale)
            return
        asked.may_start = self._may_go_on(run, error)
        self._note_refusals(run, root)
        if isinstance(root, errors.Unauthorized) and asked.may_start:
            asked.refreshed = True
        elif error is not None and error.retry_after is not None and error.retry_after > 0:
            asked.not_before = max(self.latest, self.now) + error.retry_after
        self._tell(AttemptEnded(asked.id, run.order.attempt, error, usage, sent, stale), ended=run, error=error)

    def _goes_again(self, run: Running, error: InferenceError | None, stale: bool) -> bool:
        """Whether this is the one loss of a request's connection that is no failure."""
        if run.asked.resent or run.order.exchange.committed or not isinstance(error, errors.NetworkError):
            return False
        allowed = error.unprocessed or (stale and self.lanes[run.lane].deployment.idempotent)
        return allowed and error.should_retry is not False

    def _lost_unread(self, run: Running, error: InferenceError | None, stale: bool) -> None:
        """It goes again at once, over a new connection, and no circuit hears of it (nor its retries' budget)."""
        asked = run.asked
        asked.resent = asked.fresh = True
        self.resending = asked
        attempts = asked.attempts
        self._tell(AttemptEnded(asked.id, run.order.attempt, error, None, run.order.exchange.sent, stale))
        assert asked.over or self.resending is None, "it is told, once"
        self.resending = None
        if not asked.over and asked.attempts == attempts:
            state = self.engine._registry.requests[asked.id].state
            assert state is RequestState.QUEUED, "12: nothing is waited for but its turn"

    def _note_refusals(self, run: Running, error: InferenceError | None) -> None:
        """What a 429 and a 401 forbid to everybody."""
        lane, now = self.lanes[run.lane], max(self.latest, self.now)
        if isinstance(error, errors.RateLimited) and error.retry_after:
            paused = self.paused.get(lane.group.index, -math.inf)
            self.paused[lane.group.index] = max(paused, now + error.retry_after)
        if isinstance(error, errors.Unauthorized):
            self.refused.add((lane.session.index, run.order.exchange.generation))

    def _may_go_on(self, run: Running, error: InferenceError | None) -> bool:
        """14: whether a request that ended so may be sent again at all."""
        if error is None or run.order.exchange.committed or error.should_retry is False:
            return False
        if not self.lanes[run.lane].deployment.idempotent:
            return False
        if isinstance(error, errors.Unauthorized):
            return not run.asked.refreshed
        if isinstance(error, (errors.QuotaExhausted, errors.Forbidden)):
            return False
        return error.retryable or error.should_retry is True

    def _count_usage(self, usage: TokenUsage | None) -> None:
        self.counts["accounted"] += 1
        if usage is None:
            self.counts["unknown usage"] += 1
        else:
            self.usage += usage.total_tokens

    def _tell(
        self, event: Event, *, asked: Asked | None = None, ended: Running | None = None, error: InferenceError | None = None,
        committed: Running | None = None, overridden: str | None = None,
    ) -> None:  # fmt: skip
        self.latest = max(self.latest, self.now)
        self.outside.clear()
        before = [(circuit.state, circuit.epoch, circuit.failures) for circuit in self.circuits]
        for circuit, part in zip(self.circuits, self.parts.circuits, strict=True):
            timeout = part.breaker._config.probe_timeout
            circuit.probes = {run: at for run, at in circuit.probes.items() if self.latest < at + timeout}
        if committed is not None:
            committed.committed = True
            for circuit in self.circuits:
                circuit.probes.pop(committed, None)
        for lane in self.lanes.values():  # who stands outside of a full queue is not in line yet
            self.outside.update(lane.queue._timeouts.living)
            full = lane.queue.queued >= lane.deployment.served.queue_capacity
            if asked is not None and asked.lane == lane.deployment.name and full:
                self.outside.add(asked.id)
        effects = self.engine.handle(event, self.now, self.now + self.unix_ahead)
        self.trace.append(f"{self.now!r} {type(event).__name__} {[shown(effect) for effect in effects]}")
        for effect in effects:
            self._read(effect)
        self._check_reports(before, ended, error, committed, overridden)
        self._check_always(effects)

    def _read(self, effect: Effect) -> None:
        match effect:
            case StartAttempt():
                self._read_start(effect)
            case AbortAttempt():
                known = {(run.asked.id, run.order.attempt): run for run in self.running + self.unreported}
                run = known.get((effect.request_id, effect.attempt))
                assert run is not None, "4: only what runs is cut"
                run.aborted = effect.error or errors.NetworkError("called off")
            case Complete():
                asked = self.asked[effect.request_id]
                assert not asked.over, "4: one terminal outcome"
                assert asked.attempt is None, "4: no outcome while an attempt runs"
                asked.over = True
                self.counts["over"] += 1
            case RefreshSession():
                assert effect.session not in self.refreshing, "18: one refresh at a time"
                self.refreshing[effect.session] = effect
            case Notice():
                self._read_notice(effect)
            case Drained():
                assert self.expect_drained, "5: drained is said once for each time it was asked for"
                assert not self.unreported and all(asked.over for asked in self.asked.values()), "5: nothing outstanding"
                self.expect_drained = False

    def _read_start(self, start: StartAttempt) -> None:
        asked = self.asked[start.request_id]
        lane = self.lanes[asked.lane]
        assert not asked.over and asked.attempt is None, "4: only a request that waits is started"
        assert asked.may_start, "14: nothing is sent again that may not be"
        assert self.latest >= asked.not_before, "12: no retry before its hint, or before its backoff is over"
        assert asked.deadline is None or self.latest < asked.deadline, "11: nothing is started at or past its deadline"
        asked.attempts += 1
        if asked.attempts == 1:
            self.sent[asked.lane].append(self.latest)
        assert asked.attempts <= 1 + RETRY["max_retries"] + asked.refreshed + asked.resent, "11: attempts are bounded"
        assert start.fresh == asked.fresh, "a new connection is for who lost one"
        asked.fresh = False
        request = self.engine._registry.requests[asked.id]
        assert request.lease is not None and request.lease.grant.limiter is lane.group.limiter, "an attempt holds a lease"
        mono, unix = self.expiries[request.lease.credential.credential.fingerprint]
        assert self.latest < mono and self.now + self.unix_ahead < unix, "18: no start with an expired credential"
        assert (lane.session.index, start.exchange.generation) not in self.refused, "18: nor with one that was refused"
        assert self.latest >= self.paused.get(lane.group.index, -math.inf), "4.5.5: a 429 pauses the whole limiter"
        models = (self.circuits[lane.circuit.index], self.circuits[lane.key_circuit.index])
        run = Running(asked, start, asked.lane, (models[0].epoch, models[1].epoch))
        for model, part in zip(models, (lane.circuit, lane.key_circuit), strict=True):
            assert model.state != "open", "15: an open circuit sends nothing"
            if model.state == "half_open":
                model.probes[run] = self.latest
                assert len(model.probes) <= part.breaker._config.half_open_max_probes, "15: probes are bounded"
        asked.attempt = run
        self.running.append(run)

    def _read_notice(self, notice: Notice) -> None:
        lane = self.lanes[notice.deployment]
        assert (notice.now, notice.unix_now) == (self.latest, self.now + self.unix_ahead), "each notice is stamped"
        if notice.request_id is not None and notice.kind != "late_usage":
            assert not self.asked[notice.request_id].over, "4: nothing is said of what is over"
        if notice.kind in ("circuit", "key_circuit"):
            model = self.circuits[(lane.circuit if notice.kind == "circuit" else lane.key_circuit).index]
            assert notice.detail["source"] == model.state, "15: transitions follow one another"
            model.state, model.epoch, model.failures = notice.detail["target"], model.epoch + 1, 0
            model.probes.clear()
        elif notice.kind == "refresh_ended" and notice.detail["result"] == "failed":
            self.refreshing.pop(lane.session.index, None)  # it may have been given up on
        elif notice.kind == "retry_scheduled" and notice.detail["reason"] == "stale_connection":
            assert self.resending is self.asked[notice.request_id or 0], "14: only what was lost unread, and once"
            assert notice.detail["wait"] == 0.0, "12: no backoff"
            self.resending = None
        elif notice.kind == "retry_scheduled" and notice.detail["reason"] != "unauthorized":
            asked = self.asked[notice.request_id or 0]
            at = self.latest + notice.detail["wait"]
            assert asked.deadline is None or at < asked.deadline, "11: nothing sleeps past its deadline"
            invited = asked.not_before > self.latest and notice.detail["reason"] == "rate_limited"
            asked.not_before = max(asked.not_before, at)
            if not invited:
                self._check_retry_budget(notice.deployment)

    # ---- what holds after every fact -------------------------------------------------------------------------------------

    def _check_retry_budget(self, lane: str) -> None:
        """13, by the definition: no interval up to now has more retries than ten and a fifth of its requests."""
        retries, now = self.retries[lane], self.latest
        retries.append(now)
        recent = [at for at in retries if at >= now - 10.0]
        for since in recent:
            requests = sum(1 for at in self.sent[lane] if since <= at <= now)
            taken = sum(1 for at in recent if at >= since)
            assert taken <= 10 + requests / 5, "13: retries stay within their budget"

    def _check_reports(
        self, before: list[tuple[str, int, int]], ended: Running | None, error: InferenceError | None,
        committed: Running | None, overridden: str | None,
    ) -> None:  # fmt: skip
        """15: what a report does to the circuit of its endpoint, counted naively."""
        for circuit, part, (state, epoch, failures) in zip(self.circuits, self.parts.circuits, before, strict=True):
            if part.of_key or (overridden is not None and self.lanes[overridden].circuit is part):
                continue
            run = ended or committed
            heard = run is not None and self.lanes[run.lane].circuit is part and run.epochs[0] == epoch
            if not heard or state == "open" or (committed is not None and state == "closed"):
                legal = {(state, epoch), ("half_open", epoch + 1)} if state == "open" else {(state, epoch)}
                assert (circuit.state, circuit.epoch) in legal, "15: only fresh reports and operators move a circuit"
            elif state == "closed" and error is None:
                assert circuit.state == "closed", "15: success opens nothing"
                circuit.failures = 0
            elif state == "closed" and error is not None and error.counts_as_circuit_failure:
                opens = failures + 1 >= part.breaker._config.failure_threshold
                assert (circuit.epoch > epoch) == opens, "15: it opens at its threshold"
                circuit.failures = 0 if opens else failures + 1

    def _check_always(self, effects: list[Effect]) -> None:
        metrics = self.engine.metrics()
        assert metrics.submitted == metrics.accounted == self.counts["submitted"], "5: every request is in one place"
        assert metrics.in_flight == len(self.running), "5: and what runs is known to run"
        assert metrics.cancelled == self.counts["cancelled"]
        assert metrics.done + metrics.failed + metrics.rejected == self.counts["over"]
        assert min(metrics.queued, metrics.waiting, metrics.in_flight) >= 0
        assert metrics.usage.total_tokens == self.usage, "21: each attempt's usage counts once"
        assert metrics.unknown_usage == self.counts["unknown usage"], "20: unknown usage is unknown, not zero"
        check_leases(self)
        for lane in self.lanes.values():
            check_lane(self, lane)
        check_order(self, effects)
        for group in self.parts.groups:
            check_nothing_waits_in_vain(group, self.latest, self.now + self.unix_ahead)
        for asked in self.asked.values():
            if not asked.over and asked.deadline is not None and self.latest >= asked.deadline:
                cut = asked.attempt is not None and asked.attempt.aborted is not None
                assert cut, "11: nothing waits past its deadline"
        deadline = self.engine.deadline()
        assert deadline is None or deadline > self.latest, "26: no timer is left behind at the present"

    # ---- repeating --------------------------------------------------------------------------------------------------------

    def digest(self) -> str:
        """Everything the engine ordered, as a hash."""
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()
