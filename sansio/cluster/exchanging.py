"""Who keeps up an exchange with the store: the contract between a shared limit (or circuit) and its engine.

One question is outstanding at a time. The engine asks `exchange_at`, and by then `exchange` for the question; its driver
carries it to the store and always brings an answer (`StoreLost` in the worst case), which `exchanged` is told.
"""

from __future__ import annotations

from typing import Protocol

from .store import StoreReply, StoreRequest


class Exchanging(Protocol):
    """Something that several processes share through a store."""

    def exchange_at(self) -> float | None:
        """When `exchange` has a question; ``None``: not before something happens. Not asked while one is outstanding."""
        ...

    def exchange(self, now: float, unix_now: float) -> StoreRequest:
        """The question to put to the store now."""
        ...

    def exchanged(self, reply: StoreReply, now: float, unix_now: float) -> None:
        """What the store answered to the last question."""
        ...

    def leave(self, now: float, unix_now: float) -> StoreRequest | None:
        """The last question, put by a process that goes: it gives back what it holds. ``None``: nothing to say."""
        ...
