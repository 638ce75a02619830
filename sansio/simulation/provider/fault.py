"""The base of all faults, and the checks of their fields.

A fault says what it does to one response: to its parts (`Fault.bend`: other status, missing events, stalls) or to its bytes
(`Fault.mangle`: a reset at any byte, one byte at a time). `faults.py` lists them all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Final

import h11

from .formats import Format
from .response_plan import Parts, Wire

FOREVER: None = None
"""As a duration: until the client gives up."""

SHORTEST_BEAT: Final = 0.001
"""The least time between two repetitions of something."""

_LONGEST_PAUSE = 1e6


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a fault happens: the format it must speak, and the Unix time of the request, for dates."""

    format: Format
    unix_now: float


@dataclass(frozen=True, slots=True)
class Fault:
    """The base: a fault that does nothing. A subclass overrides `bend` or `mangle`."""

    refuses: ClassVar[bool] = False
    """Whether the model never runs, so that the request costs no tokens."""

    needs_reuse: ClassVar[bool] = False
    """Whether it can only strike a connection that has carried a request before and carries no other now."""

    def bend(self, parts: Parts, scene: Scene) -> Parts:
        """The parts of the response, as this fault leaves them."""
        return parts

    def mangle(self, wire: Wire) -> Wire:
        """The framed bytes of the response, as this fault leaves them."""
        return wire


def check_duration(fault: Fault, name: str, *, optional: bool = False, least: float = 0.0) -> None:
    """Raises `ValueError` unless the field is a number of seconds (or ``None`` if that is allowed)."""
    value = getattr(fault, name)
    if optional and value is None:
        return
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not least <= value <= _LONGEST_PAUSE:
        raise ValueError(f"{name}: {value!r} is not a number of seconds between {least:g} and {_LONGEST_PAUSE:g}")


def check_count(fault: Fault, name: str, *, optional: bool = False) -> None:
    """Raises `ValueError` unless the field is a whole number of at least 0 (or ``None`` if that is allowed)."""
    value = getattr(fault, name)
    if optional and value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{name}: {value!r} is not a whole number of at least 0")


def check_header(field_name: str, value: str | None, name: str = "x-any") -> None:
    """Whether this can stand in a header at all: h11 says, now rather than in the middle of an answer."""
    if value is None:
        return
    try:
        h11.Response(status_code=200, headers=[(name.encode("ascii"), value.encode("latin-1"))])
    except (h11.LocalProtocolError, AttributeError, ValueError):
        raise ValueError(f"{field_name}: {value!r} cannot stand in a header") from None


def check_member(fault: Fault, name: str, allowed: tuple[object, ...]) -> None:
    """Raises `ValueError` unless the field is one of these, of the same type."""
    value = getattr(fault, name)
    if not any(value == one and type(value) is type(one) for one in allowed):
        raise ValueError(f"{name}: {value!r} is none of {', '.join(map(str, allowed))}")
