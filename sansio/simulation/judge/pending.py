"""What is known of requests, and of the deployments they are for, by whoever judges why they fail (`reasons.py`)."""

from __future__ import annotations

from ...errors import InferenceError
from ...events import AddRequest
from ...exchange import Exchange
from ...lane import Lane
from .money import Reserved, Spending, spending_of
from .naive_estimate import NaiveEstimate
from .no_retry import Failure, RetryDebt


class Deployed:
    """One deployment. circuits: its endpoint's and its key's, by number."""

    __slots__ = ("circuits", "debt", "estimate", "group", "lane", "limits", "retry", "session", "spending", "waits")

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.retry = lane.deployment.config.retry
        self.limits = lane.group.limiter.limits
        self.group = lane.group.index
        self.circuits = (lane.circuit.index, lane.key_circuit.index)
        self.session = lane.session.index
        self.waits = lane.waits_for_circuit
        self.debt = RetryDebt()
        self.estimate = NaiveEstimate(self.limits)
        self.spending: Spending | None = spending_of(lane)


class Pending:
    """One request, until it is over.

    attempt, exchange, started_at, status: its attempt, 0 if none runs; status: what came of it so far, 0 before its head.
    error, failure, failed_in: what its last attempt ended with, and in which step. scheduled: it is to be sent again.
    refreshed, resent: it was, with a new credential, and after a connection was lost unread. reserved: in a budget.
    """

    __slots__ = (
        "add", "attempt", "attempts", "deadline", "error", "exchange", "failed_in", "failure", "id", "lane", "over",
        "refreshed", "resent", "reserved", "scheduled", "started_at", "status", "step", "waits",
    )  # fmt: skip

    def __init__(self, add: AddRequest, lane: Deployed, step: int, now: float) -> None:
        self.id = add.request_id
        self.add = add
        self.lane = lane
        self.step = step
        self.deadline = None if add.timeout is None else now + add.timeout
        self.waits = lane.waits if add.wait_for_circuit is None else add.wait_for_circuit
        self.attempts = self.attempt = self.status = self.failed_in = 0
        self.exchange: Exchange | None = None
        self.started_at = now
        self.error: InferenceError | None = None
        self.failure: Failure | None = None
        self.over = self.scheduled = self.refreshed = self.resent = False
        self.reserved: Reserved | None = None

    def __str__(self) -> str:
        return f"request {self.id} of {self.lane.lane.deployment.name!r}"
