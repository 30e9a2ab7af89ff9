"""launch/gpu_scaling.sh: its commands are ones that there are, its times fit, and a part that fails ends no other."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from moss_train.cli.bench import add_arguments
from moss_train.cli.main import parse_words
from moss_train.launching.folder import launch_dir

SCRIPT = launch_dir() / "gpu_scaling.sh"
STUB = """#!/usr/bin/env bash
# In the place of Python: a part writes what it was asked for; what joins them is real.
[ "$2" = moss_train.bench.scaling.joined ] && exec "$REAL" "$@"
echo "$*"
[[ " $* " != *" $FAILING "* ]] || exit 1
while [ $# -gt 0 ]; do
    [ "$1" != --out ] || echo '{"said": 1}' >"$2"
    shift
done
"""


def script(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHON": sys.executable, **environment}
    return subprocess.run(["bash", str(SCRIPT), *words], env=variables, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("gpus", ["2", "4", "8"])
def test_a_call_fits_into_ten_minutes_and_every_command_is_taken(gpus: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = script("--dry-run", gpus, str(out), SCALING="--steps 2 train.seed=3", FLEET="--parts rates")
    assert ran.returncode == 0, ran.stderr
    found = [shlex.split(line) for line in ran.stdout.splitlines()]
    assert sum(int(words[3]) for words in found) <= 590 and not out.exists(), "a dry run writes nothing"
    assert found[0][-3:] == [str(SCRIPT.parent / "gpu_parity.sh"), gpus, str(out)] and "LIMIT=195" in found[0]
    for words, command in zip(found[1:], ("scaling", "fleet"), strict=True):
        assert words[:3] == ["timeout", "-k", "10"] and words[4:9] == [
            sys.executable,
            "-m",
            "moss_train.cli.main",
            "bench",
            command,
        ]
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        arguments = parse_words(parser, words[8:])
        assert float(arguments.limit_seconds) + 25 <= int(words[3]) and arguments.out == out / f"{command}.json"
        assert arguments.gpus == (f"1,{gpus}" if command == "scaling" else gpus)


def test_parts_by_name_and_a_part_that_fails(tmp_path: Path) -> None:
    stub = tmp_path / "python"
    stub.write_text(STUB)
    stub.chmod(0o755)
    out = tmp_path / "out"
    ran = script("2", str(out), "full", "scaling", PYTHON=str(stub), REAL=sys.executable, FAILING="fleet", DEVICE="cpu")
    assert ran.returncode == 1 and "full: exit code 1" in ran.stdout, ran.stderr
    found = json.loads((out / "gpus-2.json").read_text())
    assert found["scaling"] == {"said": 1} and found["full"] is None and found["parity"] is None and found["gpus"] == 2
    assert {name: part["exit_code"] for name, part in found["parts"].items()} == {"scaling": 0, "full": 1}
    assert "--device cpu" in (out / "scaling.log").read_text()


@pytest.mark.parametrize(
    ("words", "environment", "said"),
    [
        (("2",), {}, "give the number of GPUs and a folder"),
        (("3", "out"), {}, "GPUS is '3'; use 2, 4 or 8"),
        (("2", "out", "speed"), {}, "there is no part 'speed'"),
        (("2", "out"), {"TIMES": "200 200"}, "TIMES is '200 200'"),
        (("2", "out"), {"DATA": "nowhere"}, "DATA is 'nowhere', no folder"),
        (("2", "out"), {"PYTHON": "no-python"}, "PYTHON is 'no-python', which is no program"),
    ],
)
def test_bad_words_end_in_a_sentence(words: tuple[str, ...], environment: dict[str, str], said: str) -> None:
    ran = script(*words, **environment)
    assert ran.returncode == 2 and said in ran.stderr
