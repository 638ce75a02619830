"""Hypothesis strategies for JSON in the shape of Chat Completions in which anything may be missing or of another type."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from sansio.sse import SseChunk

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**70) | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def mangled(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """An object with some of these fields, each of the right shape or of any."""
    return json_values | st.fixed_dictionaries({}, optional={name: value | json_values for name, value in fields.items()})


words = st.sampled_from(["", "stop", "length", "x", "429", "slow_down", "\ud800"])
functions = mangled(name=words, arguments=words, input=words)
calls = st.lists(mangled(index=st.integers(0, 2), id=words, function=functions, custom=functions), max_size=3)
deltas = mangled(
    content=words, refusal=words, reasoning=words, reasoning_content=words, tool_calls=calls, function_call=functions
)
counts = st.integers(0, 9)
details = mangled(cached_tokens=counts, cache_write_tokens=counts, reasoning_tokens=counts)
usages = mangled(
    prompt_tokens=counts, completion_tokens=counts, total_tokens=counts, prompt_tokens_details=details,
    completion_tokens_details=details, prompt_cache_hit_tokens=counts,
)  # fmt: skip
choices = mangled(index=st.integers(0, 2), delta=deltas, message=deltas, finish_reason=st.none() | words)
errors = mangled(
    message=words,
    code=words,
    type=words,
    status=counts,
    innererror=mangled(code=words),
    provider_specific_fields=json_values,
)
frames = mangled(
    choices=st.lists(choices, max_size=3),
    usage=st.none() | usages,
    error=st.none() | errors | words,
    object=st.sampled_from(["error", "x"]),
    x_groq=mangled(usage=usages, error=words),
).map(json.dumps)
texts = st.text(max_size=20) | st.just("[DONE]") | st.text(alphabet='{}[]":,\\ud80x9eE.-', max_size=30)
events = st.builds(SseChunk, frames | texts, st.sampled_from(["message", "error"]))
