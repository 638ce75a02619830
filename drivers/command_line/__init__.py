"""The command ``remote-core``: chat with a provider, serve a mock one, and watch the whole library at work."""

from .program import main

__all__ = ["main"]
