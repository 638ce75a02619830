"""Which limiter a key has: one of this process alone, or its part in what several processes share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..rate_limit import RateLimiter, RateLimits, quotas_of
from ..strict_limiter import StrictRateLimiter
from .approximate import ApproximateMember
from .config import ClusterConfig, SharingMode
from .escrow import EscrowMember
from .member import Member
from .shared_limiter import SharedRateLimiter


def limiter_of(limits: RateLimits, cluster: ClusterConfig | None, name: str, member: str) -> RateLimiter:
    """The limiter for ``limits``. name: what all processes call the limit. member: what this one calls itself.

    One that is shared is also an `Exchanging`, and doubts the estimates of tokens: there the promise is that many processes
    together never exceed a limit. A process by itself believes them: what it gets wrong, a 429 and its own ledger put right.
    Raises `ValueError` for strict limits without a cluster.
    """
    if cluster is None or not quotas_of(limits):
        return RateLimiter(limits)
    mode = "strict" if limits.strict else str(cluster.mode)
    key = f"{cluster.prefix}:{mode}:{{{name}}}"  # the braces keep it on one node of a clustered store
    if limits.strict:
        return StrictRateLimiter(
            limits,
            key=key,
            member=member,
            store_timeout=cluster.store_timeout,
            on_store_lost=cluster.on_store_lost,
            local_share=cluster.local_share,
            withheld=cluster.withheld,
            doubt=cluster.estimate_error,
        )
    handed_out = without(limits, cluster.withheld)
    return SharedRateLimiter(
        handed_out,
        _member_of(handed_out, cluster, key, member),
        on_store_lost=cluster.on_store_lost,
        local_share=min(1.0, cluster.local_share / (1.0 - cluster.withheld)),
        doubt=cluster.estimate_error,
    )


def without(limits: RateLimits, withheld: float) -> RateLimits:
    """What is left of the limits when this part of each is kept back; at least 1 of each."""
    if not withheld:
        return limits
    kept: dict[str, Any] = {}
    for quota in quotas_of(replace(limits, burst=None, strict=False)):
        kept[quota.field] = max(1, quota.limit - int(quota.limit * withheld))
    return replace(limits, **kept)


def _member_of(limits: RateLimits, cluster: ClusterConfig, key: str, member: str) -> Member:
    quotas = quotas_of(limits)
    interval, lease = cluster.interval_for(limits.window), cluster.lease_for(limits.window)
    if cluster.mode is SharingMode.ESCROW:
        return EscrowMember(quotas, key=key, member=member, interval=interval, lease=lease, runs_on=limits.window)
    return ApproximateMember(
        quotas,
        key=key,
        member=member,
        window=limits.window,
        interval=interval,
        lease=lease,
        on_silence=cluster.on_silence,
    )
