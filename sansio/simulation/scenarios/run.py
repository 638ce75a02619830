"""One run of a plan, in two phases.

Safety: things go wrong as the plan says, and the judge looks at every step. Liveness: nothing goes wrong any more, small
requests keep coming, and within the plan's bound everything that was accepted must end, every circuit close, the engine
drain, and nothing be left open anywhere. What does not hold, and what crashes, ends the run and stands in its report.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ...budget import BudgetAction
from ...deployment import Deployment
from ...queue import Priority
from ..judge.violation import InvariantViolated
from ..provider.mock_provider import MockProvider
from ..world.clock import VirtualClock
from ..world.node import Call
from ..world.plan import CallerPlan, DrainNow, Plan
from ..world.world import World
from .failure import Violation, violation_of
from .healing import BEAT, SLOWING
from .labels import name_of
from .recorder import Digest, Recorder
from .report import Report
from .throttling import NeverThrottled
from .timeline import TimelineRecorder

MOST_STEPS: Final = 50_000
"""So many steps may be taken within `LEAST_SECONDS`; more are taken for a loop that never ends (invariant 26)."""

LEAST_SECONDS: Final = 0.001

FOLLOW_UPS_ALIVE: Final = 2
"""So many of them wait for an answer at a time, so that a low limit is left to others."""

_NAMED: Final = 5
"""So many of what is still open are named."""


def run(plan: Plan, *, digest: bool = False, timeline: bool = False) -> Report:
    """Run ``plan``. The report says what was counted and, if something did not hold, what.

    digest: make one of the whole trace. timeline: keep what happened over time, for a picture.
    Raises `ValueError` for a plan in which something comes after its end.
    """
    _check(plan)
    world = World.of(plan)
    core = world.node.core
    recorder = Recorder(plan, world)
    digester = Digest(world.clock) if digest else None
    over_time = TimelineRecorder(plan, core, world.clock) if timeline else None
    promise = NeverThrottled(plan, world) if plan.throttle_free else None
    ours = [each for each in (recorder, digester, over_time) if each is not None]
    core.observers = (*ours, *core.observers)  # before the judge: they hear of the step that it objects to
    if promise is not None:
        core.observers = (*core.observers, promise)
    world.node.watchers = (recorder, *world.node.watchers)
    violation: Violation | None = None
    run_of_plan = _Run(plan, world, recorder)
    try:
        run_of_plan.safety()
        run_of_plan.liveness()
        if promise is not None:
            promise.check()
    except Exception as error:  # whatever it is: nothing may crash
        violation = violation_of(error, world.vault.secrets())
    return recorder.report(
        violation,
        digest=None if digester is None else digester.value(),
        timeline=None if over_time is None else over_time.timeline(),
    )


def advance(clock: VirtualClock, until: float) -> None:
    """Let everything happen that is due by then. Raises `InvariantViolated` where time stands still."""
    while True:
        began = clock.now
        for _ in range(MOST_STEPS):
            if not clock.step(until):
                clock.advance_to(until)
                return
        if clock.now - began < LEAST_SECONDS:
            raise InvariantViolated(26, f"{MOST_STEPS} steps were taken, and time has moved by {clock.now - began:g} s")


class _Run:
    """The two phases."""

    def __init__(self, plan: Plan, world: World, recorder: Recorder) -> None:
        self._plan = plan
        self._world = world
        self._recorder = recorder
        self._follow_ups: dict[str, list[Call]] = {deployment.name: [] for deployment in plan.deployments}
        self._unserved = {each.name for each in plan.deployments if plan.disturbances and not _may_reject(each)}
        """The deployments that have answered nobody since the faults stopped, and have to."""
        self._drains = any(isinstance(each, DrainNow) for each in plan.disturbances)
        self._limit = plan.seconds + plan.heal_within

    def safety(self) -> None:
        """Everything that the plan says."""
        for disturbance in self._plan.disturbances:
            self._world.disturb(disturbance)
        for caller in self._plan.callers:
            self._world.call(caller)
        advance(self._world.clock, self._plan.seconds)

    def liveness(self) -> None:
        """Everything ends."""
        world, node = self._world, self._world.node
        world.heal()
        if not self._drains:  # else nothing is accepted any more, and a circuit has nobody to find out that all is well
            self._reach(self._not_recovered, self._send_follow_ups)
            self._limit = world.clock.now + self._plan.heal_within  # for what was sent meanwhile, and for the end
        self._reach(lambda: self._unanswered(list(node.calls.values())))
        if not self._drains:
            node.drain()
        self._reach(lambda: [] if node.drained else ["the engine is not drained"])
        assert world.judge is not None  # every planned world has one
        world.judge.healed(node.now(), node.unix_now())
        node.close()
        if node.core.deadline() is not None:
            raise InvariantViolated(17, "a closed engine waits for something")
        if world.client is not None:
            world.client.close()
        self._reach(self._left_open)

    def _reach(self, still_open: Callable[[], list[str]], meanwhile: Callable[[], None] | None = None) -> None:
        """Let time pass until nothing is open any more, at most until the limit; ``meanwhile`` is done at each beat."""
        clock = self._world.clock
        while found := still_open():
            if clock.now >= self._limit:
                more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
                since = f"{clock.now - self._plan.seconds:.3f} s after the faults stopped"
                raise InvariantViolated(17, f"{since}: {', '.join(found[:_NAMED])}{more}")
            if meanwhile is not None:
                meanwhile()
            beat = max(BEAT, (clock.now - self._plan.seconds) / SLOWING)  # not often where a circuit is open for minutes
            advance(clock, min(clock.now + beat, self._limit))

    def _send_follow_ups(self) -> None:
        """Requests keep coming, behind all others."""
        recorder, node = self._recorder, self._world.node
        for name, calls in self._follow_ups.items():
            calls[:] = [call for call in calls if not call.ended]
            if len(calls) < FOLLOW_UPS_ALIVE:
                number = recorder.first_follow_up + recorder.follow_ups
                recorder.follow_ups += 1
                at, prompt = self._world.clock.now, f"follow-up {number}"
                calls.append(node.submit(CallerPlan(number, at, name, prompt, priority=Priority.BACKGROUND)))

    # ---- what is still open -------------------------------------------------------------------------------------------

    def _not_recovered(self) -> list[str]:
        for name, calls in self._follow_ups.items():
            if any(call.ended and call.error is None for call in calls):
                self._unserved.discard(name)
        first, node = self._recorder.first_follow_up, self._world.node
        open_circuits = [each for each in node.core.roster.circuits if each.breaker.opened_at is not None]
        return [
            *self._unanswered([call for call in node.calls.values() if call.plan.number < first]),
            *(f"the circuit of {name_of(circuit)} is not closed" for circuit in open_circuits),
            *(f"nobody was answered by {name}" for name in self._follow_ups if name in self._unserved),
        ]

    def _unanswered(self, calls: list[Call]) -> list[str]:
        requests = self._world.node.core.registry.requests
        found: list[str] = []
        for call in calls:
            request = requests.get(call.request_id)
            state = "not in the engine" if request is None else request.state.value
            found.append(f"request #{call.request_id} of {call.plan.deployment} is {state}")
        return found

    def _left_open(self) -> list[str]:
        found: list[str] = []
        if self._world.network is not None and self._world.network.connections:
            found.append(f"the client holds {self._world.network.connections} connections")
        for host, provider in self._world.providers.items():
            if provider.active:
                found.append(f"{provider.active} answers are under way at {host}")
            if isinstance(provider, MockProvider) and provider.connections_open:
                found.append(f"{provider.connections_open} connections are open at {host}")
        return found


def _may_reject(deployment: Deployment) -> bool:
    """Whether its money may be spent, for longer than any run lasts."""
    return deployment.spending is not None and deployment.spending.on_exceeded is BudgetAction.REJECT


def _check(plan: Plan) -> None:
    for name, parts in (("callers", plan.callers), ("disturbances", plan.disturbances)):
        for each in parts:
            if each.at > plan.seconds:
                raise ValueError(f"{name}: number {each.number} comes at {each.at:g} s, after the plan's {plan.seconds:g} s")
