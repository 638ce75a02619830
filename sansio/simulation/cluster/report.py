"""What came of a run of a cluster, as values and as text. As in `scenarios/report.py`, nothing in it is of the machine, and
the beginning (`header`) is known before the run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from ...cluster.config import ClusterConfig
from ...rate_limit import RateLimits
from ..judge.violation import INVARIANTS
from ..scenarios.failure import Violation
from .plan import ClusterPlan, Demand, Trouble

_LABEL = 13


@dataclass(frozen=True, slots=True)
class ClusterReport:
    """The outcome of one run. All times are virtual seconds.

    requests: that were made; grants: that were let go; accepted: that the provider took; refusals: those it did not, in
    words. questions: that the store has answered. most: for each dimension the most that any span held, and its limit.
    used: how much of the limit was in use at the end, on average, by what the provider counted; ``None`` if it did not come
    to that.
    digest: SHA-256 over all grants and refusals.
    """

    header: str
    command: str
    scenario: str
    seed: int
    violation: Violation | None
    seconds: float
    requests: int
    grants: int
    accepted: int
    refusals: tuple[str, ...]
    questions: int
    most: tuple[tuple[str, int, int], ...]
    used: float | None
    digest: str

    @property
    def ok(self) -> bool:
        """Whether everything held."""
        return self.violation is None

    def text(self) -> str:
        """All of it, for a person to read."""
        return f"{self.header}\n{self.body()}"

    def body(self) -> str:
        """All of it but the header."""
        most = ", ".join(f"{most} of {field}={limit}" for field, most, limit in self.most)
        used = "-" if self.used is None else f"{self.used:.1%} of the limit, once all was well again"
        lines = [
            _line("result", self._result()),
            _line("requests", f"{self.requests}, {self.grants} granted, {self.accepted} accepted by the provider"),
            _line("429", str(len(self.refusals))),
            _line("most", f"in a span: {most}"),
            _line("used", used),
            _line("store", f"{self.questions} questions"),
            _line("digest", self.digest),
        ]
        return "\n".join(lines)

    def verdict(self) -> str:
        """What came of it, in one line or, where something did not hold, in two."""
        return "\n".join(_line("result", self._result()).split("\n")[:2])

    def _result(self) -> str:
        if self.violation is None:
            return f"ok: {self.seconds:.3f} s of virtual time"
        held = INVARIANTS.get(self.violation.number, "")
        said = [f"VIOLATION of {self.violation.number} ({held}) after {self.seconds:.3f} s of virtual time"]
        return f"\n{'':{_LABEL}}".join([*said, *self.violation.text.split("\n")])


def header(plan: ClusterPlan) -> str:
    """What is going to be run, and the command that runs it again. Known beforehand."""
    demands = _part(len(plan.demands), plan.demands_left_out, "demand")
    troubles = _part(len(plan.troubles), plan.troubles_left_out, "trouble")
    lives = f"{len(plan.lives)} lives" if len(plan.lives) > 1 else "1 life"
    lines = [
        _line("scenario", f"{plan.scenario}, seed {plan.seed}"),
        _line("plan", f"{lives}, {demands}, {troubles}; {plan.seconds:g} s, then well again"),
        _line("limits", _settings(plan.limits)),
        _line("cluster", _settings(plan.cluster)),
        _line("requests", f"estimates off by {plan.error:.0%}, {plan.answers_after:g} s for an answer"),
        *(_line(f"  {each.number}", described(each)) for each in plan.troubles),
        _line("replay", replay_command(plan)),
    ]
    return "\n".join(lines)


def replay_command(plan: ClusterPlan) -> str:
    """The command that runs exactly this plan."""
    parts = [f"remote-core simulate --scenario {plan.scenario} --seed {plan.seed}"]
    if plan.demands_left_out:
        parts.append(f"--callers {_numbers(each.number for each in plan.demands)}")
    if plan.troubles_left_out:
        parts.append(f"--disturbances {_numbers(each.number for each in plan.troubles)}")
    return " ".join(parts)


def described(part: Trouble | Demand) -> str:
    """A part of a plan, in words."""
    said = {name: getattr(part, name) for name in part.__slots__ if name not in ("number", "at", "seconds")}
    lasts = f" for {part.seconds:.3f} s" if part.seconds else ""
    return f"{type(part).__name__} at {part.at:.3f} s{lasts} {', '.join(f'{k} {v}' for k, v in said.items())}".rstrip()


def _settings(value: RateLimits | ClusterConfig) -> str:
    """What of a configuration is not as it is by default."""
    told = [(field.name, getattr(value, field.name), field.default) for field in fields(value) if field.repr]
    return ", ".join(f"{name}={said}" for name, said, default in told if said != default)


def _line(name: str, text: str) -> str:
    return f"{name:<{_LABEL}}{text}"


def _numbers(numbers: Iterable[int]) -> str:
    return ",".join(map(str, numbers)) or "none"


def _part(count: int, left_out: int, name: str) -> str:
    many = f"{count + left_out} {name}{'' if count + left_out == 1 else 's'}"
    return f"{count} of {many}" if left_out else many
