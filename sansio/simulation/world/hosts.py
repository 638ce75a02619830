"""Which hosts a world has, how they are, and who answers there. Everything raises `ValueError` for what cannot be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from ...connection_pool import Http2, PoolConfig
from ...deployment import RemoteEngineConfig
from ...http import parse_origin
from ..provider.mock_provider import MockProvider
from .plan import HostPlan, host_of
from .plan_checks import require_known
from .vault import place_of

_OF_THE_PROVIDER: Final = ("limits", "first_byte_delay", "token_delay")
"""What of a `HostPlan` a provider that was given says itself."""


def places_of(config: RemoteEngineConfig) -> dict[str, list[str]]:
    """Where the keys of each host are kept."""
    found: dict[str, list[str]] = {}
    for deployment in config.deployments:
        places = found.setdefault(host_of(deployment), [])
        if (place := place_of(deployment)) not in places:
            places.append(place)
    return found


def host_plans(given: Sequence[HostPlan], hosts: Sequence[str]) -> dict[str, HostPlan]:
    """How each host is: as it was given, or calm."""
    plans = {plan.host: plan for plan in given}
    require_known("hosts", hosts, plans)
    if len(plans) < len(given):
        raise ValueError(f"hosts: there are {len(given)} plans for {', '.join(plans)}; give one for each host")
    return {host: plans.get(host) or HostPlan(host) for host in hosts}


def given_providers(
    provider: MockProvider | Mapping[str, MockProvider] | None, plans: Mapping[str, HostPlan]
) -> Mapping[str, MockProvider]:
    """The providers that were given, by host."""
    if provider is None:
        return {}
    if isinstance(provider, MockProvider):
        if len(plans) > 1:
            raise ValueError(f"provider: there are several hosts, give one for each of {', '.join(plans)}")
        provider = dict.fromkeys(plans, provider)
    require_known("provider", list(plans), provider)
    for host in provider:
        calm = HostPlan(host)
        for name in _OF_THE_PROVIDER:
            if (said := getattr(plans[host], name)) != getattr(calm, name):
                raise ValueError(
                    f"hosts: {name}={said!r} of {host!r} has no effect beside the provider given for it; "
                    f"say it there, MockProvider({name}=…), or give no provider"
                )
    return provider


def pool_for(config: RemoteEngineConfig, plans: Mapping[str, HostPlan]) -> PoolConfig:
    """How a client has to pool its connections, so that each host speaks what its plan says."""
    speaking = [host for host, plan in plans.items() if plan.http2]
    if not speaking:
        return PoolConfig(http2=Http2.OFF)
    if len(speaking) == len(plans):
        return PoolConfig(http2=Http2.ONLY)
    for deployment in config.deployments:  # where some do not, it is agreed upon, as TLS does that
        origin = parse_origin(deployment.codec().endpoint)
        if origin.host in speaking and origin.scheme != "https":
            raise ValueError(
                f"hosts: {origin.host!r} speaks HTTP/2 and others do not, which only https can agree upon; "
                "make its endpoint https, or say with pool= what all are to speak"
            )
    return PoolConfig(http2=Http2.OFFER)
