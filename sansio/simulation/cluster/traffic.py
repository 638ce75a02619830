"""What is asked, and what becomes of it once it is granted: the way to the provider, its answer, and what was used."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Final

from ...batch import TokenUsage
from ...cluster.store import StoreReply
from ...rate_limit import Permit
from ..judge.violation import InvariantViolated
from ..world.clock import VirtualClock, chance
from .bounds import refuses_nobody
from .counters import CounterModel
from .judge import ClusterJudge, Grant
from .naive_provider import Amounts, NaiveProvider
from .plan import ClusterPlan, Demand
from .process import Process, Request

_LARGEST: Final = 0.5
"""No request is estimated to use more than this part of any limit, so that one never needs all of it."""

_NOT_SENT: Final = 0.02
_CALLED_OFF: Final = 0.02
_USE_UNKNOWN: Final = 0.02
_LATE_WORD: Final = 0.5
"""How likely a request is called off before it is sent, or after; how likely its use is not known at its end, and how likely
it is told later."""

_REFUSAL_TAKES: Final = 0.02
_HINTED: Final = 0.5
"""Seconds until a 429 is heard of, and how likely it says how long to wait."""


class Traffic:
    """The requests of one cluster."""

    def __init__(self, plan: ClusterPlan, clock: VirtualClock, judge: ClusterJudge, counters: CounterModel) -> None:
        self.provider = NaiveProvider(plan.limits)
        self.made = 0
        self.refusals: list[str] = []
        self.trace = hashlib.sha256()
        """All that was granted and refused."""
        self._plan = plan
        self._clock = clock
        self._judge = judge
        self._counters = counters
        self._refuses_nobody = refuses_nobody(plan)
        self._fates: dict[int, Random] = {life.number: chance(plan.seed, "fates", life.number) for life in plan.lives}
        self._under_way: dict[int, set[Grant]] = {life.number: set() for life in plan.lives}
        limits = plan.limits
        tokens = [limits.tokens_per_minute, limits.input_tokens_per_minute, limits.output_tokens_per_minute]
        self._largest = min((int(limit * _LARGEST) for limit in tokens if limit is not None), default=10**9)

    def make(self, demand: Demand, rng: Random) -> Request:
        """A request of this demand. It will not use what it is estimated to, by the plan's error."""
        plan = self._plan
        times = demand.big_times if rng.random() < demand.big else 1.0
        size = demand.tokens * times * rng.uniform(1.0 - demand.spread, 1.0 + demand.spread)
        tokens = max(2, min(self._largest, round(size)))
        share = rng.uniform(0.2, 0.8)
        given, wanted = max(1, int(tokens * share)), max(1, tokens - int(tokens * share))
        off = [plan.bias * rng.uniform(1.0 - plan.error, 1.0 + plan.error) for _ in range(2)]
        self.made += 1
        used = Amounts.of(round(given * off[0]), round(wanted * off[1]))
        return Request(Amounts.of(given, wanted), used)

    def granted(self, process: Process, request: Request, permit: Permit) -> None:
        """A process has let it go."""
        clock, plan = self._clock, self._plan
        life, rng = process.life.number, self._fates[process.life.number]
        self._note("grant", life, request.estimate)
        grant = self._judge.granted(process, permit, request.estimate, clock.now)
        self._counters.granted(life, grant.held)
        self._under_way[life].add(grant)
        delay = plan.delay * rng.random()
        if rng.random() < _NOT_SENT:
            self._later(delay, process, grant, partial(self._not_sent, process, permit, grant))
        else:
            clock.call_later(delay, partial(self._arrives, process, request, permit, grant))

    def asks(self, process: Process) -> None:
        """It is about to put a question to the store."""
        self._judge.asks(process, self._clock.now)
        self._counters.asks(process)

    def heard(self, process: Process, reply: StoreReply) -> None:
        """It has taken an answer."""
        self._judge.heard(process, reply, self._clock.now)
        self._counters.heard(process)

    def killed(self, process: Process) -> None:
        """What it had under way is not waited for any more."""
        for grant in self._under_way[process.life.number]:
            self._judge.stopped(grant)

    # ---- inside -------------------------------------------------------------------------------------------------------

    def _note(self, *what: object) -> None:
        self.trace.update(f"{self._clock.now!r} {what}\n".encode())

    def _later(self, after: float, process: Process, grant: Grant, told: Callable[[], None]) -> None:
        """After a while it is over, and its process is told as soon as it listens."""
        self._clock.call_later(after, partial(self._over, process, grant, told))

    def _over(self, process: Process, grant: Grant, told: Callable[[], None]) -> None:
        self._under_way[grant.life].discard(grant)
        self._judge.stopped(grant)
        process.do(told)

    def _not_sent(self, process: Process, permit: Permit, grant: Grant) -> None:
        process.limiter.cancel(permit, False, process.read())
        self._judge.called_off(process, grant)

    def _arrives(self, process: Process, request: Request, permit: Permit, grant: Grant) -> None:
        clock, rng = self._clock, self._fates[grant.life]
        refusal = self.provider.arrives(request.used, clock.now)
        if refusal is not None:
            self._note("429", grant.life)
            self.refusals.append(f"at {clock.now:.6f} s, life {grant.life}: {refusal}")
            if self._refuses_nobody:
                raise InvariantViolated(8, f"the provider refuses life {grant.life}: {refusal}")
            hint = self._plan.limits.window * rng.random() / 4.0 if rng.random() < _HINTED else None
            self._later(_REFUSAL_TAKES, process, grant, partial(self._refused, process, permit, grant, hint))
            return
        after = self._plan.answers_after * rng.uniform(0.5, 1.5)
        if rng.random() < _CALLED_OFF:
            self._later(after * rng.random(), process, grant, partial(self._ends, process, permit, grant, None, True))
            return
        usage = TokenUsage(request.used.input_tokens, request.used.output_tokens)
        known = rng.random() >= _USE_UNKNOWN
        self._later(after, process, grant, partial(self._ends, process, permit, grant, usage if known else None))
        if not known and rng.random() < _LATE_WORD:
            late = partial(self._late_word, process, permit, grant, usage)
            clock.call_later(after + self._plan.limits.window * rng.random(), partial(process.do, late))

    def _ends(
        self, process: Process, permit: Permit, grant: Grant, usage: TokenUsage | None, called_off: bool = False
    ) -> None:
        if called_off:
            process.limiter.cancel(permit, True, process.read())
        else:
            process.limiter.settle(permit, usage, process.read())
        self._judge.ended(process, grant, usage)

    def _late_word(self, process: Process, permit: Permit, grant: Grant, usage: TokenUsage) -> None:
        process.limiter.report_usage(permit, usage, process.read())
        self._judge.corrected(grant, usage)

    def _refused(self, process: Process, permit: Permit, grant: Grant, hint: float | None) -> None:
        process.limiter.observe_throttled(hint, process.read())
        self._ends(process, permit, grant, None)
