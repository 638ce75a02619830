"""`remote-core` as its users meet it: what goes to stdout, what to stderr, and the exit status.

Where a signal, a missing package or another program's view matters, it runs as a process of its own.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
import redis
from valkey_server import valkey_server

from drivers.command_line import main
from drivers.mock_provider import ThreadedMockServer, serve_in_thread
from sansio import __version__
from sansio.simulation import (
    Break,
    Fault,
    FaultScript,
    MockProvider,
    NeverRespond,
    ProviderLimits,
    StallAfterChunks,
    Status,
    Throttle,
    expected_text,
)

KEY = "mock-key-0123456789"
ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@contextmanager
def serving(*faults: Fault | None, then: Fault | None = None, **settings: Any) -> Iterator[ThreadedMockServer]:
    provider = MockProvider(keys={KEY}, faults=FaultScript(faults, then=then), **settings)
    with serve_in_thread(provider) as server:
        yield server


def ask(server: ThreadedMockServer, *arguments: str) -> int:
    return main(["chat", "--provider", "openai", "--endpoint", server.endpoint, "--model", "gpt-4o", *arguments])


@contextmanager
def process(*arguments: str, **settings: Any) -> Iterator[subprocess.Popen[str]]:
    """``python -m drivers.command_line``, ended at the latest when the block is left."""
    command = [sys.executable, "-m", "drivers.command_line", *arguments]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, env=env, **{**pipes, **settings}) as running:
        try:
            yield running
        finally:
            running.kill()


# --- chat: the answer --------------------------------------------------------------------------------------------------


def test_chat_prints_the_answer_and_nothing_else_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with serving() as server:
        assert ask(server, "hello") == 0
    out, err = capsys.readouterr()
    assert out == expected_text("hello") + "\n"
    assert err.startswith("gpt-4o · 2 tokens in, 20 out · $0.000205 · ")
    assert len(err.splitlines()) == 1


def test_chat_prints_each_piece_as_it_comes() -> None:
    with (
        serving(StallAfterChunks(3)) as server,
        process("chat", "--endpoint", server.endpoint, "--model", "gpt-4o", "hello") as running,
    ):
        assert running.stdout is not None
        assert running.stdout.read(len("[hello] w1 w2")) == "[hello] w1 w2"  # and the rest never comes


def test_chat_sends_the_system_message_and_the_limit(capsys: pytest.CaptureFixture[str]) -> None:
    with serving() as server:
        assert ask(server, "--system", "be brief", "--max-output-tokens", "3", "hello") == 0
        (record,) = server.provider.log
    assert [message["role"] for message in record.body["messages"]] == ["system", "user"]
    assert record.body["messages"][0]["content"] == "be brief"
    assert capsys.readouterr().err.startswith("gpt-4o · 4 tokens in, 3 out · $0.000040 · ended by length · ")


def test_chat_prints_a_refusal_like_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    with serving() as server:
        assert ask(server, "no #refuse") == 0
    assert capsys.readouterr().out == expected_text("no #refuse") + "\n"


def test_chat_shows_reasoning_apart_from_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    frames = [
        '{"id":"1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"reasoning_content":"hmm"}}]}',
        '{"id":"1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"42"}}]}',
        '{"id":"1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}',
        "[DONE]",
    ]
    body = "".join(f"data: {frame}\n\n" for frame in frames)
    with serving(Status(200, body, "text/event-stream")) as server:
        assert ask(server, "think") == 0
    out, err = capsys.readouterr()
    assert out == "42\n"
    assert err.startswith("hmm\ngpt-4o · usage unknown · cost unknown · ")


@pytest.mark.parametrize("arguments", [[], ["-"]])
def test_chat_reads_the_prompt_from_stdin(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("from stdin"))
    with serving() as server:
        assert ask(server, *arguments) == 0
    assert capsys.readouterr().out == expected_text("from stdin") + "\n"


@pytest.fixture
def deployment_file(tmp_path: Path) -> Iterator[Path]:
    with serving() as server:
        path = tmp_path / "deployments.toml"
        path.write_text(
            "".join(
                f'[[deployment]]\nname = "{name}"\nmodel = "{model}"\n[deployment.runtime_config]\n'
                f'endpoint = "{server.endpoint}"\napi_key = {{ from_env = "OPENAI_API_KEY" }}\n'
                for name, model in (("large", "gpt-4o"), ("small", "gpt-4o-mini"))
            ),
            encoding="utf-8",
        )
        yield path


def test_chat_takes_a_deployment_from_a_file(deployment_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", "--deployments", str(deployment_file), "--name", "small", "hello"]) == 0
    out, err = capsys.readouterr()
    assert out == expected_text("hello") + "\n"
    assert err.startswith("gpt-4o-mini · ")


def test_the_only_deployment_of_a_file_needs_no_name(deployment_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = deployment_file.read_text(encoding="utf-8")
    deployment_file.write_text(text[: text.rindex("[[deployment]]")], encoding="utf-8")
    assert main(["chat", "--deployments", str(deployment_file), "hello"]) == 0
    assert capsys.readouterr().err.startswith("gpt-4o · ")


# --- chat: what goes wrong ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        (
            Throttle(retry_after="99"),
            "rate_limited: Rate limit reached for requests per min (RPM). Please try again later. (HTTP 429)."
            " Hint: try again in 99 s",
        ),
        (Status(404), "not_found: The mock was told to answer 404. Hint: check the model's name, and that the endpoint is"),
        (Break(2), "stream_interrupted: the stream broke after its first content: the connection was closed before the"),
        (
            Throttle(body="quota"),
            "quota_exhausted: You exceeded your current quota, please check your plan. (HTTP 429). Hint:",
        ),
    ],
)
def test_a_failure_is_one_line_with_kind_message_and_hint(
    fault: Fault, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(then=fault) as server:
        assert ask(server, "hello") == 1
    err = capsys.readouterr().err
    assert err.startswith(f"remote-core chat: {line}")
    assert len(err.splitlines()) == 1


def test_what_came_of_a_broken_answer_is_still_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Break(3)) as server:
        assert ask(server, "hello") == 1
    assert capsys.readouterr().out == "[hello] w1 w2\n"


def test_a_retry_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Throttle(retry_after="0.01")) as server:
        assert ask(server, "hello") == 0
    out, err = capsys.readouterr()
    assert out == expected_text("hello") + "\n"
    assert err.startswith("rate_limited: trying again in ")


def test_a_timeout_is_the_whole_requests(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(NeverRespond()) as server:
        assert ask(server, "--timeout", "0.2", "hello") == 1
    err = capsys.readouterr().err
    assert err.startswith("remote-core chat: deadline_exceeded: ") and "--timeout" in err


def test_a_wrong_key_is_refused_and_never_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("OTHER_KEY", "sk-wrong-key-0123456789")
    with serving() as server:
        assert ask(server, "--api-key-env", "OTHER_KEY", "hello") == 1
    out, err = capsys.readouterr()
    assert err.startswith("remote-core chat: unauthorized: ") and "wrong-key" not in out + err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "gpt-4o", "--timeout", "0"], "--timeout: '0' is not a number of seconds above 0"),
        (["--model", "gpt-4o", "--max-output-tokens", "none"], "--max-output-tokens: 'none' is not a whole number"),
        (["--model", "gpt-4o", "--max-output-tokens", "0"], "--max-output-tokens: '0' is not a whole number of at least 1"),
        (["--model", "gpt-4o", " "], "the prompt is empty"),
        (["--model", "gpt-4o", "--endpoint", "localhost"], "endpoint"),
        (["--model", "gpt-4o", "--name", "x"], "--name: belongs to --deployments"),
        (["--model", "mine"], "--provider: cannot be told from the model's name 'mine'; set it, for example to 'openai'"),
        (["--model", "mine", "--provider", "opnai"], "did you mean 'openai'?"),
        ([], "say which model with --model"),
        (["--api-key-env", "UNSET_KEY", "--model", "gpt-4o"], "the environment variable UNSET_KEY is not set"),
        (["--deployments", "no-such-file.toml"], "no-such-file.toml"),
    ],
)
def test_bad_usage_is_2_and_says_what(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", *arguments] if " " in arguments else ["chat", *arguments, "hello"]) == 2
    out, err = capsys.readouterr()
    assert said in err and not out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--name: must be one of those in"),
        (["--name", "huge"], "large, small"),
        (["--name", "small", "--model", "gpt-4o"], "--model: the deployment file says that already"),
        (["--name", "small", "--api-key-env", "OPENAI_API_KEY"], "--api-key-env: the deployment file says that already"),
    ],
)
def test_a_file_and_the_rest_must_agree(
    arguments: list[str], said: str, deployment_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["chat", "--deployments", str(deployment_file), *arguments, "hello"]) == 2
    assert said in capsys.readouterr().err


def test_a_mistake_in_a_file_is_named(deployment_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = deployment_file.read_text(encoding="utf-8")
    deployment_file.write_text(text.replace("endpoint =", "endpiont ="), encoding="utf-8")
    assert main(["chat", "--deployments", str(deployment_file), "--name", "small", "hello"]) == 2
    err = capsys.readouterr().err
    assert str(deployment_file) in err and "'endpiont'; did you mean 'endpoint'?" in err


def test_a_variable_that_a_file_names_must_be_set(
    deployment_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    assert main(["chat", "--deployments", str(deployment_file), "--name", "small", "hello"]) == 2
    assert "the environment variable OPENAI_API_KEY is not set" in capsys.readouterr().err


# --- chat: limits that are shared --------------------------------------------------------------------------------------


@pytest.fixture
def limited_file(deployment_file: Path) -> Path:
    """Both deployments share a limit."""
    with deployment_file.open("a", encoding="utf-8") as file:
        file.write("[deployment.runtime_config.rate_limits]\nrequests_per_minute = 60\n")
    return deployment_file


def ask_small(file: Path, *arguments: str) -> int:
    return main(["chat", "--deployments", str(file), "--name", "small", *arguments, "hello"])


def test_chat_shares_its_limits_through_a_store(limited_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with valkey_server() as server, redis.Redis(port=server.port, protocol=2) as store:
        assert ask_small(limited_file, "--cluster", f"valkey://127.0.0.1:{server.port}") == 0
        assert list(store.scan_iter("remote-core:approximate:*"))
    assert capsys.readouterr().out == expected_text("hello") + "\n"


def test_chat_shares_its_limits_as_its_file_says(
    limited_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with limited_file.open("a", encoding="utf-8") as file:
        file.write('[cluster]\nurl = { from_env = "STORE_URL" }\nmode = "escrow"\n')
    with valkey_server() as server, redis.Redis(port=server.port, protocol=2) as store:
        monkeypatch.setenv("STORE_URL", f"valkey://127.0.0.1:{server.port}")
        assert ask_small(limited_file) == 0
        assert list(store.scan_iter("remote-core:escrow:*"))
    assert ask_small(limited_file, "--cluster", "redis://127.0.0.1:1") == 2
    assert "--cluster: the deployment file says that already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('url = "cache.test"', "deployments.toml: cluster: url: does not begin with one of redis://"),
        ("url = { from_env = 5 }", "deployments.toml: cluster: url: must be a reference"),
        ('mode = "escrow"', "deployments.toml: cluster: url: is missing"),
        ('url = "redis://h"\nmode = "exact"', "cluster: mode: 'exact' is none of 'approximate', 'escrow'"),
        ('url = "redis://h"\nleese = 5', "cluster: unknown key 'leese'; did you mean 'lease'?"),
    ],
)
def test_a_mistake_about_the_store_in_a_file_is_named(
    table: str, said: str, limited_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with limited_file.open("a", encoding="utf-8") as file:
        file.write(f"[cluster]\n{table}\n")
    assert ask_small(limited_file) == 2
    assert said in capsys.readouterr().err


def test_chat_says_that_the_store_is_lost(limited_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask_small(limited_file, "--cluster", "redis://127.0.0.1:1", "--timeout", "0.5") == 1
    err = capsys.readouterr().err
    assert err.startswith("the store of the limits is lost: ") and "deadline_exceeded" in err


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("cache.test", "--cluster: does not begin with one of redis://, rediss://"),
        ("redis://:hunter2hunter2@h/x", "--cluster: its database is not one number of at least 0"),
        ("redis://:hunter2 hunter2@h", "--cluster: holds white space"),
    ],
)
def test_a_store_that_cannot_be_is_refused(
    url: str, said: str, limited_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask_small(limited_file, "--cluster", url) == 2
    out, err = capsys.readouterr()
    assert said in err and "hunter2" not in out + err


def test_a_store_needs_limits_to_share(deployment_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask_small(deployment_file, "--cluster", "redis://127.0.0.1:1") == 2
    assert "--cluster: deployment 'small' has no rate_limits that could be shared; set some" in capsys.readouterr().err
    assert main(["chat", "--model", "gpt-4o", "--cluster", "redis://127.0.0.1:1", "hello"]) == 2
    assert "--cluster: deployment 'chat' has no rate_limits" in capsys.readouterr().err


def test_strict_limits_need_a_store(limited_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with limited_file.open("a", encoding="utf-8") as file:
        file.write("strict = true\n")
    assert ask_small(limited_file) == 2
    assert "rate_limits.strict: deployment 'small' wants one count" in (err := capsys.readouterr().err)
    assert "give --cluster redis://…" in err


def test_a_store_needs_its_client(
    limited_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio.connection", None)
    assert ask_small(limited_file, "--cluster", "redis://127.0.0.1:1") == 2
    assert 'redis-py is not installed: pip install "inference-remote-core[redis]"' in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--api-key-env", "--api-key", "--key", "--api_key"])
@pytest.mark.parametrize("key", ["sk-live-abcdefghijklmnop123", "sk_live_abcdefghijklmnop123"])
def test_a_key_in_the_wrong_place_is_not_repeated(option: str, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", "--model", "gpt-4o", option, key, "hello"]) == 2
    out, err = capsys.readouterr()
    assert "abcdefghijklmnop" not in out + err


def test_stdin_that_is_not_text_is_bad_usage() -> None:
    with process("chat", "--model", "gpt-4o", stdin=subprocess.PIPE) as running:
        assert running.stdin is not None and running.stderr is not None
        running.stdin.buffer.write(b"\xff\xfe")
        running.stdin.close()
        assert running.wait(60) == 2
        assert "the prompt is not text in UTF-8" in running.stderr.read()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A child inherits an ignored SIGINT, as that of a background job is, but not a handler: so there is a handler."""
    found = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, found)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_leaves_cleanly() -> None:
    with (
        serving(StallAfterChunks(2)) as server,
        process("chat", "--endpoint", server.endpoint, "--model", "gpt-4o", "hello") as running,
    ):
        assert running.stdout is not None and running.stderr is not None
        assert running.stdout.read(len("[hello] w1")) == "[hello] w1"
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 130
        assert (running.stdout.read(), running.stderr.read()) == ("\n", "interrupted\n")


def test_a_reader_who_leaves_is_no_traceback() -> None:
    with (
        serving(token_delay=0.01) as server,
        process("chat", "--endpoint", server.endpoint, "--model", "gpt-4o", "hello #tokens=200") as running,
    ):
        assert running.stdout is not None and running.stderr is not None
        assert running.stdout.read(7) == "[hello "
        running.stdout.close()
        assert running.wait(60) == 1
        assert running.stderr.read() == ""


def test_a_terminal_gets_no_control_characters_of_the_models() -> None:
    frames = [
        '{"id":"1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"a\\u001b[2Jb\\tc"}}]}',
        '{"id":"1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}',
        "[DONE]",
    ]
    body = "".join(f"data: {frame}\n\n" for frame in frames)
    ours, theirs = os.openpty()
    try:
        with (
            serving(Status(200, body, "text/event-stream")) as server,
            process("chat", "--endpoint", server.endpoint, "--model", "gpt-4o", "hello", stdout=theirs) as running,
        ):
            assert running.wait(60) == 0
            shown = os.read(ours, 4096).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert shown.startswith("a[2Jb") and "\x1b" not in shown


# --- mock-provider -----------------------------------------------------------------------------------------------------


@contextmanager
def mock_provider(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with process("mock-provider", "--port", "0", *arguments) as running:
        assert running.stdout is not None
        word, _, url = running.stdout.readline().strip().partition(" ")
        assert word == "READY" and url.startswith("http://127.0.0.1:")
        yield running, url


def sdk(url: str, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)


def hello(client: openai.OpenAI) -> str | None:
    answer = client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hello"}])
    return answer.choices[0].message.content


def test_the_mock_provider_answers_the_official_sdk() -> None:
    with mock_provider("--key", "one", "--key", "two") as (_, url):
        for key in ("one", "two"):
            with sdk(url, key) as client:
                assert hello(client) == expected_text("hello")
        with sdk(url, "three") as client, pytest.raises(openai.AuthenticationError):
            hello(client)


def test_the_mock_provider_keeps_its_limits() -> None:
    with mock_provider("--requests-per-minute", "2", "--tokens-per-minute", "1000") as (_, url), sdk(url, "any") as client:
        assert hello(client) == hello(client) == expected_text("hello")
        with pytest.raises(openai.RateLimitError, match="Limit 2, Used 2"):
            hello(client)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("faults.toml", '[[sequence]]\nfault = "status"\ncode = 503\n'),
        ("faults.JSON", '{"sequence": [{"fault": "status", "code": 503}]}'),
    ],
)
def test_the_mock_provider_plays_a_file_of_faults(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with mock_provider("--faults", str(path)) as (_, url), sdk(url, "any") as client:
        with pytest.raises(openai.InternalServerError):
            hello(client)
        assert hello(client) == expected_text("hello")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_mock_provider_ends_cleanly(number: signal.Signals) -> None:
    with mock_provider() as (running, url), sdk(url, "any") as client:
        assert hello(client) is not None
        running.send_signal(number)
        assert running.wait(60) == 0
        assert running.stderr is not None and running.stderr.read() == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sequence = [", "faults.toml: "),
        ('[[sequence]]\nfault = "statsu"\n', "did you mean 'status'?"),
        (None, "faults.toml"),
    ],
)
def test_a_broken_file_of_faults_is_bad_usage(
    text: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "faults.toml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    assert main(["mock-provider", "--port", "0", "--faults", str(path)]) == 2
    assert said in capsys.readouterr().err


def test_a_file_of_faults_holds_an_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "faults.json"
    path.write_text("[]", encoding="utf-8")
    assert main(["mock-provider", "--port", "0", "--faults", str(path)]) == 2
    assert "faults.json: must hold an object" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_a_port_out_of_range_is_bad_usage(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mock-provider", f"--port={port}"]) == 2
    assert "--port" in capsys.readouterr().err


def test_a_port_in_use_is_a_failure() -> None:
    with serving() as server, process("mock-provider", "--port", str(server.port)) as running:
        assert running.wait(60) == 1
        assert running.stdout is not None and running.stderr is not None
        assert running.stdout.read() == ""
        assert running.stderr.read().startswith("remote-core mock-provider: cannot listen: ")


def test_limits_of_the_provider_hold_for_chat_too(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(limits=ProviderLimits(tokens_per_minute=10)) as server:
        assert ask(server, "hello") == 1
    assert "Request too large" in capsys.readouterr().err


# --- the command itself ------------------------------------------------------------------------------------------------


def test_the_commands_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    listed = {line.split()[0] for line in out.splitlines() if line.startswith("    ") and not line.startswith("     ")}
    assert listed == {"chat", "demo", "mock-provider", "simulate"}


@pytest.mark.parametrize("arguments", [[], ["nonsense"]])
def test_no_or_another_command_is_bad_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("usage: remote-core")


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"remote-core {__version__}\n"


@pytest.mark.parametrize(
    ("missing", "arguments", "extras"),
    [
        ("rich", ["chat", "--model", "gpt-4o", "hello"], "cli"),
        ("rich", ["demo"], "cli,trio"),
        ("trio", ["demo"], "cli,trio"),
    ],
)
def test_a_missing_package_is_one_line_that_names_the_extra(missing: str, arguments: list[str], extras: str) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None\nfrom drivers.command_line import main\nsys.exit(main({arguments!r}))"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=False)
    install = f"pip install 'inference-remote-core[{extras}]'"
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"remote-core {arguments[0]} needs {missing}, which is not installed: {install}\n"


def test_the_mock_provider_needs_no_extra() -> None:
    code = (
        "import sys; sys.modules['rich'] = sys.modules['trio'] = None\n"
        "from drivers.command_line import main\nsys.exit(main(['mock-provider', '--port', '0']))"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline().startswith("READY ")
        running.terminate()
        assert running.wait(60) == 0
