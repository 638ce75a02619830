"""The HTTP/2 machine: many exchanges over one connection, held against a server that h2 plays."""

from __future__ import annotations

import h2.config
import h2.connection
import h2.events

from sansio.http import END, HttpRequest, ResponseHead
from sansio.http2 import Http2Connection


def test_an_exchange() -> None:
    server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
    server.initiate_connection()
    client = Http2Connection()
    stream = client.send(HttpRequest("POST", "https://h/v1", (("x-a", "b"),), b"{}"))
    events = server.receive_data(client.outgoing() + client.outgoing())
    assert [event.data for event in events if isinstance(event, h2.events.DataReceived)] == [b"{}"]
    server.send_headers(stream, [(":status", "200"), ("x-c", "d")])
    server.send_data(stream, b"hel")
    server.send_data(stream, b"lo", end_stream=True)
    assert client.receive(server.data_to_send()) == [stream]
    assert client.take(stream) == [ResponseHead(200, (("x-c", "d"),)), b"hello", END]
    assert client.open_streams == 0
