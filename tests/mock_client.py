"""A client of the mock provider without sockets: h11 on this side, virtual time, and whatever came back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import h11

from sansio.simulation import MockConnection, MockProvider, Reset, Send

UNIX = 1_700_000_000.0


def chat(
    prompt: str = "hello",
    *,
    key: str | None = "test-key",
    stream: bool = True,
    path: str = "/v1/chat/completions",
    method: str = "POST",
    version: str = "1.1",
    headers: Iterable[tuple[str, str]] = (),
    **fields: Any,
) -> bytes:
    """The bytes of a chat request."""
    body = {"model": "mock-1", "messages": [{"role": "user", "content": prompt}], "stream": stream, **fields}
    return post(json.dumps(body).encode(), key=key, path=path, method=method, version=version, headers=headers)


def post(
    body: bytes,
    *,
    key: str | None = "test-key",
    path: str = "/v1/chat/completions",
    method: str = "POST",
    version: str = "1.1",
    headers: Iterable[tuple[str, str]] = (),
) -> bytes:
    """The bytes of a request with this body."""
    fields = [("host", "mock"), ("content-length", str(len(body))), *headers]
    fields += [] if key is None else [("authorization", f"Bearer {key}")]
    head = f"{method} {path} HTTP/{version}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields) + "\r\n"
    return head.encode("latin-1") + body


@dataclass
class Seen:
    """What came back: the bytes with their times, how the connection ended, and what h11 makes of it."""

    sent: list[tuple[float, bytes]] = field(default_factory=list)
    end: str = "open"
    ended_at: float | None = None
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    complete: bool = False
    error: str | None = None

    @property
    def data(self) -> bytes:
        return b"".join(data for _, data in self.sent)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def frames(self) -> list[Any]:
        """The events of a stream: parsed JSON, ``"[DONE]"``, ``":"`` for a comment."""
        found: list[Any] = []
        for block in self.body.split(b"\n\n")[:-1]:
            line = block.decode("utf-8", "replace")
            if line.startswith(":"):
                found.append(":")
            else:
                payload = line.removeprefix("data: ")
                found.append(json.loads(payload) if payload.startswith("{") and payload.endswith("}") else payload)
        return found

    @property
    def deltas(self) -> list[str]:
        """The pieces of text of choice 0."""
        chunks = [frame for frame in self.frames if isinstance(frame, dict) and frame.get("choices")]
        deltas = [chunk["choices"][0]["delta"].get("content") for chunk in chunks if chunk["choices"][0]["index"] == 0]
        return [delta for delta in deltas if delta]

    @property
    def text(self) -> str:
        return "".join(self.deltas)

    @property
    def finish(self) -> str | None:
        chunks = [frame for frame in self.frames if isinstance(frame, dict) and frame.get("choices")]
        return next((c["choices"][0]["finish_reason"] for c in chunks if c["choices"][0]["finish_reason"]), None)


def play(connection: MockConnection, *pieces: bytes, at: float = 0.0, until: float = 1000.0, method: str = "POST") -> Seen:
    """Feed the pieces at once and carry out what follows, jumping from deadline to deadline, as far as ``until``."""
    for piece in pieces:
        connection.receive_data(piece, at, UNIX + at)
    return watch(connection, at=at, until=until, method=method)


def watch(connection: MockConnection, *, at: float, until: float = 1000.0, method: str = "POST") -> Seen:
    """What the connection does from ``at`` to ``until``."""
    seen, now = Seen(), at
    while True:
        for action in connection.actions(now):
            assert seen.end == "open", "nothing may follow the end"
            if isinstance(action, Send):
                assert action.data
                seen.sent.append((now, action.data))
            else:
                seen.end, seen.ended_at = ("reset" if isinstance(action, Reset) else "close"), now
        deadline = connection.deadline()
        if deadline is None or deadline > until:
            break
        assert deadline > now, "no step without progress"
        now = deadline
    read(seen, method)
    return seen


def read(seen: Seen, method: str = "POST") -> None:
    """Let h11 parse the bytes as a client would."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("host", "mock")]))
    client.send(h11.EndOfMessage())
    client.receive_data(seen.data)
    if seen.end != "open":
        client.receive_data(b"")
    try:
        while True:
            event = client.next_event()
            if isinstance(event, h11.Response):
                seen.status = event.status_code
                seen.headers = {name.decode(): value.decode("latin-1") for name, value in event.headers}
            elif isinstance(event, h11.Data):
                seen.body += event.data
            elif isinstance(event, h11.EndOfMessage):
                seen.complete = True
                return
            elif event in (h11.NEED_DATA, h11.PAUSED) or isinstance(event, h11.ConnectionClosed):
                return
    except h11.RemoteProtocolError as error:
        seen.error = str(error)


def ask(provider: MockProvider, prompt: str = "hello", *, at: float = 0.0, until: float = 1000.0, **fields: Any) -> Seen:
    """One chat request over a connection of its own."""
    return play(provider.connection(), chat(prompt, **fields), at=at, until=until)
