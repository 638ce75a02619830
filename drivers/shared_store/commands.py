"""What is sent for each request to the store, and what its answer says.

Pure: a `Command` is handed to whoever has a connection. An answer that is not of the shape its script gives is no answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias, cast

from sansio.cluster.store import Publish, Published, StoreLost, StoreReply, StoreRequest, Swap, Swapped, Take, Taken
from sansio.cluster.strict_script import SCRIPT as TAKE
from sansio.cluster.strict_script import arguments_of, keys_of, taken_of

from .scripts import PUBLISH, SWAP

Argument: TypeAlias = str | bytes | int

_LONGEST_TTL: Final = 1e9
"""Seconds (30 years). A longer one is taken for this: the server counts in integers."""

_MOST: Final = 2**63 - 1
"""The largest integer of the protocol."""


class NotUnderstood(Exception):
    """What came is not an answer of the script that was sent."""


class Script:
    """The text of a script, and the digest by which a server knows one that it has seen."""

    __slots__ = ("digest", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class Command:
    """A script, its keys and arguments. ``read`` makes its answer a reply, and raises `NotUnderstood` for any other."""

    script: Script
    keys: Sequence[str]
    arguments: Sequence[Argument]
    read: Callable[[object], StoreReply]


def command_for(request: StoreRequest) -> Command:
    """What carries out this request."""
    match request:
        case Publish(key, member, report, ttl, sequence):
            return Command(_PUBLISH, [key], [member, report, _whole(ttl, 1e6), sequence], _published)
        case Swap(key, version, document, ttl):
            put = () if document is None else (document,)
            return Command(_SWAP, [key], [version, _whole(ttl, 1e3), *put], partial(_swapped, document))
        case Take():
            return Command(_TAKE, keys_of(request), arguments_of(request), partial(_taken, request))


_PUBLISH: Final = Script(PUBLISH)
_SWAP: Final = Script(SWAP)
_TAKE: Final = Script(TAKE)


def _whole(seconds: float, in_a_second: float) -> int:
    return max(1, int(min(seconds, _LONGEST_TTL) * in_a_second))


def _published(answer: object) -> Published:
    match _list(answer):
        case [seconds, microseconds, *entries] if len(entries) % 3 == 0:
            pass
        case _:
            raise NotUnderstood
    reports: dict[str, tuple[float, bytes]] = {}
    for member, age, report in zip(entries[::3], entries[1::3], entries[2::3], strict=False):
        reports[_bytes(member).decode(errors="replace")] = (_number(age) / 1e6, _bytes(report))
    return Published(reports, _time(seconds, microseconds))


def _swapped(put: bytes | None, answer: object) -> Swapped:
    """put: what stands there now, if the script says that it replaced what stood there."""
    match _list(answer):
        case [seconds, microseconds, 0, version, document]:
            return Swapped(False, _number(version), _bytes(document), _time(seconds, microseconds))
        case [seconds, microseconds, 1, version, _] if put is not None:
            return Swapped(True, _number(version), put, _time(seconds, microseconds))
        case _:
            raise NotUnderstood


def _taken(request: Take, answer: object) -> Taken:
    taken = taken_of(request, answer)
    if isinstance(taken, StoreLost):
        raise NotUnderstood
    return taken


def _list(answer: object) -> list[object]:
    if not isinstance(answer, list):
        raise NotUnderstood
    return cast("list[object]", answer)


def _time(seconds: object, microseconds: object) -> float:
    return _number(seconds) + _number(microseconds) / 1e6


def _number(value: object) -> int:
    """A whole number of at least 0, as a script gives it: an integer, or its digits."""
    if isinstance(value, bytes) and value.isdigit():
        value = int(value)
    if isinstance(value, int) and 0 <= value <= _MOST:
        return value
    raise NotUnderstood


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise NotUnderstood
    return value
