"""Telling code that asks again and again, and so never lets time pass, from code that has something to do.

Both keep an event loop turning. Who has something to do is done after a while, and the loop comes to rest; who asks again
and again is waiting for the world, which waits for the loop to rest. So after many turns without the least virtual time
the world moves on one step and, as long as that goes on, after every few.
"""

from __future__ import annotations

from typing import Final

from sansio.simulation.world.clock import VirtualClock

MOST_TURNS: Final = 10_000
"""So many turns of a loop may take no virtual time; after more of them somebody is taken to ask again and again."""

TURNS_A_STEP: Final = 100
"""So many turns of a loop in which somebody asks again and again go by between two steps of the world."""


HINT: Final = (
    "somebody asks again and again, as by `while not done: await sleep(0)`, for what is not going to happen: not within the "
    "virtual time that was given, or not at all; wait for an event or a task instead, or for some seconds between two looks"
)


class Polling:
    """Counts the turns of a loop in which it did not come to rest."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._seen_at = clock.now
        self._left = MOST_TURNS
        self._was_in_vain = False

    def rested(self) -> None:
        """Everybody waits for something: nobody is polling."""
        self._left = MOST_TURNS
        self._was_in_vain = False

    def turned(self) -> bool:
        """One more turn after which somebody can go on at once. Whether the world has to move on all the same."""
        if self._clock.now != self._seen_at:  # by whoever
            self._seen_at = self._clock.now
            self._left = max(self._left, TURNS_A_STEP)
            self._was_in_vain = False
        self._left -= 1
        if self._left > 0:
            return False
        self._left = TURNS_A_STEP
        return True

    def in_vain(self) -> bool:
        """The world could not move on. Whether that was so the last time already: till then a thread may have done
        something. Afterwards there are as many turns as at first, to clean up in."""
        self._left = MOST_TURNS
        self._was_in_vain = not self._was_in_vain
        return not self._was_in_vain
