"""What a node without HTTP keeps: of the way to a provider, of a request, of the attempt it makes."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ...batch import TokenChunk
from ...events import Complete
from ...exchange import Exchange
from ...http import HttpEvent, HttpRequest
from .clock import Timer
from .node import Call
from .request_beats import Beats
from .request_provider import RequestProvider
from .weather import Weather


class Way:
    """From a deployment to its provider: ``idle`` connections are kept to be used again."""

    __slots__ = ("_generation", "_request", "idle", "model", "provider", "weather")

    def __init__(self, model: str, provider: RequestProvider, weather: Weather) -> None:
        self.model = model
        self.provider = provider
        self.weather = weather
        self.idle = 0
        self._generation = 0
        self._request: HttpRequest | None = None

    def request(self, exchange: Exchange) -> HttpRequest:
        """What goes out. Only its credential is looked at here, so it is written once for each."""
        if self._request is None or self._generation != exchange.generation:
            self._generation, self._request = exchange.generation, exchange.request()
        return self._request

    def take(self) -> bool:
        """Whether there is a connection that has carried a request before. Over HTTP/2 all share one."""
        if not self.idle:
            return False
        if not self.provider.plan.http2:
            self.idle -= 1
        return True

    def keep(self) -> None:
        """An exchange ended well: its connection may be used again."""
        self.idle = 1 if self.provider.plan.http2 else self.idle + 1


class Run:
    """A request under way: the attempt it makes, and what its caller has not taken yet."""

    __slots__ = ("attempt", "busy", "call", "chunks", "outcome", "way")

    def __init__(self, call: Call, way: Way) -> None:
        self.call = call
        self.way = way
        self.attempt: Attempt | None = None
        self.chunks: deque[TokenChunk] = deque()
        self.busy = False
        """Whether its caller is still at the last chunk, and takes nothing."""
        self.outcome: Complete | None = None


class Attempt:
    """One attempt, as far as it has come.

    reused: it goes over a connection that has carried a request before. answering: something was heard. whole: the answer
    ended as its framing says. arrived: the provider has it. over: it was reported. events: what comes next; held: it has
    come, and the caller does not read.
    """

    __slots__ = (
        "answering", "arrived", "beats", "due", "events", "exchange", "held", "number", "over", "reused", "run",
        "timer", "told_commit", "whole",
    )  # fmt: skip

    def __init__(self, run: Run, number: int, exchange: Exchange) -> None:
        self.run = run
        self.number = number
        self.exchange = exchange
        self.timer: Timer | None = None
        self.beats: Beats = iter(())
        self.events: Sequence[HttpEvent] = ()
        self.due = 0.0
        self.reused = self.answering = self.told_commit = self.whole = self.arrived = self.held = self.over = False
