"""How many tokens a request may come to, from its size: what is reserved before it is sent. No tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..batch import ExecuteBatch, ImagePart, TextPart, TokenEstimate

DEFAULT_OUTPUT_TOKENS: Final = 1024
"""The output a request without a limit is expected to use, for each answer it asks for."""

_IMAGE_TOKENS: Final = 1000
"""About what one image costs: a square picture of 1,024 pixels in high detail is 765 tokens, with ``detail: "low"`` 85."""

_MESSAGE_TOKENS: Final = 4
"""What role and delimiters add to each message, and to the start of the answer."""


def estimate_tokens(batch: ExecuteBatch, *, limit: int | None, choices: int = 1) -> TokenEstimate:
    """About a token for four bytes of text, a few for each message, and a flat thousand for each image.

    limit: of the output, for each of ``choices`` answers; ``None``: `DEFAULT_OUTPUT_TOKENS`, which is a guess.
    """
    bytes_of_text, images = 0, 0
    for message in batch.messages:
        if isinstance(message.content, str):
            bytes_of_text += _length(message.content)
        else:
            images += sum(isinstance(part, ImagePart) for part in message.content)
            bytes_of_text += sum(_length(part.text) for part in message.content if isinstance(part, TextPart))
        bytes_of_text += sum(_length(call.name) + _length(call.arguments) for call in message.tool_calls)
        bytes_of_text += sum(_length(thought.text) for thought in message.thoughts)
    for tool in batch.tools:
        bytes_of_text += _length(tool.name) + _length(tool.description) + _length(repr(tool.parameters))
    if isinstance(batch.response_format, Mapping):
        bytes_of_text += _length(repr(batch.response_format))
    overhead = _MESSAGE_TOKENS * (len(batch.messages) + 1)
    return TokenEstimate(
        input_tokens=-(-bytes_of_text // 4) + overhead + images * _IMAGE_TOKENS,
        output_tokens=(DEFAULT_OUTPUT_TOKENS if limit is None else limit) * choices,
        output_is_limit=limit is not None,
    )


def first_count(*values: object) -> int | None:
    """The first that is a whole number above 0. ``extra`` holds whatever somebody put there."""
    return next((value for value in values if type(value) is int and value > 0), None)


def _length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
