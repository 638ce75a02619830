"""httpx and httpx2 on trio, behind the same seam as the native client."""

from __future__ import annotations

import ssl

import trio

from drivers.front.choice import Choice, load
from drivers.general_client import GivenTaskClient, TaskClient
from sansio import PoolConfig


def general_client(
    choice: Choice, ssl_context: ssl.SSLContext | None, pool: PoolConfig | None
) -> TaskClient | GivenTaskClient:
    """The general client that was chosen. Raises `ValueError` for settings that it does not have."""
    choice.require_general(ssl_context, pool)
    module = load(choice.name)
    if choice.given is not None:
        return GivenTaskClient(module, choice.given)
    return TaskClient(module, trio.current_time, ssl_context, pool)
