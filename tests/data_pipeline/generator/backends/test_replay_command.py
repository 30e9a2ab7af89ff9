"""The replay server as a command: serving a recording, and recording through a proxy."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_pipeline.generator.backends.chat import Refused
from data_pipeline.generator.backends.open import open_backend
from data_pipeline.generator.backends.replay.__main__ import main
from data_pipeline.generator.backends.replay.recording import Recording
from data_pipeline.generator.backends.replay.server import ReplayServer, failure
from tests.data_pipeline.generator.backends.requests import ANSWER, RECORDING, request

COMMAND = [sys.executable, "-m", "data_pipeline.generator.backends.replay"]


@contextlib.contextmanager
def served(*words: str) -> Iterator[str]:
    """The command at work; gives its address."""
    with subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[2].rstrip(";")
        finally:
            process.terminate()


def test_a_proxy_records_what_the_command_then_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", "sk-secret-1")
    file = tmp_path / "r.jsonl"
    quick = {"model": "m", "retries": 0, "timeout": 10.0}
    with ReplayServer(RECORDING) as upstream, served("--upstream", upstream.url, "--record-to", str(file)) as url:
        asked = open_backend({**quick, "base_url": url, "api_key_env": "THE_KEY"})
        assert asked.complete(request("one")) == ANSWER
        assert {k.lower(): v for k, v in upstream.headers[0].items()}["authorization"] == "Bearer sk-secret-1"
    (line,) = map(json.loads, file.read_text().splitlines())
    assert line["answer"] == ANSWER and line["role"] == "answer" and "secret" not in file.read_text()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with served(str(file), "--port", str(port)) as url:
        assert url == f"http://127.0.0.1:{port}/v1"
        with urllib.request.urlopen(f"{url}/models") as models:
            assert json.load(models)["data"][0]["object"] == "model"
        again = open_backend({**quick, "base_url": url})
        assert again.complete(request("one")) == ANSWER
        with pytest.raises(Refused, match="nothing was recorded"):
            again.complete(request("two"))


def test_failures_pass_through_a_proxy_and_are_not_recorded(tmp_path: Path) -> None:
    from data_pipeline.generator.backends.replay.proxy import Proxy

    with ReplayServer(Recording([]), lambda values, answer: failure(429, "slow", {"retry-after": "7"})) as upstream:
        found = Proxy(upstream.url, tmp_path / "r.jsonl")(b'{"messages": []}', {})
    assert found.status == 429 and found.headers["retry-after"] == "7" and b"slow" in found.pieces[0]
    assert not (tmp_path / "r.jsonl").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give either a recording"),
        (["no-such-file.jsonl"], "recording no-such-file.jsonl does not exist"),
        (["--upstream", "http://x/v1"], "go together"),
        (["--upstream", "x", "--record-to", "/nowhere/r"], "--upstream is 'x'"),
        (["--upstream", "http://x/v1", "--record-to", "/nowhere/r"], "cannot be written"),
        (["r.jsonl", "--port", "70000"], "--port is 70000"),
    ],
)
def test_words_that_cannot_be_are_named(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0 and "--record-to" in capsys.readouterr().out
