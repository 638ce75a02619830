"""The public API as its users call it. Nothing here runs: `mypy --strict` reads it (tests/test_typing.py)."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import assert_type

import drivers.asyncio_driver as for_asyncio
import drivers.sync_driver as for_threads
import drivers.trio_driver as for_trio
import sansio
from sansio import (
    Budget,
    CircuitState,
    ClusterConfig,
    Credential,
    Deployment,
    Effect,
    EngineMetrics,
    ExecuteBatch,
    HttpRequest,
    ImagePart,
    InferenceError,
    Message,
    Notice,
    Price,
    Priority,
    ProviderCodec,
    RateLimited,
    RateLimiterSnapshot,
    RateLimits,
    RemoteEngineConfig,
    RemoteEngineCore,
    RetryPolicy,
    RuntimeConfig,
    Secret,
    Serving,
    SessionSnapshot,
    SharingMode,
    SseChunk,
    StreamDecoder,
    StreamInterrupted,
    TextPart,
    Tick,
    Timeouts,
    TokenChunk,
    TokenEstimate,
    Tokens,
    TokenUsage,
    Tool,
)
from sansio.http import Headers

BATCH = ExecuteBatch(messages=[Message(role="user", content="hello")])


# ---- deployments ------------------------------------------------------------------------------------------------------

in_words = Deployment(
    name="chat",
    model="gpt-4o",
    runtime="openai",
    runtime_config={"endpoint": "http://127.0.0.1:8080/v1", "api_key": Secret.from_env("OPENAI_API_KEY")},
    serving={"max_concurrent": 4, "on_capacity_exhausted": "reject"},
    budget={"max_spend_per_hour_usd": 1.5},
)
in_types = Deployment(
    name="chat",
    model="gpt-4o",
    runtime_config=RuntimeConfig(
        api_key=Secret.from_callable(lambda: Credential("…", expires_at_unix=1e10)),
        rate_limits=RateLimits(requests_per_minute=500, tokens_per_minute=30_000),
        retry=RetryPolicy(max_retries=1, retry_on=[RateLimited, "timeout"]),
        timeouts=Timeouts(connect_timeout=1, total_timeout=None),
    ),
    serving=Serving(max_concurrent=4),
    budget=Budget(max_spend_per_day_usd=20),
    price=Price(input=1, output=2.5),
    idempotent=False,
)
assert_type(sansio.deployments_from_toml("", source="remote.toml"), list[Deployment])
assert_type(in_types.config, RuntimeConfig)
assert_type(in_types.codec(), ProviderCodec)

rich = ExecuteBatch(
    messages=[
        Message(role="system", content="Be brief."),
        Message(role="user", content=[TextPart("What is this?"), ImagePart("https://example.org/a.png", detail="low")]),
    ],
    tools=[Tool(name="look_up", parameters={"type": "object"})],
    max_output_tokens=100,
    temperature=0,
    extra={"logprobs": True},
)


# ---- the page's example, with threads ---------------------------------------------------------------------------------


def with_threads(deployments: Sequence[Deployment], on_notice: Callable[[Notice], None]) -> None:
    with for_threads.RemoteEngine(in_words) as engine:
        assert_type(engine, for_threads.RemoteEngine)
        tokens = engine.generate(BATCH)
        assert_type(tokens, Tokens)
        assert_type(tokens.text, str)
        assert_type(tokens.usage, TokenUsage | None)
        with engine.stream(BATCH) as chunks:
            assert_type(chunks, Iterator[TokenChunk])
            for chunk in chunks:
                assert_type(chunk.text_delta, str)
        assert_type(engine.metrics(), EngineMetrics)
        assert_type(engine.breaker.state(), CircuitState)
        assert_type(engine.limiter.snapshot("chat"), RateLimiterSnapshot)
        engine.breaker.force_open(30.0)
        engine.breaker.force_closed()
        engine.breaker.reset("chat")
        engine.rebuild_session()
        engine.drain()
    client = for_threads.build_client()
    with for_threads.RemoteEngine(deployments, on_notice=on_notice, client=client) as engine:
        engine.generate(
            rich, deployment="chat", priority=Priority.HIGH, tenant="a", timeout=5, wait_for_circuit=True
        ).to_dict()


def sse_with_threads(pieces: Iterable[bytes]) -> Iterator[str]:
    for event in for_threads.decode_sse_stream(pieces, max_event_bytes=1000):
        assert_type(event, SseChunk)
        yield event.data


# ---- the same on asyncio ----------------------------------------------------------------------------------------------


async def on_asyncio(deployments: Sequence[Deployment], on_notice: Callable[[Notice], None]) -> None:
    async with for_asyncio.RemoteEngine(in_words) as engine:
        assert_type(engine, for_asyncio.RemoteEngine)
        tokens = await engine.generate(BATCH)
        assert_type(tokens, Tokens)
        async with engine.stream(BATCH) as chunks:
            assert_type(chunks, AsyncIterator[TokenChunk])
            async for chunk in chunks:
                assert_type(chunk.text_delta, str)
        assert_type(engine.metrics(), EngineMetrics)
        assert_type(engine.breaker.state("chat"), CircuitState)
        assert_type(engine.limiter.snapshot(), RateLimiterSnapshot)
        engine.rebuild_session("chat")
        await engine.drain()
    client = for_asyncio.build_client()
    async with for_asyncio.RemoteEngine(deployments, on_notice=on_notice, client=client) as engine:
        await engine.generate(rich, deployment="chat", priority=Priority.HIGH, tenant="a", timeout=5, wait_for_circuit=True)


async def sse_on_asyncio(pieces: AsyncIterator[bytes]) -> list[SseChunk]:
    return [event async for event in for_asyncio.decode_sse_stream(pieces)]


# ---- and on trio ------------------------------------------------------------------------------------------------------


async def on_trio(deployments: Sequence[Deployment], on_notice: Callable[[Notice], None]) -> None:
    async with for_trio.RemoteEngine(in_words) as engine:
        assert_type(engine, for_trio.RemoteEngine)
        tokens = await engine.generate(BATCH)
        assert_type(tokens, Tokens)
        async with engine.stream(BATCH) as chunks:
            assert_type(chunks, AsyncIterator[TokenChunk])
            async for chunk in chunks:
                assert_type(chunk.text_delta, str)
        assert_type(engine.metrics(), EngineMetrics)
        assert_type(engine.breaker.state("chat"), CircuitState)
        assert_type(engine.limiter.snapshot(), RateLimiterSnapshot)
        engine.rebuild_session("chat")
        await engine.drain()
    client = for_trio.build_client()
    async with for_trio.RemoteEngine(deployments, on_notice=on_notice, client=client) as engine:
        await engine.generate(rich, deployment="chat", priority=Priority.HIGH, tenant="a", timeout=5, wait_for_circuit=True)


async def sse_on_trio(pieces: AsyncIterator[bytes]) -> list[SseChunk]:
    return [event async for event in for_trio.decode_sse_stream(pieces)]


# ---- in several processes -----------------------------------------------------------------------------------------------

in_rights = ClusterConfig(Secret.from_env("STORE_URL"), mode=SharingMode.ESCROW, lease=5, share_circuits=True)
assert_type(in_rights.lease_for(60.0), float)


def with_a_store() -> None:
    with for_threads.RemoteEngine(in_words, cluster="redis://127.0.0.1:6379/0") as engine:
        assert_type(engine.generate(BATCH), Tokens)
    with for_threads.RemoteEngine([in_words], cluster=in_rights):
        pass
    config = RemoteEngineConfig((in_words, in_types), cluster={"url": "valkey://127.0.0.1", "mode": "escrow"})
    assert_type(config.shared, ClusterConfig | None)
    assert_type(RemoteEngineConfig.of(in_words, "unix:///run/valkey.sock"), RemoteEngineConfig)
    with for_threads.RemoteEngine(config):
        pass


async def with_a_store_on_tasks() -> None:
    async with for_asyncio.RemoteEngine(in_words, cluster="rediss://store.test") as engine:
        assert_type(await engine.generate(BATCH), Tokens)
    async with for_trio.RemoteEngine(in_words, cluster=Secret.from_env("STORE_URL")):
        pass


# ---- errors -----------------------------------------------------------------------------------------------------------


def on_error(error: InferenceError) -> float | None:
    match error:
        case StreamInterrupted():
            assert_type(error.partial, Tokens | None)
            assert_type(error.usage, TokenUsage | None)
            return None
        case RateLimited():
            assert_type(error.retry_after, float | None)
            return error.retry_after
        case _:
            assert_type(InferenceError.from_dict(error.to_dict()), InferenceError)
            assert_type((error.kind, error.retryable, error.counts_as_circuit_failure), tuple[str, bool, bool])
            return None


# ---- without a driver -------------------------------------------------------------------------------------------------


def by_hand(now: float, unix_now: float) -> float | None:
    core = RemoteEngineCore([in_words, in_types], rng=random.Random(0))
    add = core.prepare(1, BATCH, deployment="chat", stream=True)
    effects: Sequence[Effect] = core.handle(add, now, unix_now)
    for effect in effects:
        match effect:
            case sansio.StartAttempt():
                assert_type(effect.exchange, sansio.Exchange)
            case sansio.Complete():
                assert_type(effect.error, InferenceError | None)
            case _:
                pass
    core.handle(Tick(), now, unix_now)
    return core.deadline()


def replayed(codec: ProviderCodec) -> None:
    assert_type(
        sansio.replay_response(codec, 200, [("content-type", "text/event-stream")], [b"data: [DONE]\n\n"]),
        tuple[list[TokenChunk], InferenceError | None],
    )


# ---- a provider of one's own ------------------------------------------------------------------------------------------


class EchoDecoder:
    """A stream whose events are the text itself."""

    def __init__(self) -> None:
        self.error: InferenceError | None = None
        self.complete = False
        self.terminal = False
        self.usage: TokenUsage | None = None

    def decode(self, events: Sequence[SseChunk]) -> list[TokenChunk]:
        return [TokenChunk(event.data) for event in events]


class EchoCodec:
    """Every method of the protocol, and no base class."""

    provider = "echo"
    endpoint = "http://127.0.0.1:8080"

    def encode(self, batch: ExecuteBatch, session: SessionSnapshot, *, stream: bool = True) -> HttpRequest:
        return HttpRequest("POST", self.endpoint, (("x-key", session.credential.reveal()),), b"{}")

    def estimate(self, batch: ExecuteBatch) -> TokenEstimate:
        return TokenEstimate(input_tokens=1, output_tokens=1)

    def stream_decoder(self, batch: ExecuteBatch | None = None) -> EchoDecoder:
        return EchoDecoder()

    def decode_unary(self, body: bytes, headers: Headers = ()) -> list[TokenChunk] | InferenceError:
        return [TokenChunk(body.decode(), finish_reason="stop")]

    def classify(self, status: int, headers: Headers, body: bytes, unix_now: float) -> InferenceError:
        return sansio.classify_http_status(self.provider, status, None, body)

    def rate_limit_snapshot(self, headers: Headers, unix_now: float) -> sansio.RateLimitSnapshot | None:
        return None


own_codec: ProviderCodec = EchoCodec()
own_decoder: StreamDecoder = EchoDecoder()
