"""One credential's place by the book (invariant 18): what was fetched, how long it is good, and what a refresh may be
ordered for."""

from __future__ import annotations

import math

from ...backoff import BackoffPolicy, JitterKind
from ...errors import InferenceError
from ...lane import SessionSlot
from ...secret import Credential
from ...session import SessionConfig, SessionRebuildCause
from .violation import InvariantViolated

_MANY = 64
"""Failures after which a backoff has long reached its cap."""


class NaiveSession:
    """What is known of one credential.

    generation: how many different ones there have been. refused: a 401 took it out of service. expires, ages (from when it
    may be refreshed ahead): by both clocks. wanted, taken_up: somebody asked for another one; the refresh under way answers
    that. ordered_at: of that refresh. due: the result that is to be told of it.
    """

    __slots__ = (
        "ages", "config", "credential", "due", "expires", "failures", "generation", "not_before", "ordered_at", "refresh_id",
        "refused", "slot", "taken_up", "unix_latest", "wanted",
    )  # fmt: skip

    def __init__(self, slot: SessionSlot, config: SessionConfig) -> None:
        self.slot = slot
        self.config = config
        self.credential: Credential | None = None
        self.generation = 0
        self.refused = self.wanted = self.taken_up = False
        self.expires = self.ages = (math.inf, math.inf)
        self.unix_latest = -math.inf
        self.refresh_id = 0
        self.ordered_at: float | None = None
        self.due: str | None = None
        self.failures = 0
        self.not_before = -math.inf

    @property
    def gives_up_at(self) -> float:
        """When a refresh that does not report counts as failed."""
        return math.inf if self.ordered_at is None else self.ordered_at + self.config.refresh_timeout

    def order(self, refresh_id: int, cause: SessionRebuildCause, now: float) -> None:
        """A refresh is ordered. Raises `InvariantViolated` where one is under way, or nothing calls for it."""
        about = f"session {self.slot.index}: a refresh was ordered"
        if self.ordered_at is not None:
            raise InvariantViolated(18, f"{about} while another one is under way")
        if refresh_id <= self.refresh_id:
            raise InvariantViolated(18, f"{about} under the number of an earlier one")
        if now < self.not_before:
            raise InvariantViolated(18, f"{about} before the last failure's backoff can be over")
        if not self._calls_for(cause, now):
            raise InvariantViolated(18, f"{about}, cause {cause}, and there is no such cause")
        self.refresh_id, self.ordered_at = refresh_id, now
        self.wanted, self.taken_up = False, self.wanted

    def report(self, refresh_id: int, result: Credential | InferenceError, now: float, unix_now: float) -> None:
        """What a refresh brought; of no effect unless it is the one under way."""
        if self.ordered_at is None or refresh_id != self.refresh_id:
            return
        if isinstance(result, InferenceError):
            self.fail(now)
            return
        expires_at = result.expires_at_unix
        left = math.inf if expires_at is None else expires_at - unix_now
        if now + left <= now:
            self.fail(now)
            return
        same = self.credential is not None and self.credential.fingerprint == result.fingerprint
        ahead = min(self.config.refresh_ahead, left / 2)
        self.expires = (now + left, math.inf if expires_at is None else expires_at)
        self.ages = (self.expires[0] - ahead, self.expires[1] - ahead)
        self.credential, self.unix_latest = result, unix_now
        self.generation += not same
        self.refused, self.ordered_at = False, None
        self.failures, self.not_before = 0, -math.inf
        self.due = "unchanged" if same else "renewed"

    def fail(self, now: float) -> None:
        """A refresh brought nothing. What it was asked for is still wanted."""
        self.ordered_at, self.due = None, "failed"
        self.wanted = self.wanted or self.taken_up
        self.not_before = now + _least_backoff(self.config.backoff, self.failures)
        self.failures += 1

    def check_start(self, generation: int, now: float, unix_now: float) -> Credential:
        """The credential that an attempt carries which starts now. Raises `InvariantViolated` if it may not be sent."""
        if self.credential is None or generation != self.generation:
            raise self._bad_start(f"of generation {generation}, and {self.generation} is the current one")
        if self.refused:
            raise self._bad_start("that was refused, and no rebuild has reported")
        if now >= self.expires[0] or unix_now >= self.expires[1]:
            raise self._bad_start("that is known to have expired")
        return self.credential

    def compare(self) -> None:
        """Raises `InvariantViolated` where the session shows something else, or an end was not told."""
        session, about = self.slot.session, f"session {self.slot.index}"
        if self.due is not None:
            raise InvariantViolated(18, f"{about}: a refresh ended ({self.due}), and nobody was told")
        if session.refreshing != (self.ordered_at is not None):
            raise InvariantViolated(18, f"{about}: refreshing={session.refreshing}, and that is not so")
        if session.generation != self.generation:
            raise InvariantViolated(18, f"{about}: generation {session.generation}, and it should be {self.generation}")

    def _bad_start(self, why: str) -> InvariantViolated:
        return InvariantViolated(18, f"session {self.slot.index}: an attempt was started with a credential {why}")

    def _calls_for(self, cause: SessionRebuildCause, now: float) -> bool:
        match cause:
            case SessionRebuildCause.INITIAL:
                return self.credential is None
            case SessionRebuildCause.AUTH_FAILURE:
                return self.refused
            case SessionRebuildCause.EXPIRY:
                return now >= self.ages[0] or self.unix_latest >= self.ages[1]
            case _:  # somebody asked
                return self.wanted


def _least_backoff(policy: BackoffPolicy, failures: int) -> float:
    """The shortest wait that its jitter allows."""
    whole = min(policy.max_backoff, policy.initial_backoff * policy.backoff_multiplier ** min(failures, _MANY))
    return whole * {JitterKind.NONE: 1.0, JitterKind.EQUAL: 0.5}.get(policy.jitter, 0.0)
