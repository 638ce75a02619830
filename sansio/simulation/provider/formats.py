"""The seam between the mock provider and the wire format it speaks.

The provider knows requests, answers, limits and faults; a `Format` knows one company's paths, JSON and headers. OpenAI's
Chat Completions are in `openai_chat.py`; another provider's format is one more class with these methods, handed to
`MockProvider(formats=…)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .answers import Answer
from .provider_limiter import LimitView
from .response_plan import Data

Headers = tuple[tuple[str, str], ...]
"""Header fields in order, names in lower case."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a request asks for, in words that fit every format.

    prompt: the text of the last user message; markers in it steer the answer (`answers.py`).
    input_tokens: the size of all messages, by `answers.count_tokens`.
    max_output_tokens: the caller's limit, or ``None``. choices: how many answers (``n``).
    tools: the names of the functions on offer. tool_results: whether the conversation ends with the results of calls.
    """

    model: str
    prompt: str
    input_tokens: int = 1
    stream: bool = False
    include_usage: bool = False
    max_output_tokens: int | None = None
    choices: int = 1
    tools: tuple[str, ...] = ()
    tool_results: bool = False
    obfuscated: bool = True


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is an error: the status, and the words a format puts into its body."""

    status: int
    type: str
    code: str | None
    message: str
    param: str | None = None
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells one answer from the next: an id drawn from the seed, and the second it was made (Unix time)."""

    id: str
    created: int


class Format(Protocol):
    """One provider's wire format. Immutable; nothing here raises on what a client sent."""

    def serves(self, path: str) -> bool:
        """Whether ``path`` (without its query) is where this format's requests are posted."""
        ...

    def lists_models(self, path: str) -> bool:
        """Whether a GET of ``path`` asks for the models on offer."""
        ...

    def key(self, headers: Mapping[str, str]) -> str | None:
        """The credential in these header fields (lower-case names), or ``None``."""
        ...

    def parse(self, path: str, body: Any) -> Ask | Refusal:
        """What a JSON body asks for, or what is wrong with it."""
        ...

    def frames(self, ask: Ask, answer: Answer, stamp: Stamp) -> Iterator[Data]:
        """The events of a streamed answer, in order, each tagged with what it is."""
        ...

    def unary(self, ask: Ask, answer: Answer, stamp: Stamp) -> bytes:
        """The body of a whole answer."""
        ...

    def models(self, names: Sequence[str]) -> bytes:
        """The body that lists the models."""
        ...

    def error(self, refusal: Refusal) -> bytes:
        """The body of an error answer."""
        ...

    def error_frame(self, error: Mapping[str, Any]) -> bytes:
        """An error as an event inside a stream."""
        ...

    def done_frame(self) -> bytes:
        """The event that ends a stream, or ``b""`` where the format has none."""
        ...

    def headers(self, stamp: Stamp, limits: LimitView | None) -> Headers:
        """The header fields every answer carries: the request's id and, where limits are on, what is left of them."""
        ...

    def reset_headers(self, reset: str) -> Headers:
        """Header fields that say "nothing is left, come back after ``reset``" without a Retry-After."""
        ...
