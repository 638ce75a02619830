"""``remote-core chat``: one question, its answer as it comes.

The answer goes to stdout and nothing else does, so that it can be piped on. Reasoning (dimmed), retries, usage, cost and
errors go to stderr. No key is ever printed: neither ours nor one that somebody passed in the wrong place.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
import time
from pathlib import Path
from typing import Final

from rich.console import Console

from drivers.asyncio_driver import RemoteEngine
from sansio import (
    Deployment,
    ExecuteBatch,
    InferenceError,
    Message,
    Notice,
    RemoteEngineConfig,
    Secret,
    TokenChunk,
    Tokens,
)
from sansio.cluster.config import ClusterConfig
from sansio.cost import cost_of
from sansio.deployment import shared_deployments_from_toml
from sansio.rate_limit import quotas_of
from sansio.scrub import excerpt

from .exit_status import FAILED, INTERRUPTED, UsageError

_DEFAULT_KEY: Final = "OPENAI_API_KEY"

_DIRECT: Final = ("provider", "endpoint", "model", "api_key_env")
"""What says where to ask, unless a deployment file does."""

_CONTROLS: Final = dict.fromkeys(number for number in (*range(32), *range(127, 160)) if chr(number) not in "\n\t")

_HINTS: Final = {
    "rate_limited": "the provider asks for patience; try again later",
    "quota_exhausted": "the account has no quota left; see the provider's billing page",
    "circuit_open": "the provider failed too often in a row; try again later",
    "context_length_exceeded": "shorten the prompt",
    "unauthorized": "check the key, and that it belongs to this endpoint",
    "forbidden": "this key may not use this model",
    "not_found": "check the model's name, and that the endpoint is the base URL of the provider's SDK (often ending in /v1)",
    "limit_exceeded": "shorten the prompt, or raise the limit of the deployment",
    "budget_exceeded": "the deployment's budget is spent; it frees as time passes",
    "network_error": "check the endpoint and your connection",
    "server_error": "the provider is in trouble; try again later",
    "timeout": "the provider is slow or stuck; try again later",
    "deadline_exceeded": "give it more time with --timeout",
    "stream_interrupted": "the answer above is incomplete; ask again",
    "protocol_error": "check that the endpoint speaks this provider's API",
}


def chat(arguments: argparse.Namespace) -> int:
    """Ask, and print what comes."""
    config = _config(arguments)
    (deployment,) = config.deployments
    batch = _batch(arguments)
    notes = Console(stderr=True, highlight=False, soft_wrap=True)
    printer = _Printer(notes)
    begun = time.monotonic()
    try:
        asyncio.run(_ask(config, batch, arguments.timeout, printer))  # where Ctrl-C is a cancellation, and nothing else
    except InferenceError as error:
        printer.end_line()
        notes.print(f"remote-core chat: {describe(error)}", style="red", markup=False)
        return FAILED
    except KeyboardInterrupt:
        printer.end_line()
        notes.print("interrupted", style="dim")
        return INTERRUPTED
    printer.end_line()
    notes.print(
        _summary(deployment, Tokens.from_chunks(printer.chunks), time.monotonic() - begun), style="dim", markup=False
    )
    return 0


async def _ask(config: RemoteEngineConfig, batch: ExecuteBatch, timeout: float | None, printer: _Printer) -> None:
    try:
        engine = RemoteEngine(config, on_notice=printer.notice)
    except ValueError as error:
        raise UsageError(_in_options(error)) from error
    async with engine, engine.stream(batch, timeout=timeout) as chunks:
        async for chunk in chunks:
            printer.show(chunk)


def describe(error: InferenceError) -> str:
    """An error in one line: its kind, what it says, and what can be done about it."""
    line = f"{error.kind}: {' '.join(excerpt(error.message).split())}"
    if error.status is not None and str(error.status) not in line:
        line += f" (HTTP {error.status})"
    hint = _HINTS.get(error.kind)
    if error.retry_after is not None:
        hint = f"try again in {error.retry_after:.3g} s"
    return line if hint is None else f"{line.rstrip('.')}. Hint: {hint}"


def _config(arguments: argparse.Namespace) -> RemoteEngineConfig:
    """What the arguments ask for: one deployment, and the store where its limits are shared."""
    deployment, cluster = _deployment(arguments)
    if arguments.cluster is not None and not quotas_of(deployment.config.rate_limits):
        raise UsageError(
            f"--cluster: deployment {deployment.name!r} has no rate_limits that could be shared; "
            "set some in a file for --deployments, or leave --cluster out"
        )
    try:
        return RemoteEngineConfig.of(deployment, cluster if arguments.cluster is None else arguments.cluster)
    except ValueError as error:
        raise UsageError(_in_options(error)) from error


def _in_options(error: ValueError) -> str:
    """What is wrong with a configuration, in words of the command line. None repeats the URL: it may hold a password."""
    said = str(error).replace("give cluster='redis://…'", "give --cluster redis://…, or a [cluster] table")
    for field in ("cluster: url: ", "cluster: "):
        if said.startswith(field):
            return f"--cluster: {said.removeprefix(field)}"
    return said


def _deployment(arguments: argparse.Namespace) -> tuple[Deployment, ClusterConfig | None]:
    """The deployment that the arguments name or describe, and what its file says about sharing."""
    try:
        if arguments.deployments is not None:
            return _from_file(arguments)
        if arguments.name is not None:
            raise UsageError("--name: belongs to --deployments")
        if arguments.model is None:
            raise UsageError("say which model with --model, or which deployment with --deployments FILE --name NAME")
        deployment = Deployment(
            name="chat",
            model=arguments.model,
            runtime=arguments.provider or "",
            runtime_config={"endpoint": arguments.endpoint, "api_key": _key(arguments)},
        )
        return deployment, None
    except (OSError, ValueError) as error:
        raise UsageError(str(error).replace("runtime: cannot", "--provider: cannot", 1)) from error


def _from_file(arguments: argparse.Namespace) -> tuple[Deployment, ClusterConfig | None]:
    for name in _DIRECT:
        if getattr(arguments, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')}: the deployment file says that already")
    path = Path(arguments.deployments)
    found, cluster = shared_deployments_from_toml(path.read_text(encoding="utf-8"), source=str(path))
    deployments = {each.name: each for each in found}
    if cluster is not None and arguments.cluster is not None:
        raise UsageError("--cluster: the deployment file says that already")
    if arguments.name is None and len(deployments) == 1:
        return found[0], cluster
    if arguments.name not in deployments:
        raise UsageError(f"--name: must be one of those in {path}: {', '.join(deployments)}")
    return deployments[arguments.name], cluster


def _key(arguments: argparse.Namespace) -> Secret:
    """The reference to the key. A name is only repeated if it looks like one: it may be the key itself."""
    name = arguments.api_key_env or _DEFAULT_KEY
    secret = Secret.from_env(name)
    if name not in os.environ:
        shown = name if re.fullmatch("[A-Z][A-Z0-9_]*", name) else "given by --api-key-env"
        raise UsageError(
            f"the environment variable {shown} is not set; put the key there, or name another with --api-key-env"
        )
    return secret


def _batch(arguments: argparse.Namespace) -> ExecuteBatch:
    prompt: str = arguments.prompt
    try:
        if prompt == "-":
            if sys.stdin.isatty():
                print("Type the prompt, then end it with Ctrl-D.", file=sys.stderr)
            prompt = sys.stdin.read()
        prompt.encode()  # what was no text to begin with comes in as lone surrogates in some locales
    except UnicodeError:
        raise UsageError("the prompt is not text in UTF-8") from None
    if not prompt.strip():
        raise UsageError("the prompt is empty")
    messages = [Message(role="user", content=prompt)]
    if arguments.system is not None:
        messages.insert(0, Message(role="system", content=arguments.system))
    return ExecuteBatch(messages=messages, max_output_tokens=arguments.max_output_tokens)


class _Printer:
    """Puts chunks where they belong, at once. A terminal gets no control characters: the text is the model's, not ours."""

    def __init__(self, notes: Console) -> None:
        self.chunks: list[TokenChunk] = []
        self._notes = notes
        self._last = ""  # the last thing written, to know whether its line is open
        self._reasoning = False

    def show(self, chunk: TokenChunk) -> None:
        """Print what this chunk adds."""
        self.chunks.append(chunk)
        if chunk.reasoning_delta:
            self._reasoning = True
            self._last = self._clean(chunk.reasoning_delta, sys.stderr.isatty())
            self._notes.out(self._last, style="dim", highlight=False, end="")
        if text := chunk.text_delta + chunk.refusal_delta:
            if self._reasoning:
                self.end_line()
                self._reasoning = False
            self._last = self._clean(text, sys.stdout.isatty())
            sys.stdout.write(self._last)
            sys.stdout.flush()

    def end_line(self) -> None:
        """Start a new line, if something stands on this one."""
        if self._last and not self._last.endswith("\n"):
            if self._reasoning:
                self._notes.out("", highlight=False)
            else:
                print(flush=True)
        self._last = ""

    def notice(self, notice: Notice) -> None:
        """Say why there is nothing to see yet."""
        if notice.kind == "retry_scheduled":
            reason, wait = notice.detail["reason"], notice.detail["wait"]
            self._notes.print(f"{reason}: trying again in {wait:.2g} s", style="dim", markup=False)
        elif notice.kind == "store":
            reason = f": {notice.detail['reason']}" if notice.detail["reason"] else ""
            self._notes.print(f"the store of the limits is {notice.detail['state']}{reason}", style="dim", markup=False)

    @staticmethod
    def _clean(text: str, for_terminal: bool) -> str:
        return text.translate(_CONTROLS) if for_terminal else text


def _summary(deployment: Deployment, answer: Tokens, seconds: float) -> str:
    """What it took, in one line."""
    parts = [deployment.model]
    if answer.usage is None:
        parts.append("usage unknown")
    else:
        parts.append(f"{answer.usage.input_tokens} tokens in, {answer.usage.output_tokens} out")
    cost = cost_of(answer.usage, deployment.price_of_model).usd
    parts.append("cost unknown" if cost is None else f"${cost:.6f}")
    if answer.finish_reason != "stop":
        parts.append(f"ended by {answer.raw_finish_reason or answer.finish_reason}")
    return " · ".join([*parts, f"{seconds:.1f} s"])
