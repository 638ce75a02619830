"""Carries what the core asks of a store (`sansio.cluster.store`) to a Redis or Valkey server, and its answers back.

Nothing is decided here. A question is one atomic script, sent once; whatever goes wrong is an answer as well (`StoreLost`),
and comes within the time that the configuration gives the store. Needs the extra ``redis``.
"""

from .asyncio_store import AsyncioStore
from .blocking_store import BlockingStore
from .store_thread import StoreThread

__all__ = ["AsyncioStore", "BlockingStore", "StoreThread"]
