"""References to credentials, and the credentials themselves, built so that a value never shows by accident.

A `Secret` says where a credential is to be had; a driver resolves it and hands the session a `Credential`. This module reads
nothing: no environment, no file, no vault. The value is absent from `repr`, `str`, formatting, exceptions and pickles; one
has to ask for it by name (`Credential.reveal`, `Secret.inline_value`), so that every use can be found.

Both are plain classes rather than dataclasses, because `dataclasses.asdict` would hand the value out.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, Protocol, TypeGuard, get_args

SecretSource = Literal["env", "file", "google", "callable", "inline"]
"""Where a `Secret` points."""

CredentialScheme = Literal["api_key", "bearer"]
"""How a `Credential` is presented: in the provider's own header, or as ``Authorization: Bearer``."""

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_VISIBLE = re.compile(r"[!-~]([ -~]*[!-~])?")  # visible ASCII, spaces only inside


class SupportsPath(Protocol):
    """A path object, such as `pathlib.Path`."""

    def __fspath__(self) -> str:
        """The path as a string."""
        ...


class _Sealed:
    """What `Secret` and `Credential` share: attributes cannot be set, and copies are the object itself."""

    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __copy__(self) -> _Sealed:
        return self

    def __deepcopy__(self, memo: object) -> _Sealed:
        return self

    def __getstate__(self) -> NoReturn:  # `object`'s own hands out every slot
        raise TypeError(f"the state of a {type(self).__name__} is not given out: its value could be in it")


class Credential(_Sealed):
    """What is sent to prove who asks: an API key or a token.

    value: visible ASCII, without white space around it, so that it fits a header (RFC 9110, section 5.5).
    expires_at_unix: the Unix time (seconds) from which it is no longer valid; ``None`` where it does not expire.
    scheme: whether it is a key, which each provider wants in a header of its own, or a token, which all want as a bearer
    (RFC 6750); ``None``: what is usual at the provider.

    Two are equal when value, expiry and scheme are. Raises `ValueError`, never showing the value.
    """

    __slots__ = ("_value", "expires_at_unix", "fingerprint", "scheme")

    expires_at_unix: float | None
    scheme: CredentialScheme | None
    fingerprint: str
    """A short digest of the value: tells credentials apart in logs, and cannot be turned back."""

    def __init__(self, value: str, expires_at_unix: float | None = None, scheme: CredentialScheme | None = None) -> None:
        if not isinstance(value, str):
            raise ValueError(f"value: is of type {type(value).__name__}, not str")
        if not value:
            raise ValueError("value: is empty")
        if not _VISIBLE.fullmatch(value):
            raise ValueError(
                "value: holds a control character, white space at an end, or a character outside ASCII "
                "(not shown here); Credential.from_text strips the newline of a file"
            )
        if expires_at_unix is not None and not _is_number(expires_at_unix):
            raise ValueError("expires_at_unix: is not a finite Unix time in seconds, nor None")
        if scheme not in (None, *get_args(CredentialScheme)):
            raise ValueError(f"scheme: is none of {', '.join(get_args(CredentialScheme))}, None")
        object.__setattr__(self, "_value", value)
        object.__setattr__(self, "expires_at_unix", expires_at_unix)
        object.__setattr__(self, "scheme", scheme)
        object.__setattr__(self, "fingerprint", _fingerprint(value))

    @classmethod
    def from_text(
        cls, text: str, expires_at_unix: float | None = None, scheme: CredentialScheme | None = None
    ) -> Credential:
        """The same, with the white space around ``text`` stripped: a file's last newline is no part of a key."""
        return cls(text.strip() if isinstance(text, str) else text, expires_at_unix, scheme)

    def reveal(self) -> str:
        """The value itself. Only for the header it goes into."""
        value: str = object.__getattribute__(self, "_value")
        return value

    def __repr__(self) -> str:
        expiry = "" if self.expires_at_unix is None else f", expires_at_unix={self.expires_at_unix!r}"
        scheme = "" if self.scheme is None else f", scheme={self.scheme!r}"
        return f"Credential(fingerprint={self.fingerprint}{expiry}{scheme})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Credential):
            return NotImplemented
        same = self.expires_at_unix == other.expires_at_unix and self.scheme == other.scheme
        return same and self.reveal() == other.reveal()

    def __hash__(self) -> int:
        return hash((self.fingerprint, self.expires_at_unix))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Credential cannot be pickled: its value would be in the pickle; pass the Secret it came from")


class CredentialProvider(Protocol):
    """Fetches a credential from a vault or a token service: any callable without arguments.

    A driver calls it, in a task or thread of its own, and may await what it returns (not the sync driver).
    """

    def __call__(self) -> str | Credential | Awaitable[str | Credential]:
        """The credential as it is now. What it raises is reported as a failed refresh, by its type alone."""
        ...


class Secret(_Sealed):
    """Where a credential is to be had. Made by one of the five class methods; resolved by a driver.

    Two are equal when they point to the same place: the same name, path, callable or inline value. ``source`` and
    ``reference`` show that place and are safe to print; as a key, use the secret itself: two callables may share a name.

    A driver branches on ``source`` and takes ``env_name``, ``path``, ``fetch`` or ``inline_value()``; the others then raise
    `RuntimeError`.
    """

    __slots__ = ("_target", "reference", "source")

    source: SecretSource
    reference: str
    """The variable's name, the path (Google's may be empty), the callable's qualified name, or an inline value's digest."""

    def __init__(self, source: SecretSource, target: str | CredentialProvider, /) -> None:
        if source not in get_args(SecretSource):
            raise ValueError("source: is none of env, file, google, callable, inline; write Secret.from_env(name)")
        object.__setattr__(self, "source", source)
        object.__setattr__(self, "_target", target)
        object.__setattr__(self, "reference", _reference(source, target))

    @classmethod
    def from_env(cls, name: str) -> Secret:
        """The value of an environment variable. Raises `ValueError` for what cannot be a variable's name.

        The name is not shown then: it may well be the key itself, passed by mistake.
        """
        return cls("env", name)

    @classmethod
    def from_file(cls, path: str | SupportsPath) -> Secret:
        """The text of a file, white space around it stripped. Raises `ValueError` for an empty path."""
        return cls("file", path if isinstance(path, str) else path.__fspath__())

    @classmethod
    def from_google(cls, path: str | SupportsPath = "") -> Secret:
        """Google's access tokens, which expire and are fetched anew: by a file of credentials (of a service account, or of a
        federation), or with an empty path by the application default credentials of the machine. Needs the extra ``google``.
        """
        return cls("google", path if isinstance(path, str) else path.__fspath__())

    @classmethod
    def from_callable(cls, fetch: CredentialProvider) -> Secret:
        """Whatever ``fetch()`` returns, for a vault or a token service. Raises `ValueError` for what cannot be called."""
        return cls("callable", fetch)

    @classmethod
    def inline(cls, value: str) -> Secret:
        """The value itself, for tests. Raises `ValueError` when it is empty or not a string."""
        return cls("inline", value)

    @property
    def env_name(self) -> str:
        """The environment variable's name."""
        return str(self._target_of("env"))

    @property
    def path(self) -> str:
        """The file's path."""
        return str(self._target_of("google" if self.source == "google" else "file"))

    @property
    def fetch(self) -> CredentialProvider:
        """The callable."""
        fetch: CredentialProvider = self._target_of("callable")
        return fetch

    def inline_value(self) -> str:
        """The value given to `inline`."""
        return str(self._target_of("inline"))

    def _target_of(self, source: SecretSource) -> Any:
        if self.source != source:
            raise RuntimeError(f"this Secret's source is {self.source}, not {source}")
        return object.__getattribute__(self, "_target")

    def __repr__(self) -> str:
        return f"Secret({self.source}: {self.reference})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return self.source == other.source and bool(self._target_of(self.source) == other._target_of(self.source))

    def __hash__(self) -> int:
        return hash((self.source, self.reference))

    def __reduce__(self) -> tuple[Any, ...]:
        if self.source in ("env", "file", "google"):
            return (Secret, (self.source, self._target_of(self.source)))
        raise TypeError(
            f"a Secret with source {self.source} cannot be pickled: its value could be in the pickle; "
            "use Secret.from_env or Secret.from_file"
        )


@dataclass(frozen=True, slots=True)
class StaticApiKey:
    """An API key that does not expire: read again only after a 401 or on request. Raises `ValueError` for no `Secret`."""

    secret: Secret

    def __post_init__(self) -> None:
        if not isinstance(self.secret, Secret):
            raise ValueError(f"secret: is of type {type(self.secret).__name__}, not Secret; write Secret.from_env(name)")


def _reference(source: SecretSource, target: object) -> str:
    """What may be shown of ``target``. Raises `ValueError`, without showing it, when it does not fit its source."""
    if source == "callable":
        if not callable(target):
            raise ValueError(f"fetch: is of type {type(target).__name__}, which cannot be called")
        named = target if hasattr(target, "__qualname__") else type(target)
        return f"{getattr(named, '__module__', None) or 'builtins'}.{getattr(named, '__qualname__', '')}"
    if not isinstance(target, str) or not (target or source == "google"):
        raise ValueError(f"{source}: is empty, or of type {type(target).__name__}; a non-empty str is wanted")
    if source == "env" and not _ENV_NAME.fullmatch(target):
        raise ValueError("name: is not the name of an environment variable (letters, digits, underscores; not shown here)")
    if source in ("file", "google") and "\0" in target:
        raise ValueError("path: holds a NUL (not shown here)")
    return _fingerprint(target) if source == "inline" else target


def _fingerprint(value: str) -> str:
    digest = hashlib.blake2b(value.encode("utf-8", "surrogatepass"), digest_size=6, person=b"credential")
    return digest.hexdigest()


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
