"""inference-remote-core: a sans-IO core for calling remote inference providers.

Pure and deterministic: machines are fed facts and a clock, and answer with values. ARCHITECTURE.md says how they fit.
"""

from ._version import __version__
from .backoff import BackoffPolicy, JitterKind, compute_backoff
from .batch import (
    ContentPart,
    ExecuteBatch,
    ImagePart,
    Message,
    TextPart,
    TokenChunk,
    TokenEstimate,
    Tokens,
    TokenUsage,
    Tool,
    ToolCall,
    ToolCallDelta,
)
from .budget import Budget
from .circuit_breaker import (
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitPermit,
    CircuitRejection,
    CircuitState,
    CircuitTransition,
    Outcome,
)
from .classify import classify_http_status, parse_retry_after, retry_after_from_headers
from .codec import ProviderCodec, StreamDecoder
from .cost import CostEstimate
from .deployment import Deployment, OpenCircuitPolicy, RemoteEngineConfig, RuntimeConfig, Serving, deployments_from_toml
from .engine import RemoteEngineCore
from .errors import (
    BadRequest,
    Backpressure,
    BudgetExceeded,
    CircuitOpen,
    Conflict,
    ContentFiltered,
    ContextLengthExceeded,
    DeadlineExceeded,
    EngineClosed,
    Forbidden,
    InferenceError,
    Internal,
    LimitExceeded,
    NetworkError,
    NotFound,
    ProtocolError,
    QuotaExhausted,
    RateLimited,
    ServerError,
    StreamInterrupted,
    Timeout,
    Unauthorized,
    Unsupported,
)
from .events import (
    AbortAttempt,
    AddRequest,
    AttemptEnded,
    Cancel,
    CircuitAction,
    Close,
    Committed,
    Complete,
    Drain,
    Drained,
    Effect,
    Event,
    HeadReceived,
    Notice,
    OverrideCircuit,
    RebuildSession,
    RefreshSession,
    SessionReport,
    StartAttempt,
    Tick,
)
from .exchange import AttemptOutcome, Exchange, ExchangeConfig
from .http import END, EndOfResponse, HttpEvent, HttpRequest, Origin, ResponseHead, Timeouts
from .http1 import Http1Connection
from .metrics import EngineMetrics
from .pool import IdleConnections
from .prices import Price
from .queue import CapacityPolicy, Priority, PriorityRequest, RequestQueue
from .rate_limit import Permit, RateLimitDimension, RateLimiter, RateLimiterSnapshot, RateLimits, RateLimitSnapshot, Wait
from .replay import replay_response
from .retry import Attempt, GiveUp, Retry, RetryBudget, RetryDecision, RetryEngine, RetryPolicy
from .secret import Credential, Secret, StaticApiKey
from .session import RemoteSession, SessionConfig, SessionRebuildCause, SessionSnapshot
from .sse import SseChunk, SseDecoder, SseLimitExceeded
from .switchboard import Switchboard, Todo
from .token_bucket import TokenBucket
from .worker import RemoteWorker
