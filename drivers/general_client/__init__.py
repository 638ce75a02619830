"""General HTTP clients (httpx, httpx2) behind the line seam: for proxies, and for clients that a user has built."""

from .blocking import BlockingClient, GivenBlockingClient
from .environment import Choice, choose, load, proxied_by
from .tasks import GivenTaskClient, TaskClient

__all__ = [
    "BlockingClient",
    "Choice",
    "GivenBlockingClient",
    "GivenTaskClient",
    "TaskClient",
    "choose",
    "load",
    "proxied_by",
]
