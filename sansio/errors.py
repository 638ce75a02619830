"""What can go wrong, as values.

Every failure of a request is one `InferenceError`: one level of subclasses, one per kind. A kind knows whether sending
again could help (`retryable`), whether the endpoint's circuit breaker counts it (`counts_as_circuit_failure`), and whether
the key rather than the endpoint is to blame (`blames_key`). The core passes errors around as values inside events; only a
driver raises them.

An error never holds a credential: bodies are truncated and scrubbed where they are classified (`classify.py`), and the
text of a foreign exception is kept only as its type and its scrubbed message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypedDict

from .batch import Tokens, TokenUsage
from .scrub import blot_out, excerpt

if TYPE_CHECKING:
    from typing import Unpack


class _Verdict(TypedDict, total=False):
    code: str | None
    provider_request_id: str | None
    should_retry: bool | None
    max_retries: int | None
    retryable: bool
    counts_as_circuit_failure: bool
    blames_key: bool


class _ContextOfStatus(_Verdict, total=False):
    status: int | None
    body: str | None


class _ContextOfProvider(_Verdict, total=False):
    provider: str
    retry_after: float | None


class ErrorContext(_ContextOfStatus, _ContextOfProvider, total=False):
    """What any error may carry, whatever its kind.

    provider: the codec's name, such as ``"openai"``.
    status: the HTTP status that carried the error, where there was one.
    code: the provider's own code or type, such as ``"insufficient_quota"``.
    body: a bounded, scrubbed excerpt of what the provider said.
    provider_request_id: the provider's id for this request, for its support desk.
    retry_after: the hint, in seconds from the moment it was received.
    should_retry: the provider's own word (``x-should-retry``); ``False`` always wins.
    max_retries: how often a request that met this is retried at most, where its provider advises fewer than the policy.
    retryable, counts_as_circuit_failure, blames_key: override what the kind says, for one instance.

    (Its parts, named with a leading underscore, are for kinds that take the other fields by position.)
    """


_COMMON_FIELDS: Final = (
    *("provider", "status", "code", "body", "provider_request_id", "retry_after", "should_retry", "max_retries"),
)
"""What any error may carry besides its kind's own fields and the flags."""


class InferenceError(Exception):
    """The base of every failure. Not raised itself.

    ``cause`` (the same object as ``__cause__``) is what led to it: another `InferenceError`, or a foreign exception.
    """

    kind: ClassVar[str] = "inference_error"
    retryable: bool = False
    counts_as_circuit_failure: bool = False
    blames_key: bool = False

    def __init__(self, message: str = "", **context: Unpack[ErrorContext]) -> None:
        super().__init__(message or self.kind.replace("_", " "))
        self.message: str = message or self.kind.replace("_", " ")
        self.provider: str = context.get("provider", "")
        self.status: int | None = context.get("status")
        self.code: str | None = context.get("code")
        self.body: str | None = context.get("body")
        self.provider_request_id: str | None = context.get("provider_request_id")
        self.retry_after: float | None = context.get("retry_after")
        self.should_retry: bool | None = context.get("should_retry")
        self.max_retries: int | None = context.get("max_retries")
        for flag in ("retryable", "counts_as_circuit_failure", "blames_key"):
            if (value := context.get(flag)) is not None:
                setattr(self, flag, value)

    @property
    def cause(self) -> BaseException | None:
        """What led to this error, or ``None``."""
        return self.__cause__

    def caused_by(self, cause: BaseException | None) -> InferenceError:
        """Chain ``cause`` and return this error, so that it can be built and chained in one expression."""
        self.__cause__ = cause
        return self

    def redact(self, secrets: Sequence[str]) -> None:
        """Blot these values out of this error and its causes: a provider may echo a key in any words."""
        self.message = blot_out(self.message, secrets)
        self.args = (self.message,)
        for name in ("code", "body", "provider_request_id"):
            if (value := getattr(self, name)) is not None:
                setattr(self, name, blot_out(value, secrets))
        cause = self.__cause__
        if isinstance(cause, InferenceError):
            cause.redact(secrets)
        elif cause is not None and blot_out(str(cause), secrets) != str(cause):
            self.__cause__ = ForeignError(type(cause).__name__, blot_out(excerpt(str(cause)), secrets))

    def _fields(self) -> dict[str, Any]:
        """The fields of this kind beyond the common ones, as JSON values. Overridden by kinds that have some."""
        return {}

    @classmethod
    def _from_fields(cls, message: str, fields: Mapping[str, Any], context: dict[str, Any]) -> InferenceError:
        return cls(message=message, **context)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, complete enough for `from_dict` to rebuild an equal error, its causes included."""
        kind = type(self)
        out: dict[str, Any] = {"kind": self.kind, "message": self.message}
        for name in _COMMON_FIELDS:
            if (value := getattr(self, name)) is not None:
                out[name] = value
        for flag in ("retryable", "counts_as_circuit_failure", "blames_key"):
            if getattr(self, flag) != getattr(kind, flag):
                out[flag] = getattr(self, flag)
        out.update(self._fields())
        if self.__cause__ is not None:
            out["cause"] = _cause_to_dict(self.__cause__)
        return out

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> InferenceError:
        """Rebuild an error from `to_dict`. Raises `ValueError` for an unknown ``kind`` (it names the known ones)."""
        kind = _KINDS.get(str(data.get("kind")))
        if kind is None:
            raise ValueError(f"kind: {data.get('kind')!r} is no kind of InferenceError; known: {', '.join(sorted(_KINDS))}")
        context = {name: data[name] for name in ErrorContext.__annotations__ if name in data}
        error = kind._from_fields(data.get("message", ""), data, context)
        if (cause := data.get("cause")) is not None:
            error.__cause__ = _cause_from_dict(cause)
        return error

    def __reduce__(self) -> tuple[Any, ...]:
        return (InferenceError.from_dict, (self.to_dict(),))


class ForeignError(Exception):
    """Stands for a cause that was not an `InferenceError`, after a round trip through `InferenceError.to_dict`."""

    def __init__(self, type_name: str, message: str) -> None:
        super().__init__(f"{type_name}: {message}")
        self.type_name: str = type_name
        self.message: str = message


def _cause_to_dict(cause: BaseException) -> dict[str, Any]:
    if isinstance(cause, InferenceError):
        return cause.to_dict()
    if isinstance(cause, ForeignError):
        return {"kind": "foreign", "type": cause.type_name, "message": cause.message}
    return {"kind": "foreign", "type": type(cause).__name__, "message": excerpt(str(cause))}


def _cause_from_dict(data: Mapping[str, Any]) -> Exception:
    if data.get("kind") == "foreign":
        return ForeignError(str(data.get("type", "")), str(data.get("message", "")))
    return InferenceError.from_dict(data)


class RateLimited(InferenceError):
    """429: over the provider's limit. ``retry_after`` is the hint in seconds, or ``None``. RFC 6585, section 4."""

    kind = "rate_limited"
    retryable = True

    def __init__(
        self, provider: str = "", retry_after: float | None = None, message: str = "", **context: Unpack[_ContextOfStatus]
    ) -> None:
        super().__init__(message, provider=provider, retry_after=retry_after, **context)


class QuotaExhausted(InferenceError):
    """The account has no money or quota left: terminal until somebody pays, whatever the status said."""

    kind = "quota_exhausted"
    blames_key = True


class CircuitOpen(InferenceError):
    """Refused here, without being sent: the circuit is open. The instants are Unix milliseconds, ``retry_after`` seconds."""

    kind = "circuit_open"

    def __init__(
        self,
        provider: str = "",
        opened_at_unix_ms: int = 0,
        retry_at_unix_ms: int = 0,
        retry_after: float | None = None,
        message: str = "",
        **context: Unpack[_ContextOfStatus],
    ) -> None:
        super().__init__(message, provider=provider, retry_after=retry_after, **context)
        self.opened_at_unix_ms: int = opened_at_unix_ms
        self.retry_at_unix_ms: int = retry_at_unix_ms

    def _fields(self) -> dict[str, Any]:
        return {"opened_at_unix_ms": self.opened_at_unix_ms, "retry_at_unix_ms": self.retry_at_unix_ms}

    @classmethod
    def _from_fields(cls, message: str, fields: Mapping[str, Any], context: dict[str, Any]) -> InferenceError:
        opened, retry = fields.get("opened_at_unix_ms", 0), fields.get("retry_at_unix_ms", 0)
        return cls(opened_at_unix_ms=opened, retry_at_unix_ms=retry, message=message, **context)


class ContentFiltered(InferenceError):
    """The provider's policy refused the prompt or the answer."""

    kind = "content_filtered"


class ContextLengthExceeded(InferenceError):
    """The prompt is longer than the model's context."""

    kind = "context_length_exceeded"


class BadRequest(InferenceError):
    """The provider calls the request malformed: sending it again cannot help."""

    kind = "bad_request"


class Unauthorized(InferenceError):
    """401: the credential is missing, wrong, expired or revoked."""

    kind = "unauthorized"
    blames_key = True


class Forbidden(InferenceError):
    """403: the credential is known and may not do this."""

    kind = "forbidden"
    blames_key = True


class NotFound(InferenceError):
    """404: no such model, deployment or path, or no access to it."""

    kind = "not_found"


class Conflict(InferenceError):
    """409 or 425: a lock or an early replay; sending again may help."""

    kind = "conflict"
    retryable = True


class Backpressure(InferenceError):
    """Refused here: the queue of the deployment is full. ``fallback`` marks it for a router to take elsewhere."""

    kind = "backpressure"

    def __init__(self, message: str = "", *, fallback: bool = False, **context: Unpack[ErrorContext]) -> None:
        super().__init__(message, **context)
        self.fallback: bool = fallback

    def _fields(self) -> dict[str, Any]:
        return {"fallback": True} if self.fallback else {}

    @classmethod
    def _from_fields(cls, message: str, fields: Mapping[str, Any], context: dict[str, Any]) -> InferenceError:
        return cls(message, fallback=bool(fields.get("fallback")), **context)


class BudgetExceeded(InferenceError):
    """Refused here: the deployment's budget does not cover the request."""

    kind = "budget_exceeded"


class LimitExceeded(InferenceError):
    """Refused here or by the provider: this one request is larger than a limit can ever grant."""

    kind = "limit_exceeded"


class NetworkError(InferenceError):
    """The connection could not be made, was lost, or ended before the answer's proof of completeness.

    ``unprocessed``: the server has said that it did not look at the request (RFC 9113, section 8.7), so that even one that
    must not be done twice may go again. ``reset``: the server gave up this request alone (RST_STREAM), on a connection that
    stands: that is an answer, and no keep-alive race.
    """

    kind = "network_error"
    retryable = True
    counts_as_circuit_failure = True

    def __init__(
        self, message: str = "", *, unprocessed: bool = False, reset: bool = False, **context: Unpack[ErrorContext]
    ) -> None:
        super().__init__(message, **context)
        self.unprocessed = unprocessed
        self.reset = reset

    def _fields(self) -> dict[str, Any]:
        return {name: True for name in ("unprocessed", "reset") if getattr(self, name)}

    @classmethod
    def _from_fields(cls, message: str, fields: Mapping[str, Any], context: dict[str, Any]) -> InferenceError:
        unprocessed, reset = fields.get("unprocessed") is True, fields.get("reset") is True
        return cls(message, unprocessed=unprocessed, reset=reset, **context)


class ServerError(InferenceError):
    """5xx: the provider's fault. ``body`` is a bounded excerpt."""

    kind = "server_error"
    retryable = True
    counts_as_circuit_failure = True

    def __init__(
        self, status: int | None = 500, body: str | None = None, message: str = "", **context: Unpack[_ContextOfProvider]
    ) -> None:
        super().__init__(message, status=status, body=body, **context)

    @classmethod
    def _from_fields(cls, message: str, fields: Mapping[str, Any], context: dict[str, Any]) -> InferenceError:
        context.setdefault("status", None)  # left out by `to_dict`, and not the default here
        return cls(message=message, **context)


class Timeout(InferenceError):
    """One clock of an attempt ran out (``phase``: connect, first byte, read, content, total), or the provider sent 408."""

    kind = "timeout"
    retryable = True
    counts_as_circuit_failure = True

    def __init__(
        self, elapsed_ms: float = 0.0, message: str = "", *, phase: str = "", **context: Unpack[ErrorContext]
    ) -> None:
        super().__init__(message, **context)
        self.elapsed_ms: float = elapsed_ms
        self.phase: str = phase

    def _fields(self) -> dict[str, Any]:
        return {"elapsed_ms": self.elapsed_ms, "phase": self.phase}

    @classmethod
    def _from_fields(cls, message: str, fields: Mapping[str, Any], context: dict[str, Any]) -> InferenceError:
        return cls(fields.get("elapsed_ms", 0.0), message, phase=fields.get("phase", ""), **context)


class DeadlineExceeded(InferenceError):
    """The request's own deadline passed, or could not be met: said as soon as it is known, not after the wait."""

    kind = "deadline_exceeded"


class StreamInterrupted(InferenceError):
    """A stream broke after its commit point. Never replayed.

    ``partial`` is the output so far, ``usage`` what is known of the usage (its ``provenance`` says how well; ``None`` is
    unknown, never zero), ``cause`` what broke it. It counts for the circuit as its cause does.
    """

    kind = "stream_interrupted"

    def __init__(
        self,
        partial: Tokens | None = None,
        usage: TokenUsage | None = None,
        cause: BaseException | None = None,
        message: str = "",
        **context: Unpack[ErrorContext],
    ) -> None:
        if not message:
            message = "the stream broke after its first content" + (f": {excerpt(str(cause))}" if cause is not None else "")
        if isinstance(cause, InferenceError):
            context.setdefault("provider", cause.provider)
            context.setdefault("counts_as_circuit_failure", cause.counts_as_circuit_failure)
            context.setdefault("blames_key", cause.blames_key)
        super().__init__(message, **context)
        self.partial: Tokens | None = partial
        self.usage: TokenUsage | None = usage
        self.__cause__ = cause

    def _fields(self) -> dict[str, Any]:
        out: dict[str, Any] = {}
        if self.partial is not None:
            out["partial"] = self.partial.to_dict()
        if self.usage is not None:
            out["usage"] = self.usage.to_dict()
        return out

    @classmethod
    def _from_fields(cls, message: str, fields: Mapping[str, Any], context: dict[str, Any]) -> InferenceError:
        partial, usage = fields.get("partial"), fields.get("usage")
        return cls(  # without its cause, which `from_dict` chains: the flags are restored, not derived again
            None if partial is None else Tokens.from_dict(partial),
            None if usage is None else TokenUsage.from_dict(usage),
            message=message,
            **context,
        )


class ProtocolError(InferenceError):
    """What came is not what was asked for: not HTTP, not SSE, not JSON, an unexpected status, or past a bound.

    Not retryable as a kind; the places where a second try may well go right (garbled bytes) say so on the instance.
    """

    kind = "protocol_error"


class EngineClosed(InferenceError):
    """The engine was closed or is draining: nothing new is accepted."""

    kind = "engine_closed"


class Unsupported(InferenceError):
    """The deployment or its provider cannot do what was asked."""

    kind = "unsupported"


class Internal(InferenceError):
    """A defect of this library, or of code it was handed, kept from taking other requests down with it."""

    kind = "internal"


_KINDS: dict[str, type[InferenceError]] = {
    kind.kind: kind
    for kind in (
        *(RateLimited, QuotaExhausted, CircuitOpen, ContentFiltered, ContextLengthExceeded, BadRequest, Unauthorized),
        *(Forbidden, NotFound, Conflict, Backpressure, BudgetExceeded, LimitExceeded, NetworkError, ServerError, Timeout),
        *(DeadlineExceeded, StreamInterrupted, ProtocolError, EngineClosed, Unsupported, Internal),
    )
}
