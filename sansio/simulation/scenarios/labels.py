"""What goes wrong in a plan, and what it happens to, in a few words each: for reports and pictures."""

from __future__ import annotations

from typing import assert_never

from ...lane import Circuit, Group
from ..provider.faults import Fault, Status
from ..world.plan import (
    BadNetwork,
    ClockJump,
    Conditions,
    Disturbance,
    DrainNow,
    Faults,
    Operate,
    RotateKey,
    VaultDown,
)

_CONDITIONS = ("latency", "jitter", "refused", "lost", "reset", "reset_within", "stalled", "stall_seconds", "piece_bytes")


def label_of(disturbance: Disturbance) -> str:
    """What goes wrong, and where."""
    match disturbance:
        case Faults():
            rates = (f"{_name(fault)} {100 * rate:.3g}%" for fault, rate in disturbance.rates)
            return f"faults at {disturbance.host}: {', '.join(rates)}"
        case BadNetwork():
            return f"bad network to {disturbance.host}: {_unusual(disturbance.conditions)}"
        case RotateKey():
            return f"another key at {disturbance.host}, in the vault {disturbance.vault_lag:.3f} s later"
        case VaultDown():
            return f"the vault of {disturbance.host} {'is silent' if disturbance.silent else 'fails'}"
        case ClockJump():
            return f"clocks jump: monotonic {disturbance.monotonic:+.3f} s, wall {disturbance.wall:+.3f} s"
        case Operate():
            return f"an operator acts on {disturbance.deployment}: {disturbance.action}"
        case DrainNow():
            return "the engine is drained"
        case _:
            assert_never(disturbance)


def described(disturbance: Disturbance) -> str:
    """What goes wrong, where, and when."""
    begin, end = disturbance.at, disturbance.at + disturbance.seconds
    time = f"at {begin:.3f} s" if begin == end else f"from {begin:.3f} s to {end:.3f} s"
    return f"{time}: {label_of(disturbance)}"


def name_of(shared: Group | Circuit) -> str:
    """A limiter or a circuit, by the deployments that share it."""
    names = ", ".join(lane.deployment.name for lane in shared.lanes)
    return f"{names} (key)" if isinstance(shared, Circuit) and shared.of_key else names


def _name(fault: Fault) -> str:
    """A fault by its kind, a status by its number."""
    return f"Status({fault.code})" if isinstance(fault, Status) else type(fault).__name__


def _unusual(conditions: Conditions) -> str:
    """Where a network differs from a fair one."""
    fair = Conditions()
    values = {name: (getattr(conditions, name), getattr(fair, name)) for name in _CONDITIONS}
    return ", ".join(f"{name} {value:g}" for name, (value, usual) in values.items() if value != usual) or "a fair one"
