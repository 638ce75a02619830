"""Answers of the Responses API: the events of a stream, or a whole response, become chunks.

An event is named by its ``type``. Text comes in deltas, and then again, whole: in the ``done`` of its part, in the ``done``
of its item, and in the response that ends the stream. Servers that imitate the API leave out one or the other, so what was
said is remembered by its place (item, part), and whatever comes whole is taken only where nothing was said before.

The deltas are decoded straight into the few fields that matter; all else comes once an item, and is read without
expectations.

Source: https://developers.openai.com/api/reference/resources/responses; an ``error`` event with its fields inside another
object, and states in events that are not named after them, were seen in issues.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import msgspec

from ..batch import FinishReason, Thought, TokenChunk, TokenUsage, ToolCallDelta
from ..errors import InferenceError, ProtocolError
from ..sse import SseChunk
from .lenient_json import as_dict, as_int, as_str, dumps, is_array, is_object, loads, objects
from .openai_answers import from_total, garbled, token_count
from .openai_errors import in_band_error

# ---------------------------------------------------------------------------------------------------------------------
# What is read of the wire format. Anything else is skipped without being built.


class _TextDelta(msgspec.Struct, gc=False):
    """Nearly every event of a stream."""

    delta: str
    output_index: int = 0
    content_index: int = 0


class _Event(msgspec.Struct, gc=False):
    type: str | None = None
    delta: str | None = None
    output_index: int = 0
    content_index: int = 0
    summary_index: int = 0
    error: Any = None


_decode_text: Final = msgspec.json.Decoder(_TextDelta).decode
_decode_event: Final = msgspec.json.Decoder(_Event).decode
_NOT_AS_EXPECTED: Final = (msgspec.MsgspecError, ValueError, RecursionError)

_Kind = Literal["text", "refusal", "reasoning", "summary", "thinking", "thought", "call", "input"]
"""What is said: a part of a message; a part of the reasoning or of its summary (``thinking``: any of either), and the item
that is to be given back (``thought``); a call's id and name, and its input."""


class _Place(NamedTuple):
    """Where something is said: which item, and which of its parts."""

    kind: _Kind
    item: int
    part: int = 0


_TEXT_DELTA: Final = "response.output_text.delta"
_DELTAS: Final[Mapping[str, _Kind]] = {
    _TEXT_DELTA: "text",
    "response.refusal.delta": "refusal",
    "response.reasoning_text.delta": "reasoning",
    "response.reasoning_summary_text.delta": "summary",
    "response.function_call_arguments.delta": "input",
    "response.custom_tool_call_input.delta": "input",
}
_WHOLES: Final[Mapping[str, tuple[_Kind, str]]] = {
    "response.output_text.done": ("text", "text"),
    "response.refusal.done": ("refusal", "refusal"),
    "response.reasoning_text.done": ("reasoning", "text"),
    "response.reasoning_summary_text.done": ("summary", "text"),
    "response.function_call_arguments.done": ("input", "arguments"),
    "response.custom_tool_call_input.done": ("input", "input"),
}
"""Of events that repeat a part whole: what it is, and the field it stands in."""

_ITEMS: Final = ("response.output_item.added", "response.output_item.done")
_ENDS: Final[Mapping[str, str]] = {
    f"response.{status}": status for status in ("completed", "incomplete", "failed", "cancelled")
}
"""The events that end a stream, and the state they are named after."""

_INPUT_FIELDS: Final[Mapping[str, str]] = {"function_call": "arguments", "custom_tool_call": "input"}
"""The items that are calls of the caller's tools, and the field their input stands in."""

_CUT_SHORT: Final[Mapping[str, FinishReason]] = {"max_output_tokens": "length", "content_filter": "content_filter"}
"""Why a response is incomplete."""

# ---------------------------------------------------------------------------------------------------------------------
# Events to chunks


class ResponsesStreamDecoder:
    """Decodes the events of one stream. See `sansio.codec.StreamDecoder` for what its attributes mean.

    ``complete`` with the event that ends the response, completed or cut short. ``terminal`` with that, or at ``[DONE]``,
    which nobody needs to send and which proves nothing. Nothing after an error or the end is decoded: where an ``error`` is
    followed by a ``response.failed``, that is one failure.
    """

    __slots__ = ("_calls", "_items", "_provider", "_said", "_text_item", "_text_part", "complete", "error",
                 "terminal", "usage")  # fmt: skip

    def __init__(self, provider: str = "openai") -> None:
        self.error: InferenceError | None = None
        self.complete = False
        self.terminal = False
        self.usage: TokenUsage | None = None
        self._provider = provider
        self._said: set[_Place] = set()
        self._items: dict[str, int] = {}
        """The place of each item by its id: in the response that ends the stream, some servers leave items out."""
        self._calls: dict[int, int] = {}
        """Which call the item at a place is: they are counted by themselves."""
        self._text_item = self._text_part = -1
        """The place of the last text, so that it is not noted again with each delta."""

    def decode(self, events: Sequence[SseChunk]) -> list[TokenChunk]:
        """The chunks of these events: one for each delta that says something, in order."""
        chunks: list[TokenChunk] = []
        for event in events:
            if self.terminal or self.error is not None:
                break
            try:
                if event.event == _TEXT_DELTA:
                    said = _decode_text(event.data)
                    if said.delta:
                        if said.output_index != self._text_item or said.content_index != self._text_part:
                            self._note_text(said.output_index, said.content_index)
                        chunks.append(TokenChunk(said.delta))
                    continue
                read = _decode_event(event.data)
            except _NOT_AS_EXPECTED:
                again = self._read_again(event.data)
                if again is None:
                    break
                read = again
            self._take(read.type or event.event, read, event.data, chunks)
        return chunks

    def _take(self, name: str, read: _Event, data: str, chunks: list[TokenChunk]) -> None:
        if name in _DELTAS:
            kind = _DELTAS[name]
            part = read.summary_index if kind == "summary" else read.content_index
            self._say(_Place(kind, read.output_index, part), read.delta or "", chunks)
        elif name in _WHOLES:
            kind, field = _WHOLES[name]
            part = read.summary_index if kind == "summary" else read.content_index
            self._say_whole(_Place(kind, read.output_index, part), as_str(as_dict(loads(data)).get(field)), chunks)
        elif name in _ITEMS:
            item = as_dict(as_dict(loads(data)).get("item"))
            if item_id := as_str(item.get("id")):
                self._items[item_id] = read.output_index
            if name == "response.output_item.done":
                self._take_item(read.output_index, item, chunks)
            elif as_str(item.get("type")) in _INPUT_FIELDS:
                self._take_call(read.output_index, item, "", chunks)  # an input that is here already comes again
        elif name in _ENDS:
            tree = as_dict(loads(data))
            self.take_response(as_dict(tree.get("response")) or tree, _ENDS[name], chunks)
        elif name == "error" or (read.error and not name.startswith("response.")):
            self.error = in_band_error(self._provider, _error_body(as_dict(loads(data))))

    def take_response(self, response: dict[str, Any], status: str, chunks: list[TokenChunk]) -> None:
        """The response as a whole, which has ended as ``status`` says; but it may know better than to be completed."""
        if status == "completed" and (said := as_str(response.get("status"))) in _ENDS.values():
            status = said  # vLLM
        self.usage = _usage(response)
        if status == "failed" or response.get("error"):
            self.error = in_band_error(self._provider, dumps({"error": response.get("error")}))
            return
        if status == "cancelled":
            self.error = ProtocolError("the response was cancelled at the provider", provider=self._provider)
            return
        for position, item in enumerate(objects(response.get("output"))):
            self._take_item(self._items.get(as_str(item.get("id")), position), item, chunks)
        raw = status
        finish_reason: FinishReason = "tool_calls" if self._calls else "stop"
        if status == "incomplete":
            raw = as_str(as_dict(response.get("incomplete_details")).get("reason")) or status
            finish_reason = _CUT_SHORT.get(raw, "unknown")
        chunks.append(TokenChunk(finish_reason=finish_reason, raw_finish_reason=raw, usage=self.usage))
        self.complete = self.terminal = True

    def _take_item(self, place: int, item: dict[str, Any], chunks: list[TokenChunk]) -> None:
        """A finished item: whatever of it has not been said yet."""
        kind = as_str(item.get("type"))
        if kind == "message":
            for part, content in enumerate(objects(item.get("content"))):
                self._say_whole(_Place("text", place, part), as_str(content.get("text")), chunks)
                self._say_whole(_Place("refusal", place, part), as_str(content.get("refusal")), chunks)
        elif kind == "reasoning":
            self._take_reasoning(place, item, chunks)
        elif kind in _INPUT_FIELDS:
            self._take_call(place, item, as_str(item.get(_INPUT_FIELDS[kind])), chunks)

    def _take_reasoning(self, place: int, item: dict[str, Any], chunks: list[TokenChunk]) -> None:
        summary = [as_str(part.get("text")) for part in objects(item.get("summary"))]
        if _Place("thinking", place) not in self._said:
            # The reasoning itself is worth more than its summary. Few models show it.
            content = "".join(as_str(part.get("text")) for part in objects(item.get("content")))
            self._say(_Place("reasoning", place), content or "".join(summary), chunks)
        thought = Thought("\n\n".join(summary), as_str(item.get("encrypted_content")), as_str(item.get("id")))
        if (thought.id or thought.signature) and self._is_new(_Place("thought", place)):
            chunks.append(TokenChunk(thought=thought))

    def _take_call(self, place: int, item: dict[str, Any], text: str, chunks: list[TokenChunk]) -> None:
        """A call of a tool: its id and name, once, and its input, as far as that is whole and has not been said."""
        call_id, name = as_str(item.get("call_id")) or as_str(item.get("id")), as_str(item.get("name"))
        if not (call_id or name) or not self._is_new(_Place("call", place)):
            call_id = name = ""
        if text and not self._is_new(_Place("input", place)):
            text = ""
        if call_id or name or text:
            chunks.append(TokenChunk(tool_call_deltas=(ToolCallDelta(self._call_index(place), call_id, name, text),)))

    def _is_new(self, place: _Place) -> bool:
        """Whether this is said for the first time. From now on it is not."""
        new = place not in self._said
        self._said.add(place)
        return new

    def _say_whole(self, place: _Place, text: str, chunks: list[TokenChunk]) -> None:
        if place not in self._said:
            self._say(place, text, chunks)

    def _say(self, place: _Place, text: str, chunks: list[TokenChunk]) -> None:
        if not text:
            return
        self._said.add(place)
        match place.kind:
            case "text":
                chunks.append(TokenChunk(text))
            case "refusal":
                chunks.append(TokenChunk(refusal_delta=text))
            case "input":
                call = ToolCallDelta(self._call_index(place.item), arguments=text)
                chunks.append(TokenChunk(tool_call_deltas=(call,)))
            case _:
                self._said.add(_Place("thinking", place.item))
                chunks.append(TokenChunk(reasoning_delta=text))

    def _note_text(self, item: int, part: int) -> None:
        self._text_item, self._text_part = item, part
        self._said.add(_Place("text", item, part))

    def _call_index(self, place: int) -> int:
        return self._calls.setdefault(place, len(self._calls))

    def _read_again(self, data: str) -> _Event | None:
        """An event that is not what was expected: read without expectations, or ``None`` for the end or for garbage."""
        if data.strip() == "[DONE]":
            self.terminal = True
            return None
        tree = loads(data)
        if not is_object(tree):
            self.error = garbled(self._provider, data)
            return None
        return _Event(
            type=as_str(tree.get("type")),
            delta=as_str(tree.get("delta")),
            output_index=as_int(tree.get("output_index")) or 0,
            content_index=as_int(tree.get("content_index")) or 0,
            summary_index=as_int(tree.get("summary_index")) or 0,
            error=tree.get("error"),
        )


def decode_response(provider: str, body: bytes) -> list[TokenChunk] | InferenceError:
    """A unary answer: one chunk with all of it, and one more for each further part of the reasoning that is wanted back;
    or the error in it, or that it is no answer, or none yet (``background``)."""
    response = as_dict(loads(body))
    status = as_str(response.get("status"))
    if response.get("error") and status not in _ENDS.values():
        return in_band_error(provider, body)
    if status in ("queued", "in_progress"):
        return ProtocolError(
            f"the response is {status}: it was asked for in the background, and is to be fetched later by its id",
            provider=provider,
        )
    output = response.get("output")
    if status not in ("failed", "cancelled") and not (is_array(output) and (output or status in _ENDS.values())):
        return garbled(provider, body)
    decoder, parts = ResponsesStreamDecoder(provider), list[TokenChunk]()
    decoder.take_response(response, "completed", parts)
    if decoder.error is not None:
        return decoder.error
    end, thoughts = parts[-1], [part.thought for part in parts if part.thought is not None]
    whole = TokenChunk(
        text_delta="".join(part.text_delta for part in parts),
        reasoning_delta="".join(part.reasoning_delta for part in parts),
        refusal_delta="".join(part.refusal_delta for part in parts),
        tool_call_deltas=tuple(call for part in parts for call in part.tool_call_deltas),
        finish_reason=end.finish_reason,
        raw_finish_reason=end.raw_finish_reason,
        usage=end.usage,
        thought=thoughts[0] if thoughts else None,
    )
    return [whole, *(TokenChunk(thought=thought) for thought in thoughts[1:])]


def _error_body(event: dict[str, Any]) -> str:
    """An ``error`` event as an error body: as documented, its fields are its own; often they stand in another object."""
    if event.get("error"):
        return dumps(event)
    return dumps({"error": {name: value for name, value in event.items() if name not in ("type", "sequence_number")}})


def _usage(response: dict[str, Any]) -> TokenUsage | None:
    """``None`` where there are no counts; a lower bound where one of the two cannot be told."""
    counts = as_dict(response.get("usage"))
    taken, given = from_total(*(as_int(counts.get(f"{name}_tokens")) for name in ("input", "output", "total")))
    if taken is None and given is None:
        return None
    of_input, of_output = as_dict(counts.get("input_tokens_details")), as_dict(counts.get("output_tokens_details"))
    return TokenUsage(
        input_tokens=token_count(taken),
        output_tokens=token_count(given),
        cached_input_tokens=token_count(as_int(of_input.get("cached_tokens"))),
        cache_write_tokens=token_count(as_int(of_input.get("cache_write_tokens"))),
        cache_write_long_tokens=token_count(
            as_int(as_dict(of_input.get("cache_write_tokens_details")).get("ttl_12h_tokens"))
        ),
        reasoning_tokens=token_count(as_int(of_output.get("reasoning_tokens"))),
        service_tier=as_str(response.get("service_tier")),
        provenance="lower_bound" if taken is None or given is None else "exact",
    )
