"""Small worlds for the tests of virtual time."""

from __future__ import annotations

from typing import Any

from sansio import Deployment, ExecuteBatch, Message, Secret
from sansio.simulation.provider.fault_script import FaultScript
from sansio.simulation.provider.mock_provider import MockProvider
from sansio.simulation.world.plan import Conditions
from sansio.simulation.world.world import World

CALM = Conditions(latency=0.01, jitter=0.0)


def chat(**settings: Any) -> Deployment:
    config = {"api_key": Secret.from_env("NOT_IN_ANY_ENVIRONMENT"), **settings.pop("runtime_config", {})}
    return Deployment(name=settings.pop("name", "chat"), model="gpt-4o", runtime_config=config, **settings)


def batch(prompt: str = "hello", **fields: Any) -> ExecuteBatch:
    return ExecuteBatch(messages=[Message(role="user", content=prompt)], **fields)


def world_with(
    *faults: Any, deployment: Deployment | None = None, then: Any = None, seed: int = 0, **settings: Any
) -> World:
    provider = MockProvider(answers={"hello": "Hi there"}, faults=FaultScript(faults, then=then), **settings)
    return World(deployment or chat(), seed=seed, provider=provider, conditions=CALM)
