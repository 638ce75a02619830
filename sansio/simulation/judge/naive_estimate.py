"""What a request has to reserve, reckoned anew each time: its own limit, or what nearly all answers have stayed within."""

from __future__ import annotations

from collections import deque
from typing import Final

from ...events import AddRequest
from ...rate_limit import RateLimits

_UNTIL_KNOWN: Final = 1024
"""Output tokens: no less is reserved until `_ENOUGH` answers were seen."""

_ENOUGH: Final = 20
_LOOKS_BACK: Final = 512
_OF_A_HUNDRED: Final = 95


class NaiveEstimate:
    """One deployment: how long its answers were, as far back as anybody looks."""

    __slots__ = ("_limits", "_outputs", "_usual")

    def __init__(self, limits: RateLimits) -> None:
        self._limits = limits
        self._outputs: deque[int] = deque(maxlen=_LOOKS_BACK)
        self._usual: int | None = _UNTIL_KNOWN

    def answered(self, output_tokens: int) -> None:
        """A whole answer came, of this length."""
        self._outputs.append(output_tokens)
        self._usual = None

    def of(self, add: AddRequest) -> tuple[int, int]:
        """The input and output tokens that a request needs now."""
        asked = add.estimate
        if asked.output_is_limit or add.batch.max_output_tokens is not None:
            return asked.input_tokens, asked.output_tokens
        if self._usual is None:
            self._usual = self._reckoned()
        output, limits = self._usual, self._limits
        if limits.output_tokens_per_minute is not None:
            output = min(output, limits.output_tokens_per_minute)
        if limits.tokens_per_minute is not None:
            output = min(output, max(0, limits.tokens_per_minute - asked.input_tokens))
        return asked.input_tokens, output

    def _reckoned(self) -> int:
        """The smallest length that at least 95 of a hundred answers do not exceed."""
        count = len(self._outputs)
        within = sorted(self._outputs)[(count * _OF_A_HUNDRED + 99) // 100 - 1]
        return within if count >= _ENOUGH else max(within, _UNTIL_KNOWN)
