"""A cluster in virtual time: its processes, their ways to the store they share, the provider, and what goes wrong.

requests ─▶ process (the limiter that ships) ─▶ provider (counts what is really used)
              │  ▲
           way to the store
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Final, TypeVar, assert_never

from ...deployment import Deployment, RemoteEngineConfig
from ...secret import Secret
from ...sharing import build_roster
from ..world.clock import VirtualClock, chance
from ..world.shared_store import SharedStore, StoreConditions, StoreWay
from .bounds import useful_for
from .counters import CounterModel
from .judge import ClusterJudge
from .plan import (
    BadWay,
    ClusterPlan,
    Demand,
    FailOver,
    Killed,
    Leaves,
    Life,
    Partition,
    Sleeps,
    StoreGone,
    Trouble,
    WallSet,
)
from .process import Process
from .traffic import Traffic

MOST_WAITING: Final = 30
"""So many requests wait at a process; who comes then goes elsewhere."""

Thing = TypeVar("Thing")


class Cluster:
    """All of it. Nothing happens by itself: whoever holds it moves its ``clock``."""

    def __init__(self, plan: ClusterPlan, judge: ClusterJudge, counters: CounterModel) -> None:
        self.clock = VirtualClock()
        self.store = SharedStore()
        self.traffic = Traffic(plan, self.clock, judge, counters)
        self.processes: dict[int, Process] = {}
        self.healed_at: float | None = None
        self._plan = plan
        self._config = _configuration(plan)
        self._ways: dict[int, StoreWay] = {}
        self._weather: list[BadWay] = []
        self._partitions: list[tuple[Partition, list[SharedStore | None]]] = []
        self._gone = 0
        for life in plan.lives:
            self.clock.call_later(life.begins, partial(self._begin, life))
        for demand in plan.demands:
            rng = chance(plan.seed, "demand", demand.number)
            self.clock.call_later(demand.at, partial(self._ask, demand, demand.at + demand.seconds, rng))
        for trouble in plan.troubles:
            self.clock.call_later(trouble.at, partial(self._strike, trouble))

    @property
    def alive(self) -> list[Process]:
        """The processes that are there and stay."""
        return [each for each in self.processes.values() if not (each.dead or each.leaving)]

    def heal(self) -> None:
        """Nothing goes wrong any more, and nobody asks any more but those who stand in front."""
        self.healed_at = self.clock.now
        self._weather.clear()
        self._partitions.clear()
        self._gone = 0
        self._rearrange()
        for process in self.processes.values():
            while len(process.queue) > 1:
                process.queue.pop()
            process.wake()

    # ---- inside -------------------------------------------------------------------------------------------------------

    def _begin(self, life: Life) -> None:
        plan, number = self._plan, life.number
        group = build_roster(self._config, {}, chance(plan.seed, "member", number)).groups[0]
        timeout = plan.cluster.store_timeout
        way = StoreWay(self.clock, self.store, chance(plan.seed, "way", number), timeout=timeout)
        self._ways[number] = way
        self._rearrange()
        rng = chance(plan.seed, "life", number)
        self.processes[number] = Process(life, self.clock, group, way, self.traffic, rng, useful_for(plan))

    def _ask(self, demand: Demand, until: float, rng: Random) -> None:
        """One comes, and the next later."""
        process = self.processes.get(demand.life)
        request = self.traffic.make(demand, rng)
        if process is not None and len(process.queue) < MOST_WAITING:
            process.submit(request)
        at = self.clock.now + rng.expovariate(demand.rate)
        if at < until:
            self.clock.call_at(at, partial(self._ask, demand, until, rng))

    def _strike(self, trouble: Trouble) -> None:
        match trouble:
            case Killed() | Leaves() | Sleeps() | WallSet():
                process = self.processes.get(trouble.life)
                if process is not None and not process.dead:
                    self._befall(process, trouble)
            case BadWay():
                self._weather.append(trouble)
                self._for_a_while(trouble, partial(_discard, self._weather, trouble))
            case Partition():
                stores = [self.store.split() if trouble.split else None for _ in trouble.groups]
                parted = (trouble, stores)
                self._partitions.append(parted)
                self._for_a_while(trouble, partial(_discard, self._partitions, parted))
            case StoreGone():
                self._gone += 1
                self._for_a_while(trouble, self._back)
            case FailOver():
                self.store.fall_behind()
                self._for_a_while(trouble, partial(self.store.fail_over, trouble.ahead))
            case _:
                assert_never(trouble)

    def _befall(self, process: Process, trouble: Killed | Leaves | Sleeps | WallSet) -> None:
        match trouble:
            case Killed():
                process.kill()
                self.traffic.killed(process)
            case Leaves():
                process.leave()
            case Sleeps():
                process.sleep()
                self._for_a_while(trouble, process.wake)
            case WallSet():
                process.wall += trouble.by
            case _:
                assert_never(trouble)

    def _for_a_while(self, trouble: Trouble, end: Callable[[], None]) -> None:
        """It lasts so long, or until everything is healed."""
        self._rearrange()
        self.clock.call_later(trouble.seconds, partial(self._over, end))

    def _over(self, end: Callable[[], None]) -> None:
        if self.healed_at is None:
            end()
            self._rearrange()

    def _back(self) -> None:
        self._gone -= 1

    def _rearrange(self) -> None:
        """Let every way be as it is by all that is wrong now."""
        self.store.gone = self._gone > 0
        conditions = self._weather[-1].conditions if self._weather else StoreConditions()
        for number, way in self._ways.items():
            way.cut, way.store, way.conditions = False, self.store, conditions
            for partition, stores in self._partitions:
                for group, store in zip(partition.groups, stores, strict=True):
                    if number in group:
                        way.cut = way.cut or store is None
                        way.store = store or way.store


def _discard(things: list[Thing], thing: Thing) -> None:
    things[:] = [each for each in things if each is not thing]


def _configuration(plan: ClusterPlan) -> RemoteEngineConfig:
    """What every process of the cluster is configured with."""
    runtime = {"endpoint": "http://provider/v1", "api_key": Secret.inline("shared"), "rate_limits": plan.limits}
    deployment = Deployment(name="shared", model="shared", runtime="openai", runtime_config=runtime)
    return RemoteEngineConfig((deployment,), cluster=plan.cluster)
