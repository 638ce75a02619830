"""LiteLLM's proxy (`sansio.providers.litellm`): where its key goes, what an answer cost, what its own errors mean."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from engine_harness import Rig
from hypothesis import given, settings
from hypothesis import strategies as st
from mangled import errors, events, frames, json_values

from sansio.batch import ExecuteBatch, Message, TokenChunk, TokenEstimate, Tokens, TokenUsage
from sansio.codec import ProviderCodec
from sansio.deployment import Deployment
from sansio.errors import InferenceError, NetworkError
from sansio.events import AttemptEnded
from sansio.http import SENSITIVE_HEADERS, HttpRequest
from sansio.providers.litellm import KEY_HEADERS, LiteLLMChat
from sansio.providers.openai import OpenAIChat
from sansio.providers.request import USER_AGENT
from sansio.rate_limit import RateLimitDimension, RateLimitSnapshot
from sansio.replay import replay_response
from sansio.secret import Credential, Secret
from sansio.session import SessionSnapshot
from sansio.sse import SseChunk, SseDecoder

KEY = "sk-test-0123456789abcdef"
SESSION = SessionSnapshot(1, Credential(KEY))
CODEC = LiteLLMChat(model="group")
HELLO = ExecuteBatch([Message("user", "hello")], max_output_tokens=16)
NOW = 1_800_000_000.0
JSON = (("content-type", "application/json"),)
STREAM = (("content-type", "text/event-stream"),)


# ---- requests ----------------------------------------------------------------------------------------------------------


def test_it_is_a_codec() -> None:
    assert isinstance(CODEC, ProviderCodec)
    assert (CODEC.provider, CODEC.endpoint) == ("litellm", "http://localhost:4000")
    assert CODEC.estimate(HELLO) == TokenEstimate(10, 16, True)


@pytest.mark.parametrize("stream", [True, False])
def test_a_request_is_openai_s_at_the_proxy(stream: bool) -> None:
    made = CODEC.encode(HELLO, SESSION, stream=stream)
    theirs = OpenAIChat("group").encode(HELLO, SESSION, stream=stream)
    assert (made.method, made.url) == ("POST", "http://localhost:4000/chat/completions")
    assert (made.headers, made.body) == (theirs.headers, theirs.body)
    assert ("user-agent", USER_AGENT) in made.headers


@pytest.mark.parametrize("endpoint", ["https://llm.example/v1", "https://llm.example/v1/"])
def test_the_path_is_added_to_the_endpoint(endpoint: str) -> None:
    assert LiteLLMChat("m", endpoint).encode(HELLO, SESSION).url == "https://llm.example/v1/chat/completions"


@pytest.mark.parametrize("name", KEY_HEADERS)
def test_the_key_goes_where_it_is_wanted(name: str) -> None:
    made: HttpRequest = LiteLLMChat("m", key_header=name).encode(HELLO, SESSION)
    carrying = [header for header in made.headers if KEY in header[1]]
    assert carrying == [(name, f"Bearer {KEY}" if name == "authorization" else KEY)]
    assert name in SENSITIVE_HEADERS and KEY not in repr(made)


@pytest.mark.parametrize(
    ("options", "headers"),
    [
        ({}, {}),
        ({"tags": ["a", "team b"]}, {"x-litellm-tags": "a,team b"}),
        ({"end_user": "u-1"}, {"x-litellm-end-user-id": "u-1"}),
        ({"num_retries": 0}, {"x-litellm-num-retries": "0"}),
        ({"num_retries": 3, "timeout": 30}, {"x-litellm-num-retries": "3", "x-litellm-timeout": "30"}),
        ({"timeout": 0.5}, {"x-litellm-timeout": "0.5"}),
    ],
)
def test_what_is_said_in_headers(options: dict[str, Any], headers: dict[str, str]) -> None:
    made = LiteLLMChat("m", **options).encode(HELLO, SESSION)
    assert {name: value for name, value in made.headers if name.startswith("x-litellm-")} == headers


def test_what_is_for_one_request_goes_through() -> None:
    batch = ExecuteBatch(HELLO.messages, metadata={"k": "v"}, extra={"fallbacks": ["b"], "disable_fallbacks": False})
    body = json.loads(CODEC.encode(batch, SESSION).body)
    assert (body["metadata"], body["fallbacks"], body["disable_fallbacks"]) == ({"k": "v"}, ["b"], False)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", None), ("endpoint", "localhost:4000"), ("endpoint", 4000), ("key_header", "cookie"), ("key_header", None),
        ("tags", "a"), ("tags", None), ("tags", ["a,b"]), ("tags", [1]), ("tags", [""]), ("tags", [" a"]), ("tags", ["ä"]),
        ("tags", ["a\r\nx: y"]), ("end_user", 5), ("end_user", ""), ("end_user", "a\nb"), ("num_retries", -1),
        ("num_retries", True), ("num_retries", 1.0), ("timeout", 0), ("timeout", math.nan), ("timeout", math.inf),
        ("timeout", "5"), ("timeout", True),
    ],
)  # fmt: skip
def test_an_option_out_of_range_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        LiteLLMChat(**{field: value})


def test_a_batch_that_cannot_be_said_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^model: is empty"):
        LiteLLMChat().encode(HELLO, SESSION)


# ---- what an answer cost ----------------------------------------------------------------------------------------------


def answer(usage: object = None) -> bytes:
    choice = {"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}
    return json.dumps({"choices": [choice], "usage": usage}).encode()


COUNTS = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


@pytest.mark.parametrize(
    ("value", "usd"),
    [
        ("0.00012", 0.00012), ("1.5e-06", 1.5e-06), ("0", 0.0), ("0.0", 0.0), (" 3 ", 3.0),
        *((value, None) for value in ("", "None", "-1", "nan", "inf", "1e999", "1e10", "$1", "1,5", "9" * 5_000)),
        *((value, None) for value in ("0x1", "９", "1_0")),
    ],
)  # fmt: skip
def test_a_unary_answer_costs_what_its_header_says(value: str, usd: float | None) -> None:
    headers = (*JSON, ("x-litellm-response-cost-original", "9"), ("x-litellm-response-cost", value))
    (chunk,) = CODEC.decode_unary(answer(COUNTS), headers)
    assert chunk.usage == TokenUsage(10, 5, cost_usd=usd)


def test_no_cost_is_made_up() -> None:
    assert CODEC.decode_unary(answer(COUNTS)) == [TokenChunk("hi", finish_reason="stop", raw_finish_reason="stop",
                                                             usage=TokenUsage(10, 5))]  # fmt: skip
    (chunk,) = CODEC.decode_unary(answer(), (("x-litellm-response-cost", "1.0"),))
    assert chunk.usage is None  # of what, nobody says
    others = (("llm_provider-x-litellm-response-cost", "1"), ("x-litellm-key-spend", "2"))
    (chunk,) = CODEC.decode_unary(answer(COUNTS), others)
    assert chunk.usage == TokenUsage(10, 5)


def wire(*frames: object) -> bytes:
    return "".join(f"data: {frame if isinstance(frame, str) else json.dumps(frame)}\n\n" for frame in frames).encode()


def said(text: str, finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}


@pytest.mark.parametrize(
    ("cost", "usd"),
    [(0.25, 0.25), (0, 0.0), ("0.5", 0.5), *((cost, None) for cost in (None, -1, True, "x", 10**400, [1]))],
)
def test_a_streamed_answer_costs_what_its_last_usage_says(cost: object, usd: float | None) -> None:
    data = wire(said("hi"), said("", "stop"), {"choices": [], "usage": {**COUNTS, "cost": cost}}, "[DONE]")
    chunks, error = replay_response(CODEC, 200, STREAM, [data])
    assert error is None
    tokens = Tokens.from_chunks(chunks)
    assert (tokens.text, tokens.usage) == ("hi", TokenUsage(10, 5, cost_usd=usd))


def test_each_usage_has_its_own_cost_and_the_last_one_stands() -> None:
    decoder = CODEC.stream_decoder()
    first = {**said("a"), "usage": {**COUNTS, "cost": 0.5}}
    last = {"choices": [], "usage": {**COUNTS, "completion_tokens": 7}}
    chunks = decoder.decode(SseDecoder().feed(wire(first, said('"cost"', "stop"), last)))
    assert [chunk.usage for chunk in chunks] == [TokenUsage(10, 5, cost_usd=0.5), None, TokenUsage(10, 7)]
    assert decoder.usage == TokenUsage(10, 7)
    assert (decoder.complete, decoder.terminal, decoder.error) == (True, False, None)
    decoder.decode([SseChunk("[DONE]")])
    assert decoder.terminal


def test_a_cost_beside_an_error_is_kept() -> None:
    decoder = CODEC.stream_decoder()
    decoder.decode(SseDecoder().feed(wire(said("a"), {"usage": {**COUNTS, "cost": 0.5}, "error": {"code": "503"}})))
    assert decoder.usage == TokenUsage(10, 5, cost_usd=0.5)
    assert decoder.error is not None


def test_as_many_choices_as_were_asked_for() -> None:
    decoder = CODEC.stream_decoder(ExecuteBatch(HELLO.messages, extra={"n": 2}))
    decoder.decode(SseDecoder().feed(wire(said("a", "stop"))))
    assert not decoder.complete


def test_an_engine_counts_what_the_proxy_says_without_a_price() -> None:
    config = {"api_key": Secret.inline(KEY)}
    rig = Rig(Deployment(name="chat", model="group", runtime=CODEC, runtime_config=config))
    rig.submit(1, stream=False)
    rig.submit(2)
    for request_id in (1, 2):
        rig.send(request_id)
    unary, streamed = rig.started[1].exchange, rig.started[2].exchange
    unary.receive_head(200, (*JSON, ("x-litellm-response-cost", "0.25")), rig.now, NOW)
    unary.receive_body(answer(COUNTS), rig.now)
    unary.receive_end(rig.now)
    streamed.receive_head(200, STREAM, rig.now, NOW)
    streamed.receive_body(wire({**said("hi"), "usage": {**COUNTS, "cost": 0.5}}), rig.now)
    streamed.fail(NetworkError(), rig.now)
    for request_id, exchange in ((1, unary), (2, streamed)):
        assert exchange.outcome is not None
        rig.tell(
            AttemptEnded(request_id, rig.started[request_id].attempt, exchange.outcome.error, exchange.outcome.usage, True)
        )
    (totals,) = rig.metrics.costs.values()
    assert (totals.exact_usd, totals.estimated_usd, totals.unknown) == (0.25, 0.5, 0)  # the second one broke off
    assert (rig.outcome(1), rig.outcome(2)) == ("ok", "stream_interrupted")


# ---- errors: (status, error, kind, retryable, circuit, key) ------------------------------------------------------------

Row = tuple[int, dict[str, Any], str, bool, bool, bool]


def row(status: int, kind: str, how: str, message: str = "m", kind_of: str | None = None) -> Row:
    error: dict[str, Any] = {"message": message, "type": kind_of, "param": "None", "code": str(status)}
    return status, error, kind, "retry" in how, "circuit" in how, "key" in how


EXHAUSTED, DENIED, BAD_KEY = "quota_exhausted", "forbidden", "unauthorized"
ROWS: list[Row] = [
    # Its budgets, under any status.
    *(row(status, EXHAUSTED, "key", "Budget has been exceeded!", "budget_exceeded") for status in (400, 422, 429, 401, 500)),
    # Its keys, under any status.
    *(row(status, DENIED, "key", "no", f"{who}_model_access_denied")
      for status in (400, 401, 403) for who in ("key", "team", "user", "org")),
    *(row(status, BAD_KEY, "key", "no", of)
      for status in (400, 401, 403) for of in ("expired_key", "token_not_found_in_db")),
    row(401, BAD_KEY, "key", "Authentication Error, ", "auth_error"),
    row(403, DENIED, "key", "Authentication Error, ", "auth_error"),
    # Its own troubles.
    *(row(status, "server_error", "retry circuit", "No connected db.", "no_db_connection") for status in (400, 500, 503)),
    row(429, "server_error", "retry circuit", "No deployments available for selected model, Try again in 5 seconds."),
    row(429, "server_error", "retry circuit", "litellm.RateLimitError: No deployments available for selected model"),
    row(429, "rate_limited", "retry", "Key over TPM limit", "rate_limit_error"),
    row(429, "rate_limited", "retry", "litellm.RateLimitError: RateLimitError: OpenAIException - slow", "throttling_error"),
    row(499, "bad_request", "", "Client disconnected the request"),
    row(503, "server_error", "retry circuit", "litellm.MidStreamFallbackError: litellm.APIConnectionError: gone"),
    # The provider's behind it, in LiteLLM's words.
    row(400, "content_filtered", "", "litellm.ContentPolicyViolationError: AzureException - content management policy"),
    row(400, "context_length_exceeded", "", "litellm.ContextWindowExceededError: too long"),
    row(400, "bad_request", "", "litellm.BadRequestError: OpenAIException - no", "invalid_request_error"),
    row(400, "bad_request", "", "litellm.UnsupportedParamsError: gpt does not support parameters: ['top_k']"),
    row(401, BAD_KEY, "key", "litellm.AuthenticationError: OpenAIException - Incorrect API key"),
    row(403, DENIED, "key", "litellm.PermissionDeniedError: no"),
    row(404, "not_found", "", "litellm.NotFoundError: no such model"),
    row(408, "timeout", "retry circuit", "litellm.Timeout: APITimeoutError"),
    row(422, "bad_request", "", "litellm.UnprocessableEntityError: no"),
    row(500, "server_error", "retry circuit", "litellm.InternalServerError: OpenAIException"),
    row(500, "server_error", "retry circuit", "litellm.APIConnectionError: no"),
    row(502, "server_error", "retry circuit", "litellm.BadGatewayError: no"),
    row(503, "server_error", "retry circuit", "litellm.ServiceUnavailableError: no"),
]  # fmt: skip


def assert_is(error: InferenceError | None, kind: str, *flags: bool) -> None:
    assert error is not None
    assert (error.kind, error.provider) == (kind, "litellm")
    assert (error.retryable, error.counts_as_circuit_failure, error.blames_key) == flags


@pytest.mark.parametrize(("status", "error", "kind", "retryable", "circuit", "key"), ROWS)
def test_each_error_by_status_in_a_stream_and_in_a_200(
    status: int, error: dict[str, Any], kind: str, retryable: bool, circuit: bool, key: bool
) -> None:
    body = json.dumps({"error": error}).encode()
    flags = (retryable, circuit, key)
    told = CODEC.classify(status, JSON, body, NOW)
    assert_is(told, kind, *flags)
    assert told.status == status

    for text in ([], [said("hi")]):
        decoder = CODEC.stream_decoder()
        decoder.decode(SseDecoder().feed(wire(*text, {"error": error}, "[DONE]", said("more", "stop"))))
        assert_is(decoder.error, kind, *flags)
        assert decoder.error is not None and decoder.error.status == status
        assert (decoder.complete, decoder.terminal) == (False, False)

    in_body = CODEC.decode_unary(body)
    assert isinstance(in_body, InferenceError)
    in_200 = CODEC.classify(200, JSON, body, NOW)
    for error_of_200 in (in_body, in_200):
        assert_is(error_of_200, kind, *flags)
        assert error_of_200.status == status


def tells_without_a_status(error: dict[str, Any]) -> bool:
    return error["message"].startswith(("litellm.", "No deployments")) or error["type"] not in (
        None,
        "auth_error",
        "rate_limit_error",
    )


@pytest.mark.parametrize(
    ("error", "kind", "retryable", "circuit", "key"), [each[1:] for each in ROWS if tells_without_a_status(each[1])]
)
@pytest.mark.parametrize("code", [None, "None"])
def test_an_error_without_a_status_is_known_by_its_type_or_its_exception(
    error: dict[str, Any], kind: str, retryable: bool, circuit: bool, key: bool, code: str | None
) -> None:
    body = json.dumps({"error": {**error, "code": code}})
    decoder = CODEC.stream_decoder()
    decoder.decode([SseChunk(body)])
    for told in (decoder.error, CODEC.classify(200, JSON, body.encode(), NOW)):
        assert_is(told, kind, retryable, circuit, key)
        assert told is not None and told.status is None


def test_an_unknown_error_without_a_status_may_be_tried_again() -> None:
    for message in ("litellm.NobodyKnowsError: x", "a litellm.NotFoundError: not at the beginning", ""):
        assert_is(CODEC.classify(200, JSON, json.dumps({"error": {"message": message}}).encode(), NOW), "server_error",
                  True, True, False)  # fmt: skip


def test_the_fields_of_the_provider_are_looked_into() -> None:
    inner = {"innererror": {"code": "ResponsibleAIPolicyViolation"}}
    body = {"message": "no", "type": None, "param": None, "code": "400", "provider_specific_fields": inner}
    assert_is(CODEC.classify(400, JSON, json.dumps({"error": body}).encode(), NOW), "content_filtered", False, False, False)


@pytest.mark.parametrize(
    ("status", "headers", "message", "hint"),
    [
        (429, (("retry-after", "7"),), "No deployments available for selected model, Try again in 5 seconds.", 7.0),
        (429, (), "No deployments available for selected model, Try again in 5 seconds. Passed model=x", 5.0),
        (429, (), "litellm.RateLimitError: No deployments available for selected model,\nTry again in 60.5 seconds.", 60.5),
        (429, (), "No deployments available", None),
        (429, (), "Try again in 5 seconds", 5.0),
        (429, (("retry-after", "3"), ("rate_limit_type", "tokens"), ("reset_at", "1800000009")), "over", 3.0),
        (503, (), "overloaded, try again in 5 seconds", None),
    ],
)
def test_when_to_come_back(status: int, headers: tuple[tuple[str, str], ...], message: str, hint: float | None) -> None:
    body = json.dumps({"error": {"message": message, "code": str(status)}})
    assert CODEC.classify(status, headers, body.encode(), NOW).retry_after == hint
    if not headers:
        decoder = CODEC.stream_decoder()
        decoder.decode([SseChunk(body)])
        assert decoder.error is not None and decoder.error.retry_after == hint


def test_the_call_s_id_is_told() -> None:
    call = (("x-litellm-call-id", "c-1"),)
    assert CODEC.classify(500, call, b"", NOW).provider_request_id == "c-1"
    assert CODEC.classify(500, (*call, ("x-request-id", "r-1")), b"", NOW).provider_request_id == "r-1"
    assert CODEC.classify(500, (), b"", NOW).provider_request_id is None


def test_what_does_not_parse_is_garbled() -> None:
    decoder = CODEC.stream_decoder()
    decoder.decode([SseChunk("<html>"), SseChunk('{"error": {"type": "budget_exceeded"}}')])
    for error in (decoder.error, CODEC.decode_unary(b"<html>")):
        assert isinstance(error, InferenceError)
        assert (error.kind, error.provider) == ("protocol_error", "litellm")
    page = CODEC.classify(502, (("content-type", "text/html"),), b"<html>", NOW)
    assert (page.kind, page.status) == ("server_error", 502)
    assert CODEC.classify(200, (("content-type", "text/html"),), b"<html>", NOW).kind == "protocol_error"


@pytest.mark.parametrize(
    ("pieces", "kind"),
    [
        ([wire(said("hi"), {"error": {"message": "x", "code": "503"}}, "[DONE]")], "stream_interrupted"),
        ([wire({"error": {"message": "x", "type": "expired_key", "code": "400"}}, "[DONE]")], "unauthorized"),
        ([wire(said("hi"), "[DONE]")], "stream_interrupted"),
    ],
)
def test_done_is_no_success(pieces: list[bytes], kind: str) -> None:
    _, error = replay_response(CODEC, 200, STREAM, pieces)
    assert error is not None and error.kind == kind


# ---- headers ----------------------------------------------------------------------------------------------------------


def test_the_limits_of_the_proxy_and_of_the_provider_behind_it() -> None:
    headers = (
        ("x-ratelimit-api_key-limit-requests", "100"),
        ("x-ratelimit-api_key-remaining-requests", "40"),
        ("llm_provider-x-ratelimit-limit-tokens", "1000"),
        ("llm_provider-x-ratelimit-remaining-tokens", "900"),
    )
    expected = RateLimitSnapshot(RateLimitDimension(100, 40), RateLimitDimension(1000, 900))
    assert CODEC.rate_limit_snapshot(headers, NOW) == expected
    assert CODEC.rate_limit_snapshot((), NOW) is None


def test_a_limit_that_is_used_up_is_a_hint() -> None:
    headers = (
        ("x-ratelimit-limit-requests", "9"),
        ("x-ratelimit-remaining-requests", "0"),
        ("x-ratelimit-reset-requests", "4s"),
    )
    error = CODEC.classify(429, headers, b"", NOW)
    assert error.retry_after is not None and 0 < error.retry_after <= 4.0


# ---- anything ---------------------------------------------------------------------------------------------------------


@given(st.lists(events, max_size=6))
@settings(max_examples=200)
def test_any_events_are_decoded(stream: list[SseChunk]) -> None:
    decoder, theirs = CODEC.stream_decoder(), OpenAIChat().stream_decoder()
    chunks = [chunk for event in stream for chunk in decoder.decode([event])]
    whole = CODEC.stream_decoder()
    assert whole.decode(stream) == chunks
    assert [chunk.text_delta for chunk in theirs.decode(stream)] == [chunk.text_delta for chunk in chunks]
    assert (theirs.complete, theirs.terminal, theirs.error is None) == (
        decoder.complete,
        decoder.terminal,
        decoder.error is None,
    )


@given(
    st.integers(-1, 1_000),
    st.lists(
        st.tuples(st.sampled_from(["x-litellm-response-cost", "retry-after", "x-litellm-call-id"]), st.text(max_size=9))
    ),
    st.binary(max_size=30)
    | frames.map(str.encode)
    | st.builds(lambda e: json.dumps({"error": e}).encode(), errors | json_values),
)
@settings(max_examples=200)
def test_any_response_is_an_answer_or_an_error(status: int, headers: list[tuple[str, str]], body: bytes) -> None:
    assert isinstance(CODEC.classify(status, tuple(headers), body, NOW), InferenceError)
    unary = CODEC.decode_unary(body, tuple(headers))
    assert isinstance(unary, InferenceError) or all(isinstance(chunk, TokenChunk) for chunk in unary)
