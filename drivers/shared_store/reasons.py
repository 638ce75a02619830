"""Why the store gave no answer, in a few words: what a `StoreLost` says.

A server's own text is never passed on. It may name the user, and a server may answer with whatever it was sent.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
from typing import Final

from .address import UnusableUrl

_BY_CODE: Final = {
    "NOAUTH": "the user or the password is refused",
    "WRONGPASS": "the user or the password is refused",
    "NOPERM": "the user may not run scripts on this key",
    "WRONGTYPE": "something else is stored at the key",
    "READONLY": "the server is a replica, which takes no writes",
    "LOADING": "the server is still loading its data",
    "MASTERDOWN": "the server is a replica that has lost its primary",
    "CLUSTERDOWN": "the server's cluster is down",
    "MOVED": "the key belongs to another server of a cluster",
    "ASK": "the key belongs to another server of a cluster",
    "TRYAGAIN": "the key is being moved to another server of a cluster",
    "OOM": "the server's memory is full",
    "MISCONF": "the server cannot save, and takes no writes",
    "NOREPLICAS": "the server has too few replicas to take writes",
    "BUSY": "the server is busy with another script",
}
"""By the word with which a server's error begins. Older servers have it in the middle, behind that of the script's error."""

_BY_KIND: Final = {
    "AuthenticationError": "NOAUTH",
    "AuthenticationWrongNumberOfArgsError": "NOAUTH",
    "AuthorizationError": "NOAUTH",
    "NoPermissionError": "NOPERM",
    "ReadOnlyError": "READONLY",
    "BusyLoadingError": "LOADING",
    "MasterDownError": "MASTERDOWN",
    "ClusterDownError": "CLUSTERDOWN",
    "MovedError": "MOVED",
    "AskError": "ASK",
    "TryAgainError": "TRYAGAIN",
    "OutOfMemoryError": "OOM",
}
"""The same by the name of redis-py's exception, which takes the word off the text."""

_CODE: Final = re.compile(rf"\b({'|'.join(_BY_CODE)})\b")
_DEPTH: Final = 8


def reason_for(error: BaseException) -> str:
    """Why there is no answer, where asking ended in ``error``: nothing in it is the URL's or the server's text."""
    if isinstance(error, UnusableUrl):
        return str(error)
    kinds = [kind.__name__ for kind in type(error).__mro__]
    for kind in kinds:
        if kind in _BY_KIND:
            return _BY_CODE[_BY_KIND[kind]]
    if "ResponseError" in kinds:
        code = _CODE.search(str(error))
        return _BY_CODE[code[0]] if code else "the server answered with an error"
    of_system = _system_error(error)
    if of_system is not None:
        return _of_system(of_system)
    if "ConnectionError" in kinds:
        return "the connection was lost"
    return f"the answer cannot be read ({type(error).__name__})"


def _system_error(error: BaseException) -> OSError | None:
    """What redis-py made its own error of."""
    behind: BaseException | None = error
    for _ in range(_DEPTH):
        if behind is None or isinstance(behind, OSError):
            return behind
        behind = behind.__cause__ or behind.__context__
    return None


def _of_system(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason or type(error).__name__})"
    if isinstance(error, socket.gaierror):
        return "the host's name cannot be looked up"
    return os.strerror(error.errno) if error.errno else "the server cannot be reached"
