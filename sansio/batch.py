"""The one vocabulary over all providers: what is asked (`ExecuteBatch`) and what comes back (`TokenChunk`, `Tokens`).

`TokenChunk` is made once per provider delta, so it is a msgspec struct (a tenth of a frozen dataclass' construction time);
everything else here is per request.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, cast, get_args

import msgspec

Role = Literal["system", "developer", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "continue", "error", "unknown"]
"""Why a choice ended, normalised; the provider's own word stays beside it (``raw_finish_reason``)."""

CacheLifetime = Literal["short", "long"]
"""How long a prompt is kept in a provider's cache: its shortest lifetime (Anthropic: 5 minutes) or the longer (an hour)."""

Provenance = Literal["exact", "lower_bound", "unknown"]
"""How well a usage is known: as reported at the end, as far as reported before a break, or not at all."""


@dataclass(frozen=True, slots=True)
class TextPart:
    """Text inside a message with several parts."""

    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    """An image by URL (``https:`` or ``data:``). ``detail`` is the provider's word for the resolution, if any."""

    url: str
    detail: str | None = None


ContentPart = TextPart | ImagePart
"""What a message with several parts is made of."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call the model asks for. ``arguments`` is the JSON text as the model wrote it, not parsed.

    signature: opaque; a provider that gave one (Gemini) wants it back with the call.
    """

    id: str
    name: str
    arguments: str
    signature: str = ""


@dataclass(frozen=True, slots=True)
class Thought:
    """A part of the model's reasoning that its provider wants back, unchanged, when the conversation goes on.

    text: as far as it is shown. signature: opaque, proves or holds the rest. id: the provider's name for it, if any.
    redacted: the signature holds all of it. (Anthropic: thinking blocks; Responses: reasoning items; Gemini: thought
    signatures.)
    """

    text: str = ""
    signature: str = ""
    id: str = ""
    redacted: bool = False


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call. ``parameters`` is a JSON Schema."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. ``tool_call_id`` and ``is_error`` (the tool failed) belong to a ``tool`` message;
    ``tool_calls``, ``refusal`` and ``thoughts`` to an ``assistant`` one (`Tokens.message` makes it of an answer).

    cache: a hint, for how long to keep the prompt up to the end of this message in the provider's cache. Providers that
    cache by themselves, or under a name (`ExecuteBatch.cache_key`), do not hear it.

    A content of ``None`` beside a call or a refusal, as providers send it, is taken for ``""``. Raises `ValueError` for any
    other content that is neither text nor a list of parts, and for a field of another type, naming it.
    """

    role: Role
    content: str | Sequence[ContentPart] = ""
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: Sequence[ToolCall] = ()
    refusal: str | None = None
    thoughts: Sequence[Thought] = ()
    is_error: bool = False
    cache: CacheLifetime | None = None

    def __post_init__(self) -> None:
        _check_list("tool_calls", self.tool_calls, ToolCall, "ToolCall(id=…, name=…, arguments=…)")
        _check_list("thoughts", self.thoughts, Thought, "Thought(text=…, signature=…)")
        if self.cache not in (None, *get_args(CacheLifetime)):
            raise ValueError(f"cache: {self.cache!r} is none of {', '.join(get_args(CacheLifetime))}, None")
        if not isinstance(self.is_error, bool):
            raise ValueError(f"is_error: {self.is_error!r} is neither True nor False")
        if self.content is None and (self.tool_calls or self.refusal):
            object.__setattr__(self, "content", "")
        if not isinstance(self.content, (str, Sequence)) or isinstance(self.content, (bytes, bytearray, memoryview)):
            raise ValueError(f"content: {type(self.content).__name__} is neither a str nor a list of TextPart and ImagePart")


@dataclass(frozen=True, slots=True)
class ExecuteBatch:
    """One request to a model, in words that fit every provider.

    ``max_output_tokens`` counts reasoning too. ``response_format`` is ``"text"``, ``"json_object"`` or a JSON Schema
    mapping. ``reasoning_effort`` is the provider's word for it. ``cache_key`` groups requests whose prompts begin alike, for
    providers that cache by such a name. ``extra`` is passed through to the provider's body untouched and wins over what the
    codec wrote.
    Raises `ValueError`, naming the field, for no messages, a number out of range, or what is of another type.
    """

    messages: Sequence[Message]
    tools: Sequence[Tool] = ()
    tool_choice: str | None = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: Sequence[str] = ()
    seed: int | None = None
    response_format: str | Mapping[str, Any] | None = None
    reasoning_effort: str | None = None
    cache_key: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        if not self.messages:
            raise ValueError("messages: is empty; give at least one Message")
        _check_list("messages", self.messages, Message, "Message(role=…, content=…)")
        _check_list("tools", self.tools, Tool, "Tool(name=…)")
        if isinstance(self.stop, str):  # a sequence of its characters, which nobody means
            raise ValueError(f"stop: {self.stop!r} is one str; write stop=({self.stop!r},)")
        _check_list("stop", self.stop, str, "stop=('…',)")
        for name in ("metadata", "extra"):
            if not isinstance(value := getattr(self, name), Mapping):
                raise ValueError(f"{name}: {type(value).__name__} is not a mapping; leave it out or give a dict")
        for name in ("max_output_tokens", "seed"):
            if (number := getattr(self, name)) is not None and type(number) is not int:
                raise ValueError(f"{name}: {number!r} is not a whole number; leave it out for the provider's own")
        _check_number("max_output_tokens", self.max_output_tokens, lowest=1)
        _check_number("temperature", self.temperature, lowest=0)
        _check_number("top_p", self.top_p, lowest=0, highest=1)


def _check_list(name: str, values: object, of: type, remedy: str) -> None:
    """Refuse what cannot be read twice, for the estimate and on the wire, and what holds anything else."""
    if not isinstance(values, Sequence):
        raise ValueError(f"{name}: {type(values).__name__} is not a list or tuple; leave it out or give one")
    for value in cast("Sequence[object]", values):
        if not isinstance(value, of):
            raise ValueError(f"{name}: {type(value).__name__} is not a {of.__name__}; write {remedy}")


def _check_number(name: str, value: object, *, lowest: int, highest: float = math.inf) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not (isinstance(value, (int, float)) and lowest <= value <= highest and value < math.inf):
        reach = f"from {lowest} to {highest}; leave it out for the provider's own"
        raise ValueError(f"{name}: {value!r} is not a number {reach}")


@dataclass(frozen=True, slots=True)
class TokenEstimate:
    """What a request is expected to use, before it is sent: what the limiter and the budget reserve.

    ``output_is_limit``: the output is what the request is limited to, all its choices together, and not the codec's guess. A
    guess yields to what the deployment's answers have used of late.
    """

    input_tokens: int
    output_tokens: int
    output_is_limit: bool = False


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """What one attempt used, in tokens.

    input_tokens: the whole prompt, cached parts included.
    cached_input_tokens: the part of it read from a cache. cache_write_tokens: the part written to one, of which
    cache_write_long_tokens for its longer lifetime.
    output_tokens: everything billed as output, reasoning included. reasoning_tokens: the part of it that is reasoning.
    service_tier: the provider's word for the tier that served it, such as ``"flex"``; empty where it does not say.
    cost_usd: what the provider says it cost, in US dollars; ``None`` where it does not say.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    provenance: Provenance = "exact"
    cache_write_long_tokens: int = 0
    service_tier: str = ""
    cost_usd: float | None = None

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values. What few providers say is left out where it was not said."""
        said = {name: getattr(self, name) for name in self.__slots__}
        for name, unsaid in (("cache_write_long_tokens", 0), ("service_tier", ""), ("cost_usd", None)):
            if said[name] == unsaid:
                del said[name]
        return said

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> TokenUsage:
        """The inverse of `to_dict`."""
        return TokenUsage(**data)


class ToolCallDelta(msgspec.Struct, frozen=True, gc=False):
    """A fragment of a tool call. ``id``, ``name``, ``signature`` come in one fragment; join ``arguments`` by ``index``."""

    index: int = 0
    id: str = ""
    name: str = ""
    arguments: str = ""
    signature: str = ""


class TokenChunk(msgspec.Struct, frozen=True, gc=False):
    """One delta of the provider, never merged with another.

    ``index`` is the choice. ``finish_reason`` is set in a choice's last chunk, ``usage`` in the chunk that carries it,
    ``thought`` in the one that ends a part of the reasoning.
    """

    text_delta: str = ""
    reasoning_delta: str = ""
    refusal_delta: str = ""
    tool_call_deltas: tuple[ToolCallDelta, ...] = ()
    index: int = 0
    finish_reason: FinishReason | None = None
    raw_finish_reason: str | None = None
    usage: TokenUsage | None = None
    thought: Thought | None = None

    @property
    def has_content(self) -> bool:
        """Whether this chunk commits its attempt: text, reasoning, refusal or a tool call's delta."""
        return bool(self.text_delta or self.reasoning_delta or self.refusal_delta or self.tool_call_deltas)


@dataclass(frozen=True, slots=True)
class Tokens:
    """An answer as a whole: the fold of its chunks. ``usage`` is ``None`` where it is unknown (never zero by default).

    With several choices, ``text``, ``tool_calls`` and the rest are those of choice 0 and ``others`` holds the rest.
    """

    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason | None = None
    raw_finish_reason: str | None = None
    usage: TokenUsage | None = None
    others: tuple[Tokens, ...] = ()
    thoughts: tuple[Thought, ...] = ()

    def __str__(self) -> str:
        return self.text

    def message(self) -> Message:
        """This answer as the assistant's turn, to go on with."""
        return Message(
            "assistant", self.text, tool_calls=self.tool_calls, refusal=self.refusal or None, thoughts=self.thoughts
        )

    @staticmethod
    def from_chunks(chunks: Iterable[TokenChunk]) -> Tokens:
        """Fold chunks, in order."""
        builder = TokensBuilder()
        builder.add(chunks)
        return builder.build()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        out: dict[str, Any] = {"text": self.text}
        for name, default in (("reasoning", ""), ("refusal", ""), ("finish_reason", None), ("raw_finish_reason", None)):
            if (value := getattr(self, name)) != default:
                out[name] = value
        if self.tool_calls:
            out["tool_calls"] = [_plain(call) for call in self.tool_calls]
        if self.thoughts:
            out["thoughts"] = [_plain(thought) for thought in self.thoughts]
        if self.usage is not None:
            out["usage"] = self.usage.to_dict()
        if self.others:
            out["others"] = [other.to_dict() for other in self.others]
        return out

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Tokens:
        """The inverse of `to_dict`."""
        rest = dict(data)
        usage = rest.pop("usage", None)
        calls = tuple(ToolCall(**call) for call in rest.pop("tool_calls", ()))
        others = tuple(Tokens.from_dict(other) for other in rest.pop("others", ()))
        thoughts = tuple(Thought(**thought) for thought in rest.pop("thoughts", ()))
        known = None if usage is None else TokenUsage.from_dict(usage)
        return Tokens(**rest, tool_calls=calls, usage=known, others=others, thoughts=thoughts)


def _plain(value: ToolCall | Thought) -> dict[str, Any]:
    """The fields that say something."""
    return {each.name: said for each in fields(value) if (said := getattr(value, each.name)) != each.default}


_LOOSE_DELTAS: Final = 32
"""About how many deltas are kept as they came before they are joined: a short string takes ten times its text."""

_BLOCK_CHARS: Final = 1024
"""What is joined to so many characters is not joined again, which keeps the work linear."""


class _Call:
    __slots__ = ("arguments", "id", "name", "signature")

    def __init__(self) -> None:
        self.id = self.name = self.signature = ""
        self.arguments: list[str] = []


class _Choice:
    __slots__ = ("calls", "finish_reason", "raw_finish_reason", "reasoning", "refusal", "text", "thoughts")

    def __init__(self) -> None:
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.refusal: list[str] = []
        self.calls: dict[int, _Call] = {}
        self.thoughts: list[Thought] = []
        self.finish_reason: FinishReason | None = None
        self.raw_finish_reason: str | None = None


class TokensBuilder:
    """Folds chunks as they come. Adding one is cheap; what is held is little more than the text."""

    __slots__ = ("_choices", "_usage")

    def __init__(self) -> None:
        self._choices: dict[int, _Choice] = {}
        self._usage: TokenUsage | None = None

    def add(self, chunks: Iterable[TokenChunk]) -> None:
        """Take the next chunks, in order."""
        for chunk in chunks:
            choice = self._choices.get(chunk.index)
            if choice is None:
                choice = self._choices[chunk.index] = _Choice()
            if chunk.text_delta:  # `_append` by hand: nearly every chunk comes by here
                texts = choice.text
                texts.append(chunk.text_delta)
                if len(texts) % _LOOSE_DELTAS == 0:
                    _join_end(texts)
            if chunk.reasoning_delta:
                _append(choice.reasoning, chunk.reasoning_delta)
            if chunk.refusal_delta:
                _append(choice.refusal, chunk.refusal_delta)
            for delta in chunk.tool_call_deltas:
                call = choice.calls.get(delta.index)
                if call is None:
                    call = choice.calls[delta.index] = _Call()
                call.id, call.name = call.id or delta.id, call.name or delta.name
                call.signature = call.signature or delta.signature
                _append(call.arguments, delta.arguments)
            if chunk.thought is not None:
                choice.thoughts.append(chunk.thought)
            if chunk.finish_reason is not None:
                choice.finish_reason, choice.raw_finish_reason = chunk.finish_reason, chunk.raw_finish_reason
            if chunk.usage is not None:
                self._usage = chunk.usage

    def build(self) -> Tokens:
        """The answer so far."""
        whole = [self._tokens(choice) for _, choice in sorted(self._choices.items())]
        first = whole[0] if whole else Tokens()
        return Tokens(
            first.text, first.reasoning, first.refusal, first.tool_calls,
            first.finish_reason, first.raw_finish_reason, self._usage, tuple(whole[1:]), first.thoughts,
        )  # fmt: skip

    @staticmethod
    def _tokens(choice: _Choice) -> Tokens:
        calls = tuple(
            ToolCall(call.id, call.name, "".join(call.arguments), call.signature) for _, call in sorted(choice.calls.items())
        )
        return Tokens(
            "".join(choice.text), "".join(choice.reasoning), "".join(choice.refusal), calls,
            choice.finish_reason, choice.raw_finish_reason, thoughts=tuple(choice.thoughts),
        )  # fmt: skip


def _append(deltas: list[str], delta: str) -> None:
    deltas.append(delta)
    if len(deltas) % _LOOSE_DELTAS == 0:
        _join_end(deltas)


def _join_end(deltas: list[str]) -> None:
    """Joins the short strings at the end to one."""
    start = len(deltas)
    while start and len(deltas[start - 1]) < _BLOCK_CHARS:
        start -= 1
    deltas[start:] = ["".join(deltas[start:])]
