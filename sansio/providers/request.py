"""What the requests of all providers have in common: who sends them, the base URL, the credential's header, a JSON body."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from .._version import __version__
from ..http import Headers, parse_origin
from ..secret import Credential

USER_AGENT: Final = f"inference-remote-core/{__version__}"
"""What requests call their sender."""


def check_base_url(url: object) -> None:
    """Refuse what is no base URL to which a path can be added. Raises `ValueError` naming ``endpoint``."""
    if not isinstance(url, str):
        raise ValueError(f"endpoint: {url!r} is not a string")
    try:
        parse_origin(url)
    except ValueError as error:
        raise ValueError(f"endpoint: {error}") from None
    if "?" in url or "#" in url:
        raise ValueError(f"endpoint: {url!r} holds a query or a fragment; a path is added to it")


def check_strings(codec: object, *names: str, optional: tuple[str, ...] = ()) -> None:
    """Refuse options of a codec that are no strings (``optional`` ones may be ``None``). Raises `ValueError` naming one."""
    for name in (*names, *optional):
        value = getattr(codec, name)
        if not isinstance(value, str) and not (value is None and name in optional):
            raise ValueError(f"{name}: {value!r} is not a string")


def json_headers(*, stream: bool) -> Headers:
    """What is sent, what is wanted back, and who asks."""
    return (
        ("content-type", "application/json"),
        ("accept", "text/event-stream" if stream else "application/json"),
        ("user-agent", USER_AGENT),
    )


def credential_header(credential: Credential, key_header: str, *, usual: str = "api_key") -> tuple[str, str]:
    """The header that carries a credential: a bearer token in ``authorization``, a key in ``key_header`` (which may be
    ``authorization`` too). usual: what a credential is that does not say (`Credential.scheme`)."""
    if key_header == "authorization" or (credential.scheme or usual) == "bearer":
        return "authorization", f"Bearer {credential.reveal()}"
    return key_header, credential.reveal()


def json_body(body: dict[str, Any]) -> bytes:
    """A request's body. Raises `ValueError` for what cannot be written, as ``extra`` may hold anything."""
    try:
        return msgspec.json.encode(body)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise ValueError(f"batch: cannot be written as JSON: {error}") from None
