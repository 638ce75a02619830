"""What ``remote-core`` understands, and how it ends: 0 for success, 1 for a failure, 2 for bad usage, 130 for Ctrl-C.

A command is imported when it is asked for, so that one that needs no extra runs without any.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import Final, NoReturn, TypeVar

from sansio import __version__
from sansio.scrub import scrub

from .exit_status import FAILED, INTERRUPTED, UsageError

Number = TypeVar("Number", int, float)

_EXTRAS: Final = {"chat": "cli", "demo": "cli,trio", "simulate": "cli,pictures"}
"""What each command needs beyond the core, as extras of this package."""

_OPTIONAL: Final = ("rich", "trio", "matplotlib")
"""The packages in them."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (by default this process') and return its exit status."""
    try:
        arguments = build_parser().parse_args(argv)
        try:
            status = _run(arguments)
            sys.stdout.flush()  # while it can still be said that nobody reads it
            return status
        except UsageError as error:
            parser: _Parser = arguments.parser
            parser.refuse(error)
    except SystemExit as stop:  # argparse has said all there is to say
        return int(stop.code or 0)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our output has left: say nothing more, not even while Python shuts down
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def build_parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    parser = _Parser(
        prog="remote-core", description="Calls inference providers inside their limits and through their failures."
    )
    parser.add_argument("--version", action="version", version=f"remote-core {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_chat(commands.add_parser("chat", help="ask a provider, and see the answer as it comes"))
    _add_demo(commands.add_parser("demo", help="watch three drivers and a provider that misbehaves"))
    _add_mock_provider(
        commands.add_parser("mock-provider", help="serve a provider that answers, throttles and fails as told")
    )
    _add_simulate(commands.add_parser("simulate", help="run the engine through worlds where everything goes wrong"))
    return parser


def _run(arguments: argparse.Namespace) -> int:
    try:
        match arguments.command:
            case "chat":
                from .chat import chat

                return chat(arguments)
            case "demo":
                from .demo import demo

                return demo(arguments)
            case "simulate":
                from .simulate import simulate

                return simulate(arguments)
            case _:
                from .mock_provider import mock_provider

                return mock_provider(arguments)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _OPTIONAL:
            raise
        install = f"pip install 'inference-remote-core[{_EXTRAS[arguments.command]}]'"
        print(f"remote-core {arguments.command} needs {missing}, which is not installed: {install}", file=sys.stderr)
        return FAILED


class _Parser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` whose complaints never repeat a key that was passed in the wrong place."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the arguments, some of which may be quoted, and end with 2."""
        super().error(scrub(message))

    def refuse(self, error: UsageError) -> NoReturn:
        """Say what they ask for that cannot be, and end with 2."""
        super().error(" ".join(str(error).split()))


def _add_chat(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Asks one question and streams the answer to the terminal; reasoning, usage and cost go to stderr. "
        "Say where with --model and --endpoint, or with --deployments."
    )
    parser.add_argument("prompt", nargs="?", default="-", help="the question; left out or '-', it is read from stdin")
    parser.add_argument("--provider", metavar="NAME", help="whose API it is, such as openai; often told by the model's name")
    parser.add_argument("--endpoint", metavar="URL", help="the base URL, as the provider's official SDK has it")
    parser.add_argument("--model", metavar="M", help="the model")
    parser.add_argument(
        "--api-key-env", metavar="NAME", help="the environment variable that holds the key (default: OPENAI_API_KEY)"
    )
    parser.add_argument("--deployments", metavar="FILE", help="a TOML file of [[deployment]] tables, instead of the above")
    parser.add_argument("--name", help="which of them, where there are several")
    parser.add_argument(
        "--cluster", metavar="URL", help="the store (redis://…) through which its limits are shared with other processes"
    )
    parser.add_argument("--system", metavar="TEXT", help="the system message")
    parser.add_argument("--timeout", metavar="S", type=_seconds, help="seconds for the whole request, waiting included")
    parser.add_argument("--max-output-tokens", metavar="N", type=_whole, help="the longest answer, reasoning included")
    parser.set_defaults(parser=parser)


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Sends prompts through each driver to an embedded provider that throttles, fails, breaks streams and rotates its "
        "key. Ends with 1 if a prompt was lost or answered twice, or if anything was left behind."
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="which troubles come when (default: 0)")
    parser.add_argument(
        "--prompts", metavar="N", type=_whole, default=200, help="how many through each driver (default: 200)"
    )
    parser.add_argument("--plain", action="store_true", help="log lines instead of the live display")
    parser.set_defaults(parser=parser)


def _add_mock_provider(parser: argparse.ArgumentParser) -> None:
    parser.description = "Serves a mock provider until SIGINT or SIGTERM. Its first line is READY and the URL."
    parser.add_argument("--port", metavar="P", type=_port, required=True, help="where to listen; 0 is any free port")
    parser.add_argument("--host", metavar="H", default="127.0.0.1", help="the address to listen on (default: 127.0.0.1)")
    parser.add_argument("--faults", metavar="FILE", help="what goes wrong, in TOML or (by its name's end) JSON")
    parser.add_argument("--requests-per-minute", metavar="N", type=_whole, help="the limit of each model (default: none)")
    parser.add_argument("--tokens-per-minute", metavar="N", type=_whole, help="the same, in tokens")
    parser.add_argument("--key", action="append", metavar="KEY", help="a good key; repeatable (default: any key will do)")
    parser.set_defaults(parser=parser)


def _add_simulate(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Runs the engine that ships in virtual time, against providers that fail, and holds every step to its invariants. "
        "The same seed gives the same run, to the byte. Without options: each scenario once. Ends with 1 if an invariant "
        "did not hold; such a run is made small before it is shown."
    )
    add = parser.add_argument
    add("--scenario", metavar="NAME", help="which; without it, with --seed, the one that the seed stands for")
    add("--seed", metavar="N", type=_natural, help="which run (default: 0); with --seeds the first")
    add("--seeds", metavar="COUNT", type=_whole, help="so many runs, and their total")
    add("--level", choices=("bytes", "requests"), help="how deep (default: one seed in four goes to the bytes)")
    add("--callers", metavar="N,…", type=_numbers, help="only these callers, by number ('none': none)")
    add("--disturbances", metavar="N,…", type=_numbers, help="only these disturbances, by number ('none': none)")
    add("--picture", metavar="FILE", help="draw the run into FILE (.png or .svg), several into one each")
    add("--jobs", metavar="J", type=_whole, help="processes for --seeds (default: one for each core)")
    add("--list", action="store_true", help="say which scenarios there are")
    parser.set_defaults(parser=parser)


def _seconds(text: str) -> float:
    value = _number(float, text)
    if value is None or not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def _whole(text: str) -> int:
    value = _number(int, text)
    if value is None or value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value


def _natural(text: str) -> int:
    value = _number(int, text)
    if value is None or value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return value


def _numbers(text: str) -> tuple[int, ...]:
    return () if text == "none" else tuple(_natural(part) for part in text.split(","))


def _port(text: str) -> int:
    value = _number(int, text)
    if value is None or not 0 <= value <= 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port between 0 and 65535")
    return value


def _number(kind: Callable[[str], Number], text: str) -> Number | None:
    """``None`` for what is no number."""
    try:
        return kind(text)
    except ValueError:
        return None
