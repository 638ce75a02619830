"""Deployments as values and as TOML: what is taken, and what each mistake is told, by field, value and remedy."""

from __future__ import annotations

import dataclasses
import math
import pickle
import traceback
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sansio.budget import Budget, BudgetAction
from sansio.circuit_breaker import CircuitBreakerConfig
from sansio.cluster.config import ClusterConfig, SharingMode
from sansio.deployment import (
    Deployment,
    OpenCircuitPolicy,
    RemoteEngineConfig,
    RuntimeConfig,
    Serving,
    deployments_from_toml,
    from_mapping,
)
from sansio.http import Timeouts
from sansio.prices import Price
from sansio.providers.litellm import LiteLLMChat
from sansio.queue import CapacityPolicy
from sansio.rate_limit import RateLimits
from sansio.retry import RetryPolicy
from sansio.secret import Secret, StaticApiKey
from sansio.session import SessionConfig

HIDDEN = "sk-hunter2hunter2hunter2"
WHOLE: dict[str, Any] = {"name": "chat", "model": "gpt-4o", "runtime": "openai"}

PAGE = """
[[deployment]]
name    = "chat"
model   = "gpt-4o"
runtime = "openai"
[deployment.runtime_config]
endpoint = "http://127.0.0.1:8080/v1"
api_key  = { from_env = "OPENAI_API_KEY" }
[deployment.runtime_config.rate_limits]
requests_per_minute = 500
tokens_per_minute   = 30_000
"""


# ---- what is taken ----------------------------------------------------------------------------------------------------


def test_the_defaults_are_those_of_the_page() -> None:
    deployment = Deployment(name="chat", model="gpt-4o")
    assert (deployment.runtime, deployment.idempotent) == ("openai", True)
    assert (deployment.config, deployment.served) == (RuntimeConfig(), Serving())
    assert (deployment.spending, deployment.price) == (None, None)
    serving = deployment.served
    assert (serving.max_concurrent, serving.queue_capacity, serving.queue_timeout) == (32, 1024, 30.0)
    assert (serving.on_capacity_exhausted, serving.on_circuit_open) == (CapacityPolicy.QUEUE, OpenCircuitPolicy.REJECT)
    assert (serving.age_after, serving.fair_tenants) == (None, False)
    config = deployment.config
    assert (config.endpoint, config.api_key, config.api, config.organization, config.project) == (None,) * 5
    assert (config.retry, config.circuit_breaker, config.timeouts) == (RetryPolicy(), CircuitBreakerConfig(), Timeouts())
    assert (config.rate_limits, config.max_event_bytes, config.max_body_bytes) == (RateLimits(), 16 << 20, 64 << 20)


def test_a_table_may_be_a_mapping_or_the_type_itself() -> None:
    as_types = Deployment(
        **WHOLE,
        runtime_config=RuntimeConfig(
            api_key=Secret.from_env("KEY"),
            rate_limits=RateLimits(requests_per_minute=5),
            retry=RetryPolicy(max_retries=1),
            circuit_breaker=CircuitBreakerConfig(failure_threshold=2),
            timeouts=Timeouts(connect_timeout=1.0),
        ),
        serving=Serving(max_concurrent=2, on_capacity_exhausted=CapacityPolicy.REJECT),
        budget=Budget(max_spend_per_hour_usd=1.0, on_exceeded=BudgetAction.WARN),
        price=Price(input=1.0, output=2.0),
    )
    as_mappings = Deployment(
        **WHOLE,
        runtime_config={
            "api_key": Secret.from_env("KEY"),
            "rate_limits": {"requests_per_minute": 5},
            "retry": {"max_retries": 1},
            "circuit_breaker": {"failure_threshold": 2},
            "timeouts": {"connect_timeout": 1.0},
        },
        serving={"max_concurrent": 2, "on_capacity_exhausted": "reject"},
        budget={"max_spend_per_hour_usd": 1.0, "on_exceeded": "warn"},
        price={"input": 1.0, "output": 2.0},
    )
    assert as_types == as_mappings
    assert as_types.spending == Budget(1.0, None, BudgetAction.WARN)
    assert as_types.price_of_model == Price(1.0, 2.0)


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-5.1-mini", "chatgpt-4o-latest", "o1", "o3-mini", "o4-mini"])
def test_the_runtime_may_be_told_from_the_model(model: str) -> None:
    assert Deployment(name="a", model=model).runtime == "openai"


@pytest.mark.parametrize(("model", "runtime"), [("claude-haiku-4-5", "anthropic"), ("gemini-2.5-pro", "gemini")])
def test_also_another_s(model: str, runtime: str) -> None:
    deployment = Deployment(name="a", model=model, budget=Budget(1.0))
    assert (deployment.runtime, deployment.codec().provider) == (runtime, runtime)


def test_the_codec_is_the_runtime_s_with_the_deployment_s_options() -> None:
    options = {"endpoint": "http://h:1/v1", "organization": "org", "project": "p"}
    codec: Any = Deployment(**WHOLE, runtime_config=options).codec()
    assert (codec.provider, codec.model, codec.endpoint) == ("openai", "gpt-4o", "http://h:1/v1")
    assert (codec.organization, codec.project) == ("org", "p")
    assert Deployment(**WHOLE).codec().endpoint == "https://api.openai.com/v1"


def test_a_key_is_one_reference_whichever_way_it_is_given() -> None:
    secret = Secret.from_env("KEY")
    assert RuntimeConfig().secret is None
    assert RuntimeConfig(api_key=secret).secret is secret
    assert RuntimeConfig(api_key=StaticApiKey(secret)).secret is secret


def test_credentials_take_the_place_of_a_key() -> None:
    secret = Secret.from_google("")
    assert RuntimeConfig(credentials=secret).secret is secret
    assert RuntimeConfig(credentials=Secret.from_env("TOKEN")).secret == Secret.from_env("TOKEN")


PROXY: dict[str, Any] = {"name": "chat", "model": "group", "runtime": "litellm"}


@pytest.mark.parametrize(
    "table",
    [
        {"tags": ["a", "b"], "end_user": "u"},
        {"options": {"tags": ["a", "b"], "end_user": "u"}},
        {"options": {"tags": ["a", "b"]}, "end_user": "u"},
    ],
)
def test_what_the_codec_takes_may_stand_beside_the_rest(table: dict[str, Any]) -> None:
    deployment = Deployment(
        **PROXY, runtime_config={"endpoint": "http://proxy:4000", "api_key": Secret.from_env("K"), **table}
    )
    assert deployment.codec() == LiteLLMChat("group", "http://proxy:4000", ("a", "b"), end_user="u")
    assert deployment.config.options == {"tags": ["a", "b"], "end_user": "u"}
    assert deployment.config.secret == Secret.from_env("K")
    as_type = RuntimeConfig(endpoint="http://proxy:4000", options={"tags": ["a", "b"], "end_user": "u"})
    assert Deployment(**PROXY, runtime_config=as_type).codec() == deployment.codec()


def test_a_codec_of_one_s_own_is_a_runtime() -> None:
    codec = LiteLLMChat("mine", "http://proxy:4000", tags=("a",))
    deployment = Deployment(name="chat", model="group", runtime=codec, runtime_config={"api_key": Secret.from_env("K")})
    assert deployment.codec() is codec
    assert deployment.model == "group"
    assert deployment.price_of_model is None
    assert Deployment(name="chat", model="gpt-4o", runtime=codec, budget=Budget(1.0)).spending == Budget(1.0)
    assert codec in {Deployment(name="a", model="gpt-4o", runtime=codec).runtime}


@pytest.mark.parametrize("runtime", ["litellm", LiteLLMChat("group")])
def test_a_proxy_that_retries_by_itself_is_retried_once(runtime: Any) -> None:
    proxied = {**PROXY, "runtime": runtime}
    deployment = Deployment(**proxied)
    assert deployment.config.retry == RetryPolicy(max_retries=1)
    assert dataclasses.replace(deployment, name="b").config.retry == RetryPolicy(max_retries=1)
    assert Deployment(**proxied, runtime_config={"max_body_bytes": 5}).config == RuntimeConfig(
        max_body_bytes=5, retry=RetryPolicy(max_retries=1)
    )
    for said in (RetryPolicy(), {}, {"max_retries": 3}):  # who says it, means it
        assert Deployment(**proxied, runtime_config={"retry": said}).config.retry == RetryPolicy()
    assert Deployment(**WHOLE).config.retry == RetryPolicy(max_retries=3)


def test_a_budget_needs_a_price_also_where_the_provider_says_what_it_cost() -> None:
    with pytest.raises(ValueError, match=r"^budget: no price is known for the model 'group'.*give price="):
        Deployment(**PROXY, budget={})
    assert Deployment(**PROXY, budget={}, price=Price(1, 2)).price_of_model == Price(1, 2)
    assert Deployment(**{**PROXY, "model": "azure/gpt-4.1"}, budget={}).price_of_model is not None


def test_a_price_of_its_own_wins() -> None:
    assert Deployment(**WHOLE).price_of_model is not None
    assert Deployment(**WHOLE, price=Price(7.0, 8.0)).price_of_model == Price(7.0, 8.0)
    assert Deployment(name="a", model="gpt-none-such", runtime="openai").price_of_model is None


def test_choices_may_be_words() -> None:
    words: dict[str, Any] = {"on_capacity_exhausted": "fallback", "on_circuit_open": "wait"}
    serving = Serving(**words)
    assert (serving.on_capacity_exhausted, serving.on_circuit_open) == (CapacityPolicy.FALLBACK, OpenCircuitPolicy.WAIT)


# ---- what is refused: (arguments of Deployment, what the error says) --------------------------------------------------


def serving(**table: Any) -> dict[str, Any]:
    return {"serving": table}


def config(**table: Any) -> dict[str, Any]:
    return {"runtime_config": table}


NOT_COUNTS: tuple[Any, ...] = (0, -1, 1.5, True, None, "5", math.nan, math.inf)
NOT_SECONDS: tuple[Any, ...] = (0, 0.0, -1, math.nan, math.inf, True, "5", [])

MISTAKES: list[tuple[dict[str, Any], str]] = [
    *(({"name": value}, rf"^name: {value!r} is not a non-empty string".replace("[", r"\[")) for value in ("", None, 5)),
    *(({"model": value}, rf"^model: {value!r} is not a non-empty string") for value in ("", None, 5)),
    ({"model": "llama", "runtime": ""}, r"^runtime: cannot be told from the model's name 'llama'; set it, .*'openai'"),
    ({"runtime": "opnai"}, r"^runtime 'opnai': .* did you mean 'openai'\?"),
    ({"runtime": 5}, r"^runtime: 5 is neither a provider's name nor a ProviderCodec"),
    ({"runtime": None}, r"^runtime: None is neither a provider's name"),
    ({"idempotent": "no"}, r"^idempotent: 'no' is neither True nor False"),
    ({"idempotent": 1}, r"^idempotent: 1 is neither True nor False"),
    # Serving.
    *((serving(**{name: value}), rf"^serving: {name}: .* is not a whole number of at least 1")
      for name in ("max_concurrent", "queue_capacity") for value in NOT_COUNTS),
    *((serving(queue_timeout=value), r"^serving: queue_timeout: .* is not a number of seconds above 0")
      for value in (*NOT_SECONDS, None)),
    *((serving(age_after=value), r"^serving: age_after: .* is not a number of seconds above 0") for value in NOT_SECONDS),
    (serving(on_capacity_exhausted="drop"),
     r"^serving: on_capacity_exhausted: 'drop' is none of 'reject', 'queue', 'fallback'"),
    (serving(on_capacity_exhausted=[]), r"^serving: on_capacity_exhausted: \[\] is none of"),
    (serving(on_circuit_open="fail"), r"^serving: on_circuit_open: 'fail' is none of 'reject', 'wait'"),
    (serving(fair_tenants="yes"), r"^serving: fair_tenants: 'yes' is neither True nor False"),
    (serving(max_concurent=5), r"^serving: unknown key 'max_concurent'; did you mean 'max_concurrent'\?"),
    (serving(zzz=5), r"^serving: unknown key 'zzz'; known: max_concurrent, queue_capacity, .*fair_tenants"),
    ({"serving": 5}, r"^serving: int is neither a Serving nor a mapping"),
    ({"serving": {5: 5}}, r"^serving: unknown key 5"),
    ({"serving": None}, r"^serving: NoneType is neither"),
    # RuntimeConfig.
    ({"runtime_config": [5]}, r"^runtime_config: list is neither a RuntimeConfig nor a mapping"),
    (config(endpoint="api.openai.com/v1"), r"^runtime_config: endpoint: url: 'api.openai.com/v1' is not an absolute http"),
    (config(endpoint=""), r"^runtime_config: endpoint: url: '' is not an absolute"),
    (config(endpoint="ftp://h"), r"^runtime_config: endpoint: url: 'ftp://h' is not an absolute"),
    (config(endpoint="http://h:99999"), r"^runtime_config: endpoint: url: Port out of range"),
    (config(endpoint="http://h/\r\nx: y"), r"^runtime_config: endpoint: url: .*percent-encode it"),
    (config(endpoint="http://h/v1?a=b"), r"^runtime 'openai': endpoint: .* holds a query"),
    (config(endpoint=8080), r"^runtime_config: endpoint: 8080 is not a string"),
    (config(api=5), r"^runtime_config: api: 5 is not a string"),
    (config(api="reponses"), r"^runtime 'openai_reponses': .* did you mean 'openai"),
    (config(organization=5), r"^runtime_config: organization: 5 is not a string"),
    (config(project=["p"]), r"^runtime_config: project: a list is not a string"),
    (config(api_key=5), r"^runtime_config: api_key: int is not a Secret"),
    (config(api_key=HIDDEN), r"^runtime_config: api_key: is a bare string; write Secret\.from_env\("),
    (config(api_key=HIDDEN.encode()), r"^runtime_config: api_key: bytes is not a Secret"),
    (config(apikey=HIDDEN), r"^runtime_config: unknown key 'apikey'; did you mean 'api_key'\?"),
    (config(endpoint=f"http://user:{HIDDEN}@h/"), r"^runtime_config: endpoint: url: holds user information"),
    (config(endpoint=f"http://h/v1?key={HIDDEN}"), r"^runtime 'openai': endpoint: .* holds a query"),
    (config(endpoint=f"h/v1?key={HIDDEN}"), r"^runtime_config: endpoint: url: .* is not an absolute"),
    (config(credentials=HIDDEN), r"^runtime_config: credentials: str is not a Secret; write Secret\.from_google\("),
    (config(credentials=Secret.from_env("A"), api_key=Secret.from_env("B")),
     r"^runtime_config: credentials: are given beside api_key; give one of both"),
    # What the codec takes besides.
    (config(options=5), r"^runtime_config: options: int is not a mapping"),
    (config(options=None), r"^runtime_config: options: NoneType is not a mapping"),
    (config(options=[], tags=[]), r"^runtime_config: options: list is not a mapping"),
    (config(options={"tags": []}, tags=[]), r"^runtime_config: options: 'tags' is given twice"),
    (config(options={"endpoint": "http://h"}, endpoint="http://h"), r"^runtime_config: options: 'endpoint' is given twice"),
    (config(options={"project": "p"}, project="p"), r"^runtime_config: options: 'project' is given twice"),
    (config(options={"apikey": HIDDEN}), r"^runtime_config: unknown key 'apikey'; did you mean 'api_key'\?"),
    (config(organisation="o"), r"^runtime_config: unknown key 'organisation'; did you mean 'organization'\?"),
    (config(model="gpt-4"), r"^runtime_config: unknown key 'model'; known: api, api_key, "),
    (config(zzz=1), r"^runtime_config: unknown key 'zzz'; known: .*timeouts$"),
    ({"runtime": "litellm", **config(tag=["a"])}, r"^runtime_config: unknown key 'tag'; did you mean 'tags'\?"),
    ({"runtime": "litellm", **config(tags=HIDDEN)}, r"^runtime 'litellm': tags: .* is not a list of tags"),
    ({"runtime": "litellm", **config(organization="o")}, r"^runtime 'litellm': litellm: 'organization' is no option"),
    # A codec of one's own has been told all that already.
    *(({"runtime": LiteLLMChat("m"), **config(**{name: value})},
       rf"^runtime_config: {name}: is the codec's own, which was given as runtime; leave it out")
      for name, value in (("endpoint", "http://h"), ("organization", "o"), ("project", "p"), ("api", "responses"),
                          ("tags", ["a"]))),
    ({"runtime": LiteLLMChat}, r"^runtime: LiteLLMChat is a class; give one of it, LiteLLMChat\(…\)"),
    *((config(**{name: value}), rf"^runtime_config: {name}: .* is not a whole number of at least 1")
      for name in ("max_event_bytes", "max_body_bytes") for value in NOT_COUNTS),
    # Its tables.
    (config(rate_limits={"requests_per_minute": -1}),
     r"^runtime_config: rate_limits: requests_per_minute: -1 is not an integer of at least 1"),
    (config(rate_limits={"request_per_minute": 1}),
     r"^runtime_config: rate_limits: unknown key 'request_per_minute'; did you mean 'requests_per_minute'\?"),
    (config(rate_limits={"window": math.nan}), r"^runtime_config: rate_limits: window: nan is outside"),
    (config(rate_limits=None), r"^runtime_config: rate_limits: NoneType is neither a RateLimits nor a mapping"),
    (config(retry={"max_retries": -1}), r"^runtime_config: retry: max_retries: -1 is not an integer of at least 0"),
    (config(retry={"jitter": "some"}), r"^runtime_config: retry: jitter: "),
    (config(circuit_breaker={"failure_threshold": 0}), r"^runtime_config: circuit_breaker: failure_threshold: 0 is not"),
    (config(timeouts={"read_timeout": 0}), r"^runtime_config: timeouts: read_timeout: 0 is not a number of seconds above 0"),
    (config(timeouts={"conect_timeout": 1}),
     r"^runtime_config: timeouts: unknown key 'conect_timeout'; did you mean 'connect_timeout'\?"),
    # Money.
    ({"budget": {"max_spend_per_hour_usd": -1}}, r"^budget: max_spend_per_hour_usd: -1 is not"),
    ({"budget": {"on_exceeded": "panic"}}, r"^budget: on_exceeded: 'panic' is none of"),
    ({"budget": {"per_hour": 1}}, r"^budget: unknown key 'per_hour'"),
    ({"budget": 5}, r"^budget: int is neither a Budget nor a mapping"),
    ({"price": {"input": 1}}, r"^price: .*'output'"),
    ({"price": {"input": -1, "output": 1}}, r"^price: input: -1 is not"),
    ({"model": "gpt-none-such", "budget": {}}, r"^budget: no price is known for the model 'gpt-none-such', .*give price="),
]  # fmt: skip


@pytest.mark.parametrize(("mistake", "told"), MISTAKES, ids=[str(told)[:60] for _, told in MISTAKES])
def test_a_mistake_is_told_by_field_value_and_remedy(mistake: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told) as refused:
        Deployment(**{**WHOLE, **mistake})
    assert_hidden(refused.value)


@given(
    st.sampled_from(["name", "model", "runtime", "runtime_config", "serving", "budget", "price", "idempotent"]),
    st.recursive(
        st.none() | st.booleans() | st.integers(-2, 2) | st.floats() | st.text(max_size=5) | st.binary(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(
                st.sampled_from(
                    ["endpoint", "api", "api_key", "retry", "timeouts", "max_concurrent", "queue_timeout", "input"]
                ),
                inner,
                max_size=3,
            )
        ),
        max_leaves=5,
    ),
)
@settings(max_examples=200, deadline=None)
def test_whatever_is_given_is_taken_or_a_value_error(field: str, value: object) -> None:
    told = field
    try:
        Deployment(**{**WHOLE, field: value})
    except ValueError as error:
        told = str(error)
    assert field in told


# ---- TOML -------------------------------------------------------------------------------------------------------------


def test_the_file_of_the_page() -> None:
    (deployment,) = deployments_from_toml(PAGE)
    assert deployment == Deployment(
        **WHOLE,
        runtime_config={
            "endpoint": "http://127.0.0.1:8080/v1",
            "api_key": Secret.from_env("OPENAI_API_KEY"),
            "rate_limits": {"requests_per_minute": 500, "tokens_per_minute": 30_000},
        },
    )


def test_every_table_can_be_written() -> None:
    (deployment,) = deployments_from_toml(
        """
        [[deployment]]
        name = "chat"
        model = "mine"
        runtime = "openai"
        idempotent = false
        serving = { max_concurrent = 2, on_capacity_exhausted = "reject", on_circuit_open = "wait", fair_tenants = true }
        budget = { max_spend_per_day_usd = 5, on_exceeded = "throttle" }
        price = { input = 1, output = 2.5 }
        [deployment.runtime_config]
        api_key = { from_file = "/run/secrets/key" }
        timeouts = { connect_timeout = 1 }
        retry = { max_retries = 0, retry_on = ["timeout"] }
        circuit_breaker = { failure_threshold = 3 }
        """
    )
    assert deployment.config.api_key == Secret.from_file("/run/secrets/key")
    assert (deployment.served.max_concurrent, deployment.served.fair_tenants) == (2, True)
    assert deployment.spending == Budget(None, 5, BudgetAction.THROTTLE)
    assert deployment.price_of_model == Price(1, 2.5)
    assert deployment.config.retry == RetryPolicy(max_retries=0, retry_on=["timeout"])
    assert not deployment.idempotent


def test_a_file_says_what_a_provider_adds() -> None:
    proxied, on_vertex = deployments_from_toml(
        """
        [[deployment]]
        name = "proxied"
        model = "group"
        runtime = "litellm"
        budget = { max_spend_per_day_usd = 5 }
        price = { input = 1, output = 2, cache_write_long = 3, tiers = { flex = 0.5, batch = { input = 1, output = 1 } } }
        [deployment.runtime_config]
        endpoint = "http://proxy:4000"
        key_header = "x-litellm-api-key"
        tags = ["a", "b"]
        [deployment.runtime_config.options]
        num_retries = 0

        [[deployment]]
        name = "on vertex"
        model = "gemini-2.5-pro"
        [deployment.runtime_config]
        variant = "vertex"
        project = "p"
        region = "europe-west4"
        credentials = { from_google = "" }
        """
    )
    assert proxied.codec() == LiteLLMChat("group", "http://proxy:4000", ("a", "b"), "x-litellm-api-key", num_retries=0)
    price = proxied.price_of_model
    assert price == Price(1, 2, cache_write_long=3, tiers={"flex": 0.5, "batch": Price(1, 1)})
    assert proxied.config.retry == RetryPolicy(max_retries=1)
    assert on_vertex.codec().provider == "vertex"
    assert on_vertex.config.secret == Secret.from_google("")


def test_deployments_come_in_order_and_need_no_key() -> None:
    text = "".join(f'[[deployment]]\nname = "{name}"\nmodel = "gpt-4o"\n' for name in "cab")
    assert [deployment.name for deployment in deployments_from_toml(text)] == ["c", "a", "b"]


def with_key(key: str) -> str:
    return PAGE.replace('{ from_env = "OPENAI_API_KEY" }', key)


REFERENCE = r'^f\.toml: deployment 1: runtime_config: api_key: must be a reference, \{ from_env = "NAME" \} or \{ from_file'

BROKEN_FILES = [
    ("", r"^f\.toml: has no \[\[deployment\]\] table"),
    ("deployment = []", r"^f\.toml: has no \[\[deployment\]\] table"),
    ('deployment = "chat"', r"^f\.toml: has no \[\[deployment\]\] table"),
    ("[deployment]\nname = 'chat'", r"^f\.toml: has no \[\[deployment\]\] table"),
    ("deployment = [5]", r"^f\.toml: deployment 1: int is neither a Deployment nor a mapping"),
    ("name = \n", r"^f\.toml: is not TOML: .*line 1"),
    ("[[deployments]]\nname = 'x'", r"^f\.toml: unknown key 'deployments'; deployments are \[\[deployment\]\] tables"),
    (PAGE + "\n[other]\nx = 1", r"^f\.toml: unknown key 'other'"),
    ("[[deployment]]\nmodel = 'gpt-4o'", r"^f\.toml: deployment 1: .*'name'"),
    ("[[deployment]]\nname = 'chat'", r"^f\.toml: deployment 1: .*'model'"),
    (PAGE.replace("runtime =", "runtimes ="), r"^f\.toml: deployment 1: unknown key 'runtimes'; did you mean 'runtime'\?"),
    (PAGE.replace("endpoint", "endpiont"),
     r"^f\.toml: deployment 1: runtime_config: unknown key 'endpiont'; did you mean 'endpoint'\?"),
    (PAGE.replace("requests_per_minute", "request_per_minute"),
     r"^f\.toml: deployment 1: runtime_config: rate_limits: unknown key 'request_per_minute'; did you mean 'requests_per"),
    (PAGE.replace("500", "-500"), r"^f\.toml: deployment 1: runtime_config: rate_limits: requests_per_minute: -500 is not"),
    (PAGE.replace("500", "nan"), r"^f\.toml: deployment 1: runtime_config: rate_limits: requests_per_minute: nan is not"),
    (PAGE.replace('"openai"', '"opnai"'), r"^f\.toml: deployment 1: runtime 'opnai': .* did you mean 'openai'"),
    (PAGE + PAGE, r"^f\.toml: deployment 2: name: 'chat' is taken by an earlier deployment"),
    (PAGE + PAGE.replace('"chat"', '""'), r"^f\.toml: deployment 2: name: '' is not a non-empty string"),
    ("[[deployment]]\nname = 'a'\nmodel = 'gpt-4o'\nruntime_config = 5",
     r"^f\.toml: deployment 1: runtime_config: int is neither"),
    # The key itself, however it is written down.
    (with_key(f'"{HIDDEN}"'), REFERENCE),
    (with_key(f'{{ inline = "{HIDDEN}" }}'), REFERENCE),
    (with_key(f'{{ value = "{HIDDEN}" }}'), REFERENCE),
    (with_key(f'{{ from_env = "A", from_file = "{HIDDEN}" }}'), REFERENCE),
    (with_key("{}"), REFERENCE),
    (with_key("5"), REFERENCE),
    (with_key(f'["{HIDDEN}"]'), REFERENCE),
    (with_key(f'{{ from_env = "{HIDDEN}" }}'),
     r"^f\.toml: deployment 1: runtime_config: api_key: from_env: name: is not the name of an environment variable"),
    (with_key("{ from_env = 5 }"), REFERENCE),
    (with_key('{ from_google = "" }'), REFERENCE),
    (with_key('{ from_env = "A" }').replace("api_key ", "credentials ").replace("from_env", "from_here"),
     r"^f\.toml: deployment 1: runtime_config: credentials: must be a reference, .* or \{ from_google = "),
    (with_key("{ from_file = 5 }"), REFERENCE),
    (with_key('{ from_file = "" }'), r"^f\.toml: deployment 1: runtime_config: api_key: from_file: file: is empty"),
    (PAGE.replace("api_key ", "apikey ").replace('{ from_env = "OPENAI_API_KEY" }', f'"{HIDDEN}"'),
     r"^f\.toml: deployment 1: runtime_config: unknown key 'apikey'; did you mean 'api_key'\?"),
    (f"[[deployment]]\nname = 'a'\nmodel = 'gpt-4o'\napi_key = '{HIDDEN}'",
     r"^f\.toml: deployment 1: unknown key 'api_key'"),
    (with_key(f'"{HIDDEN}'), r"^f\.toml: is not TOML"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "told"), BROKEN_FILES, ids=[str(told)[:70] for _, told in BROKEN_FILES])
def test_a_mistake_in_a_file_is_told_with_file_and_key(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told) as refused:
        deployments_from_toml(text, source="f.toml")
    assert_hidden(refused.value)


@given(st.text(max_size=60) | st.text("[]deploymnt=\"'{}\n.5", max_size=60).map(lambda text: PAGE + text))
@settings(max_examples=200, deadline=None)
def test_any_text_is_deployments_or_a_value_error(text: str) -> None:
    told = "deployments: "
    try:
        assert deployments_from_toml(text)
    except ValueError as error:
        told = str(error)
    assert told.startswith("deployments: ")


# ---- secrets ----------------------------------------------------------------------------------------------------------


def test_a_deployment_never_shows_its_key() -> None:
    deployment = Deployment(**WHOLE, runtime_config={"api_key": Secret.inline(HIDDEN)})
    for shown in (repr(deployment), str(deployment), repr(deployment.config), repr(RemoteEngineConfig.of(deployment))):
        assert HIDDEN not in shown
    with pytest.raises(TypeError):
        pickle.dumps(deployment)
    by_reference = Deployment(**WHOLE, runtime_config={"api_key": Secret.from_env("KEY")})
    assert pickle.loads(pickle.dumps(by_reference)) == by_reference


# ---- an engine's configuration ----------------------------------------------------------------------------------------


def test_one_several_or_a_whole_configuration() -> None:
    a, b = Deployment(name="a", model="gpt-4o"), Deployment(name="b", model="gpt-4o")
    assert RemoteEngineConfig.of(a).deployments == (a,)
    assert RemoteEngineConfig.of([a, b]).deployments == (a, b)
    whole = RemoteEngineConfig((a,), SessionConfig(refresh_ahead=5.0))
    assert RemoteEngineConfig.of(whole) is whole
    session: Any = {"refresh_ahead": 5.0}
    assert RemoteEngineConfig((a,), session) == whole


@pytest.mark.parametrize(
    ("deployments", "told"),
    [
        ([], r"^deployments: is empty; give at least one Deployment"),
        (["chat"], r"^deployments: str is not a Deployment"),
        ([{"name": "chat", "model": "gpt-4o"}], r"^deployments: dict is not a Deployment"),
        ([Deployment(name="a", model="gpt-4o")] * 2, r"^deployments: the name 'a' is given twice"),
    ],
)
def test_an_engine_hosts_deployments_with_names_of_their_own(deployments: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        RemoteEngineConfig.of(deployments)


@pytest.mark.parametrize(
    ("session", "told"),
    [
        (5, r"^session: int is neither a SessionConfig nor a mapping"),
        ({"refresh_ahead": -1}, r"^session: refresh_ahead: -1 is not"),
        ({"refresh": 1}, r"^session: unknown key 'refresh'; did you mean 'refresh_ahead'\?"),
    ],
)
def test_a_session_out_of_range_is_refused(session: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        RemoteEngineConfig((Deployment(name="a", model="gpt-4o"),), session)


# ---- the store that processes share -----------------------------------------------------------------------------------

CHAT = Deployment(name="chat", model="gpt-4o")
STORE = f"redis://:{HIDDEN}@cache.test"


def test_where_processes_share_their_limits_a_url_is_enough() -> None:
    assert RemoteEngineConfig.of(CHAT).shared is None
    assert RemoteEngineConfig.of(CHAT, "redis://h").shared == ClusterConfig("redis://h")
    table = {"url": "redis://h", "mode": "escrow"}
    shared = ClusterConfig("redis://h", mode=SharingMode.ESCROW)
    assert RemoteEngineConfig.of([CHAT], table) == RemoteEngineConfig((CHAT,), cluster=shared)
    secret = Secret.from_env("STORE_URL")
    assert RemoteEngineConfig((CHAT,), cluster=secret).shared == ClusterConfig(secret)


def test_a_cluster_given_beside_a_whole_configuration_holds() -> None:
    session = SessionConfig(refresh_ahead=5.0)
    whole = RemoteEngineConfig((CHAT,), session, cluster="redis://one")
    assert RemoteEngineConfig.of(whole) is whole
    other = RemoteEngineConfig.of(whole, "redis://two")
    assert other.shared == ClusterConfig("redis://two")
    assert (other.deployments, other.session) == ((CHAT,), session)
    assert whole.shared == ClusterConfig("redis://one")


@pytest.mark.parametrize(
    ("cluster", "told"),
    [
        (5, r"^cluster: a int is neither a ClusterConfig, nor a mapping, nor a URL"),
        ("cache.test", r"^cluster: url: does not begin with one of redis://, "),
        (HIDDEN, r"^cluster: url: does not begin with one of redis://, "),
        (f"redis://:[{HIDDEN}]@h\n", r"^cluster: url: holds white space"),
        ({"url": STORE, "mode": "exact"}, r"^cluster: mode: 'exact' is none of 'approximate', 'escrow'"),
        ({"url": STORE, "local_shar": 0.5}, r"^cluster: unknown key 'local_shar'; did you mean 'local_share'\?"),
        ({"mode": "escrow"}, r"^cluster: url: is missing"),
    ],
)
def test_a_mistake_about_the_store_is_told_and_its_password_is_not(cluster: Any, told: str) -> None:
    for refuse in (lambda: RemoteEngineConfig.of(CHAT, cluster), lambda: RemoteEngineConfig((CHAT,), cluster=cluster)):
        with pytest.raises(ValueError, match=told) as refused:
            refuse()
        assert_hidden(refused.value)


def test_the_password_of_the_store_shows_in_no_configuration_and_no_mistake_beside_it() -> None:
    config = RemoteEngineConfig.of(CHAT, STORE)
    for shown in (repr(config), str(config), repr(config.shared)):
        assert HIDDEN not in shown and "cache.test" not in shown
    whole: dict[str, Any] = {"deployments": (CHAT,), "cluster": STORE}
    beside: list[dict[str, Any]] = [
        {"deployments": ()},
        {"deployments": (5,)},
        {"deployments": (CHAT, CHAT)},
        {"session": 5},
    ]
    for mistake in beside:
        with pytest.raises(ValueError, match=r"^(deployments|session): ") as refused:
            RemoteEngineConfig(**(whole | mistake))
        assert_hidden(refused.value)


def test_one_count_for_all_processes_needs_a_store_that_they_share() -> None:
    strict = Deployment(
        name="strict", model="gpt-4o", runtime_config={"rate_limits": {"requests_per_minute": 5, "strict": True}}
    )
    told = r"^rate_limits\.strict: deployment 'strict' wants one count .*give cluster='redis://…', or leave strict out"
    for deployments in (strict, [CHAT, strict]):
        with pytest.raises(ValueError, match=told):
            RemoteEngineConfig.of(deployments)
    assert RemoteEngineConfig.of([CHAT, strict], "redis://h").shared is not None


SHARED = """
[cluster]
url = "redis://h"
mode = "escrow"

[[deployment]]
name = "strict"
model = "gpt-4o"
runtime_config = { rate_limits = { strict = true, requests_per_minute = 60 } }
"""


def test_a_file_may_say_all_of_an_engine() -> None:
    config = RemoteEngineConfig.from_toml(SHARED)
    assert [each.name for each in config.deployments] == ["strict"]
    assert config.shared == ClusterConfig("redis://h", mode=SharingMode.ESCROW)
    alone = SHARED.partition("[[")[2]
    with pytest.raises(ValueError, match=r"^f\.toml: rate_limits\.strict: deployment 'strict' wants one count"):
        RemoteEngineConfig.from_toml(f"[[{alone}", source="f.toml")
    with pytest.raises(ValueError, match=r"^f\.toml: cluster: mode: 'escro' is none of"):
        RemoteEngineConfig.from_toml(SHARED.replace("escrow", "escro"), source="f.toml")


def test_the_store_s_url_may_be_a_reference_in_a_file() -> None:
    text = SHARED.replace('"redis://h"', '{ from_env = "STORE_URL" }')
    assert RemoteEngineConfig.from_toml(text).shared == ClusterConfig(Secret.from_env("STORE_URL"), mode=SharingMode.ESCROW)
    with pytest.raises(ValueError, match=r"^f\.toml: cluster: url: must be a reference, "):
        RemoteEngineConfig.from_toml(text.replace("from_env", "from_here"), source="f.toml")


def test_what_is_strict_needs_a_limit() -> None:
    strict = Deployment(name="strict", model="gpt-4o", runtime_config={"rate_limits": {"strict": True}})
    told = r"^rate_limits\.strict: deployment 'strict' sets no limit that could be; set requests_per_minute or another"
    for cluster in (None, "redis://h"):
        with pytest.raises(ValueError, match=told):
            RemoteEngineConfig.of([CHAT, strict], cluster)


def test_a_value_of_the_type_is_passed_through() -> None:
    limits = RateLimits()
    assert from_mapping(RateLimits, limits, "limits") is limits


def assert_hidden(error: BaseException) -> None:
    """Not in its text, its traceback, what it pickles to, or what it was raised from."""
    assert HIDDEN not in str(error) + repr(error) + repr(error.__cause__) + "".join(traceback.format_exception(error))
    assert HIDDEN.encode() not in pickle.dumps(error)
