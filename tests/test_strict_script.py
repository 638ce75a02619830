"""The script, on a real server, against `StrictLedger`: any questions at any times are answered alike."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from valkey_server import ValkeyServer, valkey_server

from sansio.cluster.store import Correction, Quota, StoreLost, Take, Taken
from sansio.cluster.strict_ledger import MOST, MOST_FORGOTTEN, MOST_HEADS, StrictLedger, terms_of
from sansio.cluster.strict_script import SCRIPT, arguments_of, keys_of, taken_of

CLOCK = "redis.call('TIME')"
TOLD = SCRIPT.replace(CLOCK, "{ARGV[2], ARGV[3]}")
"""The script with its only clock replaced by one that the test tells it."""

EPOCH = 1_800_000_000_000_000
"""Microseconds."""

STEPS = [0, 1, 1000, 10_000, 100_000, 400_000, 1_000_000, 3_000_000, 70_000_000, -5_000_000]
"""Microseconds."""

_names = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    with valkey_server() as running:
        yield running


@pytest.fixture(scope="module")
def client(server: ValkeyServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url) as connected:
        yield connected


@pytest.fixture(scope="module")
def told(client: redis.Redis) -> Callable[[Take, int], Taken | StoreLost]:
    """Puts a question to the script at an instant."""
    script = client.register_script(TOLD)

    def take(request: Take, at: int) -> Taken | StoreLost:
        return taken_of(request, script(keys_of(request), [*arguments_of(request), *divmod(at, 1_000_000)]))

    return take


def test_the_script_reads_one_clock_which_is_the_servers() -> None:
    assert SCRIPT.count(CLOCK) == 1 and "ARGV[2]" not in SCRIPT


# ---- any questions ----------------------------------------------------------------------------------------------------

QUOTAS = [
    (Quota("requests_per_minute", 4, 1.0),),
    (Quota("requests_per_minute", 5, 2.5), Quota("tokens_per_minute", 30, 2.5)),
    (Quota("tokens_per_minute", 20, 1.0), Quota("burst", 2, 0.01), Quota("concurrent_requests", 4, 0.0)),
    (Quota("concurrent_requests", 3, 0.0),),
    (Quota("tokens_per_minute", MOST, 60.5),),
]


class Questions:
    """Draws what members ask: mostly what they would, sometimes again, late, or from a memory of another ledger."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.quotas = rng.choice(QUOTAS)
        self.steps = rng.choice([STEPS, STEPS[:5]])
        self.forgetful = rng.choice([0.0, 0.0, 0.05])
        self.key = f"ledger-{next(_names)}"
        self.at = EPOCH + rng.randrange(10**9)
        self.members = [f"member-{index}" for index in range(rng.randint(1, 4))]
        self.numbers = dict.fromkeys(self.members, 0)
        self.told: dict[str, tuple[int, int]] = dict.fromkeys(self.members, (0, 0))
        self.heard_until = dict.fromkeys(self.members, 0)
        self.slots = [self.at]
        self.asked: list[Take] = []

    def next(self) -> tuple[Take, int]:
        rng = self.rng
        self.at += rng.choice(self.steps)
        if self.asked and rng.random() < 0.1:
            return rng.choice(self.asked), self.at
        member = rng.choice(self.members)
        self.numbers[member] += rng.choice([1, 1, 1, 1, 2])
        answered, known = self.told[member] if self.at < self.heard_until[member] or rng.random() < 0.02 else (0, 0)
        if rng.random() < self.forgetful:
            known = max(0, known + rng.choice([-3, 3, 1 << 32, 1 << 53]))
        quotas = tuple(self._lowered(quota) for quota in self.quotas)
        request = Take(
            self.key,
            member,
            quotas,
            asks=tuple(tuple(self._amount(quota) for quota in quotas) for _ in range(rng.choice([0, 1, 1, 1, 2, 5]))),
            running=rng.randint(0, 3),
            corrections=tuple(self._correction(self.numbers[member]) for _ in range(rng.choice([0, 0, 0, 1, 3]))),
            number=self.numbers[member],
            answered=answered,
            known=known,
            leaves=rng.random() < 0.03,
        )
        self.asked.append(request)
        return request, self.at

    def heard(self, request: Take, taken: Taken) -> None:
        self.slots.append(taken.slot)
        if self.rng.random() < 0.9:
            self.told[request.member] = (request.number, taken.sequence)
            self.heard_until[request.member] = self.at + terms_of(self.quotas).memory

    def _lowered(self, quota: Quota) -> Quota:
        limit = quota.limit if self.rng.random() < 0.9 else self.rng.choice([0, quota.limit // 2, quota.limit * 2])
        return Quota(quota.field, limit, quota.span)

    def _amount(self, quota: Quota) -> int:
        return self.rng.choice([0, 1, 1, 1, 1, quota.limit // 3, quota.limit])

    def _correction(self, number: int) -> Correction:
        rng = self.rng
        most = MOST if rng.random() < 0.02 else 5
        changes = tuple(rng.choice([0, 1, -1, -7, 2, most, -most]) for _ in self.quotas)
        slot = rng.choice(self.slots) + rng.choice([0, 0, 0, 0, -100_000, 100_000])
        return Correction(slot, changes, number - rng.choice([0, 0, 1, 2]))


class Replica:
    """What a replica knows of a ledger on the server that the newest writes have not reached."""

    def __init__(self, client: redis.Redis, key: str) -> None:
        self._client = client
        self._dumps = {name: client.dump(name) for name in keys_of(Take(key, "", ()))}

    def take_over(self) -> None:
        for name, dump in self._dumps.items():
            self._client.delete(name)
            if dump is not None:
                self._client.restore(name, 0, dump)


@settings(max_examples=150)
@given(seed=st.integers(0, 2**32))
def test_the_script_answers_as_the_ledger_does(
    told: Callable[[Take, int], Taken | StoreLost], client: redis.Redis, seed: int
) -> None:
    rng = random.Random(seed)
    questions, ledger = Questions(rng), StrictLedger()
    replicas = [(deepcopy(ledger), Replica(client, questions.key))]
    fails_over = rng.choice([0.0, 0.05])
    for _ in range(60):
        request, at = questions.next()
        expected = ledger.take(request, at / 1e6)
        assert told(request, at) == expected
        questions.heard(request, expected)
        if rng.random() < fails_over:
            replicas.append((deepcopy(ledger), Replica(client, questions.key)))
        if rng.random() < fails_over:
            known, replica = rng.choice(replicas)
            ledger = deepcopy(known)
            replica.take_over()


class Told:
    """Asks the script and the ledger the same, and has them answer the same."""

    def __init__(self, told: Callable[[Take, int], Taken | StoreLost], *quotas: Quota) -> None:
        self.told = told
        self.key = f"ledger-{next(_names)}"
        self.quotas = quotas
        self.ledger = StrictLedger()
        self.numbers: dict[str, int] = {}

    def ask(self, member: str, at: int, *asks: tuple[int, ...], **more: Any) -> Taken:
        self.numbers[member] = self.numbers.get(member, 0) + 1
        request = Take(self.key, member, self.quotas, asks, number=self.numbers[member], **more)
        expected = self.ledger.take(request, at / 1e6)
        assert self.told(request, at) == expected
        return expected


def test_a_wait_for_many_slots_is_the_same(told: Callable[[Take, int], Taken | StoreLost]) -> None:
    both = Told(told, Quota("tokens_per_minute", 500, 10.0), Quota("requests_per_minute", 900, 20.0))
    for step in range(250):
        both.ask("one", EPOCH + step * 37_000, (2, 1))
    at = EPOCH + 9_300_000
    for cost in (1, 2, 3, 150, 201, 350, 500, 501):
        assert both.ask("one", at, (cost, 1)).granted == 0
    for cost in (100, 250, 300):  # in line, so that the same slots are looked through for one after the other
        both.ask(f"with {cost}", at + cost, (cost, 1))
    assert both.ask("last", at + 500, (200, 1)).wait is not None


def test_a_gap_of_many_slots_is_passed_over_the_same(told: Callable[[Take, int], Taken | StoreLost]) -> None:
    both = Told(told, Quota("tokens_per_minute", 9, 10.0))
    for at in (0, 9_000_000, 9_999_999, 10_020_000, 18_000_000, 29_000_000, 300_000_000):
        both.ask("one", EPOCH + at, (3,))
        both.ask("one", EPOCH + at, (7,))
        both.ask("two", EPOCH + at, (3,), (3,))


def test_many_who_wait_and_many_who_died_are_the_same(told: Callable[[Take, int], Taken | StoreLost]) -> None:
    both = Told(told, Quota("tokens_per_minute", 9, 1.0), Quota("concurrent_requests", 1000, 0.0))
    both.ask("one", EPOCH, (9, 0))
    for index in range(MOST_HEADS + 9):
        both.ask(f"member {index}", EPOCH + 1000 * index, (1, 1), running=1)
    for at in (500_000, 1_010_000, 1_020_000, 1_070_000, 3_000_000):
        for index in (0, 1, MOST_HEADS - 1, MOST_HEADS, MOST_HEADS + 8):
            both.ask(f"member {index}", EPOCH + at, (1, 1), (1, 0), running=1)
    levels = [both.ask("one", EPOCH + 60_000_000 + step).levels for step in range(3)]
    assert MOST_FORGOTTEN < MOST_HEADS + 9 and levels[0] > levels[1] == levels[2] == (0, 0)


def test_more_corrections_than_are_written_at_once_are_the_same(told: Callable[[Take, int], Taken | StoreLost]) -> None:
    both = Told(told, *(Quota(f"dimension {index}", 10**6, 1.0) for index in range(3)))
    slots = [both.ask("one", EPOCH + 3000 * step, (5, 6, 7)).slot for step in range(200)]
    corrections = tuple(Correction(slot, (-2, 1, 0), 201) for slot in slots)
    assert both.ask("one", EPOCH + 700_000, corrections=corrections).levels == (600, 1400, 1400)


# ---- on a server ------------------------------------------------------------------------------------------------------


def test_in_production_the_time_is_the_servers(client: redis.Redis) -> None:
    script = client.register_script(SCRIPT)
    request = Take("{real} time", "one", (Quota("tokens_per_minute", 10, 60.5),), ((4,), (4,), (4,)))
    seconds, microseconds = client.time()
    taken = taken_of(request, script(keys_of(request), arguments_of(request)))
    assert isinstance(taken, Taken)
    assert (taken.granted, taken.levels, taken.sequence) == (2, (8,), 1)
    assert (
        seconds + microseconds / 1e6
        <= taken.unix_now
        <= sum(part / unit for part, unit in zip(client.time(), (1, 1e6), strict=True))
    )


def test_what_nobody_asks_for_any_more_is_forgotten_by_the_server(client: redis.Redis) -> None:
    request = Take("forgotten", "one", (Quota("tokens_per_minute", 10, 60.0),), ((4,),))
    client.register_script(SCRIPT)(keys_of(request), arguments_of(request))
    for key in keys_of(request):
        assert 2 * 75_000 < client.pttl(key) < 2 * 76_000


def test_slots_that_were_never_charged_are_looked_at_once(
    client: redis.Redis, told: Callable[[Take, int], Taken | StoreLost]
) -> None:
    both = Told(told, Quota("tokens_per_minute", 9, 10.0))
    both.ask("one", EPOCH, (1,))
    both.ask("one", EPOCH + 9_000_000, (9,))
    both.ask("one", EPOCH + 12_000_000, (9,))
    client.config_resetstat()
    for step in range(10):
        assert both.ask("one", EPOCH + 12_001_000 + step, (9,)).granted == 0
    assert client.info("commandstats")["cmdstat_hmget"]["calls"] <= 10 * 2 + 5


def test_another_thing_at_the_key_is_an_error_and_grants_nothing(client: redis.Redis) -> None:
    request = Take("other", "one", (Quota("tokens_per_minute", 10, 60.0),), ((4,),))
    client.set(keys_of(request)[0], "something else")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        client.register_script(SCRIPT)(keys_of(request), arguments_of(request))


@pytest.mark.parametrize(
    ("key", "tag"),
    [
        ("plain", "{plain}"),
        ("cluster:{tagged}:x", "cluster:{tagged}:x"),
        ("", "{}"),
        ("{}", "{{%7D}"),
        ("a}b%c", "{a%7Db%25c}"),
        ("{open", "{{open}"),
    ],
)
def test_both_keys_have_the_tag_of_the_ledgers_name(key: str, tag: str) -> None:
    assert keys_of(Take(key, "one", ())) == (f"{tag}:ledger", f"{tag}:members")


# ---- answers that are none --------------------------------------------------------------------------------------------

ASKED = Take("key", "one", (Quota("tokens_per_minute", 10, 60.0),), ((4,), (4,)))
ANSWER = [1, 1_800_000_000_000_000, -1, 7, 1_800_000_000_000_000, 4]


def test_an_answer_is_read() -> None:
    assert taken_of(ASKED, ANSWER) == Taken(1, 1_800_000_000_000_000, None, 7, (4,), 1.8e9)
    assert taken_of(ASKED, (*ANSWER[:2], 1500, *ANSWER[3:])) == Taken(1, ANSWER[1], 0.0015, 7, (4,), 1.8e9)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"OK",
        7,
        [],
        ANSWER[:-1],
        [*ANSWER, 1],
        dict.fromkeys(ANSWER),
        *([*ANSWER[:place], bad, *ANSWER[place + 1 :]] for place in range(6) for bad in (b"1", 1.0, None, True, -2, [1])),
        [3, *ANSWER[1:]],
    ],
)
def test_what_cannot_be_an_answer_is_none(answer: Any) -> None:
    assert isinstance(taken_of(ASKED, answer), StoreLost)


@given(
    st.recursive(
        st.none() | st.integers() | st.binary() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=8)
    )
)
def test_reading_an_answer_never_raises_and_never_grants_more_than_was_asked(answer: Any) -> None:
    taken = taken_of(ASKED, answer)
    assert isinstance(taken, StoreLost) or 0 <= taken.granted <= 2
