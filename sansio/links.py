"""The engine's exchanges with the store that processes share: one question at a time for each shared thing, and its answer.

A `Link` (`lane.py`) is a shared limiter or circuit, and whom its answers concern. What is asked, and when, the shared thing
says itself (`cluster/exchanging.py`); here it is ordered, timed, and told what came of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from .circuits import Circuits
from .cluster.store import StoreLost, StoreReply, StoreRequest, Swapped
from .events import AskStore, StoreReport
from .lane import Link
from .registry import Registry

_PATIENCE = 4.0
"""How many of its own time limits a driver has to report what came of a question, before nothing is taken to have come."""

_FAREWELLS = 5
"""How often a farewell is said where somebody else is quicker each time: what it gives back is not lost, only late."""


class Links:
    """What one engine shares.

    timeout: seconds that its driver gives the store for an answer.
    """

    __slots__ = ("_asks", "_circuits", "_farewells", "_links", "_patience", "_registry")

    def __init__(self, registry: Registry, circuits: Circuits, links: Sequence[Link], timeout: float) -> None:
        self._registry = registry
        self._circuits = circuits
        self._links = links
        self._patience = timeout * _PATIENCE
        self._asks = 0
        self._farewells = [0] * len(links)

    @property
    def leaving(self) -> bool:
        """Whether a farewell is still under way."""
        return any(link.leaving for link in self._links)

    def follow(self, link: Link) -> None:
        """Ask what is to be asked now, or see to it that it is asked in time. After an answer that is when its lanes have
        been handed out what it brought: who still waits says so before the next question."""
        if link.ask or link.said_farewell:
            return
        registry = self._registry
        ask_at = link.shared.exchange_at()
        if ask_at is None or ask_at > registry.now:
            registry.timers.set(link, ask_at)
        else:
            self._order(link, link.shared.exchange(registry.now, registry.unix_now))

    def due(self, link: Link) -> None:
        """It is time to ask, or no longer time to wait for an answer."""
        if link.ask:
            self._answer(link, StoreReport(link.index, link.ask, StoreLost("the driver did not report")))
        else:
            self.follow(link)

    def reported(self, event: StoreReport) -> None:
        """What the store answered. An answer that is no longer waited for does nothing."""
        link = self._links[event.link] if 0 <= event.link < len(self._links) else None
        if link is not None and link.ask and link.ask == event.ask:
            self._answer(link, event)

    def leave(self) -> None:
        """The process goes: everything shared says so. What was asked before is answered first."""
        for link in self._links:
            if link.said_farewell:
                continue
            self._registry.timers.set(link, None)
            link.leaving = True
            if not link.ask:
                self._bid_farewell(link)

    def _order(self, link: Link, request: StoreRequest) -> None:
        registry = self._registry
        self._asks += 1
        link.ask = self._asks
        registry.timers.set(link, registry.now + self._patience)
        registry.effects.append(AskStore(link.index, link.ask, request))

    def _answer(self, link: Link, report: StoreReport) -> None:
        registry = self._registry
        link.ask = 0
        registry.timers.set(link, None)
        if link.said_farewell:
            self._take_leave(link, report.reply)
            return
        self._tell(link, report.reply)
        link.shared.exchanged(report.reply, registry.now, registry.unix_now)
        if link.leaving:
            self._bid_farewell(link)
        else:
            for lane in link.lanes:
                self._circuits.follow(lane)
                registry.touch(lane)

    def _take_leave(self, link: Link, reply: StoreReply) -> None:
        """A farewell is answered. That was all, unless somebody else was quicker."""
        if isinstance(reply, Swapped) and not reply.done and self._farewells[link.index] < _FAREWELLS:
            link.shared.exchanged(reply, self._registry.now, self._registry.unix_now)
            self._bid_farewell(link)
        else:
            link.leaving = False

    def _tell(self, link: Link, reply: StoreReply) -> None:
        """Say when the store is lost, why, and when it is back; once each time."""
        is_lost = isinstance(reply, StoreLost)
        link.lost_because = reason = reply.reason if isinstance(reply, StoreLost) else ""
        if is_lost != link.lost:
            link.lost = is_lost
            self._registry.notice("store", link.lanes[0], state="lost" if is_lost else "back", reason=reason)

    def _bid_farewell(self, link: Link) -> None:
        """Order the last question, whose answer ends it; or end it, where there is nothing to say."""
        registry = self._registry
        farewell = link.shared.leave(registry.now, registry.unix_now)
        link.said_farewell = True
        self._farewells[link.index] += 1
        if farewell is None:
            link.leaving = False
        else:
            self._order(link, farewell)
