"""How several processes share what one key may do: which store, and what is done while it cannot be reached.

Nothing of this is needed for one process. For many, a URL is enough: `ClusterConfig.of("redis://…")`.
"""

from __future__ import annotations

import difflib
import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ..secret import Secret

_SCHEMES = ("redis", "rediss", "valkey", "valkeys", "unix")


class SharingMode(enum.StrEnum):
    """How limits are shared (limits with ``strict=True`` are counted in the store itself, whatever stands here)."""

    APPROXIMATE = "approximate"
    """Shares that follow demand. Cheap, goes on through any failure, may exceed the limit by a stated bound."""

    ESCROW = "escrow"
    """Rights that are handed over. Never exceeds the limit."""


class OnStoreLost(enum.StrEnum):
    """What is granted, in strict and escrow modes, while the store cannot be reached."""

    FAIL_CLOSED = "fail_closed"
    """Nothing."""

    LOCAL_SHARE = "local_share"
    """``local_share`` of each limit, by this process on its own."""


class OnSilence(enum.StrEnum):
    """In approximate mode: what becomes of the share of a process that is not heard of, and of one's own meanwhile."""

    FREEZE = "freeze"
    """Shares stay as they were until ``lease`` is over; then the silent one's is divided, and it has stopped by itself."""

    EXPAND = "expand"
    """It is divided at once. With the processes in ``p`` parts that cannot hear each other, up to ``p`` times the limit."""


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """The store that processes share, and how.

    url: ``redis://``, ``rediss://``, ``valkey://``, ``valkeys://`` or ``unix://``, or a `Secret` that holds it.
    mode: `SharingMode`. on_store_lost: `OnStoreLost`; local_share: the part of each limit it speaks of. withheld: the part
    of each limit that the store never hands out, so that local shares are within the limit: with ``n`` processes
    ``n * local_share``; where it is less, they may exceed it together, by choice. on_silence: `OnSilence`.
    interval: seconds between exchanges; ``None``: a sixtieth of the limit's window, within 0.05 and 1.0. lease: seconds
    after the last exchange that a process goes on; ``None``: five intervals (at least 1.0) for escrow, five windows for
    approximate. store_timeout: seconds the store has for an answer. share_circuits: whether an endpoint's circuit that opens
    in one process opens in all. estimate_error: how far off (one standard deviation, as a part) estimates of tokens are
    taken to be until enough requests have ended to know, and so much more is charged meanwhile; ``None``: they are believed.
    prefix: what the names of all keys in the store begin with.
    Raises `ValueError` naming the field.
    """

    url: str | Secret = field(repr=False)
    mode: SharingMode = SharingMode.APPROXIMATE
    on_store_lost: OnStoreLost = OnStoreLost.FAIL_CLOSED
    local_share: float = 0.0
    withheld: float = 0.0
    on_silence: OnSilence = OnSilence.FREEZE
    interval: float | None = None
    lease: float | None = None
    store_timeout: float = 1.0
    share_circuits: bool = False
    estimate_error: float | None = 0.3
    prefix: str = "remote-core"

    def __post_init__(self) -> None:
        if isinstance(self.url, str):  # it may hold a password: what is wrong with it is said without showing it
            scheme, colon, rest = self.url.partition("://")
            if not colon or scheme not in _SCHEMES:
                raise ValueError(f"url: does not begin with one of {', '.join(f'{scheme}://' for scheme in _SCHEMES)}")
            if not rest.isprintable() or " " in rest:
                raise ValueError("url: holds white space or a control character (not shown here); percent-encode it")
        elif not isinstance(self.url, Secret):
            raise ValueError(f"url: a {type(self.url).__name__} is neither a string nor a Secret")
        for name, kind in (("mode", SharingMode), ("on_store_lost", OnStoreLost), ("on_silence", OnSilence)):
            value = getattr(self, name)
            try:
                object.__setattr__(self, name, kind(value))
            except ValueError:
                known = ", ".join(repr(str(member)) for member in kind)
                raise ValueError(f"{name}: {value!r} is none of {known}") from None
        for name in ("local_share", "withheld"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
                raise ValueError(f"{name}: {value!r} is outside 0 <= {name} < 1 (a part of each limit)")
        if self.on_store_lost is OnStoreLost.LOCAL_SHARE and not self.local_share:
            raise ValueError("local_share: is 0, but on_store_lost is 'local_share'; give a part of each limit")
        for name in ("interval", "lease", "store_timeout"):
            value = getattr(self, name)
            if value is None and name != "store_timeout":
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise ValueError(f"{name}: {value!r} is not a number of seconds above 0")
        if not isinstance(self.share_circuits, bool):
            raise ValueError(f"share_circuits: {self.share_circuits!r} is neither True nor False")
        error = self.estimate_error
        if error is not None and (isinstance(error, bool) or not isinstance(error, (int, float)) or not 0 <= error <= 1):
            raise ValueError(
                f"estimate_error: {error!r} is outside 0 <= estimate_error <= 1 (a part of the estimate), or None"
            )
        if not isinstance(self.prefix, str) or not self.prefix or not self.prefix.isprintable():
            raise ValueError(f"prefix: {self.prefix!r} is not a non-empty string of printable characters")

    def interval_for(self, window: float) -> float:
        """Seconds between exchanges about a limit of this window."""
        return self.interval if self.interval is not None else min(1.0, max(0.05, window / 60.0))

    def lease_for(self, window: float) -> float:
        """Seconds after the last exchange that a process goes on granting, for a limit of this window."""
        if self.lease is not None:
            return self.lease
        if self.mode is SharingMode.ESCROW:
            return max(1.0, 5.0 * self.interval_for(window))
        return 5.0 * window

    @staticmethod
    def of(value: ClusterConfig | Mapping[str, Any] | Secret | str) -> ClusterConfig:
        """The configuration meant by whichever of these was given: a URL alone is enough. Raises `ValueError`."""
        if isinstance(value, ClusterConfig):
            return value
        if isinstance(value, (str, Secret)):
            return ClusterConfig(value)
        if not isinstance(value, Mapping):
            raise ValueError(f"a {type(value).__name__} is neither a ClusterConfig, nor a mapping, nor a URL")
        known = [each.name for each in fields(ClusterConfig)]
        for key in value:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, 1)
                raise ValueError(
                    f"unknown key {key!r}; " + (f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}")
                )
        if "url" not in value:
            raise ValueError("url: is missing; without a store there is nothing to share")
        return ClusterConfig(**value)
