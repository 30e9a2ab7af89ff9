"""launch/gpu_training.sh: its commands are ones that `moss bench` takes, its times fit, and a part that fails ends no other."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from moss_train.bench.convergence.configs import PAIRS
from moss_train.bench.convergence.runs import GRACE
from moss_train.cli.bench import add_arguments
from moss_train.cli.main import parse_words
from moss_train.launching.folder import launch_dir

SCRIPT = launch_dir() / "gpu_training.sh"
CALLS = {"1": 600, "2": 600, "3": 600}
ROOM = {"train": 25, "full": 25, "reference": 30, "convergence": GRACE + 10}
"""Seconds behind the limit: for the step or the model that was begun, and for what is written."""
STUB = """#!/usr/bin/env bash
# In the place of Python: says what it was asked for, and fails where it is told to.
[ "$1" = -c ] && { printf '%s' "$MISSING"; exit 0; }
echo "$*"
[[ " $* " != *" $FAILING "* ]] || exit 1
"""


def script(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHON": sys.executable, **environment}
    return subprocess.run(["bash", str(SCRIPT), *words], env=variables, capture_output=True, text=True, check=False, timeout=60)


def commands(*words: str) -> list[list[str]]:
    """Of a dry run, one list of words each."""
    ran = script("--dry-run", *words)
    assert ran.returncode == 0, ran.stderr
    return [shlex.split(line) for line in ran.stdout.splitlines()]


@pytest.mark.parametrize("call", list(CALLS))
def test_a_call_fits_into_its_time_and_every_command_is_one_of_moss_bench(call: str, tmp_path: Path) -> None:
    found = commands(call, str(tmp_path))
    seconds = [int(words[3]) for words in found]
    assert sum(seconds) <= CALLS[call] and len(found) >= 3
    for words in found:
        assert words[:3] == ["timeout", "-k", "10"] and words[4:8] == [sys.executable, "-m", "moss_train.cli.main", "bench"]
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        arguments = parse_words(parser, words[8:])
        if "--limit-seconds" in words:
            assert float(arguments.limit_seconds) + ROOM[words[8]] <= int(words[3]), "it ends by itself before it is ended"
            assert arguments.out.parent == tmp_path
        if words[8] == "convergence":
            assert set(arguments.pairs.split(",")) <= set(PAIRS)
    assert not list(tmp_path.iterdir()), "a dry run writes nothing"


def test_a_part_that_fails_ends_no_other(tmp_path: Path) -> None:
    stub = tmp_path / "python"
    stub.write_text(STUB)
    stub.chmod(0o755)
    out, save = tmp_path / "out", tmp_path / "save"
    environment = {"PYTHON": str(stub), "FAILING": "--profile", "MISSING": "av", "SAVE_DIR": str(save)}
    ran = script("1", "2", str(out), **environment)
    assert ran.returncode == 1
    rows = [line.split("\t")[:2] for line in (out / "parts.tsv").read_text().splitlines()]
    assert rows == [["train", "0"], ["profile", "1"], ["full", "0"], ["reference", "0"]]
    skipped = (out / "skipped.txt").read_text()
    assert (
        "data: skipped, av cannot be imported" in skipped and f"resume: skipped, {save}/moss-full holds no checkpoint" in skipped
    )
    assert "--case-seconds 4" in (out / "train.log").read_text()


def test_what_others_have_in_its_folders_stays(tmp_path: Path) -> None:
    stub = tmp_path / "python"
    stub.write_text(STUB)
    stub.chmod(0o755)
    out, save = tmp_path / "out", tmp_path / "save"
    mine = [save / "mine", out / "shards" / "video" / "mine"]
    for file in (*mine, save / "moss-full" / "old"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert (
        script("data", "full", "resume", str(out), PYTHON=str(stub), FAILING="nothing", MISSING="", SAVE_DIR=str(save)).returncode
        == 0
    )
    assert all(file.exists() for file in mine) and not (save / "moss-full").exists()


def test_the_page_takes_the_files_that_there_are(tmp_path: Path) -> None:
    for name in ("train", "mixture", "states"):
        (tmp_path / f"{name}.json").write_text("{}")
    (found,) = commands("page", str(tmp_path))
    assert found == [
        sys.executable, "-m", "moss_train.bench.train.page", "--merge", "--train", str(tmp_path / "train.json"),
        "--reference", str(tmp_path / "mixture.json"), "--convergence", str(tmp_path / "states.json"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("1",), "give calls or parts, and a folder"),
        (("4", "out"), "there is no part '4'"),
        (("1", "/proc/none"), "cannot be made"),
    ],
)
def test_bad_words_are_one_sentence(words: tuple[str, ...], message: str) -> None:
    ran = script(*words)
    assert ran.returncode == 2 and message in ran.stderr and ran.stderr.count("\n") == 1
