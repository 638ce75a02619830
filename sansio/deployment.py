"""What is deployed where: configuration as values, built from types, mappings or TOML text.

Every table may be a mapping or the type itself. A mistake is a `ValueError` at construction that names the field by its
path, the value and what was expected; an unknown key is refused with the nearest known one.
"""

from __future__ import annotations

import difflib
import enum
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, TypeAlias, TypeVar, cast

from .budget import Budget
from .circuit_breaker import CircuitBreakerConfig
from .cluster.config import ClusterConfig
from .codec import ProviderCodec
from .http import Timeouts, parse_origin
from .prices import Price, price_for
from .providers import codec, options_of
from .queue import CapacityPolicy
from .rate_limit import RateLimits, quotas_of
from .retry import RetryPolicy
from .scrub import scrub
from .secret import Secret, StaticApiKey
from .session import SessionConfig

Config = TypeVar("Config")


_USUAL_RETRIES = RetryPolicy()
"""This very object stands for a policy that was not given."""


class OpenCircuitPolicy(enum.StrEnum):
    """What a request does when the circuit is open: fail at once, or wait within its deadline until it may go."""

    REJECT = "reject"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class Serving:
    """How much runs and waits at once.

    max_concurrent: worker slots. queue_capacity: how many wait in order for one. on_capacity_exhausted: what a full queue
    does with one more (`CapacityPolicy`). queue_timeout: seconds outside a full queue before `Backpressure`.
    on_circuit_open: `OpenCircuitPolicy`, unless the request says otherwise. age_after: seconds after which a waiting
    request counts one priority class higher. fair_tenants: tenants of one class take turns.
    """

    max_concurrent: int = 32
    queue_capacity: int = 1024
    on_capacity_exhausted: CapacityPolicy = CapacityPolicy.QUEUE
    queue_timeout: float = 30.0
    on_circuit_open: OpenCircuitPolicy = OpenCircuitPolicy.REJECT
    age_after: float | None = None
    fair_tenants: bool = False

    def __post_init__(self) -> None:
        _positive_int("max_concurrent", self.max_concurrent)
        _positive_int("queue_capacity", self.queue_capacity)
        _true_or_false("fair_tenants", self.fair_tenants)
        _seconds("queue_timeout", self.queue_timeout)
        if self.age_after is not None:
            _seconds("age_after", self.age_after)
        object.__setattr__(
            self, "on_capacity_exhausted", _choice(CapacityPolicy, "on_capacity_exhausted", self.on_capacity_exhausted)
        )
        object.__setattr__(self, "on_circuit_open", _choice(OpenCircuitPolicy, "on_circuit_open", self.on_circuit_open))


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """How a provider is reached, and what protects it.

    endpoint: what the provider's official SDK calls its base URL; ``None`` is the provider's own. api_key: a `Secret` (or
    `StaticApiKey`). credentials: a `Secret` that gives tokens which expire, in place of a key. api: which of the provider's
    APIs, where it has several; ``None`` is the default one. organization, project: sent along where given. options: what
    the provider's codec takes besides (in a mapping they may stand beside the rest: ``{"api_version": …}``).
    max_event_bytes, max_body_bytes: bounds on one event and on a whole answer.
    """

    endpoint: str | None = None
    api_key: Secret | StaticApiKey | None = None
    credentials: Secret | None = None
    api: str | None = None
    organization: str | None = None
    project: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    rate_limits: RateLimits = field(default_factory=RateLimits)
    retry: RetryPolicy = _USUAL_RETRIES
    circuit_breaker: CircuitBreakerConfig = field(default_factory=CircuitBreakerConfig)
    timeouts: Timeouts = field(default_factory=Timeouts)
    max_event_bytes: int = 16 * 1024 * 1024
    max_body_bytes: int = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        for name in ("endpoint", "api", "organization", "project"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                shown = repr(value) if isinstance(value, (int, float)) else f"a {type(value).__name__}"  # it may hold a key
                raise ValueError(f"{name}: {shown} is not a string")
        if self.endpoint is not None:
            try:
                parse_origin(self.endpoint)
            except ValueError as error:
                raise ValueError(f"endpoint: {error}") from None
        if not isinstance(self.options, Mapping):
            raise ValueError(f"options: {type(self.options).__name__} is not a mapping; leave it out or give a dict")
        if isinstance(self.api_key, str):
            raise ValueError(
                "api_key: is a bare string; write Secret.from_env(…), Secret.from_file(…) or, in a test, Secret.inline(…)"
            )
        if self.api_key is not None and not isinstance(self.api_key, (Secret, StaticApiKey)):
            raise ValueError(f"api_key: {type(self.api_key).__name__} is not a Secret")
        if self.credentials is not None and not isinstance(self.credentials, Secret):
            raise ValueError(
                f"credentials: {type(self.credentials).__name__} is not a Secret; write Secret.from_google(…) "
                "or Secret.from_callable(…)"
            )
        if self.api_key is not None and self.credentials is not None:
            raise ValueError("credentials: are given beside api_key; give one of both")
        _positive_int("max_event_bytes", self.max_event_bytes)
        _positive_int("max_body_bytes", self.max_body_bytes)
        for name, kind in _TABLES.items():
            object.__setattr__(self, name, from_mapping(kind, getattr(self, name), name))

    @property
    def secret(self) -> Secret | None:
        """The reference to the key or the credentials, whichever way it was given."""
        if self.credentials is not None:
            return self.credentials
        return self.api_key.secret if isinstance(self.api_key, StaticApiKey) else self.api_key


_TABLES: dict[str, type[Any]] = {
    "rate_limits": RateLimits, "retry": RetryPolicy, "circuit_breaker": CircuitBreakerConfig, "timeouts": Timeouts,
}  # fmt: skip

_RUNTIMES = {
    **dict.fromkeys(("gpt-", "chatgpt-", "o1", "o3", "o4"), "openai"), "claude-": "anthropic", "gemini-": "gemini",
}  # fmt: skip

_OWN_RETRIES = {"litellm": RetryPolicy(max_retries=1)}
"""Where the provider's name stands for a proxy that retries by itself: both together would multiply."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """One model at one provider under one key.

    runtime: the provider's name, or a `ProviderCodec` of one's own; it may be left out where the model's name tells it.
    price: per million tokens, where the built-in table has none or another one holds. budget: what may be spent.
    ``idempotent=False`` says that sending twice is never harmless: then nothing is retried.
    """

    name: str
    model: str
    runtime: str | ProviderCodec = ""
    runtime_config: RuntimeConfig | Mapping[str, Any] = field(default_factory=RuntimeConfig)
    serving: Serving | Mapping[str, Any] = field(default_factory=Serving)
    budget: Budget | Mapping[str, Any] | None = None
    price: Price | Mapping[str, Any] | None = None
    idempotent: bool = True

    def __post_init__(self) -> None:
        for name in ("name", "model"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise ValueError(f"{name}: {getattr(self, name)!r} is not a non-empty string")
        _true_or_false("idempotent", self.idempotent)
        if isinstance(self.runtime, type):  # it has all the methods, and cannot be asked
            raise ValueError(f"runtime: {self.runtime.__name__} is a class; give one of it, {self.runtime.__name__}(…)")
        if not isinstance(self.runtime, (str, ProviderCodec)):
            raise ValueError(f"runtime: {self.runtime!r} is neither a provider's name nor a ProviderCodec")
        if not self.runtime:
            runtime = next((name for prefix, name in _RUNTIMES.items() if self.model.startswith(prefix)), None)
            if runtime is None:
                raise ValueError(
                    f"runtime: cannot be told from the model's name {self.model!r}; set it, for example to 'openai'"
                )
            object.__setattr__(self, "runtime", runtime)
        config = from_mapping(RuntimeConfig, _options_apart(self.runtime_config), "runtime_config")
        object.__setattr__(self, "runtime_config", config)
        object.__setattr__(self, "serving", from_mapping(Serving, self.serving, "serving"))
        if self.budget is not None:
            object.__setattr__(self, "budget", from_mapping(Budget, self.budget, "budget"))
        if self.price is not None:
            object.__setattr__(self, "price", from_mapping(Price, self.price, "price"))
        if self.budget is not None and self.price_of_model is None:
            raise ValueError(
                f"budget: no price is known for the model {self.model!r}, so nothing could be counted; give price=…"
            )
        provider = self.codec().provider
        if config.retry is _USUAL_RETRIES and provider in _OWN_RETRIES:
            object.__setattr__(self, "runtime_config", replace(config, retry=_OWN_RETRIES[provider]))

    @property
    def config(self) -> RuntimeConfig:
        """``runtime_config`` as its type."""
        assert isinstance(self.runtime_config, RuntimeConfig)
        return self.runtime_config

    @property
    def served(self) -> Serving:
        """``serving`` as its type."""
        assert isinstance(self.serving, Serving)
        return self.serving

    @property
    def spending(self) -> Budget | None:
        """``budget`` as its type."""
        assert self.budget is None or isinstance(self.budget, Budget)
        return self.budget

    @property
    def price_of_model(self) -> Price | None:
        """The given price, else the built-in table's, else ``None``."""
        assert self.price is None or isinstance(self.price, Price)
        return self.price or price_for(self.model)

    def codec(self) -> ProviderCodec:
        """The provider's codec for this deployment. Raises `ValueError` for a runtime or an option it does not know."""
        config = self.config
        given = {name: value for name in _CODEC_FIELDS if (value := getattr(config, name)) is not None}
        for name in given:
            if name in config.options:
                raise ValueError(f"runtime_config: options: {name!r} is given twice")
        if not isinstance(self.runtime, str):
            options = [*given, *config.options, *(["api"] if config.api is not None else [])]
            if options:
                raise ValueError(
                    f"runtime_config: {options[0]}: is the codec's own, which was given as runtime; leave it out"
                )
            return self.runtime
        name = self.runtime if config.api is None else f"{self.runtime}_{config.api}"
        try:
            own = options_of(name)
        except ValueError as error:
            raise ValueError(f"runtime {name!r}: {scrub(str(error))}") from None
        known = sorted({*(each.name for each in fields(RuntimeConfig)), *own} - {"model", "options"})
        for option in config.options:
            if option not in own or option == "model":
                near = difflib.get_close_matches(str(option), known, 1)
                remedy = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
                raise ValueError(f"runtime_config: unknown key {option!r}; {remedy}")
        try:
            return codec(name, model=self.model, **given, **config.options)
        except ValueError as error:
            raise ValueError(f"runtime {name!r}: {scrub(str(error))}") from None


_CODEC_FIELDS = ("endpoint", "organization", "project")
"""Settings that are the codec's, where it has them."""


def _options_apart(table: object) -> object:
    """The same mapping with what is no field of `RuntimeConfig` put under ``options``, for the codec to take or refuse."""
    if not isinstance(table, Mapping):
        return table
    given = cast("Mapping[str, Any]", table)
    known = [each.name for each in fields(RuntimeConfig)]
    others = {key: value for key, value in given.items() if key not in known}
    if not others:
        return given
    fields_given = {key: value for key, value in given.items() if key in known}
    options: object = given.get("options", {})
    if not isinstance(options, Mapping):
        return fields_given  # which is refused for that
    apart = cast("Mapping[str, Any]", options)
    if twice := [key for key in others if key in apart]:
        raise ValueError(f"runtime_config: options: {twice[0]!r} is given twice")
    return {**fields_given, "options": {**apart, **others}}


def deployments_from_toml(text: str, *, source: str = "deployments") -> list[Deployment]:
    """The ``[[deployment]]`` tables of a TOML document, in order.

    ``source`` names the document in errors. Secrets are references: ``{ from_env = "NAME" }``, ``{ from_file = "PATH" }``,
    or for Google's credentials ``{ from_google = "PATH" }``, with an empty path for those of the machine. A key written out
    is refused, and never repeated in the message. Raises `ValueError`.
    """
    return _deployments(_document(text, source), source)


def shared_deployments_from_toml(text: str, *, source: str = "deployments") -> tuple[list[Deployment], ClusterConfig | None]:
    """As `deployments_from_toml`, and what the document's ``[cluster]`` table says, where there is one: the fields of
    `ClusterConfig`. Its ``url`` may also be a reference, as a key's. Raises `ValueError`."""
    document = _document(text, source)
    cluster: Any = document.pop("cluster", None)
    found = _deployments(document, source)
    if cluster is None:
        return found, None
    path = f"{source}: cluster"
    url: object = _table(cluster).get("url")
    if isinstance(url, Mapping):
        cluster = {**_table(cluster), "url": _secret(cast(object, url), _REFERENCES, f"{path}: url")}
    try:
        return found, ClusterConfig.of(cluster)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _document(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{source}: is not TOML: {error}") from None


def _deployments(document: dict[str, Any], source: str) -> list[Deployment]:
    tables: object = document.pop("deployment", None)
    if document:
        raise ValueError(f"{source}: unknown key {sorted(document)[0]!r}; deployments are [[deployment]] tables")
    if not isinstance(tables, list) or not tables:
        raise ValueError(f"{source}: has no [[deployment]] table")
    found: list[Deployment] = []
    for number, table in enumerate(cast("list[object]", tables), 1):
        path = f"{source}: deployment {number}"
        found.append(from_mapping(Deployment, _with_secret(table, path), path))
        if found[-1].name in {other.name for other in found[:-1]}:
            raise ValueError(f"{path}: name: {found[-1].name!r} is taken by an earlier deployment")
    return found


def from_mapping(kind: type[Config], value: object, path: str) -> Config:
    """``value`` if it is a ``kind`` already, else ``kind(**value)``; every `ValueError` names ``path``."""
    if isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"{path}: {type(value).__name__} is neither a {kind.__name__} nor a mapping")
    known = [f.name for f in fields(cast(Any, kind))]
    table = cast("Mapping[str, Any]", value)
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            raise ValueError(
                f"{path}: unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}")
            )
    required = [f.name for f in fields(cast(Any, kind)) if f.default is MISSING and f.default_factory is MISSING]
    if missing := [name for name in required if name not in table]:
        raise ValueError(f"{path}: {missing[0]!r} is missing; every {kind.__name__} needs {' and '.join(required)}")
    try:
        return kind(**table)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None


def _with_secret(table: object, path: str) -> object:
    """The same table with ``api_key`` and ``credentials`` turned from references in a file into a `Secret`."""
    outer = _table(table)
    path = f"{path}: runtime_config"
    config = _table(outer.get("runtime_config"))
    found = {name: _secret(config[name], ways, f"{path}: {name}") for name, ways in _SECRETS.items() if name in config}
    return {**outer, "runtime_config": {**config, **found}} if found else table


_REFERENCES = {"from_env": ("NAME", Secret.from_env), "from_file": ("PATH", Secret.from_file)}
_SECRETS = {"api_key": _REFERENCES, "credentials": _REFERENCES | {"from_google": ("PATH", Secret.from_google)}}


def _secret(value: object, ways: Mapping[str, tuple[str, Callable[[str], Secret]]], path: str) -> Secret:
    reference = _table(value)
    if len(reference) != 1 or (way := next(iter(reference))) not in ways or not isinstance(reference[way], str):
        known = " or ".join(f'{{ {name} = "{what}" }}' for name, (what, _) in ways.items())
        raise ValueError(f"{path}: must be a reference, {known}; a key itself is refused")
    try:
        return ways[way][1](reference[way])
    except ValueError as error:
        raise ValueError(f"{path}: {way}: {error}") from None


def _table(value: object) -> Mapping[str, Any]:
    """``value`` where it is a table, else an empty one."""
    empty: Mapping[str, Any] = {}
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else empty


def _positive_int(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}: {value!r} is not a whole number of at least 1")


def _seconds(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ValueError(f"{name}: {value!r} is not a number of seconds above 0")


def _true_or_false(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{name}: {value!r} is neither True nor False")


Choice = TypeVar("Choice", bound=enum.StrEnum)


def _choice(kind: type[Choice], name: str, value: str) -> Choice:
    try:
        return kind(value)
    except ValueError:
        raise ValueError(f"{name}: {value!r} is none of {', '.join(repr(str(member)) for member in kind)}") from None


Cluster: TypeAlias = ClusterConfig | Mapping[str, Any] | Secret | str
"""What may stand for a `ClusterConfig`: a table of its fields, or just the store's URL."""


@dataclass(frozen=True, slots=True)
class RemoteEngineConfig:
    """What one engine hosts: its deployments (at least one, names unique), how their sessions refresh, and where several
    processes share their limits, how (``cluster``: a `ClusterConfig`, a table of its fields, or just the store's URL)."""

    deployments: tuple[Deployment, ...]
    session: SessionConfig = field(default_factory=SessionConfig)
    cluster: Cluster | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "deployments", tuple(self.deployments))
        if not self.deployments:
            raise ValueError("deployments: is empty; give at least one Deployment")
        for deployment in self.deployments:
            if not isinstance(deployment, Deployment):
                raise ValueError(f"deployments: {type(deployment).__name__} is not a Deployment")
        object.__setattr__(self, "session", from_mapping(SessionConfig, self.session, "session"))
        for deployment in self.deployments:
            if deployment.config.rate_limits.strict and not quotas_of(deployment.config.rate_limits):
                raise ValueError(
                    f"rate_limits.strict: deployment {deployment.name!r} sets no limit that could be; "
                    "set requests_per_minute or another one beside it, or leave strict out"
                )
        if self.cluster is not None:
            try:
                object.__setattr__(self, "cluster", ClusterConfig.of(self.cluster))
            except (ValueError, TypeError) as error:
                raise ValueError(f"cluster: {error}") from None
        elif strict := [each.name for each in self.deployments if each.config.rate_limits.strict]:
            raise ValueError(
                f"rate_limits.strict: deployment {strict[0]!r} wants one count for all processes: that needs a store which "
                "they share; give cluster='redis://…', or leave strict out in a single process"
            )
        names = [deployment.name for deployment in self.deployments]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"deployments: the name {twice[0]!r} is given twice")

    @property
    def shared(self) -> ClusterConfig | None:
        """``cluster`` as its type."""
        assert self.cluster is None or isinstance(self.cluster, ClusterConfig)
        return self.cluster

    @staticmethod
    def from_toml(text: str, *, source: str = "deployments") -> RemoteEngineConfig:
        """All of a TOML document: its ``[[deployment]]`` tables, and its ``[cluster]`` table where it has one
        (`shared_deployments_from_toml`). Raises `ValueError`, naming ``source``."""
        deployments, cluster = shared_deployments_from_toml(text, source=source)
        try:
            return RemoteEngineConfig(tuple(deployments), cluster=cluster)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None

    @staticmethod
    def of(
        deployments: RemoteEngineConfig | Deployment | Sequence[Deployment], cluster: Cluster | None = None
    ) -> RemoteEngineConfig:
        """The configuration meant by whichever of these was given. A ``cluster`` given beside them holds."""
        if not isinstance(deployments, RemoteEngineConfig):
            several = (deployments,) if isinstance(deployments, Deployment) else tuple(deployments)
            return RemoteEngineConfig(several, cluster=cluster)
        return deployments if cluster is None else replace(deployments, cluster=cluster)
