"""What every behaviour is given: a `lab`, once for each way to the wire."""

from __future__ import annotations

import gc
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from conformance import nginx
from conformance.harness import WAYS, Lab, Tls, Way

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


@pytest.fixture(scope="session", autouse=True)
def quick_collections() -> Iterator[None]:
    """Each test collects its garbage; what the imports made before the first is not looked through every time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


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
    """What a way cannot show is left out, and counted (`Way.cannot`)."""
    out = [item for item in items if isinstance(item, pytest.Function) and _is_beyond(item)]
    config.hook.pytest_deselected(items=out)
    items[:] = [item for item in items if item not in out]


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
