"""The vocabulary of requests and answers: what is refused, and how chunks fold into an answer."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
import tracemalloc
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sansio.batch import (
    ExecuteBatch,
    ImagePart,
    Message,
    TextPart,
    Thought,
    TokenChunk,
    Tokens,
    TokensBuilder,
    TokenUsage,
    Tool,
    ToolCall,
    ToolCallDelta,
)

HELLO = Message("user", "hello")


# Requests


def test_a_request_needs_only_messages() -> None:
    batch = ExecuteBatch([HELLO])
    assert batch.messages == [HELLO]
    assert (batch.max_output_tokens, batch.temperature, batch.tools, batch.metadata, batch.extra) == (None, None, (), {}, {})
    assert ExecuteBatch([HELLO]).extra is not batch.extra


def test_a_request_takes_parts_tools_and_calls() -> None:
    call = ToolCall("c1", "weather", '{"city": "Bern"}')
    batch = ExecuteBatch(
        [
            Message("user", [TextPart("what is this?"), ImagePart("https://h/i.png", "low")]),
            Message("assistant", tool_calls=[call]),
            Message("tool", "12 °C", tool_call_id="c1"),
        ],
        tools=[Tool("weather", parameters={"type": "object"})],
    )
    assert batch.messages[1].tool_calls == [call]
    assert batch.tools[0].strict is None


@pytest.mark.parametrize("messages", [[], ()])
def test_a_request_without_messages_is_refused(messages: Sequence[Message]) -> None:
    with pytest.raises(ValueError, match=r"^messages: is empty"):
        ExecuteBatch(messages)


@pytest.mark.parametrize(
    ("messages", "name"), [("hello", "str"), ([HELLO, {"role": "user", "content": "x"}], "dict"), ([None], "NoneType")]
)
def test_what_is_no_message_is_refused_by_its_type(messages: Any, name: str) -> None:
    with pytest.raises(ValueError, match=f"^messages: {name} is not a Message; write Message"):
        ExecuteBatch(messages)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("max_output_tokens", [0, -1, True, math.inf, math.nan, "5", 5.0]),
        ("seed", ["5", 5.0, True, math.nan]),
        ("temperature", [-0.1, -1, math.nan, math.inf, -math.inf, False, "1"]),
        ("top_p", [-0.1, 1.1, 2, math.nan, math.inf, True, "1"]),
    ],
)
def test_a_number_out_of_range_is_refused_by_name(field: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ValueError, match=f"^{field}: .* is not a (whole number;|number from [01] to )"):
            ExecuteBatch([HELLO], **{field: value})


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("max_output_tokens", [None, 1, 10**6]),
        ("seed", [None, 0, -1, 2**63]),
        ("temperature", [None, 0, 0.0, 2.0, 5]),
        ("top_p", [None, 0, 0.5, 1, 1.0]),
    ],
)
def test_a_number_in_range_is_taken(field: str, values: list[Any]) -> None:
    for value in values:
        assert getattr(ExecuteBatch([HELLO], **{field: value}), field) == value


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("messages", iter([HELLO]), "list_iterator is not a list or tuple"),
        ("messages", 5, "int is not a list or tuple"),
        ("tools", [1], r"int is not a Tool; write Tool\(name="),
        ("tools", None, "NoneType is not a list or tuple; leave it out"),
        ("stop", "abc", r"'abc' is one str; write stop=\('abc',\)"),
        ("stop", "", "'' is one str"),
        ("stop", [1], "int is not a str"),
        ("stop", None, "NoneType is not a list or tuple"),
        ("metadata", None, "NoneType is not a mapping; leave it out or give a dict"),
        ("metadata", [("a", "b")], "list is not a mapping"),
        ("extra", None, "NoneType is not a mapping; leave it out or give a dict"),
        ("extra", '{"n": 2}', "str is not a mapping"),
    ],
)
def test_what_is_of_another_type_is_refused_by_name(field: str, value: Any, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}: {why}"):
        ExecuteBatch(**{"messages": [HELLO], field: value})


@pytest.mark.parametrize("said", [{"tool_calls": [ToolCall("c1", "f", "{}")]}, {"refusal": "no"}])
def test_no_content_beside_a_call_or_a_refusal_is_an_empty_one(said: dict[str, Any]) -> None:
    none: Any = None
    assert Message("assistant", none, **said) == Message("assistant", "", **said)


@pytest.mark.parametrize("content", [None, 5, b"x", bytearray(b"x"), memoryview(b"x"), {"type": "text"}, iter(())])
def test_other_content_is_refused(content: Any) -> None:
    with pytest.raises(ValueError, match=f"^content: {type(content).__name__} is neither a str nor a list of TextPart and"):
        Message("user", content)


@pytest.mark.parametrize("calls", [None, [{"id": "c1"}], "call"])
def test_calls_that_are_none_are_refused(calls: Any) -> None:
    with pytest.raises(
        ValueError, match=r"^tool_calls: (NoneType is not a list|(dict|str) is not a ToolCall; write ToolCall)"
    ):
        Message("assistant", "", tool_calls=calls)


@pytest.mark.parametrize("thoughts", [None, [{"text": "hm"}], "hm", [ToolCall("c", "f", "{}")]])
def test_thoughts_that_are_none_are_refused(thoughts: Any) -> None:
    with pytest.raises(ValueError, match=r"^thoughts: (NoneType is not a list|\w+ is not a Thought; write Thought)"):
        Message("assistant", "", thoughts=thoughts)


@pytest.mark.parametrize("cache", [None, "short", "long"])
def test_how_long_to_keep_a_prompt(cache: Any) -> None:
    assert Message("user", "x", cache=cache).cache == cache


@pytest.mark.parametrize("cache", ["1h", "", True, 3600])
def test_a_lifetime_that_is_none_is_refused(cache: Any) -> None:
    with pytest.raises(ValueError, match=r"^cache: .* is none of short, long, None"):
        Message("user", "x", cache=cache)


@pytest.mark.parametrize("is_error", [None, "no", 0])
def test_whether_a_tool_failed_is_true_or_false(is_error: Any) -> None:
    assert Message("tool", "x", tool_call_id="c", is_error=True).is_error
    with pytest.raises(ValueError, match=r"^is_error: .* is neither True nor False"):
        Message("tool", "x", tool_call_id="c", is_error=is_error)


# Usage


@pytest.mark.parametrize(
    ("usage", "beside"),
    [
        (TokenUsage(1, 2, cache_write_tokens=9, cache_write_long_tokens=4), {"cache_write_long_tokens": 4}),
        (TokenUsage(1, 2, service_tier="flex"), {"service_tier": "flex"}),
        (TokenUsage(1, 2, cost_usd=0.25), {"cost_usd": 0.25}),
        (TokenUsage(1, 2, cost_usd=0.0), {"cost_usd": 0.0}),  # said to be free, which is not the same as not said
    ],
)
def test_what_few_providers_say_is_written_where_it_was_said(usage: TokenUsage, beside: dict[str, Any]) -> None:
    written = usage.to_dict()
    assert {name: written[name] for name in beside} == beside
    assert set(written) == set(TokenUsage().to_dict()) | set(beside)
    assert TokenUsage.from_dict(json.loads(json.dumps(written))) == usage
    assert not {"cache_write_long_tokens", "service_tier", "cost_usd"} & set(TokenUsage().to_dict())


def test_usage_adds_up_and_round_trips() -> None:
    usage = TokenUsage(10, 5, 4, 3, 2, "lower_bound")
    assert usage.total_tokens == 15
    assert usage.to_dict() == {
        "input_tokens": 10, "output_tokens": 5, "cached_input_tokens": 4, "cache_write_tokens": 3, "reasoning_tokens": 2,
        "provenance": "lower_bound",
    }  # fmt: skip
    assert TokenUsage.from_dict(usage.to_dict()) == usage
    assert TokenUsage.from_dict({}) == TokenUsage()


# Chunks


@pytest.mark.parametrize(
    ("chunk", "commits"),
    [
        (TokenChunk(), False),
        (TokenChunk(text_delta="a"), True),
        (TokenChunk(reasoning_delta="a"), True),
        (TokenChunk(refusal_delta="a"), True),
        (TokenChunk(tool_call_deltas=(ToolCallDelta(),)), True),
        (TokenChunk(finish_reason="stop", raw_finish_reason="stop"), False),
        (TokenChunk(usage=TokenUsage(1, 1)), False),
        (TokenChunk(index=3), False),
        (TokenChunk(thought=Thought("hm", "sig")), False),  # its text has come before
    ],
)
def test_only_content_commits_an_attempt(chunk: TokenChunk, commits: bool) -> None:
    assert chunk.has_content is commits


def test_a_chunk_is_a_value() -> None:
    chunk = TokenChunk("a", usage=TokenUsage(1, 2), tool_call_deltas=(ToolCallDelta(1, "c", "f", "{"),))
    assert chunk == pickle.loads(pickle.dumps(chunk))
    assert chunk != TokenChunk("a")
    for name in TokenChunk.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(chunk, name, None)


@pytest.mark.parametrize(
    ("chunks", "tokens"),
    [
        ([], Tokens()),
        ([TokenChunk("Hel"), TokenChunk("lo")], Tokens("Hello")),
        ([TokenChunk(reasoning_delta="hm"), TokenChunk("4"), TokenChunk(refusal_delta="no")], Tokens("4", "hm", "no")),
        (
            [
                TokenChunk("a"),
                TokenChunk(finish_reason="stop", raw_finish_reason="end_turn"),
                TokenChunk(usage=TokenUsage(1, 2)),
            ],
            Tokens("a", finish_reason="stop", raw_finish_reason="end_turn", usage=TokenUsage(1, 2)),
        ),
        # usage is cumulative: the last one stands
        ([TokenChunk(usage=TokenUsage(1)), TokenChunk(usage=TokenUsage(1, 7))], Tokens(usage=TokenUsage(1, 7))),
        # the fragments of two calls, mixed; a later fragment does not rename its call
        (
            [
                TokenChunk(tool_call_deltas=(ToolCallDelta(1, "c1", "g", ""), ToolCallDelta(0, "c0", "f", '{"a"'))),
                TokenChunk(tool_call_deltas=(ToolCallDelta(0, arguments=": 1}"), ToolCallDelta(1, "late", "late", "{}"))),
            ],
            Tokens(tool_calls=(ToolCall("c0", "f", '{"a": 1}'), ToolCall("c1", "g", "{}"))),
        ),
        # what the provider wants back: the first signature of a call, and all thoughts in order
        (
            [
                TokenChunk(reasoning_delta="hm"),
                TokenChunk(thought=Thought("hm", "s1", "t1")),
                TokenChunk(tool_call_deltas=(ToolCallDelta(0, "c0", "f", "{", "sig"),)),
                TokenChunk(tool_call_deltas=(ToolCallDelta(0, arguments="}", signature="late"),)),
                TokenChunk(thought=Thought(signature="s2", redacted=True)),
                TokenChunk("b", index=1, thought=Thought("its own")),
            ],
            Tokens(
                reasoning="hm",
                tool_calls=(ToolCall("c0", "f", "{}", "sig"),),
                thoughts=(Thought("hm", "s1", "t1"), Thought(signature="s2", redacted=True)),
                others=(Tokens("b", thoughts=(Thought("its own"),)),),
            ),
        ),
        # several choices: the first is the answer, the rest stand beside it in order
        (
            [TokenChunk("c", index=2), TokenChunk("a"), TokenChunk("b", index=1, finish_reason="length"), TokenChunk("A")],
            Tokens("aA", others=(Tokens("b", finish_reason="length"), Tokens("c"))),
        ),
    ],
)
def test_chunks_fold_into_an_answer(chunks: list[TokenChunk], tokens: Tokens) -> None:
    assert Tokens.from_chunks(chunks) == tokens
    assert Tokens.from_chunks(iter(chunks)) == tokens
    assert str(tokens) == tokens.text


def test_an_answer_can_be_looked_at_before_it_is_whole() -> None:
    builder = TokensBuilder()
    builder.add([TokenChunk("a")])
    early = builder.build()
    builder.add([TokenChunk("b", finish_reason="stop")])
    assert (early, builder.build()) == (Tokens("a"), Tokens("ab", finish_reason="stop"))


def test_an_answer_is_the_assistant_s_turn_to_go_on_with() -> None:
    calls, thoughts = (ToolCall("c", "f", "{}", "sig"),), (Thought("hm", "s"), Thought(signature="x", redacted=True))
    assert Tokens("a", "hm", tool_calls=calls, thoughts=thoughts, finish_reason="tool_calls").message() == Message(
        "assistant", "a", tool_calls=calls, thoughts=thoughts
    )
    assert Tokens("", refusal="no").message() == Message("assistant", "", refusal="no")
    assert Tokens("a").message() == Message("assistant", "a")
    assert ExecuteBatch([HELLO, Tokens("a").message(), HELLO]).messages[1].refusal is None


def test_thoughts_and_signatures_are_written_out_where_there_are_any() -> None:
    tokens = Tokens(
        tool_calls=(ToolCall("c", "f", "{}", "sig"), ToolCall("d", "g", "")),
        thoughts=(Thought("hm", "s", "t"), Thought(signature="x", redacted=True), Thought()),
    )
    written = tokens.to_dict()
    assert written["tool_calls"] == [
        {"id": "c", "name": "f", "arguments": "{}", "signature": "sig"}, {"id": "d", "name": "g", "arguments": ""}
    ]  # fmt: skip
    assert written["thoughts"] == [{"text": "hm", "signature": "s", "id": "t"}, {"signature": "x", "redacted": True}, {}]
    assert Tokens.from_dict(json.loads(json.dumps(written))) == tokens


def test_an_answer_written_out_leaves_out_what_is_empty() -> None:
    assert Tokens("a").to_dict() == {"text": "a"}
    whole = Tokens("a", "b", "c", (ToolCall("i", "n", "{}"),), "stop", "", TokenUsage(1, 2), (Tokens("d"),))
    assert whole.to_dict() == {
        "text": "a", "reasoning": "b", "refusal": "c", "finish_reason": "stop", "raw_finish_reason": "",
        "tool_calls": [{"id": "i", "name": "n", "arguments": "{}"}], "usage": TokenUsage(1, 2).to_dict(),
        "others": [{"text": "d"}],
    }  # fmt: skip
    assert Tokens.from_dict(whole.to_dict()) == whole


TEXT = st.text(max_size=4)
COUNT = st.integers(0, 9)
USAGE = st.builds(TokenUsage, COUNT, COUNT, COUNT, COUNT, COUNT, st.sampled_from(["exact", "lower_bound", "unknown"]))
DELTAS = st.lists(st.builds(ToolCallDelta, st.integers(0, 2), TEXT, TEXT, TEXT, TEXT), max_size=2).map(tuple)
THOUGHTS = st.none() | st.builds(Thought, TEXT, TEXT, TEXT, st.booleans())
REASONS = st.sampled_from([None, "stop", "length", "tool_calls"])
CHUNKS = st.lists(
    st.builds(
        TokenChunk, TEXT, TEXT, TEXT, DELTAS, st.integers(0, 2), REASONS, st.none() | TEXT, st.none() | USAGE, THOUGHTS
    ),
    max_size=12,
)


def naive_choice(chunks: list[TokenChunk]) -> Tokens:
    """One choice by its definition: each field joined over all chunks, each call over all fragments of its index."""
    deltas = [delta for chunk in chunks for delta in chunk.tool_call_deltas]
    calls = []
    for index in sorted({delta.index for delta in deltas}):
        own = [delta for delta in deltas if delta.index == index]
        said = [[getattr(d, name) for d in own if getattr(d, name)] or [""] for name in ("id", "name", "signature")]
        (first_id, *_), (first_name, *_), (signature, *_) = said
        calls.append(ToolCall(first_id, first_name, "".join(d.arguments for d in own), signature))
    last = [chunk for chunk in chunks if chunk.finish_reason is not None][-1:] or [TokenChunk()]
    return Tokens(
        "".join(c.text_delta for c in chunks), "".join(c.reasoning_delta for c in chunks),
        "".join(c.refusal_delta for c in chunks), tuple(calls), last[0].finish_reason,
        last[0].raw_finish_reason if last[0].finish_reason else None,
        thoughts=tuple(c.thought for c in chunks if c.thought is not None),
    )  # fmt: skip


@given(CHUNKS, st.integers(0, 12))
@settings(max_examples=200, deadline=None)
def test_the_fold_is_its_definition_however_the_chunks_are_dealt(chunks: list[TokenChunk], cut: int) -> None:
    builder = TokensBuilder()
    builder.add(chunks[:cut])
    builder.build()
    builder.add(chunks[cut:])
    tokens = builder.build()

    indices = sorted({chunk.index for chunk in chunks})
    choices = [naive_choice([chunk for chunk in chunks if chunk.index == index]) for index in indices]
    assert [dataclasses.replace(tokens, usage=None, others=()), *tokens.others] == (choices or [Tokens()])
    usages = [chunk.usage for chunk in chunks if chunk.usage is not None]
    assert tokens.usage == (usages[-1] if usages else None)
    assert tokens == Tokens.from_chunks(chunks)


@given(CHUNKS)
@settings(max_examples=150, deadline=None)
def test_every_answer_round_trips(chunks: list[TokenChunk]) -> None:
    tokens = Tokens.from_chunks(chunks)
    assert Tokens.from_dict(json.loads(json.dumps(tokens.to_dict()))) == tokens
    assert pickle.loads(pickle.dumps(tokens)) == tokens


# ---- a long answer ------------------------------------------------------------------------------------------------------


def test_a_long_answer_is_folded_as_it_came_and_takes_little_more_than_its_text() -> None:
    deltas = [f" word{number}" for number in range(5000)]
    text = "".join(deltas)
    for field in ("text_delta", "reasoning_delta", "refusal_delta", "arguments"):
        builder = TokensBuilder()
        tracemalloc.start()
        for delta in deltas:
            copied = "".join(delta.partition("w"))  # the caller drops the chunk and its string
            call = (ToolCallDelta(0, "id", "name", copied),)
            chunk = TokenChunk(tool_call_deltas=call) if field == "arguments" else TokenChunk(**{field: copied})
            builder.add([chunk])
            del copied, call, chunk
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        whole = builder.build()
        said = whole.tool_calls[0].arguments if field == "arguments" else getattr(whole, field.removesuffix("_delta"))
        assert said == text
        assert held < 1.3 * len(text) + 8_000


@settings(max_examples=50)
@given(st.lists(st.sampled_from(["", "a", "bc" * 300, "d" * 1023, "e" * 1024, "f" * 3000]), max_size=200))
def test_deltas_of_any_length_are_joined_in_order(deltas: list[str]) -> None:
    builder = TokensBuilder()
    for position, delta in enumerate(deltas):
        builder.add([TokenChunk(delta), TokenChunk(f"{position},", index=1)])
        if position % 50 == 0:
            assert builder.build().text == "".join(deltas[: position + 1]), "looking changes nothing"
    whole = builder.build()
    assert whole.text == "".join(deltas)
    if deltas:
        assert whole.others[0].text == "".join(f"{position}," for position in range(len(deltas)))
