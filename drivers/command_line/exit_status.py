"""How a command ends."""

from __future__ import annotations

from typing import Final

FAILED: Final = 1
BAD_USAGE: Final = 2
INTERRUPTED: Final = 130
"""What a shell reports for a process that Ctrl-C ended: 128 and the signal's number."""


class UsageError(Exception):
    """The command line, or a file or variable that it names, asks for what cannot be. Ends with `BAD_USAGE`."""
