"""The trio driver's own `RemoteEngine`, at a place in a world."""

from __future__ import annotations

from collections.abc import Callable

import trio

from drivers.trio_driver import RemoteEngine as Driver
from sansio import AskStore, Notice, RefreshSession, RemoteEngineCore
from sansio.simulation.world.world import World

from .line import Client
from .place import Place
from .trio_clock import WorldClock


class RemoteEngine(Driver):
    """The driver's engine with a world's clocks, keys and network. Everything else is the driver's."""

    def __init__(self, world: World, *, on_notice: Callable[[Notice], None] | None = None, name: str = "driver") -> None:
        self._place = Place(world, name)
        super().__init__(world.config, on_notice=on_notice, client=client_of(world))

    async def __aenter__(self) -> RemoteEngine:
        clock = trio.lowlevel.current_clock()
        if not isinstance(clock, WorldClock) or clock.world is not self._place.world:
            raise RuntimeError("an engine of a world runs in that world's time: use `run` or `run_trio`")
        await super().__aenter__()
        return self

    async def __aexit__(self, *raised: object) -> None:
        try:
            await super().__aexit__(*raised)
        except BaseException as error:
            self._place.closed(error)
            raise
        self._place.closed(*raised)

    def unix_now(self) -> float:
        """The world's wall clock."""
        return self._place.unix_now()

    def _make_core(self) -> RemoteEngineCore:
        return self._place.core()

    def _refresh(self, order: RefreshSession) -> None:
        self._place.fetch(order, self.tell)

    def _ask(self, order: AskStore) -> None:
        self._place.ask(order, self.tell)


def client_of(world: World) -> Client:
    """The world's network, for trio."""
    return Client(world, trio.Event, trio.lowlevel.checkpoint)
