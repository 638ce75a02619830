"""The simulator finds what it is for: each planted defect, by a pinned seed, and again when that seed is run again."""

from __future__ import annotations

import pytest
from simulation_mutants import MUTANTS, Mutant

from sansio.simulation.scenarios.run import run
from sansio.simulation.scenarios.sweep import plan_of


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_a_planted_defect_is_found_and_found_again(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(mutant.seed)
    assert run(plan).violation is None, "the run is sound without the defect"
    mutant.plant(monkeypatch)
    first, again = run(plan, digest=True), run(plan_of(mutant.seed), digest=True)
    assert first.violation is not None
    assert first.violation.number == mutant.number
    # Not the header: how long a world may take to recover is worked out by code that the defect may be in.
    assert (again.violation, again.last_events, again.digest) == (first.violation, first.last_events, first.digest)
    assert again.body() == first.body()
