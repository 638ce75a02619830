"""How right answers are broken: other values in their JSON, events lost, doubled or out of order, and bytes that are off."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import cast

from fuzz_answers import HEADERS, NOT_JSON, Event, Json

SECRETS = ("sk-fuzz-0123456789abcdefABCDEF", "Zm9vL2Jhci/plain+words==QUJD")
"""Credentials that bodies and headers echo: one that shows what it is, and one that does not."""

_RAW = {
    "@deep@": ("[" * 300 + "]" * 300, "[" * 100_000 + "]" * 100_000, '{"a":' * 2000 + "1" + "}" * 2000),
    "@digits@": ("1" * 5000, "-" + "9" * 400, "1" * 19),
    "@float@": ("1e999", "-1e999", "1E400", "3.0", "1e3", "-0", "0.1e-400"),
    "@escape@": (r'"\ud800"', r'"\udc00\ud800x"', r'"\u0000"', r'"\/"', r'"\u0073k-fuzz-0123456789abcdefABCDEF"'),
    "@twice@": ('1,"error":"x"', '1,"type":"error"', '0,"index":7', 'null,"choices":[]'),
}
"""JSON that no value stands for, written in the place of a string."""

_STRINGS = (
    *("", "x", "0", "429", "3.0", "-1", "null", "stop", "error", "length", "tool_use", "STOP", "[DONE]", "message", "text"),
    *("\ud800", "\udfff\ud800", "\x00\x1b[31m", "a" * 3000, "é" * 1200, "rate_limit_error", "per_day", "1e9s", "58s"),
    *("try again in 999999999h", "regain access on 9999-99-99", "regain access on 2026-12-01", "\u2028\r\n\r\ndata: x"),
    *(
        "Bearer abcdefgh12345678",
        "thinking",
        "input_json_delta",
        "response.completed",
        "message_stop",
        "FINISH_REASON_UNSPECIFIED",
    ),
    *_RAW,
)
_NUMBERS = (
    *(0, -0.0, 1, -1, 2, 255, 1.5, 1e308, float("nan"), float("inf"), float("-inf")),
    *(2**31, 2**53 + 1, 2**63, 2**64, 10**9, -(2**63) - 1, 10**30, 10**400),
)
_NAMES = (
    *("error", "usage", "choices", "delta", "index", "type", "code", "message", "content", "candidates", "finish_reason"),
    *("finishReason", "response", "status", "output", "item", "details", "stop_reason", "promptFeedback", "x_groq", "text"),
    *("tool_calls", "function_call", "functionCall", "arguments", "object", "detail", "headers", "", "input", "id", "args"),
)


def junk(rng: Random, depth: int = 0) -> Json:
    """A value that nobody expects."""
    kind = rng.randrange(12)
    if kind < 2:
        return rng.choice((None, True, False))
    if kind < 5:
        return rng.choice(_NUMBERS)
    if kind < 8:
        return rng.choice(_STRINGS)
    if kind == 8:
        secret = rng.choice(SECRETS)
        return rng.choice((secret, f"key {secret}.", "x" * rng.randrange(1970, 2010) + secret, f"{secret}{secret}"))
    if depth > 2 or kind == 9:
        return rng.choice(([], {}, [[]], [None], [{}], {"": None}))
    if kind == 10:
        return [junk(rng, depth + 1) for _ in range(rng.randint(1, 3))]
    return {rng.choice(_NAMES): junk(rng, depth + 1) for _ in range(rng.randint(1, 3))}


def _places(tree: Json) -> list[tuple[Json, Json]]:
    """Where the values in a tree stand: what holds them, and their key there."""
    found: list[tuple[Json, Json]] = []
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (dict, list)):
            keys = list(cast("dict[str, Json]", node)) if isinstance(node, dict) else range(len(cast("list[Json]", node)))
            for key in keys:
                found.append((node, key))
                waiting.append(node[key])
    return found


def broken_tree(rng: Random, tree: Json) -> Json:
    """The tree with one value of it changed."""
    holder = [copy.deepcopy(tree)]
    places = _places(holder)
    if len(places) > 1 and rng.random() < 0.95:
        del places[0]  # the root itself
    if rng.random() < 0.05:
        absurd = rng.choice((2**53, 2**60, -1, 10**400))
        for inside, key in places:
            if type(inside[key]) is int:
                inside[key] = absurd
        return holder[0]
    inside, key = rng.choice(places)
    match rng.randrange(10):
        case 8:
            inside[key] = _alike(rng, inside[key])
        case 9:
            inside[key] = _odd_text(rng, inside[key])
        case 0:
            del inside[key]
            return holder[0] if holder else None
        case 1:
            inside[key] = [inside[key]]
        case 2:
            inside[key] = {rng.choice(_NAMES): inside[key]}
        case 3:
            other, place = rng.choice(places)
            inside[key] = copy.deepcopy(other[place])
        case 4 if isinstance(inside, dict):
            inside[rng.choice(_NAMES)] = junk(rng)
        case 5 if isinstance(inside, list):
            inside += copy.deepcopy(inside) * rng.randint(1, 3)
        case _:
            inside[key] = junk(rng)
    return holder[0]


def _alike(rng: Random, value: Json) -> Json:
    """The same, as another type has it."""
    match value:
        case bool():
            return rng.choice((int(value), str(value).lower()))
        case int():
            small = value % 10**9
            return rng.choice((str(small), float(small), -small, small * 10**12, small + 0.5, [small]))
        case str():
            part = {"type": rng.choice(("text", "thinking")), "text": value, "thinking": value}
            return rng.choice(([value], [part], part, list(value[:5]), value.upper()))
        case dict():
            return rng.choice((json.dumps(value), list(cast("dict[str, Json]", value).values())))
        case _:
            return rng.choice((0, "", [], {}))


def _odd_text(rng: Random, value: Json) -> Json:
    """A text with something in it that few can write."""
    if not isinstance(value, str):
        return value
    at = rng.randint(0, len(value))
    odd = ("\ud800", "\udc00", "\x00", "\x1b[0m", "\u2028", "\ufeff", "\uffff", "\U0010ffff", "\x85", rng.choice(SECRETS))
    return value[:at] + rng.choice(odd) + value[at:]


def broken_events(rng: Random, events: list[Event]) -> list[Event]:
    """The events with some changed, dropped, doubled, moved or cut off."""
    events = list(events)
    for _ in range(rng.randint(1, 3)):
        if not events:
            break
        at = rng.randrange(len(events))
        match rng.randrange(10):
            case 0:
                del events[at]
            case 1:
                events.insert(rng.randrange(len(events)), events[at])
            case 2:
                events.insert(rng.randrange(len(events)), events.pop(at))
            case 3:
                del events[at:]
            case 4:
                events[at] = Event(events[at].data, rng.choice((None, "message", "error", "ping", events[0].name)))
            case 5:
                events.insert(
                    at,
                    Event(rng.choice(("[DONE]", "", " ", "null", "{", "true", "@deep@", "{}", " [DONE] ")), events[at].name),
                )
            case _:
                events[at] = Event(broken_tree(rng, events[at].data), events[at].name)
    return events


def written(rng: Random, tree: Json, *, odd: bool = False) -> bytes:
    """A tree as bytes of JSON. Lone surrogates come out as escapes, or as bytes that are no UTF-8."""
    if isinstance(tree, str) and tree not in _RAW:
        return tree.encode("utf-8", "surrogatepass")
    indent = rng.choice((None, 1)) if odd else None
    text = json.dumps(
        tree, ensure_ascii=rng.random() < 0.5, indent=indent, separators=(",", ":") if indent is None else None
    )
    for name, values in _RAW.items():
        if name in text:
            text = text.replace(f'"{name}"', rng.choice(values))
    return text.encode("utf-8", "surrogatepass")


def framed(rng: Random, events: list[Event], *, odd: bool = False) -> tuple[bytes, list[tuple[int, int]]]:
    """A stream as bytes, and of each event where its data ends and where it is dispatched. odd: as few send it."""
    end = rng.choice((b"\n", b"\r\n", b"\r")) if odd else b"\n"
    space = rng.choice((b" ", b"")) if odd else b" "
    out = b"\xef\xbb\xbf" if odd and rng.random() < 0.1 else b""
    ends: list[tuple[int, int]] = []
    for event in events:
        if odd and rng.random() < 0.2:
            out += rng.choice(
                (b": keep-alive" + end * 2, end, b"retry: 10" + end, b"id: 7" + end, b"unknown: x" + end, b":" + end)
            )
        if event.name is not None:
            out += b"event:" + space + event.name.encode() + end
        data = written(rng, event.data, odd=odd)
        out += end.join(b"data:" + space + line for line in data.split(b"\n"))
        ends.append((len(out), len(out) + 2 * len(end)))
        out += end * 2
    return out, ends


def broken_bytes(rng: Random, data: bytes) -> bytes:
    """The bytes with a few of them changed, lost, doubled or new."""
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(7):
            case 0:
                data = data[:at]
            case 1:
                data = data[:at] + bytes((rng.randrange(256),)) + data[at + 1 :]
            case 2:
                data = data[:at] + data[at + rng.randint(1, 40) :]
            case 3:
                data = data[:at] + data[at : at + rng.randint(1, 200)] + data[at:]
            case 4:
                data = data[:at] + rng.choice(NOT_JSON) + data[at:]
            case 5:
                new = rng.choice(
                    (b"\r", b"\n\n", b"\x00", b"\xff", b"}", b'"', b",", b"\\", b"\xed\xa0\x80", b"data: ", b":")
                )
                data = data[:at] + new + data[at:]
            case _:
                old, new = rng.choice(
                    ((b"/", b"\\/"), (b"0", b"00"), (b"null", b"nul"), (b":", b" : "), (b'"', b"'"), (b"1", b"1e9"))
                )
                data = data.replace(old, new, rng.randint(1, 3))
    return data


def cuts(rng: Random, data: bytes) -> list[bytes]:
    """The bytes in pieces: each alone where there are few, else of any size."""
    if len(data) < 1500 and rng.random() < 0.2:
        return [data[at : at + 1] for at in range(len(data))]
    places = sorted(rng.randint(0, len(data)) for _ in range(rng.randint(1, 12)))
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


def headers(rng: Random) -> tuple[tuple[str, str], ...]:
    """Some headers, a few of them absurd."""
    chosen = [rng.choice(HEADERS) for _ in range(rng.randint(0, 6))]
    for at, (name, _) in enumerate(chosen):
        if rng.random() < 0.3:
            chosen[at] = (rng.choice((name, name.upper())), _absurd_value(rng))
    return tuple(chosen)


def _absurd_value(rng: Random) -> str:
    return rng.choice(
        (
            "",
            " ",
            "-1",
            "0",
            "1" * 5000,
            "1e5",
            "inf",
            "nan",
            "٣",
            "0x10",
            "1.5.5",
            "9" * 25 + "h",
            "1h1h1h",
            "99999999999999s",
            "Wed, 31 Feb 2026 25:61:61 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "9999-12-31T23:59:60Z",
            "0000-00-00T00:00:00Z",
            "0001-01-01T00:00:00+23:59",
            "\x00",
            "\udce9",
            "é",
            rng.choice(SECRETS),
            "a" * 100_000,
            "true,false",
        )
    )
