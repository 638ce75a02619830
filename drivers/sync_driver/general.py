"""httpx and httpx2 for threads, behind the same seam as the native client."""

from __future__ import annotations

import ssl

from drivers.front.choice import Choice, load
from drivers.general_client import BlockingClient, GivenBlockingClient
from sansio import PoolConfig

from .interrupts import SHIELD


def general_client(
    choice: Choice, ssl_context: ssl.SSLContext | None, pool: PoolConfig | None
) -> BlockingClient | GivenBlockingClient:
    """The general client that was chosen. Raises `ValueError` for settings that it does not have."""
    choice.require_general(ssl_context, pool)
    module = load(choice.name)
    if choice.given is not None:
        return GivenBlockingClient(module, SHIELD.lowered, choice.given)
    return BlockingClient(module, SHIELD.lowered, ssl_context, pool)
