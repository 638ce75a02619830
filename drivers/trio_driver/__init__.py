"""The trio driver."""

from .client import HttpClient, build_client
from .engine import RemoteEngine, TokenStream
from .sse import decode_sse_stream

__all__ = ["HttpClient", "RemoteEngine", "TokenStream", "build_client", "decode_sse_stream"]
