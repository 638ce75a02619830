"""Running a test's own code against a world, on either backend. Each is imported when it is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, overload

from sansio import Notice
from sansio.simulation.world.world import GIVE_UP_AFTER, World

from .asyncio_loop import event_loop
from .line import Client

if TYPE_CHECKING:
    from .asyncio_engine import RemoteEngine as OfAsyncio
    from .trio_engine import RemoteEngine as OfTrio

Result = TypeVar("Result")

Backend: TypeAlias = Literal["asyncio", "trio"]


def run(
    world: World,
    main: Callable[..., Awaitable[Result]],
    *args: Any,
    backend: Backend = "asyncio",
    on_notice: Callable[[Notice], None] | None = None,
    give_up_after: float = GIVE_UP_AFTER,
) -> Result:
    """Run ``main(engine, *args)`` in the time of ``world``: its result.

    The engine is the backend's own driver's, entered, and closed at the end. Raises whatever ``main`` raises,
    `InvariantViolated` where an engine of this world was found wanting, even if that was caught, `RuntimeError` when nothing
    can happen any more, or the virtual seconds ``give_up_after`` are over, and `ValueError` for an unknown backend.
    """
    engine = engine_of(world, backend, on_notice=on_notice)

    async def whole() -> Result:
        async with engine:
            result = await main(engine, *args)
        world.check()
        return result

    if backend == "trio":
        return run_trio(world, whole, give_up_after=give_up_after)
    with asyncio.Runner(loop_factory=lambda: event_loop(world, give_up_after=give_up_after)) as runner:
        return runner.run(whole())


def run_trio(
    world: World, main: Callable[..., Awaitable[Result]], *args: Any, give_up_after: float = GIVE_UP_AFTER
) -> Result:
    """`trio.run` in the time of ``world``. Raises as `run` does."""
    from .trio_clock import run_trio

    return run_trio(world, main, *args, give_up_after=give_up_after)


@overload
def engine_of(
    world: World,
    backend: Literal["asyncio"] = "asyncio",
    *,
    on_notice: Callable[[Notice], None] | None = None,
    name: str = "driver",
) -> OfAsyncio: ...


@overload
def engine_of(
    world: World, backend: Literal["trio"], *, on_notice: Callable[[Notice], None] | None = None, name: str = "driver"
) -> OfTrio: ...


@overload
def engine_of(
    world: World, backend: Backend, *, on_notice: Callable[[Notice], None] | None = None, name: str = "driver"
) -> OfAsyncio | OfTrio: ...


def engine_of(
    world: World, backend: Backend = "asyncio", *, on_notice: Callable[[Notice], None] | None = None, name: str = "driver"
) -> OfAsyncio | OfTrio:
    """A driver's engine in ``world``, not entered yet. name: tells its chances from those of another engine there.

    Raises `ValueError` for another backend than ``"asyncio"`` and ``"trio"``.
    """
    match backend:
        case "asyncio":
            from .asyncio_engine import RemoteEngine as OfAsyncio

            return OfAsyncio(world, on_notice=on_notice, name=name)
        case "trio":
            from .trio_engine import RemoteEngine as OfTrio

            return OfTrio(world, on_notice=on_notice, name=name)
        case _:
            raise _unknown(backend)


def client_of(world: World, backend: Backend = "asyncio") -> Client:
    """The world's network, as the ``client=`` of an engine that you make yourself. Its key is its own: give the world a
    ``provider=`` that takes it. Raises `ValueError` as `engine_of` does."""
    match backend:
        case "asyncio":
            from .asyncio_engine import client_of
        case "trio":
            from .trio_engine import client_of
        case _:
            raise _unknown(backend)
    return client_of(world)


def _unknown(backend: object) -> ValueError:
    return ValueError(f"backend: {backend!r} is none of them; take 'asyncio' or 'trio'")
