"""What the mock provider says: text made from the prompt alone, so that a test can tell whose answer it holds.

The answer to ``hello`` with four tokens is ``[hello] w1 w2 w3``: the prompt, then numbered words, one output token each.
A lost, doubled or swapped piece shows in the text. Markers in the prompt steer it:

- ``#tokens=N``: N output tokens; cut by the request's own limit, it finishes with ``length``.
- ``#tool`` or ``#tool=NAME``: a call of the first offered function (or of NAME), with the prompt as its argument; a
  conversation that ends with a call's result is answered in text.
- ``#refuse``: a refusal instead of content.
- ``#filter``: the text ends with ``content_filter``.

Or a test says itself what is answered (`Answers`), by prompt or by a function of its own.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from .formats import Ask

Answers: TypeAlias = "Mapping[str, str] | Callable[[Ask], str | None]"
"""What is answered: a text for each prompt, or a function of the request. ``None``, or a prompt that is not there: the text
made from the prompt. A scripted text is sent a word at a time, each an output token; markers in its prompt mean nothing."""

MAX_OUTPUT_TOKENS = 100_000
"""The longest answer a marker can ask for."""

_LONGEST_ID = 60
_TOKENS = re.compile(r"(?<!\S)#tokens=([0-9]{1,6})(?!\S)")
_TOOL = re.compile(r"(?<!\S)#tool(?:=([A-Za-z0-9_-]+))?(?!\S)")
_REFUSE = re.compile(r"(?<!\S)#refuse(?!\S)")
_FILTER = re.compile(r"(?<!\S)#filter(?!\S)")
_FRAGMENT = 8
_WORDS = re.compile(r"\S+\s*|\s+")

Finish = Literal["stop", "length", "tool_calls", "content_filter"]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of an answer's alternatives.

    tool: the function's name, where ``kind`` is ``"tool_call"``. script: the text, a token each, where a test has said it.
    """

    kind: Literal["text", "refusal", "tool_call"]
    label: str
    tokens: int
    finish: Finish
    tool: str = ""
    script: tuple[str, ...] | None = None

    def pieces(self) -> Iterator[str]:
        """Its text (or the arguments of its call), one output token at a time."""
        if self.script is not None:
            return iter(self.script[: self.tokens])
        if self.kind == "tool_call":
            arguments = _arguments(self.label)
            return (arguments[at * _FRAGMENT : (at + 1) * _FRAGMENT] for at in range(self.tokens))
        return (f" w{number}" if number else f"[{self.label}]" for number in range(self.tokens))

    @property
    def text(self) -> str:
        """All pieces joined."""
        return "".join(self.pieces())


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer and what it uses, in tokens."""

    choices: tuple[Choice, ...]
    input_tokens: int

    @property
    def output_tokens(self) -> int:
        """Of all choices together."""
        return sum(choice.tokens for choice in self.choices)

    @property
    def total_tokens(self) -> int:
        """Input and output together: what the limiter charges."""
        return self.input_tokens + self.output_tokens


def count_tokens(text: str) -> int:
    """The size of a prompt: a token for every four characters begun. A deliberate stand-in for a tokenizer."""
    return (len(text) + 3) // 4


def prompt_id(prompt: str) -> str:
    """What stands for a prompt in its answer and in the log: itself, or a beginning and a digest if it is long."""
    if len(prompt) <= _LONGEST_ID:
        return prompt
    digest = hashlib.sha256(prompt.encode("utf-8", "replace")).hexdigest()[:12]
    return f"{prompt[:40]}…{digest}"


def expected_text(prompt: str, output_tokens: int = 20, choice: int = 0) -> str:
    """The text of the answer to ``prompt``, for a test to compare with."""
    return Choice("text", _label(prompt, choice), output_tokens, "stop").text


def compose(ask: Ask, default_output_tokens: int, answers: Answers | None = None) -> Answer:
    """The answer to ``ask``."""
    text = None
    if answers is not None:
        text = answers(ask) if callable(answers) else answers.get(ask.prompt)
    if text is not None:
        if not isinstance(text, str):
            asked = prompt_id(ask.prompt)
            raise ValueError(f"answers: {asked!r} is answered with {text!r}; give a str, or None for the text made from it")
        return Answer((_scripted(ask, text),) * ask.choices, ask.input_tokens)
    return Answer(tuple(_choice(ask, default_output_tokens, index) for index in range(ask.choices)), ask.input_tokens)


def _scripted(ask: Ask, text: str) -> Choice:
    script = tuple(_WORDS.findall(text))
    tokens, cut = _limited(len(script), ask.max_output_tokens)
    return Choice("text", ask.prompt, tokens, "length" if cut else "stop", script=script)


def _choice(ask: Ask, default_output_tokens: int, index: int) -> Choice:
    label = _label(ask.prompt, index)
    call = _TOOL.search(ask.prompt)
    if call is not None and ask.tools and not ask.tool_results:
        needed = -(-len(_arguments(label)) // _FRAGMENT)
        tokens, cut = _limited(needed, ask.max_output_tokens)
        return Choice("tool_call", label, tokens, "length" if cut else "tool_calls", call[1] or ask.tools[0])
    asked = _TOKENS.search(ask.prompt)
    wanted = min(int(asked[1]), MAX_OUTPUT_TOKENS) if asked is not None else default_output_tokens
    tokens, cut = _limited(wanted, ask.max_output_tokens)
    if _REFUSE.search(ask.prompt):
        return Choice("refusal", label, tokens, "stop")
    if _FILTER.search(ask.prompt):
        return Choice("text", label, tokens, "content_filter")
    return Choice("text", label, tokens, "length" if cut else "stop")


def _limited(wanted: int, limit: int | None) -> tuple[int, bool]:
    return (wanted, False) if limit is None or wanted <= limit else (limit, True)


def _label(prompt: str, choice: int) -> str:
    return f"{prompt_id(prompt)}/{choice}" if choice else prompt_id(prompt)


def _arguments(label: str) -> str:
    return json.dumps({"prompt": label}, ensure_ascii=False)
