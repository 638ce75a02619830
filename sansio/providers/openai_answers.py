"""Answers in the format of Chat Completions: the frames of a stream, or a whole body, become chunks.

JSON is decoded straight into the few fields that matter (0.3 µs an event where reading all of it takes ten times as long).
Where a dialect puts another type in one of them, that one event is read again without expectations.

Source: https://developers.openai.com/api/reference/resources/chat; the fields of others are named where they stand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from ..batch import FinishReason, TokenChunk, TokenUsage, ToolCallDelta
from ..errors import InferenceError, ProtocolError
from ..scrub import excerpt
from ..sse import SseChunk
from .lenient_json import as_dict, as_int, as_str, dumps, is_array, is_object, loads, objects
from .openai_errors import in_band_error

# ---------------------------------------------------------------------------------------------------------------------
# What is read of the wire format. Anything else is skipped without being built.


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None
    input: str | None = None  # custom tools take text, not arguments


class _Call(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None
    custom: _Function | None = None


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None  # DeepSeek, vLLM
    reasoning: str | None = None  # OpenRouter, Groq
    refusal: str | None = None
    tool_calls: list[_Call] | None = None
    function_call: _Function | None = None  # what tool calls were before there were tools


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta | None = None
    message: _Delta | None = None  # in a unary answer
    index: int = 0
    finish_reason: str | None = None


class _WriteDetails(msgspec.Struct, gc=False):
    ttl_12h_tokens: int | None = None


class _PromptDetails(msgspec.Struct, gc=False):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_tokens_details: _WriteDetails | None = None


class _CompletionDetails(msgspec.Struct, gc=False):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None
    prompt_cache_hit_tokens: int | None = None  # DeepSeek


class _Groq(msgspec.Struct, gc=False):
    usage: _Usage | None = None
    error: Any = None


class _Frame(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None
    x_groq: _Groq | None = None


class _Tier(msgspec.Struct, gc=False):
    """Every frame of OpenAI's says it. It is read where there is a usage, to go with that."""

    service_tier: str | None = None


_decode_frame: Final = msgspec.json.Decoder(_Frame).decode
_decode_tier: Final = msgspec.json.Decoder(_Tier).decode
_NOT_AS_EXPECTED: Final = (msgspec.MsgspecError, ValueError, RecursionError)
_NOTHING: Final = _Delta()
_NO_FUNCTION: Final = _Function()

_LARGEST_COUNT: Final = 2**53
"""No real count of tokens comes near; above it, arithmetic with prices could overflow."""

_FINISH_REASONS: Final[Mapping[str, FinishReason]] = {
    "stop": "stop",
    "eos": "stop",  # Together
    "length": "length",
    "model_length": "length",  # Mistral
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "error": "error",  # Mistral, Together, OpenRouter
}


# ---------------------------------------------------------------------------------------------------------------------
# Frames to chunks


class ChatStreamDecoder:
    """Decodes the events of one stream. See `sansio.codec.StreamDecoder` for what its attributes mean.

    ``complete`` once as many choices as were asked for (``choices``) have a finish reason; an error frame takes it back.
    Choices beyond those, which nobody asked for, are left out: the text of one answer never mixes with that of another.
    ``terminal`` at ``[DONE]``, which proves nothing: LiteLLM sends it after an error too. Nothing after an error or
    ``[DONE]`` is decoded.
    """

    __slots__ = ("_call_ids", "_choices", "_ended", "_provider", "complete", "error", "terminal", "usage")

    def __init__(self, provider: str = "openai", choices: int = 1) -> None:
        self.error: InferenceError | None = None
        self.complete = False
        self.terminal = False
        self.usage: TokenUsage | None = None
        self._provider = provider
        self._choices = choices
        self._ended: dict[int, bool] = {}
        self._call_ids: dict[int, list[str]] = {}

    def decode(self, events: Sequence[SseChunk]) -> list[TokenChunk]:
        """The chunks of these events: one per choice and frame that says something, in order."""
        chunks: list[TokenChunk] = []
        for event in events:
            if self.terminal or self.error is not None:
                break
            try:
                frame = _decode_frame(event.data)
            except _NOT_AS_EXPECTED:
                again = self._read_again(event.data)
                if again is None:
                    break
                frame = again
            if frame.usage is None and frame.error is None and frame.x_groq is None and frame.choices:
                for choice in frame.choices:
                    self._take(choice, chunks)
            else:
                self._take_special(frame, event, chunks)
        return chunks

    def _take(self, choice: _Choice, chunks: list[TokenChunk]) -> None:
        """Append the chunk of one choice, unless it says nothing (a role alone, a filter's annotation)."""
        index, finish, delta = choice.index, choice.finish_reason or None, choice.delta or _NOTHING
        if index not in self._ended:
            if len(self._ended) >= self._choices:
                return
            self._ended[index] = False
        text, reasoning, refusal = delta.content or "", delta.reasoning_content or delta.reasoning or "", delta.refusal or ""
        calls: tuple[ToolCallDelta, ...] = ()
        if delta.tool_calls or delta.function_call is not None:
            calls = tuple(_call_delta(call, self._call_index(index, call)) for call in _calls(delta))
        if finish is not None:
            self._ended[index] = True
            self.complete = len(self._ended) == self._choices and all(self._ended.values())
            chunks.append(TokenChunk(text, reasoning, refusal, calls, index, _FINISH_REASONS.get(finish, "unknown"), finish))
        elif text or reasoning or refusal or calls:
            chunks.append(TokenChunk(text, reasoning, refusal, calls, index))

    def _take_special(self, frame: _Frame, event: SseChunk, chunks: list[TokenChunk]) -> None:
        """A frame with a usage, with an error, or without choices."""
        groq = frame.x_groq or _Groq()
        if (usage := _token_usage(frame.usage or groq.usage, event.data)) is not None:
            self.usage = usage
        if frame.error or groq.error or (not frame.choices and _is_bare_error(event)):
            self.complete = False
            self.error = in_band_error(self._provider, event.data)
            return
        before = len(chunks)
        for choice in frame.choices or ():
            self._take(choice, chunks)
        if usage is not None:
            last = chunks.pop() if len(chunks) > before else TokenChunk()
            chunks.append(msgspec.structs.replace(last, usage=usage))

    def _read_again(self, data: str) -> _Frame | None:
        """An event that is not what was expected: read without expectations, or ``None`` for the end or for garbage."""
        if data.strip() == "[DONE]":
            self.terminal = True
            return None
        frame = _lenient_frame(data)
        if frame is None:
            self.error = garbled(self._provider, data)
        return frame

    def _call_index(self, choice: int, call: _Call) -> int:
        """Which call a fragment belongs to. Where no index is sent, a new id opens the next call."""
        if call.index is not None:
            return call.index
        ids = self._call_ids.setdefault(choice, [])
        if not ids or (call.id and call.id != ids[-1]):
            ids.append(call.id or "")
        return len(ids) - 1


def decode_answer(provider: str, body: bytes) -> list[TokenChunk] | InferenceError:
    """A unary answer: one chunk per choice, the usage on the first; or the error in it, or that it is no answer at all."""
    frame: _Frame | None
    try:
        frame = _decode_frame(body)
    except _NOT_AS_EXPECTED:
        frame = _lenient_frame(body)
    if frame is not None and frame.error:
        return in_band_error(provider, body)
    if frame is None or not frame.choices:
        return garbled(provider, body)
    chunks = [_whole_chunk(choice) for choice in frame.choices]
    chunks[0] = msgspec.structs.replace(chunks[0], usage=_token_usage(frame.usage, body))
    return chunks


def _whole_chunk(choice: _Choice) -> TokenChunk:
    delta, finish = choice.message or choice.delta or _NOTHING, choice.finish_reason or None
    return TokenChunk(
        text_delta=delta.content or "",
        reasoning_delta=delta.reasoning_content or delta.reasoning or "",
        refusal_delta=delta.refusal or "",
        tool_call_deltas=tuple(_call_delta(call, position) for position, call in enumerate(_calls(delta))),
        index=choice.index,
        finish_reason=None if finish is None else _FINISH_REASONS.get(finish, "unknown"),
        raw_finish_reason=finish,
    )


def _is_bare_error(event: SseChunk) -> bool:
    """An error frame without an ``error`` field: named so by its event, or by its ``object`` (Mistral, vLLM)."""
    return event.event == "error" or as_dict(loads(event.data)).get("object") == "error"


def _calls(delta: _Delta) -> list[_Call]:
    if delta.tool_calls:
        return delta.tool_calls
    return [] if delta.function_call is None else [_Call(0, None, delta.function_call)]


def _call_delta(call: _Call, index: int) -> ToolCallDelta:
    function = call.function or call.custom or _NO_FUNCTION
    return ToolCallDelta(index, call.id or "", function.name or "", function.arguments or function.input or "")


def _token_usage(usage: _Usage | None, data: str | bytes) -> TokenUsage | None:
    """``None`` where there are no counts; a lower bound where one of the two cannot be told. data: what they stand in."""
    if usage is None:
        return None
    prompt, completion = from_total(usage.prompt_tokens, usage.completion_tokens, usage.total_tokens)
    if prompt is None and completion is None:
        return None
    of_prompt = usage.prompt_tokens_details or _PromptDetails()
    of_completion = usage.completion_tokens_details or _CompletionDetails()
    of_writes = of_prompt.cache_write_tokens_details or _WriteDetails()
    return TokenUsage(
        input_tokens=token_count(prompt),
        output_tokens=token_count(completion),
        cached_input_tokens=token_count(of_prompt.cached_tokens or usage.prompt_cache_hit_tokens),
        cache_write_tokens=token_count(of_prompt.cache_write_tokens),
        cache_write_long_tokens=token_count(of_writes.ttl_12h_tokens),
        reasoning_tokens=token_count(of_completion.reasoning_tokens),
        service_tier=_tier(data),
        provenance="lower_bound" if prompt is None or completion is None else "exact",
    )


def _tier(data: str | bytes) -> str:
    try:
        return _decode_tier(data).service_tier or ""
    except _NOT_AS_EXPECTED:
        return as_str(as_dict(loads(data)).get("service_tier"))


def from_total(prompt: int | None, completion: int | None, total: int | None) -> tuple[int | None, int | None]:
    """The two counts, the one that was left out from the total where that was not."""
    if total is not None and prompt is None and completion is not None:
        prompt = total - completion
    elif total is not None and completion is None and prompt is not None:
        completion = total - prompt
    return prompt, completion


def token_count(value: int | None) -> int:
    """A count as it can be reckoned with: none is 0, and so is less; the largest is far above any that is real."""
    return min(max(0, value or 0), _LARGEST_COUNT)


def garbled(provider: str, data: str | bytes) -> ProtocolError:
    """An answer that is none. Bytes may be lost or mixed up on one way and not on the next: worth a second try."""
    return ProtocolError("the answer is not what was asked for", provider=provider, body=excerpt(data), retryable=True)


# ---------------------------------------------------------------------------------------------------------------------
# The same frames, read without expectations


def _lenient_frame(data: str | bytes) -> _Frame | None:
    """The frame in ``data``, without the fields of unexpected types; ``None`` if it is not a JSON object."""
    tree = loads(data)
    if not is_object(tree):
        return None
    groq = as_dict(tree.get("x_groq"))
    return _Frame(
        choices=[_lenient_choice(choice) for choice in objects(tree.get("choices"))],
        usage=_lenient_usage(tree.get("usage")),
        error=tree.get("error"),
        x_groq=_Groq(_lenient_usage(groq.get("usage")), groq.get("error")) if groq else None,
    )


def _lenient_choice(tree: dict[str, Any]) -> _Choice:
    return _Choice(
        delta=_lenient_delta(tree.get("delta")),
        message=_lenient_delta(tree.get("message")),
        index=as_int(tree.get("index")) or 0,
        finish_reason=as_str(tree.get("finish_reason")),
    )


def _lenient_delta(tree: object) -> _Delta | None:
    if not is_object(tree):
        return None
    content, thinking = _text_and_thinking(tree.get("content"))
    return _Delta(
        content=content,
        reasoning_content=as_str(tree.get("reasoning_content")) or thinking,
        reasoning=as_str(tree.get("reasoning")),
        refusal=as_str(tree.get("refusal")),
        tool_calls=[_lenient_call(call) for call in objects(tree.get("tool_calls"))],
        function_call=_lenient_function(tree.get("function_call")),
    )


def _text_and_thinking(content: object) -> tuple[str, str]:
    """Mistral sends a list of parts where others send a string: texts, and thinking that holds texts in turn."""
    if not is_array(content):
        return as_str(content), ""
    text, thinking = "", ""
    for part in objects(content):
        if part.get("type") == "thinking":
            thoughts = part.get("thinking")
            thinking += as_str(thoughts) + "".join(as_str(thought.get("text")) for thought in objects(thoughts))
        else:
            text += as_str(part.get("text"))
    return text, thinking


def _lenient_call(tree: dict[str, Any]) -> _Call:
    function, custom = _lenient_function(tree.get("function")), _lenient_function(tree.get("custom"))
    return _Call(as_int(tree.get("index")), as_str(tree.get("id")), function, custom)


def _lenient_function(tree: object) -> _Function | None:
    if not is_object(tree):
        return None
    arguments = tree.get("arguments")
    # Parsed already: some servers mean well.
    text = dumps(arguments) if is_object(arguments) else as_str(arguments)
    return _Function(as_str(tree.get("name")), text, as_str(tree.get("input")))


def _lenient_usage(tree: object) -> _Usage | None:
    if not is_object(tree):
        return None
    of_prompt = as_dict(tree.get("prompt_tokens_details"))
    cached, written = as_int(of_prompt.get("cached_tokens")), as_int(of_prompt.get("cache_write_tokens"))
    written_long = as_int(as_dict(of_prompt.get("cache_write_tokens_details")).get("ttl_12h_tokens"))
    reasoning = as_int(as_dict(tree.get("completion_tokens_details")).get("reasoning_tokens"))
    return _Usage(
        prompt_tokens=as_int(tree.get("prompt_tokens")),
        completion_tokens=as_int(tree.get("completion_tokens")),
        total_tokens=as_int(tree.get("total_tokens")),
        prompt_tokens_details=_PromptDetails(cached, written, _WriteDetails(written_long)),
        completion_tokens_details=_CompletionDetails(reasoning),
        prompt_cache_hit_tokens=as_int(tree.get("prompt_cache_hit_tokens")),
    )
