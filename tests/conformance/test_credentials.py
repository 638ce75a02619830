"""Credentials: refreshed once for all who wait, never shown."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Sequence

import pytest
from conformance.harness import KEY, Lab, causes, eventually, said
from conformance.props import NEW, OLD, Vault

from sansio import Credential, Secret, Unauthorized
from sansio.simulation import Fault, RotateKeys, Status, Throttle


def test_a_key_is_fetched_once_for_many_requests(lab: Lab) -> None:
    vault = Vault(KEY)
    with lab.engine(key=vault.secret) as engine:
        for one in [engine.ask(f"prompt {number}") for number in range(20)]:
            assert one.answer
    assert vault.calls == 1


def test_one_refresh_serves_fifty_waiting_requests(lab: Lab) -> None:
    vault = Vault(OLD, NEW)
    vault.gate.clear()
    lab.take_keys(NEW)
    with lab.engine(key=vault.secret, serving={"max_concurrent": 50}, timeouts={"connect_timeout": 60.0}) as engine:
        asked = [engine.ask(f"prompt {number}") for number in range(50)]
        eventually(lambda: engine.metrics.waiting + engine.metrics.queued == 50 and engine.metrics.in_flight == 0)
        vault.gate.set()
        assert [one.answer.text for one in asked] == [said(f"prompt {number}") for number in range(50)]
        assert engine.metrics.failed == 0
        assert engine.metrics.refreshes == 2  # the first key, and the new one
    assert vault.calls == 2
    prompts = [record.prompt for record in lab.log if record.key_ok]
    assert sorted(prompt or "" for prompt in prompts) == sorted(f"prompt {number}" for number in range(50))


def test_a_key_that_is_rotated_under_way_fails_nobody(lab: Lab) -> None:
    vault = Vault(OLD, NEW)
    lab.take_keys(OLD)
    lab.script(None, None, RotateKeys((NEW,)))
    with lab.engine(key=vault.secret) as engine:
        for number in range(6):
            assert engine.stream(f"prompt {number}").text == said(f"prompt {number}")
        assert engine.metrics.retries == {"unauthorized": 1}
    assert vault.calls == 2


def test_the_same_key_again_leaves_the_401_standing(lab: Lab) -> None:
    vault = Vault(OLD)
    with lab.engine(key=vault.secret) as engine:
        assert isinstance(engine.ask().error, Unauthorized)
        assert vault.calls == 2
    assert lab.provider.requests_total == 1


def test_a_key_given_inline_is_refused_once(lab: Lab) -> None:
    with lab.engine(key=Secret.inline(OLD)) as engine:
        error = engine.ask().error
        assert isinstance(error, Unauthorized)
        assert error.status == 401
    assert lab.provider.requests_total == 1


def test_a_fresh_key_that_is_refused_too_is_the_end(lab: Lab) -> None:
    vault = Vault(OLD, NEW, "sk-yet-another-0123456789abc")
    with lab.engine(key=vault.secret) as engine:
        assert isinstance(engine.ask().error, Unauthorized)
    assert lab.provider.requests_total == 2  # one retry for a 401, not one for each key


def test_a_vault_that_fails_fails_those_who_wait_each_with_its_own_error(lab: Lab) -> None:
    vault = Vault(OLD, RuntimeError("the vault is sealed"))
    vault.gate.clear()
    with lab.engine(key=vault.secret) as engine:
        asked = [engine.ask(f"prompt {number}") for number in range(5)]
        eventually(lambda: engine.metrics.waiting + engine.metrics.queued == 5 and vault.calls == 2)
        vault.gate.set()
        errors = [one.error for one in asked]
        assert all(isinstance(error, Unauthorized) for error in errors)
        assert len({id(error) for error in errors}) == 5
        assert len({id(error.__cause__) for error in errors}) == 1


def test_a_first_fetch_that_fails_says_why(lab: Lab) -> None:
    vault = Vault(RuntimeError("the vault is sealed"))
    with lab.engine(key=vault.secret) as engine:
        error = engine.ask().error
        assert isinstance(error, Unauthorized)
        assert "RuntimeError" in "".join(str(cause) for cause in causes(error))
    assert lab.provider.requests_total == 0


def test_a_vault_that_takes_its_time_holds_nobody_else_up(lab: Lab) -> None:
    vault = Vault(OLD, NEW)
    vault.gate.clear()
    slow = lab.deployment("slow", key=vault.secret)
    quick = lab.deployment("quick")
    with lab.engine(slow, quick) as engine:
        parked = engine.ask("parked", deployment="slow")
        eventually(lambda: engine.metrics.waiting == 1)
        assert engine.stream("quick", deployment="quick").text == said("quick")
        lab.take_keys(KEY, NEW)
        vault.gate.set()
        assert parked.answer.text == said("parked")


@pytest.mark.ways_take_turns
def test_the_deadline_while_parked_for_a_credential(lab: Lab) -> None:
    vault = Vault(OLD, NEW)
    vault.gate.clear()
    with lab.engine(key=vault.secret) as engine:
        error = engine.ask(timeout=1.5).error
        assert error.kind == "deadline_exceeded"
        assert isinstance(error.__cause__, Unauthorized)
        vault.gate.set()


@pytest.mark.ways_take_turns
def test_an_expiring_credential_is_refreshed_ahead(lab: Lab) -> None:
    vault = Vault(Credential(OLD, time.time() + 3.0), NEW)
    lab.take_keys(OLD, NEW)
    with lab.engine(key=vault.secret) as engine:
        engine.stream("with the old one")
        eventually(lambda: vault.calls == 2)
        eventually(lambda: len(engine.heard("refresh_ended")) == 2)
        engine.stream("with the new one")
    assert len({record.key_fingerprint for record in lab.log}) == 2


def test_an_operator_has_a_credential_fetched_again(lab: Lab) -> None:
    vault = Vault(OLD, NEW)
    lab.take_keys(OLD, NEW)
    with lab.engine(key=vault.secret) as engine:
        engine.stream("with the old one")
        engine.call(engine.real.rebuild_session)
        eventually(lambda: len(engine.heard("refresh_ended")) == 2)
        engine.stream("with the new one")
    assert len({record.key_fingerprint for record in lab.log}) == 2


def _echo(code: int) -> Status:
    return Status(code, json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}", "type": "x", "code": None}}))


@pytest.mark.cases_take_turns("faults")
@pytest.mark.parametrize(
    "faults",
    [
        [_echo(401)],
        [_echo(400)],
        [_echo(500)],
        [Status(502, f"<html>upstream refused Authorization: Bearer {KEY}</html>", "text/html")],
        [Status(200, f'{{"echo": "{KEY}"', "application/json")],
        [Throttle(), _echo(403)],
    ],
    ids=["401", "400", "500", "html", "broken json", "403 after a retry"],
)
def test_a_key_is_never_shown_even_if_the_provider_shows_it(lab: Lab, faults: Sequence[Fault]) -> None:
    lab.script(*faults, then=faults[-1])
    with lab.engine(retry={"max_retries": 1}) as engine:
        error = engine.ask(unary=True).error
        shown = [str(error), repr(error), json.dumps(error.to_dict()), *(repr(cause) for cause in causes(error))]
        shown += traceback.format_exception(error)
        shown += [repr(notice) for notice in engine.notices]
        shown += [repr(engine.metrics), repr(engine.real), repr(vars(engine.real))]
    assert not [text for text in shown if KEY in text or KEY[3:-4] in text]
