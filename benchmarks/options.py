"""How much is measured, and where the peers are that pip does not install beside the others."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

DEFAULT_PEERS = Path(tempfile.gettempdir()) / "inference-remote-core-peers"


@dataclass(frozen=True, slots=True)
class Options:
    """quick: tiny counts, only to see that it runs. rounds: of each contender. peers: their folder. only: these clients."""

    quick: bool = False
    rounds: int = 5
    peers: Path = field(default=DEFAULT_PEERS)

    def count(self, full: int, quick: int) -> int:
        """How many of something."""
        return quick if self.quick else full
