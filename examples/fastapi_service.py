"""A service: one engine for the life of the application, and a client that disconnects cancels what runs upstream for it.

Leaving ``engine.stream``'s block is what cancels, so every way out of a request leaves it. Each event is one JSON string.
Errors before the first token become a status; after it, the stream ends with an ``error`` event.
"""

import asyncio
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from drivers.asyncio_driver import RemoteEngine
from sansio import Backpressure, CircuitOpen, Deployment, ExecuteBatch, InferenceError, Message, RateLimited, Secret


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    deployment = Deployment(
        name="chat",
        model="gpt-4o",
        runtime_config={
            "endpoint": os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1"),
            "api_key": Secret.from_env("OPENAI_API_KEY"),
        },
    )
    async with RemoteEngine(deployment) as app.state.engine:
        yield


app = FastAPI(lifespan=lifespan)


class Question(BaseModel):
    prompt: str


@app.post("/chat")
async def chat(question: Question, request: Request) -> Response:
    engine: RemoteEngine = request.app.state.engine
    answer = tokens(engine, ExecuteBatch(messages=[Message(role="user", content=question.prompt)]))
    try:
        first = await first_token(answer, request)  # until here nothing was sent, so a failure can still be a status
    except InferenceError as error:
        raise HTTPException(status_of(error), detail=error.kind) from error
    return Response(status_code=499) if first is None else Events(first, answer)  # 499: nobody is there to read it


async def tokens(engine: RemoteEngine, batch: ExecuteBatch) -> AsyncGenerator[str, None]:
    async with engine.stream(batch, timeout=120.0) as chunks:
        async for chunk in chunks:
            if chunk.text_delta:
                yield chunk.text_delta


async def first_token(answer: AsyncGenerator[str, None], request: Request) -> str | None:
    """None if the client leaves first. Starlette watches for that only once a response is under way, so here we do."""
    token = asyncio.ensure_future(anext(answer, ""))
    left = asyncio.ensure_future(disconnected(request))
    try:
        await asyncio.wait([token, left], return_when=asyncio.FIRST_COMPLETED)
        return token.result() if token.done() else None
    finally:
        left.cancel()
        token.cancel()  # if it still waits: it is cancelled inside engine.stream's block, and so leaves it
        await asyncio.gather(token, left, return_exceptions=True)


async def disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class Events(StreamingResponse):
    """The tokens as server-sent events; however the response ends, ``engine.stream``'s block is left with it."""

    media_type = "text/event-stream"

    def __init__(self, first: str, rest: AsyncGenerator[str, None]) -> None:
        super().__init__(events(first, rest))
        self.rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self.rest):
            await super().__call__(scope, receive, send)


async def events(first: str, rest: AsyncIterator[str]) -> AsyncIterator[str]:
    try:
        yield f"data: {json.dumps(first)}\n\n"  # JSON, because a token may hold newlines and an event's line may not
        async for text in rest:
            yield f"data: {json.dumps(text)}\n\n"
    except InferenceError as error:
        yield f"event: error\ndata: {json.dumps(error.kind)}\n\n"


def status_of(error: InferenceError) -> int:
    return 503 if isinstance(error, (Backpressure, CircuitOpen, RateLimited)) else 502


@app.get("/metrics")
async def metrics(request: Request) -> dict[str, int]:
    counts = request.app.state.engine.metrics()
    return {"in_flight": counts.in_flight, "done": counts.done, "cancelled": counts.cancelled, "failed": counts.failed}
