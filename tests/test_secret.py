"""Secrets are references, credentials are sealed: neither shows its value unless asked by name."""

from __future__ import annotations

import copy
import copyreg
import functools
import math
import pathlib
import pickle
import traceback
from collections.abc import Callable
from dataclasses import FrozenInstanceError, asdict, dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sansio.secret import Credential, Secret, StaticApiKey

VALUE = "sk-live-Zq7x"


def fetch_from_vault() -> str:
    return VALUE


class Vault:
    def fetch(self) -> str:
        return VALUE

    def __call__(self) -> str:
        return VALUE


VAULT = Vault()


# Secret


@pytest.mark.parametrize(
    ("secret", "source", "reference"),
    [
        (Secret.from_env("OPENAI_API_KEY"), "env", "OPENAI_API_KEY"),
        (Secret.from_file("/run/secrets/key"), "file", "/run/secrets/key"),
        (Secret.from_file(pathlib.PurePosixPath("/run/key")), "file", "/run/key"),
        (Secret.from_google("/run/account.json"), "google", "/run/account.json"),
        (Secret.from_google(pathlib.PurePosixPath("/run/x")), "google", "/run/x"),
        (Secret.from_google(), "google", ""),
        (Secret.from_callable(fetch_from_vault), "callable", f"{__name__}.fetch_from_vault"),
        (Secret.from_callable(VAULT.fetch), "callable", f"{__name__}.Vault.fetch"),
        (Secret.from_callable(VAULT), "callable", f"{__name__}.Vault"),
        (Secret.from_callable(functools.partial(fetch_from_vault)), "callable", "functools.partial"),
        (Secret.from_callable("sk".upper), "callable", "builtins.str.upper"),
        (Secret.inline(VALUE), "inline", Credential(VALUE).fingerprint),
    ],
)
def test_a_secret_says_where_it_points(secret: Secret, source: str, reference: str) -> None:
    assert (secret.source, secret.reference) == (source, reference)
    assert repr(secret) == str(secret) == f"{secret}" == f"Secret({source}: {reference})"


def test_a_driver_takes_what_the_source_promises() -> None:
    assert Secret.from_env("KEY").env_name == "KEY"
    assert Secret.from_file("key.txt").path == "key.txt"
    assert Secret.from_callable(fetch_from_vault).fetch is fetch_from_vault
    assert Secret.inline(VALUE).inline_value() == VALUE


ACCESS: dict[str, Callable[[Secret], object]] = {
    "env": lambda secret: secret.env_name,
    "file": lambda secret: secret.path,
    "callable": lambda secret: secret.fetch,
    "inline": lambda secret: secret.inline_value(),
}


@pytest.mark.parametrize(
    "secret",
    [Secret.from_env("KEY"), Secret.from_file("key.txt"), Secret.from_callable(fetch_from_vault), Secret.inline(VALUE)],
)
def test_and_nothing_else(secret: Secret) -> None:
    for source, access in ACCESS.items():
        if source != secret.source:
            with pytest.raises(RuntimeError, match=f"source is {secret.source}, not {source}"):
                access(secret)


def test_google_s_credentials_have_a_path_which_may_be_empty() -> None:
    assert (Secret.from_google("x.json").path, Secret.from_google().path) == ("x.json", "")
    for source in ("env", "callable", "inline"):
        with pytest.raises(RuntimeError, match=f"source is google, not {source}"):
            ACCESS[source](Secret.from_google())


def test_secrets_are_equal_when_they_point_to_the_same_place() -> None:
    assert Secret.from_env("A") == Secret.from_env("A") != Secret.from_env("B")
    assert Secret.from_env("A") != Secret.from_file("A") != Secret.from_google("A") == Secret.from_google("A")
    assert Secret.from_google() != Secret.from_google("A")
    assert Secret.from_callable(VAULT.fetch) == Secret.from_callable(VAULT.fetch)
    assert Secret.inline("one") == Secret.inline("one") != Secret.inline("two")
    assert Secret.from_env("A") != "A"
    assert len({Secret.from_env("A"), Secret.from_env("A"), Secret.from_env("B"), Secret.inline("A")}) == 3


def test_two_callables_of_one_name_are_two_secrets() -> None:
    one, two = Secret.from_callable(lambda: "tenant-1"), Secret.from_callable(lambda: "tenant-2")
    assert one.reference == two.reference
    assert one != two


ANY: Any = Secret
ANY_KEY: Any = StaticApiKey
ANY_CREDENTIAL: Any = Credential
"""For calls that a type checker refuses already."""


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Secret.from_env(VALUE), "name: "),
        (lambda: Secret.from_env("1KEY"), "name: "),
        (lambda: Secret.from_env("KEY\n"), "name: "),
        (lambda: Secret.from_env(""), "env: is empty"),
        (lambda: ANY.from_env(None), "env: .* NoneType"),
        (lambda: Secret.from_file(""), "file: is empty"),
        (lambda: Secret.from_file(f"{VALUE}\0"), "path: "),
        (lambda: Secret.from_google(f"{VALUE}\0"), "path: "),
        (lambda: ANY("google", 5), "google: .* int"),
        (lambda: ANY.from_callable(VALUE), "fetch: is of type str"),
        (lambda: Secret.inline(""), "inline: is empty"),
        (lambda: ANY.inline(VALUE.encode()), "inline: .* bytes"),
        (lambda: ANY(VALUE, VALUE), "source: "),
        (lambda: ANY_KEY(VALUE), "secret: is of type str"),
    ],
)
def test_a_mistake_is_refused_without_repeating_it(make: Any, says: str) -> None:
    with pytest.raises(ValueError, match=f"^{says}") as caught:
        make()
    assert VALUE not in shown(caught.value)


# Credential


@pytest.mark.parametrize("value", [VALUE, "x", "!~", "two words", "a" * 10_000])
def test_a_credential_reveals_its_value_when_asked(value: str) -> None:
    credential = Credential(value, 12.5)
    assert credential.reveal() == value
    assert credential.expires_at_unix == 12.5
    assert Credential(value).expires_at_unix is None


def test_its_representation_tells_it_from_others_and_no_more() -> None:
    fingerprint = Credential(VALUE).fingerprint
    assert fingerprint == Credential(VALUE, 1.0).fingerprint != Credential("other").fingerprint
    assert len(fingerprint) == 12
    assert repr(Credential(VALUE)) == str(Credential(VALUE)) == f"Credential(fingerprint={fingerprint})"
    assert repr(Credential(VALUE, 7)) == f"Credential(fingerprint={fingerprint}, expires_at_unix=7)"


def test_a_fingerprint_is_the_same_in_every_process() -> None:
    assert Credential("sk-test").fingerprint == "1db8d566e539"


def test_credentials_are_equal_by_value_and_expiry() -> None:
    assert Credential("a") == Credential("a")
    assert Credential("a") != Credential("b")
    assert Credential("a", 1.0) != Credential("a", 2.0)
    assert Credential("a", scheme="bearer") == Credential("a", scheme="bearer") != Credential("a")
    assert Credential("a") != "a"
    assert len({Credential("a"), Credential("a"), Credential("b"), Credential("a", 1.0)}) == 3


@pytest.mark.parametrize("scheme", [None, "api_key", "bearer"])
def test_a_credential_may_say_how_it_is_presented(scheme: Any) -> None:
    for credential in (Credential(VALUE, scheme=scheme), Credential.from_text(f"{VALUE}\n", None, scheme)):
        assert credential.scheme == scheme
        assert ("scheme" in repr(credential)) is (scheme is not None)


def test_there_is_no_other_way_to_present_one() -> None:
    with pytest.raises(ValueError, match=r"^scheme: is none of api_key, bearer, None$"):
        ANY_CREDENTIAL(VALUE, scheme=VALUE)


@pytest.mark.parametrize("text", [f"{VALUE}\n", f"  {VALUE}", f"{VALUE}\r\n\n", f"\t{VALUE} "])
def test_the_white_space_around_a_text_is_no_part_of_the_credential(text: str) -> None:
    assert Credential.from_text(text, 3.0) == Credential(VALUE, 3.0)
    with pytest.raises(ValueError, match=r"^value: holds") as caught:
        Credential(text)
    assert VALUE not in shown(caught.value)


@pytest.mark.parametrize(
    "value",
    ["", " ", "\n", f"{VALUE}\n{VALUE}", f"{VALUE}\0", f"{VALUE}\x7f", f"{VALUE}\u2013", f"{VALUE}\x9f", f"\ufeff{VALUE}"],
)
@pytest.mark.parametrize("make", [Credential, Credential.from_text])
def test_what_cannot_stand_in_a_header_is_no_credential(value: str, make: Callable[[str], Credential]) -> None:
    with pytest.raises(ValueError, match=r"^value: ") as caught:
        make(value)
    assert VALUE not in shown(caught.value)


@pytest.mark.parametrize("value", [None, 7, VALUE.encode(), [VALUE]])
@pytest.mark.parametrize("make", [Credential, Credential.from_text])
def test_a_credential_is_a_string(value: Any, make: Callable[[Any], Credential]) -> None:
    with pytest.raises(ValueError, match=f"^value: is of type {type(value).__name__}") as caught:
        make(value)
    assert VALUE not in shown(caught.value)


@pytest.mark.parametrize("expires_at_unix", [math.nan, math.inf, True, VALUE])
def test_an_expiry_is_a_finite_time(expires_at_unix: Any) -> None:
    with pytest.raises(ValueError, match=r"^expires_at_unix: ") as caught:
        Credential(VALUE, expires_at_unix)
    assert VALUE not in shown(caught.value)


# Both are sealed


@dataclass
class Holder:
    held: object


SEALED = [Secret.inline(VALUE), Credential(VALUE, 5.0), StaticApiKey(Secret.inline(VALUE))]


@pytest.mark.parametrize("sealed", SEALED)
def test_the_value_shows_nowhere(sealed: object) -> None:
    for text in (
        repr(sealed),
        str(sealed),
        f"{sealed}",
        f"{sealed!r}",
        repr([sealed]),
        repr(Holder(sealed)),
    ):
        assert VALUE not in text
    assert VALUE not in repr(asdict(Holder(sealed)))
    assert not hasattr(sealed, "__dict__")


@pytest.mark.parametrize("sealed", SEALED)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_cannot_be_pickled(sealed: object, protocol: int) -> None:
    with pytest.raises(TypeError, match="cannot be pickled: its value") as caught:
        pickle.dumps(Holder(sealed), protocol)
    assert VALUE not in shown(caught.value)


@pytest.mark.parametrize(
    "sealed", [Credential(VALUE), Secret.inline(VALUE), Secret.from_env("KEY"), Secret.from_callable(lambda: VALUE)]
)
def test_its_state_is_not_given_out_for_a_copy_or_a_pickle(sealed: Any) -> None:
    for give_out in (sealed.__getstate__, lambda: object.__reduce__(sealed), lambda: copyreg.__reduce_ex__(sealed, 2)):
        with pytest.raises(TypeError) as caught:
            give_out()
        assert VALUE not in shown(caught.value)
    with pytest.raises(TypeError, match=r"the state of a (Secret|Credential) is not given out"):
        sealed.__getstate__()


def test_a_callable_is_not_pickled_either_since_it_may_hold_a_value() -> None:
    with pytest.raises(TypeError, match="source callable cannot be pickled"):
        pickle.dumps(Secret.from_callable(functools.partial(Credential, VALUE)))


@pytest.mark.parametrize("secret", [Secret.from_env("KEY"), Secret.from_file("key.txt"), Secret.from_google()])
def test_a_mere_reference_can_be_pickled(secret: Secret) -> None:
    assert pickle.loads(pickle.dumps(secret)) == secret


@pytest.mark.parametrize("sealed", [*SEALED, Secret.from_env("KEY"), Secret.from_callable(lambda: VALUE)])
def test_copies_are_as_good_as_the_original(sealed: object) -> None:
    assert copy.copy(sealed) == sealed
    assert copy.deepcopy(Holder(sealed)) == Holder(sealed)


@pytest.mark.parametrize("sealed", SEALED[:2])
def test_nothing_can_be_set_or_deleted(sealed: Any) -> None:
    with pytest.raises(AttributeError, match="immutable"):
        sealed.fingerprint = "x"
    with pytest.raises(AttributeError, match="immutable"):
        sealed._value = "x"
    with pytest.raises(AttributeError, match="immutable"):
        del sealed.fingerprint


def test_a_static_key_is_its_secret() -> None:
    key: Any = StaticApiKey(Secret.from_env("KEY"))
    assert key == StaticApiKey(Secret.from_env("KEY"))
    assert repr(key) == "StaticApiKey(secret=Secret(env: KEY))"
    with pytest.raises(FrozenInstanceError):
        key.secret = Secret.from_env("OTHER")


@given(st.text())
def test_any_text_is_either_carried_whole_or_refused_unseen(text: str) -> None:
    value = f"Zq7x{text}Zq7x"
    assert "Zq7x" not in repr(Secret.inline(value))
    if value.isascii() and value.isprintable():
        assert Credential(value).reveal() == value
        assert "Zq7x" not in repr(Credential(value))
    else:
        with pytest.raises(ValueError, match=r"^value: ") as caught:
            Credential(value)
        assert "Zq7x" not in shown(caught.value)


def shown(error: BaseException) -> str:
    """Everything an error shows of itself, but for the source lines of this file."""
    return repr(error) + str(error) + "".join(traceback.TracebackException.from_exception(error).format_exception_only())
