"""What can go wrong with an answer, as values: every fault by name.

They are frozen and know nothing of each other; `fault_script.py` decides which request meets which. All durations are
seconds; ``None`` for a duration means for ever.

"After n chunks" counts pieces of content (text, refusal, fragments of a tool call), not role or ping events. An answer with
fewer is hit just before its finish event. A unary body is one such piece, and is hit before it.

A fault strikes one exchange. Over HTTP/1.1 that is the connection; over HTTP/2 its neighbours on the connection go on, but
where the fault is about the connection itself:

============================================  ==========================  ================================================
fault                                         HTTP/1.1                    HTTP/2
============================================  ==========================  ================================================
Throttle, Status, RotateKeys, SlowFirstByte,  another answer, or another  the same, in this stream
NeverRespond, StallAfterHead,                 pace; the framing is whole
StallAfterChunks, PingsOnly, SlowTokens,
Truncate, DoneWithoutFinish, ErrorFrame,
WrongContentType, OversizedHeader,
OversizedEvent, GarbageBytes("sse")
DripBytes                                     each byte by itself         each byte of the body in a DATA frame; the head
                                                                          when its last byte would be out
CloseWithoutResponse                          FIN                         RST_STREAM(INTERNAL_ERROR)
Break                                         half a piece, then FIN      half a piece, then RST_STREAM(INTERNAL_ERROR)
ResetAtByte                                   RST                         RST_STREAM(INTERNAL_ERROR); what counts is the
                                                                          bytes of head and body, as HTTP/1.1 would write
                                                                          them, without framing
GarbageBytes("head"), GarbageBytes("body")    garbage past the framing,   a DATA frame of garbage on stream 0, an error of
                                              then FIN                    the whole connection (RFC 9113, section 6.1);
                                                                          then FIN
CloseOnReuse                                  FIN or RST                  the same: the connection ends
RefuseStream                                  FIN                         RST_STREAM(REFUSED_STREAM)
GoAway                                        FIN                         GOAWAY below this stream; FIN when those before
                                                                          it are done
============================================  ==========================  ================================================
"""

from __future__ import annotations

from .fault import FOREVER, Fault, Scene
from .fault_answers import RotateKeys, Status, Throttle
from .fault_bytes import GARBAGE, GarbageBytes, OversizedEvent, OversizedHeader, WrongContentType
from .fault_endings import (
    Break,
    CloseOnReuse,
    CloseWithoutResponse,
    DoneWithoutFinish,
    ErrorFrame,
    GoAway,
    RefuseStream,
    ResetAtByte,
    Truncate,
)
from .fault_slowness import (
    DripBytes,
    NeverRespond,
    PingsOnly,
    SlowFirstByte,
    SlowTokens,
    StallAfterChunks,
    StallAfterHead,
)

__all__ = [
    "FAULTS",
    "FOREVER",
    "GARBAGE",
    "Break",
    "CloseOnReuse",
    "CloseWithoutResponse",
    "DoneWithoutFinish",
    "DripBytes",
    "ErrorFrame",
    "Fault",
    "GarbageBytes",
    "GoAway",
    "NeverRespond",
    "OversizedEvent",
    "OversizedHeader",
    "PingsOnly",
    "RefuseStream",
    "ResetAtByte",
    "RotateKeys",
    "Scene",
    "SlowFirstByte",
    "SlowTokens",
    "StallAfterChunks",
    "StallAfterHead",
    "Status",
    "Throttle",
    "Truncate",
    "WrongContentType",
]

FAULTS: tuple[type[Fault], ...] = (
    *(Throttle, Status, RotateKeys, SlowFirstByte, NeverRespond, StallAfterHead, StallAfterChunks, PingsOnly, SlowTokens),
    *(DripBytes, CloseWithoutResponse, CloseOnReuse, RefuseStream, GoAway, ResetAtByte, Truncate, Break),
    *(DoneWithoutFinish, ErrorFrame, GarbageBytes, WrongContentType, OversizedHeader, OversizedEvent),
)
"""Every kind."""
