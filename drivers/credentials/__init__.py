"""Turning `Secret` references into credentials: what the drivers share that touches the environment and files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from sansio import Credential, Deployment, InferenceError, Secret, Unauthorized

__all__ = ["as_credential", "credential_error", "fingerprints", "read_secret", "reads_at_once"]


def reads_at_once(secret: Secret | None) -> bool:
    """Whether `read_secret` needs no I/O, so that an event loop may call it directly."""
    return secret is None or secret.source in ("env", "inline")


def read_secret(secret: Secret | None) -> Credential:
    """Resolve a reference to the environment, a file or an inline value.

    Raises `ValueError` where there is no secret at all or it holds no usable value, `OSError` for a file that cannot be
    read; neither shows the value.
    """
    if secret is None:
        raise ValueError("api_key: is missing; give runtime_config an api_key such as Secret.from_env('OPENAI_API_KEY')")
    match secret.source:
        case "env":
            value = os.environ.get(secret.env_name)
            if value is None:
                raise ValueError(f"api_key: the environment variable {secret.env_name} is not set")
        case "file":
            value = Path(secret.path).read_text(encoding="utf-8")
        case "inline":
            value = secret.inline_value()
        case "callable":
            raise ValueError("api_key: a callable is fetched by its driver, not read")
    return Credential.from_text(value)


def as_credential(fetched: object) -> Credential:
    """What a callable returned, as a `Credential`. Raises `ValueError` for anything but one or a string."""
    if isinstance(fetched, Credential):
        return fetched
    if isinstance(fetched, str):
        return Credential.from_text(fetched)
    raise ValueError(f"api_key: the callable returned {type(fetched).__name__}, not a string or a Credential")


def credential_error(cause: BaseException) -> InferenceError:
    """What a failed fetch is reported as. Only the type of a foreign exception is shown: its text may hold a credential."""
    shown = (
        str(cause)
        if isinstance(cause, (ValueError, OSError)) and not isinstance(cause, UnicodeError)
        else type(cause).__name__
    )
    return Unauthorized(f"the credential could not be fetched: {shown}").caused_by(cause)


def fingerprints(deployments: Iterable[Deployment]) -> dict[str, str]:
    """The fingerprints of the deployments' keys, by deployment: those of callables are not known before they are called.

    Raises what `read_secret` raises: a missing key is said when the engine is made, not with the first request.
    """
    found: dict[str, str] = {}
    for deployment in deployments:
        secret = deployment.config.secret
        if secret is None or secret.source != "callable":
            try:
                found[deployment.name] = read_secret(secret).fingerprint
            except (ValueError, OSError) as error:
                raise ValueError(f"deployment {deployment.name!r}: {error}") from error
    return found
