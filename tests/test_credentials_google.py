"""Google's tokens: a real service account's key, a token service and a Gemini on real sockets, and every driver."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import sys
import threading
import time
import traceback
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

import drivers.asyncio_driver
import drivers.sync_driver
import drivers.trio_driver
from drivers.credentials import SecretUnavailable, credential_error, fingerprints, read_secret, reads_at_once
from sansio import Credential, Deployment, ExecuteBatch, Message, Secret, Tokens, Unauthorized
from sansio.providers.gemini import Gemini

ACCOUNT = "robot@p-1.iam.gserviceaccount.com"
BATCH = ExecuteBatch([Message("user", "hello")])
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()


def unbase64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Google:
    """A token service, which checks who asks, and a Gemini that takes only its newest token: both on one socket."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.issued: list[str] = []
        self.claims: list[dict[str, Any]] = []
        self.forms: list[Mapping[str, list[str]]] = []
        self.answered = 0
        self.refused = 0
        self.revoke_after = -1
        self.expires_in: float = 3600
        self.answer: tuple[int, object] | None = None
        google = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                path = self.path.partition("?")[0]
                status, tree = google.token(body) if path == "/token" else google.generate(self.headers["authorization"])
                streamed = path.endswith(":streamGenerateContent") and status == 200
                data = json.dumps(tree).encode()
                data = b"data: " + data + b"\n\n" if streamed else data
                self.send_response(status)
                self.send_header("content-type", "text/event-stream" if streamed else "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

        self.server = Server(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def token(self, body: bytes) -> tuple[int, object]:
        form = urllib.parse.parse_qs(body.decode())
        with self.lock:
            self.forms.append(form)
            if self.answer is not None:
                return self.answer
            if "assertion" in form:
                head, claims, signature = form["assertion"][0].split(".")
                KEY.public_key().verify(
                    unbase64(signature), f"{head}.{claims}".encode(), padding.PKCS1v15(), hashes.SHA256()
                )
                self.claims.append(json.loads(unbase64(claims)))
            self.issued.append(f"ya29.token-number-{len(self.issued)}-{'x' * 24}")
            return 200, {"access_token": self.issued[-1], "expires_in": self.expires_in, "token_type": "Bearer"}

    def generate(self, authorization: str) -> tuple[int, object]:
        with self.lock:
            if self.answered == self.revoke_after:
                self.revoke_after = -1
                self.issued.append("revoked")
            if authorization != f"Bearer {self.issued[-1]}":
                self.refused += 1
                return 401, {"error": {"code": 401, "message": f"{authorization}?", "status": "UNAUTHENTICATED"}}
            self.answered += 1
        candidate = {"content": {"role": "model", "parts": [{"text": "hi"}]}, "finishReason": "STOP"}
        return 200, {"candidates": [candidate], "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1}}


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> Iterator[Google]:
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p-1")
    google = Google()
    yield google
    google.close()


def account(google: Google, folder: Path, **fields: Any) -> Path:
    """A file of credentials, as Google's console gives it out."""
    path = folder / "account.json"
    written = {
        "type": "service_account", "project_id": "p-1", "private_key_id": "k1", "private_key": PEM, "client_email": ACCOUNT,
        "client_id": "1", "token_uri": f"{google.url}/token",
    }  # fmt: skip
    path.write_text(json.dumps(written | fields))
    return path


def deployment(google: Google, secret: Secret) -> Deployment:
    codec = Gemini("gemini-3.5-flash", google.url, variant="vertex", project="p-1", region="europe-west4")
    return Deployment("chat", "gemini-3.5-flash", codec, {"credentials": secret})


# ---- one token --------------------------------------------------------------------------------------------------------


def test_a_service_account_gets_a_token_that_expires(google: Google, tmp_path: Path) -> None:
    before = time.time()
    found = read_secret(Secret.from_google(account(google, tmp_path)))
    assert found.expires_at_unix is not None
    assert (found.reveal(), found.scheme) == (google.issued[0], "bearer")
    assert before + 3599 <= found.expires_at_unix <= time.time() + 3601
    (claims,) = google.claims
    assert (claims["iss"], claims["scope"]) == (ACCOUNT, "https://www.googleapis.com/auth/cloud-platform")
    assert google.issued[0] not in repr(found)


def test_the_machine_s_own_credentials(google: Google, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(account(google, tmp_path)))
    assert read_secret(Secret.from_google()).reveal() == google.issued[0]
    assert google.claims[0]["scope"] == "https://www.googleapis.com/auth/cloud-platform"


def test_a_federation(google: Google, tmp_path: Path) -> None:
    subject = tmp_path / "subject"
    subject.write_text("a token of somebody else's")
    path = account(
        google,
        tmp_path,
        type="external_account",
        audience="//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
        subject_token_type="urn:ietf:params:oauth:token-type:jwt",
        token_url=f"{google.url}/token",
        credential_source={"file": str(subject)},
    )
    assert read_secret(Secret.from_google(path)).reveal() == google.issued[0]
    (form,) = google.forms
    assert form["subject_token"] == ["a token of somebody else's"]
    assert form["scope"] == ["https://www.googleapis.com/auth/cloud-platform"]


@pytest.mark.parametrize(
    ("fields", "module", "method"),
    [
        ({"type": "authorized_user"}, "google.oauth2.credentials", "from_authorized_user_info"),
        (
            {"type": "impersonated_service_account"},
            "google.auth.impersonated_credentials",
            "from_impersonated_service_account_info",
        ),
        (
            {"type": "external_account_authorized_user"},
            "google.auth.external_account_authorized_user",
            "from_info",
        ),
        ({"type": "external_account", "credential_source": {"environment_id": "aws1"}}, "google.auth.aws", "from_info"),
        ({"type": "external_account", "credential_source": {"executable": {}}}, "google.auth.pluggable", "from_info"),
    ],
)
def test_each_type_has_its_maker(
    google: Google, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: Any, module: str, method: str
) -> None:
    asked: list[Any] = []

    class Made:
        token = "made"
        expiry: datetime | None = None

        def refresh(self, request: object) -> None:
            asked.append(request)

    def make(info: Mapping[str, Any], scopes: Sequence[str]) -> Made:
        asked.extend([info["type"], list(scopes)])
        return Made()

    monkeypatch.setattr(f"{module}.Credentials.{method}", make)
    found = read_secret(Secret.from_google(account(google, tmp_path, **fields)))
    assert found == Credential("made", None, "bearer")
    assert asked[:2] == [fields["type"], ["https://www.googleapis.com/auth/cloud-platform"]]


def test_the_file_is_read_again_for_each_token(google: Google, tmp_path: Path) -> None:
    secret = Secret.from_google(account(google, tmp_path))
    read_secret(secret)
    account(google, tmp_path, client_email="other@p-1.iam.gserviceaccount.com")
    read_secret(secret)
    assert [claims["iss"] for claims in google.claims] == [ACCOUNT, "other@p-1.iam.gserviceaccount.com"]


# ---- none -------------------------------------------------------------------------------------------------------------


def refusal(secret: Secret) -> str:
    """Why there is none. Of what google-auth has to say, nothing is left, nowhere."""
    with pytest.raises(SecretUnavailable) as refused:
        read_secret(secret)
    reported = credential_error(refused.value)
    shown = "".join(traceback.format_exception(reported)) + json.dumps(reported.to_dict())
    assert "PRIVATE KEY" not in shown
    assert "ya29" not in shown
    assert str(refused.value) in shown
    return str(refused.value)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((400, {"error": "invalid_grant", "error_description": "ya29.secret"}), r": invalid_grant$"),
        ((400, {"error": "ya29.secret"}), r"gave no token for .*account\.json$"),
        ((400, {"error": {"code": "ya29.secret"}}), r"gave no token for .*account\.json$"),
        ((403, "ya29.secret"), r"gave no token for .*account\.json$"),
        ((200, {"id_token": "ya29.secret"}), r"gave no token for .*account\.json$"),
        ((200, {"access_token": "ya29.sec\nret", "expires_in": 5}), r"Google's token: value: holds a control character"),
        ((200, {"access_token": "", "expires_in": 5}), r"Google's token: value: is empty"),
    ],
)
def test_what_the_token_service_says_is_not_repeated(google: Google, tmp_path: Path, answer: Any, why: str) -> None:
    google.answer = answer
    said = refusal(Secret.from_google(account(google, tmp_path)))
    assert said.startswith("credentials: ")
    assert re.search(why, said)


def test_nobody_there(google: Google, tmp_path: Path) -> None:
    path = account(google, tmp_path, token_uri="http://127.0.0.1:1/token")
    assert refusal(Secret.from_google(path)) == "credentials: Google's token service cannot be reached"


def test_a_machine_without_credentials(google: Google, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    assert refusal(Secret.from_google()).startswith("credentials: this machine has no credentials for Google; give a path")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "No such file or directory"),
        ("nope", "is not JSON"),
        ("[]", "holds no credentials of Google's (service_account, "),
        ('{"type": "ya29"}', "holds no credentials of Google's (service_account, "),
        ('{"type": []}', "holds no credentials of Google's (service_account, "),
        ('{"type": "service_account"}', "is incomplete or damaged"),
        (
            '{"type": "service_account", "client_email": "x", "token_uri": "x", "private_key": "ya29"}',
            "is incomplete or damaged",
        ),
        ('{"type": "authorized_user", "refresh_token": "ya29"}', "is incomplete or damaged"),
        ('{"type": "external_account"}', "is incomplete or damaged"),
    ],
)
def test_a_file_of_something_else(google: Google, tmp_path: Path, text: str | None, why: str) -> None:
    path = tmp_path / "x.json"
    if text is not None:
        path.write_text(text)
    assert refusal(Secret.from_google(path)).startswith(f"credentials: {path}: {why}")


@pytest.mark.parametrize("missing", ["google.auth", "google.auth.transport.requests"])
def test_the_extra_is_named_where_it_is_missing(
    google: Google, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    secret = Secret.from_google(account(google, tmp_path))
    says = r"google-auth is not installed: pip install 'inference-remote-core\[google\]'$"
    with pytest.raises(SecretUnavailable, match=f"^credentials: {says}"):
        read_secret(secret)
    with pytest.raises(ValueError, match=f"^deployment 'chat': credentials: {says}"):
        drivers.sync_driver.RemoteEngine(deployment(google, secret))


def test_a_file_that_is_no_use_is_said_before_the_first_request(google: Google, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^deployment 'chat': credentials: .*x\.json: No such file"):
        fingerprints([deployment(google, Secret.from_google(tmp_path / "x.json"))])
    assert fingerprints([deployment(google, Secret.from_google(account(google, tmp_path)))]) == {}
    assert google.issued == []


def test_no_event_loop_reads_it_itself() -> None:
    assert not reads_at_once(Secret.from_google())


# ---- through an engine ------------------------------------------------------------------------------------------------

COUNT = 24


def with_threads(deployed: Deployment) -> list[Tokens]:
    with drivers.sync_driver.RemoteEngine(deployed) as engine, ThreadPoolExecutor(8) as pool:
        return list(pool.map(engine.generate, [BATCH] * COUNT))


def with_asyncio(deployed: Deployment) -> list[Tokens]:
    async def main() -> list[Tokens]:
        async with drivers.asyncio_driver.RemoteEngine(deployed) as engine:
            return await asyncio.gather(*(engine.generate(BATCH) for _ in range(COUNT)))

    return asyncio.run(main())


def with_trio(deployed: Deployment) -> list[Tokens]:
    async def main() -> list[Tokens]:
        answers: list[Tokens] = []

        async def ask(engine: drivers.trio_driver.RemoteEngine) -> None:
            async with engine.stream(BATCH) as chunks:
                answers.append(Tokens.from_chunks([chunk async for chunk in chunks]))

        async with drivers.trio_driver.RemoteEngine(deployed) as engine, trio.open_nursery() as nursery:
            for _ in range(COUNT):
                nursery.start_soon(ask, engine)
        return answers

    return trio.run(main)


RUNS: list[Callable[[Deployment], list[Tokens]]] = [with_threads, with_asyncio, with_trio]


@pytest.mark.parametrize("run", RUNS)
def test_one_token_serves_all(google: Google, tmp_path: Path, run: Callable[[Deployment], list[Tokens]]) -> None:
    answers = run(deployment(google, Secret.from_google(account(google, tmp_path))))
    assert [answer.text for answer in answers] == ["hi"] * COUNT
    assert (len(google.issued), google.refused) == (1, 0)


@pytest.mark.parametrize("run", RUNS)
def test_a_token_revoked_under_way_costs_nobody_an_answer(
    google: Google, tmp_path: Path, run: Callable[[Deployment], list[Tokens]]
) -> None:
    google.revoke_after = COUNT // 2
    answers = run(deployment(google, Secret.from_google(account(google, tmp_path))))
    assert [answer.text for answer in answers] == ["hi"] * COUNT
    assert google.refused >= 1
    assert google.issued[1] == "revoked"
    assert len(google.issued) == 3  # one refresh for all who were refused
    assert google.answered == COUNT


def test_a_token_that_has_expired_is_not_sent(google: Google, tmp_path: Path) -> None:
    google.expires_in = -5
    with (
        drivers.sync_driver.RemoteEngine(deployment(google, Secret.from_google(account(google, tmp_path)))) as engine,
        pytest.raises(Unauthorized) as refused,
    ):
        engine.generate(BATCH, timeout=5.0)
    assert "expired" in "".join(traceback.format_exception(refused.value))
    assert google.answered == google.refused == 0
