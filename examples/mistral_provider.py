"""A provider in one file: Mistral, which speaks the format of Chat Completions in a dialect of its own.

A provider is one class with the methods of `sansio.ProviderCodec`, and a `Deployment` takes it as its ``runtime``: nothing
has to be registered. What is like OpenAI's comes from the parts of `sansio.providers`. What is not:

- requests: ``max_tokens``, ``random_seed`` and ``safe_prompt``; no ``stream_options``, no ``developer``, no names of users.
  A field that Mistral does not know is an error (422), so nothing is sent on the off chance;
- answers: content may be a list of parts, texts and thinking; the usage comes unasked, in the last chunk with content;
- errors: without ``error`` around them, some with ``detail`` alone; and limits in headers of its own, without a reset.

Run it: it asks a mock provider on this machine.
"""

from dataclasses import dataclass, replace

from drivers.mock_provider import serve_in_thread
from drivers.sync_driver import RemoteEngine
from sansio import (
    Deployment,
    ExecuteBatch,
    HttpRequest,
    InferenceError,
    Message,
    RateLimitSnapshot,
    Secret,
    SessionSnapshot,
    TokenChunk,
    TokenEstimate,
    Tool,
)
from sansio.http import Headers
from sansio.providers.openai_answers import ChatStreamDecoder, decode_answer
from sansio.providers.openai_errors import classify_response
from sansio.providers.openai_requests import chat_body, chat_choices, chat_estimate
from sansio.providers.request import check_base_url, check_strings, credential_header, json_body, json_headers
from sansio.rate_limit_headers import mistral
from sansio.simulation import MockProvider


@dataclass(frozen=True, slots=True)
class MistralChat:
    """``safe_prompt``: Mistral puts a safety prompt of its own before the messages."""

    model: str = ""
    endpoint: str = "https://api.mistral.ai/v1"
    safe_prompt: bool = False

    def __post_init__(self) -> None:
        check_strings(self, "model")
        check_base_url(self.endpoint)

    @property
    def provider(self) -> str:
        return "mistral"

    # ---- what is sent ---------------------------------------------------------------------------------------------------

    def encode(self, batch: ExecuteBatch, session: SessionSnapshot, *, stream: bool = True) -> HttpRequest:
        """OpenAI's body for what both call the same; the rest goes in under Mistral's names, the caller's extras last."""
        renamed = {"max_tokens": batch.max_output_tokens, "random_seed": batch.seed, "safe_prompt": self.safe_prompt or None}
        own = {name: value for name, value in renamed.items() if value is not None}
        alike = replace(
            batch,
            messages=[turn(message) for message in batch.messages],
            tools=[with_parameters(tool) for tool in batch.tools],
            max_output_tokens=None,
            seed=None,
            extra={**own, **batch.extra},
        )
        body = chat_body(alike, self.model, stream=stream)
        body.pop("stream_options", None)
        headers = (credential_header(session.credential, "authorization"), *json_headers(stream=stream))
        return HttpRequest("POST", self.endpoint.rstrip("/") + "/chat/completions", headers, json_body(body))

    def estimate(self, batch: ExecuteBatch) -> TokenEstimate:
        return chat_estimate(batch)

    # ---- what comes back ------------------------------------------------------------------------------------------------

    def stream_decoder(self, batch: ExecuteBatch | None = None) -> ChatStreamDecoder:
        return ChatStreamDecoder(self.provider, 1 if batch is None else chat_choices(batch))

    def decode_unary(self, body: bytes, headers: Headers = ()) -> list[TokenChunk] | InferenceError:
        return decode_answer(self.provider, body)

    def classify(self, status: int, headers: Headers, body: bytes, unix_now: float) -> InferenceError:
        return classify_response(self.provider, status, headers, body, unix_now, self.rate_limit_snapshot(headers, unix_now))

    def rate_limit_snapshot(self, headers: Headers, unix_now: float) -> RateLimitSnapshot | None:
        return mistral(headers, unix_now)


def turn(message: Message) -> Message:
    """A message without what Mistral refuses: a developer is the system, only tools have names, a refusal is a text."""
    return replace(
        message,
        role="system" if message.role == "developer" else message.role,
        name=message.name if message.role == "tool" else None,
        content=message.content or message.refusal or "",
        refusal=None,
    )


def with_parameters(tool: Tool) -> Tool:
    """Mistral wants a schema also for a function that takes nothing."""
    return tool if tool.parameters else replace(tool, parameters={"type": "object", "properties": {}})


def main() -> None:
    with serve_in_thread(MockProvider()) as server:
        deployment = Deployment(
            name="chat",
            model="mistral-small-latest",
            runtime=MistralChat(model="mistral-small-latest", endpoint=f"{server.url}/v1"),
            runtime_config={"api_key": Secret.inline("not-a-key")},  # the real one: Secret.from_env("MISTRAL_API_KEY")
        )
        with RemoteEngine(deployment) as engine:
            tokens = engine.generate(ExecuteBatch(messages=[Message(role="user", content="hello")], max_output_tokens=5))
            print(tokens.text, tokens.usage, engine.metrics().cost_usd)


if __name__ == "__main__":
    main()
