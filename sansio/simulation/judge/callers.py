"""Invariants 4, 17 and 20, as callers see them: every piece of the answer once and in order, one end, success
only with all of it, and nobody left waiting.

The right answer is known for requests as a plan has them (`batch_of`). Of others it is only asked that nothing comes late.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...batch import TokenChunk, TokenUsage
from ...errors import InferenceError
from ..provider.answers import count_tokens, expected_text
from .seen import Asked
from .violation import InvariantViolated

if TYPE_CHECKING:
    from ..world.node import Call
    from ..world.plan import CallerPlan


class Callers:
    """What each caller was handed. ``requests``: those that the engine has."""

    __slots__ = ("_heard", "_outcomes", "_over", "_requests")

    def __init__(self, requests: Mapping[int, Asked]) -> None:
        self._requests = requests
        self._heard: dict[int, _Heard] = {}
        self._outcomes: dict[int, InferenceError | None] = {}
        self._over = _Ids()

    def completed(self, request_id: int, error: InferenceError | None) -> None:
        """The engine ordered a caller to be told this."""
        self._outcomes[request_id] = error

    def sent(self, call: Call, key: str | None, now: float, unix_now: float) -> None:
        """A request went out: an answer may come."""
        request_id = call.request_id
        if request_id not in self._heard:
            asked = self._requests.get(request_id)
            known = asked is not None and _as_planned(asked, call.plan)
            self._heard[request_id] = _Heard(call.plan if known else None)

    def delivered(self, call: Call, chunk: TokenChunk) -> None:
        """A chunk was handed to its caller: the next piece of its answer."""
        heard = self._heard.get(call.request_id)
        if heard is None:
            why = "was over" if call.request_id in self._over else "had not been sent"
            raise InvariantViolated(4, f"a chunk came for request {call.request_id}, which {why}")
        text = chunk.text_delta
        if text and heard.expected is not None:
            if not heard.expected.startswith(text, heard.length):
                raise InvariantViolated(
                    4,
                    f"request {call.request_id} was handed {text!r} after {heard.length} characters; "
                    f"the right answer is {heard.expected!r}",
                )
            heard.length += len(text)

    def ended(self, call: Call) -> None:
        """A caller was told the end, or left."""
        request_id = call.request_id
        if request_id in self._over:
            raise InvariantViolated(4, f"the end of request {request_id} was told twice")
        self._over.add(request_id)
        heard = self._heard.pop(request_id, None)
        outcome = self._outcomes.pop(request_id, _NONE)
        if call.left:
            return
        told, decided = _kind(call.error), _kind(outcome)
        if told != decided:
            raise InvariantViolated(4, f"the caller of request {request_id} was told {told}, the engine's word is {decided}")
        if call.error is None:
            if heard is None:
                raise InvariantViolated(20, f"request {request_id} succeeded, and was never sent")
            heard.check_whole(call)

    def healed(self) -> None:
        """Everybody was told an end."""
        for request_id in self._heard:
            raise InvariantViolated(17, f"the caller of request {request_id} waits for ever, with {len(self._heard)} in all")


class _Heard:
    """What one caller was handed: the first ``length`` characters of what is ``expected``, where that is known."""

    __slots__ = ("expected", "length", "usage")

    def __init__(self, plan: CallerPlan | None) -> None:
        self.length = 0
        self.expected: str | None = None
        self.usage = (0, 0)
        if plan is not None:
            self.expected = expected_text(plan.said, plan.output_tokens)
            self.usage = (max(1, count_tokens(plan.said)), plan.output_tokens)

    def check_whole(self, call: Call) -> None:
        """It is told that this was all."""
        if self.expected is None:
            return
        if self.length != len(self.expected):
            about = (
                f"request {call.request_id} succeeded with {self.length} of {len(self.expected)} characters of its answer"
            )
            raise InvariantViolated(20, about)
        if call.finish_reason is None:
            raise InvariantViolated(
                20, f"request {call.request_id} succeeded, and its provider never said that it had finished"
            )
        usage = call.usage
        if usage is not None and (usage.input_tokens, usage.output_tokens) != self.usage:
            raise InvariantViolated(
                20, f"request {call.request_id} used {self.usage} input and output tokens, and was told {_shown(usage)}"
            )


class _Ids:
    """Numbers that nearly come in order: all up to one, and some above it."""

    __slots__ = ("_above", "_up_to")

    def __init__(self) -> None:
        self._up_to = 0
        self._above: set[int] = set()

    def __contains__(self, number: int) -> bool:
        return 0 < number <= self._up_to or number in self._above

    def add(self, number: int) -> None:
        """One more."""
        self._above.add(number)
        while self._up_to + 1 in self._above:
            self._up_to += 1
            self._above.discard(self._up_to)


_NONE = object()
"""No outcome was ordered."""


def _kind(outcome: object) -> str:
    if isinstance(outcome, InferenceError):
        return outcome.kind
    return "success" if outcome is None else "nothing"


def _shown(usage: TokenUsage) -> str:
    return f"{(usage.input_tokens, usage.output_tokens)} ({usage.provenance})"


def _as_planned(asked: Asked, plan: CallerPlan) -> bool:
    """Whether what was asked is what the plan says, so that the answer follows from it."""
    batch = asked.add.batch
    plain = len(batch.messages) == 1 and not batch.tools and not batch.extra
    return (
        plain
        and batch.messages[0].content == plan.said
        and (batch.max_output_tokens or plan.output_tokens) == plan.output_tokens
    )
