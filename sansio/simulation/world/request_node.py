"""A node that drives its requests without HTTP: the engine, its exchanges, and providers that answer in beats.

It does what a driver does, in the same order (`RemoteWorker.received` and what is around it), as callbacks of the world's
clock. A connection is a count of idle ones per deployment; the way to a provider takes the time that the weather says.

Sometimes it reports a fact twice, or late, as a driver whose threads overtake each other may: the engine has to take no
notice of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import assert_never

from ...deployment import RemoteEngineConfig
from ...errors import BadRequest, InferenceError, NetworkError
from ...events import (
    AbortAttempt,
    AskStore,
    AttemptEnded,
    Cancel,
    Committed,
    Complete,
    Drained,
    Effect,
    Event,
    HeadReceived,
    Notice,
    RefreshSession,
    StartAttempt,
)
from ...http import END, HttpEvent, HttpRequest, ResponseHead, parse_origin
from .clock import VirtualClock, chance
from .node import Call, Node, batch_of
from .plan import CallerPlan
from .request_attempt import Attempt, Run, Way
from .request_provider import RequestProvider
from .vault import Vault
from .weather import Weather

_LATEST_ECHO_SECONDS = 2.0


class RequestNode(Node):
    """A node at level "requests".

    providers, weather: by host, for every host of a deployment. echo: how likely a report is made once more, or late.
    Raises `ValueError` for a host without a provider.
    """

    def __init__(
        self,
        clock: VirtualClock,
        config: RemoteEngineConfig,
        *,
        seed: int,
        vault: Vault,
        providers: Mapping[str, RequestProvider],
        weather: Mapping[str, Weather],
        fingerprints: Mapping[str, str] | None = None,
        name: str = "node",
        echo: float = 0.02,
    ) -> None:
        super().__init__(clock, config, seed=seed, vault=vault, fingerprints=fingerprints, name=name)
        self._rng = chance(seed, name, "requests")
        self._echo = echo
        self._runs: dict[int, Run] = {}
        self._facts: deque[Event] = deque()
        self._telling = False
        self._ways: dict[str, Way] = {}
        for lane in self.core.roster.lanes.values():
            deployment = lane.deployment
            host = parse_origin(deployment.codec().endpoint).host
            if host not in providers or host not in weather:
                raise ValueError(f"providers: {host!r} of deployment {deployment.name!r} has none, or no weather; give both")
            self._ways[deployment.name] = Way(deployment.model, providers[host], weather[host])

    # ---- what is done to it -------------------------------------------------------------------------------------------

    def tell(self, event: Event) -> None:
        """One critical section, and what comes of it. Within one, the fact waits until the orders before it are done."""
        self._facts.append(event)
        self._work()

    def submit(self, caller: CallerPlan) -> Call:
        """A caller asks."""
        add = self.core.prepare(
            0,
            batch_of(caller),
            deployment=caller.deployment,
            stream=caller.stream,
            priority=caller.priority,
            tenant=caller.tenant,
            timeout=caller.timeout,
            wait_for_circuit=caller.wait_for_circuit,
        )
        call = self.new_call(caller)
        add.request_id = call.request_id
        self._runs[call.request_id] = Run(call, self._ways[caller.deployment])
        self.tell(add)
        return call

    def leave(self, call: Call) -> None:
        """A caller goes. What it held is given back at once, as far as that can be."""
        run = self._runs.pop(call.request_id, None)
        if run is None:
            return
        run.chunks.clear()
        if run.outcome is None:
            self._facts.append(Cancel(call.request_id))
        if run.attempt is not None:
            self._fail(run.attempt, NetworkError("called off by its caller"))
        self._work()
        self.end(call, None, left=True)

    # ---- facts and orders ---------------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Tell the facts in turn, and carry out what each leads to."""
        if self._telling:
            return
        self._telling = True
        facts, core, clock = self._facts, self.core, self.clock
        try:
            while facts:
                now, unix_now = clock.now + self.ahead, clock.unix_now + self.wall_ahead
                for effect in core.handle(facts.popleft(), now, unix_now):
                    self._carry_out(effect)
        finally:
            self._telling = False
        self.rearm()

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case StartAttempt():
                run = self._runs.get(effect.request_id)
                if run is not None:
                    self._start(run, effect)
            case Complete():
                run = self._runs.get(effect.request_id)
                if run is not None:
                    run.outcome = effect
                    self._deliver(run)
            case AbortAttempt():
                run = self._runs.get(effect.request_id)
                attempt = None if run is None else run.attempt
                if attempt is not None and attempt.number == effect.attempt:
                    self._fail(attempt, effect.error or NetworkError("called off by its caller"))
            case Notice():
                pass
            case RefreshSession():
                self.refresh(effect)
            case AskStore():
                self.ask_store(effect)
            case Drained():
                self.drained = True
            case _:
                assert_never(effect)

    def _report(self, fact: HeadReceived | AttemptEnded) -> None:
        """Tell a fact; once in a while it is told again, at a time when nobody asks any more."""
        self._facts.append(fact)
        if self._rng.random() < self._echo:
            self.clock.call_later(self._rng.random() * _LATEST_ECHO_SECONDS, partial(self.tell, fact))

    # ---- an attempt ---------------------------------------------------------------------------------------------------

    def _start(self, run: Run, order: StartAttempt) -> None:
        exchange, way = order.exchange, run.way
        run.attempt = attempt = Attempt(run, order.attempt, exchange)
        try:
            request = way.request(exchange)
        except ValueError as error:
            self._fail(attempt, BadRequest(f"the provider cannot express this request: {error}").caused_by(error))
            return
        exchange.connecting(self.now())
        if not order.fresh and way.take():
            attempt.reused = True
            self._send(attempt, request)
            return
        conditions, rng = way.weather.conditions, self._rng
        if conditions.lost and rng.random() < conditions.lost:
            return  # until the clock of the exchange runs out
        refused = conditions.refused and rng.random() < conditions.refused
        after = partial(self._refused, attempt) if refused else partial(self._send, attempt, request)
        attempt.timer = self.clock.call_later(self._latency(way) + self._latency(way), after)

    def _latency(self, way: Way) -> float:
        """One way, drawn anew each time."""
        conditions = way.weather.conditions
        return conditions.latency + conditions.jitter * self._rng.random()

    def _refused(self, attempt: Attempt) -> None:
        self._fail(attempt, NetworkError("ConnectionRefusedError: connection refused"))
        self._work()

    def _send(self, attempt: Attempt, request: HttpRequest) -> None:
        attempt.exchange.sending(self.now())
        key = self.sending(attempt.run.call, request)
        self.clock.call_later(self._latency(attempt.run.way), partial(self._arrive, attempt, key))

    def _arrive(self, attempt: Attempt, key: str | None) -> None:
        """What was sent arrives, whether or not anybody still waits for the answer."""
        run, clock = attempt.run, self.clock
        provider = run.way.provider
        beats = provider.respond(run.call.plan, run.way.model, key, clock.now, clock.unix_now, reused=attempt.reused)
        if attempt.over:
            provider.over()
            return
        attempt.arrived = True
        attempt.beats, attempt.due = beats, clock.now
        self._next(attempt)

    def _next(self, attempt: Attempt) -> None:
        """The next beat sets out when it is due, and arrives after the one before."""
        beat = next(attempt.beats, None)
        if beat is not None:
            after, attempt.events = beat
            attempt.due += after
            attempt.timer = self.clock.call_at(attempt.due + self._latency(attempt.run.way), partial(self._beat, attempt))

    def _beat(self, attempt: Attempt) -> None:
        if attempt.run.busy:
            attempt.held = True
            return
        self._receive(attempt, attempt.events)
        if not attempt.over:
            self._next(attempt)

    def _receive(self, attempt: Attempt, events: Sequence[HttpEvent]) -> None:
        """As `RemoteWorker.received`; then the chunks are handed over."""
        run, exchange, now = attempt.run, attempt.exchange, self.now()
        if not (len(events) == 1 and isinstance(events[0], NetworkError)):
            attempt.answering = True
        head: ResponseHead | None = None
        for event in events:
            if isinstance(event, bytes):
                run.chunks.extend(exchange.receive_body(event, now))
            elif isinstance(event, ResponseHead):
                exchange.receive_head(event.status, event.headers, now, self.unix_now())
                head = event
            elif event is END:
                attempt.whole = True
                run.chunks.extend(exchange.receive_end(now))
            else:
                run.chunks.extend(exchange.fail(event, now))
        outcome, request_id = exchange.outcome, run.call.request_id
        if head is not None and outcome is None:
            self._report(HeadReceived(request_id, attempt.number, head))
        if exchange.committed and not attempt.told_commit and (outcome is None or outcome.error is not None):
            attempt.told_commit = True
            self._facts.append(Committed(request_id, attempt.number))
        if outcome is not None:
            self._attempt_over(attempt, head)
        if self._facts:
            self._work()
        self._deliver(run)
        if not (attempt.over or run.busy):
            exchange.wait(now)

    def _fail(self, attempt: Attempt, error: InferenceError) -> None:
        """It is cut, or was lost. The fact is told by whoever works next."""
        run = attempt.run
        chunks = attempt.exchange.fail(error, self.now())
        if run.call.request_id in self._runs:
            run.chunks.extend(chunks)
        self._attempt_over(attempt)
        self._deliver(run)

    def _attempt_over(self, attempt: Attempt, head: ResponseHead | None = None) -> None:
        run, exchange = attempt.run, attempt.exchange
        outcome = exchange.outcome
        assert outcome is not None
        attempt.over, run.attempt = True, None
        if attempt.timer is not None:
            attempt.timer.cancel()
        if attempt.arrived:
            run.way.provider.over()
        error = outcome.error
        if attempt.whole or error is None:
            run.way.keep()
        stale = attempt.reused and not attempt.answering and isinstance(error, NetworkError) and not error.reset
        self._report(AttemptEnded(run.call.request_id, attempt.number, error, outcome.usage, exchange.sent, stale, head))

    # ---- its caller ---------------------------------------------------------------------------------------------------

    def _deliver(self, run: Run) -> None:
        """Hand over what there is, one chunk at a time to a slow reader, and after the last the end.

        While a caller does not read, the clocks of its exchange stand still: only `wait` lets them run.
        """
        if run.busy:
            return
        chunks, call = run.chunks, run.call
        while chunks:
            self.hand_over(call, chunks.popleft())
            if call.plan.reads_every:
                run.busy = True
                self.clock.call_later(call.plan.reads_every, partial(self._reads_on, run))
                return
        if run.outcome is not None and self._runs.pop(call.request_id, None) is not None:
            self.end(call, run.outcome.error)

    def _reads_on(self, run: Run) -> None:
        """A slow reader is done with a chunk."""
        run.busy = False
        self._deliver(run)
        attempt = run.attempt
        if attempt is None or run.busy:
            return
        if attempt.held:
            attempt.held = False
            self._beat(attempt)
        else:
            attempt.exchange.wait(self.now())
