"""Keeping Ctrl-C out of the moments in which it would do harm.

A `KeyboardInterrupt` is raised between any two instructions of the main thread. In the middle of telling the engine a fact
it would lose an order, and somebody would wait for it for ever. So while an engine is open, an interrupt that comes in such
a moment is raised at its end; one that comes while a caller waits is raised at once. Only Python's own handler is stood in
for, and it is put back, as trio does for the same reason.
"""

from __future__ import annotations

import signal
import threading
from contextlib import suppress
from types import FrameType


class InterruptShield:
    """``with shield:`` holds interrupts back, ``with shield.lowered():`` inside of it lets them through. May be nested.

    Does nothing in threads other than the main one: no interrupt is ever raised there.
    """

    def __init__(self) -> None:
        self._depth = 0
        self._open_at: int | None = None  # the depth at which an interrupt is let through all the same
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

    def lowered(self) -> _Lowered:
        """The caller waits for something outside: let an interrupt through, also one that was held back."""
        return _Lowered(self)

    def open_up(self) -> int | None:
        """Let interrupts through at the present depth. Returns what was let through before, for `shut`."""
        before, self._open_at = self._open_at, self._depth
        self._raise_pending()
        return before

    def shut(self, before: int | None) -> None:
        """Let through what was let through before."""
        self._open_at = before

    def _raise_pending(self) -> None:
        if self._pending and self._is_down:
            self._pending, self._open_at = False, None
            raise KeyboardInterrupt

    @property
    def _is_down(self) -> bool:
        return self._depth == 0 or self._depth == self._open_at

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        if self._is_down:
            self._open_at = (
                None  # whoever waited does so no longer: here, because nothing that follows is sure to be reached
            )
            signal.default_int_handler(number, frame)
        self._pending = True


class _Lowered:
    """A moment in which an interrupt may come."""

    def __init__(self, shield: InterruptShield) -> None:
        self._shield = shield
        self._before: int | None = None

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._before = self._shield.open_up()

    def __exit__(self, *_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            self._shield.shut(self._before)


class Bell:
    """Wakes one thread. A `threading.Event` waits in Python code, which an interrupt may leave with its lock held."""

    def __init__(self) -> None:
        self._silence = threading.Lock()
        self._silence.acquire()

    def ring(self) -> None:
        """Wake whoever waits, or whoever will. Any thread may call this."""
        with suppress(RuntimeError):  # it rings already
            self._silence.release()

    def wait(self) -> None:
        """Until it rings, and then it is silent again. An interrupt is let through."""
        with SHIELD.lowered():
            self._silence.acquire()


SHIELD = InterruptShield()
"""The one of this process: there is one handler for all engines."""
