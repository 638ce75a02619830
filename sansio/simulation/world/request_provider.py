"""A provider without HTTP: requests come in, answers go out as beats (`request_beats.py`).

It does what the mock provider does, in the same order: it checks the key, its own limit, draws a fault, charges what is
really used, and answers with the text made from the prompt, in the same frames. An answer that no fault bends is not
rendered anew: two prompts of one size differ in nothing but the words of the prompt.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

from ...http import END, Headers, ResponseHead
from ..provider.answers import Answer, Choice, count_tokens, prompt_id
from ..provider.faults import Fault, RotateKeys, Scene
from ..provider.formats import Ask, Refusal, Stamp
from ..provider.mock_provider import key_set, throttled, wrong_key
from ..provider.openai_chat import OpenAiChat
from ..provider.provider_limiter import ProviderLimiter
from ..provider.response_plan import Head, Kind, Parts, delayed, stream_plan, unary_plan
from .plan import CallerPlan, HostPlan
from .request_beats import Beat, Beats, beats_of, reset_at, stalled_at
from .weather import Weather

_FORMAT: Final = OpenAiChat()
_STAMP: Final = Stamp("0" * 24, 0)
_STREAM_TYPE: Final = ("content-type", "text/event-stream; charset=utf-8")
_WHOLE_TYPE: Final = ("content-type", "application/json")
_BLANK: Final = "\0"
"""A prompt that stands for any other in what is rendered once."""

_MOST_MOULDS: Final = 256

_BURST_SECONDS: Final = 0.5
"""After the first, tokens that come within so short a time come at once."""


@dataclass(frozen=True, slots=True)
class _Mould:
    """An answer as it is for every prompt of one size: the prompt's words go between ``before`` and ``behind``.

    rest: the beats after the first piece of content; ``None``: that piece is all of it.
    """

    before: bytes
    behind: bytes
    rest: tuple[Beat, ...] | None


class RequestProvider:
    """The provider of one host.

    keys: the good ones; ``None`` takes any, or none. rng: of where bad weather strikes an answer on its way.
    ``active`` (requests that are being answered), ``max_active``, ``requests_total`` and ``throttled`` may be read at any
    time. Raises `ValueError` for keys that are none.
    """

    def __init__(self, plan: HostPlan, weather: Weather, keys: Collection[str] | None, rng: Random) -> None:
        self.plan = plan
        self.active = 0
        self.max_active = 0
        self.requests_total = 0
        self._weather = weather
        self._keys = None if keys is None else key_set(keys)
        self._rng = rng
        self._limiters: dict[str, ProviderLimiter] = {}
        self._moulds: dict[tuple[str, bool, int, int], _Mould] = {}
        self._heads = {stream: ResponseHead(200, _fields(None, stream=stream)) for stream in (False, True)}

    @property
    def throttled(self) -> int:
        """How many requests its own limiters have refused."""
        return sum(limiter.refused for limiter in self._limiters.values())

    def rotate_keys(self, keys: Iterable[str]) -> None:
        """From now on only these keys are good. Answers under way go on. Raises `ValueError` if there are none."""
        self._keys = key_set(keys)

    def limiter(self, model: str) -> ProviderLimiter | None:
        """The limiter of a model, with its counters; ``None`` where there are no limits."""
        if self.plan.limits is None:
            return None
        limiter = self._limiters.get(model)
        if limiter is None:
            limiter = self._limiters[model] = ProviderLimiter(self.plan.limits)
        return limiter

    def respond(
        self, caller: CallerPlan, model: str, key: str | None, now: float, unix_now: float, *, reused: bool
    ) -> Beats:
        """The answer to a request that has just arrived. Call `over` when nobody waits for it any more.

        reused: whether its connection has carried a request before.
        """
        self.requests_total += 1
        self.active += 1
        if self.active > self.max_active:
            self.max_active = self.active
        beats = self._answer(caller, model, key, now, unix_now, reused=reused)
        conditions = self._weather.conditions
        if conditions.reset and self._rng.random() < conditions.reset:
            beats = reset_at(beats, self._rng.randrange(conditions.reset_within + 1))
        if conditions.stalled and self._rng.random() < conditions.stalled:
            beats = stalled_at(beats, self._rng.randrange(conditions.reset_within + 1), conditions.stall_seconds)
        return beats

    def over(self) -> None:
        """A request is over, however it ended."""
        self.active -= 1

    def _answer(
        self, caller: CallerPlan, model: str, key: str | None, now: float, unix_now: float, *, reused: bool
    ) -> Beats:
        if self._keys is not None and key not in self._keys:
            return self._refused(wrong_key(key), None, now)
        prompt = caller.said
        input_tokens = max(1, count_tokens(prompt))
        limiter = self.limiter(model)
        if limiter is not None and (over := limiter.refusal(input_tokens + caller.output_tokens, now)) is not None:
            return self._refused(throttled(model, over), limiter, now)
        fault = self._weather.draw(reused=reused)
        if isinstance(fault, RotateKeys):
            self.rotate_keys(fault.keys)
            if key not in fault.keys:
                return self._refused(wrong_key(key), None, now)
            fault = None
        if limiter is not None:
            limiter.charge(0 if fault is not None and fault.refuses else input_tokens + caller.output_tokens, now)
        if fault is None and caller.output_tokens:
            return self._whole(caller, model, prompt, input_tokens, limiter, now)
        ask = Ask(model, prompt, input_tokens, caller.stream, include_usage=True)
        return self._bent(fault or Fault(), self._parts(ask, caller.output_tokens, limiter, now), unix_now)

    def _refused(self, refusal: Refusal, limiter: ProviderLimiter | None, now: float) -> Beats:
        head = Head(refusal.status, (*_fields(limiter, now, stream=False), *refusal.headers))
        return self._bent(Fault(), unary_plan(head, _FORMAT.error(refusal)), 0.0)

    def _bent(self, fault: Fault, parts: Parts, unix_now: float) -> Beats:
        return beats_of(fault.bend(parts, Scene(_FORMAT, unix_now)), fault.mangle, http2=self.plan.http2)

    def _parts(self, ask: Ask, output_tokens: int, limiter: ProviderLimiter | None, now: float) -> Parts:
        """The answer as the mock provider plans it, for a fault to bend."""
        plan = self.plan
        answer = _text_answer(ask, output_tokens)
        head = Head(200, _fields(limiter, now, stream=ask.stream))
        if ask.stream:
            return delayed(stream_plan(head, _FORMAT.frames(ask, answer, _STAMP), plan.token_delay), plan.first_byte_delay)
        return delayed(
            unary_plan(head, _FORMAT.unary(ask, answer, _STAMP)), plan.first_byte_delay + plan.token_delay * output_tokens
        )

    def _whole(
        self, caller: CallerPlan, model: str, prompt: str, input_tokens: int, limiter: ProviderLimiter | None, now: float
    ) -> Beats:
        """The answer that no fault has met."""
        stream, output_tokens, plan = caller.stream, caller.output_tokens, self.plan
        head = self._heads[stream]
        if limiter is not None:
            head = ResponseHead(200, _fields(limiter, now, stream=stream))
        size = (model, stream, input_tokens, output_tokens)
        mould = self._moulds.get(size)
        if mould is None:
            if len(self._moulds) >= _MOST_MOULDS:
                self._moulds.clear()
            ask = Ask(model, _BLANK, input_tokens, stream, include_usage=True, obfuscated=False)
            mould = self._moulds[size] = _mould(ask, output_tokens, plan.token_delay)
        body = b"".join((mould.before, _quoted(prompt_id(prompt)), mould.behind))
        if mould.rest is None:
            delay = plan.first_byte_delay if stream else plan.first_byte_delay + plan.token_delay * output_tokens
            return iter(((delay, (head, body, END)),))
        return iter(((plan.first_byte_delay, (head,)), (plan.token_delay, (body,)), *mould.rest))


def _fields(limiter: ProviderLimiter | None, now: float = 0.0, *, stream: bool) -> Headers:
    view = None if limiter is None else limiter.view(now)
    return (_STREAM_TYPE if stream else _WHOLE_TYPE, *_FORMAT.headers(_STAMP, view))


def _text_answer(ask: Ask, output_tokens: int) -> Answer:
    """Text, whatever else the prompt may ask for: `expected_text`."""
    return Answer((Choice("text", prompt_id(ask.prompt), output_tokens, "stop"),), ask.input_tokens)


def _mould(ask: Ask, output_tokens: int, token_delay: float) -> _Mould:
    """Renders an answer, and cuts it where its prompt stands."""
    blank = _quoted(_BLANK)
    if not ask.stream:
        before, _, behind = _FORMAT.unary(ask, _text_answer(ask, output_tokens), _STAMP).partition(blank)
        return _Mould(before, behind, None)
    paced = list(_paced(ask, output_tokens))
    if not token_delay:
        before, _, behind = b"".join(paced).partition(blank)
        return _Mould(before, behind, None)
    role, first, *later = paced
    before, _, behind = first.partition(blank)
    size = max(1, int(_BURST_SECONDS / token_delay))
    bursts = [later[at : at + size] for at in range(0, len(later), size)]
    beats: list[Beat] = [(token_delay * len(burst), (b"".join(burst),)) for burst in bursts]
    return _Mould(role + before, behind, (*beats, (0.0, (END,))))


def _paced(ask: Ask, output_tokens: int) -> Iterator[bytes]:
    """The events of a stream, joined as far as none of them waits for a token."""
    held = b""
    for frame in _FORMAT.frames(ask, _text_answer(ask, output_tokens), _STAMP):
        if frame.kind is Kind.CONTENT:
            yield held
            held = b""
        held += frame.data
    yield held


def _quoted(words: str) -> bytes:
    """As it stands in a string of JSON."""
    return json.dumps(words, ensure_ascii=False)[1:-1].encode("utf-8", "replace")
