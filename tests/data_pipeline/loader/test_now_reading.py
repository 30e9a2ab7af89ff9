"""The note of the sample in hand outlives its process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from data_pipeline.loader.now_reading import CurrentSample, busy_with, current_sample

REPOSITORY = Path(__file__).resolve().parents[3]

READER = """
import sys, time
from data_pipeline.loader.now_reading import busy_with
with busy_with("video", "shard-000000.tar", "a rather long key", "read"):
    pass
if sys.argv[1] == "busy":
    with busy_with("video", "shard-000001.tar", "v7", "decode"):
        print("ready", flush=True)
        time.sleep(60)
print("ready", flush=True)
time.sleep(60)
"""


def _killed(how: str) -> int:
    process = subprocess.Popen([sys.executable, "-c", READER, how], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=30) == -signal.SIGKILL
    process.stdout.close()
    return process.pid


def test_a_killed_process_tells_its_sample() -> None:
    sample = current_sample(_killed("busy"))
    assert sample == CurrentSample("video", "shard-000001.tar", "v7", "decode")
    assert str(sample) == "video/v7 in shard-000001.tar (decode)"
    assert json.loads(sample.skip_line()) == {
        "kind": "bad",
        "dataset": "video",
        "shard": "shard-000001.tar",
        "key": "v7",
        "at": "decode",
    }


def test_between_two_samples_nothing_is_blamed() -> None:
    assert current_sample(_killed("idle")) is None
    with busy_with("d", "s", "k", "plan"):
        assert current_sample(os.getpid()) == CurrentSample("d", "s", "k", "plan")
    assert current_sample(os.getpid()) is None
    assert current_sample(2**22 + 1) is None  # no such process


def test_notes_of_a_run_that_is_gone_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parent is gone too: nobody will ask. In a folder where no loader of another test removes them first."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    program = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', sys.argv[1]]); p.wait(); print(p.pid)"
    child = """
import os
from data_pipeline.loader.now_reading import busy_with
with busy_with("d", "s", "k", "read"):
    os._exit(0)
"""
    command = [sys.executable, "-c", program, child]
    pid = int(subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True).stdout)
    assert current_sample(pid) == CurrentSample("d", "s", "k", "read") and len(list(tmp_path.iterdir())) == 1
    subprocess.run([sys.executable, "-c", child], cwd=REPOSITORY, check=True)  # another run begins
    assert current_sample(pid) is None
