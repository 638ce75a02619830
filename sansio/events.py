"""The engine's boundary: the facts it is told (events) and the orders it gives (effects). Both lists are closed.

A fact about an attempt names the request and the attempt (its lease's generation), so that a late or doubled one is
recognised and does nothing. Nothing here holds a clock: `handle` is told the time beside the event.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, Literal

from .batch import ExecuteBatch, TokenEstimate, TokenUsage
from .cluster.store import StoreReply, StoreRequest
from .errors import InferenceError
from .exchange import Exchange
from .http import ResponseHead
from .queue import Priority
from .secret import Credential, Secret
from .session import SessionRebuildCause

# ---- facts -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class AddRequest:
    """A caller wants an answer. ``request_id`` is the caller's choice and unique for the life of the engine.

    stream: whether the answer is streamed. estimate: what it is expected to use (made outside the critical section).
    timeout: seconds until the whole request, waiting included, must be over. wait_for_circuit: wait an open circuit out
    rather than fail at once; ``None`` leaves it to the deployment.
    """

    request_id: int
    deployment: str
    batch: ExecuteBatch
    estimate: TokenEstimate
    stream: bool = True
    priority: Priority = Priority.NORMAL
    tenant: str = ""
    timeout: float | None = None
    wait_for_circuit: bool | None = None


@dataclass(slots=True)
class Cancel:
    """The request's own caller no longer wants it. Idempotent; of no effect once the request is over."""

    request_id: int


@dataclass(slots=True)
class HeadReceived:
    """The head of an attempt's response came."""

    request_id: int
    attempt: int
    head: ResponseHead


@dataclass(slots=True)
class Committed:
    """An attempt passed its commit point: content is about to reach the caller, so it can never be replayed."""

    request_id: int
    attempt: int


@dataclass(slots=True)
class AttemptEnded:
    """An attempt is over and its connection dealt with. ``error`` is ``None`` for success, ``usage`` ``None`` if unknown.

    stale: it went over a connection that had carried a request before, and that was lost (a `NetworkError`) before any byte
    of an answer: most likely the server had closed it while it was idle (RFC 9112, section 9.3.1).
    head: the response's, where it came together with the end, so that no `HeadReceived` has told of it.
    """

    request_id: int
    attempt: int
    error: InferenceError | None
    usage: TokenUsage | None
    sent: bool
    stale: bool = False
    head: ResponseHead | None = None


@dataclass(slots=True)
class SessionReport:
    """What came of an ordered refresh: a credential, or why there is none. Always reported, whatever happened."""

    session: int
    refresh_id: int
    result: Credential | InferenceError


@dataclass(slots=True)
class RebuildSession:
    """An operator or a changed configuration asks for a fresh credential. ``None`` names the only deployment there is."""

    deployment: str | None
    cause: SessionRebuildCause = SessionRebuildCause.MANUAL


@dataclass(slots=True)
class StoreReport:
    """What came of an ordered question to the store: its answer, or `StoreLost`. Always reported, whatever happened."""

    link: int
    ask: int
    reply: StoreReply


class CircuitAction(enum.StrEnum):
    """What an operator does to a circuit."""

    OPEN = "open"
    CLOSE = "close"
    RESET = "reset"


@dataclass(slots=True)
class OverrideCircuit:
    """An operator opens (for ``duration`` seconds, ``None`` until closed), closes or resets a deployment's circuit."""

    deployment: str | None
    action: CircuitAction
    duration: float | None = None


@dataclass(slots=True)
class Tick:
    """Time has passed: `deadline()` came."""


@dataclass(slots=True)
class Drain:
    """Accept nothing new, finish what was accepted, then say `Drained`."""


@dataclass(slots=True)
class Close:
    """End everything now with `EngineClosed`, then say `Drained`."""


Event = (
    AddRequest | Cancel | HeadReceived | Committed | AttemptEnded | SessionReport | StoreReport | RebuildSession
    | OverrideCircuit | Tick | Drain | Close
)  # fmt: skip
"""A fact: what `RemoteEngineCore.handle` is told."""

# ---- orders ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class StartAttempt:
    """Make this HTTP attempt: ``exchange`` holds what to send and judges what comes. The lease is taken.

    fresh: over a new connection, because one that was used before has just failed this request.
    """

    request_id: int
    attempt: int
    exchange: Exchange = field(repr=False)
    fresh: bool = False


@dataclass(slots=True)
class AbortAttempt:
    """Cut this attempt's connection now. ``error`` is what it failed with, ``None`` where nobody wants to know any more."""

    request_id: int
    attempt: int
    error: InferenceError | None


@dataclass(slots=True)
class Complete:
    """The request is over: its one terminal outcome. ``error`` is ``None`` for success."""

    request_id: int
    error: InferenceError | None


@dataclass(slots=True)
class RefreshSession:
    """Resolve ``secret`` to a credential, in a task or thread of its own, and always answer with a `SessionReport`."""

    session: int
    refresh_id: int
    cause: SessionRebuildCause
    secret: Secret | None


@dataclass(slots=True)
class AskStore:
    """Put this question to the store that processes share, without holding anybody up, and always answer with a
    `StoreReport`: `StoreLost` where there is no answer within its time limit (``ClusterConfig.store_timeout``)."""

    link: int
    ask: int
    request: StoreRequest


NoticeKind = Literal[
    "retry_scheduled",
    "throttled",
    "circuit",
    "key_circuit",
    "refresh_started",
    "refresh_ended",
    "budget",
    "late_usage",
    "store",
    "client",
]


@dataclass(slots=True)
class Notice:
    """Something an operator may want to know. ``detail`` holds plain values; never a credential.

    ``client`` comes from a driver, not from the core: who moves the bytes, where the environment chose it. It concerns all
    deployments, so that its ``deployment`` is empty.
    """

    kind: NoticeKind
    deployment: str
    now: float
    unix_now: float
    request_id: int | None = None
    detail: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(slots=True)
class Drained:
    """Nothing is outstanding after `Drain` or `Close`."""


Effect = StartAttempt | AbortAttempt | Complete | RefreshSession | AskStore | Notice | Drained
"""An order: what `RemoteEngineCore.handle` answers, to be carried out in sequence."""
