"""``remote-core mock-provider``: the simulated provider on a real port, to try things out and for other people's tests."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from drivers.mock_provider import serve
from sansio.simulation import FaultScript, MockProvider, ProviderLimits

from .exit_status import FAILED, UsageError


def mock_provider(arguments: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM."""
    try:
        faults = None if arguments.faults is None else read_faults(Path(arguments.faults))
        provider = MockProvider(faults=faults, keys=arguments.key, limits=_limits(arguments))
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    try:
        asyncio.run(_serve(provider, arguments.host, arguments.port))
    except OSError as error:
        print(f"remote-core mock-provider: cannot listen: {error}", file=sys.stderr)
        return FAILED
    return 0


def read_faults(path: Path) -> FaultScript:
    """The fault script in a file. Raises `OSError` where it cannot be read, `ValueError` (naming it) where it is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
        data: Any = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
        if not isinstance(data, dict):
            raise ValueError("must hold an object")
        return FaultScript.from_mapping(cast(dict[str, Any], data))
    except ValueError as error:  # those of the two parsers, and of the encoding, are such
        raise ValueError(f"{path}: {error}") from error


def _limits(arguments: argparse.Namespace) -> ProviderLimits | None:
    limits = ProviderLimits(arguments.requests_per_minute, arguments.tokens_per_minute)
    return None if limits == ProviderLimits() else limits


async def _serve(provider: MockProvider, host: str, port: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # an event loop without signal handlers: there, Ctrl-C is a KeyboardInterrupt
            loop.add_signal_handler(number, stop.set)
    async with await serve(provider, host, port) as server:
        print(f"READY {server.url}", flush=True)
        await stop.wait()
