"""`SseDecoder` beside its peers: what providers send, irregular streams, and one large event in small pieces."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.options import Options
from benchmarks.peers.sse import LINE_LOOP, NODE, OURS, RUST, Decoder, Sample, decoders
from benchmarks.report import Goal, Row, Table
from benchmarks.timing import Figure
from benchmarks.workload import IRREGULAR, anthropic_event, openai_event

SIZES = {"one event": 0, "1,460 B": 1460, "16 KB": 16_384, "64 KB": 65_536}
_SMALL = {"one event": 0, "16 KB": 16_384}
_MEGABYTE = 1_000_000


def measure(options: Options) -> list[Table]:
    """Five tables."""
    contenders = decoders(options.peers, other_languages=not options.quick)
    with tempfile.TemporaryDirectory() as folder:
        return [
            _openai(contenders, Path(folder), options),
            _anthropic(contenders, Path(folder), options),
            *(_irregular(contenders, Path(folder), options, name) for name in _SMALL),
            _large(contenders, Path(folder), options),
        ]


def _openai(contenders: list[Decoder], folder: Path, options: Options) -> Table:
    events = _events(openai_event, options)
    samples = {f"{name} at a time": Sample(folder, events, size, options.count(25, 1)) for name, size in SIZES.items()}
    table = _rates("sse_openai", "SseDecoder, OpenAI chat events of 290 B", contenders, samples, options)
    for column in table.columns:
        for peer in (NODE, RUST):
            table.ask_ratio(column, peer, 1.0, words=f"faster than {peer}")
    return table


def _anthropic(contenders: list[Decoder], folder: Path, options: Options) -> Table:
    events = _events(anthropic_event, options)
    samples = {f"{name} at a time": Sample(folder, events, size, options.count(25, 1)) for name, size in _SMALL.items()}
    table = _rates("sse_anthropic", "SseDecoder, Anthropic events of 125 B", contenders, samples, options)
    table.ask_ratio("one event at a time", "httpx-sse", 4)
    table.ask_ratio("one event at a time", "openai", 8)
    return table


def _irregular(contenders: list[Decoder], folder: Path, options: Options, size: str) -> Table:
    ours_and_loop = [decoder for decoder in contenders if decoder.name in (OURS, LINE_LOOP)]
    samples = {kind: Sample(folder, _events(make, options), _SMALL[size], 1) for kind, make in IRREGULAR.items()}
    key = f"sse_irregular_{size.replace(' ', '_')}"
    table = _rates(key, f"SseDecoder, irregular streams, {size} at a time", ours_and_loop, samples, options)
    for column in table.columns:
        table.ask_ratio(column, LINE_LOOP, 1.0, words="not slower than a plain line loop")
    return table


def _rates(key: str, title: str, contenders: list[Decoder], samples: dict[str, Sample], options: Options) -> Table:
    table = Table(key, title, "MB/s", list(samples), OURS, higher_is_better=True)
    _fill(table, contenders, samples, options, lambda sample, seconds: sample.bytes / seconds / 1e6)
    return table


def _large(contenders: list[Decoder], folder: Path, options: Options) -> Table:
    """One event in 64-byte pieces. Linear work takes twice as long for twice the bytes, quadratic four times."""
    sizes = [0.25, 0.5, 1.0, 2.0, 4.0] if not options.quick else [0.01, 0.02, 0.04]
    samples = {f"{size:g} MB": Sample(folder, [b"data: " + b"x" * int(size * _MEGABYTE) + b"\n\n"], 64, 1) for size in sizes}
    table = Table("sse_large", "One event in pieces of 64 bytes", "ms", list(samples), OURS)
    table.notes.append("twice the bytes: twice the time is linear, four times quadratic; only ours is given the largest")
    ours = [decoder for decoder in contenders if decoder.name == OURS]
    small = dict(list(samples.items())[:3])
    _fill(table, contenders, small, options, lambda _, seconds: seconds * 1e3)
    rest = Table("", "", "ms", [], OURS)
    _fill(rest, ours, dict(list(samples.items())[3:]), options, lambda _, seconds: seconds * 1e3)
    table.rows[0].figures.update(rest.rows[0].figures)
    first, last = (table.best(OURS, column) or 0.0 for column in (table.columns[0], table.columns[-1]))
    growth, bytes_growth = last / first if first else 0.0, sizes[-1] / sizes[0]
    by = f"{bytes_growth:g} times the bytes take {growth:.1f} times as long"
    table.goals.append(Goal("linear", growth <= 1.5 * bytes_growth, by))
    return table


def _fill(
    table: Table, contenders: list[Decoder], samples: dict[str, Sample], options: Options,
    value: Callable[[Sample, float], float],
) -> None:  # fmt: skip
    for decoder in contenders:
        table.rows.append(Row(decoder.name, {}, decoder.name == OURS, decoder.version, decoder.missing))
    for column, sample in samples.items():
        for number in range(options.quick, options.rounds + 1):  # the first one warms up
            for row, decoder in zip(table.rows, contenders, strict=True):
                if decoder.missing is not None or (number == 0 and decoder.count is None):
                    continue  # those of other processes are warm by their own repeats
                seconds = decoder.seconds(sample)
                if number:
                    figure = row.figures.setdefault(column, Figure(higher_is_better=table.higher_is_better))
                    figure.samples.append(value(sample, seconds))


def _events(make: Callable[[int], bytes], options: Options) -> list[bytes]:
    return [make(number) for number in range(options.count(8000, 200))]
