"""Gemini, on AI Studio and on Vertex: the same requests and answers, at other addresses and with other credentials.

`Gemini` is the codec. How a batch becomes a request stands in `gemini_requests`, how what comes back is read in
`gemini_answers` (chunks) and `gemini_errors`.

Source: https://ai.google.dev/api/generate-content, https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, get_args
from urllib.parse import quote

from ..batch import ExecuteBatch, TokenChunk, TokenEstimate
from ..errors import InferenceError
from ..http import Headers, HttpRequest
from ..rate_limit import RateLimitSnapshot
from ..rate_limit_headers import reader_for
from ..session import SessionSnapshot
from .gemini_answers import GeminiStreamDecoder, decode_answer
from .gemini_errors import classify_response
from .gemini_requests import gemini_body, gemini_choices, gemini_estimate
from .request import check_base_url, check_strings, credential_header, json_body, json_headers

Variant = Literal["ai_studio", "vertex"]
"""Where Gemini runs: for everybody with a key, or inside a project of Google Cloud."""

_AI_STUDIO: Final = "https://generativelanguage.googleapis.com"
_REGION: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class Gemini:
    """The codec of Gemini.

    model: what requests go to (needed by `encode` only): its name, or its path (``models/…``, ``publishers/…``,
    ``projects/…``). variant: `Variant`. endpoint: the base URL as the official SDK has it, without a version; an empty one
    is the variant's own, on Vertex that of the region.
    api_version: ``None`` is ``v1beta`` on AI Studio, whose ``v1`` knows neither system instructions nor tools, files or
    structured output in what has been seen of it (googleapis/js-genai#1746), and ``v1`` on Vertex, which knows them all.
    project, region: whose Vertex, and where; ``global``, ``us`` and ``eu`` are regions too. user_project: the project that
    is billed for the quota, where it is not the credential's own.

    The provider is called ``"gemini"`` or ``"vertex"``. A credential that does not say what it is, is a key on AI Studio and
    a token on Vertex. Raises `ValueError` naming the field.
    """

    model: str = ""
    endpoint: str = ""
    variant: Variant = "ai_studio"
    api_version: str | None = None
    project: str | None = None
    region: str = "global"
    user_project: str | None = None

    def __post_init__(self) -> None:
        check_strings(self, "model", "endpoint", "region", optional=("api_version", "project", "user_project"))
        if self.variant not in get_args(Variant):
            raise ValueError(f"variant: {self.variant!r} is neither {' nor '.join(get_args(Variant))}")
        if not _REGION.fullmatch(self.region):
            raise ValueError(f"region: {self.region!r} is no region's name, such as 'europe-west4' or 'global'")
        if ".." in self.model:
            raise ValueError(f"model: {self.model!r} holds '..', which no model's name or path does")
        on_vertex = self.variant == "vertex"
        if on_vertex and not self.project and not self.model.startswith("projects/"):
            raise ValueError("project: is missing; Vertex wants the id of a project")
        if not on_vertex and (self.project or self.region != "global"):
            raise ValueError(
                f"{'project' if self.project else 'region'}: belongs to Vertex, where there are several; "
                "write variant='vertex', or leave it out"
            )
        if not self.endpoint:
            object.__setattr__(self, "endpoint", _vertex_endpoint(self.region) if on_vertex else _AI_STUDIO)
        check_base_url(self.endpoint)

    @property
    def provider(self) -> str:
        """``"gemini"`` on AI Studio, ``"vertex"`` on Vertex."""
        return "vertex" if self.variant == "vertex" else "gemini"

    def encode(self, batch: ExecuteBatch, session: SessionSnapshot, *, stream: bool = True) -> HttpRequest:
        """The request. Raises `ValueError` for what the format cannot express, naming the field."""
        if not self.model:
            raise ValueError("model: is empty; give the codec one")
        on_vertex = self.variant == "vertex"
        usual = "bearer" if on_vertex else "api_key"
        headers = [credential_header(session.credential, "x-goog-api-key", usual=usual), *json_headers(stream=stream)]
        if self.user_project:
            headers.append(("x-goog-user-project", self.user_project))
        version = self.api_version or ("v1" if on_vertex else "v1beta")
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        url = f"{self.endpoint.rstrip('/')}/{quote(version, safe='')}/{self._path()}:{method}"
        return HttpRequest("POST", url, tuple(headers), json_body(gemini_body(batch, labels=on_vertex)))

    def estimate(self, batch: ExecuteBatch) -> TokenEstimate:
        """`gemini_estimate`."""
        return gemini_estimate(batch)

    def stream_decoder(self, batch: ExecuteBatch | None = None) -> GeminiStreamDecoder:
        """A fresh decoder for one stream, which is complete with all the candidates that ``batch`` asks for."""
        return GeminiStreamDecoder(self.provider, 1 if batch is None else gemini_choices(batch))

    def decode_unary(self, body: bytes, headers: Headers = ()) -> list[TokenChunk] | InferenceError:
        """One chunk per candidate (and one for each further signed thought), the usage on the first; or what is wrong."""
        return decode_answer(self.provider, body)

    def classify(self, status: int, headers: Headers, body: bytes, unix_now: float) -> InferenceError:
        """What a response that is not an answer means, by status, body and headers."""
        seen = self.rate_limit_snapshot(headers, unix_now)
        return classify_response(self.provider, status, headers, body, unix_now, seen)

    def rate_limit_snapshot(self, headers: Headers, unix_now: float) -> RateLimitSnapshot | None:
        """What the headers say of the limits: nothing, unless a gateway at the endpoint adds its own."""
        return reader_for(self.endpoint)(headers, unix_now)

    def _path(self) -> str:
        """The model's path below the version, percent-encoded."""
        model, name = quote(self.model, safe="/"), quote(self.model.rpartition("models/")[2], safe="/")
        if self.variant == "ai_studio":
            return model if model.startswith("tunedModels/") else f"models/{name}"
        if model.startswith("projects/"):
            return model
        path = model if model.startswith(("publishers/", "endpoints/")) else f"publishers/google/models/{name}"
        return f"projects/{quote(self.project or '', safe='')}/locations/{self.region}/{path}"


def _vertex_endpoint(region: str) -> str:
    """Google's address of a region, of one of its groups of regions, or of all of them."""
    if region == "global":
        return "https://aiplatform.googleapis.com"
    if region in ("us", "eu"):
        return f"https://aiplatform.{region}.rep.googleapis.com"
    return f"https://{region}-aiplatform.googleapis.com"
