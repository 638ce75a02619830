"""The core is pure: it reads no clock, draws no randomness of its own, touches no file, socket, thread or environment.

Held three ways. By reading: nothing in `sansio/` is written that would do so (which modules it may import at all is an
import-linter contract). By running: every scenario below runs in a process where all of that is patched to raise (spec 5,
invariant 2). By repeating: the same scenario gives the same under every hash seed (invariant 1).

To put another part of the core under the last two, write a function that returns what it saw, and add it to `SCENARIOS`.
"""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
import json
import os
import pkgutil
import random
import secrets
import select
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import sansio
from sansio.backoff import BackoffPolicy, compute_backoff
from sansio.errors import InferenceError, RateLimited, StreamInterrupted
from sansio.simulation import plan, run
from sansio.sse import SseDecoder
from sansio.token_bucket import TokenBucket

CORE = Path(sansio.__file__).parent
MODULES = ["sansio", *sorted(module.name for module in pkgutil.walk_packages(sansio.__path__, "sansio."))]
HASH_SEEDS = ("0", "1", "4294967295")

# --- What the core does, in miniature ---------------------------------------------------------------------------------


def an_error_round_trips() -> object:
    error = StreamInterrupted(cause=RateLimited("openai", retry_after=1.5))
    return [error.to_dict(), InferenceError.from_dict(error.to_dict()).to_dict()]


def a_stream_is_decoded() -> object:
    decoder = SseDecoder()
    return [decoder.feed(b"id: 1\nevent: delta\nda"), decoder.feed(b"ta: \xe2\x82\xac\n\ndata: 1\n\n"), decoder.finish()]


def a_bucket_runs_dry() -> object:
    bucket = TokenBucket(2.0, 3)
    return [bucket.try_take(3, 1e6), bucket.wait(1, 1e6), bucket.try_take(1, 1e6 + 0.5)]


def waits_are_drawn() -> object:
    rng = random.Random(7)
    return [compute_backoff(BackoffPolicy(), attempt, rng) for attempt in range(5)]


def an_outage_is_lived_through() -> object:
    return [run(plan("outage", 3, level), digest=True).text() for level in ("bytes", "requests")]


SCENARIOS: list[Callable[[], object]] = [
    *(an_error_round_trips, a_stream_is_decoded, a_bucket_runs_dry, waits_are_drawn, an_outage_is_lived_through)
]

# --- What no part of the core may do, to see that the harness notices --------------------------------------------------

_open, _socket = open, socket.socket  # references taken before the world is sealed

LEAKS: dict[str, Callable[[], object]] = {
    "the wall clock": lambda: time.time(),
    "the monotonic clock": lambda: time.monotonic(),
    "a sleep": lambda: time.sleep(0),
    "the shared generator": lambda: random.random(),
    "a shuffle": lambda: random.shuffle([1, 2]),
    "the system's randomness": lambda: random.SystemRandom(),
    "an id": lambda: uuid.uuid4(),
    "a token": lambda: secrets.token_hex(),
    "the environment": lambda: os.environ["PATH"],
    "the environment, by a call": lambda: os.getenv("PATH"),
    "a file": lambda: open(__file__),
    "a file, by an old reference": lambda: _open(__file__),
    "the terminal": lambda: print("hello"),
    "a socket": lambda: socket.socket(),
    "a socket, by an old reference": lambda: _socket(),
    "TLS": lambda: ssl.create_default_context(),
    "select": lambda: select.select([], [], [], 0),
    "a thread": lambda: threading.Thread(),
    "a lock": lambda: threading.Lock(),
    "a process": lambda: subprocess.run(["true"]),
}


def an_order_that_hangs_on_the_hash_seed() -> object:
    return list({"closed", "open", "half-open", "forced"})


# --- Running with the world sealed -------------------------------------------------------------------------------------

SHARED = [name for name, value in vars(random).items() if isinstance(getattr(value, "__self__", None), random.Random)]
"""All that draws from the generator which everybody shares."""

SEALED: dict[ModuleType, Sequence[str]] = {
    time: ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "localtime", "sleep"),
    random: ("SystemRandom", *SHARED),
    secrets: ("choice", "randbelow", "randbits", "token_bytes", "token_hex", "token_urlsafe"),
    uuid: ("uuid1", "uuid4", "getnode"),
    os: ("environ", "getenv", "urandom", "open", "stat", "system"),
    builtins: ("open", "print", "input"),
    socket: ("socket", "socketpair", "create_connection", "getaddrinfo"),
    ssl: ("SSLContext", "create_default_context"),
    select: ("select",),
    threading: ("Thread", "Timer", "Lock", "RLock", "Condition", "Event", "current_thread", "get_ident"),
    subprocess: ("Popen", "run"),
}
"""What is patched to raise. The types of `datetime` cannot be patched: their clock readers are found by reading."""

AUDITED = ("open", "os.", "socket.", "subprocess.", "_thread.start_new_thread")
"""Audit events (PEP 578) refused as well, because a reference taken before the patch goes round it."""


class Sealed(BaseException):
    """The core reached for the world. Not an `Exception`, so that nothing swallows it."""


class Trap:
    """Stands where a function or an object of the world stood: any use of it raises."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *_args: object, **_options: object) -> object:
        raise Sealed(self.name)

    def __getitem__(self, key: object) -> object:
        raise Sealed(f"{self.name}[{key!r}]")

    def __getattr__(self, attribute: str) -> object:
        raise Sealed(f"{self.name}.{attribute}")


def sealed_outcomes(scenarios: dict[str, Callable[[], object]]) -> dict[str, dict[str, object]]:
    """What each scenario returned or raised while the world was sealed. For a process of its own: a hook stays behind."""
    armed = True

    def refuse(event: str, _args: object) -> None:
        if armed and event.startswith(AUDITED):
            raise Sealed(f"audit event {event}")

    raised: dict[str, BaseException] = {}
    returned: dict[str, object] = {}
    sys.addaudithook(refuse)
    with pytest.MonkeyPatch.context() as patch:
        for module, names in SEALED.items():
            for name in names:
                patch.setattr(module, name, Trap(f"{module.__name__}.{name}"))
        for title, scenario in scenarios.items():
            try:
                returned[title] = scenario()
            except (Exception, Sealed) as error:
                raised[title] = error
        armed = False
    outcomes: dict[str, dict[str, object]] = {title: {"returned": repr(value)} for title, value in returned.items()}
    for title, error in raised.items():
        outcomes[title] = {"raised": type(error).__name__, "traceback": "".join(traceback.format_exception(error))}
    return outcomes


def main() -> None:
    """What the child process does: import all of the core, seal the world, run everything, print the outcomes."""
    for name in MODULES:
        importlib.import_module(name)
    named = {scenario.__name__: scenario for scenario in (*SCENARIOS, an_order_that_hangs_on_the_hash_seed)}
    json.dump(sealed_outcomes(named | LEAKS), sys.stdout)


@functools.cache
def run_sealed(hash_seed: str) -> dict[str, dict[str, Any]]:
    """The outcomes of `main` in a new process with that hash seed, of the same copy of the core as is tested here."""
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(CORE.parent)}
    done = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    outcomes: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return outcomes


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_the_core_runs_with_clock_randomness_sockets_and_threads_patched_to_raise(scenario: Callable[[], object]) -> None:
    outcome = run_sealed(HASH_SEEDS[0])[scenario.__name__]
    assert "returned" in outcome, outcome["traceback"]


def test_the_same_facts_give_the_same_under_every_hash_seed() -> None:
    """One test for all the scenarios, so that one worker runs all the processes. A list that hangs on the seed is told."""
    first, *others = (run_sealed(seed) for seed in HASH_SEEDS)
    named = [scenario.__name__ for scenario in (*SCENARIOS, an_order_that_hangs_on_the_hash_seed)]
    different = [name for name in named if any(other[name] != first[name] for other in others)]
    assert different == [an_order_that_hangs_on_the_hash_seed.__name__]


@pytest.mark.parametrize("leak", LEAKS)
def test_the_seal_holds(leak: str) -> None:
    assert run_sealed(HASH_SEEDS[0])[leak].get("raised") == "Sealed"


@pytest.mark.parametrize("name", MODULES)
def test_every_module_of_the_core_imports(name: str) -> None:
    assert importlib.import_module(name).__doc__


# --- Reading -----------------------------------------------------------------------------------------------------------

WORLDLY_MODULES = ("time", "os", "io", "secrets", "uuid", "random", "locale", "platform")
WORLDLY_NAMES = {
    "datetime.datetime.now",
    "datetime.datetime.today",
    "datetime.datetime.utcnow",
    "datetime.date.today",
    "sys.argv",
    "sys.stdin",
    "sys.stdout",
    "sys.stderr",
}
WORLDLY_CALLS = {"open", "print", "input", "breakpoint", "exec", "eval", "__import__", "id"}
"""`id` is here because what is ordered by it differs from run to run."""


def impurities(source: str) -> Iterator[str]:
    """Each place in ``source`` that reads the world, as ``line: name``."""
    tree = ast.parse(source)
    imported = dict(_imported_names(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = _dotted(node.func, imported)
            if called in WORLDLY_CALLS or (called == "random.Random" and not node.args):
                yield f"{node.lineno}: {called}()"
        if isinstance(node, (ast.Attribute, ast.Name)):
            name = _dotted(node, imported)
            module, _, member = name.partition(".")
            is_random = module == "random" and member.split(".")[0] == "Random"
            if name in WORLDLY_NAMES or (module in WORLDLY_MODULES and member and not is_random):
                yield f"{node.lineno}: {name}"


def _imported_names(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Which local name stands for which absolute one. Names that were not imported stand for nothing."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.asname or alias.name.split(".")[0], alias.name if alias.asname else alias.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _dotted(node: ast.AST, imported: dict[str, str]) -> str:
    """The absolute name of ``a.b.c``; of a bare name its own where it is a builtin, else nothing."""
    if isinstance(node, ast.Attribute):
        base = _dotted(node.value, imported)
        return f"{base}.{node.attr}" if base else ""
    if isinstance(node, ast.Name):
        return imported.get(node.id, node.id if node.id in WORLDLY_CALLS else "")
    return ""


@pytest.mark.parametrize("path", sorted(CORE.rglob("*.py")), ids=lambda path: path.relative_to(CORE).as_posix())
def test_the_core_reads_nothing_of_the_world(path: Path) -> None:
    assert list(impurities(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import time\ntime.time()",
        "import time as clock\nclock.monotonic()",
        "from time import monotonic\nmonotonic()",
        "import datetime\ndatetime.datetime.now(datetime.UTC)",
        "from datetime import datetime\ndatetime.utcnow()",
        "from datetime import date as day\nday.today()",
        "import random\nrandom.random()",
        "import random\nrandom.shuffle([])",
        "import random\nrandom.Random()",
        "import random\nrandom.SystemRandom()",
        "from random import choice\nchoice([1])",
        "from random import Random\nRandom()",
        "import os\nos.environ['HOME']",
        "import os\nos.path.exists('x')",
        "from os import environ\nenviron.get('HOME')",
        "import uuid\nuuid.uuid4()",
        "import sys\nsys.stdout.write('x')",
        "open('x')",
        "print('x')",
        "input()",
        "sorted([], key=lambda x: id(x))",
    ],
)
def test_reading_finds_what_is_impure(source: str) -> None:
    assert list(impurities(source))


@pytest.mark.parametrize(
    "source",
    [
        "import random\ndef f(rng: random.Random) -> float:\n    return rng.random()",
        "import random\nrandom.Random(7).random()",
        "from random import Random\nRandom(7)",
        "def f(time: float) -> float:\n    return time",
        "def f(random):\n    return random.random()",
        "from datetime import UTC, datetime\ndatetime.fromtimestamp(0, UTC)",
        "class A:\n    def open(self): self.open()",
        "def f(chunk):\n    return chunk.id",
    ],
)
def test_reading_passes_what_is_pure(source: str) -> None:
    assert not list(impurities(source))


if __name__ == "__main__":
    main()
