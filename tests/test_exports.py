"""What is public, name by name: `__all__` is a decision, so a name that comes or goes is a change to this file too."""

from __future__ import annotations

import ast
import importlib
import inspect
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

import sansio

SANSIO = [
    "AbortAttempt",
    "AddRequest",
    "AskStore",
    "Attempt",
    "AttemptEnded",
    "AttemptOutcome",
    "BackoffPolicy",
    "Backpressure",
    "BadRequest",
    "Budget",
    "BudgetExceeded",
    "Cancel",
    "CapacityPolicy",
    "CircuitAction",
    "CircuitBreaker",
    "CircuitBreakerConfig",
    "CircuitOpen",
    "CircuitPermit",
    "CircuitRejection",
    "CircuitState",
    "CircuitTransition",
    "Close",
    "ClusterConfig",
    "Committed",
    "Complete",
    "Conflict",
    "ConnectionPool",
    "ContentFiltered",
    "ContentPart",
    "ContextLengthExceeded",
    "CostEstimate",
    "Credential",
    "CredentialProvider",
    "DeadlineExceeded",
    "Deployment",
    "Drain",
    "Drained",
    "END",
    "Effect",
    "EndOfResponse",
    "EngineClosed",
    "EngineMetrics",
    "Event",
    "Exchange",
    "ExchangeConfig",
    "ExecuteBatch",
    "Forbidden",
    "GCounter",
    "GiveUp",
    "Grant",
    "HeadReceived",
    "Http1Connection",
    "Http2",
    "Http2Connection",
    "HttpEvent",
    "HttpRequest",
    "ImagePart",
    "InferenceError",
    "Internal",
    "JitterKind",
    "LimitExceeded",
    "Message",
    "NetworkError",
    "NotFound",
    "Notice",
    "OnSilence",
    "OnStoreLost",
    "OpenCircuitPolicy",
    "Origin",
    "Outcome",
    "OverrideCircuit",
    "Permit",
    "PoolConfig",
    "PoolOrders",
    "Price",
    "Priority",
    "PriorityRequest",
    "ProtocolError",
    "ProviderCodec",
    "QuotaExhausted",
    "RateLimitDimension",
    "RateLimitSnapshot",
    "RateLimited",
    "RateLimiter",
    "RateLimiterSnapshot",
    "RateLimits",
    "RebuildSession",
    "RefreshSession",
    "RemoteEngineConfig",
    "RemoteEngineCore",
    "RemoteSession",
    "RemoteWorker",
    "RequestQueue",
    "ResponseHead",
    "Retry",
    "RetryBudget",
    "RetryDecision",
    "RetryEngine",
    "RetryPolicy",
    "RuntimeConfig",
    "Secret",
    "ServerError",
    "Serving",
    "SessionConfig",
    "SessionRebuildCause",
    "SessionReport",
    "SessionSnapshot",
    "SharingMode",
    "SseChunk",
    "SseDecoder",
    "SseLimitExceeded",
    "StartAttempt",
    "StaticApiKey",
    "StoreReport",
    "StreamDecoder",
    "StreamInterrupted",
    "StrictRateLimiter",
    "Switchboard",
    "TextPart",
    "Tick",
    "Timeout",
    "Timeouts",
    "Todo",
    "TokenBucket",
    "TokenChunk",
    "TokenEstimate",
    "TokenUsage",
    "Tokens",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "Unauthorized",
    "Unsupported",
    "Wait",
    "__version__",
    "classify_http_status",
    "compute_backoff",
    "deployments_from_toml",
    "describe",
    "parse_retry_after",
    "replay_response",
    "retry_after_from_headers",
    "trace_line",
]

SIMULATION = [
    "Action",
    "Alpn",
    "Answer",
    "Ask",
    "BadNetwork",
    "Break",
    "Call",
    "CallObserver",
    "CallerPlan",
    "Choice",
    "ClockJump",
    "Close",
    "CloseOnReuse",
    "CloseWithoutResponse",
    "Conditions",
    "Disturbance",
    "DoneWithoutFinish",
    "DrainNow",
    "DripBytes",
    "ErrorFrame",
    "FAULTS",
    "FOREVER",
    "Fault",
    "FaultScript",
    "Faults",
    "Format",
    "GarbageBytes",
    "GoAway",
    "HostPlan",
    "INVARIANTS",
    "InvariantViolated",
    "Judge",
    "LimitRefusal",
    "LimitView",
    "MockConnection",
    "MockProvider",
    "NeverRespond",
    "ObservedCore",
    "Observer",
    "OpenAiChat",
    "Operate",
    "Outcome",
    "OversizedEvent",
    "OversizedHeader",
    "PingsOnly",
    "Plan",
    "ProviderLimiter",
    "ProviderLimits",
    "Refusal",
    "RefuseStream",
    "Report",
    "RequestRecord",
    "Reset",
    "ResetAtByte",
    "RotateKey",
    "RotateKeys",
    "SCENARIOS",
    "Scenario",
    "Scene",
    "Send",
    "SimulatedEngine",
    "SlowFirstByte",
    "SlowTokens",
    "Span",
    "StallAfterChunks",
    "StallAfterHead",
    "Stamp",
    "Status",
    "Throttle",
    "Timeline",
    "Timer",
    "Truncate",
    "VaultDown",
    "VirtualClock",
    "World",
    "WrongContentType",
    "count_tokens",
    "expected_text",
    "header",
    "plan",
    "plan_of",
    "prompt_id",
    "run",
    "shrink",
]

PINNED = {
    "sansio": SANSIO,
    "sansio.simulation": SIMULATION,
    "drivers.asyncio_driver": ["HttpClient", "RemoteEngine", "TokenStream", "build_client", "decode_sse_stream"],
    "drivers.sync_driver": ["HttpClient", "RemoteEngine", "TokenStream", "build_client", "decode_sse_stream"],
    "drivers.trio_driver": ["HttpClient", "RemoteEngine", "TokenStream", "build_client", "decode_sse_stream"],
    "drivers.virtual_time": ["VirtualEventLoop", "client_of", "engine_of", "event_loop", "run", "run_trio"],
    "drivers.mock_provider": ["MockServer", "ThreadedMockServer", "serve", "serve_in_thread"],
}

OF_THE_CRATE = [
    "BackoffPolicy",
    "JitterKind",
    "compute_backoff",
    "CircuitBreaker",
    "CircuitBreakerConfig",
    "CircuitPermit",
    "CircuitState",
    "CircuitTransition",
    "classify_http_status",
    "parse_retry_after",
    "retry_after_from_headers",
    "AddRequest",
    "EngineMetrics",
    "RemoteEngineConfig",
    "RemoteEngineCore",
    "HttpRequest",
    "ResponseHead",
    "Timeouts",
    "Priority",
    "PriorityRequest",
    "RequestQueue",
    "RateLimits",
    "RateLimiter",
    "Permit",
    "TokenBucket",
    "RetryPolicy",
    "RetryEngine",
    "RetryDecision",
    "Retry",
    "GiveUp",
    "RetryBudget",
    "Attempt",
    "RemoteSession",
    "SessionConfig",
    "SessionSnapshot",
    "SessionRebuildCause",
    "Secret",
    "StaticApiKey",
    "SseDecoder",
    "SseChunk",
    "RemoteWorker",
    "Exchange",
    "InferenceError",
    "ProviderCodec",
    "ExecuteBatch",
    "TokenChunk",
    "Tokens",
    "TokenUsage",
    "CostEstimate",
    "Budget",
    "Deployment",
    "Serving",
    "CapacityPolicy",
]
"""What the crate's page promises, under the names it has here."""

MODULES = sorted(PINNED)


@pytest.mark.parametrize("name", MODULES)
def test_the_public_names_are_these(name: str) -> None:
    module = importlib.import_module(name)
    assert sorted(module.__all__) == sorted(PINNED[name])
    assert len(set(module.__all__)) == len(module.__all__)
    for public in module.__all__:
        assert hasattr(module, public), public


def test_a_star_import_gives_them() -> None:
    namespace: dict[str, object] = {}
    exec("from sansio import *", namespace)
    assert set(SANSIO) <= set(namespace)


def test_every_name_of_the_crate_that_works_is_there() -> None:
    assert [name for name in OF_THE_CRATE if name not in sansio.__all__] == []


def test_every_kind_of_error_is_there() -> None:
    kinds = {kind.__name__ for kind in sansio.InferenceError.__subclasses__()}
    assert kinds <= set(sansio.__all__)


def test_the_three_drivers_have_the_same_names() -> None:
    assert PINNED["drivers.asyncio_driver"] == PINNED["drivers.sync_driver"] == PINNED["drivers.trio_driver"]


@pytest.mark.parametrize("name", ["RemoteEngine", "TokenStream", "build_client", "decode_sse_stream"])
def test_and_the_same_arguments(name: str) -> None:
    drivers = [importlib.import_module(f"drivers.{driver}_driver") for driver in ("asyncio", "sync", "trio")]
    signatures = {str(inspect.signature(getattr(driver, name))) for driver in drivers}
    if name == "decode_sse_stream":  # what gives the bytes is asynchronous or is not
        signatures = {signature.replace("Async", "").partition("->")[0] for signature in signatures}
    elif name == "build_client":
        signatures = {signature.partition("->")[0] for signature in signatures}
    assert len(signatures) == 1


def test_and_the_same_methods() -> None:
    names: list[set[str]] = []
    for driver in ("asyncio", "sync", "trio"):
        engine = importlib.import_module(f"drivers.{driver}_driver").RemoteEngine
        public = {name for name in dir(engine) if not name.startswith("_")}
        names.append({name.removeprefix("a") if name == "aclose" else name for name in public} - {"now"})
    assert names[0] == names[1] == names[2]


# ---- each has its docstring ---------------------------------------------------------------------------------------------


def undocumented(module: ModuleType) -> list[str]:
    missing: list[str] = []
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value):
            own = vars(value).get("__doc__") or ""
            if not own or own.startswith(f"{value.__name__}("):  # what a dataclass writes by itself says nothing
                missing.append(name)
            for member, attribute in vars(value).items():
                function = attribute.fget if isinstance(attribute, property) else getattr(attribute, "__func__", attribute)
                if not member.startswith("_") and inspect.isfunction(function) and not function.__doc__:
                    missing.append(f"{name}.{member}")
        elif inspect.isfunction(value) and not value.__doc__:
            missing.append(name)
    return missing


@pytest.mark.parametrize("name", MODULES)
def test_every_public_class_function_and_method_has_a_docstring(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    assert undocumented(module) == []


def test_every_public_value_and_union_has_one_below_it() -> None:
    documented: set[str] = set()
    for path in Path(sansio.__file__).parent.glob("*.py"):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        for statement, following in pairwise(body):
            is_text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            if isinstance(statement, ast.Assign | ast.AnnAssign) and is_text:
                targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
                documented |= {target.id for target in targets if isinstance(target, ast.Name)}
    values = {
        name
        for name in sansio.__all__
        if not (inspect.isclass(getattr(sansio, name)) or inspect.isfunction(getattr(sansio, name)))
    }
    assert values - documented - {"__version__"} == set()
