"""Answers in Gemini's format: the frames of a stream, or a whole body, become chunks.

A frame of a stream is an answer like any other, and holds what is new in it; only the usage in it is that of all so far.
There is no last event: a candidate is whole with its ``finishReason``, and what comes after it (the usage, at times) counts.

JSON is decoded straight into the few fields that matter. Where one of them is of another type, that one event is read again
without expectations.

Source: https://ai.google.dev/api/generate-content.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from ..batch import FinishReason, Thought, TokenChunk, TokenUsage, ToolCallDelta
from ..errors import InferenceError, ProtocolError
from ..scrub import excerpt
from ..sse import SseChunk
from .gemini_errors import blocked_prompt, in_band_error, unwrapped
from .lenient_json import as_dict, as_int, as_str, dumps, is_object, loads, objects

# ---------------------------------------------------------------------------------------------------------------------
# What is read of the wire format. Anything else (code that was run, images, what an answer is grounded on) is skipped.


class _FunctionCall(msgspec.Struct, gc=False):
    id: str | None = None
    name: str | None = None
    args: msgspec.Raw = msgspec.Raw()  # as it came: nobody here reads it
    partialArgs: Any = None
    willContinue: bool | None = None


class _Part(msgspec.Struct, gc=False):
    text: str | None = None
    thought: bool | None = None
    thoughtSignature: str | None = None
    functionCall: _FunctionCall | None = None


class _Content(msgspec.Struct, gc=False):
    parts: list[_Part] | None = None


class _Candidate(msgspec.Struct, gc=False):
    content: _Content | None = None
    finishReason: str | None = None
    index: int = 0


class _Usage(msgspec.Struct, gc=False):
    promptTokenCount: int | None = None
    toolUsePromptTokenCount: int | None = None
    cachedContentTokenCount: int | None = None
    candidatesTokenCount: int | None = None
    thoughtsTokenCount: int | None = None
    serviceTier: str | None = None
    trafficType: str | None = None  # what Vertex calls it


class _Frame(msgspec.Struct, gc=False):
    candidates: list[_Candidate] | None = None
    usageMetadata: _Usage | None = None
    promptFeedback: Any = None
    error: Any = None


_decode_frame: Final = msgspec.json.Decoder(_Frame).decode
_NOT_AS_EXPECTED: Final = (msgspec.MsgspecError, ValueError, RecursionError)
_NOTHING: Final = _Content()

_LARGEST_COUNT: Final = 2**53
"""No real count of tokens comes near; above it, arithmetic with prices could overflow."""

_FINISH_REASONS: Final[Mapping[str, FinishReason]] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    **dict.fromkeys(
        (
            *("SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR"),
            *("IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "ESCALATION", "PUP_LIMITED_DISABLED"),
        ),
        "content_filter",
    ),
    **dict.fromkeys(
        (
            *("MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MISSING_THOUGHT_SIGNATURE"),
            *("MALFORMED_RESPONSE", "NO_IMAGE", "IMAGE_OTHER"),
        ),
        "error",
    ),
    "CONTINUATION": "continue",
}
"""``OTHER``, and what is yet to come, do not say enough."""

_STILL_RUNNING: Final = ("", "FINISH_REASON_UNSPECIFIED")
"""Not a reason: what protobuf has for none, where a server writes it out."""


# ---------------------------------------------------------------------------------------------------------------------
# Frames to chunks


class _Progress:
    """How far one candidate is: how many calls it has made, whether the last is still coming, whether it has ended."""

    __slots__ = ("calls", "ended", "open_call")

    def __init__(self) -> None:
        self.calls = 0
        self.ended = False
        self.open_call = False


class GeminiStreamDecoder:
    """Decodes the events of one stream. See `sansio.codec.StreamDecoder` for what its attributes mean.

    ``complete`` once as many candidates as were asked for (``choices``), and every one that was seen, have a finish reason;
    an error takes it back. ``terminal`` never: the format has no last event. ``usage`` is a lower bound until ``complete``;
    the chunks carry it from there on.
    """

    __slots__ = ("_choices", "_progress", "_provider", "_reported", "complete", "error", "terminal", "usage")

    def __init__(self, provider: str = "gemini", choices: int = 1) -> None:
        self.error: InferenceError | None = None
        self.complete = False
        self.terminal = False
        self.usage: TokenUsage | None = None
        self._provider = provider
        self._choices = choices
        self._progress: dict[int, _Progress] = {}
        self._reported: _Usage | None = None

    def decode(self, events: Sequence[SseChunk]) -> list[TokenChunk]:
        """The chunks of these events, one per part that says something, in order."""
        chunks: list[TokenChunk] = []
        for event in events:
            if self.error is not None:
                break
            try:
                frame = _decode_frame(event.data)
            except _NOT_AS_EXPECTED:
                again = _lenient_frame(event.data)
                if again is None:
                    self.error = _garbled(self._provider, event.data)
                    break
                frame = again
            if frame.error:
                self.complete = False
                self.error = in_band_error(self._provider, event.data)
                break
            before, was_complete = len(chunks), self.complete
            for candidate in frame.candidates or ():
                self._take(candidate, chunks)
            if frame.usageMetadata is not None or self.complete is not was_complete:
                self._report(frame.usageMetadata, chunks, before, was_complete)
            if not frame.candidates and _blocks(frame.promptFeedback):
                self.error = blocked_prompt(self._provider, frame.promptFeedback, event.data)
        if self._reported is not None and not self.complete:
            # Once for all of these frames: each would only replace the one before.
            self.usage = _token_usage(self._reported, whole=False)
        return chunks

    def _take(self, candidate: _Candidate, chunks: list[TokenChunk]) -> None:
        """Append the chunks of one candidate's parts; the last has its finish reason."""
        index, finish = candidate.index, candidate.finishReason
        progress = self._progress.get(index)
        if progress is None:
            progress = self._progress[index] = _Progress()
            self.complete = False
        before = len(chunks)
        for part in (candidate.content or _NOTHING).parts or ():
            if part.text and not part.thought and part.thoughtSignature is None:  # what nearly every part is
                chunks.append(TokenChunk(part.text, index=index))
            elif (chunk := _part_chunk(part, index, progress)) is not None:
                chunks.append(chunk)
        if finish is not None and finish not in _STILL_RUNNING:
            progress.ended = True
            self.complete = len(self._progress) >= self._choices and all(each.ended for each in self._progress.values())
            last = chunks.pop() if len(chunks) > before else TokenChunk(index=index)
            chunks.append(_ended(last, finish, called=progress.calls > 0))

    def _report(self, said: _Usage | None, chunks: list[TokenChunk], before: int, was_complete: bool) -> None:
        """Note a usage. From the answer's end on, the frame's last chunk carries it, or one of its own.

        What was said before the end, and not again, is what the whole answer used at least.
        """
        at_its_end = said is not None and _has_counts(said)
        if at_its_end:
            self._reported = said
        if self._reported is not None and self.complete and (at_its_end or not was_complete):
            self.usage = _token_usage(self._reported, whole=at_its_end)
            last = chunks.pop() if len(chunks) > before else TokenChunk()
            chunks.append(msgspec.structs.replace(last, usage=self.usage))


def decode_answer(provider: str, body: bytes) -> list[TokenChunk] | InferenceError:
    """A unary answer: one chunk per candidate, the usage on the first; or the error in it, or that it is no answer at all.

    Before the chunk of a candidate there is one more for each signed thought but its last: a chunk holds one.
    """
    frame: _Frame | None
    try:
        frame = _decode_frame(body)
    except _NOT_AS_EXPECTED:
        frame = _lenient_frame(body)
    if frame is not None and frame.error:
        return in_band_error(provider, body)
    if frame is not None and not frame.candidates and _blocks(frame.promptFeedback):
        return blocked_prompt(provider, frame.promptFeedback, body)
    if frame is None or not frame.candidates:
        return _garbled(provider, body)
    chunks = [chunk for candidate in frame.candidates for chunk in _whole(candidate)]
    if frame.usageMetadata is not None and _has_counts(frame.usageMetadata):
        chunks[0] = msgspec.structs.replace(chunks[0], usage=_token_usage(frame.usageMetadata, whole=True))
    return chunks


def _whole(candidate: _Candidate) -> list[TokenChunk]:
    """One candidate of a unary answer, as one chunk where it can be."""
    index, finish, progress = candidate.index, candidate.finishReason, _Progress()
    parts = (candidate.content or _NOTHING).parts or ()
    pieces = [chunk for part in parts if (chunk := _part_chunk(part, index, progress)) is not None]
    thoughts = [piece.thought for piece in pieces if piece.thought is not None]
    whole = TokenChunk(
        text_delta="".join(piece.text_delta for piece in pieces),
        reasoning_delta="".join(piece.reasoning_delta for piece in pieces),
        tool_call_deltas=tuple(delta for piece in pieces for delta in piece.tool_call_deltas),
        index=index,
        thought=thoughts[-1] if thoughts else None,
    )
    if finish is not None and finish not in _STILL_RUNNING:
        whole = _ended(whole, finish, called=progress.calls > 0)
    return [*(TokenChunk(index=index, thought=thought) for thought in thoughts[:-1]), whole]


def _ended(chunk: TokenChunk, finish: str, *, called: bool) -> TokenChunk:
    """The candidate's last chunk. A turn that calls tools ends with STOP, too."""
    reason = "tool_calls" if called and finish == "STOP" else _FINISH_REASONS.get(finish, "unknown")
    return msgspec.structs.replace(chunk, finish_reason=reason, raw_finish_reason=finish)


def _part_chunk(part: _Part, index: int, progress: _Progress) -> TokenChunk | None:
    """The chunk of one part, or ``None`` where it says nothing that there is a word for.

    A signature is wanted back: with its call, else as a thought (without text, where the text beside it is the answer's).
    """
    text, signature = part.text or "", part.thoughtSignature or ""
    if part.functionCall is not None:
        delta = _call_delta(part.functionCall, signature, progress)
        return None if delta is None else TokenChunk(tool_call_deltas=(delta,), index=index)
    if part.thought:
        thought = Thought(text, signature) if signature else None
        return TokenChunk(reasoning_delta=text, index=index, thought=thought) if text or signature else None
    if part.text is None or not (text or signature):
        return None
    return TokenChunk(text, index=index, thought=Thought(signature=signature) if signature else None)


def _call_delta(call: _FunctionCall, signature: str, progress: _Progress) -> ToolCallDelta | None:
    """A call comes whole. One without an id gets one by its place among the candidate's calls.

    Vertex can send arguments in pieces that are no JSON text (``partialArgs``: paths and values). That has to be asked for,
    which nothing here does. The name of such a call is passed on, and whole arguments if they come at its end.
    """
    continues = progress.open_call
    progress.open_call = call.willContinue is True
    arguments = bytes(call.args).decode("utf-8", "replace")
    if not arguments.startswith("{"):
        arguments = "" if continues or progress.open_call or call.partialArgs is not None else "{}"
    if continues:
        return (
            ToolCallDelta(progress.calls - 1, arguments=arguments, signature=signature) if arguments or signature else None
        )
    progress.calls += 1
    place = progress.calls - 1
    return ToolCallDelta(place, call.id or f"call_{place}", call.name or "", arguments, signature)


def _blocks(feedback: object) -> bool:
    """Whether the prompt was refused."""
    return bool(as_dict(feedback).get("blockReason"))


def _has_counts(usage: _Usage) -> bool:
    """Whether it tells more than by what contract the tokens are paid (Vertex says that first)."""
    counts = (usage.promptTokenCount, usage.candidatesTokenCount, usage.thoughtsTokenCount)
    return any(count is not None for count in counts)


def _token_usage(usage: _Usage, *, whole: bool) -> TokenUsage:
    """A count that is missing is 0: protobuf leaves it out. But there is no answer without a prompt.

    whole: whether the answer had ended; it is a lower bound where it had not.
    """
    thoughts = _count(usage.thoughtsTokenCount)
    return TokenUsage(
        input_tokens=_count(_count(usage.promptTokenCount) + _count(usage.toolUsePromptTokenCount)),
        output_tokens=_count(_count(usage.candidatesTokenCount) + thoughts),
        cached_input_tokens=_count(usage.cachedContentTokenCount),
        reasoning_tokens=thoughts,
        provenance="exact" if whole and usage.promptTokenCount is not None else "lower_bound",
        service_tier=usage.serviceTier or usage.trafficType or "",
    )


def _count(value: int | None) -> int:
    return min(max(0, value or 0), _LARGEST_COUNT)


def _garbled(provider: str, data: str | bytes) -> ProtocolError:
    """Bytes may be lost or mixed up on one way and not on the next: worth a second try."""
    return ProtocolError("the answer is not what was asked for", provider=provider, body=excerpt(data), retryable=True)


# ---------------------------------------------------------------------------------------------------------------------
# The same frames, read without expectations


def _lenient_frame(data: str | bytes) -> _Frame | None:
    """The frame in ``data``, without the fields of unexpected types; ``None`` if it is not a JSON object."""
    tree = unwrapped(loads(data))
    if not is_object(tree):
        return None
    return _Frame(
        candidates=[_lenient_candidate(candidate) for candidate in objects(tree.get("candidates"))],
        usageMetadata=_lenient_usage(tree.get("usageMetadata")),
        promptFeedback=tree.get("promptFeedback"),
        error=tree.get("error"),
    )


def _lenient_candidate(tree: dict[str, Any]) -> _Candidate:
    parts = objects(as_dict(tree.get("content")).get("parts"))
    return _Candidate(
        content=_Content([_lenient_part(part) for part in parts]),
        finishReason=as_str(tree.get("finishReason")),
        index=as_int(tree.get("index")) or 0,
    )


def _lenient_part(tree: dict[str, Any]) -> _Part:
    text, call = tree.get("text"), tree.get("functionCall")
    return _Part(
        text=as_str(text) if isinstance(text, str) else None,
        thought=tree.get("thought") is True,
        thoughtSignature=as_str(tree.get("thoughtSignature")),
        functionCall=_lenient_call(call) if is_object(call) else None,
    )


def _lenient_call(tree: dict[str, Any]) -> _FunctionCall:
    return _FunctionCall(
        id=as_str(tree.get("id")),
        name=as_str(tree.get("name")),
        args=msgspec.Raw(dumps(tree.get("args")).encode()),
        partialArgs=tree.get("partialArgs"),
        willContinue=tree.get("willContinue") is True,
    )


def _lenient_usage(tree: object) -> _Usage | None:
    if not is_object(tree):
        return None
    return _Usage(
        promptTokenCount=as_int(tree.get("promptTokenCount")),
        toolUsePromptTokenCount=as_int(tree.get("toolUsePromptTokenCount")),
        cachedContentTokenCount=as_int(tree.get("cachedContentTokenCount")),
        candidatesTokenCount=as_int(tree.get("candidatesTokenCount")),
        thoughtsTokenCount=as_int(tree.get("thoughtsTokenCount")),
        serviceTier=as_str(tree.get("serviceTier")),
        trafficType=as_str(tree.get("trafficType")),
    )
