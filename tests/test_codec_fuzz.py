"""The fuzz of the codecs (`fuzz_codecs.py`), as long as the suite can wait: a hundred thousand cases, each time the same."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest
from fuzz_answers import FORMATS, Format
from fuzz_codecs import KINDS, ROUND, STREAM_TYPE, TARGETS, exchanged, giants, kind_of, main, run_case

from sansio import InferenceError, TokenChunk, TokenUsage
from sansio.exchange import Exchange
from sansio.providers import anthropic_answers, gemini_answers, openai_answers, openai_errors, responses_answers

pytestmark = pytest.mark.no_cover  # it looks for what it was not written for

SEED = 6
PARTS = 2
ROUNDS = 280
"""In each part, and for each codec."""


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("name", TARGETS)
def test_whatever_is_sent_nothing_raises_lies_or_leaks(name: str, part: int) -> None:
    _run_cases(name, range(part * ROUNDS * ROUND, (part + 1) * ROUNDS * ROUND))


def _run_cases(name: str, numbers: range) -> None:
    for number in numbers:
        try:
            run_case(TARGETS[name], SEED, number)
        except Exception as error:
            error.add_note(
                f"by {kind_of(number).__name__}: python tests/fuzz_codecs.py --seed {SEED} --case {name}/{number}"
            )
            raise


@pytest.mark.parametrize("wire", FORMATS)
def test_what_is_cheap_to_send_is_cheap_to_take(wire: Format) -> None:
    """No number in a stream allocates by itself: neither an index of a billion nor a million places between two."""
    target = next(target for target in TARGETS.values() if target.wire == wire)
    for name, data in giants(wire):
        tracemalloc.start()
        try:
            exchanged(target, 200, (STREAM_TYPE,), [data], "credential")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 100_000 + 40 * len(data), f"{name}: {peak} bytes for {len(data)}"


def test_one_case_can_be_run_again() -> None:
    assert main(["--seed", "6", "--case", "openai/7"]) == 0


# ---- defects that the fuzz has to find --------------------------------------------------------------------------------


def _raises(*_: object, **__: object) -> InferenceError:
    raise KeyError("content")


def _says_all_is_well(self: Exchange) -> list[TokenChunk]:
    return self._succeed([])


def _keeps_the_credential(self: InferenceError, secrets: object) -> None:
    pass


def _counts_below_zero(*_: object, **__: object) -> TokenUsage:
    return TokenUsage(input_tokens=-1)


def _leaves_text_alone(value: object) -> str:
    return value if isinstance(value, str) else ""


def _is_no_error(*_: object, **__: object) -> None:
    return None


DEFECTS: dict[str, tuple[str, object, str, Callable[..., object]]] = {
    "garbled JSON raises": ("openai", openai_answers, "garbled", _raises),
    "an error event raises": ("azure_responses", responses_answers, "in_band_error", _raises),
    "a refusal raises": ("mistral", openai_errors, "read_error", _raises),
    "an early end is a success": ("anthropic", Exchange, "_end_stream", _says_all_is_well),
    "a credential is kept": ("gemini", InferenceError, "redact", _keeps_the_credential),
    "halves of surrogates are kept": ("litellm", openai_answers, "as_str", _leaves_text_alone),
    "usage below zero": ("vertex", gemini_answers, "_token_usage", _counts_below_zero),
    "errors are passed over": ("anthropic", anthropic_answers, "in_band_error", _is_no_error),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_planted_defect_is_found(defect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, where, what, instead = DEFECTS[defect]
    monkeypatch.setattr(where, what, instead)
    with pytest.raises((AssertionError, KeyError, UnicodeError, TypeError)):
        _run_cases(name, range(100 * ROUND))


def test_all_kinds_of_cases_come_up() -> None:
    assert {kind_of(number) for number in range(ROUND)} == {kind for kind, _ in KINDS}
