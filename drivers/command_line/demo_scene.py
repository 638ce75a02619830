"""The scene of the demo: the prompts, a provider with its troubles, and the deployment that has to live with them.

The provider holds its own limits, which are lower than the client was told, and plays a script of faults in the order in
which requests reach it. The seed shuffles the troubles and the gaps between them; which ones come is always the same.
Everything takes fractions of what it takes in real life, so that a minute's story fits into seconds.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from sansio import Deployment, ExecuteBatch, Message, Secret
from sansio.simulation import (
    Break,
    CloseWithoutResponse,
    ErrorFrame,
    Fault,
    FaultScript,
    MockProvider,
    ProviderLimits,
    ResetAtByte,
    RotateKeys,
    StallAfterChunks,
    StallAfterHead,
    Status,
    Throttle,
    Truncate,
    expected_text,
)

MODEL: Final = "gpt-4o"
USERS: Final = 40
"""How many ask at the same time; each asks its prompts one after the other."""

SLOTS: Final = 16
"""How many attempts the deployment runs at once."""

OPEN_DURATION: Final = 0.5
"""Seconds for which the breaker stays open."""

_OLD_KEY, _NEW_KEY = "demo-key-before", "demo-key-after"
_VAULT_DELAY: Final = 0.3
_OUTAGE: Final = 7
"""Failures in a row: enough to open the breaker, and within what the retry budget allows at once (10)."""

_BEFORE_COMMIT: Final[tuple[Fault, ...]] = (
    ResetAtByte(0),
    StallAfterHead(),
    Status.html(502),
    Truncate(0),
    CloseWithoutResponse(),
    ErrorFrame(0),
    Break(0),
)
"""Nothing has reached the caller yet: each is retried."""

_AFTER_COMMIT: Final[tuple[Fault, ...]] = (Break(4), Truncate(5), StallAfterChunks(3), ErrorFrame(6))
"""Words have reached the caller: each ends in `StreamInterrupted`."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt, and how long its answer is."""

    text: str
    output_tokens: int

    @property
    def expected(self) -> str:
        """The one right answer: the provider makes it from the prompt alone."""
        return expected_text(self.text, self.output_tokens)

    def batch(self) -> ExecuteBatch:
        """The request for it."""
        return ExecuteBatch(messages=[Message(role="user", content=self.text)], max_output_tokens=self.output_tokens)


def make_prompts(count: int, seed: int) -> list[Prompt]:
    """``count`` prompts, no two alike."""
    rng = random.Random(seed)
    lengths = [rng.randint(8, 20) for _ in range(count)]
    return [Prompt(f"question {number} #tokens={length}", length) for number, length in enumerate(lengths, 1)]


def make_provider(prompts: int, seed: int) -> MockProvider:
    """A provider in trouble."""
    return MockProvider(
        faults=FaultScript(trouble(prompts, random.Random(seed))),
        keys={_OLD_KEY},
        limits=ProviderLimits(requests_per_minute=60, tokens_per_minute=1400, window=1.0),
        seed=seed,
        first_byte_delay=0.02,
        token_delay=0.012,
        log_size=20 * prompts + 1000,
    )


def trouble(prompts: int, rng: random.Random) -> list[Fault | None]:
    """What each request meets, in the order of arrival; ``None`` is an undisturbed one.

    The single faults lie far enough apart for the retry budget, which a fifth of the requests pays for. The outage comes
    right after a pause of the whole bucket: no stream runs any more, so its failures come in a row.
    """
    before = _shuffled(_BEFORE_COMMIT, max(1, prompts // 28), rng)
    after = _shuffled(_AFTER_COMMIT, max(1, prompts // 50), rng)
    single = _shuffled((*before, *after), len(before) + len(after), rng)
    first, second, third = (single[part::3] for part in range(3))
    gap = prompts / (len(single) + 7)
    script: list[Fault | None] = []

    def play(*faults: Fault) -> None:
        for fault in faults:
            script.extend([None] * round(gap * rng.uniform(0.8, 1.1)))
            script.append(fault)

    play(Throttle(retry_after="0.4"), *first)
    play(RotateKeys((_NEW_KEY,)), *second)
    play(Throttle(retry_after_ms="500"))
    script.extend([Status(503)] * _OUTAGE)
    play(*third)
    return script


def make_deployment(endpoint: str, secret: Secret) -> Deployment:
    """The deployment under test: every clock short, every protection on."""
    return Deployment(
        name="demo",
        model=MODEL,
        runtime="openai",
        runtime_config={
            "endpoint": endpoint,
            "api_key": secret,
            "rate_limits": {
                "requests_per_minute": 80,
                "tokens_per_minute": 2000,
                "window": 1.0,
                "delivery_guard": 0.05,
            },
            "retry": {"max_retries": 12, "initial_backoff": 0.1, "max_backoff": 1.0},
            "circuit_breaker": {"failure_threshold": 3, "open_duration": OPEN_DURATION},
            "timeouts": {"read_timeout": 1.0},
        },
        serving={"max_concurrent": SLOTS, "on_circuit_open": "wait"},
    )


class Vault:
    """Where the key is kept: whoever asks gets the one the provider takes now, after a moment.

    ``on_hand_out`` is called just before a key is handed out, in the thread or task that asked for it.
    """

    def __init__(self, provider: MockProvider, on_hand_out: Callable[[], None]) -> None:
        self._provider = provider
        self._on_hand_out = on_hand_out

    def secret(self) -> Secret:
        """For callers that block."""

        def fetch() -> str:
            time.sleep(_VAULT_DELAY)
            return self._current()

        return Secret.from_callable(fetch)

    def async_secret(self, sleep: Callable[[float], Awaitable[None]]) -> Secret:
        """For callers on an event loop, with that loop's ``sleep``."""

        async def fetch() -> str:
            await sleep(_VAULT_DELAY)
            return self._current()

        return Secret.from_callable(fetch)

    def _current(self) -> str:
        self._on_hand_out()
        rotated = any(isinstance(record.fault, RotateKeys) for record in self._provider.log)
        return _NEW_KEY if rotated else _OLD_KEY


def _shuffled(faults: tuple[Fault, ...], count: int, rng: random.Random) -> list[Fault]:
    """``count`` of these, each as often as any other (give or take one), in any order."""
    chosen = [faults[number % len(faults)] for number in range(count)]
    rng.shuffle(chosen)
    return chosen
