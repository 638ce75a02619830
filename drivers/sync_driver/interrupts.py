"""Keeping Ctrl-C out of the moments in which it would do harm.

A `KeyboardInterrupt` is raised between any two instructions of the main thread. In the middle of telling the engine a fact
it would lose an order, and somebody would wait for it for ever. So while an engine is open, an interrupt that comes in such
a moment is raised at its end; one that comes while a caller waits is raised at once. Only Python's own handler is stood in
for, and it is put back, as trio does for the same reason.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType


class InterruptShield:
    """``with shield:`` holds interrupts back, ``with shield.lowered():`` inside of it lets them through. May be nested.

    Does nothing in threads other than the main one: no interrupt is ever raised there.
    """

    def __init__(self) -> None:
        self._depth = 0
        self._pending = False
        self._users = 0
        self._standing_in = False

    def raise_up(self) -> None:
        """An engine opens. Of use only in the main thread, and where the handler is Python's own."""
        if threading.current_thread() is threading.main_thread():
            if self._users == 0 and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                signal.signal(signal.SIGINT, self._interrupted)
                self._standing_in = True
            self._users += 1

    def take_down(self) -> None:
        """An engine is closed. The last one in the main thread puts the handler back."""
        if threading.current_thread() is threading.main_thread() and self._users:
            self._users -= 1
            if self._users == 0 and self._standing_in:
                self._standing_in = False
                if signal.getsignal(signal.SIGINT) == self._interrupted:  # else somebody replaced it meanwhile
                    signal.signal(signal.SIGINT, signal.default_int_handler)

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._depth += 1

    def __exit__(self, *_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            self._depth -= 1
            self._raise_pending()

    @contextmanager
    def lowered(self) -> Generator[None]:
        """The caller waits for something outside: let an interrupt through, also one that was held back."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        depth, self._depth = self._depth, 0
        try:
            self._raise_pending()
            yield
        finally:
            self._depth = depth

    def _raise_pending(self) -> None:
        if self._pending and self._depth == 0:
            self._pending = False
            raise KeyboardInterrupt

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        if self._depth:
            self._pending = True
        else:
            signal.default_int_handler(number, frame)


SHIELD = InterruptShield()
"""The one of this process: there is one handler for all engines."""
