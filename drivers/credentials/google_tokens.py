"""Google's access tokens, by google-auth: for Vertex, which takes no keys but tokens that expire within the hour.

Each token is fetched with everything read anew, so that a file which was replaced, or a machine whose identity changed, is
noticed with the next one. When that is due, and that it is done once for all who wait, is the session's business: nothing is
kept here.

What goes wrong is said in words of ours: the texts of google-auth quote what the token service answered.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast

from sansio import Credential

from .unavailable import SecretUnavailable

SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
"""What the tokens are for: Vertex, like all of Google Cloud."""

_LOADERS: Final[Mapping[str, tuple[str, str]]] = {
    "service_account": ("google.oauth2.service_account", "from_service_account_info"),
    "authorized_user": ("google.oauth2.credentials", "from_authorized_user_info"),
    "impersonated_service_account": ("google.auth.impersonated_credentials", "from_impersonated_service_account_info"),
    "external_account_authorized_user": ("google.auth.external_account_authorized_user", "from_info"),
    "external_account": ("google.auth.identity_pool", "from_info"),
}
"""The types of credentials a file may hold, and who makes them of it: google-auth's own choice by type is deprecated."""

_ERROR_CODE: Final = re.compile(r"[a-z_]{1,40}")


def check_google(path: str) -> None:
    """Whether tokens could be asked for, as far as this machine alone can tell.

    Raises `SecretUnavailable` where google-auth is not installed, or the file (if any) cannot be read or is another's.
    """
    _library("google.auth")
    _library("google.auth.transport.requests")
    if path:
        _read(path)


def google_token(path: str) -> Credential:
    """A fresh token, by the file of credentials at ``path``, or the machine's own for an empty one. Blocks.

    Raises `SecretUnavailable` saying why there is none.
    """
    check_google(path)
    auth, transport, exceptions = map(_library, ("google.auth", "google.auth.transport.requests", "google.auth.exceptions"))
    problem = ""
    found: Any = None
    request = transport.Request()
    try:
        found = _load(path) if path else auth.default(scopes=[SCOPE], request=request)[0]
        found.refresh(request)
    except exceptions.RefreshError as error:
        problem = f"Google gave no token for {path or 'this machine'}{_code_of(error)}"
    except exceptions.TransportError:
        problem = "Google's token service cannot be reached"
    except (exceptions.DefaultCredentialsError, ValueError, KeyError, TypeError):
        none_here = "this machine has no credentials for Google; give a path, or see `gcloud auth application-default login`"
        problem = f"{path}: is incomplete or damaged" if path else none_here
    finally:
        request.session.close()
    if problem:
        raise SecretUnavailable(f"credentials: {problem}")  # outside: nothing of theirs is chained to it
    expiry = cast("datetime | None", found.expiry)
    try:
        return Credential(found.token, None if expiry is None else expiry.replace(tzinfo=UTC).timestamp(), scheme="bearer")
    except ValueError as error:  # its text never shows the value
        raise SecretUnavailable(f"credentials: Google's token: {error}") from None


def _load(path: str) -> Any:
    info = _read(path)
    module, method = _LOADERS[info["type"]]
    if info["type"] == "external_account":
        source = info.get("credential_source")
        if isinstance(source, dict) and "environment_id" in source:
            module = "google.auth.aws"
        elif isinstance(source, dict) and "executable" in source:
            module = "google.auth.pluggable"
    return getattr(_library(module).Credentials, method)(info, scopes=[SCOPE])


def _read(path: str) -> dict[str, Any]:
    """The file of credentials, of a type we know."""
    problem = ""
    info: object = None
    try:
        info = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        problem = error.strerror or type(error).__name__
    except ValueError:
        problem = "is not JSON"
    else:
        kind: object = cast("dict[str, Any]", info).get("type") if isinstance(info, dict) else None
        if not isinstance(kind, str) or kind not in _LOADERS:
            problem = f"holds no credentials of Google's ({', '.join(_LOADERS)})"
    if problem:
        raise SecretUnavailable(f"credentials: {path}: {problem}")
    return cast("dict[str, Any]", info)


def _code_of(error: Exception) -> str:
    """The OAuth error code (RFC 6749, section 5.2), which is a word and never a secret."""
    said: object = error.args[1] if len(error.args) > 1 else None
    code: object = cast("dict[str, Any]", said).get("error") if isinstance(said, dict) else None
    return f": {code}" if isinstance(code, str) and _ERROR_CODE.fullmatch(code) else ""


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise SecretUnavailable(
            "credentials: google-auth is not installed: pip install 'inference-remote-core[google]'"
        ) from None
