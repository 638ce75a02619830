"""The engine that ships, with somebody looking over its shoulder.

Observers hear of every fact and what it led to, just after it, and may look inside. They change nothing.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Protocol

from ...deployment import Deployment, RemoteEngineConfig
from ...engine import RemoteEngineCore
from ...events import Effect, Event
from ...registry import Registry
from ...sharing import Roster


class Observer(Protocol):
    """Somebody who is told of every step of an engine."""

    def observed(self, event: Event, effects: Sequence[Effect], now: float, unix_now: float) -> None:
        """The engine was told ``event`` at these times, and answered with ``effects``. Raises `InvariantViolated`."""
        ...


class ObservedCore(RemoteEngineCore):
    """A `RemoteEngineCore` that tells ``observers`` of each step."""

    __slots__ = ("config", "facts", "observers")

    def __init__(
        self,
        config: RemoteEngineConfig | Deployment | Sequence[Deployment],
        *,
        rng: random.Random,
        fingerprints: Mapping[str, str] | None = None,
    ) -> None:
        self.config = RemoteEngineConfig.of(config)
        """As it was given."""
        super().__init__(self.config, rng=rng, fingerprints=fingerprints)
        self.observers: tuple[Observer, ...] = ()
        self.facts = 0
        """How many it was told."""

    @property
    def registry(self) -> Registry:
        """Requests, counts and timers: to be read, not changed."""
        return self._registry

    @property
    def roster(self) -> Roster:
        """Lanes, groups, circuits and sessions: to be read, not changed."""
        return self._roster

    def handle(self, event: Event, now: float, unix_now: float) -> list[Effect]:
        """As `RemoteEngineCore.handle`; then the observers are told."""
        effects = super().handle(event, now, unix_now)
        self.facts += 1
        for observer in self.observers:
            observer.observed(event, effects, now, unix_now)
        return effects
