"""Invariants 5, 20 and 21: what the engine counts is what can be counted from outside."""

from __future__ import annotations

from ...batch import TokenUsage
from .observed_core import ObservedCore
from .violation import InvariantViolated


class Counts:
    """Requests by what became of them, attempts, and what they used. `Outcomes` counts; `check` compares."""

    __slots__ = (
        "_core", "_metrics", "_used", "attempts", "cancelled", "done", "failed", "in_flight", "rejected", "submitted",
        "undecided", "unknown",
    )  # fmt: skip

    def __init__(self, core: ObservedCore) -> None:
        self._core = core
        self._metrics = core.registry.metrics
        self.submitted = self.done = self.failed = self.cancelled = self.rejected = self.in_flight = self.attempts = 0
        self.undecided = 0
        """Requests refused in the step they came in: before they were accepted, or just after. That is not for an outsider
        to know, so they may be counted as either."""
        self.unknown = 0
        self._used = [0, 0, 0, 0, 0]

    def used(self, usage: TokenUsage | None) -> None:
        """An attempt used so much."""
        if usage is None:
            self.unknown += 1
        else:
            self._used = _sum(self._used, usage)

    def check(self, alive: int) -> None:
        """After every fact: ``alive`` requests are neither refused nor over."""
        shown = self._metrics
        if self.undecided:
            self._decide()
        if (
            shown.submitted != self.submitted
            or shown.in_flight != self.in_flight
            or shown.queued + shown.waiting + shown.in_flight != alive
            or shown.done != self.done
            or shown.failed != self.failed
            or shown.cancelled != self.cancelled
            or shown.rejected != self.rejected
            or shown.queued < 0
            or shown.waiting < 0
        ):
            raise InvariantViolated(5, self._described(alive))
        if shown.attempts != self.attempts:
            raise InvariantViolated(21, f"{self.attempts} attempts were started, metrics.attempts is {shown.attempts}")
        if shown.unknown_usage != self.unknown:
            about = f"the usage of {self.unknown} attempts is unknown, metrics.unknown_usage is {shown.unknown_usage}"
            raise InvariantViolated(20 if shown.unknown_usage < self.unknown else 21, about)

    def healed(self) -> None:
        """The sums of all usage."""
        used, shown = self._used, _sum([0, 0, 0, 0, 0], self._core.registry.usage.value())
        if used != shown:
            names = "input, output, cached input, cache write and reasoning tokens"
            raise InvariantViolated(21, f"all attempts used {used} {names}, the engine's sum is {shown}")

    def _decide(self) -> None:
        """Settle how those refused at once were counted."""
        shown, undecided = self._metrics, self.undecided
        failed = shown.failed - self.failed
        if not (0 <= failed <= undecided and shown.rejected - self.rejected == undecided - failed):
            raise InvariantViolated(
                5,
                f"{self.failed} requests failed, {self.rejected} were rejected and {undecided} either; "
                f"metrics.failed is {shown.failed}, metrics.rejected {shown.rejected}",
            )
        self.failed, self.rejected, self.undecided = shown.failed, shown.rejected, 0

    def _described(self, alive: int) -> str:
        shown = self._metrics
        counted = f"{self.submitted} submitted, {alive} alive ({self.in_flight} in flight), {self.done} done, "
        counted += f"{self.failed} failed, {self.cancelled} cancelled, {self.rejected} rejected"
        metrics = (
            f"{shown.submitted} submitted, {shown.queued} queued, {shown.waiting} waiting, {shown.in_flight} in flight, "
        )
        metrics += f"{shown.done} done, {shown.failed} failed, {shown.cancelled} cancelled, {shown.rejected} rejected"
        return f"{counted}; metrics: {metrics}"


def _sum(totals: list[int], usage: TokenUsage) -> list[int]:
    return [
        totals[0] + usage.input_tokens,
        totals[1] + usage.output_tokens,
        totals[2] + usage.cached_input_tokens,
        totals[3] + usage.cache_write_tokens,
        totals[4] + usage.reasoning_tokens,
    ]
