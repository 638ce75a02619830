"""What is sent to Gemini, and where to (`sansio.providers.gemini`, `gemini_requests`)."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

from sansio.batch import ExecuteBatch, ImagePart, Message, TextPart, Thought, TokenEstimate, Tokens, Tool, ToolCall
from sansio.codec import ProviderCodec
from sansio.http import HttpRequest
from sansio.providers.gemini import Gemini
from sansio.providers.request import USER_AGENT
from sansio.rate_limit import RateLimitDimension, RateLimitSnapshot
from sansio.secret import Credential
from sansio.session import SessionSnapshot

KEY = "AIzaSy-test-0123456789abcdef"
SESSION = SessionSnapshot(1, Credential(KEY))
STUDIO = Gemini("gemini-3.5-flash")
VERTEX = Gemini("gemini-3.5-flash", variant="vertex", project="p-1")
HELLO = Message("user", "hello")
NOW = 1_800_000_000.0


def request(
    batch: ExecuteBatch, *, of: Gemini = STUDIO, session: SessionSnapshot = SESSION, stream: bool = True
) -> HttpRequest:
    return of.encode(batch, session, stream=stream)


def url(of: Gemini, *, stream: bool = False) -> str:
    return request(ExecuteBatch([HELLO]), of=of, stream=stream).url


def body(*messages: Message, of: Gemini = STUDIO, **fields: Any) -> dict[str, Any]:
    out: dict[str, Any] = json.loads(request(ExecuteBatch(messages or (HELLO,), **fields), of=of).body)
    return out


def contents(*messages: Message) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = body(*messages)["contents"]
    return out


# ---- where it goes ----------------------------------------------------------------------------------------------------


def test_it_is_a_codec() -> None:
    assert isinstance(STUDIO, ProviderCodec)
    assert (STUDIO.provider, VERTEX.provider) == ("gemini", "vertex")


def test_a_streaming_request() -> None:
    made = request(ExecuteBatch([HELLO], max_output_tokens=16))
    assert made.method == "POST"
    assert made.url == (
        "https://generativelanguage.googleapis.com/v1beta/models/gemini-3.5-flash:streamGenerateContent?alt=sse"
    )
    assert made.headers == (
        ("x-goog-api-key", KEY),
        ("content-type", "application/json"),
        ("accept", "text/event-stream"),
        ("user-agent", USER_AGENT),
    )
    assert json.loads(made.body) == {
        "contents": [{"role": "user", "parts": [{"text": "hello"}]}],
        "generationConfig": {"maxOutputTokens": 16},
    }


def test_a_unary_request() -> None:
    made = request(ExecuteBatch([HELLO]), stream=False)
    assert made.url == "https://generativelanguage.googleapis.com/v1beta/models/gemini-3.5-flash:generateContent"
    assert dict(made.headers)["accept"] == "application/json"
    assert json.loads(made.body) == {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}


HERE = "https://generativelanguage.googleapis.com"


@pytest.mark.parametrize(
    ("codec", "where"),
    [
        (Gemini("models/gemini-3.5-flash"), f"{HERE}/v1beta/models/gemini-3.5-flash"),
        (Gemini("publishers/google/models/gemini-3.5-flash"), f"{HERE}/v1beta/models/gemini-3.5-flash"),
        (Gemini("tunedModels/mine"), f"{HERE}/v1beta/tunedModels/mine"),
        (Gemini("a b?c#d:e"), f"{HERE}/v1beta/models/a%20b%3Fc%23d%3Ae"),
        (Gemini("m", api_version="v1"), f"{HERE}/v1/models/m"),
        (Gemini("m", api_version="v/1?"), f"{HERE}/v%2F1%3F/models/m"),
        (Gemini("m", endpoint="http://127.0.0.1:8080/g//"), "http://127.0.0.1:8080/g/v1beta/models/m"),
    ],
)
def test_models_on_ai_studio(codec: Gemini, where: str) -> None:
    assert url(codec) == f"{where}:generateContent"
    assert url(codec, stream=True) == f"{where}:streamGenerateContent?alt=sse"


def vertex(model: str = "m", **options: Any) -> Gemini:
    return Gemini(model, variant="vertex", **{"project": "p-1", **options})


GLOBAL = "https://aiplatform.googleapis.com/v1/projects/p-1/locations/global"


@pytest.mark.parametrize(
    ("codec", "where"),
    [
        (vertex(), f"{GLOBAL}/publishers/google/models/m"),
        (vertex("models/m"), f"{GLOBAL}/publishers/google/models/m"),
        (vertex("publishers/google/models/m@001"), f"{GLOBAL}/publishers/google/models/m%40001"),
        (vertex("endpoints/123"), f"{GLOBAL}/endpoints/123"),
        (
            vertex("projects/x/locations/us-east1/endpoints/1", project=None),
            "https://aiplatform.googleapis.com/v1/projects/x/locations/us-east1/endpoints/1",
        ),
        (vertex(project="a b/c"), f"{GLOBAL}/publishers/google/models/m".replace("p-1", "a%20b%2Fc")),
        (vertex(api_version="v1beta1"), f"{GLOBAL}/publishers/google/models/m".replace("/v1/", "/v1beta1/")),
        (
            vertex(region="us"),
            "https://aiplatform.us.rep.googleapis.com/v1/projects/p-1/locations/us/publishers/google/models/m",
        ),
        (
            vertex(region="eu"),
            "https://aiplatform.eu.rep.googleapis.com/v1/projects/p-1/locations/eu/publishers/google/models/m",
        ),
        (
            vertex(region="europe-west4"),
            "https://europe-west4-aiplatform.googleapis.com/v1/projects/p-1/locations/europe-west4"
            "/publishers/google/models/m",
        ),
        (
            vertex(region="europe-west4", endpoint="http://127.0.0.1:8080"),
            "http://127.0.0.1:8080/v1/projects/p-1/locations/europe-west4/publishers/google/models/m",
        ),
    ],
)
def test_models_on_vertex(codec: Gemini, where: str) -> None:
    assert url(codec) == f"{where}:generateContent"


def test_the_endpoint_is_there_before_any_request() -> None:
    assert STUDIO.endpoint == "https://generativelanguage.googleapis.com"
    assert vertex(region="us-east1").endpoint == "https://us-east1-aiplatform.googleapis.com"
    assert Gemini(endpoint="http://127.0.0.1:8080").endpoint == "http://127.0.0.1:8080"
    assert Gemini() == Gemini(endpoint=STUDIO.endpoint)


@pytest.mark.parametrize(
    ("codec", "scheme", "header"),
    [
        (STUDIO, None, ("x-goog-api-key", KEY)),
        (STUDIO, "api_key", ("x-goog-api-key", KEY)),
        (STUDIO, "bearer", ("authorization", f"Bearer {KEY}")),
        (VERTEX, None, ("authorization", f"Bearer {KEY}")),
        (VERTEX, "bearer", ("authorization", f"Bearer {KEY}")),
        (VERTEX, "api_key", ("x-goog-api-key", KEY)),
    ],
)
def test_keys_and_tokens_have_headers_of_their_own(codec: Gemini, scheme: Any, header: tuple[str, str]) -> None:
    session = SessionSnapshot(1, Credential(KEY, scheme=scheme))
    made = request(ExecuteBatch([HELLO]), of=codec, session=session)
    assert made.headers[0] == header
    assert len([value for _, value in made.headers if KEY in value]) == 1
    assert KEY not in made.url


def test_who_pays_is_sent_where_given() -> None:
    assert dict(request(ExecuteBatch([HELLO]), of=vertex(user_project="p-2")).headers)["x-goog-user-project"] == "p-2"


def test_the_key_does_not_show() -> None:
    made = request(ExecuteBatch([HELLO]))
    assert KEY not in repr(made) + str(made) + repr(STUDIO) + repr(SESSION)
    assert KEY.encode() not in made.body + pickle.dumps(STUDIO)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"model": 5}, "model: 5 is not a string"),
        ({"model": "models/../x"}, "model: 'models/../x' holds '..'"),
        ({"endpoint": None}, "endpoint: None is not a string"),
        ({"endpoint": "ftp://x"}, "endpoint: "),
        ({"endpoint": "http://x/?a"}, "endpoint: .* query"),
        ({"variant": "cloud"}, "variant: 'cloud' is neither ai_studio nor vertex"),
        ({"variant": "vertex"}, "project: is missing"),
        ({"variant": "vertex", "project": ""}, "project: is missing"),
        ({"variant": "vertex", "project": 5}, "project: 5 is not a string"),
        ({"variant": "vertex", "project": "p", "region": ""}, "region: ''"),
        ({"variant": "vertex", "project": "p", "region": "x.evil.com/"}, r"region: 'x\.evil\.com/' is no region"),
        ({"variant": "vertex", "project": "p", "region": "US"}, "region: 'US'"),
        ({"variant": "vertex", "project": "p", "region": "a\n"}, "region: "),
        ({"project": "p"}, "^project: belongs to Vertex"),
        ({"region": "us"}, "^region: belongs to Vertex"),
        ({"api_version": 1}, "api_version: 1 is not a string"),
        ({"user_project": b"p"}, "user_project: b'p' is not a string"),
    ],
)
def test_options_that_cannot_be_meant(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Gemini(**options)


def test_a_request_needs_a_model() -> None:
    with pytest.raises(ValueError, match=r"^model: is empty"):
        request(ExecuteBatch([HELLO]), of=Gemini())


# ---- messages ---------------------------------------------------------------------------------------------------------


def test_instructions_have_a_place_of_their_own() -> None:
    made = body(
        Message("system", "be brief"),
        HELLO,
        Message("developer", [TextPart("in"), TextPart("verse")]),
        Message("system", ""),
    )
    assert made == {
        "contents": [{"role": "user", "parts": [{"text": "hello"}]}],
        "systemInstruction": {"parts": [{"text": "be brief"}, {"text": "in"}, {"text": "verse"}]},
    }


SPOKEN: list[tuple[Message, list[dict[str, Any]]]] = [
    (Message("user", ""), [{"text": ""}]),
    (Message("user", []), [{"text": ""}]),
    (Message("user", "x", name="who"), [{"text": "x"}]),
    (Message("user", [TextPart("see"), TextPart("")]), [{"text": "see"}, {"text": ""}]),
    (Message("assistant", ""), [{"text": ""}]),
    (Message("assistant", "yes"), [{"text": "yes"}]),
    (Message("assistant", "", refusal="no"), [{"text": "no"}]),
    (Message("assistant", "x", thoughts=[Thought("hm")]), [{"text": "hm", "thought": True}, {"text": "x"}]),
    (
        Message(
            "assistant",
            "x",
            thoughts=[Thought("hm", "s1"), Thought(signature="s2"), Thought()],
            tool_calls=[ToolCall("c", "f", "{}")],
        ),
        [
            {"text": "hm", "thought": True, "thoughtSignature": "s1"},
            {"text": "x"},
            {"text": "", "thoughtSignature": "s2"},
            {"functionCall": {"id": "c", "name": "f", "args": {}}},
        ],
    ),
    (
        Message("assistant", "", tool_calls=[ToolCall("c1", "f", '{"a": [1]}', "sig"), ToolCall("", "g", "")]),
        [
            {"functionCall": {"id": "c1", "name": "f", "args": {"a": [1]}}, "thoughtSignature": "sig"},
            {"functionCall": {"name": "g", "args": {}}},
        ],
    ),
]


@pytest.mark.parametrize(("message", "parts"), SPOKEN)
def test_what_users_and_models_say(message: Message, parts: list[dict[str, Any]]) -> None:
    role = "user" if message.role == "user" else "model"
    assert contents(message) == [{"role": role, "parts": parts}]


def image(url: str) -> dict[str, Any]:
    made: dict[str, Any] = contents(Message("user", [ImagePart(url, "low")]))[0]["parts"][0]
    return made


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("data:image/png;base64,AA==", {"inlineData": {"mimeType": "image/png", "data": "AA=="}}),
        ("DATA:image/png;name=x;BASE64,AA==", {"inlineData": {"mimeType": "image/png", "data": "AA=="}}),
        ("data:image/svg+xml,%3Csvg%2F%3E", {"inlineData": {"mimeType": "image/svg+xml", "data": "PHN2Zy8+"}}),
        ("data:image/svg+xml;charset=utf-8,a%0a", {"inlineData": {"mimeType": "image/svg+xml", "data": "YQo="}}),
        ("gs://b/x.JPG", {"fileData": {"mimeType": "image/jpeg", "fileUri": "gs://b/x.JPG"}}),
        ("https://x/y.webp?a=b.png#c", {"fileData": {"mimeType": "image/webp", "fileUri": "https://x/y.webp?a=b.png#c"}}),
        ("http://x/y.pdf#page.png", {"fileData": {"mimeType": "application/pdf", "fileUri": "http://x/y.pdf#page.png"}}),
        ("https://x/v1beta/files/abc", {"fileData": {"fileUri": "https://x/v1beta/files/abc"}}),
    ],
)
def test_images(url: str, part: dict[str, Any]) -> None:
    assert image(url) == part


@pytest.mark.parametrize("end", ["png", "jpg", "jpeg", "webp", "gif", "heic", "heif", "avif", "bmp"])
def test_the_type_of_an_image_elsewhere_is_told_by_its_end(end: str) -> None:
    assert image(f"https://x/y.{end}")["fileData"]["mimeType"] == f"image/{'jpeg' if end == 'jpg' else end}"


TWO_CALLS = Message("assistant", "", tool_calls=[ToolCall("c1", "f", "{}"), ToolCall("c2", "g", "{}")])


def test_answers_to_calls_made_together_go_together() -> None:
    made = contents(
        HELLO,
        TWO_CALLS,
        Message("tool", '{"a": 1}', tool_call_id="c1"),
        Message("tool", "21 °C", tool_call_id="c2"),
        Message("user", "thanks"),
        Message("tool", [TextPart("[1,"), TextPart("2]")], tool_call_id="c9", name="h"),
    )
    assert [content["role"] for content in made] == ["user", "model", "user", "user", "user"]
    assert made[2]["parts"] == [
        {"functionResponse": {"id": "c1", "name": "f", "response": {"a": 1}}},
        {"functionResponse": {"id": "c2", "name": "g", "response": {"result": "21 °C"}}},
    ]
    assert made[4]["parts"] == [{"functionResponse": {"id": "c9", "name": "h", "response": {"result": "[1,2]"}}}]


def test_an_instruction_in_between_does_not_part_them() -> None:
    made = contents(
        TWO_CALLS,
        Message("tool", "1", tool_call_id="c1"),
        Message("system", "x"),
        Message("tool", "2", tool_call_id="c2"),
    )
    assert [len(content["parts"]) for content in made] == [2, 2]


@pytest.mark.parametrize("content", ["it broke", '{"why": "it broke"}'])
def test_a_tool_that_failed_says_so(content: str) -> None:
    made = contents(TWO_CALLS, Message("tool", content, tool_call_id="c1", is_error=True))
    assert made[1]["parts"][0]["functionResponse"]["response"] == {"error": content}


def test_an_id_that_comes_again_is_that_of_the_last_call() -> None:
    again = Message("assistant", "", tool_calls=[ToolCall("c1", "later", "{}")])
    answer = Message("tool", "x", tool_call_id="c1")
    made = contents(TWO_CALLS, answer, again, answer)
    names = [
        content["parts"][0]["functionResponse"]["name"] for content in made if "functionResponse" in content["parts"][0]
    ]
    assert names == ["f", "later"]


def test_an_answer_goes_back_as_it_came() -> None:
    codec = Gemini("m")
    parts: list[dict[str, Any]] = [
        {"text": "hm", "thought": True, "thoughtSignature": "s0"},
        {"text": "yes"},
        {"functionCall": {"id": "8f2k", "name": "f", "args": {"a": "ü"}}, "thoughtSignature": "s1"},
    ]
    answer = {"candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": "STOP"}]}
    chunks = codec.decode_unary(json.dumps(answer).encode())
    assert isinstance(chunks, list)
    assert contents(Tokens.from_chunks(chunks).message()) == [{"role": "model", "parts": parts}]


ODD: list[dict[str, Any]] = [{"role": "function", "content": "x"}, {"role": "user", "content": ["x"]}]


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([Message("system", "x")], "messages: hold instructions only"),
        ([Message(**ODD[0])], "role: 'function' is none of"),
        ([HELLO, Message("system", [ImagePart("gs://b/x.png")])], "content: Gemini takes only text from the roles system"),
        ([Message("tool", "x")], "tool_call_id: "),
        ([Message("tool", "x", tool_call_id="c1")], "name: .* the id 'c1'"),
        ([Message("tool", [ImagePart("gs://b/x.png")], name="f", tool_call_id="c1")], "content: an image in a message"),
        ([Message(**ODD[1])], "content: str is neither"),
        ([Message("user", [ImagePart("file:///x.png")])], "content: 'file:///x.png' is no image for Gemini"),
        ([Message("user", [ImagePart("data:,x")])], r"content: 'data:,x' is not a data: URL with a media type"),
        ([Message("user", [ImagePart("data:image/png;base64")])], "content: .* is not a data: URL"),
        ([Message("assistant", "", tool_calls=[ToolCall("c", "f", "[1]")])], "tool_calls: the arguments of 'f' are not"),
        ([Message("assistant", "", tool_calls=[ToolCall("c", "f", '{"a": ')])], "tool_calls: the arguments of 'f' are not"),
        ([Message("user", "\ud800")], "batch: cannot be written as JSON"),
    ],
)
def test_what_cannot_be_said_is_refused(messages: list[Message], says: str) -> None:
    with pytest.raises(ValueError, match=f"^{says}"):
        request(ExecuteBatch(messages))


# ---- tools and settings -----------------------------------------------------------------------------------------------

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": False}


def test_tools() -> None:
    made = body(tools=[Tool("f", "does f", SCHEMA), Tool("g", strict=False)])
    assert made["tools"] == [
        {"functionDeclarations": [{"name": "f", "description": "does f", "parametersJsonSchema": SCHEMA}, {"name": "g"}]}
    ]
    assert "toolConfig" not in made


@pytest.mark.parametrize(
    ("choice", "strict", "config"),
    [
        ("auto", None, {"mode": "AUTO"}),
        ("none", None, {"mode": "NONE"}),
        ("required", None, {"mode": "ANY"}),
        ("f", None, {"mode": "ANY", "allowedFunctionNames": ["f"]}),
        (None, True, {"mode": "VALIDATED"}),
        ("auto", True, {"mode": "VALIDATED"}),
        ("none", True, {"mode": "NONE"}),
        ("required", True, {"mode": "ANY"}),
        ("f", True, {"mode": "ANY", "allowedFunctionNames": ["f"]}),
    ],
)
def test_which_tools_may_be_called(choice: str | None, strict: bool | None, config: dict[str, Any]) -> None:
    made = body(tools=[Tool("f", strict=strict), Tool("g")], tool_choice=choice)
    assert made["toolConfig"] == {"functionCallingConfig": config}


@pytest.mark.parametrize(
    ("fields", "config"),
    [
        ({"temperature": 0.0, "top_p": 1, "seed": 7}, {"temperature": 0.0, "topP": 1, "seed": 7}),
        ({"stop": ("a", "b"), "max_output_tokens": 5}, {"stopSequences": ["a", "b"], "maxOutputTokens": 5}),
        ({"response_format": "text"}, {"responseMimeType": "text/plain"}),
        ({"response_format": "json_object"}, {"responseMimeType": "application/json"}),
        ({"response_format": SCHEMA}, {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA}),
        ({"reasoning_effort": "low"}, {"thinkingConfig": {"thinkingLevel": "low", "includeThoughts": True}}),
        ({"extra": {"generationConfig": {"topK": 3}}}, {"topK": 3}),
        ({"seed": 7, "top_p": 1, "extra": {"generationConfig": {"topK": 3, "seed": 8}}}, {"topP": 1, "seed": 8, "topK": 3}),
        ({"seed": 7, "extra": {"generationConfig": None}}, None),
    ],
)
def test_settings(fields: dict[str, Any], config: Any) -> None:
    assert body(**fields)["generationConfig"] == config


def test_extra_wins() -> None:
    made = body(HELLO, tools=[Tool("f")], extra={"tools": [{"googleSearch": {}}], "cachedContent": "cachedContents/x"})
    assert (made["tools"], made["cachedContent"]) == ([{"googleSearch": {}}], "cachedContents/x")


def test_hints_are_passed_over() -> None:
    assert body(Message("user", "hello", cache="long"), cache_key="k", parallel_tool_calls=True) == body()


def test_metadata_are_labels_on_vertex() -> None:
    assert body(of=VERTEX, metadata={"team": "a"})["labels"] == {"team": "a"}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"metadata": {"team": "a"}}, "metadata: Gemini takes it on Vertex only"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls: False cannot be said"),
        ({"tool_choice": "f", "tools": [Tool("g")]}, "tool_choice: 'f' is neither"),
        ({"response_format": "yaml"}, "response_format: 'yaml' is neither"),
        ({"extra": {"x": object()}}, "batch: cannot be written as JSON"),
    ],
)
def test_settings_that_cannot_be_said(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=f"^{says}"):
        body(**fields)


# ---- estimates, headers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "output", "is_limit"),
    [
        ({}, 1024, False),
        ({"max_output_tokens": 7}, 7, True),
        ({"max_output_tokens": 7, "extra": {"generationConfig": {"maxOutputTokens": 9, "candidateCount": 2}}}, 18, True),
        ({"max_output_tokens": 7, "extra": {"generationConfig": {"maxOutputTokens": "9", "candidateCount": 0}}}, 7, True),
        ({"max_output_tokens": 7, "extra": {"generationConfig": [1]}}, 7, True),
    ],
)
def test_the_estimate_knows_the_limit(fields: dict[str, Any], output: int, is_limit: bool) -> None:
    assert STUDIO.estimate(ExecuteBatch([HELLO], **fields)) == TokenEstimate(10, output, is_limit)


def test_limits_are_read_of_a_gateway_s_headers() -> None:
    assert STUDIO.rate_limit_snapshot((("x-ratelimit-limit", "5"),), NOW) is None
    headers = (("x-ratelimit-remaining-requests", "3"), ("x-ratelimit-limit-requests", "9"))
    found = Gemini(endpoint="http://gateway:4000").rate_limit_snapshot(headers, NOW)
    assert found == RateLimitSnapshot(requests=RateLimitDimension(9, 3))
