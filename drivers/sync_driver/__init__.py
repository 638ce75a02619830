"""The blocking driver: plain calls from any number of threads."""

from .client import HttpClient, build_client
from .engine import RemoteEngine
from .sse import decode_sse_stream
from .stream import TokenStream

__all__ = ["HttpClient", "RemoteEngine", "TokenStream", "build_client", "decode_sse_stream"]
