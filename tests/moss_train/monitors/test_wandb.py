"""What W&B has of a run after kills and resumes, without a server, and how its files are read."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moss_train.config.logging import LoggingConfig
from moss_train.monitors.wandb_file import BLOCK, read_history, read_records, wandb_files
from moss_train.monitors.wandb_log import WandbLog
from tests.ranks import REPOSITORY

ROWS = 500


def process(folder: Path, mode: str, first: int, last: int, end: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.moss_train.monitors.wandb_process", str(folder), mode, str(first), str(last), end]
    return subprocess.run(
        command, cwd=REPOSITORY, env=os.environ | variables, capture_output=True, text=True, timeout=90, check=False
    )


def wait_for_ends(folder: Path) -> None:
    """Until the process that W&B runs in has noticed that its run is gone, and written what it had."""
    deadline = time.monotonic() + 20
    while not any(read_history(path)[1] for path in wandb_files(folder / "wandb")) and time.monotonic() < deadline:
        time.sleep(0.1)


def test_a_run_that_was_killed_twice_has_every_step_once(tmp_path: Path) -> None:
    """Steps 6 and 7 are repeated by the second process, whose last ones W&B may lose with the kill of all processes."""
    assert process(tmp_path, "offline", 0, 7, "kill").returncode == -9
    wait_for_ends(tmp_path)
    assert process(tmp_path, "offline", 5, 9, "kill_all").returncode == -9
    assert process(tmp_path, "offline", 8, 10, "end").returncode == 0
    files = wandb_files(tmp_path / "wandb")
    histories = [read_history(path) for path in files]
    rows = [row for _, found in histories for row in found]
    assert len(files) == 3
    assert {identity for identity, found in histories if found} == {(tmp_path / "wandb" / "run_id").read_text()}
    assert [row["step"] for row in rows] == [row["_step"] for row in rows] == list(range(11))
    assert [row["train/loss"] for row in rows[1:]] == [10.0 / step for step in range(1, 11)]
    assert rows[0]["eval/loss"] == rows[10]["eval/loss"] == 3.0 and rows[4]["grad_norm/head"] == 0.5


def test_an_unreachable_server_neither_delays_nor_loses_a_run(tmp_path: Path) -> None:
    done = process(tmp_path, "online", 0, 10, "end", WANDB_BASE_URL="http://127.0.0.1:1", WANDB_API_KEY="x" * 40)
    assert done.returncode == 0, done.stderr
    seconds = {line.split()[0]: float(line.split()[1]) for line in done.stdout.splitlines() if line[:6] in ("STARTE", "LOGGED")}
    assert seconds["LOGGED"] < 1.0
    assert "W&B cannot be reached" in done.stderr and "wandb sync" in done.stderr
    rows = [row for path in wandb_files(tmp_path / "wandb") for row in read_history(path)[1]]
    assert [row["step"] for row in rows] == list(range(11))


def test_a_folder_that_cannot_be_made_is_one_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    log = WandbLog(tmp_path / "file", LoggingConfig(wandb="offline"), "run", {}, tmp_path / "metrics.jsonl", every=1)
    log.started(0, 2)
    log.stepped({"step": 1, "loss": 1.0})
    log.finished()
    assert "W&B is switched off" in capsys.readouterr().err


@pytest.fixture(scope="module")
def long_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wandb")
    log = WandbLog(folder, LoggingConfig(wandb="offline"), "run", {}, folder / "metrics.jsonl", every=1)
    log.started(0, ROWS)
    for step in range(1, ROWS + 1):
        log.stepped({"step": step, "loss": 1.0 / step, "grad_norms": {f"module_{i}": float(i) for i in range(8)}})
    log.finished()
    return wandb_files(folder)[0]


def test_a_file_of_many_blocks_is_read_whole(long_file: Path) -> None:
    _, rows = read_history(long_file)
    assert long_file.stat().st_size > 5 * BLOCK
    assert [row["step"] for row in rows] == list(range(1, ROWS + 1))
    assert rows[-1]["grad_norm/module_7"] == 7.0


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1))
def test_a_file_cut_off_anywhere_gives_the_first_records(long_file: Path, tmp_path: Path, share: float) -> None:
    content = long_file.read_bytes()
    cut = tmp_path / "cut.wandb"
    cut.write_bytes(content[: round(share * len(content))])
    records, whole = list(read_records(cut)), list(read_records(long_file))
    assert records == whole[: len(records)] and len(records) <= len(whole)
    if share == 1:
        assert len(records) == len(whole)
