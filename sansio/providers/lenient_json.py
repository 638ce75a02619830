"""JSON without expectations: any value may stand anywhere, and what is not of the type asked for is absent.

Codecs decode straight into types where they can. This is for the rest: error bodies, which every proxy on the way writes in
its own manner, and the events of a dialect that puts another type where ours has one.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, TypeGuard

_INTEGER: Final = re.compile(r"-?[0-9]{1,18}")
_LARGEST: Final = 10**18


def loads(data: str | bytes) -> object:
    """The JSON value, or ``None``. Takes ``NaN`` and lone surrogates too, which Python servers do write."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def dumps(value: object) -> str:
    """A value of `loads` as JSON text; empty where it is nested too deep."""
    try:
        return json.dumps(value)
    except RecursionError:
        return ""


def is_object(value: object) -> TypeGuard[dict[str, Any]]:
    """Whether this is a JSON object."""
    return isinstance(value, dict)


def is_array(value: object) -> TypeGuard[list[Any]]:
    """Whether this is a JSON array."""
    return isinstance(value, list)


def as_dict(value: object) -> dict[str, Any]:
    """The object; an empty one for anything else."""
    return value if is_object(value) else {}


def objects(value: object) -> list[dict[str, Any]]:
    """The objects of an array; none for anything else."""
    return [item for item in value if is_object(item)] if is_array(value) else []


def as_str(value: object) -> str:
    """The string, with U+FFFD for each half of a surrogate pair (nobody could write it on); empty for anything else."""
    if not isinstance(value, str):
        return ""
    return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def as_int(value: object) -> int | None:
    """A whole number of at most 18 digits, also written as ``3.0`` or ``"3"``; else ``None``."""
    if isinstance(value, str):
        return int(value) if _INTEGER.fullmatch(value) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -_LARGEST < value < _LARGEST:
        return None
    return int(value) if value == int(value) else None
