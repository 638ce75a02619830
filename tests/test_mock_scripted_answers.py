"""A test says itself what the mock provider answers."""

from __future__ import annotations

from typing import Any

import pytest
from mock_client import ask

from sansio.simulation import Ask, FaultScript, MockProvider, Status, expected_text
from sansio.simulation.provider.answers import Choice, compose


def scripted(text: str, **fields: Any) -> Choice:
    (choice,) = compose(Ask("m", "hi", **fields), 5, {"hi": text}).choices
    return choice


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Hi there", ["Hi ", "there"]),
        ("  Hi,\n there! ", ["  ", "Hi,\n ", "there! "]),
        ("one", ["one"]),
        ("", []),
    ],
)
def test_a_text_is_sent_a_word_at_a_time(text: str, pieces: list[str]) -> None:
    choice = scripted(text)
    assert (list(choice.pieces()), choice.text, choice.tokens) == (pieces, text, len(pieces))
    assert (choice.kind, choice.finish) == ("text", "stop")


def test_the_requests_own_limit_cuts_it() -> None:
    assert (scripted("a b c", max_output_tokens=2).text, scripted("a b c", max_output_tokens=2).finish) == ("a b ", "length")
    assert scripted("a b c", max_output_tokens=3).finish == "stop"


def test_each_choice_says_the_same_and_is_charged() -> None:
    answer = compose(Ask("m", "hi", choices=2), 5, {"hi": "a b"})
    assert ([choice.text for choice in answer.choices], answer.output_tokens) == (["a b", "a b"], 4)


def test_markers_in_a_scripted_prompt_mean_nothing() -> None:
    (choice,) = compose(Ask("m", "no #refuse #tokens=9"), 5, {"no #refuse #tokens=9": "well"}).choices
    assert (choice.kind, choice.text) == ("text", "well")


def test_another_prompt_is_answered_as_ever() -> None:
    (choice,) = compose(Ask("m", "hello"), 4, {"hi": "Hi there"}).choices
    assert choice.text == expected_text("hello", 4)


def test_a_function_sees_the_whole_request_and_may_pass() -> None:
    def answers(ask: Ask) -> str | None:
        return ask.model.upper() if ask.max_output_tokens is None else None

    assert compose(Ask("m", "hi"), 5, answers).choices[0].text == "M"
    assert compose(Ask("m", "hi", max_output_tokens=3), 5, answers).choices[0].text == expected_text("hi", 3)


def number(ask: Ask) -> Any:
    return 42


@pytest.mark.parametrize("answers", [number, {"hello": b"Hi"}])
def test_an_answer_that_is_no_text_is_a_mistake_that_is_named(answers: Any) -> None:
    with pytest.raises(ValueError, match=r"^answers: 'hello' is answered with (42|b'Hi'); give a str, or None"):
        compose(Ask("m", "hello"), 5, answers)


def test_over_the_wire_with_its_usage() -> None:
    provider = MockProvider(answers={"hello": "Hi there, you"})
    body = ask(provider, "hello", stream=False).json
    assert body["choices"][0]["message"]["content"] == "Hi there, you"
    assert body["usage"]["completion_tokens"] == provider.log[0].output_tokens == 3
    assert [piece for piece in ask(provider, "hello").deltas if piece] == ["Hi ", "there, ", "you"]


def test_a_fault_still_comes_first() -> None:
    provider = MockProvider(answers={"hello": "Hi"}, faults=FaultScript([Status(503)]))
    assert ask(provider, "hello").status == 503
