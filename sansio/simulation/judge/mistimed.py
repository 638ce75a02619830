"""An attempt that ended because a clock ran out: whether it had."""

from __future__ import annotations

from ...errors import DeadlineExceeded, InferenceError, Timeout
from ...exchange import Exchange
from ...http import Timeouts
from .pending import Pending


def mistimed(root: InferenceError, asked: Pending, exchange: Exchange, now: float) -> str | None:
    """What is wrong with the time at which a clock is said to have run out."""
    if isinstance(root, DeadlineExceeded):
        if asked.deadline is None or now < asked.deadline:
            return "ended for its deadline, which has not come"
    elif isinstance(root, Timeout) and root.phase:
        seconds = _clock(asked.lane.lane.exchange_config.timeouts, root.phase, stream=exchange.stream)
        if seconds is None or now - asked.started_at < seconds * (1.0 - 1e-9):
            return f"ended for its {root.phase} timeout of {seconds} s after {now - asked.started_at:g} s"
    return None


def _clock(timeouts: Timeouts, phase: str, *, stream: bool) -> float | None:
    match phase:
        case "connect":
            return timeouts.connect_timeout
        case "first byte":
            return timeouts.first_byte(stream=stream)
        case "read":
            return timeouts.read_timeout
        case "content":
            return timeouts.content_timeout
        case _:
            return timeouts.total_timeout
