"""What is said to a general client, and what it says: requests, response heads, failures, and its trace.

httpx and httpx2 share one interface and have types of their own, so the module is an argument of what needs its names. What
goes out is what the codec wrote, with the framing that the native client adds and nothing else: no header, cookie, parameter
or authentication that a client would add by itself.
"""

from __future__ import annotations

import functools
import ssl
from collections.abc import Callable, Iterator
from typing import Any, Final

from sansio import BadRequest, HttpEvent, HttpRequest, InferenceError, Internal, NetworkError, ProtocolError, ResponseHead
from sansio.errors import ForeignError
from sansio.http_checks import MAX_HEAD_BYTES, authority, coded, content_length, too_large
from sansio.scrub import excerpt

LONGEST_WAIT: Final = 86_400.0
"""Seconds a connect may be asked to wait for: some systems refuse more."""
SHORTEST_WAIT: Final = 0.001
"""Seconds: with none at all, a connect would not even be waited for, and fail as something else."""
MAX_TAIL_READS: Final = 4
"""How many more pieces an idle connection is read for before it is given up: a response may have no end."""
PATIENCE: Final = 0.05
"""Seconds in which the end of an answer must come that nobody waited for. Less than a new connection would take."""

_FRAMING: Final = frozenset({"host", "content-length", "transfer-encoding"})
"""Written here, from what is really sent."""


def extension_of_timeouts(seconds: float) -> dict[str, float | None]:
    """Connecting is bounded; all the other clocks are the engine's."""
    bound = min(max(seconds, SHORTEST_WAIT), LONGEST_WAIT)
    return {"connect": bound, "pool": bound, "read": None, "write": None}


def private_settings(module: Any, tls: ssl.SSLContext | None) -> dict[str, Any]:
    """The arguments of a client that holds one connection, for as long as the pool says. The environment names its proxies;
    verification is as for the native client."""
    limits = module.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=None)
    return {"verify": tls or trusting_nobody(), "limits": limits, "trust_env": True}


@functools.cache
def trusting_nobody() -> ssl.SSLContext:
    """For a client that goes to a plain origin, and asks for a context all the same."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def try_environment(module: Any) -> None:
    """Raise `ValueError` where the client cannot use the proxies that the environment names, rather than with each request.

    What it says of them is not shown: it may hold a password.
    """
    try:
        module.Client(verify=trusting_nobody(), trust_env=True).close()
    except ImportError:
        extra = f"pip install {module.__name__}[socks]"
        raise ValueError(f"client: {module.__name__} needs another package for this SOCKS proxy: {extra}") from None
    except (ValueError, module.InvalidURL):
        raise ValueError(f"client: {module.__name__} cannot use a proxy that the environment names") from None


def build_request(module: Any, request: HttpRequest, extensions: dict[str, Any]) -> Any:
    """The client's own request object. Raises `BadRequest` for a URL that the client refuses."""
    headers = [("host", authority(request.origin))]
    headers += [(name, value) for name, value in request.headers if name not in _FRAMING]
    if not any(name == "accept-encoding" for name, _ in request.headers):
        headers.append(("accept-encoding", "identity"))  # without it any coding would be acceptable (RFC 9110, 12.5.3)
    if (length := content_length(request)) is not None:
        headers.append(("content-length", str(length)))
    fields = [(name.encode("ascii"), value.strip(" \t").encode("latin-1")) for name, value in headers]
    try:
        return module.Request(request.method, request.url, headers=fields, content=request.body, extensions=extensions)
    except module.InvalidURL as error:
        raise BadRequest(f"{module.__name__} cannot send this request: {excerpt(str(error))[:200]}") from error


def read_head(response: Any) -> list[HttpEvent]:
    """The head of a response; then an error, if it or the body that follows is more than was asked for."""
    fields = tuple((name.decode("ascii").lower(), value.decode("latin-1")) for name, value in response.headers.raw)
    if (problem := too_large(fields)) is not None:
        return [problem]
    head = ResponseHead(response.status_code, fields)
    return [head] if (problem := coded(fields)) is None else [head, problem]


class Trace:
    """What httpcore tells of one request under way, by way of its ``trace`` extension.

    sending: called when the first byte is about to leave. dialled: whether a connection was made for it, if anything was
    told at all. stream: the connection, as far as it stands.
    """

    def __init__(self, sending: Callable[[], None]) -> None:
        self._sending = sending
        self.sent = False
        self.told = False
        self.dialled = False
        self.stream: Any = None

    @property
    def reused(self) -> bool:
        """Whether the request went over a connection that had carried another before. A transport that tells nothing is
        not believed to keep connections."""
        return self.told and not self.dialled

    def note(self, name: str, info: dict[str, Any]) -> bool:
        """An event, such as ``http11.send_request_headers.started``. Returns whether there is a new `stream`."""
        self.told = True
        match name.partition(".")[2]:
            case "connect_tcp.complete" | "connect_unix_socket.complete":
                self.dialled = True
                self.stream = info["return_value"]
                return True
            case "connect_tcp.started" | "connect_unix_socket.started":
                self.dialled = True
            case "start_tls.complete":
                self.stream = info["return_value"]
            case "send_request_headers.started" if info["request"].method != b"CONNECT":  # that one is for the proxy
                self.send()
            case _:
                pass
        return False

    def send(self) -> None:
        """The request is being sent, or must be taken to have been."""
        if not self.sent:
            self.sent = True
            self._sending()


def is_over_http1(response: Any) -> bool:
    """Whether a response has its connection to itself."""
    return not response.http_version.startswith("HTTP/2")


def is_open(stream: Any) -> bool:
    """Whether a connection still has its socket."""
    known = None if stream is None else stream.get_extra_info("socket")
    return known is None or known.fileno() >= 0


# ---- failures --------------------------------------------------------------------------------------------------------


def failed_before_sending(module: Any, error: Exception) -> bool:
    """Whether a client that told nothing of its sending cannot have sent anything: it had no connection."""
    unconnected = (module.ConnectError, module.ConnectTimeout, module.PoolTimeout, module.ProxyError)
    return isinstance(error, (*unconnected, module.UnsupportedProtocol, UnicodeError))  # the last: of a name's look-up


def failure(module: Any, error: Exception, request: HttpRequest) -> OSError | InferenceError:
    """What an exception of the client is here, with the exception chained, less the request that it refers to."""
    for cause in _causes(error):
        if cause.__cause__ is None and cause.args and isinstance(cause.args[0], BaseException):
            cause.__cause__ = cause.args[0]  # where it came from: httpcore tells, and then takes it back (`from None`)
    if isinstance(error, module.RequestError):
        said: Any = error
        said.request = module.Request(request.method, str(request.origin))  # the real one holds the key
    if isinstance(error, (OSError, InferenceError)):
        return error
    if isinstance(error, module.TimeoutException):
        return _chained(TimeoutError(_said(error)), error)
    if isinstance(error, module.RemoteProtocolError):
        return _not_as_agreed(error)
    if isinstance(error, module.ProxyError):
        refused = _said(error).startswith("ProxyError: 407")  # it wants a password: it will not want it less in a moment
        return NetworkError(f"the proxy refused: {_said(error)}", retryable=not refused).caused_by(error)
    if isinstance(error, (module.UnsupportedProtocol, module.LocalProtocolError)):
        return BadRequest(f"{module.__name__} cannot send this request: {_said(error)}").caused_by(error)
    if isinstance(error, module.TransportError):
        return NetworkError(_said(error)).caused_by(error)
    if isinstance(error, UnicodeError):
        return NetworkError(f"{request.origin.host!r} is not a host name").caused_by(error)
    return Internal(f"{module.__name__} failed: {_said(error)}").caused_by(error)


def _not_as_agreed(error: Exception) -> InferenceError:
    """The peer hung up half-way, or what it sent is not HTTP. h11's exception, where there is one, tells which."""
    said = excerpt(str(error))[:200]
    source = next((cause for cause in _causes(error) if hasattr(cause, "error_status_hint")), None)
    if source is None or said.startswith("peer closed connection"):
        return NetworkError("the connection was closed before the response ended").caused_by(error)
    past_bound = getattr(source, "error_status_hint", None) == 431  # its mark for "more than may be buffered"
    words = f"a response head is larger than {MAX_HEAD_BYTES} bytes" if past_bound else f"not HTTP/1.1: {said}"
    return ProtocolError(words, retryable=not past_bound).caused_by(ForeignError(type(error).__name__, said))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {excerpt(str(error))[:200]}"


def _chained(error: OSError, cause: Exception) -> OSError:
    error.__cause__ = cause
    return error
