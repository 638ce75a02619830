"""The providers by name. One file each; a provider of somebody else's needs no entry here, its codec is passed as it is."""

from __future__ import annotations

import difflib
from dataclasses import fields
from typing import Any, Final

from ..codec import ProviderCodec
from .anthropic import AnthropicMessages
from .azure import AzureChat, AzureResponses
from .gemini import Gemini
from .litellm import LiteLLMChat
from .openai import OpenAIChat
from .openai_responses import OpenAIResponses

_CODECS: Final[dict[str, type[Any]]] = {
    "openai": OpenAIChat,
    "openai_responses": OpenAIResponses,
    "azure": AzureChat,
    "azure_responses": AzureResponses,
    "anthropic": AnthropicMessages,
    "gemini": Gemini,
    "litellm": LiteLLMChat,
}
"""Each is a dataclass whose fields are its options."""


def options_of(name: str) -> list[str]:
    """What the codec of a provider can be given. Raises `ValueError` for an unknown name, with the nearest known."""
    if name not in _CODECS:
        raise ValueError(f"provider: {name!r} is unknown; {_nearest(name, list(_CODECS))}")
    return [field.name for field in fields(_CODECS[name])]


def codec(name: str, **config: Any) -> ProviderCodec:
    """The codec of a provider, configured. Raises `ValueError` for an unknown name or option, with the nearest known."""
    options = options_of(name)
    for option in config:
        if option not in options:
            raise ValueError(f"{name}: {option!r} is no option; {_nearest(option, options)}")
    made: ProviderCodec = _CODECS[name](**config)
    return made


def _nearest(word: str, known: list[str]) -> str:
    (near,) = difflib.get_close_matches(word, known, 1, 0.0)
    return f"did you mean {near!r}? Known: {', '.join(sorted(known))}"
