"""A test of one's own code against a provider that fails, without a network and without waiting: a `World` in virtual time.

The code under test asks for two opinions at once and takes what comes within twenty seconds. The tests run it on the asyncio
driver's own engine; `world.engine()` is the same for code that blocks.
"""

import asyncio

from drivers.virtual_time import run
from sansio import Deployment, ExecuteBatch, InferenceError, Message, Secret
from sansio.simulation import FaultScript, MockProvider, NeverRespond, Status, World

deployment = Deployment(name="chat", model="gpt-4o", runtime_config={"api_key": Secret.from_env("OPENAI_API_KEY")})


async def opinions(engine, question):
    """What came in time, by who was asked."""
    said = {}

    async def ask(person):
        batch = ExecuteBatch(messages=[Message(role="system", content=person), Message(role="user", content=question)])
        try:
            async with asyncio.timeout(20):
                said[person] = (await engine.generate(batch)).text
        except (TimeoutError, InferenceError) as error:
            said[person] = type(error).__name__

    async with asyncio.TaskGroup() as group:
        for person in ("optimist", "pessimist"):
            group.create_task(ask(person))
    return said


def answer(ask):
    return "It depends." if ask.prompt == "Will it rain?" else None


def test_both_answer_although_the_provider_stumbles():
    world = World(deployment, provider=MockProvider(answers=answer, faults=FaultScript([Status(503), Status(502)])))
    assert run(world, opinions, "Will it rain?") == {"optimist": "It depends.", "pessimist": "It depends."}
    assert world.provider.requests_total == 4


def test_one_that_never_answers_is_not_waited_for():
    world = World(deployment, provider=MockProvider(answers=answer, faults=FaultScript([NeverRespond()])))
    assert sorted(run(world, opinions, "Will it rain?").values()) == ["It depends.", "TimeoutError"]
    assert 20 <= world.clock.now < 21


def test_an_outage_in_code_that_blocks():
    world = World(deployment, provider=MockProvider(answers=answer, faults=FaultScript([Status(503)] * 3)))
    with world.engine() as engine:
        tokens = engine.generate(ExecuteBatch(messages=[Message(role="user", content="Will it rain?")]))
        assert tokens.text == "It depends."
        assert engine.metrics().retries == {"server_error": 3}
    assert world.clock.now > 3  # the time that its retries have waited
