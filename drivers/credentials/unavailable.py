"""What is raised where a reference leads to no credential."""

from __future__ import annotations


class SecretUnavailable(ValueError):
    """A reference could not be resolved. Its text is ours, and never holds a value."""
