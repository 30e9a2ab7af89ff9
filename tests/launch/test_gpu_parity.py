"""launch/gpu_parity.sh: its commands are ones that `moss verify` takes, its times fit, and its verdict is that of its parts."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from moss_train.cli.main import parse_words
from moss_train.cli.verify import add_arguments
from moss_train.launching.folder import launch_dir

SCRIPT = launch_dir() / "gpu_parity.sh"
STUB = """#!/usr/bin/env bash
# In the place of Python: the parts write nothing and say what they were asked for; what joins them is real.
[ "$2" = moss_train.verify.parity ] && exec "$REAL" "$@"
echo "$*"
[[ " $* " != *" $FAILING "* ]] || exit 1
"""


def script(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHON": sys.executable, "GOLDEN": "", **environment}
    return subprocess.run(["bash", str(SCRIPT), *words], env=variables, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("gpus", ["1", "2", "4", "8"])
@pytest.mark.parametrize("together", ["yes", "no"])
def test_every_command_is_one_of_moss_verify_and_the_time_is_kept(gpus: str, together: str, tmp_path: Path) -> None:
    (tmp_path / "io.safetensors").touch()
    ran = script("--dry-run", gpus, str(tmp_path / "out"), TOGETHER=together, GOLDEN=str(tmp_path))
    assert ran.returncode == 0, ran.stderr
    found = [shlex.split(line) for line in ran.stdout.splitlines()]
    seconds = [int(words[3]) for words in found]
    assert (max(seconds) if together == "yes" else sum(seconds)) + 15 <= 230
    for words in found:
        assert words[:3] == ["timeout", "-k", "5"] and words[4:8] == [sys.executable, "-m", "moss_train.cli.main", "verify"]
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        arguments = parse_words(parser, words[8:])
        assert arguments.limit_seconds + 35 <= int(words[3]), "it begins nothing that it could not end"
        assert arguments.device == "cuda" and arguments.modules == "both" and arguments.json.parent == tmp_path / "out"
        assert (arguments.gpus if words[8] == "layouts" else arguments.ranks) == int(gpus)
    assert found[1][-2:] == ["--golden", str(tmp_path)] and not (tmp_path / "out").exists(), "a dry run writes nothing"


def test_parts_that_write_nothing_are_no_success(tmp_path: Path) -> None:
    stub = tmp_path / "python"
    stub.write_text(STUB)
    stub.chmod(0o755)
    out = tmp_path / "out"
    ran = script("2", str(out), PYTHON=str(stub), REAL=sys.executable, FAILING="layouts")
    assert ran.returncode == 1 and "part layouts was not finished" in ran.stdout
    rows = sorted(line.split("\t")[:2] for line in (out / "parts.tsv").read_text().splitlines())
    assert rows == [["layouts", "1"], ["ranks", "0"]]
    assert (
        "layouts: -m moss_train.cli.main verify layouts --gpus 2" in ran.stdout and "--ranks 2" in (out / "ranks.log").read_text()
    )
    assert json.loads((out / "parity.json").read_text())["all_passed"] is False and "golden: left out" in ran.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("together", ["yes", "no"])
def test_its_parts_end_with_it(number: int, together: str, tmp_path: Path) -> None:
    stub = tmp_path / "python"
    stub.write_text('#!/usr/bin/env bash\necho $$ >"$PIDS/$4"\nsleep 50 &\necho $! >"$PIDS/$4.child"\nwait\n')
    stub.chmod(0o755)
    pids, wanted = tmp_path / "pids", {"layouts", "layouts.child"}
    pids.mkdir()
    wanted |= {"ranks", "ranks.child"} if together == "yes" else set()
    variables = {**os.environ, "PYTHON": str(stub), "PIDS": str(pids), "GOLDEN": "", "TOGETHER": together}
    command = ["bash", str(SCRIPT), "2", str(tmp_path / "out")]
    # As under a time limit or a terminal: the signal reaches the script's group, of which the parts are none.
    with subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        wait_for(lambda: {path.name for path in pids.iterdir() if path.read_text().strip()} == wanted)
        os.killpg(process.pid, number)
        assert process.wait(30) == 128 + number
    wait_for(lambda: not any(Path("/proc", path.read_text().strip()).exists() for path in pids.iterdir()))
    assert len(list(pids.iterdir())) == len(wanted), "nothing was begun behind the signal"


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("words", "environment", "said"),
    [
        (("2",), {}, "give the number of GPUs and a folder"),
        (("3", "out"), {}, "GPUS is '3'; use 1, 2, 4 or 8"),
        (("2", "out"), {"LIMIT": "20"}, "LIMIT is '20'"),
        (("2", "out"), {"LIMIT": "0230"}, "LIMIT is '0230'"),
        (("2", "out"), {"TOGETHER": "maybe"}, "TOGETHER is 'maybe'; use yes or no"),
        (("2", "out"), {"GOLDEN": "nowhere"}, "GOLDEN is 'nowhere', which holds no io.safetensors"),
        (("2", "out"), {"PYTHON": "no-python"}, "PYTHON is 'no-python', which is no program"),
    ],
)
def test_bad_words_end_in_a_sentence(words: tuple[str, ...], environment: dict[str, str], said: str) -> None:
    ran = script(*words, **environment)
    assert ran.returncode == 2 and said in ran.stderr


def test_help_names_every_variable() -> None:
    ran = script("--help")
    assert ran.returncode == 0
    assert all(f"\n  {name} " in ran.stdout for name in ("PYTHON", "GOLDEN", "LIMIT", "TOGETHER", "DEVICE", "MODULES"))
