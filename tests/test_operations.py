"""The handles of an operator: each tells the engine one fact, and reads inside the driver's critical section."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

import pytest

from sansio.circuit_breaker import CircuitState
from sansio.deployment import Deployment
from sansio.engine import RemoteEngineCore
from sansio.events import CircuitAction, Event, OverrideCircuit
from sansio.operations import Breaker, Limiter
from sansio.secret import Secret

Result = TypeVar("Result")


def deployment(name: str, port: int, requests_per_minute: int) -> Deployment:
    return Deployment(
        name=name,
        model="gpt-4o",
        runtime_config={
            "endpoint": f"http://127.0.0.1:{port}/v1",
            "api_key": Secret.inline(name),
            "rate_limits": {"requests_per_minute": requests_per_minute},
        },
    )


class Driver:
    """A clock, a critical section that knows whether somebody is inside, and the facts that were told."""

    def __init__(self, *names: str) -> None:
        deployments = [deployment(name, 8000 + number, 10 + number) for number, name in enumerate(names)]
        self.core = RemoteEngineCore(deployments, rng=random.Random(0))
        self.now = 100.0
        self.entered = 0
        self.inside = False
        self.told: list[Event] = []
        self.breaker = Breaker(self.core, self.tell, self.clock, self.alone)
        self.limiter = Limiter(self.core, self.clock, self.alone)

    def alone(self, work: Callable[[], Result], /) -> Result:
        self.entered += 1
        self.inside = True
        try:
            return work()
        finally:
            self.inside = False

    def clock(self) -> float:
        assert self.inside
        return self.now

    def tell(self, event: Event) -> None:
        self.told.append(event)
        self.core.handle(event, self.now, 0.0)


def test_an_open_circuit_stays_open_for_as_long_as_it_was_told() -> None:
    driver = Driver("a")
    driver.breaker.force_open(30.0)
    assert driver.told == [OverrideCircuit(None, CircuitAction.OPEN, 30.0)]
    assert driver.breaker.state() is CircuitState.OPEN
    assert driver.entered == 1


def test_it_is_half_open_when_that_time_is_over() -> None:
    driver = Driver("a")
    driver.breaker.force_open(30.0)
    driver.now = 130.0
    assert driver.breaker.state() is CircuitState.HALF_OPEN


@pytest.mark.parametrize("action", ["force_closed", "reset"])
def test_it_closes_again(action: str) -> None:
    driver = Driver("a")
    breaker = Breaker(driver.core, driver.tell, lambda: driver.now)  # an event loop needs no section
    breaker.force_open()
    driver.now = 1e9
    assert breaker.state() is CircuitState.OPEN
    getattr(breaker, action)()
    assert breaker.state() is CircuitState.CLOSED
    expected = CircuitAction.CLOSE if action == "force_closed" else CircuitAction.RESET
    assert driver.told == [OverrideCircuit(None, CircuitAction.OPEN), OverrideCircuit(None, expected)]


def test_of_several_deployments_one_is_named() -> None:
    driver = Driver("a", "b")
    breaker = Breaker(driver.core, driver.tell, lambda: driver.now)
    breaker.force_open(None, "b")
    assert (breaker.state("a"), breaker.state("b")) == (CircuitState.CLOSED, CircuitState.OPEN)
    breaker.force_closed("b")
    breaker.force_open(1.0, "a")
    breaker.reset("a")
    assert (breaker.state("a"), breaker.state("b")) == (CircuitState.CLOSED, CircuitState.CLOSED)
    for ask in (breaker.state, breaker.force_open, breaker.force_closed, breaker.reset):
        with pytest.raises(ValueError, match=r"deployment: there are several, name one of a, b"):
            ask()
    with pytest.raises(ValueError, match=r"deployment: 'c' is not one of a, b"):
        breaker.state("c")


def test_the_levels_of_a_limiter() -> None:
    driver = Driver("a")
    level = driver.limiter.snapshot().requests
    assert level is not None
    assert (driver.entered, level.limit) == (1, 10)
    driver = Driver("a", "b")
    limiter = Limiter(driver.core, lambda: driver.now)
    level = limiter.snapshot("b").requests
    assert level is not None
    assert level.limit == 11
    with pytest.raises(ValueError, match=r"deployment: there are several"):
        limiter.snapshot()
