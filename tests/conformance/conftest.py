"""What every behaviour is given: a `lab`, once for each way to the wire."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from conformance import nginx
from conformance.harness import ALL_WAYS, WAYS, Lab, Tls, Way

collect_ignore = [] if nginx.PROGRAM else ["test_nginx.py"]


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """Both ends of TLS, under an authority made for this run."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued = authority.issue_cert("127.0.0.1", "localhost")
    issued.configure_cert(server)
    certificate = tmp_path_factory.mktemp("tls") / "certificate.pem"
    issued.private_key_and_cert_chain_pem.write_to_path(str(certificate))
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return Tls(server, client, certificate)


@pytest.fixture(params=WAYS, ids=str)
def way(request: pytest.FixtureRequest) -> Way:
    """A way to the wire."""
    found: Way = request.param
    return found


@pytest.fixture
def lab(way: Way, tls: Tls) -> Iterator[Lab]:
    """A provider, and engines that reach it this way. After the test nothing may be left open."""
    with Lab(way, tls).watched() as lab:
        yield lab


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What a way cannot show is left out, and counted (`Way.cannot`); so is what another shows as well (`take_turns`)."""
    out = {id(item) for item in items if isinstance(item, pytest.Function) and _is_beyond(item)}
    if not ALL_WAYS:
        out |= take_turns([item for item in items if isinstance(item, pytest.Function) and id(item) not in out])
    config.hook.pytest_deselected(items=[item for item in items if id(item) in out])
    items[:] = [item for item in items if id(item) not in out]


def take_turns(items: list[pytest.Function]) -> set[int]:
    """The ids of the tests that are left out because another shows the same.

    cases_take_turns: the cases are the core's to tell apart, and the driver's part is the same in each. Every case is shown
    once on each driver, and every way shows some. ways_take_turns: what takes its time, or many requests, and is the same
    over TLS and through nginx. Each driver shows it once over each transport, the one time with TLS, the next without.
    """
    out: set[int] = set()
    of_behaviour: dict[Any, list[pytest.Function]] = {}
    for item in items:
        if hasattr(item, "callspec") and isinstance(item.callspec.params.get("way"), Way):
            of_behaviour.setdefault((item.path, item.originalname), []).append(item)
    for same in of_behaviour.values():
        if mark := same[0].get_closest_marker("cases_take_turns"):
            out |= _beside_turns(same, *mark.args)
        if len(same) > 1 and same[0].get_closest_marker("ways_take_turns"):  # one that is asked for by its name is shown
            out |= {id(item) for item in same if not _in_turn(item.callspec.params["way"], len(same[0].originalname))}
    return out


def _beside_turns(same: list[pytest.Function], parameter: str) -> set[int]:
    """One behaviour's tests whose case has its turn on another way of the driver."""
    places: dict[str, int] = {}
    of_case: dict[Any, list[pytest.Function]] = {}
    for item in same:
        params = item.callspec.params
        place = places.setdefault(repr(params[parameter]), len(places))
        others = tuple(repr(value) for name, value in params.items() if name not in ("way", parameter))
        of_case.setdefault((place, others, params["way"].driver), []).append(item)
    out: set[int] = set()
    for (place, *_), ways in of_case.items():
        turns = min(len(places), len(ways))
        out |= {id(item) for at, item in enumerate(ways) if (at - place) % turns}
    return out


def _in_turn(way: Way, number: int) -> bool:
    """Whether this way is the one of its driver and transport for the behaviour of this number."""
    alike = [other for other in WAYS if (other.driver, other.transport) == (way.driver, way.transport)]
    return not way.through_nginx and alike[number % len(alike)] == way


def _is_beyond(item: pytest.Function) -> bool:
    params = item.callspec.params if hasattr(item, "callspec") else {}
    way = params.get("way")
    names = {item.originalname, f"{item.originalname}[{params.get('case')}]"}
    return isinstance(way, Way) and not names.isdisjoint(way.cannot)


def pytest_report_collectionfinish(items: list[Any]) -> list[str]:
    """How many behaviours there are, and on how many ways each is shown."""
    here = Path(__file__).parent
    mine = [item for item in items if here in item.path.parents]
    behaviours = {(item.path, item.originalname) for item in mine}
    cases = {(item.path, item.originalname, _beside_way(item)) for item in mine}
    shown = f"conformance: {len(behaviours)} behaviours ({len(cases)} with their cases) on {len(WAYS)} ways to the wire"
    return [shown] if nginx.PROGRAM else [shown, f"conformance: not through nginx, which is missing: {nginx.HOW_TO_INSTALL}"]


def _beside_way(item: Any) -> tuple[str, ...]:
    params = getattr(item, "callspec", None)
    return () if params is None else tuple(sorted(f"{k}={v!r}" for k, v in params.params.items() if k != "way"))
