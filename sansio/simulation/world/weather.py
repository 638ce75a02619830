"""What is going wrong at the moment: at each provider, and on the way to it."""

from __future__ import annotations

import hashlib
from random import Random

from ..provider.fault import Fault
from ..provider.fault_script import FaultScript
from ..provider.formats import Ask
from .plan import BadNetwork, Conditions, Faults


class Weather:
    """The weather at one host. Disturbances come and go; it is fine when none is left.

    Of several faults at once each may strike; of several bad networks the last to come is felt.
    """

    __slots__ = ("_begun", "_fair", "_faults", "_key", "_met", "_networks")

    def __init__(self, rng: Random, fair: Conditions) -> None:
        self._key = rng.randbytes(16)
        self._met: dict[str, tuple[int, Fault | None]] = {}
        self._fair = fair
        self._begun: dict[int, int] = {}
        self._faults: list[tuple[str, Faults]] = []
        self._networks: list[BadNetwork] = []

    @property
    def conditions(self) -> Conditions:
        """How the network is now."""
        return self._networks[-1].conditions if self._networks else self._fair

    def begin(self, disturbance: Faults | BadNetwork) -> None:
        """It comes. What somebody draws of it follows from its number; two of one number are still drawn independently."""
        if isinstance(disturbance, Faults):
            times = self._begun[disturbance.number] = self._begun.get(disturbance.number, 0) + 1
            name = str(disturbance.number) if times == 1 else f"{disturbance.number}.{times}"
            self._faults.append((name, disturbance))
        else:
            self._networks.append(disturbance)

    def end(self, disturbance: Faults | BadNetwork) -> None:
        """It goes. Of no effect if it has gone already."""
        for at, (_, faults) in enumerate(self._faults):
            if faults is disturbance:
                del self._faults[at]
                return
        for at, network in enumerate(self._networks):
            if network is disturbance:
                del self._networks[at]
                return

    def clear(self) -> None:
        """Everything is over, also what would have lasted longer."""
        self._faults.clear()
        self._networks.clear()

    def draw(self, asker: str = "", *, reused: bool) -> Fault | None:
        """What the next request meets. ``reused``: its connection has carried one before, which some faults need.

        asker: whose it is. What somebody meets follows from how often they have asked, not from who else does: so a run
        in which others are left out goes on as it did.
        """
        times = self.met(asker)[0] + 1
        fault = self._strike(f"{asker}/{times}", reused=reused)
        self._met[asker] = (times, fault)
        return fault

    def met(self, asker: str) -> tuple[int, Fault | None]:
        """How often somebody has asked, and what the last of their requests met."""
        return self._met.get(asker, (0, None))

    def _strike(self, occasion: str, *, reused: bool) -> Fault | None:
        for name, faults in self._faults:
            point = self._point(f"{name}/{occasion}")
            for fault, rate in faults.rates:
                point -= rate
                if point < 0:
                    if reused or not fault.needs_reuse:
                        return fault
                    break
        return None

    def _point(self, occasion: str) -> float:
        """A number from 0 up to 1 for each occasion."""
        digest = hashlib.blake2b(occasion.encode("utf-8", "replace"), digest_size=6, key=self._key).digest()
        return int.from_bytes(digest, "big") / (1 << 48)


class WeatherScript(FaultScript):
    """The weather, as a `MockProvider` asks for it. own: a script of the provider's, which comes first."""

    __slots__ = ("own", "weather")

    def __init__(self, weather: Weather, own: FaultScript | None = None) -> None:
        super().__init__()
        self.weather = weather
        self.own = own

    @property
    def remaining(self) -> int:
        """Of the provider's own."""
        return 0 if self.own is None else self.own.remaining

    def pick(self, ask: Ask, *, reused: bool = False) -> Fault | None:
        """The fault for the request that has just arrived, or ``None``."""
        fault = None if self.own is None else self.own.pick(ask, reused=reused)
        return self.weather.draw(ask.prompt, reused=reused) if fault is None else fault


def under(weather: Weather, script: FaultScript) -> WeatherScript:
    """The script of a provider that stands in this weather from now on: its own first, then what the weather has for those
    it lets pass. Whatever other weather it was in is over."""
    if not isinstance(script, WeatherScript):
        return WeatherScript(weather, script)
    return script if script.weather is weather else WeatherScript(weather, script.own)
