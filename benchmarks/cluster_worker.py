"""One of several processes that share a key: asks as much as it may, until it is told to stop.

    python -m benchmarks.cluster_worker '{"endpoint": …, "cluster": …, "limits": …, "callers": 20, "seed": 1, "error": 0.5}'

Says ``{"ready": true}``, begins at the first line it is sent, ends at the second (or at the end of its input), and says what
became of its requests.
"""

from __future__ import annotations

import asyncio
import collections
import json
import random
import sys
from typing import Any

from drivers.asyncio_driver import RemoteEngine
from sansio import Deployment, ExecuteBatch, InferenceError, Message, Secret

_WORDS = 60
"""What the provider counts for a prompt, on average."""

_BYTES_A_TOKEN = 4
"""What an estimate takes a token for. A prompt of words that are shorter or longer is estimated wrongly, by up to a half."""


def batch(rng: random.Random, error: float) -> ExecuteBatch:
    """A prompt whose size an estimate from its bytes gets wrong, by up to this part of it."""
    words = rng.randint(_WORDS // 2, _WORDS * 3 // 2)
    estimated = words * rng.uniform(1.0 - error, 1.0 + error)
    letters = max(1, round(estimated * _BYTES_A_TOKEN / words) - 1)
    return ExecuteBatch(messages=[Message(role="user", content=" ".join(["w" * letters] * words))], max_output_tokens=4)


async def work(task: dict[str, Any]) -> dict[str, Any]:
    """Ask until told to stop; then what was asked is waited for."""
    rng = random.Random(task["seed"])
    loop = asyncio.get_running_loop()
    outcomes: collections.Counter[str] = collections.Counter()
    deployment = Deployment(
        name="shared",
        model="gpt-4o",
        runtime_config={
            "endpoint": task["endpoint"],
            "api_key": Secret.inline("sk-cluster"),
            "rate_limits": task["limits"],
            "retry": {"max_retries": 0},
        },
        serving={"max_concurrent": 256, "queue_capacity": 4096, "queue_timeout": 600.0},
    )
    stopped = asyncio.Event()
    async with RemoteEngine(deployment, cluster=task["cluster"]) as engine:

        async def caller() -> None:
            while not stopped.is_set():
                try:
                    await engine.generate(batch(rng, task["error"]))
                    outcomes["ok"] += 1
                except InferenceError as error:
                    outcomes[error.kind] += 1

        say({"ready": True})
        await loop.run_in_executor(None, sys.stdin.readline)
        callers = [asyncio.create_task(caller()) for _ in range(task["callers"])]
        await loop.run_in_executor(None, sys.stdin.readline)
        stopped.set()
        await asyncio.gather(*callers)
        return {"outcomes": dict(outcomes), "throttled": engine.metrics().throttled}


def say(message: dict[str, Any]) -> None:
    """One line."""
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    say(asyncio.run(work(json.loads(sys.argv[1]))))
