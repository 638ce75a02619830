"""A simulated world: virtual time, a provider that answers and misbehaves as it is told, a judge, and scenarios by name."""

from .judge.judge import Judge
from .judge.observed_core import ObservedCore, Observer
from .judge.violation import INVARIANTS, InvariantViolated
from .provider.answers import Answer, Choice, count_tokens, expected_text, prompt_id
from .provider.fault_script import FaultScript
from .provider.faults import (
    FAULTS,
    FOREVER,
    Break,
    CloseOnReuse,
    CloseWithoutResponse,
    DoneWithoutFinish,
    DripBytes,
    ErrorFrame,
    Fault,
    GarbageBytes,
    GoAway,
    NeverRespond,
    OversizedEvent,
    OversizedHeader,
    PingsOnly,
    RefuseStream,
    ResetAtByte,
    RotateKeys,
    Scene,
    SlowFirstByte,
    SlowTokens,
    StallAfterChunks,
    StallAfterHead,
    Status,
    Throttle,
    Truncate,
    WrongContentType,
)
from .provider.formats import Ask, Format, Refusal, Stamp
from .provider.mock_connection import Alpn, MockConnection
from .provider.mock_exchange import Action, Close, Reset, Send
from .provider.mock_provider import MockProvider, Outcome, RequestRecord
from .provider.openai_chat import OpenAiChat
from .provider.provider_limiter import LimitRefusal, LimitView, ProviderLimiter, ProviderLimits
from .scenarios.catalogue import SCENARIOS, plan
from .scenarios.report import Report, header
from .scenarios.run import run
from .scenarios.scenario import Scenario
from .scenarios.shrink import shrink
from .scenarios.sweep import plan_of
from .scenarios.timeline import Span, Timeline
from .world.clock import Timer, VirtualClock
from .world.node import Call, CallObserver
from .world.plan import (
    BadNetwork,
    CallerPlan,
    ClockJump,
    Conditions,
    Disturbance,
    DrainNow,
    Faults,
    HostPlan,
    Operate,
    Plan,
    RotateKey,
    VaultDown,
)
from .world.sync_engine import SimulatedEngine
from .world.world import World

__all__ = [
    "FAULTS",
    "FOREVER",
    "INVARIANTS",
    "SCENARIOS",
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
    "Fault",
    "FaultScript",
    "Faults",
    "Format",
    "GarbageBytes",
    "GoAway",
    "HostPlan",
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
