"""What the mock says: text that tells whose answer it is, and OpenAI's way to write it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sansio.simulation import Ask, OpenAiChat, Refusal, count_tokens, expected_text, prompt_id
from sansio.simulation.provider.answers import MAX_OUTPUT_TOKENS, Choice, compose
from sansio.simulation.provider.http_date import DateForm, http_date
from sansio.simulation.provider.openai_chat import go_duration


def one(prompt: str, **fields: Any) -> Choice:
    return compose(Ask("m", prompt, **fields), 5).choices[0]


# --- answers ----------------------------------------------------------------------------------------------------------


def test_the_text_is_the_prompt_and_numbered_words() -> None:
    assert expected_text("hello", 4) == "[hello] w1 w2 w3"
    assert expected_text("hello", 2, choice=1) == "[hello/1] w1"
    assert list(one("hello").pieces()) == ["[hello]", " w1", " w2", " w3", " w4"]


@pytest.mark.parametrize(
    ("prompt", "limit", "tokens", "kind", "finish"),
    [
        ("hello", None, 5, "text", "stop"),
        ("hello", 5, 5, "text", "stop"),
        ("hello", 4, 4, "text", "length"),
        ("hello #tokens=9", None, 9, "text", "stop"),
        ("#tokens=9 hello", 8, 8, "text", "length"),
        ("x#tokens=9", None, 5, "text", "stop"),
        ("#tokens=999999", None, MAX_OUTPUT_TOKENS, "text", "stop"),
        ("no #refuse", None, 5, "refusal", "stop"),
        ("bad #filter", None, 5, "text", "content_filter"),
        ("#tool without any on offer", None, 5, "text", "stop"),
    ],
)
def test_markers_and_limits_shape_the_answer(prompt: str, limit: int | None, tokens: int, kind: str, finish: str) -> None:
    choice = one(prompt, max_output_tokens=limit)
    assert (choice.tokens, choice.kind, choice.finish) == (tokens, kind, finish)


def test_a_tool_call_carries_the_prompt_as_its_argument() -> None:
    choice = one("#tool please", tools=("look_up", "other"))
    assert (choice.kind, choice.tool, choice.finish, choice.text) == (
        "tool_call", "look_up", "tool_calls", '{"prompt": "#tool please"}',
    )  # fmt: skip
    assert one("#tool=other", tools=("look_up", "other")).tool == "other"
    cut = one("#tool please", tools=("look_up",), max_output_tokens=1)
    assert (cut.text, cut.finish) == ('{"prompt', "length")


def test_the_result_of_a_call_is_answered_in_text() -> None:
    assert one("#tool", tools=("look_up",), tool_results=True).kind == "text"


def test_an_answer_counts_the_tokens_of_all_choices() -> None:
    answer = compose(Ask("m", "hi", input_tokens=7, choices=3), 5)
    assert (answer.input_tokens, answer.output_tokens, answer.total_tokens) == (7, 15, 22)


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2)])
def test_four_characters_are_a_token(text: str, tokens: int) -> None:
    assert count_tokens(text) == tokens


def test_a_long_prompt_is_known_by_its_beginning_and_a_digest() -> None:
    assert prompt_id("x" * 60) == "x" * 60
    assert re.fullmatch("x{40}…[0-9a-f]{12}", prompt_id("x" * 61))
    assert prompt_id("x" * 61) != prompt_id("x" * 62)
    assert expected_text("x" * 61, 1) == f"[{prompt_id('x' * 61)}]"


@given(st.lists(st.text(max_size=200), unique=True, max_size=10))
def test_different_prompts_have_different_ids_of_bounded_length(prompts: list[str]) -> None:
    ids = [prompt_id(prompt) for prompt in prompts]
    assert len(set(ids)) == len(ids)
    assert all(len(found) <= 60 for found in ids)


# --- OpenAI's format --------------------------------------------------------------------------------------------------

MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ([], None),
        ("text", None),
        ({}, "model"),
        ({"model": ""}, "model"),
        ({"model": 1}, "model"),
        ({"model": "m"}, "messages"),
        ({"model": "m", "messages": []}, "messages"),
        ({"model": "m", "messages": "hi"}, "messages"),
        ({"model": "m", "messages": [{"role": "user"}, "hi"]}, "messages"),
        ({"model": "m", "messages": [{"content": "hi"}]}, "messages"),
        ({"model": "m", "messages": MESSAGES, "max_tokens": 0}, "max_completion_tokens"),
        ({"model": "m", "messages": MESSAGES, "max_completion_tokens": True}, "max_completion_tokens"),
        ({"model": "m", "messages": MESSAGES, "max_completion_tokens": "5"}, "max_completion_tokens"),
        ({"model": "m", "messages": MESSAGES, "n": 0}, "n"),
        ({"model": "m", "messages": MESSAGES, "n": 129}, "n"),
        ({"model": "m", "messages": MESSAGES, "n": 1.0}, "n"),
        ({"model": "m", "messages": MESSAGES, "stream": "yes"}, "stream"),
    ],
)
def test_a_wrong_body_is_refused_with_the_field(body: Any, param: str | None) -> None:
    refusal = OpenAiChat().parse("/v1/chat/completions", body)
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.type, refusal.param) == (400, "invalid_request_error", param)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"stream": False, "include_usage": False, "max_output_tokens": None, "choices": 1}),
        ({"stream": None, "n": None}, {"stream": False, "choices": 1}),
        ({"stream": True, "stream_options": {"include_usage": True}}, {"stream": True, "include_usage": True}),
        ({"stream_options": {"include_obfuscation": False}}, {"obfuscated": False}),
        ({"stream_options": [1]}, {"include_usage": False, "obfuscated": True}),
        ({"max_tokens": 3}, {"max_output_tokens": 3}),
        ({"max_tokens": 3, "max_completion_tokens": 4}, {"max_output_tokens": 4}),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, {"tools": ("f",)}),
        ({"tools": [1, {}, {"function": 2}, {"function": {"name": 3}}, {"function": {"name": ""}}]}, {"tools": ()}),
        ({"tools": "f"}, {"tools": ()}),
        ({"n": 2, "unknown": object()}, {"choices": 2}),
    ],
)
def test_the_fields_it_honours(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    asked = OpenAiChat().parse("", {"model": "m", "messages": MESSAGES, **fields})
    assert isinstance(asked, Ask)
    assert {name: getattr(asked, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("messages", "prompt", "tokens", "tool_results"),
    [
        ([("system", "be nice"), ("user", "one"), ("assistant", "1"), ("user", "two")], "two", 5, False),
        ([("system", "only me")], "only me", 2, False),
        ([("user", [{"type": "text", "text": "a"}, {"type": "image_url"}, "x", {"text": "b"}])], "ab", 1, False),
        ([("user", None)], "", 1, False),
        ([("user", "go"), ("assistant", None), ("tool", "42")], "go", 2, True),
    ],
)
def test_the_prompt_is_the_last_user_message(messages: list[Any], prompt: str, tokens: int, tool_results: bool) -> None:
    asked = OpenAiChat().parse("", {"model": "m", "messages": [{"role": r, "content": c} for r, c in messages]})
    assert isinstance(asked, Ask)
    assert (asked.prompt, asked.input_tokens, asked.tool_results) == (prompt, tokens, tool_results)


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({"authorization": "Bearer k"}, "k"),
        ({"authorization": "bearer  k "}, "k"),
        ({"authorization": "Basic k"}, None),
        ({"authorization": "Bearer "}, None),
        ({"api-key": "k"}, "k"),
        ({}, None),
    ],
)
def test_where_the_key_is(headers: dict[str, str], key: str | None) -> None:
    assert OpenAiChat().key(headers) == key


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"),
        (0.0001, "1ms"),
        (0.02, "20ms"),
        (1.0, "1s"),
        (50.529, "50.529s"),
        (1.5, "1.5s"),
        (60.0, "1m0s"),
        (90.0, "1m30s"),
        (360.0, "6m0s"),
        (179.56, "2m59.56s"),
        (3600.0, "1h0m0s"),
        (86_399.0, "23h59m59s"),
    ],
)
def test_durations_look_as_go_prints_them(seconds: float, text: str) -> None:
    assert go_duration(seconds) == text


# --- dates ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unix", "form", "text"),
    [
        (784111777.0, "imf", "Sun, 06 Nov 1994 08:49:37 GMT"),
        (784111776.1, "imf", "Sun, 06 Nov 1994 08:49:37 GMT"),
        (784111777.0, "rfc850", "Sunday, 06-Nov-94 08:49:37 GMT"),
        (784111777.0, "asctime", "Sun Nov  6 08:49:37 1994"),
        (0.0, "imf", "Thu, 01 Jan 1970 00:00:00 GMT"),
    ],
)
def test_the_three_forms_of_a_date(unix: float, form: DateForm, text: str) -> None:
    assert http_date(unix, form) == text
