"""One step of an engine as a line of text: (t, event, effects), without times of day, bodies or secrets.

The same facts and seed give the same lines, so a trace can be compared byte for byte and printed in a document.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from .errors import InferenceError
from .events import (
    AbortAttempt,
    AddRequest,
    AskStore,
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
    OverrideCircuit,
    RebuildSession,
    RefreshSession,
    SessionReport,
    StartAttempt,
    StoreReport,
    Tick,
)


def trace_line(t: float, event: Event, effects: Sequence[Effect]) -> str:
    """``t`` seconds since whatever the caller counts from, the event, and what it led to; notices in brackets."""
    orders = ", ".join(describe(effect) for effect in effects) or "-"
    return f"{t:8.3f}  {describe(event):<44}  {orders}"


def describe(fact: Event | Effect) -> str:
    """One event or effect in a few words."""
    match fact:
        case AddRequest():
            return f"AddRequest(#{fact.request_id} {fact.deployment} {fact.priority.name})"
        case Cancel():
            return f"Cancel(#{fact.request_id})"
        case HeadReceived():
            return f"HeadReceived(#{fact.request_id}/{fact.attempt} {fact.head.status})"
        case Committed():
            return f"Committed(#{fact.request_id}/{fact.attempt})"
        case AttemptEnded():
            return f"AttemptEnded(#{fact.request_id}/{fact.attempt} {_outcome(fact.error)}{' stale' if fact.stale else ''})"
        case SessionReport():
            return f"SessionReport({fact.result.kind if isinstance(fact.result, InferenceError) else 'credential'})"
        case RebuildSession():
            return f"RebuildSession({fact.cause})"
        case OverrideCircuit():
            return f"OverrideCircuit({fact.action})"
        case StoreReport():
            return f"StoreReport({type(fact.reply).__name__})"
        case AskStore():
            return f"AskStore({type(fact.request).__name__})"
        case Tick() | Drain() | Close() | Drained():
            return type(fact).__name__
        case StartAttempt():
            return f"StartAttempt(#{fact.request_id}/{fact.attempt}{' fresh' if fact.fresh else ''})"
        case AbortAttempt():
            return f"AbortAttempt(#{fact.request_id}/{fact.attempt} {'left' if fact.error is None else fact.error.kind})"
        case Complete():
            return f"Complete(#{fact.request_id} {_outcome(fact.error)})"
        case RefreshSession():
            return f"RefreshSession({fact.cause})"
        case Notice():
            return f"[{fact.kind}{''.join(f' {name}={_short(value)}' for name, value in fact.detail.items())}]"
        case _:
            assert_never(fact)


def _outcome(error: InferenceError | None) -> str:
    return "ok" if error is None else error.kind


def _short(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
