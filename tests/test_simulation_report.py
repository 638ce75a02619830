"""What is said of a run: its text, word for word, and what happened over time."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from simulation_plans import HOST, OUTAGE, deployment, make_plan

from sansio.secret import Secret
from sansio.simulation import SlowTokens, Status
from sansio.simulation.scenarios.failure import Violation
from sansio.simulation.scenarios.labels import described, label_of
from sansio.simulation.scenarios.report import Report, header, percentile, replay_command
from sansio.simulation.scenarios.run import run
from sansio.simulation.scenarios.timeline import Span, Timeline
from sansio.simulation.world.plan import (
    BadNetwork,
    CallerPlan,
    ClockJump,
    Conditions,
    Disturbance,
    DrainNow,
    Faults,
    Operate,
    RotateKey,
    VaultDown,
)

# ---- text -------------------------------------------------------------------------------------------------------------

REPORT = Report(
    header="the header",
    command="remote-core simulate",
    scenario="outage",
    seed=7,
    level="bytes",
    callers=None,
    disturbances=None,
    violation=None,
    seconds=84.2124,
    facts=2312,
    submitted=130,
    done=100,
    failed=8,
    rejected=20,
    cancelled=2,
    follow_ups=12,
    failures={"timeout": 8, "circuit_open": 20},
    attempts=180,
    retries={"network_error": 10, "server_error": 40, "timeout": 10},
    throttled=12,
    throttled_by_limit=3,
    circuit_transitions={"closed->open": 2},
    refreshes=4,
    failed_refreshes=0,
    broken_streams=3,
    peak_in_flight=32,
    longest_queue=88,
    limit_used=0.972,
    latency_p50=0.4121,
    latency_p95=3.2,
    recovery=12.3,
    cost_usd=0.0123,
    unknown_cost=0,
)

TEXT = """\
the header
result       ok: 84.212 s of virtual time, 2312 facts
requests     130: 100 done, 8 failed, 20 rejected, 2 cancelled (12 of them after the faults)
failures     circuit_open 20, timeout 8
attempts     180; retries: server_error 40, network_error 10, timeout 10
429          12 seen, 3 by the provider's own limiter
circuits     closed->open 2
credentials  4 refreshes
streams      3 broken
peaks        32 in flight, 88 queued, 97.2% of the provider's limit
latency      p50 0.412 s, p95 3.200 s
recovery     12.300 s after the last disturbance
cost         $0.012300"""


def test_a_run_in_which_everything_held() -> None:
    assert REPORT.text() == TEXT
    assert REPORT.body() == TEXT.removeprefix("the header\n")


def test_a_run_in_which_something_did_not() -> None:
    failed = replace(
        REPORT,
        violation=Violation(0, "KeyError: 'x'\n  in engine.py, handle"),
        failures={},
        failed_refreshes=2,
        limit_used=None,
        latency_p50=None,
        latency_p95=None,
        recovery=None,
        unknown_cost=5,
        last_events=("   1.000  Tick   -", "   2.000  Drain  -"),
        digest="abc",
    )
    text = failed.text()
    assert not failed.ok and REPORT.ok
    assert (
        "result       VIOLATION of 0 (nothing crashes) after 84.212 s of virtual time, 2312 facts\n"
        "             KeyError: 'x'\n"
        "               in engine.py, handle\n"
        "requests "
    ) in text
    for line in (
        "failures     none",
        "credentials  4 refreshes, 2 failed",
        "peaks        32 in flight, 88 queued, the provider has no limit",
        "latency      p50 -, p95 -",
        "recovery     - after the last disturbance",
        "cost         $0.012300, 5 attempts of unknown cost",
    ):
        assert f"\n{line}\n" in text
    assert text.endswith("\ndigest       abc\nlast events\n     1.000  Tick   -\n     2.000  Drain  -")


def test_the_header_is_known_before_the_run() -> None:
    plan = replace(make_plan(OUTAGE, DrainNow(4, 20.0), callers=3), scenario="outage")
    assert header(plan) == (
        "scenario     outage, seed 3, level requests\n"
        "plan         3 callers, 2 disturbances, 1 deployment; 30 s, then well again within 600 s\n"
        f"  0          from 5.000 s to 15.000 s: faults at {HOST}: Status(500) 90%\n"
        "  4          at 20.000 s: the engine is drained\n"
        "replay       remote-core simulate --scenario outage --seed 3 --level requests"
    )
    assert run(plan).text().startswith(header(plan) + "\nresult ")


def test_the_command_names_what_is_left_of_a_plan() -> None:
    plan = replace(make_plan(OUTAGE, DrainNow(4, 20.0)), scenario="outage")
    whole = "remote-core simulate --scenario outage --seed 3 --level requests"
    assert replay_command(plan) == replay_command(plan.keep(range(99), range(99))) == whole
    assert replay_command(plan.keep([7, 1], [0, 4])) == f"{whole} --callers 1,7"
    assert replay_command(plan.keep(range(99), [4])) == f"{whole} --disturbances 4"
    assert replay_command(plan.keep([], [])) == f"{whole} --callers none --disturbances none"
    assert "1 of 40 callers, 1 of 2 disturbances, " in header(plan.keep([9, 3], [4]).keep([3], [4]))


@pytest.mark.parametrize(
    ("disturbance", "said"),
    [
        (
            Faults(0, 1.0, 2.0, "h", ((Status(500), 0.25), (SlowTokens(1.0), 0.004))),
            "faults at h: Status(500) 25%, SlowTokens 0.4%",
        ),
        (BadNetwork(0, 1.0, 2.0, "h", Conditions(lost=0.5)), "bad network to h: lost 0.5"),
        (BadNetwork(0, 1.0, 2.0, "h", Conditions()), "bad network to h: a fair one"),
        (RotateKey(0, 1.0, "h", 0.25), "another key at h, in the vault 0.250 s later"),
        (VaultDown(0, 1.0, 2.0, "h"), "the vault of h fails"),
        (VaultDown(0, 1.0, 2.0, "h", silent=True), "the vault of h is silent"),
        (ClockJump(0, 1.0, -2.0, 3600.0), "clocks jump: monotonic -2.000 s, wall +3600.000 s"),
        (Operate(0, 1.0, "chat", "open", 3.0), "an operator acts on chat: open"),
        (DrainNow(0, 1.0), "the engine is drained"),
    ],
)
def test_each_disturbance_has_a_name(disturbance: Disturbance, said: str) -> None:
    assert label_of(disturbance) == said
    assert described(disturbance).endswith(f" s: {said}")


def test_percentiles_are_of_the_nearest_rank() -> None:
    values = [float(value) for value in range(20, 0, -1)]
    assert percentile([], 50) is None
    assert (percentile(values, 0), percentile(values, 50), percentile(values, 95), percentile(values, 100)) == (
        1,
        10,
        19,
        20,
    )
    assert percentile([3.0], 95) == 3.0


# ---- over time --------------------------------------------------------------------------------------------------------


def timeline_of(*disturbances: Disturbance, **changes: object) -> tuple[Report, Timeline]:
    report = run(make_plan(*disturbances, **changes), timeline=True)
    assert report.violation is None and report.timeline is not None
    return report, report.timeline


def test_the_bins_hold_what_the_report_counts() -> None:
    report, line = timeline_of(OUTAGE, level="bytes", seconds=25.0)
    assert sum(line.submitted) == report.submitted
    assert sum(line.done) == report.done
    assert sum(line.failed) == report.failed > 0
    assert sum(line.rejected) == report.rejected > 0
    assert sum(line.cancelled) == report.cancelled
    assert sum(line.attempts) == report.attempts
    assert sum(line.throttled) == report.throttled
    assert sum(line.retries) == sum(report.retries.values()) > 0
    assert max(line.in_flight) == report.peak_in_flight
    assert line.healed_at == 25.0 and line.seconds == report.seconds
    assert line.disturbances == (Span(f"faults at {HOST}: Status(500) 90%", 5.0, 15.0),)
    series = (line.submitted, line.queued, line.in_flight, *line.limit_used.values())
    assert {len(each) for each in series} == {int(line.seconds / line.bin_seconds) + 1}


def test_a_bin_begins_where_its_time_does() -> None:
    plan = make_plan(seconds=24.0, callers=0)
    three = tuple(CallerPlan(number, at, "chat", "q", stream=False) for number, at in enumerate((0.0, 5.0, 5.05)))
    report = run(replace(plan, callers=three), timeline=True)
    assert report.timeline is not None
    line = report.timeline
    assert line.bin_seconds == 0.1
    assert [at for at, count in enumerate(line.submitted) if count] == [0, 50]
    assert line.submitted[50] == 2 and line.in_flight[49:53] == (0, 2, 2, 2)
    assert line.queued[0] == 1, "it waits for a credential first"
    assert line.limit_used["chat"][49:52] == (1 / 600, 3 / 600, 3 / 600)


def test_circuits_go_from_state_to_state_without_a_gap() -> None:
    report, line = timeline_of(OUTAGE, RotateKey(1, 9.0, HOST, vault_lag=1.0))
    assert set(line.circuits) == {"chat", "chat (key)"}
    for spans in line.circuits.values():
        assert spans[0].begin == 0.0 and spans[-1].end == line.seconds and spans[-1].name == "closed"
        assert all(one.end == other.begin for one, other in pairwise(spans))
        assert {span.name for span in spans} == {"closed", "open", "half_open"}
    opened = sum(span.name == "open" for spans in line.circuits.values() for span in spans)
    assert opened == sum(count for move, count in report.circuit_transitions.items() if move.endswith("->open"))


def test_a_long_run_has_wider_bins() -> None:
    _, short = timeline_of(seconds=24.0)
    _, long = timeline_of(Operate(0, 23.0, "chat", "open", 300.0), seconds=24.0)
    assert short.bin_seconds == 0.1 and long.bin_seconds == 0.8
    assert 240 <= len(long.submitted) <= 480
    assert sum(long.submitted[: int(24.0 / long.bin_seconds)]) == 40
    assert max(long.limit_used["chat"]) == max(short.limit_used["chat"])
    assert max(long.in_flight) == max(short.in_flight)


def test_limiters_and_circuits_are_named_after_those_who_share_them() -> None:
    unlimited = deployment("other", "other.test", rate_limits={}, api_key=Secret.from_env("ANOTHER"))
    plan = make_plan(deployments=(deployment(), deployment("twin"), unlimited))
    report = run(plan, timeline=True)
    assert report.violation is None and report.timeline is not None
    assert set(report.timeline.limit_used) == {"chat, twin"}
    assert set(report.timeline.circuits) == {"chat, twin", "chat, twin (key)", "other", "other (key)"}


def test_what_lasts_shows_in_every_bin() -> None:
    held = deployment(rate_limits={"requests_per_minute": 2, "window": 20.0})
    plan = make_plan(callers=0, seconds=24.0, deployments=(held,), limits=None)
    three = tuple(CallerPlan(number, 1.0, "chat", "q", reads_every=2.0, stream=False) for number in range(3))
    report = run(replace(plan, callers=three), timeline=True)
    assert report.violation is None and report.timeline is not None
    line = report.timeline
    assert set(line.queued[15:200]) == {1} and set(line.limit_used["chat"][15:200]) == {1.0}
    assert line.limit_used["chat"][-1] == 0.5, "of a new bin, what was before is forgotten"


def test_a_bin_has_the_most_that_was_used_in_it_and_nothing_of_before() -> None:
    brief = deployment(rate_limits={"requests_per_minute": 4, "window": 0.2, "delivery_guard": 0.0})
    plan = make_plan(callers=0, seconds=120.0, deployments=(brief,), limits=None)
    callers = tuple(CallerPlan(number, at, "chat", "q", stream=False) for number, at in enumerate((1.0, 1.0, 60.0)))
    report = run(replace(plan, callers=callers), timeline=True)
    assert report.timeline is not None and report.timeline.bin_seconds == 0.5
    levels = report.timeline.limit_used["chat"]
    assert levels[2] == 0.5 and levels[3] == 0.0, "most in the bin of 1.0 s, although it has left the window by its end"
    longer = deployment(rate_limits={"requests_per_minute": 4, "window": 10.0})
    report = run(replace(plan, callers=callers, deployments=(longer,)), timeline=True)
    assert report.timeline is not None
    levels = report.timeline.limit_used["chat"]
    assert levels[2:120] == (0.5,) * 118 and levels[120] == 0.25


def test_a_disturbance_ends_with_the_faults() -> None:
    _, line = timeline_of(replace(OUTAGE, at=20.0, seconds=100.0), Operate(1, 29.0, "chat", "close"))
    assert [(span.begin, span.end) for span in line.disturbances] == [(20.0, 30.0), (29.0, 29.0)]


def test_a_run_that_is_cut_short_ends_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(number: int) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("sansio.simulation.world.plan.CallerPlan.said", property(broken))
    report = run(make_plan(OUTAGE, DrainNow(1, 29.0)), timeline=True)
    assert report.violation is not None and report.timeline is not None
    line = report.timeline
    assert line.seconds == line.healed_at == 0.0
    assert line.submitted == (0,) and line.limit_used["chat"] == (0.0,) and line.circuits == {"chat": (), "chat (key)": ()}
    assert line.disturbances[0].begin == 5.0, "what was going to happen, all the same"


def test_the_verdict_is_a_line_or_two() -> None:
    good = run(make_plan(callers=1))
    assert good.verdict() == f"result       ok: {good.seconds:.3f} s of virtual time, {good.facts} facts"
    crashed = replace(good, violation=Violation(0, "KeyError: 1\n  in a.py, f\n  in b.py, g"))
    first, second = crashed.verdict().split("\n")
    assert first.startswith("result       VIOLATION of 0 (nothing crashes) after ")
    assert second == "             KeyError: 1"
