"""The judge's limits: quiet beside an engine that is right, and one number for each way in which it may be wrong."""

from __future__ import annotations

import math
from typing import Any

import pytest
from engine_harness import OPEN_ENDED, deployment
from judge_models_rig import JudgedRig, breaks, judged_walk

from sansio import errors
from sansio.batch import TokenEstimate, TokenUsage
from sansio.budget import OutputPercentile
from sansio.engine import RemoteEngineCore
from sansio.events import AddRequest, AttemptEnded
from sansio.lane import Lane, Lease
from sansio.rate_limit import RateLimiter, Wait
from sansio.secret import Credential
from sansio.simulation.judge.limit_model import LimitModel
from sansio.sliding_ledger import SlidingLedger

Patch = pytest.MonkeyPatch
LIMITS = {"requests_per_minute": 5, "tokens_per_minute": 200, "input_tokens_per_minute": 150, "concurrent_requests": 3}


def rig(*others: Any, serving: dict[str, Any] | None = None, **limits: Any) -> JudgedRig:
    """One deployment, whose requests are not retried; and others, as given."""
    retry = {"max_retries": 0}
    return JudgedRig(LimitModel, deployment(limits=LIMITS | limits, retry=retry, serving=serving), *others)


def run(world: JudgedRig, request_id: int, **rest: Any) -> None:
    world.submit(request_id)
    world.send(request_id)
    world.end(request_id, **rest)


# ---- an engine that is right ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("roster", ["alone", "limited", "mixed", "spending", "ageing"])
def test_it_is_quiet_in_random_worlds(monkeypatch: Patch, roster: str, seed: int) -> None:
    judged_walk(monkeypatch, LimitModel, roster, seed)


def test_a_window_that_fills_and_empties() -> None:
    world = rig()
    for request_id in range(1, 13):
        world.submit(request_id)
    while world.engine.metrics().in_flight:
        for request_id in [known for known, request in world.core.registry.requests.items() if request.lease is not None]:
            world.send(request_id)
            world.now += 0.02
            world.end(request_id)
        if not world.engine.metrics().in_flight and world.engine.metrics().queued:
            world.tick_at_deadline()
    world.healed()


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        (TokenUsage(30, 10), 40),
        (TokenUsage(1, 1), 2),
        (None, 20),
        (TokenUsage(30, 1, provenance="lower_bound"), 40),
        (TokenUsage(1, 1, provenance="unknown"), 20),
        (TokenUsage(-1, 7), 7),
    ],
)
def test_what_was_really_used(usage: TokenUsage | None, counted: int) -> None:
    world = rig()
    run(world, 1, usage=usage)
    level = world.engine.limiter_snapshot(world.now).tokens
    assert level is not None and level.used == counted
    world.healed()


def test_what_was_never_sent_is_given_back() -> None:
    world = rig()
    for request_id in range(1, 30):
        world.submit(request_id)
        world.end(request_id, errors.BadRequest(), sent=False)
    for request_id in range(30, 60):
        world.submit(request_id)
        world.cancel(request_id)
        world.cancel(request_id)
        world.tell(AttemptEnded(request_id, request_id, errors.NetworkError(), None, False))
    world.healed()


def test_what_was_sent_and_called_off_stays_charged_until_its_report() -> None:
    world = rig()
    world.submit(1)
    world.send(1)
    world.cancel(1)
    late = AttemptEnded(1, 1, errors.NetworkError(), TokenUsage(1, 1), True)
    world.tell(late)
    world.tell(late)
    level = world.engine.limiter_snapshot(world.now).tokens
    assert level is not None and level.used == 2


@pytest.mark.parametrize("seconds", [60.52, 70.0])
def test_usage_that_comes_when_nobody_counts_it_any_more(seconds: float) -> None:
    world = rig()
    world.submit(1)
    world.send(1)
    world.now += seconds
    if seconds == 70.0:
        world.submit(2)
    world.end(1, usage=TokenUsage(50, 40))
    world.submit(3)
    world.end(3)


def test_charges_that_leave_together_may_be_held_a_little_longer() -> None:
    world = rig()
    world.submit(1)
    world.now += 0.05
    world.submit(2)
    world.now += 60.47
    world.end(1)
    level = world.engine.limiter_snapshot(world.now).requests
    assert level is not None and level.used == 2


def test_a_late_report_of_what_was_not_sent_after_all_keeps_the_charge() -> None:
    world = rig()
    world.submit(1)
    world.send(1)
    world.cancel(1)
    world.tell(AttemptEnded(1, 1, errors.NetworkError(), TokenUsage(1, 1), False))
    run(world, 2)
    level = world.engine.limiter_snapshot(world.now).tokens
    assert level is not None and level.used == 40


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_429_pauses_everybody(wrapped: bool) -> None:
    world = rig()
    world.submit(1)
    world.commit(1) if wrapped else world.send(1)
    world.end(1, errors.RateLimited(retry_after=5.0))
    world.submit(2)
    world.tick(4.9)
    assert world.starts() == []
    world.tick(0.1)
    assert world.starts() == [2]


@pytest.mark.parametrize("hint", [None, 0.0, math.inf])
def test_a_429_without_a_hint_pauses_nobody(hint: float | None) -> None:
    world = rig()
    run(world, 1, error=errors.RateLimited(retry_after=hint))
    world.submit(2)
    assert world.starts() == [2]


def test_a_hint_that_is_not_to_be_respected() -> None:
    world = JudgedRig(LimitModel, deployment(retry={"respect_retry_after": False, "max_retries": 0}))
    run(world, 1, error=errors.RateLimited(retry_after=5.0))
    world.submit(2)
    assert world.starts() == [2]


def test_what_headers_say_counts_as_well() -> None:
    world = rig()
    world.submit(1)
    said = ("x-ratelimit-remaining-requests", "0")
    world.head(1, said, ("x-ratelimit-reset-requests", "7s"), ("x-ratelimit-limit-tokens", "9"))
    world.submit(2)
    world.end(1)
    assert world.starts() == []
    world.tick_at_deadline()
    assert world.starts() == [2]
    world.head(2, said)
    world.end(2)


def test_no_more_at_once_than_the_burst() -> None:
    world = rig(burst=2, requests_per_minute=60, tokens_per_minute=None)
    for request_id in range(1, 5):
        world.submit(request_id)
        if request_id < 3:
            world.end(request_id, errors.NetworkError(), sent=False)
    world.submit(5)
    world.end(3)
    world.tick(2.0)
    assert world.starts() == [5]


def test_close_calls_everything_off() -> None:
    world = rig()
    world.submit(1)
    world.submit(2)
    world.send(2)
    world.close()
    world.tick()
    world.healed()


def test_who_waits_for_something_else_does_not_wait_in_vain() -> None:
    """Other lanes of the limiter: entries age, a circuit is open, a credential is refused or has expired."""
    one = deployment("one", key="sk-two", serving={"on_circuit_open": "wait"}, retry={"max_retries": 0})
    world = rig(one, deployment("aged", key="sk-three", serving={"age_after": 1.0, "max_concurrent": 1}))
    for request_id, name in ((1, "one"), (2, "aged"), (3, "aged")):
        world.submit(request_id, name)
    world.override("open", 5.0, "one")
    world.submit(4, "one")
    world.override("close", None, "one")
    world.end(4)
    world.end(1, errors.Unauthorized())
    world.submit(5, "one")
    world.refresh(errors.NetworkError())
    world.submit(6, "one")
    world.tick_at_deadline()
    world.refresh(Credential("sk-9", world.now + world.unix_ahead + 50.0))
    assert world.starts() == [6]
    world.now += 51.0
    world.submit(7, "one")
    assert world.starts() == []
    world.now -= 60.0
    world.refresh()
    assert 7 in world.started


@pytest.mark.parametrize("by_the_wall_clock", [False, True])
def test_who_waits_for_a_credential_that_expired_does_not_wait_in_vain(by_the_wall_clock: bool) -> None:
    world = JudgedRig(LimitModel, deployment(limits=LIMITS), refreshed=False)
    world.submit(1)
    world.refresh(Credential("sk-1", world.now + world.unix_ahead + 50.0))
    assert world.starts() == [1]
    world.now += 0.0 if by_the_wall_clock else 55.0
    world.unix_ahead += 55.0 if by_the_wall_clock else -55.0
    world.submit(2)
    assert world.starts() == []


def test_where_entries_age_nobody_looks_who_is_first(monkeypatch: Patch) -> None:
    world = rig(serving={"age_after": 1.0})
    world.submit(1)
    monkeypatch.setattr(RateLimiter, "reserve", lambda self, *costs: Wait(costs[-1] + 60.0))
    world.submit(2)


def test_the_best_head_speaks_for_all() -> None:
    """Behind a large one that does not fit, a small one of another lane that does waits its turn."""
    world = rig(deployment("other", limits=LIMITS))
    world.submit(1, tokens=(100, 1))
    world.submit(2, tokens=(100, 1))
    world.submit(3, "other", tokens=(1, 1))
    assert world.starts() == []
    world.end(1, usage=TokenUsage(1, 1))
    assert world.starts() == [2, 3]


def test_it_has_to_be_there_from_the_first_fact_on() -> None:
    world = rig()
    world.tick()
    with pytest.raises(ValueError, match="has been told 1 facts already"):
        LimitModel(world.core)


# ---- engines that are not ---------------------------------------------------------------------------------------------


def test_a_429_that_pauses_only_its_own_request(monkeypatch: Patch) -> None:
    monkeypatch.setattr(RateLimiter, "observe_throttled", lambda self, hint, now: None)
    world = rig()
    run(world, 1, error=errors.RateLimited(retry_after=5.0))
    with breaks(12, "request 2 was started while a 429 pauses limiter 0: the bucket is paused"):
        world.submit(2)


def test_more_at_a_time_than_concurrent_requests() -> None:
    world = rig()
    world.core.roster.groups[0].limiter._concurrent = math.inf
    for request_id in range(1, 4):
        world.submit(request_id)
    with breaks(8, "4 attempts at once, and concurrent_requests=3"):
        world.submit(4)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"requests_per_minute": 1}, "2 in a window of requests_per_minute=1"),
        ({"tokens_per_minute": 30}, "40 in a window of tokens_per_minute=30"),
        ({"input_tokens_per_minute": 15}, "20 in a window of input_tokens_per_minute=15"),
        ({"output_tokens_per_minute": 15}, "20 in a window of output_tokens_per_minute=15"),
        ({"burst": 1}, "more at once than burst=1"),
    ],
)
def test_a_window_that_holds_more_than_the_limit(monkeypatch: Patch, limits: dict[str, int], words: str) -> None:
    monkeypatch.setattr(SlidingLedger, "earliest", lambda self, amount, now, limit=None: now)
    world = rig(**limits)
    world.submit(1)
    with breaks(8, words):
        world.submit(2)


def test_a_window_that_is_too_short(monkeypatch: Patch) -> None:
    right = SlidingLedger.__init__
    monkeypatch.setattr(SlidingLedger, "__init__", lambda self, limit, window, guard=0.0: right(self, limit, window, 0.0))
    world = rig(requests_per_minute=1)
    run(world, 1)
    world.now += 60.2
    with breaks(8, "2 in a window of requests_per_minute=1"):
        world.submit(2)


def test_a_permit_that_is_never_taken(monkeypatch: Patch) -> None:
    monkeypatch.setattr(SlidingLedger, "charge", _uncharged)
    with breaks(8, "limiter 0 counts 0, where its window holds 1"):
        rig().submit(1)


def _uncharged(self: SlidingLedger, amount: int, now: float) -> Any:
    charge = _CHARGE(self, amount, now)
    self.edit(charge, 0, now)
    return charge


_CHARGE = SlidingLedger.charge


def test_unknown_usage_treated_as_zero(monkeypatch: Patch) -> None:
    right = Lease.account

    def wrong(self: Lease, usage: TokenUsage | None, now: float, *, refused: bool = False) -> None:
        right(self, usage or TokenUsage(), now, refused=refused)

    monkeypatch.setattr(Lease, "account", wrong)
    with breaks(8, "limiter 0 counts 0, where its window holds 20"):
        run(rig(), 1, usage=None)


def test_what_was_sent_given_back(monkeypatch: Patch) -> None:
    right = RateLimiter.cancel
    monkeypatch.setattr(RateLimiter, "cancel", lambda self, permit, sent, now: right(self, permit, False, now))
    world = rig()
    world.submit(1)
    world.send(1)
    with breaks(8, "limiter 0 counts 0, where its window holds 1"):
        world.cancel(1)


def test_what_was_not_sent_kept(monkeypatch: Patch) -> None:
    right = RateLimiter.cancel
    monkeypatch.setattr(RateLimiter, "cancel", lambda self, permit, sent, now: right(self, permit, True, now))
    world = rig()
    world.submit(1)
    with breaks(10, "limiter 0 counts 1, where 0 were charged"):
        world.end(1, errors.NetworkError(), sent=False)
    world = rig()
    world.submit(1)
    with breaks(24, "limiter 0 counts 1, where 0 were charged"):
        world.cancel(1)


def test_a_place_in_flight_that_does_not_come_back(monkeypatch: Patch) -> None:
    right = RateLimiter._close

    def wrong(self: RateLimiter, permit: Any, now: float) -> bool:
        self._in_flight += 1
        return right(self, permit, now)

    monkeypatch.setattr(RateLimiter, "_close", wrong)
    with breaks(10, "limiter 0 counts 1 of 0 in flight"):
        run(rig(), 1)
    world = rig()
    world.submit(1)
    with breaks(24, "limiter 0 counts 1 of 0 in flight"):
        world.cancel(1)


def test_an_idle_signal_credited_to_the_wrong_slot(monkeypatch: Patch) -> None:
    right = RemoteEngineCore._let_go

    def wrong(self: RemoteEngineCore, request: Any) -> None:
        right(self, request)
        request.lane.running += 1
        self._lanes[1 - request.lane.index].running -= 1

    monkeypatch.setattr(RemoteEngineCore, "_let_go", wrong)
    world = rig(deployment("other", model="gpt-4o-mini"))
    world.submit(1)
    with breaks(10, "lane 0 has 1 slots taken, and 0 attempts run"):
        world.end(1)
    world = rig(deployment("other", model="gpt-4o-mini"))
    world.submit(1)
    with breaks(24, "lane 0 has 1 slots taken, and 0 attempts run"):
        world.cancel(1)


def test_a_lease_settled_twice(monkeypatch: Patch) -> None:
    right = Lease.end

    def wrong(self: Lease, *args: Any, **options: Any) -> None:
        right(self, *args, **options)
        self.ended = self.accounted = False
        right(self, *args, **options)

    monkeypatch.setattr(Lease, "end", wrong)
    with breaks(10, "permit 1 was settled, and nobody holds it"):
        run(rig(), 1)


def test_a_lease_cancelled_twice(monkeypatch: Patch) -> None:
    right = Lease.cancel

    def wrong(self: Lease, sent: bool, now: float) -> None:
        right(self, sent, now)
        self.ended = False
        right(self, sent, now)

    monkeypatch.setattr(Lease, "cancel", wrong)
    world = rig()
    world.submit(1)
    with breaks(10, "permit 1 was cancelled, and nobody holds it"):
        world.cancel(1)


def test_late_usage_heard_twice(monkeypatch: Patch) -> None:
    right = Lease.account

    def wrong(self: Lease, usage: TokenUsage | None, now: float, *, refused: bool = False) -> None:
        right(self, usage, now, refused=refused)
        self.accounted = False
        right(self, usage, now, refused=refused)

    world = rig()
    world.submit(1)
    world.send(1)
    world.cancel(1)
    monkeypatch.setattr(Lease, "account", wrong)
    with breaks(10, "late usage of permit 1 was heard, and none is owed"):
        world.tell(AttemptEnded(1, 1, errors.NetworkError(), None, True))


def test_somebody_who_waits_in_vain(monkeypatch: Patch) -> None:
    world = rig()
    world.submit(1)
    monkeypatch.setattr(RateLimiter, "reserve", lambda self, *costs: Wait(costs[-1] + 60.0))
    with breaks(9, "request 2 waits, and lacks nothing"):
        world.submit(2)


def test_a_rate_that_never_recovers(monkeypatch: Patch) -> None:
    world = rig(requests_per_minute=4)
    run(world, 1, error=errors.RateLimited(retry_after=5.0))
    throttling = world.core.roster.groups[0].limiter._throttling
    throttling._step, throttling.lowered_until = 1e9, 1e12
    world.now += 274.0
    for request_id in (2, 3, 4):
        world.submit(request_id)
    assert 4 not in world.started
    world.now += 2.0
    with breaks(9, "request 4 waits, and lacks nothing"):
        world.tick()


def test_a_request_that_reserves_less_than_its_own_limit(monkeypatch: Patch) -> None:
    monkeypatch.setattr(Lane, "estimate", lambda self, add: TokenEstimate(add.estimate.input_tokens, 0))
    with breaks(8, "limiter 0 counts 10, where its window holds 20"):
        rig().submit(1)
    with breaks(8, "limiter 0 counts 10, where its window holds 20"):
        rig().tell(AddRequest(1, "chat", OPEN_ENDED, TokenEstimate(10, 10, output_is_limit=True)))


@pytest.mark.parametrize(("reserved", "number"), [(29, 8), (30, 0), (31, 10)])
def test_a_request_without_a_limit_reserves_what_nearly_all_answers_have_used(
    monkeypatch: Patch, reserved: int, number: int
) -> None:
    world = JudgedRig(LimitModel, deployment(limits={"tokens_per_minute": 100_000}))
    for request_id in range(1, 21):
        run(world, request_id, usage=TokenUsage(10, 31 if request_id == 7 else 30))
    monkeypatch.setattr(OutputPercentile, "value", lambda self: reserved)
    if number == 0:
        world.submit(21, batch=OPEN_ENDED)
        return
    with breaks(number, f"limiter 0 counts {811 + reserved}"):
        world.submit(21, batch=OPEN_ENDED)


def test_the_first_answers_tell_nothing_about_long_ones(monkeypatch: Patch) -> None:
    world = JudgedRig(LimitModel, deployment(limits={"tokens_per_minute": 100_000}))
    for request_id in range(1, 20):
        run(world, request_id, usage=TokenUsage(10, 30))
    monkeypatch.setattr(OutputPercentile, "value", lambda self: 30)
    with breaks(8, "limiter 0 counts 800, where its window holds 1794"):
        world.submit(20, batch=OPEN_ENDED)


def test_what_nearly_all_answers_have_used_is_of_the_last_ones(monkeypatch: Patch) -> None:
    """Longer ones are forgotten after 512 others; and one answer longer than 1024 counts at once."""
    world = JudgedRig(LimitModel, deployment(limits={"tokens_per_minute": 10_000_000}))
    run(world, 1, usage=TokenUsage(10, 3000))
    world.submit(2, batch=OPEN_ENDED)
    level = world.engine.limiter_snapshot(world.now).tokens
    assert level is not None and level.used == 3010 + 3010
    world.end(2, usage=TokenUsage(10, 3000))
    for request_id in range(3, 530):
        run(world, request_id, usage=TokenUsage(10, 30))
    monkeypatch.setattr(OutputPercentile, "value", lambda self: 3000)
    with breaks(10, "limiter 0 counts "):
        world.submit(530, batch=OPEN_ENDED)


@pytest.mark.parametrize(
    ("limits", "output"),
    [
        ({"tokens_per_minute": 500}, 490),
        ({"output_tokens_per_minute": 400}, 400),
        ({"tokens_per_minute": 300, "output_tokens_per_minute": 400}, 290),
        ({"tokens_per_minute": 10}, 0),
    ],
)
def test_never_more_is_reserved_than_the_limiter_could_grant(
    monkeypatch: Patch, limits: dict[str, int], output: int
) -> None:
    world = JudgedRig(LimitModel, deployment(limits=limits))
    world.submit(1, batch=OPEN_ENDED)
    lease = world.core.registry.requests[1].lease
    assert lease is not None and lease.grant.output_tokens == output
    monkeypatch.setattr(OutputPercentile, "value", lambda self: 200)
    if output > 200:
        with breaks(8, "limiter 0 counts 2"):
            JudgedRig(LimitModel, deployment(limits=limits)).submit(1, batch=OPEN_ENDED)


def test_something_still_in_flight_at_the_end() -> None:
    world = rig()
    world.submit(1)
    with breaks(17, "1 attempts are under way, 1 by limiter 0"):
        world.healed()
