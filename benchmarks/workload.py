"""The bytes that every client and every decoder gets: fixed, the same for all, the size of the real ones.

One OpenAI chat event takes `EVENT_BYTES` whatever its number, so that a client which does not parse can still say how many
events it has received.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

EVENT_BYTES = 290
UNARY_PATH = "/unary/0"
"""What the server answers with one JSON answer; `benchmarks.server` says which other paths there are."""

MODEL = "gpt-4o"
PROMPT = "What is the answer to the ultimate question of life, the universe and everything?"
MESSAGES: list[dict[str, str]] = [{"role": "user", "content": PROMPT}]
REQUEST_BODY: dict[str, Any] = {"model": MODEL, "messages": MESSAGES}

_HEAD = (
    '{"id":"chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG","object":"chat.completion.chunk","created":1741570283,'
    '"model":"gpt-4o-2024-08-06","service_tier":"default","system_fingerprint":"fp_fc9f1d7035",'
)
_PAD = EVENT_BYTES - len(
    f'data: {_HEAD}"choices":[{{"index":0,"delta":{{"content":""}},"logprobs":null,"finish_reason":null}}]}}\n\n'
)


def openai_event(number: int) -> bytes:
    """One content delta of Chat Completions: `EVENT_BYTES` bytes."""
    content = f" {number:0{_PAD - 1}d}"
    choice = f'{{"index":0,"delta":{{"content":"{content}"}},"logprobs":null,"finish_reason":null}}'
    return f'data: {_HEAD}"choices":[{choice}]}}\n\n'.encode()


def openai_tail(events: int) -> bytes:
    """What follows the content: a finish reason, the usage, the end mark."""
    finish = '{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}'
    usage = f'{{"prompt_tokens":24,"completion_tokens":{events},"total_tokens":{24 + events}}}'
    frames = (f'{_HEAD}"choices":[{finish}]}}', f'{_HEAD}"choices":[],"usage":{usage}}}', "[DONE]")
    return "".join(f"data: {frame}\n\n" for frame in frames).encode()


def unary_answer() -> bytes:
    """A whole answer of Chat Completions, about 600 bytes."""
    return (
        b'{"id":"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT","object":"chat.completion","created":1741569952,'
        b'"model":"gpt-4o-2024-08-06","choices":[{"index":0,"message":{"role":"assistant","content":"Hello! How can I help '
        b'you today? I would be glad to.","refusal":null,"annotations":[]},"logprobs":null,"finish_reason":"stop"}],'
        b'"usage":{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29,"prompt_tokens_details":{"cached_tokens":0,'
        b'"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0}},'
        b'"service_tier":"default","system_fingerprint":"fp_fc9f1d7035"}'
    )


def anthropic_event(number: int) -> bytes:
    """One text delta of Anthropic's Messages: an ``event`` line and a ``data`` line, 125 bytes."""
    text = f" {number:09d}"
    data = f'{{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":"{text}"}}}}'
    return f"event: content_block_delta\ndata: {data}\n\n".encode()


def _names(number: int) -> bytes:
    return b"event: name%d\n" % (number % 7) + openai_event(number)


def _ids(number: int) -> bytes:
    return b"id: %d\n" % number + openai_event(number)


def _several_lines(number: int) -> bytes:
    return (
        b"".join(b"data: line %d of the event, some text that is long enough to look real\n" % k for k in range(4)) + b"\n"
    )


def _crlf(number: int) -> bytes:
    return openai_event(number).replace(b"\n", b"\r\n")


def _non_ascii(number: int) -> bytes:
    return openai_event(number).replace(b'"content":" ', '"content":" wörd 日本語 🎉'.encode())


def _comments(number: int) -> bytes:
    return b": keep-alive\n\n" + openai_event(number)


def _mixed(number: int) -> bytes:
    return (openai_event, anthropic_event, _names, _ids, _several_lines)[number % 5](number)


IRREGULAR: dict[str, Callable[[int], bytes]] = {
    "changing names": _names,
    "an id each": _ids,
    "4 data lines each": _several_lines,
    "CRLF": _crlf,
    "non-ASCII": _non_ascii,
    "comments": _comments,
    "all mixed": _mixed,
}
"""Streams in other shapes than the two that providers send, by name."""


def pieces(whole: bytes, size: int) -> Iterator[bytes]:
    """``whole`` cut every ``size`` bytes."""
    return (whole[at : at + size] for at in range(0, len(whole), size))
