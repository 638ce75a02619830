"""A circuit breaker whose verdict several processes share: the ordinary one, which says what it found, and heeds the others.

The breakers of one endpoint, one in each process, report to one board (`Publish`). A report says which of its own *openings*
is the process's latest, how many seconds of it are left, and which openings, whoever's, its probes have found to be over.
Openings are numbered: each is heeded once by each process, whatever comes late, twice, or again and again.

- A process says only what it found out itself: too many failures, a probe that failed, probes that succeeded. An opening
  that it heard of is not said on, so no verdict goes round in circles. What an operator orders concerns one process.
- Somebody else's opening opens this breaker for what is left of it, on this process's own clock, though never for longer
  than it would open itself. It shortens nothing that this breaker found, or was ordered.
- When it is over, whoever opened probes first. The others take turns after it, one process, two, four and so on (`_turn`):
  an endpoint that recovers does not meet all of them at once, and most hear of a verdict before it is their turn. Nobody
  waits for anybody, so it is of no consequence who has died.
- Who closes names the openings that this ends. A breaker that nothing else holds open closes as well. One that had opened by
  itself only takes back by how much the others had made that longer: what it found is for its own probes to revise.

What cannot be read is not heeded. While the store does not answer, everybody is on their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from ..circuit_breaker import CircuitBreaker, CircuitBreakerConfig, CircuitPermit, CircuitRejection, CircuitState
from .store import Publish, Published, StoreReply, StoreRequest

_FOUND: Final = ("failure_threshold", "probe_failed")
"""Reasons of an opening that this process found out itself."""

_TURN: Final = 2.0
"""Intervals from one turn of probing to the next, time for a verdict to be found and heard of; but no longer than what was
left of the opening, so that a short one does not become a long one."""

_MARGIN: Final = 10.0
"""Intervals for which an opening may matter beyond its end: the turns of 32 processes take so long."""

_Number = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class _Report(msgspec.Struct, array_like=True, frozen=True):
    """What one process says.

    opening: the number of its latest own opening, 0 where there was none. left: seconds of it that are left as this is said,
    0 where it is over. ends: openings, by member and number, that its probes have found to be over.
    """

    opening: _Number
    left: Annotated[float, msgspec.Meta(ge=0)]
    ends: dict[str, _Number]


_decode: Final = msgspec.json.Decoder(_Report).decode
_NOT_AS_EXPECTED: Final = (msgspec.MsgspecError, ValueError, RecursionError)


@dataclass(slots=True)
class _Opening:
    """The latest opening of somebody else that was heard of.

    until: its end; holds_until: how long it keeps this breaker open; both minus infinity where it holds nobody any more.
    forget_at: when it is forgotten, if nobody speaks of it meanwhile.
    """

    number: int
    forget_at: float
    until: float = -math.inf
    holds_until: float = -math.inf


class SharedCircuit(CircuitBreaker):
    """One process's breaker of an endpoint that others use too; an `Exchanging`.

    key: the endpoint's board. member: this life of this process, on it. interval: seconds between exchanges while there is
    anything to ask for. in_use: whether there are requests for the endpoint, waiting or running.
    """

    __slots__ = (
        "_asked_at", "_carried", "_ends", "_found_until", "_heard", "_hurried_at", "_in_use", "_interval", "_key",
        "_longest", "_margin", "_member", "_news_until", "_opening", "_stands_until", "_verdicts", "_wanted",
    )  # fmt: skip

    def __init__(
        self,
        config: CircuitBreakerConfig,
        *,
        key: str,
        member: str,
        interval: float,
        in_use: Callable[[], bool],
    ) -> None:
        super().__init__(config)
        self._key = key
        self._member = member
        self._interval = interval
        self._in_use = in_use
        self._margin = _MARGIN * interval
        self._longest = max(config.open_duration, config.max_open_duration)
        self._wanted = False
        """Whether anybody asked to pass since the last question."""
        self._asked_at = self._hurried_at = -math.inf
        """When the last question was put, and when the last one that could not wait for its turn."""

        # What this process found, and says.
        self._opening = 0
        self._found_until = -math.inf
        """The end of its latest own opening; minus infinity once that is revised."""
        self._ends: dict[str, tuple[int, float]] = {}
        """Openings that its probes found to be over: their number, and when they would have been."""
        self._verdicts = self._carried = 0
        """How many it came to, and how many of them the last question carried."""
        self._news_until = -math.inf
        """Until when the latest of them is worth a question of its own."""

        # What holds.
        self._stands_until = -math.inf
        """The end of what this process found, or was ordered, since it was last closed."""
        self._heard: dict[str, _Opening] = {}

    # ---- a breaker ------------------------------------------------------------------------------------------------------

    def acquire(self, now: float) -> CircuitPermit | CircuitRejection:
        """As `CircuitBreaker.acquire`; whoever asks makes it worth while to hear what others say."""
        self._wanted = True
        return super().acquire(now)

    def force_open(self, duration: float | None, now: float) -> None:
        """As `CircuitBreaker.force_open`. Other processes are not told, and cannot shorten it."""
        super().force_open(duration, now)
        self._stands_until = max(self._stands_until, self._now + (math.inf if duration is None else duration))

    def _open(self, reason: str, duration: float) -> None:
        super()._open(reason, duration)
        if reason in _FOUND:
            self._opening += 1
            self._found_until = self._stands_until = self._retry_at
            self._say(self._retry_at)

    def _close(self, reason: str) -> None:
        if reason == "success_threshold":
            self._say_what_is_over()
        super()._close(reason)
        self._found_until = self._stands_until = -math.inf
        for opening in self._heard.values():
            opening.until = opening.holds_until = -math.inf

    def _say_what_is_over(self) -> None:
        """A probe succeeded, after every opening that this process knows of."""
        over = {name: (each.number, each.until) for name, each in self._heard.items() if self._matters(each.until)}
        if self._found_until > -math.inf:
            over[self._member] = (self._opening, self._found_until)
        if over:
            self._ends |= over
            self._say(max(until for _, until in over.values()) + self._margin)

    def _matters(self, until: float) -> bool:
        """Whether an opening that ends then may still keep anybody from sending."""
        return until + self._margin > self._now

    def _say(self, until: float) -> None:
        self._verdicts += 1
        self._news_until = until

    # ---- an `Exchanging` ------------------------------------------------------------------------------------------------

    def exchange_at(self) -> float | None:
        """An interval after the last question while there are requests; a new verdict at once, but only one an interval.

        ``None``: not before a request comes.
        """
        if self._now < self._news_until:
            return self._hurried_at + self._interval
        return self._asked_at + self._interval if self._wanted or self._in_use() else None

    def exchange(self, now: float, unix_now: float) -> StoreRequest:
        """Say what this process found, and ask what the others say."""
        self._now = now = max(self._now, now)
        if now < self._news_until:
            self._hurried_at = now
        self._asked_at = now
        self._wanted = False
        self._carried = self._verdicts
        self._ends = {name: each for name, each in self._ends.items() if self._matters(each[1])}
        left = max(0.0, self._found_until - now)
        report = _Report(self._opening, left, {name: number for name, (number, _) in self._ends.items()})
        return Publish(self._key, self._member, msgspec.json.encode(report), left + self._margin)

    def exchanged(self, reply: StoreReply, now: float, unix_now: float) -> None:
        """What the others say."""
        self.state(now)
        if not isinstance(reply, Published):
            return
        if self._carried == self._verdicts:
            self._news_until = -math.inf
        self._hear(reply.reports)
        self._advance()  # what was taken back may have been all that was left

    def leave(self, now: float, unix_now: float) -> StoreRequest | None:
        """Take the report off the board. Who heard of an opening keeps to it."""
        return Publish(self._key, self._member, b"", self._margin) if self._asked_at > -math.inf else None

    # ---- between the two ------------------------------------------------------------------------------------------------

    def _hear(self, reports: Mapping[str, tuple[float, bytes]]) -> None:
        """Heed what a board says: first what is over, so that nobody opens for it, then what is not."""
        said: dict[str, tuple[float, _Report]] = {}
        for name, (age, text) in reports.items():
            report = _read(text)
            if report is not None and name != self._member:
                said[name] = (report.left - max(0.0, age), report)
        taken_back = False
        for _, report in said.values():
            for name, number in report.ends.items():
                taken_back |= self._end(name, number)
        for name, (left, report) in said.items():
            self._heed(name, report.opening, left, said)
        if taken_back:
            self._take_back()
        for name, opening in list(self._heard.items()):
            if name in said:
                opening.forget_at = self._forget_at()
            elif opening.forget_at <= self._now:
                del self._heard[name]

    def _end(self, name: str, number: int) -> bool:
        """An opening, and those before it, are over. Returns whether one of them may have kept this breaker from closing."""
        known = self._heard.get(name)
        if known is not None and known.number > number:
            return False
        self._heard[name] = _Opening(number, self._forget_at())
        return known is not None and known.until > -math.inf

    def _heed(self, name: str, number: int, left: float, others: Collection[str]) -> None:
        """Stay open for what is left of somebody's opening, if it has not been heard of before."""
        known = self._heard.get(name)
        if number <= (0 if known is None else known.number):
            return
        self._heard[name] = opening = _Opening(number, self._forget_at())
        if left <= 0:
            return
        left = min(left, self._longest)
        opening.until = opening.holds_until = self._now + left
        if opening.until <= self._stands_until:
            return  # and so this one probes first
        opening.holds_until += min(_TURN * self._interval, left) * self._turn(name, others)
        if self._state is not CircuitState.OPEN:
            self._open("shared_open", 0.0)
        self._retry_at = max(self._retry_at, opening.holds_until)

    def _turn(self, opener: str, others: Collection[str]) -> int:
        """How many turns after the end of somebody's opening this process may probe: in the order of their names one process
        in the first, two in the second, four in the third and so on."""
        before = sum(1 for name in others if name < self._member and name != opener)
        return (before + 1).bit_length()

    def _take_back(self) -> None:
        """Something that was said is over: be open only for what still stands. Whoever heeded anything is not closed."""
        held = [opening.holds_until for opening in self._heard.values() if opening.until > self._now]
        if held or self._stands_until > -math.inf:
            self._retry_at = max(self._now, self._stands_until, *held)
        else:
            self._close("shared_closed")

    def _forget_at(self) -> float:
        return self._now + self._longest + self._margin


def _read(text: bytes) -> _Report | None:
    """A report, if it is one."""
    try:
        return _decode(text)
    except _NOT_AS_EXPECTED:
        return None
