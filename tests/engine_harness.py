"""A `RemoteEngineCore` driven by hand: a fake clock, facts as short calls, orders kept where a test can read them.

`Rig` is the driver of the table tests. It carries out what the engine orders only when told to, so that every test says
for itself in which order things happen. It keeps no rules of its own.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any, TypeVar

from sansio.batch import ExecuteBatch, Message, TokenEstimate, TokenUsage
from sansio.deployment import Deployment, RemoteEngineConfig
from sansio.engine import RemoteEngineCore
from sansio.errors import InferenceError, StreamInterrupted
from sansio.events import (
    AbortAttempt,
    AddRequest,
    AttemptEnded,
    Cancel,
    Close,
    Committed,
    Complete,
    Drain,
    Drained,
    Effect,
    Event,
    HeadReceived,
    Notice,
    RefreshSession,
    SessionReport,
    StartAttempt,
    Tick,
)
from sansio.http import ResponseHead
from sansio.secret import Credential, Secret
from sansio.session import SessionConfig

START = 1_000.0
"""The monotonic clock of a rig at its start. Not 0, so that an instant is never mistaken for a duration."""

UNIX_AHEAD = 1_750_000_000.0
"""How far the wall clock is ahead of it."""

OPEN_ENDED = ExecuteBatch(messages=[Message(role="user", content="hello")])
BATCH = replace(OPEN_ENDED, max_output_tokens=10)
"""A request with a limit on its output: what is reserved for it is what it says itself."""

USAGE = TokenUsage(10, 10)
EVENT_STREAM = (("content-type", "text/event-stream"),)
CONTENT = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'

EffectT = TypeVar("EffectT", bound=Effect)


def deployment(
    name: str = "chat",
    *,
    model: str = "gpt-4o",
    key: str = "sk-one",
    endpoint: str = "http://one.test/v1",
    limits: dict[str, Any] | None = None,
    retry: dict[str, Any] | None = None,
    breaker: dict[str, Any] | None = None,
    timeouts: dict[str, Any] | None = None,
    serving: dict[str, Any] | None = None,
    **rest: Any,
) -> Deployment:
    """A deployment without jitter, so that every wait is a literal."""
    return Deployment(
        name=name,
        model=model,
        runtime="openai",
        runtime_config={
            "endpoint": endpoint,
            "api_key": Secret.inline(key),
            "rate_limits": limits or {},
            "retry": {"jitter": "none"} | (retry or {}),
            "circuit_breaker": breaker or {},
            "timeouts": timeouts or {},
        },
        serving=serving or {},
        **rest,
    )


class Rig:
    """An engine, its clock, and everything it ordered.

    refreshed: answer the first order of each session at once, with a credential that never expires.
    """

    def __init__(
        self,
        *deployments: Deployment,
        refreshed: bool = True,
        session: SessionConfig | None = None,
        start: float = START,
        fingerprints: dict[str, str] | None = None,
    ) -> None:
        config = RemoteEngineConfig(deployments or (deployment(),), session or SessionConfig())
        self.engine = RemoteEngineCore(config, rng=random.Random(1), fingerprints=fingerprints)
        self.now = start
        self.unix_ahead = UNIX_AHEAD
        self.effects: list[Effect] = []
        """Those of the last fact."""
        self.started: dict[int, StartAttempt] = {}
        """The latest attempt of each request."""
        self.outcomes: dict[int, InferenceError | None] = {}
        self.refreshes: list[RefreshSession] = []
        """Orders for a credential that are not answered yet."""
        self._credentials = 0
        self._refreshed = refreshed

    # Facts.

    def tell(self, event: Event) -> list[Effect]:
        """One fact, at the rig's time; returns the orders."""
        self.effects = self.engine.handle(event, self.now, self.now + self.unix_ahead)
        effects = self.effects
        for effect in effects:
            if isinstance(effect, StartAttempt):
                self.started[effect.request_id] = effect
            elif isinstance(effect, Complete):
                assert effect.request_id not in self.outcomes, "one terminal outcome"
                self.outcomes[effect.request_id] = effect.error
            elif isinstance(effect, RefreshSession):
                self.refreshes.append(effect)
        first = [order for order in self.refreshes if order.refresh_id == 1]
        if self._refreshed and first:
            self.refreshes.remove(first[0])
            self.refreshes.insert(0, first[0])
            self.effects = effects + self.refresh()
        return self.effects

    def submit(
        self,
        request_id: int,
        name: str = "chat",
        *,
        tokens: tuple[int, int] = (10, 10),
        batch: ExecuteBatch = BATCH,
        **rest: Any,
    ) -> list[Effect]:
        """A request of so many estimated input and output tokens."""
        return self.tell(AddRequest(request_id, name, batch, TokenEstimate(*tokens), **rest))

    def send(self, request_id: int) -> None:
        """The driver sends the attempt's request: from here on it costs."""
        exchange = self.started[request_id].exchange
        exchange.connecting(self.now)
        exchange.sending(self.now)

    def head(self, request_id: int, *headers: tuple[str, str]) -> list[Effect]:
        """The head of the attempt's answer comes."""
        self.send(request_id)
        attempt = self.started[request_id]
        attempt.exchange.receive_head(200, EVENT_STREAM, self.now, self.now + self.unix_ahead)
        return self.tell(HeadReceived(request_id, attempt.attempt, ResponseHead(200, headers)))

    def commit(self, request_id: int) -> list[Effect]:
        """The attempt's first content comes."""
        self.head(request_id)
        attempt = self.started[request_id]
        attempt.exchange.receive_body(CONTENT, self.now)
        assert attempt.exchange.committed
        return self.tell(Committed(request_id, attempt.attempt))

    def end(
        self,
        request_id: int,
        error: InferenceError | None = None,
        usage: TokenUsage | None = USAGE,
        sent: bool = True,
        stale: bool = False,
    ) -> list[Effect]:
        """The attempt is over. A failure has no usage; after the commit point it is a `StreamInterrupted`."""
        attempt = self.started[request_id]
        if error is not None and attempt.exchange.committed:
            error = StreamInterrupted(None, None, error)
        usage = None if error is not None else usage
        return self.tell(AttemptEnded(request_id, attempt.attempt, error, usage, sent, stale))

    def cancel(self, request_id: int) -> list[Effect]:
        """The caller no longer wants it."""
        return self.tell(Cancel(request_id))

    def refresh(self, result: Credential | InferenceError | None = None) -> list[Effect]:
        """Answer the oldest order for a credential; by default with a new one that never expires."""
        order = self.refreshes.pop(0)
        if result is None:
            self._credentials += 1
            result = Credential(f"sk-{self._credentials}")
        return self.tell(SessionReport(order.session, order.refresh_id, result))

    def tick(self, after: float = 0.0) -> list[Effect]:
        """Time passes, and the engine is told."""
        self.now += after
        return self.tell(Tick())

    def tick_at_deadline(self) -> list[Effect]:
        """Time passes until the engine wants to be told."""
        deadline = self.engine.deadline()
        assert deadline is not None, "nothing is waited for"
        self.now = max(self.now, deadline)
        return self.tell(Tick())

    def drain(self) -> list[Effect]:
        """Accept nothing new."""
        return self.tell(Drain())

    def close(self) -> list[Effect]:
        """End everything."""
        return self.tell(Close())

    # What came of them.

    def of(self, kind: type[EffectT]) -> list[EffectT]:
        """The orders of one kind that the last fact led to."""
        return [effect for effect in self.effects if isinstance(effect, kind)]

    def starts(self) -> list[int]:
        """The requests that the last fact let start."""
        return [effect.request_id for effect in self.of(StartAttempt)]

    def aborts(self) -> list[int]:
        """The requests whose attempt the last fact had cut."""
        return [effect.request_id for effect in self.of(AbortAttempt)]

    def notices(self, kind: str) -> list[dict[str, Any]]:
        """What operators were told of one kind, at the last fact."""
        return [notice.detail for notice in self.of(Notice) if notice.kind == kind]

    def outcome(self, request_id: int) -> str:
        """``"ok"``, the kind of the error, or ``"-"`` while the request goes on."""
        if request_id not in self.outcomes:
            return "-"
        error = self.outcomes[request_id]
        return "ok" if error is None else error.kind

    def error(self, request_id: int) -> InferenceError:
        """The error a request ended with."""
        error = self.outcomes[request_id]
        assert error is not None
        return error

    def drained(self) -> bool:
        """Whether the last fact left nothing outstanding, and the engine said so."""
        return bool(self.of(Drained))

    @property
    def metrics(self) -> Any:
        """The counts."""
        return self.engine.metrics()
