"""What follows from the state of circuits: who is refused, who may wait, who fails when one opens.

Two circuits stand before every attempt: that of the endpoint, and that of the key (opened when the key is to blame, until
it changes or its hint passes). The verdicts are the breakers' own; this is what the engine makes of them.
"""

from __future__ import annotations

import math
from typing import assert_never

from .circuit_breaker import CircuitRejection, CircuitState, CircuitTransition, Outcome
from .errors import CircuitOpen, InferenceError
from .events import CircuitAction, NoticeKind
from .lane import Circuit, Lane, Request, RequestState
from .registry import Registry, count


class Circuits:
    """The circuits of one engine."""

    __slots__ = ("_registry",)

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def refusal(self, request: Request, cause: InferenceError | None = None) -> CircuitOpen | None:
        """Why this request is not let through and does not wait either; ``None`` if it is, or if it waits."""
        lane = request.lane
        if _undisturbed(lane):
            return None
        for circuit in (lane.circuit, lane.key_circuit):
            rejection = self._rejection(circuit)
            if rejection is not None and not self.may_wait(request, circuit, rejection):
                if circuit.link is not None:
                    self._registry.touch(lane)  # somebody wants to know what the other processes say now
                return self.error(circuit, rejection, lane, cause)
        return None

    def may_wait(self, request: Request, circuit: Circuit, rejection: CircuitRejection) -> bool:
        """Whether a request that a circuit rejects waits for it: it asked to, and its deadline allows it.

        While a probe is out, its report may come at any time, long before its lease ends.
        """
        probing = circuit.breaker.state(self._registry.now) is CircuitState.HALF_OPEN
        in_time = request.deadline is None or rejection.retry_at < request.deadline
        return request.waits_for_circuit and (probing or in_time)

    def error(
        self, circuit: Circuit, rejection: CircuitRejection, lane: Lane, cause: InferenceError | None = None
    ) -> CircuitOpen:
        """The rejection in both clocks, with the request's own last error, or what opened the circuit, as its cause."""
        registry = self._registry
        to_unix_ms = (registry.unix_now - registry.now) * 1000.0
        known = rejection.retry_at < math.inf
        error = CircuitOpen(
            lane.provider,
            round(rejection.opened_at * 1000.0 + to_unix_ms),
            round(rejection.retry_at * 1000.0 + to_unix_ms) if known else 0,
            max(0.0, rejection.retry_at - registry.now) if known else None,
            f"the circuit of this {'key' if circuit.of_key else 'endpoint'} is open",
        )
        error.__cause__ = cause or circuit.last_error
        return error

    def trip_key(self, lane: Lane, error: InferenceError) -> None:
        """The key is to blame: nothing more is sent with it until it changes, or its hint (or a bound of ours) passes."""
        circuit = lane.key_circuit
        circuit.last_error = error
        hint = error.retry_after
        usable = hint is not None and 0 <= hint < math.inf
        duration = hint if usable else lane.deployment.config.circuit_breaker.max_open_duration
        circuit.breaker.force_open(duration, self._registry.now)
        self.follow(lane)
        self._fail_behind(circuit)  # one that was open already may now stay so for longer than somebody can wait

    def key_renewed(self, lane: Lane) -> None:
        """The key changed: what was held against the old one is over."""
        if lane.key_circuit.breaker.state(self._registry.now) is not CircuitState.CLOSED:
            lane.key_circuit.breaker.force_closed(self._registry.now)
            self.follow(lane)

    def override(self, lane: Lane, action: CircuitAction, duration: float | None) -> None:
        """An operator's word on the endpoint's circuit. Closing and resetting also lift what is held against the key."""
        breaker, key_breaker, now = lane.circuit.breaker, lane.key_circuit.breaker, self._registry.now
        match action:
            case CircuitAction.OPEN:
                breaker.force_open(duration, now)
                self.follow(lane)
                self._fail_behind(lane.circuit)  # as above
            case CircuitAction.CLOSE:
                breaker.force_closed(now)
                key_breaker.force_closed(now)
            case CircuitAction.RESET:
                breaker.reset(now)
                key_breaker.reset(now)
            case _:
                assert_never(action)
        self.follow(lane)

    def follow(self, lane: Lane) -> None:
        """Draw the consequences of whatever the circuits of this lane just did."""
        if _undisturbed(lane):
            return
        for circuit in (lane.circuit, lane.key_circuit):
            moved = False
            while transitions := circuit.breaker.drain_transitions():  # asking one that opened for no time moves it on
                moved = True
                for transition in transitions:
                    self._tell(circuit, lane, transition)
            if moved:
                self._offer(circuit)
            if circuit.link is not None:
                self._follow_open_time(circuit)

    def _follow_open_time(self, circuit: Circuit) -> None:
        """Other processes may have made an open time longer, so that not everybody can wait for it, or taken that back."""
        retry_at = circuit.breaker.deadline()
        if retry_at is None or retry_at == circuit.retry_at:
            return
        if circuit.breaker.state(self._registry.now) is CircuitState.OPEN:
            circuit.retry_at = retry_at
            self.arm(circuit)
            self._fail_behind(circuit)

    def _tell(self, circuit: Circuit, lane: Lane, transition: CircuitTransition) -> None:
        registry = self._registry
        source, target = transition.source.name.lower(), transition.target.name.lower()
        count(registry.metrics.circuit_transitions, f"{source}->{target}")
        kind: NoticeKind = "key_circuit" if circuit.of_key else "circuit"
        registry.notice(kind, lane, source=source, target=target, reason=transition.reason)
        if transition.reason == "shared_open":
            circuit.last_error = CircuitOpen(lane.provider, message="another process found that this endpoint fails")
        if transition.target is CircuitState.OPEN:
            self._fail_behind(circuit)

    def lease_ended(self, lane: Lane) -> None:
        """A lease came back: a circuit that is not closed may have a probe to give, to any of its lanes."""
        if _undisturbed(lane):
            return
        self.follow(lane)
        for circuit in (lane.circuit, lane.key_circuit):
            if circuit.breaker.state(self._registry.now) is not CircuitState.CLOSED:
                self._offer(circuit)

    def due(self, circuit: Circuit) -> None:
        """The time of a circuit has come: it may be half-open now, or have a lost probe back."""
        circuit.breaker.state(self._registry.now)
        self.follow(circuit.lanes[0])
        self._offer(circuit)

    def arm(self, circuit: Circuit) -> None:
        """Look at this circuit again when time alone may change it."""
        self._registry.timers.set(circuit, circuit.breaker.deadline())

    def _offer(self, circuit: Circuit) -> None:
        self.arm(circuit)
        for lane in circuit.lanes:
            self._registry.touch(lane)

    def _rejection(self, circuit: Circuit) -> CircuitRejection | None:
        now = self._registry.now
        if circuit.breaker.state(now) is CircuitState.CLOSED:
            return None
        answer = circuit.breaker.acquire(now)
        if isinstance(answer, CircuitRejection):
            return answer
        circuit.breaker.record(answer, Outcome.IGNORED, now)  # only asked
        return None

    def _fail_behind(self, circuit: Circuit) -> None:
        """A circuit opened: whoever is queued or backing off behind it fails now, unless it asked to wait it out."""
        rejection = self._rejection(circuit)
        if rejection is None:
            return
        for lane in circuit.lanes:
            for request in list(lane.requests.values()):
                waiting = request.state in (RequestState.QUEUED, RequestState.BACKOFF)
                if waiting and not self.may_wait(request, circuit, rejection):
                    self._registry.finish(request, self.error(circuit, rejection, lane))


def _undisturbed(lane: Lane) -> bool:
    """Whether neither circuit is anything to look at: nearly always, and asked several times for each attempt."""
    return lane.circuit.breaker.undisturbed and lane.key_circuit.breaker.undisturbed
