"""One table of spec 8 a file: each has ``measure(options) -> list[Table]``."""

from __future__ import annotations

from . import breaker, chunks, clients, engine, fairness, limiter, scale, sse_decoder, strict

TABLES = {
    "clients": clients.measure,
    "sse": sse_decoder.measure,
    "chunks": chunks.measure,
    "engine": engine.measure,
    "breaker": breaker.measure,
    "limiter": limiter.measure,
    "fairness": fairness.measure,
    "strict": strict.measure,
    "scale": scale.measure,
}
