"""A provider without HTTP: requests come in, answers go out as beats (`request_beats.py`).

It does what the mock provider does, in the same order: it checks the key, its own limit, draws a fault, charges what is
really used, and answers with the text made from the prompt, in the same frames. An answer that no fault bends is not
rendered anew: two prompts of one size differ in nothing but the words of the prompt.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Final

from ...http import END, Headers, ResponseHead
from ..provider.answers import Answer, Choice, count_tokens, prompt_id
from ..provider.faults import Fault, RotateKeys, Scene
from ..provider.formats import Ask, Refusal, Stamp
from ..provider.mock_provider import key_set, throttled, wrong_key
from ..provider.openai_chat import OpenAiChat
from ..provider.provider_limiter import ProviderLimiter
from ..provider.response_plan import Data, Head, Kind, Parts, delayed, stream_plan, unary_plan
from .plan import CallerPlan, HostPlan
from .request_beats import Beat, Beats, beats_of, reset_at, stalled_at
from .weather import Weather

_FORMAT: Final = OpenAiChat()
_STAMP: Final = Stamp("0" * 24, 0)
_STREAM_TYPE: Final = ("content-type", "text/event-stream; charset=utf-8")
_WHOLE_TYPE: Final = ("content-type", "application/json")
_BURST_SECONDS: Final = 0.5
"""After the first, tokens that come within so short a time come at once."""

_WORDS: Final = b"\\u0000"
_INPUT_TOKENS: Final = 10**12
"""What stands for the prompt's words (a NUL, as JSON writes it) and for their count in what is rendered once."""


@dataclass(frozen=True, slots=True)
class _Mould:
    """An answer of one length, with blanks where a prompt's words and counts go.

    frames: its pieces, as the mock provider would send them. first: what of them comes first; middle: the beats after it;
    last: the one that ends it, with its delay. Where there is no ``last``, ``first`` is all of it.
    """

    frames: tuple[Data, ...]
    first: bytes
    middle: tuple[Beat, ...] = ()
    last: tuple[float, bytes] | None = None


@dataclass(slots=True)
class _Casting:
    """What fills a mould for one request."""

    mould: _Mould
    words: bytes
    input_tokens: int
    output_tokens: int

    def filled(self, data: bytes) -> bytes:
        """These bytes, with what belongs there in the blanks."""
        given, total = self.input_tokens, self.output_tokens
        data = data.replace(b"%d" % _INPUT_TOKENS, b"%d" % given)
        data = data.replace(b"%d" % (_INPUT_TOKENS + total), b"%d" % (given + total))
        return data.replace(_WORDS, self.words)  # the last, as anything may stand in them


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
        fault = self._weather.draw(prompt, reused=reused)
        if isinstance(fault, RotateKeys):
            self.rotate_keys(fault.keys)
            if key not in fault.keys:
                return self._refused(wrong_key(key), None, now)
        if limiter is not None:
            limiter.charge(0 if fault is not None and fault.refuses else input_tokens + caller.output_tokens, now)
        head = self._heads[caller.stream]
        if limiter is not None:
            head = ResponseHead(200, _fields(limiter, now, stream=caller.stream))
        mould = _mould(model, caller.stream, caller.output_tokens, self.plan.token_delay)
        words = json.dumps(prompt_id(prompt), ensure_ascii=False)[1:-1].encode("utf-8", "replace")
        cast = _Casting(mould, words, input_tokens, caller.output_tokens)
        if fault is None:
            return self._whole(caller, head, cast)
        return self._bent(fault, self._parts(caller, head, cast), unix_now)

    def _refused(self, refusal: Refusal, limiter: ProviderLimiter | None, now: float) -> Beats:
        head = Head(refusal.status, (*_fields(limiter, now, stream=False), *refusal.headers))
        return self._bent(Fault(), unary_plan(head, _FORMAT.error(refusal)), 0.0)

    def _bent(self, fault: Fault, parts: Parts, unix_now: float) -> Beats:
        return beats_of(fault.bend(parts, Scene(_FORMAT, unix_now)), fault.mangle, http2=self.plan.http2)

    def _parts(self, caller: CallerPlan, head: ResponseHead, cast: _Casting) -> Parts:
        """The answer as the mock provider plans it, for a fault to bend."""
        plan, planned = self.plan, Head(head.status, head.headers)
        frames = (Data(cast.filled(frame.data), frame.kind) for frame in cast.mould.frames)
        if caller.stream:
            return delayed(stream_plan(planned, frames, plan.token_delay), plan.first_byte_delay)
        return delayed(
            unary_plan(planned, next(frames).data), plan.first_byte_delay + plan.token_delay * caller.output_tokens
        )

    def _whole(self, caller: CallerPlan, head: ResponseHead, cast: _Casting) -> Beats:
        """The answer that no fault has met."""
        plan, mould, first = self.plan, cast.mould, cast.filled(cast.mould.first)
        if not caller.stream:
            return iter(((plan.first_byte_delay + plan.token_delay * caller.output_tokens, (head, first, END)),))
        if not (plan.token_delay and caller.output_tokens):
            return iter(((plan.first_byte_delay, (head, first, END)),))
        if mould.last is None:
            return iter(((plan.first_byte_delay, (head,)), (plan.token_delay, (first, END))))
        delay, last = mould.last
        opening: tuple[Beat, ...] = ((plan.first_byte_delay, (head,)), (plan.token_delay, (first,)))
        return iter((*opening, *mould.middle, (delay, (cast.filled(last), END))))


def _fields(limiter: ProviderLimiter | None, now: float = 0.0, *, stream: bool) -> Headers:
    view = None if limiter is None else limiter.view(now)
    return (_STREAM_TYPE if stream else _WHOLE_TYPE, *_FORMAT.headers(_STAMP, view))


@lru_cache(maxsize=1024)  # of all providers: no answer knows whose it is
def _mould(model: str, stream: bool, output_tokens: int, token_delay: float) -> _Mould:
    """Renders an answer: text, whatever else a prompt may ask for (`expected_text`)."""
    ask = Ask(model, "\0", _INPUT_TOKENS, stream, include_usage=True, obfuscated=False)
    answer = Answer((Choice("text", ask.prompt, output_tokens, "stop"),), _INPUT_TOKENS)
    if not stream:
        body = _FORMAT.unary(ask, answer, _STAMP)
        return _Mould((Data(body, Kind.WHOLE),), body)
    frames = tuple(_FORMAT.frames(ask, answer, _STAMP))
    paced = list(_paced(frames))
    if not token_delay or len(paced) <= 2:
        return _Mould(frames, b"".join(paced))
    role, first, *later = paced
    size = max(1, int(_BURST_SECONDS / token_delay))
    bursts = [later[at : at + size] for at in range(0, len(later), size)]
    *middle, last = [(token_delay * len(burst), b"".join(burst)) for burst in bursts]
    return _Mould(frames, role + first, tuple((delay, (data,)) for delay, data in middle), last)


def _paced(frames: Iterable[Data]) -> Iterator[bytes]:
    """The events of a stream, joined as far as none of them waits for a token."""
    held = b""
    for frame in frames:
        if frame.kind is Kind.CONTENT:
            yield held
            held = b""
        held += frame.data
    yield held
