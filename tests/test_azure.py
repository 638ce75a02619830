"""Azure's forms of both APIs (`sansio.providers.azure`)."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mangled import errors, frames

from sansio.batch import ExecuteBatch, Message, TokenChunk, TokenEstimate, TokenUsage
from sansio.codec import ProviderCodec
from sansio.errors import InferenceError
from sansio.http import HttpRequest
from sansio.providers.azure import AzureChat, AzureResponses
from sansio.providers.request import USER_AGENT
from sansio.rate_limit import RateLimitDimension, RateLimitSnapshot
from sansio.replay import replay_response
from sansio.secret import Credential, CredentialScheme
from sansio.session import SessionSnapshot
from sansio.sse import SseChunk

KEY = "0123456789abcdef0123456789abcdef"
SESSION = SessionSnapshot(1, Credential(KEY))
BATCH = ExecuteBatch([Message("user", "hello")])
NOW = 1_800_000_000.0
BOTH = pytest.mark.parametrize("kind", [AzureChat, AzureResponses])
Kind = type[AzureChat] | type[AzureResponses]
HERE = "https://my-res.openai.azure.com"


def request(of: AzureChat | AzureResponses, *, session: SessionSnapshot = SESSION) -> HttpRequest:
    return of.encode(BATCH, session)


# ---- where it goes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "chat", "responses"),
    [
        ({"resource": "my-res"}, f"{HERE}/openai/v1/chat/completions", f"{HERE}/openai/v1/responses"),
        ({"endpoint": HERE}, f"{HERE}/openai/v1/chat/completions", f"{HERE}/openai/v1/responses"),
        ({"endpoint": HERE + "//"}, f"{HERE}/openai/v1/chat/completions", f"{HERE}/openai/v1/responses"),
        ({"endpoint": f"{HERE}/openai"}, f"{HERE}/openai/v1/chat/completions", f"{HERE}/openai/v1/responses"),
        ({"endpoint": f"{HERE}/openai/v1/"}, f"{HERE}/openai/v1/chat/completions", f"{HERE}/openai/v1/responses"),
        (
            {"endpoint": "http://127.0.0.1:8080/gate"},
            "http://127.0.0.1:8080/gate/openai/v1/chat/completions",
            "http://127.0.0.1:8080/gate/openai/v1/responses",
        ),
        (
            {"resource": "my-res", "api_version": "preview"},
            f"{HERE}/openai/v1/chat/completions?api-version=preview",
            f"{HERE}/openai/v1/responses?api-version=preview",
        ),
        ({"resource": "my-res", "api_version": ""}, f"{HERE}/openai/v1/chat/completions", f"{HERE}/openai/v1/responses"),
        (
            {"resource": "my-res", "api_version": "2024-10-21"},
            f"{HERE}/openai/deployments/m/chat/completions?api-version=2024-10-21",
            f"{HERE}/openai/responses?api-version=2024-10-21",
        ),
        (
            {"endpoint": f"{HERE}/openai/", "api_version": "2025-04-01-preview", "deployment": "my chat/ü?#"},
            f"{HERE}/openai/deployments/my%20chat%2F%C3%BC%3F%23/chat/completions?api-version=2025-04-01-preview",
            f"{HERE}/openai/responses?api-version=2025-04-01-preview",
        ),
        (
            {"resource": "my-res", "api_version": "2024-10-21&a=b#c d"},
            f"{HERE}/openai/deployments/m/chat/completions?api-version=2024-10-21%26a%3Db%23c%20d",
            f"{HERE}/openai/responses?api-version=2024-10-21%26a%3Db%23c%20d",
        ),
    ],
)
def test_addresses(options: dict[str, Any], chat: str, responses: str) -> None:
    assert request(AzureChat("m", **options)).url == chat
    assert request(AzureResponses("m", **options)).url == responses


@BOTH
def test_what_is_asked_is_the_deployment(kind: Kind) -> None:
    for options, name in (({}, "gpt-4o"), ({"deployment": "mine"}, "mine"), ({"deployment": ""}, "gpt-4o")):
        made = kind("gpt-4o", resource="my-res", **options)
        assert json.loads(request(made).body)["model"] == name
    assert json.loads(request(kind(deployment="mine", resource="my-res")).body)["model"] == "mine"


@BOTH
@pytest.mark.parametrize(
    ("scheme", "header"),
    [(None, ("api-key", KEY)), ("api_key", ("api-key", KEY)), ("bearer", ("authorization", f"Bearer {KEY}"))],
)
def test_a_key_and_a_token_go_into_headers_of_their_own(
    kind: Kind, scheme: CredentialScheme | None, header: tuple[str, str]
) -> None:
    made = kind("m", resource="my-res").encode(BATCH, SessionSnapshot(1, Credential(KEY, scheme=scheme)), stream=False)
    assert made.headers == (
        header,
        ("content-type", "application/json"),
        ("accept", "application/json"),
        ("user-agent", USER_AGENT),
    )
    assert made.method == "POST"
    assert KEY not in repr(made) + made.url
    assert "stream" not in json.loads(made.body)


def test_the_bodies_are_those_of_the_two_apis() -> None:
    assert json.loads(request(AzureChat("m", HERE)).body) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hello"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert json.loads(request(AzureResponses("m", HERE)).body) == {
        "model": "m",
        "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}],
        "stream": True,
    }


@BOTH
@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("endpoint", {"model": "m"}),
        ("endpoint", {"deployment": "m"}),
        ("endpoint", {"endpoint": HERE, "resource": "other"}),
        ("endpoint", {"endpoint": "my-res"}),
        ("endpoint", {"endpoint": f"{HERE}?api-version=1"}),
        ("endpoint", {"endpoint": None}),
        ("resource", {"resource": ""}),
        ("resource", {"resource": "my.res"}),
        ("resource", {"resource": "evil.com/"}),
        ("resource", {"resource": "res-\n"}),
        ("resource", {"resource": "-res"}),
        ("resource", {"resource": 7}),
        ("model", {"model": None}),
        ("deployment", {"deployment": 7}),
        ("api_version", {"api_version": 20241021}),
        ("api_version", {"endpoint": f"{HERE}/openai/v1", "api_version": "2024-10-21"}),
    ],
)
def test_a_configuration_out_of_range_is_refused(kind: Kind, field: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        kind(**options)


@BOTH
def test_the_endpoint_is_that_of_the_resource(kind: Kind) -> None:
    made = kind("m", resource="my-res")
    assert (made.endpoint, made.provider) == (HERE, "azure")
    assert dataclasses.replace(made, model="n").endpoint == HERE  # given back beside the resource it was made of
    assert kind("m", "http://127.0.0.1:1/").endpoint == "http://127.0.0.1:1/"


@BOTH
def test_a_codec_that_only_reads_needs_no_endpoint(kind: Kind) -> None:
    reader = kind()
    assert isinstance(reader, ProviderCodec)
    assert reader.classify(500, (), b"", NOW).kind == "server_error"
    with pytest.raises(ValueError, match=r"^endpoint: is missing"):
        reader.encode(dataclasses.replace(BATCH, extra={"model": "m"}), SESSION)
    with pytest.raises(ValueError, match=r"^model: is empty"):
        kind(resource="my-res").encode(BATCH, SESSION)


@BOTH
def test_estimates(kind: Kind) -> None:
    batch = dataclasses.replace(BATCH, max_output_tokens=5, extra={"n": 2})
    assert kind().estimate(batch) == TokenEstimate(10, 10 if kind is AzureChat else 5, True)


# ---- what comes back ---------------------------------------------------------------------------------------------------

SAFE = {"hate": {"filtered": False, "severity": "safe"}, "jailbreak": {"filtered": False, "detected": False}}


def frame(choices: list[dict[str, Any]], **more: Any) -> bytes:
    common = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o", "choices": choices}
    return b"data: " + json.dumps(common | more).encode() + b"\n\n"


STREAM = b"".join(
    (
        # what was found in the prompt comes first, under no name at all
        frame([], id="", object="", created=0, model="", prompt_filter_results=[{"content_filter_results": SAFE}]),
        frame([{"index": 0, "delta": {"role": "assistant", "content": ""}, "content_filter_results": {}}]),
        frame([{"index": 0, "delta": {"content": "Grüß "}, "finish_reason": None, "content_filter_results": SAFE}]),
        frame([{"index": 0, "delta": {"content": "Gott"}, "finish_reason": None, "content_filter_results": SAFE}]),
        frame([{"index": 0, "finish_reason": None, "content_filter_offsets": {"check_offset": 0, "end_offset": 4}}]),
        frame([{"index": 0, "delta": {}, "finish_reason": "stop", "content_filter_results": {"error": {"code": "x"}}}]),
        frame([], usage={"prompt_tokens": 8, "completion_tokens": 3, "total_tokens": 11}, service_tier="priority"),
        frame([{"index": 0, "content_filter_offsets": {"check_offset": 4}, "content_filter_results": SAFE}], id=""),
        b"data: [DONE]\n\n",
    )
)
CHUNKS = [
    TokenChunk("Grüß "),
    TokenChunk("Gott"),
    TokenChunk(finish_reason="stop", raw_finish_reason="stop"),
    TokenChunk(usage=TokenUsage(8, 3, service_tier="priority")),
]
SSE = [("content-type", "text/event-stream")]


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
def test_a_stream_with_what_the_filters_say(size: int) -> None:
    pieces = [STREAM[at : at + size] for at in range(0, len(STREAM), size)]
    assert replay_response(AzureChat(), 200, SSE, pieces) == (CHUNKS, None)


def test_an_answer_that_a_filter_cut_short_is_an_answer() -> None:
    cut = frame([{"index": 0, "delta": {"content": "We"}}]) + frame([{"index": 0, "finish_reason": "content_filter"}])
    chunks, error = replay_response(AzureChat(), 200, SSE, [cut])
    assert (chunks[-1].finish_reason, error) == ("content_filter", None)
    whole = {"choices": [{"index": 0, "finish_reason": "content_filter", "message": {"role": "assistant"}}]}
    assert AzureChat().decode_unary(json.dumps(whole).encode()) == chunks[-1:]


def test_a_stream_of_the_other_api() -> None:
    events = [
        {"type": "response.output_text.delta", "delta": "hi"},
        {"type": "response.incomplete", "response": {"incomplete_details": {"reason": "content_filter"}}},
    ]
    pieces = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events]
    cut = TokenChunk(finish_reason="content_filter", raw_finish_reason="content_filter")
    assert replay_response(AzureResponses(), 200, SSE, pieces) == ([TokenChunk("hi"), cut], None)


@BOTH
def test_errors_carry_its_name(kind: Kind) -> None:
    of = kind()
    decoder = of.stream_decoder()
    decoder.decode([SseChunk("not JSON")])
    for error in (decoder.error, of.decode_unary(b"not JSON"), of.classify(500, (), b"not JSON", NOW)):
        assert isinstance(error, InferenceError)
        assert error.provider == "azure"


def test_a_stream_must_bring_the_choices_that_were_asked_for() -> None:
    for asked in (1, 2):
        decoder = AzureChat().stream_decoder(dataclasses.replace(BATCH, extra={"n": asked}))
        decoder.decode([SseChunk(json.dumps({"choices": [{"index": 0, "finish_reason": "stop"}]}))])
        assert decoder.complete is (asked == 1)


# ---- refusals ----------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "26"}, 26.0),
        ({"Retry-After-Ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after-ms": "0", "retry-after": "2"}, 2.0),
        ({"Retry-After-Ms": "0", "Retry-After": "2"}, 2.0),
        ({"x-ms-retry-after-ms": "0", "Retry-After": "86400"}, 86_400.0),
        ({"retry-after": "0"}, None),
        ({"retry-after": "0.0"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, None),  # long past
        ({"retry-after": "soon"}, None),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "0"}, None),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "-1"}, None),
    ],
)
def test_a_wait_of_nothing_is_unknown(kind: Kind, headers: dict[str, str], seconds: float | None) -> None:
    error = kind().classify(429, tuple(headers.items()), b"", NOW)
    assert (error.kind, error.retry_after) == ("rate_limited", seconds)
    for words, wait in ((b"retry after 26 seconds", 26.0), (b"retry after 0 seconds", None)):
        worded = b'{"error": {"code": "429", "message": "Please %b."}}' % words
        assert kind().classify(429, tuple(headers.items()), worded, NOW).retry_after == (seconds or wait)


@BOTH
def test_the_reset_of_what_is_used_up_is_a_hint_where_the_wait_is_unknown(kind: Kind) -> None:
    used_up = (("retry-after", "0"), ("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", "7"))
    assert kind().classify(429, used_up, b"", NOW).retry_after == 7.0


@BOTH
def test_rate_limit_headers(kind: Kind) -> None:
    headers = (("x-ratelimit-remaining-requests", "9"), ("x-ratelimit-limit-requests", "0"))
    assert kind().rate_limit_snapshot(headers, NOW) == RateLimitSnapshot(RateLimitDimension(None, 9))
    assert kind().rate_limit_snapshot((), NOW) is None


@BOTH
def test_the_id_of_a_request_is_azures(kind: Kind) -> None:
    assert kind().classify(500, (("apim-request-id", "a1"),), b"", NOW).provider_request_id == "a1"


names = st.sampled_from(["retry-after", "Retry-After-Ms", "x-ms-retry-after-ms", "x-should-retry", "apim-request-id"])
values = st.text(max_size=10) | st.sampled_from(["0", "-1", "1s", "nan", "1e400", "9" * 400, "true", "٣"])
limits = st.sampled_from([f"x-ratelimit-{what}-tokens" for what in ("limit", "remaining", "reset")])
bodies = frames.map(str.encode) | errors.map(lambda error: json.dumps({"error": error}).encode()) | st.binary(max_size=40)


@given(
    st.sampled_from([AzureChat, AzureResponses]),
    st.integers(-1, 1000),
    st.lists(st.tuples(names | limits, values), max_size=5).map(tuple),
    bodies,
    st.floats(0, 1e11),
)
@settings(max_examples=150, deadline=None)
def test_any_refusal_is_classified(
    kind: Kind, status: int, headers: tuple[tuple[str, str], ...], data: bytes, unix_now: float
) -> None:
    error = kind().classify(status, headers, data, unix_now)
    assert error.retry_after is None or 0 <= error.retry_after < math.inf
    assert error.provider == "azure"
    assert InferenceError.from_dict(error.to_dict()).to_dict() == error.to_dict()


@given(st.text(st.characters(codec="utf-8"), max_size=20), st.text(st.characters(codec="utf-8"), max_size=20) | st.none())
@settings(max_examples=150, deadline=None)
def test_any_name_of_a_deployment_or_version_makes_one_address(deployment: str, api_version: str | None) -> None:
    """Nothing that is put into an address can leave its place there."""
    made = request(AzureChat("m", HERE, deployment=deployment, api_version=api_version))
    path, _, query = made.url.removeprefix(f"{HERE}/openai/").partition("?")
    assert path.count("/") == 2 + path.startswith("deployments")
    assert query.count("=") == (1 if api_version else 0)
    assert not set("&#?") & set(query)


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("api_version", {"api_version": "\ud800"}),
        ("deployment", {"deployment": "\ud800", "api_version": "2024-10-21"}),
        ("batch", {"deployment": "\ud800"}),  # in the body, where it is the model's name
    ],
)
def test_what_cannot_be_written_in_an_address_names_its_field(field: str, options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        request(AzureChat("m", HERE, **options))


def test_an_address_needs_the_name_that_stands_in_it() -> None:
    batch = dataclasses.replace(BATCH, extra={"model": "m"})
    assert json.loads(AzureChat(endpoint=HERE).encode(batch, SESSION).body)["model"] == "m"
    with pytest.raises(ValueError, match=r"^deployment: is missing"):
        AzureChat(endpoint=HERE, api_version="2024-10-21").encode(batch, SESSION)
