"""A service: one engine for the life of the application, and a client that disconnects cancels what runs upstream for it.

Leaving ``engine.stream``'s block is what cancels: Starlette ends the response's generator when the client is gone, and the
block is left with it. Errors before the first token become a status; after it, the stream ends with an ``error`` event.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

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
async def chat(question: Question, request: Request) -> StreamingResponse:
    engine: RemoteEngine = request.app.state.engine
    batch = ExecuteBatch(messages=[Message(role="user", content=question.prompt)])
    answer = tokens(engine, batch)
    try:
        first = await anext(answer)  # until here nothing was sent, so a failure can still be a status
    except InferenceError as error:
        raise HTTPException(status_of(error), detail=error.kind) from error
    return StreamingResponse(continued(first, answer), media_type="text/event-stream")


async def tokens(engine: RemoteEngine, batch: ExecuteBatch) -> AsyncIterator[str]:
    async with engine.stream(batch, timeout=120.0) as chunks:
        async for chunk in chunks:
            yield chunk.text_delta


async def continued(first: str, rest: AsyncIterator[str]) -> AsyncIterator[str]:
    try:
        yield f"data: {first}\n\n"
        async for text in rest:
            yield f"data: {text}\n\n"
    except InferenceError as error:
        yield f"event: error\ndata: {error.kind}\n\n"
    finally:
        await rest.aclose()  # leaves engine.stream's block now, not when the garbage collector comes by


def status_of(error: InferenceError) -> int:
    return 503 if isinstance(error, (Backpressure, CircuitOpen, RateLimited)) else 502


@app.get("/metrics")
async def metrics(request: Request) -> dict[str, int]:
    counts = request.app.state.engine.metrics()
    return {"in_flight": counts.in_flight, "done": counts.done, "cancelled": counts.cancelled, "failed": counts.failed}
