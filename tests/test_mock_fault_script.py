"""Which request meets which fault, and how a file says so."""

from __future__ import annotations

import json
import random
import tomllib
from typing import Any

import pytest

from sansio.simulation import (
    FAULTS,
    Ask,
    Break,
    ErrorFrame,
    Fault,
    FaultScript,
    NeverRespond,
    ResetAtByte,
    RotateKeys,
    Status,
    Throttle,
)
from sansio.simulation.provider.fault_script import fault_name

A, B, C = Status(500), Status(501), Status(502)


def picks(script: FaultScript, *prompts: str) -> list[Fault | None]:
    return [script.pick(Ask("m", prompt)) for prompt in prompts]


def test_the_nth_request_meets_the_nth_entry_and_later_ones_none() -> None:
    script = FaultScript([A, None, B])
    assert script.remaining == 3
    assert picks(script, *"vwxyz") == [A, None, B, None, None]
    assert script.remaining == 0


def test_what_comes_after_the_sequence() -> None:
    assert picks(FaultScript([A, None], then=B), *"wxyz") == [A, None, B, B]


def test_only_matching_requests_count() -> None:
    script = FaultScript([A, B], when="boom")
    assert picks(script, "x", "boom", "y", "boom!", "boom") == [None, A, None, B, None]
    by_model = FaultScript(then=A, when=lambda ask: ask.model == "other")
    assert [by_model.pick(Ask(model, "")) for model in ("m", "other")] == [None, A]


def test_scripts_are_asked_in_turn() -> None:
    script = FaultScript([None], when="spare", otherwise=FaultScript([A], when="boom", otherwise=FaultScript([B], then=C)))
    assert picks(script, "spare boom", "boom", "boom", "x") == [None, A, B, C]


def test_chance_is_seeded_and_keeps_its_rates() -> None:
    def drawn(seed: int) -> list[Fault | None]:
        return picks(FaultScript.random(seed, {A: 0.2, B: 0.1}), *["x"] * 5000)

    assert drawn(1) == drawn(1) != drawn(2)
    assert 900 < drawn(1).count(A) < 1100 and 400 < drawn(1).count(B) < 600


def test_rates_may_be_certain_or_nothing() -> None:
    assert picks(FaultScript.random(1, [(A, 0.0), (B, 1.0)]), *"xyz") == [B, B, B]
    assert picks(FaultScript.random(1, {}, when="x", otherwise=FaultScript(then=C)), "x") == [C]
    assert picks(FaultScript([A], rates={B: 0.0}, rng=random.Random(1)), *"xy") == [A, None]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"sequence": ["throttle"]}, "not a Fault"),
        ({"then": "throttle"}, "not a Fault"),
        ({"rates": {"throttle": 0.1}, "rng": random.Random(0)}, "not a Fault"),
        ({"rates": {A: 1.1}, "rng": random.Random(0)}, "rates.0.: 1.1"),
        ({"rates": {A: -0.1}, "rng": random.Random(0)}, "rates.0.: -0.1"),
        ({"rates": {A: True}, "rng": random.Random(0)}, "rates.0.: True"),
        ({"rates": {A: float("nan")}, "rng": random.Random(0)}, "rates.0.: nan"),
        ({"rates": [(A, 0.1), (B, "0.1")], "rng": random.Random(0)}, "rates.1.: '0.1'"),
        ({"rates": {A: 0.6, B: 0.6}, "rng": random.Random(0)}, "add up to 1.2"),
        ({"rates": {A: 0.6}}, "need rng"),
        ({"rates": {A: 0.6}, "rng": random.Random(0), "then": B}, "exclude then"),
    ],
)
def test_a_script_that_makes_no_sense_is_refused(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        FaultScript(**fields)


# --- files ------------------------------------------------------------------------------------------------------------

TOML = """
seed = 7

[[sequence]]
fault = "throttle"
retry_after = "1.5"

[[sequence]]
fault = "status"
code = 503
body = "busy"
headers = { x-should-retry = "true" }
repeat = 2

[[sequence]]
fault = "none"

[[sequence]]
fault = "rotate_keys"
keys = ["a", "b"]

[[rates]]
fault = "reset_at_byte"
byte = 10
probability = 1.0

[[prompts]]
contains = "boom"
fault = "break"
times = 1

[[prompts]]
contains = "boo"
fault = "error_frame"
error = { type = "x" }
"""


def test_a_toml_file_says_it_all() -> None:
    script = FaultScript.from_mapping(tomllib.loads(TOML))
    busy = Status(503, "busy", headers=(("x-should-retry", "true"),))
    expected = [
        Throttle("1.5"),
        Break(),
        busy,
        ErrorFrame(1, {"type": "x"}),
        busy,
        None,
        RotateKeys(("a", "b")),
        ResetAtByte(10),
    ]
    assert picks(script, "x", "boom", "x", "boom", "x", "x", "x", "x") == expected


def test_a_json_file_may_name_faults_only() -> None:
    script = FaultScript.from_mapping(json.loads('{"sequence": ["never_respond", "none"], "then": "throttle"}'))
    assert picks(script, *"xyz") == [NeverRespond(), None, Throttle()]
    assert picks(FaultScript.from_mapping({}), "x") == [None]


def test_every_kind_has_a_name() -> None:
    names = [fault_name(kind) for kind in FAULTS]
    assert len(set(names)) == len(names) == 23
    assert {"slow_first_byte", "status", "done_without_finish"} < set(names)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"sequences": []}, "faults file.sequences: is unknown; did you mean 'sequence'"),
        ({"sequence": {"fault": "status"}}, "sequence: must be an array"),
        ({"sequence": [5]}, r"sequence\[0\]: 5 is neither"),
        ({"sequence": ["trotle"]}, r"sequence\[0\].fault: 'trotle' is unknown; did you mean 'throttle'"),
        ({"sequence": [{"code": 500}]}, r"sequence\[0\].fault: None is unknown; did you mean 'none'"),
        ({"sequence": [{"fault": 7}]}, r"sequence\[0\].fault: 7 is unknown; known: .*none"),
        ({"sequence": ["none", {"fault": "status", "cod": 500}]}, r"sequence\[1\].cod: is unknown; did you mean 'code'"),
        ({"sequence": [{"fault": "none", "code": 500}]}, r"sequence\[0\].code: is unknown"),
        ({"sequence": [{"fault": "status", "probability": 0.5}]}, r"sequence\[0\].probability: is unknown"),
        ({"sequence": ["reset_at_byte"]}, r"sequence\[0\].byte: reset_at_byte needs it"),
        ({"sequence": [{"fault": "status", "code": 42}]}, r"sequence\[0\].code: 42 is not a status"),
        ({"sequence": [{"fault": "status", "headers": ["x"]}]}, r"sequence\[0\].headers: \['x'\] is not a table"),
        ({"sequence": [{"fault": "status", "headers": {"x": 1}}]}, r"sequence\[0\].headers: 1 cannot stand"),
        ({"sequence": [{"fault": "status", "repeat": 0}]}, r"sequence\[0\].repeat: 0 is not"),
        ({"sequence": [{"fault": "status", "repeat": True}]}, r"sequence\[0\].repeat: True is not"),
        ({"sequence": [{"fault": "status", "repeat": 1.5}]}, r"sequence\[0\].repeat: 1.5 is not"),
        ({"then": "none"}, "then.fault: 'none' has no meaning"),
        ({"then": 1}, "then: 1 is neither"),
        ({"rates": [{"fault": "none", "probability": 1}]}, r"rates\[0\].fault: 'none' has no meaning"),
        ({"rates": ["status"]}, r"rates\[0\]: nan is not a probability"),
        ({"rates": [{"fault": "status", "probability": 0.5}], "seed": -1}, "faults file.seed: -1 is not"),
        ({"rates": [{"fault": "status", "probability": 0.5}], "then": "status"}, "exclude then"),
        ({"prompts": [{"fault": "status"}]}, r"prompts\[0\].contains: None is not"),
        ({"prompts": [{"fault": "status", "contains": ""}]}, r"prompts\[0\].contains: '' is not"),
        ({"prompts": [{"fault": "none", "contains": "x"}]}, r"prompts\[0\].fault: 'none' has no meaning"),
        ({"prompts": [{"fault": "status", "contains": "x", "times": 0}]}, r"prompts\[0\].times: 0 is not"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(data: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        FaultScript.from_mapping(data)
