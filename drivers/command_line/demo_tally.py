"""What one driver's act is judged by: every prompt, what came of it, and what the engine said meanwhile.

It believes nobody: an answer counts if it is the one right text for its prompt. Callers report from any thread.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sansio import EngineMetrics, InferenceError, Notice, StreamInterrupted

from .demo_scene import Prompt

MOST_ASKS = 20
"""How often a user asks the same prompt again before it counts as lost."""

_TROUBLES = {
    "network_error": "connection broke before the first word: sent again",
    "server_error": "server error before the first word: sent again",
    "timeout": "stalled before the first word: cut off and sent again",
    "protocol_error": "garbled before the first word: sent again",
}


@dataclass(slots=True)
class Happening:
    """Something worth a line, and how often it came in a row."""

    at: float
    text: str
    times: int = 1

    def __str__(self) -> str:
        return self.text if self.times == 1 else f"{self.text} (×{self.times})"


class Tally:
    """The record of one act. ``on_happening`` is called with each new `Happening`, never with one that only counts on."""

    def __init__(
        self, driver: str, prompts: Sequence[Prompt], on_happening: Callable[[Tally, Happening], None] | None = None
    ) -> None:
        self.driver = driver
        self.prompts = prompts
        self.metrics = EngineMetrics()
        self.breaker = "closed"
        self.began_at: float | None = None
        self.ended_at: float | None = None
        self.answers: Counter[str] = Counter()
        """How often each prompt was answered."""
        self.wrong: list[str] = []
        """Prompts whose answer was not theirs, not complete, or held a piece twice."""
        self.interrupted = 0
        self.failed: Counter[str] = Counter()
        """Failures other than interruptions that were reported to a user, by kind."""
        self.first_token_ms: list[float] = []
        self.happenings: list[Happening] = []
        self.problems: list[str] = []
        """What others found wrong with the act."""
        self.identity_broken = False
        """Whether the engine's counts ever failed to add up."""
        self._lock = threading.Lock()
        self._asks: Counter[str] = Counter()
        self._on_happening = on_happening
        self._read_metrics: Callable[[], EngineMetrics] = EngineMetrics

    # ---- told by the driver's part --------------------------------------------------------------------------------------

    def watch(self, read_metrics: Callable[[], EngineMetrics]) -> None:
        """Read the engine's counts by this from now on, whenever something happens."""
        self._read_metrics = read_metrics

    def begin(self) -> None:
        """The act begins."""
        self.began_at = time.monotonic()

    def end(self) -> None:
        """The act is over, its engine closed."""
        self.sample()
        self.ended_at = time.monotonic()

    def first_token(self, seconds: float) -> None:
        """The first piece of an answer came, so long after it was asked for."""
        with self._lock:
            self.first_token_ms.append(seconds * 1000.0)

    def answered(self, prompt: Prompt, text: str) -> None:
        """A user holds an answer."""
        with self._lock:
            self.answers[prompt.text] += 1
            if text != prompt.expected:
                self.wrong.append(prompt.text)
            done, total = self.done, len(self.prompts)
        self.sample()
        if done * 4 // total != (done - 1) * 4 // total:
            self.say(f"{done} of {total} answered")

    def failed_with(self, prompt: Prompt, error: InferenceError) -> bool:
        """A user was told of a failure. Returns whether it asks again."""
        if isinstance(error, StreamInterrupted):
            words = 0 if error.partial is None else len(error.partial.text.split())
            self.say(f"stream broke after {words} words: reported, never replayed")
        else:
            self.say(f"{error.kind}: reported; its user asks again")
        with self._lock:
            if isinstance(error, StreamInterrupted):
                self.interrupted += 1
            else:
                self.failed[error.kind] += 1
            self._asks[prompt.text] += 1
            return self._asks[prompt.text] < MOST_ASKS

    def notice(self, notice: Notice) -> None:
        """The engine says something."""
        before = self.metrics
        self.sample()
        match notice.kind:
            case "throttled":
                hint = notice.detail["retry_after"]
                self.say("429: rate lowered" if hint is None else f"429: bucket paused {hint:.1f} s, rate lowered")
            case "retry_scheduled" if (line := _TROUBLES.get(notice.detail["reason"])) is not None:
                self.say(line)
            case "circuit":
                self._circuit(notice.detail["source"], notice.detail["target"])
            case "refresh_started" if notice.detail["cause"] == "auth_failure":
                self.say("401: the key was rotated; fetching the new one, once for all")
            case "refresh_ended" if notice.detail["result"] == "renewed":
                waiting = before.queued + before.waiting  # as the vault saw it when it handed out the key
                self.say(f"key {'rotated' if self.metrics.refreshes > 1 else 'fetched'}: 1 refresh for {waiting} waiting")
            case _:
                pass

    def sample(self) -> None:
        """Look at the engine's counts."""
        metrics = self._read_metrics()
        if metrics.submitted != metrics.accounted:
            self.identity_broken = True
        self.metrics = metrics

    def say(self, text: str) -> None:
        """Note a happening."""
        with self._lock:
            last = self.happenings[-1] if self.happenings else None
            if last is not None and last.text == text:
                last.times += 1
                return
            happening = Happening(time.monotonic() - (self.began_at or 0.0), text)
            self.happenings.append(happening)
        if self._on_happening is not None:
            self._on_happening(self, happening)

    def _circuit(self, source: str, target: str) -> None:
        self.breaker = target.replace("_", "-")
        match source, target:
            case _, "half_open":
                self.say("breaker half-open: one probe may pass")
            case "half_open", "open":
                self.say("probe failed: breaker open again")
            case _, "open":
                self.say("breaker opened: nothing is sent, everyone waits")
            case _:
                self.say("probe succeeded: breaker closed, everyone goes on")

    # ---- the verdict ------------------------------------------------------------------------------------------------------

    @property
    def done(self) -> int:
        """How many prompts have an answer."""
        return len(self.answers)

    @property
    def seconds(self) -> float:
        """How long the act has taken so far."""
        if self.began_at is None:
            return 0.0
        return (time.monotonic() if self.ended_at is None else self.ended_at) - self.began_at

    @property
    def answered_well(self) -> list[str]:
        """Prompts answered exactly once, with all of their own text."""
        return [text for text, times in self.answers.items() if times == 1 and text not in self.wrong]

    @property
    def lost(self) -> list[str]:
        """Prompts without an answer."""
        return [prompt.text for prompt in self.prompts if not self.answers[prompt.text]]

    @property
    def doubled(self) -> list[str]:
        """Prompts answered more than once."""
        return [text for text, times in self.answers.items() if times > 1]

    def defects(self) -> list[str]:
        """All that is wrong, once the act is over; empty for a good one."""
        metrics, found = self.metrics, list(self.problems)
        for name, prompts in (("lost", self.lost), ("doubled", self.doubled), ("wrong text", self.wrong)):
            if prompts:
                more = "" if len(prompts) == 1 else f" and {len(prompts) - 1} more"
                found.append(f"{name}: {prompts[0]!r}{more}")
        if self.identity_broken:
            found.append("the engine's counts do not add up")
        if unfinished := metrics.queued + metrics.waiting + metrics.in_flight:
            found.append(f"the engine still counts {unfinished} requests as unfinished")
        reported = self.interrupted + sum(self.failed.values())
        if (metrics.done, metrics.failed + metrics.rejected) != (self.answers.total(), reported):
            found.append(
                f"the engine counts {metrics.done} answers and {metrics.failed + metrics.rejected} failures, "
                f"its callers {self.answers.total()} and {reported}"
            )
        return found
