"""The front of an engine that callers see, as far as it is the same in every driver."""

from .async_stream import AsyncClient, AsyncLine, AsyncTokenStream
from .engine_front import EngineFront, RequestOptions
from .pooled_client import PooledClient

__all__ = ["AsyncClient", "AsyncLine", "AsyncTokenStream", "EngineFront", "PooledClient", "RequestOptions"]
