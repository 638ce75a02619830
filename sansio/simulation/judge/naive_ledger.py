"""What was charged to a limiter, written down by hand: each charge at its time, until nobody can count it any more."""

from __future__ import annotations

from collections import deque
from typing import Final

from ...batch import TokenUsage
from ...rate_limit import RateLimits

_SLACK: Final = 1.001
"""A limiter may hold a charge this many times as long as it counts (its buckets of time)."""

_FIELDS: Final = ("requests_per_minute", "tokens_per_minute", "input_tokens_per_minute", "output_tokens_per_minute")


class NaiveCharge:
    """One attempt's charge. ``kept``: whether it is still in the log."""

    __slots__ = ("at", "input", "kept", "output", "requests")

    def __init__(self, at: float, input_tokens: int, output_tokens: int) -> None:
        self.at = at
        self.requests = 1
        self.input = input_tokens
        self.output = output_tokens
        self.kept = True


class NaiveLedger:
    """The charges of one group. ``sums`` are those of requests, tokens, input and output tokens over all that is kept: a
    little more than a window, so that they are never below what any window holds."""

    __slots__ = ("_burst", "_charges", "_kept_for", "_pace_span", "_paced", "_span", "limits", "sums")

    def __init__(self, limits: RateLimits) -> None:
        given: list[int | None] = [getattr(limits, field) for field in _FIELDS]
        self.limits = [(kind, limit) for kind, limit in enumerate(given) if limit is not None]
        """Which of the sums has which limit."""
        self.sums = [0, 0, 0, 0]
        self._charges: deque[NaiveCharge] = deque()
        self._span = limits.window + limits.delivery_guard
        self._kept_for = self._span * _SLACK + 1e-6
        self._paced: deque[NaiveCharge] | None = None
        self._pace_span, self._burst = 0.0, 0
        if limits.burst is not None and limits.requests_per_minute is not None:
            self._paced, self._burst = deque(), limits.burst
            self._pace_span = limits.window * limits.burst / limits.requests_per_minute

    def charge(self, now: float, input_tokens: int, output_tokens: int) -> NaiveCharge:
        """An attempt starts."""
        charge = NaiveCharge(now, input_tokens, output_tokens)
        self._charges.append(charge)
        self._add(1, input_tokens, output_tokens)
        if self._paced is not None:
            self._paced.append(charge)
        return charge

    def settle(self, charge: NaiveCharge, usage: TokenUsage | None) -> None:
        """What it really used takes the estimate's place, as if it had been known from the beginning. Unknown changes
        nothing, a lower bound only adds."""
        if usage is None or usage.provenance == "unknown":
            return
        known = usage.provenance == "lower_bound"
        least_input, least_output = (charge.input, charge.output) if known else (0, 0)
        self._edit(charge, 1, max(least_input, usage.input_tokens), max(least_output, usage.output_tokens))

    def give_back(self, charge: NaiveCharge) -> None:
        """Nothing was sent."""
        self._edit(charge, 0, 0, 0)

    def let_pass(self, now: float) -> None:
        """Forget what nobody counts any more."""
        charges = self._charges
        while charges and charges[0].at + self._kept_for <= now:
            gone = charges.popleft()
            gone.kept = False
            self._add(-gone.requests, -gone.input, -gone.output)

    def in_window(self, now: float) -> list[int]:
        """The sums over exactly the window that ends now."""
        sums = list(self.sums)
        for charge in self._charges:
            if charge.at + self._span > now:
                break
            for kind, amount in enumerate((charge.requests, charge.input + charge.output, charge.input, charge.output)):
                sums[kind] -= amount
        return sums

    def exceeded(self, now: float) -> str | None:
        """The limit that is overstepped, in words."""
        for kind, limit in self.limits:
            if self.sums[kind] > limit and (total := self.in_window(now)[kind]) > limit:
                return f"{total} in a window of {_FIELDS[kind]}={limit}"
        return None

    def outpaced(self, now: float) -> bool:
        """Whether more went at once than ``burst``."""
        if self._paced is None:
            return False
        while self._paced and self._paced[0].at + self._pace_span <= now:
            self._paced.popleft()
        return len(self._paced) > self._burst and sum(charge.requests for charge in self._paced) > self._burst

    def _edit(self, charge: NaiveCharge, requests: int, input_tokens: int, output_tokens: int) -> None:
        if charge.kept:
            self._add(requests - charge.requests, input_tokens - charge.input, output_tokens - charge.output)
        charge.requests, charge.input, charge.output = requests, input_tokens, output_tokens

    def _add(self, requests: int, input_tokens: int, output_tokens: int) -> None:
        sums = self.sums
        sums[0] += requests
        sums[1] += input_tokens + output_tokens
        sums[2] += input_tokens
        sums[3] += output_tokens
