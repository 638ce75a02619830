"""The store of a simulated world, and the way there."""

from __future__ import annotations

import pytest

from sansio.cluster.config import ClusterConfig, SharingMode
from sansio.cluster.store import Publish, Published, Quota, StoreLost, StoreReply, Swap, Swapped, Take, Taken
from sansio.deployment import Deployment, RemoteEngineConfig
from sansio.events import AskStore, Event, StoreReport
from sansio.rate_limit import RateLimits
from sansio.secret import Secret
from sansio.simulation.world.clock import VirtualClock, chance
from sansio.simulation.world.plan import LEVELS, CallerPlan, Level
from sansio.simulation.world.shared_store import SharedStore, StoreConditions, StoreWay
from sansio.simulation.world.world import World

NOW = 1_000.0


def publish(member: str, report: bytes = b"r", ttl: float = 10.0) -> Publish:
    return Publish("board", member, report, ttl)


def swap(version: int, document: bytes | None, ttl: float = 10.0) -> Swap:
    return Swap("paper", version, document, ttl)


# ---- what it does -----------------------------------------------------------------------------------------------------


def test_a_board_shows_everybodys_last_report_and_its_age() -> None:
    store = SharedStore()
    assert store.execute(publish("a", b"1"), NOW) == Published({"a": (0.0, b"1")}, NOW)
    assert store.execute(publish("b", b"2"), NOW + 1) == Published({"a": (1.0, b"1"), "b": (0.0, b"2")}, NOW + 1)
    assert store.execute(publish("a", b"3"), NOW + 2) == Published({"b": (1.0, b"2"), "a": (0.0, b"3")}, NOW + 2)
    assert store.executed == 3


def test_an_empty_report_takes_the_members_off() -> None:
    store = SharedStore()
    store.execute(publish("a"), NOW)
    assert store.execute(publish("a", b""), NOW) == Published({}, NOW)


def test_a_report_that_comes_after_a_later_one_changes_nothing() -> None:
    store = SharedStore()
    store.execute(Publish("board", "a", b"later", 10.0, sequence=2), NOW)
    assert store.execute(Publish("board", "a", b"earlier", 10.0, sequence=1), NOW) == Published({"a": (0.0, b"later")}, NOW)


def test_a_report_leaves_when_its_time_is_over() -> None:
    store = SharedStore()
    store.execute(publish("a", ttl=10.0), NOW)
    assert store.execute(publish("b", b""), NOW + 9.5) == Published({"a": (9.5, b"r")}, NOW + 9.5)
    assert store.execute(publish("b", b""), NOW + 10.0) == Published({}, NOW + 10.0)


def test_a_report_of_a_time_that_is_not_yet_grows_old_from_now_on() -> None:
    store = SharedStore()
    store.execute(publish("a", ttl=10.0), NOW)
    store.ahead = -100.0
    assert store.execute(publish("b", b""), NOW) == Published({"a": (0.0, b"r")}, NOW - 100.0)
    assert store.execute(publish("b", b""), NOW + 10.0) == Published({}, NOW - 90.0)


def test_boards_and_documents_are_kept_apart_by_key() -> None:
    store = SharedStore()
    store.execute(publish("a"), NOW)
    assert store.execute(Publish("other", "a", b"", 1.0), NOW) == Published({}, NOW)
    store.execute(swap(0, b"1"), NOW)
    assert store.execute(Swap("other", 0, None, 1.0), NOW) == Swapped(False, 0, b"", NOW)


def test_a_document_is_replaced_by_who_knows_its_version() -> None:
    store = SharedStore()
    assert store.execute(swap(1, b"1"), NOW) == Swapped(False, 0, b"", NOW)
    assert store.execute(swap(0, b"1"), NOW) == Swapped(True, 1, b"1", NOW)
    assert store.execute(swap(0, b"2"), NOW) == Swapped(False, 1, b"1", NOW)
    assert store.execute(swap(1, b"2"), NOW) == Swapped(True, 2, b"2", NOW)
    assert store.execute(swap(2, None), NOW) == Swapped(False, 2, b"2", NOW)


def test_a_document_is_forgotten_when_nobody_replaces_it() -> None:
    store = SharedStore()
    store.execute(swap(0, b"1", ttl=10.0), NOW)
    store.execute(swap(1, b"2", ttl=10.0), NOW + 9)
    assert store.execute(swap(0, None), NOW + 18.5) == Swapped(False, 2, b"2", NOW + 18.5)
    assert store.execute(swap(2, b"3"), NOW + 19) == Swapped(False, 0, b"", NOW + 19)


def test_a_ledger_charges_what_fits() -> None:
    store = SharedStore(ahead=2.0)
    quotas = (Quota("tokens_per_minute", 10, 5.0),)

    def take(number: int) -> Taken:
        reply = store.execute(Take("ledger", "a", quotas, ((6,),), number=number), NOW)
        assert isinstance(reply, Taken)
        return reply

    assert (take(1).granted, take(2).granted) == (1, 0)
    assert take(3).levels == (6,)
    assert take(4).unix_now == NOW + 2.0


def test_a_replica_takes_over_with_what_it_has_heard_of() -> None:
    store = SharedStore()
    store.execute(swap(0, b"1"), NOW)
    store.execute(publish("a"), NOW)
    store.fall_behind()
    store.execute(swap(1, b"2"), NOW)
    store.fall_behind()  # it is behind already
    store.execute(publish("b"), NOW)
    store.fail_over(ahead=5.0)
    assert store.execute(swap(0, None), NOW) == Swapped(False, 1, b"1", NOW + 5.0)
    assert store.execute(publish("c", b""), NOW) == Published({"a": (5.0, b"r")}, NOW + 5.0)
    store.execute(swap(1, b"3"), NOW)
    store.fail_over()  # to one that has heard of everything
    assert store.execute(swap(0, None), NOW) == Swapped(False, 2, b"3", NOW)


def test_one_that_is_split_goes_two_ways() -> None:
    store = SharedStore(ahead=1.0)
    store.execute(swap(0, b"1"), NOW)
    other = store.split()
    other.execute(swap(1, b"2"), NOW)
    assert store.execute(swap(0, None), NOW) == Swapped(False, 1, b"1", NOW + 1)
    assert other.execute(swap(0, None), NOW) == Swapped(False, 2, b"2", NOW + 1)


# ---- the way there ----------------------------------------------------------------------------------------------------


class Asker:
    """Somebody with a way to a store, and the answers with their times."""

    def __init__(self, conditions: StoreConditions | None = None, seed: int = 0, timeout: float = 1.0) -> None:
        self.clock = VirtualClock(unix_start=NOW)
        self.store = SharedStore()
        self.way = StoreWay(self.clock, self.store, chance(seed, "way"), timeout=timeout, conditions=conditions)
        self.heard: list[tuple[float, StoreReply]] = []

    def ask(self, request: Publish | Swap | None = None) -> None:
        self.way.ask(request or publish("a"), lambda reply: self.heard.append((self.clock.now, reply)))

    def standing(self) -> bytes:
        """What is on the board under the name of a."""
        board = self.store.execute(publish("b", b""), self.clock.unix_now)
        assert isinstance(board, Published)
        return board.reports["a"][1]


def test_an_answer_takes_the_time_of_both_ways() -> None:
    asker = Asker(StoreConditions(latency=0.1, jitter=0.0))
    asker.ask()
    asker.clock.advance(10.0)
    assert asker.heard == [(0.2, Published({"a": (0.0, b"r")}, NOW + 0.1))]


def test_jitter_is_drawn_for_each_way() -> None:
    asker = Asker(StoreConditions(latency=0.1, jitter=0.1))
    for _ in range(50):
        asker.ask()
    asker.clock.advance(1.0)
    times = [at for at, _ in asker.heard]
    assert len(set(times)) == 50 and all(0.2 <= at <= 0.4 for at in times)


@pytest.mark.parametrize(
    ("conditions", "done"),
    [
        (StoreConditions(question_lost=1.0), 0),
        (StoreConditions(answer_lost=1.0), 1),
        (StoreConditions(latency=0.4, jitter=0.0, late=1.0, latest=1e6), 1),
        (StoreConditions(latency=0.6, jitter=0.0), 1),
    ],
    ids=["question lost", "answer lost", "late", "slow"],
)
def test_who_hears_nothing_in_time_has_lost_the_store_once(conditions: StoreConditions, done: int) -> None:
    asker = Asker(conditions)
    asker.ask()
    asker.clock.advance(0.99)
    assert asker.heard == []
    asker.clock.advance(2e6)
    assert asker.heard == [(1.0, StoreLost("no answer in time"))]
    assert asker.store.executed == done


def test_a_doubled_question_is_answered_once_and_done_twice() -> None:
    asker = Asker(StoreConditions(doubled=1.0, latest=0.5))
    asker.ask()
    asker.clock.advance(10.0)
    assert len(asker.heard) == 1 and asker.store.executed == 2


def test_a_report_that_is_older_than_the_one_that_stands_changes_nothing() -> None:
    store = SharedStore()
    store.execute(Publish("board", "a", b"new", 10.0, sequence=2), NOW)
    for late in (b"old", b""):
        reply = store.execute(Publish("board", "a", late, 10.0, sequence=1), NOW + 1)
        assert reply == Published({"a": (1.0, b"new")}, NOW + 1)
    reply = store.execute(Publish("board", "a", b"again", 10.0, sequence=2), NOW + 2)
    assert reply == Published({"a": (0.0, b"again")}, NOW + 2)


def test_a_late_question_is_overtaken_by_the_next() -> None:
    asker = Asker(StoreConditions(late=1.0, latest=1e3))
    asker.ask(publish("a", b"old", 1e6))
    asker.clock.advance(1.0)
    asker.way.mend()
    asker.ask(publish("a", b"new", 1e6))
    asker.clock.advance(1.0)
    assert asker.standing() == b"new"
    asker.clock.advance(1e4)
    assert asker.standing() == b"old"


@pytest.mark.parametrize(("cut_at", "done"), [(0.0, 0), (0.1, 0), (0.3, 1)])
def test_nothing_comes_through_where_it_is_cut(cut_at: float, done: int) -> None:
    asker = Asker(StoreConditions(latency=0.2, jitter=0.0))
    asker.ask()
    asker.clock.advance(cut_at)
    asker.way.cut = True
    asker.clock.advance(10.0)
    assert asker.heard == [(1.0, StoreLost("no answer in time"))]
    assert asker.store.executed == done
    asker.way.mend()
    asker.ask()
    asker.clock.advance(10.0)
    assert isinstance(asker.heard[-1][1], Published)


def test_a_store_that_is_gone_refuses_or_is_silent() -> None:
    reasons: set[str] = set()
    for seed in range(20):
        asker = Asker(seed=seed)
        asker.store.gone = True
        asker.ask()
        asker.clock.advance(10.0)
        assert len(asker.heard) == 1 and asker.store.executed == 0
        reply = asker.heard[0][1]
        assert isinstance(reply, StoreLost)
        reasons.add(reply.reason)
    assert reasons == {"no answer in time", "the connection is refused"}


def test_a_question_goes_to_the_store_it_was_sent_to() -> None:
    asker = Asker()
    first, asker.way.store = asker.store, SharedStore()
    asker.ask()
    asker.clock.advance(1.0)
    assert (first.executed, asker.way.store.executed) == (0, 1)


@pytest.mark.parametrize("field", ["latency", "jitter", "latest", "question_lost", "answer_lost", "late", "doubled"])
def test_conditions_name_the_field_that_is_out_of_range(field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}:"):
        StoreConditions(**{field: -0.1})


def test_the_same_seed_gives_the_same_weather() -> None:
    conditions = StoreConditions(0.01, 0.05, 0.2, 0.2, 0.2, 0.2)

    def run(seed: int) -> list[tuple[float, StoreReply]]:
        asker = Asker(conditions, seed)
        for _ in range(100):
            asker.ask()
            asker.clock.advance(0.1)
        return asker.heard

    assert run(1) == run(1) != run(2)


# ---- in a world -------------------------------------------------------------------------------------------------------


def deployment(limits: RateLimits | None = None) -> Deployment:
    runtime = {"endpoint": "http://host/v1", "api_key": Secret.inline("k"), "rate_limits": limits or RateLimits()}
    return Deployment(name="d", model="m", runtime="openai", runtime_config=runtime)


def test_a_world_whose_processes_share_has_a_store_with_a_way_for_each() -> None:
    world = World(RemoteEngineConfig((deployment(),), cluster="redis://store"))
    assert world.store is not None
    assert world.node.store is world.store_way("node")
    assert world.store_way("other") is world.store_way("other") is not world.store_way("node")
    heard: list[StoreReply] = []
    way, answer = world.store_way("other"), heard.append
    way.ask(publish("a"), answer)
    way.cut = world.store.gone = True
    world.run(5.0)
    world.heal()
    way.ask(publish("a"), answer)
    world.run(5.0)
    assert [type(each) for each in heard] == [StoreLost, Published]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("mode", "strict"), [("escrow", False), ("approximate", False), ("approximate", True)])
def test_an_engine_in_a_world_grants_what_it_has_of_a_shared_limit(level: Level, mode: str, strict: bool) -> None:
    limits = RateLimits(requests_per_minute=10, window=4.0, strict=strict)
    cluster = ClusterConfig("redis://store", mode=SharingMode(mode))
    world = World(RemoteEngineConfig((deployment(limits),), cluster=cluster), level=level)
    assert world.store is not None
    world.store.gone = True
    for number in range(15):
        world.call(CallerPlan(number, 0.0, "d", f"prompt {number}"))
    world.run(8.0)
    assert len(world.node.calls) == 15
    world.store.gone = False
    world.run(4.0)
    assert len(world.node.calls) == 5
    world.run()
    asked = world.store.executed
    world.node.close()
    world.run(1.0)
    assert asked > 3 and world.store.executed == asked + 1  # it says farewell


@pytest.mark.parametrize("level", LEVELS)
def test_an_engine_that_has_no_way_to_a_store_is_told_that_it_is_lost(level: Level, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(
        RemoteEngineConfig((deployment(RateLimits(requests_per_minute=10)),), cluster="redis://store"), level=level
    )
    world.node.store = None
    told: list[Event] = []
    tell = world.node.tell
    monkeypatch.setattr(world.node, "tell", lambda event: (told.append(event), tell(event)))
    world.call(CallerPlan(0, 0.0, "d", "prompt"))
    world.run(8.0)
    replies = [event.reply for event in told if isinstance(event, StoreReport)]
    assert len(replies) > 1 and set(replies) == {StoreLost("this world has no store")}
    assert len(world.node.calls) == 1


def test_a_world_of_one_process_has_none() -> None:
    world = World(deployment())
    assert world.store is None and world.node.store is None
    with pytest.raises(ValueError, match="cluster"):
        world.store_way("node")


def test_who_asks_a_store_that_is_not_there_has_lost_it() -> None:
    world = World(deployment())
    told: list[object] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(world.node), "tell", lambda _, event: told.append(event))
        world.node.ask_store(AskStore(1, 2, publish("a")))
        assert told == []
        world.run(1.0)
    assert told == [StoreReport(1, 2, StoreLost("this world has no store"))]


def test_every_way_has_the_time_limit_of_the_configuration() -> None:
    cluster = {"url": "redis://store", "store_timeout": 3.0}
    world = World(RemoteEngineConfig((deployment(),), cluster=cluster))
    way = world.store_way("other")
    way.cut = True
    heard: list[float] = []
    way.ask(publish("a"), lambda reply: heard.append(world.clock.now))
    world.run(10.0)
    assert heard == [3.0]
