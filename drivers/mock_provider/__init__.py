"""The mock provider on real sockets: a thin asyncio binding of `sansio.simulation.MockProvider`."""

from .server import MockServer, serve
from .threaded import ThreadedMockServer, serve_in_thread

__all__ = ["MockServer", "ThreadedMockServer", "serve", "serve_in_thread"]
