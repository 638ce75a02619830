"""What came of a run, as values and as text. Neither holds a time of the machine, a path of it, or a secret, so two runs of
the same plan can be compared byte for byte.

The beginning of the text (`header`) is known before the run: print it first, and whatever happens can be had again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..judge.violation import INVARIANTS
from ..world.plan import Level, Plan
from .failure import Violation
from .labels import described
from .timeline import Timeline

_LABEL = 13
"""How wide the names of the lines are."""


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of one run. All times are virtual seconds.

    callers, disturbances: the numbers of those that took part, ``None`` where all of the plan's did. violation: ``None`` if
    everything held. seconds: how long it went on. facts: what the engine was told. follow_ups: those of ``submitted`` that
    were sent after the faults, to see everything recover. failures: failed and rejected requests by kind. throttled: 429s
    seen; throttled_by_limit: those that the provider's own limiter gave, seen or not. limit_used: the most that a window of
    the provider ever held, of what it may; ``None`` where it has no limit. latency_p50, latency_p95: of the answers that the
    plan's callers got. recovery: from the end of the last disturbance until all who had asked by then were done and every
    circuit was closed.
    """

    header: str
    command: str
    scenario: str
    seed: int
    level: Level
    callers: tuple[int, ...] | None
    disturbances: tuple[int, ...] | None
    violation: Violation | None
    seconds: float
    facts: int
    submitted: int
    done: int
    failed: int
    rejected: int
    cancelled: int
    follow_ups: int
    failures: Mapping[str, int]
    attempts: int
    retries: Mapping[str, int]
    throttled: int
    throttled_by_limit: int
    circuit_transitions: Mapping[str, int]
    refreshes: int
    failed_refreshes: int
    broken_streams: int
    peak_in_flight: int
    longest_queue: int
    limit_used: float | None
    latency_p50: float | None
    latency_p95: float | None
    recovery: float | None
    cost_usd: float
    unknown_cost: int
    last_events: tuple[str, ...] = ()
    """The last steps of the engine before something did not hold, as `trace_line` writes them."""
    digest: str | None = None
    """SHA-256 over the trace of the whole run, where it was asked for."""
    timeline: Timeline | None = field(default=None, repr=False)

    @property
    def ok(self) -> bool:
        """Whether everything held."""
        return self.violation is None

    def text(self) -> str:
        """All of it, for a person to read."""
        return f"{self.header}\n{self.body()}"

    def body(self) -> str:
        """All of it but the header."""
        broken = f", {self.failed_refreshes} failed" if self.failed_refreshes else ""
        unknown = f", {self.unknown_cost} attempts of unknown cost" if self.unknown_cost else ""
        lines = [
            _line("result", self._result()),
            _line("requests", self._requests()),
            _line("failures", _counts(self.failures)),
            _line("attempts", f"{self.attempts}; retries: {_counts(self.retries)}"),
            _line("429", f"{self.throttled} seen, {self.throttled_by_limit} by the provider's own limiter"),
            _line("circuits", _counts(self.circuit_transitions)),
            _line("credentials", f"{self.refreshes} refreshes{broken}"),
            _line("streams", f"{self.broken_streams} broken"),
            _line("peaks", f"{self.peak_in_flight} in flight, {self.longest_queue} queued, {self._limit()}"),
            _line("latency", f"p50 {_seconds(self.latency_p50)}, p95 {_seconds(self.latency_p95)}"),
            _line("recovery", f"{_seconds(self.recovery)} after the last disturbance"),
            _line("cost", f"${self.cost_usd:.6f}{unknown}"),
        ]
        if self.digest is not None:
            lines.append(_line("digest", self.digest))
        if self.last_events:
            lines += ["last events", *(f"  {event}" for event in self.last_events)]
        return "\n".join(lines)

    def verdict(self) -> str:
        """What came of it, in one line or, where something did not hold, in two."""
        return "\n".join(_line("result", self._result()).split("\n")[:2])

    def _result(self) -> str:
        reached = f"{self.seconds:.3f} s of virtual time, {self.facts} facts"
        if self.violation is None:
            return f"ok: {reached}"
        held = INVARIANTS.get(self.violation.number, "")
        said = [f"VIOLATION of {self.violation.number} ({held}) after {reached}", *self.violation.text.split("\n")]
        return f"\n{'':{_LABEL}}".join(said)

    def _requests(self) -> str:
        ended = f"{self.done} done, {self.failed} failed, {self.rejected} rejected, {self.cancelled} cancelled"
        return f"{self.submitted}: {ended} ({self.follow_ups} of them after the faults)"

    def _limit(self) -> str:
        return "the provider has no limit" if self.limit_used is None else f"{self.limit_used:.1%} of the provider's limit"


def header(plan: Plan) -> str:
    """What is going to be run, and the command that runs it again. Known beforehand."""
    callers = _part(len(plan.callers), plan.callers_left_out, "caller")
    disturbances = _part(len(plan.disturbances), plan.disturbances_left_out, "disturbance")
    time = f"{plan.seconds:g} s, then well again within {plan.heal_within:g} s"
    lines = [
        _line("scenario", f"{plan.scenario}, seed {plan.seed}, level {plan.level}"),
        _line("plan", f"{callers}, {disturbances}, {_many(len(plan.deployments), 'deployment')}; {time}"),
        *(_line(f"  {each.number}", described(each)) for each in plan.disturbances),
        _line("replay", replay_command(plan)),
    ]
    return "\n".join(lines)


def replay_command(plan: Plan) -> str:
    """The command that runs exactly this plan, where its scenario is one of the catalogue."""
    parts = [f"remote-core simulate --scenario {plan.scenario} --seed {plan.seed} --level {plan.level}"]
    if plan.callers_left_out:
        parts.append(f"--callers {_numbers(caller.number for caller in plan.callers)}")
    if plan.disturbances_left_out:
        parts.append(f"--disturbances {_numbers(each.number for each in plan.disturbances)}")
    return " ".join(parts)


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The smallest of ``values`` that at least ``percent`` of them do not exceed (nearest rank); ``None`` of none."""
    if not values:
        return None
    rank = -(-len(values) * percent // 100)
    return sorted(values)[max(0, int(rank) - 1)]


def _line(name: str, text: str) -> str:
    return f"{name:<{_LABEL}}{text}"


def _counts(counts: Mapping[str, int]) -> str:
    """The largest first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {count}" for name, count in ordered) or "none"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f} s"


def _numbers(numbers: Iterable[int]) -> str:
    return ",".join(map(str, numbers)) or "none"


def _many(count: int, name: str) -> str:
    return f"{count} {name}{'' if count == 1 else 's'}"


def _part(count: int, left_out: int, name: str) -> str:
    return f"{count} of {_many(count + left_out, name)}" if left_out else _many(count, name)
