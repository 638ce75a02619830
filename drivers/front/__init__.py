"""The front of an engine that callers see, as far as it is the same in every driver."""

from .async_stream import AsyncClient, AsyncConnection, AsyncTokenStream
from .engine_front import EngineFront, RequestOptions

__all__ = ["AsyncClient", "AsyncConnection", "AsyncTokenStream", "EngineFront", "RequestOptions"]
