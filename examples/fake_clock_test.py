"""A test without sockets, threads or waiting: the engine is a function of facts and times, so a test just states them."""

from random import Random

from sansio import (
    AttemptEnded,
    Complete,
    Credential,
    Deployment,
    ExecuteBatch,
    Message,
    RefreshSession,
    RemoteEngineCore,
    Secret,
    SessionReport,
    StartAttempt,
    Tick,
)


def only(effects, kind):
    [found] = [effect for effect in effects if isinstance(effect, kind)]
    return found


def answer(start, now, status, headers, body):
    """What a driver does with an attempt, minus the socket: the exchange judges a response, the engine is told."""
    exchange = start.exchange
    exchange.sending(now)
    exchange.receive_head(status, headers, now, unix_now=now)
    exchange.receive_body(body, now)
    exchange.receive_end(now)
    return AttemptEnded(start.request_id, start.attempt, exchange.outcome.error, exchange.outcome.usage, sent=True)


def test_a_retry_after_is_never_undercut():
    deployment = Deployment(name="chat", model="gpt-4o", runtime_config={"api_key": Secret.inline("test")})
    core = RemoteEngineCore(deployment, rng=Random(7))
    request = core.prepare(1, ExecuteBatch(messages=[Message(role="user", content="hello")]), stream=False)

    refresh = only(core.handle(request, 0.0, 0.0), RefreshSession)
    report = SessionReport(refresh.session, refresh.refresh_id, Credential("test"))
    first = only(core.handle(report, 0.0, 0.0), StartAttempt)

    throttled = answer(first, 1.0, 429, [("retry-after", "7")], b"{}")
    assert not [e for e in core.handle(throttled, 1.0, 1.0) if isinstance(e, (StartAttempt, Complete))]
    assert core.deadline() >= 8.0
    assert not [e for e in core.handle(Tick(), 7.999, 7.999) if isinstance(e, StartAttempt)]

    now = core.deadline()
    second = only(core.handle(Tick(), now, now), StartAttempt)
    body = b'{"choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}]}'
    done = only(core.handle(answer(second, now, 200, [("content-type", "application/json")], body), now, now), Complete)
    assert done.error is None
    assert core.metrics().retries == {"rate_limited": 1}
