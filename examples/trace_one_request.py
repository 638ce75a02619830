"""One request as the engine sees it: a 429, its wait, a second attempt that streams. No sockets, no waiting, no driver.

Prints (t, event, effects) a line; ARCHITECTURE.md shows the output.
"""

from collections.abc import Iterator
from random import Random

from sansio import (
    AttemptEnded,
    Committed,
    Credential,
    Deployment,
    Effect,
    Event,
    ExecuteBatch,
    HeadReceived,
    Message,
    RefreshSession,
    RemoteEngineCore,
    ResponseHead,
    Secret,
    SessionReport,
    StartAttempt,
    Tick,
    trace_line,
)

STREAM = (
    b'data: {"choices": [{"index": 0, "delta": {"content": "Hello"}}]}\n\n',
    b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n',
)


def main() -> Iterator[str]:
    deployment = Deployment(name="chat", model="gpt-4o", runtime_config={"api_key": Secret.inline("test")})
    core = RemoteEngineCore(deployment, rng=Random(1))
    now = 0.0

    def tell(event: Event) -> list[Effect]:
        effects = core.handle(event, now, 1_700_000_000.0 + now)
        lines.append(trace_line(now, event, effects))
        return effects

    lines: list[str] = []
    effects = tell(core.prepare(1, ExecuteBatch(messages=[Message(role="user", content="Hi")])))
    refresh = next(effect for effect in effects if isinstance(effect, RefreshSession))

    now = 0.002
    effects = tell(SessionReport(refresh.session, refresh.refresh_id, Credential("test")))
    start = next(effect for effect in effects if isinstance(effect, StartAttempt))

    now = 0.250
    exchange = start.exchange
    exchange.sending(0.010)
    exchange.receive_head(429, [("retry-after", "2")], now, 0.0)
    tell(HeadReceived(1, start.attempt, ResponseHead(429)))
    exchange.receive_end(now)
    tell(AttemptEnded(1, start.attempt, exchange.outcome.error, exchange.outcome.usage, sent=True))

    while not (starts := [effect for effect in effects if isinstance(effect, StartAttempt) and effect is not start]):
        now = core.deadline()
        effects = tell(Tick())
    start = starts[0]

    exchange = start.exchange
    exchange.sending(now)
    now += 0.3
    exchange.receive_head(200, [("content-type", "text/event-stream")], now, 0.0)
    tell(HeadReceived(1, start.attempt, ResponseHead(200)))
    now += 0.1
    exchange.receive_body(STREAM[0], now)
    tell(Committed(1, start.attempt))
    now += 0.1
    exchange.receive_body(STREAM[1], now)
    tell(AttemptEnded(1, start.attempt, exchange.outcome.error, exchange.outcome.usage, sent=True))
    yield from lines


if __name__ == "__main__":
    for line in main():
        print(line)
