"""Simulated clusters find what they are for: each planted defect, by a pinned seed, and again when it is run again."""

from __future__ import annotations

from functools import cache

import pytest
from cluster_mutants import MUTANTS, Mutant

from sansio.simulation.cluster.catalogue import cluster_plan
from sansio.simulation.cluster.run import run


@cache
def is_sound(scenario: str, seed: int) -> bool:
    """Whether everything holds as long as there is no defect. Several are found by the same seed."""
    return run(cluster_plan(scenario, seed)).ok


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_a_planted_defect_is_found_and_found_again(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_sound(mutant.scenario, mutant.seed)
    mutant.plant(monkeypatch)
    first, again = (run(cluster_plan(mutant.scenario, mutant.seed)) for _ in range(2))
    assert first.violation is not None
    assert first.violation.number == mutant.number, first.violation.text
    assert again == first
