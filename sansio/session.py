"""The credential of one (provider, key) and the one refresh that may be in flight for it.

A `RemoteSession` answers two questions: which credential may be sent now (`snapshot`), and whether a driver should fetch a
new one (`wants_refresh`). Each different credential gets a generation, and every attempt remembers the one it was sent with,
so a 401 that comes late says nothing about a newer credential.

                begin_refresh                      report
    (nothing, expiring, refused, asked for) ──▶ in flight ──▶ RENEWED    generation + 1
                ▲                                  │   │
                │                                  │   └────▶ UNCHANGED  the same credential, served again
                └──────── backoff ◀── FAILED ◀─────┘  (an error, an expired credential, or no report in time)

An expiry is a Unix time, and the wall clock may jump while the monotonic one runs on. So both are kept, and the credential
has expired as soon as either says so.
"""

from __future__ import annotations

import enum
import math
import random
from dataclasses import dataclass, field

from .backoff import BackoffPolicy, compute_backoff, require_number, require_positive
from .errors import InferenceError, Timeout, Unauthorized
from .secret import Credential


class SessionRebuildCause(enum.StrEnum):
    """Why a credential is fetched.

    INITIAL: there is none yet. AUTH_FAILURE: the provider refused it (401). EXPIRY: it expires soon, or has expired.
    CONFIG_CHANGE, MANUAL: somebody asked (`RemoteSession.request_rebuild`).
    """

    INITIAL = "initial"
    AUTH_FAILURE = "auth_failure"
    CONFIG_CHANGE = "config_change"
    MANUAL = "manual"
    EXPIRY = "expiry"


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """How a credential is kept fresh.

    refresh_ahead: seconds before its expiry a credential is refreshed, but never in the first half of its life.
    backoff: how long to wait after a failed refresh. refresh_timeout: seconds after which a refresh that has not reported
    counts as failed. Raises `ValueError` for a value out of range.
    """

    refresh_ahead: float = 60.0
    backoff: BackoffPolicy = field(default_factory=BackoffPolicy)
    refresh_timeout: float = 30.0

    def __post_init__(self) -> None:
        require_number("refresh_ahead", self.refresh_ahead)
        require_positive("refresh_timeout", self.refresh_timeout)
        if not isinstance(self.backoff, BackoffPolicy):
            raise ValueError(f"backoff: {self.backoff!r} is not a BackoffPolicy")


@dataclass(frozen=True, slots=True)
class SessionSnapshot:
    """The credential of one attempt. ``generation`` counts the different credentials of a session, from 1."""

    generation: int
    credential: Credential


class RefreshResult(enum.StrEnum):
    """What a refresh came to.

    RENEWED: a different credential. UNCHANGED: the same one, so a 401 stands. FAILED: no credential, the next try backs off.
    STALE: not the refresh in flight; nothing was changed.
    """

    RENEWED = "renewed"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class SessionOutcome:
    """What a refresh came to; ``error`` says why it failed, and is ``None`` otherwise."""

    result: RefreshResult
    error: InferenceError | None = None


class AuthVerdict(enum.StrEnum):
    """What to do with a request that was answered 401.

    RETRY_NOW: a newer credential than the one it carried is known. WAIT_FOR_REBUILD: wait for the refresh to report,
    and send again only if that is `RefreshResult.RENEWED`.
    """

    RETRY_NOW = "retry_now"
    WAIT_FOR_REBUILD = "wait_for_rebuild"


class RemoteSession:
    """The credential of one (provider, key). ``rng`` spreads the waits between failed refreshes.

    ``now`` is monotonic seconds; one that goes backwards counts as standing still. ``unix_now`` is the wall clock, which may
    jump.
    """

    __slots__ = ("_asked_at", "_config", "_failures", "_in_flight", "_lifetime", "_now", "_provider", "_refresh_id",
                 "_refused_at", "_requested", "_retry_at", "_rng", "_snapshot")  # fmt: skip

    def __init__(self, provider: str, config: SessionConfig, rng: random.Random) -> None:
        self._provider = provider
        self._config = config
        self._rng = rng
        self._now = -math.inf
        self._snapshot: SessionSnapshot | None = None  # the last one fetched, whether it may be sent or not
        self._lifetime: _Lifetime | None = None  # of that snapshot; None: it does not expire
        self._refused_at: float | None = None  # when a 401 took it out of service
        self._requested: _Request | None = None
        self._in_flight: _Refresh | None = None
        self._refresh_id = 0
        self._failures = 0
        self._retry_at = -math.inf
        self._asked_at = -math.inf  # up to here `wants_refresh` has answered, and `deadline` has nothing to add

    @property
    def generation(self) -> int:
        """How many different credentials there have been; 0 before the first."""
        return 0 if self._snapshot is None else self._snapshot.generation

    @property
    def refreshing(self) -> bool:
        """Whether a refresh is in flight."""
        return self._in_flight is not None

    def snapshot(self, now: float, unix_now: float) -> SessionSnapshot | None:
        """The credential to send now.

        ``None`` while there is none, it is known to be expired, or the provider refused it and it is being rebuilt. What a
        running attempt carries is not affected.
        """
        if self._lifetime is None:  # it does not expire, so the wall clock has nothing to say
            self._advance(now)
        elif self._look(now, unix_now) >= self._lifetime.expires_at:
            return None
        return self._snapshot if self._refused_at is None else None

    def wants_refresh(self, now: float, unix_now: float) -> SessionRebuildCause | None:
        """Why a refresh should be ordered now, or ``None``: not needed, one is in flight, or the last failure backs off.

        INITIAL is worth an order only when somebody waits for a credential; the others are always worth one. Ask after
        every fact and at every `deadline`.
        """
        now = self._look(now, unix_now)
        self._asked_at = now
        if self._in_flight is not None or now < self._retry_at:
            return None
        if self._refused_at is not None:
            return SessionRebuildCause.AUTH_FAILURE
        if self._requested is not None:
            return self._requested.cause
        if self._snapshot is None:
            return SessionRebuildCause.INITIAL
        if self._lifetime is not None and now >= self._lifetime.refresh_at:
            return SessionRebuildCause.EXPIRY
        return None

    def begin_refresh(self, cause: SessionRebuildCause, now: float) -> int:
        """Note that a refresh was ordered; returns the id its `report` must carry. It answers every wish known by now.

        Raises `RuntimeError` when one is in flight.
        """
        if self._in_flight is not None:
            raise RuntimeError("a refresh is in flight already")
        self._advance(now)
        self._refresh_id += 1
        self._in_flight = _Refresh(self._refresh_id, cause, self._now, self._requested)
        self._requested = None
        return self._refresh_id

    def report(self, refresh_id: int, result: Credential | InferenceError, now: float, unix_now: float) -> SessionOutcome:
        """Take what a refresh brought. A credential that has expired already is a failure (`Unauthorized`).

        A report of any refresh but the one in flight is stale and does nothing.
        """
        refresh = self._in_flight
        if refresh is None or refresh.id != refresh_id:
            return SessionOutcome(RefreshResult.STALE)
        now = self._advance(now)
        if isinstance(result, InferenceError):
            return self._fail(refresh, result)
        lifetime = self._lifetime_of(result, now, unix_now)
        if lifetime is not None and lifetime.expires_at <= now:
            message = "the credential that was fetched had expired already"
            return self._fail(refresh, Unauthorized(message, provider=self._provider))
        return self._take(refresh, result, lifetime)

    def expire(self, now: float) -> SessionOutcome | None:
        """Give up on a refresh that has not reported for ``refresh_timeout``: the failure, or ``None`` if there is none.

        A report that comes after that is stale.
        """
        now = self._advance(now)
        refresh = self._in_flight
        if refresh is None or now < refresh.started_at + self._config.refresh_timeout:
            return None
        error = Timeout(
            (now - refresh.started_at) * 1000,
            f"no credential within {self._config.refresh_timeout:g} s",
            phase="refresh",
            provider=self._provider,
            counts_as_circuit_failure=False,  # the vault's silence, not the endpoint's
        )
        return self._fail(refresh, error)

    def unauthorized(self, generation: int, now: float) -> AuthVerdict:
        """Note a 401 for an attempt that carried ``generation``.

        For an older generation nothing is discarded. For the current one the credential is out of service until a refresh
        has reported; one that is in flight already counts as that refresh. Raises `ValueError` for a generation it
        never gave out.
        """
        if not 1 <= generation <= self.generation:
            raise ValueError(f"generation: {generation!r} was never given out; the current one is {self.generation}")
        self._advance(now)
        if generation < self.generation:
            return AuthVerdict.RETRY_NOW
        if self._refused_at is None:
            self._refused_at = self._now
            self._asked_at = -math.inf
        return AuthVerdict.WAIT_FOR_REBUILD

    def request_rebuild(self, cause: SessionRebuildCause, now: float) -> None:
        """Ask for a fresh credential (MANUAL or CONFIG_CHANGE, else `ValueError`); the old one is served meanwhile.

        A refresh in flight may have read what has changed since, so another one follows it. Several wishes are one.
        """
        if cause not in (SessionRebuildCause.MANUAL, SessionRebuildCause.CONFIG_CHANGE):
            raise ValueError(f"cause: {cause!r} cannot be asked for; MANUAL and CONFIG_CHANGE can")
        self._advance(now)
        if self._requested is None:
            self._requested = _Request(cause, self._now)
            self._asked_at = -math.inf

    def deadline(self) -> float | None:
        """When to look again (monotonic seconds), or ``None``: call `expire`, then `wants_refresh`.

        While a refresh is in flight this is its timeout; else the next instant at which `wants_refresh` has a new answer.
        What it has answered already is not repeated, so an order that is withheld does not keep a timer at the present.
        """
        if self._in_flight is not None:
            return self._in_flight.started_at + self._config.refresh_timeout
        due = (max(instant, self._retry_at) for instant in self._wishes())
        return min((instant for instant in due if instant > self._asked_at), default=None)

    def _wishes(self) -> list[float]:
        """The instants from which a refresh is wanted, whatever the backoff says."""
        wishes: list[float] = []
        if self._refused_at is not None:
            wishes.append(self._refused_at)
        if self._requested is not None:
            wishes.append(self._requested.at)
        if self._snapshot is None:  # the end of a backoff; before the first failure, no instant at all
            wishes.append(self._retry_at)
        if self._lifetime is not None:
            wishes += [self._lifetime.refresh_at, self._lifetime.expires_at]
        return wishes

    def _advance(self, now: float) -> float:
        if now > self._now:
            self._now = now
        return self._now

    def _look(self, now: float, unix_now: float) -> float:
        """Read both clocks. What the wall clock says has come, has come for good."""
        now = self._advance(now)
        if self._lifetime is not None and self._lifetime.hurry(now, unix_now):
            self._asked_at = -math.inf
        return now

    def _lifetime_of(self, credential: Credential, now: float, unix_now: float) -> _Lifetime | None:
        expires_at_unix = credential.expires_at_unix
        if expires_at_unix is None:
            return None
        remaining = expires_at_unix - unix_now
        ahead = min(self._config.refresh_ahead, remaining / 2)
        return _Lifetime(now + remaining - ahead, now + remaining, expires_at_unix - ahead, expires_at_unix)

    def _take(self, refresh: _Refresh, credential: Credential, lifetime: _Lifetime | None) -> SessionOutcome:
        old, old_lifetime = self._snapshot, self._lifetime
        same = old is not None and old.credential.fingerprint == credential.fingerprint
        if same and lifetime is not None and old_lifetime is not None:
            lifetime.follow(old_lifetime, refresh.cause)
        self._snapshot = SessionSnapshot(self.generation + (not same), credential)
        self._lifetime = lifetime
        self._refused_at = self._in_flight = None
        self._failures = 0
        self._retry_at = self._asked_at = -math.inf
        return SessionOutcome(RefreshResult.UNCHANGED if same else RefreshResult.RENEWED)

    def _fail(self, refresh: _Refresh, error: InferenceError) -> SessionOutcome:
        self._in_flight = None
        self._requested = self._requested or refresh.requested
        self._retry_at = self._now + compute_backoff(self._config.backoff, self._failures, self._rng)
        self._failures += 1
        self._asked_at = -math.inf
        return SessionOutcome(RefreshResult.FAILED, error)


@dataclass(slots=True)
class _Lifetime:
    """When a credential is refreshed and when it expires, by the monotonic clock and by the wall clock."""

    refresh_at: float
    expires_at: float
    refresh_at_unix: float
    expires_at_unix: float

    def hurry(self, now: float, unix_now: float) -> bool:
        """Where the wall clock is ahead of the monotonic instants, pull these to ``now``; whether that changed any."""
        before = self.refresh_at, self.expires_at
        if unix_now >= self.refresh_at_unix:
            self.refresh_at = min(self.refresh_at, now)
        if unix_now >= self.expires_at_unix:
            self.expires_at = min(self.expires_at, now)
        return before != (self.refresh_at, self.expires_at)

    def follow(self, old: _Lifetime, cause: SessionRebuildCause) -> None:
        """The same credential once more: if its refresh ahead was spent and it lives no longer, refresh at its expiry."""
        spent = cause is SessionRebuildCause.EXPIRY or old.refresh_at_unix == old.expires_at_unix
        if spent and self.expires_at_unix <= old.expires_at_unix:
            self.refresh_at, self.refresh_at_unix = self.expires_at, self.expires_at_unix


@dataclass(frozen=True, slots=True)
class _Request:
    """A wish for a fresh credential, and when it was made."""

    cause: SessionRebuildCause
    at: float


@dataclass(frozen=True, slots=True)
class _Refresh:
    """The refresh in flight, and the wish it answers: it comes back if the refresh fails."""

    id: int
    cause: SessionRebuildCause
    started_at: float
    requested: _Request | None
