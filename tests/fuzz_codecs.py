"""The fuzz of the codecs and the classifiers: no bytes, headers or status make them raise, lie or leak.

A case begins with something right (`fuzz_answers.py`), breaks it (`fuzz_mutations.py`), and holds what comes of it against
what is always true: the outcome is a success with its proof, or an `InferenceError`; values are of their types; it does not
matter how the bytes were cut; after an error nothing more is decoded; no text holds the credential. All of it follows from
the seed, the codec and the number of the case.

    python tests/fuzz_codecs.py --seconds 3600 --seed 1
    python tests/fuzz_codecs.py --seed 1 --case anthropic/1234
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import math
import pickle
import resource
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final, get_args

from fuzz_answers import BODIES, NOT_JSON, REFUSALS, STREAMS, Event, Format, Json, Said, error_events
from fuzz_mutations import SECRETS, broken_bytes, broken_events, broken_tree, cuts, framed, headers, junk, written

from sansio import ExecuteBatch, InferenceError, Message, ProviderCodec, TokenChunk, Tokens, TokenUsage, replay_response
from sansio.batch import FinishReason, Provenance, Thought, ToolCallDelta
from sansio.cost import cost_of
from sansio.errors import Internal, NetworkError, ProtocolError
from sansio.exchange import Exchange, ExchangeConfig
from sansio.http import Headers, HttpRequest, Timeouts
from sansio.prices import Price
from sansio.providers import codec
from sansio.scrub import EXCERPT_CHARS
from sansio.secret import Credential
from sansio.session import SessionSnapshot
from sansio.sse import SseDecoder

NOW: Final = 1_800_000_000.0
STREAM_TYPE: Final = ("content-type", "text/event-stream; charset=utf-8")
PRICE: Final = Price(input=1.0, output=2.0, cached_input=0.1, cache_write=1.25)
MOST_SECONDS: Final = 5.0
"""What a case may take of a slow core. Only the long run looks at it."""


@dataclass(frozen=True)
class Target:
    """A codec, and the format its provider answers in."""

    name: str
    codec: ProviderCodec
    wire: Format


def _mistral() -> ProviderCodec:
    page = Path(__file__).resolve().parent.parent / "examples" / "mistral_provider.py"
    spec = importlib.util.spec_from_file_location("mistral_provider", page)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made: ProviderCodec = module.MistralChat(model="m")
    return made


TARGETS: Final = {
    target.name: target
    for target in (
        Target("openai", codec("openai", model="m"), "chat"),
        Target("azure", codec("azure", model="m", resource="r"), "chat"),
        Target("litellm", codec("litellm", model="m"), "chat"),
        Target("mistral", _mistral(), "chat"),
        Target("openai_responses", codec("openai_responses", model="m"), "responses"),
        Target("azure_responses", codec("azure_responses", model="m", resource="r"), "responses"),
        Target("anthropic", codec("anthropic", model="m"), "anthropic"),
        Target("gemini", codec("gemini", model="m"), "gemini"),
        Target("vertex", codec("gemini", model="m", variant="vertex", project="p"), "gemini"),
    )
}


@dataclass(frozen=True)
class Outcome:
    """What came of a response."""

    chunks: list[TokenChunk]
    error: InferenceError | None
    usage: TokenUsage | None

    def told(self) -> tuple[list[TokenChunk], Any, TokenUsage | None]:
        return self.chunks, None if self.error is None else self.error.to_dict(), self.usage


# ---- what is always true ----------------------------------------------------------------------------------------------


def check_text(text: object) -> None:
    assert isinstance(text, str), f"{text!r} is no text"
    text.encode()  # a lone surrogate could not be written anywhere


def check_usage(usage: TokenUsage | None) -> None:
    if usage is None:
        return
    for name in (
        "input_tokens",
        "output_tokens",
        "cached_input_tokens",
        "cache_write_tokens",
        "reasoning_tokens",
        "cache_write_long_tokens",
    ):
        count = getattr(usage, name)
        assert type(count) is int and 0 <= count <= 2**53, f"{name}: {count!r}"
    assert usage.provenance in get_args(Provenance)
    check_text(usage.service_tier)
    cost = cost_of(usage, PRICE).usd
    assert cost is not None and 0 <= cost < math.inf, cost
    json.dumps(usage.to_dict(), allow_nan=False)


def check_chunk(chunk: TokenChunk) -> None:
    for text in (chunk.text_delta, chunk.reasoning_delta, chunk.refusal_delta):
        check_text(text)
    assert type(chunk.index) is int
    assert chunk.finish_reason is None or chunk.finish_reason in get_args(FinishReason), chunk.finish_reason
    assert (chunk.finish_reason is None) == (chunk.raw_finish_reason is None)
    if chunk.raw_finish_reason is not None:
        check_text(chunk.raw_finish_reason)
    assert isinstance(chunk.tool_call_deltas, tuple)
    for delta in chunk.tool_call_deltas:
        assert isinstance(delta, ToolCallDelta) and type(delta.index) is int
        for text in (delta.id, delta.name, delta.arguments, delta.signature):
            check_text(text)
    assert chunk.thought is None or isinstance(chunk.thought, Thought)
    if chunk.thought is not None:
        for text in (chunk.thought.text, chunk.thought.signature, chunk.thought.id):
            check_text(text)
    check_usage(chunk.usage)


def check_error(error: InferenceError, leaks: Sequence[str]) -> None:
    """leaks: what no text of the error may hold."""
    assert isinstance(error, InferenceError) and not isinstance(error, Internal), repr(error)
    told = error.to_dict()
    again, copied = InferenceError.from_dict(told), pickle.loads(pickle.dumps(error))
    assert type(again) is type(copied) is type(error) and again.to_dict() == copied.to_dict() == told
    json.dumps(told, allow_nan=False, ensure_ascii=False).encode()
    assert error.retry_after is None or (type(error.retry_after) in (int, float) and 0 <= error.retry_after < math.inf)
    assert error.status is None or type(error.status) is int
    for flag in (error.retryable, error.counts_as_circuit_failure, error.blames_key):
        assert type(flag) is bool
    check_text(error.provider)
    kept = [text for text in (error.message, error.code, error.body, error.provider_request_id) if text is not None]
    for text in (*kept, str(error), repr(error)):
        check_text(text)
        assert not any(leak in text for leak in leaks), f"the credential is in {text!r}"
    assert all(len(text) <= EXCERPT_CHARS + 100 for text in kept), [len(text) for text in kept]
    if isinstance(error.cause, InferenceError):
        check_error(error.cause, leaks)


def check_outcome(target: Target, outcome: Outcome, secret: str) -> None:
    for chunk in outcome.chunks:
        check_chunk(chunk)
    check_usage(outcome.usage)
    if outcome.error is not None:
        check_error(outcome.error, (secret,))
    answer = Tokens.from_chunks(outcome.chunks)
    json.dumps(answer.to_dict(), allow_nan=False, ensure_ascii=False).encode()
    if outcome.error is None:
        check_going_on(target, answer)


def check_going_on(target: Target, answer: Tokens) -> None:
    """Whatever an answer says, the conversation goes on with it, or a field of it is refused."""
    question = Message("user", "go on")
    results = [Message("tool", "done", tool_call_id=call.id or "call", name=call.name) for call in answer.tool_calls]
    try:
        batch = ExecuteBatch([question, answer.message(), *results, question])
        request = target.codec.encode(batch, SessionSnapshot(1, Credential("key")))
    except ValueError:
        return
    assert isinstance(request, HttpRequest)
    json.loads(bytes(request.body))


# ---- driving ----------------------------------------------------------------------------------------------------------


def asking(target: Target, choices: int) -> ExecuteBatch:
    """A request for so many answers."""
    extra: dict[str, Json] = {}
    if choices != 1:
        extra = {"generationConfig": {"candidateCount": choices}} if target.wire == "gemini" else {"n": choices}
    return ExecuteBatch([Message("user", "hello")], extra=extra)


def exchanged(
    target: Target,
    status: int,
    sent: Headers,
    pieces: Sequence[bytes],
    secret: str,
    *,
    choices: int = 1,
    stream: bool = True,
    breaks: bool = False,
) -> Outcome:
    """A response through an `Exchange`. breaks: whether the connection breaks at its end."""
    session = SessionSnapshot(1, Credential(secret))
    exchange = Exchange(ExchangeConfig(target.codec, Timeouts()), asking(target, choices), session, 0.0, stream=stream)
    exchange.sending(0.0)
    exchange.receive_head(status, sent, 0.0, NOW)
    chunks = [chunk for piece in pieces for chunk in exchange.receive_body(piece, 0.0)]
    chunks += exchange.fail(NetworkError("it broke"), 0.0) if breaks else exchange.receive_end(0.0)
    assert exchange.outcome is not None, "no outcome"
    return Outcome(chunks, exchange.outcome.error, exchange.outcome.usage)


def check_decoder(target: Target, pieces: Sequence[bytes], choices: int, more: bytes) -> list[TokenChunk]:
    """The decoder by itself: what its attributes say at any time, and that nothing comes after its end.

    more: a right stream.
    """
    sse, decoder = SseDecoder(), target.codec.stream_decoder(asking(target, choices))
    chunks: list[TokenChunk] = []
    for piece in (*pieces, None, more):
        error, ended = decoder.error, decoder.terminal or decoder.error is not None
        complete, usage = decoder.complete, decoder.usage
        if piece is None:
            events = sse.finish(dispatch_incomplete=True)
        else:
            events = SseDecoder().feed(piece) if piece is more else sse.feed(piece)
        new = decoder.decode(events)
        if ended:
            assert new == [] and decoder.error is error, "decoded after the end"
            assert (decoder.complete, decoder.usage) == (complete, usage)
        if decoder.error is not None:
            check_error(decoder.error, ())
            assert not decoder.complete or isinstance(decoder.error, ProtocolError), "complete, in spite of an error"
        assert type(decoder.complete) is bool and type(decoder.terminal) is bool
        check_usage(decoder.usage)
        if piece is not more:
            chunks += new
    for chunk in chunks:
        check_chunk(chunk)
    return chunks


def may_be_complete(wire: Format, data: bytes, choices: int) -> bool:
    """Whether the proof that a stream is complete stands in these bytes. They are read by other means than the codec's."""
    sse = SseDecoder()
    proofs = 0
    for event in [*sse.feed(data), *sse.finish(dispatch_incomplete=True)]:
        try:
            tree = json.loads(event.data, parse_int=_no_number)
        except (ValueError, RecursionError):
            proofs += any(word in event.data for word in ("finish", "complete", "message_stop"))  # it is not known
            continue
        match wire:
            case "chat":
                proofs += _count_of(tree, "choices", "finish_reason")
            case "gemini":
                trees = tree if isinstance(tree, list) else [tree]
                proofs += sum(_count_of(each, "candidates", "finishReason") for each in trees)
            case "anthropic":
                proofs += "message_stop" in (_field(tree, "type"), event.event)
            case "responses":
                ends = ("response.completed", "response.incomplete")
                proofs += any(name in ends for name in (_field(tree, "type"), event.event))
    return proofs >= choices


def _no_number(digits: str) -> int:
    return len(digits)


def _field(tree: Json, name: str) -> Json:
    return tree.get(name) if isinstance(tree, dict) else None


def _count_of(tree: Json, many: str, reason: str) -> int:
    """How many of these have a reason to end."""
    each = _field(tree, many)
    return (
        sum(isinstance(_field(one, reason), str) and bool(_field(one, reason)) for one in each)
        if isinstance(each, list)
        else 0
    )


def check_said(target: Target, chunks: list[TokenChunk], said: Said) -> None:
    """The answer is what it was made to say."""
    answer = Tokens.from_chunks(chunks)
    assert [answer.text, *(other.text for other in answer.others)] == said.texts
    assert (answer.reasoning, answer.refusal) == (said.reasoning, said.refusal)
    assert [(call.id, call.name, json.loads(call.arguments)) for call in answer.tool_calls] == said.calls
    counted = None if answer.usage is None else (answer.usage.input_tokens, answer.usage.output_tokens)
    assert counted == said.counts, (counted, said.counts)
    assert answer.finish_reason is not None
    assert answer.usage is None or answer.usage.provenance == "exact"


# ---- the cases --------------------------------------------------------------------------------------------------------


def right_stream(target: Target, rng: Random) -> None:
    """A stream that is right says what it was made to say, however it is framed and cut."""
    stream = STREAMS[target.wire](rng)
    data, _ = framed(rng, stream.events, odd=rng.random() < 0.5)
    for pieces in ([data], cuts(rng, data)):
        outcome = exchanged(target, 200, (STREAM_TYPE,), pieces, SECRETS[0], choices=stream.choices)
        assert outcome.error is None, outcome.error
        check_outcome(target, outcome, SECRETS[0])
        check_said(target, outcome.chunks, stream.said)


def right_body(target: Target, rng: Random) -> None:
    """So does a whole answer."""
    body = BODIES[target.wire](rng)
    outcome = exchanged(target, 200, (), [written(rng, body.tree, odd=True)], SECRETS[0], stream=False)
    assert outcome.error is None, outcome.error
    check_outcome(target, outcome, SECRETS[0])
    check_said(target, outcome.chunks, body.said)


def broken_stream(target: Target, rng: Random) -> None:
    """Anything at all, as a stream."""
    stream = STREAMS[target.wire](rng)
    events = broken_events(rng, stream.events) if rng.random() < 0.9 else stream.events
    data, _ = framed(rng, events, odd=rng.random() < 0.3)
    if rng.random() < 0.3:
        data = broken_bytes(rng, data)
    secret, choices = rng.choice(SECRETS), rng.choice((stream.choices, stream.choices, 1, 2))
    sent = (*headers(rng), STREAM_TYPE)
    whole = exchanged(target, 200, sent, [data], secret, choices=choices)
    check_outcome(target, whole, secret)
    cut = exchanged(target, 200, sent, pieces := cuts(rng, data), secret, choices=choices)
    assert cut.told() == whole.told(), "it matters how the bytes are cut"
    if whole.error is None or rng.random() < 0.1:
        proven = may_be_complete(target.wire, data, 1 if target.wire in ("anthropic", "responses") else choices)
        assert proven or whole.error is not None, "a success without its proof"
        broken = exchanged(target, 200, sent, pieces, secret, choices=choices, breaks=True)
        check_outcome(target, broken, secret)
        assert proven or broken.error is not None, "a success without its proof"
    more, _ = framed(rng, STREAMS[target.wire](rng).events)
    assert check_decoder(target, pieces, choices, more) == check_decoder(target, [data], choices, more)
    if choices == 1:
        chunks, error = replay_response(target.codec, 200, sent, [data])
        assert (chunks, type(error)) == (whole.chunks, type(whole.error))


def cut_off_stream(target: Target, rng: Random) -> None:
    """A right stream that ends anywhere: a success from its proof on, and not before."""
    stream = STREAMS[target.wire](rng)
    data, ends = framed(rng, stream.events, odd=rng.random() < 0.5)
    in_data, dispatched = ends[stream.proof]
    at = rng.choice((rng.randint(0, len(data)), rng.randint(max(0, in_data - 9), min(len(data), dispatched + 9))))
    for breaks in (False, True):
        outcome = exchanged(
            target, 200, (STREAM_TYPE,), cuts(rng, data[:at]), SECRETS[0], choices=stream.choices, breaks=breaks
        )
        check_outcome(target, outcome, SECRETS[0])
        if at < (dispatched - 1 if stream.last else in_data):  # of a CRLF, the CR ends the line
            assert outcome.error is not None, f"a success after {at} of {len(data)} bytes"
            assert outcome.error.retryable or outcome.chunks, outcome.error
        elif at >= dispatched:
            assert outcome.error is None, f"{outcome.error} after {at} of {len(data)} bytes"


def failed_stream(target: Target, rng: Random) -> None:
    """A right stream with an error before its last event: never a success, and nothing after the error is decoded."""
    stream = STREAMS[target.wire](rng)
    at = rng.randint(0, stream.proof if stream.last else len(stream.events) - 1)
    events = [*stream.events[:at], *error_events(target.wire, rng), *stream.events[at:]]
    data, ends = framed(rng, events, odd=rng.random() < 0.3)
    if target.wire == "chat" and at == len(stream.events) - 1 and rng.random() < 0.5:
        data = data[: ends[at][1]]  # without [DONE]
    outcome = exchanged(target, 200, (STREAM_TYPE,), cuts(rng, data), SECRETS[0], choices=stream.choices)
    check_outcome(target, outcome, SECRETS[0])
    assert outcome.error is not None, "a success in spite of an error"
    before = exchanged(
        target, 200, (STREAM_TYPE,), [data[: ends[at - 1][1] if at else 0]], SECRETS[0], choices=stream.choices
    )
    assert Tokens.from_chunks(outcome.chunks).text == Tokens.from_chunks(before.chunks).text


def broken_body(target: Target, rng: Random) -> None:
    """Anything at all, as a whole answer."""
    body = BODIES[target.wire](rng)
    tree = body.tree
    for _ in range(rng.randint(0, 3)):
        tree = broken_tree(rng, tree)
    is_error = rng.random() < 0.15
    if is_error:
        tree = rng.choice(REFUSALS[target.wire])[1]
        is_error = isinstance(tree, list) or bool({"error", "promptFeedback"} & set(tree))
    data = written(rng, tree, odd=rng.random() < 0.3)
    cut_off = rng.random() < 0.15 and tree is body.tree
    if is_error and rng.random() < 0.5:
        data, is_error = broken_bytes(rng, data), False
    elif cut_off:
        data = data[: rng.randrange(len(data))]
    elif rng.random() < 0.3:
        data = broken_bytes(rng, data)
    sent, secret = headers(rng), rng.choice(SECRETS)
    outcome = exchanged(target, 200, sent, cuts(rng, data), secret, stream=False)
    check_outcome(target, outcome, secret)
    assert outcome.error is not None or not (cut_off or is_error), "half an answer, or an error, is a success"
    lower = tuple((name.lower(), value) for name, value in sent)
    answer = target.codec.decode_unary(data, lower)
    if isinstance(answer, InferenceError):
        check_error(answer, ())
        assert outcome.error is not None
    else:
        assert answer and answer == outcome.chunks


def refusal(target: Target, rng: Random) -> None:
    """Any status, headers and body, as a response that is no answer."""
    status, tree = rng.choice(REFUSALS[rng.choice((target.wire, rng.choice(list(REFUSALS))))])
    if rng.random() < 0.7:
        tree = broken_tree(rng, tree)
    if rng.random() < 0.3:
        status = rng.choice((rng.randint(-1, 999), 0, 10**9, 200, 204, 301, 529))
    body = written(rng, tree)
    match rng.randrange(8):
        case 0:
            body = rng.choice(NOT_JSON)
        case 1:
            body = broken_bytes(rng, body)
        case 2:
            body = written(rng, junk(rng))
        case 3:
            body = written(rng, BODIES[target.wire](rng).tree)
        case _:
            pass
    secret, sent = rng.choice(SECRETS), headers(rng)
    # Half a key is a leak too, unless there was no more of it.
    leaks = (secret,) if secret[:20].encode() in body.replace(b"\\/", b"/") else (secret, secret[:20])
    if rng.random() < 0.3:
        body = body[: (at := rng.randrange(len(body) + 1))] + secret.encode() + body[at:]
    if rng.random() < 0.3:
        sent = (*sent, ("content-type", rng.choice(("text/html", "application/json", "", secret, "é" * 300))))
    now = rng.choice((NOW, 0.0, -1e9, 1e18, math.inf, -math.inf, 253402300799.0))
    check_error(target.codec.classify(status, sent, body, now), ())
    check_limits(target, sent, now)
    stream = rng.random() < 0.5
    if status != 200:
        outcome = exchanged(target, status, sent, cuts(rng, body), secret, stream=stream)
        assert outcome.error is not None and not outcome.chunks
        check_error(outcome.error, leaks)
        assert outcome.told() == exchanged(target, status, sent, [body], secret, stream=stream).told()


def check_limits(target: Target, sent: Headers, now: float) -> None:
    seen = target.codec.rate_limit_snapshot(sent, now)
    if seen is None:
        return
    for each in (seen.requests, seen.tokens, seen.input_tokens, seen.output_tokens):
        if each is not None:
            for count in (each.limit, each.remaining):
                assert count is None or (type(count) is int and count >= 0), each
            assert each.reset_after is None or 0 <= each.reset_after < math.inf, each
    assert seen.exhausted_for() is None or 0 <= (seen.exhausted_for() or 0) < math.inf


KINDS: Final[Sequence[tuple[Callable[[Target, Random], None], int]]] = (
    (broken_stream, 8),
    (broken_body, 4),
    (refusal, 6),
    (cut_off_stream, 2),
    (failed_stream, 1),
    (right_stream, 1),
    (right_body, 1),
)
"""The kinds of cases, and how many of each come in a row."""

ROUND: Final = sum(many for _, many in KINDS)
_IN_ORDER: Final = [kind for kind, many in KINDS for _ in range(many)]


def kind_of(number: int) -> Callable[[Target, Random], None]:
    return _IN_ORDER[number % ROUND]


def run_case(target: Target, seed: int, number: int) -> None:
    """One case. Raises what the codec raised, or `AssertionError`."""
    kind_of(number)(target, Random(f"{seed}/{target.name}/{number}"))


# ---- bounds -----------------------------------------------------------------------------------------------------------


def giants(wire: Format) -> Iterator[tuple[str, bytes]]:
    """Streams that are cheap to send and may be dear to take."""
    many = 20_000
    match wire:
        case "chat":
            call = {"index": 10**9, "id": "c", "function": {"name": "f", "arguments": "{}"}}
            yield "an index", _sse({"choices": [{"index": 10**9, "delta": {"content": "x", "tool_calls": [call]}}]})
            calls: list[Json] = [{**call, "index": index * 10**6} for index in range(many)]
            yield "calls", _sse({"choices": [{"index": 0, "delta": {"tool_calls": calls}}]})
            nameless: list[Json] = [{"id": f"c{index}"} for index in range(many)]
            yield "calls without index", _sse({"choices": [{"index": 0, "delta": {"tool_calls": nameless}}]})
            yield "choices", _sse({"choices": [{"index": index, "delta": {"content": "x"}} for index in range(many)]})
        case "responses":
            at = {"output_index": 10**9, "content_index": 10**9}
            yield "an index", _sse({"type": "response.output_text.delta", **at, "delta": "x"})
            parts: list[Json] = [
                {"type": "response.function_call_arguments.delta", "output_index": index * 10**6, "delta": "x"}
                for index in range(many)
            ]
            yield "calls", _sse(*parts)
            yield "items", _sse({"type": "response.completed", "response": {"output": [{"type": "message"}] * many}})
        case "anthropic":
            block = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
            yield "an index", _sse({"type": "content_block_start", "index": 10**9, "content_block": block})
            starts: list[Json] = [
                {"type": "content_block_start", "index": index * 10**6, "content_block": block} for index in range(many)
            ]
            yield "blocks", _sse(*starts)
            delta = {"type": "content_block_delta", "index": 10**9, "delta": {"type": "thinking_delta", "thinking": "x"}}
            yield "thoughts", _sse(*[delta] * many)
        case "gemini":
            yield "an index", _sse({"candidates": [{"index": 10**9, "content": {"parts": [{"text": "x"}]}}]})
            yield "candidates", _sse({"candidates": [{"index": index * 10**6} for index in range(many)]})
            made = {"functionCall": {"name": "f", "args": {}}}
            yield "calls", _sse({"candidates": [{"content": {"parts": [made] * many}}]})


def _sse(*trees: Json) -> bytes:
    return framed(Random(0), [Event(tree) for tree in trees])[0]


# ---- the long run -----------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs cases until the time is up. 1 where any of them found something."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to run (60)")
    parser.add_argument("--seed", type=int, default=0, help="what all cases follow from (0)")
    parser.add_argument("--case", help="run one case only, such as anthropic/1234")
    chosen = parser.parse_args(arguments)
    if chosen.case is not None:
        name, _, number = chosen.case.partition("/")
        run_case(TARGETS[name], chosen.seed, int(number))
        return 0
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, resource.getrlimit(resource.RLIMIT_AS)[1]))
    return _long_run(chosen.seed, chosen.seconds)


def _long_run(seed: int, seconds: float) -> int:
    started = reported = time.monotonic()
    found: Counter[str] = Counter()
    done = 0
    slowest: tuple[float, str] = (0.0, "")
    for number in itertools.count():
        for target in TARGETS.values():
            case = f"{target.name}/{number}"
            began = time.process_time()
            try:
                run_case(target, seed, number)
            except Exception as error:  # whatever it is, it is what was looked for
                last = traceback.extract_tb(error.__traceback__)[-1]
                where = f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
                found[where] += 1
                if found[where] <= 3:
                    _say(f"FOUND by {kind_of(number).__name__} {case} --seed {seed}: {where}\n{_short(error)}")
            took = time.process_time() - began
            slowest = max(slowest, (took, case))
            if took > MOST_SECONDS:
                found["slow"] += 1
                _say(f"FOUND by {case} --seed {seed}: it took {took:.1f} s")
            done += 1
        now = time.monotonic()
        if now - reported > 60 or now - started > seconds:
            reported = now
            _say(f"{now - started:.0f} s: {done} cases, slowest {slowest[0]:.2f} s ({slowest[1]}), found {dict(found)}")
        if now - started > seconds:
            break
    return 1 if found else 0


def _short(error: Exception) -> str:
    return "".join(traceback.format_exception(error, limit=-4))[-3000:]


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
