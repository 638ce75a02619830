"""Answers of Anthropic Messages: the events of a stream, or a whole body, become chunks.

A stream is a message in blocks: each is started, comes in deltas and is stopped, and ``message_stop`` proves that it is all
there. A block of another kind than text, tool use and thinking (a server's own tool, a compaction, whatever is new) says
nothing in our vocabulary and is passed over, as are events of other types.

JSON is decoded straight into the few fields that matter. Where another type stands in one of them, that one event is read
again without expectations: others than Anthropic speak the format too.

Source: https://platform.claude.com/docs/en/build-with-claude/streaming, and the types of Anthropic's SDK.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from ..batch import FinishReason, Thought, TokenChunk, TokenUsage, ToolCallDelta
from ..errors import InferenceError, ProtocolError
from ..scrub import excerpt
from ..sse import SseChunk
from .anthropic_errors import in_band_error
from .lenient_json import as_int, as_str, dumps, is_array, is_object, loads, objects

# ---------------------------------------------------------------------------------------------------------------------
# What is read of the wire format. Anything else is skipped without being built.


class _Delta(msgspec.Struct, gc=False):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None  # of the message, in ``message_delta``


_NO_INPUT: Final = msgspec.Raw(b"")


class _Block(msgspec.Struct, gc=False):
    type: str = ""
    id: str | None = None
    name: str | None = None
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    input: msgspec.Raw = _NO_INPUT


class _CacheCreation(msgspec.Struct, gc=False):
    ephemeral_5m_input_tokens: int | None = None
    ephemeral_1h_input_tokens: int | None = None


class _OutputDetails(msgspec.Struct, gc=False):
    thinking_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    input_tokens: int | None = None  # neither read from a cache nor written to one
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_creation: _CacheCreation | None = None
    output_tokens: int | None = None
    output_tokens_details: _OutputDetails | None = None
    service_tier: str | None = None


class _Message(msgspec.Struct, gc=False):
    content: list[_Block] | None = None
    stop_reason: str | None = None
    usage: _Usage | None = None
    error: Any = None


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    index: int = 0
    delta: _Delta | None = None
    content_block: _Block | None = None
    message: _Message | None = None
    usage: _Usage | None = None
    error: Any = None


_decode_event: Final = msgspec.json.Decoder(_Event).decode
_decode_message: Final = msgspec.json.Decoder(_Message).decode
_NOT_AS_EXPECTED: Final = (msgspec.MsgspecError, ValueError, RecursionError)

_LARGEST_COUNT: Final = 2**53
"""No real count of tokens comes near; above it, arithmetic with prices could overflow."""

_EVENTS_WITH_DATA: Final = frozenset(
    {
        *("message", "message_start", "message_delta", "message_stop", "error"),
        *("content_block_start", "content_block_delta", "content_block_stop"),
    }
)
"""Names of events whose data must be JSON. What stands in others is nobody's business."""

_FINISH_REASONS: Final[Mapping[str, FinishReason]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    "pause_turn": "continue",
}


# ---------------------------------------------------------------------------------------------------------------------
# Events to chunks


class _OpenCall:
    """A tool call whose block is not stopped yet. ``input`` is what the start said it is, should nothing follow."""

    __slots__ = ("begun", "index", "input")

    def __init__(self, index: int, input_json: str) -> None:
        self.index = index
        self.input = input_json
        self.begun = False


class _OpenThought:
    """A part of the reasoning whose block is not stopped yet. Bytes: they grow in place, however small the deltas are."""

    __slots__ = ("signature", "text")

    def __init__(self, text: str, signature: str) -> None:
        self.text = bytearray(text.encode())
        self.signature = bytearray(signature.encode())


class MessageStreamDecoder:
    """Decodes the events of one stream. See `sansio.codec.StreamDecoder` for what its attributes mean.

    ``complete`` and ``terminal`` at ``message_stop``. ``usage`` is known from ``message_start`` on, as a lower bound until a
    ``message_delta`` counts the output. Nothing after ``message_stop`` or an error is decoded.
    """

    __slots__ = ("_calls", "_open", "_provider", "_reported", "complete", "error", "terminal", "usage")

    def __init__(self, provider: str = "anthropic") -> None:
        self.error: InferenceError | None = None
        self.complete = False
        self.terminal = False
        self.usage: TokenUsage | None = None
        self._provider = provider
        self._reported = _Usage()
        self._calls = 0
        self._open: dict[int, _OpenCall | _OpenThought] = {}

    def decode(self, events: Sequence[SseChunk]) -> list[TokenChunk]:
        """The chunks of these events, one per delta that says something, in order.

        A block's end yields one where only it tells something: a thought that is whole, a call without arguments.
        """
        chunks: list[TokenChunk] = []
        for event in events:
            if self.terminal or self.error is not None:
                break
            try:
                frame = _decode_event(event.data)
            except _NOT_AS_EXPECTED:
                again = self._read_again(event)
                if again is None:
                    continue
                frame = again
            delta = frame.delta
            if delta is not None and delta.type == "text_delta" and delta.text:  # what nearly every event is
                chunks.append(TokenChunk(delta.text))
            else:
                self._take(frame, event, chunks)
        return chunks

    def _read_again(self, event: SseChunk) -> _Event | None:
        """An event that is not what was expected: read without expectations, or ``None`` for garbage."""
        frame = _lenient_event(event.data)
        if frame is None and event.event in _EVENTS_WITH_DATA:
            self.error = _garbled(self._provider, event.data)
        return frame

    def _take(self, frame: _Event, event: SseChunk, chunks: list[TokenChunk]) -> None:
        """Any event but a delta of text. Its type stands in the data; the event's own name repeats it."""
        kind = frame.type or event.event
        if frame.error or "error" in (kind, event.event):
            self.error = in_band_error(self._provider, event.data)
        elif kind == "content_block_delta":
            if frame.delta is not None:
                self._take_delta(frame.index, frame.delta, chunks)
        elif kind == "content_block_start":
            self._close(frame.index, chunks)
            if frame.content_block is not None:
                self._start(frame.index, frame.content_block, chunks)
        elif kind == "content_block_stop":
            self._close(frame.index, chunks)
        elif kind == "message_delta":
            self._take_message_delta(frame, chunks)
        elif kind == "message_start":
            if frame.message is not None:
                self._learn(frame.message.usage, final=False)
        elif kind == "message_stop":
            self.complete = self.terminal = True

    def _start(self, index: int, block: _Block, chunks: list[TokenChunk]) -> None:
        if block.type == "text":
            if block.text:
                chunks.append(TokenChunk(block.text))
        elif block.type == "tool_use":
            call = self._open[index] = _OpenCall(self._calls, _input_json(block))
            self._calls += 1
            chunks.append(TokenChunk(tool_call_deltas=(ToolCallDelta(call.index, block.id or "", block.name or ""),)))
        elif block.type == "thinking":
            self._open[index] = _OpenThought(block.thinking or "", block.signature or "")
            if block.thinking:
                chunks.append(TokenChunk(reasoning_delta=block.thinking))
        elif block.type == "redacted_thinking" and block.data:
            chunks.append(TokenChunk(thought=_redacted(block)))

    def _take_delta(self, index: int, delta: _Delta, chunks: list[TokenChunk]) -> None:
        opened = self._open.get(index)
        if delta.type == "input_json_delta":
            if isinstance(opened, _OpenCall) and delta.partial_json:  # else it is of a tool that the server itself runs
                opened.begun = True
                fragment = ToolCallDelta(opened.index, arguments=delta.partial_json)
                chunks.append(TokenChunk(tool_call_deltas=(fragment,)))
        elif delta.type == "thinking_delta" and delta.thinking:
            if isinstance(opened, _OpenThought):
                opened.text += delta.thinking.encode()
            chunks.append(TokenChunk(reasoning_delta=delta.thinking))
        elif delta.type == "signature_delta" and isinstance(opened, _OpenThought):
            opened.signature += (delta.signature or "").encode()

    def _close(self, index: int, chunks: list[TokenChunk]) -> None:
        opened = self._open.pop(index, None)
        if isinstance(opened, _OpenCall):
            if not opened.begun:
                chunks.append(TokenChunk(tool_call_deltas=(ToolCallDelta(opened.index, arguments=opened.input),)))
        elif opened is not None and (opened.text or opened.signature):
            chunks.append(TokenChunk(thought=Thought(opened.text.decode(), opened.signature.decode())))

    def _take_message_delta(self, frame: _Event, chunks: list[TokenChunk]) -> None:
        raw = (frame.delta.stop_reason if frame.delta is not None else None) or None
        usage = self._learn(frame.usage, final=True)
        if raw is not None or usage is not None:
            chunks.append(TokenChunk(finish_reason=_finish_reason(raw), raw_finish_reason=raw, usage=usage))

    def _learn(self, reported: _Usage | None, *, final: bool) -> TokenUsage | None:
        """Take in a report, and say the usage as it is then; ``None`` where there was none.

        Reports are cumulative: a later one replaces, field by field, what it says again. The output that ``message_start``
        counts is that of its beginning.
        """
        if reported is None:
            return None
        final = final and reported.output_tokens is not None
        self._reported = _merged(self._reported, reported)
        self.usage = _token_usage(self._reported, final=final)
        return self.usage


def decode_answer(provider: str, body: bytes) -> list[TokenChunk] | InferenceError:
    """A unary answer: a chunk for each part of the reasoning, then one with all the rest; or the error in it, or that it is
    no answer at all."""
    message: _Message | None
    try:
        message = _decode_message(body)
    except _NOT_AS_EXPECTED:
        message = _lenient_message(loads(body))
    if message is not None and message.error:
        return in_band_error(provider, body)
    if message is None or message.content is None:
        return _garbled(provider, body)
    chunks: list[TokenChunk] = []
    text = ""
    calls: list[ToolCallDelta] = []
    for block in message.content:
        if block.type == "text":
            text += block.text or ""
        elif block.type == "tool_use":
            calls.append(ToolCallDelta(len(calls), block.id or "", block.name or "", _input_json(block)))
        elif block.type == "thinking" and (block.thinking or block.signature):
            thought = Thought(block.thinking or "", block.signature or "")
            chunks.append(TokenChunk(reasoning_delta=thought.text, thought=thought))
        elif block.type == "redacted_thinking" and block.data:
            chunks.append(TokenChunk(thought=_redacted(block)))
    raw, usage = message.stop_reason or None, message.usage
    chunks.append(
        TokenChunk(
            text_delta=text,
            tool_call_deltas=tuple(calls),
            finish_reason=_finish_reason(raw),
            raw_finish_reason=raw,
            usage=None if usage is None else _token_usage(usage, final=usage.output_tokens is not None),
        )
    )
    return chunks


def _finish_reason(raw: str | None) -> FinishReason | None:
    return None if raw is None else _FINISH_REASONS.get(raw, "unknown")


def _redacted(block: _Block) -> Thought:
    return Thought(signature=block.data or "", redacted=True)


def _input_json(block: _Block) -> str:
    """The input of a call as it was written; that of a call without one is an object without fields."""
    text = bytes(block.input).decode("utf-8", "replace")
    return text if text not in ("", "null") else "{}"


def _merged(before: _Usage, later: _Usage) -> _Usage:
    """What was reported, as far as it was not reported again."""
    said = {name: value for name in _Usage.__struct_fields__ if (value := getattr(later, name)) is not None}
    return msgspec.structs.replace(before, **said)


def _token_usage(reported: _Usage, *, final: bool) -> TokenUsage | None:
    """``None`` where there are no counts; a lower bound unless the input is told and the output is the ``final`` one."""
    if reported.input_tokens is None and reported.output_tokens is None:
        return None
    written_in = reported.cache_creation or _CacheCreation()
    written_long = _count(written_in.ephemeral_1h_input_tokens)
    written = reported.cache_creation_input_tokens
    written = written_long + _count(written_in.ephemeral_5m_input_tokens) if written is None else _count(written)
    cached = _count(reported.cache_read_input_tokens)
    details = reported.output_tokens_details or _OutputDetails()
    return TokenUsage(
        input_tokens=_count(_count(reported.input_tokens) + cached + written),
        output_tokens=_count(reported.output_tokens),
        cached_input_tokens=cached,
        cache_write_tokens=_count(written),
        reasoning_tokens=_count(details.thinking_tokens),
        provenance="exact" if final and reported.input_tokens is not None else "lower_bound",
        cache_write_long_tokens=min(written_long, written),
        service_tier=reported.service_tier or "",
    )


def _count(value: int | None) -> int:
    return min(max(0, value or 0), _LARGEST_COUNT)


def _garbled(provider: str, data: str | bytes) -> ProtocolError:
    """Bytes may be lost or mixed up on one way and not on the next: worth a second try."""
    return ProtocolError("the answer is not what was asked for", provider=provider, body=excerpt(data), retryable=True)


# ---------------------------------------------------------------------------------------------------------------------
# The same, read without expectations


def _lenient_event(data: str) -> _Event | None:
    """The event in ``data``, without the fields of unexpected types; ``None`` if it is not a JSON object."""
    tree = loads(data)
    if not is_object(tree):
        return None
    block = tree.get("content_block")
    return _Event(
        type=as_str(tree.get("type")),
        index=as_int(tree.get("index")) or 0,
        delta=_lenient_delta(tree.get("delta")),
        content_block=_lenient_block(block) if is_object(block) else None,
        message=_lenient_message(tree.get("message")),
        usage=_lenient_usage(tree.get("usage")),
        error=tree.get("error"),
    )


def _lenient_delta(tree: object) -> _Delta | None:
    if not is_object(tree):
        return None
    return _Delta(**{name: as_str(tree.get(name)) for name in _Delta.__struct_fields__})


def _lenient_block(tree: dict[str, Any]) -> _Block:
    said = {name: as_str(tree.get(name)) for name in _Block.__struct_fields__ if name != "input"}
    given = tree.get("input")
    return _Block(**said, input=msgspec.Raw(dumps(given).encode()) if is_object(given) else _NO_INPUT)


def _lenient_message(tree: object) -> _Message | None:
    if not is_object(tree):
        return None
    content = tree.get("content")
    return _Message(
        content=[_lenient_block(block) for block in objects(content)] if is_array(content) else None,
        stop_reason=as_str(tree.get("stop_reason")),
        usage=_lenient_usage(tree.get("usage")),
        error=tree.get("error"),
    )


def _lenient_usage(tree: object) -> _Usage | None:
    if not is_object(tree):
        return None
    written_in, details = tree.get("cache_creation"), tree.get("output_tokens_details")
    thinking = as_int(details.get("thinking_tokens")) if is_object(details) else None
    return _Usage(
        input_tokens=as_int(tree.get("input_tokens")),
        cache_read_input_tokens=as_int(tree.get("cache_read_input_tokens")),
        cache_creation_input_tokens=as_int(tree.get("cache_creation_input_tokens")),
        cache_creation=_lenient_cache_creation(written_in) if is_object(written_in) else None,
        output_tokens=as_int(tree.get("output_tokens")),
        output_tokens_details=None if thinking is None else _OutputDetails(thinking),
        service_tier=as_str(tree.get("service_tier")) or None,
    )


def _lenient_cache_creation(tree: dict[str, Any]) -> _CacheCreation:
    return _CacheCreation(*(as_int(tree.get(name)) for name in _CacheCreation.__struct_fields__))
