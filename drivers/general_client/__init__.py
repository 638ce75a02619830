"""General HTTP clients (httpx, httpx2) behind the line seam: for proxies, and for clients that a user has built."""

from .blocking import BlockingClient, GivenBlockingClient
from .tasks import GivenTaskClient, TaskClient

__all__ = [
    "BlockingClient",
    "GivenBlockingClient",
    "GivenTaskClient",
    "TaskClient",
]
