"""What is going wrong at the moment: at each provider, and on the way to it."""

from __future__ import annotations

from random import Random

from ..provider.fault import Fault
from ..provider.fault_script import FaultScript
from ..provider.formats import Ask
from .plan import BadNetwork, Conditions, Faults


class Weather:
    """The weather at one host. Disturbances come and go; it is fine when none is left.

    Of several faults at once each may strike; of several bad networks the last to come is felt.
    """

    __slots__ = ("_fair", "_faults", "_networks", "_rng")

    def __init__(self, rng: Random, fair: Conditions) -> None:
        self._rng = rng
        self._fair = fair
        self._faults: list[Faults] = []
        self._networks: list[BadNetwork] = []

    @property
    def conditions(self) -> Conditions:
        """How the network is now."""
        return self._networks[-1].conditions if self._networks else self._fair

    def begin(self, disturbance: Faults | BadNetwork) -> None:
        """It comes."""
        if isinstance(disturbance, Faults):
            self._faults.append(disturbance)
        else:
            self._networks.append(disturbance)

    def end(self, disturbance: Faults | BadNetwork) -> None:
        """It goes. Of no effect if it has gone already."""
        self._faults = [fault for fault in self._faults if fault is not disturbance]
        self._networks = [network for network in self._networks if network is not disturbance]

    def clear(self) -> None:
        """Everything is over, also what would have lasted longer."""
        self._faults.clear()
        self._networks.clear()

    def draw(self, *, reused: bool) -> Fault | None:
        """What the next request meets. ``reused``: its connection has carried one before, which some faults need."""
        for faults in self._faults:
            point = self._rng.random()
            for fault, rate in faults.rates:
                point -= rate
                if point < 0:
                    if reused or not fault.needs_reuse:
                        return fault
                    break
        return None


class WeatherScript(FaultScript):
    """The weather, as a `MockProvider` asks for it."""

    __slots__ = ("_weather",)

    def __init__(self, weather: Weather) -> None:
        super().__init__()
        self._weather = weather

    def pick(self, ask: Ask, *, reused: bool = False) -> Fault | None:
        """The fault for the request that has just arrived, or ``None``."""
        return self._weather.draw(reused=reused)
