"""What went wrong in a run, in words that are the same on every machine: no paths, no addresses, no secrets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from ...scrub import excerpt
from ..judge.violation import InvariantViolated

_FRAMES: Final = 6
"""So many calls are named, the innermost last."""

_SEPARATOR: Final = re.compile(r"[/\\]")
_ADDRESS: Final = re.compile(r" at 0x[0-9A-Fa-f]+")


@dataclass(frozen=True, slots=True)
class Violation:
    """What did not hold: the number of the invariant (`INVARIANTS`; 0 for a crash), and what was seen."""

    number: int
    text: str

    def same_as(self, other: Violation) -> bool:
        """Whether the same thing went wrong: the same invariant or, of two crashes, the same exception at the same place."""
        return self.number == other.number and (self.number != 0 or self._crash() == other._crash())

    def _crash(self) -> tuple[str, str]:
        """The exception and the innermost call, without the message, which may be about one request."""
        return self.text.partition("\n")[0].partition(":")[0], self.text.rpartition("\n")[2]


def violation_of(error: Exception, secrets: Sequence[str]) -> Violation:
    """What this exception says, without ``secrets``. One that is no `InvariantViolated` is a crash."""
    if isinstance(error, InvariantViolated):
        return Violation(error.number, excerpt(error.about, secrets))
    message = _ADDRESS.sub("", excerpt(str(error), secrets))
    said = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return Violation(0, "\n".join([said, *(f"  in {frame}" for frame in _frames(error.__traceback__)[-_FRAMES:])]))


def _frames(at: TracebackType | None) -> list[str]:
    found: list[str] = []
    while at is not None:
        code = at.tb_frame.f_code
        found.append(f"{_SEPARATOR.split(code.co_filename)[-1]}, {code.co_qualname}")
        at = at.tb_next
    return found
