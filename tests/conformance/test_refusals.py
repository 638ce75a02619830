"""Refusals and nonsense: what is the request's own fault is sent once; what is no answer is said plainly and briefly."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conformance.harness import Lab, batch, causes, eventually, said

from sansio import (
    BadRequest,
    ContentFiltered,
    ContextLengthExceeded,
    Forbidden,
    InferenceError,
    LimitExceeded,
    NotFound,
    ProtocolError,
    QuotaExhausted,
    RateLimited,
    ServerError,
)
from sansio.errors import ForeignError
from sansio.simulation import (
    ErrorFrame,
    Fault,
    GarbageBytes,
    OversizedEvent,
    OversizedHeader,
    Status,
    Throttle,
    WrongContentType,
)

EXCERPT_BOUND = 4000
"""Characters: more than any error may keep of what the provider said."""


def openai_error(status: int, code: str | None, kind: str = "invalid_request_error", message: str = "No.") -> Status:
    """An error as OpenAI writes them."""
    return Status(status, json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}))


TERMINAL: dict[str, tuple[Fault, type[InferenceError]]] = {
    "400": (Status(400), BadRequest),
    "422": (Status(422), BadRequest),
    "413": (Status(413), BadRequest),
    "402": (Status(402), QuotaExhausted),
    "403": (Status(403), Forbidden),
    "404": (Status(404), NotFound),
    "model not found": (openai_error(404, "model_not_found"), NotFound),
    "filtered prompt": (openai_error(400, "content_filter"), ContentFiltered),
    "too long a prompt": (openai_error(400, "context_length_exceeded"), ContextLengthExceeded),
    "exhausted quota": (Throttle(body="quota"), QuotaExhausted),
    "larger than the limit": (Throttle(body="too_large"), LimitExceeded),
}


@pytest.mark.cases_take_turns("case")
@pytest.mark.parametrize("case", TERMINAL)
def test_what_cannot_get_better_is_sent_once(lab: Lab, case: str) -> None:
    fault, kind = TERMINAL[case]
    lab.script(fault)
    with lab.engine() as engine:
        error = engine.ask().error
        assert type(error) is kind
        assert error.provider == "openai"
        assert error.status == (429 if isinstance(fault, Throttle) else fault.code if isinstance(fault, Status) else None)
        assert (engine.metrics.attempts, engine.metrics.failed, engine.metrics.retries) == (1, 1, {})
        assert engine.metrics.failures == {error.kind: 1}
    assert lab.provider.requests_total == 1


def test_a_terminal_error_inside_a_stream_is_not_retried_either(lab: Lab) -> None:
    filtered: dict[str, Any] = {"message": "No.", "type": "invalid_request_error", "code": "content_filter"}
    lab.script(ErrorFrame(chunks=0, error=filtered))
    with lab.engine() as engine:
        assert isinstance(engine.ask().error, ContentFiltered)
    assert lab.provider.requests_total == 1


def test_an_error_inside_a_stream_is_classified_by_its_type(lab: Lab) -> None:
    slow_down: dict[str, Any] = {"message": "Slow down.", "type": "rate_limit_error", "code": "rate_limit_exceeded"}
    lab.script(ErrorFrame(chunks=0, error=slow_down))
    with lab.engine(retry={"max_retries": 0}) as engine:
        assert isinstance(engine.ask().error, RateLimited)


def test_a_request_the_provider_cannot_express_is_not_sent(lab: Lab) -> None:
    with lab.engine() as engine:
        assert isinstance(engine.ask(batch(extra={"circular": object()})).error, (BadRequest, InferenceError))
        assert engine.stream("after").text == said("after")
    assert [record.prompt for record in lab.log] == ["after"]


@pytest.mark.cases_take_turns("timeout")
@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), float("inf"), "soon"])
def test_a_timeout_that_is_none_is_the_callers_mistake(lab: Lab, timeout: Any) -> None:
    with lab.engine() as engine:
        with pytest.raises(ValueError, match="timeout"):
            engine.stream(timeout=timeout)
        assert engine.metrics.submitted == 0


# ---- not what was asked for ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unary", [False, True], ids=["stream", "unary"])
def test_a_wrong_content_type_is_no_answer(lab: Lab, unary: bool) -> None:
    lab.script(WrongContentType())
    with lab.engine(retry={"max_retries": 0}) as engine:
        error = engine.ask(unary=unary).error
        assert isinstance(error, ProtocolError)
        assert error.status == 200


@pytest.mark.cases_take_turns("code")
@pytest.mark.parametrize(("code", "kind"), [(502, ServerError), (200, ProtocolError), (302, ProtocolError), (404, NotFound)])
def test_an_html_page_is_the_class_of_its_status_with_a_bounded_excerpt(
    lab: Lab, code: int, kind: type[InferenceError]
) -> None:
    page = f"<!DOCTYPE html><title>{code}</title>" + "<p>x</p>" * 200_000
    lab.script(Status(code, page, "text/html"))
    with lab.engine(retry={"max_retries": 0}) as engine:
        error = engine.ask().error
        assert type(error) is kind
        assert error.body is not None
        assert error.body.startswith("<!DOCTYPE html>")
        assert len(error.body) < EXCERPT_BOUND
        assert len(str(error)) < EXCERPT_BOUND


def test_an_event_that_is_not_json(lab: Lab) -> None:
    lab.script(GarbageBytes("sse"))
    with lab.engine(retry={"max_retries": 0}) as engine:
        error = engine.ask().error
        assert isinstance(error, ProtocolError)
        assert len(str(error)) < EXCERPT_BOUND


def test_a_unary_body_that_is_not_json(lab: Lab) -> None:
    lab.script(GarbageBytes("sse"))
    with lab.engine(retry={"max_retries": 0}) as engine:
        assert isinstance(engine.ask(unary=True).error, ProtocolError)


def test_an_event_past_its_bound(lab: Lab) -> None:
    lab.script(OversizedEvent(2_000_000))
    with lab.engine(max_event_bytes=100_000, retry={"max_retries": 0}) as engine:
        error = engine.ask().error
        assert isinstance(error, ProtocolError)
        assert len(str(error)) < EXCERPT_BOUND
        eventually(lambda: lab.provider.active == 0)  # nobody reads the rest
        assert engine.stream("after").text == said("after")


def test_a_large_event_within_the_bound_is_fine(lab: Lab) -> None:
    lab.script(OversizedEvent(1_000_000))
    with lab.engine() as engine:
        assert engine.stream().text == said()


@pytest.mark.parametrize("unary", [False, True], ids=["stream", "unary"])
def test_a_body_past_its_bound(lab: Lab, unary: bool) -> None:
    lab.script(OversizedEvent(2_000_000))
    with lab.engine(max_body_bytes=500_000, retry={"max_retries": 0}) as engine:
        error = engine.ask(unary=unary).error
        assert isinstance(error, ProtocolError)
        assert "max_body_bytes" in str(error)


def test_a_header_past_its_bound(lab: Lab) -> None:
    lab.script(OversizedHeader())
    with lab.engine() as engine:
        assert isinstance(engine.ask().error, ProtocolError)
        assert engine.stream("after").text == said("after")
    assert lab.provider.requests_total == 2  # and it was not tried again


def test_an_error_names_what_led_to_it(lab: Lab) -> None:
    lab.script(GarbageBytes("head"))
    with lab.engine(retry={"max_retries": 0}) as engine:
        error = engine.ask().error
        assert isinstance(error, ProtocolError)
        assert error.cause is error.__cause__ is not None
        led_to_it = [cause for cause in causes(error) if isinstance(cause, ForeignError)]  # its words scrubbed of keys
        assert [cause.type_name for cause in led_to_it] == ["RemoteProtocolError"]
