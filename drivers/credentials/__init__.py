"""Turning `Secret` references into credentials: what the drivers share that touches the environment and files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from sansio import Credential, Deployment, InferenceError, Secret, Unauthorized
from sansio.errors import ForeignError

from .google_tokens import check_google, google_token
from .unavailable import SecretUnavailable

__all__ = ["SecretUnavailable", "as_credential", "credential_error", "fingerprints", "read_secret", "reads_at_once"]


def reads_at_once(secret: Secret | None) -> bool:
    """Whether `read_secret` needs no I/O, so that an event loop may call it directly."""
    return secret is None or secret.source in ("env", "inline")


def read_secret(secret: Secret | None) -> Credential:
    """Resolve a reference to the environment, a file, an inline value, or (blocking on a network) to Google's tokens.

    Raises `SecretUnavailable` (a `ValueError`) saying why there is none; never with the value.
    """
    if secret is None:
        raise SecretUnavailable("api_key: is missing; give one, such as Secret.from_env('OPENAI_API_KEY')")
    match secret.source:
        case "env":
            value = os.environ.get(secret.env_name)
            if value is None:
                raise SecretUnavailable(f"api_key: the environment variable {secret.env_name} is not set")
        case "file":
            try:
                # An error of decoding would hold the file's bytes; a replaced character is refused without being shown.
                value = Path(secret.path).read_text(encoding="utf-8", errors="replace")
            except OSError as error:
                raise SecretUnavailable(f"api_key: {secret.path}: {error.strerror or type(error).__name__}") from error
        case "inline":
            value = secret.inline_value()
        case "google":
            return google_token(secret.path)
        case _:
            raise SecretUnavailable("api_key: a callable is fetched by its driver, not read")
    return _credential(value)


def as_credential(fetched: object) -> Credential:
    """What a callable returned, as a `Credential`. Raises `SecretUnavailable` for anything but one or a string."""
    if isinstance(fetched, Credential):
        return fetched
    if isinstance(fetched, str):
        return _credential(fetched)
    raise SecretUnavailable(f"api_key: the callable returned {type(fetched).__name__}, not a string or a Credential")


def credential_error(cause: BaseException) -> InferenceError:
    """What a failed fetch is reported as. Of a vault's own exception only the type is kept: its text may hold a key."""
    if isinstance(cause, SecretUnavailable):
        return Unauthorized(f"the credential could not be fetched: {cause}").caused_by(cause)
    kind = type(cause).__name__
    return Unauthorized(f"the credential could not be fetched: {kind}").caused_by(ForeignError(kind, "(text not kept)"))


def fingerprints(deployments: Iterable[Deployment]) -> dict[str, str]:
    """The fingerprints of the deployments' keys, by deployment, but of those that are fetched later (callables, Google's).

    Raises `ValueError` naming the deployment: a missing key is said when the engine is made, not with the first request.
    """
    found: dict[str, str] = {}
    for deployment in deployments:
        secret = deployment.config.secret
        try:
            if secret is not None and secret.source == "google":
                check_google(secret.path)
            elif secret is None or secret.source != "callable":
                found[deployment.name] = read_secret(secret).fingerprint
        except SecretUnavailable as error:
            raise ValueError(f"deployment {deployment.name!r}: {error}") from error
    return found


def _credential(text: str) -> Credential:
    try:
        return Credential.from_text(text)
    except ValueError as error:  # its text never shows the value
        raise SecretUnavailable(f"api_key: {error}") from None
