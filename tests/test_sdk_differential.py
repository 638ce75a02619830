"""The official SDKs read the same bytes as our codecs: text, calls, usage and ends are equal wherever the SDK is right.

Where they are not equal, `DIFFERENCES` says in which fields, who is right and why. The SDKs get their bytes from a transport
that has no network.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from fuzz_codecs import TARGETS, exchanged
from google import genai
from google.genai import types as genai_types
from sdk_differential_cases import CASES, DIFFERENCES, Case, Json

from sansio import Tokens, TokenUsage


@dataclass(frozen=True)
class Read:
    """What somebody makes of a response. calls: id, name and arguments of each. usage: input, output, and of these read from
    a cache, written to one, and reasoning. finish: the provider's word. failed: whether it is an error."""

    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    calls: tuple[tuple[str, str, Json], ...] = ()
    usage: tuple[int, int, int, int, int] | None = None
    finish: str | None = None
    failed: bool = False


def parsed(arguments: str) -> Json:
    """The arguments of a call; as they are where they are no JSON."""
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


# ---- ours -------------------------------------------------------------------------------------------------------------


def by_us(case: Case) -> Read:
    kind = "text/event-stream" if case.stream else "application/json"
    outcome = exchanged(TARGETS[case.codec], 200, (("content-type", kind),), [case.body], "credential", stream=case.stream)
    answer = Tokens.from_chunks(outcome.chunks)
    calls = tuple((call.id, call.name, parsed(call.arguments)) for call in answer.tool_calls)
    usage = None if outcome.usage is None else counts(outcome.usage)
    finish, failed = answer.raw_finish_reason, outcome.error is not None
    return Read(answer.text, answer.reasoning, answer.refusal, calls, usage, finish, failed)


def counts(usage: TokenUsage) -> tuple[int, int, int, int, int]:
    return (
        usage.input_tokens,
        usage.output_tokens,
        usage.cached_input_tokens,
        usage.cache_write_tokens,
        usage.reasoning_tokens,
    )


# ---- theirs -----------------------------------------------------------------------------------------------------------


@contextmanager
def answering(case: Case) -> Iterator[httpx2.Client]:
    """A client that is answered with the bytes of a case, whatever it asks."""
    kind = "text/event-stream" if case.stream else "application/json"

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": kind}, content=case.body)

    with httpx2.Client(transport=httpx2.MockTransport(answer)) as client:
        yield client


def openai_client(http: httpx2.Client) -> openai.OpenAI:
    return openai.OpenAI(api_key="key", http_client=http, max_retries=0)


def chat_by_sdk(case: Case, http: httpx2.Client) -> Read:
    create: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
    client = openai_client(http)
    if not case.stream:
        return chat_read(client.chat.completions.create(**create))
    last: Any = None
    try:
        with client.chat.completions.stream(**create) as stream:
            for _ in stream:
                last = stream.current_completion_snapshot
    except Exception:
        return replace(chat_read(last), failed=True)
    return chat_read(last)


def chat_read(completion: Any) -> Read:
    if completion is None or not completion.choices:
        return Read()
    choice = completion.choices[0]
    message = choice.message
    calls = tuple((call.id or "", call.function.name, of_any(call.function.arguments)) for call in message.tool_calls or ())
    if message.function_call is not None:
        calls = (("", message.function_call.name, of_any(message.function_call.arguments)),)
    usage = None
    if completion.usage is not None:
        said, of_prompt = completion.usage, completion.usage.prompt_tokens_details
        of_output = said.completion_tokens_details
        usage = (
            said.prompt_tokens,
            said.completion_tokens,
            (of_prompt and of_prompt.cached_tokens) or 0,
            (of_prompt and of_prompt.cache_write_tokens) or 0,
            (of_output and of_output.reasoning_tokens) or 0,
        )
    reasoning = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None) or ""
    return Read(message.content or "", reasoning, message.refusal or "", calls, usage, choice.finish_reason)


def of_any(arguments: Json) -> Json:
    return parsed(arguments) if isinstance(arguments, str) else arguments


def responses_by_sdk(case: Case, http: httpx2.Client) -> Read:
    client = openai_client(http)
    if not case.stream:
        return responses_read(client.responses.create(model="m", input="hello"))
    last = None
    text = ""
    try:
        with client.responses.stream(model="m", input="hello") as stream:
            for event in stream:
                if event.type == "error":
                    return Read(text=text, failed=True)
                if event.type == "response.output_text.delta":
                    text += event.delta
                last = getattr(event, "response", last)
            whole = stream.get_final_response()
    except Exception:
        broken = Read() if last is None else responses_read(last)
        return replace(broken, text=broken.text or text, failed=True)
    return responses_read(whole)


def responses_read(response: Any) -> Read:
    calls, reasoning, refusal = [], "", ""
    for item in response.output:
        if item.type == "function_call":
            calls.append((item.call_id, item.name, parsed(item.arguments)))
        elif item.type == "reasoning":
            reasoning += "".join(part.text for part in item.content or item.summary)
        elif item.type == "message":
            refusal += "".join(part.refusal for part in item.content if part.type == "refusal")
    said, usage = response.usage, None
    if said is not None:
        of_input, of_output = said.input_tokens_details, said.output_tokens_details
        usage = (
            said.input_tokens,
            said.output_tokens,
            of_input.cached_tokens,
            getattr(of_input, "cache_write_tokens", 0) or 0,
            of_output.reasoning_tokens,
        )
    cut = response.incomplete_details
    failed = response.status in ("failed", "cancelled", "queued", "in_progress")
    finish = None if failed else (cut and cut.reason) or response.status
    return Read(response.output_text, reasoning, refusal, tuple(calls), usage, finish, failed)


def anthropic_by_sdk(case: Case, http: httpx2.Client) -> Read:
    client = anthropic.Anthropic(api_key="key", http_client=http, max_retries=0)
    create: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}
    if not case.stream:
        return anthropic_read(client.messages.create(**create))
    last: Any = None
    try:
        with client.messages.stream(**create) as stream:
            for _ in stream:
                last = stream.current_message_snapshot
            last = stream.get_final_message()
    except Exception:
        return replace(anthropic_read(last), failed=True)
    return anthropic_read(last)


def anthropic_read(message: Any) -> Read:
    if message is None or message.content is None:
        return Read()
    text, reasoning, calls = "", "", []
    for block in message.content:
        if block.type == "text":
            text += block.text
        elif block.type == "thinking":
            reasoning += block.thinking
        elif block.type == "tool_use":
            calls.append((block.id, block.name, block.input))
    said = message.usage
    read, written = said.cache_read_input_tokens or 0, said.cache_creation_input_tokens or 0
    thought = said.output_tokens_details.thinking_tokens if said.output_tokens_details else 0
    usage = (said.input_tokens + read + written, said.output_tokens, read, written, thought)
    return Read(text, reasoning, "", tuple(calls), usage, message.stop_reason)


def gemini_by_sdk(case: Case, http: httpx2.Client) -> Read:
    client = genai.Client(api_key="key", http_options=genai_types.HttpOptions(httpx_client=http))
    if not case.stream:
        return gemini_read(Read(), client.models.generate_content(model="m", contents="hello"))
    read = Read()
    try:
        for chunk in client.models.generate_content_stream(model="m", contents="hello"):
            read = gemini_read(read, chunk)
    except Exception:
        return replace(read, failed=True)
    return read


def gemini_read(before: Read, answer: Any) -> Read:
    """What a chunk adds: the SDK leaves the adding to its user."""
    text, reasoning, calls, finish = before.text, before.reasoning, list(before.calls), before.finish
    for candidate in answer.candidates or ():
        for part in (candidate.content and candidate.content.parts) or ():
            if part.text is not None and part.thought:
                reasoning += part.text
            elif part.text is not None:
                text += part.text
            if part.function_call is not None:
                call = part.function_call
                calls.append((call.id, call.name, call.args))
        finish = str(candidate.finish_reason.value) if candidate.finish_reason is not None else finish
    said, usage = answer.usage_metadata, before.usage
    if said is not None:
        thoughts = said.thoughts_token_count or 0
        usage = (
            (said.prompt_token_count or 0) + (said.tool_use_prompt_token_count or 0),
            (said.candidates_token_count or 0) + thoughts,
            said.cached_content_token_count or 0,
            0,
            thoughts,
        )
    return Read(text, reasoning, "", tuple(calls), usage, finish)


SDKS: dict[str, Callable[[Case, httpx2.Client], Read]] = {
    "chat": chat_by_sdk,
    "responses": responses_by_sdk,
    "anthropic": anthropic_by_sdk,
    "gemini": gemini_by_sdk,
}


def by_sdk(case: Case) -> Read:
    with answering(case) as http, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what the SDK does not know
        return SDKS[TARGETS[case.codec].wire](case, http)


# ---- the comparison ---------------------------------------------------------------------------------------------------


def name_of(case: Case) -> str:
    return f"{TARGETS[case.codec].wire}: {case.name}"


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_the_same_bytes_say_the_same(case: Case) -> None:
    ours, theirs = by_us(case), by_sdk(case)
    differing = {each.name for each in fields(Read) if getattr(ours, each.name) != getattr(theirs, each.name)}
    listed = DIFFERENCES.get(name_of(case), ())
    assert differing == {name for difference in listed for name in difference.truth}, f"{ours}\n{theirs}"
    for difference in listed:
        right = theirs if difference.right == "SDK" else ours
        for name, value in difference.truth.items():
            assert getattr(right, name) == value


def test_each_difference_is_one_of_a_case() -> None:
    names = Counter(map(name_of, CASES))
    assert set(DIFFERENCES) <= set(names) and max(names.values()) == 1


def test_there_is_enough_of_each_format() -> None:
    of_each = Counter((TARGETS[case.codec].wire, case.stream) for case in CASES)
    assert all(of_each[wire, True] >= 8 and of_each[wire, False] >= 4 for wire in SDKS)
