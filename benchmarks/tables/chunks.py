"""From the bytes of server-sent events to `TokenChunk`: the whole way through an `Exchange`, beside decoding alone."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from typing import Any

import msgspec

from benchmarks.foreign import NOT_INSTALLED
from benchmarks.machine import version
from benchmarks.options import Options
from benchmarks.report import Row, Table
from benchmarks.timing import cpu_seconds, interleaved
from benchmarks.workload import MODEL, PROMPT, openai_event, openai_tail, pieces
from sansio import (
    Credential,
    Exchange,
    ExchangeConfig,
    ExecuteBatch,
    Message,
    SessionSnapshot,
    Timeouts,
)
from sansio.providers.openai import OpenAIChat

OURS = "ours: Exchange"
OPENAI = "openai SDK, its Stream"
COLUMNS = {"one event at a time": 0, "16 KB at a time": 16_384}

_CONFIG = ExchangeConfig(OpenAIChat(model=MODEL), Timeouts())
_BATCH = ExecuteBatch(messages=[Message(role="user", content=PROMPT)])


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta
    index: int = 0
    finish_reason: str | None = None


class _Frame(msgspec.Struct, gc=False):
    choices: list[_Choice]


def measure(options: Options) -> list[Table]:
    """One table."""
    count = options.count(5000, 100)
    table = Table("chunks", "SSE bytes to TokenChunk (OpenAI), CPU an event", "µs", list(COLUMNS), OURS)
    openai = version("openai")
    for column, size in COLUMNS.items():
        events = [openai_event(number) for number in range(count)]
        cut = list(pieces(b"".join(events), size)) if size else events
        contenders = {OURS: _exchange(cut, count)}
        if openai is not None:
            contenders[OPENAI] = _openai(cut, count)
        bodies = [event[6:-2] for event in events]
        if not size:
            contenders["msgspec typed decode alone"] = _each(msgspec.json.Decoder(_Frame).decode, bodies)
            contenders["json.loads alone"] = _each(json.loads, bodies)
        work = {name: _per_event(run, count) for name, run in contenders.items()}
        for name, figure in interleaved(work, options.rounds).items():
            row = next((row for row in table.rows if row.name == name), None)
            if row is None:
                row = Row(name, ours=name == OURS, version={OPENAI: openai}.get(name))
                table.rows.append(row)
            row.figures[column] = figure
    if openai is None:
        table.rows.append(Row(OPENAI, missing=NOT_INSTALLED))
    table.ask_at_most("one event at a time", 1.5)
    table.ask_at_most("16 KB at a time", 1.5)
    return [table]


def _per_event(run: Callable[[], object], count: int) -> Callable[[], float]:
    return lambda: cpu_seconds(run) / count * 1e6


def _each(decode: Callable[[bytes], object], bodies: list[bytes]) -> Callable[[], object]:
    def run() -> None:
        for body in bodies:
            decode(body)

    return run


def _exchange(cut: list[bytes], count: int) -> Callable[[], object]:
    """As a worker does it: wait, receive, hand out."""

    def run() -> None:
        session = SessionSnapshot(1, Credential("k"))
        exchange = Exchange(_CONFIG, _BATCH, session, 0.0, stream=True)
        exchange.connecting(0.0)
        exchange.sending(0.0)
        exchange.receive_head(200, (("content-type", "text/event-stream"),), 0.0, 0.0)
        now, chunks = 0.0, 0
        for piece in cut:
            now += 0.001
            exchange.wait(now)
            for _ in exchange.receive_body(piece, now):
                chunks += 1
        if chunks != count:
            raise RuntimeError(f"{chunks} chunks of {count}")

    return run


class _Response:
    """As much of a response as the SDK's stream reads."""

    request = None

    def __init__(self, cut: list[bytes]) -> None:
        self._cut = cut

    def iter_bytes(self) -> Any:
        return iter(self._cut)

    def close(self) -> None:
        pass


def _openai(cut: list[bytes], count: int) -> Callable[[], object]:
    openai: Any = importlib.import_module("openai")
    chunk_type: Any = importlib.import_module("openai.types.chat").ChatCompletionChunk
    client = openai.OpenAI(api_key="k", base_url="http://127.0.0.1:9/v1")
    whole = [*cut, openai_tail(count)]

    def run() -> None:
        stream = openai.Stream(cast_to=chunk_type, response=_Response(whole), client=client)
        chunks = sum(1 for _ in stream)
        if chunks != count + 2:
            raise RuntimeError(f"{chunks} chunks of {count}")

    return run
