"""Where credentials come from, in a world: handed out after a moment, and sometimes not at all.

A *place* is where a key is kept: what a deployment's reference to its secret points to (`place_of`).
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from ...deployment import Deployment
from ...errors import InferenceError, NetworkError
from ...secret import Credential
from .clock import VirtualClock

Report = Callable[[Credential | InferenceError], None]
"""Who waits for a credential."""


class Vault:
    """The keys of every place.

    delay: seconds it takes, at least; up to as many more are drawn. Raises `ValueError` for a place without a key.
    """

    __slots__ = ("_clock", "_delay", "_down", "_keys", "_lifetimes", "_rng", "handed_out")

    def __init__(self, clock: VirtualClock, rng: Random, *, delay: float = 0.05) -> None:
        self._clock = clock
        self._rng = rng
        self._delay = delay
        self._keys: dict[str, str] = {}
        self._lifetimes: dict[str, float | None] = {}
        self._down: dict[str, bool] = {}
        self.handed_out: list[Credential] = []
        """Every credential that ever left, in order."""

    def secrets(self) -> list[str]:
        """The text of each: what must never be shown."""
        return [credential.reveal() for credential in self.handed_out]

    def store(self, place: str, key: str, lifetime: float | None = None) -> None:
        """From now on this is the key there. lifetime: seconds of wall clock for which what is handed out is good."""
        self._keys[place] = key
        self._lifetimes[place] = lifetime

    def break_down(self, place: str, *, silent: bool) -> None:
        """It answers with errors, or (``silent``) not at all, where this key is asked for."""
        self._down[place] = silent

    def repair(self, place: str) -> None:
        """It answers again. Who was not answered is not answered now."""
        self._down.pop(place, None)

    def fetch(self, place: str, wall_ahead: float, report: Report) -> None:
        """Ask for the key of a place. ``wall_ahead``: how far the asking engine's wall clock is ahead of the world's, so
        that what it is told of the expiry is in its own time."""
        if place not in self._keys:
            raise ValueError(f"place: no key is kept at {place!r}; store one")
        self._clock.call_later(self._delay * (1.0 + self._rng.random()), lambda: self._answer(place, wall_ahead, report))

    def _answer(self, place: str, wall_ahead: float, report: Report) -> None:
        silent = self._down.get(place)
        if silent:
            return
        if silent is not None:
            report(NetworkError("the vault cannot be reached"))
            return
        lifetime = self._lifetimes[place]
        expires_at = None if lifetime is None else self._clock.unix_now + wall_ahead + lifetime
        credential = Credential(self._keys[place], expires_at)
        self.handed_out.append(credential)
        report(credential)


def place_of(deployment: Deployment) -> str:
    """Where the key of a deployment is kept: deployments with one secret share it, whichever hosts they ask."""
    secret = deployment.config.secret
    return "" if secret is None else secret.reference
