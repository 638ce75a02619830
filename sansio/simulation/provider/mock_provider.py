"""A pretend inference provider as a pure machine: accounts, limits, faults and a log; `MockConnection` speaks its HTTP.

It is the counterpart against which the whole client is judged, so it uses none of the client's code. A request passes, in
this order: path and method, key, body, model, the provider's own limit, the fault script. What gets through is charged
what it uses and answered with a text made from its prompt (`answers.py`); everything is logged.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from .answers import Answers, compose, prompt_id
from .fault_script import FaultScript
from .faults import Fault, RotateKeys, Scene
from .formats import Ask, Format, Headers, Refusal, Stamp
from .mock_connection import Alpn, MockConnection
from .mock_exchange import Cut, HttpAsk, HttpVersion, Reply
from .openai_chat import OpenAiChat
from .provider_limiter import LimitRefusal, LimitView, ProviderLimiter, ProviderLimits
from .response_plan import Head, Parts, delayed, stream_plan, unary_plan, with_pings

Outcome = Literal["completed", "faulted", "throttled", "rejected", "client_left", "cut_off"]
"""How a request ended: answered in full; met a fault that was played to its end; refused by the limit; refused for what
it was (4xx); its client went away first, whatever else was going on; or (HTTP/2) its connection ended under it, by the
fault of another request or for a client's breach of the protocol."""

_CREDENTIALS: Final = frozenset(
    {"authorization", "proxy-authorization", "cookie", "api-key", "x-api-key", "x-goog-api-key", "ocp-apim-subscription-key",
     "x-litellm-api-key"}
)  # fmt: skip
"""Header fields that the log leaves out."""


@dataclass(slots=True)
class RequestRecord:
    """One request, from its arrival to its end. Holds a key's fingerprint, never the key.

    index: counts from 0 in the order of arrival. path: empty for bytes that were no request.
    prompt: what `answers.prompt_id` makes of the prompt, ``None`` if there was none. body: the parsed JSON.
    headers: without those that carry credentials. status: ``None`` until the head goes out.
    fault: the fault that it met. outcome: ``None`` while it is being answered.
    input_tokens, output_tokens: what was charged. http_version: empty for bytes that were no request.
    """

    index: int
    arrived_at: float
    method: str = ""
    path: str = ""
    headers: Headers = ()
    key_fingerprint: str | None = None
    key_ok: bool = False
    model: str | None = None
    prompt: str | None = None
    stream: bool = False
    body: Any = None
    input_tokens: int = 0
    output_tokens: int = 0
    fault: Fault | None = None
    status: int | None = None
    outcome: Outcome | None = None
    ended_at: float | None = None
    http_version: HttpVersion | Literal[""] = ""


class MockProvider:
    """The provider behind any number of connections.

    faults: which request meets which fault. keys: the good keys; ``None`` takes any, or none.
    limits: for each model on its own; ``None`` for no limit. models: the known ones; ``None`` answers for any.
    answers: what is said to which prompt (`answers.Answers`); ``None``, the text made from each prompt.
    seed: for the ids of answers. first_byte_delay: seconds before the head. token_delay: seconds before each output token.
    ping_interval: seconds of silence in a stream after which a ``: ping`` comment is sent; ``None`` for no pings.
    default_output_tokens: the length of an answer whose prompt does not say. log_size: how many records are kept.
    max_concurrent_streams: how many requests at once one HTTP/2 connection may carry.

    ``faults``, ``active`` (requests being answered), ``max_active``, ``requests_total``, ``connections_open`` and
    ``connections_total`` may be read at any time; ``faults`` may be replaced. Raises `ValueError` for settings out of range.
    """

    def __init__(
        self,
        *,
        faults: FaultScript | None = None,
        keys: Collection[str] | None = None,
        limits: ProviderLimits | None = None,
        models: Sequence[str] | None = None,
        answers: Answers | None = None,
        seed: int = 0,
        token_delay: float = 0.0,
        first_byte_delay: float = 0.0,
        ping_interval: float | None = None,
        default_output_tokens: int = 20,
        formats: Sequence[Format] = (OpenAiChat(),),
        log_size: int = 10_000,
        max_concurrent_streams: int = 100,
    ) -> None:
        _check_seconds("token_delay", token_delay)
        _check_seconds("first_byte_delay", first_byte_delay)
        if ping_interval is not None:
            _check_seconds("ping_interval", ping_interval, least=0.001)
        _check_whole("default_output_tokens", default_output_tokens)
        _check_whole("log_size", log_size)
        _check_whole("max_concurrent_streams", max_concurrent_streams)
        if not formats:
            raise ValueError("formats: is empty; give at least one Format")
        self.faults = faults or FaultScript()
        self.active = 0
        self.max_active = 0
        self.requests_total = 0
        self.connections_open = 0
        self.connections_total = 0
        self._keys = None if keys is None else key_set(keys)
        self._limits = limits
        self._limiters: dict[str, ProviderLimiter] = {}
        self._models = None if models is None else tuple(models)
        self._answers = answers
        self._seed = seed
        self._token_delay = token_delay
        self._first_byte_delay = first_byte_delay
        self._ping_interval = ping_interval
        self._default_output_tokens = default_output_tokens
        self._formats = tuple(formats)
        self._max_concurrent_streams = max_concurrent_streams
        self._log: deque[RequestRecord] = deque(maxlen=log_size)

    @property
    def log(self) -> list[RequestRecord]:
        """The last ``log_size`` requests, in the order of arrival."""
        return list(self._log)

    def connection(self, alpn: Alpn | None = None) -> MockConnection:
        """A machine for a connection that was just accepted.

        alpn: what it speaks; ``None``: HTTP/1.1, or HTTP/2 if the client begins so. Raises `ImportError` for ``"h2"`` where
        the library of that name is not installed.
        """
        connection = MockConnection(self, alpn, self._max_concurrent_streams)
        self.connections_open += 1
        self.connections_total += 1
        return connection

    def rotate_keys(self, keys: Iterable[str]) -> None:
        """From now on only these keys are good. Answers under way go on. Raises `ValueError` if there are none."""
        self._keys = key_set(keys)

    def limiter(self, model: str) -> ProviderLimiter | None:
        """The limiter of a model, with its counters; ``None`` where there are no limits."""
        if self._limits is None:
            return None
        return self._limiters.setdefault(model, ProviderLimiter(self._limits))

    def respond(self, ask: HttpAsk, now: float, unix_now: float) -> Reply:
        """The response to a request: called by its connection."""
        record = self._open(now)
        record.method, record.path = ask.method, ask.target.partition("?")[0]
        record.http_version = ask.http_version
        fields = dict(ask.headers)
        record.headers = tuple(field for field in ask.headers if field[0] not in _CREDENTIALS)
        found = self._route(record)
        if isinstance(found, Refusal):
            return self._refuse(record, self._formats[0], found, unix_now)
        key = found.key(fields)
        record.key_fingerprint = None if key is None else hashlib.sha256(key.encode()).hexdigest()[:8]
        if (wrong := self._check_key(record, key)) is not None:
            return self._refuse(record, found, wrong, unix_now)
        if found.lists_models(record.path):
            return self._list_models(record, found, unix_now)
        parsed = self._parse(record, found, ask.body)
        if isinstance(parsed, Refusal):
            return self._refuse(record, found, parsed, unix_now)
        return self._answer(record, found, parsed, key, unix_now, reused=ask.reused)

    def respond_to_garbage(self, status: int, message: str, now: float, unix_now: float) -> Reply:
        """The response to bytes that are no request: called by their connection, which closes after it."""
        refusal = Refusal(status, "invalid_request_error", None, message, headers=(("connection", "close"),))
        return self._refuse(self._open(now), self._formats[0], refusal, unix_now)

    def connection_ended(self) -> None:
        """One connection less: called by it."""
        self.connections_open -= 1

    def _open(self, now: float) -> RequestRecord:
        record = RequestRecord(self.requests_total, now)
        self._log.append(record)
        self.requests_total += 1
        self.active += 1
        self.max_active = max(self.max_active, self.active)
        return record

    def _route(self, record: RequestRecord) -> Format | Refusal:
        """The format that serves this path and method."""
        for found in self._formats:
            allowed = "POST" if found.serves(record.path) else "GET" if found.lists_models(record.path) else None
            if allowed == record.method:
                return found
            if allowed is not None:
                message = f"Not allowed to {record.method} on {record.path} (use {allowed})."
                return Refusal(405, "invalid_request_error", "method_not_supported", message, headers=(("allow", allowed),))
        message = f"Invalid URL ({record.method} {record.path})"
        return Refusal(404, "invalid_request_error", "unknown_url", message)

    def _check_key(self, record: RequestRecord, key: str | None) -> Refusal | None:
        record.key_ok = self._keys is None or key in self._keys
        if record.key_ok:
            return None
        return wrong_key(key)

    def _parse(self, record: RequestRecord, found: Format, body: bytes | None) -> Ask | Refusal:
        if body is None:
            return Refusal(413, "invalid_request_error", None, "The request body is too large.")
        try:
            record.body = json.loads(body)
        except (ValueError, RecursionError):
            message = "We could not parse the JSON body of your request."
            return Refusal(400, "invalid_request_error", None, message)
        parsed = found.parse(record.path, record.body)
        if isinstance(parsed, Ask):
            record.model, record.prompt, record.stream = parsed.model, prompt_id(parsed.prompt), parsed.stream
            if self._models is not None and parsed.model not in self._models:
                message = f"The model `{parsed.model}` does not exist or you do not have access to it."
                return Refusal(404, "invalid_request_error", "model_not_found", message)
        return parsed

    def _answer(
        self, record: RequestRecord, found: Format, ask: Ask, key: str | None, unix_now: float, *, reused: bool
    ) -> Reply:
        """Charge it, draw its fault, and plan the answer."""
        answer = compose(ask, self._default_output_tokens, self._answers)
        limiter = self.limiter(ask.model)
        if limiter is not None and (over := limiter.refusal(answer.total_tokens, record.arrived_at)) is not None:
            return self._refuse(record, found, throttled(ask.model, over), unix_now, "throttled", limiter)
        fault = record.fault = self.faults.pick(ask, reused=reused)
        if isinstance(fault, RotateKeys):
            self.rotate_keys(fault.keys)
            if (wrong := self._check_key(record, key)) is not None:
                return self._refuse(record, found, wrong, unix_now, "faulted")
        if fault is None or not fault.refuses:
            record.input_tokens, record.output_tokens = answer.input_tokens, answer.output_tokens
        if limiter is not None:
            limiter.charge(record.input_tokens + record.output_tokens, record.arrived_at)
        stamp = self._stamp(record, unix_now)
        head = self._head(found, 200, stamp, limiter, record, stream=ask.stream)
        if ask.stream:
            parts = stream_plan(head, found.frames(ask, answer, stamp), self._token_delay)
            parts = delayed(parts, self._first_byte_delay)
        else:
            parts = unary_plan(head, found.unary(ask, answer, stamp))
            parts = delayed(parts, self._first_byte_delay + self._token_delay * answer.output_tokens)
        if self._ping_interval is not None:
            parts = with_pings(parts, self._ping_interval)
        return self._reply(record, parts, found, unix_now)

    def _list_models(self, record: RequestRecord, found: Format, unix_now: float) -> Reply:
        names = self._models if self._models is not None else ("mock-model",)
        head = self._head(found, 200, self._stamp(record, unix_now), None, record)
        return self._reply(record, unary_plan(head, found.models(names)), found, unix_now)

    def _refuse(
        self,
        record: RequestRecord,
        found: Format,
        refusal: Refusal,
        unix_now: float,
        outcome: Outcome = "rejected",
        limiter: ProviderLimiter | None = None,
    ) -> Reply:
        head = self._head(found, refusal.status, self._stamp(record, unix_now), limiter, record)
        head = replace(head, headers=(*head.headers, *refusal.headers))
        return self._reply(record, unary_plan(head, found.error(refusal)), found, unix_now, outcome)

    def _reply(
        self, record: RequestRecord, parts: Parts, found: Format, unix_now: float, outcome: Outcome | None = None
    ) -> Reply:
        fault = record.fault or Fault()
        ended: Outcome = outcome or ("faulted" if record.fault is not None else "completed")

        def on_status(status: int) -> None:
            record.status = status

        def on_end(cut: Cut | None, now: float) -> None:
            record.outcome, record.ended_at = cut or ended, now
            self.active -= 1

        return Reply(fault.bend(parts, Scene(found, unix_now)), fault.mangle, on_status, on_end)

    def _head(
        self,
        found: Format,
        status: int,
        stamp: Stamp,
        limiter: ProviderLimiter | None,
        record: RequestRecord,
        *,
        stream: bool = False,
    ) -> Head:
        view: LimitView | None = None if limiter is None else limiter.view(record.arrived_at)
        content_type = "text/event-stream; charset=utf-8" if stream else "application/json"
        return Head(status, (("content-type", content_type), *found.headers(stamp, view)))

    def _stamp(self, record: RequestRecord, unix_now: float) -> Stamp:
        digest = hashlib.sha256(f"{self._seed}:{record.index}".encode()).hexdigest()
        return Stamp(digest[:24], int(unix_now))


def wrong_key(key: str | None) -> Refusal:
    """The 401 of a request with this key, or without one."""
    message = "You didn't provide an API key." if key is None else "Incorrect API key provided."
    return Refusal(401, "invalid_request_error", None if key is None else "invalid_api_key", message)


def throttled(model: str, over: LimitRefusal) -> Refusal:
    """The limiter's 429: when to come back, in whole seconds and, more precisely, in milliseconds; never too early."""
    unit = "RPM" if over.dimension == "requests" else "TPM"
    numbers = f"{over.dimension} per min ({unit}): Limit {over.limit}, Used {over.used}, Requested {over.requested}."
    if over.wait is None:
        message = f"Request too large for {model} on {numbers} The input or output tokens must be reduced."
        return Refusal(429, over.dimension, "rate_limit_exceeded", message)
    wait_ms = math.ceil(over.wait * 1000)
    message = f"Rate limit reached for {model} on {numbers} Please try again in {wait_ms}ms."
    headers = (("retry-after", str(math.ceil(wait_ms / 1000))), ("retry-after-ms", str(wait_ms)))
    return Refusal(429, over.dimension, "rate_limit_exceeded", message, headers=headers)


def key_set(keys: Iterable[str]) -> frozenset[str]:
    """These keys, or this one. Raises `ValueError` if there are none."""
    found = frozenset([keys] if isinstance(keys, str) else keys)
    if not found or not all(isinstance(key, str) and key for key in found):
        raise ValueError("keys: must be one or more non-empty strings")
    return found


def _check_seconds(name: str, value: float, least: float = 0.0) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value < math.inf:
        raise ValueError(f"{name}: {value!r} is not a number of seconds of at least {least:g}")


def _check_whole(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}: {value!r} is not a whole number of at least 1")
