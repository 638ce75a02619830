"""`remote-core demo`: that it goes well, and above all that it says so only when it did.

The verification is tested by planting what it has to find: an answer lost, doubled or altered, a thread, a task or a
connection left behind, counts that do not add up.
"""

from __future__ import annotations

import asyncio
import io
import random
import re
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from rich.console import Console

from drivers.command_line import demo, demo_drivers, main
from drivers.command_line.demo_scene import USERS, Prompt, Vault, make_prompts, make_provider, trouble
from drivers.command_line.demo_screen import LiveScreen
from drivers.command_line.demo_tally import MOST_ASKS, Happening, Tally
from drivers.command_line.table import percentile, summary
from sansio import EngineMetrics, InferenceError, Notice, ServerError, StreamInterrupted, Tokens
from sansio.simulation import MockProvider, RotateKeys, Status, Throttle

ROOT = Path(__file__).parent.parent
PROMPT = Prompt("question 1 #tokens=8", 8)


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    status = main(["demo", "--plain", "--prompts", "20", *arguments])
    out, err = capsys.readouterr()
    assert err == ""
    return status, out


@pytest.fixture
def one_act(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The asyncio driver alone, and no patience with what is left behind."""
    monkeypatch.setattr(demo, "ACTS", {"asyncio": demo_drivers.run_asyncio})
    patient = demo.left_behind
    monkeypatch.setattr(demo, "left_behind", lambda provider, before: patient(provider, before, grace=0.3))
    return


# --- when all goes well ------------------------------------------------------------------------------------------------


def test_it_ends_well_on_every_driver(capsys: pytest.CaptureFixture[str]) -> None:
    threads = set(threading.enumerate())
    status, out = run(capsys=capsys)
    assert status == 0
    assert "60 prompts: 60 answered once and in full; 0 lost, 0 doubled, 0 wrong, 0 left behind." in out
    assert set(threading.enumerate()) <= threads
    for driver in ("sync", "asyncio", "trio"):
        lines = [line for line in out.splitlines() if f" {driver} " in line]
        said = "\n".join(lines)
        for happening in (
            r"429: bucket paused 0\.\d s",
            r"breaker opened",
            r"breaker half-open",
            r"probe succeeded: breaker closed",
            r"key fetched: 1 refresh for \d+ waiting",
            r"key rotated: 1 refresh for \d+ waiting",
            r"stream broke after \d words",
            r"before the first word",
        ):
            assert re.search(happening, said), f"{driver}: {happening}"


def test_the_table_names_every_measure(one_act: None, capsys: pytest.CaptureFixture[str]) -> None:
    _, out = run(capsys=capsys)
    rows = {line.partition("│")[0].strip(): line.partition("│")[2].strip() for line in out.splitlines() if "│" in line}
    assert rows["answered once and in full"] == "20"
    assert int(rows["requests"]) >= 21 and int(rows["interrupted, asked again"]) >= 1
    assert int(rows["attempts"]) > 30
    assert int(rows["retries: rate_limited"]) >= 2 and int(rows["retries: server_error"]) >= 7
    assert int(rows["retries: unauthorized"]) >= 1
    opened, probed, closed = map(int, rows["breaker opened / probed / closed"].split(" / "))
    assert min(opened, probed, closed) >= 1
    assert rows["key refreshes, first included"] == "2"
    p50_ms, p95_ms = map(int, rows["TTFT with waiting, p50 / p95, ms"].split(" / "))
    assert 0 < p50_ms <= p95_ms
    tokens_in, tokens_out = map(int, rows["tokens in / out"].split(" / "))
    assert tokens_in > 100 and tokens_out > 100 and float(rows["cost (USD)"]) > 0
    assert rows["verdict"] == "ok"


def test_a_terminal_gets_a_picture(
    one_act: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "Console", lambda **_: Console(force_terminal=True, width=80, highlight=False))
    monkeypatch.setenv("TERM", "xterm")
    assert main(["demo", "--prompts", "20", "--seed", "7"]) == 0
    out = capsys.readouterr().out
    assert "\x1b[2K" in out and "in flight" in out and "seed 7" in out


def test_python_m_runs_it_without_a_terminal() -> None:
    command = [sys.executable, "-m", "drivers.command_line", "demo", "--prompts", "20", "--seed", "5"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("act", ["sync", "asyncio", "trio"])
def test_ctrl_c_ends_it_at_once(act: str) -> None:
    """Interrupted in the middle of each act: no traceback, and the process is gone."""
    code = (
        "import signal, sys, threading\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored, if the tests are a background job
        "from drivers.command_line import demo, main\n"
        f"demo.ACTS = {{{act!r}: demo.ACTS[{act!r}]}}\n"
        "happened = demo.PlainScreen.happened\n"
        "def interrupt(self, tally, happening):\n"
        "    happened(self, tally, happening)\n"
        "    if happening.text.startswith('429'):\n"
        "        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)\n"
        "demo.PlainScreen.happened = interrupt\n"
        "sys.exit(main(['demo', '--plain']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (130, "")
    assert done.stdout.splitlines()[-1] == "interrupted"


# --- planted faults ----------------------------------------------------------------------------------------------------


def test_every_planted_answer_is_found(
    one_act: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One lost, one doubled, one with a word twice, one cut short, and one that is another's; all the others are right."""
    answered = Tally.answered

    def planted(tally: Tally, prompt: Prompt, text: str) -> None:
        match tally.prompts.index(prompt):
            case 3:
                return
            case 5:
                answered(tally, prompt, text)
            case 7:
                text = text.replace(" w1", " w1 w1")
            case 9:
                text = text[:-1]
            case 11:
                text = tally.prompts[4].expected
            case _:
                pass
        answered(tally, prompt, text)

    monkeypatch.setattr(Tally, "answered", planted)
    status, out = run(capsys=capsys)
    assert status == 1 and "FAILED" in out
    assert "asyncio: lost: 'question 4 #tokens=" in out and "asyncio: doubled: 'question 6 #tokens=" in out
    assert re.search(r"asyncio: wrong text: 'question (8|10|12) #tokens=\d+' and 2 more", out)
    assert "20 prompts: 15 answered once and in full; 1 lost, 1 doubled, 3 wrong" in out


def test_a_connection_left_open_is_found(
    one_act: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sockets: list[socket.socket] = []

    def act(endpoint: str, vault: Vault, tally: Tally) -> None:
        demo_drivers.run_asyncio(endpoint, vault, tally)
        leaked = socket.create_connection(("127.0.0.1", int(re.findall(r":(\d+)", endpoint)[0])))
        leaked.sendall(b"GET /v1/models HTTP/1.1\r\nHost: mock\r\n\r\n")
        assert leaked.recv(1)  # the provider knows of it
        sockets.append(leaked)

    monkeypatch.setattr(demo, "ACTS", {"asyncio": act})
    status, out = run(capsys=capsys)
    sockets[0].close()
    assert status == 1
    assert "asyncio: left behind: 1 open connections" in out


def test_a_thread_left_behind_is_found(
    one_act: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = threading.Event()

    def act(endpoint: str, vault: Vault, tally: Tally) -> None:
        demo_drivers.run_asyncio(endpoint, vault, tally)
        threading.Thread(target=stop.wait, name="straggler").start()

    monkeypatch.setattr(demo, "ACTS", {"asyncio": act})
    try:
        status, out = run(capsys=capsys)
    finally:
        stop.set()
    assert status == 1
    assert "asyncio: left behind: thread straggler" in out


def test_an_attempt_behind_the_engines_back_is_found(
    one_act: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make = demo.make_provider

    def make_with_more_requests(prompts: int, seed: int) -> MockProvider:
        provider = make(prompts, seed)
        provider.requests_total += 100
        return provider

    monkeypatch.setattr(demo, "make_provider", make_with_more_requests)
    status, out = run(capsys=capsys)
    assert status == 1
    assert re.search(r"asyncio: the provider saw 1\d\d requests, the engine knows of \d\d attempts", out)


def test_tasks_left_behind_are_found(
    one_act: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    aclose = demo_drivers.asyncio_driver.RemoteEngine.aclose
    stragglers: list[object] = []

    async def close_and_leave_a_task(self: Any) -> None:
        await aclose(self)
        stragglers.append(asyncio.create_task(asyncio.sleep(60)))

    monkeypatch.setattr(demo_drivers.asyncio_driver.RemoteEngine, "aclose", close_and_leave_a_task)
    status, out = run(capsys=capsys)
    assert status == 1
    assert "asyncio: left behind: 1 asyncio tasks" in out


def test_trio_tasks_left_behind_are_found(
    one_act: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    aclose = demo_drivers.trio_driver.RemoteEngine.aclose

    async def close_and_leave_a_task(self: Any) -> None:
        await aclose(self)
        trio.lowlevel.spawn_system_task(trio.sleep, 60)

    monkeypatch.setattr(demo_drivers.trio_driver.RemoteEngine, "aclose", close_and_leave_a_task)
    monkeypatch.setattr(demo, "ACTS", {"trio": demo_drivers.run_trio})
    status, out = run(capsys=capsys)
    assert status == 1
    assert re.search(r"trio: left behind: \d trio tasks", out)


# --- the tally ---------------------------------------------------------------------------------------------------------


def tally_of(*prompts: Prompt, metrics: EngineMetrics | None = None) -> Tally:
    tally = Tally("sync", prompts)
    tally.watch(lambda: metrics or EngineMetrics())
    return tally


def test_one_right_answer_is_no_defect() -> None:
    tally = tally_of(PROMPT, metrics=EngineMetrics(submitted=1, done=1))
    tally.answered(PROMPT, PROMPT.expected)
    assert tally.defects() == [] and tally.done == 1


@pytest.mark.parametrize(
    ("metrics", "defect"),
    [
        (EngineMetrics(submitted=2, done=1), "the engine's counts do not add up"),
        (EngineMetrics(submitted=2, done=1, in_flight=1), "the engine still counts 1 requests as unfinished"),
        (EngineMetrics(submitted=2, done=1, queued=1), "the engine still counts 1 requests as unfinished"),
        (EngineMetrics(submitted=2, done=1, waiting=1), "the engine still counts 1 requests as unfinished"),
        (EngineMetrics(submitted=2, done=2), "the engine counts 2 answers and 0 failures, its callers 1 and 0"),
        (EngineMetrics(submitted=2, done=1, failed=1), "the engine counts 1 answers and 1 failures, its callers 1 and 0"),
    ],
)
def test_counts_that_do_not_add_up_are_a_defect(metrics: EngineMetrics, defect: str) -> None:
    tally = tally_of(PROMPT, metrics=metrics)
    tally.answered(PROMPT, PROMPT.expected)
    assert tally.defects() == [defect]


def test_counts_that_did_not_add_up_once_are_a_defect_for_good() -> None:
    readings = iter([EngineMetrics(submitted=1), EngineMetrics(submitted=1, done=1)])
    tally = Tally("sync", [PROMPT])
    tally.watch(lambda: next(readings))
    tally.answered(PROMPT, PROMPT.expected)
    tally.sample()
    assert tally.defects() == ["the engine's counts do not add up"]


@pytest.mark.parametrize(
    ("error", "counted", "line"),
    [
        (
            StreamInterrupted(Tokens(text="[q] w1 w2"), None, None),
            (1, {}),
            "stream broke after 3 words: reported, never replayed",
        ),
        (StreamInterrupted(), (1, {}), "stream broke after 0 words: reported, never replayed"),
        (ServerError(503), (0, {"server_error": 1}), "server_error: reported; its user asks again"),
    ],
)
def test_a_reported_failure_is_asked_again(error: InferenceError, counted: tuple[int, dict[str, int]], line: str) -> None:
    tally = tally_of(PROMPT, metrics=EngineMetrics(submitted=2, done=1, failed=1))
    assert tally.failed_with(PROMPT, error)
    assert (tally.interrupted, tally.failed) == counted
    assert [str(happening) for happening in tally.happenings] == [line]
    tally.answered(PROMPT, PROMPT.expected)
    assert tally.defects() == []


def test_a_prompt_is_not_asked_for_ever() -> None:
    tally = tally_of(PROMPT)
    assert [tally.failed_with(PROMPT, ServerError(503)) for _ in range(MOST_ASKS)] == [True] * (MOST_ASKS - 1) + [False]
    assert tally.lost == [PROMPT.text]


@pytest.mark.parametrize(
    ("kind", "detail", "lines", "breaker"),
    [
        ("throttled", {"retry_after": 0.4}, ["429: bucket paused 0.4 s, rate lowered"], "closed"),
        ("throttled", {"retry_after": None}, ["429: rate lowered"], "closed"),
        ("circuit", {"source": "closed", "target": "open"}, ["breaker opened: nothing is sent, everyone waits"], "open"),
        ("circuit", {"source": "open", "target": "half_open"}, ["breaker half-open: one probe may pass"], "half-open"),
        ("circuit", {"source": "half_open", "target": "open"}, ["probe failed: breaker open again"], "open"),
        (
            "circuit",
            {"source": "half_open", "target": "closed"},
            ["probe succeeded: breaker closed, everyone goes on"],
            "closed",
        ),
        ("retry_scheduled", {"reason": "timeout"}, ["stalled before the first word: cut off and sent again"], "closed"),
        ("retry_scheduled", {"reason": "rate_limited"}, [], "closed"),
        ("refresh_started", {"cause": "initial"}, [], "closed"),
        (
            "refresh_started",
            {"cause": "auth_failure"},
            ["401: the key was rotated; fetching the new one, once for all"],
            "closed",
        ),
        ("refresh_ended", {"result": "unchanged"}, [], "closed"),
        ("late_usage", {}, [], "closed"),
    ],
)
def test_a_notice_becomes_a_line(kind: Any, detail: dict[str, Any], lines: list[str], breaker: str) -> None:
    tally = tally_of(PROMPT)
    tally.notice(Notice(kind, "demo", 0.0, 0.0, None, detail))
    assert [str(happening) for happening in tally.happenings] == lines
    assert tally.breaker == breaker


def test_a_refresh_says_how_many_had_waited_for_it() -> None:
    readings = iter([EngineMetrics(queued=30, waiting=7, in_flight=2, submitted=39), EngineMetrics(refreshes=2)])
    tally = Tally("sync", [PROMPT])
    tally.watch(lambda: next(readings))
    tally.sample()  # the vault hands out the key
    tally.notice(Notice("refresh_ended", "demo", 0.0, 0.0, None, {"result": "renewed"}))
    assert [str(happening) for happening in tally.happenings] == ["key rotated: 1 refresh for 37 waiting"]


def test_the_same_again_is_counted_and_shown_once() -> None:
    shown: list[Happening] = []
    tally = Tally("sync", [PROMPT], lambda _, happening: shown.append(happening))
    for text in ("a", "a", "a", "b", "a"):
        tally.say(text)
    assert [str(happening) for happening in shown] == ["a (×3)", "b", "a"]


# --- the scene ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_every_kind_of_trouble_comes_whatever_the_seed(seed: int) -> None:
    script = trouble(200, random.Random(seed))
    faults = [fault for fault in script if fault is not None]
    kinds = Counter(type(fault).__name__ for fault in faults)
    assert (kinds["Throttle"], kinds["RotateKeys"]) == (2, 1)
    assert kinds.keys() >= {"ResetAtByte", "StallAfterHead", "Truncate", "CloseWithoutResponse", "ErrorFrame", "Break"}
    assert len(script) <= 200
    outage = [at for at, fault in enumerate(script) if fault == Status(503)]
    assert outage == list(range(outage[0], outage[0] + 7))
    assert isinstance(script[outage[0] - 1], Throttle)
    assert isinstance(next(fault for fault in faults if isinstance(fault, RotateKeys)), RotateKeys)


def test_a_seed_gives_the_same_scene_again() -> None:
    assert make_prompts(50, 3) == make_prompts(50, 3) != make_prompts(50, 4)
    assert trouble(200, random.Random(3)) == trouble(200, random.Random(3)) != trouble(200, random.Random(4))


def test_prompts_and_their_answers_are_all_different() -> None:
    prompts = make_prompts(200, 0)
    assert len({prompt.text for prompt in prompts}) == len({prompt.expected for prompt in prompts}) == 200
    assert len(prompts) > USERS


def test_the_vault_hands_out_the_key_that_is_good_now() -> None:
    provider = make_provider(20, 0)
    handed_out: list[int] = []
    fetch = Vault(provider, lambda: handed_out.append(1)).secret().fetch
    assert fetch() == "demo-key-before" and handed_out == [1]


# --- the pictures ------------------------------------------------------------------------------------------------------


def test_the_picture_fits_a_narrow_terminal() -> None:
    screen = LiveScreen(Console(width=80), "a title")
    screen.tallies = [Tally(name, make_prompts(2000, 0), screen.happened) for name in ("sync", "asyncio", "trio")]
    screen.tallies[0].begin()
    screen.tallies[0].say("something happened")
    console = Console(width=80, file=io.StringIO())
    with console.capture() as picture:
        console.print(screen.render())
    lines = [line.rstrip() for line in picture.get().splitlines()]
    assert [line.split()[0] for line in lines[2:6]] == ["driver", "sync", "asyncio", "trio"]
    assert lines[2].split()[1:] == ["done", "in", "flight", "waiting", "breaker", "retries", "time"]
    assert lines[3].split()[-7:-3] == ["0/2000", "0", "0", "closed"]
    assert lines[4].split()[1:] == lines[5].split()[1:] == ["comes", "next"]
    assert "  0.0 s  sync     something happened" in lines


@pytest.mark.parametrize(
    ("values", "percent", "value"),
    [([3.0], 50, 3.0), ([1.0, 2.0, 3.0, 4.0], 50, 2.0), ([1.0, 2.0, 3.0, 4.0], 95, 4.0), (range(1, 101), 95, 95)],
)
def test_percentiles_are_of_nearest_rank(values: Any, percent: float, value: float) -> None:
    assert percentile(values, percent) == value


def test_no_values_have_no_percentile() -> None:
    assert percentile([], 50) != percentile([], 50)  # NaN


def test_reasons_that_nobody_expected_are_in_the_table() -> None:
    tally = tally_of(PROMPT, metrics=EngineMetrics(retries={"conflict": 3}))
    tally.sample()
    cells = [list(column.cells) for column in summary([tally]).columns]
    assert cells[1][cells[0].index("  retries: conflict")] == "3"
