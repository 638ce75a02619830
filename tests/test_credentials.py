"""References become credentials: from the environment, a file or an inline value, and never shown on the way."""

from __future__ import annotations

import json
import pickle
import traceback
from pathlib import Path

import pytest

from drivers.credentials import SecretUnavailable, as_credential, credential_error, fingerprints, read_secret, reads_at_once
from sansio import Credential, Deployment, InferenceError, Secret, StaticApiKey, Unauthorized

HIDDEN = "hunter2hunter2"


def fetch() -> str:
    return HIDDEN


def deployment(name: str, secret: Secret | StaticApiKey | None) -> Deployment:
    return Deployment(name=name, model="gpt-4o", runtime_config={"api_key": secret})


# ---- reading ----------------------------------------------------------------------------------------------------------


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", f" {HIDDEN}\n")
    assert read_secret(Secret.from_env("A_KEY")) == Credential(HIDDEN)


@pytest.mark.parametrize("text", [HIDDEN, f"{HIDDEN}\n", f"\t{HIDDEN}\r\n\n"])
def test_from_a_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key"
    path.write_text(text)
    assert read_secret(Secret.from_file(path)) == Credential(HIDDEN)


def test_inline() -> None:
    assert read_secret(Secret.inline(HIDDEN)) == Credential(HIDDEN)


def test_it_is_read_again_each_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "key"
    for value in ("one", "two"):
        monkeypatch.setenv("A_KEY", value)
        path.write_text(value)
        assert read_secret(Secret.from_env("A_KEY")) == read_secret(Secret.from_file(path)) == Credential(value)


@pytest.mark.parametrize(
    ("secret", "at_once"),
    [
        (None, True),
        (Secret.from_env("A_KEY"), True),
        (Secret.inline("x"), True),
        (Secret.from_file("x"), False),
        (Secret.from_google(), False),
        (Secret.from_callable(fetch), False),
    ],
)
def test_what_an_event_loop_may_read_itself(secret: Secret | None, at_once: bool) -> None:
    assert reads_at_once(secret) is at_once


# ---- what cannot be read ----------------------------------------------------------------------------------------------


def test_no_secret_says_how_to_give_one() -> None:
    with pytest.raises(SecretUnavailable, match=r"^api_key: is missing; .*Secret\.from_env\('OPENAI_API_KEY'\)"):
        read_secret(None)


def test_an_unset_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("A_KEY", raising=False)
    with pytest.raises(SecretUnavailable, match=r"^api_key: the environment variable A_KEY is not set"):
        read_secret(Secret.from_env("A_KEY"))


@pytest.mark.parametrize("value", ["", "  \n"])
def test_an_empty_value_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str) -> None:
    monkeypatch.setenv("A_KEY", value)
    path = tmp_path / "key"
    path.write_text(value)
    for secret in (Secret.from_env("A_KEY"), Secret.from_file(path)):
        with pytest.raises(SecretUnavailable, match="is empty"):
            read_secret(secret)


def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(SecretUnavailable, match=r"^api_key: .*missing: No such file or directory$") as refused:
        read_secret(Secret.from_file(tmp_path / "missing"))
    assert isinstance(refused.value.__cause__, FileNotFoundError)


def test_a_file_may_fail_without_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def read_text(*_: object, **__: object) -> str:
        raise PermissionError

    monkeypatch.setattr(Path, "read_text", read_text)
    with pytest.raises(SecretUnavailable, match=r"^api_key: /run/key: PermissionError$"):
        read_secret(Secret.from_file("/run/key"))


@pytest.mark.parametrize("value", [b"\xff" + HIDDEN.encode(), HIDDEN.encode() + b"\n" + HIDDEN.encode()])
def test_a_value_that_fits_no_header_is_refused_without_being_shown(tmp_path: Path, value: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(value)
    with pytest.raises(SecretUnavailable, match="not shown here") as refused:
        read_secret(Secret.from_file(path))
    assert_hidden(refused.value)


def test_a_callable_is_fetched_not_read() -> None:
    with pytest.raises(SecretUnavailable, match="a callable is fetched by its driver"):
        read_secret(Secret.from_callable(fetch))


# ---- what a callable returned -----------------------------------------------------------------------------------------


def test_a_callable_returns_a_string_or_a_credential() -> None:
    assert as_credential(f"{HIDDEN}\n") == Credential(HIDDEN)
    expiring = Credential(HIDDEN, 1e9)
    assert as_credential(expiring) is expiring


@pytest.mark.parametrize("fetched", [None, 5, HIDDEN.encode(), {"token": HIDDEN}])
def test_anything_else_is_refused_by_its_type(fetched: object) -> None:
    with pytest.raises(SecretUnavailable, match=f"the callable returned {type(fetched).__name__}, not a string") as refused:
        as_credential(fetched)
    assert_hidden(refused.value)


# ---- what a failure is reported as ------------------------------------------------------------------------------------


class VaultError(Exception):
    pass


def test_a_failed_fetch_is_unauthorized_with_its_reason() -> None:
    cause = SecretUnavailable("api_key: the environment variable A_KEY is not set")
    error = credential_error(cause)
    assert isinstance(error, Unauthorized)
    assert error.cause is cause
    assert error.message == "the credential could not be fetched: api_key: the environment variable A_KEY is not set"


@pytest.mark.parametrize(
    "cause",
    [
        VaultError(HIDDEN),
        ValueError(f"bad token {HIDDEN}"),
        OSError(HIDDEN),
        KeyboardInterrupt(HIDDEN),
        UnicodeDecodeError("utf-8", HIDDEN.encode(), 0, 1, "x"),
    ],
    ids=lambda cause: type(cause).__name__,
)
def test_of_a_vault_s_own_exception_only_the_type_is_kept(cause: BaseException) -> None:
    error = credential_error(cause)
    assert isinstance(error, Unauthorized)
    assert error.message == f"the credential could not be fetched: {type(cause).__name__}"
    assert_hidden(error)


# ---- when an engine is made -------------------------------------------------------------------------------------------


def test_keys_are_told_apart_by_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "one")
    found = fingerprints(
        [
            deployment("a", Secret.from_env("A_KEY")),
            deployment("b", StaticApiKey(Secret.inline("one"))),
            deployment("c", Secret.inline("two")),
            deployment("d", Secret.from_callable(fetch)),
        ]
    )
    assert found == {"a": Credential("one").fingerprint, "b": found["a"], "c": Credential("two").fingerprint}


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        (None, "api_key: is missing"),
        (Secret.from_env("NOT_SET_X"), "NOT_SET_X is not set"),
        (Secret.from_file("/no/f"), "/no/f"),
    ],
)
def test_a_missing_key_is_said_before_the_first_request(secret: Secret | None, why: str) -> None:
    with pytest.raises(ValueError, match=f"^deployment 'b': .*{why}"):
        fingerprints([deployment("a", Secret.inline("x")), deployment("b", secret)])


def assert_hidden(error: BaseException) -> None:
    """Nowhere: not in its text or traceback, not in what it pickles to, and not in what it was raised from or beside."""
    following: BaseException | None = error
    while following is not None:
        shown = str(following) + repr(following) + "".join(traceback.format_exception(following))
        if isinstance(following, InferenceError):
            shown += json.dumps(following.to_dict())
        assert HIDDEN not in shown
        assert HIDDEN.encode() not in pickle.dumps(following)
        following = following.__cause__ or following.__context__
