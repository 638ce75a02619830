"""The store for code that waits for each answer. Any thread may ask, any number at a time."""

from __future__ import annotations

import threading
from typing import Final

from sansio.cluster.config import ClusterConfig
from sansio.cluster.store import StoreLost, StoreReply, StoreRequest

from .store_thread import StoreThread

SLACK: Final = 1.0
"""Seconds beyond the store's own time that an answer is waited for: the thread that brings it may be late."""


class BlockingStore:
    """Puts requests to the store that ``config`` names. A thread of its own begins with the first, and ends with `close`.

    Raises `ValueError` as `AsyncioStore`.
    """

    def __init__(self, config: ClusterConfig) -> None:
        self._thread: StoreThread[_Slot] = StoreThread(config, _Slot.fill)
        self._patience = min(config.store_timeout + SLACK, threading.TIMEOUT_MAX)
        self._lock = threading.Lock()
        self._waiting: set[_Slot] = set()
        self._closed = False

    def execute(self, request: StoreRequest) -> StoreReply:
        """The store's answer, as by `AsyncioStore.execute`."""
        slot = _Slot()
        with self._lock:
            if self._closed:
                return slot.reply
            self._waiting.add(slot)
        try:
            self._thread.ask(slot, request)
            slot.filled.wait(self._patience)
        finally:
            with self._lock:
                self._waiting.discard(slot)
        return slot.reply

    def close(self) -> None:
        """Break off what is under way, which is then answered with `StoreLost`, and end the thread. Idempotent."""
        with self._lock:
            self._closed = True
        self._thread.close(0.0)
        with self._lock:
            for slot in self._waiting:
                slot.filled.set()


class _Slot:
    """Where an answer is put for the thread that waits for it."""

    __slots__ = ("filled", "reply")

    def __init__(self) -> None:
        self.filled = threading.Event()
        self.reply: StoreReply = StoreLost("the store was closed")

    def fill(self, reply: StoreReply) -> None:
        """The answer is there."""
        self.reply = reply
        self.filled.set()
