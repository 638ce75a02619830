"""The real asyncio and trio drivers in virtual time, around a `World`: for tests of one's own code.

Everything is imported when it is used, so that loading the pytest plugin, which lies beside, costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .asyncio_loop import VirtualEventLoop, event_loop
    from .running import client_of, engine_of, run, run_trio

__all__ = ["VirtualEventLoop", "client_of", "engine_of", "event_loop", "run", "run_trio"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = ".asyncio_loop" if name in ("VirtualEventLoop", "event_loop") else ".running"
    return getattr(importlib.import_module(module, __name__), name)
