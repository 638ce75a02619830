"""`sansio.simulation.judge`: every piece of an answer once, one end, and success only with all of it (spec 5: 4, 17, 20)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from judged_rig import JudgedRig, violates

from sansio.batch import ExecuteBatch, Message, TokenChunk, TokenUsage, Tool
from sansio.errors import BadRequest, InferenceError, ServerError
from sansio.simulation.judge.callers import _Ids
from sansio.simulation.world.node import Call, batch_of
from sansio.simulation.world.plan import CallerPlan

PLAN = CallerPlan(1, 0.0, "chat", "hello", output_tokens=4)
SAID = TokenUsage(4, 4)
"""Fifteen characters are four tokens."""


class Scene:
    """A caller, and the engine's request."""

    def __init__(self, plan: CallerPlan = PLAN, batch: ExecuteBatch | None = None) -> None:
        self.rig = JudgedRig()
        self.call = Call(plan, 1, 0.0)
        self.finish: str | None = "stop"
        self.rig.submit(1, batch=batch or batch_of(plan))

    def send(self) -> None:
        self.rig.part.sent(self.call, "sk-one", self.rig.now, 0.0)

    def hand(self, *texts: str, usage: TokenUsage | None = None) -> None:
        for text in texts:
            self.take(TokenChunk(text))
        if usage is not None:
            self.take(TokenChunk(usage=usage))

    def take(self, chunk: TokenChunk) -> None:
        self.call.take(chunk)
        self.rig.part.delivered(self.call, chunk)

    def end(self, error: InferenceError | None = None, *, left: bool = False, told: bool = True) -> None:
        if told:
            self.rig.end(1, error, usage=SAID)
        if error is None:
            self.call.finish_reason = self.finish
        self.call.ended, self.call.left, self.call.error = True, left, error
        self.rig.part.ended(self.call)

    def sent(self) -> Scene:
        self.send()
        return self


@pytest.mark.parametrize("usage", [SAID, None])
@pytest.mark.parametrize("limits_output", [True, False])
def test_a_whole_answer(usage: TokenUsage | None, limits_output: bool) -> None:
    scene = Scene(CallerPlan(1, 0.0, "chat", "hello", output_tokens=4, limits_output=limits_output)).sent()
    scene.send()
    scene.hand("[hello #tokens=4]", " w1", " w2 w3", usage=usage)
    scene.end()
    scene.rig.healed()


def test_half_an_answer_and_an_error() -> None:
    scene = Scene().sent()
    scene.hand("[hello #tokens=4]", " w1")
    scene.end(BadRequest())
    scene.rig.healed()


def test_who_leaves_is_told_nothing() -> None:
    scene = Scene().sent()
    scene.hand("[hello #tokens=4]")
    scene.rig.cancel(1)
    scene.rig.end(1)
    scene.end(left=True, told=False)
    scene.rig.healed()


@pytest.mark.parametrize(
    "texts",
    [
        ("[hello #tokens=4]", "[hello #tokens=4]"),
        ("[hello #tokens=4]", " w1", " w1"),
        ("[hello #tokens=4]", " w2"),
        ("[other]",),
        ("[hello #tokens=4] w1 w2 w3", " w4"),
    ],
    ids=["replayed", "doubled", "lost", "another's", "too much"],
)
@pytest.mark.parametrize("limits_output", [True, False])
def test_a_wrong_piece(texts: tuple[str, ...], limits_output: bool) -> None:
    scene = Scene(replace(PLAN, limits_output=limits_output)).sent()
    scene.hand(*texts[:-1])
    with violates(4, f"request 1 was handed {texts[-1]!r} after {len(''.join(texts[:-1]))} characters"):
        scene.hand(texts[-1])


def test_a_piece_before_the_request_was_sent() -> None:
    with violates(4, "a chunk came for request 1, which had not been sent"):
        Scene().hand("[hello")


def test_a_piece_after_the_end() -> None:
    scene = Scene().sent()
    scene.end(ServerError(503), left=True)
    with violates(4, "a chunk came for request 1, which was over"):
        scene.hand("[hello")


def test_two_ends() -> None:
    scene = Scene().sent()
    scene.end(BadRequest())
    with violates(4, "the end of request 1 was told twice"):
        scene.end(BadRequest(), told=False)


def test_an_end_that_nobody_ordered() -> None:
    with violates(4, "the caller of request 1 was told success, the engine's word is nothing"):
        Scene().sent().end(told=False)


def test_another_end_than_was_ordered() -> None:
    scene = Scene().sent()
    scene.rig.end(1, BadRequest())
    with violates(4, "the caller of request 1 was told success, the engine's word is bad_request"):
        scene.end(told=False)


def test_no_end() -> None:
    scene = Scene().sent()
    scene.rig.end(1)
    with violates(17, "the caller of request 1 waits for ever, with 1 in all"):
        scene.rig.healed()


def test_a_success_with_half_an_answer() -> None:
    scene = Scene().sent()
    scene.hand("[hello #tokens=4]")
    with violates(20, "request 1 succeeded with 17 of 26 characters of its answer"):
        scene.end()


def test_a_success_that_no_provider_spoke_of() -> None:
    scene = Scene().sent()
    scene.hand("[hello #tokens=4]", " w1", " w2 w3", usage=SAID)
    scene.finish = None
    with violates(20, "never said that it had finished"):
        scene.end()


def test_a_success_that_was_never_sent() -> None:
    with violates(20, "request 1 succeeded, and was never sent"):
        Scene().end()


@pytest.mark.parametrize("usage", [TokenUsage(0, 0), TokenUsage(4, 3), TokenUsage(5, 4)])
def test_usage_that_is_not_what_was_used(usage: TokenUsage) -> None:
    scene = Scene().sent()
    scene.hand("[hello #tokens=4] w1 w2 w3", usage=usage)
    with violates(20, f"request 1 used (4, 4) input and output tokens, and was told ({usage.input_tokens}, "):
        scene.end()


@pytest.mark.parametrize(
    "batch",
    [
        {"messages": [Message("system", "Be brief."), Message("user", PLAN.said)]},
        {"messages": [Message("user", "hello")]},
        {"tools": [Tool("look")]},
        {"extra": {"n": 2}},
        {"max_output_tokens": 2},
    ],
)
def test_of_what_no_plan_knew_only_the_end_is_judged(batch: dict[str, Any]) -> None:
    given: dict[str, Any] = {"messages": [Message("user", PLAN.said)]} | batch
    scene = Scene(batch=ExecuteBatch(**given)).sent()
    scene.hand("anything", usage=TokenUsage(1, 1))
    scene.end()
    with violates(4, "which was over"):
        scene.hand("more")


def test_what_was_sent_for_a_request_that_is_over_is_not_judged_by_its_text() -> None:
    scene = Scene()
    scene.rig.end(1)
    scene.send()
    scene.hand("anything")
    scene.end(told=False)


def test_who_is_over_is_remembered_in_little_space() -> None:
    over = _Ids()
    for number in (2, 1, 4, 3, 7):
        assert number not in over
        over.add(number)
    assert [number for number in range(-1, 9) if number in over] == [1, 2, 3, 4, 7]
    assert over._above == {7}
