"""Which limiter a deployment's key has, and what it is called in the store."""

from __future__ import annotations

import random
from typing import Any

import pytest

from drivers.sync_driver import RemoteEngine
from sansio import (
    ClusterConfig,
    Deployment,
    Permit,
    RateLimiter,
    RateLimits,
    RemoteEngineConfig,
    Secret,
    StrictRateLimiter,
    Wait,
)
from sansio.cluster.approximate import ApproximateMember
from sansio.cluster.escrow import EscrowMember
from sansio.cluster.limiters import limiter_of, without
from sansio.cluster.shared_limiter import SharedRateLimiter
from sansio.cluster.store import Publish, StoreLost, StoreRequest, Swap, Take
from sansio.lane import Group
from sansio.sharing import build_roster

URL = "redis://127.0.0.1"


def group_of(cluster: Any, fingerprints: dict[str, str] | None = None, **limits: Any) -> Group:
    deployment = Deployment(
        name="chat", model="gpt-4o", runtime_config={"api_key": Secret.inline("sk-1234567890"), "rate_limits": limits}
    )
    config = RemoteEngineConfig.of(deployment, cluster)
    (group,) = build_roster(config, fingerprints or {}, random.Random(1)).groups
    return group


def question(group: Group) -> StoreRequest:
    group.limiter.reserve(1, 1, 1, 0.0)
    assert group.link is not None
    return group.link.shared.exchange(0.0, 1000.0)


def test_one_process_needs_nothing() -> None:
    group = group_of(None, requests_per_minute=5)
    assert type(group.limiter) is RateLimiter and group.link is None


def test_without_a_limit_nothing_is_shared() -> None:
    group = group_of(URL)
    assert type(group.limiter) is RateLimiter and group.link is None


@pytest.mark.parametrize(
    ("cluster", "limits", "kind", "asks"),
    [
        (URL, {}, SharedRateLimiter, Publish),
        ({"url": URL, "mode": "escrow"}, {}, SharedRateLimiter, Swap),
        (URL, {"strict": True}, StrictRateLimiter, Take),
    ],
)
def test_a_url_is_enough(cluster: Any, limits: dict[str, Any], kind: type, asks: type) -> None:
    group = group_of(cluster, requests_per_minute=5, **limits)
    assert type(group.limiter) is kind and group.link is not None
    assert isinstance(question(group), asks)


def test_the_mode_says_who_agrees() -> None:
    limits = RateLimits(requests_per_minute=10)
    shared = limiter_of(limits, ClusterConfig(URL), "n", "m")
    escrow = limiter_of(limits, ClusterConfig(URL, mode="escrow"), "n", "m")
    assert isinstance(shared, SharedRateLimiter) and isinstance(shared.member, ApproximateMember)
    assert isinstance(escrow, SharedRateLimiter) and isinstance(escrow.member, EscrowMember)


def test_the_same_limit_has_the_same_name_everywhere_and_does_not_tell_the_key() -> None:
    def key(cluster: Any = URL, fingerprint: str = "f" * 16, **limits: Any) -> str:
        return question(group_of(cluster, {"chat": fingerprint}, requests_per_minute=5, **limits)).key

    assert key() == key()
    assert key(fingerprint="e" * 16) != key()
    names = {key(), key({"url": URL, "mode": "escrow"}), key(strict=True)}
    assert len(names) == 3, "what is kept there is of another kind in each mode"
    assert all(name.startswith("remote-core:") and "f" * 16 not in name and "sk-" not in name for name in names)
    assert key({"url": URL, "prefix": "ours"}).startswith("ours:")
    assert key().count("{") == key().count("}") == 1


def test_each_life_of_a_process_is_another_member() -> None:
    one, again = (question(group_of(URL, requests_per_minute=5)) for _ in range(2))
    assert isinstance(one, Publish) and isinstance(again, Publish)
    assert one.member == again.member, "drawn from what was handed in"
    assert len(one.member) == 16


def test_what_is_withheld_is_not_handed_out() -> None:
    limits = RateLimits(requests_per_minute=100, tokens_per_minute=1_000, concurrent_requests=10, burst=20)
    kept = without(limits, 0.25)
    assert (kept.requests_per_minute, kept.tokens_per_minute, kept.concurrent_requests, kept.burst) == (75, 750, 8, 20)
    assert without(limits, 0.0) is limits
    assert without(RateLimits(requests_per_minute=1), 0.9).requests_per_minute == 1


def test_a_local_share_is_a_part_of_the_whole_limit() -> None:
    config = ClusterConfig(URL, mode="escrow", on_store_lost="local_share", local_share=0.1, withheld=0.5)
    limiter = limiter_of(RateLimits(requests_per_minute=100), config, "n", "m")
    assert isinstance(limiter, SharedRateLimiter)
    assert limiter.reserve(1, 0, 0, 0.0) == Wait(None), "the store is asked first"
    limiter.exchange(0.0, 1000.0)
    limiter.exchanged(StoreLost("gone"), 1.0, 1001.0)
    levels = limiter.snapshot(1.0).requests
    assert levels is not None and (levels.limit, levels.available) == (50, 10)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("on_store_lost", "blah"),
        ("withheld", 1.5),
        ("local_share", -3),
        ("store_timeout", -1.0),
        ("key", ""),
        ("member", ""),
    ],
)
def test_what_a_strict_limiter_cannot_do_is_refused(field: str, value: Any) -> None:
    options: dict[str, Any] = {"key": "k", "member": "m", field: value}
    with pytest.raises(ValueError, match=f"^{field}: "):
        StrictRateLimiter(RateLimits(requests_per_minute=5), **options)


def test_a_word_is_as_good_as_its_member() -> None:
    options: dict[str, Any] = {"on_store_lost": "local_share", "local_share": 0.2}
    limiter = StrictRateLimiter(RateLimits(requests_per_minute=10), key="k", member="m", **options)
    assert limiter.reserve(1, 0, 0, 0.0) == Wait(None)
    limiter.exchange(0.0, 1000.0)
    limiter.exchanged(StoreLost("gone"), 1.0, 1001.0)
    assert isinstance(limiter.reserve(1, 0, 0, 1.0), Permit)


def test_estimates_may_be_believed() -> None:
    limits = RateLimits(tokens_per_minute=1000)
    for error, more in ((None, False), (0.3, True)):
        config = ClusterConfig(URL, on_store_lost="local_share", local_share=0.9, estimate_error=error)
        limiter = limiter_of(limits, config, "n", "m")
        permit = limiter.reserve(1, 100, 0, 0.0)
        assert isinstance(permit, Permit)
        assert (permit.charges[0].amount > 100) is more


def test_an_engine_that_another_process_has_made_is_not_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would call itself by its parent's name in the store."""
    deployment = Deployment(name="chat", model="gpt-4o", runtime_config={"api_key": Secret.inline("k")})
    engine, alone = RemoteEngine(deployment, cluster=URL), RemoteEngine(deployment)
    monkeypatch.setattr("os.getpid", lambda: -1)
    with pytest.raises(RuntimeError, match="make it after the fork"), engine:
        pass
    with alone:
        assert alone.metrics().submitted == 0
