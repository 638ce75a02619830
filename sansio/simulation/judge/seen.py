"""What can be seen of requests and their lanes from outside: by reading facts and orders alone.

These are records. `Outcomes` keeps them; whoever knows an invariant reads them, and writes what is its own.
"""

from __future__ import annotations

import enum
import math
from collections import deque

from ...errors import InferenceError, NetworkError
from ...events import AddRequest
from ...exchange import Exchange
from ...lane import Lane
from ...queue import CapacityPolicy


class Again(enum.Enum):
    """Why a request whose attempt is over may be sent again, if it may."""

    NEVER = "never"
    RETRY = "retry"
    REFRESHED = "unauthorized"
    RESENT = "stale_connection"


class LaneSeen:
    """One deployment: what it was configured to do, and what is seen of it.

    running: attempts that were started and have not ended. alive: requests that were not refused and are not over.
    new: of these, by priority, how many no attempt was made for. rows: the same, in the order in which they came, by
    priority (and by tenant where tenants take turns); whoever has left is still in there.
    young: those who may stand outside a full queue, in the order in which they came; old: how many have been new for longer
    than anybody may stand there.
    """

    __slots__ = (
        "ages", "alive", "bound", "capacity", "debt", "fair", "idempotent", "lane", "marked_at", "marks", "name", "new",
        "old", "outside", "queue_timeout", "retry", "rows", "running", "slots", "young",
    )  # fmt: skip

    def __init__(self, lane: Lane) -> None:
        serving = lane.deployment.served
        self.lane = lane
        self.name = lane.deployment.name
        self.idempotent = lane.deployment.idempotent
        self.retry = lane.deployment.config.retry
        self.slots = serving.max_concurrent
        self.capacity = serving.queue_capacity
        self.outside = serving.on_capacity_exhausted is CapacityPolicy.QUEUE
        self.bound = self.capacity * (2 if self.outside else 1)
        self.queue_timeout = serving.queue_timeout
        self.ages = serving.age_after is not None
        self.fair = serving.fair_tenants
        self.running = 0
        self.alive = 0
        self.new = [0, 0, 0, 0]
        self.rows: dict[tuple[int, str], deque[Asked]] = {}
        self.young: deque[Asked] = deque()
        self.old = 0
        self.debt = 0
        self.marked_at = -math.inf
        self.marks: deque[tuple[float, int]] = deque()

    @property
    def crowded(self) -> bool:
        """Whether somebody may have to stand outside: more wait, for whatever, than the queue has room for."""
        return self.alive - self.running > self.capacity


class Asked:
    """One request, from the fact that somebody asks to its outcome.

    order: its place among all. step: the number of the fact it came with. attempt, exchange: what runs, 0 and ``None`` if
    nothing does; attempts: how many there were. aborting: that one was ordered cut. committed: that one, or the one before,
    was.
    again: whether its last attempt allows another; scheduled: whether that was decided, and told.
    not_before: what the provider's hint and the decision allow. new: accepted, and never attempted.
    """

    __slots__ = (
        "aborting", "add", "added_at", "again", "attempt", "attempts", "committed", "deadline", "error", "exchange", "hint",
        "id", "lane", "new", "not_before", "old", "order", "over", "priority", "refreshed", "resent", "row", "scheduled",
        "step", "succeeded",
    )  # fmt: skip

    def __init__(self, add: AddRequest, lane: LaneSeen, order: int, step: int, now: float) -> None:
        self.id = add.request_id
        self.add = add
        self.lane = lane
        self.order = order
        self.step = step
        self.priority = int(add.priority)
        self.added_at = now
        self.deadline = None if add.timeout is None else now + add.timeout
        self.new = True
        self.old = False
        self.over = False
        self.attempts = 0
        self.attempt = 0
        self.exchange: Exchange | None = None
        self.aborting = False
        self.committed = False
        self.succeeded = False
        self.error: InferenceError | None = None
        self.again = Again.NEVER
        self.hint: float | None = None
        self.not_before = -math.inf
        self.scheduled = False
        self.refreshed = False
        self.resent = False
        key = (self.priority, add.tenant if lane.fair else "")
        row = lane.rows.get(key)
        if row is None:
            row = lane.rows[key] = deque()
        self.row = row
        row.append(self)

    def __str__(self) -> str:
        return f"request {self.id} of {self.lane.name!r}"


def ran_nothing(exchange: Exchange, error: InferenceError | None) -> bool:
    """Whether the provider refused an attempt, or said that it never looked: then it used nothing."""
    return exchange.refused or (isinstance(error, NetworkError) and error.unprocessed)
