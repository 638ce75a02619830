"""Which request meets which fault: one after the other, always, by chance, or by what the prompt says.

A script is asked once for each request that got past authentication, validation and the provider's own limit, in the order
of arrival. Scripts are chained with ``otherwise``: the first that has something to say decides.
"""

from __future__ import annotations

import difflib
import math
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, Final, cast

from .faults import FAULTS, Fault
from .formats import Ask

When = str | Callable[[Ask], bool]
"""Which requests a script is about: those whose prompt contains the text, or for which the predicate holds."""


class FaultScript:
    """A plan of faults.

    sequence: the n-th matching request meets the n-th entry; ``None`` lets it pass unharmed.
    then: what every later one meets. rates: or what it may meet, each with its probability, drawn from ``rng``.
    when: which requests match; all by default. otherwise: the script asked where this one says nothing.
    Raises `ValueError` for what is no fault or no probability, and for ``rates`` together with ``then`` or without ``rng``.
    """

    __slots__ = ("_next", "_otherwise", "_rates", "_rng", "_sequence", "_then", "_when")

    def __init__(
        self,
        sequence: Iterable[Fault | None] = (),
        *,
        then: Fault | None = None,
        rates: Mapping[Fault, float] | Sequence[tuple[Fault, float]] = (),
        rng: random.Random | None = None,
        when: When | None = None,
        otherwise: FaultScript | None = None,
    ) -> None:
        self._sequence = tuple(sequence)
        self._rates = tuple(rates.items()) if isinstance(rates, Mapping) else tuple(rates)
        for fault in (*self._sequence, then, *(fault for fault, _ in self._rates)):
            if fault is not None and not isinstance(fault, Fault):
                raise ValueError(f"FaultScript: {fault!r} is not a Fault")
        _check_rates([rate for _, rate in self._rates])
        if self._rates and (then is not None or rng is None):
            raise ValueError("rates: need rng (a random.Random), and exclude then")
        self._then = then
        self._rng = rng
        self._when = when
        self._otherwise = otherwise
        self._next = 0

    @classmethod
    def random(
        cls,
        seed: int,
        rates: Mapping[Fault, float] | Sequence[tuple[Fault, float]],
        *,
        when: When | None = None,
        otherwise: FaultScript | None = None,
    ) -> FaultScript:
        """Each request meets at most one of ``rates``, with its probability; the same seed gives the same faults."""
        return cls(rates=rates, rng=random.Random(seed), when=when, otherwise=otherwise)

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any]) -> FaultScript:
        """A script from what a TOML or JSON file holds (``remote-core mock-provider --faults FILE``).

        ``prompts`` = [{contains, fault, …, times?}], ``sequence`` = [{fault, …, repeat?} | "none"], ``then`` = {fault, …} or
        ``rates`` = [{fault, …, probability}] with ``seed``. A fault is its name in snake case and its fields; a bare name
        takes their defaults. Raises `ValueError` naming the place, and for an unknown name the nearest known one.
        """
        _check_names("faults file", data, ("prompts", "sequence", "then", "rates", "seed"))
        sequence: list[Fault | None] = []
        for at, entry in enumerate(_tables(data, "sequence")):
            place, table = f"sequence[{at}]", _table(entry, f"sequence[{at}]")
            sequence += [_parse(table, place, ("repeat",))] * _whole(table, "repeat", place)
        rates: list[tuple[Fault, float]] = []
        for at, entry in enumerate(_tables(data, "rates")):
            place, table = f"rates[{at}]", _table(entry, f"rates[{at}]")
            rates.append((_real(_parse(table, place, ("probability",)), place), table.get("probability", math.nan)))
        then = _real(_parse(_table(data["then"], "then"), "then", ()), "then") if "then" in data else None
        rng = random.Random(_whole(data, "seed", "faults file", least=0, default=0)) if rates else None
        script = cls(sequence, then=then, rates=rates, rng=rng)
        for at, entry in reversed(list(enumerate(_tables(data, "prompts")))):
            script = _prompt_rule(_table(entry, f"prompts[{at}]"), f"prompts[{at}]", script)
        return script

    @property
    def remaining(self) -> int:
        """How many entries of the sequence no request has met yet."""
        return len(self._sequence) - self._next

    def pick(self, ask: Ask, *, reused: bool = False) -> Fault | None:
        """The fault for the request that has just arrived, or ``None``.

        reused: whether its connection has carried one before. A fault that needs that waits in the sequence until then.
        """
        if self._matches(ask):
            if self._next < len(self._sequence):
                fault = self._sequence[self._next]
                if fault is not None and fault.needs_reuse and not reused:
                    return None
                self._next += 1
                return fault
            fault = self._then or self._draw()
            if fault is not None and (reused or not fault.needs_reuse):
                return fault
        return None if self._otherwise is None else self._otherwise.pick(ask, reused=reused)

    def _matches(self, ask: Ask) -> bool:
        if isinstance(self._when, str):
            return self._when in ask.prompt
        return self._when is None or self._when(ask)

    def _draw(self) -> Fault | None:
        if self._rng is None:
            return None
        point = self._rng.random()
        for fault, rate in self._rates:
            point -= rate
            if point < 0:
                return fault
        return None


def fault_name(kind: type[Fault]) -> str:
    """The name of a kind in a file: ``SlowFirstByte`` is ``slow_first_byte``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


_KINDS: Final = {fault_name(kind): kind for kind in FAULTS}


def _prompt_rule(table: Mapping[str, Any], place: str, otherwise: FaultScript) -> FaultScript:
    fault = _real(_parse(table, place, ("contains", "times")), place)
    marker = table.get("contains")
    if not isinstance(marker, str) or not marker:
        raise ValueError(f"{place}.contains: {marker!r} is not a non-empty string")
    if "times" in table:
        return FaultScript([fault] * _whole(table, "times", place), when=marker, otherwise=otherwise)
    return FaultScript(then=fault, when=marker, otherwise=otherwise)


def _parse(table: Mapping[str, Any], place: str, beside: tuple[str, ...]) -> Fault | None:
    """The fault a table describes; ``beside`` are the keys that belong to the place and not to the fault."""
    name = table.get("fault")
    if name == "none":
        _check_names(place, table, ("fault", *beside))
        return None
    kind = _KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ValueError(f"{place}.fault: {name!r} is unknown{_nearest(name, (*_KINDS, 'none'))}")
    known = {item.name: item for item in fields(kind)}
    _check_names(place, table, ("fault", *beside, *known))
    for key, item in known.items():
        if key not in table and item.default is item.default_factory is MISSING:
            raise ValueError(f"{place}.{key}: {name} needs it")
    try:
        return kind(**{key: _frozen(key, value) for key, value in table.items() if key in known})
    except ValueError as error:
        raise ValueError(f"{place}.{error}") from None


def _frozen(key: str, value: Any) -> Any:
    """A field as the fault takes it: the table of headers as pairs, arrays as tuples."""
    if key == "headers":
        if not isinstance(value, Mapping):
            raise ValueError(f"headers: {value!r} is not a table")
        return tuple(cast(Mapping[str, Any], value).items())
    return tuple(cast(Sequence[Any], value)) if isinstance(value, list) else value


def _real(fault: Fault | None, place: str) -> Fault:
    if fault is None:
        raise ValueError(f"{place}.fault: 'none' has no meaning here")
    return fault


def _tables(data: Mapping[str, Any], key: str) -> list[Any]:
    value: list[Any] = data.get(key, [])
    if not isinstance(value, list):
        raise ValueError(f"{key}: must be an array of tables")
    return value


def _table(entry: Any, place: str) -> Mapping[str, Any]:
    if isinstance(entry, str):
        return {"fault": entry}
    if not isinstance(entry, Mapping):
        raise ValueError(f"{place}: {entry!r} is neither a table nor the name of a fault")
    return cast(Mapping[str, Any], entry)


def _whole(table: Mapping[str, Any], key: str, place: str, least: int = 1, default: int = 1) -> int:
    value = table.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{place}.{key}: {value!r} is not a whole number of at least {least}")
    return value


def _check_names(place: str, table: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in table:
        if key not in known:
            raise ValueError(f"{place}.{key}: is unknown{_nearest(key, known)}")


def _nearest(name: object, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(str(name), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"


def _check_rates(rates: Sequence[float]) -> None:
    for at, rate in enumerate(rates):
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate <= 1:
            raise ValueError(f"rates[{at}]: {rate!r} is not a probability between 0 and 1")
    if sum(rates) > 1 + 1e-9:
        raise ValueError(f"rates: add up to {sum(rates):g}, more than 1")
