"""What holds in a `World` after every fact: who holds leases, how many run and wait, and that nobody is overtaken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine_world_parts import CountingBreaker, CountingLimiter, held_back

from sansio.circuit_breaker import CircuitPermit
from sansio.events import Effect, StartAttempt
from sansio.lane import Lane, RequestState

if TYPE_CHECKING:
    from engine_world import World


def check_leases(world: World) -> None:
    """10 and 24: exactly the running attempts hold something, and they hold all of it."""
    requests = world.engine._registry.requests
    leases = [requests[run.asked.id].lease for run in world.running]
    for group in world.parts.groups:
        grants = [lease.grant for lease in leases if lease is not None and lease.lane.group is group]
        assert isinstance(group.limiter, CountingLimiter)
        assert sorted(group.limiter.held) == sorted(grant.id for grant in grants), "10: permits"
        assert group.limiter._in_flight == len(grants), "24: concurrency"
    for circuit in world.parts.circuits:
        permits: list[CircuitPermit] = []
        for run, lease in zip(world.running, leases, strict=True):
            assert lease is not None
            permit = lease.key_permit if circuit.of_key else lease.permit
            if permit.issuer is circuit.breaker:
                assert not (run.committed and permit.probe)
                permits.append(permit)
        assert isinstance(circuit.breaker, CountingBreaker)
        assert set(circuit.breaker.held) == set(permits), "10, 16: probes"


def check_lane(world: World, lane: Lane) -> None:
    name, serving = lane.deployment.name, lane.deployment.served
    running = sum(1 for run in world.running if run.lane == name)
    assert running == lane.running <= serving.max_concurrent, "6: in flight within the slots"
    new = [r for r in lane.requests.values() if r.state is RequestState.QUEUED and not r.attempts]
    opened = {world.circuits[lane.circuit.index].state, world.circuits[lane.key_circuit.index].state} & {"open"}
    for request in lane.requests.values() if opened else ():
        away = request.state in (RequestState.RUNNING, RequestState.PARKED)
        assert away or world.asked[request.add.request_id].waits, "4.4.5: the impatient fail when it opens"
    bound = serving.queue_capacity * (2 if serving.on_capacity_exhausted == "queue" else 1)
    assert len(new) <= bound, "6: the queue within its bound"


def check_order(world: World, effects: list[Effect]) -> None:
    """7: whoever still waits ranks below everyone that was started now."""
    if world.roster == "ageing":
        return
    started = [world.asked[effect.request_id] for effect in effects if isinstance(effect, StartAttempt)]
    for asked in started:
        lane = world.lanes[asked.lane]
        for other in lane.group.lanes:
            full = other.running >= other.slots(world.latest)
            if other is not lane and (full or held_back(other, world.latest, world.now + world.unix_ahead)):
                continue
            for request in other.requests.values():
                waits = world.asked[request.add.request_id]
                inside = request.state is RequestState.QUEUED and waits.id not in world.outside
                passed = (-waits.priority, waits.order) < (-asked.priority, asked.order)
                assert not (inside and passed), "7: nobody is overtaken"
