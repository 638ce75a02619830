"""`remote-core simulate` as its users meet it."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from simulation_mutants import MUTANTS

from drivers.command_line import main
from sansio.simulation.cluster.catalogue import CLUSTERS
from sansio.simulation.scenarios.catalogue import SCENARIOS
from sansio.simulation.scenarios.sweep import level_of, plan_of, scenario_of


def printed(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    assert main(["simulate", *arguments]) == status
    return capsys.readouterr().out


def in_a_process(hash_seed: str, *arguments: str) -> bytes:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-m", "drivers.command_line", "simulate", *arguments]
    return subprocess.run(command, env=env, capture_output=True, check=True, timeout=100).stdout


def test_a_seed_stands_for_a_scenario_and_a_level_and_every_pair_comes() -> None:
    pairs = {(scenario_of(seed), level_of(seed)) for seed in range(44)}
    assert len(pairs) == 2 * len(SCENARIOS)
    assert plan_of(17) == plan_of(17, scenario_of(17), level_of(17))


def test_it_says_which_scenarios_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    names = [line.split()[0] for line in printed(capsys, "--list").splitlines()]
    assert names == [*SCENARIOS, *CLUSTERS]
    assert len(names) == 11 + 3


def test_without_options_each_scenario_is_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "--level", "requests")
    for name in SCENARIOS:
        assert f"scenario     {name}, seed 0, level requests" in out
    assert out.count("result       ok: ") == len(SCENARIOS)


@pytest.mark.parametrize("seed", ["4", "5"])
def test_a_seed_prints_the_same_bytes_under_every_hash_seed(seed: str) -> None:
    one, other = in_a_process("1", "--seed", seed), in_a_process("2", "--seed", seed)
    assert one == other
    assert one.startswith(b"scenario     ")
    assert re.search(rb"\ndigest       [0-9a-f]{64}\n", one)


def test_the_command_it_prints_does_the_same_again(capsys: pytest.CaptureFixture[str]) -> None:
    first = printed(capsys, "--seed", "6", "--callers", "0,3,5,8", "--disturbances", "none")
    command = re.search(r"^replay +remote-core simulate (.*)$", first, re.MULTILINE)
    assert command is not None
    assert printed(capsys, *shlex.split(command[1])) == first


def test_many_seeds_are_told_of_together_however_many_processes_share_them(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--seeds", "22", "--seed", "3", "--level", "requests")
    assert main(["simulate", *arguments, "--jobs", "1"]) == 0
    alone, told = capsys.readouterr()
    assert printed(capsys, *arguments, "--jobs", "2") == alone
    assert alone.startswith("remote-core simulate --seeds 22 --seed 3 --level requests\n")
    assert alone.endswith("22 runs, 0 failed\n")
    assert re.search(r"^all +22 +0 ", alone, re.MULTILINE)
    assert "facts per second of CPU" in told


def test_what_does_not_hold_is_made_small_and_its_command_shows_it_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    MUTANTS["throttle_pauses_only_its_own"].plant(monkeypatch)
    swept = printed(capsys, "--scenario", "throttle_storm", "--seeds", "4", "--jobs", "1", status=1)
    assert re.search(r"\n4 runs, [1-4] failed: throttle_storm [1-4]\n$", swept)
    large, small, *_ = swept.split("\n\nmade small:\n")
    small = small.partition("\n\n")[0]
    assert re.search(r"\nscenario +throttle_storm, seed \d", large) and re.search(r"(?m)^replay +.* \d --level \w+$", large)
    assert re.search(r"\nresult +VIOLATION of 12 .* after [\d.]+ s of virtual time, \d+ facts\n {13}request .*$", large)
    assert small.count("\nreplay ") == small.count("\nresult ") == 1 and small.startswith("scenario     throttle_storm")
    assert "VIOLATION of 12" in swept
    command = re.findall(r"^replay +remote-core simulate (.*--callers.*)$", swept, re.MULTILINE)[0]
    again = printed(capsys, *shlex.split(command), "--picture", str(tmp_path / "failed.svg"), status=1)
    assert "VIOLATION of 12" in again
    assert again.count("scenario     ") == again.count("result       ") == 1, "what is small is not made small"
    alone = printed(capsys, "--scenario", "throttle_storm", "--seed", re.findall(r"--seed (\d+)", swept)[1], status=1)
    large, small = alone.split("\n\nmade small:\n")
    assert large.count("\nresult       VIOLATION of 12 ") == 1 and "digest" not in large
    assert small == again
    last_events = swept[swept.index("last events") :].partition("\n\n")[0]
    assert last_events in again
    assert (tmp_path / "failed.svg").exists()


@pytest.mark.parametrize("name", ["run.svg", "run.png"])
def test_a_picture_is_the_same_every_time(name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pictures: list[bytes] = []
    for _ in range(2):
        printed(capsys, "--scenario", "outage", "--seed", "5", "--picture", str(tmp_path / name))
        pictures.append((tmp_path / name).read_bytes())
    assert pictures[0] == pictures[1]
    assert pictures[0].startswith(b"\x89PNG" if name.endswith("png") else b"<?xml")
    assert len(pictures[0]) > 20_000


@pytest.mark.parametrize(("scenario", "disturbances"), [("steady", 0), ("brownout", 1), ("throttle_storm", 5)])
def test_what_went_wrong_is_named_above_everything_that_is_drawn(
    scenario: str, disturbances: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *rest, **options: drawn.append(self))
    printed(capsys, "--scenario", scenario, "--seed", "5", "--level", "requests", "--picture", "run.svg")
    axis: Any = drawn[0].axes[0]
    names = [text for text in axis.texts if text.get_text() != " healed"]
    highest = axis.dataLim.y1 / axis.get_ylim()[1]
    assert len(names) == disturbances and 0.4 < highest < 0.95
    assert all(text.get_position()[1] - 0.05 > highest for text in names)


def test_several_runs_have_a_picture_each(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    few = {name: SCENARIOS[name] for name in ("steady", "brownout")}
    monkeypatch.setattr("drivers.command_line.simulate.SCENARIOS", few)
    printed(capsys, "--level", "requests", "--picture", str(tmp_path / "all.svg"))
    pictures = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert pictures.keys() == {"all-steady.svg", "all-brownout.svg"}
    assert pictures["all-steady.svg"] != pictures["all-brownout.svg"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--scenario", "outrage"], "'outage'"),
        (["--scenario", "outrage", "--seeds", "3"], "'outage'"),
        (["--seed", "abc"], "'abc' is not a whole number of at least 0"),
        (["--jobs", "1.5"], "'1.5' is not a whole number of at least 1"),
        (["--scenario", "outage", "--callers", "3,9999"], "--callers: there is no number 9999; outage, seed 0, level "),
        (["--scenario", "steady", "--disturbances", "0"], "level bytes, has none"),
        (["--scenario", "outage", "--disturbances", "7"], "has those from 0 to "),
        (["--seed", "-1"], "not a whole number of at least 0"),
        (["--seeds", "0"], "not a whole number of at least 1"),
        (["--picture", "run.gif"], "ends neither in .png nor in .svg"),
        (["--picture", "/no/such/place/run.svg"], "is no directory"),
        (["--seeds", "3", "--picture", "run.svg"], "--picture: is about one run"),
        (["--seeds", "3", "--callers", "1"], "--callers: is about one run"),
        (["--seeds", "3", "--disturbances", "1"], "--disturbances: is about one run"),
        (["--callers", "1,x"], "--callers: 'x' is not a whole number of at least 0"),
        (["--level", "atoms"], "--level"),
    ],
)
def test_what_cannot_be_is_refused(arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", *arguments]) == 2
    assert complaint in capsys.readouterr().err


# ---- who leaves early ---------------------------------------------------------------------------------------------------


@contextmanager
def running(*arguments: str) -> Generator[subprocess.Popen[str]]:
    """The command in a process group of its own, as a shell starts it."""
    command = [sys.executable, "-m", "drivers.command_line", "simulate", *arguments]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": ""}
    found = signal.signal(signal.SIGINT, signal.default_int_handler)  # an ignored one would be inherited
    process = subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        signal.signal(signal.SIGINT, found)
        process.kill()
        process.communicate()


@pytest.mark.parametrize("seconds", [0.0, 0.3, 2.5])
@pytest.mark.parametrize("arguments", [("--seeds", "4000", "--jobs", "2"), ("--seeds", "4000", "--jobs", "1")])
def test_ctrl_c_ends_a_sweep_and_all_its_processes(arguments: tuple[str, ...], seconds: float) -> None:
    with running(*arguments) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("remote-core simulate --seeds 4000")
        time.sleep(seconds)  # before its processes are there, while they start, while they work
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)  # until everybody has closed it
        assert (process.returncode, out, err) == (130, "", "")


@pytest.mark.parametrize(
    "arguments", [("--seeds", "24", "--jobs", "2"), ("--list",), ("--seed", "1", "--level", "requests")]
)
def test_a_reader_who_leaves_is_no_traceback(arguments: tuple[str, ...]) -> None:
    with running(*arguments) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 1
