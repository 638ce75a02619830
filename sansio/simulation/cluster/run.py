"""One run of a cluster, in three phases.

Safety: things go wrong as the plan says, and every grant of everybody is judged. Recovery: nothing goes wrong any more, one
process gets all the demand it can take, and the others a request now and then. Use: once everything that the dead held must
have come back, nearly all of the limit is used for several spans, and nobody waits in vain. Then everybody leaves.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from ...rate_limit import quotas_of
from ..judge.violation import InvariantViolated
from ..scenarios.failure import Violation, violation_of
from ..scenarios.run import advance
from ..world.clock import chance
from .bounds import allowed, counting_spans, recovery, shared
from .cluster import Cluster
from .counters import CounterModel
from .judge import ClusterJudge
from .plan import ClusterPlan, Demand
from .process import Process
from .report import ClusterReport, header, replay_command

SPANS_MEASURED: Final = 5
"""For so many spans the use of the limit is measured."""

LEAST_USED: Final = 0.95
LEAST_USED_IN_DOUBT: Final = 0.9
"""So much of it must be used; less where estimates are wrong, because more is held back until what was used is known."""

_PATIENCE_SPANS: Final = 3.0
_PATIENCE_INTERVALS: Final = 20.0
"""For so long a head may wait where the limit is shared fairly: spans and intervals together."""

_QUEUED_AHEAD: Final = 5
_TRICKLES: Final = 3
"""So many others ask for something once in a span."""


def run(plan: ClusterPlan) -> ClusterReport:
    """Run ``plan``. The report says what was counted and, if something did not hold, what."""
    judge = ClusterJudge(plan, counting_spans(plan), partial(allowed, plan))
    counters = CounterModel(plan)
    cluster = Cluster(plan, judge, counters)
    run_of_plan = _Run(plan, cluster, judge, counters)
    violation: Violation | None = None
    try:
        run_of_plan.safety()
        run_of_plan.recovery()
        run_of_plan.use()
        run_of_plan.farewell()
    except Exception as error:  # whatever it is: nothing may crash
        violation = violation_of(error, ())
    traffic = cluster.traffic
    return ClusterReport(
        header=header(plan),
        command=replay_command(plan),
        scenario=plan.scenario,
        seed=plan.seed,
        violation=violation,
        seconds=cluster.clock.now,
        requests=traffic.made,
        grants=judge.grants,
        accepted=traffic.provider.accepted,
        refusals=tuple(traffic.refusals),
        questions=cluster.store.executed,
        most=tuple((each.field, most, each.limit) for each, most in zip(judge.dimensions, judge.most, strict=True)),
        used=run_of_plan.used,
        digest=traffic.trace.hexdigest(),
    )


class _Run:
    """The phases. used: the part of the limit that was used in the end."""

    def __init__(self, plan: ClusterPlan, cluster: Cluster, judge: ClusterJudge, counters: CounterModel) -> None:
        self.used: float | None = None
        self._plan = plan
        self._cluster = cluster
        self._judge = judge
        self._counters = counters
        self._span = max(quota.span for quota in quotas_of(plan.limits))
        interval = plan.cluster.interval_for(plan.limits.window)
        self._patience = _PATIENCE_SPANS * self._span + _PATIENCE_INTERVALS * interval
        self._rng = chance(plan.seed, "afterwards")
        self._usual = Demand(0, 0.0, 0.0, plan.lives[0].number, 1.0, plan.tokens)
        self._over = False

    def safety(self) -> None:
        """Everything that the plan says."""
        self._advance(self._plan.seconds)

    def recovery(self) -> None:
        """All is well. What the dead held comes back."""
        cluster = self._cluster
        cluster.heal()
        alive = cluster.alive
        if not alive:
            return
        hot = alive[self._plan.hot % len(alive)]
        hot.refill = partial(self._refill, hot)
        self._refill(hot)
        hot.wake()
        for process in [each for each in alive if each is not hot][:_TRICKLES]:
            cluster.clock.call_later(self._span * self._rng.random(), partial(self._trickle, process))
        self._advance(cluster.clock.now + recovery(self._plan))

    def use(self) -> None:
        """The limit is used, and nobody waits for too long."""
        cluster, plan = self._cluster, self._plan
        if not cluster.alive:
            return
        self._counters.all_is_well(list(cluster.processes.values()))
        began = cluster.clock.now
        for _ in range(SPANS_MEASURED):
            self._advance(cluster.clock.now + self._span)
            self._check_waiting()
        self._counters.agree(cluster.alive)
        level = cluster.traffic.provider.mean_level
        self.used = max(
            level(each.kind, each.span, began, cluster.clock.now) / shared(plan, each.limit)
            for each in self._judge.dimensions
        )
        if self.used < (LEAST_USED_IN_DOUBT if plan.error or plan.bias != 1.0 else LEAST_USED):
            raise InvariantViolated(
                29, f"{self.used:.2%} of the limit is used, and one life alone wants more than all of it"
            )

    def farewell(self) -> None:
        """Nobody asks any more, everybody leaves, and nothing is left."""
        cluster, plan = self._cluster, self._plan
        self._over = True
        for process in cluster.alive:
            process.refill = None
            while len(process.queue) > 1:
                process.queue.pop()
        self._advance(cluster.clock.now + self._patience)
        left = [process.life.number for process in cluster.alive if process.queue]
        if left:
            raise InvariantViolated(17, f"the last head of life {left[0]} is not let go, though nobody else wants anything")
        self._advance(cluster.clock.now + 2.0 * plan.answers_after + plan.limits.window)
        if self._judge.running:
            raise InvariantViolated(17, f"{self._judge.running} requests are under way, and nobody asks any more")
        for process in cluster.alive:
            process.leave()
        self._advance(cluster.clock.now + 2.0 * plan.cluster.store_timeout + plan.limits.window)
        for process in cluster.processes.values():
            if process.leaving and not process.dead and not process.gone:
                raise InvariantViolated(17, f"life {process.life.number} does not get away")

    # ---- inside -------------------------------------------------------------------------------------------------------

    def _advance(self, until: float) -> None:
        advance(self._cluster.clock, until)

    def _check_waiting(self) -> None:
        now = self._cluster.clock.now
        for process in self._cluster.alive:
            if process.queue and now - process.front_since > self._patience:
                waits = f"{now - process.front_since:.3f} s"
                raise InvariantViolated(17, f"the head of life {process.life.number} waits for {waits} although all is well")

    def _refill(self, process: Process) -> None:
        """There is always one more."""
        while len(process.queue) < _QUEUED_AHEAD:
            process.queue.append(self._cluster.traffic.make(self._usual, self._rng))

    def _trickle(self, process: Process) -> None:
        """Another asks for something now and then."""
        if self._over or process.dead:
            return
        if len(process.queue) < 2:
            process.submit(self._cluster.traffic.make(self._usual, self._rng))
        after = self._rng.expovariate(1.0 / self._span)
        self._cluster.clock.call_later(after, partial(self._trickle, process))
